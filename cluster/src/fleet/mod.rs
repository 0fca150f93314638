//! All instances of a service, what is known of them, and what becomes of a call: the decisions of
//! a channel over many, as a value.
//!
//! A call asks [`start`](Fleet::start) for each attempt and tells [`end`](Fleet::end) how it ended. Nothing here
//! waits, reads a clock, or moves a byte, so a whole cluster can be simulated with one fleet a client.

mod choose;
mod events;
mod explain;
mod hosts;
mod look;
mod methods;
mod names;
mod probing;
mod report;
mod routing;
mod streams;
mod sweep;

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{
    Cause, Entropy, Failure, FailureClass, Instant, RetryBudget, ServiceName, SplitMix64,
};

pub use events::FleetEvent;
pub use explain::{Explanation, HostReport};
pub use hosts::HostRef;
pub use probing::LoadProbe;
pub use report::{AttemptReport, CallEnd, CallReport};
pub use streams::OpenStream;

use crate::balance::Balance;
use crate::discovery::{Instance, Listing};
use crate::health::Probed;
use crate::hedge::{AnyHedging, HedgePolicy as _};
use crate::limit::{LimitLease, Limiter};
use crate::recovery::Recovery;
use crate::retry::{Attempted, Verdict};
use crate::route::{Asked, BadRules, Router, Rules};
use crate::settings::{BadSetting, Settings};
use crate::sign::{Sign, sign_of};
use events::Untold;
use hosts::Hosts;
use methods::{Methods, Passed};
use report::Reports;
use routing::Routing;

/// How often health and warm-up of all instances are looked at.
const SWEEP: Duration = Duration::from_secs(1);
/// The most attempts that a call can have: those that settings allow, and hedges.
const ATTEMPTS_MAX: usize = 8;
const BUDGET_WINDOW: Duration = Duration::from_secs(10);

/// Whether the connection to an instance can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// At once.
    Ready,
    /// Perhaps soon: it is being opened. Used if no other is ready.
    Connecting,
    /// The last attempt to open it failed. Used if there is nothing else.
    Broken,
    /// Another instance answers at the address. Never used.
    Stranger,
}

impl fmt::Display for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Readiness::Ready => "ready",
            Readiness::Connecting => "connecting",
            Readiness::Broken => "broken",
            Readiness::Stranger => "stranger",
        })
    }
}

/// All instances of a service. `T` is what reaches one: a connection, a number in a simulation.
#[derive(Debug)]
pub struct Fleet<T> {
    settings: Arc<Settings>,
    /// Of which service its instances are, for failures.
    service: Option<ServiceName>,
    hosts: Hosts<T>,
    methods: Methods,
    balance: Box<dyn Balance>,
    rules: Arc<Rules>,
    /// Where rules, groups, zones or priorities have a say.
    routing: Option<Box<Routing>>,
    /// By which calls know that they were routed otherwise.
    serial: u32,
    /// What calls begin with that are not routed.
    unrouted: Path,
    /// The policy goes by how long calls are at servers.
    counts_times: bool,
    /// Instances that are being asked how busy they are.
    probing: u32,
    budget: RetryBudget,
    /// Of all calls.
    limiter: Limiter,
    rng: SplitMix64,
    next_sweep: Instant,
    /// From then on attempts look around before they choose.
    look_at: Instant,
    recovery: Recovery,
    /// When it was last counted who can be called.
    counted_at: Instant,
    events: Untold<FleetEvent, 256>,
    reports: Reports,
    version: u64,
    /// The same as the source of the list counts.
    revision: u64,
    /// Candidates of a call for which not all usable instances are.
    scratch: Vec<u32>,
    counts: FleetCounts,
}

/// What a fleet has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FleetCounts {
    /// Calls.
    pub calls: u64,
    /// Attempts of calls, the first ones among them.
    pub attempts: u64,
    /// Attempts beside others.
    pub hedges: u64,
    /// Attempts that were given up before they had begun, since those beside them had.
    pub untied: u64,
    /// Retries and hedges that the budget did not allow.
    pub over_budget: u64,
    /// Times that an instance was ejected; not those that it stays out since its probe has failed.
    pub ejections: u64,
    /// Calls that a breaker stopped.
    pub stopped: u64,
    /// Calls that were not made since this side's settings allow no more of them.
    pub limited: u64,
    /// Attempts that were not made since too few instances were back after all had gone.
    pub held_back: u64,
    /// Calls that a rule denied.
    pub denied: u64,
    /// Attempts for which all instances were used, since too few were usable.
    pub panics: u64,
    /// Copies of calls that were made.
    pub mirrored: u64,
    /// Copies that were not made: nobody could be called, or there were too many, or they were too large.
    pub mirrors_dropped: u64,
    /// Copies that were made and have ended without an answer, as far as that was looked at.
    pub mirrors_failed: u64,
    /// Times that an instance was asked how busy it is.
    pub load_probes: u64,
    /// Of these, those without an answer that says so, as far as that was looked at.
    pub load_probes_failed: u64,
}

impl FleetCounts {
    /// Every count with its name.
    pub fn iter(&self) -> impl Iterator<Item = (&'static str, u64)> + use<> {
        [
            ("calls", self.calls),
            ("attempts", self.attempts),
            ("hedges", self.hedges),
            ("untied", self.untied),
            ("over_budget", self.over_budget),
            ("ejections", self.ejections),
            ("stopped", self.stopped),
            ("limited", self.limited),
            ("held_back", self.held_back),
            ("denied", self.denied),
            ("panics", self.panics),
            ("mirrored", self.mirrored),
            ("mirrors_dropped", self.mirrors_dropped),
            ("mirrors_failed", self.mirrors_failed),
            ("load_probes", self.load_probes),
            ("load_probes_failed", self.load_probes_failed),
        ]
        .into_iter()
    }
}

/// A call, as a fleet sees it from its begin to its end.
#[derive(Clone, Debug)]
pub struct CallState {
    method: u32,
    flags: u8,
    key: Option<u64>,
    deadline: Instant,
    attempts: u8,
    spent: u8,
    pass: Option<Passed>,
    path: Path,
    tried: [HostRef; ATTEMPTS_MAX],
    /// The number of its report, if there is to be one.
    report: Option<NonZeroU32>,
}

/// What routing has decided about a call.
#[derive(Clone, Copy, Debug, Default)]
struct Path {
    /// Of the plans that there were then.
    serial: u32,
    plan: u16,
    /// The call says itself which group it asks for.
    says_group: bool,
    /// There is more to be done before it is made: it waits, a copy is made, or instances are asked how busy they are.
    is_special: bool,
    /// The rule that asks for a copy.
    mirror: Option<u8>,
    /// An hour at most.
    delay_us: u32,
}

impl CallState {
    /// When it must have ended.
    #[must_use]
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How long it has to wait before its first attempt, if a rule says so.
    #[must_use]
    pub fn delay(&self) -> Option<Duration> {
        let Path { delay_us, .. } = self.path;
        (delay_us > 0).then(|| Duration::from_micros(delay_us.into()))
    }

    /// Whether it has to wait before its first attempt, is copied, or lets instances be asked.
    #[inline]
    pub(crate) fn is_special(&self) -> bool {
        self.path.is_special
    }

    /// Whether a rule asks for a copy.
    pub(crate) fn is_mirrored(&self) -> bool {
        self.path.mirror.is_some()
    }

    /// Whether its deadline has passed while it waited for its first attempt.
    pub(crate) fn was_delayed_too_long(&self, now: Instant) -> bool {
        self.attempts == 0 && self.path.delay_us > 0 && self.deadline <= now
    }

    /// How many attempts were made.
    #[must_use]
    pub fn attempts(&self) -> u8 {
        self.attempts
    }

    fn tried(&self) -> &[HostRef] {
        &self.tried[..self.attempts.into()]
    }
}

/// An attempt of a call. Give it back exactly once: to [`Fleet::end`], to [`Fleet::abandon`], or as an [`OpenStream`].
#[derive(Debug)]
#[must_use]
pub struct Attempt {
    host: HostRef,
    started: Instant,
    pass: Option<Passed>,
    is_probe: bool,
    /// 0 for the first one.
    pub number: u8,
    /// How long it may take.
    pub timeout: Duration,
    /// When a second one should be made beside it, if it has not ended.
    pub hedge_after: Option<Duration>,
}

impl Attempt {
    /// Which instance it goes to.
    #[must_use]
    pub fn host(&self) -> HostRef {
        self.host
    }
}

impl<T: Clone> Fleet<T> {
    /// No instances yet. The seed decides what chance does.
    ///
    /// # Errors
    /// When a setting makes no sense.
    pub fn new(settings: Settings, seed: u64, now: Instant) -> Result<Fleet<T>, BadSetting> {
        settings.check()?;
        let (percent, floor) = (settings.retry_percent, settings.retry_floor_per_s);
        let mut fleet = Fleet {
            balance: settings.balancing.build(),
            budget: RetryBudget::new(percent, floor, BUDGET_WINDOW, now),
            rules: Arc::default(),
            routing: None,
            serial: 0,
            unrouted: Path::default(),
            counts_times: false,
            limiter: Limiter::new(settings.limit),
            probing: 0,
            settings: Arc::new(settings),
            service: None,
            hosts: Hosts::default(),
            methods: Methods::default(),
            rng: SplitMix64::new(seed),
            next_sweep: now,
            look_at: now,
            recovery: Recovery::default(),
            counted_at: now,
            events: Untold::default(),
            reports: Reports::default(),
            version: 0,
            revision: 0,
            scratch: Vec::new(),
            counts: FleetCounts::default(),
        };
        fleet.reroute();
        fleet.reports.count(fleet.settings.report_one_in);
        Ok(fleet)
    }

    /// Replaces the settings. What is known of instances and calls is kept; breakers, the budget and the window in
    /// which health is judged start anew where their settings changed.
    ///
    /// # Errors
    /// When a setting makes no sense; nothing is changed then.
    pub fn configure(&mut self, now: Instant, settings: Settings) -> Result<(), BadSetting> {
        settings.check()?;
        let (percent, floor) = (settings.retry_percent, settings.retry_floor_per_s);
        if (percent, floor) != (self.settings.retry_percent, self.settings.retry_floor_per_s) {
            self.budget = RetryBudget::new(percent, floor, BUDGET_WINDOW, now);
        }
        if settings.health.window != self.settings.health.window {
            self.hosts.configure(&settings.health);
        }
        self.balance = settings.balancing.build();
        self.limiter.configure(settings.limit);
        self.settings = Arc::new(settings);
        for (method, place) in self.methods.configure(now, &self.settings) {
            self.breaker_is(false, method, place);
        }
        self.stop_recovery(now);
        self.sweep(now);
        self.balance.rebuild(self.hosts.stats(), self.hosts.live());
        self.reroute();
        self.reports.count(self.settings.report_one_in);
        Ok(())
    }

    /// Limits calls of a method, by its name, or of all of them, for a while: in place of what the settings say.
    ///
    /// # Errors
    /// When the limit or its time makes no sense, or what is named is no method; nothing is changed then.
    pub fn lease(
        &mut self,
        now: Instant,
        method: Option<&str>,
        lease: LimitLease,
    ) -> Result<(), BadSetting> {
        lease.check()?;
        if method.is_some_and(|name| !ringcall_core::is_method_name(name)) {
            let must = "the name of a method, package.Service/method";
            return Err(BadSetting { name: "lease.method", must });
        }
        match method {
            None => self.limiter.lease(now, lease),
            Some(name) => {
                let index = self.methods.index(now, &Asked::new(name), &self.settings);
                self.methods.limiter(index).lease(now, lease);
            }
        }
        Ok(())
    }

    /// The settings.
    #[must_use]
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Replaces the rules by which calls are routed. Calls under way go by them from their next attempt on.
    ///
    /// # Errors
    /// When they make no sense, or are older than those in force; nothing is changed then.
    pub fn route(&mut self, rules: Rules) -> Result<(), BadRules> {
        rules.check()?;
        let in_force = self.rules.version();
        if rules.version() < in_force {
            return Err(BadRules::Older { in_force });
        }
        self.rules = Arc::new(rules);
        self.reroute();
        Ok(())
    }

    /// Rules, or what they go by, have changed.
    fn reroute(&mut self) {
        let Settings { caller, groups, zones, .. } = &*self.settings;
        let has_zones = zones.is_some() && !caller.zone.is_empty();
        let has_rules = !self.rules.is_empty() || groups.is_some();
        let is_routed = has_rules || has_zones || self.hosts.have_priorities();
        self.serial = self.routing.as_ref().map_or(self.serial, |routing| routing.serial());
        self.routing = is_routed.then(|| {
            let router = Router::new(&self.rules, &self.settings);
            Box::new(Routing::new(router, self.serial, self.revision, &self.hosts))
        });
        self.unrouted.is_special = self.balance.wants_load_probes();
        self.counts_times = self.balance.wants_server_times();
    }

    /// Says of which service its instances are, which failures name: until then it is that of the first instance that is
    /// listed. A process keeps 1024 names, each of up to 256 bytes; failures of further services name none.
    pub fn set_service(&mut self, service: &str) {
        self.service = names::keep(service);
    }

    pub(crate) fn service(&self) -> Option<ServiceName> {
        self.service
    }

    /// Which instances of a listing are new, or at another address.
    #[must_use]
    pub fn unknown(&self, listing: &Listing) -> Vec<Arc<Instance>> {
        if listing.version < self.version { Vec::new() } else { self.hosts.unknown(listing) }
    }

    /// Replaces the instances. Those that stay, with name and address, keep what is known of them; `connect`
    /// makes what reaches a new one, or leaves it out. Gives back what reached those that are gone. A listing that is older than
    /// the last one is ignored. It is taken as it is: whoever applies it narrows it to [`Settings::aperture`] before.
    pub fn apply(
        &mut self,
        now: Instant,
        listing: &Listing,
        connect: impl FnMut(&Instance) -> Option<T>,
    ) -> Vec<T> {
        if listing.version < self.version {
            return Vec::new();
        }
        (self.version, self.revision) = (listing.version, listing.revision.number);
        if let (None, Some(listed)) = (self.service, listing.instances.first()) {
            self.set_service(&listed.instance.service);
        }
        let gone = self.hosts.apply(listing, &self.settings.health, connect);
        self.forget_gone();
        self.sweep(now);
        self.balance.rebuild(self.hosts.stats(), self.hosts.live());
        match &mut self.routing {
            Some(routing) => routing.place(self.revision, &self.hosts),
            None if self.hosts.have_priorities() => self.reroute(),
            None => {}
        }
        gone
    }

    /// A call begins. `flags` are those of its request.
    ///
    /// # Errors
    /// When a rule denies it, and when the method's breaker is open.
    #[inline]
    pub fn begin(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        flags: u8,
        timeout: Duration,
    ) -> Result<CallState, Failure> {
        self.counts.calls += 1;
        let index = self.methods.index(now, asked, &self.settings);
        let path = match self.routing {
            None => self.unrouted,
            Some(_) => self.find_path(index, asked)?,
        };
        let (pass, changed) = self.methods.pass(index, now);
        if let Some(is_open) = changed {
            self.breaker_is(is_open, index, None);
        }
        let pass = pass.ok_or_else(|| {
            self.counts.stopped += 1;
            Failure::not_sent(Cause::BreakerOpen)
        })?;
        if !Limiter::begin([self.methods.limiter(index), &mut self.limiter], now) {
            self.counts.limited += 1;
            if let Some(is_open) = self.methods.end(index, now, pass, None) {
                self.breaker_is(is_open, index, None);
            }
            return Err(Failure::not_sent(Cause::Limited));
        }
        Ok(CallState {
            method: index,
            flags,
            key: asked.key,
            deadline: now + timeout,
            attempts: 0,
            spent: 0,
            pass,
            path,
            tried: [HostRef::NONE; ATTEMPTS_MAX],
            report: None,
        })
    }

    /// Where a call may go. Calls that are not routed must not become slower by this.
    #[inline(never)]
    fn find_path(&mut self, method: u32, asked: &Asked<'_>) -> Result<Path, Failure> {
        let Some(routing) = &mut self.routing else { return Ok(Path::default()) };
        let mut path =
            routing.find(method, asked, &mut self.rng).inspect_err(|_| self.counts.denied += 1)?;
        path.is_special |= self.unrouted.is_special;
        Ok(path)
    }

    /// Chooses an instance for an attempt of a call, which asks for the same as when it began. `readiness` says of a
    /// connection whether it can be used.
    ///
    /// # Errors
    /// When there is none, its breakers stop this method everywhere, or rules that are new deny it; and when instances are
    /// coming back after all had gone, and it is one too many for them.
    #[inline]
    pub fn start(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        call: &mut CallState,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Result<(Attempt, T), Failure> {
        if self.look_at <= now {
            self.look_around(now, &readiness)?;
        }
        let chosen = match self.routing {
            None => self.choose::<false>(now, call, &readiness),
            Some(_) => self.choose_routed(now, asked, call, &readiness),
        };
        let (place, is_probe) = chosen.inspect_err(|failure| {
            self.counts.stopped += u64::from(failure.cause == Cause::BreakerOpen);
        })?;
        let begun = self.attempt(now, call, place, is_probe, false);
        begun.ok_or_else(|| {
            self.counts.stopped += 1;
            Failure::not_sent(Cause::BreakerOpen)
        })
    }

    /// The same for a call that is routed.
    #[inline(never)]
    fn choose_routed(
        &mut self,
        now: Instant,
        asked: &Asked<'_>,
        call: &mut CallState,
        readiness: &impl Fn(&T) -> Readiness,
    ) -> Result<(u32, bool), Failure> {
        if self.is_stale(call) {
            call.path = self.find_path(call.method, asked)?;
        }
        self.refresh_plan(call);
        self.choose::<true>(now, call, readiness)
    }

    /// TLVs that the request of an attempt has beside the call's own: which group was asked for and which one it goes
    /// to, if groups matter.
    #[inline]
    #[must_use]
    pub fn carried(&self, call: &CallState, attempt: &Attempt) -> Option<Arc<[u8]>> {
        self.routing.as_ref()?.carried(&call.path, attempt.host.place())
    }

    /// Where a copy of a call goes, and the name of the rule that asks for it: to one of its instances by chance that
    /// is not ejected and can be called. What becomes of it is no news of that instance.
    pub(crate) fn mirror(
        &mut self,
        call: &CallState,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Option<(String, T)> {
        if self.is_stale(call) || self.recovery.state().is_some() {
            return None;
        }
        let (name, places) = self.routing.as_ref()?.mirrored(call.path.mirror?)?;
        let first = self.rng.below((places.len() as u64).max(1)) as usize;
        let (before, after) = places.split_at(first);
        let can = |place: &&u32| {
            let has_weight = self.hosts.stats()[**place as usize].full_weight > 0;
            let is_ready = readiness(self.hosts.target(**place)) == Readiness::Ready;
            has_weight && is_ready && self.hosts.is_usable(**place)
        };
        let place = after.iter().chain(before).find(can)?;
        Some((name.to_owned(), self.hosts.target(*place).clone()))
    }

    /// What has become of copies.
    pub(crate) fn count_mirrors(&mut self, made: u64, dropped: u64, failed: u64) {
        self.counts.mirrored += made;
        self.counts.mirrors_dropped += dropped;
        self.counts.mirrors_failed += failed;
    }

    /// Whether the call is to have a key of its own that all of its attempts share.
    #[inline]
    pub(crate) fn wants_key(&self, call: &CallState) -> bool {
        self.methods.settings(call.method).idempotency_keys
    }

    /// Whether servers are to say when they begin with attempts of the call. One that has begun is not hedged, and of
    /// another one beside it that has not [`untie`](Fleet::untie) lets go.
    #[inline]
    #[must_use]
    pub fn is_tied(&self, call: &CallState) -> bool {
        self.hedging(call).is_some_and(|hedging| hedging.is_tied())
    }

    /// When the call is hedged, if it may be.
    #[inline]
    fn hedging(&self, call: &CallState) -> Option<&AnyHedging> {
        let is_idempotent = call.flags & request_flags::IDEMPOTENT != 0;
        self.methods.hedging(call.method).filter(|_| is_idempotent)
    }

    /// Whether rules or instances have changed since the call was routed.
    #[inline]
    fn is_stale(&self, call: &CallState) -> bool {
        self.routing.as_ref().is_some_and(|routing| routing.serial() != call.path.serial)
    }

    /// An attempt begins, at this place; unless the breaker there does not let it in, whatever it has said before.
    #[inline]
    fn attempt(
        &mut self,
        now: Instant,
        call: &mut CallState,
        place: u32,
        is_probe: bool,
        is_hedge: bool,
    ) -> Option<(Attempt, T)> {
        let (pass, changed) = self.methods.pass_host(call.method, place, now);
        if let Some(is_open) = changed {
            self.breaker_is(is_open, call.method, Some(place));
        }
        let Some(pass) = pass else {
            if is_probe {
                self.probed(now, place, Probed::GivenUp);
                self.refresh(now);
            }
            return None;
        };
        self.counts.attempts += 1;
        self.counts.hedges += u64::from(is_hedge);
        self.counts.panics += u64::from(self.hosts.is_panic());
        let host = self.hosts.reference(place);
        self.hosts.picked(place, now, self.counts.attempts);
        call.tried[usize::from(call.attempts)] = host;
        let method = self.methods.settings(call.method);
        let left = call.deadline.since(now);
        let attempt = Attempt {
            host,
            started: now,
            pass,
            is_probe,
            number: call.attempts,
            timeout: method.attempt_timeout.map_or(left, |timeout| timeout.min(left)),
            hedge_after: self.hedging(call).and_then(|hedging| hedging.after()),
        };
        call.attempts += 1;
        if call.report.is_some() {
            self.report_attempt(now, call, &attempt, is_hedge);
        }
        Some((attempt, self.hosts.target(place).clone()))
    }

    /// An attempt has ended; says what becomes of its call, of which it was the only one under way. When that
    /// is [`Verdict::Again`], the budget has been asked already.
    #[inline]
    pub fn end(
        &mut self,
        now: Instant,
        call: &mut CallState,
        attempt: Attempt,
        end: Result<&ReplyHeader, &Failure>,
    ) -> Verdict {
        let sign = self.observe(now, call, &attempt, end);
        if sign == Sign::Good {
            self.succeeded(now, call);
            return Verdict::End;
        }
        self.judge(now, call, end)
    }

    /// An attempt has ended while another one of its call goes on; says whether the call has ended with it. If not,
    /// the other one is waited for: nothing is made again beside it.
    pub fn end_beside(
        &mut self,
        now: Instant,
        call: &CallState,
        attempt: Attempt,
        end: Result<&ReplyHeader, &Failure>,
    ) -> bool {
        let is_over = self.observe(now, call, &attempt, end) == Sign::Good;
        if is_over {
            self.succeeded(now, call);
        }
        is_over
    }

    fn succeeded(&mut self, now: Instant, call: &CallState) {
        self.budget.deposit(now);
        self.methods.deposit(call.method, now);
    }

    /// An attempt was given up: its call was dropped, or another attempt was faster.
    pub fn abandon(&mut self, now: Instant, call: &CallState, attempt: Attempt) {
        let host = attempt.host;
        if call.report.is_some() {
            self.report_end(now, call, &attempt, None);
        }
        if self.hosts.ended(host).is_none() {
            return;
        }
        if attempt.is_probe {
            self.probed(now, host.place(), Probed::GivenUp);
            self.refresh(now);
        }
        let changed = self.methods.end_host(call.method, host.place(), now, attempt.pass, None);
        if let Some(is_open) = changed {
            self.breaker_is(is_open, call.method, Some(host.place()));
        }
        // Or an instance whose calls always lose against hedges would look fast.
        let waited = now.since(attempt.started);
        self.hosts.stats_mut(host.place()).waited(waited);
        // Nor are calls of a method fast because slow ones lose: what took longer than most of them counts among those
        // that did. Of others it is not known how long they would have taken.
        let after = self.methods.hedging(call.method).and_then(|hedging| hedging.after());
        if after.is_some_and(|after| waited >= after) {
            self.methods.took(call.method, now, waited);
        }
    }

    /// An attempt was given up before its server had begun with it, since the one beside it has begun: one of the two was no
    /// extra load.
    pub fn untie(&mut self, now: Instant, call: &mut CallState, attempt: Attempt) {
        self.pay_back(call);
        self.counts.untied += 1;
        self.abandon(now, call, attempt);
    }

    /// A hedge was no extra load.
    fn pay_back(&mut self, call: &mut CallState) {
        self.budget.give_back();
        if let Some(budget) = self.methods.hedge_budget(call.method) {
            budget.give_back();
        }
        call.spent = call.spent.saturating_sub(1);
    }

    /// A call has ended, like this; or it was given up.
    #[inline]
    pub fn finish(
        &mut self,
        now: Instant,
        call: &CallState,
        end: Option<Result<&ReplyHeader, &Failure>>,
    ) {
        let errors = &self.methods.settings(call.method).retry.errors;
        let is_good = end.and_then(|end| is_good_of_method(sign_of(end, errors)));
        if let Some(is_open) = self.methods.end(call.method, now, call.pass, is_good) {
            self.breaker_is(is_open, call.method, None);
        }
        self.methods.limiter(call.method).end();
        self.limiter.end();
        if let Some(number) = call.report {
            self.file_report(now, number, end);
        }
    }

    /// A second attempt beside the first, which takes long: at an instance that was not tried, if there is one that
    /// can be called now, and if the budget allows it.
    pub fn hedge(
        &mut self,
        now: Instant,
        call: &mut CallState,
        readiness: impl Fn(&T) -> Readiness,
    ) -> Option<(Attempt, T)> {
        let is_left = usize::from(call.attempts) < ATTEMPTS_MAX && self.hosts.usable().len() > 1;
        let is_retry = call.flags & request_flags::RETRIED != 0;
        if !is_left || is_retry || self.is_stale(call) || self.recovery.state().is_some() {
            return None;
        }
        let place = match self.routing {
            None => self.choose_another::<false>(now, call, &readiness)?,
            Some(_) => self.choose_another::<true>(now, call, &readiness)?,
        };
        // Either pays only if the other one does.
        if !self.methods.hedge_budget(call.method)?.allows(now, 0) || !self.withdraw(now, call) {
            return None;
        }
        let _is_paid = self.methods.hedge_budget(call.method)?.withdraw(now, 0);
        let begun = self.attempt(now, call, place, false, true);
        if begun.is_none() {
            self.pay_back(call);
        }
        begun
    }

    /// What reaches the instance with this name.
    pub(crate) fn target_named(&self, name: &str) -> Option<&T> {
        self.hosts.target_named(name)
    }

    /// What reaches those instances that may have calls.
    pub(crate) fn targets(&self) -> Vec<T> {
        let has_weight = |place: &&u32| self.hosts.stats()[**place as usize].full_weight > 0;
        let live = self.hosts.live().iter().filter(has_weight);
        live.map(|place| self.hosts.target(*place).clone()).collect()
    }

    /// Whether any is known, whatever becomes of it.
    pub(crate) fn has_instances(&self) -> bool {
        !self.hosts.live().is_empty()
    }

    /// The names of all instances.
    pub(crate) fn names(&self) -> Vec<String> {
        let named = |place: &u32| self.hosts.host(*place).listed.instance.name.clone();
        self.hosts.live().iter().map(named).collect()
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> FleetCounts {
        self.counts
    }

    /// Names of instances to which calls fail as if nobody were there, for
    /// [`Discovery::handle_dead`](crate::discovery::Discovery::handle_dead). None, while no instance can be reached: the fault
    /// may be this side's.
    pub fn dead(&self, readiness: impl Fn(&T) -> Readiness) -> Vec<String> {
        self.hosts.dead(readiness)
    }

    /// What was seen of an attempt: of its instance, its breaker, and its health.
    #[inline]
    fn observe(
        &mut self,
        now: Instant,
        call: &CallState,
        attempt: &Attempt,
        end: Result<&ReplyHeader, &Failure>,
    ) -> Sign {
        if call.report.is_some() {
            self.report_end(now, call, attempt, Some(end));
        }
        let sign = sign_of(end, &self.methods.settings(call.method).retry.errors);
        let is_good = is_good(sign);
        let host = attempt.host;
        // What an instance did that is gone says nothing of the one at its place.
        let Some(health) = self.hosts.ended(host) else { return sign };
        if let Some(is_good) = is_good {
            health.record(now, is_good);
        }
        if attempt.is_probe {
            self.probed(now, host.place(), probed_like(end, is_good));
            self.refresh(now);
        }
        let of_method = is_good_of_method(sign);
        let changed =
            self.methods.end_host(call.method, host.place(), now, attempt.pass, of_method);
        if let Some(is_open) = changed {
            self.breaker_is(is_open, call.method, Some(host.place()));
        }
        let Some(is_good) = is_good else { return sign };
        let latency = now.since(attempt.started);
        let load = end.map_or(0, |header| header.load);
        let stats = self.hosts.stats_mut(host.place());
        stats.observe(now, latency, is_good, load);
        if self.counts_times
            && let Ok(header) = end
        {
            stats.took(header.queue_us, header.handler_us);
        }
        if is_good && attempt.is_probe {
            stats.forgive();
        }
        if is_good {
            self.methods.took(call.method, now, latency);
        } else {
            self.failed(now, host.place());
        }
        sign
    }

    /// Whether the call is made again.
    #[cold]
    fn judge(
        &mut self,
        now: Instant,
        call: &mut CallState,
        end: Result<&ReplyHeader, &Failure>,
    ) -> Verdict {
        let attempted = Attempted {
            attempts: call.attempts.into(),
            flags: call.flags,
            end,
            left: call.deadline.since(now),
        };
        let method = self.methods.settings(call.method);
        let verdict = match usize::from(call.attempts) < ATTEMPTS_MAX {
            true => method.retry_policy().decide(&mut self.rng, &attempted),
            false => Verdict::End,
        };
        match verdict {
            // A policy of somebody's may say so. Whoever waits until the deadline has no time left for an attempt.
            Verdict::Again(wait) if wait >= attempted.left => Verdict::End,
            Verdict::Again(_) if !self.withdraw(now, call) => Verdict::End,
            verdict => verdict,
        }
    }

    fn withdraw(&mut self, now: Instant, call: &mut CallState) -> bool {
        let may = self.budget.withdraw(now, call.spent.into());
        if may {
            call.spent += 1;
        } else {
            self.counts.over_budget += 1;
        }
        may
    }
}

/// What the end of a probe, which says this of the instance, comes to.
fn probed_like(end: Result<&ReplyHeader, &Failure>, is_good: Option<bool>) -> Probed {
    let is_answer = match end {
        Ok(_) => true,
        Err(failure) => {
            let is_of_a_server = failure.class != FailureClass::NotSent;
            is_of_a_server && matches!(failure.cause, Cause::Status(_))
        }
    };
    match is_good {
        Some(true) => Probed::Works,
        Some(false) => Probed::Fails,
        None if is_answer => Probed::Answers,
        None => Probed::GivenUp,
    }
}

/// What it says of the instance.
#[inline]
fn is_good(sign: Sign) -> Option<bool> {
    match sign {
        Sign::Good => Some(true),
        Sign::Bad => Some(false),
        Sign::Unable | Sign::Neutral => None,
    }
}

/// What it says of the method, there.
#[inline]
fn is_good_of_method(sign: Sign) -> Option<bool> {
    if sign == Sign::Unable { Some(false) } else { is_good(sign) }
}
