//! What a shard and other threads share memory by. In builds with `--cfg ringcall_loom` these are loom's, so that
//! the models of `cargo xtask models` run the mailbox and its callers as they are, and not a copy.

#[cfg(not(ringcall_loom))]
pub(crate) use atomic_waker::AtomicWaker;
#[cfg(not(ringcall_loom))]
pub(crate) use crossbeam_queue::{ArrayQueue, SegQueue};
#[cfg(not(ringcall_loom))]
pub(crate) use parking_lot::Mutex;
#[cfg(not(ringcall_loom))]
pub(crate) use std::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

#[cfg(ringcall_loom)]
pub(crate) use loom::sync::atomic::{
    AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};
#[cfg(ringcall_loom)]
pub(crate) use ringcall_buf::model::{ArrayQueue, SegQueue};
#[cfg(ringcall_loom)]
pub(crate) use stand_ins::{AtomicWaker, Mutex};

/// Loom's, with the methods that ours have.
#[cfg(ringcall_loom)]
mod stand_ins {
    use std::task::Waker;

    pub(crate) struct AtomicWaker(loom::future::AtomicWaker);

    impl AtomicWaker {
        pub(crate) fn new() -> AtomicWaker {
            AtomicWaker(loom::future::AtomicWaker::new())
        }

        pub(crate) fn register(&self, waker: &Waker) {
            self.0.register_by_ref(waker);
        }

        pub(crate) fn take(&self) -> Option<Waker> {
            self.0.take_waker()
        }

        pub(crate) fn wake(&self) {
            self.0.wake();
        }
    }

    impl Default for AtomicWaker {
        fn default() -> AtomicWaker {
            AtomicWaker::new()
        }
    }

    #[derive(Default)]
    pub(crate) struct Mutex<T>(loom::sync::Mutex<T>);

    impl<T> Mutex<T> {
        pub(crate) fn new(value: T) -> Mutex<T> {
            Mutex(loom::sync::Mutex::new(value))
        }

        pub(crate) fn lock(&self) -> loom::sync::MutexGuard<'_, T> {
            self.0.lock().expect("a model does not go on after a panic")
        }
    }
}
