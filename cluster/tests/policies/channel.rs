//! A balanced channel over connections that do as they are told, in a time that passes when it is told.

use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use crate::stubs::{
    ALLOCATIONS, Does, IDEMPOTENT, QUIET, RETRIED, Stubs, World, balanced, call, generous, listing,
    lost, nobody, outgoing, poll, refused,
};
use ringcall_cluster::balance::{Balancing, PrequalConfig};
use ringcall_cluster::breaker::BreakerState;
use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::{FleetEvent, HostReport, Readiness};
use ringcall_cluster::health::HealthState;
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::recovery::RecoveryConfig;
use ringcall_cluster::route::{Action, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{Aperture, Balanced, Settings};
use ringcall_core::frame::{ExtensionWriter, tag};
use ringcall_core::{
    Cause, Channel, CloseReason, Empty, Expected, Extended, Failure, FailureClass, Identity,
    Missing, Outgoing, Status,
};

#[test]
fn d09_what_may_have_run_is_made_again_only_if_that_is_harmless() {
    let (balanced, world) = balanced("ab", generous());
    world.all_do("ab", Does::Fails(lost()));
    assert_eq!(call(&balanced, &world, 0), Err(lost()));
    assert_eq!(world.take_made().len(), 1);
    assert_eq!(call(&balanced, &world, IDEMPOTENT), Err(lost()));
    let made = world.take_made();
    assert_eq!(made.len(), 3);
    assert_eq!((made[0].1, made[0].2), (0, IDEMPOTENT));
    assert_eq!((made[1].1, made[1].2), (1, IDEMPOTENT | RETRIED), "it says that it is a retry");
    // What certainly did not run is made again in any case.
    world.all_do("ab", Does::Fails(refused()));
    assert_eq!(call(&balanced, &world, 0), Err(refused()));
    assert_eq!(world.take_made().len(), 3);
}

#[test]
fn d09_a_call_may_have_run_if_one_of_its_attempts_may_have() {
    let (balanced, world) = balanced("ab", generous());
    world.does("a", Does::Fails(lost()));
    world.does("b", Does::Fails(refused()));
    for _ in 0..10 {
        let failure = call(&balanced, &world, IDEMPOTENT).unwrap_err();
        let names = world.names();
        let is_unknown = failure.class == FailureClass::Unknown;
        assert_eq!(is_unknown, names.contains('a'), "{names}: {failure}");
        world.pass(Duration::from_secs(2));
    }
    // Nor does it help that there is nobody left to ask.
    let mut one = balanced.call(outgoing(IDEMPOTENT), Empty);
    world.all_do("ab", Does::Fails(lost()));
    assert!(poll(&mut one).is_pending(), "it waits a moment before it is made again");
    balanced.apply(&listing(2, ""));
    world.pass(Duration::from_millis(100));
    let Poll::Ready(Err(failure)) = poll(&mut one) else { panic!("it goes on") };
    let nobody = nobody(Missing::NoneKnown);
    assert_eq!((failure.cause, failure.class), (nobody.cause, FailureClass::Unknown));
}

#[test]
fn a_call_to_a_certain_instance_is_made_once_and_is_no_news_of_it() {
    let (balanced, world) = balanced("ab", generous());
    world.all_do("ab", Does::Fails(refused()));
    let at = balanced.at("b");
    for _ in 0..20 {
        let end = Pin::new(&mut at.call(outgoing(IDEMPOTENT), Empty))
            .poll(&mut Context::from_waker(Waker::noop()));
        assert!(matches!(end, Poll::Ready(Err(failure)) if failure == refused()));
    }
    assert_eq!(world.names(), "b".repeat(20));
    let explained = balanced.explain(7);
    assert!(explained.hosts.iter().all(|host| host.health == HealthState::Healthy));
    assert_eq!((explained.counts.attempts, balanced.names()), (0, vec!["a".into(), "b".into()]));
    // Ordinary calls eject it, and it is reached all the same.
    world.does("a", Does::Answers);
    for _ in 0..50 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let is_out = |host: &HostReport| matches!(host.health, HealthState::Ejected { .. });
    assert!(balanced.explain(7).hosts.iter().any(is_out));
    world.take_made();
    let _failed =
        Pin::new(&mut at.call(outgoing(0), Empty)).poll(&mut Context::from_waker(Waker::noop()));
    assert_eq!(world.names(), "b");
}

#[derive(Default)]
struct Wakes(AtomicUsize);

impl Wake for Wakes {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn whoever_waits_for_an_instance_is_woken_by_another_list() {
    let (balanced, world) = balanced("", Settings::new());
    let wakes = Arc::<Wakes>::default();
    let waker = Waker::from(Arc::clone(&wakes));
    let mut cx = Context::from_waker(&waker);
    let mut ready = balanced.ready();
    let mut limited = balanced.ready().within(Duration::from_secs(1));
    assert!(Pin::new(&mut ready).poll(&mut cx).is_pending());
    assert!(Pin::new(&mut limited).poll(&mut cx).is_pending());
    world.readiness.borrow_mut().insert("a".into(), Readiness::Connecting);
    balanced.apply(&listing(2, "a"));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 2, "both");
    assert!(Pin::new(&mut ready).poll(&mut cx).is_pending(), "it is being opened");
    world.pass(Duration::from_secs(1));
    let late = Err(Failure::not_sent(Cause::NotReady));
    assert_eq!(Pin::new(&mut limited).poll(&mut cx), Poll::Ready(late));
    drop(limited);
    balanced.apply(&listing(3, "ab"));
    assert_eq!(wakes.0.load(Ordering::Relaxed), 3, "one waits no more");
    assert_eq!(Pin::new(&mut ready).poll(&mut cx), Poll::Ready(Ok(())), "b is ready");
}

#[test]
fn d16_all_attempts_of_a_call_have_one_key_and_no_other_call_has_it() {
    let mut settings = generous();
    settings.method.idempotency_keys = true;
    let (one, world) = balanced("ab", settings.clone());
    // With the same seed, as after a restart.
    let (other, other_world) = balanced("ab", settings.clone());
    let keys = |balanced: &Balanced<Stubs>, world: &World| {
        world.all_do("ab", Does::Fails(lost()));
        assert_eq!(call(balanced, world, IDEMPOTENT), Err(lost()));
        world.pass(Duration::from_secs(10));
        world.keys.take()
    };
    let all = [keys(&one, &world), keys(&one, &world), keys(&other, &other_world)];
    for keys in &all {
        assert_eq!(keys.len(), 3);
        assert!(keys.iter().all(|key| key.len() == 16 && *key == keys[0]));
    }
    assert!(all[0][0] != all[1][0] && all[0][0] != all[2][0] && all[1][0] != all[2][0]);
    // One that a call has already is left to it.
    let mut writer = ExtensionWriter::new();
    assert!(writer.push_parts(tag::IDEMPOTENCY_KEY, [&b"mine"[..]]));
    let payload = Extended { payload: Empty, extensions: writer.finish() };
    world.all_do("ab", Does::Answers);
    assert!(poll(&mut one.call(outgoing(0), payload)).is_ready());
    assert_eq!(world.keys.take(), [b"mine"]);
    settings.method.idempotency_keys = false;
    one.configure(settings).unwrap();
    assert_eq!(keys(&one, &world), [[0; 0]; 0]);
}

#[test]
fn d09_application_errors_are_answers_unless_they_are_listed() {
    let mut settings = generous();
    let (balanced, world) = balanced("ab", settings.clone());
    world.all_do("ab", Does::ErrsInTheHandler);
    assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::APPLICATION_ERROR));
    assert_eq!(world.take_made().len(), 1);
    settings.method.retry.errors = vec![Status::APPLICATION_ERROR];
    balanced.configure(settings).unwrap();
    assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::APPLICATION_ERROR));
    assert_eq!(world.take_made().len(), 3);
}

#[test]
fn d11_a_call_that_was_retried_above_is_not_made_again() {
    let (balanced, world) = balanced("abc", Settings::new());
    world.all_do("abc", Does::Fails(refused()));
    assert_eq!(call(&balanced, &world, RETRIED), Err(refused()));
    assert_eq!(world.take_made().len(), 1);
    let never = Failure::from_status(Status::OVERLOADED, u16::MAX).unwrap();
    world.all_do("abc", Does::Fails(never));
    assert_eq!(call(&balanced, &world, IDEMPOTENT), Err(never), "the server says no");
    assert_eq!(world.take_made().len(), 1);
}

#[test]
fn attempts_go_to_instances_that_were_not_tried() {
    let (balanced, world) = balanced("abc", generous());
    world.all_do("abc", Does::Fails(refused()));
    for _ in 0..3 {
        let _refused = call(&balanced, &world, 0);
        let mut names: Vec<char> = world.names().chars().collect();
        names.sort_unstable();
        assert_eq!(names, ['a', 'b', 'c']);
        world.pass(Duration::from_secs(10));
    }
    balanced.apply(&listing(2, "a"));
    let _refused = call(&balanced, &world, 0);
    assert_eq!(world.names(), "aaa", "unless there is no other");
}

#[test]
fn an_instance_that_is_lost_costs_no_call() {
    let (balanced, world) = balanced("ab", Settings::new());
    let gone = Failure::not_sent(Cause::Closed(CloseReason::PeerClosed));
    world.does("a", Does::Fails(gone));
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
        world.pass(Duration::from_millis(10));
    }
}

#[test]
fn a_channel_knows_its_aperture_only_and_moves_with_its_settings() {
    let mut settings = Settings::new();
    let part = |index| {
        let mut aperture = Aperture::of(index, 2);
        aperture.instances_min = 2;
        Some(aperture)
    };
    settings.aperture = part(0);
    let (balanced, _) = balanced("abcdefgh", settings.clone());
    let names =
        || -> Vec<String> { balanced.explain(7).hosts.into_iter().map(|host| host.name).collect() };
    let first = names();
    assert_eq!(first.len(), 4);
    settings.aperture = part(1);
    balanced.configure(settings.clone()).unwrap();
    assert!(balanced.explain(7).to_string().contains("the part of caller 1 of 2"));
    let second = names();
    assert!(second.len() == 4 && first.iter().all(|name| !second.contains(name)));
    settings.aperture = None;
    balanced.configure(settings.clone()).unwrap();
    assert_eq!(names().len(), 8);
    settings.aperture = Some(Aperture::of(2, 2));
    assert_eq!(balanced.configure(settings).unwrap_err().name, "aperture.index");
    assert_eq!(names().len(), 8, "nothing is changed");
}

#[test]
fn connections_that_are_not_ready_are_passed_over() {
    let (balanced, world) = balanced("abc", Settings::new());
    world.readiness.borrow_mut().insert("a".into(), Readiness::Connecting);
    for _ in 0..50 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    assert!(!world.names().contains('a'));
    for name in ["b", "c"] {
        world.readiness.borrow_mut().insert(name.into(), Readiness::Broken);
    }
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(world.names(), "a", "it is the best there is");
}

fn hedging(names: &str) -> (Balanced<Stubs>, Rc<World>) {
    let mut settings = Settings::new();
    settings.method.hedge = Some(HedgeConfig::default());
    let (balanced, world) = balanced(names, settings);
    // Most calls take nothing, so a hedge is due after next to nothing.
    for _ in 0..100 {
        world.pass(Duration::from_millis(50));
        assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::OK));
    }
    world.take_made();
    (balanced, world)
}

#[test]
fn d12_a_hedge_wins_and_the_loser_is_given_up() {
    let (balanced, world) = hedging("ab");
    world.does("a", Does::Hangs);
    let mut wins = 0;
    for _ in 0..20 {
        assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::OK));
        if world.names() == "ab" {
            assert_eq!(world.given_up.take(), ["a"]);
            wins += 1;
            break;
        }
        world.pass(Duration::from_millis(100));
    }
    assert!(wins > 0);
    assert!(balanced.explain(7).hosts.iter().all(|host| host.in_flight == 0));
}

#[test]
fn d12_a_hedge_that_fails_leaves_the_first_attempt_alone() {
    let (balanced, world) = hedging("ab");
    world.all_do("ab", Does::Hangs);
    let mut call = balanced.call(outgoing(IDEMPOTENT), Empty);
    assert!(poll(&mut call).is_pending());
    world.pass(Duration::from_millis(1));
    assert!(poll(&mut call).is_pending());
    let made = world.take_made();
    assert_eq!(made.len(), 2);
    world.does(&made[1].0, Does::Fails(refused()));
    assert!(poll(&mut call).is_pending(), "the first may still answer");
    world.does(&made[0].0, Does::Answers);
    assert_eq!(poll(&mut call), Poll::Ready(Ok(Status::OK)));
    assert_eq!(world.take_made(), []);
}

#[test]
fn d12_no_hedge_goes_where_the_first_attempt_went() {
    let (balanced, world) = hedging("ab");
    world.all_do("ab", Does::Hangs);
    // The other one is known, and cannot be called.
    world.readiness.borrow_mut().insert("b".into(), Readiness::Broken);
    let mut call = balanced.call(outgoing(IDEMPOTENT), Empty);
    assert!(poll(&mut call).is_pending());
    world.pass(Duration::from_millis(1));
    assert!(poll(&mut call).is_pending());
    assert_eq!(world.names(), "a");
    assert_eq!(balanced.counts().hedges, 0, "and it is not paid for");
}

#[test]
fn d12_nothing_is_hedged_without_budget_or_leave() {
    let (balanced, world) = hedging("ab");
    world.all_do("ab", Does::Hangs);
    let hedged = |flags| {
        let mut call = balanced.call(outgoing(flags), Empty);
        assert!(poll(&mut call).is_pending());
        world.pass(Duration::from_millis(1));
        assert!(poll(&mut call).is_pending());
        world.take_made().len() == 2
    };
    assert!(!hedged(0), "it must not run twice");
    assert!(!hedged(IDEMPOTENT | RETRIED), "somebody above makes it again already");
    let hedges = (0..100).filter(|_| hedged(IDEMPOTENT)).count();
    // 5 % of a hundred calls and some.
    assert!((1..=6).contains(&hedges), "{hedges}");
}

#[test]
fn dropping_a_call_gives_all_of_it_up() {
    let (balanced, world) = hedging("ab");
    world.all_do("ab", Does::Hangs);
    let mut call = balanced.call(outgoing(IDEMPOTENT), Empty);
    assert!(poll(&mut call).is_pending());
    world.pass(Duration::from_millis(1));
    assert!(poll(&mut call).is_pending());
    assert_eq!(balanced.explain(7).hosts.iter().map(|host| host.in_flight).sum::<u32>(), 2);
    drop(call);
    assert_eq!(world.given_up.take().len(), 2);
    assert_eq!(balanced.explain(7).hosts.iter().map(|host| host.in_flight).sum::<u32>(), 0);
}

#[test]
fn without_instances_calls_fail_at_once() {
    let (balanced, world) = balanced("", Settings::new());
    let unnamed = Failure::not_sent(Cause::no_instance(Missing::NoneKnown));
    assert_eq!(call(&balanced, &world, 0), Err(unnamed));
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    balanced.apply(&Listing::of(2, [Instance::new("s", "unreachable", address)]));
    assert_eq!(call(&balanced, &world, 0), Err(nobody(Missing::NoneKnown)));
    let idle = Listing::of(3, [Instance::new("s", "a", address).with_weight(0)]);
    balanced.apply(&idle);
    assert_eq!(call(&balanced, &world, 0), Err(nobody(Missing::Weightless)));
}

#[test]
fn g13_a_breaker_stops_a_method_and_tries_it_with_one_call() {
    let (balanced, world) = balanced("abcd", Settings::new());
    world.all_do("abcd", Does::Fails(lost()));
    for _ in 0..200 {
        assert_eq!(call(&balanced, &world, 0), Err(lost()));
    }
    world.take_made();
    let open = Err(Failure::not_sent(Cause::BreakerOpen));
    assert_eq!(call(&balanced, &world, 0), open);
    assert_eq!(world.take_made(), []);
    // Another method is another matter.
    let mut other = balanced.call(Outgoing { method: 8, ..outgoing(0) }, Empty);
    assert_eq!(poll(&mut other), Poll::Ready(Err(lost())));
    world.all_do("abcd", Does::Hangs);
    world.pass(Duration::from_secs(5));
    let mut probe = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut probe).is_pending());
    assert_eq!(call(&balanced, &world, 0), open, "one at a time");
    world.all_do("abcd", Does::Answers);
    assert_eq!(poll(&mut probe), Poll::Ready(Ok(Status::OK)));
    for _ in 0..10 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
}

#[test]
fn g13_an_instance_that_fails_is_ejected_and_probed_by_one_call() {
    let mut settings = Settings::new();
    settings.balancing = Balancing::WeightedRandom;
    let (balanced, world) = balanced("abcd", settings);
    world.does("a", Does::Fails(lost()));
    while balanced.counts().ejections == 0 {
        let _some_fail = call(&balanced, &world, 0);
    }
    world.take_made();
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    assert!(!world.names().contains('a'));
    world.pass(Duration::from_secs(6));
    world.does("a", Does::Hangs);
    let mut probe = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut probe).is_pending());
    assert_eq!(world.names(), "a");
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    assert!(!world.names().contains('a'), "one probe is enough");
    // A probe that is given up says nothing. The next call is none, or one that hangs would get them all.
    drop(probe);
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    assert!(!world.names().contains('a'), "not one after the other");
    world.pass(Duration::from_secs(6));
    world.does("a", Does::Answers);
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(world.names(), "a");
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    assert!(world.names().contains('a'), "it is well again");
}

#[test]
fn what_a_filter_of_this_side_refuses_is_not_laid_to_instances() {
    let mut settings = generous();
    settings.method.retry.attempts = 1;
    let (balanced, world) = balanced("abcdefghij", settings);
    let refused_here = Failure::not_sent(Cause::Status(Status::OVERLOADED));
    world.all_do("abcdefghij", Does::Fails(refused_here));
    for _ in 0..300 {
        assert_eq!(call(&balanced, &world, 0), Err(refused_here));
        world.pass(Duration::from_millis(5));
    }
    assert_eq!(balanced.counts().ejections, 0);
    let explained = balanced.explain(7);
    assert_eq!(explained.breaker, Some(BreakerState::Closed));
    assert!(explained.hosts.iter().all(|host| host.health == HealthState::Healthy));
}

#[test]
fn instances_may_change_under_calls() {
    let (balanced, world) = balanced("a", Settings::new());
    world.does("a", Does::Hangs);
    let mut old = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut old).is_pending());
    balanced.apply(&listing(2, "b"));
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    balanced.apply(&listing(1, "a"));
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(world.names(), "abb", "an older list is ignored");
    world.does("a", Does::Answers);
    assert_eq!(poll(&mut old), Poll::Ready(Ok(Status::OK)), "it kept its connection");
    assert_eq!(balanced.explain(7).hosts[0].in_flight, 0, "and is nothing to b");
}

#[test]
fn g18_calls_with_one_key_go_to_one_instance() {
    for balancing in [Balancing::Ring, Balancing::Maglev] {
        let mut settings = Settings::new();
        settings.balancing = balancing;
        let (balanced, world) = balanced("abcdefgh", settings);
        let mut used = std::collections::BTreeSet::new();
        for key in 0..50 {
            let keyed = balanced.keyed(key);
            for _ in 0..5 {
                assert_eq!(call(&keyed, &world, 0), Ok(Status::OK));
            }
            let names = world.names();
            assert!(names.chars().all(|name| names.starts_with(name)), "{names}");
            used.insert(names);
        }
        assert!(used.len() >= 6, "{used:?}");
    }
}

#[test]
fn a_setting_that_makes_no_sense_changes_nothing() {
    let (balanced, world) = balanced("a", generous());
    let mut settings = Settings::new();
    settings.method.retry.attempts = 0;
    assert!(balanced.configure(settings).is_err());
    world.all_do("a", Does::Fails(refused()));
    let _refused = call(&balanced, &world, 0);
    assert_eq!(world.take_made().len(), 3);
}

#[test]
fn a_warm_call_allocates_nothing() {
    let (balanced, world) = balanced("abcdefgh", Settings::new());
    QUIET.set(true);
    for _ in 0..2000 {
        world.pass(Duration::from_millis(1));
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let before = ALLOCATIONS.get();
    for _ in 0..2000 {
        world.pass(Duration::from_millis(1));
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let during = ALLOCATIONS.get() - before;
    QUIET.set(false);
    assert_eq!(during, 0);
}

#[test]
fn g07_an_instance_that_is_not_there_is_left_until_it_is() {
    let (balanced, world) = balanced("ab", generous());
    let names = |world: &World| {
        for _ in 0..20 {
            assert_eq!(call(&balanced, world, 0), Ok(Status::OK));
        }
        world.names()
    };
    assert!(names(&world).contains('a'));
    world.readiness.borrow_mut().insert("a".to_owned(), Readiness::Stranger);
    assert!(!names(&world).contains('a'), "at once");
    let told = FleetEvent::WrongInstance { name: "a".to_owned(), mismatch: None };
    assert_eq!(balanced.poll_event(), Some(told));
    assert_eq!(balanced.poll_event(), None);
    // That nobody answers there for a while says nothing of who will.
    for readiness in [Readiness::Broken, Readiness::Connecting, Readiness::Stranger] {
        world.readiness.borrow_mut().insert("a".to_owned(), readiness);
        assert_eq!(balanced.poll_event(), None);
        assert!(!names(&world).contains('a'));
        assert_eq!(balanced.explain(7).hosts[0].readiness, Readiness::Stranger);
    }
    assert_eq!(balanced.dead(), ["a"]);
    world.readiness.borrow_mut().remove("a");
    let told = FleetEvent::RightInstance { name: "a".to_owned() };
    assert_eq!(balanced.poll_event(), Some(told));
    assert!(names(&world).contains('a'));
}

#[test]
fn g07_with_nobody_but_others_a_call_says_so() {
    let (balanced, world) = balanced("ab", generous());
    for name in ["a", "b"] {
        world.readiness.borrow_mut().insert(name.to_owned(), Readiness::Stranger);
    }
    let wrong = Err(Failure::not_sent(Cause::Closed(CloseReason::WrongInstance)));
    assert_eq!(call(&balanced, &world, 0), wrong);
    world.pass(Duration::from_secs(2));
    assert_eq!(call(&balanced, &world, 0), wrong);
    assert_eq!(world.names(), "");
}

#[test]
fn g07_a_list_with_another_identity_is_one_with_another_instance() {
    let (balanced, world) = balanced("a", generous());
    world.readiness.borrow_mut().insert("a".to_owned(), Readiness::Stranger);
    assert!(call(&balanced, &world, 0).is_err());
    assert!(balanced.poll_event().is_some());
    let same = listing(2, "a");
    balanced.apply(&same);
    world.readiness.borrow_mut().insert("a".to_owned(), Readiness::Connecting);
    assert!(call(&balanced, &world, 0).is_err(), "the list says the same of it");
    let expected = Expected::new(Identity::new("b7").unwrap());
    let instances = same.instances.iter().map(|listed| Instance::clone(&listed.instance));
    let other = instances.map(|it| it.with_identity(expected.clone()));
    balanced.apply(&Listing::of(3, other));
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
}

#[test]
fn g12_calls_fail_at_once_while_nobody_is_back() {
    let mut settings = generous();
    settings.recovery = Some(RecoveryConfig::new(2));
    let (balanced, world) = balanced("ab", settings.clone());
    for name in ["a", "b"] {
        world.does(name, Does::Fails(Failure::not_sent(Cause::NotReady)));
        world.readiness.borrow_mut().insert(name.to_owned(), Readiness::Broken);
    }
    let first = call(&balanced, &world, 0);
    assert!(first.is_err() && !world.names().is_empty(), "somebody has to find out");
    assert_eq!(call(&balanced, &world, 0), Err(Failure::not_sent(Cause::Recovering)));
    assert_eq!(world.names(), "");
    assert_eq!(balanced.poll_event(), Some(FleetEvent::RecoveryBegan { working_min: 2 }));
    // Without the rule they are made as before.
    settings.recovery = None;
    balanced.configure(settings).unwrap();
    assert_eq!(balanced.poll_event(), Some(FleetEvent::RecoveryEnded { usable: 0 }));
    assert!(call(&balanced, &world, 0).is_err() && !world.names().is_empty());
    assert!(balanced.counts().held_back > 0);
}

// ---- instances are asked how busy they are ----

/// By reports, and each call asks an instance of which nothing was heard for half a second.
fn probing() -> Settings {
    let mut config = PrequalConfig::default();
    config.probe_percent = 100;
    let mut settings = Settings::new();
    settings.balancing = Balancing::Prequal(config);
    settings
}

/// Eight instances that have all been called.
fn known_eight(settings: Settings) -> (Balanced<Stubs>, Rc<World>) {
    let (balanced, world) = balanced("abcdefgh", settings);
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    assert!(balanced.explain(7).hosts.iter().all(|host| host.latency.is_some()));
    world.take_made();
    (balanced, world)
}

#[test]
fn instances_that_are_not_heard_of_are_asked_how_busy_they_are() {
    let (balanced, world) = known_eight(probing());
    assert_eq!(world.probed.take(), [""; 0], "all were just heard of");
    world.load.set(300);
    for _ in 0..100 {
        world.pass(Duration::from_millis(600));
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let probed = world.probed.take();
    assert_eq!(probed.len(), 100, "one a call");
    let (explained, counts) = (balanced.explain(7), balanced.counts());
    for HostReport { name, load, .. } in &explained.hosts {
        assert!(probed.contains(name) && *load == 0.3, "{name} {load}");
    }
    assert!(explained.to_string().contains("100 probes of how busy they are, 0 failed"));
    // They are no calls.
    assert_eq!(world.take_made().len(), 100);
    assert_eq!((counts.calls, counts.attempts, counts.load_probes), (200, 200, 100));
}

#[test]
fn what_becomes_of_a_question_counts_for_nothing_else() {
    let (balanced, world) = known_eight(probing());
    for does in [Does::Fails(lost()), Does::Hangs, Does::Answers] {
        // An answer that does not say it is none.
        world.probed_do.set(Some(does));
        for _ in 0..20 {
            world.pass(Duration::from_millis(600));
            assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
        }
        // None is asked again at once, nor waited for longer than a tenth of a second.
        world.pass(Duration::from_millis(100));
        assert_eq!(balanced.counts().load_probes_failed, balanced.counts().load_probes);
    }
    let (after, counts) = (balanced.explain(7), balanced.counts());
    assert_eq!((counts.load_probes, world.probed.take().len()), (60, 60));
    assert_eq!(world.given_up.take().len(), 20);
    assert_eq!((counts.attempts, counts.ejections, counts.over_budget), (160, 0, 0));
    assert_eq!(after.budget, 11, "a tenth of the calls of ten seconds, and one a second");
    for host in &after.hosts {
        assert_eq!((host.health, host.errors, host.load), (HealthState::Healthy, 0.0, 0.0));
        assert_eq!((host.in_flight, host.breaker), (0, Some(BreakerState::Closed)));
    }
}

#[test]
fn nobody_is_woken_up_to_be_asked() {
    let (balanced, world) = known_eight(probing());
    for name in ["a", "b", "c", "d"] {
        let readiness = if name < "c" { Readiness::Connecting } else { Readiness::Broken };
        world.readiness.borrow_mut().insert(name.to_owned(), readiness);
    }
    world.load.set(300);
    for _ in 0..100 {
        world.pass(Duration::from_millis(600));
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let probed = world.probed.take();
    assert!(probed.len() > 20 && probed.iter().all(|name| &name[..] > "d"), "{probed:?}");
}

#[test]
fn nobody_is_asked_unless_that_is_wanted() {
    let mut settings = probing();
    settings.balancing = Balancing::Prequal(PrequalConfig::default());
    let (balanced, world) = known_eight(settings.clone());
    let quiet = |balanced: &Balanced<Stubs>, world: &World| {
        for _ in 0..20 {
            world.pass(Duration::from_millis(600));
            assert_eq!(call(balanced, world, 0), Ok(Status::OK));
        }
        world.probed.take().len()
    };
    assert_eq!(quiet(&balanced, &world), 0);
    balanced.configure(probing()).unwrap();
    assert_eq!(quiet(&balanced, &world), 20);
    // Also where calls are routed, and then only those that a call may go to.
    let only = Route::to(Subset::named(["c"]));
    let rule = Rule::new("one", Match::all(), Action::route(only));
    balanced.route(Rules::new(1).with(rule)).unwrap();
    for _ in 0..20 {
        world.pass(Duration::from_millis(600));
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let probed = world.probed.take();
    assert!(!probed.is_empty() && probed.iter().all(|name| name == "c"), "{probed:?}");
    balanced.configure(settings).unwrap();
    assert_eq!(quiet(&balanced, &world), 0);
}

#[test]
fn a_warm_call_that_asks_allocates_nothing() {
    let (balanced, world) = known_eight(probing());
    world.load.set(300);
    QUIET.set(true);
    let run = |calls| {
        for _ in 0..calls {
            world.pass(Duration::from_millis(600));
            assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
        }
        ALLOCATIONS.get()
    };
    let before = run(2000);
    let during = run(2000) - before;
    QUIET.set(false);
    assert_eq!(during, 0);
    assert_eq!(balanced.counts().load_probes, 4000);
}
