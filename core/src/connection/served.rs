//! The calls that the other side made, by slot.

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::num::NonZeroU32;

use super::assembly::{Arriving, Assembly};
use super::state::{ServedInput, ServedState};
use super::stream::{Late, Streams};
use super::{Request, served_key};
use crate::frame::ItemHeader;
use crate::ids::OneWay;
use crate::memory::Share;
use crate::wheel::Wheel;
use crate::{CloseReason, Instant, MessageId};

#[derive(Debug)]
pub(super) struct Served {
    slots: Vec<Slot>,
    live: usize,
    /// One-way calls that the application has; they hold no slot.
    pub(super) one_ways: u32,
    /// How many there have been, from 1 again after so many that none of the first is left.
    one_way_number: NonZeroU32,
}

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) state: ServedState,
    pub(super) id: MessageId,
    /// Body bytes that are charged to the calls pool for this call.
    pub(super) charged: usize,
    /// When the request was complete.
    pub(super) received: Instant,
    /// When its caller stops waiting.
    pub(super) deadline: Instant,
    /// The wheel says its key then.
    is_watched: bool,
    /// It is watched, or has streams: one question, since most calls have neither.
    pub(super) has_more: bool,
    /// A body that is still arriving, or being ignored.
    pub(super) arriving: Option<Box<Arriving<Request>>>,
    /// What a call with streams has beside.
    pub(super) streams: Option<Box<Streams>>,
    /// What may still arrive of its items, sent before the other side knew of the end.
    pub(super) late: Late,
}

/// What a slot takes, with its two places in the wheel of deadlines.
const SLOT_BYTES: usize = size_of::<Slot>() + 64;

impl Served {
    pub(super) fn new() -> Served {
        Served { slots: Vec::new(), live: 0, one_ways: 0, one_way_number: NonZeroU32::MIN }
    }

    /// The application gets a one-way call, with so many bytes.
    pub(super) fn one_way(&mut self, charged: usize) -> OneWay {
        let number = self.one_way_number;
        self.one_way_number = number.checked_add(1).unwrap_or(NonZeroU32::MIN);
        self.one_ways = self.one_ways.saturating_add(1);
        OneWay { charged: u32::try_from(charged).unwrap_or(u32::MAX), number }
    }

    /// How many calls are not answered yet.
    pub(super) fn live(&self) -> usize {
        self.live
    }

    pub(super) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Checks that the slot of a new call is below `limit` and free.
    #[inline]
    pub(super) fn check(&self, id: MessageId, limit: u32) -> Result<(), CloseReason> {
        if id.slot() >= limit {
            return Err(CloseReason::SlotOutOfRange);
        }
        match self.slots.get(id.slot() as usize) {
            None => Ok(()),
            Some(slot) if slot.state == ServedState::Free => Ok(()),
            // The caller has read our early answer and uses its slot again.
            Some(slot) if slot.state == ServedState::Discarding && slot.id != id => Ok(()),
            Some(_) if bug!("b06") => Ok(()),
            Some(_) => Err(CloseReason::IdReused),
        }
    }

    /// Makes the slot of a new call, which was checked.
    #[inline]
    pub(super) fn enter(&mut self, id: MessageId, share: &mut Share) -> &mut Slot {
        let slot = self.slot(id, share);
        slot.arriving = None;
        slot.set_streams(None);
        slot.id = id;
        slot
    }

    /// Whether the table has a slot for this id, as it had for a call before.
    #[inline]
    pub(super) fn has_slot(&self, id: MessageId) -> bool {
        (id.slot() as usize) < self.slots.len()
    }

    /// The slot of an id that was checked, whoever has it.
    #[inline]
    fn slot(&mut self, id: MessageId, share: &mut Share) -> &mut Slot {
        let index = id.slot() as usize;
        if index >= self.slots.len() {
            let before = self.slots.capacity();
            self.slots.resize_with(index + 1, || Slot {
                state: ServedState::Free,
                id: MessageId::default(),
                charged: 0,
                received: Instant::ZERO,
                deadline: Instant::FAR,
                is_watched: false,
                has_more: false,
                arriving: None,
                streams: None,
                late: Late::default(),
            });
            share.grow((self.slots.capacity() - before) * SLOT_BYTES);
        }
        &mut self.slots[index]
    }

    /// Items may come of a call that has no streams here; its id was checked.
    pub(super) fn expect_late(&mut self, late: Late, share: &mut Share) {
        self.slot(late.id, share).late = late;
    }

    /// What may still arrive of the items of this call, or of another one in its slot.
    pub(super) fn late(&mut self, id: MessageId) -> Option<&mut Late> {
        self.slots.get_mut(id.slot() as usize).map(|slot| &mut slot.late)
    }

    /// Gives a call its streams.
    pub(super) fn attach(&mut self, id: MessageId, streams: Option<Box<Streams>>) {
        if let Some(slot) = self.find(id) {
            slot.set_streams(streams);
        }
    }

    /// A slot that a call can have at once: it is free, below `limit`, and was used before.
    #[inline(always)]
    pub(super) fn vacant(&mut self, index: u32, limit: u32) -> Option<&mut Slot> {
        if index >= limit {
            return None;
        }
        self.slots.get_mut(index as usize).filter(|slot| slot.state == ServedState::Free)
    }

    /// A slot has been [taken](Slot::run).
    #[inline(always)]
    pub(super) fn began_plain(&mut self) {
        self.live = self.live.wrapping_add(1);
    }

    /// A slot was [freed](Slot::end_plain).
    #[inline(always)]
    pub(super) fn ended_plain(&mut self) {
        self.live -= 1;
    }

    /// Calls whose bodies are arriving.
    pub(super) fn arriving(&self) -> impl Iterator<Item = &Arriving<Request>> {
        let arriving = self.slots.iter().filter_map(|slot| slot.arriving.as_deref());
        arriving.filter(|arriving| arriving.assembly.is_some())
    }

    /// Items that are arriving in parts.
    pub(super) fn arriving_items(&self) -> impl Iterator<Item = &Arriving<ItemHeader>> {
        self.slots
            .iter()
            .filter_map(|slot| slot.streams.as_ref()?.input.as_ref()?.arriving.as_deref())
    }

    /// The slot of the call that has this id, or had it last.
    pub(super) fn last(&mut self, id: MessageId) -> Option<&mut Slot> {
        self.slots.get_mut(id.slot() as usize).filter(|slot| slot.id == id)
    }

    /// Where the body of the item of this call's stream goes.
    pub(super) fn item_at(&self, id: MessageId) -> Option<&Assembly> {
        let slot = self.slots.get(id.slot() as usize).filter(|slot| slot.id == id)?;
        slot.streams.as_ref()?.input.as_ref()?.arriving.as_ref()?.assembly.as_ref()
    }

    /// Where the body of this call goes.
    pub(super) fn arriving_at(&self, id: MessageId) -> Option<&Assembly> {
        let slot = self.slots.get(id.slot() as usize).filter(|slot| slot.id == id)?;
        slot.arriving.as_ref()?.assembly.as_ref()
    }

    /// How many calls are with the application, or wait to be.
    pub(super) fn running(&self) -> usize {
        let running = |slot: &&Slot| {
            matches!(
                slot.state,
                ServedState::Running
                    | ServedState::Streaming
                    | ServedState::Cancelling
                    | ServedState::Parked
            )
        };
        self.slots.iter().filter(running).count() + self.one_ways as usize
    }

    /// The call with this id, if it is still in its slot.
    #[inline]
    pub(super) fn find(&mut self, id: MessageId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.slot() as usize)?;
        (slot.state != ServedState::Free && slot.id == id).then_some(slot)
    }

    /// The same, if the application has it and has not answered.
    #[inline]
    pub(super) fn with_application(&mut self, id: MessageId) -> Option<&mut Slot> {
        let slot = self.slots.get_mut(id.slot() as usize)?;
        let has_it = slot.state == ServedState::Running || is_answerable(slot.state);
        (has_it && slot.id == id).then_some(slot)
    }

    pub(super) fn at(&mut self, slot: u32) -> Option<&mut Slot> {
        self.slots.get_mut(slot as usize).filter(|slot| slot.state != ServedState::Free)
    }

    /// Changes a call's state by the table; frees its slot when that is the new state. Says whether
    /// the table has the transition.
    #[inline]
    pub(super) fn step(&mut self, index: u32, input: ServedInput) -> bool {
        let Some(slot) = self.slots.get_mut(index as usize) else { return false };
        let Some(next) = slot.state.on(input) else { return false };
        self.live = self.live + usize::from(is_live(next)) - usize::from(is_live(slot.state));
        if next == ServedState::Free {
            slot.arriving = None;
            slot.set_streams(None);
        }
        slot.state = next;
        true
    }
}

/// Whether the application has a call in this state, which is not merely running.
#[cold]
fn is_answerable(state: ServedState) -> bool {
    matches!(state, ServedState::Streaming | ServedState::Cancelling)
}

impl Slot {
    /// What it has beside from now on.
    pub(super) fn set_streams(&mut self, streams: Option<Box<Streams>>) {
        self.streams = streams;
        self.has_more = self.is_watched || self.streams.is_some();
    }

    /// The wheel says its key when its caller stops waiting.
    pub(super) fn watch(&mut self) {
        (self.is_watched, self.has_more) = (true, true);
    }

    /// It is answered, so that the wheel need not say its key. Says whether it has streams.
    #[inline(never)]
    pub(super) fn unwatch(&mut self, deadlines: &mut Wheel) -> bool {
        if core::mem::take(&mut self.is_watched) {
            deadlines.cancel(served_key(self.id.slot()));
        }
        self.has_more = self.streams.is_some();
        self.has_more
    }

    /// Makes it, which is [vacant](Served::vacant), that of a new call that is here whole; say so to
    /// [`Served::began_plain`].
    #[inline(always)]
    pub(super) fn run(&mut self, id: MessageId, charged: usize, now: Instant, deadline: Instant) {
        debug_assert!(!self.has_more, "its last call was answered");
        const RUNNING: Option<ServedState> = ServedState::Free.on(ServedInput::RequestWhole);
        debug_assert_eq!(self.state.on(ServedInput::RequestWhole), RUNNING);
        self.state = RUNNING.unwrap_or(ServedState::Free);
        (self.id, self.charged) = (id, charged);
        (self.received, self.deadline) = (now, deadline);
    }

    /// Frees the slot of a running call whose answer is whole; say so to [`Served::ended_plain`].
    #[inline(always)]
    pub(super) fn end_plain(&mut self) {
        const FREE: Option<ServedState> = ServedState::Running.on(ServedInput::ReplyLast);
        debug_assert_eq!(self.state.on(ServedInput::ReplyLast), FREE);
        self.state = FREE.unwrap_or(ServedState::Running);
    }
}

/// Whether a call in this state still owes an answer.
#[inline]
fn is_live(state: ServedState) -> bool {
    !matches!(state, ServedState::Free | ServedState::Discarding)
}
