//! What calls and connections do, counted.
//!
//! [`Metrics`] is an [`Observer`]: name it to servers, shards and clients, and read it as a [`Snapshot`] or as
//! the text that Prometheus scrapes. Calls are counted by method and peer: how many begin and end, by
//! [class](Class), expired, shed, with a fallback codec, made again; their bytes; and how long they take, in a
//! histogram. So are connections, and everything in ringcall's own [`Counters`], such as
//! bytes copied, by reason.
//!
//! ```
//! use ringcall_metrics::Metrics;
//!
//! let metrics = Metrics::new();
//! let server = ringcall::Server::bind("127.0.0.1:0").observer(metrics.observer());
//! println!("{}", metrics.snapshot());
//! ```
//!
//! Whatever else counts something is named as a [source](Metrics::source), and read with each snapshot: what a server has
//! met and got over, and what a balanced channel does.
//!
//! ```no_run
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! # let metrics = ringcall_metrics::Metrics::new();
//! let server = ringcall::Server::bind("127.0.0.1:0").observer(metrics.observer()).start()?;
//! let incidents = server.incidents_reader();
//! metrics.source("server", move || incidents().iter().collect());
//! // let balanced: ringcall::cluster::Balanced<_>
//! // metrics.source("quotes", move || balanced.counts().iter().collect());
//! # Ok(()) }
//! ```
//!
//! # Memory and time
//!
//! Memory is bounded whatever peers do: each shard has room for [`MetricsConfig::series_max`] series of 2 KiB,
//! made when first used. A method that no service or client of this process has is `other`, and so is a peer
//! beyond [`MetricsConfig::peers_max`], and everything beyond the room.
//!
//! A shard counts in memory of its own, without locks and without anybody else writing to the same cache line;
//! whoever takes a snapshot reads what is there. Nothing is allocated for a call whose series is known.

#![forbid(unsafe_code)]

mod endpoint;
mod histogram;
mod inspection;
mod peers;
mod series;
mod text;

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use ringcall::Counters;
use ringcall::observe::{Call, Class, Connection, Event, Observer, Role, method_name};

pub use endpoint::Endpoint;
pub use histogram::{Histogram, quantile};
pub use inspection::{
    Bucket, CallsLook, Count, Inspection, InspectionClient, InspectionService, Inspector, Look,
    SourceLook, Times,
};
use peers::Peers;
use series::{Key, Series, Table};

/// How much is told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetricsConfig {
    /// How many series, of a method and a peer, each shard has room for: 1024 by default.
    pub series_max: usize,
    /// How many peers are told apart at most: 64 by default. With 0 they all are one. A peer is the address of a
    /// server for its callers, and the IP address of a caller for its server.
    pub peers_max: usize,
}

impl Default for MetricsConfig {
    fn default() -> MetricsConfig {
        MetricsConfig { series_max: 1024, peers_max: 64 }
    }
}

/// Counts what calls and connections do. A handle: clones count the same.
#[derive(Clone)]
pub struct Metrics(Arc<Registry>);

struct Registry {
    config: MetricsConfig,
    /// What is counted by threads of no shard, and by shards that have ended.
    common: Part,
    /// Those of shards.
    parts: Mutex<Vec<Weak<Part>>>,
    /// The peers that are told apart.
    peers: Peers,
    sources: Mutex<Vec<Source>>,
}

/// What somebody else counts.
#[derive(Clone)]
struct Source {
    name: Arc<str>,
    counts: Arc<dyn Fn() -> Counts + Send + Sync>,
}

impl Source {
    /// Its name and its counts, but if it panics: it is somebody's code, which may do anything, and everything else is to be
    /// known all the same.
    fn read(self) -> Option<(Arc<str>, Counts)> {
        let counts = catch_unwind(AssertUnwindSafe(|| (self.counts)()));
        if counts.is_err() {
            log::error!("what counts {:?} has panicked", self.name);
        }
        Some((self.name, counts.ok()?))
    }
}

/// Counts by name.
pub type Counts = Vec<(&'static str, u64)>;

/// What one shard counts.
#[derive(Default)]
struct Part {
    table: Table,
    slow_subscribers: AtomicU64,
    subscribers_closed: AtomicU64,
    turned_away: AtomicU64,
    /// Of connections by side: opened here, accepted.
    connections: [Connections; 2],
    counters: OnceLock<Box<[(&'static str, AtomicU64)]>>,
}

#[derive(Default)]
struct Connections {
    opened: AtomicU64,
    established: AtomicU64,
    open: AtomicI64,
}

impl Default for Metrics {
    fn default() -> Metrics {
        Metrics::new()
    }
}

impl Metrics {
    /// Nothing counted yet.
    #[must_use]
    pub fn new() -> Metrics {
        Metrics::with(MetricsConfig::default())
    }

    /// The same with settings.
    #[must_use]
    pub fn with(config: MetricsConfig) -> Metrics {
        Metrics(Arc::new(Registry {
            config,
            common: Part::new(&config),
            parts: Mutex::default(),
            peers: Peers::new(config.peers_max),
            sources: Mutex::default(),
        }))
    }

    /// Reads these counts with each snapshot, in place of those that had this name before: a server's
    /// [incidents](ringcall::RunningServer::incidents_reader), the counts of a balanced channel, or an application's own. They
    /// are called by whoever takes the snapshot, and are to be quick. They are kept for as long as this is, so they should not
    /// hold it. One that panics is not in that snapshot, and all others are.
    pub fn source(
        &self,
        name: impl Into<Arc<str>>,
        counts: impl Fn() -> Counts + Send + Sync + 'static,
    ) {
        let source = Source { name: name.into(), counts: Arc::new(counts) };
        let mut sources = self.0.sources.lock();
        let before = sources.iter().position(|other| other.name == source.name);
        let before = before.map(|place| sources.remove(place));
        sources.push(source);
        sources.sort_by(|a, b| a.name.cmp(&b.name));
        drop(sources);
        // It holds what is somebody's, which may do anything when it ends.
        drop(before);
    }

    /// To be named to whatever is to be counted.
    #[must_use]
    pub fn observer(&self) -> Arc<dyn Observer> {
        Arc::new(Counting { registry: Arc::clone(&self.0), part: None })
    }

    /// A service that tells it to whoever asks its server, `ringcall top` for example. It says which methods and peers there
    /// are, and what they do: leave it out, or [authorize](ringcall::Server::authorize_calls) its calls, where that is
    /// nobody else's business.
    ///
    /// ```
    /// use ringcall_metrics::{Inspection, Metrics};
    ///
    /// let metrics = Metrics::new();
    /// let server = ringcall::Server::bind("127.0.0.1:0")
    ///     .observer(metrics.observer())
    ///     .service(metrics.inspector().into_inspection());
    /// ```
    #[must_use]
    pub fn inspector(&self) -> Inspector {
        Inspector::of(self)
    }

    /// What was counted so far.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        let parts = self.0.parts.lock();
        let mut snapshot = Snapshot::default();
        snapshot.add(&self.0.common);
        parts.iter().filter_map(Weak::upgrade).for_each(|part| snapshot.add(&part));
        drop(parts);
        snapshot.series.sort_by(|a, b| a.labels().cmp(&b.labels()));
        snapshot.counters.sort_unstable();
        let sources = self.0.sources.lock().clone();
        snapshot.sources = sources.into_iter().filter_map(Source::read).collect();
        snapshot
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").field("config", &self.0.config).finish_non_exhaustive()
    }
}

impl Part {
    fn new(config: &MetricsConfig) -> Part {
        Part { table: Table::new(config.series_max), ..Part::default() }
    }
}

/// The observer: of all threads, or of one shard.
struct Counting {
    registry: Arc<Registry>,
    part: Option<Arc<Part>>,
}

impl Drop for Counting {
    fn drop(&mut self) {
        // The shard has ended: what it has counted stays.
        if let Some(part) = self.part.take() {
            let mut parts = self.registry.parts.lock();
            parts.retain(|other| other.upgrade().is_some_and(|other| !Arc::ptr_eq(&other, &part)));
            self.registry.absorb(&part);
        }
    }
}

impl Observer for Counting {
    fn observe(&self, event: &Event<'_>) {
        let part = self.part.as_deref().unwrap_or(&self.registry.common);
        match event {
            Event::CallBegun(call) => add(&self.series(part, call).begun, 1),
            Event::CallRepeated(call) => add(&self.series(part, call).repeated, 1),
            Event::CallEnded(call, end) => self.series(part, call).ended(call, end),
            Event::ConnectionOpened(it) => {
                add(&part.of(it).opened, 1);
                part.of(it).open.fetch_add(1, Ordering::Relaxed);
            }
            Event::ConnectionEstablished(it) => add(&part.of(it).established, 1),
            Event::ConnectionClosed(it, _) => {
                part.of(it).open.fetch_sub(1, Ordering::Relaxed);
            }
            Event::ConnectionTurnedAway => add(&part.turned_away, 1),
            Event::SlowSubscriber { is_closed: false } => add(&part.slow_subscribers, 1),
            Event::SlowSubscriber { is_closed: true } => add(&part.subscribers_closed, 1),
            Event::Counted(counters) => part.count(counters),
            _ => {}
        }
    }

    fn for_shard(&self) -> Option<Arc<dyn Observer>> {
        let part = Arc::new(Part::new(&self.registry.config));
        self.registry.parts.lock().push(Arc::downgrade(&part));
        let registry = Arc::clone(&self.registry);
        Some(Arc::new(Counting { registry, part: Some(part) }))
    }
}

impl Counting {
    fn series<'a>(&self, part: &'a Part, call: &Call<'_>) -> &'a Series {
        let peers = &self.registry.peers;
        let key = Key { role: call.role, method: call.method, peer: peers.key(call) };
        if let Some(series) = part.table.find(key) {
            return series;
        }
        let Some(method) = method_name(call.method) else { return part.table.other(call.role) };
        // All that are not told apart are one peer, or they would take the room of those that are.
        let (peer, name) = peers.name(key.peer, call.role, call.peer);
        part.table.get(Key { peer, ..key }, || (method, Arc::clone(name)))
    }
}

/// What stands for whatever is not told apart.
const OTHER: &str = "other";

impl Registry {
    /// Takes over what a shard has counted.
    fn absorb(&self, part: &Part) {
        let common = &self.common;
        for (key, series) in part.table.iter() {
            let labels = || (series.method, Arc::clone(&series.peer));
            common.table.get(key, labels).absorb(series);
        }
        add(&common.slow_subscribers, read(&part.slow_subscribers));
        add(&common.subscribers_closed, read(&part.subscribers_closed));
        add(&common.turned_away, read(&part.turned_away));
        for (ours, theirs) in common.connections.iter().zip(&part.connections) {
            add(&ours.opened, read(&theirs.opened));
            add(&ours.established, read(&theirs.established));
            ours.open.fetch_add(theirs.open.load(Ordering::Relaxed), Ordering::Relaxed);
        }
        if let Some(counters) = part.counters.get() {
            let ours = common.counters.get_or_init(|| {
                counters.iter().map(|(name, _)| (*name, AtomicU64::new(0))).collect()
            });
            for ((_, ours), (_, theirs)) in ours.iter().zip(counters) {
                add(ours, read(theirs));
            }
        }
    }
}

impl Part {
    fn of(&self, connection: &Connection<'_>) -> &Connections {
        &self.connections[connection.side as usize]
    }

    fn count(&self, counters: &Counters) {
        let kept = self
            .counters
            .get_or_init(|| counters.iter().map(|(name, _)| (name, AtomicU64::new(0))).collect());
        for ((_, kept), (_, now)) in kept.iter().zip(counters.iter()) {
            kept.store(now, Ordering::Relaxed);
        }
    }
}

fn add(count: &AtomicU64, n: u64) {
    count.fetch_add(n, Ordering::Relaxed);
}

fn read(count: &AtomicU64) -> u64 {
    count.load(Ordering::Relaxed)
}

/// What was counted, at one moment. Its [`Display`](fmt::Display) is Prometheus' text.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Snapshot {
    /// Calls, by who is told, method and peer.
    pub series: Vec<Calls>,
    /// Connections that were opened here.
    pub opened: ConnectionCounts,
    /// Connections that were accepted.
    pub accepted: ConnectionCounts,
    /// Connections that were closed at once because there were too many.
    pub turned_away: u64,
    /// Items that subscribers of topics have missed because they were slow.
    pub items_missed: u64,
    /// Subscribers of topics that were closed because they were slow.
    pub subscribers_closed: u64,
    /// ringcall's own counters, as they were up to a second ago.
    pub counters: Counts,
    /// What [sources](Metrics::source) have counted, by their names.
    pub sources: Vec<(Arc<str>, Counts)>,
}

/// Connections, counted.
#[ringcall::message]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct ConnectionCounts {
    /// How many there were.
    pub total: u64,
    /// Of those, how many were established.
    pub established: u64,
    /// How many there are.
    pub open: i64,
}

/// Calls of one method and peer, counted.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Calls {
    /// Whether they are made here or served here.
    pub role: Role,
    /// `package.Service/method`, or `other`.
    pub method: &'static str,
    /// The peer; empty if it has no address, `other` if there were too many.
    pub peer: Arc<str>,
    /// How many have begun.
    pub begun: u64,
    /// How many have ended, in the order of [`Class::ALL`].
    pub ended: [u64; 5],
    /// Of those, how many because their time was over.
    pub expired: u64,
    /// Of those, how many because too much was going on.
    pub shed: u64,
    /// How many came in a codec that is neither rkyv's nor raw bytes.
    pub fallback: u64,
    /// How many were made again on another connection.
    pub repeated: u64,
    /// Bytes of arguments.
    pub request_bytes: u64,
    /// Bytes of answers.
    pub reply_bytes: u64,
    /// How long they took.
    pub latency: Histogram,
    /// How long handlers had them.
    pub handled: Histogram,
}

impl Calls {
    /// How many have ended so.
    #[must_use]
    pub fn ended_as(&self, class: Class) -> u64 {
        self.ended[class as usize]
    }

    /// How many have begun and not ended.
    #[must_use]
    pub fn in_flight(&self) -> u64 {
        self.begun.saturating_sub(self.ended.iter().sum())
    }

    fn labels(&self) -> (bool, &str, &str) {
        (self.role == Role::Server, self.method, &self.peer)
    }
}

impl Snapshot {
    /// The calls of a method, whoever the peer was.
    pub fn of<'a>(
        &'a self,
        role: Role,
        method: &'a str,
    ) -> impl Iterator<Item = &'a Calls> + use<'a> {
        self.series.iter().filter(move |calls| calls.role == role && calls.method == method)
    }

    /// One of ringcall's own counters; 0 if nothing was told yet.
    #[must_use]
    pub fn counter(&self, name: &str) -> u64 {
        let found = self.counters.iter().find(|(known, _)| *known == name);
        found.map_or(0, |(_, count)| *count)
    }

    fn add(&mut self, part: &Part) {
        for (_, series) in part.table.iter() {
            let is_same = |calls: &&mut Calls| {
                (calls.role, calls.method, &*calls.peer)
                    == (series.role, series.method, &*series.peer)
            };
            match self.series.iter_mut().find(is_same) {
                Some(calls) => series.add_to(calls),
                None => {
                    let mut calls = series.nothing();
                    series.add_to(&mut calls);
                    self.series.push(calls);
                }
            }
        }
        self.turned_away += read(&part.turned_away);
        self.items_missed += read(&part.slow_subscribers);
        self.subscribers_closed += read(&part.subscribers_closed);
        let [opened, accepted] = &part.connections;
        for (sum, of) in [(&mut self.opened, opened), (&mut self.accepted, accepted)] {
            sum.total += read(&of.opened);
            sum.established += read(&of.established);
            sum.open += of.open.load(Ordering::Relaxed);
        }
        for (name, count) in part.counters.get().into_iter().flatten() {
            match self.counters.iter_mut().find(|(known, _)| known == name) {
                Some((_, sum)) => *sum += read(count),
                None => self.counters.push((name, read(count))),
            }
        }
    }
}
