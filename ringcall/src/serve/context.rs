//! What a handler knows about its call, and how it uses time and makes calls itself.

use std::any::Any;
use std::fmt;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use ringcall_core::{Clock, Instant, SharedChunk};

use super::ServiceTable;
use super::access::{Caller, Principal};
use super::incoming::{CancelFlag, Facts, Incoming, Origin};
use crate::Metadata;
use crate::client::{Inherited, LocalClient, LocalConnect, Peer, SpanIds, ToAddress, Within};
use crate::metadata::{BadMetadataKey, expect_key, handed_down};
use crate::shard::{Draining, Inner, MachineClock, Notice, Remote, SleepUntil};

/// What is about the call rather than in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallInfo {
    /// The method's name.
    pub method: &'static str,
    /// 0 is the most ordinary, what is more important has more; how many there are is up to the services.
    pub priority: u8,
    /// 0 for the first attempt.
    pub attempt: u8,
}

/// Takes part in a handler as `cx: &Context`: the deadline, time, tasks and calls of its own.
///
/// Everything that a handler does with time goes through it, so that a service can be simulated. It
/// stays on the thread of its handler; with `#[service(send)]` take [`SendContext`].
pub struct Context {
    facts: Facts,
    home: Home,
    metadata: Metadata,
    /// Of a call on its shard.
    principal: Option<Principal>,
}

enum Home {
    Shard(Rc<Inner>),
    Elsewhere(Arc<Remote>, Arc<CancelFlag>),
}

impl Context {
    /// About the call.
    #[must_use]
    pub fn info(&self) -> CallInfo {
        info(&self.facts)
    }

    /// The call's metadata and context.
    #[must_use]
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Adds an entry of metadata to the answer, whatever that will be: a value, an error, or a status. Of an
    /// answer that is a stream, what was added before it begins goes with its beginning, the rest with its
    /// end. What is longer than fits into a header
    /// ([`Config::extension_bytes_max`](crate::Config::extension_bytes_max)) turns the answer into
    /// [`REPLY_FAILED`](ringcall_core::Status::REPLY_FAILED).
    ///
    /// # Panics
    /// When the key is not one: [`try_reply_metadata`](Self::try_reply_metadata) is for keys of others.
    #[track_caller]
    pub fn reply_metadata(&self, key: &str, value: impl AsRef<[u8]>) {
        expect_key(self.try_reply_metadata(key, value));
    }

    /// The same for a key that may be none, such as a header of somebody else that is passed on.
    ///
    /// # Errors
    /// When it is none; nothing is added then.
    pub fn try_reply_metadata(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), BadMetadataKey> {
        let Facts { handle, request, .. } = self.facts;
        match &self.home {
            Home::Shard(shard) => shard.reply_metadata.add(handle, request, key, value.as_ref()),
            Home::Elsewhere(_, flag) => flag.add_metadata(key, value.as_ref()),
        }
    }

    /// Whom the certificate of the caller's connection names: with
    /// [mutual TLS](crate::TlsServer::mutual) only.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn peer_identity(&self) -> Option<Arc<crate::PeerIdentity>> {
        match &self.home {
            Home::Shard(shard) => shard.peer_identity(self.facts.handle),
            Home::Elsewhere(_, flag) => flag.caller.identity.clone(),
        }
    }

    /// Who calls, as the server's hooks have found: what [`authorize_calls`](crate::Server::authorize_calls) has let the
    /// call in as, or [`authorize`](crate::Server::authorize) its connection, see
    /// [`Access::allow_as`](crate::Access::allow_as), or a filter
    /// ([`ServerCall::set_principal`](crate::filter::ServerCall::set_principal)). `None` if nobody has said so, or it is
    /// of another type.
    #[must_use]
    pub fn principal<T: Any>(&self) -> Option<&T> {
        match &self.home {
            Home::Shard(_) => self.principal.as_ref()?.get(),
            Home::Elsewhere(_, flag) => flag.caller.principal(),
        }
    }

    /// Where the call comes from: from a proxy, if there is one in front; `None` over a unix socket, and on a connection
    /// that was opened here.
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match &self.home {
            Home::Shard(shard) => shard.peer_address(self.facts.handle),
            Home::Elsewhere(_, flag) => flag.caller.address,
        }
    }

    /// The services that this side serves on the call's connection, with all of their methods: for a handler that tells what
    /// there is, as [`reflection`](crate::reflection) does.
    #[must_use]
    pub fn services(&self) -> Arc<[&'static ServiceTable]> {
        match &self.home {
            Home::Shard(shard) => shard.services(self.facts.handle),
            Home::Elsewhere(_, flag) => flag.caller.services(),
        }
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.facts.deadline.since(self.now())
    }

    /// Whether nobody waits for the answer any more. A handler is dropped when that happens: on a shard at
    /// once, on the pool when it awaits something; its own calls are given up with it. This is for code
    /// on the pool that computes or blocks.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match &self.home {
            Home::Shard(_) => self.facts.has_expired(self.now()),
            Home::Elsewhere(_, flag) => flag.is_cancelled(self.facts.has_expired(self.now())),
        }
    }

    /// Ready when the server begins to drain, or stops: when it has told its clients to leave. For handlers and streams
    /// that go on for as long as they are wanted, and would keep a drain until its time is over; a
    /// [`Subscription`](crate::Subscription::until) takes it. What comes to an end by itself should, and is waited for.
    ///
    /// ```
    /// # use ringcall::{Context, Stream, Topic};
    /// #[ringcall::service]
    /// trait Market {
    ///     async fn ticks(&self, cx: &Context) -> impl Stream<Item = u64>;
    /// }
    ///
    /// impl Market for Topic<u64> {
    ///     async fn ticks(&self, cx: &Context) -> impl Stream<Item = u64> {
    ///         self.subscribe().until(cx.draining())
    ///     }
    /// }
    /// ```
    pub fn draining(&self) -> Draining {
        Draining::of(self.remote())
    }

    /// Whether it does.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.remote().farewell.is_said()
    }

    fn remote(&self) -> &Arc<Remote> {
        match &self.home {
            Home::Shard(shard) => &shard.remote,
            Home::Elsewhere(remote, _) => remote,
        }
    }

    /// Ready after a while.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + use<> {
        match &self.home {
            Home::Shard(shard) => Sleep::Here(SleepUntil::new(shard, shard.now() + time)),
            Home::Elsewhere(remote, _) => Sleep::Elsewhere(RemoteSleep::new(remote, time)),
        }
    }

    /// Runs a task beside the handler, which goes on when the handler has answered.
    ///
    /// # Panics
    /// In an offloaded handler, which has no executor: spawn a thread, or do it at once.
    pub fn spawn(&self, future: impl Future<Output = ()> + 'static) {
        match &self.home {
            Home::Shard(shard) => shard.spawn(future),
            Home::Elsewhere(..) => panic!("an offloaded handler has no executor to spawn on"),
        }
    }

    /// The same client, or any other channel, for calls that this one makes in turn: they take no longer than
    /// it has left when they are made, and hand its priority and context down, see [`Within`]. They are given
    /// up when the handler is.
    pub fn client<C: Clone>(&self, channel: &C) -> Within<C, ShardClock> {
        let clock = ShardClock(match &self.home {
            Home::Shard(shard) => Some(Rc::clone(shard)),
            Home::Elsewhere(..) => None,
        });
        let inherited = inherited(&self.facts, self.metadata.as_bytes());
        Within::new(channel.clone(), self.facts.deadline, clock, inherited)
    }

    /// The other side of the connection that the call came by, to be called back: now, or later from
    /// anywhere. For calls back within this one, on a shard, [`local_peer`](Context::local_peer) is the
    /// shorter way.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::new(match &self.home {
            Home::Shard(shard) => shard.remote_peer(self.facts.handle),
            Home::Elsewhere(remote, _) => remote.peer(self.facts.handle),
        })
    }

    /// The same for code on this shard: calls do not leave the thread. Like those of a [`Peer`] they are
    /// refused rather than wait for room, see [there](Peer#room). For calls that hand the context of this one
    /// down, `cx.client(&cx.local_peer())`.
    ///
    /// # Panics
    /// In an offloaded handler, which is on no shard: use [`peer`](Context::peer) there.
    #[must_use]
    pub fn local_peer(&self) -> LocalClient {
        match &self.home {
            Home::Shard(shard) => shard.local_peer(self.facts.handle),
            Home::Elsewhere(..) => panic!("an offloaded handler is on no shard: use `peer`"),
        }
    }

    /// Connects to another server, for calls on this shard: await it. Keep the client: connecting costs
    /// round trips. It fails when nobody answers there, or not in ringcall's protocol.
    ///
    /// # Panics
    /// In an offloaded handler, which is on no shard: use a [`Client`](crate::Client) there.
    pub fn connect(&self, address: impl ToAddress) -> LocalConnect {
        match &self.home {
            Home::Shard(shard) => LocalConnect::new(shard, address),
            Home::Elsewhere(..) => panic!("an offloaded handler is on no shard: use a `Client`"),
        }
    }

    fn now(&self) -> Instant {
        match &self.home {
            Home::Shard(shard) => shard.now(),
            Home::Elsewhere(..) => MachineClock.now(),
        }
    }
}

impl fmt::Debug for Context {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Context").field("info", &self.info()).finish_non_exhaustive()
    }
}

/// The part of [`Context`] that may go to any thread, for `#[service(send)]`.
#[derive(Clone)]
pub struct SendContext {
    facts: Facts,
    remote: Arc<Remote>,
    /// Whether its handler is on another thread than the shard's.
    is_elsewhere: bool,
    flag: Arc<CancelFlag>,
    metadata: Metadata<SharedChunk>,
    caller: Caller,
}

impl SendContext {
    /// About the call.
    #[must_use]
    pub fn info(&self) -> CallInfo {
        info(&self.facts)
    }

    /// Whom the certificate of the caller's connection names: with
    /// [mutual TLS](crate::TlsServer::mutual) only.
    #[cfg(feature = "tls")]
    #[must_use]
    pub fn peer_identity(&self) -> Option<Arc<crate::PeerIdentity>> {
        self.caller.identity.clone()
    }

    /// Who calls, as the server's hooks have found, see [`Context::principal`].
    #[must_use]
    pub fn principal<T: Any>(&self) -> Option<&T> {
        self.caller.principal()
    }

    /// Where the call comes from, see [`Context::peer_address`].
    #[must_use]
    pub fn peer_address(&self) -> Option<SocketAddr> {
        self.caller.address
    }

    /// The services that this side serves on the call's connection, see [`Context::services`].
    #[must_use]
    pub fn services(&self) -> Arc<[&'static ServiceTable]> {
        self.caller.services()
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.facts.deadline.since(MachineClock.now())
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let has_expired = self.facts.has_expired(MachineClock.now());
        match self.is_elsewhere {
            true => self.flag.is_cancelled(has_expired),
            false => has_expired,
        }
    }

    /// The call's metadata and context.
    #[must_use]
    pub fn metadata(&self) -> &Metadata<SharedChunk> {
        &self.metadata
    }

    /// Adds an entry of metadata to the answer, see [`Context::reply_metadata`]. What is added when the answer
    /// was given is lost.
    ///
    /// # Panics
    /// When the key is not one: [`try_reply_metadata`](Self::try_reply_metadata) is for keys of others.
    #[track_caller]
    pub fn reply_metadata(&self, key: &str, value: impl AsRef<[u8]>) {
        expect_key(self.try_reply_metadata(key, value));
    }

    /// The same for a key that may be none, such as a header of somebody else that is passed on.
    ///
    /// # Errors
    /// When it is none; nothing is added then.
    pub fn try_reply_metadata(
        &self,
        key: &str,
        value: impl AsRef<[u8]>,
    ) -> Result<(), BadMetadataKey> {
        self.flag.add_metadata(key, value.as_ref())
    }

    /// Ready when the server begins to drain, or stops, see [`Context::draining`].
    pub fn draining(&self) -> Draining {
        Draining::of(&self.remote)
    }

    /// Whether it does.
    #[must_use]
    pub fn is_draining(&self) -> bool {
        self.remote.farewell.is_said()
    }

    /// Ready after a while.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        RemoteSleep::new(&self.remote, time)
    }

    /// The same client, or any other channel, for calls that this one makes in turn: they take no longer than
    /// it has left when they are made, and hand its priority and context down, see [`Within`]. They are given
    /// up when the handler is.
    #[must_use]
    pub fn client<C: Clone>(&self, channel: &C) -> Within<C, MachineClock> {
        let inherited = inherited(&self.facts, self.metadata.as_bytes());
        Within::new(channel.clone(), self.facts.deadline, MachineClock, inherited)
    }

    /// The other side of the connection that the call came by, to be called back: now, or later from
    /// anywhere.
    #[must_use]
    pub fn peer(&self) -> Peer {
        Peer::new(self.remote.peer(self.facts.handle))
    }
}

impl fmt::Debug for SendContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendContext").field("info", &self.info()).finish_non_exhaustive()
    }
}

/// The time that a handler goes by: its shard's, or the machine's if it was offloaded.
#[derive(Clone)]
pub struct ShardClock(Option<Rc<Inner>>);

impl Clock for ShardClock {
    fn now(&self) -> Instant {
        self.0.as_ref().map_or_else(|| MachineClock.now(), |shard| shard.now())
    }
}

impl SpanIds for ShardClock {
    fn next_span_id(&self) -> u64 {
        self.0.as_ref().map_or_else(|| MachineClock.next_span_id(), |shard| shard.next_span_id())
    }
}

impl fmt::Debug for ShardClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ShardClock").finish_non_exhaustive()
    }
}

/// For filters.
pub(super) fn within<C: Clone>(
    shard: &Rc<Inner>,
    facts: &Facts,
    metadata: &Metadata,
    channel: &C,
) -> Within<C, ShardClock> {
    let clock = ShardClock(Some(Rc::clone(shard)));
    let inherited = inherited(facts, metadata.as_bytes());
    Within::new(channel.clone(), facts.deadline, clock, inherited)
}

fn inherited(facts: &Facts, extensions: &[u8]) -> Inherited {
    Inherited {
        priority: facts.priority,
        is_retry: facts.is_retried(),
        context: handed_down(extensions).map(Arc::from),
    }
}

fn info(facts: &Facts) -> CallInfo {
    CallInfo { method: facts.method(), priority: facts.priority, attempt: facts.attempt }
}

/// Made from a call rather than from its body. For the code that `#[service]` makes.
#[diagnostic::on_unimplemented(
    message = "`&{Self}` cannot be a parameter of a method",
    label = "is not about the call",
    note = "what is taken by reference is about the call: `&Context`; the message is taken by value, or as `View<Message>`"
)]
pub trait FromCall {
    #[doc(hidden)]
    fn from_call(call: &Incoming) -> Self;
}

impl FromCall for Context {
    fn from_call(call: &Incoming) -> Context {
        let home = match &call.origin {
            Origin::Shard(shard) => Home::Shard(Rc::clone(shard)),
            Origin::Elsewhere(remote, flag) => {
                Home::Elsewhere(Arc::clone(remote), Arc::clone(flag))
            }
        };
        let Facts { handle, request, .. } = call.facts;
        let principal = match &home {
            Home::Shard(shard) => shard.principal(handle, request),
            Home::Elsewhere(..) => None,
        };
        let metadata = Metadata::new(call.extensions.clone());
        Context { facts: call.facts, home, metadata, principal }
    }
}

impl FromCall for SendContext {
    fn from_call(call: &Incoming) -> SendContext {
        let Facts { handle, request, .. } = call.facts;
        let (remote, flag, caller) = match &call.origin {
            Origin::Shard(shard) => {
                let caller = shard.caller_of(handle, request);
                let flag = shard.reply_metadata.share(handle, request, || caller.clone());
                (Arc::clone(&shard.remote), flag, caller)
            }
            Origin::Elsewhere(remote, flag) => {
                (Arc::clone(remote), Arc::clone(flag), flag.caller.clone())
            }
        };
        let is_elsewhere = matches!(call.origin, Origin::Elsewhere(..));
        let metadata = Metadata::new(call.extensions.share());
        SendContext { facts: call.facts, remote, is_elsewhere, flag, metadata, caller }
    }
}

enum Sleep {
    Here(SleepUntil),
    Elsewhere(RemoteSleep),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        match self.get_mut() {
            Sleep::Here(sleep) => Pin::new(sleep).poll(cx),
            Sleep::Elsewhere(sleep) => Pin::new(sleep).poll(cx),
        }
    }
}

/// A timer of a shard, for somebody on another thread.
pub(crate) struct RemoteSleep {
    remote: Arc<Remote>,
    time: Option<Duration>,
    shared: Arc<Sleeper>,
}

/// What somebody who sleeps shares with the timer.
#[derive(Default)]
pub(crate) struct Sleeper {
    is_over: AtomicBool,
    waker: AtomicWaker,
    /// Nobody waits for the timer any more: its task is to end.
    is_gone: AtomicBool,
    timer: AtomicWaker,
}

impl Sleeper {
    /// The time is over, or nobody counts it any more.
    pub(crate) fn wake(&self) {
        self.is_over.store(true, Ordering::Release);
        self.waker.wake();
    }

    /// Ready when nobody waits any more; for the task that counts the time.
    pub(crate) fn poll_gone(&self, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.timer.register(cx.waker());
        match self.is_gone.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn leave(&self) {
        self.is_gone.store(true, Ordering::Release);
        self.timer.wake();
    }
}

impl RemoteSleep {
    pub(crate) fn new(remote: &Arc<Remote>, time: Duration) -> RemoteSleep {
        RemoteSleep { remote: Arc::clone(remote), time: Some(time), shared: Arc::default() }
    }
}

impl Future for RemoteSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.shared.waker.register(cx.waker());
        if let Some(time) = self.time.take() {
            self.remote.notify(Notice::Timer(time, Arc::clone(&self.shared)));
        }
        match self.shared.is_over.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}

impl Drop for RemoteSleep {
    fn drop(&mut self) {
        let is_counted = self.time.is_none() && !self.shared.is_over.load(Ordering::Relaxed);
        if is_counted {
            self.shared.leave();
        }
    }
}
