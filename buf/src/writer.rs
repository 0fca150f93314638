//! Builds one message in place.

use core::fmt;
use core::ptr::NonNull;

use crate::block::Block;
use crate::shared::{SharedChunk, SharedPool};
use crate::{Pool, Run, Segment};

/// Appends to pooled memory, and moves to a larger block when one is full.
///
/// Made by [`Arena::begin`](crate::Arena::begin) or [`SharedPool::writer`]. The first byte lies at a
/// multiple of 16, and moving keeps that, so positions within the message are alignments too.
pub struct Writer {
    /// Where the message begins, or the next one will: everything behind is ours alone.
    ptr: NonNull<u8>,
    /// How many bytes of the block are behind `ptr`.
    space: usize,
    /// How much is written.
    len: usize,
    /// So long it may be without growing, never more than `limit` and `space`.
    room: usize,
    limit: usize,
    /// One count of the kind that `source` says.
    block: Option<Block>,
    attached: Option<Segment>,
    /// How much of what is attached is beside the message.
    beside_len: usize,
    /// What lies in the middle of the message, and behind how many of the bytes that were written.
    within: Option<(usize, Segment)>,
    /// How long both are together.
    elsewhere_len: usize,
    /// Whoever takes the message takes that, too.
    may_attach_within: bool,
    source: Source,
}

pub(crate) enum Source {
    Local {
        pool: Pool,
        /// Others follow a message that moves to the next block: it has room for them as well.
        block_bytes: usize,
    },
    Shared(SharedPool),
}

impl Source {
    fn lend(&self, min: usize) -> Block {
        match self {
            Source::Local { pool, .. } => pool.lend(min),
            Source::Shared(pool) => pool.lend(min),
        }
    }

    /// What a block has at least into which a message moves.
    fn block_bytes(&self) -> usize {
        match self {
            Source::Local { block_bytes, .. } => *block_bytes,
            Source::Shared(_) => 0,
        }
    }

    /// # Safety
    /// The caller owned one count of `block`, which came from this source.
    unsafe fn release(&self, block: Block) {
        match self {
            // SAFETY: the caller's promise; a writer does not leave its thread. (test: `an_abandoned_frame_changes_nothing`)
            Source::Local { .. } => unsafe { block.release_local() },
            // SAFETY: the caller's promise. (test: `an_abandoned_writer_gives_its_block_back`)
            Source::Shared(_) => unsafe { block.release_shared() },
        }
    }
}

/// The message is longer than the writer's limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full {
    /// The limit, in bytes.
    pub limit: usize,
}

impl fmt::Display for Full {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the message is larger than {} bytes", self.limit)
    }
}

impl core::error::Error for Full {}

impl Writer {
    /// The writer of an arena, without a block.
    pub(crate) fn local(pool: &Pool, block_bytes: usize) -> Writer {
        Writer {
            ptr: NonNull::dangling(),
            space: 0,
            len: 0,
            room: 0,
            limit: 0,
            block: None,
            attached: None,
            beside_len: 0,
            within: None,
            elsewhere_len: 0,
            may_attach_within: true,
            source: Source::Local { pool: pool.clone(), block_bytes },
        }
    }

    /// A writer that owns a block of a shared pool.
    pub(crate) fn shared(pool: &SharedPool, block: Block, limit: usize) -> Writer {
        let space = block.capacity();
        let room = space.min(limit);
        let source = Source::Shared(pool.clone());
        Writer {
            ptr: block.data(),
            space,
            len: 0,
            room,
            limit,
            block: Some(block),
            attached: None,
            beside_len: 0,
            within: None,
            elsewhere_len: 0,
            may_attach_within: false,
            source,
        }
    }

    /// Whether the next message has at least `min` bytes, and could not begin further in front: somebody
    /// holds a part of the block.
    #[inline(always)]
    pub(crate) fn has_room(&self, min: usize) -> bool {
        self.space >= min && self.block.is_some_and(|block| !block.is_unique())
    }

    /// The memory behind what was handed out: `skip` bytes further on, as many as there are.
    pub(crate) fn behind(&self, skip: usize) -> (NonNull<u8>, usize) {
        assert!(skip <= self.space, "there is not so much room");
        // SAFETY: within the block, checked above. (test: `receiving_rewinds`)
        (unsafe { self.ptr.add(skip) }, self.space - skip)
    }

    /// How far in front of `ptr` the next address is that is `phase` modulo 16.
    pub(crate) fn skip_to(&self, phase: usize) -> usize {
        phase.wrapping_sub(self.ptr.as_ptr().addr()) & 15
    }

    /// Hands out `len` bytes behind `skip`, with a count of the block. What comes next begins at a multiple
    /// of 16 again.
    pub(crate) fn hand_out(&mut self, skip: usize, len: usize) -> (Block, usize) {
        let block = self.block.expect("there is room, so there is a block");
        let start = self.offset(block) + skip;
        let end = skip.checked_add(len).filter(|&end| end <= self.space);
        block.ledger().hand_out(start, start + len);
        self.pass(end.expect("no more is handed out than there is"));
        self.pass(self.skip_to(0).min(self.space));
        block.retain_local();
        (block, start)
    }

    /// Everything up to `n` bytes behind `ptr` belongs to somebody else now, the message that was begun is
    /// over.
    #[inline(always)]
    fn pass(&mut self, n: usize) {
        self.pass_from(self.ptr, n);
    }

    /// The same, with where that is.
    #[inline(always)]
    fn pass_from(&mut self, at: NonNull<u8>, n: usize) {
        debug_assert!(at == self.ptr && n <= self.space);
        // SAFETY: the callers have checked that it stays within the block. (test: `receiving_rewinds`)
        self.ptr = unsafe { at.add(n) };
        self.space -= n;
        (self.len, self.room) = (0, 0);
    }

    fn offset(&self, block: Block) -> usize {
        self.ptr.as_ptr().addr() - block.data().as_ptr().addr()
    }

    /// Begins at the front of the block again, if nobody else holds a part of it.
    pub(crate) fn rewind(&mut self) {
        if let Some(block) = self.block.filter(|block| block.is_unique()) {
            block.ledger().rewind();
            self.enter(block);
        }
    }

    fn enter(&mut self, block: Block) {
        (self.block, self.ptr, self.space) = (Some(block), block.data(), block.capacity());
        (self.len, self.room) = (0, 0);
    }

    /// Begins a message where the last one ended, with `front` bytes that the block must have, for `fill` to fill in.
    #[inline(always)]
    pub(crate) fn begin(&mut self, front: usize, limit: usize, fill: impl FnOnce(&mut [u8])) {
        debug_assert!(front <= self.space && self.skip_to(0) == 0);
        if self.elsewhere_len > 0 {
            self.forget_attached();
        }
        fill(self.first(front));
        // Last, so that whoever goes on knows these: as far as the compiler can tell, `fill` might write to them.
        self.limit = limit;
        self.room = self.space.min(limit);
        self.len = front;
    }

    #[cold]
    fn forget_attached(&mut self) {
        self.take_attached();
        self.take_within();
    }

    /// Whether it has a block that nobody else holds a part of.
    pub(crate) fn is_unique(&self) -> bool {
        self.block.is_some_and(Block::is_unique)
    }

    /// How many bytes of the block are ours alone.
    #[inline(always)]
    pub(crate) fn space(&self) -> usize {
        self.space
    }

    /// Whether what comes next lies right behind `run`, which then holds the block.
    #[inline(always)]
    pub(crate) fn is_behind(&self, run: &Run) -> bool {
        run.ends_at(self.block, self.ptr)
    }

    /// Fills the message up to a multiple of 16, has it completed, and makes it part of `run` if it lies right behind
    /// it. Says how long it is, and whether it does.
    #[inline(always)]
    pub(crate) fn complete_onto(
        &mut self,
        run: &mut Run,
        complete: impl FnOnce(&mut [u8], usize),
    ) -> (usize, bool) {
        let written = self.len();
        self.fill_up();
        // Before it is completed: by that, for all that the compiler knows, they might change.
        let (len, at) = (self.len(), self.ptr);
        complete(self.written(), written);
        let is_next = run.extend_over(self.block, at, len);
        if is_next {
            if let Some(block) = self.block {
                let start = self.offset(block);
                block.ledger().hand_out(start, start + len);
            }
            // `len` never exceeds `space`: neither does `room`, nor what a message begins with.
            self.pass_from(at, len);
        }
        (len, is_next)
    }

    pub(crate) fn take_attached(&mut self) -> Option<Segment> {
        self.beside_len = 0;
        let attached = self.attached.take();
        self.elsewhere_len -= attached.as_ref().map_or(0, Segment::len);
        attached
    }

    pub(crate) fn lend(&self, min: usize) -> Block {
        self.source.lend(min)
    }

    /// Goes on in another block; lets go of the current one.
    pub(crate) fn next_block(&mut self, min: usize) {
        let next = self.source.lend(min);
        self.let_go();
        self.enter(next);
    }

    /// Lets go of the current block; what was written is forgotten.
    pub(crate) fn let_go(&mut self) {
        (self.len, self.room, self.space) = (0, 0, 0);
        if let Some(block) = self.block.take() {
            // SAFETY: the writer owned one count of it, from its source. (test: `receiving_rewinds`)
            unsafe { self.source.release(block) };
        }
    }

    /// How many bytes were written, without what is attached.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many bytes at the end are beside the message, see [`attach_beside`](Self::attach_beside).
    #[inline]
    #[must_use]
    pub fn beside_len(&self) -> usize {
        self.beside_len
    }

    /// Whether all of the message was written here: nothing is attached, neither at its end nor within.
    #[inline]
    #[must_use]
    pub fn is_whole(&self) -> bool {
        self.elsewhere_len == 0
    }

    /// What the message ends with, if it is attached.
    #[must_use]
    pub fn attached(&self) -> Option<&Segment> {
        self.attached.as_ref()
    }

    /// How many bytes the message has, with what is attached.
    #[inline]
    #[must_use]
    pub fn message_len(&self) -> usize {
        self.len() + self.elsewhere_len
    }

    /// Appends bytes.
    ///
    /// # Errors
    /// [`Full`] when the message would exceed its limit; nothing is written then.
    #[inline]
    pub fn put(&mut self, bytes: &[u8]) -> Result<(), Full> {
        // Both lie in memory, so this cannot wrap.
        let len = self.len() + bytes.len();
        if len > self.room {
            self.grow(bytes.len())?;
        }
        // SAFETY: `len <= room <= capacity - start` with what follows. (test: `writing_agrees_with_a_vec`)
        let end = unsafe { self.ptr.add(self.len()) };
        // SAFETY: the room was checked above, and nobody else can reach memory behind `start` while
        // the writer owns the block. (test: `writing_agrees_with_a_vec`)
        unsafe { end.as_ptr().copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
        self.len = len;
        Ok(())
    }

    /// Appends zeros up to the next multiple of `align`, a power of two.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Writer::put).
    #[inline]
    pub fn pad_to(&mut self, align: usize) -> Result<(), Full> {
        const ZEROS: [u8; 64] = [0; 64];
        let missing = self.len().wrapping_neg() & (align - 1);
        if missing == 0 {
            return Ok(());
        }
        match self.put_zeros(missing, self.room) {
            true => Ok(()),
            false => self.put(&ZEROS[..missing]),
        }
    }

    /// Appends so many zeros by one store, if they are not more than that and `room`, which is no more than there is, has
    /// space for what is stored beyond them: what comes next overwrites it.
    #[inline(always)]
    fn put_zeros(&mut self, missing: usize, room: usize) -> bool {
        if missing > 16 || !self.store_zeros(room) {
            return false;
        }
        self.len += missing;
        true
    }

    /// Stores 16 zeros behind what is written, if there is so much room.
    #[inline(always)]
    fn store_zeros(&mut self, room: usize) -> bool {
        debug_assert!(room <= self.space);
        if self.len() + 16 > room {
            return false;
        }
        // SAFETY: `len + 16 <= room`, within the block. (test: `writing_agrees_with_a_vec`)
        let end = unsafe { self.ptr.add(self.len()) };
        // SAFETY: as above, memory that is ours alone. (test: `writing_agrees_with_a_vec`)
        unsafe { end.cast::<[u8; 16]>().write([0; 16]) };
        true
    }

    /// Fills a message up to a multiple of 16 that is complete: the zeros do not count towards its limit, and nothing
    /// follows them. As many are stored as might be missing: how many are would be a branch that goes by lengths of messages.
    #[inline(always)]
    fn fill_up(&mut self) {
        if !self.store_zeros(self.space) {
            return self.fill_block_up();
        }
        self.len = (self.len() + 15) & !15;
    }

    /// The same at the end of the block.
    #[cold]
    fn fill_block_up(&mut self) {
        let missing = self.len().wrapping_neg() & 15;
        (self.limit, self.room) = (self.len() + missing, self.space);
        let padded = self.pad_to(16);
        debug_assert!(padded.is_ok(), "there is always room for them");
    }

    /// What was written so far, to fill in what is known only at the end.
    #[inline]
    #[must_use]
    pub fn written(&mut self) -> &mut [u8] {
        self.first(self.len())
    }

    /// So many bytes of the message, written or about to be: no more than it has room for.
    #[inline(always)]
    fn first(&mut self, n: usize) -> &mut [u8] {
        debug_assert!(n <= self.space);
        // SAFETY: initialised memory that only this writer reaches. (test: `writing_agrees_with_a_vec`)
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), n) }
    }

    /// Ends the message with bytes that stay where they are. Worth it for large ones (16 KiB and
    /// more); nothing can be written behind them.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Writer::put), or when something is attached already.
    pub fn attach(&mut self, segment: Segment) -> Result<(), Full> {
        if self.attached.is_some() || !self.may_have(segment.len()) {
            return Err(self.full());
        }
        if segment.is_empty() {
            return Ok(());
        }
        self.elsewhere_len += segment.len();
        self.attached = Some(segment);
        // From here on every `put` of more than nothing fails.
        self.limit = self.len();
        self.room = self.len;
        Ok(())
    }

    /// The same for bytes that are not a part of the message, but go along with it. They are never copied.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn attach_beside(&mut self, segment: Segment) -> Result<(), Full> {
        let len = segment.len();
        self.attach(segment)?;
        self.beside_len = len;
        Ok(())
    }

    /// Goes on behind bytes that stay where they are, as in [`attach`](Self::attach): they are in the message, and what
    /// is written afterwards follows them. Only once a message, and only [where](Self::can_attach_within) that can be.
    ///
    /// # Errors
    /// [`Full`] as for [`put`](Writer::put), or when it cannot be.
    pub fn attach_within(&mut self, segment: Segment) -> Result<(), Full> {
        if !self.can_attach_within() || !self.may_have(segment.len()) {
            return Err(self.full());
        }
        if segment.is_empty() {
            return Ok(());
        }
        self.elsewhere_len = segment.len();
        self.limit -= segment.len();
        self.within = Some((self.len(), segment));
        self.room = self.space.min(self.limit);
        Ok(())
    }

    /// Whether [`attach_within`](Self::attach_within) can be: nothing is attached yet, and whoever takes the message
    /// knows of it. Frames of an arena can, writers of a pool if [asked](Self::with_parts).
    #[must_use]
    pub fn can_attach_within(&self) -> bool {
        self.may_attach_within && self.is_whole()
    }

    /// Lets something be attached within, of what follows: whoever finishes it must [take](Self::take_within) that.
    #[must_use]
    pub fn with_parts(mut self) -> Writer {
        self.may_attach_within = true;
        self
    }

    /// Lets nothing be attached within while `write` does so, whatever was let before.
    pub fn in_one_part<R>(&mut self, write: impl FnOnce(&mut Writer) -> R) -> R {
        let before = core::mem::replace(&mut self.may_attach_within, false);
        let result = write(self);
        self.may_attach_within = before;
        result
    }

    /// What was attached within, and behind how many of the bytes that were written.
    pub fn take_within(&mut self) -> Option<(usize, Segment)> {
        let within = self.within.take();
        self.elsewhere_len -= within.as_ref().map_or(0, |(_, segment)| segment.len());
        within
    }

    /// Whether so many bytes more are within the limit, which may be below what a message began with.
    fn may_have(&self, more: usize) -> bool {
        self.limit.checked_sub(self.len()).is_some_and(|left| more <= left)
    }

    #[cold]
    fn full(&self) -> Full {
        let within_len = self.within.as_ref().map_or(0, |(_, segment)| segment.len());
        Full { limit: self.limit + within_len }
    }

    #[cold]
    fn grow(&mut self, more: usize) -> Result<(), Full> {
        let full = self.full();
        let needed = self.len().checked_add(more).ok_or(full)?;
        if needed > self.limit {
            return Err(full);
        }
        let enough = needed.saturating_mul(2).min(self.limit.max(needed));
        let block = self.source.lend(enough.max(self.source.block_bytes()));
        // SAFETY: both ranges hold `len` bytes and lie in different blocks. (test: `writing_agrees_with_a_vec`)
        unsafe { block.data().copy_from_nonoverlapping(self.ptr, self.len()) };
        if let Some(outgrown) = self.block.replace(block) {
            // SAFETY: the writer owned one count of it. (test: `writing_agrees_with_a_vec`)
            unsafe { self.source.release(outgrown) };
        }
        (self.ptr, self.space) = (block.data(), block.capacity());
        self.room = self.space.min(self.limit);
        Ok(())
    }

    /// Freezes what was written into a block of a shared pool.
    pub(crate) fn into_shared(mut self) -> (SharedChunk, Option<Segment>) {
        assert!(matches!(self.source, Source::Shared(_)), "the writer is from a shared pool");
        assert!(self.within.is_none(), "what is attached within is taken first");
        let attached = self.attached.take();
        // The chunk takes over the count.
        (SharedChunk::from_parts(self.ptr, self.len(), self.block.take()), attached)
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.let_go();
    }
}

impl fmt::Debug for Writer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Writer").field("len", &self.len).field("limit", &self.limit).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Arena;
    use alloc::vec::Vec;
    use bytes::Bytes;

    proptest::proptest! {
        #[test]
        fn writing_agrees_with_a_vec(parts: Vec<(u8, u16)>, limit in 0usize..100_000) {
            let pool = Pool::new(1 << 20);
            let mut arena = Arena::new(&pool, 4096);
            let mut model: Vec<u8> = Vec::new();
            let writer = arena.begin(0, limit);
            for (byte, len) in parts {
                let part = alloc::vec![byte; usize::from(len % 3000)];
                let fits = model.len() + part.len() <= limit;
                assert_eq!(writer.put(&part).is_ok(), fits);
                if fits {
                    model.extend_from_slice(&part);
                }
                let padded = model.len().next_multiple_of(16);
                if byte % 3 == 0 {
                    assert_eq!(writer.pad_to(16).is_ok(), padded <= limit);
                    model.resize(if padded <= limit { padded } else { model.len() }, 0);
                }
                assert_eq!(writer.written(), &model[..]);
            }
            let chunk = arena.finish();
            assert_eq!(&*chunk, &model[..]);
            assert!(chunk.is_aligned_to(16));
        }
    }

    #[test]
    fn an_abandoned_frame_changes_nothing() {
        let pool = Pool::new(1 << 20);
        let mut arena = Arena::new(&pool, 4096);
        arena.begin(0, 100).put(b"kept").unwrap();
        let kept = arena.finish();
        arena.begin(0, 100).put(b"gone").unwrap();
        arena.begin(0, 100).put(b"next").unwrap();
        let next = arena.finish();
        assert_eq!((&*kept, &*next), (&b"kept"[..], &b"next"[..]));
    }

    #[test]
    fn attaching_ends_the_message() {
        let pool = Pool::new(0);
        let mut arena = Arena::new(&pool, 4096);
        let writer = arena.begin(0, 10);
        writer.put(b"head").unwrap();
        assert_eq!(writer.attach(Bytes::from_static(b"too long").into()), Err(Full { limit: 10 }));
        writer.attach(Bytes::from_static(b"tail").into()).unwrap();
        assert_eq!(writer.message_len(), 8);
        assert!(writer.put(b"x").is_err());
        assert!(writer.attach(Bytes::from_static(b"x").into()).is_err());
        assert_eq!(writer.beside_len(), 0);
        let (head, tail) = (arena.finish(), arena.take_attached());
        assert_eq!(&*head, b"head");
        assert_eq!(tail.unwrap().as_slice(), Some(&b"tail"[..]));
        let writer = arena.begin(0, 10);
        writer.attach_beside(Bytes::from_static(b"beside").into()).unwrap();
        assert_eq!((writer.message_len(), writer.beside_len()), (6, 6));
        let writer = arena.begin(0, 10);
        assert_eq!(
            (writer.message_len(), writer.beside_len()),
            (0, 0),
            "forgotten with its message"
        );
    }

    #[test]
    fn attaching_within_counts_and_goes_on() {
        let pool = Pool::new(0);
        let mut arena = Arena::new(&pool, 4096);
        let part = || Segment::from(Bytes::from_static(b"middle"));
        let writer = arena.begin(0, 16);
        writer.put(b"head").unwrap();
        writer.attach_within(part()).unwrap();
        assert!(!writer.can_attach_within() && !writer.is_whole());
        assert_eq!(writer.attach_within(part()), Err(Full { limit: 16 }), "once");
        writer.put(b"tail").unwrap();
        assert_eq!((writer.len(), writer.message_len()), (8, 14));
        assert_eq!(writer.put(b"long"), Err(Full { limit: 16 }));
        writer.attach_beside(Bytes::from_static(b"x").into()).unwrap();
        assert_eq!(writer.message_len(), 15);
        let written = arena.finish();
        let (at, middle) = arena.take_within().unwrap();
        assert_eq!((&written[..at], &written[at..]), (&b"head"[..], &b"tail"[..]));
        assert_eq!(middle.as_slice(), Some(&b"middle"[..]));
        assert_eq!(arena.take_attached().unwrap().len(), 1);

        arena.begin(0, 16).attach_within(part()).unwrap();
        let writer = arena.begin(0, 16);
        assert!(writer.is_whole() && writer.can_attach_within(), "forgotten with its message");
        writer.in_one_part(|writer| assert!(writer.attach_within(part()).is_err()));
        assert!(writer.can_attach_within());

        let pool = SharedPool::new(4096);
        assert!(pool.writer(16).attach_within(part()).is_err(), "nobody would take it");
        let mut writer = pool.writer(16).with_parts();
        writer.attach_within(part()).unwrap();
        assert!(writer.take_within().is_some());
    }
}
