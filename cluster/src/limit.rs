//! How many calls this side makes, whatever servers would take.

use std::cell::Cell;
use std::num::NonZeroU32;
use std::time::Duration;

use governor::clock::Clock;
use governor::middleware::NoOpMiddleware;
use governor::state::{InMemoryState, NotKeyed};
use governor::{Quota, RateLimiter};
use ringcall_core::Instant;

/// How many calls there may be, of a method or of a whole service. One that would be more fails at once with
/// [`Cause::Limited`](ringcall_core::Cause::Limited), and was not sent. Attempts of a call are not counted, calls are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
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

/// Calls, counted and limited.
#[derive(Debug, Default)]
pub(crate) struct Limiter {
    limit: CallLimit,
    in_flight: u32,
    rate: Option<Rate>,
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
        Limiter { limit, in_flight: 0, rate: rate(limit) }
    }

    /// Replaces the limit. Those under way count on.
    pub(crate) fn configure(&mut self, limit: CallLimit) {
        if limit != self.limit {
            *self = Limiter { in_flight: self.in_flight, ..Limiter::new(limit) };
        }
    }

    /// One more call begins, if all of these let it. What one refuses may have taken something from the rates of those
    /// before it: whatever is shared comes last.
    #[inline]
    pub(crate) fn begin(all: [&mut Limiter; 2], now: Instant) -> bool {
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
}
