//! Routing, over the instances that there are: which lanes a call has, as lists of places.
//!
//! What rules say of instances is a set of bits each, computed when rules or the list change. What a call may go to
//! is a [`Plan`]: the sets put together, and parted by health. Calls that rules decide alike share one, so that a call
//! finds its plan and chooses from a list.

use std::sync::Arc;

use ringcall_core::frame::{ExtensionWriter, tag};
use ringcall_core::{Cause, Entropy, Failure, Missing, SplitMix64};

use super::hosts::Hosts;
use super::{CallState, Path};
use crate::route::{Asked, Ranks, Router, Verdict, Zones};
use crate::settings::Settings;

/// Calls that are decided in more ways than this at a time make plans that others need anew.
const PLANS_MAX: usize = 64;
/// A share of calls, in these parts.
const WHOLE: u32 = 1 << 16;

/// Routing, with what was computed ahead.
#[derive(Debug)]
pub(super) struct Routing {
    pub(super) router: Router,
    map: Map,
    plans: Vec<Plan>,
    /// Larger each time that plans are thrown away: what calls under way have found by then is void.
    serial: u32,
    /// By the method's place: its number, and the rules that can be about it.
    relevant: Vec<Option<(u64, Box<[u16]>)>>,
}

/// Some places.
#[derive(Clone, Debug, Default)]
struct Bits(Vec<u64>);

impl Bits {
    fn of(places: impl Iterator<Item = u32>) -> Bits {
        let mut bits = Vec::new();
        for place in places {
            let word = place as usize / 64;
            if bits.len() <= word {
                bits.resize(word + 1, 0);
            }
            bits[word] |= 1 << (place % 64);
        }
        Bits(bits)
    }

    fn has(&self, place: u32) -> bool {
        self.0.get(place as usize / 64).is_some_and(|word| word >> (place % 64) & 1 == 1)
    }
}

/// What rules, groups, zones and priorities say of instances.
#[derive(Debug, Default)]
struct Map {
    /// Of each rule that excludes instances.
    excluded: Vec<(u8, Bits)>,
    /// Where copies go of each rule that asks for some.
    mirrored: Vec<(u8, Vec<u32>)>,
    /// Of each route, the lanes.
    routes: Vec<Vec<Bits>>,
    /// By name.
    groups: Vec<Group>,
    /// The group of the instance at each place.
    group_of: Vec<u16>,
    /// The caller's zone.
    zone: Bits,
    /// Instances of each priority, the most wanted first; empty if all have the same.
    priorities: Vec<Bits>,
}

#[derive(Debug)]
struct Group {
    name: String,
    members: Bits,
    /// What calls to its members carry: without, and with the group that was asked for.
    carried: [Arc<[u8]>; 2],
}

/// What decides about a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Key {
    excludes: u128,
    route: Option<u16>,
    /// Of the groups that there are; `None` if the one that is asked for is none of them, or groups do not matter.
    group: Option<u16>,
}

/// Where calls may go that are decided alike.
#[derive(Debug)]
pub(super) struct Plan {
    key: Key,
    /// Of the health by which its lanes are parted.
    epoch: u64,
    /// Those that have an instance which takes calls; and behind so many, those that had one once.
    lanes: Vec<Lane>,
    count: usize,
    /// The first one of which an instance is usable.
    current: usize,
}

/// A lane, as places in order.
#[derive(Debug, Default)]
pub(super) struct Lane {
    pub(super) callable: Vec<u32>,
    pub(super) usable: Vec<u32>,
    /// Those of them that are ready, in the caller's zone and elsewhere. Both empty: zones do not matter.
    pub(super) near: Vec<u32>,
    pub(super) far: Vec<u32>,
    /// How many calls stay in the zone, of [`WHOLE`].
    kept: u32,
    weight_max: u32,
}

impl Routing {
    /// For the instances that there are.
    pub(super) fn new<T>(router: Router, serial: u32, revision: u64, hosts: &Hosts<T>) -> Routing {
        let map = Map::default();
        let mut routing = Routing { router, map, plans: Vec::new(), serial, relevant: Vec::new() };
        routing.place(revision, hosts);
        routing
    }

    /// The instances have changed; `revision` is that of their list, as its source counts.
    pub(super) fn place<T>(&mut self, revision: u64, hosts: &Hosts<T>) {
        let router = &self.router;
        let instance = |place: u32| &*hosts.host(place).listed.instance;
        let bits =
            |is: &dyn Fn(u32) -> bool| Bits::of(hosts.live().iter().copied().filter(|at| is(*at)));
        let of = |subset| bits(&|place| router.is_in(subset, instance(place)));
        let places = |subset| {
            let is_in = |place: &u32| router.is_in(subset, instance(*place));
            hosts.live().iter().copied().filter(is_in).collect()
        };
        let zone = router.zone();
        self.map = Map {
            excluded: router.excluded().map(|(rule, subset)| (rule, of(subset))).collect(),
            mirrored: router.mirrored().map(|(rule, subset)| (rule, places(subset))).collect(),
            routes: (0..router.routes())
                .map(|route| router.lanes(Some(route as u16)).iter().map(of).collect())
                .collect(),
            groups: Vec::new(),
            group_of: Vec::new(),
            zone: bits(&|place| !zone.is_empty() && instance(place).zone == zone),
            priorities: Vec::new(),
        };
        let ranks = Ranks::of(hosts.live().iter().map(|place| instance(*place)));
        if ranks.count() > 1 {
            let with = |rank| bits(&|place| ranks.rank(instance(place)) == rank);
            self.map.priorities = (0..ranks.count()).map(with).collect();
        }
        if let Some(groups) = router.groups() {
            let mut names: Vec<&str> =
                hosts.live().iter().map(|place| &instance(*place).group[..]).collect();
            names.sort_unstable();
            names.dedup();
            let group = |name: &str| Group {
                name: name.to_owned(),
                members: bits(&|place| instance(place).group == name),
                carried: [
                    carried(None, revision, name),
                    carried(Some(&groups.own), revision, name),
                ],
            };
            self.map.groups = names.into_iter().map(group).collect();
            let last = hosts.live().last().map_or(0, |place| *place as usize + 1);
            self.map.group_of = vec![0; last];
            for (group, index) in self.map.groups.iter().zip(0..) {
                for place in hosts.live().iter().filter(|place| group.members.has(**place)) {
                    self.map.group_of[*place as usize] = index;
                }
            }
        }
        self.forget();
    }

    /// Plans are made anew when they are needed.
    fn forget(&mut self) {
        self.plans.clear();
        self.serial = self.serial.wrapping_add(1);
    }

    pub(super) fn serial(&self) -> u32 {
        self.serial
    }

    /// What becomes of a call of the method at this place.
    ///
    /// # Errors
    /// When a rule denies it.
    #[inline]
    pub(super) fn find(
        &mut self,
        method: u32,
        asked: &Asked<'_>,
        rng: &mut SplitMix64,
    ) -> Result<Path, Failure> {
        let at = method as usize;
        let is_known = matches!(self.relevant.get(at), Some(Some((id, _))) if *id == asked.method);
        if !is_known {
            self.learn(at, asked);
        }
        let relevant = self.relevant[at].as_ref().map_or(&[][..], |(_, relevant)| relevant);
        let verdict = self.router.decide(relevant, asked, rng, |_| ());
        if let Some((_, status)) = verdict.denied {
            return Err(Failure::not_sent(Cause::Status(status)));
        }
        let (group, says_group) = self.group(asked);
        let Verdict { excludes, route, delay, mirror, .. } = verdict;
        let plan = self.plan(Key { excludes, route, group });
        // An hour has fewer microseconds than that.
        let delay_us = delay.map_or(0, |delay| delay.as_micros() as u32);
        let is_special = delay_us > 0 || mirror.is_some();
        Ok(Path { serial: self.serial, plan, says_group, is_special, mirror, delay_us })
    }

    /// Where a copy may go by this rule, and what it says that the rule's name is.
    pub(super) fn mirrored(&self, rule: u8) -> Option<(&str, &[u32])> {
        let (_, places) = self.map.mirrored.iter().find(|(other, _)| *other == rule)?;
        Some((self.router.rule_name(rule), places))
    }

    #[cold]
    fn learn(&mut self, at: usize, asked: &Asked<'_>) {
        if self.relevant.len() <= at {
            self.relevant.resize_with(at + 1, || None);
        }
        self.relevant[at] = Some((asked.method, self.router.relevant(asked)));
    }

    /// Which of the groups that there are is asked for, and whether by the call itself.
    #[inline]
    fn group(&self, asked: &Asked<'_>) -> (Option<u16>, bool) {
        let Some(groups) = self.router.groups() else { return (None, false) };
        let own = asked.group();
        let name = own.unwrap_or(&groups.own);
        let found = self.map.groups.binary_search_by(|group| group.name[..].cmp(name));
        (found.ok().map(|at| at as u16), own.is_some())
    }

    #[inline]
    fn plan(&mut self, key: Key) -> u16 {
        let found = self.plans.iter().position(|plan| plan.key == key);
        found.unwrap_or_else(|| self.make(key)) as u16
    }

    #[cold]
    fn make(&mut self, key: Key) -> usize {
        if self.plans.len() >= PLANS_MAX {
            self.forget();
        }
        self.plans.push(Plan { key, epoch: u64::MAX, lanes: Vec::new(), count: 0, current: 0 });
        self.plans.len() - 1
    }

    /// Parts the plan of a call by the health that there is now.
    #[inline]
    pub(super) fn refresh<T>(&mut self, call: &CallState, hosts: &Hosts<T>, settings: &Settings) {
        let at = usize::from(call.path.plan);
        if self.plans[at].epoch != hosts.epoch() {
            self.fill(at, hosts, settings);
        }
    }

    /// The plan of a call, as it was last parted.
    #[inline]
    pub(super) fn planned(&self, call: &CallState) -> &Plan {
        &self.plans[usize::from(call.path.plan)]
    }

    /// Why none of those that take calls is in a lane of this one, if that is so.
    pub(super) fn why_nobody(&self, call: &CallState, callable: &[u32]) -> Option<Missing> {
        let plan = self.planned(call);
        if plan.count > 0 {
            return None;
        }
        let is_in_group = chain(&self.router, &self.map, plan.key.group).any(|group| {
            group.is_none_or(|group| callable.iter().any(|place| group.members.has(*place)))
        });
        Some(if is_in_group { Missing::LeftOut } else { Missing::NotInGroup })
    }

    #[cold]
    fn fill<T>(&mut self, at: usize, hosts: &Hosts<T>, settings: &Settings) {
        let Routing { router, map, plans, .. } = self;
        let plan = &mut plans[at];
        let (key, mut count) = (plan.key, 0);
        let all = [Bits::default()];
        let lanes = key.route.map_or(&all[..], |route| &map.routes[usize::from(route)]);
        let has_priorities = !map.priorities.is_empty();
        let priorities = if has_priorities { &map.priorities[..] } else { &all[..] };
        for group in chain(router, map, key.group) {
            let parts = lanes.iter().flat_map(|bits| priorities.iter().map(move |it| (bits, it)));
            for (bits, priority) in parts {
                let is_in = |place: u32| {
                    (key.route.is_none() || bits.has(place))
                        && (!has_priorities || priority.has(place))
                        && group.is_none_or(|group: &Group| group.members.has(place))
                        && !map.excludes(key.excludes, place)
                };
                if plan.lanes.len() == count {
                    plan.lanes.push(Lane::default());
                }
                let callable = &mut plan.lanes[count].callable;
                callable.clear();
                callable.extend(hosts.callable().iter().copied().filter(|at| is_in(*at)));
                count += usize::from(!callable.is_empty());
            }
        }
        let lanes = &mut plan.lanes[..count];
        for (index, lane) in lanes.iter_mut().enumerate() {
            lane.part(index + 1 == count, &map.zone, hosts, settings);
        }
        plan.current = lanes.iter().position(|lane| !lane.usable.is_empty()).unwrap_or(0);
        plan.count = count;
        plan.epoch = hosts.epoch();
    }

    /// What a call to the instance at a place carries beside what it says itself.
    pub(super) fn carried(&self, path: &Path, place: u32) -> Option<Arc<[u8]>> {
        let group = &self.map.groups[usize::from(*self.map.group_of.get(place as usize)?)];
        Some(Arc::clone(&group.carried[usize::from(!path.says_group)]))
    }
}

impl Map {
    fn excludes(&self, rules: u128, place: u32) -> bool {
        rules != 0
            && self.excluded.iter().any(|(rule, bits)| rules >> rule & 1 == 1 && bits.has(place))
    }
}

/// The groups whose instances a call may go to, in order; `None` is any.
fn chain<'a>(
    router: &'a Router,
    map: &'a Map,
    asked: Option<u16>,
) -> impl Iterator<Item = Option<&'a Group>> {
    let named = |name: &String| map.groups.iter().find(|group| group.name == *name);
    let first = asked.map(|at| &map.groups[usize::from(at)]);
    let fallbacks = router.groups().map_or(&[][..], |groups| &groups.fallbacks);
    let any = router.groups().is_none_or(|groups| groups.or_any);
    let groups = first.into_iter().chain(fallbacks.iter().filter_map(named));
    groups.map(Some).chain(any.then_some(None))
}

fn carried(asked: Option<&str>, revision: u64, real: &str) -> Arc<[u8]> {
    let mut writer = ExtensionWriter::new();
    // Texts of instances are short.
    if let Some(asked) = asked {
        let _fits = writer.push_parts(tag::ASKED_GROUP, [asked.as_bytes()]);
    }
    let _fits = writer.push_parts(tag::REAL_GROUP, [&revision.to_le_bytes()[..], real.as_bytes()]);
    writer.finish().into()
}

impl Plan {
    /// Its lanes: the one that calls go to, and those that are left if it fails.
    pub(super) fn lanes(&self) -> &[Lane] {
        self.lanes.get(self.current..self.count).unwrap_or_default()
    }

    /// All of its lanes, the current one first.
    pub(super) fn all_lanes(&self) -> impl Iterator<Item = &Lane> {
        let before = self.lanes.get(..self.current).unwrap_or_default();
        self.lanes().iter().chain(before)
    }

    /// Whether one that is ejected may be probed by a call: it would be in the current lane, or a better one.
    pub(super) fn may_probe(&self, place: u32) -> bool {
        let until = (self.current + 1).min(self.count);
        self.lanes[..until].iter().any(|lane| lane.callable.binary_search(&place).is_ok())
    }
}

impl Lane {
    /// Parts its instances by their health, and by zone.
    fn part<T>(&mut self, is_last: bool, zone: &Bits, hosts: &Hosts<T>, settings: &Settings) {
        let Lane { callable, usable, near, far, .. } = self;
        usable.clear();
        usable.extend(callable.iter().copied().filter(|place| hosts.is_usable(*place)));
        // Too few would be overwhelmed; where there is another lane, calls go there instead.
        let enough = callable.len() * settings.health.panic_percent as usize;
        if is_last && usable.len() * 100 < enough {
            usable.clone_from(callable);
        }
        self.weight_max = usable.iter().map(|place| hosts.weight(*place)).max().unwrap_or(1);
        near.clear();
        far.clear();
        self.kept = WHOLE;
        if let Some(zones) = settings.zones.filter(|_| !zone.0.is_empty()) {
            self.part_by_zone(&zones, zone, hosts);
        }
    }

    /// Parts the usable ones whose connections are ready: calls that find others would not go by the shares.
    fn part_by_zone<T>(&mut self, zones: &Zones, zone: &Bits, hosts: &Hosts<T>) {
        let in_zone = self.callable.iter().filter(|place| zone.has(**place)).count();
        if in_zone < zones.instances_min as usize {
            return;
        }
        for &place in self.usable.iter().filter(|place| hosts.is_ready(**place)) {
            if zone.has(place) { self.near.push(place) } else { self.far.push(place) }
        }
        // What each side can take, of all calls.
        let room = |is_near: bool| {
            let side = self.callable.iter().filter(|place| zone.has(**place) == is_near);
            let (well, all) = side.fold((0u64, 0u64), |(well, all), place| {
                (well + u64::from(hosts.is_well(*place)), all + 1)
            });
            let enough = all * u64::from(zones.spill_percent);
            (well * 100 * u64::from(WHOLE)).checked_div(enough).unwrap_or(0).min(u64::from(WHOLE))
        };
        let (kept, elsewhere) = (room(true), room(false));
        let spilled = (u64::from(WHOLE) - kept).min(elsewhere);
        // If both are too small together, each gets a share of what it can take.
        let share = (kept * u64::from(WHOLE)).checked_div(kept + spilled);
        self.kept = share.unwrap_or(u64::from(WHOLE)) as u32;
    }

    /// The list that a call chooses from, and the largest weight in it.
    #[inline]
    pub(super) fn list(&self, rng: &mut SplitMix64) -> (&[u32], u32) {
        let mut stays = || self.kept == WHOLE || ((rng.next_u64() >> 48) as u32) < self.kept;
        let list = match (&self.near, &self.far) {
            (near, far) if near.is_empty() && far.is_empty() => &self.usable,
            (near, far) if far.is_empty() => near,
            (near, far) if near.is_empty() => far,
            (near, far) => {
                if stays() {
                    near
                } else {
                    far
                }
            }
        };
        (list, self.weight_max)
    }
}
