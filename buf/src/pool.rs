//! Blocks of powers of two, kept for the next user.

use alloc::rc::Rc;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::cell::{Cell, RefCell};
use core::fmt;

use crate::block::Block;
use crate::sync::{ArrayQueue, AtomicBool, AtomicUsize, Ordering, fence};
use crate::{Chunk, ChunkMut};

const SMALLEST_LOG2: u32 = 8;
const LARGEST_LOG2: u32 = 26;
const CLASSES: usize = (LARGEST_LOG2 - SMALLEST_LOG2 + 1) as usize;

/// How many blocks that ended as shared handles may wait to come home; beyond it they are freed.
pub(crate) const RETURNS: usize = 256;

/// Of larger blocks no more than [`LARGE_RETURNS_BYTES_MAX`] wait together; beyond it they are freed.
const RETURN_BYTES_MAX: usize = 128 * 1024;

/// A few bodies of some MiB. They are mapped and zeroed anew if they do not come home.
const LARGE_RETURNS_BYTES_MAX: usize = 16 << 20;

/// Blocks of memory for the handles of one thread.
///
/// Cloning is cheap and gives another handle of the same pool; it stays on its thread. Blocks come
/// in powers of two from 256 bytes to 64 MiB, larger ones are allocated and freed as they are; free
/// blocks are kept up to the number of bytes given to [`Pool::new`].
#[derive(Clone)]
pub struct Pool(Rc<PoolInner>);

pub(crate) struct PoolInner {
    home: Arc<Home>,
    free: RefCell<[Free; CLASSES]>,
    kept_bytes: Cell<usize>,
    kept_bytes_max: usize,
    /// Without what ended on other threads.
    lent_bytes: Cell<usize>,
    high_water: Cell<usize>,
    is_high: Cell<bool>,
    /// Memory of other kinds that counts with what is lent, see [`Reservation`].
    reserved_bytes: Cell<usize>,
    bound: Cell<Bound>,
    level: Cell<Level>,
}

/// The free blocks of one size.
struct Free {
    /// Those that came last are taken first, since they are likely to be in the cache.
    blocks: Vec<Block>,
    /// So many there were at any time since [`Pool::release_unused`].
    unused: usize,
}

impl Free {
    const NONE: Free = Free { blocks: Vec::new(), unused: 0 };

    #[inline]
    fn pop(&mut self) -> Option<Block> {
        let block = self.blocks.pop()?;
        self.unused = self.unused.min(self.blocks.len());
        Some(block)
    }
}

/// How much may be held of a pool, lent blocks and [reservations](Pool::reserve) together, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Above it memory is [short](Pool::is_short), until an eighth of this is free again.
    pub short: usize,
    /// Above it memory is [full](Pool::is_full).
    pub full: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Level {
    Enough,
    Short,
    Full,
}

/// What a pool holds at the moment, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PoolStats {
    /// In blocks that somebody holds.
    pub lent_bytes: usize,
    /// In blocks that wait for a user; without those of up to 128 KiB that are still on their way home.
    pub kept_bytes: usize,
}

impl Pool {
    /// A pool that keeps at most `kept_bytes_max` bytes of free blocks.
    #[must_use]
    pub fn new(kept_bytes_max: usize) -> Pool {
        Pool(Rc::new(PoolInner {
            home: Home::new(RETURNS, RETURN_BYTES_MAX, LARGE_RETURNS_BYTES_MAX),
            free: RefCell::new([Free::NONE; CLASSES]),
            kept_bytes: Cell::new(0),
            kept_bytes_max,
            lent_bytes: Cell::new(0),
            high_water: Cell::new(usize::MAX),
            is_high: Cell::new(false),
            reserved_bytes: Cell::new(0),
            bound: Cell::new(Bound { short: usize::MAX, full: usize::MAX }),
            level: Cell::new(Level::Enough),
        }))
    }

    /// How much may be held; as much as there is, by default. A pool gives out blocks beyond it as well: it
    /// is for whoever uses it to hold less then. Free blocks are kept only as far as there is room for them
    /// within it.
    pub fn set_bound(&self, bound: Bound) {
        self.0.bound.set(bound);
        // An eighth of it for each kind of them.
        let (home, part) = (&self.0.home, bound.full / 8);
        home.return_bytes_max.store(RETURN_BYTES_MAX.min(part / RETURNS), Ordering::Relaxed);
        home.large_bytes_max.store(LARGE_RETURNS_BYTES_MAX.min(part), Ordering::Relaxed);
        self.0.look_at_the_water();
    }

    /// What [`set_bound`](Pool::set_bound) said.
    #[must_use]
    pub fn bound(&self) -> Bound {
        self.0.bound.get()
    }

    /// Whether more is held than the lower mark of its [bound](Pool::set_bound); of what ended on other threads
    /// it hears like [`is_high`](Pool::is_high).
    #[inline]
    #[must_use]
    pub fn is_short(&self) -> bool {
        self.0.level.get() != Level::Enough
    }

    /// Whether more is held than its [bound](Pool::set_bound).
    #[inline]
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.0.level.get() == Level::Full
    }

    /// Lent blocks and reservations.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.0.held_bytes()
    }

    /// Counts memory that is not the pool's with what is held of it, until the reservation is dropped.
    #[must_use]
    pub fn reserve(&self, bytes: usize) -> Reservation {
        let mut reservation = Reservation { pool: self.clone(), bytes: 0 };
        reservation.grow(bytes);
        reservation
    }

    /// Looks again how much is held, since what ends on other threads does not say so.
    pub fn look(&self) {
        self.0.look_at_the_water();
    }

    /// From how many lent bytes on [`is_high`](Pool::is_high) says so.
    pub fn set_high_water(&self, bytes: usize) {
        self.0.high_water.set(bytes);
        self.0.look_at_the_water();
    }

    /// Whether more is lent than the high-water mark. What ended on other threads is noticed when the
    /// next block is lent or comes back.
    #[inline]
    #[must_use]
    pub fn is_high(&self) -> bool {
        self.0.is_high.get()
    }

    /// How much memory [`take`](Pool::take) uses for `len` bytes.
    #[must_use]
    pub fn cost(len: usize) -> usize {
        class_of(len).map_or(len, |class| 1 << (SMALLEST_LOG2 as usize + class))
    }

    /// Exclusive memory of exactly `len` bytes, aligned to 64. Its contents are initialised but
    /// stale: what an earlier user left is still there.
    #[must_use]
    pub fn take(&self, len: usize) -> ChunkMut {
        // The new handle owns the block's one local count.
        ChunkMut::from_block(self.lend(len), 0, len)
    }

    /// A chunk with a copy of `bytes`.
    #[must_use]
    pub fn copy(&self, bytes: &[u8]) -> Chunk {
        let mut buffer = self.take(bytes.len());
        buffer.extend_from_slice(bytes);
        buffer.freeze()
    }

    /// Frees half of the blocks, of each size, that have been free ever since this was called before, while more
    /// than `keep` bytes are kept. Called every now and then it takes back what one bad moment needed, and leaves
    /// what is needed time and again.
    pub fn release_unused(&self, keep: usize) {
        let PoolInner { free, kept_bytes, .. } = &*self.0;
        self.0.take_home(&mut free.borrow_mut());
        for Free { blocks, unused } in free.borrow_mut().iter_mut().rev() {
            let Some(bytes) = blocks.first().map(|block| block.capacity()) else { continue };
            let much = kept_bytes.get().saturating_sub(keep).div_ceil(bytes);
            // Those that have been here for longest.
            for block in blocks.drain(..unused.div_ceil(2).min(much)) {
                kept_bytes.set(kept_bytes.get() - bytes);
                // SAFETY: free blocks have no handles. (test: `what_nobody_needs_is_released`)
                unsafe { block.free() };
            }
            *unused = blocks.len();
        }
    }

    /// What the pool holds at the moment.
    #[inline]
    #[must_use]
    pub fn stats(&self) -> PoolStats {
        let large_bytes = self.0.home.large_bytes.load(Ordering::Relaxed);
        PoolStats {
            lent_bytes: self.0.lent_bytes(),
            kept_bytes: self.0.kept_bytes.get() + large_bytes,
        }
    }

    /// A block of at least `min` bytes, lent to the caller as its only local handle.
    pub(crate) fn lend(&self, min: usize) -> Block {
        let block = match class_of(min) {
            Some(class) => self
                .0
                .take_free(class)
                .unwrap_or_else(|| Block::allocate(Pool::cost(min), &self.0.home)),
            None => Block::allocate(min, &self.0.home),
        };
        block.lend_local(&self.0);
        self.0.lent_bytes.set(self.0.lent_bytes.get().wrapping_add(block.capacity()));
        self.0.look_at_the_water();
        block
    }
}

impl fmt::Debug for Pool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Pool").field(&self.stats()).finish()
    }
}

impl PoolInner {
    fn lent_bytes(&self) -> usize {
        let ended_elsewhere = self.home.ended_bytes.load(Ordering::Relaxed);
        self.lent_bytes.get().wrapping_sub(ended_elsewhere)
    }

    fn held_bytes(&self) -> usize {
        self.lent_bytes().saturating_add(self.reserved_bytes.get())
    }

    fn look_at_the_water(&self) {
        let (lent, held) = (self.lent_bytes(), self.held_bytes());
        let Bound { short, full } = self.bound.get();
        let leave = if self.level.get() == Level::Enough { 0 } else { short / 8 };
        let level = match held {
            held if held > full => Level::Full,
            held if held > short - leave => Level::Short,
            _ => Level::Enough,
        };
        self.level.set(level);
        self.is_high.set(lent > self.high_water.get() || level != Level::Enough);
        if self.kept_bytes.get() > self.room_to_keep(held) {
            self.trim(self.room_to_keep(held));
        }
    }

    /// How many bytes of free blocks may be kept when so many are held.
    fn room_to_keep(&self, held: usize) -> usize {
        self.bound.get().full.saturating_sub(held).min(self.kept_bytes_max)
    }

    /// Frees blocks, the largest first, until no more than these bytes are kept.
    #[cold]
    fn trim(&self, kept_bytes_max: usize) {
        for class in self.free.borrow_mut().iter_mut().rev() {
            while self.kept_bytes.get() > kept_bytes_max
                && let Some(block) = class.pop()
            {
                self.kept_bytes.set(self.kept_bytes.get() - block.capacity());
                // SAFETY: free blocks have no handles. (test: `free_blocks_are_kept_within_the_bound`)
                unsafe { block.free() };
            }
        }
    }

    fn take_free(&self, class: usize) -> Option<Block> {
        let mut free = self.free.borrow_mut();
        if free[class].blocks.is_empty() {
            self.take_home(&mut free);
        }
        #[cfg(ringcall_poison)]
        free[class].blocks.last()?.check_poison();
        let block = free[class].pop()?;
        self.kept_bytes.set(self.kept_bytes.get() - block.capacity());
        Some(block)
    }

    /// Takes back what ended as a handle of any thread.
    fn take_home(&self, free: &mut [Free; CLASSES]) {
        if self.home.returns.is_empty() {
            return;
        }
        while let Some(block) = self.home.pop() {
            self.keep(free, block);
        }
    }

    /// Takes back a block that nobody holds any more.
    pub(crate) fn recycle(&self, block: Block) {
        block.ledger().give_back();
        self.lent_bytes.set(self.lent_bytes.get().wrapping_sub(block.capacity()));
        self.look_at_the_water();
        self.keep(&mut self.free.borrow_mut(), block);
    }

    fn keep(&self, free: &mut [Free; CLASSES], block: Block) {
        let kept = self.kept_bytes.get() + block.capacity();
        match class_of(block.capacity()) {
            Some(class) if kept <= self.room_to_keep(self.held_bytes()) => {
                #[cfg(ringcall_poison)]
                block.poison();
                free[class].blocks.push(block);
                self.kept_bytes.set(kept);
            }
            // SAFETY: the block came here because its last handle is gone. (test: `a_pool_keeps_only_what_it_may`)
            _ => unsafe { block.free() },
        }
    }
}

impl Drop for PoolInner {
    fn drop(&mut self) {
        for block in self.free.get_mut().iter_mut().flat_map(|class| class.blocks.drain(..)) {
            // SAFETY: free blocks have no handles. (test: `a_pool_keeps_only_what_it_may`)
            unsafe { block.free() };
        }
        self.home.close();
    }
}

/// Memory that is counted with a pool's although it is not: tables, and what their entries lead to. It counts
/// until this is dropped.
pub struct Reservation {
    pool: Pool,
    bytes: usize,
}

impl Reservation {
    /// Counts so many bytes more.
    pub fn grow(&mut self, bytes: usize) {
        self.bytes += bytes;
        let PoolInner { reserved_bytes, .. } = &*self.pool.0;
        reserved_bytes.set(reserved_bytes.get() + bytes);
        self.pool.0.look_at_the_water();
    }

    /// Counts so many bytes less, or none if it counts fewer.
    pub fn shrink(&mut self, bytes: usize) {
        let bytes = bytes.min(self.bytes);
        self.bytes -= bytes;
        let PoolInner { reserved_bytes, .. } = &*self.pool.0;
        reserved_bytes.set(reserved_bytes.get() - bytes);
        self.pool.0.look_at_the_water();
    }

    /// How many bytes it counts.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.shrink(self.bytes);
    }
}

impl fmt::Debug for Reservation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Reservation({} bytes)", self.bytes)
    }
}

/// The index of the smallest class that holds `bytes`, `None` above the largest.
fn class_of(bytes: usize) -> Option<usize> {
    let log2 = bytes.max(1).next_power_of_two().trailing_zeros().max(SMALLEST_LOG2);
    (log2 <= LARGEST_LOG2).then_some((log2 - SMALLEST_LOG2) as usize)
}

/// Where the blocks of a pool go when their last handle is a shared one, on whatever thread it is dropped.
pub(crate) struct Home {
    pub(crate) returns: ArrayQueue<Returned>,
    /// Larger blocks are *large*.
    return_bytes_max: AtomicUsize,
    /// Of large blocks that wait, and how many may.
    large_bytes: AtomicUsize,
    large_bytes_max: AtomicUsize,
    /// All bytes of blocks that ever ended on another thread.
    ended_bytes: AtomicUsize,
    closed: AtomicBool,
}

/// A block that nobody holds, on its way home.
pub(crate) struct Returned {
    block: Block,
    /// What it counts as a large one.
    counted_bytes: usize,
}

// SAFETY: no handle refers to the block any more, so whoever has it, on any thread, is alone with
// it. (test: `shared_chunks_come_home_from_other_threads`)
unsafe impl Send for Returned {}

impl Home {
    pub(crate) fn new(
        returns: usize,
        return_bytes_max: usize,
        large_bytes_max: usize,
    ) -> Arc<Home> {
        Arc::new(Home {
            returns: ArrayQueue::new(returns),
            return_bytes_max: AtomicUsize::new(return_bytes_max),
            large_bytes: AtomicUsize::new(0),
            large_bytes_max: AtomicUsize::new(large_bytes_max),
            ended_bytes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        })
    }

    pub(crate) fn give_back(&self, block: Block) {
        block.ledger().give_back();
        let bytes = block.capacity();
        self.ended_bytes.fetch_add(bytes, Ordering::Relaxed);
        let room = if self.closed.load(Ordering::Acquire) { None } else { self.room(bytes) };
        let Some(counted_bytes) = room else {
            // SAFETY: its last handle is gone. (test: `shared_chunks_outlive_the_pool`)
            unsafe { block.free() };
            return;
        };
        if let Err(returned) = self.returns.push(Returned { block, counted_bytes }) {
            let block = self.taken(returned);
            // SAFETY: as above; the queue is full and did not take it. (test: `a_full_return_queue_frees`)
            unsafe { block.free() };
            return;
        }
        // Either the pool's `close` sees what was just pushed, or we see that it has closed.
        fence(Ordering::SeqCst);
        if self.closed.load(Ordering::Relaxed) {
            self.free_returned();
        }
    }

    /// What a block of so many bytes counts while it waits, if it may: nothing, unless it is large.
    fn room(&self, bytes: usize) -> Option<usize> {
        if bytes <= self.return_bytes_max.load(Ordering::Relaxed) {
            return Some(0);
        }
        let max = self.large_bytes_max.load(Ordering::Relaxed);
        let counted = |waiting: usize| waiting.checked_add(bytes).filter(|&all| all <= max);
        let room = self.large_bytes.fetch_update(Ordering::Relaxed, Ordering::Relaxed, counted);
        room.ok().map(|_| bytes)
    }

    /// It waits no more.
    fn taken(&self, Returned { block, counted_bytes }: Returned) -> Block {
        if counted_bytes > 0 {
            self.large_bytes.fetch_sub(counted_bytes, Ordering::Relaxed);
        }
        block
    }

    /// A block that has come home.
    pub(crate) fn pop(&self) -> Option<Block> {
        self.returns.pop().map(|returned| self.taken(returned))
    }

    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        fence(Ordering::SeqCst);
        self.free_returned();
    }

    fn free_returned(&self) {
        while let Some(block) = self.pop() {
            // SAFETY: returned blocks have no handles. (test: `shared_chunks_outlive_the_pool`)
            unsafe { block.free() };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_zeroed_and_aligned() {
        let pool = Pool::new(0);
        for len in [0, 1, 100, 4096, 4097, 70_000, 1 << 20, (1 << 26) + 1] {
            let mut buffer = pool.take(len);
            assert_eq!(buffer.spare().len(), len);
            assert_eq!(buffer.spare().as_ptr() as usize % crate::BLOCK_ALIGN, 0);
            assert!(buffer.spare().iter().all(|&b| b == 0));
        }
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 0, kept_bytes: 0 });
    }

    #[test]
    fn a_pool_keeps_only_what_it_may() {
        let pool = Pool::new(3 * 4096);
        let held: Vec<ChunkMut> = (0..5).map(|_| pool.take(4096)).collect();
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 5 * 4096, kept_bytes: 0 });
        drop(held);
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 0, kept_bytes: 3 * 4096 });
        let again = pool.take(4000);
        assert_eq!(pool.stats().kept_bytes, 2 * 4096);
        drop(pool);
        drop(again);
    }

    #[test]
    fn free_blocks_are_kept_within_the_bound() {
        let pool = Pool::new(usize::MAX);
        pool.set_bound(Bound { short: 8 * 4096, full: 10 * 4096 });
        let mut held: Vec<ChunkMut> = (0..6).map(|_| pool.take(4096)).collect();
        held.truncate(1);
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 4096, kept_bytes: 5 * 4096 });
        let reserved = pool.reserve(5 * 4096);
        assert_eq!(pool.stats().kept_bytes, 4 * 4096);
        drop((held, reserved));
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 0, kept_bytes: 5 * 4096 });
    }

    #[test]
    fn what_nobody_needs_is_released() {
        let pool = Pool::new(usize::MAX);
        let take = |n: usize| (0..n).map(|_| pool.take(4096)).collect::<Vec<ChunkMut>>();
        let kept = || pool.stats().kept_bytes / 4096;
        drop(take(16));
        // They were lent since it was called before, which was never.
        pool.release_unused(0);
        assert_eq!(kept(), 16);
        for left in [8, 4] {
            pool.release_unused(0);
            assert_eq!(kept(), left);
        }
        // What is needed time and again stays, and no more of the others goes than may.
        for left in [3, 3] {
            drop(take(3));
            pool.release_unused(0);
            assert_eq!(kept(), left);
        }
        pool.release_unused(2 * 4096);
        assert_eq!(kept(), 2);
        for _ in 0..3 {
            pool.release_unused(0);
        }
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 0, kept_bytes: 0 });
    }

    #[test]
    fn the_levels_of_what_is_held() {
        let pool = Pool::new(0);
        pool.set_bound(Bound { short: 8 * 4096, full: 10 * 4096 });
        let level = |pool: &Pool| (pool.is_short(), pool.is_full(), pool.is_high());
        let mut reserved = pool.reserve(4 * 4096);
        let mut blocks: Vec<ChunkMut> = (0..4).map(|_| pool.take(4096)).collect();
        assert_eq!(level(&pool), (false, false, false));
        blocks.push(pool.take(1));
        assert_eq!(level(&pool), (true, false, true));
        reserved.grow(4096 * 2);
        assert_eq!((level(&pool), pool.held_bytes()), ((true, true, true), 10 * 4096 + 256));
        // What has been short is so until some of it is free.
        blocks.pop();
        blocks.pop();
        assert_eq!(level(&pool), (true, false, true));
        blocks.clear();
        assert_eq!(level(&pool), (false, false, false));
        drop(reserved);
        assert_eq!(pool.held_bytes(), 0);
    }

    #[test]
    fn a_full_return_queue_frees() {
        let pool = Pool::new(usize::MAX);
        let shared: Vec<_> = (0..RETURNS + 10).map(|_| pool.copy(&[1; 10]).share()).collect();
        std::thread::spawn(move || drop(shared)).join().unwrap();
        assert_eq!(pool.stats().lent_bytes, 0);
        let _taken = pool.take(10);
        assert_eq!(pool.stats().kept_bytes, (RETURNS - 1) * 256);
    }

    #[test]
    fn large_blocks_come_home_as_far_as_there_is_room_for_them() {
        let pool = Pool::new(usize::MAX);
        let end_elsewhere = |sizes: &[usize]| {
            let shared: Vec<_> = sizes.iter().map(|&len| pool.take(len).freeze().share()).collect();
            std::thread::spawn(move || drop(shared)).join().unwrap();
        };
        end_elsewhere(&[12 << 20, 1 << 20]);
        // 16 MiB are a block's size then, and nothing else has room beside it.
        assert_eq!(pool.stats(), PoolStats { lent_bytes: 0, kept_bytes: 16 << 20 });
        let again = pool.take(1 << 20);
        assert_eq!(pool.stats().kept_bytes, 16 << 20);
        drop(again);
        end_elsewhere(&[1 << 20; 5]);
        assert_eq!(pool.stats().kept_bytes, (16 << 20) + (5 << 20));
        // They are released with all others.
        for _ in 0..10 {
            pool.release_unused(0);
        }
        assert_eq!(pool.stats().kept_bytes, 0);
        // And bound with all others.
        pool.set_bound(Bound { short: 4 << 20, full: 8 << 20 });
        end_elsewhere(&[1 << 20; 3]);
        assert_eq!(pool.stats().kept_bytes, 1 << 20);
    }

    /// Run with `RUSTFLAGS="--cfg ringcall_poison"`.
    #[cfg(ringcall_poison)]
    #[test]
    #[should_panic(expected = "written to after it was given back")]
    fn poison_is_checked() {
        let pool = Pool::new(1 << 20);
        let mut buffer = pool.take(4096);
        let stale = buffer.spare().as_mut_ptr();
        drop(buffer);
        // SAFETY: the pool keeps the block, so the memory is still mapped; that is the bug to be found.
        unsafe { stale.add(100).write(1) };
        let _again = pool.take(4096);
    }

    /// `cargo xtask asan` runs it, to see that leaks are looked for.
    #[cfg(ringcall_poison)]
    #[test]
    #[ignore = "it leaks"]
    fn a_leak() {
        core::mem::forget(Pool::new(1 << 20).take(4096));
    }
}
