//! Answers with what comes beside them.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use ringcall_codec_rkyv::{Message, Typed};
use ringcall_core::{Answer, Channel, Extended, Failure};

use super::call::receive;
use super::{BlockOn, Call, CallResult, IntoOwned};
use crate::{CallError, Metadata};

/// An answer with what the server says beside it.
#[derive(Clone)]
#[non_exhaustive]
pub struct Reply<T, B = ringcall_core::Chunk> {
    /// The reply, or the error.
    pub result: T,
    /// Metadata that the handler has added, also if it failed; a failure without an answer of the handler
    /// has none.
    pub metadata: Metadata<B>,
    /// How long the call waited for its handler; zero if the server did not say.
    pub queued: Duration,
    /// How long the handler had it.
    pub handled: Duration,
    /// How busy the server is; 0 if it does not say.
    pub load: u16,
    /// The lowest [priority](crate::CallOptions::priority) that the server admits: of calls with a lower one it lately
    /// refused almost all. 0 if it admits all, or does not say.
    pub admission: u8,
}

impl<T: fmt::Debug, B: IntoOwned> fmt::Debug for Reply<T, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply")
            .field("result", &self.result)
            .field("metadata", &self.metadata)
            .field("queued", &self.queued)
            .field("handled", &self.handled)
            .field("load", &self.load)
            .field("admission", &self.admission)
            .finish()
    }
}

impl<T, B> Reply<T, B> {
    /// The same with something else of its result.
    pub fn map<U>(self, change: impl FnOnce(T) -> U) -> Reply<U, B> {
        let Reply { result, metadata, queued, handled, load, admission } = self;
        Reply { result: change(result), metadata, queued, handled, load, admission }
    }
}

impl<T, B: IntoOwned> Reply<T, B> {
    /// A result of which nothing else is known.
    pub(super) fn without(result: T) -> Reply<T, B> {
        Reply {
            result,
            metadata: Metadata::new(B::empty()),
            queued: Duration::ZERO,
            handled: Duration::ZERO,
            load: 0,
            admission: 0,
        }
    }

    pub(super) fn of<E>(
        answer: Result<Answer<B>, Failure>,
        receive: impl FnOnce(Answer<B>) -> Result<T, CallError<E>>,
    ) -> Reply<Result<T, CallError<E>>, B> {
        match answer {
            Ok(mut answer) => {
                let header = answer.header;
                let extensions = std::mem::replace(&mut answer.extensions, B::empty());
                Reply {
                    metadata: Metadata::new(extensions),
                    queued: Duration::from_micros(u64::from(header.queue_us)),
                    handled: Duration::from_micros(u64::from(header.handler_us)),
                    load: header.load,
                    admission: header.admission,
                    result: receive(answer),
                }
            }
            Err(failure) => Reply::without(Err(CallError::Failed(failure))),
        }
    }
}

/// A call whose answer is wanted with what comes beside it, see [`Call::with_metadata`].
#[must_use = "a call is made when it is awaited or waited for"]
pub struct WithMetadata<'a, C, A, R, E>(pub(super) Call<'a, C, A, R, E>);

impl<'a, C, A, R, E> WithMetadata<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned> + BlockOn,
    A: Message,
    R: Message,
    E: Message,
{
    /// Waits for the answer.
    pub fn wait(self) -> Reply<CallResult<R, E, C::Body>, C::Body> {
        let channel = self.0.channel;
        channel.block_on(self.into_future())
    }
}

impl<'a, C, A, R, E> IntoFuture for WithMetadata<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = Reply<CallResult<R, E, C::Body>, C::Body>;
    type IntoFuture = ReplyFuture<'a, C, A, R, E>;

    fn into_future(self) -> ReplyFuture<'a, C, A, R, E> {
        let out_signature = self.0.outgoing.out_signature;
        ReplyFuture { out_signature, pending: self.0.make(), reply: PhantomData }
    }
}

impl<C, A, R, E> fmt::Debug for WithMetadata<'_, C, A, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("WithMetadata").field(&self.0).finish()
    }
}

pin_project! {
    /// A call in progress. Dropping it gives the call up and tells the server once.
    pub struct ReplyFuture<'a, C, A, R, E>
    where
        C: Channel,
        C: 'a,
        A: Message,
    {
        #[pin]
        pending: C::Pending<'a, Extended<Typed<'a, A>>>,
        out_signature: u64,
        reply: PhantomData<fn() -> (R, E)>,
    }
}

impl<'a, C, A, R, E> Future for ReplyFuture<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = Reply<CallResult<R, E, C::Body>, C::Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.pending.poll(cx));
        let out_signature = *this.out_signature;
        Poll::Ready(Reply::of(answer, |answer| receive::<R, E, C::Body>(answer, out_signature)))
    }
}
