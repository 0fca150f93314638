//! How a connection ends: who is told, in which order, and what the other side hears.

use core::time::Duration;

use super::ahead::PARKED;
use super::state::{self, ConnectionInput, ConnectionState, ServedState};
use super::{BodyTarget, Cancellation, Connection, Control, Event, Outcome, served_key};
use crate::frame::{Cancel, CancelReason, GoAway, Kind};
use crate::{Cause, CloseReason, Failure, Instant, RequestId};

/// How long a connection that is over waits for a transport to take its GOAWAY.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    pub(super) reason: CloseReason,
    pub(super) next_call: u32,
    pub(super) next_served: u32,
    pub(super) told: bool,
}

impl<T> Connection<T> {
    pub(super) fn step(&mut self, input: ConnectionInput) {
        if let Some(next) = self.state.on(input) {
            self.state = next;
            self.is_plain = next == ConnectionState::Open && self.recorder.is_none();
        }
    }

    /// Ends the connection because of this side's decision or the other side's fault.
    pub(super) fn fail(&mut self, now: Instant, reason: CloseReason) {
        if self.ending.is_some() {
            return;
        }
        // What no transport took is not sent any more, so that it can be said of calls.
        if !bug!("sent_after_the_end") {
            self.outbound.clear();
        }
        self.end(now, reason);
        match (self.state, reason) {
            // Someone who does not speak the protocol, or does not read, gets no last word.
            (ConnectionState::Preface, _) | (_, CloseReason::SendStalled) => {
                self.step(ConnectionInput::Gone);
            }
            // It would have to take what is under way first, and hold it until then.
            (_, CloseReason::MemoryShort) if self.watch.unsent > 0 => {
                self.step(ConnectionInput::Gone);
            }
            _ => {
                if reason == CloseReason::Local {
                    self.cancel_sent_calls();
                }
                let taken = self.counters.requests_taken;
                let accepted = self.goaway_sent.map_or(taken, |sent| sent.min(taken));
                self.send_go_away(accepted, reason.code());
                self.step(ConnectionInput::Close);
            }
        }
    }

    /// Nobody will read the answers. The other side could not tell that from a stream that has only ended in
    /// this direction, and would finish the calls for nobody.
    pub(super) fn cancel_sent_calls(&mut self) {
        if self.calls.live() == 0 {
            return;
        }
        let taken = self.outbound.taken();
        for slot in 0..self.calls.slots() {
            let Some(entry) = self.calls.at(slot) else { continue };
            let was_sent = entry.number != 0 && entry.number <= taken;
            // Also if it was cancelled: that may have been among what was not sent.
            if was_sent && let Some(id) = self.calls.id_at(slot) {
                let cancel = Cancel { reason: CancelReason::Dropped };
                self.push_control(Kind::Cancel, id, &cancel.encode());
            }
        }
    }

    /// From now on nothing is received, and calls are handed back.
    pub(super) fn end(&mut self, now: Instant, reason: CloseReason) {
        if self.ending.is_none() {
            self.ending = Some(Ending { reason, next_call: 0, next_served: 0, told: false });
            self.inbound.clear();
            let _waits_no_more = self.ahead.take_stalled();
            self.writes.clear();
            self.parked.clear();
            self.ahead.set(PARKED, false);
            self.body_target = BodyTarget::Nothing;
            self.control = Control { hello: self.control.hello, ..Control::default() };
            // The last word must leave soon, or it is left unsaid.
            self.watch.at = now + LAST_WORD_TIMEOUT;
        }
    }

    /// Hands back one call after the end: first those of this side, then those of the other, then
    /// says that it is over.
    pub(super) fn hand_back(&mut self) -> Option<Event<T>> {
        let mut ending = self.ending?;
        let event = self.hand_back_next(&mut ending);
        self.ending = Some(ending);
        event
    }

    pub(super) fn hand_back_next(&mut self, ending: &mut Ending) -> Option<Event<T>> {
        let cause = match ending.reason {
            CloseReason::GoAway(_) => Cause::GoAway,
            reason => Cause::Closed(reason),
        };
        // As long as the connection goes on, what is in the send order leaves.
        let is_over = self.ending.is_some();
        let taken = if is_over { self.outbound.taken() } else { u64::MAX };
        while ending.next_call < self.calls.slots() {
            let slot = ending.next_call;
            ending.next_call += 1;
            let Some(entry) = self.calls.at(slot) else { continue };
            let was_sent = entry.number != 0 && entry.number <= taken;
            if let Some(ticket) = self.hand_back_call(slot, was_sent)
                && !bug!("lost_completion")
            {
                self.counters.calls_ended += 1;
                return Some(Event::Completed(ticket, Outcome::Failed(ended(was_sent, cause))));
            }
        }
        // Otherwise those that leave have been sent.
        if is_over && let Some((number, ticket)) = self.one_ways.pop_front() {
            self.counters.calls_ended += 1;
            let failure = ended(number <= taken, cause);
            return Some(Event::Completed(ticket, Outcome::Failed(failure)));
        }
        while ending.next_served < self.served.slots() {
            let slot = ending.next_served;
            ending.next_served += 1;
            let Some(served) = self.served.at(slot) else { continue };
            let (id, state) = (served.id, served.state);
            self.deadlines.cancel(served_key(slot));
            match state {
                // Its answer, which can no longer be sent, frees the slot.
                ServedState::Running | ServedState::Streaming => {
                    self.stop_streams(id);
                    self.served.step(slot, state::ServedInput::Cancel);
                    let id = RequestId { id, one_way: None };
                    return Some(Event::Cancelled(id, Cancellation::Closed));
                }
                ServedState::Cancelling => {}
                _ => {
                    let arriving = served.arriving.as_mut().map_or(0, |arriving| arriving.ignore());
                    let charged = arriving + core::mem::take(&mut served.charged);
                    self.credit.calls_in.release(charged);
                    self.stop_streams(id);
                    self.served.step(slot, state::ServedInput::End);
                }
            }
        }
        if !ending.told {
            ending.told = true;
            return Some(Event::Closed(ending.reason));
        }
        None
    }

    /// Ends a call of this side whose answer cannot come any more.
    fn hand_back_call(&mut self, slot: u32, was_sent: bool) -> Option<T> {
        let id = self.calls.id_at(slot)?;
        if !was_sent && !bug!("sent_after_the_end") {
            // Nor is it sent any more: that is what its caller is told.
            self.stop_sending(id);
        }
        self.drop_writes(id);
        let entry = self.calls.at(slot)?;
        let ticket = entry.ticket.take();
        if let Some(arriving) = &mut entry.arriving {
            self.credit.replies_in.release(arriving.ignore());
        }
        self.stop_streams(id);
        self.calls.step(slot, state::CallInput::End);
        ticket
    }

    /// Nothing can be parsed now: is it over?
    pub(super) fn after_input(&mut self, now: Instant) -> Option<Event<T>> {
        if self.input_ended {
            self.after_input_end(now);
        } else if self.state == ConnectionState::Draining && self.is_idle() && !self.is_sending() {
            // Whoever refuses further calls may go when the last one is answered, and whoever was
            // asked to stop may go when its own are.
            let refuses = self.goaway_sent.is_some_and(|accepted| accepted != GoAway::SOON);
            if refuses || self.goaway_received.is_some() {
                self.fail(now, CloseReason::Local);
            }
        }
        self.ahead.pop().or_else(|| self.hand_back())
    }

    /// Nothing more will come. What has arrived whole is answered; what has not never will be.
    pub(super) fn after_input_end(&mut self, now: Instant) {
        if self.ending.is_some() || self.is_paused() || self.ahead.is_stalled() {
            return;
        }
        // A reply that is here whole, and is being written to its place, counts.
        if self.writes_bytes > 0 {
            return;
        }
        if self.inbound.is_inside_frame() && !bug!("e03") {
            return self.fail(now, self.inbound.cut_off());
        }
        // Nobody will answer our calls any more, nor give credit or items to streams. There are no new ones:
        // they would have the slots of calls that still run over there.
        self.step(ConnectionInput::GoAway);
        self.end_own_calls(CloseReason::PeerClosed);
        self.cancel_served_streams();
        let is_waiting = self.served.running() > 0 || !self.outbound.is_only_held_replies();
        if is_waiting || self.is_sending() || self.ahead.has_events() {
            return;
        }
        // What is left waits for a body or for credit that cannot come.
        let is_cut = self.served.arriving().next().is_some();
        self.fail(now, if is_cut { CloseReason::Truncated } else { CloseReason::PeerClosed });
    }

    pub(super) fn end_own_calls(&mut self, reason: CloseReason) {
        if self.calls.live() == 0 {
            return;
        }
        let mut ending = Ending { reason, next_call: 0, next_served: u32::MAX, told: true };
        while let Some(event) = self.hand_back_next(&mut ending) {
            self.ahead.push(event);
        }
    }

    pub(super) fn cancel_served_streams(&mut self) {
        for slot in 0..self.served.slots() {
            let Some(served) = self.served.at(slot) else { continue };
            let id = served.id;
            let is_running = matches!(served.state, ServedState::Running | ServedState::Streaming);
            if served.streams.is_none() {
                continue;
            }
            self.stop_streams(id);
            if is_running && self.served.step(slot, state::ServedInput::Cancel) {
                let id = RequestId { id, one_way: None };
                self.ahead.push(Event::Cancelled(id, Cancellation::Closed));
            }
        }
    }

    /// Whether the transport has something that it has not sent. At the end that has the time of a last word only, and
    /// is cut off then: the last answer, if its reader is slow. Before, `stall_timeout` bounds it.
    fn is_sending(&self) -> bool {
        self.watch.unsent > 0
    }

    pub(super) fn is_idle(&self) -> bool {
        self.calls.live() == 0
            && self.served.live() == 0
            && self.served.one_ways == 0
            && self.one_ways.is_empty()
            && self.outbound.is_empty()
    }
}

pub(super) fn ended(was_sent: bool, cause: Cause) -> Failure {
    if was_sent && !bug!("unknown_told_as_not_sent") {
        Failure::unknown(cause)
    } else {
        Failure::not_sent(cause)
    }
}
