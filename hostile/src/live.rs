//! Counts what is allocated and not freed in this process, and in each that uses this crate: what a leak is, while
//! resident memory is also what the allocator keeps for later and cannot give back.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicI64, Ordering};

use serde::{Deserialize, Serialize};

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

/// What a process has allocated and not freed: a part of its [resident memory](crate::process::Usage), the rest of
/// which is its program, its stacks, and what its allocator keeps. Blocks of many MiB are pages of their own, which
/// are not counted.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Live {
    /// All of it, in bytes.
    pub bytes: u64,
    /// How many blocks.
    pub blocks: u64,
    /// By the power of two from which on they are so long: how many blocks, and how many bytes in them.
    pub by_size: Vec<(u64, u64, u64)>,
}

impl Live {
    /// Of this process, now.
    #[must_use]
    pub fn now() -> Live {
        let of_class = |class: usize| {
            let [blocks, bytes] =
                [&BLOCKS, &BYTES].map(|counts| counts[class].load(Ordering::Relaxed).max(0) as u64);
            (1 << class, blocks, bytes)
        };
        let by_size = (0..CLASSES).map(of_class).filter(|(_, blocks, _)| *blocks > 0);
        let by_size: Vec<_> = by_size.collect();
        Live {
            bytes: by_size.iter().map(|(_, _, bytes)| bytes).sum(),
            blocks: by_size.iter().map(|(_, blocks, _)| blocks).sum(),
            by_size,
        }
    }
}
