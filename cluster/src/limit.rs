//! How many calls this side makes, whatever servers would take.

use std::time::Duration;

use ringcall_core::Instant;

/// How many calls there may be, of a method or of a whole service. One that would be more fails at once with
/// [`Cause::Limited`](ringcall_core::Cause::Limited), and was not sent. Attempts of a call are not counted, calls are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallLimit {
    /// Under way at a time; `None`, the default: any number.
    pub in_flight: Option<u32>,
    /// Begun a second; `None`, the default: any number.
    pub per_s: Option<u32>,
    /// Of these, how many may begin at once after a while without any: 1 by default, so that they are spread out evenly.
    pub burst: Option<u32>,
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
        CallLimit { per_s: Some(calls), burst: Some(burst), ..CallLimit::default() }
    }
}

/// The calls that are limited. The rate is the generic cell rate algorithm (ITU-T I.371): one instant instead of a
/// bucket that somebody fills.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limiter {
    limit: CallLimit,
    in_flight: u32,
    /// When the next call is due, if all came evenly.
    due: Instant,
}

impl Limiter {
    pub(crate) fn new(limit: CallLimit) -> Limiter {
        Limiter { limit, in_flight: 0, due: Instant::ZERO }
    }

    /// Replaces the limit; those under way count on, and what has begun no further than the new one looks back.
    pub(crate) fn configure(&mut self, now: Instant, limit: CallLimit) {
        self.limit = limit;
        let ahead =
            self.early().zip(self.every()).map_or(Duration::ZERO, |(early, every)| early + every);
        self.due = self.due.min(now + ahead);
    }

    /// Whether one more may begin.
    pub(crate) fn has_room(&self, now: Instant) -> bool {
        let is_few = self.limit.in_flight.is_none_or(|most| self.in_flight < most);
        is_few && self.early().is_none_or(|early| self.due.since(now) <= early)
    }

    /// One more begins.
    pub(crate) fn begin(&mut self, now: Instant) {
        self.in_flight += 1;
        if let Some(every) = self.every() {
            self.due = self.due.max(now) + every;
        }
    }

    pub(crate) fn end(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    fn every(&self) -> Option<Duration> {
        self.limit.per_s.map(|per_s| Duration::from_secs(1) / per_s.max(1))
    }

    /// How long before it is due a call may begin.
    fn early(&self) -> Option<Duration> {
        self.every().map(|every| every * (self.limit.burst.unwrap_or(1).max(1) - 1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(ms * 1_000_000)
    }

    /// How many of those that want to begin do, one each millisecond.
    fn begun(limiter: &mut Limiter, from_ms: u64, to_ms: u64) -> usize {
        let mut begins = |ms: u64| {
            let has_room = limiter.has_room(at(ms));
            has_room.then(|| limiter.begin(at(ms))).is_some()
        };
        (from_ms..to_ms).filter(|ms| begins(*ms)).count()
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
        limiter.configure(at(2000), CallLimit::per_second(100, 1));
        assert_eq!(begun(&mut limiter, 2000, 3000), 99);
    }

    #[test]
    fn so_many_are_under_way() {
        let mut limiter = Limiter::new(CallLimit::in_flight(3));
        assert_eq!(begun(&mut limiter, 0, 100), 3);
        limiter.end();
        assert_eq!(begun(&mut limiter, 100, 200), 1);
        limiter.configure(at(200), CallLimit::in_flight(5));
        assert_eq!(begun(&mut limiter, 200, 300), 2, "those under way are counted");
    }
}
