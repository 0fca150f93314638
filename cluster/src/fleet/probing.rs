//! Instances are asked how busy they are.

use std::time::Duration;

use ringcall_core::Instant;

use super::{CallState, Fleet, HostRef, Readiness};

/// How long an answer is waited for.
const TIMEOUT: Duration = Duration::from_millis(100);
/// So many are asked at a time at most.
const PROBING_MAX: u32 = 64;

/// A question to an instance how busy it is, other than by a call. Give it back exactly once, to
/// [`Fleet::end_load_probe`].
#[derive(Debug)]
#[must_use]
pub struct LoadProbe {
    host: HostRef,
    asked: Instant,
    /// How long an answer is waited for.
    pub timeout: Duration,
}

impl LoadProbe {
    /// Which instance is asked.
    #[must_use]
    pub fn host(&self) -> HostRef {
        self.host
    }
}

impl<T: Clone> Fleet<T> {
    /// Lets `ask` have the instances that the balancing policy wants to be asked how busy they are, beside a call that has
    /// begun and of which no attempt was made yet. They are among those that the call may go to, and connected: nobody is
    /// woken up to be asked. None while instances come back after all had gone.
    pub fn load_probes(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: impl Fn(&T) -> Readiness,
        mut ask: impl FnMut(LoadProbe, T),
    ) {
        let is_wanted = self.unrouted.is_special && self.probing < PROBING_MAX;
        if !is_wanted || self.is_stale(call) || self.recovery.state().is_some() {
            return;
        }
        self.refresh_plan(call);
        let candidates = match &self.routing {
            None => self.hosts.candidates(),
            Some(routing) => {
                let Some(lane) = routing.planned(call).lanes().first() else { return };
                self.hosts.candidates_among(lane.list(&mut self.rng))
            }
        };
        if candidates.places().is_empty() {
            return;
        }
        let mut places = std::mem::take(&mut self.scratch);
        places.clear();
        self.balance.load_probes(now, &mut self.rng, &candidates, &mut places);
        places.truncate((PROBING_MAX - self.probing) as usize);
        for place in places.iter().copied() {
            let target = self.hosts.target(place);
            if readiness(target) == Readiness::Ready {
                let host = self.hosts.reference(place);
                ask(LoadProbe { host, asked: now, timeout: TIMEOUT }, target.clone());
                self.probing += 1;
                self.counts.load_probes += 1;
            }
        }
        self.scratch = places;
    }

    /// What has become of a question: how busy the instance is, in thousandths, or nothing. Without an answer, or with one
    /// that does not say it (0), nothing follows for the instance.
    pub fn end_load_probe(&mut self, probe: LoadProbe, load: Option<u16>) {
        self.probing = self.probing.saturating_sub(1);
        let Some(load) = load.filter(|load| *load != 0) else {
            self.counts.load_probes_failed += 1;
            return;
        };
        let LoadProbe { host, asked, .. } = probe;
        // What a call has said since then is news, and what one at this place said that is gone is about nobody.
        let Some(stats) = self.hosts.stats_of(host).filter(|stats| stats.seen() <= asked) else {
            return;
        };
        stats.says(load);
        self.balance.load_probed(asked, host.place(), &self.hosts.stats()[host.place() as usize]);
    }
}
