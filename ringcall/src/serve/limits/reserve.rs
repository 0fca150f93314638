//! What of a limit is kept for higher classes of priority.

/// Parts of limits, in percent, for calls of a class and those above it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reserves(Vec<(u8, u8)>);

/// How much may be kept of a limit that is found by what calls there are: those that may not use all of it must still
/// fill as much as it grows from. It tries up to 30 % more than that.
const OF_ADAPTIVE_MAX: u32 = 20;

impl Reserves {
    /// Whether something is kept for this class.
    #[cfg(feature = "serde")]
    pub(super) fn has(&self, class: u8) -> bool {
        self.0.iter().any(|(of, _)| *of == class)
    }

    /// In place of what was kept for this class before.
    pub(super) fn set(&mut self, class: u8, percent: u8) {
        self.0.retain(|(of, _)| *of != class);
        self.0.push((class, percent));
    }

    /// Whether class 0, which nothing can be kept for, has something left.
    pub(super) fn is_sound(&self, has_adaptive: bool) -> bool {
        let sum: u32 = self.0.iter().map(|(_, percent)| u32::from(*percent)).sum();
        let most = if has_adaptive { OF_ADAPTIVE_MAX } else { 99 };
        sum <= most && self.0.iter().all(|(class, percent)| *class > 0 && *percent > 0)
    }

    /// How many of so many calls there may be when one of this class comes; one at least.
    pub(super) fn share(&self, class: u8, calls: u32) -> u32 {
        if self.0.is_empty() {
            return calls;
        }
        let above = self.0.iter().filter(|(of, _)| *of > class);
        let kept: u32 = above.map(|(_, percent)| u32::from(*percent)).sum();
        let share = u64::from(calls) * u64::from(100u32.saturating_sub(kept)) / 100;
        u32::try_from(share).unwrap_or(calls).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn reserves(all: &[(u8, u8)]) -> Reserves {
        let mut reserves = Reserves::default();
        all.iter().for_each(|(class, percent)| reserves.set(*class, *percent));
        reserves
    }

    #[test]
    fn each_class_has_what_is_not_kept_for_higher_ones() {
        let kept = reserves(&[(5, 10), (1, 20)]);
        let shares = [0, 1, 4, 5, 255].map(|class| kept.share(class, 200));
        assert_eq!(shares, [140, 180, 180, 200, 200]);
        assert_eq!(kept.share(0, 1), 1, "nobody is shut out for ever");
        assert_eq!(Reserves::default().share(0, 7), 7);
        assert_eq!(kept.share(5, u32::MAX), u32::MAX);
    }

    #[test]
    fn what_makes_no_sense_is_found() {
        for (sound, all) in [
            (true, &[][..]),
            (true, &[(1, 99)]),
            (true, &[(1, 50), (1, 60)]),
            (false, &[(1, 50), (2, 50)]),
            (false, &[(0, 10)]),
            (false, &[(1, 0)]),
            (false, &[(1, 255), (2, 255)]),
        ] {
            assert_eq!(reserves(all).is_sound(false), sound, "{all:?}");
        }
        assert!(reserves(&[(1, 20)]).is_sound(true));
        assert!(!reserves(&[(1, 20), (2, 1)]).is_sound(true));
    }

    proptest! {
        #[test]
        fn a_higher_class_never_has_less(
            all in proptest::collection::vec(any::<(u8, u8)>(), 0..8),
            calls in any::<u32>(),
            class in 0u8..255,
        ) {
            let kept = reserves(&all);
            let (own, higher) = (kept.share(class, calls), kept.share(class + 1, calls));
            prop_assert!(own <= higher && higher <= calls.max(1));
        }
    }
}
