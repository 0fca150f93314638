//! A call over a balanced channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use ringcall_core::frame::request_flags;
use ringcall_core::{Answer, Cause, Channel, Failure, Outgoing, OwnedChannel, Payload};

use super::carrying::{Carrying, carrying, joined};
use super::{Connector, Guard as _, Shared, whole};
use crate::fleet::{Attempt, CallState};
use crate::retry::Verdict;
use crate::route::Asked;

type End<N> = Result<Answer<<<N as Connector>::Channel as Channel>::Body>, Failure>;

/// A call over a [`Balanced`](super::Balanced) channel: one attempt or several, at most two at a time. Dropping
/// it gives all of them up.
pub struct BalancedCall<'a, N: Connector, P: Payload + Clone> {
    shared: &'a Shared<N>,
    call: Outgoing,
    payload: P,
    key: Option<u64>,
    /// Names what the call is to do, in a TLV, if the settings want that.
    operation: Option<Arc<[u8]>>,
    /// Once it has begun, until it ends.
    state: Option<CallState>,
    first: Option<Running<N, P>>,
    /// Made beside the first, which takes long.
    second: Option<Running<N, P>>,
    timer: Option<Timer<N>>,
    /// An attempt may have run, whatever becomes of later ones.
    may_have_run: bool,
    is_reported: bool,
    /// Servers are to say when they begin with it.
    is_tied: bool,
    is_over: bool,
}

struct Running<N: Connector, P: Payload + Clone> {
    attempt: Attempt,
    future: <N::Channel as OwnedChannel>::Owned<Carrying<P>>,
    /// If it is tied, until it has begun.
    begun: Option<N::Begun>,
}

enum Timer<N: Connector> {
    Again(N::Sleep),
    Hedge(N::Sleep),
}

impl<N: Connector, P: Payload + Clone> Unpin for BalancedCall<'_, N, P> {}

impl<'a, N: Connector, P: Payload + Clone> BalancedCall<'a, N, P> {
    #[inline]
    pub(super) fn new(
        shared: &'a Shared<N>,
        call: Outgoing,
        payload: P,
        key: Option<u64>,
        is_reported: bool,
    ) -> BalancedCall<'a, N, P> {
        BalancedCall {
            shared,
            call,
            payload,
            key,
            operation: None,
            state: None,
            first: None,
            second: None,
            timer: None,
            may_have_run: false,
            is_reported,
            is_tied: false,
            is_over: false,
        }
    }

    /// Makes an attempt; its future is polled next. Nothing is made if the call begins with this and a rule wants more of
    /// it first.
    #[inline(always)]
    fn attempt(&mut self) -> Result<Option<Running<N, P>>, Failure> {
        let connector = &self.shared.connector;
        let now = connector.now();
        let Outgoing { name, method, flags, timeout, .. } = self.call;
        let (extensions, argument) = (self.payload.extensions(), self.payload.argument());
        let asked = Asked { name, method, key: self.key, extensions, argument };
        let (state, operation, is_tied) = (&mut self.state, &mut self.operation, &mut self.is_tied);
        let readiness = |channel: &N::Channel| connector.readiness(channel);
        let begun = self.shared.fleet.with(|fleet| {
            if state.is_none() {
                let begun = if fleet.is_next_reported() || self.is_reported {
                    state.insert(fleet.begin_reported(now, &asked, flags, timeout, readiness)?)
                } else {
                    state.insert(fleet.begin(now, &asked, flags, timeout)?)
                };
                if fleet.wants_key(begun) && !asked.has_idempotency_key() {
                    *operation = Some(self.shared.operations.next());
                }
                *is_tied = fleet.is_tied(begun);
                if begun.is_special() {
                    return Ok(None);
                }
            }
            let Some(state) = state else { return Ok(None) };
            if state.was_delayed_too_long(now) {
                return Err(Failure::not_sent(Cause::Expired));
            }
            let (attempt, channel) = fleet.start(now, &asked, state, readiness)?;
            let carried = fleet.carried(state, &attempt);
            Ok(Some((attempt, channel, carried)))
        })?;
        Ok(begun.map(|(attempt, channel, carried)| self.run(attempt, channel, carried)))
    }

    #[inline]
    fn run(
        &self,
        attempt: Attempt,
        channel: N::Channel,
        carried: Option<Arc<[u8]>>,
    ) -> Running<N, P> {
        let mut call = Outgoing { timeout: attempt.timeout, ..self.call };
        if attempt.number > 0 {
            call.flags |= request_flags::RETRIED;
            call.attempt = call.attempt.saturating_add(attempt.number);
        }
        let mut carried = joined(carried, self.operation.as_ref());
        let begun = self.is_tied.then(|| self.tie(&mut carried));
        let payload = carrying(self.payload.clone(), carried);
        let future = channel.call_owned(call, payload);
        Running { attempt, future, begun }
    }

    /// Gives an attempt a name, by which its server says when it begins.
    #[cold]
    fn tie(&self, carried: &mut Option<Arc<[u8]>>) -> N::Begun {
        let (name, tlv) = self.shared.operations.next_tie();
        *carried = joined(carried.take(), Some(&tlv));
        self.shared.connector.begun(name)
    }

    #[inline]
    fn begin(&mut self) -> Result<(), Failure> {
        match self.attempt()? {
            Some(running) => self.go_on(running),
            None => self.begin_special()?,
        }
        Ok(())
    }

    /// The call has begun, and more is to be done before its first attempt: a copy, questions to instances, or it waits.
    #[cold]
    #[inline(never)]
    fn begin_special(&mut self) -> Result<(), Failure> {
        let Some(state) = &self.state else { return Ok(()) };
        self.shared.mirror(&self.call, &self.payload, state);
        self.shared.probe_loads(state);
        if let Some(delay) = state.delay() {
            // Nobody waits longer than until the deadline.
            let delay = delay.min(self.call.timeout);
            self.timer = Some(Timer::Again(self.shared.connector.sleep(delay)));
        } else if let Some(running) = self.attempt()? {
            self.go_on(running);
        }
        Ok(())
    }

    #[inline]
    fn go_on(&mut self, running: Running<N, P>) {
        if let Some(after) = running.attempt.hedge_after {
            self.timer = Some(Timer::Hedge(self.shared.connector.sleep(after)));
        }
        self.first = Some(running);
    }

    /// One of the attempts has ended. Gives the end of the call, if it is that.
    #[inline]
    fn ended(&mut self, attempt: Attempt, end: End<N>) -> Option<End<N>> {
        let connector = &self.shared.connector;
        let now = connector.now();
        let Some(state) = &mut self.state else { return Some(end) };
        self.may_have_run |= !matches!(&end, Err(failure) if failure.is_safe_to_retry());
        let seen = end.as_ref().map(|answer| &answer.header);
        let is_beside = self.first.is_some() || self.second.is_some();
        let verdict = self.shared.fleet.with(|fleet| {
            let verdict = if is_beside {
                fleet.end_beside(now, state, attempt, seen).then_some(Verdict::End)
            } else {
                Some(fleet.end(now, state, attempt, seen))
            };
            if verdict == Some(Verdict::End) && !is_beside {
                fleet.finish(now, state, Some(seen));
            }
            verdict
        });
        match verdict {
            // What the attempt beside it answers is waited for.
            None => None,
            Some(Verdict::Again(wait)) => {
                self.timer = Some(Timer::Again(connector.sleep(wait)));
                None
            }
            Some(Verdict::End) => {
                if is_beside {
                    // Before the call ends, so that what is told of it has its end.
                    self.give_up_running();
                    if let Some(state) = &self.state {
                        self.shared.fleet.with(|fleet| fleet.finish(now, state, Some(seen)));
                    }
                }
                self.state = None;
                Some(end.map_err(|failure| whole(failure, self.may_have_run)))
            }
        }
    }

    /// Attempts that are not needed any more are cancelled.
    fn give_up_running(&mut self) {
        if self.first.is_none() && self.second.is_none() {
            return;
        }
        let now = self.shared.connector.now();
        for running in [self.first.take(), self.second.take()].into_iter().flatten() {
            let Running { attempt, future, .. } = running;
            drop(future);
            if let Some(state) = &self.state {
                self.shared.fleet.with(|fleet| fleet.abandon(now, state, attempt));
            }
        }
    }

    fn fail(&mut self, failure: Failure) -> End<N> {
        if let Some(state) = self.state.take() {
            let now = self.shared.connector.now();
            self.shared.fleet.with(|fleet| fleet.finish(now, &state, Some(Err(&failure))));
        }
        Err(whole(failure, self.may_have_run))
    }

    /// The timer has fired, or not.
    #[cold]
    fn poll_timer(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        match &mut self.timer {
            None => Poll::Pending,
            Some(Timer::Again(sleep)) => {
                if Pin::new(sleep).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.timer = None;
                Poll::Ready(self.begin())
            }
            Some(Timer::Hedge(sleep)) => {
                if Pin::new(sleep).poll(cx).is_pending() {
                    return Poll::Pending;
                }
                self.timer = None;
                self.hedge();
                Poll::Ready(Ok(()))
            }
        }
    }

    #[cold]
    fn poll_begun(&mut self, cx: &mut Context<'_>) {
        for which in [0, 1] {
            let place = if which == 0 { &mut self.first } else { &mut self.second };
            if let Some(Running { begun: Some(begun), .. }) = place
                && Pin::new(begun).poll(cx).is_ready()
            {
                self.has_begun(which);
            }
        }
    }

    /// The server of a tied attempt has begun with it: there is no need of another one.
    fn has_begun(&mut self, which: usize) {
        let (kept, other) = match which {
            0 => (&mut self.first, &mut self.second),
            _ => (&mut self.second, &mut self.first),
        };
        if let Some(running) = kept {
            running.begun = None;
        }
        if matches!(self.timer, Some(Timer::Hedge(_))) {
            self.timer = None;
        }
        // One that has begun as well goes on: its work would be lost.
        if other.as_ref().is_none_or(|running| running.begun.is_none()) {
            return;
        }
        if let (Some(Running { attempt, future, .. }), Some(state)) =
            (other.take(), &mut self.state)
        {
            drop(future);
            // The word that it has begun as well may be on its way.
            self.may_have_run = true;
            let now = self.shared.connector.now();
            self.shared.fleet.with(|fleet| fleet.untie(now, state, attempt));
        }
    }

    /// The first attempt takes long: makes a second beside it, if that is allowed. Without another instance that can
    /// be called, the first goes on alone.
    fn hedge(&mut self) {
        let connector = &self.shared.connector;
        let now = connector.now();
        let Some(state) = &mut self.state else { return };
        let second = self.shared.fleet.with(|fleet| {
            let readiness = |channel: &N::Channel| connector.readiness(channel);
            let (attempt, channel) = fleet.hedge(now, state, readiness)?;
            let carried = fleet.carried(state, &attempt);
            Some((attempt, channel, carried))
        });
        self.second = second.map(|(attempt, channel, carried)| self.run(attempt, channel, carried));
    }
}

impl<N: Connector, P: Payload + Clone> Future for BalancedCall<'_, N, P> {
    type Output = End<N>;

    #[inline]
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End<N>> {
        let this = self.get_mut();
        if this.is_over {
            return Poll::Ready(Err(Failure::unknown(Cause::Cancelled)));
        }
        let mut begun = Ok(());
        if this.state.is_none() {
            begun = this.begin();
        }
        loop {
            if let Err(failure) = begun {
                this.is_over = true;
                return Poll::Ready(this.fail(failure));
            }
            for which in [0, 1] {
                let place = if which == 0 { &mut this.first } else { &mut this.second };
                let Some(running) = place else { continue };
                let Poll::Ready(end) = Pin::new(&mut running.future).poll(cx) else { continue };
                let Some(Running { attempt, future, .. }) = place.take() else { continue };
                drop(future);
                if let Some(end) = this.ended(attempt, end) {
                    this.is_over = true;
                    return Poll::Ready(end);
                }
            }
            if this.is_tied {
                this.poll_begun(cx);
            }
            if this.timer.is_none() {
                return Poll::Pending;
            }
            match this.poll_timer(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(next) => begun = next,
            }
        }
    }
}

impl<N: Connector, P: Payload + Clone> Drop for BalancedCall<'_, N, P> {
    fn drop(&mut self) {
        if self.state.is_none() {
            return;
        }
        self.give_up_running();
        if let Some(state) = self.state.take() {
            let now = self.shared.connector.now();
            self.shared.fleet.with(|fleet| fleet.finish(now, &state, None));
        }
    }
}

impl<N: Connector, P: Payload + Clone> fmt::Debug for BalancedCall<'_, N, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalancedCall").field("call", &self.call).finish_non_exhaustive()
    }
}
