//! The better of two.

use std::time::Duration;

use ringcall_core::{Entropy, Instant};

use super::{Balance, Candidates, HostStats};

/// Two by chance, as often as their weights say, and of these the better: latency as a decaying peak, times the
/// calls under way, times how busy it says it is; failing costs. The default.
///
/// Chance keeps many callers from choosing the same instance that all of them think idle, and two looks are
/// nearly as good as looking at all. An instance that got no call for a second, and for twenty rounds of all of
/// them, is tried: it may be better by now.
///
/// The weight decides how often an instance is looked at, and how many calls under way are much for it. Dividing
/// its score by the weight, as others do, would give an instance that warms up nothing at all instead of a
/// tenth.
#[derive(Clone, Debug, Default)]
pub struct PeakEwma {
    /// Whose turn it is to be looked at for having been idle.
    cursor: usize,
    /// The count of all calls, as far as the instances that were looked at say. It is not counted here: not every
    /// pick becomes a call, and the first ones may have been made by another policy.
    calls: u64,
}

/// What a failure costs: as much as if the call had taken so long.
const FAILURE_NS: f64 = 5e9;
const IDLE: Duration = Duration::from_secs(1);
/// An instance that is not wanted gets a twentieth of its share at most.
const IDLE_ROUNDS: u64 = 20;

impl PeakEwma {
    /// One that was left alone for long.
    #[inline]
    fn idle(&mut self, now: Instant, candidates: &Candidates<'_>) -> Option<u32> {
        let places = candidates.places();
        self.cursor = if self.cursor + 1 < places.len() { self.cursor + 1 } else { 0 };
        let place = places[self.cursor];
        let host = candidates.host(place);
        self.calls = self.calls.max(host.picked_count);
        let rounds = IDLE_ROUNDS * places.len() as u64;
        let is_idle = self.calls.saturating_sub(host.picked_count) >= rounds
            && now.since(host.picked) >= IDLE
            && host.in_flight == 0
            && host.weight > 0;
        is_idle.then_some(place)
    }
}

impl Balance for PeakEwma {
    #[inline]
    fn pick(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        if let Some(idle) = self.idle(now, candidates) {
            return idle;
        }
        let one = candidates.sample(rng);
        let mut other = candidates.sample(rng);
        if one == other && candidates.places().len() > 1 {
            other = candidates.sample(rng);
        }
        let newest = |place: u32| candidates.host(place).picked_count;
        self.calls = self.calls.max(newest(one)).max(newest(other));
        let score = |place: u32| self.score(now, candidates.host(place));
        if score(other) < score(one) { other } else { one }
    }

    #[inline]
    fn score(&self, now: Instant, host: &HostStats) -> f64 {
        // One call is made to an instance of which nothing is known, and its end is waited for.
        let latency = match host.is_unknown() {
            true if host.in_flight > 0 => FAILURE_NS,
            true => 0.0,
            false => host.latency_ns(),
        };
        // As a queue grows with how busy its server is, up to twenty times.
        let busy = 1.0 / (1.0 - f64::from(host.load).min(0.95));
        let cost = latency * busy + host.errors(now) * FAILURE_NS;
        let active = f64::from(host.in_flight) * 10_000.0 / f64::from(host.weight.max(1));
        cost * (1.0 + active)
    }
}
