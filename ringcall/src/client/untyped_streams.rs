//! Streams of methods whose types this program does not have.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use pin_project_lite::pin_project;
use ringcall_core::frame::request_flags;
use ringcall_core::{
    Answer, Arrived, Cause, Codec, Encoding, Extended, Failure, StatusClass, StreamCall,
    StreamChannel,
};

use super::streams::send_item;
use super::untyped::{Argument, UntypedReply, UntypedResult, receive};
use super::{BlockOn, IntoOwned};
use crate::{CallError, Metadata};

/// Which sides of a call send a stream of items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Streams {
    /// The caller does, and gets one reply.
    In,
    /// The server does.
    Out,
    /// Both do.
    Both,
}

impl Streams {
    /// Whether the caller sends items.
    #[must_use]
    pub const fn has_in(self) -> bool {
        matches!(self, Streams::In | Streams::Both)
    }

    /// Whether the server sends items.
    #[must_use]
    pub const fn has_out(self) -> bool {
        matches!(self, Streams::Out | Streams::Both)
    }

    pub(super) const fn flags(self) -> u8 {
        match self {
            Streams::In => request_flags::ITEMS_IN,
            Streams::Out => request_flags::ITEMS_OUT,
            Streams::Both => request_flags::ITEMS_IN | request_flags::ITEMS_OUT,
        }
    }
}

pin_project! {
    /// An untyped call with streams that is being made, see [`UntypedCall::open`](crate::UntypedCall::open). Dropping it gives
    /// the call up.
    pub struct UntypedOpening<'a, C>
    where
        C: StreamChannel,
        C: 'a,
    {
        #[pin]
        opening: C::Opening<'a, Extended<Argument>>,
        streams: Streams,
        codec: Codec,
        compression: u8,
    }
}

impl<'a, C: StreamChannel> UntypedOpening<'a, C> {
    pub(super) fn new(
        opening: C::Opening<'a, Extended<Argument>>,
        streams: Streams,
        codec: Codec,
        compression: u8,
    ) -> UntypedOpening<'a, C> {
        UntypedOpening { opening, streams, codec, compression }
    }
}

impl<C: StreamChannel> fmt::Debug for UntypedOpening<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedOpening").field("streams", &self.streams).finish_non_exhaustive()
    }
}

/// Both ends of an untyped call with streams, as its caller has them.
pub type UntypedEnds<S> = (UntypedSender<S>, UntypedItems<S>);

impl<C: StreamChannel<Body: IntoOwned>> Future for UntypedOpening<'_, C> {
    type Output = Result<UntypedEnds<C::Call>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = ready!(this.opening.poll(cx))?;
        let encoding =
            Encoding { compression: *this.compression, ..Encoding::plain(*this.codec, 0) };
        let is_ended = !this.streams.has_in();
        let sender = UntypedSender { call: call.clone(), encoding, is_ended };
        Poll::Ready(Ok((sender, UntypedItems::new(call, this.streams.has_out()))))
    }
}

/// The items that the caller of an untyped call sends.
///
/// [`send`](UntypedSender::send) waits while the server does not take what was sent before: a window of it, 1024 items and 1 MiB
/// unless the server says otherwise. Dropping this says that there are no further items, as [`end`](UntypedSender::end) does; the
/// other end goes on. When that is dropped, the call is over.
pub struct UntypedSender<S: StreamCall> {
    call: S,
    encoding: Encoding,
    is_ended: bool,
}

impl<S: StreamCall> UntypedSender<S> {
    /// Sends an item in this codec, one with names, or [`Codec::RAW`]; waits for room.
    ///
    /// # Errors
    /// [`Cause::StreamEnded`] when the call is over, which the other end says how, or the method takes no items.
    /// [`Cause::TooLarge`] when the item could not be sent; the stream goes on.
    pub async fn send_as(&mut self, codec: Codec, item: impl Into<Bytes>) -> Result<(), Failure> {
        if self.is_ended {
            return Err(Failure::not_sent(Cause::StreamEnded));
        }
        let encoding = Encoding { codec, ..self.encoding };
        send_item(&self.call, encoding, &Argument::new(codec, item.into())).await
    }

    /// Sends an item in the codec of the argument.
    ///
    /// # Errors
    /// As for [`send_as`](Self::send_as).
    pub async fn send(&mut self, item: impl Into<Bytes>) -> Result<(), Failure> {
        self.send_as(self.encoding.codec, item).await
    }

    /// [`send`](Self::send), waited for.
    ///
    /// # Errors
    /// As there.
    pub fn send_wait(&mut self, item: impl Into<Bytes>) -> Result<(), Failure>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.send(item))
    }

    /// The call, which both ends are of.
    #[must_use]
    pub fn call(&self) -> &S {
        &self.call
    }

    /// Says that there are no further items.
    pub fn end(self) {
        // By being dropped.
    }
}

impl<S: StreamCall> Drop for UntypedSender<S> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.call.end_items();
        }
    }
}

impl<S: StreamCall> fmt::Debug for UntypedSender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedSender").field("is_ended", &self.is_ended).finish_non_exhaustive()
    }
}

/// What the server of an untyped call with streams sends: its items, or its one reply if only the caller sends a stream.
///
/// Items that were not taken wait in memory, at most a window of them (1024 items and 1 MiB unless the client's
/// [`Config`](crate::Config) says otherwise); then the server's handler waits. Dropping this before its end gives the call up: the
/// server is told once, and drops its handler.
pub struct UntypedItems<S: StreamCall> {
    call: S,
    /// Whether the server sends a stream, and not one reply.
    has_out: bool,
    is_over: bool,
    /// What came first, if it has only been [awaited](UntypedItems::begin) until now.
    first: Option<UntypedReply<S::Body>>,
    metadata: Option<Metadata<S::Body>>,
    end_metadata: Option<Metadata<S::Body>>,
}

impl<S: StreamCall<Body: IntoOwned>> UntypedItems<S> {
    fn new(call: S, has_out: bool) -> UntypedItems<S> {
        let (metadata, end_metadata) = (None, None);
        UntypedItems { call, has_out, is_over: false, first: None, metadata, end_metadata }
    }

    /// Waits until the server has begun its stream, which is before its first item as a rule, or has ended it without one; with one reply,
    /// until that is here. [`next`](Self::next) gives what there is then, and [`metadata`](Self::metadata) that of the beginning.
    /// Once it has begun, or is over, this is ready at once. Dropping the future loses nothing.
    ///
    /// ```
    /// # use ringcall::{Client, Codec, Streams, UntypedCall};
    /// # #[ringcall::service(name = "a.Echo")]
    /// # trait Echo { async fn back(&self, items: ringcall::Items<u8>) -> impl ringcall::Stream<Item = u8>; }
    /// # struct Wall;
    /// # impl Echo for Wall {
    /// #     async fn back(&self, items: ringcall::Items<u8>) -> impl ringcall::Stream<Item = u8> { items }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = ringcall::Server::bind("127.0.0.1:0").service(Wall.into_echo()).start()?;
    /// # let client = Client::connect(server.address()).wait()?;
    /// # let nil = vec![0xc0];
    /// # let call = UntypedCall::new(&client, "a.Echo/back", Codec::MESSAGEPACK, nil)?;
    /// let (sender, mut items) = call.open_wait(Streams::Both)?;
    /// // An answer of one's own begins when this one does, and is an error if this one is.
    /// items.begin_wait().map_err(|error| error.map_app(|_| "an error of the handler"))?;
    /// # drop(sender);
    /// # assert!(items.next_wait().is_none());
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// The call's error or failure, if that came instead: it is the last thing then.
    pub async fn begin(&mut self) -> Result<(), CallError<UntypedReply<S::Body>>> {
        poll_fn(|cx| self.poll_begin(cx)).await
    }

    /// [`begin`](Self::begin), waited for.
    ///
    /// # Errors
    /// As there.
    pub fn begin_wait(&mut self) -> Result<(), CallError<UntypedReply<S::Body>>>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.begin())
    }

    /// The next item, or the reply; `None` after the last.
    ///
    /// # Errors
    /// The call's error or failure, which is the last thing then.
    pub async fn next(&mut self) -> Option<UntypedResult<S::Body>> {
        poll_fn(|cx| self.poll_next(cx)).await
    }

    /// [`next`](Self::next), waited for.
    ///
    /// # Errors
    /// As there.
    pub fn next_wait(&mut self) -> Option<UntypedResult<S::Body>>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.next())
    }

    /// The call, which both ends are of.
    #[must_use]
    pub fn call(&self) -> &S {
        &self.call
    }

    /// Metadata that the handler had added when it began its stream; `None` before that is here.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata<S::Body>> {
        self.metadata.as_ref()
    }

    /// Metadata that the handler has added since, at the end of the stream, with its one reply, or with an error.
    #[must_use]
    pub fn end_metadata(&self) -> Option<&Metadata<S::Body>> {
        self.end_metadata.as_ref()
    }

    /// [`begin`](Self::begin), for those that poll.
    ///
    /// # Errors
    /// As there.
    pub fn poll_begin(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), CallError<UntypedReply<S::Body>>>> {
        if self.is_over || self.metadata.is_some() || self.first.is_some() {
            return Poll::Ready(Ok(()));
        }
        match ready!(self.poll_step(cx)) {
            Step::Began => {}
            Step::Next(Some(Ok(first))) => self.first = Some(first),
            Step::Next(Some(Err(error))) => return Poll::Ready(Err(error)),
            Step::Next(None) => {}
        }
        Poll::Ready(Ok(()))
    }

    /// [`next`](Self::next), for those that poll.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Option<UntypedResult<S::Body>>> {
        if let Some(first) = self.first.take() {
            return Poll::Ready(Some(Ok(first)));
        }
        loop {
            if let Step::Next(next) = ready!(self.poll_step(cx)) {
                return Poll::Ready(next);
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Step<S::Body>> {
        if self.is_over {
            return Poll::Ready(Step::Next(None));
        }
        Poll::Ready(match ready!(self.call.poll_arrived(cx)) {
            Arrived::Began(answer) => {
                self.metadata = Some(Metadata::new(answer.extensions));
                Step::Began
            }
            Arrived::Item { encoding, mut body, attached } if encoding.compression == 0 => {
                let attachment = attached.split(&mut body);
                Step::Next(Some(Ok(UntypedReply { codec: encoding.codec, body, attachment })))
            }
            Arrived::Item { .. } => {
                self.is_over = true;
                self.call.cancel();
                let failure = Failure::unknown(Cause::BadReply);
                Step::Next(Some(Err(CallError::Failed(failure))))
            }
            Arrived::End(end) => {
                self.is_over = true;
                Step::Next(self.end(end))
            }
        })
    }

    fn end(&mut self, end: Result<Answer<S::Body>, Failure>) -> Option<UntypedResult<S::Body>> {
        let mut answer = match end {
            Ok(answer) => answer,
            Err(failure) => return Some(Err(CallError::Failed(failure))),
        };
        let extensions = std::mem::replace(&mut answer.extensions, S::Body::empty());
        self.end_metadata = Some(Metadata::new(extensions));
        match self.has_out && answer.header.status.class() == StatusClass::Ok {
            // The end of the items, which has no body.
            true => None,
            false => Some(receive(answer)),
        }
    }
}

/// What arrives, as the caller sees it.
enum Step<B> {
    Began,
    Next(Option<UntypedResult<B>>),
}

/// Nothing in it is pinned.
impl<S: StreamCall> Unpin for UntypedItems<S> {}

impl<S: StreamCall<Body: IntoOwned>> futures_core::Stream for UntypedItems<S> {
    type Item = UntypedResult<S::Body>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        UntypedItems::poll_next(self.get_mut(), cx)
    }
}

impl<S: StreamCall> Drop for UntypedItems<S> {
    fn drop(&mut self) {
        if !self.is_over {
            self.call.cancel();
        }
    }
}

impl<S: StreamCall> fmt::Debug for UntypedItems<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedItems").field("is_over", &self.is_over).finish_non_exhaustive()
    }
}
