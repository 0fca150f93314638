//! How many calls there may be in a time.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher, RandomState};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos;
use governor::state::StateStore;
use governor::{Quota, RateLimiter};
use parking_lot::Mutex;
use ringcall_core::{Instant, method_id};

use super::super::CallerKey;
use super::super::access::Caller;

/// How many calls may begin in a time: of all methods, of a service or of one method, by all callers together or by
/// each of them. Of the whole server, however many shards it has.
///
/// It is a bucket that holds [`burst`](Rate::burst) calls and is filled evenly, by the generic cell rate algorithm: who
/// has used it up may make the next call as soon as there is room for one, and is told when that will be.
///
/// ```
/// use ringcall::CallerKey;
/// use ringcall::limits::{Limits, Rate};
///
/// let limits = Limits::default()
///     .rate(Rate::per_second(50_000))
///     .rate(Rate::per_second(100).burst(20).method("demo.Echo/echo").each(CallerKey::metadata("tenant")));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "super::text::RateText")
)]
pub struct Rate {
    calls: u32,
    per: Duration,
    burst: u32,
    of: Scope,
    each: Option<CallerKey>,
    callers_max: usize,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Service(String),
    Method(String),
}

/// How long it may take at most until a bucket is full again.
const FILLS_IN_MAX: Duration = Duration::from_secs(30 * 24 * 60 * 60);

impl Rate {
    /// So many calls in that time, and as many at once if there were none for as long.
    #[must_use]
    pub const fn new(calls: u32, per: Duration) -> Rate {
        let (of, each) = (Scope::All, None);
        Rate { calls, per, burst: calls, of, each, callers_max: Rate::CALLERS_MAX }
    }

    /// So many calls a second.
    #[must_use]
    pub const fn per_second(calls: u32) -> Rate {
        Rate::new(calls, Duration::from_secs(1))
    }

    /// How many callers are told apart unless a rate says otherwise.
    pub const CALLERS_MAX: usize = 10_000;

    /// How many calls may begin at once; as many as in the whole time by default. A bucket that was used up must be
    /// full again within 30 days.
    #[must_use]
    pub fn burst(mut self, calls: u32) -> Rate {
        self.burst = calls;
        self
    }

    /// Counts the calls of one service, `package.Service`, and no others.
    #[must_use]
    pub fn service(mut self, name: impl Into<String>) -> Rate {
        self.of = Scope::Service(name.into());
        self
    }

    /// Counts the calls of one method, `package.Service/method`, and no others.
    #[must_use]
    pub fn method(mut self, name: impl Into<String>) -> Rate {
        self.of = Scope::Method(name.into());
        self
    }

    /// Counts the calls of each caller for themselves.
    #[must_use]
    pub fn each(mut self, caller: CallerKey) -> Rate {
        self.each = Some(caller);
        self
    }

    /// How many callers are told apart at most; [10 000](Rate::CALLERS_MAX) by default, with less than 64 bytes each.
    /// When there are more, those who have most left are forgotten, and begin anew: whoever makes up callers gets no
    /// more by that than he has already, since each of them begins with a full bucket.
    #[must_use]
    pub fn callers_max(mut self, callers: usize) -> Rate {
        self.callers_max = callers;
        self
    }

    /// The method that it is for, if it is for one.
    pub(super) fn method_name(&self) -> Option<&str> {
        if let Scope::Method(name) = &self.of { Some(name) } else { None }
    }

    /// The service that it is for, if it is for one.
    pub(super) fn service_name(&self) -> Option<&str> {
        if let Scope::Service(name) = &self.of { Some(name) } else { None }
    }

    pub(super) fn is_sound(&self) -> bool {
        let Some(quota) = self.quota() else { return false };
        let is_short = quota.replenish_interval().checked_mul(self.burst);
        is_short.is_some_and(|fills_in| fills_in <= FILLS_IN_MAX)
            && self.callers_max > 0
            && self.each.as_ref().is_none_or(CallerKey::is_sound)
    }

    fn quota(&self) -> Option<Quota> {
        let burst = NonZeroU32::new(self.burst)?;
        let every = self.per.checked_div(self.calls).filter(|every| !every.is_zero())?;
        Quota::with_period(every).map(|quota| quota.allow_burst(burst))
    }

    fn is_for(&self, number: Option<u64>, method: u64, name: &str) -> bool {
        match &self.of {
            Scope::All => true,
            Scope::Method(_) => number == Some(method),
            Scope::Service(service) => {
                name.strip_prefix(service.as_str()).is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }
}

/// The rates of a server, which its shards share.
pub(crate) struct Rates {
    random: RandomState,
    buckets: Vec<Arc<Limited>>,
}

struct Limited {
    rate: Rate,
    /// Of the method, if it is for one.
    method: Option<u64>,
    limiter: Mutex<Limiter>,
}

type Limiter = RateLimiter<u64, Buckets, Now, NoOpMiddleware<Duration>>;

impl Limited {
    fn new(rate: &Rate) -> Option<Limited> {
        let buckets = Buckets { full_at: RefCell::default(), max: rate.callers_max };
        let limiter = Mutex::new(RateLimiter::new(rate.quota()?, buckets, Now::default()));
        let method = rate.method_name().map(method_id);
        Some(Limited { rate: rate.clone(), method, limiter })
    }
}

impl Rates {
    /// `None` if there are none. They are sound. Rates that there were `before` go on with the buckets that they had.
    pub(super) fn new(rates: &[Rate], before: Option<&Rates>) -> Option<Rates> {
        let random = before.map_or_else(RandomState::new, |before| before.random.clone());
        let mut had: Vec<_> = before.map_or_else(Vec::new, |before| before.buckets.clone());
        let buckets = rates.iter().filter_map(|rate| {
            // Each at most once: a rate that there is twice has two buckets.
            match had.iter().position(|limited| limited.rate == *rate) {
                Some(place) => Some(had.swap_remove(place)),
                None => Limited::new(rate).map(Arc::new),
            }
        });
        let mut buckets: Vec<_> = buckets.collect();
        // What is refused to one caller takes nothing from what all share.
        buckets.sort_by_key(|limited| limited.rate.each.is_none());
        (!buckets.is_empty()).then_some(Rates { random, buckets })
    }

    /// A call is about to begin, of a method with this number and name: if it may not, when it might.
    pub(crate) fn refuses(
        &self,
        now: Instant,
        (method, name): (u64, &str),
        caller: impl Fn() -> Caller,
        extensions: &[u8],
    ) -> Option<Duration> {
        for limited in &self.buckets {
            let Limited { rate, method: number, limiter } = &**limited;
            if !rate.is_for(*number, method, name) {
                continue;
            }
            let of = |key: &CallerKey| key.number(&self.random, &caller, extensions);
            let key = rate.each.as_ref().map_or(0, of);
            let now = now.since(Instant::ZERO);
            let limiter = limiter.lock();
            limiter.clock().0.set(now);
            if let Err(until) = limiter.check_key(&key) {
                return Some(until.wait_time_from(now));
            }
        }
        None
    }
}

impl fmt::Debug for Rates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.buckets.iter().map(|limited| &limited.rate)).finish()
    }
}

/// When the bucket of each caller will be full. Only callers that were let through are in it.
#[derive(Debug)]
struct Buckets {
    full_at: RefCell<HashMap<u64, Nanos, BuildHasherDefault<AsItIs>>>,
    max: usize,
}

impl StateStore for Buckets {
    type Key = u64;

    fn measure_and_replace<T, F, E>(&self, key: &u64, decide: F) -> Result<T, E>
    where
        F: Fn(Option<Nanos>) -> Result<(T, Nanos), E>,
    {
        let mut full_at = self.full_at.borrow_mut();
        let (outcome, full) = decide(full_at.get(key).copied())?;
        if full_at.len() >= self.max && !full_at.contains_key(key) {
            make_room(&mut full_at);
        }
        full_at.insert(*key, full);
        Ok(outcome)
    }
}

/// The hash of a key that is one already.
#[derive(Clone, Copy, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&byte| self.0 = self.0.rotate_left(8) ^ u64::from(byte));
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

/// Forgets the half that has most left, those that are full among them. Half, so that looking at all of them is a
/// constant for each caller that comes.
fn make_room(full_at: &mut HashMap<u64, Nanos, BuildHasherDefault<AsItIs>>) {
    let mut times: Vec<Nanos> = full_at.values().copied().collect();
    let middle = times.len() / 2;
    let (_, &mut median, _) = times.select_nth_unstable(middle);
    full_at.retain(|_, full| *full > median);
}

/// The time of the decision that is made: of the shard that makes it, since zero.
#[derive(Debug, Default)]
struct Now(Cell<Duration>);

impl Clock for Now {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringcall_core::frame::ExtensionWriter;

    const MS: Duration = Duration::from_millis(1);
    const ECHO: (u64, &str) = (1, "demo.Echo/echo");

    struct World {
        rates: Rates,
        now: Instant,
    }

    impl World {
        fn new(rates: &[Rate]) -> World {
            assert!(rates.iter().all(Rate::is_sound));
            let rates = Rates::new(rates, None).expect("there are some");
            World { rates, now: Instant::from_nanos(5_000_000_000) }
        }

        fn call(&self, method: (u64, &str), caller: &str) -> Option<Duration> {
            let mut writer = ExtensionWriter::new();
            crate::metadata::push_entry(&mut writer, "who", caller.as_bytes()).unwrap();
            self.rates.refuses(self.now, method, Caller::default, &writer.finish())
        }

        /// How many of so many calls at once are let through.
        fn burst(&self, calls: u32, caller: &str) -> usize {
            (0..calls).filter(|_| self.call(ECHO, caller).is_none()).count()
        }

        /// How many callers the first rate knows.
        fn known(mut self) -> usize {
            let limited =
                Arc::into_inner(self.rates.buckets.remove(0)).expect("nobody else has it");
            limited.limiter.into_inner().into_state_store().full_at.into_inner().len()
        }
    }

    fn each() -> CallerKey {
        CallerKey::metadata("who")
    }

    #[test]
    fn as_many_as_it_says_and_the_next_when_it_says() {
        let mut world = World::new(&[Rate::new(10, 1000 * MS).burst(3)]);
        assert_eq!(world.burst(10, "a"), 3);
        let wait = world.call(ECHO, "a").expect("it is used up");
        assert_eq!(wait, 100 * MS);
        world.now = world.now + (wait - MS);
        assert_eq!(world.call(ECHO, "a"), Some(MS));
        world.now = world.now + MS;
        assert_eq!(world.call(ECHO, "a"), None);
        // No more than the rate over a long time, whatever is tried meanwhile.
        let mut let_through = 0;
        for _ in 0..10_000 {
            world.now = world.now + MS;
            let_through += world.burst(3, "a");
        }
        assert_eq!(let_through, 100);
        world.now = world.now + Duration::from_secs(3600);
        assert_eq!(world.burst(10, "a"), 3, "and never more at once");
    }

    #[test]
    fn a_rate_that_stays_has_no_fresh_bucket() {
        let (slow, other) = (Rate::new(1, 1000 * MS).burst(2), Rate::per_second(5));
        let mut world = World::new(&[slow.clone(), slow.clone(), other.clone()]);
        assert_eq!(world.burst(10, "a"), 2);
        let replace = |world: &mut World, rates: &[Rate]| {
            world.rates = Rates::new(rates, Some(&world.rates)).expect("there are some");
        };
        replace(&mut world, &[Rate::per_second(7), slow.clone()]);
        assert_eq!(world.burst(10, "a"), 0);
        world.now = world.now + 2000 * MS;
        // Of three that are alike, the third has not been there before.
        replace(&mut world, &[slow.clone(), slow.clone(), slow]);
        assert_eq!(world.burst(10, "a"), 2);
        replace(&mut world, &[other]);
        assert_eq!(world.burst(10, "a"), 5, "and one that comes back begins anew");
    }

    #[test]
    fn a_rate_is_for_what_it_names() {
        let world = World::new(&[
            Rate::per_second(1).method("demo.Echo/echo"),
            Rate::per_second(2).service("demo.Echo"),
            Rate::per_second(4),
        ]);
        let echo = (method_id("demo.Echo/echo"), "demo.Echo/echo");
        let other = (method_id("demo.Echo/other"), "demo.Echo/other");
        let another = (method_id("demo.Echoes/echo"), "demo.Echoes/echo");
        assert_eq!(world.call(echo, "a"), None);
        assert!(world.call(echo, "a").is_some(), "the method's");
        assert_eq!(world.call(other, "a"), None);
        assert!(world.call(other, "a").is_some(), "the service's");
        assert_eq!(world.call(another, "a"), None);
        assert_eq!(world.call(another, "a"), None);
        assert!(world.call(another, "a").is_some(), "that of all");
    }

    #[test]
    fn callers_do_not_use_up_what_is_others() {
        let world = World::new(&[Rate::per_second(100), Rate::per_second(2).each(each())]);
        assert_eq!(world.burst(1000, "a"), 2);
        assert_eq!(world.burst(1000, "b"), 2);
        // What was refused to them took nothing from what all share.
        let others = (0..200).filter(|n| world.call(ECHO, &n.to_string()).is_none()).count();
        assert_eq!(others, 96);
    }

    #[test]
    fn made_up_callers_are_forgotten_before_those_who_have_used_theirs_up() {
        let rate = Rate::new(10, 1000 * MS).each(each()).callers_max(100);
        let mut world = World::new(&[rate]);
        assert_eq!(world.burst(1000, "greedy"), 10);
        for n in 0..10_000 {
            assert_eq!(world.call(ECHO, &n.to_string()), None);
        }
        assert!(world.call(ECHO, "greedy").is_some());
        // Nor do those who were refused take any room.
        world.now = world.now + 100 * MS;
        assert_eq!(world.burst(1000, "greedy"), 1);
        assert!(world.known() <= 100);
        for callers_max in [1, 2, 3] {
            let world = World::new(&[Rate::per_second(1).each(each()).callers_max(callers_max)]);
            assert!((0..100).all(|n| world.call(ECHO, &n.to_string()).is_none()));
            assert!(world.known() <= callers_max);
        }
    }

    #[test]
    fn what_makes_no_sense_is_found() {
        let day = Duration::from_secs(24 * 60 * 60);
        assert!(Rate::new(1, day).burst(30).is_sound());
        for wrong in [
            Rate::per_second(0),
            Rate::new(1, Duration::ZERO),
            Rate::new(u32::MAX, Duration::from_nanos(1)),
            Rate::per_second(1).burst(0),
            Rate::per_second(1).callers_max(0),
            Rate::new(1, day).burst(31),
            Rate::new(1, Duration::MAX).burst(u32::MAX),
            Rate::per_second(1).each(CallerKey::metadata("n o")),
        ] {
            assert!(!wrong.is_sound(), "{wrong:?}");
        }
        assert!(Rates::new(&[], None).is_none());
    }
}
