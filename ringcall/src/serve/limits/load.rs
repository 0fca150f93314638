//! How busy a shard is.

use std::time::Duration;

use ringcall_core::Instant;

/// Which share of the time a shard has worked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Load {
    since: Instant,
    busy: Duration,
    last: u16,
}

/// It is told anew so often.
const WINDOW: Duration = Duration::from_millis(100);

impl Load {
    pub(crate) fn new(now: Instant) -> Load {
        // Zero would be that it is not said.
        Load { since: now, busy: Duration::ZERO, last: 1 }
    }

    /// A turn that did something.
    pub(crate) fn worked(&mut self, began: Instant, ended: Instant) {
        let window = ended.since(self.since);
        self.busy += ended.since(began);
        if window >= WINDOW {
            let share = self.busy.as_nanos() * 1000 / window.as_nanos();
            self.last = u16::try_from(share.clamp(1, 1000)).unwrap_or(1000);
            (self.since, self.busy) = (ended, Duration::ZERO);
        }
    }

    /// In thousandths, at least one.
    pub(crate) fn thousandths(&self) -> u16 {
        self.last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_share_of_the_time() {
        for (busy_us, share) in [(100, 1000), (50, 500), (1, 10), (0, 1)] {
            let mut now = Instant::from_nanos(0);
            let mut load = Load::new(now);
            for _ in 0..2_000 {
                let began = now + Duration::from_micros(100 - busy_us);
                now = now + Duration::from_micros(100);
                load.worked(began, now);
            }
            assert_eq!(load.thousandths(), share);
        }
    }
}
