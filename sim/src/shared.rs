//! What applications, nodes and oracles of one simulation share.

use ringcall_core::CloseReason;

use crate::clock::Time;
use crate::ledger::{CallNo, Ledger};
use crate::marks::Marks;
use crate::net::LinkId;
use crate::rng::{Rng, mix};

/// The record of a run, and what is drawn from the seed for the applications.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) now: Time,
    pub(crate) ledger: Ledger,
    pub(crate) marks: Marks,
    pub(crate) rng: Rng,
    /// Everything that has happened so far, as one number.
    pub(crate) hash: u64,
    pub(crate) events: u64,
    /// Writes every event to standard error.
    pub(crate) is_loud: bool,
    /// No faults any more: applications take and answer everything soon.
    pub(crate) is_healing: bool,
    /// Whether callers make calls again that did not run.
    pub(crate) retries: bool,
    /// Connections that ended: whose they were, and why.
    pub(crate) closed: Vec<(LinkId, usize, CloseReason)>,
    /// Calls that ended with their connection and may have run.
    pub(crate) cut_calls: Vec<(LinkId, CallNo)>,
    /// Connections on which one side refused calls without asking first.
    pub(crate) refusing: Vec<LinkId>,
    /// The most that a node has held of what it may, in thousandths.
    pub(crate) memory_worst: u64,
    /// Calls that must be answered.
    pub(crate) probes: Vec<CallNo>,
    /// How often a clock has jumped ahead.
    pub(crate) clock_jumps: u64,
}

impl Shared {
    pub(crate) fn new(seed: u64, retries: bool, is_loud: bool) -> Shared {
        Shared {
            now: 0,
            ledger: Ledger::default(),
            marks: Marks::default(),
            rng: Rng::new(seed, 3),
            hash: mix(seed),
            events: 0,
            is_loud,
            is_healing: false,
            retries,
            closed: Vec::new(),
            cut_calls: Vec::new(),
            refusing: Vec::new(),
            memory_worst: 0,
            probes: Vec::new(),
            clock_jumps: 0,
        }
    }

    /// Something has happened.
    pub(crate) fn note(&mut self, node: usize, what: &'static str, a: u64, b: u64) {
        self.events += 1;
        let first =
            what.as_bytes().iter().fold(what.len() as u64, |h, &b| h << 5 ^ h ^ u64::from(b));
        self.hash =
            mix(self.hash ^ first ^ (node as u64) << 56) ^ mix(self.now ^ a.rotate_left(20) ^ b);
        if self.is_loud {
            self.say(&format!("{what} {a:x} {b}"), node);
        }
    }

    #[expect(clippy::print_stderr, reason = "asked for")]
    pub(crate) fn say(&self, what: &str, node: usize) {
        eprintln!("{:>16.6} ms  node {node}  {what}", self.now as f64 / 1e6);
    }
}
