//! Instances that were left alone for long.

use std::time::Duration;

use ringcall_core::Instant;

use super::{Candidates, HostStats};

const IDLE: Duration = Duration::from_secs(1);
/// An instance that is not wanted gets a twentieth of its share at most.
const IDLE_ROUNDS: u32 = 20;
/// By so much of all of them the next one that is looked at is further on: the golden ratio, whose multiples are spread
/// evenly however many there are, and if every other one of them is left out as well.
const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// Finds instances that got no call for a second, and for twenty rounds of those that it is among: they may be better by now.
///
/// A fleet may have calls that go to some and calls that go to others, so nothing here is about how many calls there are in
/// all, or who was last in another list: each pick looks at one of its candidates, and in twenty rounds of them each is
/// looked at twenty times.
#[derive(Clone, Debug, Default)]
pub(super) struct Idle {
    /// Whose turn it is to be looked at, as a part of all of them.
    turn: u64,
    /// By place.
    looks: Vec<Looks>,
}

/// How often an instance was looked at since its last call.
#[derive(Clone, Copy, Debug, Default)]
struct Looks {
    /// Which call that was.
    picked_count: u64,
    count: u32,
}

impl Idle {
    /// One that was left alone for long.
    #[inline]
    pub(super) fn next(&mut self, now: Instant, candidates: &Candidates<'_>) -> Option<u32> {
        let places = candidates.places();
        self.turn = self.turn.wrapping_add(STEP);
        let place = places[(((self.turn >> 32) * places.len() as u64) >> 32) as usize];
        let host = candidates.host(place);
        let is_idle = self.look(place, host) >= IDLE_ROUNDS
            && now.since(host.picked) >= IDLE
            && host.in_flight == 0
            && host.weight > 0;
        is_idle.then_some(place)
    }

    /// How often an instance was looked at without a call in between, this time among them.
    #[inline]
    fn look(&mut self, place: u32, host: &HostStats) -> u32 {
        let at = place as usize;
        if self.looks.len() <= at {
            self.looks.resize(at + 1, Looks::default());
        }
        let looks = &mut self.looks[at];
        if looks.picked_count != host.picked_count {
            *looks = Looks { picked_count: host.picked_count, count: 0 };
        }
        looks.count = looks.count.saturating_add(1);
        looks.count
    }
}
