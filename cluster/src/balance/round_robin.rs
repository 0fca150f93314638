//! In turn.

use ringcall_core::{Entropy, Instant};

use super::{Balance, Candidates, HostStats, score_of_weight};

/// In turn, those with a larger weight more often, and spread among the others (nginx's smooth weighted round
/// robin). It begins with an instance by chance, so that many callers do not begin with the same one.
///
/// It looks at every candidate for each call: for up to a hundred or so.
#[derive(Clone, Debug, Default)]
pub struct SmoothRoundRobin {
    /// What is owed to the host at each place.
    owed: Vec<i64>,
    is_new: bool,
}

impl Balance for SmoothRoundRobin {
    fn rebuild(&mut self, hosts: &[HostStats], _live: &[u32]) {
        self.owed.clear();
        self.owed.resize(hosts.len(), 0);
        self.is_new = true;
    }

    fn pick(
        &mut self,
        _now: Instant,
        rng: &mut dyn Entropy,
        candidates: &Candidates<'_>,
        _key: Option<u64>,
    ) -> u32 {
        if std::mem::take(&mut self.is_new) {
            for &place in candidates.places() {
                let weight = candidates.host(place).weight;
                self.owed[place as usize] = rng.below(u64::from(weight)) as i64;
            }
        }
        let mut total = 0;
        let mut best = candidates.places()[0];
        for &place in candidates.places() {
            let weight = i64::from(candidates.host(place).weight);
            total += weight;
            self.owed[place as usize] += weight;
            if self.owed[place as usize] > self.owed[best as usize] {
                best = place;
            }
        }
        self.owed[best as usize] -= total;
        best
    }

    fn score(&self, _now: Instant, host: &HostStats) -> f64 {
        score_of_weight(host)
    }
}
