//! What typed clients are built on: somewhere to send a call.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use ringcall_buf::{Chunk, Frozen, SharedChunk};

use crate::connection::Reply;
use crate::{Attached, Codec, Encoding, Failure, ItemError, Payload, frame::ReplyHeader};

/// Somewhere to send calls: a connection, many with a balancer in front, a mock.
///
/// A channel is a value with no method of its own to admit a call ("ready?"): a call either gets its
/// answer or a [`Failure`] that says why not, and whether it may have run.
pub trait Channel {
    /// How this channel holds the bodies of answers.
    type Body: Frozen;

    /// The future of a call. It borrows the channel, and the argument through its payload, until it
    /// ends; dropping it gives the call up.
    type Pending<'a, P>: Future<Output = Result<Answer<Self::Body>, Failure>> + 'a
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    /// Makes a call. Nothing happens before the future is polled. A one-way call
    /// ([`ONE_WAY`](crate::frame::request_flags::ONE_WAY)) ends with an empty answer when it was sent.
    /// A payload is cloned for each further attempt, so it is a reference, or cheap to clone.
    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Pending<'a, P>;

    /// The answer of a call that has been polled, if it is at hand: then the call is over. `None` says nothing, poll
    /// it. An answer is large to move, and this takes it from where it lies straight to whoever asked for it.
    #[inline]
    fn take_answer<'a, P>(_: Pin<&mut Self::Pending<'a, P>>) -> Option<Answer<Self::Body>>
    where
        Self: 'a,
        P: Payload + Clone + 'a,
    {
        None
    }
}

/// A channel whose calls keep it: for whoever has many channels, and may let go of one while there are calls on
/// it.
pub trait OwnedChannel: Channel + Clone {
    /// The future of a call, as [`Channel::Pending`] is.
    type Owned<P>: Future<Output = Result<Answer<Self::Body>, Failure>> + Unpin
    where
        P: Payload + Clone;

    /// Makes a call as [`Channel::call`] does.
    fn call_owned<P: Payload + Clone>(self, call: Outgoing, payload: P) -> Self::Owned<P>;
}

/// What a typed client says about a call, beside its argument.
// Aligned so that wherever it is moved within something larger, it is read in the pieces that it was written in: a
// processor waits for others to leave its store buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(align(16))]
pub struct Outgoing {
    /// The method's name, for whoever looks at the call: `package.Service/method`.
    pub name: &'static str,
    /// Which method, see [`method_id`](crate::method_id).
    pub method: u64,
    /// Shapes of the argument.
    pub in_signature: u64,
    /// Shapes that the caller reads.
    pub out_signature: u64,
    /// How the argument is encoded.
    pub codec: Codec,
    /// How its encoding is compressed: 0 not at all.
    pub compression: u8,
    /// How long the caller waits; [`Duration::MAX`] for ever, which only calls with streams may.
    pub timeout: Duration,
    /// 0 is the most ordinary.
    pub priority: u8,
    /// 0 for the first attempt.
    pub attempt: u8,
    /// See [`request_flags`](crate::frame::request_flags).
    pub flags: u8,
    /// Whether the call waits for a connection also after an attempt to open one has failed.
    pub wait_for_ready: bool,
}

/// The answer of a handler: its value or its error.
#[derive(Clone, Debug)]
pub struct Answer<B> {
    /// Status, signature and what the server says of itself.
    pub header: ReplyHeader,
    /// The body.
    pub body: B,
    /// What of it is beside the message.
    pub attached: Attached,
    /// The TLVs of the header, see [`Extensions`](crate::frame::Extensions); empty if there are none.
    pub extensions: B,
}

impl From<Reply> for Answer<Chunk> {
    #[inline]
    fn from(reply: Reply) -> Answer<Chunk> {
        let Reply { header, body, attached, extensions } = reply;
        Answer { header, body, attached, extensions }
    }
}

impl Answer<Chunk> {
    /// The same for other threads.
    #[must_use]
    pub fn share(self) -> Answer<SharedChunk> {
        let Answer { header, body, attached, extensions } = self;
        Answer { header, body: body.share(), attached, extensions: extensions.share() }
    }
}

/// A channel that also makes calls with streams of items, in either direction.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not make calls with streams",
    label = "not a channel for streams",
    note = "methods that take or give streams are called through a connection (`Client`, `LocalClient`, `Peer`) or a `Balanced` channel over such",
    note = "in code for any channel write `C: StreamChannel` in place of `C: Channel`"
)]
pub trait StreamChannel: Channel {
    /// A call in progress.
    type Call: StreamCall<Body = Self::Body>;

    /// The future of a call that is being made. It borrows the channel, and the argument through its
    /// payload; dropping it gives the call up.
    type Opening<'a, P>: Future<Output = Result<Self::Call, Failure>> + 'a
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    /// Makes a call whose flags are [`ITEMS_IN`](crate::frame::request_flags::ITEMS_IN),
    /// [`ITEMS_OUT`](crate::frame::request_flags::ITEMS_OUT) or both. Ready when this side has accepted
    /// the call; a channel that makes calls again may wait for the reply of one without items of the caller. A payload is
    /// cloned for each further attempt, as [`Channel::call`] says.
    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P>;
}

/// A channel whose calls with streams keep it while they are being made and while they go on, as [`OwnedChannel`] is one for
/// other calls.
pub trait OwnedStreamChannel: OwnedChannel + StreamChannel {
    /// The future of a call that is being made, as [`StreamChannel::Opening`] is.
    type OwnedOpening<'a, P>: Future<Output = Result<Self::Call, Failure>> + Unpin + 'a
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    /// Makes a call as [`StreamChannel::open`] does.
    fn open_owned<'a, P: Payload + Clone + 'a>(
        self,
        call: Outgoing,
        payload: P,
    ) -> Self::OwnedOpening<'a, P>
    where
        Self: 'a;
}

/// A call with streams, as its caller holds it. Clones are the same call; the last one that is dropped
/// gives it up if it has not ended.
///
/// One task may send and another receive: each direction remembers the waker of whoever polled it last.
pub trait StreamCall: Clone + Unpin {
    /// How the bodies of what arrives are held.
    type Body: Frozen;

    /// Sends an item; pending until there is room.
    ///
    /// # Errors
    /// [`ItemError::Ended`] when the call is over or its items were ended: what
    /// [`poll_arrived`](Self::poll_arrived) gives says why. [`ItemError::Encode`] when the item cannot be
    /// sent; nothing was, and the stream goes on.
    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>>;

    /// There are no further items. Once is enough.
    fn end_items(&self);

    /// The next thing that the other side sent. What is given counts as taken: its sender may send more.
    /// Pending for ever after [`Arrived::End`].
    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<Self::Body>>;

    /// Gives the call up, if it has not ended: the other side is told once, and nothing arrives any
    /// more.
    fn cancel(&self);
}

/// What the caller of a call with streams gets, in this order: [`Began`](Arrived::Began), if the reply is
/// a stream, its items, and the end.
#[derive(Clone, Debug)]
pub enum Arrived<B> {
    /// The reply is a stream, which begins. It has no body yet.
    Began(Answer<B>),
    /// An item of it.
    Item {
        /// How the body is written; the signature has the shapes of the reply's items.
        encoding: Encoding,
        /// The body.
        body: B,
        /// What of it is beside the message.
        attached: Attached,
    },
    /// The call is over. After [`Began`](Arrived::Began) an answer with status OK has no body.
    End(Result<Answer<B>, Failure>),
}

impl<C: Channel> Channel for &C {
    type Body = C::Body;
    type Pending<'a, P>
        = C::Pending<'a, P>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Pending<'a, P> {
        (**self).call(call, payload)
    }

    #[inline]
    fn take_answer<'a, P>(pending: Pin<&mut Self::Pending<'a, P>>) -> Option<Answer<Self::Body>>
    where
        Self: 'a,
        P: Payload + Clone + 'a,
    {
        C::take_answer(pending)
    }
}

impl<C: StreamChannel> StreamChannel for &C {
    type Call = C::Call;
    type Opening<'a, P>
        = C::Opening<'a, P>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        (**self).open(call, payload)
    }
}
