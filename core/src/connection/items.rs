//! Items of the other side, and the end of its streams: from frames to events.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use alloc::boxed::Box;

use ringcall_buf::Chunk;

use super::assembly::{Arriving, Assembly};
use super::credit::Window;
use super::receive::{Announced, Received, awaits_confirmation, plain_header, split_header};
use super::state::{CallInput, InputInput, ServedInput, ServedState};
use super::stream::{Input, Output};
use super::{BodyTarget, Cancellation, Connection, Event, Item, Reply};
use crate::frame::{
    CancelReason, Credit, CreditUnit, FLAG_CONFIRM, FLAG_MORE, Head, ItemHeader, ReplyHeader,
};
use crate::{
    CallId, Cause, CloseReason, Failure, Instant, MessageId, RequestId, StatusClass, StreamId,
};

impl<T> Connection<T> {
    /// An ITEM frame that is here whole. Its body may continue in DATA frames.
    #[inline]
    pub(super) fn item_frame(&mut self, now: Instant, head: Head, mut frame: Chunk) -> Received<T> {
        if head.flags & FLAG_MORE != 0 {
            return self.first_part(now, head, frame, Self::large_item);
        }
        let (header, extensions) = split_header(&head, &frame, ItemHeader::parse)?;
        let announced = Announced::parse_known(extensions)?;
        let body_len = announced.total(&head, self.message_bytes_max)?;
        let is_own = head.id.side() == self.side;
        self.charge_item(is_own, body_len)?;
        let Some(input) = self.touched_input(now, head.id) else {
            self.release_item(is_own, body_len);
            return self.unwanted(now, head.id, body_len).map(|()| None);
        };
        input.charge(body_len)?;
        self.counters.items_received = self.counters.items_received.wrapping_add(1);
        if !self.config.takes_compression(header.compression) {
            return Err(CloseReason::NotNegotiated);
        }
        frame.advance(usize::from(head.header_len));
        let body = self.settle(frame);
        let item = Item { encoding: header.into(), body, attached: announced.attached() };
        Ok(Some(Event::Item(StreamId(head.id), item)))
    }

    /// Begins an item whose body arrives in parts; `false`, and nothing has happened, if there is no
    /// memory for it now.
    pub(super) fn large_item(
        &mut self,
        now: Instant,
        head: &Head,
        header_bytes: &Chunk,
    ) -> Result<bool, CloseReason> {
        self.body_target = BodyTarget::Nothing;
        let (header, extensions) = split_header(head, header_bytes, ItemHeader::parse)?;
        let announced = Announced::parse_known(extensions)?;
        let total = announced.total(head, self.message_bytes_max)?;
        let body_len = head.body_len().unwrap_or(0);
        let is_own = head.id.side() == self.side;
        let Some(input) = self.touched_input(now, head.id) else {
            self.charge_item(is_own, total)?;
            self.release_item(is_own, total);
            return self.unwanted(now, head.id, body_len).map(|()| true);
        };
        input.check()?;
        if !self.config.takes_compression(header.compression) {
            return Err(CloseReason::NotNegotiated);
        }
        let Some(assembly) = self.assemble_at_last(now, total) else {
            return Ok(false);
        };
        self.charge_item(is_own, total)?;
        let arriving = Arriving::new(header, Some(assembly), total, body_len, &self.memory)
            .with(awaits_confirmation(head), announced.attached());
        if let Some(input) = self.input(head.id) {
            input.charge(total)?;
            input.arriving = Some(Box::new(arriving));
        }
        self.counters.items_received = self.counters.items_received.wrapping_add(1);
        self.body_target = BodyTarget::Item(head.id);
        self.body_begins(now);
        Ok(true)
    }

    /// The last byte of an item that came in parts is here.
    pub(super) fn item_done(&mut self, id: MessageId) -> Option<Event<T>> {
        let arriving = *self.input(id)?.arriving.take()?;
        let body = arriving.assembly.map(Assembly::finish).unwrap_or_default();
        let attached = arriving.attached;
        Some(Event::Item(StreamId(id), Item { encoding: arriving.header.into(), body, attached }))
    }

    /// A REPLY behind which items follow.
    pub(super) fn answering(
        &mut self,
        head: &Head,
        reply: Reply,
        unreadable: Option<Cause>,
    ) -> Received<T> {
        // Nothing but success can be followed by items.
        let is_bare = head.body_len() == Some(0) && head.flags & (FLAG_MORE | FLAG_CONFIRM) == 0;
        if !is_bare || reply.header.status.class() != StatusClass::Ok {
            return Err(CloseReason::BadStream);
        }
        if !self.calls.step(head.id.slot(), CallInput::ItemsBegin) {
            return Err(CloseReason::BadStream);
        }
        // The deadline bounds the time to here.
        if let Some(entry) = self.calls.find(head.id) {
            entry.deadline = Instant::FAR;
        }
        if let Some(cause) = unreadable {
            // Its items would be of no use.
            self.end_own_call(head.id, Failure::unknown(cause));
            return Ok(None);
        }
        let Some(input) = self.input(head.id) else { return Ok(None) };
        input.step(InputInput::Begin);
        Ok(Some(Event::Answering(CallId(head.id), reply)))
    }

    /// The END of a caller: no further items.
    pub(super) fn caller_ends(&mut self, now: Instant, head: &Head, frame: &Chunk) -> Received<T> {
        let header = plain_header(head, frame, ReplyHeader::parse)?;
        if head.body_len() != Some(0) || head.flags & (FLAG_MORE | FLAG_CONFIRM) != 0 {
            return Err(CloseReason::BadLength);
        }
        let Some(input) = self.input(head.id) else {
            return self.unwanted(now, head.id, 0).map(|()| None);
        };
        if !input.step(InputInput::End) {
            return Err(CloseReason::BadStream);
        }
        let is_cut = input.arriving.is_some();
        self.open_inputs = self.open_inputs.saturating_sub(1);
        if header.status.class() == StatusClass::Ok && !is_cut {
            let request = RequestId { id: head.id, one_way: None };
            return Ok(Some(Event::ItemsEnd(request)));
        }
        self.broken_off(now, head.id)
    }

    /// The caller's END says that nobody can use the rest: a CANCEL by another name.
    fn broken_off(&mut self, now: Instant, id: MessageId) -> Received<T> {
        let times = self.served.find(id).map(|slot| (slot.received, slot.deadline));
        self.count_cancel(now, CancelReason::Dropped, times)?;
        self.counters.requests_cancelled = self.counters.requests_cancelled.wrapping_add(1);
        self.stop_streams(id);
        let is_running = self.served.step(id.slot(), ServedInput::Cancel);
        let id = RequestId { id, one_way: None };
        let event = Event::Cancelled(id, Cancellation::Caller(CancelReason::Dropped));
        Ok(is_running.then_some(event))
    }

    /// Credit for one stream of this side.
    pub(super) fn stream_granted(
        &mut self,
        now: Instant,
        id: MessageId,
        credit: &Credit,
    ) -> Result<(), CloseReason> {
        if credit.amount == 0 {
            return Err(CloseReason::BadCredit);
        }
        let Some(output) = self.touched_output(now, id) else {
            // The end of the call and the credit crossed.
            return match self.is_last(id) {
                true => Ok(()),
                false => self.ignore(now, 0),
            };
        };
        match credit.unit {
            CreditUnit::Bytes => output.grant_bytes(credit.amount)?,
            CreditUnit::Items => output.grant_items(credit.amount)?,
            CreditUnit::Requests => return Err(CloseReason::NotNegotiated),
        }
        if !bug!("lost_writable") {
            self.wake(id);
        }
        Ok(())
    }

    // ---- credit of what is received ----

    /// The application no longer holds some items.
    pub(super) fn items_consumed(&mut self, stream: StreamId, items: usize, bytes: usize) {
        if self.ending.is_some() {
            return;
        }
        let id = stream.0;
        self.release_items(id.side() == self.side, items, bytes);
        let input = self.streams(id).and_then(|streams| streams.input.as_mut());
        if input.is_some_and(|input| input.release(items, bytes)) {
            self.control.grants.push_back(id);
            self.control.has_stream_credit = true;
        }
    }

    /// What an item is charged to: bytes, and the number of items.
    fn item_windows(&mut self, is_own: bool) -> (&mut Window, &mut Window) {
        match is_own {
            true => (&mut self.credit.replies_in, &mut self.credit.reply_items_in),
            false => (&mut self.credit.calls_in, &mut self.credit.call_items_in),
        }
    }

    fn charge_item(&mut self, is_own: bool, bytes: usize) -> Result<(), CloseReason> {
        let (pool, items) = self.item_windows(is_own);
        pool.charge(bytes)?;
        items.charge(1)?;
        self.note_item_credit();
        Ok(())
    }

    /// Credit in items falls due by what is taken, too, and not only by what is given back: when little is left,
    /// somebody may wait for what is kept back.
    #[inline]
    pub(super) fn note_item_credit(&mut self) {
        let super::Credit { call_items_in, reply_items_in, .. } = &self.credit;
        let is_due = call_items_in.is_grant_due() || reply_items_in.is_grant_due();
        self.control.has_stream_credit |= is_due;
    }

    pub(super) fn release_item(&mut self, is_own: bool, bytes: usize) {
        self.release_items(is_own, 1, bytes);
    }

    fn release_items(&mut self, is_own: bool, items: usize, bytes: usize) {
        let (pool, counted) = self.item_windows(is_own);
        pool.release_at_most(bytes);
        counted.release_at_most(items);
        self.note_item_credit();
    }

    // ---- what nobody wants ----

    fn input(&mut self, id: MessageId) -> Option<&mut Input> {
        let is_served = id.side() != self.side;
        if is_served && self.served.find(id)?.state == ServedState::Receiving {
            // Before the end of its argument a call has no items.
            return None;
        }
        self.streams(id)?.input.as_mut()
    }

    /// The same, of a stream in which something happens.
    fn touched_input(&mut self, now: Instant, id: MessageId) -> Option<&mut Input> {
        self.streams(id)?.touched = now;
        self.input(id)
    }

    fn touched_output(&mut self, now: Instant, id: MessageId) -> Option<&mut Output> {
        let streams = self.streams(id)?;
        streams.touched = now;
        streams.output.as_mut()
    }

    /// A frame of a stream that this side does not read: legal as long as its sender may not know yet.
    fn unwanted(&mut self, now: Instant, id: MessageId, len: usize) -> Result<(), CloseReason> {
        if self.take_late(id, len) {
            return Ok(());
        }
        match self.is_last(id) {
            true => Err(CloseReason::BadStream),
            false => self.ignore(now, len),
        }
    }

    /// Whether a frame may still come for a call whose streams are over, and counts it.
    pub(super) fn take_late(&mut self, id: MessageId, len: usize) -> bool {
        let late = match id.side() == self.side {
            true => self.calls.last(id).map(|entry| &mut entry.late),
            false => self.served.late(id),
        };
        let bytes = (len as u64).saturating_add(Head::LEN as u64);
        let Some(late) = late.filter(|late| late.id == id) else { return false };
        let Some(left) = late.bytes.checked_sub(bytes).filter(|_| !bug!("late_items_accused"))
        else {
            return false;
        };
        late.bytes = left;
        self.counters.bytes_ignored = self.counters.bytes_ignored.wrapping_add(len as u64);
        true
    }

    /// Whether a slot has this call, or had it last.
    fn is_last(&mut self, id: MessageId) -> bool {
        match id.side() == self.side {
            true => self.calls.last(id).is_some(),
            false => self.served.last(id).is_some(),
        }
    }
}
