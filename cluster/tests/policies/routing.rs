//! Where rules, groups and zones let calls go, decision by decision.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use proptest::prelude::*;
use ringcall_cluster::Settings;
use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::{Fleet, Readiness};
use ringcall_cluster::retry::Verdict;
use ringcall_cluster::route::{
    Action, Asked, BadRule, BadRules, By, Caller, Dropped, Fields, Groups, Match, Route, Rule,
    Rules, Sample, Subset, Text, Trace, Zones,
};
use ringcall_core::frame::{ExtensionWriter, Extensions, ReplyHeader, tag};
use ringcall_core::{
    Cause, CloseReason, Failure, FailureClass, Instant, Missing, ServiceName, Status,
};

const SECOND: Duration = Duration::from_secs(1);
const METHOD: &str = "shop.Orders/place";

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// Two of version 1 and two of version 2, one of each in a zone; the last is of a lane of its own.
fn shop() -> Vec<Instance> {
    let instance = |(name, version, zone): (&str, &str, &str)| {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let mut instance = Instance::new("shop", name, address);
        (instance.version, instance.zone) = (version.into(), zone.into());
        instance
    };
    let mut all: Vec<Instance> =
        [("a", "1", "z1"), ("b", "1", "z2"), ("c", "2", "z1"), ("d", "2", "z2")]
            .map(instance)
            .into();
    all[3].tags.insert("lane".into(), "blue".into());
    all
}

fn fleet_of(settings: Settings, instances: Vec<Instance>) -> Fleet<char> {
    let mut fleet = Fleet::new(settings, 1, at(1000)).unwrap();
    let first = |instance: &Instance| instance.name.chars().next();
    let _none = fleet.apply(at(1000), &Listing::of(5, instances), first);
    fleet
}

fn fleet(rules: Rules) -> Fleet<char> {
    let mut fleet = fleet_of(Settings::new(), shop());
    fleet.route(rules).unwrap();
    fleet
}

fn rules(list: impl IntoIterator<Item = (&'static str, Match, Action)>) -> Rules {
    let rule = |rules: Rules, (name, when, then)| rules.with(Rule::new(name, when, then));
    list.into_iter().fold(Rules::new(1), rule)
}

fn ready(_: &char) -> Readiness {
    Readiness::Ready
}

/// Makes a call, which is answered.
fn call(fleet: &mut Fleet<char>, sample: &Sample) -> Result<char, Failure> {
    let (now, asked) = (at(1001), sample.asked());
    let mut call = fleet.begin(now, &asked, 0, SECOND)?;
    let begun = fleet.start(now, &asked, &mut call, ready);
    let header = ReplyHeader::new(Status::OK);
    let name = begun.map(|(attempt, name)| {
        assert_eq!(fleet.end(now, &mut call, attempt, Ok(&header)), Verdict::End);
        name
    });
    fleet.finish(now, &call, Some(name.as_ref().map(|_| &header)));
    name
}

const fn nobody(why: Missing) -> Failure {
    Failure::not_sent(Cause::NoInstance { why, service: Some(ServiceName::new(&"shop")) })
}

const NOBODY: Failure = nobody(Missing::LeftOut);

/// To whom a hundred such calls go.
fn reached(fleet: &mut Fleet<char>, sample: &Sample) -> String {
    let names: BTreeSet<char> = (0..100).map(|_| call(fleet, sample).unwrap()).collect();
    names.into_iter().collect()
}

fn plain() -> Sample {
    Sample::of(METHOD)
}

fn version(version: &str) -> Subset {
    Subset::all().version(version)
}

fn to(subset: Subset) -> Action {
    Action::route(Route::to(subset))
}

#[test]
fn the_first_rule_that_is_met_says_where_a_call_goes() {
    let mut fleet = fleet(rules([
        ("canary", Match::all().metadata("x-canary", "yes"), to(version("2"))),
        ("pinned", Match::all().metadata("x-pin", Text::Present), to(Subset::named(["b"]))),
        ("other service", Match::all().service("shop.Stock"), to(version("2"))),
        ("this method", Match::all().method(METHOD), to(version("1"))),
        ("never", Match::all(), Action::Deny(Status::FORBIDDEN)),
    ]));
    assert_eq!(reached(&mut fleet, &plain()), "ab");
    assert_eq!(reached(&mut fleet, &plain().metadata("x-canary", "yes")), "cd");
    assert_eq!(reached(&mut fleet, &plain().metadata("x-canary", "no")), "ab");
    assert_eq!(reached(&mut fleet, &plain().metadata("x-pin", "")), "b");
    let both = plain().metadata("x-pin", "").metadata("x-canary", "yes");
    assert_eq!(reached(&mut fleet, &both), "cd");
    assert_eq!(reached(&mut fleet, &Sample::of("shop.Stock/count")), "cd");
    let denied = call(&mut fleet, &Sample::of("shop.Orders/placed")).unwrap_err();
    assert_eq!(denied, Failure::not_sent(Cause::Status(Status::FORBIDDEN)));
    assert_eq!((fleet.counts().denied, denied.class), (1, FailureClass::NotSent));
}

#[test]
fn g19_a_rule_that_matches_nobody_does_what_it_says() {
    let nobody = || version("9");
    let mut alone = fleet(rules([("gone", Match::all(), to(nobody()))]));
    assert_eq!(call(&mut alone, &plain()), Err(NOBODY));
    let explained = alone.explain_call(at(1001), &plain().asked(), ready);
    let dropped = Err(Dropped::NotIn("gone".into()));
    assert!(explained.hosts.iter().all(|host| host.lane == dropped));
    assert!(explained.to_string().contains("not in a lane of \"gone\""), "{explained}");
    let or = |route: Route| fleet(rules([("gone", Match::all(), Action::route(route))]));
    let mut fallback = or(Route::to(nobody()).or(version("2")));
    assert_eq!(reached(&mut fallback, &plain()), "cd");
    let mut any = or(Route::to(nobody()).or_any());
    assert_eq!(reached(&mut any, &plain()), "abcd");
}

#[test]
fn a_subset_of_no_names_is_nobody() {
    let nobody = || Subset::named::<&str>([]);
    let mut fleet = fleet(rules([("none", Match::all(), Action::Exclude(nobody()))]));
    assert!(call(&mut fleet, &plain()).is_ok(), "nobody is left out");
    fleet.route(Rules::new(2).with(Rule::new("none", Match::all(), to(nobody())))).unwrap();
    assert_eq!(call(&mut fleet, &plain()), Err(NOBODY));
}

#[test]
fn what_is_excluded_is_left_out_of_whatever_comes_later() {
    let mut fleet = fleet(rules([
        ("not b", Match::all(), Action::Exclude(Subset::named(["b"]))),
        (
            "not c",
            Match::all().metadata("x", Text::begins("no")),
            Action::Exclude(Subset::named(["c"])),
        ),
        ("new", Match::all().methods("shop.Orders/pl"), to(version("2"))),
    ]));
    assert_eq!(reached(&mut fleet, &plain()), "cd");
    assert_eq!(reached(&mut fleet, &plain().metadata("x", "no c")), "d");
    let other = Sample::of("shop.Stock/count");
    assert_eq!(reached(&mut fleet, &other), "acd");
    let trace = fleet.explain_call(at(1001), &other.asked(), ready).trace.unwrap();
    assert_eq!(trace.met, ["not b"]);
    assert_eq!(trace.instances[1], ("b".into(), Err(Dropped::Excluded("not b".into()))));
}

#[test]
fn shares_by_a_value_are_the_same_each_time_and_grow() {
    let share = |name, percent| {
        let when = Match::all().percent(percent, By::Metadata("user".into()));
        let mut fleet = fleet(rules(
            [(name, when, to(version("2"))), ("", Match::all(), to(version("1")))].map(
                |(name, when, then)| (if name.is_empty() { "others" } else { name }, when, then),
            ),
        ));
        let user = |user: u32| plain().metadata("user", user.to_string());
        let is_in = |user| matches!(call(&mut fleet, &user), Ok('c' | 'd'));
        let once: Vec<bool> = (0..4000).map(user).map(is_in).collect();
        let is_in = |user| matches!(call(&mut fleet, &user), Ok('c' | 'd'));
        assert!(once.iter().copied().eq((0..4000).map(user).map(is_in)), "not the same again");
        once
    };
    let count = |users: &[bool]| users.iter().filter(|is_in| **is_in).count();
    let (five, twenty, other) = (share("canary", 5), share("canary", 20), share("another", 20));
    assert!((150..250).contains(&count(&five)), "{}", count(&five));
    assert!((720..880).contains(&count(&twenty)), "{}", count(&twenty));
    assert!(five.iter().zip(&twenty).all(|(five, twenty)| !five || *twenty), "somebody left");
    let both = twenty.iter().zip(&other).filter(|(one, other)| **one && **other).count();
    assert!((100..220).contains(&both), "{both}: the same users in both");
    assert_eq!((count(&share("canary", 0)), count(&share("canary", 100))), (0, 4000));
}

#[test]
fn shares_are_by_chance_where_nothing_else_decides() {
    let canary = |by| {
        let when = Match::all().per_10_000(1000, by);
        let mut fleet = fleet(rules([
            ("canary", when, to(version("2"))),
            ("others", Match::all(), to(version("1"))),
        ]));
        let new = (0..10_000).filter(|_| matches!(call(&mut fleet, &plain()), Ok('c' | 'd')));
        new.count()
    };
    for by in [By::Chance, By::Key, By::Metadata("user".into()), By::Field("user".into())] {
        let new = canary(by.clone());
        assert!((900..1100).contains(&new), "{by:?}: {new}");
    }
}

#[test]
fn a_split_goes_by_weight_and_key() {
    let routes = || [(1, Route::to(Subset::named(["d"]))), (3, Route::to(version("1")))];
    let mut split = fleet(rules([("split", Match::all(), Action::split(routes(), By::Key))]));
    let mut by_key = BTreeMap::new();
    for key in (0..4000).chain(0..4000) {
        let is_new = call(&mut split, &plain().keyed(key)) == Ok('d');
        assert_eq!(*by_key.entry(key).or_insert(is_new), is_new, "{key} has moved");
    }
    let new = by_key.values().filter(|is_new| **is_new).count();
    assert!((900..1100).contains(&new), "{new}");
}

struct Order {
    user: String,
    lots: u64,
}

#[test]
fn rules_read_fields_of_typed_arguments() {
    let mut settings = Settings::new();
    settings.fields = Fields::new()
        .text("user", |order: &Order| &order.user)
        .number("lots", |order: &Order| order.lots);
    let mut fleet = fleet_of(settings, shop());
    fleet
        .route(rules([
            ("tester", Match::all().field("user", Text::begins("test-")), to(version("2"))),
            ("large", Match::all().number("lots", 100..=u64::MAX), to(Subset::named(["b"]))),
            ("seven", Match::all().field("lots", "7"), to(Subset::named(["d"]))),
            ("nameless", Match::all().field("user", Text::Absent), to(Subset::named(["c"]))),
            ("others", Match::all(), to(Subset::named(["a"]))),
        ]))
        .unwrap();
    let mut to = |user: &str, lots| {
        reached(&mut fleet, &plain().argument(Order { user: user.to_owned(), lots }))
    };
    assert_eq!(to("test-1", 1), "cd");
    assert_eq!([to("eve", 99), to("eve", 100), to("eve", 7)], ["a", "b", "d"]);
    assert_eq!(reached(&mut fleet, &plain().argument("no order")), "c");
    assert_eq!(reached(&mut fleet, &plain()), "c", "nor is what has no argument");
}

#[test]
fn what_is_said_of_the_caller_decides() {
    let rules = || {
        rules([
            ("lane", Match::all().tag("lane", Text::Present), {
                Action::route(
                    Route::to(Subset::all().alike("lane")).or(Subset::all().alike("none")),
                )
            }),
            ("base", Match::all(), to(Subset::all().tag("lane", Text::Absent))),
        ])
    };
    let reached_by = |caller: Caller| {
        let mut settings = Settings::new();
        settings.caller = caller;
        let mut fleet = fleet_of(settings, shop());
        fleet.route(rules()).unwrap();
        reached(&mut fleet, &plain())
    };
    assert_eq!(reached_by(Caller::default()), "abc");
    assert_eq!(reached_by(Caller::default().with_tag("lane", "blue")), "d");
    // A lane in which there is nobody falls back to those that are in no lane of another kind.
    assert_eq!(reached_by(Caller::default().with_tag("lane", "green")), "abcd");
}

#[test]
fn those_of_the_lowest_priority_number_that_can_be_called_get_all_calls() {
    let mut instances = shop();
    for (instance, priority) in instances.iter_mut().zip([10, 10, 20, 30]) {
        instance.priority = priority;
    }
    let mut fleet = fleet_of(Settings::new(), instances.clone());
    let go = |fleet: &mut Fleet<char>, down: &str| {
        let ready = |name: &char| match down.contains(*name) {
            true => Readiness::Broken,
            false => Readiness::Ready,
        };
        let mut reached = BTreeSet::new();
        for _ in 0..50 {
            let mut state = fleet.begin(at(1001), &Asked::new(METHOD), 0, SECOND).unwrap();
            let (attempt, name) =
                fleet.start(at(1001), &Asked::new(METHOD), &mut state, ready).unwrap();
            fleet.abandon(at(1001), &state, attempt);
            reached.insert(name);
        }
        reached.into_iter().collect::<String>()
    };
    assert_eq!(go(&mut fleet, ""), "ab");
    assert_eq!(go(&mut fleet, "a"), "b");
    assert_eq!(go(&mut fleet, "ab"), "c");
    assert_eq!(go(&mut fleet, "abc"), "d");
    let lanes = fleet.explain_call(at(1001), &Asked::new(METHOD), ready).hosts;
    assert_eq!(
        lanes.into_iter().map(|host| host.lane).collect::<Vec<_>>(),
        [Ok(0), Ok(0), Ok(1), Ok(2)]
    );
    // Where all are alike again, priorities do not matter.
    instances.iter_mut().for_each(|it| it.priority = 20);
    let first = |instance: &Instance| instance.name.chars().next();
    let _none = fleet.apply(at(1001), &Listing::of(6, instances), first);
    assert_eq!(go(&mut fleet, ""), "abcd");
}

#[test]
fn a_lane_whose_instances_cannot_be_called_is_passed_over() {
    let route = Route::to(Subset::named(["d"])).or(version("1"));
    let mut fleet = fleet(rules([("lane", Match::all(), Action::route(route))]));
    let sample = plain();
    assert_eq!(reached(&mut fleet, &sample), "d");
    let no_d = |name: &char| if *name == 'd' { Readiness::Broken } else { Readiness::Ready };
    let asked = sample.asked();
    let mut call = fleet.begin(at(1002), &asked, 0, SECOND).unwrap();
    let (attempt, name) = fleet.start(at(1002), &asked, &mut call, no_d).unwrap();
    assert!(matches!(name, 'a' | 'b'), "{name}");
    let header = ReplyHeader::new(Status::OK);
    let _end = fleet.end(at(1003), &mut call, attempt, Ok(&header));
    // One that was refused there is made again in the next lane, and then in it once more.
    let mut call = fleet.begin(at(1004), &asked, 0, SECOND).unwrap();
    let refused = Failure::from_status(Status::OVERLOADED, 0).unwrap();
    let mut made = String::new();
    for _ in 0..3 {
        let (attempt, name) = fleet.start(at(1004), &asked, &mut call, ready).unwrap();
        made.push(name);
        let _again = fleet.end(at(1004), &mut call, attempt, Err(&refused));
    }
    assert!(matches!(&made[..], "dab" | "dba"), "{made}");
    // Without another lane it is made there again, whatever becomes of it.
    fleet.route(rules([("pin", Match::all(), to(Subset::named(["d"])))])).unwrap();
    let mut call = fleet.begin(at(1005), &asked, 0, SECOND).unwrap();
    let (_, name) = fleet.start(at(1005), &asked, &mut call, no_d).unwrap();
    assert_eq!(name, 'd');
}

#[test]
fn rules_are_replaced_unless_they_are_older_or_wrong() {
    let mut fleet = fleet(rules([("one", Match::all(), to(version("1")))]));
    let newer = Rules::new(7).with(Rule::new("two", Match::all(), to(version("2"))));
    // A call that has begun by other rules goes by these from its next attempt on.
    let sample = plain();
    let asked = sample.asked();
    let mut begun = fleet.begin(at(1001), &asked, 0, SECOND).unwrap();
    fleet.route(newer).unwrap();
    let (_, name) = fleet.start(at(1001), &asked, &mut begun, ready).unwrap();
    assert!(matches!(name, 'c' | 'd'), "{name}");
    assert_eq!(fleet.route(Rules::new(6)), Err(BadRules::Older { in_force: 7 }));
    let wrong = |when, then| {
        let bad = Rules::new(8).with(Rule::new("bad", when, then)).check().unwrap_err();
        let BadRules::Rule { name, what } = bad else { panic!("{bad}") };
        assert_eq!(name, "bad");
        what
    };
    let all = Match::all;
    let any = || to(Subset::all());
    assert_eq!(wrong(all(), Action::Deny(Status::OK)), BadRule::Status);
    assert_eq!(wrong(all(), Action::Delay(SECOND * 3601)), BadRule::Delay);
    assert_eq!(wrong(all(), Action::split([], By::Key)), BadRule::Split);
    assert_eq!(
        wrong(all(), Action::split([(0, Route::to(version("1")))], By::Key)),
        BadRule::Split
    );
    assert_eq!(wrong(all().percent(101, By::Chance), any()), BadRule::Share);
    assert_eq!(wrong(all().metadata("No Key", "x"), any()), BadRule::Key);
    assert_eq!(wrong(all().service(""), any()), BadRule::Text);
    #[expect(clippy::reversed_empty_ranges, reason = "it is what is wrong")]
    let none = 2..=1;
    assert_eq!(wrong(all().number("n", none), any()), BadRule::Range);
    let tags = (0..17).fold(Subset::all(), |it, n| it.tag(n.to_string(), "x"));
    assert_eq!(wrong(all(), Action::Exclude(tags)), BadRule::TooMuch);
    let twice = rules([("same", all(), any()), ("same", all(), any())]);
    assert!(twice.check().unwrap_err().to_string().contains("another one has its name"));
    let many =
        (0..129).map(|n| Rule::new(n.to_string(), all(), any())).fold(Rules::new(9), Rules::with);
    assert_eq!(fleet.route(many), Err(BadRules::TooMany));
    assert_eq!(reached(&mut fleet, &sample), "cd", "nothing has changed");
    fleet.route(Rules::new(9)).unwrap();
    assert_eq!(reached(&mut fleet, &sample), "abcd");
}

#[test]
fn a_dry_run_says_what_rules_would_do() {
    let rules = rules([
        ("slow", Match::all(), Action::Delay(Duration::from_millis(5))),
        ("slower", Match::all(), Action::Delay(SECOND)),
        ("new", Match::all().metadata("x-canary", "yes"), {
            Action::route(Route::to(Subset::named(["d"])).or(version("2")))
        }),
        ("closed", Match::all(), Action::Deny(Status::UNKNOWN_METHOD)),
    ]);
    let (settings, shop) = (Settings::new(), shop());
    let run = |sample: Sample| rules.dry_run(&settings, &sample, 1, &shop).unwrap();
    let trace = run(plain().metadata("x-canary", "yes"));
    assert_eq!(trace.met, ["slow", "slower", "new"]);
    assert_eq!(
        (trace.version, trace.denied, trace.delay),
        (1, None, Some(Duration::from_millis(5)))
    );
    let not_in = || Err(Dropped::NotIn("new".into()));
    let lanes: Vec<_> = trace.instances.into_iter().map(|(_, lane)| lane).collect();
    assert_eq!(lanes, [not_in(), not_in(), Ok(1), Ok(0)]);
    assert_eq!(run(plain()).denied, Some(Status::UNKNOWN_METHOD));
    assert!(
        Rules::new(1)
            .with(Rule::new("", Match::all(), to(Subset::all())))
            .dry_run(&settings, &plain(), 1, &shop)
            .is_err()
    );
}

// ---- groups and zones ----

fn grouped(groups: Groups) -> Fleet<char> {
    let mut settings = Settings::new();
    settings.groups = Some(groups);
    let mut instances = shop();
    for (instance, group) in instances.iter_mut().zip(["blue", "blue", "base", ""]) {
        instance.group = group.into();
    }
    fleet_of(settings, instances)
}

#[test]
fn calls_go_to_the_group_that_they_ask_for_or_to_fallbacks() {
    let asking = |group: &str| plain().group(group);
    let mut strict = grouped(Groups::of("base"));
    assert_eq!(reached(&mut strict, &plain()), "c");
    assert_eq!(reached(&mut strict, &asking("blue")), "ab");
    assert_eq!(reached(&mut strict, &asking("")), "d");
    assert_eq!(call(&mut strict, &asking("green")), Err(nobody(Missing::NotInGroup)));
    let mut fallback = grouped(Groups::of("green").or("red").or("base"));
    assert_eq!(reached(&mut fallback, &plain()), "c");
    assert_eq!(reached(&mut fallback, &asking("blue")), "ab");
    assert_eq!(reached(&mut grouped(Groups::of("green").or_any()), &plain()), "abcd");
    // Rules hold within groups.
    fallback
        .route(rules([("not a", Match::all(), Action::Exclude(Subset::named(["a"])))]))
        .unwrap();
    assert_eq!(reached(&mut fallback, &asking("blue")), "b");
    let explained = fallback.explain_call(at(1001), &asking("blue").asked(), ready);
    let lanes: Vec<_> = explained.hosts.iter().map(|host| host.lane.clone()).collect();
    let excluded = Err(Dropped::Excluded("not a".into()));
    assert_eq!(lanes, [excluded, Ok(0), Ok(2), Err(Dropped::OtherGroup)]);
}

#[test]
fn requests_carry_which_group_they_asked_for_and_which_they_got() {
    let mut fleet = grouped(Groups::of("green").or("base"));
    let carried = |fleet: &mut Fleet<char>, sample: &Sample| {
        let asked = sample.asked();
        let mut call = fleet.begin(at(1001), &asked, 0, SECOND).unwrap();
        let (attempt, _) = fleet.start(at(1001), &asked, &mut call, ready).unwrap();
        let bytes = fleet.carried(&call, &attempt).expect("groups matter");
        fleet.abandon(at(1001), &call, attempt);
        bytes
    };
    let expected = |asked: Option<&str>, real: &str| {
        let mut writer = ExtensionWriter::new();
        if let Some(asked) = asked {
            assert!(writer.push_parts(tag::ASKED_GROUP, [asked.as_bytes()]));
        }
        let real = [&5u64.to_le_bytes()[..], real.as_bytes()];
        assert!(writer.push_parts(tag::REAL_GROUP, real));
        writer.finish()
    };
    assert_eq!(*carried(&mut fleet, &plain()), expected(Some("green"), "base"));
    let own = carried(&mut fleet, &plain().group("blue"));
    assert_eq!(*own, expected(None, "blue"), "the call says itself what it asks for");
    assert!(Extensions::new(&own).all(|found| found.is_ok()));
}

/// Ten instances in the caller's zone, named by digits, and ten in another.
fn zoned(zones: Zones) -> Fleet<char> {
    let mut settings = Settings::new();
    (settings.zones, settings.caller) = (Some(zones), Caller::in_zone("z1"));
    settings.method.breaker = None;
    let instance = |(name, zone): (char, &str)| {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let mut instance = Instance::new("shop", name, address);
        instance.zone = zone.into();
        instance
    };
    let near = ('0'..='9').map(|name| (name, "z1"));
    let all = near.chain(('a'..='j').map(|name| (name, "z2"))).map(instance);
    fleet_of(settings, all.collect())
}

/// What share of 4000 calls stays in the zone while only instances below a digit, and some elsewhere, can be called.
fn stays(fleet: &mut Fleet<char>, below: char, elsewhere: char) -> f64 {
    let readiness = |name: &char| match *name {
        '0'..='9' if *name < below => Readiness::Ready,
        'a'..='j' if *name < elsewhere => Readiness::Ready,
        _ => Readiness::Broken,
    };
    let sample = plain();
    let asked = sample.asked();
    let header = ReplyHeader::new(Status::OK);
    let mut stayed = 0;
    // The first one is made when it is time to look at all of them.
    for ms in 0..4000 {
        let now = at(2500) + Duration::from_millis(ms);
        let mut call = fleet.begin(now, &asked, 0, SECOND).unwrap();
        let (attempt, name) = fleet.start(now, &asked, &mut call, readiness).unwrap();
        stayed += u32::from(name.is_ascii_digit());
        let _end = fleet.end(now, &mut call, attempt, Ok(&header));
    }
    f64::from(stayed) / 4000.0
}

#[test]
fn calls_stay_in_the_zone_while_enough_of_it_is_well() {
    let share = |below, elsewhere| stays(&mut zoned(Zones::default()), below, elsewhere);
    let near = |share: f64, expected: f64| assert!((share - expected).abs() < 0.04, "{share}");
    // ':' is behind '9', and 'k' behind 'j'.
    near(share(':', 'k'), 1.0);
    near(share('7', 'k'), 1.0);
    // 35 % well, half of what it takes.
    near(share('5', 'k'), 5.0 / 7.0);
    near(share('2', 'k'), 2.0 / 7.0);
    near(share('0', 'k'), 0.0);
    // Elsewhere things are no better: what is there is shared out.
    near(share('2', 'c'), 0.5);
    near(share('2', 'a'), 1.0);
    let mut zones = Zones::default();
    zones.instances_min = 11;
    near(stays(&mut zoned(zones), ':', 'k'), 0.5);
}

#[test]
fn a_zone_that_fails_is_left_without_anybody_being_disconnected() {
    let mut fleet = zoned(Zones::default());
    let sample = plain();
    let asked = sample.asked();
    let lost = Failure::unknown(Cause::Closed(CloseReason::PeerClosed));
    let header = ReplyHeader::new(Status::OK);
    let (mut stayed, mut all) = (0, 0);
    for ms in 0..6000 {
        let now = at(1001 + ms);
        let mut call = fleet.begin(now, &asked, 0, SECOND).unwrap();
        let (attempt, name) = fleet.start(now, &asked, &mut call, ready).unwrap();
        let is_near = name.is_ascii_digit();
        let end = if is_near && ms > 1000 { Err(&lost) } else { Ok(&header) };
        let _end = fleet.end(now, &mut call, attempt, end);
        if ms >= 4000 {
            (stayed, all) = (stayed + u32::from(is_near), all + 1);
        }
    }
    assert!(stayed * 10 <= all, "{stayed} of {all}");
}

// ---- whatever rules there are ----

fn subset() -> impl Strategy<Value = Subset> {
    let named = proptest::sample::subsequence(vec!["a", "b", "c", "d"], 0..=3);
    prop_oneof![
        named.prop_map(Subset::named),
        (1u32..=3).prop_map(|number| Subset::all().version(number.to_string())),
        (1u32..=3).prop_map(|number| Subset::all().zone(format!("z{number}"))),
        Just(Subset::all().tag("lane", "blue")),
        Just(Subset::all().tag("lane", Text::Absent)),
        Just(Subset::all().alike("lane")),
    ]
}

fn route() -> impl Strategy<Value = Route> {
    proptest::collection::vec(subset(), 1..4).prop_map(|lanes| {
        let mut lanes = lanes.into_iter();
        let first = Route::to(lanes.next().unwrap());
        lanes.fold(first, Route::or)
    })
}

fn action() -> impl Strategy<Value = Action> {
    prop_oneof![
        3 => route().prop_map(Action::route),
        1 => (route(), route()).prop_map(|(one, other)| Action::split([(1, one), (2, other)], By::Key)),
        3 => subset().prop_map(Action::Exclude),
        1 => Just(Action::Deny(Status::FORBIDDEN)),
    ]
}

fn when() -> impl Strategy<Value = Match> {
    prop_oneof![
        Just(Match::all()),
        Just(Match::all().service("shop.Orders")),
        Just(Match::all().method("shop.Stock/count")),
        Just(Match::all().metadata("x", "1")),
        Just(Match::all().metadata("x", Text::Absent)),
        Just(Match::all().tag("lane", "blue")),
        Just(Match::all().percent(50, By::Key)),
        Just(Match::all().percent(50, By::Chance)),
    ]
}

fn any_rules() -> impl Strategy<Value = Rules> {
    proptest::collection::vec((when(), action()), 0..12).prop_map(|rules| {
        let named = rules.into_iter().enumerate();
        named.fold(Rules::new(1), |all, (n, (when, then))| {
            all.with(Rule::new(n.to_string(), when, then))
        })
    })
}

fn any_settings() -> impl Strategy<Value = Settings> {
    let groups = prop_oneof![
        Just(None),
        Just(Some(Groups::of("1").or("2"))),
        Just(Some(Groups::of("3").or_any())),
    ];
    (any::<bool>(), groups).prop_map(|(is_blue, groups)| {
        let mut settings = Settings::new();
        settings.groups = groups;
        if is_blue {
            settings.caller = Caller::default().with_tag("lane", "blue");
        }
        settings
    })
}

/// The instances of the first lane that has some.
fn expected(trace: &Trace) -> String {
    let lanes = trace.instances.iter().filter_map(|(name, lane)| Some((lane.as_ref().ok()?, name)));
    let first = lanes.clone().map(|(lane, _)| *lane).min();
    lanes.filter(|(lane, _)| Some(**lane) == first).map(|(_, name)| &name[..]).collect()
}

proptest! {
    #[test]
    fn what_is_explained_is_what_happens(
        rules in any_rules(),
        settings in any_settings(),
        priorities in proptest::collection::vec(0u16..3, 4),
        calls in proptest::collection::vec((any::<bool>(), any::<bool>(), 0u64..4, any::<bool>()), 1..8),
    ) {
        let mut instances = shop();
        instances.iter_mut().zip(priorities).for_each(|(it, priority)| it.priority = priority);
        instances.iter_mut().for_each(|it| it.group = it.version.clone());
        let mut fleet = fleet_of(settings, instances);
        fleet.route(rules).unwrap();
        for (is_order, has_x, key, asks) in calls {
            let mut sample = Sample::of(if is_order { METHOD } else { "shop.Stock/count" }).keyed(key);
            if has_x {
                sample = sample.metadata("x", "1");
            }
            if asks {
                sample = sample.group("2");
            }
            let trace = fleet.explain_call(at(1001), &sample.asked(), ready).trace.unwrap_or_default();
            let went = call(&mut fleet, &sample);
            let may = expected(&trace);
            let is_unrouted = trace == Trace::default();
            match went {
                Ok(name) => prop_assert!(is_unrouted || may.contains(name), "{name} of {may}: {trace:?}"),
                Err(failure) if trace.denied.is_some() => {
                    prop_assert_eq!(failure, Failure::not_sent(Cause::Status(Status::FORBIDDEN)));
                }
                Err(failure) => {
                    let is_why = [NOBODY, nobody(Missing::NotInGroup)].contains(&failure);
                    prop_assert!(is_why && may.is_empty(), "{failure}: {trace:?}");
                }
            }
        }
    }
}
