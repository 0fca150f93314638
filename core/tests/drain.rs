//! Going away without losing anything.

mod harness;

use std::time::Duration;

use harness::raw::*;
use harness::{Batch, Pair, bytes};
use ringcall_core::frame::{FLAG_ACK, GoAway, Kind, request_flags};
use ringcall_core::{
    Cause, CloseReason, Config, Entropy, Failure, Instant, Outcome, Side, SplitMix64, Status,
};

const SECOND: Duration = Duration::from_secs(1);

fn server(config: Config) -> Raw {
    Raw::new(Side::Server, config).open()
}

/// The answer to LIMITS.
fn confirmed(limits: &Frame) -> Frame {
    assert!(limits.is(Kind::Limits) && limits.flags == 0);
    limits.clone().flags(FLAG_ACK)
}

fn accepted(frame: &Frame) -> u64 {
    assert!(frame.is(Kind::GoAway));
    u64::from_le_bytes(frame.header[..8].try_into().unwrap())
}

#[test]
fn f09_a_drain_has_an_order() {
    let mut raw = server(Config::new());
    raw.send(&[request(0, b"runs")]);
    raw.peer.connection.drain(raw.now);
    let sent = raw.sent();
    assert_eq!((sent.len(), accepted(&sent[0])), (2, GoAway::SOON));
    raw.send(&[request(1, b"was under way"), confirmed(&sent[1]), request(2, b"late")]);
    let sent = raw.sent();
    assert_eq!((sent.len(), accepted(&sent[0])), (1, 2));
    assert_eq!((raw.requests.len(), raw.connection.refuses_from()), (2, Some(2)));
    assert_eq!(raw.connection.counters().requests_after_goaway, 1);
    raw.answer_all();
    raw.sent();
    assert_eq!(raw.closed, Some(CloseReason::Local));
    let last = raw.sent();
    assert_eq!((last.len(), accepted(&last[0])), (1, 2));
}

#[test]
fn f07_what_a_caller_sent_before_it_knew_runs_once() {
    let mut refused_here = 0;
    for seed in 0..150 {
        let mut rng = SplitMix64::new(seed);
        let small = Config::new().message_bytes_max(16 << 10).calls_window(32 << 10);
        let mut pair = Pair::with(seed, Config::new(), small).open();
        pair.net.delay_max = Duration::from_micros(rng.below(5000));
        pair.net.split_max = 1 + rng.below(5000) as usize;
        pair.net.send_max = 1 + rng.below(5000) as usize;
        let drain_at = rng.below(30);
        let (mut calls, mut one_ways) = (Vec::new(), Vec::new());
        for ticket in 0..60 {
            if ticket == drain_at {
                // An answer to these must not be taken for that to the fence.
                if seed % 3 == 0 {
                    pair.server.connection.set_limits(1024, 16 << 10);
                }
                pair.server.connection.drain(pair.now);
            }
            let body = bytes(ticket, rng.below(16 << 10) as usize);
            let is_one_way = rng.below(2) == 0;
            let flags = if is_one_way { request_flags::ONE_WAY } else { 0 };
            match pair.call_with(ticket, &body, |call| call.flags = flags) {
                Ok(_) if is_one_way => one_ways.push(ticket),
                Ok(_) => calls.push((ticket, body)),
                Err(refused) => {
                    assert!(refused.failure.is_safe_to_retry());
                    refused_here += 1;
                }
            }
            for _ in 0..rng.below(4) {
                pair.step();
            }
        }
        pair.run();
        for (ticket, body) in calls {
            assert_eq!(pair.client.answer(ticket), body, "{seed}");
        }
        let sent = |ticket: &&u64| matches!(pair.client.outcome(**ticket), Outcome::Sent);
        assert_eq!(one_ways.iter().filter(sent).count(), one_ways.len(), "{seed}");
        let counters = pair.server.connection.counters();
        assert_eq!(counters.requests_after_goaway, 0, "{seed}");
        assert_eq!(counters.requests_taken, counters.requests_answered, "{seed}");
        assert_eq!(counters.requests_taken, pair.client.connection.counters().calls_made, "{seed}");
        assert!(pair.client.closed.is_some() || pair.server.closed.is_some(), "{seed}");
    }
    assert!(refused_here > 500, "{refused_here}");
}

#[test]
fn f07_who_does_not_answer_is_refused_after_a_second() {
    let mut raw = server(Config::new());
    raw.send(&[request(0, b"runs")]);
    raw.peer.connection.drain(raw.now);
    raw.sent();
    raw.send(&[request(1, b"goes on as if nothing were")]);
    raw.pass(SECOND / 2);
    assert_eq!((raw.sent().len(), raw.requests.len()), (0, 2));
    raw.pass(SECOND / 2 + SECOND / 10);
    let sent = raw.sent();
    assert_eq!((sent.len(), accepted(&sent[0])), (1, 2));
    raw.send(&[request(2, b"late")]);
    assert_eq!(raw.requests.len(), 2);
    raw.answer_all();
    raw.sent();
    assert_eq!(raw.closed, Some(CloseReason::Local));
}

/// An answer that the transport has, and that its reader takes slowly, is not over: what says so is cut off a second
/// later, with what was not sent.
#[test]
fn f09_the_last_answer_leaves_at_the_pace_of_its_reader() {
    for is_drained in [true, false] {
        let mut raw = server(Config::new());
        raw.send(&[request(0, &bytes(1, 300 << 10)).deadline(60_000_000)]);
        if is_drained {
            raw.peer.connection.drain(raw.now);
            let limits = raw.sent().remove(1);
            raw.send(&[confirmed(&limits)]);
            raw.sent();
        } else {
            raw.end_input();
        }
        raw.answer_all();
        let mut batch = Batch::new(usize::MAX);
        raw.peer.connection.poll_transmit(raw.now, &mut batch);
        let mut left = batch.bytes.len();
        assert!(left > 300 << 10);
        while left > 0 {
            assert_eq!((raw.closed, raw.connection.is_lost()), (None, false), "{left}");
            raw.pass(SECOND * 2);
            let now = raw.now;
            raw.connection.handle_transmitted(now, left.min(50 << 10));
            left = left.saturating_sub(50 << 10);
            raw.send_bytes(&[]);
        }
        let expected = if is_drained { CloseReason::Local } else { CloseReason::PeerClosed };
        assert_eq!(raw.closed, Some(expected));
        assert!(raw.sent().pop().is_some_and(|frame| frame.is(Kind::GoAway)));
    }
}

/// Nor is it waited for when nothing of it is taken.
#[test]
fn f09_a_last_answer_that_nobody_reads_is_given_up() {
    let mut raw = server(Config::new());
    raw.send(&[request(0, &bytes(1, 300 << 10))]);
    raw.end_input();
    raw.answer_all();
    let now = raw.now;
    raw.connection.poll_transmit(now, &mut Batch::new(usize::MAX));
    raw.pass(SECOND * 11);
    assert_eq!(raw.closed, Some(CloseReason::SendStalled));
}

#[test]
fn a_drain_can_be_cut_short() {
    let mut raw = server(Config::new());
    raw.send(&[request(0, b"runs")]);
    raw.peer.connection.drain(raw.now);
    raw.peer.connection.drain(raw.now);
    let limits = raw.sent().remove(1);
    raw.peer.connection.go_away(raw.now, true);
    let sent = raw.sent();
    assert_eq!((sent.len(), accepted(&sent[0])), (1, 1));
    raw.send(&[request(1, b"late"), confirmed(&limits)]);
    raw.pass(SECOND * 2);
    assert_eq!((raw.sent().len(), raw.requests.len()), (0, 1));
}

#[test]
fn a_client_that_drains_ends_its_calls_first() {
    let mut pair = Pair::established(1);
    pair.server.echo = false;
    pair.call(1, b"x").unwrap();
    pair.run();
    pair.client.connection.drain(pair.now);
    pair.run();
    assert_eq!(pair.call(2, b"x").unwrap_err().failure, Failure::not_sent(Cause::GoAway));
    assert!(pair.client.closed.is_none() && pair.server.closed.is_none());
    let request = pair.server.requests.remove(0);
    pair.server.reply(pair.now, request.id, Status::OK, &request.body).unwrap();
    pair.run();
    assert_eq!(pair.client.answer(1), b"x");
    assert!(pair.client.closed.is_some() || pair.server.closed.is_some());
}

/// Nobody is asked for signs of life, which these tests do not give.
fn unhurried() -> Config {
    Config::new().keepalive_idle(Duration::ZERO, 1).keepalive_busy(Duration::ZERO, Duration::ZERO)
}

#[test]
fn an_idle_connection_is_drained() {
    let minute = SECOND * 60;
    let mut raw = server(unhurried().idle_close(minute));
    raw.pass(SECOND * 40);
    raw.send(&[request(0, b"use")]);
    raw.pass(minute * 3);
    assert_eq!(raw.sent().len(), 0, "a call runs");
    raw.answer_all();
    raw.sent();
    for _ in 0..5 {
        raw.pass(SECOND * 10);
        // A sign of life is no use.
        raw.send(&[ping(1)]);
        assert!(raw.sent()[0].is(Kind::Pong));
    }
    let mut sent = Vec::new();
    for _ in 0..60 {
        sent.extend(raw.sent());
        raw.pass(SECOND / 2);
    }
    // Nobody answered, so that the refusal followed.
    assert_eq!((accepted(&sent[0]), accepted(&sent[2])), (GoAway::SOON, 1));
    assert_eq!(raw.closed, Some(CloseReason::Local));
}

#[test]
fn only_those_who_accepted_are_impatient_by_default() {
    let mut pair = Pair::established(2);
    pair.run_for(SECOND * 700);
    for _ in 0..10 {
        pair.run_for(SECOND * 10);
    }
    assert_eq!((pair.server.goaways, pair.client.goaways > 0), (1, true));
    let never = unhurried().idle_close(None);
    let mut raw = server(never);
    raw.pass(SECOND * 100_000);
    assert_eq!(raw.sent().len(), 0);
    let mut raw = Raw::new(Side::Client, unhurried()).open();
    raw.pass(SECOND * 100_000);
    assert_eq!(raw.sent().len(), 0);
}

#[test]
fn an_old_connection_is_drained() {
    let mut raw = server(unhurried());
    let at = raw.now + SECOND * 100;
    raw.connection.drain_at(at);
    raw.send(&[request(0, b"runs")]);
    raw.pass(SECOND * 99);
    assert_eq!(raw.sent().len(), 0);
    raw.pass(SECOND * 3 / 2);
    let sent = raw.sent();
    assert_eq!((sent.len(), accepted(&sent[0])), (2, GoAway::SOON));
    raw.send(&[confirmed(&sent[1])]);
    assert_eq!(raw.closed, None);
    raw.answer_all();
    raw.sent();
    assert_eq!(raw.closed, Some(CloseReason::Local));
}

#[test]
fn ages_end_a_tenth_apart() {
    let mut rng = SplitMix64::new(3);
    assert_eq!(Config::new().drain_at(Instant::ZERO, &mut rng), None);
    let config = Config::new().connection_age_max(SECOND * 1000);
    let ends = || config.drain_at(Instant::ZERO, &mut rng).unwrap().as_nanos() / 1_000_000_000;
    let ends: Vec<u64> = std::iter::repeat_with(ends).take(10_000).collect();
    let (first, last) = (*ends.iter().min().unwrap(), *ends.iter().max().unwrap());
    assert!((900..910).contains(&first) && (1090..=1100).contains(&last), "{first} {last}");
    // No second has much more than its share of 50.
    assert!((900..1100).all(|second| ends.iter().filter(|end| **end == second).count() < 100));
}
