//! One block of memory and its two counts.

use alloc::alloc::{Layout, handle_alloc_error};
use alloc::rc::Rc;
use alloc::sync::Arc;
use core::cell::Cell;
use core::ptr::{self, NonNull};

use crate::BLOCK_ALIGN;
use crate::ledger::Ledger;
use crate::pool::{Home, PoolInner};
use crate::sync::{AtomicU32, Ordering, alloc_zeroed, dealloc, fence};

#[cfg(ringcall_poison)]
const POISON: u8 = 0xdb;

/// In front of a block's memory.
///
/// `local` counts handles on the thread that owns the block. `shared` counts one for all of those
/// together and one for each [`SharedChunk`](crate::SharedChunk).
#[repr(C, align(64))]
pub(crate) struct Header {
    local: Cell<u32>,
    shared: AtomicU32,
    capacity: usize,
    /// The pool to go back to, as a strong count of its `Rc`; null unless local handles exist.
    pool: Cell<*const PoolInner>,
    /// Where to go from another thread, as a strong count of its `Arc`, for the block's whole life.
    home: *const Home,
    ledger: Ledger,
}

const _: () = assert!(size_of::<Header>() == BLOCK_ALIGN);

/// A pointer to a block. `Copy`, so it owns nothing by itself: whoever stores one says which count
/// it stands for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Block(NonNull<Header>);

impl Block {
    fn layout(capacity: usize) -> Layout {
        let size = capacity.checked_add(size_of::<Header>()).expect("a block's size fits usize");
        Layout::from_size_align(size, BLOCK_ALIGN).expect("a block's size fits isize")
    }

    /// Allocates a block that nobody holds yet.
    pub(crate) fn allocate(capacity: usize, home: &Arc<Home>) -> Block {
        assert!(capacity <= crate::chunk::LEN_MAX, "a block is smaller than 4 GiB");
        let layout = Block::layout(capacity);
        // SAFETY: the layout is never empty, it holds at least the header. (test: `blocks_are_zeroed_and_aligned`)
        let raw = unsafe { alloc_zeroed(layout) };
        let Some(header) = NonNull::new(raw.cast::<Header>()) else { handle_alloc_error(layout) };
        let value = Header {
            local: Cell::new(0),
            shared: AtomicU32::new(0),
            capacity,
            pool: Cell::new(ptr::null()),
            home: Arc::into_raw(Arc::clone(home)),
            ledger: Ledger::default(),
        };
        // SAFETY: freshly allocated with a header's size and alignment. (test: `blocks_are_zeroed_and_aligned`)
        unsafe { header.write(value) };
        Block(header)
    }

    /// Frees the block.
    ///
    /// # Safety
    /// Nobody holds it: both counts have reached zero, or were never raised.
    pub(crate) unsafe fn free(self) {
        self.ledger().give_back();
        let layout = Block::layout(self.header().capacity);
        let home = self.header().home;
        // SAFETY: `home` came from `Arc::into_raw` in `allocate` and is dropped only here. (test: `shared_chunks_outlive_the_pool`)
        drop(unsafe { Arc::from_raw(home) });
        // SAFETY: allocated with this very layout. (test: `blocks_are_zeroed_and_aligned`)
        unsafe { dealloc(self.0.as_ptr().cast(), layout) };
    }

    fn header(&self) -> &Header {
        // SAFETY: a `Block` in use points to a live header: it is freed only when no count is left. (test: `chunks_keep_their_bytes`)
        unsafe { self.0.as_ref() }
    }

    /// Who owns it.
    #[inline]
    pub(crate) fn ledger(&self) -> &Ledger {
        &self.header().ledger
    }

    #[inline]
    pub(crate) fn capacity(self) -> usize {
        self.header().capacity
    }

    /// The first byte of the block's memory.
    #[inline]
    pub(crate) fn data(self) -> NonNull<u8> {
        // SAFETY: the memory follows its header in the same allocation. (test: `blocks_are_zeroed_and_aligned`)
        unsafe { self.0.add(1).cast() }
    }

    /// Overwrites the memory of a block that nobody holds, in builds with `--cfg ringcall_poison`: whoever
    /// still reads it gets nonsense.
    #[cfg(ringcall_poison)]
    pub(crate) fn poison(self) {
        // SAFETY: the whole of the block's memory, which nobody holds. (test: `poison_is_checked`)
        unsafe { ptr::write_bytes(self.data().as_ptr(), POISON, self.capacity()) };
    }

    /// Finds out whether somebody wrote to a block that nobody holds.
    ///
    /// # Panics
    /// When somebody did.
    #[cfg(ringcall_poison)]
    pub(crate) fn check_poison(self) {
        // SAFETY: the whole of the block's memory, which nobody holds. (test: `poison_is_checked`)
        let bytes = unsafe { core::slice::from_raw_parts(self.data().as_ptr(), self.capacity()) };
        assert!(bytes.iter().all(|&byte| byte == POISON), "written to after it was given back");
    }

    /// Gives a free block to local handles; the caller becomes the first of them.
    pub(crate) fn lend_local(self, pool: &Rc<PoolInner>) {
        let header = self.header();
        header.ledger.lend();
        header.local.set(1);
        header.shared.store(1, Ordering::Relaxed);
        header.pool.set(Rc::into_raw(Rc::clone(pool)));
    }

    /// Gives a free block to shared handles; the caller becomes the first of them.
    pub(crate) fn lend_shared(self) {
        self.ledger().lend();
        self.header().shared.store(1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn retain_local(self) {
        let header = self.header();
        header.ledger.hold();
        // A count cannot wrap: each handle takes at least 16 bytes of memory.
        header.local.set(header.local.get() + 1);
    }

    /// Drops one local handle.
    ///
    /// # Safety
    /// The caller owned one local count and is on the block's own thread.
    #[inline]
    pub(crate) unsafe fn release_local(self) {
        let header = self.header();
        header.ledger.let_go();
        let left = header.local.get() - 1;
        header.local.set(left);
        if left == 0 {
            // SAFETY: the last local handle is gone, we are on its thread. (test: `chunks_keep_their_bytes`)
            unsafe { self.leave_thread() };
        }
    }

    /// The local handles give up their common shared reference.
    #[cold]
    unsafe fn leave_thread(self) {
        let header = self.header();
        let pool = header.pool.replace(ptr::null());
        // SAFETY: the pointer came from `Rc::into_raw` in `lend_local`, on this thread, and was
        // taken out of the header so that nobody drops it again. (test: `chunks_keep_their_bytes`)
        let pool = unsafe { Rc::from_raw(pool) };
        // With a count of one there is no other handle that could raise it, so the common case
        // needs no atomic read-modify-write.
        let last = header.shared.load(Ordering::Acquire) == 1
            || header.shared.fetch_sub(1, Ordering::AcqRel) == 1;
        if last {
            pool.recycle(self);
        }
    }

    #[inline]
    pub(crate) fn retain_shared(self) {
        self.ledger().hold();
        self.header().shared.fetch_add(1, Ordering::Relaxed);
    }

    /// Drops one shared handle, on any thread.
    ///
    /// # Safety
    /// The caller owned one shared count.
    #[inline(never)]
    pub(crate) unsafe fn release_shared(self) {
        self.ledger().let_go();
        if self.header().shared.fetch_sub(1, Ordering::Release) != 1 {
            return;
        }
        fence(Ordering::Acquire);
        let home = self.header().home;
        // SAFETY: the block holds a strong count of its home, but `give_back` may free the block
        // and that count with it: keep one of our own meanwhile. (test: `shared_chunks_outlive_the_pool`)
        unsafe { Arc::increment_strong_count(home) };
        // SAFETY: takes over the count of the line above. (test: `shared_chunks_outlive_the_pool`)
        let home = unsafe { Arc::from_raw(home) };
        home.give_back(self);
    }

    /// Whether the caller's local handle is the only handle of any kind.
    #[inline]
    pub(crate) fn is_unique(self) -> bool {
        let header = self.header();
        header.local.get() == 1 && header.shared.load(Ordering::Acquire) == 1
    }
}
