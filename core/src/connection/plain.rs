//! The ordinary case: a request or reply that is here whole, without extensions, and of which nothing is
//! unusual. It is recognised by looking only; anything else is left as it lies and goes the general way,
//! which also finds out what is wrong with it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use ringcall_buf::Chunk;

use super::inbound::Plain;
use super::{Connection, Event, Outcome, Reply, Request, call_key};
use crate::frame::{Kind, ReplyHeader, RequestHeader, request_flags};
use crate::{Instant, RequestId};

/// Flags of a request that change nothing here.
const PLAIN_FLAGS: u8 = request_flags::RETRIED | request_flags::IDEMPOTENT;

impl<T> Connection<T> {
    /// The event of an ordinary frame; `None`, and nothing has happened, if the next frame is not one.
    #[inline(always)]
    pub(super) fn poll_plain(&mut self, now: Instant) -> Option<Event<T>> {
        // Before the other side's HELLO no frame is ordinary, and after the end there is none.
        // Bodies are not copied here: see `settle`.
        if !self.events.is_empty()
            || !self.parked.is_empty()
            || self.stalled.is_some()
            || self.memory.is_hoarded()
        {
            return None;
        }
        let Plain { head, header, body_len, frame_len } = self.inbound.peek_plain()?;
        let slot = head.id.slot();
        if head.kind == Kind::Request as u8 {
            let header = RequestHeader::decode(header);
            let is_plain = head.flags & !PLAIN_FLAGS == 0
                && header.compression == 0
                && !matches!(header.deadline_us, 0 | u32::MAX)
                && head.id.side() != self.side
                && self.goaway_sent.is_none()
                && !self.is_choked()
                && !self.is_paused()
                && self.served.is_vacant(slot, self.in_flight_max);
            if !is_plain || !self.credit.calls_in.try_charge(body_len) {
                return None;
            }
            let deadline = now.after_micros(header.deadline_us);
            self.served.run_plain(head.id, body_len, now, deadline);
            self.counters.requests_taken = self.counters.requests_taken.wrapping_add(1);
            Some(Event::Request(Request {
                id: RequestId { id: head.id, one_way: None },
                method: header.method,
                in_signature: header.in_signature,
                out_signature: header.out_signature,
                deadline,
                received: now,
                codec: header.codec,
                compression: 0,
                priority: header.priority,
                attempt: header.attempt,
                flags: head.flags,
                body: self.take_plain_body(frame_len, body_len),
                extensions: Chunk::empty(),
            }))
        } else if head.kind == Kind::Reply as u8 {
            let header = ReplyHeader::decode(header);
            let is_plain = head.flags == 0
                && header.compression == 0
                && self.credit.replies_in.check(body_len).is_ok();
            if !is_plain {
                return None;
            }
            let ticket = self.calls.end_plain(head.id)?;
            self.deadlines.cancel(call_key(slot));
            // Checked above; and given back at once, see `reply_frame`.
            let _passed = self.credit.replies_in.try_pass(body_len);
            self.counters.calls_ended = self.counters.calls_ended.wrapping_add(1);
            let body = self.take_plain_body(frame_len, body_len);
            let reply = Reply { header, body, extensions: Chunk::empty() };
            Some(Event::Completed(ticket, Outcome::Reply(reply)))
        } else {
            None
        }
    }

    #[inline(always)]
    fn take_plain_body(&mut self, frame_len: usize, body_len: usize) -> Chunk {
        self.counters.frames_received = self.counters.frames_received.wrapping_add(1);
        self.inbound.take_plain_body(frame_len, body_len)
    }
}
