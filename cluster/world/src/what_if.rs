//! The calls of a world, offered to clients that decide otherwise.

use ringcall_cluster::balance::{Balancing, PrequalConfig};
use ringcall_cluster::hedge::HedgeConfig;

use crate::seen::Seconds;
use crate::{Plan, Recorded, World};

/// Clients that decide otherwise.
#[derive(Clone, Copy, Debug)]
pub struct Variant {
    /// How.
    pub name: &'static str,
    change: fn(&mut Plan),
}

/// All of them: first each policy of balancing with everything else as the world has it, then the default policy with
/// one thing other than it has it.
pub const VARIANTS: [Variant; 13] = [
    Variant { name: "PeakEwma", change: |plan| plan.settings.balancing = Balancing::PeakEwma },
    Variant {
        name: "WeightedRandom",
        change: |plan| plan.settings.balancing = Balancing::WeightedRandom,
    },
    Variant {
        name: "SmoothRoundRobin",
        change: |plan| plan.settings.balancing = Balancing::SmoothRoundRobin,
    },
    Variant {
        name: "LeastActive",
        change: |plan| plan.settings.balancing = Balancing::LeastActive,
    },
    Variant { name: "Ring", change: |plan| plan.settings.balancing = Balancing::Ring },
    Variant { name: "Maglev", change: |plan| plan.settings.balancing = Balancing::Maglev },
    Variant { name: "Prequal", change: |plan| prequal(plan, 0) },
    Variant { name: "Prequal with probes", change: |plan| prequal(plan, 300) },
    Variant { name: "no retries", change: |plan| plan.settings.method.retry.attempts = 1 },
    Variant { name: "retries without a bound", change: unbounded },
    Variant {
        name: "hedges",
        change: |plan| plan.settings.method.hedge = Some(HedgeConfig::default()),
    },
    Variant { name: "no breakers", change: |plan| plan.settings.method.breaker = None },
    Variant {
        name: "breakers",
        change: |plan| {
            plan.settings.method.breaker = Some(Default::default());
        },
    },
];

fn prequal(plan: &mut Plan, probe_percent: u32) {
    let mut config = PrequalConfig::default();
    config.probe_percent = probe_percent;
    plan.settings.balancing = Balancing::Prequal(config);
    plan.says_load = true;
}

/// What the budget is there against.
fn unbounded(plan: &mut Plan) {
    plan.settings.retry_percent = 100;
    plan.settings.retry_floor_per_s = 1_000_000;
}

/// What clients came to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Outcome {
    /// How long calls took that ended well, in milliseconds: half of them, 99 of 100 and 999 of 1000 at most.
    pub p50_ms: f64,
    /// See there.
    pub p99_ms: f64,
    /// See there.
    pub p999_ms: f64,
    /// Attempts beyond the first of a call, in percent of the calls.
    pub extra_percent: f64,
    /// Calls that failed.
    pub failed: u64,
    /// Calls.
    pub calls: u64,
}

impl Outcome {
    /// That of a run.
    #[must_use]
    pub fn of(world: &World) -> Outcome {
        let seconds = &world.seconds[..];
        let (calls, _) = seconds.calls_and_attempts();
        let extra: u64 = seconds.iter().map(|second| second.extra).sum();
        Outcome {
            p50_ms: seconds.latency_ms(500),
            p99_ms: seconds.latency_ms(990),
            p999_ms: seconds.latency_ms(999),
            extra_percent: extra as f64 / calls as f64 * 100.0,
            failed: seconds.bad(),
            calls,
        }
    }
}

impl Variant {
    /// What these clients come to, offered the same calls.
    #[must_use]
    pub fn run(&self, recorded: &Recorded) -> Outcome {
        let mut plan = recorded.plan();
        (self.change)(&mut plan);
        Outcome::of(&recorded.replay(&plan))
    }
}
