//! Lists of servers that change, and sources that say what is not so.

use std::time::Duration;

use ringcall_cluster::discovery::Instance;
use ringcall_cluster::route::{Action, By, Match, Route, Rule, Rules, Subset};

use super::{Scenario, failed_of, is_even, left_of, none_fails};
use crate::seen::{Figure, Seconds};
use crate::{Health, Plan, Second, World};

/// Whatever the source says, every client lists all twenty servers, and no call fails.
fn all_stay_listed(world: &World) -> Vec<Figure> {
    let listed = world.seconds.iter().map(|second| second.listed_min).min().unwrap_or(0);
    vec![
        none_fails("failed calls", &world.seconds),
        Figure::at_least("servers that a client lists", listed as f64, 20.0),
        is_even(&world.seconds[5..]),
    ]
}

/// The source cannot be asked while servers are restarted.
pub const SOURCE_OUTAGE: Scenario = Scenario {
    name: "source-outage",
    about: "the source is down for 20 s, in which two servers are restarted",
    shown: None,
    plan: Plan::hundred,
    script: |world| {
        world.source(|_| true);
        world.run(5);
        for second in 0..20 {
            world.outage();
            for (server, down) in [(3, 5..10), (11, 8..14)] {
                let is_down = down.contains(&second);
                let drains = second + 1 == down.start;
                world.servers[server].health = match (is_down, drains) {
                    (true, _) => Health::Down { is_known: true },
                    (_, true) => Health::Draining,
                    _ => Health::Up,
                };
            }
            world.run(1);
        }
        world.push(|_| true);
        world.run(5);
    },
    figures: all_stay_listed,
};

/// The source says that there is nobody, and then that there are three.
pub const EMPTY_PUSH: Scenario = Scenario {
    name: "empty-push",
    about: "the source has no server any more for 10 s, three for 10 s more, then all",
    shown: None,
    plan: Plan::hundred,
    script: |world| {
        world.source(|_| true);
        world.run(5);
        world.push(|_| false);
        world.run(10);
        world.push(|server| server < 3);
        world.run(10);
        world.push(|_| true);
        world.run(5);
    },
    figures: all_stay_listed,
};

/// The server that comes and goes in the list.
const FLAPS: usize = 4;

/// One server comes and goes in the list, another one for real.
pub const FLAPPING: Scenario = Scenario {
    name: "flapping",
    about: "for 10 s one server comes and goes in the list ten times a second, another one each second for real",
    shown: Some(("that server", (FLAPS, FLAPS + 1))),
    plan: Plan::hundred,
    script: |world| {
        world.source(|_| true);
        world.run(5);
        for tenth in 0..100 {
            world.push(|server| server != FLAPS || tenth % 2 == 1);
            let is_up = tenth / 10 % 2 == 1;
            world.servers[7].health = if is_up { Health::Up } else { Health::Draining };
            world.wait(Duration::from_millis(100));
        }
        // Nothing is left out for longer than three times 15 s.
        world.run(60);
    },
    figures: |world| {
        // Each client for itself, in the ten seconds.
        let lists = world.seconds[5..15].iter().map(|second| second.lists).sum::<u64>();
        let again = left_of(FLAPS..FLAPS + 1, &world.seconds[..5], &world.seconds[65..]);
        vec![
            none_fails("failed calls", &world.seconds),
            Figure::at_most("lists a second and client", lists as f64 / 1000.0, 1.0),
            Figure::at_least("the calls of the one that came and went, 50 s after", again, 0.05),
            is_even(&world.seconds[5..]),
        ]
    },
};

/// A server that is new.
const NEW: usize = 19;
/// How long it takes until it is warm.
const WARM_UP_S: u64 = 20;

/// A server is new, and cold.
pub const WARM_UP: Scenario = Scenario {
    name: "warm-up",
    about: "a server is new: calls take four times as long there at first, as usual after 20 s",
    shown: Some(("that server", (NEW, NEW + 1))),
    plan: || {
        let mut plan = Plan::hundred();
        plan.settings.warm_up = Duration::from_secs(WARM_UP_S);
        plan
    },
    script: |world| {
        world.source(|server| server != NEW);
        world.run(10);
        let now = world.now();
        world.servers[NEW].cold = Some((now, now + Duration::from_secs(WARM_UP_S)));
        world.push(|_| true);
        world.run(WARM_UP_S + 20);
    },
    figures: |world| {
        // A server of the same size, which is warm.
        let share =
            |seconds: &[Second]| seconds.arrived(NEW) as f64 / seconds.arrived(NEW - 3) as f64;
        let p99 = |seconds: &[Second]| seconds.latency_ms(990);
        let worst = world.seconds[10..30].chunks(5).map(p99).fold(0.0, f64::max);
        vec![
            none_fails("failed calls", &world.seconds),
            Figure::at_most(
                "its share of a warm one's calls at first",
                share(&world.seconds[10..13]),
                0.25,
            ),
            Figure::at_least("its share when it is warm", share(&world.seconds[40..]), 0.75),
            Figure::at_most(
                "p99 while it warms up / before",
                worst / p99(&world.seconds[5..10]),
                1.25,
            ),
            is_even(&world.seconds[5..]),
        ]
    },
};

/// How many seconds each share lasts.
const STEP_S: u64 = 4;
/// Shares of the calls that go to the new version, in percent. It fails at the last but one.
const SHARES: [u32; 6] = [0, 5, 25, 50, 5, 0];

/// Calls shift to a new version, which fails, and back.
pub const CANARY: Scenario = Scenario {
    name: "canary-shift",
    about: "0, 5, 25, 50 % of the calls go to three of ten servers, which fail then; back to 5 and 0 %",
    shown: Some(("the new version", (7, 10))),
    plan: || Plan::of(50, [4; 10], 0.3),
    script: canary,
    figures: |world| {
        let step = |n: usize| {
            let end = (n + 1) * STEP_S as usize;
            &world.seconds[end - 3..end]
        };
        let off = (0..4).map(|n| step(n).percent_at(7..10).abs_diff(SHARES[n].into()));
        vec![
            Figure::at_most("percent off the share, at worst", off.max().unwrap_or(0) as f64, 2.0),
            none_fails("failed calls before it fails", &world.seconds[..16]),
            Figure::at_most("failed of the calls at 5 %", failed_of(step(4)), 1.0 / 16.0),
            Figure::at_most(
                "percent at the new version when taken back",
                step(5).percent_at(7..10) as f64,
                0.0,
            ),
            none_fails("failed calls when taken back", step(5)),
        ]
    },
};

fn canary(world: &mut World) {
    world.list(2, |server, instance: &mut Instance| {
        instance.version = if server < 7 { "1" } else { "2" }.to_owned();
    });
    for (version, percent) in (1..).zip(SHARES) {
        if version == 5 {
            world.servers[7..].iter_mut().for_each(|server| server.health = Health::FailsFast);
        }
        let to = |version| Action::route(Route::to(Subset::all().version(version)));
        let rules = Rules::new(version)
            .with(Rule::new("canary", Match::all().percent(percent, By::Key), to("2")))
            .with(Rule::new("others", Match::all(), to("1")));
        world.each_client(|_, _, client| client.route(rules.clone()).expect("they make sense"));
        world.run(STEP_S);
    }
}
