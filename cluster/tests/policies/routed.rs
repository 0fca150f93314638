//! A balanced channel with rules: what its callers see of them.

use std::task::Poll;
use std::time::Duration;

use crate::stubs::{ALLOCATIONS, Does, QUIET, balanced, call, generous, outgoing, poll, refused};
use ringcall_cluster::Settings;
use ringcall_cluster::route::{
    Action, By, Caller, Groups, Match, Route, Rule, Rules, Subset, Text, Zones,
};
use ringcall_core::frame::{ExtensionWriter, tag};
use ringcall_core::{Cause, Channel, Empty, Extended, Failure, FailureClass, Status};

fn one_rule(version: u64, when: Match, then: Action) -> Rules {
    Rules::new(version).with(Rule::new("the rule", when, then))
}

fn to(names: &str) -> Action {
    Action::route(Route::to(Subset::named(names.chars())))
}

#[test]
fn a_call_that_is_denied_is_not_sent() {
    let (balanced, world) = balanced("ab", generous());
    let denied = Action::Deny(Status::OVERLOADED);
    balanced.route(one_rule(1, Match::all().percent(50, By::Chance), denied)).unwrap();
    let mut denied = 0;
    for _ in 0..200 {
        match call(&balanced, &world, 0) {
            Ok(status) => assert_eq!(status, Status::OK),
            Err(failure) => {
                assert_eq!(failure.cause, Cause::Status(Status::OVERLOADED));
                assert_eq!(failure.class, FailureClass::NotSent);
                denied += 1;
            }
        }
    }
    assert!((70..130).contains(&denied), "{denied}");
    assert_eq!(world.take_made().len() as u64, 200 - denied);
    assert_eq!(balanced.counts().denied, denied);
}

#[test]
fn a_call_that_is_delayed_is_made_later() {
    let (balanced, world) = balanced("a", generous());
    let delay = Action::Delay(Duration::from_millis(20));
    balanced.route(one_rule(1, Match::all(), delay)).unwrap();
    let mut delayed = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut delayed).is_pending());
    world.pass(Duration::from_millis(19));
    assert!(poll(&mut delayed).is_pending());
    assert_eq!(world.take_made(), []);
    world.pass(Duration::from_millis(1));
    assert_eq!(poll(&mut delayed), Poll::Ready(Ok(Status::OK)));
    assert_eq!(world.names(), "a");
    // One that would be delayed beyond its deadline ends there, and was not sent.
    let delay = Action::Delay(Duration::from_secs(60));
    balanced.route(one_rule(2, Match::all(), delay)).unwrap();
    let mut late = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut late).is_pending());
    world.pass(outgoing(0).timeout);
    assert_eq!(poll(&mut late), Poll::Ready(Err(Failure::not_sent(Cause::Expired))));
    assert_eq!(world.take_made(), []);
    let delay = Action::Delay(Duration::from_millis(20));
    balanced.route(one_rule(3, Match::all(), delay)).unwrap();
    // One that is given up meanwhile is never made.
    let mut given_up = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut given_up).is_pending());
    drop(given_up);
    world.pass(Duration::from_secs(1));
    assert_eq!((world.take_made(), balanced.counts().attempts), (vec![], 1));
}

#[test]
fn retries_stay_where_rules_let_them() {
    let (balanced, world) = balanced("abcdef", generous());
    world.all_do("abcdef", Does::Fails(refused()));
    balanced.route(one_rule(1, Match::all(), to("cd"))).unwrap();
    assert_eq!(call(&balanced, &world, 0), Err(refused()));
    let names = world.names();
    assert!(names.len() == 3 && names.chars().all(|name| matches!(name, 'c' | 'd')), "{names}");
}

#[test]
fn rules_that_change_under_a_call_hold_for_its_next_attempt() {
    let (balanced, world) = balanced("ab", generous());
    balanced.route(one_rule(1, Match::all(), to("a"))).unwrap();
    world.does("a", Does::Fails(refused()));
    let mut moved = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut moved).is_pending());
    balanced.route(one_rule(2, Match::all(), to("b"))).unwrap();
    world.pass(Duration::from_millis(100));
    assert_eq!(poll(&mut moved), Poll::Ready(Ok(Status::OK)));
    assert_eq!(world.names(), "ab");
    // Also where there were none, and where there are none any more.
    let mut moved = balanced.call(outgoing(0), Empty);
    world.does("b", Does::Fails(refused()));
    assert!(poll(&mut moved).is_pending());
    balanced.route(Rules::new(3)).unwrap();
    world.all_do("ab", Does::Hangs);
    world.pass(Duration::from_millis(100));
    assert!(poll(&mut moved).is_pending());
    balanced.route(one_rule(4, Match::all(), Action::Deny(Status::FORBIDDEN))).unwrap();
    world.all_do("ab", Does::Fails(refused()));
    assert!(poll(&mut moved).is_pending(), "what is under way is not touched");
    world.pass(Duration::from_millis(200));
    let forbidden = Failure::not_sent(Cause::Status(Status::FORBIDDEN));
    assert_eq!(poll(&mut moved), Poll::Ready(Err(forbidden)));
}

/// Everything that routing can do, with what it reads there.
fn busy() -> Settings {
    let mut settings = Settings::new();
    settings.caller = Caller::in_zone("z1");
    settings.zones = Some(Zones::default());
    settings.groups = Some(Groups::of("").or_any());
    settings
}

#[test]
fn a_warm_call_through_rules_allocates_nothing() {
    let (balanced, world) = balanced("abcdefgh", busy());
    let by_user = By::Metadata("user".into());
    let split = [(1, Route::to(Subset::named(["h"]))), (9, Route::to(Subset::all()))];
    let rules = Rules::new(1)
        .with(Rule::new("not a", Match::all(), Action::Exclude(Subset::named(["a"]))))
        .with(Rule::new("header", Match::all().metadata("x", Text::begins("yes")), to("b")))
        .with(Rule::new("share", Match::all().percent(10, by_user.clone()), to("cd")))
        .with(Rule::new("split", Match::all(), Action::split(split, by_user)));
    balanced.route(rules).unwrap();
    let mut writer = ExtensionWriter::new();
    assert!(writer.push_parts(tag::METADATA, [&b"\x01x"[..], b"no"]));
    let extensions = writer.finish();
    let plain = Extended { payload: Empty, extensions: Vec::new() };
    let with_metadata = Extended { payload: Empty, extensions };
    let made = || {
        for _ in 0..2000 {
            world.pass(Duration::from_millis(1));
            let mut call = balanced.call(outgoing(0), &plain);
            assert_eq!(poll(&mut call), Poll::Ready(Ok(Status::OK)));
        }
    };
    QUIET.set(true);
    made();
    let before = ALLOCATIONS.get();
    made();
    let during = ALLOCATIONS.get() - before;
    assert_eq!(during, 0);
    // One that has metadata is put together with the group that it goes to.
    let mut call = balanced.call(outgoing(0), &with_metadata);
    assert_eq!(poll(&mut call), Poll::Ready(Ok(Status::OK)));
    QUIET.set(false);
}
