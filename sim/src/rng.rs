//! Random numbers, all from the seed. Integers only, so that every machine draws the same.

use ringcall_core::{Entropy, SplitMix64};

/// A seeded stream of random numbers.
#[derive(Clone, Debug)]
pub(crate) struct Rng(SplitMix64);

impl Rng {
    /// The stream with this name of a seed. Streams of one seed have nothing to do with each other, so that
    /// what one of them is asked changes no other.
    pub(crate) fn new(seed: u64, name: u64) -> Rng {
        Rng(SplitMix64::new(mix(seed ^ mix(name))))
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0.next_u64()
    }

    /// A number below `bound`, or zero.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.below(high - low + 1)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    /// Whether something with this chance, in 65 536ths, happens. Draws nothing if it cannot.
    pub(crate) fn chance(&mut self, of_64k: u32) -> bool {
        of_64k > 0 && self.below(1 << 16) < u64::from(of_64k)
    }

    /// Between `low` and `high`, each order of magnitude as likely as any other.
    pub(crate) fn log_uniform(&mut self, low: u64, high: u64) -> u64 {
        let (from, to) = (low.max(1).ilog2(), high.max(1).ilog2());
        let bits = self.between(u64::from(from), u64::from(to)) as u32;
        let value = (1 << bits) + self.below(1 << bits);
        value.clamp(low, high)
    }

    pub(crate) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize]
    }
}

impl Entropy for Rng {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// Spreads a number's bits over all 64 (the finaliser of SplitMix64).
pub(crate) const fn mix(x: u64) -> u64 {
    let x = x.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}
