//! All that can be set, in one place.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use crate::balance::Balancing;
use crate::breaker::BreakerConfig;
use crate::health::HealthConfig;
use crate::hedge::HedgeConfig;
use crate::retry::RetryConfig;

/// How calls to a service are made. Replaceable while it is used:
/// [`Balanced::configure`](crate::Balanced::configure).
///
/// `docs/CLUSTER.md` says what each default is, and whose number it is.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Settings {
    /// Which instance gets a call.
    pub balancing: Balancing,
    /// When instances are ejected.
    pub health: HealthConfig,
    /// How long it takes until a new instance gets its full share: 10 min, from a tenth.
    pub warm_up: Duration,
    /// How many retries and hedges there may be, in percent of the calls that succeed: 10.
    pub retry_percent: u32,
    /// And so many a second in any case: 1.
    pub retry_floor_per_s: u32,
    /// For methods that have no settings of their own.
    pub method: MethodSettings,
    /// For others, by [`method_id`](ringcall_core::method_id).
    pub methods: BTreeMap<u64, MethodSettings>,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            balancing: Balancing::default(),
            health: HealthConfig::default(),
            warm_up: Duration::from_secs(600),
            retry_percent: 10,
            retry_floor_per_s: 1,
            method: MethodSettings::default(),
            methods: BTreeMap::new(),
        }
    }
}

/// How calls of a method are made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct MethodSettings {
    /// When they are made again.
    pub retry: RetryConfig,
    /// When they are made twice: never.
    pub hedge: Option<HedgeConfig>,
    /// When no calls are made to an instance, or to any.
    pub breaker: Option<BreakerConfig>,
    /// How long one attempt may take: all that is left of the call.
    pub attempt_timeout: Option<Duration>,
}

impl Default for MethodSettings {
    fn default() -> MethodSettings {
        MethodSettings {
            retry: RetryConfig::default(),
            hedge: None,
            breaker: Some(BreakerConfig::default()),
            attempt_timeout: None,
        }
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

    /// The same, with settings of one method.
    #[must_use]
    pub fn with_method(mut self, id: u64, settings: MethodSettings) -> Settings {
        self.methods.insert(id, settings);
        self
    }

    pub(crate) fn of(&self, method: u64) -> &MethodSettings {
        self.methods.get(&method).unwrap_or(&self.method)
    }

    /// Whether they make sense.
    ///
    /// # Errors
    /// The first that does not.
    pub fn check(&self) -> Result<(), BadSetting> {
        let health = &self.health;
        percent("health.success_percent", health.success_percent)?;
        percent("health.ejected_percent", health.ejected_percent)?;
        percent("health.panic_percent", health.panic_percent)?;
        positive("health.consecutive", health.consecutive)?;
        time("health.window", health.window)?;
        time("health.ejection", health.ejection)?;
        percent("retry_percent", self.retry_percent)?;
        std::iter::once(&self.method).chain(self.methods.values()).try_for_each(check_method)
    }
}

fn check_method(method: &MethodSettings) -> Result<(), BadSetting> {
    if !(1..=5).contains(&method.retry.attempts) {
        return Err(BadSetting { name: "retry.attempts", must: "1 to 5" });
    }
    if let Some(breaker) = &method.breaker {
        percent("breaker.errors_percent", breaker.errors_percent)?;
        positive("breaker.errors_percent", breaker.errors_percent)?;
        positive("breaker.successes", breaker.successes)?;
        time("breaker.window", breaker.window)?;
        time("breaker.cool", breaker.cool)?;
    }
    if let Some(hedge) = &method.hedge {
        percent("hedge.quantile_percent", hedge.quantile_percent)?;
        percent("hedge.extra_percent", hedge.extra_percent)?;
    }
    method.attempt_timeout.map_or(Ok(()), |timeout| time("attempt_timeout", timeout))
}

fn percent(name: &'static str, value: u32) -> Result<(), BadSetting> {
    if value <= 100 { Ok(()) } else { Err(BadSetting { name, must: "0 to 100" }) }
}

fn positive(name: &'static str, value: u32) -> Result<(), BadSetting> {
    if value > 0 { Ok(()) } else { Err(BadSetting { name, must: "more than 0" }) }
}

fn time(name: &'static str, value: Duration) -> Result<(), BadSetting> {
    let is_sensible = value >= Duration::from_millis(1) && value <= Duration::from_secs(86_400);
    if is_sensible { Ok(()) } else { Err(BadSetting { name, must: "1 ms to a day" }) }
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
    }
}
