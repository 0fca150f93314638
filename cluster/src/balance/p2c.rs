//! The better of two.

use ringcall_core::{Entropy, Instant};

use super::idle::Idle;
use super::{Balance, Candidates, HostStats};

/// Two by chance, as often as their weights say, and of these the better: latency as a decaying peak, times the
/// calls under way, times how busy it says it is; failing costs. The default.
///
/// Chance keeps many callers from choosing the same instance that all of them think idle, and two looks are
/// nearly as good as looking at all. An instance that got no call for a second, and for twenty rounds of all of
/// them that the calls go to, is tried: it may be better by now.
///
/// The weight decides how often an instance is looked at, and how many calls under way are much for it. Dividing
/// its score by the weight, as others do, would give an instance that warms up nothing at all instead of a
/// tenth.
#[derive(Clone, Debug, Default)]
pub struct PeakEwma {
    idle: Idle,
}

/// What a failure costs: as much as if the call had taken so long.
const FAILURE_NS: f64 = 5e9;

impl Balance for PeakEwma {
    #[inline]
    fn pick(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        if let Some(idle) = self.idle.next(now, candidates) {
            return idle;
        }
        let (one, other) = candidates.sample_two(rng);
        let score = |place: u32| self.score(now, candidates.host(place));
        if score(other) < score(one) { other } else { one }
    }

    #[inline]
    fn score(&self, now: Instant, host: &HostStats) -> f64 {
        // As a queue grows with how busy its server is, up to twenty times.
        let busy = 1.0 / (1.0 - f64::from(host.load).min(0.95));
        let cost = latency(host) * busy + failing(now, host);
        let active = f64::from(host.in_flight) * 10_000.0 / f64::from(host.weight.max(1));
        cost * (1.0 + active)
    }
}

/// How long calls to an instance take, in nanoseconds.
#[inline]
pub(super) fn latency(host: &HostStats) -> f64 {
    // One call is made to an instance of which nothing is known, and its end is waited for. If it was not worth
    // waiting for, that is known.
    match host.is_unknown() && host.in_flight > 0 {
        true => FAILURE_NS,
        false => host.latency_ns(),
    }
}

/// What its failures cost, in nanoseconds.
#[inline]
pub(super) fn failing(now: Instant, host: &HostStats) -> f64 {
    host.errors(now) * FAILURE_NS
}
