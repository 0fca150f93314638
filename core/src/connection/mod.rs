//! One connection as a value: bytes and time in, bytes and events out.

mod assembly;
mod bodies;
mod calls;
mod credit;
mod drain;
mod floods;
mod inbound;
mod items;
mod liveness;
mod outbound;
mod plain;
mod receive;
mod replies;
mod requests;
mod send;
mod served;
mod state;
mod stream;
mod streams;

use alloc::boxed::Box;
use alloc::collections::VecDeque;
use alloc::rc::Rc;
use core::fmt;
use core::time::Duration;

use ringcall_buf::{Chunk, ChunkMut, ObjectError};

use crate::frame::{Cancel, CancelReason, GoAway, Hello, Kind, Limits, Ping, ReplyHeader};
use crate::payload::Empty;
use crate::wheel::Wheel;
use crate::{
    Attached, CallId, Cause, CloseCode, CloseReason, Codec, Config, Counters, EncodeError,
    Encoding, Failure, Instant, Memory, MessageId, Payload, Refused, RequestId, Side, Status,
    StreamId,
};

use assembly::Siblings;
pub use assembly::{Write, Written};
use calls::Calls;
use credit::{Allowance, Window};
use drain::Retirement;
use floods::Floods;
use inbound::{Found, Inbound};
use liveness::Liveness;
use outbound::Outbound;
pub use outbound::SendQueue;
use served::Served;
use state::{CallState, ConnectionInput, ConnectionState, ServedState};
use streams::Crowded;
pub use streams::{Item, ItemError};

/// Bodies of which at least this much is still to come are worth receiving straight into their own
/// memory.
pub const LAND_BYTES_MIN: usize = 64 * 1024;

/// How many bytes a second the other side must read at least while something waits for it.
const SEND_RATE_MIN: u64 = 1024;

/// Beyond so many bytes that wait to be written to objects nothing is received.
const WRITES_BYTES_MAX: usize = 1024 * 1024;

/// How long a connection that is over waits for a transport to take its GOAWAY.
const LAST_WORD_TIMEOUT: Duration = Duration::from_secs(1);

/// Longer [credentials](Connection::present) do not fit into a HELLO.
pub const CREDENTIALS_BYTES_MAX: usize = 3996;

/// Credentials are longer than [`CREDENTIALS_BYTES_MAX`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CredentialsTooLong;

impl fmt::Display for CredentialsTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "credentials of a connection have {CREDENTIALS_BYTES_MAX} bytes at most")
    }
}

impl core::error::Error for CredentialsTooLong {}

/// What either side shows with its HELLO.
#[derive(Default)]
struct Credentials {
    own: Option<Box<[u8]>>,
    peer: Option<Box<[u8]>>,
}

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
    config: Rc<Config>,
    bounds: Bounds,
    memory: Memory,
    /// What the other side said in its HELLO and LIMITS.
    peer: Option<Hello>,
    credentials: Credentials,
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
    /// Rare events; ordinary ones are parsed when they are asked for.
    events: VecDeque<Event<T>>,
    /// How many bodies are arriving in parts.
    landing: Siblings,
    /// Where the body of the large frame that is arriving goes.
    body_target: BodyTarget,
    /// What was received and goes to objects, and how much of it is not written yet.
    writes: VecDeque<Write>,
    writes_bytes: usize,
    /// Bytes given to the transport so far.
    given: u64,
    /// Memory was short when bytes last arrived: bodies should not pin what they arrived in.
    copies_bodies: bool,
    /// A frame whose body waits for the landing budget.
    stalled: Option<Found>,
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
    /// What the other side was told last, and has not confirmed yet.
    announced: Option<Limits>,
    counters: Counters,
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

/// Looks after what must make progress.
#[derive(Debug)]
struct Watch {
    /// When to look again; [`Instant::FAR`] if nothing needs to.
    at: Instant,
    /// When the other side's HELLO must be here; [`Instant::FAR`] once it is.
    handshake: Instant,
    /// When bytes last arrived.
    received: Instant,
    /// Bytes given to the transport that it has not sent yet.
    unsent: usize,
    send_progress: Instant,
    /// Since when there is something that it has not sent.
    backlog: Instant,
    /// When its pace was last looked at, and how much it had sent by then.
    paced: Instant,
    paced_sent: u64,
    /// How soon to look after something was sent.
    every: Duration,
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

#[derive(Clone, Copy, Debug)]
struct Ending {
    reason: CloseReason,
    next_call: u32,
    next_served: u32,
    told: bool,
}

/// What a connection has to say to its application.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<T> {
    /// The other side's HELLO has arrived: calls may be made.
    Established(Hello),
    /// The other side makes a call; answer it with [`Connection::reply`].
    Request(Request),
    /// Nobody waits for this call any more: stop working on it, then answer it all the same, with a
    /// status. The answer gives its slot back.
    Cancelled(RequestId, Cancellation),
    /// A call of this side has ended. Its ticket comes back, exactly once.
    Completed(T, Outcome),
    /// The other side has begun to answer a call of this side with a stream: items follow, and the end
    /// of the call with its ticket. The reply has no body.
    Answering(CallId, Reply),
    /// An item of a stream. Say [`consumed`](Connection::consumed) when it is no longer held, exactly
    /// once an item, whether or not its call still exists.
    Item(StreamId, Item),
    /// The caller sends no further items.
    ItemsEnd(RequestId),
    /// A stream that was [`Blocked`](ItemError::Blocked) may go on.
    Writable(StreamId),
    /// The other side has answered a [`ping`](Connection::ping).
    Pong([u8; 16]),
    /// The other side takes no new calls.
    GoAway(CloseCode),
    /// The connection is over; nothing follows. Frames may still wait to be sent, among them the
    /// GOAWAY that tells the other side why.
    Closed(CloseReason),
}

/// Why nobody waits for a call any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cancellation {
    /// The caller said so.
    Caller(CancelReason),
    /// Its deadline passed, see [`Connection::watch_deadline`].
    Expired,
    /// Its caller's stream was open and nothing happened, see
    /// [`Config::stream_idle_timeout`](crate::Config::stream_idle_timeout).
    Idle,
    /// An item could not be sent to its end, because its file could not be read.
    Unreadable,
    /// The connection ended.
    Closed,
}

/// A call that the other side makes.
#[derive(Clone, Debug)]
pub struct Request {
    /// Names the call in [`Connection::reply`].
    pub id: RequestId,
    /// Which method, see [`method_id`](crate::method_id).
    pub method: u64,
    /// Shapes of the argument.
    pub in_signature: u64,
    /// Shapes that the caller reads.
    pub out_signature: u64,
    /// When the caller stops waiting; [`Instant::FAR`] if it does not say.
    pub deadline: Instant,
    /// When the request was complete.
    pub received: Instant,
    /// How the body is encoded.
    pub codec: Codec,
    /// How the encoded body is compressed: 0, or one of [`Config::compressions`](crate::Config::compressions).
    pub compression: u8,
    /// 0 is the most ordinary.
    pub priority: u8,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// See [`request_flags`](crate::frame::request_flags).
    pub flags: u8,
    /// The body, at a multiple of 16, where it landed.
    pub body: Chunk,
    /// What of it is beside the message.
    pub attached: Attached,
    /// The TLVs of the header, see [`Extensions`](crate::frame::Extensions); their form has been checked.
    pub extensions: Chunk,
}

/// How a call ended for its caller.
#[derive(Debug)]
#[non_exhaustive]
pub enum Outcome {
    /// The other side has answered, if only with a refusal.
    Reply(Reply),
    /// A one-way call was taken by the transport. It may run.
    Sent,
    /// There is no answer.
    Failed(Failure),
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Reply {
    /// Status, signature and what the server says of itself.
    pub header: ReplyHeader,
    /// The body, at a multiple of 16, where it landed.
    pub body: Chunk,
    /// What of it is beside the message.
    pub attached: Attached,
    /// The TLVs of the header, see [`Extensions`](crate::frame::Extensions); their form has been checked.
    pub extensions: Chunk,
}

impl Outcome {
    /// The answer of the handler, value or error; everything else is a failure.
    pub fn into_answer(self) -> Result<Reply, Failure> {
        match self {
            Outcome::Reply(reply) => {
                let ReplyHeader { status, retry_after_ms, .. } = reply.header;
                match Failure::from_status(status, retry_after_ms) {
                    None => Ok(reply),
                    Some(failure) => Err(failure),
                }
            }
            Outcome::Sent => Err(Failure::unknown(Cause::BadReply)),
            Outcome::Failed(failure) => Err(failure),
        }
    }
}

/// A call to make.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    /// Which method, see [`method_id`](crate::method_id).
    pub method: u64,
    /// Shapes of the argument.
    pub in_signature: u64,
    /// Shapes that this side reads.
    pub out_signature: u64,
    /// When this side stops waiting.
    pub deadline: Instant,
    /// How the argument is encoded.
    pub codec: Codec,
    /// How its encoding is compressed, which the payload does: 0 not at all.
    pub compression: u8,
    /// 0 is the most ordinary.
    pub priority: u8,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// [`ONE_WAY`](crate::frame::request_flags::ONE_WAY), `ITEMS_IN`, `ITEMS_OUT`, `RETRIED` and
    /// `IDEMPOTENT`; others are ignored.
    pub flags: u8,
}

/// Why an answer could not be sent as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// The call is not running: it was answered already, or its connection is gone.
    NotRunning,
    /// The body could not be encoded; the caller gets
    /// [`REPLY_FAILED`](crate::Status::REPLY_FAILED) instead.
    Encode(EncodeError),
}

impl fmt::Display for ReplyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ReplyError::NotRunning => f.write_str("the call was answered already or is gone"),
            ReplyError::Encode(error) => write!(f, "the reply could not be sent: {error}"),
        }
    }
}

impl core::error::Error for ReplyError {}

/// What a connection wants from its transport next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiveHint {
    /// Whatever comes.
    More,
    /// The next `len` bytes are one body: receive them into the buffer of
    /// [`Connection::begin_landing`], not beyond.
    Land {
        /// How many bytes.
        len: usize,
    },
    /// Nothing until something changes.
    Pause,
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
                calls_in: Window::new(config.calls_window),
                replies_in: Window::new(config.replies_window),
                call_items_out: Allowance::default(),
                reply_items_out: Allowance::default(),
                call_items_in: Window::new(stream::pool_items(config.calls_window)),
                reply_items_in: Window::new(stream::pool_items(config.replies_window)),
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
                every: config.look_after_every(),
            },
            liveness: Liveness::new(),
            floods: Floods::new(now),
            retirement: Retirement::new(side, &config, now),
            crowded: Crowded::default(),
            open_inputs: 0,
            events: VecDeque::new(),
            landing: Siblings::default(),
            body_target: BodyTarget::Nothing,
            writes: VecDeque::new(),
            writes_bytes: 0,
            given: 0,
            copies_bodies: false,
            stalled: None,
            unknown_replies: Strikes::new(now),
            ignored: Strikes::new(now),
            ending: None,
            goaway_sent: None,
            goaway_received: None,
            input_ended: false,
            in_flight_max: config.in_flight_max,
            message_bytes_max: config.message_bytes_max,
            announced: None,
            counters: Counters::default(),
            peer: None,
            credentials: Credentials::default(),
            memory,
            config,
        }
    }

    // ---- in ----

    /// Bytes have arrived, the next in their order. To have bodies land aligned, a transport that can
    /// choose starts a chunk at an address that is, modulo 16, the number of bytes received before
    /// it, plus 8.
    pub fn handle_received(&mut self, now: Instant, chunk: Chunk) {
        self.counters.bytes_received += chunk.len() as u64;
        if chunk.is_empty() || self.ending.is_some() || self.input_ended {
            return;
        }
        self.watch.received = now;
        self.copies_bodies = self.memory.is_hoarded();
        self.inbound.push(chunk);
    }

    /// The buffer of [`begin_landing`](Self::begin_landing) comes back with more bytes in it.
    pub fn handle_landed(&mut self, now: Instant, buffer: ChunkMut, n: usize) {
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
    pub fn handle_input_end(&mut self, _now: Instant) {
        self.input_ended = true;
    }

    /// Of the bytes received, the byte layer had copied so many.
    #[inline]
    pub(crate) fn count_copied(&mut self, bytes: u64) {
        self.counters.copied_tls += bytes;
    }

    /// The transport's connection is gone.
    pub fn handle_closed(&mut self, now: Instant, reason: CloseReason) {
        self.outbound.clear();
        self.end(now, reason);
        self.step(ConnectionInput::Gone);
    }

    /// The transport has sent `n` more bytes of what it was given.
    pub fn handle_transmitted(&mut self, now: Instant, n: usize) {
        self.counters.bytes_sent += n as u64;
        self.watch.unsent = self.watch.unsent.saturating_sub(n);
        if n > 0 {
            self.watch.send_progress = now;
        }
        self.outbound.transmitted(self.counters.bytes_sent);
    }

    /// The transport could not read a range of an object that it was given, of this
    /// [owner](ringcall_buf::External::owner): it sends zeros instead. To be told before
    /// [`handle_transmitted`](Self::handle_transmitted) counts them. The body's call ends with an error on
    /// both sides.
    pub fn handle_unreadable(&mut self, _now: Instant, owner: u64, error: ObjectError) {
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
    pub fn handle_written(&mut self, _now: Instant, written: Written) {
        if self.ending.is_none() {
            self.write_done(written);
        }
    }

    /// The time that [`poll_timeout`](Self::poll_timeout) said has come. Calling it early or late is
    /// harmless.
    pub fn handle_timeout(&mut self, now: Instant) {
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
        self.poll_next(now)
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
        if !self.events.is_empty() || self.stalled.is_some() || self.copies_bodies {
            return 0;
        }
        self.plain_items(now, Some(stream.0), max, |_, item| take(item))
    }

    /// The next event, whatever it is.
    #[inline(never)]
    fn poll_any(&mut self, now: Instant) -> Option<Event<T>> {
        if self.is_at_rest() {
            return None;
        }
        while let Some(event) = self.events.pop_front() {
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
                self.events.pop_front().or_else(|| self.hand_back())
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
        let mut queue = Counted { queue, bytes: 0, external: 0 };
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
                || self.credit.calls_in.is_grant_due()
                || self.credit.replies_in.is_grant_due()
                || self.limits_ack_is_due())
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
        if self.stalled.is_some() || self.ending.is_some() || self.is_paused() {
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
        self.body_assembly()?.lend()
    }

    /// The next bytes of a body that go to an object, from where they were received. Whoever drives the
    /// connection writes them and says so with [`handle_written`](Self::handle_written).
    #[inline]
    pub fn poll_write(&mut self) -> Option<Write> {
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
        self.make_call(now, call, payload, ticket)
    }

    /// Gives a call up. Its ticket comes back; the other side is told once, and the slot is free again
    /// when it has answered. `None` if the call has ended already.
    pub fn cancel(&mut self, _now: Instant, id: CallId, reason: CancelReason) -> Option<T> {
        let ticket = self.calls.find(id.0)?.ticket.take()?;
        self.counters.calls_cancelled += 1;
        self.counters.calls_ended += 1;
        self.give_up(id.0, reason);
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
        self.answer(now, id, header, payload)
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
        self.send_stream_item(now, stream, encoding, payload)
    }

    /// Ends the stream of items that belongs to the argument of a call. Its answer follows.
    pub fn end_items(&mut self, _now: Instant, call: CallId) {
        self.end_stream(call);
    }

    /// An item with a body of `bytes` is no longer held: its sender may send more.
    pub fn consumed(&mut self, stream: StreamId, bytes: usize) {
        self.items_consumed(stream, 1, bytes);
    }

    /// So many items of a stream, with bodies of `bytes` together, are no longer held. Whoever collects them must
    /// say so before it waits for anything, since another stream may need their credit.
    pub fn consumed_many(&mut self, stream: StreamId, items: usize, bytes: usize) {
        self.items_consumed(stream, items, bytes);
    }

    /// Refuses a request whose time was over before its handler could start, and counts it apart.
    pub fn refuse_expired(&mut self, now: Instant, id: RequestId) {
        let header = ReplyHeader::new(Status::EXPIRED);
        if self.answer(now, id, header, &Empty).is_ok() {
            self.counters.requests_refused += 1;
            self.counters.requests_expired += 1;
        }
    }

    /// Has [`Event::Cancelled`] come when the deadline of a running call passes. For calls that are
    /// not answered at once; those that are need no timer.
    pub fn watch_deadline(&mut self, id: RequestId, deadline: Instant) {
        let Some(slot) = self.served.find(id.id) else { return };
        if slot.state == ServedState::Running
            && deadline != Instant::FAR
            && !bug!("served_deadline_not_watched")
        {
            slot.is_watched = true;
            self.deadlines.arm(served_key(id.id.slot()), deadline);
        }
    }

    /// Asks the other side for a sign of life; [`Event::Pong`] brings `opaque` back. One that was not
    /// sent yet is replaced. It waits until the one before is answered and
    /// [`Config::ping_interval_min`] ago, since the other side counts.
    pub fn ping(&mut self, now: Instant, opaque: [u8; 16]) {
        if self.ending.is_none() {
            self.want_ping(now, Ping { opaque });
        }
    }

    /// Tells the other side to stop making calls. With `refuse`, calls that have not arrived yet will
    /// not be run; without, it is only asked to stop soon. Calls in progress are finished; when the
    /// last one is, the connection closes. [`drain`](Self::drain) does both, in such a way that no call
    /// is lost.
    pub fn go_away(&mut self, now: Instant, refuse: bool) {
        if !matches!(self.state, ConnectionState::Open | ConnectionState::Draining) {
            return;
        }
        let accepted = if refuse { self.counters.requests_taken } else { GoAway::SOON };
        self.announce(accepted);
        let _ = self.after_input(now).map(|event| self.events.push_back(event));
    }

    /// Changes how many calls the other side may have in flight and how large its messages may be. A
    /// higher limit holds at once, a lower one when the other side has confirmed it.
    ///
    /// # Panics
    /// When `message_bytes_max` is more than half of a window, since a message of that size might never
    /// get credit; or when `in_flight_max` is zero.
    pub fn set_limits(&mut self, in_flight_max: u32, message_bytes_max: usize) {
        let window = self.config.calls_window.min(self.config.replies_window);
        assert!(in_flight_max > 0, "`in_flight_max` must be at least 1");
        assert!(
            message_bytes_max as u64 <= window / 2,
            "`message_bytes_max` must be at most half of `calls_window` and `replies_window`"
        );
        self.in_flight_max = self.in_flight_max.max(in_flight_max);
        self.message_bytes_max = self.message_bytes_max.max(message_bytes_max);
        if self.peer.is_some() {
            self.inbound.set_body_max(self.message_bytes_max);
        }
        let limits = Limits { in_flight_max, message_bytes_max: message_bytes_max as u64 };
        self.fence_is_passed();
        self.control.limits = Some(limits);
        self.announced = Some(limits);
    }

    /// Shows the other side who this is, with the HELLO: before anything was sent.
    ///
    /// # Errors
    /// When they are longer than [`CREDENTIALS_BYTES_MAX`].
    pub fn present(&mut self, credentials: &[u8]) -> Result<(), CredentialsTooLong> {
        if credentials.len() > CREDENTIALS_BYTES_MAX {
            return Err(CredentialsTooLong);
        }
        self.credentials.own = Some(credentials.into());
        Ok(())
    }

    /// Ends the connection: tells the other side, and hands back all calls.
    pub fn close(&mut self, now: Instant, reason: CloseReason) {
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

    /// What the other side showed with its HELLO to prove who it is. Nobody has checked it yet.
    #[must_use]
    pub fn credentials(&self) -> Option<&[u8]> {
        self.credentials.peer.as_deref()
    }

    /// Whether calls may be made now.
    #[inline]
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.state == ConnectionState::Open
    }

    /// Whether [`poll_event`](Self::poll_event) should be asked although nothing was handled since:
    /// after something was sent, or when it was not asked until it said `None`.
    #[inline]
    #[must_use]
    pub fn wants_poll(&self) -> bool {
        !self.events.is_empty()
            || (!self.parked.is_empty() && !self.is_choked())
            || (!self.inbound.is_drained() && self.stalled.is_none() && !self.is_paused())
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

    /// Whether [`Event::Closed`] has been handed out: nothing follows.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.ending.is_some_and(|ending| ending.told)
    }

    /// Whether this call, the last one that was made, has to wait until the other side gives credit for
    /// its body.
    #[must_use]
    pub fn waits_for_credit(&self, call: CallId) -> bool {
        self.outbound.held_calls.back().is_some_and(|body| body.id == call.0)
    }

    /// Whether nothing has come, or is left to do.
    fn is_at_rest(&self) -> bool {
        self.state == ConnectionState::Open
            && self.inbound.is_at_rest()
            && self.stalled.is_none()
            && self.events.is_empty()
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

    /// Body bytes of the other side that this side holds: of calls, and of replies.
    #[must_use]
    pub fn credit_held(&self) -> (u64, u64) {
        (self.credit.calls_in.held(), self.credit.replies_in.held())
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

    // ---- the end ----

    fn step(&mut self, input: ConnectionInput) {
        if let Some(next) = self.state.on(input) {
            self.state = next;
        }
    }

    /// Ends the connection because of this side's decision or the other side's fault.
    fn fail(&mut self, now: Instant, reason: CloseReason) {
        if self.ending.is_some() {
            return;
        }
        // What no transport took is not sent any more, so that it can be said of calls.
        if !bug!("sent_after_the_end") {
            self.outbound.clear();
        }
        self.end(now, reason);
        match (self.state, reason) {
            // Someone who does not speak the protocol, or does not read, gets no last word.
            (ConnectionState::Preface, _) | (_, CloseReason::SendStalled) => {
                self.step(ConnectionInput::Gone);
            }
            _ => {
                if reason == CloseReason::Local {
                    self.cancel_sent_calls();
                }
                let taken = self.counters.requests_taken;
                let accepted = self.goaway_sent.map_or(taken, |sent| sent.min(taken));
                self.send_go_away(accepted, reason.code());
                self.step(ConnectionInput::Close);
            }
        }
    }

    /// Nobody will read the answers. The other side could not tell that from a stream that has only ended in
    /// this direction, and would finish the calls for nobody.
    fn cancel_sent_calls(&mut self) {
        if self.calls.live() == 0 {
            return;
        }
        let taken = self.outbound.taken();
        for slot in 0..self.calls.slots() {
            let Some(entry) = self.calls.at(slot) else { continue };
            let was_sent = entry.number != 0 && entry.number <= taken;
            // Also if it was cancelled: that may have been among what was not sent.
            if was_sent && let Some(id) = self.calls.id_at(slot) {
                let cancel = Cancel { reason: CancelReason::Dropped };
                self.push_control(Kind::Cancel, id, &cancel.encode());
            }
        }
    }

    /// From now on nothing is received, and calls are handed back.
    fn end(&mut self, now: Instant, reason: CloseReason) {
        if self.ending.is_none() {
            self.ending = Some(Ending { reason, next_call: 0, next_served: 0, told: false });
            self.inbound.clear();
            self.stalled = None;
            self.writes.clear();
            self.parked.clear();
            self.body_target = BodyTarget::Nothing;
            self.control = Control { hello: self.control.hello, ..Control::default() };
            // The last word must leave soon, or it is left unsaid.
            self.watch.at = now + LAST_WORD_TIMEOUT;
        }
    }

    /// Hands back one call after the end: first those of this side, then those of the other, then
    /// says that it is over.
    fn hand_back(&mut self) -> Option<Event<T>> {
        let mut ending = self.ending?;
        let event = self.hand_back_next(&mut ending);
        self.ending = Some(ending);
        event
    }

    fn hand_back_next(&mut self, ending: &mut Ending) -> Option<Event<T>> {
        let cause = match ending.reason {
            CloseReason::GoAway(_) => Cause::GoAway,
            reason => Cause::Closed(reason),
        };
        let taken = self.outbound.taken();
        while ending.next_call < self.calls.slots() {
            let slot = ending.next_call;
            ending.next_call += 1;
            let Some(entry) = self.calls.at(slot) else { continue };
            let was_sent = entry.number != 0 && entry.number <= taken;
            let ticket = entry.ticket.take();
            if let Some(arriving) = &mut entry.arriving {
                self.credit.replies_in.release(arriving.ignore());
            }
            if let Some(id) = self.calls.id_at(slot) {
                self.stop_streams(id);
            }
            self.calls.step(slot, state::CallInput::End);
            if let Some(ticket) = ticket
                && !bug!("lost_completion")
            {
                self.counters.calls_ended += 1;
                return Some(Event::Completed(ticket, Outcome::Failed(ended(was_sent, cause))));
            }
        }
        if let Some((number, ticket)) = self.one_ways.pop_front() {
            self.counters.calls_ended += 1;
            let failure = ended(number <= taken, cause);
            return Some(Event::Completed(ticket, Outcome::Failed(failure)));
        }
        while ending.next_served < self.served.slots() {
            let slot = ending.next_served;
            ending.next_served += 1;
            let Some(served) = self.served.at(slot) else { continue };
            let (id, state) = (served.id, served.state);
            self.deadlines.cancel(served_key(slot));
            match state {
                // Its answer, which can no longer be sent, frees the slot.
                ServedState::Running | ServedState::Streaming => {
                    self.stop_streams(id);
                    self.served.step(slot, state::ServedInput::Cancel);
                    let id = RequestId { id, one_way: None };
                    return Some(Event::Cancelled(id, Cancellation::Closed));
                }
                ServedState::Cancelling => {}
                _ => {
                    let arriving = served.arriving.as_mut().map_or(0, |arriving| arriving.ignore());
                    let charged = arriving + core::mem::take(&mut served.charged);
                    self.credit.calls_in.release(charged);
                    self.stop_streams(id);
                    self.served.step(slot, state::ServedInput::End);
                }
            }
        }
        if !ending.told {
            ending.told = true;
            return Some(Event::Closed(ending.reason));
        }
        None
    }

    /// Nothing can be parsed now: is it over?
    fn after_input(&mut self, now: Instant) -> Option<Event<T>> {
        if self.input_ended {
            self.after_input_end(now);
        } else if self.state == ConnectionState::Draining && self.is_idle() {
            // Whoever refuses further calls may go when the last one is answered, and whoever was
            // asked to stop may go when its own are.
            let refuses = self.goaway_sent.is_some_and(|accepted| accepted != GoAway::SOON);
            if refuses || self.goaway_received.is_some() {
                self.fail(now, CloseReason::Local);
            }
        }
        self.events.pop_front().or_else(|| self.hand_back())
    }

    /// Nothing more will come. What has arrived whole is answered; what has not never will be.
    fn after_input_end(&mut self, now: Instant) {
        if self.ending.is_some() || self.is_paused() || self.stalled.is_some() {
            return;
        }
        if self.inbound.is_inside_frame() && !bug!("e03") {
            return self.fail(now, self.inbound.cut_off());
        }
        // Nobody will answer our calls any more, nor give credit or items to streams. There are no new ones:
        // they would have the slots of calls that still run over there.
        self.step(ConnectionInput::GoAway);
        self.end_own_calls(CloseReason::PeerClosed);
        self.cancel_served_streams();
        let is_waiting = self.served.running() > 0 || !self.outbound.is_only_held_replies();
        if is_waiting || !self.events.is_empty() {
            return;
        }
        // What is left waits for a body or for credit that cannot come.
        let is_cut = self.served.arriving().next().is_some();
        self.fail(now, if is_cut { CloseReason::Truncated } else { CloseReason::PeerClosed });
    }

    fn end_own_calls(&mut self, reason: CloseReason) {
        if self.calls.live() == 0 {
            return;
        }
        let mut ending = Ending { reason, next_call: 0, next_served: u32::MAX, told: true };
        while let Some(event) = self.hand_back_next(&mut ending) {
            self.events.push_back(event);
        }
    }

    fn cancel_served_streams(&mut self) {
        for slot in 0..self.served.slots() {
            let Some(served) = self.served.at(slot) else { continue };
            let id = served.id;
            let is_running = matches!(served.state, ServedState::Running | ServedState::Streaming);
            if served.streams.is_none() {
                continue;
            }
            self.stop_streams(id);
            if is_running && self.served.step(slot, state::ServedInput::Cancel) {
                let id = RequestId { id, one_way: None };
                self.events.push_back(Event::Cancelled(id, Cancellation::Closed));
            }
        }
    }

    fn is_idle(&self) -> bool {
        self.calls.live() == 0
            && self.served.live() == 0
            && self.served.one_ways == 0
            && self.one_ways.is_empty()
            && self.outbound.is_empty()
    }

    // ---- time ----

    fn expire(&mut self, now: Instant, key: u32) {
        let slot = key / 2;
        if key.is_multiple_of(2) {
            self.calls.set_listed(slot, Instant::FAR);
            let Some(id) = self.calls.id_at(slot) else { return };
            let Some(entry) = self.calls.at(slot) else { return };
            if entry.deadline > now {
                // The call that it was listed for has ended; this one has more time.
                let deadline = entry.deadline;
                return self.list_deadline(slot, deadline);
            }
            let held = entry.state == CallState::Held;
            let Some(ticket) = entry.ticket.take() else { return };
            self.counters.calls_expired += 1;
            self.counters.calls_ended += 1;
            self.give_up(id, CancelReason::Expired);
            let failure = ended(!held, Cause::Expired);
            self.events.push_back(Event::Completed(ticket, Outcome::Failed(failure)));
        } else {
            let Some(served) = self.served.at(slot) else { return };
            let id = RequestId { id: served.id, one_way: None };
            // Whoever was told already is not told again.
            let is_running = served.state == ServedState::Running;
            if is_running && self.served.step(slot, state::ServedInput::Cancel) {
                self.stop_streams(id.id);
                self.events.push_back(Event::Cancelled(id, Cancellation::Expired));
            }
        }
    }

    /// Has the wheel say a call's key when its time is over.
    #[cold]
    fn list_deadline(&mut self, slot: u32, deadline: Instant) {
        self.calls.set_listed(slot, deadline);
        self.deadlines.arm(call_key(slot), deadline);
    }

    /// Looks whether what must make progress does.
    fn look_after(&mut self, now: Instant) {
        self.watch.at = Instant::FAR;
        if self.ending.is_some() {
            // Nobody took the last word.
            self.outbound.clear();
            return self.step(ConnectionInput::Gone);
        }
        if self.watch.handshake <= now && !bug!("c10") {
            return self.fail(now, CloseReason::HandshakeTimeout);
        }
        self.look_after_by(self.watch.handshake);
        self.look_after_retirement(now);
        let stall = self.config.stall_timeout;
        if self.watch.unsent > 0 {
            if self.watch.send_progress + stall <= now {
                return self.fail(now, CloseReason::SendStalled);
            }
            self.look_after_by(self.watch.send_progress + stall);
            if self.is_taken_too_slowly(now) && !bug!("no_trickle_limit") {
                return self.fail(now, CloseReason::SendStalled);
            }
        }
        if self.open_inputs > 0 {
            self.look_after_streams(now);
        }
        if self.stalled.is_some() {
            // The landing budget may have room again; `poll_event` tries. Meanwhile it is not the other
            // side that does not go on.
            self.watch.received = now;
            return self.look_after_by(now + Wheel::TICK);
        }
        if self.writes_bytes > 0 {
            // It is this side's disk that is slow.
            self.watch.received = now;
        }
        let mut oldest = Instant::FAR;
        if self.inbound.is_inside_frame() {
            oldest = self.watch.received;
        }
        if self.landing.any() {
            let requests = self.served.arriving().map(|arriving| arriving.progress);
            let replies = self.calls.arriving().filter(|arriving| !arriving.is_being_written());
            let replies = replies.map(|arriving| arriving.progress);
            let items = self.served.items_progress().chain(self.calls.items_progress());
            oldest = requests.chain(replies).chain(items).fold(oldest, Instant::min);
        }
        if oldest + stall <= now && !bug!("a04") {
            return self.fail(now, CloseReason::BodyStalled);
        }
        self.look_after_by(oldest + stall);
        if let Err(reason) = self.keep_alive(now) {
            self.fail(now, reason);
        }
    }

    /// Whether the transport could send less than a trickle for a whole `stall_timeout`.
    fn is_taken_too_slowly(&mut self, now: Instant) -> bool {
        let (stall, sent) = (self.config.stall_timeout, self.counters.bytes_sent);
        let watch = &mut self.watch;
        let is_due = watch.paced + stall <= now;
        if is_due && watch.backlog <= watch.paced {
            let least = SEND_RATE_MIN * stall.as_millis() as u64 / 1000;
            if sent - watch.paced_sent < least {
                return true;
            }
        }
        if is_due || watch.backlog > watch.paced {
            (watch.paced, watch.paced_sent) = (now, sent);
        }
        self.look_after_by(self.watch.paced + stall);
        false
    }

    #[inline]
    fn look_after_by(&mut self, at: Instant) {
        self.watch.at = self.watch.at.min(at);
    }

    /// Whether the other side must read replies before its calls are run.
    #[inline]
    fn is_choked(&self) -> bool {
        self.outbound.queued_replies() >= self.bounds.queue_soft
    }

    /// Whether nothing is parsed for now: so many one-way calls are in progress, of which nothing else
    /// limits the number; or so many small answers wait that the other side does not read. Whoever keeps
    /// the protocol causes neither for long.
    #[inline]
    fn is_paused(&self) -> bool {
        self.served.one_ways >= self.in_flight_max
            || self.outbound.ready_bytes() >= self.bounds.queue_max
            || self.writes_bytes >= WRITES_BYTES_MAX
    }

    /// Whether the body that is arriving has memory that the transport could receive into.
    fn can_land(&self) -> bool {
        let assembly = match self.body_target {
            BodyTarget::Nothing => None,
            BodyTarget::Request(id) => self.served.arriving_at(id),
            BodyTarget::Reply(id) => self.calls.arriving_at(id),
            BodyTarget::Item(id) if id.side() == self.side => self.calls.item_at(id),
            BodyTarget::Item(id) => self.served.item_at(id),
        };
        assembly.is_some_and(assembly::Assembly::can_lend)
    }
}

impl Control {
    #[inline]
    fn is_waiting(&self) -> bool {
        self.hello
            || self.pong.is_some()
            || self.ping.is_some()
            || self.limits.is_some()
            || self.has_stream_credit
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
}

impl<Q: SendQueue> SendQueue for Counted<'_, Q> {
    fn room(&self) -> usize {
        self.queue.room()
    }

    fn push(&mut self, segment: ringcall_buf::Segment) {
        self.bytes += segment.len();
        if let ringcall_buf::Segment::External(range) = &segment {
            self.external += range.len();
        }
        self.queue.push(segment);
    }
}

fn ended(was_sent: bool, cause: Cause) -> Failure {
    if was_sent && !bug!("unknown_told_as_not_sent") {
        Failure::unknown(cause)
    } else {
        Failure::not_sent(cause)
    }
}

fn call_key(slot: u32) -> u32 {
    slot * 2
}

fn served_key(slot: u32) -> u32 {
    slot * 2 + 1
}
