//! Faults that befall the network at some time, whoever its nodes are.

use super::{Cut, LinkId, NEVER, Net, Slow, Wake};
use crate::clock::{MICROS, Time};
use crate::knobs::Fault;
use crate::rng::Rng;

impl Net {
    /// A fault happens, to a connection or to `node`. Says whether there was anything for it to befall.
    pub(crate) fn befall(&mut self, fault: Fault, node: usize, until: Time, rng: &mut Rng) -> bool {
        match fault {
            Fault::Stall | Fault::Blackhole | Fault::Slow | Fault::HalfClose | Fault::Reset => {
                self.strike_link(fault, until, rng)
            }
            Fault::Partition => self.partition(node, until, rng),
            Fault::Refuse => {
                self.ports[node].refuses_until = until;
                true
            }
            Fault::AcceptPause => {
                self.ports[node].paused_until = until;
                self.at(until, Wake::Listen(node));
                true
            }
            Fault::Spurious => {
                let now = self.now;
                self.turn_at(now, node);
                true
            }
            _ => false,
        }
    }

    fn strike_link(&mut self, fault: Fault, until: Time, rng: &mut Rng) -> bool {
        let live: Vec<LinkId> = self.live().rev().take(16).collect();
        if live.is_empty() {
            return false;
        }
        let link = rng.pick(&live);
        let from = rng.below(2) as usize;
        let now = self.now;
        match fault {
            Fault::Stall => self.hold(link, from, until),
            Fault::Blackhole => {
                self.hold(link, 0, NEVER);
                self.hold(link, 1, NEVER);
                self.links[link].is_cut = true;
            }
            Fault::Slow => {
                let bytes_a_second = rng.log_uniform(1, 1 << 16);
                self.links[link].is_disturbed = true;
                self.links[link].pipes[from].slow =
                    Some(Slow { bytes_a_second, since: now, until, taken: 0 });
            }
            _ => {
                let after = rng.log_uniform(1, 1 << 16) as usize - 1;
                let how = if fault == Fault::Reset { Cut::Reset } else { Cut::End };
                let touched = &mut self.links[link];
                (touched.is_disturbed, touched.is_cut) = (true, true);
                touched.pipes[from].cut.get_or_insert((after, how));
                let reader = touched.nodes[1 - from];
                self.turn_at(now + MICROS, reader);
            }
        }
        true
    }

    fn partition(&mut self, from: usize, until: Time, rng: &mut Rng) -> bool {
        let to = rng.below(self.ports.len() as u64) as usize;
        if from == to {
            return false;
        }
        self.partitions[from][to] = until;
        let links: Vec<LinkId> = self.live().collect();
        for link in links {
            match self.links[link].nodes {
                [client, server] if [client, server] == [from, to] => self.hold(link, 0, until),
                [client, server] if [server, client] == [from, to] => self.hold(link, 1, until),
                _ => {}
            }
        }
        true
    }
}
