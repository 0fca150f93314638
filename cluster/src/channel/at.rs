//! Calls to one instance of a balanced channel, which their caller has chosen.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ringcall_core::{
    Answer, Cause, Channel, Failure, Missing, Outgoing, OwnedChannel, OwnedStreamChannel, Payload,
    StreamChannel,
};

use super::{Balanced, Connector, Guard as _};

/// A [`Channel`] to the instance with this name, made by [`Balanced::at`]: its connection, as if it were a client's of that
/// address.
///
/// There is nothing left to decide, so nothing is decided: whoever is ejected, new or not in any lane is called all the same,
/// which is how one looks at it; no rule, breaker or limit of the channel stops the call, nothing is made again, and what
/// becomes of it is no news of the instance, since it is often a call of another kind than those that are balanced. It is in
/// no count. Where no listing has the instance any more calls fail with [`Cause::NoInstance`], not sent; they find it again
/// when one has.
pub struct At<N: Connector> {
    balanced: Balanced<N>,
    name: Arc<str>,
}

impl<N: Connector> At<N> {
    pub(super) fn new(balanced: Balanced<N>, name: Arc<str>) -> At<N> {
        At { balanced, name }
    }

    /// The name of the instance.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its connection, if it is in the list.
    fn target(&self) -> Result<N::Channel, Failure> {
        self.balanced.shared.fleet.with(|fleet| {
            let (why, service) = (Missing::NotListed, fleet.service());
            let found = fleet.target_named(&self.name).cloned();
            found.ok_or(Failure::not_sent(Cause::NoInstance { why, service }))
        })
    }
}

impl<N: Connector> Clone for At<N> {
    fn clone(&self) -> At<N> {
        At::new(self.balanced.clone(), Arc::clone(&self.name))
    }
}

impl<N: Connector> fmt::Debug for At<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("At").field(&self.name).finish()
    }
}

impl<N: Connector> Channel for At<N> {
    type Body = <N::Channel as Channel>::Body;
    type Pending<'a, P>
        = AtCall<N, P>
    where
        N: 'a,
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(&'a self, call: Outgoing, payload: P) -> AtCall<N, P> {
        AtCall(self.target().map(|channel| channel.call_owned(call, payload)))
    }
}

/// A call to one instance of a balanced channel; a failure if it is not in the list. It keeps its connection, also when a
/// later list does not have the instance.
pub struct AtCall<N: Connector, P: Payload + Clone>(
    Result<<N::Channel as OwnedChannel>::Owned<P>, Failure>,
);

impl<N: Connector, P: Payload + Clone> Unpin for AtCall<N, P> {}

impl<N: Connector, P: Payload + Clone> Future for AtCall<N, P> {
    type Output = Result<Answer<<N::Channel as Channel>::Body>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Ok(call) => Pin::new(call).poll(cx),
            Err(failure) => Poll::Ready(Err(*failure)),
        }
    }
}

impl<N: Connector, P: Payload + Clone> fmt::Debug for AtCall<N, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AtCall").field("is_listed", &self.0.is_ok()).finish_non_exhaustive()
    }
}

impl<N: Connector<Channel: OwnedStreamChannel>> StreamChannel for At<N> {
    type Call = <N::Channel as StreamChannel>::Call;
    type Opening<'a, P>
        = AtOpening<'a, N, P>
    where
        N: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> AtOpening<'a, N, P> {
        AtOpening(self.target().map(|channel| channel.open_owned(call, payload)))
    }
}

/// A call with streams to one instance of a balanced channel that is being made; a failure if it is not in the list.
pub struct AtOpening<'a, N, P>(
    Result<<N::Channel as OwnedStreamChannel>::OwnedOpening<'a, P>, Failure>,
)
where
    N: Connector<Channel: OwnedStreamChannel> + 'a,
    P: Payload + Clone + 'a;

impl<N, P> Future for AtOpening<'_, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    type Output = Result<<N::Channel as StreamChannel>::Call, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut self.get_mut().0 {
            Ok(opening) => Pin::new(opening).poll(cx),
            Err(failure) => Poll::Ready(Err(*failure)),
        }
    }
}

impl<N, P> fmt::Debug for AtOpening<'_, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_listed = self.0.is_ok();
        f.debug_struct("AtOpening").field("is_listed", &is_listed).finish_non_exhaustive()
    }
}
