//! Core's own time: a number that the driver gives.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// Nanoseconds since an origin that the driver chooses (the start of its process, of a simulation).
///
/// Monotonic: a driver must never pass an earlier instant than before. Arithmetic saturates, so
/// "for ever" is [`Instant::FAR`] and a clock that jumps far ahead expires things once.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The origin.
    pub const ZERO: Instant = Instant(0);
    /// Later than everything else; as a deadline: never.
    pub const FAR: Instant = Instant(u64::MAX);

    /// From nanoseconds since the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier`; zero if it is not.
    #[must_use]
    pub const fn since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// So many microseconds later.
    #[inline]
    #[must_use]
    pub const fn after_micros(self, micros: u32) -> Instant {
        Instant(self.0.saturating_add(micros as u64 * 1_000))
    }

    /// Whole microseconds after `earlier`, at most `u32::MAX`.
    #[inline]
    #[must_use]
    pub fn micros_since(self, earlier: Instant) -> u32 {
        (self.0.saturating_sub(earlier.0) / 1_000).min(u64::from(u32::MAX)) as u32
    }
}

impl Add<Duration> for Instant {
    type Output = Instant;

    fn add(self, later: Duration) -> Instant {
        let nanos = u64::try_from(later.as_nanos()).unwrap_or(u64::MAX);
        Instant(self.0.saturating_add(nanos))
    }
}

impl Sub for Instant {
    type Output = Duration;

    fn sub(self, earlier: Instant) -> Duration {
        self.since(earlier)
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if *self == Instant::FAR {
            return f.write_str("far");
        }
        write!(f, "{}.{:09}s", self.0 / 1_000_000_000, self.0 % 1_000_000_000)
    }
}

/// Where a driver reads the time: the machine's monotonic clock, or a simulated one.
pub trait Clock {
    /// The time now, never earlier than what it said before.
    fn now(&self) -> Instant;
}

/// Where a driver takes random numbers: the machine's, or a seeded generator.
pub trait Entropy {
    /// The next number, uniformly distributed.
    fn next_u64(&mut self) -> u64;

    /// A number below `bound`, close to uniformly distributed; zero if the bound is.
    fn below(&mut self, bound: u64) -> u64 {
        // Lemire's multiply-shift: its bias is below bound / 2^64.
        ((u128::from(self.next_u64()) * u128::from(bound)) >> 64) as u64
    }
}

/// A small seeded generator (SplitMix64, Steele, Lea and Flood 2014): for simulation, jitter and
/// tests, not for secrets.
#[derive(Clone, Debug)]
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// The generator that this seed names.
    #[must_use]
    pub const fn new(seed: u64) -> SplitMix64 {
        SplitMix64(seed)
    }
}

impl Entropy for SplitMix64 {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn d04_arithmetic_saturates() {
        assert_eq!(Instant::ZERO + Duration::MAX, Instant::FAR);
        assert_eq!(Instant::FAR + Duration::from_secs(1), Instant::FAR);
        assert_eq!(Instant::ZERO - Instant::FAR, Duration::ZERO);
        assert_eq!(Instant::FAR.micros_since(Instant::ZERO), u32::MAX);
    }

    #[test]
    fn splitmix_matches_its_reference() {
        // First outputs for seed 1234567, from the reference implementation by Sebastiano Vigna.
        let mut rng = SplitMix64::new(1_234_567);
        assert_eq!(rng.next_u64(), 6_457_827_717_110_365_317);
        assert_eq!(rng.next_u64(), 3_203_168_211_198_807_973);
        assert!((0..1000).all(|_| rng.below(7) < 7));
    }
}
