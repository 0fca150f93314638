//! How many calls this side makes, whatever servers would take.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ringcall_core::Instant;

use crate::settings::{BadSetting, check_limit, time};

/// How many calls there may be, of a method or of a whole service. One that would be more fails at once with
/// [`Cause::Limited`](ringcall_core::Cause::Limited), and was not sent. Attempts of a call are not counted, calls are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct CallLimit {
    /// Under way at a time; `None`, the default: any number.
    pub in_flight: Option<u32>,
    /// Begun a second; `None`, the default: any number.
    pub per_s: Option<u32>,
    /// Of these, how many may begin at once after a while without any: 1, so that they are spread out evenly.
    pub burst: u32,
}

impl Default for CallLimit {
    fn default() -> CallLimit {
        CallLimit { in_flight: None, per_s: None, burst: 1 }
    }
}

impl CallLimit {
    /// So many under way at a time.
    #[must_use]
    pub fn in_flight(calls: u32) -> CallLimit {
        CallLimit { in_flight: Some(calls), ..CallLimit::default() }
    }

    /// So many begun a second, and this many of them at once.
    #[must_use]
    pub fn per_second(calls: u32, burst: u32) -> CallLimit {
        CallLimit { per_s: Some(calls), burst, ..CallLimit::default() }
    }
}

/// A limit for a while: the share of a quota that somebody has given to this process, who counts for all of them. Whoever hands
/// out shares renews each before it ends; when nobody does, what is configured holds again, so that is what this process may
/// do while it hears of nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitLease {
    /// How many calls there may be.
    pub limit: CallLimit,
    /// For how long, from when it is put in force.
    pub time: Duration,
}

impl LimitLease {
    pub(crate) fn check(&self) -> Result<(), BadSetting> {
        check_limit(&self.limit)?;
        time("lease.time", self.time)
    }
}

/// Calls, counted and limited.
#[derive(Debug)]
pub(crate) struct Limiter {
    configured: CallLimit,
    /// That, or what is leased.
    limit: CallLimit,
    /// When the lease ends; never without one.
    until: Instant,
    in_flight: u32,
    rate: Option<Rate>,
}

impl Default for Limiter {
    fn default() -> Limiter {
        Limiter::new(CallLimit::default())
    }
}

type Rate = RateLimiter<NotKeyed, InMemoryState, Now, NoOpMiddleware<Duration>>;

/// The time of the decision that is made, since zero.
#[derive(Clone, Debug, Default)]
struct Now(Cell<Duration>);

impl Clock for Now {
    type Instant = Duration;

    fn now(&self) -> Duration {
        self.0.get()
    }
}

impl Limiter {
    pub(crate) fn new(limit: CallLimit) -> Limiter {
        let (until, rate) = (Instant::FAR, rate(limit));
        Limiter { configured: limit, limit, until, in_flight: 0, rate }
    }

    /// Replaces the limit, which holds as soon as nothing is leased. Those under way count on.
    pub(crate) fn configure(&mut self, limit: CallLimit) {
        self.configured = limit;
        if self.until == Instant::FAR {
            self.hold_to(limit);
        }
    }

    /// Puts a lease in force, in place of the one before.
    pub(crate) fn lease(&mut self, now: Instant, lease: LimitLease) {
        self.until = now + lease.time;
        self.hold_to(lease.limit);
    }

    /// The lease has ended.
    #[cold]
    fn end_lease(&mut self) {
        self.until = Instant::FAR;
        self.hold_to(self.configured);
    }

    fn hold_to(&mut self, limit: CallLimit) {
        if limit != self.limit {
            (self.limit, self.rate) = (limit, rate(limit));
        }
    }

    /// One more call begins, if all of these let it. What one refuses may have taken something from the rates of those
    /// before it: whatever is shared comes last.
    #[inline]
    pub(crate) fn begin(mut all: [&mut Limiter; 2], now: Instant) -> bool {
        for limiter in &mut all {
            if limiter.until <= now {
                limiter.end_lease();
            }
        }
        let may = all.iter().all(|limiter| limiter.has_room())
            && all.iter().all(|limiter| limiter.is_in_time(now));
        if may {
            all.into_iter().for_each(|limiter| limiter.in_flight += 1);
        }
        may
    }

    pub(crate) fn end(&mut self) {
        self.in_flight -= 1;
    }

    fn has_room(&self) -> bool {
        self.limit.in_flight.is_none_or(|most| self.in_flight < most)
    }

    fn is_in_time(&self, now: Instant) -> bool {
        self.rate.as_ref().is_none_or(|rate| {
            rate.clock().0.set(now.since(Instant::ZERO));
            rate.check().is_ok()
        })
    }
}

fn rate(limit: CallLimit) -> Option<Rate> {
    let (per_s, burst) = (NonZeroU32::new(limit.per_s?)?, NonZeroU32::new(limit.burst)?);
    let quota = Quota::per_second(per_s).allow_burst(burst);
    Some(RateLimiter::direct_with_clock(quota, Now::default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// How many of those that want to begin do, one each millisecond.
    fn begun(limiter: &mut Limiter, from_ms: u64, to_ms: u64) -> usize {
        let mut rest = Limiter::default();
        (from_ms..to_ms).filter(|ms| Limiter::begin([limiter, &mut rest], at(*ms))).count()
    }

    #[test]
    fn so_many_begin_a_second_and_so_many_at_once() {
        let mut limiter = Limiter::new(CallLimit::per_second(100, 1));
        assert_eq!(begun(&mut limiter, 1000, 2000), 100);
        let mut limiter = Limiter::new(CallLimit::per_second(10, 5));
        assert_eq!(begun(&mut limiter, 1000, 1005), 5, "at once");
        assert_eq!(begun(&mut limiter, 1005, 11_000), 99, "and then evenly");
        assert_eq!(begun(&mut limiter, 60_000, 60_050), 5, "after a while again");
        // What a limit of before had let through is no debt to the next one.
        let mut limiter = Limiter::new(CallLimit::per_second(1, 1000));
        assert_eq!(begun(&mut limiter, 1000, 2000), 1000);
        limiter.configure(CallLimit::per_second(100, 1));
        assert_eq!(begun(&mut limiter, 2000, 3000), 100);
    }

    #[test]
    fn so_many_are_under_way() {
        let mut limiter = Limiter::new(CallLimit::in_flight(3));
        assert_eq!(begun(&mut limiter, 0, 100), 3);
        limiter.end();
        assert_eq!(begun(&mut limiter, 100, 200), 1);
        limiter.configure(CallLimit::in_flight(5));
        assert_eq!(begun(&mut limiter, 200, 300), 2, "those under way are counted");
    }

    #[test]
    fn what_one_refuses_the_other_has_not_begun() {
        let (mut one, mut other) =
            (Limiter::new(CallLimit::in_flight(3)), Limiter::new(CallLimit::in_flight(1)));
        let begun = [1, 2].map(|ms| Limiter::begin([&mut one, &mut other], at(ms)));
        assert_eq!((begun, one.in_flight), ([true, false], 1));
    }

    #[test]
    fn a_lease_holds_for_its_time_and_then_what_is_configured() {
        let mut limiter = Limiter::new(CallLimit::in_flight(1));
        let lease = |calls| LimitLease {
            limit: CallLimit::in_flight(calls),
            time: Duration::from_millis(100),
        };
        limiter.lease(at(0), lease(3));
        assert_eq!(begun(&mut limiter, 0, 100), 3);
        limiter.lease(at(50), lease(5));
        assert_eq!(begun(&mut limiter, 100, 150), 2, "it was renewed");
        limiter.configure(CallLimit::in_flight(6));
        assert_eq!(begun(&mut limiter, 140, 150), 0, "that is for later");
        assert_eq!(begun(&mut limiter, 150, 200), 1);
    }
}
