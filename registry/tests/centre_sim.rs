//! Three nodes of a centre in a simulated network, under every fault, with directories that outlive them: what was acknowledged
//! is there in the end, on all of them, unless something later is.

mod support;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::rc::Rc;
use std::time::Duration;

use ringcall::sim::Fault;
use ringcall::{CallError, MachineClock, Shard, SpanIds as _, sim};
use ringcall_registry::{
    Centre, CentreConfig, Condition, ConfigWatch, Configuration as _, ConfigurationClient,
    ConfigurationReplication as _, Declined, Put, Remove, Stamp,
};
use support::{Folder, files};

const NODES: [&str; 3] = ["centre-1", "centre-2", "centre-3"];
const KEYS: [&str; 3] = ["one", "two", "three"];

thread_local! {
    /// A world is one thread, and all its nodes ask this.
    static ASKED: Cell<u64> = const { Cell::new(0) };
    static IS_SET: Cell<bool> = const { Cell::new(false) };
}

/// A wall clock that goes on, and jumps back and forth by up to a minute.
fn wall_clock_ms() -> u64 {
    ASKED.set(ASKED.get() + 5);
    1_700_000_000_000 + ASKED.get() + MachineClock.next_span_id() % 60_000
}

/// A wall clock that is right, and the same everywhere: somebody counts the [seconds](count).
fn right_clock_ms() -> u64 {
    1_700_000_000_000 + 1000 * ASKED.get()
}

/// One that is wrong until it is set, as that of a machine that has just started may be.
fn unset_clock_ms() -> u64 {
    if IS_SET.get() { right_clock_ms() } else { 1000 }
}

/// One that is right until it is set, to a month later.
fn jumping_clock_ms() -> u64 {
    right_clock_ms() + if IS_SET.get() { 31 * 24 * 3600 * 1000 } else { 0 }
}

async fn count(shard: Shard) {
    loop {
        shard.sleep(Duration::from_secs(1)).await;
        ASKED.set(ASKED.get() + 1);
    }
}

/// What somebody has asked for: a text, or that there is none.
type Text = Option<String>;

/// What was asked for of a key, and what was acknowledged.
#[derive(Default)]
struct Asked {
    all: Vec<Text>,
    acknowledged: BTreeMap<Stamp, Text>,
}

#[derive(Default)]
struct Oracle(BTreeMap<&'static str, Asked>);

impl Oracle {
    /// What a node has of a key may be: nothing is lost that was acknowledged, unless something later is there that was
    /// asked for.
    fn check(&self, key: &str, there: Option<&(Stamp, String)>) -> Result<(), String> {
        let Some(Asked { all, acknowledged }) = self.0.get(key) else { return Ok(()) };
        let text = there.map(|(_, text)| text.clone());
        if text.is_some() && !all.contains(&text) {
            return Err(format!("{text:?} was never put as {key}"));
        }
        let Some((last, expected)) = acknowledged.last_key_value() else { return Ok(()) };
        let version = there.map(|(version, _)| *version);
        let is_lost = match version {
            Some(version) => version < *last || (version == *last && text != *expected),
            // A removal has no version that could be read; one must have been asked for.
            None => expected.is_some() && !all.contains(&None),
        };
        if is_lost {
            return Err(format!("{expected:?} was acknowledged as {last}, there is {there:?}"));
        }
        Ok(())
    }
}

/// Somebody who puts and removes settings, at any node.
async fn operate(shard: Shard, number: u64, oracle: Rc<RefCell<Oracle>>) {
    for time in 0..12 {
        let choice = MachineClock.next_span_id();
        let node = NODES[(choice % 3) as usize];
        // One of them removes the last key now and then, the others are only put.
        let key = KEYS[(choice / 3 % 3) as usize];
        let is_removal = key == KEYS[2] && (choice / 9).is_multiple_of(4);
        let text = (!is_removal).then(|| format!("{number}: {time}"));
        oracle.borrow_mut().0.entry(key).or_default().all.push(text.clone());
        if let Some(version) = change(&shard, node, key, text.clone()).await {
            let mut oracle = oracle.borrow_mut();
            oracle.0.entry(key).or_default().acknowledged.insert(version, text);
        }
        shard.sleep(Duration::from_millis(choice / 36 % 4000)).await;
    }
}

async fn change(shard: &Shard, node: &str, key: &str, text: Text) -> Option<Stamp> {
    let operator = ConfigurationClient::new(shard.connect(node).await.ok()?);
    let (key, condition) = (key.to_owned(), Condition::Any);
    let changed = match text {
        Some(text) => operator.put(&Put { key, text, condition }).await.map(|it| it.to_owned()),
        None => operator.remove(&Remove { key, condition }).await.map(|it| it.to_owned()),
    };
    match changed {
        Ok(version) => Some(version),
        Err(CallError::App(Declined::Starting | Declined::NoSuchKey)) => None,
        Err(CallError::App(declined)) => panic!("{declined}"),
        Err(_) => None,
    }
}

type All = BTreeMap<String, (Stamp, String)>;

/// What a node has; `None` if it does not say.
async fn all(shard: &Shard, node: &str) -> Option<All> {
    let centre = ConfigurationClient::new(shard.connect(node).await.ok()?);
    let mut all = All::new();
    for key in KEYS {
        match centre.get(&key.to_owned()).await {
            Ok(setting) => {
                let setting = setting.to_owned();
                all.insert(setting.key, (setting.version, setting.text));
            }
            Err(CallError::App(Declined::NoSuchKey)) => {}
            Err(_) => return None,
        }
    }
    Some(all)
}

/// Waits until all nodes have the same, and says what.
async fn agreed(shard: &Shard) -> All {
    let mut seen = Vec::new();
    for _ in 0..300 {
        seen.clear();
        for node in NODES {
            seen.push(all(shard, node).await);
        }
        if let [Some(first), Some(second), Some(third)] = &seen[..]
            && first == second
            && second == third
        {
            return first.clone();
        }
        shard.sleep(Duration::from_millis(250)).await;
    }
    panic!("the nodes do not agree: {seen:?}");
}

fn serve(shard: &Shard, config: CentreConfig) -> Result<(), ringcall::ServeError> {
    // What was written is as it was, whenever the node has crashed.
    let centre = Centre::open(config).unwrap_or_else(|error| panic!("{error}"));
    centre.tend(shard);
    shard.serve(centre.clone().into_configuration())?;
    shard.serve(centre.into_configuration_replication())
}

fn run(seeds: std::ops::Range<u64>) {
    sim::check(seeds, |world| {
        ASKED.set(0);
        // Sockets of 16 bytes make each of the many questions below take seconds.
        world.without(Fault::SmallSockets).chaos(Duration::from_secs(30));
        let disks = Rc::new(Folder::new());
        for name in NODES {
            let disks = Rc::clone(&disks);
            world.server(name, move |shard| {
                let mut config = CentreConfig::default();
                config.peers = NODES.map(str::to_owned).to_vec();
                config.directory = Some(disks.path(name));
                config.wall_clock_ms = wall_clock_ms;
                serve(shard, config)
            });
        }
        let (oracle, done) = (Rc::new(RefCell::new(Oracle::default())), Rc::new(Cell::new(0)));
        for number in 0..2 {
            let (oracle, done) = (Rc::clone(&oracle), Rc::clone(&done));
            world.client(&format!("operator {number}"), move |shard| async move {
                operate(shard, number, oracle).await;
                done.set(done.get() + 1);
            });
        }
        world.client("follower", move |shard| async move {
            let in_force = Rc::new(RefCell::new(None));
            let taken = Rc::clone(&in_force);
            let apply = move |text: &str| {
                *taken.borrow_mut() = Some(text.to_owned());
                Ok::<(), String>(())
            };
            let follows = ConfigWatch::new(NODES, KEYS[0]).start_on(&shard, apply);
            let follows = follows.expect("there are addresses");
            while done.get() < 2 {
                shard.sleep(Duration::from_millis(500)).await;
            }
            // In the end nothing changes any more, and all have the same.
            let there = agreed(&shard).await;
            for key in KEYS {
                if let Err(wrong) = oracle.borrow().check(key, there.get(key)) {
                    panic!("{wrong}");
                }
            }
            for _ in 0..600 {
                let expected = there.get(KEYS[0]).map(|(version, _)| *version);
                if follows.in_force().map(|it| it.version) == expected {
                    let text = there.get(KEYS[0]).map(|(_, text)| text);
                    assert_eq!(in_force.borrow().as_ref(), text);
                    return;
                }
                shard.sleep(Duration::from_millis(250)).await;
            }
            panic!("who follows has {:?} of {there:?}", follows.in_force());
        });
    });
}

#[test]
fn g20_what_was_acknowledged_is_there_on_all_nodes_when_the_network_heals() {
    run(0..40);
}

/// Two nodes that know of these, of which one is told that a key is removed: how many removed keys each remembers minutes later.
fn remembered(seeds: std::ops::Range<u64>, peers: &'static [&'static str], expected: usize) {
    sim::check(seeds, |world| {
        ASKED.set(0);
        // A clock that jumps is an hour in which nobody has heard of anything.
        world.without(Fault::SmallSockets).without(Fault::ClockJump);
        world.chaos(Duration::from_secs(30));
        let disks = Rc::new(Folder::new());
        for name in &NODES[..2] {
            let disks = Rc::clone(&disks);
            world.server(name, move |shard| {
                let mut config = CentreConfig::default();
                config.peers = peers.iter().map(|name| (*name).to_owned()).collect();
                config.directory = Some(disks.path(name));
                (config.memory, config.heard) = (Duration::from_secs(60), Duration::from_secs(20));
                config.wall_clock_ms = right_clock_ms;
                serve(shard, config)
            });
        }
        world.client("operator", move |shard| async move {
            shard.spawn(count(shard.clone()));
            let key = KEYS[0];
            while change(&shard, NODES[0], key, Some("1".to_owned())).await.is_none() {
                shard.sleep(Duration::from_secs(1)).await;
            }
            while change(&shard, NODES[0], key, None).await.is_none() {
                shard.sleep(Duration::from_secs(1)).await;
                // It may have been removed without an answer.
                if all(&shard, NODES[0]).await.is_some_and(|all| all.is_empty()) {
                    break;
                }
            }
            shard.sleep(Duration::from_secs(150)).await;
            for node in &NODES[..2] {
                let kept = files(&disks.path(node), ".setting");
                assert_eq!(kept.len(), expected, "{node}");
                assert_eq!(all(&shard, node).await, Some(All::new()));
            }
        });
    });
}

#[test]
fn a_removed_key_is_forgotten_once_all_have_heard_so_for_long() {
    remembered(0..20, &NODES[..2], 0);
}

#[test]
fn g20_a_removed_key_is_remembered_while_a_peer_cannot_be_heard() {
    // Where the operator is, nobody serves.
    remembered(0..20, &[NODES[0], NODES[1], "operator"], 1);
}

/// Serves two nodes that know of these.
fn two(
    world: &mut sim::World,
    peers: [&'static [&'static str]; 2],
    clocks: [fn() -> u64; 2],
) -> Rc<Folder> {
    ASKED.set(0);
    IS_SET.set(false);
    world.chaos(Duration::ZERO);
    let disks = Rc::new(Folder::new());
    for ((name, peers), clock) in NODES.into_iter().zip(peers).zip(clocks) {
        let disks = Rc::clone(&disks);
        world.server(name, move |shard| {
            let mut config = CentreConfig::default();
            config.peers = peers.iter().map(|name| (*name).to_owned()).collect();
            config.directory = Some(disks.path(name));
            config.heard = Duration::from_secs(60);
            config.wall_clock_ms = clock;
            serve(shard, config)
        });
    }
    disks
}

async fn changed(shard: &Shard, node: &str, key: &str, text: Option<&str>) {
    while change(shard, node, key, text.map(str::to_owned)).await.is_none() {
        shard.sleep(Duration::from_secs(1)).await;
    }
}

#[test]
fn what_was_not_taken_for_a_clock_that_was_wrong_is_taken_when_it_is_right() {
    sim::check(0..5, |world| {
        let _disks = two(world, [&NODES[..2]; 2], [right_clock_ms, unset_clock_ms]);
        world.client("operator", |shard| async move {
            shard.spawn(count(shard.clone()));
            changed(&shard, NODES[0], KEYS[0], Some("1")).await;
            shard.sleep(Duration::from_secs(20)).await;
            assert_eq!(all(&shard, NODES[1]).await, Some(All::new()));
            IS_SET.set(true);
            shard.sleep(Duration::from_secs(120)).await;
            let there = all(&shard, NODES[0]).await;
            assert_eq!(all(&shard, NODES[1]).await, there);
        });
    });
}

/// How many removed keys the first node remembers.
async fn removed(shard: &Shard) -> u64 {
    let client = shard.connect(NODES[0]).await.expect("it serves");
    let status = ConfigurationClient::new(client).status().await;
    status.expect("it answers").to_owned().removed
}

#[test]
fn g20_a_clock_that_jumps_makes_no_node_forget_what_others_have_not_heard() {
    sim::check(0..5, |world| {
        let _disks = two(world, [&NODES[..2]; 2], [jumping_clock_ms, right_clock_ms]);
        world.client("operator", |shard| async move {
            shard.spawn(count(shard.clone()));
            changed(&shard, NODES[0], KEYS[0], Some("1")).await;
            // All have been heard for long.
            shard.sleep(Duration::from_secs(100)).await;
            changed(&shard, NODES[0], KEYS[0], None).await;
            IS_SET.set(true);
            shard.sleep(Duration::from_secs(30)).await;
            assert_eq!(removed(&shard).await, 1);
            shard.sleep(Duration::from_secs(60)).await;
            assert_eq!(removed(&shard).await, 0);
        });
    });
}

#[test]
fn g20_a_removed_key_is_remembered_while_a_peer_does_not_listen() {
    sim::check(0..5, |world| {
        let _disks = two(world, [&NODES[..2], &[]], [jumping_clock_ms, right_clock_ms]);
        world.client("operator", |shard| async move {
            shard.spawn(count(shard.clone()));
            changed(&shard, NODES[1], KEYS[0], Some("1")).await;
            while all(&shard, NODES[0]).await.is_none_or(|all| all.is_empty()) {
                shard.sleep(Duration::from_secs(1)).await;
            }
            changed(&shard, NODES[0], KEYS[0], None).await;
            shard.sleep(Duration::from_secs(100)).await;
            IS_SET.set(true);
            shard.sleep(Duration::from_secs(100)).await;
            assert_eq!(removed(&shard).await, 1);
        });
    });
}

#[test]
fn g20_a_removal_that_could_not_be_written_is_not_forgotten() {
    sim::check(0..5, |world| {
        let disks = two(world, [&NODES[..2]; 2], [jumping_clock_ms, right_clock_ms]);
        world.client("operator", |shard| async move {
            shard.spawn(count(shard.clone()));
            changed(&shard, NODES[1], KEYS[0], Some("1")).await;
            while all(&shard, NODES[0]).await.is_none_or(|all| all.is_empty()) {
                shard.sleep(Duration::from_secs(1)).await;
            }
            // A disk that is away for a while.
            let (there, away) = (disks.path(NODES[0]), disks.path("away"));
            fs::rename(&there, &away).unwrap();
            changed(&shard, NODES[1], KEYS[0], None).await;
            shard.sleep(Duration::from_secs(100)).await;
            IS_SET.set(true);
            shard.sleep(Duration::from_secs(100)).await;
            fs::rename(&away, &there).unwrap();
            shard.sleep(Duration::from_secs(5)).await;
            // A node that starts again does not say that it is there.
            for path in files(&there, ".setting") {
                let text = fs::read_to_string(&path).unwrap();
                assert!(text.ends_with("\nremoved\n"), "{text}");
            }
        });
    });
}
