//! Policies of the user's own, in place of those that are there.

use std::collections::BTreeSet;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use ringcall_cluster::breaker::{BreakerPolicy, BreakerState, CustomBreaker, Pass};
use ringcall_cluster::discovery::Listing;
use ringcall_cluster::fleet::FleetEvent;
use ringcall_cluster::health::{Condition, HealthPolicy, Peers, Reason, Record};
use ringcall_cluster::hedge::{CustomHedging, HedgePolicy};
use ringcall_cluster::retry::{Attempted, RetryPolicy, Verdict};
use ringcall_cluster::route::{Action, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{AperturePolicy, Balanced, Settings, WarmUpPolicy};
use ringcall_core::{Cause, Channel, Clock, Empty, Entropy, Failure, Instant, Status};

use crate::stubs::{
    Does, IDEMPOTENT, Stubs, World, balanced, call, generous, listing, lost, outgoing, poll,
    refused,
};

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

/// Again, after this.
#[derive(Debug)]
struct After(Duration);

impl RetryPolicy for After {
    fn decide(&self, _rng: &mut dyn Entropy, _attempted: &Attempted<'_>) -> Verdict {
        Verdict::Again(self.0)
    }
}

#[test]
fn a_retry_policy_that_would_wait_beyond_the_deadline_ends_the_call() {
    // A call has a second.
    for wait in [Duration::from_secs(1), Duration::from_secs(10), Duration::MAX] {
        let mut settings = generous();
        settings.method.custom_retry = Some(Arc::new(After(wait)));
        let (balanced, world) = balanced("abc", settings);
        world.all_do("abc", Does::Fails(refused()));
        let budget = || balanced.explain(7).budget;
        let before = budget();
        let mut call = balanced.call(outgoing(0), Empty);
        assert_eq!(poll(&mut call), Poll::Ready(Err(refused())), "after {wait:?}");
        assert_eq!((world.take_made().len(), budget()), (1, before), "and nothing is paid for");
        assert_eq!(balanced.counts().over_budget, 0);
    }
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

/// Lets one call in, and is open while that is under way and once it has failed.
#[derive(Debug, Default)]
struct OneAtATime {
    is_open: bool,
}

impl BreakerPolicy for OneAtATime {
    fn would_pass(&self, _now: Instant) -> bool {
        !self.is_open
    }

    fn pass(&mut self, _now: Instant) -> Option<Pass> {
        let is_let_in = !self.is_open;
        self.is_open = true;
        is_let_in.then_some(Pass::Ordinary)
    }

    fn end(&mut self, _now: Instant, _pass: Pass, _is_good: Option<bool>) {
        self.is_open = false;
    }

    fn state(&self) -> BreakerState {
        match self.is_open {
            true => BreakerState::HalfOpen { successes: 0, is_under_way: true },
            false => BreakerState::Closed,
        }
    }
}

/// A balanced channel to these, with such breakers at all of them; those come with the first failure.
fn one_at_a_time(names: &str) -> (Balanced<Stubs>, Rc<World>) {
    let mut settings = generous();
    settings.method.retry.attempts = 1;
    settings.method.breaker = None;
    // The method's own lets everything through.
    let made = AtomicUsize::new(0);
    let make = move || -> Box<dyn BreakerPolicy> {
        match made.fetch_add(1, Ordering::Relaxed) {
            0 => Box::<OneStrike>::default(),
            _ => Box::<OneAtATime>::default(),
        }
    };
    settings.method.custom_breaker = Some(CustomBreaker::new(make));
    let (balanced, world) = balanced(names, settings);
    for name in names.chars() {
        world.does(&name.to_string(), Does::Fails(lost()));
        assert_eq!(call(&balanced, &world, 0), Err(lost()));
        world.pass(Duration::from_secs(2));
        world.does(&name.to_string(), Does::Answers);
    }
    while balanced.poll_event().is_some() {}
    (balanced, world)
}

#[test]
fn a_breaker_that_opens_when_it_lets_a_call_in_is_counted() {
    let (balanced, world) = one_at_a_time("a");
    for _ in 0..3 {
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    }
    world.does("a", Does::Hangs);
    let mut hangs = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut hangs).is_pending());
    let stopped = Failure::not_sent(Cause::BreakerOpen);
    assert_eq!(call(&balanced, &world, 0), Err(stopped), "one is under way");
    drop(hangs);
    world.does("a", Does::Answers);
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    let of_instances = |event| match event {
        FleetEvent::BreakerOpened { instance: Some(_), .. } => Some(true),
        FleetEvent::BreakerClosed { instance: Some(_), .. } => Some(false),
        _ => None,
    };
    let told = std::iter::from_fn(|| balanced.poll_event());
    let opened: Vec<bool> = told.filter_map(of_instances).collect();
    assert_eq!(opened, [true, false].repeat(5), "each time that it opens and closes is told");
}

#[test]
fn an_instance_that_goes_takes_its_open_breaker_along() {
    let (balanced, world) = one_at_a_time("a");
    world.does("a", Does::Hangs);
    let mut hangs = balanced.call(outgoing(0), Empty);
    assert!(poll(&mut hangs).is_pending());
    balanced.apply(&listing(2, "b"));
    drop(hangs);
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
}

/// At most two calls under way, but for the one of the method; tells of what it is told by numbers of its own.
#[derive(Debug)]
struct Two {
    is_method: bool,
    under_way: i64,
    /// The fewest and the most that there were.
    range: Arc<Mutex<(i64, i64)>>,
    /// Says nothing before it is asked to let a call in.
    is_quiet: bool,
}

impl BreakerPolicy for Two {
    fn would_pass(&self, _now: Instant) -> bool {
        self.is_method || self.is_quiet || self.under_way < 2
    }

    fn pass(&mut self, _now: Instant) -> Option<Pass> {
        let is_let_in = self.is_method || self.under_way < 2;
        self.under_way += i64::from(is_let_in);
        let mut range = self.range.lock().unwrap();
        range.1 = range.1.max(if self.is_method { 0 } else { self.under_way });
        is_let_in.then_some(Pass::Ordinary)
    }

    fn end(&mut self, _now: Instant, _pass: Pass, _is_good: Option<bool>) {
        self.under_way -= 1;
        let mut range = self.range.lock().unwrap();
        range.0 = range.0.min(self.under_way);
    }

    fn state(&self) -> BreakerState {
        BreakerState::Closed
    }
}

#[test]
fn a_breaker_of_an_instance_is_asked_for_each_call_and_told_of_no_other() {
    for is_quiet in [false, true] {
        let range = Arc::new(Mutex::new((0, 0)));
        let mut settings = Settings::new();
        settings.method.retry.attempts = 1;
        settings.method.breaker = None;
        let (made, told) = (AtomicUsize::new(0), Arc::clone(&range));
        settings.method.custom_breaker = Some(CustomBreaker::new(move || {
            let is_method = made.fetch_add(1, Ordering::Relaxed) == 0;
            Box::new(Two { is_method, under_way: 0, range: Arc::clone(&told), is_quiet })
        }));
        let (balanced, world) = balanced("a", settings);
        // Three that began when there was no breaker, and one for which there is one.
        world.does("a", Does::Hangs);
        let mut calls: Vec<_> = (0..3).map(|_| balanced.call(outgoing(0), Empty)).collect();
        assert!(calls.iter_mut().all(|call| poll(call).is_pending()));
        world.does("a", Does::Fails(lost()));
        assert_eq!(call(&balanced, &world, 0), Err(lost()));
        drop(calls);
        assert_eq!(range.lock().unwrap().0, 0, "nothing ends that did not pass");
        world.does("a", Does::Hangs);
        world.take_made();
        let mut calls: Vec<_> = (0..10).map(|_| balanced.call(outgoing(0), Empty)).collect();
        let pending = calls.iter_mut().filter_map(|call| poll(call).is_pending().then_some(()));
        assert_eq!((pending.count(), world.take_made().len()), (2, 2));
        assert_eq!(balanced.counts().stopped, 8);
        drop(calls);
        assert_eq!(*range.lock().unwrap(), (0, 2));
        world.does("a", Does::Answers);
        assert_eq!(call(&balanced, &world, 0), Ok(Status::OK), "both have ended");
    }
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

/// After two milliseconds, once a call has been seen.
#[derive(Debug, Default)]
struct Second(u32);

impl HedgePolicy for Second {
    fn record(&mut self, _now: Instant, _latency: Duration) {
        self.0 += 1;
    }

    fn after(&self) -> Option<Duration> {
        (self.0 > 0).then_some(Duration::from_millis(2))
    }
}

#[test]
fn a_hedge_policy_says_when_and_the_budget_says_how_often() {
    for extra_percent in [5, 0] {
        let mut settings = generous();
        let mut custom = CustomHedging::new(|| Box::<Second>::default());
        custom.extra_percent = extra_percent;
        settings.method.custom_hedge = Some(custom);
        let (balanced, world) = balanced("ab", settings);
        for _ in 0..100 {
            assert_eq!(call(&balanced, &world, IDEMPOTENT), Ok(Status::OK));
        }
        world.all_do("ab", Does::Hangs);
        world.take_made();
        let made = |flags: u8, time: Duration| {
            let mut call = balanced.call(outgoing(flags), Empty);
            assert!(poll(&mut call).is_pending());
            world.pass(time);
            assert!(poll(&mut call).is_pending());
            world.take_made().len()
        };
        assert_eq!(made(IDEMPOTENT, Duration::from_millis(1)), 1);
        let hedged = if extra_percent > 0 { 2 } else { 1 };
        assert_eq!(made(IDEMPOTENT, Duration::from_millis(2)), hedged);
        assert_eq!(made(0, Duration::from_millis(2)), 1, "it may run once");
    }
}

/// Nothing but a call now and then for a minute, then everything at once.
#[derive(Debug)]
struct AtOnce;

impl WarmUpPolicy for AtOnce {
    fn share(&self, age: Option<Duration>) -> u32 {
        if age.is_some_and(|age| age < Duration::from_secs(60)) { 0 } else { u32::MAX }
    }
}

/// Of an instance that is warm and well.
const FULL: (u32, u32) = (10_000, 10_000);

#[test]
fn a_warm_up_policy_says_which_share_a_new_instance_gets() {
    let mut settings = generous();
    settings.custom_warm_up = Some(Arc::new(AtOnce));
    let (balanced, world) = balanced("ab", settings);
    world.pass(Duration::from_secs(1));
    let mut listing = listing(2, "abc");
    let mut listed = listing.instances.to_vec();
    listed[2].since = balanced.connector().now();
    listing.instances = listed.into();
    balanced.apply(&listing);
    let weights = || balanced.explain(7).hosts.iter().map(|host| host.weight).collect::<Vec<_>>();
    assert_eq!(weights(), [FULL, FULL, (1, FULL.1)]);
    world.pass(Duration::from_secs(61));
    assert_eq!(call(&balanced, &world, 0), Ok(Status::OK));
    assert_eq!(weights(), [FULL; 3]);
}

/// Only these.
#[derive(Debug)]
struct Only(&'static str);

impl AperturePolicy for Only {
    fn narrow(&self, listing: &Listing) -> Listing {
        let all = listing.instances.iter();
        let kept = all.filter(|listed| self.0.contains(&listed.instance.name));
        Listing { instances: kept.cloned().collect(), ..listing.clone() }
    }
}

#[test]
fn an_aperture_policy_says_who_is_connected_to() {
    let mut settings = generous();
    settings.custom_aperture = Some(Arc::new(Only("bd")));
    let (balanced, _world) = balanced("abcd", settings.clone());
    let names = || {
        let hosts = balanced.explain(7).hosts;
        hosts.into_iter().map(|host| host.name).collect::<BTreeSet<_>>()
    };
    let are = |names: &str| names.chars().map(String::from).collect::<BTreeSet<_>>();
    assert_eq!(names(), are("bd"));
    settings.custom_aperture = Some(Arc::new(Only("a")));
    balanced.configure(settings.clone()).unwrap();
    assert_eq!(names(), are("a"), "of the list that there is");
    settings.custom_aperture = None;
    balanced.configure(settings).unwrap();
    assert_eq!(names(), are("abcd"));
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
