//! What a node knows, as a value: no clock, no network.
//!
//! Of all that is said of an instance the latest counts, by [`Stamp`]. So it does not matter in which order nodes hear of
//! something, or how often: they come to the same (a last-writer-wins map; Shapiro and others, *A comprehensive study of
//! Convergent and Commutative Replicated Data Types*, 2011). What is not said is who has not been heard of for longer
//! than its lease: each node sees that for itself, so that one which is cut off does not take away what others can see.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use ringcall::cluster::Instant;
use ringcall::cluster::discovery::{Instance, format_list, read_list};

use crate::{Key, Refused, Said, Stamp};

/// How many instances of a service there may be: as many as those who call it take.
pub(crate) const OF_A_SERVICE_MAX: usize = 10_000;

/// How far ahead of this node's a time may be. Beyond that a clock is wrong, and to follow it would put all that is said
/// from then on ahead of the others' clocks.
pub(crate) const AHEAD_MAX_MS: u64 = 24 * 60 * 60 * 1000;

/// What of a book can be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) instances_max: usize,
    /// For how long instances of a node that cannot be heard are kept beyond their lease.
    pub(crate) orphans: Duration,
    /// For how long it is remembered that an instance has left.
    pub(crate) memory: Duration,
}

#[derive(Debug)]
pub(crate) struct Book {
    node: u64,
    limits: Limits,
    /// The latest time that was said or heard.
    time: u64,
    entries: BTreeMap<Key, Entry>,
    /// How many instances each service has that are there.
    counts: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    stamp: Stamp,
    /// When this node heard of it, or of its last renewal.
    heard: Instant,
    /// `None` if it has left.
    there: Option<There>,
    /// Whether watchers are told that it is there.
    is_listed: bool,
}

#[derive(Clone, Debug)]
struct There {
    instance: Arc<Instance>,
    lease: Duration,
}

impl There {
    fn lease_ms(&self) -> u32 {
        u32::try_from(self.lease.as_millis()).unwrap_or(u32::MAX)
    }
}

/// What watchers are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Arc<Instance>),
    Removed(Key),
}

/// What became of something that was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// It was news: other nodes are to be told.
    pub(crate) is_news: bool,
    pub(crate) change: Option<Change>,
}

impl Book {
    pub(crate) fn new(node: u64, limits: Limits) -> Book {
        let (entries, counts) = (BTreeMap::new(), BTreeMap::new());
        Book { node, limits, time: 0, entries, counts }
    }

    /// A time that is later than all that was said or heard.
    pub(crate) fn tick(&mut self, wall_ms: u64) -> u64 {
        self.time = wall_ms.max(self.time.saturating_add(1));
        self.time
    }

    /// Goes beyond what somebody has heard elsewhere.
    pub(crate) fn witness(&mut self, wall_ms: u64, time: u64) -> Result<(), Refused> {
        if time > wall_ms.max(self.time).saturating_add(AHEAD_MAX_MS) {
            return Err(Refused::FromTheFuture);
        }
        self.time = self.time.max(time);
        Ok(())
    }

    fn stamp(&mut self, wall_ms: u64) -> Stamp {
        Stamp { time: self.tick(wall_ms), node: self.node }
    }

    // ---- what instances say to this node ----

    /// What is to be said of an instance that registers.
    pub(crate) fn register(
        &mut self,
        wall_ms: u64,
        instance: &str,
        lease_ms: u32,
        registered_ms: Option<u64>,
    ) -> Result<(u64, Said), Refused> {
        let mut read = read(instance).map_err(|what| Refused::BadInstance { what })?;
        let key = key_of(&read);
        let before = self.entries.get(&key).filter(|entry| entry.is_listed);
        let before = before.and_then(|entry| entry.there.as_ref());
        if before.is_none() {
            self.expect_room(&key)?;
        }
        // It may say itself since when it is there if it was registered before, but not that it will be.
        let since = before.and_then(|there| there.instance.registered_ms).or(registered_ms);
        let registered_ms = since.map_or(wall_ms, |since| since.min(wall_ms));
        read.registered_ms = Some(registered_ms);
        let instance = line(&read);
        let stamp = self.stamp(wall_ms);
        Ok((registered_ms, Said::Put { instance, lease_ms, stamp }))
    }

    fn expect_room(&self, key: &Key) -> Result<(), Refused> {
        let full =
            |max: usize| Refused::Full { instances_max: u32::try_from(max).unwrap_or(u32::MAX) };
        if !self.entries.contains_key(key) && self.entries.len() >= self.limits.instances_max {
            return Err(full(self.limits.instances_max));
        }
        if self.counts.get(&key.service).is_some_and(|count| *count >= OF_A_SERVICE_MAX) {
            return Err(full(OF_A_SERVICE_MAX));
        }
        Ok(())
    }

    /// What is to be said of an instance that is still there.
    pub(crate) fn renew(&mut self, wall_ms: u64, key: &Key) -> Result<Said, Refused> {
        let entry = self.entries.get(key).filter(|entry| entry.is_listed);
        let there = entry.and_then(|entry| entry.there.as_ref()).ok_or(Refused::Unknown)?;
        let (instance, lease_ms) = (line(&there.instance), there.lease_ms());
        Ok(Said::Put { instance, lease_ms, stamp: self.stamp(wall_ms) })
    }

    /// What is to be said of an instance that leaves, if it is known.
    pub(crate) fn withdraw(&mut self, wall_ms: u64, key: Key) -> Option<Said> {
        self.entries.get(&key)?.there.as_ref()?;
        Some(Said::Removed { key, stamp: self.stamp(wall_ms) })
    }

    // ---- what anybody has said ----

    /// Takes what was said, here or elsewhere. What makes no sense is no news.
    pub(crate) fn merge(
        &mut self,
        now: Instant,
        wall_ms: u64,
        said: &Said,
    ) -> Result<Merged, Refused> {
        let (Said::Put { stamp, .. } | Said::Removed { stamp, .. }) = said else {
            return Ok(Merged::default());
        };
        self.witness(wall_ms, stamp.time)?;
        Ok(self.merge_said(now, said))
    }

    fn merge_said(&mut self, now: Instant, said: &Said) -> Merged {
        match said {
            Said::Node { .. } => Merged::default(),
            Said::Put { instance, lease_ms, stamp } => {
                let Ok(instance) = read(instance) else { return Merged::default() };
                let lease = Duration::from_millis((*lease_ms).into());
                let there = There { instance: Arc::new(instance), lease };
                self.put(now, there, *stamp)
            }
            Said::Removed { key, stamp } => self.removed(now, key, *stamp),
        }
    }

    fn put(&mut self, now: Instant, there: There, stamp: Stamp) -> Merged {
        let key = key_of(&there.instance);
        let is_later = self.entries.get(&key).is_none_or(|entry| entry.stamp < stamp);
        if !is_later || self.expect_room(&key).is_err() && !self.is_listed(&key) {
            return Merged::default();
        }
        let instance = Arc::clone(&there.instance);
        let entry = Entry { stamp, heard: now, there: Some(there), is_listed: true };
        let before = self.entries.insert(key.clone(), entry);
        let before = before.filter(|entry| entry.is_listed).and_then(|entry| entry.there);
        if before.is_none() {
            *self.counts.entry(key.service).or_default() += 1;
        }
        let is_other = before.is_none_or(|before| before.instance != instance);
        Merged { is_news: true, change: is_other.then_some(Change::Put(instance)) }
    }

    fn removed(&mut self, now: Instant, key: &Key, stamp: Stamp) -> Merged {
        let known = self.entries.get(key);
        let is_later = known.is_none_or(|entry| entry.stamp < stamp);
        let has_room = known.is_some() || self.entries.len() < self.limits.instances_max;
        if !is_later || !has_room {
            return Merged::default();
        }
        let was_listed = self.unlist(key);
        // It is remembered, so that what was said before it is not taken for news when it comes later.
        let entry = Entry { stamp, heard: now, there: None, is_listed: false };
        self.entries.insert(key.clone(), entry);
        Merged { is_news: true, change: was_listed.then(|| Change::Removed(key.clone())) }
    }

    fn is_listed(&self, key: &Key) -> bool {
        self.entries.get(key).is_some_and(|entry| entry.is_listed)
    }

    /// Says whether it was listed.
    fn unlist(&mut self, key: &Key) -> bool {
        let Some(entry) = self.entries.get_mut(key).filter(|entry| entry.is_listed) else {
            return false;
        };
        entry.is_listed = false;
        if let Some(count) = self.counts.get_mut(&key.service) {
            *count -= 1;
            if *count == 0 {
                self.counts.remove(&key.service);
            }
        }
        true
    }

    // ---- time ----

    /// Time has passed: those that were not heard of within their lease are not there any more. Of those that another node
    /// was told of last, only if that node can be heard; otherwise it is the node that is missing, and not they.
    pub(crate) fn sweep(&mut self, now: Instant, can_hear: impl Fn(u64) -> bool) -> Vec<Key> {
        let limits = self.limits;
        let is_overdue = |entry: &Entry| {
            let lease = entry.there.as_ref().map_or(Duration::ZERO, |there| there.lease);
            let kept = if can_hear(entry.stamp.node) { lease } else { lease + limits.orphans };
            entry.is_listed && now.since(entry.heard) > kept
        };
        let overdue: Vec<Key> = self
            .entries
            .iter()
            .filter(|(_, entry)| is_overdue(entry))
            .map(|(key, _)| key.clone())
            .collect();
        for key in &overdue {
            self.unlist(key);
        }
        self.entries.retain(|_, entry| {
            let lease = entry.there.as_ref().map_or(Duration::ZERO, |there| there.lease);
            entry.is_listed || now.since(entry.heard) <= lease + limits.orphans + limits.memory
        });
        overdue
    }

    // ---- what there is ----

    /// All that another node should know.
    pub(crate) fn all(&self) -> Vec<Said> {
        let entries = self.entries.iter();
        let said = entries.filter_map(|(key, entry)| match &entry.there {
            Some(there) if entry.is_listed => Some(Said::Put {
                instance: line(&there.instance),
                lease_ms: there.lease_ms(),
                stamp: entry.stamp,
            }),
            // What was not heard of is not there, but nobody has said so.
            Some(_) => None,
            None => Some(Said::Removed { key: key.clone(), stamp: entry.stamp }),
        });
        said.collect()
    }

    /// The instances of a service that are there.
    pub(crate) fn instances(&self, service: &str) -> impl Iterator<Item = &Arc<Instance>> {
        let from = Key { service: service.to_owned(), name: String::new() };
        let entries = self.entries.range(from..).take_while(move |(key, _)| key.service == service);
        let listed = entries.filter(|(_, entry)| entry.is_listed);
        listed.filter_map(|(_, entry)| Some(&entry.there.as_ref()?.instance))
    }

    /// How many instances each service has.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, usize)> {
        self.counts.iter().map(|(service, count)| (service.as_str(), *count))
    }
}

pub(crate) fn key_of(instance: &Instance) -> Key {
    Key { service: instance.service.clone(), name: instance.name.clone() }
}

/// An instance as a line, with when it was registered.
pub(crate) fn line(instance: &Instance) -> String {
    format_list([instance]).trim_end().to_owned()
}

/// An instance from a line, if it is one.
pub(crate) fn read(line: &str) -> Result<Instance, String> {
    let instances = read_list(line).map_err(|bad| bad.what)?;
    let Ok([instance]) = <[Instance; 1]>::try_from(instances) else {
        return Err("one line is expected, with one instance".to_owned());
    };
    instance.check().map_err(|invalid| invalid.to_string())?;
    Ok(instance)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits {
        instances_max: 100,
        orphans: Duration::from_secs(60),
        memory: Duration::from_secs(600),
    };
    const WALL: u64 = 1_000_000;

    fn at(seconds: u64) -> Instant {
        Instant::from_nanos((1 + seconds) * 1_000_000_000)
    }

    fn key(name: &str) -> Key {
        Key { service: "quotes".into(), name: name.into() }
    }

    fn put(name: &str, weight: u32, time: u64, node: u64) -> Said {
        Said::Put {
            instance: format!("quotes {name} 127.0.0.1:7001 weight={weight}"),
            lease_ms: 15_000,
            stamp: Stamp { time, node },
        }
    }

    fn merge(book: &mut Book, now: Instant, wall_ms: u64, said: &Said) -> Merged {
        book.merge(now, wall_ms, said).expect("it is of a time that may be")
    }

    fn names(book: &Book) -> Vec<String> {
        book.instances("quotes").map(|instance| instance.name.clone()).collect()
    }

    /// What a book knows, but for when it heard of it.
    fn known(book: &Book) -> Vec<(Key, Stamp, Option<Arc<Instance>>)> {
        let entries = book.entries.iter();
        let known = entries.map(|(key, entry)| {
            (key.clone(), entry.stamp, entry.there.as_ref().map(|there| there.instance.clone()))
        });
        known.collect()
    }

    fn sayings() -> impl Strategy<Value = Vec<Said>> {
        let said = (0u8..4, 0u64..3, 1u64..20, 0u64..3).prop_map(|(name, kind, time, node)| {
            let name = name.to_string();
            match kind {
                // Of one node at one time there is one saying.
                0 => Said::Removed { key: key(&name), stamp: Stamp { time: time * 2, node } },
                _ => put(&name, (time + node) as u32, time * 2 + 1, node),
            }
        });
        proptest::collection::vec(said, 0..20)
    }

    proptest! {
        #[test]
        fn g08_nodes_that_hear_the_same_in_any_order_know_the_same(
            (one, other) in sayings().prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let mut books = [Book::new(1, LIMITS), Book::new(2, LIMITS)];
            for said in &one {
                merge(&mut books[0], at(0), WALL, said);
                // Once more is nothing new.
                prop_assert_eq!(merge(&mut books[0], at(0), WALL, said), Merged::default());
            }
            for said in &other {
                merge(&mut books[1], at(0), WALL, said);
            }
            prop_assert_eq!(known(&books[0]), known(&books[1]));
            // Nor is all that the other one knows.
            for said in books[1].all() {
                prop_assert_eq!(merge(&mut books[0], at(0), WALL, &said), Merged::default());
            }
            let counted: usize = books[0].services().map(|(_, count)| count).sum();
            prop_assert_eq!(counted, names(&books[0]).len());
        }

        #[test]
        fn whatever_a_line_says_is_an_instance_or_none(line in "\\PC{0,80}") {
            let mut book = Book::new(1, LIMITS);
            let _ = book.register(WALL, &line, 1000, None);
        }
    }

    #[test]
    fn an_instance_is_there_for_its_lease_from_when_it_was_last_heard_of() {
        let mut book = Book::new(1, LIMITS);
        let (since, said) = book.register(WALL, "quotes a 127.0.0.1:7001", 15_000, None).unwrap();
        assert_eq!(since, WALL);
        assert!(merge(&mut book, at(0), WALL, &said).change.is_some());
        let said = book.renew(WALL, &key("a")).unwrap();
        let renewed = merge(&mut book, at(10), WALL, &said);
        assert_eq!(renewed, Merged { is_news: true, change: None });
        assert!(book.sweep(at(25), |_| true).is_empty());
        assert_eq!(book.sweep(at(26), |_| true), [key("a")]);
        assert!(names(&book).is_empty());
        assert_eq!(book.renew(WALL, &key("a")), Err(Refused::Unknown));
        // It registers again, and has been there since it was first.
        let again = book.register(WALL + 9, "quotes a 127.0.0.1:7001", 15_000, Some(WALL));
        assert_eq!(again.unwrap().0, WALL);
        // But not since the future.
        let ahead = book.register(WALL + 9, "quotes b 127.0.0.1:7001", 15_000, Some(WALL + 99));
        assert_eq!(ahead.unwrap().0, WALL + 9);
    }

    #[test]
    fn g05_instances_of_a_node_that_cannot_be_heard_are_kept_for_a_while() {
        let mut book = Book::new(1, LIMITS);
        merge(&mut book, at(0), WALL, &put("a", 1, 10, 2));
        merge(&mut book, at(0), WALL, &put("b", 1, 10, 1));
        let hears_itself = |node| node == 1;
        assert_eq!(book.sweep(at(16), hears_itself), [key("b")]);
        assert!(book.sweep(at(74), hears_itself).is_empty());
        assert_eq!(book.sweep(at(76), hears_itself), [key("a")]);
        // One that has moved to a node that is heard is measured there.
        merge(&mut book, at(80), WALL, &put("c", 1, 10, 2));
        merge(&mut book, at(80), WALL, &put("c", 1, 11, 1));
        assert_eq!(book.sweep(at(96), hears_itself), [key("c")]);
    }

    #[test]
    fn g08_what_was_said_before_an_instance_left_does_not_bring_it_back() {
        let mut book = Book::new(1, LIMITS);
        merge(&mut book, at(0), WALL, &put("a", 1, 10, 2));
        let left = Said::Removed { key: key("a"), stamp: Stamp { time: 12, node: 3 } };
        assert_eq!(merge(&mut book, at(1), WALL, &left).change, Some(Change::Removed(key("a"))));
        assert_eq!(merge(&mut book, at(2), WALL, &put("a", 2, 11, 2)), Merged::default());
        // Once it is forgotten, whoever still has it does not list it either: its lease is over by then.
        assert!(book.sweep(at(3), |_| true).is_empty());
        assert_eq!(known(&book).len(), 1);
        assert!(book.sweep(at(700), |_| true).is_empty());
        assert!(known(&book).is_empty());
    }

    #[test]
    fn a_clock_that_is_a_day_ahead_is_not_followed() {
        let mut book = Book::new(1, LIMITS);
        let ahead = put("a", 1, WALL + AHEAD_MAX_MS + 1, 2);
        assert_eq!(book.merge(at(0), WALL, &ahead), Err(Refused::FromTheFuture));
        assert_eq!(book.witness(WALL, u64::MAX), Err(Refused::FromTheFuture));
        assert!(merge(&mut book, at(0), WALL, &put("a", 1, WALL + AHEAD_MAX_MS, 2)).is_news);
        // What is said next is later all the same.
        assert!(book.tick(WALL) > WALL + AHEAD_MAX_MS);
    }

    #[test]
    fn there_is_a_bound_of_what_is_kept() {
        let mut book = Book::new(1, LIMITS);
        for number in 0..100 {
            let line = format!("quotes {number} 127.0.0.1:7001");
            let (_, said) = book.register(WALL, &line, 1000, None).unwrap();
            assert!(merge(&mut book, at(0), WALL, &said).is_news);
        }
        let full = book.register(WALL, "quotes more 127.0.0.1:7001", 1000, None);
        assert_eq!(full.unwrap_err(), Refused::Full { instances_max: 100 });
        assert_eq!(
            merge(&mut book, at(0), WALL, &put("more", 1, WALL + 500, 2)),
            Merged::default()
        );
        let left = Said::Removed { key: key("other"), stamp: Stamp { time: WALL + 500, node: 2 } };
        assert_eq!(merge(&mut book, at(0), WALL, &left), Merged::default());
        // Those that are there may say something else of themselves.
        assert!(book.register(WALL, "quotes 7 127.0.0.1:7002", 1000, None).is_ok());
    }
}
