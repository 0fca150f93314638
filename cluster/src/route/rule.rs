//! Rules, as users write them.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::frame::is_metadata_key;
use ringcall_core::{Status, StatusClass};

use super::subset::CONDITIONS_MAX;
use super::text::check_text;
use super::{Asked, Subset, Text};
use crate::custom::Custom;

/// The most rules that may be in force.
const RULES_MAX: usize = 128;
/// The most lanes of a route, and routes of a split.
const LANES_MAX: usize = 16;
const DELAY_MAX: Duration = Duration::from_secs(3600);

/// Rules in order, with a version: those in force are only replaced by those that are not older.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "crate::text::RulesText")
)]
pub struct Rules {
    version: u64,
    rules: Vec<Rule>,
}

/// Which calls it is about, and what becomes of them.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields))]
pub struct Rule {
    pub(super) name: String,
    #[cfg_attr(feature = "serde", serde(default))]
    pub(super) when: Match,
    pub(super) then: Action,
}

impl Rules {
    /// No rules yet.
    #[must_use]
    pub fn new(version: u64) -> Rules {
        Rules { version, rules: Vec::new() }
    }

    /// The same with one more at the end.
    #[must_use]
    pub fn with(mut self, rule: Rule) -> Rules {
        self.rules.push(rule);
        self
    }

    /// Their version.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.version
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    pub(super) fn list(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether they make sense: at most 128, each with a name of its own, within the bounds of what it is made of.
    ///
    /// # Errors
    /// The first rule that does not.
    pub fn check(&self) -> Result<(), BadRules> {
        if self.rules.len() > RULES_MAX {
            return Err(BadRules::TooMany);
        }
        let mut names = BTreeSet::new();
        for rule in &self.rules {
            let is_new = names.insert(&rule.name);
            let checked = if is_new { rule.check() } else { Err(BadRule::Name) };
            checked.map_err(|what| BadRules::Rule { name: rule.name.clone(), what })?;
        }
        Ok(())
    }
}

impl Rule {
    /// A rule. Its name is what explanations say, and decides with a value which calls belong to a share.
    #[must_use]
    pub fn new(name: impl Into<String>, when: Match, then: Action) -> Rule {
        Rule { name: name.into(), when, then }
    }

    fn check(&self) -> Result<(), BadRule> {
        check_text(&self.name)?;
        self.when.check()?;
        self.then.check()
    }
}

/// Which calls a rule is about: those for which everything holds that is said.
#[derive(Clone, Debug, Default, PartialEq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "crate::text::MatchText")
)]
pub struct Match {
    pub(super) method: Option<Methods>,
    pub(super) conditions: Vec<Condition>,
    pub(super) share: Option<Share>,
}

/// Of which methods.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Methods {
    Service(String),
    Is(String),
    Begin(String),
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Condition {
    Metadata(String, Text),
    Tag(String, Text),
    Field(String, Text),
    Number(String, RangeInclusive<u64>),
    Custom(CallTest),
}

/// A test of calls that users write.
pub(super) type CallTest = Custom<dyn Fn(&Asked<'_>) -> bool + Send + Sync>;

impl CallTest {
    /// Apart, so that conditions of others stay where they are looked at.
    #[cold]
    pub(super) fn holds(&self, asked: &Asked<'_>) -> bool {
        (self.0)(asked)
    }
}

/// So many of ten thousand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Share {
    pub(super) per_10_000: u32,
    pub(super) by: By,
}

/// What decides which calls belong to a share.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum By {
    /// Chance, for each call.
    Chance,
    /// What the call is about, see [`Balanced::keyed`](crate::Balanced::keyed). Without that, chance.
    Key,
    /// The first value of a key of metadata. Without one, chance.
    Metadata(String),
    /// A field of the argument, see [`Fields`](super::Fields). Without it, chance.
    Field(String),
}

impl Match {
    /// All calls.
    #[must_use]
    pub fn all() -> Match {
        Match::default()
    }

    /// Of this service: `package.Service`.
    #[must_use]
    pub fn service(self, name: impl Into<String>) -> Match {
        Match { method: Some(Methods::Service(name.into())), ..self }
    }

    /// Of this method: `package.Service/method`.
    #[must_use]
    pub fn method(self, name: impl Into<String>) -> Match {
        Match { method: Some(Methods::Is(name.into())), ..self }
    }

    /// Of the methods whose name, `package.Service/method`, begins like this.
    #[must_use]
    pub fn methods(self, begin: impl Into<String>) -> Match {
        Match { method: Some(Methods::Begin(begin.into())), ..self }
    }

    /// With this metadata: the first value of the key counts.
    #[must_use]
    pub fn metadata(self, key: impl Into<String>, value: impl Into<Text>) -> Match {
        self.and(Condition::Metadata(key.into(), value.into()))
    }

    /// Of callers with this tag, see [`Caller`](super::Caller).
    #[must_use]
    pub fn tag(self, key: impl Into<String>, value: impl Into<Text>) -> Match {
        self.and(Condition::Tag(key.into(), value.into()))
    }

    /// With this field of the argument, see [`Fields`](super::Fields). A number is compared as its decimal digits.
    #[must_use]
    pub fn field(self, name: impl Into<String>, value: impl Into<Text>) -> Match {
        self.and(Condition::Field(name.into(), value.into()))
    }

    /// With a field of the argument that is a number in this range.
    #[must_use]
    pub fn number(self, name: impl Into<String>, range: RangeInclusive<u64>) -> Match {
        self.and(Condition::Number(name.into(), range))
    }

    /// For which this test of yours holds. It is asked once a call, while the channel waits, so it must be quick; rules
    /// with it equal only their clones.
    #[must_use]
    pub fn custom(self, test: impl Fn(&Asked<'_>) -> bool + Send + Sync + 'static) -> Match {
        self.and(Condition::Custom(Custom(Arc::new(test))))
    }

    /// So many in a hundred of those that are left.
    #[must_use]
    pub fn percent(self, percent: u32, by: By) -> Match {
        self.per_10_000(percent.saturating_mul(100), by)
    }

    /// So many in ten thousand of those that are left.
    #[must_use]
    pub fn per_10_000(self, per_10_000: u32, by: By) -> Match {
        Match { share: Some(Share { per_10_000, by }), ..self }
    }

    fn and(mut self, condition: Condition) -> Match {
        self.conditions.push(condition);
        self
    }

    fn check(&self) -> Result<(), BadRule> {
        if let Some(Methods::Service(name) | Methods::Is(name) | Methods::Begin(name)) =
            &self.method
        {
            check_text(name)?;
        }
        if self.conditions.len() > CONDITIONS_MAX {
            return Err(BadRule::TooMuch);
        }
        self.conditions.iter().try_for_each(Condition::check)?;
        match &self.share {
            Some(share) if share.per_10_000 > 10_000 => Err(BadRule::Share),
            Some(share) => share.by.check(),
            None => Ok(()),
        }
    }
}

impl Condition {
    fn check(&self) -> Result<(), BadRule> {
        match self {
            Condition::Metadata(key, value) => check_key(key).and_then(|()| value.check()),
            Condition::Tag(key, value) | Condition::Field(key, value) => {
                check_text(key).and_then(|()| value.check())
            }
            Condition::Number(key, range) if !range.is_empty() => check_text(key),
            Condition::Number(..) => Err(BadRule::Range),
            Condition::Custom(_) => Ok(()),
        }
    }
}

impl By {
    fn check(&self) -> Result<(), BadRule> {
        match self {
            By::Chance | By::Key => Ok(()),
            By::Metadata(key) => check_key(key),
            By::Field(name) => check_text(name),
        }
    }
}

fn check_key(key: &str) -> Result<(), BadRule> {
    if is_metadata_key(key) { Ok(()) } else { Err(BadRule::Key) }
}

/// What becomes of a call.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum Action {
    /// It goes to one of these routes, as often as their weights say: the second part says which calls belong
    /// together. See [`Action::route`] and [`Action::split`].
    Split(Vec<(u32, Route)>, By),
    /// It goes to none of these instances, whatever else is said. Later rules hold for it, too.
    Exclude(Subset),
    /// A copy of it goes to one of these instances as well, which may be the one that it goes to itself: exclude them if
    /// they are for copies only. The copy has the call's argument, metadata and deadline, and says whose it is by the
    /// metadata `mirrored-by`, the rule's name. Nobody hears what becomes of it. Later rules hold for the call, too; of
    /// several copies the first is made.
    Mirror(Subset),
    /// It is not made, and fails with this status, which must be of the class *refused*. It was not sent.
    Deny(Status),
    /// It waits before it is made, an hour at most. Later rules hold for it, too; of several delays the first
    /// counts.
    Delay(Duration),
}

impl Action {
    /// It goes there.
    #[must_use]
    pub fn route(route: Route) -> Action {
        Action::Split(vec![(1, route)], By::Chance)
    }

    /// It goes to one of these routes, as often as their weights say.
    #[must_use]
    pub fn split(routes: impl IntoIterator<Item = (u32, Route)>, by: By) -> Action {
        Action::Split(routes.into_iter().collect(), by)
    }

    fn check(&self) -> Result<(), BadRule> {
        match self {
            Action::Split(routes, by) => {
                let total =
                    routes.iter().try_fold(0u32, |sum, (weight, _)| sum.checked_add(*weight));
                if routes.len() > LANES_MAX || total.is_none_or(|total| total == 0) {
                    return Err(BadRule::Split);
                }
                by.check()?;
                routes.iter().try_for_each(|(_, route)| route.check())
            }
            Action::Exclude(subset) | Action::Mirror(subset) => subset.check(),
            Action::Deny(status) if status.class() == StatusClass::Refused => Ok(()),
            Action::Deny(_) => Err(BadRule::Status),
            Action::Delay(time) if *time <= DELAY_MAX => Ok(()),
            Action::Delay(_) => Err(BadRule::Delay),
        }
    }
}

/// Where calls go: to the first of its lanes that has an instance which can be called.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(
    feature = "serde",
    derive(serde::Deserialize),
    serde(try_from = "crate::text::RouteText")
)]
pub struct Route {
    pub(super) lanes: Vec<Subset>,
}

impl Route {
    /// There.
    #[must_use]
    pub fn to(lane: Subset) -> Route {
        Route { lanes: vec![lane] }
    }

    /// Or else there.
    #[must_use]
    pub fn or(mut self, lane: Subset) -> Route {
        self.lanes.push(lane);
        self
    }

    /// Or else anywhere.
    #[must_use]
    pub fn or_any(self) -> Route {
        self.or(Subset::all())
    }

    fn check(&self) -> Result<(), BadRule> {
        if self.lanes.len() > LANES_MAX {
            return Err(BadRule::TooMuch);
        }
        self.lanes.iter().try_for_each(Subset::check)
    }
}

/// Why rules are not put in force.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadRules {
    /// Those in force have a larger version.
    Older {
        /// The version of those in force.
        in_force: u64,
    },
    /// There are more than 128.
    TooMany,
    /// One of them makes no sense.
    Rule {
        /// Which one.
        name: String,
        /// Why.
        what: BadRule,
    },
}

/// Why a rule makes no sense.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadRule {
    /// Another one has its name.
    Name,
    /// A text is empty, or longer than 256 bytes.
    Text,
    /// A key that metadata cannot have.
    Key,
    /// A range without numbers.
    Range,
    /// A share of more than the whole.
    Share,
    /// A split without routes or weights, with more than 16 routes, or with weights that are too large.
    Split,
    /// A status that does not say that the call was refused.
    Status,
    /// A delay of more than an hour.
    Delay,
    /// More than 16 conditions or lanes, or 1024 names.
    TooMuch,
}

impl fmt::Display for BadRules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadRules::Older { in_force } => write!(f, "rules of version {in_force} are in force"),
            BadRules::TooMany => f.write_str("there are more than 128 rules"),
            BadRules::Rule { name, what } => write!(f, "the rule {name:?}: {what}"),
        }
    }
}

impl std::error::Error for BadRules {}

impl fmt::Display for BadRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BadRule::Name => "another one has its name",
            BadRule::Text => "a text is empty, or longer than 256 bytes",
            BadRule::Key => "metadata cannot have such a key",
            BadRule::Range => "a range has no numbers",
            BadRule::Share => "a share is more than the whole",
            BadRule::Split => "a split has no routes, too many, or weights that do not add up",
            BadRule::Status => "its status does not say that the call was refused",
            BadRule::Delay => "a delay is more than an hour",
            BadRule::TooMuch => "it has more than 16 conditions or lanes, or 1024 names",
        })
    }
}

impl std::error::Error for BadRule {}
