//! Where in a simulation this thread is, for those who would otherwise ask the machine.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;
use std::sync::Arc;

use ringcall_core::{Address, Instant};
use ringcall_sim::Stage;

use crate::client::Tables;
use crate::offload::Job;
use crate::shard::Remote;

/// The node that is being driven.
#[derive(Clone)]
pub(crate) struct Here {
    pub(crate) stage: Stage,
    pub(crate) node: usize,
    pub(crate) names: Rc<BTreeMap<String, usize>>,
    pub(crate) jobs: Rc<RefCell<VecDeque<Job>>>,
    pub(crate) tables: Rc<RefCell<Tables>>,
    /// The node's shard, once it is there.
    pub(crate) remote: Option<Arc<Remote>>,
}

thread_local! {
    static HERE: RefCell<Option<Here>> = const { RefCell::new(None) };
}

/// Does something as a node.
pub(crate) fn within<R>(here: Here, act: impl FnOnce() -> R) -> R {
    /// Puts back what was there, after a panic, too.
    struct Left(Option<Here>);
    impl Drop for Left {
        fn drop(&mut self) {
            HERE.set(self.0.take());
        }
    }
    let _left = Left(HERE.replace(Some(here)));
    act()
}

fn ask<R>(question: impl FnOnce(&Here) -> R) -> Option<R> {
    // A thread that is ending is in no simulation.
    HERE.try_with(|here| here.borrow().as_ref().map(question)).ok().flatten()
}

/// Whether this thread is in a simulation.
pub(crate) fn is_simulated() -> bool {
    ask(|_| ()).is_some()
}

pub(crate) fn current() -> Option<Here> {
    ask(Here::clone)
}

/// What the node's clock shows.
pub(crate) fn now() -> Option<Instant> {
    ask(|here| here.stage.now(here.node))
}

/// A random number of the node's.
pub(crate) fn random() -> Option<u64> {
    ask(|here| here.stage.random(here.node))
}

/// Where a node listens, by its name; what looks like a port behind it is not looked at.
pub(crate) fn resolve(text: &str) -> Option<Result<Address, String>> {
    ask(|here| {
        let name = text.split_once(':').map_or(text, |(name, _)| name);
        match here.names.get(name).or_else(|| here.names.get(text)) {
            Some(&node) => Ok(Stage::address(node)),
            None => {
                let names: Vec<&str> = here.names.keys().map(String::as_str).collect();
                Err(format!(
                    "no node of the simulation is called so; there are {}",
                    names.join(", ")
                ))
            }
        }
    })
}

/// Leaves a job for the node's pool of threads; gives it back outside of simulations.
pub(crate) fn offload(job: Job) -> Result<(), Job> {
    match ask(|here| Rc::clone(&here.jobs)) {
        Some(jobs) => {
            jobs.borrow_mut().push_back(job);
            Ok(())
        }
        None => Err(job),
    }
}

/// What the node's process knows of other programs' methods.
pub(crate) fn with_tables<R>(act: impl FnOnce(&mut Tables) -> R) -> Option<R> {
    ask(|here| Rc::clone(&here.tables)).map(|tables| act(&mut tables.borrow_mut()))
}

/// The shard that clients of other threads use: in a simulation the node's own.
pub(crate) fn background() -> Option<Arc<Remote>> {
    ask(|here| here.remote.clone()).flatten()
}
