//! The threads that clients are on, each with its shard: one for all of a process, or some of one's own.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use ringcall_core::{Clock, TransportError};

use crate::shard::{MachineClock, Remote, default_memory_max};
use crate::{ServeError, Shard, ShardConfig, TransportChoice, TransportInfo, Wait};

/// How long what its last clients have left behind may take: calls that nobody waits for, goodbyes.
const LINGER: Duration = Duration::from_secs(1);

/// Threads for clients, each with a shard of its own: for more calls than one thread can make, and for clients whose
/// [waiting](crate::WaitPolicy), memory or [engine](TransportChoice) is not the default's. Without, all clients of a process share one
/// thread.
///
/// Each client is on one of them, in turn. They end with the last handle and the last client.
///
/// ```
/// use ringcall::{Client, ClientThreads, ShardConfig, WaitPolicy};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # #[ringcall::service] trait Echo { async fn echo(&self, text: String) -> String; }
/// # struct Loud;
/// # impl Echo for Loud { async fn echo(&self, text: String) -> String { text } }
/// # let server = ringcall::Server::bind("127.0.0.1:0").service(Loud.into_echo()).start()?;
/// let mut config = ShardConfig::default();
/// config.wait = WaitPolicy::Park;
/// let threads = ClientThreads::start(2, config)?;
/// let client = Client::connect(server.address()).threads(&threads).wait()?;
/// # EchoClient::new(client).echo(&"a".to_owned()).wait()?;
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct ClientThreads(Arc<Threads>);

struct Threads {
    remotes: Vec<Arc<Remote>>,
    next: AtomicUsize,
    is_over: Arc<AtomicBool>,
}

impl ClientThreads {
    /// Starts so many, at least one, with shards of these settings, whose bound of [memory](crate::MemoryLimits::total_bytes) is
    /// for all of them together.
    ///
    /// # Errors
    /// When a thread or its shard cannot be started. Those that were started before end.
    pub fn start(threads: usize, mut config: ShardConfig) -> Result<ClientThreads, ServeError> {
        let is_over = Arc::new(AtomicBool::new(false));
        let mut all = Threads { remotes: Vec::new(), next: AtomicUsize::new(0), is_over };
        #[cfg(feature = "sim")]
        if let Some(remote) = crate::sim::background() {
            all.remotes.push(remote);
            return Ok(ClientThreads(Arc::new(all)));
        }
        let threads = threads.max(1);
        let total_bytes = config.memory.total_bytes.or_else(default_memory_max);
        config.memory.total_bytes = total_bytes.map(|bytes| bytes / threads);
        for index in 0..threads {
            let is_over = Arc::clone(&all.is_over);
            let name = format!("ringcall-client-{index}");
            let remote = start(name, config.clone(), move || is_over.load(Ordering::Acquire))?;
            all.remotes.push(remote);
        }
        Ok(ClientThreads(Arc::new(all)))
    }

    /// How many there are.
    #[must_use]
    #[expect(clippy::len_without_is_empty, reason = "there is always one")]
    pub fn len(&self) -> usize {
        self.0.remotes.len()
    }

    /// Which engine moves the bytes, and why this one.
    #[must_use]
    pub fn transport(&self) -> &TransportInfo {
        self.0.remotes[0].transport()
    }

    /// The shard of the next client.
    pub(crate) fn next(&self) -> Arc<Remote> {
        let next = self.0.next.fetch_add(1, Ordering::Relaxed);
        Arc::clone(&self.0.remotes[next % self.0.remotes.len()])
    }
}

impl Drop for Threads {
    /// Perhaps on one of them, so nobody waits for their end.
    fn drop(&mut self) {
        self.is_over.store(true, Ordering::Release);
        self.remotes.iter().for_each(|remote| remote.wake());
    }
}

impl fmt::Debug for ClientThreads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientThreads").field("len", &self.len()).finish_non_exhaustive()
    }
}

/// Starts a thread with a shard, which ends when that is so, and what was left is done.
fn start(
    name: String,
    config: ShardConfig,
    is_over: impl Fn() -> bool + Send + 'static,
) -> Result<Arc<Remote>, ServeError> {
    let (started, waiting) = std::sync::mpsc::sync_channel(1);
    let thread = thread::Builder::new().name(name).spawn(move || match Shard::new(config) {
        Ok(shard) => {
            let _ = started.send(Ok(Arc::clone(&shard.inner().remote)));
            shard.run(|| !is_over());
            let end = MachineClock.now() + LINGER;
            while shard.connections() > 0 && MachineClock.now() < end {
                shard.turn(Wait::AtMost(end.since(MachineClock.now())));
            }
        }
        Err(error) => drop(started.send(Err(error))),
    });
    thread.map_err(ServeError::Thread)?;
    waiting.recv().map_err(|_| ServeError::Panicked)?
}

/// The shard of all clients of this process that made this choice; started when it is first needed.
pub(crate) fn background(choice: TransportChoice) -> Result<Arc<Remote>, TransportError> {
    #[cfg(feature = "sim")]
    if let Some(remote) = crate::sim::background() {
        return Ok(remote);
    }
    static BACKGROUND: parking_lot::Mutex<Vec<(TransportChoice, Arc<Remote>)>> =
        parking_lot::Mutex::new(Vec::new());
    let mut background = BACKGROUND.lock();
    background.retain(|(_, remote)| !remote.is_gone());
    if let Some((_, remote)) = background.iter().find(|(other, _)| *other == choice) {
        return Ok(Arc::clone(remote));
    }
    let config = ShardConfig { transport: choice, ..ShardConfig::default() };
    let remote = start("ringcall-client".into(), config, || false).map_err(|error| {
        log::error!("the shard of the clients cannot be started: {error}");
        match error {
            ServeError::Thread(_) | ServeError::Panicked => TransportError::Exhausted,
            _ => TransportError::Unsupported,
        }
    })?;
    background.push((choice, Arc::clone(&remote)));
    Ok(remote)
}
