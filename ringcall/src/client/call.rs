//! A typed call, and what is common to all channels.

use std::future::{Future, IntoFuture};
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;
use std::{fmt, mem};

use pin_project_lite::pin_project;
use ringcall_codec_rkyv::{Form, Message, Typed};
use ringcall_compression::Compression;
use ringcall_core::frame::{ExtensionWriter, request_flags};
use ringcall_core::{
    Answer, Cause, Channel, Extended, Failure, Frozen, Outcome, Outgoing, SharedChunk, StatusClass,
};

use super::{Client, LocalClient, Peer, WithMetadata};
use crate::CallError;
use crate::packing::{inflate_answer, wish};
use crate::serve::MethodTable;

/// Options for calls. Those of a client hold for all its calls, those of a [`Call`] for that one; what
/// neither says is as the method says, or the default.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct CallOptions {
    /// What they say in place of the methods. Mostly nothing: then what a method says is moved as a whole.
    stated: Option<Stated>,
    /// Metadata and context, in front of those of the call.
    extensions: ExtensionWriter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stated {
    deadline: Option<Duration>,
    priority: Option<u8>,
    wait_for_ready: Option<bool>,
    compression: Option<Option<Compression>>,
}

impl CallOptions {
    /// As the methods say.
    pub const fn new() -> CallOptions {
        CallOptions { stated: None, extensions: ExtensionWriter::new() }
    }

    const fn stated(&self) -> Stated {
        const NOTHING: Stated =
            Stated { deadline: None, priority: None, wait_for_ready: None, compression: None };
        match self.stated {
            Some(stated) => stated,
            None => NOTHING,
        }
    }

    /// How long to wait: a second, unless the method says otherwise. The server is told how much is
    /// left, and stops working on a call that nobody waits for.
    pub const fn deadline(mut self, deadline: Duration) -> CallOptions {
        self.stated = Some(Stated { deadline: Some(deadline), ..self.stated() });
        self
    }

    crate::metadata::extension_methods!(extensions);

    /// What goes with every call.
    #[inline]
    pub(super) fn extensions(&self) -> ExtensionWriter {
        match self.extensions.is_empty() {
            true => ExtensionWriter::new(),
            false => self.extensions.clone(),
        }
    }

    /// How long to wait, if these options or the method say it.
    pub(super) fn stated_deadline(&self, method: &MethodTable) -> Option<Duration> {
        self.stated().deadline.or(method.default_deadline())
    }

    /// How important the call is: 0 is the most ordinary, and by default what the handler's call has of which this is
    /// a part. How many there are is up to the services. A server with [limits](crate::limits) begins calls of higher
    /// ones first and refuses those of lower ones first, unless this caller [may not](crate::Server::priority_max)
    /// claim it.
    pub const fn priority(mut self, priority: u8) -> CallOptions {
        self.stated = Some(Stated { priority: Some(priority), ..self.stated() });
        self
    }

    /// How arguments and items of the caller are compressed, or that they are not: as the method says, by
    /// default, and methods usually say nothing. Short ones, and those that would not become much shorter, are
    /// sent as they are, and so is everything to a server that does not read it.
    ///
    /// Do not compress messages that hold secrets beside text of somebody else's choice: see
    /// [`CompressionConfig`](crate::CompressionConfig).
    pub const fn compression(mut self, compression: Option<Compression>) -> CallOptions {
        self.stated = Some(Stated { compression: Some(compression), ..self.stated() });
        self
    }

    /// Whether a call waits, until its deadline, for a connection that could not be opened at the last
    /// attempt. Otherwise, as by default, it fails at once, and was not sent. Calls always wait for an
    /// attempt that follows a connection which was there: the first one, one after a loss, or one because the
    /// server asks to leave.
    ///
    /// Over a balanced channel it is about the connection of the instance that was chosen, which is a broken one only if
    /// all are. While there is no list of instances, or none of them may have the call, it fails at once all the same:
    /// `Balanced::ready` waits for a list.
    pub const fn wait_for_ready(mut self, wait: bool) -> CallOptions {
        self.stated = Some(Stated { wait_for_ready: Some(wait), ..self.stated() });
        self
    }
}

/// A channel whose calls can be waited for without an executor.
pub trait BlockOn {
    /// Waits for a future of this channel.
    fn block_on<F: Future>(&self, future: F) -> F::Output;
}

impl<T: BlockOn> BlockOn for &T {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        (**self).block_on(future)
    }
}

/// A call that is ready to be made: await it, [`wait`](Call::wait) for it, or leave a
/// [`callback`](Call::callback).
///
/// It gives the reply as a [`View`](crate::View), read where it landed, or a [`CallError`].
///
/// # Many at a time
///
/// A call is not a future yet, since it can still be changed ([`deadline`](Call::deadline), [`metadata`](Call::metadata)):
/// `.await` and `tokio::select!` make it one, and what asks for a [`Future`], as `join_all` and `timeout` do, is given
/// `.into_future()`. A hundred at a time, of however many there are, with the crate `futures`:
///
/// ```
/// # mod futures {
/// #     pub mod stream {
/// #         pub fn iter<I: IntoIterator>(items: I) -> Iter<I::IntoIter> { Iter(items.into_iter()) }
/// #         pub struct Iter<I>(I);
/// #         impl<F: Future, I: Iterator<Item = F>> Iter<I> {
/// #             pub fn buffered(self, _: usize) -> Self { self }
/// #             pub async fn collect<C: Extend<F::Output> + Default>(self) -> C {
/// #                 let mut all = C::default();
/// #                 for future in self.0 { all.extend([future.await]); }
/// #                 all
/// #             }
/// #         }
/// #     }
/// #     pub mod future {
/// #         pub async fn join_all<F: Future>(all: impl Iterator<Item = F>) -> Vec<F::Output> {
/// #             super::stream::iter(all).collect().await
/// #         }
/// #     }
/// # }
/// # fn main() {}
/// # #[ringcall::message] pub struct Quote { pub price: f64 }
/// # #[ringcall::service] pub trait Quotes { async fn last(&self, id: u64) -> Quote; }
/// # async fn example(quotes: QuotesClient, ids: Vec<u64>) {
/// use std::future::IntoFuture;
/// use futures::stream; // and `futures::StreamExt`
///
/// let calls = ids.iter().map(|id| quotes.last(id).into_future());
/// let replies: Vec<_> = stream::iter(calls).buffered(100).collect().await;
///
/// // Few enough to make all of them at once.
/// let replies = futures::future::join_all(ids.iter().map(|id| quotes.last(id).into_future())).await;
/// # let _ = replies;
/// # }
/// ```
#[must_use = "a call is made when it is awaited, waited for, or given a callback"]
pub struct Call<'a, C, A, R, E> {
    pub(super) channel: &'a C,
    pub(super) outgoing: Outgoing,
    argument: &'a A,
    extensions: ExtensionWriter,
    reply: PhantomData<fn() -> (R, E)>,
}

/// What a call gives.
pub type CallResult<R, E, B> = Result<<R as Message>::Received<B>, CallError<E>>;

impl<'a, C: Channel, A: Message, R: Message, E: Message> Call<'a, C, A, R, E> {
    #[doc(hidden)]
    #[inline]
    pub fn new(
        channel: &'a C,
        method: &'static MethodTable,
        options: &CallOptions,
        argument: &'a A,
    ) -> Call<'a, C, A, R, E> {
        Call {
            channel,
            outgoing: outgoing(method, options),
            argument,
            extensions: options.extensions(),
            reply: PhantomData,
        }
    }

    crate::metadata::extension_methods!(extensions);

    /// Gives the answer with the metadata that the handler has added, how long things took there, and how
    /// busy it is.
    pub fn with_metadata(self) -> WithMetadata<'a, C, A, R, E> {
        WithMetadata(self)
    }

    /// Makes the call.
    #[inline]
    pub(super) fn make(self) -> C::Pending<'a, Extended<Typed<'a, A>>> {
        let extensions = self.extensions.finish();
        self.channel.call(self.outgoing, Extended { payload: Typed(self.argument), extensions })
    }

    super::methods::call_methods! { (outgoing)
        /// How long to wait for this call.
        deadline;
        /// How important this call is.
        priority;
        /// Whether this call waits for a broken connection, see [`CallOptions::wait_for_ready`].
        wait_for_ready;
        /// Names what the call is to do, in 1 to 256 bytes of the caller's choice: a server that [keeps
        /// answers](crate::Deduplication) does it once for all calls of the method that this caller makes with the same
        /// key. To others it means nothing, unless their handlers [read](crate::Metadata::idempotency_key) it. A key that
        /// is as hard to guess as 16 random bytes is nobody else's.
        idempotency_key;
        /// How the argument is compressed, see [`CallOptions::compression`].
        compression;
    }

    pub(super) fn into_parts(self) -> (&'a C, Outgoing, Extended<Typed<'a, A>>) {
        let extensions = self.extensions.finish();
        (self.channel, self.outgoing, Extended { payload: Typed(self.argument), extensions })
    }

    /// Waits for the answer, which blocks this thread: not for threads of an executor on whose tasks the answer depends.
    /// With a server in the same process whose handlers run on that executor
    /// ([`Server::service_spawned`](crate::Server::service_spawned)) and one thread, for example, nobody runs the handler
    /// that is waited for, and the call ends at its deadline. Await it there.
    ///
    /// # Errors
    /// As for awaiting it.
    pub fn wait(self) -> CallResult<R, E, C::Body>
    where
        C: BlockOn + Channel<Body: IntoOwned>,
    {
        let channel = self.channel;
        channel.block_on(self.into_future())
    }
}

impl<'a, A: Message, R: Message, E: Message + Send> Call<'a, Client, A, R, E> {
    /// Makes the call at once and has `callback` run with its end, on the client's shard: it must not
    /// block. Nothing of the call is borrowed any more when this returns.
    pub fn callback(self, callback: impl FnOnce(CallResult<R, E, SharedChunk>) + Send + 'static) {
        let Outgoing { out_signature, .. } = self.outgoing;
        let extensions = self.extensions.finish();
        let payload = Extended { payload: Typed(self.argument), extensions };
        self.channel.call_with(self.outgoing, &payload, move |outcome| {
            callback(
                outcome
                    .map_err(CallError::Failed)
                    .and_then(|answer| receive::<R, E, SharedChunk>(answer, out_signature)),
            );
        });
    }
}

impl<'a, A: Message, R: Message, E: Message + Send> Call<'a, Peer, A, R, E> {
    /// Makes the call at once and has `callback` run with its end, on the shard of the connection: it must
    /// not block. Nothing of the call is borrowed any more when this returns.
    pub fn callback(self, callback: impl FnOnce(CallResult<R, E, SharedChunk>) + Send + 'static) {
        let Outgoing { out_signature, .. } = self.outgoing;
        let extensions = self.extensions.finish();
        let payload = Extended { payload: Typed(self.argument), extensions };
        self.channel.call_with(self.outgoing, &payload, move |outcome| {
            callback(
                outcome
                    .map_err(CallError::Failed)
                    .and_then(|answer| receive::<R, E, SharedChunk>(answer, out_signature)),
            );
        });
    }
}

impl<'a, A: Message, R: Message, E: Message> Call<'a, LocalClient, A, R, E> {
    /// Makes the call at once and has `callback` run with its end. Nothing of the call is borrowed any
    /// more when this returns.
    pub fn callback(self, callback: impl FnOnce(CallResult<R, E, ringcall_core::Chunk>) + 'static) {
        let Outgoing { out_signature, .. } = self.outgoing;
        let extensions = self.extensions.finish();
        let payload = Extended { payload: Typed(self.argument), extensions };
        let limit = self.channel.message_bytes_max();
        self.channel.call_with(self.outgoing, &payload, move |outcome: Outcome| {
            let answered = inflate_answer(outcome.into_answer().map(Answer::from), limit);
            callback(
                answered.map_err(CallError::Failed).and_then(|answer| {
                    receive::<R, E, ringcall_core::Chunk>(answer, out_signature)
                }),
            );
        });
    }
}

impl<'a, C, A, R, E> IntoFuture for Call<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = CallResult<R, E, C::Body>;
    type IntoFuture = CallFuture<'a, C, A, R, E>;

    #[inline]
    fn into_future(self) -> CallFuture<'a, C, A, R, E> {
        CallFuture {
            out_signature: self.outgoing.out_signature,
            pending: self.make(),
            reply: PhantomData,
        }
    }
}

impl<C, A, R, E> fmt::Debug for Call<'_, C, A, R, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Call").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

pin_project! {
    /// A call in progress. Dropping it gives the call up and tells the server once.
    pub struct CallFuture<'a, C, A, R, E>
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

impl<'a, C, A, R, E> Future for CallFuture<'a, C, A, R, E>
where
    C: Channel<Body: IntoOwned>,
    A: Message,
    R: Message,
    E: Message,
{
    type Output = CallResult<R, E, C::Body>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        if let Some(answer) = C::take_answer(this.pending.as_mut()) {
            return Poll::Ready(receive::<R, E, C::Body>(answer, *this.out_signature));
        }
        let ended = ready!(this.pending.poll(cx));
        Poll::Ready(receive_ended::<R, E, C::Body>(ended, *this.out_signature))
    }
}

/// A body of which an owned message can be made, wherever it is held: the bound on `C::Body` for code that
/// awaits calls over any [`Channel`](crate::Channel).
pub trait IntoOwned: Frozen + From<SharedChunk> {
    /// The message, out of what was received of it.
    fn into_owned<M: Message>(received: M::Received<Self>) -> M
    where
        Self: Sized;

    /// Nothing.
    #[doc(hidden)]
    fn empty() -> Self
    where
        Self: Sized;
}

impl IntoOwned for ringcall_core::Chunk {
    fn into_owned<M: Message>(received: M::Received<Self>) -> M {
        M::into_owned(received)
    }

    fn empty() -> Self {
        ringcall_core::Chunk::empty()
    }
}

impl IntoOwned for SharedChunk {
    fn into_owned<M: Message>(received: M::Received<Self>) -> M {
        M::into_owned_shared(received)
    }

    fn empty() -> Self {
        SharedChunk::empty()
    }
}

/// Checks an answer and makes what the caller asked for of it.
#[inline(always)]
pub(super) fn receive<R: Message, E: Message, B: IntoOwned>(
    answer: Answer<B>,
    out_signature: u64,
) -> CallResult<R, E, B> {
    if !answer.header.is_plain(out_signature, R::CODEC) {
        return receive_other::<R, E, B>(answer, out_signature);
    }
    let Answer { body, attached, .. } = answer;
    R::receive_with(body, attached)
        .map_err(|_| CallError::Failed(Failure::unknown(Cause::BadReply)))
}

/// The same, if there is an answer: for calls whose answer is [not at hand](Channel::take_answer).
fn receive_ended<R: Message, E: Message, B: IntoOwned>(
    ended: Result<Answer<B>, Failure>,
    out_signature: u64,
) -> CallResult<R, E, B> {
    receive::<R, E, B>(ended?, out_signature)
}

/// The same for an error, and for an answer that is not in the layout that was asked for. One in a codec with names
/// says by itself what it is; any other is not for this caller.
#[cold]
fn receive_other<R: Message, E: Message, B: IntoOwned>(
    answer: Answer<B>,
    out_signature: u64,
) -> CallResult<R, E, B> {
    let bad = CallError::Failed(Failure::unknown(Cause::BadReply));
    let Answer { header, body, attached, .. } = answer;
    if header.compression != 0 {
        return Err(bad);
    }
    let form = Form::of_codec(header.codec);
    if header.status.class() == StatusClass::Application {
        if header.signature == out_signature && header.codec == E::CODEC {
            return match E::receive(body) {
                Ok(error) => Err(CallError::App(B::into_owned::<E>(error))),
                Err(_) => Err(bad),
            };
        }
        return match E::decode_as(form, body.as_ref()) {
            Ok(error) if header.codec.has_names() => Err(CallError::App(error)),
            _ => Err(bad),
        };
    }
    let received = match R::IS_RAW && header.codec == R::CODEC && out_signature != 0 {
        // Bytes as they are have no layout: the error's is another one.
        true => R::receive_with(body, attached),
        false if header.codec.has_names() => R::receive_as_with(form, body, attached),
        false => return Err(bad),
    };
    received.map_err(|_| bad)
}

/// A one-way call that is ready to be made. It ends when the transport has taken it: it may run, and
/// nobody will say whether it did.
#[must_use = "a call is made when it is awaited or waited for"]
pub struct OneWay<'a, C, A> {
    channel: &'a C,
    outgoing: Outgoing,
    argument: &'a A,
    extensions: ExtensionWriter,
}

impl<'a, C: Channel, A: Message> OneWay<'a, C, A> {
    #[doc(hidden)]
    pub fn new(
        channel: &'a C,
        method: &'static MethodTable,
        options: &CallOptions,
        argument: &'a A,
    ) -> OneWay<'a, C, A> {
        let mut outgoing = outgoing(method, options);
        outgoing.flags |= request_flags::ONE_WAY;
        OneWay { channel, outgoing, argument, extensions: options.extensions() }
    }

    crate::metadata::extension_methods!(extensions);

    super::methods::call_methods! { (outgoing)
        /// How long the server may take to start it.
        deadline;
        /// Whether this call waits for a broken connection, see [`CallOptions::wait_for_ready`].
        wait_for_ready;
    }

    /// Waits until it is sent.
    ///
    /// # Errors
    /// When it was not sent.
    pub fn wait(self) -> Result<(), CallError>
    where
        C: BlockOn,
    {
        let channel = self.channel;
        channel.block_on(self.into_future())
    }
}

impl<'a, C: Channel, A: Message> IntoFuture for OneWay<'a, C, A> {
    type Output = Result<(), CallError>;
    type IntoFuture = OneWayFuture<'a, C, A>;

    fn into_future(self) -> OneWayFuture<'a, C, A> {
        let extensions = self.extensions.finish();
        let payload = Extended { payload: Typed(self.argument), extensions };
        OneWayFuture { pending: self.channel.call(self.outgoing, payload) }
    }
}

impl<C, A> fmt::Debug for OneWay<'_, C, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OneWay").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

pin_project! {
    /// A one-way call on its way to the transport.
    pub struct OneWayFuture<'a, C, A>
    where
        C: Channel,
        C: 'a,
        A: Message,
    {
        #[pin]
        pending: C::Pending<'a, Extended<Typed<'a, A>>>,
    }
}

impl<'a, C: Channel, A: Message> Future for OneWayFuture<'a, C, A> {
    type Output = Result<(), CallError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let _answer = ready!(self.project().pending.poll(cx))?;
        Poll::Ready(Ok(()))
    }
}

/// What is said of a call with these options.
#[inline]
pub(super) fn outgoing(method: &'static MethodTable, options: &CallOptions) -> Outgoing {
    let over;
    // Copied once, from wherever it is.
    *match options.stated {
        None => method.outgoing(),
        Some(stated) => {
            over = stated.over(method.outgoing());
            &over
        }
    }
}

impl Stated {
    // Apart, so that what says nothing is short.
    #[inline(never)]
    fn over(self, method: &Outgoing) -> Outgoing {
        Outgoing {
            timeout: self.deadline.unwrap_or(method.timeout),
            priority: self.priority.unwrap_or(method.priority),
            wait_for_ready: self.wait_for_ready.unwrap_or(method.wait_for_ready),
            compression: self.compression.map_or(method.compression, wish),
            ..*method
        }
    }
}

const _: () = assert!(mem::size_of::<Outgoing>() <= 64);
