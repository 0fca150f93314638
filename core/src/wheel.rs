//! A hierarchical timing wheel over dense keys (Varghese and Lauck, SOSP 1987, scheme 7).
//!
//! Arming, cancelling and expiring are O(1). Keys are small numbers that the owner chooses, such as
//! slots of a table; nothing is allocated once the wheel has seen its largest key.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::time::Duration;

use crate::Instant;

/// Timers fire at multiples of this many nanoseconds, about a millisecond, never early.
const TICK_LOG2: u32 = 20;
const LEVELS: usize = 5;
const SLOTS_LOG2: u32 = 6;
const SLOTS: usize = 1 << SLOTS_LOG2;
/// Marks a list's end, and a key that is not armed.
const NONE: u32 = u32::MAX;
/// How far ahead the wheel reaches, in ticks: about 13 days. Later timers wait at its rim.
const REACH: u64 = 1 << (SLOTS_LOG2 * LEVELS as u32);

/// The due tick of a timer that is not armed.
const NEVER: u64 = u64::MAX;

/// Timers by key; each key has at most one.
///
/// Most timers are deadlines that are cancelled, and armed again a little later, long before their
/// time. So a cancelled key stays in its list, and a key that is armed for later than it is listed does,
/// too: both are put right when their list's time comes, which costs once a list what it would otherwise
/// cost each time.
#[derive(Debug)]
pub struct Wheel {
    /// The tick up to which everything has been expired.
    elapsed: u64,
    /// That is all of it: nothing was listed since.
    is_expired: bool,
    armed: usize,
    nodes: Vec<Node>,
    /// First key of each slot's list, level by level; absent until the first timer is armed.
    heads: Option<Box<[u32; LEVELS * SLOTS]>>,
    /// Which slots of a level have keys.
    occupied: [u64; LEVELS],
}

#[derive(Clone, Copy, Debug)]
struct Node {
    /// When it fires, or [`NEVER`].
    due: u64,
    /// When its list's time comes, not after `due`; [`NEVER`] if it is in none.
    listed: u64,
    next: u32,
    previous: u32,
    list: u32,
}

const IDLE: Node = Node { due: NEVER, listed: NEVER, next: NONE, previous: NONE, list: NONE };

impl Wheel {
    /// How much later than asked a timer may fire.
    pub const TICK: Duration = Duration::from_nanos(1 << TICK_LOG2);

    /// A wheel without timers. It starts at `now`: timers before that fire at once.
    #[must_use]
    pub fn new(now: Instant) -> Wheel {
        Wheel {
            elapsed: now.as_nanos() >> TICK_LOG2,
            is_expired: false,
            armed: 0,
            nodes: Vec::new(),
            heads: None,
            occupied: [0; LEVELS],
        }
    }

    /// How many timers are armed.
    #[must_use]
    pub fn len(&self) -> usize {
        self.armed
    }

    /// Whether no timer is armed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.armed == 0
    }

    /// Arms or moves the timer of `key`. [`Instant::FAR`] disarms it.
    #[inline]
    pub fn arm(&mut self, key: u32, at: Instant) {
        if at == Instant::FAR {
            return self.cancel(key);
        }
        // Rounded up, so that nothing fires early.
        let tick = at.as_nanos().saturating_add((1 << TICK_LOG2) - 1) >> TICK_LOG2;
        match self.nodes.get_mut(key as usize) {
            Some(node) if node.listed <= tick => {
                self.armed += usize::from(node.due == NEVER);
                node.due = tick;
            }
            _ => self.arm_and_list(key, tick),
        }
    }

    /// Arms a key that is in no list, or in one that comes too late.
    #[cold]
    fn arm_and_list(&mut self, key: u32, tick: u64) {
        let index = key as usize;
        if index >= self.nodes.len() {
            self.nodes.resize(index + 1, IDLE);
        }
        if self.nodes[index].listed != NEVER {
            self.unlink(key);
        }
        self.armed += usize::from(self.nodes[index].due == NEVER);
        self.nodes[index].due = tick;
        self.link(key, tick);
    }

    /// Disarms the timer of `key`, if it is armed.
    #[inline]
    pub fn cancel(&mut self, key: u32) {
        if let Some(node) = self.nodes.get_mut(key as usize) {
            self.armed -= usize::from(node.due != NEVER);
            node.due = NEVER;
        }
    }

    /// When to call [`expire`](Self::expire) next: not after the earliest timer, perhaps before it.
    #[inline]
    #[must_use]
    pub fn next(&self) -> Option<Instant> {
        if self.armed == 0 {
            return None;
        }
        let late = if bug!("wakes_late") { SLOTS as u64 } else { 0 };
        let (_, tick) = self.next_list()?;
        Some(Instant::from_nanos((tick + late).saturating_mul(1 << TICK_LOG2)))
    }

    /// Takes one key whose time has come; call again until `None`.
    #[inline]
    pub fn expire(&mut self, now: Instant) -> Option<u32> {
        let now = now.as_nanos() >> TICK_LOG2;
        // A tick has hundreds of turns.
        if self.is_expired && now <= self.elapsed {
            return None;
        }
        self.expire_until(now)
    }

    fn expire_until(&mut self, now: u64) -> Option<u32> {
        self.is_expired = false;
        while let Some((list, tick)) = self.next_list() {
            if tick > now {
                break;
            }
            // Everything before this list's slot is empty, so time can move up to it.
            self.elapsed = self.elapsed.max(tick);
            if list >= SLOTS {
                // A coarse slot whose time has begun: spread its timers over the finer levels, all of them,
                // since a finer list hides what is left in a coarse one.
                self.cascade(list);
                continue;
            }
            let key = self.head(list);
            let due = self.nodes[key as usize].due;
            self.unlink(key);
            if due <= self.elapsed {
                self.nodes[key as usize].due = NEVER;
                self.armed -= 1;
                return Some(key);
            }
            if due != NEVER {
                self.link(key, due);
            }
        }
        self.elapsed = self.elapsed.max(now);
        self.is_expired = true;
        None
    }

    /// The first occupied list in time, and the tick when its slot begins.
    fn next_list(&self) -> Option<(usize, u64)> {
        for level in 0..LEVELS {
            if self.occupied[level] == 0 {
                continue;
            }
            let shift = SLOTS_LOG2 * level as u32;
            let current = (self.elapsed >> shift) & (SLOTS as u64 - 1);
            let ahead = self.occupied[level].rotate_right(current as u32).trailing_zeros();
            let slot = (current + u64::from(ahead)) & (SLOTS as u64 - 1);
            let begin = ((self.elapsed >> shift) + u64::from(ahead)) << shift;
            return Some((level * SLOTS + slot as usize, begin.max(self.elapsed)));
        }
        None
    }

    /// Lists a slot's keys anew, by when they are due.
    fn cascade(&mut self, list: usize) {
        let mut key = self.head(list);
        while key != NONE {
            let Node { due, next, .. } = self.nodes[key as usize];
            self.unlink(key);
            if due != NEVER {
                self.link(key, due);
            }
            key = next;
        }
    }

    fn head(&self, list: usize) -> u32 {
        self.heads.as_ref().map_or(NONE, |heads| heads[list])
    }

    fn link(&mut self, key: u32, tick: u64) {
        self.is_expired = false;
        // At the rim at most; when it comes near, `cascade` places the timer again. The rim is the
        // end of the last coarse slot that is not the current one's next turn.
        let coarse = REACH / SLOTS as u64;
        let rim = (self.elapsed | (coarse - 1)).saturating_add(REACH - coarse);
        let tick = tick.clamp(self.elapsed, rim);
        // The highest digit in which the tick differs from now says how coarse its slot may be.
        let differs = (tick ^ self.elapsed) | (SLOTS as u64 - 1);
        let level = ((63 - differs.leading_zeros()) / SLOTS_LOG2).min(LEVELS as u32 - 1);
        let slot = (tick >> (SLOTS_LOG2 * level)) as usize & (SLOTS - 1);
        let list = level as usize * SLOTS + slot;
        self.occupied[level as usize] |= 1 << slot;
        let heads = self.heads.get_or_insert_with(|| Box::new([NONE; LEVELS * SLOTS]));
        let next = core::mem::replace(&mut heads[list], key);
        let node = &mut self.nodes[key as usize];
        (node.listed, node.next, node.previous, node.list) = (tick, next, NONE, list as u32);
        if next != NONE {
            self.nodes[next as usize].previous = key;
        }
    }

    fn unlink(&mut self, key: u32) {
        let Node { next, previous, list, .. } = self.nodes[key as usize];
        if next != NONE {
            self.nodes[next as usize].previous = previous;
        }
        if previous != NONE {
            self.nodes[previous as usize].next = next;
        } else if let Some(heads) = &mut self.heads {
            heads[list as usize] = next;
            if next == NONE {
                self.occupied[list as usize / SLOTS] &= !(1 << (list as usize % SLOTS));
            }
        }
        self.nodes[key as usize].listed = NEVER;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::collections::BTreeMap;
    use proptest::prelude::*;

    fn ticks(n: u64) -> Instant {
        Instant::from_nanos(n << TICK_LOG2)
    }

    #[test]
    fn fires_in_time_and_never_early() {
        let mut wheel = Wheel::new(Instant::ZERO);
        wheel.arm(3, Instant::from_nanos(1));
        assert_eq!(wheel.expire(Instant::from_nanos(1)), None);
        assert_eq!(wheel.expire(Instant::from_nanos(1) + Wheel::TICK), Some(3));
        assert_eq!(wheel.expire(Instant::FAR), None);
    }

    #[test]
    fn a_timer_at_the_beginning_of_a_coarse_slot_is_not_hidden() {
        let mut wheel = Wheel::new(Instant::ZERO);
        wheel.arm(0, ticks(64));
        wheel.arm(1, ticks(64));
        // Stays in its list until that one's time comes.
        wheel.arm(1, ticks(80));
        assert_eq!(wheel.expire(ticks(64)), Some(0));
        assert_eq!(wheel.expire(ticks(80)), Some(1));
    }

    #[test]
    fn d05_a_jump_expires_everything_once() {
        let mut wheel = Wheel::new(Instant::ZERO);
        for key in 0..1000 {
            wheel.arm(key, ticks(u64::from(key) * 977));
        }
        wheel.arm(1000, Instant::FAR);
        let mut fired: Vec<u32> = core::iter::from_fn(|| wheel.expire(ticks(1 << 40))).collect();
        fired.sort_unstable();
        assert_eq!(fired, (0..1000).collect::<Vec<_>>());
        assert!(wheel.is_empty() && wheel.next().is_none());
    }

    /// If arming, cancelling or expiring one took longer the more there are, this would not end.
    #[test]
    fn d06_a_million_timers_at_once() {
        const COUNT: u32 = 1_000_000;
        let mut wheel = Wheel::new(Instant::ZERO);
        for key in 0..COUNT {
            wheel.arm(key, ticks(1000));
        }
        for key in (0..COUNT).filter(|key| key % 3 == 0) {
            wheel.cancel(key);
        }
        assert_eq!(wheel.expire(ticks(999)), None);
        // One at a time, so that whoever turns may stop between any two.
        assert!(wheel.expire(ticks(1000)).is_some());
        assert_eq!(wheel.next(), Some(ticks(1000)), "the others are due");
        let fired = core::iter::from_fn(|| wheel.expire(ticks(1000))).count() as u32;
        assert_eq!(fired, COUNT - COUNT.div_ceil(3) - 1);
        assert!(wheel.is_empty() && wheel.next().is_none());
    }

    #[derive(Clone, Debug)]
    enum Step {
        Arm(u32, u64),
        Cancel(u32),
        Advance(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let delay = prop_oneof![0..200u64, 0..100_000u64, 0..(1u64 << 33)];
        prop_oneof![
            (0..40u32, delay.clone()).prop_map(|(key, delay)| Step::Arm(key, delay)),
            (0..40u32).prop_map(Step::Cancel),
            delay.prop_map(Step::Advance),
        ]
    }

    proptest! {
        /// Against a sorted map: everything due fires, nothing else, and `next` is never too late.
        #[test]
        fn agrees_with_a_map(start in 0..(1u64 << 40), steps in prop::collection::vec(step(), 0..200)) {
            let mut now = start;
            let mut wheel = Wheel::new(ticks(now));
            let mut model: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Arm(key, delay) => {
                        wheel.arm(key, ticks(now + delay));
                        model.insert(key, now + delay);
                    }
                    Step::Cancel(key) => {
                        wheel.cancel(key);
                        model.remove(&key);
                    }
                    Step::Advance(by) => {
                        now += by;
                        let mut fired: Vec<u32> =
                            core::iter::from_fn(|| wheel.expire(ticks(now))).collect();
                        fired.sort_unstable();
                        let due: Vec<u32> =
                            model.iter().filter(|(_, at)| **at <= now).map(|(key, _)| *key).collect();
                        model.retain(|_, at| *at > now);
                        prop_assert_eq!(fired, due);
                    }
                }
                prop_assert_eq!(wheel.len(), model.len());
                let earliest = model.values().min().map(|at| ticks(*at));
                prop_assert_eq!(wheel.next().is_some(), earliest.is_some());
                prop_assert!(wheel.next() <= earliest || earliest.is_none());
            }
        }
    }
}
