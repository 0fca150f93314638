//! An operator moves instances between groups in a simulated network, under every fault: no node says of an instance what its server
//! has not heard, and when the network heals all are where they are to be.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringcall::cluster::discovery::Instance;
use ringcall::sim::Fault;
use ringcall::{Address, CallError, MachineClock, ServedGroup, Shard, SpanIds as _, sim};
use ringcall_registry::{
    Centre, CentreConfig, Condition, Configuration as _, ConfigurationClient,
    ConfigurationReplication as _, Declined, Kept, Node, NodeConfig, Put, Registrar, Registry as _,
    RegistryClient, Remove, Replication as _, Stamp,
};
use support::Folder;

const NODES: [&str; 3] = ["registry-1", "registry-2", "registry-3"];
const INSTANCES: [&str; 3] = ["one", "two", "three"];
const LEASE: Duration = Duration::from_secs(6);
const KEY: &str = "groups/quotes";

thread_local! {
    /// A world is one thread, and all its nodes ask this.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// A wall clock that goes on, and jumps back and forth by up to a minute.
fn wall_clock_ms() -> u64 {
    ASKED.set(ASKED.get() + 5);
    1_700_000_000_000 + ASKED.get() + MachineClock.next_span_id() % 60_000
}

/// The process of an instance, and the groups that its server has ever been moved to.
struct Process {
    group: ServedGroup,
    ever: BTreeSet<String>,
}

/// Those of all lives by their addresses, and where the last of each is.
#[derive(Default)]
struct Processes {
    all: BTreeMap<String, Process>,
    last: BTreeMap<&'static str, String>,
}

impl Processes {
    fn look(&mut self) {
        for process in self.all.values_mut() {
            process.ever.extend(process.group.get().map(|group| group.as_ref().to_owned()));
        }
    }
}

type Shared = Rc<RefCell<Processes>>;

fn node(shard: &Shard, disks: &Folder, name: &str) -> Result<(), ringcall::ServeError> {
    let mut config = CentreConfig::default();
    config.peers = NODES.map(str::to_owned).to_vec();
    config.directory = Some(disks.path(name));
    config.wall_clock_ms = wall_clock_ms;
    let centre = Centre::open(config).unwrap_or_else(|error| panic!("{error}"));
    centre.tend(shard);
    let mut config = NodeConfig::default();
    config.peers = NODES.map(str::to_owned).to_vec();
    config.orphans = Duration::from_secs(20);
    config.wall_clock_ms = wall_clock_ms;
    config.centre = Some(centre.clone());
    let node = Node::new(config);
    node.tend(shard);
    shard.serve(node.clone().into_registry())?;
    shard.serve(node.into_replication())?;
    shard.serve(centre.clone().into_configuration())?;
    shard.serve(centre.into_configuration_replication())
}

fn keep(shard: &Shard, name: &'static str, port: u16, processes: &Shared) -> Kept {
    let address: Address = format!("10.0.0.1:{port}").parse().expect("an address");
    let group = shard.served_group();
    let mut processes = processes.borrow_mut();
    let process = Process { group: group.clone(), ever: BTreeSet::new() };
    processes.all.insert(address.to_string(), process);
    processes.last.insert(name, address.to_string());
    let described = |mut instance: Instance| {
        instance.group = "green".to_owned();
        instance
    };
    let registrar = Registrar::new(NODES, "quotes").name(name).lease(LEASE).describe(described);
    registrar.group(group).keep_on(shard, &address).expect("an instance")
}

/// The groups that a text says, of each instance that it moves.
type Moves = BTreeMap<String, String>;

fn text(moves: &Moves) -> String {
    let rule = |(name, group)| format!(r#"{{"names": ["{name}"], "group": "{group}"}}"#);
    format!("[{}]", moves.iter().map(rule).collect::<Vec<_>>().join(","))
}

/// Changes where the instances are, or says nothing of them any more; says whether that was acknowledged.
async fn put(shard: &Shard, node: &str, moves: Option<&Moves>) -> Option<Stamp> {
    let operator = ConfigurationClient::new(shard.connect(node).await.ok()?);
    let (key, condition) = (KEY.to_owned(), Condition::Any);
    let put = match moves {
        Some(moves) => {
            operator.put(&Put { key, text: text(moves), condition }).await.map(|it| it.to_owned())
        }
        None => operator.remove(&Remove { key, condition }).await.map(|it| it.to_owned()),
    };
    match put {
        Ok(version) => Some(version),
        Err(CallError::App(Declined::Starting | Declined::NoSuchKey)) => None,
        Err(CallError::App(declined)) => panic!("{declined}"),
        Err(_) => None,
    }
}

/// What a node says of instances: `address group` of each; `None` if it does not say.
async fn listed(shard: &Shard, node: &str) -> Option<BTreeSet<(String, String)>> {
    let registry = RegistryClient::new(shard.connect(node).await.ok()?);
    let lines = registry.instances(&"quotes".to_owned()).await.ok()?.to_owned();
    let instance = |line: &String| {
        let mut words = line.split(' ').skip(2);
        let address = words.next()?.to_owned();
        Some((address, words.find_map(|word| word.strip_prefix("group="))?.to_owned()))
    };
    Some(lines.iter().filter_map(instance).collect())
}

/// What a node has in force; `None` if it does not say.
async fn in_force(shard: &Shard, node: &str) -> Option<Option<Stamp>> {
    let registry = RegistryClient::new(shard.connect(node).await.ok()?);
    Some(registry.group_rules(&"quotes".to_owned()).await.ok()?.to_owned().version)
}

/// No node says of an instance that it is in a group that its server has not been moved to.
async fn check(shard: &Shard, processes: &Shared) {
    for node in NODES {
        let Some(listed) = listed(shard, node).await else { continue };
        processes.borrow_mut().look();
        let processes = processes.borrow();
        for (address, group) in listed {
            let is_own = group == "green";
            let has_heard = is_own || processes.all[&address].ever.contains(&group);
            assert!(has_heard, "{node} says that {address} is in {group}, whose server is not");
        }
    }
}

/// Waits until all nodes have this version in force, and all instances are where they are to be.
async fn agree(shard: &Shard, version: Stamp, moves: &Moves, processes: &Shared) {
    let mut seen = Vec::new();
    for _ in 0..600 {
        let expected: BTreeSet<_> = {
            let processes = processes.borrow();
            let green = "green".to_owned();
            let place = |(name, address): (&&str, &String)| {
                (address.clone(), moves.get(*name).unwrap_or(&green).clone())
            };
            processes.last.iter().map(place).collect()
        };
        seen.clear();
        for node in NODES {
            seen.push((in_force(shard, node).await, listed(shard, node).await));
        }
        let is_so = |(in_force, listed): &(Option<Option<Stamp>>, Option<BTreeSet<_>>)| {
            *in_force == Some(Some(version)) && listed.as_ref() == Some(&expected)
        };
        if seen.iter().all(is_so) {
            let processes = processes.borrow();
            // Some of these may have crashed since: another life has not heard yet.
            for (address, expected) in &expected {
                let group = processes.all[address].group.get();
                assert_eq!(group.as_deref().unwrap_or("green"), expected, "{address}");
            }
            return;
        }
        shard.sleep(Duration::from_millis(250)).await;
    }
    panic!("the nodes do not agree on {moves:?} of {version}: {seen:?}");
}

/// Puts this at some node until that is acknowledged.
async fn put_for_good(shard: &Shard, moves: Option<&Moves>) -> Stamp {
    for time in 0..300 {
        if let Some(version) = put(shard, NODES[time % 3], moves).await {
            return version;
        }
        shard.sleep(Duration::from_millis(500)).await;
    }
    panic!("no node takes settings");
}

fn some_moves() -> Moves {
    let mut moves = Moves::new();
    for name in INSTANCES {
        match MachineClock.next_span_id() % 3 {
            0 => moves.insert(name.to_owned(), "blue".to_owned()),
            1 => moves.insert(name.to_owned(), "red".to_owned()),
            _ => None,
        };
    }
    moves
}

fn run(seeds: std::ops::Range<u64>) {
    sim::check(seeds, |world| {
        ASKED.set(0);
        // Sockets of 16 bytes make each of the many questions take seconds.
        world.without(Fault::SmallSockets).chaos(Duration::from_secs(30));
        let disks = Rc::new(Folder::new());
        for name in NODES {
            let disks = Rc::clone(&disks);
            world.server(name, move |shard| node(shard, &disks, name));
        }
        let processes = Shared::default();
        for (number, name) in INSTANCES.into_iter().enumerate() {
            let kept: RefCell<Option<Kept>> = RefCell::default();
            let (processes, life) = (Rc::clone(&processes), Cell::new(0));
            world.server(name, move |shard| {
                life.set(life.get() + 1);
                let port = 7000 + 1000 * number as u16 + life.get();
                // The life before has ended without a word.
                drop(kept.replace(Some(keep(shard, name, port, &processes))));
                Ok(())
            });
        }
        let watched = Rc::clone(&processes);
        world.client("watcher", |shard| async move {
            // Servers learn of it one after another, and not as fast as this.
            for _ in 0..6000 {
                watched.borrow_mut().look();
                shard.sleep(Duration::from_millis(10)).await;
            }
        });
        world.client("operator", |shard| async move {
            for _ in 0..12 {
                let choice = MachineClock.next_span_id();
                let moves = some_moves();
                let moves = (!choice.is_multiple_of(5)).then_some(&moves);
                put(&shard, NODES[(choice / 5 % 3) as usize], moves).await;
                check(&shard, &processes).await;
                shard.sleep(Duration::from_millis(choice / 15 % 4000)).await;
                check(&shard, &processes).await;
            }
            // Whatever was put and not acknowledged comes before what is put when all agree.
            shard.sleep(Duration::from_secs(60)).await;
            let moves = some_moves();
            let version = put_for_good(&shard, Some(&moves)).await;
            agree(&shard, version, &moves, &processes).await;
            let version = put_for_good(&shard, None).await;
            agree(&shard, version, &Moves::new(), &processes).await;
        });
    });
}

// Seeds up to 300 were run.
#[test]
fn instances_are_where_they_are_to_be_when_the_network_heals_and_no_node_knows_before_they_do() {
    run(0..40);
}
