//! A shard in a loop of somebody else, as one file descriptor and a timeout.

use std::cell::Cell;
use std::fmt;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_net::Hosted;

use super::waiting::Idle;
use super::{Shard, Turn, Wait, WaitPolicy};
#[cfg(doc)]
use crate::LocalClient;
use crate::ServeError;

/// A shard that a loop of somebody else drives: poll(2), mio, libuv, or a runtime's reactor, for which
/// `ringcall::host` has adapters.
///
/// The loop turns the shard, and when there is nothing left to do, waits for its file descriptor or its
/// timeout beside everything else that it waits for:
///
/// ```no_run
/// use std::os::fd::AsFd;
/// # use std::os::fd::BorrowedFd;
///
/// use ringcall::{HostedShard, Shard, ShardConfig, Turn};
/// # fn wait_until_readable(_: BorrowedFd<'_>, _: Option<std::time::Duration>) {}
///
/// let shard = Shard::new(ShardConfig::default())?;
/// let hosted: HostedShard = shard.hosted()?;
/// loop {
///     if hosted.turn() == Turn::Idle {
///         wait_until_readable(hosted.as_fd(), hosted.next_timeout());
///     }
/// }
/// # Ok::<(), ringcall::ServeError>(())
/// ```
///
/// # When to turn
///
/// * [`Turn::MoreWork`]: turn again without waiting, perhaps after a round of whatever else the loop does.
/// * [`Turn::Idle`]: wait until the descriptor is readable, or [`next_timeout`](HostedShard::next_timeout)
///   has passed, then turn. What has come when `turn` says so is dealt with: loops that are told of
///   changes only (epoll's edge triggering) miss nothing, as do those that are told of states.
///
/// The descriptor becomes readable when a connection has something to say, when another thread has left
/// something for the shard, and when something was done with the shard on its own thread between two
/// turns: a call on a [`LocalClient`], a spawned task, a sleep that ends before all others. In the last
/// case the timeout has moved, too: ask for it again before each wait, not once a turn. Telling costs one
/// system call a wait at most, and none while the shard is being turned.
///
/// A loop that polls futures may be woken for the last of these without the descriptor: see
/// [`poll_left_work`](HostedShard::poll_left_work).
///
/// The wait may be interrupted (`EINTR`) more often than usual: io_uring does some of its work on the
/// waiting thread. Wait again then, or turn.
///
/// The descriptor is only to be waited for. It stays the same, and open until this is dropped.
///
/// # Who turns
///
/// Only whoever has this, on the shard's thread: it can be sent nowhere. [`Shard`]s and [`LocalClient`]s
/// of the same shard are for everything else on that thread. Do not [`run`](Shard::run) or
/// [`block_on`](Shard::block_on) them meanwhile, which would block the loop.
///
/// # The end
///
/// Dropping it ends the shard, since nobody is left to turn it: it stops listening, its connections are
/// closed, calls end with an error that says whether they may have run, tasks and handlers are dropped,
/// and whoever tries to call or connect on it is refused.
pub struct HostedShard {
    shard: Shard,
    fd: OwnedFd,
    /// How long it looks on, unless it is to find that out.
    polling: Option<Duration>,
}

/// A driver that waits for work that is left on its own thread, where its runtime can wake it without a system call.
#[derive(Default)]
pub(crate) struct Resting(Cell<Rest>);

#[derive(Default)]
enum Rest {
    /// Nobody waits, or for the descriptor only.
    #[default]
    No,
    /// Until work is left.
    Until(Waker),
    /// It was left, and the driver knows.
    Over,
}

impl Resting {
    /// Work was left. Says whether the driver hears of it by this.
    #[inline]
    pub(crate) fn end(&self) -> bool {
        let before = self.0.take();
        if matches!(before, Rest::No) {
            return false;
        }
        self.0.set(Rest::Over);
        if let Rest::Until(waker) = before {
            waker.wake();
        }
        true
    }

    /// The shard is turned.
    fn turned(&self) {
        self.0.set(Rest::No);
    }

    fn poll(&self, cx: &Context<'_>) -> Poll<()> {
        match self.0.take() {
            Rest::Over => Poll::Ready(()),
            Rest::Until(waker) if waker.will_wake(cx.waker()) => {
                self.0.set(Rest::Until(waker));
                Poll::Pending
            }
            Rest::No | Rest::Until(_) => {
                self.0.set(Rest::Until(cx.waker().clone()));
                Poll::Pending
            }
        }
    }
}

/// How long it looks on before others have their turn.
const LOOK_ON_AT_A_TIME: Duration = Duration::from_micros(5);

impl Shard {
    /// Hands the shard to a loop of somebody else. Make clones first, to use it for other things than
    /// turning.
    ///
    /// # Errors
    /// When the system has no file descriptor left, or the shard is hosted already.
    pub fn hosted(self) -> Result<HostedShard, ServeError> {
        let failed = |reason: String| ServeError::Engine { reason };
        if self.inner.is_hosted.replace(true) {
            return Err(failed("the shard is hosted already".to_owned()));
        }
        let fd = {
            let mut endpoint = self.inner.endpoint.borrow_mut();
            let engine = endpoint.transport_mut();
            engine.host().map_err(|error| failed(format!("it cannot be hosted: {error}")))?;
            engine.fd().try_clone_to_owned().map_err(|error| failed(error.to_string()))?
        };
        let polling = match self.wait {
            WaitPolicy::Park => Some(Duration::ZERO),
            WaitPolicy::Adaptive | WaitPolicy::Spin => None,
        };
        Ok(HostedShard { shard: self, fd, polling })
    }
}

impl HostedShard {
    /// For how long, at most, a shard that has nothing to do looks on before it says [`Turn::Idle`]: by default 50 µs, up
    /// to 200 µs when many calls come at a time, and not at all with [`WaitPolicy::Park`].
    ///
    /// To wait and to be woken costs tens of microseconds, so under a steady load, or for calls one after
    /// another, looking on is worth several times as many calls. Until it is over a turn says
    /// [`Turn::MoreWork`] every few microseconds, so that whatever else the loop has to do has its turn. As with
    /// [`WaitPolicy::Adaptive`] it is left out more and more often as long as it brings nothing.
    #[must_use]
    pub fn polling(mut self, at_most: Duration) -> HostedShard {
        self.polling = Some(at_most);
        self
    }

    /// Does a bounded amount of what there is to do. It waits for nothing, but may look on for a few microseconds: see
    /// [`polling`](HostedShard::polling).
    pub fn turn(&self) -> Turn {
        let inner = &self.shard.inner;
        inner.endpoint.borrow_mut().transport_mut().wake();
        inner.resting.turned();
        let turn = self.shard.turn(Wait::Now);
        let was_busy = inner.was_busy();
        if was_busy {
            self.shard.driver.found_something();
        }
        let may_look_on = self.polling != Some(Duration::ZERO);
        match turn == Turn::MoreWork || may_look_on && (was_busy || self.look_on()) {
            true => Turn::MoreWork,
            false => self.rest(),
        }
    }

    /// Turns until there was something to do, or others are to have their turn. Says whether to turn again.
    fn look_on(&self) -> bool {
        let driver = &self.shard.driver;
        let until = self.shard.inner.turn_began() + LOOK_ON_AT_A_TIME;
        loop {
            if driver.found_nothing(self.polling) == Idle::Sleep {
                return false;
            }
            driver.look_again();
            if !self.shard.looks_in_vain() {
                driver.found_something();
                return true;
            }
            if self.shard.inner.turn_began() >= until {
                return true;
            }
        }
    }

    /// Ready when something was done with the shard on its own thread since it said [`Turn::Idle`], and it is to be turned
    /// for that: a call on a [`LocalClient`], a spawned task, a timeout that has moved.
    ///
    /// For loops that poll futures: to wake one of them takes no system call, to make the descriptor readable and to wait for
    /// it takes three. From when this is polled until the next turn the descriptor says nothing of such work, and
    /// everything else as before. So poll both, whenever either wakes the task.
    pub fn poll_left_work(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.shard.inner.resting.poll(cx)
    }

    /// Gets ready to be waited for.
    fn rest(&self) -> Turn {
        let inner = &self.shard.inner;
        let may_wait = inner.endpoint.borrow_mut().transport_mut().rest();
        // From here on whoever leaves work rings; what was left before is seen here.
        if may_wait && !inner.has_work() { Turn::Idle } else { Turn::MoreWork }
    }

    /// When [`turn`](HostedShard::turn) is due although the descriptor is not readable: how long from now.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        let engine = self.shard.inner.endpoint.borrow_mut().transport_mut().timeout();
        [engine, self.shard.next_timeout()].into_iter().flatten().min()
    }

    /// The shard, to use it.
    #[must_use]
    pub fn shard(&self) -> &Shard {
        &self.shard
    }
}

impl Drop for HostedShard {
    fn drop(&mut self) {
        let inner = Rc::clone(&self.shard.inner);
        inner.end();
    }
}

impl AsFd for HostedShard {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for HostedShard {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl fmt::Debug for HostedShard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostedShard")
            .field("shard", &self.shard)
            .field("fd", &self.fd.as_raw_fd())
            .field("polling", &self.polling)
            .finish()
    }
}
