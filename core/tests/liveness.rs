//! When a silent peer is given up, and when one that says too much is; each with its honest twin.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::raw::*;
use harness::{Batch, Pair, raw_call};
use ringcall_core::frame::{
    Cancel, CancelReason, CreditPool, FLAG_ACK, FLAG_MORE, Hello, Kind, PREFACE, request_flags,
};
use ringcall_core::{
    Cancellation, Cause, CloseReason as End, Config, Failure, Outcome, Side, Status,
};

const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

fn off() -> Config {
    Config::new().keepalive_idle(Duration::ZERO, 0).keepalive_busy(Duration::ZERO, Duration::ZERO)
}

/// What a connection does to which nothing is said any more: when it sends PINGs, and when and how it ends.
fn silence(mut raw: Raw, wait: Duration) -> (Vec<u64>, Option<(u64, End)>) {
    let (start, mut pings) = (raw.now, Vec::new());
    while let Some(at) = raw.connection.poll_timeout().filter(|at| *at <= start + wait) {
        let left = at.since(raw.now);
        raw.pass(left);
        let second = raw.now.since(start).as_secs();
        pings.extend(raw.sent().iter().filter(|frame| frame.is(Kind::Ping)).map(|_| second));
        if let Some(reason) = raw.closed {
            return (pings, Some((second, reason)));
        }
    }
    (pings, None)
}

fn open(side: Side, config: Config) -> Raw {
    Raw::new(side, config).open()
}

/// A client with a call in flight that has an hour.
fn calling(config: Config) -> Raw {
    let mut raw = open(Side::Client, config);
    call_for(&mut raw, 7);
    raw.sent();
    raw
}

fn call_for(raw: &mut Raw, ticket: u64) {
    let mut call = raw_call(raw.now);
    call.deadline = raw.now + 60 * MINUTE;
    let now = raw.now;
    raw.connection.call(now, &call, &Bytes::from_static(b"x"), ticket).unwrap();
}

// ---- keepalive ----

#[test]
fn e06_a_silent_peer_is_given_up_in_time() {
    for side in [Side::Client, Side::Server] {
        let idle = silence(open(side, Config::new()), 10 * MINUTE);
        assert_eq!(idle, (vec![15, 30, 45], Some((60, End::PeerSilent))));
    }
    let busy = silence(calling(Config::new()), 10 * MINUTE);
    assert_eq!(busy, (vec![5], Some((9, End::PeerSilent))));
    let only_idle = Config::new().keepalive_busy(Duration::ZERO, Duration::ZERO);
    let (pings, end) = silence(calling(only_idle), 10 * MINUTE);
    assert_eq!((pings, end), (vec![15, 30, 45], Some((60, End::PeerSilent))));
    assert_eq!(silence(open(Side::Client, off()), 10 * MINUTE), (vec![], None));
    let only_busy = Config::new().keepalive_idle(Duration::ZERO, 0);
    assert_eq!(silence(open(Side::Client, only_busy.clone()), 10 * MINUTE), (vec![], None));
    assert_eq!(silence(calling(only_busy), MINUTE).1, Some((9, End::PeerSilent)));
}

#[test]
fn e06_a_call_on_a_silent_connection_ends_nine_seconds_later() {
    for quiet in 0..60 {
        let mut raw = open(Side::Client, Config::new());
        raw.pass(quiet * SECOND);
        call_for(&mut raw, 7);
        raw.sent();
        let (_, end) = silence(raw, MINUTE);
        let (after, reason) = end.expect("it ends");
        assert!(after <= 9 && reason == End::PeerSilent, "{quiet}: {after} {reason}");
    }
}

#[test]
fn e06_calls_to_a_silent_peer_end_once_with_their_class() {
    // Credit for one of the two: the other waits and is never sent.
    let poor = |hello: &mut Hello| (hello.message_bytes_max, hello.calls_window) = (10, 20);
    let mut raw = Raw::new(Side::Client, Config::new()).open_with(poor);
    for ticket in 0..3 {
        let mut call = raw_call(raw.now);
        call.deadline = raw.now + MINUTE;
        let now = raw.now;
        raw.connection.call(now, &call, &Bytes::from_static(&[1; 10]), ticket).unwrap();
    }
    raw.sent();
    raw.pass(9 * SECOND);
    assert_eq!(raw.closed, Some(End::PeerSilent));
    let cause = Cause::Closed(End::PeerSilent);
    let failures = [0, 1, 2].map(|ticket| match raw.outcome(ticket) {
        Outcome::Failed(failure) => *failure,
        other => panic!("{other:?}"),
    });
    let expected = [Failure::unknown(cause), Failure::unknown(cause), Failure::not_sent(cause)];
    assert_eq!(failures, expected);
    let last = raw.sent().pop().expect("a last word, for a peer that comes back");
    assert!(last.is(Kind::GoAway) && last.header[8..10] == [24, 0]);
}

#[test]
fn e06_whatever_arrives_is_a_sign_of_life() {
    let mut raw = calling(Config::new());
    for _ in 0..100 {
        raw.pass(Duration::from_millis(4900));
        raw.send(&[unknown(200, b"")]);
        assert_eq!((raw.closed, raw.sent().len()), (None, 0));
    }
    // So is the answer to the question, if it comes in time.
    for _ in 0..100 {
        raw.pass(5 * SECOND);
        let asked = raw.sent().pop().expect("a PING");
        raw.pass(Duration::from_millis(3900));
        raw.send(&[plain(Kind::Pong).patch(0, &asked.header)]);
        assert_eq!(raw.closed, None);
    }
    assert!(raw.pongs.is_empty(), "nobody has asked for them");
}

#[test]
fn e06_whoever_does_not_read_cannot_say_that_nothing_comes() {
    let config = Config::new().in_flight_max(1).keepalive_idle(SECOND, 1);
    let mut raw = open(Side::Server, config);
    raw.send(&[request(0, b"x").flags(request_flags::ONE_WAY)]);
    assert!(raw.is_paused());
    raw.pass(10 * MINUTE);
    assert_eq!(raw.closed, None);
    raw.answer_all();
    assert!(!raw.is_paused());
    let (pings, end) = silence(raw, MINUTE);
    assert!(!pings.is_empty() && end.is_some_and(|(after, _)| after >= 1), "{pings:?} {end:?}");
}

#[test]
fn e06_whoever_has_ended_its_stream_is_not_asked() {
    let mut raw = open(Side::Server, Config::new());
    raw.send(&[request(0, b"x").deadline(u32::MAX - 1)]);
    raw.end_input();
    let (pings, end) = silence(raw, 10 * MINUTE);
    assert_eq!((pings, end), (vec![], None));
}

#[test]
fn e25_whoever_was_stopped_itself_asks_again() {
    let mut raw = calling(Config::new());
    raw.pass(5 * SECOND);
    let asked = raw.sent().pop().expect("a PING");
    // This process is stopped for half a minute; the answer lies in the socket, unread.
    raw.now = raw.now + 30 * SECOND;
    let now = raw.now;
    raw.connection.handle_timeout(now);
    raw.peer.drain(now);
    assert_eq!(raw.closed, None);
    raw.send(&[plain(Kind::Pong).patch(0, &asked.header)]);
    raw.pass(4 * SECOND);
    assert_eq!(raw.closed, None);
    assert_eq!(silence(raw, MINUTE).1.map(|(_, reason)| reason), Some(End::PeerSilent));
}

#[test]
fn e25_a_peer_that_slept_goes_on() {
    let mut pair = Pair::established(1);
    pair.server.echo = false;
    pair.call_with(1, b"x", |call| call.deadline = call.deadline + 10 * MINUTE).unwrap();
    pair.run();
    // Asked after 5 s, and answered after another 3.
    pair.skip_to_timeout();
    pair.client.drain(pair.now);
    let ping = pair.client.transmit(pair.now, usize::MAX);
    pair.now = pair.now + 3 * SECOND;
    let (now, mut rng) = (pair.now, pair.rng.clone());
    pair.server.receive(now, &ping, true, &mut rng);
    pair.run();
    for _ in 0..50 {
        pair.skip_to_timeout();
        pair.run();
    }
    assert_eq!((pair.client.closed, pair.server.closed), (None, None));
}

// ---- PINGs ----

#[test]
fn c03_a_flood_of_pings_closes() {
    let mut raw = open(Side::Server, Config::new());
    for n in 0..7 {
        raw.send(&[ping(n)]);
        assert_eq!(raw.closed, None, "{n}: five, and two strikes");
        assert_eq!(raw.sent().len(), 1, "each is answered");
    }
    assert_eq!(raw.connection.counters().ping_strikes, 2);
    raw.send(&[ping(7)]);
    assert_eq!(raw.closed, Some(End::TooManyPings));
    assert_eq!(raw.connection.counters().ping_strikes, 3);
    // Nobody who does not read gets more than one answer.
    let mut raw = open(Side::Server, Config::new());
    raw.send(&[0, 1, 2, 3, 4, 5].map(ping));
    assert_eq!(raw.sent().iter().filter(|frame| frame.is(Kind::Pong)).count(), 1);
}

#[test]
fn c03_honest_pings_draw_no_strike() {
    // A burst after each pause, and one a second for ever.
    let mut raw = open(Side::Server, Config::new());
    for _ in 0..100 {
        raw.send(&[0, 1, 2, 3, 4].map(ping));
        raw.pass(5 * SECOND);
    }
    for _ in 0..1000 {
        raw.send(&[ping(0)]);
        raw.pass(SECOND);
    }
    // Two strikes are forgotten after a pause.
    for _ in 0..100 {
        raw.send(&[0, 1, 2, 3, 4, 5, 6].map(ping));
        raw.pass(6 * SECOND);
    }
    assert_eq!((raw.closed, raw.connection.counters().ping_strikes), (None, 200));
}

#[test]
fn c03_this_implementation_never_draws_a_strike() {
    for (seed, delay_ms) in [(1, 0), (2, 100), (3, 2000)] {
        let mut pair = Pair::new(seed);
        pair.net.delay_max = Duration::from_millis(delay_ms);
        let mut pair = pair.open();
        let end = pair.now + 30 * MINUTE;
        let mut calls = 0;
        while pair.now < end {
            // An application that always asks, and calls that are always pending.
            pair.client.connection.ping(pair.now, [1; 16]);
            pair.server.connection.ping(pair.now, [2; 16]);
            if pair.client.connection.calls_in_flight() == 0 {
                pair.server.echo = calls % 3 == 0;
                let later = |call: &mut ringcall_core::Call| call.deadline = call.deadline + MINUTE;
                pair.call_with(calls, b"x", later).unwrap();
                calls += 1;
            }
            if !pair.step() {
                pair.skip_to_timeout();
            }
        }
        for peer in [&pair.client, &pair.server] {
            assert_eq!((peer.closed, peer.connection.counters().ping_strikes), (None, 0));
            assert!(peer.pongs.len() > 100, "{}", peer.pongs.len());
        }
    }
}

/// PINGs that were sent a second apart may arrive together, when what is in between has stood still. Their sender
/// waits for the answer, whatever else comes back meanwhile; so does keepalive after a while.
#[test]
fn c03_pings_that_arrive_together_are_few() {
    for is_asked in [true, false] {
        let client = Config::new().keepalive_idle(2 * SECOND, 3);
        let mut pair = Pair::with(70, client, Config::new()).open();
        let mut on_the_way = Vec::new();
        for second in 0..180 {
            pair.now = pair.now + SECOND;
            pair.client.connection.handle_timeout(pair.now);
            if is_asked {
                pair.client.connection.ping(pair.now, [second as u8; 16]);
            }
            on_the_way.extend(pair.client.transmit(pair.now, usize::MAX));
            if second % 3 == 0 {
                let call = raw_call(pair.now);
                pair.server.connection.call(pair.now, &call, &Bytes::new(), second).unwrap();
                let bytes = pair.server.transmit(pair.now, usize::MAX);
                pair.client.receive(pair.now, &bytes, true, &mut pair.rng);
            }
        }
        assert_eq!(pair.client.closed, None);
        pair.server.receive(pair.now, &on_the_way, true, &mut pair.rng);
        assert_eq!(pair.server.closed, None);
        assert_eq!(pair.server.connection.counters().ping_strikes, 0);
    }
}

// ---- control frames ----

#[test]
fn c04_control_frames_that_nothing_calls_for_close() {
    let pong = plain(Kind::Pong);
    let ack = limits(1, 1).flags(FLAG_ACK);
    for frame in [limits(10, 1000), credit(CreditPool::Calls, 1), pong, ack] {
        let mut raw = open(Side::Server, Config::new());
        raw.send(&vec![frame.clone(); 1024]);
        assert_eq!(raw.closed, None, "{frame:?}");
        raw.pass(11 * SECOND);
        raw.send(&vec![frame.clone(); 1024]);
        assert_eq!(raw.closed, None, "{frame:?}");
        raw.send(std::slice::from_ref(&frame));
        assert_eq!(raw.closed, Some(End::TooManyControlFrames), "{frame:?}");
    }
}

/// An application may change its limits whenever it likes.
#[test]
fn c04_limits_that_change_all_the_time_are_no_flood() {
    let mut pair = Pair::established(8);
    for n in 0..20_002 {
        for peer in [&mut pair.client, &mut pair.server] {
            peer.connection.set_limits(1 + n % 7, 1000);
        }
        pair.run_for(Duration::from_micros(100));
        assert_eq!((pair.client.closed, pair.server.closed), (None, None), "{n}");
    }
    pair.run_for(Duration::from_millis(200));
    // The last ones are told in the end.
    let calls = (0..10).filter(|n| pair.call(*n, b"x").is_ok());
    assert_eq!(calls.count(), 3);
}

#[test]
fn c05_credit_for_each_call_is_no_flood() {
    let mut raw = open(Side::Server, Config::new());
    for n in 1..=20_000 {
        raw.send(&[request(0, b"hello").id(nth_id(0, n))]);
        raw.answer_all();
        raw.sent();
        raw.send(&[credit(CreditPool::Replies, 5)]);
    }
    assert_eq!(raw.closed, None);
}

// ---- CANCELs ----

fn expired(id: u64) -> Frame {
    cancel(id).patch(0, &Cancel { reason: CancelReason::Expired }.encode())
}

/// Makes `n` calls one after another; every `keep`-th is answered, the others cancelled after `age`.
fn cancelling(n: u32, keep: u32, age: Duration, how: fn(u64) -> Frame) -> Option<End> {
    let mut raw = open(Side::Server, Config::new());
    for n in 1..=n {
        let id = nth_id(0, n);
        raw.send(&[request(0, b"x").id(id).deadline(5000)]);
        if n % keep == 0 {
            raw.answer_all();
        } else {
            raw.pass(age);
            raw.send(&[how(id)]);
        }
        raw.sent();
    }
    raw.closed
}

#[test]
fn c01_rapid_resets_close() {
    assert_eq!(cancelling(1024, u32::MAX, Duration::ZERO, cancel), None);
    assert_eq!(cancelling(1025, u32::MAX, Duration::ZERO, cancel), Some(End::TooManyCancels));
    assert_eq!(cancelling(5000, 5, Duration::ZERO, cancel), Some(End::TooManyCancels));
    // A reason does not help, nor does a deadline.
    assert_eq!(cancelling(1025, u32::MAX, Duration::ZERO, expired), Some(End::TooManyCancels));
    // And CANCELs of nothing count as well.
    let mut raw = open(Side::Server, Config::new());
    raw.send(&vec![cancel(id(7)); 1025]);
    assert_eq!(raw.closed, Some(End::TooManyCancels));
}

/// Found: A call that END breaks off is one that is cancelled, and was counted nowhere.
#[test]
fn c01_rapid_resets_by_end_close() {
    let broken_off = |n: u32, is_in_an_item: bool, age: Duration| {
        let mut raw = open(Side::Server, Config::new());
        for n in 1..=n {
            let id = nth_id(0, n);
            raw.send(&[request(0, b"").id(id).flags(request_flags::ITEMS_IN).deadline(5_000_000)]);
            raw.pass(age);
            let item = plain(Kind::Item).id(id).body(&[7; 16]).cut(100);
            let end = plain(Kind::End).id(id);
            let failed = Status::CANCELLED_RUNNING.to_wire().to_le_bytes();
            match is_in_an_item {
                true => raw.send(&[item, end]),
                false => raw.send(&[end.patch(8, &failed)]),
            }
            raw.sent();
        }
        raw.closed
    };
    for is_in_an_item in [true, false] {
        assert_eq!(broken_off(1024, is_in_an_item, Duration::ZERO), None);
        let end = broken_off(1025, is_in_an_item, Duration::ZERO);
        assert_eq!(end, Some(End::TooManyCancels), "{is_in_an_item}");
        // Those that were there for a while are no quick ones.
        assert_eq!(broken_off(3000, is_in_an_item, SECOND), None);
    }
}

#[test]
fn c01_honest_cancels_pass() {
    // As many as are answered, for hedged calls; and any number that have waited in vain.
    assert_eq!(cancelling(20_000, 2, Duration::ZERO, cancel), None);
    assert_eq!(cancelling(5000, u32::MAX, Duration::from_millis(4), expired), None);
    // All calls of a client whose server hangs: slots are free again only with the last word.
    let mut pair = Pair::established(5);
    pair.server.echo = false;
    let mut ticket = 0;
    // Twice for each: what a caller cancels beyond its own count waits.
    for _ in 0..40 {
        while pair.call(ticket, b"x").is_ok() {
            ticket += 1;
        }
        pair.run();
        pair.skip_to_timeout();
        pair.run();
    }
    assert!(ticket > 5000, "{ticket}");
    assert_eq!((pair.client.closed, pair.server.closed), (None, None));
}

/// Callers that have little time, or change their minds, cancel nearly all that they call. Each answer crosses
/// its CANCEL, so that the other side cannot tell for what it was.
#[test]
fn c01_this_implementation_never_cancels_too_much() {
    for (reason, timeout_us) in [(None, 50), (Some(CancelReason::Dropped), 1_000_000)] {
        let mut pair = Pair::established(6);
        let (mut ticket, mut made) = (0, 0);
        let end = pair.now + MINUTE;
        while pair.now < end && made < 20_000 {
            let now = pair.now;
            let soon = |call: &mut ringcall_core::Call| {
                call.deadline = now + Duration::from_micros(timeout_us);
            };
            let called = pair.call_with(ticket, b"x", soon);
            let there = pair.client.transmit(pair.now, usize::MAX);
            pair.server.receive(pair.now, &there, true, &mut pair.rng);
            let back = pair.server.transmit(pair.now, usize::MAX);
            pair.now = pair.now + Duration::from_millis(2);
            if let (Ok(id), Some(reason)) = (&called, reason) {
                pair.client.connection.cancel(pair.now, *id, reason);
            }
            pair.client.connection.handle_timeout(pair.now);
            let cancels = pair.client.transmit(pair.now, usize::MAX);
            pair.server.receive(pair.now, &cancels, true, &mut pair.rng);
            pair.client.receive(pair.now, &back, true, &mut pair.rng);
            made += u32::from(called.is_ok());
            ticket += 1;
            assert_eq!((pair.client.closed, pair.server.closed), (None, None), "{made}");
        }
        assert_eq!(made, 20_000);
    }
}

/// What is not told at once is told: a call whose handler never answers ends two seconds later.
#[test]
fn c01_too_many_cancels_wait_two_seconds() {
    let mut pair = Pair::established(7);
    pair.server.echo = false;
    let longer = |call: &mut ringcall_core::Call| call.deadline = call.deadline + MINUTE;
    let ids: Vec<_> = (0..1000).map(|n| pair.call_with(n, b"x", longer).unwrap()).collect();
    pair.run();
    for id in ids {
        pair.client.connection.cancel(pair.now, id, CancelReason::Dropped).unwrap();
    }
    pair.run();
    assert_eq!((pair.server.cancelled.len(), pair.client.connection.calls_in_flight()), (400, 600));
    pair.run_for(3 * SECOND);
    assert_eq!((pair.server.cancelled.len(), pair.client.connection.calls_in_flight()), (1000, 0));
    assert_eq!(pair.server.closed, None);
}

/// Whoever cancels all of its calls tells one of four at once, for as long as it goes on.
#[test]
fn c01_a_quarter_of_the_cancels_never_waits() {
    let mut pair = Pair::established(8);
    pair.server.echo = false;
    let longer = |call: &mut ringcall_core::Call| call.deadline = call.deadline + MINUTE;
    for ticket in 0..800 {
        let id = pair.call_with(ticket, b"x", longer).unwrap();
        pair.run();
        pair.client.connection.cancel(pair.now, id, CancelReason::Dropped).unwrap();
        pair.run();
    }
    // What was saved lasts for 533 while calls bring more; then one of four.
    let at_once = pair.server.cancelled.len();
    assert!((590..=600).contains(&at_once), "{at_once}");
    pair.run_for(3 * SECOND);
    assert_eq!(pair.server.cancelled.len(), 800);
    assert_eq!((pair.client.closed, pair.server.closed), (None, None));
}

/// An answer that has begun says more than a CANCEL could, which would only be counted.
#[test]
fn c01_a_call_whose_answer_arrives_is_not_cancelled_later() {
    let mut raw = Raw::new(Side::Client, Config::new()).open();
    let call = raw.call(1, b"x", 0).unwrap();
    raw.sent();
    raw.send(&[reply(id(0), b"a part").flags(FLAG_MORE).cut(1000)]);
    let now = raw.now;
    raw.peer.connection.cancel(now, call, CancelReason::Dropped).unwrap();
    // Its deadline passes.
    raw.pass(2 * SECOND);
    assert!(!raw.sent().iter().any(|frame| frame.is(Kind::Cancel)));
    assert_eq!(raw.closed, None);
}

#[test]
fn c01_c02_a_call_holds_its_slot_until_its_handler_is_gone() {
    // Whatever ends it: its caller, its deadline here, or a reply that cannot be sent.
    for by_deadline in [false, true] {
        let mut raw = open(Side::Server, Config::new());
        raw.send(&[request(0, b"x").deadline(1000)]);
        let running = raw.requests[0].clone();
        if by_deadline {
            let (id, deadline) = (running.id, running.deadline);
            raw.connection.watch_deadline(id, deadline);
            // These tests answer as soon as they are told: look before.
            raw.now = deadline + SECOND;
            raw.peer.connection.handle_timeout(deadline + SECOND);
        }
        let now = raw.now;
        let told = raw.peer.connection.poll_event(now);
        if by_deadline {
            let expected = Cancellation::Expired;
            assert!(
                matches!(told, Some(ringcall_core::Event::Cancelled(_, why)) if why == expected)
            );
            assert_eq!(raw.connection.calls_served(), 1);
        } else {
            assert!(told.is_none());
        }
        raw.send(&[request(0, b"x").id(nth_id(0, 2))]);
        assert_eq!(raw.closed, Some(End::IdReused));
    }
}

// ---- small frames ----

/// The first frame of a body of `total` bytes, and its rest in parts.
fn in_parts(slot: u32, total: usize, part: usize) -> Vec<Frame> {
    let mut frames = vec![request(slot, &vec![0; part]).cut(total as u64)];
    for at in (part..total).step_by(part) {
        frames.push(data(id(slot), at as u64, &vec![0; part.min(total - at)]));
    }
    frames
}

#[test]
fn c06_bodies_in_tiny_parts_close() {
    let mut raw = open(Side::Server, Config::new());
    raw.send(&in_parts(0, 4 << 20, 16));
    assert_eq!(raw.closed, Some(End::SmallParts));
}

/// Found: Only parts of requests and replies that somebody waits for were counted.
#[test]
fn c06_tiny_parts_of_anything_close() {
    let total = 1 << 20;
    let tiny =
        |id, total: usize| (16..total).step_by(16).map(move |at| data(id, at as u64, &[0; 16]));
    // A request that is refused, so that its body is ignored.
    let mut raw = open(Side::Server, Config::new());
    raw.send(&[request(0, &[0; 16]).cut(total as u64).deadline(0)]);
    raw.send(&tiny(id(0), total).collect::<Vec<_>>());
    assert_eq!(raw.closed, Some(End::SmallParts));
    // A reply to a call that was given up.
    let mut raw = open(Side::Client, Config::new());
    let call = raw.call(1, b"x", 0).unwrap();
    raw.sent();
    raw.send(&[reply(id(0), &[0; 16]).cut(total as u64)]);
    let now = raw.now;
    raw.connection.cancel(now, call, CancelReason::Dropped).unwrap();
    raw.send(&tiny(id(0), total).collect::<Vec<_>>());
    assert_eq!(raw.closed, Some(End::SmallParts));
    // An item.
    let mut raw = open(Side::Server, Config::new());
    raw.send(&[request(0, b"").flags(request_flags::ITEMS_IN)]);
    raw.send(&[plain(Kind::Item).id(id(0)).body(&[0; 16]).cut(total as u64)]);
    raw.send(&tiny(id(0), total).collect::<Vec<_>>());
    assert_eq!(raw.closed, Some(End::SmallParts));
}

/// Items whose last part is small, in any number.
#[test]
fn c06_honest_items_in_parts_pass() {
    let mut raw = open(Side::Server, Config::new());
    raw.send(&[request(0, b"").flags(request_flags::ITEMS_IN)]);
    for n in 0..20_000 {
        let item = plain(Kind::Item).id(id(0)).body(&[0; 256]);
        raw.send(&[item.cut(513), data(id(0), 256, &[0; 256]), data(id(0), 512, &[0; 1])]);
        assert_eq!((raw.closed, raw.items.len()), (None, n + 1));
        raw.sent();
    }
}

#[test]
fn c06_honest_small_frames_pass() {
    // Bodies whose last part is small, in any number.
    let mut raw = open(Side::Server, Config::new());
    for n in 0..20_000 {
        let slot = n % 1000;
        let frames = in_parts(slot, 1025, 1024);
        let id = nth_id(slot, 1 + n / 1000);
        raw.send(&frames.into_iter().map(|frame| frame.id(id)).collect::<Vec<_>>());
        raw.answer_all();
        raw.sent();
        raw.send(&[credit(CreditPool::Replies, 1025)]);
    }
    assert_eq!(raw.closed, None);
    // Ten thousand replies of 16 bytes that nobody reads for a second.
    let most = Config::new().in_flight_max(16_384);
    let mut pair = Pair::with(3, Config::new(), most).open();
    for ticket in 0..10_000 {
        pair.call_with(ticket, &[1; 16], |call| call.deadline = call.deadline + MINUTE).unwrap();
    }
    pair.net.delay_max = SECOND;
    pair.run();
    assert_eq!((pair.client.closed, pair.server.closed), (None, None));
    (0..10_000).for_each(|ticket| assert_eq!(pair.client.answer(ticket), [1; 16]));
}

// ---- slow peers ----

/// How a connection ends whose replies are read at `rate` bytes a second, for two minutes at most.
fn read_at(rate: usize) -> Option<End> {
    let mut raw = open(Side::Server, off());
    raw.send(&[request(0, &vec![7; 1 << 20]).deadline(u32::MAX - 1)]);
    raw.answer_all();
    let mut batch = Batch::new(usize::MAX);
    let start = raw.now;
    raw.connection.poll_transmit(start, &mut batch);
    for _ in 0..120 {
        raw.pass(SECOND);
        let now = raw.now;
        raw.connection.handle_transmitted(now, rate);
    }
    raw.closed
}

#[test]
fn c09_a_trickle_is_no_reading() {
    assert_eq!(read_at(1), Some(End::SendStalled));
    assert_eq!(read_at(1000), Some(End::SendStalled));
    assert_eq!(read_at(1300), None);
    assert_eq!(read_at(100_000), None);
    // Nor is a pause before something large a slow reader.
    let mut raw = open(Side::Server, Config::new());
    for n in 1..100 {
        raw.send(&[request(0, &[1; 5000]).id(nth_id(0, n))]);
        raw.answer_all();
        let mut batch = Batch::new(usize::MAX);
        let now = raw.now;
        raw.connection.poll_transmit(now, &mut batch);
        raw.pass(Duration::from_millis(100));
        let now = raw.now;
        raw.connection.handle_transmitted(now, batch.bytes.len());
        raw.pass(Duration::from_millis(9900));
        raw.send(&[unknown(200, b"")]);
    }
    assert_eq!(raw.closed, None);
}

/// One frame that takes far longer to arrive than a body may stand still, received into its own memory or not.
#[test]
fn c10_a_long_frame_on_a_slow_link_arrives() {
    for len in [60_000, 1 << 20] {
        let mut raw = open(Side::Server, Config::new());
        let frame = request(0, &vec![7; len]).deadline(u32::MAX - 1).bytes();
        for part in frame.chunks(len / 50) {
            raw.send_bytes(part);
            raw.pass(SECOND);
            assert_eq!(raw.closed, None, "{len}");
        }
        assert_eq!(raw.requests[0].body.len(), len);
    }
}

/// Bodies that take turns on a slow link, so that the next part of each is far away.
#[test]
fn c10_many_bodies_on_a_slow_link_arrive() {
    let mut raw = open(Side::Server, Config::new());
    let frames: Vec<_> = (0..64).map(|slot| in_parts(slot, 4096, 1024)).collect();
    for turn in 0..4 {
        for frames in &frames {
            raw.send(&frames[turn..=turn]);
            raw.pass(Duration::from_millis(300));
            assert_eq!(raw.closed, None, "{turn}");
        }
    }
    assert_eq!(raw.connection.counters().requests_expired, 64, "they are here, too late");
    // One that has stopped does not live on what the others brought.
    raw.send(&in_parts(64, 4096, 1024)[..1]);
    raw.pass(9 * SECOND);
    assert_eq!(raw.closed, None);
    raw.pass(2 * SECOND);
    assert_eq!(raw.closed, Some(End::BodyStalled));
}

/// While this side does not read, it is not the other side's body that does not go on.
#[test]
fn c10_who_is_not_read_does_not_stall() {
    let mut raw = open(Side::Server, off().in_flight_max(2));
    raw.send(&[request(0, &[7; 16]).cut(32)]);
    for generation in 1..=2 {
        raw.send(&[request(1, b"").id(nth_id(1, generation)).flags(request_flags::ONE_WAY)]);
    }
    assert!(raw.is_paused());
    raw.pass(MINUTE);
    assert_eq!(raw.closed, None);
    raw.answer_all();
    raw.pass(9 * SECOND);
    assert_eq!(raw.closed, None);
    raw.pass(11 * SECOND);
    assert_eq!(raw.closed, Some(End::BodyStalled));
}

/// What a pause gives back is its own length: with short ones a body cannot be kept for ever, and each counts.
#[test]
fn c10_a_pause_gives_back_what_it_took() {
    for [before, paused] in [[9500, 1000], [4000, 1000], [4000, 40_000]] {
        let [before, paused] = [before, paused].map(Duration::from_millis);
        let mut raw = open(Side::Server, off().in_flight_max(2));
        raw.send(&[request(0, &[7; 16]).cut(32)]);
        let mut waited = Duration::ZERO;
        for generation in 1..10 {
            raw.pass(before);
            waited += before;
            if raw.closed.is_some() {
                break;
            }
            for n in [0, 1] {
                let id = nth_id(1, 2 * generation + n);
                raw.send(&[request(1, b"").id(id).flags(request_flags::ONE_WAY)]);
            }
            assert!(raw.is_paused());
            raw.pass(paused);
            raw.answer_all();
            assert!(!raw.is_paused());
        }
        assert_eq!(raw.closed, Some(End::BodyStalled), "{before:?} {paused:?}");
        assert!((10..20).contains(&waited.as_secs()), "{before:?} {paused:?}: {waited:?}");
    }
}

#[test]
fn c11_whoever_connects_and_never_speaks_has_five_seconds() {
    for first in [&[][..], &PREFACE[..3], &PREFACE] {
        let mut raw = Raw::new(Side::Server, Config::new());
        let lent = raw.lent();
        raw.send_bytes(first);
        raw.pass(Duration::from_millis(4999));
        assert_eq!(raw.closed, None);
        assert!(raw.lent() <= lent + 4096);
        raw.pass(SECOND);
        assert_eq!(raw.closed, Some(End::HandshakeTimeout));
    }
}
