//! One connection as a value: bytes and time in, bytes and events out.

/// A recorded connection does it again as if nobody recorded it, and notes that: when it was, what, how to do it
/// again, and what its result adds to the digest.
macro_rules! recorded {
    ($connection:ident, $now:expr, $input:expr, $again:expr, $tell:expr) => {
        if $connection.recorder.is_some() {
            return $connection.recorded($now, $input, $again, $tell);
        }
    };
}

mod ahead;
mod assembly;
mod bodies;
mod budget;
mod calls;
mod credit;
mod drain;
mod ending;
mod event;
mod floods;
mod inbound;
mod introduction;
mod items;
mod limits;
mod liveness;
mod outbound;
mod plain;
mod receive;
mod recorded;
mod replies;
mod requests;
mod send;
mod served;
mod shortage;
mod state;
mod stream;
mod streams;
mod watch;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use ringcall_buf::{Chunk, ChunkMut, ObjectError, Segment};

use crate::frame::{CancelReason, GoAway, Hello, Limits, Ping, ReplyHeader};
use crate::memory::Share;
use crate::payload::Empty;
use crate::record::{Digest, Input, Recorder};
use crate::wheel::Wheel;
use crate::{
    CallId, CloseReason, Config, Counters, Encoding, Instant, Memory, MessageId, Payload, Refused,
    RequestId, Side, Status, StreamId,
};

use ahead::{Ahead, SHORT};
use assembly::Siblings;
pub use assembly::{Write, Written};
use calls::Calls;
use credit::{Allowance, Window};
use drain::Retirement;
use ending::Ending;
pub use event::{Call, Cancellation, Event, Outcome, ReceiveHint, Reply, ReplyError, Request};
use floods::Floods;
use inbound::Inbound;
use introduction::Introduction;
pub use introduction::{CREDENTIALS_BYTES_MAX, CredentialsTooLong};
use limits::Announcing;
use liveness::Liveness;
use outbound::Outbound;
pub use outbound::SendQueue;
use served::Served;
use state::{ConnectionInput, ConnectionState, ServedState};
use streams::Crowded;
pub use streams::{Item, ItemError};
use watch::Watch;

/// Bodies of which at least this much is still to come are worth receiving straight into their own
/// memory.
pub const LAND_BYTES_MIN: usize = 64 * 1024;

/// Both ends of a connection, as a state machine that does no I/O.
///
/// There are three families of methods. `handle_*` takes something in from the transport or the
/// clock, `poll_*` gives something out, and plain verbs are the application's. Any order of inputs is
/// legal, and any number of them before the next `poll_*`; every method does a bounded amount of
/// work. Time is an argument: `now` must never be earlier than before. The same inputs always give the
/// same outputs.
///
/// `T` is the caller's *ticket*: whatever the application wants to have back when a call ends, such
/// as the slot of a waker, a callback or a channel. Each ticket comes back exactly once: with
/// [`Event::Completed`], or with [`Refused`] when the call was not accepted, or from
/// [`cancel`](Connection::cancel).
///
/// What is sent lies in frozen memory: whoever takes segments from
/// [`poll_transmit`](Connection::poll_transmit) keeps them until the kernel is done with them, and
/// then says so with [`handle_transmitted`](Connection::handle_transmitted). That is accounting, and lets
/// bodies that lie in files be confirmed.
pub struct Connection<T> {
    side: Side,
    state: ConnectionState,
    /// It is open, and not recorded.
    is_plain: bool,
    config: Rc<Config>,
    bounds: Bounds,
    memory: Memory,
    share: Box<Share>,
    /// What the other side said in its HELLO and LIMITS.
    peer: Option<Hello>,
    introduction: Introduction,
    inbound: Inbound,
    outbound: Outbound,
    calls: Calls<T>,
    served: Served,
    /// Requests that wait until enough replies have been sent. Bounded: each holds a slot or was
    /// counted as a one-way call, and its body is charged.
    parked: VecDeque<Request>,
    /// One-way calls whose frames no transport has taken yet, by number.
    one_ways: VecDeque<(u64, T)>,
    credit: Credit,
    control: Control,
    /// Deadlines of calls made (even keys), see [`calls::Entry::listed`], and of calls served that are watched
    /// (odd keys).
    deadlines: Wheel,
    watch: Watch,
    liveness: Liveness,
    floods: Floods,
    retirement: Retirement,
    /// Streams that wait for the connection.
    crowded: Crowded,
    /// How many streams of callers are open.
    open_inputs: u32,
    /// What comes before further frames.
    ahead: Ahead<T>,
    /// How many bodies are arriving in parts.
    landing: Siblings,
    /// Where the body of the large frame that is arriving goes.
    body_target: BodyTarget,
    /// What was received and goes to objects, and how much of it is not written yet.
    writes: VecDeque<Write>,
    writes_bytes: usize,
    /// Bytes given to the transport so far.
    given: u64,
    unknown_replies: Strikes,
    ignored: Strikes,
    /// How far handing back calls has come after the end.
    ending: Option<Ending>,
    /// How many calls GOAWAY frames allow, in either direction.
    goaway_sent: Option<u64>,
    goaway_received: Option<u64>,
    /// The other side will send nothing any more.
    input_ended: bool,
    /// Own limits in force: those of the configuration until they are changed.
    in_flight_max: u32,
    message_bytes_max: usize,
    announcing: Announcing,
    counters: Counters,
    /// Notes what is done; see [`noted`](Self::noted).
    recorder: Option<Box<Recorder>>,
    /// One that has no room for more.
    full_record: Option<Box<Recorder>>,
}

/// What every call is held to, from configuration and HELLO.
#[derive(Debug)]
struct Bounds {
    cut_bytes: usize,
    queue_soft: usize,
    queue_max: usize,
    /// What the other side accepts: nothing before its HELLO.
    their_in_flight_max: u32,
    their_message_bytes_max: u64,
}

#[derive(Debug)]
struct Credit {
    /// For our calls.
    calls_out: Allowance,
    /// For our replies.
    replies_out: Allowance,
    /// For the other side's calls.
    calls_in: Window,
    /// For the other side's replies.
    replies_in: Window,
    /// The same four, for numbers of items.
    call_items_out: Allowance,
    reply_items_out: Allowance,
    call_items_in: Window,
    reply_items_in: Window,
}

/// Control frames that wait to be sent; at most one of each kind.
#[derive(Debug, Default)]
struct Control {
    hello: bool,
    pong: Option<Ping>,
    ping: Option<Ping>,
    limits: Option<Limits>,
    /// With the mark behind which it may be sent.
    limits_ack: Option<(Limits, u64)>,
    /// Streams that get credit; each at most once.
    grants: VecDeque<MessageId>,
    /// There are some, or a pool gets credit in items.
    has_stream_credit: bool,
}

/// Counts what is no fault as long as it is rare: so much is forgiven in ten seconds.
#[derive(Debug)]
struct Strikes {
    began: Instant,
    count: u64,
}

const STRIKES_WINDOW: Duration = Duration::from_secs(10);

impl Strikes {
    fn new(now: Instant) -> Strikes {
        Strikes { began: now, count: 0 }
    }

    /// Adds `n`; says whether that is still no more than `max`.
    fn add(&mut self, now: Instant, n: u64, max: u64) -> bool {
        if now.since(self.began) >= STRIKES_WINDOW {
            *self = Strikes::new(now);
        }
        self.count = self.count.saturating_add(n);
        self.count <= max || bug!("strikes")
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyTarget {
    Nothing,
    Request(MessageId),
    Reply(MessageId),
    /// The item of a stream that is arriving, whoever made the call.
    Item(MessageId),
}

impl<T> Connection<T> {
    /// A new connection, of which nothing has been received yet.
    #[must_use]
    pub fn new(side: Side, config: Rc<Config>, memory: Memory, now: Instant) -> Connection<T> {
        Connection {
            side,
            state: ConnectionState::Preface,
            bounds: Bounds {
                cut_bytes: config.cut_bytes,
                queue_soft: config.send_queue_soft,
                queue_max: config.send_queue_max,
                their_in_flight_max: 0,
                their_message_bytes_max: 0,
            },
            // The accepting side says nothing before it has seen who speaks to it.
            control: Control { hello: side == Side::Client, ..Control::default() },
            inbound: Inbound::new(),
            outbound: Outbound::new(),
            calls: Calls::new(side, config.first_generation),
            served: Served::new(),
            parked: VecDeque::new(),
            one_ways: VecDeque::new(),
            credit: Credit {
                calls_out: Allowance::default(),
                replies_out: Allowance::default(),
                calls_in: Window::new(config.calls_window, config.message_bytes_max),
                replies_in: Window::new(config.replies_window, config.message_bytes_max),
                call_items_out: Allowance::default(),
                reply_items_out: Allowance::default(),
                call_items_in: Window::of_items(stream::pool_items(config.calls_window)),
                reply_items_in: Window::of_items(stream::pool_items(config.replies_window)),
            },
            deadlines: Wheel::new(now),
            watch: Watch {
                at: now + config.handshake_timeout,
                handshake: now + config.handshake_timeout,
                received: now,
                unsent: 0,
                send_progress: now,
                backlog: now,
                paced: now,
                paced_sent: 0,
                bodies: now,
                denied: None,
                every: config.look_after_every(),
            },
            liveness: Liveness::new(),
            floods: Floods::new(now),
            retirement: Retirement::new(side, &config, now),
            crowded: Crowded::default(),
            open_inputs: 0,
            ahead: Ahead::new(),
            landing: Siblings::default(),
            body_target: BodyTarget::Nothing,
            writes: VecDeque::new(),
            writes_bytes: 0,
            given: 0,
            is_plain: false,
            unknown_replies: Strikes::new(now),
            ignored: Strikes::new(now),
            ending: None,
            goaway_sent: None,
            goaway_received: None,
            input_ended: false,
            in_flight_max: config.in_flight_max,
            message_bytes_max: config.message_bytes_max,
            announcing: Announcing::default(),
            counters: Counters::default(),
            recorder: None,
            full_record: None,
            peer: None,
            introduction: Introduction::default(),
            share: memory.enter(size_of::<Connection<T>>()),
            memory,
            config,
        }
    }

    // ---- in ----

    /// Bytes have arrived, the next in their order. To have bodies land aligned, a transport that can
    /// choose starts a chunk at an address that is, modulo 16, the number of bytes received before
    /// it, plus 8.
    pub fn handle_received(&mut self, now: Instant, chunk: Chunk) {
        if self.recorder.is_some() {
            return self.recorded_received(now, chunk);
        }
        self.counters.bytes_received += chunk.len() as u64;
        if chunk.is_empty() || self.ending.is_some() || self.input_ended {
            return;
        }
        self.watch.received = now;
        self.ahead.set(SHORT, self.memory.is_hoarded());
        self.inbound.push(chunk);
    }

    /// The buffer of [`begin_landing`](Self::begin_landing) comes back with more bytes in it.
    pub fn handle_landed(&mut self, now: Instant, buffer: ChunkMut, n: usize) {
        if self.recorder.is_some() {
            return self.recorded_landed(now, buffer, n);
        }
        self.counters.bytes_received += n as u64;
        self.counters.landed += n as u64;
        if n > 0 {
            self.watch.received = now;
        }
        if self.ending.is_none() {
            self.body_landed(now, buffer, n);
        }
    }

    /// The other side has ended its stream: nothing more will be received, but it may still read. Calls
    /// that have arrived are finished and answered; [`poll_event`](Self::poll_event) says when it is over.
    pub fn handle_input_end(&mut self, now: Instant) {
        recorded!(self, Some(now), Input::InputEnd, |it| it.handle_input_end(now), Digest::nothing);
        self.input_ended = true;
    }

    /// Of the bytes received, the byte layer had copied so many.
    #[inline]
    pub(crate) fn count_copied(&mut self, bytes: u64) {
        self.counters.copied_tls += bytes;
    }

    /// The transport's connection is gone.
    pub fn handle_closed(&mut self, now: Instant, reason: CloseReason) {
        recorded!(
            self,
            Some(now),
            Input::Closed { reason },
            |it| it.handle_closed(now, reason),
            Digest::nothing
        );
        self.outbound.clear();
        self.end(now, reason);
        self.step(ConnectionInput::Gone);
    }

    /// The transport has sent `n` more bytes of what it was given.
    pub fn handle_transmitted(&mut self, now: Instant, n: usize) {
        recorded!(
            self,
            Some(now),
            Input::Transmitted { bytes: n },
            |it| it.handle_transmitted(now, n),
            Digest::nothing
        );
        self.counters.bytes_sent += n as u64;
        self.watch.unsent = self.watch.unsent.saturating_sub(n);
        if self.watch.unsent == 0 {
            self.share.sent();
        }
        if n > 0 {
            self.watch.send_progress = now;
        }
        self.outbound.transmitted(self.counters.bytes_sent);
    }

    /// The transport could not read a range of an object that it was given, of this
    /// [owner](ringcall_buf::External::owner): it sends zeros instead. To be told before
    /// [`handle_transmitted`](Self::handle_transmitted) counts them. The body's call ends with an error on
    /// both sides.
    pub fn handle_unreadable(&mut self, now: Instant, owner: u64, error: ObjectError) {
        recorded!(
            self,
            Some(now),
            Input::Unreadable { owner, error },
            |it| it.handle_unreadable(now, owner, error),
            Digest::nothing
        );
        if self.ending.is_none() {
            self.range_unreadable(owner, error);
        }
    }

    /// Counts bytes that were read into memory, because they cannot be sent from where they are.
    pub(crate) fn count_loaded(&mut self, bytes: usize) {
        self.counters.copied_file += bytes as u64;
        self.counters.sent_from_files -= bytes as u64;
    }

    /// What [`poll_write`](Self::poll_write) gave is written, or cannot be.
    pub fn handle_written(&mut self, now: Instant, written: Written) {
        recorded!(
            self,
            Some(now),
            written.input(),
            |it| it.handle_written(now, written),
            Digest::nothing
        );
        if self.ending.is_none() {
            self.write_done(written);
        }
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) said has come. Calling it early or late is
    /// harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
        recorded!(self, Some(now), Input::Timeout, |it| it.handle_timeout(now), Digest::nothing);
        while let Some(key) = self.deadlines.expire(now) {
            self.expire(now, key);
        }
        if self.watch.at <= now {
            self.look_after(now);
        }
    }

    // ---- out ----

    /// The next event. Requests and replies are parsed as they are asked for, so a caller decides how
    /// much it takes at a time. `None`: nothing until something is handled.
    #[inline(always)]
    pub fn poll_event(&mut self, now: Instant) -> Option<Event<T>> {
        self.poll_next(now, |event| event)
    }

    /// Further items of a stream of which [`poll_event`](Self::poll_event) has just given one, as long as the
    /// next frames are such items and ordinary, at most `max`. Returns how many; the rest comes with
    /// `poll_event`.
    #[inline]
    pub fn poll_items(
        &mut self,
        now: Instant,
        stream: StreamId,
        max: u32,
        mut take: impl FnMut(Item),
    ) -> u32 {
        if !self.ahead.lets_items_pass() {
            return self.unusual_items(now, stream, max, &mut take);
        }
        self.plain_items(now, Some(stream.0), max, |_, item| take(item))
    }

    /// The next event, whatever it is.
    #[inline(never)]
    fn poll_any(&mut self, now: Instant) -> Option<Event<T>> {
        if self.recorder.is_some() {
            return self.recorded_event(now);
        }
        while let Some(event) = self.ahead.pop() {
            if !self.ahead.has_events() {
                self.wake_crowded();
            }
            if !self.is_stale(&event) {
                return Some(event);
            }
        }
        if self.ending.is_some() {
            return self.hand_back();
        }
        if !self.parked.is_empty()
            && let Some(event) = self.unpark(now)
        {
            return Some(event);
        }
        match self.receive(now) {
            Ok(Some(event)) => Some(event),
            Ok(None) => self.after_input(now),
            Err(reason) => {
                self.fail(now, reason);
                self.ahead.pop().or_else(|| self.hand_back())
            }
        }
    }

    /// Whether an event was overtaken: a call that was answered since needs no cancelling.
    fn is_stale(&mut self, event: &Event<T>) -> bool {
        let Event::Cancelled(RequestId { id, .. }, _) = event else { return false };
        if bug!("stale_cancel_told") {
            return false;
        }
        self.served.find(*id).is_none_or(|served| served.state != ServedState::Cancelling)
    }

    /// Moves what there is to send to `queue`, as far as it has room.
    pub fn poll_transmit(&mut self, now: Instant, queue: &mut impl SendQueue) {
        if self.recorder.is_some() {
            return self.recorded_transmit(now, queue);
        }
        self.give(now, queue);
    }

    fn give(&mut self, now: Instant, queue: &mut impl SendQueue) {
        let mut queue = Counted { queue, bytes: 0, external: 0, foreign: 0 };
        self.transmit(now, &mut queue);
        let sent = queue.bytes;
        if sent > 0 {
            if self.watch.unsent == 0 {
                self.watch.send_progress = now;
                self.watch.backlog = now;
            }
            self.watch.unsent += sent;
            self.given += sent as u64;
            self.outbound.given(self.given);
            self.counters.sent_from_files += queue.external as u64;
            if queue.foreign > 0 {
                self.share.give(queue.foreign);
            }
            self.look_after_by(now + self.watch.every);
        }
    }

    /// Whether [`poll_transmit`](Self::poll_transmit) would give something.
    #[inline]
    #[must_use]
    pub fn wants_transmit(&self) -> bool {
        if self.outbound.is_waiting() || self.control.hello {
            return true;
        }
        // Nothing else may be said before the other side's HELLO, nor after our own GOAWAY.
        self.peer.is_some()
            && self.ending.is_none()
            && (self.control.is_waiting()
                || (self.is_credit_due() && self.may_grant())
                || self.limits_ack_is_due())
    }

    #[inline]
    fn is_credit_due(&self) -> bool {
        self.control.has_stream_credit
            || self.credit.calls_in.is_grant_due()
            || self.credit.replies_in.is_grant_due()
    }

    /// When [`handle_timeout`](Self::handle_timeout) wants to be called.
    #[inline]
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        // Keys of calls that have ended are in the wheel, too.
        let has_calls = self.calls.live() > 0 || self.served.live() > 0;
        let deadline = has_calls.then(|| self.deadlines.next()).flatten();
        let earliest = deadline.map_or(self.watch.at, |at| at.min(self.watch.at));
        (earliest != Instant::FAR).then_some(earliest)
    }

    /// What the transport should receive next.
    #[must_use]
    pub fn receive_hint(&self) -> ReceiveHint {
        if self.ahead.is_stalled() || self.ending.is_some() || self.is_paused() {
            return ReceiveHint::Pause;
        }
        match self.inbound.body_left() {
            Some(len) if len >= LAND_BYTES_MIN && self.can_land() => ReceiveHint::Land { len },
            _ => ReceiveHint::More,
        }
    }

    /// The buffer for the body that [`ReceiveHint::Land`] speaks of; its unfilled part is where the
    /// bytes go. Give it back with [`handle_landed`](Self::handle_landed).
    pub fn begin_landing(&mut self) -> Option<ChunkMut> {
        recorded!(self, None, Input::BeginLanding, |it| it.begin_landing(), Digest::lent);
        self.body_assembly()?.lend()
    }

    /// The next bytes of a body that go to an object, from where they were received. Whoever drives the
    /// connection writes them and says so with [`handle_written`](Self::handle_written).
    #[inline]
    pub fn poll_write(&mut self) -> Option<Write> {
        recorded!(self, None, Input::PollWrite, |it| it.poll_write(), Digest::write);
        self.next_write()
    }

    // ---- the application's verbs ----

    /// Makes a call. Its body is encoded at once, into outgoing memory.
    ///
    /// # Errors
    /// [`Refused`], with the ticket, when nothing was sent: not established, draining or closed, all
    /// slots in use, too much queued, expired already, too large, or not encodable.
    #[inline]
    pub fn call<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        call: &Call,
        payload: &P,
        ticket: T,
    ) -> Result<CallId, Refused<T>> {
        if !self.is_plain {
            // A copy: otherwise the call itself has to lie in memory.
            return self.unusual_call(now, &{ *call }, payload, ticket);
        }
        self.make_call(now, call, payload, ticket)
    }

    /// Gives a call up. Its ticket comes back; the other side is told once, and the slot is free again
    /// when it has answered. Whoever cancels more than a quarter of its calls, beyond 400, has the rest told two
    /// seconds later: to the other side it would be a flood. (Calls with streams, and those whose body is still being
    /// sent, are told at once.) `None` if the call has ended already.
    pub fn cancel(&mut self, now: Instant, id: CallId, reason: CancelReason) -> Option<T> {
        recorded!(
            self,
            Some(now),
            Input::Cancel { call: id, reason },
            |it| it.cancel(now, id, reason),
            Digest::cancelled
        );
        let ticket = self.calls.find(id.0)?.ticket.take()?;
        self.counters.calls_cancelled += 1;
        self.counters.calls_ended += 1;
        self.give_up(Some(now), id.0, reason);
        Some(ticket)
    }

    /// Answers a call, or says that a one-way one is done. Gives the credit of its body back.
    ///
    /// # Errors
    /// [`ReplyError::Encode`] when the caller got a failure instead; [`ReplyError::NotRunning`] when
    /// nobody waits.
    #[inline]
    pub fn reply<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        id: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        if !self.is_plain {
            let (failed, n) = self.unusual_reply(now, id, header.words(), payload);
            return ReplyError::from_numbers(failed, n);
        }
        self.answer::<P, true>(now, id, header, payload)
    }

    /// Begins to answer a call with a stream of items. [`reply`](Self::reply) ends it. The extensions are
    /// as those of a [`Payload`].
    ///
    /// # Errors
    /// [`ReplyError::NotRunning`] when nobody waits, or the caller did not ask for items;
    /// [`ReplyError::Encode`] when the extensions are too long: nothing was begun.
    pub fn begin_items(
        &mut self,
        now: Instant,
        request: RequestId,
        header: ReplyHeader,
        extensions: &[u8],
    ) -> Result<(), ReplyError> {
        if self.recorder.is_some() {
            return self.recorded_begin(now, request, header, extensions);
        }
        self.begin_stream(now, request, header, extensions)
    }

    /// Sends an item: of the argument's stream of a call that this side made, or of the answer that was
    /// [begun](Self::begin_items).
    ///
    /// # Errors
    /// [`ItemError::Blocked`] when it must wait for [`Event::Writable`], which follows.
    #[inline]
    pub fn send_item<P: Payload + ?Sized>(
        &mut self,
        now: Instant,
        stream: StreamId,
        encoding: Encoding,
        payload: &P,
    ) -> Result<(), ItemError> {
        if !self.is_plain {
            return self.unusual_item(now, stream, encoding, payload);
        }
        self.send_stream_item(now, stream, encoding, payload)
    }

    /// Ends the stream of items that belongs to the argument of a call. Its answer follows.
    pub fn end_items(&mut self, now: Instant, call: CallId) {
        recorded!(
            self,
            Some(now),
            Input::EndItems { call },
            |it| it.end_items(now, call),
            Digest::nothing
        );
        self.end_stream(call);
    }

    /// An item with a body of `bytes` is no longer held: its sender may send more.
    pub fn consumed(&mut self, stream: StreamId, bytes: usize) {
        self.consumed_many(stream, 1, bytes);
    }

    /// So many items of a stream, with bodies of `bytes` together, are no longer held. Whoever collects them must
    /// say so before it waits for anything, since another stream may need their credit.
    pub fn consumed_many(&mut self, stream: StreamId, items: usize, bytes: usize) {
        recorded!(
            self,
            None,
            Input::Consumed { stream, items, bytes },
            |it| it.consumed_many(stream, items, bytes),
            Digest::nothing
        );
        self.items_consumed(stream, items, bytes);
    }

    /// Refuses a request whose time was over before its handler could start, and counts it apart.
    pub fn refuse_expired(&mut self, now: Instant, id: RequestId) {
        recorded!(
            self,
            Some(now),
            Input::RefuseExpired { request: id },
            |it| it.refuse_expired(now, id),
            Digest::nothing
        );
        let header = ReplyHeader::new(Status::EXPIRED);
        if self.answer::<_, false>(now, id, header, &Empty).is_ok() {
            self.counters.requests_refused += 1;
            self.counters.requests_expired += 1;
        }
    }

    /// Has [`Event::Cancelled`] come when the deadline of a running call passes. For calls that are
    /// not answered at once; those that are need no timer.
    pub fn watch_deadline(&mut self, id: RequestId, deadline: Instant) {
        recorded!(
            self,
            None,
            Input::WatchDeadline { request: id, deadline },
            |it| it.watch_deadline(id, deadline),
            Digest::nothing
        );
        let Some(slot) = self.served.find(id.id) else { return };
        if slot.state == ServedState::Running
            && deadline != Instant::FAR
            && !bug!("served_deadline_not_watched")
        {
            slot.watch();
            self.deadlines.arm(served_key(id.id.slot()), deadline);
        }
    }

    /// Asks the other side for a sign of life; [`Event::Pong`] brings `opaque` back. One that was not
    /// sent yet is replaced. It waits until the one before is answered and
    /// [`Config::ping_interval_min`] ago, since the other side counts.
    pub fn ping(&mut self, now: Instant, opaque: [u8; 16]) {
        recorded!(
            self,
            Some(now),
            Input::Ping { opaque },
            |it| it.ping(now, opaque),
            Digest::nothing
        );
        if self.ending.is_none() {
            self.want_ping(now, Ping { opaque });
        }
    }

    /// Tells the other side to stop making calls. With `refuse`, calls that have not arrived yet will
    /// not be run; without, it is only asked to stop soon. Calls in progress are finished; when the
    /// last one is, the connection closes. [`drain`](Self::drain) does both, in such a way that no call
    /// is lost.
    pub fn go_away(&mut self, now: Instant, refuse: bool) {
        recorded!(
            self,
            Some(now),
            Input::GoAway { refuse },
            |it| it.go_away(now, refuse),
            Digest::nothing
        );
        if !matches!(self.state, ConnectionState::Open | ConnectionState::Draining) {
            return;
        }
        let accepted = if refuse { self.counters.requests_taken } else { GoAway::SOON };
        self.announce(accepted);
        if let Some(event) = self.after_input(now) {
            self.ahead.push(event);
        }
    }

    /// Changes how many calls the other side may have in flight and how large its messages may be. A
    /// higher limit holds at once, a lower one when the other side has confirmed it. While it has earlier limits to
    /// confirm it is told the last ones only when it has, and 20 a second, if there are more for long.
    ///
    /// # Panics
    /// When `message_bytes_max` is more than half of a window, since a message of that size might never
    /// get credit; or when `in_flight_max` is zero.
    pub fn set_limits(&mut self, in_flight_max: u32, message_bytes_max: usize) {
        recorded!(
            self,
            None,
            Input::SetLimits { in_flight_max, message_bytes_max },
            |it| it.set_limits(in_flight_max, message_bytes_max),
            Digest::nothing
        );
        let window = self.config.calls_window.min(self.config.replies_window);
        assert!(in_flight_max > 0, "`in_flight_max` must be at least 1");
        assert!(
            message_bytes_max as u64 <= window / 2,
            "`message_bytes_max` must be at most half of `calls_window` and `replies_window`"
        );
        self.change_limits(Limits { in_flight_max, message_bytes_max: message_bytes_max as u64 });
    }

    /// Ends the connection: tells the other side, and hands back all calls. Answers find nobody any more, also
    /// before [`Event::Cancelled`] and [`Event::Closed`] were taken.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
        recorded!(
            self,
            Some(now),
            Input::Close { reason },
            |it| it.close(now, reason),
            Digest::nothing
        );
        self.fail(now, reason);
    }

    // ---- questions ----

    /// Which end this is.
    #[must_use]
    pub fn side(&self) -> Side {
        self.side
    }

    /// What the other side said about itself, once it has.
    #[must_use]
    pub fn peer(&self) -> Option<&Hello> {
        self.peer.as_ref()
    }

    /// Whether calls may be made now.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == ConnectionState::Open
    }

    /// Whether [`poll_event`](Self::poll_event) should be asked although nothing was handled since:
    /// after something was sent or answered, or when it was not asked until it said `None`.
    #[inline]
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        self.ahead.has_events()
            || (!self.parked.is_empty() && !self.is_choked())
            || (!self.inbound.is_drained() && !self.ahead.is_stalled() && !self.is_paused())
            || (self.liveness.is_paused() && !self.is_paused())
            || self.input_ended
            || !matches!(
                self.state,
                ConnectionState::Open | ConnectionState::Preface | ConnectionState::Hello
            )
    }

    /// Whether it is over and everything has been handed out: the transport may close.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.ending.is_some_and(|ending| ending.told)
            && (self.state == ConnectionState::Closed || !self.wants_transmit())
    }

    /// Whether it has come to its end, told or not.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.is_some()
    }

    /// Whether [`Event::Closed`] has been handed out: nothing follows.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ending.is_some_and(|ending| ending.told)
    }

    /// Whether this call, the last one that was made, has to wait until the other side gives credit for
    /// its body, or until other calls with streams are over.
    #[must_use]
    pub fn waits_for_credit(&self, call: CallId) -> bool {
        let Outbound { held_calls, held_openings, .. } = &self.outbound;
        [held_calls, held_openings]
            .iter()
            .any(|held| held.back().is_some_and(|body| body.id == call.0))
    }

    /// Whether nothing is left to do, or to be noted, when nothing has come and nothing is [`Ahead`].
    #[inline]
    fn is_at_rest(&self) -> bool {
        self.state == ConnectionState::Open
            && !self.is_paused()
            && !self.liveness.is_paused()
            && self.parked.is_empty()
            && !self.input_ended
    }

    /// Whether the transport's connection is known to be gone.
    #[must_use]
    pub fn is_lost(&self) -> bool {
        self.state == ConnectionState::Closed
    }

    /// How many calls of this side are in flight, cancelled ones included.
    #[must_use]
    pub fn calls_in_flight(&self) -> usize {
        self.calls.live()
    }

    /// How many calls of the other side are in progress.
    #[must_use]
    pub fn calls_served(&self) -> usize {
        self.served.live() + self.served.one_ways as usize
    }

    /// Items of the other side that this side holds: of calls, and of replies.
    #[must_use]
    pub fn items_held(&self) -> (u64, u64) {
        (self.credit.call_items_in.held(), self.credit.reply_items_in.held())
    }

    /// How many more calls may be made now: as the other side accepts, and none while too much waits to be sent
    /// ([`Config::send_queue_max`](crate::Config::send_queue_max)). There is room again when some of that was sent, which a
    /// step does.
    #[must_use]
    pub fn calls_room(&self) -> u32 {
        match self.outbound.queued() >= self.bounds.queue_max {
            true => 0,
            false => self.in_flight_limit().saturating_sub(self.calls_in_flight() as u32),
        }
    }

    /// How many calls the other side accepts at once; zero before its HELLO.
    #[must_use]
    pub fn in_flight_limit(&self) -> u32 {
        self.bounds.their_in_flight_max
    }

    /// Body bytes that this side may still send: as calls, and as replies.
    #[must_use]
    pub fn credit_available(&self) -> (u64, u64) {
        (self.credit.calls_out.available(), self.credit.replies_out.available())
    }

    /// Body bytes that the other side may still send when it has heard all that this side has granted: as calls, and as
    /// replies. At rest they are its [`credit_available`](Connection::credit_available).
    #[must_use]
    pub fn credit_granted(&self) -> (u64, u64) {
        (self.credit.calls_in.granted(), self.credit.replies_in.granted())
    }

    /// Body bytes of the other side that this side holds: of calls, and of replies.
    #[must_use]
    pub fn credit_held(&self) -> (u64, u64) {
        (self.credit.calls_in.held(), self.credit.replies_in.held())
    }

    /// How many of the bytes that wait to be sent need nothing but to be sent: whole frames, in order.
    #[inline]
    #[must_use]
    pub fn bytes_ready(&self) -> usize {
        self.outbound.ready_bytes()
    }

    /// Bytes that wait to be sent.
    #[must_use]
    pub fn bytes_queued(&self) -> usize {
        self.outbound.queued() + self.watch.unsent
    }

    /// What it has done so far.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Bodies went in a codec with names: only whoever encodes and decodes them knows.
    pub fn count_fallback(&mut self, encoded: u64, decoded: u64) {
        self.counters.fallback_encoded += encoded;
        self.counters.fallback_decoded += decoded;
    }
}

impl Control {
    /// Whether there is something that leaves in any case, which credit does not.
    #[inline]
    fn is_waiting(&self) -> bool {
        self.hello || self.pong.is_some() || self.ping.is_some() || self.limits.is_some()
    }
}

impl<T> fmt::Debug for Connection<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection")
            .field("side", &self.side)
            .field("state", &self.state)
            .field("calls", &self.calls.live())
            .field("served", &self.served.live())
            .field("queued", &self.outbound.queued())
            .finish_non_exhaustive()
    }
}

/// Counts what goes through a queue.
struct Counted<'a, Q> {
    queue: &'a mut Q,
    bytes: usize,
    /// How many of them the transport reads itself.
    external: usize,
    /// How many are in memory that is no block of the pool's.
    foreign: usize,
}

impl<Q: SendQueue> SendQueue for Counted<'_, Q> {
    fn room(&self) -> usize {
        self.queue.room()
    }

    #[inline(always)]
    fn push(&mut self, segment: Segment) {
        self.bytes += segment.len();
        match &segment {
            Segment::Local(_) => {}
            Segment::External(range) => self.external += range.len(),
            foreign => self.foreign += foreign.len(),
        }
        self.queue.push(segment);
    }
}

fn call_key(slot: u32) -> u32 {
    slot * 2
}

fn served_key(slot: u32) -> u32 {
    slot * 2 + 1
}
