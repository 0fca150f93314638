//! What a source has said, merged.
//!
//! The merge is a join: of two snapshots the later one counts, of two changes of one instance the later one,
//! and a snapshot outdates every change up to its revision. So it does not matter in which order updates
//! arrive, how often, or which of them were merged with each other before.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Instance;

/// How many instances a service may have.
const INSTANCES_MAX: usize = 10_000;

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
    /// All of them, by name. Of two with the same name the last one counts.
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
pub enum Change {
    /// It is there, and like this.
    Put(Instance),
    /// It is gone.
    Removed(String),
}

/// Why an update was not merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// A later snapshot has it already.
    Older,
    /// It would make more than 10 000 instances, or as many changes since the last snapshot.
    TooMany,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Refusal::Older => "a later snapshot has it already",
            Refusal::TooMany => "more than 10000 instances, or changes without a snapshot",
        })
    }
}

impl std::error::Error for Refusal {}

type Said = (Revision, Option<Arc<Instance>>);

/// What a source has said of a service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Registry {
    revision: Revision,
    base: BTreeMap<String, Arc<Instance>>,
    /// All of them later than the base.
    changes: BTreeMap<String, Said>,
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
    /// When it is older than another one, or too large; nothing is changed then.
    pub fn merge_snapshot(&mut self, snapshot: Snapshot) -> Result<(), Refusal> {
        let Snapshot { revision, instances } = snapshot;
        if instances.len() > INSTANCES_MAX {
            return Err(Refusal::TooMany);
        }
        if revision < self.revision {
            return Err(Refusal::Older);
        }
        let base = instances.into_iter().map(|it| (it.name.clone(), Arc::new(it))).collect();
        self.rebase(revision, base);
        Ok(())
    }

    /// Merges a delta.
    ///
    /// # Errors
    /// When a snapshot has it already, or there are too many changes without one; nothing is changed then.
    pub fn merge_delta(&mut self, delta: Delta) -> Result<(), Refusal> {
        if delta.revision <= self.revision {
            return Err(Refusal::Older);
        }
        if self.changes.len() + delta.changes.len() > INSTANCES_MAX {
            return Err(Refusal::TooMany);
        }
        for change in delta.changes {
            let (name, instance) = match change {
                Change::Put(instance) => (instance.name.clone(), Some(Arc::new(instance))),
                Change::Removed(name) => (name, None),
            };
            self.change(name, (delta.revision, instance));
        }
        Ok(())
    }

    /// Merges what another registry of the same source has heard.
    pub fn merge(&mut self, other: &Registry) {
        if other.revision >= self.revision {
            self.rebase(other.revision, other.base.clone());
        }
        for (name, change) in &other.changes {
            if change.0 > self.revision {
                self.change(name.clone(), change.clone());
            }
        }
    }

    /// Of when the last snapshot is.
    #[must_use]
    pub fn revision(&self) -> Revision {
        self.revision
    }

    /// What is there, by name.
    pub fn instances(&self) -> impl Iterator<Item = &Arc<Instance>> {
        let kept = self.base.iter().filter(|(name, _)| !self.changes.contains_key(*name));
        kept.map(|(_, it)| it).chain(self.changes.values().filter_map(|(_, it)| it.as_ref()))
    }

    fn rebase(&mut self, revision: Revision, base: BTreeMap<String, Arc<Instance>>) {
        // Two different snapshots of one revision are a fault of the source; whoever hears both comes to
        // the same.
        if revision == self.revision && base <= self.base {
            return;
        }
        self.revision = revision;
        self.base = base;
        self.changes.retain(|_, (at, _)| *at > revision);
    }

    fn change(&mut self, name: String, change: Said) {
        use std::collections::btree_map::Entry;
        match self.changes.entry(name) {
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
                0 => Change::Removed(name.to_string()),
                _ => Change::Put(instance(name, weight)),
            });
            Heard::Some(Delta { revision, changes: changes.collect() })
        });
        prop_oneof![all, some]
    }

    fn heard(all: &[Heard]) -> Registry {
        let mut registry = Registry::new();
        for said in all {
            let _older = match said.clone() {
                Heard::All(snapshot) => registry.merge_snapshot(snapshot),
                Heard::Some(delta) => registry.merge_delta(delta),
            };
        }
        registry
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
        fn g04_merging_is_a_join(
            a in proptest::collection::vec(updates(), 0..6),
            b in proptest::collection::vec(updates(), 0..6),
            c in proptest::collection::vec(updates(), 0..6),
        ) {
            let join = |one: &Registry, other: &Registry| {
                let mut one = one.clone();
                one.merge(other);
                one
            };
            let (x, y, z) = (heard(&a), heard(&b), heard(&c));
            prop_assert_eq!(join(&x, &x), x.clone());
            prop_assert_eq!(join(&x, &y), join(&y, &x));
            prop_assert_eq!(join(&join(&x, &y), &z), join(&x, &join(&y, &z)));
            // And it is the same as having heard both.
            prop_assert_eq!(join(&x, &y), heard(&[a, b].concat()));
        }
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
        let removed = Delta { revision: at(6), changes: vec![Change::Removed("3".into())] };
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
    }
}
