//! How a client's connection is doing, for whoever wants to know.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use parking_lot::Mutex;
use ringcall_core::{Cause, CloseReason, Failure, Mismatch};

use crate::wakers::Wakers;

/// How a client's connection is doing.
///
/// A client keeps one connection: it opens another as soon as that is lost, or its server asks it to leave.
/// Attempts begin 100 ms after each other, and 1.6 times as long after each failure, up to 30 s, give or take a half.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ConnectionState {
    /// There is none, and none is being opened: the next call opens one.
    Idle,
    /// It is being opened, for the first time or because the one before was lost. Calls wait for it.
    Connecting,
    /// Calls can be made.
    Ready,
    /// The server asks to leave: calls in flight are finished, new ones wait for another connection, which
    /// is being opened.
    Draining,
    /// The last attempt failed, for this reason, or the client has shut down. Calls fail at once, unless they
    /// [wait](crate::CallOptions::wait_for_ready). It is tried again in the background.
    Broken(CloseReason),
}

impl fmt::Display for ConnectionState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ConnectionState::Idle => f.write_str("idle"),
            ConnectionState::Connecting => f.write_str("connecting"),
            ConnectionState::Ready => f.write_str("ready"),
            ConnectionState::Draining => f.write_str("draining"),
            ConnectionState::Broken(reason) => write!(f, "broken: {reason}"),
        }
    }
}

/// The state of a connection, changed on its shard and read anywhere.
#[derive(Clone)]
pub(crate) struct Watched(Arc<Mutex<Seen>>);

struct Seen {
    state: ConnectionState,
    /// It will not change any more.
    is_final: bool,
    /// How bodies may be compressed that the other side of the last connection reads, bit by bit.
    compressions: u8,
    /// Whom the last connection met that met somebody else than was expected.
    mismatch: Option<Box<Mismatch>>,
    /// Why the last attempt failed, also while there is another one.
    #[cfg_attr(
        not(feature = "cluster"),
        allow(dead_code, reason = "balanced channels ask for it")
    )]
    failure: Option<CloseReason>,
    waiting: Wakers,
}

impl Watched {
    pub(crate) fn new(state: ConnectionState) -> Watched {
        Watched(Arc::new(Mutex::new(Seen {
            state,
            is_final: false,
            compressions: 0,
            mismatch: None,
            failure: None,
            waiting: Wakers::default(),
        })))
    }

    pub(crate) fn state(&self) -> ConnectionState {
        self.0.lock().state
    }

    pub(crate) fn compressions(&self) -> u8 {
        self.0.lock().compressions
    }

    pub(crate) fn reads(&self, compressions: u8) {
        self.0.lock().compressions = compressions;
    }

    /// Somebody else than was expected is at the address.
    pub(crate) fn met(&self, mismatch: Mismatch) {
        self.0.lock().mismatch = Some(Box::new(mismatch));
    }

    /// Who, if that is why there is no connection.
    pub(crate) fn mismatch(&self) -> Option<Mismatch> {
        let seen = self.0.lock();
        let is_why = seen.state == ConnectionState::Broken(CloseReason::WrongInstance);
        seen.mismatch.as_deref().filter(|_| is_why).cloned()
    }

    /// Why the last attempt failed, unless one has succeeded since.
    #[cfg(feature = "cluster")]
    pub(crate) fn last_failure(&self) -> Option<CloseReason> {
        self.0.lock().failure
    }

    pub(crate) fn is_final(&self) -> bool {
        self.0.lock().is_final
    }

    pub(crate) fn set(&self, state: ConnectionState) {
        self.change(state, false);
    }

    /// The client has shut down, or nobody uses it any more.
    pub(crate) fn end(&self) {
        self.change(ConnectionState::Broken(CloseReason::Local), true);
    }

    fn change(&self, state: ConnectionState, is_final: bool) {
        let waiting = {
            let mut seen = self.0.lock();
            if seen.is_final {
                return;
            }
            (seen.state, seen.is_final) = (state, is_final);
            match state {
                ConnectionState::Broken(reason) => seen.failure = Some(reason),
                ConnectionState::Ready => seen.failure = None,
                _ => {}
            }
            seen.waiting.all()
        };
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Waits until the state is another than `from`, or will never be.
    pub(crate) fn changed(
        &self,
        from: ConnectionState,
    ) -> impl Future<Output = ConnectionState> + Send + use<> {
        self.until(move |state| state != from)
    }

    /// Waits until calls can be made, or never can be.
    pub(crate) fn ready(&self) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        let ready = self.until(|state| state == ConnectionState::Ready);
        async move {
            match ready.await {
                ConnectionState::Ready => Ok(()),
                _ => Err(Failure::not_sent(Cause::Shutdown)),
            }
        }
    }

    /// Waits until the state is such a one, or will not change any more.
    fn until<F: Fn(ConnectionState) -> bool>(&self, is_enough: F) -> Until<F> {
        Until { watched: self.clone(), is_enough, place: None }
    }
}

struct Until<F> {
    watched: Watched,
    is_enough: F,
    place: Option<usize>,
}

impl<F> Unpin for Until<F> {}

impl<F: Fn(ConnectionState) -> bool> Future for Until<F> {
    type Output = ConnectionState;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<ConnectionState> {
        let this = &mut *self;
        let mut seen = this.watched.0.lock();
        if seen.is_final || (this.is_enough)(seen.state) {
            return Poll::Ready(seen.state);
        }
        let before = seen.waiting.keep(&mut this.place, cx.waker());
        drop(seen);
        drop(before);
        Poll::Pending
    }
}

impl<F> Drop for Until<F> {
    fn drop(&mut self) {
        let left = self.watched.0.lock().waiting.leave(&mut self.place);
        drop(left);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn futures_that_are_given_up_leave_nothing_behind() {
        let watched = Watched::new(ConnectionState::Ready);
        struct Task;
        impl std::task::Wake for Task {
            fn wake(self: Arc<Self>) {}
        }
        for _ in 0..100 {
            let waker = Waker::from(Arc::new(Task));
            let mut cx = Context::from_waker(&waker);
            let waits = || Box::pin(watched.changed(ConnectionState::Ready));
            let (mut first, mut second) = (waits(), waits());
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert!(second.as_mut().poll(&mut cx).is_pending());
            assert!(first.as_mut().poll(&mut cx).is_pending());
            assert_eq!(watched.0.lock().waiting.len(), 2);
        }
        assert_eq!(watched.0.lock().waiting.len(), 0);
    }
}
