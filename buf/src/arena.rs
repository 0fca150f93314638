//! A block that is handed out from front to back, again and again.

use core::fmt;

use crate::block::Block;
use crate::writer::Writer;
use crate::{Chunk, ChunkMut, Pool, Segment};

/// Cuts a rotating sequence of blocks into chunks.
///
/// Receiving: [`spare`](Arena::spare) gives memory to fill, [`commit`](Arena::commit) cuts off what
/// was filled. Sending: [`begin`](Arena::begin) gives a writer that builds a frame in place,
/// [`finish`](Arena::finish) freezes it. When no chunk of the current block is held any more it is used
/// again from its beginning; when it is full, the pool gives the next one.
pub struct Arena {
    block_bytes: usize,
    /// Has the current block, with one local count of it.
    writer: Writer,
    /// Everything before it may be frozen, everything behind it is ours alone.
    cursor: usize,
    /// Where the last [`spare`](Arena::spare) began.
    spare_at: usize,
}

impl Arena {
    /// An arena whose blocks have at least `block_bytes`.
    #[must_use]
    pub fn new(pool: &Pool, block_bytes: usize) -> Arena {
        Arena { block_bytes, writer: Writer::local(pool), cursor: 0, spare_at: 0 }
    }

    /// Memory to receive into: at least `min` bytes, more where there is room, the first of them at
    /// an address that is `phase` modulo 16, so that frames which start at multiples of 16 in their
    /// stream do so in memory too. Follow with [`commit`](Arena::commit).
    #[must_use]
    pub fn spare(&mut self, min: usize, phase: usize) -> &mut [u8] {
        let (block, at) = self.reserve(min, phase);
        self.spare_at = at;
        let len = block.capacity() - at;
        // SAFETY: within the block. (test: `receiving_rewinds`)
        let start = unsafe { block.data().add(at) };
        // SAFETY: behind the cursor nothing was handed out, block memory is always initialised, and
        // the borrow of `self` keeps others away meanwhile. (test: `receiving_rewinds`)
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Freezes the first `n` bytes of the last [`spare`](Arena::spare).
    ///
    /// # Panics
    /// When the spare memory had fewer bytes or there was none.
    #[must_use]
    pub fn commit(&mut self, n: usize) -> Chunk {
        let block = self.writer.block().expect("commit follows spare");
        let end = self.spare_at.checked_add(n).filter(|&end| end <= block.capacity());
        let end = end.expect("commit stays within the spare memory");
        assert!(self.spare_at >= self.cursor, "commit follows spare, once");
        self.cursor = end;
        block.retain_local();
        Chunk::from_block(block, end - n, n)
    }

    /// An exclusive range of `len` bytes at an address that is `phase` modulo 16; ranges that are
    /// more than a quarter of the arena's blocks come from the pool.
    #[must_use]
    pub fn allot(&mut self, len: usize, phase: usize) -> ChunkMut {
        if len > self.block_bytes / 4 {
            return ChunkMut::from_block(self.writer.lend(len + phase), phase, len);
        }
        let (block, at) = self.reserve(len, phase);
        self.cursor = at + len;
        block.retain_local();
        ChunkMut::from_block(block, at, len)
    }

    /// Begins a frame at a multiple of 16, with `front` bytes (at most 256) that are filled in later, by
    /// [`Writer::written`]: until then they are what was there before. At most `limit` bytes will be
    /// accepted, these among them. A frame that was begun and not finished is forgotten.
    #[inline]
    #[must_use]
    pub fn begin(&mut self, front: usize, limit: usize) -> &mut Writer {
        debug_assert!(front <= 256 && front <= limit);
        // Room for a small frame at least, so that most never move to another block.
        let (block, at) = self.reserve(512, 0);
        self.writer.begin(block, at, front, limit);
        &mut self.writer
    }

    /// The frame that was begun.
    #[inline]
    #[must_use]
    pub fn frame(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Freezes the frame that was begun; what was attached to it is [taken](Self::take_attached) apart.
    #[inline]
    #[must_use]
    pub fn finish(&mut self) -> Chunk {
        let (block, start, len) = self.writer.written_range();
        self.cursor = start + len;
        block.retain_local();
        let chunk = Chunk::from_block(block, start, len);
        if block.capacity() > self.block_bytes.max(4096) {
            // A block that was made for one large message goes with it.
            self.writer.let_go();
        }
        chunk
    }

    /// Freezes the frame that was begun, onto the end of `run` if it lies right behind it. Otherwise it
    /// becomes the new run, and the old one is returned.
    #[inline]
    pub fn finish_onto(&mut self, run: &mut Chunk) -> Option<Chunk> {
        if self.writer.extend_run(run) {
            let (_, start, len) = self.writer.written_range();
            self.cursor = start + len;
            return None;
        }
        Some(core::mem::replace(run, self.finish()))
    }

    /// What was attached to the frame that was begun.
    #[inline]
    pub fn take_attached(&mut self) -> Option<Segment> {
        self.writer.take_attached()
    }

    /// Gives the current block back if nobody holds a chunk of it.
    pub fn trim(&mut self) {
        if self.writer.block().is_some_and(Block::is_unique) {
            self.writer.let_go();
        }
    }

    /// The current block and the next offset with `phase` modulo 16 that has `min` bytes behind it.
    #[inline]
    fn reserve(&mut self, min: usize, phase: usize) -> (Block, usize) {
        debug_assert!(phase < 16);
        if let Some(block) = self.writer.block() {
            if block.is_unique() {
                self.cursor = 0;
            }
            let at = align_to_phase(self.cursor, phase);
            if at + min <= block.capacity() {
                return (block, at);
            }
        }
        (self.next_block(min + phase), phase)
    }

    #[cold]
    fn next_block(&mut self, min: usize) -> Block {
        self.cursor = 0;
        self.writer.next_block(min.max(self.block_bytes))
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("cursor", &self.cursor).finish_non_exhaustive()
    }
}

/// The smallest offset not below `from` that is `phase` modulo 16.
#[inline]
fn align_to_phase(from: usize, phase: usize) -> usize {
    from + (phase.wrapping_sub(from) & 15)
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    fn arena() -> (Pool, Arena) {
        let pool = Pool::new(1 << 20);
        let arena = Arena::new(&pool, 4096);
        (pool, arena)
    }

    #[test]
    fn receiving_rewinds() {
        let (pool, mut arena) = arena();
        let mut first_at = None;
        for round in 0..100u8 {
            arena.spare(1000, 8)[..900].fill(round);
            let chunk = arena.commit(900);
            assert!(chunk.iter().all(|&b| b == round));
            let at = chunk.as_ptr() as usize;
            assert_eq!(at % 16, 8);
            assert_eq!(*first_at.get_or_insert(at), at);
        }
        assert_eq!(pool.stats().lent_bytes, 4096);
    }

    #[test]
    fn held_chunks_are_never_overwritten() {
        let (_pool, mut arena) = arena();
        let mut held: Vec<(u8, Chunk)> = Vec::new();
        for round in 0..200u8 {
            let len = 100 + usize::from(round) * 7;
            arena.spare(len, usize::from(round) % 16)[..len].fill(round);
            held.push((round, arena.commit(len)));
            if round % 3 == 0 {
                held.swap_remove(held.len() / 2);
            }
            assert!(held.iter().all(|(tag, chunk)| chunk.iter().all(|b| b == tag)));
        }
    }

    #[test]
    fn frames_lie_side_by_side() {
        let (_pool, mut arena) = arena();
        let mut run = Chunk::empty();
        for i in 0..20u8 {
            arena.begin(0, 1 << 20).put(&[i; 32]).unwrap();
            let chunk = arena.finish();
            assert!(arena.take_attached().is_none() && chunk.is_aligned_to(16));
            if let Err(chunk) = run.try_join(chunk) {
                run = chunk;
            }
        }
        assert_eq!(run.len(), 20 * 32);
    }

    #[test]
    fn a_large_message_takes_its_block_along() {
        let (pool, mut arena) = arena();
        let writer = arena.begin(0, 1 << 20);
        for i in 0..1000u32 {
            writer.put(&i.to_le_bytes().repeat(25)).unwrap();
        }
        let large = arena.finish();
        assert!(large.chunks(100).zip(0u32..).all(|(part, i)| part == i.to_le_bytes().repeat(25)));
        drop(large);
        arena.begin(0, 1 << 20).put(b"small").unwrap();
        assert_eq!(&*arena.finish(), b"small");
        assert_eq!(pool.stats().lent_bytes, 4096);
    }

    #[test]
    fn trimming_gives_the_block_back() {
        let (pool, mut arena) = arena();
        let _ = arena.spare(1, 0);
        let held = arena.commit(1);
        arena.trim();
        assert_eq!(pool.stats().lent_bytes, 4096);
        drop(held);
        arena.trim();
        assert_eq!(pool.stats().lent_bytes, 0);
    }

    #[test]
    fn allotted_ranges_do_not_overlap() {
        let (_pool, mut arena) = arena();
        let mut ranges: Vec<(u8, ChunkMut)> = Vec::new();
        for i in 0..60u8 {
            let len = 1 + usize::from(i) * 40;
            let mut range = arena.allot(len, usize::from(i) % 16);
            assert_eq!(range.spare().as_ptr() as usize % 16, usize::from(i) % 16);
            range.spare().fill(i);
            range.fill(len);
            ranges.push((i, range));
        }
        assert!(ranges.iter().all(|(tag, range)| range.filled().iter().all(|b| b == tag)));
    }
}
