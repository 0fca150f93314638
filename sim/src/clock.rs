//! What a node takes for the time: its own start, its own pace, and jumps ahead.

use ringcall_core::Instant;

use crate::rng::Rng;

/// The simulation's time, in nanoseconds since it began. No node can see it.
pub(crate) type Time = u64;

pub(crate) const MICROS: Time = 1_000;
pub(crate) const MILLIS: Time = 1_000_000;
pub(crate) const SECONDS: Time = 1_000_000_000;

#[derive(Clone, Copy, Debug)]
pub(crate) struct NodeClock {
    /// What it shows when the simulation begins, and how far it has jumped since.
    base: u64,
    /// How many of its own microseconds a second has.
    pace: u64,
    /// How often it has jumped.
    jumps: u64,
}

impl NodeClock {
    /// A clock that shows anything at first.
    pub(crate) fn draw(rng: &mut Rng, skew_ppm: i64) -> NodeClock {
        let base = rng.log_uniform(3600 * SECONDS, 1 << 60);
        NodeClock { base, pace: 1_000_000_u64.saturating_add_signed(skew_ppm), jumps: 0 }
    }

    pub(crate) fn read(&self, time: Time) -> Instant {
        // Rounded up, so that a clock that is made steady does not go back.
        let run = (u128::from(time) * u128::from(self.pace)).div_ceil(1_000_000);
        Instant::from_nanos(self.base.saturating_add(run as u64))
    }

    /// The same clock, which from now on has the ordinary pace.
    pub(crate) fn steady(&self, now: Time) -> NodeClock {
        NodeClock { base: self.read(now).as_nanos() - now, pace: 1_000_000, ..*self }
    }

    /// Monotonic clocks jump when a machine was suspended; never back.
    pub(crate) fn jump(&mut self, nanos: u64) {
        self.base += nanos;
        self.jumps += 1;
    }

    /// Whether others may take its seconds for a flood: behind each jump a PING may leave that is too early
    /// for them, and five are nothing to speak of.
    pub(crate) fn is_wild(&self) -> bool {
        self.jumps > 5
    }

    /// When it will show `at`, or a moment later; not before `now`.
    pub(crate) fn when(&self, now: Time, at: Instant) -> Time {
        let left = u128::from(at.as_nanos().saturating_sub(self.read(now).as_nanos()));
        let left = (left * 1_000_000).div_ceil(u128::from(self.pace)) + 1;
        now.saturating_add(u64::try_from(left).unwrap_or(u64::MAX / 2))
    }
}

/// How many microseconds a second a clock gains, if clocks have paces of their own.
pub(crate) fn draw_skew(rng: &mut Rng, skews: bool) -> i64 {
    if skews { rng.between(0, 10_000) as i64 - 5_000 } else { 0 }
}
