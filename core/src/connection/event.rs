//! What goes in and out of a connection: calls, requests, replies, and whatever else it has to tell.

use core::{fmt, mem};

use ringcall_buf::Chunk;

use super::Item;
use crate::frame::{CancelReason, Hello, ReplyHeader, RequestHeader};
use crate::{
    Attached, CallId, Cause, CloseCode, CloseReason, Codec, EncodeError, Failure, Instant,
    RequestId, StreamId,
};

/// What a connection has to say to its application.
#[derive(Debug)]
#[non_exhaustive]
#[repr(u8)]
pub enum Event<T> {
    /// The other side's HELLO has arrived: calls may be made.
    Established(Hello),
    /// The other side makes a call; answer it with [`Connection::reply`](super::Connection::reply).
    Request(Request),
    /// Nobody waits for this call any more: stop working on it, then answer it all the same, with a
    /// status. The answer gives its slot back.
    Cancelled(RequestId, Cancellation),
    /// A call of this side has ended. Its ticket comes back, exactly once.
    Completed(T, Outcome),
    /// The other side has begun to answer a call of this side with a stream: items follow, and the end
    /// of the call with its ticket. The reply has no body.
    Answering(CallId, Reply),
    /// An item of a stream. Say [`consumed`](super::Connection::consumed) when it is no longer held, exactly
    /// once an item, whether or not its call still exists.
    Item(StreamId, Item),
    /// The caller sends no further items.
    ItemsEnd(RequestId),
    /// A stream that was [`Blocked`](super::ItemError::Blocked) may go on.
    Writable(StreamId),
    /// The other side has answered a [`ping`](super::Connection::ping).
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
    /// Its deadline passed, see [`Connection::watch_deadline`](super::Connection::watch_deadline).
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
    /// Names the call in [`Connection::reply`](super::Connection::reply).
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

impl Request {
    /// The request with its bytes; what stays has none.
    #[must_use]
    pub fn take(&mut self) -> Request {
        let body = mem::take(&mut self.body);
        let extensions = mem::take(&mut self.extensions);
        Request { body, extensions, ..self.clone() }
    }
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

impl Call {
    /// The header of its REQUEST.
    #[inline(always)]
    pub(super) fn header(&self, deadline_us: u32) -> RequestHeader {
        RequestHeader {
            method: self.method,
            in_signature: self.in_signature,
            out_signature: self.out_signature,
            deadline_us,
            codec: self.codec,
            compression: self.compression,
            priority: self.priority,
            attempt: self.attempt,
        }
    }
}

/// Why an answer could not be sent as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ReplyError {
    /// The call is not running: it was answered already, or its connection is gone or was closed.
    NotRunning,
    /// The body could not be encoded; the caller gets
    /// [`REPLY_FAILED`](crate::Status::REPLY_FAILED) instead.
    Encode(EncodeError),
}

impl ReplyError {
    /// A result as two numbers.
    pub(super) fn to_numbers(result: Result<(), ReplyError>) -> (u64, usize) {
        match result {
            Ok(()) => (0, 0),
            Err(ReplyError::NotRunning) => (1, 0),
            Err(ReplyError::Encode(error)) => {
                let (number, n) = error.to_numbers();
                (2 + u64::from(number), n)
            }
        }
    }

    pub(super) fn from_numbers(failed: u64, n: usize) -> Result<(), ReplyError> {
        match failed {
            0 => Ok(()),
            1 => Err(ReplyError::NotRunning),
            number => Err(ReplyError::Encode(EncodeError::from_numbers(number as u8 - 2, n))),
        }
    }
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
    /// [`Connection::begin_landing`](super::Connection::begin_landing), not beyond.
    Land {
        /// How many bytes.
        len: usize,
    },
    /// Nothing until something changes.
    Pause,
}
