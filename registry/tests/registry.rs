//! Nodes, instances and those who call them, over real sockets.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use ringcall::cluster::discovery::{Source as _, Update, Wanted};
use ringcall::cluster::{Balanced, Clients, Settings, Watch, Watching};
use ringcall::{BlockOn, CallError, Client, RunningServer, ServeError, Server, ShardConfig};
use ringcall_registry::{
    Key, Node, NodeConfig, Refused, Registrar, Registration, Registry as _, RegistryClient,
    RegistrySource, Replication as _, Tending, Watched, Withdrawal,
};
use support::{Folder, Named, Who as _, WhoClient, eventually, pause};

/// A node that serves.
struct Serving {
    server: Option<RunningServer>,
    _tending: Tending,
}

impl Serving {
    fn stop(mut self) {
        if let Some(server) = self.server.take() {
            server.stop();
        }
    }
}

/// Nodes at sockets of their own.
struct Sockets(Folder);

impl Sockets {
    fn new() -> Sockets {
        Sockets(Folder::new())
    }

    fn address(&self, name: &str) -> String {
        self.0.address(name)
    }

    fn addresses(&self, names: &[&str]) -> Vec<String> {
        self.0.addresses(names)
    }

    /// A node that knows of all these.
    fn node(&self, name: &str, all: &[&str]) -> Serving {
        self.node_with(name, all, NodeConfig::default())
    }

    fn node_with(&self, name: &str, all: &[&str], mut config: NodeConfig) -> Serving {
        config.peers = self.addresses(all);
        let node = Node::new(config);
        let tending = node.start(ShardConfig::default()).unwrap();
        let server =
            Server::bind(self.address(name).as_str()).service(node.clone().into_registry());
        let server = server.service(node.into_replication()).start().unwrap();
        Serving { server: Some(server), _tending: tending }
    }

    fn registry(&self, name: &str) -> RegistryClient<Client> {
        RegistryClient::connect(self.address(name).as_str()).wait().unwrap()
    }

    /// The names of the instances that a node has.
    fn names(&self, node: &str) -> BTreeSet<String> {
        let lines = self.registry(node).instances(&"who".to_owned()).wait().unwrap().to_owned();
        lines.iter().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect()
    }

    fn registrar(&self, nodes: &[&str], name: &str) -> Registrar {
        let registrar = Registrar::new(self.addresses(nodes), "who").name(name);
        registrar.lease(Duration::from_secs(3)).linger(Duration::ZERO)
    }

    fn serve(&self, nodes: &[&str], name: &'static str) -> RunningServer {
        let server = Server::bind("127.0.0.1:0").service(Named(name).into_who());
        server.register(self.registrar(nodes, name)).start().unwrap()
    }
}

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// An instance that nobody keeps.
fn registration(instance: String, lease_ms: u32) -> Registration {
    Registration { instance, lease_ms, incarnation: 1, registered_ms: None }
}

fn withdrawal(name: &str) -> Withdrawal {
    let key = Key { service: "who".to_owned(), name: name.to_owned() };
    Withdrawal { key, incarnation: 1, lease_ms: 60_000 }
}

fn watch(sockets: &Sockets, nodes: &[&str]) -> (Watching, Balanced<Clients>) {
    let balanced = Balanced::new(Clients::new().unwrap(), Settings::new()).unwrap();
    let source = RegistrySource::start(sockets.addresses(nodes), "who").unwrap();
    let watching = Watch::new(Wanted::service("who")).start(source, balanced.clone()).unwrap();
    balanced.block_on(balanced.ready().within(Duration::from_secs(30))).unwrap();
    (watching, balanced)
}

/// Who answers a few calls.
fn answering(balanced: &Balanced<Clients>) -> BTreeSet<String> {
    let who = WhoClient::new(balanced.clone());
    let call = |_| who.am_i().wait().ok().map(|name| name.as_str().to_owned());
    (0..32).filter_map(call).collect()
}

#[test]
fn what_one_node_is_told_all_of_them_know() {
    let sockets = Sockets::new();
    let all = ["a", "b", "c"];
    let _nodes = all.map(|name| sockets.node(name, &all));
    let one = sockets.serve(&["a"], "one");
    let two = sockets.serve(&["b"], "two");
    for node in all {
        eventually("both are known everywhere", || sockets.names(node) == set(&["one", "two"]));
    }
    // One that drains is taken back.
    one.stop();
    for node in all {
        eventually("the one that left is known nowhere", || sockets.names(node) == set(&["two"]));
    }
    two.stop();
    eventually("nobody is left", || sockets.registry("c").services().wait().unwrap().is_empty());
}

#[test]
fn g05_a_node_that_starts_again_learns_from_the_others() {
    let sockets = Sockets::new();
    let all = ["a", "b"];
    let first = sockets.node("a", &all);
    let _second = sockets.node("b", &all);
    // It is renewed at `b`, so that `a` hears of it from there only.
    let _one = sockets.serve(&["b"], "one");
    eventually("a knows it", || sockets.names("a") == set(&["one"]));
    first.stop();
    let _again = sockets.node("a", &all);
    eventually("a knows it again", || sockets.names("a") == set(&["one"]));
}

#[test]
fn g05_instances_register_again_at_a_registry_that_has_forgotten_everything() {
    let sockets = Sockets::new();
    let first = sockets.node("a", &[]);
    let _one = sockets.serve(&["a"], "one");
    let since = |sockets: &Sockets| {
        let lines = sockets.registry("a").instances(&"who".to_owned()).wait().unwrap().to_owned();
        let line = lines.first()?.clone();
        line.split(' ').find_map(|word| word.strip_prefix("registered_ms=").map(str::to_owned))
    };
    let before = since(&sockets);
    assert!(before.is_some());
    first.stop();
    let _again = sockets.node("a", &[]);
    eventually("it registers again", || sockets.names("a") == set(&["one"]));
    // It is no younger for that.
    assert_eq!(since(&sockets), before);
}

#[test]
fn g08_who_has_missed_something_is_told_everything_again() {
    let sockets = Sockets::new();
    let all = ["a", "b"];
    let mut config = NodeConfig::default();
    // Whoever is two changes behind has to begin anew.
    (config.backlog, config.bus_backlog) = (1, 1);
    let _nodes = all.map(|name| sockets.node_with(name, &all, config.clone()));
    let _one = sockets.serve(&["a"], "one");
    let (_watching, balanced) = watch(&sockets, &["b"]);
    let registry = sockets.registry("a");
    let names: Vec<String> = (0..200).map(|number| format!("n{number}")).collect();
    for name in &names {
        let instance = format!("who {name} 127.0.0.1:1");
        let registration = registration(instance, 3_600_000);
        registry.register(&registration).wait().unwrap();
    }
    let known = || sockets.names("b");
    eventually("b knows all of them", || names.iter().all(|name| known().contains(name)));
    for name in &names {
        registry.withdraw(&withdrawal(name)).wait().unwrap();
    }
    eventually("b knows that they left", || known() == set(&["one"]));
    eventually("and so does its watcher", || answering(&balanced) == set(&["one"]));
}

#[test]
fn the_program_is_a_node() {
    let sockets = Sockets::new();
    let program = std::process::Command::new(env!("CARGO_BIN_EXE_ringcall-registry"))
        .args(["--listen", &sockets.address("a"), "--peer", &sockets.address("b")])
        .env("RUST_LOG", "off")
        .spawn();
    let mut program = program.unwrap();
    let _node = sockets.node("b", &[]);
    let connect = || RegistryClient::connect(sockets.address("a").as_str()).wait();
    eventually("it listens", || connect().is_ok());
    let _one = sockets.serve(&["b"], "one");
    eventually("it hears the other node", || sockets.names("a") == set(&["one"]));
    program.kill().unwrap();
    program.wait().unwrap();
}

#[test]
fn who_is_not_heard_of_is_missed_and_who_says_so_again_is_not() {
    let sockets = Sockets::new();
    let all = ["a", "b"];
    let _nodes = all.map(|name| sockets.node(name, &all));
    let registry = sockets.registry("a");
    let silent = registration("who silent 127.0.0.1:7001".to_owned(), 1000);
    assert_eq!(registry.register(&silent).wait().unwrap().renew_ms, 333);
    let server = Server::bind("127.0.0.1:0").service(Named("one").into_who());
    let registrar = sockets.registrar(&["a"], "one").lease(Duration::from_secs(1));
    let _one = server.register(registrar).start().unwrap();
    for number in 0..2 {
        // Each time for a lease, of which the other one has at least as many.
        let name = format!("n{number}");
        let again = registration(format!("who {name} 127.0.0.1:7001"), 1000);
        registry.register(&again).wait().unwrap();
        for node in all {
            let is_missed = || {
                let names = sockets.names(node);
                assert!(names.contains("one"), "it says that it is there: {names:?}");
                !names.contains(&name) && !names.contains("silent")
            };
            eventually("who is silent is missed", is_missed);
        }
    }
    // To take back what is not there is no error.
    registry.withdraw(&withdrawal("silent")).wait().unwrap();
}

#[test]
fn who_starts_again_under_its_name_is_found_where_it_is_now() {
    let sockets = Sockets::new();
    let all = ["a", "b"];
    let _nodes = all.map(|name| sockets.node(name, &all));
    let registry = sockets.registry("a");
    // A process that has died, of which the other node hears.
    let dead = registration("who one 127.0.0.1:1".to_owned(), 60_000);
    registry.register(&dead).wait().unwrap();
    eventually("b knows the dead one", || sockets.names("b") == set(&["one"]));
    let one = sockets.serve(&["b"], "one");
    let port = one.address().to_string();
    let is_at = |node: &str| {
        let lines = sockets.registry(node).instances(&"who".to_owned()).wait().unwrap().to_owned();
        lines.iter().all(|line| line.contains(&port))
    };
    for node in all {
        eventually("it is where it is now", || is_at(node));
    }
    // The one before is told so if it is not dead after all, and changes nothing.
    let again = Registration { registered_ms: Some(1), ..dead };
    let refused = registry.register(&again).wait().unwrap_err();
    assert_eq!(refused, CallError::App(Refused::Replaced));
    registry.withdraw(&withdrawal("one")).wait().unwrap();
    assert!(is_at("a") && is_at("b"));
}

#[test]
fn who_may_only_watch_does_no_harm() {
    let sockets = Sockets::new();
    let all = ["a", "b"];
    let _nodes = all.map(|name| sockets.node(name, &all));
    let registry = sockets.registry("a");
    let watch = |service: String, heard| registry.watch(&Watched { service, heard }).wait();
    eventually("it takes watches", || watch("who".to_owned(), 0).is_ok());
    for _ in 0..5 {
        // Whatever it says that it has heard: it is told what is later, as far as there is anything later.
        assert!(watch("who".to_owned(), u64::MAX).is_ok());
    }
    let long = watch("x".repeat(257), 0).err();
    assert_eq!(long, Some(CallError::App(Refused::BadName)));
    let _one = sockets.serve(&["a"], "one");
    for node in all {
        eventually("nodes hear each other as before", || sockets.names(node) == set(&["one"]));
    }
}

#[test]
fn instances_that_say_a_lot_are_told_in_parts() {
    let sockets = Sockets::new();
    let _node = sockets.node("a", &[]);
    let registry = sockets.registry("a");
    let value = "x".repeat(250);
    let tags: String = (0..30).map(|number| format!(" tag.t{number}={value}")).collect();
    for number in 0..600 {
        let instance = format!("who n{number} 127.0.0.1:1{tags}");
        registry.register(&registration(instance, 60_000)).wait().unwrap();
    }
    assert!(registry.instances(&"who".to_owned()).wait().unwrap().len() > 100);
    let mut source = RegistrySource::start(sockets.addresses(&["a"]), "who").unwrap();
    let mut told = None;
    eventually("all of them are told", || {
        told = source.poll_update(ringcall::cluster::Instant::ZERO);
        told.is_some()
    });
    let Some(Update::Snapshot { snapshot, .. }) = told else { panic!("{told:?}") };
    assert_eq!(snapshot.instances.len(), 600);
}

#[test]
fn callers_follow_and_go_to_another_node_when_theirs_is_gone() {
    let sockets = Sockets::new();
    let all = ["a", "b"];
    let mut nodes: Vec<_> = all.iter().map(|name| sockets.node(name, &all)).collect();
    let _one = sockets.serve(&all, "one");
    let (_watching, balanced) = watch(&sockets, &all);
    assert_eq!(answering(&balanced), set(&["one"]));
    let two = sockets.serve(&all, "two");
    eventually("the second one answers as well", || answering(&balanced) == set(&["one", "two"]));
    nodes.remove(0).stop();
    let _three = sockets.serve(&all, "three");
    let both = set(&["one", "two", "three"]);
    eventually("news come from the node that is left", || answering(&balanced) == both);
    two.stop();
    eventually("who leaves is not called", || answering(&balanced) == set(&["one", "three"]));
    // Without any node the list stays.
    nodes.remove(0).stop();
    for _ in 0..50 {
        assert!(!answering(&balanced).is_empty());
        pause(Duration::from_millis(50));
    }
    eventually("both are still called", || answering(&balanced) == set(&["one", "three"]));
}

#[test]
fn what_makes_no_sense_is_refused_with_what_would() {
    let sockets = Sockets::new();
    let _node = sockets.node("a", &[]);
    let registry = sockets.registry("a");
    let refused = |instance: &str, lease_ms: u32| match registry
        .register(&registration(instance.to_owned(), lease_ms))
        .wait()
    {
        Err(CallError::App(refused)) => refused.to_string(),
        other => panic!("{other:?}"),
    };
    assert_eq!(refused("who a 127.0.0.1:1", 10), "a lease has 1000 to 3600000 ms");
    assert!(refused("who a 0.0.0.0:1", 2000).contains("nobody can be reached at its address"));
    assert!(refused("who a", 2000).contains("service, name and address are needed"));
    assert!(refused("who a 127.0.0.1:1\nwho b 127.0.0.1:1", 2000).contains("one line"));
}

#[test]
fn no_more_watch_than_may_and_who_ends_makes_room() {
    let sockets = Sockets::new();
    let mut config = NodeConfig::default();
    config.watches_max = 2;
    let _node = sockets.node_with("a", &[], config);
    let registry = sockets.registry("a");
    let watched = |service: &str| Watched { service: service.to_owned(), heard: 0 };
    let first = registry.watch(&watched("who")).wait().unwrap();
    let _second = registry.watch(&watched("other")).wait().unwrap();
    let third = registry.watch(&watched("who")).wait();
    assert_eq!(third.err(), Some(CallError::App(Refused::Busy)));
    drop(first);
    eventually("there is room again", || registry.watch(&watched("who")).wait().is_ok());
}

#[test]
fn a_server_that_cannot_be_registered_does_not_start_and_says_why() {
    let sockets = Sockets::new();
    let _node = sockets.node("a", &[]);
    let start = |address: &str, registrar: Registrar| {
        let server = Server::bind(address).service(Named("one").into_who()).register(registrar);
        match server.start() {
            Err(ServeError::Register(error)) => error.to_string(),
            Err(error) => panic!("{error}"),
            Ok(_) => panic!("it started"),
        }
    };
    let nobody = sockets.registrar(&["nobody"], "one").patience(Duration::from_millis(200));
    assert!(start("127.0.0.1:0", nobody).contains("`Registrar::patience`"));
    let nowhere = start("0.0.0.0:0", sockets.registrar(&["a"], "one"));
    assert!(nowhere.contains("`Registrar::advertise`"), "{nowhere}");
    let short = sockets.registrar(&["a"], "one").lease(Duration::from_millis(999));
    assert_eq!(start("127.0.0.1:0", short), "a lease has 1000 to 3600000 ms");
    assert!(sockets.names("a").is_empty());
}
