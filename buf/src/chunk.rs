//! Handles of one thread: shared and immutable, or exclusive and writable.

use core::fmt;
use core::ops::{Deref, Range};
use core::ptr::NonNull;
use core::slice;

use crate::block::Block;
use crate::shared::SharedChunk;

/// Immutable bytes, reference counted without atomics, for one thread.
///
/// Received data and frozen frames are chunks. Cloning and slicing count, they do not copy. The
/// address of the bytes does not change while any handle of their block lives.
pub struct Chunk {
    ptr: NonNull<u8>,
    len: u32,
    count: Count,
    /// `None` for static bytes, else one count of the block.
    block: Option<Block>,
}

/// How a chunk's block is counted. Of four bytes, so that a chunk has none of padding, which would be moved by
/// themselves.
#[derive(Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
enum Count {
    /// On its thread.
    Local,
    /// By all threads: the bytes came from another one.
    Shared,
}

/// Blocks are smaller than this, so that a chunk stays three words.
pub(crate) const LEN_MAX: usize = u32::MAX as usize;

impl Chunk {
    /// No bytes.
    #[inline]
    #[must_use]
    pub const fn empty() -> Chunk {
        Chunk::from_static(&[])
    }

    /// Bytes that live for ever; never counted.
    #[inline]
    #[must_use]
    pub const fn from_static(bytes: &'static [u8]) -> Chunk {
        // `as_ptr` of a slice is never null, also when the slice is empty.
        let Some(ptr) = NonNull::new(bytes.as_ptr().cast_mut()) else { unreachable!() };
        assert!(bytes.len() <= LEN_MAX, "a chunk is shorter than 4 GiB");
        Chunk { ptr, len: bytes.len() as u32, count: Count::Local, block: None }
    }

    /// Takes over one local count of `block`.
    #[inline]
    pub(crate) fn from_block(block: Block, start: usize, len: usize) -> Chunk {
        debug_assert!(start + len <= block.capacity());
        // SAFETY: within the block's memory. (test: `chunks_keep_their_bytes`)
        let ptr = unsafe { block.data().add(start) };
        Chunk { ptr, len: len as u32, count: Count::Local, block: Some(block) }
    }

    /// Takes over one shared count of `block`, if there is one.
    pub(crate) fn from_shared_parts(ptr: NonNull<u8>, len: usize, block: Option<Block>) -> Chunk {
        let count = if block.is_some() { Count::Shared } else { Count::Local };
        Chunk { ptr, len: len as u32, count, block }
    }

    /// How many bytes.
    #[inline]
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Whether the first byte's address is a multiple of `align`, a power of two. An empty chunk is
    /// aligned to everything.
    #[inline]
    #[must_use]
    pub fn is_aligned_to(&self, align: usize) -> bool {
        self.len == 0 || self.ptr.as_ptr().addr() & (align - 1) == 0
    }

    /// Forgets the first `n` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    pub fn advance(&mut self, n: usize) {
        assert!(n <= self.len(), "advance past the end of a chunk");
        // SAFETY: stays within the chunk, checked above. (test: `slicing_agrees_with_slices`)
        self.ptr = unsafe { self.ptr.add(n) };
        self.len -= n as u32;
    }

    /// Forgets all but the first `n` bytes; nothing if there are no more.
    #[inline]
    pub fn truncate(&mut self, n: usize) {
        self.len = self.len().min(n) as u32;
    }

    /// Cuts off and returns the first `n` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline]
    #[must_use]
    pub fn split_to(&mut self, n: usize) -> Chunk {
        let mut front = self.clone();
        self.advance(n);
        front.len = n as u32;
        front
    }

    /// Cuts off the first `total` bytes, and returns `len` of them from `skip` on.
    ///
    /// # Panics
    /// When there are fewer.
    #[inline(always)]
    #[must_use]
    pub fn cut(&mut self, total: usize, skip: usize, len: usize) -> Chunk {
        assert!(skip <= total && len <= total - skip && total <= self.len(), "cut too much");
        if len == 0 {
            // What is empty holds on to nothing.
            self.advance(total);
            if self.len == 0 {
                *self = Chunk::empty();
            }
            return Chunk::empty();
        }
        // SAFETY: stays within the chunk, checked above. (test: `slicing_agrees_with_slices`)
        let ptr = unsafe { self.ptr.add(skip) };
        let count = self.count;
        if total == self.len() {
            // The part takes over our count.
            let block = self.block.take();
            self.len = 0;
            return Chunk { ptr, len: len as u32, count, block };
        }
        let block = self.clone_block();
        // SAFETY: as above. (test: `slicing_agrees_with_slices`)
        self.ptr = unsafe { self.ptr.add(total) };
        self.len -= total as u32;
        Chunk { ptr, len: len as u32, count, block }
    }

    /// The frame in front, if it is here: `skip` bytes, `N` bytes, `len` bytes, and what fills all of it up to a
    /// multiple of 16.
    #[inline(always)]
    #[must_use]
    pub fn front_frame<const N: usize>(
        &mut self,
        skip: u32,
        len: u32,
    ) -> Option<FrontFrame<'_, N>> {
        // What overflows is longer than every chunk.
        let total = len.checked_add(skip + N as u32 + 15)? & !15;
        if total > self.len {
            return None;
        }
        Some(FrontFrame { skip, len, total, chunk: self })
    }

    #[inline]
    fn clone_block(&self) -> Option<Block> {
        if let Some(block) = self.block {
            match self.count {
                Count::Local => block.retain_local(),
                Count::Shared => block.retain_shared(),
            }
        }
        self.block
    }

    /// It ends there now: what lies between was appended to it, in the same block.
    #[inline]
    pub(crate) fn extend_to(&mut self, end: *const u8) {
        self.len = (end.addr() - self.ptr.as_ptr().addr()) as u32;
        debug_assert!(self.block.is_none_or(|block| {
            let front = self.ptr.as_ptr().addr() - block.data().as_ptr().addr();
            front + self.len() <= block.capacity()
        }));
    }

    /// Whether it holds this block.
    pub(crate) fn is_of(&self, block: Option<Block>) -> bool {
        self.block.is_some() && self.block == block
    }

    /// Whether both hold the same block, in the same way.
    pub(crate) fn has_block_of(&self, other: &Chunk) -> bool {
        self.is_of(other.block) && self.count == other.count
    }

    /// Another handle to a part of the bytes.
    ///
    /// # Panics
    /// When the range does not lie within the chunk.
    #[inline]
    #[must_use]
    pub fn slice(&self, range: Range<usize>) -> Chunk {
        assert!(range.start <= range.end && range.end <= self.len(), "slice outside of a chunk");
        let mut part = self.clone();
        part.advance(range.start);
        part.len = (range.end - range.start) as u32;
        part
    }

    /// Appends `next` without copying if it lies right behind in the same block, else gives it back.
    #[inline]
    pub fn try_join(&mut self, next: Chunk) -> Result<(), Chunk> {
        let behind = self.ptr.as_ptr().wrapping_add(self.len());
        if self.has_block_of(&next) && behind == next.ptr.as_ptr() {
            self.len += next.len;
            return Ok(());
        }
        Err(next)
    }

    /// A handle for other threads. Costs one atomic increment; nothing is copied.
    #[inline]
    #[must_use]
    pub fn share(&self) -> SharedChunk {
        if let Some(block) = self.block {
            block.retain_shared();
        }
        // The new handle takes over the count made above.
        SharedChunk::from_parts(self.ptr, self.len(), self.block)
    }
}

/// A frame that lies in front of a chunk, see [`Chunk::front_frame`].
pub struct FrontFrame<'a, const N: usize> {
    skip: u32,
    len: u32,
    /// Never more than the chunk has.
    total: u32,
    chunk: &'a mut Chunk,
}

impl<const N: usize> FrontFrame<'_, N> {
    /// Its second part.
    #[inline(always)]
    #[must_use]
    pub fn header(&self) -> &[u8; N] {
        // SAFETY: it lies within the chunk, which is borrowed as long as this is. (test: `slicing_agrees_with_slices`)
        unsafe { self.header_ptr().as_ref() }
    }

    #[inline(always)]
    fn header_ptr(&self) -> NonNull<[u8; N]> {
        // SAFETY: stays within the chunk, checked by `front_frame`. (test: `slicing_agrees_with_slices`)
        unsafe { self.chunk.ptr.add(self.skip as usize) }.cast()
    }

    /// How long its third part is.
    #[inline(always)]
    #[must_use]
    pub fn body_len(&self) -> u32 {
        self.len
    }

    /// Whether what fills its last 16 bytes up is zeros.
    #[inline(always)]
    #[must_use]
    pub fn is_filled_with_zeros(&self) -> bool {
        let missing = self.len.wrapping_add(self.skip + N as u32).wrapping_neg() & 15;
        if missing == 0 {
            return true;
        }
        // As two words: shifting both at once takes four times as long.
        let bytes = self.chunk.get(..self.total as usize).unwrap_or_default();
        let Some((front, last)) = bytes.split_last_chunk::<8>() else { return false };
        let last = u64::from_le_bytes(*last);
        if missing <= 8 {
            return last >> (64 - missing * 8) == 0;
        }
        let before = front.last_chunk().map_or(u64::MAX, |before| u64::from_le_bytes(*before));
        last == 0 && before >> (128 - missing * 8) == 0
    }

    /// Cuts it off: its second part by value, and its third.
    #[inline(always)]
    #[must_use]
    pub fn cut(self) -> ([u8; N], Chunk) {
        let header = self.header_ptr();
        let FrontFrame { len, total, chunk, .. } = self;
        if len == 0 {
            // SAFETY: within the chunk, which still has its count. (test: `slicing_agrees_with_slices`)
            let header = unsafe { header.read() };
            return (header, chunk.cut(total as usize, 0, 0));
        }
        // SAFETY: as above. (test: `slicing_agrees_with_slices`)
        let ptr = unsafe { header.add(1) }.cast();
        let (count, block) = (chunk.count, chunk.block);
        // SAFETY: as above. (test: `slicing_agrees_with_slices`)
        chunk.ptr = unsafe { chunk.ptr.add(total as usize) };
        chunk.len -= total;
        match chunk.len {
            // The part takes over our count.
            0 => chunk.block = None,
            _ => _ = chunk.clone_block(),
        }
        // Read last, so that it goes straight to where it is wanted.
        // SAFETY: within the chunk as it was, of which the part holds a count. (test: `slicing_agrees_with_slices`)
        (unsafe { header.read() }, Chunk { ptr, len, count, block })
    }
}

impl<const N: usize> fmt::Debug for FrontFrame<'_, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FrontFrame({} bytes)", self.total)
    }
}

impl Clone for Chunk {
    #[inline]
    fn clone(&self) -> Chunk {
        let block = self.clone_block();
        Chunk { ptr: self.ptr, len: self.len, count: self.count, block }
    }
}

impl Drop for Chunk {
    #[inline]
    fn drop(&mut self) {
        let Some(block) = self.block else { return };
        match self.count {
            // SAFETY: a chunk owns one local count and never leaves its thread. (test: `chunks_keep_their_bytes`)
            Count::Local => unsafe { block.release_local() },
            // SAFETY: a foreign chunk owns one shared count. (test: `foreign_chunks_go_home`)
            Count::Shared => unsafe { block.release_shared() },
        }
    }
}

impl Deref for Chunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised memory that our count keeps alive; nobody writes to a frozen range. (test: `chunks_keep_their_bytes`)
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.len()) }
    }
}

impl AsRef<[u8]> for Chunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<SharedChunk> for Chunk {
    /// The same bytes under the interface of a local chunk, on whatever thread; it goes on counting
    /// atomically.
    fn from(chunk: SharedChunk) -> Chunk {
        let (ptr, len, block) = chunk.into_parts();
        Chunk::from_shared_parts(ptr, len, block)
    }
}

impl Default for Chunk {
    #[inline]
    fn default() -> Chunk {
        Chunk::empty()
    }
}

impl fmt::Debug for Chunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Lengths only: what travels in a chunk may be secret.
        write!(f, "Chunk({} bytes)", self.len)
    }
}

/// Exclusive memory that is being filled, front to back: a body that lands, a frame being gathered.
pub struct ChunkMut {
    ptr: NonNull<u8>,
    len: usize,
    filled: usize,
    /// One local count.
    block: Block,
    /// The kernel has it.
    #[cfg(debug_assertions)]
    is_lent: bool,
}

impl ChunkMut {
    /// Takes over one local count of `block`; nobody else may hold any part of the range.
    pub(crate) fn from_block(block: Block, start: usize, len: usize) -> ChunkMut {
        debug_assert!(start + len <= block.capacity());
        // SAFETY: within the block's memory. (test: `chunks_keep_their_bytes`)
        let ptr = unsafe { block.data().add(start) };
        ChunkMut {
            ptr,
            len,
            filled: 0,
            block,
            #[cfg(debug_assertions)]
            is_lent: false,
        }
    }

    /// The whole length, filled or not.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.len
    }

    /// How many bytes are filled.
    #[must_use]
    pub fn filled_len(&self) -> usize {
        self.filled
    }

    /// How many bytes are missing.
    #[must_use]
    pub fn missing(&self) -> usize {
        self.len - self.filled
    }

    /// What is filled.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        self.check_owner();
        // SAFETY: all memory of a block is initialised, and the range is ours alone. (test: `chunks_keep_their_bytes`)
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.filled) }
    }

    /// What is missing: stale bytes to write over. Follow with [`fill`](Self::fill).
    #[must_use]
    pub fn spare(&mut self) -> &mut [u8] {
        self.check_owner();
        // SAFETY: within the range, since `filled <= len`. (test: `chunks_keep_their_bytes`)
        let start = unsafe { self.ptr.add(self.filled) };
        // SAFETY: initialised, ours alone, and borrowed as long as the slice lives. (test: `chunks_keep_their_bytes`)
        unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.len - self.filled) }
    }

    /// What is missing, for the kernel to write to: where it is, and how long. Until
    /// [`take_back`](Self::take_back) the memory is the kernel's, and whoever reads it, writes to it or drops it meanwhile
    /// panics where `debug_assertions` are on; to forget it is right if the kernel never gives it back.
    #[must_use]
    pub fn lend(&mut self) -> (*mut u8, usize) {
        let spare = self.spare();
        let lent = (spare.as_mut_ptr(), spare.len());
        #[cfg(debug_assertions)]
        {
            self.is_lent = true;
        }
        lent
    }

    /// The kernel is done with it.
    pub fn take_back(&mut self) {
        #[cfg(debug_assertions)]
        {
            assert!(self.is_lent, "memory comes back that was not lent");
            self.is_lent = false;
        }
    }

    #[inline(always)]
    fn check_owner(&self) {
        #[cfg(debug_assertions)]
        assert!(!self.is_lent, "memory is used while the kernel has it");
    }

    /// Says that the first `n` bytes of [`spare`](Self::spare) hold data now.
    ///
    /// # Panics
    /// When fewer are missing.
    pub fn fill(&mut self, n: usize) {
        self.check_owner();
        assert!(n <= self.missing(), "filled past the end of a buffer");
        self.filled += n;
    }

    /// Appends a copy of `bytes`.
    ///
    /// # Panics
    /// When they do not fit.
    pub fn extend_from_slice(&mut self, bytes: &[u8]) {
        self.spare()[..bytes.len()].copy_from_slice(bytes);
        self.filled += bytes.len();
    }

    /// Makes what is filled immutable.
    #[must_use]
    pub fn freeze(self) -> Chunk {
        self.check_owner();
        let this = core::mem::ManuallyDrop::new(self);
        // The chunk takes over our count.
        Chunk {
            ptr: this.ptr,
            len: this.filled as u32,
            count: Count::Local,
            block: Some(this.block),
        }
    }
}

impl Drop for ChunkMut {
    fn drop(&mut self) {
        self.check_owner();
        // SAFETY: owns one local count and never leaves its thread. (test: `chunks_keep_their_bytes`)
        unsafe { self.block.release_local() };
    }
}

impl fmt::Debug for ChunkMut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ChunkMut({} of {} bytes)", self.filled, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;

    #[test]
    fn chunks_keep_their_bytes() {
        let pool = Pool::new(1 << 20);
        let chunk = pool.copy(b"hello world");
        let world = chunk.slice(6..11);
        drop(chunk);
        // Churn: had the block been freed or lent again, it would be overwritten here.
        for _ in 0..10 {
            let _ = pool.copy(&[0xff; 100]);
        }
        assert_eq!(&*world, b"world");
        assert_eq!(pool.stats().lent_bytes, 256);
        drop(world);
        assert_eq!(pool.stats().lent_bytes, 0);
    }

    #[test]
    fn a_chunk_outlives_its_pool() {
        let chunk = Pool::new(1 << 20).copy(b"still here");
        assert_eq!(&*chunk, b"still here");
    }

    #[test]
    fn foreign_chunks_go_home() {
        let pool = Pool::new(1 << 20);
        let shared = pool.copy(b"from afar").share();
        std::thread::spawn(move || {
            let chunk = Chunk::from(shared);
            let copy = chunk.clone();
            let mut front = chunk.slice(0..4);
            assert!(front.try_join(chunk.slice(4..9)).is_ok());
            assert_eq!((&*front, &*copy), (&b"from afar"[..], &b"from afar"[..]));
            drop(chunk);
            assert_eq!(&*front.share(), b"from afar");
        })
        .join()
        .unwrap();
        assert_eq!(pool.stats().lent_bytes, 0);
        let _again = pool.take(1);
        assert_eq!(pool.stats().lent_bytes, 256);
    }

    #[test]
    fn neighbours_join() {
        let pool = Pool::new(0);
        let whole = pool.copy(b"abcdef");
        let mut front = whole.slice(0..2);
        assert!(front.try_join(whole.slice(2..4)).is_ok());
        assert_eq!(&*front, b"abcd");
        assert!(front.try_join(whole.slice(5..6)).is_err());
        assert!(front.try_join(pool.copy(b"x")).is_err());
        assert!(Chunk::empty().try_join(Chunk::empty()).is_err());
    }

    #[test]
    fn what_fills_a_frame_up_is_zeros() {
        for len in 0..=32u32 {
            let filled = len.next_multiple_of(16) as usize;
            for at in 0..filled {
                let mut bytes = [0; 48];
                bytes[..16 + len as usize].fill(7);
                bytes[16 + at] = 7;
                let mut chunk = Pool::new(0).copy(&bytes);
                let frame = chunk.front_frame::<16>(0, len).unwrap();
                assert_eq!(frame.is_filled_with_zeros(), at < len as usize, "{len} {at}");
            }
        }
    }

    #[test]
    fn static_bytes_need_no_block() {
        let mut chunk = Chunk::from_static(b"static");
        assert_eq!(&*chunk.split_to(2), b"st");
        assert_eq!(&*chunk.share(), b"atic");
        assert!(Chunk::empty().is_aligned_to(64));
    }

    proptest::proptest! {
        #[test]
        fn slicing_agrees_with_slices(bytes: std::vec::Vec<u8>, cuts: std::vec::Vec<(u16, u16)>) {
            let pool = Pool::new(1 << 20);
            let mut chunk = pool.copy(&bytes);
            let mut model = &bytes[..];
            for (a, b) in cuts {
                let at = a as usize % (model.len() + 1);
                let (front, rest) = model.split_at(at);
                let cut = chunk.split_to(at);
                assert_eq!(&*cut, front);
                let end = b as usize % (front.len() + 1);
                assert_eq!(&*cut.slice(end / 2..end), &front[end / 2..end]);
                let again = cut.clone().cut(end, end / 2, end - end / 2);
                assert_eq!(&*again, &front[end / 2..end]);
                if let Some((by_value, rest)) = front.get(end..).and_then(|at| at.split_first_chunk::<3>()) {
                    let missing = (end + 3).wrapping_neg() & 15;
                    let mut frame = cut.clone();
                    assert!(frame.front_frame::<3>(end as u32, rest.len() as u32 + 1).is_none());
                    assert!(frame.front_frame::<3>(end as u32, u32::MAX).is_none());
                    if let Some(whole) = rest.len().checked_sub(missing) {
                        let filled = missing + (whole & !15);
                        let len = filled - filled.min(b as usize % 16);
                        let front = frame.front_frame::<3>(end as u32, len as u32).unwrap();
                        assert_eq!((front.header(), front.body_len()), (by_value, len as u32));
                        let zeros = rest[len..filled].iter().all(|&byte| byte == 0);
                        assert_eq!(front.is_filled_with_zeros(), zeros);
                        let (found, part) = front.cut();
                        assert_eq!((&found, &*part), (by_value, &rest[..len]));
                        assert_eq!(&*frame, &rest[filled..]);
                    }
                }
                model = rest;
                assert_eq!(&*chunk, model);
            }
        }
    }
}
