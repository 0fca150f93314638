//! The second phase: faults stop, and everything must come to its end.

use crate::clock::{MICROS, MILLIS, SECONDS, Time};
use crate::marks::Mark;
use crate::net::{LinkId, Pipe, Wake};
use crate::oracle::{self, Pair};
use crate::world::World;
use ringcall_core::frame::request_flags;

/// How long, after the last fault, calls may take to end and connections to come back: the longest deadline,
/// or the longest silence until a connection is given up, whichever takes longer.
const RECOVERY: Time = 200 * SECONDS;
/// How long a drain may take without faults.
const DRAIN: Time = 90 * SECONDS;
/// How long the bytes of a connection at rest may take to leave: a fraction of the shortest time between two
/// keepalives.
const QUIET: Time = SECONDS;
/// How soon a probe is tried again. Connections that are drained as soon as they are old may come and go once a
/// second, so whoever tried once a second might always come when there is none.
const PROBE_AGAIN: Time = 61 * MILLIS;
/// What a handshake, a question and its answer have, at most, in one direction.
const PROBE_BYTES: u64 = 1024;

impl World {
    pub(crate) fn heal(&mut self) {
        let now = self.now();
        self.is_healing = true;
        self.shared.is_healing = true;
        self.shared.note(0, "heal", 0, 0);
        self.net.borrow_mut().heal();
        for node in 0..self.nodes.len() {
            self.nodes[node].stopped_until = 0;
            self.nodes[node].clock = self.nodes[node].clock.steady(now);
            self.wake(node);
        }
        let within = RECOVERY + self.net.borrow().time_for(self.shared.ledger.bytes_open());
        self.run_until("calls end, and nodes are there", within, World::has_calmed_down);
        self.probe();
        self.run_for(2 * SECONDS);
        self.rest();
        self.drain_all();
        self.last_judgement();
    }

    /// A turn for a node, or a life if it has none.
    fn wake(&mut self, node: usize) {
        let now = self.now();
        let mut net = self.net.borrow_mut();
        match self.nodes[node].life {
            Some(_) => net.turn_at(now + MICROS, node),
            None => net.at(now + MICROS, Wake::Start(node)),
        }
    }

    fn run_until(&mut self, what: &str, within: Time, mut is_done: impl FnMut(&World) -> bool) {
        let until = self.now() + within;
        while !is_done(self) {
            let is_late = !self.step() || self.now() >= until;
            assert!(!is_late, "{what}: not within its time: {:#?}", self.what_is_left());
        }
    }

    fn what_is_left(&self) -> Vec<String> {
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        lives.map(|life| life.app.what_is_left(&life.end)).collect()
    }

    fn run_for(&mut self, span: Time) {
        let until = self.now() + span;
        self.net.borrow_mut().at(until, Wake::Listen(0));
        while self.now() < until && self.step() {}
    }

    fn has_calmed_down(&self) -> bool {
        let is_up = |life: &crate::node::Life| !life.is_draining && life.app.is_at_rest();
        self.nodes.iter().all(|node| node.life.as_ref().is_some_and(is_up))
    }

    /// Every node gets an answer from everyone that it is to be connected to.
    fn probe(&mut self) {
        let until = self.now() + RECOVERY;
        for node in 0..self.nodes.len() {
            for dial in 0..self.nodes[node].targets.len() {
                if self.can_be_asked(node, dial) {
                    self.probe_one(node, dial, until);
                }
            }
        }
    }

    /// Whether a connection lives long enough for a question: where a few bytes at a time get through, those that are
    /// drained while they are young may never come to it.
    fn can_be_asked(&self, node: usize, dial: usize) -> bool {
        let target = self.nodes[node].targets[dial];
        let life = [node, target].map(|node| self.nodes[node].sizes.shortest_life);
        self.net.borrow().time_for(PROBE_BYTES) <= life[0].min(life[1])
    }

    fn probe_one(&mut self, node: usize, dial: usize, until: Time) {
        loop {
            let now = self.now();
            assert!(now < until, "node {node} does not get an answer by its connection {dial}");
            let (mut ok, mut wait) = (None, PROBE_AGAIN);
            let clock = self.nodes[node].clock;
            if let Some(life) = &mut self.nodes[node].life {
                ok = Some(life.app.probes_ok);
                if life.app.probe(&mut life.end, &mut self.shared, clock.read(now), dial) {
                    wait = SECONDS + PROBE_AGAIN;
                }
            }
            self.wake(node);
            let next = now + wait;
            self.net.borrow_mut().at(next, Wake::Listen(node));
            loop {
                let life = self.nodes[node].life.as_ref();
                let is_ok = life.map(|life| life.app.probes_ok) > ok && ok.is_some();
                if is_ok {
                    return;
                }
                if self.now() >= next || !self.step() {
                    break;
                }
            }
        }
    }

    /// Connections at rest have all their credit back.
    fn rest(&mut self) {
        let links: Vec<LinkId> = self.ends.keys().copied().collect();
        // Where little gets through, answers to calls that were given up may take as long as anything.
        let within = if self.net.borrow().is_fast() { QUIET } else { RECOVERY };
        for link in links {
            // A keepalive may be under way just now, or an answer that nobody waits for any more, on a socket
            // that takes a few bytes at a time.
            let is_quiet = |world: &World| {
                let is_empty = !world.net.borrow().links[link].pipes.iter().any(Pipe::has_bytes);
                world.at_rest(link).is_none_or(|pair| pair.is_quiet() && is_empty)
            };
            let queued = self.at_rest(link).map_or(0, |pair| pair.bytes_queued());
            let within = within + self.net.borrow().time_for(queued as u64);
            self.run_until("bytes that wait leave", within, is_quiet);
            let Some(pair) = self.at_rest(link) else { continue };
            oracle::at_rest(&pair);
            self.shared.marks.hit(Mark::CreditBack);
        }
    }

    /// Both ends of a connection that is there and has nothing to do.
    fn at_rest(&self, link: LinkId) -> Option<Pair<'_>> {
        let [Some(client), Some(server)] = *self.ends.get(&link)? else { return None };
        let mut pair = [client, server].into_iter().map(|(index, lives, handle)| {
            let node = &self.nodes[index];
            let life = node.life.as_ref().filter(|_| node.lives == lives)?;
            let connection = life.end.connection(handle)?;
            let is_at_rest = life.app.is_at_rest() && connection.is_open();
            is_at_rest.then_some((connection, &node.sizes))
        });
        Some(Pair([pair.next()??, pair.next()??]))
    }

    fn drain_all(&mut self) {
        self.is_final = true;
        for node in 0..self.nodes.len() {
            self.drain(node);
        }
        // Answers that nobody waits for any more leave all the same, also those of connections that were to end anyway.
        let within = DRAIN + self.net.borrow().time_for(self.bytes_queued());
        self.run_until("nodes drain", within, |world| {
            world.nodes.iter().all(|node| node.life.is_none())
        });
        // Nothing is left that would ever happen.
        self.run_for(100 * MILLIS);
    }

    /// The most that waits to be sent on a connection.
    fn bytes_queued(&self) -> u64 {
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        let connections = lives
            .flat_map(|life| life.end.handles().filter_map(|handle| life.end.connection(handle)));
        connections.map(|connection| connection.bytes_queued() as u64).max().unwrap_or(0)
    }

    fn last_judgement(&mut self) {
        assert_eq!(self.shared.ledger.open, 0, "calls have not ended");
        let net = self.net.borrow();
        for (call, entry) in self.shared.ledger.calls.iter().enumerate() {
            let is_kept = entry.flags & request_flags::ONE_WAY != 0
                && entry.was_sent
                && entry.timeout_us > 1_000_000_000
                && entry.plan.how != crate::bodies::How::Refuse
                && !net.links[entry.link].is_disturbed
                && net.is_fast()
                && !self.has_little_memory(entry.link)
                && !self.shared.refusing.contains(&entry.link);
            if is_kept {
                assert_eq!(entry.runs, 1, "one-way call {call} was lost, and nothing happened");
                self.shared.marks.hit(Mark::OneWayKept);
            }
        }
        self.shared.marks.add(&net.marks);
    }
}
