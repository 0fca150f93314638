//! Items: sending them as fast as they are taken, and taking them as they come.

use std::time::Duration;

use ringcall_core::{
    CallId, Codec, Encoding, Handle, Instant, Item, ItemError, RequestId, StreamId,
};

use super::{App, End};
use crate::bodies::{Body, Plan, item_owner};
use crate::ledger::CallNo;
use crate::marks::Mark;
use crate::shared::Shared;

/// How many items of one stream are sent in a turn.
const ITEMS_A_TURN: usize = 8;

/// How items are written.
const ENCODING: Encoding = Encoding { codec: Codec::RAW, compression: 0, signature: 9 };

/// Somebody who sends items.
#[derive(Debug)]
pub(super) struct Pump {
    pub(super) handle: Handle,
    stream: StreamId,
    pub(super) call: CallNo,
    pub(super) of_caller: bool,
    plan: Plan,
    next: u32,
    is_blocked: bool,
    /// Whose items end with END.
    ends: Option<CallId>,
}

/// An item that the application has not given back.
#[derive(Debug)]
pub(super) struct HeldItem {
    pub(super) handle: Handle,
    stream: StreamId,
    pub(super) due: Instant,
    item: Item,
}

impl Pump {
    pub(super) fn new(
        handle: Handle,
        stream: StreamId,
        call: CallNo,
        of_caller: bool,
        plan: Plan,
        ends: Option<CallId>,
    ) -> Pump {
        Pump { handle, stream, call, of_caller, plan, next: 0, is_blocked: false, ends }
    }
}

impl App {
    /// Sends items where that is possible; says whether there is more to send at once.
    pub(super) fn pump(&mut self, end: &mut End, shared: &mut Shared, now: Instant) -> bool {
        let mut has_more = false;
        let mut at = 0;
        while at < self.pumps.len() {
            if self.pumps[at].is_blocked || !self.pump_one(end, shared, now, at) {
                has_more |= !self.pumps[at].is_blocked;
                at += 1;
                continue;
            }
            let pump = self.pumps.swap_remove(at);
            if let Some(call) = pump.ends {
                end.end_items(now, pump.handle, call);
            } else if let Some(at) = self.running.iter().position(|running| {
                running.handle == pump.handle && StreamId::from(running.request) == pump.stream
            }) {
                self.running[at].items_sent = true;
                self.items_done(end, shared, now, at);
            }
        }
        has_more
    }

    /// Says whether that was all.
    fn pump_one(&mut self, end: &mut End, shared: &mut Shared, now: Instant, at: usize) -> bool {
        let pump = &mut self.pumps[at];
        for _ in 0..ITEMS_A_TURN {
            if pump.next >= u32::from(pump.plan.items) {
                return true;
            }
            let len = pump.plan.item_len(pump.call, pump.of_caller, pump.next);
            let owner = item_owner(pump.call, pump.of_caller, pump.next);
            let body = Body { owner, len };
            let sent = end.send_item(now, pump.handle, pump.stream, ENCODING, &body);
            match sent {
                Ok(()) => {
                    pump.next += 1;
                    shared.ledger.at(pump.call).items[usize::from(!pump.of_caller)].sent += 1;
                    shared.note(self.me.0, "item sent", pump.call, len as u64);
                }
                Err(ItemError::Blocked) => {
                    pump.is_blocked = true;
                    shared.marks.hit(Mark::StreamBlocked);
                    return false;
                }
                // It has ended, which is about to be told; or the item is larger than the other side takes.
                Err(_) => return true,
            }
        }
        false
    }

    pub(super) fn writable(&mut self, shared: &mut Shared, handle: Handle, stream: StreamId) {
        shared.marks.hit(Mark::StreamWritable);
        shared.note(self.me.0, "writable", u64::from(stream.slot()), 0);
        let mut pumps = self.pumps.iter_mut();
        if let Some(pump) = pumps.find(|pump| pump.handle == handle && pump.stream == stream) {
            pump.is_blocked = false;
        }
    }

    pub(super) fn item(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        stream: StreamId,
        item: &Item,
    ) {
        let conn = self.connections.get_mut(&handle).expect("it has just spoken");
        let known = conn.streams.iter_mut().find(|known| known.id == stream);
        let known = known.unwrap_or_else(|| panic!("an item of no stream: {stream:?}"));
        if let Some(late) = &mut known.late {
            *late = late.checked_sub(1).expect("nothing follows the end of a call");
        }
        let call = known.call;
        // Items of an answer come to the caller.
        let side = end.connection(handle).map(ringcall_core::Connection::side);
        let of_caller = side != Some(stream.caller());
        let entry = shared.ledger.at(call);
        let items = &mut entry.items[usize::from(!of_caller)];
        let nth = items.received;
        items.received += 1;
        assert!(items.received <= items.sent, "item {nth} of call {call} was never sent");
        let expected = Body {
            owner: item_owner(call, of_caller, nth),
            len: entry.plan.item_len(call, of_caller, nth),
        };
        assert!(expected.is(&item.body), "item {nth} of call {call} is another");
        assert!(item.body.is_empty() || item.body.is_aligned_to(16));
        assert_eq!(item.encoding, ENCODING);
        shared.note(self.me.0, "item", call, item.body.len() as u64);
        let is_slow = !shared.is_healing && shared.rng.one_in(4);
        if is_slow || self.holds_until > now {
            let wait = Duration::from_nanos(shared.rng.log_uniform(1_000, 50_000_000));
            self.held.push(HeldItem { handle, stream, due: now + wait, item: item.clone() });
        } else {
            end.consumed(handle, stream, 1, item.body.len());
        }
    }

    /// Gives back the items that were held long enough.
    pub(super) fn give_back_due(&mut self, end: &mut End, shared: &mut Shared, now: Instant) {
        let all = shared.is_healing;
        for at in (0..self.held.len()).rev() {
            if all || (self.held[at].due <= now && self.holds_until <= now) {
                let HeldItem { handle, stream, item, .. } = self.held.swap_remove(at);
                end.consumed(handle, stream, 1, item.body.len());
            }
        }
    }

    pub(super) fn items_end(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        request: RequestId,
    ) {
        let at = self.stream_call(handle, request).expect("only what runs gets items");
        let call = self.running[at].call;
        assert!(!self.running[at].is_cancelled, "nothing follows a cancel");
        let [items, _] = shared.ledger.at(call).items;
        assert_eq!(items.sent, items.received, "items of call {call}");
        shared.marks.hit(Mark::ItemsInEnded);
        shared.note(self.me.0, "items end", call, u64::from(items.received));
        self.running[at].items_read = true;
        self.items_done(end, shared, now, at);
    }
}
