//! How a quota is shared, as a value: no clock, no network.
//!
//! Each caller gets what it asks for, as far as that leaves the others a fair part of it (max-min fairness; Bertsekas and
//! Gallager, *Data Networks*, 1992), and half of what nobody asks for is divided evenly, so that whoever needs more
//! has some at once; the other half is for those who come. A share that is handed out counts until its lease ends, also if its caller asks for less meanwhile: the answer
//! may not have arrived. The caller counts its lease from when it asked, which is before that. So all shares that are in
//! force make no more than the quota, but for the one call a second that everybody has.
//!
//! What was handed out before this began nobody knows here. So in the first lease time nothing is, and callers are only
//! heard.

use std::collections::BTreeMap;
use std::time::Duration;

use ringcall::cluster::Instant;

use crate::NoShare;

/// How many callers a quota may have: each that asks costs time that grows with them.
const CALLERS_MAX: usize = 1000;
/// How many shares of a caller are told apart. A keeper has four in a lease.
const GIVEN_MAX: usize = 8;

/// For how long a share holds that was asked for so long ago: its lease begins with the question, since whoever hands out
/// shares has heard that later. `None` if it has ended, or has hardly any time left.
pub(crate) fn left(lease: Duration, asked_ago: Duration) -> Option<Duration> {
    let left = lease.checked_sub(asked_ago)?;
    (left >= Duration::from_millis(1)).then_some(left)
}

/// A number of calls a second, and who has which part of it.
#[derive(Debug)]
pub(crate) struct Shares {
    per_s: u32,
    lease: Duration,
    /// Until when somebody may have a share of what was here before.
    first: Instant,
    callers: BTreeMap<u64, Caller>,
}

#[derive(Debug, Default)]
struct Caller {
    /// How many calls a second it would like to make.
    demand: u32,
    /// What it was given, and until when that holds: each less than the one before, and longer.
    given: Vec<(u32, Instant)>,
}

impl Caller {
    /// What it may have in force.
    fn held(&self) -> u32 {
        self.given.first().map_or(0, |(share, _)| *share)
    }

    fn give(&mut self, share: u32, until: Instant) {
        // What is no more than the new one counts no longer.
        self.given.retain(|(given, _)| *given > share);
        self.given.push((share, until));
        if self.given.len() > GIVEN_MAX {
            // The last but one counts for as long as the last, which is then needless.
            self.given.pop();
            self.given.last_mut().into_iter().for_each(|(_, last)| *last = until);
        }
    }
}

impl Shares {
    /// Nothing of it is handed out before `first`: what somebody else has handed out holds until then.
    pub(crate) fn new(per_s: u32, lease: Duration, first: Instant) -> Shares {
        Shares { per_s, lease, first, callers: BTreeMap::new() }
    }

    pub(crate) fn lease(&self) -> Duration {
        self.lease
    }

    /// Changes the quota: what is handed out holds until its lease ends.
    pub(crate) fn set(&mut self, per_s: u32) {
        self.per_s = per_s;
    }

    /// The share of a caller that would like to make so many calls a second.
    pub(crate) fn ask(&mut self, now: Instant, caller: u64, demand: u32) -> Result<u32, NoShare> {
        self.callers.retain(|_, caller| {
            caller.given.retain(|(_, until)| now < *until);
            !caller.given.is_empty()
        });
        let is_new = !self.callers.contains_key(&caller);
        if is_new && self.callers.len() >= CALLERS_MAX.min(self.per_s as usize) {
            return Err(NoShare::TooManyCallers);
        }
        let until = now + self.lease;
        // Some more than it makes now, or it could never make more.
        let demand = demand.saturating_add(demand / 4).saturating_add(1);
        self.callers.entry(caller).or_default().demand = demand;
        if now < self.first {
            // It is known when shares begin, so that the first to ask then does not get everything.
            self.callers.entry(caller).or_default().give(0, until);
            return Err(NoShare::NotYet);
        }
        let others = self.callers.iter().filter(|(other, _)| **other != caller);
        let held: u64 = others.map(|(_, other)| u64::from(other.held())).sum();
        let left = u64::from(self.per_s).saturating_sub(held);
        let share = self.fair(caller).min(u32::try_from(left).unwrap_or(u32::MAX)).max(1);
        self.callers.entry(caller).or_default().give(share, until);
        Ok(share)
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
        // Half of what nobody wants is kept back, for those who come.
        own + left / count / 2
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LEASE: Duration = Duration::from_secs(3);
    const TOO_MANY: Result<u32, NoShare> = Err(NoShare::TooManyCallers);

    fn at(ms: u64) -> Instant {
        Instant::from_nanos((1000 + ms) * 1_000_000)
    }

    /// Shares where nobody has any of before.
    fn shares(per_s: u32) -> Shares {
        Shares::new(per_s, LEASE, at(0))
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
        let given = settle(&mut shares(1000), &[100, 10_000, 10_000]);
        assert_eq!(given, [126, 437, 437]);
    }

    #[test]
    fn what_nobody_wants_is_divided_evenly() {
        let given = settle(&mut shares(1000), &[0, 0, 0, 0]);
        assert_eq!(given, [125; 4]);
    }

    #[test]
    fn what_a_caller_leaves_is_there_for_others_when_its_lease_has_ended() {
        let mut shares = shares(1000);
        assert_eq!(shares.ask(at(0), 1, 5000), Ok(1000));
        // Everything is handed out.
        assert_eq!(shares.ask(at(100), 2, 5000), Ok(1));
        assert_eq!(shares.ask(at(2900), 2, 5000), Ok(1));
        assert_eq!(shares.ask(at(3000), 2, 5000), Ok(1000));
    }

    #[test]
    fn there_are_no_more_callers_than_calls() {
        let mut shares = shares(2);
        assert_eq!(shares.ask(at(0), 1, 9), Ok(2));
        assert_eq!(shares.ask(at(0), 2, 9), Ok(1));
        assert_eq!(shares.ask(at(0), 3, 9), TOO_MANY);
        assert_eq!(shares.ask(at(3000), 3, 9), Ok(2));
    }

    #[test]
    fn there_are_no_more_than_a_thousand_callers() {
        let mut shares = shares(1_000_000);
        for caller in 0..1000 {
            assert!(shares.ask(at(0), caller, 9).is_ok(), "{caller}");
        }
        assert_eq!(shares.ask(at(0), 1000, 9), TOO_MANY);
        assert!(shares.ask(at(0), 999, 9).is_ok(), "who is known is heard");
    }

    #[test]
    fn nothing_is_handed_out_before_the_shares_of_before_have_ended() {
        let mut shares = Shares::new(1000, LEASE, at(3000));
        for caller in 0..4 {
            assert_eq!(shares.ask(at(2000 + caller), caller, 5000), Err(NoShare::NotYet));
        }
        assert_eq!(shares.ask(at(2999), 0, 5000), Err(NoShare::NotYet));
        // They were heard, so each gets its part at once.
        for caller in 0..4 {
            assert_eq!(shares.ask(at(3000), caller, 5000), Ok(250));
        }
    }

    #[test]
    fn who_asks_for_less_each_time_takes_no_more_room() {
        let mut shares = Shares::new(1_000_000, LEASE, at(1));
        for caller in 1..=2 {
            assert_eq!(shares.ask(at(0), caller, 0), Err(NoShare::NotYet));
        }
        for less in 1..2000 {
            shares.ask(at(less), 1, 400_000 - 10 * less as u32).unwrap();
        }
        assert!(shares.callers[&1].given.len() <= GIVEN_MAX);
        // What it was given first counts until its lease ends.
        assert!(shares.callers[&1].held() > 500_000);
    }

    /// A caller, what it wants, after how long since it asked before, and for how long the question and the answer are on
    /// their way.
    type Asks = (u64, u32, u64, u64, u64);

    /// A share in force: from when, until when.
    struct Force {
        caller: u64,
        share: u32,
        from: u64,
        until: u64,
    }

    /// What is in force as a keeper does it.
    fn in_force(shares: &mut Shares, asks: &[Asks]) -> Vec<Force> {
        let mut free = BTreeMap::<u64, u64>::new();
        let mut heard = Vec::new();
        for (caller, demand, later, there, back) in asks {
            let free = free.entry(*caller).or_default();
            let asked = *free + later;
            // It waits for no answer longer than a third of a lease.
            *free = asked + (there + back).min(1000);
            heard.push((asked + there, asked, *caller, *demand, asked + there + back));
        }
        heard.sort_unstable();
        let mut all: Vec<Force> = Vec::new();
        for (heard, asked, caller, demand, arrives) in heard {
            let share = shares.ask(at(heard), caller, demand).unwrap();
            let time = left(LEASE, Duration::from_millis(arrives - asked));
            if let Some(time) = time.filter(|_| arrives <= asked + 1000) {
                let until = arrives + time.as_millis() as u64;
                all.push(Force { caller, share, from: arrives, until });
            }
        }
        // The next one is in place of the one before.
        let starts: Vec<(u64, u64)> = all.iter().map(|it| (it.caller, it.from)).collect();
        for force in &mut all {
            let next = starts.iter().filter(|(of, at)| *of == force.caller && *at > force.from);
            let next = next.map(|(_, at)| *at).min().unwrap_or(u64::MAX);
            force.until = force.until.min(next);
        }
        all
    }

    proptest! {
        #[test]
        fn shares_in_force_are_no_more_than_the_quota(
            per_s in 10u32..2000,
            asks in proptest::collection::vec(
                (0u64..8, 0u32..3000, 1u64..1500, 0u64..1500, 0u64..1500), 1..80,
            ),
        ) {
            let all = in_force(&mut shares(per_s), &asks);
            for begins in &all {
                let now = begins.from;
                let held = all.iter().filter(|it| (it.from..it.until).contains(&now));
                let held: Vec<u32> = held.map(|it| it.share).collect();
                let ones = held.iter().filter(|share| **share == 1).count() as u32;
                prop_assert!(held.iter().sum::<u32>() <= per_s + ones, "{held:?} of {per_s}");
            }
        }
    }
}
