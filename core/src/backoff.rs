//! How long to wait before connecting again.

use core::time::Duration;

use crate::{Entropy, Instant};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);

/// Attempts to connect begin 100 ms after each other, 1.6 times as long after each failure, 30 s at most, give or take
/// a half: clients that lost the same server at the same time spread. With gRPC's fifth they stay so close together that
/// twice as many come at a time as if they were spread evenly. Measured from the beginning of an attempt, so
/// that a connection that lived for a while is replaced at once, and one that a server takes and drops is not tried without
/// pause.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    failures: u32,
    /// When the last attempt began; zero if there was none.
    tried: Instant,
}

impl Backoff {
    /// An attempt begins.
    pub fn tries(&mut self, now: Instant) {
        self.tried = now;
    }

    /// It has failed, or was over before it was of any use.
    pub fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// There is a connection.
    pub fn succeeded(&mut self) {
        self.failures = 0;
    }

    /// When the next attempt may begin. It may be past.
    #[must_use]
    pub fn next_try(&self, rng: &mut impl Entropy) -> Instant {
        if self.tried == Instant::ZERO {
            return self.tried;
        }
        let mut wait = FIRST;
        for _ in 1..self.failures.min(32) {
            wait = (wait * 8 / 5).min(LONGEST);
        }
        let wait = wait.as_nanos() as u64;
        self.tried + Duration::from_nanos(wait / 2 + rng.below(wait))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SplitMix64;
    use std::vec::Vec;

    fn waits(failures: u32, seed: u64) -> Duration {
        let now = Instant::from_nanos(1_000_000_000);
        let mut backoff = Backoff::default();
        backoff.tries(now);
        (0..failures).for_each(|_| backoff.failed());
        backoff.next_try(&mut SplitMix64::new(seed)).since(now)
    }

    #[test]
    fn waits_grow_to_half_a_minute() {
        let near = |wait: Duration, millis: u64| {
            let millis = Duration::from_millis(millis);
            assert!(wait >= millis / 2 && wait <= millis * 3 / 2, "{wait:?} {millis:?}");
        };
        for seed in 0..100 {
            near(waits(0, seed), 100);
            near(waits(1, seed), 100);
            near(waits(2, seed), 160);
            near(waits(3, seed), 256);
            near(waits(13, seed), 28_147);
            near(waits(14, seed), 30_000);
            near(waits(1000, seed), 30_000);
        }
    }

    #[test]
    fn d13_waits_spread() {
        let waits: Vec<u128> = (0..10_000).map(|seed| waits(1, seed).as_millis()).collect();
        let at_once = |ms| waits.iter().filter(|wait| **wait == ms).count();
        let peak = (50..=150).map(at_once).max().unwrap();
        assert!(peak <= 3 * 10_000 / 100, "{peak} of 10000 in the same millisecond");
    }

    #[test]
    fn the_first_attempt_waits_for_nothing() {
        let backoff = Backoff::default();
        assert_eq!(backoff.next_try(&mut SplitMix64::new(1)), Instant::ZERO);
    }
}
