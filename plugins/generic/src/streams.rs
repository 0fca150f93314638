//! Calls with streams of values of JSON.

use std::fmt;
use std::time::Duration;

use ringcall::{
    BadMetadataKey, BlockOn, CallError, Cause, Failure, IntoOwned, Metadata, StreamCall,
    StreamChannel, UntypedCall, UntypedItems, UntypedSender,
};
use serde_json::Value;

use crate::call::{prepare, receive};
use crate::{GenericError, Method, Mismatch};

/// A call of a method with streams by its description: [`open`](GenericStreams::open) it, or wait for that.
#[must_use = "a call is made when it is opened"]
pub struct GenericStreams<'a, C> {
    call: UntypedCall<'a, C>,
    channel: &'a C,
    method: &'a Method,
    streams: ringcall::Streams,
}

impl<C> fmt::Debug for GenericStreams<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GenericStreams").field(&self.call).finish()
    }
}

/// Both ends of a call with streams, as its caller has them.
pub type GenericEnds<'a, S> = (GenericSender<'a, S>, GenericItems<'a, S>);

impl<'a, C: StreamChannel> GenericStreams<'a, C> {
    /// A call of this method.
    ///
    /// # Errors
    /// When the method has no streams, or the argument is not of its type.
    pub fn new(
        channel: &'a C,
        method: &'a Method,
        argument: &Value,
    ) -> Result<GenericStreams<'a, C>, GenericError> {
        let encoded = method.encode_argument(argument).map_err(|mismatch| {
            GenericError::BadArgument { method: method.full_name().to_owned(), mismatch }
        })?;
        GenericStreams::with_encoded(channel, method, encoded)
    }

    /// A call whose argument is encoded already, see [`GenericCall::with_encoded`](crate::GenericCall::with_encoded).
    ///
    /// # Errors
    /// When the method has no streams, or is called what no method can be.
    pub fn with_encoded(
        channel: &'a C,
        method: &'a Method,
        argument: Vec<u8>,
    ) -> Result<GenericStreams<'a, C>, GenericError> {
        let Some(streams) = method.streams() else {
            return Err(GenericError::NoStreams { method: method.full_name().to_owned() });
        };
        let call = prepare(channel, method, argument)?;
        Ok(GenericStreams { call, channel, method, streams })
    }

    /// How long to wait until the server's stream begins, or, of one reply, for that.
    pub fn deadline(self, deadline: Duration) -> Self {
        GenericStreams { call: self.call.deadline(deadline), ..self }
    }

    /// Adds an entry of metadata, see [`CallOptions::try_metadata`](ringcall::CallOptions::try_metadata).
    ///
    /// # Errors
    /// When the key is none.
    pub fn try_metadata(self, key: &str, value: impl AsRef<[u8]>) -> Result<Self, BadMetadataKey> {
        Ok(GenericStreams { call: self.call.try_metadata(key, value)?, ..self })
    }

    /// Changes what else a call may say: its priority, trace, group and so on.
    pub fn with(self, change: impl FnOnce(UntypedCall<'a, C>) -> UntypedCall<'a, C>) -> Self {
        GenericStreams { call: change(self.call), ..self }
    }

    /// Makes the call. It gives both ends when this side has accepted it: what the caller sends, which is over from the beginning
    /// if the method takes no items, and what comes back.
    ///
    /// # Errors
    /// Why this side has not accepted it. All else comes with what comes back.
    pub async fn open(self) -> Result<GenericEnds<'a, C::Call>, Failure>
    where
        C: StreamChannel<Body: IntoOwned>,
    {
        let method = self.method;
        let (sender, items) = self.call.open(self.streams).await?;
        Ok((GenericSender { sender, method }, GenericItems { items, method, is_over: false }))
    }

    /// The same, and blocks this thread meanwhile.
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn open_wait(self) -> Result<GenericEnds<'a, C::Call>, Failure>
    where
        C: BlockOn + StreamChannel<Body: IntoOwned>,
    {
        let channel = self.channel;
        channel.block_on(self.open())
    }

    /// The call itself, with which of its sides send streams: for whoever wants items as they come.
    pub fn into_untyped(self) -> (UntypedCall<'a, C>, ringcall::Streams) {
        (self.call, self.streams)
    }
}

/// Why an item was not sent.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum SendError {
    /// It is not of the type of the method's items; the stream goes on.
    BadItem(Mismatch),
    /// The call is over, which the other end says how ([`Cause::StreamEnded`]), or the item is too large.
    Failed(Failure),
}

impl fmt::Display for SendError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SendError::BadItem(mismatch) => mismatch.fmt(f),
            SendError::Failed(failure) => failure.fmt(f),
        }
    }
}

impl std::error::Error for SendError {}

/// The items that the caller sends. Dropping it says that there are no further ones, as [`end`](GenericSender::end) does: who has not
/// sent all of them gives the [call](GenericSender::call) up instead.
pub struct GenericSender<'a, S: StreamCall> {
    sender: UntypedSender<S>,
    method: &'a Method,
}

impl<S: StreamCall> GenericSender<'_, S> {
    /// Sends an item; waits for room.
    ///
    /// # Errors
    /// When it is not of the type of the method's items, or cannot be sent any more.
    pub async fn send(&mut self, item: &Value) -> Result<(), SendError> {
        let encoded = match self.method.items_in() {
            Some(_) => self.method.encode_item(item).map_err(SendError::BadItem)?,
            // Then its sender is over, and says so.
            None => Vec::new(),
        };
        let sent = self.sender.send_as(self.method.item_codec(), encoded).await;
        sent.map_err(SendError::Failed)
    }

    /// The same, and blocks this thread meanwhile.
    ///
    /// # Errors
    /// As for [`send`](Self::send).
    pub fn send_wait(&mut self, item: &Value) -> Result<(), SendError>
    where
        S: BlockOn,
    {
        let call = self.sender.call().clone();
        call.block_on(self.send(item))
    }

    /// The call, which both ends are of. Who has not sent all that was to be sent [cancels](StreamCall::cancel) it, since the server
    /// takes the end for the end of all items.
    #[must_use]
    pub fn call(&self) -> &S {
        self.sender.call()
    }

    /// Says that there are no further items.
    pub fn end(self) {
        // By being dropped.
    }
}

impl<S: StreamCall> fmt::Debug for GenericSender<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GenericSender").field(&self.sender).finish()
    }
}

/// What the server sends: its items, or its one reply if only the caller sends a stream. Dropping it before its end gives the call
/// up.
pub struct GenericItems<'a, S: StreamCall> {
    items: UntypedItems<S>,
    method: &'a Method,
    /// An error came, which was the last thing.
    is_over: bool,
}

impl<S: StreamCall<Body: IntoOwned>> GenericItems<'_, S> {
    /// Metadata that the handler had added when it began its stream; `None` before that is here.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata<S::Body>> {
        self.items.metadata()
    }

    /// Metadata that the handler has added since, at the end of the stream, with its one reply, or with an error.
    #[must_use]
    pub fn end_metadata(&self) -> Option<&Metadata<S::Body>> {
        self.items.end_metadata()
    }

    /// The next item, or the reply; `None` after the last.
    ///
    /// # Errors
    /// The call's error, of which the handler's is a value, too, or its failure: that is the last thing then.
    pub async fn next(&mut self) -> Option<Result<Value, CallError<Value>>> {
        if self.is_over {
            return None;
        }
        let item = self.items.next().await?;
        let value = match (item, self.method.items_out()) {
            (Ok(item), Some(_)) => {
                let value = self.method.decode_item(item.body.as_ref());
                value.ok_or(CallError::Failed(Failure::unknown(Cause::BadReply)))
            }
            (result, _) => receive(self.method, result),
        };
        if value.is_err() {
            self.is_over = true;
            // Of what is not of the method's type no more is wanted.
            self.items.call().cancel();
        }
        Some(value)
    }

    /// The same, and blocks this thread meanwhile.
    ///
    /// # Errors
    /// As for [`next`](Self::next).
    pub fn next_wait(&mut self) -> Option<Result<Value, CallError<Value>>>
    where
        S: BlockOn,
    {
        let call = self.items.call().clone();
        call.block_on(self.next())
    }
}

impl<S: StreamCall> fmt::Debug for GenericItems<'_, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GenericItems").field(&self.items).finish()
    }
}
