//! Whether a call has waited too long to begin.

use std::time::Duration;

use ringcall_core::Instant;

/// When calls that wait for their handlers are refused: see [`CoDel`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "super::text::QueueTable")
)]
pub struct QueueRule {
    target: Duration,
    interval: Duration,
}

impl QueueRule {
    /// Calls may wait for twice the `target` while even the shortest wait of an `interval` is longer than the
    /// target, and as long as they like otherwise. The target must be more than zero and less than the interval.
    #[must_use]
    pub const fn new(target: Duration, interval: Duration) -> QueueRule {
        QueueRule { target, interval }
    }

    /// How long a call may wait when there is no burst.
    #[must_use]
    pub const fn target(&self) -> Duration {
        self.target
    }

    /// What is not over after so long is no burst.
    #[must_use]
    pub const fn interval(&self) -> Duration {
        self.interval
    }

    /// What callers are told that it refuses, in milliseconds: until then it will have looked again. It is the same
    /// at any time, so that they do not all come back at once.
    pub(crate) fn retry_after_ms(&self) -> u16 {
        // The largest number would be: never.
        u16::try_from(self.interval.as_millis()).unwrap_or(u16::MAX).clamp(1, u16::MAX - 1)
    }

    pub(super) fn is_sound(&self) -> bool {
        !self.target.is_zero() && self.target < self.interval
    }
}

impl Default for QueueRule {
    /// 5 ms and 100 ms, which need no tuning for queues whose calls take less than that.
    fn default() -> QueueRule {
        QueueRule::new(Duration::from_millis(5), Duration::from_millis(100))
    }
}

/// How many intervals without a standing queue end an overload. With one, a moment in which all that waits is
/// refused looks like the end, and the next interval's calls wait for as long as that.
const CALM: u32 = 2;

/// Tells a queue that stands from one that a burst has left, by the shortest wait of each interval (Nichols and
/// Jacobson 2012). While it stands, calls that have waited for more than twice the target are refused, which is the
/// variation of Facebook's `folly::Codel`: CoDel itself drops packets more and more often.
///
/// A value without a clock: it is told when each call leaves the queue.
#[derive(Clone, Debug)]
pub struct CoDel {
    rule: QueueRule,
    /// In this interval, once there was one.
    shortest: Option<Duration>,
    until: Instant,
    /// How many further intervals must be calm until it is over; 0 if it is.
    overload: u32,
}

impl CoDel {
    /// Of a queue that is empty.
    #[must_use]
    pub const fn new(rule: QueueRule) -> CoDel {
        CoDel { rule, shortest: None, until: Instant::ZERO, overload: 0 }
    }

    /// What it goes by.
    pub(super) const fn rule(&self) -> QueueRule {
        self.rule
    }

    /// A call leaves the queue after so long, `behind` others stay: whether it is refused. The last one never is,
    /// since there is nothing better to do.
    pub fn refuses(&mut self, now: Instant, waited: Duration, behind: usize) -> bool {
        match self.shortest {
            Some(shortest) if now < self.until => self.shortest = Some(shortest.min(waited)),
            before => {
                self.begin_interval(now, before);
                self.shortest = Some(waited);
            }
        }
        self.is_overloaded() && behind > 0 && waited > self.rule.target * 2
    }

    /// A call that `had` so much time found it over after it had `waited` so long. If that was longer than the target, it
    /// says at once what an interval would say later; unless the call had hardly any time, which says more of its caller
    /// than of the queue.
    pub fn expired(&mut self, waited: Duration, had: Duration) {
        if waited > self.rule.target && had > self.rule.target * 2 {
            self.overload = CALM;
        }
    }

    fn begin_interval(&mut self, now: Instant, shortest: Option<Duration>) {
        let has_rested = now.since(self.until) > self.rule.interval;
        self.overload = match shortest {
            Some(shortest) if shortest > self.rule.target && !has_rested => CALM,
            _ if has_rested => 0,
            _ => self.overload.saturating_sub(1),
        };
        self.until = now + self.rule.interval;
    }

    /// Whether the queue stands.
    #[must_use]
    pub fn is_overloaded(&self) -> bool {
        self.overload > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;

    use ringcall_core::{Entropy, SplitMix64};

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    /// One server, calls of 100 µs, `load` times what it can do, made at random times; what became of those that
    /// left the queue: how long they had waited, and whether they were refused.
    struct World {
        codel: CoDel,
        rng: SplitMix64,
        now: Instant,
        next: Instant,
        waiting: VecDeque<Instant>,
    }

    impl World {
        fn new() -> World {
            let now = Instant::from_nanos(1_000_000_000);
            World {
                codel: CoDel::new(QueueRule::default()),
                rng: SplitMix64::new(7),
                now,
                next: now,
                waiting: VecDeque::new(),
            }
        }

        fn run(&mut self, load: f64, time: Duration) -> Vec<(Duration, bool)> {
            let until = self.now + time;
            let mut left = Vec::new();
            while self.now < until {
                while self.next <= self.now {
                    self.waiting.push_back(self.next);
                    let gap = (self.rng.below(200_001) as f64 / load) as u64;
                    self.next = self.next + Duration::from_nanos(gap);
                }
                let Some(since) = self.waiting.pop_front() else {
                    self.now = self.next;
                    continue;
                };
                let waited = self.now.since(since);
                let is_refused = self.codel.refuses(self.now, waited, self.waiting.len());
                left.push((waited, is_refused));
                self.now = self.now + if is_refused { US } else { 100 * US };
            }
            left
        }
    }

    fn served(left: &[(Duration, bool)]) -> impl Iterator<Item = Duration> + '_ {
        left.iter().filter(|(_, is_refused)| !is_refused).map(|(waited, _)| *waited)
    }

    #[test]
    fn nothing_is_refused_below_capacity() {
        for load in [0.1, 0.5, 0.9] {
            let left = World::new().run(load, 5000 * MS);
            assert!(left.iter().all(|(_, is_refused)| !is_refused), "at {load}");
        }
    }

    #[test]
    fn under_overload_what_is_served_has_waited_for_twice_the_target_at_most() {
        for load in [1.2, 2.0, 10.0] {
            let mut world = World::new();
            world.run(load, 300 * MS);
            let left = world.run(load, 2000 * MS);
            assert!(served(&left).all(|waited| waited <= 10 * MS), "at {load}");
            // And nothing is idle: what is refused takes a hundredth of what is served.
            let served = served(&left).count() as f64;
            let most = 20_000.0 / (1.0 + (load - 1.0) / 100.0);
            assert!(served > most * 0.98, "at {load}: {served} of {most}");
        }
    }

    #[test]
    fn a_burst_loses_nothing() {
        let mut world = World::new();
        world.run(0.5, 1000 * MS);
        let burst = world.run(3.0, 30 * MS);
        let after = world.run(0.5, 1000 * MS);
        assert!(burst.iter().chain(&after).all(|(_, is_refused)| !is_refused));
        assert!(after.iter().any(|(waited, _)| *waited > 20 * MS), "it was one");
    }

    #[test]
    fn an_overload_is_over_soon_after_it_ends() {
        let mut world = World::new();
        world.run(10.0, 2000 * MS);
        assert!(world.codel.is_overloaded());
        world.run(0.5, 350 * MS);
        assert!(!world.codel.is_overloaded());
        let left = world.run(0.5, 1000 * MS);
        assert!(served(&left).all(|waited| waited < 5 * MS));
    }

    #[test]
    fn a_moment_without_a_queue_does_not_end_it() {
        let mut world = World::new();
        world.run(10.0, 1000 * MS);
        // The machine did something else, then everything that waited was refused but the last.
        world.now = world.now + 30 * MS;
        let left = world.run(10.0, 1000 * MS);
        assert!(left.iter().any(|(waited, _)| *waited > 30 * MS), "it was one");
        assert!(served(&left).all(|waited| waited <= 10 * MS));
    }

    #[test]
    fn the_last_one_is_never_refused() {
        let mut codel = CoDel::new(QueueRule::default());
        let mut now = Instant::from_nanos(1_000_000_000);
        for _ in 0..100 {
            assert!(!codel.refuses(now, 500 * MS, 0));
            now = now + 10 * MS;
        }
        assert!(codel.is_overloaded());
        assert!(codel.refuses(now, 500 * MS, 1));
    }

    #[test]
    fn a_call_that_expires_in_the_queue_is_a_sign_at_once() {
        let mut codel = CoDel::new(QueueRule::default());
        let now = Instant::from_nanos(1_000_000_000);
        assert!(!codel.refuses(now, 50 * MS, 9));
        codel.expired(5 * MS, 50 * MS);
        assert!(!codel.is_overloaded());
        codel.expired(6 * MS, 6 * MS);
        assert!(!codel.refuses(now, 50 * MS, 9), "it had hardly any time");
        codel.expired(6 * MS, 50 * MS);
        assert!(codel.refuses(now, 50 * MS, 9));
        assert!(!codel.refuses(now, 9 * MS, 9));
        for ms in 1..=300 {
            codel.refuses(now + ms * MS, MS, 9);
        }
        assert!(!codel.is_overloaded(), "and forgotten as soon as others");
    }

    #[test]
    fn what_was_before_a_pause_does_not_count() {
        let mut codel = CoDel::new(QueueRule::default());
        let mut now = Instant::from_nanos(1_000_000_000);
        for _ in 0..100 {
            codel.refuses(now, 50 * MS, 9);
            now = now + 10 * MS;
        }
        assert!(codel.is_overloaded());
        assert!(!codel.refuses(now + 1000 * MS, 50 * MS, 9), "a burst after a second of rest");
    }
}
