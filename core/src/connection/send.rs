//! What the application's verbs, and the clock, put into the outgoing queue.

use bytes::Bytes;
use ringcall_buf::Writer;

use super::outbound::{Body, BodyHeader, Queue, wire_deadline};
use super::state::{CallInput, CallState, ConnectionState, ServedInput, ServedState};
use super::{
    BodyTarget, Call, Connection, Event, Outcome, ReplyError, SendQueue, call_key, served_key,
};
use crate::frame::{
    ALIGN, Cancel, CancelReason, Credit, CreditPool, CreditUnit, FLAG_ACK, GoAway, Head, Hello,
    Kind, PREFACE, ReplyHeader, RequestHeader, VERSION, request_flags,
};
use crate::payload::Empty;
use crate::{
    CallId, Cause, CloseCode, EncodeError, Instant, MessageId, Payload, RequestId, Status,
};

/// Head and fixed header of a REQUEST, and of a REPLY.
const FRONT_LEN: usize = Head::LEN + RequestHeader::LEN;
const _: () = assert!(RequestHeader::LEN == ReplyHeader::LEN);

/// A call whose body is encoded and which has a slot.
pub(super) struct Begun {
    slot: u32,
    header: RequestHeader,
    deadline: Instant,
    frame: Writer,
}

impl<T> Connection<T> {
    // ---- calls ----

    #[inline]
    pub(super) fn begin_call<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        call: &Call,
        payload: &P,
    ) -> Result<Begun, Cause> {
        let Some(peer) = self.peer.as_ref().filter(|_| self.state == ConnectionState::Open) else {
            return Err(self.why_not_open());
        };
        if call.deadline <= now {
            return Err(Cause::Expired);
        }
        if self.outbound.queued() >= self.config.send_queue_max {
            return Err(Cause::QueueFull);
        }
        let limit = peer.message_bytes_max;
        let slot = self.calls.vacant(peer.in_flight_max).ok_or(Cause::InFlightMax)?;
        let frame = self.encode(call.codec, call.in_signature, payload, limit);
        let frame = frame.map_err(|error| match error {
            EncodeError::Full(_) => Cause::TooLarge { limit },
            _ => Cause::Encode,
        })?;
        let header = RequestHeader {
            method: call.method,
            in_signature: call.in_signature,
            out_signature: call.out_signature,
            deadline_us: wire_deadline(now, call.deadline),
            codec: call.codec,
            compression: 0,
            priority: call.priority,
            attempt: call.attempt,
        };
        Ok(Begun { slot, header, deadline: call.deadline, frame })
    }

    #[inline]
    pub(super) fn enter_call(&mut self, call: &Call, begun: Begun, ticket: T) -> CallId {
        let Begun { slot, header, deadline, frame } = begun;
        let flags = call.flags
            & (request_flags::ONE_WAY | request_flags::RETRIED | request_flags::IDEMPOTENT);
        self.counters.calls_made += 1;
        let body_len = frame.message_len() - FRONT_LEN;
        let funded = body_len == 0
            || (self.outbound.held_calls.is_empty() && self.credit.calls_out.take(body_len));
        if !funded || body_len > self.config.cut_bytes || frame.len() != frame.message_len() {
            let id = self.calls.open(slot, CallInput::Hold, Some(ticket));
            let header = BodyHeader::Request(header, deadline);
            let queue = if funded { Queue::Funded } else { Queue::Calls };
            self.push_body(id, header, flags, frame, queue);
            self.deadlines.arm(call_key(slot), deadline);
            if let Some(entry) = self.calls.at(slot) {
                entry.one_way = flags & request_flags::ONE_WAY != 0;
            }
            return CallId(id);
        }
        let number = self.outbound.next_number();
        let id = if flags & request_flags::ONE_WAY == 0 {
            let id = self.calls.open(slot, CallInput::SendLast, Some(ticket));
            self.deadlines.arm(call_key(slot), deadline);
            if let Some(entry) = self.calls.at(slot) {
                entry.number = number;
            }
            id
        } else {
            // Nothing comes back, so the slot can be used again right behind it.
            let id = self.calls.open(slot, CallInput::SendLast, None);
            self.calls.step(slot, CallInput::End);
            self.one_ways.push_back((number, ticket));
            id
        };
        self.push_frame(Kind::Request, flags, id, &header.encode(), frame);
        CallId(id)
    }

    fn why_not_open(&self) -> Cause {
        match (self.ending, self.state) {
            (Some(ending), _) => Cause::Closed(ending.reason),
            (None, ConnectionState::Draining) => Cause::GoAway,
            (None, _) => Cause::NotReady,
        }
    }

    /// The caller has its ticket back; this ends the call on the wire.
    pub(super) fn give_up(&mut self, id: MessageId, reason: CancelReason) {
        let Some(entry) = self.calls.find(id) else { return };
        let state = entry.state;
        let reply_is_ending =
            entry.arriving.as_ref().is_some_and(|arriving| arriving.is_announced());
        if let Some(arriving) = &mut entry.arriving {
            self.credit.replies_in.release(arriving.ignore());
        }
        self.leave_body(BodyTarget::Reply(id));
        self.deadlines.cancel(call_key(id.slot()));
        match state {
            CallState::Held | CallState::Sending => self.stop_sending(id),
            // No further frame of the reply will come that could free the slot.
            CallState::Receiving if reply_is_ending => {
                self.calls.step(id.slot(), CallInput::ReplyEnds);
                return;
            }
            _ => {}
        }
        self.calls.step(id.slot(), CallInput::GiveUp);
        if matches!(state, CallState::Sending | CallState::Waiting) {
            let cancel = Cancel { reason };
            self.push_control(Kind::Cancel, id, &cancel.encode());
        }
    }

    /// Forgets the part of a request's body that was not sent.
    pub(super) fn stop_sending(&mut self, id: MessageId) {
        let unsent = self.outbound.abandon_request(id);
        self.credit.calls_out.untake(unsent);
        // Those that waited behind it may have their turn.
        self.outbound.fund(&mut self.credit.calls_out, &mut self.credit.replies_out);
    }

    // ---- answers ----

    #[inline]
    pub(super) fn answer<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        let id = request.id;
        if let Some(charged) = request.one_way {
            self.counters.requests_answered += 1;
            self.served.one_ways = self.served.one_ways.saturating_sub(1);
            self.credit.calls_in.release(charged as usize);
            return Ok(());
        }
        let slot = self.served.find(id).ok_or(ReplyError::NotRunning)?;
        if !matches!(slot.state, ServedState::Running | ServedState::Cancelling) {
            return Err(ReplyError::NotRunning);
        }
        let (received, charged) = (slot.received, core::mem::take(&mut slot.charged));
        self.counters.requests_answered += 1;
        self.credit.calls_in.release(charged);
        self.deadlines.cancel(served_key(id.slot()));
        if self.ending.is_some() {
            self.served.step(id.slot(), ServedInput::ReplyLast);
            return Err(ReplyError::NotRunning);
        }
        let mut header = header;
        if now != received {
            header.handler_us = now.micros_since(received);
        }
        let limit = self.peer.as_ref().map_or(0, |peer| peer.message_bytes_max);
        match self.encode(header.codec, header.signature, payload, limit) {
            Ok(frame) => {
                self.push_answer(id, header, frame);
                Ok(())
            }
            Err(error) => {
                let handler_us = header.handler_us;
                let header = ReplyHeader { handler_us, ..ReplyHeader::new(Status::REPLY_FAILED) };
                if let Ok(frame) = self.encode(header.codec, 0, &Empty, 0) {
                    self.push_answer(id, header, frame);
                }
                Err(ReplyError::Encode(error))
            }
        }
    }

    #[inline]
    fn push_answer(&mut self, id: MessageId, header: ReplyHeader, frame: Writer) {
        let body_len = frame.message_len() - FRONT_LEN;
        let funded = body_len == 0
            || (self.outbound.held_replies.is_empty() && self.credit.replies_out.take(body_len));
        if !funded || body_len > self.config.cut_bytes || frame.len() != frame.message_len() {
            self.served.step(id.slot(), ServedInput::ReplyPart);
            let queue = if funded { Queue::Funded } else { Queue::Replies };
            return self.push_body(id, BodyHeader::Reply(header), 0, frame, queue);
        }
        self.served.step(id.slot(), ServedInput::ReplyLast);
        self.push_frame(Kind::Reply, 0, id, &header.encode(), frame);
    }

    /// Core's own answer to a request that the application never sees.
    pub(super) fn refuse(&mut self, now: Instant, request: RequestId, status: Status) {
        self.counters.requests_refused += 1;
        // Nobody can have answered it yet.
        let _ = self.answer(now, request, ReplyHeader::new(status), &Empty);
    }

    /// A terminal answer without a body, whatever the state of the slot.
    pub(super) fn send_status(&mut self, id: MessageId, status: Status) {
        self.push_control(Kind::Reply, id, &ReplyHeader::new(status).encode());
    }

    // ---- frames ----

    /// Room for head and header, and the encoded body behind it.
    #[inline]
    fn encode<P: Payload + ?Sized>(
        &self,
        codec: crate::Codec,
        signature: u64,
        payload: &P,
        limit: u64,
    ) -> Result<Writer, EncodeError> {
        // The padding behind the body is not part of the message.
        let limit = usize::try_from(limit).unwrap_or(usize::MAX).saturating_add(FRONT_LEN + ALIGN);
        let mut frame = self.memory.writer(limit);
        frame.put(&[0; FRONT_LEN])?;
        payload.encode(codec, signature, &mut frame)?;
        if frame.message_len() > limit - ALIGN {
            return Err(EncodeError::Full(ringcall_buf::Full { limit: limit - FRONT_LEN - ALIGN }));
        }
        Ok(frame)
    }

    /// Completes and queues a frame whose body was encoded behind room for its head.
    #[inline]
    fn push_frame(
        &mut self,
        kind: Kind,
        flags: u8,
        id: MessageId,
        header: &[u8; RequestHeader::LEN],
        mut frame: Writer,
    ) {
        let head = Head {
            length: (frame.len() - Head::LEN) as u32,
            kind: kind as u8,
            flags,
            header_len: RequestHeader::LEN as u16,
            id,
        };
        if let Some((place, rest)) = frame.written().split_first_chunk_mut::<{ Head::LEN }>() {
            *place = head.encode();
            if let Some(place) = rest.first_chunk_mut::<{ RequestHeader::LEN }>() {
                *place = *header;
            }
        }
        // The writer's limit leaves room for it.
        let padded = frame.pad_to(ALIGN);
        debug_assert!(padded.is_ok());
        let (chunk, _) = self.memory.finish(frame);
        self.outbound.push(chunk.into(), kind == Kind::Reply);
    }

    fn push_body(
        &mut self,
        id: MessageId,
        header: BodyHeader,
        flags: u8,
        frame: Writer,
        queue: Queue,
    ) {
        let (mut front, rest) = self.memory.finish(frame);
        front.advance(FRONT_LEN);
        self.outbound.push_body(Body::new(id, header, flags, front, rest), queue);
    }

    /// Queues a frame without a body, behind what is queued already.
    fn push_control(&mut self, kind: Kind, id: MessageId, fixed: &[u8]) {
        let chunk = self.control_frame(kind, 0, id, fixed);
        self.outbound.push(chunk.into(), kind == Kind::Reply);
    }

    fn control_frame(
        &self,
        kind: Kind,
        flags: u8,
        id: MessageId,
        fixed: &[u8],
    ) -> ringcall_buf::Chunk {
        let mut bytes = [0; Head::LEN + Hello::LEN];
        let len = Head::LEN + fixed.len();
        let head = Head {
            length: fixed.len() as u32,
            kind: kind as u8,
            flags,
            header_len: fixed.len() as u16,
            id,
        };
        bytes[..Head::LEN].copy_from_slice(&head.encode());
        bytes[Head::LEN..len].copy_from_slice(fixed);
        self.memory.outgoing(&bytes[..len])
    }

    pub(super) fn send_go_away(&mut self, accepted: u64, code: CloseCode) {
        let go_away = GoAway { accepted, code };
        self.push_control(Kind::GoAway, MessageId::CONNECTION, &go_away.encode());
    }

    // ---- transmitting ----

    pub(super) fn transmit(&mut self, now: Instant, queue: &mut impl SendQueue) {
        self.transmit_control(queue);
        let mut all = self.outbound.send_ready(queue);
        if self.limits_ack_is_due() {
            self.push_limits_ack();
            all = self.outbound.send_ready(queue);
        }
        self.one_ways_sent();
        if !all {
            return;
        }
        while let Some(progress) =
            self.outbound.send_part(now, self.config.cut_bytes, &self.memory, queue)
        {
            if progress.is_request {
                self.request_progress(progress.id, progress.number, progress.last);
            } else if progress.last {
                self.served.step(progress.id.slot(), ServedInput::ReplyLast);
            }
        }
        self.one_ways_sent();
    }

    /// Control frames pass everything that waits, so that nobody waits for them.
    fn transmit_control(&mut self, queue: &mut impl SendQueue) {
        let connection = MessageId::CONNECTION;
        if core::mem::take(&mut self.control.hello) {
            queue.push(Bytes::from_static(&PREFACE).into());
            let hello = self.own_hello().encode();
            queue.push(self.control_frame(Kind::Hello, 0, connection, &hello).into());
        }
        if self.peer.is_none() {
            return;
        }
        if self.control.is_waiting() {
            if let Some(pong) = self.control.pong.take() {
                let frame = self.control_frame(Kind::Pong, 0, connection, &pong.encode());
                queue.push(frame.into());
            }
            if let Some(ping) = self.control.ping.take() {
                let frame = self.control_frame(Kind::Ping, 0, connection, &ping.encode());
                queue.push(frame.into());
            }
            if let Some(limits) = self.control.limits.take() {
                let frame = self.control_frame(Kind::Limits, 0, connection, &limits.encode());
                queue.push(frame.into());
            }
        }
        for pool in [CreditPool::Calls, CreditPool::Replies] {
            let window = match pool {
                CreditPool::Calls => &mut self.credit.calls_in,
                _ => &mut self.credit.replies_in,
            };
            if window.is_grant_due() {
                let amount = window.take_grant();
                let credit = Credit { amount, pool, unit: CreditUnit::Bytes };
                let frame = self.control_frame(Kind::Credit, 0, connection, &credit.encode());
                queue.push(frame.into());
            }
        }
    }

    /// Whether all calls that were made under earlier limits have gone, so that new ones can be
    /// confirmed.
    pub(super) fn limits_ack_is_due(&self) -> bool {
        self.control.limits_ack.is_some_and(|(_, mark)| self.outbound.is_past(mark))
    }

    fn push_limits_ack(&mut self) {
        if let Some((limits, _)) = self.control.limits_ack.take() {
            let connection = MessageId::CONNECTION;
            let frame = self.control_frame(Kind::Limits, FLAG_ACK, connection, &limits.encode());
            self.outbound.push(frame.into(), false);
        }
    }

    fn own_hello(&self) -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            archive: self.config.archive,
            in_flight_max: self.in_flight_max,
            features: 0,
            codecs: self.config.codecs,
            message_bytes_max: self.message_bytes_max as u64,
            calls_window: self.config.calls_window,
            replies_window: self.config.replies_window,
            stream_window: self.config.stream_window,
            table_digest: self.config.table_digest,
            instance: self.config.instance,
        }
    }

    fn request_progress(&mut self, id: MessageId, number: Option<u64>, last: bool) {
        let Some(entry) = self.calls.find(id) else { return };
        entry.number = number.unwrap_or(entry.number);
        let number = entry.number;
        self.calls.step(id.slot(), if last { CallInput::SendLast } else { CallInput::SendPart });
        if let Some(entry) = self.calls.find(id).filter(|entry| last && entry.one_way) {
            let ticket = entry.ticket.take();
            self.deadlines.cancel(call_key(id.slot()));
            self.calls.step(id.slot(), CallInput::End);
            self.one_ways.extend(ticket.map(|ticket| (number, ticket)));
        }
    }

    /// One-way calls end when a transport has taken them.
    fn one_ways_sent(&mut self) {
        let taken = self.outbound.taken();
        while self.one_ways.front().is_some_and(|(number, _)| *number <= taken) {
            if let Some((_, ticket)) = self.one_ways.pop_front() {
                self.counters.calls_ended += 1;
                self.events.push_back(Event::Completed(ticket, Outcome::Sent));
            }
        }
    }
}
