//! What must go on, and by when: deadlines of calls, bodies, handshakes, whatever is sent.

use core::time::Duration;

use super::assembly::Assembly;
use super::ending::ended;
use super::state::{self, CallState, ConnectionInput, ServedState};
use super::{BodyTarget, Cancellation, Connection, Event, Outcome, call_key};
use crate::frame::CancelReason;
use crate::wheel::Wheel;
use crate::{Cause, CloseReason, Instant, MessageId, RequestId};

/// How many bytes a second the other side must read at least while something waits for it.
const SEND_RATE_MIN: u64 = 1024;

/// Beyond so many bytes that wait to be written to objects nothing is received.
const WRITES_BYTES_MAX: usize = 1024 * 1024;

/// Looks after what must make progress.
#[derive(Debug)]
pub(super) struct Watch {
    /// When to look again; [`Instant::FAR`] if nothing needs to.
    pub(super) at: Instant,
    /// When the other side's HELLO must be here; [`Instant::FAR`] once it is.
    pub(super) handshake: Instant,
    /// When bytes last arrived.
    pub(super) received: Instant,
    /// Bytes given to the transport that it has not sent yet.
    pub(super) unsent: usize,
    pub(super) send_progress: Instant,
    /// Since when there is something that it has not sent.
    pub(super) backlog: Instant,
    /// When its pace was last looked at, and how much it had sent by then.
    pub(super) paced: Instant,
    pub(super) paced_sent: u64,
    /// When bytes of bodies that come in parts last arrived, of whichever.
    pub(super) bodies: Instant,
    /// Since when the landing budget has denied something, see `budget`.
    pub(super) denied: Option<Instant>,
    /// How soon to look after something was sent.
    pub(super) every: Duration,
}

impl<T> Connection<T> {
    pub(super) fn expire(&mut self, now: Instant, key: u32) {
        let slot = key / 2;
        if key.is_multiple_of(2) {
            self.calls.set_listed(slot, Instant::FAR);
            let Some(id) = self.calls.id_at(slot) else { return };
            let Some(entry) = self.calls.at(slot) else { return };
            if entry.deadline > now {
                // The call that it was listed for has ended; this one has more time.
                let deadline = entry.deadline;
                return self.list_deadline(slot, deadline);
            }
            let held = entry.state == CallState::Held;
            // One whose answer arrives is over for the other side.
            let is_given_up = entry.state == CallState::Abandoned && entry.arriving.is_none();
            let Some(ticket) = entry.ticket.take() else {
                if is_given_up {
                    self.send_cancel(id, CancelReason::Dropped);
                }
                return;
            };
            self.counters.calls_expired += 1;
            self.counters.calls_ended += 1;
            self.give_up(Some(now), id, CancelReason::Expired);
            let failure = ended(!held, Cause::Expired);
            self.ahead.push(Event::Completed(ticket, Outcome::Failed(failure)));
        } else {
            let Some(served) = self.served.at(slot) else { return };
            let id = RequestId { id: served.id, one_way: None };
            // Whoever was told already is not told again.
            let is_running = served.state == ServedState::Running;
            if is_running && self.served.step(slot, state::ServedInput::Cancel) {
                self.stop_streams(id.id);
                self.ahead.push(Event::Cancelled(id, Cancellation::Expired));
            }
        }
    }

    /// Has the wheel say a call's key when its time is over.
    #[cold]
    pub(super) fn list_deadline(&mut self, slot: u32, deadline: Instant) {
        self.calls.set_listed(slot, deadline);
        self.deadlines.arm(call_key(slot), deadline);
    }

    /// The other side is told later that nobody waits for this call, unless it has answered by then.
    pub(super) fn end_later(&mut self, id: MessageId, at: Instant) {
        let Some(entry) = self.calls.find(id) else { return };
        entry.deadline = at;
        if at < entry.listed {
            self.list_deadline(id.slot(), at);
        }
    }

    /// Looks whether what must make progress does.
    pub(super) fn look_after(&mut self, now: Instant) {
        self.watch.at = Instant::FAR;
        if self.ending.is_some() {
            // Nobody took the last word.
            self.outbound.clear();
            return self.step(ConnectionInput::Gone);
        }
        if self.watch.handshake <= now && !bug!("c10") {
            return self.fail(now, CloseReason::HandshakeTimeout);
        }
        self.look_after_by(self.watch.handshake);
        self.look_after_retirement(now);
        self.look_after_limits(now);
        let stall = self.config.stall_timeout;
        if self.watch.unsent > 0 {
            if self.watch.send_progress + stall <= now {
                return self.fail(now, CloseReason::SendStalled);
            }
            self.look_after_by(self.watch.send_progress + stall);
            if self.is_taken_too_slowly(now) && !bug!("no_trickle_limit") {
                return self.fail(now, CloseReason::SendStalled);
            }
        }
        if self.open_inputs > 0 {
            self.look_after_streams(now);
        }
        if self.ahead.is_stalled() {
            // The landing budget may have room again; `poll_event` tries. Meanwhile it is not the other
            // side that does not go on.
            self.watch.received = now;
            return self.look_after_by(now + Wheel::TICK);
        }
        if self.liveness.is_paused() || self.is_paused() {
            self.give_back_pause(now);
        }
        if self.writes_bytes > 0 {
            // It is the disk that is slow.
            (self.watch.received, self.watch.bodies) = (now, now);
        }
        let mut oldest = Instant::FAR;
        if self.inbound.is_inside_frame() {
            oldest = self.watch.received;
        }
        if self.landing.any() {
            oldest = oldest.min(self.watch.bodies);
        }
        if oldest + stall <= now && !bug!("a04") {
            return self.fail(now, CloseReason::BodyStalled);
        }
        self.look_after_by(oldest + stall);
        if let Err(reason) = self.keep_alive(now) {
            self.fail(now, reason);
        }
    }

    /// A body that comes in parts begins: from now on it must go on, or others must.
    ///
    /// Of each the next part may be far away, since a sender with many lets them take turns, on a link as slow as it is.
    /// Who lets one rest, and feeds another with a few bytes now and then, holds what its window allows, and not a byte
    /// more; and when others wait for that memory, each body has a time for all of it, see [`holds_back`].
    ///
    /// [`holds_back`]: Connection::holds_back
    pub(super) fn body_begins(&mut self, now: Instant) {
        self.watch.bodies = now;
        self.look_after_by(now + self.config.stall_timeout);
    }

    /// Whether the transport could send less than a trickle for a whole `stall_timeout`.
    pub(super) fn is_taken_too_slowly(&mut self, now: Instant) -> bool {
        let (stall, sent) = (self.config.stall_timeout, self.counters.bytes_sent);
        let watch = &mut self.watch;
        let is_due = watch.paced + stall <= now;
        if is_due && watch.backlog <= watch.paced {
            let least = SEND_RATE_MIN * stall.as_millis() as u64 / 1000;
            if sent - watch.paced_sent < least {
                return true;
            }
        }
        if is_due || watch.backlog > watch.paced {
            (watch.paced, watch.paced_sent) = (now, sent);
        }
        self.look_after_by(self.watch.paced + stall);
        false
    }

    #[inline]
    pub(super) fn look_after_by(&mut self, at: Instant) {
        self.watch.at = self.watch.at.min(at);
    }

    /// Whether the other side must read replies before its calls are run.
    #[inline]
    pub(super) fn is_choked(&self) -> bool {
        self.outbound.queued_replies() >= self.bounds.queue_soft
    }

    /// Whether nothing is parsed for now: so many one-way calls are in progress, of which nothing else
    /// limits the number; or so many answers wait that the other side does not read. Whoever keeps
    /// the protocol does not cause the former for long, and the latter not at all.
    #[inline]
    pub(super) fn is_paused(&self) -> bool {
        self.served.one_ways >= self.in_flight_max
            || (self.outbound.ready_bytes() >= self.bounds.queue_max && self.is_flooded())
            || self.writes_bytes >= WRITES_BYTES_MAX
    }

    /// Whether the other side makes calls in slots whose answers it has not read. If it was not read whenever the
    /// queue is full, for own calls or for answers that may wait, then two sides with full queues would wait for
    /// each other.
    #[cold]
    fn is_flooded(&self) -> bool {
        // A call with a stream has two: where its items begin, and its end.
        let honest = self.served.slots().saturating_mul(2);
        self.outbound.whole_replies() >= self.bounds.queue_max && self.outbound.prompts() > honest
    }

    /// Whether the body that is arriving has memory that the transport could receive into.
    pub(super) fn can_land(&self) -> bool {
        let assembly = match self.body_target {
            BodyTarget::Nothing => None,
            BodyTarget::Request(id) => self.served.arriving_at(id),
            BodyTarget::Reply(id) => self.calls.arriving_at(id),
            BodyTarget::Item(id) if id.side() == self.side => self.calls.item_at(id),
            BodyTarget::Item(id) => self.served.item_at(id),
        };
        assembly.is_some_and(Assembly::can_lend)
    }
}
