//! Which instance an attempt goes to.

use ringcall_core::{Cause, Failure, Instant};

use super::{CallState, Fleet, Readiness};

impl<T: Clone> Fleet<T> {
    /// The place of the instance, and whether this call is its probe.
    #[inline]
    pub(super) fn choose(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Result<(u32, bool), Failure> {
        if let Some(place) = self.probe(now, call, readiness) {
            return Ok((place, true));
        }
        let is_plain = call.attempts == 0 && !self.methods.any_open(call.method);
        if is_plain && !self.hosts.usable().is_empty() {
            let candidates = self.hosts.candidates(self.hosts.usable());
            let place = self.balance.pick(now, &mut self.rng, &candidates, call.key);
            if readiness(self.hosts.target(place)) == Readiness::Ready {
                return Ok((place, false));
            }
        }
        self.choose_slowly(now, call, readiness).map(|place| (place, false))
    }

    /// Something is in the way: looks at all instances.
    #[cold]
    fn choose_slowly(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Result<u32, Failure> {
        let mut list = std::mem::take(&mut self.scratch);
        let chosen = self.narrow(now, call, readiness, &mut list).map(|()| {
            let candidates = self.hosts.candidates(&list);
            self.balance.pick(now, &mut self.rng, &candidates, call.key)
        });
        self.scratch = list;
        chosen
    }

    /// Leaves the best that there are: usable, ready, not tried.
    fn narrow(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
        list: &mut Vec<u32>,
    ) -> Result<(), Failure> {
        let hosts = &self.hosts;
        let ready = |place: &u32| readiness(hosts.target(*place));
        list.clear();
        list.extend(hosts.usable().iter().filter(|place| ready(place) == Readiness::Ready));
        if hosts.callable().is_empty() {
            return Err(Failure::not_sent(Cause::NoInstance));
        }
        for next in [Readiness::Ready, Readiness::Connecting, Readiness::Broken] {
            if list.is_empty() {
                list.extend(hosts.callable().iter().filter(|place| ready(place) == next));
            }
        }
        let methods = &self.methods;
        list.retain(|place| methods.would_pass_host(call.method, *place, now));
        if list.is_empty() {
            self.counts.stopped += 1;
            return Err(Failure::not_sent(Cause::BreakerOpen));
        }
        let is_tried = |place: u32| call.tried().contains(&hosts.reference(place));
        if list.iter().any(|place| !is_tried(*place)) {
            list.retain(|place| !is_tried(*place));
        }
        Ok(())
    }

    /// An instance whose ejection is over and that no call probes yet.
    #[inline]
    fn probe(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Option<u32> {
        if !self.hosts.wants_probe(now) {
            return None;
        }
        let methods = &self.methods;
        self.hosts.begin_probe(now, |place, target| {
            readiness(target) == Readiness::Ready
                && methods.would_pass_host(call.method, place, now)
        })
    }
}
