//! The ordinary case: a request, a reply or an item that is here whole, without extensions, and of which nothing is
//! unusual. It is recognised by looking only; anything else is left as it lies and goes the general way,
//! which also finds out what is wrong with it.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use ringcall_buf::Chunk;

use super::inbound::{NotPlain, Plain};
use super::state::ServedState;
use super::{Connection, Event, Item, Outcome, Reply, Request};
use crate::frame::{ItemHeader, Kind, ReplyHeader, RequestHeader, Shape, request_flags};
use crate::{Attached, Instant, MessageId, RequestId, StreamId};

/// Flags of a request that change nothing here.
const PLAIN_FLAGS: u8 = request_flags::RETRIED | request_flags::IDEMPOTENT;

/// What ordinary frames look like.
const REQUEST: Shape = Shape::new(Kind::Request, 0, RequestHeader::LEN as u16);
const REPLY: Shape = Shape::new(Kind::Reply, 0, ReplyHeader::LEN as u16);
const ITEM: Shape = Shape::new(Kind::Item, 0, ItemHeader::LEN as u16);

impl<T> Connection<T> {
    /// The next event: of an ordinary frame if the next one is, else whatever there is. `give` is in the caller's
    /// code, so that an event is made where it is wanted: it is large to pass on.
    #[inline(always)]
    pub(crate) fn poll_next<R>(
        &mut self,
        now: Instant,
        give: impl FnOnce(Option<Event<T>>) -> R,
    ) -> R {
        // Before the other side's HELLO no frame is ordinary, and after the end there is none.
        if self.ahead.is_any() {
            return match self.ahead.lets_items_pass() {
                true => give(self.poll_item(now)),
                false => give(self.poll_any(now)),
            };
        }
        let Plain { shape, id, frame } = match self.inbound.peek_plain() {
            Ok(plain) => plain,
            Err(why) => {
                return match why == NotPlain::AtRest && self.is_at_rest() {
                    true => give(None),
                    false => give(self.poll_item(now)),
                };
            }
        };
        let body_len = frame.body_len() as usize;
        if shape.without(PLAIN_FLAGS) == REQUEST {
            let header = || RequestHeader::decode(frame.header());
            let is_plain = header().compression == 0
                && !matches!(header().deadline_us, 0 | u32::MAX)
                && id.side() != self.side
                && self.credit.calls_in.has(body_len)
                // Then it is neither choked nor paused.
                && self.outbound.queued() < self.bounds.queue_soft
                && self.served.one_ways < self.in_flight_max;
            let slot = match is_plain {
                true => self.served.vacant(id.slot(), self.in_flight_max),
                false => None,
            };
            let Some(slot) = slot else {
                return give(self.poll_any(now));
            };
            let (deadline, flags) = (now.after_micros(header().deadline_us), shape.flags());
            self.credit.calls_in.charge_granted(body_len);
            // Twice, so that what is ordinary is moved once, from the frame to the event.
            if body_len == 0 {
                let (header, _) = frame.cut();
                slot.run(id, 0, now, deadline);
                self.served.began_plain();
                let body = Chunk::empty();
                return give(Some(self.plain_request(now, deadline, flags, id, &header, body)));
            }
            let (header, body) = frame.cut();
            slot.run(id, body_len, now, deadline);
            self.served.began_plain();
            return give(Some(self.plain_request(now, deadline, flags, id, &header, body)));
        }
        let ReplyHeader { compression, .. } = ReplyHeader::decode(frame.header());
        let is_plain = shape == REPLY && compression == 0 && self.credit.replies_in.has(body_len);
        let ticket = match is_plain {
            true => self.calls.end_plain(id),
            false => None,
        };
        let Some(ticket) = ticket else {
            return give(self.poll_any(now));
        };
        // Given back at once, see `reply_frame`.
        self.credit.replies_in.pass_granted(body_len);
        if body_len == 0 {
            let (header, _) = frame.cut();
            return give(Some(self.plain_reply(ticket, &header, Chunk::empty())));
        }
        let (header, body) = frame.cut();
        give(Some(self.plain_reply(ticket, &header, body)))
    }

    /// The next event: an ordinary item if the next frame is one, else whatever there is.
    #[inline(never)]
    fn poll_item(&mut self, now: Instant) -> Option<Event<T>> {
        let mut found = None;
        self.plain_items(now, None, 1, |id, item| found = Some(Event::Item(StreamId(id), item)));
        if found.is_none() {
            found = self.poll_any(now);
        }
        found
    }

    /// Takes ordinary items as long as they are in front, at most `max`: of one stream, or of that of the
    /// first. Returns how many.
    #[inline]
    pub(super) fn plain_items(
        &mut self,
        now: Instant,
        of: Option<MessageId>,
        max: u32,
        mut take: impl FnMut(MessageId, Item),
    ) -> u32 {
        if !self.parked.is_empty() || self.is_paused() {
            return 0;
        }
        let mut taken = 0;
        while taken < max && self.plain_item_of(now, of, &mut take).is_some() {
            taken = taken.saturating_add(1);
        }
        let n = u64::from(taken);
        if taken > 0 {
            self.note_item_credit();
        }
        self.counters.items_received = self.counters.items_received.wrapping_add(n);
        self.counters.frames_received = self.counters.frames_received.wrapping_add(n);
        taken
    }

    #[inline(always)]
    fn plain_item_of(
        &mut self,
        now: Instant,
        of: Option<MessageId>,
        take: &mut impl FnMut(MessageId, Item),
    ) -> Option<()> {
        let Plain { shape, id, frame } = self.inbound.peek_plain().ok()?;
        if of.is_some_and(|of| of != id) {
            return None;
        }
        let ItemHeader { compression, .. } = ItemHeader::decode(frame.header());
        if shape != ITEM || compression != 0 {
            return None;
        }
        let credit = &mut self.credit;
        let (streams, bytes, items) = if id.side() == self.side {
            let streams = self.calls.find(id)?.streams.as_deref_mut();
            (streams, &mut credit.replies_in, &mut credit.reply_items_in)
        } else {
            let slot = self.served.find(id).filter(|slot| slot.state != ServedState::Receiving);
            (slot?.streams.as_deref_mut(), &mut credit.calls_in, &mut credit.call_items_in)
        };
        let streams = streams?;
        let input = streams.input.as_mut()?;
        let len = frame.body_len() as usize;
        if input.check().is_err() || !bytes.has(len) || !items.has(1) {
            return None;
        }
        input.spend(len);
        streams.touched = now;
        bytes.charge_granted(len);
        items.charge_granted(1);
        let (header, body) = frame.cut();
        let encoding = ItemHeader::decode(&header).into();
        take(id, Item { encoding, body, attached: Attached::Nothing });
        Some(())
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
            compression: header.compression,
            priority: header.priority,
            attempt: header.attempt,
            flags,
            body,
            attached: Attached::Nothing,
            extensions: Chunk::empty(),
        })
    }

    #[inline(always)]
    fn plain_reply(&mut self, ticket: T, header: &[u8; ReplyHeader::LEN], body: Chunk) -> Event<T> {
        self.counters.calls_ended = self.counters.calls_ended.wrapping_add(1);
        self.counters.frames_received = self.counters.frames_received.wrapping_add(1);
        let header = ReplyHeader::decode(header);
        let attached = Attached::Nothing;
        let reply = Reply { header, body, attached, extensions: Chunk::empty() };
        Event::Completed(ticket, Outcome::Reply(reply))
    }
}
