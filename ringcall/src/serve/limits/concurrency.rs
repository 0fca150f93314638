//! How many calls there are, and whether there may be another one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use ringcall_core::{Entropy, Instant, Status, StatusClass};

use super::adaptive::{AdaptiveConfig, AdaptiveLimit};
use super::reserve::Reserves;

/// How many calls there may be that were taken and not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Concurrency {
    /// So many, 1 at least. Those of a server are shared out equally among its shards.
    Fixed(u32),
    /// As many as turn out to be right, on each shard.
    Adaptive(AdaptiveConfig),
}

impl From<u32> for Concurrency {
    fn from(calls: u32) -> Concurrency {
        Concurrency::Fixed(calls)
    }
}

impl From<AdaptiveConfig> for Concurrency {
    fn from(config: AdaptiveConfig) -> Concurrency {
        Concurrency::Adaptive(config)
    }
}

impl Concurrency {
    pub(super) fn is_sound(&self) -> bool {
        match self {
            Concurrency::Fixed(calls) => *calls > 0,
            Concurrency::Adaptive(config) => config.is_sound(),
        }
    }

    /// The part of one shard.
    pub(super) fn shared_among(self, shards: u32) -> Concurrency {
        match self {
            Concurrency::Fixed(calls) => Concurrency::Fixed(calls.div_ceil(shards.max(1))),
            adaptive @ Concurrency::Adaptive(_) => adaptive,
        }
    }
}

/// A limit, and how many calls there are.
#[derive(Debug)]
struct Limit {
    rule: Rule,
    calls: u32,
}

#[derive(Debug)]
enum Rule {
    Fixed(u32),
    Adaptive(Box<AdaptiveLimit>),
}

impl Limit {
    fn new(concurrency: Concurrency) -> Limit {
        let rule = match concurrency {
            Concurrency::Fixed(calls) => Rule::Fixed(calls),
            Concurrency::Adaptive(config) => Rule::Adaptive(Box::new(AdaptiveLimit::new(config))),
        };
        Limit { rule, calls: 0 }
    }

    /// Takes the place of another one. What that has found out counts on, if this one would look for it in the same way.
    fn learn_from(&mut self, before: Limit) {
        if let (Rule::Adaptive(rule), Rule::Adaptive(before)) = (&mut self.rule, before.rule)
            && rule.config() == before.config()
        {
            *rule = before;
        }
    }

    fn has_room(&self) -> bool {
        self.calls < self.most()
    }

    /// Whether there is room beside what is kept for classes above this one.
    fn has_room_for(&self, class: u8, kept: &Reserves) -> bool {
        self.calls < kept.share(class, self.most())
    }

    fn most(&self) -> u32 {
        match &self.rule {
            Rule::Fixed(calls) => *calls,
            Rule::Adaptive(limit) => limit.limit(),
        }
    }
}

/// The calls of a shard that were taken and not answered, by key; counted for its limit and those of methods.
#[derive(Debug)]
pub(crate) struct Taken<K> {
    all: Option<Limit>,
    /// By the number of the method. There are few.
    methods: Vec<(u64, Limit)>,
    /// What of each of these is for higher classes.
    kept: Reserves,
    callers: Option<Callers>,
    calls: HashMap<K, Call>,
}

/// The calls of each caller, of those who have any: there are never more callers than calls.
#[derive(Debug)]
struct Callers {
    max: u32,
    calls: HashMap<u64, u32>,
}

impl Callers {
    fn has_room(&self, caller: u64) -> bool {
        self.calls.get(&caller).is_none_or(|calls| *calls < self.max)
    }

    fn end(&mut self, caller: u64) {
        if let Entry::Occupied(mut calls) = self.calls.entry(caller) {
            *calls.get_mut() -= 1;
            if *calls.get() == 0 {
                calls.remove();
            }
        }
    }
}

/// Whether a call was taken, and if not, whose fault it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Room {
    Taken,
    /// There are too many.
    Full,
    /// What is left of the limit of all is kept for higher classes.
    Kept,
    /// Its caller has too many.
    CallerFull,
}

#[derive(Debug)]
struct Call {
    /// The number of its method.
    of: u64,
    /// Among `methods`.
    method: Option<usize>,
    /// The number of its caller, if that matters.
    caller: Option<u64>,
    arrived: Instant,
}

impl<K: Hash + Eq + Copy> Taken<K> {
    pub(super) fn new(
        all: Option<Concurrency>,
        methods: impl Iterator<Item = (u64, Concurrency)>,
        kept: Reserves,
        of_each: Option<u32>,
    ) -> Taken<K> {
        Taken {
            all: all.map(Limit::new),
            methods: methods.map(|(method, limit)| (method, Limit::new(limit))).collect(),
            kept,
            callers: of_each.map(|max| Callers { max, calls: HashMap::new() }),
            calls: HashMap::new(),
        }
    }

    /// Whether a call would be taken if there were fewer in the limit of all: then lower ones may give up their places.
    pub(crate) fn lacks_place(&self, (method, class): (u64, u8), caller: Option<u64>) -> bool {
        let Some(all) = &self.all else { return false };
        let (calls, share, most) = (all.calls, self.kept.share(class, all.most()), all.most());
        // Of the part that is kept for higher ones no more is in use than these need; of all, a limit may have sunk.
        let is_full = calls == share || (calls > share && share == most);
        let mut own = self.methods.iter().filter(|(of, _)| *of == method);
        let mut callers = self.callers.iter().zip(caller);
        is_full
            && own.all(|(_, limit)| limit.has_room_for(class, &self.kept))
            && callers.all(|(callers, caller)| callers.has_room(caller))
    }

    /// Takes a call if there is room for one of its class. Either way it [ends](Self::end) once. Its caller has a
    /// number if there is a limit for each.
    pub(crate) fn begin(
        &mut self,
        key: K,
        (method, class): (u64, u8),
        caller: Option<u64>,
        arrived: Instant,
    ) -> Room {
        let (of, method) = (method, self.place(method));
        let room = match self.callers.as_ref().zip(caller) {
            Some((callers, caller)) if !callers.has_room(caller) => Room::CallerFull,
            _ => self.room(method.map(|index| &self.methods[index].1), class),
        };
        if room == Room::Taken {
            self.count(method, caller);
            self.calls.insert(key, Call { of, method, caller, arrived });
        }
        room
    }

    /// Takes the place of another one, with the calls that it has counted, of which there may be more now than there
    /// may be. Adaptive limits that are the same go on from what they have found. Callers are numbered as before, or else
    /// the calls that there are belong to nobody.
    pub(crate) fn take_over(&mut self, before: Taken<K>, are_callers_same: bool) {
        let Taken { all, methods, mut calls, .. } = before;
        if let Some((all, before)) = self.all.as_mut().zip(all) {
            all.learn_from(before);
        }
        for (method, before) in methods {
            if let Some(place) = self.place(method) {
                self.methods[place].1.learn_from(before);
            }
        }
        for call in calls.values_mut() {
            call.method = self.place(call.of);
            call.caller = call.caller.filter(|_| are_callers_same);
            self.count(call.method, call.caller);
        }
        self.calls = calls;
    }

    /// Where the limit of a method is, if it has one.
    fn place(&self, method: u64) -> Option<usize> {
        self.methods.iter().position(|(of, _)| *of == method)
    }

    /// There is one more.
    fn count(&mut self, method: Option<usize>, caller: Option<u64>) {
        let own = method.map(|index| &mut self.methods[index].1);
        self.all.iter_mut().chain(own).for_each(|limit| limit.calls += 1);
        if let Some((callers, caller)) = self.callers.as_mut().zip(caller) {
            *callers.calls.entry(caller).or_default() += 1;
        }
    }

    fn room(&self, own: Option<&Limit>, class: u8) -> Room {
        let mut limits = self.all.iter().chain(own);
        let is_kept = |all: &Limit| all.has_room() && !all.has_room_for(class, &self.kept);
        match limits.all(|limit| limit.has_room_for(class, &self.kept)) {
            true => Room::Taken,
            false if self.all.as_ref().is_some_and(is_kept) => Room::Kept,
            false => Room::Full,
        }
    }

    /// Whether the time at which calls end matters.
    pub(crate) fn is_adaptive(&self) -> bool {
        let mut limits = self.all.iter().chain(self.methods.iter().map(|(_, limit)| limit));
        limits.any(|limit| matches!(limit.rule, Rule::Adaptive(_)))
    }

    /// A call has ended, whichever way; one that was not taken changes nothing. What did not run says nothing of how
    /// long calls take.
    pub(crate) fn end(&mut self, now: Instant, key: &K, status: Status, rng: &mut dyn Entropy) {
        let Some(Call { method, caller, arrived, .. }) = self.calls.remove(key) else { return };
        if let Some((callers, caller)) = self.callers.as_mut().zip(caller) {
            callers.end(caller);
        }
        let own = method.map(|index| &mut self.methods[index].1);
        let is_good = match status.class() {
            StatusClass::Ok | StatusClass::Application => Some(true),
            StatusClass::Unknown => Some(false),
            StatusClass::Refused => None,
        };
        for limit in self.all.iter_mut().chain(own) {
            limit.calls -= 1;
            if let (Rule::Adaptive(rule), Some(is_good)) = (&mut limit.rule, is_good) {
                rule.ended(now, now.since(arrived), is_good, rng);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    use ringcall_core::SplitMix64;

    fn taken(all: u32, methods: &[(u64, u32)]) -> Taken<u64> {
        let methods = methods.iter().map(|&(method, calls)| (method, calls.into()));
        Taken::new((all > 0).then_some(all.into()), methods, Reserves::default(), None)
    }

    #[test]
    fn there_are_never_more_than_the_limits_say_and_all_come_back() {
        let mut rng = SplitMix64::new(1);
        let mut taken = taken(10, &[(1, 3), (2, 20)]);
        let now = Instant::from_nanos(1);
        let mut live: Vec<(u64, u64)> = Vec::new();
        for key in 0..10_000 {
            let method = rng.below(4);
            let of = |method| live.iter().filter(|(_, of)| *of == method).count();
            let has_room = live.len() < 10 && (method != 1 || of(1) < 3);
            assert_eq!(taken.begin(key, (method, 0), None, now) == Room::Taken, has_room);
            if has_room {
                live.push((key, method));
            }
            if rng.below(2) == 0 && !live.is_empty() {
                let (key, _) = live.swap_remove(rng.below(live.len() as u64) as usize);
                taken.end(now, &key, Status::OK, &mut SplitMix64::new(1));
                // Who ends twice ends once.
                taken.end(now, &key, Status::OK, &mut SplitMix64::new(1));
            }
        }
        for (key, _) in live {
            taken.end(now, &key, Status::INTERNAL, &mut rng);
        }
        assert!(taken.calls.is_empty());
        assert!(taken.methods.iter().all(|(_, limit)| limit.calls == 0));
        assert_eq!(taken.all.map(|limit| limit.calls), Some(0));
    }

    #[test]
    fn what_was_refused_says_nothing_of_how_long_calls_take() {
        let mut rng = SplitMix64::new(1);
        let config = AdaptiveConfig { min: 8, ..AdaptiveConfig::default() };
        let adaptive = Concurrency::from(config);
        let mut taken =
            Taken::<u64>::new(Some(adaptive), std::iter::empty(), Reserves::default(), None);
        assert!(taken.is_adaptive());
        let limit = |taken: &Taken<u64>| match &taken.all.as_ref().map(|limit| &limit.rule) {
            Some(Rule::Adaptive(limit)) => limit.limit(),
            _ => 0,
        };
        let mut now = Instant::from_nanos(1);
        for (status, changes) in [(Status::OVERLOADED, false), (Status::OK, true)] {
            for key in 0..400 {
                assert_eq!(taken.begin(key, (0, 0), None, now), Room::Taken);
                now = now + Duration::from_millis(1);
                taken.end(now, &key, status, &mut rng);
            }
            assert_eq!(limit(&taken) != config.start, changes, "{status}");
        }
    }

    #[test]
    fn each_caller_has_its_own_and_nobody_is_remembered() {
        let mut rng = SplitMix64::new(1);
        let of_each = Some(2);
        let mut taken =
            Taken::<u64>::new(Some(5.into()), std::iter::empty(), Reserves::default(), of_each);
        let now = Instant::from_nanos(1);
        let mut begin = |key, caller| taken.begin(key, (0, 0), Some(caller), now);
        assert_eq!((begin(1, 7), begin(2, 7)), (Room::Taken, Room::Taken));
        assert_eq!((begin(3, 7), begin(4, 8)), (Room::CallerFull, Room::Taken));
        assert_eq!((begin(5, 8), begin(6, 9), begin(7, 9)), (Room::Taken, Room::Taken, Room::Full));
        taken.end(now, &3, Status::RATE_LIMITED, &mut rng);
        assert_eq!(
            taken.begin(3, (0, 0), Some(7), now),
            Room::CallerFull,
            "which gives no place back"
        );
        taken.end(now, &1, Status::OK, &mut rng);
        assert_eq!(taken.begin(1, (0, 0), Some(7), now), Room::Taken);
        for key in 1..8 {
            taken.end(now, &key, Status::OK, &mut rng);
        }
        assert!(taken.calls.is_empty());
        assert!(taken.callers.is_some_and(|callers| callers.calls.is_empty()));
    }
    #[test]
    fn what_is_kept_for_a_class_is_not_used_up_by_lower_ones() {
        let mut kept = Reserves::default();
        kept.set(1, 20);
        kept.set(7, 30);
        let of_method = [(2, 10.into())].into_iter();
        let mut taken = Taken::<u64>::new(Some(20.into()), of_method, kept, None);
        let now = Instant::from_nanos(1);
        let mut key = 0;
        let mut fill = |method: u64, class: u8| {
            for calls in 0.. {
                key += 1;
                let room = taken.begin(key, (method, class), None, now);
                if room != Room::Taken {
                    return (calls, room);
                }
            }
            (0, Room::Taken)
        };
        assert_eq!(fill(2, 0), (5, Room::Full), "half of the method's");
        assert_eq!(fill(1, 0), (5, Room::Kept), "half of all");
        assert_eq!(fill(1, 6), (4, Room::Kept));
        assert_eq!(fill(1, 0), (0, Room::Kept));
        assert_eq!(fill(2, 255), (5, Room::Full));
        assert_eq!(fill(1, 255), (1, Room::Full));
        assert_eq!(fill(1, 0), (0, Room::Full), "nobody has any");
    }

    #[test]
    fn a_place_is_lacking_where_one_call_less_would_do() {
        let mut kept = Reserves::default();
        kept.set(5, 50);
        let of_method = [(2, 2.into())].into_iter();
        let mut taken = Taken::<u64>::new(Some(4.into()), of_method, kept, Some(3));
        let now = Instant::from_nanos(1);
        let lacks = |taken: &Taken<u64>| {
            let lacks = |method, class, caller| taken.lacks_place((method, class), Some(caller));
            [lacks(1, 0, 8), lacks(1, 5, 8), lacks(1, 5, 7), lacks(2, 5, 8)]
        };
        assert_eq!(lacks(&taken), [false; 4]);
        for (key, method) in [(1, 1), (2, 2)] {
            assert_eq!(taken.begin(key, (method, 0), Some(7), now), Room::Taken);
        }
        assert_eq!(lacks(&taken), [true, false, false, false]);
        assert_eq!(taken.begin(3, (2, 5), Some(7), now), Room::Taken);
        assert_eq!(lacks(&taken), [false; 4], "one less of what is not kept would not do");
        assert_eq!(taken.begin(4, (1, 5), Some(8), now), Room::Taken);
        assert_eq!(
            lacks(&taken),
            [false, true, false, false],
            "the caller and the method are full"
        );
    }
}
