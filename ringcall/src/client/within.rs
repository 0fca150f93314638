//! Calls that a handler makes in turn.

use std::fmt;
use std::future::Future;
use std::sync::Arc;

use ringcall_core::frame::request_flags;
use ringcall_core::{Channel, Clock, Extended, Instant, Outgoing, Payload, StreamChannel};

use super::BlockOn;
use crate::metadata::inherit;

/// A channel for the calls that a handler makes in turn: they end when the handler's own call does, if not
/// before, and hand its context down. Made by [`Context::client`](crate::Context::client).
///
/// * A call takes no longer than what is left when it is made.
/// * It has the priority of the handler's call, unless it says another one.
/// * If that was a retry already, so are these: only whoever is next to a failure retries, since otherwise
///   each tier would multiply the calls.
/// * Trace context (with a span id of its own for each call), baggage, asked group and the caller's identity
///   go on, as far as the call does not say them itself. Metadata does not.
///
/// A call that has nothing to hand down costs nothing more; otherwise it is one allocation.
#[derive(Clone)]
pub struct Within<C, K> {
    channel: C,
    deadline: Instant,
    clock: K,
    inherited: Inherited,
}

/// What a call's handler hands down.
#[derive(Clone, Debug, Default)]
pub(crate) struct Inherited {
    pub(crate) priority: u8,
    pub(crate) is_retry: bool,
    /// TLVs.
    pub(crate) context: Option<Arc<[u8]>>,
}

/// A clock that knows numbers for spans, too.
pub trait SpanIds {
    #[doc(hidden)]
    fn next_span_id(&self) -> u64;
}

impl<C, K> Within<C, K> {
    pub(crate) fn new(
        channel: C,
        deadline: Instant,
        clock: K,
        inherited: Inherited,
    ) -> Within<C, K> {
        Within { channel, deadline, clock, inherited }
    }

    /// The channel, whose calls may take longer and hand nothing down.
    pub fn channel(&self) -> &C {
        &self.channel
    }
}

impl<C, K: Clock + SpanIds> Within<C, K> {
    fn bounded(&self, call: Outgoing) -> Outgoing {
        let left = self.deadline.since(self.clock.now());
        let Inherited { priority, is_retry, .. } = self.inherited;
        let retried = if is_retry { request_flags::RETRIED } else { 0 };
        Outgoing {
            timeout: call.timeout.min(left),
            priority: if call.priority == 0 { priority } else { call.priority },
            flags: call.flags | retried,
            ..call
        }
    }

    fn extended<P: Payload>(&self, payload: P) -> Extended<P> {
        let extensions = self
            .inherited
            .context
            .as_ref()
            .map(|context| inherit(payload.extensions(), context, self.clock.next_span_id()));
        Extended { extensions: extensions.unwrap_or_default(), payload }
    }
}

impl<C: Channel, K: Clock + SpanIds> Channel for Within<C, K> {
    type Body = C::Body;
    type Pending<'a, P>
        = C::Pending<'a, Extended<P>>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Pending<'a, P> {
        self.channel.call(self.bounded(call), self.extended(payload))
    }
}

impl<C: StreamChannel, K: Clock + SpanIds> StreamChannel for Within<C, K> {
    type Call = C::Call;
    type Opening<'a, P>
        = C::Opening<'a, Extended<P>>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        self.channel.open(self.bounded(call), self.extended(payload))
    }
}

impl<C: BlockOn, K> BlockOn for Within<C, K> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.channel.block_on(future)
    }
}

impl<C: fmt::Debug, K> fmt::Debug for Within<C, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Within").field("channel", &self.channel).finish_non_exhaustive()
    }
}
