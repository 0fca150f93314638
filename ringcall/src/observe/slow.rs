//! Calls that take long, in the log.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{Call, CallEnd, Event, Observer, Role};

/// How many nanoseconds lie between two lines at least.
const INTERVAL: u64 = 1_000_000_000;

/// Writes a line to the log (`warn`, target `ringcall::slow`) for a call that took long, with where its time
/// went: at most one a second, which says how many it stands for. Neither bodies nor metadata are in it.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
///
/// let slow = ringcall::observe::SlowCalls::longer_than(Duration::from_millis(50));
/// let server = ringcall::Server::bind("127.0.0.1:0").observer(Arc::new(slow));
/// ```
#[derive(Debug)]
pub struct SlowCalls {
    threshold: Duration,
    /// When the last line was written, in nanoseconds.
    written: AtomicU64,
    /// Those without a line since.
    unwritten: AtomicU64,
}

impl SlowCalls {
    /// Calls that took longer than this are slow. Those with streams never are: they take as long as they are
    /// wanted.
    #[must_use]
    pub fn longer_than(threshold: Duration) -> SlowCalls {
        SlowCalls { threshold, written: AtomicU64::new(0), unwritten: AtomicU64::new(0) }
    }

    /// How many calls there are to write of, this one among them; `None` if it is not time yet.
    fn may_write(&self, now: u64) -> Option<u64> {
        let written = self.written.load(Ordering::Relaxed);
        let is_due = written == 0 || now.saturating_sub(written) >= INTERVAL;
        let is_ours = is_due
            && self
                .written
                .compare_exchange(written, now.max(1), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if !is_ours {
            self.unwritten.fetch_add(1, Ordering::Relaxed);
            return None;
        }
        Some(self.unwritten.swap(0, Ordering::Relaxed) + 1)
    }
}

impl Observer for SlowCalls {
    fn observe(&self, event: &Event<'_>) {
        let Event::CallEnded(call, end) = event else { return };
        if end.took <= self.threshold || call.has_items() {
            return;
        }
        if let Some(calls) = self.may_write(call.at.as_nanos()) {
            log::warn!(target: "ringcall::slow", "{}", Line { call, end, calls });
        }
    }
}

struct Line<'a> {
    call: &'a Call<'a>,
    end: &'a CallEnd,
    calls: u64,
}

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Line { call, end, calls } = self;
        let part = match call.role {
            Role::Caller => "a call of",
            Role::Server => "serving",
        };
        match call.method_name() {
            Some(name) => write!(f, "{part} {name}")?,
            None => write!(f, "{part} the unknown method {:016x}", call.method)?,
        }
        if let Some(peer) = call.peer {
            write!(f, ", peer {peer},")?;
        }
        write!(f, " took {:?}: queued {:?}, handler {:?}", end.took, end.queued, end.handled)?;
        if call.role == Role::Caller {
            write!(f, ", on the way {:?}", end.on_the_way())?;
        }
        let CallEnd { request_bytes, reply_bytes, .. } = end;
        write!(f, "; {request_bytes} bytes in, {reply_bytes} out; {}", end.end)?;
        if *calls > 1 {
            write!(f, " (and {} more that were slow since the last line)", calls - 1)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_stands_for_all() {
        let slow = SlowCalls::longer_than(Duration::ZERO);
        assert_eq!(slow.may_write(5), Some(1));
        assert_eq!(slow.may_write(6), None);
        assert_eq!(slow.may_write(INTERVAL + 4), None);
        assert_eq!(slow.may_write(INTERVAL + 5), Some(3));
        assert_eq!(slow.may_write(INTERVAL + 6), None);
    }
}
