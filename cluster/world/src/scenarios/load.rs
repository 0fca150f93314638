//! Nothing breaks; there is just much to do.

use super::{Scenario, is_even, none_fails};
use crate::seen::{Figure, Seconds};
use crate::{Plan, World};

/// A hundred clients and twenty servers.
pub const EVEN: Scenario = Scenario {
    name: "even",
    about: "100 clients, 20 servers",
    shown: None,
    plan: Plan::hundred,
    script: |world| world.run(45),
    figures: |world| vec![is_even(&world.seconds[5..]), none_fails("failed calls", &world.seconds)],
};

/// Once a second each client makes so many calls at the same moment.
const BURST: usize = 20;

/// All clients call at once, again and again.
pub const HERD: Scenario = Scenario {
    name: "thundering-herd",
    about: "each second all clients make 20 calls at once",
    shown: None,
    plan: || Plan { load: 0.4, ..Plan::hundred() },
    script: herd,
    figures: |world| {
        let plan = Plan::hundred();
        let workers = plan.workers.iter().sum::<u32>();
        let work = plan.service.as_secs_f64() * 1000.0 * (plan.clients * BURST) as f64;
        let at_best_ms = work / f64::from(workers);
        vec![
            none_fails("failed calls", &world.seconds),
            is_even(&world.seconds[5..]),
            Figure::at_most(
                "p99 / time that the burst takes at best",
                world.seconds[5..].latency_ms(990) / at_best_ms,
                1.5,
            ),
        ]
    },
};

fn herd(world: &mut World) {
    for _ in 0..15 {
        world.burst(BURST);
        world.run(1);
    }
}
