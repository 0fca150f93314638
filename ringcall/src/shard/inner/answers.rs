//! Answers to calls of others, from what a handler gives to the connection.

use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Empty, Extended, Handle, Payload, Refusal, ReplyError, RequestId, Status, StatusClass,
};

use super::Inner;
use crate::observe::Measured;
use crate::packing::{pack, wish};

impl Inner {
    /// Answers without a handler.
    pub(crate) fn refuse(&self, handle: Handle, request: RequestId, status: Status) {
        self.answer_with(handle, request, ReplyHeader::new(status), &Empty);
    }

    /// The same, perhaps with advice when to come again.
    pub(crate) fn refuse_until(&self, handle: Handle, request: RequestId, refusal: Refusal) {
        self.answer_with(handle, request, refusal.into(), &Empty);
    }

    /// A call's time was over before its handler could start.
    pub(super) fn refuse_expired(&self, handle: Handle, request: RequestId) {
        let now = self.now();
        if let Some((_, Some(told))) = self.reply_metadata.take(handle, request) {
            told.tell(Status::EXPIRED);
        }
        if let Some(connection) = self.endpoint.borrow_mut().connection_mut(handle) {
            connection.refuse_expired(now, request);
        }
        if self.keeping.is_some() {
            self.keep_answer(handle, request, &ReplyHeader::new(Status::EXPIRED), &Empty);
        }
        if self.admission.get().is_some() {
            self.ended_taken(handle, request, &mut ReplyHeader::new(Status::EXPIRED));
        }
        if self.watch.is_some() {
            self.watch_answer(handle, request, Status::EXPIRED, 0);
        }
    }

    /// Answers a call. That the caller is gone is no fault of ours.
    #[inline]
    pub(crate) fn answer_with<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) {
        if !self.reply_metadata.is_empty() {
            return self.answer_with_metadata(handle, request, header, payload);
        }
        self.send_answer(handle, request, header, payload);
    }

    /// The same when there are answers with metadata; this may be one.
    #[cold]
    pub(super) fn answer_with_metadata<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) {
        let Some((mut extensions, told)) = self.reply_metadata.take(handle, request) else {
            return self.send_answer(handle, request, header, payload);
        };
        match extensions.is_empty() {
            true => self.send_answer(handle, request, header, payload),
            false => {
                extensions.extend_from_slice(payload.extensions());
                self.send_answer(handle, request, header, &Extended { payload, extensions });
            }
        }
        if let Some(told) = told {
            told.tell(header.status);
        }
    }

    #[inline]
    pub(super) fn send_answer<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) {
        if !self.calls_are_plain.get() {
            return self.answer_told(handle, request, header, payload);
        }
        let replied = self.reply_as_it_is(handle, request, header, payload);
        if let Err(ReplyError::Encode(error)) = replied {
            log::warn!("a reply could not be sent: {error}");
        }
    }

    /// The same where others have a say in it.
    #[cold]
    pub(super) fn answer_told<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        mut header: ReplyHeader,
        payload: &P,
    ) {
        if self.keeping.is_some() {
            self.keep_answer(handle, request, &header, payload);
        }
        if self.admission.get().is_some() {
            self.ended_taken(handle, request, &mut header);
        }
        if self.watch.is_some() {
            return self.answer_watched(handle, request, header, &Measured::new(payload));
        }
        if let Err(ReplyError::Encode(error)) = self.reply(handle, request, header, payload) {
            log::warn!("a reply could not be sent: {error}");
        }
    }

    pub(super) fn reply<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        if self.compression.replies.is_some() && has_body(&header) {
            return self.reply_packed(handle, request, header, payload);
        }
        self.reply_as_it_is(handle, request, header, payload)
    }

    #[inline]
    fn reply_as_it_is<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        let mut endpoint = self.endpoint.borrow_mut();
        endpoint.reply(self.now(), handle, request, header, payload)
    }

    #[cold]
    pub(super) fn reply_packed<P: Payload>(
        &self,
        handle: Handle,
        request: RequestId,
        mut header: ReplyHeader,
        payload: &P,
    ) -> Result<(), ReplyError> {
        let (accepted, wish) = (self.compressions(handle), wish(self.compression.replies));
        let encoded = match accepted {
            // That it cannot be encoded is found out, and told to the caller, below.
            0 => None,
            _ => self.outbox.encode(header.codec, header.signature, payload).ok(),
        };
        let packed =
            encoded.map(|(body, _)| pack(body, wish, accepted, &self.compression.threshold));
        let mut endpoint = self.endpoint.borrow_mut();
        match packed {
            None => endpoint.reply(self.now(), handle, request, header, payload),
            Some((body, compression)) => {
                header.compression = compression;
                endpoint.reply(self.now(), handle, request, header, &body)
            }
        }
    }

    /// The same, and tells observers. A call whose connection is over has ended with that.
    #[cold]
    pub(super) fn answer_watched(
        &self,
        handle: Handle,
        request: RequestId,
        header: ReplyHeader,
        payload: &Measured<'_>,
    ) {
        let replied = self.reply(handle, request, header, payload);
        match replied {
            Ok(()) => self.watch_answer(handle, request, header.status, payload.bytes()),
            Err(ReplyError::Encode(error)) => {
                log::warn!("a reply could not be sent: {error}");
                self.watch_answer(handle, request, Status::REPLY_FAILED, 0);
            }
            Err(_) => {}
        }
    }
}

/// Whether a reply may have a body.
fn has_body(header: &ReplyHeader) -> bool {
    matches!(header.status.class(), StatusClass::Ok | StatusClass::Application)
}
