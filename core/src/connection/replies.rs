//! Replies to calls of this side: from a frame to [`Event::Completed`].
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::boxed::Box;
use alloc::sync::Arc;

use ringcall_buf::{Chunk, External, ObjectError};

use super::assembly::{Arriving, Assembly};
use super::receive::{Announced, Received, awaits_confirmation, split_header};
use super::state::{CallInput, CallState};
use super::stream::Streams;
use super::{BodyTarget, Connection, Event, Outcome, Reply};
use crate::frame::{FLAG_ITEMS, FLAG_MORE, Head, Kind, ReplyHeader};
use crate::{Attached, Cause, CloseReason, Failure, Instant, MessageId, Status, StatusClass};

/// A reply whose body is arriving in parts.
#[derive(Debug)]
pub(super) struct ExpectedReply {
    /// All but the body.
    reply: Reply,
    /// Why its body is ignored although somebody waits for it.
    unreadable: Option<Cause>,
}

impl<T> Connection<T> {
    /// A REPLY frame that is here whole. Its body may continue in DATA frames.
    #[inline]
    pub(super) fn reply_frame(
        &mut self,
        now: Instant,
        head: Head,
        mut frame: Chunk,
    ) -> Received<T> {
        let header_len = usize::from(head.header_len);
        if head.flags & FLAG_MORE != 0 || self.lands_elsewhere(head.id) {
            return self.first_part(now, head, frame, Self::large_reply);
        }
        let (header, extensions) = split_header(&head, &frame, ReplyHeader::parse)?;
        let announced = Announced::parse(extensions, self.config.understood)?;
        let body_len = announced.total(&head, self.message_bytes_max)?;
        // Credit for replies returns on delivery: whether a caller keeps its reply is its own matter.
        self.credit.replies_in.charge(body_len)?;
        self.credit.replies_in.release(body_len);
        if !self.expects_reply(&head) {
            return match self.voids_reply(&head, &header) {
                true => Ok(self.reply_void(head.id, header)),
                false => self.unknown_reply(now).map(|()| None),
            };
        }
        if head.flags & FLAG_ITEMS != 0 && self.streams(head.id).is_some_and(asked_for_items) {
            // An answer that cannot be read must not seem to be one without items.
            let why = self.unreadable(0, &header, &announced);
            let extensions = self.reply_extensions(&frame.slice(0..header_len), &announced);
            let attached = Attached::Nothing;
            let reply = Reply { header, body: Chunk::empty(), attached, extensions };
            return self.answering(&head, reply, why);
        }
        let Some(ticket) = self.end_call(head.id) else { return Ok(None) };
        if let Some(cause) = self.unreadable(head.flags, &header, &announced) {
            let outcome = Outcome::Failed(Failure::unknown(cause));
            return Ok(Some(Event::Completed(ticket, outcome)));
        }
        let extensions = self.reply_extensions(&frame.slice(0..header_len), &announced);
        frame.advance(header_len);
        let body = self.settle(frame);
        let reply = Reply { header, body, attached: announced.attached(), extensions };
        Ok(Some(Event::Completed(ticket, Outcome::Reply(reply))))
    }

    /// The extensions of a header that the application gets.
    #[inline]
    fn reply_extensions(&self, header: &Chunk, announced: &Announced) -> Chunk {
        match announced.has_others {
            true => self.keep(header.slice(ReplyHeader::LEN..header.len())),
            false => Chunk::empty(),
        }
    }

    /// Why this side can make no sense of a reply: streams and compression that were not asked for,
    /// extensions that it does not know, metadata that is too much.
    #[inline]
    fn unreadable(&self, flags: u8, header: &ReplyHeader, announced: &Announced) -> Option<Cause> {
        if flags & FLAG_ITEMS != 0
            || !self.config.takes_compression(header.compression)
            || announced.unknown_critical.is_some()
        {
            return Some(Cause::BadReply);
        }
        match announced.refused_metadata(self.config.metadata)? {
            Status::TOO_MUCH_METADATA => Some(Cause::TooMuchMetadata),
            _ => Some(Cause::BadReply),
        }
    }

    /// Begins a reply whose body arrives in parts; `false`, and nothing has happened, if there is no
    /// memory for it now.
    pub(super) fn large_reply(
        &mut self,
        now: Instant,
        head: &Head,
        header_bytes: &Chunk,
    ) -> Result<bool, CloseReason> {
        self.body_target = BodyTarget::Nothing;
        let (header, extensions) = split_header(head, header_bytes, ReplyHeader::parse)?;
        let announced = Announced::parse(extensions, self.config.understood)?;
        let total = announced.total(head, self.message_bytes_max)?;
        self.credit.replies_in.check(total)?;
        let expected = self.expects_reply(head);
        if head.flags & FLAG_ITEMS != 0 && self.streams(head.id).is_some_and(asked_for_items) {
            return Err(CloseReason::BadStream);
        }
        let unreadable = self.unreadable(head.flags, &header, &announced);
        let is_wanted = expected
            && self.calls.find(head.id).is_some_and(|entry| entry.ticket.is_some())
            && unreadable.is_none();
        let mut attached = announced.attached();
        let landing = self.reply_landing(head.id, &header, attached).filter(|_| is_wanted);
        let elsewhere = landing.as_ref().map_or(0, External::len);
        let mut assembly = None;
        if is_wanted {
            let in_memory = total.saturating_sub(elsewhere);
            assembly = self.assemble_at_last(now, in_memory);
            if assembly.is_none() {
                return Ok(false);
            }
        }
        if let (Some(range), Some(assembly)) = (landing, &mut assembly) {
            attached = Attached::Landed(range.len() as u64);
            assembly.land_rest(range);
        }
        self.credit.replies_in.charge(total)?;
        if !expected {
            self.credit.replies_in.release(total);
            self.unknown_reply(now)?;
            self.ignore(now, head.body_len().unwrap_or(0))?;
            return Ok(true);
        }
        let body_len = head.body_len().unwrap_or(0);
        let extensions = self.reply_extensions(header_bytes, &announced);
        let reply = Reply { header, body: Chunk::empty(), attached, extensions };
        let expected = ExpectedReply { reply, unreadable };
        let mut arriving = Arriving::new(expected, assembly, total, body_len, &self.memory)
            .with(awaits_confirmation(head), attached);
        if !is_wanted {
            self.credit.replies_in.release(arriving.ignore());
        }
        let is_announced = arriving.is_announced();
        self.stop_sending(head.id);
        self.stop_answered_streams(head.id);
        self.calls.step(head.id.slot(), CallInput::ReplyBegins);
        if let Some(entry) = self.calls.find(head.id) {
            entry.arriving = Some(Box::new(arriving));
        }
        if is_wanted {
            self.body_target = BodyTarget::Reply(head.id);
            self.body_begins(now);
        } else if is_announced {
            self.ignored_reply_ends(head.id);
        }
        self.check_landing(head.id, attached);
        Ok(true)
    }

    /// Whether the attachment of a call's reply does not go to memory.
    #[inline]
    fn lands_elsewhere(&mut self, id: MessageId) -> bool {
        self.calls.find(id).is_some_and(|entry| {
            entry.landing.is_some() && entry.arriving.is_none() && entry.ticket.is_some()
        })
    }

    /// The range that the attachment of a reply goes to, as long as that is.
    fn reply_landing(
        &mut self,
        id: MessageId,
        header: &ReplyHeader,
        attached: Attached,
    ) -> Option<External> {
        let Attached::InBody(len) = attached else { return None };
        let range = self.calls.find(id)?.landing.as_deref()?;
        let is_value = header.status.class() == StatusClass::Ok;
        let fits = is_value && len <= range.len();
        fits.then(|| External::new(Arc::clone(range.object()), range.offset(), len))
    }

    /// A reply whose attachment was to go elsewhere, and does not fit there, fails.
    fn check_landing(&mut self, id: MessageId, attached: Attached) {
        let Attached::InBody(len) = attached else { return };
        let Some(entry) = self.calls.find(id) else { return };
        if entry.landing.as_ref().is_some_and(|range| len > range.len()) {
            self.landing_failed(id, ObjectError::NoRoom);
        }
    }

    /// Whether a REPLY, or an END, says that the body which its call's answer has begun is void.
    fn voids_reply(&mut self, head: &Head, header: &ReplyHeader) -> bool {
        let is_failure =
            matches!(header.status.class(), StatusClass::Refused | StatusClass::Unknown);
        let is_bare = head.body_len() == Some(0) && head.flags == 0;
        let entry = self.calls.find(head.id);
        is_failure && is_bare && entry.is_some_and(|entry| entry.arriving.is_some())
    }

    fn reply_void(&mut self, id: MessageId, header: ReplyHeader) -> Option<Event<T>> {
        let mut arriving = *self.calls.find(id)?.arriving.take()?;
        self.credit.replies_in.release(arriving.ignore());
        self.drop_writes(id);
        self.leave_body(BodyTarget::Reply(id));
        let ticket = self.end_call(id)?;
        let (body, extensions) = (Chunk::empty(), Chunk::empty());
        let reply = Reply { header, body, attached: Attached::Nothing, extensions };
        Some(Event::Completed(ticket, Outcome::Reply(reply)))
    }

    /// The last frame of a reply whose body is ignored has been read.
    pub(super) fn ignored_reply_ends(&mut self, id: MessageId) {
        let arriving = self.calls.find(id).and_then(|entry| entry.arriving.as_ref());
        let unreadable = arriving.and_then(|arriving| arriving.header.unreadable);
        if let Some(ticket) = self.end_call(id) {
            // Wanted, but not readable.
            let failure = Failure::unknown(unreadable.unwrap_or(Cause::BadReply));
            self.ahead.push(Event::Completed(ticket, Outcome::Failed(failure)));
        }
    }

    /// The last byte of a reply that came in parts is here.
    pub(super) fn reply_done(&mut self, id: MessageId) -> Option<Event<T>> {
        let arriving = *self.calls.find(id)?.arriving.take()?;
        self.credit.replies_in.release(arriving.charged);
        let ticket = self.end_call(id)?;
        let body = arriving.assembly.map(Assembly::finish).unwrap_or_default();
        let reply = Reply { body, ..arriving.header.reply };
        Some(Event::Completed(ticket, Outcome::Reply(reply)))
    }

    /// Whether a REPLY, or an END, can be that of its call.
    #[inline]
    fn expects_reply(&mut self, head: &Head) -> bool {
        let is_end = head.kind == Kind::End as u8;
        self.calls.find(head.id).is_some_and(|entry| {
            entry.arriving.is_none()
                && match entry.state {
                    CallState::Held => false,
                    // It was given up: whichever ends it.
                    CallState::Abandoned => true,
                    state => is_end == (state == CallState::Streaming),
                }
        })
    }

    /// The call is answered: frees its slot and returns its ticket, if somebody still wants it.
    #[inline]
    fn end_call(&mut self, id: MessageId) -> Option<T> {
        let entry = self.calls.find(id)?;
        let ticket = entry.ticket.take();
        // The server need not have waited for all of the request.
        if entry.state == CallState::Sending {
            self.stop_sending(id);
        }
        self.stop_answered_streams(id);
        self.calls.step(id.slot(), CallInput::ReplyEnds);
        let counter = match ticket {
            Some(_) => &mut self.counters.calls_ended,
            None => &mut self.counters.replies_late,
        };
        *counter = counter.wrapping_add(1);
        ticket
    }

    /// The other side has ended a call: nothing more may come of its items.
    fn stop_answered_streams(&mut self, id: MessageId) {
        self.stop_streams(id);
        if let Some(entry) = self.calls.find(id) {
            entry.late.bytes = 0;
        }
    }

    fn unknown_reply(&mut self, now: Instant) -> Result<(), CloseReason> {
        self.counters.replies_unknown = self.counters.replies_unknown.wrapping_add(1);
        match self.unknown_replies.add(now, 1, u64::from(self.config.unknown_replies_max)) {
            true => Ok(()),
            false => Err(CloseReason::UnknownReplies),
        }
    }
}

fn asked_for_items(streams: &mut Streams) -> bool {
    streams.asked_for_items
}
