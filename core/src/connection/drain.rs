//! Going away without losing anything, and the two clocks that lead to it: age and idleness.
//!
//! A number of accepted calls that is said at once refuses what is under way: ordinary calls can be made
//! again elsewhere, but of one-way calls their caller believes that they were sent. So the other side is
//! asked to stop first, and a *fence* is sent behind the question: LIMITS, since its answer comes behind
//! the last byte of every call that was made before it was read. When it is back, nothing can be under
//! way any more.

use core::time::Duration;

use super::state::ConnectionState;
use super::{Connection, Side};
use crate::frame::{GoAway, Kind, Limits};
use crate::{CloseCode, Config, Instant, MessageId};

/// How long the other side has to answer the fence. One that is slower than this, or gone, has the calls
/// refused that are still under way.
const FENCE_TIMEOUT: Duration = Duration::from_secs(1);
/// So far apart are new limits on average: each costs either side a control frame, and applications that change
/// them all the time would otherwise be taken for a flood.
const LIMITS_APART: Duration = Duration::from_millis(50);
/// So many need not be.
const LIMITS_BURST: u32 = 10;
/// How often, in its time, idleness is looked for: closing is late by a quarter at most.
const LOOKS_A_SPAN: u32 = 4;

#[derive(Debug)]
pub(super) struct Retirement {
    fence: Fence,
    /// When the fence is given up, when the connection is too old, and when to look whether it is idle;
    /// [`Instant::FAR`] for what there is not.
    fence_until: Instant,
    age: Instant,
    look: Instant,
    /// How many calls there had been, in either direction, when it was last seen in use.
    calls: u64,
    /// `None` while it is in use.
    quiet_since: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fence {
    /// None is needed.
    Down,
    /// The answer to earlier LIMITS is awaited, from which that to the fence could not be told.
    Wanted,
    Sent,
}

impl Retirement {
    pub(super) fn new(side: Side, config: &Config, now: Instant) -> Retirement {
        Retirement {
            fence: Fence::Down,
            fence_until: Instant::FAR,
            age: Instant::FAR,
            look: config.idle_span(side).map_or(Instant::FAR, |span| now + span / LOOKS_A_SPAN),
            calls: 0,
            quiet_since: Some(now),
        }
    }

    pub(super) fn next(&self) -> Instant {
        self.fence_until.min(self.age).min(self.look)
    }
}

impl<T> Connection<T> {
    /// Goes away in such a way that nothing is lost: asks the other side to stop, takes what it has sent
    /// before it read that, refuses the rest, finishes what runs, and closes. Follow
    /// [`go_away`](Self::go_away) with `refuse` to stop waiting for what is under way.
    pub fn drain(&mut self, now: Instant) {
        if self.state != ConnectionState::Open && self.state != ConnectionState::Draining {
            return;
        }
        if self.goaway_sent.is_some() {
            return;
        }
        self.announce(match bug!("no_fence") {
            true => self.counters.requests_taken,
            false => GoAway::SOON,
        });
        self.retirement.fence = Fence::Wanted;
        self.retirement.fence_until = now + FENCE_TIMEOUT;
        self.look_after_by(self.retirement.fence_until);
        if self.announced.is_none() {
            self.send_fence();
        }
    }

    /// Drains at this time, if it has not before. It is the application that adds jitter.
    pub fn drain_at(&mut self, at: Instant) {
        self.retirement.age = at;
        self.look_after_by(at);
    }

    /// Whether this side has said that it takes no further calls, from which number on.
    #[must_use]
    pub fn refuses_from(&self) -> Option<u64> {
        self.goaway_sent.filter(|accepted| *accepted != GoAway::SOON)
    }

    /// Tells how many calls are taken.
    pub(super) fn announce(&mut self, accepted: u64) {
        if self.goaway_sent.is_some_and(|sent| sent <= accepted) {
            return;
        }
        self.goaway_sent = Some(accepted);
        let off = u64::from(bug!("go_away_off_by_one") && accepted != GoAway::SOON);
        self.send_go_away(accepted + off, CloseCode::NONE);
        self.step(super::ConnectionInput::GoAway);
        if accepted != GoAway::SOON {
            self.retirement.fence = Fence::Down;
            self.retirement.fence_until = Instant::FAR;
        }
    }

    /// The limits in force once more, or those that are to be; behind the GOAWAY, and so not among the control
    /// frames that pass everything.
    fn send_fence(&mut self) {
        let in_force = Limits {
            in_flight_max: self.in_flight_max,
            message_bytes_max: self.message_bytes_max as u64,
        };
        let limits = self.next_limits.take().unwrap_or(in_force);
        self.announced = Some(limits);
        self.retirement.fence = Fence::Sent;
        self.push_control(Kind::Limits, MessageId::CONNECTION, &limits.encode());
    }

    /// The other side has confirmed LIMITS: nobody is above lower ones any more.
    pub(super) fn limits_confirmed(&mut self, now: Instant, limits: Limits) {
        self.announced = None;
        // From nothing up to what it is told now.
        (self.in_flight_max, self.message_bytes_max) = (0, 0);
        self.raise_limits(limits);
        match self.retirement.fence {
            Fence::Down => {}
            Fence::Wanted => self.send_fence(),
            Fence::Sent => self.announce(self.counters.requests_taken),
        }
        self.limits_due = self.limits_due.max(now) + LIMITS_APART;
        if self.limits_due > now + LIMITS_APART * LIMITS_BURST && !bug!("limits_at_once") {
            self.limits_from = Some(now + LIMITS_APART);
        }
        self.look_after_limits(now);
        if let Some(limits) = self.announced.or(self.next_limits) {
            self.raise_limits(limits);
        }
    }

    /// Tells the limits that had to wait, if it is time.
    pub(super) fn look_after_limits(&mut self, now: Instant) {
        if let Some(at) = self.limits_from.filter(|at| *at > now) {
            return self.look_after_by(at);
        }
        self.limits_from = None;
        if self.announced.is_none()
            && let Some(next) = self.next_limits.take()
        {
            self.control.limits = Some(next);
            self.announced = Some(next);
        }
    }

    /// What the other side may do from now on, beside what it was allowed before.
    pub(super) fn raise_limits(&mut self, limits: Limits) {
        let message_bytes_max = usize::try_from(limits.message_bytes_max).unwrap_or(usize::MAX);
        self.in_flight_max = self.in_flight_max.max(limits.in_flight_max);
        self.message_bytes_max = self.message_bytes_max.max(message_bytes_max);
        self.credit.calls_in.expect(self.message_bytes_max);
        self.credit.replies_in.expect(self.message_bytes_max);
        if self.peer.is_some() {
            self.inbound.set_body_max(self.message_bytes_max);
        }
    }

    /// What time has brought.
    pub(super) fn look_after_retirement(&mut self, now: Instant) {
        if self.retirement.fence_until <= now {
            self.announce(self.counters.requests_taken);
        }
        // Until it is open, the handshake has its own time.
        let is_established =
            !matches!(self.state, ConnectionState::Preface | ConnectionState::Hello);
        if self.retirement.age <= now && is_established {
            self.retirement.age = Instant::FAR;
            self.drain(now);
        }
        if self.retirement.look <= now
            && let Some(span) = self.config.idle_span(self.side)
        {
            self.look_for_use(now, span);
        }
        let next = self.retirement.next();
        if next > now {
            self.look_after_by(next);
        }
    }

    fn look_for_use(&mut self, now: Instant, span: Duration) {
        let calls = self.counters.requests_taken.wrapping_add(self.counters.calls_made);
        let is_idle = self.state == ConnectionState::Open && self.is_idle();
        let retirement = &mut self.retirement;
        retirement.look = now + span / LOOKS_A_SPAN;
        if !is_idle || calls != retirement.calls {
            retirement.calls = calls;
            // The last use may have been just now.
            retirement.quiet_since = is_idle.then_some(now);
        } else if now.since(*retirement.quiet_since.get_or_insert(now)) >= span {
            retirement.look = Instant::FAR;
            self.drain(now);
        }
    }
}
