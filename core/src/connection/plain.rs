//! The ordinary case: a request or reply that is here whole, without extensions, and of which nothing is
//! unusual. It is recognised by looking only; anything else is left as it lies and goes the general way,
//! which also finds out what is wrong with it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use core::time::Duration;

use ringcall_buf::Chunk;

use super::state::CallState;
use super::{Connection, Event, Outcome, Reply, Request, call_key};
use crate::frame::{Head, Kind, ReplyHeader, RequestHeader, request_flags};
use crate::{Instant, RequestId};

/// Flags of a request that change nothing here.
const PLAIN_FLAGS: u8 = request_flags::RETRIED | request_flags::IDEMPOTENT;

impl<T> Connection<T> {
    /// The event of an ordinary frame; `None`, and nothing has happened, if the next frame is not one.
    #[inline]
    pub(super) fn poll_plain(&mut self, now: Instant) -> Option<Event<T>> {
        let is_quiet = self.events.is_empty()
            && self.ending.is_none()
            && self.parked.is_empty()
            && self.stalled.is_none()
            && self.peer.is_some();
        if !is_quiet {
            return None;
        }
        let (head, header) = self.inbound.peek_plain(self.message_bytes_max)?;
        if head.kind == Kind::Request as u8 {
            let (header, _) = RequestHeader::parse(header)?;
            self.plain_request(now, &head, header)
        } else if head.kind == Kind::Reply as u8 {
            let (header, _) = ReplyHeader::parse(header)?;
            self.plain_reply(&head, header)
        } else {
            None
        }
    }

    #[inline]
    fn plain_request(
        &mut self,
        now: Instant,
        head: &Head,
        header: RequestHeader,
    ) -> Option<Event<T>> {
        let body_len = head.body_len()?;
        let is_plain = head.flags & !PLAIN_FLAGS == 0
            && header.compression == 0
            && !matches!(header.deadline_us, 0 | u32::MAX)
            && head.id.side() != self.side
            && self.goaway_sent.is_none()
            && !self.is_choked()
            && !self.is_paused()
            && self.credit.calls_in.check(body_len).is_ok();
        if !is_plain || !self.served.run_plain(head.id, self.in_flight_max, body_len, now) {
            return None;
        }
        // Checked above.
        let _charged = self.credit.calls_in.charge(body_len);
        self.counters.requests_taken = self.counters.requests_taken.wrapping_add(1);
        let body = self.take_plain_body(head);
        Some(Event::Request(Request {
            id: RequestId { id: head.id, one_way: None },
            method: header.method,
            in_signature: header.in_signature,
            out_signature: header.out_signature,
            deadline: now + Duration::from_micros(u64::from(header.deadline_us)),
            received: now,
            codec: header.codec,
            priority: header.priority,
            attempt: header.attempt,
            flags: head.flags,
            body,
            extensions: Chunk::empty(),
        }))
    }

    #[inline]
    fn plain_reply(&mut self, head: &Head, header: ReplyHeader) -> Option<Event<T>> {
        let body_len = head.body_len()?;
        if head.flags != 0
            || header.compression != 0
            || self.credit.replies_in.check(body_len).is_err()
        {
            return None;
        }
        let entry = self.calls.find(head.id)?;
        if entry.state != CallState::Waiting {
            return None;
        }
        let ticket = entry.ticket.take()?;
        self.calls.end_plain(head.id.slot());
        self.deadlines.cancel(call_key(head.id.slot()));
        // Checked above; and given back at once, see `reply_frame`.
        let _charged = self.credit.replies_in.charge(body_len);
        self.credit.replies_in.release(body_len);
        self.counters.calls_ended = self.counters.calls_ended.wrapping_add(1);
        let body = self.take_plain_body(head);
        Some(Event::Completed(ticket, Outcome::Reply(Reply { header, body })))
    }

    #[inline]
    fn take_plain_body(&mut self, head: &Head) -> Chunk {
        self.counters.frames_received = self.counters.frames_received.wrapping_add(1);
        let body = self.inbound.take_plain_body(head);
        if body.is_empty() || (body.is_aligned_to(crate::frame::ALIGN) && !self.memory.is_hoarded())
        {
            return body;
        }
        self.settle(body)
    }
}
