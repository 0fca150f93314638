//! One type for every channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use ringcall_core::{
    Answer, Arrived, Channel, Encoded, Encoding, Failure, ItemError, Outgoing, Payload,
    SharedChunk, StreamCall, StreamChannel,
};

use super::{BlockOn, Outbox};
use crate::block_on::block_on;

/// Any channel that is for all threads: a [`Client`](crate::Client), a balanced one, one in wrappers. So a program's state, and
/// functions that other tasks run, need not say which it is, and a test gives them another.
///
/// ```
/// use ringcall::{AnyChannel, Client};
///
/// #[ringcall::service]
/// trait Orders { async fn count(&self, customer: String) -> u64; }
///
/// struct App { orders: OrdersClient<AnyChannel> }
///
/// async fn is_known(app: std::sync::Arc<App>, customer: String) -> Result<bool, ringcall::CallError> {
///     Ok(*app.orders.count(&customer).await? > 0)
/// }
///
/// # struct Fake;
/// # impl Orders for Fake { async fn count(&self, _: String) -> u64 { 1 } }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = ringcall::Server::bind("127.0.0.1:0").service(Fake.into_orders()).start()?;
/// let channel = AnyChannel::new(Client::connect(server.address()).wait()?);
/// let app = std::sync::Arc::new(App { orders: OrdersClient::new(channel) });
/// # fn spawn(_: impl Future<Output = Result<bool, ringcall::CallError>> + Send + 'static) {}
/// spawn(is_known(app, "a".to_owned())); // a task that any thread may run
/// # Ok(()) }
/// ```
///
/// What it costs: each call allocates, and its argument is encoded before the channel sees it. So a balanced channel cannot
/// route by fields of arguments, only by all else. Items of streams are encoded as they would be without it.
#[derive(Clone)]
pub struct AnyChannel {
    channel: Arc<dyn Erased>,
    outbox: Outbox,
}

type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T, Failure>> + Send + 'a>>;

/// A channel without types.
trait Erased: Send + Sync {
    fn call_encoded(&self, call: Outgoing, payload: Encoded) -> Boxed<'_, Answer<SharedChunk>>;

    fn open_encoded(&self, call: Outgoing, payload: Encoded) -> Boxed<'_, AnyStream>;
}

impl<C> Erased for C
where
    C: StreamChannel<Body = SharedChunk, Call: Send + Sync + 'static> + Send + Sync + 'static,
    for<'a> C::Pending<'a, Arc<Encoded>>: Send,
    for<'a> C::Opening<'a, Arc<Encoded>>: Send,
{
    fn call_encoded(&self, call: Outgoing, payload: Encoded) -> Boxed<'_, Answer<SharedChunk>> {
        Box::pin(self.call(call, Arc::new(payload)))
    }

    fn open_encoded(&self, call: Outgoing, payload: Encoded) -> Boxed<'_, AnyStream> {
        let opening = self.open(call, Arc::new(payload));
        Box::pin(async { Ok(AnyStream(Arc::new(opening.await?))) })
    }
}

impl AnyChannel {
    /// This one.
    pub fn new<C>(channel: C) -> AnyChannel
    where
        C: StreamChannel<Body = SharedChunk, Call: Send + Sync + 'static> + Send + Sync + 'static,
        for<'a> C::Pending<'a, Arc<Encoded>>: Send,
        for<'a> C::Opening<'a, Arc<Encoded>>: Send,
    {
        AnyChannel { channel: Arc::new(channel), outbox: Outbox::default() }
    }
}

impl fmt::Debug for AnyChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyChannel").finish_non_exhaustive()
    }
}

impl BlockOn for AnyChannel {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl Channel for AnyChannel {
    type Body = SharedChunk;
    type Pending<'a, P>
        = AnyCall<'a, P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(&'a self, call: Outgoing, payload: P) -> AnyCall<'a, P> {
        let begin: Begin<'a, _> = |channel, call, payload| channel.call_encoded(call, payload);
        AnyPending { channel: self, begins: Some((call, payload, begin)), begun: None }
    }
}

impl StreamChannel for AnyChannel {
    type Call = AnyStream;
    type Opening<'a, P>
        = AnyOpening<'a, P>
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> AnyOpening<'a, P> {
        let begin: Begin<'a, _> = |channel, call, payload| channel.open_encoded(call, payload);
        AnyPending { channel: self, begins: Some((call, payload, begin)), begun: None }
    }
}

/// A call on an [`AnyChannel`].
pub type AnyCall<'a, P> = AnyPending<'a, P, Answer<SharedChunk>>;

/// A call with streams that is being made on an [`AnyChannel`].
pub type AnyOpening<'a, P> = AnyPending<'a, P, AnyStream>;

type Begin<'a, T> = fn(&'a dyn Erased, Outgoing, Encoded) -> Boxed<'a, T>;

/// A call on an [`AnyChannel`], of which `T` is awaited.
pub struct AnyPending<'a, P, T> {
    channel: &'a AnyChannel,
    begins: Option<(Outgoing, P, Begin<'a, T>)>,
    begun: Option<Boxed<'a, T>>,
}

impl<P, T> fmt::Debug for AnyPending<'_, P, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyPending").finish_non_exhaustive()
    }
}

/// Nothing in it is pinned.
impl<P, T> Unpin for AnyPending<'_, P, T> {}

impl<P: Payload, T> Future for AnyPending<'_, P, T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        if let Some((mut call, payload, begin)) = this.begins.take() {
            // It is compressed by whoever knows what the other side reads.
            let compression = std::mem::take(&mut call.compression);
            let (encoded, _) = this.channel.outbox.encode_call(&mut call, || 0, &payload)?;
            call.compression = compression;
            this.begun = Some(begin(&*this.channel.channel, call, encoded));
        }
        let Some(begun) = &mut this.begun else { return Poll::Pending };
        let ended = ready!(begun.as_mut().poll(cx));
        // What is behind it is let go of now, whoever keeps the future.
        this.begun = None;
        Poll::Ready(ended)
    }
}

/// A call with streams of an [`AnyChannel`].
#[derive(Clone)]
pub struct AnyStream(Arc<dyn ErasedStream + Send + Sync>);

/// A call with streams without types.
trait ErasedStream {
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &dyn Payload,
    ) -> Poll<Result<(), ItemError>>;

    fn end_items(&self);

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<SharedChunk>>;

    fn cancel(&self);
}

impl<S: StreamCall<Body = SharedChunk>> ErasedStream for S {
    fn poll_send(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &dyn Payload,
    ) -> Poll<Result<(), ItemError>> {
        StreamCall::poll_send(self, cx, encoding, &payload)
    }

    fn end_items(&self) {
        StreamCall::end_items(self);
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<SharedChunk>> {
        StreamCall::poll_arrived(self, cx)
    }

    fn cancel(&self) {
        StreamCall::cancel(self);
    }
}

impl StreamCall for AnyStream {
    type Body = SharedChunk;

    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        self.0.poll_send(cx, encoding, payload)
    }

    fn end_items(&self) {
        self.0.end_items();
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<SharedChunk>> {
        self.0.poll_arrived(cx)
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

impl BlockOn for AnyStream {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl fmt::Debug for AnyStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyStream").finish_non_exhaustive()
    }
}
