//! Wakes a parked engine from another thread, with at most one system call a sleep.

use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
#[cfg(not(ringcall_loom))]
use std::sync::atomic::{AtomicU32, Ordering, fence};

#[cfg(ringcall_loom)]
use loom::sync::atomic::{AtomicU32, Ordering, fence};
use ringcall_core::Bell;

use crate::signal::Signal;

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
    signal: Signal,
    /// Rings that the owner has seen in the state, and not yet on the signal. Only the owner uses it.
    owed: AtomicU64,
}

impl Doorbell {
    /// A bell that nobody sleeps on.
    ///
    /// # Errors
    /// When the system has no file descriptor left.
    pub fn new() -> std::io::Result<Doorbell> {
        let (state, owed) = (AtomicU32::new(AWAKE), AtomicU64::new(0));
        Ok(Doorbell(Arc::new(Inner { state, signal: Signal::new()?, owed })))
    }

    /// The owner is about to sleep: from now on a ring makes the fd readable.
    pub fn arm(&self) {
        self.0.state.store(ASLEEP, Ordering::Relaxed);
        // Before the owner looks for work: pairs with the fence of `ring`.
        fence(Ordering::SeqCst);
    }

    /// The owner is awake again. Empties the fd if it was rung.
    pub fn disarm(&self) {
        let was_rung = self.0.state.swap(AWAKE, Ordering::Acquire) == RUNG;
        let owed = self.0.owed.load(Ordering::Relaxed) + u64::from(was_rung);
        if owed > 0 {
            // The ringer changes the state before it writes, so the fd may become readable only later. It is
            // emptied after the next sleep then: as long as it is readable nobody sleeps on it.
            self.0.owed.store(owed.saturating_sub(self.0.signal.clear()), Ordering::Relaxed);
        }
    }

    /// As [`ring`](Bell::ring), by the owner: whether it is armed it knows without a fence, since nobody else arms it.
    #[inline]
    pub fn ring_oneself(&self) {
        if self.0.state.load(Ordering::Relaxed) == ASLEEP {
            self.ring();
        }
    }

    /// Empties the fd, whoever wrote to it: for an engine that lets the kernel write to it as well.
    pub fn drain(&self) {
        let owed = self.0.owed.load(Ordering::Relaxed);
        self.0.owed.store(owed.saturating_sub(self.0.signal.clear()), Ordering::Relaxed);
    }

    /// Becomes readable when it is rung while armed.
    #[must_use]
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.0.signal.fd()
    }

    /// Sleeps until the fd is readable, which it stays.
    #[cfg(ringcall_loom)]
    #[doc(hidden)]
    pub fn wait(&self) {
        self.0.signal.wait();
    }

    /// How often the fd was written to.
    #[cfg(ringcall_loom)]
    #[doc(hidden)]
    #[must_use]
    pub fn times_raised(&self) -> u64 {
        self.0.signal.times()
    }

    /// Whether the fd is readable.
    #[cfg(ringcall_loom)]
    #[doc(hidden)]
    #[must_use]
    pub fn is_raised(&self) -> bool {
        self.0.signal.is_raised()
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
            self.0.signal.raise();
        }
    }
}

#[cfg(all(test, not(ringcall_loom)))]
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
        bell.ring_oneself();
        assert!(rustix::io::read(bell.fd(), &mut [0; 8]).is_err(), "nothing was written");
    }

    #[test]
    fn who_waits_on_the_fd_may_ring_itself() {
        let bell = Doorbell::new().unwrap();
        bell.arm();
        bell.ring_oneself();
        assert!(wait(&bell));
        bell.disarm();
        assert!(rustix::io::read(bell.fd(), &mut [0; 8]).is_err(), "it was emptied");
    }

    #[test]
    fn many_rings_are_one_write() {
        let bell = Doorbell::new().unwrap();
        bell.arm();
        (0..5).for_each(|_| bell.ring());
        bell.ring_oneself();
        let mut count = [0; 8];
        rustix::io::read(bell.fd(), &mut count).unwrap();
        assert_eq!(u64::from_ne_bytes(count), 1);
    }

    #[test]
    fn a_ring_that_is_written_late_wakes_once() {
        let bell = Doorbell::new().unwrap();
        let sleep = || {
            bell.arm();
            let mut fds = [PollFd::from_borrowed_fd(bell.fd(), PollFlags::IN)];
            let is_woken = poll(&mut fds, Some(&Timespec { tv_sec: 0, tv_nsec: 0 })).unwrap() > 0;
            bell.disarm();
            is_woken
        };
        bell.arm();
        // The ringer's thread is stopped between its two steps.
        bell.0.state.store(RUNG, Ordering::Relaxed);
        bell.disarm();
        assert!(!sleep());
        bell.0.signal.raise();
        assert!(sleep());
        assert!(!sleep(), "woken for nothing, again and again");
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
