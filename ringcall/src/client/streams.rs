//! Typed calls with streams of items.

use std::fmt;
use std::future::{Future, IntoFuture, poll_fn};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_core::Stream;
use pin_project_lite::pin_project;
use ringcall_codec_rkyv::{Form, Invalid, Message, Typed};
use ringcall_core::frame::ExtensionWriter;
use ringcall_core::{
    Answer, Arrived, Cause, Encoding, Extended, Failure, ItemError, Outgoing, Payload, StatusClass,
    StreamCall, StreamChannel,
};

use super::call::{outgoing, receive};
use super::{BlockOn, CallOptions, CallResult, DEFAULT_DEADLINE, IntoOwned, Reply};
use crate::serve::MethodTable;
use crate::{CallError, Metadata};

/// What is about a call rather than its types, until it is made.
#[derive(Debug)]
struct Prepared<'a, C, A> {
    channel: &'a C,
    outgoing: Outgoing,
    argument: &'a A,
    extensions: ExtensionWriter,
}

impl<'a, C, A> Prepared<'a, C, A> {
    fn new(
        channel: &'a C,
        method: &'static MethodTable,
        options: &CallOptions,
        argument: &'a A,
    ) -> Prepared<'a, C, A> {
        let mut outgoing = outgoing(method, options);
        outgoing.flags |= method.stream_flags();
        // With items to send nobody knows how long the call takes; otherwise this is for the first frame.
        let default = if method.items_in().is_some() { Duration::MAX } else { DEFAULT_DEADLINE };
        outgoing.timeout = options.stated_deadline(method).unwrap_or(default);
        Prepared { channel, outgoing, argument, extensions: options.extensions() }
    }
}

impl<'a, C: StreamChannel, A: Message> Prepared<'a, C, A> {
    fn open(self) -> C::Opening<'a, Extended<Typed<'a, A>>> {
        let extensions = self.extensions.finish();
        self.channel.open(self.outgoing, Extended { payload: Typed(self.argument), extensions })
    }
}

/// What a call with items to send has to do with.
type Types<I, R, E> = PhantomData<fn() -> (I, R, E)>;

/// The options and ways of every kind of call.
macro_rules! prepared_call {
    ($call:ident <$($parameter:ident),*> $deadline:literal) => {
        impl<'a, C, A, $($parameter),*> $call<'a, C, A, $($parameter),*>
        where
            C: StreamChannel,
            A: Message,
            $($parameter: Message),*
        {
            #[doc(hidden)]
            pub fn new(
                channel: &'a C,
                method: &'static MethodTable,
                options: &CallOptions,
                argument: &'a A,
            ) -> Self {
                let prepared = Prepared::new(channel, method, options, argument);
                $call { prepared, types: PhantomData }
            }

            super::methods::call_methods! { (prepared.outgoing)
                #[doc = $deadline]
                deadline;
            }

            crate::metadata::extension_methods!(prepared.extensions);

            super::methods::call_methods! { (prepared.outgoing)
                /// How important this call is.
                priority;
                /// How the argument, and items of the caller, are compressed, see
                /// [`CallOptions::compression`](crate::CallOptions::compression).
                compression;
            }

            /// Waits for what awaiting it gives.
            ///
            /// # Errors
            /// As for awaiting it.
            pub fn wait(self) -> <Self as IntoFuture>::Output
            where
                C: BlockOn,
                Self: IntoFuture,
            {
                let channel = self.prepared.channel;
                channel.block_on(self.into_future())
            }
        }

        impl<C, A, $($parameter),*> fmt::Debug for $call<'_, C, A, $($parameter),*> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($call))
                    .field("outgoing", &self.prepared.outgoing)
                    .finish_non_exhaustive()
            }
        }
    };
}

// ---- the server sends ----

/// A call whose reply is a stream of `R`, ready to be made: await it, or [`wait`](ItemsCall::wait) for
/// it. It gives the stream when the server begins it, or the error instead.
#[must_use = "a call is made when it is awaited or waited for"]
pub struct ItemsCall<'a, C, A, R, E> {
    prepared: Prepared<'a, C, A>,
    types: PhantomData<fn() -> (R, E)>,
}

prepared_call! { ItemsCall<R, E>
"How long to wait until the stream begins. After that it may take as long as it likes." }

impl<'a, C, A, R, E> IntoFuture for ItemsCall<'a, C, A, R, E>
where
    C: StreamChannel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = Result<ItemsOf<C, R, E>, CallError<E>>;
    type IntoFuture = ItemsFuture<'a, C, A, R, E>;

    fn into_future(self) -> ItemsFuture<'a, C, A, R, E> {
        let out_signature = self.prepared.outgoing.out_signature;
        ItemsFuture { opening: self.prepared.open(), out_signature, opened: None }
    }
}

/// What a call over the channel `C` that gives a stream gives.
pub type ItemsOf<C, R, E> = ReplyItems<<C as StreamChannel>::Call, R, E>;

pin_project! {
    /// A call whose reply is about to begin. Dropping it gives the call up.
    pub struct ItemsFuture<'a, C, A, R, E>
    where
        C: StreamChannel,
        C: 'a,
        A: Message,
    {
        #[pin]
        opening: C::Opening<'a, Extended<Typed<'a, A>>>,
        out_signature: u64,
        opened: Option<ReplyItems<C::Call, R, E>>,
    }
}

impl<'a, C, A, R, E> Future for ItemsFuture<'a, C, A, R, E>
where
    C: StreamChannel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = Result<ItemsOf<C, R, E>, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if this.opened.is_none() {
            let call = ready!(this.opening.poll(cx))?;
            *this.opened = Some(ReplyItems::new(call, *this.out_signature));
        }
        let Some(items) = this.opened.as_mut() else { return Poll::Pending };
        ready!(items.poll_begin(cx))?;
        match this.opened.take() {
            Some(items) => Poll::Ready(Ok(items)),
            None => Poll::Pending,
        }
    }
}

/// The server's stream of `R`, with which it answers a call: a [`Stream`] of received messages, or the
/// call's failure, which is the last thing then.
///
/// Items that were not taken wait in memory, at most a window of them (1024 items and 1 MiB unless the client's
/// [`Config`](crate::Config) says otherwise); then the server's handler waits. All streams of a connection share
/// its larger window, so whoever leaves many unread may keep the others from going on. Dropping the stream before its end
/// gives the call up: the server is told once, and drops its handler.
pub struct ReplyItems<S: StreamCall, R, E> {
    call: S,
    out_signature: u64,
    stage: Stage,
    metadata: Option<Metadata<S::Body>>,
    end_metadata: Option<Metadata<S::Body>>,
    types: PhantomData<fn() -> (R, E)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Asked,
    Begun,
    Over,
}

impl<S: StreamCall<Body: IntoOwned>, R: Message, E: Message> ReplyItems<S, R, E> {
    fn new(call: S, out_signature: u64) -> ReplyItems<S, R, E> {
        ReplyItems {
            call,
            out_signature,
            stage: Stage::Asked,
            metadata: None,
            end_metadata: None,
            types: PhantomData,
        }
    }

    /// Metadata that the handler had added when it began the stream; `None` before that is here.
    #[must_use]
    pub fn metadata(&self) -> Option<&Metadata<S::Body>> {
        self.metadata.as_ref()
    }

    /// Metadata that the handler has added since, at the end of the stream, or with an error instead of it.
    #[must_use]
    pub fn end_metadata(&self) -> Option<&Metadata<S::Body>> {
        self.end_metadata.as_ref()
    }

    /// The next item; `None` after the last.
    ///
    /// # Errors
    /// The call's error or failure, which ends the stream.
    pub async fn next(&mut self) -> Option<CallResult<R, E, S::Body>> {
        poll_fn(|cx| self.poll_item(cx)).await
    }

    /// Waits for the next item; `None` after the last.
    ///
    /// # Errors
    /// The call's error or failure, which ends the stream.
    pub fn next_wait(&mut self) -> Option<CallResult<R, E, S::Body>>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.next())
    }

    /// The items one by one, each waited for.
    pub fn wait_each(&mut self) -> impl Iterator<Item = CallResult<R, E, S::Body>> + '_
    where
        S: BlockOn,
    {
        std::iter::from_fn(|| self.next_wait())
    }

    /// Ready when the reply has begun, or was an error instead.
    fn poll_begin(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), CallError<E>>> {
        match ready!(self.call.poll_arrived(cx)) {
            Arrived::Began(answer) => {
                self.begins(answer);
                Poll::Ready(Ok(()))
            }
            Arrived::Item { .. } => Poll::Ready(Err(self.bad_reply())),
            Arrived::End(end) => {
                self.stage = Stage::Over;
                Poll::Ready(self.end(end).map_or(Ok(()), Err))
            }
        }
    }

    fn poll_item(&mut self, cx: &mut Context<'_>) -> Poll<Option<CallResult<R, E, S::Body>>> {
        loop {
            if self.stage == Stage::Over {
                return Poll::Ready(None);
            }
            match ready!(self.call.poll_arrived(cx)) {
                Arrived::Began(answer) => self.begins(answer),
                Arrived::Item { encoding, body, attached } => {
                    let Encoding { codec, signature, compression } = encoding;
                    let has_layout =
                        signature == self.out_signature || (R::IS_RAW && self.out_signature != 0);
                    let item = match codec == R::CODEC && has_layout {
                        _ if compression != 0 => Err(Invalid),
                        true => R::receive_with(body, attached),
                        // What is in a codec with names says by itself what it is.
                        false => R::receive_as_with(Form::of_codec(codec), body, attached),
                    };
                    if let Ok(item) = item {
                        return Poll::Ready(Some(Ok(item)));
                    }
                    return Poll::Ready(Some(Err(self.bad_reply())));
                }
                Arrived::End(end) => {
                    self.stage = Stage::Over;
                    return Poll::Ready(self.end(end).map(Err));
                }
            }
        }
    }

    /// What the other side sends is not what was asked for.
    fn bad_reply(&mut self) -> CallError<E> {
        self.stage = Stage::Over;
        self.call.cancel();
        CallError::Failed(Failure::unknown(Cause::BadReply))
    }

    fn begins(&mut self, answer: Answer<S::Body>) {
        self.stage = Stage::Begun;
        self.metadata = Some(Metadata::new(answer.extensions));
    }

    fn end(&mut self, end: Result<Answer<S::Body>, Failure>) -> Option<CallError<E>> {
        let mut end = end;
        if let Ok(answer) = &mut end {
            let extensions = std::mem::replace(&mut answer.extensions, S::Body::empty());
            self.end_metadata = Some(Metadata::new(extensions));
        }
        match end {
            Err(failure) => Some(CallError::Failed(failure)),
            // The end of the items, which has no body.
            Ok(answer) if answer.header.status.class() == StatusClass::Ok => None,
            Ok(answer) => receive::<R, E, S::Body>(answer, self.out_signature).err(),
        }
    }
}

/// Nothing in it is pinned.
impl<S: StreamCall, R, E> Unpin for ReplyItems<S, R, E> {}

impl<S: StreamCall<Body: IntoOwned>, R: Message, E: Message> Stream for ReplyItems<S, R, E> {
    type Item = CallResult<R, E, S::Body>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.get_mut().poll_item(cx)
    }
}

impl<S: StreamCall, R, E> Drop for ReplyItems<S, R, E> {
    fn drop(&mut self) {
        if self.stage != Stage::Over {
            self.call.cancel();
        }
    }
}

impl<S: StreamCall, R, E> fmt::Debug for ReplyItems<S, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ReplyItems").field("stage", &self.stage).finish_non_exhaustive()
    }
}

// ---- the caller sends ----

/// A call that sends a stream of `I` and gets one reply, ready to be made: await it, or
/// [`wait`](UploadCall::wait) for it. It gives the [`Upload`] when this side has accepted the call.
#[must_use = "a call is made when it is awaited or waited for"]
pub struct UploadCall<'a, C, A, I, R, E> {
    prepared: Prepared<'a, C, A>,
    types: Types<I, R, E>,
}

prepared_call! { UploadCall<I, R, E>
"How long the whole call may take; as long as it likes, unless something else is said." }

impl<'a, C, A, I, R, E> IntoFuture for UploadCall<'a, C, A, I, R, E>
where
    C: StreamChannel<Body: IntoOwned>,
    A: Message,
    I: Message,
    R: Message,
    E: Message,
{
    type Output = Result<Upload<C::Call, I, R, E>, CallError<E>>;
    type IntoFuture = UploadFuture<'a, C, A, I, R, E>;

    fn into_future(self) -> UploadFuture<'a, C, A, I, R, E> {
        let outgoing = self.prepared.outgoing;
        UploadFuture { opening: self.prepared.open(), outgoing, types: PhantomData }
    }
}

pin_project! {
    /// A call with items to send that is being made. Dropping it gives the call up.
    pub struct UploadFuture<'a, C, A, I, R, E>
    where
        C: StreamChannel,
        C: 'a,
        A: Message,
    {
        #[pin]
        opening: C::Opening<'a, Extended<Typed<'a, A>>>,
        outgoing: Outgoing,
        types: Types<I, R, E>,
    }
}

impl<'a, C, A, I, R, E> Future for UploadFuture<'a, C, A, I, R, E>
where
    C: StreamChannel<Body: IntoOwned>,
    A: Message,
    I: Message,
    R: Message,
    E: Message,
{
    type Output = Result<Upload<C::Call, I, R, E>, CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = ready!(this.opening.poll(cx))?;
        let Outgoing { in_signature, out_signature, compression, .. } = *this.outgoing;
        Poll::Ready(Ok(Upload {
            call,
            in_signature,
            compression,
            out_signature,
            end: UploadEnd::Open,
            types: PhantomData,
        }))
    }
}

/// A stream of `I` that is being sent, and the reply to it.
///
/// [`send`](Upload::send) waits while the server does not take what was sent before: a window of it, 1024 items
/// and 1 MiB unless the server says otherwise. Dropping this before [`finish`](Upload::finish) gives the call
/// up: the server is told once, and drops its handler.
pub struct Upload<S: StreamCall, I, R: Message, E: Message> {
    call: S,
    in_signature: u64,
    /// How items are to be compressed.
    compression: u8,
    out_signature: u64,
    end: UploadEnd<R::Received<S::Body>>,
    types: Types<I, R, E>,
}

enum UploadEnd<V> {
    Open,
    /// The server has answered before the last item.
    Answered(V),
    /// The caller was told.
    Told,
}

impl<S: StreamCall<Body: IntoOwned>, I: Message, R: Message, E: Message> Upload<S, I, R, E> {
    /// Sends an item; waits for room.
    ///
    /// # Errors
    /// The call's, when the server has ended it with an error; [`Cause::StreamEnded`] when it has answered
    /// already, with what [`finish`](Upload::finish) gives then. [`Cause::Encode`] and
    /// [`Cause::TooLarge`] when the item could not be sent.
    pub async fn send(&mut self, item: &I) -> Result<(), CallError<E>> {
        let encoding = Encoding {
            compression: self.compression,
            ..Encoding::plain(I::CODEC, self.in_signature)
        };
        let send = |cx: &mut Context<'_>| self.call.poll_send(cx, encoding, &Typed(item));
        match poll_fn(send).await {
            Ok(()) => Ok(()),
            Err(ItemError::Encode(error)) => Err(Failure::not_sent(error.into()).into()),
            Err(_) => {
                if let UploadEnd::Open = self.end {
                    let answer = self.answer().await?;
                    self.end = UploadEnd::Answered(answer);
                }
                Err(Failure::unknown(Cause::StreamEnded).into())
            }
        }
    }

    /// Sends all items of a stream.
    ///
    /// # Errors
    /// As for [`send`](Upload::send); the items that were not sent are dropped.
    pub async fn send_all(&mut self, items: impl Stream<Item = I>) -> Result<(), CallError<E>> {
        let mut items = std::pin::pin!(items);
        while let Some(item) = poll_fn(|cx| items.as_mut().poll_next(cx)).await {
            self.send(&item).await?;
        }
        Ok(())
    }

    /// Says that there are no further items, and waits for the reply.
    ///
    /// # Errors
    /// The call's; [`Cause::StreamEnded`] if [`send`](Upload::send) has given it already.
    pub async fn finish(mut self) -> CallResult<R, E, S::Body> {
        match std::mem::replace(&mut self.end, UploadEnd::Open) {
            UploadEnd::Answered(answer) => Ok(answer),
            UploadEnd::Told => Err(Failure::unknown(Cause::StreamEnded).into()),
            UploadEnd::Open => {
                self.call.end_items();
                self.answer().await
            }
        }
    }

    /// [`finish`](Upload::finish), with what the handler says beside its answer. Nothing of that is known if
    /// [`send`](Upload::send) has been told the end already.
    pub async fn finish_with_metadata(mut self) -> Reply<CallResult<R, E, S::Body>, S::Body> {
        if !matches!(self.end, UploadEnd::Open) {
            return Reply::without(self.finish().await);
        }
        self.call.end_items();
        let out_signature = self.out_signature;
        let end = self.end_of_call().await;
        Reply::of(end, |answer| receive::<R, E, S::Body>(answer, out_signature))
    }

    /// [`send`](Upload::send), waited for.
    ///
    /// # Errors
    /// As there.
    pub fn send_wait(&mut self, item: &I) -> Result<(), CallError<E>>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.send(item))
    }

    /// [`finish`](Upload::finish), waited for.
    ///
    /// # Errors
    /// As there.
    pub fn finish_wait(self) -> CallResult<R, E, S::Body>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.finish())
    }

    async fn answer(&mut self) -> CallResult<R, E, S::Body> {
        let answer = self.end_of_call().await?;
        receive::<R, E, S::Body>(answer, self.out_signature)
    }

    async fn end_of_call(&mut self) -> Result<Answer<S::Body>, Failure> {
        loop {
            match poll_fn(|cx| self.call.poll_arrived(cx)).await {
                Arrived::End(end) => {
                    self.end = UploadEnd::Told;
                    return end;
                }
                // Nobody asked for items.
                _ => self.call.cancel(),
            }
        }
    }
}

impl<S: StreamCall, I, R: Message, E: Message> Drop for Upload<S, I, R, E> {
    fn drop(&mut self) {
        if let UploadEnd::Open = self.end {
            self.call.cancel();
        }
    }
}

impl<S: StreamCall, I, R: Message, E: Message> fmt::Debug for Upload<S, I, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = matches!(self.end, UploadEnd::Open);
        f.debug_struct("Upload").field("is_open", &is_open).finish_non_exhaustive()
    }
}

// ---- both send ----

/// A call that sends a stream of `I` and gets one of `R`, ready to be made: await it, or
/// [`wait`](DuplexCall::wait) for it. It gives both ends when this side has accepted the call.
#[must_use = "a call is made when it is awaited or waited for"]
pub struct DuplexCall<'a, C, A, I, R, E> {
    prepared: Prepared<'a, C, A>,
    types: Types<I, R, E>,
}

prepared_call! { DuplexCall<I, R, E>
"How long to wait until the reply begins; as long as it likes, unless something else is said." }

impl<'a, C, A, I, R, E> IntoFuture for DuplexCall<'a, C, A, I, R, E>
where
    C: StreamChannel<Body: IntoOwned>,
    A: Message,
    I: Message,
    R: Message,
    E: Message,
{
    type Output = Result<(ItemSender<C::Call, I>, ItemsOf<C, R, E>), CallError<E>>;
    type IntoFuture = DuplexFuture<'a, C, A, I, R, E>;

    fn into_future(self) -> DuplexFuture<'a, C, A, I, R, E> {
        let outgoing = self.prepared.outgoing;
        DuplexFuture { opening: self.prepared.open(), outgoing, types: PhantomData }
    }
}

pin_project! {
    /// A call with streams in both directions that is being made. Dropping it gives the call up.
    pub struct DuplexFuture<'a, C, A, I, R, E>
    where
        C: StreamChannel,
        C: 'a,
        A: Message,
    {
        #[pin]
        opening: C::Opening<'a, Extended<Typed<'a, A>>>,
        outgoing: Outgoing,
        types: Types<I, R, E>,
    }
}

impl<'a, C, A, I, R, E> Future for DuplexFuture<'a, C, A, I, R, E>
where
    C: StreamChannel<Body: IntoOwned>,
    A: Message,
    I: Message,
    R: Message,
    E: Message,
{
    type Output = Result<(ItemSender<C::Call, I>, ItemsOf<C, R, E>), CallError<E>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let call = ready!(this.opening.poll(cx))?;
        let Outgoing { in_signature, out_signature, compression, .. } = *this.outgoing;
        let (is_ended, types) = (false, PhantomData);
        let sender = ItemSender { call: call.clone(), in_signature, compression, is_ended, types };
        Poll::Ready(Ok((sender, ReplyItems::new(call, out_signature))))
    }
}

/// The caller's half of a call with streams in both directions.
///
/// [`send`](ItemSender::send) waits while the server does not take what was sent before. Dropping this says
/// that there are no further items, like [`end`](ItemSender::end); the other half goes on. When the other
/// half is dropped, the call is over.
pub struct ItemSender<S: StreamCall, I> {
    call: S,
    in_signature: u64,
    /// How items are to be compressed.
    compression: u8,
    is_ended: bool,
    types: PhantomData<fn() -> I>,
}

/// Sends an item of a call whose other half says how that has ended; waits for room.
pub(super) async fn send_item<S: StreamCall, P: Payload>(
    call: &S,
    encoding: Encoding,
    item: &P,
) -> Result<(), Failure> {
    let sent = poll_fn(|cx| call.poll_send(cx, encoding, item)).await;
    sent.map_err(|error| match error {
        ItemError::Encode(error) => Failure::not_sent(error.into()),
        _ => Failure::unknown(Cause::StreamEnded),
    })
}

impl<S: StreamCall, I: Message> ItemSender<S, I> {
    /// Sends an item; waits for room.
    ///
    /// # Errors
    /// [`Cause::StreamEnded`] when the call is over: the other half says how. [`Cause::Encode`] and
    /// [`Cause::TooLarge`] when the item could not be sent.
    pub async fn send(&mut self, item: &I) -> Result<(), Failure> {
        let encoding = Encoding {
            compression: self.compression,
            ..Encoding::plain(I::CODEC, self.in_signature)
        };
        send_item(&self.call, encoding, &Typed(item)).await
    }

    /// Sends all items of a stream.
    ///
    /// # Errors
    /// As for [`send`](ItemSender::send); the items that were not sent are dropped.
    pub async fn send_all(&mut self, items: impl Stream<Item = I>) -> Result<(), Failure> {
        let mut items = std::pin::pin!(items);
        while let Some(item) = poll_fn(|cx| items.as_mut().poll_next(cx)).await {
            self.send(&item).await?;
        }
        Ok(())
    }

    /// [`send`](ItemSender::send), waited for.
    ///
    /// # Errors
    /// As there.
    pub fn send_wait(&mut self, item: &I) -> Result<(), Failure>
    where
        S: BlockOn,
    {
        let call = self.call.clone();
        call.block_on(self.send(item))
    }

    /// Says that there are no further items.
    pub fn end(mut self) {
        self.say_end();
    }

    fn say_end(&mut self) {
        self.is_ended = true;
        self.call.end_items();
    }
}

impl<S: StreamCall, I> Drop for ItemSender<S, I> {
    fn drop(&mut self) {
        if !self.is_ended {
            self.call.end_items();
        }
    }
}

impl<S: StreamCall, I> fmt::Debug for ItemSender<S, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ItemSender").field("is_ended", &self.is_ended).finish_non_exhaustive()
    }
}
