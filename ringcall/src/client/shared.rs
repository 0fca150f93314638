//! Calls from any thread and any executor.

use std::fmt;
use std::future::Future;
use std::ops::Deref;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_compression::Threshold;
use ringcall_core::{
    Answer, Attached, Cause, Channel, Clock, Codec, Config, EncodeError, Encoded, Encoding,
    Expected, Failure, Handle, Instant, Mismatch, Outcome, Outgoing, OwnedChannel, Payload,
    SharedChunk, SharedPool, TransportError,
};

use super::threads::background;
use super::{
    BlockOn, ClientThreads, ConnectionState, Credentials, Route, Security, Skew, Target, ToAddress,
    Watched,
};
use crate::ServeError;
use crate::block_on::block_on;
use crate::observe::{Audience, Begun, Observer, Observers, Ongoing};
use crate::packing::{inflate_answer, pack};
use crate::serve::{Handlers, Mount, Service};
use crate::shard::{
    Crowd, MachineClock, Notice, Remote, RemoteCall, TransportChoice, TransportInfo,
};
use crate::sync::{
    ArrayQueue, AtomicBool, AtomicU8, AtomicU32, AtomicU64, AtomicWaker, Mutex, Ordering,
};

pub(crate) type SharedAnswer = Result<Answer<SharedChunk>, Failure>;

/// How many slots a connection keeps for its next calls.
const SLOTS_KEPT: usize = 1024;
/// Bodies up to this length are encoded into pooled blocks.
const BODY_BLOCK_BYTES: usize = 16 * 1024;
/// The largest message that any server can accept.
const MESSAGE_BYTES_MAX: usize = 64 << 20;

/// Calls a server from any thread and any executor, or none.
///
/// Clones are cheap and use the same connection, which ends with the last of them. One that is lost, or whose
/// server asks to leave, is replaced: see [`ConnectionState`]. Calls that certainly did not run because of
/// that are made again on the next one until their deadline; others never are. The bytes are moved
/// by a shard in the background, one for all clients of a process, that is started when it is first
/// needed.
#[derive(Clone)]
pub struct Client(Arc<Shared>);

struct Shared {
    line: Line,
    entry: Entry,
    watched: Watched,
    /// What it is on, for as long as it is there. Let go of behind its place there.
    _threads: Option<ClientThreads>,
}

/// A client's place on its shard, which is let go of with this.
pub(crate) struct Entry {
    remote: Arc<Remote>,
    index: u32,
}

impl Entry {
    pub(crate) fn new(remote: &Arc<Remote>, index: u32) -> Entry {
        Entry { remote: Arc::clone(remote), index }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.remote.notify(Notice::Release(self.index));
    }
}

impl Client {
    /// Connects to a server. Await it, or `.wait()` for it.
    ///
    /// A host name is looked up by the system on another thread, now and whenever the connection is lost, and its addresses are
    /// tried one after another: see [`Target`]. To use all of them at a time is for a balanced channel (`ringcall::cluster`,
    /// `DnsSource`). All clients of a process that make the same choice of [engine](Connect::transport) share one shard, which
    /// is one thread; for many cores' worth of calls there are [threads of one's own](Connect::threads), and shards of one's own
    /// ([`Shard`](crate::Shard), [`BlockingClient`](crate::BlockingClient), hosted ones).
    pub fn connect(address: impl ToAddress) -> Connect<Client> {
        Connect::new(address, |client| client)
    }

    /// Which engine moves the bytes, and why this one.
    #[must_use]
    pub fn transport(&self) -> &TransportInfo {
        self.0.line.remote.transport()
    }

    pub(crate) fn line(&self) -> &Line {
        &self.0.line
    }

    /// How its connection is doing.
    #[must_use]
    pub fn state(&self) -> ConnectionState {
        self.0.watched.state()
    }

    /// Whom the last attempt to connect met instead of the instance that was [expected](Connect::expecting): there
    /// if the state is [`Broken`](ConnectionState::Broken) for
    /// [`CloseReason::WrongInstance`](crate::CloseReason::WrongInstance).
    #[must_use]
    pub fn mismatch(&self) -> Option<Mismatch> {
        self.0.watched.mismatch()
    }

    /// Waits until the state is another than `from`, and gives it. One that never changes again is given at
    /// once.
    pub fn changed(
        &self,
        from: ConnectionState,
    ) -> impl Future<Output = ConnectionState> + Send + use<> {
        self.0.watched.changed(from)
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn last_failure(&self) -> Option<ringcall_core::CloseReason> {
        self.0.watched.last_failure()
    }

    /// Waits until calls can be made, however long that takes.
    ///
    /// # Errors
    /// When the client's shard has ended.
    pub fn ready(&self) -> impl Future<Output = Result<(), Failure>> + Send + use<> {
        if self.state() == ConnectionState::Idle {
            self.0.line.remote.notify(Notice::WakeUp(self.0.entry.index));
        }
        self.0.watched.ready()
    }

    /// Makes a call whose end is told to a callback, on the shard's thread.
    pub(crate) fn call_with<P: Payload>(
        &self,
        call: Outgoing,
        payload: &P,
        callback: impl FnOnce(SharedAnswer) + Send + 'static,
    ) {
        // The connection is there until the callback was told, whoever else lets go of it.
        let client = self.clone();
        self.0.line.call_with(call, payload, true, move |answer| {
            callback(answer);
            drop(client);
        });
    }
}

/// The way to a connection of a shard from other threads.
pub(crate) struct Line {
    pub(crate) remote: Arc<Remote>,
    to: Destination,
    outbox: Outbox,
    /// Who is told of its calls.
    audience: Option<Arc<Audience>>,
    /// What is known of its connection; of one that calls came by only what its other side reads.
    watched: Watched,
    /// How long a body may be that this side reads.
    message_bytes_max: usize,
    /// What is known of the other side, so that a body need not be encoded twice.
    skew: Option<Arc<Skew>>,
}

/// Which connection of its shard a call is for.
#[derive(Clone, Copy)]
pub(crate) enum Destination {
    /// That of a client, by its number.
    Client(u32),
    /// One that calls came by.
    Peer(Handle),
}

/// What calls from other threads are made of.
#[derive(Clone)]
pub(crate) struct Outbox {
    bodies: SharedPool,
    slots: Arc<ArrayQueue<Arc<RemoteSlot>>>,
}

impl Default for Outbox {
    fn default() -> Outbox {
        Outbox {
            bodies: SharedPool::keeping(SLOTS_KEPT, BODY_BLOCK_BYTES),
            slots: Arc::new(ArrayQueue::new(SLOTS_KEPT)),
        }
    }
}

impl Outbox {
    /// The body of a call for another thread, or for later.
    /// How it is compressed is a wish before, and what was done afterwards; `accepted` is what the other
    /// side reads. Says how long the body was before.
    pub(crate) fn encode_call<P: Payload>(
        &self,
        call: &mut Outgoing,
        accepted: impl FnOnce() -> u8,
        payload: &P,
    ) -> Result<(Encoded, usize), Failure> {
        let encoding = Encoding {
            codec: call.codec,
            compression: call.compression,
            signature: call.in_signature,
        };
        let encoded = self.encode_packed(encoding, accepted, payload);
        let (encoded, bytes, done) = encoded.map_err(|error| Failure::not_sent(error.into()))?;
        call.compression = done.compression;
        Ok((encoded, bytes))
    }

    /// The body, how long it was before it was compressed, and how it is written.
    pub(crate) fn encode_packed<P: Payload>(
        &self,
        mut encoding: Encoding,
        accepted: impl FnOnce() -> u8,
        payload: &P,
    ) -> Result<(Encoded, usize, Encoding), EncodeError> {
        let (mut encoded, bytes) = self.encode(encoding.codec, encoding.signature, payload)?;
        if encoding.compression != 0 {
            let threshold = Threshold::default();
            (encoded, encoding.compression) =
                pack(encoded, encoding.compression, accepted(), &threshold);
        }
        Ok((encoded, bytes, encoding))
    }

    /// The body, and how long it is.
    pub(crate) fn encode<P: Payload>(
        &self,
        codec: Codec,
        signature: u64,
        payload: &P,
    ) -> Result<(Encoded, usize), EncodeError> {
        let mut writer = self.bodies.writer(MESSAGE_BYTES_MAX).with_parts();
        payload.encode(codec, signature, &mut writer)?;
        let bytes = writer.message_len();
        let mut encoded = Encoded::take(&self.bodies, writer, codec);
        encoded.transcode = payload.transcode();
        encoded.landing = payload.landing();
        encoded.extensions = payload.extensions().into();
        Ok((encoded, bytes))
    }
}

impl Line {
    pub(crate) fn new(
        remote: Arc<Remote>,
        to: Destination,
        outbox: Outbox,
        audience: Option<Arc<Audience>>,
        watched: Watched,
        skew: Option<Arc<Skew>>,
    ) -> Line {
        let is_opened = matches!(to, Destination::Client(_));
        let message_bytes_max = remote.message_bytes_max[usize::from(is_opened)];
        Line { remote, to, outbox, audience, watched, message_bytes_max, skew }
    }

    /// As far as is known here; otherwise the shard sees to it.
    #[inline]
    pub(crate) fn adapt(&self, call: &mut Outgoing) {
        if let Some(skew) = &self.skew {
            skew.adapt(call);
        }
    }

    pub(crate) fn watched(&self) -> &Watched {
        &self.watched
    }

    /// How bodies may be compressed that the other side reads.
    pub(crate) fn compressions(&self) -> u8 {
        self.watched.compressions()
    }

    /// How long a body may be that this side reads.
    pub(crate) fn message_bytes_max(&self) -> usize {
        self.message_bytes_max
    }

    fn slot(&self) -> Arc<RemoteSlot> {
        self.outbox.slots.pop().unwrap_or_default()
    }

    pub(crate) fn to(&self) -> Destination {
        self.to
    }

    pub(crate) fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    pub(crate) fn encode<P: Payload>(
        &self,
        call: &mut Outgoing,
        payload: &P,
    ) -> Result<(Encoded, usize), Failure> {
        self.outbox.encode_call(call, || self.compressions(), payload)
    }

    pub(crate) fn call<P: Payload>(
        &self,
        call: Outgoing,
        payload: P,
        waits: bool,
    ) -> RemoteFuture<'_, P> {
        RemoteFuture {
            line: Held::Line(self),
            waits,
            call,
            payload,
            stage: Stage::New,
            begun: None,
        }
    }

    /// A call that fails without having been made.
    pub(crate) fn fail<P: Payload>(
        &self,
        call: Outgoing,
        payload: P,
        failure: Failure,
    ) -> RemoteFuture<'_, P> {
        let stage = Stage::Failed(failure);
        RemoteFuture { line: Held::Line(self), waits: false, call, payload, stage, begun: None }
    }

    pub(crate) fn call_with<P: Payload>(
        &self,
        mut call: Outgoing,
        payload: &P,
        waits: bool,
        callback: impl FnOnce(SharedAnswer) + Send + 'static,
    ) {
        self.adapt(&mut call);
        let limit = self.message_bytes_max();
        let Some(audience) = &self.audience else {
            let payload = self.encode(&mut call, payload).map(|(payload, _)| payload);
            let callback = move |answer| callback(inflate_answer(answer, limit));
            return self.call_encoded(call, payload, waits, Box::new(callback));
        };
        let mut ongoing = Ongoing::begin(audience, &call, MachineClock.now(), payload);
        let mut payload = self.encode(&mut call, payload);
        if let Ok((payload, _)) = &mut payload {
            ongoing.extend_encoded(payload);
        }
        ongoing.sends(payload.as_ref().map_or(0, |(_, bytes)| *bytes));
        let payload = payload.map(|(payload, _)| payload);
        let callback = move |answer| {
            let answer = inflate_answer(answer, limit);
            ongoing.end(MachineClock.now(), &answer);
            callback(answer);
        };
        self.call_encoded(call, payload, waits, Box::new(callback));
    }

    fn call_encoded(
        &self,
        call: Outgoing,
        payload: Result<Encoded, Failure>,
        waits: bool,
        callback: Box<dyn FnOnce(SharedAnswer) + Send>,
    ) {
        let payload = match payload {
            Ok(payload) => payload,
            Err(failure) => return callback(Err(failure)),
        };
        let end = RemoteEnd::Callback(callback);
        let call = RemoteCall::new(self.to, call, waits, payload, end);
        // A caller that cannot wait is refused when the mailbox is full.
        if let Err(call) = self.remote.call(call, Waker::noop()) {
            let is_gone = self.remote.is_gone();
            let cause = if is_gone { Cause::Shutdown } else { Cause::QueueFull };
            call.end.tell(Err(Failure::not_sent(cause)));
        }
    }
}

impl RemoteCall {
    /// Its time runs from now on, also while it waits for its shard.
    fn new(
        to: Destination,
        outgoing: Outgoing,
        waits: bool,
        payload: Encoded,
        end: RemoteEnd,
    ) -> RemoteCall {
        let deadline: Instant = MachineClock.now() + outgoing.timeout;
        RemoteCall { to, outgoing, deadline, waits, payload, end }
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("state", &self.state()).finish_non_exhaustive()
    }
}

impl BlockOn for Client {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl Channel for Client {
    type Body = SharedChunk;
    type Pending<'a, P>
        = RemoteFuture<'a, P>
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> RemoteFuture<'a, P> {
        self.0.line.call(call, payload, true)
    }
}

impl OwnedChannel for Client {
    type Owned<P>
        = RemoteFuture<'static, P>
    where
        P: Payload + Clone;

    fn call_owned<P: Payload + Clone>(
        self,
        call: Outgoing,
        payload: P,
    ) -> RemoteFuture<'static, P> {
        let (line, stage) = (Held::Client(self), Stage::New);
        RemoteFuture { line, waits: true, call, payload, stage, begun: None }
    }
}

/// The way of a call to its shard, borrowed or kept.
enum Held<'a> {
    Line(&'a Line),
    Client(Client),
}

impl Deref for Held<'_> {
    type Target = Line;

    fn deref(&self) -> &Line {
        match self {
            Held::Line(line) => line,
            Held::Client(client) => client.line(),
        }
    }
}

/// A call made from another thread than its shard's.
pub struct RemoteFuture<'a, P> {
    line: Held<'a>,
    /// Whether it waits for room on its connection.
    waits: bool,
    call: Outgoing,
    payload: P,
    stage: Stage,
    /// If somebody observes.
    begun: Option<Begun>,
}

#[expect(clippy::large_enum_variant, reason = "in place, for as long as a mailbox is full")]
enum Stage {
    New,
    /// The mailbox was full.
    Crowded(RemoteCall, Arc<RemoteSlot>),
    Left(Arc<RemoteSlot>),
    Failed(Failure),
    Ended,
}

impl<P> Unpin for RemoteFuture<'_, P> {}

impl<P: Payload> RemoteFuture<'_, P> {
    fn leave(
        &mut self,
        call: RemoteCall,
        slot: Arc<RemoteSlot>,
        waker: &Waker,
    ) -> Poll<SharedAnswer> {
        slot.waker.register(waker);
        slot.crowd.store(Crowd::here().0, Ordering::Relaxed);
        self.stage = match self.line.remote.call(call, waker) {
            Ok(()) => Stage::Left(slot),
            Err(call) if self.line.remote.is_gone() => {
                call.end.shut_down();
                self.stage = Stage::Left(slot);
                return self.take(waker);
            }
            Err(call) => Stage::Crowded(call, slot),
        };
        Poll::Pending
    }

    fn begin(&mut self, waker: &Waker) -> Poll<SharedAnswer> {
        let mut call = self.call;
        self.line.adapt(&mut call);
        let (mut payload, bytes) = self.line.encode(&mut call, &self.payload)?;
        if let (Some(begun), Some(audience)) = (&mut self.begun, &self.line.audience) {
            begun.request_bytes = bytes;
            audience.extend_encoded(begun, &mut payload);
        }
        let slot = self.line.slot();
        let end = RemoteEnd::Future(Arc::clone(&slot));
        let call = RemoteCall::new(self.line.to, call, self.waits, payload, end);
        self.leave(call, slot, waker)
    }

    fn take(&mut self, waker: &Waker) -> Poll<SharedAnswer> {
        let Stage::Left(slot) = &self.stage else { return Poll::Pending };
        let Some(answer) = slot.result.pop() else { return Poll::Pending };
        let mut left = Duration::ZERO;
        if answer.is_err() {
            let until = slot.repeat_until.swap(0, Ordering::Relaxed);
            left = Instant::from_nanos(until).since(MachineClock.now());
        }
        if let Stage::Left(slot) = std::mem::replace(&mut self.stage, Stage::Ended) {
            self.line.remote.rouse(slot.crowd());
            // A task of the shard itself would keep the shard's mailbox, which keeps the slot.
            drop(slot.waker.take());
            // The shard may still hold it for a moment, and then wakes its next user once for nothing.
            let _full = self.line.outbox.slots.push(slot);
        }
        if !left.is_zero() {
            // It certainly did not run, and there may be another connection.
            self.call.timeout = left;
            if self.line.skew.is_none() {
                // Perhaps its layout was refused: only the shard knows, and what is compressed it cannot say in another.
                self.call.compression = 0;
            }
            if let (Some(begun), Some(audience)) = (&self.begun, &self.line.audience) {
                audience.repeat(&self.call, begun.number(), MachineClock.now());
            }
            return self.begin(waker);
        }
        Poll::Ready(answer)
    }
}

impl<P: Payload> Future for RemoteFuture<'_, P> {
    type Output = SharedAnswer;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<SharedAnswer> {
        let this = self.get_mut();
        if let Some(audience) = &this.line.audience
            && matches!(this.stage, Stage::New | Stage::Failed(_))
        {
            this.begun = Some(audience.begin(&this.call, MachineClock.now(), &this.payload));
        }
        let Poll::Ready(answer) = this.go_on(cx) else { return Poll::Pending };
        let is_packed = matches!(&answer, Ok(whole) if whole.header.compression != 0);
        let answer = match is_packed {
            true => inflate_answer(answer, this.line.message_bytes_max()),
            false => answer,
        };
        if this.begun.is_some() {
            this.watch_end(&answer);
        }
        Poll::Ready(answer)
    }
}

impl<P> RemoteFuture<'_, P> {
    /// Tells observers how it ended, if it has begun for them.
    #[cold]
    fn watch_end(&mut self, answer: &SharedAnswer) {
        if let Some(begun) = self.begun.take()
            && let Some(audience) = &self.line.audience
        {
            audience.end(&self.call, begun, MachineClock.now(), answer);
        }
    }
}

impl<P: Payload> RemoteFuture<'_, P> {
    fn go_on(&mut self, cx: &mut Context<'_>) -> Poll<SharedAnswer> {
        let this = self;
        match std::mem::replace(&mut this.stage, Stage::Ended) {
            Stage::New => this.begin(cx.waker()),
            Stage::Crowded(call, slot) => this.leave(call, slot, cx.waker()),
            Stage::Left(slot) => {
                slot.waker.register(cx.waker());
                this.stage = Stage::Left(slot);
                this.take(cx.waker())
            }
            Stage::Failed(failure) => Poll::Ready(Err(failure)),
            Stage::Ended => Poll::Ready(Err(Failure::unknown(Cause::Cancelled))),
        }
    }
}

impl<P> Drop for RemoteFuture<'_, P> {
    fn drop(&mut self) {
        if self.begun.is_some() {
            self.watch_end(&Err(Failure::unknown(Cause::Cancelled)));
        }
        let Stage::Left(slot) = std::mem::replace(&mut self.stage, Stage::Ended) else { return };
        if slot.result.is_empty() {
            slot.is_abandoned.store(true, Ordering::Release);
            self.line.remote.notify(Notice::Cancel(slot));
        } else {
            // It may be the one that was woken for the others as well.
            self.line.remote.rouse(slot.crowd());
        }
    }
}

impl<P> fmt::Debug for RemoteFuture<'_, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RemoteFuture").finish_non_exhaustive()
    }
}

/// Who is told the end of a call.
pub(crate) enum RemoteEnd {
    Future(Arc<RemoteSlot>),
    Callback(Box<dyn FnOnce(SharedAnswer) + Send>),
}

impl RemoteEnd {
    /// The call has ended; on the shard. Returns who is to be woken for it.
    #[must_use]
    pub(crate) fn complete(self, outcome: Outcome) -> Option<(Crowd, Waker)> {
        let answer = match outcome {
            Outcome::Sent => Ok(Answer {
                header: ringcall_core::frame::ReplyHeader::new(ringcall_core::Status::OK),
                body: SharedChunk::empty(),
                attached: Attached::Nothing,
                extensions: SharedChunk::empty(),
            }),
            // Shared once a reply, here where it leaves its thread.
            outcome => outcome.into_answer().map(|reply| Answer::from(reply).share()),
        };
        match self {
            RemoteEnd::Future(slot) => {
                let waker = slot.leave(answer)?;
                // Whoever has gone away takes nobody along.
                let is_gone = slot.is_abandoned.load(Ordering::Acquire);
                (!is_gone).then(|| (slot.crowd(), waker))
            }
            RemoteEnd::Callback(callback) => {
                callback(answer);
                None
            }
        }
    }

    /// The shard is gone.
    pub(crate) fn shut_down(self) {
        self.tell(Err(Failure::not_sent(Cause::Shutdown)));
    }

    /// Whether nobody waits any more.
    pub(crate) fn is_abandoned(&self) -> bool {
        match self {
            RemoteEnd::Future(slot) => slot.is_abandoned.load(Ordering::Acquire),
            RemoteEnd::Callback(_) => false,
        }
    }

    /// The call's place on its shard, for whoever gives it up.
    pub(crate) fn set_index(&self, index: u32) {
        if let RemoteEnd::Future(slot) = self {
            slot.index.store(index, Ordering::Relaxed);
        }
    }

    /// Whether its caller has the argument, to make the call again.
    pub(crate) fn can_repeat(&self) -> bool {
        matches!(self, RemoteEnd::Future(_))
    }

    /// The failure that follows is only its connection's: the call may be made again.
    pub(crate) fn repeat_until(&self, deadline: Instant) {
        if let RemoteEnd::Future(slot) = self {
            slot.repeat_until.store(deadline.as_nanos(), Ordering::Relaxed);
        }
    }

    pub(crate) fn is_of(&self, slot: &Arc<RemoteSlot>) -> bool {
        matches!(self, RemoteEnd::Future(other) if Arc::ptr_eq(other, slot))
    }

    fn tell(self, answer: SharedAnswer) {
        match self {
            RemoteEnd::Future(slot) => {
                if let Some(waker) = slot.leave(answer) {
                    waker.wake();
                }
            }
            RemoteEnd::Callback(callback) => callback(answer),
        }
    }
}

/// Where the end of a call waits for its future. Used again for another call when both sides are done.
pub(crate) struct RemoteSlot {
    /// Room for one, put by one thread and taken by another.
    result: ArrayQueue<SharedAnswer>,
    waker: AtomicWaker,
    /// Of the thread that called.
    crowd: AtomicU8,
    /// Only the shard uses it.
    index: AtomicU32,
    is_abandoned: AtomicBool,
    /// Until when the call that failed may be made again, in nanoseconds; 0 if it may not.
    repeat_until: AtomicU64,
}

impl Default for RemoteSlot {
    fn default() -> RemoteSlot {
        RemoteSlot {
            result: ArrayQueue::new(1),
            waker: AtomicWaker::new(),
            crowd: AtomicU8::new(0),
            index: AtomicU32::new(0),
            is_abandoned: AtomicBool::new(false),
            repeat_until: AtomicU64::new(0),
        }
    }
}

impl RemoteSlot {
    pub(crate) fn index(&self) -> u32 {
        self.index.load(Ordering::Relaxed)
    }

    fn crowd(&self) -> Crowd {
        Crowd(self.crowd.load(Ordering::Relaxed))
    }

    /// Leaves the answer there. Returns who waits for it.
    fn leave(&self, answer: SharedAnswer) -> Option<Waker> {
        let left = self.result.push(answer);
        debug_assert!(left.is_ok(), "a call ends once");
        self.waker.take()
    }
}

/// Connects in the background. Await it, or [`wait`](Connect::wait) for it.
#[must_use = "nothing happens before it is awaited or waited for"]
pub struct Connect<T> {
    stage: ConnectStage,
    choice: TransportChoice,
    threads: Option<ClientThreads>,
    services: Services,
    security: Security,
    is_lazy: bool,
    audience: Option<Arc<Audience>>,
    /// How long a reply may be, if the client has settings of its own.
    message_bytes_max: Option<usize>,
    make: fn(Client) -> T,
}

enum ConnectStage {
    New(Result<Target, String>, String),
    Left(Arc<ConnectSlot>),
}

impl<T> Connect<T> {
    #[doc(hidden)]
    pub fn new(address: impl ToAddress, make: fn(Client) -> T) -> Connect<T> {
        let security = Security::of_address(&address.to_text());
        let stage = ConnectStage::New(address.target(), address.to_text());
        let services = Services::default();
        let (choice, is_lazy) = (TransportChoice::Auto, false);
        Connect {
            stage,
            choice,
            threads: None,
            services,
            security,
            is_lazy,
            audience: None,
            message_bytes_max: None,
            make,
        }
    }

    /// Offers a service to the server, which calls it through its [`Peer`](crate::Peer), on this
    /// connection alone. Handlers run on the client's shard, which all clients of the process share as a rule, so what blocks
    /// or computes long must go to the pool: `#[method(offload)]`, or [`handlers`](Connect::handlers).
    pub fn service<S: Service + Send + Sync + 'static>(mut self, service: S) -> Connect<T> {
        let add = |mount: &mut Mount, handlers| mount.add_with(service, handlers);
        self.services.services.push(Box::new(add));
        self
    }

    /// Where the handlers of these services run.
    pub fn handlers(mut self, handlers: Handlers) -> Connect<T> {
        self.services.handlers = handlers;
        self
    }

    /// Which engine moves the bytes. Clients that make the same choice share a shard, unless they have [threads](Connect::threads) of
    /// their own, which say that themselves.
    pub fn transport(mut self, choice: TransportChoice) -> Connect<T> {
        self.choice = choice;
        self
    }

    /// The client is on one of these threads, in place of the one for all clients of the process.
    pub fn threads(mut self, threads: &ClientThreads) -> Connect<T> {
        self.threads = Some(threads.clone());
        self
    }

    /// Who is told of the calls of this client and of its connections, beside those that were named before:
    /// see [`observe`](crate::observe). Calls are told of on the threads that make them.
    pub fn observer(mut self, observer: Arc<dyn Observer>) -> Connect<T> {
        self.services.observers.add(observer);
        self
    }

    /// Speaks TLS. The server must have a certificate for the host that is connected to, or for
    /// [`TlsClient::server_name`](crate::TlsClient::server_name).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: crate::TlsClient) -> Connect<T> {
        self.security.tls = Some(tls);
        self
    }

    /// Shows the server who this is. Without TLS everybody on the way reads it.
    pub fn credentials(mut self, credentials: Credentials) -> Connect<T> {
        self.security.credentials = Some(credentials);
        self
    }

    /// Connects to this instance only: one that says it is another is left in the handshake, before any call is
    /// sent, with [`CloseReason::WrongInstance`](crate::CloseReason::WrongInstance), and tried again later. It is no
    /// proof of who the server is; its certificate is, with TLS.
    pub fn expecting(mut self, expected: Expected) -> Connect<T> {
        self.security.expected = Some(expected);
        self
    }

    /// The settings of this client's connections, instead of the default: limits, windows, keepalive. Those of the
    /// protocol that the shard knows better, such as what it inflates, stay as they are. A setting that makes no
    /// sense lets connecting fail, and the log says which.
    pub fn config(mut self, config: Config) -> Connect<T> {
        self.services.config = Some(Box::new(config));
        self
    }

    /// Gives the client at once: it connects with its first call, and again if that fails. Whether a call
    /// waits for that is up to [`wait_for_ready`](crate::CallOptions::wait_for_ready).
    pub fn lazy(mut self) -> Connect<T> {
        self.is_lazy = true;
        self
    }

    /// Waits until the connection is established.
    ///
    /// # Errors
    /// When nobody answers there, or not in ringcall's protocol.
    pub fn wait(self) -> Result<T, Failure> {
        block_on(self)
    }
}

type AddService = Box<dyn FnOnce(&mut Mount, Handlers) -> Result<(), ServeError> + Send>;

/// What a connection offers to its server, before it is on its shard.
#[derive(Default)]
pub(crate) struct Services {
    services: Vec<AddService>,
    handlers: Handlers,
    /// Who is told of the connection.
    pub(crate) observers: Observers,
    /// Its settings, if they are its own.
    pub(crate) config: Option<Box<Config>>,
}

impl Services {
    pub(crate) fn is_empty(&self) -> bool {
        self.services.is_empty()
    }

    pub(crate) fn add_to(self, mount: &mut Mount) -> Result<(), ServeError> {
        self.services.into_iter().try_for_each(|add| add(mount, self.handlers))
    }
}

impl<T> fmt::Debug for Connect<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connect").finish_non_exhaustive()
    }
}

impl<T> Future for Connect<T> {
    type Output = Result<T, Failure>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        if let ConnectStage::New(target, text) = &self.stage {
            let failed = |error| {
                let reason = ringcall_core::CloseReason::Transport(error);
                Failure::not_sent(Cause::Closed(reason))
            };
            let target = match target {
                Ok(target) => target.clone(),
                Err(reason) => {
                    log::warn!("cannot use the address {text:?}: {reason}");
                    return Poll::Ready(Err(failed(TransportError::BadAddress)));
                }
            };
            let slot = Arc::new(ConnectSlot { is_lazy: self.is_lazy, ..ConnectSlot::default() });
            slot.waker.register(cx.waker());
            let threads = self.threads.as_ref();
            match threads.map_or_else(|| background(self.choice), |them| Ok(them.next())) {
                Ok(remote) => {
                    let services = std::mem::take(&mut self.services);
                    self.message_bytes_max =
                        services.config.as_ref().map(|config| config.largest_message());
                    let route = Route::new(target);
                    let observers = match services.observers.is_empty() {
                        true => &remote.observers,
                        false => &services.observers,
                    };
                    self.audience = Audience::of(observers, route.peer().clone());
                    let security = self.security.clone();
                    remote.notify(Notice::Connect(route, security, services, Arc::clone(&slot)));
                }
                Err(error) => return Poll::Ready(Err(failed(error))),
            }
            self.stage = ConnectStage::Left(slot);
            return Poll::Pending;
        }
        let ConnectStage::Left(slot) = &self.stage else { return Poll::Pending };
        slot.waker.register(cx.waker());
        let Some(connected) = slot.result.lock().take() else { return Poll::Pending };
        let (make, audience) = (self.make, self.audience.take());
        Poll::Ready(match connected {
            Err(failure) => Err(failure),
            Ok((entry, watched, skew)) => {
                let (to, outbox) = (Destination::Client(entry.index), Outbox::default());
                let (remote, seen) = (Arc::clone(&entry.remote), watched.clone());
                let mut line = Line::new(remote, to, outbox, audience, seen, Some(skew));
                if let Some(own) = self.message_bytes_max {
                    line.message_bytes_max = own;
                }
                let _threads = self.threads.take();
                Ok(make(Client(Arc::new(Shared { line, entry, watched, _threads }))))
            }
        })
    }
}

type Connected = Result<(Entry, Watched, Arc<Skew>), Failure>;

/// Where a connection that is being made waits for whoever wants it. If nobody does any more, it ends with this.
#[derive(Default)]
pub(crate) struct ConnectSlot {
    result: Mutex<Option<Connected>>,
    waker: AtomicWaker,
    is_lazy: bool,
}

impl ConnectSlot {
    pub(crate) fn is_lazy(&self) -> bool {
        self.is_lazy
    }

    pub(crate) fn complete(&self, connected: Connected) {
        *self.result.lock() = Some(connected);
        self.waker.wake();
    }

    pub(crate) fn shut_down(&self) {
        self.complete(Err(Failure::not_sent(Cause::Shutdown)));
    }
}

/// A connection that is being made: dropped before it is there, because its shard ends, it fails.
pub(crate) struct Connecting(Option<Arc<ConnectSlot>>);

impl Connecting {
    pub(crate) fn new(slot: Arc<ConnectSlot>) -> Connecting {
        Connecting(Some(slot))
    }

    pub(crate) fn complete(mut self, connected: Connected) {
        if let Some(slot) = self.0.take() {
            slot.complete(connected);
        }
    }
}

impl Drop for Connecting {
    fn drop(&mut self) {
        if let Some(slot) = self.0.take() {
            slot.shut_down();
        }
    }
}
