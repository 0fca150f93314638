//! Faults that happen at some time: to a connection, to a node, to a pair of nodes.

use ringcall_core::CloseReason;

use crate::clock::{MICROS, MILLIS, SECONDS, Time};
use crate::knobs::{Fault, Knobs};
use crate::net::Wake;
use crate::node::Node;
use crate::world::World;

impl Knobs {
    /// Whether it is a fault that happens, and is on.
    pub(crate) fn happens(&self, fault: Fault) -> bool {
        self.rate(fault) > 0 && !fault.is_of_operations() && !fault.is_of_the_run()
    }
}

impl World {
    /// The next fault of this kind goes into the calendar.
    pub(crate) fn schedule(&mut self, fault: Fault) {
        let every = self.knobs.rate(fault);
        let wait = 1 + self.fault_rngs[fault as usize].below(2 * every);
        let at = self.now() + wait;
        self.net.borrow_mut().at(at, Wake::Fault(fault as usize));
    }

    pub(crate) fn strike(&mut self, fault: Fault) {
        let now = self.now();
        let rng = &mut self.fault_rngs[fault as usize];
        let span = self.knobs.span;
        let until = now + rng.log_uniform(MILLIS, span);
        let node = rng.below(self.nodes.len() as u64) as usize;
        let did = match fault {
            Fault::Crash | Fault::PowerLoss => self.crash(node, until, fault == Fault::PowerLoss),
            Fault::Stop => {
                self.nodes[node].stopped_until = until;
                self.net.borrow_mut().disturb(node, until);
                true
            }
            Fault::ClockJump => {
                let ahead = rng.log_uniform(MILLIS, 3600 * SECONDS);
                self.nodes[node].clock.jump(ahead);
                self.shared.clock_jumps += 1;
                let mut net = self.net.borrow_mut();
                net.disturb(node, now + 1);
                net.turn_at(now + MICROS, node);
                true
            }
            Fault::Drain => {
                let may = self.nodes[node].life.is_some();
                self.drain(node);
                may
            }
            Fault::Close => self.close_one(node),
            Fault::HoldItems => self.hold_items(node, until - now),
            _ => self.net.borrow_mut().befall(fault, node, until, rng),
        };
        if did {
            self.shared.marks.fault(fault);
            self.shared.note(node, "fault", fault as u64, until - now);
            if self.shared.is_loud {
                self.shared
                    .say(&format!("{} for {} ms", fault.name(), (until - now) / MILLIS), node);
            }
        }
    }

    fn crash(&mut self, node: usize, until: Time, silently: bool) -> bool {
        if self.nodes[node].life.is_none() {
            return false;
        }
        self.nodes[node].end(&self.net, &mut self.shared, silently);
        self.net.borrow_mut().at(until, Wake::Start(node));
        true
    }

    fn close_one(&mut self, node: usize) -> bool {
        let now = self.now();
        let rng = &mut self.fault_rngs[Fault::Close as usize];
        let Node { life: Some(life), clock, .. } = &mut self.nodes[node] else { return false };
        let n = life.app.connections.len() as u64;
        let Some((&handle, conn)) = life.app.connections.iter().nth(rng.below(n) as usize) else {
            return false;
        };
        let mut net = self.net.borrow_mut();
        net.links[conn.link].is_disturbed = true;
        net.links[conn.link].is_cut = true;
        net.turn_at(now + MICROS, node);
        if let Some(connection) = life.end.connection_mut(handle) {
            connection.close(clock.read(now), CloseReason::Local);
        }
        true
    }

    fn hold_items(&mut self, node: usize, span: Time) -> bool {
        let now = self.now();
        let Node { life: Some(life), clock, .. } = &mut self.nodes[node] else { return false };
        life.app.holds_until = clock.read(now) + std::time::Duration::from_nanos(span);
        true
    }
}
