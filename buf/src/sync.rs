//! What threads share memory by: atomics, a queue, the allocator. In builds with `--cfg ringcall_loom` they are
//! those of loom, so that the models of `cargo xtask models` run the code of this crate, and not a copy.

#[cfg(all(feature = "mmap", not(ringcall_loom)))]
pub(crate) use crate::memory::{alloc_zeroed, dealloc};
#[cfg(not(any(feature = "mmap", ringcall_loom)))]
pub(crate) use alloc::alloc::{alloc_zeroed, dealloc};
#[cfg(not(ringcall_loom))]
pub(crate) use core::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
#[cfg(not(ringcall_loom))]
pub(crate) use crossbeam_queue::ArrayQueue;

#[cfg(ringcall_loom)]
pub(crate) use crate::model::ArrayQueue;
#[cfg(ringcall_loom)]
pub(crate) use loom::alloc::{alloc_zeroed, dealloc};
#[cfg(ringcall_loom)]
pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering, fence};
