//! The calls that this side made, by slot.

use alloc::boxed::Box;
use alloc::vec::Vec;

use super::assembly::{Arriving, Assembly};
use super::replies::ExpectedReply;
use super::state::{CallInput, CallState};
use super::stream::{Late, Streams};
use crate::{Instant, MessageId, Side};

#[derive(Debug)]
pub(super) struct Calls<T> {
    side: Side,
    slots: Vec<Entry<T>>,
    /// Free slots; the one used last is used next, its memory is warm.
    free: Vec<u32>,
    first_generation: u32,
}

#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) state: CallState,
    /// Of the call that has the slot, or had it last.
    id: MessageId,
    /// Given back when the call ends for its caller.
    pub(super) ticket: Option<T>,
    /// The how-many-th REQUEST of the connection it is; zero while it has not been numbered.
    pub(super) number: u64,
    /// Ends when its last byte is sent.
    pub(super) one_way: bool,
    /// A reply that is still arriving.
    pub(super) arriving: Option<Box<Arriving<ExpectedReply>>>,
    /// What a call with streams has beside.
    pub(super) streams: Option<Box<Streams>>,
    /// What may still arrive of its items, sent before the other side knew of the end.
    pub(super) late: Late,
}

impl<T> Calls<T> {
    pub(super) fn new(side: Side, first_generation: u32) -> Calls<T> {
        Calls { side, slots: Vec::new(), free: Vec::new(), first_generation }
    }

    /// How many slots are in use.
    pub(super) fn live(&self) -> usize {
        self.slots.len().saturating_sub(self.free.len())
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// A free slot below `limit`; the next one that [`open`](Self::open) uses.
    #[inline]
    pub(super) fn vacant(&mut self, limit: u32) -> Option<u32> {
        match self.free.last().copied() {
            Some(slot) if slot < limit => Some(slot),
            _ => self.find_vacant(limit),
        }
    }

    /// No slot is free, or the limit was lowered: slots beyond it wait until it is raised.
    #[cold]
    fn find_vacant(&mut self, limit: u32) -> Option<u32> {
        if let Some(at) = self.free.iter().rposition(|&slot| slot < limit) {
            let slot = self.free.remove(at);
            self.free.push(slot);
            return Some(slot);
        }
        let slot = self.slots();
        if slot >= limit {
            return None;
        }
        self.free.push(slot);
        self.slots.push(Entry {
            state: CallState::Free,
            id: MessageId::new(self.side, self.first_generation, slot),
            ticket: None,
            number: 0,
            one_way: false,
            arriving: None,
            streams: None,
            late: Late::default(),
        });
        Some(slot)
    }

    /// Begins a call in a slot that [`vacant`](Self::vacant) gave.
    #[inline]
    pub(super) fn open(
        &mut self,
        slot: u32,
        input: CallInput,
        ticket: Option<T>,
        number: u64,
    ) -> MessageId {
        let next = self.free.pop();
        debug_assert_eq!(next, Some(slot));
        let entry = &mut self.slots[slot as usize];
        entry.id = entry.id.next();
        entry.ticket = ticket;
        entry.number = number;
        entry.one_way = false;
        debug_assert_eq!(entry.state, CallState::Free);
        entry.state = CallState::Free.on(input).unwrap_or(CallState::Free);
        entry.id
    }

    /// The call with this id, if it is still in its slot.
    #[inline]
    pub(super) fn find(&mut self, id: MessageId) -> Option<&mut Entry<T>> {
        let entry = self.slots.get_mut(id.slot() as usize)?;
        (entry.state != CallState::Free && entry.id == id).then_some(entry)
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.slots.get_mut(slot as usize).filter(|entry| entry.state != CallState::Free)
    }

    /// Frees the slot of a call that waits, whose reply is here whole, and that was not given up; `None`,
    /// and nothing has happened, if it is another.
    #[inline(always)]
    pub(super) fn end_plain(&mut self, id: MessageId) -> Option<T> {
        let entry = self.slots.get_mut(id.slot() as usize)?;
        if entry.state != CallState::Waiting || entry.id != id || entry.streams.is_some() {
            return None;
        }
        let ticket = entry.ticket.take()?;
        const FREE: Option<CallState> = CallState::Waiting.on(CallInput::ReplyEnds);
        entry.state = FREE.unwrap_or(CallState::Waiting);
        self.free.push(id.slot());
        Some(ticket)
    }

    /// Replies that are arriving.
    pub(super) fn arriving(&self) -> impl Iterator<Item = &Arriving<ExpectedReply>> {
        let arriving = self.slots.iter().filter_map(|entry| entry.arriving.as_deref());
        arriving.filter(|arriving| arriving.assembly.is_some())
    }

    /// When the items that are arriving in parts last went on.
    pub(super) fn items_progress(&self) -> impl Iterator<Item = Instant> {
        self.slots.iter().filter_map(|entry| {
            Some(entry.streams.as_ref()?.input.as_ref()?.arriving.as_ref()?.progress)
        })
    }

    /// The slot of the call that has this id, or had it last.
    pub(super) fn last(&mut self, id: MessageId) -> Option<&mut Entry<T>> {
        self.slots.get_mut(id.slot() as usize).filter(|entry| entry.id == id)
    }

    /// Where the body of this call's reply goes.
    pub(super) fn arriving_at(&self, id: MessageId) -> Option<&Assembly> {
        if self.id_at(id.slot()) != Some(id) {
            return None;
        }
        let entry = self.slots.get(id.slot() as usize)?;
        entry.arriving.as_ref()?.assembly.as_ref()
    }

    /// Where the body of the item of its stream goes.
    pub(super) fn item_at(&self, id: MessageId) -> Option<&Assembly> {
        let entry = self.slots.get(id.slot() as usize).filter(|entry| entry.id == id)?;
        entry.streams.as_ref()?.input.as_ref()?.arriving.as_ref()?.assembly.as_ref()
    }

    pub(super) fn id_at(&self, slot: u32) -> Option<MessageId> {
        self.slots.get(slot as usize).map(|entry| entry.id)
    }

    /// Changes a call's state by the table; frees its slot when that is the new state. Says whether
    /// the table has the transition.
    #[inline]
    pub(super) fn step(&mut self, slot: u32, input: CallInput) -> bool {
        let Some(entry) = self.slots.get_mut(slot as usize) else { return false };
        let Some(next) = entry.state.on(input) else { return false };
        entry.state = next;
        if next == CallState::Free {
            entry.arriving = None;
            entry.streams = None;
            self.free.push(slot);
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn b04_generations_wrap_without_meeting_a_live_call() {
        let mut calls: Calls<u32> = Calls::new(Side::Client, 0x7fff_fffe);
        let mut ids = Vec::new();
        for i in 0..5 {
            let slot = calls.vacant(10).unwrap();
            let id = calls.open(slot, CallInput::SendLast, Some(i), 0);
            assert_eq!(id.slot(), 0, "the warm slot is used again");
            assert!(calls.find(id).is_some());
            assert!(ids.iter().all(|&old| calls.find(old).is_none()));
            calls.step(slot, CallInput::ReplyEnds);
            ids.push(id);
        }
        assert_eq!(ids[0].generation(), 0x7fff_ffff);
        assert_eq!(ids[1].generation(), 0);
    }

    #[test]
    fn slots_stay_below_the_limit() {
        let mut calls: Calls<u32> = Calls::new(Side::Client, 0);
        for i in 0..4 {
            let slot = calls.vacant(4).unwrap();
            calls.open(slot, CallInput::SendLast, Some(i), 0);
        }
        assert_eq!(calls.vacant(4), None);
        calls.step(3, CallInput::ReplyEnds);
        assert_eq!(calls.vacant(2), None, "the limit was lowered");
        calls.step(1, CallInput::ReplyEnds);
        calls.step(2, CallInput::ReplyEnds);
        assert_eq!(calls.vacant(2), Some(1));
        calls.open(1, CallInput::SendLast, Some(9), 0);
        assert_eq!(calls.vacant(2), None);
        assert_eq!(calls.live(), 2);
    }
}
