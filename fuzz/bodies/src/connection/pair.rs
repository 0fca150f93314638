//! Both ends, and the bytes between them.

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringcall_core::frame::{CancelReason, ReplyHeader, request_flags};
use ringcall_core::{
    Call, CallId, CloseReason, Codec, Config, Connection, Encoding, Event, Instant, ItemError,
    Memory, MemoryLimits, Outcome, ReceiveHint, Reply, ReplyError, Request, Side, Status,
    StatusClass, StreamId, TransportError,
};

use super::ledger::{Ledger, Ticket, bytes};
use crate::harness::Batch;

const IN_FLIGHT: u32 = 8;
/// No test sets a higher limit than this.
const IN_FLIGHT_MAX: usize = 20;
const MESSAGE_MAX: usize = 100_000;
const WINDOW: u64 = 200_000;
const STREAM_WINDOW: u64 = 40_000;
const QUEUE_MAX: usize = 300_000;
/// A delivery holds at most one block of this size.
const DELIVERY_MAX: usize = 16 * 1024 - 16;
/// How often an end may leave events before it takes all.
const POLLS_LEFT_MAX: u32 = 8;

/// What an end may hold at most. Bodies in their windows, each with the next power of two as its size;
/// what its calls and answers keep of the blocks in which they arrived; arenas, and what waits in them.
const MEMORY_MAX: usize = 2 * 2 * WINDOW as usize
    + 4 * IN_FLIGHT_MAX * (DELIVERY_MAX + 16)
    + 2 * (QUEUE_MAX + MESSAGE_MAX + 2 * IN_FLIGHT_MAX * MESSAGE_MAX)
    + 4 * (64 << 10);

pub(super) struct Pair {
    now: Instant,
    ends: [End; 2],
    ledger: Ledger,
    /// Whether each gets exactly what the other sends.
    is_honest: bool,
}

struct End {
    connection: Connection<Ticket>,
    memory: Memory,
    /// What is on its way here.
    wire: VecDeque<u8>,
    received: u64,
    unacknowledged: usize,
    calls: Vec<CallId>,
    /// Calls that are not answered yet, and whether they were cancelled.
    running: Vec<(Request, bool)>,
    /// Calls with streams, made and served.
    streams: Vec<(StreamId, Ticket)>,
    /// Items that were not given back.
    held: Vec<(StreamId, usize)>,
    holds: bool,
    /// How many events its application takes at a time.
    appetite: usize,
    /// How often it has left events since it last took all.
    polls_left: u32,
    /// It was told that a call that runs is over: it must turn out that the connection is.
    is_suspect: bool,
    established: bool,
    /// Its application has closed it, and may not have been told yet that it is over.
    is_closing: bool,
    closed: Option<CloseReason>,
    /// The other side will send nothing any more.
    is_input_over: bool,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Asking {
    pub(super) len: usize,
    pub(super) one_way: bool,
    pub(super) timeout_ms: u64,
    /// Whether the other side watches the deadline.
    pub(super) watched: bool,
    /// Whether the other side answers at once.
    pub(super) prompt: bool,
    /// `ITEMS_IN`, `ITEMS_OUT`.
    pub(super) streams: u8,
}

impl Pair {
    pub(super) fn new(options: u8) -> Pair {
        let now = Instant::from_nanos(1_000_000_000);
        let mut config = Config::new()
            .in_flight_max(IN_FLIGHT)
            .message_bytes_max(MESSAGE_MAX)
            .calls_window(WINDOW)
            .replies_window(WINDOW)
            .stream_window(STREAM_WINDOW)
            .send_queue_soft(QUEUE_MAX / 4)
            .send_queue_max(QUEUE_MAX)
            // The input may cancel whatever it makes.
            .cancels_max(u32::MAX);
        if options & 2 != 0 {
            config = config.cut_bytes(4096);
        }
        if options & 4 != 0 {
            config = config.first_generation(0x7fff_fffe);
        }
        let config = Rc::new(config.validate().expect("they fit together"));
        let mut limits = MemoryLimits::default();
        if options & 8 != 0 {
            limits.landing_bytes = MESSAGE_MAX;
            limits.lent_bytes = MESSAGE_MAX;
        }
        let ends = [Side::Client, Side::Server].map(|side| {
            let memory = Memory::new(limits);
            End {
                connection: Connection::new(side, Rc::clone(&config), memory.clone(), now),
                memory,
                wire: VecDeque::new(),
                received: 0,
                unacknowledged: 0,
                calls: Vec::new(),
                running: Vec::new(),
                streams: Vec::new(),
                held: Vec::new(),
                holds: false,
                appetite: usize::MAX,
                polls_left: 0,
                is_suspect: false,
                established: false,
                is_closing: false,
                closed: None,
                is_input_over: false,
            }
        });
        let mut pair = Pair { now, ends, ledger: Ledger::default(), is_honest: true };
        if options & 16 != 0 {
            (0..2).for_each(|side| pair.take_at_most(side, 1));
        }
        pair
    }

    // ---- the applications ----

    pub(super) fn ask(&mut self, side: usize, asking: Asking) {
        let ticket = self.ledger.begin(side, asking.len, asking.one_way);
        let call = Call {
            method: ticket,
            // Tells the other side's application what to do.
            in_signature: u64::from(asking.watched),
            out_signature: u64::from(asking.prompt),
            deadline: self.now + Duration::from_millis(asking.timeout_ms),
            codec: Codec::RAW,
            compression: 0,
            priority: 0,
            attempt: 0,
            flags: asking.streams | if asking.one_way { request_flags::ONE_WAY } else { 0 },
        };
        let end = &mut self.ends[side];
        let payload = Bytes::from(bytes(ticket, asking.len));
        match end.connection.call(self.now, &call, &payload, ticket) {
            Ok(id) => {
                end.calls.push(id);
                if asking.streams != 0 {
                    end.streams.push((id.into(), ticket));
                }
            }
            Err(refused) => {
                assert_eq!(refused.ticket, ticket);
                self.ledger.end(side, ticket);
            }
        }
    }

    pub(super) fn cancel(&mut self, side: usize, index: usize, reason: CancelReason) {
        let end = &mut self.ends[side];
        let Some(at) = index.checked_rem(end.calls.len()) else { return };
        // Sometimes once more, when it has ended: nothing may come of it.
        if let Some(ticket) = end.connection.cancel(self.now, end.calls[at], reason) {
            self.ledger.end(side, ticket);
        }
    }

    pub(super) fn answer(&mut self, side: usize, index: usize, status: Status, len: usize) {
        let running = &mut self.ends[side].running;
        if let Some(at) = index.checked_rem(running.len()) {
            let (request, is_cancelled) = running.remove(at);
            self.answer_request(side, &request, is_cancelled, status, len);
        }
    }

    fn answer_request(
        &mut self,
        side: usize,
        request: &Request,
        is_cancelled: bool,
        status: Status,
        len: usize,
    ) {
        let end = &mut self.ends[side];
        self.ledger.answer(request.method, status.to_wire(), len);
        let payload = Bytes::from(bytes(!request.method, len));
        let header = ReplyHeader::new(status);
        let answered = end.connection.reply(self.now, request.id, header, &payload);
        if answered == Err(ReplyError::NotRunning) {
            end.is_suspect |= !end.is_closing && !is_cancelled;
            if end.polls_left == 0 {
                end.has_heard_all();
            }
        }
        if !request.id.is_one_way() {
            let again = end.connection.reply(self.now, request.id, header, &Bytes::new());
            assert_eq!(again, Err(ReplyError::NotRunning), "a call can be answered once");
        }
    }

    // ---- items ----

    pub(super) fn begin_items(&mut self, side: usize, index: usize) {
        let end = &mut self.ends[side];
        let Some(at) = index.checked_rem(end.running.len()) else { return };
        let header = ReplyHeader::new(Status::OK);
        let (request, _) = &end.running[at];
        let begun = end.connection.begin_items(self.now, request.id, header, &[]);
        assert!(begun.is_err() || request.flags & request_flags::ITEMS_OUT != 0);
    }

    pub(super) fn send_item(&mut self, side: usize, index: usize, len: usize) {
        let end = &mut self.ends[side];
        let Some(at) = index.checked_rem(end.streams.len()) else { return };
        let (stream, ticket) = end.streams[at];
        let payload = Bytes::from(self.ledger.item(side, ticket, len));
        match end.connection.send_item(self.now, stream, Encoding::plain(Codec::RAW, 0), &payload) {
            Ok(()) => self.ledger.sent_item(side, ticket, len),
            // Ended ones are not tried again and again.
            Err(ItemError::Ended) if end.streams.len() > 20 => drop(end.streams.remove(at)),
            Err(_) => {}
        }
    }

    pub(super) fn end_items(&mut self, side: usize, index: usize) {
        let end = &mut self.ends[side];
        if let Some(at) = index.checked_rem(end.calls.len()) {
            end.connection.end_items(self.now, end.calls[at]);
        }
    }

    pub(super) fn hold(&mut self, side: usize, holds: bool) {
        self.ends[side].holds = holds;
    }

    /// Gives back some of the items that are held.
    pub(super) fn consume(&mut self, side: usize, n: usize) {
        let end = &mut self.ends[side];
        for (stream, len) in end.held.drain(..n.min(end.held.len())) {
            end.connection.consumed(stream, len);
        }
    }

    fn take_item(&mut self, side: usize, stream: StreamId, body: &[u8]) {
        assert!(body.len() <= MESSAGE_MAX);
        let end = &mut self.ends[side];
        if self.is_honest {
            let known = end.streams.iter().find(|(known, _)| *known == stream);
            let (_, ticket) = known.expect("an item of a stream that there is");
            self.ledger.got_item(side, *ticket, body);
        }
        end.held.push((stream, body.len()));
        if !end.holds {
            self.consume(side, usize::MAX);
        }
    }

    pub(super) fn ping(&mut self, side: usize, opaque: u8) {
        self.ends[side].connection.ping(self.now, [opaque; 16]);
    }

    pub(super) fn set_limits(&mut self, side: usize, in_flight_max: u32, message_bytes_max: usize) {
        self.ends[side].connection.set_limits(in_flight_max, message_bytes_max.min(MESSAGE_MAX));
    }

    pub(super) fn go_away(&mut self, side: usize, refuse: bool) {
        self.ends[side].connection.go_away(self.now, refuse);
    }

    pub(super) fn close(&mut self, side: usize) {
        self.ends[side].is_closing = true;
        self.ends[side].connection.close(self.now, CloseReason::Local);
    }

    /// From now on an application takes so many events at a time.
    pub(super) fn take_at_most(&mut self, side: usize, events: usize) {
        self.ends[side].appetite = events;
    }

    /// Takes every event there is, or as many as the application takes at a time.
    pub(super) fn poll(&mut self, side: usize) {
        let end = &self.ends[side];
        let events = match end.polls_left {
            POLLS_LEFT_MAX => usize::MAX,
            // Less than comes, so that something waits behind what is parsed.
            left if left % 2 == 0 && end.appetite < usize::MAX => 0,
            _ => end.appetite,
        };
        for _ in 0..events {
            let Some(event) = self.ends[side].connection.poll_event(self.now) else {
                return self.ends[side].has_heard_all();
            };
            assert!(self.ends[side].closed.is_none(), "nothing follows Closed: {event:?}");
            self.take(side, event);
        }
        self.ends[side].polls_left += 1;
    }

    fn take(&mut self, side: usize, event: Event<Ticket>) {
        let end = &mut self.ends[side];
        match event {
            Event::Established(_) => {
                assert!(!end.established, "a connection is established once");
                end.established = true;
            }
            Event::Request(request) => self.take_request(side, request),
            Event::Cancelled(id, _) => {
                let mut running = end.running.iter_mut();
                let found = running.find(|(request, _)| request.id == id);
                let (_, is_cancelled) = found.expect("only what runs is cancelled");
                assert!(!*is_cancelled, "a call is cancelled once");
                *is_cancelled = true;
            }
            Event::Completed(ticket, outcome) => {
                self.ledger.end(side, ticket);
                self.take_outcome(side, ticket, &outcome);
            }
            Event::Item(stream, item) => {
                assert!(item.body.is_empty() || item.body.is_aligned_to(16));
                self.take_item(side, stream, &item.body);
            }
            Event::ItemsEnd(request) => {
                let running = end.running.iter().find(|(running, _)| running.id == request);
                let (request, is_cancelled) = running.expect("only what runs gets items");
                assert!(!*is_cancelled, "nothing follows a cancel");
                if self.is_honest {
                    self.ledger.got_all(side, request.method);
                }
            }
            Event::Pong(_) | Event::GoAway(_) | Event::Answering(..) | Event::Writable(_) => {}
            Event::Closed(reason) => {
                end.closed = Some(reason);
                if self.is_honest {
                    assert!(is_nobodys_fault(reason), "side {side} closes for {reason:?}");
                }
            }
            other => panic!("an event that is not known here: {other:?}"),
        }
    }

    fn take_request(&mut self, side: usize, request: Request) {
        let end = &mut self.ends[side];
        assert!(request.body.is_empty() || request.body.is_aligned_to(16));
        assert!(request.body.len() <= MESSAGE_MAX);
        let is_one_way = request.id.is_one_way();
        if self.is_honest {
            self.ledger.run(side, request.method, is_one_way, &request.body);
        }
        if request.out_signature == 1 {
            let len = request.body.len().min(1000);
            return self.answer_request(side, &request, false, Status::OK, len);
        }
        if request.flags & (request_flags::ITEMS_IN | request_flags::ITEMS_OUT) != 0 {
            end.streams.push((request.id.into(), request.method));
        }
        if request.in_signature == 1 {
            end.connection.watch_deadline(request.id, request.deadline);
        }
        end.running.push((request, false));
    }

    fn take_outcome(&self, side: usize, ticket: Ticket, outcome: &Outcome) {
        match outcome {
            Outcome::Reply(Reply { header, body, .. }) => {
                assert!(body.is_empty() || body.is_aligned_to(16));
                let has_body =
                    matches!(header.status.class(), StatusClass::Ok | StatusClass::Application);
                if self.is_honest && has_body {
                    self.ledger.answered(ticket, header.status.to_wire(), body);
                    self.ledger.got_all(side, ticket);
                }
            }
            Outcome::Sent => assert!(self.ledger.is_one_way(ticket)),
            _ => {}
        }
    }

    // ---- the network ----

    /// Takes what there is to send from one side.
    pub(super) fn transmit(&mut self, side: usize, room: usize, acknowledge: bool) {
        let end = &mut self.ends[side];
        let wanted = end.connection.wants_transmit();
        let mut batch = Batch::new(room);
        end.connection.poll_transmit(self.now, &mut batch);
        assert!(wanted || batch.bytes.is_empty(), "it did not say that it wants to send");
        end.unacknowledged += batch.bytes.len();
        if acknowledge {
            self.acknowledge(side);
        }
        let other = &mut self.ends[1 - side];
        if other.closed.is_none() {
            other.wire.extend(batch.bytes);
        }
    }

    /// The transport has sent what it was given.
    pub(super) fn acknowledge(&mut self, side: usize) {
        let end = &mut self.ends[side];
        let n = std::mem::take(&mut end.unacknowledged);
        end.connection.handle_transmitted(self.now, n);
        self.poll(side);
    }

    /// Up to `n` bytes arrive at one side, as far as it wants them.
    pub(super) fn deliver(&mut self, side: usize, mut n: usize, aligned: bool) {
        if self.ends[side].appetite == usize::MAX {
            self.poll(side);
        }
        loop {
            let end = &mut self.ends[side];
            if end.closed.is_some() {
                return end.wire.clear();
            }
            let most = end.wire.len().min(n);
            let len = match end.connection.receive_hint() {
                _ if most == 0 => return,
                ReceiveHint::Pause => return,
                ReceiveHint::Land { len } => end.land(self.now, most.min(len)),
                ReceiveHint::More => end.receive(self.now, most.min(DELIVERY_MAX), aligned),
            };
            n -= len;
            self.poll(side);
        }
    }

    /// Moves everything until nothing moves any more, and takes all events.
    pub(super) fn exchange(&mut self) {
        let appetites = self.ends.each_ref().map(|end| end.appetite);
        (0..2).for_each(|side| self.take_at_most(side, usize::MAX));
        self.exchange_all();
        (0..2).for_each(|side| self.take_at_most(side, appetites[side]));
    }

    fn exchange_all(&mut self) {
        for _ in 0..10_000 {
            let before = self.progress();
            for side in 0..2 {
                self.poll(side);
                self.transmit(side, usize::MAX, true);
                self.deliver(1 - side, usize::MAX, true);
                self.tell_of_end(side);
            }
            if self.progress() == before {
                let wants = self.ends.iter().any(|end| end.connection.wants_transmit());
                let both = self.ends.each_ref().map(|end| &end.connection);
                assert!(!wants, "it says that it wants to send, and does not: {both:?}");
                return;
            }
        }
        panic!("two connections talk for ever");
    }

    /// What a transport does when a connection of its own is over, and the other side has read all.
    fn tell_of_end(&mut self, side: usize) {
        let [end, other] = self.ends.get_disjoint_mut([side, 1 - side]).expect("two");
        if !end.connection.is_finished() || other.is_input_over || !other.wire.is_empty() {
            return;
        }
        other.is_input_over = true;
        if end.connection.is_lost() {
            let reset = CloseReason::Transport(TransportError::Reset);
            return self.lose(1 - side, reset);
        }
        other.connection.handle_input_end(self.now);
        self.poll(1 - side);
    }

    fn progress(&self) -> [u64; 2] {
        self.ends.each_ref().map(|end| {
            let counters = end.connection.counters();
            counters.bytes_sent + counters.bytes_received
        })
    }

    pub(super) fn inject(&mut self, side: usize, bytes: &[u8]) {
        self.is_honest = false;
        self.ends[side].wire.extend(bytes);
    }

    pub(super) fn damage(&mut self, side: usize, at: usize, mask: u8) {
        if let Some(byte) = self.ends[side].wire.get_mut(at) {
            self.is_honest &= mask == 0;
            *byte ^= mask;
        }
    }

    /// The other side's stream ends wherever it is.
    pub(super) fn end_input(&mut self, side: usize) {
        self.is_honest = false;
        self.ends[side].wire.clear();
        self.ends[side].is_input_over = true;
        self.ends[side].connection.handle_input_end(self.now);
        self.poll(side);
    }

    pub(super) fn lose(&mut self, side: usize, reason: CloseReason) {
        self.ends[side].connection.handle_closed(self.now, reason);
        self.poll(side);
    }

    // ---- time ----

    pub(super) fn pass(&mut self, ms: u64) {
        let end = self.now + Duration::from_millis(ms);
        for _ in 0..10_000 {
            let timeout = |end: &End| end.connection.poll_timeout();
            let Some(at) = self.ends.iter().filter_map(timeout).min().filter(|at| *at <= end)
            else {
                self.now = end;
                return;
            };
            self.now = self.now.max(at);
            for side in 0..2 {
                if timeout(&self.ends[side]).is_some_and(|at| at <= self.now) {
                    self.ends[side].connection.handle_timeout(self.now);
                    self.poll(side);
                    let next = timeout(&self.ends[side]);
                    assert!(next.is_none_or(|next| next > self.now), "a timeout is always due");
                }
            }
        }
        panic!("timeouts never end");
    }

    // ---- what must hold ----

    pub(super) fn check(&self) {
        for end in &self.ends {
            let connection = &end.connection;
            let (calls, replies) = connection.credit_held();
            assert!(calls <= WINDOW && replies <= WINDOW, "{calls} {replies}");
            let (calls, replies) = connection.items_held();
            assert!(calls <= WINDOW / 1024 && replies <= WINDOW / 1024, "{calls} {replies}");
            assert!(connection.calls_in_flight() <= IN_FLIGHT_MAX);
            assert!(connection.calls_served() <= 2 * IN_FLIGHT_MAX);
            let lent = end.memory.pool().stats().lent_bytes;
            assert!(lent <= MEMORY_MAX, "{lent} of {MEMORY_MAX} bytes are held");
        }
    }

    /// Whether both should be able to finish what they have begun.
    pub(super) fn is_orderly(&self) -> bool {
        self.is_honest && self.ends.iter().all(|end| end.closed.is_none())
    }

    /// Everything is answered, or expires; then all is as it was at the beginning.
    pub(super) fn come_to_rest(&mut self) {
        (0..2).for_each(|side| self.take_at_most(side, usize::MAX));
        for _ in 0..3 {
            for side in 0..2 {
                self.hold(side, false);
                self.consume(side, usize::MAX);
            }
            self.exchange();
            for side in 0..2 {
                while !self.ends[side].running.is_empty() {
                    self.answer(side, 0, Status::OK, 10);
                }
            }
            self.exchange();
            self.pass(1001);
        }
        self.exchange();
        if !self.is_orderly() {
            // Whoever was told to go has gone.
            return;
        }
        self.ledger.assert_all_ended();
        for side in 0..2 {
            let (end, other) = (&self.ends[side].connection, &self.ends[1 - side].connection);
            assert_eq!((end.calls_in_flight(), end.calls_served()), (0, 0));
            assert_eq!((end.credit_held(), end.bytes_queued()), ((0, 0), 0));
            assert_eq!(end.items_held(), (0, 0));
            // What is not granted again is less than a quarter.
            let (calls, replies) = other.credit_available();
            let least = WINDOW / 4 * 3;
            assert!(calls > least && replies > least, "{calls} {replies} of {WINDOW}");
            assert!(calls <= WINDOW && replies <= WINDOW, "{calls} {replies} of {WINDOW}");
        }
    }

    /// Ends both; nothing is left of either.
    pub(super) fn end(mut self) {
        for side in 0..2 {
            self.take_at_most(side, usize::MAX);
            self.poll(side);
            self.lose(side, CloseReason::Transport(TransportError::Reset));
            let end = &self.ends[side];
            assert!(end.closed.is_some() && end.connection.is_finished());
            while !self.ends[side].running.is_empty() {
                self.answer(side, 0, Status::OK, 0);
            }
        }
        self.ledger.assert_all_ended();
        for End { connection, memory, .. } in self.ends {
            drop(connection);
            let left = memory.pool().stats().lent_bytes;
            assert!(left <= 2 * (64 << 10), "{left} bytes are left");
        }
    }
}

impl End {
    /// There is no event left that could explain anything.
    fn has_heard_all(&mut self) {
        self.polls_left = 0;
        assert!(!self.is_suspect || self.closed.is_some(), "a call that runs can be answered");
    }

    fn land(&mut self, now: Instant, len: usize) -> usize {
        let mut buffer = self.connection.begin_landing().expect("there is a body");
        buffer.extend_from_slice(&self.pop(len));
        self.connection.handle_landed(now, buffer, len);
        len
    }

    fn receive(&mut self, now: Instant, len: usize, aligned: bool) -> usize {
        let phase = if aligned { (self.received + 8) as usize % 16 } else { 0 };
        let bytes = self.pop(len);
        let mut buffer = self.memory.pool().take(len + phase);
        buffer.extend_from_slice(&[0; 16][..phase]);
        buffer.extend_from_slice(&bytes);
        let mut chunk = buffer.freeze();
        chunk.advance(phase);
        self.connection.handle_received(now, chunk);
        len
    }

    fn pop(&mut self, len: usize) -> Vec<u8> {
        self.received += len as u64;
        self.wire.drain(..len).collect()
    }
}

/// Why a connection may end whose both sides keep the protocol.
fn is_nobodys_fault(reason: CloseReason) -> bool {
    match reason {
        CloseReason::Local
        | CloseReason::PeerClosed
        | CloseReason::HandshakeTimeout
        | CloseReason::BodyStalled
        | CloseReason::SendStalled
        | CloseReason::PeerSilent
        | CloseReason::Transport(_) => true,
        CloseReason::GoAway(code) => matches!(code.0, 0 | 21..=24),
        _ => false,
    }
}
