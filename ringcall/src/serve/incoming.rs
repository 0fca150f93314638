//! A call on its way to its handler, and one that is running.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use ringcall_core::frame::{ExtensionWriter, request_flags};
use ringcall_core::{Attached, Chunk, Handle, Instant, Request, RequestId, SharedChunk, Status};

use super::access::Caller;
use super::mount::Method;
use crate::observe::{Entered, Scope, enter};
use crate::shard::{Inner, Remote};

/// A call on its way to its handler. For the code that `#[service]` makes.
pub struct Incoming {
    pub(crate) facts: Facts,
    pub(crate) origin: Origin,
    body: Chunk,
    attached: Attached,
    /// Of the request's header.
    pub(crate) extensions: Chunk,
}

/// What of a call may go to any thread.
#[derive(Clone, Copy)]
pub(crate) struct Facts {
    pub(crate) handle: Handle,
    pub(crate) request: RequestId,
    pub(crate) deadline: Instant,
    pub(crate) priority: u8,
    pub(crate) attempt: u8,
    /// The call is a retry already.
    pub(crate) is_retried: bool,
    pub(crate) method: &'static str,
    /// Of the reply and the error.
    pub(crate) out_signature: u64,
}

/// Where the handler runs.
pub(crate) enum Origin {
    /// On the shard that received the call.
    Shard(Rc<Inner>),
    /// On another thread.
    Elsewhere(Arc<Remote>, Arc<CancelFlag>),
}

/// A call that is not answered yet.
pub(crate) enum Running {
    /// As a task of its shard.
    Task(u32),
    /// On another thread.
    Elsewhere(Arc<CancelFlag>),
}

/// What a handler on another thread shares with its call: tells it that nobody waits any more, and with which
/// status it ends then.
pub(crate) struct CancelFlag {
    /// Whom the certificate of the connection names.
    #[cfg_attr(not(feature = "tls"), allow(dead_code, reason = "nobody has a certificate"))]
    pub(crate) caller: Caller,
    status: AtomicU16,
    /// Of the handler, while it awaits something.
    waker: AtomicWaker,
    /// Metadata for the answer.
    metadata: Mutex<ExtensionWriter>,
    /// What the handler runs in, if an observer wants so.
    scope: Option<Arc<dyn Scope>>,
}

impl CancelFlag {
    pub(crate) fn new(caller: Caller) -> CancelFlag {
        CancelFlag {
            caller,
            status: AtomicU16::new(0),
            waker: AtomicWaker::new(),
            metadata: Mutex::default(),
            scope: None,
        }
    }

    /// With what the handler runs in.
    pub(crate) fn in_scope(self, scope: Option<Arc<dyn Scope>>) -> CancelFlag {
        CancelFlag { scope, ..self }
    }

    /// Enters that, until the result is dropped.
    pub(crate) fn enter(&self) -> Option<Entered> {
        enter(self.scope.clone())
    }

    /// What was added so far.
    pub(crate) fn with_metadata(self, metadata: ExtensionWriter) -> CancelFlag {
        CancelFlag { metadata: Mutex::new(metadata), ..self }
    }

    pub(crate) fn add_metadata(&self, key: &str, value: &[u8]) {
        crate::metadata::push_entry(&mut self.metadata.lock(), key, value);
    }

    /// What was added since it was asked last.
    pub(crate) fn take_metadata(&self) -> Vec<u8> {
        std::mem::take(&mut *self.metadata.lock()).finish()
    }

    pub(crate) fn cancel(&self, status: Status) {
        self.status.store(status.to_wire(), Ordering::Release);
        self.waker.wake();
    }

    /// Ready, with the status, once nobody waits any more.
    pub(crate) fn poll_cancelled(&self, cx: &mut Context<'_>) -> Poll<Status> {
        self.waker.register(cx.waker());
        self.cancelled().map_or(Poll::Pending, Poll::Ready)
    }

    /// Asks for the handler. Once it was told that its time is over, no answer of it goes out, even if
    /// the shard has not noticed yet.
    pub(crate) fn is_cancelled(&self, has_expired: bool) -> bool {
        if has_expired {
            let expired = Status::EXPIRED_RUNNING.to_wire();
            // Cancelled already is cancelled as well.
            let _ = self.status.compare_exchange(0, expired, Ordering::AcqRel, Ordering::Relaxed);
        }
        self.cancelled().is_some()
    }

    /// The status, once nobody waits any more.
    pub(crate) fn cancelled(&self) -> Option<Status> {
        match self.status.load(Ordering::Acquire) {
            0 => None,
            status => Some(Status::from_wire(status)),
        }
    }
}

impl Incoming {
    #[inline]
    pub(crate) fn on_shard(
        shard: &Rc<Inner>,
        handle: Handle,
        request: Request,
        method: &Method,
    ) -> Incoming {
        Incoming {
            facts: Facts {
                handle,
                request: request.id,
                deadline: request.deadline,
                priority: request.priority,
                attempt: request.attempt,
                is_retried: request.flags & request_flags::RETRIED != 0,
                method: method.name,
                out_signature: method.out_signature,
            },
            origin: Origin::Shard(Rc::clone(shard)),
            body: request.body,
            attached: request.attached,
            extensions: request.extensions,
        }
    }

    /// The same call on another thread.
    pub(crate) fn elsewhere(
        facts: Facts,
        remote: Arc<Remote>,
        flag: Arc<CancelFlag>,
        (body, attached): (SharedChunk, Attached),
        extensions: SharedChunk,
    ) -> Incoming {
        let origin = Origin::Elsewhere(remote, flag);
        Incoming { facts, origin, body: body.into(), attached, extensions: extensions.into() }
    }

    /// What of the body is beside the message.
    #[doc(hidden)]
    #[must_use]
    pub fn attached(&self) -> Attached {
        self.attached
    }

    /// Takes the body out.
    #[doc(hidden)]
    pub fn take_body(&mut self) -> Chunk {
        std::mem::take(&mut self.body)
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("method", &self.facts.method).finish_non_exhaustive()
    }
}
