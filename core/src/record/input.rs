//! What goes into a connection, as records have it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use ringcall_buf::ObjectError;

use super::pieces::Pieces;
use super::values::{fields, numbered};
use crate::frame::{CancelReason, ReplyHeader};
use crate::{Call, CallId, CloseReason, EncodeError, Encoding, Instant, RequestId, StreamId};

/// Something that was done with a [`Connection`](crate::Connection): a method, and its arguments.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Input<'a> {
    /// `handle_received`.
    Received {
        /// Where the chunk began, modulo 64: bodies that are not aligned are copied.
        phase: u8,
        /// What was in it.
        bytes: Pieces<'a>,
    },
    /// `handle_landed`.
    Landed {
        /// How large the buffer is.
        capacity: usize,
        /// How much of it was full before.
        filled: usize,
        /// What came to it.
        bytes: Pieces<'a>,
    },
    /// `handle_input_end`.
    InputEnd,
    /// `handle_closed`.
    Closed {
        /// Why.
        reason: CloseReason,
    },
    /// `handle_transmitted`.
    Transmitted {
        /// How many bytes.
        bytes: usize,
    },
    /// `handle_unreadable`.
    Unreadable {
        /// Whose range.
        owner: u64,
        /// Why.
        error: ObjectError,
    },
    /// `handle_written`.
    Written {
        /// Whose bytes.
        owner: u64,
        /// How many.
        len: usize,
        /// What has become of them.
        result: Result<(), ObjectError>,
    },
    /// `handle_timeout`.
    Timeout,
    /// `poll_event`.
    PollEvent,
    /// `poll_items`.
    PollItems {
        /// Of which stream.
        stream: StreamId,
        /// At most so many.
        max: u32,
    },
    /// `poll_transmit`.
    PollTransmit {
        /// How many bytes the queue took.
        bytes: usize,
        /// Whether it had no room for more.
        is_full: bool,
        /// What they were, in records that cannot be replayed.
        sent: Option<Pieces<'a>>,
    },
    /// `begin_landing`.
    BeginLanding,
    /// `poll_write`.
    PollWrite,
    /// `call`.
    Call {
        /// Its header.
        call: Call,
        /// Its body.
        payload: RecordedPayload<'a>,
    },
    /// `cancel`.
    Cancel {
        /// Which.
        call: CallId,
        /// Why.
        reason: CancelReason,
    },
    /// `reply`.
    Reply {
        /// Which.
        request: RequestId,
        /// Its header.
        header: ReplyHeader,
        /// Its body.
        payload: RecordedPayload<'a>,
    },
    /// `begin_items`.
    BeginItems {
        /// Which.
        request: RequestId,
        /// Its header.
        header: ReplyHeader,
        /// The rest of the header.
        extensions: Pieces<'a>,
    },
    /// `send_item`.
    SendItem {
        /// Of which stream.
        stream: StreamId,
        /// Its header.
        encoding: Encoding,
        /// Its body.
        payload: RecordedPayload<'a>,
    },
    /// `end_items`.
    EndItems {
        /// Which.
        call: CallId,
    },
    /// `consumed` and `consumed_many`.
    Consumed {
        /// Of which stream.
        stream: StreamId,
        /// How many.
        items: usize,
        /// How long they were together.
        bytes: usize,
    },
    /// `refuse_expired`.
    RefuseExpired {
        /// Which.
        request: RequestId,
    },
    /// `watch_deadline`.
    WatchDeadline {
        /// Which.
        request: RequestId,
        /// When.
        deadline: Instant,
    },
    /// `ping`.
    Ping {
        /// What comes back.
        opaque: [u8; 16],
    },
    /// `go_away`.
    GoAway {
        /// Whether calls that have not arrived yet are refused.
        refuse: bool,
    },
    /// `drain`.
    Drain,
    /// `drain_at`.
    DrainAt {
        /// When.
        at: Instant,
    },
    /// `set_limits`.
    SetLimits {
        /// How many calls.
        in_flight_max: u32,
        /// How large messages.
        message_bytes_max: usize,
    },
    /// `present`.
    Present {
        /// What is shown; always hidden.
        credentials: Pieces<'a>,
    },
    /// `introduce`.
    Introduce {
        /// Who this side says it is; never hidden.
        identity: Pieces<'a>,
    },
    /// `expect_peer`.
    ExpectPeer {
        /// Who the other side has to be; never hidden.
        identity: Pieces<'a>,
        /// Whether it has to say so.
        is_required: bool,
    },
    /// `close`.
    Close {
        /// Why.
        reason: CloseReason,
    },
}

/// A message as it was encoded, and what went with it.
#[derive(Clone, Copy, Debug)]
pub struct RecordedPayload<'a> {
    /// Its body.
    pub body: RecordedBody<'a>,
    /// What goes with it in the header.
    pub extensions: Pieces<'a>,
    /// How much room there is where the attachment of the reply goes, if not to memory.
    pub landing: Option<usize>,
}

/// What has become of a message when it was encoded.
#[derive(Clone, Copy, Debug)]
pub enum RecordedBody<'a> {
    /// Nobody came to encode it.
    Unused,
    /// It could not be encoded.
    Failed(EncodeError),
    /// It was.
    Encoded {
        /// What was copied.
        front: Pieces<'a>,
        /// What was not.
        rest: Rest<'a>,
        /// Whether the rest is beside the message.
        is_beside: bool,
    },
}

/// The end of a body.
#[derive(Clone, Copy, Debug)]
pub enum Rest<'a> {
    /// There is none.
    Nothing,
    /// Sent from where it is in memory.
    Memory(Pieces<'a>),
    /// So many bytes of a file or the like.
    External(usize),
}

fields! {
    Call {
        method, in_signature, out_signature, deadline, codec, compression, priority, attempt, flags,
    }
    RecordedPayload<'a> { body, extensions, landing }
}

numbered! {
    Rest<'a> { 0: Nothing, 1: Memory(pieces), 2: External(len), }
    RecordedBody<'a> { 0: Unused, 1: Failed(error), 2: Encoded { front, rest, is_beside }, }
    Input<'a> {
        1: Received { phase, bytes },
        2: Landed { capacity, filled, bytes },
        3: InputEnd,
        4: Closed { reason },
        5: Transmitted { bytes },
        6: Unreadable { owner, error },
        7: Written { owner, len, result },
        8: Timeout,
        9: PollEvent,
        10: PollItems { stream, max },
        11: PollTransmit { bytes, is_full, sent },
        12: BeginLanding,
        13: PollWrite,
        14: Call { call, payload },
        15: Cancel { call, reason },
        16: Reply { request, header, payload },
        17: BeginItems { request, header, extensions },
        18: SendItem { stream, encoding, payload },
        19: EndItems { call },
        20: Consumed { stream, items, bytes },
        21: RefuseExpired { request },
        22: WatchDeadline { request, deadline },
        23: Ping { opaque },
        24: GoAway { refuse },
        25: Drain,
        26: DrainAt { at },
        27: SetLimits { in_flight_max, message_bytes_max },
        28: Present { credentials },
        29: Close { reason },
        30: Introduce { identity },
        31: ExpectPeer { identity, is_required },
    }
}
