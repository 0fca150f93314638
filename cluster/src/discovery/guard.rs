//! What a source says is not believed when too much is gone at once.
//!
//! A source that lost its memory, or its own connections, says that instances are gone which are not. So
//! when a list turns empty, or more than a share of it vanishes within a window, those that vanished are
//! held in the list: until they are heard of again, until calls to them fail, or until time has passed.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::Instant;

use super::registry::INSTANCES_MAX;
use super::{Instance, Invalid, Refusal};

/// What is believed of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct GuardConfig {
    /// What share of a list may vanish within `window`, in percent: 15 (Eureka). One instance always may.
    pub vanish_percent: u32,
    /// In which time: 60 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub window: Duration,
    /// How long instances are held: 10 min. Never the last ones: a list does not turn empty with time, and their time
    /// begins when it has others again.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub hold: Duration,
}

impl Default for GuardConfig {
    fn default() -> GuardConfig {
        GuardConfig {
            vanish_percent: 15,
            window: Duration::from_secs(60),
            hold: Duration::from_secs(600),
        }
    }
}

/// Something about a source that somebody should know.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Alarm {
    /// It has said that there is no instance any more; the last ones are held.
    Empty,
    /// So many instances have vanished at once, of so many; they are held.
    Vanished {
        /// Those that are held now.
        held: usize,
        /// How many there were.
        of: usize,
    },
    /// It cannot say anything, for this reason; what it said last counts.
    Outage(String),
    /// It has said things of an instance that cannot be, which are left out: the instance, if it has said all that there is;
    /// if it has said what has changed, what it said before counts.
    Invalid {
        /// Which instance.
        name: String,
        /// What is wrong.
        why: Invalid,
    },
    /// An update was not merged.
    Refused(Refusal),
    /// An instance comes and goes: it is left out until it has been there for a while. Said once for each time that it is left
    /// out.
    Flapping {
        /// Which instance.
        name: String,
        /// For how long, if it does not go again.
        time: Duration,
    },
    /// It has instances, and none of the service that is wanted: one of the names may be wrong. Said once, until it has one.
    OtherServices {
        /// Which service is wanted.
        wanted: String,
        /// How many instances there are.
        instances: usize,
        /// Of which services they are, the first few.
        services: Vec<String>,
    },
}

impl fmt::Display for Alarm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Alarm::Empty => {
                f.write_str("the source has no instance any more; the last ones are held")
            }
            Alarm::Vanished { held, of } => {
                write!(f, "{held} of {of} instances vanished at once; they are held")
            }
            Alarm::Outage(reason) => {
                write!(f, "the source cannot be asked, what it said last counts: {reason}")
            }
            Alarm::Invalid { name, why } => {
                write!(f, "the instance {name:?} is left out: {why}")
            }
            Alarm::Refused(refusal) => write!(f, "an update was refused: {refusal}"),
            Alarm::Flapping { name, time } => {
                let seconds = time.as_secs_f64();
                write!(f, "the instance {name:?} comes and goes: it is left out for {seconds:.1} s")
            }
            Alarm::OtherServices { wanted, instances, services } => write!(
                f,
                "the source has {instances} instances, none of them of the service {wanted:?}; there is: {}",
                services.join(", ")
            ),
        }
    }
}

/// Who is held, and since when.
#[derive(Debug)]
pub(super) struct Guard {
    config: GuardConfig,
    held: BTreeMap<String, (Arc<Instance>, Instant)>,
    /// When instances vanished and were let go, oldest first.
    let_go: VecDeque<Instant>,
    /// There is nobody but those that are held.
    is_last: bool,
}

impl Guard {
    pub(super) fn new(config: GuardConfig) -> Guard {
        Guard { config, held: BTreeMap::new(), let_go: VecDeque::new(), is_last: false }
    }

    /// Believes this much from now on. Who is held stays so, for as long as this says.
    pub(super) fn configure(&mut self, config: GuardConfig) {
        self.config = config;
    }

    /// What is shown instead of `present`, where `shown` was before. `present` may gain those that are held.
    pub(super) fn judge(
        &mut self,
        now: Instant,
        shown: &BTreeMap<String, Arc<Instance>>,
        present: &mut BTreeMap<String, Arc<Instance>>,
    ) -> Option<Alarm> {
        self.held.retain(|name, _| !present.contains_key(name));
        let is_empty = present.is_empty();
        if std::mem::replace(&mut self.is_last, is_empty) && !is_empty {
            // The source begins to remember. Whoever it has not come to yet was held for want of anybody else,
            // however long that took; only now does time count.
            self.held.values_mut().for_each(|(_, since)| *since = now);
        }
        let alarm = self.hold_missing(now, shown, present);
        if !is_empty {
            let hold = self.config.hold;
            self.held.retain(|_, (_, since)| now.since(*since) < hold);
        }
        self.bound(INSTANCES_MAX.saturating_sub(present.len()));
        present.extend(self.held.iter().map(|(name, (it, _))| (name.clone(), Arc::clone(it))));
        alarm
    }

    /// Holds those that are gone, or lets them go if they are few.
    fn hold_missing(
        &mut self,
        now: Instant,
        shown: &BTreeMap<String, Arc<Instance>>,
        present: &BTreeMap<String, Arc<Instance>>,
    ) -> Option<Alarm> {
        while self.let_go.front().is_some_and(|at| now.since(*at) >= self.config.window) {
            self.let_go.pop_front();
        }
        let is_new = |name: &String| !present.contains_key(name) && !self.held.contains_key(name);
        let missing: Vec<&String> = shown.keys().filter(|name| is_new(name)).collect();
        let share = shown.len() * self.config.vanish_percent as usize / 100;
        let may_go = share.max(1).saturating_sub(self.let_go.len());
        if missing.is_empty() || (!present.is_empty() && missing.len() <= may_go) {
            self.let_go.extend(missing.iter().map(|_| now));
            return None;
        }
        for name in &missing {
            self.held.insert((*name).clone(), (Arc::clone(&shown[*name]), now));
        }
        let (held, of) = (self.held.len(), shown.len());
        Some(if present.is_empty() { Alarm::Empty } else { Alarm::Vanished { held, of } })
    }

    /// Lets go of those that were held longest, so that at most `max` are left. Or a source whose instances all
    /// have new names each time would fill the list.
    fn bound(&mut self, max: usize) {
        if self.held.len() <= max {
            return;
        }
        let mut since: Vec<(Instant, String)> =
            self.held.iter().map(|(name, (_, since))| (*since, name.clone())).collect();
        since.sort_unstable();
        for (_, name) in &since[..since.len() - max] {
            self.held.remove(name);
        }
    }

    /// Holds what was there before the source was ever heard.
    pub(super) fn restore(&mut self, now: Instant, instances: &[Arc<Instance>]) {
        self.held = instances.iter().map(|it| (it.name.clone(), (Arc::clone(it), now))).collect();
        self.is_last = true;
    }

    /// Lets go of all that was restored.
    pub(super) fn forget(&mut self) {
        self.held.clear();
    }

    /// An instance does not answer; says whether it was held, and is not any more.
    pub(super) fn release(&mut self, name: &str) -> bool {
        self.held.remove(name).is_some()
    }

    pub(super) fn is_held(&self, name: &str) -> bool {
        self.held.contains_key(name)
    }

    /// When the next one has been held long enough.
    pub(super) fn next(&self) -> Option<Instant> {
        if self.is_last {
            return None;
        }
        self.held.values().map(|(_, since)| *since + self.config.hold).min()
    }
}
