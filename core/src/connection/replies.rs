//! Replies to calls of this side: from a frame to [`Event::Completed`].
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::boxed::Box;

use ringcall_buf::Chunk;

use super::assembly::{Arriving, Assembly};
use super::receive::{Announced, Received, split_header};
use super::state::{CallInput, CallState};
use super::stream::Streams;
use super::{BodyTarget, Connection, Event, Outcome, Reply};
use crate::frame::{FLAG_ITEMS, FLAG_MORE, Head, Kind, ReplyHeader};
use crate::{Cause, CloseReason, Failure, Instant, MessageId, Status};

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
        if head.flags & FLAG_MORE != 0 {
            return self.first_part(now, head, frame, Self::large_reply);
        }
        let (header, extensions) = split_header(&head, &frame, ReplyHeader::parse)?;
        let announced = Announced::parse(extensions, self.config.understood)?;
        let body_len = announced.total(&head, self.message_bytes_max)?;
        // Credit for replies returns on delivery: whether a caller keeps its reply is its own matter.
        self.credit.replies_in.charge(body_len)?;
        self.credit.replies_in.release(body_len);
        if !self.expects_reply(&head) {
            return self.unknown_reply(now).map(|()| None);
        }
        if head.flags & FLAG_ITEMS != 0 && self.streams(head.id).is_some_and(asked_for_items) {
            // An answer that cannot be read must not seem to be one without items.
            let why = self.unreadable(0, &header, &announced);
            let extensions = self.reply_extensions(&frame.slice(0..header_len), &announced);
            return self.answering(&head, Reply { header, body: Chunk::empty(), extensions }, why);
        }
        let Some(ticket) = self.end_call(head.id) else { return Ok(None) };
        if let Some(cause) = self.unreadable(head.flags, &header, &announced) {
            let outcome = Outcome::Failed(Failure::unknown(cause));
            return Ok(Some(Event::Completed(ticket, outcome)));
        }
        let extensions = self.reply_extensions(&frame.slice(0..header_len), &announced);
        frame.advance(header_len);
        let body = self.settle(frame);
        Ok(Some(Event::Completed(ticket, Outcome::Reply(Reply { header, body, extensions }))))
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
        let mut assembly = None;
        if is_wanted {
            assembly = Assembly::begin(total, &self.memory, &self.landing);
            if assembly.is_none() {
                return Ok(false);
            }
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
        let reply = Reply { header, body: Chunk::empty(), extensions };
        let expected = ExpectedReply { reply, unreadable };
        let mut arriving = Arriving::new(expected, assembly, total, body_len, now);
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
            self.look_after_by(now + self.config.stall_timeout);
        } else if is_announced {
            self.ignored_reply_ends(head.id);
        }
        Ok(true)
    }

    /// The last frame of a reply whose body is ignored has been read.
    pub(super) fn ignored_reply_ends(&mut self, id: MessageId) {
        let arriving = self.calls.find(id).and_then(|entry| entry.arriving.as_ref());
        let unreadable = arriving.and_then(|arriving| arriving.header.unreadable);
        if let Some(ticket) = self.end_call(id) {
            // Wanted, but not readable.
            let failure = Failure::unknown(unreadable.unwrap_or(Cause::BadReply));
            self.events.push_back(Event::Completed(ticket, Outcome::Failed(failure)));
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
