//! Servers and networks that break, and callers that make it worse.

use std::time::Duration;

use super::{Scenario, beyond_cut_off, failed_of, is_even, left_of, none_fails};
use crate::seen::Figure;
use crate::{Health, Plan, World};

/// The server that something happens to: one of the largest.
const IT: usize = 5;

/// All servers are restarted, one after the other.
pub const ROLLING_RESTART: Scenario = Scenario {
    name: "rolling-restart",
    about: "every server drains for a second and is away for another, one after the other",
    shown: None,
    plan: Plan::hundred,
    script: rolling_restart,
    figures: |world| vec![none_fails("failed calls", &world.seconds), is_even(&world.seconds[3..])],
};

fn rolling_restart(world: &mut World) {
    world.run(3);
    for server in 0..world.servers.len() {
        world.servers[server].health = Health::Draining;
        world.run(1);
        world.servers[server].health = Health::Down { is_known: true };
        world.run(1);
        world.servers[server].health = Health::Up;
    }
    world.run(2);
}

/// A server is gone without a word, with what it had under way.
pub const CRASH: Scenario = Scenario {
    name: "crash",
    about: "a server is gone without a word, with all that it had under way",
    shown: Some(("that server", (IT, IT + 1))),
    plan: Plan::hundred,
    script: |world| {
        world.run(5);
        world.crash(IT);
        world.run(10);
    },
    figures: |world| {
        let left = left_of(IT..IT + 1, &world.seconds[..5], &world.seconds[10..]);
        vec![
            beyond_cut_off(world),
            Figure::at_most("its calls after 5 s", left, 0.05),
            is_even(&world.seconds[7..]),
        ]
    },
};

/// Makes a server sick after ten seconds and well after ten more, and looks on.
fn sick_for_a_while(world: &mut World, sick: Health, afterwards: u64) {
    world.run(10);
    world.servers[IT].health = sick;
    world.run(10);
    world.servers[IT].health = Health::Up;
    world.run(afterwards);
}

/// Of a server that was bad from the tenth second to the twentieth: nine tenths of its calls are elsewhere within 5 s,
/// half of them are back in the end, and all is even.
fn left_and_came_back(world: &World) -> Vec<Figure> {
    let (before, last) = (&world.seconds[5..10], world.seconds.len() - 5);
    let left = left_of(IT..IT + 1, before, &world.seconds[15..20]);
    let again = left_of(IT..IT + 1, before, &world.seconds[last..]);
    vec![
        Figure::at_most("its calls after 5 s", left, 0.1),
        Figure::at_least("its calls in the end", again, 0.5),
        is_even(&world.seconds[5..]),
    ]
}

/// And that few fail meanwhile, since half of the calls may not be made again and have met it first; none from `well` on.
fn few_fail_meanwhile(world: &World, well: usize) -> Vec<Figure> {
    let mut figures = left_and_came_back(world);
    let failed = failed_of(&world.seconds[10..20]);
    figures.push(Figure::at_most("failed of the calls meanwhile", failed, 0.005));
    figures.push(none_fails("failed calls when it is well", &world.seconds[well..]));
    figures
}

/// A server becomes ten times slower.
pub const SLOW: Scenario = Scenario {
    name: "slow",
    about: "a server becomes ten times slower",
    shown: Some(("that server", (IT, IT + 1))),
    plan: Plan::hundred,
    script: |world| {
        world.run(10);
        world.servers[IT].service *= 10;
        world.run(10);
        world.servers[IT].service /= 10;
        world.run(40);
    },
    figures: |world| {
        let mut figures = left_and_came_back(world);
        figures.push(none_fails("failed calls", &world.seconds));
        figures
    },
};

/// A server fails every call at once.
pub const FAILS_FAST: Scenario = Scenario {
    name: "fails-fast",
    about: "a server fails every call at once",
    shown: Some(("that server", (IT, IT + 1))),
    plan: Plan::hundred,
    script: |world| sick_for_a_while(world, Health::FailsFast, 40),
    figures: |world| few_fail_meanwhile(world, 21),
};

/// A server loses large frames only.
pub const LARGE_FRAMES: Scenario = Scenario {
    name: "large-frames",
    about: "one call in 20 is large, and a server never hears of large ones",
    shown: Some(("that server", (IT, IT + 1))),
    plan: || Plan { every_large: 20, ..Plan::hundred() },
    // A second's latency is forgotten by one call a second.
    script: |world| sick_for_a_while(world, Health::LosesLarge, 80),
    // Those under way end by their deadline.
    figures: |world| few_fail_meanwhile(world, 22),
};

/// Two halves, each in a zone, that do not hear of each other.
pub const ZONE_PARTITION: Scenario = Scenario {
    name: "zone-partition",
    about: "for 15 s nothing passes between two halves of clients and servers",
    shown: None,
    plan: Plan::hundred,
    script: |world| {
        world.run(5);
        world.cut(|client, server| (client < 50) != (server < 10));
        world.run(15);
        world.heal();
        world.run(40);
    },
    figures: |world| {
        vec![
            // Half of them would be lost: nine tenths of these go elsewhere.
            Figure::at_most(
                "failed of the calls after 5 s",
                failed_of(&world.seconds[10..14]),
                0.05,
            ),
            none_fails(
                "failed calls when connections are known to be lost",
                &world.seconds[16..20],
            ),
            none_fails("failed calls when it is over", &world.seconds[22..]),
            is_even(&world.seconds[50..]),
        ]
    },
};

/// So much slower servers are in a storm.
const STORM: u32 = 4;

/// All servers are overloaded for a while, and callers try again.
pub const RETRY_STORM: Scenario = Scenario {
    name: "retry-storm",
    about: "for 10 s all servers are four times slower; attempts have 250 ms; no breakers",
    shown: None,
    plan: || {
        let mut plan = Plan::hundred();
        plan.settings.method.breaker = None;
        plan.settings.method.attempt_timeout = Some(Duration::from_millis(250));
        plan
    },
    script: |world| {
        world.run(5);
        world.servers.iter_mut().for_each(|server| server.service *= STORM);
        world.run(10);
        world.servers.iter_mut().for_each(|server| server.service /= STORM);
        world.run(20);
    },
    figures: |world| {
        vec![
            none_fails("failed calls from 5 s after it", &world.seconds[20..]),
            is_even(&world.seconds[25..]),
        ]
    },
};
