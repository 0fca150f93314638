//! What would become of a call.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{SplitMix64, Status};

use super::{Action, Asked, BadRules, Ranks, Router, Rules, Sample, Verdict};
use crate::discovery::Instance;
use crate::settings::Settings;

/// What rules make of a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Trace {
    /// The version of the rules.
    pub version: u64,
    /// The names of the rules that it meets, in order: the last one may end the search.
    pub met: Vec<String>,
    /// How it is denied.
    pub denied: Option<Status>,
    /// How long it waits before it is made.
    pub delay: Option<Duration>,
    /// The instances of which one gets a copy, if one can be called.
    pub mirrored: Vec<String>,
    /// Each instance: its name, and in which lane it is, 0 the first; or why it is in none. With groups, lanes of the
    /// group that is asked for come first, then those of each fallback group; each priority is a lane of its own.
    pub instances: Vec<(String, Result<usize, Dropped>)>,
}

/// Why a call does not go to an instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Dropped {
    /// This rule excludes it.
    Excluded(String),
    /// It is in none of the lanes of this rule.
    NotIn(String),
    /// It is in another group.
    OtherGroup,
}

impl fmt::Display for Dropped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Dropped::Excluded(rule) => write!(f, "excluded by {rule:?}"),
            Dropped::NotIn(rule) => write!(f, "not in a lane of {rule:?}"),
            Dropped::OtherGroup => f.write_str("in another group"),
        }
    }
}

impl Rules {
    /// What they would make of a call, by the caller, the groups and the fields of these settings. Where chance
    /// decides, the seed does.
    ///
    /// # Errors
    /// When they make no sense.
    pub fn dry_run<'a>(
        &self,
        settings: &Settings,
        call: &Sample,
        seed: u64,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) -> Result<Trace, BadRules> {
        self.check()?;
        let router = Router::new(&Arc::new(self.clone()), settings);
        Ok(router.trace(&call.asked(), &mut SplitMix64::new(seed), instances))
    }
}

impl Router {
    pub(crate) fn trace<'a>(
        &self,
        asked: &Asked<'_>,
        rng: &mut SplitMix64,
        instances: impl IntoIterator<Item = &'a Instance>,
    ) -> Trace {
        let mut met = Vec::new();
        let verdict = self.decide(&self.relevant(asked), asked, rng, |rule| {
            met.push(self.rule_name(rule).to_owned());
        });
        let instances: Vec<&Instance> = instances.into_iter().collect();
        let ranks = Ranks::of(instances.iter().copied());
        let where_is = |instance: &Instance| {
            let lane = self.lane_of(&verdict, asked, instance);
            let lane = lane.map(|lane| lane * ranks.count() + ranks.rank(instance));
            (instance.name.clone(), lane)
        };
        Trace {
            version: self.rules.version(),
            met,
            denied: verdict.denied.map(|(_, status)| status),
            delay: verdict.delay,
            mirrored: self.mirrored_to(&verdict, &instances),
            instances: instances.into_iter().map(where_is).collect(),
        }
    }

    fn mirrored_to(&self, verdict: &Verdict, instances: &[&Instance]) -> Vec<String> {
        let wanted = self.mirrored().find(|(rule, _)| Some(*rule) == verdict.mirror);
        let Some((_, subset)) = wanted else { return Vec::new() };
        let found = instances.iter().filter(|it| self.is_in(subset, it));
        found.map(|it| it.name.clone()).collect()
    }

    /// In which lane of a call an instance is.
    fn lane_of(
        &self,
        verdict: &Verdict,
        asked: &Asked<'_>,
        instance: &Instance,
    ) -> Result<usize, Dropped> {
        for (index, rule) in self.rules.list().iter().enumerate() {
            let is_met = verdict.excludes >> index & 1 == 1;
            if is_met && matches!(&rule.then, Action::Exclude(it) if self.is_in(it, instance)) {
                return Err(Dropped::Excluded(rule.name.clone()));
            }
        }
        let group = self.group_of(asked, instance).ok_or(Dropped::OtherGroup)?;
        let lanes = self.lanes(verdict.route);
        let lane = lanes.iter().position(|lane| self.is_in(lane, instance));
        lane.map(|lane| group * lanes.len() + lane).ok_or_else(|| {
            let (rule, _) = self.routes[usize::from(verdict.route.unwrap_or_default())];
            Dropped::NotIn(self.rule_name(rule).to_owned())
        })
    }

    /// The how manieth group of a call the instance is in.
    fn group_of(&self, asked: &Asked<'_>, instance: &Instance) -> Option<usize> {
        let Some(groups) = &self.groups else { return Some(0) };
        let first = asked.group().unwrap_or(&groups.own);
        let fallbacks = groups.fallbacks.iter().map(String::as_str);
        let found = std::iter::once(first).chain(fallbacks).position(|it| it == instance.group);
        found.or_else(|| groups.or_any.then_some(groups.fallbacks.len() + 1))
    }
}
