//! How many retries a channel may add to its load.
//!
//! After Finagle's `RetryBudget`: retries are a share of what succeeds, with a small floor so that a
//! channel that is just starting, or nearly idle, can retry at all. A budget belongs to a channel (a
//! service and shard), never to a connection, and retries and hedges draw from the same one: both are
//! extra load. When everything fails nothing is deposited, so a total outage is met with the floor
//! and no more, which is the point.

use core::time::Duration;

use crate::Instant;

/// Tokens deposited by successes and withdrawn by retries and hedges.
#[derive(Clone, Debug)]
pub struct RetryBudget {
    /// In thousandths of a token, so that percentages add up exactly.
    deposit: u64,
    floor_per_s: u64,
    /// Of a part of the window.
    length: Duration,
    balance: u64,
    /// Deposits of the window's parts, newest last; those that leave it expire.
    parts: [u64; PARTS],
    part: usize,
    part_began: Instant,
}

const PARTS: usize = 10;
const TOKEN: u64 = 1000;

impl RetryBudget {
    /// Retries may add `percent` of what succeeds within `window`, and `floor_per_s` a second in any
    /// case. It starts full at the floor: `floor_per_s` × `window` tokens.
    #[must_use]
    pub fn new(percent: u32, floor_per_s: u32, window: Duration, now: Instant) -> RetryBudget {
        let floor = u64::from(floor_per_s) * window.as_secs().max(1) * TOKEN;
        let mut parts = [0; PARTS];
        parts.iter_mut().for_each(|part| *part = floor / PARTS as u64);
        RetryBudget {
            deposit: u64::from(percent) * TOKEN / 100,
            floor_per_s: u64::from(floor_per_s),
            length: (window / PARTS as u32).max(Duration::from_nanos(1)),
            balance: parts.iter().sum(),
            parts,
            part: 0,
            part_began: now,
        }
    }

    /// A call succeeded.
    pub fn deposit(&mut self, now: Instant) {
        self.advance(now);
        self.add(self.deposit);
    }

    /// Whether one more attempt may be made. One call may always spend one token, and beyond that
    /// (`spent_by_call` of it so far) a fifth of the balance at most.
    #[must_use]
    pub fn allows(&mut self, now: Instant, spent_by_call: u32) -> bool {
        self.advance(now);
        let fair = spent_by_call == 0 || u64::from(spent_by_call + 1) * TOKEN <= self.balance / 5;
        self.balance >= TOKEN && fair
    }

    /// Asks for one more attempt, and pays for it if it is [allowed](RetryBudget::allows).
    #[must_use]
    pub fn withdraw(&mut self, now: Instant, spent_by_call: u32) -> bool {
        if !self.allows(now, spent_by_call) {
            return false;
        }
        self.balance -= TOKEN;
        // Taken from the oldest deposits first, those are the next to expire.
        let mut owed = TOKEN;
        for age in 1..=PARTS {
            let part = &mut self.parts[(self.part + age) % PARTS];
            let taken = owed.min(*part);
            *part -= taken;
            owed -= taken;
        }
        true
    }

    /// What was withdrawn for one attempt was no extra load after all.
    pub fn give_back(&mut self) {
        self.add(TOKEN);
    }

    /// Whole tokens left.
    #[must_use]
    pub fn balance(&self) -> u64 {
        self.balance / TOKEN
    }

    fn add(&mut self, amount: u64) {
        self.parts[self.part] += amount;
        self.balance += amount;
    }

    #[inline]
    fn advance(&mut self, now: Instant) {
        if self.length <= now.since(self.part_began) {
            self.expire(now);
        }
    }

    /// The newest part is full: others begin.
    #[cold]
    fn expire(&mut self, now: Instant) {
        let length = self.length;
        let passed = now.since(self.part_began).as_nanos() / length.as_nanos();
        // Whatever is older than the window has expired: no need to step through it.
        for _ in 0..passed.min(PARTS as u128) {
            self.part = (self.part + 1) % PARTS;
            self.balance -= core::mem::take(&mut self.parts[self.part]);
            let floor = self.floor_per_s * TOKEN * length.as_millis() as u64 / 1000;
            self.add(floor);
        }
        let steps = u32::try_from(passed).unwrap_or(u32::MAX);
        self.part_began = self.part_began + length.saturating_mul(steps);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn budget() -> RetryBudget {
        RetryBudget::new(10, 1, Duration::from_secs(10), Instant::ZERO)
    }

    fn at(ms: u64) -> Instant {
        Instant::ZERO + Duration::from_millis(ms)
    }

    #[test]
    fn starts_full_at_the_floor() {
        let mut budget = budget();
        assert_eq!(budget.balance(), 10);
        assert_eq!((0..20).filter(|_| budget.withdraw(at(0), 0)).count(), 10);
    }

    #[test]
    fn d10_a_storm_is_bounded_by_share_and_floor() {
        let mut budget = budget();
        let (mut retries, mut successes) = (0u64, 0u64);
        for call in 0..100_000u64 {
            let now = at(call);
            // The first half fails always, the second half succeeds at the second attempt.
            if budget.withdraw(now, 0) {
                retries += 1;
            }
            if call >= 50_000 {
                budget.deposit(now);
                successes += 1;
            }
        }
        // 100 s of floor, a tenth of what succeeded, and what it started with.
        assert!(retries <= 100 + successes / 10 + 10, "{retries}");
        assert!(retries >= 90 + successes / 11, "{retries}");
    }

    #[test]
    fn deposits_expire() {
        let mut budget = budget();
        (0..1000).for_each(|_| budget.deposit(at(0)));
        assert_eq!(budget.balance(), 110);
        assert!(budget.withdraw(at(60_000), 0));
        assert_eq!(budget.balance(), 9);
        // However long nothing happens.
        assert!(budget.withdraw(Instant::FAR, 0));
    }

    #[test]
    fn one_call_cannot_empty_it() {
        let mut budget = budget();
        assert!(budget.withdraw(at(0), 0));
        assert!(!budget.withdraw(at(0), 1), "a fifth of nine is less than two");
        (0..1000).for_each(|_| budget.deposit(at(0)));
        assert!(budget.withdraw(at(0), 1));
    }

    #[test]
    fn the_parts_are_the_balance() {
        let mut budget = budget();
        for step in 0..10_000u64 {
            let now = at(step * 37);
            match step % 7 {
                0..=3 => budget.deposit(now),
                _ => drop(budget.withdraw(now, (step % 3) as u32)),
            }
            assert_eq!(budget.parts.iter().sum::<u64>(), budget.balance);
        }
    }
}
