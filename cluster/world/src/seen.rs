//! What was seen of a world, and what figures of it must be.

use std::fmt;

/// What was seen in a second.
#[derive(Clone, Debug, Default)]
pub struct Second {
    /// Calls that began.
    pub calls: u64,
    /// Calls that ended well.
    pub good: u64,
    /// Calls that ended badly.
    pub bad: u64,
    /// Attempts that were under way at a server when it crashed, of calls that must not be made again.
    pub cut_off: u64,
    /// Attempts that were made.
    pub attempts: u64,
    /// Of these, the ones that were not the first of their call.
    pub extra: u64,
    /// Times that a server was asked how busy it is.
    pub probes: u64,
    /// Of each server: attempts that arrived.
    pub arrived: Vec<u64>,
    /// Of each server: the share of its workers that was busy, on average over the second.
    pub utilisation: Vec<f64>,
    /// Of each server: whether nothing was wrong with it all the time.
    pub well: Vec<bool>,
    /// How long calls took that ended well, in µs.
    pub latencies_us: Vec<u32>,
    /// The fewest instances that a client had in its list; only with a source.
    pub listed_min: usize,
    /// How often clients replaced their list, all together.
    pub lists: u64,
}

impl Second {
    /// How busy the busiest server was, and the mean of them: of those that were well, if there were any.
    #[must_use]
    pub fn busiest_and_mean(&self) -> (f64, f64) {
        let none_was_well = !self.well.contains(&true);
        let both = self.utilisation.iter().zip(&self.well);
        let busy = both.filter(|(_, well)| **well || none_was_well).map(|(busy, _)| *busy);
        let (most, sum, count) = busy.fold((0.0_f64, 0.0, 0.0), |(most, sum, count), busy| {
            (most.max(busy), sum + busy, count + 1.0)
        });
        (most, sum / f64::max(count, 1.0))
    }

    /// How busy the busiest server was, compared with the mean of them; of those that were well. Nothing if none was.
    #[must_use]
    pub fn max_over_mean(&self) -> Option<f64> {
        let (most, mean) = self.busiest_and_mean();
        (self.well.contains(&true) && mean > 0.0).then(|| most / mean)
    }
}

/// Sums over seconds.
pub trait Seconds {
    /// Attempts that arrived at a server.
    fn arrived(&self, server: usize) -> u64;
    /// Calls that ended well.
    fn good(&self) -> u64;
    /// Calls that ended badly.
    fn bad(&self) -> u64;
    /// Calls that began, and attempts that were made.
    fn calls_and_attempts(&self) -> (u64, u64);
    /// The busiest server compared with the mean, see [`Second::max_over_mean`]: the 99th of a hundred seconds.
    fn unevenness(&self) -> f64;
    /// What so many of a thousand calls that ended well took at most, in milliseconds.
    fn latency_ms(&self, per_mille: usize) -> f64;
    /// The calls that arrived at some servers, in percent of all.
    fn percent_at(&self, servers: std::ops::Range<usize>) -> u64;
}

impl Seconds for [Second] {
    fn arrived(&self, server: usize) -> u64 {
        self.iter().map(|second| second.arrived[server]).sum()
    }

    fn good(&self) -> u64 {
        self.iter().map(|second| second.good).sum()
    }

    fn bad(&self) -> u64 {
        self.iter().map(|second| second.bad).sum()
    }

    fn calls_and_attempts(&self) -> (u64, u64) {
        let both = self.iter().map(|second| (second.calls, second.attempts));
        both.fold((0, 0), |sum, it| (sum.0 + it.0, sum.1 + it.1))
    }

    fn unevenness(&self) -> f64 {
        let mut ratios: Vec<f64> = self.iter().filter_map(Second::max_over_mean).collect();
        ratios.sort_by(f64::total_cmp);
        ratios.get((ratios.len() * 99).div_ceil(100).saturating_sub(1)).copied().unwrap_or(1.0)
    }

    fn latency_ms(&self, per_mille: usize) -> f64 {
        let mut all: Vec<u32> =
            self.iter().flat_map(|second| &second.latencies_us).copied().collect();
        if all.is_empty() {
            return 0.0;
        }
        let rank = (all.len() * per_mille).div_ceil(1000).clamp(1, all.len()) - 1;
        f64::from(*all.select_nth_unstable(rank).1) / 1000.0
    }

    fn percent_at(&self, servers: std::ops::Range<usize>) -> u64 {
        let of = |second: &Second, servers: std::ops::Range<usize>| -> u64 {
            second.arrived[servers].iter().sum()
        };
        let all: u64 = self.iter().map(|second| of(second, 0..second.arrived.len())).sum();
        let some: u64 = self.iter().map(|second| of(second, servers.clone())).sum();
        some * 100 / all.max(1)
    }
}

/// A figure, and what it must be.
#[derive(Clone, Debug, PartialEq)]
pub struct Figure {
    /// Of what.
    pub what: &'static str,
    /// What it was.
    pub value: f64,
    /// What it must be.
    pub bar: Bar,
}

/// What a figure must be.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Bar {
    /// This at most.
    AtMost(f64),
    /// This at least.
    AtLeast(f64),
}

impl Figure {
    /// A figure that must be this at most.
    #[must_use]
    pub fn at_most(what: &'static str, value: f64, most: f64) -> Figure {
        Figure { what, value, bar: Bar::AtMost(most) }
    }

    /// A figure that must be this at least.
    #[must_use]
    pub fn at_least(what: &'static str, value: f64, least: f64) -> Figure {
        Figure { what, value, bar: Bar::AtLeast(least) }
    }

    /// Whether it is what it must be.
    #[must_use]
    pub fn holds(&self) -> bool {
        match self.bar {
            Bar::AtMost(most) => self.value <= most,
            Bar::AtLeast(least) => self.value >= least,
        }
    }
}

impl fmt::Display for Figure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (sign, bar) = match self.bar {
            Bar::AtMost(most) => ("≤", most),
            Bar::AtLeast(least) => ("≥", least),
        };
        let number = |value: f64| match value.fract() == 0.0 {
            true => format!("{value:.0}"),
            false => format!("{value:.3}"),
        };
        write!(f, "{}: {} {sign} {}", self.what, number(self.value), number(bar))
    }
}
