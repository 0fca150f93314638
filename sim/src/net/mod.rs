//! The network: connections between nodes, and the calendar of what happens when.

mod faults;
mod pipe;

use std::cmp::Reverse;
use std::collections::{BTreeSet, BinaryHeap, VecDeque};

use ringcall_core::Segment;

use crate::clock::{MICROS, MILLIS, SECONDS, Time};
use crate::knobs::{Fault, Knobs};
use crate::marks::Marks;
use crate::rng::{Rng, mix};
pub(crate) use pipe::{Cut, NEVER, Pipe, Readable, Slow};

/// Names a connection of the network.
pub(crate) type LinkId = usize;

/// What happens at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Wake {
    /// A node has its turn.
    Turn(usize),
    /// A connection's first packet reaches its server.
    Syn(LinkId),
    /// A node begins its next life.
    Start(usize),
    /// Some application does something.
    Act,
    /// A fault of the kind with this index.
    Fault(usize),
    /// A node's listener goes on.
    Listen(usize),
}

#[derive(Debug)]
pub(crate) struct Link {
    /// Client and server.
    pub(crate) nodes: [usize; 2],
    /// From the client, and from the server.
    pub(crate) pipes: [Pipe; 2],
    /// When an end learns of a reset.
    reset_at: [Time; 2],
    /// The end's socket is closed.
    gone: [bool; 2],
    pub(crate) connected: Connected,
    delay: Time,
    /// A fault has befallen it, or one of its nodes: it may be given up, and calls on it fail.
    pub(crate) is_disturbed: bool,
    /// Bytes of it were lost.
    pub(crate) is_cut: bool,
}

/// How far a connection is on its way, for its client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Connected {
    Pending,
    At(Time),
    Refused(Time),
}

/// A machine as the network sees it.
#[derive(Debug, Default)]
pub(crate) struct Port {
    /// A process listens.
    pub(crate) is_listening: bool,
    /// The machine is on.
    pub(crate) is_up: bool,
    pub(crate) paused_until: Time,
    pub(crate) refuses_until: Time,
    pub(crate) accept_queue: VecDeque<LinkId>,
    /// Until when connections of it may suffer.
    pub(crate) disturbed_until: Time,
}

#[derive(Debug)]
pub(crate) struct Net {
    pub(crate) now: Time,
    pub(crate) links: Vec<Link>,
    pub(crate) ports: Vec<Port>,
    pub(crate) knobs: Knobs,
    pub(crate) rng: Rng,
    pub(crate) marks: Marks,
    /// Until when nothing gets from one node to another.
    pub(crate) partitions: Vec<Vec<Time>>,
    /// How much gets through a direction.
    bytes_a_second: u64,
    calendar: BinaryHeap<Reverse<(Time, u64, Wake)>>,
    entries: u64,
    /// All that was written, and by whom, as one number; what it says too, if that is asked for.
    pub(crate) written: u64,
    pub(crate) reads_along: bool,
    /// The turns that are in the calendar for each node.
    turns: Vec<BTreeSet<Time>>,
}

/// Stands for a reset, when somebody touches a connection that had one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct WasReset;

impl Net {
    pub(crate) fn new(seed: u64, knobs: Knobs) -> Net {
        let nodes = knobs.nodes;
        let there_and_back = 2 * (knobs.delay + knobs.jitter);
        let bytes_a_second = knobs.socket_bytes as u64 * SECONDS / there_and_back;
        Net {
            bytes_a_second,
            now: 0,
            links: Vec::new(),
            ports: (0..nodes).map(|_| Port::default()).collect(),
            rng: Rng::new(seed, 2),
            marks: Marks::default(),
            partitions: vec![vec![0; nodes]; nodes],
            calendar: BinaryHeap::new(),
            entries: 0,
            written: 0,
            reads_along: false,
            turns: vec![BTreeSet::new(); nodes],
            knobs,
        }
    }

    // ---- the calendar ----

    pub(crate) fn at(&mut self, time: Time, wake: Wake) {
        if time == NEVER {
            return;
        }
        if let Wake::Turn(node) = wake {
            // One turn does for all that is due then.
            if !self.turns[node].insert(time.max(self.now)) {
                return;
            }
        }
        self.entries += 1;
        self.calendar.push(Reverse((time.max(self.now), self.entries, wake)));
    }

    pub(crate) fn turn_at(&mut self, time: Time, node: usize) {
        self.at(time, Wake::Turn(node));
    }

    pub(crate) fn next(&mut self) -> Option<(Time, Wake)> {
        let Reverse((time, _, wake)) = self.calendar.pop()?;
        self.now = self.now.max(time);
        if let Wake::Turn(node) = wake {
            self.turns[node].remove(&time);
        }
        Some((self.now, wake))
    }

    /// Whether a fault of an operation happens now.
    pub(crate) fn strikes(&mut self, fault: Fault) -> bool {
        let chance = self.knobs.chance(fault);
        let strikes = self.rng.chance(chance);
        if strikes {
            self.marks.fault(fault);
        }
        strikes
    }

    fn way(&mut self, delay: Time) -> Time {
        let jitter = self.knobs.jitter;
        delay + if jitter > 0 { self.rng.below(jitter) } else { 0 }
    }

    // ---- connecting ----

    pub(crate) fn connect(&mut self, from: usize, to: usize) -> LinkId {
        let capacity = self.knobs.socket_bytes;
        let delay = self.knobs.delay;
        let id = self.links.len();
        let mut pipes = [Pipe::new(capacity), Pipe::new(capacity)];
        pipes[0].held_until = self.partitions[from][to];
        pipes[1].held_until = self.partitions[to][from];
        let until = self.ports[from].disturbed_until.max(self.ports[to].disturbed_until);
        let is_disturbed = until > self.now || pipes.iter().any(|pipe| pipe.held_until > self.now);
        self.links.push(Link {
            nodes: [from, to],
            pipes,
            reset_at: [NEVER; 2],
            gone: [false; 2],
            connected: Connected::Pending,
            delay,
            is_disturbed: is_disturbed || !self.is_fast(),
            is_cut: false,
        });
        let at = self.now + self.way(delay);
        if self.strikes(Fault::SynLoss) {
            self.links[id].is_disturbed = true;
        } else {
            let at = at.max(self.partitions[from][to]);
            self.at(at, Wake::Syn(id));
        }
        id
    }

    /// A connection's first packet has reached its server.
    pub(crate) fn syn(&mut self, id: LinkId) {
        let [client, server] = self.links[id].nodes;
        let back = self.now + self.links[id].delay;
        let back = back.max(self.partitions[server][client]);
        let port = &mut self.ports[server];
        if !port.is_up || !port.is_listening || port.paused_until > self.now {
            self.links[id].is_disturbed = true;
        }
        if !port.is_up || self.links[id].gone[0] {
            return;
        }
        if !port.is_listening || port.refuses_until > self.now {
            self.links[id].is_disturbed = true;
            self.links[id].connected = Connected::Refused(back);
        } else {
            port.accept_queue.push_back(id);
            self.links[id].connected = Connected::At(back);
            if self.strikes(Fault::AcceptDeath) {
                self.reset(id);
            }
            self.turn_at(self.now + MICROS, server);
        }
        self.turn_at(back, client);
    }

    /// A connection that waits to be accepted.
    pub(crate) fn accept(&mut self, node: usize) -> Option<LinkId> {
        let now = self.now;
        let port = &mut self.ports[node];
        if port.paused_until > now { None } else { port.accept_queue.pop_front() }
    }

    // ---- bytes ----

    /// Writes what there is room for; says how many bytes.
    pub(crate) fn write(
        &mut self,
        id: LinkId,
        end: usize,
        segments: &mut VecDeque<Segment>,
        most: usize,
    ) -> Result<usize, WasReset> {
        if self.is_reset(id, end) {
            return Err(WasReset);
        }
        let link = &mut self.links[id];
        if link.gone[1 - end] || link.pipes[end].cut.is_some_and(|(left, _)| left == 0) {
            // Nobody is there any more: it is lost, and the answer is a reset.
            let n = segments.iter().map(Segment::len).sum();
            segments.clear();
            let other = link.nodes[1 - end];
            if self.ports[other].is_up {
                self.reset_end(id, end, 2);
            }
            return Ok(n);
        }
        let pipe = &mut link.pipes[end];
        let mut room = pipe.room().min(most);
        let (mut written, mut said) = (0, 0u64);
        while let Some(segment) = segments.front_mut()
            && room > 0
        {
            let n = segment.len().min(room);
            let bytes = segment.as_slice().expect("applications of the simulator send memory");
            pipe.put(&bytes[..n]);
            if self.reads_along {
                said = bytes[..n].iter().fold(said, |said, byte| {
                    (said ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3)
                });
            }
            if n == bytes.len() {
                segments.pop_front();
            } else {
                let _written = segment.split_to(n);
            }
            written += n;
            room -= n;
        }
        pipe.sender_waits = !segments.is_empty();
        self.written =
            mix(self.written ^ said ^ written as u64 ^ (id as u64) << 32 ^ (end as u64) << 63);
        self.launch(id, end, written);
        Ok(written)
    }

    /// Cuts what was written into pieces that arrive one after another.
    fn launch(&mut self, id: LinkId, end: usize, mut n: usize) {
        let (delay, reader) = (self.links[id].delay, self.links[id].nodes[1 - end]);
        let pieces = if self.knobs.jitter == 0 { 1 } else { self.rng.between(1, 4) };
        for piece in 0..pieces {
            if n == 0 {
                return;
            }
            let len = if piece + 1 == pieces { n } else { 1 + self.rng.below(n as u64) as usize };
            let at = self.now + self.way(delay);
            let at = self.links[id].pipes[end].launch(len, at);
            self.turn_at(at, reader);
            n -= len;
        }
    }

    pub(crate) fn readable(&mut self, id: LinkId, end: usize) -> Result<Readable, WasReset> {
        if self.is_reset(id, end) {
            return Err(WasReset);
        }
        let now = self.now;
        let link = &mut self.links[id];
        if let Some((0, Cut::Reset)) = link.pipes[1 - end].cut {
            self.reset_end(id, end, 0);
            self.reset_end(id, 1 - end, 1);
            return Err(WasReset);
        }
        let reader = link.nodes[end];
        let readable = link.pipes[1 - end].readable(now);
        if let Readable::Later(at) = readable {
            self.turn_at(at, reader);
        }
        Ok(readable)
    }

    pub(crate) fn read(&mut self, id: LinkId, end: usize, n: usize, into: impl FnMut(&[u8])) {
        let link = &mut self.links[id];
        let pipe = &mut link.pipes[1 - end];
        pipe.take(n, into);
        if std::mem::take(&mut pipe.sender_waits) {
            let (sender, at) = (link.nodes[1 - end], self.now + link.delay);
            self.turn_at(at, sender);
        }
    }

    // ---- ends ----

    pub(crate) fn shutdown(&mut self, id: LinkId, end: usize) {
        let at = self.now + self.links[id].delay;
        let at = self.links[id].pipes[end].end(at);
        let reader = self.links[id].nodes[1 - end];
        self.turn_at(at, reader);
    }

    /// Closes one end. With bytes that it has not read the other end gets a reset, as with real sockets.
    pub(crate) fn close(&mut self, id: LinkId, end: usize) {
        if std::mem::replace(&mut self.links[id].gone[end], true) {
            return;
        }
        if self.links[id].pipes[1 - end].has_bytes() {
            self.links[id].pipes[1 - end].clear();
            self.reset_end(id, 1 - end, 1);
        } else {
            self.shutdown(id, end);
        }
    }

    /// One end is gone without a word.
    pub(crate) fn vanish(&mut self, id: LinkId, end: usize) {
        let link = &mut self.links[id];
        link.gone[end] = true;
        link.is_disturbed = true;
    }

    /// Both ends get a reset.
    pub(crate) fn reset(&mut self, id: LinkId) {
        self.links[id].is_disturbed = true;
        self.links[id].is_cut = true;
        self.reset_end(id, 0, 1);
        self.reset_end(id, 1, 1);
    }

    pub(crate) fn reset_end(&mut self, id: LinkId, end: usize, ways: u64) {
        let link = &mut self.links[id];
        link.is_cut = true;
        // What comes from the other side is held up with everything else.
        let held = link.pipes[1 - end].held_until;
        let at = (self.now + link.delay * ways).max(if ways > 0 { held } else { 0 });
        link.reset_at[end] = link.reset_at[end].min(at);
        let node = link.nodes[end];
        self.turn_at(at, node);
    }

    pub(crate) fn is_reset(&self, id: LinkId, end: usize) -> bool {
        self.links[id].reset_at[end] <= self.now
    }

    /// Links of which neither end is gone.
    pub(crate) fn live(&self) -> impl DoubleEndedIterator<Item = LinkId> + '_ {
        let is_live = |link: &Link| link.gone == [false; 2] && link.reset_at == [NEVER; 2];
        self.links.iter().enumerate().filter(move |(_, link)| is_live(link)).map(|(id, _)| id)
    }

    /// Whether what is asked is answered long before anybody stops waiting. With less nobody can tell it from a
    /// stall.
    pub(crate) fn is_fast(&self) -> bool {
        self.bytes_a_second >= 1 << 20
    }

    /// How long so many bytes take at most: with what is around them, and half as much again because they wait
    /// for credit.
    pub(crate) fn time_for(&self, bytes: u64) -> Time {
        3 * bytes * SECONDS / self.bytes_a_second.max(1)
    }

    /// A machine is on again: whoever still sends to its former life gets a reset.
    pub(crate) fn machine_is_up(&mut self, node: usize) {
        self.ports[node].is_up = true;
        for id in 0..self.links.len() {
            for end in 0..2 {
                let link = &self.links[id];
                let was_here = link.nodes[end] == node && link.gone[end] && !link.gone[1 - end];
                if was_here
                    && link.pipes[1 - end].has_bytes()
                    && link.pipes[end].held_until != NEVER
                {
                    self.reset_end(id, 1 - end, 1);
                }
            }
        }
    }

    /// All connections of a node may suffer until then.
    pub(crate) fn disturb(&mut self, node: usize, until: Time) {
        let port = &mut self.ports[node];
        port.disturbed_until = port.disturbed_until.max(until);
        for link in self.links.iter_mut().filter(|link| link.nodes.contains(&node)) {
            link.is_disturbed = true;
        }
    }

    /// Nothing gets through one direction until then.
    pub(crate) fn hold(&mut self, id: LinkId, from: usize, until: Time) {
        let link = &mut self.links[id];
        link.is_disturbed = true;
        link.pipes[from].held_until = link.pipes[from].held_until.max(until);
        let reader = link.nodes[1 - from];
        self.turn_at(until, reader);
    }

    /// Nothing is held up any more, but for what is lost for ever.
    pub(crate) fn heal(&mut self) {
        self.knobs.heal();
        self.knobs.jitter = self.knobs.jitter.min(MILLIS);
        let now = self.now;
        for row in &mut self.partitions {
            row.fill(0);
        }
        for id in 0..self.links.len() {
            for from in 0..2 {
                let pipe = &mut self.links[id].pipes[from];
                pipe.slow = None;
                // What was not cut yet will not be.
                pipe.cut = pipe.cut.filter(|(left, _)| *left == 0);
                if pipe.held_until != NEVER {
                    pipe.held_until = now;
                }
                let reader = self.links[id].nodes[1 - from];
                self.turn_at(now + MICROS, reader);
            }
        }
        for port in &mut self.ports {
            (port.paused_until, port.refuses_until) = (0, 0);
        }
    }
}
