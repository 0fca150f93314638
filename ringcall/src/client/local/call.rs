//! A call that is made on the shard, from its first poll to its end.

use std::borrow::Borrow;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};

use ringcall_core::{
    Answer, Attached, CallId, Cause, Chunk, Failure, Handle, Instant, Outcome, Outgoing, Payload,
    Refused, Status,
};

use super::super::skew::Called;
use super::{LocalClient, Waits};
use crate::observe::{Begun, Measured};
use crate::packing::inflate_answer;
use crate::serve::is_control;
use crate::shard::{Due, SleepUntil, Ticket, Waited};

/// A call made on the shard, which borrows its client or keeps it.
// In this order, since it is moved before it begins: next to what has bytes that nobody wrote yet is something small,
// with which these are not moved.
#[repr(C)]
pub struct LocalCall<C: Borrow<LocalClient>, P> {
    call: Outgoing,
    client: C,
    payload: P,
    stage: Stage,
    /// What it tries again with when it may be taken, apart: few calls wait, and each would be moved with room for it.
    waiting: Option<Box<Waiting>>,
    /// If somebody observes.
    begun: Option<Begun>,
}

#[derive(Clone, Copy)]
enum Stage {
    /// Not sent: it has not begun, or was not taken and waits.
    Unsent,
    Sent {
        waiter: u32,
        handle: Handle,
        id: CallId,
        deadline: Instant,
    },
    Ended,
}

/// How a call goes on that has been polled before.
enum GoesOn {
    /// It is to be made again.
    Again(Due),
    With(Poll<Result<Answer<Chunk>, Failure>>),
}

struct Waiting {
    deadline: Instant,
    /// Wakes at the deadline.
    _sleep: SleepUntil,
    /// Who is woken when there is room, if that is what it waits for.
    crowded: Option<Waker>,
}

impl<C: Borrow<LocalClient>, P> Unpin for LocalCall<C, P> {}

impl<C: Borrow<LocalClient>, P> LocalCall<C, P> {
    #[inline]
    pub(super) fn new(client: C, call: Outgoing, payload: P) -> LocalCall<C, P> {
        LocalCall { client, call, payload, stage: Stage::Unsent, waiting: None, begun: None }
    }
}

impl<C: Borrow<LocalClient>, P: Payload> LocalCall<C, P> {
    /// Tries to make the call.
    #[inline(always)]
    fn send(&mut self, due: Due, cx: &mut Context<'_>) -> Poll<Failure> {
        if !self.client.borrow().0.connection.skew.adapt(&mut self.call) {
            return self.wait_as(Waits::Table, due.at, cx);
        }
        let shard = &self.client.borrow().0.shard;
        let waiter = shard.waiters.add(shard.executor.task_of(cx.waker()), cx.waker());
        let handle = self.client.borrow().0.connection.handle();
        let ticket = Ticket::Waiter(waiter as usize);
        let called = match &mut self.begun {
            None => self.client.borrow().0.call(&self.call, due, &self.payload, ticket),
            Some(_) => self.call_watched(due, ticket),
        };
        match called {
            Ok(id) => {
                self.stage = Stage::Sent { waiter, handle, id, deadline: due.at };
                Poll::Pending
            }
            Err(refused) => {
                self.client.borrow().0.shard.waiters.remove(waiter);
                self.wait(refused.failure, due.at, cx)
            }
        }
    }

    /// Makes the call, and notes how long its argument is.
    #[cold]
    fn call_watched(&mut self, due: Due, ticket: Ticket) -> Result<CallId, Refused<Ticket>> {
        let local = &self.client.borrow().0;
        let measured = match (local.connection.audience(), &self.begun) {
            (Some(audience), Some(begun)) => audience.measure(begun, &self.payload),
            _ => Measured::new(&self.payload),
        };
        let called = local.call(&self.call, due, &measured, ticket);
        let bytes = measured.bytes();
        if let Some(begun) = &mut self.begun {
            begun.request_bytes = bytes;
        }
        called
    }

    /// The call was not taken: waits until it may be.
    #[cold]
    fn wait(&mut self, failure: Failure, deadline: Instant, cx: &mut Context<'_>) -> Poll<Failure> {
        let waits = match self.client.borrow().0.is_owner {
            true => self.client.borrow().0.connection.judge(failure, self.call.wait_for_ready),
            false => Waits::Not(failure),
        };
        self.wait_as(waits, deadline, cx)
    }

    #[cold]
    fn wait_as(&mut self, waits: Waits, deadline: Instant, cx: &mut Context<'_>) -> Poll<Failure> {
        let mut sleep = SleepUntil::new(&self.client.borrow().0.shard, deadline);
        let end = match waits {
            Waits::Not(failure) => Some(failure),
            _ if Pin::new(&mut sleep).poll(cx).is_ready() => {
                Some(Failure::not_sent(Cause::Expired))
            }
            _ => None,
        };
        if let Some(failure) = end {
            self.stage = Stage::Ended;
            return Poll::Ready(failure);
        }
        let crowded = matches!(waits, Waits::Room).then(|| cx.waker().clone());
        self.client.borrow().queue(waits, cx.waker());
        self.stage = Stage::Unsent;
        self.waiting = Some(Box::new(Waiting { deadline, _sleep: sleep, crowded }));
        Poll::Pending
    }
}

impl Waiting {
    /// It waits no more; says whether it was let in already.
    fn leave_crowd(&self, client: &LocalClient) -> bool {
        self.crowded.as_ref().is_some_and(|waker| !client.0.connection.leave_crowd(waker))
    }
}

impl<C: Borrow<LocalClient>, P> LocalCall<C, P> {
    /// It is dropped while it waits. If it was let in already, its room is somebody else's now.
    #[cold]
    fn stop_waiting(&mut self) {
        let client = self.client.borrow();
        if self.waiting.take().is_some_and(|waiting| waiting.leave_crowd(client)) {
            client.0.connection.admit(1);
        }
    }

    #[cold]
    fn watch_begin(&mut self, now: Instant)
    where
        P: Payload,
    {
        let audience = self.client.borrow().0.connection.audience().as_ref();
        let audience = audience.filter(|_| !is_control(self.call.method));
        self.begun = audience.map(|it| it.begin(&self.call, now, &self.payload));
    }

    #[cold]
    fn watch_repeat(&self) {
        let local = &self.client.borrow().0;
        if let Some(audience) = local.connection.audience()
            && let Some(begun) = &self.begun
        {
            audience.repeat(&self.call, begun.number(), local.shard.now());
        }
    }

    /// Tells observers how it ended, if it has begun for them.
    #[cold]
    fn watch_end(&mut self, result: &Result<Answer<Chunk>, Failure>) {
        if let Some(begun) = self.begun.take()
            && let Some(audience) = self.client.borrow().0.connection.audience()
        {
            audience.end(&self.call, begun, self.client.borrow().0.shard.now(), result);
        }
    }
}

impl<C: Borrow<LocalClient>, P: Payload> LocalCall<C, P> {
    /// The answer, if it is there and nobody has to look at it first.
    #[inline(always)]
    pub(super) fn take_answer(&mut self) -> Option<Answer<Chunk>> {
        match self.begun {
            None => self.take_plain(),
            Some(_) => None,
        }
    }

    #[inline(always)]
    fn take_plain(&mut self) -> Option<Answer<Chunk>> {
        let Stage::Sent { waiter, .. } = self.stage else { return None };
        let answer = self.client.borrow().0.shard.waiters.take_plain(waiter)?;
        self.stage = Stage::Ended;
        Some(answer)
    }

    /// It has not been polled before: until when it is to be answered.
    #[inline(always)]
    fn begin(&mut self) -> Due {
        let local = &self.client.borrow().0;
        let due = local.shard.due_in(self.call.timeout);
        if local.connection.audience().is_some() {
            self.watch_begin(due.now);
        }
        due
    }

    /// It waits, or has ended otherwise than most do, or is observed.
    #[inline(never)]
    fn go_on(&mut self, cx: &mut Context<'_>) -> GoesOn {
        if let Some(answer) = self.take_plain() {
            return self.end(Ok(answer));
        }
        let shard = &self.client.borrow().0.shard;
        match &self.stage {
            Stage::Unsent => self.try_again(),
            Stage::Sent { waiter, .. } => {
                let task = || shard.executor.task_of(cx.waker());
                match shard.waiters.poll(*waiter, task, cx.waker()) {
                    Waited::Pending => GoesOn::With(Poll::Pending),
                    Waited::Ended(outcome) => self.ended(outcome),
                }
            }
            Stage::Ended => self.end(Err(Failure::unknown(Cause::Cancelled))),
        }
    }

    /// It waits, and is polled: because there is room, or because of something else.
    #[cold]
    fn try_again(&mut self) -> GoesOn {
        let Some(waiting) = self.waiting.take() else { return GoesOn::With(Poll::Pending) };
        // It is not to wait twice.
        let _was_let_in = waiting.leave_crowd(self.client.borrow());
        GoesOn::Again(self.client.borrow().0.shard.due_at(waiting.deadline))
    }

    /// It has ended otherwise than with a value: perhaps it is made again.
    #[cold]
    fn ended(&mut self, outcome: Outcome) -> GoesOn {
        let stage = std::mem::replace(&mut self.stage, Stage::Ended);
        let connection = &self.client.borrow().0.connection;
        if let Stage::Sent { handle, deadline, .. } = stage
            && let Some(failure) = failure_of(&outcome)
            && (connection.may_repeat(handle, &failure)
                || connection.skew.learn(&failure, Called::from(&self.call)))
        {
            self.watch_repeat();
            return GoesOn::Again(self.client.borrow().0.shard.due_at(deadline));
        }
        self.end(answer(outcome))
    }

    fn end(&mut self, result: Result<Answer<Chunk>, Failure>) -> GoesOn {
        GoesOn::With(Poll::Ready(self.finish(result)))
    }

    /// What few calls need behind their end.
    #[inline(never)]
    fn finish(&mut self, result: Result<Answer<Chunk>, Failure>) -> Result<Answer<Chunk>, Failure> {
        let result = inflate_answer(result, self.client.borrow().message_bytes_max());
        self.watch_end(&result);
        result
    }
}

impl<C: Borrow<LocalClient>, P: Payload> Future for LocalCall<C, P> {
    type Output = Result<Answer<Chunk>, Failure>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        let due = match this.stage {
            Stage::Unsent if this.waiting.is_none() => this.begin(),
            _ => {
                if let Some(answer) = this.take_answer() {
                    return Poll::Ready(Ok(answer));
                }
                match this.go_on(cx) {
                    GoesOn::With(polled) => return polled,
                    GoesOn::Again(due) => due,
                }
            }
        };
        this.send(due, cx).map(|failure| this.finish(Err(failure)))
    }
}

/// How a call failed, if perhaps only because of its connection, or of its layout.
#[inline]
pub(crate) fn failure_of(outcome: &Outcome) -> Option<Failure> {
    match outcome {
        Outcome::Failed(failure) => Some(*failure),
        Outcome::Reply(reply)
            if matches!(reply.header.status, Status::DRAINING | Status::SHAPE_MISMATCH) =>
        {
            Failure::from_status(reply.header.status, reply.header.retry_after_ms)
        }
        _ => None,
    }
}

#[inline]
fn answer(outcome: Outcome) -> Result<Answer<Chunk>, Failure> {
    match outcome {
        // A one-way call has no answer; that it was sent is all there is to say.
        Outcome::Sent => Ok(Answer {
            header: ringcall_core::frame::ReplyHeader::new(ringcall_core::Status::OK),
            body: Chunk::empty(),
            attached: Attached::Nothing,
            extensions: Chunk::empty(),
        }),
        outcome => Ok(outcome.into_answer()?.into()),
    }
}

impl<C: Borrow<LocalClient>, P> LocalCall<C, P> {
    /// It is dropped before its end.
    #[cold]
    fn give_up(&mut self) {
        if self.begun.is_some() {
            self.watch_end(&Err(Failure::unknown(Cause::Cancelled)));
        }
        if self.waiting.is_some() {
            self.stop_waiting();
        }
        let Stage::Sent { waiter, handle, id, .. } = self.stage else { return };
        let shard = &self.client.borrow().0.shard;
        match shard.cancel(handle, id) {
            Some(_) => shard.waiters.remove(waiter),
            // It has ended meanwhile, or is a one-way call, which ends when it is sent.
            None => shard.waiters.leave(waiter),
        }
    }
}

impl<C: Borrow<LocalClient>, P> Drop for LocalCall<C, P> {
    #[inline]
    fn drop(&mut self) {
        let has_sent = matches!(self.stage, Stage::Sent { .. });
        if has_sent || self.begun.is_some() || self.waiting.is_some() {
            self.give_up();
        }
    }
}

impl<C: Borrow<LocalClient>, P> fmt::Debug for LocalCall<C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LocalCall").field("call", &self.call).finish_non_exhaustive()
    }
}
