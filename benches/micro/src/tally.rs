//! Callers that make calls together, in rounds.

use std::cell::{Cell, RefCell};
use std::task::{Context, Poll, Waker};

/// How many calls are to be made, and what came of those that were.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    left: Cell<u64>,
    ended: Cell<u64>,
    sum: Cell<u64>,
    /// Callers that wait for the next round.
    parked: RefCell<Vec<Waker>>,
}

impl Tally {
    /// Begins a round.
    pub(crate) fn begin(&self, calls: u64) {
        self.left.set(calls);
        self.ended.set(0);
        self.sum.set(0);
        self.parked.borrow_mut().drain(..).for_each(Waker::wake);
    }

    /// Lets a caller make one call of the round.
    #[inline]
    pub(crate) fn poll_admit(&self, cx: &mut Context<'_>) -> Poll<()> {
        match self.left.get().checked_sub(1) {
            Some(left) => {
                self.left.set(left);
                Poll::Ready(())
            }
            None => self.park(cx),
        }
    }

    /// Apart, so that what each call asks counts for little in what is measured.
    #[cold]
    fn park(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.parked.borrow_mut().push(cx.waker().clone());
        Poll::Pending
    }

    /// A call has brought `value`.
    pub(crate) fn end(&self, value: u64) {
        self.ended.set(self.ended.get() + 1);
        self.sum.set(self.sum.get() + value);
    }

    /// How many calls of the round have ended.
    pub(crate) fn ended(&self) -> u64 {
        self.ended.get()
    }

    /// What they have brought.
    pub(crate) fn sum(&self) -> u64 {
        self.sum.get()
    }
}
