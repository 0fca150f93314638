//! The order of what is said: by the time of a node's wall clock, or later.

use std::fmt;

use crate::Stamp;

/// How far ahead of this node's clock a time may be. Beyond that a clock is wrong, and what it says would count for as long.
pub(crate) const AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// It is of a time that is too far ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ahead;

impl Stamp {
    /// Later than what was said before of the same thing. Of it only: a node whose clock is ahead carries nobody else along.
    pub(crate) fn after(before: Option<Stamp>, wall_ms: u64, node: u64) -> Stamp {
        let last = before.map_or(0, |before| before.time);
        Stamp { time: wall_ms.max(last.saturating_add(1)), node }
    }

    /// Whether another node may say something of this time.
    pub(crate) fn believed(self, wall_ms: u64) -> Result<(), Ahead> {
        if self.time > wall_ms.saturating_add(AHEAD_MAX_MS) {
            return Err(Ahead);
        }
        Ok(())
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.time, self.node)
    }
}
