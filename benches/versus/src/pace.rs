//! An open loop: calls are due at fixed times, however long earlier ones take.
//!
//! Latency then counts from when a call was due, so that the time in which a slow server kept its callers
//! from asking is not left out ("coordinated omission").
#![expect(clippy::disallowed_methods, reason = "measures")]

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use crate::meter;

/// When calls are due, and who makes the next one.
pub(crate) struct Pace {
    began: Instant,
    rate: f64,
    made: u64,
    /// One caller watches the clock, turning with its executor; the others sleep.
    is_watched: bool,
    idle: VecDeque<Waker>,
}

impl Pace {
    pub(crate) fn new(rate: u64, now: Instant) -> Pace {
        Pace { began: now, rate: rate as f64, made: 0, is_watched: false, idle: VecDeque::new() }
    }

    fn due(&self) -> Instant {
        self.began + Duration::from_secs_f64(self.made as f64 / self.rate)
    }

    fn leave_watch(&mut self) {
        self.is_watched = false;
        if let Some(next) = self.idle.pop_front() {
            next.wake();
        }
    }
}

thread_local! {
    static PACE: RefCell<Option<Pace>> = const { RefCell::new(None) };
}

pub(crate) fn set(pace: Option<Pace>) {
    PACE.set(pace);
}

pub(crate) fn is_set() -> bool {
    PACE.with_borrow(Option::is_some)
}

/// Waits for the next call that is due, and says since when it is. `None`: no more calls.
pub(crate) async fn next() -> Option<Instant> {
    let mut watches = false;
    poll_fn(|cx| {
        PACE.with_borrow_mut(|pace| {
            let Some(pace) = pace else { return Poll::Ready(None) };
            if meter::is_over() {
                pace.leave_watch();
                return Poll::Ready(None);
            }
            if pace.is_watched && !watches {
                pace.idle.push_back(cx.waker().clone());
                return Poll::Pending;
            }
            let due = pace.due();
            if due <= Instant::now() {
                pace.made += 1;
                pace.leave_watch();
                return Poll::Ready(Some(due));
            }
            (pace.is_watched, watches) = (true, true);
            cx.waker().wake_by_ref();
            Poll::Pending
        })
    })
    .await
}
