//! The instances of a fleet, each at a place that it keeps.

use std::collections::BTreeMap;
use std::sync::Arc;

use ringcall_core::Instant;

use super::Readiness;
use crate::balance::{Candidates, HostStats, hash};
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
    is_panic: bool,
    /// When the first ejection is over.
    probe_at: Instant,
    replaced: Vec<u32>,
}

#[derive(Debug)]
pub(super) struct Host<T> {
    pub(super) listed: Listed,
    pub(super) health: Health,
    target: T,
    generation: u32,
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
            is_panic: false,
            probe_at: Instant::FAR,
            replaced: Vec::new(),
        }
    }
}

impl<T> Hosts<T> {
    // ---- they come and go ----

    /// Gives back what reached those that are gone.
    pub(super) fn apply(
        &mut self,
        listing: &Listing,
        config: &HealthConfig,
        mut connect: impl FnMut(&Instance) -> Option<T>,
    ) -> Vec<T> {
        let mut gone = Vec::new();
        for place in 0..self.hosts.len() {
            let stays = self.hosts[place].as_ref().is_none_or(|host| is_in(host, listing));
            if !stays {
                gone.extend(self.hosts[place].take().map(|host| host.target));
                self.free.push(place as u32);
                self.replaced.push(place as u32);
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
            place.is_some_and(|place| self.host(*place).listed.instance.address == instance.address)
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

    fn is_live(&self, place: u32) -> bool {
        self.hosts[place as usize].is_some()
    }

    fn update(&mut self, place: u32, listed: &Listed) {
        if let Some(host) = &mut self.hosts[place as usize] {
            host.listed = listed.clone();
            self.stats[place as usize].full_weight = listed.instance.weight * 100;
        }
    }

    fn add(&mut self, listed: Listed, config: &HealthConfig, target: T) {
        let instance = &listed.instance;
        let stats = HostStats::new(hash(&instance.name), instance.weight);
        self.generations = self.generations.wrapping_add(1);
        let (generation, health) = (self.generations, Health::new(config));
        let host = Some(Host { listed, health, target, generation });
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

    /// Places that lost their instance since this was last asked.
    pub(super) fn take_replaced(&mut self) -> Vec<u32> {
        std::mem::take(&mut self.replaced)
    }

    // ---- who is usable ----

    /// Counts anew who is usable, and with which weight.
    pub(super) fn refresh(&mut self, now: Instant, settings: &Settings) {
        self.callable.clear();
        self.usable.clear();
        (self.weight_max, self.probe_at) = (1, Instant::FAR);
        for &place in &self.live {
            let Some(host) = &self.hosts[place as usize] else { continue };
            let stats = &mut self.stats[place as usize];
            let share = u64::from(ramp(now, host.listed.since, settings.warm_up));
            let ramped = (u64::from(stats.full_weight) * share / 1000) as u32;
            let is_sub = matches!(host.health.state, HealthState::SubHealthy(_));
            stats.weight = if is_sub { ramped / 10 } else { ramped };
            if stats.full_weight > 0 {
                stats.weight = stats.weight.max(1);
                self.callable.push(place);
            }
            match host.health.state {
                HealthState::Ejected { until, .. } => self.probe_at = self.probe_at.min(until),
                HealthState::Probing { is_under_way: false } => self.probe_at = Instant::ZERO,
                _ => {}
            }
            if !host.health.is_ejected() && stats.full_weight > 0 {
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
    pub(super) fn begin_probe(
        &mut self,
        now: Instant,
        can: impl Fn(u32, &T) -> bool,
    ) -> Option<u32> {
        for &place in &self.callable {
            let Some(host) = &mut self.hosts[place as usize] else { continue };
            let is_due = match host.health.state {
                HealthState::Ejected { until, .. } => until <= now,
                HealthState::Probing { is_under_way } => !is_under_way,
                _ => false,
            };
            if is_due && can(place, &host.target) {
                host.health.state = HealthState::Probing { is_under_way: true };
                return Some(place);
            }
        }
        None
    }

    pub(super) fn records(&mut self, now: Instant) -> Vec<(u32, Record)> {
        let mut records = Vec::with_capacity(self.live.len());
        for &place in &self.live {
            if let Some(host) = &mut self.hosts[place as usize] {
                records.push((place, host.health.seen(now)));
            }
        }
        records
    }

    pub(super) fn dead(&self, readiness: impl Fn(&T) -> Readiness) -> Vec<String> {
        let hosts = self.hosts.iter().flatten();
        let dead = hosts.filter(|host| readiness(&host.target) == Readiness::Broken);
        dead.map(|host| host.listed.instance.name.clone()).collect()
    }

    // ---- one of them ----

    #[inline]
    pub(super) fn candidates<'a>(&'a self, list: &'a [u32]) -> Candidates<'a> {
        Candidates::new(&self.stats, list, self.weight_max)
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

    #[inline]
    pub(super) fn picked(&mut self, place: u32, now: Instant, count: u64) -> &mut HostStats {
        let stats = &mut self.stats[place as usize];
        stats.picked = now;
        stats.picked_count = count;
        stats
    }

    /// A call to an instance is over; its health, if the instance is still there.
    #[inline]
    pub(super) fn ended(&mut self, host: HostRef) -> Option<&mut Health> {
        let found = self.hosts.get_mut(host.place as usize)?.as_mut()?;
        if found.generation != host.generation {
            return None;
        }
        let stats = &mut self.stats[host.place as usize];
        stats.in_flight = stats.in_flight.saturating_sub(1);
        Some(&mut found.health)
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

    pub(super) fn ejected(&self) -> usize {
        let hosts = self.live.iter().filter_map(|place| self.hosts[*place as usize].as_ref());
        hosts.filter(|host| host.health.is_ejected()).count()
    }
}

/// Whether a listing has the instance, by name, at the same address.
fn is_in<T>(host: &Host<T>, listing: &Listing) -> bool {
    let instance = &host.listed.instance;
    let found = listing.instances.binary_search_by(|it| it.instance.name.cmp(&instance.name));
    found.is_ok_and(|at| listing.instances[at].instance.address == instance.address)
}
