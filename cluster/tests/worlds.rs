//! What many clients and servers come to. Every run is the same run: the seeds are fixed.

use std::time::Duration;

use ringcall_cluster::Settings;
use ringcall_cluster::balance::{Balancing, PrequalConfig};
use ringcall_cluster::fleet::{FleetEvent, Readiness};
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::recovery::RecoveryConfig;
use ringcall_cluster::route::{Action, Caller, Match, Route, Rule, Rules, Subset, Zones};
use ringcall_worlds::herd::Herd;
use ringcall_worlds::scenarios::{self, Scenario};
use ringcall_worlds::what_if::{Outcome, VARIANTS, Variant};
use ringcall_worlds::{Figure, Health, METHOD, Plan, Recorded, Second, Seconds, World};

/// Runs a world; all of its figures must hold.
#[track_caller]
fn holds(scenario: &Scenario) {
    all_hold(&scenario.figures(&scenario.run()));
}

#[track_caller]
fn all_hold(figures: &[Figure]) {
    let missed: Vec<String> =
        figures.iter().filter(|it| !it.holds()).map(Figure::to_string).collect();
    assert!(!figures.is_empty() && missed.is_empty(), "{missed:#?}");
}

// ---- worlds that are drawn, too ----

#[test]
fn g16_a_hundred_clients_load_twenty_servers_evenly() {
    holds(&scenarios::EVEN);
}

#[test]
fn g16_ten_clients_load_three_hundred_servers_evenly() {
    holds(&scenarios::WIDE);
}

#[test]
fn f07_a_rolling_restart_fails_no_call() {
    holds(&scenarios::ROLLING_RESTART);
    holds(&scenarios::WIDE_RESTART);
}

#[test]
fn a_server_that_is_gone_without_a_word_fails_only_what_it_had() {
    holds(&scenarios::CRASH);
    holds(&scenarios::WIDE_CRASH);
}

#[test]
fn g14_a_server_that_turns_slow_loses_its_calls_within_seconds() {
    holds(&scenarios::SLOW);
    holds(&scenarios::WIDE_SLOW);
}

#[test]
fn g15_a_server_that_fails_fast_gets_hardly_any_calls() {
    holds(&scenarios::FAILS_FAST);
    holds(&scenarios::WIDE_FAILS_FAST);
}

#[test]
fn g14_a_server_that_loses_large_frames_loses_its_calls_within_seconds() {
    holds(&scenarios::LARGE_FRAMES);
}

#[test]
fn two_halves_that_do_not_hear_of_each_other_go_on() {
    holds(&scenarios::ZONE_PARTITION);
}

#[test]
fn g02_an_outage_of_the_source_fails_no_call() {
    holds(&scenarios::SOURCE_OUTAGE);
}

#[test]
fn g03_an_empty_list_fails_no_call() {
    holds(&scenarios::EMPTY_PUSH);
}

#[test]
fn g06_servers_that_flap_fail_no_call() {
    holds(&scenarios::FLAPPING);
}

#[test]
fn g16_all_clients_that_call_at_once_spread_their_calls() {
    holds(&scenarios::HERD);
}

#[test]
fn d10_after_a_retry_storm_all_is_well_by_itself() {
    holds(&scenarios::RETRY_STORM);
}

#[test]
fn a_server_that_is_new_and_cold_warms_up_unnoticed() {
    holds(&scenarios::WARM_UP);
    // Latency alone would keep calls off it. Chance does not, so it shows what the warm-up is for.
    let p99_ms = |warm_up| {
        let mut plan = scenarios::WARM_UP.plan();
        plan.settings.balancing = Balancing::WeightedRandom;
        plan.settings.warm_up = warm_up;
        scenarios::WARM_UP.run_as(&plan).seconds[12..30].latency_ms(990)
    };
    let (with, without) = (p99_ms(Duration::from_secs(20)), p99_ms(Duration::ZERO));
    assert!(with * 4.0 < without, "{with} {without}");
}

#[test]
fn g19_calls_shift_to_a_new_version_in_steps_and_back() {
    holds(&scenarios::CANARY);
}

#[test]
fn g10_ten_thousand_clients_that_connect_again_are_spread() {
    for seconds in [1, 3, 10, 60] {
        all_hold(&Herd::run(10_000, Duration::from_secs(seconds)).figures());
    }
}

#[test]
fn the_same_calls_come_to_the_same_and_others_decide_otherwise() {
    let before = Outcome::of(&scenarios::CRASH.run());
    let recorded = Recorded::of(&scenarios::CRASH, None);
    assert_eq!(recorded.trace.len() as u64, before.calls);
    let outcome = |name| variant(name).run(&recorded);
    assert_eq!(outcome("PeakEwma"), before, "a replay is the same run");
    let without = outcome("no retries");
    assert_eq!((without.calls, without.extra_percent), (before.calls, 0.0));
    assert!(without.failed > 2 * before.failed, "{without:?} {before:?}");
    let by_chance = outcome("WeightedRandom");
    assert!(by_chance.p99_ms > 1.2 * before.p99_ms, "{by_chance:?} {before:?}");
}

fn variant(name: &str) -> Variant {
    VARIANTS.into_iter().find(|variant| variant.name == name).unwrap()
}

#[test]
fn calls_that_were_kept_in_a_file_come_to_the_same() {
    // One whose clients have another seed, and one in which nothing happens.
    let plain = "ringcall trace 1\nservers 2 1 4\nservice_ms 1.5\nclients 3\nseed 9\ntime_s,cost\n5,2\n5.25,0.1\n";
    let plain = Recorded::read(plain.as_bytes()).unwrap();
    for recorded in [Recorded::of(&scenarios::CRASH, Some(5)), plain] {
        let mut file = Vec::new();
        recorded.write(&mut file).unwrap();
        let read = Recorded::read(&file[..]).unwrap();
        assert!(read.trace == recorded.trace && read.name() == recorded.name());
        for name in ["PeakEwma", "Prequal with probes", "hedges"] {
            assert_eq!(variant(name).run(&read), variant(name).run(&recorded), "{name}");
        }
    }
}

#[test]
fn a_trace_may_say_no_more_than_when_calls_were_made() {
    // In a minute, by a clock of somewhere: nine tenths of what two servers can do, and a call that takes long.
    let mut text =
        "ringcall trace 1\r\n# of the front end\nservers 2 2\n\ntime_s,cost\n".to_owned();
    for ms in 0..60_000 {
        let cost = if ms == 30_000 { "400.5" } else { "3.6" };
        text.push_str(&format!("{}.{:03},{cost}\n", 1_732_845_259 + ms / 1000, ms % 1000));
    }
    let recorded = Recorded::read(text.as_bytes()).unwrap();
    let outcome = variant("PeakEwma").run(&recorded);
    assert_eq!((outcome.calls, outcome.failed), (60_000, 0));
    // The wire takes a tenth of a millisecond each way.
    assert!(outcome.p50_ms >= 3.79 && outcome.p999_ms > outcome.p50_ms, "{outcome:?}");
    let text = "ringcall trace 1\nservers 2\ntime_s\n1\n1.5\n";
    let outcome = variant("PeakEwma").run(&Recorded::read(text.as_bytes()).unwrap());
    assert_eq!((outcome.calls, outcome.p50_ms, outcome.p999_ms), (2, 1.2, 1.2));
}

#[test]
fn what_is_wrong_with_a_trace_is_told_with_its_line() {
    let wrong = |text: &str| Recorded::read(text.as_bytes()).unwrap_err().to_string();
    let line = |lines: &str| wrong(&format!("ringcall trace 1\n{lines}\n"));
    assert_eq!(
        wrong("time_s\n1\n"),
        "line 1: a trace begins with a line that says \"ringcall trace 1\""
    );
    assert!(wrong("ringcall trace 2\n").contains("ringcall trace 1"));
    assert!(line("").starts_with("line 3: there are no calls: a line says which columns"));
    assert!(line("server 4").contains("line 2: \"server\" is not known"));
    assert!(line("world nowhere").contains("there are even, rolling-restart"));
    assert!(line("world even\nclients 5\ntime_s").contains("of its own"));
    assert!(line("time_s").contains("servers 4 4 2; or which world"));
    assert!(line("servers 4 -1").contains("a number from 1 to 10000"));
    assert!(line(&format!("servers {}\ntime_s", "1 ".repeat(1001))).contains("1 to 1000 servers"));
    assert!(line("servers 1 1\nclients 200000\ntime_s").contains("200000 at most"));
    assert!(line("service_ms 0").contains("0.001 to 10000"));
    assert!(line("servers 1\ntime_s,colour").contains("\"colour\" is another"));
    assert!(line("servers 1\ntime_s,time_s").contains("each once"));
    let call = |columns: &str, calls: &str| line(&format!("servers 1\n{columns}\n{calls}"));
    assert!(call("time_s", "").contains("there are no calls"));
    for (columns, calls, what) in [
        ("time_s,cost", "1", "line 4: it has fewer values"),
        ("time_s", "1,2", "more values"),
        ("time_s", "2\n1", "line 5: it is earlier than the one before"),
        ("time_s", "0\n3600", "later than 3600 s"),
        ("time_s", "-1", "up to nine digits"),
        ("time_s", "1.0123456789", "up to nine digits"),
        ("time_s", "99999999999999999999", "up to nine digits"),
        ("time_s,cost", "1,NaN", "0 to 1000000"),
        ("time_s,cost", "1,-0.1", "0 to 1000000"),
        ("time_s,client", "1,1", "a number from 0 to 0"),
        ("time_s,once", "1,2", "a number from 0 to 1"),
    ] {
        assert!(call(columns, calls).contains(what), "{what}: {}", call(columns, calls));
    }
    assert!(line(&"x".repeat(20_000)).contains("longer than 16 KiB"));
    assert!(
        Recorded::read(&b"ringcall trace 1\n\xff\n"[..]).unwrap_err().to_string().contains("UTF-8")
    );
}

// ---- others ----

fn hundred() -> World {
    World::new(&Plan::hundred())
}

#[test]
fn g16_also_when_nobody_knows_the_capacities() {
    let mut world = World::new(&Plan { load: 0.4, weights: vec![100; 20], ..Plan::hundred() });
    world.run(15);
    // Small servers are overloaded by an even share; what they are given less is what their latency says.
    let share = |server| world.seconds[5..].arrived(server) as f64;
    assert!(share(2) > 1.2 * share(0), "{} {}", share(2), share(0));
    assert_eq!(world.seconds[5..].bad(), 0);
}

/// Whose clients go by what servers report, and ask those that they do not hear of, in so many percent of the calls.
fn reporting(plan: Plan, probe_percent: u32) -> Plan {
    let mut config = PrequalConfig::default();
    config.probe_percent = probe_percent;
    let mut plan = Plan { says_load: true, ..plan };
    plan.settings.balancing = Balancing::Prequal(config);
    plan
}

#[test]
fn g14_a_server_that_reports_that_it_is_busy_loses_its_calls() {
    let mut world = World::new(&reporting(Plan::hundred(), 0));
    world.run(10);
    let before = world.seconds[5..10].arrived(5);
    world.servers[5].service *= 10;
    world.run(10);
    let after = world.seconds[15..20].arrived(5);
    assert!(after * 5 <= before, "{after} of {before}");
    assert!(world.seconds[15..].bad() == 0, "{}", world.seconds[15..].bad());
    world.servers[5].service /= 10;
    world.run(40);
    let again = world.seconds[55..60].arrived(5);
    assert!(again * 2 >= before, "{again} of {before}");
}

#[test]
fn g16_what_servers_report_evens_out_what_nobody_knows() {
    for probe_percent in [0, 300] {
        let plan = Plan { weights: vec![100; 20], ..Plan::hundred() };
        let mut world = World::new(&reporting(plan, probe_percent));
        world.run(15);
        let share = |server| world.seconds[5..].arrived(server) as f64;
        assert!(share(2) > 1.5 * share(0), "{} {}", share(2), share(0));
        let uneven = world.seconds[5..].unevenness();
        assert!(uneven <= 1.6, "{uneven}");
        assert_eq!(world.seconds[5..].bad(), 0);
    }
}

#[test]
fn g14_worlds_hold_where_servers_are_asked_how_busy_they_are() {
    for scenario in [&scenarios::SLOW, &scenarios::EVEN] {
        let world = scenario.run_as(&reporting(scenario.plan(), 300));
        all_hold(&scenario.figures(&world));
        // Each of twenty servers twice a second at most, by each of a hundred clients.
        let probes = world.seconds.iter().map(|second| second.probes);
        assert!(probes.clone().sum::<u64>() > 0 && probes.clone().all(|probes| probes <= 4000));
    }
}

/// A hundred clients and fifty servers, so that each client calls each server every other second. One is ten times slower
/// from the 20th second to the 40th.
fn seldom_called(probe_percent: u32) -> World {
    let service = Duration::from_millis(20);
    let plan = Plan { service, every_once: 0, ..Plan::of(100, [2; 50], 0.5) };
    let mut world = World::new(&reporting(plan, probe_percent));
    world.run(20);
    world.servers[5].service *= 10;
    world.run(20);
    world.servers[5].service /= 10;
    world.run(80);
    world
}

#[test]
fn g14_callers_who_call_seldom_know_by_asking_who_is_slow_and_who_is_well_again() {
    let (world, without) = (seldom_called(300), seldom_called(0));
    let slow = |world: &World| world.seconds[30..40].arrived(5);
    assert!(slow(&world) * 2 < slow(&without), "{} {}", slow(&world), slow(&without));
    assert!(world.seconds.bad() * 3 < without.seconds.bad(), "{}", world.seconds.bad());
    let last = &world.seconds[60..];
    let all: u64 = (0..50).map(|server| last.arrived(server)).sum();
    let share = last.arrived(5) as f64 * 50.0 / all as f64;
    assert!(share > 0.75, "{share}");
    // Each server twice a second at most.
    assert!(world.seconds.iter().all(|second| second.probes <= 10_000));
}

#[test]
fn d10_a_retry_storm_is_bounded_and_ends_by_itself() {
    let mut plan = Plan::hundred();
    plan.settings.method.breaker = None;
    let mut world = World::new(&plan);
    world.run(5);
    world.servers.iter_mut().for_each(|server| server.health = Health::Refuses);
    world.run(15);
    let (calls, attempts) = world.seconds.calls_and_attempts();
    assert!(attempts * 100 <= calls * 110, "{attempts} for {calls}");
    assert!(attempts > calls, "some were made again");
    world.servers.iter_mut().for_each(|server| server.health = Health::Up);
    world.run(10);
    assert_eq!(world.seconds[25..].bad(), 0, "five seconds later all is well");
}

#[test]
fn d10_with_breakers_hardly_anything_is_sent_in_vain() {
    let mut world = hundred();
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
    assert_eq!(world.seconds[50..].bad(), 0);
}

#[test]
fn g11_when_most_are_unhealthy_all_are_used() {
    let mut plan = Plan::of(10, [4; 6], 0.5);
    plan.settings.method.breaker = None;
    plan.settings.health.ejected_percent = 100;
    plan.settings.balancing = Balancing::WeightedRandom;
    let mut world = World::new(&plan);
    world.run(3);
    for server in &mut world.servers[..5] {
        server.health = Health::FailsFast;
    }
    world.run(10);
    // One of six is well. It does not get everything: that would be the end of it, too.
    let seconds = &world.seconds[5..13];
    let all: u64 = (0..6).map(|server| seconds.arrived(server)).sum();
    let share = seconds.arrived(5) * 100 / all;
    assert!((14..=40).contains(&share), "{share} %");
    world.servers.iter_mut().for_each(|server| server.health = Health::Up);
    world.run(10);
    assert_eq!(world.seconds[18..].bad(), 0);
}

/// Ten servers that can take a thousand calls a second each, and are asked for six thousand together. All have died.
fn all_gone(settings: Settings) -> World {
    let mut world = World::new(&Plan { settings, ..Plan::of(50, [2; 10], 0.6) });
    world.run(3);
    world.servers.iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(3);
    world
}

/// They come back in turn. Gives the world, and the seconds in which there were so many.
fn outage(settings: Settings) -> (World, [Vec<Second>; 10]) {
    let mut world = all_gone(settings);
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
    let (_, back) = outage(unbroken());
    let first = &back[0][1..];
    assert!(first.iter().all(|second| second.arrived[0] > 4000), "{first:?}");
    assert!(first.iter().all(|second| second.utilisation[0] > 0.95), "{first:?}");
    // Of what arrives hardly a fifth is answered in time.
    assert!(first.good() * 4 < first.arrived(0), "{}", first.good());
}

#[test]
fn g12_calls_grow_with_the_instances_that_come_back() {
    let (world, back) = outage(recovering());
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
    assert_eq!(back[8..].iter().map(|seconds| seconds[1..].bad()).sum::<u64>(), 0);
    let explained = world.client(0).explain(world.now(), METHOD, |_| Readiness::Ready);
    assert_eq!(explained.recovery.map(|state| state.usable), Some(10));
    assert!(explained.to_string().contains("recovering with 10 instances"), "{explained}");
}

#[test]
fn g12_it_ends_when_as_many_are_there_for_a_while() {
    let mut world = all_gone(recovering());
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

#[test]
fn d12_hedges_are_few() {
    let run = |hedge: Option<HedgeConfig>| {
        let mut plan = Plan { every_once: 0, ..Plan::of(20, [8; 10], 0.3) };
        plan.settings.method.hedge = hedge;
        let mut world = World::new(&plan);
        world.run(20);
        let (calls, attempts) = world.seconds.calls_and_attempts();
        (calls, attempts, world.seconds.bad())
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
    let mut world = World::new(&Plan::of(1, [1, 1, 1], 0.3));
    world.run(3);
    world.servers[1].health = Health::FailsFast;
    world.run(3);
    let explained = world.client(0).explain(world.now(), METHOD, |_| Readiness::Ready);
    assert_eq!(explained.hosts.len(), 3);
    assert!(explained.hosts[1].errors > explained.hosts[0].errors);
    assert!(explained.hosts[1].score > explained.hosts[0].score);
    let text = explained.to_string();
    assert!(text.contains("PeakEwma over listing 1") && text.contains("001"), "{text}");
}

// ---- routing ----

/// Half of the clients and servers in a zone each. The zones of a client and a server.
fn two_zones(servers: usize) -> World {
    let mut plan = Plan::of(40, vec![4; servers], 0.3);
    plan.settings.zones = Some(Zones::default());
    let mut world = World::new(&plan);
    world.list(2, |server, instance| instance.zone = zone(server < servers / 2).to_owned());
    world.each_client(|client, now, fleet| {
        let mut settings = plan.settings.clone();
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
    let even = world.seconds[1..].percent_at(0..10);
    assert!(even.abs_diff(50) <= 2, "{even}");
    // Four of ten are well: of its calls the zone keeps four sevenths.
    world.servers[..6].iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(5);
    let kept = world.seconds[7..10].percent_at(0..10);
    assert!(kept.abs_diff(50 * 4 / 7) <= 3, "{kept}");
    // All of it is gone.
    world.servers[..10].iter_mut().for_each(|it| it.health = Health::Down { is_known: true });
    world.run(5);
    assert_eq!(world.seconds[12..15].percent_at(0..10), 0);
    assert_eq!(world.seconds.bad(), 0, "no call was lost over it");
    world.servers[..10].iter_mut().for_each(|it| it.health = Health::Up);
    world.run(30);
    let again = world.seconds[40..].percent_at(0..10);
    assert!(again.abs_diff(50) <= 3, "{again}");
    assert_eq!(world.seconds.bad(), 0);
}

#[test]
fn a_zone_that_fails_without_a_word_is_left() {
    let mut world = two_zones(20);
    world.run(5);
    world.servers[..10].iter_mut().for_each(|it| it.health = Health::FailsFast);
    world.run(10);
    let kept = world.seconds[12..].percent_at(0..10);
    assert!(kept <= 10, "{kept}");
    let lost = world.seconds[12..].bad();
    assert!(lost * 20 <= world.seconds[12..].good(), "{lost}");
}

#[test]
fn lanes_keep_to_themselves_and_fall_back() {
    let lane = |n: usize| ["base", "blue", "green"][n.min(2)].to_owned();
    let mut world = World::new(&Plan::of(30, [8, 8, 8, 4, 4], 0.2));
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
        |world: &World, servers| world.seconds[world.seconds.len() - 2..].percent_at(servers);
    let shares = [share(&world, 0..3), share(&world, 3..4), share(&world, 4..5)];
    assert!(shares.into_iter().all(third), "{shares:?}");
    world.servers[3].health = Health::Down { is_known: true };
    world.run(3);
    let shares = [share(&world, 0..3), share(&world, 3..4), share(&world, 4..5)];
    assert!(shares[0].abs_diff(67) <= 2 && shares[1] == 0 && third(shares[2]), "{shares:?}");
    world.servers[3].health = Health::Up;
    world.run(3);
    assert!(third(share(&world, 3..4)));
    assert_eq!(world.seconds.bad(), 0);
}
