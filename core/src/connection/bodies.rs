//! Bodies that arrive in parts: DATA frames, and the parts of large frames.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use ringcall_buf::{Chunk, ChunkMut, ObjectError};

use super::assembly::{Arriving, Assembly, Write, Written};
use super::outbound::Part;
use super::receive::{Received, plain_header};
use super::state::{ServedInput, ServedState};
use super::{BodyTarget, Cancellation, Connection, Event};
use crate::frame::{CancelReason, DataHeader, Head, Kind};
use crate::{Cause, CloseReason, Failure, Instant, MessageId, RequestId, Status};

impl<T> Connection<T> {
    /// A DATA frame that is here whole.
    pub(super) fn data_frame(&mut self, now: Instant, head: Head, mut frame: Chunk) -> Received<T> {
        self.data(now, &head, &frame)?;
        frame.advance(usize::from(head.header_len));
        Ok(self.part(now, frame))
    }

    /// A DATA frame's header: finds its body, and checks that it continues it.
    pub(super) fn data(
        &mut self,
        now: Instant,
        head: &Head,
        frame: &Chunk,
    ) -> Result<(), CloseReason> {
        let header = plain_header(head, frame, DataHeader::parse)?;
        let len = head.body_len().unwrap_or(0);
        self.body_target = BodyTarget::Nothing;
        if head.id.side() == self.side {
            self.reply_data(now, head.id, header, len)
        } else {
            self.request_data(now, head.id, header, len)
        }
    }

    fn reply_data(
        &mut self,
        now: Instant,
        id: MessageId,
        header: DataHeader,
        len: usize,
    ) -> Result<(), CloseReason> {
        if let Some(known) = self.item_data(now, id, header, len) {
            return known;
        }
        let Some(entry) = self.calls.find(id) else { return self.ignore(now, len) };
        let Some(arriving) = &mut entry.arriving else { return Err(CloseReason::BadLength) };
        arriving.announce(header.offset, len)?;
        let is_small = arriving.is_small(len);
        let (is_wanted, is_announced) = (arriving.assembly.is_some(), arriving.is_announced());
        self.count_if_small(now, is_small)?;
        if is_wanted {
            self.body_target = BodyTarget::Reply(id);
            return Ok(());
        }
        if is_announced {
            self.ignored_reply_ends(id);
        }
        self.count_ignored(len);
        Ok(())
    }

    fn request_data(
        &mut self,
        now: Instant,
        id: MessageId,
        header: DataHeader,
        len: usize,
    ) -> Result<(), CloseReason> {
        let Some(slot) = self.served.find(id).filter(|slot| slot.arriving.is_some()) else {
            // No item begins before the argument is here.
            if let Some(known) = self.item_data(now, id, header, len) {
                return known;
            }
            // Its call was cancelled or answered meanwhile.
            return match self.served.find(id) {
                None => self.ignore(now, len),
                Some(_) => Err(CloseReason::BadLength),
            };
        };
        let Some(arriving) = &mut slot.arriving else { return Err(CloseReason::BadLength) };
        arriving.announce(header.offset, len)?;
        let is_small = arriving.is_small(len);
        let (is_wanted, is_announced) = (arriving.assembly.is_some(), arriving.is_announced());
        self.count_if_small(now, is_small)?;
        if is_wanted {
            self.body_target = BodyTarget::Request(id);
            return Ok(());
        }
        if is_announced {
            self.served.step(id.slot(), ServedInput::BodyEnds);
        }
        self.count_ignored(len);
        Ok(())
    }

    /// A part of an item that is arriving, or of one that nobody wants any more.
    fn item_data(
        &mut self,
        now: Instant,
        id: MessageId,
        header: DataHeader,
        len: usize,
    ) -> Option<Result<(), CloseReason>> {
        if let Some(streams) = self.streams(id)
            && let Some(arriving) = streams.input.as_mut().and_then(|input| input.arriving.as_mut())
        {
            streams.touched = now;
            let announced = arriving.announce(header.offset, len);
            let is_small = arriving.is_small(len);
            self.body_target = BodyTarget::Item(id);
            return Some(announced.and_then(|()| self.count_if_small(now, is_small)));
        }
        self.take_late(id, len).then_some(Ok(()))
    }

    /// Bytes of a body whose frame was announced.
    pub(super) fn part(&mut self, now: Instant, part: Chunk) -> Option<Event<T>> {
        if !part.is_empty() {
            self.watch.bodies = now;
        }
        let owner = match self.body_target {
            BodyTarget::Nothing => return None,
            BodyTarget::Request(id) | BodyTarget::Reply(id) | BodyTarget::Item(id) => id.to_wire(),
        };
        let (copied, write) = self.body_assembly()?.extend(part, owner);
        self.counters.copied_straddle = self.counters.copied_straddle.wrapping_add(copied as u64);
        if let Some(write) = write {
            self.writes_bytes = self.writes_bytes.saturating_add(write.bytes.len());
            self.writes.push_back(write);
        }
        self.body_done(now)
    }

    // ---- landing elsewhere ----

    /// The next bytes that go to an object. Whoever takes them writes them, and then says so.
    pub(super) fn next_write(&mut self) -> Option<Write> {
        self.writes.pop_front()
    }

    pub(super) fn write_done(&mut self, written: Written) {
        let Written { owner, len, result } = written;
        self.writes_bytes = self.writes_bytes.saturating_sub(len);
        let id = MessageId::from_wire(owner);
        // Its call may be over for its caller.
        let arriving = self.calls.find(id).and_then(|entry| entry.arriving.as_mut());
        let Some(arriving) = arriving else { return };
        let Some(assembly) = &mut arriving.assembly else { return };
        assembly.written();
        let failure = result.err().or_else(|| assembly.failure());
        if result.is_ok() {
            self.counters.landed_in_files = self.counters.landed_in_files.wrapping_add(len as u64);
        }
        if let Some(error) = failure {
            self.landing_failed(id, error);
        } else if arriving.is_complete() {
            self.leave_body(BodyTarget::Reply(id));
            if let Some(event) = self.reply_done(id) {
                self.ahead.push(event);
            }
        }
    }

    /// What a reply brings cannot be written: that ends its call here, and the rest is ignored. It ends when
    /// nothing is written any more, so that its caller may use the place for something else. (Not so where a
    /// call ends for another reason: a disk that does not answer must hold up neither deadlines nor cancels.)
    pub(super) fn landing_failed(&mut self, id: MessageId, error: ObjectError) {
        let dropped = self.drop_writes(id);
        let arriving = self.calls.find(id).and_then(|entry| entry.arriving.as_mut());
        let assembly = arriving.and_then(|arriving| arriving.assembly.as_mut());
        let error = match assembly {
            Some(assembly) => assembly.unwritable(error, dropped),
            None => Some(error),
        };
        if let Some(error) = error {
            self.end_own_call(id, Failure::unknown(Cause::Unwritable(error)));
        }
    }

    /// Forgets the writes of a call that nobody has taken yet; says how many there were.
    pub(super) fn drop_writes(&mut self, id: MessageId) -> u32 {
        let (owner, before) = (id.to_wire(), self.writes.len());
        let bytes = &mut self.writes_bytes;
        self.writes.retain(|write| {
            let is_kept = write.owner != owner;
            *bytes = bytes.saturating_sub(if is_kept { 0 } else { write.bytes.len() });
            is_kept
        });
        before.saturating_sub(self.writes.len()) as u32
    }

    pub(super) fn end_own_call(&mut self, id: MessageId, failure: Failure) {
        let Some(entry) = self.calls.find(id) else { return };
        let ticket = entry.ticket.take();
        self.give_up(None, id, CancelReason::Dropped);
        self.complete(ticket, failure);
    }

    // ---- bodies that cannot be sent to their end ----

    /// The transport could not read a range, and sends zeros in its place: the body must not count.
    pub(super) fn range_unreadable(&mut self, owner: u64, error: ObjectError) {
        let id = MessageId::from_wire(owner);
        let Some((part, kind)) = self.outbound.abandon_unreadable(id) else { return };
        self.counters.bodies_unreadable = self.counters.bodies_unreadable.wrapping_add(1);
        match part {
            // Nobody has seen the argument.
            Part::Request => self.end_own_call(id, Failure::refused(Cause::Unreadable(error))),
            Part::Item if id.side() == self.side => {
                self.end_own_call(id, Failure::unknown(Cause::Unreadable(error)));
            }
            Part::Item => self.item_unreadable(id),
            Part::Reply => self.answer_void(id, kind),
        }
    }

    /// An item of an answer: its handler is told, unless it has answered already.
    fn item_unreadable(&mut self, id: MessageId) {
        let state = self.served.find(id).map(|slot| slot.state);
        match state {
            Some(ServedState::Running | ServedState::Streaming) => {
                self.stop_streams(id);
                self.served.step(id.slot(), ServedInput::Cancel);
                let request = RequestId { id, one_way: None };
                self.ahead.push(Event::Cancelled(request, Cancellation::Unreadable));
            }
            Some(ServedState::Replying) => {
                self.stop_streams(id);
                self.answer_void(id, Kind::End);
            }
            _ => {}
        }
    }

    fn answer_void(&mut self, id: MessageId, kind: Kind) {
        self.served.step(id.slot(), ServedInput::ReplyLast);
        self.send_terminal(kind, id, Status::REPLY_FAILED);
    }

    /// The same, when the transport has put them into the body's own memory.
    pub(super) fn body_landed(&mut self, now: Instant, buffer: ChunkMut, n: usize) {
        if n > 0 {
            self.watch.bodies = now;
        }
        // The call may be gone; then the buffer ends here.
        if let Some(assembly) = self.body_assembly() {
            assembly.restore(buffer);
        }
        if !self.inbound.body_landed(n) {
            return self.fail(now, CloseReason::BadLength);
        }
        if let Some(event) = self.body_done(now) {
            self.ahead.push(event);
        }
    }

    /// Nobody wants this body any more: what still arrives of it is ignored.
    pub(super) fn leave_body(&mut self, target: BodyTarget) {
        if self.body_target == target {
            self.body_target = BodyTarget::Nothing;
        }
    }

    /// Where the bytes of the body that is arriving go; `None` if they are ignored.
    pub(super) fn body_assembly(&mut self) -> Option<&mut Assembly> {
        match self.body_target {
            BodyTarget::Nothing => None,
            BodyTarget::Request(id) => self.served.find(id)?.arriving.as_mut()?.assembly.as_mut(),
            BodyTarget::Reply(id) => self.calls.find(id)?.arriving.as_mut()?.assembly.as_mut(),
            BodyTarget::Item(id) => {
                self.streams(id)?.input.as_mut()?.arriving.as_mut()?.assembly.as_mut()
            }
        }
    }

    /// If the body that is arriving is complete, what follows from it.
    fn body_done(&mut self, now: Instant) -> Option<Event<T>> {
        let is_complete = match self.body_target {
            BodyTarget::Nothing => false,
            BodyTarget::Request(id) => is_complete(self.served.find(id)?.arriving.as_deref()),
            BodyTarget::Reply(id) => is_complete(self.calls.find(id)?.arriving.as_deref()),
            BodyTarget::Item(id) => {
                is_complete(self.streams(id)?.input.as_ref()?.arriving.as_deref())
            }
        };
        if !is_complete {
            return None;
        }
        match core::mem::replace(&mut self.body_target, BodyTarget::Nothing) {
            BodyTarget::Nothing => None,
            BodyTarget::Reply(id) => self.reply_done(id),
            BodyTarget::Request(id) => self.request_done(now, id),
            BodyTarget::Item(id) => self.item_done(id),
        }
    }

    /// Counts bytes that are ignored through no fault of their sender.
    fn count_ignored(&mut self, len: usize) {
        self.counters.bytes_ignored = self.counters.bytes_ignored.wrapping_add(len as u64);
    }
}

fn is_complete<H>(arriving: Option<&Arriving<H>>) -> bool {
    arriving.is_some_and(Arriving::is_complete)
}
