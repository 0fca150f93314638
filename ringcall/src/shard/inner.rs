//! What a shard is made of, and what it does with events.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use ringcall_core::frame::{CancelReason, ReplyHeader};
use ringcall_core::{
    Address, Call, CallId, Cancellation, Cause, Clock, CloseReason, Config, Empty, Encoded,
    Endpoint, EndpointEvent, Entropy, Event, Failure, Handle, Instant, Listener, Memory, Outcome,
    Outgoing, Payload, Plain, Refused, Request, RequestId, SplitMix64, Status, Transport,
    TransportError,
};

use ringcall_net::Handover as _;

use super::drain::Drain;
use super::engine::{Engine, Socket};
use super::executor::{Executor, Spawned};
use super::mail::{Notice, Remote, RemoteCall, RemoteOpening};
use super::streams::{OpenStream, Streams};
use super::timers::{SleepUntil, Timers};
use super::waiters::Waiters;
use crate::client::{
    ClientConnection, ConnectSlot, ConnectionState, Destination, LocalClient, Outbox, RemoteEnd,
    RemoteSlot, Services, Waits, Watched, failure_of,
};
use crate::offload::Pool;
use crate::serve::{Incoming, Method, Mount, Router, Running};

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
    pub(super) listeners: RefCell<Vec<Listener>>,
    server_config: Rc<Config>,
    routers: RefCell<Routers>,
    /// Calls of others that are not answered yet and were not answered at once.
    pub(super) running: RefCell<HashMap<(Handle, RequestId), Running>>,
    /// Connections that this shard opened, also those that their clients have left.
    clients: RefCell<HashMap<Handle, Rc<ClientConnection>>>,
    /// Those of the others by which somebody calls back.
    peers: RefCell<HashMap<Handle, Rc<ClientConnection>>>,
    /// Those of them on which callers wait for room.
    crowded: RefCell<Vec<Rc<ClientConnection>>>,
    /// Connections that clients on other threads use, by number.
    remote_clients: RefCell<Vec<Option<LocalClient>>>,
    remote_calls: RefCell<RemoteCalls>,
    /// Shards that accepted connections are spread over, this one among them.
    siblings: RefCell<Vec<Arc<Remote>>>,
    connections_max: usize,
    /// Whether, and how far, it ends its service.
    pub(super) drain: RefCell<Option<Drain>>,
    /// For jitter.
    rng: RefCell<SplitMix64>,
    /// Clients that connect again, when their time has come.
    redials: RefCell<Vec<(Instant, Rc<ClientConnection>)>>,
    /// The first of these times; far if there is none.
    redial_at: Cell<Instant>,
    /// For bodies that must wait.
    outbox: Outbox,
}

/// Who answers calls.
#[derive(Default)]
struct Routers {
    /// On connections without services of their own.
    shared: Rc<Router>,
    /// Services that were offered on one connection, by its index.
    own: Vec<Option<(Handle, Rc<Router>)>>,
}

impl Routers {
    #[inline]
    fn find(&self, handle: Handle, method: u64) -> Option<Rc<Method>> {
        match self.own.get(handle.index as usize) {
            Some(Some((of, router))) if *of == handle => router.find(method),
            _ => self.shared.find(method),
        }
    }

    fn offer(&mut self, handle: Handle, router: Rc<Router>) {
        let index = handle.index as usize;
        if index >= self.own.len() {
            self.own.resize_with(index + 1, || None);
        }
        self.own[index] = Some((handle, router));
    }

    fn withdraw(&mut self, handle: Handle) -> Option<Rc<Router>> {
        let own = self.own.get_mut(handle.index as usize)?;
        own.take_if(|(of, _)| *of == handle).map(|(_, router)| router)
    }
}

#[derive(Default)]
struct RemoteCalls {
    calls: Vec<Option<RemoteEntry>>,
    free: Vec<u32>,
}

struct RemoteEntry {
    end: RemoteEnd,
    to: Destination,
    handle: Handle,
    /// Unknown while the call waits.
    id: Option<CallId>,
    deadline: Instant,
    /// To make it again, if its caller cannot.
    again: Option<(Outgoing, Encoded)>,
}

impl RemoteCalls {
    fn add(&mut self, end: RemoteEnd, to: Destination, deadline: Instant) -> u32 {
        let index = self.free.pop().unwrap_or_else(|| {
            self.calls.push(None);
            self.calls.len() as u32 - 1
        });
        end.set_index(index);
        let handle = Handle { index: 0, generation: 0 };
        let entry = RemoteEntry { end, to, handle, id: None, deadline, again: None };
        self.calls[index as usize] = Some(entry);
        index
    }

    fn sent(&mut self, index: u32, handle: Handle, id: CallId) {
        if let Some(Some(entry)) = self.calls.get_mut(index as usize) {
            (entry.handle, entry.id) = (handle, Some(id));
        }
    }

    /// Keeps what it takes to make a call again, if its caller cannot.
    fn keep(&mut self, index: u32, outgoing: Outgoing, payload: Encoded) {
        if let Some(entry) = self.entry(index)
            && !entry.end.can_repeat()
            && matches!(entry.to, Destination::Client(_))
        {
            entry.again = Some((outgoing, payload));
        }
    }

    fn entry(&mut self, index: u32) -> Option<&mut RemoteEntry> {
        self.calls.get_mut(index as usize)?.as_mut()
    }

    fn is_abandoned(&self, index: u32) -> bool {
        let entry = self.calls.get(index as usize);
        entry.and_then(Option::as_ref).is_some_and(|entry| entry.end.is_abandoned())
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
            routers: RefCell::default(),
            running: RefCell::default(),
            clients: RefCell::default(),
            peers: RefCell::default(),
            crowded: RefCell::default(),
            remote_clients: RefCell::default(),
            remote_calls: RefCell::default(),
            siblings: RefCell::new(vec![Arc::clone(&remote)]),
            connections_max: config.connections_max,
            drain: RefCell::default(),
            rng: RefCell::new(seeded()),
            redials: RefCell::default(),
            redial_at: Cell::new(Instant::FAR),
            outbox: Outbox::default(),
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
        if self.is_draining() {
            self.go_on_draining();
            self.endpoint.borrow_mut().flush(now);
        }
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
        let drain = self.drain.borrow().as_ref().map(Drain::next_timeout);
        let drain = drain.filter(|at| *at != Instant::FAR);
        let redial = Some(self.redial_at.get()).filter(|at| *at != Instant::FAR);
        [endpoint, self.timers.next(), drain, redial].into_iter().flatten().min()
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
                if self.is_draining() {
                    self.drain_late(handle);
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
                let endpoint = self.endpoint.borrow();
                let connection = endpoint.connection(handle);
                let had_hello = connection.is_some_and(|connection| connection.peer().is_some());
                self.remote.register.closed(reason, had_hello);
                drop(endpoint);
                self.forget(handle, reason);
            }
            event => self.stream_event(handle, event),
        }
    }

    // ---- calls of others ----

    #[inline]
    fn dispatch(self: &Rc<Self>, handle: Handle, request: Request) {
        let method = self.routers.borrow().find(handle, request.method);
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

    /// A call's time was over before its handler could start.
    fn refuse_expired(&self, handle: Handle, request: RequestId) {
        let now = self.now();
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.refuse_expired(now, request);
        }
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

    /// A call to whoever calls this side: it is refused rather than wait for the other side, see
    /// [`Peer`](crate::Peer#room).
    pub(crate) fn call_at_once<P: Payload>(
        &self,
        handle: Handle,
        outgoing: &Outgoing,
        deadline: Instant,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        let id = self.call(handle, outgoing, deadline, payload, ticket)?;
        let waits = {
            let endpoint = self.endpoint.borrow();
            endpoint.connection(handle).is_some_and(|connection| connection.waits_for_credit(id))
        };
        match waits.then(|| self.cancel(handle, id)).flatten() {
            Some(ticket) => Err(Refused { ticket, failure: Failure::not_sent(Cause::QueueFull) }),
            None => Ok(id),
        }
    }

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
        if self.remote.is_gone() {
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
        let Some(address) = client.address() else { return };
        let now = self.read_clock();
        client.tries(now);
        let connected = self.endpoint.borrow_mut().connect(now, address, &self.client_config);
        match connected {
            Ok(handle) => {
                if let Some(router) = client.services() {
                    self.routers.borrow_mut().offer(handle, Rc::clone(router));
                }
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
            } else if self.remote.is_gone() {
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

    /// The connection that calls came by, for calls back.
    pub(crate) fn local_peer(self: &Rc<Self>, handle: Handle) -> LocalClient {
        LocalClient::peer(self, self.connection_of_peer(handle))
    }

    fn connection_of_peer(&self, handle: Handle) -> Rc<ClientConnection> {
        if let Some(connection) = self.peers.borrow().get(&handle) {
            return Rc::clone(connection);
        }
        if let Some(client) = self.client(handle) {
            return client;
        }
        let connection = Rc::new(ClientConnection::accepted(handle));
        // Calls on one that is over fail by themselves.
        if self.is_there(handle) {
            self.peers.borrow_mut().insert(handle, Rc::clone(&connection));
        }
        connection
    }

    /// Whether the connection's end has not been told yet.
    fn is_there(&self, handle: Handle) -> bool {
        let endpoint = self.endpoint.borrow();
        endpoint.connection(handle).is_some_and(|connection| !connection.has_ended())
    }

    /// A connection is over.
    fn forget(&self, handle: Handle, reason: CloseReason) {
        let services = self.routers.borrow_mut().withdraw(handle);
        let peer = self.peers.borrow_mut().remove(&handle);
        let client = self.clients.borrow_mut().remove(&handle);
        // What ends with it is somebody's code, and so is who is told.
        let told = catch_unwind(AssertUnwindSafe(|| {
            drop(services);
            if client.is_none() {
                self.remote.connections.fetch_sub(1, Ordering::Relaxed);
            }
            if let Some(peer) = peer {
                peer.left(reason);
            }
            if let Some(client) = client
                && client.closed(handle, reason)
            {
                self.redial(&client);
            }
            self.remote.end_peer(handle, reason);
        }));
        if told.is_err() {
            self.executor.panicked();
        }
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
        let before = std::mem::replace(&mut self.routers.borrow_mut().shared, Rc::new(router));
        drop(before);
    }

    pub(crate) fn router(&self) -> Rc<Router> {
        Rc::clone(&self.routers.borrow().shared)
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

    /// Goes on listening on a socket that does already.
    pub(crate) fn listen_on(&self, socket: Socket) -> Result<Address, TransportError> {
        let mut endpoint = self.endpoint.borrow_mut();
        let listener = endpoint.transport_mut().listen_on(socket)?;
        let local = endpoint.transport().local_address(listener);
        self.listeners.borrow_mut().push(listener);
        drop(endpoint);
        self.left_work();
        local.ok_or(TransportError::BadAddress)
    }

    /// Another descriptor of the first listener's socket, for a successor.
    fn share_listener(&self) -> Result<Socket, TransportError> {
        let listener = self.listeners.borrow().first().copied();
        let listener = listener.ok_or(TransportError::BadAddress)?;
        self.endpoint.borrow_mut().transport_mut().share(listener)
    }

    fn accepted(&self, _: Listener, socket: Socket) {
        if self.remote.is_gone() {
            return;
        }
        let siblings = self.siblings.borrow();
        let load = |shard: &Arc<Remote>| shard.connections.load(Ordering::Relaxed);
        let total: usize = siblings.iter().map(load).sum();
        if total >= self.connections_max {
            // Dropping the socket closes it.
            self.remote.register.turned_away.add();
            if self.remote.register.turned_away.get().is_power_of_two() {
                log::warn!(
                    "turned a connection away: {total} are open, `connections_max` is {}",
                    self.connections_max
                );
            }
            return;
        }
        // The siblings may have come to their end already.
        let fewest = match self.is_draining() {
            true => Some(&self.remote),
            false => siblings.iter().min_by_key(|shard| load(shard)),
        };
        let Some(fewest) = fewest else { return };
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
        let mut endpoint = self.endpoint.borrow_mut();
        let handle = match endpoint.adopt(now, socket, &self.server_config) {
            Ok(handle) => handle,
            Err(error) => {
                self.remote.connections.fetch_sub(1, Ordering::Relaxed);
                return log::warn!("an accepted connection could not be used: {error}");
            }
        };
        if let Some(at) = self.server_config.drain_at(now, &mut *self.rng.borrow_mut())
            && let Some(connection) = endpoint.connection_mut(handle)
        {
            connection.drain_at(at);
        }
        drop(endpoint);
        self.drain_counts();
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
        let RemoteCall { to, outgoing, deadline, waits, payload, end } = call;
        let client = match to {
            Destination::Client(number) => self.remote_client(number),
            Destination::Peer(handle) => Some(self.local_peer(handle)),
        };
        let Some(client) = client else { return end.shut_down() };
        if end.is_abandoned() {
            return;
        }
        // The time of this turn may be a little older than the call, which would seem to have more left.
        let deadline = deadline.min(self.now() + outgoing.timeout);
        let handle = client.connection().handle();
        let index = self.remote_calls.borrow_mut().add(end, to, deadline);
        let ticket = Ticket::Remote(index);
        let called = match waits {
            true => self.call(handle, &outgoing, deadline, &payload, ticket),
            false => self.call_at_once(handle, &outgoing, deadline, &payload, ticket),
        };
        match called {
            Ok(id) => {
                let mut calls = self.remote_calls.borrow_mut();
                calls.sent(index, handle, id);
                calls.keep(index, outgoing, payload);
            }
            Err(Refused { ticket, failure }) if !waits => {
                self.complete(ticket, Outcome::Failed(failure));
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
        let Destination::Client(number) = entry.to else { return false };
        let Some(client) = self.remote_client(number) else { return false };
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
        self.outbox.encode_call(call, payload)
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
                if index.is_some_and(|index| shard.remote_calls.borrow().is_abandoned(index)) {
                    let failure = Failure::not_sent(Cause::Cancelled);
                    return shard.complete(ticket, Outcome::Failed(failure));
                }
                match shard.call(handle, &outgoing, deadline, &payload, ticket) {
                    Ok(id) => {
                        if let Some(index) = index {
                            let mut calls = shard.remote_calls.borrow_mut();
                            calls.sent(index, handle, id);
                            calls.keep(index, outgoing, payload);
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
                Notice::Open(opening) => self.open_remote(*opening),
                Notice::Connect(address, services, slot) => {
                    self.connect_remote(address, services, slot);
                }
                Notice::WakeUp(client) => {
                    if let Some(client) = self.remote_client(client) {
                        self.wake_up(client.connection());
                    }
                }
                Notice::Watch(handle) => {
                    if !self.is_there(handle) {
                        self.remote.end_peer(handle, CloseReason::Local);
                    }
                }
                Notice::Release(client) => {
                    let mut clients = self.remote_clients.borrow_mut();
                    let released = clients.get_mut(client as usize).and_then(Option::take);
                    drop(clients);
                    drop(released);
                }
                Notice::Adopt(socket) => self.adopt(socket),
                Notice::Reply { handle, request, header, payload } => {
                    self.ended_running(handle, request);
                    match header.status {
                        Status::EXPIRED => self.refuse_expired(handle, request),
                        _ => self.answer_with(handle, request, header, &payload),
                    }
                }
                Notice::Timer(after, waker) => {
                    let sleep = SleepUntil::new(self, self.now() + after);
                    self.spawn(async move {
                        sleep.await;
                        waker.wake();
                    });
                }
                Notice::Goodbye(how, begun) => {
                    self.say_goodbye(how);
                    // Nobody waits for it any more if that took too long.
                    let _ = begun.map(|begun| begun.send(()));
                }
                Notice::HandOver(to) => {
                    let _ = to.send(self.share_listener());
                }
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
        let RemoteOpening { to, outgoing, payload, bridge } = opening;
        let client = match to {
            Destination::Client(number) => self.remote_client(number),
            Destination::Peer(handle) => Some(self.local_peer(handle)),
        };
        match client {
            Some(client) => self.spawn(bridge.carry(client, outgoing, payload)),
            None => bridge.shut_down(),
        }
    }

    fn connect_remote(
        self: &Rc<Self>,
        address: Address,
        services: Services,
        slot: Arc<ConnectSlot>,
    ) {
        let services = match self.mount(services) {
            Ok(services) => services.map(Rc::new),
            Err(error) => {
                let cause = Cause::Closed(CloseReason::Transport(error));
                return slot.complete(Err(Failure::not_sent(cause)));
            }
        };
        let shard = Rc::clone(self);
        let client = LocalClient::new(self, address, services);
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

    fn mount(self: &Rc<Self>, services: Services) -> Result<Option<Router>, TransportError> {
        if services.is_empty() {
            return Ok(None);
        }
        let mut mount = Mount::apart(self);
        services.add_to(&mut mount).map_err(|error| {
            log::error!("{error}");
            TransportError::Unsupported
        })?;
        Ok(Some(mount.finish()))
    }

    // ---- tasks, stopping ----

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.executor.spawn(Box::pin(Spawned { future }));
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
}

/// A different number for each process and time.
pub(crate) fn instance_id() -> ringcall_core::frame::InstanceId {
    let mut rng = seeded();
    let mut id = [0; 16];
    id[..8].copy_from_slice(&rng.next_u64().to_le_bytes());
    id[8..].copy_from_slice(&rng.next_u64().to_le_bytes());
    ringcall_core::frame::InstanceId(id)
}

/// The standard library's only source of random numbers.
fn seeded() -> SplitMix64 {
    use std::hash::{BuildHasher, RandomState};
    SplitMix64::new(RandomState::new().hash_one(std::process::id()))
}
