//! What a node knows of settings, as a value: no clock, no network, no disk.
//!
//! Of all that is said of a key the latest counts, by [`Stamp`], and of two with one stamp the larger text, so that nodes
//! come to the same in whatever order they hear something, and how often (a last-writer-wins map, as the
//! [book](crate::book) of instances is one).

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use ringcall::cluster::Instant;

use crate::directory::file_name;
use crate::settings::{KEY_BYTES_MAX, TEXT_BYTES_MAX};
use crate::stamp::Ahead;
use crate::{Condition, Declined, Listed, Setting, SettingNews, SettingRecord, Stamp};

/// Of what else is kept for each key.
const ENTRY_BYTES: usize = 512;

/// Nodes that could not hear each other may each have filled up.
const OF_OTHERS: usize = 2;

/// What of a shelf can be set.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Limits {
    pub(crate) keys_max: usize,
    pub(crate) bytes_max: usize,
}

#[derive(Debug)]
pub(crate) struct Shelf {
    limits: Limits,
    kept: BTreeMap<String, Kept>,
    /// All of them in the order in which they were taken, the latest last: who has been told up to a place is told what is
    /// behind it.
    order: BTreeMap<u64, Arc<SettingRecord>>,
    places: u64,
    /// How many of them are of keys that were removed.
    removed: usize,
    /// What the others take.
    bytes: usize,
}

#[derive(Debug)]
struct Kept {
    record: Arc<SettingRecord>,
    place: u64,
    /// When it was taken, or read from disk.
    since: Instant,
}

/// What is to become of something that another node says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It counts. `lost` was put without whoever put this having known it.
    Later { lost: Option<Stamp> },
    /// What is here counts, and so long as `is_lost`, whoever put that had not known this.
    Older { is_lost: bool },
    /// It is what is here.
    Known,
    /// It cannot be, or there is no room.
    NotTaken(&'static str),
}

impl SettingRecord {
    /// What is later counts.
    fn rank(&self) -> (Stamp, Option<&str>) {
        (self.version, self.text.as_deref())
    }

    /// Whether whoever put this may have known that.
    fn knew(&self, version: Stamp) -> bool {
        self.over >= Some(version)
    }

    fn bytes(&self) -> usize {
        self.text.as_ref().map_or(0, |text| ENTRY_BYTES + self.key.len() + text.len())
    }

    pub(crate) fn setting(&self) -> Option<Setting> {
        let SettingRecord { key, text, version, .. } = self;
        Some(Setting { key: key.clone(), text: text.clone()?, version: *version })
    }

    pub(crate) fn news(&self) -> SettingNews {
        match self.setting() {
            Some(setting) => SettingNews::Put { setting },
            None => SettingNews::Removed { key: self.key.clone(), version: self.version },
        }
    }

    /// Whether it can be, whoever says so.
    pub(crate) fn check(&self) -> Result<(), &'static str> {
        if !is_key(&self.key) {
            return Err("a key has 1 to 256 bytes and no control characters");
        }
        if self.text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err("a text has at most 256 KiB");
        }
        // Later than any clock, so that nothing could be put in place of it.
        if self.version.time > u64::MAX / 2 {
            return Err("it is of no time");
        }
        Ok(())
    }
}

pub(crate) fn is_key(key: &str) -> bool {
    (1..=KEY_BYTES_MAX).contains(&key.len()) && !key.chars().any(char::is_control)
}

impl Shelf {
    pub(crate) fn new(limits: Limits) -> Shelf {
        Shelf {
            limits,
            kept: BTreeMap::new(),
            order: BTreeMap::new(),
            places: 0,
            removed: 0,
            bytes: 0,
        }
    }

    pub(crate) fn get(&self, key: &str) -> Option<&Arc<SettingRecord>> {
        self.kept.get(key).map(|kept| &kept.record)
    }

    // ---- what operators say to this node ----

    /// What is to be kept when a text is put, or a key removed (`None`).
    pub(crate) fn change(
        &self,
        (wall_ms, node): (u64, u64),
        key: String,
        text: Option<String>,
        condition: Condition,
    ) -> Result<SettingRecord, Declined> {
        if !is_key(&key) {
            return Err(Declined::BadKey);
        }
        if text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
            return Err(Declined::TooLong { bytes_max: TEXT_BYTES_MAX as u32 });
        }
        let before = self.get(&key);
        let there = before.filter(|before| before.text.is_some());
        let holds = match condition {
            Condition::Any => true,
            Condition::Absent => there.is_none(),
            Condition::At { version } => there.is_some_and(|there| there.version == version),
        };
        if !holds {
            return Err(Declined::Conflict { there: there.and_then(|there| there.setting()) });
        }
        if text.is_none() && there.is_none() {
            return Err(Declined::NoSuchKey);
        }
        let over = before.map(|before| before.version);
        if over.is_some_and(|over| over.believed(wall_ms).is_err()) {
            return Err(Declined::Ahead { file: file_name(&key) });
        }
        let record = SettingRecord { key, text, version: Stamp::after(over, wall_ms, node), over };
        match self.has_room(&record, 1) {
            true => Ok(record),
            false => Err(self.full()),
        }
    }

    fn full(&self) -> Declined {
        let Limits { keys_max, bytes_max } = self.limits;
        Declined::Full {
            keys_max: u32::try_from(keys_max).unwrap_or(u32::MAX),
            bytes_max: bytes_max as u64,
        }
    }

    /// Whether it may be kept, within so many times the limits. What takes no more than what it replaces always may.
    fn has_room(&self, record: &SettingRecord, times: usize) -> bool {
        let before = self.get(&record.key);
        let has_text = |it: &SettingRecord| it.text.is_some();
        let same = before.is_some_and(|before| has_text(before) == has_text(record));
        let keys_max = self.limits.keys_max.saturating_mul(times);
        let keys = if has_text(record) { self.kept.len() - self.removed } else { self.removed };
        let before = before.map_or(0, |before| before.bytes());
        let is_no_more = record.bytes() <= before;
        let bytes_max = self.limits.bytes_max.saturating_mul(times);
        (same || keys < keys_max)
            && (is_no_more || self.bytes - before + record.bytes() <= bytes_max)
    }

    // ---- what anybody has said ----

    /// What is to become of what another node says.
    ///
    /// # Errors
    /// When it is of a time that is too far ahead of this node's clock.
    pub(crate) fn judge(&self, wall_ms: u64, record: &SettingRecord) -> Result<Verdict, Ahead> {
        record.version.believed(wall_ms)?;
        if let Err(what) = record.check() {
            return Ok(Verdict::NotTaken(what));
        }
        let before = self.get(&record.key);
        if let Some(before) = before.filter(|before| before.rank() >= record.rank()) {
            let is_known = before.version == record.version;
            let is_lost = !before.knew(record.version);
            return Ok(if is_known { Verdict::Known } else { Verdict::Older { is_lost } });
        }
        if !self.has_room(record, OF_OTHERS) {
            return Ok(Verdict::NotTaken("there is no room for it"));
        }
        let lost = before.map(|before| before.version).filter(|before| !record.knew(*before));
        Ok(Verdict::Later { lost })
    }

    /// Keeps what has been judged, or was read from disk.
    pub(crate) fn keep(&mut self, since: Instant, record: Arc<SettingRecord>) {
        self.forget(&record.key);
        self.bytes += record.bytes();
        self.removed += usize::from(record.text.is_none());
        let place = self.places;
        self.places += 1;
        self.order.insert(place, Arc::clone(&record));
        self.kept.insert(record.key.clone(), Kept { record, place, since });
    }

    pub(crate) fn forget(&mut self, key: &str) {
        let Some(Kept { record, place, .. }) = self.kept.remove(key) else { return };
        self.order.remove(&place);
        self.bytes -= record.bytes();
        self.removed -= usize::from(record.text.is_none());
    }

    /// Keys that were removed before this time of a wall clock, which may jump, and of which this node has known so for that long.
    pub(crate) fn removed_before(
        &self,
        time_ms: u64,
        (now, known): (Instant, Duration),
    ) -> impl Iterator<Item = &String> {
        let old = move |kept: &&Kept| {
            let Kept { record, since, .. } = kept;
            let is_old = record.text.is_none() && record.version.time < time_ms;
            is_old && now.since(*since) >= known
        };
        self.kept.values().filter(old).map(|kept| &kept.record.key)
    }

    // ---- what there is ----

    /// What was taken first behind a place (`None`: of all), and its place.
    pub(crate) fn behind(&self, place: Option<u64>) -> Option<(u64, &Arc<SettingRecord>)> {
        let from = place.map_or(Bound::Unbounded, Bound::Excluded);
        self.order.range((from, Bound::Unbounded)).next().map(|(place, record)| (*place, record))
    }

    /// The settings whose keys begin so and are behind that one.
    pub(crate) fn list<'a>(
        &'a self,
        prefix: &'a str,
        after: &'a str,
    ) -> impl Iterator<Item = Listed> + 'a {
        let from = if after >= prefix { Bound::Excluded(after) } else { Bound::Included(prefix) };
        let records = self.kept.range::<str, _>((from, Bound::Unbounded));
        let records = records.take_while(move |(key, _)| key.starts_with(prefix));
        records.filter_map(|(key, Kept { record, .. })| {
            let bytes = u32::try_from(record.text.as_ref()?.len()).unwrap_or(u32::MAX);
            Some(Listed { key: key.clone(), version: record.version, bytes })
        })
    }

    /// Settings, removed keys and bytes.
    pub(crate) fn counts(&self) -> [usize; 3] {
        [self.kept.len() - self.removed, self.removed, self.bytes]
    }

    /// Whether that is more than may be kept of what others say, too.
    pub(crate) fn is_beyond(&self) -> bool {
        let [keys, removed, bytes] = self.counts();
        let Limits { keys_max, bytes_max } = self.limits;
        let keys_max = keys_max.saturating_mul(OF_OTHERS);
        keys.max(removed) > keys_max || bytes > bytes_max.saturating_mul(OF_OTHERS)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::stamp::AHEAD_MAX_MS;

    const LIMITS: Limits = Limits { keys_max: 100, bytes_max: 1 << 20 };
    const WALL: u64 = 1_000_000;

    fn stamp(time: u64, node: u64) -> Stamp {
        Stamp { time, node }
    }

    fn record(key: &str, text: Option<&str>, version: Stamp, over: Option<Stamp>) -> SettingRecord {
        SettingRecord { key: key.to_owned(), text: text.map(str::to_owned), version, over }
    }

    fn put(shelf: &mut Shelf, key: &str, text: &str) -> Result<Stamp, Declined> {
        change(shelf, key, Some(text), Condition::Any)
    }

    fn change(
        shelf: &mut Shelf,
        key: &str,
        text: Option<&str>,
        condition: Condition,
    ) -> Result<Stamp, Declined> {
        let text = text.map(str::to_owned);
        let record = shelf.change((WALL, 1), key.to_owned(), text, condition)?;
        let version = record.version;
        shelf.keep(Instant::ZERO, Arc::new(record));
        Ok(version)
    }

    /// Takes what another node says.
    fn merge(shelf: &mut Shelf, record: &SettingRecord) -> Verdict {
        let verdict = shelf.judge(WALL, record).expect("it is of a time that may be");
        if is_news(verdict) {
            shelf.keep(Instant::ZERO, Arc::new(record.clone()));
        }
        verdict
    }

    fn is_news(verdict: Verdict) -> bool {
        matches!(verdict, Verdict::Later { .. })
    }

    fn known(shelf: &Shelf) -> Vec<SettingRecord> {
        shelf.kept.values().map(|kept| kept.record.as_ref().clone()).collect()
    }

    fn records() -> impl Strategy<Value = Vec<SettingRecord>> {
        let version = || (1u64..12, 0u64..3).prop_map(|(time, node)| stamp(time, node));
        let record = (0u8..4, proptest::option::of("[ab]{0,2}"), version()).prop_map(
            // Also two texts of one version, as no honest node says them.
            |(key, text, version)| record(&key.to_string(), text.as_deref(), version, None),
        );
        proptest::collection::vec(record, 0..24)
    }

    proptest! {
        #[test]
        fn g20_nodes_that_hear_the_same_in_any_order_and_how_often_know_the_same(
            (one, other) in records().prop_flat_map(|all| {
                let twice: Vec<_> = all.iter().chain(&all).cloned().collect();
                (Just(all), Just(twice).prop_shuffle())
            })
        ) {
            let mut shelves = [Shelf::new(LIMITS), Shelf::new(LIMITS)];
            for record in &one {
                merge(&mut shelves[0], record);
                prop_assert!(!is_news(merge(&mut shelves[0], record)));
            }
            for record in &other {
                merge(&mut shelves[1], record);
            }
            prop_assert_eq!(known(&shelves[0]), known(&shelves[1]));
            // Who begins to listen is told all of it, each once.
            let [first, _] = &shelves;
            let (mut told, mut place) = (Shelf::new(LIMITS), None);
            while let Some((next, record)) = first.behind(place) {
                prop_assert!(is_news(merge(&mut told, record)));
                place = Some(next);
            }
            prop_assert_eq!(known(first), known(&told));
            let all = known(first);
            let removed = all.iter().filter(|record| record.text.is_none()).count();
            let bytes = all.iter().map(SettingRecord::bytes).sum();
            prop_assert_eq!(first.counts(), [all.len() - removed, removed, bytes]);
        }

        #[test]
        fn whatever_another_node_says_what_is_kept_can_be(
            key in "\\PC{0,8}|[\\x00-\\x20]{0,3}|k{250,260}",
            length in prop_oneof![0usize..9, 262_140usize..262_150],
            time in any::<u64>(),
        ) {
            let mut shelf = Shelf::new(LIMITS);
            let text = "x".repeat(length);
            let said = record(&key, Some(&text), stamp(time, 1), None);
            if let Ok(Verdict::Later { .. }) = shelf.judge(WALL, &said) {
                shelf.keep(Instant::ZERO, Arc::new(said));
            }
            for kept in known(&shelf) {
                prop_assert!(kept.check().is_ok() && kept.version.time <= WALL + AHEAD_MAX_MS);
                // So somebody can put something in place of it.
                prop_assert!(put(&mut shelf, &kept.key, "").unwrap() > kept.version);
            }
        }
    }

    #[test]
    fn a_condition_is_what_has_to_be_there() {
        let mut shelf = Shelf::new(LIMITS);
        let there = |version, text: &str| {
            let setting = Setting { key: "a".into(), text: text.into(), version };
            Err(Declined::Conflict { there: Some(setting) })
        };
        let at = |version| Condition::At { version };
        let nothing = Err(Declined::Conflict { there: None });
        assert_eq!(change(&mut shelf, "a", Some("0"), at(stamp(1, 1))), nothing);
        let first = change(&mut shelf, "a", Some("1"), Condition::Absent).unwrap();
        assert_eq!(change(&mut shelf, "a", Some("2"), Condition::Absent), there(first, "1"));
        let second = change(&mut shelf, "a", Some("2"), at(first)).unwrap();
        assert!(second > first, "also within a millisecond");
        assert_eq!(change(&mut shelf, "a", Some("3"), at(first)), there(second, "2"));
        assert_eq!(change(&mut shelf, "a", None, at(first)), there(second, "2"));
        let removed = change(&mut shelf, "a", None, at(second)).unwrap();
        assert_eq!(change(&mut shelf, "a", None, Condition::Any), Err(Declined::NoSuchKey));
        assert_eq!(change(&mut shelf, "a", Some("4"), at(removed)), nothing);
        assert!(change(&mut shelf, "a", Some("4"), Condition::Absent).unwrap() > removed);
    }

    #[test]
    fn who_is_overwritten_by_somebody_who_did_not_know_is_told_apart() {
        let mut shelf = Shelf::new(LIMITS);
        let first = put(&mut shelf, "a", "1").unwrap();
        // Whoever put that had seen it, or something later.
        let (second, third) = (stamp(first.time + 1, 2), stamp(first.time + 2, 2));
        let after = merge(&mut shelf, &record("a", Some("3"), third, Some(second)));
        assert_eq!(after, Verdict::Later { lost: None });
        let late = merge(&mut shelf, &record("a", Some("2"), second, Some(first)));
        assert_eq!(late, Verdict::Older { is_lost: false });
        // Two that did not know each other: whichever comes first.
        let (one, other) = (stamp(third.time + 1, 3), stamp(third.time + 2, 4));
        merge(&mut shelf, &record("a", Some("4"), one, Some(third)));
        let over = merge(&mut shelf, &record("a", Some("5"), other, Some(third)));
        assert_eq!(over, Verdict::Later { lost: Some(one) });
        let under = merge(&mut shelf, &record("a", Some("4"), one, Some(third)));
        assert_eq!(under, Verdict::Older { is_lost: true });
        let again = merge(&mut shelf, &record("a", Some("5"), other, Some(third)));
        assert_eq!(again, Verdict::Known);
    }

    #[test]
    fn a_clock_that_is_a_day_ahead_is_not_believed() {
        let shelf = Shelf::new(LIMITS);
        let of = |time| record("a", Some("1"), stamp(time, 2), None);
        assert!(shelf.judge(WALL, &of(WALL + AHEAD_MAX_MS)).is_ok());
        assert_eq!(shelf.judge(WALL, &of(WALL + AHEAD_MAX_MS + 1)), Err(Ahead));
    }

    #[test]
    fn what_no_other_node_would_take_is_not_acknowledged() {
        let mut shelf = Shelf::new(LIMITS);
        // Its clock was wrong when it was put, and is not any more.
        let wrong = record("a", Some("1"), stamp(WALL + AHEAD_MAX_MS + 1, 1), None);
        shelf.keep(Instant::ZERO, Arc::new(wrong));
        let ahead = Err(Declined::Ahead { file: file_name("a") });
        assert_eq!(put(&mut shelf, "a", "2"), ahead);
        assert_eq!(change(&mut shelf, "a", None, Condition::Any), ahead);
        assert!(put(&mut shelf, "b", "2").is_ok(), "no other key is carried along");
    }

    #[test]
    fn there_is_a_bound_of_keys_and_of_those_that_were_removed() {
        let mut shelf = Shelf::new(Limits { keys_max: 3, ..LIMITS });
        let full = Err(Declined::Full { keys_max: 3, bytes_max: 1 << 20 });
        for key in ["a", "b", "c"] {
            put(&mut shelf, key, "1").unwrap();
        }
        assert_eq!(put(&mut shelf, "d", "1"), full);
        put(&mut shelf, "a", "2").unwrap();
        // Nodes that could not hear this one may each have as many.
        let of_others =
            |number: u64| record(&format!("other {number}"), Some("1"), stamp(WALL, number), None);
        for number in 0..3 {
            assert_eq!(merge(&mut shelf, &of_others(number)), Verdict::Later { lost: None });
        }
        let beyond = Verdict::NotTaken("there is no room for it");
        assert_eq!(merge(&mut shelf, &of_others(3)), beyond);
        for key in ["a", "b", "c"] {
            change(&mut shelf, key, None, Condition::Any).unwrap();
        }
        assert_eq!(change(&mut shelf, "other 0", None, Condition::Any), full);
        // Until some are forgotten.
        let removed = |now| -> Vec<_> {
            shelf.removed_before(WALL + 3, (now, Duration::from_secs(1))).collect()
        };
        assert_eq!(removed(Instant::ZERO + Duration::from_secs(1)), ["a", "b", "c"]);
        assert!(removed(Instant::ZERO).is_empty(), "it has known so for no time");
        shelf.forget("a");
        change(&mut shelf, "other 0", None, Condition::Any).unwrap();
    }

    #[test]
    fn there_is_a_bound_of_bytes_too() {
        let mut shelf = Shelf::new(Limits { bytes_max: 3 * TEXT_BYTES_MAX, ..LIMITS });
        let long = "x".repeat(TEXT_BYTES_MAX);
        assert!(put(&mut shelf, "a", &long).is_ok() && put(&mut shelf, "b", &long).is_ok());
        assert!(matches!(put(&mut shelf, "c", &long), Err(Declined::Full { .. })));
        assert!(put(&mut shelf, "a", &long).is_ok(), "that takes no more");
        let longer = put(&mut shelf, "a", &format!("{long}x"));
        assert_eq!(longer, Err(Declined::TooLong { bytes_max: 256 * 1024 }));
        for key in ["", "a\nb", &"k".repeat(257)] {
            assert_eq!(put(&mut shelf, key, "1"), Err(Declined::BadKey));
        }
    }

    #[test]
    fn keys_are_listed_as_they_begin_and_from_where_one_was() {
        let mut shelf = Shelf::new(LIMITS);
        for key in ["a", "b", "b/1", "b/2", "b/3", "c"] {
            put(&mut shelf, key, "text").unwrap();
        }
        change(&mut shelf, "b/2", None, Condition::Any).unwrap();
        let keys =
            |prefix, after| -> Vec<String> { shelf.list(prefix, after).map(|it| it.key).collect() };
        assert_eq!(keys("", ""), ["a", "b", "b/1", "b/3", "c"]);
        assert_eq!(keys("b/", ""), ["b/1", "b/3"]);
        assert_eq!(keys("b/", "b/1"), ["b/3"]);
        assert_eq!(keys("b/", "a"), ["b/1", "b/3"]);
        assert!(keys("b/", "c").is_empty() && keys("x", "").is_empty());
    }
}
