//! Calls with streams over a balanced channel, whose connections do as they are told.

use std::future::Future as _;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::stubs::streams::{
    IN, OUT, Stream, began, end, ended, failed, item, next, open, poll_open,
};
use crate::stubs::{
    Does, IDEMPOTENT, RETRIED, Stubs, World, balanced, call, generous, listing, lost, nobody,
    outgoing, refused,
};
use ringcall_cluster::balance::Balancing;
use ringcall_cluster::breaker::{BreakerConfig, BreakerState};
use ringcall_cluster::fleet::{CallEnd, HostReport, Readiness};
use ringcall_cluster::health::HealthState;
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::route::{Action, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{Balanced, CallLimit, Settings};
use ringcall_core::{
    Arrived, Cause, Empty, Failure, FailureClass, Missing, Outgoing, Status, StreamCall as _,
    StreamChannel as _,
};

const MS: Duration = Duration::from_millis(1);

fn hosts(balanced: &Balanced<Stubs>) -> Vec<HostReport> {
    balanced.explain(7).hosts
}

fn in_flight(balanced: &Balanced<Stubs>) -> u32 {
    hosts(balanced).iter().map(|host| host.in_flight).sum()
}

/// What is known of the only instance.
fn only(balanced: &Balanced<Stubs>) -> HostReport {
    hosts(balanced).remove(0)
}

fn not_sent() -> Failure {
    Failure::not_sent(Cause::Closed(ringcall_core::CloseReason::PeerClosed))
}

fn is_begun(arrived: &Poll<Arrived<ringcall_core::Chunk>>) -> bool {
    matches!(arrived, Poll::Ready(Arrived::Began(_)))
}

/// Breakers that trip at two failures of two, and let one call through after a second.
fn touchy() -> Settings {
    let mut settings = Settings::new();
    let mut breaker = BreakerConfig::default();
    (breaker.calls_min, breaker.cool) = (2, Duration::from_secs(1));
    settings.method.breaker = Some(breaker);
    settings
}

// ---- what is made again ----

#[test]
fn a_stream_that_does_not_begin_is_asked_for_elsewhere() {
    for failure in [refused(), Failure::from_status(Status::DRAINING, 0).unwrap()] {
        let (balanced, world) = balanced("ab", generous());
        let mut is_repeated = false;
        for _ in 0..20 {
            world.streams.hush();
            world.streams.says("a", failed(failure));
            world.streams.says("b", began());
            let stream = open(&balanced, &world, OUT).unwrap();
            assert!(is_begun(&next(&stream)), "and what has arrived is not lost");
            let made = world.take_made();
            assert_eq!(made.last().unwrap().0, "b");
            if let [first, second] = &made[..] {
                is_repeated = true;
                assert_eq!((&first.0[..], first.2), ("a", OUT));
                assert_eq!((second.1, second.2), (1, OUT | RETRIED));
            }
            assert_eq!(in_flight(&balanced), 1);
            drop(stream);
            assert_eq!(in_flight(&balanced), 0);
            world.pass(Duration::from_secs(2));
        }
        assert!(is_repeated);
    }
}

#[test]
fn a_stream_whose_connection_does_not_take_it_is_asked_for_elsewhere() {
    for flags in [OUT, IN, IN | OUT] {
        let (balanced, world) = balanced("ab", generous());
        world.streams.opens("a", Some(not_sent()));
        let mut names = String::new();
        for _ in 0..20 {
            world.streams.hush();
            world.streams.says("b", began());
            let _stream = open(&balanced, &world, flags).unwrap();
            names += &world.names();
        }
        assert!(names.contains("ab"), "{names}");
    }
}

#[test]
fn what_may_have_begun_is_asked_for_again_only_if_that_is_harmless() {
    let (balanced, world) = balanced("ab", generous());
    world.streams.all_say("ab", &failed(lost()));
    assert_eq!(open(&balanced, &world, OUT).unwrap_err(), lost());
    assert_eq!(world.take_made().len(), 1);
    world.streams.hush();
    for _ in 0..3 {
        world.streams.all_say("ab", &failed(lost()));
    }
    assert_eq!(open(&balanced, &world, OUT | IDEMPOTENT).unwrap_err(), lost());
    assert_eq!(world.take_made().len(), 3);
    // Whoever retried above does so for all below.
    world.streams.hush();
    world.streams.all_say("ab", &failed(refused()));
    assert_eq!(open(&balanced, &world, OUT | RETRIED).unwrap_err(), refused());
    assert_eq!(world.take_made().len(), 1);
    assert_eq!(in_flight(&balanced), 0);
}

#[test]
fn a_stream_may_have_run_if_one_of_its_attempts_may_have() {
    let (balanced, world) = balanced("ab", generous());
    world.streams.opens("a", Some(lost()));
    let mut is_seen = false;
    // Not often enough for either to be ejected.
    for _ in 0..4 {
        world.streams.hush();
        world.streams.says("b", failed(refused()));
        let stream = open(&balanced, &world, IN | OUT | IDEMPOTENT).unwrap();
        let class = end(&stream).unwrap_err().class;
        let was_at_both = world.names() == "ab";
        is_seen |= was_at_both;
        let expected = if was_at_both { FailureClass::Unknown } else { refused().class };
        assert_eq!(class, expected);
        world.pass(Duration::from_secs(2));
    }
    assert!(is_seen);
}

#[test]
fn a_stream_that_its_caller_has_got_is_never_made_again() {
    let (balanced, world) = balanced("ab", generous());
    // It has begun.
    world.streams.all_say("ab", &began());
    world.streams.all_say("ab", &item());
    world.streams.all_say("ab", &failed(refused()));
    let stream = open(&balanced, &world, OUT | IDEMPOTENT).unwrap();
    assert!(is_begun(&next(&stream)));
    assert!(matches!(next(&stream), Poll::Ready(Arrived::Item { .. })));
    assert_eq!(end(&stream), Err(refused()));
    assert_eq!(world.take_made().len(), 1);
    // Or it may have sent items.
    for flags in [IN, IN | OUT] {
        world.streams.hush();
        world.streams.all_say("ab", &failed(refused()));
        let stream = open(&balanced, &world, flags | IDEMPOTENT).unwrap();
        assert_eq!(end(&stream), Err(refused()));
        assert_eq!(world.take_made().len(), 1);
    }
    assert_eq!(in_flight(&balanced), 0);
}

#[test]
fn an_error_instead_of_a_stream_is_an_answer() {
    let (balanced, world) = balanced("a", generous());
    for _ in 0..20 {
        world.streams.says("a", ended(Status::APPLICATION_ERROR));
        let stream = open(&balanced, &world, OUT).unwrap();
        assert_eq!(end(&stream), Ok(Status::APPLICATION_ERROR));
        assert!(next(&stream).is_pending(), "once");
    }
    let host = only(&balanced);
    assert_eq!((host.health, host.errors, host.in_flight), (HealthState::Healthy, 0.0, 0));
    // Unless the settings say otherwise of methods that may run twice.
    let mut settings = generous();
    settings.method.retry.errors = vec![Status::APPLICATION_ERROR];
    balanced.configure(settings).unwrap();
    world.take_made();
    world.streams.says("a", ended(Status::APPLICATION_ERROR));
    world.streams.says("a", began());
    let stream = open(&balanced, &world, OUT | IDEMPOTENT).unwrap();
    assert!(is_begun(&next(&stream)));
    assert_eq!(world.take_made().len(), 2);
}

#[test]
fn streams_are_paid_for_from_the_same_budget() {
    let mut settings = Settings::new();
    (settings.retry_floor_per_s, settings.retry_percent) = (0, 10);
    let (balanced, world) = balanced("a", settings);
    let refuses = |world: &World| {
        world.streams.hush();
        world.streams.says("a", failed(refused()));
        world.streams.says("a", began());
        open(&balanced, world, OUT).is_err()
    };
    assert!(refuses(&world), "nothing is in the budget");
    world.streams.hush();
    let streams: Vec<Stream> = (0..40)
        .map(|_| {
            world.streams.says("a", began());
            open(&balanced, &world, OUT).unwrap()
        })
        .collect();
    assert!(!refuses(&world), "those that have begun are in it, though they go on");
    drop(streams);
    assert_eq!(balanced.counts().over_budget, 1);
}

#[test]
fn streams_are_neither_hedged_nor_copied() {
    let mut settings = generous();
    settings.method.hedge = Some(HedgeConfig::default());
    let (balanced, world) = balanced("abc", settings);
    let copies = Rule::new("copies", Match::all(), Action::Mirror(Subset::named(["c"])));
    balanced.route(Rules::new(1).with(copies)).unwrap();
    for flags in [OUT, IN] {
        let mut opening = balanced.open(outgoing(flags | IDEMPOTENT), Empty);
        world.streams.all_say("abc", &began());
        let _opened = poll_open(&mut opening);
        world.streams.hush();
        for _ in 0..900 {
            world.pass(MS);
            let _polled = poll_open(&mut opening);
        }
        assert_eq!(world.take_made().len(), 1);
    }
    let counts = balanced.counts();
    assert_eq!((counts.hedges, counts.mirrored, counts.mirrors_dropped), (0, 0, 0));
}

#[test]
fn all_attempts_of_a_stream_have_one_key_if_calls_are_to_have_one() {
    let mut settings = generous();
    settings.method.idempotency_keys = true;
    let (balanced, world) = balanced("a", settings);
    world.streams.says("a", failed(refused()));
    world.streams.says("a", began());
    let _stream = open(&balanced, &world, OUT).unwrap();
    let keys = world.keys.take();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
}

#[test]
fn only_attempts_that_may_be_made_again_have_a_time_of_their_own() {
    let mut settings = generous();
    settings.method.attempt_timeout = Some(100 * MS);
    let (balanced, world) = balanced("a", settings);
    let ever = |flags| Outgoing { timeout: Duration::MAX, ..outgoing(flags) };
    for call in [outgoing(OUT), ever(OUT), outgoing(IN), ever(IN), ever(IN | OUT)] {
        let _pending = poll_open(&mut balanced.open(call, Empty));
    }
    let second = Duration::from_secs(1);
    let expected = [100 * MS, 100 * MS, second, Duration::MAX, Duration::MAX];
    assert_eq!(world.streams.timeouts.take(), expected);
}

// ---- what stops it, and where it goes ----

#[test]
fn streams_go_by_rules_and_wait_as_they_say() {
    let (balanced, world) = balanced("abc", Settings::new());
    let rules = Rules::new(1)
        .with(Rule::new("slow", Match::all(), Action::Delay(50 * MS)))
        .with(Rule::new("only b", Match::all(), Action::route(Route::to(Subset::named(["b"])))));
    balanced.route(rules).unwrap();
    let began_at = world.now.get();
    let _stream = open(&balanced, &world, IN).unwrap();
    assert_eq!(world.names(), "b");
    assert_eq!(world.now.get() - began_at, 50_000_000);
    let denied = Rule::new("off", Match::all(), Action::Deny(Status::UNSUPPORTED));
    balanced.route(Rules::new(2).with(denied)).unwrap();
    let failure = open(&balanced, &world, OUT).unwrap_err();
    assert_eq!(failure, Failure::not_sent(Cause::Status(Status::UNSUPPORTED)));
    balanced.apply(&listing(2, ""));
    balanced.route(Rules::new(3)).unwrap();
    assert_eq!(open(&balanced, &world, IN).unwrap_err(), nobody(Missing::NoneKnown));
}

#[test]
fn the_busier_instance_gets_fewer_streams() {
    let mut settings = Settings::new();
    settings.balancing = Balancing::LeastActive;
    let (balanced, world) = balanced("abc", settings);
    let streams: Vec<Stream> = (0..9).map(|_| open(&balanced, &world, IN | OUT).unwrap()).collect();
    assert!(hosts(&balanced).iter().all(|host| host.in_flight == 3), "streams that go on count");
    // Nor do unary calls go where they are.
    world.take_made();
    drop(streams);
    let _two = [(); 2].map(|()| open(&balanced, &world, IN).unwrap());
    let busy = world.names();
    for _ in 0..10 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let called = world.names();
    assert!(busy.chars().all(|name| !called.contains(name)), "{busy} {called}");
}

#[test]
fn a_stream_counts_for_limits_until_it_is_over() {
    let mut settings = Settings::new();
    settings.limit = CallLimit::in_flight(1);
    let (balanced, world) = balanced("a", settings);
    let limited = |world: &World| {
        let failure = open(&balanced, world, IN).err();
        failure.is_some_and(|failure| failure.cause == Cause::Limited)
    };
    let stream = open(&balanced, &world, IN).unwrap();
    world.pass(Duration::from_secs(3600));
    assert!(limited(&world));
    assert_eq!(call(&balanced, &world, 0).unwrap_err().cause, Cause::Limited);
    world.streams.says("a", ended(Status::OK));
    assert_eq!(end(&stream), Ok(Status::OK));
    assert!(!limited(&world), "it has ended, though its caller still has it");
}

// ---- what it counts ----

#[test]
fn a_stream_is_under_way_until_the_last_of_it_is_gone() {
    let (balanced, world) = balanced("a", Settings::new());
    let opened = |flags| {
        world.streams.hush();
        if flags == OUT {
            world.streams.says("a", began());
        }
        let stream = open(&balanced, &world, flags).unwrap();
        assert_eq!(in_flight(&balanced), 1);
        stream
    };
    for flags in [OUT, IN, IN | OUT] {
        // Both halves are dropped.
        let stream = opened(flags);
        let other = stream.clone();
        drop(stream);
        assert_eq!(in_flight(&balanced), 1, "the other half goes on");
        drop(other);
        assert_eq!(in_flight(&balanced), 0);
        assert_eq!(world.given_up.take(), ["a"]);
        // It is cancelled, and what arrives then is nothing to anybody.
        let stream = opened(flags);
        stream.cancel();
        assert_eq!(in_flight(&balanced), 0);
        world.streams.says("a", failed(lost()));
        assert!(next(&stream).is_pending());
        drop(stream);
        assert_eq!(world.given_up.take(), ["a"]);
        // It ends, and is kept.
        let stream = opened(flags);
        let other = stream.clone();
        world.streams.says("a", ended(Status::OK));
        while !matches!(next(&stream), Poll::Ready(Arrived::End(_))) {}
        assert_eq!(in_flight(&balanced), 0);
        let second = opened(flags);
        stream.cancel();
        drop((stream, other));
        assert_eq!(in_flight(&balanced), 1, "it is given back once");
        drop(second);
        world.given_up.take();
    }
    let counts = balanced.counts();
    assert_eq!((counts.calls, counts.attempts), (12, 12));
}

#[test]
fn a_stream_that_is_given_up_while_it_is_made_is_not_under_way() {
    let (balanced, world) = balanced("a", generous());
    // Before it is polled.
    drop(balanced.open(outgoing(OUT), Empty));
    assert_eq!(balanced.counts().calls, 0);
    // While its connection has no room for it.
    world.streams.opens("a", None);
    let mut opening = balanced.open(outgoing(IN), Empty);
    assert!(poll_open(&mut opening).is_pending());
    assert_eq!(in_flight(&balanced), 1);
    drop(opening);
    assert_eq!(in_flight(&balanced), 0);
    // While its server is asked.
    world.streams.opening.take();
    let mut opening = balanced.open(outgoing(OUT), Empty);
    assert!(poll_open(&mut opening).is_pending());
    assert_eq!(in_flight(&balanced), 1);
    drop(opening);
    assert_eq!((in_flight(&balanced), world.given_up.take()), (0, vec!["a".to_owned()]));
    // While it waits to be made again.
    world.streams.says("a", failed(refused()));
    let mut opening = balanced.open(outgoing(OUT), Empty);
    assert!(poll_open(&mut opening).is_pending());
    assert_eq!(in_flight(&balanced), 0);
    drop(opening);
    assert_eq!(world.given_up.take(), [""; 0]);
    // And none of them holds anything of a limit.
    let mut settings = Settings::new();
    settings.limit = CallLimit::in_flight(1);
    balanced.configure(settings).unwrap();
    assert!(open(&balanced, &world, IN).is_ok());
}

#[test]
fn how_long_an_instance_takes_is_until_the_stream_begins() {
    let (balanced, world) = balanced("a", Settings::new());
    let mut opening = balanced.open(outgoing(OUT), Empty);
    assert!(poll_open(&mut opening).is_pending());
    world.pass(10 * MS);
    world.streams.says("a", began());
    let Poll::Ready(Ok(stream)) = poll_open(&mut opening) else { panic!("not yet") };
    assert_eq!(only(&balanced).latency, Some(10 * MS));
    world.pass(Duration::from_secs(3600));
    world.streams.says("a", ended(Status::OK));
    assert!(is_begun(&next(&stream)));
    assert_eq!(end(&stream), Ok(Status::OK));
    assert_eq!(only(&balanced).latency, Some(10 * MS));
    // So it is where both send.
    let stream = open(&balanced, &world, IN | OUT).unwrap();
    world.pass(20 * MS);
    world.streams.says("a", began());
    assert!(is_begun(&next(&stream)));
    assert_eq!(only(&balanced).latency, Some(20 * MS));
    world.pass(Duration::from_secs(60));
    drop(stream);
    assert_eq!(only(&balanced).latency, Some(20 * MS));
}

#[test]
fn while_its_caller_sends_items_nobody_waits_for_the_instance() {
    let (balanced, world) = balanced("a", Settings::new());
    let upload = |sends: Duration, answers: Option<Duration>| {
        let stream = open(&balanced, &world, IN).unwrap();
        world.pass(sends);
        if let Some(answers) = answers {
            stream.end_items();
            world.pass(answers);
        }
        stream
    };
    drop(upload(Duration::from_secs(60), None));
    assert_eq!(only(&balanced).latency, None, "it was given up by who was to go on");
    let stream = upload(Duration::from_secs(60), Some(5 * MS));
    stream.end_items();
    world.streams.says("a", ended(Status::OK));
    assert_eq!(end(&stream), Ok(Status::OK));
    assert_eq!(only(&balanced).latency, Some(5 * MS));
    // An answer before the last item says nothing either.
    let stream = upload(Duration::from_secs(60), None);
    world.streams.says("a", ended(Status::OK));
    assert_eq!(end(&stream), Ok(Status::OK));
    assert_eq!(only(&balanced).latency, Some(5 * MS));
    // Whoever does not wait for the answer has waited for so long.
    drop(upload(MS, Some(30 * MS)));
    assert_eq!(only(&balanced).latency, Some(30 * MS));
}

// ---- what it says of its instance ----

#[test]
fn a_breaker_opens_when_streams_fail_and_not_when_their_callers_leave() {
    let (balanced, world) = balanced("a", touchy());
    let fails = |failure: Failure| {
        world.streams.hush();
        world.streams.says("a", began());
        let stream = open(&balanced, &world, OUT);
        world.streams.says("a", failed(failure));
        stream.map(|stream| {
            assert!(is_begun(&next(&stream)));
            assert_eq!(end(&stream), Err(failure));
        })
    };
    for _ in 0..5 {
        drop(open(&balanced, &world, IN).unwrap());
        let stream = open(&balanced, &world, IN).unwrap();
        world.streams.says("a", ended(Status::APPLICATION_ERROR));
        assert_eq!(end(&stream), Ok(Status::APPLICATION_ERROR));
    }
    assert_eq!(balanced.explain(7).breaker, Some(BreakerState::Closed));
    world.pass(Duration::from_secs(60));
    assert_eq!([(); 2].map(|()| fails(lost())), [Ok(()); 2]);
    assert!(matches!(balanced.explain(7).breaker, Some(BreakerState::Open { .. })));
    assert_eq!(fails(lost()), Err(Failure::not_sent(Cause::BreakerOpen)));
}

#[test]
fn a_breaker_closes_when_streams_begin_however_long_they_are() {
    let (balanced, world) = balanced("a", touchy());
    for _ in 0..2 {
        world.streams.says("a", failed(lost()));
        assert_eq!(open(&balanced, &world, OUT).unwrap_err(), lost());
    }
    assert_eq!(open(&balanced, &world, OUT).unwrap_err().cause, Cause::BreakerOpen);
    world.pass(Duration::from_secs(2));
    let mut streams = Vec::new();
    for _ in 0..2 {
        let stream = open(&balanced, &world, IN | OUT).unwrap();
        assert_eq!(open(&balanced, &world, OUT).unwrap_err().cause, Cause::BreakerOpen, "one");
        world.streams.says("a", began());
        assert!(is_begun(&next(&stream)));
        streams.push(stream);
    }
    let explained = balanced.explain(7);
    assert_eq!(explained.breaker, Some(BreakerState::Closed), "both go on");
    assert_eq!(explained.hosts[0].breaker, Some(BreakerState::Closed));
    // They have been counted.
    drop(streams);
    assert_eq!(balanced.explain(7).breaker, Some(BreakerState::Closed));
}

#[test]
fn a_stream_that_its_caller_leaves_says_that_the_instance_works_once_it_has_begun() {
    let mut settings = Settings::new();
    settings.method.breaker = None;
    for has_begun in [true, false] {
        let (balanced, world) = balanced("ab", settings.clone());
        world.readiness.borrow_mut().insert("b".into(), Readiness::Broken);
        let fails = |times: u32| {
            for _ in 0..times {
                world.streams.says("a", failed(lost()));
                assert_eq!(open(&balanced, &world, OUT).unwrap_err(), lost());
            }
        };
        fails(4);
        let stream = open(&balanced, &world, IN | OUT).unwrap();
        if has_begun {
            world.streams.says("a", began());
            assert!(is_begun(&next(&stream)));
        }
        drop(stream);
        fails(1);
        let is_out = matches!(only(&balanced).health, HealthState::Ejected { .. });
        assert_eq!(is_out, !has_begun, "five in a row, or not");
    }
}

/// A channel whose first instance is ejected, and is to be probed.
fn ejected() -> (Balanced<Stubs>, Rc<World>) {
    let mut settings = Settings::new();
    settings.method.breaker = None;
    let (balanced, world) = balanced("ab", settings);
    world.readiness.borrow_mut().insert("b".into(), Readiness::Broken);
    world.does("a", Does::Fails(lost()));
    for _ in 0..5 {
        assert_eq!(call(&balanced, &world, 0), Err(lost()));
    }
    assert!(matches!(only(&balanced).health, HealthState::Ejected { .. }));
    world.readiness.borrow_mut().clear();
    world.pass(Duration::from_secs(10));
    world.take_made();
    (balanced, world)
}

#[test]
fn an_instance_that_was_ejected_is_back_when_a_stream_begins_there() {
    let (balanced, world) = ejected();
    let stream = open(&balanced, &world, IN | OUT).unwrap();
    assert_eq!(world.names(), "a", "it is the probe");
    assert!(matches!(only(&balanced).health, HealthState::Probing { .. }));
    world.streams.says("a", began());
    assert!(is_begun(&next(&stream)));
    assert_eq!(only(&balanced).health, HealthState::Healthy, "the stream goes on");
    drop(stream);
    assert_eq!((only(&balanced).health, in_flight(&balanced)), (HealthState::Healthy, 0));
    // One that is given up before says nothing, one that fails does.
    for end_of_it in [None, Some(lost())] {
        let (balanced, world) = ejected();
        let stream = open(&balanced, &world, IN | OUT).unwrap();
        if let Some(failure) = end_of_it {
            world.streams.says("a", failed(failure));
            assert_eq!(end(&stream), Err(failure));
        }
        drop(stream);
        assert!(matches!(only(&balanced).health, HealthState::Ejected { .. }));
    }
}

#[test]
fn a_stream_goes_on_when_its_instance_is_not_listed_any_more() {
    let (balanced, world) = balanced("a", touchy());
    let streams = [(); 4].map(|()| open(&balanced, &world, IN | OUT).unwrap());
    balanced.apply(&listing(2, ""));
    balanced.apply(&listing(3, "b"));
    let other = open(&balanced, &world, IN).unwrap();
    assert_eq!(world.names(), "aaaab");
    for stream in &streams {
        world.streams.says("a", began());
        world.streams.says("a", item());
        assert!(is_begun(&next(stream)));
        assert!(matches!(next(stream), Poll::Ready(Arrived::Item { .. })));
    }
    let [first, second, third, fourth] = streams;
    for stream in [&first, &second] {
        world.streams.says("a", failed(lost()));
        assert_eq!(end(stream), Err(lost()));
    }
    world.streams.says("a", ended(Status::OK));
    assert_eq!(end(&third), Ok(Status::OK));
    drop(fourth);
    let host = only(&balanced);
    assert_eq!((&host.name[..], host.in_flight), ("b", 1), "it is not the next one's");
    assert_eq!((host.errors, host.breaker), (0.0, Some(BreakerState::Closed)));
    drop(other);
}

#[test]
fn a_stream_outlives_the_channel_and_keeps_no_other_connection() {
    let (balanced, world) = balanced("abc", Settings::new());
    let stream = open(&balanced, &world, IN | OUT).unwrap();
    let name = world.names();
    assert!(Rc::strong_count(&world) > 3);
    drop(balanced);
    // This one, and the stream's.
    assert_eq!(Rc::strong_count(&world), 2);
    world.streams.says(&name, began());
    assert!(is_begun(&next(&stream)));
    world.streams.says(&name, ended(Status::OK));
    assert_eq!(end(&stream), Ok(Status::OK));
}

#[test]
fn what_became_of_a_stream_is_reported_when_it_is_over() {
    let (balanced, world) = balanced("a", generous());
    world.streams.says("a", failed(refused()));
    world.streams.says("a", began());
    let stream = open(&balanced.reporting(), &world, OUT).unwrap();
    assert!(balanced.poll_report().is_none());
    world.pass(Duration::from_secs(60));
    world.streams.says("a", ended(Status::OK));
    assert!(is_begun(&next(&stream)));
    assert_eq!(end(&stream), Ok(Status::OK));
    let report = balanced.poll_report().unwrap();
    assert_eq!(report.attempts.len(), 2);
    assert_eq!(report.attempts[0].end, CallEnd::Failed(refused()));
    assert_eq!(report.attempts[1].end, CallEnd::Answered(Status::OK));
    assert!(report.took > Duration::from_secs(60));
    drop(open(&balanced.reporting(), &world, IN).unwrap());
    assert_eq!(balanced.poll_report().unwrap().end, CallEnd::GivenUp);
}

#[test]
fn a_stream_at_a_certain_instance_is_no_news_of_it() {
    let (balanced, world) = balanced("ab", touchy());
    let at = balanced.at("b");
    let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
    let mut opening = |at: &ringcall_cluster::At<Stubs>| {
        std::pin::Pin::new(&mut at.open(outgoing(OUT), Empty)).poll(&mut cx)
    };
    for _ in 0..10 {
        let Poll::Ready(Ok(_stream)) = opening(&at) else { panic!("not at once") };
    }
    assert_eq!((world.names(), in_flight(&balanced)), ("b".repeat(10), 0));
    assert_eq!(balanced.counts().calls, 0);
    world.streams.opens("b", Some(not_sent()));
    assert!(matches!(opening(&at), Poll::Ready(Err(failure)) if failure == not_sent()));
    assert_eq!(world.names(), "b", "nothing is made again");
    let gone = opening(&balanced.at("c"));
    assert!(matches!(gone, Poll::Ready(Err(failure)) if failure == nobody(Missing::NotListed)));
}
