//! Going away without losing anything, and the two clocks that lead to it: age and idleness.
//!
//! A number of accepted calls that is said at once refuses what is under way: ordinary calls can be made
//! again elsewhere, but of one-way calls their caller believes that they were sent. So the other side is
//! asked to stop first, and a *fence* is sent behind the question: LIMITS, since its answer comes behind
//! the last byte of every call that was made before it was read. When it is back, nothing can be under
//! way any more.

use core::time::Duration;

use super::ahead::GOING_AWAY;
use super::state::ConnectionState;
use super::{Connection, Side};
use crate::frame::{GoAway, Kind};
use crate::record::{Digest, Input};
use crate::{CloseCode, Config, Instant, MessageId};

/// How long the other side has to answer the fence. One that is slower than this, or gone, has the calls
/// refused that are still under way.
const FENCE_TIMEOUT: Duration = Duration::from_secs(1);
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

    /// Whether no time was set at which to drain.
    pub(super) fn is_new(&self) -> bool {
        self.age == Instant::FAR
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
        recorded!(self, Some(now), Input::Drain, |it| it.drain(now), Digest::nothing);
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
        if self.announcing.told.is_none() {
            self.send_fence();
        }
    }

    /// Drains at this time, if it has not before. It is the application that adds jitter.
    pub fn drain_at(&mut self, at: Instant) {
        recorded!(self, None, Input::DrainAt { at }, |it| it.drain_at(at), Digest::nothing);
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
        self.ahead.set(GOING_AWAY, true);
        let off = u64::from(bug!("go_away_off_by_one") && accepted != GoAway::SOON);
        self.send_go_away(accepted + off, CloseCode::NONE);
        self.step(super::ConnectionInput::GoAway);
        if accepted != GoAway::SOON {
            self.retirement.fence = Fence::Down;
            self.retirement.fence_until = Instant::FAR;
        }
    }

    /// Behind the GOAWAY, and so not among the control frames that pass everything.
    fn send_fence(&mut self) {
        let limits = self.limits_to_tell();
        self.retirement.fence = Fence::Sent;
        self.push_control(Kind::Limits, MessageId::CONNECTION, &limits.encode());
    }

    /// LIMITS were answered.
    pub(super) fn fence_passed(&mut self) {
        match self.retirement.fence {
            Fence::Down => {}
            Fence::Wanted => self.send_fence(),
            Fence::Sent => self.announce(self.counters.requests_taken),
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
