//! Limits of this side that change while the other side works under those before.
//!
//! A lower limit holds when the other side has answered that it knows: an answer names the limits, but not which
//! of two frames with the same ones. So it is told one thing at a time, and not too often.

use core::time::Duration;

use super::Connection;
use crate::Instant;
use crate::frame::Limits;

/// So far apart are new limits on average: each costs either side a control frame, and applications that change
/// them all the time would otherwise be taken for a flood.
const LIMITS_APART: Duration = Duration::from_millis(50);
/// So many need not be.
const LIMITS_BURST: u32 = 10;

/// What the other side is told of limits.
#[derive(Debug, Default)]
pub(super) struct Announcing {
    /// What it was told, and has not confirmed yet.
    pub(super) told: Option<Limits>,
    /// What it is to be told next.
    pub(super) next: Option<Limits>,
    /// When others would be due if all before had been a while apart.
    due: Instant,
    /// Others are told from then on.
    from: Option<Instant>,
}

impl<T> Connection<T> {
    pub(super) fn change_limits(&mut self, limits: Limits) {
        // Those that no transport has taken yet are as good as never said.
        let may_tell = self.announcing.told.is_none() && self.announcing.from.is_none();
        if may_tell || self.control.limits.is_some() {
            self.control.limits = Some(limits);
            self.announcing.told = Some(limits);
        } else {
            self.announcing.next = Some(limits);
        }
        self.raise_limits(limits);
    }

    /// The limits in force, or those that are to be, to be told now.
    pub(super) fn limits_to_tell(&mut self) -> Limits {
        let in_force = Limits {
            in_flight_max: self.in_flight_max,
            message_bytes_max: self.message_bytes_max as u64,
        };
        let limits = self.announcing.next.take().unwrap_or(in_force);
        self.announcing.told = Some(limits);
        limits
    }

    /// The other side has confirmed LIMITS: nobody is above lower ones any more.
    pub(super) fn limits_confirmed(&mut self, now: Instant, limits: Limits) {
        // An answer that nobody waits for says nothing.
        if self.announcing.told != Some(limits) {
            return;
        }
        self.announcing.told = None;
        // From nothing up to what it is told now.
        (self.in_flight_max, self.message_bytes_max) = (0, 0);
        self.raise_limits(limits);
        self.fence_passed();
        let announcing = &mut self.announcing;
        announcing.due = announcing.due.max(now) + LIMITS_APART;
        if announcing.due > now + LIMITS_APART * LIMITS_BURST && !bug!("limits_at_once") {
            announcing.from = Some(now + LIMITS_APART);
        }
        self.look_after_limits(now);
        if let Some(limits) = self.announcing.told.or(self.announcing.next) {
            self.raise_limits(limits);
        }
    }

    /// Tells the limits that had to wait, if it is time.
    pub(super) fn look_after_limits(&mut self, now: Instant) {
        if let Some(at) = self.announcing.from.filter(|at| *at > now) {
            return self.look_after_by(at);
        }
        self.announcing.from = None;
        if self.announcing.told.is_none()
            && let Some(next) = self.announcing.next.take()
        {
            self.control.limits = Some(next);
            self.announcing.told = Some(next);
        }
    }

    /// What the other side may do from now on, beside what it was allowed before.
    fn raise_limits(&mut self, limits: Limits) {
        let message_bytes_max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
        self.in_flight_max = self.in_flight_max.max(limits.in_flight_max);
        self.message_bytes_max = self.message_bytes_max.max(message_bytes_max);
        self.credit.calls_in.prepare_for(self.message_bytes_max);
        self.credit.replies_in.prepare_for(self.message_bytes_max);
        if self.peer.is_some() {
            self.inbound.set_body_max(self.message_bytes_max);
        }
    }
}
