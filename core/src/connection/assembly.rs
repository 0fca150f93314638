//! Bodies that arrive in parts.

use ringcall_buf::{Chunk, ChunkMut};

use crate::{CloseReason, Memory};

/// A request or reply whose body arrives in parts.
#[derive(Debug)]
pub(super) struct Arriving<H> {
    /// All but the body.
    pub(super) header: H,
    /// Absent if nobody wants the body: it is ignored as it arrives.
    pub(super) assembly: Option<Assembly>,
    /// Body bytes that are charged for it and were not given back.
    pub(super) charged: usize,
    /// How many bytes of the body no frame has announced yet. The call's last frame is the one that
    /// makes it zero.
    pub(super) unannounced: u64,
}

impl<H> Arriving<H> {
    /// Nobody wants the body any more: returns what is charged for it, to be given back.
    pub(super) fn ignore(&mut self) -> usize {
        self.assembly = None;
        core::mem::take(&mut self.charged)
    }

    /// A frame's head says that `len` bytes follow, at `offset`. They count as charged.
    pub(super) fn announce(&mut self, offset: u64, len: usize) -> Result<(), CloseReason> {
        self.unannounced =
            self.unannounced.checked_sub(len as u64).ok_or(CloseReason::BadLength)?;
        self.charged = self.charged.saturating_add(len);
        match &mut self.assembly {
            Some(assembly) => assembly.announce(offset, len),
            None => Ok(()),
        }
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
    /// How many bytes have been announced by frame heads so far: where the next DATA must continue.
    announced: usize,
    memory: Memory,
}

impl Assembly {
    /// `None` if the landing budget does not allow it now.
    pub(super) fn begin(total: usize, memory: &Memory) -> Option<Assembly> {
        let buffer = Some(memory.land_begin(total)?);
        Some(Assembly { buffer, total, announced: 0, memory: memory.clone() })
    }

    /// A frame's head says that `len` bytes follow, at `offset`.
    pub(super) fn announce(&mut self, offset: u64, len: usize) -> Result<(), CloseReason> {
        if offset != self.announced as u64 {
            return Err(CloseReason::DataOutOfOrder);
        }
        let end = self.announced.checked_add(len).filter(|&end| end <= self.total);
        self.announced = end.ok_or(CloseReason::BadLength)?;
        Ok(())
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
        self.memory.land_end(self.total);
    }
}
