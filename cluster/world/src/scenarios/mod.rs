//! Worlds with a script, and with figures that must hold.

mod faults;
mod lists;
mod load;
mod wide;

use std::ops::Range;

use crate::seen::{Figure, Seconds};
use crate::{Plan, Trace, World};

pub use faults::{
    CRASH, FAILS_FAST, LARGE_FRAMES, RETRY_STORM, ROLLING_RESTART, SLOW, ZONE_PARTITION,
};
pub use lists::{CANARY, EMPTY_PUSH, FLAPPING, SOURCE_OUTAGE, WARM_UP};
pub use load::{EVEN, HERD};
pub use wide::{WIDE, WIDE_CRASH, WIDE_FAILS_FAST, WIDE_RESTART, WIDE_SLOW};

/// A world, what happens to it, and what must hold.
#[derive(Clone, Copy, Debug)]
pub struct Scenario {
    /// By which it is asked for.
    pub name: &'static str,
    /// What happens.
    pub about: &'static str,
    /// The servers that something happens to, by the first and the one after the last, and what a picture calls them.
    pub shown: Option<(&'static str, (usize, usize))>,
    plan: fn() -> Plan,
    script: fn(&mut World),
    figures: fn(&World) -> Vec<Figure>,
}

/// All of them.
pub const ALL: [Scenario; 19] = [
    EVEN,
    ROLLING_RESTART,
    CRASH,
    SLOW,
    FAILS_FAST,
    LARGE_FRAMES,
    ZONE_PARTITION,
    SOURCE_OUTAGE,
    EMPTY_PUSH,
    FLAPPING,
    HERD,
    RETRY_STORM,
    WARM_UP,
    CANARY,
    WIDE,
    WIDE_RESTART,
    WIDE_CRASH,
    WIDE_SLOW,
    WIDE_FAILS_FAST,
];

impl Scenario {
    /// How large it is, and how its clients decide.
    #[must_use]
    pub fn plan(&self) -> Plan {
        (self.plan)()
    }

    /// Runs it.
    #[must_use]
    pub fn run(&self) -> World {
        self.run_as(&self.plan())
    }

    /// The same with another plan.
    #[must_use]
    pub fn run_as(&self, plan: &Plan) -> World {
        self.run_in(World::new(plan))
    }

    /// The same with other clients, which are offered the same calls.
    #[must_use]
    pub fn replay(&self, plan: &Plan, trace: Trace) -> World {
        self.run_in(World::replayed(plan, trace))
    }

    fn run_in(&self, mut world: World) -> World {
        (self.script)(&mut world);
        world
    }

    /// What must hold of a run: what is its own, and what all must hold to.
    #[must_use]
    pub fn figures(&self, world: &World) -> Vec<Figure> {
        let mut figures = (self.figures)(world);
        let (calls, attempts) = world.seconds.calls_and_attempts();
        figures.push(Figure::at_most("attempts / calls", attempts as f64 / calls as f64, 1.1));
        figures
    }
}

/// Calls that failed in some seconds, which must be none.
fn none_fails(what: &'static str, seconds: &[crate::Second]) -> Figure {
    Figure::at_most(what, seconds.bad() as f64, 0.0)
}

/// Which share of the calls that ended in some seconds ended badly.
fn failed_of(seconds: &[crate::Second]) -> f64 {
    seconds.bad() as f64 / (seconds.bad() + seconds.good()) as f64
}

/// How even load was in some seconds.
fn is_even(seconds: &[crate::Second]) -> Figure {
    Figure::at_most("windows max/mean, p99", seconds.unevenness(), 1.5)
}

/// What some servers still got, of what they got before, each in a second.
fn left_of(servers: Range<usize>, before: &[crate::Second], after: &[crate::Second]) -> f64 {
    let rate = |seconds: &[crate::Second]| {
        let calls = servers.clone().map(|server| seconds.arrived(server)).sum::<u64>();
        calls as f64 / seconds.len() as f64
    };
    rate(after) / rate(before)
}

/// Calls that failed although they did not run at a server that was gone, or may run again; there must be none.
fn beyond_cut_off(world: &World) -> Figure {
    let cut_off = world.seconds.iter().map(|second| second.cut_off).sum::<u64>();
    Figure::at_most(
        "failed calls beyond those that ran there and may not run again",
        world.seconds.bad().saturating_sub(cut_off) as f64,
        0.0,
    )
}
