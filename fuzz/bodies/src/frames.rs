//! Bytes as frames of wire v1: one header at a time, and as what a connection receives.

use std::fmt::Debug;

use crate::harness::raw::{Raw, hello};
use ringcall::TraceContext;
use ringcall_core::frame::{
    Cancel, CancelReason, Credit, DataHeader, Extension, ExtensionWriter, Extensions, GoAway, Head,
    Hello, ItemHeader, Kind, Limits, PREFACE, Ping, ReplyHeader, RequestHeader, is_metadata_key,
    parse_metadata,
};
use ringcall_core::{
    CloseReason, Config, Instant, Memory, MemoryLimits, MessageId, Outcome, Request, RequestId,
    Side, Status,
};

/// Reads the bytes as headers of every kind, then gives them to connections of both sides.
///
/// # Panics
/// When what was read does not encode to something that reads the same; when a connection depends on how
/// the bytes are cut, answers what is not a frame, or holds memory at its end.
pub fn frames(data: &[u8]) {
    headers(data);
    if let Some((&mode, bytes)) = data.split_first() {
        stream(mode, bytes);
    }
}

// ---- headers ----

fn headers(data: &[u8]) {
    if let Some(bytes) = data.first_chunk() {
        let head = Head::parse(bytes);
        assert_eq!(head.encode(), *bytes);
        if let Some(len) = head.frame_len() {
            assert!(len.is_multiple_of(16) && len >= Head::LEN + head.length as usize);
        }
        let (side, generation, slot) = (head.id.side(), head.id.generation(), head.id.slot());
        assert_eq!(MessageId::new(side, generation, slot), head.id);
        let status = Status::from_wire(head.header_len);
        let _ =
            (status.class(), status.to_string(), Kind::from_wire(head.kind).map(Kind::fixed_len));
    }
    round_trip(data, Hello::parse, Hello::encode, |_| true);
    round_trip(data, RequestHeader::parse, RequestHeader::encode, |_| true);
    round_trip(data, ReplyHeader::parse, ReplyHeader::encode, |_| true);
    round_trip(data, DataHeader::parse, DataHeader::encode, |_| true);
    round_trip(data, ItemHeader::parse, ItemHeader::encode, |_| true);
    round_trip(data, Credit::parse, Credit::encode, |bytes| bytes[8] <= 2 && bytes[9] <= 2);
    round_trip(data, Cancel::parse, Cancel::encode, |_| true);
    round_trip(data, Ping::parse, Ping::encode, |_| true);
    round_trip(data, GoAway::parse, GoAway::encode, |_| true);
    round_trip(data, Limits::parse, Limits::encode, |_| true);
    if let Some((cancel, _)) = Cancel::parse(data) {
        assert_eq!(cancel.reason == CancelReason::Dropped, !matches!(data[0], 1 | 2));
    }
    extensions(data);
    metadata(data);
}

/// What the facade makes of extensions.
fn metadata(data: &[u8]) {
    let metadata = ringcall::Metadata::new(ringcall::Bytes::copy_from_slice(data));
    assert!(metadata.len() <= data.len() / 4);
    for (key, value) in metadata.iter() {
        assert!(metadata.get(key).is_some());
        assert!(metadata.get_all(key).any(|other| other == value));
    }
    let _ = (metadata.trace_state(), metadata.baggage(), metadata.group(), metadata.caller());
    if let Some(trace) = metadata.trace() {
        assert_eq!(trace.to_string().parse(), Ok(trace));
    }
    if let Some(Ok(trace)) = std::str::from_utf8(data).ok().map(str::parse) {
        let trace: TraceContext = trace;
        assert_eq!(TraceContext::from_bytes(&trace.to_bytes()), Some((trace, "")));
    }
}

type Parse<H> = for<'a> fn(&'a [u8]) -> Option<(H, &'a [u8])>;

/// A header is read if it is long enough and `is_legal`.
fn round_trip<H: PartialEq + Debug, const N: usize>(
    data: &[u8],
    parse: Parse<H>,
    encode: fn(&H) -> [u8; N],
    is_legal: fn(&[u8; N]) -> bool,
) {
    let parsed = parse(data);
    assert_eq!(parsed.is_some(), data.first_chunk().is_some_and(is_legal));
    if let Some((header, rest)) = parsed {
        assert_eq!(rest, &data[N..]);
        let bytes = encode(&header);
        assert_eq!(parse(&bytes), Some((header, &[][..])));
    }
}

fn extensions(data: &[u8]) {
    let read: Vec<_> = Extensions::new(data).collect();
    assert!(read.len() <= data.len() / 4 + 1);
    let good: Vec<Extension<'_>> = read.iter().map_while(|found| found.ok()).collect();
    for extension in &good {
        if let Some((key, value)) = parse_metadata(extension.value) {
            assert!(is_metadata_key(key));
            assert_eq!(extension.value.len(), 1 + key.len() + value.len());
        }
    }
    // An error is the end.
    assert!(good.len() + 1 >= read.len());
    let mut writer = ExtensionWriter::new();
    for extension in &good {
        assert!(writer.push(*extension));
    }
    let bytes = writer.finish();
    assert!(Extensions::new(&bytes).eq(good.iter().copied().map(Ok)));
}

// ---- a stream of them ----

fn stream(mode: u8, bytes: &[u8]) {
    let side = if mode & 1 == 0 { Side::Server } else { Side::Client };
    let echo = mode & 2 != 0;
    let split = 1 + usize::from(mode >> 2);
    let whole = receive(side, echo, usize::MAX, bytes);
    let cut = receive(side, echo, split, bytes);
    // Somebody who said goodbye and has nothing to wait for is left as soon as nothing else has arrived.
    if whole.goaways == 0 {
        assert_eq!(whole, cut, "{side:?}, cut at {split}");
    }
}

#[derive(Debug, PartialEq)]
struct Asked {
    id: RequestId,
    numbers: [u64; 4],
    rest: [u8; 4],
    body: Vec<u8>,
    extensions: Vec<u8>,
}

thread_local! {
    /// That of all runs, since most of their time would go into making it.
    static MEMORY: Memory = Memory::new(MemoryLimits::default());
    static OPENING: Vec<u8> = [&PREFACE[..], &hello(|_| {}).bytes()].concat();
}

/// What an application saw.
#[derive(Debug, PartialEq)]
struct Seen {
    requests: Vec<Asked>,
    cancelled: Vec<RequestId>,
    done: Vec<(u64, String)>,
    pongs: usize,
    goaways: usize,
    closed: Option<CloseReason>,
    frames: u64,
}

fn receive(side: Side, echo: bool, split: usize, bytes: &[u8]) -> Seen {
    let memory = MEMORY.with(Memory::clone);
    let before = memory.pool().stats().lent_bytes;
    let mut raw = Raw::with_memory(side, small(Config::new()), &memory);
    OPENING.with(|opening| raw.send_bytes(opening));
    assert!(raw.established);
    raw.sent();
    let calls = if side == Side::Client { 3 } else { 0 };
    for ticket in 0..calls {
        raw.call(ticket, &[b'a'; 40], 0).expect("three calls are few");
    }
    raw.sent();
    raw.echo = echo;
    raw.split = split;
    raw.send_bytes(bytes);
    // Reading them checks that they are frames.
    if let (Some(reason), Some(last)) = (raw.closed, raw.sent().pop()) {
        assert!(last.is(Kind::GoAway), "{last:?}");
        assert_eq!(last.header[8..10], reason.code().0.to_le_bytes());
    }
    let (held, connection) = (raw.connection.credit_held(), &raw.connection);
    assert!(held.0 <= WINDOW && held.1 <= WINDOW, "{held:?}");
    assert!(connection.calls_served() <= 2 * IN_FLIGHT as usize, "{}", connection.calls_served());
    let requests = std::mem::take(&mut raw.requests);
    let seen = Seen {
        requests: requests.iter().map(asked).collect(),
        cancelled: raw.cancelled.iter().map(|(id, _)| *id).collect(),
        done: raw.done.iter().map(|(ticket, outcome)| (*ticket, brief(outcome))).collect(),
        pongs: raw.pongs.len(),
        goaways: raw.goaways,
        closed: raw.closed,
        frames: raw.connection.counters().frames_received,
    };
    drop(requests);
    finish(raw, calls);
    let left = memory.pool().stats().lent_bytes;
    assert!(left <= before + 2 * (64 << 10), "{left} bytes are left");
    seen
}

fn asked(request: &Request) -> Asked {
    let deadline = request.deadline.since(Instant::ZERO).as_nanos() as u64;
    Asked {
        id: request.id,
        numbers: [request.method, request.in_signature, request.out_signature, deadline],
        rest: [request.codec.0, request.priority, request.attempt, request.flags],
        body: request.body.to_vec(),
        extensions: request.extensions.to_vec(),
    }
}

const IN_FLIGHT: u32 = 16;
const MESSAGE_MAX: usize = 100_000;
const WINDOW: u64 = 200_000;

/// Limits that inputs of a few KiB can reach.
fn small(config: Config) -> Config {
    config
        .in_flight_max(IN_FLIGHT)
        .message_bytes_max(MESSAGE_MAX)
        .calls_window(WINDOW)
        .replies_window(WINDOW)
}

fn brief(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Reply(reply) => format!("{:?} {:x?}", reply.header, &reply.body[..]),
        other => format!("{other:?}"),
    }
}

/// Ends the connection: every call comes back.
fn finish(mut raw: Raw, calls: u64) {
    raw.end(CloseReason::Local);
    assert!(raw.closed.is_some());
    let mut back: Vec<_> = raw.done.iter().map(|(ticket, _)| *ticket).collect();
    back.sort_unstable();
    assert!(back.into_iter().eq(0..calls));
}
