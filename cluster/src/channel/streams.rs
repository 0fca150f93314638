//! Calls with streams over a balanced channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use ringcall_core::frame::{ReplyHeader, request_flags};
use ringcall_core::{
    Answer, Arrived, Cause, Channel, Encoding, Failure, ItemError, Outgoing, OwnedStreamChannel,
    Payload, StreamCall, StreamChannel,
};

use super::carrying::{Carrying, carrying, joined};
use super::{Connector, Guard as _, Shared, whole};
use crate::fleet::{Attempt, CallState, OpenStream};
use crate::retry::Verdict;
use crate::route::Asked;

type BodyOf<N> = <<N as Connector>::Channel as Channel>::Body;
type CallOf<N> = <<N as Connector>::Channel as StreamChannel>::Call;
type AnswerOf<N> = Answer<BodyOf<N>>;
type Opened<N> = Result<BalancedStream<N>, Failure>;
/// An attempt, the connection that it goes by, and the TLVs that it has beside its call's.
type Started<C> = (Attempt, C, Option<Arc<[u8]>>);

/// A call with streams over a [`Balanced`](super::Balanced) channel that is being made. Dropping it gives it up.
///
/// Of a call without items of the caller it waits for the first thing that the other side sends, and makes the call again
/// elsewhere if that is a failure after which it may be. Whoever sends items has to be given the call before.
pub struct BalancedOpening<'a, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    shared: &'a Arc<Shared<N>>,
    call: Outgoing,
    payload: P,
    key: Option<u64>,
    /// Names what the call is to do, in a TLV, if the settings want that.
    operation: Option<Arc<[u8]>>,
    /// Once it has begun, until it ends or is handed over.
    state: Option<CallState>,
    stage: Stage<'a, N, P>,
    /// An attempt may have run, whatever becomes of later ones.
    may_have_run: bool,
    is_reported: bool,
}

enum Stage<'a, N, P>
where
    N: Connector<Channel: OwnedStreamChannel> + 'a,
    P: Payload + Clone + 'a,
{
    New,
    /// A rule wants it to, or it is made again after that.
    Waits(N::Sleep),
    Opens {
        attempt: Attempt,
        future: <N::Channel as OwnedStreamChannel>::OwnedOpening<'a, Carrying<P>>,
    },
    /// It was accepted by this side, and nothing of the other one has arrived.
    Asks {
        attempt: Attempt,
        call: CallOf<N>,
    },
    Over,
}

// Nothing in it is pinned where it is.
impl<N, P> Unpin for BalancedOpening<'_, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
}

impl<'a, N, P> BalancedOpening<'a, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    pub(super) fn new(
        shared: &'a Arc<Shared<N>>,
        call: Outgoing,
        payload: P,
        key: Option<u64>,
        is_reported: bool,
    ) -> BalancedOpening<'a, N, P> {
        BalancedOpening {
            shared,
            call,
            payload,
            key,
            operation: None,
            state: None,
            stage: Stage::New,
            may_have_run: false,
            is_reported,
        }
    }

    fn sends_items(&self) -> bool {
        self.call.flags & request_flags::ITEMS_IN != 0
    }

    /// Makes an attempt, if nothing is to be done before. Gives the end of the call if none can be made.
    fn begin(&mut self) -> Option<Opened<N>> {
        match self.attempt() {
            Ok(Some(started)) => self.run(started),
            Ok(None) => return self.begin_special(),
            Err(failure) => return Some(Err(self.fail(failure))),
        }
        None
    }

    /// Begins an attempt, and the call if it is the first. Nothing is begun if the call begins with this and a rule wants more
    /// of it first.
    // The same steps as those of a `BalancedCall`, apart from it: if both shared them, calls without streams would be eleven
    // instructions longer.
    fn attempt(&mut self) -> Result<Option<Started<N::Channel>>, Failure> {
        let connector = &self.shared.connector;
        let now = connector.now();
        let Outgoing { name, method, flags, timeout, .. } = self.call;
        let (extensions, argument) = (self.payload.extensions(), self.payload.argument());
        let asked = Asked { name, method, key: self.key, extensions, argument };
        let (state, operation) = (&mut self.state, &mut self.operation);
        let readiness = |channel: &N::Channel| connector.readiness(channel);
        self.shared.fleet.with(|fleet| {
            if state.is_none() {
                let begun = if fleet.is_next_reported() || self.is_reported {
                    state.insert(fleet.begin_reported(now, &asked, flags, timeout, readiness)?)
                } else {
                    state.insert(fleet.begin(now, &asked, flags, timeout)?)
                };
                if fleet.wants_key(begun) && !asked.has_idempotency_key() {
                    *operation = Some(self.shared.operations.next());
                }
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
        })
    }

    /// The call has begun, and more is to be done before its first attempt.
    #[cold]
    fn begin_special(&mut self) -> Option<Opened<N>> {
        let state = self.state.as_ref()?;
        self.shared.mirror(&self.call, &self.payload, state);
        self.shared.probe_loads(state);
        let Some(delay) = state.delay() else { return self.begin() };
        // Nobody waits longer than until the deadline.
        let sleep = self.shared.connector.sleep(delay.min(self.call.timeout));
        self.stage = Stage::Waits(sleep);
        None
    }

    fn run(&mut self, (attempt, channel, carried): Started<N::Channel>) {
        let mut call = Outgoing { timeout: self.timeout(&attempt), ..self.call };
        if attempt.number > 0 {
            call.flags |= request_flags::RETRIED;
            call.attempt = call.attempt.saturating_add(attempt.number);
        }
        let payload = carrying(self.payload.clone(), joined(carried, self.operation.as_ref()));
        let future = channel.open_owned(call, payload);
        self.stage = Stage::Opens { attempt, future };
    }

    /// How long an attempt may take. With items of the caller there is no other one to leave time to.
    fn timeout(&self, attempt: &Attempt) -> Duration {
        let deadline = self.state.as_ref().map(CallState::deadline).unwrap_or_default();
        let left = deadline.since(self.shared.connector.now());
        let timeout = if self.sends_items() { left } else { attempt.timeout.min(left) };
        let is_for_ever = self.call.timeout == Duration::MAX && timeout == left;
        if is_for_ever { Duration::MAX } else { timeout }
    }

    /// This side has accepted the call, or has not.
    fn opened(&mut self, opened: Result<CallOf<N>, Failure>) -> Option<Opened<N>> {
        let Stage::Opens { attempt, future } = std::mem::replace(&mut self.stage, Stage::Over)
        else {
            return None;
        };
        drop(future);
        match opened {
            Err(failure) => Some(Err(self.ended(attempt, Err(failure))?.err()?)),
            Ok(call) if self.sends_items() => self.hand_over(attempt, call, None),
            Ok(call) => {
                self.stage = Stage::Asks { attempt, call };
                None
            }
        }
    }

    /// The first thing that the other side has sent.
    fn arrived(&mut self, arrived: Arrived<BodyOf<N>>) -> Option<Opened<N>> {
        let Stage::Asks { attempt, call } = std::mem::replace(&mut self.stage, Stage::Over) else {
            return None;
        };
        let end = match arrived {
            Arrived::End(end) => end,
            begun => return self.hand_over(attempt, call, Some(begun)),
        };
        match self.ended(attempt, end)? {
            Err(failure) => Some(Err(failure)),
            Ok(answer) => Some(Ok(BalancedStream::over(call, answer))),
        }
    }

    /// An attempt has ended before there was a stream. Gives the end of the call, if it is that.
    fn ended(
        &mut self,
        attempt: Attempt,
        end: Result<AnswerOf<N>, Failure>,
    ) -> Option<Result<AnswerOf<N>, Failure>> {
        let connector = &self.shared.connector;
        let now = connector.now();
        let Some(state) = &mut self.state else { return Some(end) };
        self.may_have_run |= !matches!(&end, Err(failure) if failure.is_safe_to_retry());
        let seen = end.as_ref().map(|answer| &answer.header);
        let verdict = self.shared.fleet.with(|fleet| {
            let verdict = fleet.end(now, state, attempt, seen);
            if verdict == Verdict::End {
                fleet.finish(now, state, Some(seen));
            }
            verdict
        });
        match verdict {
            Verdict::Again(wait) => {
                self.stage = Stage::Waits(connector.sleep(wait));
                None
            }
            Verdict::End => {
                self.state = None;
                Some(end.map_err(|failure| whole(failure, self.may_have_run)))
            }
        }
    }

    /// From now on it is the caller's, with the first thing that has arrived for it.
    fn hand_over(
        &mut self,
        attempt: Attempt,
        call: CallOf<N>,
        first: Option<Arrived<BodyOf<N>>>,
    ) -> Option<Opened<N>> {
        let mut state = self.state.take()?;
        let mut stream = OpenStream::new(&state, attempt);
        if let Some(Arrived::Began(answer)) = &first {
            let (now, begun) = (self.shared.connector.now(), &mut stream);
            self.shared
                .fleet
                .with(|fleet| fleet.begin_stream(now, &mut state, begun, &answer.header));
        }
        let (shared, open) = (Arc::downgrade(self.shared), Some(Open { state, stream }));
        Some(Ok(BalancedStream::new(call, Life::new(shared, open, first, self.may_have_run))))
    }

    /// No attempt can be made.
    fn fail(&mut self, failure: Failure) -> Failure {
        if let Some(state) = self.state.take() {
            let now = self.shared.connector.now();
            self.shared.fleet.with(|fleet| fleet.finish(now, &state, Some(Err(&failure))));
        }
        whole(failure, self.may_have_run)
    }
}

impl<N, P> Future for BalancedOpening<'_, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    type Output = Result<BalancedStream<N>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let end = match &mut this.stage {
                Stage::New => this.begin(),
                Stage::Waits(sleep) => {
                    ready!(Pin::new(sleep).poll(cx));
                    this.begin()
                }
                Stage::Opens { future, .. } => {
                    let opened = ready!(Pin::new(future).poll(cx));
                    this.opened(opened)
                }
                Stage::Asks { call, .. } => {
                    let arrived = ready!(call.poll_arrived(cx));
                    this.arrived(arrived)
                }
                Stage::Over => return Poll::Ready(Err(Failure::unknown(Cause::Cancelled))),
            };
            if let Some(end) = end {
                this.stage = Stage::Over;
                return Poll::Ready(end);
            }
        }
    }
}

impl<N, P> Drop for BalancedOpening<'_, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    fn drop(&mut self) {
        let stage = std::mem::replace(&mut self.stage, Stage::Over);
        let Some(state) = self.state.take() else { return };
        // What was sent is cancelled first.
        let attempt = match stage {
            Stage::Opens { attempt, future } => {
                drop(future);
                Some(attempt)
            }
            Stage::Asks { attempt, call } => {
                drop(call);
                Some(attempt)
            }
            _ => None,
        };
        let now = self.shared.connector.now();
        self.shared.fleet.with(|fleet| {
            if let Some(attempt) = attempt {
                fleet.abandon(now, &state, attempt);
            }
            fleet.finish(now, &state, None);
        });
    }
}

impl<N, P> fmt::Debug for BalancedOpening<'_, N, P>
where
    N: Connector<Channel: OwnedStreamChannel>,
    P: Payload + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BalancedOpening").field("call", &self.call).finish_non_exhaustive()
    }
}

// ---- once it is open ----

/// A call with streams of a [`Balanced`](super::Balanced) channel: it stays on the instance that it was opened at, and counts as
/// under way there until it ends, is cancelled, or the last of its clones is dropped. It keeps its connection, not the channel.
pub struct BalancedStream<N: Connector<Channel: OwnedStreamChannel>> {
    // Dropped before what counts it.
    call: CallOf<N>,
    life: Arc<Life<N>>,
}

/// What all clones of a call share: it is given back exactly once, by whichever of them sees the end first.
struct Life<N: Connector> {
    shared: Weak<Shared<N>>,
    held: N::Guard<Held<BodyOf<N>>>,
    /// There is something to be taken before the rest, so that nobody looks for it with each item.
    has_first: AtomicBool,
    /// An attempt before it may have run.
    may_have_run: bool,
}

struct Held<B> {
    open: Option<Open>,
    /// What arrived while the call was made.
    first: Option<Arrived<B>>,
}

/// What the fleet is to have back.
struct Open {
    state: CallState,
    stream: OpenStream,
}

impl<N: Connector> Life<N> {
    fn new(
        shared: Weak<Shared<N>>,
        open: Option<Open>,
        first: Option<Arrived<BodyOf<N>>>,
        may_have_run: bool,
    ) -> Life<N> {
        let has_first = AtomicBool::new(first.is_some());
        let held = N::Guard::new(Held { open, first });
        Life { shared, held, has_first, may_have_run }
    }

    /// What arrived while the call was made.
    #[cold]
    fn take_first(&self) -> Option<Arrived<BodyOf<N>>> {
        self.has_first.store(false, Ordering::Relaxed);
        self.held.with(|held| held.first.take())
    }

    fn begins(&self, header: &ReplyHeader) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.connector.now();
        self.held.with(|held| {
            let Some(Open { state, stream }) = &mut held.open else { return };
            shared.fleet.with(|fleet| fleet.begin_stream(now, state, stream, header));
        });
    }

    fn sent_all(&self) {
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.connector.now();
        self.held.with(|held| {
            if let Some(open) = &mut held.open {
                open.stream.sent_all(now);
            }
        });
    }

    /// It has ended, like this; or (`None`) its caller has let go of it.
    fn ends(&self, end: Option<Result<&ReplyHeader, &Failure>>) {
        let taken = self.held.with(|held| held.open.take());
        let Some(Open { mut state, stream }) = taken else { return };
        let Some(shared) = self.shared.upgrade() else { return };
        let now = shared.connector.now();
        shared.fleet.with(|fleet| match end {
            Some(end) => fleet.end_stream(now, &state, stream, end),
            None => fleet.leave_stream(now, &mut state, stream),
        });
    }
}

impl<N: Connector> Drop for Life<N> {
    fn drop(&mut self) {
        self.ends(None);
    }
}

impl<N: Connector<Channel: OwnedStreamChannel>> BalancedStream<N> {
    fn new(call: CallOf<N>, life: Life<N>) -> BalancedStream<N> {
        BalancedStream { call, life: Arc::new(life) }
    }

    /// One whose end is all that is left of it.
    fn over(call: CallOf<N>, answer: AnswerOf<N>) -> BalancedStream<N> {
        let first = Some(Arrived::End(Ok(answer)));
        BalancedStream::new(call, Life::new(Weak::new(), None, first, true))
    }
}

impl<N: Connector<Channel: OwnedStreamChannel>> StreamCall for BalancedStream<N> {
    type Body = BodyOf<N>;

    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        self.call.poll_send(cx, encoding, payload)
    }

    fn end_items(&self) {
        self.life.sent_all();
        self.call.end_items();
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<BodyOf<N>>> {
        if self.life.has_first.load(Ordering::Relaxed)
            && let Some(first) = self.life.take_first()
        {
            return Poll::Ready(first);
        }
        let arrived = ready!(self.call.poll_arrived(cx));
        match &arrived {
            Arrived::Item { .. } => {}
            Arrived::Began(answer) => self.life.begins(&answer.header),
            Arrived::End(end) => self.life.ends(Some(end.as_ref().map(|answer| &answer.header))),
        }
        Poll::Ready(match arrived {
            Arrived::End(Err(failure)) => Arrived::End(Err(whole(failure, self.life.may_have_run))),
            arrived => arrived,
        })
    }

    fn cancel(&self) {
        self.call.cancel();
        let first = self.life.take_first();
        drop(first);
        self.life.ends(None);
    }
}

impl<N: Connector<Channel: OwnedStreamChannel>> Clone for BalancedStream<N> {
    fn clone(&self) -> BalancedStream<N> {
        BalancedStream { call: self.call.clone(), life: Arc::clone(&self.life) }
    }
}

impl<N: Connector<Channel: OwnedStreamChannel>> fmt::Debug for BalancedStream<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let is_open = self.life.held.with(|held| held.open.is_some());
        f.debug_struct("BalancedStream").field("is_open", &is_open).finish_non_exhaustive()
    }
}
