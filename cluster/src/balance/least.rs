//! The one with the least to do.

use ringcall_core::{Entropy, Instant};

use super::idle::Idle;
use super::{Balance, Candidates, HostStats};

/// The one with the fewest calls under way for its weight; of equal ones, and of those with none, the one that says it
/// is less busy, then chance, as often as weights say. An instance that fails is worth as many calls as it fails in a
/// hundred. One that got no call for a second, and for twenty rounds of all of them, is tried: it may be better by now.
///
/// It looks at every candidate for each call: for up to a hundred or so.
#[derive(Clone, Debug, Default)]
pub struct LeastActive {
    idle: Idle,
}

impl Balance for LeastActive {
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
        let mut best = candidates.places()[0];
        let (mut least, mut equal) = (f64::INFINITY, 0);
        for &place in candidates.places() {
            let host = candidates.host(place);
            let (score, weight) = (self.score(now, host), u64::from(host.weight));
            if score < least {
                (best, least, equal) = (place, score, weight);
            } else if score == least {
                equal += weight;
                if rng.below(equal.max(1)) < weight {
                    best = place;
                }
            }
        }
        best
    }

    fn score(&self, now: Instant, host: &HostStats) -> f64 {
        // Failing fast must not look like being idle. Less than one call is nothing: what has failed is never forgotten
        // altogether, and the others of which that is not known would have all calls.
        let failing = (host.errors(now) * 100.0).floor();
        let active = f64::from(host.in_flight) + failing;
        if active == 0.0 {
            // Idle is idle, whatever the weight: callers with little to do would only ever call the heaviest.
            return f64::from(host.load) * IDLE;
        }
        (active + 1.0 + f64::from(host.load) * 0.5) / f64::from(host.weight.max(1))
    }
}

/// Less than one call at an instance with the largest weight.
const IDLE: f64 = 1e-6;
