//! Attempts of tied calls, which hear when their servers begin with them.
//!
//! A server says so by a one-way call on the attempt's connection, to whichever shard that belongs to; who waits may be on
//! any thread. Few calls are tied, so the names of those that are have one table.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;

use crate::serve::Tie;

static WAITING: Mutex<BTreeMap<Tie, Arc<Attempt>>> = Mutex::new(BTreeMap::new());

#[derive(Default)]
struct Attempt {
    has_begun: AtomicBool,
    waker: AtomicWaker,
}

/// Ready when the server has begun with an attempt.
pub struct Begun {
    tie: Tie,
    attempt: Arc<Attempt>,
}

impl Begun {
    pub(super) fn of(tie: Tie) -> Begun {
        let attempt = Arc::<Attempt>::default();
        WAITING.lock().insert(tie, Arc::clone(&attempt));
        Begun { tie, attempt }
    }
}

impl Future for Begun {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.attempt.waker.register(cx.waker());
        match self.attempt.has_begun.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        WAITING.lock().remove(&self.tie);
    }
}

impl fmt::Debug for Begun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Begun").finish_non_exhaustive()
    }
}

/// A server has begun with this attempt, if somebody waits for that.
pub(crate) fn begun(tie: Tie) {
    let attempt = WAITING.lock().get(&tie).cloned();
    if let Some(attempt) = attempt {
        attempt.has_begun.store(true, Ordering::Release);
        attempt.waker.wake();
    }
}
