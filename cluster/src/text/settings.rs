//! Settings.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde::de::{Deserialize, Deserializer, Error, Unexpected};

use super::{Written, switch, time, time_if_any, written};
use crate::aperture::{Aperture, AperturePolicy};
use crate::balance::{Balancing, PrequalConfig};
use crate::breaker::{BreakerConfig, CustomBreaker};
use crate::discovery::{DampingConfig, DiscoveryConfig, DnsConfig, DnsFamily, GuardConfig};
use crate::health::{HealthConfig, HealthPolicy};
use crate::hedge::{CustomHedging, HedgeConfig};
use crate::limit::{CallLimit, LimitLease};
use crate::method::MethodKey;
use crate::ramp::WarmUpPolicy;
use crate::recovery::RecoveryConfig;
use crate::retry::{RetryConfig, RetryPolicy};
use crate::route::{Caller, Fields, Groups, Zones};
use crate::settings::{BadSetting, MethodSettings, MirrorConfig, Settings, check_method};

/// Reads a type by the fields of another one, and checks it.
macro_rules! checked {
    ($($type:ident by $text:ident, $check:expr;)*) => {
        $(impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(from: D) -> Result<$type, D::Error> {
                let read = $text::deserialize(from)?;
                let check: fn(&$type) -> Result<(), BadSetting> = $check;
                check(&read).map_err(D::Error::custom)?;
                Ok(read)
            }
        })*
    };
}

checked! {
    Settings by SettingsText, Settings::check;
    MethodSettings by MethodText, check_method;
    LimitLease by LeaseText, LimitLease::check;
    DiscoveryConfig by DiscoveryText, DiscoveryConfig::check;
    DnsConfig by DnsText, DnsConfig::check;
}

#[derive(serde::Deserialize)]
#[serde(remote = "Settings", default = "Settings::default", deny_unknown_fields)]
struct SettingsText {
    balancing: Balancing,
    health: HealthConfig,
    #[serde(skip)]
    custom_health: Option<Arc<dyn HealthPolicy>>,
    recovery: Option<RecoveryConfig>,
    #[serde(deserialize_with = "time")]
    warm_up: Duration,
    #[serde(skip)]
    custom_warm_up: Option<Arc<dyn WarmUpPolicy>>,
    retry_percent: u32,
    retry_floor_per_s: u32,
    limit: CallLimit,
    aperture: Option<Aperture>,
    #[serde(skip)]
    custom_aperture: Option<Arc<dyn AperturePolicy>>,
    caller: Caller,
    groups: Option<Groups>,
    #[serde(deserialize_with = "switch")]
    zones: Option<Zones>,
    #[serde(skip)]
    fields: Fields,
    mirror: MirrorConfig,
    report_one_in: u32,
    method: MethodSettings,
    methods: BTreeMap<MethodKey, MethodSettings>,
}

#[derive(serde::Deserialize)]
#[serde(remote = "MethodSettings", default = "MethodSettings::default", deny_unknown_fields)]
struct MethodText {
    retry: RetryConfig,
    #[serde(skip)]
    custom_retry: Option<Arc<dyn RetryPolicy>>,
    #[serde(deserialize_with = "switch")]
    hedge: Option<HedgeConfig>,
    #[serde(skip)]
    custom_hedge: Option<CustomHedging>,
    #[serde(deserialize_with = "switch")]
    breaker: Option<BreakerConfig>,
    #[serde(skip)]
    custom_breaker: Option<CustomBreaker>,
    limit: CallLimit,
    #[serde(deserialize_with = "time_if_any")]
    attempt_timeout: Option<Duration>,
    idempotency_keys: bool,
}

#[derive(serde::Deserialize)]
#[serde(remote = "LimitLease", deny_unknown_fields)]
struct LeaseText {
    limit: CallLimit,
    #[serde(deserialize_with = "time")]
    time: Duration,
}

#[derive(serde::Deserialize)]
#[serde(remote = "DiscoveryConfig", default = "DiscoveryConfig::default", deny_unknown_fields)]
struct DiscoveryText {
    guard: GuardConfig,
    damping: DampingConfig,
}

#[derive(serde::Deserialize)]
#[serde(remote = "DnsConfig", default = "DnsConfig::default", deny_unknown_fields)]
struct DnsText {
    family: DnsFamily,
    #[serde(deserialize_with = "time")]
    ttl_min: Duration,
    #[serde(deserialize_with = "time")]
    ttl_max: Duration,
}

/// By its name: what its number stands for nobody could read.
impl<'de> Deserialize<'de> for MethodKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<MethodKey, D::Error> {
        let name = String::deserialize(from)?;
        match ringcall_core::is_method_name(&name) {
            true => Ok(name.into()),
            false => {
                let found = Unexpected::Str(&name);
                Err(D::Error::invalid_value(found, &"a method, named like package.Service/method"))
            }
        }
    }
}

impl<'de> Deserialize<'de> for Balancing {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Balancing, D::Error> {
        written(from)
    }
}

impl Written<'_> for Balancing {
    const ALLOWED: &'static str = "\"peak_ewma\", \"weighted_random\", \"smooth_round_robin\", \
         \"least_active\", \"ring\", \"maglev\", \"reported\", \"prequal\" or { prequal = { settings } }";
    type Table = BalancingTable;

    fn of_word(word: &str) -> Option<Balancing> {
        Some(match word {
            "peak_ewma" => Balancing::PeakEwma,
            "weighted_random" => Balancing::WeightedRandom,
            "smooth_round_robin" => Balancing::SmoothRoundRobin,
            "least_active" => Balancing::LeastActive,
            "ring" => Balancing::Ring,
            "maglev" => Balancing::Maglev,
            "reported" => Balancing::Reported,
            "prequal" => Balancing::Prequal(PrequalConfig::default()),
            _ => return None,
        })
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum BalancingTable {
    Prequal(PrequalConfig),
}

impl From<BalancingTable> for Balancing {
    fn from(BalancingTable::Prequal(config): BalancingTable) -> Balancing {
        Balancing::Prequal(config)
    }
}
