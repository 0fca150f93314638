//! What becomes of calls when instances come back after all of them had gone.
//!
//! They come back one by one, and the first would get what all of them can take together: it fails under that, and so
//! does the next one, and the service stays down for as long as it is asked for. So while too few are back, calls are
//! let through in the share of them that there is, and the others fail at once. It is the rule of brpc's
//! `ClusterRecoverPolicy`.

use std::time::Duration;

use ringcall_core::{Entropy, Instant};

/// How calls grow with the instances that come back after all had gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(deny_unknown_fields))]
#[non_exhaustive]
pub struct RecoveryConfig {
    /// So many instances can take all calls, at their peak: 1 to 10 000.
    pub working_min: u32,
    /// After so long with as many usable ones as before, all calls go to those that there are: 10 s.
    #[cfg_attr(feature = "serde", serde(default = "hold", deserialize_with = "crate::text::time"))]
    pub hold: Duration,
}

const fn hold() -> Duration {
    Duration::from_secs(10)
}

impl RecoveryConfig {
    /// So many instances can take all calls.
    #[must_use]
    pub fn new(working_min: u32) -> RecoveryConfig {
        RecoveryConfig { working_min, hold: hold() }
    }
}

/// Whether instances are coming back, and how many have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Recovery(Option<Recovering>);

/// Instances are coming back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovering {
    /// How many of them can be called.
    pub usable: u32,
    /// Since when it is that many.
    pub since: Instant,
}

/// What a look at the instances has come to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turned {
    /// All are gone: from now on calls are let through as instances come back.
    Began,
    /// All calls are let through again.
    Ended,
}

impl Recovery {
    /// How it stands, if instances are coming back.
    #[must_use]
    pub fn state(&self) -> Option<Recovering> {
        self.0
    }

    /// So many instances can be called. `is_outage` says that there are some, and that nobody answers at any: one that
    /// is being connected to may.
    pub fn observe(
        &mut self,
        now: Instant,
        usable: u32,
        is_outage: bool,
        config: Option<&RecoveryConfig>,
    ) -> Option<Turned> {
        let before = self.0;
        self.0 = match (config, before) {
            (None, _) => None,
            (Some(_), None) => is_outage.then_some(Recovering { usable, since: now }),
            (Some(_), Some(state)) if state.usable != usable => {
                Some(Recovering { usable, since: now })
            }
            // With nobody there is nothing to go back to.
            (Some(config), Some(state)) => {
                let is_steady = usable > 0 && now.since(state.since) >= config.hold;
                (!is_steady).then_some(state)
            }
        };
        match (before, self.0) {
            (None, Some(_)) => Some(Turned::Began),
            (Some(_), None) => Some(Turned::Ended),
            _ => None,
        }
    }

    /// Whether a call may be made.
    pub fn admits(&self, rng: &mut dyn Entropy, config: &RecoveryConfig) -> bool {
        let Some(Recovering { usable, .. }) = self.0 else { return true };
        usable >= config.working_min || rng.below(config.working_min.into()) < usable.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringcall_core::SplitMix64;

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    fn config() -> RecoveryConfig {
        RecoveryConfig::new(4)
    }

    /// Of a thousand calls.
    fn admitted(recovery: &Recovery) -> usize {
        let mut rng = SplitMix64::new(1);
        (0..1000).filter(|_| recovery.admits(&mut rng, &config())).count()
    }

    #[test]
    fn g12_calls_grow_with_the_instances_that_are_back() {
        let (mut recovery, config) = (Recovery::default(), config());
        assert_eq!(recovery.observe(at(1), 0, false, Some(&config)), None, "some may answer soon");
        assert_eq!(admitted(&recovery), 1000);
        assert_eq!(recovery.observe(at(1), 0, true, Some(&config)), Some(Turned::Began));
        assert_eq!(admitted(&recovery), 0);
        for (usable, share) in [(1, 200..300), (2, 450..550), (3, 700..800), (4, 1000..1001)] {
            let now = at(1 + u64::from(usable));
            assert_eq!(recovery.observe(now, usable, false, Some(&config)), None);
            assert!(share.contains(&admitted(&recovery)), "{usable}: {}", admitted(&recovery));
        }
    }

    #[test]
    fn g12_it_ends_when_as_many_are_there_for_a_while() {
        let (mut recovery, config) = (Recovery::default(), config());
        let mut observe = |s, usable| recovery.observe(at(s), usable, usable == 0, Some(&config));
        assert_eq!(observe(1, 0), Some(Turned::Began));
        assert_eq!(observe(100, 0), None, "nobody for however long");
        assert_eq!(observe(101, 2), None);
        assert_eq!(observe(110, 2), None);
        assert_eq!(observe(110, 1), None, "that begins anew");
        assert_eq!(observe(119, 1), None);
        assert_eq!(observe(120, 1), Some(Turned::Ended));
        assert_eq!(observe(121, 1), None);
        assert_eq!(observe(122, 0), Some(Turned::Began));
        assert_eq!(recovery.observe(at(123), 0, true, None), Some(Turned::Ended), "switched off");
    }
}
