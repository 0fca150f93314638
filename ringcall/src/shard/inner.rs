//! What a shard is made of, and what it does with events.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use ringcall_core::frame::{CancelReason, ReplyHeader};
use ringcall_core::{
    Address, Call, CallId, Cancellation, Cause, Clock, CloseReason, Config, Empty, Encoded,
    Endpoint, EndpointEvent, Entropy, Event, Failure, Handle, Instant, Listener, Memory, Outcome,
    Outgoing, Payload, Plain, Refused, Request, RequestId, SharedPool, SplitMix64, Status,
    Transport, TransportError,
};

use super::engine::{Engine, Socket};
use super::executor::{Executor, Spawned};
use super::mail::{Notice, Remote, RemoteCall, RemoteOpening};
use super::streams::{OpenStream, Streams};
use super::timers::{SleepUntil, Timers};
use super::waiters::Waiters;
use crate::client::{
    BODY_BLOCK_BYTES, ClientConnection, ConnectSlot, ConnectionState, LocalClient, RemoteEnd,
    RemoteSlot, Waits, Watched, encode, failure_of,
};
use crate::offload::Pool;
use crate::serve::{Incoming, Router, Running};

/// What comes back with the end of a call.
pub(crate) enum Ticket {
    /// A future on this shard.
    Waiter(u32),
    /// A callback on this shard.
    Callback(Box<dyn FnOnce(Outcome)>),
    /// A caller on another thread, by its place in `remote_calls`.
    Remote(u32),
    /// The caller of a call with streams.
    Stream(Rc<OpenStream>),
}

pub(crate) type ShardEndpoint = Endpoint<Engine, Plain, Ticket>;

/// Frames are sent once a turn, or when so many events have been handled: at hundreds of calls in
/// flight both sides then work at the same time.
const EVENTS_A_FLUSH: u32 = 256;
/// How many tasks are polled before events are looked at again.
const TASKS_A_ROUND: usize = 256;
/// How many rounds of events and tasks a turn has at most.
const ROUNDS_A_TURN: usize = 8;
/// How long a stopping shard waits for what runs.
pub(crate) const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) struct Inner {
    pub(crate) remote: Arc<Remote>,
    pub(crate) endpoint: RefCell<ShardEndpoint>,
    pub(crate) executor: Executor,
    pub(crate) timers: Timers,
    pub(crate) waiters: Waiters,
    pub(crate) streams: Streams,
    pub(crate) pool: Arc<Pool>,
    pub(crate) client_config: Rc<Config>,
    clock: Box<dyn Clock>,
    now: Cell<Instant>,
    was_busy: Cell<bool>,
    /// Another loop waits for it.
    pub(crate) is_hosted: Cell<bool>,
    listeners: RefCell<Vec<Listener>>,
    server_config: Rc<Config>,
    router: RefCell<Rc<Router>>,
    /// Calls of others that are not answered yet and were not answered at once.
    running: RefCell<HashMap<(Handle, RequestId), Running>>,
    /// Connections that this shard opened, also those that their clients have left.
    clients: RefCell<HashMap<Handle, Rc<ClientConnection>>>,
    /// Those of them on which callers wait for room.
    crowded: RefCell<Vec<Rc<ClientConnection>>>,
    /// Connections that clients on other threads use, by number.
    remote_clients: RefCell<Vec<Option<LocalClient>>>,
    remote_calls: RefCell<RemoteCalls>,
    /// Shards that accepted connections are spread over, this one among them.
    siblings: RefCell<Vec<Arc<Remote>>>,
    connections_max: usize,
    turned_away: Cell<u64>,
    /// When a shard that is told to stop stops waiting for what runs.
    stop_at: Cell<Option<Instant>>,
    /// Clients that connect again, when their time has come.
    redials: RefCell<Vec<(Instant, Rc<ClientConnection>)>>,
    /// The first of these times; far if there is none.
    redial_at: Cell<Instant>,
    rng: RefCell<SplitMix64>,
    /// For bodies that must wait.
    bodies: SharedPool,
}

#[derive(Default)]
struct RemoteCalls {
    calls: Vec<Option<RemoteEntry>>,
    free: Vec<u32>,
}

struct RemoteEntry {
    end: RemoteEnd,
    client: u32,
    handle: Handle,
    /// Unknown while the call waits.
    id: Option<CallId>,
    deadline: Instant,
    /// To make it again, if its caller cannot.
    again: Option<(Outgoing, Encoded)>,
}

impl RemoteCalls {
    fn add(&mut self, end: RemoteEnd, client: u32, deadline: Instant) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() as u32 - 1
        });
        end.set_index(index);
        let handle = Handle { index: 0, generation: 0 };
        let entry = RemoteEntry { end, client, handle, id: None, deadline, again: None };
        self.calls[index as usize] = Some(entry);
        index
    }

    fn sent(&mut self, index: u32, handle: Handle, id: CallId) {
        if let Some(Some(entry)) = self.calls.get_mut(index as usize) {
            (entry.handle, entry.id) = (handle, Some(id));
        }
    }

    fn entry(&mut self, index: u32) -> Option<&mut RemoteEntry> {
        self.calls.get_mut(index as usize)?.as_mut()
    }

    fn take(&mut self, index: u32) -> Option<RemoteEnd> {
        let entry = self.calls[index as usize].take()?;
        self.free.push(index);
        Some(entry.end)
    }
}

/// Settings that a shard's parts share.
pub(crate) struct InnerConfig {
    pub(crate) server: Config,
    pub(crate) client: Config,
    pub(crate) connections_max: usize,
}

impl Inner {
    pub(crate) fn new(
        engine: Engine,
        remote: Arc<Remote>,
        memory: Memory,
        clock: Box<dyn Clock>,
        pool: Arc<Pool>,
        config: InnerConfig,
    ) -> Inner {
        let now = clock.now();
        Inner {
            endpoint: RefCell::new(Endpoint::new(engine, memory, |_| Plain, now)),
            executor: Executor::new(&remote),
            timers: Timers::new(now),
            waiters: Waiters::new(),
            streams: Streams::default(),
            pool,
            client_config: Rc::new(config.client),
            clock,
            now: Cell::new(now),
            was_busy: Cell::new(false),
            is_hosted: Cell::new(false),
            listeners: RefCell::default(),
            server_config: Rc::new(config.server),
            router: RefCell::default(),
            running: RefCell::default(),
            clients: RefCell::default(),
            crowded: RefCell::default(),
            remote_clients: RefCell::default(),
            remote_calls: RefCell::default(),
            siblings: RefCell::new(vec![Arc::clone(&remote)]),
            connections_max: config.connections_max,
            turned_away: Cell::new(0),
            stop_at: Cell::new(None),
            redials: RefCell::default(),
            redial_at: Cell::new(Instant::FAR),
            rng: RefCell::new(entropy()),
            bodies: SharedPool::new(BODY_BLOCK_BYTES),
            remote,
        }
    }

    /// The time of this turn; between turns, when nothing else reads the clock, the time.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        if self.executor.is_entered() { self.now.get() } else { self.read_clock() }
    }

    pub(crate) fn read_clock(&self) -> Instant {
        let now = self.clock.now();
        self.now.set(now);
        now
    }

    /// To be called after whatever leaves work for the next turn: whoever waits outside of a turn must
    /// hear of it.
    #[inline]
    pub(crate) fn left_work(&self) {
        if !self.executor.is_entered() {
            self.remote.ring();
        }
    }

    // ---- a turn ----

    /// Everything of a turn but waiting. Says whether something is left to do.
    pub(crate) fn work(self: &Rc<Self>) -> bool {
        let now = self.read_clock();
        let mut any = self.remote.has_mail();
        self.take_notices();
        self.take_calls();
        any |= self.endpoint.borrow_mut().reap(now);
        any |= self.timers.expire(now);
        any |= self.redial_due(now);
        for _ in 0..ROUNDS_A_TURN {
            let events = self.deliver();
            let tasks = self.executor.run(TASKS_A_ROUND);
            if !events && !tasks {
                break;
            }
            any = true;
        }
        self.was_busy.set(any);
        self.endpoint.borrow_mut().flush(now);
        self.admit_crowds();
        self.has_work()
    }

    /// Whether the last turn had anything to do.
    pub(crate) fn was_busy(&self) -> bool {
        self.was_busy.get()
    }

    /// Whether there is something to do without anything new happening.
    pub(crate) fn has_work(&self) -> bool {
        self.endpoint.borrow().has_work() || self.executor.has_ready() || self.remote.has_mail()
    }

    /// When there will be something to do if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let endpoint = self.endpoint.borrow().next_timeout();
        let redial = Some(self.redial_at.get()).filter(|at| *at != Instant::FAR);
        [endpoint, self.timers.next(), self.stop_at.get(), redial].into_iter().flatten().min()
    }

    /// Whether somebody may be waiting outside of a turn for something later than this.
    pub(crate) fn is_waited_longer(&self, at: Instant) -> bool {
        !self.executor.is_entered() && self.next_timeout().is_none_or(|next| at < next)
    }

    fn deliver(self: &Rc<Self>) -> bool {
        let now = self.now();
        let mut since_flush = 0;
        let mut any = false;
        loop {
            // Borrowed for the question only: what follows may make calls itself.
            let event = self.endpoint.borrow_mut().poll_event(now);
            match event {
                None => return any,
                Some(EndpointEvent::Accepted(listener, socket)) => self.accepted(listener, socket),
                Some(EndpointEvent::Connection(handle, event)) => self.take_event(handle, event),
            }
            any = true;
            since_flush += 1;
            if since_flush == EVENTS_A_FLUSH {
                since_flush = 0;
                self.executor.run(TASKS_A_ROUND);
                self.endpoint.borrow_mut().flush(now);
            }
        }
    }

    #[inline]
    fn take_event(self: &Rc<Self>, handle: Handle, event: Event<Ticket>) {
        match event {
            Event::Request(request) => self.dispatch(handle, request),
            Event::Completed(ticket, outcome) => {
                if let Ticket::Remote(index) = ticket
                    && let Some(failure) = failure_of(&outcome)
                    && self.repeat(index, &failure)
                {
                    return;
                }
                self.complete(ticket, outcome);
            }
            Event::Cancelled(id, why) => self.cancelled(handle, id, why),
            Event::Established(_) => {
                if let Some(client) = self.client(handle) {
                    client.established(handle);
                }
            }
            Event::GoAway(_) => {
                if let Some(client) = self.client(handle)
                    && client.draining(handle)
                {
                    self.redial(&client);
                }
            }
            Event::Closed(reason) => {
                log::debug!("connection {handle:?} is over: {reason}");
                let client = self.clients.borrow_mut().remove(&handle);
                match client {
                    Some(client) => {
                        if client.closed(handle, reason) {
                            self.redial(&client);
                        }
                    }
                    None => {
                        self.remote.connections.fetch_sub(1, Ordering::Relaxed);
                    }
                }
            }
            event => self.stream_event(handle, event),
        }
    }

    // ---- calls of others ----

    #[inline]
    fn dispatch(self: &Rc<Self>, handle: Handle, request: Request) {
        let method = self.router.borrow().find(request.method);
        let Some(method) = method else {
            return self.refuse(handle, request.id, Status::UNKNOWN_METHOD);
        };
        if let Some(status) = method.refuses(&request) {
            return self.refuse(handle, request.id, status);
        }
        method.start(Incoming::on_shard(self, handle, request, &method));
    }

    /// Answers without a handler.
    pub(crate) fn refuse(&self, handle: Handle, request: RequestId, status: Status) {
        self.answer_with(handle, request, ReplyHeader::new(status), &Empty);
    }

    /// Answers a call. That the caller is gone is no fault of ours.
    pub(crate) fn answer_with<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) {
        let mut endpoint = self.endpoint.borrow_mut();
        let replied = endpoint.reply(self.now(), handle, request, header, payload);
        if let Err(ringcall_core::ReplyError::Encode(error)) = replied {
            log::warn!("a reply could not be sent: {error}");
        }
    }

    /// A call that was not answered at once goes on: somebody must be told when nobody waits for it.
    pub(crate) fn keep_running(
        &self,
        handle: Handle,
        request: RequestId,
        deadline: Instant,
        running: Running,
    ) {
        self.running.borrow_mut().insert((handle, request), running);
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.watch_deadline(request, deadline);
        }
    }

    pub(crate) fn ended_running(&self, handle: Handle, request: RequestId) {
        self.running.borrow_mut().remove(&(handle, request));
    }

    fn cancelled(&self, handle: Handle, request: RequestId, why: Cancellation) {
        let running = self.running.borrow_mut().remove(&(handle, request));
        let status = match why {
            Cancellation::Expired | Cancellation::Caller(CancelReason::Expired) => {
                Status::EXPIRED_RUNNING
            }
            _ => Status::CANCELLED_RUNNING,
        };
        match running {
            Some(Running::Task(index)) => {
                self.executor.remove(index);
                self.refuse(handle, request, status);
            }
            // It runs on another thread, which looks when it likes; its answer gives the slot back.
            Some(Running::Elsewhere(flag)) => flag.cancel(status),
            None => self.refuse(handle, request, status),
        }
    }

    // ---- own calls ----

    /// Makes a call on a connection of this shard.
    #[inline]
    pub(crate) fn call<P: Payload>(
        &self,
        handle: Handle,
        outgoing: &Outgoing,
        deadline: Instant,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        let call = Call {
            method: outgoing.method,
            in_signature: outgoing.in_signature,
            out_signature: outgoing.out_signature,
            deadline,
            codec: outgoing.codec,
            priority: outgoing.priority,
            attempt: 0,
            flags: outgoing.flags,
        };
        let called = self.endpoint.borrow_mut().call(self.now(), handle, &call, payload, ticket);
        self.left_work();
        called
    }

    /// Gives up a call that [`call`](Self::call) has made. `None` if it has ended meanwhile.
    pub(crate) fn cancel(&self, handle: Handle, id: CallId) -> Option<Ticket> {
        let now = self.now();
        let ticket = self.endpoint.borrow_mut().cancel(now, handle, id, CancelReason::Dropped);
        self.left_work();
        ticket
    }

    #[inline]
    pub(crate) fn complete(&self, ticket: Ticket, outcome: Outcome) {
        // Callbacks and wakers are somebody's code: with a panic of theirs, all other calls of the
        // shard would be lost.
        let told = catch_unwind(AssertUnwindSafe(|| match ticket {
            Ticket::Waiter(index) => self.waiters.complete(index, outcome),
            Ticket::Callback(callback) => callback(outcome),
            Ticket::Remote(index) => {
                let end = self.remote_calls.borrow_mut().take(index);
                if let Some(end) = end {
                    end.complete(outcome);
                }
            }
            Ticket::Stream(stream) => stream.complete(outcome),
        }));
        if told.is_err() {
            self.executor.panicked();
            log::error!("the callback of a call panicked; the shard goes on");
        }
    }

    // ---- connections ----

    /// Somebody needs this client: if it has never connected it does so now.
    pub(crate) fn wake_up(&self, client: &Rc<ClientConnection>) {
        if client.watched().state() == ConnectionState::Idle {
            self.dial(client);
        }
    }

    /// Connects as soon as that is not too soon after the last time.
    fn redial(&self, client: &Rc<ClientConnection>) {
        if client.watched().is_final() {
            return;
        }
        if self.remote.is_gone() || self.stop_at.get().is_some() {
            return client.end();
        }
        let at = client.next_try(&mut *self.rng.borrow_mut());
        if at <= self.now() {
            return self.dial(client);
        }
        self.redials.borrow_mut().push((at, Rc::clone(client)));
        self.redial_at.set(self.redial_at.get().min(at));
        self.left_work();
    }

    fn dial(&self, client: &Rc<ClientConnection>) {
        let now = self.read_clock();
        client.tries(now);
        let address = client.address();
        let connected = self.endpoint.borrow_mut().connect(now, address, &self.client_config);
        match connected {
            Ok(handle) => {
                client.opens(handle);
                self.clients.borrow_mut().insert(handle, Rc::clone(client));
                self.left_work();
            }
            Err(error) => {
                client.failed(CloseReason::Transport(error));
                self.redial(client);
            }
        }
    }

    fn redial_due(&self, now: Instant) -> bool {
        if self.redial_at.get() > now {
            return false;
        }
        self.redial_at.set(Instant::FAR);
        let redials = std::mem::take(&mut *self.redials.borrow_mut());
        for (at, client) in redials {
            if at > now {
                self.redial_at.set(self.redial_at.get().min(at));
                self.redials.borrow_mut().push((at, client));
            } else if self.remote.is_gone() || self.stop_at.get().is_some() {
                client.end();
            } else if !client.watched().is_final() {
                self.dial(&client);
            }
        }
        true
    }

    fn client(&self, handle: Handle) -> Option<Rc<ClientConnection>> {
        self.clients.borrow().get(&handle).cloned()
    }

    /// Callers wait on this connection until there is room.
    pub(crate) fn crowd(&self, client: &Rc<ClientConnection>) {
        let mut crowded = self.crowded.borrow_mut();
        if !crowded.iter().any(|other| Rc::ptr_eq(other, client)) {
            crowded.push(Rc::clone(client));
        }
    }

    fn admit_crowds(&self) {
        if self.crowded.borrow().is_empty() {
            return;
        }
        let crowded = std::mem::take(&mut *self.crowded.borrow_mut());
        for client in crowded {
            let endpoint = self.endpoint.borrow();
            let connection = endpoint.connection(client.handle());
            let free = connection.map_or(usize::MAX, |connection| {
                (connection.in_flight_limit() as usize).saturating_sub(connection.calls_in_flight())
            });
            drop(endpoint);
            if !client.admit(free) {
                self.crowded.borrow_mut().push(client);
            }
        }
    }

    // ---- serving ----

    pub(crate) fn set_router(&self, router: Router) {
        *self.router.borrow_mut() = Rc::new(router);
    }

    pub(crate) fn router(&self) -> Rc<Router> {
        Rc::clone(&self.router.borrow())
    }

    pub(crate) fn set_siblings(&self, siblings: Vec<Arc<Remote>>) {
        *self.siblings.borrow_mut() = siblings;
    }

    pub(crate) fn listen(&self, address: &Address) -> Result<(Listener, Address), TransportError> {
        let mut endpoint = self.endpoint.borrow_mut();
        let listener = endpoint.transport_mut().listen(address)?;
        let local = endpoint.transport().local_address(listener).unwrap_or(address.clone());
        self.listeners.borrow_mut().push(listener);
        self.left_work();
        Ok((listener, local))
    }

    fn accepted(&self, _: Listener, socket: Socket) {
        if self.remote.is_gone() {
            return;
        }
        let siblings = self.siblings.borrow();
        let load = |shard: &Arc<Remote>| shard.connections.load(Ordering::Relaxed);
        let total: usize = siblings.iter().map(load).sum();
        if total >= self.connections_max || self.stop_at.get().is_some() {
            // Dropping the socket closes it.
            self.turned_away.set(self.turned_away.get() + 1);
            if self.turned_away.get().is_power_of_two() {
                log::warn!(
                    "turned a connection away: {total} are open, `connections_max` is {}",
                    self.connections_max
                );
            }
            return;
        }
        let Some(fewest) = siblings.iter().min_by_key(|shard| load(shard)) else { return };
        fewest.connections.fetch_add(1, Ordering::Relaxed);
        if Arc::ptr_eq(fewest, &self.remote) {
            self.adopt(socket);
        } else {
            fewest.notify(Notice::Adopt(socket));
        }
    }

    /// A connection that was counted already.
    fn adopt(&self, socket: Socket) {
        let now = self.now();
        if let Err(error) = self.endpoint.borrow_mut().adopt(now, socket, &self.server_config) {
            self.remote.connections.fetch_sub(1, Ordering::Relaxed);
            log::warn!("an accepted connection could not be used: {error}");
        }
    }

    /// How many connections were closed because there were too many.
    pub(crate) fn turned_away(&self) -> u64 {
        self.turned_away.get()
    }

    // ---- mail ----

    fn take_calls(self: &Rc<Self>) {
        let mut any = false;
        while let Some(call) = self.remote.next_call() {
            any = true;
            self.take_call(call);
        }
        if any {
            self.remote.admit_crowd();
        }
    }

    fn take_call(self: &Rc<Self>, call: RemoteCall) {
        let RemoteCall { client: number, outgoing, payload, end } = call;
        let client = self.remote_client(number);
        let Some(client) = client else { return end.shut_down() };
        if end.is_abandoned() {
            return;
        }
        let can_repeat = end.can_repeat();
        let deadline = self.now() + outgoing.timeout;
        let index = self.remote_calls.borrow_mut().add(end, number, deadline);
        let handle = client.connection().handle();
        match self.call(handle, &outgoing, deadline, &payload, Ticket::Remote(index)) {
            Ok(id) => {
                let mut calls = self.remote_calls.borrow_mut();
                calls.sent(index, handle, id);
                if !can_repeat && let Some(entry) = calls.entry(index) {
                    entry.again = Some((outgoing, payload));
                }
            }
            Err(Refused { ticket, failure }) => {
                match client.connection().judge(failure, outgoing.wait_for_ready) {
                    Waits::Not(failure) => self.complete(ticket, Outcome::Failed(failure)),
                    waits => {
                        self.call_later(client, outgoing, deadline, payload, ticket, Some(waits));
                    }
                }
            }
        }
    }

    fn remote_client(&self, number: u32) -> Option<LocalClient> {
        self.remote_clients.borrow().get(number as usize).cloned().flatten()
    }

    /// Sees to it that a call from another thread that certainly did not run is made again; says whether it
    /// has not ended yet.
    fn repeat(self: &Rc<Self>, index: u32, failure: &Failure) -> bool {
        let mut calls = self.remote_calls.borrow_mut();
        let Some(entry) = calls.entry(index) else { return false };
        let Some(client) = self.remote_client(entry.client) else { return false };
        if !client.connection().may_repeat(entry.handle, failure) {
            return false;
        }
        let deadline = entry.deadline;
        let Some((outgoing, payload)) = entry.again.take() else {
            // Its caller has the argument.
            entry.end.repeat_until(deadline);
            return false;
        };
        entry.id = None;
        drop(calls);
        self.call_later(client, outgoing, deadline, payload, Ticket::Remote(index), None);
        true
    }

    /// The body of a call whose argument is only borrowed, to be sent later.
    pub(crate) fn encode<P: Payload>(
        &self,
        call: &Outgoing,
        payload: &P,
    ) -> Result<Encoded, Failure> {
        encode(&self.bodies, call, payload)
    }

    /// Makes a call as soon as its connection takes it, or fails it at its deadline.
    pub(crate) fn call_later(
        self: &Rc<Self>,
        client: LocalClient,
        outgoing: Outgoing,
        deadline: Instant,
        payload: Encoded,
        mut ticket: Ticket,
        mut waits: Option<Waits>,
    ) {
        let shard = Rc::clone(self);
        self.spawn(async move {
            loop {
                if let Some(waits) = waits {
                    client.room(waits, deadline).await;
                }
                let handle = client.connection().handle();
                let index = if let Ticket::Remote(index) = ticket { Some(index) } else { None };
                match shard.call(handle, &outgoing, deadline, &payload, ticket) {
                    Ok(id) => {
                        if let Some(index) = index {
                            let mut calls = shard.remote_calls.borrow_mut();
                            calls.sent(index, handle, id);
                            if let Some(entry) = calls.entry(index)
                                && !entry.end.can_repeat()
                            {
                                entry.again = Some((outgoing, payload));
                            }
                        }
                        return;
                    }
                    Err(refused) => {
                        ticket = refused.ticket;
                        match client.connection().judge(refused.failure, outgoing.wait_for_ready) {
                            Waits::Not(failure) => {
                                return shard.complete(ticket, Outcome::Failed(failure));
                            }
                            again => waits = Some(again),
                        }
                    }
                }
            }
        });
    }

    fn take_notices(self: &Rc<Self>) {
        while let Some(notice) = self.remote.next_notice() {
            match notice {
                Notice::Cancel(slot) => self.cancel_remote(&slot),
                Notice::Connect(address, slot) => self.connect_remote(address, slot),
                Notice::WakeUp(client) => {
                    if let Some(client) = self.remote_client(client) {
                        self.wake_up(client.connection());
                    }
                }
                Notice::Open(opening) => self.open_remote(*opening),
                Notice::Release(client) => {
                    let mut clients = self.remote_clients.borrow_mut();
                    let released = clients.get_mut(client as usize).and_then(Option::take);
                    drop(clients);
                    drop(released);
                }
                Notice::Adopt(socket) => self.adopt(socket),
                Notice::Reply { handle, request, header, payload } => {
                    self.ended_running(handle, request);
                    self.answer_with(handle, request, header, &payload);
                }
                Notice::Timer(after, waker) => {
                    let sleep = SleepUntil::new(self, self.now() + after);
                    self.spawn(async move {
                        sleep.await;
                        waker.wake();
                    });
                }
                Notice::Stop => self.stop(),
            }
        }
    }

    fn cancel_remote(&self, slot: &Arc<RemoteSlot>) {
        let (handle, id) = {
            let calls = self.remote_calls.borrow();
            match calls.calls.get(slot.index() as usize) {
                // The place may have been used again.
                Some(Some(RemoteEntry { end, handle, id: Some(id), .. })) if end.is_of(slot) => {
                    (*handle, *id)
                }
                _ => return,
            }
        };
        if let Some(ticket) = self.cancel(handle, id) {
            self.complete(ticket, Outcome::Failed(Failure::unknown(Cause::Cancelled)));
        }
    }

    fn open_remote(self: &Rc<Self>, opening: RemoteOpening) {
        let RemoteOpening { client, outgoing, payload, bridge } = opening;
        let client = self.remote_clients.borrow().get(client as usize).cloned().flatten();
        match client {
            Some(client) => self.spawn(bridge.carry(client, outgoing, payload)),
            None => bridge.shut_down(),
        }
    }

    fn connect_remote(self: &Rc<Self>, address: Address, slot: Arc<ConnectSlot>) {
        let shard = Rc::clone(self);
        let client = LocalClient::new(self, address);
        if slot.is_lazy() {
            return slot.complete(Ok(self.enter_remote(client)));
        }
        self.spawn(async move {
            let connected = client.first().await;
            slot.complete(connected.map(|()| shard.enter_remote(client)));
        });
    }

    /// Gives a client a number for other threads.
    fn enter_remote(&self, client: LocalClient) -> (Arc<Remote>, u32, Watched) {
        let watched = client.connection().watched().clone();
        let mut clients = self.remote_clients.borrow_mut();
        let index = clients.iter().position(Option::is_none).unwrap_or_else(|| {
            clients.push(None);
            clients.len() - 1
        });
        clients[index] = Some(client);
        (Arc::clone(&self.remote), index as u32, watched)
    }

    // ---- tasks, stopping ----

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.executor.spawn(Box::pin(Spawned { future }));
    }

    /// Says goodbye on all connections: calls in progress are finished, new ones refused.
    fn stop(&self) {
        if self.stop_at.get().is_some() {
            return;
        }
        let now = self.now();
        self.stop_at.set(Some(now + DRAIN_TIMEOUT));
        let mut endpoint = self.endpoint.borrow_mut();
        let handles: Vec<Handle> = endpoint.handles().collect();
        for handle in handles {
            if let Some(connection) = endpoint.connection_mut(handle) {
                connection.go_away(now, true);
            }
        }
    }

    /// Nobody will turn the shard any more: connections are closed, so that calls end, here and on the
    /// other side; tasks are dropped.
    pub(crate) fn end(self: &Rc<Self>) {
        self.remote.close();
        let _entered = self.executor.enter();
        let now = self.read_clock();
        let listeners = std::mem::take(&mut *self.listeners.borrow_mut());
        {
            let mut endpoint = self.endpoint.borrow_mut();
            for listener in listeners {
                endpoint.transport_mut().unlisten(listener);
            }
            let handles: Vec<Handle> = endpoint.handles().collect();
            for handle in handles {
                if let Some(connection) = endpoint.connection_mut(handle) {
                    connection.close(now, CloseReason::Local);
                }
            }
        }
        self.deliver();
        let redials = std::mem::take(&mut *self.redials.borrow_mut());
        redials.into_iter().for_each(|(_, client)| client.end());
        // Dropping tasks may give up calls, which are over.
        self.executor.clear();
        self.endpoint.borrow_mut().flush(now);
        // An engine may have kept the last words until it is asked again.
        self.endpoint.borrow_mut().reap(now);
        self.deliver();
    }

    /// Whether a shard that was told to stop may end.
    pub(crate) fn has_stopped(&self) -> bool {
        let Some(stop_at) = self.stop_at.get() else { return false };
        self.endpoint.borrow().connections() == 0 || self.now() >= stop_at
    }
}

fn entropy() -> SplitMix64 {
    use std::hash::{BuildHasher, RandomState};
    // The standard library's only source of random numbers.
    SplitMix64::new(RandomState::new().hash_one(std::process::id()))
}

/// A different number for each process and time.
pub(crate) fn instance_id() -> ringcall_core::frame::InstanceId {
    let mut rng = entropy();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    ringcall_core::frame::InstanceId(id)
}
