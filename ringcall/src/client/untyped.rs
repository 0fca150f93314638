//! Calls of methods whose types this program does not have.

use std::fmt;
use std::future::{Future, IntoFuture};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use pin_project_lite::pin_project;
use ringcall_core::frame::{ExtensionWriter, request_flags};
use ringcall_core::{
    Answer, Cause, Channel, Codec, EncodeError, Extended, Failure, Outgoing, Payload, StatusClass,
    StreamChannel, Writer, is_method_name, method_id,
};

use super::{BlockOn, DEFAULT_DEADLINE, IntoOwned, Reply, Streams, UntypedEnds, UntypedOpening};
use crate::CallError;
use crate::observe::known_name;
use crate::packing::wish;

/// A call of a method by its name, with an argument that is encoded already: for tools, gateways and whoever else has not
/// the service's types. It goes over every [`Channel`], and is awaited, or [waited](UntypedCall::wait) for.
///
/// Each method of messages takes its argument in MessagePack, by the names of fields, and answers in it; with the feature
/// `json` of the server also in JSON. One that takes bytes as they are takes [`Codec::RAW`]. `docs/PROTOCOL.md` has a table of
/// how each type is written. The crate `ringcall-generic` asks a server what methods and types it has, and makes of that
/// calls with values of JSON.
///
/// ```
/// use ringcall::{Client, Codec, UntypedCall};
///
/// # #[ringcall::service] trait Quotes { async fn last(&self, symbol: String) -> u8; }
/// # struct Book;
/// # impl Quotes for Book { async fn last(&self, _: String) -> u8 { 42 } }
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let server = ringcall::Server::bind("127.0.0.1:0").service(Book.into_quotes()).start()?;
/// # let name = ringcall::ServiceTable::name(QuotesClient::service_table());
/// # let method = format!("{name}/last");
/// let client = Client::connect(server.address()).wait()?;
/// let argument = b"\xa3ABC".to_vec(); // the text "ABC" in MessagePack
/// let answer = UntypedCall::new(&client, &method, Codec::MESSAGEPACK, argument)?.wait();
/// let reply = answer.result.map_err(|error| error.map_app(|_| "an error of the handler"))?;
/// assert_eq!((reply.codec, &reply.body[..]), (Codec::MESSAGEPACK, &[42][..]));
/// # Ok(()) }
/// ```
#[must_use = "a call is made when it is awaited or waited for"]
pub struct UntypedCall<'a, C> {
    channel: &'a C,
    outgoing: Outgoing,
    argument: Bytes,
    extensions: ExtensionWriter,
    deadline: Option<Duration>,
}

/// What a handler answered a call whose types are not known: its value, or its error.
#[derive(Clone)]
#[non_exhaustive]
pub struct UntypedReply<B> {
    /// What the message is in: MessagePack, as a rule; [`Codec::RAW`] if the method gives bytes as they are, and what the
    /// call was in, if that was JSON.
    pub codec: Codec,
    /// The message.
    pub body: B,
    /// What came [beside it](crate::WithAttachment), if anything did.
    pub attachment: Option<B>,
}

impl<B: AsRef<[u8]>> fmt::Debug for UntypedReply<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let len = |bytes: &B| bytes.as_ref().len();
        f.debug_struct("UntypedReply")
            .field("codec", &self.codec)
            .field("body_bytes", &len(&self.body))
            .field("attachment_bytes", &self.attachment.as_ref().map_or(0, len))
            .finish()
    }
}

/// Not the name of a method.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BadMethodName(Box<str>);

impl fmt::Display for BadMethodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown: String = self.0.chars().take(100).collect();
        write!(f, "{shown:?} is not the name of a method: one is called `package.Service/method`")
    }
}

impl std::error::Error for BadMethodName {}

impl<'a, C: Channel> UntypedCall<'a, C> {
    /// A call of `package.Service/method`, whose argument is in that codec: one with names, or [`Codec::RAW`].
    ///
    /// # Errors
    /// When it is no name.
    pub fn new(
        channel: &'a C,
        method: &str,
        codec: Codec,
        argument: impl Into<Bytes>,
    ) -> Result<UntypedCall<'a, C>, BadMethodName> {
        if !is_method_name(method) {
            return Err(BadMethodName(method.into()));
        }
        let id = method_id(method);
        // No signature: nothing is said of layouts, so that the answer comes by names as well.
        let outgoing = Outgoing {
            name: known_name(id, method),
            method: id,
            in_signature: 0,
            out_signature: 0,
            codec,
            compression: wish(None),
            timeout: DEFAULT_DEADLINE,
            priority: 0,
            attempt: 0,
            wait_for_ready: false,
            flags: 0,
        };
        let extensions = ExtensionWriter::new();
        Ok(UntypedCall { channel, outgoing, argument: argument.into(), extensions, deadline: None })
    }

    crate::metadata::extension_methods!(extensions);

    /// How long to wait for this call: a second, if nobody says otherwise. Of one with a stream of the server it is how long that may
    /// take to begin, and one with a stream of the caller may take as long as it likes, unless something else is said.
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = Some(deadline);
        self
    }

    super::methods::call_methods! { (outgoing)
        /// How important this call is, see [`CallOptions::priority`](crate::CallOptions::priority).
        priority;
        /// Whether this call waits for a broken connection, see [`CallOptions::wait_for_ready`](crate::CallOptions::wait_for_ready).
        wait_for_ready;
        /// How the argument is compressed, see [`CallOptions::compression`](crate::CallOptions::compression).
        compression;
    }

    /// Says that the method may run twice without harm, as its `#[method(idempotent)]` does where its types are known: a balanced
    /// channel makes the call again then, if nobody knows whether it ran.
    pub fn idempotent(mut self) -> Self {
        self.outgoing.flags |= request_flags::IDEMPOTENT;
        self
    }

    /// Says that the method has no reply, as its `#[method(one_way)]` does where its types are known. The call ends with an
    /// empty reply when it was sent.
    pub fn one_way(mut self) -> Self {
        self.outgoing.flags |= request_flags::ONE_WAY;
        self
    }

    super::methods::call_methods! { (outgoing)
        /// Names what the call is to do, see [`Call::idempotency_key`](crate::Call::idempotency_key).
        idempotency_key;
    }

    /// Waits for the answer, which blocks this thread, see [`Call::wait`](crate::Call::wait).
    pub fn wait(self) -> Reply<UntypedResult<C::Body>, C::Body>
    where
        C: BlockOn + Channel<Body: IntoOwned>,
    {
        let channel = self.channel;
        channel.block_on(self.into_future())
    }

    /// Makes the call of a method that takes or gives streams. It gives both ends when this side has accepted the call: what the
    /// caller sends, which is nothing for [`Streams::Out`], and what comes back.
    ///
    /// ```
    /// use ringcall::{Client, Codec, Streams, UntypedCall};
    ///
    /// # #[ringcall::service(name = "a.Echo")]
    /// # trait Echo { async fn back(&self, items: ringcall::Items<u8>) -> impl ringcall::Stream<Item = u8>; }
    /// # struct Wall;
    /// # impl Echo for Wall {
    /// #     async fn back(&self, items: ringcall::Items<u8>) -> impl ringcall::Stream<Item = u8> { items }
    /// # }
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// # let server = ringcall::Server::bind("127.0.0.1:0").service(Wall.into_echo()).start()?;
    /// let client = Client::connect(server.address()).wait()?;
    /// let nil = vec![0xc0]; // the argument, in MessagePack
    /// let call = UntypedCall::new(&client, "a.Echo/back", Codec::MESSAGEPACK, nil)?;
    /// let (mut sender, mut items) = call.open_wait(Streams::Both)?;
    /// sender.send_wait(vec![7])?;
    /// sender.end();
    /// while let Some(item) = items.next_wait() {
    ///     let item = item.map_err(|error| error.map_app(|_| "an error of the handler"))?;
    ///     assert_eq!(item.body[..], [7]);
    /// }
    /// # Ok(()) }
    /// ```
    pub fn open(self, streams: Streams) -> UntypedOpening<'a, C>
    where
        C: StreamChannel,
    {
        let mut outgoing = self.outgoing;
        outgoing.flags |= streams.flags();
        let default = if streams.has_in() { Duration::MAX } else { DEFAULT_DEADLINE };
        outgoing.timeout = self.deadline.unwrap_or(default);
        let (codec, compression) = (outgoing.codec, outgoing.compression);
        let argument = Argument::new(codec, self.argument);
        let payload = Extended { payload: argument, extensions: self.extensions.finish() };
        let opening = self.channel.open(outgoing, payload);
        UntypedOpening::new(opening, streams, codec, compression)
    }

    /// [`open`](Self::open), and blocks this thread until this side has accepted the call.
    ///
    /// # Errors
    /// Why it has not.
    pub fn open_wait(self, streams: Streams) -> Result<UntypedEnds<C::Call>, Failure>
    where
        C: BlockOn + StreamChannel<Body: IntoOwned>,
    {
        let channel = self.channel;
        channel.block_on(self.open(streams))
    }
}

impl<C> fmt::Debug for UntypedCall<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedCall").field("outgoing", &self.outgoing).finish_non_exhaustive()
    }
}

/// What an untyped call gives.
pub type UntypedResult<B> = Result<UntypedReply<B>, CallError<UntypedReply<B>>>;

impl<'a, C: Channel<Body: IntoOwned>> IntoFuture for UntypedCall<'a, C> {
    type Output = Reply<UntypedResult<C::Body>, C::Body>;
    type IntoFuture = UntypedFuture<'a, C>;

    fn into_future(self) -> UntypedFuture<'a, C> {
        let mut outgoing = self.outgoing;
        outgoing.timeout = self.deadline.unwrap_or(DEFAULT_DEADLINE);
        let argument = Argument::new(outgoing.codec, self.argument);
        let payload = Extended { payload: argument, extensions: self.extensions.finish() };
        UntypedFuture { pending: self.channel.call(outgoing, payload) }
    }
}

pin_project! {
    /// An untyped call in progress. Dropping it gives the call up and tells the server once.
    pub struct UntypedFuture<'a, C>
    where
        C: Channel,
        C: 'a,
    {
        #[pin]
        pending: C::Pending<'a, Extended<Argument>>,
    }
}

impl<C: Channel> fmt::Debug for UntypedFuture<'_, C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UntypedFuture").finish_non_exhaustive()
    }
}

impl<C: Channel<Body: IntoOwned>> Future for UntypedFuture<'_, C> {
    type Output = Reply<UntypedResult<C::Body>, C::Body>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().pending.poll(cx));
        Poll::Ready(Reply::of(answer, receive))
    }
}

/// A message that somebody else has encoded.
#[derive(Clone)]
pub(super) struct Argument {
    codec: Codec,
    bytes: Bytes,
}

impl Argument {
    pub(super) fn new(codec: Codec, bytes: Bytes) -> Argument {
        Argument { codec, bytes }
    }
}

impl fmt::Debug for Argument {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Argument({} bytes)", self.bytes.len())
    }
}

impl Payload for Argument {
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        match codec == self.codec {
            true => self.bytes.encode(Codec::RAW, signature, out),
            false => Err(EncodeError::Codec(codec)),
        }
    }
}

/// What a handler answered.
pub(super) fn receive<B: IntoOwned>(answer: Answer<B>) -> UntypedResult<B> {
    let Answer { header, mut body, attached, .. } = answer;
    if header.compression != 0 {
        return Err(CallError::Failed(Failure::unknown(Cause::BadReply)));
    }
    let attachment = attached.split(&mut body);
    let reply = UntypedReply { codec: header.codec, body, attachment };
    match header.status.class() == StatusClass::Application {
        true => Err(CallError::App(reply)),
        false => Ok(reply),
    }
}
