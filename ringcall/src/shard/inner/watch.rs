//! What a shard tells its observers: of the connections that it accepted, and of the calls that it serves.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use ringcall_core::{
    Address, Cause, CloseReason, Codec, Failure, Handle, Instant, Request, RequestId, Side, Status,
};

use super::Inner;
use super::origins::Origins;
use crate::client::{ClientConnection, PeerAddress};
use crate::observe::{
    Audience, Call, CallEnd, Connection, End, Entered, Event, Observers, Role, Scope, enter,
    next_number, trace_context_of,
};
use crate::serve::{Facts, is_control};
use crate::shard::drain::DrainStep;

/// How long after something happened the counters are told.
const COUNTED_AFTER: Duration = Duration::from_secs(1);

/// What is kept for observers; only a shard that is observed has it.
pub(super) struct Watch {
    observers: Observers,
    origins: Rc<Origins>,
    /// Calls that have begun and not ended: each is told once, whichever way it ends.
    served: RefCell<HashMap<(Handle, RequestId), Served>>,
    /// Whether any of them ever had a scope.
    has_scopes: Cell<bool>,
    /// When the counters are to be told; far if nothing has happened since.
    counted_at: Cell<Instant>,
    /// How many steps of a drain were told.
    steps: Cell<usize>,
}

/// What happens to a connection.
#[derive(Clone, Copy)]
pub(super) enum Change {
    Opened,
    Established,
    Closed(CloseReason),
}

impl Change {
    fn of(self, connection: Connection<'_>) -> Event<'_> {
        match self {
            Change::Opened => Event::ConnectionOpened(connection),
            Change::Established => Event::ConnectionEstablished(connection),
            Change::Closed(reason) => Event::ConnectionClosed(connection, reason),
        }
    }
}

struct Served {
    number: u64,
    method: u64,
    attempt: u8,
    priority: u8,
    flags: u8,
    codec: Codec,
    received: Instant,
    begun: Instant,
    request_bytes: usize,
    /// What its handler runs in.
    scope: Option<Arc<dyn Scope>>,
}

impl Watch {
    pub(super) fn new(observers: &Observers, origins: &Rc<Origins>) -> Option<Box<Watch>> {
        let watch = || Watch {
            observers: observers.for_shard(),
            origins: Rc::clone(origins),
            served: RefCell::default(),
            has_scopes: Cell::new(false),
            counted_at: Cell::new(Instant::FAR),
            steps: Cell::new(0),
        };
        (!observers.is_empty()).then(|| Box::new(watch()))
    }

    /// Tells something of a connection that was accepted; nothing of others.
    fn tell_of(&self, handle: Handle, change: Change) {
        if let Some(origin) = self.origins.of(handle) {
            let (number, peer) = (number(handle), origin.1.as_ref());
            let connection = Connection { number, side: Side::Server, peer };
            self.observers.tell(&change.of(connection));
        }
    }

    fn begin(&self, handle: Handle, request: &Request, now: Instant) {
        if is_control(request.method) {
            return;
        }
        let mut served = Served {
            number: next_number(),
            method: request.method,
            attempt: request.attempt,
            priority: request.priority,
            flags: request.flags,
            codec: request.codec,
            received: request.received,
            begun: now,
            request_bytes: request.body.len(),
            scope: None,
        };
        let origin = self.origins.of(handle);
        let trace_context = trace_context_of(&request.extensions);
        let peer = origin.as_ref().and_then(|origin| origin.1.as_ref());
        let call = Call { trace_context, ..served.call(peer, now) };
        self.observers.tell(&Event::CallBegun(call));
        served.scope = self.observers.scope(served.number);
        self.has_scopes.set(self.has_scopes.get() || served.scope.is_some());
        self.served.borrow_mut().insert((handle, request.id), served);
    }

    fn end(&self, handle: Handle, request: RequestId, now: Instant, end: End, reply_bytes: usize) {
        let served = self.served.borrow_mut().remove(&(handle, request));
        if let Some(served) = served {
            self.tell_end(handle, &served, now, end, reply_bytes);
        }
    }

    fn tell_end(&self, handle: Handle, call: &Served, now: Instant, end: End, reply_bytes: usize) {
        let end = CallEnd {
            end,
            took: now.since(call.received),
            queued: call.begun.since(call.received),
            handled: now.since(call.begun),
            request_bytes: call.request_bytes,
            reply_bytes,
        };
        let origin = self.origins.of(handle);
        let peer = origin.as_ref().and_then(|origin| origin.1.as_ref());
        self.observers.tell(&Event::CallEnded(call.call(peer, now), end));
    }

    /// A connection is over, and with it the calls that were not answered.
    fn closed(&self, handle: Handle, reason: CloseReason, now: Instant) {
        let end = End::Failed(Failure::unknown(Cause::Closed(reason)));
        loop {
            // One by one, since whoever is told may do anything.
            let next = self.served.borrow().keys().find(|(of, _)| *of == handle).copied();
            let Some((_, request)) = next else { break };
            self.end(handle, request, now, end, 0);
        }
        self.tell_of(handle, Change::Closed(reason));
    }
}

impl Served {
    fn call<'a>(&self, peer: Option<&'a Address>, at: Instant) -> Call<'a> {
        Call {
            number: self.number,
            role: Role::Server,
            method: self.method,
            peer,
            attempt: self.attempt,
            priority: self.priority,
            flags: self.flags,
            codec: self.codec,
            trace_context: None,
            at,
        }
    }
}

fn number(handle: Handle) -> u64 {
    u64::from(handle.generation) << 32 | u64::from(handle.index)
}

impl Inner {
    /// Who is told of calls on a connection of this shard: those that were named for it, or else the
    /// shard's own.
    pub(crate) fn audience(&self, own: &Observers, peer: PeerAddress) -> Option<Arc<Audience>> {
        match (&self.watch, own.is_empty()) {
            (None, true) => None,
            (Some(watch), true) => Audience::of(&watch.observers, peer),
            (_, false) => Audience::of(own, peer),
        }
    }

    #[cold]
    pub(super) fn watch_accepted(&self, handle: Handle) {
        if let Some(watch) = &self.watch {
            watch.tell_of(handle, Change::Opened);
        }
    }

    #[cold]
    pub(super) fn watch_established(&self, handle: Handle) {
        if let Some(watch) = &self.watch {
            watch.tell_of(handle, Change::Established);
        }
    }

    #[cold]
    pub(super) fn watch_closed(&self, handle: Handle, reason: CloseReason) {
        if let Some(client) = self.client(handle) {
            self.tell_client(&client, handle, Change::Closed(reason));
        }
        if let Some(watch) = &self.watch {
            watch.closed(handle, reason, self.now());
        }
    }

    /// Tells something of a connection that was opened here.
    pub(super) fn tell_client(&self, client: &ClientConnection, handle: Handle, change: Change) {
        if let Some(audience) = client.audience() {
            let (number, peer) = (number(handle), audience.peer.get());
            let connection = Connection { number, side: Side::Client, peer: peer.as_deref() };
            audience.observers.tell(&change.of(connection));
        }
    }

    #[cold]
    pub(super) fn watch_turned_away(&self) {
        if let Some(watch) = &self.watch {
            watch.observers.tell(&Event::ConnectionTurnedAway);
        }
    }

    #[cold]
    pub(super) fn watch_request(&self, handle: Handle, request: &Request) {
        if let Some(watch) = &self.watch {
            watch.begin(handle, request, self.now());
        }
    }

    /// Enters what the handler of a call runs in, until the result is dropped.
    #[inline]
    pub(crate) fn enter(&self, facts: &Facts) -> Option<Entered> {
        if self.watch.is_none() { None } else { enter(self.scope_of(facts)) }
    }

    /// What the handler of a call runs in, if an observer wants so, and the call has not ended.
    #[cold]
    pub(crate) fn scope_of(&self, facts: &Facts) -> Option<Arc<dyn Scope>> {
        let watch = self.watch.as_ref().filter(|watch| watch.has_scopes.get())?;
        let served = watch.served.borrow();
        served.get(&(facts.handle, facts.request))?.scope.clone()
    }

    /// It has waited until now.
    #[cold]
    pub(super) fn watch_begins(&self, handle: Handle, request: RequestId) {
        if let Some(watch) = &self.watch
            && let Some(served) = watch.served.borrow_mut().get_mut(&(handle, request))
        {
            served.begun = self.now();
        }
    }

    /// Its body is longer than it seemed.
    pub(super) fn watch_inflated(&self, handle: Handle, request: &Request) {
        if let Some(watch) = &self.watch
            && let Some(served) = watch.served.borrow_mut().get_mut(&(handle, request.id))
        {
            served.request_bytes = request.body.len();
        }
    }

    #[cold]
    pub(super) fn watch_answer(
        &self,
        handle: Handle,
        request: RequestId,
        status: Status,
        bytes: usize,
    ) {
        if let Some(watch) = &self.watch {
            watch.end(handle, request, self.now(), End::Answered(status), bytes);
        }
    }

    /// At the end of a turn in which something happened, or whose time it was.
    #[cold]
    pub(super) fn watch_counters(&self, was_busy: bool) {
        let Some(watch) = &self.watch else { return };
        let now = self.now();
        if watch.counted_at.get() <= now {
            watch.counted_at.set(Instant::FAR);
            self.tell_counters();
        } else if was_busy && watch.counted_at.get() == Instant::FAR {
            watch.counted_at.set(now + COUNTED_AFTER);
        }
    }

    pub(super) fn tell_counters(&self) {
        if let Some(watch) = &self.watch {
            let counters = self.endpoint.borrow().counters();
            watch.observers.tell(&Event::Counted(&counters));
        }
    }

    /// When the counters are due.
    pub(super) fn counters_due(&self) -> Option<Instant> {
        let at = self.watch.as_ref()?.counted_at.get();
        (at != Instant::FAR).then_some(at)
    }

    /// Tells the steps of a drain that were not told.
    #[cold]
    pub(crate) fn watch_drain(&self, steps: &[(Duration, usize, DrainStep)]) {
        let Some(watch) = &self.watch else { return };
        let told = watch.steps.replace(steps.len());
        // Another drain begins from the beginning.
        let told = if told > steps.len() { 0 } else { told };
        for (.., step) in &steps[told..] {
            watch.observers.tell(&Event::Draining(*step));
        }
    }
}
