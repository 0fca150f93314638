//! What goes with messages in the headers of their frames: there and back, whichever way a frame is sent, and
//! within limits.

mod harness;

use bytes::Bytes;
use harness::raw::{Raw, id, plain, request};
use harness::{Pair, bytes, raw_call};
use ringcall_core::frame::{
    Extension, ExtensionWriter, Extensions, Kind, ReplyHeader, request_flags, tag,
};
use ringcall_core::{
    Call, Cause, Codec, Config, EncodeError, Encoded, Encoding, Event, Extended, Failure, Outcome,
    Payload, ReplyError, Side, Status, Writer,
};

/// Entries of metadata, as the bytes of extensions.
fn metadata(entries: usize, value_len: usize) -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    for entry in 0..entries {
        let mut value = format!("\x04k{entry:03}").into_bytes();
        value.extend(bytes(entry as u64, value_len));
        assert!(writer.push(Extension { tag: tag::METADATA, critical: false, value: &value }));
    }
    writer.finish()
}

fn entries(extensions: &[u8]) -> usize {
    Extensions::new(extensions)
        .filter(|found| found.is_ok_and(|found| found.tag == tag::METADATA))
        .count()
}

fn with(body: &[u8], extensions: &[u8]) -> Extended<Bytes> {
    Extended { payload: Bytes::copy_from_slice(body), extensions: extensions.to_vec() }
}

/// Without TOTAL_LEN, which core adds where it cuts.
fn without_total(extensions: &[u8]) -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    for found in Extensions::new(extensions) {
        let found = found.unwrap();
        assert!(found.tag == tag::TOTAL_LEN || writer.push(found));
    }
    writer.finish()
}

#[test]
fn extensions_arrive_whichever_way_a_frame_is_sent() {
    let sizes = [0, 1, 64, 16 * 1024, 256 * 1024, 300_000, 3 << 20];
    for (flags, size) in
        [0, request_flags::ONE_WAY].into_iter().flat_map(|f| sizes.map(|size| (f, size)))
    {
        for (entries, value_len) in [(1, 0), (3, 7), (60, 110)] {
            let mut pair = Pair::established(size as u64);
            pair.net.split_max = 70_000;
            pair.server.echo = false;
            let (body, there) = (bytes(1, size), metadata(entries, value_len));
            let call = Call { flags, ..raw_call(pair.now) };
            let made = pair.client.connection.call(pair.now, &call, &with(&body, &there), 1);
            made.expect("there is room");
            pair.run();
            let request = pair.server.requests.pop().expect("it arrives");
            assert_eq!(&*request.body, &body[..]);
            assert_eq!(without_total(&request.extensions), there);
            let back = metadata(entries / 2, value_len + 1);
            let header = ReplyHeader::new(Status::OK);
            pair.server
                .connection
                .reply(pair.now, request.id, header, &with(&body, &back))
                .unwrap();
            pair.run();
            if flags == 0 {
                let Outcome::Reply(reply) = pair.client.outcome(1) else { panic!("{size}") };
                assert_eq!(&*reply.body, &body[..]);
                assert_eq!(without_total(&reply.extensions), back);
            }
        }
    }
}

#[test]
fn bodies_that_wait_for_credit_keep_their_extensions() {
    let config = Config::new().calls_window(8 << 20).send_queue_max(64 << 20);
    let mut pair = Pair::with(3, config.clone(), config).open();
    pair.server.echo = false;
    let body = bytes(2, 3 << 20);
    for ticket in 0..5 {
        let there = metadata(ticket as usize + 1, 5);
        let made = pair.client.connection.call(
            pair.now,
            &raw_call(pair.now),
            &with(&body, &there),
            ticket,
        );
        made.expect("it waits");
    }
    let mut arrived = 0;
    while arrived < 5 {
        pair.run();
        let request = pair.server.requests.remove(0);
        arrived += 1;
        assert_eq!(without_total(&request.extensions), metadata(arrived, 5));
        pair.server.reply(pair.now, request.id, Status::OK, &request.body).unwrap();
    }
}

/// One that was encoded on another thread.
#[test]
fn encoded_bodies_keep_their_extensions() {
    let mut pair = Pair::established(4);
    pair.server.echo = false;
    let pool = ringcall_core::SharedPool::new(1024);
    for len in [10, 100_000] {
        let there = metadata(2, 2);
        let mut writer = pool.writer(1 << 20);
        let payload = with(&bytes(5, len), &there);
        payload.encode(Codec::RAW, 0, &mut writer).unwrap();
        let mut encoded = Encoded::take(&pool, writer, Codec::RAW);
        encoded.extensions = payload.extensions().into();
        pair.client.connection.call(pair.now, &raw_call(pair.now), &encoded, 1).unwrap();
        pair.run();
        let request = pair.server.requests.pop().expect("it arrives");
        assert_eq!(&*request.body, &bytes(5, len)[..]);
        assert_eq!(without_total(&request.extensions), there);
    }
}

#[test]
fn beginnings_and_ends_of_streams_have_extensions() {
    for size in [0, 10, 600_000] {
        let mut pair = Pair::established(5);
        pair.server.echo = false;
        let call = Call { flags: request_flags::ITEMS_OUT, ..raw_call(pair.now) };
        let there = metadata(1, 1);
        pair.client.connection.call(pair.now, &call, &with(b"argument", &there), 9).unwrap();
        pair.run();
        let request = pair.server.requests.pop().expect("it arrives");
        assert_eq!(&*request.extensions, &there[..]);
        let ok = ReplyHeader::new(Status::OK);
        let (begin, end) = (metadata(2, 2), metadata(3, 3));
        pair.server.connection.begin_items(pair.now, request.id, ok, &begin).unwrap();
        pair.server.item(pair.now, request.id, &bytes(1, size)).unwrap();
        let failed = ReplyHeader::new(Status::APPLICATION_ERROR);
        let error = with(&bytes(3, size), &end);
        pair.server.connection.reply(pair.now, request.id, failed, &error).unwrap();
        pair.run();
        assert_eq!(pair.client.items.len(), 1);
        assert_eq!(pair.client.began_with, [begin]);
        let Outcome::Reply(reply) = pair.client.outcome(9) else { panic!("no answer") };
        assert_eq!(&*reply.body, &bytes(3, size)[..]);
        assert_eq!(without_total(&reply.extensions), end);
    }
}

/// A payload whose extensions are whatever somebody made them. Core adds its own of how long the body is and what is
/// beside it, if that needs saying.
struct Odd {
    extensions: Vec<u8>,
    beside: usize,
}

impl Payload for Odd {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        match self.beside {
            0 => Ok(()),
            len => Ok(out.attach_beside(Bytes::from(vec![7; len]).into())?),
        }
    }

    fn extensions(&self) -> &[u8] {
        &self.extensions
    }
}

#[test]
fn a07_extensions_that_do_not_fit_are_not_sent() {
    let most = Config::new().extension_bytes_max(16_320);
    assert!(Config::new().extension_bytes_max(16_336).validate().is_err());
    for (config, len, beside, fits) in [
        (most.clone(), 16_320, 0, true),
        (most.clone(), 16_320, 1000, true),
        // What is sent in parts says how long it is, too.
        (most.clone(), 16_320, 300_000, true),
        (Config::new(), 16_320, 300_000, true),
        (Config::new(), 16_336, 300_000, false),
        (most.clone(), 16_336, 0, false),
        (most, 17, 0, false),
        (Config::new().extension_bytes_max(32), 32, 0, true),
        (Config::new().extension_bytes_max(32), 48, 0, false),
    ] {
        // Padding is as good as anything.
        let odd = Odd { extensions: vec![0; len], beside };
        let mut pair = Pair::with(6, config.clone(), config).open();
        pair.server.echo = false;
        let called = pair.client.connection.call(pair.now, &raw_call(pair.now), &odd, 1);
        match called {
            Ok(_) => assert!(fits),
            Err(refused) => {
                assert!(!fits);
                assert_eq!(refused.failure, Failure::not_sent(Cause::TooMuchMetadata));
            }
        }
        pair.call(2, b"next").unwrap();
        pair.run();
        assert_eq!((pair.client.closed, pair.server.closed), (None, None));
        let request = pair.server.requests.iter().find(|request| &request.body[..] == b"next");
        let (request, ok) = (request.expect("it has arrived").id, ReplyHeader::new(Status::OK));
        let replied = pair.server.connection.reply(pair.now, request, ok, &odd);
        assert_eq!(replied.is_ok(), fits);
        pair.run();
        let Outcome::Reply(reply) = pair.client.outcome(2) else { panic!("no answer") };
        match replied {
            Ok(()) => assert_eq!(reply.header.status, Status::OK),
            Err(ReplyError::Encode(EncodeError::Extensions(_))) => {
                assert_eq!(reply.header.status, Status::REPLY_FAILED);
            }
            Err(other) => panic!("{other}"),
        }
    }
}

#[test]
fn a07_metadata_has_limits_of_its_own() {
    let cases = [
        (metadata(64, 0), None),
        (metadata(65, 0), Some(Status::TOO_MUCH_METADATA)),
        (metadata(1, 8 * 1024 - 9), None),
        (metadata(1, 8 * 1024 - 8), Some(Status::TOO_MUCH_METADATA)),
        // What a header has room for.
        (metadata(1200, 0), Some(Status::TOO_MUCH_METADATA)),
        (metadata(1, 16_300), Some(Status::TOO_MUCH_METADATA)),
    ];
    for (extensions, refused) in cases {
        let mut raw = Raw::new(Side::Server, Config::new()).open();
        let frame = request(0, b"x").with(|frame| frame.header.extend(&extensions));
        raw.send(&[frame, request(1, b"y")]);
        let statuses = raw.statuses();
        assert_eq!(statuses, refused.into_iter().collect::<Vec<_>>());
        assert_eq!(raw.requests.len(), 2 - statuses.len(), "the connection goes on");
        assert_eq!(raw.closed, None);
    }
}

#[test]
fn a07_metadata_that_is_none_refuses_its_call() {
    for value in [&b""[..], b"\x00", b"\x02k", b"\x01K", b"\x03\xff\xfe\xfd", b"\x02k\nvalue"] {
        let mut raw = Raw::new(Side::Server, Config::new()).open();
        let bad = request(0, b"x").tlv(tag::METADATA, b"\x01kvalue").tlv(tag::METADATA, value);
        raw.send(&[bad, request(1, b"y")]);
        assert_eq!(raw.statuses(), [Status::BAD_REQUEST], "{value:?}");
        assert_eq!(raw.requests.len(), 1);
    }
    // Any value will do, and a key may come twice.
    let mut raw = Raw::new(Side::Server, Config::new()).open();
    let good = request(0, b"x").tlv(tag::METADATA, b"\x01k\xff\x00").tlv(tag::METADATA, b"\x01k");
    raw.send(&[good]);
    assert_eq!(entries(&raw.requests[0].extensions), 2);
}

#[test]
fn a07_answers_with_bad_metadata_fail_their_calls() {
    for (extensions, cause) in [
        (metadata(65, 1), Some(Cause::TooMuchMetadata)),
        (metadata(64, 1), None),
        (b"\x0e\0\x02\0\x01K\0\0\0\0\0\0\0\0\0\0".to_vec(), Some(Cause::BadReply)),
    ] {
        for large in [false, true] {
            let mut raw = Raw::new(Side::Client, Config::new()).open();
            raw.call(1, b"", 0).unwrap();
            let call = id(0);
            let reply = plain(Kind::Reply).id(call).with(|frame| frame.header.extend(&extensions));
            match large {
                false => raw.send(&[reply.body(b"answer")]),
                true => {
                    let first = reply.cut(32).body(&[0; 16]);
                    raw.send(&[first, harness::raw::data(call, 16, &[0; 16])]);
                }
            }
            match (raw.outcome(1), cause) {
                (Outcome::Reply(_), None) => {}
                (Outcome::Failed(failure), Some(cause)) => {
                    assert_eq!(*failure, Failure::unknown(cause), "large: {large}");
                }
                (other, cause) => panic!("{other:?} instead of {cause:?}"),
            }
            assert_eq!(raw.closed, None);
        }
    }
}

#[test]
fn a07_what_is_understood_may_be_critical() {
    let config = Config::new().understands(tag::ATTACHMENT_LEN);
    let mut raw = Raw::new(Side::Server, config).open();
    let critical = |tag| tag | tag::CRITICAL;
    raw.send(&[
        request(0, b"x").tlv(critical(tag::ATTACHMENT_LEN), &[0; 8]),
        request(1, b"x").tlv(critical(tag::CREDENTIALS), b"secret"),
        request(2, b"x").tlv(critical(0x4002), b"as if it were shifted around"),
    ]);
    assert_eq!(raw.requests.len(), 1);
    assert_eq!(raw.statuses(), [Status::UNSUPPORTED; 2]);
}

#[test]
fn compressions_that_were_announced_are_handed_on() {
    let config = Config::new().compressions(0b100);
    let mut raw = Raw::new(Side::Server, config.clone()).open();
    raw.send(&[
        request(0, b"x").patch(29, &[2]),
        request(1, b"x").patch(29, &[1]),
        request(2, b"x").patch(29, &[200]),
    ]);
    assert_eq!(raw.requests.len(), 1);
    assert_eq!(raw.requests[0].compression, 2);
    assert_eq!(raw.statuses(), [Status::UNSUPPORTED; 2]);

    let mut pair = Pair::with(8, config.clone(), config).open();
    pair.server.echo = false;
    assert_eq!(pair.client.connection.peer().unwrap().compressions, 0b100);
    let flags = request_flags::ITEMS_OUT;
    let call = Call { flags, compression: 2, ..raw_call(pair.now) };
    pair.client.connection.call(pair.now, &call, &Bytes::from_static(b"there"), 1).unwrap();
    pair.run();
    let request = pair.server.requests.pop().expect("it arrives");
    assert_eq!(request.compression, 2);
    pair.server.begin(pair.now, request.id).unwrap();
    let encoding = Encoding { compression: 2, ..Encoding::plain(Codec::RAW, 0) };
    let item = Bytes::from_static(b"item");
    pair.server.connection.send_item(pair.now, request.id.into(), encoding, &item).unwrap();
    let header = ReplyHeader { compression: 2, ..ReplyHeader::new(Status::OK) };
    pair.server.connection.reply(pair.now, request.id, header, &Bytes::new()).unwrap();
    let batch = pair.server.transmit(pair.now, usize::MAX);
    let batch = pair.client.memory.pool().copy(&batch);
    pair.client.connection.handle_received(pair.now, batch);
    let item = loop {
        match pair.client.connection.poll_event(pair.now) {
            Some(Event::Item(_, item)) => break item,
            Some(_) => {}
            None => panic!("no item"),
        }
    };
    assert_eq!(item.encoding, encoding);
}
