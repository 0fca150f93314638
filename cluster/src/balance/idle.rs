//! Instances that were left alone for long.

use std::time::Duration;

use ringcall_core::Instant;

use super::Candidates;

const IDLE: Duration = Duration::from_secs(1);
/// An instance that is not wanted gets a twentieth of its share at most.
const IDLE_ROUNDS: u64 = 20;

/// Finds instances that got no call for a second, and for twenty rounds of all of them: they may be better by now.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    /// Whose turn it is to be looked at for having been idle.
    cursor: usize,
    /// The count of all calls, as far as the instances that were looked at say. It is not counted here: not every
    /// pick becomes a call, and the first ones may have been made by another policy.
    calls: u64,
}

impl Idle {
    /// One that was left alone for long.
    #[inline]
    pub(super) fn next(&mut self, now: Instant, candidates: &Candidates<'_>) -> Option<u32> {
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

    /// An instance got its last call when so many had been made.
    #[inline]
    pub(super) fn saw(&mut self, count: u64) {
        self.calls = self.calls.max(count);
    }
}
