//! Futures of calls on their shard, in slots that are used again and again: a warm call allocates nothing.

use std::cell::RefCell;
use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use pin_project_lite::pin_project;
use ringcall_core::Status;

use super::handler::panicked;
use super::incoming::{Facts, Running};
use super::unread;
use crate::panics::Hint;
use crate::shard::{Inner, Task};

/// How many are kept to be used again.
const SLOTS_KEPT: usize = 1024;

/// What follows a future that works on a call.
pub(super) trait Work<O>: 'static {
    /// It has come to this.
    fn ended(self, shard: &Rc<Inner>, facts: &Facts, output: O);
}

/// Slots for the futures of one method, or of one filter.
pub(super) struct Slots<F, W>(Rc<Free<F, W>>);

type Free<F, W> = RefCell<Vec<Lent<F, W>>>;

/// A slot that somebody has.
type Lent<F, W> = Pin<Box<Slot<F, W>>>;

impl<F, W> Default for Slots<F, W> {
    fn default() -> Slots<F, W> {
        Slots(Rc::default())
    }
}

pin_project! {
    /// A future is built in it, polled in it and dropped in it, so that it is moved once.
    pub(super) struct Slot<F, W> {
        #[pin]
        future: Option<F>,
        // Of a future that was not ready at once.
        kept: Option<Kept<F, W>>,
    }
}

/// What the first poll has from its caller, and later ones need.
struct Kept<F, W> {
    shard: Rc<Inner>,
    facts: Facts,
    home: Rc<Free<F, W>>,
    /// What follows, until it has ended.
    work: Option<W>,
}

impl<F: Future + 'static, W: Work<F::Output>> Slots<F, W> {
    /// Builds a future in a slot. Somebody's code makes it.
    #[inline]
    pub(super) fn build(
        &self,
        make: impl FnOnce() -> Result<F, Status>,
    ) -> Result<Lent<F, W>, Unbuilt> {
        let taken = self.0.borrow_mut().pop();
        let mut slot = taken.unwrap_or_else(|| Box::pin(Slot { future: None, kept: None }));
        let made = catch_unwind(AssertUnwindSafe(|| {
            slot.as_mut().project().future.set(Some(make()?));
            Ok(())
        }));
        match made {
            Ok(Ok(())) => Ok(slot),
            Ok(Err(status)) => {
                give_back(&self.0, slot);
                Err(Unbuilt::Refused(status))
            }
            Err(panic) => Err(Unbuilt::Panicked(Hint::of(&*panic))),
        }
    }

    /// Polls what was built once at once. It becomes a task only if it is not ready then.
    #[inline]
    pub(super) fn start(&self, mut slot: Lent<F, W>, shard: &Rc<Inner>, facts: &Facts, work: W) {
        let index = match shard.executor.poll_first(|cx| slot.as_mut().poll_of(shard, facts, cx)) {
            Ok(output) => {
                end(work, shard, facts, output);
                return give_back(&self.0, slot);
            }
            Err(index) => index,
        };
        let (shard_kept, home, work) = (Rc::clone(shard), Rc::clone(&self.0), Some(work));
        *slot.as_mut().project().kept = Some(Kept { shard: shard_kept, facts: *facts, home, work });
        let running = Running::Task(index);
        let bytes = size_of::<Slot<F, W>>();
        shard.keep_running(facts.handle, facts.request, facts.deadline, running, bytes);
        shard.executor.put(index, slot);
    }
}

/// Why there is no future.
pub(super) enum Unbuilt {
    Refused(Status),
    Panicked(Hint),
}

impl Unbuilt {
    /// Says so to the caller.
    #[cold]
    pub(super) fn answer(self, shard: &Rc<Inner>, facts: &Facts) {
        match self {
            Unbuilt::Refused(status) => {
                let caller = shard.peer_address(facts.handle);
                unread::refused(&shard.remote, shard.now(), facts, caller, status);
                shard.refuse(facts.handle, facts.request, status);
            }
            Unbuilt::Panicked(hint) => panicked(shard, facts, hint),
        }
    }
}

/// A future has come to this, or to a panic.
#[inline]
fn end<O>(work: impl Work<O>, shard: &Rc<Inner>, facts: &Facts, output: Result<O, Hint>) {
    match output {
        Ok(output) => work.ended(shard, facts, output),
        Err(hint) => panicked(shard, facts, hint),
    }
}

/// Drops in place what the future held.
#[inline]
fn give_back<F, W>(home: &Free<F, W>, mut slot: Lent<F, W>) {
    slot.as_mut().project().future.set(None);
    let mut free = home.borrow_mut();
    if free.len() < SLOTS_KEPT {
        free.push(slot);
    }
}

impl<F: Future, W> Slot<F, W> {
    /// Polls the future; nothing comes of it if it panics.
    #[inline]
    fn poll_of(
        self: Pin<&mut Self>,
        shard: &Rc<Inner>,
        facts: &Facts,
        cx: &mut Context<'_>,
    ) -> Poll<Result<F::Output, Hint>> {
        let Some(future) = self.project().future.as_pin_mut() else { return Poll::Pending };
        let entered = shard.enter(facts);
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        drop(entered);
        match polled {
            Ok(polled) => polled.map(Ok),
            Err(panic) => Poll::Ready(Err(Hint::of(&*panic))),
        }
    }
}

impl<F: Future + 'static, W: Work<F::Output>> Task for Slot<F, W> {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Kept { shard, facts, .. }) = self.as_mut().project().kept else {
            return Poll::Ready(());
        };
        let (shard, facts) = (Rc::clone(shard), *facts);
        let Poll::Ready(output) = self.as_mut().poll_of(&shard, &facts, cx) else {
            return Poll::Pending;
        };
        shard.ended_running(facts.handle, facts.request);
        if let Some(work) = self.project().kept.as_mut().and_then(|kept| kept.work.take()) {
            end(work, &shard, &facts, output);
        }
        Poll::Ready(())
    }

    fn recycle(mut self: Pin<Box<Self>>) {
        // It would keep its home alive in there.
        if let Some(kept) = self.as_mut().project().kept.take() {
            give_back(&kept.home, self);
        }
    }
}
