//! Answers a call later, from anywhere.

use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

use ringcall_codec_rkyv::{HandlerError, Message};
use ringcall_core::{Refusal, SharedPool, Status};

use super::handler::Away;
use super::incoming::{CancelFlag, Facts, Incoming, Origin, Running};
use crate::metadata::{BadMetadataKey, expect_key};
use crate::shard::Remote;

/// Answers a call later, from any thread: the last parameter of a method that is a plain `fn`.
///
/// Exactly one answer is sent. Dropping the responder answers with
/// [`INTERNAL`](ringcall_core::Status::INTERNAL), so that no caller waits for ever.
#[must_use = "dropping a responder tells the caller that the handler failed"]
pub struct Responder<V: Message, E: Message = std::convert::Infallible> {
    call: Option<(Arc<Remote>, Facts)>,
    flag: Arc<CancelFlag>,
    answer: PhantomData<fn(V, E)>,
}

impl<V: Message, E: Message> Responder<V, E> {
    /// Answers the call.
    pub fn send(mut self, answer: Result<V, E>) {
        if let Some(away) = self.take() {
            match self.flag.cancelled() {
                Some(status) => away.status(status),
                None => away.result(answer),
            }
        }
    }

    /// Refuses the call: nothing was done for it, and its caller may try again, here or at another server.
    pub fn refuse(mut self, refusal: Refusal) {
        if let Some(away) = self.take() {
            match self.flag.cancelled() {
                Some(status) => away.status(status),
                None => away.refuse(refusal),
            }
        }
    }

    /// Fails with an error of the method's, a refusal, or for a reason that is for the log of this side only: all that a
    /// handler may fail with, see [`HandlerError`].
    pub fn fail(mut self, error: impl Into<HandlerError<E>>) {
        if let Some(away) = self.take() {
            match self.flag.cancelled() {
                Some(status) => away.status(status),
                None => away.result(Err::<V, HandlerError<E>>(error.into())),
            }
        }
    }

    /// Adds an entry of metadata to the answer, see [`Context::reply_metadata`](crate::Context::reply_metadata).
    ///
    /// # Panics
    /// When the key is not one: [`try_metadata`](Self::try_metadata) is for keys of others.
    #[track_caller]
    pub fn metadata(&self, key: &str, value: impl AsRef<[u8]>) {
        expect_key(self.try_metadata(key, value));
    }

    /// The same for a key that may be none.
    ///
    /// # Errors
    /// When it is none; nothing is added then.
    pub fn try_metadata(&self, key: &str, value: impl AsRef<[u8]>) -> Result<(), BadMetadataKey> {
        self.flag.add_metadata(key, value.as_ref())
    }

    /// Whether nobody waits for the answer any more. It must be given all the same, or dropped.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.flag.cancelled().is_some()
    }

    fn take(&mut self) -> Option<Away> {
        let (remote, facts) = self.call.take()?;
        let extensions = self.flag.take_metadata();
        let (replies, caller) = (SharedPool::new(0), self.flag.caller.address);
        Some(Away { remote, facts, replies, extensions, caller })
    }
}

impl<V: Message, E: Message> Drop for Responder<V, E> {
    fn drop(&mut self) {
        if let Some(away) = self.take() {
            let status = self.flag.cancelled().unwrap_or(Status::INTERNAL);
            away.status(status);
        }
    }
}

impl<V: Message, E: Message> fmt::Debug for Responder<V, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Responder")
            .field("is_cancelled", &self.is_cancelled())
            .finish_non_exhaustive()
    }
}

/// Made from a call, and answers it. For the code that `#[service]` makes.
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not answer calls",
    label = "the last parameter of a plain `fn` is a `Responder<Value, Error>`"
)]
pub trait Responds {
    /// What it answers with if all is well.
    type Value: Message;
    /// What it answers with otherwise.
    type Error: Message;

    #[doc(hidden)]
    fn from_call(call: &Incoming) -> Self;
}

impl<V: Message, E: Message> Responds for Responder<V, E> {
    type Value = V;
    type Error = E;

    fn from_call(call: &Incoming) -> Responder<V, E> {
        let facts = call.facts;
        let (remote, flag) = match &call.origin {
            Origin::Shard(shard) => {
                let caller = shard.caller_of(facts.handle, facts.request);
                let flag = Arc::new(CancelFlag::new(caller));
                let running = Running::Elsewhere(Arc::clone(&flag));
                let bytes = size_of::<CancelFlag>();
                shard.keep_running(facts.handle, facts.request, facts.deadline, running, bytes);
                (Arc::clone(&shard.remote), flag)
            }
            // The pool has made one already.
            Origin::Elsewhere(remote, flag) => {
                flag.give_to_responder();
                (Arc::clone(remote), Arc::clone(flag))
            }
        };
        Responder { call: Some((remote, facts)), flag, answer: PhantomData }
    }
}
