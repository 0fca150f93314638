//! Times in log-linear buckets: four for each power of two, so that a time is known to a quarter.

use std::sync::atomic::AtomicU64;
use std::time::Duration;

use crate::{add, read};

/// Of a power of two.
const STEPS: usize = 4;
const STEPS_LOG2: u32 = STEPS.trailing_zeros();
/// Powers of two of microseconds; the last bucket has everything from 2^27 µs, about two minutes, on.
const POWERS: usize = 27;
const BUCKETS: usize = (POWERS - STEPS_LOG2 as usize + 1) * STEPS;

/// Where times are counted.
pub(crate) struct Buckets {
    counts: [AtomicU64; BUCKETS],
    sum_us: AtomicU64,
}

impl Default for Buckets {
    fn default() -> Buckets {
        Buckets { counts: [const { AtomicU64::new(0) }; BUCKETS], sum_us: AtomicU64::new(0) }
    }
}

impl Buckets {
    pub(crate) fn record(&self, time: Duration) {
        let us = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        add(&self.counts[bucket(us)], 1);
        add(&self.sum_us, us);
    }

    pub(crate) fn add_to(&self, sum: &mut Histogram) {
        for (sum, count) in sum.counts.iter_mut().zip(&self.counts) {
            *sum += read(count);
        }
        sum.sum_us = sum.sum_us.wrapping_add(read(&self.sum_us));
    }

    pub(crate) fn absorb(&self, other: &Buckets) {
        for (ours, theirs) in self.counts.iter().zip(&other.counts) {
            add(ours, read(theirs));
        }
        add(&self.sum_us, read(&other.sum_us));
    }
}

/// The first `STEPS` buckets are a microsecond each.
fn bucket(us: u64) -> usize {
    if us < STEPS as u64 {
        return us as usize;
    }
    let power = us.ilog2();
    let step = (us >> (power - STEPS_LOG2)) as usize & (STEPS - 1);
    let index = (power - STEPS_LOG2 + 1) as usize * STEPS + step;
    index.min(BUCKETS - 1)
}

/// The first microsecond that is beyond a bucket.
fn end_of(bucket: usize) -> u64 {
    if bucket < STEPS {
        return bucket as u64 + 1;
    }
    let (power, step) = (bucket / STEPS - 1, bucket % STEPS);
    ((STEPS + step + 1) as u64) << power
}

/// How long calls took.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Histogram {
    counts: [u64; BUCKETS],
    sum_us: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: [0; BUCKETS], sum_us: 0 }
    }
}

impl Histogram {
    /// How many.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// How long all of them together.
    #[must_use]
    pub fn sum(&self) -> Duration {
        Duration::from_micros(self.sum_us)
    }

    /// How many took less than so many microseconds, a power of two.
    #[must_use]
    pub fn count_below(&self, us: u64) -> u64 {
        let below = self.counts.iter().enumerate().take_while(|(at, _)| end_of(*at) <= us);
        below.map(|(_, count)| *count).sum()
    }

    /// Those that took less than so many microseconds, and no less than four fifths of it, for each such time that there
    /// are any of; the shortest first. What took longer than two minutes is among those that took less than that.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + Clone + use<'_> {
        let counts = self.counts.iter().enumerate().filter(|(_, count)| **count > 0);
        counts.map(|(at, count)| (end_of(at), *count))
    }

    /// The time that this part of them, 0 to 1, did not exceed; known to a quarter, and rounded up. `None` of
    /// none. What took longer than two minutes is taken for two minutes.
    #[must_use]
    pub fn quantile(&self, part: f64) -> Option<Duration> {
        quantile(self.buckets(), part)
    }
}

/// The time that this part, 0 to 1, of what is in buckets did not exceed: so many took less than so many microseconds, the
/// shortest first, as [`Histogram::buckets`] and [`Times`](crate::Times) have them. `None` of none.
pub fn quantile(buckets: impl Iterator<Item = (u64, u64)> + Clone, part: f64) -> Option<Duration> {
    let count: u64 = buckets.clone().map(|(_, count)| count).sum();
    let wanted = (count as f64 * part).ceil().max(1.0) as u64;
    let mut seen = 0;
    let (below_us, _) = { buckets }.find(|(_, count)| {
        seen += count;
        seen >= wanted
    })?;
    Some(Duration::from_micros(below_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_next_to_each_other() {
        for at in 0..BUCKETS - 1 {
            let end = end_of(at);
            assert_eq!((bucket(end - 1), bucket(end)), (at, at + 1), "{at}");
        }
        assert_eq!(bucket(0), 0);
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
    }

    #[test]
    fn quantiles_are_known_to_a_quarter() {
        let buckets = Buckets::default();
        (1..=1000).for_each(|us| buckets.record(Duration::from_micros(us)));
        let mut histogram = Histogram::default();
        assert_eq!(histogram.quantile(0.5), None);
        buckets.add_to(&mut histogram);
        assert_eq!((histogram.count(), histogram.sum()), (1000, Duration::from_micros(500_500)));
        for (part, exact) in [(0.0, 1), (0.5, 500), (0.99, 990), (1.0, 1000)] {
            let found = histogram.quantile(part).unwrap().as_micros() as u64;
            assert!((exact..=exact + exact / 4 + 1).contains(&found), "{part}: {found}");
        }
        assert_eq!(histogram.count_below(512), 511);
        assert_eq!(histogram.count_below(1), 0);
    }
}
