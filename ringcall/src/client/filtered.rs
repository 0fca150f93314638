//! Calls that pass filters on their way to a channel.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use pin_project_lite::pin_project;
use ringcall_core::frame::ExtensionWriter;
use ringcall_core::{
    Answer, Arrived, Cause, Channel, Clock, Encoding, Extended, Failure, Instant, ItemError,
    Outgoing, OwnedChannel, OwnedStreamChannel, Payload, StatusClass, StreamCall, StreamChannel,
};

use super::BlockOn;
use crate::filter::{CallEnd, Filter};
use crate::shard::MachineClock;
use crate::{Metadata, Status, TraceContext};

/// A call on its way to a channel, as filters see it.
#[derive(Debug)]
pub struct ClientCall {
    outgoing: Outgoing,
    /// Those that the call has already, and what filters add.
    extensions: ExtensionWriter,
}

impl ClientCall {
    /// `package.Service/method`.
    #[must_use]
    pub fn method(&self) -> &'static str {
        self.outgoing.name
    }

    /// How long the caller waits; [`Duration::MAX`] for ever.
    #[must_use]
    pub fn deadline(&self) -> Duration {
        self.outgoing.timeout
    }

    /// Makes it another time.
    pub fn set_deadline(&mut self, deadline: Duration) {
        self.outgoing.timeout = deadline;
    }

    /// 0 is the most ordinary.
    #[must_use]
    pub fn priority(&self) -> u8 {
        self.outgoing.priority
    }

    /// Makes it another priority.
    pub fn set_priority(&mut self, priority: u8) {
        self.outgoing.priority = priority;
    }

    /// 0 for the first attempt.
    #[must_use]
    pub fn attempt(&self) -> u8 {
        self.outgoing.attempt
    }

    /// What goes with the call so far.
    #[must_use]
    pub fn metadata(&self) -> Metadata<&[u8]> {
        Metadata::new(self.extensions.written())
    }

    /// Adds an entry of metadata, see [`Call::metadata`](crate::Call::metadata).
    ///
    /// # Panics
    /// When the key is not one.
    pub fn add_metadata(&mut self, key: &str, value: impl AsRef<[u8]>) {
        let pushed = crate::metadata::push_entry(&mut self.extensions, key, value.as_ref());
        crate::metadata::expect_key(pushed);
    }

    /// Makes it part of a trace, unless it is part of one already.
    pub fn add_trace(&mut self, trace: &TraceContext) {
        if self.metadata().trace().is_none() {
            crate::metadata::push_trace(&mut self.extensions, trace, "");
        }
    }
}

/// A channel whose calls pass filters, see [`filter`](crate::filter).
///
/// A call that a filter ends was not sent. Futures allocate nothing more than their filters do, except a call
/// that has metadata: it is put together with what filters add.
#[derive(Clone, Debug)]
pub struct Filtered<C, F> {
    channel: C,
    filter: F,
}

impl<C, F: Filter<ClientCall>> Filtered<C, F> {
    /// Calls pass `filter`, then go to `channel`.
    pub fn new(channel: C, filter: F) -> Filtered<C, F> {
        Filtered { channel, filter }
    }

    /// The channel without the filter.
    pub fn channel(&self) -> &C {
        &self.channel
    }

    fn before(&self, outgoing: Outgoing, own: &[u8]) -> F::Before {
        let mut extensions = ExtensionWriter::new();
        if !own.is_empty() {
            extensions.append(own);
        }
        self.filter.before(ClientCall { outgoing, extensions })
    }

    /// A call with streams was made, or was not.
    fn opened<S>(
        &self,
        name: &'static str,
        opened: Result<S, Failure>,
    ) -> Result<FilteredStream<S, F>, Failure> {
        match opened {
            Ok(call) => Ok(FilteredStream { call, filter: self.filter.clone(), name }),
            Err(failure) => {
                self.filter.ended(&CallEnd::failed(name, &failure));
                Err(failure)
            }
        }
    }
}

/// The failure of a call that a filter ended.
fn ended_by_filter(status: Status) -> Failure {
    let is_refusal = status.class() == StatusClass::Refused;
    Failure::not_sent(Cause::Status(if is_refusal { status } else { Status::FORBIDDEN }))
}

/// Since when a filter is waited for, if it did not end at once: the clock is read for no others.
#[derive(Default)]
struct Waited(Option<Instant>);

impl Waited {
    fn poll<B: Future>(&mut self, before: Pin<&mut B>, cx: &mut Context<'_>) -> Poll<B::Output> {
        let polled = before.poll(cx);
        if polled.is_pending() {
            self.0.get_or_insert_with(|| MachineClock.now());
        }
        polled
    }

    /// A call that a filter let pass, as it goes on: what the filter took was its time.
    fn passed<P>(
        &self,
        passed: Result<ClientCall, Status>,
        payload: Option<P>,
    ) -> Result<(Outgoing, Extended<P>), Failure> {
        let (ClientCall { mut outgoing, extensions }, payload) = match (passed, payload) {
            (Ok(call), Some(payload)) => (call, payload),
            (passed, _) => {
                return Err(ended_by_filter(passed.err().unwrap_or(Status::CANCELLED)));
            }
        };
        if let Some(since) = self.0.filter(|_| outgoing.timeout != Duration::MAX) {
            outgoing.timeout = outgoing.timeout.saturating_sub(MachineClock.now().since(since));
            if outgoing.timeout.is_zero() {
                return Err(Failure::not_sent(Cause::Expired));
            }
        }
        Ok((outgoing, Extended { payload, extensions: extensions.finish() }))
    }
}

impl<C: BlockOn, F> BlockOn for Filtered<C, F> {
    fn block_on<T: Future>(&self, future: T) -> T::Output {
        self.channel.block_on(future)
    }
}

impl<C: Channel, F: Filter<ClientCall>> Channel for Filtered<C, F> {
    type Body = C::Body;
    type Pending<'a, P>
        = FilteredCall<'a, C, F, P>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Pending<'a, P> {
        let stage = Stage::Before { future: self.before(call, payload.extensions()) };
        let waited = Waited::default();
        FilteredCall { to: self, payload: Some(payload), name: call.name, waited, stage }
    }
}

pin_project! {
    /// A call that passes filters, and then is made.
    pub struct FilteredCall<'a, C, F, P>
    where
        C: Channel,
        C: 'a,
        F: Filter<ClientCall>,
        P: Payload,
        P: Clone,
        P: 'a,
    {
        to: &'a Filtered<C, F>,
        payload: Option<P>,
        name: &'static str,
        waited: Waited,
        #[pin]
        stage: Stage<F::Before, C::Pending<'a, Extended<P>>>,
    }
}

pin_project! {
    #[project = StageProject]
    enum Stage<B, M> {
        Before { #[pin] future: B },
        Made { #[pin] future: M },
        Over,
    }
}

impl<'a, C, F, P> Future for FilteredCall<'a, C, F, P>
where
    C: Channel,
    F: Filter<ClientCall>,
    P: Payload + Clone + 'a,
{
    type Output = Result<Answer<C::Body>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let passed = match this.stage.as_mut().project() {
                StageProject::Before { future } => ready!(this.waited.poll(future, cx)),
                StageProject::Made { future } => {
                    let answer = ready!(future.poll(cx));
                    this.stage.set(Stage::Over);
                    this.to.filter.ended(&end_of(this.name, &answer));
                    return Poll::Ready(answer);
                }
                StageProject::Over => return Poll::Pending,
            };
            match this.waited.passed(passed, this.payload.take()) {
                Ok((outgoing, payload)) => {
                    let future = this.to.channel.call(outgoing, payload);
                    this.stage.set(Stage::Made { future });
                }
                Err(failure) => {
                    this.stage.set(Stage::Over);
                    return Poll::Ready(Err(failure));
                }
            }
        }
    }
}

fn end_of<'a, B>(name: &'a str, answer: &'a Result<Answer<B>, Failure>) -> CallEnd<'a> {
    match answer {
        Ok(answer) => CallEnd::new(name, Some(answer.header.status)),
        Err(failure) => CallEnd::failed(name, failure),
    }
}

impl<'a, C, F, P> fmt::Debug for FilteredCall<'a, C, F, P>
where
    C: Channel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredCall").field("method", &self.name).finish_non_exhaustive()
    }
}

// ---- that keep their channel ----

impl<C: OwnedChannel, F: Filter<ClientCall>> OwnedChannel for Filtered<C, F> {
    type Owned<P>
        = OwnedFilteredCall<C, F, P>
    where
        P: Payload + Clone;

    fn call_owned<P: Payload + Clone>(
        self,
        call: Outgoing,
        payload: P,
    ) -> OwnedFilteredCall<C, F, P> {
        let stage = OwnedStage::Before(Box::pin(self.before(call, payload.extensions())));
        let waited = Waited::default();
        OwnedFilteredCall { to: self, payload: Some(payload), name: call.name, waited, stage }
    }
}

/// A call that passes filters, and then is made on a channel that it keeps. It is moved by whoever holds it, so
/// the future of its filters is on the heap.
pub struct OwnedFilteredCall<C, F, P>
where
    C: OwnedChannel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
    to: Filtered<C, F>,
    payload: Option<P>,
    name: &'static str,
    waited: Waited,
    stage: OwnedStage<F::Before, C::Owned<Extended<P>>>,
}

enum OwnedStage<B, M> {
    Before(Pin<Box<B>>),
    Made(M),
    Over,
}

// Nothing in it is pinned where it is.
impl<C: OwnedChannel, F: Filter<ClientCall>, P: Payload + Clone> Unpin
    for OwnedFilteredCall<C, F, P>
{
}

impl<C, F, P> Future for OwnedFilteredCall<C, F, P>
where
    C: OwnedChannel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
    type Output = Result<Answer<C::Body>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let passed = match &mut this.stage {
                OwnedStage::Before(future) => ready!(this.waited.poll(future.as_mut(), cx)),
                OwnedStage::Made(future) => {
                    let answer = ready!(Pin::new(future).poll(cx));
                    this.stage = OwnedStage::Over;
                    this.to.filter.ended(&end_of(this.name, &answer));
                    return Poll::Ready(answer);
                }
                OwnedStage::Over => return Poll::Pending,
            };
            match this.waited.passed(passed, this.payload.take()) {
                Ok((outgoing, payload)) => {
                    let future = this.to.channel.clone().call_owned(outgoing, payload);
                    this.stage = OwnedStage::Made(future);
                }
                Err(failure) => {
                    this.stage = OwnedStage::Over;
                    return Poll::Ready(Err(failure));
                }
            }
        }
    }
}

impl<C, F, P> fmt::Debug for OwnedFilteredCall<C, F, P>
where
    C: OwnedChannel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedFilteredCall").field("method", &self.name).finish_non_exhaustive()
    }
}

// ---- with streams ----

impl<C: StreamChannel, F: Filter<ClientCall> + Unpin> StreamChannel for Filtered<C, F> {
    type Call = FilteredStream<C::Call, F>;
    type Opening<'a, P>
        = FilteredOpening<'a, C, F, P>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        let stage = Stage::Before { future: self.before(call, payload.extensions()) };
        let waited = Waited::default();
        FilteredOpening { to: self, payload: Some(payload), name: call.name, waited, stage }
    }
}

pin_project! {
    /// A call with streams that passes filters, and then is made.
    pub struct FilteredOpening<'a, C, F, P>
    where
        C: StreamChannel,
        C: 'a,
        F: Filter<ClientCall>,
        P: Payload,
        P: Clone,
        P: 'a,
    {
        to: &'a Filtered<C, F>,
        payload: Option<P>,
        name: &'static str,
        waited: Waited,
        #[pin]
        stage: Stage<F::Before, C::Opening<'a, Extended<P>>>,
    }
}

impl<'a, C, F, P> Future for FilteredOpening<'a, C, F, P>
where
    C: StreamChannel,
    F: Filter<ClientCall> + Unpin,
    P: Payload + Clone + 'a,
{
    type Output = Result<FilteredStream<C::Call, F>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let passed = match this.stage.as_mut().project() {
                StageProject::Before { future } => ready!(this.waited.poll(future, cx)),
                StageProject::Made { future } => {
                    let opened = ready!(future.poll(cx));
                    this.stage.set(Stage::Over);
                    return Poll::Ready(this.to.opened(this.name, opened));
                }
                StageProject::Over => return Poll::Pending,
            };
            match this.waited.passed(passed, this.payload.take()) {
                Ok((outgoing, payload)) => {
                    let future = this.to.channel.open(outgoing, payload);
                    this.stage.set(Stage::Made { future });
                }
                Err(failure) => {
                    this.stage.set(Stage::Over);
                    return Poll::Ready(Err(failure));
                }
            }
        }
    }
}

impl<'a, C, F, P> fmt::Debug for FilteredOpening<'a, C, F, P>
where
    C: StreamChannel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredOpening").field("method", &self.name).finish_non_exhaustive()
    }
}

impl<C: OwnedStreamChannel, F: Filter<ClientCall> + Unpin> OwnedStreamChannel for Filtered<C, F> {
    type OwnedOpening<'a, P>
        = OwnedFilteredOpening<'a, C, F, P>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn open_owned<'a, P: Payload + Clone + 'a>(
        self,
        call: Outgoing,
        payload: P,
    ) -> OwnedFilteredOpening<'a, C, F, P>
    where
        Self: 'a,
    {
        let stage = OwnedStage::Before(Box::pin(self.before(call, payload.extensions())));
        let waited = Waited::default();
        OwnedFilteredOpening { to: self, payload: Some(payload), name: call.name, waited, stage }
    }
}

/// A call with streams that passes filters, and then is made on a channel that it keeps, as [`OwnedFilteredCall`] is.
pub struct OwnedFilteredOpening<'a, C, F, P>
where
    C: OwnedStreamChannel + 'a,
    F: Filter<ClientCall>,
    P: Payload + Clone + 'a,
{
    to: Filtered<C, F>,
    payload: Option<P>,
    name: &'static str,
    waited: Waited,
    stage: OwnedStage<F::Before, C::OwnedOpening<'a, Extended<P>>>,
}

// Nothing in it is pinned where it is.
impl<C, F, P> Unpin for OwnedFilteredOpening<'_, C, F, P>
where
    C: OwnedStreamChannel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
}

impl<C, F, P> Future for OwnedFilteredOpening<'_, C, F, P>
where
    C: OwnedStreamChannel,
    F: Filter<ClientCall> + Unpin,
    P: Payload + Clone,
{
    type Output = Result<FilteredStream<C::Call, F>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.get_mut();
        loop {
            let passed = match &mut this.stage {
                OwnedStage::Before(future) => ready!(this.waited.poll(future.as_mut(), cx)),
                OwnedStage::Made(future) => {
                    let opened = ready!(Pin::new(future).poll(cx));
                    this.stage = OwnedStage::Over;
                    return Poll::Ready(this.to.opened(this.name, opened));
                }
                OwnedStage::Over => return Poll::Pending,
            };
            match this.waited.passed(passed, this.payload.take()) {
                Ok((outgoing, payload)) => {
                    let future = this.to.channel.clone().open_owned(outgoing, payload);
                    this.stage = OwnedStage::Made(future);
                }
                Err(failure) => {
                    this.stage = OwnedStage::Over;
                    return Poll::Ready(Err(failure));
                }
            }
        }
    }
}

impl<C, F, P> fmt::Debug for OwnedFilteredOpening<'_, C, F, P>
where
    C: OwnedStreamChannel,
    F: Filter<ClientCall>,
    P: Payload + Clone,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedFilteredOpening").field("method", &self.name).finish_non_exhaustive()
    }
}

/// A call with streams that has passed filters, which are told its end when its caller is.
#[derive(Clone)]
pub struct FilteredStream<S, F> {
    call: S,
    filter: F,
    name: &'static str,
}

impl<S: StreamCall, F: Filter<ClientCall> + Unpin> StreamCall for FilteredStream<S, F> {
    type Body = S::Body;

    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        self.call.poll_send(cx, encoding, payload)
    }

    fn end_items(&self) {
        self.call.end_items();
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<S::Body>> {
        let arrived = self.call.poll_arrived(cx);
        if let Poll::Ready(Arrived::End(end)) = &arrived {
            self.filter.ended(&end_of(self.name, end));
        }
        arrived
    }

    fn cancel(&self) {
        self.call.cancel();
    }
}

impl<S: BlockOn, F> BlockOn for FilteredStream<S, F> {
    fn block_on<T: Future>(&self, future: T) -> T::Output {
        self.call.block_on(future)
    }
}

impl<S, F> fmt::Debug for FilteredStream<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FilteredStream").field("method", &self.name).finish_non_exhaustive()
    }
}
