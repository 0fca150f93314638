//! Calls whose reply brings an attachment that goes to a file.

use std::any::Any;
use std::fmt;
use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use ringcall_codec_rkyv::{Message, Typed, WithAttachment};
use ringcall_core::{
    Channel, Codec, EncodeError, Extended, External, Outgoing, Payload, Transcode, Writer,
};

use super::call::{Call, receive};
use super::{BlockOn, CallResult, IntoOwned};

/// A call whose reply's attachment is written to a range of a file, see
/// [`Call::land_in`]. It is made when it is awaited or waited for.
#[must_use = "a call is made when it is awaited or waited for"]
pub struct LandingCall<'a, C, A, R, E> {
    channel: &'a C,
    outgoing: Outgoing,
    payload: Landing<'a, A>,
    reply: PhantomData<fn() -> (R, E)>,
}

impl<'a, C: Channel, A: Message, R: Message, E: Message> Call<'a, C, A, WithAttachment<R>, E> {
    /// Has the reply's attachment written to this range of a [`SharedFile`](crate::SharedFile), from its
    /// beginning, instead of being kept in memory: the reply then says
    /// [`Landed`](crate::ReceivedAttachment::Landed). It is written from where it was received. The call
    /// ends when all of it is written, and with
    /// [`Cause::Unwritable`](crate::Cause::Unwritable) when that is not possible because the disk is full, for
    /// example, or the range is too short; the connection goes on. What the range holds after a call that failed
    /// is not defined. One that could not land is over when nothing of it is written any more; after one that was given
    /// up, by its deadline too, or lost its connection, a write may still be under way.
    ///
    /// The io_uring engine has the kernel write in the background. The epoll engine writes at once, at most 64 KiB
    /// at a time: usually that is a copy into the page cache, but a disk that cannot keep up stops its shard.
    pub fn land_in(self, range: External) -> LandingCall<'a, C, A, R, E> {
        let (channel, outgoing, message) = self.into_parts();
        let payload = Landing { message, range };
        LandingCall { channel, outgoing, payload, reply: PhantomData }
    }
}

impl<'a, C: Channel, A: Message, R: Message, E: Message> LandingCall<'a, C, A, R, E> {
    /// Waits for the answer.
    ///
    /// # Errors
    /// As for awaiting it.
    pub fn wait(self) -> CallResult<WithAttachment<R>, E, C::Body>
    where
        C: BlockOn + Channel<Body: IntoOwned>,
    {
        let channel = self.channel;
        channel.block_on(self.into_future())
    }
}

impl<'a, C, A, R, E> IntoFuture for LandingCall<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = CallResult<WithAttachment<R>, E, C::Body>;
    type IntoFuture = LandingFuture<'a, C, A, R, E>;

    fn into_future(self) -> LandingFuture<'a, C, A, R, E> {
        LandingFuture {
            out_signature: self.outgoing.out_signature,
            pending: self.channel.call(self.outgoing, self.payload),
            reply: PhantomData,
        }
    }
}

impl<C, A, R, E> fmt::Debug for LandingCall<'_, C, A, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LandingCall").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

/// An argument, and where the reply's attachment goes.
pub(super) struct Landing<'a, A> {
    message: Extended<Typed<'a, A>>,
    range: External,
}

impl<A> Clone for Landing<'_, A> {
    fn clone(&self) -> Self {
        Landing { message: self.message.clone(), range: self.range.clone() }
    }
}

impl<A: Message> Payload for Landing<'_, A> {
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        self.message.encode(codec, signature, out)
    }

    fn landing(&self) -> Option<External> {
        Some(self.range.clone())
    }

    fn transcode(&self) -> Option<Transcode> {
        self.message.transcode()
    }

    fn extensions(&self) -> &[u8] {
        self.message.extensions()
    }

    fn argument(&self) -> Option<&dyn Any> {
        self.message.argument()
    }
}

impl<A> fmt::Debug for Landing<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Landing").field("range", &self.range).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call in progress. Dropping it gives the call up and tells the server once.
    pub struct LandingFuture<'a, C, A, R, E>
    where
        C: Channel,
        C: 'a,
        A: Message,
    {
        #[pin]
        pending: C::Pending<'a, Landing<'a, A>>,
        out_signature: u64,
        reply: PhantomData<fn() -> (R, E)>,
    }
}

impl<'a, C, A, R, E> Future for LandingFuture<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = CallResult<WithAttachment<R>, E, C::Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.pending.poll(cx))?;
        Poll::Ready(receive::<WithAttachment<R>, E, C::Body>(answer, *this.out_signature))
    }
}

impl<C, A, R, E> fmt::Debug for LandingFuture<'_, C, A, R, E>
where
    C: Channel,
    A: Message,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LandingFuture").finish_non_exhaustive()
    }
}
