//! A server that serves: what it says of itself, and its end.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel, sync_channel};
use std::thread::JoinHandle;
use std::time::Duration;

use parking_lot::Mutex;
use ringcall_core::{Address, Clock, Counters};

#[cfg(doc)]
use super::Server;
use super::group::ServedGroup;
use super::limits::ServerLimits;
use super::signals::Signals;
use super::starting::{Register, Registered, StartHook, Starting};
use crate::ServeError;
use crate::record::ConnectionRecord;
use crate::shard::{
    DrainReport, DrainStep, Goodbye, Incidents, MachineClock, Notice, Place, Remote, TransportInfo,
};

/// What ends the waiting for shards.
pub(super) enum End {
    Shard(usize, Box<DrainReport>),
    /// Nobody wants to wait any more.
    Hurry,
}

/// How long a shard has to say what it has recorded.
const RECORDS_TIMEOUT: Duration = Duration::from_secs(1);

/// How much longer than it should a shard may take before it is called stuck.
const PATIENCE: Duration = Duration::from_secs(2);
const PATIENCE_IN_A_HURRY: Duration = Duration::from_millis(500);

/// A server that serves. Any thread may look at it, so it can be kept in an `Arc` or a `OnceLock`.
///
/// Dropping it stops it, like [`stop`](RunningServer::stop). These two and [`drain`](RunningServer::drain) block their thread until
/// what runs has finished, or until [`Server::drain_timeout`] is over and it was cancelled. In async code that stops everything else
/// on the thread, and in a runtime of one thread, such as a test's, also the handlers that were to finish there: await
/// [`drained`](RunningServer::drained) there instead, or serve by [`until_signalled`](RunningServer::until_signalled) or
/// [`run_until`](RunningServer::run_until).
pub struct RunningServer {
    address: Address,
    remotes: Vec<Arc<Remote>>,
    limits: ServerLimits,
    group: ServedGroup,
    /// `None` once it has ended.
    threads: Vec<Option<JoinHandle<()>>>,
    ended: Sender<End>,
    drain_timeout: Duration,
    /// Nobody waits for that: only who owns the server ends it.
    last: Mutex<Last>,
}

/// What is of use at the end of a server only, and to one thread.
struct Last {
    ends: Receiver<End>,
    registered: Registered,
    on_drain: Option<Box<dyn FnOnce() + Send>>,
}

impl RunningServer {
    /// Of shards that are ready. `ends` is what they say their ends by.
    pub(super) fn new(
        remotes: Vec<Arc<Remote>>,
        limits: ServerLimits,
        group: ServedGroup,
        threads: Vec<Option<JoinHandle<()>>>,
        (ended, ends): (Sender<End>, Receiver<End>),
        drain_timeout: Duration,
    ) -> RunningServer {
        let last = Last { ends, registered: Registered::default(), on_drain: None };
        RunningServer {
            // Until it listens.
            address: Address::Unix(String::new()),
            remotes,
            limits,
            group,
            threads,
            ended,
            drain_timeout,
            last: Mutex::new(last),
        }
    }

    /// What is to be done when it begins to drain.
    pub(super) fn on_drain(&mut self, hook: Box<dyn FnOnce() + Send>) {
        self.last.get_mut().on_drain = Some(hook);
    }

    /// Lets others reach it, when it has had the time to prepare, and tells them.
    pub(super) fn expose(
        &mut self,
        at: Place,
        on_start: Vec<StartHook>,
        registries: Vec<Box<dyn Register>>,
    ) -> Result<(), ServeError> {
        if !on_start.is_empty() {
            let starting = Starting::prepare(self.limits.clone())?;
            self.listen(Place::Address(starting.address().clone()))?;
            starting.run(on_start)?;
        }
        self.address = self.listen(at)?;
        self.last.get_mut().registered.tell(registries, &self.address, &self.group)
    }

    /// Makes it listen there, and nowhere else.
    fn listen(&self, at: Place) -> Result<Address, ServeError> {
        let address = match &at {
            Place::Address(address) => address.to_string(),
            Place::Socket(_) => "a socket that was handed over".to_owned(),
        };
        let (to, from) = sync_channel(1);
        self.remotes[0].notify(Notice::Listen(at, to));
        let listening = from.recv().map_err(|_| ServeError::Panicked)?;
        listening.map_err(|error| ServeError::Listen { address, error })
    }

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

    /// What it refuses when there is too much to do, which can be [replaced](ServerLimits::replace).
    #[must_use]
    pub fn limits(&self) -> &ServerLimits {
        &self.limits
    }

    /// The group that it is in, which can be [another one](ServedGroup::move_to).
    #[must_use]
    pub fn group(&self) -> &ServedGroup {
        &self.group
    }

    /// How many connections its shards have.
    #[must_use]
    pub fn connections(&self) -> usize {
        let load =
            |shard: &Arc<Remote>| shard.connections.load(std::sync::atomic::Ordering::Relaxed);
        self.remotes.iter().map(load).sum()
    }

    /// Another descriptor of its listening socket, for a successor in this process or another: see
    /// [`Server::from_listener`]. Start the successor, then [`drain`](RunningServer::drain) this server:
    /// whoever connects meanwhile waits in the queue that both share, and nobody is refused.
    ///
    /// # Errors
    /// When there is no file descriptor left.
    pub fn hand_over(&self) -> Result<OwnedFd, ServeError> {
        let (to, from) = sync_channel(1);
        self.remotes[0].notify(Notice::HandOver(to));
        let socket = from.recv().map_err(|_| ServeError::Panicked)?;
        socket
            .map(OwnedFd::from)
            .map_err(|error| ServeError::Listen { address: self.address.to_string(), error })
    }

    /// What has gone wrong on its shards so far, and was got over.
    #[must_use]
    pub fn incidents(&self) -> Incidents {
        self.incidents_reader()()
    }

    /// Reads [that](RunningServer::incidents) from anywhere, also when the server has ended: for metrics.
    pub fn incidents_reader(&self) -> impl Fn() -> Incidents + Send + Sync + 'static + use<> {
        let remotes = self.remotes.clone();
        move || {
            let mut sum = Incidents::default();
            remotes.iter().for_each(|remote| sum.add(&remote.register.read()));
            sum
        }
    }

    /// What is [recorded](Server::record) of its connections that go on. Waits for each of its shards, for a
    /// second at most.
    #[must_use]
    pub fn records(&self) -> Vec<ConnectionRecord> {
        let ask = |remote: &Arc<Remote>| {
            let (to, from) = channel();
            remote.notify(Notice::Records(to));
            from
        };
        let asked: Vec<_> = self.remotes.iter().map(ask).collect();
        let answers = asked.iter().filter_map(|from| from.recv_timeout(RECORDS_TIMEOUT).ok());
        answers.flatten().collect()
    }

    /// Ends the server in such a way that a client that tries again loses nothing:
    ///
    /// 1. those that it was [registered](Server::register) with are told, and the hooks of [`Server::on_drain`] run;
    /// 2. every client is asked to make no further calls, the queue of connections is accepted and asked,
    ///    too, and the listener is closed;
    /// 3. what clients had sent before they knew is taken, and everything after that refused, so that they
    ///    know it did not run;
    /// 4. what runs is finished, for [`Server::drain_timeout`] at most, and then cancelled;
    /// 5. a connection is closed as soon as its last answer is sent.
    ///
    /// It blocks its thread. In async code await [`drained`](RunningServer::drained), or handlers that are to finish on this thread
    /// never do.
    pub fn drain(mut self) -> DrainReport {
        let report = self.end(Goodbye::Drain(self.drain_timeout));
        log::info!("drained: {report}");
        report
    }

    /// Stops: as [`drain`](RunningServer::drain), but calls that have not arrived are refused at once.
    /// That is faster by a round trip, and loses one-way calls that are under way, of whose refusal nobody
    /// tells their callers. Returns what the server has done.
    pub fn stop(mut self) -> Counters {
        self.end(Goodbye::Stop(self.drain_timeout)).counters
    }

    fn end(&mut self, how: Goodbye) -> DrainReport {
        let began = MachineClock.now();
        let mut report = DrainReport::default();
        let last = self.last.get_mut();
        last.registered.take_back();
        if let Some(hook) = last.on_drain.take() {
            hook();
            report.steps.push((MachineClock.now().since(began), 0, DrainStep::Unregistered));
        }
        let hook_took = MachineClock.now().since(began);
        self.begin(how);
        let mut until = MachineClock.now() + self.drain_timeout + PATIENCE;
        while self.threads.iter().any(Option::is_some) {
            match self.last.get_mut().ends.recv_timeout(until.since(MachineClock.now())) {
                Ok(End::Shard(index, mut shard)) => {
                    if let Some(thread) = self.threads[index].take() {
                        let _ = thread.join();
                    }
                    for (at, of, _) in &mut shard.steps {
                        (*at, *of) = (*at + hook_took, index);
                    }
                    report.add(&shard);
                }
                Ok(End::Hurry) => {
                    until = until.min(MachineClock.now() + PATIENCE_IN_A_HURRY);
                }
                Err(_) => break,
            }
        }
        self.threads.retain(Option::is_some);
        // A shard that panicked has ended, too.
        report.stuck = self.threads.drain(..).flatten().filter(|t| !t.is_finished()).count();
        if report.stuck > 0 {
            log::error!("{} shards are blocked by a handler and were left alone", report.stuck);
        }
        report.took = MachineClock.now().since(began);
        report
    }

    fn begin(&self, how: Goodbye) {
        let Some((first, others)) = self.remotes.split_first() else { return };
        // When the first shard has begun, it gives no further connections to the others, which may then
        // come to their ends.
        let (begun, has_begun) = sync_channel(1);
        first.notify(Notice::Goodbye(how, Some(begun)));
        if !others.is_empty() {
            let _ = has_begun.recv_timeout(PATIENCE);
        }
        others.iter().for_each(|remote| remote.notify(Notice::Goodbye(how, None)));
    }

    pub(super) fn hurry(&self) -> Hurry {
        Hurry { remotes: self.remotes.clone(), ended: self.ended.clone() }
    }

    /// The next signal makes the drain end at once.
    pub(super) fn hurry_on_next(&self, signals: &Signals) {
        let hurry = self.hurry();
        let watching = signals.on_next(move || {
            log::warn!("told to end again: what runs is cancelled");
            hurry.up();
        });
        if let Err(error) = watching {
            log::error!("a second signal will not be noticed: {error}");
        }
    }
}

/// Makes a drain end at once, from another thread.
pub(super) struct Hurry {
    remotes: Vec<Arc<Remote>>,
    ended: Sender<End>,
}

impl Hurry {
    pub(super) fn up(&self) {
        let _ = self.ended.send(End::Hurry);
        let at_once = |remote: &Arc<Remote>| remote.notify(Notice::Goodbye(Goodbye::AtOnce, None));
        self.remotes.iter().for_each(at_once);
    }
}

impl Drop for RunningServer {
    fn drop(&mut self) {
        if !self.threads.is_empty() {
            self.end(Goodbye::Stop(self.drain_timeout));
        }
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
