//! The registry as a source of instances, for whoever calls them.

use std::collections::VecDeque;
use std::sync::Arc;

use parking_lot::Mutex;
use ringcall::cluster::Instant;
use ringcall::cluster::discovery::{
    Change, Delta, Instance, Revision, Snapshot, Source, Update, read_list,
};
use ringcall::{LocalClient, Shard, ShardConfig};

use crate::addresses::{ANSWER, Addresses, check, follow};
use crate::book::OF_A_SERVICE_MAX;
use crate::thread::{Follows, OwnThread, Stop, StopOnDrop};
use crate::{News, RegistryClient, RegistryError, Watched};

/// The instances of a service, as the registry has them: a [`Source`] for [`Watch`](ringcall::cluster::Watch).
///
/// It watches one node, and the next one when that cannot be heard. What a node says is later than what the one before said;
/// where it has not heard yet what that knew, instances are missing for a moment, which a [guard](ringcall::cluster::discovery::GuardConfig)
/// does not believe.
///
/// [`balanced`](crate::balanced) does all of this in one call. By hand it is for channels with filters or connectors of your own:
///
/// ```no_run
/// use ringcall::cluster::discovery::Wanted;
/// use ringcall::cluster::{Balanced, Clients, Settings, Watch};
/// use ringcall_registry::RegistrySource;
///
/// let balanced = Balanced::new(Clients::new()?, Settings::new())?;
/// let source = RegistrySource::start(["10.0.0.1:7400"], "quotes")?;
/// let _watch = Watch::new(Wanted::service("quotes")).start(source, balanced.clone())?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct RegistrySource {
    inbox: Arc<Inbox>,
    _following: Follows,
}

/// Changes that were not asked for yet: more than that, and all is asked for anew.
const INBOX_MAX: usize = 4096;

/// What was heard and not taken yet.
#[derive(Debug, Default)]
struct Inbox(Mutex<VecDeque<Update>>);

impl Inbox {
    /// Says whether there was room.
    fn put(&self, update: Update) -> bool {
        let mut updates = self.0.lock();
        // All of them make what came before needless.
        if matches!(update, Update::Snapshot { .. }) {
            updates.clear();
        }
        let has_room = updates.len() < INBOX_MAX;
        if has_room {
            updates.push_back(update);
        }
        has_room
    }
}

impl RegistrySource {
    /// Watches a service, on a thread of its own, until it is dropped. The addresses are those of nodes: one is enough, more are
    /// for when it cannot be reached.
    ///
    /// # Errors
    /// When one of the addresses cannot be understood, or there is none, before anything is started; or when there is no
    /// thread.
    pub fn start(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        service: impl Into<String>,
    ) -> Result<RegistrySource, RegistryError> {
        RegistrySource::start_with(addresses, service, ShardConfig::default())
    }

    /// The same with settings for its connections: TLS, limits.
    ///
    /// # Errors
    /// As those of [`start`](RegistrySource::start).
    pub fn start_with(
        addresses: impl IntoIterator<Item = impl Into<String>>,
        service: impl Into<String>,
        config: ShardConfig,
    ) -> Result<RegistrySource, RegistryError> {
        let inbox = Arc::new(Inbox::default());
        let addresses = Addresses::new(check(addresses)?);
        let mut following = Following::new(service, &inbox);
        let follow = async move |shard: Shard, stop: Stop| {
            stop.unless(following.follow(addresses, &shard)).await;
        };
        let thread = OwnThread::start("registry-source", config, follow)?;
        Ok(RegistrySource { inbox, _following: Follows::Thread(thread) })
    }

    /// The same on a shard of yours, for a loop of your own, or a simulation.
    ///
    /// # Panics
    /// Without an address.
    #[must_use]
    pub fn on(
        shard: &Shard,
        addresses: impl IntoIterator<Item = impl Into<String>>,
        service: impl Into<String>,
    ) -> RegistrySource {
        let inbox = Arc::new(Inbox::default());
        let addresses = Addresses::new(addresses);
        let mut following = Following::new(service, &inbox);
        let (on, stop) = (shard.clone(), Stop::default());
        let asked = stop.clone();
        shard.spawn(async move {
            let _ = asked.unless(following.follow(addresses, &on)).await;
        });
        RegistrySource { inbox, _following: Follows::Task(StopOnDrop(stop)) }
    }
}

impl Source for RegistrySource {
    fn poll_update(&mut self, _now: Instant) -> Option<Update> {
        self.inbox.0.lock().pop_front()
    }
}

struct Following {
    service: String,
    /// The latest revision of which somebody has told.
    heard: u64,
    inbox: Arc<Inbox>,
}

impl Following {
    fn new(service: impl Into<String>, inbox: &Arc<Inbox>) -> Following {
        Following { service: service.into(), heard: 0, inbox: Arc::clone(inbox) }
    }

    async fn follow(&mut self, addresses: Addresses, shard: &Shard) {
        let inbox = Arc::clone(&self.inbox);
        let outage = |reason| {
            inbox.put(Update::Outage(reason));
        };
        follow(addresses, shard, async |client| self.watch(client).await, outage).await;
    }

    /// Hears one node for as long as it can be heard.
    async fn watch(&mut self, client: LocalClient) -> Result<(), String> {
        let watched = Watched { service: self.service.clone(), heard: self.heard };
        let registry = RegistryClient::new(client);
        let begun = registry.watch(&watched).deadline(ANSWER).await;
        let mut news = begun.map_err(|error| error.to_string())?;
        let mut all = Vec::new();
        while let Some(item) = news.next().await {
            let item = item.map_err(|error| error.to_string())?.to_owned();
            let Some(update) = self.understand(item, &mut all)? else { continue };
            if !self.inbox.put(update) {
                return Err("more has changed than was asked for".to_owned());
            }
        }
        Ok(())
    }

    /// What news are to whoever keeps a list. `None` if more is to come.
    fn understand(
        &mut self,
        news: News,
        all: &mut Vec<Instance>,
    ) -> Result<Option<Update>, String> {
        let (revision, clock_ms) = match &news {
            News::All { revision, clock_ms, .. }
            | News::Put { revision, clock_ms, .. }
            | News::Removed { revision, clock_ms, .. } => (*revision, *clock_ms),
        };
        self.heard = self.heard.max(revision);
        let revision = Revision { epoch: 1, number: revision };
        let clock_ms = Some(clock_ms);
        let change = match news {
            News::All { instances, is_last, .. } => {
                all.extend(instances.iter().filter_map(|line| understood(line)));
                if all.len() > OF_A_SERVICE_MAX {
                    return Err(format!("it has more than {OF_A_SERVICE_MAX} instances"));
                }
                if !is_last {
                    return Ok(None);
                }
                let snapshot = Snapshot { revision, instances: std::mem::take(all) };
                return Ok(Some(Update::Snapshot { snapshot, clock_ms }));
            }
            News::Put { instance, .. } => understood(&instance).map(Change::Put),
            News::Removed { name, .. } => {
                Some(Change::Removed { service: self.service.clone(), name })
            }
        };
        let changes = change.into_iter().collect();
        Ok(Some(Update::Delta { delta: Delta { revision, changes }, clock_ms }))
    }
}

/// An instance that this version understands: a later one may say of instances what this one does not know.
fn understood(line: &str) -> Option<Instance> {
    let read = read_list(line);
    if let Err(bad) = &read {
        log::warn!("the registry has an instance that is not understood: {bad}");
    }
    read.ok()?.pop()
}
