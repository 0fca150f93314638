//! Time for tasks.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringcall_core::{Instant, Wheel};

use super::inner::Inner;

/// The timers of a shard's tasks.
pub(crate) struct Timers(RefCell<State>);

struct State {
    wheel: Wheel,
    wakers: Vec<Option<Waker>>,
    free: Vec<u32>,
}

impl Timers {
    pub(crate) fn new(now: Instant) -> Timers {
        Timers(RefCell::new(State { wheel: Wheel::new(now), wakers: Vec::new(), free: Vec::new() }))
    }

    pub(crate) fn next(&self) -> Option<Instant> {
        self.0.borrow().wheel.next()
    }

    /// Wakes whoever's time has come. Says whether there was anybody.
    pub(crate) fn expire(&self, now: Instant) -> bool {
        let mut any = false;
        loop {
            let waker = {
                let mut state = self.0.borrow_mut();
                let Some(key) = state.wheel.expire(now) else { return any };
                state.wakers[key as usize].take()
            };
            any = true;
            waker.into_iter().for_each(Waker::wake);
        }
    }

    fn arm(&self, at: Instant, waker: Waker) -> u32 {
        let mut state = self.0.borrow_mut();
        let key = state.free.pop().unwrap_or_else(|| {
            state.wakers.push(None);
            state.wakers.len() as u32 - 1
        });
        state.wakers[key as usize] = Some(waker);
        state.wheel.arm(key, at);
        key
    }

    /// Whether the timer has not fired yet; keeps the waker if so.
    fn poll(&self, key: u32, waker: &Waker) -> bool {
        let mut state = self.0.borrow_mut();
        let Some(kept) = &mut state.wakers[key as usize] else { return false };
        kept.clone_from(waker);
        true
    }

    fn release(&self, key: u32) {
        let mut state = self.0.borrow_mut();
        state.wheel.cancel(key);
        state.wakers[key as usize] = None;
        state.free.push(key);
    }
}

/// Ready at a time.
pub(crate) struct SleepUntil {
    shard: Rc<Inner>,
    at: Instant,
    key: Option<u32>,
}

impl SleepUntil {
    pub(crate) fn new(shard: &Rc<Inner>, at: Instant) -> SleepUntil {
        SleepUntil { shard: Rc::clone(shard), at, key: None }
    }
}

impl Future for SleepUntil {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.at <= self.shard.now() {
            return Poll::Ready(());
        }
        match self.key {
            None => {
                let is_waited_longer = self.shard.is_waited_longer(self.at);
                self.key = Some(self.shard.timers.arm(self.at, cx.waker().clone()));
                if is_waited_longer {
                    self.shard.left_work();
                }
            }
            Some(key) => {
                if !self.shard.timers.poll(key, cx.waker()) {
                    return Poll::Ready(());
                }
            }
        }
        Poll::Pending
    }
}

impl Drop for SleepUntil {
    fn drop(&mut self) {
        if let Some(key) = self.key {
            self.shard.timers.release(key);
        }
    }
}
