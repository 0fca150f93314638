//! The application as a server.

use std::time::Duration;

use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{
    Cancellation, Chunk, Handle, Instant, ReplyError, Request, RequestId, Status, StreamId,
};

use super::streams::Pump;
use super::{App, End, Stream};
use crate::bodies::{Body, How, Plan, answer_owner};
use crate::ledger::CallNo;
use crate::marks::Mark;
use crate::rng::mix;
use crate::shared::Shared;

/// A call that a handler has.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) handle: Handle,
    pub(super) request: RequestId,
    pub(super) call: CallNo,
    pub(super) deadline: Instant,
    flags: u8,
    plan: Plan,
    /// Core has been asked to say when its deadline passes.
    pub(super) is_watched: bool,
    pub(super) is_cancelled: bool,
    /// The server ends: it is answered with a status.
    pub(super) stops: bool,
    /// When it is answered; `None` while something else must come first.
    pub(super) due: Option<Instant>,
    /// The call to its caller that it waits for.
    waits_for: Option<CallNo>,
    pub(super) items_sent: bool,
    pub(super) items_read: bool,
    /// Its argument, which a handler may look at as long as it runs.
    _body: Chunk,
}

impl App {
    pub(super) fn request(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        request: Request,
    ) {
        let call = request.method;
        self.check_request(end, shared, now, handle, &request);
        let plan = Plan::from_signature(request.in_signature);
        if plan.how != How::Refuse {
            shared.ledger.run(call, request.attempt);
        }
        shared.note(self.me.0, "request", call, request.body.len() as u64);
        let is_one_way = request.id.is_one_way();
        let has_in = request.flags & request_flags::ITEMS_IN != 0;
        let has_out = request.flags & request_flags::ITEMS_OUT != 0;
        if is_one_way {
            shared.marks.hit(Mark::OneWayRan);
        }
        let mut running = Running {
            handle,
            request: request.id,
            call,
            deadline: request.deadline,
            flags: request.flags,
            plan,
            is_watched: false,
            is_cancelled: false,
            stops: false,
            due: None,
            waits_for: None,
            items_sent: !has_out,
            items_read: !has_in,
            _body: request.body,
        };
        let later = now + Duration::from_micros(u64::from(plan.delay) * 64);
        if has_in || has_out {
            self.serve_streams(end, now, &mut running, later);
        } else {
            match plan.how {
                How::Now | How::Error | How::Refuse => {
                    return self.answer(end, shared, now, running);
                }
                How::Later => running.due = Some(later),
                How::Never if is_one_way || shared.is_healing => running.due = Some(later),
                How::Never => {}
                // A connection with as many one-way calls as it may have is not read until one ends, so its
                // answer to a handler of one of them may have to wait for that handler.
                How::CallBack if is_one_way => running.due = Some(later),
                How::CallBack => {
                    running.waits_for = self.call_back(end, shared, now, handle, request.deadline);
                    if running.waits_for.is_none() {
                        return self.answer(end, shared, now, running);
                    }
                    shared.marks.hit(Mark::CalledBack);
                }
            }
        }
        if !is_one_way && let Some(connection) = end.connection_mut(handle) {
            connection.watch_deadline(request.id, request.deadline);
            // What has begun to answer with items is not bounded by its deadline any more.
            running.is_watched = request.deadline != Instant::FAR && !has_out;
        }
        self.running.push(running);
    }

    fn check_request(
        &mut self,
        end: &End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        request: &Request,
    ) {
        let call = request.method;
        let entry = shared.ledger.at(call);
        assert_eq!(entry.callee, self.me.0, "call {call} was for another node");
        let expected = Body { owner: call, len: entry.len };
        assert!(expected.is(&request.body), "call {call} has another body");
        assert!(request.body.is_empty() || request.body.is_aligned_to(16));
        assert_eq!(request.in_signature, entry.plan.to_signature());
        assert_eq!(request.out_signature, mix(call));
        let unseen = request_flags::RETRIED | ringcall_core::frame::FLAG_MORE;
        assert_eq!(request.flags & !unseen, entry.flags, "flags of {call}");
        assert!(request.deadline > now, "call {call} is handed over after its deadline");
        if request.deadline != Instant::FAR {
            let left = request.deadline.since(request.received).as_micros() as u64;
            assert!(left <= entry.timeout_us, "call {call} has more time here than its caller");
        }
        let conn = self.connections.get_mut(&handle).expect("it has just spoken");
        conn.delivered += 1;
        let connection = end.connection(handle).expect("it has just spoken");
        let refuses = connection.refuses_from();
        assert!(
            refuses.is_none_or(|accepted| conn.delivered <= accepted),
            "call {call} is above the accepted count {refuses:?}"
        );
    }

    fn serve_streams(
        &mut self,
        end: &mut End,
        now: Instant,
        running: &mut Running,
        later: Instant,
    ) {
        let Running { handle, request, call, plan, .. } = *running;
        let id = StreamId::from(request);
        if let Some(conn) = self.connections.get_mut(&handle) {
            conn.streams.retain(|old| {
                old.late.is_none() || old.id.slot() != id.slot() || old.id.caller() != id.caller()
            });
            conn.streams.push(Stream { id, call, late: None });
        }
        if !running.items_sent && !matches!(plan.how, How::Error | How::Refuse) {
            let begun = end.begin_items(now, handle, request, ReplyHeader::new(Status::OK), &[]);
            match begun {
                Ok(()) => self.pumps.push(Pump::new(handle, id, call, false, plan, None)),
                Err(_) => self.suspects.push(handle),
            }
        } else {
            running.items_sent = true;
        }
        // Some do not wait until all items have come.
        let is_early = matches!(plan.how, How::Error | How::Refuse | How::Now);
        if is_early && running.items_sent {
            running.due = Some(later);
        }
    }

    pub(super) fn cancelled(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        handle: Handle,
        id: RequestId,
        why: Cancellation,
    ) {
        let at = self.stream_call(handle, id);
        let at = at.unwrap_or_else(|| panic!("only what runs is cancelled: {id:?} {why:?}"));
        assert!(!self.running[at].is_cancelled, "a call is cancelled once");
        let call = self.running[at].call;
        shared.note(self.me.0, "cancelled", call, 0);
        shared.marks.hit(Mark::CancelTold);
        if why == Cancellation::Expired {
            shared.marks.hit(Mark::ExpiredAtServer);
            assert!(self.running[at].deadline <= now, "call {call} is told too early");
        }
        self.pumps.retain(|pump| pump.of_caller || pump.call != call || pump.handle != handle);
        if let Some(conn) = self.connections.get_mut(&handle) {
            for stream in conn.streams.iter_mut().filter(|stream| stream.id == id.into()) {
                stream.late = Some(1);
            }
        }
        self.running[at].is_cancelled = true;
        // A handler takes a moment to stop.
        if shared.rng.one_in(2) {
            let moment = Duration::from_nanos(shared.rng.log_uniform(1_000, 5_000_000));
            self.running[at].due = Some(now + moment);
        } else {
            let running = self.running.swap_remove(at);
            self.answer(end, shared, now, running);
        }
    }

    /// A call to a caller has ended: whoever waited for it goes on.
    pub(super) fn called_back(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        call: CallNo,
    ) {
        let at = self.running.iter().position(|running| running.waits_for == Some(call));
        if let Some(at) = at {
            self.running[at].waits_for = None;
            if !self.running[at].is_cancelled {
                let running = self.running.swap_remove(at);
                self.answer(end, shared, now, running);
            }
        }
    }

    /// Answers what is due.
    pub(super) fn answer_due(&mut self, end: &mut End, shared: &mut Shared, now: Instant) {
        for at in (0..self.running.len()).rev() {
            let Some(running) = self.running.get_mut(at) else { continue };
            if shared.is_healing && running.waits_for.is_none() && running.plan.how == How::Never {
                running.due.get_or_insert(now);
            }
            if running.due.is_some_and(|due| due <= now) {
                let running = self.running.swap_remove(at);
                self.answer(end, shared, now, running);
            }
        }
    }

    /// Goes on with a call whose items have been sent, or have come, if that was all.
    pub(super) fn items_done(
        &mut self,
        end: &mut End,
        shared: &mut Shared,
        now: Instant,
        at: usize,
    ) {
        let running = &self.running[at];
        let may_be_early = running.plan.how == How::Now;
        if running.items_sent && (running.items_read || may_be_early) && running.due.is_none() {
            if !running.items_read {
                shared.marks.hit(Mark::EndedEarly);
            }
            let running = self.running.swap_remove(at);
            self.answer(end, shared, now, running);
        }
    }

    fn answer(&mut self, end: &mut End, shared: &mut Shared, now: Instant, running: Running) {
        let Running { handle, request, call, plan, flags, is_cancelled, .. } = running;
        self.pumps.retain(|pump| pump.of_caller || pump.call != call || pump.handle != handle);
        let (status, len) = match plan.how {
            _ if is_cancelled => (Status::CANCELLED_RUNNING, 0),
            _ if running.stops => (Status::ABORTED, 0),
            How::Refuse => (Status::OVERLOADED, 0),
            How::Error => (Status::APPLICATION_ERROR, plan.answer_len as usize),
            _ if flags & request_flags::ITEMS_OUT != 0 => (Status::OK, 0),
            _ => (Status::OK, plan.answer_len as usize),
        };
        if !is_cancelled && flags & request_flags::ITEMS_IN != 0 && !running.items_read {
            shared.marks.hit(Mark::EndedEarly);
        }
        let len = len.min(crate::bodies::BODY_BYTES_MAX);
        shared.ledger.at(call).answer = Some((status.to_wire(), len));
        let payload = Body { owner: answer_owner(call), len };
        let answered = end.reply(now, handle, request, ReplyHeader::new(status), &payload);
        shared.note(self.me.0, "reply", call, len as u64);
        if let Some(conn) = self.connections.get_mut(&handle) {
            for stream in conn.streams.iter_mut().filter(|stream| stream.id == request.into()) {
                // An item that had arrived whole may still be told.
                stream.late.get_or_insert(1);
            }
        }
        match answered {
            // Then its connection has ended, and says so before this turn is over.
            Err(ReplyError::NotRunning)
                if !is_cancelled
                    && !request.is_one_way()
                    && self.connections.contains_key(&handle) =>
            {
                self.suspects.push(handle);
            }
            Ok(()) if !request.is_one_way() => {
                let again = end.reply(now, handle, request, ReplyHeader::new(status), &payload);
                assert_eq!(again, Err(ReplyError::NotRunning), "a call can be answered once");
            }
            _ => {}
        }
    }
}
