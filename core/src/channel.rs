//! What typed clients are built on: somewhere to send a call.

use core::future::Future;
use core::time::Duration;

use ringcall_buf::Frozen;

use crate::{Codec, Failure, Payload, frame::ReplyHeader};

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
        P: Payload + 'a;

    /// Makes a call. Nothing happens before the future is polled. A one-way call
    /// ([`ONE_WAY`](crate::frame::request_flags::ONE_WAY)) ends with an empty answer when it was sent.
    fn call<'a, P: Payload + 'a>(&'a self, call: Outgoing, payload: P) -> Self::Pending<'a, P>;
}

/// What a typed client says about a call, beside its argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// Which method, see [`method_id`](crate::method_id).
    pub method: u64,
    /// Shapes of the argument.
    pub in_signature: u64,
    /// Shapes that the caller reads.
    pub out_signature: u64,
    /// How the argument is encoded.
    pub codec: Codec,
    /// How long the caller waits.
    pub timeout: Duration,
    /// 0 is the most ordinary.
    pub priority: u8,
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
}

/// A channel whose calls have at most a given time: for calls that a handler makes in turn.
#[derive(Clone, Debug)]
pub struct Within<C> {
    channel: C,
    left: Duration,
}

impl<C> Within<C> {
    /// Calls of `channel` get at most `left`.
    pub fn new(channel: C, left: Duration) -> Within<C> {
        Within { channel, left }
    }
}

impl<C: Channel> Channel for Within<C> {
    type Body = C::Body;
    type Pending<'a, P>
        = C::Pending<'a, P>
    where
        Self: 'a,
        P: Payload + 'a;

    fn call<'a, P: Payload + 'a>(&'a self, call: Outgoing, payload: P) -> Self::Pending<'a, P> {
        self.channel.call(Outgoing { timeout: call.timeout.min(self.left), ..call }, payload)
    }
}

impl<C: Channel> Channel for &C {
    type Body = C::Body;
    type Pending<'a, P>
        = C::Pending<'a, P>
    where
        Self: 'a,
        P: Payload + 'a;

    fn call<'a, P: Payload + 'a>(&'a self, call: Outgoing, payload: P) -> Self::Pending<'a, P> {
        (**self).call(call, payload)
    }
}
