//! Instances that come and go too often are left out for a while.
//!
//! After route flap damping (RFC 2439): each time that an instance vanishes costs a penalty, which halves
//! with time; above one threshold the instance is left out, below another it is let in again.

use std::collections::BTreeMap;
use std::time::Duration;

use ringcall_core::Instant;

use super::registry::INSTANCES_MAX;

/// How changes are slowed down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct DampingConfig {
    /// A change is passed on when nothing else has changed for so long: 100 ms.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub quiet: Duration,
    /// But after so long in any case: 1 s. So lists are rebuilt no more often.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub quiet_max: Duration,
    /// How soon an instance's penalty halves: 15 s. Three losses within that leave it out, and it comes back
    /// when a third of that is left.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub half_life: Duration,
}

impl Default for DampingConfig {
    fn default() -> DampingConfig {
        DampingConfig {
            quiet: Duration::from_millis(100),
            quiet_max: Duration::from_secs(1),
            half_life: Duration::from_secs(15),
        }
    }
}

const LOSS: f64 = 1.0;
const LEFT_OUT: f64 = 2.5;
const LET_IN: f64 = 1.0;
/// So that nothing is left out for more than three half-lives.
const MOST: f64 = 8.0;

#[derive(Clone, Copy, Debug)]
struct Penalty {
    amount: f64,
    at: Instant,
    is_out: bool,
}

/// Who is left out.
#[derive(Debug)]
pub(super) struct Damping {
    half_life: Duration,
    penalties: BTreeMap<String, Penalty>,
}

impl Damping {
    pub(super) fn new(config: &DampingConfig) -> Damping {
        Damping { half_life: config.half_life, penalties: BTreeMap::new() }
    }

    /// What is left of penalties now halves as fast as this says.
    pub(super) fn configure(&mut self, now: Instant, config: &DampingConfig) {
        let before = std::mem::replace(&mut self.half_life, config.half_life);
        for penalty in self.penalties.values_mut() {
            (penalty.amount, penalty.at) = (left(before, now, penalty), now);
        }
    }

    /// It has vanished.
    pub(super) fn lost(&mut self, now: Instant, name: &str) {
        let before = self.penalties.get(name).copied();
        if before.is_none() && self.penalties.len() >= INSTANCES_MAX {
            // A source that always has other names. None of them comes back, so none need be left out.
            return;
        }
        let left = before.map_or(0.0, |penalty| self.left(now, &penalty));
        let amount = (left + LOSS).min(MOST);
        let is_out = amount > LEFT_OUT || before.is_some_and(|penalty| penalty.is_out);
        self.penalties.insert(name.to_owned(), Penalty { amount, at: now, is_out });
    }

    /// Forgets what has been served.
    pub(super) fn advance(&mut self, now: Instant) {
        let half_life = self.half_life;
        self.penalties.retain(|_, penalty| {
            let left = left(half_life, now, penalty);
            penalty.is_out &= left > LET_IN;
            penalty.is_out || left > 0.1
        });
    }

    pub(super) fn is_out(&self, name: &str) -> bool {
        self.penalties.get(name).is_some_and(|penalty| penalty.is_out)
    }

    /// When the next one is let in.
    pub(super) fn next(&self) -> Option<Instant> {
        let out = self.penalties.values().filter(|penalty| penalty.is_out);
        out.map(|penalty| self.end(penalty)).min()
    }

    /// For how long one is left out from now on, if it does not vanish again.
    pub(super) fn time_left(&self, now: Instant, name: &str) -> Duration {
        let penalty = self.penalties.get(name).filter(|penalty| penalty.is_out);
        penalty.map_or(Duration::ZERO, |penalty| self.end(penalty).since(now))
    }

    fn end(&self, penalty: &Penalty) -> Instant {
        let half_lives = (penalty.amount / LET_IN).log2().max(0.0) + 0.001;
        penalty.at + self.half_life.mul_f64(half_lives)
    }

    fn left(&self, now: Instant, penalty: &Penalty) -> f64 {
        left(self.half_life, now, penalty)
    }
}

fn left(half_life: Duration, now: Instant, penalty: &Penalty) -> f64 {
    let passed = now.since(penalty.at).as_secs_f64() / half_life.as_secs_f64().max(1e-3);
    penalty.amount * 0.5f64.powf(passed)
}
