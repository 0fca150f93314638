//! All that can be set, in one place.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{Instant, Status};

use crate::aperture::{Aperture, AperturePolicy};
use crate::balance::Balancing;
use crate::breaker::{AnyBreaker, Breaker, BreakerConfig, CustomBreaker};
use crate::custom::Custom;
use crate::health::{HealthConfig, HealthPolicy};
use crate::hedge::{AnyHedging, CustomHedging, HedgeConfig, Hedging};
use crate::limit::CallLimit;
use crate::method::MethodKey;
use crate::ramp::WarmUpPolicy;
use crate::recovery::RecoveryConfig;
use crate::retry::{RetryConfig, RetryPolicy};
use crate::route::{Caller, Fields, Groups, Zones};

/// How calls to a service are made. Replaceable while it is used:
/// [`Balanced::configure`](crate::Balanced::configure).
///
/// `docs/CLUSTER.md` says what each default is, and whose number it is; and how they are written in a file (feature `serde`), in
/// which policies of yours and `fields` cannot be: see [`Settings::with_code_of`].
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Which instance gets a call.
    pub balancing: Balancing,
    /// When instances are ejected.
    pub health: HealthConfig,
    /// Judges in place of `health` which instances work; `None`, the default: nobody.
    pub custom_health: Option<Arc<dyn HealthPolicy>>,
    /// How calls grow when instances come back after all had gone; `None`, the default: all are made at once.
    pub recovery: Option<RecoveryConfig>,
    /// How long it takes until a new instance gets its full share: 10 min, from a tenth.
    pub warm_up: Duration,
    /// Says in place of `warm_up` which share an instance has; `None`, the default: nobody.
    pub custom_warm_up: Option<Arc<dyn WarmUpPolicy>>,
    /// How many retries and hedges there may be, in percent of the calls that succeed: 10.
    pub retry_percent: u32,
    /// And so many a second in any case: 1.
    pub retry_floor_per_s: u32,
    /// How many calls there may be to all of the service: any number.
    pub limit: CallLimit,
    /// Which part of the instances this side uses; `None`, the default: all of them.
    pub aperture: Option<Aperture>,
    /// Says that in place of `aperture`; `None`, the default: nobody.
    pub custom_aperture: Option<Arc<dyn AperturePolicy>>,
    /// What is said of this side, for routing.
    pub caller: Caller,
    /// Which groups of instances calls go to; `None`, the default: groups do not matter.
    pub groups: Option<Groups>,
    /// When calls leave the caller's zone, if it says one; `None`, the default: zones do not matter.
    pub zones: Option<Zones>,
    /// How rules read fields of arguments.
    pub fields: Fields,
    /// How many copies of calls there may be, where rules ask for some.
    pub mirror: MirrorConfig,
    /// One in so many calls is [reported](crate::fleet::CallReport); 0, the default: none.
    pub report_one_in: u32,
    /// For methods that have no settings of their own.
    pub method: MethodSettings,
    /// For others.
    pub methods: BTreeMap<MethodKey, MethodSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            balancing: Balancing::default(),
            health: HealthConfig::default(),
            custom_health: None,
            recovery: None,
            warm_up: Duration::from_secs(600),
            custom_warm_up: None,
            retry_percent: 10,
            retry_floor_per_s: 1,
            limit: CallLimit::default(),
            aperture: None,
            custom_aperture: None,
            caller: Caller::default(),
            groups: None,
            zones: None,
            fields: Fields::new(),
            mirror: MirrorConfig::default(),
            report_one_in: 0,
            method: MethodSettings::default(),
            methods: BTreeMap::new(),
        }
    }
}

/// How many copies of calls there may be at a time, see [`Action::Mirror`](crate::route::Action::Mirror). Those that would
/// be more are not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct MirrorConfig {
    /// Under way: 64.
    pub in_flight_max: u32,
    /// Their arguments together, encoded: 4 MiB.
    pub bytes_max: u32,
}

impl Default for MirrorConfig {
    fn default() -> MirrorConfig {
        MirrorConfig { in_flight_max: 64, bytes_max: 4 << 20 }
    }
}

/// How calls of a method are made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MethodSettings {
    /// When they are made again.
    pub retry: RetryConfig,
    /// Decides that in place of `retry`, whose `errors` still says which answers are errors; `None`, the default: nobody.
    pub custom_retry: Option<Arc<dyn RetryPolicy>>,
    /// When they are made twice: never.
    pub hedge: Option<HedgeConfig>,
    /// Decides that in place of `hedge`; `None`, the default: nobody.
    pub custom_hedge: Option<CustomHedging>,
    /// When no calls are made to an instance, or to any.
    pub breaker: Option<BreakerConfig>,
    /// Decides that in place of `breaker`; `None`, the default: nobody.
    pub custom_breaker: Option<CustomBreaker>,
    /// How many calls of the method there may be: any number.
    pub limit: CallLimit,
    /// How long one attempt may take: all that is left of the call. Of a call with streams, until its reply begins; one that
    /// sends items has all that is left.
    pub attempt_timeout: Option<Duration>,
    /// Whether each call is given an idempotency key, unless it has one: 16 random bytes, the same for all of its
    /// attempts. No by default. A server that keeps answers then runs only the first of them that reaches it. It
    /// changes nothing about which calls are made again, since another instance knows nothing of the first one's
    /// answers.
    pub idempotency_keys: bool,
}

impl Default for MethodSettings {
    fn default() -> MethodSettings {
        MethodSettings {
            retry: RetryConfig::default(),
            custom_retry: None,
            hedge: None,
            custom_hedge: None,
            breaker: Some(BreakerConfig::default()),
            custom_breaker: None,
            limit: CallLimit::default(),
            attempt_timeout: None,
            idempotency_keys: false,
        }
    }
}

impl MethodSettings {
    /// The default ones.
    #[must_use]
    pub fn new() -> MethodSettings {
        MethodSettings::default()
    }

    pub(crate) fn new_breaker(&self) -> Option<AnyBreaker> {
        match &self.custom_breaker {
            Some(custom) => Some(custom.make()),
            None => self.breaker.map(|config| AnyBreaker::Ordinary(Breaker::new(config))),
        }
    }

    /// Whether its breakers would be the same.
    pub(crate) fn has_breakers_of(&self, other: &MethodSettings) -> bool {
        self.breaker == other.breaker && self.custom_breaker == other.custom_breaker
    }

    /// What says when calls are hedged, and how many may be, in percent.
    pub(crate) fn new_hedging(&self, now: Instant) -> Option<(AnyHedging, u32)> {
        match &self.custom_hedge {
            Some(custom) => Some((custom.make(), custom.extra_percent)),
            None => self.hedge.map(|config| {
                (AnyHedging::Ordinary(Hedging::new(config, now)), config.extra_percent)
            }),
        }
    }

    /// Whether its calls would be hedged in the same way.
    pub(crate) fn has_hedging_of(&self, other: &MethodSettings) -> bool {
        self.hedge == other.hedge && self.custom_hedge == other.custom_hedge
    }

    fn has_code(&self) -> bool {
        self.custom_retry.is_some() || self.custom_hedge.is_some() || self.custom_breaker.is_some()
    }

    fn take_code(&mut self, other: &MethodSettings) {
        self.custom_retry = other.custom_retry.clone();
        self.custom_hedge = other.custom_hedge.clone();
        self.custom_breaker = other.custom_breaker.clone();
    }

    pub(crate) fn retry_policy(&self) -> &dyn RetryPolicy {
        self.custom_retry.as_deref().unwrap_or(&self.retry)
    }
}

/// A setting that makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BadSetting {
    /// Which one.
    pub name: &'static str,
    /// What it must be.
    pub must: &'static str,
}

impl fmt::Display for BadSetting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the setting {} must be {}", self.name, self.must)
    }
}

impl std::error::Error for BadSetting {}

impl Settings {
    /// The defaults.
    #[must_use]
    pub fn new() -> Settings {
        Settings::default()
    }

    /// The same, with settings of one method: `"package.Service/method"`, or its number.
    #[must_use]
    pub fn with_method(
        mut self,
        method: impl Into<MethodKey>,
        settings: MethodSettings,
    ) -> Settings {
        let method = method.into();
        // Inserting would keep a key that is the same, but has no name.
        self.methods.remove(&method);
        self.methods.insert(method, settings);
        self
    }

    /// Of the methods that have settings of their own, those that are none of these: they were renamed, or written wrongly,
    /// and nothing comes of their settings. With `ringcall`, `service_table().methods()` of a client are those that it may call.
    #[must_use]
    pub fn unknown_methods<M: Into<MethodKey>>(
        &self,
        known: impl IntoIterator<Item = M>,
    ) -> Vec<MethodKey> {
        let known: BTreeSet<MethodKey> = known.into_iter().map(Into::into).collect();
        self.methods.keys().filter(|method| !known.contains(*method)).cloned().collect()
    }

    /// The same, with the code of others: for settings that were read from a file, which says nothing of it, and take the place
    /// of these. Policies and readers of fields are those of `other`, each method's those that it had; all else stays.
    #[must_use]
    pub fn with_code_of(mut self, other: &Settings) -> Settings {
        if let Balancing::Custom(_) = other.balancing {
            self.balancing = other.balancing.clone();
        }
        self.custom_health = other.custom_health.clone();
        self.custom_warm_up = other.custom_warm_up.clone();
        self.custom_aperture = other.custom_aperture.clone();
        self.fields = other.fields.clone();
        // A method may have had other code than all methods, or none.
        let is_own = |of: &MethodSettings| of.has_code() || other.method.has_code();
        for (method, _) in other.methods.iter().filter(|(_, of)| is_own(of)) {
            self.methods.entry(method.clone()).or_insert_with(|| self.method.clone());
        }
        for (method, own) in &mut self.methods {
            own.take_code(other.of(method.id()));
        }
        self.method.take_code(&other.method);
        self
    }

    pub(crate) fn health_policy(&self) -> &dyn HealthPolicy {
        self.custom_health.as_deref().unwrap_or(&self.health)
    }

    pub(crate) fn warm_up_policy(&self) -> &dyn WarmUpPolicy {
        self.custom_warm_up.as_deref().unwrap_or(&self.warm_up)
    }

    /// What says which instances this side uses, if it does not use all of them.
    pub(crate) fn aperture_policy(&self) -> Option<Arc<dyn AperturePolicy>> {
        let ordinary = || self.aperture.map(|it| Arc::new(it) as Arc<dyn AperturePolicy>);
        self.custom_aperture.clone().or_else(ordinary)
    }

    /// Whether this side would use the same instances.
    pub(crate) fn has_aperture_of(&self, other: &Settings) -> bool {
        let of = |it: &Settings| (it.aperture, it.custom_aperture.clone().map(Custom));
        of(self) == of(other)
    }

    pub(crate) fn of(&self, method: u64) -> &MethodSettings {
        self.methods.get(&method).unwrap_or(&self.method)
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), BadSetting> {
        if let Balancing::Prequal(config) = &self.balancing {
            config.check()?;
        }
        let health = &self.health;
        percent("health.success_percent", health.success_percent)?;
        percent("health.ejected_percent", health.ejected_percent)?;
        percent("health.panic_percent", health.panic_percent)?;
        positive("health.consecutive", health.consecutive)?;
        time("health.window", health.window)?;
        time("health.ejection", health.ejection)?;
        time("health.ejection_max", health.ejection_max)?;
        if let Some(recovery) = &self.recovery {
            within("recovery.working_min", recovery.working_min, 1..=10_000, "1 to 10000")?;
            time("recovery.hold", recovery.hold)?;
        }
        time_or_none("warm_up", self.warm_up)?;
        percent("retry_percent", self.retry_percent)?;
        within("retry_floor_per_s", self.retry_floor_per_s, 0..=1_000_000, "0 to 1000000")?;
        check_limit(&self.limit)?;
        if let Some(aperture) = &self.aperture {
            aperture.check()?;
        }
        if let Some(zones) = &self.zones {
            within("zones.spill_percent", zones.spill_percent, 1..=100, "1 to 100")?;
        }
        within("mirror.in_flight_max", self.mirror.in_flight_max, 0..=65_536, "0 to 65536")?;
        within("mirror.bytes_max", self.mirror.bytes_max, 0..=1 << 30, "0 to 1 GiB")?;
        let fallbacks = self.groups.as_ref().map_or(0, |groups| groups.fallbacks.len() as u32);
        within("groups.fallbacks", fallbacks, 0..=8, "8 at most")?;
        let names =
            self.groups.iter().flat_map(|groups| groups.fallbacks.iter().chain([&groups.own]));
        for name in names {
            within("groups", name.len() as u32, 0..=256, "names of 256 bytes at most")?;
        }
        let is_name = |method: &MethodKey| method.name().is_none_or(|name| name.contains('/'));
        let unnamed = self.methods.keys().filter(|method| !is_name(method)).count() as u32;
        within("methods", unnamed, 0..=0, "named like package.Service/method")?;
        std::iter::once(&self.method).chain(self.methods.values()).try_for_each(check_method)
    }
}

pub(crate) fn check_method(method: &MethodSettings) -> Result<(), BadSetting> {
    let retry = &method.retry;
    within("retry.attempts", retry.attempts, 1..=5, "1 to 5")?;
    time_or_none("retry.backoff", retry.backoff)?;
    time_or_none("retry.backoff_max", retry.backoff_max)?;
    let successes = retry.errors.contains(&Status::OK).into();
    within("retry.errors", successes, 0..=0, "statuses of errors, which OK is none of")?;
    if let Some(breaker) = &method.breaker {
        within("breaker.errors_percent", breaker.errors_percent, 1..=100, "1 to 100")?;
        positive("breaker.calls_min", breaker.calls_min)?;
        positive("breaker.successes", breaker.successes)?;
        time("breaker.window", breaker.window)?;
        time("breaker.cool", breaker.cool)?;
        time("breaker.cool_max", breaker.cool_max)?;
    }
    if let Some(hedge) = &method.hedge {
        // After all of them there would be nobody left to hedge, and after none everybody.
        within("hedge.quantile_percent", hedge.quantile_percent, 1..=99, "1 to 99")?;
        percent("hedge.extra_percent", hedge.extra_percent)?;
        time("hedge.refresh", hedge.refresh)?;
        hedge.tied.map_or(Ok(()), |after| time_or_none("hedge.tied", after))?;
    }
    if let Some(custom) = &method.custom_hedge {
        percent("custom_hedge.extra_percent", custom.extra_percent)?;
    }
    check_limit(&method.limit)?;
    method.attempt_timeout.map_or(Ok(()), |timeout| time("attempt_timeout", timeout))
}

pub(crate) fn check_limit(limit: &CallLimit) -> Result<(), BadSetting> {
    let CallLimit { in_flight, per_s, burst } = *limit;
    in_flight.map_or(Ok(()), |calls| positive("limit.in_flight", calls))?;
    let of_a_rate = "1 to 1000000";
    per_s.map_or(Ok(()), |calls| within("limit.per_s", calls, 1..=1_000_000, of_a_rate))?;
    within("limit.burst", burst, 1..=1_000_000, of_a_rate)
}

pub(crate) fn percent(name: &'static str, value: u32) -> Result<(), BadSetting> {
    within(name, value, 0..=100, "0 to 100")
}

fn positive(name: &'static str, value: u32) -> Result<(), BadSetting> {
    within(name, value, 1..=u32::MAX, "more than 0")
}

pub(crate) fn within(
    name: &'static str,
    value: u32,
    range: RangeInclusive<u32>,
    must: &'static str,
) -> Result<(), BadSetting> {
    if range.contains(&value) { Ok(()) } else { Err(BadSetting { name, must }) }
}

const DAY: Duration = Duration::from_secs(86_400);

pub(crate) fn time(name: &'static str, value: Duration) -> Result<(), BadSetting> {
    let is_sensible = value >= Duration::from_millis(1) && value <= DAY;
    if is_sensible { Ok(()) } else { Err(BadSetting { name, must: "1 ms to a day" }) }
}

pub(crate) fn time_or_none(name: &'static str, value: Duration) -> Result<(), BadSetting> {
    if value <= DAY { Ok(()) } else { Err(BadSetting { name, must: "0 to a day" }) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_that_make_no_sense_are_told_by_name() {
        assert_eq!(Settings::new().check(), Ok(()));
        let mut settings = Settings::new();
        settings.health.panic_percent = 101;
        let error = settings.check().unwrap_err().to_string();
        assert_eq!(error, "the setting health.panic_percent must be 0 to 100");
        let mut method = MethodSettings::default();
        method.retry.attempts = 0;
        let settings = Settings::new().with_method(7, method);
        assert_eq!(settings.check().unwrap_err().name, "retry.attempts");
        let settings = Settings::new().with_method("quotes.Quotes.last", MethodSettings::default());
        assert_eq!(settings.check().unwrap_err().name, "methods");
    }

    #[test]
    fn every_time_and_share_has_a_range() {
        type Change = fn(&mut Settings);
        let wrong = |change: Change| {
            let mut settings = Settings::new();
            settings.method.hedge = Some(HedgeConfig::default());
            change(&mut settings);
            settings.check().unwrap_err().to_string()
        };
        fn hedge(settings: &mut Settings) -> &mut HedgeConfig {
            settings.method.hedge.get_or_insert_default()
        }
        fn breaker(settings: &mut Settings) -> &mut BreakerConfig {
            settings.method.breaker.get_or_insert_default()
        }
        let told = "the setting hedge.quantile_percent must be 1 to 99";
        assert_eq!(wrong(|it| hedge(it).quantile_percent = 0), told);
        assert_eq!(wrong(|it| hedge(it).quantile_percent = 100), told);
        fn recovery(settings: &mut Settings) -> &mut RecoveryConfig {
            settings.recovery.get_or_insert(RecoveryConfig::new(2))
        }
        let cases: [(Change, &str); 11] = [
            (|it| recovery(it).working_min = 0, "recovery.working_min must be 1 to 10000"),
            (|it| recovery(it).hold = Duration::ZERO, "recovery.hold must be 1 ms to a day"),
            (|it| hedge(it).refresh = Duration::ZERO, "hedge.refresh must be 1 ms to a day"),
            (|it| breaker(it).cool_max = Duration::MAX, "breaker.cool_max must be 1 ms to a day"),
            (|it| breaker(it).calls_min = 0, "breaker.calls_min must be more than 0"),
            (
                |it| it.health.ejection_max = Duration::ZERO,
                "health.ejection_max must be 1 ms to a day",
            ),
            (|it| it.method.retry.backoff = Duration::MAX, "retry.backoff must be 0 to a day"),
            (
                |it| it.method.retry.backoff_max = Duration::MAX,
                "retry.backoff_max must be 0 to a day",
            ),
            (|it| it.warm_up = Duration::MAX, "warm_up must be 0 to a day"),
            (|it| it.retry_floor_per_s = u32::MAX, "retry_floor_per_s must be 0 to 1000000"),
            (|it| it.retry_percent = 101, "retry_percent must be 0 to 100"),
        ];
        for (change, told) in cases {
            assert!(wrong(change).contains(told), "{told}");
        }
    }
}
