//! How a quota is shared, as a value: no clock, no network.
//!
//! Each caller gets what it asks for, as far as that leaves the others a fair part of it (max-min fairness; Bertsekas and
//! Gallager, *Data Networks*, 1992), and what nobody asks for is divided evenly, so that whoever needs more has some at
//! once. A share that is handed out counts until its lease ends, also if its caller asks for less meanwhile: the answer
//! may not have arrived. So all shares that are in force make no more than the quota, but for the one call a second
//! that everybody has.

use std::collections::BTreeMap;
use std::time::Duration;

use ringcall::cluster::Instant;

/// How many callers a quota may have.
const CALLERS_MAX: usize = 10_000;

/// A number of calls a second, and who has which part of it.
#[derive(Debug)]
pub(crate) struct Shares {
    per_s: u32,
    lease: Duration,
    callers: BTreeMap<u64, Caller>,
}

#[derive(Debug, Default)]
struct Caller {
    /// How many calls a second it would like to make.
    demand: u32,
    /// What it was given, and until when that holds.
    given: Vec<(u32, Instant)>,
}

impl Caller {
    /// What it may have in force.
    fn held(&self) -> u32 {
        self.given.iter().map(|(share, _)| *share).max().unwrap_or(0)
    }
}

impl Shares {
    pub(crate) fn new(per_s: u32, lease: Duration) -> Shares {
        Shares { per_s, lease, callers: BTreeMap::new() }
    }

    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Changes the quota: what is handed out holds until its lease ends.
    pub(crate) fn set(&mut self, per_s: u32) {
        self.per_s = per_s;
    }

    /// The share of a caller that would like to make so many calls a second. `None` if there are too many callers.
    pub(crate) fn ask(&mut self, now: Instant, caller: u64, demand: u32) -> Option<u32> {
        self.callers.retain(|_, caller| {
            caller.given.retain(|(_, until)| now < *until);
            !caller.given.is_empty()
        });
        let is_new = !self.callers.contains_key(&caller);
        if is_new && self.callers.len() >= CALLERS_MAX.min(self.per_s as usize) {
            return None;
        }
        // Some more than it makes now, or it could never make more.
        let demand = demand.saturating_add(demand / 4).saturating_add(1);
        self.callers.entry(caller).or_default().demand = demand;
        let others = self.callers.iter().filter(|(other, _)| **other != caller);
        let held: u64 = others.map(|(_, other)| u64::from(other.held())).sum();
        let left = u64::from(self.per_s).saturating_sub(held);
        let share = self.fair(caller).min(u32::try_from(left).unwrap_or(u32::MAX)).max(1);
        let until = now + self.lease;
        let asking = self.callers.entry(caller).or_default();
        // What is no more than the new one counts no longer.
        asking.given.retain(|(given, _)| *given > share);
        asking.given.push((share, until));
        Some(share)
    }

    /// What a caller should have, if everybody could be told at once.
    fn fair(&self, caller: u64) -> u32 {
        let mut demands: Vec<(u32, u64)> =
            self.callers.iter().map(|(id, caller)| (caller.demand, *id)).collect();
        demands.sort_unstable();
        let count = u32::try_from(demands.len()).unwrap_or(u32::MAX);
        let (mut left, mut own) = (self.per_s, 0);
        for (place, (demand, id)) in (0..count).zip(demands) {
            let share = demand.min(left / (count - place));
            left -= share;
            if id == caller {
                own = share;
            }
        }
        own + left / count
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos((1000 + ms) * 1_000_000)
    }

    /// Everybody asks once a second for a while.
    fn settle(shares: &mut Shares, demands: &[u32]) -> Vec<u32> {
        let mut given = vec![0; demands.len()];
        for second in 0..12 {
            for (caller, demand) in demands.iter().enumerate() {
                given[caller] = shares.ask(at(second * 1000), caller as u64, *demand).unwrap();
            }
        }
        given
    }

    #[test]
    fn who_wants_little_gets_it_and_the_rest_is_for_those_who_want_more() {
        let mut shares = Shares::new(1000, LEASE);
        let given = settle(&mut shares, &[100, 10_000, 10_000]);
        assert_eq!(given, [126, 437, 437]);
    }

    #[test]
    fn what_nobody_wants_is_divided_evenly() {
        let mut shares = Shares::new(1000, LEASE);
        let given = settle(&mut shares, &[0, 0, 0, 0]);
        assert_eq!(given, [250; 4]);
    }

    #[test]
    fn what_a_caller_leaves_is_there_for_others_when_its_lease_has_ended() {
        let mut shares = Shares::new(1000, LEASE);
        assert_eq!(shares.ask(at(0), 1, 5000), Some(1000));
        // Everything is handed out.
        assert_eq!(shares.ask(at(100), 2, 5000), Some(1));
        assert_eq!(shares.ask(at(2900), 2, 5000), Some(1));
        assert_eq!(shares.ask(at(3000), 2, 5000), Some(1000));
    }

    #[test]
    fn there_are_no_more_callers_than_calls() {
        let mut shares = Shares::new(2, LEASE);
        assert_eq!(shares.ask(at(0), 1, 9), Some(2));
        assert_eq!(shares.ask(at(0), 2, 9), Some(1));
        assert_eq!(shares.ask(at(0), 3, 9), None);
        assert_eq!(shares.ask(at(3000), 3, 9), Some(2));
    }

    proptest! {
        #[test]
        fn shares_in_force_are_no_more_than_the_quota(
            per_s in 10u32..2000,
            asks in proptest::collection::vec((0u64..8, 0u32..3000, 0u64..1500), 1..80),
        ) {
            let mut shares = Shares::new(per_s, LEASE);
            let mut given: Vec<(u64, u32, u64)> = Vec::new();
            let mut now = 0;
            for (caller, demand, later) in asks {
                now += later;
                let share = shares.ask(at(now), caller, demand).unwrap();
                given.push((caller, share, now + 3000));
                // Each may go by any that it was given and that has not ended: an answer may not have arrived.
                let mut in_force = BTreeMap::<u64, u32>::new();
                for (caller, share, until) in &given {
                    if *until > now {
                        let held = in_force.entry(*caller).or_default();
                        *held = (*share).max(*held);
                    }
                }
                let ones = u32::try_from(in_force.values().filter(|share| **share == 1).count()).unwrap();
                prop_assert!(in_force.values().sum::<u32>() <= per_s + ones);
            }
        }
    }
}
