//! The whole simulation: nodes on a network, driven by a calendar.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::rc::Rc;

use ringcall_core::{CloseReason, Handle};

use crate::Options;
use crate::clock::{MICROS, MILLIS, SECONDS, Time};
use crate::knobs::{Fault, Knobs};
use crate::net::{LinkId, Net, Wake};
use crate::node::Node;
use crate::oracle;
use crate::rng::Rng;
use crate::shared::Shared;

/// So many entries of the calendar an event may take: with more the simulation goes round in circles.
const WAKES_AN_EVENT: u64 = 50;

/// Node, life and handle of the client's end and the server's, as far as they are known.
pub(crate) type Ends = [Option<(usize, u32, Handle)>; 2];

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) net: Rc<RefCell<Net>>,
    pub(crate) shared: Shared,
    pub(crate) nodes: Vec<Node>,
    pub(crate) knobs: Knobs,
    /// For faults that happen, a stream of random numbers each.
    pub(crate) fault_rngs: Vec<Rng>,
    pub(crate) is_healing: bool,
    /// Who drains now does not come back.
    pub(crate) is_final: bool,
    /// The ends of connections that both sides have.
    pub(crate) ends: BTreeMap<LinkId, Ends>,
    events_max: u64,
    wakes: u64,
}

impl World {
    pub(crate) fn new(seed: u64, options: &Options) -> World {
        let knobs = Knobs::draw(seed, options.without);
        let net = Rc::new(RefCell::new(Net::new(seed, knobs.clone())));
        let mut shared = Shared::new(seed, knobs.retries, options.is_loud);
        if options.is_loud {
            shared.say(&format!("{knobs:#?}"), 0);
        }
        for &fault in Fault::ALL.iter().filter(|fault| fault.is_of_the_run()) {
            if knobs.rate(fault) > 0 {
                shared.marks.fault(fault);
            }
        }
        let nodes = (0..knobs.nodes).map(|index| Node::draw(seed, index, &knobs)).collect();
        let streams = 0..Fault::ALL.len() as u64;
        World {
            net,
            shared,
            nodes,
            fault_rngs: streams.map(|i| Rng::new(seed, 200 + i)).collect(),
            knobs,
            is_healing: false,
            is_final: false,
            ends: BTreeMap::new(),
            events_max: options.events,
            wakes: 0,
        }
    }

    /// Chaos, then healing.
    pub(crate) fn run(&mut self) {
        {
            let mut net = self.net.borrow_mut();
            for node in 0..self.nodes.len() {
                net.at(0, Wake::Start(node));
            }
            net.at(MILLIS, Wake::Act);
        }
        for &fault in Fault::ALL {
            if self.knobs.happens(fault) {
                self.schedule(fault);
            }
        }
        while self.shared.events < self.events_max {
            if !self.step() {
                break;
            }
            assert!(
                self.wakes <= (self.shared.events + 10_000) * WAKES_AN_EVENT,
                "the simulation goes round in circles"
            );
        }
        self.heal();
    }

    pub(crate) fn now(&self) -> Time {
        self.net.borrow().now
    }

    /// The next entry of the calendar. `false` if there is none.
    pub(crate) fn step(&mut self) -> bool {
        let Some((now, wake)) = self.net.borrow_mut().next() else { return false };
        self.wakes += 1;
        self.shared.now = now;
        match wake {
            Wake::Turn(node) => self.turn(node),
            Wake::Syn(link) => self.net.borrow_mut().syn(link),
            // A life that was to begin later when one began at once, to heal.
            Wake::Start(_) if self.is_final => {}
            Wake::Start(node) => self.nodes[node].start(&self.net, &mut self.shared),
            Wake::Listen(node) => self.net.borrow_mut().turn_at(now, node),
            Wake::Act if !self.is_healing => self.act(),
            Wake::Fault(index) if !self.is_healing => {
                let fault = Fault::ALL[index];
                self.strike(fault);
                self.schedule(fault);
            }
            Wake::Act | Wake::Fault(_) => {}
        }
        true
    }

    fn act(&mut self) {
        self.shared.events += 1;
        let node = self.shared.rng.below(self.nodes.len() as u64) as usize;
        let wait = 1 + self.shared.rng.below(2 * self.knobs.act_every);
        let now = self.now();
        self.net.borrow_mut().at(now + wait, Wake::Act);
        let Node { life, acts, stopped_until, .. } = &mut self.nodes[node];
        if life.is_none() || *stopped_until > now {
            return;
        }
        *acts += 1;
        self.net.borrow_mut().turn_at(now + MICROS, node);
    }

    fn turn(&mut self, node: usize) {
        let now = self.now();
        let stopped_until = self.nodes[node].stopped_until;
        if stopped_until > now {
            return self.net.borrow_mut().turn_at(stopped_until, node);
        }
        {
            let mut net = self.net.borrow_mut();
            if net.strikes(Fault::LateTurn) {
                let late = net.rng.log_uniform(10 * MICROS, 20 * MILLIS);
                return net.turn_at(now + late, node);
            }
        }
        self.nodes[node].turn(&self.net, &mut self.shared, &self.knobs);
        self.judge(node);
        self.end_of_drain(node);
    }

    /// Whether a side of a connection has a bound of what it may hold.
    pub(crate) fn has_little_memory(&self, link: LinkId) -> bool {
        let nodes = self.net.borrow().links[link].nodes;
        nodes.iter().any(|node| self.nodes[*node].has_little_memory())
    }

    /// What can only be seen from both ends.
    fn judge(&mut self, node: usize) {
        for (link, of, reason) in std::mem::take(&mut self.shared.closed) {
            let ends = self.ends.remove(&link);
            if reason == CloseReason::MemoryShort {
                assert!(
                    self.nodes[of].has_little_memory(),
                    "node {of} has all the memory there is"
                );
                self.net.borrow_mut().links[link].is_disturbed = true;
            }
            let net = self.net.borrow();
            // A closing that its application asked for is told by itself.
            let other = ends.map(|ends| self.describe(ends));
            let [one, another] = net.links[link].nodes;
            let peer = if of == one { another } else { one };
            let [this, that] = [of, peer].map(|node| &self.nodes[node]);
            let facts = oracle::Facts {
                is_wild: this.clock.is_wild(),
                is_peer_wild: that.clock.is_wild(),
                has_peer_little_memory: that.has_little_memory(),
            };
            oracle::closed(&net, link, of, reason, facts, other.unwrap_or_default());
        }
        for (link, call) in std::mem::take(&mut self.shared.cut_calls) {
            // Where memory is little a connection may be closed for it, which its other side may hear of first.
            let may_be_lost =
                self.net.borrow().links[link].is_disturbed || self.has_little_memory(link);
            assert!(may_be_lost, "call {call} was lost although nothing happened to link {link}");
        }
        let Some(life) = &self.nodes[node].life else { return };
        let lives = self.nodes[node].lives;
        for (&handle, conn) in &life.app.connections {
            let Some((link, end)) = life.end.transport().link(handle) else { continue };
            debug_assert_eq!(link, conn.link);
            let ends = self.ends.entry(link).or_default();
            ends[end] = Some((node, lives, handle));
            let [Some(client), Some(server)] = *ends else { continue };
            self.look_at_credit(if end == 0 { [client, server] } else { [server, client] });
        }
    }

    /// For a failure to say.
    fn describe(&self, ends: Ends) -> String {
        let ends = ends.into_iter().flatten().map(|(node, lives, handle)| {
            let node = &self.nodes[node];
            let life = node.life.as_ref().filter(|_| node.lives == lives);
            let connection = life.and_then(|life| life.end.connection(handle));
            let hint = connection.map(ringcall_core::Connection::receive_hint);
            format!(
                "node {}: {connection:?}, receives {hint:?}, {:?}; ",
                node.index,
                life.map(|life| &life.memory)
            )
        });
        ends.collect()
    }

    fn look_at_credit(&self, ends: [(usize, u32, Handle); 2]) {
        let [Some(one), Some(other)] = ends.map(|(node, lives, _)| {
            let node = &self.nodes[node];
            node.life.as_ref().filter(|_| node.lives == lives)
        }) else {
            return;
        };
        let [(a, _, handle_a), (b, _, handle_b)] = ends;
        let (a, b) = (&self.nodes[a].sizes, &self.nodes[b].sizes);
        oracle::credit(&one.end, &other.end, [handle_a, handle_b], b);
        oracle::credit(&other.end, &one.end, [handle_b, handle_a], a);
    }

    /// A node that drains ends when its last connection has, and nothing of them runs any more.
    pub(crate) fn end_of_drain(&mut self, node: usize) {
        let now = self.now();
        let Some(life) = &self.nodes[node].life else { return };
        if !life.is_draining {
            return;
        }
        let is_empty = life.end.connections() == 0
            && life.app.is_at_rest()
            && self.net.borrow().ports[node].accept_queue.is_empty();
        if !is_empty {
            return;
        }
        self.shared.marks.hit(crate::Mark::Drained);
        self.nodes[node].end(&self.net, &mut self.shared, false);
        if !self.is_final {
            let wait = self.shared.rng.log_uniform(MILLIS, SECONDS);
            self.net.borrow_mut().at(now + wait, Wake::Start(node));
        }
    }

    /// A node begins to drain.
    pub(crate) fn drain(&mut self, node: usize) {
        let now = self.now();
        let Node { life, clock, .. } = &mut self.nodes[node];
        let Some(life) = life.as_mut().filter(|life| !life.is_draining) else { return };
        life.is_draining = true;
        life.app.drain(&mut life.end, clock.read(now));
        self.shared.note(node, "drain", 0, 0);
        self.net.borrow_mut().turn_at(now + MICROS, node);
    }
}
