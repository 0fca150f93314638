//! What a seed is without nodes: network, clocks and faults, for whoever brings nodes of his own.

use std::cell::RefCell;
use std::rc::Rc;

use ringcall_core::{Address, Instant, Memory};

use crate::clock::{MICROS, MILLIS, NodeClock, SECONDS, Time, draw_skew};
use crate::knobs::{Fault, FaultSet, Knobs};
use crate::net::{Net, Wake};
use crate::rng::{Rng, mix};
use crate::transport::{Dialect, SimTransport, address};

/// The network, the clocks and the faults of one seed. Whoever has it drives nodes: asks for the
/// [next](Stage::next) step, does it, and says when the node wants its next turn. Clones are the same stage.
///
/// ```
/// use ringcall_sim::{FaultSet, Stage, Step};
///
/// // Of the two nodes the second may crash.
/// let stage = Stage::new(7, &[false, true], FaultSet::default());
/// assert!(matches!(stage.next(), Some(Step::Start(0))));
/// assert!(matches!(stage.next(), Some(Step::Start(1))));
/// ```
#[derive(Clone, Debug)]
pub struct Stage {
    net: Rc<RefCell<Net>>,
    state: Rc<RefCell<State>>,
}

/// What somebody who drives nodes has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The node has a turn of its loop.
    Turn(usize),
    /// The node begins a life; by then the one before has ended.
    Start(usize),
    /// The node's process ends here and now. Its machine tells its peers unless it is `silent`, then the machine
    /// is gone as well.
    Crash {
        /// Which node.
        node: usize,
        /// See above.
        silent: bool,
    },
    /// The node is asked to end in order. It [`rests`](Stage::rests) when it has, and starts again.
    Drain(usize),
    /// The time has come that was [asked for](Stage::wake_at).
    Woken,
}

#[derive(Debug)]
struct State {
    knobs: Knobs,
    clocks: Vec<NodeClock>,
    dialects: Vec<Dialect>,
    /// Which nodes may crash and drain.
    mortal: Vec<bool>,
    alive: Vec<bool>,
    stopped_until: Vec<Time>,
    /// For faults, a stream of random numbers each.
    fault_rngs: Vec<Rng>,
    node_rngs: Vec<Rng>,
    is_healed: bool,
    hash: u64,
    steps: u64,
    /// Faults that have happened, in order.
    struck: Vec<(Time, Fault, usize)>,
}

/// Faults of which only the simulated applications of this crate know.
const OF_APPLICATIONS: FaultSet =
    FaultSet::of(&[Fault::Close, Fault::HoldItems, Fault::EarlyTurn, Fault::LittleMemory]);

impl Stage {
    /// As many nodes as `mortal` has entries, which say whether a node may crash and be drained.
    #[must_use]
    pub fn new(seed: u64, mortal: &[bool], without: FaultSet) -> Stage {
        let nodes = mortal.len();
        let mut knobs = Knobs::draw(seed, without.and(OF_APPLICATIONS));
        knobs.nodes = nodes;
        let mut rngs: Vec<Rng> = (0..nodes).map(|node| Rng::new(seed, 10 + node as u64)).collect();
        let skews = knobs.rate(Fault::Skew) > 0;
        let clocks = rngs.iter_mut().map(|rng| {
            let skew = draw_skew(rng, skews);
            NodeClock::draw(rng, skew)
        });
        let clocks = clocks.collect();
        let dialects = rngs.iter_mut().map(Dialect::draw).collect();
        let mut net = Net::new(seed, knobs.clone());
        net.reads_along = true;
        let state = State {
            knobs,
            clocks,
            dialects,
            mortal: mortal.to_vec(),
            alive: vec![false; nodes],
            stopped_until: vec![0; nodes],
            fault_rngs: (0..Fault::ALL.len() as u64).map(|i| Rng::new(seed, 200 + i)).collect(),
            node_rngs: rngs,
            is_healed: false,
            hash: mix(seed),
            steps: 0,
            struck: Vec::new(),
        };
        let stage = Stage { net: Rc::new(RefCell::new(net)), state: Rc::new(RefCell::new(state)) };
        (0..nodes).for_each(|node| stage.net.borrow_mut().at(0, Wake::Start(node)));
        for &fault in Fault::ALL.iter().filter(|fault| stage.state.borrow().knobs.happens(**fault))
        {
            stage.schedule(fault);
        }
        stage
    }

    // ---- for nodes ----

    /// The sockets of a node's next life.
    #[must_use]
    pub fn transport(&self, node: usize, memory: &Memory) -> SimTransport {
        let dialect = self.state.borrow().dialects[node];
        SimTransport::new(Rc::clone(&self.net), node, memory.clone(), dialect)
    }

    /// Where a node listens.
    #[must_use]
    pub fn address(node: usize) -> Address {
        address(node)
    }

    /// What a node's clock shows.
    #[must_use]
    pub fn now(&self, node: usize) -> Instant {
        self.state.borrow().clocks[node].read(self.time())
    }

    /// A random number of a node's own.
    #[must_use]
    pub fn random(&self, node: usize) -> u64 {
        self.state.borrow_mut().node_rngs[node].next()
    }

    // ---- for whoever drives them ----

    /// Nanoseconds since the simulation began.
    #[must_use]
    pub fn time(&self) -> u64 {
        self.net.borrow().now
    }

    /// What is to be done next. Time passes here and nowhere else. `None`: nothing will happen any more.
    #[must_use]
    pub fn next(&self) -> Option<Step> {
        loop {
            let (now, wake) = self.net.borrow_mut().next()?;
            if let Some(step) = self.take(now, wake) {
                self.state.borrow_mut().note(now, step);
                return Some(step);
            }
        }
    }

    /// The node wants a turn as soon as possible.
    pub fn turn(&self, node: usize) {
        let at = self.time() + MICROS;
        self.net.borrow_mut().turn_at(at, node);
    }

    /// The node wants a turn when its clock shows `at`.
    pub fn turn_at(&self, node: usize, at: Instant) {
        let now = self.time();
        let at = self.state.borrow().clocks[node].when(now, at);
        self.net.borrow_mut().turn_at(at.max(now + MICROS), node);
    }

    /// Somebody wants a step when [`time`](Self::time) comes to `at`: [`Step::Woken`].
    pub fn wake_at(&self, at: u64) {
        self.net.borrow_mut().at(at, Wake::Act);
    }

    /// A node's life begins: its machine is there.
    pub fn lives(&self, node: usize) {
        self.net.borrow_mut().machine_is_up(node);
        self.state.borrow_mut().alive[node] = true;
        self.turn(node);
    }

    /// A node's life has ended; after a while it starts again. `silent` as in [`Step::Crash`].
    pub fn rests(&self, node: usize, silent: bool) {
        let mut state = self.state.borrow_mut();
        let mut net = self.net.borrow_mut();
        state.alive[node] = false;
        net.ports[node].is_listening = false;
        net.ports[node].is_up = !silent;
        let wait = state.node_rngs[node].log_uniform(MILLIS, SECONDS);
        let at = net.now + wait;
        net.at(at, Wake::Start(node));
    }

    /// From now on there are no faults, and all nodes are there.
    pub fn heal(&self) {
        let mut state = self.state.borrow_mut();
        let mut net = self.net.borrow_mut();
        if std::mem::replace(&mut state.is_healed, true) {
            return;
        }
        net.heal();
        let now = net.now;
        state.stopped_until.fill(0);
        for clock in &mut state.clocks {
            *clock = clock.steady(now);
        }
        for (node, &is_alive) in state.alive.iter().enumerate() {
            match is_alive {
                true => net.turn_at(now + MICROS, node),
                false => net.at(now + MICROS, Wake::Start(node)),
            }
        }
    }

    /// Whether faults have stopped.
    #[must_use]
    pub fn is_healed(&self) -> bool {
        self.state.borrow().is_healed
    }

    /// How many steps there were.
    #[must_use]
    pub fn steps(&self) -> u64 {
        self.state.borrow().steps
    }

    /// All steps and all that was sent, as one number.
    #[must_use]
    pub fn hash(&self) -> u64 {
        mix(self.state.borrow().hash ^ self.net.borrow().written)
    }

    /// Faults that are on.
    #[must_use]
    pub fn faults(&self) -> FaultSet {
        let state = self.state.borrow();
        let on = Fault::ALL.iter().filter(|fault| state.knobs.rate(**fault) > 0);
        on.fold(FaultSet::default(), |set, fault| set.with(*fault))
    }

    /// Faults that have befallen somebody: when, what, and which node, if it was one.
    #[must_use]
    pub fn struck(&self) -> Vec<(u64, Fault, usize)> {
        self.state.borrow().struck.clone()
    }

    // ---- the calendar ----

    fn take(&self, now: Time, wake: Wake) -> Option<Step> {
        match wake {
            Wake::Turn(node) => self.may_turn(now, node).then_some(Step::Turn(node)),
            Wake::Start(node) => (!self.state.borrow().alive[node]).then_some(Step::Start(node)),
            Wake::Syn(link) => {
                self.net.borrow_mut().syn(link);
                None
            }
            Wake::Listen(node) => {
                self.net.borrow_mut().turn_at(now, node);
                None
            }
            Wake::Act => Some(Step::Woken),
            Wake::Fault(_) if self.is_healed() => None,
            Wake::Fault(index) => {
                let fault = Fault::ALL[index];
                let step = self.strike(now, fault);
                self.schedule(fault);
                step
            }
        }
    }

    /// Whether a node has its turn now, and not later.
    fn may_turn(&self, now: Time, node: usize) -> bool {
        let state = self.state.borrow();
        let mut net = self.net.borrow_mut();
        if !state.alive[node] {
            return false;
        }
        let stopped_until = state.stopped_until[node];
        if stopped_until > now {
            net.turn_at(stopped_until, node);
            return false;
        }
        if net.strikes(Fault::LateTurn) {
            let late = net.rng.log_uniform(10 * MICROS, 20 * MILLIS);
            net.turn_at(now + late, node);
            return false;
        }
        true
    }

    fn schedule(&self, fault: Fault) {
        let mut state = self.state.borrow_mut();
        let every = state.knobs.rate(fault);
        let wait = 1 + state.fault_rngs[fault as usize].below(2 * every);
        let mut net = self.net.borrow_mut();
        let at = net.now + wait;
        net.at(at, Wake::Fault(fault as usize));
    }

    fn strike(&self, now: Time, fault: Fault) -> Option<Step> {
        let mut state = self.state.borrow_mut();
        let state = &mut *state;
        let mut net = self.net.borrow_mut();
        let rng = &mut state.fault_rngs[fault as usize];
        let until = now + rng.log_uniform(MILLIS, state.knobs.span);
        let node = rng.below(state.alive.len() as u64) as usize;
        let can_end = state.mortal[node] && state.alive[node];
        let (did, step) = match fault {
            Fault::Crash | Fault::PowerLoss if can_end => {
                let silent = fault == Fault::PowerLoss;
                (true, Some(Step::Crash { node, silent }))
            }
            Fault::Drain if can_end => (true, Some(Step::Drain(node))),
            Fault::Crash | Fault::PowerLoss | Fault::Drain => (false, None),
            Fault::Stop => {
                state.stopped_until[node] = until;
                net.disturb(node, until);
                (true, None)
            }
            Fault::ClockJump => {
                let ahead = rng.log_uniform(MILLIS, 3600 * SECONDS);
                state.clocks[node].jump(ahead);
                net.turn_at(now + MICROS, node);
                (true, None)
            }
            _ => (net.befall(fault, node, until, rng), None),
        };
        if did {
            state.struck.push((now, fault, node));
        }
        step
    }
}

impl State {
    fn note(&mut self, now: Time, step: Step) {
        self.steps += 1;
        let what = match step {
            Step::Turn(node) => node as u64,
            Step::Start(node) => 1 << 32 | node as u64,
            Step::Crash { node, silent } => (2 + u64::from(silent)) << 32 | node as u64,
            Step::Drain(node) => 4 << 32 | node as u64,
            Step::Woken => 5 << 32,
        };
        self.hash = mix(self.hash ^ mix(now) ^ what);
    }
}
