//! Which instances are usable.

use ringcall_core::Instant;

use super::hosts::Gone;
use super::{Fleet, FleetEvent, SWEEP};
use crate::health::{Condition, HealthState, Peers, Probed, Reason, Record, ejected_max};
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
            let condition = self.settings.health_policy().judge(record, &peers);
            self.put_down(now, *place, condition);
        }
        self.hosts.give_records(records);
        self.methods.sweep(now);
        self.refresh(now);
    }

    /// A call to an instance has failed. Its peers are looked at once a second; in between only failures in a row
    /// count, and they make nothing better.
    #[cold]
    pub(super) fn failed(&mut self, now: Instant, place: u32) {
        let Record { consecutive, .. } = self.hosts.health_mut(place).seen(now);
        let in_a_row = Record { consecutive, counts: Counts::default() };
        let condition = self.settings.health_policy().judge(&in_a_row, &Peers::default());
        if condition != Condition::Healthy && self.put_down(now, place, condition) {
            self.refresh(now);
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
        let (ejected, of) = self.hosts.ejected(now);
        if ejected >= ejected_max(config, of) {
            return false;
        }
        self.hosts.health_mut(place).eject(now, &mut self.rng, config, reason);
        self.counts.ejections += 1;
        self.tell_of_ejection(now, place);
        true
    }

    /// Tells that an instance is out, and for how long.
    fn tell_of_ejection(&mut self, now: Instant, place: u32) {
        let host = self.hosts.host(place);
        if let HealthState::Ejected { reason, until } = host.health.state {
            let name = host.listed.instance.name.clone();
            self.events.tell(FleetEvent::Ejected { name, reason, time: until.since(now) });
        }
    }

    /// The probe of an instance has ended.
    #[cold]
    pub(super) fn probed(&mut self, now: Instant, place: u32, probed: Probed) {
        let health = self.hosts.health_mut(place);
        health.probed(now, &mut self.rng, &self.settings.health, probed);
        match probed {
            Probed::Works => {
                let name = self.hosts.host(place).listed.instance.name.clone();
                self.events.tell(FleetEvent::Healed { name });
            }
            Probed::Fails => self.tell_of_ejection(now, place),
            Probed::Answers | Probed::GivenUp => {}
        }
    }

    /// Counts anew who is usable.
    pub(super) fn refresh(&mut self, now: Instant) {
        let was_panic = self.hosts.is_panic();
        self.hosts.refresh(now, &self.settings);
        if self.hosts.is_panic() != was_panic {
            self.events.tell(match was_panic {
                true => FleetEvent::PanicEnded,
                false => {
                    let of = self.hosts.callable().len();
                    FleetEvent::PanicBegan { usable: self.hosts.well(), of }
                }
            });
        }
    }

    /// What is known of instances that are gone goes with them; what was told of them is taken back.
    pub(super) fn forget_gone(&mut self) {
        for Gone { place, instance, is_ejected } in self.hosts.take_gone() {
            for method in self.methods.forget(place) {
                let (method, name) = (self.methods.name_at(method), &instance.name);
                let (method, instance) = (method.to_owned(), Some(name.clone()));
                self.events.tell(FleetEvent::BreakerClosed { method, instance });
            }
            if is_ejected {
                self.events.tell(FleetEvent::Gone { name: instance.name.clone() });
            }
        }
    }

    /// The breaker of a method has opened or closed, at one instance or everywhere.
    #[cold]
    pub(super) fn breaker_is(&mut self, is_open: bool, method: u32, place: Option<u32>) {
        let method = self.methods.name_at(method).to_owned();
        let name = |place| self.hosts.host(place).listed.instance.name.clone();
        let instance = place.map(name);
        self.events.tell(match is_open {
            true => FleetEvent::BreakerOpened { method, instance },
            false => FleetEvent::BreakerClosed { method, instance },
        });
    }
}
