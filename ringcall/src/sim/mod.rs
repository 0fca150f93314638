//! A simulator for services: real shards, typed clients and handlers on a virtual network with virtual clocks, under
//! faults, everything from one seed. A test that fails, fails again.
//!
//! ```
//! use ringcall::sim;
//! # use ringcall::View;
//! # #[ringcall::message]
//! # pub struct Name { pub of: String }
//! # #[ringcall::service]
//! # pub trait Greeter { async fn greet(&self, name: View<Name>) -> Name; }
//! # struct Polite;
//! # impl Greeter for Polite {
//! #     async fn greet(&self, name: View<Name>) -> Name {
//! #         Name { of: format!("Hello {}!", name.of) }
//! #     }
//! # }
//!
//! sim::check(0..20, |world| {
//!     world.server("greeter", |shard| shard.serve(Polite.into_greeter()));
//!     world.client("anna", |shard| async move {
//!         let Ok(client) = shard.connect("greeter").await else { return };
//!         let greeter = GreeterClient::new(client);
//!         for _ in 0..10 {
//!             if let Ok(answer) = greeter.greet(&Name { of: "Anna".into() }).await {
//!                 assert_eq!(answer.of.as_str(), "Hello Anna!");
//!             }
//!             shard.sleep(std::time::Duration::from_millis(50)).await;
//!         }
//!     });
//! });
//! ```
//!
//! # What happens
//!
//! Each seed draws which faults there are and how often: bytes that stop, are lost, come one a second; connections
//! that break at any byte; partitions of one direction; servers that crash, vanish, are stopped or drained, and start
//! again; clocks with paces of their own, that jump; operations that complete late, short, not at all. Each is off
//! for half of the seeds. For a minute of the simulation there are faults; then they stop, and all clients must come
//! to their end within five minutes. A seed takes milliseconds.
//!
//! # What fails
//!
//! An assertion of a client or a handler, or any other panic; a client that does not end; a task that wakes itself
//! without end; a server that cannot be drained; and, for one seed in fifty, doing something else when it is run
//! again. The failure is made smaller, by leaving faults out, and told with what repeats it:
//! `RINGCALL_SIM_SEED=17` runs that seed instead of the test's, `RINGCALL_SIM_SEED=1000..9000` these, and
//! `RINGCALL_SIM_FAULTS=Crash,Slow` leaves all other faults out.
//!
//! # What is real
//!
//! Everything from the protocol up: shards, handlers, filters, clients of all kinds (a [`Client`](crate::Client) uses
//! its node's shard), balanced channels, streams, deadlines, retries. Names of nodes are addresses. Handlers on the
//! pool of threads run one after another, between turns.
//!
//! # What is not
//!
//! The engines, the kernel and threads. What a service asks of the machine itself, its clock, random numbers, files,
//! other crates' sockets and timers, is the machine's: use the shard's sleep, and draw from [`World::seed`]. Nothing
//! may block: no `wait()`, no [`Shard::run`](crate::Shard::run), and handlers on the pool may not await anything.
//! TLS draws its keys itself, so its seeds do not repeat.

mod engine;
mod here;
mod node;
mod world;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use ringcall_sim::catch;
pub use ringcall_sim::{Fault, FaultSet};

pub(crate) use engine::Simulated;
pub(crate) use here::{background, is_simulated, now, offload, random, resolve, with_tables};
use world::Ran;
pub use world::World;

/// Of so many seeds one is run twice, and must do the same.
const TWICE_EVERY: u64 = 50;
/// Runs this seed, or these, instead of those of the test.
const SEED_VARIABLE: &str = "RINGCALL_SIM_SEED";
/// Leaves out all other faults.
const FAULTS_VARIABLE: &str = "RINGCALL_SIM_FAULTS";

/// Runs the world that `setup` describes for each of the seeds, and panics with the first [`Failure`].
///
/// # Panics
/// When a seed does not hold, see [the module](self).
pub fn check(seeds: impl IntoIterator<Item = u64>, setup: impl Fn(&mut World)) {
    if let Err(failure) = find(seeds, setup) {
        panic!("{failure}");
    }
}

/// The same, for whoever wants to look at the failure.
///
/// # Errors
/// The first seed that does not hold, made smaller.
///
/// # Panics
/// When the environment names a fault that there is not, or seeds that are no numbers.
pub fn find(
    seeds: impl IntoIterator<Item = u64>,
    setup: impl Fn(&mut World),
) -> Result<Summary, Failure> {
    let without = left_out();
    let mut summary = Summary::default();
    let try_seed = |seed: u64| {
        let ran = run(seed, without, &setup)
            .map_err(|message| minimise(seed, without, message, &setup))?;
        if summary.seeds.is_multiple_of(TWICE_EVERY) {
            repeat(seed, without, ran.hash, &setup)?;
        }
        summary.add(&ran);
        Ok(())
    };
    match asked_for() {
        Some(mut seeds) => seeds.try_for_each(try_seed)?,
        None => seeds.into_iter().try_for_each(try_seed)?,
    }
    Ok(summary)
}

/// The faults that the environment leaves out.
fn left_out() -> FaultSet {
    match std::env::var(FAULTS_VARIABLE).as_deref() {
        Err(_) => FaultSet::default(),
        Ok("none") => FaultSet::default().complement(),
        Ok(names) => match FaultSet::parse(names) {
            Ok(faults) => faults.complement(),
            Err(why) => {
                panic!("{FAULTS_VARIABLE}: {why}; write none, or names with commas between them")
            }
        },
    }
}

/// The seeds that the environment asks for.
fn asked_for() -> Option<Range<u64>> {
    let text = std::env::var(SEED_VARIABLE).ok()?;
    let range = match text.split_once("..") {
        Some((from, to)) => from.parse().ok().zip(to.parse().ok()).map(|(from, to)| from..to),
        None => text.parse().ok().map(|seed| seed..seed + 1),
    };
    Some(range.unwrap_or_else(|| panic!("{SEED_VARIABLE}={text:?}: write a seed, or FROM..TO")))
}

fn run(seed: u64, without: FaultSet, setup: &impl Fn(&mut World)) -> Result<Ran, String> {
    catch(|| {
        let mut world = World::new(seed, without);
        setup(&mut world);
        world.run()
    })?
}

fn repeat(
    seed: u64,
    without: FaultSet,
    hash: u64,
    setup: &impl Fn(&mut World),
) -> Result<(), Failure> {
    let again = run(seed, without, setup);
    if again.is_ok_and(|again| again.hash == hash) {
        return Ok(());
    }
    let message = "the same seed does something else the second time: do the services ask the machine for the time, \
                   random numbers or threads, or keep something between two runs?";
    Err(Failure { seed, message: message.to_owned(), faults: without.complement() })
}

/// Leaves out what the failure does not need.
fn minimise(
    seed: u64,
    mut without: FaultSet,
    message: String,
    setup: &impl Fn(&mut World),
) -> Failure {
    let mut failure = Failure { seed, message, faults: FaultSet::default() };
    for &fault in Fault::ALL {
        if without.has(fault) {
            continue;
        }
        match run(seed, without.with(fault), setup) {
            Err(message) => {
                without = without.with(fault);
                failure.message = message;
            }
            Ok(_) => failure.faults = failure.faults.with(fault),
        }
    }
    failure
}

/// What seeds came to that hold.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub struct Summary {
    /// How many there were.
    pub seeds: u64,
    /// How many faults have happened in them, those of single operations not counted.
    pub faults: u64,
    /// The kinds of faults that were on in some of them.
    pub kinds: FaultSet,
    /// How long they took in the simulation.
    pub simulated: Duration,
}

impl Summary {
    fn add(&mut self, ran: &Ran) {
        self.seeds += 1;
        self.faults += ran.struck as u64;
        self.kinds = self.kinds.and(ran.faults);
        self.simulated += ran.time;
    }
}

/// A seed that does not hold. Written out, it says what repeats it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Failure {
    /// The seed.
    pub seed: u64,
    /// What panicked, or did not come to its end.
    pub message: String,
    /// The faults that it needs; all others can be left out.
    pub faults: FaultSet,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "seed {} fails: {}", self.seed, self.message)?;
        let names = match self.faults == FaultSet::default() {
            true => "none".to_owned(),
            false => self.faults.names(),
        };
        write!(f, "  to repeat it: {SEED_VARIABLE}={} {FAULTS_VARIABLE}={names}", self.seed)
    }
}

impl std::error::Error for Failure {}
