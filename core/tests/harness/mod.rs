//! Two connections, a byte-stream network between them, and a virtual clock: everything from one seed.
//!
//! The network delays, splits and coalesces; the receiving side lands large bodies when asked to, in
//! slices. An application in between answers calls by a script. It is the seed of the simulator.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(unreachable_pub, missing_debug_implementations, reason = "a module of tests")]

pub mod raw;

use std::collections::VecDeque;
use std::rc::Rc;
use std::time::Duration;

use bytes::Bytes;
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Call, CallId, Cancellation, Chunk, CloseReason, Codec, Config, Connection, Encoding, Entropy,
    Event, Instant, ItemError, Memory, MemoryLimits, ObjectError, Outcome, ReceiveHint, Refused,
    ReplyError, Request, RequestId, Segment, SendQueue, Side, SplitMix64, Status, StreamId, Write,
};

/// What a caller gets back with the end of its call.
pub type Ticket = u64;

pub struct Pair {
    pub now: Instant,
    pub client: Peer,
    pub server: Peer,
    pub rng: SplitMix64,
    pub net: Net,
}

/// How the network treats bytes.
#[derive(Clone, Debug)]
pub struct Net {
    /// A delivery has at most this many bytes.
    pub split_max: usize,
    /// A delivery takes up to this long.
    pub delay_max: Duration,
    /// How many bytes one send may have; more waits for the next.
    pub send_max: usize,
    /// Whether chunks start where their stream's phase wants it.
    pub aligned: bool,
}

impl Default for Net {
    fn default() -> Net {
        Net {
            split_max: usize::MAX,
            delay_max: Duration::ZERO,
            send_max: usize::MAX,
            aligned: true,
        }
    }
}

/// One side: its connection, and what it has seen.
pub struct Peer {
    pub connection: Connection<Ticket>,
    pub memory: Memory,
    pub done: Vec<(Ticket, Outcome)>,
    pub requests: Vec<Request>,
    /// The first eight bytes of each that came, also of those that are over.
    pub began: Vec<Vec<u8>>,
    pub cancelled: Vec<(RequestId, Cancellation)>,
    pub pongs: Vec<[u8; 16]>,
    pub goaways: usize,
    pub closed: Option<CloseReason>,
    pub established: bool,
    /// Answers every request at once with its own body.
    pub echo: bool,
    /// Calls of this side that are being answered with items.
    pub answering: Vec<CallId>,
    /// The extensions with which their answers began.
    pub began_with: Vec<Vec<u8>>,
    /// Items, in order.
    pub items: Vec<(StreamId, Vec<u8>)>,
    /// Those that are not given back at once.
    pub held: Vec<(StreamId, usize)>,
    pub hold_items: bool,
    /// Writes that are under way until [`finish_write`](Self::finish_write).
    pub writing: VecDeque<Write>,
    pub hold_writes: bool,
    pub items_ended: Vec<RequestId>,
    pub writable: Vec<StreamId>,
    /// What is on its way to the other side: when it arrives, and the bytes.
    wire: VecDeque<(Instant, Vec<u8>)>,
    /// Bytes received so far, for their phase.
    received: u64,
    /// Whether the bytes it sends get lost from now on.
    pub mute: bool,
}

/// Collects a batch.
pub struct Batch {
    pub bytes: Vec<u8>,
    pub segments: usize,
    /// Ranges that could not be read, by their owners.
    pub unreadable: Vec<(u64, ObjectError)>,
    limit: usize,
}

impl SendQueue for Batch {
    fn room(&self) -> usize {
        self.limit.saturating_sub(self.bytes.len())
    }

    fn push(&mut self, segment: Segment) {
        self.segments += 1;
        match &segment {
            Segment::External(range) => {
                let from = self.bytes.len();
                self.bytes.resize(from + range.len(), 0);
                if let Err(error) = range.read(&mut self.bytes[from..]) {
                    self.bytes[from..].fill(0);
                    self.unreadable.push((range.owner(), error));
                }
            }
            segment => self.bytes.extend_from_slice(segment.as_slice().expect("it is in memory")),
        }
    }
}

impl Batch {
    pub fn new(limit: usize) -> Batch {
        Batch { bytes: Vec::new(), segments: 0, unreadable: Vec::new(), limit }
    }
}

impl Peer {
    pub fn new(side: Side, config: Config, now: Instant) -> Peer {
        Peer::with_memory(side, config, Memory::new(MemoryLimits::default()), now)
    }

    pub fn with_memory(side: Side, config: Config, memory: Memory, now: Instant) -> Peer {
        let config = Rc::new(config.validate().expect("the test's settings make sense"));
        Peer {
            connection: Connection::new(side, config, memory.clone(), now),
            memory,
            done: Vec::new(),
            requests: Vec::new(),
            began: Vec::new(),
            cancelled: Vec::new(),
            pongs: Vec::new(),
            goaways: 0,
            closed: None,
            established: false,
            echo: true,
            answering: Vec::new(),
            began_with: Vec::new(),
            items: Vec::new(),
            held: Vec::new(),
            hold_items: false,
            writing: VecDeque::new(),
            hold_writes: false,
            items_ended: Vec::new(),
            writable: Vec::new(),
            wire: VecDeque::new(),
            received: 0,
            mute: false,
        }
    }

    /// Takes every event there is, and writes what is to be written.
    pub fn drain(&mut self, now: Instant) {
        self.drain_events(now);
        while let Some(write) = self.connection.poll_write() {
            self.writing.push_back(write);
            if !self.hold_writes {
                self.finish_write(now);
            }
        }
    }

    /// Does the oldest write that is under way; says whether there was one.
    pub fn finish_write(&mut self, now: Instant) -> bool {
        let Some(write) = self.writing.pop_front() else { return false };
        let result = write.object.write_at(write.offset, &write.bytes);
        self.connection.handle_written(now, write.done(result));
        self.drain_events(now);
        true
    }

    fn drain_events(&mut self, now: Instant) {
        while let Some(event) = self.connection.poll_event(now) {
            assert!(self.closed.is_none(), "nothing follows Closed");
            match event {
                Event::Established(_) => self.established = true,
                Event::Request(request) if self.echo => {
                    let answer = self.reply(now, request.id, Status::OK, &request.body);
                    answer.expect("a request can be answered");
                }
                Event::Request(request) => {
                    self.began.push(request.body[..request.body.len().min(8)].to_vec());
                    self.requests.push(request);
                }
                Event::Cancelled(id, why) => {
                    self.cancelled.push((id, why));
                    self.requests.retain(|request| request.id != id);
                    let status = Status::CANCELLED_RUNNING;
                    let _ = self.connection.reply(now, id, ReplyHeader::new(status), &Bytes::new());
                }
                Event::Completed(ticket, outcome) => self.done.push((ticket, outcome)),
                Event::Pong(opaque) => self.pongs.push(opaque),
                Event::GoAway(_) => self.goaways += 1,
                Event::Closed(reason) => self.closed = Some(reason),
                Event::Answering(call, reply) => {
                    self.answering.push(call);
                    self.began_with.push(reply.extensions.to_vec());
                }
                Event::Item(stream, item) => {
                    self.items.push((stream, item.body.to_vec()));
                    match self.hold_items {
                        true => self.held.push((stream, item.body.len())),
                        false => self.connection.consumed(stream, item.body.len()),
                    }
                }
                Event::ItemsEnd(request) => self.items_ended.push(request),
                Event::Writable(stream) => self.writable.push(stream),
                other => panic!("an event these tests do not know: {other:?}"),
            }
        }
    }

    /// Sends a RAW item.
    pub fn item(
        &mut self,
        now: Instant,
        stream: impl Into<StreamId>,
        body: &[u8],
    ) -> Result<(), ItemError> {
        let body = Bytes::copy_from_slice(body);
        self.connection.send_item(now, stream.into(), Encoding::plain(Codec::RAW, 0), &body)
    }

    /// Begins to answer with items.
    pub fn begin(&mut self, now: Instant, request: RequestId) -> Result<(), ReplyError> {
        self.connection.begin_items(now, request, ReplyHeader::new(Status::OK), &[])
    }

    /// Gives back the items that are held.
    pub fn consume(&mut self) {
        for (stream, bytes) in std::mem::take(&mut self.held) {
            self.connection.consumed(stream, bytes);
        }
    }

    /// The items of one stream.
    pub fn items_of(&self, stream: impl Into<StreamId>) -> Vec<Vec<u8>> {
        let stream = stream.into();
        self.items.iter().filter(|(of, _)| *of == stream).map(|(_, body)| body.clone()).collect()
    }

    pub fn reply(
        &mut self,
        now: Instant,
        id: RequestId,
        status: Status,
        body: &Chunk,
    ) -> Result<(), ringcall_core::ReplyError> {
        self.connection.reply(now, id, ReplyHeader::new(status), body)
    }

    pub fn transmit(&mut self, now: Instant, limit: usize) -> Vec<u8> {
        let mut batch = Batch::new(limit);
        self.connection.poll_transmit(now, &mut batch);
        for (owner, error) in batch.unreadable {
            self.connection.handle_unreadable(now, owner, error);
        }
        self.connection.handle_transmitted(now, batch.bytes.len());
        batch.bytes
    }

    /// Receives bytes as a transport would: aligned if it can, landing large bodies when asked to.
    pub fn receive(&mut self, now: Instant, mut bytes: &[u8], aligned: bool, rng: &mut SplitMix64) {
        while !bytes.is_empty() && self.closed.is_none() {
            match self.connection.receive_hint() {
                ReceiveHint::Land { len } if rng.below(4) > 0 => {
                    let mut buffer = self.connection.begin_landing().expect("there is a body");
                    let n = len.min(bytes.len()).min(1 + rng.below(100_000) as usize);
                    buffer.extend_from_slice(&bytes[..n]);
                    self.connection.handle_landed(now, buffer, n);
                    self.received += n as u64;
                    bytes = &bytes[n..];
                }
                ReceiveHint::Pause if self.closed.is_none() => {
                    // A transport would wait; here the bytes are taken all the same.
                    self.take(now, bytes, aligned);
                    bytes = &[];
                }
                _ => {
                    let n = bytes.len().min(65_536);
                    self.take(now, &bytes[..n], aligned);
                    bytes = &bytes[n..];
                }
            }
            self.drain(now);
        }
    }

    fn take(&mut self, now: Instant, bytes: &[u8], aligned: bool) {
        let phase = if aligned { (self.received + 8) as usize % 16 } else { 0 };
        let mut buffer = self.memory.pool().take(bytes.len() + phase);
        buffer.extend_from_slice(&vec![0; phase]);
        buffer.extend_from_slice(bytes);
        let mut chunk = buffer.freeze();
        chunk.advance(phase);
        self.received += bytes.len() as u64;
        self.connection.handle_received(now, chunk);
    }

    pub fn outcome(&self, ticket: Ticket) -> &Outcome {
        let mut found = self.done.iter().filter(|(done, _)| *done == ticket);
        let (_, outcome) = found.next().unwrap_or_else(|| panic!("call {ticket} has not ended"));
        assert!(found.next().is_none(), "call {ticket} has ended twice");
        outcome
    }

    /// The body of a reply with status OK.
    pub fn answer(&self, ticket: Ticket) -> &[u8] {
        match self.outcome(ticket) {
            Outcome::Reply(reply) if reply.header.status == Status::OK => &reply.body,
            other => panic!("call {ticket} ended with {other:?}"),
        }
    }
}

impl Pair {
    pub fn new(seed: u64) -> Pair {
        Pair::with(seed, Config::new(), Config::new())
    }

    pub fn with(seed: u64, client: Config, server: Config) -> Pair {
        let now = Instant::from_nanos(1_000_000_000);
        Pair {
            now,
            client: Peer::new(Side::Client, client, now),
            server: Peer::new(Side::Server, server, now),
            rng: SplitMix64::new(seed),
            net: Net::default(),
        }
    }

    /// A pair whose handshake is done.
    pub fn established(seed: u64) -> Pair {
        Pair::new(seed).open()
    }

    pub fn open(mut self) -> Pair {
        self.run();
        assert!(self.client.established && self.server.established);
        self
    }

    /// Makes a call with a RAW body and a deadline of a second.
    pub fn call(&mut self, ticket: Ticket, body: &[u8]) -> Result<CallId, Refused<Ticket>> {
        self.call_with(ticket, body, |_| {})
    }

    pub fn call_with(
        &mut self,
        ticket: Ticket,
        body: &[u8],
        change: impl FnOnce(&mut Call),
    ) -> Result<CallId, Refused<Ticket>> {
        let mut call = raw_call(self.now);
        change(&mut call);
        self.client.connection.call(self.now, &call, &Bytes::copy_from_slice(body), ticket)
    }

    /// Lets time pass and bytes travel until nothing moves any more, for a minute at most.
    pub fn run(&mut self) {
        let end = self.now + Duration::from_secs(60);
        while self.now < end && self.step() {}
    }

    /// Lets everything move for this long, and no longer.
    pub fn run_for(&mut self, time: Duration) {
        let end = self.now + time;
        while self.exchange() || self.next_arrival().is_some_and(|at| at <= end) {
            if let Some(at) = self.next_arrival() {
                self.now = self.now.max(at.min(end));
            }
        }
        self.now = end;
        self.timeouts();
        while self.exchange() {}
    }

    /// One step: exchange, or wait for what is on its way. `false` when nothing will move by itself.
    pub fn step(&mut self) -> bool {
        if self.exchange() {
            return true;
        }
        match self.next_arrival() {
            Some(at) => {
                self.now = self.now.max(at);
                self.timeouts();
                true
            }
            None => false,
        }
    }

    fn timeouts(&mut self) {
        for peer in [&mut self.client, &mut self.server] {
            if peer.connection.poll_timeout().is_some_and(|at| at <= self.now) {
                peer.connection.handle_timeout(self.now);
            }
        }
    }

    /// Lets time jump to the next timeout of either side.
    pub fn skip_to_timeout(&mut self) {
        let timeouts = [&self.client, &self.server].map(|peer| peer.connection.poll_timeout());
        let next = timeouts.into_iter().flatten().min().expect("somebody waits for something");
        self.now = self.now.max(next);
        self.timeouts();
    }

    fn next_arrival(&self) -> Option<Instant> {
        let fronts = [&self.client, &self.server].map(|peer| peer.wire.front().map(|(at, _)| *at));
        fronts.into_iter().flatten().min()
    }

    /// Moves bytes both ways once; says whether anything moved.
    fn exchange(&mut self) -> bool {
        let Pair { now, client, server, rng, net } = self;
        let there = carry(*now, client, server, rng, net);
        carry(*now, server, client, rng, net) || there
    }
}

/// Moves bytes one way once; says whether anything moved.
fn carry(now: Instant, from: &mut Peer, to: &mut Peer, rng: &mut SplitMix64, net: &Net) -> bool {
    from.drain(now);
    let sent = from.transmit(now, net.send_max);
    let mut moved = !sent.is_empty();
    let mut rest = &sent[..];
    while !rest.is_empty() && !from.mute {
        let n = match net.split_max {
            usize::MAX => rest.len(),
            most => 1 + rng.below(rest.len().min(most) as u64) as usize,
        };
        let (part, after) = rest.split_at(n);
        let delay = rng.below(net.delay_max.as_nanos() as u64 + 1);
        // In order: nothing overtakes what was sent before.
        let after_last = from.wire.back().map_or(Instant::ZERO, |(at, _)| *at);
        let at = (now + Duration::from_nanos(delay)).max(after_last);
        from.wire.push_back((at, part.to_vec()));
        rest = after;
    }
    while from.wire.front().is_some_and(|(at, _)| *at <= now) {
        let (_, bytes) = from.wire.pop_front().expect("just seen");
        to.receive(now, &bytes, net.aligned, rng);
        moved = true;
    }
    to.drain(now);
    moved
}

/// A random number below `2^bits`, each order of magnitude as likely as any other.
pub fn skewed(rng: &mut SplitMix64, bits: u64) -> u64 {
    let bits = rng.below(bits);
    rng.below(1 << bits)
}

/// A RAW call of a method that these tests do not name, with a deadline of a second.
pub fn raw_call(now: Instant) -> Call {
    Call {
        method: 1,
        in_signature: 0,
        out_signature: 0,
        deadline: now + Duration::from_secs(1),
        codec: Codec::RAW,
        compression: 0,
        priority: 0,
        attempt: 0,
        flags: 0,
    }
}

/// `len` bytes that depend on `seed` and their place.
pub fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut rng = SplitMix64::new(seed);
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        bytes.extend_from_slice(&rng.next_u64().to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
