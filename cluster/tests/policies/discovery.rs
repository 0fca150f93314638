//! What is believed of a source, and when.

use std::time::Duration;

use ringcall_cluster::discovery::{
    Alarm, Change, Delta, Discovery, DiscoveryConfig, Instance, Revision, Snapshot, Source,
    StaticSource, Update, Wanted,
};
use ringcall_core::Instant;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn instance(name: &str) -> Instance {
    let port = 7000 + u16::from(name.as_bytes()[0]);
    Instance::new("s", name, std::net::SocketAddr::from(([127, 0, 0, 1], port)))
}

fn with_name(name: String) -> Instance {
    let mut instance = instance("a");
    instance.name = name;
    instance
}

fn snapshot(number: u64, names: &[&str]) -> Update {
    let instances = names.iter().map(|name| instance(name)).collect();
    let snapshot = Snapshot { revision: Revision { epoch: 1, number }, instances };
    Update::Snapshot { snapshot, clock_ms: None }
}

fn discovery() -> Discovery {
    Discovery::new(Wanted::service("s"), DiscoveryConfig::default()).unwrap()
}

fn names(discovery: &Discovery) -> String {
    let names = discovery.listing().instances.iter().map(|it| &it.instance.name[..]);
    names.collect::<Vec<_>>().join("")
}

/// Lets time pass, in steps as it asks for them.
fn settle(discovery: &mut Discovery, from: Instant, to: Instant) {
    let mut now = from;
    while let Some(next) = discovery.poll_timeout().filter(|next| *next <= to) {
        now = next.max(now);
        discovery.handle_timeout(now);
    }
}

#[test]
fn settings_of_a_list_that_make_no_sense_are_told_by_name() {
    let wrong = |change: fn(&mut DiscoveryConfig)| {
        let mut config = DiscoveryConfig::default();
        change(&mut config);
        Discovery::new(Wanted::service("s"), config).unwrap_err().to_string()
    };
    assert_eq!(
        wrong(|it| it.damping.half_life = Duration::MAX),
        "the setting damping.half_life must be 1 ms to a day"
    );
    assert!(wrong(|it| it.damping.quiet_max = Duration::MAX).contains("damping.quiet_max"));
    assert!(wrong(|it| it.guard.vanish_percent = 101).contains("guard.vanish_percent"));
    assert!(wrong(|it| it.guard.window = Duration::ZERO).contains("guard.window"));
    assert!(wrong(|it| it.guard.hold = Duration::MAX).contains("guard.hold"));
}

#[test]
fn settings_of_a_list_are_replaced_and_count_for_what_there_is() {
    let mut discovery = discovery();
    let mut config = DiscoveryConfig::default();
    discovery.handle_update(at(0), snapshot(1, &TEN));
    discovery.poll_listing();
    discovery.handle_update(at(1000), snapshot(2, &["a"]));
    settle(&mut discovery, at(1000), at(2000));
    assert_eq!(names(&discovery), "abcdefghij", "nine are held");
    config.guard.hold = Duration::from_secs(5);
    discovery.configure(at(2000), config).unwrap();
    settle(&mut discovery, at(2000), at(6000));
    assert_eq!(names(&discovery), "abcdefghij");
    settle(&mut discovery, at(6000), at(6200));
    assert_eq!(names(&discovery), "a", "since they were held first");
    config.guard.hold = Duration::ZERO;
    assert_eq!(discovery.configure(at(7000), config).unwrap_err().name, "guard.hold");
}

#[test]
fn g06_one_that_flaps_is_left_out_also_if_it_was_held_and_for_as_long_as_new_settings_say() {
    let mut discovery = discovery();
    let mut config = DiscoveryConfig::default();
    let mut number = 0;
    let mut say = |discovery: &mut Discovery, ms: u64, names: &[&str]| {
        number += 1;
        discovery.handle_update(at(ms), snapshot(number, names));
        settle(discovery, at(ms), at(ms + 500));
    };
    for round in 0..4 {
        say(&mut discovery, round * 1000, &["a", "b", "c", "d"]);
        say(&mut discovery, round * 1000 + 500, &["a", "b", "c"]);
    }
    // Also when it was held for a while, since it had vanished more than once.
    say(&mut discovery, 4000, &["a", "b", "c", "d"]);
    assert_eq!(names(&discovery), "abc", "it comes and goes");
    // By the half-life of before it would be back in half a minute.
    config.damping.half_life = Duration::from_millis(100);
    discovery.configure(at(4500), config).unwrap();
    settle(&mut discovery, at(4500), at(6000));
    assert_eq!(names(&discovery), "abcd");
}

const TEN: [&str; 10] = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j"];

#[test]
fn the_first_list_counts_at_once_and_changes_after_a_moment() {
    let mut discovery = discovery();
    let mut source = StaticSource::new([instance("a"), instance("b")]);
    discovery.handle_update(at(0), source.poll_update(at(0)).unwrap());
    assert_eq!(discovery.poll_listing().unwrap().instances.len(), 2);
    assert!(source.poll_update(at(1)).is_none());
    discovery.handle_update(at(1000), snapshot(2, &["a", "b", "c"]));
    assert!(discovery.poll_listing().is_none(), "not yet");
    settle(&mut discovery, at(1000), at(1100));
    let listing = discovery.poll_listing().unwrap();
    assert_eq!(listing.version, 2);
    assert_eq!(listing.revision, Revision { epoch: 1, number: 2 }, "as the source counts");
    assert_eq!(listing.instances[0].since, Instant::ZERO, "it may have been there for long");
    assert_eq!(listing.instances[2].since, at(1000));
    assert!(discovery.poll_listing().is_none(), "it was taken");
}

#[test]
fn age_is_counted_by_the_clock_of_the_source() {
    let mut discovery = discovery();
    let mut old = instance("a");
    old.registered_ms = Some(5_000);
    let revision = Revision { epoch: 1, number: 1 };
    let snapshot = Snapshot { revision, instances: vec![old] };
    // This side's clock says something else altogether.
    discovery.handle_update(at(100_000), Update::Snapshot { snapshot, clock_ms: Some(12_000) });
    assert_eq!(discovery.listing().instances[0].since, at(93_000));
}

#[test]
fn an_instance_that_was_started_again_is_new_if_the_source_says_so() {
    let said = |number: u64, clock_ms: u64, registered_ms: &[u64]| {
        let of = |ms: &u64| {
            let mut instance = instance("a");
            instance.registered_ms = Some(*ms);
            instance
        };
        let instances = registered_ms.iter().map(of).collect();
        let snapshot = Snapshot { revision: Revision { epoch: 1, number }, instances };
        Update::Snapshot { snapshot, clock_ms: Some(clock_ms) }
    };
    let since = |discovery: &Discovery| discovery.listing().instances[0].since;
    // Missed for so long that it was held, for a moment only, and not at all.
    for missed_ms in [Some(2000), Some(10), None] {
        let mut discovery = discovery();
        discovery.handle_update(at(1_000_000), said(1, 1_000_000, &[5_000]));
        assert_eq!(since(&discovery), at(5_000));
        let back = at(1_010_000);
        if let Some(ms) = missed_ms {
            let missed_at = 1_010_000 - ms;
            discovery.handle_update(at(missed_at), said(2, missed_at, &[]));
            settle(&mut discovery, at(missed_at), at(1_009_999));
            assert_eq!(names(&discovery), "a", "it is held, or not looked at yet");
        }
        discovery.handle_update(back, said(3, 1_010_000, &[1_009_500]));
        settle(&mut discovery, back, at(1_011_000));
        assert_eq!(since(&discovery), at(1_009_500), "missed for {missed_ms:?} ms");
    }
}

#[test]
fn a_source_with_other_services_only_is_told_of_once() {
    let list = |number, services: &[&str]| {
        let mut instances: Vec<_> = "abc".chars().map(|name| instance(&name.to_string())).collect();
        for (instance, service) in instances.iter_mut().zip(services.iter().cycle()) {
            instance.service = (*service).to_owned();
        }
        let snapshot = Snapshot { revision: Revision { epoch: 1, number }, instances };
        Update::Snapshot { snapshot, clock_ms: None }
    };
    let mut discovery = discovery();
    discovery.handle_update(at(1), list(1, &["orders", "users"]));
    let alarm = discovery.poll_alarm().expect("the name may be wrong").to_string();
    assert_eq!(
        alarm,
        "the source has 3 instances, none of them of the service \"s\"; there is: orders, users"
    );
    discovery.handle_update(at(2), list(2, &["orders"]));
    assert_eq!(discovery.poll_alarm(), None, "it was said");
    discovery.handle_update(at(3), list(3, &["orders", "s"]));
    discovery.handle_update(at(4), snapshot(4, &[]));
    assert!(!matches!(discovery.poll_alarm(), Some(Alarm::OtherServices { .. })));
}

#[test]
fn g01_a_list_from_before_counts_until_the_source_is_heard() {
    let mut discovery = discovery();
    discovery.restore(at(0), [instance("a"), instance("b")]);
    discovery.handle_update(at(1), Update::Outage("no route".into()));
    assert_eq!(names(&discovery), "ab");
    assert_eq!(discovery.poll_alarm(), Some(Alarm::Outage("no route".into())));
    assert!(discovery.listing().instances.iter().all(|it| it.is_held));
    // It has better news, of which one instance is left.
    discovery.handle_update(at(2), snapshot(1, &["b", "c", "d"]));
    assert_eq!(names(&discovery), "bcd");
}

#[test]
fn g01_a_change_alone_is_no_list() {
    let mut discovery = discovery();
    discovery.restore(at(0), [instance("a"), instance("b")]);
    let revision = Revision { epoch: 1, number: 7 };
    let delta = Delta { revision, changes: vec![Change::Put(instance("c"))] };
    discovery.handle_update(at(1), Update::Delta { delta, clock_ms: None });
    settle(&mut discovery, at(1), at(1000));
    assert_eq!(names(&discovery), "abc", "it says nothing of a and b");
    discovery.handle_update(at(1001), snapshot(8, &["b", "c"]));
    settle(&mut discovery, at(1001), at(2000));
    assert_eq!(names(&discovery), "bc");
    assert_eq!(discovery.listing().instances[0].since, Instant::ZERO, "it may be old");
}

#[test]
fn g01_a_source_that_knows_half_after_a_restart_of_both_takes_nothing_away() {
    let mut discovery = discovery();
    discovery.restore(at(0), TEN.map(instance));
    discovery.handle_update(at(1), snapshot(1, &["a", "b", "c"]));
    assert_eq!(names(&discovery), "abcdefghij");
    assert_eq!(discovery.poll_alarm(), Some(Alarm::Vanished { held: 7, of: 10 }));
    let held = |discovery: &Discovery| {
        discovery.listing().instances.iter().filter(|it| it.is_held).count()
    };
    assert_eq!(held(&discovery), 7);
    discovery.handle_dead(at(2), "j");
    assert_eq!(names(&discovery), "abcdefghi", "nobody is there");
    discovery.handle_update(at(1000), snapshot(2, &TEN[..9]));
    settle(&mut discovery, at(1000), at(2000));
    assert_eq!((names(&discovery).as_str(), held(&discovery)), ("abcdefghi", 0));
}

#[test]
fn g09_an_instance_that_makes_no_sense_is_told_of_once() {
    let mut discovery = discovery();
    let alarms = |discovery: &mut Discovery| std::iter::from_fn(|| discovery.poll_alarm()).count();
    let said = |number: u64, is_valid: bool| {
        let mut bad = instance("b");
        bad.weight = if is_valid { 1 } else { u32::MAX };
        let revision = Revision { epoch: 1, number };
        Update::Snapshot {
            snapshot: Snapshot { revision, instances: vec![instance("a"), bad] },
            clock_ms: None,
        }
    };
    for number in 1..10 {
        discovery.handle_update(at(number), said(number, false));
    }
    assert_eq!(alarms(&mut discovery), 1);
    discovery.handle_update(at(10), said(10, true));
    discovery.handle_update(at(11), said(11, false));
    assert_eq!(alarms(&mut discovery), 1, "it was valid in between");
}

#[test]
fn g02_an_outage_takes_nothing_away() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &["a", "b"]));
    discovery.handle_update(at(10), Update::Outage("gone".into()));
    settle(&mut discovery, at(10), at(10_000_000));
    assert_eq!(names(&discovery), "ab");
}

#[test]
fn g03_an_empty_list_is_not_believed() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &["a", "b"]));
    discovery.handle_update(at(10), snapshot(2, &[]));
    settle(&mut discovery, at(10), at(10_000_000));
    assert_eq!(names(&discovery), "ab", "however long it says so");
    assert_eq!(discovery.poll_alarm(), Some(Alarm::Empty));
    // Who does not answer either is gone.
    discovery.handle_dead(at(10_000_001), "a");
    assert_eq!(names(&discovery), "b");
    // And who is heard of again is like the others.
    discovery.handle_update(at(10_000_002), snapshot(3, &["b", "c"]));
    settle(&mut discovery, at(10_000_002), at(10_000_200));
    assert_eq!(names(&discovery), "bc");
    assert!(discovery.listing().instances.iter().all(|it| !it.is_held));
}

#[test]
fn g03_many_that_vanish_at_once_are_held_for_a_while() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &TEN));
    discovery.handle_update(at(1000), snapshot(2, &TEN[..7]));
    settle(&mut discovery, at(1000), at(2000));
    assert_eq!(names(&discovery), "abcdefghij");
    assert_eq!(discovery.poll_alarm(), Some(Alarm::Vanished { held: 3, of: 10 }));
    assert_eq!(discovery.listing().instances.iter().filter(|it| it.is_held).count(), 3);
    discovery.handle_dead(at(3000), "j");
    discovery.handle_dead(at(3000), "a");
    assert_eq!(names(&discovery), "abcdefghi", "the source has a, whatever calls say");
    settle(&mut discovery, at(3000), at(700_000));
    assert_eq!(names(&discovery), "abcdefg");
}

#[test]
fn g03_those_that_are_held_when_a_long_silence_ends_are_held_on() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &TEN));
    discovery.handle_update(at(1000), snapshot(2, &[]));
    settle(&mut discovery, at(1000), at(10_000_000));
    // Instances register again one after the other; the others must not go at once for it.
    discovery.handle_update(at(10_000_000), snapshot(3, &TEN[..1]));
    settle(&mut discovery, at(10_000_000), at(10_001_000));
    assert_eq!(names(&discovery), "abcdefghij");
    assert_eq!(discovery.listing().instances.iter().filter(|it| it.is_held).count(), 9);
    settle(&mut discovery, at(10_001_000), at(10_700_000));
    assert_eq!(names(&discovery), "a", "they have had their time");
}

#[test]
fn g03_an_instance_that_was_held_is_not_new_when_it_is_heard_of_again() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &TEN));
    discovery.handle_update(at(1000), snapshot(2, &TEN[..5]));
    settle(&mut discovery, at(1000), at(2000));
    discovery.handle_update(at(5000), snapshot(3, &TEN));
    settle(&mut discovery, at(5000), at(6000));
    assert!(discovery.listing().instances.iter().all(|it| !it.is_held));
    assert!(discovery.listing().instances.iter().all(|it| it.since == Instant::ZERO));
}

#[test]
fn g03_those_that_are_held_are_bounded() {
    let mut discovery = discovery();
    let many = |number: u64| {
        let names = (0..6000).map(|n| format!("{number}-{n}"));
        let instances = names.map(with_name).collect();
        let snapshot = Snapshot { revision: Revision { epoch: 1, number }, instances };
        Update::Snapshot { snapshot, clock_ms: None }
    };
    for round in 1..=4 {
        discovery.handle_update(at(round * 10_000), many(round));
        settle(&mut discovery, at(round * 10_000), at(round * 10_000 + 5000));
    }
    let listing = discovery.listing();
    assert_eq!(listing.instances.len(), 10_000);
    // All that is there, and of the others those that went last.
    let of = |round: &str| {
        listing.instances.iter().filter(|it| it.instance.name.starts_with(round)).count()
    };
    assert_eq!((of("4-"), of("3-")), (6000, 4000));
}

#[test]
fn g03_those_that_are_of_another_version_now_have_not_vanished() {
    let wanted = Wanted::service("s").of_version("1");
    let mut discovery = Discovery::new(wanted, DiscoveryConfig::default()).unwrap();
    let all = |number, new: usize| {
        let instances = "abcdefghij".chars().enumerate().map(|(n, name)| {
            let mut instance = instance(&name.to_string());
            instance.version = if n < new { "2" } else { "1" }.into();
            instance
        });
        let revision = Revision { epoch: 1, number };
        let snapshot = Snapshot { revision, instances: instances.collect() };
        Update::Snapshot { snapshot, clock_ms: None }
    };
    discovery.handle_update(at(1000), all(1, 0));
    discovery.handle_update(at(10_000), all(2, 5));
    settle(&mut discovery, at(10_000), at(12_000));
    assert_eq!(names(&discovery), "fghij");
    assert!(discovery.poll_alarm().is_none());
    // Nor one that had vanished before and was held.
    discovery.handle_update(at(100_000), snapshot(3, &[]));
    settle(&mut discovery, at(100_000), at(102_000));
    assert_eq!(names(&discovery), "fghij");
    discovery.handle_update(at(103_000), all(4, 7));
    settle(&mut discovery, at(103_000), at(105_000));
    assert_eq!(names(&discovery), "hij");
    discovery.handle_update(at(106_000), all(5, 10));
    settle(&mut discovery, at(106_000), at(108_000));
    assert_eq!(names(&discovery), "", "the source knows all of them");
}

#[test]
fn g03_a_few_may_go_in_a_window() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &TEN));
    discovery.handle_update(at(1000), snapshot(2, &TEN[..9]));
    settle(&mut discovery, at(1000), at(2000));
    assert_eq!(names(&discovery), "abcdefghi", "15 % of ten are one");
    discovery.handle_update(at(3000), snapshot(3, &TEN[..8]));
    settle(&mut discovery, at(3000), at(4000));
    assert_eq!(names(&discovery), "abcdefghi", "and not another one within a minute");
    discovery.handle_update(at(62_000), snapshot(4, &TEN[..8]));
    discovery.handle_dead(at(62_000), "i");
    discovery.handle_update(at(70_000), snapshot(5, &TEN[..7]));
    settle(&mut discovery, at(70_000), at(71_000));
    assert_eq!(names(&discovery), "abcdefg");
}

#[test]
fn g04_updates_of_any_order_give_one_list() {
    let change = |number, change| Update::Delta {
        delta: Delta { revision: Revision { epoch: 1, number }, changes: vec![change] },
        clock_ms: None,
    };
    let updates = [
        snapshot(1, &["a", "b"]),
        change(2, Change::Put(instance("c"))),
        change(3, Change::Removed { service: "s".into(), name: "b".into() }),
    ];
    let mut lists = Vec::new();
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        let mut discovery = discovery();
        for index in order {
            discovery.handle_update(at(0), updates[index].clone());
        }
        settle(&mut discovery, at(0), at(5_000));
        lists.push(names(&discovery));
    }
    assert_eq!(lists, ["ac"; 6]);
}

#[test]
fn g04_instances_of_other_services_may_have_the_same_name() {
    let of = |service: &str, name: String| {
        let mut instance = with_name(name);
        instance.service = service.into();
        instance
    };
    for order in [["s", "other"], ["other", "s"]] {
        let mut discovery = discovery();
        let revision = Revision { epoch: 1, number: 1 };
        let instances = order.iter().map(|service| of(service, "a".into())).collect();
        let snapshot = Snapshot { revision, instances };
        discovery.handle_update(at(0), Update::Snapshot { snapshot, clock_ms: None });
        assert_eq!(names(&discovery), "a", "{order:?}");
    }
    // Nor do many of others leave no room.
    let mut discovery = discovery();
    let others = (0..20_000).map(|n| of("other", n.to_string()));
    let instances = others.chain([of("s", "a".into())]).collect();
    let snapshot = Snapshot { revision: Revision { epoch: 1, number: 1 }, instances };
    discovery.handle_update(at(0), Update::Snapshot { snapshot, clock_ms: None });
    assert_eq!(names(&discovery), "a");
}

#[test]
fn g06_an_instance_that_flaps_is_left_out_and_lists_are_rebuilt_seldom() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &["a", "b", "c"]));
    let mut listings = 0;
    for round in 0..100u64 {
        // Ten times a second, for ten seconds.
        let now = at(1000 + round * 100);
        let there = ["a", "b", "c"];
        let names = if round % 2 == 0 { &there[..2] } else { &there[..] };
        discovery.handle_update(now, snapshot(2 + round, names));
        settle(&mut discovery, now, now + Duration::from_millis(99));
        listings += u32::from(discovery.poll_listing().is_some());
    }
    assert!(listings <= 11, "{listings} lists in ten seconds");
    assert_eq!(names(&discovery), "ab");
    settle(&mut discovery, at(11_000), at(120_000));
    assert_eq!(names(&discovery), "abc", "it has been there for a while now");
}

#[test]
fn g06_those_that_flap_are_better_than_nobody() {
    let mut discovery = discovery();
    discovery.handle_update(at(0), snapshot(1, &["a", "b"]));
    for round in 0..20 {
        let now = at(1000 + round * 100);
        discovery.handle_update(now, snapshot(2 + 2 * round, &[]));
        discovery.handle_update(now, snapshot(3 + 2 * round, &["a", "b"]));
    }
    settle(&mut discovery, at(3000), at(5000));
    assert_eq!(names(&discovery), "ab");
}

#[test]
fn g09_what_cannot_be_is_left_out_and_told() {
    let mut discovery = discovery();
    let nowhere = Instance::new("s", "b", std::net::SocketAddr::from(([127, 0, 0, 1], 0)));
    let snapshot = Snapshot {
        revision: Revision { epoch: 1, number: 1 },
        instances: vec![instance("a"), nowhere],
    };
    discovery.handle_update(at(0), Update::Snapshot { snapshot, clock_ms: None });
    assert_eq!(names(&discovery), "a");
    let alarm = discovery.poll_alarm().unwrap();
    assert_eq!(
        alarm.to_string(),
        "the instance \"b\" is left out: nobody can be reached at its address"
    );
}
