//! The list of instances that is called, and how it changes.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::Instant;

use super::damping::Damping;
use super::guard::Guard;
use super::{
    Alarm, Change, DampingConfig, GuardConfig, Instance, Registry, Revision, Update, Wanted,
};
use crate::settings::{BadSetting, percent, time, time_or_none};

/// How many alarms are kept for whoever asks; later ones are dropped.
const ALARMS_MAX: usize = 64;
/// How many other services are told of, where there are none of the one that is wanted.
const OTHERS_MAX: usize = 5;

/// An instance of a listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The instance.
    pub instance: Arc<Instance>,
    /// Since when it has been registered. [`Instant::ZERO`], long ago, if nobody knows: those that were
    /// there when this side started are not taken for new.
    pub since: Instant,
    /// The source does not have it any more, see [`GuardConfig`].
    pub is_held: bool,
}

/// Instances to call, by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// Larger for each listing of the same [`Discovery`]. Who takes over from another one counts on from
    /// [`Balanced::version`](crate::Balanced::version).
    pub version: u64,
    /// What its source had said last, as the source counts: the same for everybody who asks one registry. A request of a
    /// channel with groups says its number beside the group that it goes to
    /// ([`REAL_GROUP`](ringcall_core::frame::tag::REAL_GROUP)).
    pub revision: Revision,
    /// The instances; cheap to clone.
    pub instances: Arc<[Listed]>,
}

impl Listing {
    /// A listing that somebody makes by hand, of instances that have been there for long. Its version is its revision, too.
    #[must_use]
    pub fn of(version: u64, instances: impl IntoIterator<Item = Instance>) -> Listing {
        let listed = |it| Listed { instance: Arc::new(it), since: Instant::ZERO, is_held: false };
        let mut instances: Vec<Listed> = instances.into_iter().map(listed).collect();
        instances.sort_by(|one, other| one.instance.name.cmp(&other.instance.name));
        let revision = Revision { epoch: 0, number: version };
        Listing { version, revision, instances: instances.into() }
    }
}

/// How a list is kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiscoveryConfig {
    /// What is believed.
    pub guard: GuardConfig,
    /// How fast it changes.
    pub damping: DampingConfig,
}

impl DiscoveryConfig {
    /// Whether it makes sense.
    ///
    /// # Errors
    /// The first setting that does not.
    pub fn check(&self) -> Result<(), BadSetting> {
        percent("guard.vanish_percent", self.guard.vanish_percent)?;
        time("guard.window", self.guard.window)?;
        time("guard.hold", self.guard.hold)?;
        time_or_none("damping.quiet", self.damping.quiet)?;
        time_or_none("damping.quiet_max", self.damping.quiet_max)?;
        time("damping.half_life", self.damping.half_life)
    }
}

/// Keeps the list of the instances that are wanted, out of what a source says.
///
/// `handle_*` takes something in, [`poll_listing`](Discovery::poll_listing) and
/// [`poll_alarm`](Discovery::poll_alarm) give something out; call
/// [`handle_timeout`](Discovery::handle_timeout) when [`poll_timeout`](Discovery::poll_timeout) says.
#[derive(Debug)]
pub struct Discovery {
    wanted: Wanted,
    quiet: Duration,
    quiet_max: Duration,
    registry: Registry,
    damping: Damping,
    guard: Guard,
    /// What the source has, of what is wanted.
    present: BTreeMap<String, Arc<Instance>>,
    born: BTreeMap<String, Instant>,
    shown: BTreeMap<String, Arc<Instance>>,
    /// The list is what was restored, and the source has not said yet what there is.
    is_restored: bool,
    /// The source has said once what there is, not only what has changed.
    is_heard: bool,
    /// When something changed that is not shown yet: first, and last.
    dirty: Option<(Instant, Instant)>,
    listing: Listing,
    is_new: bool,
    alarms: VecDeque<Alarm>,
    /// Those that come and go, of which somebody was told.
    left_out: BTreeSet<String>,
    /// Instances that somebody was told are not valid, and that were not since.
    invalid: BTreeSet<String>,
    /// Somebody was told that the source has other services only.
    has_told_of_others: bool,
}

impl Discovery {
    /// Nothing has been heard yet.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn new(wanted: Wanted, config: DiscoveryConfig) -> Result<Discovery, BadSetting> {
        config.check()?;
        Ok(Discovery {
            wanted,
            quiet: config.damping.quiet,
            quiet_max: config.damping.quiet_max,
            registry: Registry::new(),
            damping: Damping::new(&config.damping),
            guard: Guard::new(config.guard),
            present: BTreeMap::new(),
            born: BTreeMap::new(),
            shown: BTreeMap::new(),
            is_restored: false,
            is_heard: false,
            dirty: None,
            listing: Listing::default(),
            is_new: false,
            alarms: VecDeque::new(),
            left_out: BTreeSet::new(),
            invalid: BTreeSet::new(),
            has_told_of_others: false,
        })
    }

    /// Replaces the settings. What was heard stays, and so do those that are held, left out or not shown yet: from now on
    /// their time is what these say.
    ///
    /// # Errors
    /// When a setting makes no sense; nothing is changed then.
    pub fn configure(&mut self, now: Instant, config: DiscoveryConfig) -> Result<(), BadSetting> {
        config.check()?;
        (self.quiet, self.quiet_max) = (config.damping.quiet, config.damping.quiet_max);
        self.damping.configure(now, &config.damping);
        self.guard.configure(config.guard);
        Ok(())
    }

    /// Begins with what was known before this process started. It counts until the source is heard, and
    /// longer if that has nothing.
    pub fn restore(&mut self, now: Instant, instances: impl IntoIterator<Item = Instance>) {
        let wanted = instances.into_iter().filter(|it| self.wanted.matches(it));
        let valid: Vec<Arc<Instance>> =
            wanted.filter(|it| it.check().is_ok()).map(Arc::new).collect();
        if self.listing.version == 0 && !valid.is_empty() {
            self.guard.restore(now, &valid);
            self.is_restored = true;
            self.rebuild(now);
        }
    }

    /// The source has said something.
    pub fn handle_update(&mut self, now: Instant, update: Update) {
        let is_snapshot = matches!(update, Update::Snapshot { .. });
        let (merged, clock_ms) = match update {
            Update::Outage(reason) => return self.alarm(Alarm::Outage(reason)),
            Update::Snapshot { mut snapshot, clock_ms } => {
                self.look_for_ours(&snapshot.instances);
                let told = std::mem::take(&mut self.invalid);
                snapshot
                    .instances
                    .retain(|it| self.is_ours(&it.service) && self.is_valid(it, &told));
                (self.registry.merge_snapshot(snapshot), clock_ms)
            }
            Update::Delta { mut delta, clock_ms } => {
                delta.changes.retain(|change| {
                    let put = match change {
                        Change::Put(instance) => Some(instance),
                        Change::Removed { .. } => None,
                    };
                    let is_valid = put.is_none_or(|it| self.is_valid(it, &BTreeSet::new()));
                    self.is_ours(change.service()) && is_valid
                });
                (self.registry.merge_delta(delta), clock_ms)
            }
        };
        match merged {
            Ok(()) => self.compare(now, clock_ms, is_snapshot),
            Err(refusal) => self.alarm(Alarm::Refused(refusal)),
        }
    }

    /// Says so if there are instances, but none of the service that is wanted: a misspelled name looks like a source that
    /// has nothing.
    fn look_for_ours(&mut self, instances: &[Instance]) {
        let has_ours = instances.iter().any(|it| self.is_ours(&it.service));
        let is_odd = !has_ours && !instances.is_empty();
        if std::mem::replace(&mut self.has_told_of_others, is_odd) || !is_odd {
            return;
        }
        let others: BTreeSet<&str> = instances.iter().map(|it| &*it.service).collect();
        let short = |name: &str| name.chars().take(64).collect();
        self.alarm(Alarm::OtherServices {
            wanted: self.wanted.service.clone(),
            instances: instances.len(),
            services: others.into_iter().take(OTHERS_MAX).map(short).collect(),
        });
    }

    /// Other services are not kept at all. Groups and versions that are not wanted are: an instance may come to be
    /// of another one, and must be known to have left.
    fn is_ours(&self, service: &str) -> bool {
        service == self.wanted.service
    }

    /// Calls to an instance fail as if nobody were there. If the source does not have it either, it goes.
    pub fn handle_dead(&mut self, now: Instant, name: &str) {
        if self.guard.release(name) {
            self.shown.remove(name);
            self.rebuild(now);
        }
    }

    /// When to call [`handle_timeout`](Discovery::handle_timeout).
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let due = self.dirty.map(|(first, last)| (last + self.quiet).min(first + self.quiet_max));
        [due, self.damping.next(), self.guard.next()].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Instant) {
        if self.poll_timeout().is_some_and(|at| at <= now) {
            self.rebuild(now);
        }
    }

    /// The list, if it has changed since it was last taken.
    pub fn poll_listing(&mut self) -> Option<Listing> {
        std::mem::take(&mut self.is_new).then(|| self.listing.clone())
    }

    /// The list as it is.
    #[must_use]
    pub fn listing(&self) -> &Listing {
        &self.listing
    }

    /// Something that somebody should know.
    pub fn poll_alarm(&mut self) -> Option<Alarm> {
        self.alarms.pop_front()
    }

    /// Whether an instance makes sense. If not, somebody is told, unless they were already.
    fn is_valid(&mut self, instance: &Instance, told: &BTreeSet<String>) -> bool {
        let Err(why) = instance.check() else { return true };
        let name: String = instance.name.chars().take(64).collect();
        if self.invalid.len() < ALARMS_MAX
            && self.invalid.insert(name.clone())
            && !told.contains(&name)
        {
            self.alarm(Alarm::Invalid { name, why });
        }
        false
    }

    fn alarm(&mut self, alarm: Alarm) {
        if self.alarms.len() < ALARMS_MAX {
            self.alarms.push_back(alarm);
        }
    }

    /// What is present may have changed.
    fn compare(&mut self, now: Instant, clock_ms: Option<u64>, is_snapshot: bool) {
        let wanted = self.registry.instances().filter(|it| self.wanted.matches(it));
        let present: BTreeMap<_, _> = wanted.map(|it| (it.name.clone(), Arc::clone(it))).collect();
        // What a source has when it is first heard may have been there for long.
        let is_first = self.born.is_empty();
        let may_be_old = is_first || (is_snapshot && !self.is_heard);
        self.is_heard |= is_snapshot;
        for name in self.present.keys().filter(|name| !present.contains_key(*name)) {
            self.damping.lost(now, name);
        }
        for (name, instance) in &present {
            let before = self.present.get(name);
            if before.is_some_and(|before| before.registered_ms == instance.registered_ms) {
                continue;
            }
            match born(now, instance.registered_ms, clock_ms) {
                // It was started again, also if it was held, or never missed.
                Some(since) => drop(self.born.insert(name.clone(), since)),
                // One that was held was there all the time.
                None => {
                    let unsaid = if may_be_old { Instant::ZERO } else { now };
                    self.born.entry(name.clone()).or_insert(unsaid);
                }
            }
        }
        let is_better = self.is_restored && is_snapshot && !present.is_empty();
        if is_better {
            // What was restored is not held for want of anything better any more. But it was there, so what the source
            // does not have of it is judged as if it had vanished: a source that was started again, too, may know half.
            self.is_restored = false;
            self.guard.forget();
        }
        let is_changed = present != self.present || self.has_left().next().is_some();
        self.present = present;
        if self.listing.version == 0 || is_first || is_better {
            self.rebuild(now);
        } else if is_changed {
            self.dirty = Some((self.dirty.map_or(now, |(first, _)| first), now));
        }
    }

    /// Says of each instance that comes and goes, once until it is let in again, that it is left out.
    fn tell_of_left_out(&mut self, now: Instant, names: Vec<String>) {
        let damping = &self.damping;
        self.left_out.retain(|name| damping.is_out(name));
        for name in names {
            if self.left_out.insert(name.clone()) {
                let time = self.damping.time_left(now, &name);
                self.alarm(Alarm::Flapping { name, time });
            }
        }
    }

    /// Who is shown and is of another group or version by now.
    fn has_left(&self) -> impl Iterator<Item = &String> {
        let others = self.registry.instances().filter(|it| !self.wanted.matches(it));
        others.map(|it| &it.name).filter(|name| self.shown.contains_key(*name))
    }

    fn rebuild(&mut self, now: Instant) {
        self.dirty = None;
        // They have not vanished, and are held no more: the source has them, and nobody else knows better what they are.
        let left: Vec<String> = self.has_left().cloned().collect();
        for gone in &left {
            self.shown.remove(gone);
            self.guard.release(gone);
        }
        self.damping.advance(now);
        let mut present = self.present.clone();
        present.retain(|name, _| !self.damping.is_out(name));
        if present.len() * 2 < self.present.len() {
            // Who comes and goes is better than hardly anybody.
            present = self.present.clone();
        }
        // An instance that is left out has not vanished, and is held no more: the source has it.
        let left_out = self.present.keys().filter(|name| !present.contains_key(*name));
        let left_out: Vec<String> = left_out.cloned().collect();
        for name in &left_out {
            self.shown.remove(name);
            self.guard.release(name);
        }
        self.tell_of_left_out(now, left_out);
        let alarm = self.guard.judge(now, &self.shown, &mut present);
        alarm.into_iter().for_each(|alarm| self.alarm(alarm));
        self.shown = present;
        self.born
            .retain(|name, _| self.shown.contains_key(name) || self.present.contains_key(name));
        let listed = self.shown.iter().map(|(name, instance)| Listed {
            instance: Arc::clone(instance),
            since: self.born.get(name).copied().unwrap_or(Instant::ZERO),
            is_held: self.guard.is_held(name),
        });
        let instances: Arc<[Listed]> = listed.collect();
        if self.listing.version == 0 || instances != self.listing.instances {
            let (version, revision) = (self.listing.version + 1, self.registry.heard());
            self.listing = Listing { version, revision, instances };
            self.is_new = true;
        }
    }
}

/// Since when an instance has been there, if the source says it.
fn born(now: Instant, registered_ms: Option<u64>, clock_ms: Option<u64>) -> Option<Instant> {
    let age = Duration::from_millis(clock_ms?.saturating_sub(registered_ms?));
    Some(Instant::from_nanos(now.since(Instant::ZERO + age).as_nanos() as u64))
}
