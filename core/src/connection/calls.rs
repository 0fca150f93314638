//! The calls that this side made, by slot.

use alloc::boxed::Box;
use alloc::vec::Vec;

use ringcall_buf::External;

use super::assembly::{Arriving, Assembly};
use super::replies::ExpectedReply;
use super::state::{CallInput, CallState};
use super::stream::{Late, Streams};
use crate::frame::ItemHeader;
use crate::{Instant, MessageId, Side};

#[derive(Debug)]
pub(super) struct Calls<T> {
    side: Side,
    slots: Vec<Entry<T>>,
    /// First of the list of free slots; the one used last is used next, its memory is warm.
    free: u32,
    /// How many slots are in use.
    live: u32,
    first_generation: u32,
}

#[derive(Debug)]
pub(super) struct Entry<T> {
    pub(super) state: CallState,
    /// Of the call that has the slot, or had it last.
    id: MessageId,
    /// The next free slot, if it is free.
    next_free: u32,
    /// When its caller stops waiting; [`Instant::FAR`] if nothing happens then.
    pub(super) deadline: Instant,
    /// When the wheel says the slot's key: not after the deadline, perhaps long before. It stays in the
    /// wheel from call to call, so that most calls need not touch it.
    pub(super) listed: Instant,
    /// Given back when the call ends for its caller.
    pub(super) ticket: Option<T>,
    /// The how-many-th REQUEST of the connection it is; zero while it has not been numbered.
    pub(super) number: u64,
    /// What the call has beside a request and a reply: one byte, since most calls have nothing.
    pub(super) more: u8,
    /// A reply that is still arriving.
    pub(super) arriving: Option<Box<Arriving<ExpectedReply>>>,
    /// What a call with streams has beside.
    pub(super) streams: Option<Box<Streams>>,
    /// Where the reply's attachment goes, if not to memory.
    pub(super) landing: Option<Box<External>>,
    /// What may still arrive of its items, sent before the other side knew of the end.
    pub(super) late: Late,
}

/// Ends when its last byte is sent.
pub(super) const ONE_WAY: u8 = 1 << 0;
/// It has [streams](Entry::streams).
pub(super) const STREAMS: u8 = 1 << 1;
/// Its reply is [landing](Entry::landing).
pub(super) const LANDING: u8 = 1 << 2;

/// Ends the list of free slots. Larger than every limit.
const NONE: u32 = u32::MAX;

impl<T> Calls<T> {
    pub(super) fn new(side: Side, first_generation: u32) -> Calls<T> {
        Calls { side, slots: Vec::new(), free: NONE, live: 0, first_generation }
    }

    /// How many slots are in use.
    #[inline]
    pub(super) fn live(&self) -> usize {
        self.live as usize
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// A free slot below `limit`; the next one that [`open`](Self::open) uses.
    #[inline]
    pub(super) fn vacant(&mut self, limit: u32) -> Option<u32> {
        let limit = if bug!("slots_off_by_one") { limit + 1 } else { limit };
        if self.free < limit { Some(self.free) } else { self.find_vacant(limit) }
    }

    /// No slot is free, or the limit was lowered: slots beyond it wait until it is raised.
    #[cold]
    fn find_vacant(&mut self, limit: u32) -> Option<u32> {
        let mut before = self.free;
        while let Some(entry) = self.slots.get(before as usize) {
            let slot = entry.next_free;
            if slot < limit {
                let after = self.slots[slot as usize].next_free;
                self.slots[before as usize].next_free = after;
                self.slots[slot as usize].next_free = self.free;
                self.free = slot;
                return Some(slot);
            }
            before = slot;
        }
        let slot = self.slots();
        if slot >= limit {
            return None;
        }
        let next_free = core::mem::replace(&mut self.free, slot);
        self.slots.push(Entry {
            state: CallState::Free,
            id: MessageId::new(self.side, self.first_generation, slot),
            next_free,
            deadline: Instant::FAR,
            listed: Instant::FAR,
            ticket: None,
            number: 0,
            more: 0,
            arriving: None,
            streams: None,
            landing: None,
            late: Late::default(),
        });
        Some(slot)
    }

    /// Begins a call in a slot that [`vacant`](Self::vacant) gave. Says whether its key must be
    /// [listed](Entry::listed) in the wheel.
    #[inline]
    pub(super) fn open(
        &mut self,
        slot: u32,
        input: CallInput,
        ticket: Option<T>,
        number: u64,
        deadline: Instant,
    ) -> (MessageId, bool) {
        debug_assert_eq!(self.free, slot);
        let entry = &mut self.slots[slot as usize];
        self.free = entry.next_free;
        self.live += 1;
        if !bug!("generation_kept") {
            entry.id = entry.id.next();
        }
        entry.ticket = ticket;
        entry.number = number;
        entry.more = 0;
        entry.deadline = deadline;
        debug_assert_eq!(entry.state, CallState::Free);
        entry.state = CallState::Free.on(input).unwrap_or(CallState::Free);
        (entry.id, deadline < entry.listed)
    }

    /// The wheel has said this slot's key, or is about to be told when to.
    pub(super) fn set_listed(&mut self, slot: u32, at: Instant) {
        if let Some(entry) = self.slots.get_mut(slot as usize) {
            entry.listed = at;
        }
    }

    /// The call with this id, if it is still in its slot.
    #[inline]
    pub(super) fn find(&mut self, id: MessageId) -> Option<&mut Entry<T>> {
        let entry = self.slots.get_mut(id.slot() as usize)?;
        let is_it = entry.id == id || bug!("late_reply_to_new_owner");
        (entry.state != CallState::Free && is_it).then_some(entry)
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Entry<T>> {
        self.slots.get_mut(slot as usize).filter(|entry| entry.state != CallState::Free)
    }

    /// Ends a call that waits for its reply and nothing else, and was not given up: frees its slot, gives its ticket
    /// back.
    #[inline(always)]
    pub(super) fn end_plain(&mut self, id: MessageId) -> Option<T> {
        const FREE: Option<CallState> = CallState::Waiting.on(CallInput::ReplyEnds);
        let entry = self.slots.get_mut(id.slot() as usize)?;
        let is_plain = entry.state == CallState::Waiting
            && (entry.id == id || bug!("late_reply_to_new_owner"))
            && entry.more == 0;
        let ticket = if is_plain { entry.ticket.take()? } else { return None };
        entry.state = FREE.unwrap_or(CallState::Waiting);
        entry.next_free = core::mem::replace(&mut self.free, id.slot());
        self.live = self.live.wrapping_sub(1);
        Some(ticket)
    }

    /// Replies that are arriving.
    pub(super) fn arriving(&self) -> impl Iterator<Item = &Arriving<ExpectedReply>> {
        let arriving = self.slots.iter().filter_map(|entry| entry.arriving.as_deref());
        arriving.filter(|arriving| arriving.assembly.is_some())
    }

    /// Items that are arriving in parts.
    pub(super) fn arriving_items(&self) -> impl Iterator<Item = &Arriving<ItemHeader>> {
        self.slots
            .iter()
            .filter_map(|entry| entry.streams.as_ref()?.input.as_ref()?.arriving.as_deref())
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
            entry.landing = None;
            entry.next_free = core::mem::replace(&mut self.free, slot);
            self.live = self.live.wrapping_sub(1);
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
            let (id, _) = calls.open(slot, CallInput::SendLast, Some(i), 0, Instant::FAR);
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
            calls.open(slot, CallInput::SendLast, Some(i), 0, Instant::FAR);
        }
        assert_eq!(calls.vacant(4), None);
        calls.step(3, CallInput::ReplyEnds);
        assert_eq!(calls.vacant(2), None, "the limit was lowered");
        calls.step(1, CallInput::ReplyEnds);
        calls.step(2, CallInput::ReplyEnds);
        assert_eq!(calls.vacant(2), Some(1));
        calls.open(1, CallInput::SendLast, Some(9), 0, Instant::FAR);
        assert_eq!(calls.vacant(2), None);
        assert_eq!(calls.live(), 2);
    }
}
