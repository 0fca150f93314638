//! Sending to a peer that is gone, without a signal.

use std::mem::MaybeUninit;

/// While it lives, this thread is not sent SIGPIPE: `sendfile` has no flag for that, as `send` has, and in a process that
/// does not ignore the signal (whose `main` is not Rust's) a peer that goes away in the middle of a file would end it.
pub(crate) struct QuietPipe {
    before: libc::sigset_t,
    was_blocked: bool,
}

impl QuietPipe {
    pub(crate) fn new() -> QuietPipe {
        let (pipe, mut before) = (pipe(), empty());
        // SAFETY: two sets of signals, of which the second is written. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, &mut before) };
        // SAFETY: a set of signals. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
        let was_blocked = unsafe { libc::sigismember(&before, libc::SIGPIPE) == 1 };
        QuietPipe { before, was_blocked }
    }

    /// If a call has met a socket that is closed, the signal waits, and would be delivered later.
    pub(crate) fn take(&self) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if !self.was_blocked {
            // SAFETY: a set of signals, no room for what was taken, and a time.
            // (test: `e05_a_file_that_nobody_takes_is_no_signal`)
            unsafe { libc::sigtimedwait(&pipe(), std::ptr::null_mut(), &at_once) };
        }
    }
}

impl Drop for QuietPipe {
    fn drop(&mut self) {
        if !self.was_blocked {
            let (set, none) = (&self.before, std::ptr::null_mut());
            // SAFETY: the set that was there before. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
            unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, set, none) };
        }
    }
}

fn empty() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: room for a set, which is written. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
    unsafe { libc::sigemptyset(set.as_mut_ptr()) };
    // SAFETY: written above. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
    unsafe { set.assume_init() }
}

/// SIGPIPE alone.
fn pipe() -> libc::sigset_t {
    let mut set = empty();
    // SAFETY: a set, and a signal that exists. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
    unsafe { libc::sigaddset(&mut set, libc::SIGPIPE) };
    set
}
