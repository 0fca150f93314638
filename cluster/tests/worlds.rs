//! What many clients and servers come to. Every run is the same run: the seeds are fixed.

mod world;

use ringcall_cluster::Settings;
use ringcall_cluster::balance::{Balancing, PrequalConfig};
use ringcall_cluster::discovery::Instance;
use ringcall_cluster::fleet::{FleetEvent, Readiness};
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::recovery::RecoveryConfig;
use ringcall_cluster::route::{Action, By, Caller, Match, Route, Rule, Rules, Subset, Zones};
use world::{Health, METHOD, Second, World};

const CLIENTS: usize = 100;
/// Twenty servers, with capacities as 1 : 2 : 4.
const WORKERS: [u32; 20] = [1, 2, 4, 1, 2, 4, 1, 2, 4, 1, 2, 4, 1, 2, 4, 1, 2, 4, 1, 2];

fn weights() -> [u32; 20] {
    WORKERS.map(|workers| workers * 100)
}

fn world() -> World {
    World::new(CLIENTS, &WORKERS, &weights(), 0.6, &Settings::new())
}

/// Of the seconds from `first` on: the busiest server, compared with the mean; the 99th of a hundred.
fn unevenness(seconds: &[Second]) -> f64 {
    let mut ratios: Vec<f64> = seconds
        .iter()
        .map(|second| {
            let mean = second.utilisation.iter().sum::<f64>() / second.utilisation.len() as f64;
            second.utilisation.iter().copied().fold(0.0, f64::max) / mean
        })
        .collect();
    ratios.sort_by(f64::total_cmp);
    ratios[(ratios.len() * 99 / 100).min(ratios.len() - 1)]
}

fn arrived(seconds: &[Second], server: usize) -> u64 {
    seconds.iter().map(|second| second.arrived[server]).sum()
}

fn bad(seconds: &[Second]) -> u64 {
    seconds.iter().map(|second| second.bad).sum()
}

fn good(seconds: &[Second]) -> u64 {
    seconds.iter().map(|second| second.good).sum()
}

#[test]
fn g16_a_hundred_clients_load_twenty_servers_evenly() {
    let mut world = world();
    world.run(15);
    let uneven = unevenness(&world.seconds[5..]);
    assert!(uneven <= 1.5, "{uneven}");
    assert_eq!(bad(&world.seconds), 0);
}

#[test]
fn g16_also_when_nobody_knows_the_capacities() {
    let mut world = World::new(CLIENTS, &WORKERS, &[100; 20], 0.4, &Settings::new());
    world.run(15);
    // Small servers are overloaded by an even share; what they are given less is what their latency says.
    let share = |server| arrived(&world.seconds[5..], server) as f64;
    assert!(share(2) > 1.2 * share(0), "{} {}", share(2), share(0));
    assert_eq!(bad(&world.seconds[5..]), 0);
}

#[test]
fn g14_a_server_that_turns_slow_loses_its_calls_within_seconds() {
    let mut world = world();
    world.run(10);
    let before = arrived(&world.seconds[5..10], 5);
    world.servers[5].service *= 10;
    world.run(10);
    let after = arrived(&world.seconds[15..20], 5);
    assert!(after * 10 <= before, "{after} of {before}");
    assert!(bad(&world.seconds[15..]) == 0, "{}", bad(&world.seconds[15..]));
    // And has them again when it is well.
    world.servers[5].service /= 10;
    world.run(40);
    let again = arrived(&world.seconds[55..60], 5);
    assert!(again * 2 >= before, "{again} of {before}");
}

/// Whose clients go by what servers report.
fn reporting(weights: &[u32; 20], load: f64) -> World {
    let mut settings = Settings::new();
    settings.balancing = Balancing::Prequal(PrequalConfig::default());
    let mut world = World::new(CLIENTS, &WORKERS, weights, load, &settings);
    world.says_load = true;
    world
}

#[test]
fn g14_a_server_that_reports_that_it_is_busy_loses_its_calls() {
    let mut world = reporting(&weights(), 0.6);
    world.run(10);
    let before = arrived(&world.seconds[5..10], 5);
    world.servers[5].service *= 10;
    world.run(10);
    let after = arrived(&world.seconds[15..20], 5);
    assert!(after * 5 <= before, "{after} of {before}");
    assert!(bad(&world.seconds[15..]) == 0, "{}", bad(&world.seconds[15..]));
    world.servers[5].service /= 10;
    world.run(40);
    let again = arrived(&world.seconds[55..60], 5);
    assert!(again * 2 >= before, "{again} of {before}");
}

#[test]
fn g16_what_servers_report_evens_out_what_nobody_knows() {
    let mut world = reporting(&[100; 20], 0.6);
    world.run(15);
    let share = |server| arrived(&world.seconds[5..], server) as f64;
    assert!(share(2) > 1.5 * share(0), "{} {}", share(2), share(0));
    let uneven = unevenness(&world.seconds[5..]);
    assert!(uneven <= 1.6, "{uneven}");
    assert_eq!(bad(&world.seconds[5..]), 0);
}

#[test]
fn g15_a_server_that_fails_fast_gets_hardly_any_calls() {
    let mut world = world();
    world.run(5);
    let before = arrived(&world.seconds[..5], 5);
    world.servers[5].health = Health::FailsFast;
    world.run(10);
    let after = arrived(&world.seconds[10..15], 5);
    assert!(after * 10 <= before, "{after} of {before}");
    // Half of the calls may not be made again: those that met it first have failed.
    let lost = bad(&world.seconds[5..]);
    assert!(lost * 200 <= good(&world.seconds[5..]), "{lost}");
    world.servers[5].health = Health::Up;
    world.run(40);
    let again = arrived(&world.seconds[50..55], 5);
    assert!(again * 2 >= before, "{again} of {before}");
}

#[test]
fn f07_a_rolling_restart_fails_no_call() {
    let mut world = world();
    world.run(3);
    for server in 0..WORKERS.len() {
        world.servers[server].health = Health::Draining;
        world.run(1);
        world.servers[server].health = Health::Down { is_known: true };
        world.run(1);
        world.servers[server].health = Health::Up;
    }
    world.run(2);
    assert_eq!(bad(&world.seconds), 0);
    let (calls, attempts) = world.counts();
    assert!(attempts * 100 <= calls * 101, "{attempts} for {calls}");
}

#[test]
fn a_server_that_is_gone_without_a_word_fails_no_call() {
    let mut world = world();
    world.run(5);
    world.servers[2].health = Health::Down { is_known: false };
    world.run(10);
    assert_eq!(bad(&world.seconds), 0, "nothing was sent to it, so all was made again");
    let (last, first) = (&world.seconds[14], &world.seconds[0]);
    assert!(last.arrived[2] * 20 <= first.arrived[2], "{:?}", last.arrived);
}

#[test]
fn d10_a_retry_storm_is_bounded_and_ends_by_itself() {
    let mut settings = Settings::new();
    settings.method.breaker = None;
    let mut world = World::new(CLIENTS, &WORKERS, &weights(), 0.6, &settings);
    world.run(5);
    world.servers.iter_mut().for_each(|server| server.health = Health::Refuses);
    world.run(15);
    let (calls, attempts) = world.counts();
    assert!(attempts * 100 <= calls * 110, "{attempts} for {calls}");
    assert!(attempts > calls, "some were made again");
    world.servers.iter_mut().for_each(|server| server.health = Health::Up);
    world.run(10);
    assert_eq!(bad(&world.seconds[25..]), 0, "five seconds later all is well");
}

#[test]
fn d10_with_breakers_hardly_anything_is_sent_in_vain() {
    let mut world = world();
    world.run(5);
    world.servers.iter_mut().for_each(|server| server.health = Health::Refuses);
    world.run(15);
    let in_vain = |seconds: &[Second]| -> u64 {
        seconds.iter().map(|second| second.arrived.iter().sum::<u64>()).sum()
    };
    let (storm, ordinary) = (in_vain(&world.seconds[15..20]), in_vain(&world.seconds[..5]));
    assert!(storm * 20 <= ordinary, "{storm} of {ordinary}");
    world.servers.iter_mut().for_each(|server| server.health = Health::Up);
    world.run(40);
    assert_eq!(bad(&world.seconds[50..]), 0);
}

#[test]
fn g11_when_most_are_unhealthy_all_are_used() {
    let mut settings = Settings::new();
    settings.method.breaker = None;
    settings.health.ejected_percent = 100;
    settings.balancing = Balancing::WeightedRandom;
    let mut world = World::new(10, &[4; 6], &[100; 6], 0.5, &settings);
    world.run(3);
    for server in &mut world.servers[..5] {
        server.health = Health::FailsFast;
    }
    world.run(10);
    // One of six is well. It does not get everything: that would be the end of it, too.
    let seconds = &world.seconds[5..13];
    let all: u64 = (0..6).map(|server| arrived(seconds, server)).sum();
    let share = arrived(seconds, 5) * 100 / all;
    assert!((14..=40).contains(&share), "{share} %");
    world.servers.iter_mut().for_each(|server| server.health = Health::Up);
    world.run(10);
    assert_eq!(bad(&world.seconds[18..]), 0);
}

#[test]
fn d12_hedges_are_few() {
    let run = |hedge: Option<HedgeConfig>| {
        let mut settings = Settings::new();
        settings.method.hedge = hedge;
        let mut world = World::new(20, &[8; 10], &[100; 10], 0.3, &settings);
        world.every_unsafe = 0;
        world.run(20);
        let (calls, attempts) = world.counts();
        (calls, attempts, bad(&world.seconds))
    };
    let (calls, attempts, _) = run(None);
    assert_eq!(calls, attempts);
    let (calls, attempts, bad) = run(Some(HedgeConfig::default()));
    assert!(attempts > calls, "some were made twice");
    assert!((attempts - calls) * 100 <= calls * 6, "{attempts} for {calls}");
    assert_eq!(bad, 0);
}

#[test]
fn a_world_can_be_explained() {
    let mut world = World::new(1, &[1, 1, 1], &[100; 3], 0.3, &Settings::new());
    world.run(3);
    world.servers[1].health = Health::FailsFast;
    world.run(3);
    let now = ringcall_core::Instant::from_nanos(7_000_000_000);
    let explained = world.client(0).explain(now, METHOD, |_| Readiness::Ready);
    assert_eq!(explained.hosts.len(), 3);
    assert!(explained.hosts[1].errors > explained.hosts[0].errors);
    assert!(explained.hosts[1].score > explained.hosts[0].score);
    let text = explained.to_string();
    assert!(text.contains("PeakEwma over listing 1") && text.contains("001"), "{text}");
}

// ---- routing ----

/// The calls that arrived at some servers, in percent of all.
fn percent_at(seconds: &[Second], servers: std::ops::Range<usize>) -> u64 {
    let all: u64 = (0..seconds[0].arrived.len()).map(|server| arrived(seconds, server)).sum();
    servers.map(|server| arrived(seconds, server)).sum::<u64>() * 100 / all
}

/// The last three of ten servers are of the new version.
fn new_version(server: usize, instance: &mut Instance) {
    instance.version = if server < 7 { "1" } else { "2" }.to_owned();
}

#[test]
fn g19_calls_shift_to_a_new_version_in_steps_and_back() {
    let mut world = World::new(50, &[4; 10], &[100; 10], 0.3, &Settings::new());
    world.list(2, new_version);
    let mut version = 0;
    let mut shift =
        |world: &mut World, percent: u32| {
            version += 1;
            let to = |version| Action::route(Route::to(Subset::all().version(version)));
            let canary = Match::all().percent(percent, By::Key);
            let rules = Rules::new(version)
                .with(Rule::new("canary", canary, to("2")))
                .with(Rule::new("others", Match::all(), to("1")));
            world.each_client(|_, _, client| client.route(rules.clone()).unwrap());
            world.run(4);
            percent_at(&world.seconds[world.seconds.len() - 3..], 7..10)
        };
    for percent in [0, 5, 25, 50] {
        let share = shift(&mut world, percent);
        assert!(share.abs_diff(percent.into()) <= 2, "{share} of {percent}");
    }
    // The new version fails. What falls to it fails or is made again there, until the rules are taken back.
    world.servers[7..].iter_mut().for_each(|server| server.health = Health::FailsFast);
    let share = shift(&mut world, 5);
    assert!(share <= 15, "{share}: with all that was made again");
    let seconds = &world.seconds[world.seconds.len() - 3..];
    assert!(bad(seconds) > 0 && bad(seconds) * 15 <= good(seconds), "{}", bad(seconds));
    assert_eq!(shift(&mut world, 0), 0);
    assert_eq!(bad(&world.seconds[world.seconds.len() - 3..]), 0);
}

/// Ten servers that can take a thousand calls a second each, and are asked for six thousand together. All die, and come
/// back in turn. Gives the world, and the seconds in which there were so many.
fn outage(settings: &Settings) -> (World, [Vec<Second>; 10]) {
    let mut world = World::new(50, &[2; 10], &[100; 10], 0.6, settings);
    world.run(3);
    world.servers.iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(3);
    let back = std::array::from_fn(|server| {
        world.servers[server].health = Health::Up;
        let before = world.seconds.len();
        world.run(3);
        world.seconds[before..].to_vec()
    });
    (world, back)
}

/// Without breakers, which would stop some calls of their own.
fn unbroken() -> Settings {
    let mut settings = Settings::new();
    settings.method.breaker = None;
    settings
}

/// Nine of the ten can take all calls.
fn recovering() -> Settings {
    let mut settings = unbroken();
    settings.recovery = Some(RecoveryConfig::new(9));
    settings
}

#[test]
fn g12_without_the_rule_the_first_that_is_back_is_overloaded() {
    let (_, back) = outage(&unbroken());
    let first = &back[0][1..];
    assert!(first.iter().all(|second| second.arrived[0] > 4000), "{first:?}");
    assert!(first.iter().all(|second| second.utilisation[0] > 0.95), "{first:?}");
    // Of what arrives hardly a fifth is answered in time.
    assert!(good(first) * 4 < arrived(first, 0), "{}", good(first));
}

#[test]
fn g12_calls_grow_with_the_instances_that_come_back() {
    let (world, back) = outage(&recovering());
    for (usable, seconds) in (1..=5).zip(&back) {
        for second in &seconds[1..] {
            let arrived: u64 = second.arrived.iter().sum();
            let share = 6000 * usable / 9;
            assert!(arrived.abs_diff(share) < share / 5, "{usable}: {arrived} instead of {share}");
            assert!(second.utilisation.iter().all(|busy| *busy < 0.95), "{second:?}");
            // What is let through is answered.
            assert!(second.good * 10 > arrived * 9, "{usable}: {} of {arrived}", second.good);
        }
    }
    // With nine, all are let through, also before the number has been steady.
    assert_eq!(back[8..].iter().map(|seconds| bad(&seconds[1..])).sum::<u64>(), 0);
    let explained = world.client(0).explain(world.now(), METHOD, |_| Readiness::Ready);
    assert_eq!(explained.recovery.map(|state| state.usable), Some(10));
    assert!(explained.to_string().contains("recovering with 10 instances"), "{explained}");
}

#[test]
fn g12_it_ends_when_as_many_are_there_for_a_while() {
    let mut world = World::new(50, &[2; 10], &[100; 10], 0.6, &recovering());
    world.run(3);
    world.servers.iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(3);
    // Six are all that come back: they have two thirds of the calls for a while, and then all of them.
    world.servers[..6].iter_mut().for_each(|it| it.health = Health::Up);
    world.run(13);
    let held_back = |world: &World| world.client(0).counts().held_back;
    let before = held_back(&world);
    assert!(before > 0);
    world.run(3);
    assert_eq!(held_back(&world), before);
    world.each_client(|_, _, fleet| {
        let events: Vec<FleetEvent> = std::iter::from_fn(|| fleet.poll_event()).collect();
        let told =
            [FleetEvent::RecoveryBegan { working_min: 9 }, FleetEvent::RecoveryEnded { usable: 6 }];
        assert_eq!(events, told);
    });
}

/// Half of the clients and servers in a zone each. The zones of a client and a server.
fn two_zones(servers: usize) -> World {
    let mut settings = Settings::new();
    settings.zones = Some(Zones::default());
    let workers = vec![4; servers];
    let mut world = World::new(40, &workers, &vec![100; servers], 0.3, &settings);
    world.list(2, |server, instance| instance.zone = zone(server < servers / 2).to_owned());
    world.each_client(|client, now, fleet| {
        let mut settings = settings.clone();
        settings.caller = Caller::in_zone(zone(client < 20));
        fleet.configure(now, settings).unwrap();
    });
    world
}

fn zone(is_first: bool) -> &'static str {
    if is_first { "z1" } else { "z2" }
}

#[test]
fn a_zone_that_loses_servers_spills_over_and_has_its_calls_again() {
    let mut world = two_zones(20);
    world.run(5);
    let even = percent_at(&world.seconds[1..], 0..10);
    assert!(even.abs_diff(50) <= 2, "{even}");
    // Four of ten are well: of its calls the zone keeps four sevenths.
    world.servers[..6].iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(5);
    let kept = percent_at(&world.seconds[7..10], 0..10);
    assert!(kept.abs_diff(50 * 4 / 7) <= 3, "{kept}");
    // All of it is gone.
    world.servers[..10].iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(5);
    assert_eq!(percent_at(&world.seconds[12..15], 0..10), 0);
    assert_eq!(bad(&world.seconds), 0, "no call was lost over it");
    world.servers[..10].iter_mut().for_each(|it| it.health = Health::Up);
    world.run(30);
    let again = percent_at(&world.seconds[40..], 0..10);
    assert!(again.abs_diff(50) <= 3, "{again}");
    assert_eq!(bad(&world.seconds), 0);
}

#[test]
fn a_zone_that_fails_without_a_word_is_left() {
    let mut world = two_zones(20);
    world.run(5);
    world.servers[..10].iter_mut().for_each(|it| it.health = Health::FailsFast);
    world.run(10);
    let kept = percent_at(&world.seconds[12..], 0..10);
    assert!(kept <= 10, "{kept}");
    let lost = bad(&world.seconds[12..]);
    assert!(lost * 20 <= good(&world.seconds[12..]), "{lost}");
}

#[test]
fn lanes_keep_to_themselves_and_fall_back() {
    let lane = |n: usize| ["base", "blue", "green"][n.min(2)].to_owned();
    let mut world = World::new(30, &[8, 8, 8, 4, 4], &[100; 5], 0.2, &Settings::new());
    // Three servers of the base, and one of each lane; ten clients of each.
    world.list(2, |server, it| drop(it.tags.insert("lane".into(), lane(server.saturating_sub(2)))));
    world.each_client(|client, now, fleet| {
        let mut settings = Settings::new();
        settings.caller = Caller::default().with_tag("lane", lane(client / 10));
        fleet.configure(now, settings).unwrap();
        let route = Route::to(Subset::all().alike("lane")).or(Subset::all().tag("lane", "base"));
        let rule = Rule::new("lanes", Match::all(), Action::route(route));
        fleet.route(Rules::new(1).with(rule)).unwrap();
    });
    world.run(3);
    let third = |share: u64| share.abs_diff(33) <= 2;
    let share =
        |world: &World, servers| percent_at(&world.seconds[world.seconds.len() - 2..], servers);
    let shares = [share(&world, 0..3), share(&world, 3..4), share(&world, 4..5)];
    assert!(shares.into_iter().all(third), "{shares:?}");
    world.servers[3].health = Health::Down { is_known: true };
    world.run(3);
    let shares = [share(&world, 0..3), share(&world, 3..4), share(&world, 4..5)];
    assert!(shares[0].abs_diff(67) <= 2 && shares[1] == 0 && third(shares[2]), "{shares:?}");
    world.servers[3].health = Health::Up;
    world.run(3);
    assert!(third(share(&world, 3..4)));
    assert_eq!(bad(&world.seconds), 0);
}
