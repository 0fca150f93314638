//! A balanced channel out of a registry in one call, and what cannot be started.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use ringcall::cluster::{Balanced, Clients, Settings};
use ringcall::{BlockOn, RunningServer, Server, ShardConfig};
use ringcall_registry::{
    Node, NodeConfig, QuotaKeeper, Registrar, Registry as _, RegistryError, RegistrySource,
    Tending, balanced,
};
use support::{Named, Who as _, WhoClient, eventually};

/// A node, and its address.
fn node() -> (RunningServer, Tending, String) {
    let node = Node::new(NodeConfig::default());
    let tending = node.start(ShardConfig::default()).unwrap();
    let server = Server::bind("127.0.0.1:0").service(node.into_registry()).start().unwrap();
    let address = server.address().to_string();
    (server, tending, address)
}

fn serve(node: &str, name: &'static str, group: &'static str) -> RunningServer {
    let registrar = Registrar::new([node], "who").name(name).linger(Duration::ZERO);
    let registrar = registrar.describe(move |mut instance| {
        instance.group = group.into();
        instance
    });
    let server = Server::bind("127.0.0.1:0").service(Named(name).into_who());
    server.register(registrar).start().unwrap()
}

fn names<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn a_channel_hears_of_instances_for_as_long_as_there_is_one_of_it() {
    let (_node, _tending, at) = node();
    let _one = serve(&at, "s1", "blue");
    let alive = Arc::new(());
    let held = Arc::clone(&alive);
    let channel = balanced([at.as_str()], "who")
        .watch(move |watch| watch.on_event(move |_| drop(Arc::clone(&held))));
    let channel = channel.settings(Settings::new()).start().unwrap();
    channel.block_on(channel.ready().within(Duration::from_secs(30))).unwrap();
    let plain: Balanced<Clients> = (*channel).clone();
    let who = WhoClient::new(channel.clone());
    drop(channel);
    assert_eq!(*who.am_i().wait().unwrap(), *"s1");
    let _two = serve(&at, "s2", "green");
    let heard = || plain.names().into_iter().collect::<BTreeSet<_>>();
    eventually("the client's channel hears of it", || heard() == names(["s1", "s2"]));
    assert_eq!(Arc::strong_count(&alive), 2);
    drop(who);
    assert_eq!(Arc::strong_count(&alive), 1, "nobody watches any more");
}

#[test]
fn a_channel_may_want_a_group_only() {
    let (_node, _tending, at) = node();
    let _servers = [serve(&at, "s1", "blue"), serve(&at, "s2", "green")];
    let channel = balanced([&at], "who").in_group("green").start().unwrap();
    channel.block_on(channel.ready().within(Duration::from_secs(30))).unwrap();
    assert_eq!(channel.names(), ["s2"]);
}

#[test]
fn a_channel_of_a_service_that_nobody_serves_says_which() {
    let (_node, _tending, at) = node();
    let who = WhoClient::new(balanced([&at], "nobody").start().unwrap());
    let text = who.am_i().wait().unwrap_err().to_string();
    assert!(text.starts_with("there is no instance of \"nobody\" to call"), "{text}");
}

#[test]
fn what_makes_no_sense_is_not_started() {
    let mut settings = Settings::new();
    settings.health.ejected_percent = 101;
    let bad = balanced(["127.0.0.1:1"], "who").settings(settings).start().unwrap_err();
    assert!(matches!(&bad, RegistryError::Setting(bad) if bad.name.contains("ejected_percent")));
    let none = balanced([""; 0], "who").start().unwrap_err();
    assert!(matches!(none, RegistryError::NoAddress));
    let none = RegistrySource::start([""; 0], "who").unwrap_err();
    assert!(matches!(none, RegistryError::NoAddress));
    let bad = balanced(["127.0.0.1:1", "nonsense"], "who").start().unwrap_err();
    assert!(matches!(&bad, RegistryError::Address { address, .. } if address == "nonsense"));
    let channel = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
    let bad = QuotaKeeper::start("nonsense", "quotes", channel).unwrap_err();
    assert!(matches!(&bad, RegistryError::Address { address, .. } if address == "nonsense"));
}
