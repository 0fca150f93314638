//! Instances that an operator moves to other groups, over real sockets.

mod support;

use std::collections::BTreeSet;
use std::time::Duration;

use ringcall::cluster::discovery::{Instance, Listing, Wanted};
use ringcall::cluster::route::Groups;
use ringcall::cluster::{Balanced, Clients, Settings, Watch, Watching};
use ringcall::{BlockOn, CallError, Cause, Client, RunningServer, Server, ShardConfig, Status};
use ringcall_registry::{
    Centre, CentreConfig, Condition, Configuration as _, ConfigurationClient,
    ConfigurationReplication as _, Declined, GroupRules, Key, News, Node, NodeConfig, Placement,
    Put, Refused, Registered, Registrar, Registration, Registry as _, RegistryClient,
    RegistrySource, Remove, Replication as _, ReplicationClient, Said, Stamp, Tending, Watched,
    Withdrawal,
};
use support::{Folder, Named, Who as _, WhoClient, eventually};

const LEASE: Duration = Duration::from_secs(3);
const KEY: &str = "groups/who";
const TWO_IS_BLUE: &str = r#"[{"names": ["two"], "group": "blue"}]"#;

/// A node of a registry, with a centre or without.
struct Serving {
    server: Option<RunningServer>,
    node: Node,
    _tending: Vec<Tending>,
}

impl Serving {
    fn stop(mut self) {
        self.server.take().unwrap().stop();
    }
}

struct World(Folder);

impl World {
    fn new() -> World {
        World(Folder::new())
    }

    /// A node and a centre with these others.
    fn node(&self, name: &str, centre_peers: &[&str], peers: &[&str]) -> Serving {
        let mut config = CentreConfig::default();
        config.peers = self.0.addresses(centre_peers);
        config.directory = Some(self.0.path(&format!("{name}.d")));
        let centre = Centre::open(config).unwrap();
        let tending = centre.start(ShardConfig::default()).unwrap();
        let mut serving = self.node_of(name, peers, Some(centre));
        serving._tending.push(tending);
        serving
    }

    fn node_of(&self, name: &str, peers: &[&str], centre: Option<Centre>) -> Serving {
        let mut config = NodeConfig::default();
        config.peers = self.0.addresses(peers);
        config.centre.clone_from(&centre);
        let node = Node::new(config);
        let tending = node.start(ShardConfig::default()).unwrap();
        let mut server = Server::bind(self.0.address(name).as_str())
            .service(node.clone().into_registry())
            .service(node.clone().into_replication());
        if let Some(centre) = centre {
            server = server
                .service(centre.clone().into_configuration())
                .service(centre.into_configuration_replication());
        }
        Serving { server: Some(server.start().unwrap()), node, _tending: vec![tending] }
    }

    fn registry(&self, name: &str) -> RegistryClient<Client> {
        RegistryClient::connect(self.0.address(name).as_str()).wait().unwrap()
    }

    fn registrar(&self, nodes: &[&str], name: &str) -> Registrar {
        let registrar = Registrar::new(self.0.addresses(nodes), "who").name(name).lease(LEASE);
        registrar.linger(Duration::ZERO).describe(|mut instance| {
            instance.group = "green".into();
            instance
        })
    }

    /// A server of green.
    fn serve(&self, nodes: &[&str], name: &'static str) -> RunningServer {
        let server = Server::bind("127.0.0.1:0").service(Named(name).into_who()).group("green");
        server.register(self.registrar(nodes, name)).start().unwrap()
    }

    /// Puts a text, as soon as the node takes any.
    fn put(&self, node: &str, text: &str) -> Stamp {
        let operator =
            ConfigurationClient::<Client>::connect(self.0.address(node).as_str()).wait().unwrap();
        let put = Put { key: KEY.into(), text: text.into(), condition: Condition::Any };
        let mut version = None;
        eventually("the node takes settings", || match operator.put(&put).wait() {
            Ok(put) => {
                version = Some(put.to_owned());
                true
            }
            Err(CallError::App(Declined::Starting)) => false,
            Err(error) => panic!("{error}"),
        });
        version.unwrap()
    }

    fn remove(&self, node: &str) {
        let operator =
            ConfigurationClient::<Client>::connect(self.0.address(node).as_str()).wait().unwrap();
        let remove = Remove { key: KEY.into(), condition: Condition::Any };
        operator.remove(&remove).wait().unwrap();
    }

    fn rules(&self, node: &str) -> GroupRules {
        self.registry(node).group_rules(&"who".to_owned()).wait().unwrap().to_owned()
    }

    /// What a node says of its instances: `name group`.
    fn listed(&self, node: &str) -> BTreeSet<String> {
        let lines = self.registry(node).instances(&"who".to_owned()).wait().unwrap().to_owned();
        lines.iter().map(|line| name_and_group(line)).collect()
    }

    fn eventually_listed(&self, node: &str, expected: &[&str]) {
        let expected = set(expected);
        eventually(&format!("{node} has {expected:?}"), || self.listed(node) == expected);
    }

    /// Waits until this node has been told a few times that there is the second one, and that it is blue.
    fn hear_of_two(&self, node: &str) {
        let replication = ReplicationClient::<Client>::connect(self.0.address(node).as_str());
        let mut said = replication.wait().unwrap().replicate().wait().unwrap();
        let put = |said: Said| match said {
            Said::Put { instance, .. } => Some(name_and_group(&instance)),
            _ => None,
        };
        let puts = said.wait_each().filter_map(|said| put(said.unwrap().to_owned()));
        let mut of_two = puts.filter(|put| put.starts_with("two ")).take(5);
        assert!(of_two.all(|put| put == "two blue"));
    }

    fn caller(&self, nodes: &[&str]) -> (Balanced<Clients>, Watching) {
        let mut settings = Settings::new();
        settings.groups = Some(Groups::of("green"));
        let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
        let source = RegistrySource::start(self.0.addresses(nodes), "who").unwrap();
        let watch = Watch::new(Wanted::service("who")).start(source, balanced.clone()).unwrap();
        balanced.block_on(balanced.ready().within(Duration::from_secs(60))).unwrap();
        (balanced, watch)
    }
}

fn set(words: &[&str]) -> BTreeSet<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn name_and_group(line: &str) -> String {
    let mut words = line.split(' ');
    let name = words.nth(1).unwrap_or_default().to_owned();
    let group = words.find_map(|word| word.strip_prefix("group="));
    format!("{name} {}", group.unwrap_or("-"))
}

/// Whether there was no instance to ask.
fn is_nobody(asked: &Result<String, Cause>) -> bool {
    matches!(asked, Err(Cause::NoInstance { .. }))
}

/// Who answers a call to this group.
fn ask(caller: &Balanced<Clients>, group: &str) -> Result<String, Cause> {
    match WhoClient::new(caller.clone()).am_i().group(group).wait() {
        Ok(name) => Ok(name.to_owned()),
        Err(CallError::Failed(failure)) => Err(failure.cause),
        Err(error) => panic!("{error}"),
    }
}

/// What the server itself says to a call that somebody routes to this group.
fn routed_to(group: &str, server: &RunningServer) -> Result<String, Cause> {
    let mut settings = Settings::new();
    settings.groups = Some(Groups::of(group));
    let balanced = Balanced::new(Clients::new().unwrap(), settings).unwrap();
    let mut instance = Instance::new("who", "it", server.address().clone());
    instance.group = group.to_owned();
    balanced.apply(&Listing::of(1, [instance]));
    balanced.block_on(balanced.ready().within(Duration::from_secs(60))).unwrap();
    ask(&balanced, group)
}

#[test]
fn calls_go_where_an_instance_was_moved_and_none_is_answered_by_another_group() {
    let world = World::new();
    let _node = world.node("a", &[], &[]);
    let (_one, two) = (world.serve(&["a"], "one"), world.serve(&["a"], "two"));
    let (caller, _watching) = world.caller(&["a"]);
    assert!(is_nobody(&ask(&caller, "blue")));
    let mut green = BTreeSet::new();
    eventually("both are green", || {
        green.insert(ask(&caller, "green").unwrap());
        green == set(&["one", "two"])
    });

    world.put("a", TWO_IS_BLUE);
    // No call fails meanwhile: the server takes them before anybody hears of it.
    let mut answered = 0;
    eventually("there is a blue one", || {
        match ask(&caller, "blue") {
            Ok(name) => {
                assert_eq!(name, "two");
                answered += 1;
            }
            nobody => assert!(is_nobody(&nobody) && answered == 0, "{nobody:?} after {answered}"),
        }
        ask(&caller, "green").unwrap();
        answered == 100
    });
    for _ in 0..100 {
        assert_eq!(ask(&caller, "green"), Ok("one".to_owned()));
    }
    assert_eq!(two.group().get().as_deref(), Some("blue"));
    eventually("it refuses those who have not heard", || {
        routed_to("green", &two) == Err(Cause::Status(Status::WRONG_GROUP))
    });
    assert_eq!(routed_to("blue", &two), Ok("two".to_owned()));

    world.remove("a");
    green.clear();
    eventually("both are green again", || {
        green.insert(ask(&caller, "green").unwrap());
        green == set(&["one", "two"])
    });
    eventually("nobody is blue", || is_nobody(&ask(&caller, "blue")));
    assert_eq!(two.group().get().as_deref(), Some("green"));
    eventually("it refuses those who have not heard", || {
        routed_to("blue", &two) == Err(Cause::Status(Status::WRONG_GROUP))
    });
    let rules = world.rules("a");
    assert!(rules.version.is_some() && rules.rules == 0 && rules.refused.is_none());
}

#[test]
fn a_text_that_cannot_be_read_leaves_the_former_in_force_and_is_counted() {
    let world = World::new();
    let node = world.node("a", &[], &[]);
    assert_eq!(world.rules("a"), GroupRules::default());
    let first = world.put("a", TWO_IS_BLUE);
    let _two = world.serve(&["a"], "two");
    world.eventually_listed("a", &["two blue"]);

    let second = world.put("a", r#"[{"name": ["two"], "group": "red"}]"#);
    let rules = world.rules("a");
    assert_eq!((rules.version, rules.rules), (Some(first), 1));
    let refused = rules.refused.unwrap();
    assert!(refused.version == second && refused.what.contains("unknown field `name`"));
    // It is looked at once, however often it is asked for.
    let _one = world.serve(&["a"], "one");
    assert_eq!(node.node.counts().group_rules_refused, 1);
    assert_eq!(world.listed("a"), set(&["one green", "two blue"]));

    let third = world.put("a", r#"[{"names": ["one", "two"], "group": "red"}]"#);
    world.eventually_listed("a", &["one red", "two red"]);
    assert_eq!(world.rules("a"), GroupRules { version: Some(third), rules: 1, refused: None });
}

#[test]
fn nobody_ever_hears_of_another_group_of_a_server_that_starts_after_the_move() {
    let world = World::new();
    let _node = world.node("a", &[], &[]);
    world.put("a", TWO_IS_BLUE);
    let registry = world.registry("a");
    let watched = Watched { service: "who".into(), heard: 0 };
    let mut news = registry.watch(&watched).wait().unwrap();
    let mut next = || news.next_wait().unwrap().unwrap().to_owned();
    assert!(matches!(next(), News::All { instances, is_last: true, .. } if instances.is_empty()));
    let two = world.serve(&["a"], "two");
    let News::Put { instance, .. } = next() else { panic!("it was not put") };
    assert_eq!(name_and_group(&instance), "two blue");
    assert_eq!(two.group().get().as_deref(), Some("blue"));
    assert_eq!(routed_to("blue", &two), Ok("two".to_owned()));
    // There was nobody who could not have heard.
    assert_eq!(routed_to("green", &two), Err(Cause::Status(Status::WRONG_GROUP)));
}

#[test]
fn calls_to_the_group_before_are_served_for_a_while() {
    let world = World::new();
    let _node = world.node("a", &[], &[]);
    let server = Server::bind("127.0.0.1:0").service(Named("two").into_who()).group("green");
    let registrar = world.registrar(&["a"], "two").lease(5 * LEASE);
    let two = server.register(registrar).start().unwrap();
    world.put("a", TWO_IS_BLUE);
    world.eventually_listed("a", &["two blue"]);
    for group in ["green", "blue"] {
        assert_eq!(routed_to(group, &two), Ok("two".to_owned()));
    }
    assert_eq!(routed_to("red", &two), Err(Cause::Status(Status::WRONG_GROUP)));
}

#[test]
fn a_node_that_does_not_know_or_has_not_heard_moves_nobody() {
    let world = World::new();
    let all = ["knows", "has-none", "is-behind"];
    // The last one's centre does not hear of the first one's.
    let behind = world.node("is-behind", &[], &all);
    world.put("is-behind", r#"[{"names": ["two"], "group": "red"}]"#);
    behind.stop();
    let knows = world.node("knows", &[], &all);
    let version = world.put("knows", TWO_IS_BLUE);
    let two = world.serve(&all, "two");
    assert_eq!(two.group().get().as_deref(), Some("blue"));

    let has_none = world.node_of("has-none", &all, None);
    let _one = world.serve(&["has-none"], "one");
    for node in ["knows", "has-none"] {
        // What a node that does not know was told it tells.
        world.eventually_listed(node, &["one green", "two blue"]);
    }
    let line = "who two 127.0.0.1:1".to_owned();
    let placed = Some(Placement { version, group: Some("blue".to_owned()) });
    assert_eq!(world.registry("knows").placement(&line).wait().unwrap().to_owned(), placed);
    assert_eq!(world.registry("has-none").placement(&line).wait().unwrap().to_owned(), None);
    assert_eq!(world.rules("has-none"), GroupRules::default());

    // It goes to another node, and to another one, and what it says there is the same.
    knows.stop();
    world.hear_of_two("has-none");
    let behind = world.node("is-behind", &[], &all);
    world.eventually_listed("is-behind", &["one green", "two blue"]);
    has_none.stop();
    world.hear_of_two("is-behind");
    assert_eq!(two.group().get().as_deref(), Some("blue"));
    behind.stop();
}

/// What a node answered before there were placements.
#[ringcall::message]
#[derive(Clone, Debug)]
struct OldRegistered {
    registered_ms: u64,
    renew_ms: u32,
}

#[ringcall::service(name = "ringcall-registry.Registry")]
trait OldRegistry {
    #[method(idempotent)]
    async fn register(&self, registration: Registration) -> Result<OldRegistered, Refused>;
    #[method(idempotent)]
    async fn withdraw(&self, withdrawal: Withdrawal);
}

struct OldNode;

impl OldRegistry for OldNode {
    async fn register(&self, _: Registration) -> Result<OldRegistered, Refused> {
        Ok(OldRegistered { registered_ms: 1, renew_ms: 1000 })
    }

    async fn withdraw(&self, _: Withdrawal) {}
}

#[test]
fn older_nodes_and_older_instances_are_understood() {
    let world = World::new();
    let address = world.0.address("old");
    let _old = Server::bind(address.as_str()).service(OldNode.into_old_registry()).start().unwrap();
    let one = world.serve(&["old"], "one");
    assert_eq!(one.group().get().as_deref(), Some("green"));

    let _node = world.node("a", &[], &[]);
    world.put("a", TWO_IS_BLUE);
    let old = OldRegistryClient::<Client>::connect(world.0.address("a").as_str()).wait().unwrap();
    let registration = Registration {
        instance: "who two 127.0.0.1:1 group=green".to_owned(),
        lease_ms: 60_000,
        incarnation: 1,
        registered_ms: None,
    };
    let registered = old.register(&registration).wait().unwrap().to_owned();
    assert_eq!(registered.renew_ms, 20_000);
    // It does not hear of it, so nobody does.
    assert_eq!(world.listed("a"), set(&["two green"]));
    let same = world.registry("a").register(&registration).wait().unwrap().to_owned();
    let Registered { placed, .. } = same;
    assert_eq!(placed.and_then(|placed| placed.group).as_deref(), Some("blue"));
    let key = Key { service: "who".into(), name: "two".into() };
    let withdrawal = Withdrawal { key, incarnation: 1, lease_ms: 60_000 };
    old.withdraw(&withdrawal).wait().unwrap();
    assert_eq!(world.listed("a"), set(&[]));
}
