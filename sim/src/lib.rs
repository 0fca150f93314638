//! The deterministic simulator: real endpoints of `ringcall-core` on a virtual network with virtual clocks,
//! everything from one seed.
//!
//! A seed draws nodes, their settings, what their applications do, which faults there are, and how often.
//! The nodes then run through chaos, in which only what must always hold is checked; afterwards faults
//! stop, and everything must come to a good end: calls end, connections come back, credit and memory,
//! too. See ARCHITECTURE.md, "Simulation", and docs/SIMULATION.md.
//!
//! ```
//! use ringcall_sim::{Options, run};
//!
//! let report = run(7, &Options::default()).expect("seed 7 holds");
//! assert_eq!(report.hash, run(7, &Options::default()).unwrap().hash);
//! ```

#![forbid(unsafe_code)]

mod app;
mod bodies;
mod clock;
mod faults;
mod heal;
mod knobs;
mod ledger;
mod marks;
mod minimise;
mod net;
mod node;
mod oracle;
mod panics;
mod rng;
mod shared;
mod stage;
mod transport;
mod world;

pub use knobs::{Fault, FaultSet};
pub use marks::{Mark, Marks};
pub use minimise::minimise;
pub use panics::{catch, take_caught};
pub use stage::{Stage, Step};
pub use transport::{Accepted, SimTransport};
use world::World;

/// What a run of a seed may do.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// How many events there are before faults stop.
    pub events: u64,
    /// Faults that are off whatever the seed says.
    pub without: FaultSet,
    /// Whether every event is written to standard error.
    pub is_loud: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { events: 5_000, without: FaultSet::default(), is_loud: false }
    }
}

/// What a seed has come to.
#[derive(Clone, Copy, Debug)]
pub struct Report {
    /// Everything that happened, as one number: the same seed gives the same one.
    pub hash: u64,
    /// How many events there were, healing included.
    pub events: u64,
    /// How many calls were made.
    pub calls: u64,
    /// How long it took in the simulation, in nanoseconds.
    pub simulated_ns: u64,
    /// The most that a node has held of what it may hold, in thousandths.
    pub memory_worst: u64,
    /// What came about.
    pub marks: Marks,
}

/// A seed under which something does not hold.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What does not hold, and where that was noticed.
    pub message: String,
    /// How many events had happened.
    pub events: u64,
}

/// Runs a seed.
///
/// # Errors
/// [`Failure`] when something does not hold, or panics.
pub fn run(seed: u64, options: &Options) -> Result<Report, Failure> {
    let mut world = World::new(seed, options);
    let outcome = catch(|| world.run());
    let events = world.shared.events;
    if let Err(message) = outcome {
        // What the endpoints were in the middle of is not touched again.
        std::mem::forget(world);
        return Err(Failure { seed, message, events });
    }
    Ok(Report {
        hash: world.shared.hash,
        events,
        calls: world.shared.ledger.calls.len() as u64,
        simulated_ns: world.now(),
        memory_worst: world.shared.memory_worst,
        marks: world.shared.marks,
    })
}
