//! A limit of concurrency that is found by itself.

use std::time::Duration;

use ringcall_core::{Entropy, Instant};

/// An [`AdaptiveLimit`]'s settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct AdaptiveConfig {
    /// The limit until something was seen: 40.
    pub start: u32,
    /// It is never less: 40. A server whose calls are short has hardly more than one at a time, and yet others arrive
    /// together.
    pub min: u32,
    /// Nor more: 1024.
    pub max: u32,
}

impl Default for AdaptiveConfig {
    fn default() -> AdaptiveConfig {
        AdaptiveConfig { start: 40, min: 40, max: 1024 }
    }
}

impl AdaptiveConfig {
    pub(super) fn is_sound(&self) -> bool {
        self.min > 0 && (self.min..=self.max).contains(&self.start)
    }
}

/// A window has so many calls, and is over after so long, or with so many but not sooner than that: the fewer there
/// are and the shorter it is, the more the throughput is one of chance.
const SAMPLES_MIN: u32 = 100;
const WINDOW: Duration = Duration::from_secs(1);
const SAMPLES_ENOUGH: u32 = 200;
const WINDOW_MIN: Duration = Duration::from_millis(20);
/// How much of a new value a mean takes over. What was once the best throughput is forgotten ten times as slowly.
const SMOOTH: f64 = 0.1;
/// How much more than the product is tried, and how that changes from window to window.
const EXPLORE_MAX: f64 = 0.3;
const EXPLORE_MIN: f64 = 0.06;
const EXPLORE_STEP: f64 = 0.02;
/// The least latency is measured anew after half of this to all of it, with so much of the product.
const REMEASURE: Duration = Duration::from_secs(50);
const REMEASURE_SHARE: f64 = 0.9;

/// As many calls as the best throughput and the least latency that were seen need between them, by Little's law, and
/// a bit more: 6 to 30 %, the more the less latency says against it. Now and then the limit is lowered, so that a
/// least latency which is no longer true is found out.
///
/// It is brpc's automatic limiter (`auto_concurrency_limiter.cpp`), with its numbers.
///
/// A value without a clock and without random numbers of its own.
#[derive(Clone, Debug)]
pub struct AdaptiveLimit {
    config: AdaptiveConfig,
    limit: u32,
    window: Option<Window>,
    least: Option<Duration>,
    best_per_s: f64,
    explore: f64,
    /// Far until the first window is over.
    remeasure_at: Instant,
    /// Calls that began under the limit of before are not counted until then.
    settled_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug)]
struct Window {
    began: Instant,
    ended: u32,
    good: u32,
    took: Duration,
}

impl AdaptiveLimit {
    /// That has seen nothing.
    #[must_use]
    pub const fn new(config: AdaptiveConfig) -> AdaptiveLimit {
        AdaptiveLimit {
            limit: config.start,
            config,
            window: None,
            least: None,
            best_per_s: 0.0,
            explore: EXPLORE_MAX,
            remeasure_at: Instant::FAR,
            settled_at: None,
        }
    }

    /// What it goes by.
    pub(super) const fn config(&self) -> AdaptiveConfig {
        self.config
    }

    /// How many calls there may be at a time.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// A call that was admitted has ended, `took` after it arrived, waiting included. Calls that fail make the others
    /// seem slower: their time is counted, they are not.
    pub fn ended(&mut self, now: Instant, took: Duration, is_good: bool, rng: &mut dyn Entropy) {
        if let Some(at) = self.settled_at {
            if now < at {
                return;
            }
            (self.settled_at, self.least, self.window) = (None, None, None);
            self.remeasure_at = remeasure_after(now, rng);
        }
        if self.remeasure_at == Instant::FAR {
            self.remeasure_at = remeasure_after(now, rng);
        }
        let window = self.window.get_or_insert(Window {
            began: now,
            ended: 0,
            good: 0,
            took: Duration::ZERO,
        });
        window.ended += 1;
        window.good += u32::from(is_good);
        window.took += took;
        let window = *window;
        let span = now.since(window.began);
        if window.ended < SAMPLES_MIN {
            if span >= WINDOW {
                // Too few to say anything.
                self.window = None;
            }
        } else if span >= WINDOW || (window.ended >= SAMPLES_ENOUGH && span >= WINDOW_MIN) {
            self.window = None;
            self.learn(now, &window);
        }
    }

    fn learn(&mut self, now: Instant, window: &Window) {
        if window.good == 0 {
            return self.set(f64::from(self.limit / 2));
        }
        let latency = window.took / window.good;
        let seconds = now.since(window.began).as_secs_f64().max(1e-6);
        let per_s = f64::from(window.good) / seconds;
        let least = match self.least {
            Some(least) if latency < least => least.mul_f64(1.0 - SMOOTH) + latency.mul_f64(SMOOTH),
            Some(least) => least,
            None => latency,
        };
        self.least = Some(least);
        if per_s >= self.best_per_s {
            self.best_per_s = per_s;
        } else {
            self.best_per_s += (per_s - self.best_per_s) * SMOOTH / 10.0;
        }
        let product = least.as_secs_f64() * self.best_per_s;
        if self.remeasure_at <= now {
            self.settled_at = Some(now + latency * 2);
            return self.set(product * REMEASURE_SHARE);
        }
        let is_free = latency <= least.mul_f64(1.0 + EXPLORE_MIN)
            || per_s <= self.best_per_s / (1.0 + EXPLORE_MIN);
        let step = if is_free { EXPLORE_STEP } else { -EXPLORE_STEP };
        self.explore = (self.explore + step).clamp(EXPLORE_MIN, EXPLORE_MAX);
        self.set(product * (1.0 + self.explore));
    }

    fn set(&mut self, limit: f64) {
        // A float that is no `u32` becomes the nearest one.
        self.limit = (limit.ceil() as u32).clamp(self.config.min, self.config.max);
    }
}

/// Somewhere between half of the time and all of it.
fn remeasure_after(now: Instant, rng: &mut dyn Entropy) -> Instant {
    let half = REMEASURE / 2;
    let nanos = u64::try_from(half.as_nanos()).unwrap_or(u64::MAX);
    now + half + Duration::from_nanos(rng.below(nanos))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cmp::Reverse;
    use std::collections::BinaryHeap;

    use ringcall_core::SplitMix64;

    const MS: Duration = Duration::from_millis(1);

    /// A server with so many workers, whose calls take 5 ms each, offered calls at random times: the share of its
    /// capacity that was used, and the mean latency.
    fn serve(
        limit: &mut AdaptiveLimit,
        began: Instant,
        workers: u32,
        load: f64,
        time: Duration,
        is_good: bool,
    ) -> (f64, Duration) {
        serve_within(100, limit, began, workers, load, time, is_good)
    }

    /// The same when the calls may fill so many percent of the limit.
    fn serve_within(
        percent: u32,
        limit: &mut AdaptiveLimit,
        began: Instant,
        workers: u32,
        load: f64,
        time: Duration,
        is_good: bool,
    ) -> (f64, Duration) {
        let mut rng = SplitMix64::new(11);
        let (mut next, until) = (began, began + time);
        let mut free: BinaryHeap<Reverse<Instant>> = (0..workers).map(|_| Reverse(began)).collect();
        let mut running: BinaryHeap<Reverse<(Instant, Instant)>> = BinaryHeap::new();
        let (mut served, mut took) = (0u32, Duration::ZERO);
        while next < until {
            while let Some(Reverse((end, arrived))) = running.peek().copied()
                && end <= next
            {
                running.pop();
                served += 1;
                took += end.since(arrived);
                limit.ended(end, end.since(arrived), is_good, &mut rng);
            }
            if (running.len() as u32) < limit.limit() * percent / 100 {
                let Some(Reverse(at)) = free.pop() else { break };
                let end = at.max(next) + 5 * MS;
                free.push(Reverse(end));
                running.push(Reverse((end, next)));
            }
            let mean = 5e6 / f64::from(workers) / load;
            next = next + Duration::from_nanos((rng.below(2_000_001) as f64 / 1e6 * mean) as u64);
        }
        let most = time.as_secs_f64() / 0.005 * f64::from(workers);
        (f64::from(served) / most, took / served.max(1))
    }

    fn start() -> Instant {
        Instant::from_nanos(1_000_000_000)
    }

    #[test]
    fn overload_is_found_and_nothing_is_left_idle() {
        for workers in [20, 100, 400] {
            let mut limit =
                AdaptiveLimit::new(AdaptiveConfig { min: 8, ..AdaptiveConfig::default() });
            serve(&mut limit, start(), workers, 0.5, 20_000 * MS, true);
            let from = start() + 20_000 * MS;
            let (used, latency) = serve(&mut limit, from, workers, 5.0, 5_000 * MS, true);
            assert!(used > 0.85, "{used} of {workers} workers at {}", limit.limit());
            assert!(latency < 15 * MS, "{latency:?}: without a limit it would be seconds");
            assert!(limit.limit() < workers * 2, "{} of {workers}", limit.limit());
        }
    }

    #[test]
    fn calls_that_may_fill_four_fifths_of_it_find_it_as_well() {
        let mut limit = AdaptiveLimit::new(AdaptiveConfig { min: 8, ..AdaptiveConfig::default() });
        let from = start() + 20_000 * MS;
        serve_within(80, &mut limit, start(), 100, 5.0, 20_000 * MS, true);
        let (used, _) = serve_within(80, &mut limit, from, 100, 5.0, 20_000 * MS, true);
        assert!(used > 0.85, "{used} at {}", limit.limit());
    }

    #[test]
    fn little_is_refused_below_capacity() {
        let mut limit = AdaptiveLimit::new(AdaptiveConfig::default());
        serve(&mut limit, start(), 100, 0.9, 5_000 * MS, true);
        let (used, _) = serve(&mut limit, start() + 5_000 * MS, 100, 0.7, 20_000 * MS, true);
        assert!(used > 0.67, "{used} of 0.7");
    }

    #[test]
    fn when_everything_fails_the_limit_falls_to_its_least() {
        let mut limit = AdaptiveLimit::new(AdaptiveConfig::default());
        serve(&mut limit, start(), 100, 2.0, 5_000 * MS, false);
        assert_eq!(limit.limit(), AdaptiveConfig::default().min);
    }

    #[test]
    fn a_server_that_became_slower_for_good_is_measured_anew() {
        let config = AdaptiveConfig::default();
        let mut limit = AdaptiveLimit::new(config);
        let mut rng = SplitMix64::new(3);
        let mut now = start();
        // Each call ends 1 ms after the last one. They take 10 ms at first, then 100.
        for took in [10 * MS, 100 * MS] {
            for _ in 0..120_000 {
                now = now + MS;
                limit.ended(now, took, true, &mut rng);
            }
        }
        let product = 100.0..=135.0;
        assert!(product.contains(&f64::from(limit.limit())), "{}", limit.limit());
    }

    #[test]
    fn any_ends_leave_it_between_its_bounds() {
        let mut rng = SplitMix64::new(5);
        for _ in 0..200 {
            let (min, more) = (1 + rng.below(50) as u32, rng.below(500) as u32);
            let config = AdaptiveConfig { start: min + more / 2, min, max: min + more };
            assert!(config.is_sound());
            let mut limit = AdaptiveLimit::new(config);
            let mut now = start();
            for _ in 0..2_000 {
                let exponent = rng.below(63);
                now = now + Duration::from_nanos(rng.below(1 << exponent.min(33)));
                let took = Duration::from_nanos(rng.below(1 << exponent));
                let is_good = rng.below(4) > 0;
                limit.ended(now, took, is_good, &mut rng);
                assert!((config.min..=config.max).contains(&limit.limit()));
            }
        }
    }
}
