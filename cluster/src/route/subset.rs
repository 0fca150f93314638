//! Some of the instances.

use std::sync::Arc;

use super::text::check_text;
use super::{BadRule, Caller, Text};
use crate::custom::Custom;
use crate::discovery::Instance;

/// The most conditions that a subset or a match may have.
pub(super) const CONDITIONS_MAX: usize = 16;
/// The most instances that may be named.
const NAMES_MAX: usize = 1024;

/// Some of the instances: those for which everything holds that is said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Subset {
    /// `None`: whatever their names.
    names: Option<Vec<String>>,
    conditions: Vec<Condition>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Condition {
    Version(Text),
    Group(Text),
    Zone(Text),
    Tag(String, Text),
    Alike(String),
    Custom(InstanceTest),
}

/// A test of instances that users write.
type InstanceTest = Custom<dyn Fn(&Instance, &Caller) -> bool + Send + Sync>;

impl Subset {
    pub(super) const ALL: Subset = Subset { names: None, conditions: Vec::new() };

    /// All of them.
    #[must_use]
    pub fn all() -> Subset {
        Subset::ALL
    }

    /// Those with these names: to pin calls to an instance. Without a name it is nobody, so that a list which somebody has
    /// emptied does not turn into all of them.
    #[must_use]
    pub fn named<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Subset {
        let names = names.into_iter().map(Into::into).collect();
        Subset { names: Some(names), conditions: Vec::new() }
    }

    /// Those whose version is like this.
    #[must_use]
    pub fn version(self, version: impl Into<Text>) -> Subset {
        self.and(Condition::Version(version.into()))
    }

    /// Those whose group is like this.
    #[must_use]
    pub fn group(self, group: impl Into<Text>) -> Subset {
        self.and(Condition::Group(group.into()))
    }

    /// Those whose zone is like this.
    #[must_use]
    pub fn zone(self, zone: impl Into<Text>) -> Subset {
        self.and(Condition::Zone(zone.into()))
    }

    /// Those with such a tag.
    #[must_use]
    pub fn tag(self, key: impl Into<String>, value: impl Into<Text>) -> Subset {
        self.and(Condition::Tag(key.into(), value.into()))
    }

    /// Those that have the same tag of this key as the [`Caller`]; those without one if it has none.
    #[must_use]
    pub fn alike(self, key: impl Into<String>) -> Subset {
        self.and(Condition::Alike(key.into()))
    }

    /// Those for which this test of yours holds. It is asked when rules or the list of instances change, not for each call;
    /// subsets with it equal only their clones.
    #[must_use]
    pub fn custom(
        self,
        test: impl Fn(&Instance, &Caller) -> bool + Send + Sync + 'static,
    ) -> Subset {
        self.and(Condition::Custom(Custom(Arc::new(test))))
    }

    fn and(mut self, condition: Condition) -> Subset {
        self.conditions.push(condition);
        self
    }

    /// Whether an instance is one of them, for this caller.
    #[must_use]
    pub fn contains(&self, instance: &Instance, caller: &Caller) -> bool {
        let is_named = |names: &Vec<String>| names.contains(&instance.name);
        self.names.as_ref().is_none_or(is_named)
            && self.conditions.iter().all(|condition| condition.holds(instance, caller))
    }

    pub(super) fn check(&self) -> Result<(), BadRule> {
        let names = self.names.as_deref().unwrap_or_default();
        if names.len() > NAMES_MAX || self.conditions.len() > CONDITIONS_MAX {
            return Err(BadRule::TooMuch);
        }
        names.iter().try_for_each(|name| check_text(name))?;
        self.conditions.iter().try_for_each(Condition::check)
    }
}

impl Condition {
    fn holds(&self, instance: &Instance, caller: &Caller) -> bool {
        match self {
            Condition::Version(version) => version.matches_said(&instance.version),
            Condition::Group(group) => group.matches_said(&instance.group),
            Condition::Zone(zone) => zone.matches_said(&instance.zone),
            Condition::Tag(key, value) => {
                value.matches(instance.tags.get(key).map(String::as_bytes))
            }
            Condition::Alike(key) => instance.tags.get(key) == caller.tags.get(key),
            Condition::Custom(Custom(test)) => test(instance, caller),
        }
    }

    fn check(&self) -> Result<(), BadRule> {
        match self {
            Condition::Version(text) | Condition::Group(text) | Condition::Zone(text) => {
                text.check()
            }
            Condition::Tag(key, value) => check_text(key).and_then(|()| value.check()),
            Condition::Alike(key) => check_text(key),
            Condition::Custom(_) => Ok(()),
        }
    }
}
