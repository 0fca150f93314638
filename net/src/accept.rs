//! What to do when accepting fails because file descriptors ran out, or because nobody may be accepted.
//!
//! The listener stays readable, so a loop that just tries again spins; a multishot accept that is just
//! armed again does so a million times a second. So accepting pauses, longer each time, and one
//! descriptor is kept in reserve to shed the oldest waiting connection rather than leave it hanging.

use std::fs::File;
use std::time::{Duration, Instant};

use socket2::Socket;

const PAUSE_MIN: Duration = Duration::from_millis(10);
const PAUSE_MAX: Duration = Duration::from_millis(100);
const LOG_EVERY: Duration = Duration::from_secs(1);

/// Decides when a listener may accept.
#[derive(Debug)]
pub struct AcceptGate {
    reserve: Option<File>,
    pause: Duration,
    until: Option<Instant>,
    logged: Option<Instant>,
    shed: u64,
}

impl AcceptGate {
    /// A gate that is open.
    #[must_use]
    pub fn new() -> AcceptGate {
        AcceptGate { reserve: reserve(), pause: PAUSE_MIN, until: None, logged: None, shed: 0 }
    }

    /// How long accepting must still wait; `None` if it need not.
    #[must_use]
    pub fn closed_for(&mut self, now: Instant) -> Option<Duration> {
        let left = self.until?.saturating_duration_since(now);
        if left.is_zero() {
            self.until = None;
            return None;
        }
        Some(left)
    }

    /// A connection was accepted.
    pub fn accepted(&mut self) {
        self.pause = PAUSE_MIN;
    }

    /// Accepting failed for want of descriptors or memory: sheds one waiting connection, closes the
    /// gate for a while and says so, at most once a second. Returns whether one was shed.
    pub fn exhausted(&mut self, listener: &Socket, now: Instant, error: &std::io::Error) -> bool {
        let was_shed = self.reserve.take().is_some() && listener.accept().is_ok();
        self.shed += u64::from(was_shed);
        self.reserve = reserve();
        if self.close(now) {
            log::warn!(
                "cannot accept connections: {error}; {} shed so far. Raise `ulimit -n` or lower `connections_max`.",
                self.shed
            );
        }
        was_shed
    }

    /// Accepting failed, and will again, for a reason of the listener's own: it was shut down by somebody who
    /// shares it, or a policy forbids to accept. Closes the gate for a while and says so, at most once a second.
    pub fn failed(&mut self, now: Instant, error: &std::io::Error) {
        if self.close(now) {
            log::warn!("cannot accept connections: {error}");
        }
    }

    /// For longer each time. Says whether it is time to say so.
    fn close(&mut self, now: Instant) -> bool {
        self.until = Some(now + self.pause);
        self.pause = (self.pause * 2).min(PAUSE_MAX);
        let is_time = self.logged.is_none_or(|logged| now - logged >= LOG_EVERY);
        if is_time {
            self.logged = Some(now);
        }
        is_time
    }
}

impl Default for AcceptGate {
    fn default() -> AcceptGate {
        AcceptGate::new()
    }
}

fn reserve() -> Option<File> {
    File::open("/dev/null").ok()
}
