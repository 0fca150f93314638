//! What a source has said, merged.
//!
//! The merge is a join: of two snapshots the later one counts, of two changes of one instance the later one,
//! and a snapshot outdates every change up to its revision. So it does not matter in which order updates
//! arrive, or how often. An instance is known by its service and its name: a source may say that services have
//! instances of the same name.
//!
//! That takes remembering of each name when it changed last, also of those that are gone. Of more than 10 000 names
//! since the last snapshot the older half is folded: what is there stays, and nothing is merged any more that is not
//! later than what was folded. So the order does not matter among the last 5000 names that have changed; what is later
//! than that is never merged wrongly, but refused.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Instance;

/// How many instances a source may have of what is wanted.
pub(super) const INSTANCES_MAX: usize = 10_000;
/// Of how many names it is remembered when they changed.
const CHANGES_MAX: usize = INSTANCES_MAX;

/// When a source said something: its incarnation, which is larger each time that it lost what it knew, and
/// its count of changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision {
    /// The source's incarnation.
    pub epoch: u64,
    /// Its changes in this incarnation, counted.
    pub number: u64,
}

impl fmt::Display for Revision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.epoch, self.number)
    }
}

/// All instances at a revision.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Snapshot {
    /// Of when it is.
    pub revision: Revision,
    /// All of them. Of two with the same service and name the last one counts.
    pub instances: Vec<Instance>,
}

/// What changed at a revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// When it changed.
    pub revision: Revision,
    /// What.
    pub changes: Vec<Change>,
}

/// A change of one instance.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(
    clippy::large_enum_variant,
    reason = "most changes are the large one, and none lasts long"
)]
pub enum Change {
    /// It is there, and like this.
    Put(Instance),
    /// It is gone.
    Removed {
        /// Its service.
        service: String,
        /// Its name.
        name: String,
    },
}

impl Change {
    /// The service whose instance changed.
    #[must_use]
    pub fn service(&self) -> &str {
        match self {
            Change::Put(instance) => &instance.service,
            Change::Removed { service, .. } => service,
        }
    }
}

/// Why an update was not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A later snapshot has it already, or so much has changed since that nobody knows what of it still holds.
    Older,
    /// It would make more than 10 000 instances, or as many changes of one revision.
    TooMany,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Older => "a later snapshot, or many later changes, have it already",
            Refusal::TooMany => "more than 10000 instances, or changes of one revision",
        })
    }
}

impl std::error::Error for Refusal {}

/// The service of an instance, and its name.
type Key = (String, String);
type Said = (Revision, Option<Arc<Instance>>);

fn key_of(instance: &Instance) -> Key {
    (instance.service.clone(), instance.name.clone())
}

/// What a source has said. In which order it is heard does not matter, nor how often; but of more than 10 000 names that
/// have changed since the last snapshot it is forgotten when the older half did: their changes are a part of what is
/// there from then on, and what is not later than they are is refused.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    /// Of the last snapshot.
    revision: Revision,
    /// Of the base: the snapshot's, or that of the last change that was folded into it.
    floor: Revision,
    /// At most twice [`INSTANCES_MAX`]: those that are there, and those that a later change has removed.
    base: BTreeMap<Key, Arc<Instance>>,
    /// All of them later than the base; at most [`CHANGES_MAX`].
    changes: BTreeMap<Key, Said>,
}

impl Registry {
    /// One that has heard nothing.
    #[must_use]
    pub fn new() -> Registry {
        Registry::default()
    }

    /// Merges a snapshot.
    ///
    /// # Errors
    /// When it is older than another one, or than what was folded, or too large; nothing is changed then.
    pub fn merge_snapshot(&mut self, snapshot: Snapshot) -> Result<(), Refusal> {
        let Snapshot { revision, instances } = snapshot;
        if instances.len() > INSTANCES_MAX {
            return Err(Refusal::TooMany);
        }
        if revision < self.floor {
            return Err(Refusal::Older);
        }
        let base: BTreeMap<Key, Arc<Instance>> =
            instances.into_iter().map(|it| (key_of(&it), Arc::new(it))).collect();
        let later = self.changes.iter().filter(|(key, (at, instance))| {
            *at > revision && instance.is_some() && !base.contains_key(*key)
        });
        if base.len() + later.count() > INSTANCES_MAX {
            return Err(Refusal::TooMany);
        }
        self.rebase(revision, base);
        Ok(())
    }

    /// Merges a delta.
    ///
    /// # Errors
    /// When a snapshot has it already, or it is older than what was folded, or too large; nothing is changed then.
    pub fn merge_delta(&mut self, delta: Delta) -> Result<(), Refusal> {
        if delta.revision <= self.floor {
            return Err(Refusal::Older);
        }
        if self.is_too_much_at_once(&delta)
            || self.instances().count() + self.added_by(&delta) > INSTANCES_MAX
        {
            return Err(Refusal::TooMany);
        }
        for change in delta.changes {
            let (key, instance) = match change {
                Change::Put(instance) => (key_of(&instance), Some(Arc::new(instance))),
                Change::Removed { service, name } => ((service, name), None),
            };
            self.change(key, (delta.revision, instance));
        }
        if self.changes.len() > CHANGES_MAX {
            self.fold();
        }
        Ok(())
    }

    /// Whether a delta makes more changes of the last revision than are remembered. Those cannot be folded: more of
    /// that revision may be yet to come.
    fn is_too_much_at_once(&self, delta: &Delta) -> bool {
        let count = delta.changes.len();
        if self.changes.len() + count <= CHANGES_MAX {
            return false;
        }
        let last = self.heard().max(delta.revision);
        let of_last = self.changes.values().filter(|(at, _)| *at == last).count();
        count > CHANGES_MAX || (delta.revision == last && of_last + count > CHANGES_MAX)
    }

    /// How many instances a delta has that are not there, at most.
    fn added_by(&self, delta: &Delta) -> usize {
        let is_there = |key: &Key| match self.changes.get(key) {
            Some((_, instance)) => instance.is_some(),
            None => self.base.contains_key(key),
        };
        let is_added = |change: &&Change| matches!(change, Change::Put(instance) if !is_there(&key_of(instance)));
        delta.changes.iter().filter(is_added).count()
    }

    /// Of when the last snapshot is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// Of when the last is that was merged, be it a snapshot or a change.
    #[must_use]
    pub fn heard(&self) -> Revision {
        let changes = self.changes.values().map(|(at, _)| *at);
        changes.max().unwrap_or_default().max(self.floor)
    }

    /// What is there.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let kept = self.base.iter().filter(|(key, _)| !self.changes.contains_key(*key));
        kept.map(|(_, it)| it).chain(self.changes.values().filter_map(|(_, it)| it.as_ref()))
    }

    fn rebase(&mut self, revision: Revision, base: BTreeMap<Key, Arc<Instance>>) {
        // Two different snapshots of one revision are a fault of the source; whoever hears both comes to
        // the same.
        if revision == self.revision && base <= self.base {
            return;
        }
        (self.revision, self.floor) = (revision, revision);
        self.base = base;
        self.changes.retain(|_, (at, _)| *at > revision);
    }

    /// Makes the older half of the changes a part of the base, but none of the last revision.
    fn fold(&mut self) {
        let mut revisions: Vec<Revision> = self.changes.values().map(|(at, _)| *at).collect();
        revisions.sort_unstable();
        let Some(last) = revisions.last() else { return };
        let half = revisions[(revisions.len() - 1) / 2];
        let earlier = revisions.iter().rev().find(|at| *at < last);
        let Some(floor) = earlier.map(|at| half.min(*at)) else { return };
        self.floor = floor;
        for (key, (at, instance)) in std::mem::take(&mut self.changes) {
            if at > floor {
                self.changes.insert(key, (at, instance));
            } else if let Some(instance) = instance {
                self.base.insert(key, instance);
            } else {
                self.base.remove(&key);
            }
        }
    }

    fn change(&mut self, key: Key, change: Said) {
        use std::collections::btree_map::Entry;
        match self.changes.entry(key) {
            Entry::Vacant(entry) => drop(entry.insert(change)),
            Entry::Occupied(mut entry) if *entry.get() < change => drop(entry.insert(change)),
            Entry::Occupied(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn instance(name: u8, weight: u32) -> Instance {
        let address: std::net::SocketAddr = ([127, 0, 0, 1], 7000 + u16::from(name)).into();
        Instance::new("s", name.to_string(), address).with_weight(weight)
    }

    fn removed(name: &str) -> Change {
        Change::Removed { service: "s".into(), name: name.into() }
    }

    #[derive(Clone, Debug)]
    enum Heard {
        All(Snapshot),
        Some(Delta),
    }

    fn updates() -> impl Strategy<Value = Heard> {
        let revision = (0u64..2, 0u64..6).prop_map(|(epoch, number)| Revision { epoch, number });
        let instances = proptest::collection::vec((0u8..5, 1u32..4), 0..5);
        let all = (revision.clone(), instances).prop_map(|(revision, instances)| {
            let instances = instances.into_iter().map(|(name, weight)| instance(name, weight));
            Heard::All(Snapshot { revision, instances: instances.collect() })
        });
        let changes = proptest::collection::vec((0u8..5, 0u32..3), 0..4);
        let some = (revision, changes).prop_map(|(revision, changes)| {
            let changes = changes.into_iter().map(|(name, weight)| match weight {
                0 => removed(&name.to_string()),
                _ => Change::Put(instance(name, weight)),
            });
            Heard::Some(Delta { revision, changes: changes.collect() })
        });
        prop_oneof![all, some]
    }

    fn heard(all: &[Heard]) -> Registry {
        let mut registry = Registry::new();
        for said in all {
            let _older = hear(&mut registry, said);
        }
        registry
    }

    fn hear(registry: &mut Registry, said: &Heard) -> Result<(), Refusal> {
        match said.clone() {
            Heard::All(snapshot) => registry.merge_snapshot(snapshot),
            Heard::Some(delta) => registry.merge_delta(delta),
        }
    }

    proptest! {
        #[test]
        fn g04_the_order_of_updates_does_not_matter(
            updates in proptest::collection::vec(updates(), 0..10).prop_flat_map(|updates| {
                (Just(updates.clone()), Just(updates).prop_shuffle())
            })
        ) {
            let (one, other) = updates;
            prop_assert_eq!(heard(&one), heard(&other));
        }

        #[test]
        fn g04_repeated_updates_do_not_matter(updates in proptest::collection::vec(updates(), 0..10)) {
            let twice: Vec<Heard> = updates.iter().flat_map(|it| [it.clone(), it.clone()]).collect();
            prop_assert_eq!(heard(&updates), heard(&twice));
        }

        #[test]
        fn g04_what_is_folded_stays_and_nothing_older_changes_it(
            mut updates in proptest::collection::vec((updates(), any::<bool>()), 0..20),
            late in proptest::collection::vec(updates(), 0..10),
        ) {
            updates.sort_by_key(|(said, _)| revision_of(said));
            let (mut plain, mut folded) = (Registry::new(), Registry::new());
            for (said, folds) in updates {
                prop_assert_eq!(hear(&mut plain, &said), hear(&mut folded, &said));
                if folds {
                    folded.fold();
                }
                prop_assert_eq!(there(&plain), there(&folded));
                prop_assert_eq!(plain.heard(), folded.heard());
            }
            // What is late is merged as it would be without folding, or refused.
            for said in late {
                let before = folded.clone();
                if hear(&mut folded, &said).is_ok() {
                    prop_assert_eq!(hear(&mut plain, &said), Ok(()));
                } else {
                    prop_assert_eq!(&folded, &before);
                    continue;
                }
                prop_assert_eq!(there(&plain), there(&folded));
            }
        }
    }

    fn revision_of(said: &Heard) -> Revision {
        match said {
            Heard::All(snapshot) => snapshot.revision,
            Heard::Some(delta) => delta.revision,
        }
    }

    fn there(registry: &Registry) -> Vec<Arc<Instance>> {
        let mut there: Vec<_> = registry.instances().cloned().collect();
        there.sort();
        there
    }

    fn at(number: u64) -> Revision {
        Revision { epoch: 1, number }
    }

    fn names(registry: &Registry) -> Vec<&str> {
        let mut names: Vec<&str> = registry.instances().map(|it| &it.name[..]).collect();
        names.sort_unstable();
        names
    }

    #[test]
    fn g04_what_is_older_is_refused() {
        let mut registry = Registry::new();
        let all = Snapshot { revision: at(5), instances: vec![instance(1, 1), instance(2, 1)] };
        registry.merge_snapshot(all.clone()).unwrap();
        let put = |number, name| Delta {
            revision: at(number),
            changes: vec![Change::Put(instance(name, 1))],
        };
        assert_eq!(registry.merge_delta(put(4, 9)), Err(Refusal::Older));
        assert_eq!(registry.merge_delta(put(5, 9)), Err(Refusal::Older));
        assert_eq!(registry.merge_delta(put(7, 3)), Ok(()));
        let removed = Delta { revision: at(6), changes: vec![removed("3")] };
        assert_eq!(
            registry.merge_delta(removed),
            Ok(()),
            "heard late, and outdated by the one before"
        );
        assert_eq!(names(&registry), ["1", "2", "3"]);
        let old = Snapshot { revision: at(4), instances: vec![] };
        assert_eq!(registry.merge_snapshot(old), Err(Refusal::Older));
        let next = Snapshot { revision: at(8), instances: vec![instance(2, 1)] };
        registry.merge_snapshot(next).unwrap();
        assert_eq!(names(&registry), ["2"]);
        // A source that lost its log counts from the beginning, in another epoch.
        let reborn = Snapshot { revision: Revision { epoch: 2, number: 0 }, instances: vec![] };
        registry.merge_snapshot(reborn).unwrap();
        assert_eq!(registry.merge_snapshot(all), Err(Refusal::Older));
    }

    #[test]
    fn g09_a_million_instances_are_refused() {
        let mut registry = Registry::new();
        registry
            .merge_snapshot(Snapshot { revision: at(1), instances: vec![instance(1, 1)] })
            .unwrap();
        let before = registry.clone();
        let instances = vec![instance(1, 1); 10_001];
        let many = Snapshot { revision: at(2), instances: instances.clone() };
        assert_eq!(registry.merge_snapshot(many), Err(Refusal::TooMany));
        let changes = instances.into_iter().map(Change::Put).collect();
        assert_eq!(registry.merge_delta(Delta { revision: at(2), changes }), Err(Refusal::TooMany));
        assert_eq!(registry, before);
        // Nor in two halves.
        let half = |from: u16| {
            let of = |n: u16| Instance { name: n.to_string(), ..instance(1, 1) };
            (from..from + 6000).map(of).collect::<Vec<Instance>>()
        };
        let some = Snapshot { revision: at(2), instances: half(0) };
        registry.merge_snapshot(some.clone()).unwrap();
        let more =
            Delta { revision: at(3), changes: half(6000).into_iter().map(Change::Put).collect() };
        assert_eq!(registry.merge_delta(more.clone()), Err(Refusal::TooMany));
        let mut registry = Registry::new();
        registry.merge_delta(more).unwrap();
        assert_eq!(registry.merge_snapshot(some), Err(Refusal::TooMany));
    }

    #[test]
    fn g04_an_instance_is_known_by_its_service_and_its_name() {
        let mut registry = Registry::new();
        let other = Instance { service: "other".into(), ..instance(1, 1) };
        let instances = vec![instance(1, 1), other.clone()];
        registry.merge_snapshot(Snapshot { revision: at(1), instances }).unwrap();
        assert_eq!(registry.instances().count(), 2);
        let changes = vec![removed("1")];
        registry.merge_delta(Delta { revision: at(2), changes }).unwrap();
        assert_eq!(registry.instances().map(|it| (**it).clone()).collect::<Vec<_>>(), [other]);
    }

    #[test]
    fn g04_names_that_come_and_go_are_followed_for_ever() {
        let mut registry = Registry::new();
        let instances = vec![instance(1, 1)];
        registry.merge_snapshot(Snapshot { revision: at(1), instances }).unwrap();
        let coming = |number: u64| Delta {
            revision: at(number),
            changes: vec![Change::Put(Instance { name: format!("n{number}"), ..instance(1, 1) })],
        };
        let mut number = 1;
        for _ in 0..20_000 {
            number += 1;
            registry.merge_delta(coming(number)).unwrap();
            let name = format!("n{number}");
            assert_eq!(registry.heard(), at(number));
            number += 1;
            let changes = vec![removed(&name)];
            registry.merge_delta(Delta { revision: at(number), changes }).unwrap();
        }
        assert_eq!(names(&registry), ["1"]);
        // What is forgotten does not come back, nor is what was there at the time taken for what is there now.
        let before = registry.clone();
        for late in [2, 4, 10_000, 20_000] {
            assert_eq!(registry.merge_delta(coming(late)), Err(Refusal::Older), "{late}");
        }
        let old = Snapshot { revision: at(2), instances: vec![instance(2, 1)] };
        assert_eq!(registry.merge_snapshot(old), Err(Refusal::Older));
        assert_eq!(registry, before);
        // What is late by little is known to be outdated.
        registry.merge_delta(coming(number - 1)).unwrap();
        assert_eq!(names(&registry), ["1"]);
        let all = Snapshot { revision: at(number), instances: vec![instance(2, 1)] };
        registry.merge_snapshot(all).unwrap();
        assert_eq!(names(&registry), ["2"]);
    }

    #[test]
    fn g09_as_many_changes_of_one_revision_are_refused_and_no_more_than_that() {
        let mut registry = Registry::new();
        let gone = |number: u64, names: std::ops::Range<u32>| Delta {
            revision: at(number),
            changes: names.map(|name| removed(&name.to_string())).collect(),
        };
        registry.merge_delta(gone(1, 0..6000)).unwrap();
        let before = registry.clone();
        assert_eq!(registry.merge_delta(gone(1, 6000..12_000)), Err(Refusal::TooMany));
        assert_eq!(registry, before);
        // A part of a revision may be yet to come, so the last one is not closed.
        registry.merge_delta(gone(2, 6000..12_000)).unwrap();
        registry.merge_delta(gone(2, 12_000..16_000)).unwrap();
        assert_eq!(registry.merge_delta(gone(1, 0..1)), Err(Refusal::Older));
    }
}
