//! Calls with streams from code that runs on the shard, and from the thread that drives it.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use ringcall_core::{
    Arrived, CallId, Cause, Chunk, Codec, Encoding, Failure, ItemError, Outcome, Outgoing,
    OwnedStreamChannel, Payload, StreamCall, StreamChannel,
};

use super::{BlockOn, BlockingClient, Called, LocalClient, Waits};
use crate::observe::Ongoing;
use crate::packing::inflate_arrived;
use crate::shard::{OpenStream, Shard, Ticket};

/// A call with streams of a [`LocalClient`]. It keeps the connection.
#[derive(Clone)]
pub struct LocalStream(Rc<Opened>);

struct Opened {
    stream: Rc<OpenStream>,
    id: CallId,
    client: LocalClient,
    called: Called,
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.stream.cancel(self.id);
        self.stream.close();
    }
}

impl LocalClient {
    /// The same for an argument that may have to be compressed.
    async fn open_packed<P: Payload>(
        &self,
        mut call: Outgoing,
        payload: P,
    ) -> Result<LocalStream, Failure> {
        if call.compression == 0 {
            return self.open_stream(call, payload).await;
        }
        let (payload, _) = self.shard().encode(&mut call, self.compressions(), &payload)?;
        self.open_stream(call, payload).await
    }

    /// Makes a call with streams as soon as its connection takes it.
    pub(crate) async fn open_stream<P: Payload>(
        &self,
        call: Outgoing,
        payload: P,
    ) -> Result<LocalStream, Failure> {
        let now = self.shard().now();
        let audience = self.connection().audience().as_ref();
        let mut ongoing = audience.map(|audience| Ongoing::begin(audience, &call, now, &payload));
        let opened = self.try_open(call, payload, &mut ongoing).await;
        if let (Err(failure), Some(ongoing)) = (&opened, &mut ongoing) {
            ongoing.end_with(self.shard().now(), &Outcome::Failed(*failure));
        }
        opened
    }

    async fn try_open<P: Payload>(
        &self,
        mut call: Outgoing,
        payload: P,
        ongoing: &mut Option<Ongoing>,
    ) -> Result<LocalStream, Failure> {
        let shard = self.shard();
        let deadline = shard.now() + call.timeout;
        loop {
            if !self.connection().skew().adapt_for(&mut call, &payload) && shard.now() < deadline {
                self.room(Waits::Table, deadline).await;
                continue;
            }
            // Another one if it had to wait for that.
            let handle = self.connection().handle();
            let stream = OpenStream::new(shard, handle);
            let ticket = Ticket::Stream(Rc::clone(&stream));
            let called = match ongoing {
                None => shard.call(handle, &call, shard.due_at(deadline), &payload, ticket),
                Some(ongoing) => {
                    let measured = ongoing.measure(&payload);
                    let due = shard.due_at(deadline);
                    let called = shard.call(handle, &call, due, &measured, ticket);
                    ongoing.sends(measured.bytes());
                    called
                }
            };
            match called {
                Ok(id) => {
                    stream.register(id.into());
                    stream.watch(ongoing.take());
                    let (client, called) = (self.clone(), Called::from(&call));
                    return Ok(LocalStream(Rc::new(Opened { stream, id, client, called })));
                }
                Err(refused) => match self.connection().judge(refused.failure, call.wait_for_ready)
                {
                    Waits::Not(failure) => return Err(failure),
                    // Nor does any other call to a peer.
                    Waits::Room if !self.waits_for_room() => return Err(refused.failure),
                    _ if shard.now() >= deadline => {
                        return Err(Failure::not_sent(Cause::Expired));
                    }
                    waits => self.room(waits, deadline).await,
                },
            }
        }
    }
}

impl StreamChannel for LocalClient {
    type Call = LocalStream;
    type Opening<'a, P>
        = <Self as OwnedStreamChannel>::OwnedOpening<'a, P>
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        self.clone().open_owned(call, payload)
    }
}

impl OwnedStreamChannel for LocalClient {
    type OwnedOpening<'a, P>
        = Pin<Box<dyn Future<Output = Result<LocalStream, Failure>> + 'a>>
    where
        P: Payload + Clone + 'a;

    fn open_owned<'a, P: Payload + Clone + 'a>(
        self,
        call: Outgoing,
        payload: P,
    ) -> Self::OwnedOpening<'a, P> {
        Box::pin(async move { self.open_packed(call, payload).await })
    }
}

impl LocalStream {
    /// What arrived next, without counting an item as taken: that is what [`taken`](Self::taken) is for.
    pub(crate) fn poll_held(&self, cx: &mut Context<'_>) -> Poll<Arrived<Chunk>> {
        let arrived = self.0.stream.poll_arrived(cx);
        match &arrived {
            // It is not made again, since items may have been sent; the next one will fare better.
            Poll::Ready(Arrived::End(Err(failure))) => {
                self.0.client.connection().skew().learn(failure, self.0.called);
            }
            Poll::Ready(Arrived::Item { encoding, .. }) if encoding.codec.has_names() => {
                self.0.client.shard().count_fallback(self.0.stream.handle(), 0, 1);
            }
            _ => {}
        }
        arrived
    }

    /// Sends an item that is compressed already, if it is to be.
    pub(crate) fn poll_send_as_it_is<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        self.0.stream.poll_send(cx, self.by_names(encoding), payload)
    }

    /// A call that goes by names has items with names.
    fn by_names(&self, encoding: Encoding) -> Encoding {
        match encoding.codec == Codec::RKYV && self.0.called.is_by_names() {
            true => Encoding { codec: Codec::MESSAGEPACK, signature: 0, ..encoding },
            false => encoding,
        }
    }

    /// An item with a body of this length was taken.
    pub(crate) fn taken(&self, bytes: usize) {
        self.0.stream.consumed(bytes);
    }

    /// How the call failed, if nobody was told.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.0.stream.take_failure()
    }
}

impl StreamCall for LocalStream {
    type Body = Chunk;

    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        let encoding = self.by_names(encoding);
        if encoding.compression != 0 {
            return self.0.stream.poll_send_packed(cx, encoding, payload);
        }
        self.0.stream.poll_send(cx, encoding, payload)
    }

    fn end_items(&self) {
        self.0.stream.end_items(self.0.id);
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<Chunk>> {
        let Poll::Ready(arrived) = self.poll_held(cx) else { return Poll::Pending };
        if let Arrived::Item { body, .. } = &arrived {
            self.taken(body.len());
        }
        let limit = self.0.client.message_bytes_max();
        Poll::Ready(inflate_arrived(arrived, limit).unwrap_or_else(|failure| {
            self.cancel();
            Arrived::End(Err(failure))
        }))
    }

    fn cancel(&self) {
        self.0.stream.cancel(self.0.id);
    }
}

impl fmt::Debug for LocalStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("LocalStream").field(&self.0.stream).finish()
    }
}

/// A call with streams of a [`BlockingClient`]. It keeps the shard, which is driven while something of
/// the call is waited for.
#[derive(Clone, Debug)]
pub struct BlockingStream {
    shard: Shard,
    stream: LocalStream,
}

impl BlockOn for BlockingStream {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        self.shard.block_on(future)
    }
}

impl StreamChannel for BlockingClient {
    type Call = BlockingStream;
    type Opening<'a, P>
        = Pin<Box<dyn Future<Output = Result<BlockingStream, Failure>> + 'a>>
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        let opening = self.local().open_packed(call, payload);
        Box::pin(async move {
            Ok(BlockingStream { shard: self.shard().clone(), stream: opening.await? })
        })
    }
}

impl StreamCall for BlockingStream {
    type Body = Chunk;

    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        self.stream.poll_send(cx, encoding, payload)
    }

    fn end_items(&self) {
        self.stream.end_items();
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<Chunk>> {
        self.stream.poll_arrived(cx)
    }

    fn cancel(&self) {
        self.stream.cancel();
    }
}
