//! How handlers are run: on the shard, on the pool, through a responder.

use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use ringcall_codec_rkyv::{Form, Formed, InternalError, IntoError, Message, Typed, Unanswered};
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Attached, Clock, Encoded, Instant, Payload, Refusal, SharedChunk, SharedPool, Status,
};

use super::incoming::{CancelFlag, Facts, Incoming, Origin, Running, tie_of};
use super::slots::{Slots, Unbuilt, Work};
use super::unread;
use crate::block_on::block_on;
use crate::offload::Pool;
use crate::panics::Hint;
use crate::shard::{Inner, MachineClock, Notice, Remote};

/// Runs the handler of one method.
pub(crate) trait Handler {
    /// Takes of the call what it needs.
    fn start(&self, call: &mut Incoming);
}

// ---- on the shard ----

/// A handler that runs on the shard: its future is built and polled at once.
pub(crate) struct OnShard<F, Fut> {
    handler: F,
    slots: Slots<Fut, Served>,
}

/// What follows a handler: its answer.
struct Served;

impl<F, Fut> OnShard<F, Fut> {
    pub(crate) fn new(handler: F) -> OnShard<F, Fut> {
        OnShard { handler, slots: Slots::default() }
    }
}

impl<F, Fut, V, E> Handler for OnShard<F, Fut>
where
    F: Fn(&mut Incoming) -> Result<Fut, Status>,
    Fut: Future<Output = Result<V, E>> + 'static,
    V: Message,
    E: IntoError,
{
    #[inline]
    fn start(&self, call: &mut Incoming) {
        call.begins();
        let built = self.slots.build(|| (self.handler)(call));
        let Origin::Shard(shard) = &call.origin else { return };
        match built {
            Ok(slot) => self.slots.start(slot, shard, &call.facts, Served),
            Err(unbuilt) => unbuilt.answer(shard, &call.facts),
        }
    }
}

impl<V: Message, E: IntoError> Work<Result<V, E>> for Served {
    #[inline]
    fn ended(self, shard: &Rc<Inner>, facts: &Facts, output: Result<V, E>) {
        match output.map_err(E::into_error) {
            Ok(value) => answer(shard, facts, Status::OK, &value),
            Err(Ok(error)) => answer(shard, facts, Status::APPLICATION_ERROR, &error),
            Err(Err(unanswered)) => end_unanswered(shard, facts, &unanswered),
        }
    }
}

/// Answers a call, in the form that its caller reads.
#[inline]
pub(super) fn answer<M: Message>(shard: &Inner, facts: &Facts, status: Status, message: &M) {
    let form = facts.form_of::<M>(status);
    if form != Form::PLAIN {
        return answer_other(shard, facts, status, message, form);
    }
    let header = header::<M>(status, facts, form);
    shard.answer_with(facts.handle, facts.request, header, &Typed(message));
}

#[cold]
fn answer_other<M: Message>(shard: &Inner, facts: &Facts, status: Status, message: &M, form: Form) {
    let header = header::<M>(status, facts, form);
    shard.answer_with(facts.handle, facts.request, header, &Formed(message, form));
}

pub(super) fn header<M: Message>(status: Status, facts: &Facts, form: Form) -> ReplyHeader {
    let codec = form.codec().unwrap_or(M::CODEC);
    let (signature, queue_us) = (facts.out_signature, facts.queue_us);
    ReplyHeader { signature, codec, queue_us, ..ReplyHeader::new(status) }
}

/// Ends a call whose handler has no answer.
#[cold]
pub(super) fn end_unanswered(shard: &Inner, facts: &Facts, unanswered: &Unanswered) {
    match unanswered {
        Unanswered::Refused(refusal) => {
            shard.refuse_until(facts.handle, facts.request, *refusal);
        }
        Unanswered::Internal(error) => {
            let caller = shard.peer_address(facts.handle);
            log_internal(&shard.remote, shard.now(), facts, caller, error);
            shard.refuse(facts.handle, facts.request, Status::INTERNAL);
        }
    }
}

/// What went wrong is for this side: callers are not told.
fn log_internal(
    remote: &Remote,
    now: Instant,
    facts: &Facts,
    caller: Option<SocketAddr>,
    error: &InternalError,
) {
    let Some(failed) = remote.internal_lines.may_write(now) else { return };
    let caller = caller.map_or_else(|| "a local caller".to_owned(), |caller| caller.to_string());
    let others = match failed - 1 {
        0 => String::new(),
        others => format!(" ({others} more since the last line)"),
    };
    let method = facts.method();
    // It may quote what a caller has sent, which must not begin a line of its own.
    let error = error.to_string().replace(char::is_control, " ");
    log::error!("the handler of {method} failed, {caller} gets INTERNAL: {error}{others}");
}

#[cold]
pub(super) fn panicked(shard: &Rc<Inner>, facts: &Facts, hint: Hint) {
    log::error!("the handler of {} panicked; its caller gets INTERNAL{hint}", facts.method());
    shard.refuse(facts.handle, facts.request, Status::INTERNAL);
}

// ---- through a responder ----

/// A method that answers whenever it likes; called on the shard.
pub(crate) struct WithResponder<F>(F);

impl<F> WithResponder<F> {
    pub(crate) fn new(handler: F) -> WithResponder<F> {
        WithResponder(handler)
    }
}

impl<F: Fn(&mut Incoming) -> Result<(), Status>> Handler for WithResponder<F> {
    fn start(&self, call: &mut Incoming) {
        let Origin::Shard(shard) = &call.origin else { return };
        let (shard, facts) = (Rc::clone(shard), call.facts);
        call.begins();
        let _entered = shard.enter(&facts);
        match catch_unwind(AssertUnwindSafe(|| (self.0)(call))) {
            Ok(Ok(())) => {}
            Ok(Err(status)) => Unbuilt::Refused(status).answer(&shard, &facts),
            // Its responder was dropped by that, which answers.
            Err(panic) if shard.is_running(facts.handle, facts.request) => {
                log::error!("the handler of {} panicked{}", facts.method(), Hint::of(&*panic));
            }
            // There was none yet: it was somebody's code that makes the argument of what has arrived.
            Err(panic) => panicked(&shard, &facts, Hint::of(&*panic)),
        }
    }
}

// ---- on the pool ----

/// A handler that runs on the pool. The service and the body go there, and the future is built there,
/// so it need not be `Send`.
pub(crate) struct Offloaded<F, R> {
    handler: Arc<F>,
    pool: Arc<Pool>,
    replies: SharedPool,
    result: PhantomData<fn() -> R>,
}

/// Answers up to this length are encoded into pooled blocks.
const REPLY_BLOCK_BYTES: usize = 16 * 1024;

impl<F, R> Offloaded<F, R> {
    pub(crate) fn new(handler: F, pool: Arc<Pool>) -> Offloaded<F, R> {
        let replies = SharedPool::new(REPLY_BLOCK_BYTES);
        Offloaded { handler: Arc::new(handler), pool, replies, result: PhantomData }
    }
}

impl<F, Fut, V, E> Handler for Offloaded<F, Fut>
where
    F: Fn(&mut Incoming) -> Result<Fut, Status> + Send + Sync + 'static,
    Fut: Future<Output = Result<V, E>>,
    V: Message,
    E: IntoError,
{
    fn start(&self, call: &mut Incoming) {
        let (handler, replies) = (Arc::clone(&self.handler), self.replies.clone());
        offload(call, &self.pool, move |call| {
            let facts = call.facts;
            let Origin::Elsewhere(remote, flag) = &call.origin else { return };
            let (remote, flag) = (Arc::clone(remote), Arc::clone(flag));
            let entered = flag.enter();
            let ran = catch_unwind(AssertUnwindSafe(|| block_until(handler(call)?, &flag)));
            drop(entered);
            let extensions = flag.take_metadata();
            let caller = flag.caller.address;
            let answer = Away { remote, facts, replies, extensions, caller };
            match (ran, flag.cancelled()) {
                (_, Some(status)) => answer.status(status),
                (Ok(Ok(result)), None) => answer.result(result),
                (Ok(Err(status)), None) => answer.refused(status),
                (Err(panic), None) => {
                    log::error!("the handler of {} panicked{}", facts.method(), Hint::of(&*panic));
                    answer.status(Status::INTERNAL);
                }
            }
        });
    }
}

/// Waits for a handler, which is dropped where it awaits something when nobody waits for it any more.
fn block_until<F: Future>(future: F, flag: &CancelFlag) -> Result<F::Output, Status> {
    let mut future = pin!(future);
    block_on(poll_fn(|cx| match flag.poll_cancelled(cx) {
        Poll::Ready(status) => Poll::Ready(Err(status)),
        Poll::Pending => future.as_mut().poll(cx).map(Ok),
    }))
}

/// A method that answers whenever it likes; called on the pool.
pub(crate) struct OffloadedResponder<F> {
    handler: Arc<F>,
    pool: Arc<Pool>,
}

impl<F> OffloadedResponder<F> {
    pub(crate) fn new(handler: F, pool: Arc<Pool>) -> OffloadedResponder<F> {
        OffloadedResponder { handler: Arc::new(handler), pool }
    }
}

impl<F> Handler for OffloadedResponder<F>
where
    F: Fn(&mut Incoming) -> Result<(), Status> + Send + Sync + 'static,
{
    fn start(&self, call: &mut Incoming) {
        let handler = Arc::clone(&self.handler);
        offload(call, &self.pool, move |call| {
            let facts = call.facts;
            let Origin::Elsewhere(remote, flag) = &call.origin else { return };
            let (remote, flag) = (Arc::clone(remote), Arc::clone(flag));
            let _entered = flag.enter();
            let ran = catch_unwind(AssertUnwindSafe(|| handler(call)));
            if let Err(panic) = &ran {
                log::error!("the handler of {} panicked{}", facts.method(), Hint::of(&**panic));
            }
            match ran {
                // Its responder answers, also when it was dropped by a panic.
                Ok(Ok(())) => {}
                Err(_) if flag.has_responder() => {}
                Ok(Err(status)) => {
                    let caller = flag.caller.address;
                    Away { caller, ..Away::without(remote, facts) }.refused(status);
                }
                Err(_) => Away::without(remote, facts).status(Status::INTERNAL),
            }
        });
    }
}

impl Inner {
    /// What a handler on another thread shares with its call.
    fn flag(&self, facts: &Facts) -> Arc<CancelFlag> {
        let flag = CancelFlag::new(self.caller_of(facts.handle, facts.request));
        Arc::new(flag.in_scope(self.scope_of(facts)))
    }
}

/// Sends a call to the pool, or refuses it if too much waits there.
fn offload(
    call: &mut Incoming,
    pool: &Arc<Pool>,
    work: impl FnOnce(&mut Incoming) + Send + 'static,
) {
    let Origin::Shard(shard) = &call.origin else { return };
    let (shard, facts) = (Rc::clone(shard), call.facts);
    let flag = shard.flag(&facts);
    let remote = Arc::clone(&shard.remote);
    let (body, attached) = call.take_body();
    let body = (body.share(), attached);
    let extensions = call.take_extensions();
    let running = Running::Elsewhere(Arc::clone(&flag));
    let (queue, queued) = (Arc::clone(pool), shard.now());
    let job = Box::new(move |refused: Option<u16>| {
        let now = MachineClock.now();
        // Nobody waits for it any more: it need not be started, nor its body looked at. The shard may not
        // have noticed yet that its time is over.
        let has_expired = facts.deadline <= now;
        if flag.is_cancelled(has_expired)
            && let Some(status) = flag.cancelled()
        {
            let has_expired = status == Status::EXPIRED_RUNNING;
            if has_expired {
                queue.expired(now.since(queued), facts.deadline.since(queued));
            }
            let status = if has_expired { Status::EXPIRED } else { Status::CANCELLED };
            return Away::without(remote, facts).status(status);
        }
        if let Some(retry_after_ms) = refused {
            remote.register.waited_too_long.add();
            let later = Duration::from_millis(retry_after_ms.into());
            return Away::without(remote, facts).refuse(Refusal::overloaded().retry_after(later));
        }
        let queue_us = facts.queue_us.saturating_add(now.micros_since(queued));
        let facts = Facts { queue_us, ..facts };
        if let Some(tie) = tie_of(&extensions) {
            remote.notify(Notice::Begun(facts.handle, tie));
        }
        work(&mut Incoming::elsewhere(facts, remote, flag, body, extensions));
    });
    if pool.run(facts.priority, queued, job) {
        let bytes = size_of::<CancelFlag>();
        shard.keep_running(facts.handle, facts.request, facts.deadline, running, bytes);
    } else {
        shard.refuse(facts.handle, facts.request, Status::OVERLOADED);
    }
}

// ---- on somebody's executor ----

/// A future for an executor of the user's.
pub type SpawnedCall = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Puts a call on an executor of the user's.
pub(crate) type Spawner = Arc<dyn Fn(SpawnedCall) + Send + Sync>;

/// A handler that runs on an executor of the user's. The service and the body go there, and the future is
/// built there.
pub(crate) struct Spawned<F, R> {
    handler: Arc<F>,
    spawn: Spawner,
    replies: SharedPool,
    result: PhantomData<fn() -> R>,
}

impl<F, R> Spawned<F, R> {
    pub(crate) fn new(handler: F, spawn: Spawner) -> Spawned<F, R> {
        let replies = SharedPool::new(REPLY_BLOCK_BYTES);
        Spawned { handler: Arc::new(handler), spawn, replies, result: PhantomData }
    }
}

impl<F, Fut, V, E> Handler for Spawned<F, Fut>
where
    F: Fn(&mut Incoming) -> Result<Fut, Status> + Send + Sync + 'static,
    Fut: Future<Output = Result<V, E>> + Send + 'static,
    V: Message,
    E: IntoError,
{
    fn start(&self, call: &mut Incoming) {
        let (handler, replies) = (Arc::clone(&self.handler), self.replies.clone());
        spawn(call, &self.spawn, move |call, mut owed| async move {
            let flag = Arc::clone(&owed.flag);
            owed.replies = replies;
            let future = match catch_unwind(AssertUnwindSafe(|| handler(&mut call.into_incoming())))
            {
                Ok(Ok(future)) => future,
                Ok(Err(status)) => return owed.refused(status),
                Err(panic) => return owed.panicked(Hint::of(&*panic)),
            };
            let mut future = pin!(future);
            let ran = poll_fn(|cx| match flag.poll_cancelled(cx) {
                Poll::Ready(status) => Poll::Ready(Ok(Err(status))),
                Poll::Pending => {
                    let _entered = flag.enter();
                    match catch_unwind(AssertUnwindSafe(|| future.as_mut().poll(cx))) {
                        Ok(polled) => polled.map(|answer| Ok(Ok(answer))),
                        Err(panic) => Poll::Ready(Err(panic)),
                    }
                }
            });
            match (ran.await, flag.cancelled()) {
                (_, Some(status)) | (Ok(Err(status)), None) => owed.status(status),
                (Ok(Ok(result)), None) => owed.result(result),
                (Err(panic), None) => owed.panicked(Hint::of(&*panic)),
            }
        });
    }
}

/// A method that answers whenever it likes; called on an executor of the user's.
pub(crate) struct SpawnedResponder<F> {
    handler: Arc<F>,
    spawn: Spawner,
}

impl<F> SpawnedResponder<F> {
    pub(crate) fn new(handler: F, spawn: Spawner) -> SpawnedResponder<F> {
        SpawnedResponder { handler: Arc::new(handler), spawn }
    }
}

impl<F> Handler for SpawnedResponder<F>
where
    F: Fn(&mut Incoming) -> Result<(), Status> + Send + Sync + 'static,
{
    fn start(&self, call: &mut Incoming) {
        let handler = Arc::clone(&self.handler);
        spawn(call, &self.spawn, move |call, mut owed| async move {
            let flag = Arc::clone(&call.flag);
            let ran = {
                let _entered = flag.enter();
                catch_unwind(AssertUnwindSafe(|| handler(&mut call.into_incoming())))
            };
            match ran {
                Ok(Err(status)) => owed.refused(status),
                // Its responder answers, also when it was dropped by a panic.
                Ok(Ok(())) => drop(owed.answer.take()),
                Err(panic) if flag.has_responder() => {
                    log::error!("the handler of a call panicked{}", Hint::of(&*panic));
                    drop(owed.answer.take());
                }
                Err(panic) => owed.panicked(Hint::of(&*panic)),
            }
        });
    }
}

/// A call on its way to another thread.
struct Travelling {
    facts: Facts,
    remote: Arc<Remote>,
    flag: Arc<CancelFlag>,
    body: (SharedChunk, Attached),
    extensions: SharedChunk,
}

impl Travelling {
    fn into_incoming(self) -> Incoming {
        let Travelling { facts, remote, flag, body, extensions } = self;
        Incoming::elsewhere(facts, remote, flag, body, extensions)
    }
}

/// The answer that a call on an executor owes: if its future is dropped, its caller is told.
struct Owed {
    answer: Option<(Arc<Remote>, Facts)>,
    flag: Arc<CancelFlag>,
    replies: SharedPool,
}

impl Owed {
    fn take(&mut self) -> Option<Away> {
        let (remote, facts) = self.answer.take()?;
        let extensions = self.flag.take_metadata();
        let (replies, caller) = (self.replies.clone(), self.flag.caller.address);
        Some(Away { remote, facts, replies, extensions, caller })
    }

    fn result<V: Message, E: IntoError>(mut self, result: Result<V, E>) {
        if let Some(away) = self.take() {
            away.result(result);
        }
    }

    fn status(mut self, status: Status) {
        self.take().into_iter().for_each(|away| away.status(status));
    }

    fn refused(mut self, status: Status) {
        self.take().into_iter().for_each(|away| away.refused(status));
    }

    fn panicked(self, hint: Hint) {
        if let Some((_, facts)) = &self.answer {
            log::error!(
                "the handler of {} panicked; its caller gets INTERNAL{hint}",
                facts.method()
            );
        }
        self.status(Status::INTERNAL);
    }
}

impl Drop for Owed {
    fn drop(&mut self) {
        let status = self.flag.cancelled().unwrap_or(Status::ABORTED);
        self.take().into_iter().for_each(|away| away.status(status));
    }
}

/// Sends a call to an executor.
fn spawn<W, Fut>(call: &mut Incoming, spawn: &Spawner, work: W)
where
    W: FnOnce(Travelling, Owed) -> Fut + Send + 'static,
    Fut: Future<Output = ()> + Send + 'static,
{
    let Origin::Shard(shard) = &call.origin else { return };
    let (shard, facts) = (Rc::clone(shard), call.facts);
    let flag = shard.flag(&facts);
    let remote = Arc::clone(&shard.remote);
    let (body, attached) = call.take_body();
    let body = (body.share(), attached);
    let owed = Owed {
        answer: Some((Arc::clone(&remote), facts)),
        flag: Arc::clone(&flag),
        replies: SharedPool::new(0),
    };
    let running = Running::Elsewhere(Arc::clone(&flag));
    let call = Travelling { facts, remote, flag, body, extensions: call.take_extensions() };
    let bytes = size_of::<CancelFlag>();
    shard.keep_running(facts.handle, facts.request, facts.deadline, running, bytes);
    let future = Box::pin(async move {
        // Nobody waits for it any more: it need not be started, nor its body looked at.
        let has_expired = facts.deadline <= MachineClock.now();
        if call.flag.is_cancelled(has_expired) {
            return owed.status(match call.flag.cancelled() {
                Some(Status::EXPIRED_RUNNING) => Status::EXPIRED,
                _ => Status::CANCELLED,
            });
        }
        if let Some(tie) = tie_of(&call.extensions) {
            call.remote.notify(Notice::Begun(facts.handle, tie));
        }
        work(call, owed).await;
    });
    // It is somebody's code. The future that a panic drops answers.
    if let Err(panic) = catch_unwind(AssertUnwindSafe(|| spawn(future))) {
        shard.executor.panicked();
        let (method, hint) = (facts.method(), Hint::of(&*panic));
        log::error!("the spawner panicked; the caller of {method} gets ABORTED{hint}");
    }
}

/// Answers a call from another thread.
pub(crate) struct Away {
    pub(crate) remote: Arc<Remote>,
    pub(crate) facts: Facts,
    pub(crate) replies: SharedPool,
    /// Metadata of the answer.
    pub(crate) extensions: Vec<u8>,
    /// Where the call came from.
    pub(crate) caller: Option<SocketAddr>,
}

impl Away {
    /// Without metadata, and with nothing to encode.
    pub(crate) fn without(remote: Arc<Remote>, facts: Facts) -> Away {
        let (replies, extensions) = (SharedPool::new(0), Vec::new());
        Away { remote, facts, replies, extensions, caller: None }
    }

    /// What a handler came to.
    pub(crate) fn result<V: Message, E: IntoError>(self, result: Result<V, E>) {
        match result.map_err(E::into_error) {
            Ok(value) => self.message(Status::OK, &value),
            Err(Ok(error)) => self.message(Status::APPLICATION_ERROR, &error),
            Err(Err(unanswered)) => self.unanswered(&unanswered),
        }
    }

    pub(crate) fn unanswered(self, unanswered: &Unanswered) {
        match unanswered {
            Unanswered::Refused(refusal) => self.refuse(*refusal),
            Unanswered::Internal(error) => {
                let now = MachineClock.now();
                log_internal(&self.remote, now, &self.facts, self.caller, error);
                self.status(Status::INTERNAL);
            }
        }
    }

    fn message<M: Message>(mut self, status: Status, message: &M) {
        let mut writer = self.replies.writer(64 << 20);
        let form = self.facts.form_of::<M>(status);
        let header = header::<M>(status, &self.facts, form);
        match Formed(message, form).encode(header.codec, header.signature, &mut writer) {
            Ok(()) => {
                let encoded = Encoded::take(&self.replies, writer, header.codec);
                let extensions = std::mem::take(&mut self.extensions).into();
                self.send(header, Encoded { extensions, ..encoded });
            }
            Err(error) => {
                log::warn!("the reply of {} could not be encoded: {error}", self.facts.method());
                self.status(Status::REPLY_FAILED);
            }
        }
    }

    pub(crate) fn status(self, status: Status) {
        self.bare(ReplyHeader::new(status));
    }

    /// The handler has not begun, as the code that `#[service]` makes says.
    fn refused(self, status: Status) {
        unread::refused(&self.remote, MachineClock.now(), &self.facts, self.caller, status);
        self.status(status);
    }

    pub(crate) fn refuse(self, refusal: Refusal) {
        self.bare(refusal.into());
    }

    fn bare(mut self, header: ReplyHeader) {
        let extensions = std::mem::take(&mut self.extensions).into();
        self.send(header, Encoded { extensions, ..Encoded::empty(header.codec) });
    }

    fn send(self, header: ReplyHeader, payload: Encoded) {
        let Facts { handle, request, .. } = self.facts;
        self.remote.notify(Notice::Reply { handle, request, header, payload });
    }
}
