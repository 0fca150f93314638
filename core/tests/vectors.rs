//! `docs/PROTOCOL.md` is the specification: every vector on it decodes to what it says, and encodes
//! to the same bytes again.

use std::collections::BTreeMap;

use ringcall_core::frame::{
    ArchiveFormat, Cancel, CancelReason, Credit, CreditPool, CreditUnit, DataHeader, Extension,
    ExtensionWriter, Extensions, FLAG_ACK, FLAG_CONFIRM, FLAG_ITEMS, FLAG_MORE, GoAway, Head,
    Hello, InstanceId, ItemHeader, Kind, Limits, PREFACE, Ping, ReplyHeader, RequestHeader,
    request_flags, tag,
};
use ringcall_core::{CloseCode, Codec, MessageId, Side, Status, method_id};

const SPECIFICATION: &str = include_str!("../../docs/PROTOCOL.md");

fn vectors() -> BTreeMap<&'static str, Vec<u8>> {
    let mut blocks = BTreeMap::new();
    for block in SPECIFICATION.split("```vector ").skip(1) {
        let (name, rest) = block.split_once('\n').expect("a vector has a name");
        let (hex, _) = rest.split_once("```").expect("a vector ends");
        let bytes = hex.split_whitespace().map(|b| u8::from_str_radix(b, 16).expect("hex"));
        assert!(blocks.insert(name, bytes.collect()).is_none(), "{name} twice");
    }
    blocks
}

fn call() -> MessageId {
    MessageId::new(Side::Client, 3, 7)
}

fn total_len(total: u64) -> Vec<u8> {
    length(tag::TOTAL_LEN, total)
}

fn length(tag: u16, len: u64) -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    assert!(writer.push(Extension { tag, critical: true, value: &len.to_le_bytes() }));
    writer.finish()
}

fn request() -> RequestHeader {
    RequestHeader {
        method: method_id("demo.Echo/echo"),
        in_signature: 0,
        out_signature: 0,
        deadline_us: 1_000_000,
        codec: Codec::RAW,
        compression: 0,
        priority: 0,
        attempt: 0,
    }
}

/// A frame, put together by hand.
fn frame(kind: Kind, flags: u8, id: MessageId, parts: &[&[u8]], body: &[u8]) -> Vec<u8> {
    let header: Vec<u8> = parts.concat();
    let head = Head {
        length: (header.len() + body.len()) as u32,
        kind: kind as u8,
        flags,
        header_len: header.len() as u16,
        id,
    };
    let mut bytes = [&head.encode()[..], &header, body].concat();
    bytes.resize(bytes.len().next_multiple_of(16), 0);
    bytes
}

fn none() -> MessageId {
    MessageId::CONNECTION
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        archive: ArchiveFormat::STANDARD,
        compressions: 0b110,
        in_flight_max: 1024,
        features: 0,
        codecs: 3,
        message_bytes_max: 4 << 20,
        calls_window: 8 << 20,
        replies_window: 8 << 20,
        stream_window: 1 << 20,
        table_digest: 0x1122_3344_5566_7788,
        instance: InstanceId(core::array::from_fn(|i| i as u8)),
    }
}

fn reply() -> ReplyHeader {
    ReplyHeader {
        queue_us: 5,
        handler_us: 42,
        load: 100,
        retry_after_ms: 250,
        admission: 2,
        ..ReplyHeader::new(Status::OK)
    }
}

fn two_extensions() -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    assert!(writer.push(Extension { tag: tag::ASKED_GROUP, critical: false, value: b"blu" }));
    assert!(writer.push(Extension { tag: tag::METADATA, critical: false, value: b"\x03key++" }));
    writer.finish()
}

fn identity() -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    assert!(writer.push(Extension { tag: tag::IDENTITY, critical: false, value: b"quotes-1" }));
    writer.finish()
}

fn all_extensions() -> Vec<u8> {
    let critical = [tag::TOTAL_LEN, tag::ATTACHMENT_LEN, tag::CREDENTIALS, tag::CRC32C];
    let mut writer = ExtensionWriter::new();
    for tag in tag::ALL {
        let number = u64::from(tag).to_le_bytes();
        let value = match tag {
            tag::TOTAL_LEN | tag::ATTACHMENT_LEN | tag::REPLY_CREDIT => &number[..],
            tag::RETRY_TOKENS | tag::CRC32C => &number[..4],
            tag::TRACE_CONTEXT => &[4, 4],
            tag::METADATA => b"\x01kv",
            _ => &number[..1],
        };
        assert!(writer.push(Extension { tag, critical: critical.contains(&tag), value }));
    }
    writer.finish()
}

/// What each vector stands for, built from values.
fn meant() -> BTreeMap<&'static str, Vec<u8>> {
    let ping = Ping { opaque: core::array::from_fn(|i| i as u8) }.encode();
    let limits = Limits { in_flight_max: 64, message_bytes_max: 65_536 }.encode();
    let one_way = MessageId::new(Side::Client, 1, 0);
    let second = RequestHeader { attempt: 1, ..request() };
    let item = ItemHeader { signature: 0x0807_0605_0403_0201, codec: Codec::RKYV, compression: 0 };
    let stream_credit = Credit { amount: 256, pool: CreditPool::Call, unit: CreditUnit::Items };
    let begins = ReplyHeader {
        signature: 0x0807_0605_0403_0201,
        queue_us: 5,
        handler_us: 42,
        ..ReplyHeader::new(Status::OK)
    };
    let credit = Credit { amount: 2 << 20, pool: CreditPool::Calls, unit: CreditUnit::Bytes };
    let go_away = GoAway { accepted: 41, code: CloseCode::NONE };
    let front = b"front of a body ";
    BTreeMap::from([
        ("preface", PREFACE.to_vec()),
        ("hello", frame(Kind::Hello, 0, none(), &[&hello().encode()], b"")),
        ("hello-identity", frame(Kind::Hello, 0, none(), &[&hello().encode(), &identity()], b"")),
        (
            "request",
            frame(Kind::Request, request_flags::IDEMPOTENT, call(), &[&second.encode()], b"hello"),
        ),
        (
            "request-one-way",
            frame(Kind::Request, request_flags::ONE_WAY, one_way, &[&request().encode()], b""),
        ),
        (
            "request-more",
            frame(Kind::Request, FLAG_MORE, call(), &[&request().encode(), &total_len(20)], front),
        ),
        (
            "request-extensions",
            frame(
                Kind::Request,
                0,
                MessageId::new(Side::Client, 2, 0),
                &[&request().encode(), &two_extensions()],
                b"",
            ),
        ),
        ("extensions-all", all_extensions()),
        ("reply", frame(Kind::Reply, 0, call(), &[&reply().encode()], b"hello")),
        ("data", frame(Kind::Data, 0, call(), &[&DataHeader { offset: 16 }.encode()], b"tail")),
        ("item", frame(Kind::Item, 0, call(), &[&item.encode()], b"item")),
        ("end", frame(Kind::End, 0, call(), &[&ReplyHeader::new(Status::OK).encode()], b"")),
        ("reply-items", frame(Kind::Reply, FLAG_ITEMS, call(), &[&begins.encode()], b"")),
        ("credit", frame(Kind::Credit, 0, none(), &[&credit.encode()], b"")),
        ("credit-stream", frame(Kind::Credit, 0, call(), &[&stream_credit.encode()], b"")),
        (
            "cancel",
            frame(
                Kind::Cancel,
                0,
                call(),
                &[&Cancel { reason: CancelReason::Expired }.encode()],
                b"",
            ),
        ),
        (
            "request-confirm",
            frame(
                Kind::Request,
                request_flags::MORE | FLAG_CONFIRM,
                call(),
                &[&request().encode(), &total_len(5)],
                b"hello",
            ),
        ),
        ("data-confirm", frame(Kind::Data, 0, call(), &[&DataHeader { offset: 5 }.encode()], b"")),
        (
            "reply-void",
            frame(Kind::Reply, 0, call(), &[&ReplyHeader::new(Status::REPLY_FAILED).encode()], b""),
        ),
        (
            "request-attachment",
            frame(
                Kind::Request,
                0,
                call(),
                &[&request().encode(), &length(tag::ATTACHMENT_LEN, 2)],
                b"hello++",
            ),
        ),
        ("ping", frame(Kind::Ping, 0, none(), &[&ping], b"")),
        ("pong", frame(Kind::Pong, 0, none(), &[&ping], b"")),
        ("goaway", frame(Kind::GoAway, 0, none(), &[&go_away.encode()], b"")),
        ("limits", frame(Kind::Limits, 0, none(), &[&limits], b"")),
        ("limits-ack", frame(Kind::Limits, FLAG_ACK, none(), &[&limits], b"")),
    ])
}

#[test]
fn the_vectors_are_what_they_say() {
    let (meant, documented) = (meant(), vectors());
    assert_eq!(
        meant.keys().collect::<Vec<_>>(),
        documented.keys().collect::<Vec<_>>(),
        "the vectors on the page are the ones tested"
    );
    for (name, bytes) in &meant {
        assert_eq!(hex(bytes), hex(&documented[name]), "{name}");
    }
}

/// Decodes a frame and encodes what was decoded, down to its extensions.
fn round_trip(bytes: &[u8]) -> (Kind, Vec<u8>) {
    let head = Head::parse(bytes[..16].try_into().expect("a head"));
    let kind = Kind::from_wire(head.kind).expect("a kind of v1");
    assert_eq!(head.frame_len(), Some(bytes.len()));
    assert_eq!(head.flags & !kind.known_flags(), 0);
    let (header, body) = bytes[16..16 + head.length as usize].split_at(head.header_len.into());
    fn again<H, const N: usize>(
        parsed: Option<(H, &[u8])>,
        encode: impl Fn(&H) -> [u8; N],
    ) -> (Vec<u8>, &[u8]) {
        let (header, rest) = parsed.expect("the fixed part is whole");
        (encode(&header).to_vec(), rest)
    }
    let (fixed, rest) = match kind {
        Kind::Hello => again(Hello::parse(header), Hello::encode),
        Kind::Request => again(RequestHeader::parse(header), RequestHeader::encode),
        Kind::Reply | Kind::End => again(ReplyHeader::parse(header), ReplyHeader::encode),
        Kind::Data => again(DataHeader::parse(header), DataHeader::encode),
        Kind::Item => again(ItemHeader::parse(header), ItemHeader::encode),
        Kind::Credit => again(Credit::parse(header), Credit::encode),
        Kind::Cancel => again(Cancel::parse(header), Cancel::encode),
        Kind::Ping | Kind::Pong => again(Ping::parse(header), Ping::encode),
        Kind::GoAway => again(GoAway::parse(header), GoAway::encode),
        Kind::Limits => again(Limits::parse(header), Limits::encode),
    };
    assert_eq!(fixed.len(), kind.fixed_len());
    let mut extensions = ExtensionWriter::new();
    for extension in Extensions::new(rest) {
        assert!(extensions.push(extension.expect("well formed")));
    }
    (kind, frame(kind, head.flags, head.id, &[&fixed, &extensions.finish()], body))
}

#[test]
fn every_kind_and_every_tag_has_a_vector_and_round_trips() {
    let documented = vectors();
    let mut kinds = Vec::new();
    for (name, bytes) in &documented {
        if matches!(*name, "preface" | "extensions-all") {
            continue;
        }
        let (kind, again) = round_trip(bytes);
        assert_eq!(hex(&again), hex(bytes), "{name}");
        kinds.push(kind);
    }
    assert!(Kind::ALL.iter().all(|kind| kinds.contains(kind)));
    let tags: Vec<u16> = Extensions::new(&documented["extensions-all"])
        .map(|extension| extension.expect("well formed").tag)
        .collect();
    assert_eq!(tags, tag::ALL);
}

#[test]
fn the_tables_on_the_page_are_the_code() {
    for (status, name) in Status::ALL {
        let row = format!("| {:#06x} | {name} |", status.to_wire());
        assert!(SPECIFICATION.contains(&row), "no row {row}");
    }
    for kind in Kind::ALL {
        let row = format!(
            "| {} | {} | {} |",
            format!("{kind:?}").to_uppercase(),
            kind as u8,
            kind.fixed_len()
        );
        assert!(SPECIFICATION.contains(&row), "no row {row}");
    }
    let id = format!("`{:016x}`", method_id("demo.Echo/echo"));
    assert!(SPECIFICATION.contains(&id));
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .chunks(16)
        .map(|row| row.iter().map(|b| format!("{b:02x} ")).collect::<String>() + "\n")
        .collect()
}
