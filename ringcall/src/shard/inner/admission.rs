//! What a shard with [`Limits`] takes on: calls wait in a queue of its own, after what has arrived was read.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::hash::RandomState;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::frame::{CancelReason, ReplyHeader, request_flags};
use ringcall_core::{Cancellation, Handle, Instant, Refusal, Request, RequestId, Status};

use super::Inner;
use crate::serve::access::Caller;
use crate::serve::limits::{ClassQueue, Level, Limits, Load, Next, QueueRule, Rates, Room, Taken};
use crate::serve::{CallerKey, Method};

/// How long calls are begun before what has arrived is read again, which is how long calls wait unseen. Reading
/// costs a few system calls.
const SLICE: Duration = Duration::from_millis(1);

/// A call on its connection.
type Key = (Handle, RequestId);

/// Only a shard that has had limits has one.
pub(super) struct Admission {
    /// Those that have not begun. Without a rule by which some are refused, calls begin at once.
    waiting: RefCell<ClassQueue<Waiting>>,
    /// Which of them nobody waits for any more, and whether their time is over.
    given_up: RefCell<HashMap<Key, bool>>,
    /// Where calls are counted, if their number is limited.
    taken: RefCell<Option<Taken<Key>>>,
    /// Whether it matters when exactly they end.
    is_timed: Cell<bool>,
    /// By what callers are told apart that have limits of their own.
    caller_key: RefCell<Option<CallerKey>>,
    /// What makes numbers of them.
    random: RandomState,
    rates: RefCell<Option<Arc<Rates>>>,
    load: Cell<Load>,
    level: RefCell<Level>,
}

/// A call that has not begun.
struct Waiting {
    handle: Handle,
    request: Request,
    method: Rc<Method>,
}

impl Waiting {
    fn key(&self) -> Key {
        (self.handle, self.request.id)
    }
}

impl Admission {
    pub(super) fn new(limits: &Limits, rates: Option<Arc<Rates>>, now: Instant) -> Admission {
        let admission = Admission {
            waiting: RefCell::new(ClassQueue::new(None)),
            given_up: RefCell::default(),
            taken: RefCell::default(),
            is_timed: Cell::default(),
            caller_key: RefCell::default(),
            random: RandomState::new(),
            rates: RefCell::default(),
            load: Cell::new(Load::new(now)),
            level: RefCell::new(Level::new(QueueRule::default().interval())),
        };
        admission.configure(limits, rates);
        admission
    }

    /// Goes by these limits from now on, for the calls that there are as well.
    fn configure(&self, limits: &Limits, rates: Option<Arc<Rates>>) {
        let rule = limits.queue_rule();
        self.waiting.borrow_mut().configure(rule);
        self.level.borrow_mut().configure(rule.unwrap_or_default().interval());
        let key_before = self.caller_key.replace(limits.caller_key().cloned());
        let is_key_same = key_before.as_ref() == limits.caller_key();
        let mut taken: Option<Taken<Key>> = limits.taken();
        if let Some((taken, before)) = taken.as_mut().zip(self.taken.take()) {
            taken.take_over(before, is_key_same);
        }
        self.is_timed.set(taken.as_ref().is_some_and(Taken::is_adaptive));
        self.taken.replace(taken);
        self.rates.replace(rates);
    }

    /// What counts rates.
    fn rates(&self) -> Option<Arc<Rates>> {
        self.rates.borrow().clone()
    }

    /// Whether calls wait.
    pub(super) fn has_work(&self) -> bool {
        !self.waiting.borrow().is_empty()
    }

    /// The number of a caller, if there are limits for each.
    fn number(&self, caller: impl FnOnce() -> Caller, extensions: &[u8]) -> Option<u64> {
        let key = self.caller_key.borrow();
        key.as_ref().map(|key| key.number(&self.random, caller, extensions))
    }

    fn lacks_place(&self, of: (u64, u8), caller: Option<u64>) -> bool {
        self.taken.borrow().as_ref().is_some_and(|taken| taken.lacks_place(of, caller))
    }

    /// Counts a call that has arrived, if somebody counts.
    fn count(&self, key: Key, of: (u64, u8), caller: Option<u64>, arrived: Instant) -> Room {
        let mut taken = self.taken.borrow_mut();
        taken.as_mut().map_or(Room::Taken, |taken| taken.begin(key, of, caller, arrived))
    }

    /// Whether calls wait their turn.
    fn has_rule(&self) -> bool {
        self.waiting.borrow().rule().is_some()
    }

    /// In milliseconds, for those that the rule refuses.
    fn retry_after(&self) -> Duration {
        Duration::from_millis(self.waiting.borrow().retry_after_ms().into())
    }

    /// Nobody waits for this call any more; says whether it had not begun. Then it is answered when it is its turn, so
    /// that it has its slot until nothing of it is held.
    pub(super) fn gave_up(&self, call: Key, why: Cancellation) -> bool {
        let is_waiting = self.has_work();
        if is_waiting {
            let is_expired =
                matches!(why, Cancellation::Expired | Cancellation::Caller(CancelReason::Expired));
            self.given_up.borrow_mut().insert(call, is_expired);
        }
        is_waiting
    }

    /// One of those that wait, which is to begin or to be refused.
    #[inline]
    fn next(&self, now: Instant) -> Option<Next<Waiting>> {
        self.waiting.borrow_mut().next(now)
    }

    fn expired(&self, waited: Duration, had: Duration) {
        self.waiting.borrow_mut().expired(waited, had);
    }

    /// Whether nobody waits for this call, which is about to begin; and if so, whether its time is over.
    fn was_given_up(&self, call: Key) -> Option<bool> {
        let mut given_up = self.given_up.borrow_mut();
        if given_up.is_empty() { None } else { given_up.remove(&call) }
    }
}

/// Whether the time of a call is over, or would be when it is answered. If none waits behind it, it may try.
fn is_late(call: &Waiting, now: Instant, behind: usize, until: Instant) -> bool {
    let Waiting { request, method, .. } = call;
    let mut cost = method.cost.get();
    let would_be = behind > 0 && request.deadline <= until.max(now + cost.estimate());
    if would_be && request.deadline > until {
        cost.doubted();
        method.cost.set(cost);
    }
    would_be || request.deadline <= now
}

/// The flags of calls that have items in either direction.
const WITH_ITEMS: u8 = request_flags::ITEMS_IN | request_flags::ITEMS_OUT;

impl Inner {
    /// Goes by these limits, sound ones, in place of those that it has, or has not.
    pub(crate) fn set_limits(&self, limits: &Limits, rates: Option<Arc<Rates>>) {
        match self.admission.get() {
            Some(admission) => admission.configure(limits, rates),
            None => {
                let admission = Admission::new(limits, rates, self.now());
                let _is_first = self.admission.set(Box::new(admission));
                self.calls_are_plain.set(false);
            }
        }
    }

    /// What counts rates, if there are any.
    pub(crate) fn rates(&self) -> Option<Arc<Rates>> {
        self.admission.get()?.rates()
    }

    /// A call has arrived for a method: takes it, or says no.
    #[cold]
    pub(super) fn take_on(
        self: &Rc<Self>,
        handle: Handle,
        request: &mut Request,
        method: Rc<Method>,
    ) {
        let Some(admission) = self.admission.get() else { return };
        if let Some(refusal) = self.has_too_many(admission, handle, request, &method) {
            return self.refuse_until(handle, request.id, refusal);
        }
        // Items would not find a call that has not begun.
        if !admission.has_rule() || request.flags & WITH_ITEMS != 0 {
            admission.level.borrow_mut().admitted(self.now(), request.priority);
            return self.begin_admitted(handle, request, method, 0);
        }
        let (class, since) = (request.priority, request.received);
        let waiting = Waiting { handle, request: request.take(), method };
        admission.waiting.borrow_mut().push(class, since, waiting);
    }

    /// Counts a call, and says with what it is refused, if there are too many. Either way it [ends](Self::ended_taken).
    fn has_too_many(
        &self,
        admission: &Admission,
        handle: Handle,
        request: &Request,
        method: &Method,
    ) -> Option<Refusal> {
        let register = &self.remote.register;
        let caller = || self.caller(handle);
        let number = admission.number(caller, &request.extensions);
        let of = (request.method, request.priority);
        while admission.lacks_place(of, number) && self.gives_way(admission, of.1) {}
        let room = admission.count((handle, request.id), of, number, request.received);
        if room != Room::Taken {
            register.over_limit.add();
            if room == Room::Kept {
                admission.level.borrow_mut().refused(self.now(), request.priority);
            }
            let is_callers = room == Room::CallerFull;
            return Some(if is_callers { Refusal::rate_limited() } else { Refusal::overloaded() });
        }
        let of = (request.method, method.full_name());
        let rates = admission.rates.borrow();
        let rates = rates.as_ref()?;
        let wait = rates.refuses(self.now(), of, caller, &request.extensions)?;
        register.over_rate.add();
        // Rounded up: a moment earlier it would be refused again.
        Some(Refusal::rate_limited().retry_after(wait.max(Duration::from_nanos(1))))
    }

    /// A call of a lower class that waits gives up its place, the first of the lowest; says whether there was one.
    fn gives_way(&self, admission: &Admission, class: u8) -> bool {
        let lower = admission.waiting.borrow_mut().pop_below(class);
        let Some(lower) = lower else { return false };
        let (handle, id) = lower.key();
        if admission.was_given_up((handle, id)).is_none() {
            self.remote.register.over_limit.add();
            admission.level.borrow_mut().refused(self.now(), lower.request.priority);
        }
        self.refuse(handle, id, Status::OVERLOADED);
        true
    }

    /// Begins calls that wait, for about as long as it took to read them, and a [`SLICE`] at least. Says whether there
    /// was any.
    #[cold]
    pub(super) fn begin_waiting(self: &Rc<Self>, turn_began: Instant) -> bool {
        let Some(admission) = self.admission.get() else { return false };
        let mut now = self.read_clock();
        let until = now + now.since(turn_began).max(SLICE);
        let mut any = false;
        while now < until
            && let Some(next) = admission.next(now)
        {
            any = true;
            let method = Rc::clone(&next.call.method);
            let has_begun = self.begin_next(admission, next, until);
            let began = now;
            now = self.read_clock();
            if has_begun {
                let mut cost = method.cost.get();
                cost.took(now.since(began));
                method.cost.set(cost);
            }
        }
        if !admission.has_work() {
            self.answer_given_up(admission);
        }
        any
    }

    /// One of those that wait begins, or does not; says which. Answers leave `until` then, or when none waits.
    fn begin_next(
        self: &Rc<Self>,
        admission: &Admission,
        next: Next<Waiting>,
        until: Instant,
    ) -> bool {
        let now = self.now.get();
        let Next { call: mut next, is_refused, behind } = next;
        let (handle, id) = next.key();
        let waited = now.since(next.request.received);
        let is_late = is_late(&next, now, behind, until);
        match admission.was_given_up((handle, id)) {
            Some(false) => self.refuse(handle, id, Status::CANCELLED),
            given_up if is_late || given_up.is_some() => {
                // What its caller says of its time is no word on the queue.
                if is_late {
                    admission.expired(waited, next.request.deadline.since(next.request.received));
                }
                self.refuse_expired(handle, id);
            }
            _ if is_refused => {
                self.remote.register.waited_too_long.add();
                admission.level.borrow_mut().refused(now, next.request.priority);
                let refusal = Refusal::overloaded().retry_after(admission.retry_after());
                self.refuse_until(handle, id, refusal);
            }
            _ => {
                if self.watch.is_some() {
                    self.watch_begins(handle, id);
                }
                admission.level.borrow_mut().admitted(now, next.request.priority);
                let queue_us = now.micros_since(next.request.received);
                self.begin_admitted(handle, &mut next.request, next.method, queue_us);
                return true;
            }
        }
        false
    }

    #[inline(never)]
    fn begin_admitted(
        self: &Rc<Self>,
        handle: Handle,
        request: &mut Request,
        method: Rc<Method>,
        queue_us: u32,
    ) {
        self.begin(handle, request, method, queue_us);
    }

    /// Nothing waits: whoever was said to be given up was not here.
    fn answer_given_up(&self, admission: &Admission) {
        let given_up = std::mem::take(&mut *admission.given_up.borrow_mut());
        // In an order that does not change from run to run: a simulation must repeat.
        let mut given_up: Vec<_> = given_up.into_keys().collect();
        given_up.sort_unstable();
        for (handle, id) in given_up {
            self.refuse(handle, id, Status::CANCELLED_RUNNING);
        }
    }

    /// None of those that wait will begin. Returns how many there were.
    pub(crate) fn refuse_waiting(&self, status: Status) -> usize {
        let Some(admission) = self.admission.get() else { return 0 };
        admission.given_up.borrow_mut().clear();
        let pop = || admission.waiting.borrow_mut().pop();
        let mut refused = 0;
        while let Some(waiting) = pop() {
            self.refuse(waiting.handle, waiting.request.id, status);
            refused += 1;
        }
        refused
    }

    /// A call has its answer: it is not counted any more, and its caller hears how busy this shard is.
    #[cold]
    pub(super) fn ended_taken(&self, handle: Handle, request: RequestId, header: &mut ReplyHeader) {
        let Some(admission) = self.admission.get() else { return };
        header.load = admission.load.get().thousandths();
        header.admission = admission.level.borrow_mut().lowest(self.now.get());
        if let Some(taken) = &mut *admission.taken.borrow_mut() {
            // Within a slice the time is that at which a handler began.
            let now = if admission.is_timed.get() { self.read_clock() } else { self.now.get() };
            let mut rng = self.rng.borrow_mut();
            taken.end(now, &(handle, request), header.status, &mut *rng);
        }
    }

    /// A turn that did something is over.
    #[cold]
    pub(super) fn worked(&self, began: Instant) {
        if let Some(admission) = self.admission.get() {
            let mut load = admission.load.get();
            load.worked(began, self.read_clock());
            admission.load.set(load);
        }
    }
}
