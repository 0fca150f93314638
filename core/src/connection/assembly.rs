//! Bodies that arrive in parts.

use alloc::rc::Rc;
use core::cell::Cell;

use ringcall_buf::{Chunk, ChunkMut};

use crate::{CloseReason, Instant, Memory};

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
    /// When it last went on.
    pub(super) progress: Instant,
}

impl<H> Arriving<H> {
    pub(super) fn new(
        header: H,
        assembly: Option<Assembly>,
        total: usize,
        first: usize,
        now: Instant,
    ) -> Arriving<H> {
        let announced = first as u64;
        Arriving { header, assembly, charged: total, total: total as u64, announced, progress: now }
    }

    /// A frame's head says that `len` bytes follow, at `offset`.
    pub(super) fn announce(
        &mut self,
        offset: u64,
        len: usize,
        now: Instant,
    ) -> Result<(), CloseReason> {
        if len == 0 {
            return Err(CloseReason::BadLength);
        }
        if offset != self.announced && !bug!("b10") {
            return Err(CloseReason::DataOutOfOrder);
        }
        let end = self.announced.checked_add(len as u64).filter(|&end| end <= self.total);
        self.announced = end.ok_or(CloseReason::BadLength)?;
        self.progress = now;
        Ok(())
    }

    /// Whether the call's last frame has been announced.
    pub(super) fn is_announced(&self) -> bool {
        self.announced == self.total
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
    total: usize,
    memory: Memory,
    siblings: Siblings,
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
    pub(super) fn begin(total: usize, memory: &Memory, siblings: &Siblings) -> Option<Assembly> {
        let buffer = Some(memory.land_begin(total, siblings.any())?);
        siblings.0.set(siblings.0.get().saturating_add(1));
        Some(Assembly { buffer, total, memory: memory.clone(), siblings: siblings.clone() })
    }

    /// Bytes that were announced arrive.
    pub(super) fn extend(&mut self, part: &[u8]) {
        if let Some(buffer) = &mut self.buffer
            && part.len() <= buffer.missing()
        {
            buffer.extend_from_slice(part);
        }
    }

    pub(super) fn is_complete(&self) -> bool {
        self.buffer.as_ref().is_some_and(|buffer| buffer.missing() == 0)
    }

    /// Whether the transport could receive into it.
    pub(super) fn can_lend(&self) -> bool {
        self.buffer.is_some()
    }

    /// Lends the buffer to the transport.
    pub(super) fn lend(&mut self) -> Option<ChunkMut> {
        self.buffer.take()
    }

    /// The transport gives the buffer back.
    pub(super) fn restore(&mut self, buffer: ChunkMut) {
        debug_assert_eq!(buffer.capacity(), self.total);
        self.buffer = Some(buffer);
    }

    pub(super) fn finish(mut self) -> Chunk {
        self.buffer.take().map_or_else(Chunk::empty, ChunkMut::freeze)
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
