//! The balanced calls whose time is measured allocate nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use ringcall_benches::balanced::Hundred;

thread_local! {
    /// Of this thread, so that no other one is counted.
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

struct Counting;

// SAFETY: everything is handed on to the system's allocator; all tests here run on it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.set(ALLOCATIONS.get() + 1);
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the caller keeps the contract, which is the same.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

/// A hundred instances; and the same with ten rules, of which one reads the metadata that each call has.
#[test]
fn a_balanced_call_allocates_nothing() {
    for mut hundred in [Hundred::new(), Hundred::routed()] {
        // Until all have been looked at, which is once a second of their time.
        hundred.balanced(200_000);
        let before = ALLOCATIONS.get();
        assert_eq!(hundred.balanced(200_000), 200_000);
        assert_eq!(ALLOCATIONS.get() - before, 0);
    }
}
