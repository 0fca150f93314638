//! What is no fault as long as it is rare: PINGs, CANCELs, control frames, tiny parts of bodies.
//!
//! Each costs its sender little and the receiver something, and credit does not limit it. Budgets grow
//! with the traffic that honest ones go along with, so that load alone never exhausts them.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use core::time::Duration;

use super::{Connection, STRIKES_WINDOW};
use crate::frame::CancelReason;
use crate::{CloseReason, Instant};

/// So many PINGs may come at once.
const PINGS_BURST: u32 = 5;
/// So many more, too early, are forgiven until there is a pause.
const PING_STRIKES_MAX: u32 = 2;
/// An item may earn credit in bytes and items, for its stream and its pool.
const CONTROL_FRAMES_A_CALL: u64 = 4;
/// A call that was there for so long is no quick one, whyever it is cancelled.
const CANCEL_AGE_MAX: Duration = Duration::from_secs(1);
/// A call that is cancelled younger than this was not cancelled because it took long.
const CANCEL_AGE_MIN: Duration = Duration::from_millis(1);
/// DATA with fewer bytes than this, more of the body following, costs more than it brings.
pub(super) const SMALL_PART: usize = 256;
/// What a small frame is charged with, and the least that its budget is.
const SMALL_PART_CHARGE: u64 = 256;
const SMALL_PARTS_BUDGET_MIN: u64 = 25_600;
/// So many CANCELs this side may send at once, and then one for four calls: no stretch of what it sends
/// has more than 1024 that are also more than half of its calls, however long it has been on its way.
const CANCELS_SAVED: u64 = 400;
const CALLS_A_CANCEL: u64 = 4;
/// One for which nothing is left waits so long. Its call has then been there for a second, and what the
/// other side is told of such a call it does not count.
pub(super) const CANCEL_LATER: Duration = Duration::from_secs(2);

#[derive(Debug)]
pub(super) struct Floods {
    pings: Pings,
    cancels: Share,
    control: Share,
    small_parts: Share,
    own_cancels: CancelsLeft,
}

impl Floods {
    pub(super) fn new(now: Instant) -> Floods {
        Floods {
            pings: Pings { due: Instant::ZERO, strikes: 0 },
            cancels: Share::new(now),
            control: Share::new(now),
            small_parts: Share::new(now),
            own_cancels: CancelsLeft {
                calls: CANCELS_SAVED.saturating_mul(CALLS_A_CANCEL),
                numbered: 0,
            },
        }
    }
}

/// PINGs that keep an interval on average.
#[derive(Debug)]
struct Pings {
    /// When the next one would be due if all before had kept the interval.
    due: Instant,
    strikes: u32,
}

impl Pings {
    /// Takes one; says whether that is still no flood.
    fn take(&mut self, now: Instant, interval: Duration) -> bool {
        if self.due <= now {
            self.strikes = 0;
        }
        let burst = interval.saturating_mul(PINGS_BURST.saturating_sub(1));
        if self.due.since(now) > burst {
            self.strikes = self.strikes.saturating_add(1);
            return self.strikes <= PING_STRIKES_MAX || bug!("c03");
        }
        self.due = self.due.max(now) + interval;
        true
    }
}

/// Something that may be a share of the traffic of ten seconds, or a fixed number if that is more.
#[derive(Debug)]
struct Share {
    began: Instant,
    count: u64,
    traffic_before: u64,
}

impl Share {
    fn new(now: Instant) -> Share {
        Share { began: now, count: 0, traffic_before: 0 }
    }

    /// Adds `n`; says whether that is still no more than `max` or the traffic since the window began.
    fn add(&mut self, now: Instant, n: u64, max: u64, traffic: u64) -> bool {
        if now.since(self.began) >= STRIKES_WINDOW {
            *self = Share { began: now, count: 0, traffic_before: traffic };
        }
        self.count = self.count.saturating_add(n);
        self.count <= max.max(traffic.saturating_sub(self.traffic_before)) || bug!("floods")
    }
}

/// What this side may still cancel. No clock is asked: a stall gathers calls and CANCELs, but keeps their
/// order.
#[derive(Debug)]
struct CancelsLeft {
    /// Calls whose part of a CANCEL is not spent.
    calls: u64,
    /// How many had been made when it was last looked at.
    numbered: u64,
}

impl CancelsLeft {
    /// Takes one, if there is one, or if it may not wait; says whether there was one.
    fn take(&mut self, numbered: u64, may_wait: bool) -> bool {
        let more = numbered.saturating_sub(self.numbered);
        self.numbered = numbered;
        let most = CANCELS_SAVED.saturating_mul(CALLS_A_CANCEL);
        self.calls = self.calls.saturating_add(more).min(most);
        let is_enough = self.calls >= CALLS_A_CANCEL;
        if is_enough || !may_wait {
            self.calls = self.calls.saturating_sub(CALLS_A_CANCEL);
        }
        is_enough
    }
}

impl<T> Connection<T> {
    /// This side is about to cancel a call; says whether that has to wait, if it may: it would be more than the
    /// other side stands.
    pub(super) fn cancel_must_wait(&mut self, may_wait: bool) -> bool {
        !self.floods.own_cancels.take(self.outbound.numbered(), may_wait)
            && may_wait
            && !bug!("cancels_at_once")
    }

    pub(super) fn count_ping(&mut self, now: Instant) -> Result<(), CloseReason> {
        let interval = self.config.ping_interval_min;
        let strikes = self.floods.pings.strikes;
        let is_fine = self.floods.pings.take(now, interval);
        let struck = u64::from(self.floods.pings.strikes > strikes);
        self.counters.ping_strikes = self.counters.ping_strikes.wrapping_add(struck);
        if is_fine { Ok(()) } else { Err(CloseReason::TooManyPings) }
    }

    /// A control frame that belongs to what is sent and received: at most four for each call or item.
    pub(super) fn count_control(&mut self, now: Instant) -> Result<(), CloseReason> {
        let counters = &self.counters;
        let traffic = counters
            .calls_made
            .wrapping_add(counters.requests_taken)
            .wrapping_add(counters.requests_answered)
            .wrapping_add(counters.items_sent);
        let traffic = traffic.saturating_mul(CONTROL_FRAMES_A_CALL);
        let max = u64::from(self.config.control_frames_max);
        match self.floods.control.add(now, 1, max, traffic) {
            true => Ok(()),
            false => Err(CloseReason::TooManyControlFrames),
        }
    }

    /// A CANCEL. Half of all calls may be cancelled, since hedging does; and one that was given most of
    /// its time does not count, or callers that wait in vain would lose their connection, too.
    pub(super) fn count_cancel(
        &mut self,
        now: Instant,
        reason: CancelReason,
        call: Option<(Instant, Instant)>,
    ) -> Result<(), CloseReason> {
        if let Some((received, deadline)) = call {
            let age = now.since(received);
            let has_waited = reason == CancelReason::Expired
                && age >= CANCEL_AGE_MIN
                && age.saturating_mul(2) >= deadline.since(received);
            if has_waited || age >= CANCEL_AGE_MAX {
                return Ok(());
            }
        }
        let half = self.counters.requests_taken.wrapping_add(1) >> 1;
        match self.floods.cancels.add(now, 1, u64::from(self.config.cancels_max), half) {
            true => Ok(()),
            false => Err(CloseReason::TooManyCancels),
        }
    }

    /// A part of a body, whether somebody wants it or not, that may be hardly more than its head, and not the last.
    pub(super) fn count_if_small(
        &mut self,
        now: Instant,
        is_small: bool,
    ) -> Result<(), CloseReason> {
        if !is_small {
            return Ok(());
        }
        let max = (self.config.calls_window >> 1).max(SMALL_PARTS_BUDGET_MIN);
        match self.floods.small_parts.add(now, SMALL_PART_CHARGE, max, 0) {
            true => Ok(()),
            false => Err(CloseReason::SmallParts),
        }
    }
}
