//! The series of a shard, in a table that is read without a lock.

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};

use ringcall::observe::{Call, CallEnd, Class, Role};

use crate::histogram::{Buckets, Histogram};
use crate::{Calls, OTHER, add, read};

/// What a series is of.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Key {
    pub(crate) role: Role,
    pub(crate) method: u64,
    pub(crate) peer: u64,
}

/// Filled once.
type Slot = OnceLock<Box<(Key, Series)>>;

/// Series by key: open addressing over slots that are filled once and never emptied. Looking one up writes
/// nothing.
pub(crate) struct Table {
    slots: Box<[Slot]>,
    /// For methods that nobody knows, and what there is no room for: by role.
    others: [Slot; 2],
}

impl Default for Table {
    fn default() -> Table {
        Table::new(0)
    }
}

/// How many slots are looked at before something counts as one of the others.
pub(crate) const PROBES: usize = 16;

/// The slots of a table in which something with this key may be.
pub(crate) fn probe<T>(slots: &[T], key: u64) -> impl Iterator<Item = &T> {
    let hash = key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let start = (hash >> 32) as usize % slots.len().max(1);
    let (back, front) = slots.split_at(start);
    front.iter().chain(back).take(PROBES)
}

impl Table {
    pub(crate) fn new(series_max: usize) -> Table {
        let slots = std::iter::repeat_with(OnceLock::new).take(series_max).collect();
        Table { slots, others: [const { OnceLock::new() }; 2] }
    }

    /// The series of a key, if it was made.
    pub(crate) fn find(&self, key: Key) -> Option<&Series> {
        // None is ever removed, so there is no gap before it.
        let mut made = self.probe(key).map_while(OnceLock::get);
        made.find(|entry| entry.0 == key).map(|entry| &entry.1)
    }

    /// The series of a key, made if there is room.
    pub(crate) fn get(
        &self,
        key: Key,
        labels: impl FnOnce() -> (&'static str, Arc<str>),
    ) -> &Series {
        let mut labels = Some(labels);
        let mut made = None;
        for slot in self.probe(key) {
            if slot.get().is_none() {
                let new = || labels.take().map(|it| Box::new((key, Series::new(key.role, it()))));
                if let Some(series) = made.take().or_else(new)
                    && let Err(back) = slot.set(series)
                {
                    // Another thread was faster; it may even be the same key.
                    made = Some(back);
                }
            }
            if let Some(entry) = slot.get()
                && entry.0 == key
            {
                return &entry.1;
            }
        }
        self.other(key.role)
    }

    /// What everything is counted in that has no series of its own.
    pub(crate) fn other(&self, role: Role) -> &Series {
        let key = Key { role, method: 0, peer: 0 };
        let labels = (OTHER, Arc::from(OTHER));
        let other =
            self.others[role as usize].get_or_init(|| Box::new((key, Series::new(role, labels))));
        &other.1
    }

    fn probe(&self, key: Key) -> impl Iterator<Item = &Slot> {
        probe(&self.slots, key.method ^ key.peer.rotate_left(32) ^ key.role as u64)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (Key, &Series)> {
        let entries = self.slots.iter().chain(&self.others).filter_map(OnceLock::get);
        entries.map(|entry| (entry.0, &entry.1))
    }
}

/// Calls of one method and peer.
pub(crate) struct Series {
    pub(crate) role: Role,
    pub(crate) method: &'static str,
    pub(crate) peer: Arc<str>,
    pub(crate) begun: AtomicU64,
    pub(crate) repeated: AtomicU64,
    ended: [AtomicU64; 5],
    expired: AtomicU64,
    shed: AtomicU64,
    fallback: AtomicU64,
    request_bytes: AtomicU64,
    reply_bytes: AtomicU64,
    latency: Buckets,
    handled: Buckets,
}

impl Series {
    fn new(role: Role, (method, peer): (&'static str, Arc<str>)) -> Series {
        Series {
            role,
            method,
            peer,
            begun: AtomicU64::new(0),
            repeated: AtomicU64::new(0),
            ended: Default::default(),
            expired: AtomicU64::new(0),
            shed: AtomicU64::new(0),
            fallback: AtomicU64::new(0),
            request_bytes: AtomicU64::new(0),
            reply_bytes: AtomicU64::new(0),
            latency: Buckets::default(),
            handled: Buckets::default(),
        }
    }

    pub(crate) fn ended(&self, call: &Call<'_>, end: &CallEnd) {
        let class: Class = end.end.class();
        add(&self.ended[class as usize], 1);
        if end.end.is_expired() {
            add(&self.expired, 1);
        }
        if end.end.is_shed() {
            add(&self.shed, 1);
        }
        if call.is_fallback() {
            add(&self.fallback, 1);
        }
        add(&self.request_bytes, end.request_bytes as u64);
        add(&self.reply_bytes, end.reply_bytes as u64);
        self.latency.record(end.took);
        self.handled.record(end.handled);
    }

    /// The same labels, and no calls.
    pub(crate) fn nothing(&self) -> Calls {
        Calls {
            role: self.role,
            method: self.method,
            peer: Arc::clone(&self.peer),
            begun: 0,
            ended: [0; 5],
            expired: 0,
            shed: 0,
            fallback: 0,
            repeated: 0,
            request_bytes: 0,
            reply_bytes: 0,
            latency: Histogram::default(),
            handled: Histogram::default(),
        }
    }

    pub(crate) fn add_to(&self, calls: &mut Calls) {
        for (sum, count) in calls.ended.iter_mut().zip(&self.ended) {
            *sum += read(count);
        }
        // Read behind the ends, so that there are never more of them.
        calls.begun += read(&self.begun);
        calls.repeated += read(&self.repeated);
        calls.expired += read(&self.expired);
        calls.shed += read(&self.shed);
        calls.fallback += read(&self.fallback);
        calls.request_bytes += read(&self.request_bytes);
        calls.reply_bytes += read(&self.reply_bytes);
        self.latency.add_to(&mut calls.latency);
        self.handled.add_to(&mut calls.handled);
    }

    /// Takes over what another has counted.
    pub(crate) fn absorb(&self, other: &Series) {
        for (ours, theirs) in self.ended.iter().zip(&other.ended) {
            add(ours, read(theirs));
        }
        let pairs = [
            (&self.begun, &other.begun),
            (&self.repeated, &other.repeated),
            (&self.expired, &other.expired),
            (&self.shed, &other.shed),
            (&self.fallback, &other.fallback),
            (&self.request_bytes, &other.request_bytes),
            (&self.reply_bytes, &other.reply_bytes),
        ];
        pairs.into_iter().for_each(|(ours, theirs)| add(ours, read(theirs)));
        self.latency.absorb(&other.latency);
        self.handled.absorb(&other.handled);
    }
}
