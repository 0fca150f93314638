//! Copies of calls, over connections that do as they are told.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use crate::stubs::{Does, RETRIED, Stubs, World, balanced, call, outgoing, poll, refused};
use ringcall_cluster::fleet::Readiness;
use ringcall_cluster::route::{Action, By, Match, Rule, Rules, Sample, Subset};
use ringcall_cluster::{Balanced, Settings};
use ringcall_core::frame::{ExtensionWriter, tag};
use ringcall_core::{Channel, Codec, Empty, Extended, Outgoing, SharedPool, Status};

const SECOND: Duration = Duration::from_secs(1);

/// Copies of these calls go to `c`, which gets no others.
fn mirrored_with(settings: Settings, calls: Match) -> (Balanced<Stubs>, Rc<World>) {
    let (balanced, world) = balanced("abc", settings);
    let only = || Subset::named(["c"]);
    let rules = Rules::new(1)
        .with(Rule::new("no calls", Match::all(), Action::Exclude(only())))
        .with(Rule::new("copies", calls, Action::Mirror(only())));
    balanced.route(rules).unwrap();
    (balanced, world)
}

fn mirrored() -> (Balanced<Stubs>, Rc<World>) {
    mirrored_with(Settings::new(), Match::all())
}

#[test]
fn a_copy_of_each_call_goes_there_and_its_outcome_is_ignored() {
    let (balanced, world) = mirrored();
    world.does("c", Does::Fails(refused()));
    for _ in 0..20 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let made = world.take_made();
    let copies: Vec<_> = made.iter().filter(|(name, ..)| name == "c").collect();
    assert_eq!((made.len(), copies.len()), (40, 20));
    assert!(copies.iter().all(|(_, _, flags)| flags & RETRIED != 0), "nobody makes it again");
    let counts = balanced.counts();
    assert_eq!((counts.calls, counts.attempts), (20, 20));
    assert_eq!((counts.mirrored, counts.mirrors_dropped, counts.mirrors_failed), (20, 0, 20));
    // Nor is it held against the instance, whose own calls would be another thing.
    let explained = balanced.explain(7);
    let c = explained.hosts.iter().find(|host| host.name == "c").unwrap();
    assert_eq!((c.in_flight, c.errors, c.latency), (0, 0.0, None));
}

#[test]
fn a_share_of_the_calls_is_copied() {
    let (balanced, world) = mirrored_with(Settings::new(), Match::all().percent(20, By::Chance));
    for _ in 0..1000 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    let copies = world.names().matches('c').count();
    assert!((150..250).contains(&copies), "{copies}");
    assert_eq!(balanced.counts().mirrored, copies as u64);
}

#[test]
fn copies_that_hang_are_bounded_and_given_up_at_their_deadline() {
    let (balanced, world) = mirrored();
    world.does("c", Does::Hangs);
    for _ in 0..100 {
        let mut one = balanced.call(outgoing(0), ringcall_core::Empty);
        assert_eq!(poll(&mut one), Poll::Ready(Ok(Status::OK)), "no call waits for its copy");
    }
    assert_eq!(world.names().matches('c').count(), 64);
    let counts = balanced.counts();
    assert_eq!((counts.mirrored, counts.mirrors_dropped, counts.mirrors_failed), (64, 36, 0));
    assert!(world.given_up.borrow().is_empty(), "that its call has ended is no end of a copy");
    world.pass(SECOND);
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(world.given_up.borrow().len(), 64);
    let counts = balanced.counts();
    assert_eq!((counts.mirrored, counts.mirrors_failed), (65, 64));
    // Where no further ones are made, whoever watches the instances ends them.
    world.pass(SECOND);
    assert!(balanced.dead().is_empty());
    assert_eq!(world.given_up.borrow().len(), 65);
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    drop(balanced);
    assert_eq!(world.given_up.borrow().len(), 66, "they end with their channel");
}

#[test]
fn what_copies_hold_is_bounded() {
    let mut settings = Settings::new();
    settings.mirror.bytes_max = 2500;
    let (balanced, world) = mirrored_with(settings, Match::all());
    world.does("c", Does::Hangs);
    let pool = SharedPool::new(4096);
    let mut body = pool.writer(4096);
    body.put(&[7; 1000]).unwrap();
    let (body, _) = pool.finish(body);
    for _ in 0..5 {
        let raw = Outgoing { codec: Codec::RAW, ..outgoing(0) };
        let mut one = balanced.call(raw, body.clone());
        assert_eq!(poll(&mut one), Poll::Ready(Ok(Status::OK)));
    }
    let counts = balanced.counts();
    assert_eq!((counts.mirrored, counts.mirrors_dropped), (2, 3));
    // With no room at all none is made.
    let mut settings = Settings::new();
    settings.mirror.in_flight_max = 0;
    balanced.configure(settings).unwrap();
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(balanced.counts().mirrors_dropped, 4);
}

#[test]
fn an_instance_that_cannot_be_called_gets_no_copy() {
    let (balanced, world) = mirrored();
    world.readiness.borrow_mut().insert("c".into(), Readiness::Broken);
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert!(!world.names().contains('c'));
    assert_eq!(balanced.counts().mirrors_dropped, 1);
}

#[test]
fn a_call_that_waits_is_copied_once() {
    let (balanced, world) = balanced("abc", crate::stubs::generous());
    let only = || Subset::named(["c"]);
    let rules = Rules::new(1)
        .with(Rule::new("wait", Match::all(), Action::Delay(SECOND / 10)))
        .with(Rule::new("no calls", Match::all(), Action::Exclude(only())))
        .with(Rule::new("copies", Match::all(), Action::Mirror(only())))
        .with(Rule::new("more", Match::all(), Action::Mirror(Subset::all())));
    balanced.route(rules).unwrap();
    world.all_do("ab", Does::Fails(refused()));
    assert_eq!(call(&balanced, &world, 0), Err(refused()));
    let names = world.names();
    assert_eq!((names.len(), names.matches('c').count()), (4, 1), "{names}: three attempts");
}

#[test]
fn d16_a_copy_is_not_taken_for_its_call() {
    let (balanced, world) = mirrored();
    let mut writer = ExtensionWriter::new();
    assert!(writer.push_parts(tag::IDEMPOTENCY_KEY, [&b"order-17"[..]]));
    assert!(writer.push_parts(tag::TIED, [&[7; 16][..]]));
    assert!(writer.push_parts(tag::METADATA, [&b"\x04usercarol"[..]]));
    let payload = Extended { payload: Empty, extensions: Rc::<[u8]>::from(writer.finish()) };
    let mut one = balanced.call(outgoing(0), payload);
    assert_eq!(poll(&mut one), Poll::Ready(Ok(Status::OK)));
    assert_eq!(world.names().matches('c').count(), 1);
    assert_eq!(world.keys.take(), [b"order-17"], "the call's own");
    assert_eq!(world.tied.take().len(), 1);
    assert_eq!(world.users.take(), ["carol", "carol"]);
}

#[test]
fn a_copy_is_explained() {
    let (balanced, _) = mirrored();
    let explained = balanced.explain_call(&Sample::of("shop.Orders/place"));
    let trace = explained.trace.as_ref().unwrap();
    assert_eq!(trace.met, ["no calls", "copies"]);
    assert_eq!(trace.mirrored, ["c"]);
    assert!(explained.to_string().contains("a copy goes to one of c"), "{explained}");
}
