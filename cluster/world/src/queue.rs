//! What happens next.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use ringcall_core::Instant;

/// Events by their time; those of the same time in the order in which they were put down.
#[derive(Debug)]
pub(crate) struct Queue<E> {
    events: BinaryHeap<Reverse<Timed<E>>>,
    order: u64,
}

#[derive(Debug)]
struct Timed<E> {
    at: Instant,
    order: u64,
    event: E,
}

impl<E> Default for Queue<E> {
    fn default() -> Queue<E> {
        Queue { events: BinaryHeap::new(), order: 0 }
    }
}

impl<E> Queue<E> {
    pub(crate) fn push(&mut self, at: Instant, event: E) {
        self.order += 1;
        self.events.push(Reverse(Timed { at, order: self.order, event }));
    }

    /// The next one, unless it is later than `end`.
    pub(crate) fn pop_until(&mut self, end: Instant) -> Option<(Instant, E)> {
        let is_due = self.events.peek().is_some_and(|Reverse(next)| next.at <= end);
        let Reverse(Timed { at, event, .. }) = is_due.then(|| self.events.pop()).flatten()?;
        Some((at, event))
    }
}

impl<E> Ord for Timed<E> {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.order).cmp(&(other.at, other.order))
    }
}

impl<E> PartialOrd for Timed<E> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<E> PartialEq for Timed<E> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<E> Eq for Timed<E> {}
