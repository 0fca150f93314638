//! What the application's verbs, and the clock, put into the outgoing queue.

use alloc::boxed::Box;

use bytes::Bytes;
use ringcall_buf::{Arena, Chunk, External, Full, Run, Writer};

use super::calls;
use super::credit::Window;
use super::floods::CANCEL_LATER;
use super::outbound::{Body, BodyHeader, Frame, Part, Parts, Progress, Queue, wire_deadline};
use super::requests::STREAM_FLAGS;
use super::state::{CallInput, CallState, ConnectionState, ServedInput};
use super::stream::Input;
use super::{BodyTarget, Call, Connection, Event, Outcome, ReplyError, SendQueue};
use crate::frame::{
    ALIGN, Cancel, CancelReason, Credit, CreditPool, CreditUnit, FLAG_ACK, GoAway, Head, Hello,
    Kind, Limits, PREFACE, ReplyHeader, RequestHeader, VERSION, request_flags,
};
use crate::ids::OneWay;
use crate::payload::Empty;
use crate::{
    CallId, Cause, CloseCode, CloseReason, Codec, EncodeError, Failure, Instant, MessageId,
    Payload, Refused, RequestId, Status,
};

/// Flags that a call may have.
const CALL_FLAGS: u8 =
    request_flags::ONE_WAY | STREAM_FLAGS | request_flags::RETRIED | request_flags::IDEMPOTENT;

/// Head and fixed header of a REQUEST, and of a REPLY.
pub(super) const FRONT_LEN: usize = Head::LEN + RequestHeader::LEN;
const _: () = assert!(RequestHeader::LEN == ReplyHeader::LEN);

impl<T> Connection<T> {
    // ---- calls ----

    /// Makes a call on a connection that is open, or gives its ticket back and says why.
    #[inline]
    pub(super) fn make_call<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        call: &Call,
        payload: &P,
        ticket: T,
    ) -> Result<CallId, Refused<T>> {
        debug_assert_eq!(self.state, ConnectionState::Open);
        if call.deadline <= now {
            self.counters.calls_expired += 1;
            return refused(ticket, Cause::Expired);
        }
        if self.outbound.queued() >= self.bounds.queue_max && !bug!("no_queue_limit") {
            return refused(ticket, Cause::QueueFull);
        }
        let limit = self.bounds.their_message_bytes_max;
        let Some(slot) = self.calls.vacant(self.bounds.their_in_flight_max) else {
            return refused(ticket, Cause::InFlightMax);
        };
        let mut arena = self.memory.take_arena();
        let extensions = payload.extensions();
        let most = Most { body: limit, extensions: self.config.extension_bytes_max };
        let Call { codec, in_signature, .. } = *call;
        let fixed = || call.header(wire_deadline(now, call.deadline, false)).encode();
        let flags = call.flags & CALL_FLAGS;
        let front = Front { kind: Kind::Request, flags, fixed, extensions };
        let run = self.outbound.run();
        let encoded = encode(&mut arena, run, front, codec, in_signature, payload, most);
        let front_len = match encoded {
            Ok(front_len) => front_len,
            Err(error) => {
                self.memory.put_arena(arena);
                return refused(ticket, error.into());
            }
        };
        self.counters.calls_made += 1;
        let frame = arena.frame();
        let body_len = frame.len() - front_len;
        let is_ordinary = flags & (request_flags::ONE_WAY | STREAM_FLAGS) == 0
            && frame.is_whole()
            && body_len <= self.bounds.cut_bytes
            && self.outbound.held_calls.is_empty();
        if !is_ordinary || !self.credit.calls_out.take(body_len) {
            let body_len = frame.message_len() - front_len;
            let parts = Parts::take(&mut arena, FRONT_LEN, extensions.len());
            self.memory.put_arena(arena);
            let encoded = EncodedCall { slot, call: *call, parts };
            let id = self.make_unusual_call(now, encoded, body_len, ticket)?;
            if let Some(range) = payload.landing() {
                self.land_reply(id, range);
            }
            return Ok(id);
        }
        let (number, deadline) = (self.outbound.next_number(), call.deadline);
        let (id, must_list) =
            self.calls.open(slot, CallInput::SendLast, Some(ticket), number, deadline);
        if must_list && !bug!("deadline_not_armed") {
            self.list_deadline(slot, deadline);
        }
        self.outbound.push_begun(&mut arena, Frame::Request, complete(id));
        self.memory.put_arena(arena);
        if let Some(range) = payload.landing() {
            self.land_reply(CallId(id), range);
        }
        Ok(CallId(id))
    }

    /// The attachment of a call's reply goes elsewhere.
    #[cold]
    fn land_reply(&mut self, call: CallId, range: External) {
        if let Some(entry) = self.calls.find(call.0) {
            entry.landing = Some(Box::new(range));
            entry.more |= calls::LANDING;
        }
    }

    /// A call that is one-way, large, has streams, or waits for credit.
    #[cold]
    fn make_unusual_call(
        &mut self,
        now: Instant,
        encoded: EncodedCall,
        body_len: usize,
        ticket: T,
    ) -> Result<CallId, Refused<T>> {
        let EncodedCall { slot, call, parts } = encoded;
        let (flags, deadline) = (call.flags & CALL_FLAGS, call.deadline);
        let is_one_way = flags & request_flags::ONE_WAY != 0;
        let has_streams = flags & STREAM_FLAGS != 0;
        if has_streams && let Some(cause) = self.why_no_streams(is_one_way) {
            self.counters.calls_made -= 1;
            return refused(ticket, cause);
        }
        let header = call.header(wire_deadline(now, deadline, has_streams));
        let may_open = !has_streams || self.may_open(body_len);
        let is_funded = body_len == 0
            || (may_open
                && self.outbound.held_calls.is_empty()
                && self.credit.calls_out.take(body_len));
        let is_small = is_funded && body_len <= self.bounds.cut_bytes && parts.is_whole();
        if is_small && is_one_way {
            return Ok(self.send_one_way(slot, flags, &header, &parts, ticket));
        }
        let (input, number) = match is_small {
            true => (CallInput::SendLast, self.outbound.next_number()),
            false => (CallInput::Hold, 0),
        };
        let (id, must_list) = self.calls.open(slot, input, Some(ticket), number, deadline);
        if must_list {
            self.list_deadline(slot, deadline);
        }
        if is_one_way && let Some(entry) = self.calls.at(slot) {
            entry.more |= calls::ONE_WAY;
        }
        if has_streams {
            let argument = if may_open { body_len } else { 0 };
            self.open_call_streams(now, id, flags, is_small, argument);
        }
        if is_small {
            self.push_small_request(id, flags, &header, &parts);
            return Ok(CallId(id));
        }
        let body = Body::new(id, BodyHeader::Request(header, deadline), flags, parts);
        let queue = match (is_funded, may_open) {
            (true, _) => Queue::Funded,
            (false, true) => Queue::Calls,
            (false, false) => Queue::Openings,
        };
        self.outbound.push_body(body, queue);
        Ok(CallId(id))
    }

    /// Sends a one-way call whole. Nothing comes back, so the slot can be used again right behind it.
    fn send_one_way(
        &mut self,
        slot: u32,
        flags: u8,
        header: &RequestHeader,
        parts: &Parts,
        ticket: T,
    ) -> CallId {
        let number = self.outbound.next_number();
        let (id, _) = self.calls.open(slot, CallInput::SendLast, None, number, Instant::FAR);
        self.calls.step(slot, CallInput::End);
        self.one_ways.push_back((number, ticket));
        self.push_small_request(id, flags, header, parts);
        CallId(id)
    }

    fn push_small_request(
        &mut self,
        id: MessageId,
        flags: u8,
        header: &RequestHeader,
        parts: &Parts,
    ) {
        let (header, Parts { extensions, front, .. }) = (header.encode(), parts);
        let frame = self.body_frame(Kind::Request, flags, id, &header, extensions, front);
        self.outbound.push(frame, Frame::Request);
    }

    fn why_no_streams(&self, is_one_way: bool) -> Option<Cause> {
        if !self.has_streams() {
            return Some(Cause::Status(Status::UNSUPPORTED));
        }
        is_one_way.then_some(Cause::Status(Status::BAD_REQUEST))
    }

    #[cold]
    pub(super) fn why_not_open(&self) -> Cause {
        match (self.ending, self.state) {
            (Some(ending), _) => Cause::Closed(ending.reason),
            (None, ConnectionState::Draining) if self.input_ended => {
                Cause::Closed(CloseReason::PeerClosed)
            }
            (None, ConnectionState::Draining) => Cause::GoAway,
            (None, _) => Cause::NotReady,
        }
    }

    /// The caller has its ticket back; this ends the call on the wire. Without `now` that cannot wait.
    pub(super) fn give_up(&mut self, now: Option<Instant>, id: MessageId, reason: CancelReason) {
        let Some(entry) = self.calls.find(id) else { return };
        let (state, has_streams) = (entry.state, entry.streams.is_some());
        let reply_is_ending =
            entry.arriving.as_ref().is_some_and(|arriving| arriving.is_announced());
        if let Some(arriving) = &mut entry.arriving {
            self.credit.replies_in.release(arriving.ignore());
        }
        self.drop_writes(id);
        self.leave_body(BodyTarget::Reply(id));
        self.stop_streams(id);
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
        if !matches!(state, CallState::Sending | CallState::Waiting | CallState::Streaming) {
            return;
        }
        // The other side waits for the rest of a body or of items, if it is not told.
        let now = now.filter(|_| state == CallState::Waiting && !has_streams);
        let must_wait = self.cancel_must_wait(now.is_some());
        match now.filter(|_| must_wait) {
            Some(now) => self.end_later(id, now + CANCEL_LATER),
            None => self.send_cancel(id, reason),
        }
    }

    pub(super) fn send_cancel(&mut self, id: MessageId, reason: CancelReason) {
        let cancel = Cancel { reason };
        self.push_control(Kind::Cancel, id, &cancel.encode());
        if let Some(entry) = self.calls.find(id) {
            entry.deadline = Instant::FAR;
        }
    }

    /// Forgets the part of a request's body that was not sent.
    pub(super) fn stop_sending(&mut self, id: MessageId) {
        let unsent = self.outbound.abandon_request(id);
        if !bug!("credit_leak_unsent") {
            self.credit.calls_out.untake(unsent);
        }
        // Those that waited behind it may have their turn.
        self.fund();
        self.wake_crowded();
    }

    /// Moves on what waits: for credit, or for other calls with streams to end.
    pub(super) fn fund(&mut self) {
        self.open_held();
        self.outbound.fund(&mut self.credit.calls_out, &mut self.credit.replies_out);
    }

    // ---- answers ----

    /// `PLAIN`: the connection is [plain](Self::is_plain), so that it has not ended.
    #[inline]
    pub(super) fn answer<P: Payload + ?Sized, const PLAIN: bool>(
        &mut self,
        now: Instant,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        let id = request.id;
        if let Some(OneWay { charged, .. }) = request.one_way {
            self.counters.requests_answered += 1;
            self.served.one_ways = self.served.one_ways.saturating_sub(1);
            self.credit.calls_in.release_at_most(charged as usize);
            return Ok(());
        }
        let slot = self.served.with_application(id).ok_or(ReplyError::NotRunning)?;
        let (received, charged) = (slot.received, core::mem::take(&mut slot.charged));
        self.counters.requests_answered += 1;
        self.credit.calls_in.release(charged);
        let has_streams = slot.has_more && slot.unwatch(&mut self.deadlines);
        if has_streams && (PLAIN || self.ending.is_none()) {
            let header = timed(header, received, now);
            return self.answer_with_streams(id, header.words(), payload);
        }
        if !PLAIN && self.ending.is_some() {
            self.stop_streams(id);
            self.served.step(id.slot(), ServedInput::ReplyLast);
            return Err(ReplyError::NotRunning);
        }
        let header = timed(header, received, now);
        let limit = self.bounds.their_message_bytes_max;
        let mut arena = self.memory.take_arena();
        let ReplyHeader { codec, signature, .. } = header;
        let extensions = payload.extensions();
        let most = Most { body: limit, extensions: self.config.extension_bytes_max };
        let fixed = || header.encode();
        let front = Front { kind: Kind::Reply, flags: 0, fixed, extensions };
        let encoded =
            encode(&mut arena, self.outbound.run(), front, codec, signature, payload, most);
        let front_len = match encoded {
            Ok(front_len) => front_len,
            Err(error) => {
                self.memory.put_arena(arena);
                self.served.step(id.slot(), ServedInput::ReplyLast);
                self.send_status(id, Status::REPLY_FAILED);
                return Err(ReplyError::Encode(error));
            }
        };
        let frame = arena.frame();
        let body_len = frame.len() - front_len;
        let is_ordinary = frame.is_whole()
            && body_len <= self.bounds.cut_bytes
            && (self.outbound.held_replies.is_empty() || passes_held(body_len));
        if !is_ordinary || !self.credit.replies_out.take(body_len) {
            let parts = Parts::take(&mut arena, FRONT_LEN, extensions.len());
            self.memory.put_arena(arena);
            self.answer_with_body(id, header.words(), parts);
            return Ok(());
        }
        slot.end_plain();
        self.served.ended_plain();
        self.outbound.push_begun(&mut arena, Frame::Reply, complete(id));
        self.memory.put_arena(arena);
        Ok(())
    }

    /// An answer that is large, or waits for credit.
    // The header as numbers, so that it need not lie in memory for what hardly any answer needs.
    #[cold]
    fn answer_with_body(&mut self, id: MessageId, header: [u64; 4], parts: Parts) {
        let header = ReplyHeader::from_words(header);
        self.served.step(id.slot(), ServedInput::ReplyPart);
        let body = Body::new(id, BodyHeader::Reply(header), 0, parts).counted(&self.memory);
        let is_funded =
            self.outbound.held_replies.is_empty() && self.credit.replies_out.take(body.total);
        let queue = if is_funded { Queue::Funded } else { Queue::Replies };
        self.outbound.push_body(body, queue);
    }

    /// Core's own answer to a request that the application never sees.
    pub(super) fn refuse(&mut self, now: Instant, request: RequestId, status: Status) {
        self.counters.requests_refused += 1;
        // Nobody can have answered it yet.
        let _ = self.answer::<_, false>(now, request, ReplyHeader::new(status), &Empty);
        if !request.is_one_way() {
            self.outbound.count_prompt();
        }
    }

    /// A terminal answer without a body, whatever the state of the slot.
    pub(super) fn send_status(&mut self, id: MessageId, status: Status) {
        self.send_terminal(Kind::Reply, id, status);
    }

    /// The same, by REPLY or by END.
    pub(super) fn send_terminal(&mut self, kind: Kind, id: MessageId, status: Status) {
        self.push_control(kind, id, &ReplyHeader::new(status).encode());
    }

    // ---- frames ----

    /// A frame whose body was encoded apart and is small.
    pub(super) fn body_frame(
        &self,
        kind: Kind,
        flags: u8,
        id: MessageId,
        header: &[u8; RequestHeader::LEN],
        extensions: &[u8],
        body: &[u8],
    ) -> Chunk {
        let mut arena = self.memory.take_arena();
        let front = Front { kind, flags, fixed: || *header, extensions };
        let most = Most { body: body.len() as u64, extensions: extensions.len() };
        let mut run = Run::empty();
        let written = encode(&mut arena, &run, front, Codec::RAW, 0, &Written(body), most);
        debug_assert!(written.is_ok());
        let _nothing_before = arena.finish_onto(&mut run, complete(id));
        self.memory.put_arena(arena);
        run.take()
    }

    /// Queues a frame without a body, behind what is queued already.
    pub(super) fn push_control(&mut self, kind: Kind, id: MessageId, fixed: &[u8]) {
        let chunk = self.control_frame(kind, 0, id, fixed);
        let is_answer = matches!(kind, Kind::Reply | Kind::End);
        let what = if is_answer { Frame::Prompt } else { Frame::Control };
        self.outbound.push(chunk, what);
    }

    pub(super) fn control_frame(
        &self,
        kind: Kind,
        flags: u8,
        id: MessageId,
        fixed: &[u8],
    ) -> Chunk {
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
            return self.wake_crowded();
        }
        if self.outbound.has_parts() {
            self.transmit_parts(now, queue);
        }
        self.wake_crowded();
    }

    #[inline(never)]
    fn transmit_parts(&mut self, now: Instant, queue: &mut impl SendQueue) {
        while let Some(progress) =
            self.outbound.send_part(now, self.bounds.cut_bytes, &self.memory, queue)
        {
            self.progressed(now, &progress);
        }
        self.one_ways_sent();
    }

    fn progressed(&mut self, now: Instant, progress: &Progress) {
        match progress.of {
            Part::Request => self.request_progress(progress.id, progress.number, progress.last),
            Part::Item => {
                if let Some(streams) = self.streams(progress.id) {
                    streams.touched = now;
                }
                if progress.last {
                    self.output_part_ends(progress.id);
                }
            }
            Part::Reply if progress.last => {
                self.served.step(progress.id.slot(), ServedInput::ReplyLast);
            }
            Part::Reply => {}
        }
    }

    /// Control frames pass everything that waits, so that nobody waits for them.
    fn transmit_control(&mut self, queue: &mut impl SendQueue) {
        let connection = MessageId::CONNECTION;
        if core::mem::take(&mut self.control.hello) {
            queue.push(Bytes::from_static(&PREFACE).into());
            queue.push(self.hello_frame().into());
        }
        if self.peer.is_none() || self.ending.is_some() {
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
        if self.control.has_stream_credit {
            self.transmit_stream_credit(queue);
        }
        for pool in [CreditPool::Calls, CreditPool::Replies] {
            self.transmit_credit(pool, CreditUnit::Bytes, queue);
        }
    }

    #[inline]
    fn transmit_credit(&mut self, pool: CreditPool, unit: CreditUnit, queue: &mut impl SendQueue) {
        if self.window(pool, unit).is_grant_due() {
            self.grant(pool, unit, queue);
        }
    }

    #[inline(always)]
    fn window(&mut self, pool: CreditPool, unit: CreditUnit) -> &mut Window {
        match (pool, unit) {
            (CreditPool::Calls, CreditUnit::Bytes) => &mut self.credit.calls_in,
            (CreditPool::Calls, _) => &mut self.credit.call_items_in,
            (_, CreditUnit::Bytes) => &mut self.credit.replies_in,
            _ => &mut self.credit.reply_items_in,
        }
    }

    /// Grants what is due. What a connection gives back while it holds too much is granted again when it does not.
    #[inline(never)]
    fn grant(&mut self, pool: CreditPool, unit: CreditUnit, queue: &mut impl SendQueue) {
        if self.lacks_room(0) {
            return;
        }
        let granted = self.window(pool, unit).take_grant();
        let amount = if bug!("credit_lost") { granted.max(2) - 1 } else { granted };
        let (id, credit) = (MessageId::CONNECTION, Credit { amount, pool, unit });
        queue.push(self.control_frame(Kind::Credit, 0, id, &credit.encode()).into());
    }

    /// Credit for streams, in the order in which it fell due.
    fn transmit_stream_credit(&mut self, queue: &mut impl SendQueue) {
        if self.lacks_room(0) {
            return;
        }
        self.control.has_stream_credit = false;
        for pool in [CreditPool::Calls, CreditPool::Replies] {
            self.transmit_credit(pool, CreditUnit::Items, queue);
        }
        while let Some(id) = self.control.grants.pop_front() {
            let input = self.streams(id).and_then(|streams| streams.input.as_mut());
            let Some((bytes, items)) = input.map(Input::take_grant) else { continue };
            for (amount, unit) in [(bytes, CreditUnit::Bytes), (items, CreditUnit::Items)] {
                if amount > 0 {
                    let credit = Credit { amount, pool: CreditPool::Call, unit };
                    let frame = self.control_frame(Kind::Credit, 0, id, &credit.encode());
                    queue.push(frame.into());
                }
            }
        }
    }

    /// Whether all calls that were made under earlier limits have gone, so that new ones can be
    /// confirmed.
    pub(super) fn limits_ack_is_due(&self) -> bool {
        let past = |(limits, mark): (Limits, u64)| self.outbound.is_past(mark, limits);
        self.control.limits_ack.is_some_and(past)
    }

    fn push_limits_ack(&mut self) {
        if let Some((limits, _)) = self.control.limits_ack.take() {
            let connection = MessageId::CONNECTION;
            let frame = self.control_frame(Kind::Limits, FLAG_ACK, connection, &limits.encode());
            self.outbound.push(frame, Frame::Control);
        }
    }

    fn hello_frame(&mut self) -> Chunk {
        let (hello, shown) = (self.own_hello().encode(), self.introduction.shown());
        let header_len = hello.len() + shown.len();
        let head = Head {
            length: header_len as u32,
            kind: Kind::Hello as u8,
            flags: 0,
            header_len: header_len as u16,
            id: MessageId::CONNECTION,
        };
        self.memory.outgoing(&[&head.encode(), &hello[..], &shown].concat())
    }

    fn own_hello(&self) -> Hello {
        Hello {
            version_min: VERSION,
            version_max: VERSION,
            archive: self.config.archive,
            compressions: self.config.compressions,
            in_flight_max: self.in_flight_max,
            features: self.config.features,
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
        let has_streams = entry.streams.is_some();
        self.calls.step(id.slot(), if last { CallInput::SendLast } else { CallInput::SendPart });
        if has_streams && last {
            self.output_part_ends(id);
        }
        if let Some(entry) =
            self.calls.find(id).filter(|entry| last && entry.more & calls::ONE_WAY != 0)
        {
            let ticket = entry.ticket.take();
            self.calls.step(id.slot(), CallInput::End);
            self.one_ways.extend(ticket.map(|ticket| (number, ticket)));
        }
    }

    /// One-way calls end when a transport has taken them.
    #[inline]
    fn one_ways_sent(&mut self) {
        if !self.one_ways.is_empty() {
            self.end_one_ways();
        }
    }

    #[cold]
    fn end_one_ways(&mut self) {
        let taken = self.outbound.taken();
        while self.one_ways.front().is_some_and(|(number, _)| *number <= taken) {
            if let Some((_, ticket)) = self.one_ways.pop_front() {
                self.counters.calls_ended += 1;
                self.ahead.push(Event::Completed(ticket, Outcome::Sent));
            }
        }
    }
}

/// The header of an answer, which says how long the handler had the call.
#[inline(always)]
fn timed(mut header: ReplyHeader, received: Instant, now: Instant) -> ReplyHeader {
    if now != received {
        header.handler_us = now.micros_since(received).saturating_sub(header.queue_us);
    }
    header
}

/// Whether an answer goes out although others wait for credit: it needs none.
#[cold]
fn passes_held(body_len: usize) -> bool {
    body_len == 0
}

#[cold]
pub(super) fn refused<T>(ticket: T, cause: Cause) -> Result<CallId, Refused<T>> {
    Err(Refused { ticket, failure: Failure::not_sent(cause) })
}

/// A call whose body is encoded and which has a slot.
struct EncodedCall {
    slot: u32,
    /// A copy, so that the call itself need not lie in memory for what hardly any call needs.
    call: Call,
    parts: Parts,
}

/// A body that was encoded apart.
struct Written<'a>(&'a [u8]);

impl Payload for Written<'_> {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        Ok(out.put(self.0)?)
    }
}

/// How long the parts of a frame may be.
#[derive(Clone, Copy)]
pub(super) struct Most {
    pub(super) body: u64,
    pub(super) extensions: usize,
}

/// What stands in front of a frame's body, but for what is known when it is [completed](complete).
pub(super) struct Front<'a, H> {
    pub(super) kind: Kind,
    pub(super) flags: u8,
    /// Gives the header's fixed part, when there is a place for it.
    pub(super) fixed: H,
    pub(super) extensions: &'a [u8],
}

/// Begins a frame, most likely behind `run`: head and header, behind them the encoded body. Returns how much stands in
/// front of that.
///
/// Inlined, so that the fields of the header are written where they belong: as an array they would be read again in
/// larger pieces than they were written in, for which a processor waits until they have left its store buffer. They come
/// first, so that nobody has to keep them while the body is encoded.
#[inline(always)]
pub(super) fn encode<const LEN: usize, P: Payload + ?Sized>(
    arena: &mut Arena,
    run: &Run,
    front: Front<'_, impl FnOnce() -> [u8; LEN]>,
    codec: Codec,
    signature: u64,
    payload: &P,
    most: Most,
) -> Result<usize, EncodeError> {
    let Front { kind, flags, fixed, extensions } = front;
    let limit = usize::try_from(most.body).unwrap_or(usize::MAX / 2);
    let mut front_len = Head::LEN + LEN;
    if !extensions.is_empty() {
        check_extensions(extensions, most.extensions)?;
        front_len += extensions.len();
    }
    let fill = |front: &mut [u8]| {
        if let Some((head, rest)) = front.split_first_chunk_mut::<{ Head::LEN }>()
            && let Some(rest) = rest.first_chunk_mut()
        {
            let [low, high] = ((front_len - Head::LEN) as u16).to_le_bytes();
            head[Head::KIND].copy_from_slice(&[kind as u8, flags, low, high]);
            *rest = fixed();
        }
    };
    let frame = arena.begin_behind(run, Head::LEN + LEN, limit + front_len, fill);
    if !extensions.is_empty() {
        frame.put(extensions)?;
    }
    payload.encode(codec, signature, frame).map_err(|error| match error {
        EncodeError::Full(_) => EncodeError::Full(Full { limit }),
        error => error,
    })?;
    Ok(front_len)
}

/// Whether a payload's extensions may go into a header.
pub(super) fn check_extensions(extensions: &[u8], limit: usize) -> Result<(), EncodeError> {
    match extensions.len() <= limit && extensions.len().is_multiple_of(ALIGN) {
        true => Ok(()),
        false => Err(EncodeError::Extensions(Full { limit })),
    }
}

/// Completes the frame that was [begun](encode): length and id in its head.
#[inline(always)]
pub(super) fn complete(id: MessageId) -> impl FnOnce(&mut [u8], usize) {
    move |frame, len| {
        if let Some(head) = frame.first_chunk_mut::<{ Head::LEN }>() {
            let length = (len - Head::LEN) as u32;
            head[Head::LENGTH].copy_from_slice(&length.to_le_bytes());
            head[Head::ID].copy_from_slice(&id.to_wire().to_le_bytes());
        }
    }
}
