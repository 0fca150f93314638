//! Calls that take long, in the log.

use std::fmt;
use std::time::Duration;

use super::lines::Lines;
use super::{Call, CallEnd, Event, Observer, Role};

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
    lines: Lines,
}

impl SlowCalls {
    /// Calls that took longer than this are slow. Those with streams never are: they take as long as they are
    /// wanted.
    #[must_use]
    pub fn longer_than(threshold: Duration) -> SlowCalls {
        SlowCalls { threshold, lines: Lines::default() }
    }
}

impl Observer for SlowCalls {
    fn observe(&self, event: &Event<'_>) {
        let Event::CallEnded(call, end) = event else { return };
        if end.took <= self.threshold || call.has_items() {
            return;
        }
        if let Some(calls) = self.lines.may_write(call.at) {
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
