//! Turns that take long: everything else on the shard waits meanwhile.

use std::cell::Cell;
use std::time::Duration;

use ringcall_core::Instant;

use crate::observe::Lines;

/// What a handler may compute on a shard without being told of.
const THRESHOLD: Duration = Duration::from_millis(10);

/// Notices them in shards that run by themselves. It reads no clock: the end of a turn is when the shard looks at
/// the time next.
#[derive(Debug)]
pub(crate) struct Stalls {
    threshold: Duration,
    /// When the last turn began, if it did something and nobody else has had the thread since.
    began: Cell<Option<Instant>>,
    lines: Lines,
}

impl Stalls {
    pub(crate) fn new(threshold: Option<Duration>) -> Stalls {
        Stalls {
            threshold: threshold.unwrap_or(THRESHOLD),
            began: Cell::new(None),
            lines: Lines::default(),
        }
    }

    /// A turn did something.
    #[inline]
    pub(crate) fn turned(&self, began: Instant) {
        self.began.set(Some(began));
    }

    /// What follows is not the shard's own time.
    #[inline]
    pub(crate) fn forget(&self) {
        self.began.set(None);
    }

    /// The last turn is over by now; says whether it stalled the shard.
    #[inline]
    pub(crate) fn is_over(&self, now: Instant) -> bool {
        let Some(began) = self.began.take() else { return false };
        let took = now.since(began);
        if took <= self.threshold {
            return false;
        }
        self.tell(took, now);
        true
    }

    #[cold]
    fn tell(&self, took: Duration, now: Instant) {
        let Some(stalls) = self.lines.may_write(now) else { return };
        let more = match stalls - 1 {
            0 => String::new(),
            more => format!(" ({more} more since the last line)"),
        };
        log::warn!(
            target: "ringcall::stall",
            "a shard stood still for {took:?}{more}: a handler, task or callback on it computed or blocked. Let the \
             method run on the pool, #[method(offload)]; observe::SlowCalls tells which it is. \
             ShardConfig::stall_threshold says what is long",
        );
    }
}
