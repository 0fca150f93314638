//! A node: what it serves, and how it keeps up with the others.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use ringcall::cluster::discovery::{Instance, wall_clock_ms};
use ringcall::cluster::{Clock, Instant};
use ringcall::{
    Context, LocalClient, LocalStream, MachineClock, ReplyItems, Shard, ShardConfig, SlowConsumer,
    SpanIds, Stream, Subscription, Topic,
};

use crate::book::{Book, Change, Known, Limits, Merged, Registering, ms, read};
use crate::peers::{Heard, LISTENERS_MAX, Listens, Peers, STOOD_STILL, Tending, UP_TO_DATE, tend};
use crate::placing::Placing;
use crate::stamp::Ahead;
use crate::{
    Centre, GroupRules, Key, News, Placement, Refused, Registered, Registration, Registry,
    Replication, ReplicationClient, Said, ServiceCount, Watched, Withdrawal,
};

/// Settings of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Where the other nodes are. This node's own address does no harm among them.
    pub peers: Vec<String>,
    /// How many instances it keeps, and of how many it remembers that they have left: 100 000.
    pub instances_max: usize,
    /// How many bytes instances may take: 256 MiB.
    pub bytes_max: usize,
    /// The shortest lease that it gives: 1 s.
    pub lease_min: Duration,
    /// The longest lease that it gives: 1 h.
    pub lease_max: Duration,
    /// For how long instances are kept beyond their lease while a peer cannot be heard: 5 min.
    pub orphans: Duration,
    /// For how long it is remembered that an instance has left, beyond its lease and that: 10 min.
    pub memory: Duration,
    /// How many changes a watcher may be behind until it has to begin anew: 4096.
    pub backlog: usize,
    /// How many sayings another node may be behind until it has to begin anew: 65 536, of which each instance has one each time
    /// that it says that it is there.
    pub bus_backlog: usize,
    /// How many watches there may be at a time: 10 000.
    pub watches_max: usize,
    /// How long a node that has started waits for what its peers know before it tells watchers what it knows: 20 s, in which
    /// instances have said again that they are there, if no peer answers.
    pub settle: Duration,
    /// Where it looks which groups instances are moved to, the settings `groups/` and a service: mostly the centre that is served beside
    /// it. Without one, which is the default, it says nothing of groups, and passes on what instances say.
    pub centre: Option<Centre>,
    /// The wall clock, in milliseconds since 1970. A simulation has one of its own.
    pub wall_clock_ms: fn() -> u64,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            peers: Vec::new(),
            instances_max: 100_000,
            bytes_max: 256 << 20,
            lease_min: Duration::from_secs(1),
            lease_max: Duration::from_secs(3600),
            orphans: Duration::from_secs(300),
            memory: Duration::from_secs(600),
            backlog: 4096,
            bus_backlog: 65_536,
            watches_max: 10_000,
            settle: Duration::from_secs(20),
            centre: None,
            wall_clock_ms,
        }
    }
}

/// What a node has counted since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct NodeCounts {
    /// Texts of the settings `groups/` and a service that could not be read.
    pub group_rules_refused: u64,
}

/// How much of all instances a piece of news has.
const IN_A_PART: usize = 256;
const PART_BYTES: usize = 256 * 1024;
/// How many services and instances are told to whoever does not watch.
const TOLD_MAX: usize = 1000;
const NAME_BYTES_MAX: usize = 256;

/// A node of the registry: serve it as [`Registry`] and [`Replication`], and have it [tended](Node::tend), or it misses nobody and
/// hears nobody. Clones are the same node.
#[derive(Clone)]
pub struct Node(Arc<Shared>);

struct Shared {
    id: u64,
    config: NodeConfig,
    /// What is said to this node goes to all others.
    bus: Topic<Arc<Said>>,
    peers: Peers,
    state: Mutex<State>,
    /// Nothing else is locked by whoever has it but the centre.
    placing: Mutex<Placing>,
}

struct State {
    book: Book,
    watchers: BTreeMap<String, Topic<Arc<News>>>,
    /// Of the last change: wall time, or later.
    revision: u64,
    swept: Instant,
    told: Instant,
}

impl fmt::Debug for Node {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Node").field("id", &self.0.id).finish_non_exhaustive()
    }
}

impl Node {
    /// A node that knows nothing yet.
    ///
    /// # Panics
    /// With a backlog of 0.
    #[must_use]
    pub fn new(config: NodeConfig) -> Node {
        let (id, now) = (MachineClock.next_span_id(), MachineClock.now());
        let limits = Limits {
            instances_max: config.instances_max,
            bytes_max: config.bytes_max,
            lease_max: config.lease_max,
            orphans: config.orphans,
            memory: config.memory,
        };
        let state = State {
            book: Book::new(id, limits),
            watchers: BTreeMap::new(),
            revision: 0,
            swept: now,
            told: now,
        };
        let bus = Topic::new(config.bus_backlog, SlowConsumer::Close);
        let peers = Peers::new(config.peers.clone());
        let placing = Mutex::default();
        Node(Arc::new(Shared { id, config, bus, peers, state: Mutex::new(state), placing }))
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> NodeCounts {
        NodeCounts { group_rules_refused: self.0.placing.lock().refused() }
    }

    /// Does on this shard what is to be done all the time: to hear the other nodes, and to miss instances that are not heard of.
    /// It ends with the shard.
    pub fn tend(&self, shard: &Shard) {
        shard.spawn(tend(self.clone(), shard.clone()));
    }

    /// The same on a thread of its own, until what is returned is dropped.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(&self, config: ShardConfig) -> io::Result<Tending> {
        Tending::start("registry-node", config, self.clone())
    }
}

impl Listens for Node {
    const WHAT: &'static str = "instances";
    type Said = ReplyItems<LocalStream, Said, Refused>;
    type News = Said;

    fn id(&self) -> u64 {
        self.0.id
    }

    fn peers(&self) -> &Peers {
        &self.0.peers
    }

    async fn listen(&self, client: LocalClient) -> Result<Self::Said, String> {
        ReplicationClient::new(client).replicate().await.map_err(|error| error.to_string())
    }

    async fn next(said: &mut Self::Said) -> Option<Result<Heard<Said>, String>> {
        Some(match said.next().await? {
            Err(error) => Err(error.to_string()),
            Ok(item) => Ok(match item.to_owned() {
                Said::Node { id } => Heard::Node(id),
                Said::UpToDate => Heard::UpToDate,
                news => Heard::News(news),
            }),
        })
    }

    async fn take(&self, said: Said) -> Result<(), Ahead> {
        self.0.take(&said)
    }

    fn tick(&self) {
        self.0.sweep();
    }
}

impl Shared {
    fn wall_ms(&self) -> u64 {
        (self.config.wall_clock_ms)()
    }

    /// The group that an instance is to be in, if this node knows that.
    fn place(&self, instance: &Instance) -> Option<Placement> {
        let centre = self.config.centre.as_ref()?;
        self.placing.lock().place(centre, instance)
    }

    /// Takes what another node says, and tells all who are to know.
    fn take(&self, said: &Said) -> Result<(), Ahead> {
        let mut state = self.state.lock();
        let merged = state.book.merge(MachineClock.now(), self.wall_ms(), said)?;
        self.tell(&mut state, said, merged);
        Ok(())
    }

    /// The same of what this node itself says.
    fn take_own(&self, state: &mut State, said: &Said) {
        let merged = state.book.take_own(MachineClock.now(), said);
        self.tell(state, said, merged);
    }

    // What is told is told in the order in which it was taken, so all of it is under the lock.
    fn tell(&self, state: &mut State, said: &Said, merged: Merged) {
        if merged.is_news {
            let said = merged.instead.unwrap_or_else(|| said.clone());
            // Whoever is too slow is closed, so nobody is waited for.
            let _ = self.bus.publish(Arc::new(said));
        }
        if let Some(change) = merged.change {
            state.tell_watchers(self.wall_ms(), change);
        }
    }

    fn sweep(&self) {
        let (now, wall_ms) = (MachineClock.now(), self.wall_ms());
        let mut state = self.state.lock();
        let pause = now.since(state.swept);
        state.swept = now;
        if pause > STOOD_STILL {
            log::warn!("stood still for {pause:?}");
            state.book.stood_still(pause);
        }
        let up_to_date = self.peers.up_to_date();
        for key in state.book.sweep(now, up_to_date) {
            log::info!("{}/{} was not heard of within its lease", key.service, key.name);
            state.tell_watchers(wall_ms, Change::Removed(key));
        }
        state.watchers.retain(|_, topic| topic.subscribers() > 0);
        if now.since(state.told) >= UP_TO_DATE {
            state.told = now;
            let _ = self.bus.publish(Arc::new(Said::UpToDate));
        }
    }
}

impl State {
    fn next_revision(&mut self, wall_ms: u64) -> u64 {
        self.revision = wall_ms.max(self.revision.saturating_add(1));
        self.revision
    }

    fn tell_watchers(&mut self, clock_ms: u64, change: Change) {
        // Each change has a revision of its own, watched or not: who watches later is told of a later one.
        let revision = self.next_revision(clock_ms);
        let (service, news) = match change {
            Change::Put(key, line) => {
                let instance = line.as_ref().to_owned();
                (key.service, News::Put { revision, clock_ms, instance })
            }
            Change::Removed(Key { service, name }) => {
                (service, News::Removed { revision, clock_ms, name })
            }
        };
        if let Some(topic) = self.watchers.get(&service) {
            let _ = topic.publish(Arc::new(news));
        }
    }

    fn watches(&self) -> usize {
        self.watchers.values().map(Topic::subscribers).sum()
    }
}

impl Registry for Node {
    async fn register(&self, registration: Registration) -> Result<Registered, Refused> {
        let Registration { instance, lease_ms, incarnation, registered_ms } = registration;
        let config = &self.0.config;
        let lease = Duration::from_millis(lease_ms.into());
        if lease < config.lease_min || lease > config.lease_max {
            let (min_ms, max_ms) = (ms(config.lease_min), ms(config.lease_max));
            return Err(Refused::BadLease { min_ms, max_ms });
        }
        let instance = read(&instance).map_err(|what| Refused::BadInstance { what })?;
        let placed = self.0.place(&instance);
        let registering = Registering { instance, lease, incarnation, registered_ms };
        let mut state = self.0.state.lock();
        let (registered_ms, said) = state.book.register(self.0.wall_ms(), registering)?;
        self.0.take_own(&mut state, &said);
        Ok(Registered { registered_ms, renew_ms: lease_ms / 3, placed })
    }

    async fn placement(&self, instance: String) -> Result<Option<Placement>, Refused> {
        let instance = read(&instance).map_err(|what| Refused::BadInstance { what })?;
        Ok(self.0.place(&instance))
    }

    async fn group_rules(&self, service: String) -> Result<GroupRules, Refused> {
        if service.is_empty() || service.len() > NAME_BYTES_MAX {
            return Err(Refused::BadName);
        }
        let Some(centre) = &self.0.config.centre else { return Ok(GroupRules::default()) };
        Ok(self.0.placing.lock().rules(centre, &service))
    }

    async fn withdraw(&self, withdrawal: Withdrawal) {
        let Withdrawal { key, incarnation, lease_ms } = withdrawal;
        if key.service.len().max(key.name.len()) > NAME_BYTES_MAX {
            return;
        }
        let mut state = self.0.state.lock();
        let said = state.book.withdraw(self.0.wall_ms(), key, incarnation, lease_ms);
        if let Some(said) = said {
            self.0.take_own(&mut state, &said);
        }
    }

    async fn watch(
        &self,
        cx: &Context,
        watched: Watched,
    ) -> Result<impl Stream<Item = News>, Refused> {
        let Watched { service, heard } = watched;
        if service.is_empty() || service.len() > NAME_BYTES_MAX {
            return Err(Refused::BadName);
        }
        let config = &self.0.config;
        let mut state = self.0.state.lock();
        if self.0.peers.is_starting(config.settle) {
            return Err(Refused::Starting);
        }
        if state.watches() >= config.watches_max {
            return Err(Refused::Busy);
        }
        let clock_ms = self.0.wall_ms();
        let revision = state.next_revision(clock_ms);
        let instances = state.book.instances(&service).cloned().collect();
        let topic = || Topic::new(config.backlog, SlowConsumer::Close);
        let topic = state.watchers.entry(service).or_insert_with(topic);
        let then = topic.subscribe().until(cx.draining());
        let first = All { revision, clock_ms, instances, next: Some(0) };
        // Whoever was told something by another node is told what is later, without any harm to others' revisions.
        let later_by = heard.saturating_sub(revision).saturating_add(u64::from(heard >= revision));
        Ok(Later { news: FirstThen { first, then }, by: later_by })
    }

    async fn services(&self) -> Vec<ServiceCount> {
        let state = self.0.state.lock();
        let count = |(service, count): (&str, usize)| ServiceCount {
            service: service.to_owned(),
            instances: u32::try_from(count).unwrap_or(u32::MAX),
        };
        state.book.services().take(TOLD_MAX).map(count).collect()
    }

    async fn instances(&self, service: String) -> Vec<String> {
        let state = self.0.state.lock();
        let mut bytes = 0;
        let fits = |line: &&Arc<str>| {
            bytes += line.len();
            bytes <= 4 * PART_BYTES
        };
        let lines = state.book.instances(&service).take(TOLD_MAX).take_while(fits);
        lines.map(|line| line.as_ref().to_owned()).collect()
    }
}

impl Replication for Node {
    async fn replicate(&self, cx: &Context) -> Result<impl Stream<Item = Said>, Refused> {
        let state = self.0.state.lock();
        if self.0.bus.subscribers() >= LISTENERS_MAX {
            return Err(Refused::Busy);
        }
        let known = state.book.all(MachineClock.now()).into_iter().map(Known::say);
        let first = std::iter::once(Said::Node { id: self.0.id }).chain(known);
        let first = first.chain(std::iter::once(Said::UpToDate));
        Ok(FirstThen { first, then: self.0.bus.subscribe().until(cx.draining()) })
    }
}

/// All instances of a service, in parts that fit into a message each: made when they are sent, since many may be asked for
/// at a time.
struct All {
    revision: u64,
    clock_ms: u64,
    instances: Vec<Arc<str>>,
    /// Where the next part begins; `None` behind the last one.
    next: Option<usize>,
}

impl Iterator for All {
    type Item = News;

    fn next(&mut self) -> Option<News> {
        let rest = &self.instances[self.next?..];
        let mut bytes = 0;
        let fits = |line: &&Arc<str>| {
            bytes += line.len();
            // One has to, and does: a line is shorter.
            bytes <= PART_BYTES
        };
        let part = rest.iter().take(IN_A_PART).take_while(fits);
        let instances: Vec<String> = part.map(|line| line.as_ref().to_owned()).collect();
        let is_last = instances.len() == rest.len();
        self.next = self.next.filter(|_| !is_last).map(|next| next + instances.len());
        let (revision, clock_ms) = (self.revision, self.clock_ms);
        Some(News::All { revision, clock_ms, instances, is_last })
    }
}

/// What there is, and then what is published.
struct FirstThen<I, T> {
    first: I,
    then: Subscription<Arc<T>>,
}

impl<I, T> Stream for FirstThen<I, T>
where
    I: Iterator<Item = T> + Unpin,
    T: Clone,
{
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        let this = self.get_mut();
        match this.first.next() {
            Some(item) => Poll::Ready(Some(item)),
            None => {
                let then = Pin::new(&mut this.then).poll_next(cx);
                then.map(|item| item.map(Arc::unwrap_or_clone))
            }
        }
    }
}

/// News whose revisions are later than they were.
struct Later<S> {
    news: S,
    by: u64,
}

impl<S: Stream<Item = News> + Unpin> Stream for Later<S> {
    type Item = News;

    fn poll_next(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<News>> {
        let this = self.get_mut();
        let by = this.by;
        Pin::new(&mut this.news).poll_next(cx).map(|news| {
            news.map(|mut news| {
                let (News::All { revision, .. }
                | News::Put { revision, .. }
                | News::Removed { revision, .. }) = &mut news;
                *revision = revision.saturating_add(by);
                news
            })
        })
    }
}
