//! Shards on threads of their own, behind one address.

use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use ringcall_core::{Address, Config, Counters, MemoryLimits};

use super::{Mount, Service};
use crate::ServeError;
use crate::client::ToAddress;
use crate::offload::Pool;
use crate::shard::{
    DRAIN_TIMEOUT, Notice, Remote, Shard, ShardConfig, TransportChoice, TransportInfo, Wait,
    WaitPolicy,
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

type MountService =
    Arc<dyn Fn(&Shard, &mut Mount, Handlers) -> Result<(), ServeError> + Send + Sync>;

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
    address: Result<Address, ServeError>,
    services: Vec<MountService>,
    handlers: Handlers,
    shards: usize,
    config: ShardConfig,
}

impl Server {
    /// A server for this address. Nothing happens before [`run`](Server::run) or
    /// [`start`](Server::start), which also say what is wrong with the address.
    pub fn bind(address: impl ToAddress) -> Server {
        let resolved = address.resolve();
        Server {
            address: resolved
                .map_err(|reason| ServeError::Address { address: address.to_text(), reason }),
            services: Vec::new(),
            handlers: Handlers::default(),
            shards: 1,
            config: ShardConfig::default(),
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

    /// Adds a service of which each shard has its own, made on the shard's thread: it may use `Rc` and
    /// `RefCell`, and no shard ever waits for another. Its handlers always run on the shard.
    pub fn service_per_shard<S: Service + 'static>(
        mut self,
        make: impl Fn(&Shard) -> S + Send + Sync + 'static,
    ) -> Server {
        self.services.push(Arc::new(move |shard, mount, _| mount.add(make(shard))));
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

    /// How shards wait for something to do; they sleep by default.
    pub fn wait(mut self, wait: WaitPolicy) -> Server {
        self.config.wait = wait;
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

    /// How much memory each shard may use.
    pub fn memory(mut self, limits: MemoryLimits) -> Server {
        self.config.memory = limits;
        self
    }

    /// How many connections are accepted at most; half of `ulimit -n` by default.
    pub fn connections_max(mut self, connections: usize) -> Server {
        self.config.connections_max = Some(connections);
        self
    }

    /// How many threads offloaded handlers may use; 200 by default, started when needed.
    pub fn offload_threads(mut self, threads: usize) -> Server {
        self.config.offload_threads = Some(threads);
        self
    }

    /// Lets other processes listen at the same address, too.
    pub fn reuse_port(mut self, reuse: bool) -> Server {
        self.config.reuse_port = reuse;
        self
    }

    /// Serves on this thread and others until the process ends.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn run(self) -> Result<(), ServeError> {
        let mut running = self.start()?;
        running.join();
        Ok(())
    }

    /// Serves on threads of its own. The server accepts connections when this returns, and stops when
    /// what it returns is dropped.
    ///
    /// # Errors
    /// When the address cannot be used, two methods have the same number, or a setting makes no sense.
    pub fn start(self) -> Result<RunningServer, ServeError> {
        let Server { address, services, handlers, shards, config } = self;
        let address = address?;
        let threads = config.offload_threads.unwrap_or(Pool::THREADS_MAX);
        let plan = Arc::new(Plan { services, handlers, config, pool: Pool::new(threads) });
        let mut starting = Vec::new();
        for index in 0..shards {
            starting.push(StartingShard::spawn(index, &plan)?);
        }
        let mut remotes = Vec::new();
        for shard in &starting {
            remotes.push(shard.ready()?);
        }
        // All are ready: the first accepts for all.
        let mut local = address.clone();
        for (index, shard) in starting.iter().enumerate() {
            let listen = (index == 0).then(|| address.clone());
            let go = Go { siblings: remotes.clone(), listen };
            if shard.go.send(go).is_err() {
                return Err(ServeError::Panicked);
            }
        }
        if let Some(first) = starting.first() {
            local = first.listening()?;
        }
        let threads = starting.into_iter().map(|shard| shard.thread).collect();
        Ok(RunningServer { address: local, remotes, threads })
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server")
            .field("address", &self.address)
            .field("services", &self.services.len())
            .field("shards", &self.shards)
            .finish_non_exhaustive()
    }
}

/// What all shards of a server are made from.
struct Plan {
    services: Vec<MountService>,
    handlers: Handlers,
    config: ShardConfig,
    pool: Arc<Pool>,
}

/// What a shard is told when all are ready.
struct Go {
    siblings: Vec<Arc<Remote>>,
    listen: Option<Address>,
}

/// A shard's thread that is being started.
struct StartingShard {
    thread: JoinHandle<Counters>,
    ready: Receiver<Result<Arc<Remote>, ServeError>>,
    go: SyncSender<Go>,
    listening: Receiver<Result<Address, ServeError>>,
}

impl StartingShard {
    fn spawn(index: usize, plan: &Arc<Plan>) -> Result<StartingShard, ServeError> {
        let (ready_sender, ready) = sync_channel(1);
        let (go, go_receiver) = sync_channel::<Go>(1);
        let (listening_sender, listening) = sync_channel(1);
        let plan = Arc::clone(plan);
        let thread = thread::Builder::new().name(format!("ringcall-shard-{index}"));
        let thread = thread
            .spawn(move || {
                let shard = match plan.make_shard() {
                    Ok(shard) => shard,
                    Err(error) => {
                        let _ = ready_sender.send(Err(error));
                        return Counters::default();
                    }
                };
                let _ = ready_sender.send(Ok(Arc::clone(&shard.inner().remote)));
                // The server could not be started because of another shard.
                let Ok(go) = go_receiver.recv() else { return Counters::default() };
                shard.inner().set_siblings(go.siblings);
                if let Some(address) = go.listen {
                    let listening = shard.listen(&address);
                    let failed = listening.is_err();
                    let _ = listening_sender.send(listening);
                    if failed {
                        return Counters::default();
                    }
                }
                serve(&shard);
                shard.counters()
            })
            .map_err(ServeError::Thread)?;
        Ok(StartingShard { thread, ready, go, listening })
    }

    fn ready(&self) -> Result<Arc<Remote>, ServeError> {
        self.ready.recv().map_err(|_| ServeError::Panicked)?
    }

    fn listening(&self) -> Result<Address, ServeError> {
        self.listening.recv().map_err(|_| ServeError::Panicked)?
    }
}

impl Plan {
    fn make_shard(&self) -> Result<Shard, ServeError> {
        let shard = Shard::with_pool(self.config.clone(), Arc::clone(&self.pool))?;
        let mut mount = Mount::add_to(shard.inner());
        for service in &self.services {
            service(&shard, &mut mount, self.handlers)?;
        }
        shard.inner().set_router(mount.finish());
        Ok(shard)
    }
}

fn serve(shard: &Shard) {
    shard.run(|| !shard.inner().has_stopped());
    // One more turn, so that what was said last is sent.
    shard.turn(Wait::Now);
}

/// A server that serves. Dropping it stops it, like [`stop`](RunningServer::stop).
pub struct RunningServer {
    address: Address,
    remotes: Vec<Arc<Remote>>,
    threads: Vec<JoinHandle<Counters>>,
}

impl RunningServer {
    /// Where it listens, with the port that was chosen if port 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// Which engine moves the bytes of its first shard, and why this one.
    #[must_use]
    pub fn transport(&self) -> &TransportInfo {
        // A server has at least one shard.
        self.remotes[0].transport()
    }

    /// How many connections its shards have.
    #[must_use]
    pub fn connections(&self) -> usize {
        let load =
            |shard: &Arc<Remote>| shard.connections.load(std::sync::atomic::Ordering::Relaxed);
        self.remotes.iter().map(load).sum()
    }

    /// How long [`stop`](RunningServer::stop) waits for calls that are in progress.
    pub const STOP_TIMEOUT: Duration = DRAIN_TIMEOUT;

    /// Stops: takes no new calls, finishes what is in progress (for ten seconds at most), and says
    /// goodbye, so that callers know which calls were not run. Returns what the server has done.
    pub fn stop(mut self) -> Counters {
        self.tell_to_stop();
        self.join()
    }

    fn tell_to_stop(&self) {
        self.remotes.iter().for_each(|remote| remote.notify(Notice::Stop));
    }

    fn join(&mut self) -> Counters {
        let mut sum = Counters::default();
        for thread in self.threads.drain(..) {
            if let Ok(counters) = thread.join() {
                sum.add(&counters);
            }
        }
        sum
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        self.tell_to_stop();
        self.join();
    }
}

impl fmt::Debug for RunningServer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunningServer")
            .field("address", &self.address)
            .field("shards", &self.threads.len())
            .field("connections", &self.connections())
            .finish()
    }
}
