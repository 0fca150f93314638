//! The instances of a fleet, each at a place that it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::Instant;

use super::Readiness;
use crate::balance::{Candidates, HostStats, Totals, hash};
use crate::discovery::{Instance, Listed, Listing};
use crate::health::{Health, HealthConfig, HealthState, Record};
use crate::ramp::ramp;
use crate::settings::Settings;

/// Names an instance of a fleet, also when it is gone and its place another's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HostRef {
    place: u32,
    generation: u32,
}

impl HostRef {
    pub(super) const NONE: HostRef = HostRef { place: u32::MAX, generation: u32::MAX };

    /// Its place.
    #[must_use]
    pub fn place(self) -> u32 {
        self.place
    }
}

#[derive(Debug)]
pub(super) struct Hosts<T> {
    hosts: Vec<Option<Host<T>>>,
    stats: Vec<HostStats>,
    generations: u32,
    free: Vec<u32>,
    /// Places of those that are there, of those with a weight, and of those of these that are not ejected.
    live: Vec<u32>,
    callable: Vec<u32>,
    usable: Vec<u32>,
    weight_max: u32,
    /// Calls under way to those that are usable, and their weights. What hangs at one that is ejected is no load of
    /// the others.
    totals: Totals,
    is_panic: bool,
    /// Larger each time that they are counted anew.
    epoch: u64,
    /// When the first ejection is over; later if it cannot be probed.
    probe_at: Instant,
    gone: Vec<Gone>,
    /// Kept for the next time that all are looked at.
    records: Vec<(u32, Record)>,
}

/// An instance whose time has come and that cannot be called is asked for again after so long: not by each call,
/// which would look at all of them each time.
const PROBE_PAUSE: Duration = Duration::from_millis(100);

#[derive(Debug)]
pub(super) struct Host<T> {
    pub(super) listed: Listed,
    pub(super) health: Health,
    /// Whether its connection was ready when that was last looked at; it is hoped of a new one.
    is_ready: bool,
    /// Another one was met at its address, and it was not seen there since.
    is_stranger: bool,
    target: T,
    generation: u32,
}

/// An instance that is gone.
#[derive(Debug)]
pub(super) struct Gone {
    /// Where it was.
    pub(super) place: u32,
    pub(super) instance: Arc<Instance>,
    pub(super) is_ejected: bool,
}

impl<T> Default for Hosts<T> {
    fn default() -> Hosts<T> {
        Hosts {
            hosts: Vec::new(),
            stats: Vec::new(),
            generations: 0,
            free: Vec::new(),
            live: Vec::new(),
            callable: Vec::new(),
            usable: Vec::new(),
            weight_max: 1,
            totals: Totals::default(),
            is_panic: false,
            epoch: 0,
            probe_at: Instant::FAR,
            gone: Vec::new(),
            records: Vec::new(),
        }
    }
}

impl<T> Hosts<T> {
    // ---- they come and go ----

    /// Gives back what reached those that are gone. Who is usable has to be counted anew after it.
    pub(super) fn apply(
        &mut self,
        listing: &Listing,
        config: &HealthConfig,
        mut connect: impl FnMut(&Instance) -> Option<T>,
    ) -> Vec<T> {
        let mut gone = Vec::new();
        for place in 0..self.hosts.len() {
            let stays = self.hosts[place].as_ref().is_none_or(|host| is_in(host, listing));
            let lost = self.hosts[place].take_if(|_| !stays);
            if let Some(host) = lost {
                let is_ejected = host.health.is_ejected();
                let Listed { instance, .. } = host.listed;
                self.gone.push(Gone { place: place as u32, instance, is_ejected });
                self.free.push(place as u32);
                gone.push(host.target);
            }
        }
        let known = self.known();
        for listed in listing.instances.iter() {
            match known.get(&listed.instance.name) {
                Some(place) => self.update(*place, listed),
                None => {
                    if let Some(target) = connect(&listed.instance) {
                        self.add(listed.clone(), config, target);
                    }
                }
            }
        }
        self.live = (0..self.hosts.len() as u32).filter(|at| self.is_live(*at)).collect();
        gone
    }

    pub(super) fn unknown(&self, listing: &Listing) -> Vec<Arc<Instance>> {
        let known = self.known();
        let is_known = |instance: &Instance| {
            let place = known.get(&instance.name);
            place.is_some_and(|place| self.host(*place).listed.instance.is_reached_like(instance))
        };
        let all = listing.instances.iter().map(|listed| &listed.instance);
        all.filter(|instance| !is_known(instance)).cloned().collect()
    }

    /// The places of instances, by name.
    fn known(&self) -> BTreeMap<String, u32> {
        let hosts = self.hosts.iter().enumerate();
        let named = |(place, host): (usize, &Option<Host<T>>)| {
            host.as_ref().map(|host| (host.listed.instance.name.clone(), place as u32))
        };
        hosts.filter_map(named).collect()
    }

    /// Whether some of them are called before others.
    pub(super) fn have_priorities(&self) -> bool {
        let mut all = self.hosts.iter().flatten().map(|host| host.listed.instance.priority);
        let first = all.next();
        all.any(|priority| Some(priority) != first)
    }

    fn is_live(&self, place: u32) -> bool {
        self.hosts[place as usize].is_some()
    }

    fn update(&mut self, place: u32, listed: &Listed) {
        if let Some(host) = &mut self.hosts[place as usize] {
            host.listed = listed.clone();
            self.stats[place as usize].full_weight = listed.instance.weight.saturating_mul(100);
        }
    }

    fn add(&mut self, listed: Listed, config: &HealthConfig, target: T) {
        let instance = &listed.instance;
        let stats = HostStats::new(hash(&instance.name), instance.weight);
        self.generations = self.generations.wrapping_add(1);
        let (generation, health) = (self.generations, Health::new(config));
        let host =
            Some(Host { listed, health, is_ready: true, is_stranger: false, target, generation });
        match self.free.pop() {
            Some(place) => {
                self.hosts[place as usize] = host;
                self.stats[place as usize] = stats;
            }
            None => {
                self.hosts.push(host);
                self.stats.push(stats);
            }
        }
    }

    /// Those that are gone since this was last asked.
    pub(super) fn take_gone(&mut self) -> Vec<Gone> {
        std::mem::take(&mut self.gone)
    }

    // ---- who is usable ----

    /// Counts anew who is usable, and with which weight.
    pub(super) fn refresh(&mut self, now: Instant, settings: &Settings) {
        self.epoch += 1;
        self.callable.clear();
        self.usable.clear();
        (self.weight_max, self.probe_at) = (1, Instant::FAR);
        let warm_up = settings.warm_up_policy();
        for &place in &self.live {
            let Some(host) = &self.hosts[place as usize] else { continue };
            let stats = &mut self.stats[place as usize];
            let share = u64::from(ramp(now, host.listed.since, warm_up));
            let ramped = (u64::from(stats.full_weight) * share / 1000) as u32;
            let is_sub = matches!(host.health.state, HealthState::SubHealthy(_));
            stats.weight = if is_sub { ramped / 10 } else { ramped };
            let is_callable = stats.full_weight > 0 && !host.is_stranger;
            if is_callable {
                stats.weight = stats.weight.max(1);
                self.callable.push(place);
            } else {
                stats.weight = 0;
            }
            if host.health.is_ejected() {
                self.probe_at = self.probe_at.min(host.health.probe_at());
            } else if is_callable {
                self.usable.push(place);
            }
            self.weight_max = self.weight_max.max(stats.weight);
        }
        // Too few would be overwhelmed: rather all of them, also those that fail.
        self.is_panic =
            self.usable.len() * 100 < self.callable.len() * settings.health.panic_percent as usize;
        if self.is_panic {
            self.usable.clone_from(&self.callable);
        }
        self.totals = self.candidates_of(&self.usable).totals();
    }

    /// Whether an instance was usable when that was last counted. Nothing of this changes without a new count.
    #[inline]
    fn is_counted(&self, place: u32) -> bool {
        // Those that cannot be called have none.
        let has_weight = self.stats[place as usize].weight > 0;
        has_weight && (self.is_panic || !self.host(place).health.is_ejected())
    }

    /// Which count it is.
    #[inline]
    pub(super) fn epoch(&self) -> u64 {
        self.epoch
    }

    /// Whether an instance is not ejected.
    pub(super) fn is_usable(&self, place: u32) -> bool {
        !self.host(place).health.is_ejected()
    }

    /// Whether the connection to an instance was ready when that was last looked at.
    pub(super) fn is_ready(&self, place: u32) -> bool {
        self.host(place).is_ready
    }

    /// Whether nothing speaks against an instance.
    pub(super) fn is_well(&self, place: u32) -> bool {
        self.is_ready(place) && self.host(place).health.state == HealthState::Healthy
    }

    /// Puts down whose connections are ready, and where somebody else was met. Gives the names of those of which the
    /// latter is new, or is no longer so; who is usable has to be counted anew then.
    pub(super) fn look(&mut self, readiness: impl Fn(&T) -> Readiness) -> Vec<(String, bool)> {
        let mut changed = Vec::new();
        for host in self.hosts.iter_mut().flatten() {
            let readiness = readiness(&host.target);
            host.is_ready = readiness == Readiness::Ready;
            // Where nobody answers meanwhile it may be either.
            let is_stranger = match readiness {
                Readiness::Ready => false,
                Readiness::Stranger => true,
                Readiness::Connecting | Readiness::Broken => host.is_stranger,
            };
            if std::mem::replace(&mut host.is_stranger, is_stranger) != is_stranger {
                changed.push((host.listed.instance.name.clone(), is_stranger));
            }
        }
        changed
    }

    /// How many of those can be called now that calls would go to; and whether there are instances, and nobody answers
    /// at any.
    pub(super) fn count_ready(&self, readiness: impl Fn(&T) -> Readiness) -> (u32, bool) {
        let is_ready = |place: &&u32| readiness(self.target(**place)) == Readiness::Ready;
        let count = |places: &[u32]| places.iter().filter(is_ready).count() as u32;
        // Those that are ejected are all that there is then. If no call were let through to them, none could find out
        // that they work.
        let ready = match count(&self.usable) {
            0 => count(&self.callable),
            ready => ready,
        };
        let has_weight = |place: &&u32| self.stats[**place as usize].full_weight > 0;
        let mut all = self.live.iter().filter(has_weight).peekable();
        let is_outage = all.peek().is_some()
            && all.all(|place| {
                matches!(readiness(self.target(*place)), Readiness::Broken | Readiness::Stranger)
            });
        (ready, is_outage)
    }

    /// What reaches an instance.
    pub(super) fn target_named(&self, name: &str) -> Option<&T> {
        let named = |host: &&Host<T>| host.listed.instance.name == name;
        self.hosts.iter().flatten().find(named).map(|host| &host.target)
    }

    /// Whether somebody else was met at an instance's address.
    pub(super) fn is_stranger(&self, place: u32) -> bool {
        self.host(place).is_stranger
    }

    /// Whether those that are ejected are used as well.
    #[inline]
    pub(super) fn is_panic(&self) -> bool {
        self.is_panic
    }

    #[inline]
    pub(super) fn wants_probe(&self, now: Instant) -> bool {
        self.probe_at <= now
    }

    /// Makes a call the probe of an instance whose time has come, if there is one that `can` be called.
    #[cold]
    pub(super) fn begin_probe(
        &mut self,
        now: Instant,
        can: impl Fn(u32, &T) -> bool,
    ) -> Option<u32> {
        let mut next = Instant::FAR;
        for &place in &self.callable {
            let Some(host) = &mut self.hosts[place as usize] else { continue };
            let due = host.health.probe_at();
            if due > now {
                next = next.min(due);
            } else if can(place, &host.target) {
                host.health.probe();
                // There may be others. Each that is found is worth a look.
                return Some(place);
            } else {
                next = next.min(now + PROBE_PAUSE);
            }
        }
        self.probe_at = next;
        None
    }

    /// What calls to each came to. To be given back.
    pub(super) fn take_records(&mut self, now: Instant) -> Vec<(u32, Record)> {
        let mut records = std::mem::take(&mut self.records);
        records.clear();
        for &place in &self.live {
            if let Some(host) = &mut self.hosts[place as usize] {
                records.push((place, host.health.seen(now)));
            }
        }
        records
    }

    pub(super) fn give_records(&mut self, records: Vec<(u32, Record)>) {
        self.records = records;
    }

    /// Health is judged by other settings from now on.
    pub(super) fn configure(&mut self, config: &HealthConfig) {
        self.hosts.iter_mut().flatten().for_each(|host| host.health.configure(config));
    }

    /// Nobody, if nobody can be reached: that says as much of this side's own network.
    pub(super) fn dead(&self, readiness: impl Fn(&T) -> Readiness) -> Vec<String> {
        let all = || self.hosts.iter().flatten().map(|host| (host, readiness(&host.target)));
        if !all().any(|(_, readiness)| readiness == Readiness::Ready) {
            return Vec::new();
        }
        let is_dead = |readiness| matches!(readiness, Readiness::Broken | Readiness::Stranger);
        let dead = all().filter(|(_, readiness)| is_dead(*readiness));
        dead.map(|(host, _)| host.listed.instance.name.clone()).collect()
    }

    // ---- one of them ----

    /// All that are usable.
    #[inline]
    pub(super) fn candidates(&self) -> Candidates<'_> {
        self.candidates_of(&self.usable).with_totals(self.totals)
    }

    #[inline]
    pub(super) fn candidates_of<'a>(&'a self, list: &'a [u32]) -> Candidates<'a> {
        Candidates::new(&self.stats, list, self.weight_max)
    }

    /// Some of them, with the largest weight that one has.
    #[inline]
    pub(super) fn candidates_among<'a>(
        &'a self,
        (list, weight_max): (&'a [u32], u32),
    ) -> Candidates<'a> {
        Candidates::new(&self.stats, list, weight_max)
    }

    pub(super) fn weight(&self, place: u32) -> u32 {
        self.stats[place as usize].weight
    }

    #[inline]
    pub(super) fn reference(&self, place: u32) -> HostRef {
        HostRef { place, generation: self.host(place).generation }
    }

    #[inline]
    pub(super) fn target(&self, place: u32) -> &T {
        &self.host(place).target
    }

    #[inline]
    pub(super) fn host(&self, place: u32) -> &Host<T> {
        self.hosts[place as usize].as_ref().expect("only places of live hosts are handed out")
    }

    pub(super) fn health_mut(&mut self, place: u32) -> &mut Health {
        let host = self.hosts[place as usize].as_mut();
        &mut host.expect("only places of live hosts are handed out").health
    }

    #[inline]
    pub(super) fn stats_mut(&mut self, place: u32) -> &mut HostStats {
        &mut self.stats[place as usize]
    }

    /// What is known of an instance, if it is still there.
    pub(super) fn stats_of(&mut self, host: HostRef) -> Option<&mut HostStats> {
        let found = self.hosts.get(host.place as usize)?.as_ref()?;
        (found.generation == host.generation).then(|| self.stats_mut(host.place))
    }

    /// A call to an instance begins, which is the `count`th of all.
    #[inline]
    pub(super) fn picked(&mut self, place: u32, now: Instant, count: u64) {
        let counted = u64::from(self.is_counted(place));
        let stats = &mut self.stats[place as usize];
        stats.picked = now;
        stats.picked_count = count;
        stats.in_flight += 1;
        self.totals.in_flight += counted;
    }

    /// A call to an instance is over; its health, if the instance is still there.
    #[inline]
    pub(super) fn ended(&mut self, host: HostRef) -> Option<&mut Health> {
        let found = self.hosts.get(host.place as usize)?.as_ref()?;
        if found.generation != host.generation {
            return None;
        }
        let counted = u64::from(self.is_counted(host.place));
        let stats = &mut self.stats[host.place as usize];
        stats.in_flight = stats.in_flight.saturating_sub(1);
        self.totals.in_flight = self.totals.in_flight.saturating_sub(counted);
        Some(self.health_mut(host.place))
    }

    pub(super) fn stats(&self) -> &[HostStats] {
        &self.stats
    }

    pub(super) fn live(&self) -> &[u32] {
        &self.live
    }

    pub(super) fn callable(&self) -> &[u32] {
        &self.callable
    }

    #[inline]
    pub(super) fn usable(&self) -> &[u32] {
        &self.usable
    }

    /// How many of those with a weight are not ejected, also if all of them are used.
    pub(super) fn well(&self) -> usize {
        self.callable.iter().filter(|place| self.is_usable(**place)).count()
    }

    /// How many of those that can be called are out, and how many these are. Others do no work in any case, so that nobody
    /// is spared for their sake.
    pub(super) fn ejected(&self, now: Instant) -> (usize, usize) {
        let there = self.callable.iter().filter_map(|place| self.hosts[*place as usize].as_ref());
        there.fold((0, 0), |(out, all), host| (out + usize::from(host.health.is_out(now)), all + 1))
    }
}

/// Whether a listing has the instance, by name, at the same address and with the same identity.
fn is_in<T>(host: &Host<T>, listing: &Listing) -> bool {
    let instance = &host.listed.instance;
    let found = listing.instances.binary_search_by(|it| it.instance.name.cmp(&instance.name));
    found.is_ok_and(|at| listing.instances[at].instance.is_reached_like(instance))
}
