//! The end of a shard's service: goodbye, finishing what runs, a hard limit.

use std::fmt;
use std::task::{Poll, Waker};
use std::time::Duration;

use ringcall_core::{CloseReason, Counters, Endpoint, Instant, Side, Status, Transport};

use super::inner::Inner;
use crate::serve::Running;

/// How long connections have for their handshake once a drain has begun.
const HANDSHAKES: Duration = Duration::from_secs(1);
/// How long connections have for their last words after the hard limit, and after a second signal.
const LAST_WORDS: Duration = Duration::from_secs(1);
const LAST_WORDS_IN_A_HURRY: Duration = Duration::from_millis(50);
/// How long a server waits for what runs unless said otherwise.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// How a shard is to end its service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goodbye {
    /// Clients are asked first, so that nothing is refused that is under way.
    Drain(Duration),
    /// What has not arrived is refused.
    Stop(Duration),
    /// What runs is cancelled.
    AtOnce,
}

/// A step of a drain.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DrainStep {
    /// All that it was [registered](crate::Server::register) with know, and the hooks of
    /// [`Server::on_drain`](crate::Server::on_drain) have returned.
    Unregistered,
    /// All connections were asked to stop.
    Announced,
    /// Nobody waits to be accepted any more, and the listener is closed.
    NotListening,
    /// Nothing is under way any more: further calls are refused.
    Refusing,
    /// The time was over: what still ran was cancelled.
    Cancelled,
    /// The last connection is closed.
    Closed,
}

impl fmt::Display for DrainStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            DrainStep::Unregistered => "unregistered",
            DrainStep::Announced => "announced",
            DrainStep::NotListening => "not listening",
            DrainStep::Refusing => "refusing",
            DrainStep::Cancelled => "cancelled",
            DrainStep::Closed => "closed",
        })
    }
}

/// What came of ending a service.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct DrainReport {
    /// Calls that were answered, or one-way calls that were done, since it began.
    pub finished: u64,
    /// Calls that came too late and were not run; their callers know.
    pub refused: u64,
    /// Calls that ran longer than the drain: their handlers were cancelled, and their callers got
    /// [`ABORTED`](ringcall_core::Status::ABORTED).
    pub cancelled: u64,
    /// Connections that there were, or that were still accepted.
    pub connections: usize,
    /// Those of them that had to be cut off.
    pub cut: usize,
    /// Shards that did not end in time because a handler blocks them; their threads were left alone.
    pub stuck: usize,
    /// How long it took.
    pub took: Duration,
    /// What was done when, counted from its beginning, and on which shard.
    pub steps: Vec<(Duration, usize, DrainStep)>,
    /// What all connections have done, since the server was started.
    pub counters: Counters,
}

impl DrainReport {
    /// Whether every call that was taken was answered, and every connection closed in order.
    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.cancelled == 0 && self.cut == 0 && self.stuck == 0
    }

    /// Adds what another shard reports.
    pub(crate) fn add(&mut self, other: &DrainReport) {
        self.finished += other.finished;
        self.refused += other.refused;
        self.cancelled += other.cancelled;
        self.connections += other.connections;
        self.cut += other.cut;
        self.took = self.took.max(other.took);
        self.steps.extend_from_slice(&other.steps);
        self.steps.sort_by_key(|(at, ..)| *at);
        self.counters.add(&other.counters);
    }
}

impl fmt::Display for DrainReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let DrainReport { finished, refused, cancelled, connections, cut, stuck, .. } = self;
        write!(f, "{finished} calls finished, {refused} refused, {cancelled} cancelled; ")?;
        write!(f, "{connections} connections closed, {cut} cut off")?;
        if *stuck > 0 {
            write!(f, "; {stuck} shards did not end")?;
        }
        write!(f, "; after {:?}", self.took)
    }
}

/// A drain that goes on.
pub(crate) struct Drain {
    how: Goodbye,
    began: Instant,
    /// When connections without HELLO are closed; [`Instant::FAR`] once they are.
    handshakes_until: Instant,
    /// When what runs is cancelled; [`Instant::FAR`] once it is.
    cancel_at: Instant,
    /// When what is left is cut off.
    cut_at: Instant,
    before: Counters,
    report: DrainReport,
    /// Whoever waits for its end; the first of them takes the report.
    waiting: Vec<Waker>,
}

impl Drop for Drain {
    /// It is over, or given up.
    fn drop(&mut self) {
        self.waiting.drain(..).for_each(Waker::wake);
    }
}

impl Drain {
    pub(crate) fn next_timeout(&self) -> Instant {
        self.handshakes_until.min(self.cancel_at).min(self.cut_at)
    }

    fn has_done(&self, step: DrainStep) -> bool {
        self.report.steps.iter().any(|(.., done)| *done == step)
    }

    fn done(&mut self, now: Instant, step: DrainStep) {
        if !self.has_done(step) {
            self.report.steps.push((now.since(self.began), 0, step));
        }
    }
}

impl Inner {
    /// Begins to end the service, or ends it faster than it was going to.
    pub(crate) fn say_goodbye(&self, how: Goodbye) {
        let now = self.now();
        // Whoever hurries may be faster than who began.
        let is_hurried = self.drain.borrow().as_ref().is_some_and(|it| it.how == Goodbye::AtOnce);
        let how = if is_hurried { Goodbye::AtOnce } else { how };
        let is_first = self.drain.borrow().is_none();
        if is_first {
            let connections = self.connections_served();
            *self.drain.borrow_mut() = Some(Drain {
                how,
                began: now,
                handshakes_until: now,
                cancel_at: Instant::FAR,
                cut_at: Instant::FAR,
                before: self.endpoint.borrow().counters(),
                report: DrainReport { connections, ..DrainReport::default() },
                waiting: Vec::new(),
            });
        }
        if let Some(drain) = &mut *self.drain.borrow_mut() {
            drain.how = how;
            match how {
                Goodbye::Drain(timeout) => {
                    drain.handshakes_until = now + HANDSHAKES.min(timeout / 2);
                    drain.cancel_at = now + timeout;
                }
                Goodbye::Stop(timeout) => {
                    drain.handshakes_until = now + HANDSHAKES / 10;
                    drain.cancel_at = drain.cancel_at.min(now + timeout);
                }
                Goodbye::AtOnce => drain.cancel_at = now,
            }
            drain.done(now, DrainStep::Announced);
        }
        let mut endpoint = self.endpoint.borrow_mut();
        let handles: Vec<_> = endpoint.handles().collect();
        for handle in handles {
            if let Some(connection) = endpoint.connection_mut(handle)
                && connection.side() == Side::Server
            {
                match how {
                    Goodbye::Drain(_) => connection.drain(now),
                    _ => connection.go_away(now, true),
                }
            }
        }
        // What waits to be accepted is, or closing would reset it.
        for listener in self.listeners.borrow().iter() {
            endpoint.transport_mut().unlisten(*listener);
        }
        drop(endpoint);
        if is_first {
            self.remote.farewell.say();
        }
    }

    /// A new service begins: a drain of the one before, which nobody waits for any more, does not concern it.
    pub(crate) fn give_up_draining(&self) {
        self.remote.farewell.take_back();
        drop(self.drain.take());
    }

    pub(crate) fn is_draining(&self) -> bool {
        self.drain.borrow().is_some()
    }

    /// Another connection was accepted.
    pub(crate) fn drain_counts(&self) {
        if let Some(drain) = &mut *self.drain.borrow_mut() {
            drain.report.connections += 1;
        }
    }

    /// A connection that was accepted is established: it came too late.
    pub(crate) fn drain_late(&self, handle: ringcall_core::Handle) {
        let how = self.drain.borrow().as_ref().map(|drain| drain.how);
        let mut endpoint = self.endpoint.borrow_mut();
        let Some(connection) = endpoint.connection_mut(handle) else { return };
        if connection.side() == Side::Server {
            match how {
                Some(Goodbye::Drain(_)) => connection.drain(self.now()),
                Some(_) => connection.go_away(self.now(), true),
                None => {}
            }
        }
    }

    /// What time and events have brought a drain; at the end of each turn.
    pub(crate) fn go_on_draining(&self) {
        // Taken out, since dropping handlers runs somebody's code.
        let Some(mut drain) = self.drain.take() else { return };
        if !drain.has_done(DrainStep::Closed) {
            self.drain_on(&mut drain);
            self.watch_drain(&drain.report.steps);
        }
        self.drain.replace(Some(drain));
    }

    fn drain_on(&self, drain: &mut Drain) {
        let now = self.now();
        if !drain.has_done(DrainStep::NotListening) && !self.still_listens() {
            drain.done(now, DrainStep::NotListening);
        }
        if drain.handshakes_until <= now {
            drain.handshakes_until = Instant::FAR;
            self.for_each_served(|connection| {
                if connection.peer().is_none() {
                    connection.close(now, CloseReason::Local);
                }
            });
        }
        if drain.has_done(DrainStep::NotListening)
            && !drain.has_done(DrainStep::Refusing)
            && self.all_refuse()
        {
            drain.done(now, DrainStep::Refusing);
        }
        if drain.cancel_at <= now {
            drain.cancel_at = Instant::FAR;
            drain.cut_at = now
                + match drain.how {
                    Goodbye::AtOnce => LAST_WORDS_IN_A_HURRY,
                    _ => LAST_WORDS,
                };
            self.cancel_what_runs(now, drain);
        }
        let all_closed = drain.has_done(DrainStep::Refusing) && self.connections_served() == 0;
        if all_closed || drain.cut_at <= now {
            drain.report.cut = self.connections_served();
            drain.done(now, DrainStep::Closed);
            self.report(now, drain);
            drain.waiting.drain(..).for_each(Waker::wake);
        }
    }

    fn report(&self, now: Instant, drain: &mut Drain) {
        let after = self.endpoint.borrow().counters();
        let Drain { before, report, .. } = drain;
        let answered = after.requests_answered - before.requests_answered;
        report.finished = answered.saturating_sub(report.cancelled);
        report.refused = after.requests_after_goaway - before.requests_after_goaway;
        report.took = now.since(drain.began);
        (drain.cancel_at, drain.cut_at) = (Instant::FAR, Instant::FAR);
    }

    /// Whether a drain has come to its end.
    pub(crate) fn is_drained(&self) -> bool {
        self.drain.borrow().as_ref().is_some_and(|drain| drain.has_done(DrainStep::Closed))
    }

    /// What came of the drain, which is over then.
    pub(crate) fn take_report(&self) -> Option<DrainReport> {
        if !self.is_drained() {
            return None;
        }
        let mut drain = self.drain.borrow_mut().take()?;
        let report = std::mem::take(&mut drain.report);
        Some(DrainReport { counters: self.endpoint.borrow().counters(), ..report })
    }

    /// Waits until a drain has come to its end.
    pub(crate) async fn drained(&self) -> DrainReport {
        std::future::poll_fn(|cx| {
            if let Some(report) = self.take_report() {
                return Poll::Ready(report);
            }
            match &mut *self.drain.borrow_mut() {
                Some(drain) => {
                    if !drain.waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                        drain.waiting.push(cx.waker().clone());
                    }
                }
                // Somebody else has taken the report, or a new service has begun.
                None => return Poll::Ready(DrainReport::default()),
            }
            Poll::Pending
        })
        .await
    }

    /// Handlers see that nobody waits any more, and their callers that they were aborted.
    fn cancel_what_runs(&self, now: Instant, drain: &mut Drain) {
        // Calls that came by connections of this side's clients go on, as these connections do.
        let is_served = |handle| {
            let endpoint = self.endpoint.borrow();
            endpoint.connection(handle).is_none_or(|it| it.side() == Side::Server)
        };
        // In an order that does not change from run to run: a simulation must repeat.
        let mut running: Vec<_> =
            self.running.borrow_mut().extract_if(|(handle, _), _| is_served(*handle)).collect();
        running.sort_unstable_by_key(|(call, _)| *call);
        drain.report.cancelled += running.len() as u64;
        if !running.is_empty() {
            log::warn!("{} calls ran longer than the drain and are cancelled", running.len());
        }
        for ((handle, request), (running, _)) in running {
            match running {
                Running::Task(index) => self.executor.remove(index),
                Running::Elsewhere(flag) => flag.cancel(Status::ABORTED),
            }
            self.refuse(handle, request, Status::ABORTED);
        }
        drain.report.cancelled += self.refuse_waiting(Status::DRAINING) as u64;
        self.for_each_served(|connection| connection.go_away(now, true));
        drain.done(now, DrainStep::Cancelled);
    }

    fn for_each_served(
        &self,
        mut what: impl FnMut(&mut ringcall_core::Connection<super::inner::Ticket>),
    ) {
        let mut endpoint = self.endpoint.borrow_mut();
        let handles: Vec<_> = endpoint.handles().collect();
        for handle in handles {
            if let Some(connection) = endpoint.connection_mut(handle)
                && connection.side() == Side::Server
            {
                what(connection);
            }
        }
    }

    /// How many accepted connections there are, those included that wait to be adopted, or for the other
    /// side to close.
    fn connections_served(&self) -> usize {
        let endpoint = self.endpoint.borrow();
        let expected = self.remote.connections.load(std::sync::atomic::Ordering::Acquire);
        expected.max(served(&endpoint).count())
    }

    /// Whether every connection has been told that further calls are refused.
    fn all_refuse(&self) -> bool {
        let endpoint = self.endpoint.borrow();
        served(&endpoint)
            .filter_map(|handle| endpoint.connection(handle))
            .all(|connection| connection.refuses_from().is_some() || connection.is_finished())
    }

    fn still_listens(&self) -> bool {
        let endpoint = self.endpoint.borrow();
        let is_there = |listener| endpoint.transport().local_address(listener).is_some();
        let mut listeners = self.listeners.borrow_mut();
        listeners.retain(|listener| is_there(*listener));
        !listeners.is_empty() || endpoint.has_accepted()
    }
}

fn served<Tr: Transport, L: ringcall_core::ByteLayer, T>(
    endpoint: &Endpoint<Tr, L, T>,
) -> impl Iterator<Item = ringcall_core::Handle> {
    endpoint.handles().filter(|handle| {
        endpoint.connection(*handle).is_some_and(|connection| connection.side() == Side::Server)
    })
}

#[cfg(all(test, not(ringcall_loom)))]
mod tests {
    use super::*;
    use crate::{Shard, ShardConfig};

    /// Both may come in one turn, and in either order when hooks run in between.
    #[test]
    fn whoever_hurries_is_not_overtaken_by_who_began() {
        let shard = Shard::new(ShardConfig::default()).unwrap();
        let address = shard.listen("127.0.0.1:0").unwrap().to_string();
        let _silent = std::net::TcpStream::connect(address).unwrap();
        shard.run(|| shard.connections() == 0);
        shard.inner().say_goodbye(Goodbye::AtOnce);
        shard.inner().say_goodbye(Goodbye::Drain(Duration::from_secs(60)));
        let report = shard.block_on(shard.inner().drained());
        let is_cancelled = report.steps.iter().any(|(.., step)| *step == DrainStep::Cancelled);
        assert!(is_cancelled, "{:?}", report.steps);
    }
}
