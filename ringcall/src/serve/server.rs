//! Shards on threads of their own, behind one address.

use std::fmt;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use ringcall_core::{Config, Identity, MemoryLimits};

use super::group::ServedGroup;
use super::handler::Spawner;
use super::limits::{Limits, LimitsInForce, Served, ServerLimits};
use super::plan::{Plan, StartingShard};
use super::running::RunningServer;
use super::signals::Signals;
use super::starting::{Register, StartError, StartHook, Starting};
use super::{
    Access, CallerInfo, ConnectionInfo, Deduplication, Filters, KeptReplies, Mount, SendService,
    ServerCall, ServerFilter, Service, SpawnedCall,
};
use crate::ServeError;
use crate::client::ToAddress;
use crate::filter::Filter;
use crate::observe::Observer;
use crate::offload::{AroundThread, Pool};
use crate::packing::CompressionConfig;
use crate::record::ConnectionRecorder;
#[cfg(doc)]
use crate::shard::Incidents;
use crate::shard::{
    DRAIN_TIMEOUT, DrainReport, Place, Shard, ShardConfig, TransportChoice, WaitPolicy,
    default_memory_max,
};

/// Where the handlers of a server run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Handlers {
    /// On the shard that received the call: the fastest, for handlers that neither block nor compute
    /// long. A method can be sent to the pool alone, with `#[method(offload)]`.
    #[default]
    Shard,
    /// On a bounded pool of threads. Methods with streams run on the shard all the same.
    Offload,
}

impl fmt::Display for Handlers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Handlers::Shard => "shard",
            Handlers::Offload => "offload",
        })
    }
}

pub(super) type MountService =
    Arc<dyn Fn(&Shard, &mut Mount, Handlers) -> Result<(), ServeError> + Send + Sync>;

pub(super) type MakeFilter = Arc<dyn Fn() -> Rc<dyn ServerFilter> + Send + Sync>;

/// Serves services at an address, with one shard or several, each a thread of its own.
///
/// ```no_run
/// # #[ringcall::service] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
/// # struct Mirror;
/// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
/// use ringcall::Server;
///
/// Server::bind("127.0.0.1:7000").service(Mirror.into_echo()).shards(2).run()?;
/// # Ok::<(), ringcall::ServeError>(())
/// ```
#[must_use = "a server does nothing before it is run or started"]
pub struct Server {
    at: Result<Place, ServeError>,
    services: Vec<MountService>,
    filter: Option<MakeFilter>,
    handlers: Handlers,
    shards: usize,
    config: ShardConfig,
    memory_max: Option<usize>,
    deduplication: Option<Deduplication>,
    drain_timeout: Duration,
    on_start: Vec<StartHook>,
    registries: Vec<Box<dyn Register>>,
    on_drain: Box<dyn FnOnce() + Send>,
    around: Option<AroundThread>,
}

impl Server {
    /// A server for this address. Nothing happens before [`run`](Server::run) or
    /// [`start`](Server::start), which also say what is wrong with the address.
    pub fn bind(address: impl ToAddress) -> Server {
        let resolved = address.target().and_then(|target| target.find());
        Server::at(
            resolved
                .map(Place::Address)
                .map_err(|reason| ServeError::Address { address: address.to_text(), reason }),
        )
    }

    /// A server on a socket that listens already: one that a predecessor [hands
    /// over](RunningServer::hand_over), or that was made by `std`.
    ///
    /// A process that starts its successor passes the descriptor on as the successor's standard input, for
    /// which `std` has all that is needed:
    ///
    /// ```no_run
    /// # fn predecessor(running: &ringcall::RunningServer) -> Result<(), Box<dyn std::error::Error>> {
    /// std::process::Command::new("successor").stdin(running.hand_over()?).spawn()?;
    /// # Ok(()) }
    /// # fn successor() -> Result<(), Box<dyn std::error::Error>> {
    /// use std::os::fd::AsFd;
    ///
    /// let server = ringcall::Server::from_listener(std::io::stdin().as_fd().try_clone_to_owned()?);
    /// # Ok(()) }
    /// ```
    pub fn from_listener(listener: impl Into<OwnedFd>) -> Server {
        Server::at(Ok(Place::Socket(listener.into())))
    }

    fn at(at: Result<Place, ServeError>) -> Server {
        Server {
            at,
            services: Vec::new(),
            filter: None,
            handlers: Handlers::default(),
            shards: 1,
            config: ShardConfig::default(),
            memory_max: None,
            deduplication: None,
            drain_timeout: DRAIN_TIMEOUT,
            on_start: Vec::new(),
            registries: Vec::new(),
            on_drain: Box::new(|| {}),
            around: None,
        }
    }

    /// Adds a service that all shards share.
    pub fn service<S>(mut self, service: S) -> Server
    where
        S: Service + Clone + Send + Sync + 'static,
    {
        self.services
            .push(Arc::new(move |_, mount, handlers| mount.add_with(service.clone(), handlers)));
        self
    }

    /// Adds a service whose handlers run on an executor of yours: each call is a future that `spawn` gets, on
    /// the thread of the shard that received the call, and must pass on at once.
    ///
    /// ```no_run
    /// # #[ringcall::service(send)] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
    /// # struct Mirror;
    /// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
    /// # fn example(runtime: &tokio::runtime::Runtime) -> Result<(), ringcall::ServeError> {
    /// let tokio = runtime.handle().clone();
    /// let server = ringcall::Server::bind("127.0.0.1:7000")
    ///     .service_spawned(Mirror.into_echo(), move |call| drop(tokio.spawn(call)))
    ///     .start()?;
    /// # Ok(()) }
    /// ```
    ///
    /// A call that nobody waits for any more ends where it awaits something. If the executor drops a call its
    /// caller gets [`ABORTED`](ringcall_core::Status::ABORTED). What limits the number of calls there is
    /// [`Config::in_flight_max`], for each connection.
    ///
    /// Methods with streams run on the shard all the same, which is in no runtime unless `Server::tokio` (feature `tokio`)
    /// or [`on_each_thread`](Server::on_each_thread) say so. With tokio these are the first choice: handlers may then use it
    /// where they are, which saves two hops between threads. This one is for handlers that now and then compute for longer
    /// than others should wait, and for runtimes that want their tasks on their own threads (`tokio::task::block_in_place`,
    /// metrics of tasks).
    pub fn service_spawned<S>(
        mut self,
        service: S,
        spawn: impl Fn(SpawnedCall) + Send + Sync + 'static,
    ) -> Server
    where
        S: SendService + Clone + Send + Sync + 'static,
    {
        let spawner: Spawner = Arc::new(spawn);
        self.services
            .push(Arc::new(move |_, mount, _| mount.add_spawned(service.clone(), &spawner)));
        self
    }

    /// Adds a service of which each shard has its own, made on the shard's thread: it may use `Rc` and
    /// `RefCell`, and no shard ever waits for another. Its handlers always run on the shard.
    pub fn service_per_shard<S: Service + 'static>(
        mut self,
        make: impl Fn(&Shard) -> S + Send + Sync + 'static,
    ) -> Server {
        self.services.push(Arc::new(move |shard, mount, _| mount.add(make(shard))));
        self
    }

    /// What all calls of all services pass before their handlers, see [`filter`](crate::filter): one filter, or
    /// several that were put together. Methods, codecs and signatures have been checked by then, the argument
    /// has not been looked at.
    ///
    /// A call that a filter lets pass at once allocates nothing, one that waits neither once there were as many
    /// before. Those whose ends are [told](crate::filter::FilterExt::after) are kept in a table meanwhile.
    pub fn filter<F>(mut self, filter: F) -> Server
    where
        F: Filter<ServerCall> + Send + Sync,
    {
        self.filter = Some(Arc::new(move || Rc::new(Filters::new(filter.clone()))));
        self
    }

    /// Where handlers run, of all services that the shards share.
    pub fn handlers(mut self, handlers: Handlers) -> Server {
        self.handlers = handlers;
        self
    }

    /// How many threads move bytes and run handlers; 1 by default. Connections go to the shard that has
    /// the fewest.
    pub fn shards(mut self, shards: usize) -> Server {
        self.shards = shards.max(1);
        self
    }

    /// How shards wait for something to do: [`WaitPolicy::Adaptive`] by default.
    pub fn wait(mut self, wait: WaitPolicy) -> Server {
        self.config.wait = wait;
        self
    }

    /// A handler that keeps its shard for longer than this is logged (`warn`, target `ringcall::stall`, once a
    /// second at most) and counted, see [`Incidents::stalls`]; 10 ms unless you say otherwise.
    pub fn stall_threshold(mut self, threshold: Duration) -> Server {
        self.config.stall_threshold = Some(threshold);
        self
    }

    /// Which engine moves the bytes: io_uring if it works here, by default.
    pub fn transport(mut self, choice: TransportChoice) -> Server {
        self.config.transport = choice;
        self
    }

    /// Limits and timeouts of connections.
    pub fn config(mut self, config: Config) -> Server {
        self.config.server = config;
        self
    }

    /// What it refuses when there is too much to do, see [`limits`](crate::limits): by default only what
    /// connections are limited to. [Replaceable](ServerLimits::replace) while it serves.
    ///
    /// A server that runs handlers on its shards should have some. Without, calls wait in sockets, where it
    /// is not seen for how long, and under overload each is answered when its caller has given up.
    pub fn limits(mut self, limits: Limits) -> Server {
        self.config.limits = Some(limits);
        self
    }

    /// How many bytes connections may hold together: what arrives, what is answered and not read, calls that run, and
    /// what is kept for the next ones. Each shard has an equal part of it. By default it is a third of what the process
    /// may have: of the machine's memory, or of what its control group allows (`memory.max`, `memory.limit_in_bytes`), if that
    /// is less; read once, when the server starts.
    ///
    /// Above four fifths of it, what is left is shared out among the connections. Calls of those that hold more than
    /// their part are refused with [`OVERLOADED`](ringcall_core::Status::OVERLOADED): they did not run, and may be made
    /// again. At the bound the connections that hold the most are closed, with code 31, and new ones are turned
    /// away until it is enough. [`Incidents::closed_for_memory`] counts the former.
    ///
    /// What the application holds itself is not counted, but for views and bodies that it keeps; nor are the holes of
    /// the allocator. glibc's are small if the process is started with `MALLOC_MMAP_THRESHOLD_=131072`.
    pub fn memory_max(mut self, bytes: usize) -> Server {
        self.memory_max = Some(bytes);
        self
    }

    /// Keeps the answers of methods for calls that are made again with the same idempotency key, so that these do not
    /// run a second time: see [`Deduplication`]. All shards share them.
    ///
    /// ```no_run
    /// # #[ringcall::service(name = "shop.Orders")] trait Orders { async fn buy(&self, item: u64) -> u64; }
    /// # struct Shop;
    /// # impl Orders for Shop { async fn buy(&self, item: u64) -> u64 { item } }
    /// use ringcall::{CallerKey, Deduplication, Server};
    ///
    /// let kept = Deduplication::new(CallerKey::metadata("tenant")).method("shop.Orders/buy");
    /// let server = Server::bind("127.0.0.1:7000").service(Shop.into_orders()).deduplicate(kept).start()?;
    ///
    /// let orders = OrdersClient::connect(server.address()).wait()?;
    /// let bought = orders.buy(&17).idempotency_key("order 4711").metadata("tenant", "acme").wait()?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn deduplicate(mut self, settings: Deduplication) -> Server {
        self.deduplication = Some(settings);
        self
    }

    /// How much memory each shard may use, and for what. What [`memory_max`](Server::memory_max) says counts as well, if
    /// that is less than [`total_bytes`](MemoryLimits::total_bytes).
    pub fn memory(mut self, limits: MemoryLimits) -> Server {
        self.config.memory = limits;
        self
    }

    /// Speaks TLS on every connection, and nothing else. [`TlsServer::replace`](crate::TlsServer::replace)
    /// changes certificates while it serves.
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::TlsServer) -> Server {
        self.config.server_tls = Some(tls);
        self
    }

    /// Asks about every connection, once, when the client has said who it is: by its certificate, by
    /// [credentials](crate::Connect::credentials), or not at all. One that is denied is closed, with code 29,
    /// before any of its calls run. Servers that a handler connects to are not asked about, and may call
    /// [what is offered](crate::LocalConnect::service) to them, nothing else.
    ///
    /// The hook runs on the shard, so it should look things up in memory. If it panics, nobody gets in.
    pub fn authorize(
        mut self,
        hook: impl Fn(&ConnectionInfo) -> Access + Send + Sync + 'static,
    ) -> Server {
        self.config.authorize(hook);
        self
    }

    /// Asks about every call, before its argument is looked at: what was right when the connection began,
    /// such as a token, need not be right for ever. One that is refused did not run. A connection with more
    /// than 64 refused calls in 10 seconds is closed, with code 29. As for [`authorize`](Server::authorize), this is
    /// about connections that were accepted.
    ///
    /// The hook runs on the shard, for each call: it should be fast. If it panics, the call is refused.
    pub fn authorize_calls(
        mut self,
        hook: impl Fn(&CallerInfo<'_>) -> Access + Send + Sync + 'static,
    ) -> Server {
        self.config.authorize_calls(hook);
        self
    }

    /// How high a [priority](crate::CallOptions::priority) a caller may claim: a call that says more is taken for one
    /// of this priority, by [`limits`](Server::limits), by its handler and for the calls that this makes in turn. Without,
    /// everybody may claim any, so that under overload those who claim the most are served before others.
    ///
    /// ```no_run
    /// # use ringcall::Server;
    /// // A token of the payment service's, for example.
    /// let server = Server::bind("0.0.0.0:7000").priority_max(|caller| match caller.credentials() {
    ///     Some(token) if ringcall::same_secret(token, b"the payments' token") => 9,
    ///     _ => 0,
    /// });
    /// ```
    ///
    /// The hook runs on the shard, for each call that claims a priority above 0: it should be fast. If it panics, the call
    /// is an ordinary one. Observers are told what was claimed.
    pub fn priority_max(
        mut self,
        hook: impl Fn(&CallerInfo<'_>) -> u8 + Send + Sync + 'static,
    ) -> Server {
        self.config.priority_max(hook);
        self
    }

    /// The group that it is in. A call that a balanced channel has routed to another one is refused with
    /// [`WRONG_GROUP`](ringcall_core::Status::WRONG_GROUP), before its argument is looked at: the address is somebody
    /// else's by now, or the caller's list is old. Calls that were routed by no group are served. It can be moved to
    /// [another one](ServedGroup::move_to) while it serves.
    pub fn group(mut self, group: &str) -> Server {
        self.config.group(group);
        self
    }

    /// Which instance it is: it says so in the handshake, and clients that were told that another one is at the address
    /// leave before they send a call. That is a name that its operator has chosen, such as the one that it is
    /// registered by, and no proof: what clients can believe is its certificate, with TLS.
    pub fn identity(mut self, identity: Identity) -> Server {
        self.config.identity = Some(identity);
        self
    }

    /// How many connections are accepted at most; half of `ulimit -n` by default.
    pub fn connections_max(mut self, connections: usize) -> Server {
        self.config.connections_max = Some(connections);
        self
    }

    /// Runs what each thread of the server does inside of a closure: that of a shard, from before its services are made
    /// until they are dropped, and those that offloaded handlers use. What the closure has made by then is there all the time: a
    /// guard of some runtime, a name for a profiler, a core to stay on.
    ///
    /// ```no_run
    /// # #[ringcall::service] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
    /// # struct Mirror;
    /// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
    /// # fn example(runtime: &tokio::runtime::Runtime) -> Result<(), ringcall::ServeError> {
    /// let tokio = runtime.handle().clone();
    /// let server = ringcall::Server::bind("127.0.0.1:7000").service(Mirror.into_echo());
    /// // What `Server::tokio` does.
    /// let server = server.on_each_thread(move |work| {
    ///     let _entered = tokio.enter();
    ///     work();
    /// });
    /// # drop(server); Ok(()) }
    /// ```
    ///
    /// The closure must call what it gets, or the server does not start. Of several the first is outside.
    pub fn on_each_thread(
        mut self,
        around: impl Fn(Box<dyn FnOnce()>) + Send + Sync + 'static,
    ) -> Server {
        let inner: AroundThread = Arc::new(around);
        self.around = Some(match self.around.take() {
            None => inner,
            Some(outer) => Arc::new(move |work| {
                let inner = Arc::clone(&inner);
                outer(Box::new(move || inner(work)));
            }),
        });
        self
    }

    /// Lets all handlers use tokio, wherever they run: `tokio::time`, `tokio::spawn`, its sockets and whatever is made
    /// of these, in methods with streams, too. They stay on the server's threads, which are in the runtime's context
    /// (`Handle::enter`), and so are the tasks that they [spawn](super::Context::spawn) there.
    ///
    /// ```no_run
    /// # struct Mirror;
    /// #[ringcall::service]
    /// trait Echo {
    ///     async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes;
    /// }
    ///
    /// impl Echo for Mirror {
    ///     async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes {
    ///         tokio::time::sleep(std::time::Duration::from_millis(1)).await;
    ///         body
    ///     }
    /// }
    ///
    /// # async fn example() -> Result<(), ringcall::ServeError> {
    /// let running = ringcall::Server::bind("127.0.0.1:7000")
    ///     .service(Mirror.into_echo())
    ///     .tokio(tokio::runtime::Handle::current())
    ///     .start()?;
    /// running.until_signalled().await?;
    /// # Ok(()) }
    /// ```
    ///
    /// A call that uses nothing of tokio costs what it did. One that waits for a timer or a socket is woken by a thread of
    /// the runtime: if its shard sleeps, that is one write to an eventfd.
    ///
    /// What holds of handlers holds on: they must not block (`tokio::task::spawn_blocking` and `#[method(offload)]` may), and
    /// `tokio::task::spawn_local` is not there. The runtime must outlive the server, and have its drivers (`enable_all`); one of a single
    /// thread must not be blocked meanwhile, or nothing in it goes on: end the server with
    /// [`drained`](RunningServer::drained).
    /// [`service_spawned`](Server::service_spawned) says when that is the better way.
    #[cfg(feature = "tokio")]
    pub fn tokio(self, runtime: tokio::runtime::Handle) -> Server {
        self.on_each_thread(move |work| {
            let _entered = runtime.enter();
            work();
        })
    }

    /// How many threads offloaded handlers may use; 200 by default, started when needed.
    pub fn offload_threads(mut self, threads: usize) -> Server {
        self.config.offload_threads = Some(threads);
        self
    }

    /// What is done about compressed bodies: they are read, and nothing is sent compressed, by default.
    pub fn compression(mut self, compression: CompressionConfig) -> Server {
        self.config.compression = compression;
        self
    }

    /// Who is told what happens on its shards, beside those that were named before: see
    /// [`observe`](crate::observe).
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Server {
        self.config.observers.add(observer);
        self
    }

    /// Records its connections, see [`record`](crate::record).
    pub fn record(mut self, recorder: &ConnectionRecorder) -> Server {
        self.config.recorder = Some(recorder.clone());
        self
    }

    /// Lets other processes listen at the same address, too, if they say so as well: a successor, say. The
    /// kernel spreads connections over all of them. Those that reach a server in the moment in which it
    /// closes its listener are reset, before a call was made; [handing the listener
    /// over](RunningServer::hand_over) has no such moment.
    pub fn reuse_port(mut self, reuse: bool) -> Server {
        self.config.reuse_port = reuse;
        self
    }

    /// How long calls that run may take to finish when the server drains or stops: 10 seconds by default.
    /// After it they are cancelled, and a second later what is left of connections is cut off.
    pub fn drain_timeout(mut self, timeout: Duration) -> Server {
        self.drain_timeout = timeout;
        self
    }

    /// What is to be done before anybody else can reach the server, such as filling caches: all of its shards serve
    /// by then, and [`Starting::address`] is where the hook may call it. It runs on the thread that starts the
    /// server, and may block. Several hooks run in the order in which they were given.
    ///
    /// If it fails, so does [`start`](Server::start), and the server's address was never listened at. Connections
    /// that it keeps are connections like others.
    ///
    /// ```no_run
    /// # #[ringcall::service] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
    /// # struct Mirror;
    /// # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
    /// use ringcall::{Bytes, Server};
    ///
    /// let server = Server::bind("127.0.0.1:7000").service(Mirror.into_echo()).on_start(|starting| {
    ///     let itself = EchoClient::connect(starting.address()).wait()?;
    ///     itself.echo(&Bytes::from_static(b"warm")).wait()?;
    ///     Ok(())
    /// });
    /// # drop(server);
    /// ```
    pub fn on_start(
        mut self,
        hook: impl FnOnce(&Starting) -> Result<(), StartError> + Send + 'static,
    ) -> Server {
        self.on_start.push(Box::new(hook));
        self
    }

    /// Says in a registry that the server is there, once it listens and its hooks have returned, and takes that back
    /// before anything else when it drains or stops. Several are told one after another, and the last is taken back
    /// first.
    pub fn register(mut self, registry: impl Register + 'static) -> Server {
        self.registries.push(Box::new(registry));
        self
    }

    /// What is to be done when the server drains or stops, before anything else but telling those that it was
    /// [registered](Server::register) with. It runs on the thread that ends the server, and may block.
    pub fn on_drain(mut self, hook: impl FnOnce() + Send + 'static) -> Server {
        let hooks = std::mem::replace(&mut self.on_drain, Box::new(|| {}));
        self.on_drain = Box::new(move || {
            hooks();
            hook();
        });
        self
    }

    /// Serves on this thread and others until the process is told to end, by SIGTERM or SIGINT: then the
    /// server [drains](RunningServer::drain). A second signal cancels what runs and returns at once.
    ///
    /// Afterwards these signals do again what they do by default.
    ///
    /// It blocks its thread. In async code, [`start`](Server::start) the server and await
    /// [`until_signalled`](RunningServer::until_signalled).
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(self) -> Result<DrainReport, ServeError> {
        let signals = Signals::watch().map_err(ServeError::Thread)?;
        let running = self.start()?;
        signals.wait();
        log::info!("told to end: draining");
        running.hurry_on_next(&signals);
        Ok(running.drain())
    }

    /// Serves on threads of its own. The server accepts connections when this returns, and stops when
    /// what it returns is dropped. It waits for nothing but these threads and the hooks of [`on_start`](Server::on_start).
    ///
    /// # Errors
    /// When the address cannot be used, two methods have the same number, or a setting makes no sense.
    pub fn start(self) -> Result<RunningServer, ServeError> {
        let Server { at, services, filter, handlers, shards, deduplication, mut config, .. } = self;
        let drain_timeout = self.drain_timeout;
        let memory_max = self.memory_max;
        let at = at?;
        let memory_max = memory_max.or_else(default_memory_max).map(|bytes| bytes / shards);
        let limits = [memory_max, config.memory.total_bytes];
        config.memory.total_bytes = limits.into_iter().flatten().min();
        let rule = config.limits.as_ref().and_then(Limits::queue_rule);
        config.limits.as_ref().map_or(Ok(()), Limits::validate)?;
        if let Some(settings) = deduplication {
            config.kept = Some(Arc::new(KeptReplies::new(settings.validate()?)));
        }
        let rates = config.limits.as_ref().and_then(|limits| limits.rates(None));
        let in_force = LimitsInForce { limits: config.limits.clone(), rates: rates.clone() };
        config.rates = rates;
        config.limits = config.limits.map(|limits| limits.shared_among(shards));
        let group = config.authority.group.clone();
        let threads = config.offload_threads.unwrap_or(Pool::THREADS_MAX);
        let around = self.around;
        let pool = Pool::within(threads, rule, around.clone());
        let pool_of_all = Arc::clone(&pool);
        let plan = Plan { services, filter, handlers, config, pool: pool_of_all, around };
        let plan = Arc::new(plan);
        let (ended, ends) = channel();
        let mut starting = Vec::new();
        for index in 0..shards {
            starting.push(StartingShard::spawn(index, &plan, ended.clone())?);
        }
        let (mut remotes, mut served) = (Vec::new(), Served::default());
        for shard in &starting {
            let remote;
            (remote, served) = shard.ready()?;
            remotes.push(remote);
        }
        let limits = ServerLimits::new(remotes.clone(), pool, served, in_force);
        let group = ServedGroup::new(remotes.clone(), group);
        // All are ready: the first accepts for all.
        for shard in &starting {
            if shard.go.send(remotes.clone()).is_err() {
                return Err(ServeError::Panicked);
            }
        }
        let threads = starting.into_iter().map(|shard| Some(shard.thread)).collect();
        let ends = (ended, ends);
        let mut running = RunningServer::new(remotes, limits, group, threads, ends, drain_timeout);
        // If that fails it stops, since it is dropped.
        running.expose(at, self.on_start, self.registries)?;
        running.on_drain(self.on_drain);
        Ok(running)
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("at", &self.at)
            .field("services", &self.services.len())
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}
