//! A block that is handed out from front to back, again and again.

use core::fmt;

use crate::writer::Writer;
use crate::{Chunk, ChunkMut, Pool, Run, Segment};

/// Cuts a rotating sequence of blocks into chunks.
///
/// Receiving: [`spare`](Arena::spare) gives memory to fill, [`commit`](Arena::commit) cuts off what
/// was filled. Sending: [`begin`](Arena::begin) gives a writer that builds a frame in place,
/// [`finish`](Arena::finish) freezes it. When no chunk of the current block is held any more it is used
/// again from its beginning; when it is full, the pool gives the next one.
pub struct Arena {
    block_bytes: usize,
    /// Larger blocks go with the frame that they were made for.
    kept_bytes_max: usize,
    /// Has the current block, with one local count of it, and knows what of it is still ours alone.
    writer: Writer,
    /// How far into that the last [`spare`](Arena::spare) began, until it is committed.
    spare_skip: Option<usize>,
}

/// Room that a frame finds when it begins, so that most never move to another block.
const FRAME_ROOM: usize = 512;
/// How many of that may be left to be filled in later.
const FRONT_MAX: usize = 256;

impl Arena {
    /// An arena whose blocks have at least `block_bytes`.
    #[must_use]
    pub fn new(pool: &Pool, block_bytes: usize) -> Arena {
        let kept_bytes_max = block_bytes.max(4096);
        Arena {
            block_bytes,
            kept_bytes_max,
            writer: Writer::local(pool, block_bytes),
            spare_skip: None,
        }
    }

    /// An arena that gives every frame and every range a block of its own, so that none lies behind another.
    #[must_use]
    pub fn scattered(pool: &Pool) -> Arena {
        Arena { kept_bytes_max: 0, ..Arena::new(pool, 0) }
    }

    /// Memory to receive into: at least `min` bytes, more where there is room, the first of them at
    /// an address that is `phase` modulo 16, so that frames which start at multiples of 16 in their
    /// stream do so in memory too. Follow with [`commit`](Arena::commit).
    #[must_use]
    pub fn spare(&mut self, min: usize, phase: usize) -> &mut [u8] {
        let skip = self.reserve(min, phase);
        self.spare_skip = Some(skip);
        let (start, len) = self.writer.behind(skip);
        // SAFETY: there nothing was handed out, block memory is always initialised, and
        // the borrow of `self` keeps others away meanwhile. (test: `receiving_rewinds`)
        unsafe { core::slice::from_raw_parts_mut(start.as_ptr(), len) }
    }

    /// Freezes the first `n` bytes of the last [`spare`](Arena::spare).
    ///
    /// # Panics
    /// When the spare memory had fewer bytes or there was none.
    #[must_use]
    pub fn commit(&mut self, n: usize) -> Chunk {
        let skip = self.spare_skip.take().expect("commit follows spare, once");
        let (block, start) = self.writer.hand_out(skip, n);
        Chunk::from_block(block, start, n)
    }

    /// An exclusive range of `len` bytes at an address that is `phase` modulo 16; ranges that are
    /// more than a quarter of the arena's blocks come from the pool.
    #[must_use]
    pub fn allot(&mut self, len: usize, phase: usize) -> ChunkMut {
        if len > self.block_bytes / 4 {
            return ChunkMut::from_block(self.writer.lend(len + phase), phase, len);
        }
        let skip = self.reserve(len, phase);
        let (block, start) = self.writer.hand_out(skip, len);
        ChunkMut::from_block(block, start, len)
    }

    /// Begins a frame at a multiple of 16, with `front` bytes (at most 256) that are filled in later, by
    /// [`Writer::written`]: until then they are what was there before. At most `limit` bytes will be
    /// accepted, these among them: none, if there are more in front. A frame that was begun and not finished is
    /// forgotten.
    ///
    /// # Panics
    /// When there are more than 256 bytes in front.
    #[inline(always)]
    #[must_use]
    pub fn begin(&mut self, front: usize, limit: usize) -> &mut Writer {
        self.begin_behind(&Run::empty(), front, limit, |_| ())
    }

    /// The same, most likely right behind `run`. As long as that has bytes of the block, nobody needs to ask whether
    /// the block could be used from its beginning. What of the bytes in front is known by now is filled in by `fill`.
    ///
    /// # Panics
    /// As [`begin`](Self::begin).
    #[inline(always)]
    #[must_use]
    pub fn begin_behind(
        &mut self,
        run: &Run,
        front: usize,
        limit: usize,
        fill: impl FnOnce(&mut [u8]),
    ) -> &mut Writer {
        // Known to whoever compiles a call, as a rule. That it is below the limit is nothing to rely on: see `put`.
        assert!(front <= FRONT_MAX, "a frame has at most 256 bytes in front");
        if self.writer.space() < FRAME_ROOM || !self.writer.is_behind(run) {
            self.make_room();
        }
        self.writer.begin(front, limit, fill);
        &mut self.writer
    }

    /// A frame begins, not behind others that are still here.
    #[inline(never)]
    fn make_room(&mut self) {
        if !self.writer.has_room(FRAME_ROOM) {
            self.reserve(FRAME_ROOM, 0);
        }
    }

    /// The frame that was begun.
    #[inline]
    #[must_use]
    pub fn frame(&mut self) -> &mut Writer {
        &mut self.writer
    }

    /// Freezes the frame that was begun; what was attached [to](Self::take_attached) it, or
    /// [within](Self::take_within), is taken apart.
    #[must_use]
    pub fn finish(&mut self) -> Chunk {
        let len = self.writer.len();
        let (block, start) = self.writer.hand_out(0, len);
        let chunk = Chunk::from_block(block, start, len);
        if block.capacity() > self.kept_bytes_max {
            self.writer.let_go();
        }
        chunk
    }

    /// Freezes the frame that was begun onto the end of `run` if it lies right behind it. Otherwise it becomes the new
    /// run, and the old one is returned if there was one, beside the length of the frame.
    ///
    /// Zeros fill it up to a multiple of 16, which do not count towards its limit; then `complete` fills in what was
    /// left open: it gets what was written, and how long that was without the zeros.
    #[inline(always)]
    pub fn finish_onto(
        &mut self,
        run: &mut Run,
        complete: impl FnOnce(&mut [u8], usize),
    ) -> (usize, Option<Chunk>) {
        let (len, is_next) = self.writer.complete_onto(run, complete);
        match is_next {
            true => (len, None),
            false => (len, self.finish_as(run)),
        }
    }

    /// Freezes the frame that was begun as the beginning of `run`; gives back what there was.
    #[inline(never)]
    fn finish_as(&mut self, run: &mut Run) -> Option<Chunk> {
        run.begin(self.finish())
    }

    /// What was attached to the frame that was begun.
    #[inline]
    pub fn take_attached(&mut self) -> Option<Segment> {
        self.writer.take_attached()
    }

    /// What was attached within the frame that was begun, and behind how many of its bytes.
    #[inline]
    pub fn take_within(&mut self) -> Option<(usize, Segment)> {
        self.writer.take_within()
    }

    /// Gives the current block back if nobody holds a chunk of it.
    pub fn trim(&mut self) {
        if self.writer.is_unique() {
            self.writer.let_go();
        }
    }

    /// Sees to it that `min` bytes follow an address that is `phase` modulo 16; says how far in front it is.
    #[inline(never)]
    fn reserve(&mut self, min: usize, phase: usize) -> usize {
        debug_assert!(phase < 16);
        self.spare_skip = None;
        self.writer.rewind();
        let skip = self.writer.skip_to(phase);
        if (skip + min).max(1) <= self.writer.space() {
            return skip;
        }
        self.writer.next_block((min + phase).max(self.block_bytes));
        self.writer.skip_to(phase)
    }
}

impl fmt::Debug for Arena {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arena").field("writer", &self.writer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Full;
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
    fn frames_of_a_scattered_arena_do_not_lie_behind_each_other() {
        let pool = Pool::new(1 << 20);
        let mut arena = Arena::scattered(&pool);
        let mut run = Run::empty();
        for (number, len) in [5000, 16, 16, 1024, 16].into_iter().enumerate() {
            arena.begin_behind(&run, 0, 1 << 20, |_| ()).put(&[7; 5000][..len]).unwrap();
            let (_, before) = arena.finish_onto(&mut run, |_, _| ());
            assert_eq!(before.is_some(), number > 0);
            let mut range = arena.allot(16, 0);
            range.extend_from_slice(&[7; 16]);
            assert!(run.push(range.freeze()).is_some());
        }
    }

    #[test]
    fn frames_follow_one_that_moved_to_the_next_block() {
        let pool = Pool::new(1 << 20);
        let mut arena = Arena::new(&pool, 64 * 1024);
        let (mut run, mut runs) = (Run::empty(), Vec::new());
        for _ in 0..60 {
            arena.begin_behind(&run, 48, 1 << 20, |_| ()).put(&[7; 4112]).unwrap();
            runs.extend(arena.finish_onto(&mut run, |_, _| ()).1);
        }
        // A block has room for fifteen frames.
        assert!(runs.len() <= 4, "{runs:?}");
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

    /// It would not hold the block.
    #[test]
    fn a_frame_does_not_join_a_run_that_was_taken() {
        let (_pool, mut arena) = arena();
        let mut run = Run::empty();
        for first in [1, 3] {
            arena.begin_behind(&run, 0, 64, |_| ()).put(&[first; 32]).unwrap();
            assert!(arena.finish_onto(&mut run, |_, _| ()).1.is_none());
            arena.begin_behind(&run, 0, 64, |_| ()).put(&[first + 1; 32]).unwrap();
            assert!(arena.finish_onto(&mut run, |_, _| ()).1.is_none());
            let whole = run.take();
            assert_eq!((&whole[..32], &whole[32..]), (&[first; 32][..], &[first + 1; 32][..]));
        }
    }

    #[test]
    fn a_frame_is_completed_and_filled_up_before_it_joins() {
        let (_pool, mut arena) = arena();
        let mut run = Run::empty();
        for len in 0..40u8 {
            let bytes = [7; 40];
            arena.begin_behind(&run, 1, 41, |_| ()).put(&bytes[..usize::from(len)]).unwrap();
            let (whole, _) = arena.finish_onto(&mut run, |written, len| written[0] = len as u8);
            assert_eq!(whole, (1 + usize::from(len)).next_multiple_of(16));
        }
        let mut rest = run.take();
        for len in 1..=40usize {
            let frame = rest.split_to(len.next_multiple_of(16));
            let body = frame[1..len].iter().all(|&byte| byte == 7);
            let zeros = frame[len..].iter().all(|&byte| byte == 0);
            assert!(usize::from(frame[0]) == len && body && zeros, "{len}");
        }
        assert!(rest.is_empty());
    }

    #[test]
    #[should_panic(expected = "at most 256 bytes")]
    fn a_front_that_may_not_fit_is_refused() {
        let (_pool, mut arena) = arena();
        let _ = arena.begin(300, 1 << 20);
    }

    /// Or it would write beyond its block.
    #[test]
    fn a_limit_below_the_front_accepts_nothing() {
        let (pool, mut arena) = arena();
        let writer = arena.begin(250, 100);
        assert_eq!(writer.put(&[7; 16]), Err(Full { limit: 100 }));
        assert_eq!(writer.put(&[7; 5000]), Err(Full { limit: 100 }));
        assert_eq!(writer.len(), 250);
        writer.written()[240..].fill(7);
        assert_eq!(writer.pad_to(16), Err(Full { limit: 100 }));
        for attach in [Writer::attach, Writer::attach_within] {
            let part = pool.copy(&[7; 16]).into();
            assert_eq!(attach(writer, part), Err(Full { limit: 100 }));
        }
        assert_eq!(arena.finish().len(), 250);
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
