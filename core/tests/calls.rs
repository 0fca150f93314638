//! What a pair of connections does when both keep the protocol.

mod harness;

use std::time::Duration;

use bytes::Bytes;
use harness::{Pair, Peer, bytes, raw_call, skewed};
use ringcall_core::frame::{CancelReason, ReplyHeader, request_flags};
use ringcall_core::{
    Cancellation, Cause, Chunk, CloseReason, Config, Entropy, Event, Failure, FailureClass,
    Instant, Outcome, ReplyError, SplitMix64, Status,
};

fn failure(outcome: &Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => *failure,
        other => panic!("expected a failure, got {other:?}"),
    }
}

fn status(outcome: &Outcome) -> Status {
    match outcome {
        Outcome::Reply(reply) => reply.header.status,
        other => panic!("expected a reply, got {other:?}"),
    }
}

/// Everything is as it was when the connection opened.
fn assert_at_rest(pair: &Pair) {
    for (peer, other) in [(&pair.client, &pair.server), (&pair.server, &pair.client)] {
        let connection = &peer.connection;
        assert_eq!(connection.calls_in_flight(), 0);
        assert_eq!(connection.calls_served(), 0);
        assert_eq!(connection.bytes_queued(), 0);
        assert_eq!(connection.credit_held(), (0, 0));
        // What is not available to the other side is waiting to be granted: less than a quarter.
        let (calls, replies) = other.connection.credit_available();
        assert!(calls > 6 << 20 && replies > 6 << 20, "{calls} {replies}");
    }
}

/// A pair whose queues hold more than their windows.
fn roomy(seed: u64) -> Pair {
    let config = Config::new().send_queue_max(64 << 20);
    Pair::with(seed, config.clone(), config).open()
}

#[test]
fn a_call_is_answered() {
    let mut pair = Pair::established(1);
    pair.call(7, b"hello").unwrap();
    pair.run();
    assert_eq!(pair.client.answer(7), b"hello");
    assert_at_rest(&pair);
}

#[test]
fn what_arrives_before_all_was_taken_comes_behind_it() {
    let mut pair = Pair::established(1);
    pair.server.echo = false;
    let now = pair.now;
    let arrives = |pair: &mut Pair, ticket: u64| {
        pair.call(ticket, &[ticket as u8; 16]).unwrap();
        let sent = pair.client.transmit(now, usize::MAX);
        let mut chunk = pair.server.memory.pool().take(sent.len());
        chunk.extend_from_slice(&sent);
        pair.server.connection.handle_received(now, chunk.freeze());
    };
    let takes = |pair: &mut Pair| match pair.server.connection.poll_event(now) {
        Some(Event::Request(request)) => request.body[0],
        other => panic!("expected a request, got {other:?}"),
    };
    arrives(&mut pair, 1);
    arrives(&mut pair, 2);
    assert_eq!(takes(&mut pair), 1);
    arrives(&mut pair, 3);
    assert_eq!([takes(&mut pair), takes(&mut pair)], [2, 3]);
}

#[test]
fn bodies_of_every_size_arrive_whole() {
    for seed in 0..20 {
        let mut pair = Pair::established(seed);
        let sizes = [0, 1, 15, 16, 17, 63, 4096, 16_383, 16_400, 65_536, 262_144, 262_145, 4 << 20];
        for (ticket, size) in sizes.into_iter().enumerate() {
            pair.call(ticket as u64, &bytes(ticket as u64, size)).unwrap();
            if seed % 2 == 0 {
                pair.run();
            }
        }
        pair.run();
        for (ticket, size) in sizes.into_iter().enumerate() {
            assert!(pair.client.answer(ticket as u64) == bytes(ticket as u64, size), "{size}");
        }
        assert_at_rest(&pair);
    }
}

#[test]
fn a_whole_and_aligned_body_is_not_copied() {
    let mut pair = Pair::established(3);
    for ticket in 0..100 {
        pair.call(ticket, &bytes(ticket, 1000)).unwrap();
        pair.run();
        assert_eq!(pair.client.answer(ticket).as_ptr() as usize % 16, 0);
    }
    for peer in [&pair.client, &pair.server] {
        assert_eq!(peer.connection.counters().copied_bytes(), 0);
    }
}

#[test]
fn a12_misaligned_bodies_are_copied_and_counted() {
    let mut pair = Pair::established(3);
    pair.server.echo = false;
    for ticket in 1..=2 {
        pair.call(ticket, &bytes(ticket, 1000)).unwrap();
    }
    let sent = pair.client.transmit(pair.now, usize::MAX);
    // The second frame lies whole, and eight bytes off, behind the rest of the first.
    for part in [&sent[..8], &sent[8..]] {
        pair.server.receive(pair.now, part, false, &mut pair.rng);
    }
    let [_, request] = &pair.server.requests[..] else { panic!("two requests") };
    assert!(request.body.is_aligned_to(16));
    assert_eq!(&*request.body, bytes(2, 1000));
    assert_eq!(pair.server.connection.counters().copied_misaligned, 1000);
}

/// The split-invariance property: however the bytes are cut up, the result is the same.
#[test]
fn a02_any_split_gives_the_same_result() {
    let mut expected = None;
    for split in [1, 2, 3, 7, 16, 17, 31, 1000, usize::MAX] {
        let mut pair = Pair::new(split as u64);
        pair.net.split_max = split;
        let mut pair = pair.open();
        for ticket in 0..20 {
            pair.call(ticket, &bytes(ticket, (ticket * 977 % 5000) as usize)).unwrap();
        }
        pair.run();
        let mut results: Vec<_> =
            (0..20).map(|ticket| pair.client.answer(ticket).to_vec()).collect();
        results.push(pair.server.connection.counters().requests_taken.to_le_bytes().to_vec());
        assert!(*expected.get_or_insert_with(|| results.clone()) == results, "split {split}");
        assert_at_rest(&pair);
    }
}

#[test]
fn b10_parts_of_many_bodies_interleave() {
    let mut pair = Pair::established(5);
    pair.net.send_max = 300_000;
    for ticket in 0..2 {
        pair.call(ticket, &bytes(ticket, 3 << 20)).unwrap();
    }
    for ticket in 2..50 {
        pair.call(ticket, &bytes(ticket, 100)).unwrap();
    }
    // After a few batches the small calls are done although the large ones are not.
    for _ in 0..4 {
        pair.step();
    }
    assert!((2..50).all(|ticket| pair.client.answer(ticket) == bytes(ticket, 100)));
    assert!(!pair.client.done.iter().any(|(ticket, _)| *ticket < 2));
    pair.run();
    assert!((0..2).all(|ticket| pair.client.answer(ticket) == bytes(ticket, 3 << 20)));
    assert_at_rest(&pair);
}

/// How many bytes leave `from` for `to` before these do, the transport taking 64 KiB at a time.
fn bytes_before(
    what: &[u8],
    [from, to]: [&mut Peer; 2],
    now: Instant,
    rng: &mut SplitMix64,
) -> usize {
    let mut left = Vec::new();
    for _ in 0..1000 {
        let sent = from.transmit(now, 64 << 10);
        let searched = left.len().saturating_sub(what.len());
        left.extend_from_slice(&sent);
        to.receive(now, &sent, true, rng);
        to.drain(now);
        let found = left[searched..].windows(what.len()).position(|window| window == what);
        if let Some(at) = found {
            return searched + at;
        }
    }
    panic!("it does not leave");
}

/// A body may be of any length: what is small waits for the part of it that has begun, and no longer.
#[test]
fn c13_what_is_small_waits_for_one_part_of_what_is_large() {
    const CUT: usize = 64 << 10;
    // Calls of whoever has so much to read already would be put off.
    let config = Config::new().send_queue_soft(64 << 20).send_queue_max(64 << 20);
    let config = config.message_bytes_max(16 << 20).cut_bytes(CUT);
    let mut pair = Pair::with(13, config.clone(), config).open();
    pair.call(0, &bytes(0, 16 << 20)).unwrap();
    let mut small = 0;
    while pair.client.done.iter().all(|(ticket, _)| *ticket != 0) {
        small += 1;
        let body = bytes(small, 100);
        pair.call(small, &body).unwrap();
        let Pair { now, client, server, rng, .. } = &mut pair;
        let call = bytes_before(&body, [client, server], *now, rng);
        let answer = bytes_before(&body, [server, client], *now, rng);
        assert!(call <= 2 * CUT, "{call} bytes left before call {small}");
        assert!(answer <= 2 * CUT, "{answer} bytes left before answer {small}");
        assert_eq!(client.answer(small), body);
    }
    // As many as it has parts, there and back.
    assert!(small > 400, "only {small} small ones passed");
    assert!(pair.client.answer(0) == bytes(0, 16 << 20));
}

#[test]
fn credit_holds_calls_back_and_lets_them_go_in_order() {
    let mut pair = roomy(6);
    pair.server.echo = false;
    for ticket in 0..10 {
        pair.call(ticket, &bytes(ticket, 3 << 20)).unwrap();
    }
    pair.run();
    // Two of three MiB fit a window of eight.
    assert_eq!(pair.server.requests.len(), 2);
    assert_eq!(pair.server.connection.credit_held().0, 6 << 20);
    let mut served = 0;
    while let Some(request) =
        (!pair.server.requests.is_empty()).then(|| pair.server.requests.remove(0))
    {
        assert!(*request.body == bytes(served, 3 << 20)[..]);
        pair.server.reply(pair.now, request.id, Status::OK, &Chunk::empty()).unwrap();
        served += 1;
        pair.run();
    }
    assert_eq!(served, 10);
    assert_at_rest(&pair);
}

#[test]
fn replies_wait_for_their_own_credit() {
    let mut pair = roomy(7);
    let big = bytes(1, 4 << 20);
    for ticket in 0..8 {
        pair.call(ticket, &big).unwrap();
    }
    pair.run();
    assert!((0..8).all(|ticket| pair.client.answer(ticket) == big));
    assert_at_rest(&pair);
}

#[test]
fn b12_a_dropped_call_is_cancelled_once_and_its_slot_waits_for_the_last_word() {
    let mut pair = Pair::established(8);
    pair.server.echo = false;
    let id = pair.call(1, b"x").unwrap();
    pair.run();
    assert_eq!(pair.client.connection.cancel(pair.now, id, CancelReason::Dropped), Some(1));
    assert_eq!(pair.client.connection.cancel(pair.now, id, CancelReason::Dropped), None);
    assert_eq!(pair.client.connection.calls_in_flight(), 1, "the slot is not free yet");
    pair.run();
    let [(_, why)] = pair.server.cancelled[..] else { panic!("told once") };
    assert_eq!(why, Cancellation::Caller(CancelReason::Dropped));
    assert_eq!(pair.client.connection.counters().replies_late, 1);
    assert!(pair.client.done.is_empty(), "its ticket came back already");
    assert_at_rest(&pair);
}

#[test]
fn d07_cancelling_before_anything_was_sent_sends_nothing() {
    let mut pair = roomy(9);
    pair.server.echo = false;
    let held: Vec<_> = (0..4).map(|t| pair.call(t, &bytes(t, 4 << 20)).unwrap()).collect();
    // Two have credit, two wait for it.
    for (ticket, id) in held.iter().enumerate().skip(2) {
        let back = pair.client.connection.cancel(pair.now, *id, CancelReason::Dropped);
        assert_eq!(back, Some(ticket as u64));
    }
    assert_eq!(pair.client.connection.calls_in_flight(), 2);
    pair.run();
    assert_eq!(pair.server.connection.counters().requests_taken, 2);
    assert_eq!(pair.server.connection.counters().requests_cancelled, 0);
}

#[test]
fn d07_cancelling_in_the_middle_of_a_body_stops_it() {
    for steps in 0..30 {
        let mut pair = Pair::established(steps);
        pair.net.send_max = 100_000;
        let id = pair.call(1, &bytes(1, 4 << 20)).unwrap();
        for _ in 0..steps {
            pair.step();
        }
        let back = pair.client.connection.cancel(pair.now, id, CancelReason::Dropped);
        assert_eq!(back.is_some(), pair.client.done.is_empty());
        pair.run();
        pair.call(2, b"next").unwrap();
        pair.run();
        assert_eq!(pair.client.answer(2), b"next");
        assert_at_rest(&pair);
    }
}

#[test]
fn d01_an_expired_call_is_not_sent() {
    let mut pair = Pair::established(10);
    let now = pair.now;
    let refused = pair.call_with(1, b"", |call| call.deadline = now).unwrap_err();
    assert_eq!((refused.ticket, refused.failure), (1, Failure::not_sent(Cause::Expired)));
}

#[test]
fn a_deadline_ends_the_call_here_and_cancels_it_there() {
    let mut pair = Pair::established(11);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    assert_eq!(pair.server.requests[0].deadline, pair.now + Duration::from_secs(1));
    pair.run_for(Duration::from_millis(999));
    assert!(pair.client.done.is_empty());
    pair.run_for(Duration::from_millis(3));
    let ended = failure(pair.client.outcome(1));
    assert_eq!(ended, Failure::unknown(Cause::Expired));
    assert_eq!(pair.server.cancelled[0].1, Cancellation::Caller(CancelReason::Expired));
    pair.run();
    assert_at_rest(&pair);
}

/// The wheel is told of a slot once, not with every call: it must find each call's own deadline all the same.
#[test]
fn d01_a_slot_used_again_has_the_deadline_of_its_call() {
    let ms = Duration::from_millis;
    for second_ms in [200, 1000, 5000] {
        let mut pair = Pair::established(12);
        pair.call(1, b"answered").unwrap();
        pair.run();
        pair.client.answer(1);
        assert_eq!(pair.client.connection.calls_in_flight(), 0);
        pair.server.echo = false;
        let deadline = pair.now + ms(second_ms);
        pair.call_with(2, b"not answered", |call| call.deadline = deadline).unwrap();
        pair.run();
        pair.run_for(ms(second_ms - 2));
        assert!(pair.client.done.iter().all(|(ticket, _)| *ticket != 2), "too early");
        pair.run_for(ms(5));
        assert_eq!(failure(pair.client.outcome(2)), Failure::unknown(Cause::Expired));
    }
}

/// Without calls nobody need wake for the deadlines of those that were.
#[test]
fn an_idle_connection_does_not_wake_for_past_calls() {
    let mut pair = Pair::established(13);
    let before = pair.client.connection.poll_timeout();
    pair.call(1, b"x").unwrap();
    pair.run();
    pair.client.answer(1);
    let after = pair.client.connection.poll_timeout();
    let soon = pair.now + Duration::from_secs(2);
    assert!(before.is_none_or(|at| at > soon) && after.is_none_or(|at| at > soon), "{after:?}");
}

#[test]
fn d02_a_watched_deadline_is_told_to_the_server() {
    let mut pair = Pair::established(12);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    let (id, deadline) = (pair.server.requests[0].id, pair.server.requests[0].deadline);
    pair.server.connection.watch_deadline(id, deadline);
    pair.client.mute = true;
    pair.run_for(Duration::from_millis(1002));
    assert_eq!(pair.server.cancelled, [(id, Cancellation::Expired)]);
    assert_eq!(pair.server.connection.calls_served(), 0);
}

#[test]
fn b05_an_early_answer_stops_the_body() {
    let mut pair = Pair::established(13);
    pair.net.send_max = 100_000;
    // Deadline zero on the wire: refused as soon as the head is read.
    pair.call(1, &bytes(1, 4 << 20)).unwrap();
    // One microsecond left, and the first batch takes longer than that to be built.
    let now = pair.now;
    pair.call_with(2, &bytes(2, 3 << 20), |call| call.deadline = now + Duration::from_nanos(1))
        .unwrap();
    pair.now = pair.now + Duration::from_nanos(2);
    pair.run();
    assert_eq!(status(pair.client.outcome(2)), Status::EXPIRED);
    assert!(pair.server.connection.counters().bytes_received < (5 << 20));
    assert_eq!(pair.client.answer(1).len(), 4 << 20);
    pair.call(3, b"after").unwrap();
    pair.run();
    assert_eq!(pair.client.answer(3), b"after");
    assert_at_rest(&pair);
}

#[test]
fn one_way_calls_are_sent_and_get_no_answer() {
    let mut pair = Pair::established(14);
    pair.server.echo = false;
    for ticket in 0..3 {
        let size = [10, 300_000, 0][ticket as usize];
        pair.call_with(ticket, &bytes(ticket, size), |call| call.flags = request_flags::ONE_WAY)
            .unwrap();
    }
    assert_eq!(pair.client.done.len(), 0, "no transport has taken them");
    pair.run();
    assert!((0..3).all(|ticket| matches!(pair.client.outcome(ticket), Outcome::Sent)));
    assert_eq!(pair.client.connection.calls_in_flight(), 0);
    let requests = std::mem::take(&mut pair.server.requests);
    assert_eq!(requests.len(), 3);
    for request in requests {
        assert!(request.id.is_one_way());
        pair.server.reply(pair.now, request.id, Status::OK, &Chunk::empty()).unwrap();
    }
    pair.run();
    assert_eq!(pair.client.done.len(), 3);
    assert_at_rest(&pair);
}

#[test]
fn one_ways_that_run_hold_back_further_ones() {
    let mut pair = Pair::with(15, Config::new(), Config::new().in_flight_max(4)).open();
    pair.server.echo = false;
    for ticket in 0..10 {
        pair.call_with(ticket, b"x", |call| call.flags = request_flags::ONE_WAY).unwrap();
    }
    pair.run();
    assert_eq!(pair.server.requests.len(), 4);
    for _ in 0..10 {
        let request = pair.server.requests.remove(0);
        pair.server.reply(pair.now, request.id, Status::OK, &Chunk::empty()).unwrap();
        pair.run();
    }
    assert_at_rest(&pair);
}

/// Its slots belong to calls that still run there.
#[test]
fn b06_no_call_is_made_when_the_other_side_sends_no_more() {
    let mut pair = Pair::established(21);
    pair.server.echo = false;
    pair.client.echo = false;
    pair.call(1, b"runs there").unwrap();
    let back = raw_call(pair.now);
    pair.server.connection.call(pair.now, &back, &Bytes::from_static(b"runs here"), 2).unwrap();
    pair.run();
    pair.client.connection.handle_input_end(pair.now);
    pair.client.drain(pair.now);
    let peer_closed = Cause::Closed(CloseReason::PeerClosed);
    assert!(matches!(pair.client.outcome(1), Outcome::Failed(f) if f.cause == peer_closed));
    let refused = pair.call(3, b"in the same slot").unwrap_err();
    assert_eq!(refused.failure, Failure::not_sent(peer_closed));
    let request = pair.client.requests.remove(0);
    pair.client.reply(pair.now, request.id, Status::OK, &Chunk::empty()).unwrap();
    pair.run();
    assert_eq!((pair.client.closed, pair.server.closed), (Some(CloseReason::PeerClosed), None));
    assert!(pair.server.answer(2).is_empty());
}

/// A limit: their answers come behind one-way calls that are not read. It ends with the deadline.
#[test]
fn c15_one_ways_whose_handlers_call_back_end_at_their_deadline() {
    let mut pair = Pair::with(22, Config::new(), Config::new().in_flight_max(4)).open();
    pair.server.echo = false;
    for ticket in 0..5 {
        pair.call_with(ticket, b"x", |call| call.flags = request_flags::ONE_WAY).unwrap();
    }
    pair.run();
    for ticket in 10..14 {
        let call = raw_call(pair.now);
        pair.server.connection.call(pair.now, &call, &Bytes::new(), ticket).unwrap();
    }
    pair.run();
    assert_eq!((pair.server.requests.len(), pair.server.done.len()), (4, 0));
    pair.run_for(Duration::from_secs(2));
    for ticket in 10..14 {
        assert_eq!(failure(pair.server.outcome(ticket)), Failure::unknown(Cause::Expired));
    }
    for _ in 0..5 {
        let request = pair.server.requests.remove(0);
        pair.server.reply(pair.now, request.id, Status::OK, &Chunk::empty()).unwrap();
        pair.run();
    }
    assert_eq!((pair.client.closed, pair.server.closed), (None, None));
    assert_at_rest(&pair);
}

#[test]
fn the_in_flight_limit_is_the_peers() {
    let mut pair = Pair::with(16, Config::new(), Config::new().in_flight_max(3)).open();
    pair.server.echo = false;
    for ticket in 0..3 {
        pair.call(ticket, b"x").unwrap();
    }
    let refused = pair.call(3, b"x").unwrap_err();
    assert_eq!((refused.ticket, refused.failure), (3, Failure::not_sent(Cause::InFlightMax)));
    pair.run();
    assert_eq!(pair.server.requests.len(), 3);
}

#[test]
fn c04_limits_change_while_calls_run() {
    let mut pair = Pair::established(17);
    pair.server.connection.set_limits(2, 2000);
    pair.run();
    assert_eq!(pair.client.connection.in_flight_limit(), 2);
    let refused = pair.call(1, &bytes(1, 2001)).unwrap_err();
    assert_eq!(refused.failure.cause, Cause::TooLarge { limit: 2000 });
    pair.call(2, &bytes(2, 2000)).unwrap();
    pair.run();
    assert_eq!(pair.client.answer(2).len(), 2000);
    pair.server.connection.set_limits(5000, 4 << 20);
    pair.run();
    for ticket in 10..3000 {
        pair.call(ticket, b"x").unwrap();
    }
    pair.run();
    assert_eq!(pair.client.done.len(), 2991);
}

#[test]
fn c04_a_lower_limit_lets_pass_what_waits_for_credit() {
    let client = Config::new().message_bytes_max(100_000).replies_window(200_000);
    let mut pair = Pair::with(17, client, Config::new()).open();
    pair.server.echo = false;
    for ticket in 0..3 {
        pair.call(ticket, b"x").unwrap();
    }
    pair.run();
    let body = Bytes::from(bytes(1, 90_000));
    for request in std::mem::take(&mut pair.server.requests) {
        let header = ReplyHeader::new(Status::OK);
        // The last one has no credit left.
        pair.server.connection.reply(pair.now, request.id, header, &body).unwrap();
    }
    pair.client.connection.set_limits(1024, 1000);
    pair.run();
    assert_eq!(pair.client.closed, None);
    for ticket in 0..3 {
        assert_eq!(pair.client.answer(ticket), body);
    }
    assert_eq!(pair.server.connection.peer().unwrap().message_bytes_max, 1000);
}

/// Found: Limits passed the fence of a drain, which repeated those before them: the other side went by those, and
/// was accused of what they allow (`FrameTooLarge`).
#[test]
fn c04_limits_do_not_pass_each_other() {
    let mut pair = Pair::established(17);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    pair.client.connection.drain(pair.now);
    pair.client.connection.set_limits(1024, 1000);
    pair.run();
    assert_eq!(pair.server.connection.peer().unwrap().message_bytes_max, 1000);
    let request = pair.server.requests.remove(0).id;
    let header = ReplyHeader::new(Status::OK);
    let body = Bytes::from(bytes(1, 2000));
    let reply = pair.server.connection.reply(pair.now, request, header, &body);
    assert!(matches!(reply, Err(ReplyError::Encode(_))));
    pair.run();
    assert!(matches!(pair.client.closed, Some(CloseReason::Local | CloseReason::PeerClosed)));
}

/// Found: An answer to the same limits of before was taken for that to the last ones.
#[test]
fn c04_limits_may_come_back() {
    let mut pair = Pair::established(17);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    let request = pair.server.requests.remove(0).id;
    let mut answers = Vec::new();
    for message_bytes_max in [1000, 4 << 20, 1000] {
        pair.client.connection.set_limits(1024, message_bytes_max);
        let limits = pair.client.transmit(pair.now, usize::MAX);
        pair.server.receive(pair.now, &limits, true, &mut pair.rng);
        if message_bytes_max > 1000 {
            let body = Bytes::from(bytes(1, 2000));
            let header = ReplyHeader::new(Status::OK);
            let _allowed = pair.server.connection.reply(pair.now, request, header, &body);
        }
        answers.push(pair.server.transmit(pair.now, usize::MAX));
    }
    for answer in answers {
        pair.client.receive(pair.now, &answer, true, &mut pair.rng);
    }
    pair.run();
    assert_eq!(pair.client.closed, None);
    assert_eq!(pair.server.connection.peer().unwrap().message_bytes_max, 1000);
}

#[test]
fn a_call_before_the_handshake_is_not_sent() {
    let mut pair = Pair::new(18);
    let refused = pair.call(1, b"x").unwrap_err();
    assert_eq!(refused.failure, Failure::not_sent(Cause::NotReady));
}

#[test]
fn pings_come_back() {
    let mut pair = Pair::established(19);
    pair.server.connection.ping(pair.now, [7; 16]);
    pair.client.connection.ping(pair.now, [8; 16]);
    pair.run();
    assert_eq!((pair.server.pongs.len(), pair.client.pongs[0]), (1, [8; 16]));
}

#[test]
fn goaway_refuses_what_was_not_taken_and_finishes_what_was() {
    let mut pair = Pair::established(20);
    pair.server.echo = false;
    pair.call(1, b"taken").unwrap();
    pair.run();
    pair.call(2, b"on its way").unwrap();
    pair.server.connection.go_away(pair.now, true);
    pair.run();
    assert_eq!(failure(pair.client.outcome(2)), Failure::refused(Cause::GoAway));
    assert_eq!(pair.server.connection.counters().requests_after_goaway, 1);
    let refused = pair.call(3, b"late").unwrap_err();
    assert_eq!(refused.failure, Failure::not_sent(Cause::GoAway));
    assert!(pair.client.closed.is_none() && pair.server.closed.is_none());
    let request = pair.server.requests.remove(0);
    pair.server.reply(pair.now, request.id, Status::OK, &request.body).unwrap();
    pair.run();
    assert_eq!(pair.client.answer(1), b"taken");
    assert!(pair.client.closed.is_some() || pair.server.closed.is_some());
}

#[test]
fn goaway_soon_refuses_nothing() {
    let mut pair = Pair::established(21);
    pair.call(1, b"x").unwrap();
    pair.server.connection.go_away(pair.now, false);
    pair.run();
    assert_eq!(pair.client.answer(1), b"x");
    assert_eq!(pair.client.goaways, 1);
    // Its own calls are done, so the client goes.
    assert_eq!(pair.client.closed, Some(CloseReason::Local));
    let refused = pair.call(2, b"x").unwrap_err();
    assert_eq!(refused.failure, Failure::not_sent(Cause::Closed(CloseReason::Local)));
}

#[test]
fn b15_every_call_ends_once_when_the_connection_dies() {
    let mut pair = Pair::established(22);
    pair.server.echo = false;
    for ticket in 0..5 {
        pair.call(ticket, b"taken").unwrap();
    }
    pair.run();
    pair.call(5, b"not taken").unwrap();
    pair.call(6, &bytes(6, 4 << 20)).unwrap();
    pair.call_with(7, b"one way", |call| call.flags = request_flags::ONE_WAY).unwrap();
    pair.client.connection.handle_closed(pair.now, CloseReason::PeerClosed);
    pair.client.drain(pair.now);
    let cause = Cause::Closed(CloseReason::PeerClosed);
    for ticket in 0..8 {
        let class = if ticket < 5 { FailureClass::Unknown } else { FailureClass::NotSent };
        let ended = failure(pair.client.outcome(ticket));
        assert_eq!((ended.class, ended.cause), (class, cause), "{ticket}");
    }
    assert_eq!(pair.client.closed, Some(CloseReason::PeerClosed));
    assert!(pair.client.connection.is_finished());
    // The server's handlers are told, once each.
    pair.server.connection.handle_closed(pair.now, CloseReason::PeerClosed);
    pair.server.drain(pair.now);
    assert_eq!(pair.server.cancelled.len(), 5);
    assert!(pair.server.cancelled.iter().all(|(_, why)| *why == Cancellation::Closed));
    assert_eq!(pair.server.connection.calls_served(), 0);
}

#[test]
fn both_sides_call() {
    let mut pair = roomy(23);
    pair.client.echo = true;
    let call = raw_call(pair.now);
    for ticket in 0..50 {
        pair.call(ticket, &bytes(ticket, 200_000)).unwrap();
        let body = bytes::Bytes::from(bytes(ticket + 100, 200_000));
        pair.server.connection.call(pair.now, &call, &body, ticket).unwrap();
    }
    pair.run();
    for ticket in 0..50 {
        assert!(pair.client.answer(ticket) == bytes(ticket, 200_000));
        assert!(pair.server.answer(ticket) == bytes(ticket + 100, 200_000));
    }
    assert_at_rest(&pair);
}

#[test]
fn too_large_a_message_is_refused_here() {
    let mut pair = Pair::established(24);
    let refused = pair.call(1, &bytes(1, (4 << 20) + 1)).unwrap_err();
    assert_eq!(refused.failure.cause, Cause::TooLarge { limit: 4 << 20 });
    assert_eq!(pair.client.connection.calls_in_flight(), 0);
    pair.call(2, &bytes(2, 4 << 20)).unwrap();
    pair.run();
    assert_eq!(pair.client.answer(2).len(), 4 << 20);
}

#[test]
fn a_reply_that_does_not_fit_becomes_a_status() {
    let small = Config::new().message_bytes_max(1024);
    let mut pair = Pair::with(25, small, Config::new()).open();
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    let id = pair.server.requests[0].id;
    let body = pair.server.memory.pool().copy(&bytes(1, 1025));
    assert!(pair.server.reply(pair.now, id, Status::OK, &body).is_err());
    pair.run();
    assert_eq!(status(pair.client.outcome(1)), Status::REPLY_FAILED);
    assert_at_rest(&pair);
}

#[test]
fn f05_a_call_cannot_be_answered_twice() {
    let mut pair = Pair::established(26);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    let id = pair.server.requests[0].id;
    pair.server.reply(pair.now, id, Status::OK, &Chunk::empty()).unwrap();
    assert!(pair.server.reply(pair.now, id, Status::OK, &Chunk::empty()).is_err());
    pair.run();
    assert_eq!(pair.client.done.len(), 1);
}

/// Calls of all sizes, cancels, expiries and splits at random: every call ends once, with its own
/// bytes, and nothing is left.
#[test]
fn b03_random_traffic_leaves_nothing_behind() {
    for seed in 0..60 {
        let mut rng = SplitMix64::new(seed);
        let config = Config::new()
            .first_generation(0x7fff_fff0)
            .in_flight_max(1 + rng.below(64) as u32)
            .cut_bytes(1024 << rng.below(9));
        let mut pair = Pair::with(seed, config.clone(), config);
        let split_bits = rng.below(18);
        pair.net.split_max = 1 << split_bits;
        pair.net.delay_max = Duration::from_micros(skewed(&mut rng, 16));
        pair.net.send_max = 1 + skewed(&mut rng, 22) as usize;
        let mut pair = pair.open();
        let (mut ticket, mut back) = (0, Vec::new());
        let mut live = Vec::new();
        for _ in 0..60 {
            for _ in 0..rng.below(8) {
                // Small pieces and large bodies together only take long.
                let size = skewed(&mut rng, 9 + split_bits.min(10)) as usize;
                let deadline = pair.now + Duration::from_micros(1 + rng.below(3_000_000));
                match pair.call_with(ticket, &bytes(ticket, size), |c| c.deadline = deadline) {
                    Ok(id) => live.push((ticket, id)),
                    Err(refused) => back.push(refused.ticket),
                }
                ticket += 1;
            }
            if rng.below(3) == 0 && !live.is_empty() {
                let (_, id) = live.swap_remove(rng.below(live.len() as u64) as usize);
                back.extend(pair.client.connection.cancel(pair.now, id, CancelReason::Dropped));
            }
            for _ in 0..rng.below(20) {
                pair.step();
            }
            if rng.below(10) == 0 {
                pair.run_for(Duration::from_millis(rng.below(2000)));
            }
        }
        pair.run();
        pair.run_for(Duration::from_secs(5));
        pair.run();
        back.extend(pair.client.done.iter().map(|(ticket, _)| *ticket));
        back.sort_unstable();
        assert_eq!(
            back,
            (0..ticket).collect::<Vec<_>>(),
            "seed {seed}: each ticket came back once"
        );
        for (ticket, outcome) in &pair.client.done {
            if let Outcome::Reply(reply) = outcome
                && reply.header.status == Status::OK
            {
                let body = bytes(*ticket, reply.body.len());
                assert!(*reply.body == body[..], "seed {seed}: call {ticket} got another's reply");
            }
        }
        assert_eq!(pair.client.closed, None, "seed {seed}");
        assert_eq!(pair.server.closed, None, "seed {seed}");
        assert_at_rest(&pair);
    }
}

/// The same seed gives the same run, byte for byte.
#[test]
fn a_run_repeats_itself() {
    let run = || {
        let mut pair = Pair::new(99);
        pair.net.split_max = 100;
        pair.net.delay_max = Duration::from_millis(1);
        let mut pair = pair.open();
        for ticket in 0..100 {
            let _ = pair.call(ticket, &bytes(ticket, (ticket * 131) as usize));
        }
        pair.run();
        let order: Vec<u64> = pair.client.done.iter().map(|(ticket, _)| *ticket).collect();
        (pair.now, order, *pair.client.connection.counters(), *pair.server.connection.counters())
    };
    assert_eq!(run(), run());
}

/// Both sides have as many calls in flight as they may, with bodies that take all the credit, and answer
/// none before all are there. Answers need neither slots nor the credit of calls.
#[test]
fn c15_both_sides_full_of_calls_are_answered() {
    for seed in 0..4 {
        let config = Config::new().in_flight_max(8).send_queue_max(64 << 20);
        let mut pair = Pair::with(seed, config.clone(), config);
        pair.net.split_max = 4096 << (seed % 8);
        pair.net.send_max = 100_000;
        let mut pair = pair.open();
        (pair.client.echo, pair.server.echo) = (false, false);
        let mib = bytes(seed, 1 << 20);
        let now = pair.now;
        for peer in [&mut pair.client, &mut pair.server] {
            for ticket in 0..8 {
                let call = raw_call(now);
                let body = Bytes::copy_from_slice(&mib);
                peer.connection.call(now, &call, &body, ticket).unwrap();
            }
            let one_more = peer.connection.call(now, &raw_call(now), &Bytes::new(), 8);
            assert_eq!(one_more.unwrap_err().failure, Failure::not_sent(Cause::InFlightMax));
        }
        pair.run();
        for peer in [&mut pair.client, &mut pair.server] {
            assert_eq!((peer.requests.len(), peer.connection.credit_available().0), (8, 0));
        }
        for peer in [&mut pair.client, &mut pair.server] {
            for request in std::mem::take(&mut peer.requests) {
                peer.reply(now, request.id, Status::OK, &request.body).unwrap();
            }
        }
        pair.run();
        for peer in [&pair.client, &pair.server] {
            (0..8).for_each(|ticket| assert!(peer.answer(ticket) == mib));
        }
        assert_at_rest(&pair);
    }
}

/// Both sides' calls take all the credit, and their handlers call back: those calls are known to wait, so
/// that they can be given up without a byte sent.
#[test]
fn c15_a_call_back_that_waits_for_credit_says_so() {
    let mut pair = roomy(31);
    (pair.client.echo, pair.server.echo) = (false, false);
    let now = pair.now;
    let call = |peer: &mut harness::Peer, ticket, len: usize| {
        let body = Bytes::from(bytes(ticket, len));
        peer.connection.call(now, &raw_call(now), &body, ticket).unwrap()
    };
    for peer in [&mut pair.client, &mut pair.server] {
        for ticket in 0..2 {
            let id = call(peer, ticket, 4 << 20);
            assert!(!peer.connection.waits_for_credit(id));
        }
    }
    pair.run();
    for peer in [&mut pair.client, &mut pair.server] {
        let free = call(peer, 2, 0);
        assert!(!peer.connection.waits_for_credit(free));
        let waits = call(peer, 3, 1);
        assert!(peer.connection.waits_for_credit(waits));
        let back = peer.connection.cancel(now, waits, CancelReason::Dropped);
        assert_eq!(back, Some(3));
        assert!(!peer.connection.waits_for_credit(waits));
    }
    pair.run();
    for peer in [&mut pair.client, &mut pair.server] {
        assert_eq!(peer.requests.len(), 3, "what waited was never sent");
        for request in std::mem::take(&mut peer.requests) {
            peer.reply(now, request.id, Status::OK, &Chunk::empty()).unwrap();
        }
    }
    pair.run();
    assert_at_rest(&pair);
}

#[test]
fn d02_a_request_that_expired_in_a_queue_is_counted_apart() {
    let mut pair = Pair::established(32);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    let id = pair.server.requests[0].id;
    pair.server.connection.refuse_expired(pair.now, id);
    pair.server.connection.refuse_expired(pair.now, id);
    pair.run();
    assert_eq!(status(pair.client.outcome(1)), Status::EXPIRED);
    let counters = pair.server.connection.counters();
    assert_eq!((counters.requests_expired, counters.requests_refused), (1, 1));
    assert_at_rest(&pair);
}

/// What is left is said, not when it ends: the sides may disagree about the time by years.
#[test]
fn d03_clocks_may_differ() {
    for ahead in [Duration::ZERO, Duration::from_secs(300_000_000)] {
        let mut pair = Pair::established(33);
        pair.server.echo = false;
        pair.call(1, b"x").unwrap();
        let sent = pair.client.transmit(pair.now, usize::MAX);
        let there = pair.now + ahead;
        pair.server.receive(there, &sent, true, &mut SplitMix64::new(1));
        assert_eq!(pair.server.requests[0].deadline, there + Duration::from_secs(1));
    }
}

#[test]
fn d04_deadlines_saturate_on_the_wire() {
    let mut pair = Pair::established(34);
    pair.server.echo = false;
    let hour = Duration::from_secs(3600);
    for (ticket, deadline) in [(1, Instant::FAR), (2, pair.now + 1000 * hour)] {
        pair.call_with(ticket, b"x", |call| call.deadline = deadline).unwrap();
    }
    pair.run();
    for request in &pair.server.requests {
        // The most that 32 bits of microseconds hold without meaning "none".
        assert_eq!(request.deadline, pair.now + Duration::from_micros(u64::from(u32::MAX) - 1));
    }
}

#[test]
fn an_answer_overtakes_the_word_that_nobody_waits() {
    let mut pair = Pair::established(3);
    pair.server.echo = false;
    for ticket in 0..2 {
        pair.call(ticket, b"late").expect("there is room");
    }
    pair.run_for(Duration::from_millis(10));
    let requests: Vec<_> = pair.server.requests.iter().map(|it| (it.id, it.deadline)).collect();
    let (now, server) = (pair.now + Duration::from_secs(2), &mut pair.server.connection);
    for (id, deadline) in &requests {
        server.watch_deadline(*id, *deadline);
    }
    server.handle_timeout(now);
    // Both have expired. The application hears of one, and answers both at once.
    let told = server.poll_event(now);
    let Some(Event::Cancelled(first, _)) = told else { panic!("{told:?}") };
    for (id, _) in &requests {
        let header = ReplyHeader::new(Status::CANCELLED_RUNNING);
        server.reply(now, *id, header, &Bytes::new()).expect("it runs");
    }
    assert!(requests.iter().any(|(id, _)| *id == first));
    let after = server.poll_event(now);
    assert!(after.is_none(), "it was answered: {after:?}");
}

/// A call that waits for credit is handed back as not sent when nobody can give any, and is not sent after that.
#[test]
fn b15_what_waits_for_credit_is_not_sent_behind_the_end_of_input() {
    let mut pair = Pair::established(90);
    pair.server.echo = false;
    for ticket in 0..3 {
        pair.call(ticket, &bytes(ticket, 3 << 20)).unwrap();
        pair.run();
    }
    assert_eq!(pair.server.requests.len(), 2, "the third one waits");
    pair.client.connection.handle_input_end(pair.now);
    pair.client.drain(pair.now);
    assert!(matches!(pair.client.outcome(2), Outcome::Failed(failure)
        if failure.class == FailureClass::NotSent));
    pair.run();
    assert_eq!(pair.server.requests.len(), 2);
    pair.client.drain(pair.now);
    assert_eq!(pair.client.closed, Some(CloseReason::PeerClosed));
}

/// What is in the send order when the other side has ended its stream still leaves, so it may run.
#[test]
fn b15_what_leaves_behind_the_end_of_input_is_not_called_unsent() {
    let mut pair = Pair::established(91);
    pair.server.echo = false;
    pair.call(1, b"call").unwrap();
    pair.call_with(2, b"one-way", |call| call.flags = request_flags::ONE_WAY).unwrap();
    pair.call(3, &bytes(3, 1 << 20)).unwrap();
    pair.client.connection.handle_input_end(pair.now);
    pair.client.drain(pair.now);
    assert!(matches!(pair.client.outcome(1), Outcome::Failed(failure)
        if failure.class == FailureClass::Unknown));
    assert!(matches!(pair.client.outcome(3), Outcome::Failed(failure)
        if failure.class == FailureClass::NotSent));
    pair.run();
    assert_eq!(pair.server.requests.len(), 2);
    assert!(matches!(pair.client.outcome(2), Outcome::Sent));
    pair.client.drain(pair.now);
    assert_eq!(pair.client.closed, Some(CloseReason::PeerClosed));
}
