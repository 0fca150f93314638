//! The application as a caller.

use std::time::Duration;

use ringcall_core::frame::{CancelReason, ReplyHeader, request_flags};
use ringcall_core::{
    Call, Cause, Codec, Failure, FailureClass, Handle, Instant, Outcome, Status, StatusClass,
};

use super::streams::Pump;
use super::{App, End, Open, Stream};
use crate::bodies::{Body, How, Plan, answer_owner};
use crate::knobs::Knobs;
use crate::ledger::{Asking, CallNo};
use crate::marks::Mark;
use crate::rng::mix;
use crate::shared::Shared;

const ITEMS: u8 = request_flags::ITEMS_IN | request_flags::ITEMS_OUT;
/// One that is not met by any fault.
const LONG: Duration = Duration::from_secs(4000);
/// How often a call is made at most.
const ATTEMPTS_MAX: u8 = 3;

/// A call that somebody wants.
#[derive(Clone, Copy, Debug)]
struct Wish {
    flags: u8,
    len: usize,
    plan: Plan,
    timeout: Option<Duration>,
}

impl App {
    /// Does something that applications do.
    pub(crate) fn act(&mut self, end: &mut End, shared: &mut Shared, now: Instant, knobs: &Knobs) {
        if self.is_draining {
            return;
        }
        let mut at = shared.rng.below(knobs.weights.iter().sum());
        let what = knobs.weights.iter().position(|weight| {
            let is_it = at < *weight;
            at = at.wrapping_sub(*weight);
            is_it
        });
        let Some(handle) = self.any_connection(shared) else { return };
        let span = knobs.span;
        let mut timeout =
            Duration::from_nanos(shared.rng.log_uniform(1_000_000, span.max(2_000_000)));
        match what.unwrap_or(0) {
            0 => self.wish(end, shared, now, handle, knobs, 0, timeout),
            1 => {
                // Half of them with time enough for whatever happens.
                if shared.rng.one_in(2) {
                    timeout = LONG;
                }
                self.wish(end, shared, now, handle, knobs, request_flags::ONE_WAY, timeout);
            }
            2 => self.wish(end, shared, now, handle, knobs, request_flags::ITEMS_OUT, timeout),
            3 => self.wish(end, shared, now, handle, knobs, request_flags::ITEMS_IN, timeout),
            4 => self.wish(end, shared, now, handle, knobs, ITEMS, timeout),
            5 => self.cancel_one(end, shared, now),
            6 => {
                for _ in 0..shared.rng.between(2, 40) {
                    self.wish(end, shared, now, handle, knobs, 0, timeout);
                }
            }
            7 => {
                if let Some(connection) = end.connection_mut(handle) {
                    connection.ping(now, [7; 16]);
                }
            }
            8 => {
                let in_flight = shared.rng.log_uniform(1, 64) as u32;
                let bytes = shared.rng.log_uniform(16, self.config.largest_message() as u64);
                if let Some(connection) = end.connection_mut(handle) {
                    connection.set_limits(in_flight, bytes as usize);
                    shared.marks.hit(Mark::LimitsChanged);
                    if shared.is_loud {
                        shared.say(&format!("limits {in_flight} {bytes}"), self.me.0);
                    }
                }
            }
            9 => {
                if let Some(connection) = end.connection_mut(handle)
                    && shared.rng.one_in(8)
                {
                    match shared.rng.below(4) {
                        0 => connection.go_away(now, true),
                        1 => connection.go_away(now, false),
                        _ => connection.drain(now),
                    }
                    shared.refusing.push(self.connections[&handle].link);
                    shared.note(self.me.0, "drain one", u64::from(handle.index), 0);
                }
            }
            10 => {
                let largest = self.config.largest_message().max(1 << 14) as u64;
                let len = shared.rng.log_uniform(1 << 14, largest) as usize;
                let mut wish = self.draw(shared, knobs, 0, timeout);
                wish.len = len.min(crate::bodies::BODY_BYTES_MAX);
                wish.plan.answer_len = wish.len as u32;
                self.ask(end, shared, now, handle, wish);
            }
            _ => {
                let timeout = Duration::from_nanos(shared.rng.log_uniform(1, 4_000_000));
                self.wish(end, shared, now, handle, knobs, 0, timeout);
            }
        }
    }

    pub(super) fn any_connection(&self, shared: &mut Shared) -> Option<Handle> {
        let usable = || self.connections.iter().filter(|(_, conn)| conn.is_established);
        let n = usable().count() as u64;
        usable().nth(shared.rng.below(n) as usize).map(|(handle, _)| *handle)
    }

    #[expect(clippy::too_many_arguments, reason = "a short hand for act")]
    fn wish(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        knobs: &Knobs,
        flags: u8,
        timeout: Duration,
    ) {
        let wish = self.draw(shared, knobs, flags, timeout);
        self.ask(end, shared, now, handle, wish);
    }

    fn draw(&self, shared: &mut Shared, knobs: &Knobs, flags: u8, timeout: Duration) -> Wish {
        let rng = &mut shared.rng;
        let bits = knobs.body_bits;
        let skewed = |rng: &mut crate::rng::Rng| {
            let bits = rng.between(0, bits);
            rng.below(1 << bits)
        };
        let how = match rng.below(16) {
            0..=6 => How::Now,
            7..=10 => How::Later,
            11 => How::Never,
            12 | 13 => How::CallBack,
            14 => How::Error,
            _ => How::Refuse,
        };
        let has_items = flags & ITEMS != 0;
        Wish {
            flags,
            len: skewed(rng) as usize,
            plan: Plan {
                how,
                delay: rng.log_uniform(1, 4000) as u16,
                answer_len: skewed(rng) as u32,
                items: if has_items { rng.log_uniform(1, 100) as u8 } else { 0 },
                item_bits: bits.min(16) as u8,
            },
            // Some streams are open for as long as they like.
            timeout: (!has_items || !rng.one_in(2)).then_some(timeout),
        }
    }

    /// A call that must be answered with OK, now that there are no faults. Says whether it was made.
    pub(crate) fn probe(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        dial: usize,
    ) -> bool {
        let Some(handle) = self.dials[dial].handle else { return false };
        if !self.connections.get(&handle).is_some_and(|conn| conn.is_established) {
            return false;
        }
        let plan = Plan { how: How::Now, delay: 0, answer_len: 10, items: 0, item_bits: 0 };
        let wish = Wish { flags: 0, len: 10, plan, timeout: Some(Duration::from_secs(20)) };
        let call = self.ask(end, shared, now, handle, wish);
        shared.probes.extend(call);
        call.is_some()
    }

    /// A call back to the caller of a handler.
    pub(super) fn call_back(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        deadline: Instant,
    ) -> Option<CallNo> {
        let plan = Plan { how: How::Now, delay: 0, answer_len: 100, items: 0, item_bits: 0 };
        let left = deadline.since(now).min(Duration::from_secs(10));
        let wish = Wish { flags: 0, len: 50, plan, timeout: Some(left) };
        self.ask(end, shared, now, handle, wish)
    }

    fn ask(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        wish: Wish,
    ) -> Option<CallNo> {
        let conn = self.connections.get(&handle)?;
        let deadline = wish.timeout.map_or(Instant::FAR, |timeout| now + timeout);
        let call = shared.ledger.begin(Asking {
            caller: self.me,
            callee: conn.peer,
            len: wish.len,
            flags: wish.flags,
            plan: wish.plan,
            deadline,
            timeout_us: wish.timeout.map_or(u64::MAX, |timeout| timeout.as_micros() as u64 + 1),
            link: conn.link,
        });
        shared.note(self.me.0, "call", call, wish.len as u64);
        self.make(end, shared, now, handle, call).then_some(call)
    }

    /// Makes a call that is in the ledger; says whether it was accepted.
    fn make(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        call: CallNo,
    ) -> bool {
        let entry = shared.ledger.at(call);
        let how = Call {
            method: call,
            in_signature: entry.plan.to_signature(),
            out_signature: mix(call),
            deadline: entry.deadline,
            codec: Codec::RAW,
            compression: 0,
            priority: 0,
            attempt: entry.attempt,
            flags: entry.flags | if entry.attempt > 0 { request_flags::RETRIED } else { 0 },
        };
        let (flags, plan) = (entry.flags, entry.plan);
        let payload = Body { owner: call, len: entry.len };
        match end.call(now, handle, &how, &payload, call) {
            Ok(id) => {
                self.open.insert(call, Open { handle, id });
                if end.connection(handle).is_some_and(|connection| connection.waits_for_credit(id))
                {
                    shared.marks.hit(Mark::WaitedForCredit);
                }
                if how.deadline != Instant::FAR && flags & request_flags::ONE_WAY == 0 {
                    self.deadlines.insert((how.deadline, call));
                }
                if flags & ITEMS != 0 {
                    let conn = self.connections.get_mut(&handle).expect("it was just used");
                    let id = id.into();
                    conn.streams.retain(|old| old.late.is_none() || !same_slot(old, id));
                    conn.streams.push(Stream { id, call, late: None });
                    if flags & request_flags::ITEMS_IN != 0 {
                        self.pumps.push(Pump::new(
                            handle,
                            id,
                            call,
                            true,
                            plan,
                            Some(id_of(call, &self.open)),
                        ));
                    }
                }
                true
            }
            Err(refused) => {
                assert_eq!(refused.ticket, call, "the caller's own ticket comes back");
                assert_eq!(refused.failure.class, FailureClass::NotSent);
                self.over(shared, call);
                match refused.failure.cause {
                    Cause::InFlightMax => shared.marks.hit(Mark::InFlightMax),
                    Cause::QueueFull => shared.marks.hit(Mark::QueueFull),
                    Cause::TooLarge { .. } => shared.marks.hit(Mark::TooLarge),
                    _ => {}
                }
                self.failed(shared, now, call, refused.failure, true);
                false
            }
        }
    }

    fn over(&mut self, shared: &mut Shared, call: CallNo) {
        shared.ledger.end(call, self.me);
        let deadline = shared.ledger.at(call).deadline;
        self.deadlines.remove(&(deadline, call));
        if let Some(Open { handle, .. }) = self.open.remove(&call) {
            self.pumps.retain(|pump| !(pump.call == call && pump.of_caller));
            if let Some(conn) = self.connections.get_mut(&handle) {
                conn.streams.retain(|stream| stream.call != call || stream.late.is_some());
            }
        }
    }

    fn cancel_one(&mut self, end: &mut End, shared: &mut Shared, now: Instant) {
        let n = shared.rng.below(self.open.len() as u64) as usize;
        let Some((&call, _)) = self.open.iter().nth(n) else { return };
        self.cancel_call(end, shared, now, call);
    }

    pub(super) fn cancel_call(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        call: CallNo,
    ) {
        let Some(&Open { handle, id }) = self.open.get(&call) else { return };
        let reason = shared.rng.pick(&[CancelReason::Dropped, CancelReason::Superseded]);
        let Some(ticket) = end.cancel(now, handle, id, reason) else {
            // It has ended, and is about to be told; or it is one-way.
            return;
        };
        assert_eq!(ticket, call, "the ticket of the call that was cancelled");
        shared.note(self.me.0, "cancel", call, 0);
        shared.marks.hit(Mark::CancelledByCaller);
        if let Some(conn) = self.connections.get_mut(&handle) {
            // An item that had arrived whole may still be told.
            for stream in conn.streams.iter_mut().filter(|stream| stream.call == call) {
                stream.late = Some(1);
            }
        }
        self.over(shared, call);
        self.called_back(end, shared, now, call);
    }

    // ---- outcomes ----

    pub(super) fn completed(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        call: CallNo,
        outcome: Outcome,
    ) {
        let open = self.open.get(&call);
        let open = open.unwrap_or_else(|| panic!("call {call} has ended twice: {outcome:?}"));
        assert_eq!(open.handle, handle, "call {call} ends on another connection");
        self.over(shared, call);
        match outcome {
            Outcome::Sent => {
                let entry = shared.ledger.at(call);
                assert!(entry.flags & request_flags::ONE_WAY != 0, "call {call} wants an answer");
                entry.was_sent = true;
                shared.marks.hit(Mark::OneWaySent);
                shared.note(self.me.0, "sent", call, 0);
            }
            Outcome::Failed(failure) => self.failed(shared, now, call, failure, false),
            Outcome::Reply(reply) => {
                let ReplyHeader { status, retry_after_ms, .. } = reply.header;
                match Failure::from_status(status, retry_after_ms) {
                    Some(failure) => self.failed(shared, now, call, failure, false),
                    None => self.answered(shared, call, status, &reply.body),
                }
            }
            other => panic!("an outcome that is not known here: {other:?}"),
        }
        self.called_back(end, shared, now, call);
    }

    fn answered(&mut self, shared: &mut Shared, call: CallNo, status: Status, body: &[u8]) {
        let entry = shared.ledger.at(call);
        assert!(entry.flags & request_flags::ONE_WAY == 0, "one-way call {call} has an answer");
        assert_eq!(entry.runs, 1, "call {call} has an answer, and did not run");
        let expected = Body { owner: answer_owner(call), len: body.len() };
        assert!(expected.is(body), "call {call} got another's answer");
        let is_items = entry.flags & request_flags::ITEMS_OUT != 0;
        if !is_items || !body.is_empty() {
            assert_eq!(entry.answer, Some((status.to_wire(), body.len())), "answer of {call}");
        }
        let [_, items] = entry.items;
        assert_eq!(items.sent, items.received, "items of the answer to call {call}");
        let (has_items, attempt) = (items.sent > 0, entry.attempt);
        let (arg_len, both) = (entry.len, entry.items[0].received > 0 && has_items);
        let mark = match status.class() {
            StatusClass::Ok => Mark::AnswerOk,
            _ => Mark::AnswerError,
        };
        shared.marks.hit(mark);
        shared.marks.count(Mark::ItemsOutEnded, u64::from(has_items));
        shared.marks.count(Mark::BothWaysItems, u64::from(both));
        shared.marks.count(Mark::LargeAnswer, u64::from(body.len() >= 16 << 10));
        shared.marks.count(Mark::LargeArgument, u64::from(arg_len >= 16 << 10));
        shared.marks.count(Mark::RetriedOk, u64::from(attempt > 0));
        shared.note(self.me.0, "answer", call, body.len() as u64);
        if let Some(at) = shared.probes.iter().position(|probe| *probe == call) {
            shared.probes.swap_remove(at);
            self.probes_ok += 1;
        }
    }

    fn failed(
        &mut self,
        shared: &mut Shared,
        now: Instant,
        call: CallNo,
        failure: Failure,
        at_once: bool,
    ) {
        shared.note(self.me.0, "failed", call, failure.class as u64);
        if shared.is_loud {
            shared.say(&format!("call {call}: {failure:?}"), self.me.0);
        }
        shared.ledger.failed(call, failure.class);
        shared.probes.retain(|probe| *probe != call);
        match failure.class {
            FailureClass::NotSent if !at_once => shared.marks.hit(Mark::NotSent),
            FailureClass::NotSent => {}
            FailureClass::Refused => shared.marks.hit(Mark::Refused),
            FailureClass::Unknown => shared.marks.hit(Mark::Unknown),
        }
        if failure.cause == Cause::Expired {
            shared.marks.hit(Mark::Expired);
        }
        if failure.cause == Cause::Status(Status::REPLY_FAILED) {
            shared.marks.hit(Mark::ReplyFailed);
        }
        let entry = shared.ledger.at(call);
        if failure.class == FailureClass::Unknown {
            let link = entry.link;
            let is_connection = matches!(failure.cause, Cause::Closed(_) | Cause::GoAway);
            if is_connection {
                shared.cut_calls.push((link, call));
            }
        }
        let entry = shared.ledger.at(call);
        let may_again = failure.is_safe_to_retry()
            && entry.flags & ITEMS == 0
            && entry.attempt + 1 < ATTEMPTS_MAX
            && entry.deadline > now
            && shared.retries
            && !self.is_draining;
        if may_again {
            let wait = Duration::from_nanos(shared.rng.log_uniform(100_000, 100_000_000));
            self.again.push((now + wait, call));
        }
    }

    /// Calls that did not run are made again, wherever their server is now.
    pub(super) fn call_again(&mut self, end: &mut End, shared: &mut Shared, now: Instant) {
        for i in (0..self.again.len()).rev() {
            let (at, call) = self.again[i];
            if at > now {
                continue;
            }
            self.again.swap_remove(i);
            let entry = shared.ledger.at(call);
            let (callee, deadline) = (entry.callee, entry.deadline);
            let mut usable = self
                .connections
                .iter()
                .filter(|(_, conn)| conn.peer == callee && conn.is_established && !conn.is_leaving);
            let Some((&handle, conn)) = usable.next() else { continue };
            if deadline <= now {
                continue;
            }
            shared.ledger.again(call, deadline, conn.link);
            shared.marks.hit(Mark::Retried);
            shared.note(self.me.0, "again", call, 0);
            self.make(end, shared, now, handle, call);
        }
    }
}

fn id_of(call: CallNo, open: &std::collections::BTreeMap<CallNo, Open>) -> ringcall_core::CallId {
    open[&call].id
}

fn same_slot(old: &Stream, id: ringcall_core::StreamId) -> bool {
    old.id.slot() == id.slot() && old.id.caller() == id.caller()
}
