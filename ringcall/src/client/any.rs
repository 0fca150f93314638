//! One type for every channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use ringcall_core::{Answer, Channel, Encoded, Failure, Outgoing, Payload, SharedChunk};

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
/// route by fields of arguments, only by all else. Methods with streams are not for it.
#[derive(Clone)]
pub struct AnyChannel {
    channel: Arc<dyn Erased>,
    outbox: Outbox,
}

type Ending<'a> = Pin<Box<dyn Future<Output = Result<Answer<SharedChunk>, Failure>> + Send + 'a>>;

/// A channel without types.
trait Erased: Send + Sync {
    fn call_encoded(&self, call: Outgoing, payload: Encoded) -> Ending<'_>;
}

impl<C> Erased for C
where
    C: Channel<Body = SharedChunk> + Send + Sync + 'static,
    for<'a> C::Pending<'a, Arc<Encoded>>: Send,
{
    fn call_encoded(&self, call: Outgoing, payload: Encoded) -> Ending<'_> {
        Box::pin(self.call(call, Arc::new(payload)))
    }
}

impl AnyChannel {
    /// This one.
    pub fn new<C>(channel: C) -> AnyChannel
    where
        C: Channel<Body = SharedChunk> + Send + Sync + 'static,
        for<'a> C::Pending<'a, Arc<Encoded>>: Send,
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
        AnyCall { channel: self, begins: Some((call, payload)), ending: None }
    }
}

pin_project! {
    /// A call on an [`AnyChannel`].
    pub struct AnyCall<'a, P> {
        channel: &'a AnyChannel,
        begins: Option<(Outgoing, P)>,
        ending: Option<Ending<'a>>,
    }
}

impl<P> fmt::Debug for AnyCall<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AnyCall").finish_non_exhaustive()
    }
}

impl<P: Payload> Future for AnyCall<'_, P> {
    type Output = Result<Answer<SharedChunk>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        if let Some((mut call, payload)) = this.begins.take() {
            // It is compressed by whoever knows what the other side reads.
            let compression = std::mem::take(&mut call.compression);
            let (encoded, _) = this.channel.outbox.encode_call(&mut call, || 0, &payload)?;
            call.compression = compression;
            *this.ending = Some(this.channel.channel.call_encoded(call, encoded));
        }
        let Some(ending) = this.ending else { return Poll::Pending };
        let ended = ready!(ending.as_mut().poll(cx));
        // What is behind it is let go of now, whoever keeps the future.
        *this.ending = None;
        Poll::Ready(ended)
    }
}
