//! The one with the least to do.

use ringcall_core::{Entropy, Instant};

use super::{Balance, Candidates, HostStats};

/// The one with the fewest calls under way for its weight; of equal ones the one that says it is less busy, then
/// chance. An instance that fails is worth as many calls as it fails in a hundred.
///
/// It looks at every candidate for each call: for up to a hundred or so.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeastActive;

impl Balance for LeastActive {
    fn pick(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        let mut best = candidates.places()[0];
        let (mut least, mut equal) = (f64::INFINITY, 0u64);
        for &place in candidates.places() {
            let score = self.score(now, candidates.host(place));
            if score < least {
                (best, least, equal) = (place, score, 1);
            } else if score == least {
                equal += 1;
                if rng.below(equal) == 0 {
                    best = place;
                }
            }
        }
        best
    }

    fn score(&self, now: Instant, host: &HostStats) -> f64 {
        // Failing fast must not look like being idle.
        let failing = host.errors(now) * 100.0;
        let active = f64::from(host.in_flight) + 1.0 + failing + f64::from(host.load) * 0.5;
        active / f64::from(host.weight.max(1))
    }
}
