//! Methods with streams of items: what their handlers take and give.

use std::fmt;
use std::future::{Future, poll_fn};
use std::marker::PhantomData;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use futures_core::Stream;
use pin_project_lite::pin_project;
use ringcall_codec_rkyv::{
    Form, Formed, FromBody, IntoError, IntoItem, Invalid, Message, Unanswered,
};
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{Codec, Empty, Encoding, Handle, Instant, ItemError, ReplyError, Status};

use super::handler::{Handler, answer, end_unanswered, header, panicked};
use super::incoming::{Facts, Incoming, Origin, Running};
use super::slots::Unbuilt;
use super::{MethodTable, unread};
use crate::panics::Hint;
use crate::shard::{OpenStream, Task};

/// The caller's stream of items, as a handler takes it: a [`Stream`] of `X`, which is a message or a
/// [`View`](crate::View) of one.
///
/// `None` is the end that the caller gave it. If the caller gives up or its connection ends, the handler is
/// dropped instead, as with any call; an item that is not of its type ends the call with
/// [`BAD_ITEM`](Status::BAD_ITEM), and drops the handler, too. In a task that outlives the handler the
/// stream ends with the call.
///
/// Items that were not taken wait in memory, at most a window of them (1024 items and 1 MiB unless the server's
/// [`Config`](crate::Config) says otherwise); then the caller waits. Dropping this discards what is
/// there and what still comes; the call goes on.
pub struct Items<X> {
    stream: Rc<OpenStream>,
    in_signature: u64,
    /// Of items with that signature.
    form: Form,
    /// Whose they are, for the log.
    of: (Handle, &'static MethodTable),
    item: PhantomData<fn() -> X>,
}

impl<X: FromBody> Items<X> {
    /// The next item; `None` after the last.
    pub async fn next(&mut self) -> Option<X> {
        poll_fn(|cx| self.poll(cx)).await
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<X>> {
        let Some(item) = std::task::ready!(self.stream.poll_item(cx)) else {
            return Poll::Ready(None);
        };
        let ringcall_core::Item { encoding, body, attached, .. } = item;
        let Encoding { codec, signature, compression } = encoding;
        // Bytes as they are have no layout.
        let has_layout =
            signature == self.in_signature || (X::Message::IS_RAW && self.in_signature != 0);
        let is_ours = has_layout && codec == <X::Message as Message>::CODEC;
        // If it is not, it says by itself what it is in, and a type that is not in that codec does not read it.
        let form = if is_ours { self.form } else { Form::of_codec(codec) };
        let read = match form == Form::PLAIN {
            _ if compression != 0 => Err(Invalid),
            true => X::from_body_with(body, attached),
            false => X::from_other(form, body, attached),
        };
        if let Ok(item) = read {
            return Poll::Ready(Some(item));
        }
        let (handle, method) = self.of;
        unread::refused_item(self.stream.shard(), handle, method, form, X::Message::CODEC);
        self.stream.break_off(Status::BAD_ITEM);
        // The handler is dropped as soon as it returns from being polled.
        Poll::Pending
    }
}

impl<X: FromBody> Stream for Items<X> {
    type Item = X;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<X>> {
        self.get_mut().poll(cx)
    }
}

impl<X> Drop for Items<X> {
    fn drop(&mut self) {
        self.stream.discard();
    }
}

impl<X> fmt::Debug for Items<X> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Items").field(&self.stream).finish()
    }
}

/// The streams of a call on its way to its handler. For the code that `#[service]` makes.
pub struct Streams {
    stream: Rc<OpenStream>,
    facts: Facts,
    in_signature: u64,
    form: Form,
}

impl Streams {
    /// What the caller sends. Once a call.
    #[must_use]
    pub fn items<X: FromBody>(&self) -> Items<X> {
        let (stream, of) = (Rc::clone(&self.stream), (self.facts.handle, self.facts.table));
        Items { stream, in_signature: self.in_signature, form: self.form, of, item: PhantomData }
    }

    /// Where the reply's items go.
    #[must_use]
    pub fn sink(&self) -> ItemSink {
        ItemSink { stream: Rc::clone(&self.stream), facts: self.facts }
    }
}

impl fmt::Debug for Streams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Streams").field("stream", &self.stream).finish_non_exhaustive()
    }
}

/// How a handler with streams has ended. For the code that `#[service]` makes.
#[derive(Debug)]
pub enum Ending<V, E> {
    /// With a reply.
    Value(V),
    /// With a stream that has ended, of items in this codec.
    Items(Codec),
    /// With its own error.
    Error(E),
    /// Without an answer of its own.
    Unanswered(Unanswered),
    /// Not by itself.
    Status(Status),
}

impl<V, E> Ending<V, E> {
    /// With what a handler has failed with.
    pub fn failed(failure: impl IntoError<Error = E>) -> Ending<V, E> {
        failure.into_error().map_or_else(Ending::Unanswered, Ending::Error)
    }
}

impl<V, F: IntoError> From<Result<V, F>> for Ending<V, F::Error> {
    fn from(result: Result<V, F>) -> Ending<V, F::Error> {
        result.map_or_else(Ending::failed, Ending::Value)
    }
}

/// How many items are sent before other tasks have a turn.
const ITEMS_A_POLL: u32 = 128;

/// Sends the stream that a handler has returned. For the code that `#[service]` makes.
pub struct ItemSink {
    stream: Rc<OpenStream>,
    facts: Facts,
}

impl ItemSink {
    /// Sends all items of a stream.
    pub async fn items<I: IntoItem, E>(self, items: impl Stream<Item = I>) -> Ending<(), E> {
        self.pump(items, |item| Ok(item.into_item())).await
    }

    /// Sends all items of a stream that may end with an error.
    pub async fn results<I: IntoItem, E>(
        self,
        items: impl Stream<Item = Result<I, E>>,
    ) -> Ending<(), E> {
        self.pump(items, |item| item.map(I::into_item)).await
    }

    /// Polls the stream only when the item before was accepted, so that it is never more than one ahead
    /// of the caller's window.
    async fn pump<S: Stream, M: Message, E>(
        self,
        items: S,
        result: impl Fn(S::Item) -> Result<M, E>,
    ) -> Ending<(), E> {
        let form = self.facts.item_form::<M>();
        let header = header::<M>(Status::OK, &self.facts, form);
        let codec = header.codec;
        let shard = self.stream.shard();
        let (now, Facts { handle, request, .. }) = (shard.now(), self.facts);
        let extensions = shard.reply_metadata.take_first(handle, request);
        let begun =
            shard.endpoint.borrow_mut().begin_items(now, handle, request, header, &extensions);
        shard.left_work();
        if let Err(ReplyError::Encode(error)) = begun {
            log::warn!("the reply of {} could not begin: {error}", self.facts.method());
            return Ending::Status(Status::REPLY_FAILED);
        }
        if begun.is_err() {
            // Nobody waits any more; that this is no answer is heard by nobody.
            return Ending::Status(Status::CANCELLED_RUNNING);
        }
        let mut items = pin!(items);
        let mut since_yield = 0;
        while let Some(item) = poll_fn(|cx| items.as_mut().poll_next(cx)).await {
            let item = match result(item) {
                Ok(item) => item,
                Err(error) => return Ending::Error(error),
            };
            let mut encoding = Encoding::plain(codec, self.facts.out_signature);
            encoding.compression = shard.wish_for_replies();
            let item = Formed(&item, form);
            let send = |cx: &mut Context<'_>| match encoding.compression {
                0 => self.stream.poll_send(cx, encoding, &item),
                _ => self.stream.poll_send_packed(cx, encoding, &item),
            };
            match poll_fn(send).await {
                Ok(()) => {}
                Err(ItemError::Encode(error)) => {
                    let method = self.facts.method();
                    log::warn!("an item of the reply of {method} could not be sent: {error}");
                    return Ending::Status(Status::REPLY_FAILED);
                }
                Err(_) => return Ending::Status(Status::CANCELLED_RUNNING),
            }
            since_yield += 1;
            if since_yield == ITEMS_A_POLL {
                since_yield = 0;
                yield_now().await;
            }
        }
        Ending::Items(codec)
    }
}

impl fmt::Debug for ItemSink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("ItemSink").field(&self.stream).finish()
    }
}

async fn yield_now() {
    let mut has_yielded = false;
    poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

// ---- running ----

/// A handler with streams. It runs on the shard, as a task of its own.
pub(crate) struct Streaming<F> {
    handler: F,
    has_items_out: bool,
}

impl<F> Streaming<F> {
    pub(crate) fn new(handler: F, method: &MethodTable) -> Streaming<F> {
        Streaming { handler, has_items_out: method.items_out().is_some() }
    }
}

impl<F, Fut, V, E> Handler for Streaming<F>
where
    F: Fn(&mut Incoming, &Streams) -> Result<Fut, Status>,
    Fut: Future<Output = Ending<V, E>> + 'static,
    V: Message,
    E: Message,
{
    fn start(&self, call: &mut Incoming) {
        let Origin::Shard(shard) = &call.origin else { return };
        let shard = Rc::clone(shard);
        if self.has_items_out {
            // It bounds the time to the first frame, which is the caller's affair.
            call.facts.deadline = Instant::FAR;
        }
        let facts = call.facts;
        // A filter that the call has passed may have taken its first items in.
        let early = shard.streams.find(facts.handle, facts.request.into());
        let stream = early.unwrap_or_else(|| {
            let stream = OpenStream::new(&shard, facts.handle);
            stream.register(facts.request.into());
            stream
        });
        let owner = Owner(Rc::clone(&stream));
        let (in_signature, form) = (call.in_signature, call.facts.forms.item_in);
        let streams = Streams { stream, facts, in_signature, form };
        let future = match catch_unwind(AssertUnwindSafe(|| (self.handler)(call, &streams))) {
            Ok(Ok(future)) => future,
            Ok(Err(status)) => return Unbuilt::Refused(status).answer(&shard, &facts),
            Err(panic) => return panicked(&shard, &facts, Hint::of(&*panic)),
        };
        let mut task = Box::pin(StreamTask { future, facts, is_kept: false, owner });
        let Err(index) = shard.executor.poll_first(|cx| task.as_mut().poll(cx)) else { return };
        *task.as_mut().project().is_kept = true;
        let bytes = size_of_val(&*task) + OpenStream::BYTES;
        let running = Running::Task(index);
        shard.keep_running(facts.handle, facts.request, facts.deadline, running, bytes);
        shard.executor.put(index, task);
    }
}

/// Closes the streams of a call when its handler is gone.
struct Owner(Rc<OpenStream>);

impl Drop for Owner {
    fn drop(&mut self) {
        self.0.close();
    }
}

pin_project! {
    /// A handler that has begun.
    struct StreamTask<Fut> {
        #[pin]
        future: Fut,
        facts: Facts,
        // It was not ready at once, so that the shard knows of it.
        is_kept: bool,
        // Behind the future, which may hold the items.
        owner: Owner,
    }
}

impl<Fut, V, E> Task for StreamTask<Fut>
where
    Fut: Future<Output = Ending<V, E>>,
    V: Message,
    E: Message,
{
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        let (facts, stream) = (&*this.facts, &this.owner.0);
        let (shard, Facts { handle, request, .. }) = (stream.shard(), *facts);
        if let Some(status) = stream.poll_broken(cx.waker()) {
            shard.refuse(handle, request, status);
        } else {
            let entered = shard.enter(facts);
            let polled = catch_unwind(AssertUnwindSafe(|| this.future.poll(cx)));
            drop(entered);
            match polled {
                Ok(Poll::Pending) => match stream.poll_broken(cx.waker()) {
                    None => return Poll::Pending,
                    Some(status) => shard.refuse(handle, request, status),
                },
                Ok(Poll::Ready(Ending::Value(value))) => {
                    answer(shard, facts, Status::OK, &value);
                }
                Ok(Poll::Ready(Ending::Items(codec))) => {
                    let header = header::<V>(Status::OK, facts, Form::PLAIN);
                    let header = ReplyHeader { codec, ..header };
                    shard.answer_with(handle, request, header, &Empty);
                }
                Ok(Poll::Ready(Ending::Error(error))) => {
                    answer(shard, facts, Status::APPLICATION_ERROR, &error);
                }
                Ok(Poll::Ready(Ending::Unanswered(it))) => end_unanswered(shard, facts, &it),
                Ok(Poll::Ready(Ending::Status(status))) => shard.refuse(handle, request, status),
                Err(panic) => panicked(shard, facts, Hint::of(&*panic)),
            }
        }
        if *this.is_kept {
            shard.ended_running(handle, request);
        }
        Poll::Ready(())
    }

    fn recycle(self: Pin<Box<Self>>) {}
}
