//! A server, and somebody who calls it with headers of their own making.

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use arbitrary::{Result, Unstructured};
use ringcall::{MethodTable, Shard, Wait};
use ringcall_core::frame::{
    FLAG_CONFIRM, Head, Kind, PREFACE, ReplyHeader, RequestHeader, request_flags, tag,
};
use ringcall_core::{Codec, Config, MessageId, Side, Status, method_id};

use super::{
    Counting, Item, TURNS_MAX, Target, Wrong, body, decode, encode, plain_config, spoil, table,
};
use crate::harness::raw::{hello, ping, plain};

/// The table of methods, which libFuzzer finds by comparing.
const PAGE: u64 = method_id("ringcall.Methods/page");

pub(super) struct Rig {
    shard: Shard,
    counting: Counting,
    stream: TcpStream,
    received: Vec<u8>,
    calls: u32,
}

/// A call and what should become of it.
struct Sent {
    method: Option<&'static MethodTable>,
    header: RequestHeader,
    flags: u8,
    is_critical: bool,
    body: Vec<u8>,
}

impl Default for Rig {
    fn default() -> Rig {
        let mut config = plain_config();
        // One PING for each call, as fast as they go.
        config.server =
            Config::default().ping_interval_min(Duration::ZERO).control_frames_max(u32::MAX);
        let shard = Shard::new(config).expect("a shard can be made");
        let counting = Counting::default();
        shard.serve(counting.clone().into_target()).expect("nothing else is served");
        let address = shard.listen("127.0.0.1:0").expect("there is a free port").to_string();
        let stream = TcpStream::connect(address).expect("it listens");
        stream.set_nodelay(true).expect("it is TCP");
        stream.set_nonblocking(true).expect("it is a socket");
        let mut rig = Rig { shard, counting, stream, received: Vec::new(), calls: 0 };
        rig.send(&[&PREFACE[..], &hello(|_| {}).bytes()].concat());
        rig.receive_until(|received| received.len() >= PREFACE.len() + 96);
        rig.received.clear();
        rig
    }
}

impl Rig {
    pub(super) fn call(&mut self, input: &mut Unstructured<'_>) -> Result<()> {
        let sent = Sent::arbitrary(input)?;
        self.calls += 1;
        let id = MessageId::new(Side::Client, self.calls, 0);
        let mut frame = plain(Kind::Request).patch(0, &sent.header.encode()).flags(sent.flags);
        if sent.is_critical {
            frame = frame.tlv(tag::CRITICAL | 0x7000, b"?");
        }
        let frame = frame.id(id.to_wire()).body(&sent.body);
        let before = self.counting.0.get();
        // What comes behind it is answered when it has been dealt with, also if it is one-way.
        self.send(&[frame.bytes(), ping(self.calls as u8).bytes()].concat());
        let is_one_way = sent.flags & request_flags::ONE_WAY != 0;
        let frames = if is_one_way { 1 } else { 2 };
        self.receive_until(|received| split(received).is_some_and(|found| found.len() >= frames));
        let received = std::mem::take(&mut self.received);
        let found = split(&received).expect("it was just split");
        assert_eq!(found.len(), frames, "an answer too many");

        let expected = sent.expected();
        let ran = self.counting.0.get() - before;
        let should_run = matches!(expected, Status::OK | Status::APPLICATION_ERROR);
        assert_eq!(ran, u32::from(should_run), "{expected:?}");
        for (head, frame) in found {
            if head.kind == Kind::Reply as u8 {
                assert_eq!(head.id, id);
                sent.check(expected, frame);
            } else {
                assert_eq!(head.kind, Kind::Pong as u8);
            }
        }
        Ok(())
    }

    fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).expect("a few bytes fit");
    }

    fn receive_until(&mut self, is_enough: impl Fn(&[u8]) -> bool) {
        for _ in 0..TURNS_MAX {
            self.shard.turn(Wait::AtMost(Duration::from_millis(1)));
            let mut buffer = [0; 4096];
            match self.stream.read(&mut buffer) {
                Ok(0) => panic!("the server has closed the connection"),
                Ok(n) => self.received.extend_from_slice(&buffer[..n]),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => panic!("{error}"),
            }
            if is_enough(&self.received) {
                return;
            }
        }
        panic!("the server does not answer");
    }
}

/// The frames, without padding, if the last one is whole.
fn split(mut bytes: &[u8]) -> Option<Vec<(Head, &[u8])>> {
    let mut frames = Vec::new();
    while !bytes.is_empty() {
        let (head, rest) = bytes.split_first_chunk()?;
        let head = Head::parse(head);
        let frame = rest.get(..head.length as usize)?;
        bytes = rest.get(head.length as usize + head.padding()..)?;
        // Credit for bodies comes when it likes.
        if head.kind != Kind::Credit as u8 {
            frames.push((head, frame));
        }
    }
    Some(frames)
}

impl Sent {
    fn arbitrary(input: &mut Unstructured<'_>) -> Result<Sent> {
        let methods = table().methods();
        let meant = input.choose(methods)?;
        let ids: Vec<u64> = methods.iter().map(MethodTable::id).collect();
        let signatures: Vec<u64> = methods
            .iter()
            .map(MethodTable::signatures)
            .flat_map(|both| [both.in_signature, both.out_signature])
            .collect();
        let id = match spoil(input, meant.id(), &ids)? {
            // It is the protocol's own, and refused in an order of its own.
            PAGE => meant.id(),
            id => id,
        };
        let codec = u64::from(meant.argument().codec.0);
        let flags = if meant.is_one_way() { u64::from(request_flags::ONE_WAY) } else { 0 };
        let deadlines = [0, u64::from(u32::MAX), 60_000_001];
        let header = RequestHeader {
            method: id,
            in_signature: spoil(input, meant.signatures().in_signature, &signatures)?,
            out_signature: spoil(input, meant.signatures().out_signature, &signatures)?,
            deadline_us: match spoil(input, 60_000_000, &deadlines)? as u32 {
                // Soon enough to be late on a busy machine.
                1..60_000_000 => 60_000_000,
                deadline => deadline,
            },
            codec: Codec(spoil(input, codec, &[0, 1, 2, 3])? as u8),
            compression: spoil(input, 0, &[1])? as u8,
            priority: input.arbitrary()?,
            attempt: 0,
        };
        let flags = spoil(input, flags, &[0, 1, 2, 4, 16, 32])? as u8;
        Ok(Sent {
            method: methods.iter().find(|method| method.id() == id),
            header,
            // Those of bodies in parts belong to bodies in parts.
            flags: flags & request_flags::ALL & !(request_flags::MORE | FLAG_CONFIRM),
            is_critical: input.ratio(1_u8, 16_u8)?,
            body: match meant.name() {
                "view" => body::<Item>(input, header.codec)?,
                "owned" => body::<Wrong>(input, header.codec)?,
                "nothing" => body::<()>(input, header.codec)?,
                _ => body::<u64>(input, header.codec)?,
            },
        })
    }

    /// What `docs/PROTOCOL.md` says, in the order in which it says it.
    fn expected(&self) -> Status {
        let Sent { header, flags, .. } = self;
        let streams = request_flags::ITEMS_IN | request_flags::ITEMS_OUT;
        let has_streams = flags & streams != 0;
        if self.is_critical || header.compression != 0 {
            return Status::UNSUPPORTED;
        }
        if has_streams && flags & request_flags::ONE_WAY != 0 {
            return Status::BAD_REQUEST;
        }
        match header.deadline_us {
            0 => return Status::EXPIRED,
            u32::MAX if !has_streams => return Status::BAD_REQUEST,
            _ => {}
        }
        let Some(method) = self.method else { return Status::UNKNOWN_METHOD };
        let signatures = method.signatures();
        let is_named = header.codec.has_names();
        if header.codec != method.argument().codec
            && !(is_named && method.argument().codec == Codec::RKYV)
        {
            return Status::UNKNOWN_CODEC;
        }
        if !is_named && header.in_signature != signatures.in_signature {
            return Status::SHAPE_MISMATCH;
        }
        // Our HELLO says that we read archives only.
        let is_read = is_named || method.is_one_way();
        if !is_read && header.out_signature != signatures.out_signature {
            return Status::SHAPE_MISMATCH;
        }
        if has_streams || method.is_one_way() != (flags & request_flags::ONE_WAY != 0) {
            return Status::BAD_REQUEST;
        }
        self.answer(method).map_or(Status::BAD_BODY, |(status, _)| status)
    }

    /// What the answer is in.
    fn reply_codec(&self, method: &MethodTable) -> Codec {
        let is_ours = self.header.out_signature == method.signatures().out_signature;
        match self.header.codec {
            Codec::JSON => Codec::JSON,
            Codec::MESSAGEPACK if !is_ours => Codec::MESSAGEPACK,
            _ => method.reply().codec,
        }
    }

    /// Status and body of the answer; `None` if the body is not the method's.
    fn answer(&self, method: &MethodTable) -> Option<(Status, Vec<u8>)> {
        let body = &self.body[..];
        let (codec, reply) = (self.header.codec, self.reply_codec(method));
        Some(match method.name() {
            "view" => {
                let item = decode::<Item>(body, codec)?;
                let status = if item.is_new { Status::APPLICATION_ERROR } else { Status::OK };
                (status, encode(&item, reply))
            }
            "owned" => {
                let Wrong { name, sizes, is_new } = decode(body, codec)?;
                (Status::OK, encode(&Item { name, sizes, is_new }, reply))
            }
            "raw" => (Status::OK, body.to_vec()),
            // There is no argument to read.
            "nothing" => (Status::OK, encode(&(), reply)),
            _ => (Status::OK, decode::<u64>(body, codec).map(|_| Vec::new())?),
        })
    }

    fn check(&self, expected: Status, frame: &[u8]) {
        let (header, body) = ReplyHeader::parse(frame).expect("a reply has a header");
        assert_eq!(header.status, expected);
        let answer = self.method.and_then(|method| self.answer(method));
        match (self.method, answer) {
            (Some(method), Some((status, answer))) if status == expected => {
                assert_eq!(header.signature, method.signatures().out_signature);
                assert_eq!(header.codec, self.reply_codec(method));
                assert_eq!(body, answer);
            }
            _ => assert_eq!((header.signature, header.codec, body), (0, Codec::RAW, &[][..])),
        }
    }
}
