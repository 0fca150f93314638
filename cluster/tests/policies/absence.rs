//! What callers and operators are told when there is nobody for a call, or somebody is left out.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringcall_cluster::discovery::{
    Discovery, DiscoveryConfig, Instance, Listing, Revision, Snapshot, Update, Wanted,
};
use ringcall_cluster::route::{Action, Groups, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{Balanced, Settings};
use ringcall_core::{Channel as _, Empty, Instant, Status};

use crate::stubs::{Stubs, World, balanced, call, listing, outgoing};

fn said(balanced: &Balanced<Stubs>, world: &World) -> String {
    call(balanced, world, 0).unwrap_err().to_string()
}

#[test]
fn a_call_without_an_instance_says_of_which_service_and_why() {
    let (channel, world) = balanced("", Settings::new());
    let text = said(&channel, &world);
    assert!(
        text.starts_with("there is no instance of the service to call: none is known"),
        "{text}"
    );

    channel.apply(&listing(2, "ab"));
    assert_eq!(call(&channel, &world, 0), Ok(Status::OK));
    channel.apply(&listing(3, ""));
    let text = said(&channel, &world);
    assert!(text.starts_with("there is no instance of \"s\" to call: none is known"), "{text}");

    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    channel.apply(&Listing::of(4, [Instance::new("s", "a", address).with_weight(0)]));
    assert!(
        said(&channel, &world).contains("\"s\" to call: all that are known have a weight of 0")
    );
    channel.apply(&listing(5, "a"));
    let mut nobody = channel.at("z").call(outgoing(0), Empty);
    let mut cx = Context::from_waker(Waker::noop());
    let Poll::Ready(Err(failure)) = Pin::new(&mut nobody).poll(&mut cx) else {
        panic!("it is not in the list");
    };
    let text = failure.to_string();
    assert!(text.contains("\"s\" to call: none that is known has this name"), "{text}");
}

#[test]
fn rules_and_groups_that_leave_nobody_are_told_apart() {
    let mut settings = Settings::new();
    settings.groups = Some(Groups::of("blue"));
    let (grouped, world) = balanced("ab", settings);
    let text = said(&grouped, &world);
    assert!(text.contains("\"s\" to call: none that is known is in the group"), "{text}");

    let to = |subset| Action::route(Route::to(subset));
    for action in [to(Subset::named(["z"])), Action::Exclude(Subset::all())] {
        let (ruled, world) = balanced("ab", Settings::new());
        ruled.route(Rules::new(1).with(Rule::new("none", Match::all(), action))).unwrap();
        let text = said(&ruled, &world);
        assert!(text.contains("\"s\" to call: rules leave out all that are known"), "{text}");
    }
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// Says that these are there, and lets a moment pass.
fn say(discovery: &mut Discovery, ms: u64, names: &str) {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    let instances = names.chars().map(|name| Instance::new("s", name.to_string(), address));
    let snapshot = Snapshot {
        revision: Revision { epoch: 1, number: ms + 1 },
        instances: instances.collect(),
    };
    discovery.handle_update(at(ms), Update::Snapshot { snapshot, clock_ms: None });
    pass(discovery, ms, ms + 500);
}

fn pass(discovery: &mut Discovery, from: u64, to: u64) {
    let mut now = at(from);
    while let Some(next) = discovery.poll_timeout().filter(|next| *next <= at(to)) {
        now = next.max(now);
        discovery.handle_timeout(now);
    }
}

fn left_out(discovery: &mut Discovery) -> Vec<String> {
    let alarms = std::iter::from_fn(|| discovery.poll_alarm().map(|alarm| alarm.to_string()));
    alarms.filter(|text| text.contains("comes and goes")).collect()
}

#[test]
fn g06_one_that_flaps_is_told_once_for_each_time_that_it_is_left_out() {
    let mut discovery = Discovery::new(Wanted::service("s"), DiscoveryConfig::default()).unwrap();
    for round in 0..3 {
        say(&mut discovery, round * 1000, "abcd");
        assert_eq!(left_out(&mut discovery), [""; 0]);
        say(&mut discovery, round * 1000 + 500, "abc");
    }
    say(&mut discovery, 3000, "abcd");
    let told = left_out(&mut discovery);
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(
        told[0].starts_with("the instance \"d\" comes and goes: it is left out for "),
        "{told:?}"
    );
    // It goes on, and nothing is new about that.
    say(&mut discovery, 4000, "abc");
    say(&mut discovery, 5000, "abcd");
    assert_eq!(left_out(&mut discovery), [""; 0]);
    // It was let in again, and begins anew.
    pass(&mut discovery, 5500, 120_000);
    assert_eq!(discovery.listing().instances.len(), 4);
    for round in 0..3 {
        say(&mut discovery, 200_000 + round * 1000, "abc");
        say(&mut discovery, 200_500 + round * 1000, "abcd");
    }
    assert_eq!(left_out(&mut discovery).len(), 1);
}

#[test]
fn g06_those_that_flap_and_are_used_all_the_same_are_not_said_to_be_left_out() {
    let mut discovery = Discovery::new(Wanted::service("s"), DiscoveryConfig::default()).unwrap();
    for round in 0..6 {
        say(&mut discovery, round * 1000, "ab");
        say(&mut discovery, round * 1000 + 500, "");
    }
    say(&mut discovery, 7000, "ab");
    assert_eq!(discovery.listing().instances.len(), 2);
    assert_eq!(left_out(&mut discovery), [""; 0]);
}
