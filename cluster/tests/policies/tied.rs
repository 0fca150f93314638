//! Calls that are made at two instances, of which the one that begins first keeps them.

use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use ringcall_cluster::fleet::CallEnd;
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::{Balanced, Settings};
use ringcall_core::{Channel, Empty, FailureClass, Status};

use crate::stubs::{
    Does, IDEMPOTENT, Stubs, World, balanced, call, generous, outgoing, poll, refused,
};

const AFTER: Duration = Duration::from_millis(1);

fn tied() -> (Balanced<Stubs>, Rc<World>) {
    tied_with(|_| ())
}

fn tied_with(change: impl FnOnce(&mut Settings)) -> (Balanced<Stubs>, Rc<World>) {
    let mut hedge = HedgeConfig::default();
    hedge.tied = Some(AFTER);
    let mut settings: Settings = generous();
    settings.method.hedge = Some(hedge);
    change(&mut settings);
    let (balanced, world) = balanced("ab", settings);
    // Which pay for hedges.
    for _ in 0..100 {
        assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::OK));
    }
    world.all_do("ab", Does::Hangs);
    world.take_made();
    world.tied.take();
    (balanced, world)
}

#[test]
fn d12_of_two_that_are_tied_the_one_that_begins_keeps_the_call() {
    for first_begins in [true, false] {
        let (balanced, world) = tied();
        let before = balanced.explain(7).budget;
        let reporting = balanced.reporting();
        let mut call = reporting.call(outgoing(IDEMPOTENT), Empty);
        assert!(poll(&mut call).is_pending());
        world.pass(AFTER);
        assert!(poll(&mut call).is_pending());
        let [first, second] = &world.tied.take()[..] else { panic!("two, with names") };
        assert_ne!(first.1, second.1);
        assert_eq!(balanced.explain(7).budget, before - 1);
        let (kept, other) = if first_begins { (first, second) } else { (second, first) };
        world.begun.borrow_mut().push(kept.1);
        assert!(poll(&mut call).is_pending());
        assert_eq!(world.given_up.take(), [&other.0[..]]);
        assert_eq!(balanced.explain(7).budget, before, "it was no extra load");
        assert_eq!((balanced.counts().hedges, balanced.counts().untied), (1, 1));
        // What the other one would have said does not matter.
        world.does(&other.0, Does::Fails(refused()));
        world.does(&kept.0, Does::Answers);
        assert_eq!(poll(&mut call), Poll::Ready(Ok(Status::OK)));
        let report = balanced.poll_report().expect("it was asked for");
        let ends: Vec<_> = report.attempts.iter().map(|attempt| attempt.end).collect();
        assert!(ends.contains(&CallEnd::GivenUp), "{report}");
        assert!(balanced.explain(7).hosts.iter().all(|host| host.in_flight == 0));
    }
}

#[test]
fn d12_one_that_was_given_up_may_have_begun_as_well() {
    let (balanced, world) = tied_with(|settings| settings.method.retry.attempts = 1);
    let mut call = balanced.call(outgoing(IDEMPOTENT), Empty);
    assert!(poll(&mut call).is_pending());
    world.pass(AFTER);
    assert!(poll(&mut call).is_pending());
    let [first, second] = &world.tied.take()[..] else { panic!("two, with names") };
    world.begun.borrow_mut().push(second.1);
    assert!(poll(&mut call).is_pending());
    assert_eq!(world.given_up.take(), [&first.0[..]]);
    world.does(&second.0, Does::Fails(refused()));
    let Poll::Ready(Err(failure)) = poll(&mut call) else { panic!("it was refused") };
    assert_eq!((failure.class, failure.cause), (FailureClass::Unknown, refused().cause));
}

#[test]
fn d12_one_that_has_begun_is_not_hedged() {
    let (balanced, world) = tied();
    let mut call = balanced.call(outgoing(IDEMPOTENT), Empty);
    assert!(poll(&mut call).is_pending());
    let (_, tie) = world.tied.borrow()[0];
    world.begun.borrow_mut().push(tie);
    assert!(poll(&mut call).is_pending());
    world.pass(Duration::from_millis(500));
    assert!(poll(&mut call).is_pending());
    assert_eq!(world.take_made().len(), 1);
}

#[test]
fn d12_what_may_run_once_is_not_tied() {
    let (balanced, world) = tied();
    let mut call = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut call).is_pending());
    world.pass(AFTER);
    assert!(poll(&mut call).is_pending());
    assert_eq!((world.take_made().len(), world.tied.take().len()), (1, 0));
}

#[test]
fn d12_whoever_does_not_say_when_it_begins_is_hedged_and_paid_for() {
    let (balanced, world) = tied();
    let before = balanced.explain(7).budget;
    let mut call = balanced.call(outgoing(IDEMPOTENT), Empty);
    assert!(poll(&mut call).is_pending());
    world.pass(AFTER);
    assert!(poll(&mut call).is_pending());
    world.all_do("ab", Does::Answers);
    assert_eq!(poll(&mut call), Poll::Ready(Ok(Status::OK)));
    assert_eq!(world.given_up.take().len(), 1);
    assert_eq!(balanced.explain(7).budget, before - 1);
}
