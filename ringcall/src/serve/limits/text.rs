//! Limits as text, in whichever format of serde: the feature `serde`. What is read has been checked.
//!
//! As in `ringcall-cluster`, what is an enum is a word or a table with one entry in every format.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::time::Duration;

use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserialize, Deserializer, Error, MapAccess, Unexpected, Visitor};

use super::{
    AdaptiveConfig, CONCURRENCY_MUST, Concurrency, Limits, QUEUE_MUST, QueueRule, RATE_MUST, Rate,
};
use crate::{CallerKey, ServeError};

#[derive(serde::Deserialize, Default)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitsText {
    queue: QueueText,
    concurrency: Option<Concurrency>,
    methods: BTreeMap<String, Concurrency>,
    reserve: Vec<ReserveText>,
    concurrency_of_each: Option<OfEachText>,
    rates: Vec<Rate>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ReserveText {
    priority: u8,
    percent: u8,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct OfEachText {
    caller: CallerKey,
    calls: u32,
}

impl TryFrom<LimitsText> for Limits {
    type Error = String;

    fn try_from(text: LimitsText) -> Result<Limits, String> {
        let mut limits = Limits::default().queue(text.queue.0);
        limits.concurrency = text.concurrency;
        limits = text.methods.into_iter().fold(limits, |it, (name, limit)| it.method(name, limit));
        for ReserveText { priority, percent } in text.reserve {
            if limits.kept.has(priority) {
                return Err(format!("`reserve` has two parts for priority {priority}"));
            }
            limits = limits.reserve(priority, percent);
        }
        if let Some(OfEachText { caller, calls }) = text.concurrency_of_each {
            limits = limits.concurrency_of_each(caller, calls);
        }
        limits = text.rates.into_iter().fold(limits, Limits::rate);
        match limits.validate() {
            Ok(()) => Ok(limits),
            Err(ServeError::Limits { setting, must }) => Err(format!("`{setting}` must be {must}")),
            Err(error) => Err(error.to_string()),
        }
    }
}

/// What is written as a word, a number, `true` or `false`, or as a table.
trait Written<'de>: Sized {
    /// What may be written.
    const ALLOWED: &'static str;
    /// What a table says. Of an enum it has one entry, whose key is the variant.
    type Table: Deserialize<'de> + Into<Self>;
    /// Whether the table is an enum. One of a struct has been read to its end, and not every format can be asked again there.
    const IS_ENUM: bool = true;

    fn of_word(_word: &str) -> Option<Self> {
        None
    }

    fn of_number(_number: u32) -> Option<Self> {
        None
    }

    fn of_bool(_is_on: bool) -> Option<Self> {
        None
    }
}

struct Reader<T>(PhantomData<T>);

fn written<'de, T: Written<'de>, D: Deserializer<'de>>(from: D) -> Result<T, D::Error> {
    from.deserialize_any(Reader(PhantomData))
}

impl<'de, T: Written<'de>> Visitor<'de> for Reader<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::ALLOWED)
    }

    fn visit_str<E: Error>(self, word: &str) -> Result<T, E> {
        T::of_word(word).ok_or_else(|| E::invalid_value(Unexpected::Str(word), &self))
    }

    fn visit_bool<E: Error>(self, is_on: bool) -> Result<T, E> {
        T::of_bool(is_on).ok_or_else(|| E::invalid_value(Unexpected::Bool(is_on), &self))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<T, E> {
        let found = u32::try_from(number).ok().and_then(T::of_number);
        found.ok_or_else(|| E::invalid_value(Unexpected::Unsigned(number), &self))
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<T, E> {
        let found = u32::try_from(number).ok().and_then(T::of_number);
        found.ok_or_else(|| E::invalid_value(Unexpected::Signed(number), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let table = T::Table::deserialize(MapAccessDeserializer::new(&mut map))?;
        // Of an enum nobody has looked whether there is more.
        let more = if T::IS_ENUM { map.next_key::<String>()? } else { None };
        match more {
            None => Ok(table.into()),
            Some(key) => {
                let allowed = T::ALLOWED;
                Err(A::Error::custom(format_args!("`{key}` is one too many, for {allowed}")))
            }
        }
    }
}

const A_TIME: &str = "a time such as \"250ms\", \"5s\" or \"10min\"";

/// A time as people write it.
fn time<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
    struct Time;

    impl Visitor<'_> for Time {
        type Value = Duration;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(A_TIME)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Duration, E> {
            humantime::parse_duration(text)
                .map_err(|why| E::custom(format_args!("{text:?} is not {A_TIME}: {why}")))
        }
    }

    from.deserialize_str(Time)
}

/// A rule, which may be switched off.
struct QueueText(Option<QueueRule>);

impl Default for QueueText {
    fn default() -> QueueText {
        QueueText(Some(QueueRule::default()))
    }
}

impl<'de> Deserialize<'de> for QueueText {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<QueueText, D::Error> {
        written(from)
    }
}

impl Written<'_> for QueueText {
    const ALLOWED: &'static str =
        "a table of `target` and `interval`, true for its defaults or false for none";
    type Table = QueueRule;
    const IS_ENUM: bool = false;

    fn of_bool(is_on: bool) -> Option<QueueText> {
        Some(QueueText(is_on.then(QueueRule::default)))
    }
}

impl From<QueueRule> for QueueText {
    fn from(rule: QueueRule) -> QueueText {
        QueueText(Some(rule))
    }
}

#[derive(serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct QueueTable {
    #[serde(deserialize_with = "time")]
    target: Duration,
    #[serde(deserialize_with = "time")]
    interval: Duration,
}

impl Default for QueueTable {
    fn default() -> QueueTable {
        let rule = QueueRule::default();
        QueueTable { target: rule.target(), interval: rule.interval() }
    }
}

impl TryFrom<QueueTable> for QueueRule {
    type Error = String;

    fn try_from(table: QueueTable) -> Result<QueueRule, String> {
        let rule = QueueRule::new(table.target, table.interval);
        sound(rule, rule.is_sound(), "queue", QUEUE_MUST)
    }
}

fn sound<T>(it: T, is_sound: bool, name: &str, must: &str) -> Result<T, String> {
    if is_sound { Ok(it) } else { Err(format!("`{name}` must be {must}")) }
}

impl<'de> Deserialize<'de> for Concurrency {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Concurrency, D::Error> {
        let limit: Concurrency = written(from)?;
        sound(limit, limit.is_sound(), "concurrency", CONCURRENCY_MUST).map_err(D::Error::custom)
    }
}

impl Written<'_> for Concurrency {
    const ALLOWED: &'static str =
        "a number of calls, \"adaptive\" or a table of `start`, `min` and `max`";
    type Table = AdaptiveConfig;
    const IS_ENUM: bool = false;

    fn of_word(word: &str) -> Option<Concurrency> {
        (word == "adaptive").then(|| AdaptiveConfig::default().into())
    }

    fn of_number(calls: u32) -> Option<Concurrency> {
        Some(Concurrency::Fixed(calls))
    }
}

impl<'de> Deserialize<'de> for CallerKey {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<CallerKey, D::Error> {
        written(from)
    }
}

impl Written<'_> for CallerKey {
    #[cfg(feature = "tls")]
    const ALLOWED: &'static str = "\"certificate\", \"address\" or { metadata = \"a key\" }";
    #[cfg(not(feature = "tls"))]
    const ALLOWED: &'static str = "\"address\" or { metadata = \"a key\" }";
    type Table = CallerKeyTable;

    fn of_word(word: &str) -> Option<CallerKey> {
        match word {
            #[cfg(feature = "tls")]
            "certificate" => Some(CallerKey::Certificate),
            "address" => Some(CallerKey::Address),
            _ => None,
        }
    }
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "snake_case")]
enum CallerKeyTable {
    Metadata(String),
}

impl From<CallerKeyTable> for CallerKey {
    fn from(CallerKeyTable::Metadata(key): CallerKeyTable) -> CallerKey {
        CallerKey::Metadata(key)
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct RateText {
    calls: u32,
    #[serde(default = "a_second", deserialize_with = "time")]
    per: Duration,
    burst: Option<u32>,
    service: Option<String>,
    method: Option<String>,
    each: Option<CallerKey>,
    callers_max: Option<usize>,
}

const fn a_second() -> Duration {
    Duration::from_secs(1)
}

impl TryFrom<RateText> for Rate {
    type Error = String;

    fn try_from(text: RateText) -> Result<Rate, String> {
        let all = Rate::new(text.calls, text.per);
        let mut rate = match (text.service, text.method) {
            (None, None) => all,
            (Some(name), None) => all.service(name),
            (None, Some(name)) => all.method(name),
            (Some(_), Some(_)) => {
                return Err("a rate is of a `service` or of a `method`, not of both".to_owned());
            }
        };
        rate = text.burst.into_iter().fold(rate, Rate::burst);
        rate = text.each.into_iter().fold(rate, Rate::each);
        rate = text.callers_max.into_iter().fold(rate, Rate::callers_max);
        let is_sound = rate.is_sound();
        sound(rate, is_sound, "rates", RATE_MUST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Limits {
        toml::from_str(text).unwrap_or_else(|error| panic!("{text}: {error}"))
    }

    fn wrong(text: &str) -> String {
        match toml::from_str::<Limits>(text) {
            Ok(limits) => panic!("{text}: {limits:?}"),
            Err(error) => error.message().to_owned(),
        }
    }

    const FULL: &str = r#"
        queue = { target = "10ms", interval = "1s" }
        concurrency = { start = 50, min = 10, max = 100 }
        reserve = [{ priority = 5, percent = 5 }, { priority = 1, percent = 10 }]
        concurrency_of_each = { caller = { metadata = "tenant" }, calls = 7 }

        [methods]
        "a.B/c" = 3
        "a.B/d" = "adaptive"

        [[rates]]
        calls = 100

        [[rates]]
        calls = 10
        per = "1min"
        burst = 2
        method = "a.B/c"
        each = "address"
        callers_max = 5

        [[rates]]
        calls = 1
        service = "a.B"
    "#;

    fn full() -> Limits {
        let config = AdaptiveConfig { start: 50, min: 10, max: 100 };
        let rate = Rate::new(10, Duration::from_secs(60)).burst(2).method("a.B/c");
        Limits::default()
            .queue(QueueRule::new(Duration::from_millis(10), Duration::from_secs(1)))
            .concurrency(config)
            .method("a.B/c", 3)
            .method("a.B/d", AdaptiveConfig::default())
            .reserve(5, 5)
            .reserve(1, 10)
            .concurrency_of_each(CallerKey::metadata("tenant"), 7)
            .rate(Rate::per_second(100))
            .rate(rate.each(CallerKey::Address).callers_max(5))
            .rate(Rate::per_second(1).service("a.B"))
    }

    #[test]
    fn a_text_says_what_a_program_can() {
        assert_eq!(read(""), Limits::default());
        assert_eq!(read(FULL), full());
        let of_none = Limits::default().queue(None);
        assert_eq!(read("queue = false"), of_none);
        assert_eq!(read("queue = true\nconcurrency = 5"), Limits::default().concurrency(5));
        #[cfg(feature = "tls")]
        assert_eq!(
            read("concurrency_of_each = { caller = \"certificate\", calls = 1 }"),
            Limits::default().concurrency_of_each(CallerKey::Certificate, 1)
        );
    }

    #[test]
    fn what_is_wrong_is_told() {
        let short = "queue = { target = \"1s\" }";
        assert_eq!(
            wrong(short),
            "`queue` must be a target of more than zero, and an interval that is longer"
        );
        let cases = [
            ("concurency = 5", "unknown field `concurency`, expected one of `queue`"),
            ("queue = 5", "invalid value: integer `5`, expected a table of `target`"),
            ("queue = { target = 5 }", "expected a time such as \"250ms\", \"5s\" or \"10min\""),
            ("queue = { target = \"5\" }", "\"5\" is not a time such as"),
            ("concurrency = 0", "`concurrency` must be at least 1"),
            ("concurrency = -1", "integer `-1`, expected a number of calls, \"adaptive\""),
            ("concurrency = \"many\"", "string \"many\", expected a number of calls, \"adaptive\""),
            ("concurrency = { start = 1 }", "an adaptive one between its bounds"),
            ("methods.\"a.B/c\" = 0", "`concurrency` must be at least 1"),
            ("reserve = [{ priority = 0, percent = 5 }]", "`reserve` must be of priority 1"),
            (
                "reserve = [{ priority = 1, percent = 5 }, { priority = 1, percent = 6 }]",
                "`reserve` has two parts for priority 1",
            ),
            (
                "concurrency_of_each = { caller = \"address\", calls = 0 }",
                "`concurrency_of_each` must be at least 1",
            ),
            (
                "concurrency_of_each = { caller = \"tenant\", calls = 1 }",
                "\"address\" or { metadata = \"a key\" }",
            ),
            (
                "concurrency_of_each = { caller = { metadata = \"a\", of = \"b\" }, calls = 1 }",
                "`of` is one too many, for ",
            ),
            ("[[rates]]\nper = \"1s\"", "missing field `calls`"),
            ("[[rates]]\ncalls = 0", "`rates` must be of 1 call or more"),
            ("[[rates]]\ncalls = 1\nservice = \"a\"\nmethod = \"a/b\"", "not of both"),
        ];
        for (text, told) in cases {
            assert!(wrong(text).contains(told), "{text}: {}", wrong(text));
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_is_sound(start in 0u32..50, min in 0u32..50, max in 0u32..50, time in ".{0,8}") {
            let text = format!(
                "concurrency = {{ start = {start}, min = {min}, max = {max} }}\nqueue = {{ target = {time:?} }}"
            );
            if let Ok(limits) = toml::from_str::<Limits>(&text) {
                proptest::prop_assert!(limits.validate().is_ok());
            }
        }
    }
}
