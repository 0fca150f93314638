//! How much a server takes on, and what it refuses.
//!
//! ```no_run
//! # #[ringcall::service(name = "demo.Echo")] trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
//! # struct Mirror;
//! # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
//! use ringcall::limits::{AdaptiveConfig, Limits};
//!
//! let limits = Limits::new()
//!     .concurrency(512)
//!     .method("demo.Echo/echo", AdaptiveConfig::default());
//! ringcall::Server::bind("127.0.0.1:7000").service(Mirror.into_echo()).limits(limits).run()?;
//! # Ok::<(), ringcall::ServeError>(())
//! ```
//!
//! A call that is refused did not run, its argument was not looked at, and its caller gets
//! [`OVERLOADED`](ringcall_core::Status::OVERLOADED), or [`RATE_LIMITED`](ringcall_core::Status::RATE_LIMITED) if it
//! was refused for what its caller does. Calls that have expired while they waited do not run either, and are counted
//! apart ([`Counters::requests_expired`](ringcall_core::Counters::requests_expired)). What was refused is among the
//! server's [`Incidents`](crate::Incidents).
//!
//! Calls have a [priority](crate::CallOptions::priority). Those of a higher one are begun first, and what has to be
//! refused is of the lowest that waits, in the shard's queue and the pool's; what waits gives up its place in
//! [the limit of all](Limits::concurrency) as well, and a part of limits can be [kept](Limits::reserve) for higher
//! ones. Whatever is asked of higher ones, one in 16 calls that begin is a lower one. Answers say which is the lowest
//! that is admitted. Any caller may say what it likes, unless
//! [`Server::priority_max`](crate::Server::priority_max) sees to it.
//!
//! They can be [replaced](ServerLimits::replace) while the server serves, and with the feature `serde` they are read from text, and
//! checked as they are: `docs/CLUSTER.md` shows all that can be written.
//!
//! The decisions are values, told the time and what happened: [`CoDel`] and [`AdaptiveLimit`].

mod adaptive;
mod classes;
mod concurrency;
mod cost;
mod level;
mod load;
mod queue;
mod rate;
mod reserve;
mod server_limits;
#[cfg(feature = "serde")]
mod text;

use std::sync::Arc;

use ringcall_core::method_id;

pub use adaptive::{AdaptiveConfig, AdaptiveLimit};
pub(crate) use classes::{ClassQueue, Next};
pub use concurrency::Concurrency;
pub(crate) use concurrency::{Room, Taken};
pub(crate) use cost::Cost;
pub(crate) use level::Level;
pub(crate) use load::Load;
pub use queue::{CoDel, QueueRule};
pub use rate::Rate;
pub(crate) use rate::Rates;
use reserve::Reserves;
pub use server_limits::ServerLimits;
pub(crate) use server_limits::{LimitsInForce, Served};

use super::CallerKey;
use crate::ServeError;

/// What a server refuses when there is too much to do. By default calls that wait too long in a queue that stands,
/// see [`QueueRule`]; beside that a connection may have [`Config::in_flight_max`](ringcall_core::Config::in_flight_max)
/// calls, as always.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(try_from = "text::LimitsText"))]
pub struct Limits {
    queue: Option<QueueRule>,
    concurrency: Option<Concurrency>,
    methods: Vec<(String, Concurrency)>,
    kept: Reserves,
    callers: Option<(CallerKey, u32)>,
    rates: Vec<Rate>,
}

const QUEUE_MUST: &str = "a target of more than zero, and an interval that is longer";
const CONCURRENCY_MUST: &str = "at least 1, and an adaptive one between its bounds";
const RATE_MUST: &str = "of 1 call or more, a nanosecond apart or more, with a burst of 1 or more that is there again within \
     30 days, and of 1 caller or more, by a key that metadata can have";

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            queue: Some(QueueRule::default()),
            concurrency: None,
            methods: Vec::new(),
            kept: Reserves::default(),
            callers: None,
            rates: Vec::new(),
        }
    }
}

impl Limits {
    /// The default ones.
    #[must_use]
    pub fn new() -> Limits {
        Limits::default()
    }

    /// How long calls may wait for the shard, and for the pool; with `None` as long as there are no other limits. Calls
    /// with streams do not wait for the shard.
    #[must_use]
    pub fn queue(mut self, rule: impl Into<Option<QueueRule>>) -> Limits {
        self.queue = rule.into();
        self
    }

    /// How many calls there may be that were taken and not answered, of all services together: a number, or an
    /// [`AdaptiveConfig`]. Further ones are refused at once. Each shard has its part, rounded up: with *n* shards there
    /// may be *n* - 1 more, and a connection finds its own shard's part only.
    #[must_use]
    pub fn concurrency(mut self, limit: impl Into<Concurrency>) -> Limits {
        self.concurrency = Some(limit.into());
        self
    }

    /// How many calls of a method there may be, by its full name, `package.Service/method`. They count for the
    /// limit of all as well.
    #[must_use]
    pub fn method(mut self, name: impl Into<String>, limit: impl Into<Concurrency>) -> Limits {
        let name = name.into();
        self.methods.retain(|(other, _)| *other != name);
        self.methods.push((name, limit.into()));
        self
    }

    /// Keeps so many percent of every limit of concurrency, that of all and those of methods, for calls of this
    /// priority and above. Nothing is kept by default: those that run keep their places, whatever comes. Parts for several priorities
    /// add up: with 10 % for 5 and 20 % for 1 the most ordinary calls, those of priority 0, may fill 70 %, those of
    /// 1 to 4 fill 90 %, others all. One call there may be in any case.
    ///
    /// The most ordinary calls must have something left, and four fifths where a limit is adaptive, which would
    /// otherwise take what they may not use for calls that there are not, and sink.
    #[must_use]
    pub fn reserve(mut self, priority: u8, percent: u8) -> Limits {
        self.kept.set(priority, percent);
        self
    }

    /// How many calls each caller may have that were taken and not answered; further ones are refused at once, with
    /// [`RATE_LIMITED`](ringcall_core::Status::RATE_LIMITED). They count for the other limits as well. A caller may
    /// have so many on each shard that it has connections to.
    #[must_use]
    pub fn concurrency_of_each(mut self, caller: CallerKey, calls: u32) -> Limits {
        self.callers = Some((caller, calls));
        self
    }

    /// How many calls there may be in a time, beside the rates that were given before: each call must be within all
    /// those that are for its method. What is beyond is refused at once, with
    /// [`RATE_LIMITED`](ringcall_core::Status::RATE_LIMITED) and the advice to come again when there will be room for
    /// one. Rates of callers are asked first, and what they refuse takes nothing from those of all.
    #[must_use]
    pub fn rate(mut self, rate: Rate) -> Limits {
        self.rates.push(rate);
        self
    }

    /// What counts rates, for all shards of a server, in place of what counted them before.
    pub(crate) fn rates(&self, before: Option<&Rates>) -> Option<Arc<Rates>> {
        Rates::new(&self.rates, before).map(Arc::new)
    }

    /// By what callers are told apart whose calls are counted.
    pub(crate) fn caller_key(&self) -> Option<&CallerKey> {
        self.callers.as_ref().map(|(key, _)| key)
    }

    pub(crate) fn queue_rule(&self) -> Option<QueueRule> {
        self.queue
    }

    /// The first method or service that has a limit and is not served.
    pub(crate) fn unknown(&self, served: &Served) -> Option<&str> {
        let of_rates = self.rates.iter().filter_map(Rate::method_name);
        let mut methods = self.methods.iter().map(|(name, _)| &**name).chain(of_rates);
        let mut services = self.rates.iter().filter_map(Rate::service_name);
        methods
            .find(|name| !served.has_method(name))
            .or_else(|| services.find(|name| !served.has_service(name)))
    }

    /// Where calls are counted, if there is a limit.
    pub(crate) fn taken<K: std::hash::Hash + Eq + Copy>(&self) -> Option<Taken<K>> {
        let methods = self.methods.iter().map(|(name, limit)| (method_id(name), *limit));
        let is_counted =
            self.concurrency.is_some() || !self.methods.is_empty() || self.callers.is_some();
        let of_each = self.callers.as_ref().map(|(_, calls)| *calls);
        is_counted.then(|| Taken::new(self.concurrency, methods, self.kept.clone(), of_each))
    }

    fn has_adaptive(&self) -> bool {
        let mut all = self.concurrency.iter().chain(self.methods.iter().map(|(_, limit)| limit));
        all.any(|limit| matches!(limit, Concurrency::Adaptive(_)))
    }

    /// The part of one shard of a server.
    pub(crate) fn shared_among(mut self, shards: usize) -> Limits {
        let shards = u32::try_from(shards).unwrap_or(u32::MAX);
        self.concurrency = self.concurrency.map(|limit| limit.shared_among(shards));
        self.methods.iter_mut().for_each(|(_, limit)| *limit = limit.shared_among(shards));
        self
    }

    pub(crate) fn validate(&self) -> Result<(), ServeError> {
        let methods_are_sound = self.methods.iter().all(|(_, limit)| limit.is_sound());
        let checks = [
            ("queue", QUEUE_MUST, self.queue.is_none_or(|rule| rule.is_sound())),
            (
                "concurrency",
                CONCURRENCY_MUST,
                self.concurrency.is_none_or(|limit| limit.is_sound()),
            ),
            ("method", CONCURRENCY_MUST, methods_are_sound),
            (
                "reserve",
                "of priority 1 or more and 1 percent or more, all together 99 at most, and 20 of an adaptive limit",
                self.kept.is_sound(self.has_adaptive()),
            ),
            (
                "concurrency_of_each",
                "at least 1, by a key that metadata can have",
                self.callers.as_ref().is_none_or(|(key, calls)| key.is_sound() && *calls > 0),
            ),
            ("rate", RATE_MUST, self.rates.iter().all(Rate::is_sound)),
        ];
        match checks.into_iter().find(|(_, _, holds)| !holds) {
            Some((setting, must, _)) => Err(ServeError::Limits { setting, must }),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn errors_name_the_setting() {
        assert!(Limits::default().concurrency(1).method("a.B/c", 1).validate().is_ok());
        let message = |limits: Limits| limits.validate().unwrap_err().to_string();
        assert_eq!(
            message(Limits::default().concurrency(0)),
            "`Limits::concurrency` must be at least 1, and an adaptive one between its bounds"
        );
        assert!(message(Limits::default().method("a.B/c", 0)).contains("method"));
        let rule = QueueRule::new(Duration::from_secs(1), Duration::from_millis(1));
        assert!(message(Limits::default().queue(rule)).contains("queue"));
        let config = AdaptiveConfig { start: 5000, ..AdaptiveConfig::default() };
        assert!(message(Limits::default().concurrency(config)).contains("concurrency"));
        assert!(message(Limits::default().rate(Rate::per_second(0))).contains("rate"));
        let key = CallerKey::metadata("k");
        assert!(message(Limits::default().concurrency_of_each(key, 0)).contains("of_each"));
        assert!(message(Limits::default().reserve(0, 10)).contains("reserve"));
        let half = Limits::default().concurrency(10).reserve(1, 50);
        assert!(half.validate().is_ok());
        assert!(message(half.method("a.B/c", AdaptiveConfig::default())).contains("reserve"));
    }

    #[test]
    fn a_fixed_limit_is_shared_out_and_none_gets_nothing() {
        let of = |limits: Limits| limits.shared_among(4).concurrency;
        assert_eq!(of(Limits::default().concurrency(10)), Some(Concurrency::Fixed(3)));
        assert_eq!(of(Limits::default().concurrency(1)), Some(Concurrency::Fixed(1)));
        let adaptive = AdaptiveConfig::default();
        assert_eq!(of(Limits::default().concurrency(adaptive)), Some(adaptive.into()));
    }
}
