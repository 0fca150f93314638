//! Policies of the user's own, in place of those that are there.

use std::sync::Arc;
use std::time::Duration;

use ringcall_cluster::Settings;
use ringcall_cluster::breaker::{BreakerPolicy, BreakerState, CustomBreaker, Pass};
use ringcall_cluster::fleet::FleetEvent;
use ringcall_cluster::health::{Condition, HealthPolicy, Peers, Reason, Record};
use ringcall_cluster::retry::{Attempted, RetryPolicy, Verdict};
use ringcall_cluster::route::{Action, Match, Route, Rule, Rules, Subset};
use ringcall_core::{Cause, Entropy, Failure, Instant, Status};

use crate::stubs::{Does, IDEMPOTENT, balanced, call, generous, lost, refused};

/// Again at once, and only twice.
#[derive(Debug)]
struct Twice;

impl RetryPolicy for Twice {
    fn decide(&self, _rng: &mut dyn Entropy, attempted: &Attempted<'_>) -> Verdict {
        match attempted.attempts < 2 {
            true => Verdict::Again(Duration::ZERO),
            false => Verdict::End,
        }
    }
}

#[test]
fn a_retry_policy_decides_within_the_budget() {
    let mut settings = generous();
    settings.method.custom_retry = Some(Arc::new(Twice));
    let (one, world) = balanced("abc", settings.clone());
    world.all_do("abc", Does::Fails(refused()));
    assert_eq!(call(&one, &world, 0), Err(refused()));
    assert_eq!(world.take_made().len(), 2);
    // Whatever it says, there is no more than the budget allows.
    settings.retry_percent = 0;
    settings.retry_floor_per_s = 0;
    let (without, world) = balanced("abc", settings);
    world.all_do("abc", Does::Fails(refused()));
    assert_eq!(call(&without, &world, 0), Err(refused()));
    assert_eq!(world.take_made().len(), 1);
}

/// Nothing passes behind a failure, until a second has gone.
#[derive(Debug, Default)]
struct OneStrike(Option<Instant>);

impl BreakerPolicy for OneStrike {
    fn would_pass(&self, now: Instant) -> bool {
        self.0.is_none_or(|until| until <= now)
    }

    fn pass(&mut self, now: Instant) -> Option<Pass> {
        self.would_pass(now).then_some(Pass::Ordinary)
    }

    fn end(&mut self, now: Instant, _pass: Pass, is_good: Option<bool>) {
        match is_good {
            Some(false) => self.0 = Some(now + Duration::from_secs(1)),
            Some(true) => self.0 = None,
            None => {}
        }
    }

    fn state(&self) -> BreakerState {
        self.0.map_or(BreakerState::Closed, |until| BreakerState::Open { until })
    }
}

#[test]
fn a_breaker_of_ones_own_stops_calls() {
    let mut settings = Settings::new();
    settings.method.breaker = None;
    settings.method.retry.attempts = 1;
    settings.method.custom_breaker = Some(CustomBreaker::new(|| Box::<OneStrike>::default()));
    let (balanced, world) = balanced("a", settings);
    world.does("a", Does::Fails(lost()));
    assert_eq!(call(&balanced, &world, 0), Err(lost()));
    let stopped = Failure::not_sent(Cause::BreakerOpen);
    assert_eq!(call(&balanced, &world, 0), Err(stopped));
    assert!(matches!(balanced.explain(7).breaker, Some(BreakerState::Open { .. })));
    world.does("a", Does::Answers);
    world.pass(Duration::from_secs(1));
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(balanced.explain(7).breaker, Some(BreakerState::Closed));
    let told: Vec<_> = std::iter::from_fn(|| balanced.poll_event()).collect();
    let (opened, closed): (Vec<_>, Vec<_>) =
        told.into_iter().partition(|event| matches!(event, FleetEvent::BreakerOpened { .. }));
    assert_eq!((opened.len(), closed.len()), (2, 2), "the method's, and that of its instance");
}

/// One failure is too much.
#[derive(Debug)]
struct Strict;

impl HealthPolicy for Strict {
    fn judge(&self, record: &Record, _peers: &Peers) -> Condition {
        match record.consecutive {
            0 => Condition::Healthy,
            _ => Condition::SubHealthy(Reason::Custom("it failed")),
        }
    }
}

#[test]
fn a_health_policy_ejects() {
    let mut settings = generous();
    settings.custom_health = Some(Arc::new(Strict));
    let (balanced, world) = balanced("abc", settings);
    world.does("a", Does::Fails(lost()));
    for _ in 0..20 {
        let _any = call(&balanced, &world, IDEMPOTENT);
    }
    assert_eq!(world.names().matches('a').count(), 1, "it is ejected by its first failure");
    let event = balanced.poll_event().expect("it is told");
    assert!(event.to_string().ends_with("it failed"), "{event}");
}

#[test]
fn rules_go_by_tests_of_ones_own() {
    let (balanced, world) = balanced("abcd", Settings::new());
    let is_keyed = Match::all().custom(|asked| asked.key.is_some());
    let to_vowels = Subset::all().custom(|instance, _| "aeiou".contains(&instance.name));
    let rule = Rule::new("vowels", is_keyed, Action::route(Route::to(to_vowels)));
    let rules = Rules::new(1).with(rule);
    assert_eq!(rules, rules.clone());
    balanced.route(rules).unwrap();
    let keyed = balanced.keyed(1);
    (0..20).for_each(|_| assert_eq!(call(&keyed, &world, 0), Ok(Status::OK)));
    assert_eq!(world.names(), "a".repeat(20));
    (0..40).for_each(|_| assert_eq!(call(&balanced, &world, 0), Ok(Status::OK)));
    assert!(world.names().chars().any(|name| name != 'a'));
}
