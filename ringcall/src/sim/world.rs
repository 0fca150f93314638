//! What a seed runs: nodes on a stage, through faults to their end.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::time::Duration;

use ringcall_core::Address;
use ringcall_sim::{Fault, FaultSet, Stage, Step, take_caught};

use super::node::{Node, Role};
use crate::ServeError;
use crate::shard::{Shard, ShardConfig};

/// For how long there are faults, if clients have not ended before.
const CHAOS: Duration = Duration::from_secs(60);
/// How long clients may take to end when there are no faults any more: longer than any silence until a connection is
/// given up, and than most deadlines.
const RECOVERY: Duration = Duration::from_secs(300);
/// How long servers may take to drain without faults.
const DRAIN: Duration = Duration::from_secs(90);

/// Servers and clients on a simulated network. What is said of it in [`check`](super::check) is done anew for
/// each seed.
pub struct World {
    seed: u64,
    nodes: Vec<Node>,
    without: FaultSet,
    chaos: Duration,
    allows_panics: bool,
}

impl World {
    pub(super) fn new(seed: u64, without: FaultSet) -> World {
        World { seed, nodes: Vec::new(), without, chaos: CHAOS, allows_panics: false }
    }

    /// The seed: for whatever the services draw themselves.
    #[must_use]
    pub fn seed(&self) -> u64 {
        self.seed
    }

    /// A node that serves, at an address that is its name. `start` is called at the beginning of each of its lives,
    /// since it may crash: what a crash does not take from it is what `start` has captured.
    ///
    /// ```
    /// # use ringcall::{Shard, sim};
    /// # fn serve_quotes(_: &Shard) -> Result<(), ringcall::ServeError> { Ok(()) }
    /// # sim::check(0..1, |world| {
    /// world.server("quotes", |shard| serve_quotes(shard));
    /// # });
    /// ```
    ///
    /// # Panics
    /// When there is a node of this name.
    pub fn server(
        &mut self,
        name: &str,
        start: impl Fn(&Shard) -> Result<(), ServeError> + 'static,
    ) -> &mut World {
        self.add(name, Role::Server(Box::new(start)))
    }

    /// A node that calls. It never crashes, but it may be stopped for a while, and its clock may jump. The future runs
    /// on its shard; when those of all clients are ready, the seed has held.
    ///
    /// # Panics
    /// When there is a node of this name.
    pub fn client<F>(&mut self, name: &str, run: impl FnOnce(Shard) -> F + 'static) -> &mut World
    where
        F: Future<Output = ()> + 'static,
    {
        self.add(name, Role::Client(Some(Box::new(|shard| Box::pin(run(shard))))))
    }

    fn add(&mut self, name: &str, role: Role) -> &mut World {
        let is_new = self.nodes.iter().all(|node| node.name != name);
        assert!(is_new, "two nodes are called {name:?}");
        let index = self.nodes.len();
        self.nodes.push(Node::new(name.to_owned(), role, index));
        self
    }

    /// Where a node listens, for lists of instances. Its name will do wherever an address is read from text.
    ///
    /// # Panics
    /// When there is no node of this name.
    #[must_use]
    pub fn address(&self, name: &str) -> Address {
        Stage::address(self.index(name))
    }

    fn index(&self, name: &str) -> usize {
        let index = self.nodes.iter().position(|node| node.name == name);
        index.unwrap_or_else(|| panic!("no node is called {name:?}"))
    }

    /// Settings of a node's shard: limits, timeouts, memory. Engine and waiting mean nothing here.
    ///
    /// # Panics
    /// When there is no node of this name.
    pub fn configure(&mut self, name: &str, config: ShardConfig) -> &mut World {
        let index = self.index(name);
        self.nodes[index].config = config;
        self
    }

    /// Leaves a fault out: one that the services are not meant to survive.
    pub fn without(&mut self, fault: Fault) -> &mut World {
        self.without = self.without.with(fault);
        self
    }

    /// For how long, in the simulation, there are faults, if clients have not ended before; a minute unless
    /// said otherwise.
    pub fn chaos(&mut self, time: Duration) -> &mut World {
        self.chaos = time;
        self
    }

    /// Handlers and tasks may panic, as in production, where their callers are told; otherwise that is a failure.
    pub fn allow_panics(&mut self) -> &mut World {
        self.allows_panics = true;
        self
    }

    /// Runs it; or says what does not hold.
    pub(super) fn run(mut self) -> Result<Ran, String> {
        let mortal: Vec<bool> = self.nodes.iter().map(Node::is_server).collect();
        let names = self.nodes.iter().enumerate().map(|(i, node)| (node.name.clone(), i));
        let names = Rc::new(names.collect::<BTreeMap<_, _>>());
        let stage = Stage::new(self.seed, &mortal, self.without);
        let mut course = Course {
            nodes: std::mem::take(&mut self.nodes),
            stage: stage.clone(),
            names,
            allows_panics: self.allows_panics,
            is_final: false,
        };
        course.until(self.chaos, |nodes| nodes.iter().all(Node::has_ended))?;
        stage.heal();
        if !course.until(RECOVERY, |nodes| nodes.iter().all(Node::has_ended))? {
            return Err(course.who_has_not_ended());
        }
        course.close()?;
        Ok(Ran {
            hash: stage.hash(),
            faults: stage.faults(),
            struck: stage.struck().len(),
            time: Duration::from_nanos(stage.time()),
        })
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.nodes.iter().map(|node| node.name.as_str()).collect();
        f.debug_struct("World")
            .field("seed", &self.seed)
            .field("nodes", &names)
            .field("without", &self.without)
            .finish_non_exhaustive()
    }
}

/// How a seed went.
pub(super) struct Ran {
    pub(super) hash: u64,
    pub(super) faults: FaultSet,
    pub(super) struck: usize,
    pub(super) time: Duration,
}

/// A world that runs.
struct Course {
    nodes: Vec<Node>,
    stage: Stage,
    names: Rc<BTreeMap<String, usize>>,
    allows_panics: bool,
    /// Whose life ends now begins no other.
    is_final: bool,
}

impl Drop for Course {
    /// Also when the seed fails: whatever its nodes hold is dropped as theirs.
    fn drop(&mut self) {
        for node in &mut self.nodes {
            let _said_before = catch_unwind(AssertUnwindSafe(|| node.end(&self.stage)));
        }
    }
}

impl Course {
    /// Goes on until something is so, or the time is over. Says whether it is.
    fn until(&mut self, span: Duration, is_so: impl Fn(&[Node]) -> bool) -> Result<bool, String> {
        let end = self.stage.time() + span.as_nanos() as u64;
        self.stage.wake_at(end);
        while !is_so(&self.nodes) {
            if self.stage.time() >= end || !self.step()? {
                return Ok(is_so(&self.nodes));
            }
        }
        Ok(true)
    }

    fn step(&mut self) -> Result<bool, String> {
        let Some(step) = self.stage.next() else { return Ok(false) };
        match step {
            Step::Turn(node) => self.nodes[node].turn(&self.stage),
            Step::Start(_) if self.is_final => {}
            Step::Start(node) => self.nodes[node].start(&self.stage, &self.names),
            Step::Crash { node, silent } => self.nodes[node].crash(&self.stage, silent),
            Step::Drain(node) => self.nodes[node].drain(&self.stage),
            Step::Woken => {}
        }
        if let Some(said) = self.nodes.iter().find_map(Node::take_failure) {
            return Err(said);
        }
        if let Some(said) = take_caught()
            && !self.allows_panics
        {
            return Err(said);
        }
        for node in 0..self.nodes.len() {
            self.nodes[node].rest(&self.stage);
            // What one node does may wake another's tasks, which no clock tells.
            if self.nodes[node].has_work() {
                self.stage.turn(node);
            }
        }
        Ok(true)
    }

    fn who_has_not_ended(&self) -> String {
        let open = self.nodes.iter().filter(|node| !node.has_ended());
        let names: Vec<&str> = open.map(|node| node.name.as_str()).collect();
        format!(
            "{} has not ended {} s after the last fault: something is waited for that never comes",
            names.join(", "),
            RECOVERY.as_secs()
        )
    }

    /// Clients end, servers drain.
    fn close(&mut self) -> Result<(), String> {
        self.is_final = true;
        for node in self.nodes.iter_mut().filter(|node| !node.is_server()) {
            node.end(&self.stage);
        }
        for node in self.nodes.iter_mut().filter(|node| node.is_server()) {
            node.drain(&self.stage);
        }
        let is_over =
            |nodes: &[Node]| !nodes.iter().any(|node| node.is_server() && node.is_alive());
        match self.until(DRAIN, is_over)? {
            true => Ok(()),
            false => Err("a server that nobody calls any more does not drain".to_owned()),
        }
    }
}
