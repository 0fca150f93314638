//! How often the log has a line about what may happen all the time.

use std::sync::atomic::{AtomicU64, Ordering};

use ringcall_core::Instant;

/// How many nanoseconds lie between two lines at least.
const INTERVAL: u64 = 1_000_000_000;

/// At most one line a second, which says how many it stands for.
#[derive(Debug, Default)]
pub(crate) struct Lines {
    /// When the last one was written, in nanoseconds.
    written: AtomicU64,
    /// What had none since.
    unwritten: AtomicU64,
}

impl Lines {
    /// How many there are to write of, this one among them; `None` if it is not time yet.
    pub(crate) fn may_write(&self, now: Instant) -> Option<u64> {
        let now = now.as_nanos();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_a_second_stands_for_all() {
        let (lines, at) = (Lines::default(), Instant::from_nanos);
        assert_eq!(lines.may_write(at(5)), Some(1));
        assert_eq!(lines.may_write(at(6)), None);
        assert_eq!(lines.may_write(at(INTERVAL + 4)), None);
        assert_eq!(lines.may_write(at(INTERVAL + 5)), Some(3));
        assert_eq!(lines.may_write(at(INTERVAL + 6)), None);
    }
}
