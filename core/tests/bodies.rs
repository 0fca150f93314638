//! Bodies that lie in files, attachments, and bodies that are written to files as they arrive: over two
//! connections, with a disk that can shrink, break and be full.

mod harness;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use harness::{Pair, bytes, raw_call};
use ringcall_core::frame::{CancelReason, ReplyHeader, request_flags};
use ringcall_core::{
    Attached, CallId, Cancellation, Cause, CloseReason, Codec, Config, EncodeError, Encoding,
    Entropy, External, FailureClass, ItemError, Object, ObjectError, Outcome, Payload, Segment,
    Status, Writer,
};

/// A file of a test.
#[derive(Debug, Default)]
struct Disk {
    bytes: Mutex<Vec<u8>>,
    /// Writes beyond it fail.
    full_at: Option<usize>,
    /// Reads from here on fail.
    broken_at: Mutex<Option<usize>>,
}

const ENOSPC: i32 = 28;
const EIO: i32 = 5;

impl Disk {
    fn with(bytes: &[u8]) -> Arc<Disk> {
        Arc::new(Disk { bytes: Mutex::new(bytes.to_vec()), ..Disk::default() })
    }

    fn shrink(&self, len: usize) {
        self.bytes.lock().unwrap().truncate(len);
    }
}

impl Object for Disk {
    fn read_at(&self, offset: u64, into: &mut [u8]) -> Result<usize, ObjectError> {
        let at = offset as usize;
        if self.broken_at.lock().unwrap().is_some_and(|broken| at + into.len() > broken) {
            return Err(ObjectError::Os(EIO));
        }
        let bytes = self.bytes.lock().unwrap();
        let rest = bytes.get(at..).unwrap_or_default();
        let n = rest.len().min(into.len());
        into[..n].copy_from_slice(&rest[..n]);
        Ok(n)
    }

    fn write_at(&self, offset: u64, part: &[u8]) -> Result<(), ObjectError> {
        let end = offset as usize + part.len();
        if self.full_at.is_some_and(|full| end > full) {
            return Err(ObjectError::Os(ENOSPC));
        }
        let mut bytes = self.bytes.lock().unwrap();
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        bytes[offset as usize..end].copy_from_slice(part);
        Ok(())
    }
}

fn range(disk: &Arc<Disk>, offset: u64, len: usize) -> External {
    External::new(Arc::clone(disk) as Arc<dyn Object>, offset, len)
}

/// A message, what is beside it, and where the reply's attachment is to land.
struct Beside<'a> {
    message: &'a [u8],
    attachment: Option<Segment>,
    landing: Option<External>,
}

fn beside(message: &[u8], attachment: impl Into<Segment>) -> Beside<'_> {
    Beside { message, attachment: Some(attachment.into()), landing: None }
}

impl Payload for Beside<'_> {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        out.put(self.message)?;
        match &self.attachment {
            Some(attachment) => Ok(out.attach_beside(attachment.clone())?),
            None => Ok(()),
        }
    }

    fn landing(&self) -> Option<External> {
        self.landing.clone()
    }
}

fn call(pair: &mut Pair, ticket: u64, payload: &Beside<'_>) -> CallId {
    let call = raw_call(pair.now);
    pair.client.connection.call(pair.now, &call, payload, ticket).unwrap()
}

fn pair(seed: u64) -> Pair {
    let mut pair = Pair::established(seed);
    pair.server.echo = false;
    pair.net.split_max = 3000;
    pair
}

fn reply(pair: &mut Pair, payload: &Beside<'_>) {
    let request = pair.server.requests.pop().expect("a request has arrived");
    let header = ReplyHeader::new(Status::OK);
    pair.server.connection.reply(pair.now, request.id, header, payload).unwrap();
}

/// Nothing of any call is left on either side.
fn assert_clean(pair: &Pair) {
    for peer in [&pair.client, &pair.server] {
        assert_eq!(peer.closed, None, "the connection goes on");
        assert_eq!(peer.connection.calls_in_flight(), 0);
        assert_eq!(peer.connection.calls_served(), 0);
        assert_eq!(peer.connection.credit_held(), (0, 0));
    }
}

#[test]
fn ranges_of_files_arrive_as_requests_and_replies() {
    for (seed, len) in
        [1, 15, 16, 17, 5000, 16_384, 262_144, 262_145, 1_000_001].into_iter().enumerate()
    {
        let mut pair = pair(seed as u64);
        let content = bytes(seed as u64, len + 100);
        let disk = Disk::with(&content);
        call(&mut pair, 1, &beside(b"message", range(&disk, 100, len)));
        pair.run();
        let request = pair.server.requests[0].clone();
        assert_eq!(request.attached, Attached::InBody(len));
        let mut body = request.body.clone();
        let tail = request.attached.split(&mut body).unwrap();
        assert_eq!((&*body, &*tail), (&b"message"[..], &content[100..]));
        reply(&mut pair, &beside(b"", range(&disk, 0, len)));
        pair.run();
        assert_eq!(pair.client.answer(1), &content[..len]);
        assert!(pair.server.connection.counters().sent_from_files == len as u64);
        drop(request);
        assert_clean(&pair);
        assert_eq!(Arc::strong_count(&disk), 1, "nobody holds the file any more");
    }
}

#[test]
fn attachments_in_memory_need_no_confirmation() {
    let mut pair = pair(3);
    let attachment = bytes(3, 500_000);
    call(&mut pair, 1, &beside(b"m", bytes::Bytes::from(attachment.clone())));
    pair.run();
    let request = &pair.server.requests[0];
    assert_eq!(request.attached, Attached::InBody(500_000));
    assert_eq!(&request.body[1..], &attachment[..]);
    reply(&mut pair, &beside(b"reply", bytes::Bytes::from_static(b"beside")));
    pair.run();
    assert_eq!(pair.client.answer(1), b"replybeside");
    let Outcome::Reply(reply) = pair.client.outcome(1) else { panic!("it was answered") };
    assert_eq!(reply.attached, Attached::InBody(6));
    assert_clean(&pair);
}

#[test]
fn e01_a_file_that_shrinks_under_an_argument_ends_the_call_and_nothing_else() {
    for (seed, (len, left)) in
        [(100, 99), (100, 0), (300_000, 10), (300_000, 262_143), (1_000_000, 700_000)]
            .into_iter()
            .enumerate()
    {
        let mut pair = pair(seed as u64);
        let disk = Disk::with(&bytes(9, len));
        disk.shrink(left);
        let id = call(&mut pair, 1, &beside(b"m", range(&disk, 0, len)));
        pair.run();
        match pair.client.outcome(1) {
            Outcome::Failed(failure) => {
                assert_eq!(failure.cause, Cause::Unreadable(ObjectError::Ended));
                assert!(failure.is_safe_to_retry());
                assert_eq!(failure.class, FailureClass::Refused);
            }
            other => panic!("{other:?}"),
        }
        assert!(pair.server.requests.is_empty(), "zeros are never delivered");
        assert!(pair.client.connection.cancel(pair.now, id, CancelReason::Dropped).is_none());
        pair.server.echo = true;
        pair.call(2, b"after it").unwrap();
        pair.run();
        assert_eq!(pair.client.answer(2), b"after it");
        assert_clean(&pair);
    }
}

#[test]
fn e01_a_file_that_shrinks_under_an_answer_is_a_status_for_its_caller() {
    for (seed, (len, left)) in
        [(100, 99), (300_000, 10), (1_000_000, 999_999)].into_iter().enumerate()
    {
        let mut pair = pair(seed as u64);
        let disk = Disk::with(&bytes(9, len));
        call(&mut pair, 1, &Beside { message: b"q", attachment: None, landing: None });
        pair.run();
        disk.shrink(left);
        reply(&mut pair, &beside(b"m", range(&disk, 0, len)));
        pair.run();
        match pair.client.outcome(1) {
            Outcome::Reply(reply) => {
                assert_eq!((reply.header.status, reply.body.len()), (Status::REPLY_FAILED, 0));
            }
            other => panic!("{other:?}"),
        }
        assert_eq!(pair.server.connection.counters().bodies_unreadable, 1);
        assert_clean(&pair);
    }
}

#[test]
fn a_disk_that_breaks_in_the_middle_is_told_as_it_is() {
    let mut pair = pair(5);
    let disk = Disk::with(&bytes(9, 600_000));
    *disk.broken_at.lock().unwrap() = Some(300_000);
    call(&mut pair, 1, &beside(b"m", range(&disk, 0, 600_000)));
    pair.run();
    let Outcome::Failed(failure) = pair.client.outcome(1) else { panic!("it cannot succeed") };
    assert_eq!(failure.cause, Cause::Unreadable(ObjectError::Os(EIO)));
    assert_clean(&pair);
}

#[test]
fn one_way_calls_with_files_are_sent_when_they_are_confirmed() {
    for is_short in [false, true] {
        let mut pair = pair(6);
        let disk = Disk::with(&bytes(6, 400_000));
        if is_short {
            disk.shrink(399_999);
        }
        let mut call = raw_call(pair.now);
        call.flags = request_flags::ONE_WAY;
        let payload = beside(b"m", range(&disk, 0, 400_000));
        pair.client.connection.call(pair.now, &call, &payload, 1).unwrap();
        pair.run();
        assert_eq!(matches!(pair.client.outcome(1), Outcome::Sent), !is_short);
        assert_eq!(pair.server.requests.len(), usize::from(!is_short));
        if let Some(request) = pair.server.requests.pop() {
            let header = ReplyHeader::new(Status::OK);
            pair.server
                .connection
                .reply(pair.now, request.id, header, &bytes::Bytes::new())
                .unwrap();
        }
        assert_clean(&pair);
    }
}

#[test]
fn e01_items_in_files_arrive_or_end_their_stream() {
    for is_short in [false, true] {
        let mut pair = pair(7);
        let content = bytes(7, 500_000);
        let disk = Disk::with(&content);
        let flags = request_flags::ITEMS_OUT | request_flags::ITEMS_IN;
        let id = pair.call_with(1, b"q", |call| call.flags = flags).unwrap();
        pair.run();
        let request = pair.server.requests.pop().unwrap();
        pair.server.begin(pair.now, request.id).unwrap();
        let send = |peer: &mut harness::Peer, now, stream: ringcall_core::StreamId| {
            let item = beside(b"i", range(&disk, 0, 500_000));
            peer.connection.send_item(now, stream, Encoding::plain(Codec::RAW, 0), &item)
        };
        send(&mut pair.server, pair.now, request.id.into()).unwrap();
        let second = send(&mut pair.server, pair.now, request.id.into());
        assert_eq!(second, Err(ItemError::Blocked), "one at a time");
        pair.run();
        assert_eq!(&pair.client.items[0].1[1..], &content[..]);
        if is_short {
            disk.shrink(100);
        }
        send(&mut pair.server, pair.now, request.id.into()).unwrap();
        pair.run();
        if is_short {
            assert_eq!(pair.server.cancelled, [(request.id, Cancellation::Unreadable)]);
            let Outcome::Reply(end) = pair.client.outcome(1) else { panic!("it was answered") };
            assert_eq!(end.header.status, Status::CANCELLED_RUNNING, "what this application says");
            assert_eq!(pair.client.items.len(), 1, "zeros are never delivered");
            assert_clean(&pair);
            continue;
        }
        // The caller's own item.
        disk.shrink(100);
        send(&mut pair.client, pair.now, id.into()).unwrap();
        pair.run();
        let Outcome::Failed(failure) = pair.client.outcome(1) else { panic!("it cannot go on") };
        assert_eq!(failure.cause, Cause::Unreadable(ObjectError::Ended));
        assert_eq!(failure.class, FailureClass::Unknown);
        assert!(pair.server.items.is_empty());
        assert_clean(&pair);
    }
}

#[test]
fn attachments_of_replies_land_where_the_caller_says() {
    for (seed, len) in [0, 1, 100, 17_000, 262_144, 1_000_000].into_iter().enumerate() {
        let mut pair = pair(seed as u64);
        let content = bytes(4, len);
        let (from, to) = (Disk::with(&content), Disk::with(b""));
        let landing = Some(range(&to, 10, 2_000_000));
        call(&mut pair, 1, &Beside { message: b"q", attachment: None, landing });
        pair.run();
        match seed % 2 {
            0 => reply(&mut pair, &beside(b"message", range(&from, 0, len))),
            _ => reply(&mut pair, &beside(b"message", bytes::Bytes::from(content.clone()))),
        }
        pair.run();
        assert_eq!(pair.client.answer(1), b"message");
        let Outcome::Reply(reply) = pair.client.outcome(1) else { panic!("it was answered") };
        match len {
            0 => assert_eq!(reply.attached, Attached::Nothing),
            len => assert_eq!(reply.attached, Attached::Landed(len as u64)),
        }
        assert_eq!(to.bytes.lock().unwrap().get(10..).unwrap_or_default(), &content[..]);
        let counters = pair.client.connection.counters();
        assert_eq!(counters.landed_in_files, len as u64);
        // The message, and frames that are small enough to be gathered.
        let gathered = if len < 16_000 { len + 14 } else { 14 };
        assert!(counters.copied_bytes() <= gathered as u64, "{counters:?}");
        assert_clean(&pair);
        assert_eq!((Arc::strong_count(&to), Arc::strong_count(&from)), (1, 1));
    }
}

#[test]
fn e01_a_full_disk_ends_the_call_and_not_the_connection() {
    for (full_at, room) in [(0, 600_000), (300_000, 600_000), (usize::MAX, 599_999)] {
        let mut pair = pair(8);
        let to = Arc::new(Disk { full_at: Some(full_at), ..Disk::default() });
        let landing = Some(range(&to, 0, room));
        call(&mut pair, 1, &Beside { message: b"q", attachment: None, landing });
        pair.run();
        reply(&mut pair, &beside(b"m", bytes::Bytes::from(bytes(1, 600_000))));
        pair.run();
        let Outcome::Failed(failure) = pair.client.outcome(1) else { panic!("it cannot succeed") };
        let expected = match full_at {
            usize::MAX => ObjectError::NoRoom,
            _ => ObjectError::Os(ENOSPC),
        };
        assert_eq!(failure.cause, Cause::Unwritable(expected));
        assert!(!failure.is_safe_to_retry(), "the handler has run");
        pair.server.echo = true;
        pair.call(2, b"after it").unwrap();
        pair.run();
        assert_eq!(pair.client.answer(2), b"after it");
        assert_clean(&pair);
    }
}

/// Once a call has failed, its place is its caller's again.
#[test]
fn a_call_that_cannot_land_ends_when_nothing_of_it_is_written_any_more() {
    let mut pair = Pair::with(9, Config::new(), Config::new().cut_bytes(4096)).open();
    pair.server.echo = false;
    pair.client.hold_writes = true;
    // The first writes succeed, and those behind them fail.
    let to = Arc::new(Disk { full_at: Some(100_000), ..Disk::default() });
    let landing = Some(range(&to, 90_000, 600_000));
    call(&mut pair, 1, &Beside { message: b"q", attachment: None, landing });
    pair.run();
    reply(&mut pair, &beside(b"m", bytes::Bytes::from(bytes(1, 600_000))));
    pair.run();
    let under_way = pair.client.writing.len();
    assert!(under_way > 10, "{under_way}");
    for left in (0..under_way).rev() {
        assert!(pair.client.done.is_empty(), "it has ended with {left} writes under way");
        pair.client.finish_write(pair.now);
    }
    let Outcome::Failed(failure) = pair.client.outcome(1) else { panic!("it is full") };
    assert_eq!(failure.cause, Cause::Unwritable(ObjectError::Os(ENOSPC)));
    assert_clean(&pair);
}

/// What arrived whole before the other side ended its stream counts, also if it is not at its place yet.
#[test]
fn e03_a_reply_that_is_still_written_outlives_the_end_of_input() {
    let mut pair = pair(10);
    pair.client.hold_writes = true;
    let to = Disk::with(b"");
    let landing = Some(range(&to, 0, 600_000));
    call(&mut pair, 1, &Beside { message: b"q", attachment: None, landing });
    pair.run();
    let content = bytes(1, 600_000);
    reply(&mut pair, &beside(b"m", bytes::Bytes::from(content.clone())));
    pair.run();
    pair.client.connection.handle_input_end(pair.now);
    pair.client.drain(pair.now);
    assert!(pair.client.done.is_empty());
    while pair.client.finish_write(pair.now) {}
    let Outcome::Reply(reply) = pair.client.outcome(1) else { panic!("it was here whole") };
    assert_eq!(reply.attached, Attached::Landed(600_000));
    assert!(*to.bytes.lock().unwrap() == content);
    pair.client.drain(pair.now);
    assert_eq!(pair.client.closed, Some(CloseReason::PeerClosed));
}

/// Whatever was to be written for a call that has failed counts no more.
#[test]
fn a_disk_that_stays_full_does_not_stop_the_connection() {
    // Many parts, and so many writes, in what arrives at a time.
    let mut pair = Pair::with(9, Config::new(), Config::new().cut_bytes(4096)).open();
    pair.server.echo = false;
    let to = Arc::new(Disk { full_at: Some(0), ..Disk::default() });
    for ticket in 1..=30 {
        let landing = Some(range(&to, 0, 600_000));
        call(&mut pair, ticket, &Beside { message: b"q", attachment: None, landing });
        pair.run();
        reply(&mut pair, &beside(b"m", bytes::Bytes::from(bytes(1, 600_000))));
        pair.run();
        let Outcome::Failed(failure) = pair.client.outcome(ticket) else { panic!("it is full") };
        assert_eq!(failure.cause, Cause::Unwritable(ObjectError::Os(ENOSPC)));
    }
    pair.server.echo = true;
    pair.call(31, b"after them").unwrap();
    pair.run();
    assert_eq!(pair.client.answer(31), b"after them");
    assert_clean(&pair);
}

#[test]
fn files_and_cancels_and_shrinking_in_any_order_leave_nothing_behind() {
    for seed in 0..60 {
        let mut pair = pair(seed);
        pair.net.delay_max = Duration::from_millis(2);
        pair.net.send_max = 100_000;
        let content = bytes(seed, 700_000);
        let (disk, to) = (Disk::with(&content), Disk::with(b""));
        let mut open = Vec::new();
        for ticket in 0..30 {
            match pair.rng.below(6) {
                0..=2 => {
                    let len = 1 + pair.rng.below(700_000) as usize;
                    let landing = (pair.rng.below(2) == 0).then(|| range(&to, 0, 700_000));
                    let attachment = Some(range(&disk, 0, len).into());
                    let payload = Beside { message: b"m", attachment, landing };
                    open.push(call(&mut pair, ticket, &payload));
                }
                3 => {
                    let at = pair.rng.below(open.len() as u64 + 1) as usize;
                    if let Some(&id) = open.get(at) {
                        let _ticket =
                            pair.client.connection.cancel(pair.now, id, CancelReason::Dropped);
                    }
                }
                4 if !pair.server.requests.is_empty() => {
                    let len = 1 + pair.rng.below(700_000) as usize;
                    reply(&mut pair, &beside(b"r", range(&disk, 0, len)));
                }
                _ if pair.rng.below(10) == 0 => disk.shrink(pair.rng.below(700_000) as usize),
                _ => {}
            }
            let time = Duration::from_millis(pair.rng.below(4));
            pair.run_for(time);
        }
        // Requests that waited for credit arrive when others are answered.
        pair.run();
        while !pair.server.requests.is_empty() {
            reply(&mut pair, &beside(b"r", range(&disk, 0, 10)));
            pair.run();
        }
        for (_, outcome) in &pair.client.done {
            if let Outcome::Reply(reply) = outcome
                && let Attached::InBody(len) = reply.attached
            {
                assert_eq!(
                    &reply.body[1..],
                    &content[..len],
                    "never anything but the file's bytes"
                );
            }
        }
        pair.client.done.clear();
        assert_clean(&pair);
        assert_eq!((Arc::strong_count(&to), Arc::strong_count(&disk)), (1, 1));
    }
}
