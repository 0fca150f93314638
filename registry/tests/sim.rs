//! Three nodes and their instances in a simulated network, under every fault: when it heals, all nodes know the same, and
//! that is what is there.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;
use std::time::Duration;

use ringcall::cluster::Clock as _;
use ringcall::cluster::discovery::{Discovery, DiscoveryConfig, Listed, Source as _, Wanted};
use ringcall::sim::Fault;
use ringcall::{Address, MachineClock, Shard, SpanIds as _, sim};
use ringcall_registry::{
    Kept, Node, NodeConfig, Registrar, Registry as _, RegistryClient, RegistrySource,
    Replication as _,
};

const NODES: [&str; 3] = ["registry-1", "registry-2", "registry-3"];
const INSTANCES: [&str; 3] = ["one", "two", "three"];
const LEASE: Duration = Duration::from_secs(6);

thread_local! {
    /// A world is one thread, and all its nodes ask this.
    static ASKED: Cell<u64> = const { Cell::new(0) };
}

/// A wall clock that goes on, and jumps back and forth by up to a minute.
fn wall_clock_ms() -> u64 {
    ASKED.set(ASKED.get() + 5);
    1_700_000_000_000 + ASKED.get() + MachineClock.next_span_id() % 60_000
}

fn registrar(name: &str) -> Registrar {
    Registrar::new(NODES, "quotes").name(name).lease(LEASE)
}

fn address(port: u16) -> Address {
    format!("10.0.0.1:{port}").parse().expect("an address")
}

/// The instances that a node has, `name@address`; `None` if it does not say.
async fn names(shard: &Shard, node: &str) -> Option<BTreeSet<String>> {
    let registry = RegistryClient::new(shard.connect(node).await.ok()?);
    let lines = registry.instances(&"quotes".to_owned()).await.ok()?;
    let instance = |line: &str| {
        let mut words = line.split(' ').skip(1);
        Some(format!("{}@{}", words.next()?, words.next()?))
    };
    Some(lines.iter().filter_map(|line| instance(line)).collect())
}

/// Where the instances are that have lives: at another port in each.
type Ports = Rc<RefCell<BTreeMap<&'static str, u16>>>;

fn expected(ports: &Ports, more: &[&str]) -> BTreeSet<String> {
    let lives = ports.borrow().iter().map(|(name, port)| at(name, *port)).collect::<Vec<_>>();
    lives.into_iter().chain(more.iter().map(|name| (*name).to_owned())).collect()
}

fn at(name: &str, port: u16) -> String {
    format!("{name}@{}", address(port))
}

/// Waits until all nodes have exactly those that there are, and these.
async fn agree(shard: &Shard, ports: &Ports, more: &[&str]) {
    let mut seen = Vec::new();
    for _ in 0..300 {
        seen.clear();
        for node in NODES {
            seen.push(names(shard, node).await);
        }
        let expected = expected(ports, more);
        if seen.iter().all(|names| names.as_ref() == Some(&expected)) {
            return;
        }
        shard.sleep(Duration::from_millis(250)).await;
    }
    panic!("the nodes do not agree on {:?}: {seen:?}", expected(ports, more));
}

fn run(seeds: std::ops::Range<u64>) {
    sim::check(seeds, |world| {
        ASKED.set(0);
        // Sockets of 16 bytes make each of the many questions below take seconds.
        world.without(Fault::SmallSockets).chaos(Duration::from_secs(30));
        for name in NODES {
            world.server(name, |shard| {
                let mut config = NodeConfig::default();
                config.peers = NODES.map(str::to_owned).to_vec();
                config.orphans = Duration::from_secs(20);
                config.wall_clock_ms = wall_clock_ms;
                let node = Node::new(config);
                node.tend(shard);
                shard.serve(node.clone().into_registry())?;
                shard.serve(node.into_replication())
            });
        }
        let ports = Ports::default();
        for (number, name) in INSTANCES.into_iter().enumerate() {
            let kept: RefCell<Option<Kept>> = RefCell::default();
            let (ports, life) = (Rc::clone(&ports), Cell::new(0));
            world.server(name, move |shard| {
                life.set(life.get() + 1);
                let port = 7000 + 1000 * number as u16 + life.get();
                ports.borrow_mut().insert(name, port);
                let address = address(port);
                let now = registrar(name).keep_on(shard, &address).expect("an instance");
                // The life before has ended without a word.
                drop(kept.replace(Some(now)));
                Ok(())
            });
        }
        world.client("caller", |shard| async move {
            let mut source = RegistrySource::on(&shard, NODES, "quotes");
            let discovery = Discovery::new(Wanted::service("quotes"), DiscoveryConfig::default());
            let mut discovery = discovery.expect("the defaults make sense");

            let four = registrar("four").keep_on(&shard, &address(6999)).expect("an instance");
            shard.sleep(Duration::from_secs(10)).await;
            agree(&shard, &ports, &[&at("four", 6999)]).await;
            drop(four);
            agree(&shard, &ports, &[]).await;

            // It does not come back, and nobody is lost, whoever still has something to say of before.
            for _ in 0..20 {
                shard.sleep(Duration::from_secs(1)).await;
                for node in NODES {
                    let names = names(&shard, node).await;
                    let is_back = |names: BTreeSet<String>| names.contains(&at("four", 6999));
                    assert!(!names.is_some_and(is_back), "it had left");
                }
            }
            agree(&shard, &ports, &[]).await;

            // A caller has the same list in the end.
            let mut listed = BTreeSet::new();
            for _ in 0..600 {
                let now = MachineClock.now();
                while let Some(update) = source.poll_update(now) {
                    discovery.handle_update(now, update);
                }
                discovery.handle_timeout(now);
                let listing = discovery.listing().clone();
                let instance =
                    |it: &Listed| format!("{}@{}", it.instance.name, it.instance.address);
                listed = listing.instances.iter().map(instance).collect();
                if listed == expected(&ports, &[]) {
                    return;
                }
                shard.sleep(Duration::from_millis(250)).await;
            }
            panic!("a caller has {listed:?}");
        });
    });
}

// Seeds up to 600 were run. Seed 94 is a registration that arrives behind the withdrawal of its own process. Seed 34 is a clock that jumps by an hour: a node forgot everything, and what others told it of instances that were still
// there had only their names.
#[test]
fn g05_nodes_agree_on_what_is_there_when_the_network_heals() {
    run(0..100);
}
