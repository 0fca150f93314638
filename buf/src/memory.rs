//! Where blocks come from: small ones from the allocator, large ones as pages of their own.
//!
//! A large block lives as long as a message does, between small things that live as long as a connection. An
//! allocator that takes both from one heap is left with holes when it has gone, which it neither
//! fills nor gives back: glibc does, since its threshold for `mmap` grows with the first large block that is
//! freed. Pages of their own go back to the system when their block ends.

use alloc::alloc::Layout;
use core::ptr;

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};

/// From this size on a block has pages of its own: those of arenas, and of bodies that are worth it. What pools keep is not
/// mapped again; what they do not keep costs new pages each time, see `docs/PERFORMANCE.md`.
const OWN_PAGES_FROM: usize = 64 << 10;

/// As [`alloc::alloc::alloc_zeroed`].
///
/// # Safety
/// As there: the layout is not empty. It asks for no more than the alignment of a page.
pub(crate) unsafe fn alloc_zeroed(layout: Layout) -> *mut u8 {
    if layout.size() < OWN_PAGES_FROM {
        // SAFETY: what the caller promised. (test: `blocks_are_zeroed_and_aligned`)
        return unsafe { alloc::alloc::alloc_zeroed(layout) };
    }
    // SAFETY: a new mapping, where the system likes it, touches nobody's memory. (test: `blocks_are_zeroed_and_aligned`)
    let pages = unsafe {
        mmap_anonymous(
            ptr::null_mut(),
            layout.size(),
            ProtFlags::READ | ProtFlags::WRITE,
            MapFlags::PRIVATE,
        )
    };
    pages.map_or(ptr::null_mut(), |pages| pages.cast())
}

/// As [`alloc::alloc::dealloc`].
///
/// # Safety
/// As there: the memory came from [`alloc_zeroed`] with this layout, and nobody uses it.
pub(crate) unsafe fn dealloc(memory: *mut u8, layout: Layout) {
    if layout.size() < OWN_PAGES_FROM {
        // SAFETY: what the caller promised. (test: `blocks_are_zeroed_and_aligned`)
        return unsafe { alloc::alloc::dealloc(memory, layout) };
    }
    // SAFETY: a whole mapping of `alloc_zeroed`, which nobody uses. (test: `blocks_are_zeroed_and_aligned`)
    let unmapped = unsafe { munmap(memory.cast(), layout.size()) };
    debug_assert!(unmapped.is_ok(), "a mapping of this very size: {unmapped:?}");
}
