//! What a fleet knows of the methods that are called: their breakers, and how long they take.

use std::time::Duration;

use ringcall_core::{Instant, RetryBudget};

use crate::breaker::{Breaker, BreakerState, Pass};
use crate::hedge::Hedging;
use crate::settings::{MethodSettings, Settings};

/// More methods than this share the settings and the breaker of the last one. A program calls as many as it was
/// compiled with.
const METHODS_MAX: usize = 4096;

#[derive(Debug, Default)]
pub(super) struct Methods {
    /// By number, for finding them.
    ids: Vec<(u64, u32)>,
    methods: Vec<Method>,
}

#[derive(Debug)]
struct Method {
    id: u64,
    settings: MethodSettings,
    /// Of all calls, and of those to the instance at each place.
    breaker: Option<Breaker>,
    host_breakers: Vec<Breaker>,
    /// How many of `host_breakers` are not closed.
    open: u32,
    hedging: Option<(Hedging, RetryBudget)>,
}

impl Method {
    fn new(now: Instant, id: u64, settings: &MethodSettings, places: usize) -> Method {
        let mut method = Method {
            id,
            settings: settings.clone(),
            breaker: settings.breaker.map(Breaker::new),
            host_breakers: Vec::new(),
            open: 0,
            hedging: settings.hedge.map(|hedge| {
                let budget = RetryBudget::new(hedge.extra_percent, 0, Duration::from_secs(10), now);
                (Hedging::new(hedge, now), budget)
            }),
        };
        method.resize(places);
        method
    }

    fn resize(&mut self, places: usize) {
        if let Some(config) = self.settings.breaker
            && self.host_breakers.len() < places
        {
            self.host_breakers.resize(places, Breaker::new(config));
        }
    }
}

impl Methods {
    /// The place of a method, which is made for it when it is first called.
    #[inline]
    pub(super) fn index(
        &mut self,
        now: Instant,
        id: u64,
        settings: &Settings,
        places: usize,
    ) -> u32 {
        match self.ids.binary_search_by_key(&id, |(id, _)| *id) {
            Ok(at) => self.ids[at].1,
            Err(at) => self.add(now, at, id, settings, places),
        }
    }

    #[cold]
    fn add(&mut self, now: Instant, at: usize, id: u64, settings: &Settings, places: usize) -> u32 {
        if self.methods.len() >= METHODS_MAX {
            return METHODS_MAX as u32 - 1;
        }
        let index = self.methods.len() as u32;
        self.ids.insert(at, (id, index));
        self.methods.push(Method::new(now, id, settings.of(id), places));
        index
    }

    /// Methods whose settings changed start anew.
    pub(super) fn configure(&mut self, now: Instant, settings: &Settings) {
        for method in &mut self.methods {
            let new = settings.of(method.id);
            let places = method.host_breakers.len();
            let is_same =
                new.breaker == method.settings.breaker && new.hedge == method.settings.hedge;
            if is_same {
                method.settings = new.clone();
            } else {
                *method = Method::new(now, method.id, new, places);
            }
        }
    }

    pub(super) fn resize(&mut self, places: usize) {
        self.methods.iter_mut().for_each(|method| method.resize(places));
    }

    /// The instance at a place is another one.
    pub(super) fn forget(&mut self, place: u32) {
        for method in &mut self.methods {
            if let (Some(config), Some(breaker)) =
                (method.settings.breaker, method.host_breakers.get_mut(place as usize))
            {
                method.open -= u32::from(breaker.state() != BreakerState::Closed);
                *breaker = Breaker::new(config);
            }
        }
    }

    #[inline]
    pub(super) fn settings(&self, index: u32) -> &MethodSettings {
        &self.methods[index as usize].settings
    }

    // ---- breakers ----

    /// Lets a call of the method through, or not. Without a breaker there is nothing to give back.
    #[inline]
    pub(super) fn pass(&mut self, index: u32, now: Instant) -> Option<Option<Pass>> {
        match &mut self.methods[index as usize].breaker {
            None => Some(None),
            Some(breaker) => breaker.pass(now).map(Some),
        }
    }

    #[inline]
    pub(super) fn end(
        &mut self,
        index: u32,
        now: Instant,
        pass: Option<Pass>,
        is_good: Option<bool>,
    ) {
        if let (Some(breaker), Some(pass)) = (&mut self.methods[index as usize].breaker, pass) {
            breaker.end(now, pass, is_good);
        }
    }

    #[inline]
    pub(super) fn any_open(&self, index: u32) -> bool {
        self.methods[index as usize].open > 0
    }

    pub(super) fn would_pass_host(&self, index: u32, place: u32, now: Instant) -> bool {
        let breaker = self.methods[index as usize].host_breakers.get(place as usize);
        breaker.is_none_or(|breaker| breaker.would_pass(now))
    }

    #[inline]
    pub(super) fn pass_host(&mut self, index: u32, place: u32, now: Instant) -> Option<Pass> {
        self.methods[index as usize].host_breakers.get_mut(place as usize)?.pass(now)
    }

    #[inline]
    pub(super) fn end_host(
        &mut self,
        index: u32,
        place: u32,
        now: Instant,
        pass: Option<Pass>,
        is_good: Option<bool>,
    ) {
        let method = &mut self.methods[index as usize];
        let Some(breaker) = method.host_breakers.get_mut(place as usize) else { return };
        let Some(pass) = pass else { return };
        let was_open = breaker.state() != BreakerState::Closed;
        breaker.end(now, pass, is_good);
        let is_open = breaker.state() != BreakerState::Closed;
        method.open = method.open + u32::from(is_open) - u32::from(was_open);
    }

    pub(super) fn breaker_states(
        &self,
        id: u64,
    ) -> Option<(Option<BreakerState>, impl Fn(u32) -> Option<BreakerState>)> {
        let at = self.ids.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let method = &self.methods[self.ids[at].1 as usize];
        let of = |place: u32| method.host_breakers.get(place as usize).map(Breaker::state);
        Some((method.breaker.as_ref().map(Breaker::state), of))
    }

    // ---- hedging ----

    #[inline]
    pub(super) fn hedge_after(&self, index: u32) -> Option<Duration> {
        self.methods[index as usize].hedging.as_ref()?.0.after()
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

    /// Whether one more call may be hedged.
    pub(super) fn may_hedge(&mut self, index: u32, now: Instant) -> bool {
        let hedging = &mut self.methods[index as usize].hedging;
        hedging.as_mut().is_some_and(|(_, budget)| budget.withdraw(now, 0))
    }
}
