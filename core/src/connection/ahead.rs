//! What comes before the next frame is looked at as an ordinary one.

use alloc::collections::VecDeque;

use super::Event;
use super::inbound::Found;

/// What there is to tell, and what waits, before further frames; and why these are not ordinary. Hardly ever anything
/// of it, so whether there is is a comparison.
pub(super) struct Ahead<T> {
    /// Rare events; ordinary ones are parsed when they are asked for.
    events: VecDeque<Event<T>>,
    /// A frame whose body waits for the landing budget.
    stalled: Option<Found>,
    /// Which of these there are.
    what: u8,
}

/// There are events.
const EVENTS: u8 = 1 << 0;
/// A frame is stalled.
const STALLED: u8 = 1 << 1;
/// Memory was short when bytes last arrived, so that bodies should not pin what they arrived in.
pub(super) const SHORT: u8 = 1 << 2;
/// The connection is recorded.
pub(super) const RECORDED: u8 = 1 << 3;
/// Requests are parked.
pub(super) const PARKED: u8 = 1 << 4;
/// The other side was told to make no further calls.
pub(super) const GOING_AWAY: u8 = 1 << 5;

impl<T> Ahead<T> {
    pub(super) fn new() -> Ahead<T> {
        Ahead { events: VecDeque::new(), stalled: None, what: 0 }
    }

    /// Whether there is anything, so that the next frame is not ordinary.
    #[inline(always)]
    pub(super) fn is_any(&self) -> bool {
        self.what != 0
    }

    /// Whether the next frame may be an ordinary item all the same.
    #[inline]
    pub(super) fn lets_items_pass(&self) -> bool {
        self.what & !GOING_AWAY == 0
    }

    /// Frames are not ordinary for this reason, or it has ended.
    #[inline]
    pub(super) fn set(&mut self, why: u8, is_so: bool) {
        self.what = if is_so { self.what | why } else { self.what & !why };
    }

    /// Has something to tell, behind all that there is.
    pub(super) fn push(&mut self, event: Event<T>) {
        self.events.push_back(event);
        self.what |= EVENTS;
    }

    /// The next event that is here.
    pub(super) fn pop(&mut self) -> Option<Event<T>> {
        let event = self.events.pop_front();
        self.set(EVENTS, !self.events.is_empty());
        event
    }

    /// How many events are here.
    #[inline]
    pub(super) fn events(&self) -> usize {
        self.events.len()
    }

    /// Whether there is an event.
    #[inline]
    pub(super) fn has_events(&self) -> bool {
        self.what & EVENTS != 0
    }

    /// This frame has to wait.
    pub(super) fn stall(&mut self, found: Found) {
        self.stalled = Some(found);
        self.what |= STALLED;
    }

    /// The frame that waits, if one does.
    pub(super) fn take_stalled(&mut self) -> Option<Found> {
        self.set(STALLED, false);
        self.stalled.take()
    }

    /// Whether one does.
    #[inline]
    pub(super) fn is_stalled(&self) -> bool {
        self.what & STALLED != 0
    }
}
