//! The calls that a world is offered: drawn by chance, or those that another run was offered.

use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{Entropy, Instant, SplitMix64};

/// How many keys there are.
const KEYS: u64 = 10_000;

/// A call that a client makes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Offered {
    /// When.
    pub at: Instant,
    /// Which client.
    pub client: u32,
    /// How much work it is, wherever it is done: 1 on average.
    pub cost: f32,
    /// What it is about.
    pub key: u64,
    /// It must not be made again when it may have run.
    pub runs_once: bool,
    /// Its argument fills large frames.
    pub is_large: bool,
}

/// All calls that a world was offered, in order.
pub type Trace = Arc<Vec<Offered>>;

/// Of so many calls one is of this kind; none if zero.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Shares {
    pub(crate) every_once: u64,
    pub(crate) every_large: u64,
}

/// Where calls come from.
#[derive(Debug)]
pub(crate) enum Offers {
    Drawn { rng: SplitMix64, count: u64, shares: Shares, recorded: Vec<Offered> },
    Replayed { trace: Trace, next: usize },
}

impl Offers {
    pub(crate) fn drawn(seed: u64, shares: Shares) -> Offers {
        let rng = SplitMix64::new(seed);
        Offers::Drawn { rng, count: 0, shares, recorded: Vec::new() }
    }

    pub(crate) fn replayed(trace: Trace) -> Offers {
        Offers::Replayed { trace, next: 0 }
    }

    /// A call of this client, now; nothing in a replay.
    pub(crate) fn draw(&mut self, now: Instant, client: usize) -> Option<Offered> {
        let Offers::Drawn { rng, count, shares, recorded } = self else { return None };
        let runs_once = shares.every_once > 0 && count.is_multiple_of(shares.every_once);
        // By chance, so that either kind is large.
        let is_large = shares.every_large > 0 && rng.below(shares.every_large) == 0;
        *count += 1;
        let cost = exponential(rng) as f32;
        let client = client as u32;
        let key = rng.below(KEYS);
        let offered = Offered { at: now, client, cost, key, runs_once, is_large };
        recorded.push(offered);
        Some(offered)
    }

    /// How long until a client makes its next call; nothing in a replay.
    pub(crate) fn pause(&mut self, mean: Duration) -> Option<Duration> {
        match self {
            Offers::Drawn { rng, .. } => Some(mean.mul_f64(exponential(rng))),
            Offers::Replayed { .. } => None,
        }
    }

    /// The next call of a replay.
    pub(crate) fn next(&mut self) -> Option<Offered> {
        let Offers::Replayed { trace, next } = self else { return None };
        let offered = trace.get(*next).copied();
        *next += 1;
        offered
    }

    /// What was offered so far.
    pub(crate) fn into_trace(self) -> Trace {
        match self {
            Offers::Drawn { recorded, .. } => Arc::new(recorded),
            Offers::Replayed { trace, .. } => trace,
        }
    }
}

/// Exponentially distributed, 1 on average.
fn exponential(rng: &mut SplitMix64) -> f64 {
    let uniform = (rng.next_u64() >> 11) as f64 / (1u64 << 53) as f64;
    -(1.0 - uniform).ln()
}
