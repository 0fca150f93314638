//! A call on its way to its handler, and one that is running.

use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, Ordering};
use std::task::{Context, Poll};

use atomic_waker::AtomicWaker;
use parking_lot::Mutex;
use ringcall_codec_rkyv::{Form, FromBody, Invalid, Message};
use ringcall_core::frame::{ExtensionWriter, Extensions, request_flags, tag};
use ringcall_core::{
    Attached, Chunk, Codec, Handle, Instant, Request, RequestId, SharedChunk, Status,
};

use super::MethodTable;
use super::access::Caller;
use super::admit::{Admitted, Forms};
use crate::metadata::BadMetadataKey;
use crate::observe::{Entered, Scope, enter};
use crate::shard::{Inner, Remote};

/// What a tied attempt is called, see [`TIED`](tag::TIED). It is random, so that nobody else can name it.
pub(crate) type Tie = [u8; 16];

/// What the caller of a request is to be told when its handler begins, if it wants that.
pub(super) fn tie_of(extensions: &[u8]) -> Option<Tie> {
    let mut found = Extensions::new(extensions).flatten();
    found.find(|it| it.tag == tag::TIED)?.value.try_into().ok()
}

/// A call on its way to its handler. For the code that `#[service]` makes.
pub struct Incoming {
    pub(crate) facts: Facts,
    pub(crate) origin: Origin,
    body: Chunk,
    attached: Attached,
    /// What the items of the caller are sent as, unless they say that they have names.
    pub(super) in_signature: u64,
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
    /// How long it waited before it began, if it had to.
    pub(crate) queue_us: u32,
    /// Of the request.
    pub(crate) flags: u8,
    /// It runs to its end, also when its caller does not wait any more: its answer is for others, too.
    pub(crate) outlasts_caller: bool,
    pub(crate) table: &'static MethodTable,
    /// Of the reply and the error.
    pub(crate) out_signature: u64,
    pub(crate) forms: Forms,
}

impl Facts {
    /// The name of the method.
    pub(crate) fn method(&self) -> &'static str {
        self.table.name()
    }

    /// Whether the call is a retry already.
    pub(crate) fn is_retried(&self) -> bool {
        self.flags & request_flags::RETRIED != 0
    }

    /// Whether its time is over.
    pub(crate) fn has_expired(&self, now: Instant) -> bool {
        self.deadline <= now && !self.outlasts_caller
    }

    /// In which form the caller reads what a method answers with that status.
    pub(crate) fn form_of<M: Message>(&self, status: Status) -> Form {
        let [reply, error, _] = self.forms.out;
        self.form::<M>(if status == Status::OK { reply } else { error })
    }

    pub(crate) fn item_form<M: Message>(&self) -> Form {
        self.form::<M>(self.forms.out[2])
    }

    #[inline]
    fn form<M: Message>(&self, form: Form) -> Form {
        // Raw parts are the same for everybody.
        if M::CODEC == Codec::RKYV { form } else { Form::PLAIN }
    }
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
    /// Who is at the other side of the connection.
    pub(crate) caller: Caller,
    status: AtomicU16,
    /// There is a responder, which answers.
    has_responder: AtomicBool,
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
            has_responder: AtomicBool::new(false),
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

    pub(crate) fn add_metadata(&self, key: &str, value: &[u8]) -> Result<(), BadMetadataKey> {
        crate::metadata::push_entry(&mut self.metadata.lock(), key, value)
    }

    /// What was added since it was asked last.
    pub(crate) fn take_metadata(&self) -> Vec<u8> {
        std::mem::take(&mut *self.metadata.lock()).finish()
    }

    /// From now on a responder answers.
    pub(crate) fn give_to_responder(&self) {
        self.has_responder.store(true, Ordering::Relaxed);
    }

    /// Whether a responder has answered, or will. For the thread that the handler is called on.
    pub(crate) fn has_responder(&self) -> bool {
        self.has_responder.load(Ordering::Relaxed)
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
        request: &mut Request,
        table: &'static MethodTable,
        admitted: &Admitted,
    ) -> Incoming {
        Incoming {
            facts: Facts {
                handle,
                request: request.id,
                deadline: request.deadline,
                priority: request.priority,
                attempt: request.attempt,
                queue_us: 0,
                flags: request.flags,
                outlasts_caller: false,
                table,
                out_signature: admitted.out_signature,
                forms: admitted.forms,
            },
            origin: Origin::Shard(Rc::clone(shard)),
            body: std::mem::take(&mut request.body),
            attached: request.attached,
            in_signature: request.in_signature,
            extensions: std::mem::take(&mut request.extensions),
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
        Incoming {
            facts,
            origin: Origin::Elsewhere(remote, flag),
            body: body.into(),
            attached,
            // Methods with streams stay on their shard.
            in_signature: 0,
            extensions: extensions.into(),
        }
    }

    /// Takes the argument out of the body.
    // An error without bytes: a status would lie where the argument does, which then is moved in odd pieces.
    #[doc(hidden)]
    #[inline]
    pub fn argument<X: FromBody>(&mut self) -> Result<X, Invalid> {
        let (body, attached) = self.take_body();
        match self.facts.forms.argument {
            Form::PLAIN => X::from_body_with(body, attached),
            form => X::from_other(form, body, attached),
        }
    }

    #[inline]
    pub(super) fn take_body(&mut self) -> (Chunk, Attached) {
        (std::mem::take(&mut self.body), self.attached)
    }

    /// Its handler is about to begin, on its shard.
    #[inline]
    pub(super) fn begins(&self) {
        if !self.extensions.is_empty() {
            self.begins_with_extensions();
        }
    }

    #[cold]
    fn begins_with_extensions(&self) {
        if let Origin::Shard(shard) = &self.origin
            && let Some(tie) = tie_of(&self.extensions)
        {
            shard.tell_begun(self.facts.handle, tie);
        }
    }

    pub(super) fn take_extensions(&mut self) -> SharedChunk {
        std::mem::take(&mut self.extensions).share()
    }
}

impl std::fmt::Debug for Incoming {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Incoming").field("method", &self.facts.method()).finish_non_exhaustive()
    }
}
