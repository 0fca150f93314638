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

use crate::stamp::Ahead;
use crate::{Key, Refused, Said, Stamp};

/// How many instances of a service there may be: as many as those who call it take.
pub(crate) const OF_A_SERVICE_MAX: usize = 10_000;

/// Of an instance, as a line.
const LINE_BYTES_MAX: usize = 64 * 1024;

/// Of what else is kept for each.
const ENTRY_BYTES: usize = 512;

/// What of a book can be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) instances_max: usize,
    pub(crate) bytes_max: usize,
    pub(crate) lease_max: Duration,
    /// For how long instances are kept beyond their lease while other nodes cannot be heard.
    pub(crate) orphans: Duration,
    /// For how long it is remembered that an instance has left, beyond that.
    pub(crate) memory: Duration,
}

#[derive(Debug)]
pub(crate) struct Book {
    node: u64,
    limits: Limits,
    entries: BTreeMap<Key, Entry>,
    /// How many of them have left.
    gone: usize,
    /// What those take that have not.
    bytes: usize,
    /// How many instances each service has that are there.
    counts: BTreeMap<String, usize>,
}

#[derive(Clone, Debug)]
struct Entry {
    stamp: Stamp,
    /// When it was said last that it is there, or that it has left.
    heard: Instant,
    lease: Duration,
    /// The process that it is, or was.
    incarnation: u64,
    /// `None` if it has left.
    there: Option<There>,
    /// Whether watchers are told that it is there.
    is_listed: bool,
}

#[derive(Clone, Debug)]
pub(crate) struct There {
    pub(crate) instance: Arc<Instance>,
    pub(crate) line: Arc<str>,
}

impl There {
    fn bytes(&self) -> usize {
        ENTRY_BYTES + self.line.len()
    }
}

/// An instance that wants to be found, once its line was read.
#[derive(Debug)]
pub(crate) struct Registering {
    pub(crate) instance: Instance,
    pub(crate) lease: Duration,
    pub(crate) incarnation: u64,
    /// If this is not the first time.
    pub(crate) registered_ms: Option<u64>,
}

/// What watchers are to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Change {
    Put(Key, Arc<str>),
    Removed(Key),
}

/// What became of something that was said.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Merged {
    /// It was news: other nodes are to be told, what was said or what is to be said instead.
    pub(crate) is_news: bool,
    pub(crate) instead: Option<Said>,
    pub(crate) change: Option<Change>,
}

impl Book {
    pub(crate) fn new(node: u64, limits: Limits) -> Book {
        Book { node, limits, entries: BTreeMap::new(), gone: 0, bytes: 0, counts: BTreeMap::new() }
    }

    /// Later than all that was said of this instance.
    fn stamp(&self, wall_ms: u64, key: &Key) -> Stamp {
        let before = self.entries.get(key).map(|entry| entry.stamp);
        Stamp::after(before, wall_ms, self.node)
    }

    fn listed(&self, key: &Key) -> Option<&Entry> {
        self.entries.get(key).filter(|entry| entry.is_listed)
    }

    fn has_left(&self, key: &Key, incarnation: u64) -> bool {
        let entry = self.entries.get(key).filter(|entry| entry.there.is_none());
        entry.is_some_and(|entry| entry.incarnation == incarnation)
    }

    // ---- what instances say to this node ----

    /// What is to be said of an instance that registers, for the first time or to say that it is still there; and since
    /// when it has been registered.
    pub(crate) fn register(
        &self,
        wall_ms: u64,
        registering: Registering,
    ) -> Result<(u64, Said), Refused> {
        let Registering { mut instance, lease, incarnation, registered_ms } = registering;
        let key = key_of(&instance);
        if self.has_left(&key, incarnation) {
            return Err(Refused::Left);
        }
        let before = self.listed(&key);
        let same = before.filter(|entry| entry.incarnation == incarnation);
        // Who comes later under the same name takes it; who was there before is told so.
        if before.is_some() && same.is_none() && registered_ms.is_some() {
            return Err(Refused::Replaced);
        }
        // It may say itself since when it is there, but not that it will be.
        let known = same.and_then(|entry| entry.there.as_ref());
        let since = known.and_then(|there| there.instance.registered_ms).or(registered_ms);
        let registered_ms = since.map_or(wall_ms, |since| since.min(wall_ms));
        instance.registered_ms = Some(registered_ms);
        let line = line(&instance);
        self.expect_room(&key, line.len())?;
        let (lease_ms, stamp) = (ms(lease), self.stamp(wall_ms, &key));
        let said = Said::Put { instance: line, lease_ms, incarnation, age_ms: 0, stamp };
        Ok((registered_ms, said))
    }

    fn expect_room(&self, key: &Key, line_bytes: usize) -> Result<(), Refused> {
        let full =
            |max: usize| Refused::Full { instances_max: u32::try_from(max).unwrap_or(u32::MAX) };
        let entry = self.entries.get(key);
        let before = entry.and_then(|entry| entry.there.as_ref());
        if before.is_none() && self.entries.len() - self.gone >= self.limits.instances_max {
            return Err(full(self.limits.instances_max));
        }
        let is_listed = entry.is_some_and(|entry| entry.is_listed);
        if !is_listed && self.counts.get(&key.service).is_some_and(|it| *it >= OF_A_SERVICE_MAX) {
            return Err(full(OF_A_SERVICE_MAX));
        }
        let bytes = self.bytes - before.map_or(0, There::bytes) + ENTRY_BYTES + line_bytes;
        if bytes > self.limits.bytes_max {
            return Err(full(self.entries.len() - self.gone));
        }
        Ok(())
    }

    /// What is to be said of an instance that leaves. `None` if another process has its name by now.
    pub(crate) fn withdraw(
        &self,
        wall_ms: u64,
        key: Key,
        incarnation: u64,
        lease_ms: u32,
    ) -> Option<Said> {
        let listed = self.listed(&key);
        if listed.is_some_and(|entry| entry.incarnation != incarnation) {
            return None;
        }
        let stamp = self.stamp(wall_ms, &key);
        Some(Said::Removed { key, incarnation, lease_ms, age_ms: 0, stamp })
    }

    // ---- what anybody has said ----

    /// Takes what this node itself says.
    pub(crate) fn take_own(&mut self, now: Instant, said: &Said) -> Merged {
        match said {
            Said::Node { .. } | Said::UpToDate => Merged::default(),
            Said::Put { instance, lease_ms, incarnation, age_ms, stamp } => {
                let Ok(instance) = read(instance) else { return Merged::default() };
                let line = line(&instance).into();
                self.put(Entry {
                    stamp: *stamp,
                    heard: ago(now, *age_ms),
                    lease: self.lease(*lease_ms),
                    incarnation: *incarnation,
                    there: Some(There { instance: Arc::new(instance), line }),
                    is_listed: true,
                })
            }
            Said::Removed { key, incarnation, lease_ms, age_ms, stamp } => {
                let known = self.entries.get(key).map_or(Duration::ZERO, |entry| entry.lease);
                let entry = Entry {
                    stamp: *stamp,
                    heard: ago(now, *age_ms),
                    lease: self.lease(*lease_ms).max(known),
                    incarnation: *incarnation,
                    there: None,
                    is_listed: false,
                };
                self.removed(key, entry)
            }
        }
    }

    /// Takes what another node says. What makes no sense is no news.
    ///
    /// # Errors
    /// When it is of a time that is too far ahead of this node's clock.
    pub(crate) fn merge(
        &mut self,
        now: Instant,
        wall_ms: u64,
        said: &Said,
    ) -> Result<Merged, Ahead> {
        if let Said::Put { stamp, .. } | Said::Removed { stamp, .. } = said {
            stamp.believed(wall_ms)?;
        }
        Ok(self.take_own(now, said))
    }

    fn lease(&self, lease_ms: u32) -> Duration {
        Duration::from_millis(lease_ms.into()).min(self.limits.lease_max)
    }

    fn put(&mut self, entry: Entry) -> Merged {
        let Some(there) = entry.there.clone() else { return Merged::default() };
        let key = key_of(&there.instance);
        let is_later = self.entries.get(&key).is_none_or(|before| before.stamp < entry.stamp);
        if !is_later || self.expect_room(&key, there.line.len()).is_err() {
            return Merged::default();
        }
        if self.has_left(&key, entry.incarnation) {
            return self.say_again_that_it_left(key, entry.stamp);
        }
        let listed = self.listed(&key).and_then(|before| before.there.as_ref());
        let is_other = listed.is_none_or(|before| before.line != there.line);
        self.insert(key.clone(), entry);
        let change = is_other.then_some(Change::Put(key, there.line));
        Merged { is_news: true, instead: None, change }
    }

    fn removed(&mut self, key: &Key, entry: Entry) -> Merged {
        let before = self.entries.get(key).filter(|before| before.stamp >= entry.stamp);
        let said_late = match before {
            None => None,
            // A process does not come back: that it is there was said by a node that had not heard that it left.
            Some(before) if before.there.is_some() && before.incarnation == entry.incarnation => {
                Some(before.stamp)
            }
            Some(_) => return Merged::default(),
        };
        let was_listed = self.listed(key).is_some();
        // It is remembered, so that what was said before it is not taken for news when it comes later; as far as there is
        // room for that.
        match self.gone < self.limits.instances_max {
            true => self.insert(key.clone(), entry),
            false => self.forget(key),
        }
        let merged = match said_late {
            None => Merged { is_news: true, ..Merged::default() },
            Some(stamp) => self.say_again_that_it_left(key.clone(), stamp),
        };
        Merged { change: was_listed.then(|| Change::Removed(key.clone())), ..merged }
    }

    /// Of a process that has left it was said, as of later, that it is there. All others are told that it left, as of later
    /// than that.
    fn say_again_that_it_left(&mut self, key: Key, stamp: Stamp) -> Merged {
        let Some(entry) = self.entries.get_mut(&key) else { return Merged::default() };
        let stamp = Stamp { time: stamp.time.saturating_add(1), node: self.node };
        entry.stamp = stamp;
        let (incarnation, lease_ms) = (entry.incarnation, ms(entry.lease));
        let said = Said::Removed { key, incarnation, lease_ms, age_ms: 0, stamp };
        Merged { is_news: true, instead: Some(said), change: None }
    }

    // ---- entries, and what is counted of them ----

    fn insert(&mut self, key: Key, entry: Entry) {
        self.forget(&key);
        match &entry.there {
            Some(there) => self.bytes += there.bytes(),
            None => self.gone += 1,
        }
        if entry.is_listed {
            *self.counts.entry(key.service.clone()).or_default() += 1;
        }
        self.entries.insert(key, entry);
    }

    fn forget(&mut self, key: &Key) {
        self.unlist(key);
        let Some(entry) = self.entries.remove(key) else { return };
        match &entry.there {
            Some(there) => self.bytes -= there.bytes(),
            None => self.gone -= 1,
        }
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

    /// Nobody was heard for so long, since this process stood still, or its clock has jumped: that is not theirs.
    pub(crate) fn stood_still(&mut self, time: Duration) {
        for entry in self.entries.values_mut() {
            entry.heard = entry.heard + time;
        }
    }

    /// Time has passed: those that were not heard of within their lease are not there any more. `up_to_date` is how far all
    /// other nodes have told what they know: an instance may have been renewed at any of them, so it is missed only if
    /// they have said nothing of it since its lease ended; or, if they cannot be heard, when it is an orphan for too long.
    pub(crate) fn sweep(&mut self, now: Instant, up_to_date: Instant) -> Vec<Key> {
        let limits = self.limits;
        let is_missed = |entry: &Entry| {
            let due = entry.heard + entry.lease;
            entry.is_listed && now > due && (up_to_date > due || now > due + limits.orphans)
        };
        let missed = self.entries.iter().filter(|(_, entry)| is_missed(entry));
        let missed: Vec<Key> = missed.map(|(key, _)| key.clone()).collect();
        for key in &missed {
            self.unlist(key);
        }
        let is_over = |entry: &Entry| {
            !entry.is_listed && now > entry.heard + entry.lease + limits.orphans + limits.memory
        };
        let over = self.entries.iter().filter(|(_, entry)| is_over(entry));
        for key in over.map(|(key, _)| key.clone()).collect::<Vec<_>>() {
            self.forget(&key);
        }
        missed
    }

    // ---- what there is ----

    /// All that another node should know, to be said when it is asked for.
    pub(crate) fn all(&self, now: Instant) -> Vec<Known> {
        // What was not heard of is not there, but nobody has said so.
        let known = self.entries.iter().filter(|(_, it)| it.is_listed || it.there.is_none());
        known.map(|(key, entry)| Known { key: key.clone(), entry: entry.clone(), now }).collect()
    }

    /// The instances of a service that are there.
    pub(crate) fn instances(&self, service: &str) -> impl Iterator<Item = &Arc<str>> {
        let from = Key { service: service.to_owned(), name: String::new() };
        let entries = self.entries.range(from..).take_while(move |(key, _)| key.service == service);
        let listed = entries.filter(|(_, entry)| entry.is_listed);
        listed.filter_map(|(_, entry)| Some(&entry.there.as_ref()?.line))
    }

    /// How many instances each service has.
    pub(crate) fn services(&self) -> impl Iterator<Item = (&str, usize)> {
        self.counts.iter().map(|(service, count)| (service.as_str(), *count))
    }
}

/// What a node knows of an instance.
#[derive(Debug)]
pub(crate) struct Known {
    key: Key,
    entry: Entry,
    /// When that was.
    now: Instant,
}

impl Known {
    pub(crate) fn say(self) -> Said {
        let Known { key, entry, now } = self;
        let (lease_ms, age_ms) = (ms(entry.lease), ms(now.since(entry.heard)));
        let (stamp, incarnation) = (entry.stamp, entry.incarnation);
        match entry.there {
            Some(There { line, .. }) => {
                Said::Put { instance: line.as_ref().into(), lease_ms, incarnation, age_ms, stamp }
            }
            None => Said::Removed { key, incarnation, lease_ms, age_ms, stamp },
        }
    }
}

/// A time in milliseconds, as it is said.
pub(crate) fn ms(time: Duration) -> u32 {
    u32::try_from(time.as_millis()).unwrap_or(u32::MAX)
}

fn ago(now: Instant, age_ms: u32) -> Instant {
    Instant::from_nanos(now.as_nanos().saturating_sub(u64::from(age_ms) * 1_000_000))
}

pub(crate) fn key_of(instance: &Instance) -> Key {
    Key { service: instance.service.clone(), name: instance.name.clone() }
}

/// An instance as a line, with when it was registered.
pub(crate) fn line(instance: &Instance) -> String {
    format_list([instance]).trim_end().to_owned()
}

/// An instance from a line, if it is one; otherwise what is wrong, shortly.
pub(crate) fn read(line: &str) -> Result<Instance, String> {
    if line.len() > LINE_BYTES_MAX {
        return Err(format!("its line is longer than {} KiB", LINE_BYTES_MAX / 1024));
    }
    let short = |what: String| what.chars().take(200).collect::<String>();
    let instances = read_list(line).map_err(|bad| short(bad.what))?;
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
    use crate::stamp::AHEAD_MAX_MS;

    const LIMITS: Limits = Limits {
        instances_max: 100,
        bytes_max: 1 << 20,
        lease_max: Duration::from_secs(3600),
        orphans: Duration::from_secs(60),
        memory: Duration::from_secs(600),
    };
    const LEASE: Duration = Duration::from_secs(15);
    const WALL: u64 = 1_000_000;
    /// Who says everything in these tests, unless they are about that.
    const PROCESS: u64 = 7;

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
            incarnation: PROCESS,
            age_ms: 0,
            stamp: Stamp { time, node },
        }
    }

    fn gone(name: &str, time: u64, node: u64) -> Said {
        left(name, PROCESS, time, node)
    }

    fn left(name: &str, incarnation: u64, time: u64, node: u64) -> Said {
        let (key, stamp) = (key(name), Stamp { time, node });
        Said::Removed { key, incarnation, lease_ms: 15_000, age_ms: 0, stamp }
    }

    fn merge(book: &mut Book, now: Instant, said: &Said) -> Merged {
        book.merge(now, WALL, said).expect("it is of a time that may be")
    }

    /// An instance says that it is there.
    fn register(
        book: &mut Book,
        now: Instant,
        line: &str,
        incarnation: u64,
        registered_ms: Option<u64>,
    ) -> Result<(u64, Merged), Refused> {
        let instance = read(line).expect("an instance");
        let registering = Registering { instance, lease: LEASE, incarnation, registered_ms };
        let (since, said) = book.register(WALL, registering)?;
        Ok((since, book.take_own(now, &said)))
    }

    fn lines(book: &Book) -> Vec<String> {
        book.instances("quotes").map(|line| line.to_string()).collect()
    }

    fn names(book: &Book) -> Vec<String> {
        let name = |line: String| line.split(' ').nth(1).unwrap_or_default().to_owned();
        lines(book).into_iter().map(name).collect()
    }

    /// What a book knows, but for when it heard of it.
    fn known(book: &Book) -> Vec<(Key, Stamp, Option<Arc<str>>)> {
        let entries = book.entries.iter();
        let line = |entry: &Entry| entry.there.as_ref().map(|there| Arc::clone(&there.line));
        entries.map(|(key, entry)| (key.clone(), entry.stamp, line(entry))).collect()
    }

    /// Who leaves is this process, or one of which nothing else is said.
    fn sayings(leaving: u64) -> impl Strategy<Value = Vec<Said>> {
        let said =
            (0u8..4, 0u64..3, 1u64..20, 0u64..3).prop_map(move |(name, kind, time, node)| {
                let name = name.to_string();
                match kind {
                    // Of one node at one time there is one saying.
                    0 => left(&name, leaving, time * 2, node),
                    _ => put(&name, (time + node) as u32, time * 2 + 1, node),
                }
            });
        proptest::collection::vec(said, 0..20)
    }

    proptest! {
        #[test]
        fn g08_nodes_that_hear_the_same_in_any_order_know_the_same(
            (one, other) in sayings(PROCESS + 1).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let mut books = [Book::new(1, LIMITS), Book::new(2, LIMITS)];
            for said in &one {
                merge(&mut books[0], at(0), said);
                // Once more is nothing new.
                prop_assert_eq!(merge(&mut books[0], at(0), said), Merged::default());
            }
            for said in &other {
                merge(&mut books[1], at(0), said);
            }
            prop_assert_eq!(known(&books[0]), known(&books[1]));
            // Nor is all that the other one knows.
            for known in books[1].all(at(0)) {
                prop_assert_eq!(merge(&mut books[0], at(0), &known.say()), Merged::default());
            }
            let counted: usize = books[0].services().map(|(_, count)| count).sum();
            prop_assert_eq!(counted, names(&books[0]).len());
            let bytes = |entry: &Entry| entry.there.as_ref().map_or(0, There::bytes);
            prop_assert_eq!(books[0].bytes, books[0].entries.values().map(bytes).sum::<usize>());
            let gone = books[0].entries.values().filter(|entry| entry.there.is_none()).count();
            prop_assert_eq!(books[0].gone, gone);
        }

        #[test]
        fn g08_a_process_that_has_left_does_not_come_back_in_any_order(
            (one, other) in sayings(PROCESS).prop_flat_map(|all| (Just(all.clone()), Just(all).prop_shuffle()))
        ) {
            let mut books = [Book::new(8, LIMITS), Book::new(9, LIMITS)];
            // What each hears, and what the other one says to that.
            let mut said = [one.clone(), other];
            let mut rounds = 0;
            while said.iter().any(|said| !said.is_empty()) {
                let heard = std::mem::take(&mut said);
                for (number, heard) in heard.iter().enumerate() {
                    let told = heard.iter().map(|item| merge(&mut books[number], at(0), item));
                    said[1 - number].extend(told.filter_map(|merged| merged.instead));
                }
                rounds += 1;
                prop_assert!(rounds < 100, "they end");
            }
            prop_assert_eq!(known(&books[0]), known(&books[1]));
            for item in &one {
                if let Said::Removed { key, .. } = item {
                    prop_assert!(books[0].listed(key).is_none(), "{key:?} has left");
                }
            }
        }

        #[test]
        fn whatever_a_line_says_is_an_instance_or_none(line in "\\PC{0,80}") {
            let _ = read(&line);
        }
    }

    #[test]
    fn an_instance_is_there_for_its_lease_from_when_it_was_last_heard_of() {
        let mut book = Book::new(1, LIMITS);
        let line = "quotes a 127.0.0.1:7001";
        let (since, merged) = register(&mut book, at(0), line, PROCESS, None).unwrap();
        assert!(since == WALL && merged.change.is_some());
        let (again, merged) = register(&mut book, at(10), line, PROCESS, Some(since)).unwrap();
        assert_eq!((again, merged), (since, Merged { is_news: true, ..Merged::default() }));
        assert!(book.sweep(at(25), Instant::FAR).is_empty());
        assert_eq!(book.sweep(at(26), Instant::FAR), [key("a")]);
        assert!(names(&book).is_empty());
        // It says that it is there after all, and has been since it was first.
        let (again, merged) = register(&mut book, at(27), line, PROCESS, Some(since)).unwrap();
        assert!(again == since && merged.change.is_some());
        // But not since the future.
        let other = "quotes b 127.0.0.1:7001";
        let (since, _) = register(&mut book, at(27), other, PROCESS, Some(WALL + 99)).unwrap();
        assert_eq!(since, WALL);
    }

    #[test]
    fn who_starts_again_under_its_name_is_new_and_who_was_there_before_is_told() {
        let mut book = Book::new(1, LIMITS);
        register(&mut book, at(0), "quotes a 127.0.0.1:7001", 1, None).unwrap();
        register(&mut book, at(1), "quotes a 127.0.0.1:7002", 2, None).unwrap();
        assert!(lines(&book)[0].contains("127.0.0.1:7002"), "{:?}", lines(&book));
        let before = register(&mut book, at(2), "quotes a 127.0.0.1:7001", 1, Some(WALL));
        assert_eq!(before.unwrap_err(), Refused::Replaced);
        // Nor does it take the name with it when it leaves.
        assert_eq!(book.withdraw(WALL, key("a"), 1, 15_000), None);
        assert!(book.withdraw(WALL, key("a"), 2, 15_000).is_some());
        // When the other one is gone it has its name again.
        assert_eq!(book.sweep(at(20), Instant::FAR), [key("a")]);
        assert!(register(&mut book, at(21), "quotes a 127.0.0.1:7001", 1, Some(WALL)).is_ok());
    }

    #[test]
    fn g05_instances_are_kept_for_a_while_when_other_nodes_cannot_be_heard() {
        let mut book = Book::new(1, LIMITS);
        merge(&mut book, at(0), &put("a", 1, 10, 2));
        // What others know is known up to the fourteenth second: it may have been renewed there since.
        assert!(book.sweep(at(74), at(14)).is_empty());
        assert_eq!(book.sweep(at(76), at(14)), [key("a")]);
        // It was: that is known when they are heard again, and so it is there again.
        assert!(merge(&mut book, at(77), &put("a", 1, 11, 2)).change.is_some());
        // Somebody who says that much and nothing of it: it is missed at once.
        assert!(book.sweep(at(91), at(91)).is_empty());
        assert_eq!(book.sweep(at(93), at(93)), [key("a")]);
    }

    #[test]
    fn g05_what_another_node_knew_for_long_is_as_old_here() {
        let mut books = [Book::new(1, LIMITS), Book::new(2, LIMITS)];
        merge(&mut books[0], at(0), &put("a", 1, 10, 3));
        for known in books[0].all(at(10)) {
            merge(&mut books[1], at(100), &known.say());
        }
        assert!(books[1].sweep(at(105), Instant::FAR).is_empty());
        assert_eq!(books[1].sweep(at(106), Instant::FAR), [key("a")]);
    }

    #[test]
    fn a_process_that_stood_still_misses_nobody_for_that() {
        let mut book = Book::new(1, LIMITS);
        merge(&mut book, at(0), &put("a", 1, 10, 2));
        book.stood_still(Duration::from_secs(3600));
        assert!(book.sweep(at(3615), Instant::FAR).is_empty());
        assert_eq!(book.sweep(at(3616), Instant::FAR), [key("a")]);
    }

    #[test]
    fn g08_what_was_said_before_an_instance_left_does_not_bring_it_back() {
        let mut book = Book::new(1, LIMITS);
        merge(&mut book, at(0), &put("a", 1, 10, 2));
        let left = merge(&mut book, at(1), &gone("a", 12, 3));
        assert_eq!(left.change, Some(Change::Removed(key("a"))));
        assert_eq!(merge(&mut book, at(2), &put("a", 2, 11, 2)), Merged::default());
        // Nor what a node says of it later that has not heard so: it is told.
        let late = merge(&mut book, at(2), &put("a", 2, 50, 2));
        assert_eq!((late.change, late.instead), (None, Some(gone("a", 51, 1))));
        let again = register(&mut book, at(2), "quotes a 127.0.0.1:7001", PROCESS, Some(WALL));
        assert_eq!(again.unwrap_err(), Refused::Left);
        // It is remembered for longer than anybody has it: its lease, as an orphan, and ten minutes.
        assert!(book.sweep(at(675), Instant::FAR).is_empty());
        assert_eq!(known(&book).len(), 1);
        assert!(book.sweep(at(677), Instant::FAR).is_empty());
        assert!(known(&book).is_empty());
    }

    #[test]
    fn one_that_leaves_where_nobody_knows_it_has_left_all_the_same() {
        let mut book = Book::new(1, LIMITS);
        let said = book.withdraw(WALL, key("a"), PROCESS, 15_000).expect("it is said");
        assert!(book.take_own(at(0), &said).is_news);
        assert_eq!(merge(&mut book, at(1), &put("a", 1, 10, 2)), Merged::default());
    }

    #[test]
    fn a_clock_that_is_a_day_ahead_is_not_believed_and_carries_nobody_along() {
        let mut book = Book::new(1, LIMITS);
        let day = AHEAD_MAX_MS;
        assert_eq!(book.merge(at(0), WALL, &put("a", 1, WALL + day + 1, 2)), Err(Ahead));
        assert!(merge(&mut book, at(0), &put("a", 1, WALL + day, 2)).is_news);
        // What is said of it here is later; what is said of others is of this node's time.
        let (_, merged) = register(&mut book, at(1), "quotes a 127.0.0.1:1", 9, None).unwrap();
        assert!(merged.change.is_some());
        register(&mut book, at(1), "quotes b 127.0.0.1:1", 9, None).unwrap();
        assert_eq!(book.entries[&key("b")].stamp.time, WALL);
    }

    #[test]
    fn there_is_a_bound_of_what_is_kept() {
        let mut book = Book::new(1, LIMITS);
        for number in 0..100 {
            let line = format!("quotes {number} 127.0.0.1:7001");
            register(&mut book, at(0), &line, PROCESS, None).unwrap();
        }
        let more = "quotes more 127.0.0.1:7001";
        let full = register(&mut book, at(0), more, PROCESS, None);
        assert_eq!(full.unwrap_err(), Refused::Full { instances_max: 100 });
        assert_eq!(merge(&mut book, at(0), &put("more", 1, WALL + 500, 2)), Merged::default());
        // Those that are there may say something else of themselves, and those that leave make room.
        assert!(register(&mut book, at(0), "quotes 7 127.0.0.1:7002", PROCESS, None).is_ok());
        merge(&mut book, at(0), &gone("8", WALL + 9, 2));
        assert!(register(&mut book, at(0), more, PROCESS, None).is_ok());
        // As many are remembered, and no more.
        for number in 0..500 {
            merge(&mut book, at(1), &gone(&format!("x{number}"), WALL + 9, 2));
        }
        assert!(book.gone == 100 && book.entries.len() == 200);
    }

    #[test]
    fn there_is_a_bound_of_their_bytes_too() {
        let mut book = Book::new(1, Limits { bytes_max: 20_000, ..LIMITS });
        let long = "x".repeat(200);
        let tags: String = (0..30).map(|number| format!(" tag.{number}={long}")).collect();
        let line = |name: &str| format!("quotes {name} 127.0.0.1:1{tags}");
        assert!(register(&mut book, at(0), &line("a"), PROCESS, None).is_ok());
        assert!(register(&mut book, at(0), &line("b"), PROCESS, None).is_ok());
        assert!(register(&mut book, at(0), &line("c"), PROCESS, None).is_err());
        assert!(register(&mut book, at(0), &line("a"), PROCESS, None).is_ok());
        let error = read(&"x".repeat(LINE_BYTES_MAX + 1)).unwrap_err();
        assert_eq!(error, "its line is longer than 64 KiB");
    }
}
