//! A node: what it serves, and how it keeps up with the others.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use parking_lot::Mutex;
use ringcall::cluster::Clock;
use ringcall::cluster::discovery::{Instance, wall_clock_ms};
use ringcall::{
    Context, MachineClock, Shard, ShardConfig, SlowConsumer, SpanIds, Stream, Subscription, Topic,
};

use crate::book::{Book, Change, Limits, line};
use crate::thread::{OwnThread, Stop};
use crate::{
    Key, News, Refused, Registered, Registration, Registry, Replication, ReplicationClient, Said,
    ServiceCount, Watched,
};

/// Settings of a node.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NodeConfig {
    /// Where the other nodes are. This node's own address does no harm among them.
    pub peers: Vec<String>,
    /// How many instances it keeps, those included that have left lately: 100 000.
    pub instances_max: usize,
    /// The shortest lease that it gives: 1 s.
    pub lease_min: Duration,
    /// The longest lease that it gives: 1 h.
    pub lease_max: Duration,
    /// For how long instances are kept, beyond their lease, that were last heard of by a node which cannot be heard: 5 min.
    pub orphans: Duration,
    /// For how long it is remembered that an instance has left, which has to be longer than nodes are apart: 10 min.
    pub memory: Duration,
    /// How many changes a watcher, or another node, may be behind until it has to begin anew: 4096.
    pub backlog: usize,
    /// How many watches there may be at a time: 10 000.
    pub watches_max: usize,
    /// The wall clock, in milliseconds since 1970. A simulation has one of its own.
    pub wall_clock_ms: fn() -> u64,
}

impl Default for NodeConfig {
    fn default() -> NodeConfig {
        NodeConfig {
            peers: Vec::new(),
            instances_max: 100_000,
            lease_min: Duration::from_secs(1),
            lease_max: Duration::from_secs(3600),
            orphans: Duration::from_secs(300),
            memory: Duration::from_secs(600),
            backlog: 4096,
            watches_max: 10_000,
            wall_clock_ms,
        }
    }
}

/// How often it is looked for who has not been heard of.
const SWEEP: Duration = Duration::from_millis(250);
/// How long to wait before another node is connected to again: first, and at most.
const AGAIN: Duration = Duration::from_millis(100);
const AGAIN_MAX: Duration = Duration::from_secs(2);
/// How many nodes may listen to this one.
const LISTENERS_MAX: usize = 32;
/// How many instances a piece of news has that tells all of them.
const IN_A_PART: usize = 256;
/// How many services and instances are told to whoever does not watch.
const TOLD_MAX: usize = 1000;

/// A node of the registry: serve it as [`Registry`] and [`Replication`], and have it [tended](Node::tend). Clones are
/// the same node.
#[derive(Clone)]
pub struct Node(Arc<Shared>);

struct Shared {
    id: u64,
    config: NodeConfig,
    /// What is said to this node goes to all others.
    bus: Topic<Arc<Said>>,
    state: Mutex<State>,
}

struct State {
    book: Book,
    watchers: BTreeMap<String, Topic<Arc<News>>>,
    /// Other nodes that can be heard, and over how many connections.
    heard: BTreeMap<u64, usize>,
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
        let id = MachineClock.next_span_id();
        let limits = Limits {
            instances_max: config.instances_max,
            orphans: config.orphans,
            memory: config.memory,
        };
        let state = State {
            book: Book::new(id, limits),
            watchers: BTreeMap::new(),
            heard: BTreeMap::new(),
        };
        let bus = Topic::new(config.backlog, SlowConsumer::Close);
        Node(Arc::new(Shared { id, config, bus, state: Mutex::new(state) }))
    }

    /// Does on this shard what is to be done all the time: to hear the other nodes, and to miss instances that are not heard of.
    /// It ends with the shard.
    pub fn tend(&self, shard: &Shard) {
        let (node, clock) = (self.clone(), shard.clone());
        shard.spawn(async move {
            loop {
                clock.sleep(SWEEP).await;
                node.0.sweep();
            }
        });
        for peer in &self.0.config.peers {
            let (node, shard_, peer) = (self.clone(), shard.clone(), peer.clone());
            shard.spawn(async move { node.hear(&shard_, &peer).await });
        }
    }

    /// The same on a thread of its own, until what is returned is dropped.
    ///
    /// # Errors
    /// When there is no thread.
    pub fn start(&self, config: ShardConfig) -> io::Result<Tending> {
        let node = self.clone();
        let tend = async move |shard: Shard, stop: Stop| {
            node.tend(&shard);
            stop.asked().await;
        };
        OwnThread::start("registry-node", config, tend).map(Tending)
    }

    /// Listens to another node for ever.
    async fn hear(&self, shard: &Shard, peer: &str) {
        let mut again = AGAIN;
        loop {
            match self.hear_once(shard, peer).await {
                Heard::Oneself => return,
                Heard::Something => again = AGAIN,
                Heard::Nothing => again = (2 * again).min(AGAIN_MAX),
            }
            shard.sleep(again).await;
        }
    }

    async fn hear_once(&self, shard: &Shard, peer: &str) -> Heard {
        let Ok(client) = shard.connect(peer).await else { return Heard::Nothing };
        let replication = ReplicationClient::new(client);
        let Ok(mut said) = replication.replicate().await else { return Heard::Nothing };
        let Some(Ok(first)) = said.next().await else { return Heard::Nothing };
        let Said::Node { id } = first.to_owned() else { return Heard::Nothing };
        if id == self.0.id {
            return Heard::Oneself;
        }
        log::info!("hears the node at {peer}");
        let _heard = Hearing::begin(&self.0, id);
        while let Some(Ok(item)) = said.next().await {
            if let Err(refused) = self.0.take(&item.to_owned()) {
                log::error!("what the node at {peer} says is not taken: {refused}");
                return Heard::Nothing;
            }
        }
        log::warn!("does not hear the node at {peer} any more");
        Heard::Something
    }
}

/// What came of listening to another node.
enum Heard {
    /// It is this one.
    Oneself,
    Something,
    Nothing,
}

/// While another node can be heard.
struct Hearing<'a>(&'a Shared, u64);

impl Hearing<'_> {
    fn begin(shared: &Shared, node: u64) -> Hearing<'_> {
        *shared.state.lock().heard.entry(node).or_default() += 1;
        Hearing(shared, node)
    }
}

impl Drop for Hearing<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        if let Some(count) = state.heard.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                state.heard.remove(&self.1);
            }
        }
    }
}

/// Tends a node until it is dropped, see [`Node::start`].
#[derive(Debug)]
#[must_use = "dropping it ends it"]
pub struct Tending(#[expect(dead_code, reason = "dropping it ends it")] OwnThread);

impl Shared {
    fn wall_ms(&self) -> u64 {
        (self.config.wall_clock_ms)()
    }

    /// Takes what was said, and tells all who are to know.
    fn take(&self, said: &Said) -> Result<(), Refused> {
        self.tell(&mut self.state.lock(), said)
    }

    // What is told is told in the order in which it was taken, so all of it is under the lock.
    fn tell(&self, state: &mut State, said: &Said) -> Result<(), Refused> {
        let (now, wall_ms) = (MachineClock.now(), self.wall_ms());
        let merged = state.book.merge(now, wall_ms, said)?;
        if merged.is_news {
            // Whoever is too slow is closed, so nobody is waited for.
            let _ = self.bus.publish(Arc::new(said.clone()));
        }
        if let Some(change) = merged.change {
            state.tell_watchers(wall_ms, change);
        }
        Ok(())
    }

    fn sweep(&self) {
        let (now, wall_ms) = (MachineClock.now(), self.wall_ms());
        let mut state = self.state.lock();
        let State { book, heard, .. } = &mut *state;
        let missed = book.sweep(now, |node| node == self.id || heard.contains_key(&node));
        for key in missed {
            log::info!("{}/{} was not heard of within its lease", key.service, key.name);
            state.tell_watchers(wall_ms, Change::Removed(key));
        }
        state.watchers.retain(|_, topic| topic.subscribers() > 0);
    }
}

impl State {
    fn tell_watchers(&mut self, clock_ms: u64, change: Change) {
        // Each change has a revision of its own, watched or not: who watches later is told of a later one.
        let revision = self.book.tick(clock_ms);
        let (service, news) = match change {
            Change::Put(instance) => {
                let service = instance.service.clone();
                (service, News::Put { revision, clock_ms, instance: line(&instance) })
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
        let Registration { instance, lease_ms, registered_ms } = registration;
        let config = &self.0.config;
        let lease = Duration::from_millis(lease_ms.into());
        if lease < config.lease_min || lease > config.lease_max {
            let ms = |time: Duration| u32::try_from(time.as_millis()).unwrap_or(u32::MAX);
            let (min_ms, max_ms) = (ms(config.lease_min), ms(config.lease_max));
            return Err(Refused::BadLease { min_ms, max_ms });
        }
        let mut state = self.0.state.lock();
        let wall_ms = self.0.wall_ms();
        let (registered_ms, said) =
            state.book.register(wall_ms, &instance, lease_ms, registered_ms)?;
        self.0.tell(&mut state, &said)?;
        Ok(Registered { registered_ms, renew_ms: lease_ms / 3 })
    }

    async fn renew(&self, key: Key) -> Result<(), Refused> {
        let mut state = self.0.state.lock();
        let said = state.book.renew(self.0.wall_ms(), &key)?;
        self.0.tell(&mut state, &said)
    }

    async fn withdraw(&self, key: Key) {
        let mut state = self.0.state.lock();
        if let Some(said) = state.book.withdraw(self.0.wall_ms(), key) {
            // Of a time of this node's own.
            let _ = self.0.tell(&mut state, &said);
        }
    }

    async fn watch(
        &self,
        cx: &Context,
        watched: Watched,
    ) -> Result<impl Stream<Item = News>, Refused> {
        let mut state = self.0.state.lock();
        let wall_ms = self.0.wall_ms();
        // Whoever was told something by another node is told what is later.
        state.book.witness(wall_ms, watched.heard)?;
        if state.watches() >= self.0.config.watches_max {
            return Err(Refused::Busy);
        }
        let revision = state.book.tick(wall_ms);
        let instances: Vec<_> = state.book.instances(&watched.service).cloned().collect();
        let topic = || Topic::new(self.0.config.backlog, SlowConsumer::Close);
        let topic = state.watchers.entry(watched.service).or_insert_with(topic);
        let news = topic.subscribe().until(cx.draining());
        let first = All { revision, clock_ms: wall_ms, instances, next: Some(0) };
        Ok(FirstThen { first, then: news })
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
        state.book.instances(&service).take(TOLD_MAX).map(|it| line(it)).collect()
    }
}

impl Replication for Node {
    async fn replicate(&self, cx: &Context) -> Result<impl Stream<Item = Said>, Refused> {
        let state = self.0.state.lock();
        if self.0.bus.subscribers() >= LISTENERS_MAX {
            return Err(Refused::Busy);
        }
        let mut first = vec![Said::Node { id: self.0.id }];
        first.extend(state.book.all());
        let first = first.into_iter();
        Ok(FirstThen { first, then: self.0.bus.subscribe().until(cx.draining()) })
    }
}

/// All instances of a service, in parts that fit into a message each: made when they are sent, since many may be asked for
/// at a time.
struct All {
    revision: u64,
    clock_ms: u64,
    instances: Vec<Arc<Instance>>,
    /// Where the next part begins; `None` behind the last one.
    next: Option<usize>,
}

impl Iterator for All {
    type Item = News;

    fn next(&mut self) -> Option<News> {
        let from = self.next.take()?;
        let to = self.instances.len().min(from + IN_A_PART);
        let is_last = to == self.instances.len();
        self.next = (!is_last).then_some(to);
        let instances = self.instances[from..to].iter().map(|it| line(it)).collect();
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
                Pin::new(&mut this.then).poll_next(cx).map(|item| item.map(Arc::unwrap_or_clone))
            }
        }
    }
}
