//! What a caller gets when there is no answer: see [`WithFallbacks`].

use std::any::Any;
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use arc_swap::ArcSwap;
use bytes::Bytes;
use parking_lot::Mutex;
use pin_project_lite::pin_project;
use ringcall_core::frame::{ExtensionWriter, Extensions, ReplyHeader, request_flags, tag};
use ringcall_core::{
    Answer, Attached, Cause, Channel, Clock, Codec, Failure, Instant, Outgoing, Payload,
    SharedChunk, SharedPool, Status, StreamChannel,
};
use sha2::{Digest as _, Sha256};

use super::{BlockOn, IntoOwned};
use crate::serve::{MethodTable, ServiceTable};
use crate::shard::MachineClock;

/// The key of metadata that says of an answer that it is a fallback: `method`, `kept` or `value`.
pub const FALLBACK_KEY: &str = "ringcall-fallback";

/// What callers of a service get when there is no answer.
///
/// A method may have several of these; the first that has something is taken, in this order: another
/// [method](Fallbacks::method), the [last good answer](Fallbacks::last_good), a [value](Fallbacks::value).
///
/// ```
/// # #[ringcall::service(name = "demo.Quotes")]
/// # trait Quotes { async fn last(&self, symbol: String) -> u64; async fn guess(&self, symbol: String) -> u64; }
/// use ringcall::Fallbacks;
///
/// let fallbacks = Fallbacks::of(QuotesClient::service_table())
///     .method("last", "guess")?
///     .last_good("last")?
///     .value("guess", &0u64)?;
/// # Ok::<(), ringcall::BadFallback>(())
/// ```
#[derive(Clone, Debug)]
pub struct Fallbacks {
    service: &'static ServiceTable,
    plans: HashMap<u64, Arc<Plan>>,
    entries_max: usize,
    bytes_max: usize,
}

/// The fallbacks of one method.
#[derive(Clone, Debug, Default)]
struct Plan {
    is_kept: bool,
    other: Option<&'static MethodTable>,
    value: Option<(Codec, Bytes)>,
}

/// A fallback that cannot be one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum BadFallback {
    /// The service has no such method.
    UnknownMethod(String),
    /// The method has no answer that could be replaced: it is one-way, or has a stream.
    NoAnswer(String),
    /// The value, or the other method, is of other types than the method.
    Types(String),
}

impl fmt::Display for BadFallback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BadFallback::UnknownMethod(name) => write!(f, "the service has no method {name}"),
            BadFallback::NoAnswer(name) => {
                write!(f, "{name} is one-way or has a stream, and can have no fallback")
            }
            BadFallback::Types(name) => write!(f, "the fallback of {name} is of other types"),
        }
    }
}

impl std::error::Error for BadFallback {}

impl Fallbacks {
    /// None yet.
    #[must_use]
    pub fn of(service: &'static ServiceTable) -> Fallbacks {
        let (entries_max, bytes_max) = (1000, 4 << 20);
        Fallbacks { service, plans: HashMap::new(), entries_max, bytes_max }
    }

    /// Instead of the answer of `name` callers get this value.
    ///
    /// # Errors
    /// When there is no such method, or the value is not what it answers with.
    pub fn value<R: Any>(mut self, name: &str, value: &R) -> Result<Fallbacks, BadFallback> {
        let method = self.find(name)?;
        let pool = SharedPool::new(BLOCK_BYTES);
        let mut writer = pool.writer(BYTES_MAX);
        let types = |_| BadFallback::Types(name.to_owned());
        (method.reply().encode)(value, &mut writer).map_err(types)?;
        let (body, attached) = pool.finish(writer);
        if attached.is_some() {
            return Err(BadFallback::Types(name.to_owned()));
        }
        let value = (method.reply().codec, Bytes::copy_from_slice(&body));
        self.change(method, |plan| plan.value = Some(value));
        Ok(self)
    }

    /// Instead of the answer of `name` callers get the last good one to the same argument with the same metadata, for
    /// the same group: the answer to another question is none. It may be of any age. Such calls are encoded twice, so
    /// that they can be compared.
    ///
    /// # Errors
    /// When there is no such method.
    pub fn last_good(mut self, name: &str) -> Result<Fallbacks, BadFallback> {
        let method = self.find(name)?;
        self.change(method, |plan| plan.is_kept = true);
        Ok(self)
    }

    /// Instead of `name` the method `other` of the service is called, with the same argument and in the time that is
    /// left. Its own fallbacks do not count then.
    ///
    /// # Errors
    /// When there is no such method, or it has other types.
    pub fn method(mut self, name: &str, other: &str) -> Result<Fallbacks, BadFallback> {
        let (method, other) = (self.find(name)?, self.find(other)?);
        let signatures =
            |of: &MethodTable| (of.signatures().in_signature, of.signatures().out_signature);
        let codecs = |of: &MethodTable| (of.argument().codec, of.reply().codec);
        if (signatures(method), codecs(method)) != (signatures(other), codecs(other)) {
            return Err(BadFallback::Types(name.to_owned()));
        }
        self.change(method, |plan| plan.other = Some(other));
        Ok(self)
    }

    /// How many good answers are kept at most, 1000 by default, and how many bytes of them, 4 MiB. The oldest are
    /// forgotten.
    #[must_use]
    pub fn kept_max(mut self, answers: usize, bytes: usize) -> Fallbacks {
        (self.entries_max, self.bytes_max) = (answers, bytes);
        self
    }

    fn find(&self, name: &str) -> Result<&'static MethodTable, BadFallback> {
        let method = self.service.methods().iter().find(|method| method.name() == name);
        let method = method.ok_or_else(|| BadFallback::UnknownMethod(name.to_owned()))?;
        match method.is_one_way() || method.stream_flags() != 0 {
            true => Err(BadFallback::NoAnswer(name.to_owned())),
            false => Ok(method),
        }
    }

    fn change(&mut self, method: &MethodTable, change: impl FnOnce(&mut Plan)) {
        change(Arc::make_mut(self.plans.entry(method.id()).or_default()));
    }

    fn keeps_answers(&self) -> bool {
        self.plans.values().any(|plan| plan.is_kept)
    }
}

const BLOCK_BYTES: usize = 16 * 1024;
const BYTES_MAX: usize = 64 << 20;

/// A channel whose callers get something else when there is no answer. Put it around a balanced channel, so that it
/// comes after all attempts; and let a rule of that one deny a method to switch it off.
///
/// A fallback takes the place of a failure that another call might not have had: nobody answers, time is over,
/// a breaker is open, the server is overloaded or refuses for other reasons. Faults of the caller stay what they
/// are: what could not be encoded or is too large, is not allowed, or makes no sense; and so do errors of
/// handlers, which are answers. Answers that are fallbacks say so, in their metadata: [`FALLBACK_KEY`].
///
/// That a fallback came says nothing about whether the call has run.
///
/// Clones share what is kept.
#[derive(Clone)]
pub struct WithFallbacks<C> {
    channel: C,
    shared: Arc<Shared>,
}

struct Shared {
    /// Read by every call, without a lock.
    fallbacks: ArcSwap<Fallbacks>,
    bodies: SharedPool,
    kept: Mutex<Kept>,
    counts: [AtomicU64; 3],
}

/// How often there was a fallback.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct FallbackCounts {
    /// By another method, whether that answered or not.
    pub methods: u64,
    /// By the last good answer.
    pub kept: u64,
    /// By a value.
    pub values: u64,
}

#[derive(Clone, Copy)]
enum Kind {
    Method,
    Kept,
    Value,
}

impl<C> WithFallbacks<C> {
    /// Around this channel.
    pub fn new(channel: C, fallbacks: Fallbacks) -> WithFallbacks<C> {
        let shared = Shared {
            fallbacks: ArcSwap::from_pointee(fallbacks),
            bodies: SharedPool::new(BLOCK_BYTES),
            kept: Mutex::default(),
            counts: Default::default(),
        };
        WithFallbacks { channel, shared: Arc::new(shared) }
    }

    /// Replaces what callers get instead of answers, of this channel and its clones. Calls under way go by what there was
    /// when they were made. Answers that are kept stay so as far as they still may.
    pub fn replace(&self, fallbacks: Fallbacks) {
        let in_force = Arc::new(fallbacks);
        self.shared.fallbacks.store(Arc::clone(&in_force));
        self.shared.kept.lock().shrink(&in_force);
    }

    /// What it is around.
    pub fn channel(&self) -> &C {
        &self.channel
    }

    /// What it has done so far.
    #[must_use]
    pub fn counts(&self) -> FallbackCounts {
        let [methods, kept, values] =
            [0, 1, 2].map(|of: usize| self.shared.counts[of].load(Ordering::Relaxed));
        FallbackCounts { methods, kept, values }
    }
}

impl<C: fmt::Debug> fmt::Debug for WithFallbacks<C> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WithFallbacks").field("channel", &self.channel).finish_non_exhaustive()
    }
}

impl<C: BlockOn> BlockOn for WithFallbacks<C> {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.channel.block_on(future)
    }
}

impl<C: Channel<Body: IntoOwned>> Channel for WithFallbacks<C> {
    type Body = C::Body;
    type Pending<'a, P>
        = FallbackCall<'a, C, P>
    where
        C: 'a,
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> FallbackCall<'a, C, P> {
        let plan = self.shared.fallbacks.load().plans.get(&call.method).cloned();
        let plan = plan.filter(|_| call.flags & request_flags::ONE_WAY == 0);
        let waits = plan.map(|plan| Waits {
            key: if plan.is_kept { self.shared.key(&call, &payload) } else { None },
            plan,
            began: MachineClock.now(),
            call,
            payload: payload.clone(),
            failed: None,
        });
        FallbackCall { around: self, pending: self.channel.call(call, payload), waits }
    }
}

/// Calls with streams have no fallbacks.
impl<C: StreamChannel<Body: IntoOwned>> StreamChannel for WithFallbacks<C> {
    type Call = C::Call;
    type Opening<'a, P>
        = C::Opening<'a, P>
    where
        Self: 'a,
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        self.channel.open(call, payload)
    }
}

pin_project! {
    /// A call over [`WithFallbacks`].
    pub struct FallbackCall<'a, C, P>
    where
        C: Channel,
        C: 'a,
        P: Payload,
        P: Clone,
        P: 'a,
    {
        around: &'a WithFallbacks<C>,
        #[pin]
        pending: C::Pending<'a, P>,
        // Of methods with fallbacks.
        waits: Option<Waits<P>>,
    }
}

struct Waits<P> {
    plan: Arc<Plan>,
    key: Option<Key>,
    began: Instant,
    call: Outgoing,
    payload: P,
    /// Why another method is called.
    failed: Option<Failure>,
}

impl<'a, C: Channel<Body: IntoOwned>, P: Payload + Clone> Future for FallbackCall<'a, C, P> {
    type Output = Result<Answer<C::Body>, Failure>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let shared = &*this.around.shared;
        loop {
            let end = ready!(this.pending.as_mut().poll(cx));
            let Some(waits) = this.waits else { return Poll::Ready(end) };
            let failure = match (end, waits.failed) {
                (Ok(answer), None) => {
                    shared.keep(waits.key, &answer);
                    return Poll::Ready(Ok(answer));
                }
                (Ok(answer), Some(_)) => return Poll::Ready(Ok(shared.mark(answer, Kind::Method))),
                // What was asked for says more than what was tried then.
                (Err(_), Some(first)) => first,
                (Err(failure), None) => {
                    if !may_be_replaced(&failure) {
                        return Poll::Ready(Err(failure));
                    }
                    if let Some(call) = waits.other() {
                        waits.failed = Some(failure);
                        shared.count(Kind::Method);
                        let pending = this.around.channel.call(call, waits.payload.clone());
                        this.pending.set(pending);
                        continue;
                    }
                    failure
                }
            };
            return Poll::Ready(shared.instead(&waits.plan, waits.key, &waits.call).ok_or(failure));
        }
    }
}

impl<P> Waits<P> {
    /// The call of the other method, if there is one, and time.
    fn other(&self) -> Option<Outgoing> {
        let other = self.plan.other?;
        let timeout = self.call.timeout.checked_sub(MachineClock.now().since(self.began))?;
        if timeout.is_zero() {
            return None;
        }
        let idempotent = if other.is_idempotent() { request_flags::IDEMPOTENT } else { 0 };
        let flags = self.call.flags & !request_flags::IDEMPOTENT | idempotent;
        Some(Outgoing { name: other.full_name(), method: other.id(), timeout, flags, ..self.call })
    }
}

impl<C: Channel, P: Payload + Clone> fmt::Debug for FallbackCall<'_, C, P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FallbackCall").finish_non_exhaustive()
    }
}

/// Whether a failure is none of the caller's own making.
fn may_be_replaced(failure: &Failure) -> bool {
    match failure.cause {
        Cause::Cancelled
        | Cause::Encode
        | Cause::TooLarge { .. }
        | Cause::TooMuchMetadata
        | Cause::StreamEnded
        | Cause::Unreadable(_)
        | Cause::Unwritable(_) => false,
        // What may not be seen must not be shown because it was seen before.
        Cause::Status(status) => !matches!(
            status,
            Status::UNAUTHENTICATED
                | Status::FORBIDDEN
                | Status::BAD_BODY
                | Status::BAD_REQUEST
                | Status::TOO_MUCH_METADATA
                | Status::CANCELLED
                | Status::CANCELLED_RUNNING
        ),
        _ => true,
    }
}

// ---- what is kept ----

type Key = [u8; 32];

/// Good answers, the first that came in front.
#[derive(Default)]
struct Kept {
    answers: HashMap<Key, (ReplyHeader, Bytes)>,
    order: VecDeque<Key>,
    bytes: usize,
}

impl Kept {
    fn insert(&mut self, key: Key, answer: (ReplyHeader, Bytes), settings: &Fallbacks) {
        let bytes = answer.1.len();
        if bytes > settings.bytes_max || settings.entries_max == 0 {
            return;
        }
        match self.answers.insert(key, answer) {
            Some((_, before)) => self.bytes -= before.len(),
            None => self.order.push_back(key),
        }
        self.bytes += bytes;
        self.forget_oldest(settings);
    }

    /// Lets go of what is not kept any more.
    fn shrink(&mut self, settings: &Fallbacks) {
        if settings.keeps_answers() {
            self.forget_oldest(settings);
        } else {
            *self = Kept::default();
        }
    }

    fn forget_oldest(&mut self, settings: &Fallbacks) {
        while self.order.len() > settings.entries_max || self.bytes > settings.bytes_max {
            let Some(oldest) = self.order.pop_front() else { return };
            if let Some((_, body)) = self.answers.remove(&oldest) {
                self.bytes -= body.len();
            }
        }
    }
}

/// What of a call's TLVs its answer may depend on.
const ASKED_BY: [u16; 4] = [tag::METADATA, tag::ASKED_GROUP, tag::CALLER, tag::CREDENTIALS];

impl Shared {
    /// What a call asks. `None` if it cannot be said.
    fn key<P: Payload>(&self, call: &Outgoing, payload: &P) -> Option<Key> {
        let mut writer = self.bodies.writer(BYTES_MAX);
        payload.encode(call.codec, call.in_signature, &mut writer).ok()?;
        let is_beside = writer.beside_len() > 0;
        let (body, attached) = self.bodies.finish(writer);
        // What is sent from where it lies is a part of the argument like the rest, unless it is a file or beside it.
        let attached = attached.as_ref().map_or(Some(&[][..]), |attached| attached.as_slice())?;
        if is_beside {
            return None;
        }
        let mut hash = Sha256::new();
        hash.update(call.method.to_le_bytes());
        hash.update(call.out_signature.to_le_bytes());
        hash.update(((body.len() + attached.len()) as u64).to_le_bytes());
        hash.update(&body[..]);
        hash.update(attached);
        let found = Extensions::new(payload.extensions()).map_while(Result::ok);
        for found in found.filter(|found| ASKED_BY.contains(&found.tag)) {
            hash.update(found.tag.to_le_bytes());
            hash.update((found.value.len() as u64).to_le_bytes());
            hash.update(found.value);
        }
        Some(hash.finalize().into())
    }

    fn keep<B: AsRef<[u8]>>(&self, key: Option<Key>, answer: &Answer<B>) {
        let is_whole = answer.header.status == Status::OK && answer.attached == Attached::Nothing;
        if let Some(key) = key.filter(|_| is_whole) {
            let body = Bytes::copy_from_slice(answer.body.as_ref());
            // What a server says of itself it says of that moment.
            let ReplyHeader { status, signature, codec, compression, .. } = answer.header;
            let header = ReplyHeader { signature, codec, compression, ..ReplyHeader::new(status) };
            let mut kept = self.kept.lock();
            // Asked for while `kept` is locked: whoever replaces them now shrinks it afterwards.
            let settings = self.fallbacks.load();
            if settings.keeps_answers() {
                kept.insert(key, (header, body), &settings);
            }
        }
    }

    /// The answer instead of one, if there is any.
    fn instead<B: IntoOwned>(
        &self,
        plan: &Plan,
        key: Option<Key>,
        call: &Outgoing,
    ) -> Option<Answer<B>> {
        let kept = key.and_then(|key| self.kept.lock().answers.get(&key).cloned());
        let value = |(codec, body): &(Codec, Bytes)| {
            let header = ReplyHeader::new(Status::OK);
            let header = ReplyHeader { signature: call.out_signature, codec: *codec, ..header };
            (header, body.clone(), Kind::Value)
        };
        let kept = kept.map(|(header, body)| (header, body, Kind::Kept));
        let (header, body, kind) = kept.or_else(|| plan.value.as_ref().map(value))?;
        self.count(kind);
        let (body, extensions) = (self.copy(&body)?.into(), B::empty());
        let answer = Answer { header, body, attached: Attached::Nothing, extensions };
        Some(self.mark(answer, kind))
    }

    /// A copy that is aligned as bodies are.
    fn copy(&self, bytes: &[u8]) -> Option<SharedChunk> {
        let mut writer = self.bodies.writer(BYTES_MAX);
        writer.put(bytes).ok()?;
        Some(self.bodies.finish(writer).0)
    }

    /// Says of an answer that it is a fallback.
    fn mark<B: IntoOwned>(&self, mut answer: Answer<B>, kind: Kind) -> Answer<B> {
        let text = match kind {
            Kind::Method => "method",
            Kind::Kept => "kept",
            Kind::Value => "value",
        };
        let mut writer = ExtensionWriter::new();
        writer.append(answer.extensions.as_ref());
        let pushed = crate::metadata::push_entry(&mut writer, FALLBACK_KEY, text.as_bytes());
        debug_assert!(pushed.is_ok(), "it is a key");
        if let Some(extensions) = self.copy(&writer.finish()) {
            answer.extensions = extensions.into();
        }
        answer
    }

    fn count(&self, kind: Kind) {
        self.counts[kind as usize].fetch_add(1, Ordering::Relaxed);
    }
}
