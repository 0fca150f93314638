//! When a shard that has nothing to do looks on for a moment before it sleeps.
//!
//! To sleep and be woken takes tens of microseconds, which is several calls under load; to look on takes a core for
//! as long as nothing comes. Which is better is learned from what looking on brought before.

use std::time::Duration;

use ringcall_core::Instant;

/// For how long it looks on for the sake of one call. Waking takes about as long: whoever looks on for no longer than
/// that loses at most half.
const LOOK_ON: Duration = Duration::from_micros(50);
/// For how much longer for each call that came before: when many come at a time, all of them would wait until it is awake.
const LOOK_ON_A_CALL: Duration = Duration::from_micros(2);
/// And for how long at most.
const LOOK_ON_MAX: Duration = Duration::from_micros(200);
/// A look takes much less than this, unless somebody else has the core meanwhile.
const PREEMPTED: Duration = Duration::from_micros(60);
/// Those that it has woken take the core for no longer than this: they take their answers and call again.
const LENT_MAX: Duration = Duration::from_micros(200);
/// How many waits are slept through at most before looking on is tried again.
const SLEEPS_MAX: u32 = 256;
/// Of these at least when the core is wanted by others.
const SLEEPS_PREEMPTED: u32 = 16;

/// Learns whether it is worth while to look on. It sleeps after looking on in vain, and the next waits too: one, then
/// two, four and so on, until looking on brings something.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct LookOn {
    /// How many waits are slept through before the next try.
    sleeps: u32,
    /// The same, after the next try if that is in vain; zero is one.
    next_sleeps: u32,
    /// Since when it looks on.
    since: Option<Instant>,
    /// For how long, from then, it looks on at most.
    at_most: Duration,
    /// When it looked last.
    looked: Instant,
    /// Who else wants its core.
    rivals: Rivals,
}

/// What is to be done while there is nothing to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Idle {
    /// Look again.
    Look,
    /// Sleep until something happens.
    Sleep,
}

impl LookOn {
    /// There is nothing to do. It looks on for so long, at most: asked for once a wait.
    pub(super) fn found_nothing(
        &mut self,
        now: Instant,
        at_most: impl FnOnce() -> Duration,
    ) -> Idle {
        let Some(since) = self.since else { return self.begin(now, at_most()) };
        if self.is_preempted(now) {
            return self.lost_the_core(now);
        }
        self.looked = now;
        if now.since(since) < self.at_most { Idle::Look } else { self.gave_up(1) }
    }

    /// There was something to do. If that was found by looking on, it looks on the next time as well. That sleep was
    /// short says nothing: two that share a core would keep it from each other. Nor does what came while somebody
    /// else had the core, who may have had to wait for it before doing just that.
    pub(super) fn found_something(&mut self, now: Instant) {
        if self.since.is_none() {
            return;
        }
        match self.is_preempted(now) {
            true => drop(self.lost_the_core(now)),
            false => (self.since, self.next_sleeps) = (None, 1),
        }
    }

    /// Whether somebody else wants its core.
    pub(super) fn has_rivals(&self, now: Instant) -> bool {
        self.rivals.are_there(now)
    }

    /// While it looked on it has lent its core to those that it had woken: that is not time in which it looked on. If it took long,
    /// somebody else has had it.
    pub(super) fn has_lent(&mut self, now: Instant) {
        if self.since.is_none() {
            return;
        }
        match now.since(self.looked) > LENT_MAX {
            true => drop(self.lost_the_core(now)),
            false => (self.since, self.looked) = (Some(now), now),
        }
    }

    fn lost_the_core(&mut self, now: Instant) -> Idle {
        self.rivals.noticed(now);
        self.gave_up(SLEEPS_PREEMPTED)
    }

    fn is_preempted(&self, now: Instant) -> bool {
        now.since(self.looked) > PREEMPTED
    }

    /// It was in vain: so many waits, at least, are slept through.
    fn gave_up(&mut self, least: u32) -> Idle {
        self.since = None;
        self.sleeps = self.next_sleeps.max(least);
        self.next_sleeps = self.sleeps.saturating_mul(2).min(SLEEPS_MAX);
        Idle::Sleep
    }

    fn begin(&mut self, now: Instant, at_most: Duration) -> Idle {
        if self.sleeps > 0 {
            self.sleeps -= 1;
            return Idle::Sleep;
        }
        (self.since, self.looked, self.at_most) = (Some(now), now, at_most);
        Idle::Look
    }
}

/// For how long to look on by default, when so many calls came since there was nothing to do the last time.
pub(super) fn look_on_at_most(calls: u32) -> Duration {
    (LOOK_ON + LOOK_ON_A_CALL * calls.saturating_sub(1).min(1 << 10)).min(LOOK_ON_MAX)
}

/// Whether somebody else wants the core of a shard that looks on.
///
/// A shard that does not sleep uses up its share of a core, and then waits while the other has a slice of milliseconds. So
/// while there is a rival its looks are short, and it does not lend its core, which would not come back soon. After a while it finds
/// out again, and waits four times as long if there is still one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Rivals {
    /// Until then there are some.
    until: Instant,
    /// For how long it was taken for granted.
    pause: Duration,
}

const RIVALS_PAUSE_MIN: Duration = Duration::from_millis(4);
const RIVALS_PAUSE_MAX: Duration = Duration::from_secs(1);

impl Rivals {
    pub(super) fn are_there(&self, now: Instant) -> bool {
        now < self.until
    }

    /// Somebody had the core.
    fn noticed(&mut self, now: Instant) {
        let is_still_there = now < self.until + self.pause;
        let longer = if is_still_there { self.pause * 4 } else { Duration::ZERO };
        self.pause = longer.clamp(RIVALS_PAUSE_MIN, RIVALS_PAUSE_MAX);
        self.until = now + self.pause;
    }
}

/// How long a shard that looks on waits between two looks. Each is a system call on epoll.
///
/// Whoever has worked through a batch and finds nothing more waits for the next one, which takes the peer a while as well.
/// A share of the time that this one took loses little, and spares most looks that would be in vain.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Pauses {
    /// When the last turn began that did something, until the pause behind it.
    busy_since: Option<Instant>,
    /// How long to wait after that.
    next: Duration,
}

/// The share of the first pause, and of each one behind it.
const FIRST_PAUSE: u32 = 4;
const NEXT_PAUSE: u32 = 64;
/// However long the turn took.
const PAUSE_MAX: Duration = Duration::from_micros(2);

impl Pauses {
    /// The turn that began then has done something.
    pub(super) fn busy(&mut self, began: Instant) {
        self.busy_since = Some(began);
    }

    /// A look that began now was in vain. How long to wait for the next one.
    pub(super) fn next(&mut self, now: Instant) -> Duration {
        let Some(since) = self.busy_since.take() else { return self.next };
        let busy = now.since(since).min(PAUSE_MAX * FIRST_PAUSE);
        self.next = busy / NEXT_PAUSE;
        busy / FIRST_PAUSE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const AT_MOST: Duration = Duration::from_micros(50);

    struct Waiting {
        look_on: LookOn,
        now: Instant,
    }

    impl Waiting {
        fn new() -> Waiting {
            Waiting { look_on: LookOn::default(), now: Instant::from_nanos(1_000_000) }
        }

        /// Nothing comes: how many looks of a microsecond it has before it sleeps.
        fn looks(&mut self) -> u32 {
            (0..).find(|_| !self.looks_again(Duration::from_micros(1))).unwrap()
        }

        /// Nothing comes in so many waits, and it does not look.
        fn sleeps(&mut self, waits: u32) {
            for _ in 0..waits {
                assert_eq!(self.looks(), 0);
                self.finds_something();
            }
        }

        fn finds_something(&mut self) {
            self.look_on.found_something(self.now);
        }

        fn looks_again(&mut self, after: Duration) -> bool {
            self.now = self.now + after;
            self.look_on.found_nothing(self.now, || AT_MOST) == Idle::Look
        }
    }

    #[test]
    fn it_looks_on_for_as_long_as_it_may() {
        assert_eq!(Waiting::new().looks(), 50);
    }

    #[test]
    fn each_time_in_vain_it_sleeps_longer() {
        let mut waiting = Waiting::new();
        for sleeps in [1, 2, 4, 8, 16, 32, 64, 128, 256, 256] {
            assert_eq!(waiting.looks(), 50);
            waiting.sleeps(sleeps);
        }
    }

    #[test]
    fn what_it_finds_makes_it_look_again() {
        let mut waiting = Waiting::new();
        for _ in 0..5 {
            waiting.looks();
        }
        while !waiting.looks_again(Duration::from_micros(1)) {}
        waiting.finds_something();
        assert_eq!(waiting.looks(), 50);
        assert_eq!(waiting.looks(), 0);
        assert_eq!(waiting.looks(), 50);
    }

    #[test]
    fn it_sleeps_when_somebody_else_wants_the_core() {
        let mut waiting = Waiting::new();
        assert!(waiting.looks_again(Duration::from_micros(1)));
        assert!(!waiting.looks_again(Duration::from_micros(61)));
        waiting.sleeps(16);
        assert_eq!(waiting.looks(), 50);
    }

    #[test]
    fn what_comes_while_somebody_else_has_the_core_is_not_found() {
        let mut waiting = Waiting::new();
        assert!(waiting.looks_again(Duration::from_micros(1)));
        waiting.now = waiting.now + Duration::from_micros(61);
        waiting.finds_something();
        assert_eq!(waiting.looks(), 0);
    }

    #[test]
    fn who_has_its_core_is_no_stranger() {
        let mut waiting = Waiting::new();
        for _ in 0..3 {
            assert!(waiting.looks_again(Duration::from_micros(1)));
            waiting.now = waiting.now + Duration::from_micros(199);
            waiting.look_on.has_lent(waiting.now);
            waiting.finds_something();
        }
        assert_eq!(waiting.looks(), 50);
    }

    #[test]
    fn who_keeps_its_core_wants_it_for_something_else() {
        let mut waiting = Waiting::new();
        assert!(waiting.looks_again(Duration::from_micros(1)));
        waiting.now = waiting.now + Duration::from_micros(201);
        waiting.look_on.has_lent(waiting.now);
        assert!(waiting.look_on.has_rivals(waiting.now));
        waiting.sleeps(16);
        assert_eq!(waiting.looks(), 50);
    }

    #[test]
    fn a_rival_that_stays_is_taken_for_granted_longer_and_longer() {
        let (mut rivals, mut now) = (Rivals::default(), Instant::from_nanos(1_000_000));
        assert!(!rivals.are_there(now));
        for millis in [4, 16, 64, 256, 1000, 1000] {
            rivals.noticed(now);
            let pause = Duration::from_millis(millis);
            assert!(rivals.are_there(now + (pause - Duration::from_nanos(1))));
            now = now + pause;
            assert!(!rivals.are_there(now));
        }
        now = now + Duration::from_secs(1);
        rivals.noticed(now);
        assert!(!rivals.are_there(now + Duration::from_millis(4)));
    }

    #[test]
    fn many_calls_are_worth_a_longer_look() {
        let micros =
            [0, 1, 2, 32, 76, 77, u32::MAX].map(|calls| look_on_at_most(calls).as_micros());
        assert_eq!(micros, [50, 50, 52, 112, 200, 200, 200]);
    }

    #[test]
    fn pauses_are_shares_of_what_there_was_to_do() {
        let at = Instant::from_nanos;
        let mut pauses = Pauses::default();
        assert_eq!(pauses.next(at(1_000)), Duration::ZERO);
        pauses.busy(at(2_000));
        assert_eq!(pauses.next(at(5_200)), Duration::from_nanos(800));
        assert_eq!(pauses.next(at(7_000)), Duration::from_nanos(50));
        assert_eq!(pauses.next(at(9_000)), Duration::from_nanos(50));
        pauses.busy(at(10_000));
        assert_eq!(pauses.next(at(9_000_000)), PAUSE_MAX);
    }
}
