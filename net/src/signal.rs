//! What a parked engine waits for.

#[cfg(not(ringcall_loom))]
pub(crate) use eventfd::Signal;
#[cfg(ringcall_loom)]
pub(crate) use model::Signal;

/// Counts how often it was raised, until somebody clears it; readable when that is not zero.
#[cfg(not(ringcall_loom))]
mod eventfd {
    use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

    use rustix::event::{EventfdFlags, eventfd};

    #[derive(Debug)]
    pub(crate) struct Signal(OwnedFd);

    impl Signal {
        pub(crate) fn new() -> std::io::Result<Signal> {
            Ok(Signal(eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?))
        }

        pub(crate) fn raise(&self) {
            // Fails only if the counter is full, and then the fd is readable anyway.
            let _ = rustix::io::write(&self.0, &1u64.to_ne_bytes());
        }

        /// How often it was raised since it was cleared last.
        pub(crate) fn clear(&self) -> u64 {
            let mut count = [0; 8];
            // Fails only if it is zero.
            match rustix::io::read(&self.0, &mut count) {
                Ok(_) => u64::from_ne_bytes(count),
                Err(_) => 0,
            }
        }

        pub(crate) fn fd(&self) -> BorrowedFd<'_> {
            self.0.as_fd()
        }
    }
}

/// The same for models, which run no engine.
#[cfg(ringcall_loom)]
mod model {
    use std::os::fd::BorrowedFd;

    use loom::sync::{Condvar, Mutex, MutexGuard};

    #[derive(Debug)]
    pub(crate) struct Signal {
        count: Mutex<u64>,
        times: std::sync::atomic::AtomicU64,
        raised: Condvar,
    }

    impl Signal {
        pub(crate) fn new() -> std::io::Result<Signal> {
            Ok(Signal { count: Mutex::new(0), times: Default::default(), raised: Condvar::new() })
        }

        fn count(&self) -> MutexGuard<'_, u64> {
            self.count.lock().expect("a model does not go on after a panic")
        }

        pub(crate) fn raise(&self) {
            *self.count() += 1;
            self.times.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            self.raised.notify_one();
        }

        pub(crate) fn clear(&self) -> u64 {
            std::mem::take(&mut self.count())
        }

        /// Waits until it is readable, and leaves it so.
        pub(crate) fn wait(&self) {
            let mut count = self.count();
            while *count == 0 {
                count = self.raised.wait(count).expect("a model does not go on after a panic");
            }
        }

        /// How often it was raised since there is one.
        pub(crate) fn times(&self) -> u64 {
            self.times.load(std::sync::atomic::Ordering::Relaxed)
        }

        pub(crate) fn is_raised(&self) -> bool {
            *self.count() > 0
        }

        pub(crate) fn fd(&self) -> BorrowedFd<'_> {
            unreachable!("a model has no file descriptor")
        }
    }
}
