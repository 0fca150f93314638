//! A breaker stops calls that would fail.
//!
//! It trips when a share of the calls in a window fails, lets nothing through while it cools, then one call
//! at a time until a few have succeeded; a failure among those makes it cool for twice as long.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::Instant;

use crate::custom::{Custom, either};
use crate::window::{Counts, Window};

/// When a breaker trips, and how it recovers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct BreakerConfig {
    /// This share of the calls fails, in percent: 50.
    pub errors_percent: u32,
    /// Of so many calls at least: 200.
    pub calls_min: u32,
    /// In which time: 10 s, in ten parts.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub window: Duration,
    /// How long nothing is let through: 5 s, twice as long each time that it does not help.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub cool: Duration,
    /// But so long at most: 60 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub cool_max: Duration,
    /// So many calls must succeed, one after the other, until it is closed again: 2.
    pub successes: u32,
}

impl Default for BreakerConfig {
    fn default() -> BreakerConfig {
        BreakerConfig {
            errors_percent: 50,
            calls_min: 200,
            window: Duration::from_secs(10),
            cool: Duration::from_secs(5),
            cool_max: Duration::from_secs(60),
            successes: 2,
        }
    }
}

/// What a breaker does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BreakerState {
    /// Everything passes.
    Closed,
    /// Nothing passes until then.
    Open {
        /// When it is tried.
        until: Instant,
    },
    /// One call at a time passes.
    HalfOpen {
        /// How many have succeeded.
        successes: u32,
        /// Whether one is under way.
        is_under_way: bool,
    },
}

impl fmt::Display for BreakerState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            BreakerState::Closed => "closed",
            BreakerState::Open { .. } => "open",
            BreakerState::HalfOpen { .. } => "half open",
        })
    }
}

/// What a breaker let through, to be given back with the end of the call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pass {
    /// An ordinary call.
    Ordinary,
    /// The one call that shows whether it helps.
    Probe,
}

/// Stops calls that would fail: a [`Breaker`], or one of yours, see [`CustomBreaker`]. There is one for a method, and one for
/// each instance at which it fails.
pub trait BreakerPolicy: Send + fmt::Debug {
    /// Whether a call would pass.
    fn would_pass(&self, now: Instant) -> bool;

    /// Lets a call through, or not. What is let through ends exactly once, with the same [`Pass`]. Asked behind
    /// [`would_pass`](BreakerPolicy::would_pass), and has the last word. A breaker of an instance is made when a call fails
    /// there, and asked to let that one through when it has ended already, as it is for others that began before.
    fn pass(&mut self, now: Instant) -> Option<Pass>;

    /// A call that passed has ended: well, badly, or (`None`) without saying anything.
    fn end(&mut self, now: Instant, pass: Pass, is_good: Option<bool>);

    /// What it does at the moment, for whoever looks. Asked behind each `pass` and `end`, in either of which it may change.
    fn state(&self) -> BreakerState;

    /// Whether it knows nothing that a new one does not, so that it need not be kept. No by default.
    fn is_idle(&mut self, now: Instant) -> bool {
        let _ = now;
        false
    }
}

/// Makes breakers of your own.
#[derive(Clone, Debug, PartialEq)]
pub struct CustomBreaker(Custom<dyn Fn() -> Box<dyn BreakerPolicy> + Send + Sync>);

impl CustomBreaker {
    /// Which are made like this.
    #[must_use]
    pub fn new(make: impl Fn() -> Box<dyn BreakerPolicy> + Send + Sync + 'static) -> CustomBreaker {
        CustomBreaker(Custom(Arc::new(make)))
    }

    pub(crate) fn make(&self) -> AnyBreaker {
        AnyBreaker::Custom((self.0.0)())
    }
}

/// One or the other. Ordinary ones are called without a detour: 17 instructions of a balanced call.
#[derive(Debug)]
pub(crate) enum AnyBreaker {
    Ordinary(Breaker),
    Custom(Box<dyn BreakerPolicy>),
}

impl BreakerPolicy for AnyBreaker {
    #[inline]
    fn would_pass(&self, now: Instant) -> bool {
        either!(AnyBreaker, self, breaker => breaker.would_pass(now))
    }

    #[inline]
    fn pass(&mut self, now: Instant) -> Option<Pass> {
        either!(AnyBreaker, self, breaker => breaker.pass(now))
    }

    #[inline]
    fn end(&mut self, now: Instant, pass: Pass, is_good: Option<bool>) {
        either!(AnyBreaker, self, breaker => breaker.end(now, pass, is_good));
    }

    #[inline]
    fn state(&self) -> BreakerState {
        either!(AnyBreaker, self, breaker => breaker.state())
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        either!(AnyBreaker, self, breaker => breaker.is_idle(now))
    }
}

/// A breaker. Give back each [`Pass`] exactly once.
#[derive(Clone, Debug)]
pub struct Breaker {
    config: BreakerConfig,
    window: Window<10>,
    state: BreakerState,
    /// How often it tripped since it was last closed.
    trips: u32,
}

impl Breaker {
    /// One that is closed.
    #[must_use]
    pub fn new(config: BreakerConfig) -> Breaker {
        let window = Window::new(config.window);
        Breaker { config, window, state: BreakerState::Closed, trips: 0 }
    }
}

impl BreakerPolicy for Breaker {
    #[inline]
    fn would_pass(&self, now: Instant) -> bool {
        match self.state {
            BreakerState::Closed => true,
            BreakerState::Open { until } => until <= now,
            BreakerState::HalfOpen { is_under_way, .. } => !is_under_way,
        }
    }

    #[inline]
    fn pass(&mut self, now: Instant) -> Option<Pass> {
        let successes = match self.state {
            BreakerState::Closed => return Some(Pass::Ordinary),
            BreakerState::Open { until } if until <= now => 0,
            BreakerState::HalfOpen { successes, is_under_way: false } => successes,
            _ => return None,
        };
        self.state = BreakerState::HalfOpen { successes, is_under_way: true };
        Some(Pass::Probe)
    }

    #[inline]
    fn end(&mut self, now: Instant, pass: Pass, is_good: Option<bool>) {
        match (pass, self.state) {
            (Pass::Ordinary, BreakerState::Closed) => {
                let Some(is_good) = is_good else { return };
                self.window.record(now, is_good);
                if !is_good && self.is_too_bad(now) {
                    self.trip(now);
                }
            }
            (Pass::Probe, BreakerState::HalfOpen { successes, .. }) => match is_good {
                Some(false) => self.trip(now),
                Some(true) if successes + 1 >= self.config.successes => self.close(),
                Some(true) => self.half_open(successes + 1),
                None => self.half_open(successes),
            },
            // It was let through before the breaker tripped, which says nothing new.
            _ => {}
        }
    }

    fn state(&self) -> BreakerState {
        self.state
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.state == BreakerState::Closed && self.window.counts(now).bad == 0
    }
}

impl Breaker {
    fn is_too_bad(&mut self, now: Instant) -> bool {
        let counts: Counts = self.window.counts(now);
        counts.all() >= self.config.calls_min && counts.bad_percent() >= self.config.errors_percent
    }

    fn trip(&mut self, now: Instant) {
        let cool = self.config.cool.saturating_mul(1 << self.trips.min(16));
        self.trips += 1;
        self.state = BreakerState::Open { until: now + cool.min(self.config.cool_max) };
        self.window.clear();
    }

    fn half_open(&mut self, successes: u32) {
        self.state = BreakerState::HalfOpen { successes, is_under_way: false };
    }

    fn close(&mut self) {
        self.state = BreakerState::Closed;
        self.trips = 0;
        self.window.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    fn tripped() -> Breaker {
        let mut breaker = Breaker::new(BreakerConfig::default());
        for call in 0..200 {
            let pass = breaker.pass(at(call)).expect("it is closed");
            breaker.end(at(call), pass, Some(call % 2 == 0));
        }
        breaker
    }

    #[test]
    fn it_trips_at_half_of_two_hundred() {
        let mut few = Breaker::new(BreakerConfig::default());
        for call in 0..199 {
            let pass = few.pass(at(call)).expect("it is closed");
            few.end(at(call), pass, Some(false));
        }
        assert_eq!(few.state(), BreakerState::Closed);
        let mut spread = Breaker::new(BreakerConfig::default());
        for call in 0..1000 {
            let pass = spread.pass(at(call * 100)).expect("never 200 in ten seconds");
            spread.end(at(call * 100), pass, Some(false));
        }
        assert_eq!(spread.state(), BreakerState::Closed);
        assert_eq!(tripped().state(), BreakerState::Open { until: at(5199) });
    }

    #[test]
    fn g13_one_probe_at_a_time_and_longer_pauses() {
        let mut breaker = tripped();
        assert_eq!(breaker.pass(at(5198)), None);
        let mut now = at(5199);
        for cool in [10_000, 20_000, 40_000, 60_000, 60_000] {
            assert_eq!(breaker.pass(now), Some(Pass::Probe));
            assert_eq!((0..1000).filter_map(|_| breaker.pass(now)).count(), 0, "one at a time");
            breaker.end(now, Pass::Probe, Some(false));
            let until = now + Duration::from_millis(cool);
            assert_eq!(breaker.state(), BreakerState::Open { until });
            now = until;
        }
        assert_eq!(breaker.pass(now), Some(Pass::Probe));
        breaker.end(now, Pass::Probe, None);
        for _ in 0..2 {
            assert_eq!(breaker.pass(now), Some(Pass::Probe), "one that was given up says nothing");
            breaker.end(now, Pass::Probe, Some(true));
        }
        assert_eq!(breaker.state(), BreakerState::Closed);
    }

    #[test]
    fn ends_of_calls_from_before_say_nothing_new() {
        let mut breaker = tripped();
        let state = breaker.state();
        breaker.end(at(300), Pass::Ordinary, Some(true));
        breaker.end(at(300), Pass::Ordinary, Some(false));
        assert_eq!(breaker.state(), state);
    }
}
