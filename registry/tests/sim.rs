//! Three nodes and their instances in a simulated network, under every fault: when it heals, all nodes know the same, and
//! that is what is there.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::time::Duration;

use ringcall::cluster::Clock as _;
use ringcall::cluster::discovery::{Discovery, DiscoveryConfig, Source as _, Wanted};
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

/// The names of the instances that a node has; `None` if it does not say.
async fn names(shard: &Shard, node: &str) -> Option<BTreeSet<String>> {
    let registry = RegistryClient::new(shard.connect(node).await.ok()?);
    let lines = registry.instances(&"quotes".to_owned()).await.ok()?;
    Some(lines.iter().filter_map(|line| Some(line.split(' ').nth(1)?.to_owned())).collect())
}

/// Waits until all nodes have exactly these.
async fn agree(shard: &Shard, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let mut seen = Vec::new();
    for _ in 0..300 {
        seen.clear();
        for node in NODES {
            seen.push(names(shard, node).await);
        }
        if seen.iter().all(|names| names.as_ref() == Some(&expected)) {
            return;
        }
        shard.sleep(Duration::from_millis(250)).await;
    }
    panic!("the nodes do not agree on {expected:?}: {seen:?}");
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
        for (number, name) in INSTANCES.into_iter().enumerate() {
            let kept: RefCell<Option<Kept>> = RefCell::default();
            world.server(name, move |shard| {
                let address = address(7000 + number as u16);
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

            let four = registrar("four").keep_on(&shard, &address(7004)).expect("an instance");
            shard.sleep(Duration::from_secs(10)).await;
            agree(&shard, &["four", "one", "three", "two"]).await;
            drop(four);
            agree(&shard, &INSTANCES).await;

            // It does not come back, and nobody is lost, whoever still has something to say of before.
            for _ in 0..20 {
                shard.sleep(Duration::from_secs(1)).await;
                for node in NODES {
                    let names = names(&shard, node).await;
                    assert!(names.is_none_or(|names| !names.contains("four")), "it had left");
                }
            }
            agree(&shard, &INSTANCES).await;

            // A caller has the same list in the end.
            let expected: BTreeSet<&str> = INSTANCES.into_iter().collect();
            let mut listed = BTreeSet::new();
            for _ in 0..600 {
                let now = MachineClock.now();
                while let Some(update) = source.poll_update(now) {
                    discovery.handle_update(now, update);
                }
                discovery.handle_timeout(now);
                let listing = discovery.listing().clone();
                listed = listing.instances.iter().map(|it| it.instance.name.clone()).collect();
                if listed.iter().map(String::as_str).eq(expected.iter().copied()) {
                    return;
                }
                shard.sleep(Duration::from_millis(250)).await;
            }
            panic!("a caller has {listed:?}");
        });
    });
}

// Seeds up to 700 were run. Seed 34 is a clock that jumps by an hour: a node forgot everything, and what others told it of
// instances that were still there had only their names.
#[test]
fn g05_nodes_agree_on_what_is_there_when_the_network_heals() {
    run(0..40);
}
