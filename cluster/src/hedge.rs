//! When a second attempt is made beside the first, which takes long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::Instant;

use crate::custom::{Custom, either};

/// When calls are hedged: those of methods that may be run twice, after as long as most calls take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct HedgeConfig {
    /// After what share of the calls has ended, in percent: 95.
    pub quantile_percent: u32,
    /// How often that is counted anew: 3 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub refresh: Duration,
    /// How many calls may be hedged, in percent: 5. They are paid from the budget of retries, too.
    pub extra_percent: u32,
    /// Hedges are *tied*: made so long after the first attempt, whatever most calls take, and whichever of the two
    /// *begins* first keeps the call; the other one is given up. `None` by default. It is for calls that wait at their
    /// servers, for a thread or to be admitted: an attempt that begins in time gets no hedge, and one that is given up
    /// before it has begun is no extra load, so nothing is paid for it. Twice the time of a message on its way is enough, or both
    /// begin at the same time. A server that does not say when it begins is hedged like this, and paid for.
    /// (Dean and Barroso, The Tail at Scale, 2013; there servers tell each other, here they tell their caller.)
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time_if_any"))]
    pub tied: Option<Duration>,
}

impl Default for HedgeConfig {
    fn default() -> HedgeConfig {
        HedgeConfig {
            quantile_percent: 95,
            refresh: Duration::from_secs(3),
            extra_percent: 5,
            tied: None,
        }
    }
}

/// Says when the calls of a method are hedged: [`Hedging`], or one of yours, see [`CustomHedging`]. There is one for each
/// method. Which calls may run twice, which instance is next and whether it is paid for is not its business.
pub trait HedgePolicy: Send + fmt::Debug {
    /// An attempt was answered after so long; or it was given up then, not before [`after`](HedgePolicy::after) says: it
    /// would have taken longer.
    fn record(&mut self, now: Instant, latency: Duration);

    /// How long to wait for the first attempt before a second one is made beside it; `None`: for ever.
    fn after(&self) -> Option<Duration>;

    /// Whether attempts are to say when they begin, see [`HedgeConfig::tied`]. No by default.
    fn is_tied(&self) -> bool {
        false
    }
}

/// Makes policies of your own, and says how many calls they may hedge.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomHedging {
    make: Custom<dyn Fn() -> Box<dyn HedgePolicy> + Send + Sync>,
    /// How many calls may be hedged, in percent: 5, as [`HedgeConfig::extra_percent`].
    pub extra_percent: u32,
}

impl CustomHedging {
    /// Which are made like this.
    #[must_use]
    pub fn new(make: impl Fn() -> Box<dyn HedgePolicy> + Send + Sync + 'static) -> CustomHedging {
        let HedgeConfig { extra_percent, .. } = HedgeConfig::default();
        CustomHedging { make: Custom(Arc::new(make)), extra_percent }
    }

    pub(crate) fn make(&self) -> AnyHedging {
        AnyHedging::Custom((self.make.0)())
    }
}

/// One or the other.
#[derive(Debug)]
pub(crate) enum AnyHedging {
    Ordinary(Hedging),
    Custom(Box<dyn HedgePolicy>),
}

impl HedgePolicy for AnyHedging {
    #[inline]
    fn record(&mut self, now: Instant, latency: Duration) {
        either!(AnyHedging, self, hedging => hedging.record(now, latency));
    }

    #[inline]
    fn after(&self) -> Option<Duration> {
        either!(AnyHedging, self, hedging => hedging.after())
    }

    #[inline]
    fn is_tied(&self) -> bool {
        either!(AnyHedging, self, hedging => hedging.is_tied())
    }
}

/// Calls needed before anything is said about most of them.
const CALLS_MIN: u32 = 20;
/// Eight parts to each power of two: a bucket is an eighth wide.
const PARTS_LOG2: u32 = 3;
const BUCKETS: usize = 64 << PARTS_LOG2;

/// How long the calls of a method take, and so when to hedge.
#[derive(Clone, Debug)]
pub struct Hedging {
    config: HedgeConfig,
    buckets: Box<[u32; BUCKETS]>,
    count: u32,
    began: Instant,
    after: Option<Duration>,
}

impl Hedging {
    /// Nothing is known, and nothing hedged.
    #[must_use]
    pub fn new(config: HedgeConfig, now: Instant) -> Hedging {
        let buckets = Box::new([0; BUCKETS]);
        Hedging { config, buckets, count: 0, began: now, after: None }
    }

    fn quantile(&self) -> Duration {
        let rank = u64::from(self.count) * u64::from(self.config.quantile_percent) / 100;
        let mut below = 0;
        let found = self.buckets.iter().position(|count| {
            below += u64::from(*count);
            below > rank
        });
        upper_end(found.unwrap_or(BUCKETS - 1))
    }
}

impl HedgePolicy for Hedging {
    fn record(&mut self, now: Instant, latency: Duration) {
        self.buckets[bucket(latency)] += 1;
        self.count += 1;
        if now.since(self.began) >= self.config.refresh && self.count >= CALLS_MIN {
            self.after = Some(self.quantile());
            self.buckets.fill(0);
            self.count = 0;
            self.began = now;
        }
    }

    fn after(&self) -> Option<Duration> {
        self.config.tied.or(self.after)
    }

    fn is_tied(&self) -> bool {
        self.config.tied.is_some()
    }
}

fn bucket(latency: Duration) -> usize {
    let nanos = u64::try_from(latency.as_nanos()).unwrap_or(u64::MAX).max(1 << PARTS_LOG2);
    let log2 = 63 - nanos.leading_zeros();
    let part = (nanos >> (log2 - PARTS_LOG2)) as usize & ((1 << PARTS_LOG2) - 1);
    ((log2 as usize) << PARTS_LOG2) + part
}

fn upper_end(bucket: usize) -> Duration {
    let (log2, part) = (bucket >> PARTS_LOG2, bucket & ((1 << PARTS_LOG2) - 1));
    let width = 1u64 << (log2 as u32).saturating_sub(PARTS_LOG2);
    Duration::from_nanos((1u64 << log2).saturating_add(width.saturating_mul(part as u64 + 1)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_as_long_as_most_calls_take() {
        let mut hedging = Hedging::new(HedgeConfig::default(), Instant::ZERO);
        for call in 1..=1000u64 {
            let now = Instant::from_nanos(call * 3_000_000);
            hedging.record(now, Duration::from_micros(call));
        }
        let after = hedging.after().expect("there were enough").as_micros();
        assert!((950..=1080).contains(&after), "{after}");
    }

    #[test]
    fn few_calls_say_nothing() {
        let mut hedging = Hedging::new(HedgeConfig::default(), Instant::ZERO);
        let later = Instant::from_nanos(10_000_000_000);
        (0..19).for_each(|_| hedging.record(later, Duration::from_millis(1)));
        assert_eq!(hedging.after(), None);
        hedging.record(later, Duration::MAX);
        assert!(hedging.after() > Some(Duration::from_micros(999)));
    }
}
