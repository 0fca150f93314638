//! How calls ended lately.

use std::time::Duration;

use ringcall_core::Instant;

/// Calls that succeeded and that failed within a window of `N` parts; whole parts leave it.
#[derive(Clone, Debug)]
pub(crate) struct Window<const N: usize> {
    part_ns: u64,
    /// The number of the newest part.
    newest: u64,
    parts: [Counts; N],
    sum: Counts,
}

/// How many calls ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Calls that succeeded.
    pub good: u32,
    /// Calls that failed.
    pub bad: u32,
}

impl Counts {
    /// All of them.
    #[must_use]
    pub fn all(self) -> u32 {
        self.good.saturating_add(self.bad)
    }

    /// Which share failed, in percent, rounded down; 0 of none.
    #[must_use]
    pub fn bad_percent(self) -> u32 {
        let all = u64::from(self.all()).max(1);
        (u64::from(self.bad) * 100 / all) as u32
    }
}

impl<const N: usize> Window<N> {
    pub(crate) fn new(length: Duration) -> Window<N> {
        let nanos = u64::try_from(length.as_nanos()).unwrap_or(u64::MAX);
        let part_ns = (nanos / N as u64).max(1);
        Window { part_ns, newest: 0, parts: [Counts::default(); N], sum: Counts::default() }
    }

    pub(crate) fn record(&mut self, now: Instant, is_good: bool) {
        self.advance(now);
        let part = &mut self.parts[(self.newest % N as u64) as usize];
        if is_good {
            part.good += 1;
            self.sum.good += 1;
        } else {
            part.bad += 1;
            self.sum.bad += 1;
        }
    }

    pub(crate) fn counts(&mut self, now: Instant) -> Counts {
        self.advance(now);
        self.sum
    }

    pub(crate) fn clear(&mut self) {
        self.parts = [Counts::default(); N];
        self.sum = Counts::default();
    }

    fn advance(&mut self, now: Instant) {
        let number = now.as_nanos() / self.part_ns;
        let passed = number.saturating_sub(self.newest);
        for _ in 0..passed.min(N as u64) {
            self.newest += 1;
            let part = std::mem::take(&mut self.parts[(self.newest % N as u64) as usize]);
            self.sum.good -= part.good;
            self.sum.bad -= part.bad;
        }
        if passed > N as u64 {
            // Everything has left; the newest part may be any that is empty.
            self.newest = number;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn counts_leave_with_their_part() {
        let mut window = Window::<10>::new(Duration::from_secs(10));
        for second in 0..10 {
            window.record(at(second), second % 2 == 0);
        }
        assert_eq!(window.counts(at(9)), Counts { good: 5, bad: 5 });
        assert_eq!(window.counts(at(12)), Counts { good: 3, bad: 4 });
        assert_eq!(window.counts(at(1_000_000)), Counts::default());
        window.record(at(1_000_001), false);
        assert_eq!(window.counts(at(1_000_001)).bad_percent(), 100);
        // A clock that stands still, or an instant from before, is no trouble.
        window.record(at(5), true);
        assert_eq!(window.counts(at(1_000_001)).all(), 2);
    }
}
