//! Scratch memory of an encoder: a stack of allocations, which only some types need.
//!
//! rkyv's own arena is taken and put back with every message, which costs as much as archiving a small
//! one. This one is taken when the first allocation asks for it.

use core::alloc::Layout;
use core::fmt;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::alloc::{alloc, dealloc, handle_alloc_error};
use std::cell::Cell;

use rkyv::ser::Allocator;

/// The alignment of a block.
#[repr(align(16))]
#[derive(Clone, Copy)]
struct Unit(#[expect(dead_code, reason = "memory for others")] [MaybeUninit<u8>; 16]);

type Block = Box<[Unit]>;

const UNIT: usize = size_of::<Unit>();
/// A thread's block has at least and at most this many bytes.
const BYTES_MIN: usize = 1024;
const BYTES_MAX: usize = 256 * 1024;

thread_local! {
    static BLOCK: Cell<Option<Block>> = const { Cell::new(None) };
}

/// The scratch memory of one encoding. Hardly any needs some: until then this is one word.
pub struct Scratch(Option<Stack>);

struct Stack {
    block: Block,
    used: usize,
    /// How many bytes would have been needed to serve all from the block.
    wanted: usize,
}

impl Scratch {
    #[inline]
    pub(crate) const fn new() -> Scratch {
        Scratch(None)
    }

    fn used(&self) -> usize {
        self.0.as_ref().map_or(0, |stack| stack.used)
    }

    #[cold]
    fn give_back(&mut self) {
        let Some(Stack { mut block, wanted, .. }) = self.0.take() else { return };
        let bytes = block.len() * UNIT;
        if wanted > bytes && bytes < BYTES_MAX {
            block = new_block(wanted.next_power_of_two().min(BYTES_MAX));
        }
        BLOCK.set(Some(block));
    }
}

impl Stack {
    #[cold]
    fn new() -> Stack {
        let block = BLOCK.take().unwrap_or_else(|| new_block(BYTES_MIN));
        Stack { block, used: 0, wanted: 0 }
    }
}

fn new_block(bytes: usize) -> Block {
    vec![Unit([MaybeUninit::uninit(); 16]); bytes.div_ceil(UNIT)].into_boxed_slice()
}

fn start(block: &mut Block) -> NonNull<u8> {
    NonNull::from(&mut **block).cast()
}

impl Drop for Scratch {
    /// What hardly any encoding needs is apart, so that this is a comparison in all others.
    #[inline]
    fn drop(&mut self) {
        if self.0.is_some() {
            self.give_back();
        }
    }
}

// SAFETY: memory from `push_alloc` is the block's, which is neither moved nor given away while `self`
// lives, behind everything that is in use; or it is the system's. It has the size and alignment that were
// asked for. (test: `scratch_is_a_stack`)
unsafe impl<E> Allocator<E> for Scratch {
    unsafe fn push_alloc(&mut self, layout: Layout) -> Result<NonNull<[u8]>, E> {
        let Stack { block, used, wanted } = self.0.get_or_insert_with(Stack::new);
        let at = used.next_multiple_of(layout.align().min(UNIT));
        let end = at.saturating_add(layout.size());
        *wanted = (*wanted).max(end);
        let memory = if end <= block.len() * UNIT && layout.align() <= UNIT {
            *used = end;
            // SAFETY: within the block, checked above. (test: `scratch_is_a_stack`)
            unsafe { start(block).add(at) }
        } else {
            // SAFETY: the caller promises a size that is not zero. (test: `scratch_is_a_stack`)
            let memory = unsafe { alloc(layout) };
            NonNull::new(memory).unwrap_or_else(|| handle_alloc_error(layout))
        };
        Ok(NonNull::slice_from_raw_parts(memory, layout.size()))
    }

    unsafe fn pop_alloc(&mut self, memory: NonNull<u8>, layout: Layout) -> Result<(), E> {
        if let Some(Stack { block, used, .. }) = &mut self.0 {
            let offset = memory.addr().get().wrapping_sub(start(block).addr().get());
            if offset < block.len() * UNIT {
                *used = offset;
                return Ok(());
            }
        }
        // SAFETY: not the block's, so `push_alloc` had it from the system, with this layout. (test: `scratch_is_a_stack`)
        unsafe { dealloc(memory.as_ptr(), layout) };
        Ok(())
    }
}

impl fmt::Debug for Scratch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Scratch({} bytes used)", self.used())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rkyv::rancor::Failure;

    proptest::proptest! {
        #[test]
        fn scratch_is_a_stack(sizes in proptest::collection::vec((1usize..5000, 0u32..8), 1..40)) {
            for _ in 0..2 {
                let mut scratch = Scratch::new();
                let mut stack = Vec::new();
                for (number, (size, align)) in sizes.iter().enumerate() {
                    let layout = Layout::from_size_align(*size, 1 << align).unwrap();
                    // SAFETY: the size is not zero.
                    let memory: Result<_, Failure> = unsafe { scratch.push_alloc(layout) };
                    let memory = memory.unwrap().cast::<u8>();
                    assert_eq!(memory.addr().get() % layout.align(), 0);
                    // SAFETY: ours until it is popped.
                    unsafe { memory.write_bytes(number as u8, *size) };
                    stack.push((memory, layout, number as u8));
                }
                while let Some((memory, layout, number)) = stack.pop() {
                    // SAFETY: written above, and ours.
                    let bytes =
                        unsafe { core::slice::from_raw_parts(memory.as_ptr(), layout.size()) };
                    assert!(bytes.iter().all(|&byte| byte == number));
                    // SAFETY: the last that was pushed and not popped, with its layout.
                    let popped: Result<_, Failure> = unsafe { scratch.pop_alloc(memory, layout) };
                    popped.unwrap();
                }
                assert_eq!(scratch.used(), 0);
            }
        }
    }
}
