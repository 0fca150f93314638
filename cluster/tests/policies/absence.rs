//! What callers and operators are told when there is nobody for a call, or somebody is left out.

use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::route::{Action, Groups, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{Balanced, Settings};
use ringcall_core::{Channel as _, Empty, Status};

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
