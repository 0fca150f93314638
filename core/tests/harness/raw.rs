//! The other side as bytes made by hand: frames that need not be right, and a transport that does what
//! the real connection's hints say.

use std::ops::{Deref, DerefMut};
use std::time::Duration;

use bytes::Bytes;
use ringcall_core::frame::{
    Credit, CreditPool, CreditUnit, FLAG_MORE, GoAway, Head, Hello, Kind, Limits, PREFACE, tag,
};
use ringcall_core::{
    CallId, CloseCode, CloseReason, Config, Instant, Memory, MemoryLimits, MessageId, ReceiveHint,
    Side, Status,
};

use super::{Peer, Ticket, raw_call};

/// A frame that is right unless somebody changes it.
#[derive(Clone, Default)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub id: u64,
    /// Fixed part and TLVs.
    pub header: Vec<u8>,
    pub body: Vec<u8>,
    /// What the padding is made of.
    pub padding: u8,
    /// Said instead of the truth.
    pub length: Option<u32>,
    pub header_len: Option<u16>,
}

impl std::fmt::Debug for Frame {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Frame { kind, flags, id, header, body, .. } = self;
        write!(
            f,
            "kind {kind} flags {flags} id {id:x} header {header:x?} body {} bytes",
            body.len()
        )
    }
}

/// The id of the first call that the client makes in `slot`.
pub fn id(slot: u32) -> u64 {
    nth_id(slot, 1)
}

pub fn nth_id(slot: u32, generation: u32) -> u64 {
    MessageId::new(Side::Client, generation, slot).to_wire()
}

/// A frame with nothing but zeros in its header.
pub fn plain(kind: Kind) -> Frame {
    Frame { kind: kind as u8, header: vec![0; kind.fixed_len()], ..Frame::default() }
}

/// The HELLO of this implementation, changed.
pub fn hello(change: impl FnOnce(&mut Hello)) -> Frame {
    let own = Raw::new(Side::Client, Config::new()).sent().remove(0);
    let (mut hello, _) = Hello::parse(&own.header).expect("it is one");
    change(&mut hello);
    own.patch(0, &hello.encode())
}

/// A RAW call with a second left.
pub fn request(slot: u32, body: &[u8]) -> Frame {
    plain(Kind::Request).id(id(slot)).body(body).deadline(1_000_000)
}

pub fn reply(id: u64, body: &[u8]) -> Frame {
    plain(Kind::Reply).id(id).body(body)
}

pub fn data(id: u64, offset: u64, body: &[u8]) -> Frame {
    plain(Kind::Data).id(id).body(body).patch(0, &offset.to_le_bytes())
}

pub fn cancel(id: u64) -> Frame {
    plain(Kind::Cancel).id(id)
}

pub fn ping(opaque: u8) -> Frame {
    plain(Kind::Ping).patch(0, &[opaque; 16])
}

pub fn credit(pool: CreditPool, amount: u64) -> Frame {
    plain(Kind::Credit).patch(0, &Credit { amount, pool, unit: CreditUnit::Bytes }.encode())
}

pub fn limits(in_flight_max: u32, message_bytes_max: u64) -> Frame {
    plain(Kind::Limits).patch(0, &Limits { in_flight_max, message_bytes_max }.encode())
}

pub fn go_away(accepted: u64, code: u16) -> Frame {
    plain(Kind::GoAway).patch(0, &GoAway { accepted, code: CloseCode(code) }.encode())
}

/// A frame of a kind that nobody knows.
pub fn unknown(kind: u8, body: &[u8]) -> Frame {
    Frame { kind, ..Frame::default() }.body(body)
}

impl Frame {
    pub fn with(mut self, change: impl FnOnce(&mut Frame)) -> Frame {
        change(&mut self);
        self
    }

    pub fn id(self, id: u64) -> Frame {
        Frame { id, ..self }
    }

    pub fn flags(self, flags: u8) -> Frame {
        Frame { flags: self.flags | flags, ..self }
    }

    pub fn body(self, body: &[u8]) -> Frame {
        Frame { body: body.to_vec(), ..self }
    }

    /// Writes over a part of the header.
    pub fn patch(mut self, at: usize, bytes: &[u8]) -> Frame {
        self.header[at..at + bytes.len()].copy_from_slice(bytes);
        self
    }

    /// Of a REQUEST.
    pub fn deadline(self, us: u32) -> Frame {
        self.patch(24, &us.to_le_bytes())
    }

    /// Appends a TLV; the critical bit is part of the tag.
    pub fn tlv(self, tag: u16, value: &[u8]) -> Frame {
        let len = value.len() as u16;
        self.tlvs(&[&tag.to_le_bytes(), &len.to_le_bytes(), value].concat())
    }

    /// Appends whatever these bytes are, and padding.
    pub fn tlvs(mut self, bytes: &[u8]) -> Frame {
        self.header.extend_from_slice(bytes);
        self.header.resize(self.header.len().next_multiple_of(16), 0);
        self
    }

    /// The first frame of a body of `total` bytes.
    pub fn cut(self, total: u64) -> Frame {
        self.flags(FLAG_MORE).tlv(tag::TOTAL_LEN | tag::CRITICAL, &total.to_le_bytes())
    }

    pub fn bytes(&self) -> Vec<u8> {
        let head = Head {
            length: self.length.unwrap_or((self.header.len() + self.body.len()) as u32),
            kind: self.kind,
            flags: self.flags,
            header_len: self.header_len.unwrap_or(self.header.len() as u16),
            id: MessageId::from_wire(self.id),
        };
        let mut bytes = [&head.encode()[..], &self.header, &self.body].concat();
        bytes.resize(bytes.len().next_multiple_of(16), self.padding);
        bytes
    }

    fn parse_all(bytes: &[u8]) -> Vec<Frame> {
        let mut rest = bytes.strip_prefix(&PREFACE[..]).unwrap_or(bytes);
        let mut frames = Vec::new();
        while let Some((head, after)) = rest.split_first_chunk() {
            let head = Head::parse(head);
            let (header, after) = after.split_at(usize::from(head.header_len));
            let (body, after) = after.split_at(head.body_len().expect("it sends what is right"));
            let frame = unknown(head.kind, body).id(head.id.to_wire()).flags(head.flags);
            frames.push(frame.tlvs(header));
            rest = &after[head.padding()..];
        }
        frames
    }

    pub fn is(&self, kind: Kind) -> bool {
        self.kind == kind as u8
    }
}

/// A real connection, and the bytes that somebody sends it.
pub struct Raw {
    pub now: Instant,
    pub peer: Peer,
    /// A delivery has at most this many bytes.
    pub split: usize,
    /// What the transport has not read, since it was told to pause.
    pub unread: Vec<u8>,
}

impl Deref for Raw {
    type Target = Peer;

    fn deref(&self) -> &Peer {
        &self.peer
    }
}

impl DerefMut for Raw {
    fn deref_mut(&mut self) -> &mut Peer {
        &mut self.peer
    }
}

impl Raw {
    pub fn new(side: Side, config: Config) -> Raw {
        Raw::with_memory(side, config, &Memory::new(MemoryLimits::default()))
    }

    pub fn with_memory(side: Side, config: Config, memory: &Memory) -> Raw {
        let now = Instant::from_nanos(1_000_000_000);
        let mut peer = Peer::with_memory(side, config, memory.clone(), now);
        peer.echo = false;
        Raw { now, peer, split: usize::MAX, unread: Vec::new() }
    }

    /// Does the handshake.
    pub fn open(self) -> Raw {
        self.open_with(|_| {})
    }

    pub fn open_with(mut self, change: impl FnOnce(&mut Hello)) -> Raw {
        self.send_bytes(&PREFACE);
        self.send(&[hello(change)]);
        assert!(self.established);
        self.sent();
        self
    }

    pub fn send(&mut self, frames: &[Frame]) {
        self.send_bytes(&frames.iter().map(Frame::bytes).collect::<Vec<_>>().concat());
    }

    pub fn send_bytes(&mut self, bytes: &[u8]) {
        self.unread.extend_from_slice(bytes);
        self.deliver();
    }

    fn deliver(&mut self) {
        let Raw { now, peer, split, unread } = self;
        peer.drain(*now);
        let mut rest = &unread[..];
        while !rest.is_empty() && peer.closed.is_none() {
            let mut part = &rest[..rest.len().min(*split)];
            match peer.connection.receive_hint() {
                ReceiveHint::Pause => break,
                ReceiveHint::Land { len } => {
                    part = &part[..part.len().min(len)];
                    let mut buffer = peer.connection.begin_landing().expect("there is a body");
                    buffer.extend_from_slice(part);
                    peer.received += part.len() as u64;
                    peer.connection.handle_landed(*now, buffer, part.len());
                }
                ReceiveHint::More => peer.take(*now, part, true),
            }
            rest = &rest[part.len()..];
            peer.drain(*now);
        }
        let read = unread.len() - rest.len();
        unread.drain(..read);
    }

    /// Takes what the connection has to send.
    pub fn sent(&mut self) -> Vec<Frame> {
        let bytes = self.peer.transmit(self.now, usize::MAX);
        self.deliver();
        Frame::parse_all(&bytes)
    }

    /// The same; only the statuses of replies.
    pub fn statuses(&mut self) -> Vec<Status> {
        let sent = self.sent().into_iter().filter(|frame| frame.is(Kind::Reply));
        sent.map(|f| Status::from_wire(u16::from_le_bytes([f.header[8], f.header[9]]))).collect()
    }

    pub fn end_input(&mut self) {
        self.peer.connection.handle_input_end(self.now);
        self.deliver();
    }

    pub fn end(&mut self, reason: CloseReason) {
        self.peer.connection.handle_closed(self.now, reason);
        self.peer.drain(self.now);
    }

    /// Lets time pass, with every timeout that it brings.
    pub fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        while let Some(at) = self.connection.poll_timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.peer.connection.handle_timeout(self.now);
            self.deliver();
            let next = self.connection.poll_timeout();
            assert!(next.is_none_or(|next| next > at), "a timeout that is always due");
        }
        self.now = end;
    }

    /// The application calls.
    pub fn call(&mut self, ticket: Ticket, body: &[u8], flags: u8) -> Result<CallId, Ticket> {
        let call = ringcall_core::Call { flags, ..raw_call(self.now) };
        let made =
            self.peer.connection.call(self.now, &call, &Bytes::copy_from_slice(body), ticket);
        made.map_err(|refused| refused.ticket)
    }

    /// The application answers all calls that it has.
    pub fn answer_all(&mut self) {
        for request in std::mem::take(&mut self.peer.requests) {
            let answer = self.peer.reply(self.now, request.id, Status::OK, &request.body);
            answer.expect("it runs");
        }
        if self.connection.wants_poll() {
            self.deliver();
        }
    }

    /// Whether the transport was told not to read.
    pub fn is_paused(&self) -> bool {
        self.connection.receive_hint() == ReceiveHint::Pause
    }

    pub fn lent(&self) -> usize {
        self.memory.pool().stats().lent_bytes
    }
}
