//! What is told of a call that was made.

use std::time::Duration;

use ringcall_cluster::Settings;
use ringcall_cluster::fleet::{CallEnd, CallReport};
use ringcall_cluster::hedge::HedgeConfig;
use ringcall_cluster::route::{Action, Match, Rule, Rules};
use ringcall_core::{Cause, Channel, Empty, Failure, Missing, Status};

use crate::stubs::{
    Does, IDEMPOTENT, balanced, call, generous, listing, nobody, outgoing, poll, refused,
};

const OK: CallEnd = CallEnd::Answered(Status::OK);

fn ends(report: &CallReport) -> Vec<(&str, CallEnd)> {
    report.attempts.iter().map(|attempt| (&attempt.instance[..], attempt.end)).collect()
}

#[test]
fn each_attempt_is_told_and_how_it_was_decided() {
    let (balanced, world) = balanced("ab", generous());
    let reporting = balanced.reporting();
    world.does("a", Does::Fails(refused()));
    let report = (0..50).find_map(|_| {
        world.pass(Duration::from_secs(1));
        assert_eq!(call(&reporting, &world, 0), Ok(Status::OK));
        let report = reporting.poll_report().expect("each call is reported");
        (report.attempts.len() == 2).then_some(report)
    });
    let report = report.expect("a gets a call at some time");
    assert_eq!(ends(&report), [("a", CallEnd::Failed(refused())), ("b", OK)]);
    assert_eq!((&report.method[..], report.end), ("test", OK));
    let names: Vec<_> = report.decided.hosts.iter().map(|host| &host.name[..]).collect();
    assert_eq!(names, ["a", "b"]);
    let [first, again] = &report.attempts[..] else { panic!("two") };
    assert_eq!((first.after, first.number, again.number), (Duration::ZERO, 0, 1));
    assert!(again.after >= first.took && report.took >= again.after + again.took);
    assert!(first.budget > again.budget, "the second one was paid for");
    assert_eq!(again.at_server, Some((Duration::ZERO, Duration::ZERO)));
    let told = report.to_string();
    for part in ["test took", "first after 0ns at a", "again after", "at b", "PeakEwma"] {
        assert!(told.contains(part), "{part} is not in:\n{told}");
    }
    // The channel itself tells nothing of its calls.
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert!(balanced.poll_report().is_none());
}

#[test]
fn a_hedge_and_what_it_won_against_are_told() {
    let mut settings = Settings::new();
    settings.method.hedge = Some(HedgeConfig::default());
    let (balanced, world) = balanced("ab", settings);
    for _ in 0..100 {
        world.pass(Duration::from_millis(50));
        assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::OK));
    }
    world.does("a", Does::Hangs);
    let reporting = balanced.reporting();
    let report = (0..20).find_map(|_| {
        world.pass(Duration::from_millis(100));
        assert_eq!(call(&reporting, &world, IDEMPOTENT), Ok(Status::OK));
        reporting.poll_report().filter(|report| report.attempts.len() == 2)
    });
    let report = report.expect("a gets a call at some time");
    assert_eq!(ends(&report), [("a", CallEnd::GivenUp), ("b", OK)]);
    assert_eq!([false, true], [0, 1].map(|at| report.attempts[at].is_hedge));
    let [loser, hedge] = &report.attempts[..] else { panic!("two") };
    assert!(!loser.took.is_zero(), "{report}");
    assert_eq!(loser.took, hedge.after + hedge.took, "it was given up when the other one had won");
}

#[test]
fn what_is_refused_or_given_up_is_told() {
    let (balanced, world) = balanced("a", Settings::new());
    let reporting = balanced.reporting();
    let denied = Rule::new("closed", Match::all(), Action::Deny(Status::FORBIDDEN));
    balanced.route(Rules::new(1).with(denied)).unwrap();
    let forbidden = Failure::not_sent(Cause::Status(Status::FORBIDDEN));
    assert_eq!(call(&reporting, &world, 0), Err(forbidden));
    let report = reporting.poll_report().expect("it was refused");
    assert_eq!((ends(&report), report.end), (vec![], CallEnd::Failed(forbidden)));
    assert_eq!(report.decided.trace.expect("there are rules").met, ["closed"]);
    balanced.route(Rules::new(2)).unwrap();
    world.does("a", Does::Hangs);
    let mut given_up = reporting.call(outgoing(0), Empty);
    assert!(poll(&mut given_up).is_pending());
    world.pass(Duration::from_millis(5));
    drop(given_up);
    let report = reporting.poll_report().expect("it was given up");
    assert_eq!((ends(&report), report.end), (vec![("a", CallEnd::GivenUp)], CallEnd::GivenUp));
    assert_eq!(report.took, Duration::from_millis(5));
    // And when there is nobody.
    balanced.apply(&listing(2, ""));
    let nobody = nobody(Missing::NoneKnown);
    assert_eq!(call(&reporting, &world, 0), Err(nobody));
    assert_eq!(reporting.poll_report().expect("it failed").end, CallEnd::Failed(nobody));
}

#[test]
fn one_in_so_many_is_told_and_of_those_the_last_ones_are_kept() {
    let mut settings = Settings::new();
    settings.report_one_in = 10;
    let (balanced, world) = balanced("ab", settings.clone());
    let reported = |calls: u32| {
        (0..calls).for_each(|_| assert_eq!(call(&balanced, &world, 0), Ok(Status::OK)));
        std::iter::from_fn(|| balanced.poll_report()).count()
    };
    assert_eq!([reported(9), reported(1), reported(100)], [0, 1, 10]);
    assert_eq!(reported(10_000), 64);
    settings.report_one_in = 0;
    balanced.configure(settings).unwrap();
    assert_eq!(reported(1000), 0);
}
