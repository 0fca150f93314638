//! Handles for any thread, and a pool that any thread may take from.

use alloc::sync::Arc;
use core::fmt;
use core::ops::Deref;
use core::ptr::NonNull;
use core::slice;

use bytes::Bytes;

use crate::Chunk;
use crate::block::Block;
use crate::pool::{Home, RETURNS};
use crate::segment::{Segment, SharedSegment};
use crate::writer::Writer;

/// Immutable bytes, counted atomically, for any thread. Made by [`Chunk::share`](crate::Chunk::share)
/// and by [`SharedPool`]. When the last one is dropped, its block goes home to the pool it came from.
pub struct SharedChunk {
    ptr: NonNull<u8>,
    len: usize,
    /// `None` for static bytes, else one shared count of the block.
    block: Option<Block>,
}

// SAFETY: the bytes are frozen, the count is atomic, and a block's local half is never touched
// through this handle. (test: `shared_chunks_come_home_from_other_threads`)
unsafe impl Send for SharedChunk {}
// SAFETY: as above; through `&SharedChunk` one can only read and count.
unsafe impl Sync for SharedChunk {}

impl SharedChunk {
    /// Takes over one shared count of `block`.
    pub(crate) fn from_parts(ptr: NonNull<u8>, len: usize, block: Option<Block>) -> SharedChunk {
        SharedChunk { ptr, len, block }
    }

    /// Gives up its shared count to the caller.
    pub(crate) fn into_parts(self) -> (NonNull<u8>, usize, Option<Block>) {
        let this = core::mem::ManuallyDrop::new(self);
        (this.ptr, this.len, this.block)
    }

    /// No bytes.
    #[must_use]
    pub fn empty() -> SharedChunk {
        SharedChunk { ptr: NonNull::dangling(), len: 0, block: None }
    }

    /// Cuts off and returns the first `n` bytes.
    ///
    /// # Panics
    /// When there are fewer.
    #[must_use]
    pub fn split_to(&mut self, n: usize) -> SharedChunk {
        assert!(n <= self.len, "split past the end of a chunk");
        let mut front = self.clone();
        front.len = n;
        // SAFETY: stays within the chunk, checked above. (test: `shared_chunks_split`)
        self.ptr = unsafe { self.ptr.add(n) };
        self.len -= n;
        front
    }
}

impl Clone for SharedChunk {
    fn clone(&self) -> SharedChunk {
        if let Some(block) = self.block {
            block.retain_shared();
        }
        SharedChunk { ptr: self.ptr, len: self.len, block: self.block }
    }
}

impl Drop for SharedChunk {
    fn drop(&mut self) {
        if let Some(block) = self.block {
            // SAFETY: owns one shared count. (test: `shared_chunks_come_home_from_other_threads`)
            unsafe { block.release_shared() };
        }
    }
}

impl Deref for SharedChunk {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        // SAFETY: initialised, kept alive by our count, and frozen. (test: `shared_chunks_come_home_from_other_threads`)
        unsafe { slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl AsRef<[u8]> for SharedChunk {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Default for SharedChunk {
    fn default() -> SharedChunk {
        SharedChunk::empty()
    }
}

impl From<Chunk> for SharedChunk {
    fn from(chunk: Chunk) -> SharedChunk {
        chunk.share()
    }
}

impl From<SharedChunk> for Bytes {
    /// Without copying; allocates the owner that `Bytes` wants.
    fn from(chunk: SharedChunk) -> Bytes {
        if chunk.is_empty() { Bytes::new() } else { Bytes::from_owner(chunk) }
    }
}

impl fmt::Debug for SharedChunk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SharedChunk({} bytes)", self.len)
    }
}

/// Blocks of one size that any thread may take and any thread may give back, without a lock.
///
/// The sending half of a client that is used from many threads encodes into these.
#[derive(Clone)]
pub struct SharedPool(Arc<SharedPoolInner>);

struct SharedPoolInner {
    home: Arc<Home>,
    block_bytes: usize,
}

impl SharedPool {
    /// A pool of blocks of `block_bytes`; larger messages get a block of their own.
    #[must_use]
    pub fn new(block_bytes: usize) -> SharedPool {
        SharedPool::keeping(RETURNS, block_bytes)
    }

    /// The same, which keeps up to `blocks` of them for the next users, one at least, where [`new`](SharedPool::new)
    /// keeps 256.
    #[must_use]
    pub fn keeping(blocks: usize, block_bytes: usize) -> SharedPool {
        let home = Home::new(blocks.max(1), block_bytes, 0);
        SharedPool(Arc::new(SharedPoolInner { home, block_bytes }))
    }

    /// Starts writing into a block; at most `limit` bytes will be accepted.
    #[must_use]
    pub fn writer(&self, limit: usize) -> Writer {
        Writer::shared(self, self.lend(0), limit)
    }

    /// Freezes what was written, and gives the part that was attached, if any.
    ///
    /// # Panics
    /// When the writer is not from a shared pool.
    #[must_use]
    pub fn finish(&self, writer: Writer) -> (SharedChunk, Option<SharedSegment>) {
        let (chunk, attached) = writer.into_shared();
        (chunk, attached.map(Segment::share))
    }

    /// A block of at least `min` bytes, lent to the caller as its only shared handle.
    pub(crate) fn lend(&self, min: usize) -> Block {
        let Self(inner) = self;
        // Only blocks of the pool's own size come home, see `Home::new`.
        let kept = if min <= inner.block_bytes { inner.home.pop() } else { None };
        let block =
            kept.unwrap_or_else(|| Block::allocate(min.max(inner.block_bytes), &inner.home));
        block.lend_shared();
        block
    }
}

impl Drop for SharedPoolInner {
    fn drop(&mut self) {
        // Blocks hold their home alive and its queue holds blocks: break that circle.
        self.home.close();
    }
}

impl fmt::Debug for SharedPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedPool")
            .field("block_bytes", &self.0.block_bytes)
            .field("free", &self.0.home.returns.len())
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Pool;
    use std::thread;

    #[test]
    fn a_pool_keeps_as_many_blocks_as_it_is_told() {
        for (pool, kept) in [
            (SharedPool::new(4096), RETURNS),
            (SharedPool::keeping(300, 4096), 300),
            (SharedPool::keeping(0, 4096), 1),
        ] {
            let lent: alloc::vec::Vec<_> = (0..310).map(|_| pool.writer(16)).collect();
            drop(lent);
            assert_eq!(pool.0.home.returns.len(), kept);
        }
    }

    #[test]
    fn shared_chunks_come_home_from_other_threads() {
        let pool = Pool::new(1 << 20);
        for round in 0..100u8 {
            let chunk = pool.copy(&[round; 5000]);
            let shared = chunk.share();
            let again = shared.clone();
            drop(chunk);
            let handle = thread::spawn(move || assert!(shared.iter().all(|&b| b == round)));
            assert!(again.iter().all(|&b| b == round));
            drop(again);
            handle.join().unwrap();
        }
        let _one = pool.take(5000);
        // One block served all rounds, or two where a round began before the last one's came home.
        assert!(pool.stats().kept_bytes + pool.stats().lent_bytes <= 3 * 8192);
    }

    #[test]
    fn shared_chunks_outlive_the_pool() {
        let pool = Pool::new(1 << 20);
        let shared: alloc::vec::Vec<_> = (0..20).map(|i| pool.copy(&[i; 64]).share()).collect();
        let threads = shared.into_iter().map(|chunk| thread::spawn(move || chunk[0]));
        let threads: alloc::vec::Vec<_> = threads.collect();
        drop(pool);
        let sum: u32 = threads.into_iter().map(|t| u32::from(t.join().unwrap())).sum();
        assert_eq!(sum, (0..20).sum());
    }

    #[test]
    fn shared_chunks_split() {
        let pool = Pool::new(0);
        let mut rest = pool.copy(b"abcdef").share();
        let front = rest.split_to(2);
        assert_eq!((&*front, &*rest), (&b"ab"[..], &b"cdef"[..]));
        let bytes = Bytes::from(rest);
        assert_eq!(&bytes[..], b"cdef");
    }

    #[test]
    fn a_shared_pool_reuses_blocks_across_threads() {
        let pool = SharedPool::new(4096);
        for i in 0..50u8 {
            let mut writer = pool.writer(1 << 20);
            writer.put(&[i; 100]).unwrap();
            let (chunk, _) = pool.finish(writer);
            let other = pool.clone();
            thread::spawn(move || {
                assert_eq!(&*chunk, &[i; 100]);
                drop(chunk);
                drop(other);
            })
            .join()
            .unwrap();
        }
        assert_eq!(pool.0.home.returns.len(), 1);
    }

    #[test]
    fn an_abandoned_writer_gives_its_block_back() {
        let pool = SharedPool::new(4096);
        drop(pool.writer(100));
        assert_eq!(pool.0.home.returns.len(), 1);
    }
}
