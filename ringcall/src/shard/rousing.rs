//! Waking callers on other threads, one of each thread, who wakes the others there.
//!
//! To wake a task of another thread's executor is a system call, whether that thread sleeps or not; and where it shares
//! a core with the shard it may take that at once, make one call, and give it back. So callers whose answers are
//! there wait in crowds, by the thread that they called from. When what the shard has handled is sent, one of each crowd is
//! woken, and takes the others along: on its thread to wake a task is a matter of its executor's queue.
//!
//! Whoever is woken may have something else to do first, or have gone away: after a moment the shard wakes the rest
//! itself.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::OnceLock;
use std::task::Waker;
use std::time::Duration;

use ringcall_core::Instant;

use super::mail::Remote;
use crate::sync::ArrayQueue;

/// Threads with numbers that are equal modulo this have a crowd together.
const CROWDS: u8 = if cfg!(ringcall_loom) { 1 } else { 64 };
/// How many wait in a crowd; beyond it callers are woken one by one.
const CROWD_MAX: usize = if cfg!(ringcall_loom) { 2 } else { 512 };
/// After so long nobody waits for others any more. Twice of what it takes to wake a thread on a core that sleeps.
const ROUSED_WITHIN: Duration = Duration::from_micros(100);

/// Which crowd a caller belongs to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Crowd(pub(crate) u8);

impl Crowd {
    /// Of the callers of this thread.
    pub(crate) fn here() -> Crowd {
        use std::sync::atomic::{AtomicU8, Ordering};
        static NEXT: AtomicU8 = AtomicU8::new(0);
        thread_local! {
            static HERE: Crowd = Crowd(NEXT.fetch_add(1, Ordering::Relaxed) % CROWDS);
        }
        // A thread that is ending calls like any other.
        HERE.try_with(|here| *here).unwrap_or_default()
    }
}

/// Callers whose answers are there.
pub(crate) struct Crowds([OnceLock<ArrayQueue<Waker>>; CROWDS as usize]);

impl Default for Crowds {
    fn default() -> Crowds {
        let crowds = Crowds([const { OnceLock::new() }; CROWDS as usize]);
        if cfg!(ringcall_loom) {
            // A model does not see how the standard library makes one for another thread.
            let made = crowds.0.iter().all(|queue| queue.set(ArrayQueue::new(CROWD_MAX)).is_ok());
            debug_assert!(made);
        }
        crowds
    }
}

impl Crowds {
    fn queue(&self, Crowd(number): Crowd) -> Option<&OnceLock<ArrayQueue<Waker>>> {
        self.0.get(usize::from(number))
    }

    fn next(&self, crowd: Crowd) -> Option<Waker> {
        self.queue(crowd)?.get()?.pop()
    }

    fn is_empty(&self, crowd: Crowd) -> bool {
        self.queue(crowd).and_then(OnceLock::get).is_none_or(ArrayQueue::is_empty)
    }

    /// Those of these that have somebody, a bit each.
    fn filled(&self, of: u64) -> u64 {
        let filled = bits(of).filter(|crowd| !self.is_empty(*crowd));
        filled.fold(0, |filled, Crowd(number)| filled | 1 << number)
    }

    /// Adds a caller; gives it back if there is no room.
    fn add(&self, crowd: Crowd, waker: Waker) -> Result<(), Waker> {
        match self.queue(crowd) {
            Some(queue) => queue.get_or_init(|| ArrayQueue::new(CROWD_MAX)).push(waker),
            None => Err(waker),
        }
    }
}

impl Remote {
    /// Wakes one of a crowd.
    fn rouse_one(&self, crowd: Crowd) {
        if let Some(waker) = self.crowds.next(crowd) {
            self.wake_caller(waker);
        }
    }

    /// Wakes all of a crowd: by one of them, or because none of them did.
    pub(crate) fn rouse(&self, crowd: Crowd) {
        while let Some(waker) = self.crowds.next(crowd) {
            self.wake_caller(waker);
        }
    }

    /// A waker is somebody's code: a panic of it must not become another's.
    fn wake_caller(&self, waker: Waker) {
        if catch_unwind(AssertUnwindSafe(|| waker.wake())).is_err() {
            self.register.panics.add();
            log::error!("the waker of a caller panicked");
        }
    }
}

/// What the shard knows of its crowds.
#[derive(Default)]
pub(crate) struct Rousing {
    /// Those that somebody was added to, a bit each.
    added: Cell<u64>,
    /// Those of which one was woken, and others were left to it.
    left: Cell<u64>,
    /// When these are woken at the latest.
    due: Cell<Instant>,
    /// Whether anybody was woken.
    roused: Cell<bool>,
}

impl Rousing {
    /// A caller's answer is there.
    pub(crate) fn add(&self, remote: &Remote, crowd: Crowd, waker: Waker) {
        match remote.crowds.add(crowd, waker) {
            Ok(()) => self.added.set(self.added.get() | 1 << crowd.0),
            Err(waker) => remote.wake_caller(waker),
        }
    }

    #[inline]
    pub(crate) fn has_any(&self) -> bool {
        self.added.get() | self.left.get() != 0
    }

    /// Whether somebody was added whom nobody has woken.
    #[inline]
    pub(crate) fn has_added(&self) -> bool {
        self.added.get() != 0
    }

    /// Whether anybody was woken since this was asked.
    pub(crate) fn take_roused(&self) -> bool {
        self.roused.take()
    }

    /// When those that were left to others are to be looked after.
    pub(crate) fn due(&self) -> Option<Instant> {
        (self.left.get() != 0).then(|| self.due.get())
    }

    /// Wakes one of each crowd that somebody was added to; and those that were left to others for too long.
    pub(crate) fn rouse(&self, remote: &Remote, now: Instant) {
        let added = self.added.take();
        self.roused.set(self.roused.get() || added != 0);
        bits(added).for_each(|crowd| remote.rouse_one(crowd));
        let mut left = remote.crowds.filled(self.left.get());
        if left != 0 && self.due.get() <= now {
            bits(left).for_each(|crowd| remote.rouse(crowd));
            left = 0;
        }
        let new = remote.crowds.filled(added);
        if left == 0 && new != 0 {
            self.due.set(now + ROUSED_WITHIN);
        }
        self.left.set(left | new);
    }

    /// The shard ends, and will look after nobody any more: wakes all.
    pub(crate) fn rouse_all(&self, remote: &Remote) {
        bits(self.added.take() | self.left.take()).for_each(|crowd| remote.rouse(crowd));
    }
}

/// The crowds that have a bit.
fn bits(mut of: u64) -> impl Iterator<Item = Crowd> {
    std::iter::from_fn(move || {
        let number = of.trailing_zeros();
        of &= of.checked_sub(1)?;
        Some(Crowd(number as u8))
    })
}

#[cfg(all(test, not(ringcall_loom)))]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use ringcall_net::Doorbell;

    use super::super::choice::TransportInfo;
    use super::super::incidents::Register;
    use super::*;
    use crate::observe::Observers;

    #[derive(Default)]
    struct Woken(AtomicUsize);

    impl Wake for Woken {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn callers(count: usize) -> (Arc<Woken>, impl Iterator<Item = Waker>) {
        let woken = Arc::new(Woken::default());
        (Arc::clone(&woken), std::iter::repeat_n(Waker::from(woken), count))
    }

    fn count(woken: &Woken) -> usize {
        woken.0.load(Ordering::Relaxed)
    }

    fn remote() -> Arc<Remote> {
        let transport = TransportInfo::new("test", String::new());
        let (bell, register) = (Doorbell::new().unwrap(), Register::new(Arc::default()));
        Remote::new(bell, transport, register, Observers::default(), [1 << 20; 2])
    }

    const START: Instant = Instant::from_nanos(1_000_000);

    #[test]
    fn one_of_each_thread_is_woken_and_takes_the_others_along() {
        let (remote, rousing) = (remote(), Rousing::default());
        let ((first, a), (second, b)) = (callers(5), callers(3));
        a.for_each(|waker| rousing.add(&remote, Crowd(0), waker));
        b.for_each(|waker| rousing.add(&remote, Crowd(63), waker));
        assert!(rousing.has_added());
        assert_eq!((count(&first), count(&second)), (0, 0));
        rousing.rouse(&remote, START);
        assert_eq!((count(&first), count(&second)), (1, 1));
        assert_eq!((rousing.take_roused(), rousing.take_roused()), (true, false));
        assert!(!rousing.has_added() && rousing.due().is_some());
        remote.rouse(Crowd(0));
        assert_eq!((count(&first), count(&second)), (5, 1));
        remote.rouse(Crowd(63));
        rousing.rouse(&remote, START);
        assert_eq!((count(&second), rousing.due(), rousing.has_any()), (3, None, false));
    }

    #[test]
    fn nobody_waits_for_others_for_long() {
        let (remote, rousing) = (remote(), Rousing::default());
        let (woken, wakers) = callers(4);
        wakers.for_each(|waker| rousing.add(&remote, Crowd(7), waker));
        rousing.rouse(&remote, START);
        let due = rousing.due().unwrap();
        assert_eq!(due.since(START), ROUSED_WITHIN);
        // Another is woken with those that were added meanwhile, and does not keep the others waiting for longer.
        let half = START + ROUSED_WITHIN / 2;
        let (_, mut one) = callers(1);
        rousing.add(&remote, Crowd(7), one.next().unwrap());
        rousing.rouse(&remote, half);
        assert_eq!((count(&woken), rousing.due()), (2, Some(due)));
        rousing.rouse(&remote, due);
        assert_eq!((count(&woken), rousing.due()), (4, None));
    }

    #[test]
    fn a_shard_that_ends_leaves_nobody() {
        let (remote, rousing) = (remote(), Rousing::default());
        let (woken, wakers) = callers(6);
        for (number, waker) in (0..).zip(wakers) {
            rousing.add(&remote, Crowd(number % 2), waker);
            if number == 3 {
                rousing.rouse(&remote, START);
            }
        }
        assert_eq!(count(&woken), 2);
        rousing.rouse_all(&remote);
        assert_eq!((count(&woken), rousing.has_any()), (6, false));
    }

    #[test]
    fn who_is_alone_is_left_to_nobody() {
        let (remote, rousing) = (remote(), Rousing::default());
        let (woken, mut wakers) = callers(1);
        rousing.add(&remote, Crowd(1), wakers.next().unwrap());
        rousing.rouse(&remote, START);
        assert_eq!((count(&woken), rousing.has_any()), (1, false));
    }

    #[test]
    fn beyond_the_bound_callers_are_woken_at_once() {
        let (remote, rousing) = (remote(), Rousing::default());
        let (woken, wakers) = callers(CROWD_MAX + 10);
        wakers.for_each(|waker| rousing.add(&remote, Crowd(0), waker));
        assert_eq!(count(&woken), 10);
    }

    #[test]
    fn a_panic_of_a_waker_is_not_the_others() {
        struct Panics;
        impl Wake for Panics {
            fn wake(self: Arc<Self>) {
                panic!("of a waker");
            }
        }
        let (remote, rousing) = (remote(), Rousing::default());
        let (woken, wakers) = callers(2);
        rousing.add(&remote, Crowd(0), Arc::new(Panics).into());
        rousing.add(&remote, Crowd(0), Arc::new(Panics).into());
        wakers.for_each(|waker| rousing.add(&remote, Crowd(0), waker));
        rousing.rouse(&remote, START);
        remote.rouse(Crowd(0));
        assert_eq!((count(&woken), remote.register.panics.get()), (2, 2));
    }

    #[test]
    fn threads_have_crowds_of_their_own() {
        let here = Crowd::here();
        assert_eq!(here, Crowd::here());
        assert_ne!(here, std::thread::spawn(Crowd::here).join().unwrap());
    }
}
