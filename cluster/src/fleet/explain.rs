//! Why an instance would get a call, and others not.

use std::fmt;

use ringcall_core::Instant;

use super::{Fleet, FleetCounts, Readiness};
use crate::breaker::BreakerState;
use crate::health::HealthState;

/// How a call would be decided at the moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Which policy chooses.
    pub balance: String,
    /// The version of the list of instances.
    pub listing: u64,
    /// The method's breaker; nothing if it was not called yet, or has none.
    pub breaker: Option<BreakerState>,
    /// Whole retries that the budget allows.
    pub budget: u64,
    /// What was done so far.
    pub counts: FleetCounts,
    /// Each instance.
    pub hosts: Vec<HostReport>,
}

/// How one instance stands.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct HostReport {
    /// Its name.
    pub name: String,
    /// Whether its connection can be used.
    pub readiness: Readiness,
    /// What is done about its health.
    pub health: HealthState,
    /// Whether the source has it no more.
    pub is_held: bool,
    /// The method's breaker for it.
    pub breaker: Option<BreakerState>,
    /// Its weight now, in hundredths, and when it is warm and well.
    pub weight: (u32, u32),
    /// Calls under way.
    pub in_flight: u32,
    /// How long its calls take.
    pub latency: Option<std::time::Duration>,
    /// What share of its calls fails, from 0 to 1.
    pub errors: f64,
    /// How bad it would be to choose it; lower is better.
    pub score: f64,
}

impl<T: Clone> Fleet<T> {
    /// How a call of this method would be decided.
    #[must_use]
    pub fn explain(
        &self,
        now: Instant,
        method: u64,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Explanation {
        let states = self.methods.breaker_states(method);
        let hosts = self.hosts.live().iter().map(|&place| {
            let (host, stats) = (self.hosts.host(place), &self.hosts.stats()[place as usize]);
            HostReport {
                name: host.listed.instance.name.clone(),
                readiness: readiness(self.hosts.target(place)),
                health: host.health.state,
                is_held: host.listed.is_held,
                breaker: states.as_ref().and_then(|(_, of)| of(place)),
                weight: (stats.weight, stats.full_weight),
                in_flight: stats.in_flight,
                latency: stats.latency(),
                errors: stats.errors(now),
                score: self.balance.score(now, stats),
            }
        });
        Explanation {
            balance: format!("{:?}", self.settings.balancing),
            listing: self.version,
            breaker: states.as_ref().and_then(|(breaker, _)| *breaker),
            budget: self.budget.balance(),
            counts: self.counts,
            hosts: hosts.collect(),
        }
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breaker = self.breaker.unwrap_or(BreakerState::Closed);
        writeln!(
            f,
            "{} over listing {}; breaker {breaker:?}; budget {}; {} calls, {} attempts",
            self.balance, self.listing, self.budget, self.counts.calls, self.counts.attempts
        )?;
        for host in &self.hosts {
            write!(f, "  {:<12} {:?}, {:?}", host.name, host.readiness, host.health)?;
            if host.is_held {
                f.write_str(", held")?;
            }
            if let Some(state) = host.breaker.filter(|state| *state != BreakerState::Closed) {
                write!(f, ", breaker {state:?}")?;
            }
            writeln!(
                f,
                ", weight {}/{}, {} in flight, latency {:?}, errors {:.1} %, score {:.0}",
                host.weight.0 / 100,
                host.weight.1 / 100,
                host.in_flight,
                host.latency.unwrap_or_default(),
                host.errors * 100.0,
                host.score
            )?;
        }
        Ok(())
    }
}
