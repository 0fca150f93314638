//! Who waits for a change.

use std::task::Waker;

use slab::Slab;

/// The wakers of futures that wait for one thing. Each future has a place for its own, which it leaves when it is
/// dropped: otherwise those that are given up, each of a call perhaps, would stay for as long as nothing changes.
///
/// Wakers that are given back are to be dropped when no lock is held: each may be the last of its task, which may do
/// anything when it ends.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Slab<Waker>);

impl Wakers {
    /// Keeps the waker of a future, and gives its last one back.
    #[must_use]
    pub(crate) fn keep(&mut self, place: &mut Option<usize>, waker: &Waker) -> Option<Waker> {
        match *place {
            Some(place) if self.0[place].will_wake(waker) => None,
            Some(place) => Some(std::mem::replace(&mut self.0[place], waker.clone())),
            None => {
                *place = Some(self.0.insert(waker.clone()));
                None
            }
        }
    }

    /// The future waits no more: gives its waker back.
    #[must_use]
    pub(crate) fn leave(&mut self, place: &mut Option<usize>) -> Option<Waker> {
        place.take().map(|place| self.0.remove(place))
    }

    /// All of them, to be woken when no lock is held. They keep their places.
    pub(crate) fn all(&self) -> Vec<Waker> {
        self.0.iter().map(|(_, waker)| waker.clone()).collect()
    }

    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}
