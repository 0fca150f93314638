//! What is said of whoever calls.

use std::collections::BTreeMap;

/// What is said of the process that calls, for rules, groups and zones to go by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Caller {
    /// Where it runs, as instances say it; may be empty.
    pub zone: String,
    /// What else is said of it.
    pub tags: BTreeMap<String, String>,
}

impl Caller {
    /// One in this zone.
    #[must_use]
    pub fn in_zone(zone: impl Into<String>) -> Caller {
        Caller { zone: zone.into(), ..Caller::default() }
    }

    /// The same with a tag.
    #[must_use]
    pub fn with_tag(mut self, key: impl Into<String>, value: impl Into<String>) -> Caller {
        self.tags.insert(key.into(), value.into());
        self
    }
}

/// Which groups of instances calls go to: of the group that a call asks for, or else the caller's own; and if none of
/// these can be called, of the first fallback group that has some.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct Groups {
    /// The group that is asked for by calls that do not ask for one themselves. Empty: the instances that say none.
    pub own: String,
    /// In this order.
    #[cfg_attr(feature = "serde", serde(default))]
    pub fallbacks: Vec<String>,
    /// Rather any instance than none.
    #[cfg_attr(feature = "serde", serde(default))]
    pub or_any: bool,
}

impl Groups {
    /// A caller of this group.
    #[must_use]
    pub fn of(own: impl Into<String>) -> Groups {
        Groups { own: own.into(), fallbacks: Vec::new(), or_any: false }
    }

    /// A further fallback group.
    #[must_use]
    pub fn or(mut self, group: impl Into<String>) -> Groups {
        self.fallbacks.push(group.into());
        self
    }

    /// Rather any instance than none.
    #[must_use]
    pub fn or_any(self) -> Groups {
        Groups { or_any: true, ..self }
    }
}

/// When calls leave the caller's zone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct Zones {
    /// With less than this share of the zone's instances well, in percent, some calls go to other zones: 70.
    pub spill_percent: u32,
    /// With fewer instances in the zone than this, all calls may go to any: 1.
    pub instances_min: u32,
}

impl Default for Zones {
    fn default() -> Zones {
        Zones { spill_percent: 70, instances_min: 1 }
    }
}
