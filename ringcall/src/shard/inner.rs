//! What a shard is made of, and what it does with events.

mod access;
mod admission;
mod answers;
mod clients;
mod control;
mod keeping;
mod listening;
mod origins;
mod records;
mod remote;
mod watch;

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashMap;
use std::ops::RangeInclusive;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;
use std::time::Duration;

use ringcall_core::frame::CancelReason;
use ringcall_core::{
    Call, CallId, Cancellation, Cause, Clock, CloseReason, Config, EncodeError, Encoded, Encoding,
    Endpoint, Entropy, Event, Failure, Handle, Identity, Instant, Item, Listener, Memory, Outcome,
    Outgoing, Payload, Polled, Refused, Request, RequestId, Reservation, Side, SplitMix64, Status,
    Transport,
};
use slab::Slab;

use admission::Admission;
use control::spoken;
use keeping::Keeping;
use origins::Origins;
use records::Records;
use remote::RemoteCalls;
use watch::{Change, Watch};

use super::drain::Drain;
use super::engine::Engine;
use super::executor::{Executor, Spawned};
use super::hosted::Resting;
use super::layer::{Layer, Layers};
use super::mail::Remote;
use super::rousing::Rousing;
use super::stalls::Stalls;
use super::streams::{OpenStream, Streams};
use super::timers::Timers;
use super::waiters::{Sleeper, Waiters};
use crate::client::{ClientConnection, LocalClient, Outbox, failure_of};
use crate::observe::{Lines, Observers};
use crate::offload::Pool;
use crate::packing::{CompressionConfig, Inflated, wish};
use crate::record::ConnectionRecorder;
use crate::serve::access::{Authority, Gate};
use crate::serve::group::ServedGroup;
use crate::serve::{
    Incoming, KeptReplies, Method, MethodRows, ReplyMetadata, Router, Running, ServiceTable,
};

/// What comes back with the end of a call. Each is a word, so that it goes from hand to hand in registers.
pub(crate) enum Ticket {
    /// A future on this shard.
    Waiter(usize),
    /// A callback on this shard, by its place in `callbacks`.
    Callback(usize),
    /// A caller on another thread, by its place in `remote_calls`.
    Remote(usize),
    /// The caller of a call with streams.
    Stream(Rc<OpenStream>),
    /// Nobody waits for it.
    Nobody,
}

type Callback = Box<dyn FnOnce(Outcome)>;

pub(crate) type ShardEndpoint = Endpoint<Engine, Layer, Ticket>;

/// Frames are sent once a turn, or when so many events have been handled: half of the calls in flight, within
/// these bounds. Then the other side works on one half while this one works on the other; if all went at once, the
/// two would take turns. Fewer frames than the lower bound do not pay for a send of their own.
const EVENTS_A_FLUSH: RangeInclusive<u32> = 32..=256;
/// After so many events it looks whether there is much to send.
const EVENTS_A_LOOK: u32 = 4;
/// A call that is translated or inflated for longer has its connection wait for others. An honest call takes a tenth of it.
const LONG: Duration = Duration::from_micros(250);
/// What a call that runs is found by, its places in tables and in the executor, and its waker; and what its handler has
/// on the heap, which nobody knows.
const RUNNING_BYTES: usize = 384 + 4096;
/// How many tasks are polled before events are looked at again.
const TASKS_A_ROUND: usize = 256;
/// How many rounds of events and tasks a turn has at most.
const ROUNDS_A_TURN: usize = 8;

pub(crate) struct Inner {
    pub(crate) remote: Arc<Remote>,
    pub(crate) endpoint: RefCell<ShardEndpoint>,
    memory: Memory,
    /// How often the log says that connections were closed for it.
    short_lines: Lines,
    pub(crate) executor: Executor,
    pub(crate) timers: Timers,
    pub(crate) waiters: Waiters,
    /// Callers on other threads whose answers are there.
    rousing: Rousing,
    pub(crate) streams: Streams,
    /// Streams of which items were taken in this turn.
    pub(super) taken_of: RefCell<Vec<Rc<OpenStream>>>,
    pub(crate) pool: Arc<Pool>,
    client_config: RefCell<Rc<Config>>,
    clock: Box<dyn Clock>,
    now: Cell<Instant>,
    was_busy: Cell<bool>,
    /// How many events were delivered since somebody asked.
    delivered: Cell<u32>,
    /// A call took long: what was answered before leaves, and who has called meanwhile is served first.
    ends_turn: Cell<bool>,
    pub(crate) stalls: Stalls,
    /// Another loop waits for it.
    pub(crate) is_hosted: Cell<bool>,
    /// Who waits for it to be turned, if it is hosted.
    pub(crate) resting: Resting,
    pub(super) listeners: RefCell<Vec<Listener>>,
    server_config: RefCell<Rc<Config>>,
    routers: RefCell<Routers>,
    /// What goes beside answers.
    pub(crate) reply_metadata: ReplyMetadata,
    /// Calls of others that are not answered yet and were not answered at once.
    pub(super) running: RefCell<HashMap<(Handle, RequestId), (Running, Reservation)>>,
    /// Connections that this shard opened, also those that their clients have left.
    clients: RefCell<HashMap<Handle, Rc<ClientConnection>>>,
    /// Those of the others by which somebody calls back.
    peers: RefCell<HashMap<Handle, Rc<ClientConnection>>>,
    /// Those of them on which callers wait for room.
    crowded: RefCell<Vec<Rc<ClientConnection>>>,
    /// Connections that clients on other threads use, by number.
    remote_clients: RefCell<Vec<Option<LocalClient>>>,
    /// Of calls of this shard that end in one.
    callbacks: RefCell<Slab<Callback>>,
    remote_calls: RefCell<RemoteCalls>,
    /// Shards that accepted connections are spread over, this one among them.
    siblings: RefCell<Vec<Arc<Remote>>>,
    connections_max: usize,
    layers: Layers,
    gate: RefCell<Gate>,
    /// For whoever moves this shard to another group.
    served_group: ServedGroup,
    origins: Rc<Origins>,
    /// Whether the gate wants to hear of connections, and perhaps of calls.
    is_guarded: Cell<bool>,
    /// Whether it is asked who calls. Those that this shard connects to are not: they are offered what was meant for
    /// them, and nothing else.
    asks_callers: bool,
    /// Whether a hook or a filter has ever said who somebody is: otherwise nobody looks.
    knows_principals: Cell<bool>,
    /// Which instance its server says it is.
    identity: Option<Identity>,
    /// Whether, and how far, it ends its service.
    pub(super) drain: RefCell<Option<Drain>>,
    /// For jitter.
    rng: RefCell<SplitMix64>,
    /// Clients that connect again, when their time has come.
    redials: RefCell<Vec<(Instant, Rc<ClientConnection>)>>,
    /// Those whose names are being looked up.
    lookups: RefCell<Slab<Rc<ClientConnection>>>,
    /// The first of these times; far if there is none.
    redial_at: Cell<Instant>,
    /// For bodies that must wait.
    outbox: Outbox,
    compression: CompressionConfig,
    inflated: Inflated,
    /// What decides which calls begin, once there are limits.
    admission: OnceCell<Box<Admission>>,
    /// Of answers, if some are kept.
    keeping: Option<Box<Keeping>>,
    /// For observers, if there are any.
    watch: Option<Box<Watch>>,
    /// Of connections, if they are recorded.
    records: Option<Box<Records>>,
    /// Nobody but callers and handlers has to do with calls: neither observers nor a gate, no limits, no kept answers,
    /// and answers are not compressed. One look in place of one for each.
    calls_are_plain: Cell<bool>,
}

/// Until when a call is to be answered, and what time it is.
#[derive(Clone, Copy)]
pub(crate) struct Due {
    pub(crate) now: Instant,
    pub(crate) at: Instant,
}

/// Which of the events there were have been handled.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Delivered {
    /// There was none.
    Nothing,
    /// The turn is to end here, although some may be left.
    Some,
    All,
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
    fn of(&self, handle: Handle) -> &Router {
        match self.own.get(handle.index as usize) {
            Some(Some((of, router))) if *of == handle => router,
            _ => &self.shared,
        }
    }

    /// What the methods of a connection are to the other side.
    fn rows(&self, handle: Handle) -> Rc<MethodRows> {
        Rc::clone(self.of(handle).rows())
    }

    fn services(&self, handle: Handle) -> Arc<[&'static ServiceTable]> {
        Arc::clone(self.of(handle).services())
    }

    #[inline]
    fn find(&self, handle: Handle, method: u64) -> Option<Rc<Method>> {
        self.of(handle).find(method)
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
    pub(crate) observers: Observers,
    pub(crate) stall_threshold: Option<Duration>,
    pub(crate) compression: CompressionConfig,
    /// How much requests may become that arrived compressed.
    pub(crate) inflated_bytes_max: usize,
    pub(crate) kept: Option<Arc<KeptReplies>>,
    pub(crate) layers: Layers,
    pub(crate) authority: Authority,
    pub(crate) identity: Option<Identity>,
    pub(crate) recorder: Option<ConnectionRecorder>,
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
        let served_group =
            ServedGroup::new(vec![Arc::clone(&remote)], config.authority.group.clone());
        let gate = Gate::new(config.authority);
        let origins = Rc::<Origins>::default();
        let watch = Watch::new(&config.observers, &origins);
        Inner {
            endpoint: RefCell::new(Endpoint::new(engine, memory.clone(), now)),
            memory,
            short_lines: Lines::default(),
            executor: Executor::new(&remote),
            timers: Timers::new(now),
            waiters: Waiters::new(),
            rousing: Rousing::default(),
            streams: Streams::default(),
            taken_of: RefCell::default(),
            pool,
            client_config: RefCell::new(Rc::new(spoken(config.client))),
            clock,
            now: Cell::new(now),
            was_busy: Cell::new(false),
            delivered: Cell::new(0),
            ends_turn: Cell::new(false),
            stalls: Stalls::new(config.stall_threshold),
            is_hosted: Cell::new(false),
            resting: Resting::default(),
            listeners: RefCell::default(),
            server_config: RefCell::new(Rc::new(spoken(config.server))),
            routers: RefCell::default(),
            reply_metadata: ReplyMetadata::default(),
            running: RefCell::default(),
            clients: RefCell::default(),
            peers: RefCell::default(),
            crowded: RefCell::default(),
            remote_clients: RefCell::default(),
            callbacks: RefCell::default(),
            remote_calls: RefCell::default(),
            siblings: RefCell::new(vec![Arc::clone(&remote)]),
            connections_max: config.connections_max,
            layers: config.layers,
            is_guarded: Cell::new(!gate.is_open()),
            asks_callers: gate.asks_callers(),
            knows_principals: Cell::new(false),
            identity: config.identity,
            calls_are_plain: Cell::new(
                watch.is_none()
                    && gate.is_open()
                    && config.kept.is_none()
                    && config.compression.replies.is_none(),
            ),
            gate: RefCell::new(gate),
            served_group,
            origins,
            drain: RefCell::default(),
            rng: RefCell::new(seeded()),
            redials: RefCell::default(),
            lookups: RefCell::default(),
            redial_at: Cell::new(Instant::FAR),
            outbox: Outbox::default(),
            compression: config.compression,
            inflated: Inflated::new(config.inflated_bytes_max),
            records: Records::new(config.recorder),
            admission: OnceCell::new(),
            keeping: Keeping::new(config.kept),
            watch,
            remote,
        }
    }

    /// The time of this turn; between turns, when nothing else reads the clock, the time.
    #[inline]
    pub(crate) fn now(&self) -> Instant {
        if self.executor.is_entered() { self.now.get() } else { self.read_clock() }
    }

    /// When the last turn began.
    pub(crate) fn turn_began(&self) -> Instant {
        self.now.get()
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
        if !self.executor.is_entered() && !self.resting.end() {
            self.remote.ring_oneself();
        }
    }

    // ---- a turn ----

    /// Everything of a turn but waiting. Says whether something is left to do.
    pub(crate) fn work(self: &Rc<Self>) -> bool {
        let now = self.read_clock();
        self.turn_is_over(now);
        let mut any = self.remote.has_mail();
        self.take_notices();
        self.take_calls();
        any |= self.endpoint.borrow_mut().reap(now);
        any |= self.timers.expire(now);
        any |= self.redial_due(now);
        for _ in 0..ROUNDS_A_TURN {
            let delivered = self.deliver();
            let tasks = self.run_tasks();
            if delivered == Delivered::Nothing && !tasks {
                break;
            }
            any = true;
            // To look for more in vain would cost those whose calls and answers are ready.
            let is_more = self.executor.has_ready() || self.endpoint.borrow().has_events();
            if delivered == Delivered::Some || !is_more {
                break;
            }
        }
        if self.admission.get().is_some() {
            any |= self.begin_waiting(now);
        }
        if self.keeping.is_some() {
            self.cancel_overdue(now);
        }
        self.was_busy.set(any);
        if any {
            self.stalls.turned(now);
        }
        self.flush(now);
        self.admit_crowds();
        if self.is_draining() {
            self.go_on_draining();
            self.flush(now);
        }
        if self.watch.is_some() {
            self.watch_counters(any);
        }
        if any && self.admission.get().is_some() {
            self.worked(now);
        }
        self.has_work()
    }

    /// The turn before, if there was one.
    #[inline]
    pub(crate) fn turn_is_over(&self, now: Instant) {
        if self.stalls.is_over(now) {
            self.remote.register.stalls.add();
        }
    }

    fn flush(&self, now: Instant) {
        self.give_back_taken();
        self.endpoint.borrow_mut().flush(now);
        if self.rousing.has_any() {
            self.rousing.rouse(&self.remote, now);
        }
    }

    /// Whether the last turn had anything to do.
    pub(crate) fn was_busy(&self) -> bool {
        self.was_busy.get()
    }

    /// How many calls, answers and other events were delivered since this was asked.
    pub(crate) fn take_delivered(&self) -> u32 {
        self.delivered.take()
    }

    /// Whether callers on other threads were woken since this was asked.
    pub(crate) fn take_roused(&self) -> bool {
        self.rousing.take_roused()
    }

    /// Whether there is something to do without anything new happening.
    pub(crate) fn has_work(&self) -> bool {
        self.endpoint.borrow().has_work()
            || self.executor.has_ready()
            || self.remote.has_mail()
            // By the future that drives the shard.
            || !self.taken_of.borrow().is_empty()
            || self.rousing.has_added()
            || self.admission.get().is_some_and(|admission| admission.has_work())
    }

    /// When there will be something to do if nothing happens before.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let endpoint = self.endpoint.borrow().next_timeout();
        let drain = self.drain.borrow().as_ref().map(Drain::next_timeout);
        let drain = drain.filter(|at| *at != Instant::FAR);
        let redial = Some(self.redial_at.get()).filter(|at| *at != Instant::FAR);
        let (counters, rousing) = (self.counters_due(), self.rousing.due());
        [endpoint, self.timers.next(), drain, redial, counters, rousing].into_iter().flatten().min()
    }

    /// Whether somebody may be waiting outside of a turn for something later than this.
    pub(crate) fn is_waited_longer(&self, at: Instant) -> bool {
        !self.executor.is_entered() && self.next_timeout().is_none_or(|next| at < next)
    }

    fn deliver(self: &Rc<Self>) -> Delivered {
        let now = self.now();
        let events_a_flush = self.events_a_flush();
        let mut since_flush = 0;
        let mut delivered = Delivered::Nothing;
        loop {
            // Borrowed for the question only: what follows may make calls itself.
            let mut event = None;
            let polled = self.endpoint.borrow_mut().poll_into(now, &mut event);
            match polled {
                None => return delivered,
                Some(Polled::Accepted(listener, socket)) => self.accepted(listener, socket),
                Some(Polled::Connection(handle)) => {
                    since_flush += self.take_event(handle, &mut event);
                }
            }
            delivered = Delivered::All;
            self.delivered.set(self.delivered.get().wrapping_add(1));
            since_flush += 1;
            let is_much = since_flush % EVENTS_A_LOOK == 0 && self.endpoint.borrow().has_much();
            if since_flush >= events_a_flush || is_much {
                since_flush = 0;
                let has_run = self.run_tasks();
                self.flush(now);
                if self.ends_turn.take() {
                    return Delivered::Some;
                }
                if !has_run && self.waiters.waiting() > 0 {
                    // Those who wait are no tasks of the shard: they go on between turns.
                    return Delivered::Some;
                }
            }
        }
    }

    /// All events, whoever would like to go on meanwhile.
    fn deliver_all(self: &Rc<Self>) {
        while self.deliver() == Delivered::Some {}
    }

    /// Polls tasks that want it, unless memory is full by what they do. Says whether there was any.
    fn run_tasks(&self) -> bool {
        self.executor.run(TASKS_A_ROUND, || !self.memory.is_full())
    }

    /// After how many events what they led to is sent.
    fn events_a_flush(&self) -> u32 {
        let half = self.waiters.waiting() / 2;
        match half {
            // Who makes no calls answers them: then the other side decides how many come at a time.
            0 => *EVENTS_A_FLUSH.end(),
            half => half.clamp(*EVENTS_A_FLUSH.start(), *EVENTS_A_FLUSH.end()),
        }
    }

    /// Returns how many more events have been taken with it.
    #[inline]
    fn take_event(self: &Rc<Self>, handle: Handle, event: &mut Option<Event<Ticket>>) -> u32 {
        // Ordinary ones are looked at where they lie.
        match event {
            Some(Event::Request(request)) => {
                if request.compression != 0 || request.codec.has_names() {
                    return self.dispatch_timed(handle, request);
                }
                if self.dispatch(handle, request) {
                    // Nothing is left of it to drop.
                    std::mem::forget(event.take());
                }
                return 0;
            }
            Some(Event::Completed(Ticket::Waiter(index), Outcome::Reply(reply)))
                if !reply.header.codec.has_names() =>
            {
                self.wake(self.waiters.answer(*index as u32, reply));
                // Nothing is left of it to drop.
                std::mem::forget(event.take());
                return 0;
            }
            _ => {}
        }
        match event.take() {
            Some(Event::Completed(ticket, outcome)) => self.completed(handle, ticket, outcome),
            Some(Event::Item(id, item)) => return self.item_arrived(handle, id, item),
            Some(event) => self.take_other(handle, event),
            None => {}
        }
        0
    }

    /// A request whose body is not what a handler takes: to make that of it may take long.
    #[cold]
    fn dispatch_timed(self: &Rc<Self>, handle: Handle, request: &mut Request) -> u32 {
        let began = self.clock.now();
        self.dispatch(handle, request);
        if self.clock.now().since(began) < LONG {
            return 0;
        }
        self.endpoint.borrow_mut().took_long(handle);
        self.ends_turn.set(true);
        *EVENTS_A_FLUSH.end()
    }

    #[inline]
    fn completed(self: &Rc<Self>, handle: Handle, ticket: Ticket, outcome: Outcome) {
        if let Outcome::Reply(reply) = &outcome
            && reply.header.codec.has_names()
        {
            self.count_fallback(handle, 0, 1);
        }
        if let Ticket::Remote(index) = ticket
            && let Some(failure) = failure_of(&outcome)
            && self.repeat(index as u32, &failure)
        {
            return;
        }
        self.complete(ticket, outcome);
    }

    fn take_other(self: &Rc<Self>, handle: Handle, event: Event<Ticket>) {
        match event {
            Event::Cancelled(id, why) => self.cancelled(handle, id, why),
            Event::Established(hello) => {
                if let Some(client) = self.client(handle) {
                    self.meet(handle, &client);
                    client.established(handle, hello.compressions);
                    self.tell_client(&client, handle, Change::Established);
                } else {
                    if self.watch.is_some() {
                        self.watch_established(handle);
                    }
                    if self.is_guarded.get() {
                        self.admit(handle);
                    }
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
                if reason == CloseReason::MemoryShort {
                    self.tell_short_of_memory();
                }
                self.watch_closed(handle, reason);
                self.end_record(handle, reason);
                if reason == CloseReason::WrongInstance {
                    self.note_mismatch(handle);
                }
                self.forget(handle, reason);
            }
            event => self.stream_event(handle, event),
        }
    }

    #[cold]
    fn tell_short_of_memory(&self) {
        let Some(closed) = self.short_lines.may_write(self.now()) else { return };
        log::warn!(
            target: "ringcall::memory",
            "closed {closed} connections that held the most memory: together they were at the bound of this shard. \
             Server::memory_max says how much a server may hold, MemoryLimits::total_bytes a shard, Config what a \
             connection may have",
        );
    }

    // ---- calls of others ----

    /// What is served on a connection.
    pub(crate) fn services(&self, handle: Handle) -> Arc<[&'static ServiceTable]> {
        self.routers.borrow().services(handle)
    }

    /// Says whether the call has taken the bytes of the request.
    #[inline(always)]
    fn dispatch(self: &Rc<Self>, handle: Handle, request: &mut Request) -> bool {
        if !self.calls_are_plain.get() {
            self.dispatch_asking(handle, request);
            return false;
        }
        let method = self.routers.borrow().find(handle, request.method);
        let Some(method) = method else {
            self.control(handle, request);
            return false;
        };
        self.begin(handle, request, method, 0)
    }

    /// The same where others have a say in it.
    #[cold]
    fn dispatch_asking(self: &Rc<Self>, handle: Handle, request: &mut Request) {
        if self.watch.is_some() {
            self.watch_request(handle, request);
        }
        let method = self.routers.borrow().find(handle, request.method);
        let Some(method) = method else {
            return self.control(handle, request);
        };
        if self.is_guarded.get() && !self.may_call(handle, request, method.full_name()) {
            return;
        }
        if self.admission.get().is_some() {
            return self.take_on(handle, request, method);
        }
        self.begin(handle, request, method, 0);
    }

    /// Begins a call, which has waited for so long, and takes the bytes of its request; `false` if it was refused.
    #[inline(always)]
    fn begin(
        self: &Rc<Self>,
        handle: Handle,
        request: &mut Request,
        method: Rc<Method>,
        queue_us: u32,
    ) -> bool {
        let reads = || self.hello(handle).map_or(0, |hello| hello.codecs);
        let admitted = match method.admit(request, reads) {
            Ok(admitted) => admitted,
            Err(status) => {
                self.refuse(handle, request.id, status);
                return false;
            }
        };
        if request.compression != 0
            && let Err(status) = self.inflate(handle, request)
        {
            self.refuse(handle, request.id, status);
            return false;
        }
        let mut call = Incoming::on_shard(self, handle, request, method.table, &admitted);
        call.facts.queue_us = queue_us;
        method.start(call);
        true
    }

    /// Makes of a request's body what it was before it was compressed.
    #[cold]
    fn inflate(&self, handle: Handle, request: &mut Request) -> Result<(), Status> {
        let limit = self.message_bytes_max_of(handle);
        request.body = self.inflated.request(request.compression, &request.body, limit)?;
        request.compression = 0;
        self.watch_inflated(handle, request);
        Ok(())
    }

    /// The body of an item of a caller, as it was before it was compressed.
    pub(crate) fn inflate_item(&self, handle: Handle, item: &mut Item) -> Result<(), Status> {
        if item.encoding.compression != 0 {
            let limit = self.message_bytes_max_of(handle);
            let inflated = self.inflated.item(item.encoding.compression, &item.body, limit);
            item.body = inflated.ok_or(Status::BAD_ITEM)?;
            item.encoding.compression = 0;
        }
        Ok(())
    }

    /// How long a body may be: of a connection that was opened here, or one that was accepted.
    pub(crate) fn message_bytes_max(&self, is_opened: bool) -> usize {
        self.remote.message_bytes_max[usize::from(is_opened)]
    }

    /// The same of a certain connection, which may have settings of its own.
    pub(crate) fn message_bytes_max_of(&self, handle: Handle) -> usize {
        if self.is_accepted(handle) {
            return self.message_bytes_max(false);
        }
        let own = self.client(handle).and_then(|client| client.config().map(Rc::clone));
        own.map_or_else(|| self.message_bytes_max(true), |config| config.largest_message())
    }

    fn is_accepted(&self, handle: Handle) -> bool {
        let endpoint = self.endpoint.borrow();
        endpoint.connection(handle).is_some_and(|connection| connection.side() == Side::Server)
    }

    /// How bodies may be compressed that the other side of a connection reads.
    pub(super) fn compressions(&self, handle: Handle) -> u8 {
        let endpoint = self.endpoint.borrow();
        let peer = endpoint.connection(handle).and_then(|connection| connection.peer());
        peer.map_or(0, |hello| hello.compressions)
    }

    /// How items of replies are to be compressed.
    #[inline]
    pub(crate) fn wish_for_replies(&self) -> u8 {
        wish(self.compression.replies)
    }

    /// Encodes an item and compresses it if it is wished for, read and worth it.
    #[cold]
    pub(crate) fn pack_item<P: Payload>(
        &self,
        handle: Handle,
        encoding: Encoding,
        payload: &P,
    ) -> Result<(Encoded, Encoding), EncodeError> {
        let accepted = || self.compressions(handle);
        let (encoded, _, encoding) = self.outbox.encode_packed(encoding, accepted, payload)?;
        Ok((encoded, encoding))
    }

    /// A call that was not answered at once goes on: somebody must be told when nobody waits for it. Beside what it is
    /// found by it takes so many bytes.
    pub(crate) fn keep_running(
        &self,
        handle: Handle,
        request: RequestId,
        deadline: Instant,
        running: Running,
        bytes: usize,
    ) {
        let reserved = self.memory.pool().reserve(RUNNING_BYTES + bytes);
        self.running.borrow_mut().insert((handle, request), (running, reserved));
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.watch_deadline(request, deadline);
        }
    }

    /// Whether somebody was told of it.
    pub(crate) fn is_running(&self, handle: Handle, request: RequestId) -> bool {
        self.running.borrow().contains_key(&(handle, request))
    }

    pub(crate) fn ended_running(&self, handle: Handle, request: RequestId) {
        self.running.borrow_mut().remove(&(handle, request));
    }

    fn cancelled(&self, handle: Handle, request: RequestId, why: Cancellation) {
        if self.keeping.is_some() && self.runs_to_its_end(handle, request, why) {
            return;
        }
        self.cancel_running(handle, request, why);
    }

    fn cancel_running(&self, handle: Handle, request: RequestId, why: Cancellation) {
        let running = self.running.borrow_mut().remove(&(handle, request));
        let running = running.map(|(running, _)| running);
        let status = match why {
            Cancellation::Expired | Cancellation::Caller(CancelReason::Expired) => {
                Status::EXPIRED_RUNNING
            }
            Cancellation::Unreadable => Status::REPLY_FAILED,
            _ => Status::CANCELLED_RUNNING,
        };
        match running {
            Some(Running::Task(index)) => {
                self.executor.remove(index);
                self.refuse(handle, request, status);
            }
            // It runs on another thread, which looks when it likes; its answer gives the slot back.
            Some(Running::Elsewhere(flag)) => flag.cancel(status),
            None if self.is_waiting(handle, request, why) => {}
            None => self.refuse(handle, request, status),
        }
    }

    /// Whether a call that nobody waits for any more has not begun.
    fn is_waiting(&self, handle: Handle, request: RequestId, why: Cancellation) -> bool {
        let admission = self.admission.get();
        admission.is_some_and(|admission| admission.gave_up((handle, request), why))
    }

    // ---- own calls ----

    /// For a call that has so long.
    #[inline]
    pub(crate) fn due_in(&self, timeout: Duration) -> Due {
        let now = self.now();
        Due { now, at: now + timeout }
    }

    /// For a call that has until then.
    pub(crate) fn due_at(&self, at: Instant) -> Due {
        Due { now: self.now(), at }
    }

    /// A call that was made to whoever calls this side: it is refused rather than wait for the other side, see
    /// [`Peer`](crate::Peer#room).
    #[cold]
    pub(crate) fn at_once(&self, handle: Handle, id: CallId) -> Result<CallId, Refused<Ticket>> {
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
    #[inline(always)]
    pub(crate) fn call<P: Payload>(
        &self,
        handle: Handle,
        outgoing: &Outgoing,
        due: Due,
        payload: &P,
        ticket: Ticket,
    ) -> Result<CallId, Refused<Ticket>> {
        let call = Call {
            method: outgoing.method,
            in_signature: outgoing.in_signature,
            out_signature: outgoing.out_signature,
            deadline: due.at,
            codec: outgoing.codec,
            compression: outgoing.compression,
            priority: outgoing.priority,
            attempt: outgoing.attempt,
            flags: outgoing.flags,
        };
        let called = self.endpoint.borrow_mut().call(due.now, handle, &call, payload, ticket);
        self.left_work();
        match called {
            Ok(id) => {
                if call.codec.has_names() {
                    self.count_fallback(handle, 1, 0);
                }
                Ok(id)
            }
            Err(refused) => Err(refused),
        }
    }

    /// Gives up a call that [`call`](Self::call) has made. `None` if it has ended meanwhile.
    pub(crate) fn cancel(&self, handle: Handle, id: CallId) -> Option<Ticket> {
        let now = self.now();
        let ticket = self.endpoint.borrow_mut().cancel(now, handle, id, CancelReason::Dropped);
        self.left_work();
        ticket
    }

    /// With which a call ends in a callback.
    pub(crate) fn ticket_for(&self, callback: impl FnOnce(Outcome) + 'static) -> Ticket {
        Ticket::Callback(self.callbacks.borrow_mut().insert(Box::new(callback)))
    }

    #[inline]
    pub(crate) fn complete(&self, ticket: Ticket, outcome: Outcome) {
        match ticket {
            Ticket::Waiter(index) => self.wake(self.waiters.complete(index as u32, outcome)),
            ticket => self.complete_other(ticket, outcome),
        }
    }

    #[inline(always)]
    fn wake(&self, sleeper: Option<Sleeper>) {
        match sleeper {
            Some(Sleeper::Task(index)) => self.executor.wake(index),
            Some(Sleeper::Waker(waker)) => self.wake_elsewhere(waker),
            None => {}
        }
    }

    #[inline(never)]
    fn wake_elsewhere(&self, waker: Waker) {
        self.guard(|| waker.wake());
    }

    fn complete_other(&self, ticket: Ticket, outcome: Outcome) {
        self.guard(|| match ticket {
            Ticket::Waiter(_) | Ticket::Nobody => {}
            Ticket::Callback(index) => {
                let callback = self.callbacks.borrow_mut().try_remove(index);
                if let Some(callback) = callback {
                    callback(outcome);
                }
            }
            Ticket::Remote(index) => {
                let end = self.remote_calls.borrow_mut().take(index as u32);
                if let Some((crowd, waker)) = end.and_then(|end| end.complete(outcome)) {
                    match self.executor.is_entered() {
                        true => self.rousing.add(&self.remote, crowd, waker),
                        // Nothing is flushed before somebody turns the shard.
                        false => waker.wake(),
                    }
                }
            }
            Ticket::Stream(stream) => stream.complete(outcome),
        });
    }

    /// Callbacks and wakers are somebody's code: with a panic of theirs, all other calls of the shard would be lost.
    fn guard(&self, tell: impl FnOnce()) {
        if catch_unwind(AssertUnwindSafe(tell)).is_err() {
            self.executor.panicked();
            log::error!("the callback of a call panicked; the shard goes on");
        }
    }

    /// A number for a span.
    pub(crate) fn next_span_id(&self) -> u64 {
        self.rng.borrow_mut().next_u64()
    }

    // ---- tasks, stopping ----

    pub(crate) fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        self.executor.spawn(Box::pin(Spawned { future }));
    }

    /// The process of a simulated node ends here and now, see [`Engine::die`].
    #[cfg(feature = "sim")]
    pub(crate) fn die(&self, silently: bool) {
        self.endpoint.borrow_mut().transport_mut().die(silently);
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
        self.deliver_all();
        let redials = std::mem::take(&mut *self.redials.borrow_mut());
        redials.into_iter().for_each(|(_, client)| client.end());
        let lookups = std::mem::take(&mut *self.lookups.borrow_mut());
        lookups.into_iter().for_each(|(_, client)| client.end());
        // Also those that have never connected.
        let remote = std::mem::take(&mut *self.remote_clients.borrow_mut());
        remote.iter().flatten().for_each(|client| client.connection().end());
        drop(remote);
        self.refuse_waiting(Status::DRAINING);
        // Dropping tasks may give up calls, which are over.
        self.executor.clear();
        self.end_remote_calls();
        self.flush(now);
        // An engine may have kept the last words until it is asked again.
        self.endpoint.borrow_mut().reap(now);
        self.deliver_all();
        self.rousing.rouse_all(&self.remote);
        self.tell_counters();
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

fn seeded() -> SplitMix64 {
    SplitMix64::new(random_seed())
}

/// A number that nobody knows beforehand, by the standard library's only source of random numbers; of a simulation by its seed.
pub(crate) fn random_seed() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    #[cfg(feature = "sim")]
    if let Some(random) = crate::sim::random() {
        return random;
    }
    RandomState::new().hash_one(std::process::id())
}
