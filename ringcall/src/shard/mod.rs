//! A shard: an engine, its connections and a small executor, on one thread.

mod choice;
mod clock;
mod drain;
mod draining;
mod engine;
mod executor;
mod hosted;
mod incidents;
mod inner;
mod layer;
mod mail;
#[cfg(all(test, ringcall_loom))]
mod models;
mod rousing;
mod stalls;
mod streams;
mod timers;
mod waiters;
mod waiting;

use std::cell::Cell;
use std::fmt;
use std::future::Future;
use std::os::fd::OwnedFd;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use ringcall_compression::Compression;
use ringcall_core::{
    Address, Clock, Config, ConfigError, Counters, Identity, Memory, MemoryLimits, Park,
};
#[cfg(feature = "tls")]
use ringcall_tls::{TlsClient, TlsServer};

pub use choice::{TransportChoice, TransportInfo, UnknownTransport, transport_fallbacks};
pub use clock::MachineClock;
pub(crate) use drain::{DRAIN_TIMEOUT, Goodbye};
pub use drain::{DrainReport, DrainStep};
pub use draining::Draining;
pub(crate) use executor::Task;
pub use hosted::HostedShard;
pub use incidents::Incidents;
#[cfg(feature = "cluster")]
pub(crate) use inner::random_seed;
pub(crate) use inner::{Due, Inner, Ticket};
pub(crate) use mail::{Notice, Place, Remote, RemoteCall, RemoteOpening};
pub(crate) use rousing::Crowd;
pub(crate) use streams::OpenStream;
pub(crate) use timers::SleepUntil;
pub(crate) use waiters::Waited;

use crate::ServeError;
use crate::client::{LocalConnect, ToAddress};
use crate::observe::Observers;
use crate::offload::Pool;
use crate::packing::CompressionConfig;
use crate::record::{ConnectionRecord, ConnectionRecorder};
use crate::serve::ServedGroup;
use crate::serve::access::{Access, Authority, CallerInfo, ConnectionInfo};
use crate::serve::limits::{Limits, Rates};
use crate::serve::{KeptReplies, Mount, Service};
use engine::Engine;
use incidents::Register;
use inner::InnerConfig;
use layer::Layers;
use waiting::{Idle, LookOn, Pauses, look_on_at_most};

/// How a shard waits for something to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum WaitPolicy {
    /// The thread looks on for up to 50 µs before it sleeps, or up to 200 µs when many calls come at a time, as long as
    /// that brings something: as fast as [`Spin`](WaitPolicy::Spin) under traffic, as cheap as [`Park`](WaitPolicy::Park)
    /// at rest. It sleeps more often the more often it has looked on in vain, or was interrupted by somebody who wants
    /// the core.
    #[default]
    Adaptive,
    /// The thread sleeps. Costs nothing while idle, and some tens of microseconds to wake. For threads that share a
    /// core.
    Park,
    /// The thread polls without a break: the lowest latency, for a whole core.
    Spin,
}

impl fmt::Display for WaitPolicy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            WaitPolicy::Adaptive => "adaptive",
            WaitPolicy::Park => "park",
            WaitPolicy::Spin => "spin",
        })
    }
}

/// How long one [`Shard::turn`] may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all.
    Now,
    /// This long, if nothing happens before.
    AtMost(Duration),
    /// Until something happens.
    Forever,
}

/// What a turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Nothing is left to do until something happens.
    Idle,
    /// It stopped early, to be fair: turn again without waiting.
    MoreWork,
}

/// Settings of a shard.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct ShardConfig {
    /// Limits and timeouts of connections that it accepts.
    pub server: Config,
    /// Limits and timeouts of connections that it opens.
    pub client: Config,
    /// How much memory it may use. If [`total_bytes`](MemoryLimits::total_bytes) is `None`, that is a third of what
    /// the process may have: of the machine's memory, or of what its control group allows if that is less. Shards that are
    /// not of one server do not know of each other.
    pub memory: MemoryLimits,
    /// Which engine moves its bytes.
    pub transport: TransportChoice,
    /// How it waits in [`Shard::run`] and [`Shard::block_on`]; and whether it looks on before it says that it is
    /// idle when it is [hosted](Shard::hosted).
    pub wait: WaitPolicy,
    /// How many connections it accepts at most; half of `ulimit -n` if `None`.
    pub connections_max: Option<usize>,
    /// Whether several shards or processes may listen at the same address.
    pub reuse_port: bool,
    /// Accepted connections speak TLS, and nothing else.
    #[cfg(feature = "tls")]
    pub server_tls: Option<TlsServer>,
    /// Connections that it opens speak TLS, unless they say [otherwise](LocalConnect::tls).
    #[cfg(feature = "tls")]
    pub client_tls: Option<TlsClient>,
    pub(crate) authority: Authority,
    /// Which instance its server says it is, see [`Server::identity`](crate::Server::identity).
    pub identity: Option<Identity>,
    /// What counts the rates among `limits`, if shards share it.
    pub(crate) rates: Option<Arc<Rates>>,
    /// The answers that its server keeps.
    pub(crate) kept: Option<Arc<KeptReplies>>,
    /// How many threads `#[method(offload)]` may use; they are started when needed.
    pub offload_threads: Option<usize>,
    /// A turn that takes longer than this is a [stall](Incidents::stalls), and is logged; 10 ms if `None`.
    pub stall_threshold: Option<Duration>,
    /// What it refuses when there is too much to do; nothing but what connections are limited to if `None`.
    pub limits: Option<Limits>,
    /// What it does about compression.
    pub compression: CompressionConfig,
    /// Who is told what happens, see [`observe`](crate::observe).
    pub observers: Observers,
    /// What records its connections, see [`record`](crate::record).
    pub recorder: Option<ConnectionRecorder>,
}

impl ShardConfig {
    /// Asks about every connection that is accepted, see [`Server::authorize`](crate::Server::authorize).
    pub fn authorize(&mut self, hook: impl Fn(&ConnectionInfo) -> Access + Send + Sync + 'static) {
        self.authority.connections = Some(Arc::new(hook));
    }

    /// Asks about every call on such connections, see
    /// [`Server::authorize_calls`](crate::Server::authorize_calls).
    pub fn authorize_calls(
        &mut self,
        hook: impl Fn(&CallerInfo<'_>) -> Access + Send + Sync + 'static,
    ) {
        self.authority.calls = Some(Arc::new(hook));
    }

    /// How high a priority callers may claim, see [`Server::priority_max`](crate::Server::priority_max).
    pub fn priority_max(&mut self, hook: impl Fn(&CallerInfo<'_>) -> u8 + Send + Sync + 'static) {
        self.authority.priorities = Some(Arc::new(hook));
    }

    /// The group that it serves in, see [`Server::group`](crate::Server::group).
    pub fn group(&mut self, group: &str) {
        self.authority.group = Some(group.into());
    }
}

/// An engine, its connections and a small executor, driven by your own loop.
///
/// A shard stays on the thread that made it, and ends with its last handle: its connections are closed, and
/// calls that have not ended fail. It does nothing except in [`turn`](Shard::turn) and the
/// methods that turn it: [`run`](Shard::run), [`block_on`](Shard::block_on). A loop that waits for other
/// things as well waits for the shard's file descriptor: [`hosted`](Shard::hosted).
///
/// ```no_run
/// use ringcall::{Shard, ShardConfig, Wait};
/// # fn my_own_work() {}
///
/// let shard = Shard::new(ShardConfig::default())?;
/// loop {
///     my_own_work();
///     shard.turn(Wait::Now);
/// }
/// # Ok::<(), ringcall::ServeError>(())
/// ```
#[derive(Clone)]
pub struct Shard {
    inner: Rc<Inner>,
    wait: WaitPolicy,
    driver: Rc<Driver>,
}

/// Common to the handles that can turn a shard, unlike what its clients and tasks hold on to.
struct Driver {
    /// Wakes the future of [`Shard::block_on`].
    root: Waker,
    inner: Rc<Inner>,
    look_on: Cell<LookOn>,
    pauses: Cell<Pauses>,
}

impl Driver {
    /// There is nothing to do. It looks on for so long at most, or for as long as is worth while.
    fn found_nothing(&self, at_most: Option<Duration>) -> Idle {
        let (now, mut look_on) = (self.inner.turn_began(), self.look_on.get());
        let has_rivals = look_on.has_rivals(now);
        let idle = look_on.found_nothing(now, || {
            let calls = self.inner.take_delivered();
            at_most.unwrap_or_else(|| look_on_at_most(if has_rivals { 0 } else { calls }))
        });
        self.look_on.set(look_on);
        idle
    }

    /// There was something to do.
    fn found_something(&self) {
        let mut look_on = self.look_on.get();
        look_on.found_something(self.inner.turn_began());
        self.look_on.set(look_on);
        let mut pauses = self.pauses.get();
        pauses.busy(self.inner.turn_began());
        self.pauses.set(pauses);
    }

    /// A look was in vain, and another one is to follow.
    fn look_again(&self) {
        let mut look_on = self.look_on.get();
        if !self.inner.take_roused() || look_on.has_rivals(self.inner.turn_began()) {
            return self.pause();
        }
        // Those that were woken may share this core, and what they do now is what it looks for.
        std::thread::yield_now();
        look_on.has_lent(MachineClock.now());
        self.look_on.set(look_on);
    }

    /// Waits for a moment.
    fn pause(&self) {
        let mut pauses = self.pauses.get();
        let time = pauses.next(self.inner.turn_began());
        self.pauses.set(pauses);
        let until = MachineClock.now() + time;
        while MachineClock.now() < until {
            std::hint::spin_loop();
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Also when a panic takes the shard down: its calls end all the same.
        self.inner.end();
    }
}

/// A shard while a future drives it.
struct Driven<'a>(&'a Remote);

impl Driven<'_> {
    fn by_future(remote: &Remote) -> Driven<'_> {
        remote.enter_root();
        Driven(remote)
    }
}

impl Drop for Driven<'_> {
    fn drop(&mut self) {
        self.0.leave_root();
    }
}

/// Wakes the future that drives a shard.
struct RootWake(Arc<Remote>);

impl Wake for RootWake {
    fn wake(self: Arc<Self>) {
        self.0.wake_root();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.wake_root();
    }
}

/// Settings of connections, with what is the same for all of a shard.
fn prepare(config: Config, compression: &CompressionConfig) -> Result<Config, ConfigError> {
    let compressions = if compression.accept { Compression::available_bits() } else { 0 };
    let format = ringcall_codec_rkyv::archive_format();
    let config = config.archive_format(format).compressions(compressions);
    config.instance(inner::instance_id()).validate()
}

/// What connections may hold together unless somebody says otherwise. The rest is for the application, for what is not
/// counted, and for the holes of the allocator, which may be as large as what is counted when attackers make it so.
pub(crate) fn default_memory_max() -> Option<usize> {
    // What this machine has must not decide what becomes of a seed.
    #[cfg(feature = "sim")]
    if crate::sim::is_simulated() {
        return None;
    }
    ringcall_net::memory_max().map(|bytes| bytes / 3)
}

/// What requests become that arrived compressed has a pool of its own, beside the bound.
fn inflated_bytes_max(limits: &MemoryLimits) -> usize {
    limits.landing_bytes.min(limits.total_bytes.unwrap_or(usize::MAX) / 8)
}

impl Shard {
    /// A shard without connections.
    ///
    /// # Errors
    /// When a setting makes no sense, or the engine cannot be set up.
    pub fn new(config: ShardConfig) -> Result<Shard, ServeError> {
        let threads = config.offload_threads.unwrap_or(Pool::THREADS_MAX);
        let rule = config.limits.as_ref().and_then(Limits::queue_rule);
        Shard::with_pool(config, Pool::new(threads, rule))
    }

    pub(crate) fn with_pool(config: ShardConfig, pool: Arc<Pool>) -> Result<Shard, ServeError> {
        config.limits.as_ref().map_or(Ok(()), Limits::validate)?;
        let mut limits = config.memory;
        limits.total_bytes = limits.total_bytes.or_else(default_memory_max);
        let memory = Memory::new(limits);
        let (layers, authority) = (Layers::new(&config, &memory), config.authority.clone());
        let (server, client) = (
            prepare(config.server, &config.compression)?,
            prepare(config.client, &config.compression)?,
        );
        let (engine, transport) = Engine::new(&memory, config.transport, config.reuse_port)?;
        let remote = Remote::new(
            engine.bell(),
            transport,
            Register::new(Arc::clone(engine.tally())),
            config.observers.clone(),
            [server.largest_message(), client.largest_message()],
        );
        let inner_config = InnerConfig {
            layers,
            authority,
            identity: config.identity,
            server,
            client,
            compression: config.compression,
            inflated_bytes_max: inflated_bytes_max(&limits),
            connections_max: config.connections_max.unwrap_or_else(ringcall_net::connections_max),
            observers: config.observers,
            stall_threshold: config.stall_threshold,
            recorder: config.recorder,
            kept: config.kept,
        };
        let clock = Box::new(MachineClock);
        let root = Waker::from(Arc::new(RootWake(Arc::clone(&remote))));
        let inner = Rc::new(Inner::new(engine, remote, memory, clock, pool, inner_config));
        if let Some(limits) = config.limits {
            let rates = config.rates.or_else(|| limits.rates(None));
            inner.set_limits(&limits, rates);
        }
        let driver = Rc::new(Driver {
            root,
            inner: Rc::clone(&inner),
            look_on: Cell::default(),
            pauses: Cell::default(),
        });
        Ok(Shard { inner, wait: config.wait, driver })
    }

    /// Waits if there is nothing to do and it may, then does a bounded amount of what there is.
    pub fn turn(&self, wait: Wait) -> Turn {
        // Whoever turns it has the thread in between.
        self.inner.stalls.forget();
        self.step(wait)
    }

    fn step(&self, wait: Wait) -> Turn {
        let _entered = self.inner.executor.enter();
        if wait != Wait::Now && !self.inner.has_work() {
            self.park(wait);
        }
        if self.inner.work() { Turn::MoreWork } else { Turn::Idle }
    }

    /// When [`turn`](Shard::turn) is due although nothing has happened: how long from now.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let next = self.inner.next_timeout()?;
        Some(next.since(MachineClock.now()))
    }

    fn park(&self, wait: Wait) {
        let now = MachineClock.now();
        self.inner.turn_is_over(now);
        let next = self.inner.next_timeout().map(|next| next.since(now));
        let timeout = match (wait, next) {
            (Wait::Now, _) => Some(Duration::ZERO),
            (Wait::AtMost(most), Some(next)) => Some(most.min(next)),
            (Wait::AtMost(most), None) => Some(most),
            (Wait::Forever, next) => next,
        };
        let mut endpoint = self.inner.endpoint.borrow_mut();
        self.inner.remote.park(endpoint.transport_mut(), timeout);
    }

    /// Turns, waiting by the shard's policy, for as long as `go_on` says so.
    pub fn run(&self, mut go_on: impl FnMut() -> bool) {
        self.inner.stalls.forget();
        while go_on() {
            self.turn_by_policy();
        }
    }

    fn turn_by_policy(&self) {
        match self.wait {
            WaitPolicy::Adaptive => match self.looks_in_vain() {
                false => self.driver.found_something(),
                true if self.driver.found_nothing(None) == Idle::Look => self.driver.look_again(),
                true => drop(self.step(Wait::Forever)),
            },
            WaitPolicy::Park => drop(self.step(Wait::Forever)),
            WaitPolicy::Spin if self.looks_in_vain() => self.driver.pause(),
            WaitPolicy::Spin => self.driver.found_something(),
        }
    }

    /// Turns without waiting. Says whether there was nothing to do, and is nothing left.
    fn looks_in_vain(&self) -> bool {
        self.step(Wait::Now) == Turn::Idle && !self.inner.was_busy()
    }

    /// Turns until the future is ready, waiting by the shard's policy. Tasks, handlers and connections
    /// of the shard go on meanwhile.
    pub fn block_on<F: Future>(&self, future: F) -> F::Output {
        let mut future = pin!(future);
        let mut context = Context::from_waker(&self.driver.root);
        let _driven = Driven::by_future(&self.inner.remote);
        self.inner.stalls.forget();
        loop {
            if self.inner.remote.take_root_woken() {
                let _entered = self.inner.executor.enter();
                self.inner.read_clock();
                if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
                    return output;
                }
            }
            self.turn_by_policy();
        }
    }

    /// Runs a task on this shard. Dropped, if it has not ended, with the shard.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.inner.spawn(future);
    }

    /// Ready after a while.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        SleepUntil::new(&self.inner, MachineClock.now() + time)
    }

    /// Connects to a server, for use on this shard: await it. With
    /// [`service`](LocalConnect::service) the server can call back.
    ///
    /// It fails when nobody answers there, or not in ringcall's protocol. A host name is looked up at
    /// once, which may block.
    pub fn connect(&self, address: impl ToAddress) -> LocalConnect {
        LocalConnect::new(&self.inner, address)
    }

    /// Serves a service on this shard, beside those that it serves already.
    ///
    /// # Errors
    /// When one of its methods has the same number as another.
    pub fn serve<S: Service>(&self, service: S) -> Result<(), ServeError> {
        let mut mount = Mount::add_to(&self.inner);
        mount.add(service)?;
        self.inner.set_router(mount.finish());
        Ok(())
    }

    /// Replaces [`ShardConfig::limits`], at once; a shard that has none is given some. What that means for the calls that
    /// there are is said at [`ServerLimits::replace`](crate::limits::ServerLimits::replace).
    ///
    /// # Errors
    /// When they make no sense; nothing is changed then.
    pub fn replace_limits(&self, limits: &Limits) -> Result<(), ServeError> {
        limits.validate()?;
        let rates = limits.rates(self.inner.rates().as_deref());
        self.inner.pool.configure(limits.queue_rule());
        self.inner.set_limits(limits, rates);
        Ok(())
    }

    /// The group that it serves in, which can be [another one](ServedGroup::move_to): of this shard alone.
    #[must_use]
    pub fn served_group(&self) -> ServedGroup {
        self.inner.served_group()
    }

    /// Accepts connections at an address; returns it, with the port that was chosen.
    ///
    /// # Errors
    /// When the address cannot be used.
    pub fn listen(&self, address: impl ToAddress) -> Result<Address, ServeError> {
        let text = address.to_text();
        let resolved = address
            .target()
            .and_then(|target| target.find())
            .map_err(|reason| ServeError::Address { address: text.clone(), reason })?;
        match self.inner.listen(&resolved) {
            Ok((_, local)) => Ok(local),
            Err(error) => Err(ServeError::Listen { address: text, error }),
        }
    }

    /// Accepts connections on a socket that listens already, such as one that was handed over by another
    /// process; returns where.
    ///
    /// # Errors
    /// When it does not listen, or its family is not known here.
    pub fn listen_on(&self, listener: impl Into<OwnedFd>) -> Result<Address, ServeError> {
        self.inner.listen_on(listener.into().into()).map_err(|error| ServeError::Listen {
            address: "a socket that was handed over".to_owned(),
            error,
        })
    }

    /// Ends serving without losing a call: closes the listeners, says goodbye to clients, finishes what
    /// runs, and cancels what runs longer than `timeout`. Ready when the last connection that was accepted
    /// is closed; connections that this shard opened, its tasks and the shard itself go on, and it may
    /// listen again.
    pub async fn drain(&self, timeout: Duration) -> DrainReport {
        self.inner.say_goodbye(Goodbye::Drain(timeout));
        self.inner.left_work();
        self.inner.drained().await
    }

    /// Which engine moves the bytes, and why this one.
    #[must_use]
    pub fn transport(&self) -> &TransportInfo {
        self.inner.remote.transport()
    }

    /// What its connections have done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.inner.endpoint.borrow().counters()
    }

    /// How many connections it has.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.inner.endpoint.borrow().connections()
    }

    /// How many spawned tasks, and callbacks of calls, have panicked. A task that panics is dropped, the
    /// shard goes on.
    #[must_use]
    pub fn panics(&self) -> u64 {
        self.inner.remote.register.panics.get()
    }

    /// How many accepted connections it closed because there were too many.
    #[must_use]
    pub fn turned_away(&self) -> u64 {
        self.inner.remote.register.turned_away.get()
    }

    /// What has gone wrong so far, and was got over.
    #[must_use]
    pub fn incidents(&self) -> Incidents {
        self.inner.remote.register.read()
    }

    /// What is recorded of its connections that go on, if [`ShardConfig::recorder`] is there.
    #[must_use]
    pub fn records(&self) -> Vec<ConnectionRecord> {
        self.inner.records()
    }

    pub(crate) fn inner(&self) -> &Rc<Inner> {
        &self.inner
    }
}

impl fmt::Debug for Shard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shard")
            .field("connections", &self.connections())
            .field("wait", &self.wait)
            .finish_non_exhaustive()
    }
}
