//! What a shard is made of, and what it does with events.

mod access;
mod clients;
mod remote;

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use ringcall_codec_rkyv::FALLBACK_CODECS;
use ringcall_core::frame::{CancelReason, Hello, ReplyHeader, request_flags};
use ringcall_core::{
    Address, Call, CallId, Cancellation, Cause, Clock, CloseReason, Codec, Config, Empty, Endpoint,
    EndpointEvent, Entropy, Event, Failure, Handle, Instant, Listener, Memory, Outcome, Outgoing,
    Payload, Refused, Request, RequestId, SplitMix64, Status, Transport, TransportError,
};

use ringcall_net::Handover as _;

use remote::RemoteCalls;

use super::drain::Drain;
use super::engine::{Engine, Socket};
use super::executor::{Executor, Spawned};
use super::layer::{Layer, Layers};
use super::mail::{Notice, Remote};
use super::streams::{OpenStream, Streams};
use super::timers::Timers;
use super::waiters::Waiters;
use crate::client::{ClientConnection, LocalClient, Outbox, failure_of};
use crate::offload::Pool;
use crate::serve::access::{Authority, Gate};
use crate::serve::{Incoming, Method, MethodRows, PAGE, PAGE_NAME, Router, Running};

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

pub(crate) type ShardEndpoint = Endpoint<Engine, Layer, Ticket>;

/// Frames are sent once a turn, or when so many events have been handled: at hundreds of calls in
/// flight both sides then work at the same time.
const EVENTS_A_FLUSH: u32 = 256;
/// How many tasks are polled before events are looked at again.
const TASKS_A_ROUND: usize = 256;
/// How many rounds of events and tasks a turn has at most.
const ROUNDS_A_TURN: usize = 8;

/// The flags of a call with streams.
const STREAM_FLAGS: u8 = request_flags::ITEMS_IN | request_flags::ITEMS_OUT;

pub(crate) struct Inner {
    pub(crate) remote: Arc<Remote>,
    pub(crate) endpoint: RefCell<ShardEndpoint>,
    pub(crate) executor: Executor,
    pub(crate) timers: Timers,
    pub(crate) waiters: Waiters,
    pub(crate) streams: Streams,
    pub(crate) pool: Arc<Pool>,
    client_config: RefCell<Rc<Config>>,
    clock: Box<dyn Clock>,
    now: Cell<Instant>,
    was_busy: Cell<bool>,
    /// Another loop waits for it.
    pub(crate) is_hosted: Cell<bool>,
    pub(super) listeners: RefCell<Vec<Listener>>,
    server_config: RefCell<Rc<Config>>,
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
    layers: Layers,
    gate: RefCell<Gate>,
    /// Whether the gate wants to hear of connections, and perhaps of calls.
    is_guarded: bool,
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
    /// What the methods of a connection are to the other side.
    fn rows(&self, handle: Handle) -> Rc<MethodRows> {
        let own = self.own.get(handle.index as usize).and_then(Option::as_ref);
        let own = own.filter(|(of, _)| *of == handle).map(|(_, router)| router);
        Rc::clone(own.unwrap_or(&self.shared).rows())
    }

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

/// Settings that a shard's parts share.
pub(crate) struct InnerConfig {
    pub(crate) server: Config,
    pub(crate) client: Config,
    pub(crate) connections_max: usize,
    pub(crate) layers: Layers,
    pub(crate) authority: Authority,
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
        let gate = Gate::new(config.authority);
        Inner {
            endpoint: RefCell::new(Endpoint::new(engine, memory, now)),
            executor: Executor::new(&remote),
            timers: Timers::new(now),
            waiters: Waiters::new(),
            streams: Streams::default(),
            pool,
            client_config: RefCell::new(Rc::new(spoken(config.client))),
            clock,
            now: Cell::new(now),
            was_busy: Cell::new(false),
            is_hosted: Cell::new(false),
            listeners: RefCell::default(),
            server_config: RefCell::new(Rc::new(spoken(config.server))),
            routers: RefCell::default(),
            running: RefCell::default(),
            clients: RefCell::default(),
            peers: RefCell::default(),
            crowded: RefCell::default(),
            remote_clients: RefCell::default(),
            remote_calls: RefCell::default(),
            siblings: RefCell::new(vec![Arc::clone(&remote)]),
            connections_max: config.connections_max,
            layers: config.layers,
            is_guarded: !gate.is_open(),
            gate: RefCell::new(gate),
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
                if let Outcome::Reply(reply) = &outcome
                    && reply.header.codec.has_names()
                {
                    self.count_fallback(handle, 0, 1);
                }
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
                    self.meet(handle, &client);
                    client.established(handle);
                } else if self.is_guarded {
                    self.admit(handle);
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
            return self.control(handle, &request);
        };
        if self.is_guarded && !self.may_call(handle, &request, method.full_name()) {
            return;
        }
        let reads = || self.hello(handle).map_or(0, |hello| hello.codecs);
        let admitted = match method.admit(&request, reads) {
            Ok(admitted) => admitted,
            Err(status) => return self.refuse(handle, request.id, status),
        };
        method.start(Incoming::on_shard(self, handle, request, method.name, &admitted));
    }

    /// What the other side has said of itself.
    pub(crate) fn hello(&self, handle: Handle) -> Option<Hello> {
        self.endpoint.borrow().connection(handle)?.peer().copied()
    }

    /// A method that no service has.
    #[cold]
    fn control(&self, handle: Handle, request: &Request) {
        if request.method != PAGE {
            return self.refuse(handle, request.id, Status::UNKNOWN_METHOD);
        }
        if self.is_guarded && !self.may_call(handle, request, PAGE_NAME) {
            return;
        }
        if request.codec != Codec::RAW {
            return self.refuse(handle, request.id, Status::UNKNOWN_CODEC);
        }
        if request.flags & (request_flags::ONE_WAY | STREAM_FLAGS) != 0 {
            return self.refuse(handle, request.id, Status::BAD_REQUEST);
        }
        let rows = self.routers.borrow().rows(handle);
        match rows.page(&request.body) {
            Some(page) => {
                let header = ReplyHeader { codec: Codec::RAW, ..ReplyHeader::new(Status::OK) };
                self.answer_with(handle, request.id, header, &Bytes::from(page));
            }
            None => self.refuse(handle, request.id, Status::BAD_BODY),
        }
    }

    /// Bodies went in a codec with names.
    #[cold]
    pub(crate) fn count_fallback(&self, handle: Handle, encoded: u64, decoded: u64) {
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.count_fallback(encoded, decoded);
        }
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
            compression: outgoing.compression,
            priority: outgoing.priority,
            attempt: outgoing.attempt,
            flags: outgoing.flags,
        };
        let called = self.endpoint.borrow_mut().call(self.now(), handle, &call, payload, ticket);
        if call.codec.has_names() {
            self.count_fallback(handle, 1, 0);
        }
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

    // ---- serving ----

    pub(crate) fn set_router(&self, router: Router) {
        let rows = Rc::clone(router.rows());
        for config in [&self.server_config, &self.client_config] {
            config.replace_with(|config| offering(config, &rows));
        }
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
        let Ok(layer) = self.layers.accept() else {
            self.remote.connections.fetch_sub(1, Ordering::Relaxed);
            return;
        };
        let mut endpoint = self.endpoint.borrow_mut();
        let config = Rc::clone(&self.server_config.borrow());
        let handle = match endpoint.adopt(now, socket, &config, layer) {
            Ok(handle) => handle,
            Err(error) => {
                self.remote.connections.fetch_sub(1, Ordering::Relaxed);
                return log::warn!("an accepted connection could not be used: {error}");
            }
        };
        if let Some(at) = config.drain_at(now, &mut *self.rng.borrow_mut())
            && let Some(connection) = endpoint.connection_mut(handle)
        {
            connection.drain_at(at);
        }
        drop(endpoint);
        self.drain_counts();
    }

    // ---- tasks, stopping ----

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.executor.spawn(Box::pin(Spawned { future }));
    }

    /// Nobody will turn the shard any more: connections are closed, so that calls end, here and on the
    /// other side; tasks are dropped. Does nothing the second time.
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
        self.end_remote_calls();
        self.endpoint.borrow_mut().flush(now);
        // An engine may have kept the last words until it is asked again.
        self.endpoint.borrow_mut().reap(now);
        self.deliver();
    }
}

/// The codecs with names, and the table of methods, are there for every connection.
fn spoken(config: Config) -> Config {
    config.codecs(FALLBACK_CODECS).control_methods()
}

/// The same for a connection by which these methods are called.
fn offering(config: &Config, rows: &MethodRows) -> Rc<Config> {
    Rc::new(config.clone().codecs(rows.codecs()).table_digest(rows.digest()))
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
