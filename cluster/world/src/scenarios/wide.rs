//! Ten clients and three hundred servers: each client has many connections, and each server few callers.

use std::ops::Range;

use super::{Scenario, beyond_cut_off, failed_of, is_even, left_of, none_fails};
use crate::seen::Figure;
use crate::{Health, Plan, World};

/// A rack: fifteen servers of all sizes, a twentieth of all there is.
const RACK: Range<usize> = 60..75;
/// So many servers are restarted at a time.
const TENTH: usize = 30;

/// Nothing happens.
pub const WIDE: Scenario = Scenario {
    name: "wide",
    about: "10 clients, 300 servers",
    shown: None,
    plan: Plan::wide,
    script: |world| world.run(7),
    figures: |world| vec![is_even(&world.seconds[3..]), none_fails("failed calls", &world.seconds)],
};

/// All servers are restarted, many at a time.
pub const WIDE_RESTART: Scenario = Scenario {
    name: "wide-restart",
    about: "10 clients, 300 servers, which are restarted, a tenth of them at a time",
    shown: None,
    plan: Plan::wide,
    script: |world| {
        world.run(2);
        for first in (0..world.servers.len()).step_by(TENTH) {
            for health in [Health::Draining, Health::Down { is_known: true }] {
                set(world, first..first + TENTH, health);
                world.run(1);
            }
            set(world, first..first + TENTH, Health::Up);
        }
        world.run(2);
    },
    figures: |world| vec![none_fails("failed calls", &world.seconds), is_even(&world.seconds[2..])],
};

/// A rack is gone without a word.
pub const WIDE_CRASH: Scenario = Scenario {
    name: "wide-crash",
    about: "10 clients, 300 servers, of which a rack of 15 is gone without a word",
    shown: Some(("that rack", (RACK.start, RACK.end))),
    plan: Plan::wide,
    script: |world| {
        world.run(3);
        RACK.for_each(|server| world.crash(server));
        world.run(8);
    },
    figures: |world| {
        vec![
            beyond_cut_off(world),
            Figure::at_most("its calls after 5 s", left_of_rack(world, 8..11), 0.05),
            is_even(&world.seconds[5..]),
        ]
    },
};

/// A rack becomes ten times slower.
pub const WIDE_SLOW: Scenario = Scenario {
    name: "wide-slow",
    about: "10 clients, 300 servers, of which a rack of 15 becomes ten times slower",
    shown: Some(("that rack", (RACK.start, RACK.end))),
    plan: Plan::wide,
    script: |world| {
        world.run(3);
        world.servers[RACK].iter_mut().for_each(|server| server.service *= 10);
        world.run(8);
    },
    figures: |world| {
        vec![
            Figure::at_most("its calls after 5 s", left_of_rack(world, 8..11), 0.1),
            none_fails("failed calls", &world.seconds),
            is_even(&world.seconds[2..]),
        ]
    },
};

/// A rack fails every call at once, which is the fastest answer there is.
pub const WIDE_FAILS_FAST: Scenario = Scenario {
    name: "wide-fails-fast",
    about: "10 clients, 300 servers, of which a rack of 15 fails every call at once",
    shown: Some(("that rack", (RACK.start, RACK.end))),
    plan: Plan::wide,
    script: |world| {
        world.run(3);
        set(world, RACK, Health::FailsFast);
        world.run(8);
        set(world, RACK, Health::Up);
        world.run(12);
    },
    figures: |world| {
        vec![
            Figure::at_most("its calls after 5 s", left_of_rack(world, 8..11), 0.1),
            Figure::at_most(
                "failed of the calls meanwhile",
                failed_of(&world.seconds[3..11]),
                0.005,
            ),
            Figure::at_least("its calls in the end", left_of_rack(world, 20..23), 0.5),
            none_fails("failed calls when it is well", &world.seconds[12..]),
            is_even(&world.seconds[2..]),
        ]
    },
};

fn set(world: &mut World, servers: Range<usize>, health: Health) {
    world.servers[servers].iter_mut().for_each(|server| server.health = health);
}

/// What the rack still got in these seconds, of what it got in the two before something happened.
fn left_of_rack(world: &World, seconds: Range<usize>) -> f64 {
    left_of(RACK, &world.seconds[1..3], &world.seconds[seconds])
}
