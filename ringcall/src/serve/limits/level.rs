//! The lowest class of priority that is admitted.

use std::time::Duration;

use ringcall_core::Instant;

/// A class is admitted if at least one in so many of its calls is.
const ONE_IN: u64 = 16;

/// What is said of classes in answers: the lowest one of which calls were admitted in the last interval, if there were
/// calls of lower ones and almost none was. 0 otherwise: as long as nothing is refused, and where what was refused says
/// nothing of classes, since calls of one class are all there were.
///
/// A value without a clock. It counts from the first call that is refused on; before that, and when an interval has
/// passed without another one, a call costs a branch.
#[derive(Debug)]
pub(crate) struct Level {
    interval: Duration,
    /// When the interval ends in which calls are counted, if they are.
    until: Option<Instant>,
    /// By class.
    counts: [Counts; 256],
    level: u8,
}

#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    admitted: u32,
    refused: u32,
}

impl Level {
    /// Of calls of which none was refused.
    pub(crate) fn new(interval: Duration) -> Level {
        Level { interval, until: None, counts: [Counts::default(); 256], level: 0 }
    }

    /// In intervals of another length, from the next one on.
    pub(crate) fn configure(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// A call of this class begins.
    pub(crate) fn admitted(&mut self, now: Instant, class: u8) {
        if self.is_counting(now) {
            self.counts[usize::from(class)].admitted += 1;
        }
    }

    /// A call of this class was refused, for being of no higher one.
    pub(crate) fn refused(&mut self, now: Instant, class: u8) {
        if !self.is_counting(now) {
            self.until = Some(now + self.interval);
        }
        self.counts[usize::from(class)].refused += 1;
    }

    /// The lowest class that is admitted.
    pub(crate) fn lowest(&mut self, now: Instant) -> u8 {
        self.is_counting(now);
        self.level
    }

    fn is_counting(&mut self, now: Instant) -> bool {
        match self.until {
            None => false,
            Some(until) if now < until => true,
            Some(until) => self.begin_interval(now, until),
        }
    }

    /// An interval is over; says whether another one begins, which it does if something was refused.
    fn begin_interval(&mut self, now: Instant, until: Instant) -> bool {
        let has_rested = now.since(until) > self.interval;
        self.level = if has_rested { 0 } else { self.lowest_counted() };
        let goes_on = !has_rested && self.counts.iter().any(|counts| counts.refused > 0);
        self.until = goes_on.then(|| now + self.interval);
        self.counts.fill(Counts::default());
        goes_on
    }

    fn lowest_counted(&self) -> u8 {
        let seen = (0..=u8::MAX).zip(&self.counts);
        let mut seen = seen.filter(|(_, counts)| counts.admitted > 0 || counts.refused > 0);
        let lowest = seen.clone().next();
        let admitted = seen.find(|(_, counts)| counts.are_admitted());
        match (lowest, admitted) {
            (Some((lowest, _)), Some((admitted, _))) if lowest < admitted => admitted,
            _ => 0,
        }
    }
}

impl Counts {
    fn are_admitted(self) -> bool {
        let [admitted, refused] = [self.admitted, self.refused].map(u64::from);
        admitted * ONE_IN >= admitted + refused
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    const MS: Duration = Duration::from_millis(1);
    const INTERVAL: Duration = Duration::from_millis(100);

    fn start() -> Instant {
        Instant::from_nanos(1_000_000_000)
    }

    /// A millisecond apart, so many times what is given: a class, and whether it was admitted.
    fn told(level: &mut Level, now: &mut Instant, times: u32, calls: &[(u8, bool)]) -> u8 {
        for _ in 0..times {
            for &(class, is_admitted) in calls {
                match is_admitted {
                    true => level.admitted(*now, class),
                    false => level.refused(*now, class),
                }
            }
            *now = *now + MS;
        }
        level.lowest(*now)
    }

    #[test]
    fn it_is_the_lowest_that_is_admitted_while_lower_ones_are_not() {
        let (mut level, mut now) = (Level::new(INTERVAL), start());
        let mut told = |calls: &[(u8, bool)]| told(&mut level, &mut now, 250, calls);
        assert_eq!(told(&[(0, true), (3, true)]), 0);
        assert_eq!(told(&[(0, false), (3, true)]), 3);
        assert_eq!(told(&[(0, false), (2, false), (3, true), (200, true)]), 3);
        assert_eq!(told(&[(0, true), (0, false), (3, true)]), 0, "half of them is admitted");
        assert_eq!(told(&[(7, false), (255, true)]), 255);
        assert_eq!(told(&[(0, true), (3, true)]), 0, "and forgotten");
    }

    #[test]
    fn what_says_nothing_of_classes_is_no_level() {
        let (mut level, mut now) = (Level::new(INTERVAL), start());
        assert_eq!(told(&mut level, &mut now, 300, &[(0, false)]), 0, "no higher one was seen");
        assert_eq!(told(&mut level, &mut now, 300, &[(1, true), (2, false)]), 0);
        // Of a server that is not asked for anything any more.
        assert_eq!(told(&mut level, &mut now, 250, &[(0, false), (1, true)]), 1);
        assert_eq!(level.lowest(now + 3 * INTERVAL), 0);
    }

    proptest! {
        #[test]
        fn no_level_is_above_a_class_that_was_admitted(
            calls in proptest::collection::vec((0u8..6, any::<bool>()), 1..400)
        ) {
            let (mut level, mut now) = (Level::new(INTERVAL), start());
            told(&mut level, &mut now, 1, &[(0, false)]);
            for &(class, is_admitted) in &calls {
                match is_admitted {
                    true => level.admitted(start(), class),
                    false => level.refused(start(), class),
                }
            }
            let lowest = level.lowest(start() + INTERVAL);
            let of = |class: u8| calls.iter().filter(move |(of, _)| *of == class);
            for class in 0..lowest {
                let admitted = of(class).filter(|(_, is_admitted)| *is_admitted).count();
                let refused = of(class).count() - admitted + usize::from(class == 0);
                prop_assert!(admitted == 0 || admitted * 16 < admitted + refused);
            }
            prop_assert!(lowest == 0 || of(lowest).any(|(_, is_admitted)| *is_admitted));
        }
    }
}
