//! Which instance an attempt goes to.

use ringcall_core::{Cause, CloseReason, Failure, Instant, Missing};

use super::routing::Plan;
use super::{CallState, Fleet, Readiness};

/// How often the policy is asked before all instances are looked at.
const TRIES: u32 = 4;

/// Ranks from here on are of instances that are known to be unreachable.
const BROKEN: u8 = 1 << 3;

/// How far an instance is from what one would like for a call, if it can have it at all; lower is better. It matters most
/// that nobody knows it to be unreachable, then that it is not ejected, then that the call was not made there
/// yet, then that it can be called at once.
fn rank(is_usable: bool, readiness: Readiness, is_tried: bool) -> Option<u8> {
    let (is_broken, is_slow) = match readiness {
        Readiness::Ready => (false, false),
        Readiness::Connecting => (false, true),
        Readiness::Broken => (true, false),
        Readiness::Stranger => return None,
    };
    let flags = [is_broken, !is_usable, is_tried, is_slow];
    Some(flags.iter().fold(0, |rank, flag| rank << 1 | u8::from(*flag)))
}

impl<T: Clone> Fleet<T> {
    /// The place of the instance, and whether this call is its probe. Whether the call is `ROUTED` is known when this
    /// is compiled, so that others do not pay for it.
    #[inline]
    pub(super) fn choose<const ROUTED: bool>(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Result<(u32, bool), Failure> {
        if let Some(place) = self.probe(now, call, readiness) {
            return Ok((place, true));
        }
        if let Some(place) = self.choose_quickly::<ROUTED>(now, call, readiness) {
            return Ok((place, false));
        }
        self.choose_slowly(now, call, readiness).map(|place| (place, false))
    }

    /// The place of an instance at which the call was not made yet, if there is one.
    pub(super) fn choose_another<const ROUTED: bool>(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Option<u32> {
        self.refresh_plan(call);
        let quick = self.choose_quickly::<ROUTED>(now, call, readiness);
        // One that was tried is only chosen where all were.
        let place = quick.or_else(|| self.choose_slowly(now, call, readiness).ok())?;
        // In another lane a call is made again, not twice.
        let is_in_lane = self.plan(call).is_none_or(|plan| {
            plan.lanes().first().is_some_and(|lane| lane.callable.binary_search(&place).is_ok())
        });
        let is_ready = readiness(self.hosts.target(place)) == Readiness::Ready;
        let is_new = !call.tried().contains(&self.hosts.reference(place));
        (is_in_lane && is_ready && is_new).then_some(place)
    }

    /// Parts the plan of a call anew if health has changed.
    #[inline]
    pub(super) fn refresh_plan(&mut self, call: &CallState) {
        if let Some(routing) = &mut self.routing {
            routing.refresh(call, &self.hosts, &self.settings);
        }
    }

    /// Where a call may go, if not everywhere.
    #[inline]
    fn plan(&self, call: &CallState) -> Option<&Plan> {
        self.routing.as_ref().map(|routing| routing.planned(call))
    }

    /// Whom the policy chooses of all that are usable, if nothing speaks against it. It is asked more than once, so
    /// that a few instances that are in the way do not make every other call look at all of them.
    #[inline]
    fn choose_quickly<const ROUTED: bool>(
        &mut self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Option<u32> {
        let candidates = match &self.routing {
            Some(routing) if ROUTED => {
                let lane = routing.planned(call).lanes().first()?;
                self.hosts.candidates_among(lane.list(&mut self.rng))
            }
            _ => self.hosts.candidates(),
        };
        if candidates.places().is_empty() {
            return None;
        }
        let mut before = None;
        for _ in 0..TRIES {
            let place = self.balance.pick(now, &mut self.rng, &candidates, call.key);
            let methods = &self.methods;
            let is_open =
                methods.may_stop(call.method) && !methods.would_pass_host(call.method, place, now);
            let is_tried = call.attempts > 0 && call.tried().contains(&self.hosts.reference(place));
            let is_ready = readiness(self.hosts.target(place)) == Readiness::Ready;
            if is_ready && !is_open && !is_tried {
                return Some(place);
            }
            // A policy that goes by keys says the same each time.
            if before.replace(place) == Some(place) {
                return None;
            }
        }
        None
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
        let found = match self.plan(call) {
            None => {
                let (usable, callable) = (self.hosts.usable(), self.hosts.callable());
                self.narrow(now, call, readiness, &mut list, (usable, callable))
            }
            Some(plan) => self.narrow_lanes(now, call, readiness, &mut list, plan),
        };
        let chosen = found.map(|()| {
            let candidates = self.hosts.candidates_of(&list);
            self.balance.pick(now, &mut self.rng, &candidates, call.key)
        });
        self.scratch = list;
        let is_there = |place: &u32| readiness(self.hosts.target(*place)) != Readiness::Broken;
        if !chosen.as_ref().is_ok_and(is_there) {
            self.look_for_outage(now, readiness);
        }
        chosen
    }

    /// Leaves the best that there are of the first lane that has somebody for this call at once; within a lane those
    /// in the caller's zone come first. If no lane has, then of the first one that has anybody.
    fn narrow_lanes(
        &self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
        list: &mut Vec<u32>,
        plan: &Plan,
    ) -> Result<(), Failure> {
        let is_free = |place: &u32| {
            readiness(self.hosts.target(*place)) == Readiness::Ready
                && self.methods.would_pass_host(call.method, *place, now)
                && !call.tried().contains(&self.hosts.reference(*place))
        };
        for lane in plan.lanes() {
            for side in [&lane.near, &lane.usable] {
                list.clear();
                list.extend(side.iter().copied().filter(is_free));
                if !list.is_empty() {
                    return Ok(());
                }
            }
        }
        let mut last = Err(self.nobody(call, readiness));
        for lane in plan.all_lanes() {
            last = self.narrow(now, call, readiness, list, (&lane.usable, &lane.callable));
            if last.is_ok() {
                break;
            }
        }
        last
    }

    /// Leaves the best that there are, by [`rank`], of those whose breakers let the call through.
    fn narrow(
        &self,
        now: Instant,
        call: &CallState,
        readiness: &impl Fn(&T) -> Readiness,
        list: &mut Vec<u32>,
        (usable, callable): (&[u32], &[u32]),
    ) -> Result<(), Failure> {
        let hosts = &self.hosts;
        // Who would rather fail than use those that are ejected says so.
        let are_ejected_used = self.settings.health.panic_percent > 0;
        let (mut best, mut is_stopped) = (u8::MAX, false);
        list.clear();
        for &place in callable {
            let is_usable = usable.binary_search(&place).is_ok();
            let is_tried = call.tried().contains(&hosts.reference(place));
            let Some(rank) = rank(is_usable, readiness(hosts.target(place)), is_tried) else {
                continue;
            };
            if !is_usable && !are_ejected_used || rank > best {
                continue;
            }
            if !self.methods.would_pass_host(call.method, place, now) {
                is_stopped = true;
                continue;
            }
            if rank < best {
                best = rank;
                list.clear();
            }
            list.push(place);
        }
        if best < BROKEN {
            return Ok(());
        }
        // Whoever cannot be reached is no way around a breaker.
        match list.is_empty() {
            _ if is_stopped => Err(Failure::not_sent(Cause::BreakerOpen)),
            true => Err(self.nobody(call, readiness)),
            false => Ok(()),
        }
    }

    /// There is nobody whom a call may go to.
    #[cold]
    fn nobody(&self, call: &CallState, readiness: &impl Fn(&T) -> Readiness) -> Failure {
        let is_stranger = |place: &u32| {
            self.hosts.is_stranger(*place)
                || readiness(self.hosts.target(*place)) == Readiness::Stranger
        };
        let live = self.hosts.live();
        let is_why = !live.is_empty() && live.iter().all(is_stranger);
        Failure::not_sent(match is_why {
            true => Cause::Closed(CloseReason::WrongInstance),
            false => Cause::NoInstance { why: self.why_nobody(call), service: self.service },
        })
    }

    fn why_nobody(&self, call: &CallState) -> Missing {
        let callable = self.hosts.callable();
        match &self.routing {
            _ if self.hosts.live().is_empty() => Missing::NoneKnown,
            _ if callable.is_empty() => Missing::Weightless,
            Some(routing) => routing.why_nobody(call, callable).unwrap_or(Missing::Ejected),
            None => Missing::Ejected,
        }
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
        let plan = self.routing.as_ref().map(|routing| routing.planned(call));
        self.hosts.begin_probe(now, |place, target| {
            readiness(target) == Readiness::Ready
                && plan.is_none_or(|plan| plan.may_probe(place))
                && methods.would_pass_host(call.method, place, now)
        })
    }
}
