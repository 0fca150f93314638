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
        let pipe = Self::set();
        let mut before = MaybeUninit::uninit();
        // SAFETY: `pipe` is a set of signals, `before` has room for one, which a call that cannot fail for these
        // arguments fills; membership is then asked of it. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
        let (before, was_blocked) = unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, &pipe, before.as_mut_ptr());
            let before = before.assume_init();
            (before, libc::sigismember(&before, libc::SIGPIPE) == 1)
        };
        QuietPipe { before, was_blocked }
    }

    fn set() -> libc::sigset_t {
        let mut set = MaybeUninit::uninit();
        // SAFETY: the first call fills the set, to which the second adds a signal that exists.
        // (test: `e05_a_file_that_nobody_takes_is_no_signal`)
        unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            libc::sigaddset(set.as_mut_ptr(), libc::SIGPIPE);
            set.assume_init()
        }
    }

    /// If a call has met a socket that is closed, the signal waits, and would be delivered later.
    pub(crate) fn take(&self) {
        let at_once = libc::timespec { tv_sec: 0, tv_nsec: 0 };
        if !self.was_blocked {
            // SAFETY: a set of signals, no room for what was taken, and a time.
            // (test: `e05_a_file_that_nobody_takes_is_no_signal`)
            unsafe { libc::sigtimedwait(&Self::set(), std::ptr::null_mut(), &at_once) };
        }
    }
}

impl Drop for QuietPipe {
    fn drop(&mut self) {
        if !self.was_blocked {
            // SAFETY: the set that was there before. (test: `e05_a_file_that_nobody_takes_is_no_signal`)
            unsafe {
                libc::pthread_sigmask(libc::SIG_SETMASK, &self.before, std::ptr::null_mut());
            }
        }
    }
}
