//! Wakes a parked engine from another thread, with at most one system call a sleep.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering, fence};

use ringcall_core::Bell;
use rustix::event::{EventfdFlags, eventfd};

const AWAKE: u32 = 0;
const ASLEEP: u32 = 1;
const RUNG: u32 = 2;

/// An eventfd that is written only when somebody sleeps on it.
///
/// The sleeper [`arm`](Doorbell::arm)s it, then looks once more whether there is work, and only then
/// waits for the fd. Others first make their work visible and then [`ring`](Bell::ring). Whichever
/// comes first, either the sleeper sees the work or the ringer sees the sleeper.
#[derive(Clone, Debug)]
pub struct Doorbell(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    state: AtomicU32,
    fd: OwnedFd,
}

impl Doorbell {
    /// A bell that nobody sleeps on.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn new() -> std::io::Result<Doorbell> {
        let fd = eventfd(0, EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC)?;
        Ok(Doorbell(Arc::new(Inner { state: AtomicU32::new(AWAKE), fd })))
    }

    /// The owner is about to sleep: from now on a ring makes the fd readable.
    pub fn arm(&self) {
        self.0.state.store(ASLEEP, Ordering::Relaxed);
        // Before the owner looks for work: pairs with the fence of `ring`.
        fence(Ordering::SeqCst);
    }

    /// The owner is awake again. Empties the fd if it was rung.
    pub fn disarm(&self) {
        if self.0.state.swap(AWAKE, Ordering::Acquire) == RUNG {
            // The ringer changes the state before it writes, so the fd may be readable a little
            // later; then one park returns early, which is harmless.
            let _ = rustix::io::read(&self.0.fd, &mut [0; 8]);
        }
    }

    /// Empties the fd, whoever wrote to it: for an engine that lets the kernel write to it as well.
    pub fn drain(&self) {
        // Fails only if it is empty.
        let _ = rustix::io::read(&self.0.fd, &mut [0; 8]);
    }

    /// Becomes readable when it is rung while armed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.fd.as_fd()
    }
}

impl Bell for Doorbell {
    fn ring(&self) {
        // After the caller's work was made visible: pairs with the fence of `arm`.
        fence(Ordering::SeqCst);
        let state = &self.0.state;
        if state.load(Ordering::Relaxed) == ASLEEP
            && state.compare_exchange(ASLEEP, RUNG, Ordering::AcqRel, Ordering::Relaxed).is_ok()
        {
            // Fails only if the counter is full, and then the fd is readable anyway.
            let _ = rustix::io::write(&self.0.fd, &1u64.to_ne_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::event::{PollFd, PollFlags, Timespec, poll};
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    fn wait(bell: &Doorbell) -> bool {
        let mut fds = [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)];
        let timeout = Timespec { tv_sec: 10, tv_nsec: 0 };
        poll(&mut fds, Some(&timeout)).unwrap() > 0
    }

    #[test]
    fn a_bell_that_nobody_sleeps_on_costs_nothing() {
        let bell = Doorbell::new().unwrap();
        bell.ring();
        assert!(rustix::io::read(bell.fd(), &mut [0; 8]).is_err(), "nothing was written");
    }

    #[test]
    fn many_rings_are_one_write() {
        let bell = Doorbell::new().unwrap();
        bell.arm();
        (0..5).for_each(|_| bell.ring());
        let mut count = [0; 8];
        rustix::io::read(bell.fd(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn no_wake_is_lost() {
        let bell = Doorbell::new().unwrap();
        let work = Arc::new(AtomicUsize::new(0));
        let ringer = {
            let (bell, work) = (bell.clone(), Arc::clone(&work));
            thread::spawn(move || {
                for _ in 0..20_000 {
                    work.fetch_add(1, Ordering::Release);
                    bell.ring();
                }
            })
        };
        let mut seen = 0;
        while seen < 20_000 {
            bell.arm();
            if work.load(Ordering::Acquire) == seen {
                assert!(wait(&bell), "slept although there was work");
            }
            bell.disarm();
            seen = work.load(Ordering::Acquire);
        }
        ringer.join().unwrap();
    }
}
