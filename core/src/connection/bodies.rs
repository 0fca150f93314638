//! Bodies that arrive in parts: DATA frames, and the parts of large frames.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects
)]

use ringcall_buf::{Chunk, ChunkMut};

use super::assembly::Assembly;
use super::floods::SMALL_PART;
use super::receive::{Received, plain_header};
use super::state::ServedInput;
use super::{BodyTarget, Connection, Event};
use crate::frame::{DataHeader, Head};
use crate::{CloseReason, Instant, MessageId};

impl<T> Connection<T> {
    /// A DATA frame that is here whole.
    pub(super) fn data_frame(&mut self, now: Instant, head: Head, frame: &Chunk) -> Received<T> {
        self.data(now, &head, frame)?;
        let header_len = usize::from(head.header_len);
        Ok(self.part(now, frame.get(header_len..).unwrap_or_default()))
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
        arriving.announce(header.offset, len, now)?;
        let is_small = len < SMALL_PART && !arriving.is_announced();
        if arriving.assembly.is_some() {
            self.body_target = BodyTarget::Reply(id);
            return if is_small { self.count_small_part(now) } else { Ok(()) };
        }
        if arriving.is_announced() {
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
        arriving.announce(header.offset, len, now)?;
        let is_small = len < SMALL_PART && !arriving.is_announced();
        if arriving.assembly.is_some() {
            self.body_target = BodyTarget::Request(id);
            return if is_small { self.count_small_part(now) } else { Ok(()) };
        }
        if arriving.is_announced() {
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
        let input = self.streams(id).and_then(|streams| streams.input.as_mut());
        if let Some(arriving) = input.and_then(|input| input.arriving.as_mut()) {
            let announced = arriving.announce(header.offset, len, now);
            self.body_target = BodyTarget::Item(id);
            return Some(announced);
        }
        self.take_late(id, len).then_some(Ok(()))
    }

    /// Bytes of a body whose frame was announced.
    pub(super) fn part(&mut self, now: Instant, part: &[u8]) -> Option<Event<T>> {
        let assembly = self.body_assembly()?;
        assembly.extend(part);
        self.counters.copied_straddle =
            self.counters.copied_straddle.wrapping_add(part.len() as u64);
        self.body_done(now)
    }

    /// The same, when the transport has put them into the body's own memory.
    pub(super) fn body_landed(&mut self, now: Instant, buffer: ChunkMut, n: usize) {
        // The call may be gone; then the buffer ends here.
        if let Some(assembly) = self.body_assembly() {
            assembly.restore(buffer);
        }
        if !self.inbound.body_landed(n) {
            return self.fail(now, CloseReason::BadLength);
        }
        if let Some(event) = self.body_done(now) {
            self.events.push_back(event);
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
        if !self.body_assembly()?.is_complete() {
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
