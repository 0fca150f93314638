//! A centre of settings: a node that keeps them, tells the others, and those who watch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::future::poll_fn;
use std::io;
use std::ops::Bound;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use parking_lot::{Mutex, MutexGuard};
use ringcall::cluster::discovery::wall_clock_ms;
use ringcall::cluster::{Clock, Instant};
use ringcall::{
    Context, LocalClient, LocalStream, MachineClock, ReplyItems, Shard, ShardConfig, SlowConsumer,
    SpanIds, Stream, Subscription, Topic,
};

use crate::directory::{BadDirectory, Directory};
use crate::peers::{Heard, LISTENERS_MAX, Listens, Peers, STOOD_STILL, Tending, UP_TO_DATE, tend};
use crate::settings::KEYS_OF_A_WATCH_MAX;
use crate::shelf::{Limits, Shelf, Verdict, is_key};
use crate::stamp::Ahead;
use crate::{
    CentreCounts, Condition, Configuration, ConfigurationReplication,
    ConfigurationReplicationClient, Declined, ListKeys, Listed, Put, Remove, Setting, SettingNews,
    SettingRecord, SettingSaid, Stamp, WatchedKey,
};

/// Settings of a node that keeps settings.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct CentreConfig {
    /// Where the other nodes are. This node's own address does no harm among them.
    pub peers: Vec<String>,
    /// Where settings are kept, in a file for each: made if the folder above it is there. Without one, which is the default, the
    /// node takes no settings, and only passes on what others keep.
    pub directory: Option<PathBuf>,
    /// How many settings it keeps, and of how many keys it remembers that they were removed: 10 000.
    pub keys_max: usize,
    /// How many bytes settings may take, with 512 for each key: 64 MiB.
    pub bytes_max: usize,
    /// How many keys may be watched at a time, counted once for each who watches: 10 000.
    pub watches_max: usize,
    /// For how long it is remembered that a key was removed: 30 days. What a node says of it that has not heard so does not bring
    /// it back.
    pub memory: Duration,
    /// For how long this node must have known that a key was removed, have heard all peers without a break, and been listened to by as
    /// many nodes, before it is forgotten, so that they have heard so, too: 1 h.
    pub heard: Duration,
    /// How long a node that has started waits for what its peers know before it takes settings and tells watchers what it
    /// knows: 5 s.
    pub settle: Duration,
    /// The wall clock, in milliseconds since 1970. A simulation has one of its own.
    pub wall_clock_ms: fn() -> u64,
}

impl Default for CentreConfig {
    fn default() -> CentreConfig {
        CentreConfig {
            peers: Vec::new(),
            directory: None,
            keys_max: 10_000,
            bytes_max: 64 << 20,
            watches_max: 10_000,
            memory: Duration::from_secs(30 * 24 * 3600),
            heard: Duration::from_secs(3600),
            settle: Duration::from_secs(5),
            wall_clock_ms,
        }
    }
}

/// How often it is looked for removed keys that may be forgotten.
const FORGET: Duration = Duration::from_secs(10);
/// How many of them are at a time, while others wait for the disk.
const FORGOTTEN: usize = 16;
/// How many settings are written at a time that could not be before.
const WRITTEN_AGAIN: usize = 16;
/// How many settings a list has.
const LIST_MAX: usize = 1000;

/// A node that keeps settings: serve it as [`Configuration`] and [`ConfigurationReplication`], and have it [tended](Centre::tend), or it
/// hears nobody. Clones are the same node.
///
/// ```
/// use ringcall::{Client, Server, ShardConfig};
/// use ringcall_registry::{
///     Centre, CentreConfig, Condition, Configuration as _, ConfigurationClient,
///     ConfigurationReplication as _, Put,
/// };
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let directory = std::env::temp_dir().join(format!("ringcall-centre-{}", std::process::id()));
/// let mut config = CentreConfig::default();
/// config.directory = Some(directory.clone());
/// let centre = Centre::open(config)?;
/// let _tending = centre.start(ShardConfig::default())?;
/// let server = Server::bind("127.0.0.1:0")
///     .service(centre.clone().into_configuration())
///     .service(centre.into_configuration_replication())
///     .start()?;
///
/// let operator = ConfigurationClient::<Client>::connect(server.address()).wait()?;
/// let put = Put { key: "shop".into(), text: "open = true".into(), condition: Condition::Absent };
/// let version = operator.put(&put).wait()?.to_owned();
/// assert_eq!(operator.get(&"shop".to_owned()).wait()?.to_owned().version, version);
/// # server.stop();
/// # std::fs::remove_dir_all(directory)?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Centre(Arc<Shared>);

struct Shared {
    id: u64,
    config: CentreConfig,
    peers: Peers,
    /// Whoever changes something has this first, so that what is on disk and what is told are changed in one order. It is held
    /// while the disk is written, the state is not.
    disk: Mutex<Disk>,
    state: Mutex<State>,
    /// Something has changed, or time has passed.
    changes: Topic<()>,
}

struct Disk {
    directory: Option<Directory>,
    /// Keys whose files are older than what is known.
    behind: BTreeSet<String>,
    /// Which of them was tried last.
    tried: String,
    /// Since when as many nodes listen to this one as there are others.
    listened: Instant,
    /// When it was looked last at the time, and for removed keys that may be forgotten.
    ticked: Instant,
    forgot: Instant,
}

struct State {
    shelf: Shelf,
    /// Of each key that is watched.
    watchers: BTreeMap<String, Topic<()>>,
    /// How often others have been told that they have heard all.
    told: u64,
    /// When that was last.
    told_at: Instant,
    overwritten: u64,
    not_taken: u64,
    not_written: u64,
}

impl fmt::Debug for Centre {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Centre").field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl Centre {
    /// A node that knows what is in its directory.
    ///
    /// # Errors
    /// When that cannot be read, a file in it is not as it was written, or another process has it, which is waited for a second.
    pub fn open(config: CentreConfig) -> Result<Centre, BadDirectory> {
        // As many bits as a number of JSON has everywhere: it is a part of versions.
        let (id, now) = (MachineClock.next_span_id() >> 11, MachineClock.now());
        let limits = Limits { keys_max: config.keys_max, bytes_max: config.bytes_max };
        let mut shelf = Shelf::new(limits);
        let directory = config.directory.as_deref().map(Directory::open).transpose()?;
        if let Some(directory) = &directory {
            directory.read(|record| {
                shelf.keep(now, Arc::new(record));
                !shelf.is_beyond()
            })?;
        }
        let state = State {
            shelf,
            watchers: BTreeMap::new(),
            told: 0,
            told_at: now,
            overwritten: 0,
            not_taken: 0,
            not_written: 0,
        };
        let disk = Disk {
            directory,
            behind: BTreeSet::new(),
            tried: String::new(),
            listened: now,
            ticked: now,
            forgot: now,
        };
        Ok(Centre(Arc::new(Shared {
            id,
            peers: Peers::new(config.peers.clone()),
            config,
            disk: Mutex::new(disk),
            state: Mutex::new(state),
            changes: signal(),
        })))
    }

    /// Does on this shard what is to be done all the time: to hear the other nodes, and to forget what was removed. It ends with the
    /// shard. It waits for the disk there when others tell something new, so the shard should have nothing else to do.
    pub fn tend(&self, shard: &Shard) {
        shard.spawn(tend(self.clone(), shard.clone()));
    }

    /// The same on a thread of its own, until what is returned is dropped.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(&self, config: ShardConfig) -> io::Result<Tending> {
        Tending::start("centre", config, self.clone())
    }

    /// What there is, and what was counted.
    #[must_use]
    pub fn counts(&self) -> CentreCounts {
        let state = self.0.state.lock();
        let [settings, removed, bytes] = state.shelf.counts().map(|count| count as u64);
        let watches = state.watches() as u64;
        let State { overwritten, not_taken, not_written, .. } = *state;
        CentreCounts { settings, removed, bytes, watches, overwritten, not_taken, not_written }
    }
}

impl Centre {
    /// What is kept of a key, unless it has just started and others may know better.
    pub(crate) fn record(&self, key: &str) -> Option<Arc<SettingRecord>> {
        if self.0.peers.is_starting(self.0.config.settle) {
            return None;
        }
        self.0.state.lock().shelf.get(key).cloned()
    }
}

/// Says that there is something to look for, however often.
fn signal() -> Topic<()> {
    Topic::new(1, SlowConsumer::DropOldest)
}

impl Listens for Centre {
    const WHAT: &'static str = "settings";
    type Said = ReplyItems<LocalStream, SettingSaid, Declined>;
    type News = SettingRecord;

    fn id(&self) -> u64 {
        self.0.id
    }

    fn peers(&self) -> &Peers {
        &self.0.peers
    }

    async fn listen(&self, client: LocalClient) -> Result<Self::Said, String> {
        let replication = ConfigurationReplicationClient::new(client);
        replication.replicate().await.map_err(|error| error.to_string())
    }

    async fn next(said: &mut Self::Said) -> Option<Result<Heard<SettingRecord>, String>> {
        Some(match said.next().await? {
            Err(error) => Err(error.to_string()),
            Ok(item) => Ok(match item.to_owned() {
                SettingSaid::Node { id } => Heard::Node(id),
                SettingSaid::UpToDate => Heard::UpToDate,
                SettingSaid::Record { record } => Heard::News(record),
            }),
        })
    }

    async fn take(&self, record: SettingRecord) -> Result<(), Ahead> {
        let taken = self.0.take(record);
        // The disk may have taken long: the shard has its connections to look after.
        yield_once().await;
        taken
    }

    fn tick(&self) {
        self.0.tick();
    }
}

async fn yield_once() {
    let mut is_again = false;
    poll_fn(|cx| match std::mem::replace(&mut is_again, true) {
        true => Poll::Ready(()),
        false => {
            cx.waker().wake_by_ref();
            Poll::Pending
        }
    })
    .await;
}

impl Shared {
    fn wall_ms(&self) -> u64 {
        (self.config.wall_clock_ms)()
    }

    // ---- what is said to this node ----

    /// Puts a text, or removes a key.
    fn change(
        &self,
        key: String,
        text: Option<String>,
        condition: Condition,
    ) -> Result<Stamp, Declined> {
        if self.peers.is_starting(self.config.settle) {
            return Err(Declined::Starting);
        }
        let disk = &mut *self.disk.lock();
        let directory = disk.directory.as_ref().ok_or(Declined::NoDirectory)?;
        let now = (self.wall_ms(), self.id);
        let record = self.state.lock().shelf.change(now, key, text, condition)?;
        let written = self.write(directory, &record);
        written.map_err(|error| Declined::NotWritten { what: error.to_string() })?;
        disk.behind.remove(&record.key);
        let SettingRecord { key, version, text, .. } = &record;
        let (version, what) = (*version, if text.is_some() { "put" } else { "removed" });
        log::info!("the setting {key:?} was {what} as version {version}");
        self.keep(self.state.lock(), record);
        Ok(version)
    }

    /// Takes what another node says.
    fn take(&self, record: SettingRecord) -> Result<(), Ahead> {
        let disk = &mut *self.disk.lock();
        let verdict = {
            let mut state = self.state.lock();
            let verdict = state.shelf.judge(self.wall_ms(), &record);
            state.count(verdict, &record);
            verdict?
        };
        if let Verdict::Later { .. } = verdict {
            let written = disk.directory.as_ref().map(|it| self.write(it, &record));
            match written {
                // Another node has it; here it is tried again.
                Some(Err(_)) => disk.behind.insert(record.key.clone()),
                _ => disk.behind.remove(&record.key),
            };
            self.keep(self.state.lock(), record);
        }
        Ok(())
    }

    fn write(&self, directory: &Directory, record: &SettingRecord) -> io::Result<()> {
        directory.write(record).inspect_err(|error| {
            log::error!("the setting {:?} could not be written: {error}", record.key);
            self.state.lock().not_written += 1;
        })
    }

    fn keep(&self, mut state: MutexGuard<'_, State>, record: SettingRecord) {
        let record = Arc::new(record);
        state.shelf.keep(MachineClock.now(), Arc::clone(&record));
        if let Some(topic) = state.watchers.get(&record.key) {
            let _ = topic.publish(());
        }
        let _ = self.changes.publish(());
    }

    // ---- time ----

    fn tick(&self) {
        let now = MachineClock.now();
        {
            let mut state = self.state.lock();
            state.watchers.retain(|_, topic| topic.subscribers() > 0);
            if now.since(state.told_at) >= UP_TO_DATE {
                state.told_at = now;
                state.told += 1;
                let _ = self.changes.publish(());
            }
        }
        let disk = &mut *self.disk.lock();
        let pause = now.since(std::mem::replace(&mut disk.ticked, now));
        if pause > STOOD_STILL {
            self.peers.stood_still(now);
        }
        // That they are heard does not mean that they hear this one.
        if pause > STOOD_STILL || self.changes.subscribers() < self.peers.others() {
            disk.listened = now;
        }
        self.write_again(disk);
        if now.since(disk.forgot) >= FORGET && !self.forget(now, disk) {
            disk.forgot = now;
        }
    }

    /// Writes what could not be written before, one after the other: what cannot be for long keeps nothing else from it.
    fn write_again(&self, disk: &mut Disk) {
        let Some(directory) = &disk.directory else { return };
        for _ in 0..WRITTEN_AGAIN {
            let further = (Bound::Excluded(disk.tried.as_str()), Bound::Unbounded);
            let mut further = disk.behind.range::<str, _>(further);
            let Some(key) = further.next().or_else(|| disk.behind.first()).cloned() else { return };
            disk.tried.clone_from(&key);
            let record = self.state.lock().shelf.get(&key).cloned();
            if record.is_some_and(|record| directory.write(&record).is_err()) {
                return;
            }
            disk.behind.remove(&key);
        }
    }

    /// Forgets keys that were removed long ago, of which all have heard. Says whether there may be more of them.
    fn forget(&self, now: Instant, disk: &Disk) -> bool {
        let heard = self.config.heard;
        if now.since(self.peers.heard_since().max(disk.listened)) < heard {
            return false;
        }
        let memory = u64::try_from(self.config.memory.as_millis()).unwrap_or(u64::MAX);
        let before = self.wall_ms().saturating_sub(memory);
        let keys: Vec<String> = {
            let state = self.state.lock();
            let old = state.shelf.removed_before(before, (now, heard));
            // On disk such a key may be there yet.
            let old = old.filter(|key| !disk.behind.contains(*key));
            old.take(FORGOTTEN).cloned().collect()
        };
        for key in &keys {
            // A file that stays is one of a removed key, to be forgotten again.
            if let Some(directory) = &disk.directory
                && let Err(error) = directory.remove(key)
            {
                log::warn!("the file of the removed setting {key:?} cannot be removed: {error}");
            }
            self.state.lock().shelf.forget(key);
        }
        keys.len() == FORGOTTEN
    }
}

impl State {
    fn count(&mut self, verdict: Result<Verdict, Ahead>, record: &SettingRecord) {
        let SettingRecord { key, version, .. } = record;
        match verdict {
            Ok(Verdict::Later { lost: Some(lost) }) => {
                self.overwritten += 1;
                log::warn!(
                    "version {lost} of the setting {key:?} was overwritten by {version}, which was put where it was not known"
                );
            }
            Ok(Verdict::Older { is_lost: true }) => {
                self.overwritten += 1;
                log::warn!(
                    "version {version} of the setting {key:?} was overwritten by a later one, which was put where it was not \
                     known"
                );
            }
            Ok(Verdict::NotTaken(why)) => {
                self.not_taken += 1;
                // There may be many of them.
                if self.not_taken.is_power_of_two() {
                    let count = self.not_taken;
                    log::error!(
                        "{count} settings were not taken from other nodes, the last one because {why}"
                    );
                }
            }
            Err(Ahead) => self.not_taken += 1,
            Ok(_) => {}
        }
    }

    fn watches(&self) -> usize {
        self.watchers.values().map(Topic::subscribers).sum()
    }
}

impl Configuration for Centre {
    async fn put(&self, put: Put) -> Result<Stamp, Declined> {
        let Put { key, text, condition } = put;
        self.0.change(key, Some(text), condition)
    }

    async fn remove(&self, remove: Remove) -> Result<Stamp, Declined> {
        let Remove { key, condition } = remove;
        self.0.change(key, None, condition)
    }

    async fn get(&self, key: String) -> Result<Setting, Declined> {
        let state = self.0.state.lock();
        state.shelf.get(&key).and_then(|record| record.setting()).ok_or(Declined::NoSuchKey)
    }

    async fn list(&self, list: ListKeys) -> Vec<Listed> {
        let ListKeys { prefix, after } = list;
        let state = self.0.state.lock();
        state.shelf.list(&prefix, &after).take(LIST_MAX).collect()
    }

    async fn status(&self) -> CentreCounts {
        self.counts()
    }

    async fn watch(
        &self,
        cx: &Context,
        keys: Vec<WatchedKey>,
    ) -> Result<impl Stream<Item = SettingNews>, Declined> {
        if !(1..=KEYS_OF_A_WATCH_MAX).contains(&keys.len()) {
            return Err(Declined::BadWatch);
        }
        if !keys.iter().all(|watched| is_key(&watched.key)) {
            return Err(Declined::BadKey);
        }
        if self.0.peers.is_starting(self.0.config.settle) {
            return Err(Declined::Starting);
        }
        let mut state = self.0.state.lock();
        if state.watches() + keys.len() > self.0.config.watches_max {
            return Err(Declined::Busy);
        }
        // Of keys that nobody watches any more there are no more than that, however fast watches come and go.
        if state.watchers.len() + keys.len() > self.0.config.watches_max {
            state.watchers.retain(|_, topic| topic.subscribers() > 0);
        }
        let look = |WatchedKey { key, heard }| {
            let topic = state.watchers.entry(key.clone()).or_insert_with(signal);
            let changes = topic.subscribe().until(cx.draining());
            Looking { key, heard, is_first: true, is_due: true, changes }
        };
        let keys = keys.into_iter().map(look).collect();
        Ok(Watching { centre: Arc::clone(&self.0), keys })
    }
}

/// What there is of a few keys, and then what changes.
struct Watching {
    centre: Arc<Shared>,
    keys: Vec<Looking>,
}

/// A key that somebody watches.
struct Looking {
    key: String,
    /// The version of which it has heard.
    heard: Option<Stamp>,
    is_first: bool,
    /// It has changed, or has not been looked at yet.
    is_due: bool,
    changes: Subscription<()>,
}

impl Looking {
    /// Whether there is something to look at, or to wait for.
    fn goes_on(&mut self, cx: &mut TaskContext<'_>) -> bool {
        loop {
            match Pin::new(&mut self.changes).poll_next(cx) {
                Poll::Ready(Some(())) => self.is_due = true,
                Poll::Ready(None) => return false,
                Poll::Pending => return true,
            }
        }
    }

    fn look(&mut self, shelf: &Shelf) -> Option<SettingNews> {
        let is_first = std::mem::replace(&mut self.is_first, false);
        if !std::mem::replace(&mut self.is_due, false) {
            return None;
        }
        match shelf.get(&self.key) {
            None if is_first && self.heard.is_none() => {
                Some(SettingNews::Unknown { key: self.key.clone() })
            }
            Some(record) if Some(record.version) > self.heard => {
                self.heard = Some(record.version);
                Some(record.news())
            }
            _ => None,
        }
    }
}

impl Stream for Watching {
    type Item = SettingNews;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<SettingNews>> {
        let Watching { centre, keys } = self.get_mut();
        if !keys.iter_mut().all(|looking| looking.goes_on(cx)) {
            return Poll::Ready(None);
        }
        let state = centre.state.lock();
        match keys.iter_mut().find_map(|looking| looking.look(&state.shelf)) {
            Some(news) => Poll::Ready(Some(news)),
            None => Poll::Pending,
        }
    }
}

impl ConfigurationReplication for Centre {
    async fn replicate(&self, cx: &Context) -> Result<impl Stream<Item = SettingSaid>, Declined> {
        let _one_at_a_time = self.0.state.lock();
        if self.0.changes.subscribers() >= LISTENERS_MAX {
            return Err(Declined::Busy);
        }
        let changes = self.0.changes.subscribe().until(cx.draining());
        let centre = Arc::clone(&self.0);
        Ok(Telling { centre, is_introduced: false, place: None, told: None, changes })
    }
}

/// All that a node keeps, and then what it comes to keep: never more than the latest of a key, so that who listens slowly
/// holds nothing up.
struct Telling {
    centre: Arc<Shared>,
    is_introduced: bool,
    /// What was told last.
    place: Option<u64>,
    /// Which time it was that it was told last that this is all.
    told: Option<u64>,
    changes: Subscription<()>,
}

impl Stream for Telling {
    type Item = SettingSaid;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<SettingSaid>> {
        let this = self.get_mut();
        if !std::mem::replace(&mut this.is_introduced, true) {
            return Poll::Ready(Some(SettingSaid::Node { id: this.centre.id }));
        }
        loop {
            match Pin::new(&mut this.changes).poll_next(cx) {
                Poll::Ready(Some(())) => {}
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        let state = this.centre.state.lock();
        if let Some((place, record)) = state.shelf.behind(this.place) {
            this.place = Some(place);
            return Poll::Ready(Some(SettingSaid::Record { record: record.as_ref().clone() }));
        }
        if this.told != Some(state.told) {
            this.told = Some(state.told);
            return Poll::Ready(Some(SettingSaid::UpToDate));
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use ringcall::{Client, Server};

    use super::*;
    use crate::ConfigurationClient;

    #[test]
    fn what_nobody_watches_any_more_is_bounded_before_anybody_looks_for_it() {
        // Nobody tends it.
        let config = CentreConfig { watches_max: 64, ..CentreConfig::default() };
        let centre = Centre::open(config).unwrap();
        let server = Server::bind("127.0.0.1:0").service(centre.clone().into_configuration());
        let server = server.start().unwrap();
        let client = ConfigurationClient::<Client>::connect(server.address()).wait().unwrap();
        let mut taken = 0;
        while taken < 20 {
            let key = |number| WatchedKey { key: format!("{taken} {number}"), heard: None };
            let keys: Vec<_> = (0..32).map(key).collect();
            // One that was given up may not have ended yet.
            if client.watch(&keys).wait().is_ok() {
                taken += 1;
                assert!(centre.0.state.lock().watchers.len() <= 64);
            }
        }
        server.stop();
    }
}
