//! Sending items: verbs of the application, and what lets a stream that was told to wait go on.

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use core::fmt;
use core::time::Duration;

use ringcall_buf::Chunk;

use super::calls;
use super::outbound::{Body, BodyHeader, Frame, Parts, Pool, Queue};
use super::requests::STREAM_FLAGS;
use super::send::{FRONT_LEN, Front, Most, check_extensions, complete, encode};
use super::state::{InputState, OutputInput, OutputState, ServedInput, ServedState};
use super::stream::{Input, Late, Output, Streams};
use super::{BodyTarget, Cancellation, Connection, Event, ReplyError, served_key};
use crate::frame::{FLAG_ITEMS, Head, ItemHeader, Kind, ReplyHeader, features, request_flags};
use crate::{
    Attached, CallId, EncodeError, Encoding, Instant, MessageId, Payload, RequestId, Status,
    StatusClass, StreamId,
};

/// Head and header of an ITEM.
const ITEM_FRONT_LEN: usize = Head::LEN + ItemHeader::LEN;

/// One message of a stream.
#[derive(Clone, Debug)]
pub struct Item {
    /// How the body is written; the signature has the shapes of the direction's items.
    pub encoding: Encoding,
    /// The body, at a multiple of 16, where it landed.
    pub body: Chunk,
    /// What of it is beside the message.
    pub attached: Attached,
}

/// Why an item was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError {
    /// The other side, or the transport, must take what was sent before: [`Event::Writable`] says when.
    ///
    /// [`Event::Writable`]: crate::Event::Writable
    Blocked,
    /// The stream has ended, its call is over, or it never had one in this direction.
    Ended,
    /// The item could not be encoded, or is larger than the other side accepts. Nothing was sent, and the
    /// stream goes on.
    Encode(EncodeError),
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ItemError::Blocked => f.write_str("the receiver has not taken what was sent before"),
            ItemError::Ended => f.write_str("the stream has ended"),
            ItemError::Encode(error) => write!(f, "the item could not be sent: {error}"),
        }
    }
}

impl core::error::Error for ItemError {}

impl<T> Connection<T> {
    /// Whether both sides know streams.
    #[inline]
    pub(super) fn has_streams(&self) -> bool {
        self.peer.is_some_and(|peer| peer.features & features::STREAMS != 0)
    }

    /// Whether a call with streams may begin with an argument of this length, and counts it: see
    /// [`Allowance::open`](super::credit::Allowance::open).
    pub(super) fn may_open(&mut self, body_len: usize) -> bool {
        body_len == 0
            || (self.outbound.held_openings.is_empty() && self.credit.calls_out.open(body_len))
    }

    /// Calls with streams that waited for others may begin, as far as there is room now.
    pub(super) fn open_held(&mut self) {
        while let Some(body) = self.outbound.held_openings.front() {
            let (id, total) = (body.id, body.total);
            if !self.credit.calls_out.open(total) {
                break;
            }
            self.outbound.held_calls.extend(self.outbound.held_openings.pop_front());
            if let Some(streams) = self.streams(id) {
                streams.argument = total;
            }
        }
    }

    /// The streams of a call that this side has made; `is_whole` if its request is in the send order.
    pub(super) fn open_call_streams(
        &mut self,
        now: Instant,
        id: MessageId,
        flags: u8,
        is_whole: bool,
        argument: usize,
    ) {
        let state = if is_whole { OutputState::Open } else { OutputState::Busy };
        let window = self.peer.map_or(0, |peer| peer.stream_window);
        let output = (flags & request_flags::ITEMS_IN != 0).then(|| Output::new(state, window));
        let own = self.config.stream_window;
        let input =
            (flags & request_flags::ITEMS_OUT != 0).then(|| Input::new(InputState::Idle, own));
        if let Some(entry) = self.calls.find(id) {
            let asked_for_items = input.is_some();
            entry.streams =
                Some(Box::new(Streams { output, input, asked_for_items, argument, touched: now }));
            entry.more |= calls::STREAMS;
        }
    }

    /// The streams of a call that the other side makes.
    pub(super) fn served_streams(&mut self, now: Instant, flags: u8) -> Option<Box<Streams>> {
        if flags & STREAM_FLAGS == 0 {
            return None;
        }
        let window = self.peer.map_or(0, |peer| peer.stream_window);
        let output =
            (flags & request_flags::ITEMS_OUT != 0).then(|| Output::new(OutputState::Idle, window));
        let own = self.config.stream_window;
        let input =
            (flags & request_flags::ITEMS_IN != 0).then(|| Input::new(InputState::Open, own));
        if input.is_some() {
            self.open_inputs += 1;
            self.look_after_by(now + self.stream_idle_timeout());
        }
        let (asked_for_items, argument) = (false, 0);
        Some(Box::new(Streams { output, input, asked_for_items, argument, touched: now }))
    }

    #[inline]
    pub(super) fn streams(&mut self, id: MessageId) -> Option<&mut Streams> {
        match id.side() == self.side {
            true => self.calls.find(id)?.streams.as_deref_mut(),
            false => self.served.find(id)?.streams.as_deref_mut(),
        }
    }

    #[inline]
    pub(super) fn output(&mut self, id: MessageId) -> Option<&mut Output> {
        self.streams(id)?.output.as_mut()
    }

    // ---- verbs ----

    pub(super) fn begin_stream(
        &mut self,
        now: Instant,
        request: RequestId,
        mut header: ReplyHeader,
        extensions: &[u8],
    ) -> Result<(), ReplyError> {
        let id = request.id;
        let slot = self.served.find(id).ok_or(ReplyError::NotRunning)?;
        let (state, received) = (slot.state, slot.received);
        let output = slot.streams.as_mut().and_then(|streams| streams.output.as_mut());
        let output = output.ok_or(ReplyError::NotRunning)?;
        if state != ServedState::Running || self.ending.is_some() {
            return Err(ReplyError::NotRunning);
        }
        check_extensions(extensions, self.config.extension_bytes_max)
            .map_err(ReplyError::Encode)?;
        output.has_begun = true;
        output.step(OutputInput::Begin);
        self.served.step(id.slot(), ServedInput::ItemsBegin);
        // A deadline bounds the time to here.
        self.deadlines.cancel(served_key(id.slot()));
        header.handler_us = now.micros_since(received).saturating_sub(header.queue_us);
        let frame = self.body_frame(Kind::Reply, FLAG_ITEMS, id, &header.encode(), extensions, &[]);
        self.outbound.push(frame, Frame::Prompt);
        Ok(())
    }

    #[inline]
    pub(super) fn send_stream_item<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        stream: StreamId,
        encoding: Encoding,
        payload: &P,
    ) -> Result<(), ItemError> {
        let id = stream.0;
        if !self.may_send_item(id)? {
            return Err(ItemError::Blocked);
        }
        let limit = self.bounds.their_message_bytes_max;
        let mut arena = self.memory.take_arena();
        let Encoding { codec, compression, signature } = encoding;
        let most = Most { body: limit, extensions: 0 };
        let header = ItemHeader { signature, codec, compression };
        let fixed = || header.encode();
        let front = Front { kind: Kind::Item, flags: 0, fixed, extensions: &[] };
        let encoded =
            encode(&mut arena, self.outbound.run(), front, codec, signature, payload, most);
        let body_len = match encoded {
            Ok(front_len) => arena.frame().message_len() - front_len,
            Err(error) => {
                self.memory.put_arena(arena);
                return Err(ItemError::Encode(error));
            }
        };
        let pool = self.pool_of_output(id);
        let is_funded = self.fund_item(pool, body_len);
        if let Some(streams) = self.streams(id) {
            streams.touched = now;
            if let Some(output) = &mut streams.output {
                output.spend(body_len);
            }
        }
        self.counters.items_sent += 1;
        let is_small = is_funded && body_len <= self.bounds.cut_bytes && arena.frame().is_whole();
        if is_small {
            self.outbound.push_begun(&mut arena, Frame::Item, complete(id));
            self.memory.put_arena(arena);
            return Ok(());
        }
        let parts = Parts::take(&mut arena, ITEM_FRONT_LEN, 0);
        self.memory.put_arena(arena);
        if let Some(output) = self.output(id) {
            output.step(OutputInput::PartBegins);
        }
        let body = Body::new(id, BodyHeader::Item(header), 0, parts).counted(&self.memory);
        let queue = if is_funded { Queue::Funded } else { Queue::Items(pool) };
        self.outbound.push_body(body, queue);
        Ok(())
    }

    /// Whether an item of this stream may be sent now; if not, its application will be told when.
    #[inline]
    fn may_send_item(&mut self, id: MessageId) -> Result<bool, ItemError> {
        if self.ending.is_some() {
            return Err(ItemError::Ended);
        }
        let is_crowded = self.is_crowded(self.pool_of_output(id));
        let output = self.output(id).ok_or(ItemError::Ended)?;
        if matches!(output.state(), OutputState::Idle | OutputState::Ending | OutputState::Ended) {
            return Err(ItemError::Ended);
        }
        let may_send = output.may_send();
        if may_send && !is_crowded {
            return Ok(true);
        }
        output.is_blocked = true;
        // Otherwise its own credit, or the end of what it is sending, brings it back.
        if may_send && !core::mem::replace(&mut output.is_listed, true) {
            self.join_the_crowd(id);
        }
        Ok(false)
    }

    /// Whether no stream may send for now: enough waits for the transport, or a pool has no credit for
    /// another item.
    #[inline]
    fn is_crowded(&self, pool: Pool) -> bool {
        let items = match pool {
            Pool::Calls => &self.credit.call_items_out,
            Pool::Replies => &self.credit.reply_items_out,
        };
        items.available() == 0
            || self.outbound.ready_bytes() >= self.bounds.cut_bytes
            || self.lacks_room_to_send()
    }

    #[inline]
    fn pool_of_output(&self, id: MessageId) -> Pool {
        if id.side() == self.side { Pool::Calls } else { Pool::Replies }
    }

    /// Takes credit for an item from a pool; what does not get any waits in the send order.
    #[inline]
    fn fund_item(&mut self, pool: Pool, body_len: usize) -> bool {
        let (items, bytes, is_first) = match pool {
            Pool::Calls => (
                &mut self.credit.call_items_out,
                &mut self.credit.calls_out,
                self.outbound.held_call_items.is_empty() && self.outbound.held_calls.is_empty(),
            ),
            Pool::Replies => (
                &mut self.credit.reply_items_out,
                &mut self.credit.replies_out,
                self.outbound.held_reply_items.is_empty() && self.outbound.held_replies.is_empty(),
            ),
        };
        let counted = items.take(1);
        debug_assert!(counted, "looked at before");
        is_first && bytes.take_item(body_len)
    }

    pub(super) fn end_stream(&mut self, call: CallId) {
        let Some(output) = self.output(call.0) else { return };
        match output.state() {
            OutputState::Open => {
                output.step(OutputInput::End);
                self.push_end(call.0);
            }
            OutputState::Busy => drop(output.step(OutputInput::End)),
            _ => {}
        }
    }

    /// The caller's END.
    fn push_end(&mut self, id: MessageId) {
        let header = ReplyHeader::new(Status::OK).encode();
        let frame = self.control_frame(Kind::End, 0, id, &header);
        self.outbound.push(frame, Frame::Item);
    }

    // ---- the end of an answer ----

    /// Ends a call with streams: by END if its answer has begun, by REPLY if not. An answer waits for the
    /// item that is under way, a failure does not.
    #[cold]
    pub(super) fn answer_with_streams<P: Payload + ?Sized>(
        &mut self,
        id: MessageId,
        header: [u64; 4],
        payload: &P,
    ) -> Result<(), ReplyError> {
        let header = ReplyHeader::from_words(header);
        let is_answer = matches!(header.status.class(), StatusClass::Ok | StatusClass::Application);
        let busy = |output: &mut Output| output.state() == OutputState::Busy;
        let waits = is_answer && self.output(id).is_some_and(busy);
        if waits {
            self.stop_input(id);
            self.output(id).map(|output| output.step(OutputInput::End));
        } else {
            self.stop_streams(id);
        }
        let kind = self.terminal_kind(id);
        let limit = self.bounds.their_message_bytes_max;
        let mut arena = self.memory.take_arena();
        let ReplyHeader { codec, signature, .. } = header;
        let extensions = payload.extensions();
        let most = Most { body: limit, extensions: self.config.extension_bytes_max };
        let front = Front { kind, flags: 0, fixed: || header.encode(), extensions };
        let encoded =
            encode(&mut arena, self.outbound.run(), front, codec, signature, payload, most);
        let body_len = match encoded {
            Ok(front_len) => arena.frame().message_len() - front_len,
            Err(error) => {
                self.memory.put_arena(arena);
                self.stop_streams(id);
                self.served.step(id.slot(), ServedInput::ReplyLast);
                self.send_terminal(kind, id, Status::REPLY_FAILED);
                return Err(ReplyError::Encode(error));
            }
        };
        let is_whole = arena.frame().is_whole();
        let is_small = !waits && body_len <= self.bounds.cut_bytes && is_whole;
        if is_small && self.fund_reply(body_len) {
            self.served.step(id.slot(), ServedInput::ReplyLast);
            self.outbound.push_begun(&mut arena, Frame::Prompt, complete(id));
            self.memory.put_arena(arena);
            return Ok(());
        }
        let parts = Parts::take(&mut arena, FRONT_LEN, extensions.len());
        self.memory.put_arena(arena);
        let header = match kind {
            Kind::End => BodyHeader::End(header),
            _ => BodyHeader::Reply(header),
        };
        self.served.step(id.slot(), ServedInput::ReplyPart);
        let body = Body::new(id, header, 0, parts).counted(&self.memory);
        match self.output(id).filter(|_| waits) {
            Some(output) => output.last = Some(Box::new(body)),
            // It was small, and has been refused credit: it is not asked for twice.
            None if is_small => self.outbound.push_body(body, Queue::Replies),
            None => self.push_terminal(body),
        }
        Ok(())
    }

    /// Which frame ends a call that this side serves.
    pub(super) fn terminal_kind(&mut self, id: MessageId) -> Kind {
        match self.output(id) {
            Some(output) if output.has_begun => Kind::End,
            _ => Kind::Reply,
        }
    }

    fn fund_reply(&mut self, body_len: usize) -> bool {
        body_len == 0
            || (self.outbound.held_replies.is_empty() && self.credit.replies_out.take(body_len))
    }

    fn push_terminal(&mut self, body: Body) {
        let queue = if self.fund_reply(body.total) { Queue::Funded } else { Queue::Replies };
        self.outbound.push_body(body, queue);
    }

    /// The last byte of an item, or of the request in front of the first one, is in the send order.
    pub(super) fn output_part_ends(&mut self, id: MessageId) {
        let Some(output) = self.output(id) else { return };
        output.step(OutputInput::PartEnds);
        if output.state() == OutputState::Open {
            return self.wake(id);
        }
        let limit = self.peer.as_ref().map_or(0, |peer| peer.message_bytes_max);
        let Some(output) = self.output(id) else { return };
        match (output.last.take(), id.side() == self.side) {
            // The limit was lowered while it waited.
            (Some(last), _) if last.total as u64 > limit => {
                self.served.step(id.slot(), ServedInput::ReplyLast);
                self.send_terminal(Kind::End, id, Status::REPLY_FAILED);
            }
            (Some(last), _) => self.push_terminal(*last),
            (None, true) if bug!("missed_end") => {}
            (None, true) => self.push_end(id),
            (None, false) => {}
        }
    }

    // ---- stopping ----

    /// The call is over for its application, or for the other side: nothing more is sent or delivered of
    /// its items. What still arrives is charged to what was granted.
    pub(super) fn stop_streams(&mut self, id: MessageId) {
        let Some(streams) = self.streams(id) else { return };
        let argument = core::mem::take(&mut streams.argument);
        self.credit.calls_out.close(argument);
        self.stop_input(id);
        if let Some(output) = self.output(id) {
            output.step(OutputInput::Stop);
            output.last = None;
        }
        let unsent = self.outbound.abandon_item(id);
        let (bytes, items) = match self.pool_of_output(id) {
            Pool::Calls => (&mut self.credit.calls_out, &mut self.credit.call_items_out),
            Pool::Replies => (&mut self.credit.replies_out, &mut self.credit.reply_items_out),
        };
        if !bug!("credit_leak_item") {
            bytes.untake(unsent.bytes);
        }
        items.untake(unsent.items);
        if unsent.items > 0 || argument > 0 {
            // Those that waited behind it may have their turn.
            self.fund();
        }
        self.wake_crowded();
    }

    fn stop_input(&mut self, id: MessageId) {
        let message_bytes_max = self.message_bytes_max;
        let Some(mut input) = self.streams(id).and_then(|streams| streams.input.take()) else {
            return;
        };
        self.open_inputs -= u32::from(input.is_open() && id.side() != self.side);
        let late = Late { id, bytes: input.late_bytes(message_bytes_max) };
        self.leave_body(BodyTarget::Item(id));
        let is_own = id.side() == self.side;
        match is_own {
            true => drop(self.calls.find(id).map(|entry| entry.late = late)),
            false => drop(self.served.find(id).map(|slot| slot.late = late)),
        }
        if let Some(arriving) = &mut input.arriving {
            let bytes = arriving.ignore();
            self.release_item(is_own, bytes);
        }
    }

    /// How long a caller's stream may rest.
    fn stream_idle_timeout(&self) -> Duration {
        match self.config.stream_idle_timeout {
            Duration::ZERO => Duration::MAX,
            timeout => timeout,
        }
    }

    /// Cancels calls whose callers have streams open in which nothing happens.
    pub(super) fn look_after_streams(&mut self, now: Instant) {
        let timeout = self.stream_idle_timeout();
        for slot in 0..self.served.slots() {
            let Some(served) = self.served.at(slot) else { continue };
            let id = served.id;
            let is_arriving = served.state == ServedState::Receiving;
            let Some(streams) = &served.streams else { continue };
            // An argument that arrives has a time of its own, and nobody has seen the call yet.
            let idle_at = if is_arriving { now } else { streams.touched } + timeout;
            if !streams.input.as_ref().is_some_and(Input::is_open) {
                continue;
            }
            if idle_at > now {
                self.look_after_by(idle_at);
                continue;
            }
            if !bug!("c16") && self.served.step(slot, ServedInput::Cancel) {
                self.stop_streams(id);
                let id = RequestId { id, one_way: None };
                self.ahead.push(Event::Cancelled(id, Cancellation::Idle));
            }
        }
    }

    // ---- going on ----

    /// A stream may have become able to send: tells its application, if that waits.
    pub(super) fn wake(&mut self, id: MessageId) {
        let is_crowded = self.is_crowded(self.pool_of_output(id));
        let Some(output) = self.output(id) else { return };
        if !output.is_blocked || !output.may_send() {
            return;
        }
        if !is_crowded {
            output.is_blocked = false;
            self.ahead.push(Event::Writable(StreamId(id)));
        } else if !core::mem::replace(&mut output.is_listed, true) {
            self.join_the_crowd(id);
        }
    }

    /// A stream that waits for the connection is listed. Those whose calls have ended stay in the list until their turn
    /// comes, which is never while their pool stays empty: so they are sorted out when they may be half of it.
    #[cold]
    fn join_the_crowd(&mut self, id: MessageId) {
        let pool = self.pool_of_output(id);
        let slots = match pool {
            Pool::Calls => self.calls.slots(),
            Pool::Replies => self.served.slots(),
        };
        let mut crowded = core::mem::take(&mut self.crowded);
        if crowded.of(pool).len() >= slots as usize * 2 {
            crowded.retain(pool, |id| self.output(id).is_some_and(|output| output.is_listed));
        }
        crowded.push(pool, id);
        self.crowded = crowded;
    }

    /// The transport has taken something, or there is credit again: streams may go on, in the order in
    /// which they came to wait.
    #[inline]
    pub(super) fn wake_crowded(&mut self) {
        if !self.crowded.is_empty() && !bug!("lost_wake_of_the_crowd") {
            self.wake_some();
        }
    }

    /// Those that have ended are passed over, of which there are no more than twice as many as the table has slots.
    #[cold]
    fn wake_some(&mut self) {
        if self.ending.is_some() {
            // They have all ended, told or not.
            return;
        }
        for pool in [Pool::Calls, Pool::Replies] {
            while self.ahead.events() < WAKES_MAX && !self.is_crowded(pool) {
                let Some(id) = self.crowded.pop(pool) else { break };
                if let Some(output) = self.output(id) {
                    output.is_listed = false;
                }
                self.wake(id);
            }
        }
    }
}

/// So many are woken at once; the next ones when these were told.
const WAKES_MAX: usize = 64;

/// Streams that wait for the connection rather than for their own credit, by the pool of their items.
#[derive(Debug, Default)]
pub(super) struct Crowded {
    calls: VecDeque<MessageId>,
    replies: VecDeque<MessageId>,
    len: usize,
}

impl Crowded {
    fn of(&mut self, pool: Pool) -> &mut VecDeque<MessageId> {
        match pool {
            Pool::Calls => &mut self.calls,
            Pool::Replies => &mut self.replies,
        }
    }

    fn push(&mut self, pool: Pool, id: MessageId) {
        self.len += 1;
        self.of(pool).push_back(id);
    }

    fn retain(&mut self, pool: Pool, mut is_kept: impl FnMut(MessageId) -> bool) {
        let listed = self.of(pool);
        let before = listed.len();
        listed.retain(|id| is_kept(*id));
        self.len -= before - self.of(pool).len();
    }

    fn pop(&mut self, pool: Pool) -> Option<MessageId> {
        let id = self.of(pool).pop_front()?;
        self.len -= 1;
        Some(id)
    }

    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }
}
