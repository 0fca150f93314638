//! Futures on the shard that wait for the end of a call.

use std::cell::RefCell;
use std::task::Waker;

use ringcall_core::Outcome;

/// Waiters by number. A number is free again when its future has taken the result or was dropped, not
/// when the result arrives: otherwise another call could get the number meanwhile, and with it somebody
/// else's result.
pub(crate) struct Waiters(RefCell<State>);

struct State {
    waiters: Vec<Waiter>,
    free: Vec<u32>,
}

enum Waiter {
    Free,
    Waiting(Waker),
    Done(Outcome),
}

impl Waiters {
    pub(crate) fn new() -> Waiters {
        Waiters(RefCell::new(State { waiters: Vec::new(), free: Vec::new() }))
    }

    /// How many there are.
    pub(crate) fn waiting(&self) -> u32 {
        let state = self.0.borrow();
        (state.waiters.len() - state.free.len()) as u32
    }

    /// A new waiter.
    pub(crate) fn add(&self, waker: Waker) -> u32 {
        let mut state = self.0.borrow_mut();
        let index = state.free.pop().unwrap_or_else(|| {
            state.waiters.push(Waiter::Free);
            state.waiters.len() as u32 - 1
        });
        state.waiters[index as usize] = Waiter::Waiting(waker);
        index
    }

    /// The call has ended.
    pub(crate) fn complete(&self, index: u32, outcome: Outcome) {
        let before = {
            let mut state = self.0.borrow_mut();
            std::mem::replace(&mut state.waiters[index as usize], Waiter::Done(outcome))
        };
        if let Waiter::Waiting(waker) = before {
            waker.wake();
        }
    }

    /// The result, if it is there; the waiter is free then. Otherwise keeps the waker.
    pub(crate) fn poll(&self, index: u32, waker: &Waker) -> Option<Outcome> {
        let mut state = self.0.borrow_mut();
        let waiter = &mut state.waiters[index as usize];
        match waiter {
            Waiter::Waiting(kept) => {
                kept.clone_from(waker);
                None
            }
            Waiter::Done(_) => {
                let done = std::mem::replace(waiter, Waiter::Free);
                state.free.push(index);
                match done {
                    Waiter::Done(outcome) => Some(outcome),
                    _ => None,
                }
            }
            Waiter::Free => None,
        }
    }

    /// Its future is gone.
    pub(crate) fn remove(&self, index: u32) {
        let mut state = self.0.borrow_mut();
        // A late result is dropped with it.
        let gone = std::mem::replace(&mut state.waiters[index as usize], Waiter::Free);
        state.free.push(index);
        drop(state);
        drop(gone);
    }
}
