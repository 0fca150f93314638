//! How long the calls of a method keep their shard.

use std::time::Duration;

/// A low estimate: what is quicker counts at once, what is slower a little. For calls whose time may not suffice.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Cost {
    nanos: u64,
}

/// How much of what is slower counts, and how much of the estimate a doubt takes off.
const SHARE: u64 = 8;

impl Cost {
    /// A call took so long.
    pub(crate) fn took(&mut self, time: Duration) {
        let nanos = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let more = nanos.saturating_sub(self.nanos) / SHARE;
        self.nanos = nanos.min(self.nanos + more);
    }

    /// A call did not begin because of this. If that was wrong nobody would find out, so it counts for less each time.
    pub(crate) fn doubted(&mut self) {
        self.nanos -= self.nanos.div_ceil(SHARE);
    }

    pub(crate) fn estimate(&self) -> Duration {
        Duration::from_nanos(self.nanos)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn it_is_near_what_calls_take_and_seldom_above() {
        let mut cost = Cost::default();
        for time in [MS, 2 * MS, MS, 50 * MS, MS].into_iter().cycle().take(100) {
            cost.took(time);
            assert!(cost.estimate() <= 8 * MS);
        }
        assert_eq!(cost.estimate(), MS);
        cost.took(Duration::MAX);
        cost.took(MS);
        assert_eq!(cost.estimate(), MS);
    }

    #[test]
    fn an_estimate_that_lets_no_call_begin_does_not_last() {
        let mut cost = Cost::default();
        (0..100).for_each(|_| cost.took(1000 * MS));
        assert!(cost.estimate() > 900 * MS);
        let doubts = (1..).find(|_| {
            cost.doubted();
            cost.estimate() < 10 * MS
        });
        assert!(doubts.is_some_and(|doubts| doubts < 50), "{doubts:?}");
        (0..1000).for_each(|_| cost.doubted());
        assert_eq!(cost.estimate(), Duration::ZERO);
    }
}
