//! New instances get their share of the calls gradually.

use std::fmt;
use std::time::Duration;

use ringcall_core::Instant;

/// Says which share of its weight a new instance gets: a time, over which it grows evenly, or one of yours. Asked of all
/// instances whenever the list or somebody's health changes, and once a second.
pub trait WarmUpPolicy: Send + Sync + fmt::Debug {
    /// In thousandths, 1000 at most; an instance that is registered gets a call now and then in any case. `age` is how long
    /// it has been there; `None` if it was there before anybody counted.
    fn share(&self, age: Option<Duration>) -> u32;
}

/// A tenth at first, all of it after this time, in between as much as has passed of it.
impl WarmUpPolicy for Duration {
    fn share(&self, age: Option<Duration>) -> u32 {
        let warm_up = self.as_nanos().max(1);
        match age.map(|age| age.as_nanos()) {
            Some(age) if age < warm_up => (age * 1000 / warm_up).max(100) as u32,
            _ => 1000,
        }
    }
}

/// The part of its weight that an instance has which is there since `since`, by this policy. In thousandths.
#[must_use]
pub fn ramp(now: Instant, since: Instant, warm_up: &dyn WarmUpPolicy) -> u32 {
    let age = (since != Instant::ZERO).then(|| now.since(since));
    warm_up.share(age).min(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_with_age() {
        let (since, warm_up) = (Instant::from_nanos(5_000_000_000), Duration::from_secs(100));
        let after = |s| ramp(since + Duration::from_secs(s), since, &warm_up);
        assert_eq!([0, 5, 50, 100, 1000].map(after), [100, 100, 500, 1000, 1000]);
        assert_eq!(ramp(Instant::ZERO, Instant::ZERO, &warm_up), 1000, "there for long");
        assert_eq!(ramp(since, since, &Duration::ZERO), 100, "at least for a moment");
        assert_eq!(ramp(since + Duration::from_nanos(1), since, &Duration::ZERO), 1000);
    }
}
