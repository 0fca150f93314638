//! Calls with streams of items: in either direction, with credit of their own.

use core::fmt;

use ringcall_buf::Chunk;

use super::{Connection, ReplyError};
use crate::frame::ReplyHeader;
use crate::{CallId, Codec, EncodeError, Instant, Payload, RequestId, StreamId};

/// One message of a stream.
#[derive(Clone, Debug)]
pub struct Item {
    /// Shapes of the direction's items.
    pub signature: u64,
    /// How the body is encoded.
    pub codec: Codec,
    /// The body, at a multiple of 16, where it landed.
    pub body: Chunk,
}

/// Why an item was not sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ItemError {
    /// The other side, or the transport, must take what was sent before: [`Event::Writable`] says when.
    ///
    /// [`Event::Writable`]: crate::Event::Writable
    Blocked,
    /// The stream has ended, its call is over, or it never had one in this direction.
    Ended,
    /// The item could not be encoded, or is larger than the other side accepts. Nothing was sent, and the
    /// stream goes on.
    Encode(EncodeError),
}

impl fmt::Display for ItemError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ItemError::Blocked => f.write_str("the receiver has not taken what was sent before"),
            ItemError::Ended => f.write_str("the stream has ended"),
            ItemError::Encode(error) => write!(f, "the item could not be sent: {error}"),
        }
    }
}

impl core::error::Error for ItemError {}

impl<T> Connection<T> {
    pub(super) fn begin_stream(
        &mut self,
        _now: Instant,
        _request: RequestId,
        _header: ReplyHeader,
    ) -> Result<(), ReplyError> {
        Err(ReplyError::NotRunning)
    }

    pub(super) fn send_stream_item<P: Payload + ?Sized>(
        &mut self,
        _now: Instant,
        _stream: StreamId,
        _codec: Codec,
        _signature: u64,
        _payload: &P,
    ) -> Result<(), ItemError> {
        Err(ItemError::Ended)
    }

    pub(super) fn end_stream(&mut self, _now: Instant, _call: CallId) {}

    pub(super) fn item_consumed(&mut self, _stream: StreamId, _bytes: usize) {}
}
