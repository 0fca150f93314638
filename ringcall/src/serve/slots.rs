//! Futures of calls on their shard, in slots that are used again and again: a warm call allocates nothing.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;

use super::handler::panicked;
use super::incoming::{Facts, Running};
use crate::shard::{Inner, Task};

/// How many are kept to be used again.
const SLOTS_KEPT: usize = 1024;

/// Whose call a future works on, and what follows it.
pub(super) trait Work<O>: 'static {
    fn shard(&self) -> &Rc<Inner>;

    fn facts(&self) -> &Facts;

    /// It has come to this. Who needs its own takes it.
    fn ended(work: &mut Option<Self>, output: O)
    where
        Self: Sized;
}

/// Slots for the futures of one method, or of one filter.
pub(super) struct Slots<F, W>(Rc<Free<F, W>>);

type Free<F, W> = RefCell<Vec<Pin<Box<Slot<F, W>>>>>;

impl<F, W> Default for Slots<F, W> {
    fn default() -> Slots<F, W> {
        Slots(Rc::default())
    }
}

pin_project! {
    struct Slot<F, W> {
        #[pin]
        future: Option<F>,
        work: Option<W>,
        // It was not ready at once, so that the shard knows of it.
        is_kept: bool,
        // Where it goes when its work has ended; `None` there, or it would keep its home alive.
        home: Option<Rc<Free<F, W>>>,
    }
}

impl<F: Future + 'static, W: Work<F::Output>> Slots<F, W> {
    /// Polls a future once at once. It becomes a task only if it is not ready then.
    #[inline]
    pub(super) fn start(&self, shard: &Inner, future: F, work: W) {
        let taken = self.0.borrow_mut().pop();
        let mut slot = taken.unwrap_or_else(|| {
            Box::pin(Slot { future: None, work: None, is_kept: false, home: None })
        });
        {
            let mut slot = slot.as_mut().project();
            slot.future.set(Some(future));
            *slot.work = Some(work);
            *slot.is_kept = false;
            *slot.home = Some(Rc::clone(&self.0));
        }
        let Some(index) = shard.executor.poll_first(|cx| slot.as_mut().poll(cx)) else {
            return slot.recycle();
        };
        let kept = slot.as_mut().project();
        *kept.is_kept = true;
        if let Some(facts) = kept.work.as_ref().map(W::facts) {
            let running = Running::Task(index);
            let bytes = size_of::<Slot<F, W>>();
            shard.keep_running(facts.handle, facts.request, facts.deadline, running, bytes);
        }
        shard.executor.put(index, slot);
    }
}

impl<F: Future + 'static, W: Work<F::Output>> Task for Slot<F, W> {
    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else { return Poll::Ready(()) };
        let Some(work) = this.work.as_ref() else { return Poll::Ready(()) };
        let entered = work.shard().enter(work.facts());
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        drop(entered);
        if matches!(polled, Ok(Poll::Pending)) {
            return Poll::Pending;
        }
        if *this.is_kept {
            let facts = work.facts();
            work.shard().ended_running(facts.handle, facts.request);
        }
        match polled {
            Ok(Poll::Ready(output)) => W::ended(this.work, output),
            Ok(Poll::Pending) => {}
            Err(_) => panicked(work.shard(), work.facts()),
        }
        Poll::Ready(())
    }

    fn recycle(mut self: Pin<Box<Self>>) {
        let home = {
            let mut this = self.as_mut().project();
            // Drops what the future held, in place.
            this.future.set(None);
            // Of a call that was cancelled.
            *this.work = None;
            this.home.take()
        };
        let Some(home) = home else { return };
        let mut free = home.borrow_mut();
        if free.len() < SLOTS_KEPT {
            free.push(self);
        }
    }
}
