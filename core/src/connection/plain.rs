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
use super::{Connection, Event, Outcome, Reply, Request, calls};
use crate::frame::{Kind, ReplyHeader, RequestHeader, request_flags};
use crate::{Instant, MessageId, RequestId};

/// Flags of a request that change nothing here.
const PLAIN_FLAGS: u8 = request_flags::RETRIED | request_flags::IDEMPOTENT;

impl<T> Connection<T> {
    /// The next event: of an ordinary frame if the next one is, else whatever there is.
    #[inline(always)]
    pub(super) fn poll_next(&mut self, now: Instant) -> Option<Event<T>> {
        // Before the other side's HELLO no frame is ordinary, and after the end there is none.
        if !self.events.is_empty() || self.stalled.is_some() || self.copies_bodies {
            return self.poll_any(now);
        }
        let Some(plain) = self.inbound.peek_plain() else { return self.poll_any(now) };
        let Plain { kind, flags, id, header, body_len } = plain;
        if kind == Kind::Request as u8 {
            let RequestHeader { deadline_us, compression, .. } = RequestHeader::decode(header);
            let is_plain = flags & !PLAIN_FLAGS == 0
                && compression == 0
                && !matches!(deadline_us, 0 | u32::MAX)
                && id.side() != self.side
                && self.goaway_sent.is_none()
                && self.parked.is_empty()
                && self.served.one_ways < self.in_flight_max
                // Then it is neither choked nor paused.
                && self.outbound.queued() < self.bounds.queue_soft
                && self.credit.calls_in.has(body_len as usize);
            if !is_plain {
                return self.poll_any(now);
            }
            let Some(slot) = self.served.vacant(id.slot(), self.in_flight_max) else {
                return self.poll_any(now);
            };
            let deadline = now.after_micros(deadline_us);
            slot.run(id, body_len as usize, now, deadline);
            self.credit.calls_in.charge_granted(body_len as usize);
            // Twice, so that what is ordinary is moved once, from the frame to the event.
            if body_len == 0 {
                let (header, body) = self.inbound.take_plain(0);
                return Some(self.plain_request(now, deadline, flags, id, &header, body));
            }
            let (header, body) = self.inbound.take_plain(body_len);
            return Some(self.plain_request(now, deadline, flags, id, &header, body));
        }
        let ReplyHeader { compression, .. } = ReplyHeader::decode(header);
        let is_plain = kind == Kind::Reply as u8
            && flags == 0
            && compression == 0
            && self.credit.replies_in.has(body_len as usize);
        if !is_plain {
            return self.poll_any(now);
        }
        let Some(ticket) = self.calls.plain(id).and_then(calls::Plain::end) else {
            return self.poll_any(now);
        };
        // Given back at once, see `reply_frame`.
        self.credit.replies_in.pass_granted(body_len as usize);
        if body_len == 0 {
            let (header, body) = self.inbound.take_plain(0);
            return Some(self.plain_reply(ticket, &header, body));
        }
        let (header, body) = self.inbound.take_plain(body_len);
        Some(self.plain_reply(ticket, &header, body))
    }

    #[inline(always)]
    fn plain_request(
        &mut self,
        now: Instant,
        deadline: Instant,
        flags: u8,
        id: MessageId,
        header: &[u8; RequestHeader::LEN],
        body: Chunk,
    ) -> Event<T> {
        let header = RequestHeader::decode(header);
        self.counters.requests_taken = self.counters.requests_taken.wrapping_add(1);
        self.counters.frames_received = self.counters.frames_received.wrapping_add(1);
        Event::Request(Request {
            id: RequestId { id, one_way: None },
            method: header.method,
            in_signature: header.in_signature,
            out_signature: header.out_signature,
            deadline,
            received: now,
            codec: header.codec,
            priority: header.priority,
            attempt: header.attempt,
            flags,
            body,
            extensions: Chunk::empty(),
        })
    }

    #[inline(always)]
    fn plain_reply(&mut self, ticket: T, header: &[u8; ReplyHeader::LEN], body: Chunk) -> Event<T> {
        self.counters.calls_ended = self.counters.calls_ended.wrapping_add(1);
        self.counters.frames_received = self.counters.frames_received.wrapping_add(1);
        let header = ReplyHeader::decode(header);
        Event::Completed(ticket, Outcome::Reply(Reply { header, body }))
    }
}
