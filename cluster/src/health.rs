//! Whether an instance works, judged by its calls, and against its peers.
//!
//! Shares are judged, not numbers, so that busy and idle instances are judged alike; and against peers, so
//! that a fault which all of them have, a database that is down, ejects nobody.

use std::fmt;
use std::time::Duration;

use ringcall_core::{Entropy, Instant};

use crate::window::{Counts, Window};

/// When an instance is ejected, and for how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Deserialize), serde(default, deny_unknown_fields))]
#[non_exhaustive]
pub struct HealthConfig {
    /// So many failures in a row: 5.
    pub consecutive: u32,
    /// Or less than this share of its calls succeeds, in percent: 80. Of all instances together more must:
    /// if they all fail, the fault is not this one's.
    pub success_percent: u32,
    /// In which time: 30 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub window: Duration,
    /// If there were so many calls: 5.
    pub calls_min: u32,
    /// Or its share of successes is so many tenths of a standard deviation below the mean: 19 (Envoy). Only
    /// where five instances have a hundred calls in the window.
    pub deviation_tenths: u32,
    /// How long it is ejected the first time: 5 s, then twice as long, three times, …
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub ejection: Duration,
    /// But so long at most: 300 s.
    #[cfg_attr(feature = "serde", serde(deserialize_with = "crate::text::time"))]
    pub ejection_max: Duration,
    /// Which share of the instances that can be called may be ejected at a time, in percent: 10. One always may, unless it
    /// is the only one. One that is not probed within a second, since no call may go there, does not count.
    pub ejected_percent: u32,
    /// With less than this share usable, in percent, all of them are used: 50. With 0 those that are ejected get no calls
    /// whatever happens: without another one calls fail at once, and were not sent.
    pub panic_percent: u32,
}

impl Default for HealthConfig {
    fn default() -> HealthConfig {
        HealthConfig {
            consecutive: 5,
            success_percent: 80,
            window: Duration::from_secs(30),
            calls_min: 5,
            deviation_tenths: 19,
            ejection: Duration::from_secs(5),
            ejection_max: Duration::from_secs(300),
            ejected_percent: 10,
            panic_percent: 50,
        }
    }
}

/// What calls to an instance came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Record {
    /// Failures since the last success.
    pub consecutive: u32,
    /// Within the window.
    pub counts: Counts,
}

/// The same of its peers.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Peers {
    /// Within the window, of all together.
    pub counts: Counts,
    /// How many of them have a hundred calls in the window.
    pub busy: u32,
    /// The mean of their shares of successes, from 0 to 1.
    pub mean: f64,
    /// And their standard deviation.
    pub deviation: f64,
}

impl Peers {
    /// The peers with these records.
    #[must_use]
    pub fn of(records: impl Iterator<Item = Counts> + Clone) -> Peers {
        let mut peers = Peers::default();
        for counts in records.clone() {
            peers.counts.good = peers.counts.good.saturating_add(counts.good);
            peers.counts.bad = peers.counts.bad.saturating_add(counts.bad);
        }
        let shares = records
            .filter(|counts| counts.all() >= BUSY_CALLS)
            .map(|counts| f64::from(counts.good) / f64::from(counts.all()));
        peers.busy = shares.clone().count() as u32;
        let count = f64::from(peers.busy).max(1.0);
        peers.mean = shares.clone().sum::<f64>() / count;
        let mean = peers.mean;
        let variance = shares.map(|share| (share - mean) * (share - mean)).sum::<f64>() / count;
        peers.deviation = variance.sqrt();
        peers
    }
}

const BUSY_CALLS: u32 = 100;
const BUSY_HOSTS_MIN: u32 = 5;

/// Whether an instance works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// As far as is known.
    Healthy,
    /// Not as it should, for this reason.
    SubHealthy(Reason),
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Condition::Healthy => f.write_str("healthy"),
            Condition::SubHealthy(reason) => write!(f, "not healthy: {reason}"),
        }
    }
}

/// Why an instance is not healthy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reason {
    /// Too many failures in a row.
    Consecutive,
    /// Too few successes in the window.
    Ratio,
    /// Fewer successes than its peers.
    Outlier,
    /// What a [`HealthPolicy`] of yours says.
    Custom(&'static str),
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Reason::Consecutive => "too many of its calls failed in a row",
            Reason::Ratio => "too few of its calls succeed",
            Reason::Outlier => "fewer of its calls succeed than those of others",
            Reason::Custom(why) => why,
        })
    }
}

/// Judges whether an instance works: [`HealthConfig`], or one of yours. For how long an instance is ejected, how many may be and
/// when all are used all the same is up to the configuration.
pub trait HealthPolicy: Send + Sync + fmt::Debug {
    /// Whether the instance with this record works, beside these peers. Asked of all instances once a second; in between,
    /// behind each call that failed, with what failed in a row and nothing else.
    fn judge(&self, record: &Record, peers: &Peers) -> Condition;
}

impl HealthPolicy for HealthConfig {
    fn judge(&self, record: &Record, peers: &Peers) -> Condition {
        if record.consecutive >= self.consecutive {
            return Condition::SubHealthy(Reason::Consecutive);
        }
        let limit = 100 - self.success_percent.min(100);
        let is_bad = |counts: Counts| counts.bad_percent() > limit;
        if record.counts.all() >= self.calls_min && is_bad(record.counts) && !is_bad(peers.counts) {
            return Condition::SubHealthy(Reason::Ratio);
        }
        let share = f64::from(record.counts.good) / f64::from(record.counts.all().max(1));
        let least = peers.mean - peers.deviation * f64::from(self.deviation_tenths) / 10.0;
        let is_comparable = peers.busy >= BUSY_HOSTS_MIN && record.counts.all() >= BUSY_CALLS;
        // Less than one call in a hundred is not worth an ejection, however even the peers are.
        if is_comparable && share < least && share < peers.mean - 0.01 {
            return Condition::SubHealthy(Reason::Outlier);
        }
        Condition::Healthy
    }
}

/// How many of so many instances may be ejected.
#[must_use]
pub fn ejected_max(config: &HealthConfig, instances: usize) -> usize {
    if instances < 2 {
        return 0;
    }
    (instances * config.ejected_percent.min(100) as usize / 100).max(1)
}

/// The health of one instance.
#[derive(Clone, Debug)]
pub(crate) struct Health {
    consecutive: u32,
    window: Window<15>,
    ejections: u32,
    /// When the last ejection ended.
    healed: Instant,
    pub(crate) state: HealthState,
}

/// How the probe of an instance has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probed {
    Works,
    Fails,
    /// With an answer that says nothing of how the instance is: the caller may not do that, for example.
    Answers,
    /// Nobody waited for its end, or it was not sent: nothing is known.
    GivenUp,
}

/// An instance whose probe was answered, without saying how it is, is probed again after so long.
const ANSWERED_PAUSE: Duration = Duration::from_millis(100);

/// An instance that no call has probed for so long gets none of those that there are.
const UNPROBED_MAX: Duration = Duration::from_secs(1);

/// What is done about the health of an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HealthState {
    /// It gets its share of the calls.
    Healthy,
    /// It gets a tenth of its share, or all of its keys, where policies go by these: too many others are ejected.
    SubHealthy(Reason),
    /// It gets no calls until then.
    Ejected {
        /// Why.
        reason: Reason,
        /// When it is probed.
        until: Instant,
    },
    /// One call is being made to it, to see.
    Probing {
        /// Why it was ejected.
        reason: Reason,
    },
}

impl fmt::Display for HealthState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            HealthState::Healthy => f.write_str("healthy"),
            HealthState::SubHealthy(reason) => write!(f, "not healthy: {reason}"),
            HealthState::Ejected { reason, .. } => write!(f, "ejected: {reason}"),
            HealthState::Probing { .. } => f.write_str("being probed"),
        }
    }
}

impl Health {
    pub(crate) fn new(config: &HealthConfig) -> Health {
        Health {
            consecutive: 0,
            window: Window::new(config.window),
            ejections: 0,
            healed: Instant::ZERO,
            state: HealthState::Healthy,
        }
    }

    /// A call has ended.
    pub(crate) fn record(&mut self, now: Instant, is_good: bool) {
        self.window.record(now, is_good);
        self.consecutive = if is_good { 0 } else { self.consecutive.saturating_add(1) };
    }

    pub(crate) fn seen(&mut self, now: Instant) -> Record {
        Record { consecutive: self.consecutive, counts: self.window.counts(now) }
    }

    pub(crate) fn is_ejected(&self) -> bool {
        matches!(self.state, HealthState::Ejected { .. } | HealthState::Probing { .. })
    }

    /// Whether it takes the place of another one that could be ejected. Whoever is not probed although its time is over
    /// is at no call's hand, by rules or for want of a connection, and would have that place for ever.
    pub(crate) fn is_out(&self, now: Instant) -> bool {
        match self.state {
            HealthState::Healthy | HealthState::SubHealthy(_) => false,
            HealthState::Ejected { until, .. } => now < until + UNPROBED_MAX,
            HealthState::Probing { .. } => true,
        }
    }

    /// When a call may be its probe; never if it needs none, or has one.
    pub(crate) fn probe_at(&self) -> Instant {
        match self.state {
            HealthState::Ejected { until, .. } => until,
            _ => Instant::FAR,
        }
    }

    /// Calls are counted in a window of another length from now on.
    pub(crate) fn configure(&mut self, config: &HealthConfig) {
        self.window = Window::new(config.window);
    }

    /// A call becomes its probe.
    pub(crate) fn probe(&mut self) {
        if let HealthState::Ejected { reason, .. } = self.state {
            self.state = HealthState::Probing { reason };
        }
    }

    /// Takes it out, longer each time.
    pub(crate) fn eject(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        config: &HealthConfig,
        reason: Reason,
    ) {
        // A while without an ejection makes the next one shorter.
        let healthy_for = now.since(self.healed).as_nanos();
        let span = config.ejection.as_nanos().max(1) * u128::from(self.ejections.max(1)) * 2;
        let served = u32::try_from(healthy_for / span).unwrap_or(u32::MAX);
        self.ejections = self.ejections.saturating_sub(served).saturating_add(1);
        let time = config.ejection.saturating_mul(self.ejections).min(config.ejection_max);
        self.stay_out(now, rng, time, reason);
    }

    fn stay_out(&mut self, now: Instant, rng: &mut dyn Entropy, time: Duration, reason: Reason) {
        // Up to a tenth longer, so that those which fell together do not come back together.
        let jitter = rng.below(time.as_nanos() as u64 / 10 + 1);
        let until = now + time + Duration::from_nanos(jitter);
        self.state = HealthState::Ejected { reason, until };
    }

    /// It stays out for what it was ejected for.
    fn stay_out_still(&mut self, now: Instant, rng: &mut dyn Entropy, time: Duration) {
        if let HealthState::Probing { reason } = self.state {
            self.stay_out(now, rng, time, reason);
        }
    }

    /// The probe has ended.
    pub(crate) fn probed(
        &mut self,
        now: Instant,
        rng: &mut dyn Entropy,
        config: &HealthConfig,
        probed: Probed,
    ) {
        match probed {
            Probed::Works => {
                self.state = HealthState::Healthy;
                self.consecutive = 0;
                self.healed = now;
                self.window.clear();
            }
            Probed::Fails => {
                self.healed = now;
                self.eject(now, rng, config, Reason::Consecutive);
            }
            Probed::Answers => self.stay_out_still(now, rng, ANSWERED_PAUSE),
            // The next call is no probe again: an instance that hangs would be given all calls, one after the other.
            Probed::GivenUp => {
                self.stay_out_still(now, rng, config.ejection.min(config.ejection_max));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ringcall_core::SplitMix64;

    fn record(good: u32, bad: u32) -> Record {
        Record { consecutive: 0, counts: Counts { good, bad } }
    }

    fn at(s: u64) -> Instant {
        Instant::from_nanos(s * 1_000_000_000)
    }

    #[test]
    fn an_instance_is_judged_by_shares_and_beside_its_peers() {
        let config = HealthConfig::default();
        let good = Peers { counts: Counts { good: 1000, bad: 10 }, ..Peers::default() };
        assert_eq!(config.judge(&record(4, 0), &good), Condition::Healthy);
        assert_eq!(config.judge(&record(1, 3), &good), Condition::Healthy, "too few calls");
        assert_eq!(config.judge(&record(70, 30), &good), Condition::SubHealthy(Reason::Ratio));
        assert_eq!(config.judge(&record(7000, 3000), &good), Condition::SubHealthy(Reason::Ratio));
        let all_fail = Peers { counts: Counts { good: 10, bad: 1000 }, ..Peers::default() };
        assert_eq!(config.judge(&record(1, 99), &all_fail), Condition::Healthy, "so do the others");
        let in_a_row = Record { consecutive: 5, counts: Counts::default() };
        assert_eq!(config.judge(&in_a_row, &good), Condition::SubHealthy(Reason::Consecutive));
    }

    #[test]
    fn an_outlier_is_found_among_peers() {
        let config = HealthConfig::default();
        let mut counts = vec![Counts { good: 990, bad: 10 }; 9];
        counts.push(Counts { good: 850, bad: 150 });
        let peers = Peers::of(counts.iter().copied());
        assert_eq!((peers.busy, peers.counts.bad), (10, 240));
        assert_eq!(config.judge(&record(850, 150), &peers), Condition::SubHealthy(Reason::Outlier));
        assert_eq!(config.judge(&record(990, 10), &peers), Condition::Healthy);
        let few = Peers::of(counts[6..].iter().copied());
        assert_eq!(config.judge(&record(850, 150), &few), Condition::Healthy, "four are no crowd");
    }

    #[test]
    fn g13_ejections_are_longer_each_time_and_jittered() {
        let config = HealthConfig::default();
        let mut rng = SplitMix64::new(1);
        let mut health = Health::new(&config);
        let (mut now, mut times) = (at(100), Vec::new());
        for _ in 0..100 {
            health.eject(now, &mut rng, &config, Reason::Consecutive);
            let HealthState::Ejected { until, .. } = health.state else { panic!("not ejected") };
            times.push(until.since(now));
            health.healed = until;
            now = until;
        }
        for (count, time) in times.iter().enumerate() {
            let least = Duration::from_secs((5 * (count as u64 + 1)).min(300));
            assert!(*time >= least && *time <= least * 11 / 10, "{count}: {time:?}");
        }
        // An hour without trouble, and it is the first time again.
        health.eject(now + Duration::from_secs(360_000), &mut rng, &config, Reason::Ratio);
        assert_eq!(health.ejections, 1);
    }

    #[test]
    fn g13_a_tenth_is_ejected_and_one_at_least() {
        let config = HealthConfig::default();
        let max = |instances| ejected_max(&config, instances);
        assert_eq!([0, 1, 2, 5, 10, 19, 20, 100].map(max), [0, 0, 1, 1, 1, 1, 2, 10]);
    }
}
