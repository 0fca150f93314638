//! The other side of a connection that calls come by, to be called back.

use std::fmt;
use std::future::Future;
use std::hash::{Hash, Hasher};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use ringcall_core::{Cause, Channel, CloseReason, Failure, Handle, Outgoing, Payload, SharedChunk};

use super::shared::{Destination, Line, Outbox, RemoteFuture, SharedAnswer};
use super::{BlockOn, ConnectionState, PeerAddress, Watched};
use crate::block_on::block_on;
use crate::observe::Audience;
use crate::shard::Remote;
use crate::wakers::Wakers;

/// The other side of a connection, to be called back: during a call or later, from any thread and any
/// executor. Handlers get it from [`Context::peer`](crate::Context::peer); give it to a typed client,
/// `CallbacksClient::new(peer)`.
///
/// It names one connection, and does not keep it open. When that is over, calls fail as *not sent*, and
/// [`closed`](Peer::closed) ends; whoever connects again is another peer. Peers are equal if they are the
/// same connection, so they can be kept in maps and sets. (What clippy says about mutable keys does not
/// apply; `ignore-interior-mutability` in `clippy.toml` tells it so.)
///
/// # Room
///
/// The other side limits how many calls it runs at a time, and how many bytes of bodies it holds. Calls of
/// a [`Client`](crate::Client) wait for room. **Those of a peer do not: they are refused at once**, as not
/// sent, with [`Cause::InFlightMax`] or [`Cause::QueueFull`]. A handler that calls back holds a place on
/// one side while it asks for one on the other; if it waited, and both sides were full of such handlers,
/// all of them would wait for each other until their deadlines. An answer never waits for calls, so
/// whoever is refused can say so to its caller. Calls that nobody else waits for, such as notifications
/// from a thread of your own, may wait: [`waiting`](Peer::waiting); calls with streams never do.
#[derive(Clone)]
pub struct Peer {
    shared: Arc<PeerShared>,
    waits: bool,
}

impl Peer {
    pub(crate) fn new(shared: Arc<PeerShared>) -> Peer {
        Peer { shared, waits: false }
    }

    /// The same peer, whose calls wait for room until their deadline. Not for handlers of its own calls,
    /// see [Room](Peer#room).
    #[must_use]
    pub fn waiting(mut self) -> Peer {
        self.waits = true;
        self
    }

    /// Whether the connection is still there, as far as is known.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.shared.ended().is_none()
    }

    /// Ready when the connection is over, with the reason.
    pub fn closed(&self) -> impl Future<Output = CloseReason> + Send + Sync + use<> {
        Closed { shared: Arc::clone(&self.shared), place: None }
    }

    /// The way to the other side, if it is still there.
    pub(crate) fn open_line(&self) -> Result<&Line, Failure> {
        match self.shared.ended() {
            Some(reason) => Err(over(reason)),
            None => Ok(&self.shared.line),
        }
    }

    /// Makes a call whose end is told to a callback, on the shard's thread.
    pub(crate) fn call_with<P: Payload>(
        &self,
        call: Outgoing,
        payload: &P,
        callback: impl FnOnce(SharedAnswer) + Send + 'static,
    ) {
        match self.shared.ended() {
            Some(reason) => callback(Err(over(reason))),
            None => self.shared.line.call_with(call, payload, self.waits, callback),
        }
    }
}

fn over(reason: CloseReason) -> Failure {
    Failure::not_sent(Cause::Closed(reason))
}

impl PartialEq for Peer {
    fn eq(&self, other: &Peer) -> bool {
        let (a, b) = (&self.shared, &other.shared);
        a.handle == b.handle && Arc::ptr_eq(&a.line.remote, &b.line.remote)
    }
}

impl Eq for Peer {}

impl Hash for Peer {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.shared.handle.hash(state);
        Arc::as_ptr(&self.shared.line.remote).hash(state);
    }
}

impl fmt::Debug for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Peer")
            .field("connection", &self.shared.handle)
            .field("is_connected", &self.is_connected())
            .finish_non_exhaustive()
    }
}

impl BlockOn for Peer {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl Channel for Peer {
    type Body = SharedChunk;
    type Pending<'a, P>
        = RemoteFuture<'a, P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> RemoteFuture<'a, P> {
        match self.shared.ended() {
            Some(reason) => self.shared.line.fail(call, payload, over(reason)),
            None => self.shared.line.call(call, payload, self.waits),
        }
    }
}

/// One connection, as other threads than its shard's see it.
pub(crate) struct PeerShared {
    line: Line,
    handle: Handle,
    end: Mutex<End>,
}

#[derive(Default)]
struct End {
    reason: Option<CloseReason>,
    waiting: Wakers,
}

impl PeerShared {
    pub(crate) fn new(remote: Arc<Remote>, handle: Handle, outbox: Outbox) -> PeerShared {
        let audience = Audience::of(&remote.observers, PeerAddress::Unknown);
        let watched = Watched::new(ConnectionState::Ready);
        let line = Line::new(remote, Destination::Peer(handle), outbox, audience, watched, None);
        PeerShared { line, handle, end: Mutex::default() }
    }

    /// The other side reads bodies that are compressed so.
    pub(crate) fn reads(&self, compressions: u8) {
        self.line.watched().reads(compressions);
    }

    fn ended(&self) -> Option<CloseReason> {
        self.end.lock().reason
    }

    pub(crate) fn end(&self, reason: CloseReason) {
        let waiting = {
            let mut end = self.end.lock();
            end.reason.get_or_insert(reason);
            end.waiting.all()
        };
        waiting.into_iter().for_each(Waker::wake);
    }
}

/// Waits for the end of a connection.
struct Closed {
    shared: Arc<PeerShared>,
    place: Option<usize>,
}

impl Future for Closed {
    type Output = CloseReason;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<CloseReason> {
        let this = &mut *self;
        let mut end = this.shared.end.lock();
        if let Some(reason) = end.reason {
            return Poll::Ready(reason);
        }
        let before = end.waiting.keep(&mut this.place, cx.waker());
        drop(end);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Closed {
    fn drop(&mut self) {
        let left = self.shared.end.lock().waiting.leave(&mut self.place);
        drop(left);
    }
}
