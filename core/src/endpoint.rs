//! The one loop step: many connections over one transport.
//!
//! reap → open → feed connections → deliver events → collect what to send → seal → submit. It is
//! written once, over [`Transport`], so every engine and the simulator run the same code. A turn is
//!
//! ```text
//! endpoint.reap(now);                                  // from the transport to the connections
//! while let Some(event) = endpoint.poll_event(now) {}  // the application answers, calls, …
//! endpoint.flush(now);                                 // one send a connection
//! ```
//!
//! and between turns somebody waits until [`Endpoint::next_timeout`].

use alloc::collections::VecDeque;
use alloc::rc::Rc;
use alloc::vec::Vec;
use core::fmt;
use core::time::Duration;

use crate::connection::{Call, Connection, Event, Item, ItemError, ReceiveHint, ReplyError};
use crate::frame::{CancelReason, ReplyHeader};
use crate::transport::{
    Address, Batch, ByteLayer, Handle, Listener, Receive, Transport, TransportEvent, Write,
};
use crate::wheel::Wheel;
use crate::{
    CallId, Cause, CloseReason, Config, Counters, Encoding, Failure, Instant, Memory, Payload,
    Refused, RequestId, Side, StreamId, TransportError,
};

/// A connection's share of a turn before the next one has its own.
const FRAMES_A_TURN: u32 = 64;
/// When a connection has so many bytes to send, it is worth while to send them before the turn ends.
const MUCH_BYTES: usize = 64 * 1024;
/// About how many bytes go into one send.
const BATCH_BYTES: usize = 512 * 1024;
/// How long a closed connection is read after its last byte was sent. Closing with unread input would
/// send a reset, which destroys what the other side has not read yet.
const LINGER: Duration = Duration::from_secs(1);
/// Whoever holds less is not closed for it.
const HELD_BYTES_MIN: usize = 16 * 1024;
/// How often it is looked whether there is enough memory again, if nothing else happens: what ends on other
/// threads does not say so.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// How long free blocks lie until half of them are freed, see [`MemoryLimits::kept_bytes`](crate::MemoryLimits).
const RELEASE_EVERY: Duration = Duration::from_secs(10);

/// How soon after another it is looked whether somebody holds landing budget that others wait for.
const LANDING_LOOK_EVERY: Duration = Duration::from_millis(20);

/// All connections of a shard, driven over one transport.
pub struct Endpoint<Tr: Transport, L, T> {
    transport: Tr,
    memory: Memory,
    links: Vec<Option<Link<L, T>>>,
    /// Connections that may have events, in turn.
    readable: Turns,
    /// How many more events the first of them may give.
    share: u32,
    /// Those whose last event [took long](Self::took_long): one of them in a turn, behind all others.
    slow: VecDeque<u32>,
    is_slow_served: bool,
    /// Connections that may have something to send.
    dirty: Vec<u32>,
    /// One of them has much to send, and could.
    has_much: bool,
    /// One timer a connection, by its index.
    timers: Wheel,
    reaped: Vec<TransportEvent<Tr::Socket>>,
    accepted: VecDeque<(Listener, Tr::Socket)>,
    batch: Batch,
    connections: usize,
    /// What connections that are gone have counted.
    past: Counters,
    /// Memory was short in this turn; when to look again.
    short: Option<Instant>,
    /// Connections were closed in this turn, so that so much might be free: further ones are closed only if more
    /// than this is held all the same.
    relieved: Option<usize>,
    /// Not before then is it looked again who holds landing budget that others wait for.
    next_landing_look: Instant,
    /// When free blocks that nobody needed are freed.
    next_release: Instant,
}

/// Connections that take turns, by index. Whose turn it is stands apart from the others, since each event asks for it.
struct Turns {
    /// Nobody's, if it is beyond all.
    first: u32,
    others: VecDeque<u32>,
}

impl Turns {
    const NOBODY: u32 = u32::MAX;

    fn new() -> Turns {
        Turns { first: Turns::NOBODY, others: VecDeque::new() }
    }

    #[inline]
    fn is_empty(&self) -> bool {
        self.first == Turns::NOBODY
    }

    fn len(&self) -> usize {
        usize::from(!self.is_empty()) + self.others.len()
    }

    #[inline]
    fn push_back(&mut self, index: u32) {
        match self.is_empty() {
            true => self.first = index,
            false => self.others.push_back(index),
        }
    }

    /// Whose turn it was leaves.
    #[inline]
    fn pop_front(&mut self) {
        self.first = self.others.pop_front().unwrap_or(Turns::NOBODY);
    }

    /// It is the next one's turn.
    #[inline]
    fn next(&mut self) {
        if let Some(next) = self.others.pop_front() {
            self.others.push_back(core::mem::replace(&mut self.first, next));
        }
    }

    #[cold]
    fn sort_by_key<K: Ord>(&mut self, mut key: impl FnMut(u32) -> K) {
        if self.is_empty() {
            return;
        }
        self.others.push_front(self.first);
        self.others.make_contiguous().sort_by_key(|index| key(*index));
        self.pop_front();
    }
}

struct Link<L, T> {
    handle: Handle,
    connection: Connection<T>,
    layer: L,
    stage: Stage,
    /// Bytes of the connection that are left of the batch that the transport holds.
    sending: Option<usize>,
    is_readable: bool,
    /// What it said last took long.
    is_slow: bool,
    is_dirty: bool,
    /// When its timer fires.
    armed: Instant,
    /// Its layer gave up, and may have said why to the other side, which should read that.
    has_last_word: bool,
    /// When it must be connected.
    connect_by: Instant,
    receiving: Receiving,
}

impl<L, T> Link<L, T> {
    /// Whether it has this handle, of which the index has found it.
    #[inline(always)]
    fn is_of(&self, handle: Handle) -> bool {
        debug_assert_eq!(self.handle.index, handle.index);
        self.handle.generation == handle.generation
    }
}

impl<L: ByteLayer, T> Link<L, T> {
    /// The layer cannot go on: nothing of the connection is sent any more, only what the layer may have to
    /// say itself.
    #[cold]
    fn give_up(&mut self, now: Instant, reason: CloseReason) {
        self.connection.handle_closed(now, reason);
        self.has_last_word = self.sending.is_none() && self.layer.wants_seal();
    }
}

/// How far a link is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Connecting,
    Up,
    /// The last byte is sent; reads until the other side has ended, too.
    Lingering,
    /// The transport has been told to close.
    Closing,
}

/// What the transport was told last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Receiving {
    More,
    Landing,
    Paused,
}

/// Something for the application of an endpoint.
#[derive(Debug)]
pub enum EndpointEvent<T, S> {
    /// A connection was accepted: [`adopt`](Endpoint::adopt) it, here or at another endpoint.
    Accepted(Listener, S),
    /// A connection has something to say.
    Connection(Handle, Event<T>),
}

/// What [`Endpoint::poll_into`] has found.
#[derive(Debug)]
pub enum Polled<S> {
    /// A connection was accepted: [`adopt`](Endpoint::adopt) it, here or at another endpoint.
    Accepted(Listener, S),
    /// This connection has something to say, which is where the caller wanted it.
    Connection(Handle),
}

impl<Tr: Transport, L: ByteLayer, T> Endpoint<Tr, L, T> {
    /// An endpoint without connections.
    #[must_use]
    pub fn new(transport: Tr, memory: Memory, now: Instant) -> Endpoint<Tr, L, T> {
        Endpoint {
            transport,
            memory,
            links: Vec::new(),
            readable: Turns::new(),
            share: FRAMES_A_TURN,
            slow: VecDeque::new(),
            is_slow_served: false,
            dirty: Vec::new(),
            has_much: false,
            timers: Wheel::new(now),
            reaped: Vec::new(),
            accepted: VecDeque::new(),
            batch: Batch::new(BATCH_BYTES),
            connections: 0,
            past: Counters::default(),
            short: None,
            relieved: None,
            next_landing_look: now,
            next_release: now + RELEASE_EVERY,
        }
    }

    // ---- a turn ----

    /// Takes what the transport has, and what time has brought, to the connections. Says whether there
    /// was anything.
    pub fn reap(&mut self, now: Instant) -> bool {
        let mut reaped = core::mem::take(&mut self.reaped);
        self.transport.reap(&mut reaped);
        let any = !reaped.is_empty();
        for event in reaped.drain(..) {
            self.take(now, event);
        }
        self.reaped = reaped;
        self.is_slow_served = false;
        if self.short.is_some() || self.memory.is_short() {
            self.look_at_memory(now);
        }
        if self.next_release <= now {
            self.next_release = now + RELEASE_EVERY;
            self.memory.release_unused();
        }
        self.expire(now) || any
    }

    /// The next event. Connections take turns; each gives a bounded number in one. `None`: nothing
    /// until the next [`reap`](Self::reap).
    #[inline]
    pub fn poll_event(&mut self, now: Instant) -> Option<EndpointEvent<T, Tr::Socket>> {
        let mut event = None;
        match self.poll_into(now, &mut event)? {
            Polled::Accepted(listener, socket) => Some(EndpointEvent::Accepted(listener, socket)),
            Polled::Connection(handle) => Some(EndpointEvent::Connection(handle, event?)),
        }
    }

    /// As [`poll_event`](Self::poll_event), for loops in which each instruction counts: what a connection has to say
    /// is written to `event`, which is `None` before, instead of being passed on from hand to hand.
    #[inline(always)]
    pub fn poll_into(
        &mut self,
        now: Instant,
        event: &mut Option<Event<T>>,
    ) -> Option<Polled<Tr::Socket>> {
        debug_assert!(event.is_none(), "what it holds would never be dropped");
        if let Some((listener, socket)) = self.accepted.pop_front() {
            return Some(Polled::Accepted(listener, socket));
        }
        loop {
            let index = self.readable.first;
            let Some(Some(link)) = self.links.get_mut(index as usize) else {
                if !self.readable.is_empty() {
                    self.readable.pop_front();
                    continue;
                }
                if !self.slow.is_empty() && self.serve_slow() {
                    continue;
                }
                // Between the polls of connections others make answers.
                if self.memory.is_full() && self.relieve(now) {
                    continue;
                }
                return None;
            };
            // There is nothing to drop, which the compiler cannot know.
            let give = |polled| core::mem::forget(core::mem::replace(event, polled));
            link.connection.poll_next(now, give);
            if event.is_some() {
                let handle = link.handle;
                self.share -= 1;
                if self.share == 0 {
                    self.share = FRAMES_A_TURN;
                    // What an end gives back comes before what others want.
                    if !link.connection.is_ending() {
                        self.readable.next();
                        self.next_has_its_turn(now);
                    }
                }
                return Some(Polled::Connection(handle));
            }
            link.is_readable = false;
            self.readable.pop_front();
            self.share = FRAMES_A_TURN;
            self.settle(now, index);
            self.next_has_its_turn(now);
        }
    }

    /// What this connection has just said took long to deal with, say a body that had to be inflated. Until the next
    /// [`reap`](Self::reap) others go first, and with what it says next they do, too: then one such connection has
    /// its turn, so that they wait for one of these events and not for all that there are.
    pub fn took_long(&mut self, handle: Handle) {
        if self.readable.first != handle.index {
            return;
        }
        let Some(link) = self.link_mut(handle).filter(|link| !link.connection.is_ending()) else {
            return;
        };
        link.is_slow = true;
        self.readable.pop_front();
        self.share = FRAMES_A_TURN;
        self.slow.push_back(handle.index);
    }

    /// Nobody else has anything to say: says whether one of the slow ones may. Those that end always may.
    #[cold]
    fn serve_slow(&mut self) -> bool {
        let Some(&index) = self.slow.front() else { return false };
        if let Some(Some(link)) = self.links.get_mut(index as usize) {
            if !link.connection.is_ending() && self.is_slow_served {
                return false;
            }
            link.is_slow = false;
        }
        self.is_slow_served = true;
        self.slow.pop_front();
        self.readable.push_back(index);
        true
    }

    /// Further items of a stream of which [`poll_event`](Self::poll_event) has just given one, see
    /// [`Connection::poll_items`]: within the connection's share of the turn. Returns how many.
    #[inline]
    pub fn poll_items(
        &mut self,
        now: Instant,
        handle: Handle,
        stream: StreamId,
        take: impl FnMut(Item),
    ) -> u32 {
        if self.readable.first != handle.index {
            return 0;
        }
        let max = self.share - 1;
        let Some(link) = self.link_mut(handle) else { return 0 };
        let taken = link.connection.poll_items(now, stream, max, take);
        self.share -= taken;
        taken
    }

    /// Whether a connection has so much to send that it should be [sent](Self::flush) now, although the turn goes on:
    /// the other side has something to do then.
    #[inline]
    #[must_use]
    pub fn has_much(&self) -> bool {
        self.has_much
    }

    /// Sends what the connections have: one batch a connection that is not sending already.
    pub fn flush(&mut self, now: Instant) {
        self.has_much = false;
        while let Some(index) = self.dirty.pop() {
            if let Some(Some(link)) = self.links.get_mut(index as usize) {
                link.is_dirty = false;
                self.transmit(now, index);
            }
        }
    }

    /// Whether [`poll_event`](Self::poll_event) might give something.
    #[inline]
    #[must_use]
    pub fn has_events(&self) -> bool {
        !self.readable.is_empty()
            || !self.slow.is_empty()
            || !self.accepted.is_empty()
            || self.memory.is_full()
    }

    /// Whether something is left to do without anything new happening.
    #[must_use]
    pub fn has_work(&self) -> bool {
        !self.readable.is_empty()
            || !self.slow.is_empty()
            || !self.dirty.is_empty()
            || !self.accepted.is_empty()
            || (self.short.is_some() && !self.memory.is_short())
    }

    /// Whether accepted connections wait to be told.
    #[must_use]
    pub fn has_accepted(&self) -> bool {
        !self.accepted.is_empty()
    }

    /// When the next [`reap`](Self::reap) is due if nothing happens before.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Instant> {
        let release = self.memory.keeps_much().then_some(self.next_release);
        [self.timers.next(), self.short, release].into_iter().flatten().min()
    }

    // ---- connections ----

    /// Begins to connect; [`Event::Established`] or [`Event::Closed`] follows. What the connection
    /// sends and receives goes through `layer`.
    ///
    /// # Errors
    /// When it cannot even be tried.
    pub fn connect(
        &mut self,
        now: Instant,
        address: &Address,
        config: &Rc<Config>,
        layer: L,
    ) -> Result<Handle, TransportError> {
        let handle = self.transport.connect(address)?;
        self.enter(now, handle, Side::Client, Stage::Connecting, config, layer);
        Ok(handle)
    }

    /// Takes over a connection that this or another endpoint has accepted.
    ///
    /// # Errors
    /// When the transport cannot take it.
    pub fn adopt(
        &mut self,
        now: Instant,
        socket: Tr::Socket,
        config: &Rc<Config>,
        layer: L,
    ) -> Result<Handle, TransportError> {
        let handle = self.transport.adopt(socket)?;
        self.enter(now, handle, Side::Server, Stage::Up, config, layer);
        Ok(handle)
    }

    /// The connection with this handle, to look at. To change it, use the methods here, or follow
    /// [`connection_mut`](Self::connection_mut).
    #[must_use]
    pub fn connection(&self, handle: Handle) -> Option<&Connection<T>> {
        self.link(handle).map(|link| &link.connection)
    }

    /// The byte layer of the connection with this handle, to look at.
    #[must_use]
    pub fn layer(&self, handle: Handle) -> Option<&L> {
        self.link(handle).map(|link| &link.layer)
    }

    /// The connection with this handle; what the change gives to say or to send is noticed.
    pub fn connection_mut(&mut self, handle: Handle) -> Option<&mut Connection<T>> {
        self.touch(handle).map(|link| &mut link.connection)
    }

    /// Makes a call, see [`Connection::call`].
    ///
    /// # Errors
    /// As there; also when the connection is gone.
    #[inline]
    pub fn call<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        handle: Handle,
        call: &Call,
        payload: &P,
        ticket: T,
    ) -> Result<CallId, Refused<T>> {
        match self.mark_dirty(handle) {
            Some(link) => link.connection.call(now, call, payload, ticket),
            None => {
                let failure = Failure::not_sent(Cause::Closed(CloseReason::Local));
                Err(Refused { ticket, failure })
            }
        }
    }

    /// Gives a call up, see [`Connection::cancel`].
    pub fn cancel(
        &mut self,
        now: Instant,
        handle: Handle,
        call: CallId,
        reason: CancelReason,
    ) -> Option<T> {
        self.touch(handle)?.connection.cancel(now, call, reason)
    }

    /// Answers a call, see [`Connection::reply`].
    ///
    /// # Errors
    /// As there; also when the connection is gone.
    #[inline]
    pub fn reply<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        let link = self.mark_dirty(handle).ok_or(ReplyError::NotRunning)?;
        link.connection.reply(now, request, header, payload)
    }

    /// Begins to answer a call with items, see [`Connection::begin_items`].
    ///
    /// # Errors
    /// As there; also when the connection is gone.
    pub fn begin_items(
        &mut self,
        now: Instant,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        extensions: &[u8],
    ) -> Result<(), ReplyError> {
        let link = self.mark_dirty(handle).ok_or(ReplyError::NotRunning)?;
        link.connection.begin_items(now, request, header, extensions)
    }

    /// Sends an item, see [`Connection::send_item`].
    ///
    /// # Errors
    /// As there; also when the connection is gone.
    pub fn send_item<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        handle: Handle,
        stream: StreamId,
        encoding: Encoding,
        payload: &P,
    ) -> Result<(), ItemError> {
        let link = self.mark_dirty(handle).ok_or(ItemError::Ended)?;
        link.connection.send_item(now, stream, encoding, payload)
    }

    /// Ends the items of a call's argument, see [`Connection::end_items`].
    pub fn end_items(&mut self, now: Instant, handle: Handle, call: CallId) {
        if let Some(link) = self.mark_dirty(handle) {
            link.connection.end_items(now, call);
        }
    }

    /// Items are no longer held, see [`Connection::consumed_many`].
    pub fn consumed(&mut self, handle: Handle, stream: StreamId, items: usize, bytes: usize) {
        if let Some(link) = self.mark_dirty(handle) {
            link.connection.consumed_many(stream, items, bytes);
        }
    }

    /// How many connections there are, in any state.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.connections
    }

    /// The handles of all connections.
    pub fn handles(&self) -> impl Iterator<Item = Handle> + '_ {
        self.links.iter().flatten().map(|link| link.handle)
    }

    /// What all connections, also those that are gone, have counted.
    #[must_use]
    pub fn counters(&self) -> Counters {
        let mut sum = self.past;
        self.links.iter().flatten().for_each(|link| sum.add(link.connection.counters()));
        sum
    }

    /// The memory that its connections share.
    #[must_use]
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The transport, for what is its own: listening, parking.
    pub fn transport_mut(&mut self) -> &mut Tr {
        &mut self.transport
    }

    /// The transport, to ask.
    #[must_use]
    pub fn transport(&self) -> &Tr {
        &self.transport
    }

    // ---- from the transport ----

    fn take(&mut self, now: Instant, event: TransportEvent<Tr::Socket>) {
        match event {
            TransportEvent::Accepted(listener, socket) => {
                self.accepted.push_back((listener, socket));
            }
            TransportEvent::Received(handle, chunk) => self.received(now, handle, chunk),
            TransportEvent::Landed(handle, buffer, n) => {
                if let Some(link) = self.touch(handle) {
                    link.receiving = Receiving::Paused;
                    link.connection.handle_landed(now, buffer, n);
                }
            }
            TransportEvent::Connected(handle) => {
                if let Some(link) = self.touch(handle) {
                    link.stage = Stage::Up;
                }
            }
            TransportEvent::InputEnd(handle) => {
                let Some(link) = self.touch(handle) else { return };
                if link.stage == Stage::Lingering {
                    return self.close(handle);
                }
                match link.layer.end_input() {
                    Ok(()) => link.connection.handle_input_end(now),
                    Err(reason) => link.give_up(now, reason),
                }
            }
            TransportEvent::Sent { handle, bytes, done } => {
                let Some(link) = self.touch(handle) else { return };
                let Some(sending) = link.sending.take() else { return };
                // A layer may have made more of them.
                let sent = if done { sending } else { bytes.min(sending) };
                link.sending = (!done).then_some(sending - sent);
                link.connection.handle_transmitted(now, sent);
            }
            TransportEvent::Unreadable { handle, owner, error } => {
                if let Some(link) = self.touch(handle) {
                    link.connection.handle_unreadable(now, owner, error);
                }
            }
            TransportEvent::Written(handle, written) => {
                if let Some(link) = self.touch(handle) {
                    link.connection.handle_written(now, written);
                }
            }
            TransportEvent::Closed(handle, reason) => {
                let Some(link) = self.touch(handle) else { return };
                link.sending = None;
                link.has_last_word = false;
                link.connection.handle_closed(now, link.layer.explain(reason));
                if link.stage == Stage::Lingering {
                    self.close(handle);
                }
            }
            TransportEvent::Released(handle) => self.leave(handle),
        }
    }

    #[inline]
    fn received(&mut self, now: Instant, handle: Handle, chunk: crate::Chunk) {
        let Some(link) = self.mark_readable(handle) else { return };
        if link.stage == Stage::Lingering {
            return;
        }
        let connection = &mut link.connection;
        let opened = link.layer.open(chunk, &mut |plain| connection.handle_received(now, plain));
        connection.count_copied(link.layer.take_copied());
        if let Err(reason) = opened {
            link.give_up(now, reason);
        } else if link.layer.has_input_ended() {
            connection.handle_input_end(now);
        }
        if link.layer.wants_seal() {
            self.mark_dirty(handle);
        }
    }

    fn expire(&mut self, now: Instant) -> bool {
        let mut any = false;
        while let Some(index) = self.timers.expire(now) {
            any = true;
            let Some(Some(link)) = self.links.get_mut(index as usize) else { continue };
            let handle = link.handle;
            link.armed = Instant::FAR;
            if link.stage == Stage::Lingering {
                self.close(handle);
                continue;
            }
            if link.stage == Stage::Connecting && link.connect_by <= now {
                let reason = CloseReason::Transport(TransportError::TimedOut);
                link.connection.handle_closed(now, reason);
            }
            link.connection.handle_timeout(now);
            self.touch(handle);
        }
        // Whoever waits for the landing budget has a timer.
        if any && self.next_landing_look <= now && self.memory.take_landing_denied() {
            self.next_landing_look = now + LANDING_LOOK_EVERY;
            self.take_landing_back(now);
        }
        any
    }

    /// Bodies wait for the landing budget: closes connections that hold some of it and make no use of it.
    #[cold]
    fn take_landing_back(&mut self, now: Instant) {
        let links = self.links.iter().flatten();
        let idle = links.filter(|link| link.connection.holds_back(now) && !bug!("holds_back"));
        let handles: Vec<Handle> = idle.map(|link| link.handle).collect();
        for handle in handles {
            if let Some(link) = self.touch(handle) {
                link.connection.close(now, CloseReason::BodyStalled);
            }
        }
    }

    // ---- memory ----

    /// Memory is short, or was in the turn before.
    #[cold]
    fn look_at_memory(&mut self, now: Instant) {
        self.memory.pool().look();
        self.memory.exhaust(false);
        self.relieved = None;
        if self.memory.is_full() {
            self.relieve(now);
        }
        if self.memory.is_short() {
            self.short = Some(now + LOOK_EVERY);
        } else if self.short.take().is_some() {
            // There may be credit that was kept back, and streams that wait.
            let handles: Vec<Handle> = self.handles().collect();
            for handle in handles {
                self.mark_dirty(handle);
            }
        }
    }

    /// Others had their turn before, since this one's bytes arrived.
    #[inline]
    fn next_has_its_turn(&mut self, now: Instant) {
        if self.memory.is_short() {
            self.go_on_short_of_memory(now);
        }
    }

    #[cold]
    fn go_on_short_of_memory(&mut self, now: Instant) {
        self.short.get_or_insert(now);
        if self.memory.is_full() {
            self.relieve(now);
        }
        if let Some(Some(link)) = self.links.get_mut(self.readable.first as usize) {
            link.connection.go_around();
        }
    }

    /// Memory is at its bound: closes the connections that hold the most, until what they hold makes it enough. Says
    /// whether there are any.
    #[cold]
    fn relieve(&mut self, now: Instant) -> bool {
        // The transport may take some of it.
        self.flush(now);
        let mut excess = self.memory.excess();
        if !self.memory.is_full() || self.relieved.is_some_and(|most| excess <= most) {
            return false;
        }
        self.relieved = Some(excess + excess / 4);
        let mut holders = Vec::new();
        let mut is_nobody = true;
        for link in self.links.iter().flatten() {
            let held = link.connection.held();
            match link.connection.is_ending() {
                // What it holds is on its way back.
                true => {
                    excess = excess.saturating_sub(held);
                    is_nobody = false;
                }
                false if held >= HELD_BYTES_MIN => holders.push((held, link.handle)),
                false => {}
            }
        }
        holders.sort_unstable_by_key(|(held, handle)| (core::cmp::Reverse(*held), handle.index));
        self.memory.exhaust(is_nobody && holders.is_empty());
        let mut closed = 0;
        for (held, handle) in &holders {
            if excess == 0 {
                break;
            }
            excess = excess.saturating_sub(*held);
            closed += 1;
            if let Some(link) = self.touch(*handle) {
                link.connection.close(now, CloseReason::MemoryShort);
            }
        }
        // First of all that there is to do: to hand their calls back is what makes memory free.
        let links = &self.links;
        for index in self.slow.drain(..) {
            self.readable.push_back(index);
        }
        self.readable.sort_by_key(|index| {
            let link = links.get(index as usize).and_then(Option::as_ref);
            !link.is_some_and(|link| link.connection.is_ending())
        });
        closed > 0
    }

    // ---- to the transport ----

    /// A connection has no event for now: tells the transport what that means.
    fn settle(&mut self, now: Instant, index: u32) {
        let Some(Some(link)) = self.links.get_mut(index as usize) else { return };
        if let Some(write) = link.connection.poll_write() {
            return self.write(now, index, write);
        }
        // While a batch is under way there is nothing to do about another: its end will be noticed.
        let can_transmit = link.sending.is_none() && link.connection.wants_transmit();
        if can_transmit || link.connection.is_finished() {
            let handle = link.handle;
            self.mark_dirty(handle);
        }
        self.hint(index);
        self.arm(now, index);
    }

    /// What was received goes to objects, before anything else is received.
    #[cold]
    fn write(&mut self, now: Instant, index: u32, first: Write) {
        let Some(Some(link)) = self.links.get_mut(index as usize) else { return };
        let handle = link.handle;
        let mut next = Some(first);
        while let Some(write) = next {
            if let Some(written) = self.transport.write(handle, write) {
                link.connection.handle_written(now, written);
            }
            next = link.connection.poll_write();
        }
        // There may be events now.
        self.touch(handle);
    }

    fn hint(&mut self, index: u32) {
        let Some(Some(link)) = self.links.get_mut(index as usize) else { return };
        if link.stage != Stage::Up {
            return;
        }
        let can_land = link.layer.can_land();
        let how = match link.connection.receive_hint() {
            ReceiveHint::Land { len } if can_land => {
                if link.receiving == Receiving::Landing {
                    return;
                }
                match link.connection.begin_landing() {
                    Some(buffer) => {
                        link.receiving = Receiving::Landing;
                        Receive::Land(buffer, len)
                    }
                    None => return,
                }
            }
            // The buffer is with the transport: it stops by itself at the body's end.
            _ if link.receiving == Receiving::Landing => return,
            ReceiveHint::Pause if link.receiving != Receiving::Paused => {
                link.receiving = Receiving::Paused;
                Receive::Pause
            }
            ReceiveHint::More | ReceiveHint::Land { .. } if link.receiving != Receiving::More => {
                link.receiving = Receiving::More;
                Receive::More
            }
            _ => return,
        };
        self.transport.receive(link.handle, how);
    }

    fn arm(&mut self, now: Instant, index: u32) {
        let Some(Some(link)) = self.links.get_mut(index as usize) else { return };
        if link.stage == Stage::Closing {
            return;
        }
        // A timer that fires too early finds nothing to do and is armed again, which is cheaper than
        // moving it with every call.
        let mut at = link.connection.poll_timeout().unwrap_or(Instant::FAR);
        if link.stage == Stage::Connecting {
            at = at.min(link.connect_by);
        }
        if at < link.armed {
            link.armed = at;
            self.timers.arm(index, at.max(now));
        }
    }

    fn transmit(&mut self, now: Instant, index: u32) {
        let Some(Some(link)) = self.links.get_mut(index as usize) else { return };
        let mut any = false;
        while link.sending.is_none() && link.stage == Stage::Up {
            debug_assert!(self.batch.is_empty());
            if link.layer.is_ready() {
                link.connection.poll_transmit(now, &mut self.batch);
            }
            if link.connection.is_finished() && !link.connection.is_lost() {
                link.layer.end_output();
            }
            let plain = self.batch.len();
            if self.batch.has_external() && !(link.layer.can_file() && self.transport.can_file()) {
                let connection = &mut link.connection;
                let loaded = self.batch.load(self.memory.pool(), |owner, error| {
                    connection.handle_unreadable(now, owner, error);
                });
                connection.count_loaded(loaded);
            }
            if let Err(reason) = link.layer.seal(&mut self.batch) {
                self.batch.clear();
                link.give_up(now, reason);
                break;
            }
            if self.batch.is_empty() {
                break;
            }
            any = true;
            if !self.transport.send(link.handle, &mut self.batch) {
                link.sending = Some(plain);
                break;
            }
            link.connection.handle_transmitted(now, plain);
            let is_more = link.connection.wants_transmit() || link.layer.wants_seal();
            if !is_more && !link.connection.is_finished() {
                break;
            }
        }
        let handle = link.handle;
        // What was sent may let parked calls go on, or receiving; so may the end of a one-way call, for which
        // nothing is sent.
        let may_resume = link.receiving == Receiving::Paused
            && (any || link.connection.receive_hint() != ReceiveHint::Pause)
            && !bug!("paused_for_ever");
        let wants_poll = link.connection.wants_poll() || may_resume;
        if wants_poll && !link.connection.is_finished() {
            self.mark_readable(handle);
        }
        self.finish(now, handle);
        self.arm(now, index);
    }

    /// When a connection is over and its last byte given to the transport: ends it there, too.
    fn finish(&mut self, now: Instant, handle: Handle) {
        let Some(link) = self.link_mut(handle) else { return };
        if !link.connection.is_finished() {
            return;
        }
        match link.stage {
            // The batch under way has to leave before what must be said behind it.
            Stage::Up
                if link.sending.is_some()
                    && link.layer.owes_goodbye()
                    && !link.connection.is_lost() => {}
            Stage::Up if !link.connection.is_lost() || link.has_last_word => {
                link.stage = Stage::Lingering;
                link.armed = now + LINGER;
                self.timers.arm(handle.index, now + LINGER);
                self.transport.shutdown(handle);
                self.transport.receive(handle, Receive::More);
            }
            Stage::Up | Stage::Connecting => self.close(handle),
            Stage::Lingering | Stage::Closing => {}
        }
    }

    fn close(&mut self, handle: Handle) {
        let Some(link) = self.link_mut(handle) else { return };
        if link.stage != Stage::Closing {
            link.stage = Stage::Closing;
            self.timers.cancel(handle.index);
            self.transport.close(handle);
        }
    }

    // ---- links ----

    fn enter(
        &mut self,
        now: Instant,
        handle: Handle,
        side: Side,
        stage: Stage,
        config: &Rc<Config>,
        layer: L,
    ) {
        let index = handle.index as usize;
        if index >= self.links.len() {
            self.links.resize_with(index + 1, || None);
        }
        let connection = Connection::new(side, Rc::clone(config), self.memory.clone(), now);
        if !layer.can_land() {
            self.transport.receive_unaligned(handle);
        }
        self.links[index] = Some(Link {
            handle,
            connection,
            layer,
            stage,
            sending: None,
            is_readable: false,
            is_slow: false,
            is_dirty: false,
            armed: Instant::FAR,
            has_last_word: false,
            connect_by: now + config.connect_timeout,
            receiving: Receiving::More,
        });
        self.connections += 1;
        self.mark_dirty(handle);
    }

    fn leave(&mut self, handle: Handle) {
        if self.link(handle).is_some()
            && let Some(link) = self.links[handle.index as usize].take()
        {
            self.past.add(link.connection.counters());
            self.connections -= 1;
            self.timers.cancel(handle.index);
        }
    }

    fn link(&self, handle: Handle) -> Option<&Link<L, T>> {
        let link = self.links.get(handle.index as usize)?.as_ref()?;
        link.is_of(handle).then_some(link)
    }

    #[inline]
    fn link_mut(&mut self, handle: Handle) -> Option<&mut Link<L, T>> {
        let link = self.links.get_mut(handle.index as usize)?.as_mut()?;
        link.is_of(handle).then_some(link)
    }

    /// The link, which may now have events and something to send.
    fn touch(&mut self, handle: Handle) -> Option<&mut Link<L, T>> {
        self.mark_readable(handle)?;
        self.mark_dirty(handle)
    }

    #[inline]
    fn mark_readable(&mut self, handle: Handle) -> Option<&mut Link<L, T>> {
        let link = self.links.get_mut(handle.index as usize)?.as_mut()?;
        if !link.is_of(handle) {
            return None;
        }
        if !link.is_readable {
            link.is_readable = true;
            match link.is_slow {
                true => self.slow.push_back(handle.index),
                false => self.readable.push_back(handle.index),
            }
        }
        Some(link)
    }

    #[inline]
    fn mark_dirty(&mut self, handle: Handle) -> Option<&mut Link<L, T>> {
        let link = self.links.get_mut(handle.index as usize)?.as_mut()?;
        if !link.is_of(handle) {
            return None;
        }
        if !link.is_dirty {
            link.is_dirty = true;
            self.dirty.push(handle.index);
        }
        // Of what it was given before.
        if link.connection.bytes_ready() >= MUCH_BYTES && link.sending.is_none() {
            self.has_much = true;
        }
        Some(link)
    }
}

impl<Tr: Transport, L, T> fmt::Debug for Endpoint<Tr, L, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("connections", &self.connections)
            .field("readable", &self.readable.len())
            .field("dirty", &self.dirty.len())
            .finish_non_exhaustive()
    }
}
