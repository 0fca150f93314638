//! Calls with streams of items: what both sides see, whatever the network does and whoever ends first.

mod harness;

use std::collections::HashMap;
use std::time::Duration;

use harness::raw::{Frame, Raw, data, id, nth_id, plain, request};
use harness::{Pair, bytes, raw_call, skewed};
use ringcall_core::frame::{
    CancelReason, Credit, CreditPool, CreditUnit, FLAG_ITEMS, FLAG_MORE, Kind, ReplyHeader,
    request_flags, tag,
};
use ringcall_core::{
    Call, CallId, Cancellation, Cause, CloseReason, Config, Entropy, Event, FailureClass, Instant,
    ItemError, Outcome, RequestId, Side, SplitMix64, Status, StreamId,
};

const SECOND: Duration = Duration::from_secs(1);
const IN: u8 = request_flags::ITEMS_IN;
const OUT: u8 = request_flags::ITEMS_OUT;

/// A pair whose server keeps its requests.
fn pair(seed: u64) -> Pair {
    let mut pair = Pair::established(seed);
    pair.server.echo = false;
    pair
}

/// Makes a call with streams, and lets it arrive.
fn open(pair: &mut Pair, ticket: u64, flags: u8) -> (CallId, RequestId) {
    let call = pair.call_with(ticket, b"argument", |call| call.flags = flags).expect("a call");
    pair.run();
    (call, pair.server.requests.pop().expect("it has arrived").id)
}

/// Ends a call with OK.
fn finish(pair: &mut Pair, request: RequestId) {
    pair.server
        .connection
        .reply(pair.now, request, ReplyHeader::new(Status::OK), &bytes::Bytes::from_static(b"end"))
        .expect("it runs");
}

/// Everything is as it was when the connection opened.
#[track_caller]
fn assert_at_rest(pair: &Pair) {
    for (peer, other) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        let connection = &peer.connection;
        assert_eq!(connection.calls_in_flight(), 0);
        assert_eq!(connection.calls_served(), 0);
        assert_eq!(connection.bytes_queued(), 0);
        assert_eq!(connection.credit_held(), (0, 0));
        assert_eq!(connection.items_held(), (0, 0));
        let (calls, replies) = other.connection.credit_available();
        assert!(calls > 6 << 20 && replies > 6 << 20, "{calls} {replies}");
    }
}

#[test]
fn items_go_both_ways_in_order_and_the_end_comes_last() {
    let mut pair = pair(1);
    let (call, request) = open(&mut pair, 7, IN | OUT);
    pair.server.begin(pair.now, request).unwrap();
    let sizes = [0, 1, 100, 70_000, 3, 300_000, 4 << 20, 16];
    let mut left = [sizes.iter().enumerate(), sizes.iter().enumerate()];
    let mut next = [left[0].next(), left[1].next()];
    while next.iter().any(Option::is_some) {
        if let Some((n, size)) = next[0]
            && pair.client.item(pair.now, call, &bytes(n as u64, *size)).is_ok()
        {
            next[0] = left[0].next();
        }
        if let Some((n, size)) = next[1]
            && pair.server.item(pair.now, request, &bytes(100 + n as u64, *size)).is_ok()
        {
            next[1] = left[1].next();
        }
        pair.step();
    }
    pair.client.connection.end_items(pair.now, call);
    finish(&mut pair, request);
    pair.run();
    let items = |seed: u64| -> Vec<Vec<u8>> {
        sizes.iter().enumerate().map(|(n, size)| bytes(seed + n as u64, *size)).collect()
    };
    assert!(pair.server.items_of(request) == items(0));
    assert!(pair.client.items_of(call) == items(100));
    assert_eq!(pair.client.answering, [call]);
    assert_eq!(pair.client.answer(7), b"end");
    assert_at_rest(&pair);
}

#[test]
fn a_stream_of_the_caller_has_one_final_reply() {
    let mut pair = pair(2);
    let (call, request) = open(&mut pair, 1, IN);
    for n in 0..10 {
        pair.client.item(pair.now, call, &[n; 50]).unwrap();
    }
    pair.client.connection.end_items(pair.now, call);
    assert_eq!(pair.client.item(pair.now, call, b"more"), Err(ItemError::Ended));
    pair.run();
    assert_eq!(pair.server.items.len(), 10);
    assert_eq!(pair.server.items_ended, [request]);
    finish(&mut pair, request);
    pair.run();
    assert_eq!(pair.client.answer(1), b"end");
    assert!(pair.client.answering.is_empty());
    assert_at_rest(&pair);
}

#[test]
fn a_receiver_that_does_not_take_items_stops_their_sender() {
    for flags in [IN, OUT] {
        let mut pair = pair(3);
        pair.client.hold_items = true;
        pair.server.hold_items = true;
        let (call, request) = open(&mut pair, 1, flags);
        if flags == OUT {
            pair.server.begin(pair.now, request).unwrap();
        }
        let stream: StreamId = if flags == IN { call.into() } else { request.into() };
        let body = bytes(1, 10_000);
        let mut sent = 0;
        for _ in 0..10_000 {
            let sender = if flags == IN { &mut pair.client } else { &mut pair.server };
            match sender.item(pair.now, stream, &body) {
                Ok(()) => sent += 1,
                Err(error) => assert_eq!(error, ItemError::Blocked),
            }
            pair.run();
        }
        // A window of 1 MiB, which the last item may overdraw.
        assert_eq!(sent, (1 << 20) / 10_000 + 1, "{flags}");
        let (sender, receiver) = match flags {
            IN => (&mut pair.client, &mut pair.server),
            _ => (&mut pair.server, &mut pair.client),
        };
        sender.writable.clear();
        receiver.consume();
        pair.run();
        let sender = if flags == IN { &mut pair.client } else { &mut pair.server };
        assert_eq!(sender.writable, [stream], "it is told once");
        sender.item(pair.now, stream, &body).unwrap();
        pair.run();
        pair.server.consume();
        pair.client.consume();
        finish(&mut pair, request);
        pair.run();
        assert_at_rest(&pair);
    }
}

#[test]
fn small_items_are_counted_too() {
    let mut pair = pair(4);
    pair.client.hold_items = true;
    let (_, request) = open(&mut pair, 1, OUT);
    pair.server.begin(pair.now, request).unwrap();
    let mut sent = 0;
    while pair.server.item(pair.now, request, b"").is_ok() {
        sent += 1;
        pair.run();
    }
    assert_eq!(sent, 1024, "the items of a window of 1 MiB");
    pair.client.consume();
    pair.run();
    assert!(pair.server.item(pair.now, request, b"").is_ok());
}

#[test]
fn streams_that_nobody_reads_leave_room_for_calls() {
    let mut pair = pair(5);
    pair.client.hold_items = true;
    let mut requests = Vec::new();
    for ticket in 0..40 {
        let (_, request) = open(&mut pair, ticket, OUT);
        pair.server.begin(pair.now, request).unwrap();
        requests.push(request);
    }
    let body = bytes(1, 250_000);
    for request in requests.iter().cycle().take(40 * 10) {
        let _ = pair.server.item(pair.now, *request, &body);
        pair.run();
    }
    // Streams may hold no more than three quarters of the pool; what was accepted beyond waits.
    assert!(pair.client.connection.credit_held().1 <= (8 << 20) / 4 * 3);
    pair.server.echo = true;
    for ticket in 100..110 {
        pair.call(ticket, &bytes(ticket, 500_000)).unwrap();
        pair.run();
        assert!(pair.client.answer(ticket) == bytes(ticket, 500_000));
    }
    pair.client.consume();
    while !pair.client.held.is_empty() || pair.server.connection.bytes_queued() > 0 {
        pair.run();
        pair.client.consume();
    }
    for request in requests {
        finish(&mut pair, request);
    }
    pair.run();
    pair.client.consume();
    pair.run();
    assert_at_rest(&pair);
}

/// More items are ready than a connection may have unread; whoever reads a few gets a few more.
#[test]
fn a_pool_that_is_exhausted_goes_on_for_every_item_that_is_taken() {
    let mut pair = pair(11);
    pair.client.hold_items = true;
    let requests: Vec<RequestId> = (0..400).map(|ticket| open(&mut pair, ticket, OUT).1).collect();
    for request in &requests {
        pair.server.begin(pair.now, *request).unwrap();
    }
    for &stream in &requests {
        for _ in 0..50 {
            if pair.server.item(pair.now, stream, b"x").is_err() {
                break;
            }
            pair.run();
        }
    }
    assert_eq!(pair.client.items.len(), 8192, "1/1024 of 8 MiB");
    pair.server.writable.clear();
    for n in 1..10 {
        let (stream, bytes) = pair.client.held.remove(0);
        pair.client.connection.consumed(stream, bytes);
        pair.run();
        let next = pair.server.writable.pop().expect("somebody may go on");
        pair.server.item(pair.now, next, b"x").unwrap();
        pair.run();
        assert_eq!(pair.client.items.len(), 8192 + n);
    }
}

#[test]
fn d07_either_side_may_end_early() {
    // The server answers in the middle of the caller's stream.
    let mut pair = pair(6);
    let (call, request) = open(&mut pair, 1, IN);
    pair.client.item(pair.now, call, &bytes(1, 3 << 20)).unwrap();
    finish(&mut pair, request);
    pair.run();
    assert_eq!(pair.client.answer(1), b"end");
    assert_eq!(pair.client.item(pair.now, call, b"more"), Err(ItemError::Ended));
    assert_at_rest(&pair);

    // The caller gives up in the middle of the server's.
    let (call, request) = open(&mut pair, 2, IN | OUT);
    pair.server.begin(pair.now, request).unwrap();
    pair.server.item(pair.now, request, &bytes(1, 3 << 20)).unwrap();
    pair.run_for(Duration::from_micros(1));
    assert_eq!(pair.client.connection.cancel(pair.now, call, CancelReason::Dropped), Some(2));
    pair.run();
    assert_eq!(pair.server.cancelled.len(), 1);
    assert_eq!(pair.server.item(pair.now, request, b"more"), Err(ItemError::Ended));
    assert_at_rest(&pair);

    // The server's error takes the place of the rest.
    let (call, request) = open(&mut pair, 3, OUT);
    pair.server.begin(pair.now, request).unwrap();
    pair.server.item(pair.now, request, b"one").unwrap();
    let error = ReplyHeader::new(Status::APPLICATION_ERROR);
    let body = bytes::Bytes::from_static(b"broken");
    pair.server.connection.reply(pair.now, request, error, &body).unwrap();
    pair.run();
    assert_eq!(pair.client.items_of(call), [b"one"]);
    assert!(matches!(pair.client.outcome(3), Outcome::Reply(reply)
        if reply.header.status == Status::APPLICATION_ERROR && reply.body[..] == *b"broken"));
    assert_at_rest(&pair);
}

#[test]
fn the_deadline_of_a_stream_is_for_its_first_frame() {
    let mut pair = pair(7);
    let (call, request) = open(&mut pair, 1, OUT);
    pair.server.begin(pair.now, request).unwrap();
    pair.run();
    pair.run_for(Duration::from_secs(3));
    pair.server.item(pair.now, request, b"late").unwrap();
    pair.run();
    assert_eq!(pair.client.items_of(call), [b"late"]);
    finish(&mut pair, request);
    pair.run();
    // One that never begins expires.
    let (_, _) = open(&mut pair, 2, OUT);
    pair.run_for(Duration::from_secs(3));
    pair.run();
    assert!(matches!(pair.client.outcome(2), Outcome::Failed(failure)
        if failure.cause == Cause::Expired && failure.class == FailureClass::Unknown));
    // And one without a deadline does not.
    pair.call_with(3, b"", |call| (call.flags, call.deadline) = (IN, Instant::FAR)).unwrap();
    pair.run();
    pair.run_for(Duration::from_secs(500));
    let request = pair.server.requests.pop().unwrap();
    assert_eq!(request.deadline, Instant::FAR);
    finish(&mut pair, request.id);
    pair.run();
    assert_eq!(pair.client.answer(3), b"end");
    assert_at_rest(&pair);
}

#[test]
fn ten_thousand_streams_on_one_connection() {
    let config = Config::new().in_flight_max(20_000);
    let mut pair = Pair::with(8, config.clone(), config).open();
    pair.server.echo = false;
    for ticket in 0..10_000 {
        pair.call_with(ticket, b"", |call| call.flags = OUT).unwrap();
    }
    pair.run();
    let requests: Vec<RequestId> = pair.server.requests.drain(..).map(|r| r.id).collect();
    assert_eq!(requests.len(), 10_000);
    for request in &requests {
        pair.server.begin(pair.now, *request).unwrap();
    }
    for round in 0..3u8 {
        let mut waiting: Vec<StreamId> = requests.iter().map(|&request| request.into()).collect();
        while !waiting.is_empty() {
            waiting.retain(|&stream| pair.server.item(pair.now, stream, &[round; 64]).is_err());
            pair.run();
        }
    }
    for request in requests {
        finish(&mut pair, request);
    }
    pair.run();
    assert_eq!(pair.client.items.len(), 30_000);
    assert_eq!(pair.client.done.len(), 10_000);
    assert_at_rest(&pair);
}

#[test]
fn b15_a_dead_connection_ends_its_streams_once() {
    let mut pair = pair(9);
    let (call, request) = open(&mut pair, 1, IN | OUT);
    pair.server.begin(pair.now, request).unwrap();
    pair.server.hold_items = true;
    pair.client.item(pair.now, call, &bytes(1, 100)).unwrap();
    pair.client.item(pair.now, call, &bytes(1, 3 << 20)).unwrap();
    pair.run_for(Duration::from_micros(1));
    for peer in [&mut pair.client, &mut pair.server] {
        peer.connection.handle_closed(pair.now, CloseReason::PeerClosed);
        peer.drain(pair.now);
    }
    assert!(matches!(pair.client.outcome(1), Outcome::Failed(failure)
        if failure.class == FailureClass::Unknown));
    assert_eq!(pair.server.cancelled.len(), 1);
    assert_eq!(pair.client.item(pair.now, call, b""), Err(ItemError::Ended));
    assert_eq!(pair.server.item(pair.now, request, b""), Err(ItemError::Ended));
    pair.server.consume();
}

#[test]
fn c16_a_stream_that_its_caller_does_not_end_is_ended() {
    let mut pair = pair(10);
    let no_deadline = |call: &mut Call| (call.flags, call.deadline) = (IN, Instant::FAR);
    pair.call_with(1, b"quiet", no_deadline).unwrap();
    let (busy, request) = open(&mut pair, 2, IN | OUT);
    let (pushed, push) = open(&mut pair, 3, OUT);
    pair.server.begin(pair.now, request).unwrap();
    pair.server.begin(pair.now, push).unwrap();
    // The default is ten minutes; either direction counts, and a subscription may rest.
    for minute in 0..20 {
        match minute % 2 {
            0 => pair.client.item(pair.now, busy, b"x").unwrap(),
            _ => pair.server.item(pair.now, request, b"x").unwrap(),
        }
        pair.run();
        pair.run_for(Duration::from_secs(60));
        pair.run();
        assert_eq!(pair.server.cancelled.len(), usize::from(minute >= 9), "{minute}");
    }
    assert_eq!(pair.server.cancelled[0].1, Cancellation::Idle);
    assert!(matches!(pair.client.outcome(1), Outcome::Reply(reply)
        if reply.header.status == Status::CANCELLED_RUNNING),);
    pair.server.item(pair.now, push, b"still there").unwrap();
    pair.run();
    assert_eq!(pair.client.items_of(pushed).len(), 1);
    // One that is ended waits for its answer only.
    pair.client.connection.end_items(pair.now, busy);
    pair.run();
    pair.run_for(Duration::from_secs(3600));
    assert_eq!(pair.server.cancelled.len(), 1);
    finish(&mut pair, request);
    finish(&mut pair, push);
    pair.run();
    assert_at_rest(&pair);
}

/// Found: A call was ended for its idle stream while its argument was still arriving: without an answer, and with
/// its credit lost; and its items were then taken for a fault of its caller (`BadStream`).
#[test]
fn c16_a_stream_is_not_idle_while_its_argument_arrives() {
    let idle = Config::new().stream_idle_timeout(SECOND * 2);
    let mut raw = Raw::new(Side::Server, idle).open();
    let part = [7; 1000];
    raw.send(&[request(0, &part).flags(FLAG_MORE | IN).cut(5000).deadline(u32::MAX)]);
    for n in 1..5 {
        raw.pass(SECOND);
        raw.send(&[data(id(0), n * 1000, &part)]);
    }
    raw.send(&[plain(Kind::Item).id(id(0)).body(b"x")]);
    assert_eq!(raw.closed, None);
    assert_eq!((raw.cancelled.len(), raw.requests.len(), raw.items.len()), (0, 1, 1));
    // From here on its time is that of a stream.
    raw.pass(SECOND);
    assert_eq!(raw.cancelled.len(), 0);
    raw.pass(SECOND * 2);
    assert_eq!(raw.cancelled.len(), 1);
    assert_eq!(raw.statuses(), [Status::CANCELLED_RUNNING]);
    assert_eq!((raw.connection.credit_held(), raw.connection.items_held()), ((0, 0), (0, 0)));
}

#[test]
fn c16_a_stream_is_not_idle_while_an_item_is_under_way() {
    let idle = Config::new().stream_idle_timeout(SECOND * 2);
    let part = [7; 1000];
    // One that arrives.
    let mut raw = Raw::new(Side::Server, idle.clone()).open();
    raw.send(&[request(0, b"").flags(IN).deadline(u32::MAX)]);
    raw.send(&[plain(Kind::Item).id(id(0)).body(&part).flags(FLAG_MORE).cut(5000)]);
    for n in 1..5 {
        raw.pass(SECOND);
        raw.send(&[data(id(0), n * 1000, &part)]);
    }
    assert_eq!((raw.cancelled.len(), raw.items.len()), (0, 1));
    // One that is sent, as slowly as the other side reads.
    let mut pair = Pair::with(11, Config::new(), idle).open();
    pair.server.echo = false;
    let (call, request) = open(&mut pair, 1, IN | OUT);
    pair.server.begin(pair.now, request).unwrap();
    pair.server.item(pair.now, request, &bytes(1, 4 << 20)).unwrap();
    for _ in 0..6 {
        let part = pair.server.transmit(pair.now, 1);
        pair.client.receive(pair.now, &part, true, &mut pair.rng);
        pair.now = pair.now + SECOND;
        pair.server.connection.handle_timeout(pair.now);
        pair.server.drain(pair.now);
    }
    assert_eq!(pair.server.cancelled, []);
    pair.run();
    assert_eq!(pair.client.items_of(call).len(), 1);
}

/// A call with items and an argument of this length, without a deadline.
fn upload(pair: &mut Pair, ticket: u64, len: usize) -> CallId {
    let no_deadline = |call: &mut Call| (call.flags, call.deadline) = (IN, Instant::FAR);
    pair.call_with(ticket, &bytes(ticket, len), no_deadline).expect("a call")
}

/// Serves uploads: ends each when its items have.
fn serve_uploads(pair: &mut Pair) {
    for request in std::mem::take(&mut pair.server.items_ended) {
        finish(pair, request);
    }
    pair.run();
}

#[test]
fn c17_an_item_has_room_beside_the_argument_of_its_call() {
    let mut pair = pair(20);
    let call = upload(&mut pair, 1, 4 << 20);
    pair.run();
    // Half of the window each, without a reserve.
    pair.client.item(pair.now, call, &bytes(9, 4 << 20)).unwrap();
    pair.client.connection.end_items(pair.now, call);
    pair.run();
    serve_uploads(&mut pair);
    assert_eq!(pair.client.answer(1), b"end");
    assert_at_rest(&pair);
}

#[test]
fn c17_arguments_of_calls_with_streams_leave_room_for_items() {
    let mut pair = pair(21);
    let mut calls = Vec::new();
    for ticket in 0..10 {
        calls.push(upload(&mut pair, ticket, 1 << 20));
        pair.run();
    }
    assert_eq!(pair.server.requests.len(), 4, "half of the window");
    // Others need not wait for those that do.
    pair.call(100, &bytes(100, 1 << 20)).unwrap();
    pair.run();
    let plain = pair.server.requests.pop().unwrap().id;
    finish(&mut pair, plain);
    pair.run();
    assert_eq!(pair.client.answer(100), b"end");
    for _ in 0..100 {
        calls.retain(|&call| {
            let is_sent = pair.client.item(pair.now, call, &bytes(9, 4 << 20)).is_ok();
            if is_sent {
                pair.client.connection.end_items(pair.now, call);
            }
            !is_sent
        });
        pair.run();
        serve_uploads(&mut pair);
    }
    for ticket in 0..10 {
        assert_eq!(pair.client.answer(ticket), b"end");
    }
    assert_at_rest(&pair);
}

/// Calls that wait for other streams to end may wait for ever, and limits are confirmed meanwhile.
#[test]
fn c17_limits_are_confirmed_while_calls_wait_for_streams() {
    let mut pair = pair(24);
    for ticket in 0..6 {
        upload(&mut pair, ticket, 1 << 20);
    }
    pair.run();
    assert_eq!(pair.server.requests.len(), 4, "two wait");
    let told = |pair: &Pair| pair.client.connection.peer().unwrap().in_flight_max;
    for most in [900, 800] {
        pair.server.connection.set_limits(most, 4 << 20);
        pair.run();
        assert_eq!(told(&pair), most);
    }
    // One of those that wait would be beyond these; so nothing is confirmed before it is over.
    pair.server.connection.set_limits(5, 4 << 20);
    pair.run();
    pair.server.connection.set_limits(700, 4 << 20);
    pair.run();
    assert_eq!(told(&pair), 5);
}

/// One that rests for ever takes no more from others than its argument.
#[test]
fn c17_an_item_does_not_wait_for_the_end_of_another_stream() {
    for flags in [IN, OUT, IN | OUT] {
        let mut pair = pair(22);
        pair.call_with(1, &bytes(1, 3 << 20), |call| {
            (call.flags, call.deadline) = (flags, Instant::FAR);
        })
        .unwrap();
        pair.run();
        let rests = pair.server.requests.pop().unwrap().id;
        let call = upload(&mut pair, 2, 1 << 20);
        pair.run();
        pair.client.item(pair.now, call, &bytes(9, 4 << 20)).unwrap();
        pair.client.connection.end_items(pair.now, call);
        pair.run();
        serve_uploads(&mut pair);
        assert_eq!(pair.client.answer(2), b"end", "{flags}");
        finish(&mut pair, rests);
        pair.run();
        assert_at_rest(&pair);
    }
}

#[test]
fn c17_nothing_waits_for_credit_that_is_only_kept_back() {
    for waits in ["call", "item", "item of an answer"] {
        // Also if messages were to be small at first.
        let config = Config::new().message_bytes_max(1 << 20);
        let mut pair = Pair::with(23, config.clone(), config).open();
        pair.server.echo = false;
        for peer in [&mut pair.client, &mut pair.server] {
            peer.connection.set_limits(1024, 4 << 20);
        }
        pair.run();
        let call = upload(&mut pair, 1, 2_400_000);
        pair.run();
        let (answered, request) = open(&mut pair, 2, OUT);
        pair.server.begin(pair.now, request).unwrap();
        pair.client.hold_items = true;
        for n in 0..3 {
            pair.server.item(pair.now, request, &bytes(n, 300_000)).unwrap();
            pair.run();
        }
        // Little enough that the receiver need not say so as long as nobody waits.
        pair.server.echo = true;
        for ticket in 10..29 {
            pair.call(ticket, &bytes(ticket, 100_000)).unwrap();
            pair.run();
        }
        pair.server.echo = false;
        let large = bytes(7, 4 << 20);
        match waits {
            "call" => drop(pair.call(30, &large).unwrap()),
            "item" => pair.client.item(pair.now, call, &large).unwrap(),
            _ => {
                let (_, other) = open(&mut pair, 30, OUT);
                pair.server.begin(pair.now, other).unwrap();
                pair.server.item(pair.now, other, &large).unwrap();
            }
        }
        pair.run();
        let came = match waits {
            "call" => pair.server.requests.last().map_or(0, |request| request.body.len()),
            "item" => pair.server.items.last().map_or(0, |(_, body)| body.len()),
            _ => pair.client.items.last().map_or(0, |(_, body)| body.len()),
        };
        assert_eq!(came, 4 << 20, "{waits}");
        assert_eq!(pair.client.items_of(answered).len(), 3);
    }
}

/// Found: What was kept back of a pool's items was looked at only when something was given back, and not when others had
/// taken the rest of the pool and held it. A stream that was read then waited for ever.
#[test]
fn c17_items_that_are_kept_back_come_when_others_have_taken_the_rest() {
    for aligned in [true, false] {
        // 64 items, of which up to four are kept back while the other side has enough.
        let small = Config::new().message_bytes_max(1024).replies_window(2048);
        let mut pair = Pair::with(18, small, Config::new()).open();
        (pair.server.echo, pair.net.aligned) = (false, aligned);
        let requests: Vec<_> = (0..5).map(|ticket| open(&mut pair, ticket, OUT).1).collect();
        for request in &requests {
            pair.server.begin(pair.now, *request).unwrap();
        }
        for _ in 0..3 {
            pair.server.item(pair.now, requests[0], b"").unwrap();
            pair.run();
        }
        pair.client.hold_items = true;
        for n in 0..61 {
            pair.server.item(pair.now, requests[1 + n / 16], b"").unwrap();
            pair.run();
        }
        pair.client.hold_items = false;
        for n in 0..50 {
            pair.server.item(pair.now, requests[0], b"").expect("it is read");
            pair.run();
            assert_eq!(pair.client.items.len(), 65 + n);
        }
    }
}

/// The credit of an item that was never sent is the next stream's, before anything else is sent.
#[test]
fn c17_a_stream_that_ends_lets_the_next_one_go_on() {
    let mut raw = Raw::new(Side::Server, Config::new()).open_with(|hello| {
        (hello.message_bytes_max, hello.replies_window) = (1024, 2048);
    });
    raw.send(&[0, 1, 2].map(|slot| request(slot, b"").flags(OUT)));
    let streams: Vec<RequestId> = raw.requests.iter().map(|request| request.id).collect();
    let now = raw.now;
    for stream in &streams {
        raw.peer.begin(now, *stream).unwrap();
    }
    raw.peer.item(now, streams[0], &[0; 1024]).unwrap();
    (0..62).for_each(|_| raw.peer.item(now, streams[0], b"").unwrap());
    raw.sent();
    // The last of 64 waits for credit in bytes, and the next one for the last.
    raw.peer.item(now, streams[1], &[0; 1000]).unwrap();
    raw.sent();
    assert_eq!(raw.peer.item(now, streams[2], b""), Err(ItemError::Blocked));
    raw.peer.drain(now);
    assert!(raw.writable.is_empty());
    let failed = ReplyHeader::new(Status::INTERNAL);
    raw.connection.reply(now, streams[1], failed, &bytes::Bytes::new()).unwrap();
    raw.peer.drain(now);
    assert_eq!(raw.writable, [streams[2].into()]);
    raw.peer.item(now, streams[2], b"").unwrap();
}

#[test]
fn c17_a_stream_that_waits_to_begin_can_end_and_holds_up_nobody() {
    let mut pair = pair(24);
    let first = upload(&mut pair, 1, 4 << 20);
    pair.run();
    let (given_up, expires) = (upload(&mut pair, 2, 100), 3);
    let soon = pair.now + Duration::from_millis(10);
    let call = |call: &mut Call| (call.flags, call.deadline) = (OUT, soon);
    pair.call_with(expires, &bytes(3, 100), call).unwrap();
    let last = upload(&mut pair, 4, 200);
    assert!(pair.client.connection.waits_for_credit(last));
    pair.run();
    // What needs none does not wait.
    let empty = upload(&mut pair, 5, 0);
    pair.client.item(pair.now, empty, b"item").unwrap();
    pair.run();
    assert_eq!(pair.server.items.len(), 1);
    let dropped = pair.client.connection.cancel(pair.now, given_up, CancelReason::Dropped);
    assert_eq!(dropped, Some(2));
    pair.run_for(Duration::from_millis(20));
    assert!(matches!(pair.client.outcome(3), Outcome::Failed(failure)
        if failure.cause == Cause::Expired && failure.class == FailureClass::NotSent));
    assert_eq!(pair.server.requests.len(), 2, "the first one, and that without an argument");
    // The room of one that is given up is another's.
    pair.client.connection.cancel(pair.now, first, CancelReason::Dropped);
    pair.run();
    assert_eq!(pair.server.requests.last().map(|request| request.body.len()), Some(200));
    for request in std::mem::take(&mut pair.server.requests) {
        finish(&mut pair, request.id);
    }
    pair.run();
    assert_eq!(pair.client.answer(4), b"end");
    assert_eq!(pair.client.answer(5), b"end");
    assert_at_rest(&pair);
}

/// What an application does with its streams, at random; every item arrives once, in order, and in the
/// end nothing is held.
#[test]
fn c12_credit_is_conserved_whatever_happens() {
    for seed in 0..60 {
        let config = Config::new()
            .message_bytes_max(64 << 10)
            .calls_window(256 << 10)
            .replies_window(256 << 10);
        let mut pair = Pair::with(seed, config.clone(), config).open();
        pair.server.echo = false;
        let mut rng = SplitMix64::new(seed ^ 0xabcd);
        if seed % 2 == 1 {
            pair.net.split_max = 3000;
            pair.net.delay_max = Duration::from_micros(50);
        }
        let mut live: Vec<CallId> = Vec::new();
        let mut served: Vec<RequestId> = Vec::new();
        let mut sent: HashMap<(bool, StreamId), u64> = HashMap::new();
        let mut ticket = 0;
        for _ in 0..400 {
            let pick = |rng: &mut SplitMix64, n: usize| rng.below(n.max(1) as u64) as usize;
            match rng.below(10) {
                0 => {
                    let flags = [IN, OUT, IN | OUT][rng.below(3) as usize];
                    let size = skewed(&mut rng, 17) as usize;
                    let body = bytes(ticket, size.min(64 << 10));
                    let made = pair.call_with(ticket, &body, |call| {
                        (call.flags, call.deadline) = (flags, Instant::FAR);
                    });
                    live.extend(made.ok());
                    ticket += 1;
                }
                1 => {
                    for request in pair.server.requests.drain(..) {
                        if request.flags & OUT != 0 {
                            let header = ReplyHeader::new(Status::OK);
                            let _ = pair.server.connection.begin_items(
                                pair.now,
                                request.id,
                                header,
                                &[],
                            );
                        }
                        served.push(request.id);
                    }
                }
                2..=6 => {
                    let is_client = rng.below(2) == 0;
                    let size = (skewed(&mut rng, 17) as usize).clamp(8, 64 << 10);
                    let (peer, stream): (_, Option<StreamId>) = match is_client {
                        true => (
                            &mut pair.client,
                            live.get(pick(&mut rng, live.len())).map(|&c| c.into()),
                        ),
                        false => (
                            &mut pair.server,
                            served.get(pick(&mut rng, served.len())).map(|&c| c.into()),
                        ),
                    };
                    if let Some(stream) = stream {
                        let count = sent.entry((is_client, stream)).or_default();
                        let mut body = bytes(size as u64, size);
                        body[..8].copy_from_slice(&count.to_le_bytes());
                        if peer.item(pair.now, stream, &body).is_ok() {
                            *count += 1;
                        }
                    }
                }
                7 => {
                    pair.client.hold_items ^= rng.below(2) == 0;
                    pair.server.hold_items ^= rng.below(2) == 0;
                    pair.client.consume();
                    pair.server.consume();
                }
                8 if !live.is_empty() => {
                    let at = pick(&mut rng, live.len());
                    match rng.below(3) {
                        0 => {
                            let call = live.swap_remove(at);
                            pair.client.connection.cancel(pair.now, call, CancelReason::Dropped);
                        }
                        _ => pair.client.connection.end_items(pair.now, live[at]),
                    }
                }
                9 if !served.is_empty() => {
                    let request = served.swap_remove(pick(&mut rng, served.len()));
                    let size = skewed(&mut rng, 17) as usize;
                    let body = bytes::Bytes::from(bytes(9, size.min(64 << 10)));
                    let status = [Status::OK, Status::APPLICATION_ERROR, Status::INTERNAL]
                        [rng.below(3) as usize];
                    let header = ReplyHeader::new(status);
                    let _ = pair.server.connection.reply(pair.now, request, header, &body);
                }
                _ => {}
            }
            for _ in 0..rng.below(4) {
                pair.step();
            }
        }
        // Everybody finishes.
        pair.client.hold_items = false;
        pair.server.hold_items = false;
        for _ in 0..50 {
            pair.client.consume();
            pair.server.consume();
            pair.run();
            served.extend(pair.server.requests.drain(..).map(|request| request.id));
            for request in served.drain(..) {
                let header = ReplyHeader::new(Status::OK);
                let _ =
                    pair.server.connection.reply(pair.now, request, header, &bytes::Bytes::new());
            }
        }
        assert_eq!((pair.client.closed, pair.server.closed), (None, None), "seed {seed}");
        let mut tickets: Vec<u64> = pair.client.done.iter().map(|(ticket, _)| *ticket).collect();
        tickets.sort_unstable();
        tickets.dedup();
        assert_eq!(tickets.len(), pair.client.done.len(), "seed {seed}: a call ended twice");
        for peer in [&pair.client, &pair.server] {
            let mut seen: HashMap<StreamId, u64> = HashMap::new();
            for (stream, body) in &peer.items {
                let count = seen.entry(*stream).or_default();
                assert_eq!(body[..8], count.to_le_bytes(), "seed {seed}: in order");
                *count += 1;
            }
        }
        for peer in [&pair.client, &pair.server] {
            assert_eq!(peer.connection.calls_in_flight(), 0, "seed {seed}");
            assert_eq!(peer.connection.calls_served(), 0, "seed {seed}");
            assert_eq!(peer.connection.bytes_queued(), 0, "seed {seed}");
            assert_eq!(peer.connection.credit_held(), (0, 0), "seed {seed}");
            assert_eq!(peer.connection.items_held(), (0, 0), "seed {seed}");
        }
    }
}

// ---- a peer that does not keep the protocol ----

fn server() -> Raw {
    Raw::new(Side::Server, Config::new()).open()
}

fn item(id: u64, body: &[u8]) -> Frame {
    plain(Kind::Item).id(id).body(body)
}

fn end(id: u64) -> Frame {
    plain(Kind::End).id(id)
}

fn stream_credit(id: u64, unit: CreditUnit, amount: u64) -> Frame {
    plain(Kind::Credit).id(id).patch(0, &Credit { amount, pool: CreditPool::Call, unit }.encode())
}

#[track_caller]
fn closes(frames: &[Frame], reason: CloseReason) {
    for split in [usize::MAX, 1, 7] {
        let mut raw = server();
        raw.split = split;
        raw.send(frames);
        assert_eq!(raw.closed, Some(reason), "{frames:?}");
    }
}

#[track_caller]
fn goes_on(frames: &[Frame]) -> Raw {
    let mut raw = server();
    raw.send(frames);
    assert_eq!(raw.closed, None, "{frames:?}");
    raw
}

#[test]
fn a_stream_has_items_only_between_its_beginning_and_its_end() {
    let call = request(0, b"").flags(IN);
    let bad = CloseReason::BadStream;
    // END twice, an item behind END, items of a call that has none.
    closes(&[call.clone(), end(id(0)), end(id(0))], bad);
    closes(&[call.clone(), end(id(0)), item(id(0), b"x")], bad);
    closes(&[request(0, b""), item(id(0), b"x")], bad);
    closes(&[request(0, b"").flags(OUT), item(id(0), b"x")], bad);
    closes(&[request(0, b"").flags(OUT), end(id(0))], bad);
    // Before the argument is whole.
    let large = bytes(1, 100);
    let begun = request(0, &large[..16]).cut(100).flags(IN);
    closes(&[begun.clone(), item(id(0), b"x")], bad);
    let raw = goes_on(&[begun, data(id(0), 16, &large[16..]), item(id(0), b"x"), end(id(0))]);
    assert_eq!((raw.items.len(), raw.items_ended.len()), (1, 1));
    // An item inside another one, and parts that are not in order.
    let first = item(id(0), &large[..16]).cut(100);
    closes(&[call.clone(), first.clone(), item(id(0), b"x")], bad);
    closes(&[call.clone(), first.clone(), data(id(0), 32, b"x")], CloseReason::DataOutOfOrder);
    closes(&[call.clone(), first.clone(), data(id(0), 16, &large)], CloseReason::BadLength);
    closes(&[call.clone(), end(id(0)).body(b"x")], CloseReason::BadLength);
    let mut raw = goes_on(&[call.clone(), first.clone(), data(id(0), 16, &large[16..])]);
    assert_eq!(raw.items_of(raw.requests[0].id), std::slice::from_ref(&large));
    // An end in the middle of an item breaks off the call.
    raw.send(&[first, end(id(0))]);
    assert_eq!((raw.closed, raw.cancelled.len()), (None, 1));
    assert_eq!(raw.connection.credit_held(), (0, 0));
    // A call that wants no answer cannot have streams.
    goes_on(&[request(0, b"").flags(IN | request_flags::ONE_WAY)]);
}

#[test]
fn c05_credit_of_streams_is_checked() {
    let call = request(0, b"").flags(IN | OUT);
    for unit in [CreditUnit::Bytes, CreditUnit::Items] {
        closes(&[call.clone(), stream_credit(id(0), unit, 0)], CloseReason::BadCredit);
        closes(&[call.clone(), stream_credit(id(0), unit, 1 << 48)], CloseReason::BadCredit);
        closes(&[call.clone(), stream_credit(id(0), unit, u64::MAX)], CloseReason::BadCredit);
        goes_on(&[call.clone(), stream_credit(id(0), unit, 1 << 47)]);
        // For a call that has ended.
        let mut raw = goes_on(std::slice::from_ref(&call));
        raw.answer_all();
        raw.send(&[stream_credit(id(0), unit, 5)]);
        assert_eq!(raw.closed, None);
    }
    closes(
        &[call.clone(), stream_credit(id(0), CreditUnit::Requests, 5)],
        CloseReason::NotNegotiated,
    );
    // More bytes than the stream has, and more items.
    let mut raw = server();
    raw.hold_items = true;
    raw.send(&[call.clone(), item(id(0), &bytes(1, 1 << 20))]);
    assert_eq!(raw.closed, None);
    raw.send(&[item(id(0), b"")]);
    assert_eq!(raw.closed, Some(CloseReason::CreditExceeded));
    let mut raw = server();
    raw.hold_items = true;
    raw.send(&[call]);
    raw.send(&vec![item(id(0), b""); 1024]);
    assert_eq!((raw.closed, raw.items.len()), (None, 1024));
    raw.send(&[item(id(0), b"")]);
    assert_eq!(raw.closed, Some(CloseReason::CreditExceeded));
}

#[test]
fn what_was_sent_before_the_end_was_known_is_no_fault() {
    let call = request(0, b"").flags(IN);
    let mut raw = goes_on(&[call.clone(), item(id(0), b"one")]);
    raw.answer_all();
    // The rest of a window, and one item beyond it.
    raw.send(&[item(id(0), &bytes(1, 1 << 19)), item(id(0), &bytes(1, 1 << 18)), end(id(0))]);
    assert_eq!((raw.closed, raw.connection.credit_held()), (None, (0, 0)));
    // But not for ever.
    for _ in 0..100 {
        raw.send(&[item(id(0), &bytes(1, 1 << 18))]);
        let _credit = raw.sent();
    }
    assert_eq!(raw.closed, Some(CloseReason::BadStream));
}

/// The caller cannot know yet that its call was refused, and goes on with its items.
#[test]
fn items_of_a_refused_call_are_no_fault() {
    let body = bytes(1, 1000);
    let unread = (0x7fff | tag::CRITICAL, [0; 4]);
    let whole = request(0, &body).flags(IN);
    let parts = request(0, &body[..16]).cut(1000).flags(IN);
    let tlv = |frame: Frame| frame.tlv(unread.0, &unread.1);
    let first = item(id(0), &body[..16]).cut(1000);
    let items = [
        item(id(0), b"small"),
        item(id(0), &bytes(1, 1 << 18)),
        first,
        data(id(0), 16, &body[16..]),
        end(id(0)),
    ];
    let cases = [vec![whole.clone()], vec![parts.clone(), data(id(0), 16, &body[16..])]];
    for request in cases {
        for split in [usize::MAX, 1000] {
            // An extension that this side must know, and does not.
            let mut refused = request.clone();
            refused[0] = tlv(refused[0].clone());
            let mut raw = server();
            raw.split = split;
            raw.send(&refused);
            raw.send(&items);
            assert_eq!(raw.closed, None, "{request:?}");
            assert_eq!(raw.statuses(), [Status::UNSUPPORTED]);
            assert_eq!(
                (raw.connection.credit_held(), raw.connection.items_held()),
                ((0, 0), (0, 0))
            );
            assert_eq!(raw.connection.calls_served(), 0);
            // The slot is free, and the next call in it has items of its own.
            let next = nth_id(0, 2);
            raw.send(&[self::request(0, b"").id(next).flags(IN), item(next, b"x")]);
            assert_eq!((raw.closed, raw.items.len()), (None, 1));

            // A GOAWAY that the request did not count for.
            let mut raw = server();
            raw.split = split;
            raw.send(&[self::request(7, b"runs")]);
            raw.peer.connection.go_away(raw.now, true);
            raw.send(&request);
            raw.send(&items);
            assert_eq!(raw.closed, None, "{request:?}");
            assert_eq!((raw.connection.credit_held().0, raw.requests.len()), (4, 1));
            assert_eq!(raw.statuses(), [], "its caller knows from the GOAWAY");
        }
    }
    // But not for ever.
    let mut raw = server();
    raw.send(&[tlv(whole)]);
    for _ in 0..100 {
        raw.send(&[item(id(0), &bytes(1, 1 << 18))]);
        let _credit = raw.sent();
    }
    assert_eq!(raw.closed, Some(CloseReason::BadStream));
}

/// Found: its deadline passed while its handler, which was told of the end of input, had not answered.
#[test]
fn a_call_is_cancelled_once() {
    let mut raw = goes_on(&[request(0, b"").flags(IN)]);
    let deadline = raw.requests[0].deadline;
    let id = raw.requests[0].id;
    raw.peer.connection.watch_deadline(id, deadline);
    raw.peer.connection.handle_input_end(raw.now);
    let mut told = 0;
    for now in [raw.now, deadline + Duration::from_millis(10)] {
        raw.peer.connection.handle_timeout(now);
        while let Some(event) = raw.peer.connection.poll_event(now) {
            told += u32::from(matches!(event, Event::Cancelled(..)));
        }
    }
    assert_eq!(told, 1);
}

#[test]
fn a_caller_checks_how_its_answer_begins() {
    let client = |flags| {
        let mut raw = Raw::new(Side::Client, Config::new()).open();
        let call = Call { flags, ..raw_call(raw.now) };
        let body = bytes::Bytes::new();
        raw.peer.connection.call(raw.now, &call, &body, 1).expect("a call");
        let sent = raw.sent();
        (raw, sent[0].id)
    };
    let begins = |id| plain(Kind::Reply).id(id).flags(FLAG_ITEMS);
    let bad = Some(CloseReason::BadStream);
    type Frames = fn(Frame, u64) -> Vec<Frame>;
    let cases: [(u8, Frames, _); 6] = [
        (OUT, |begins, _| vec![begins.clone(), begins], None),
        (OUT, |begins, id| vec![begins, item(id, b"x"), end(id)], None),
        (OUT, |_, id| vec![item(id, b"x")], bad),
        (OUT, |begins, _| vec![begins.body(b"x")], bad),
        (
            OUT,
            |begins, id| vec![begins, item(id, b"x").flags(FLAG_MORE)],
            Some(CloseReason::BadLength),
        ),
        (OUT, |begins, id| vec![begins, end(id), item(id, b"x")], bad),
    ];
    for (flags, frames, reason) in cases {
        let (mut raw, id) = client(flags);
        raw.send(&frames(begins(id), id));
        assert_eq!(raw.closed, reason, "{:?}", frames(begins(id), id));
    }
    let (mut raw, id) = client(OUT);
    raw.send(&[begins(id), item(id, b"x"), end(id)]);
    assert_eq!((raw.answering.len(), raw.items.len(), raw.done.len()), (1, 1, 1));
    // Begun, and then answered by something that is not an end: a reply that nobody expects.
    let (mut raw, id) = client(OUT);
    raw.send(&[begins(id), plain(Kind::Reply).id(id)]);
    assert_eq!((raw.done.len(), raw.connection.counters().replies_unknown), (0, 1));
}

#[test]
fn c04_an_error_that_waits_behind_an_item_knows_a_lower_limit() {
    for send_max in (1_000..40_000).step_by(500) {
        let mut pair = Pair::with(1, Config::new(), Config::new().cut_bytes(1024)).open();
        pair.server.echo = false;
        let (_, request) = open(&mut pair, 1, OUT);
        let (now, server) = (pair.now, &mut pair.server);
        server.begin(now, request).expect("it asked for items");
        server.item(now, request, &[1; 30_000]).expect("there is room");
        let header = ReplyHeader::new(Status::APPLICATION_ERROR);
        let error = bytes::Bytes::from_static(&[2; 5_000]);
        server.connection.reply(now, request, header, &error).expect("it runs");
        pair.net.send_max = send_max;
        pair.client.connection.set_limits(1024, 100);
        pair.run();
        assert_eq!(pair.client.closed, None, "{send_max} bytes a send");
        let Outcome::Reply(reply) = pair.client.outcome(1) else { panic!("it is answered") };
        let expected = [Status::APPLICATION_ERROR, Status::REPLY_FAILED];
        assert!(expected.contains(&reply.header.status), "{:?}", reply.header);
    }
}
