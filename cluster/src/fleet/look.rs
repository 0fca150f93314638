//! What connections say of the instances: whether anybody is there, and the right one.

use std::time::Duration;

use ringcall_core::{Cause, Failure, Instant};

use super::{Fleet, FleetEvent, Readiness};
use crate::recovery::Turned;

/// How often those that can be called are counted while instances come back.
const COUNTED_EVERY: Duration = Duration::from_millis(10);

impl<T: Clone> Fleet<T> {
    /// Looks at the connections of all instances: what has changed is told by [`poll_event`](Fleet::poll_event). Calls
    /// do so once a second, and without calls somebody else should who wants to know.
    pub fn look(&mut self, now: Instant, readiness: impl Fn(&T) -> Readiness) {
        let changed = self.hosts.look(&readiness);
        for (name, is_stranger) in changed.iter().cloned() {
            self.events.tell(match is_stranger {
                true => FleetEvent::WrongInstance { name, mismatch: None },
                false => FleetEvent::RightInstance { name },
            });
        }
        if !changed.is_empty() {
            self.refresh(now);
        }
        self.look_for_outage(now, &readiness);
    }

    /// What happened and was not taken yet; the last 256 of it are kept.
    pub fn poll_event(&mut self) -> Option<FleetEvent> {
        self.events.take()
    }

    /// There is more to be done before an attempt than to choose an instance.
    ///
    /// # Errors
    /// When instances are coming back, and this attempt is one too many for them.
    #[cold]
    #[inline(never)]
    pub(super) fn look_around(
        &mut self,
        now: Instant,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Result<(), Failure> {
        if self.next_sweep <= now {
            self.look(now, readiness);
            self.sweep(now);
        }
        if self.counted_at + COUNTED_EVERY <= now {
            self.look_for_outage(now, readiness);
        }
        let Some(config) = self.settings.recovery else { return Ok(()) };
        if self.recovery.admits(&mut self.rng, &config) {
            return Ok(());
        }
        self.counts.held_back += 1;
        Err(Failure::not_sent(Cause::Recovering))
    }

    /// Counts who can be called, if that matters.
    pub(super) fn look_for_outage(&mut self, now: Instant, readiness: &impl Fn(&T) -> Readiness) {
        let config = self.settings.recovery;
        if config.is_none() && self.recovery.state().is_none() {
            return;
        }
        self.counted_at = now;
        let (ready, is_outage) = self.hosts.count_ready(readiness);
        match self.recovery.observe(now, ready, is_outage, config.as_ref()) {
            Some(Turned::Began) => {
                let working_min = config.map_or(0, |config| config.working_min);
                self.events.tell(FleetEvent::RecoveryBegan { working_min });
            }
            Some(Turned::Ended) => {
                self.events.tell(FleetEvent::RecoveryEnded { usable: ready });
            }
            None => {}
        }
        self.look_at = self.next_look();
    }

    /// Lets all calls through if that is no longer set.
    pub(super) fn stop_recovery(&mut self, now: Instant) {
        let Some(state) = self.recovery.state() else { return };
        if self.settings.recovery.is_none() {
            let _ended = self.recovery.observe(now, state.usable, false, None);
            self.events.tell(FleetEvent::RecoveryEnded { usable: state.usable });
        }
    }

    /// From when on attempts have to look around: from the next sweep on, or all of them while instances come back.
    /// Calls in other times do not pay for the question.
    pub(super) fn next_look(&self) -> Instant {
        match self.recovery.state() {
            Some(_) => Instant::ZERO,
            None => self.next_sweep,
        }
    }
}
