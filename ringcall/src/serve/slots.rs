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
        work: Option<W>,
        // Of a future that was not ready at once.
        kept: Option<Kept<F, W>>,
    }
}

/// What the first poll has from its caller, and later ones need.
struct Kept<F, W> {
    shard: Rc<Inner>,
    facts: Facts,
    home: Rc<Free<F, W>>,
}

impl<F: Future + 'static, W: Work<F::Output>> Slots<F, W> {
    /// Builds a future in a slot. Somebody's code makes it.
    #[inline]
    pub(super) fn build(
        &self,
        make: impl FnOnce() -> Result<F, Status>,
    ) -> Result<Lent<F, W>, Unbuilt> {
        let taken = self.0.borrow_mut().pop();
        let mut slot =
            taken.unwrap_or_else(|| Box::pin(Slot { future: None, work: None, kept: None }));
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
        *slot.as_mut().project().work = Some(work);
        let first = |cx: &mut Context<'_>| slot.as_mut().poll_of(shard, facts, cx);
        let Some(index) = shard.executor.poll_first(first) else {
            return give_back(&self.0, slot);
        };
        let (shard_kept, home) = (Rc::clone(shard), Rc::clone(&self.0));
        *slot.as_mut().project().kept = Some(Kept { shard: shard_kept, facts: *facts, home });
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
            Unbuilt::Refused(status) => shard.refuse(facts.handle, facts.request, status),
            Unbuilt::Panicked(hint) => panicked(shard, facts, hint),
        }
    }
}

/// Drops in place what the future held, and what it was for if it was cancelled.
#[inline]
fn give_back<F, W>(home: &Free<F, W>, mut slot: Lent<F, W>) {
    let mut this = slot.as_mut().project();
    this.future.set(None);
    *this.work = None;
    let mut free = home.borrow_mut();
    if free.len() < SLOTS_KEPT {
        free.push(slot);
    }
}

impl<F: Future, W: Work<F::Output>> Slot<F, W> {
    #[inline]
    fn poll_of(
        self: Pin<&mut Self>,
        shard: &Rc<Inner>,
        facts: &Facts,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let this = self.project();
        let Some(future) = this.future.as_pin_mut() else { return Poll::Ready(()) };
        let entered = shard.enter(facts);
        let polled = catch_unwind(AssertUnwindSafe(|| future.poll(cx)));
        drop(entered);
        if matches!(polled, Ok(Poll::Pending)) {
            return Poll::Pending;
        }
        if this.kept.is_some() {
            shard.ended_running(facts.handle, facts.request);
        }
        match (polled, this.work.take()) {
            (Ok(Poll::Ready(output)), Some(work)) => work.ended(shard, facts, output),
            (Err(panic), _) => panicked(shard, facts, Hint::of(&*panic)),
            (Ok(_), _) => {}
        }
        Poll::Ready(())
    }
}

impl<F: Future + 'static, W: Work<F::Output>> Task for Slot<F, W> {
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let Some(Kept { shard, facts, .. }) = self.as_mut().project().kept else {
            return Poll::Ready(());
        };
        let (shard, facts) = (Rc::clone(shard), *facts);
        self.poll_of(&shard, &facts, cx)
    }

    fn recycle(mut self: Pin<Box<Self>>) {
        // It would keep its home alive in there.
        if let Some(kept) = self.as_mut().project().kept.take() {
            give_back(&kept.home, self);
        }
    }
}
