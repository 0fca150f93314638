//! Filters: what happens to every call before it goes on, and what is learnt of its end.
//!
//! A filter is an async function that takes a call and gives it back, changed or not, or a [`Status`]
//! instead, which ends the call there:
//!
//! ```
//! use ringcall::filter::{FilterExt, ServerCall};
//! use ringcall::{CallOptions, Server, Status};
//! # #[ringcall::service(name = "demo.Echo")]
//! # trait Echo { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes; }
//! # struct Mirror;
//! # impl Echo for Mirror { async fn echo(&self, body: ringcall::Bytes) -> ringcall::Bytes { body } }
//!
//! async fn admit(call: ServerCall) -> Result<ServerCall, Status> {
//!     match call.metadata().text("key") {
//!         Some("open sesame") => Ok(call),
//!         _ => Err(Status::UNAUTHENTICATED),
//!     }
//! }
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let filters = admit.after(|end| assert_eq!(end.method, "demo.Echo/echo"));
//! let server = Server::bind("127.0.0.1:0").service(Mirror.into_echo()).filter(filters).start()?;
//!
//! let client = EchoClient::connect(server.address()).wait()?;
//! let body = ringcall::Bytes::from_static(b"hello");
//! assert!(client.echo(&body).wait().is_err());
//! assert!(client.echo(&body).metadata("key", "open sesame").wait().is_ok());
//! # Ok(()) }
//! ```
//!
//! [`FilterExt`] puts filters together into a list that is one type: `first.then(second)`. Calls pass it from
//! front to back, ends from back to front. Filters of a server are for all calls of its services,
//! [`Server::filter`](crate::Server::filter); those of a client are around a channel, [`Filtered`]. Around the
//! channel that repeats calls they are called once a call, beneath it once an attempt. What a client's filter waits for
//! counts for the call's deadline, which is looked at when it goes on: so one that may wait for long bounds that itself.

use std::fmt;
use std::future::Future;
use std::marker::PhantomData;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use pin_project_lite::pin_project;
use ringcall_core::Status;

pub use crate::client::{
    ClientCall, Filtered, FilteredCall, FilteredOpening, FilteredStream, OwnedFilteredCall,
    OwnedFilteredOpening,
};
pub use crate::serve::ServerCall;

/// Something that calls of the kind `C` pass, [`ServerCall`] or [`ClientCall`]: an async function, or a list
/// of filters. See [the module](self).
pub trait Filter<C>: Clone + 'static {
    /// The future of a call that passes.
    type Before: Future<Output = Result<C, Status>> + 'static;

    /// Lets a call pass, or ends it with a status: one of those that say that it did not run.
    fn before(&self, call: C) -> Self::Before;

    /// Whether somebody is told the ends of calls.
    #[doc(hidden)]
    const TELLS_ENDS: bool = false;

    /// The call has ended. At a server also if one of the filters ended it, since its caller is answered; at a
    /// client not, since nothing was made of it.
    fn ended(&self, _end: &CallEnd<'_>) {}
}

impl<C, F, Fut> Filter<C> for F
where
    F: Fn(C) -> Fut + Clone + 'static,
    Fut: Future<Output = Result<C, Status>> + 'static,
{
    type Before = Fut;

    #[inline]
    fn before(&self, call: C) -> Fut {
        self(call)
    }
}

/// How a call ended.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct CallEnd<'a> {
    /// `package.Service/method`.
    pub method: &'a str,
    /// The status: of the answer, or of the failure, if it has one.
    pub status: Option<Status>,
    /// Why there is no answer of the handler, at the caller.
    pub failure: Option<&'a ringcall_core::Failure>,
}

impl<'a> CallEnd<'a> {
    pub(crate) fn new(method: &'a str, status: Option<Status>) -> CallEnd<'a> {
        CallEnd { method, status, failure: None }
    }

    pub(crate) fn failed(method: &'a str, failure: &'a ringcall_core::Failure) -> CallEnd<'a> {
        let status = match failure.cause {
            ringcall_core::Cause::Status(status) => Some(status),
            _ => None,
        };
        CallEnd { method, status, failure: Some(failure) }
    }
}

/// Puts filters together.
pub trait FilterExt<C>: Filter<C> + Sized {
    /// Calls that have passed this filter go to `next`.
    fn then<N: Filter<C>>(self, next: N) -> Then<Self, N> {
        Then { first: self, next }
    }

    /// Tells `told` how calls end that have passed this filter.
    fn after<T: Fn(&CallEnd<'_>) + Clone + 'static>(self, told: T) -> After<Self, T> {
        After { filter: self, told }
    }
}

impl<C, F: Filter<C>> FilterExt<C> for F {}

/// Two filters, made by [`FilterExt::then`].
#[derive(Clone, Debug)]
pub struct Then<A, B> {
    first: A,
    next: B,
}

impl<C: 'static, A: Filter<C>, B: Filter<C>> Filter<C> for Then<A, B> {
    type Before = ThenBefore<C, A, B>;

    const TELLS_ENDS: bool = A::TELLS_ENDS || B::TELLS_ENDS;

    fn before(&self, call: C) -> ThenBefore<C, A, B> {
        let stage = Stage::First { future: self.first.before(call) };
        ThenBefore { stage, next: self.next.clone(), call: PhantomData }
    }

    fn ended(&self, end: &CallEnd<'_>) {
        self.next.ended(end);
        self.first.ended(end);
    }
}

pin_project! {
    /// A call that passes two filters.
    pub struct ThenBefore<C, A: Filter<C>, B: Filter<C>> {
        #[pin]
        stage: Stage<A::Before, B::Before>,
        next: B,
        call: PhantomData<fn() -> C>,
    }
}

pin_project! {
    #[project = StageProject]
    enum Stage<A, B> {
        First { #[pin] future: A },
        Next { #[pin] future: B },
    }
}

impl<C, A: Filter<C>, B: Filter<C>> Future for ThenBefore<C, A, B> {
    type Output = Result<C, Status>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<C, Status>> {
        let mut this = self.project();
        loop {
            let call = match this.stage.as_mut().project() {
                StageProject::First { future } => ready!(future.poll(cx))?,
                StageProject::Next { future } => return future.poll(cx),
            };
            let future = this.next.before(call);
            this.stage.set(Stage::Next { future });
        }
    }
}

impl<C, A: Filter<C>, B: Filter<C>> fmt::Debug for ThenBefore<C, A, B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ThenBefore").finish_non_exhaustive()
    }
}

/// A filter with somebody who is told the ends, made by [`FilterExt::after`].
#[derive(Clone)]
pub struct After<F, T> {
    filter: F,
    told: T,
}

impl<C, F, T> Filter<C> for After<F, T>
where
    F: Filter<C>,
    T: Fn(&CallEnd<'_>) + Clone + 'static,
{
    type Before = F::Before;

    const TELLS_ENDS: bool = true;

    fn before(&self, call: C) -> F::Before {
        self.filter.before(call)
    }

    fn ended(&self, end: &CallEnd<'_>) {
        (self.told)(end);
        self.filter.ended(end);
    }
}

impl<F, T> fmt::Debug for After<F, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("After").finish_non_exhaustive()
    }
}
