//! What a fleet makes of how attempts end, decision by decision.

use std::time::Duration;

use ringcall_cluster::balance::Balancing;
use ringcall_cluster::breaker::{BreakerConfig, BreakerState};
use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::{Attempt, CallState, Fleet, FleetEvent, HostReport, Readiness};
use ringcall_cluster::health::{HealthState, Reason};
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::recovery::RecoveryConfig;
use ringcall_cluster::route::{Action, Asked, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{CallLimit, LimitLease, MethodKey, Settings};
use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{Cause, CloseReason, Entropy, Failure, Instant, Missing, SplitMix64, Status};

use crate::stubs::nobody;

const METHOD: u64 = 7;
/// A call of it, with nothing else.
const ASKED: Asked<'static> = Asked {
    name: "test.Service/method",
    method: METHOD,
    key: None,
    extensions: &[],
    argument: None,
};
const SECOND: Duration = Duration::from_secs(1);

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn listing(version: u64, names: &str) -> Listing {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Listing::of(version, names.chars().map(|name| Instance::new("s", name.to_string(), address)))
}

fn fleet(names: &str, settings: Settings) -> Fleet<char> {
    let mut fleet = Fleet::new(settings, 1, at(1000)).unwrap();
    let _none = fleet.apply(at(1000), &listing(1, names), first);
    fleet
}

fn first(instance: &Instance) -> Option<char> {
    instance.name.chars().next()
}

/// In turn, and no breaker, so that only what a test is about has a say.
fn plain() -> Settings {
    let mut settings = Settings::new();
    settings.balancing = Balancing::SmoothRoundRobin;
    settings.method.breaker = None;
    settings
}

fn lost() -> Failure {
    Failure::unknown(Cause::Closed(CloseReason::PeerClosed))
}

fn begin(fleet: &mut Fleet<char>, now: Instant) -> (CallState, Attempt, char) {
    let mut call = fleet.begin(now, &ASKED, 0, SECOND).unwrap();
    let (attempt, name) = fleet.start(now, &ASKED, &mut call, |_| Readiness::Ready).unwrap();
    (call, attempt, name)
}

fn end(
    fleet: &mut Fleet<char>,
    now: Instant,
    (mut call, attempt): (CallState, Attempt),
    is_good: bool,
) {
    let (header, lost) = (ReplyHeader::new(Status::OK), lost());
    let end = if is_good { Ok(&header) } else { Err(&lost) };
    let _verdict = fleet.end(now, &mut call, attempt, end);
    fleet.finish(now, &call, Some(end));
}

/// Makes a call, which ends as `is_good` says of its instance.
fn call(fleet: &mut Fleet<char>, now: Instant, is_good: impl FnOnce(char) -> bool) -> char {
    let (state, attempt, name) = begin(fleet, now);
    end(fleet, now, (state, attempt), is_good(name));
    name
}

fn host(fleet: &Fleet<char>, now: Instant, name: &str) -> HostReport {
    let hosts = fleet.explain(now, METHOD, |_| Readiness::Ready).hosts;
    hosts.into_iter().find(|host| host.name == name).expect("it is there")
}

#[test]
fn one_failure_more_makes_no_instance_healthy() {
    let mut fleet = fleet("abcdefghij", plain());
    // Two of ten fail every other call, which is too often. One may be ejected, the other has to stay.
    for (made, ms) in (1001..1900).enumerate() {
        call(&mut fleet, at(ms), |name| !matches!(name, 'a' | 'b') || made / 10 % 2 == 0);
    }
    call(&mut fleet, at(2100), |_| true);
    let bad = Reason::Ratio;
    let is_sub = |host: &HostReport| host.health == HealthState::SubHealthy(bad);
    let hosts = fleet.explain(at(2100), METHOD, |_| Readiness::Ready).hosts;
    let sub = hosts.iter().find(|host| is_sub(host)).expect("one stays").name.clone();
    let mut one_more =
        |ms| call(&mut fleet, at(ms), |name| sub != name.to_string()).to_string() == sub;
    assert!((2101..2300).any(&mut one_more), "no call reached it");
    assert_eq!(host(&fleet, at(2300), &sub).health, HealthState::SubHealthy(bad));
}

#[test]
fn a_call_to_an_instance_that_is_gone_is_not_laid_to_its_heir() {
    let mut settings = plain();
    let mut breaker = BreakerConfig::default();
    breaker.calls_min = 1;
    settings.method.breaker = Some(breaker);
    let mut fleet = fleet("a", settings);
    let (old, attempt, _) = begin(&mut fleet, at(1001));
    let (given_up, other, _) = begin(&mut fleet, at(1001));
    let _gone = fleet.apply(at(1002), &listing(2, "b"), first);
    assert_eq!(call(&mut fleet, at(1003), |_| true), 'b');
    fleet.abandon(at(1004), &given_up, other);
    let (mut old, lost) = (old, lost());
    fleet.end_beside(at(1004), &old, attempt, Err(&lost));
    assert_eq!(host(&fleet, at(1004), "b").breaker, Some(BreakerState::Closed));
    let (attempt, name) = fleet.start(at(1005), &ASKED, &mut old, |_| Readiness::Ready).unwrap();
    assert_eq!(name, 'b');
    fleet.abandon(at(1005), &old, attempt);
}

#[test]
fn settings_that_are_switched_on_count_for_instances_that_are_there() {
    let mut fleet = fleet("abcd", plain());
    call(&mut fleet, at(1001), |_| true);
    let mut settings = plain();
    let mut breaker = BreakerConfig::default();
    breaker.calls_min = 5;
    settings.method.breaker = Some(breaker);
    settings.health.consecutive = 1000;
    fleet.configure(at(1002), settings).unwrap();
    // All of those to `a` fail, which trips its breaker; of all too few for the method's.
    for ms in 1003..1040 {
        if host(&fleet, at(ms), "a").breaker != Some(BreakerState::Closed) {
            break;
        }
        call(&mut fleet, at(ms), |name| name != 'a');
    }
    let tripped = host(&fleet, at(1040), "a").breaker;
    assert!(matches!(tripped, Some(BreakerState::Open { .. })), "{tripped:?}");
    assert!((0..10).all(|n| call(&mut fleet, at(1040 + n), |_| true) != 'a'));
}

#[test]
fn a_window_that_is_made_longer_counts_at_once() {
    let mut settings = plain();
    settings.health.window = Duration::from_millis(1500);
    let mut fleet = fleet("abcdefghij", settings.clone());
    settings.health.window = Duration::from_secs(30);
    fleet.configure(at(1001), settings).unwrap();
    // One call in two of `a` fails, once a second: too few for the short window.
    for second in 2..20 {
        for n in 0..10 {
            call(&mut fleet, at(second * 1000 + n), |name| name != 'a' || second % 2 == 0);
        }
    }
    assert!(fleet.counts().ejections > 0);
}

#[test]
fn an_instance_that_cannot_be_probed_costs_no_look_at_all_of_them() {
    use std::cell::Cell;
    let names: String = ('a'..='z').chain('A'..='Z').collect();
    let mut fleet = fleet(&names, plain());
    for ms in 1001..1500 {
        call(&mut fleet, at(ms), |name| name != 'a');
    }
    assert!(matches!(host(&fleet, at(1500), "a").health, HealthState::Ejected { .. }));
    // Its time has come, and nobody can reach it.
    let asked = Cell::new(0);
    let readiness = |name: &char| {
        asked.set(asked.get() + 1);
        if *name == 'a' { Readiness::Broken } else { Readiness::Ready }
    };
    let mut one = |ms| {
        asked.set(0);
        let mut call = fleet.begin(at(ms), &ASKED, 0, SECOND).unwrap();
        let (attempt, _) = fleet.start(at(ms), &ASKED, &mut call, readiness).unwrap();
        fleet.abandon(at(ms), &call, attempt);
        fleet.finish(at(ms), &call, None);
        asked.get()
    };
    one(60_000);
    assert!((1..10).all(|ms| one(60_000 + ms) == 1));
}

/// What an ejected instance has under way is no load of the others.
#[test]
fn calls_that_hang_at_an_ejected_instance_do_not_open_the_bound_of_others() {
    for balancing in [Balancing::Ring, Balancing::Maglev] {
        let mut settings = plain();
        settings.balancing = balancing.clone();
        let mut fleet = fleet("abcdefghij", settings);
        let only_a = |name: &char| match name {
            'a' => Readiness::Ready,
            _ => Readiness::Broken,
        };
        let hang = |fleet: &mut Fleet<char>, ready: &dyn Fn(&char) -> Readiness| {
            let asked = Asked { key: Some(7), ..ASKED };
            let mut call = fleet.begin(at(1001), &asked, 0, SECOND).unwrap();
            let (attempt, name) = fleet.start(at(1001), &asked, &mut call, ready).unwrap();
            (call, attempt, name)
        };
        let mut hung: Vec<_> = (0..60).map(|_| hang(&mut fleet, &only_a)).collect();
        for (call, attempt, _) in hung.drain(..5) {
            end(&mut fleet, at(1001), (call, attempt), false);
        }
        assert!(matches!(host(&fleet, at(1001), "a").health, HealthState::Ejected { .. }));
        // Nine others, and a key that is always the same: as many for each, but for a quarter.
        let mut of = std::collections::BTreeMap::<char, u32>::new();
        let mut share = |fleet: &mut Fleet<char>, at_most: u32| {
            for _ in 0..9 {
                let (_, _, name) = hang(fleet, &|_| Readiness::Ready);
                *of.entry(name).or_default() += 1;
            }
            assert!(of.values().all(|calls| *calls <= at_most), "{balancing:?}: {of:?}");
        };
        share(&mut fleet, 2);
        // Nor does it become less of theirs when those that hang are given up.
        for (call, attempt, _) in hung {
            fleet.abandon(at(1001), &call, attempt);
        }
        share(&mut fleet, 3);
    }
}

/// One that is gone takes no place of those that may be ejected.
#[test]
fn an_instance_that_is_gone_is_not_ejected_any_more() {
    let mut fleet = fleet("abcdefghij", plain());
    for ms in 1001..1060 {
        call(&mut fleet, at(ms), |name| name != 'a');
    }
    assert!(matches!(host(&fleet, at(1060), "a").health, HealthState::Ejected { .. }));
    // One of ten may be; the next one fails in a row, but has to stay.
    for ms in 1060..1120 {
        call(&mut fleet, at(ms), |name| name != 'b');
    }
    assert!(matches!(host(&fleet, at(1120), "b").health, HealthState::SubHealthy(_)));
    let _gone = fleet.apply(at(1120), &listing(2, "bcdefghij"), first);
    assert!(matches!(host(&fleet, at(1120), "b").health, HealthState::Ejected { .. }));
}

/// An instance is ejected, and what `then` does keeps calls from it; an hour later another one fails, for a minute.
fn ejected_beside_one_that_is_not_called(
    then: impl FnOnce(&mut Fleet<char>),
    readiness: impl Fn(&char) -> Readiness,
) -> HealthState {
    let mut fleet = fleet("abcdefghij", plain());
    eject(&mut fleet, at(1001), 'a');
    then(&mut fleet);
    for ms in 3_600_000..3_660_000 {
        let mut state = fleet.begin(at(ms), &ASKED, 0, SECOND).unwrap();
        let (attempt, name) = fleet.start(at(ms), &ASKED, &mut state, &readiness).unwrap();
        assert_ne!(name, 'a');
        end(&mut fleet, at(ms), (state, attempt), name != 'b');
    }
    assert!(matches!(host(&fleet, at(3_660_000), "a").health, HealthState::Ejected { .. }));
    host(&fleet, at(3_660_000), "b").health
}

#[test]
fn an_instance_that_is_not_called_in_any_case_is_no_reason_to_spare_another_one() {
    let ready = |_: &char| Readiness::Ready;
    let drain = |fleet: &mut Fleet<char>| {
        let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
        let all = "abcdefghij".chars().map(|name| {
            let weight = if name == 'a' { 0 } else { 100 };
            Instance::new("s", name.to_string(), address).with_weight(weight)
        });
        let _none = fleet.apply(at(1100), &Listing::of(2, all), first);
    };
    let exclude = |fleet: &mut Fleet<char>| {
        let rule = Rule::new("no a", Match::all(), Action::Exclude(Subset::named(["a"])));
        fleet.route(Rules::new(1).with(rule)).unwrap();
    };
    let a_is = |a: Readiness| move |name: &char| if *name == 'a' { a } else { Readiness::Ready };
    for health in [
        ejected_beside_one_that_is_not_called(drain, ready),
        ejected_beside_one_that_is_not_called(exclude, ready),
        ejected_beside_one_that_is_not_called(|_| (), a_is(Readiness::Stranger)),
        ejected_beside_one_that_is_not_called(|_| (), a_is(Readiness::Broken)),
    ] {
        assert!(matches!(health, HealthState::Ejected { .. } | HealthState::Probing { .. }));
    }
}

#[test]
fn a_few_connections_that_are_not_ready_cost_no_look_at_all_of_them() {
    use std::cell::Cell;
    let names: String = ('a'..='z').chain('A'..='Z').collect();
    for balancing in [Balancing::SmoothRoundRobin, Balancing::PeakEwma] {
        let mut settings = plain();
        settings.balancing = balancing;
        let mut fleet = fleet(&names, settings);
        let asked = Cell::new(0);
        let readiness = |name: &char| {
            asked.set(asked.get() + 1);
            if "ahqA".contains(*name) { Readiness::Broken } else { Readiness::Ready }
        };
        for ms in 1001..2001 {
            let mut call = fleet.begin(at(ms), &ASKED, 0, SECOND).unwrap();
            let (attempt, name) = fleet.start(at(ms), &ASKED, &mut call, readiness).unwrap();
            assert!(!"ahqA".contains(name));
            end(&mut fleet, at(ms), (call, attempt), true);
        }
        assert!(asked.get() < 2000, "{} for a thousand calls", asked.get());
    }
}

/// Where a call would go, with connections like this.
fn goes_to(
    fleet: &mut Fleet<char>,
    now: Instant,
    readiness: impl Fn(&char) -> Readiness,
) -> Result<char, Failure> {
    let mut call = fleet.begin(now, &ASKED, 0, SECOND)?;
    let begun = fleet.start(now, &ASKED, &mut call, readiness);
    begun.map(|(attempt, name)| {
        fleet.abandon(now, &call, attempt);
        name
    })
}

/// Lets the calls to this instance fail until it is ejected.
fn eject(fleet: &mut Fleet<char>, now: Instant, bad: char) {
    let before = fleet.counts().ejections;
    while fleet.counts().ejections == before {
        call(fleet, now, |name| name != bad);
    }
}

#[test]
fn one_that_is_being_opened_is_better_than_one_that_is_ejected() {
    let mut fleet = fleet("ab", plain());
    eject(&mut fleet, at(1001), 'a');
    let b_is = |b: Readiness| move |name: &char| if *name == 'b' { b } else { Readiness::Ready };
    assert_eq!(goes_to(&mut fleet, at(1002), b_is(Readiness::Connecting)), Ok('b'));
    assert_eq!(
        goes_to(&mut fleet, at(1002), b_is(Readiness::Broken)),
        Ok('a'),
        "better than nobody"
    );
}

#[test]
fn a_call_is_made_again_at_an_instance_that_is_being_opened() {
    let mut fleet = fleet("ab", plain());
    let (mut call, attempt, first) = begin(&mut fleet, at(1001));
    let lost = lost();
    let _verdict = fleet.end(at(1002), &mut call, attempt, Err(&lost));
    let other_opens = |name: &char| {
        if *name == first { Readiness::Ready } else { Readiness::Connecting }
    };
    let (attempt, second) = fleet.start(at(1003), &ASKED, &mut call, other_opens).unwrap();
    assert_ne!(first, second);
    fleet.abandon(at(1004), &call, attempt);
}

#[test]
fn an_open_breaker_stops_no_call_that_another_instance_can_take() {
    let mut settings = plain();
    let mut breaker = BreakerConfig::default();
    breaker.calls_min = 1;
    breaker.errors_percent = 1;
    settings.method.breaker = Some(breaker);
    settings.health.consecutive = 1000;
    let mut fleet = fleet("ab", settings);
    // Known from its first call on.
    let (state, attempt, _) = begin(&mut fleet, at(1001));
    fleet.abandon(at(1001), &state, attempt);
    while host(&fleet, at(1001), "a").breaker == Some(BreakerState::Closed) {
        let (mut state, attempt, name) = begin(&mut fleet, at(1001));
        let (header, lost) = (ReplyHeader::new(Status::OK), lost());
        let end = if name == 'b' { Ok(&header) } else { Err(&lost) };
        let _verdict = fleet.end(at(1001), &mut state, attempt, end);
        fleet.finish(at(1001), &state, None);
    }
    let b_opens = |name: &char| if *name == 'b' { Readiness::Connecting } else { Readiness::Ready };
    assert_eq!(goes_to(&mut fleet, at(1002), b_opens), Ok('b'));
}

#[test]
fn g11_whoever_would_rather_fail_than_use_those_that_are_ejected_says_so() {
    for (panic_percent, is_used) in [(50, true), (0, false)] {
        let mut settings = plain();
        settings.health.ejected_percent = 100;
        settings.health.panic_percent = panic_percent;
        let mut fleet = fleet("ab", settings);
        eject(&mut fleet, at(1001), 'a');
        eject(&mut fleet, at(1001), 'b');
        let goes = goes_to(&mut fleet, at(1002), |_| Readiness::Ready);
        assert_eq!(goes.is_ok(), is_used, "{goes:?}");
        let nobody = nobody(Missing::Ejected);
        assert_eq!(goes.err().unwrap_or(nobody), nobody);
    }
}

/// With a new instance among others, callers who do not wait for it, and nothing ever known of it.
#[test]
fn an_ejected_instance_that_is_the_first_to_come_back_is_used() {
    for panic_percent in [50, 0] {
        let mut settings = plain();
        settings.recovery = Some(RecoveryConfig::new(2));
        settings.health.panic_percent = panic_percent;
        let mut fleet = fleet("abcdefghij", settings);
        eject(&mut fleet, at(1001), 'a');
        fleet.look(at(1200), |_| Readiness::Broken);
        assert!(matches!(fleet.poll_event(), Some(FleetEvent::Ejected { .. })));
        assert_eq!(fleet.poll_event(), Some(FleetEvent::RecoveryBegan { working_min: 2 }));
        let back = |name: &char| if *name == 'a' { Readiness::Ready } else { Readiness::Broken };
        let mut made = |from: u64| {
            let ends = (from..from + 20_000).step_by(10).map(|ms| {
                let now = at(ms);
                let mut state = fleet.begin(now, &ASKED, 0, SECOND).unwrap();
                let started = fleet.start(now, &ASKED, &mut state, back);
                started.is_ok_and(|(attempt, name)| {
                    end(&mut fleet, now, (state, attempt), true);
                    name == 'a'
                })
            });
            ends.filter(|is_a| *is_a).count()
        };
        // Half of the calls are let through to one of two, and after ten seconds all of them.
        let first = made(2000);
        assert!(first > 500, "{first}");
        assert_eq!(made(22_000), 2000);
        assert_eq!(host(&fleet, at(42_000), "a").health, HealthState::Healthy);
    }
}

#[test]
fn an_instance_that_never_answers_is_not_the_best() {
    let mut settings = plain();
    settings.balancing = Balancing::PeakEwma;
    let mut fleet = fleet("abc", settings);
    let mut to_c = 0;
    for number in 0..1000 {
        let begun = at(1001 + number * 101);
        let (state, attempt, name) = begin(&mut fleet, begun);
        if name == 'c' {
            to_c += 1;
            fleet.abandon(begun + Duration::from_millis(100), &state, attempt);
        } else {
            end(&mut fleet, begun + Duration::from_millis(1), (state, attempt), true);
        }
    }
    assert!(to_c < 100, "{to_c} of 1000");
}

#[test]
fn hedges_do_not_make_calls_look_faster_than_they_are() {
    let mut hedge = HedgeConfig::default();
    hedge.extra_percent = 100;
    let mut settings = plain();
    settings.retry_percent = 100;
    settings.method.hedge = Some(hedge);
    let mut fleet = fleet("ab", settings);
    let mut rng = SplitMix64::new(1);
    // Ten milliseconds on average, more than thirty of one in twenty.
    let mut draw = || -(1.0 - (rng.below(1 << 30) as f64 / f64::from(1 << 30))).ln() * 0.01;
    let mut after = Duration::ZERO;
    for second in 2..200u64 {
        for call in 0..100u64 {
            let now = at(second * 1000 + call * 10);
            let mut state = fleet.begin(now, &ASKED, request_flags::IDEMPOTENT, SECOND).unwrap();
            let ready = |_: &char| Readiness::Ready;
            let (attempt, _) = fleet.start(now, &ASKED, &mut state, ready).unwrap();
            let first_ends = Duration::from_secs_f64(draw());
            let hedged = attempt.hedge_after.filter(|after| *after < first_ends);
            let second = hedged.and_then(|after| {
                let (hedge, _) = fleet.hedge(now + after, &mut state, ready)?;
                Some((after + Duration::from_secs_f64(draw()), hedge))
            });
            after = attempt.hedge_after.unwrap_or_default();
            let header = ReplyHeader::new(Status::OK);
            let (took, kept, lost) = match second {
                None => (first_ends, attempt, None),
                Some((ends, hedge)) if ends < first_ends => (ends, hedge, Some(attempt)),
                Some((_, hedge)) => (first_ends, attempt, Some(hedge)),
            };
            fleet.end_beside(now + took, &state, kept, Ok(&header));
            if let Some(lost) = lost {
                fleet.abandon(now + took, &state, lost);
            }
            fleet.finish(now + took, &state, Some(Ok(&header)));
        }
    }
    assert!(after > Duration::from_millis(26), "after {after:?}");
}

#[test]
fn a_method_that_is_not_there_yet_ejects_nobody() {
    let mut fleet = fleet("ab", plain());
    let unknown = Failure::from_status(Status::UNKNOWN_METHOD, 0).unwrap();
    for _ in 0..100 {
        let (mut state, attempt, _) = begin(&mut fleet, at(1001));
        let _verdict = fleet.end(at(1001), &mut state, attempt, Err(&unknown));
        fleet.finish(at(1001), &state, Some(Err(&unknown)));
    }
    assert_eq!(host(&fleet, at(1002), "a").health, HealthState::Healthy);
    assert_eq!(fleet.counts().ejections, 0);
}

#[test]
fn what_happens_to_instances_is_told() {
    let mut settings = plain();
    settings.health.ejected_percent = 100;
    let mut fleet = fleet("abc", settings);
    eject(&mut fleet, at(1001), 'a');
    eject(&mut fleet, at(1001), 'b');
    let told: Vec<FleetEvent> = std::iter::from_fn(|| fleet.poll_event()).collect();
    let [
        FleetEvent::Ejected { name, reason, time },
        FleetEvent::Ejected { .. },
        FleetEvent::PanicBegan { usable: 1, of: 3 },
    ] = &told[..]
    else {
        panic!("{told:?}")
    };
    assert_eq!((name.as_str(), *reason), ("a", Reason::Consecutive));
    assert!(*time >= Duration::from_secs(5) && *time <= Duration::from_millis(5500), "{time:?}");
    while call(&mut fleet, at(7000), |_| true) != 'a' {}
    while call(&mut fleet, at(7000), |_| true) != 'b' {}
    let told: Vec<FleetEvent> = std::iter::from_fn(|| fleet.poll_event()).collect();
    let healed = |name: &str| FleetEvent::Healed { name: name.into() };
    assert_eq!(told, [healed("a"), FleetEvent::PanicEnded, healed("b")]);
}

#[test]
fn what_breakers_do_is_told() {
    let mut settings = plain();
    let mut breaker = BreakerConfig::default();
    breaker.calls_min = 1;
    settings.method.breaker = Some(breaker);
    let mut fleet = fleet("a", settings);
    call(&mut fleet, at(1001), |_| false);
    let method = || ASKED.name.to_owned();
    let told: Vec<FleetEvent> = std::iter::from_fn(|| fleet.poll_event()).collect();
    let opened = |instance: Option<&str>| FleetEvent::BreakerOpened {
        method: method(),
        instance: instance.map(str::to_owned),
    };
    assert_eq!(told, [opened(Some("a")), opened(None)]);
    assert_eq!(told[0].to_string(), r#"calls of test.Service/method are stopped at "a""#);
}

#[test]
fn what_was_told_is_taken_back_by_what_makes_it_void() {
    let mut settings = plain();
    let mut breaker = BreakerConfig::default();
    breaker.calls_min = 1;
    settings.method.breaker = Some(breaker);
    let mut fleet = fleet("ab", settings.clone());
    let told =
        |fleet: &mut Fleet<char>| std::iter::from_fn(|| fleet.poll_event()).collect::<Vec<_>>();
    let closed = |instance: Option<&str>| FleetEvent::BreakerClosed {
        method: ASKED.name.to_owned(),
        instance: instance.map(str::to_owned),
    };
    // When hedges change, nothing of this does.
    call(&mut fleet, at(1001), |_| false);
    assert_eq!(told(&mut fleet).len(), 2, "opened at one, and everywhere");
    settings.method.hedge = Some(HedgeConfig::default());
    fleet.configure(at(1002), settings.clone()).unwrap();
    assert_eq!(told(&mut fleet), []);
    let stopped = Failure::not_sent(Cause::BreakerOpen);
    assert_eq!(fleet.begin(at(1002), &ASKED, 0, SECOND).map(|_| ()), Err(stopped));
    breaker.calls_min = 2;
    settings.method.breaker = Some(breaker);
    fleet.configure(at(1003), settings.clone()).unwrap();
    let told_then = told(&mut fleet);
    let is_taken_back = |name| told_then == [closed(None), closed(Some(name))];
    assert!(is_taken_back("a") || is_taken_back("b"), "{told_then:?}");
    // An instance goes that is ejected.
    settings.method.breaker = None;
    fleet.configure(at(1004), settings).unwrap();
    eject(&mut fleet, at(1005), 'a');
    assert_eq!(told(&mut fleet).len(), 1);
    let _gone = fleet.apply(at(1006), &listing(2, "b"), first);
    assert_eq!(told(&mut fleet), [FleetEvent::Gone { name: "a".into() }]);
}

#[test]
fn an_open_breaker_that_goes_with_its_instance_is_told() {
    let mut settings = plain();
    let mut breaker = BreakerConfig::default();
    (breaker.calls_min, breaker.errors_percent) = (2, 60);
    settings.method.breaker = Some(breaker);
    let mut fleet = fleet("ab", settings);
    for _ in 0..4 {
        call(&mut fleet, at(1001), |name| name != 'a');
    }
    let instance = Some("a".to_owned());
    let method = ASKED.name.to_owned();
    let opened = FleetEvent::BreakerOpened { method: method.clone(), instance: instance.clone() };
    assert_eq!(fleet.poll_event(), Some(opened));
    let _gone = fleet.apply(at(1002), &listing(2, "b"), first);
    assert_eq!(fleet.poll_event(), Some(FleetEvent::BreakerClosed { method, instance }));
}

#[test]
fn no_more_calls_are_made_than_settings_allow() {
    let mut settings = plain();
    settings.limit = CallLimit::in_flight(3);
    let mut method = settings.method.clone();
    method.limit = CallLimit::in_flight(2);
    let mut fleet = fleet("ab", settings.clone().with_method(METHOD, method.clone()));
    let other = Asked { method: METHOD + 1, ..ASKED };
    let limited = Failure::not_sent(Cause::Limited);
    let one = begin(&mut fleet, at(1001));
    let two = begin(&mut fleet, at(1001));
    assert_eq!(fleet.begin(at(1001), &ASKED, 0, SECOND).map(|_| ()), Err(limited));
    let third = fleet.begin(at(1001), &other, 0, SECOND).unwrap();
    assert_eq!(fleet.begin(at(1001), &other, 0, SECOND).map(|_| ()), Err(limited), "of all");
    fleet.finish(at(1002), &third, None);
    end(&mut fleet, at(1002), (one.0, one.1), true);
    // Settings are replaced, and what is under way counts.
    method.limit = CallLimit::in_flight(1);
    fleet.configure(at(1003), settings.with_method(METHOD, method)).unwrap();
    assert_eq!(fleet.begin(at(1003), &ASKED, 0, SECOND).map(|_| ()), Err(limited));
    end(&mut fleet, at(1004), (two.0, two.1), true);
    assert!(fleet.begin(at(1004), &ASKED, 0, SECOND).is_ok());
    assert_eq!(fleet.counts().limited, 3);
}

#[test]
fn methods_have_settings_by_name_or_by_number() {
    let name = "test.Quotes/last";
    let asked = Asked::new(name);
    let mut method = plain().method;
    method.limit = CallLimit::in_flight(1);
    for key in [MethodKey::from(name), asked.method.into()] {
        let mut fleet = fleet("ab", plain().with_method(key, method.clone()));
        let _call = fleet.begin(at(1001), &asked, 0, SECOND).unwrap();
        let limited = Failure::not_sent(Cause::Limited);
        assert_eq!(fleet.begin(at(1001), &asked, 0, SECOND).map(|_| ()), Err(limited));
        assert!(fleet.begin(at(1001), &ASKED, 0, SECOND).is_ok(), "others have what all have");
    }
    let settings = plain().with_method("test.Quotes/lst", method.clone()).with_method(name, method);
    let unknown = settings.unknown_methods([name, "test.Quotes/all"]);
    assert_eq!(unknown, ["test.Quotes/lst".into()]);
    assert_eq!(unknown[0].to_string(), "test.Quotes/lst");
    assert_eq!(settings.unknown_methods(unknown.clone()), [name.into()]);
}

#[test]
fn whoever_explains_a_method_by_its_name_need_not_have_called_it() {
    let mut fleet = fleet("ab", plain());
    let a = Route::to(Subset::named(["a"]));
    let rule = Rule::new("last", Match::all().method("test.Quotes/last"), Action::route(a));
    fleet.route(Rules::new(1).with(rule)).unwrap();
    let explained = fleet.explain(at(1001), "test.Quotes/last", |_| Readiness::Ready);
    assert_eq!(explained.trace.unwrap().met, ["last"]);
}

#[test]
fn a_quota_is_leased_and_a_lease_ends() {
    let mut fleet = fleet("ab", plain());
    let lease = |limit| LimitLease { limit, time: SECOND };
    let bad = fleet.lease(at(1001), None, lease(CallLimit::in_flight(0))).unwrap_err();
    assert_eq!(bad.name, "limit.in_flight");
    for typo in ["typo", "", "/", "test.Service/", "/method"] {
        let bad = fleet.lease(at(1001), Some(typo), lease(CallLimit::in_flight(2))).unwrap_err();
        assert_eq!(bad.name, "lease.method");
    }
    // Of a method that was not called yet as well.
    fleet.lease(at(1001), Some(ASKED.name), lease(CallLimit::in_flight(2))).unwrap();
    fleet.lease(at(1001), None, lease(CallLimit::in_flight(3))).unwrap();
    let asked = Asked::new(ASKED.name);
    let begun = |fleet: &mut Fleet<char>, ms, asked: &Asked<'_>| {
        let begun = (0..10).filter_map(|_| fleet.begin(at(ms), asked, 0, SECOND).ok());
        begun.count()
    };
    assert_eq!(begun(&mut fleet, 1002, &asked), 2);
    assert_eq!(begun(&mut fleet, 1002, &Asked::new("test.Service/other")), 1);
    assert_eq!(begun(&mut fleet, 2000, &asked), 0);
    assert_eq!(begun(&mut fleet, 2001, &asked), 10, "nobody renewed it");
}
