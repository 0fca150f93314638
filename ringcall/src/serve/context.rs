//! What a handler knows about its call, and how it uses time and makes calls itself.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use atomic_waker::AtomicWaker;
use ringcall_core::{Clock, Instant, Within};

use super::incoming::{CancelFlag, Facts, Incoming, Origin};
use crate::client::{LocalClient, ToAddress};
use crate::shard::{Inner, MachineClock, Notice, Remote, SleepUntil};
use crate::{CallError, Client};

/// What is about the call rather than in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct CallInfo {
    /// The method's name.
    pub method: &'static str,
    /// 0 is the most ordinary; what others mean is up to the services.
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

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.facts.deadline.since(self.now())
    }

    /// Whether nobody waits for the answer any more. On a shard a handler is dropped when that happens,
    /// so this is for work that was offloaded.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        match &self.home {
            Home::Shard(_) => self.facts.deadline <= self.now(),
            Home::Elsewhere(_, flag) => flag.is_cancelled(self.facts.deadline <= self.now()),
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

    /// The same client, or any other channel, whose calls take no longer than this call has left. They
    /// are given up when the handler is.
    pub fn client<C: Clone>(&self, channel: &C) -> Within<C> {
        Within::new(channel.clone(), self.remaining())
    }

    /// Connects to another server, for calls on this shard. Keep the client: connecting costs round
    /// trips.
    ///
    /// # Errors
    /// When nobody answers there, or not in ringcall's protocol.
    ///
    /// # Panics
    /// In an offloaded handler, which is on no shard: use a [`Client`] there.
    pub async fn connect(&self, address: impl ToAddress) -> Result<LocalClient, CallError> {
        match &self.home {
            Home::Shard(shard) => LocalClient::connect(shard, address).await,
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
    flag: Option<Arc<CancelFlag>>,
}

impl SendContext {
    /// About the call.
    #[must_use]
    pub fn info(&self) -> CallInfo {
        info(&self.facts)
    }

    /// How long the caller still waits.
    #[must_use]
    pub fn remaining(&self) -> Duration {
        self.facts.deadline.since(MachineClock.now())
    }

    /// Whether nobody waits for the answer any more.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        let has_expired = self.remaining().is_zero();
        self.flag.as_ref().map_or(has_expired, |flag| flag.is_cancelled(has_expired))
    }

    /// Ready after a while.
    pub fn sleep(&self, time: Duration) -> impl Future<Output = ()> + Send + use<> {
        RemoteSleep::new(&self.remote, time)
    }

    /// The same client, whose calls take no longer than this call has left.
    #[must_use]
    pub fn client(&self, client: &Client) -> Within<Client> {
        Within::new(client.clone(), self.remaining())
    }
}

impl fmt::Debug for SendContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendContext").field("info", &self.info()).finish_non_exhaustive()
    }
}

fn info(facts: &Facts) -> CallInfo {
    CallInfo { method: facts.method, priority: facts.priority, attempt: facts.attempt }
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
        Context { facts: call.facts, home }
    }
}

impl FromCall for SendContext {
    fn from_call(call: &Incoming) -> SendContext {
        let (remote, flag) = match &call.origin {
            Origin::Shard(shard) => (Arc::clone(&shard.remote), None),
            Origin::Elsewhere(remote, flag) => (Arc::clone(remote), Some(Arc::clone(flag))),
        };
        SendContext { facts: call.facts, remote, flag }
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
struct RemoteSleep {
    remote: Arc<Remote>,
    time: Option<Duration>,
    shared: Arc<SleepShared>,
}

#[derive(Default)]
struct SleepShared {
    is_over: AtomicBool,
    waker: AtomicWaker,
}

impl Wake for SleepShared {
    fn wake(self: Arc<Self>) {
        self.is_over.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl RemoteSleep {
    fn new(remote: &Arc<Remote>, time: Duration) -> RemoteSleep {
        RemoteSleep { remote: Arc::clone(remote), time: Some(time), shared: Arc::default() }
    }
}

impl Future for RemoteSleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        self.shared.waker.register(cx.waker());
        if let Some(time) = self.time.take() {
            let waker = Waker::from(Arc::clone(&self.shared));
            self.remote.notify(Notice::Timer(time, waker));
        }
        match self.shared.is_over.load(Ordering::Acquire) {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }
}
