//! Calls that wait, in classes of priority: which one begins next, and which one is refused.

use std::time::Duration;

use ringcall_core::Instant;

use super::queue::{CoDel, QueueRule};

/// When so many calls have begun of the highest class that there was, the next one is of a lower class: whatever is asked
/// of higher ones, a sixteenth is left for others.
const BEFORE_LOWER: u32 = 15;
/// So many calls are refused at most before one of a higher class begins: refusing takes time as well, and who asks for
/// enough of it must not keep higher classes from beginning.
const REFUSED_IN_A_ROW: u32 = 16;

/// A queue for each class. Higher classes begin first, but for [one in 16](BEFORE_LOWER), and in a queue that stands the
/// lowest class is refused first: the [`QueueRule`] is asked of the call that has waited longest, whichever class it is
/// of, and where it says no, the first of the lowest class goes. So a higher class is refused only when no lower one
/// waits, and with one class all is as if there were none.
///
/// A value without a clock. What it holds is as much as there were calls at a time, in however many classes: callers say
/// what class a call is of.
#[derive(Debug)]
pub(crate) struct ClassQueue<T> {
    /// Without, none is refused.
    rule: Option<CoDel>,
    /// Those that have calls, the lowest first.
    classes: Vec<Class>,
    /// Calls, and places without one. Not a `slab`, which moves a call more often than in and out: it is large.
    entries: Vec<Entry<T>>,
    /// The first place without a call; a list through the entries.
    free: usize,
    waiting: usize,
    /// How many have begun, up to [`BEFORE_LOWER`], since one has begun before a higher one.
    begun: u32,
    /// How many were refused since one has begun.
    refused: u32,
}

/// The calls of a class: a list through the entries.
#[derive(Debug)]
struct Class {
    number: u8,
    first: usize,
    last: usize,
    /// Since when the first one waits.
    since: Instant,
}

#[derive(Debug)]
struct Entry<T> {
    call: Option<T>,
    since: Instant,
    /// Of its class, or the next free one; [`NONE`] behind the last.
    next: usize,
}

/// Where there is no entry.
const NONE: usize = usize::MAX;

/// A call that leaves the queue.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Next<T> {
    pub(crate) call: T,
    /// Or else it begins.
    pub(crate) is_refused: bool,
    /// How many others wait.
    pub(crate) behind: usize,
}

impl<T> ClassQueue<T> {
    pub(crate) fn new(rule: Option<QueueRule>) -> ClassQueue<T> {
        ClassQueue {
            rule: rule.map(CoDel::new),
            classes: Vec::new(),
            entries: Vec::new(),
            free: NONE,
            waiting: 0,
            begun: 0,
            refused: 0,
        }
    }

    /// Another rule, for those that wait as well. If it is the same, what it has seen counts on.
    pub(crate) fn configure(&mut self, rule: Option<QueueRule>) {
        if self.rule() != rule {
            self.rule = rule.map(CoDel::new);
        }
    }

    /// By which calls are refused, if any is.
    pub(crate) fn rule(&self) -> Option<QueueRule> {
        self.rule.as_ref().map(CoDel::rule)
    }

    /// In milliseconds, for those that are refused.
    pub(crate) fn retry_after_ms(&self) -> u16 {
        self.rule().map_or(0, |rule| rule.retry_after_ms())
    }

    /// How many wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// A call waits from now on, behind those of its class. It counts as waiting since it came.
    pub(crate) fn push(&mut self, class: u8, since: Instant, call: T) {
        let index = self.insert(Entry { call: Some(call), since, next: NONE });
        match self.classes.binary_search_by_key(&class, |class| class.number) {
            Ok(place) => {
                let class = &mut self.classes[place];
                self.entries[class.last].next = index;
                class.last = index;
            }
            Err(place) => {
                let class = Class { number: class, first: index, last: index, since };
                self.classes.insert(place, class);
            }
        }
    }

    /// Takes out the one that is to begin, or to be refused.
    pub(crate) fn next(&mut self, now: Instant) -> Option<Next<T>> {
        let highest = self.classes.len().checked_sub(1)?;
        let is_too_much = self.is_too_much(now);
        let has_lower = highest > 0;
        let is_turn = has_lower && self.begun >= BEFORE_LOWER;
        let has_refused = has_lower && self.refused >= REFUSED_IN_A_ROW;
        if is_too_much && !is_turn && !has_refused {
            self.refused += 1;
            return Some(self.leave(0, true));
        }
        self.refused = 0;
        let place = if is_turn { self.oldest_below(highest) } else { highest };
        self.begun = if is_turn { 0 } else { BEFORE_LOWER.min(self.begun + 1) };
        Some(self.leave(place, false))
    }

    /// Takes out the next one without asking: the first of the lowest class.
    pub(crate) fn pop(&mut self) -> Option<T> {
        (!self.is_empty()).then(|| self.take(0))
    }

    /// Takes out the first of the lowest class, if that is below this one: for a call that would be one too many.
    pub(crate) fn pop_below(&mut self, class: u8) -> Option<T> {
        let has_lower = self.classes.first().is_some_and(|lowest| lowest.number < class);
        has_lower.then(|| self.take(0))
    }

    /// The time of a call that was to begin, and had so much, was over after it had waited so long: see
    /// [`CoDel::expired`].
    pub(crate) fn expired(&mut self, waited: Duration, had: Duration) {
        self.rule.iter_mut().for_each(|rule| rule.expired(waited, had));
    }

    /// Whether there is a call that should not begin any more, by the one that has waited longest.
    fn is_too_much(&mut self, now: Instant) -> bool {
        let behind = self.waiting - 1;
        let Some(rule) = &mut self.rule else { return false };
        let oldest = self.classes.iter().map(|class| class.since).min();
        oldest.is_some_and(|since| rule.refuses(now, now.since(since), behind))
    }

    /// Which of the classes below that one has waited longest.
    fn oldest_below(&self, highest: usize) -> usize {
        (0..highest).min_by_key(|place| self.classes[*place].since).unwrap_or(highest)
    }

    #[inline]
    fn leave(&mut self, place: usize, is_refused: bool) -> Next<T> {
        Next { behind: self.waiting - 1, is_refused, call: self.take(place) }
    }

    fn insert(&mut self, entry: Entry<T>) -> usize {
        self.waiting += 1;
        let index = self.free;
        match self.entries.get_mut(index) {
            Some(free) => {
                self.free = free.next;
                *free = entry;
                index
            }
            None => {
                self.entries.push(entry);
                self.entries.len() - 1
            }
        }
    }

    /// The first of a class.
    #[inline]
    fn take(&mut self, place: usize) -> T {
        self.waiting -= 1;
        let class = &mut self.classes[place];
        let first = class.first;
        let next = std::mem::replace(&mut self.entries[first].next, self.free);
        self.free = first;
        match self.entries.get(next) {
            Some(entry) => (class.first, class.since) = (next, entry.since),
            None => drop(self.classes.remove(place)),
        }
        self.entries[first].call.take().expect("those in a list have one")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::{BTreeMap, HashMap, VecDeque};

    use proptest::prelude::*;
    use ringcall_core::{Entropy, SplitMix64};

    const MS: Duration = Duration::from_millis(1);
    const US: Duration = Duration::from_micros(1);

    fn start() -> Instant {
        Instant::from_nanos(1_000_000_000)
    }

    /// A call: its class, and its number in the order in which they came.
    type Call = (u8, u32);

    /// What is done to a queue: calls of these classes come, it is asked so often, so much time passes in between.
    type Step = (Vec<u8>, u8, u64);

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let class = prop_oneof![Just(0u8), Just(1), Just(2), any::<u8>()];
        let step = (proptest::collection::vec(class, 0..20), 0u8..20, 0u64..30_000);
        proptest::collection::vec(step, 1..60)
    }

    /// A call that left a queue, and what waited there beside it.
    struct Left {
        next: Next<Call>,
        has_lower: bool,
        has_higher: bool,
        others: usize,
    }

    impl Left {
        fn is_refused(&self) -> bool {
            self.next.is_refused
        }
    }

    /// How many wait of each class that has any.
    #[derive(Default)]
    struct Model(BTreeMap<u8, usize>);

    impl Model {
        fn left(&mut self, next: Next<Call>) -> Left {
            let (class, _) = next.call;
            let of_class = self.0.get_mut(&class).expect("it was put in");
            *of_class -= 1;
            if *of_class == 0 {
                self.0.remove(&class);
            }
            let has_lower = self.0.keys().next().is_some_and(|lowest| *lowest < class);
            let has_higher = self.0.keys().next_back().is_some_and(|highest| *highest > class);
            let others = self.0.values().sum();
            assert_eq!(next.behind, others);
            Left { next, has_lower, has_higher, others }
        }
    }

    /// What becomes of all calls; it ends.
    fn run(rule: Option<QueueRule>, steps: &[Step]) -> Vec<Left> {
        let mut queue = ClassQueue::new(rule);
        let (mut now, mut number) = (start(), 0);
        let (mut model, mut left) = (Model::default(), Vec::new());
        for (classes, asked, micros) in steps {
            for class in classes {
                queue.push(*class, now, (*class, number));
                *model.0.entry(*class).or_default() += 1;
                number += 1;
            }
            for _ in 0..*asked {
                left.extend(queue.next(now).map(|next| model.left(next)));
                now = now + Duration::from_micros(*micros);
            }
            assert_eq!(queue.len(), model.0.values().sum::<usize>());
        }
        while let Some(next) = queue.next(now) {
            left.push(model.left(next));
            now = now + MS;
        }
        assert!(queue.is_empty() && queue.classes.is_empty());
        assert_eq!(left.len(), number as usize);
        left
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(128))]

        #[test]
        fn no_class_is_refused_while_a_lower_one_waits(steps in steps()) {
            for left in run(Some(QueueRule::default()), &steps) {
                prop_assert!(!left.is_refused() || !left.has_lower);
                prop_assert!(!left.is_refused() || left.others > 0, "the last one never is");
            }
        }

        #[test]
        fn those_of_a_class_leave_in_order(steps in steps()) {
            let mut last: HashMap<u8, u32> = HashMap::new();
            for left in run(Some(QueueRule::default()), &steps) {
                let (class, number) = left.next.call;
                prop_assert!(last.insert(class, number).is_none_or(|before| before < number));
            }
        }

        #[test]
        fn higher_classes_begin_first_but_for_one_in_sixteen(steps in steps()) {
            let mut begun = 0;
            for left in run(Some(QueueRule::default()), &steps) {
                if left.is_refused() {
                    continue;
                }
                if left.has_higher {
                    prop_assert!(begun >= BEFORE_LOWER, "it is no lower one's turn");
                    begun = 0;
                } else {
                    let is_turn = begun >= BEFORE_LOWER && left.has_lower;
                    prop_assert!(!is_turn, "it is a lower one's turn");
                    begun += 1;
                }
            }
        }

        #[test]
        fn refusing_does_not_keep_higher_classes_from_beginning(steps in steps()) {
            let mut in_a_row = 0;
            for left in run(Some(QueueRule::default()), &steps) {
                in_a_row = match left.is_refused() {
                    true => in_a_row + u32::from(left.has_higher),
                    false => 0,
                };
                prop_assert!(in_a_row <= REFUSED_IN_A_ROW);
            }
        }

        #[test]
        fn one_class_is_what_the_rule_alone_would_do(steps in steps(), class in any::<u8>()) {
            let rule = QueueRule::default();
            let one = |step: &Step| (vec![class; step.0.len()], step.1, step.2);
            let steps: Vec<Step> = steps.iter().map(one).collect();
            let mut codel = CoDel::new(rule);
            let mut queue = ClassQueue::new(Some(rule));
            let mut plain = VecDeque::new();
            let mut now = start();
            for (classes, asked, micros) in steps {
                for class in classes {
                    queue.push(class, now, now);
                    plain.push_back(now);
                }
                for _ in 0..asked {
                    let expected = plain.pop_front().map(|call: Instant| {
                        let behind = plain.len();
                        let is_refused = codel.refuses(now, now.since(call), behind);
                        Next { call, is_refused, behind }
                    });
                    prop_assert_eq!(queue.next(now), expected);
                    now = now + Duration::from_micros(micros);
                }
            }
        }

        #[test]
        fn without_a_rule_none_is_refused(steps in steps()) {
            prop_assert!(!run(None, &steps).iter().any(Left::is_refused));
        }
    }

    /// One server, calls of 100 µs; a call of each class is due so many times as often as it can do one. How many of each
    /// came, began within 50 ms, and how long those had waited at most.
    fn serve(loads: &[f64], time: Duration) -> Vec<(u32, u32, Duration)> {
        let mut rng = SplitMix64::new(7);
        let mut queue = ClassQueue::new(Some(QueueRule::default()));
        let mut now = start();
        let until = now + time;
        let mut due = vec![now; loads.len()];
        let mut seen = vec![(0, 0, Duration::ZERO); loads.len()];
        while now < until {
            for (class, load) in loads.iter().enumerate() {
                while due[class] <= now {
                    queue.push(class as u8, due[class], (class, due[class]));
                    seen[class].0 += 1;
                    let gap = (rng.below(200_001) as f64 / load) as u64;
                    due[class] = due[class] + Duration::from_nanos(gap);
                }
            }
            match queue.next(now) {
                Some(Next { call: (class, since), is_refused: false, .. }) => {
                    let waited = now.since(since);
                    seen[class].1 += u32::from(waited < 50 * MS);
                    seen[class].2 = seen[class].2.max(waited);
                    now = now + 100 * US;
                }
                Some(_) => now = now + US,
                None => now = due.iter().copied().min().unwrap_or(until),
            }
        }
        seen
    }

    #[test]
    fn a_higher_class_loses_nothing_to_any_flood_of_a_lower_one() {
        for low in [1.0, 2.0, 10.0, 200.0] {
            let seen = serve(&[low, 0.5], 2000 * MS);
            let (came, began, waited) = seen[1];
            assert!(f64::from(began) >= f64::from(came) * 0.99, "{began} of {came} beside {low}");
            assert!(waited < 5 * MS, "{waited:?} beside {low}");
            // What is left is the lower one's, but for the time that refusing takes; at the last, that is all.
            let left = 20_000.0 * (0.5 - low / 100.0);
            assert!(f64::from(seen[0].1) > left * 0.9, "{} of {left} at {low}", seen[0].1);
        }
    }

    #[test]
    fn a_flood_of_a_higher_class_leaves_a_sixteenth() {
        let seen = serve(&[0.5, 0.5, 3.0], 2000 * MS);
        let all: u32 = seen.iter().map(|(_, began, _)| began).sum();
        let lower = seen[0].1 + seen[1].1;
        assert!(lower * 17 > all && lower * 15 < all, "{lower} of {all}");
    }

    #[test]
    fn calls_of_all_classes_take_no_more_room_than_those_of_one() {
        let mut queue = ClassQueue::new(None);
        for class in 0..=u8::MAX {
            (0..100).for_each(|_| queue.push(class, start(), ()));
            while queue.pop().is_some() {}
        }
        assert!(queue.entries.capacity() < 200, "{}", queue.entries.capacity());
        assert!(queue.classes.capacity() < 8);
    }
}
