//! By chance.

use ringcall_core::{Entropy, Instant};

use super::{Balance, Candidates, HostStats, score_of_weight};

/// One by chance, as often as its weight says.
#[derive(Clone, Copy, Debug, Default)]
pub struct WeightedRandom;

impl Balance for WeightedRandom {
    fn pick(
        &mut self,
        _now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        candidates.sample(rng)
    }

    fn score(&self, _now: Instant, host: &HostStats) -> f64 {
        score_of_weight(host)
    }
}
