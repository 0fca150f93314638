//! Calls with values of JSON.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use ringcall::{
    BadMetadataKey, BlockOn, CallError, Cause, Channel, Failure, IntoOwned, Reply, StreamChannel,
    UntypedCall, UntypedFuture, UntypedReply,
};
use serde_json::Value;

use crate::{Catalog, CatalogError, GenericError, GenericStreams, Method, encode};

/// A client of all services of a server, by their names.
#[derive(Clone)]
pub struct Generic<C> {
    channel: C,
    catalog: Arc<Catalog>,
}

impl<C> fmt::Debug for Generic<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Generic").field("services", &self.catalog.services().len()).finish()
    }
}

impl<C: Channel<Body: IntoOwned>> Generic<C> {
    /// Asks the server what it serves.
    ///
    /// # Errors
    /// As for [`Catalog::fetch`].
    pub async fn fetch(channel: C) -> Result<Generic<C>, CatalogError> {
        let catalog = Catalog::fetch(&channel).await?;
        Ok(Generic::new(channel, Arc::new(catalog)))
    }

    /// The same, and blocks this thread meanwhile.
    ///
    /// # Errors
    /// As for [`Catalog::fetch`].
    pub fn wait_for(channel: C) -> Result<Generic<C>, CatalogError>
    where
        C: BlockOn,
    {
        let catalog = Catalog::wait_for(&channel)?;
        Ok(Generic::new(channel, Arc::new(catalog)))
    }

    /// Calls what this catalog says there is.
    pub fn new(channel: C, catalog: Arc<Catalog>) -> Generic<C> {
        Generic { channel, catalog }
    }

    /// What the server serves.
    #[must_use]
    pub fn catalog(&self) -> &Arc<Catalog> {
        &self.catalog
    }

    /// The channel of the calls.
    #[must_use]
    pub fn channel(&self) -> &C {
        &self.channel
    }

    /// A call of a method, `package.Service/method`, that is ready to be made.
    ///
    /// # Errors
    /// When there is no such method, it has streams, or the argument is not of its type: then nothing is sent.
    pub fn call(&self, method: &str, argument: &Value) -> Result<GenericCall<'_, C>, GenericError> {
        GenericCall::new(&self.channel, self.catalog.find(method)?, argument)
    }

    /// A call of a method with streams, that is ready to be opened.
    ///
    /// # Errors
    /// When there is no such method, it has no streams, or the argument is not of its type: then nothing is sent.
    pub fn streams(
        &self,
        method: &str,
        argument: &Value,
    ) -> Result<GenericStreams<'_, C>, GenericError>
    where
        C: StreamChannel,
    {
        GenericStreams::new(&self.channel, self.catalog.find(method)?, argument)
    }

    /// The same as [`call`](Self::call), without comparing the argument with the method's type: for types that serde knows by other names than their
    /// source. The server says if it cannot read it, though not why.
    ///
    /// # Errors
    /// When there is no such method, or it has streams.
    pub fn unchecked(
        &self,
        method: &str,
        argument: &Value,
    ) -> Result<GenericCall<'_, C>, GenericError> {
        GenericCall::unchecked(&self.channel, self.catalog.find(method)?, argument)
    }
}

/// A call of a method by its description: await it, or [`wait`](GenericCall::wait) for it. It gives the reply, or an error of
/// which the handler's is a value, too.
#[must_use = "a call is made when it is awaited or waited for"]
pub struct GenericCall<'a, C> {
    call: UntypedCall<'a, C>,
    channel: &'a C,
    method: &'a Method,
}

impl<C> fmt::Debug for GenericCall<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("GenericCall").field(&self.call).finish()
    }
}

impl<'a, C: Channel> GenericCall<'a, C> {
    /// A call of this method. It waits as long as the method says, or a second.
    ///
    /// # Errors
    /// When the method has streams, or the argument is not of its type.
    pub fn new(
        channel: &'a C,
        method: &'a Method,
        argument: &Value,
    ) -> Result<GenericCall<'a, C>, GenericError> {
        expect_no_streams(method)?;
        let encoded = method.encode_argument(argument).map_err(|mismatch| {
            GenericError::BadArgument { method: method.full_name().to_owned(), mismatch }
        })?;
        GenericCall::with_encoded(channel, method, encoded)
    }

    /// The same, without comparing the argument with the method's type, see [`Generic::unchecked`].
    ///
    /// # Errors
    /// When the method has streams.
    pub fn unchecked(
        channel: &'a C,
        method: &'a Method,
        argument: &Value,
    ) -> Result<GenericCall<'a, C>, GenericError> {
        GenericCall::with_encoded(channel, method, encode::as_it_is(argument))
    }

    /// A call whose argument is encoded already: in MessagePack, or bytes as they are, if that is what the method takes.
    ///
    /// # Errors
    /// When the method has streams, or is called what no method can be.
    pub fn with_encoded(
        channel: &'a C,
        method: &'a Method,
        argument: Vec<u8>,
    ) -> Result<GenericCall<'a, C>, GenericError> {
        expect_no_streams(method)?;
        Ok(GenericCall { call: prepare(channel, method, argument)?, channel, method })
    }

    /// How long to wait.
    pub fn deadline(self, deadline: Duration) -> Self {
        GenericCall { call: self.call.deadline(deadline), ..self }
    }

    /// Adds an entry of metadata, see [`CallOptions::try_metadata`](ringcall::CallOptions::try_metadata).
    ///
    /// # Errors
    /// When the key is none.
    pub fn try_metadata(self, key: &str, value: impl AsRef<[u8]>) -> Result<Self, BadMetadataKey> {
        Ok(GenericCall { call: self.call.try_metadata(key, value)?, ..self })
    }

    /// Changes what else a call may say: its priority, trace, group and so on.
    pub fn with(self, change: impl FnOnce(UntypedCall<'a, C>) -> UntypedCall<'a, C>) -> Self {
        GenericCall { call: change(self.call), ..self }
    }

    /// The call itself, which gives the answer as it came: for whoever wants bytes as they are, or
    /// [decodes](Method::decode_reply) the reply later.
    pub fn into_untyped(self) -> UntypedCall<'a, C> {
        self.call
    }

    /// Waits for the answer, which blocks this thread.
    ///
    /// # Errors
    /// As for awaiting it.
    pub fn wait(self) -> Result<Value, CallError<Value>>
    where
        C: BlockOn + Channel<Body: IntoOwned>,
    {
        self.wait_with_metadata().result
    }

    /// The same, with what comes beside the answer.
    pub fn wait_with_metadata(self) -> Reply<Result<Value, CallError<Value>>, C::Body>
    where
        C: BlockOn + Channel<Body: IntoOwned>,
    {
        let channel = self.channel;
        channel.block_on(self.with_metadata())
    }

    /// The answer, with the metadata that the handler has added, how long things took there, and how busy it is.
    pub async fn with_metadata(self) -> Reply<Result<Value, CallError<Value>>, C::Body>
    where
        C: Channel<Body: IntoOwned>,
    {
        let method = self.method;
        self.call.await.map(|result| receive(method, result))
    }
}

/// A call as its method says.
pub(crate) fn prepare<'a, C: Channel>(
    channel: &'a C,
    method: &Method,
    argument: Vec<u8>,
) -> Result<UntypedCall<'a, C>, GenericError> {
    let full_name = method.full_name();
    let call = UntypedCall::new(channel, full_name, method.argument_codec(), argument);
    let mut call = call.map_err(|_| GenericError::BadName { method: full_name.to_owned() })?;
    if let Some(deadline) = method.deadline() {
        call = call.deadline(deadline);
    }
    if method.is_idempotent() {
        call = call.idempotent();
    }
    if method.is_one_way() {
        call = call.one_way();
    }
    Ok(call)
}

fn expect_no_streams(method: &Method) -> Result<(), GenericError> {
    match method.has_streams() {
        true => Err(GenericError::HasStreams { method: method.full_name().to_owned() }),
        false => Ok(()),
    }
}

impl<'a, C: Channel<Body: IntoOwned>> IntoFuture for GenericCall<'a, C> {
    type Output = Result<Value, CallError<Value>>;
    type IntoFuture = GenericFuture<'a, C>;

    fn into_future(self) -> GenericFuture<'a, C> {
        GenericFuture { pending: self.call.into_future(), method: self.method }
    }
}

pin_project! {
    /// A call in progress. Dropping it gives the call up and tells the server once.
    pub struct GenericFuture<'a, C>
    where
        C: Channel,
        C: 'a,
    {
        #[pin]
        pending: UntypedFuture<'a, C>,
        method: &'a Method,
    }
}

impl<C: Channel> fmt::Debug for GenericFuture<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GenericFuture").field("method", &self.method.full_name()).finish()
    }
}

impl<C: Channel<Body: IntoOwned>> Future for GenericFuture<'_, C> {
    type Output = Result<Value, CallError<Value>>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let reply = ready!(this.pending.poll(cx));
        Poll::Ready(receive(this.method, reply.result))
    }
}

/// What the handler answered, as a value.
pub(crate) fn receive<B: AsRef<[u8]>>(
    method: &Method,
    result: Result<UntypedReply<B>, CallError<UntypedReply<B>>>,
) -> Result<Value, CallError<Value>> {
    let bad = || CallError::Failed(Failure::unknown(Cause::BadReply));
    match result {
        // It ended when it was sent.
        Ok(_) if method.is_one_way() => Ok(Value::Null),
        Ok(reply) => method.decode_reply(reply.body.as_ref()).ok_or_else(bad),
        Err(CallError::App(error)) => match method.decode_error(error.body.as_ref()) {
            Some(error) => Err(CallError::App(error)),
            None => Err(bad()),
        },
        Err(CallError::Failed(failure)) => Err(CallError::Failed(failure)),
    }
}
