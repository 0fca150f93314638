//! Why an instance would get a call, and others not.

use std::fmt;

use ringcall_core::Instant;

use super::{Fleet, FleetCounts, Readiness};
use crate::aperture::Aperture;
use crate::breaker::BreakerState;
use crate::health::HealthState;
use crate::method::MethodKey;
use crate::recovery::Recovering;
use crate::route::{Asked, Dropped, Trace};

/// How a call would be decided at the moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Explanation {
    /// Which policy chooses.
    pub balance: String,
    /// The version of the list of instances.
    pub listing: u64,
    /// Which part of that list is used, if not all of it, and no policy of yours says which.
    pub aperture: Option<Aperture>,
    /// What rules make of it, if there are rules, groups, zones or priorities. Where chance decides, it is that of the next call.
    pub trace: Option<Trace>,
    /// The method's breaker; nothing if it was not called yet, or has none.
    pub breaker: Option<BreakerState>,
    /// How many are back, if all were gone and calls grow with those that come back.
    pub recovery: Option<Recovering>,
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
    /// In which lane of the call it is, 0 the first; or why it is in none.
    pub lane: Result<usize, Dropped>,
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
    /// How busy it said last that it is, from 0 to 1; 0 if it never said.
    pub load: f32,
    /// How bad it would be to choose it; lower is better.
    pub score: f64,
}

impl<T: Clone> Fleet<T> {
    /// How a call of this method with nothing else would be decided. If it is said by number, rules know its name once it was
    /// called.
    #[must_use]
    pub fn explain(
        &self,
        now: Instant,
        method: impl Into<MethodKey>,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Explanation {
        let key = method.into();
        let name = key.name().or_else(|| self.methods.name(key.id())).unwrap_or_default();
        self.explain_call(now, &Asked { method: key.id(), ..Asked::new(name) }, readiness)
    }

    /// How a call would be decided.
    #[must_use]
    pub fn explain_call(
        &self,
        now: Instant,
        asked: &Asked<'_>,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Explanation {
        let method = asked.method;
        let trace = self.trace(asked);
        // In the order of the hosts.
        let lanes = trace.as_ref().map(|trace| trace.instances.iter().map(|(_, lane)| lane));
        let mut lanes = lanes.into_iter().flatten();
        let mut lane = || lanes.next().cloned().unwrap_or(Ok(0));
        let states = self.methods.breaker_states(method);
        let hosts = self.hosts.live().iter().map(|&place| {
            let (host, stats) = (self.hosts.host(place), &self.hosts.stats()[place as usize]);
            HostReport {
                name: host.listed.instance.name.clone(),
                lane: lane(),
                readiness: match self.hosts.is_stranger(place) {
                    true => Readiness::Stranger,
                    false => readiness(self.hosts.target(place)),
                },
                health: host.health.state,
                is_held: host.listed.is_held,
                breaker: states.as_ref().and_then(|(_, of)| of(place)),
                weight: (stats.weight, stats.full_weight),
                in_flight: stats.in_flight,
                latency: stats.latency(),
                errors: stats.errors(now),
                load: stats.load,
                score: self.balance.score(now, stats),
            }
        });
        let hosts = hosts.collect();
        let has_custom_aperture = self.settings.custom_aperture.is_some();
        Explanation {
            trace,
            balance: format!("{:?}", self.settings.balancing),
            listing: self.version,
            aperture: self.settings.aperture.filter(|_| !has_custom_aperture),
            breaker: states.as_ref().and_then(|(breaker, _)| *breaker),
            recovery: self.recovery.state(),
            budget: self.budget.balance(),
            counts: self.counts,
            hosts,
        }
    }

    fn trace(&self, asked: &Asked<'_>) -> Option<Trace> {
        let router = &self.routing.as_ref()?.router;
        let hosts = self.hosts.live().iter().map(|place| &*self.hosts.host(*place).listed.instance);
        // Looking does not change what happens next.
        Some(router.trace(asked, &mut self.rng.clone(), hosts))
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let breaker = self.breaker.unwrap_or(BreakerState::Closed);
        write!(f, "{} over listing {}", self.balance, self.listing)?;
        if let Some(Aperture { index, peers, .. }) = self.aperture {
            write!(f, ", the part of caller {index} of {peers}")?;
        }
        writeln!(
            f,
            "; breaker {breaker:?}; budget {}; {} calls, {} attempts",
            self.budget, self.counts.calls, self.counts.attempts
        )?;
        if let Some(Recovering { usable, .. }) = self.recovery {
            let held_back = self.counts.held_back;
            writeln!(f, "recovering with {usable} instances: {held_back} attempts were held back")?;
        }
        let FleetCounts { load_probes, load_probes_failed, .. } = self.counts;
        if load_probes > 0 {
            writeln!(f, "{load_probes} probes of how busy they are, {load_probes_failed} failed")?;
        }
        if let Some(trace) = &self.trace {
            writeln!(f, "rules {}: meets {}", trace.version, trace.met.join(", "))?;
            if !trace.mirrored.is_empty() {
                writeln!(f, "  a copy goes to one of {}", trace.mirrored.join(", "))?;
            }
        }
        for host in &self.hosts {
            write!(f, "  {:<12} ", host.name)?;
            match &host.lane {
                Err(dropped) => write!(f, "{dropped}, ")?,
                Ok(0) => {}
                Ok(lane) => write!(f, "lane {lane}, ")?,
            }
            write!(f, "{:?}, {:?}", host.readiness, host.health)?;
            if host.is_held {
                f.write_str(", held")?;
            }
            if let Some(state) = host.breaker.filter(|state| *state != BreakerState::Closed) {
                write!(f, ", breaker {state:?}")?;
            }
            if host.load > 0.0 {
                write!(f, ", load {:.0} %", host.load * 100.0)?;
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
