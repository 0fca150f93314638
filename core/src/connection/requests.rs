//! Requests of the other side: from a frame to [`Event::Request`], or to a refusal.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::boxed::Box;
use core::time::Duration;

use ringcall_buf::Chunk;

use super::ahead::PARKED;
use super::assembly::{Arriving, Assembly};
use super::receive::{Announced, Received, awaits_confirmation, plain_header, split_header};
use super::shortage::CALL_BYTES;
use super::state::{InputState, ServedInput, ServedState};
use super::stream::{Input, Late};
use super::{BodyTarget, Cancellation, Connection, Event, Request, served_key};
use crate::frame::{Cancel, FLAG_MORE, Head, RequestHeader, request_flags};
use crate::{Attached, CloseReason, Instant, MessageId, RequestId, Status};

impl<T> Connection<T> {
    /// A REQUEST frame that is here whole. Its body may continue in DATA frames.
    #[inline]
    pub(super) fn request(&mut self, now: Instant, head: Head, mut frame: Chunk) -> Received<T> {
        let header_len = usize::from(head.header_len);
        if head.flags & FLAG_MORE != 0 {
            return self.first_part(now, head, frame, Self::large_request);
        }
        let (header, extensions) = split_header(&head, &frame, RequestHeader::parse)?;
        let announced = Announced::parse(extensions, self.config.understood)?;
        let body_len = announced.total(&head, self.message_bytes_max)?;
        self.check_request(&head)?;
        self.credit.calls_in.charge(body_len)?;
        if self.count_request() {
            self.credit.calls_in.release(body_len);
            self.refused_items(&head);
            return Ok(None);
        }
        let refused = self.refusal(&header, head.flags, &announced, CALL_BYTES);
        if refused == Some(Status::OVERLOADED) && self.refused_unseen(&head, body_len) {
            return Ok(None);
        }
        let mut request = Request::new(now, &head, &header);
        request.attached = announced.attached();
        if announced.has_others {
            request.extensions = self.keep(frame.slice(RequestHeader::LEN..header_len));
        }
        if head.flags & request_flags::ONE_WAY != 0 {
            request.id.one_way = Some(self.served.one_way(body_len));
        } else {
            let slot = self.served.enter(head.id, &mut self.share);
            slot.charged = body_len;
            slot.received = now;
            slot.deadline = request.deadline;
            self.served.step(head.id.slot(), ServedInput::RequestWhole);
            if head.flags & STREAM_FLAGS != 0 {
                match refused {
                    None => {
                        let streams = self.served_streams(now, head.flags);
                        self.served.attach(head.id, streams);
                    }
                    Some(_) => self.refused_items(&head),
                }
            }
        }
        if let Some(status) = refused {
            self.count_refused(status);
            self.refuse(now, request.id, status);
            return Ok(None);
        }
        frame.advance(header_len);
        request.body = self.settle(frame);
        Ok(self.deliver(request))
    }

    /// Hands a request to the application, now or when enough replies have been sent. A one-way call
    /// causes no reply, so it never waits for that; nor does one with streams, whose items come next.
    #[inline]
    fn deliver(&mut self, request: Request) -> Option<Event<T>> {
        let may_go = !self.is_choked() && self.parked.is_empty();
        if may_go || request.id.is_one_way() || request.flags & STREAM_FLAGS != 0 {
            return Some(Event::Request(request));
        }
        self.served.step(request.id.id.slot(), ServedInput::Park);
        self.parked.push_back(request);
        self.note_parked();
        None
    }

    /// Frames behind requests that are parked are not ordinary.
    fn note_parked(&mut self) {
        self.ahead.set(PARKED, !self.parked.is_empty());
    }

    /// The next request that was parked, when it may go on.
    pub(super) fn unpark(&mut self, now: Instant) -> Option<Event<T>> {
        while !self.is_choked() {
            let request = self.parked.pop_front()?;
            self.note_parked();
            self.served.step(request.id.id.slot(), ServedInput::Unpark);
            if request.deadline > now || bug!("expired_in_queue_runs") {
                return Some(Event::Request(request));
            }
            self.count_expired(true);
            self.refuse(now, request.id, Status::EXPIRED);
        }
        None
    }

    /// Begins a request whose body arrives in parts; `false`, and nothing has happened, if there is no
    /// memory for it now.
    pub(super) fn large_request(
        &mut self,
        now: Instant,
        head: &Head,
        header_bytes: &Chunk,
    ) -> Result<bool, CloseReason> {
        self.body_target = BodyTarget::Nothing;
        let (header, extensions) = split_header(head, header_bytes, RequestHeader::parse)?;
        let announced = Announced::parse(extensions, self.config.understood)?;
        let total = announced.total(head, self.message_bytes_max)?;
        let needed = CALL_BYTES.saturating_add(total);
        let mut refused = self.refusal(&header, head.flags, &announced, needed);
        self.check_request(head)?;
        self.credit.calls_in.check(total)?;
        let mut assembly = None;
        if refused.is_none() && !self.would_come_after_goaway() {
            assembly = self.assemble(now, total);
            if assembly.is_none() {
                if !self.has_waited(now) {
                    return Ok(false);
                }
                refused = Some(Status::OVERLOADED);
            }
        }
        self.credit.calls_in.charge(total)?;
        let after_goaway = self.count_request();
        let mut request = Request::new(now, head, &header);
        if announced.has_others {
            let extensions = header_bytes.slice(RequestHeader::LEN..header_bytes.len());
            request.extensions = self.keep(extensions);
        }
        let body_len = head.body_len().unwrap_or(0);
        let is_ignored = assembly.is_none();
        let mut arriving = Arriving::new(request, assembly, total, body_len, &self.memory)
            .with(awaits_confirmation(head), announced.attached());
        if is_ignored {
            self.credit.calls_in.release(arriving.ignore());
        }
        let is_announced = arriving.is_announced();
        let deadline = arriving.header.deadline;
        let streams = (!is_ignored).then(|| self.served_streams(now, head.flags)).flatten();
        let slot = self.served.enter(head.id, &mut self.share);
        slot.charged = 0;
        slot.received = now;
        slot.deadline = deadline;
        slot.arriving = Some(Box::new(arriving));
        slot.set_streams(streams);
        self.served.step(head.id.slot(), ServedInput::RequestBegins);
        if !is_ignored {
            self.body_target = BodyTarget::Request(head.id);
            self.body_begins(now);
            return Ok(true);
        }
        self.refused_items(head);
        self.served.step(head.id.slot(), ServedInput::RefuseEarly);
        if is_announced {
            self.served.step(head.id.slot(), ServedInput::BodyEnds);
        }
        refused.into_iter().for_each(|status| self.count_refused(status));
        let is_one_way = head.flags & request_flags::ONE_WAY != 0;
        // One-way calls, and what came after a GOAWAY, are dropped without a word.
        if let Some(status) = refused.filter(|_| !is_one_way && !after_goaway) {
            self.counters.requests_refused = self.counters.requests_refused.wrapping_add(1);
            self.counters.requests_answered = self.counters.requests_answered.wrapping_add(1);
            self.send_status(head.id, status);
        }
        Ok(true)
    }

    /// The last byte of a body that came in parts is here.
    pub(super) fn request_done(&mut self, now: Instant, id: MessageId) -> Option<Event<T>> {
        let slot = self.served.find(id)?;
        let arriving = *slot.arriving.take()?;
        slot.received = now;
        slot.charged = arriving.charged;
        if let Some(streams) = &mut slot.streams {
            streams.touched = now;
        }
        self.served.step(id.slot(), ServedInput::BodyEnds);
        let mut request = arriving.header;
        request.received = now;
        request.attached = arriving.attached;
        request.body = arriving.assembly.map(Assembly::finish).unwrap_or_default();
        if request.flags & request_flags::ONE_WAY != 0 {
            // A one-way call holds its slot only until it is complete.
            self.served.step(id.slot(), ServedInput::ReplyLast);
            request.id.one_way = Some(self.served.one_way(arriving.charged));
        }
        if request.deadline <= now && !bug!("expired_on_arrival_runs") {
            self.count_expired(true);
            self.refuse(now, request.id, Status::EXPIRED);
            return None;
        }
        self.deliver(request)
    }

    pub(super) fn cancelled(&mut self, now: Instant, head: &Head, frame: &Chunk) -> Received<T> {
        let cancel = plain_header(head, frame, Cancel::parse)?;
        let id = head.id;
        if id.side() == self.side {
            return Err(CloseReason::BadId);
        }
        let times = self.served.find(id).map(|slot| (slot.received, slot.deadline));
        self.count_cancel(now, cancel.reason, times)?;
        // One that was answered already is no fault: the answer and the CANCEL crossed.
        let Some(slot) = self.served.find(id) else { return Ok(None) };
        let before = slot.state;
        let owed = slot.arriving.as_ref().is_some_and(|arriving| {
            // A one-way call that is given up in the middle is the only kind that gets a word.
            before != ServedState::Discarding || arriving.header.flags & request_flags::ONE_WAY != 0
        });
        let held = slot.arriving.as_mut().map_or(0, |arriving| arriving.ignore());
        let charged = match before {
            ServedState::Receiving | ServedState::Parked => core::mem::take(&mut slot.charged),
            _ => 0,
        };
        if !bug!("credit_leak_cancel") {
            self.credit.calls_in.release(held.saturating_add(charged));
        }
        self.counters.requests_cancelled = self.counters.requests_cancelled.wrapping_add(1);
        let kind = self.terminal_kind(id);
        let had_last = self.output(id).is_some_and(|output| output.last.is_some());
        // Before its slot may be free.
        self.stop_streams(id);
        self.served.step(id.slot(), ServedInput::Cancel);
        match before {
            ServedState::Running | ServedState::Streaming => {
                self.deadlines.cancel(served_key(id.slot()));
                let id = RequestId { id, one_way: None };
                return Ok(Some(Event::Cancelled(id, Cancellation::Caller(cancel.reason))));
            }
            // The application never saw it.
            ServedState::Receiving | ServedState::Discarding if owed => {
                self.leave_body(BodyTarget::Request(id));
                self.counters.requests_answered = self.counters.requests_answered.wrapping_add(1);
                self.send_status(id, Status::CANCELLED);
            }
            ServedState::Parked => {
                self.parked.retain(|parked| parked.id.id != id);
                self.note_parked();
                self.counters.requests_answered = self.counters.requests_answered.wrapping_add(1);
                self.send_status(id, Status::CANCELLED);
            }
            // Nobody wants a reply that still waits for credit: an empty one does as the last word.
            ServedState::Replying if had_last || self.outbound.unhold_reply(id) => {
                self.fund();
                self.served.step(id.slot(), ServedInput::ReplyLast);
                self.send_terminal(kind, id, Status::CANCELLED_RUNNING);
            }
            _ => {}
        }
        Ok(None)
    }

    /// Checks that the other side may begin a call with this id.
    #[inline]
    fn check_request(&self, head: &Head) -> Result<(), CloseReason> {
        if head.id.side() == self.side {
            return Err(CloseReason::BadId);
        }
        self.served.check(head.id, self.in_flight_max)
    }

    /// Counts a REQUEST frame. Says whether it came after a GOAWAY that did not count it: its caller
    /// knows from the GOAWAY that it is not run.
    #[inline]
    fn count_request(&mut self) -> bool {
        let after = self.would_come_after_goaway();
        self.counters.requests_taken = self.counters.requests_taken.wrapping_add(1);
        if after {
            self.counters.requests_after_goaway =
                self.counters.requests_after_goaway.wrapping_add(1);
        }
        after
    }

    #[inline]
    fn would_come_after_goaway(&self) -> bool {
        self.goaway_sent.is_some_and(|accepted| self.counters.requests_taken >= accepted)
            && !bug!("runs_above_go_away")
    }

    /// A request is refused whose caller may send items before it knows.
    fn refused_items(&mut self, head: &Head) {
        if head.flags & request_flags::ITEMS_IN != 0 && self.has_streams() {
            let input = Input::new(InputState::Open, self.config.stream_window);
            let bytes = input.late_bytes(self.message_bytes_max);
            self.served.expect_late(Late { id: head.id, bytes }, &mut self.share);
        }
    }

    /// Refuses a call that there is no memory for without a slot of its own, if the table would have to grow for
    /// one. Items that may come of it need the slot.
    #[cold]
    fn refused_unseen(&mut self, head: &Head, body_len: usize) -> bool {
        let needs_slot = head.flags & (request_flags::ITEMS_IN | request_flags::ONE_WAY) != 0;
        if needs_slot || self.served.has_slot(head.id) {
            return false;
        }
        self.credit.calls_in.release(body_len);
        self.count_refused(Status::OVERLOADED);
        self.counters.requests_refused = self.counters.requests_refused.wrapping_add(1);
        self.counters.requests_answered = self.counters.requests_answered.wrapping_add(1);
        self.send_status(head.id, Status::OVERLOADED);
        true
    }

    fn count_refused(&mut self, status: Status) {
        self.count_expired(status == Status::EXPIRED);
        let count = &mut self.counters.requests_short_of_memory;
        *count = count.wrapping_add(u64::from(status == Status::OVERLOADED));
    }

    fn count_expired(&mut self, expired: bool) {
        self.counters.requests_expired =
            self.counters.requests_expired.wrapping_add(u64::from(expired));
    }
}

impl Request {
    #[inline]
    fn new(now: Instant, head: &Head, header: &RequestHeader) -> Request {
        Request {
            id: RequestId { id: head.id, one_way: None },
            method: header.method,
            in_signature: header.in_signature,
            out_signature: header.out_signature,
            deadline: match header.deadline_us {
                u32::MAX => Instant::FAR,
                left => now + Duration::from_micros(u64::from(left)),
            },
            received: now,
            codec: header.codec,
            compression: header.compression,
            priority: header.priority,
            attempt: header.attempt,
            flags: head.flags,
            body: Chunk::empty(),
            attached: Attached::Nothing,
            extensions: Chunk::empty(),
        }
    }
}

/// Flags of a call with streams.
pub(super) const STREAM_FLAGS: u8 = request_flags::ITEMS_IN | request_flags::ITEMS_OUT;

impl<T> Connection<T> {
    /// Whether core itself refuses a request, which would hold so many bytes.
    #[inline]
    fn refusal(
        &self,
        header: &RequestHeader,
        flags: u8,
        announced: &Announced,
        needed: usize,
    ) -> Option<Status> {
        let has_streams = flags & STREAM_FLAGS != 0;
        if announced.unknown_critical.is_some()
            || !self.config.takes_compression(header.compression)
            || (has_streams && !self.has_streams())
        {
            return Some(Status::UNSUPPORTED);
        }
        if let Some(status) = announced.refused_metadata(self.config.metadata) {
            return Some(status);
        }
        if has_streams && flags & request_flags::ONE_WAY != 0 {
            return Some(Status::BAD_REQUEST);
        }
        match header.deadline_us {
            0 if bug!("d01") => None,
            0 => Some(Status::EXPIRED),
            // Only a stream may go without a deadline.
            u32::MAX if !has_streams => Some(Status::BAD_REQUEST),
            _ if self.lacks_room(needed) => Some(Status::OVERLOADED),
            _ => None,
        }
    }
}
