//! Counts what is allocated and not freed, in this process: what a leak is, while resident memory is also what the
//! allocator keeps for later and cannot give back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use ringcall_hostile::process::Live;

struct Counting;

/// Blocks and their bytes, by the power of two from which on they are so long.
static BLOCKS: [AtomicI64; CLASSES] = [const { AtomicI64::new(0) }; CLASSES];
static BYTES: [AtomicI64; CLASSES] = [const { AtomicI64::new(0) }; CLASSES];
const CLASSES: usize = usize::BITS as usize;

fn count(size: usize, sign: i64) {
    let class = size.max(1).ilog2() as usize;
    BLOCKS[class].fetch_add(sign, Ordering::Relaxed);
    BYTES[class].fetch_add(sign * size as i64, Ordering::Relaxed);
}

// SAFETY: the system's allocator, to which all is passed on as it comes. What is not overridden goes through these.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count(layout.size(), 1);
        // SAFETY: the caller's promise.
        unsafe { System.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(layout.size(), -1);
        count(size, 1);
        // SAFETY: the caller's promise.
        unsafe { System.realloc(pointer, layout, size) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        count(layout.size(), -1);
        // SAFETY: the caller's promise.
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// What is allocated now.
pub(crate) fn now() -> Live {
    let of_class = |class: usize| {
        let [blocks, bytes] =
            [&BLOCKS, &BYTES].map(|counts| counts[class].load(Ordering::Relaxed).max(0) as u64);
        (1 << class, blocks, bytes)
    };
    Live::new((0..CLASSES).map(of_class))
}
