//! Waiting until calls can be made.

use std::collections::BTreeMap;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_core::{Cause, Failure, Missing};

use super::{Connector, Guard as _, Shared};

/// Who waits for another list of instances.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Larger each time that the list is replaced.
    lists: u64,
    next: u64,
    wakers: BTreeMap<u64, Waker>,
}

impl<N: Connector> Shared<N> {
    /// The list was replaced.
    pub(super) fn tell_of_list(&self) {
        let wakers = self.waiting.with(|waiting| {
            waiting.lists += 1;
            std::mem::take(&mut waiting.wakers)
        });
        wakers.into_values().for_each(Waker::wake);
    }
}

/// Ends when a call can be made, made by [`Balanced::ready`](super::Balanced::ready).
#[must_use = "nothing is waited for before it is awaited"]
pub struct Ready<N: Connector> {
    shared: Arc<Shared<N>>,
    number: u64,
    /// Of which list `opening` are the connections.
    list: Option<u64>,
    opening: Vec<N::Opening>,
    /// How long it waits, until it begins to.
    time: Option<Duration>,
    sleep: Option<N::Sleep>,
}

impl<N: Connector> Ready<N> {
    pub(super) fn new(shared: Arc<Shared<N>>) -> Ready<N> {
        let number = shared.waiting.with(|waiting| {
            waiting.next += 1;
            waiting.next
        });
        let (list, opening) = (None, Vec::new());
        Ready { shared, number, list, opening, time: None, sleep: None }
    }

    /// Waits no longer than this, from when it is first polled.
    pub fn within(mut self, time: Duration) -> Ready<N> {
        self.time = Some(time);
        self
    }

    /// Waits for the connections of the list that there is now, and for another list.
    fn look_at_list(&mut self, waker: &Waker) {
        let Ready { shared, number, .. } = self;
        // Before its connections are looked at: who replaces it meanwhile wakes this.
        let (list, before) = shared.waiting.with(|waiting| {
            let before = waiting.wakers.insert(*number, waker.clone());
            (waiting.lists, before)
        });
        // It may be the last of its task, which may do anything when it ends.
        drop(before);
        if self.list.replace(list) != Some(list) {
            let channels = shared.fleet.with(|fleet| fleet.targets());
            self.opening = channels.iter().map(|it| shared.connector.opening(it)).collect();
        }
    }

    /// What is the matter with the instances, for whoever waits no longer.
    fn why_not(&self) -> Cause {
        let (channels, missing) = self.shared.fleet.with(|fleet| {
            let why = match fleet.has_instances() {
                true => Missing::Weightless,
                false => Missing::NoneKnown,
            };
            (fleet.targets(), Cause::NoInstance { why, service: fleet.service() })
        });
        let failure = channels.iter().find_map(|it| self.shared.connector.failure(it));
        match (failure, channels.is_empty()) {
            (Some(reason), _) => Cause::Closed(reason),
            (None, true) => missing,
            (None, false) => Cause::NotReady,
        }
    }

    /// Whether one of them can be used. Those that never can be are not asked again.
    fn poll_opening(&mut self, cx: &mut Context<'_>) -> bool {
        let mut is_ready = false;
        self.opening.retain_mut(|opening| match Pin::new(opening).poll(cx) {
            Poll::Pending => true,
            Poll::Ready(can_be_used) => {
                is_ready |= can_be_used;
                false
            }
        });
        is_ready
    }
}

impl<N: Connector> Unpin for Ready<N> {}

impl<N: Connector> Future for Ready<N> {
    type Output = Result<(), Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        self.look_at_list(cx.waker());
        if self.poll_opening(cx) {
            return Poll::Ready(Ok(()));
        }
        if let Some(time) = self.time.take() {
            self.sleep = Some(self.shared.connector.sleep(time));
        }
        let is_late = self.sleep.as_mut().is_some_and(|sleep| Pin::new(sleep).poll(cx).is_ready());
        match is_late {
            true => Poll::Ready(Err(Failure::not_sent(self.why_not()))),
            false => Poll::Pending,
        }
    }
}

impl<N: Connector> Drop for Ready<N> {
    fn drop(&mut self) {
        let number = self.number;
        let waker = self.shared.waiting.with(|waiting| waiting.wakers.remove(&number));
        drop(waker);
    }
}

impl<N: Connector> fmt::Debug for Ready<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ready").field("opening", &self.opening.len()).finish_non_exhaustive()
    }
}
