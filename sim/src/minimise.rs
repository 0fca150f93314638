//! A failing seed is easier to read with fewer events and fewer faults.

use crate::{Failure, Fault, Options, run};

/// Looks for fewer events and fewer faults with which the seed still fails, in any way, and says how it
/// fails then.
#[must_use]
pub fn minimise(failure: Failure, options: &Options) -> (Options, Failure) {
    let mut best = (Options { is_loud: false, ..*options }, failure);
    let seed = best.1.seed;
    // What is there only to be in the way goes first, since with it go events.
    for &fault in Fault::ALL {
        let tried = Options { without: best.0.without.with(fault), ..best.0 };
        if let Err(failure) = run(seed, &tried) {
            best = (tried, failure);
        }
    }
    // Faults stop as soon as they can.
    let mut step = best.0.events.min(best.1.events + 1);
    while step > 0 {
        let events = best.0.events.saturating_sub(step);
        let tried = Options { events, ..best.0 };
        match run(seed, &tried) {
            Err(failure) if events > 0 => best = (tried, failure),
            _ => step /= 2,
        }
    }
    best
}
