//! A block that is handed out from front to back, again and again.

use core::fmt;

use crate::block::Block;
use crate::writer::{Source, Writer};
use crate::{Chunk, ChunkMut, Pool, Segment};

/// Cuts a rotating sequence of blocks into chunks.
///
/// Receiving: [`spare`](Arena::spare) gives memory to fill, [`commit`](Arena::commit) cuts off what
/// was filled. Sending: [`writer`](Arena::writer) builds a frame in place, [`finish`](Arena::finish)
/// freezes it. When no chunk of the current block is held any more it is used again from its
/// beginning; when it is full, the pool gives the next one.
pub struct Arena {
    pool: Pool,
    block_bytes: usize,
    /// One local count of the current block.
    block: Option<Block>,
    /// Everything before it may be frozen, everything behind it is ours alone.
    cursor: usize,
    /// Where the last [`spare`](Arena::spare) began.
    spare_at: usize,
}

impl Arena {
    /// An arena whose blocks have at least `block_bytes`.
    #[must_use]
    pub fn new(pool: &Pool, block_bytes: usize) -> Arena {
        Arena { pool: pool.clone(), block_bytes, block: None, cursor: 0, spare_at: 0 }
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
        let block = self.block.expect("commit follows spare");
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
            return ChunkMut::from_block(self.pool.lend(len + phase), phase, len);
        }
        let (block, at) = self.reserve(len, phase);
        self.cursor = at + len;
        block.retain_local();
        ChunkMut::from_block(block, at, len)
    }

    /// Starts a frame at a multiple of 16; at most `limit` bytes will be accepted.
    #[inline]
    #[must_use]
    pub fn writer(&mut self, limit: usize) -> Writer {
        // Room for a small frame at least, so that most never move to another block.
        let (block, at) = self.reserve(512, 0);
        // The writer takes over our count, so that whatever the encoder does meanwhile, nobody else
        // can write to this block.
        self.block = None;
        Writer::new(block, at, limit, Source::Local(self.pool.clone()))
    }

    /// Freezes what was written, and gives the part that was attached, if any.
    ///
    /// # Panics
    /// When the writer is not from an arena.
    #[inline]
    #[must_use]
    pub fn finish(&mut self, writer: Writer) -> (Chunk, Option<Segment>) {
        let (block, start, len, attached) = writer.into_local();
        let chunk = Chunk::from_block(block, start, len);
        // A block that was made for one large message goes with it.
        if block.capacity() <= self.block_bytes.max(4096) && self.block.is_none() {
            block.retain_local();
            self.block = Some(block);
            self.cursor = start + len;
        }
        (chunk, attached)
    }

    /// Gives the current block back if nobody holds a chunk of it.
    pub fn trim(&mut self) {
        if let Some(block) = self.block.take_if(|block| block.is_unique()) {
            // SAFETY: the arena owned one local count. (test: `trimming_gives_the_block_back`)
            unsafe { block.release_local() };
        }
    }

    /// The current block and the next offset with `phase` modulo 16 that has `min` bytes behind it.
    #[inline]
    fn reserve(&mut self, min: usize, phase: usize) -> (Block, usize) {
        debug_assert!(phase < 16);
        if let Some(block) = self.block {
            if block.is_unique() {
                self.cursor = 0;
            }
            let at = align_to_phase(self.cursor, phase);
            if at + min <= block.capacity() {
                return (block, at);
            }
        }
        self.next_block(min + phase);
        let block = self.block.expect("next_block sets the block");
        (block, phase)
    }

    #[cold]
    fn next_block(&mut self, min: usize) {
        let next = self.pool.lend(min.max(self.block_bytes));
        if let Some(full) = self.block.replace(next) {
            // SAFETY: the arena owned one local count. (test: `receiving_rewinds`)
            unsafe { full.release_local() };
        }
        self.cursor = 0;
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        if let Some(block) = self.block {
            // SAFETY: the arena owns one local count. (test: `receiving_rewinds`)
            unsafe { block.release_local() };
        }
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
            let mut writer = arena.writer(1 << 20);
            writer.put(&[i; 32]).unwrap();
            let (chunk, attached) = arena.finish(writer);
            assert!(attached.is_none() && chunk.is_aligned_to(16));
            if let Err(chunk) = run.try_join(chunk) {
                run = chunk;
            }
        }
        assert_eq!(run.len(), 20 * 32);
    }

    #[test]
    fn a_large_message_takes_its_block_along() {
        let (pool, mut arena) = arena();
        let mut writer = arena.writer(1 << 20);
        for i in 0..1000u32 {
            writer.put(&i.to_le_bytes().repeat(25)).unwrap();
        }
        let (large, _) = arena.finish(writer);
        assert!(large.chunks(100).zip(0u32..).all(|(part, i)| part == i.to_le_bytes().repeat(25)));
        drop(large);
        let mut writer = arena.writer(1 << 20);
        writer.put(b"small").unwrap();
        let (small, _) = arena.finish(writer);
        assert_eq!(&*small, b"small");
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
