//! Answers that are kept for calls that are made again.

use std::cell::RefCell;
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Cancellation, Encoded, Handle, Instant, Payload, RequestId, Status, StatusClass,
};

use super::Inner;
use crate::serve::{Begun, Facts, KeptReplies, KeptReply, KeyDigest};

/// A call on its connection.
type Call = (Handle, RequestId);

/// Only a shard of a server that keeps answers has one.
pub(super) struct Keeping {
    replies: Arc<KeptReplies>,
    /// Calls that run and whose answers will be kept.
    running: RefCell<HashMap<Call, KeyDigest>>,
    /// Those of them that nobody waits for any more, since when, and why; and some that have ended.
    given_up: RefCell<VecDeque<(Instant, Call, Cancellation)>>,
}

impl Keeping {
    pub(super) fn new(replies: Option<Arc<KeptReplies>>) -> Option<Box<Keeping>> {
        let keeping = |replies| Keeping {
            replies,
            running: RefCell::default(),
            given_up: RefCell::default(),
        };
        replies.map(|replies| Box::new(keeping(replies)))
    }
}

impl Inner {
    /// A call of a method whose answers are kept: what becomes of it, if it has a key.
    pub(crate) fn begin_keyed(&self, method: u64, of: &Facts, extensions: &[u8]) -> Option<Begun> {
        let Keeping { replies, running, .. } = &**self.keeping.as_ref()?;
        let key = match replies.key(method, || self.caller(of.handle), extensions) {
            Ok(key) => key?,
            Err(status) => return Some(Begun::Refused(status)),
        };
        let begun = replies.begin(self.now(), key, (of.out_signature, of.forms.out));
        if matches!(begun, Begun::First) {
            running.borrow_mut().insert((of.handle, of.request), key);
        }
        Some(begun)
    }

    /// Whether a call goes on although nobody waits for it, since its answer will be kept.
    #[cold]
    pub(super) fn runs_to_its_end(
        &self,
        handle: Handle,
        request: RequestId,
        why: Cancellation,
    ) -> bool {
        let Some(Keeping { running, given_up, .. }) = self.keeping.as_deref() else { return false };
        let (running, call) = (running.borrow(), (handle, request));
        if !running.contains_key(&call) {
            return false;
        }
        let mut given_up = given_up.borrow_mut();
        if given_up.len() > 2 * running.len() {
            given_up.retain(|(_, call, _)| running.contains_key(call));
        }
        given_up.push_back((self.now(), call, why));
        true
    }

    /// Calls that nobody has waited for in so long as answers are kept do not end by themselves.
    #[cold]
    pub(super) fn cancel_overdue(&self, now: Instant) {
        let Some(Keeping { replies, running, given_up }) = self.keeping.as_deref() else { return };
        let is_overdue = |since: Instant| now.since(since) > replies.window();
        loop {
            // One by one, since what is dropped may do anything.
            let first = given_up.borrow().front().copied();
            let Some((_, (handle, request), why)) = first.filter(|(since, ..)| is_overdue(*since))
            else {
                return;
            };
            given_up.borrow_mut().pop_front();
            if running.borrow().contains_key(&(handle, request)) {
                self.cancel_running(handle, request, why);
            }
        }
    }

    /// A call is answered: if it has a key, that is kept.
    #[cold]
    pub(super) fn keep_answer<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: &ReplyHeader,
        payload: &P,
    ) {
        let Some(keeping) = &self.keeping else { return };
        let Some(key) = keeping.running.borrow_mut().remove(&(handle, request)) else { return };
        let reply = match header.status.class() {
            StatusClass::Refused | StatusClass::Unknown => KeptReply::without_body(header),
            _ => self.copy_answer(header, payload),
        };
        keeping.replies.end(self.now(), key, reply);
    }

    /// What there is to keep of an answer; of those that are no single body nothing but that they were.
    fn copy_answer<P: Payload>(&self, header: &ReplyHeader, payload: &P) -> KeptReply {
        let encoded = self.outbox.encode(header.codec, header.signature, payload);
        let body = encoded.ok().and_then(|(encoded, _)| whole(&encoded));
        match body {
            Some(body) => KeptReply::new(header, body, payload.extensions()),
            None => KeptReply::bare(Status::REPLY_FAILED),
        }
    }

    /// Answers a call with what another one got.
    pub(crate) fn answer_again(&self, of: &Facts, reply: &KeptReply) {
        self.remote.register.answered_again.add();
        let header = ReplyHeader { queue_us: of.queue_us, ..reply.header() };
        self.answer_with(of.handle, of.request, header, reply);
    }
}

/// A body in one piece; `None` if there is something beside it, or it lies in a file.
fn whole(encoded: &Encoded) -> Option<Vec<u8>> {
    if encoded.is_beside {
        return None;
    }
    Some(encoded.slices()?.concat())
}
