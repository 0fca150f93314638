//! Bodies that arrive in parts.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;
use core::time::Duration;

use ringcall_buf::{Chunk, ChunkMut, External, Object, ObjectError, Reservation};

use super::floods::SMALL_PART;
use crate::record::Input;
use crate::{Attached, CloseReason, Instant, Memory};

/// A request or reply whose body arrives in parts. All of its length is charged when it begins.
#[derive(Debug)]
pub(super) struct Arriving<H> {
    /// All but the body.
    pub(super) header: H,
    /// Absent if nobody wants the body: it is ignored as it arrives.
    pub(super) assembly: Option<Assembly>,
    /// Body bytes that are charged for it and were not given back.
    pub(super) charged: usize,
    total: u64,
    /// How many bytes of the body frames have announced so far: where the next DATA must continue.
    announced: u64,
    /// It counts only when its sender has confirmed it.
    awaits_confirmation: bool,
    /// What of it is beside the message.
    pub(super) attached: Attached,
    /// This itself: also a body that is ignored is remembered until its last byte is here.
    _reserved: Reservation,
}

impl<H> Arriving<H> {
    pub(super) fn new(
        header: H,
        assembly: Option<Assembly>,
        total: usize,
        first: usize,
        memory: &Memory,
    ) -> Arriving<H> {
        let announced = first as u64;
        Arriving {
            header,
            assembly,
            charged: total,
            total: total as u64,
            announced,
            awaits_confirmation: false,
            attached: Attached::Nothing,
            _reserved: memory.pool().reserve(size_of::<Arriving<H>>()),
        }
    }

    /// The same of a body that its sender must confirm, or a part of which is beside the message.
    pub(super) fn with(mut self, awaits_confirmation: bool, attached: Attached) -> Arriving<H> {
        self.awaits_confirmation = awaits_confirmation;
        self.attached = attached;
        self
    }

    /// A frame's head says that `len` bytes follow, at `offset`.
    pub(super) fn announce(&mut self, offset: u64, len: usize) -> Result<(), CloseReason> {
        if len == 0 && !(self.awaits_confirmation && self.is_all()) {
            return Err(CloseReason::BadLength);
        }
        if offset != self.announced && !bug!("b10") {
            return Err(CloseReason::DataOutOfOrder);
        }
        let end = self.announced.checked_add(len as u64).filter(|&end| end <= self.total);
        self.announced = end.ok_or(CloseReason::BadLength)?;
        self.awaits_confirmation &= len > 0;
        Ok(())
    }

    /// Whether a part of this length, which was just announced, is hardly more than its head, and not the last.
    pub(super) fn is_small(&self, len: usize) -> bool {
        len < SMALL_PART && !self.is_all()
    }

    /// Whether all of the body has been announced, its confirmation perhaps not.
    pub(super) fn is_all(&self) -> bool {
        self.announced == self.total
    }

    /// Whether the body's last frame has been announced.
    pub(super) fn is_announced(&self) -> bool {
        self.is_all() && !self.awaits_confirmation
    }

    /// Whether the body is here whole, and counts.
    pub(super) fn is_complete(&self) -> bool {
        self.is_announced() && self.assembly.as_ref().is_some_and(Assembly::is_complete)
    }

    /// Its memory, unless nobody wants it.
    pub(super) fn assembly(&self) -> Option<&Assembly> {
        self.assembly.as_ref()
    }

    /// Nobody wants the body any more: returns what is charged for it, to be given back.
    pub(super) fn ignore(&mut self) -> usize {
        self.assembly = None;
        core::mem::take(&mut self.charged)
    }
}

/// A body whose length is known and whose bytes are still arriving, in memory of the right size.
///
/// Its memory is taken when its first part arrives, within the shard's landing budget. The pages of a
/// fresh block are touched only as bytes arrive, so announcing much costs the other side as many
/// bytes as it costs us.
#[derive(Debug)]
pub(super) struct Assembly {
    /// Absent while the transport receives into it.
    buffer: Option<ChunkMut>,
    /// How much of the body is kept in memory, and how much of that has arrived.
    total: usize,
    arrived: usize,
    began: Instant,
    /// Where the rest goes.
    landing: Option<Box<Landing>>,
    memory: Memory,
    siblings: Siblings,
}

/// The end of a body, which goes to an object.
#[derive(Debug)]
struct Landing {
    /// Where what is still to come will be.
    range: External,
    /// Writes that are not done.
    writes: u32,
    /// Why it cannot be written.
    failure: Option<ObjectError>,
}

/// Bytes of a body that go to an object, from where they were received.
#[derive(Debug)]
pub struct Write {
    /// Whose they are; comes back with what has become of them.
    pub(crate) owner: u64,
    /// Where they go.
    pub object: Arc<dyn Object>,
    /// To which offset there.
    pub offset: u64,
    /// What is written.
    pub bytes: Chunk,
}

impl Write {
    /// Bytes that go to the beginning of a range.
    #[must_use]
    pub fn new(range: &External, bytes: Chunk) -> Write {
        let (object, offset) = (Arc::clone(range.object()), range.offset());
        Write { owner: range.owner(), object, offset, bytes }
    }

    /// Says what has become of it.
    #[must_use]
    pub fn done(&self, result: Result<(), ObjectError>) -> Written {
        Written { owner: self.owner, len: self.bytes.len(), result }
    }
}

/// What has become of a [`Write`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Written {
    pub(crate) owner: u64,
    pub(crate) len: usize,
    pub(crate) result: Result<(), ObjectError>,
}

impl Written {
    /// As a record has it.
    pub(super) fn input(&self) -> Input<'static> {
        let Written { owner, len, result } = *self;
        Input::Written { owner, len, result }
    }
}

/// How many bodies are arriving on a connection.
#[derive(Clone, Debug, Default)]
pub(super) struct Siblings(Rc<Cell<u32>>);

impl Siblings {
    pub(super) fn any(&self) -> bool {
        self.0.get() > 0
    }
}

impl Assembly {
    /// `None` if the landing budget does not allow it now, see [`Memory::land_begin`].
    pub(super) fn begin(
        now: Instant,
        total: usize,
        memory: &Memory,
        siblings: &Siblings,
        must: bool,
    ) -> Option<Assembly> {
        let buffer = Some(memory.land_begin(total, must || siblings.any())?);
        siblings.0.set(siblings.0.get().saturating_add(1));
        let (memory, siblings) = (memory.clone(), siblings.clone());
        Some(Assembly { buffer, total, arrived: 0, began: now, landing: None, memory, siblings })
    }

    /// By when more of it must be here if all of it may take so long.
    pub(super) fn due(&self, whole: Duration) -> Instant {
        if self.arrived == self.total {
            // What is left of the body goes elsewhere.
            return Instant::FAR;
        }
        let nanos = whole.as_nanos() * self.arrived as u128 / self.total as u128;
        self.began + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// What lies behind the first part of the body goes to this range, which is as long.
    pub(super) fn land_rest(&mut self, range: External) {
        self.landing = Some(Box::new(Landing { range, writes: 0, failure: None }));
    }

    /// Bytes that were announced arrive. How many were copied, and what is to be written elsewhere.
    pub(super) fn extend(&mut self, mut part: Chunk, owner: u64) -> (usize, Option<Write>) {
        let Some(buffer) = &mut self.buffer else { return (0, None) };
        let n = part.len().min(buffer.missing());
        buffer.extend_from_slice(&part.split_to(n));
        self.arrived = self.total - buffer.missing();
        let write = self.landing.as_mut().and_then(|landing| landing.write(part, owner));
        (n, write)
    }

    /// A write is done.
    pub(super) fn written(&mut self) {
        if let Some(landing) = &mut self.landing {
            landing.writes = landing.writes.saturating_sub(1);
        }
    }

    /// It cannot be written, and so many of its writes will not be done. Gives the first reason once none is
    /// under way any more.
    pub(super) fn unwritable(&mut self, error: ObjectError, dropped: u32) -> Option<ObjectError> {
        let Some(landing) = &mut self.landing else { return Some(error) };
        landing.writes = landing.writes.saturating_sub(dropped);
        landing.failure.get_or_insert(error);
        landing.failure.filter(|_| landing.writes == 0)
    }

    pub(super) fn failure(&self) -> Option<ObjectError> {
        self.landing.as_ref()?.failure
    }

    fn is_complete(&self) -> bool {
        let is_written = |landing: &Landing| landing.writes == 0 && landing.failure.is_none();
        self.has_arrived() && self.landing.as_deref().is_none_or(is_written)
    }

    fn has_arrived(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.missing() == 0)
            && self.landing.as_ref().is_none_or(|landing| landing.range.is_empty())
    }

    /// Whether the transport could receive into it.
    pub(super) fn can_lend(&self) -> bool {
        self.buffer.is_some() && self.landing.is_none()
    }

    /// Lends the buffer to the transport.
    pub(super) fn lend(&mut self) -> Option<ChunkMut> {
        self.buffer.take()
    }

    /// The transport gives the buffer back.
    pub(super) fn restore(&mut self, buffer: ChunkMut) {
        debug_assert_eq!(buffer.capacity(), self.total);
        self.arrived = self.total - buffer.missing();
        self.buffer = Some(buffer);
    }

    pub(super) fn finish(mut self) -> Chunk {
        self.buffer.take().map_or_else(Chunk::empty, ChunkMut::freeze)
    }
}

impl Landing {
    fn write(&mut self, mut bytes: Chunk, owner: u64) -> Option<Write> {
        bytes.truncate(self.range.len());
        if bytes.is_empty() {
            return None;
        }
        self.range.set_owner(owner);
        let write = Write::new(&self.range, bytes);
        self.range.advance(write.bytes.len());
        if self.failure.is_some() {
            return None;
        }
        self.writes = self.writes.saturating_add(1);
        Some(write)
    }
}

impl Drop for Assembly {
    fn drop(&mut self) {
        if !bug!("landing_leak") {
            self.memory.land_end(self.total);
        }
        self.siblings.0.set(self.siblings.0.get().saturating_sub(1));
    }
}
