//! New instances get their share of the calls gradually.

use std::time::Duration;

use ringcall_core::Instant;

/// The part of its weight that an instance has which is there since `since`: a tenth at first, all of it after
/// `warm_up`, in between as much as has passed of it. In thousandths.
#[must_use]
pub fn ramp(now: Instant, since: Instant, warm_up: Duration) -> u32 {
    let warm_up = warm_up.as_nanos().max(1);
    let age = now.since(since).as_nanos();
    if since == Instant::ZERO || age >= warm_up {
        return 1000;
    }
    (age * 1000 / warm_up).max(100) as u32
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_with_age() {
        let (since, warm_up) = (Instant::from_nanos(5_000_000_000), Duration::from_secs(100));
        let after = |s| ramp(since + Duration::from_secs(s), since, warm_up);
        assert_eq!([0, 5, 50, 100, 1000].map(after), [100, 100, 500, 1000, 1000]);
        assert_eq!(ramp(Instant::ZERO, Instant::ZERO, warm_up), 1000, "there for long");
        assert_eq!(ramp(since, since, Duration::ZERO), 100, "at least for a moment");
        assert_eq!(ramp(since + Duration::from_nanos(1), since, Duration::ZERO), 1000);
    }
}
