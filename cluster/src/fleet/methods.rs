//! What a fleet knows of the methods that are called: their breakers, and how long they take.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use ringcall_core::{Instant, RetryBudget};

use super::BUDGET_WINDOW;
use crate::breaker::{AnyBreaker, BreakerPolicy as _, BreakerState, Pass};
use crate::hedge::{AnyHedging, HedgePolicy as _};
use crate::limit::Limiter;
use crate::route::Asked;
use crate::settings::{MethodSettings, Settings};

/// More methods than this share the settings and the breaker of the last one. A program calls as many as it was
/// compiled with.
const METHODS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Methods {
    /// By number, for finding them.
    ids: Vec<(u64, u32)>,
    methods: Vec<Method>,
    /// Breakers of instances, of all methods.
    host_breakers: usize,
}

/// More instances of methods than this have no breaker of their own: the method's and the instance's health must
/// do. It takes that many at which calls fail at the same time.
const HOST_BREAKERS_MAX: usize = 1 << 16;

#[derive(Debug)]
struct Method {
    id: u64,
    name: Box<str>,
    settings: MethodSettings,
    /// Larger each time that all of its breakers are made anew.
    breakers: u32,
    /// Of all calls.
    breaker: Option<Noted>,
    /// Of those to the instance at a place, made when one of them fails: most never have one, and methods times
    /// instances would be many.
    host_breakers: BTreeMap<u32, Noted>,
    /// How many of `host_breakers` were noted as not closed.
    open: u32,
    hedging: Option<(AnyHedging, RetryBudget)>,
    limiter: Limiter,
}

impl Method {
    fn new(now: Instant, id: u64, name: Box<str>, settings: &MethodSettings) -> Method {
        Method {
            id,
            name,
            settings: settings.clone(),
            breakers: 0,
            breaker: settings.new_breaker().map(Noted::new),
            host_breakers: BTreeMap::new(),
            open: 0,
            hedging: hedging(now, settings),
            limiter: Limiter::new(settings.limit),
        }
    }

    /// Where breakers are open: everywhere (`None`), or at these places.
    fn open_breakers(&self) -> impl Iterator<Item = Option<u32>> {
        let all = self.breaker.iter().map(|breaker| (None, breaker));
        let of_hosts = self.host_breakers.iter().map(|(place, breaker)| (Some(*place), breaker));
        all.chain(of_hosts).filter(|(_, breaker)| breaker.is_open).map(|(place, _)| place)
    }

    fn renew_breakers(&mut self) {
        self.breakers = self.breakers.wrapping_add(1);
        self.breaker = self.settings.new_breaker().map(Noted::new);
        self.host_breakers.clear();
        self.open = 0;
    }

    /// A breaker of an instance has opened or closed, or neither.
    #[inline]
    fn count_open(&mut self, changed: Option<bool>) {
        match changed {
            Some(true) => self.open += 1,
            Some(false) => self.open -= 1,
            None => {}
        }
    }
}

/// What says when calls are hedged, and pays for it.
fn hedging(now: Instant, settings: &MethodSettings) -> Option<(AnyHedging, RetryBudget)> {
    let (hedging, extra_percent) = settings.new_hedging(now)?;
    Some((hedging, RetryBudget::new(extra_percent, 0, BUDGET_WINDOW, now)))
}

/// What a breaker has let through, and which breakers there were then: others know nothing of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Passed {
    pass: Pass,
    breakers: u32,
}

impl Passed {
    /// Whether by this call it is seen if something works again.
    pub(super) fn is_probe(self) -> bool {
        self.pass == Pass::Probe
    }
}

/// A breaker, and whether it was open when that was last looked at. One of a user's may open and close whenever it is
/// asked something, so what is counted and told is what was noted, and not what it says a moment later.
#[derive(Debug)]
struct Noted {
    breaker: AnyBreaker,
    is_open: bool,
}

impl Noted {
    fn new(breaker: AnyBreaker) -> Noted {
        Noted { breaker, is_open: false }
    }

    #[inline]
    fn pass(&mut self, now: Instant) -> (Option<Pass>, Option<bool>) {
        let pass = self.breaker.pass(now);
        // Ordinary ones open and close when calls end, and at no other time.
        let changed = match &self.breaker {
            AnyBreaker::Ordinary(_) => None,
            AnyBreaker::Custom(_) => self.note(),
        };
        (pass, changed)
    }

    #[inline]
    fn end(&mut self, now: Instant, pass: Pass, is_good: Option<bool>) -> Option<bool> {
        self.breaker.end(now, pass, is_good);
        self.note()
    }

    /// A call has ended that began when there was no breaker. One of a user's is told of nothing that it did not let through.
    fn end_unasked(&mut self, now: Instant, is_good: Option<bool>) -> Option<bool> {
        let pass = match &mut self.breaker {
            AnyBreaker::Ordinary(_) => Some(Pass::Ordinary),
            AnyBreaker::Custom(breaker) => breaker.pass(now),
        };
        match pass {
            Some(pass) => self.end(now, pass, is_good),
            None => self.note(),
        }
    }

    /// Says whether it is open now, if that has changed.
    #[inline]
    fn note(&mut self) -> Option<bool> {
        let is_open = self.breaker.state() != BreakerState::Closed;
        (std::mem::replace(&mut self.is_open, is_open) != is_open).then_some(is_open)
    }
}

impl Methods {
    /// The place of a method, which is made for it when it is first called.
    #[inline]
    pub(super) fn index(&mut self, now: Instant, asked: &Asked<'_>, settings: &Settings) -> u32 {
        match self.ids.binary_search_by_key(&asked.method, |(id, _)| *id) {
            Ok(at) => self.ids[at].1,
            Err(at) => self.add(now, at, asked, settings),
        }
    }

    #[cold]
    fn add(&mut self, now: Instant, at: usize, asked: &Asked<'_>, settings: &Settings) -> u32 {
        let id = asked.method;
        if self.methods.len() >= METHODS_MAX {
            return METHODS_MAX as u32 - 1;
        }
        let index = self.methods.len() as u32;
        self.ids.insert(at, (id, index));
        self.methods.push(Method::new(now, id, asked.name.into(), settings.of(id)));
        index
    }

    /// Breakers and hedges of methods start anew, each if its settings have changed. Gives the methods whose breakers were
    /// open, and at which places: everywhere, or at one.
    pub(super) fn configure(
        &mut self,
        now: Instant,
        settings: &Settings,
    ) -> Vec<(u32, Option<u32>)> {
        let mut closed = Vec::new();
        for (method, index) in self.methods.iter_mut().zip(0..) {
            let new = settings.of(method.id);
            let has_breakers = new.has_breakers_of(&method.settings);
            let has_hedging = new.has_hedging_of(&method.settings);
            method.settings = new.clone();
            method.limiter.configure(new.limit);
            if !has_breakers {
                closed.extend(method.open_breakers().map(|place| (index, place)));
                method.renew_breakers();
            }
            if !has_hedging {
                method.hedging = hedging(now, new);
            }
        }
        self.count();
        closed
    }

    /// The instance at a place is gone. Gives the methods whose breakers were open there.
    pub(super) fn forget(&mut self, place: u32) -> Vec<u32> {
        let mut open = Vec::new();
        for (method, index) in self.methods.iter_mut().zip(0..) {
            let breaker = method.host_breakers.remove(&place);
            if breaker.is_some_and(|breaker| breaker.is_open) {
                method.open -= 1;
                open.push(index);
            }
        }
        self.count();
        open
    }

    /// Lets go of the breakers of instances at which no call fails any more.
    pub(super) fn sweep(&mut self, now: Instant) {
        for method in self.methods.iter_mut().filter(|method| !method.host_breakers.is_empty()) {
            let Method { host_breakers, open, .. } = method;
            host_breakers.retain(|_, kept| {
                let is_idle = kept.breaker.is_idle(now);
                *open -= u32::from(is_idle && kept.is_open);
                !is_idle
            });
        }
        self.count();
    }

    fn count(&mut self) {
        self.host_breakers = self.methods.iter().map(|method| method.host_breakers.len()).sum();
    }

    #[inline]
    pub(super) fn settings(&self, index: u32) -> &MethodSettings {
        &self.methods[index as usize].settings
    }

    /// The name of the method at a place.
    pub(super) fn name_at(&self, index: u32) -> &str {
        &self.methods[index as usize].name
    }

    /// The name of a method that was called.
    pub(super) fn name(&self, id: u64) -> Option<&str> {
        let at = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        Some(&self.methods[self.ids[at].1 as usize].name)
    }

    /// What counts the method's calls.
    #[inline]
    pub(super) fn limiter(&mut self, index: u32) -> &mut Limiter {
        &mut self.methods[index as usize].limiter
    }

    // ---- breakers ----

    /// Lets a call of the method through, or not; without a breaker there is nothing to give back. Says as well whether its
    /// breaker is open now, if that has changed.
    #[inline]
    pub(super) fn pass(
        &mut self,
        index: u32,
        now: Instant,
    ) -> (Option<Option<Passed>>, Option<bool>) {
        let Method { breaker, breakers, .. } = &mut self.methods[index as usize];
        let Some(breaker) = breaker else { return (Some(None), None) };
        let (pass, changed) = breaker.pass(now);
        (pass.map(|pass| Some(Passed { pass, breakers: *breakers })), changed)
    }

    /// A call of the method has ended. Says whether its breaker is open now, if that has changed.
    #[inline]
    pub(super) fn end(
        &mut self,
        index: u32,
        now: Instant,
        passed: Option<Passed>,
        is_good: Option<bool>,
    ) -> Option<bool> {
        let method = &mut self.methods[index as usize];
        let Passed { pass, .. } = passed.filter(|passed| passed.breakers == method.breakers)?;
        method.breaker.as_mut()?.end(now, pass, is_good)
    }

    /// Whether instances have breakers that may stop a call. Those of a user may whatever they say of their state.
    #[inline]
    pub(super) fn may_stop(&self, index: u32) -> bool {
        let method = &self.methods[index as usize];
        let is_custom = method.settings.custom_breaker.is_some();
        method.open > 0 || (is_custom && !method.host_breakers.is_empty())
    }

    #[inline]
    pub(super) fn would_pass_host(&self, index: u32, place: u32, now: Instant) -> bool {
        let kept = self.methods[index as usize].host_breakers.get(&place);
        kept.is_none_or(|kept| kept.breaker.would_pass(now))
    }

    /// Lets a call to an instance through, or not. Says as well whether its breaker is open now, if that has changed.
    #[inline]
    pub(super) fn pass_host(
        &mut self,
        index: u32,
        place: u32,
        now: Instant,
    ) -> (Option<Option<Passed>>, Option<bool>) {
        let method = &mut self.methods[index as usize];
        let breakers = method.breakers;
        let Some(breaker) = method.host_breakers.get_mut(&place) else {
            return (Some(None), None);
        };
        let (pass, changed) = breaker.pass(now);
        method.count_open(changed);
        (pass.map(|pass| Some(Passed { pass, breakers })), changed)
    }

    /// A call to an instance has ended. Its breaker is made when it is first needed, so some pass without one. Says
    /// whether it is open now, if that has changed.
    #[inline]
    pub(super) fn end_host(
        &mut self,
        index: u32,
        place: u32,
        now: Instant,
        passed: Option<Passed>,
        is_good: Option<bool>,
    ) -> Option<bool> {
        let method = &mut self.methods[index as usize];
        let passed = passed.filter(|passed| passed.breakers == method.breakers);
        if is_good == Some(false)
            && self.host_breakers < HOST_BREAKERS_MAX
            && let Entry::Vacant(entry) = method.host_breakers.entry(place)
        {
            entry.insert(Noted::new(method.settings.new_breaker()?));
            self.host_breakers += 1;
        }
        let breaker = method.host_breakers.get_mut(&place)?;
        let changed = match passed {
            Some(Passed { pass, .. }) => breaker.end(now, pass, is_good),
            None => breaker.end_unasked(now, is_good),
        };
        method.count_open(changed);
        changed
    }

    /// Of a method that was called: the state of its breaker, and of that of each place.
    pub(super) fn breaker_states(
        &self,
        id: u64,
    ) -> Option<(Option<BreakerState>, impl Fn(u32) -> Option<BreakerState>)> {
        let at = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let method = &self.methods[self.ids[at].1 as usize];
        let of = |place: u32| {
            let state = method.host_breakers.get(&place).map(|kept| kept.breaker.state());
            method.breaker.as_ref().and(state.or(Some(BreakerState::Closed)))
        };
        Some((method.breaker.as_ref().map(|kept| kept.breaker.state()), of))
    }

    // ---- hedging ----

    #[inline]
    pub(super) fn hedging(&self, index: u32) -> Option<&AnyHedging> {
        self.methods[index as usize].hedging.as_ref().map(|(hedging, _)| hedging)
    }

    #[inline]
    pub(super) fn took(&mut self, index: u32, now: Instant, latency: Duration) {
        if let Some((hedging, _)) = &mut self.methods[index as usize].hedging {
            hedging.record(now, latency);
        }
    }

    #[inline]
    pub(super) fn deposit(&mut self, index: u32, now: Instant) {
        if let Some((_, budget)) = &mut self.methods[index as usize].hedging {
            budget.deposit(now);
        }
    }

    /// What pays for hedges, if there are any.
    pub(super) fn hedge_budget(&mut self, index: u32) -> Option<&mut RetryBudget> {
        self.methods[index as usize].hedging.as_mut().map(|(_, budget)| budget)
    }
}
