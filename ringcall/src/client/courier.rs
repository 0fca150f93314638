//! Wakes callers on other threads, many with one wake.
//!
//! Waking a task of another thread's executor is a system call as a rule, even if that thread is awake; waking
//! one on its own thread is not. So when several calls of one thread end in a turn, only the first of their callers
//! is woken from here. It wakes the others as soon as it is polled, or dropped. Should that take long, the
//! shard wakes them itself.

use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::Waker;
use std::time::Duration;

use parking_lot::Mutex;
use ringcall_core::Instant;

use super::shared::RemoteSlot;

/// How long callers wait for the first of them, before the shard wakes them.
const PATIENCE: Duration = Duration::from_millis(1);

/// The callers of one thread.
#[derive(Default)]
pub(crate) struct Crew {
    waiting: Mutex<VecDeque<Waker>>,
    /// Whether there are any, to look at without the lock.
    any: AtomicBool,
}

thread_local! {
    static CREW: Arc<Crew> = Arc::default();
}

impl Crew {
    /// Makes `kept` that of this thread.
    #[inline]
    pub(super) fn of_this_thread(kept: &mut Option<Arc<Crew>>) {
        let of_thread = CREW.try_with(|crew| {
            if !kept.as_ref().is_some_and(|kept| Arc::ptr_eq(kept, crew)) {
                *kept = Some(Arc::clone(crew));
            }
        });
        if of_thread.is_err() {
            // The thread is ending.
            *kept = None;
        }
    }

    /// Wakes all that wait.
    pub(super) fn wake(&self) {
        if !self.any.swap(false, Ordering::AcqRel) {
            return;
        }
        loop {
            // Not locked while it wakes: that is somebody's code.
            let next = self.waiting.lock().pop_front();
            let Some(waker) = next else { return };
            waker.wake();
        }
    }
}

/// On a shard: whose calls have ended in this turn.
#[derive(Default)]
pub(crate) struct Courier {
    ended: RefCell<Vec<Arc<RemoteSlot>>>,
    /// The first caller of each crew, for [`flush`](Courier::flush).
    firsts: RefCell<Vec<First>>,
    /// Crews that were told by their first.
    told: RefCell<Vec<Arc<Crew>>>,
    /// When those that have not heard are woken from here.
    due: Cell<Option<Instant>>,
}

struct First {
    slot: Arc<RemoteSlot>,
    waker: Waker,
    crew: Arc<Crew>,
    has_others: bool,
}

impl Courier {
    /// The call of a slot has ended; its caller is woken with the next [`flush`](Courier::flush).
    pub(crate) fn ended(&self, slot: Arc<RemoteSlot>) {
        self.ended.borrow_mut().push(slot);
    }

    /// Wakes the callers.
    pub(crate) fn flush(&self, now: Instant) {
        if self.ended.borrow().is_empty() {
            return;
        }
        let mut firsts = self.firsts.borrow_mut();
        for slot in self.ended.borrow_mut().drain(..) {
            let Some(waker) = slot.waker.take() else { continue };
            let Some(crew) = slot.crew() else {
                waker.wake();
                continue;
            };
            match firsts.iter_mut().find(|first| Arc::ptr_eq(&first.crew, &crew)) {
                None => firsts.push(First { slot, waker, crew, has_others: false }),
                Some(first) => {
                    first.has_others = true;
                    crew.waiting.lock().push_back(waker);
                }
            }
        }
        for First { slot, waker, crew, has_others } in firsts.drain(..) {
            if has_others {
                crew.any.store(true, Ordering::Release);
                slot.tells_crew();
                self.due.set(Some(self.due.get().unwrap_or(now + PATIENCE)));
                let mut told = self.told.borrow_mut();
                if !told.iter().any(|other| Arc::ptr_eq(other, &crew)) {
                    told.push(crew);
                }
            }
            waker.wake();
        }
    }

    /// When callers are to be woken from here, if any have not heard yet.
    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let due = self.due.get()?;
        if self.told.borrow().iter().any(|crew| crew.any.load(Ordering::Acquire)) {
            return Some(due);
        }
        self.told.borrow_mut().clear();
        self.due.set(None);
        None
    }

    /// Wakes those who have not heard in time.
    pub(crate) fn expire(&self, now: Instant) {
        if self.due.get().is_some_and(|due| due <= now) {
            self.due.set(None);
            let told = std::mem::take(&mut *self.told.borrow_mut());
            told.iter().for_each(|crew| crew.wake());
        }
    }
}
