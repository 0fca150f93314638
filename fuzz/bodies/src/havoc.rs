//! Damages inputs, always in the same way: what a test can do of libFuzzer's work.

use ringcall_core::{Entropy, SplitMix64};

/// No input grows beyond this.
pub const LEN_MAX: usize = 4096;

/// Numbers at which something ends.
const EDGES: [u64; 12] =
    [0, 1, 15, 16, 0x7f, 0x80, 0xff, 0x7fff, 0xffff, 0x7fff_ffff, 0xffff_ffff, u64::MAX];

/// Makes inputs out of others.
#[derive(Clone, Debug)]
pub struct Havoc {
    rng: SplitMix64,
}

impl Havoc {
    /// The same seed makes the same inputs.
    #[must_use]
    pub fn new(seed: u64) -> Havoc {
        Havoc { rng: SplitMix64::new(seed) }
    }

    /// One of the inputs, damaged in a few places; sometimes random bytes.
    pub fn next(&mut self, inputs: &[Vec<u8>]) -> Vec<u8> {
        if inputs.is_empty() || self.below(16) == 0 {
            let len = 1 << self.below(10);
            return (0..len).map(|_| self.rng.next_u64() as u8).collect();
        }
        let mut input = inputs[self.below(inputs.len())].clone();
        for _ in 0..=self.below(4) {
            self.damage(&mut input, inputs);
        }
        input.truncate(LEN_MAX);
        input
    }

    fn damage(&mut self, input: &mut Vec<u8>, inputs: &[Vec<u8>]) {
        if input.is_empty() {
            return input.push(self.rng.next_u64() as u8);
        }
        let (at, any) = (self.below(input.len()), self.rng.next_u64());
        match self.below(9) {
            0 | 1 => input[at] ^= 1 << (any % 8),
            2 => input[at] = any as u8,
            3 => input[at] = input[at].wrapping_add((any % 17) as u8).wrapping_sub(8),
            4 => {
                // Where numbers are in everything that is sent: at a multiple of their length.
                let len = 1 << (any % 4);
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let at = at / len * len;
                for (to, from) in input[at..].iter_mut().zip(&edge[..len]) {
                    *to = *from;
                }
            }
            5 => input.truncate(at),
            6 => {
                let end = at + self.below(input.len() - at) + 1;
                let part = input[at..end].to_vec();
                let to = self.below(input.len());
                input.splice(to..to, part);
            }
            7 => drop(input.drain(at..at + self.below(input.len() - at))),
            _ => {
                let other = &inputs[self.below(inputs.len())];
                let from = self.below(other.len() + 1);
                input.truncate(at);
                input.extend_from_slice(&other[from..]);
            }
        }
    }

    fn below(&mut self, n: usize) -> usize {
        self.rng.below(n as u64) as usize
    }
}
