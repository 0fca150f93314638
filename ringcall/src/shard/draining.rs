//! What handlers hear of a drain, on whatever thread they are.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use super::mail::Remote;
use crate::sync::{AtomicUsize, Mutex, Ordering};
use crate::wakers::Wakers;

/// Whether a shard ends its service, and who wants to know.
#[derive(Default)]
pub(crate) struct Farewell {
    /// How often it has begun to end it, and to serve again: it is odd while it ends.
    changes: AtomicUsize,
    waiting: Mutex<Wakers>,
}

impl Farewell {
    pub(crate) fn is_said(&self) -> bool {
        self.changes() % 2 == 1
    }

    /// Tells all that wait. Like its opposite, of the shard's thread alone.
    pub(crate) fn say(&self) {
        if !self.is_said() {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
        let waiting = self.waiting.lock().all();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// The shard serves again. Those that were told before have been.
    pub(super) fn take_back(&self) {
        if self.is_said() {
            self.changes.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn changes(&self) -> usize {
        self.changes.load(Ordering::Acquire)
    }
}

/// Ready when the server of a call begins to drain or stops, see [`Context::draining`](crate::Context::draining).
#[must_use = "a future does nothing before it is awaited"]
pub struct Draining {
    remote: Arc<Remote>,
    /// The changes that there had been when it began to wait.
    before: usize,
    place: Option<usize>,
}

impl Draining {
    pub(crate) fn of(remote: &Arc<Remote>) -> Draining {
        let (remote, before) = (Arc::clone(remote), remote.farewell.changes());
        Draining { remote, before, place: None }
    }

    /// Whether it is ready, if it can be said without waiting for it.
    pub(crate) fn is_begun(&self) -> bool {
        let farewell = &self.remote.farewell;
        farewell.is_said() || farewell.changes() != self.before
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.get_mut();
        let before = this.remote.farewell.waiting.lock().keep(&mut this.place, cx.waker());
        drop(before);
        // Behind that: whoever says it later finds the waker.
        if this.is_begun() { Poll::Ready(()) } else { Poll::Pending }
    }
}

impl Clone for Draining {
    fn clone(&self) -> Draining {
        Draining::of(&self.remote)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if self.place.is_some() {
            let left = self.remote.farewell.waiting.lock().leave(&mut self.place);
            drop(left);
        }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_ready = self.is_begun();
        f.debug_struct("Draining").field("is_ready", &is_ready).finish_non_exhaustive()
    }
}

#[cfg(all(test, not(ringcall_loom)))]
mod tests {
    use std::pin::pin;
    use std::task::Wake;

    use super::*;
    use crate::{Shard, ShardConfig};

    /// A task that waits for a drain itself, and ends with the last of its wakers.
    struct Task(#[allow(dead_code, reason = "dropped with it")] Mutex<Draining>);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn the_last_waker_of_a_task_is_dropped_without_the_lock() {
        let shard = Shard::new(ShardConfig::default()).unwrap();
        let remote = &shard.inner().remote;
        let mut of_task = Draining::of(remote);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut of_task).poll(&mut cx).is_pending());
        let waker = Waker::from(Arc::new(Task(Mutex::new(of_task))));
        let mut waiting = Draining::of(remote);
        assert!(Pin::new(&mut waiting).poll(&mut Context::from_waker(&waker)).is_pending());
        drop(waker);
        drop(waiting);
        assert_eq!(remote.farewell.waiting.lock().len(), 0);
    }

    #[test]
    fn who_was_told_of_one_drain_is_not_to_wait_for_the_next() {
        let shard = Shard::new(ShardConfig::default()).unwrap();
        let remote = &shard.inner().remote;
        let (mut before, mut cx) = (pin!(Draining::of(remote)), Context::from_waker(Waker::noop()));
        assert!(before.as_mut().poll(&mut cx).is_pending());
        remote.farewell.say();
        remote.farewell.take_back();
        assert!(before.as_mut().poll(&mut cx).is_ready());
        assert!(pin!(Draining::of(remote)).poll(&mut cx).is_pending());
    }
}
