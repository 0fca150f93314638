//! Who waits for a change.

use std::task::Waker;

use slab::Slab;

/// The wakers of futures that wait for one thing. Each future has a place for its own, which it leaves when it is
/// dropped: otherwise those that are given up, each of a call perhaps, would stay for as long as nothing changes.
#[derive(Debug, Default)]
pub(crate) struct Wakers(Slab<Waker>);

impl Wakers {
    /// Keeps the waker of a future, in place of its last one.
    pub(crate) fn keep(&mut self, place: &mut Option<usize>, waker: &Waker) {
        match *place {
            Some(place) => self.0[place].clone_from(waker),
            None => *place = Some(self.0.insert(waker.clone())),
        }
    }

    /// The future waits no more.
    pub(crate) fn leave(&mut self, place: &mut Option<usize>) {
        if let Some(place) = place.take() {
            self.0.remove(place);
        }
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
