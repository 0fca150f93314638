//! Futures on the shard that wait for the end of a call.

use std::cell::RefCell;
use std::task::Waker;

use ringcall_core::{Answer, Chunk, Outcome, Reply, Status};

/// Waiters by number. A number is free again when its future has taken the result, not when the result arrives; and
/// when the future was dropped, not before the connection has given the number back: otherwise another call could get
/// it meanwhile, and with it somebody else's result.
pub(crate) struct Waiters(RefCell<State>);

#[derive(Default)]
struct State {
    waiters: Vec<Waiter>,
    free: Vec<u32>,
}

enum Waiter {
    Free,
    /// A task of the shard: its waker need not be kept, which would be counted twice a call by atomics.
    Task(u32),
    Waiting(Waker),
    Done(Outcome),
    /// Its future is gone, and its result on its way.
    Gone,
}

impl Waiter {
    /// Whom to wake; `None` if its future is gone. Nothing that would have to be dropped is left of it.
    #[inline]
    fn sleeper(&mut self) -> Option<Sleeper> {
        if let Waiter::Task(task) = *self {
            return Some(Sleeper::Task(task));
        }
        match std::mem::replace(self, Waiter::Free) {
            Waiter::Waiting(waker) => Some(Sleeper::Waker(waker)),
            _ => None,
        }
    }
}

/// Whom to wake.
pub(crate) enum Sleeper {
    Task(u32),
    Waker(Waker),
}

/// What has become of a waiter.
pub(crate) enum Waited {
    Pending,
    Ended(Outcome),
}

impl Waiters {
    pub(crate) fn new() -> Waiters {
        Waiters(RefCell::new(State::default()))
    }

    /// How many there are.
    pub(crate) fn waiting(&self) -> u32 {
        let state = self.0.borrow();
        (state.waiters.len() - state.free.len()) as u32
    }

    /// A new waiter, of the task with this number, if it is one of the shard's.
    #[inline]
    pub(crate) fn add(&self, task: Option<u32>, waker: &Waker) -> u32 {
        let mut state = self.0.borrow_mut();
        let index = state.vacant();
        // Each written in place: a whole waiter is large to move.
        let waiter = &mut state.waiters[index as usize];
        match task {
            Some(task) => put(waiter, Waiter::Task(task)),
            None => put(waiter, Waiter::Waiting(waker.clone())),
        }
        index
    }

    /// The call has ended. Returns who is to be woken for it.
    #[inline]
    pub(crate) fn complete(&self, index: u32, outcome: Outcome) -> Option<Sleeper> {
        let mut state = self.0.borrow_mut();
        let waiter = &mut state.waiters[index as usize];
        let Some(sleeper) = waiter.sleeper() else {
            state.free.push(index);
            return None;
        };
        put(waiter, Waiter::Done(outcome));
        Some(sleeper)
    }

    /// The call is answered: the same, which takes the bytes of the reply in any case, since its caller forgets it.
    #[inline]
    pub(crate) fn answer(&self, index: u32, reply: &mut Reply) -> Option<Sleeper> {
        let mut state = self.0.borrow_mut();
        let waiter = &mut state.waiters[index as usize];
        let Some(sleeper) = waiter.sleeper() else {
            state.free.push(index);
            drop(take(reply));
            return None;
        };
        put(waiter, Waiter::Done(Outcome::Reply(take(reply))));
        Some(sleeper)
    }

    /// The answer, if it is there and a value as a handler gave it, not compressed; the waiter is free then.
    /// Everything else is for [`poll`](Self::poll).
    #[inline(always)]
    pub(crate) fn take_plain(&self, index: u32) -> Option<Answer<Chunk>> {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        let waiter = &mut state.waiters[index as usize];
        let Waiter::Done(Outcome::Reply(reply)) = waiter else { return None };
        if reply.header.status != Status::OK || reply.header.compression != 0 {
            return None;
        }
        let Waiter::Done(Outcome::Reply(reply)) = std::mem::replace(waiter, Waiter::Free) else {
            return None;
        };
        state.free.push(index);
        Some(reply.into())
    }

    /// The result, if it is there; the waiter is free then. Otherwise keeps whom to wake.
    pub(crate) fn poll(
        &self,
        index: u32,
        task: impl FnOnce() -> Option<u32>,
        waker: &Waker,
    ) -> Waited {
        let mut state = self.0.borrow_mut();
        let state = &mut *state;
        let waiter = &mut state.waiters[index as usize];
        match std::mem::replace(waiter, Waiter::Free) {
            Waiter::Done(outcome) => {
                state.free.push(index);
                Waited::Ended(outcome)
            }
            Waiter::Free | Waiter::Gone => Waited::Pending,
            Waiter::Task(_) | Waiter::Waiting(_) => {
                *waiter = task().map_or_else(|| Waiter::Waiting(waker.clone()), Waiter::Task);
                Waited::Pending
            }
        }
    }

    /// Its call was not made, or given up: nothing will come for it.
    pub(crate) fn remove(&self, index: u32) {
        let mut state = self.0.borrow_mut();
        let gone = std::mem::replace(&mut state.waiters[index as usize], Waiter::Free);
        state.free.push(index);
        drop(state);
        drop(gone);
    }

    /// Its future is gone, while its call has ended, or ends without being given up: the result, which is here or on
    /// its way, is dropped.
    pub(crate) fn leave(&self, index: u32) {
        let mut state = self.0.borrow_mut();
        let gone = std::mem::replace(&mut state.waiters[index as usize], Waiter::Gone);
        if let Waiter::Done(_) = gone {
            state.waiters[index as usize] = Waiter::Free;
            state.free.push(index);
        }
        drop(state);
        drop(gone);
    }
}

/// The reply with its bytes; what stays has none.
#[inline(always)]
fn take(reply: &mut Reply) -> Reply {
    let body = std::mem::take(&mut reply.body);
    let extensions = std::mem::take(&mut reply.extensions);
    let Reply { header, attached, .. } = *reply;
    Reply { header, body, attached, extensions }
}

/// Writes over a waiter that holds nothing to drop, which the compiler cannot know.
#[inline]
fn put(place: &mut Waiter, waiter: Waiter) {
    std::mem::forget(std::mem::replace(place, waiter));
}

impl State {
    #[inline]
    fn vacant(&mut self) -> u32 {
        match self.free.pop() {
            Some(index) => index,
            None => self.grow(),
        }
    }

    #[cold]
    fn grow(&mut self) -> u32 {
        self.waiters.push(Waiter::Free);
        self.waiters.len() as u32 - 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use ringcall_core::frame::ReplyHeader;
    use ringcall_core::{Attached, Memory, MemoryLimits};

    /// Whoever brings it forgets it.
    #[test]
    fn a_reply_to_nobody_leaves_nothing_behind() {
        let memory = Memory::new(MemoryLimits::default());
        let reply = || Reply {
            header: ReplyHeader::new(Status::OK),
            body: memory.pool().copy(b"late"),
            attached: Attached::Nothing,
            extensions: memory.pool().copy(b"too"),
        };
        let waiters = Waiters::new();
        let gone = waiters.add(None, Waker::noop());
        waiters.leave(gone);
        assert_ne!(waiters.add(None, Waker::noop()), gone, "its reply is on its way");
        let mut late = reply();
        assert!(waiters.answer(gone, &mut late).is_none());
        assert!(late.body.is_empty() && late.extensions.is_empty());
        assert_eq!(waiters.add(None, Waker::noop()), gone);
        // One that is there goes with its future.
        assert!(waiters.answer(gone, &mut reply()).is_some());
        waiters.leave(gone);
        assert_eq!(waiters.add(None, Waker::noop()), gone);
    }
}
