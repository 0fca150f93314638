//! Which instances are usable.

use ringcall_core::Instant;

use super::{Fleet, SWEEP};
use crate::health::{Condition, HealthState, Judge, Peers, Record, ejected_max};

impl<T: Clone> Fleet<T> {
    /// Looks at all instances: their warm-up, and whether they are outliers.
    #[cold]
    pub(super) fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + SWEEP;
        let records = self.hosts.records(now);
        let peers = Peers::of(records.iter().map(|(_, record)| record.counts));
        for (place, record) in records {
            self.judge_host(now, place, &record, &peers);
        }
        self.hosts.refresh(now, &self.settings);
    }

    /// A call to an instance has failed, or its probe has ended.
    #[cold]
    pub(super) fn failed(&mut self, now: Instant, place: u32) {
        let record = self.hosts.health_mut(place).seen(now);
        // Its peers are looked at once a second; in between only failures in a row count.
        self.judge_host(now, place, &record, &Peers::default());
        self.hosts.refresh(now, &self.settings);
    }

    fn judge_host(&mut self, now: Instant, place: u32, record: &Record, peers: &Peers) {
        let config = self.settings.health;
        let condition = match peers.counts.all() {
            // Nothing to compare with.
            0 => config.judge(&Record { counts: Default::default(), ..*record }, peers),
            _ => config.judge(record, peers),
        };
        let health = self.hosts.health_mut(place);
        if health.is_ejected() {
            return;
        }
        health.state = match condition {
            Condition::Healthy => HealthState::Healthy,
            Condition::SubHealthy(reason) => HealthState::SubHealthy(reason),
        };
        let Condition::SubHealthy(reason) = condition else { return };
        if self.hosts.ejected() < ejected_max(&config, self.hosts.live().len()) {
            let health = self.hosts.health_mut(place);
            health.eject(now, &mut self.rng, &config, reason);
            self.counts.ejections += 1;
        }
    }
}
