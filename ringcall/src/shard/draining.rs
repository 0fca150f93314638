//! What handlers hear of a drain, on whatever thread they are.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use slab::Slab;

use super::mail::Remote;
use crate::sync::{AtomicBool, Mutex, Ordering};

/// Whether a shard ends its service, and who wants to know.
#[derive(Default)]
pub(crate) struct Farewell {
    is_said: AtomicBool,
    /// `None` for those that were told.
    waiting: Mutex<Slab<Option<Waker>>>,
}

impl Farewell {
    pub(crate) fn is_said(&self) -> bool {
        self.is_said.load(Ordering::Acquire)
    }

    /// Tells all that wait.
    pub(crate) fn say(&self) {
        self.is_said.store(true, Ordering::Release);
        let mut waiting = self.waiting.lock();
        let wakers: Vec<Waker> = waiting.iter_mut().filter_map(|(_, it)| it.take()).collect();
        drop(waiting);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// The shard serves again. Those that were told before have been.
    pub(super) fn take_back(&self) {
        self.is_said.store(false, Ordering::Release);
    }

    fn poll(&self, key: &mut Option<usize>, waker: &Waker) -> Poll<()> {
        let mut waiting = self.waiting.lock();
        match key.and_then(|key| waiting.get_mut(key)) {
            Some(Some(kept)) => kept.clone_from(waker),
            Some(None) => return Poll::Ready(()),
            // With the lock: whoever says it later finds the waker.
            None if self.is_said() => return Poll::Ready(()),
            None => *key = Some(waiting.insert(Some(waker.clone()))),
        }
        Poll::Pending
    }

    fn forget(&self, key: usize) {
        drop(self.waiting.lock().try_remove(key));
    }
}

/// Ready when the server of a call begins to drain or stops, see [`Context::draining`](crate::Context::draining).
#[must_use = "a future does nothing before it is awaited"]
pub struct Draining {
    remote: Arc<Remote>,
    key: Option<usize>,
}

impl Draining {
    pub(crate) fn of(remote: &Arc<Remote>) -> Draining {
        Draining { remote: Arc::clone(remote), key: None }
    }

    /// Whether it is ready, if it can be said without waiting for it.
    pub(crate) fn is_begun(&self) -> bool {
        self.remote.farewell.is_said()
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Draining { remote, key } = self.get_mut();
        remote.farewell.poll(key, cx.waker())
    }
}

impl Clone for Draining {
    fn clone(&self) -> Draining {
        Draining::of(&self.remote)
    }
}

impl Drop for Draining {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.remote.farewell.forget(key);
        }
    }
}

impl fmt::Debug for Draining {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_ready = self.remote.farewell.is_said();
        f.debug_struct("Draining").field("is_ready", &is_ready).finish_non_exhaustive()
    }
}
