//! Which instances are usable.

use ringcall_core::Instant;

use super::{Fleet, SWEEP};
use crate::health::{Condition, HealthState, Peers, Reason, Record, ejected_max};
use crate::window::Counts;

impl<T: Clone> Fleet<T> {
    /// Looks at all instances: their warm-up, and whether they are outliers.
    #[cold]
    pub(super) fn sweep(&mut self, now: Instant) {
        self.next_sweep = now + SWEEP;
        self.look_at = self.next_look();
        let records = self.hosts.take_records(now);
        let peers = Peers::of(records.iter().map(|(_, record)| record.counts));
        for (place, record) in &records {
            let condition = self.settings.health.judge(record, &peers);
            self.put_down(now, *place, condition);
        }
        self.hosts.give_records(records);
        self.methods.sweep(now);
        self.hosts.refresh(now, &self.settings);
    }

    /// A call to an instance has failed. Its peers are looked at once a second; in between only failures in a row
    /// count, and they make nothing better.
    #[cold]
    pub(super) fn failed(&mut self, now: Instant, place: u32) {
        let Record { consecutive, .. } = self.hosts.health_mut(place).seen(now);
        let in_a_row = Record { consecutive, counts: Counts::default() };
        let condition = self.settings.health.judge(&in_a_row, &Peers::default());
        if condition != Condition::Healthy && self.put_down(now, place, condition) {
            self.hosts.refresh(now, &self.settings);
        }
    }

    /// Puts down what an instance was found to be, and ejects it if it may be. Whether anything has changed.
    fn put_down(&mut self, now: Instant, place: u32, condition: Condition) -> bool {
        let health = self.hosts.health_mut(place);
        if health.is_ejected() {
            return false;
        }
        let before = health.state;
        health.state = match condition {
            Condition::Healthy => HealthState::Healthy,
            Condition::SubHealthy(reason) => HealthState::SubHealthy(reason),
        };
        let is_changed = health.state != before;
        match condition {
            Condition::SubHealthy(reason) => self.eject(now, place, reason) || is_changed,
            Condition::Healthy => is_changed,
        }
    }

    /// Ejects an instance, unless so many are that it has to stay.
    fn eject(&mut self, now: Instant, place: u32, reason: Reason) -> bool {
        let config = &self.settings.health;
        if self.hosts.ejected() >= ejected_max(config, self.hosts.live().len()) {
            return false;
        }
        self.hosts.eject(place).eject(now, &mut self.rng, config, reason);
        self.counts.ejections += 1;
        true
    }
}
