//! Calls with streams from other threads: a pair of queues between the caller and a task of the shard.

use std::collections::VecDeque;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use ringcall_core::{
    Arrived, Cause, Chunk, EncodeError, Encoded, Encoding, Failure, ItemError, Outgoing,
    OwnedStreamChannel, Payload, SharedChunk, StreamCall, StreamChannel,
};

use super::shared::{Line, Outbox};
use super::{BlockOn, Client, LocalClient, LocalStream, Peer, Watched};
use crate::block_on::block_on;
use crate::packing::inflate_arrived;
use crate::shard::{Notice, RemoteOpening};
use crate::sync::Mutex;

/// How many items wait for the shard, and how many of their bytes. More wait with their sender.
const OUT_ITEMS: usize = 64;
const OUT_BYTES: usize = 256 * 1024;
/// How many items, or bytes of them, are taken before the shard is told, unless all were.
const TAKEN_ITEMS: usize = 64;
const TAKEN_BYTES: usize = 64 * 1024;

/// What the caller of a call and the task on the shard share.
#[derive(Default)]
pub(crate) struct Bridge(Mutex<State>);

#[derive(Default)]
struct State {
    is_opened: bool,
    /// What the caller sends.
    outgoing: VecDeque<OutItem>,
    outgoing_bytes: usize,
    /// The caller sends nothing further.
    is_ended: bool,
    /// The caller has given up.
    is_cancelled: bool,
    /// What has arrived for the caller; core's window bounds it.
    arrived: VecDeque<Arrived<SharedChunk>>,
    /// How many items are among it.
    held: usize,
    /// The lengths of items that the caller has taken, for the shard to know.
    taken: Vec<usize>,
    taken_bytes: usize,
    /// The other side takes no items any more.
    is_deaf: bool,
    /// The end has arrived.
    is_over: bool,
    shard: Option<Waker>,
    sender: Option<Waker>,
    receiver: Option<Waker>,
}

struct OutItem {
    encoding: Encoding,
    payload: Encoded,
    bytes: usize,
}

impl State {
    fn is_full(&self) -> bool {
        self.outgoing.len() >= OUT_ITEMS || self.outgoing_bytes >= OUT_BYTES
    }

    /// The last thing that arrives.
    fn end(&mut self, failure: Failure) -> Wakers {
        if !std::mem::replace(&mut self.is_over, true) {
            self.arrived.push_back(Arrived::End(Err(failure)));
        }
        self.outgoing.clear();
        Wakers(self.sender.take(), self.receiver.take())
    }
}

/// To be woken when the lock is free.
struct Wakers(Option<Waker>, Option<Waker>);

impl Wakers {
    fn wake(self) {
        self.0.into_iter().chain(self.1).for_each(Waker::wake);
    }
}

// ---- on the shard ----

impl Bridge {
    /// The shard is gone, or does not know the connection.
    pub(crate) fn shut_down(&self) {
        let wakers = self.0.lock().end(Failure::not_sent(Cause::Shutdown));
        wakers.wake();
    }

    /// Makes the call and moves items until it is over.
    pub(crate) async fn carry(self: Arc<Self>, client: LocalClient, call: Outgoing, body: Encoded) {
        let mut end = EndOfTask { bridge: &self, stream: None };
        let opened = {
            let mut opening = pin!(client.open_stream(call, body));
            poll_fn(|cx| {
                let mut state = self.0.lock();
                if state.is_cancelled {
                    return Poll::Ready(None);
                }
                state.shard = Some(cx.waker().clone());
                drop(state);
                opening.as_mut().poll(cx).map(Some)
            })
            .await
        };
        let stream = match opened {
            None => return,
            Some(Err(failure)) => {
                let wakers = self.0.lock().end(failure);
                return wakers.wake();
            }
            Some(Ok(stream)) => stream,
        };
        let receiver = {
            let mut state = self.0.lock();
            state.is_opened = true;
            state.receiver.take()
        };
        receiver.into_iter().for_each(Waker::wake);
        end.stream = Some(stream.clone());
        let mut has_ended = false;
        let mut taken = Vec::new();
        poll_fn(|cx| self.poll_carry(&stream, &mut has_ended, &mut taken, cx)).await;
    }

    fn poll_carry(
        &self,
        stream: &LocalStream,
        has_ended: &mut bool,
        taken: &mut Vec<usize>,
        cx: &mut Context<'_>,
    ) -> Poll<()> {
        let mut state = self.0.lock();
        std::mem::swap(&mut state.taken, taken);
        state.taken_bytes = 0;
        taken.drain(..).for_each(|bytes| stream.taken(bytes));
        if state.is_cancelled {
            drop(state);
            stream.cancel();
            return Poll::Ready(());
        }
        match &mut state.shard {
            Some(kept) => kept.clone_from(cx.waker()),
            None => state.shard = Some(cx.waker().clone()),
        }
        let mut wakers = Wakers(None, None);
        if let Some(failure) = send_waiting(&mut state, stream, &mut wakers, cx) {
            wakers = state.end(failure);
        } else if state.is_ended && state.outgoing.is_empty() && !*has_ended {
            *has_ended = true;
            stream.end_items();
        }
        while !state.is_over {
            let Poll::Ready(arrived) = stream.poll_held(cx) else { break };
            match arrived {
                Arrived::End(_) => state.is_over = true,
                Arrived::Item { .. } => state.held += 1,
                Arrived::Began(_) => {}
            }
            state.arrived.push_back(share(arrived));
            wakers.1 = wakers.1.or(state.receiver.take());
        }
        if state.is_over {
            wakers.0 = wakers.0.or(state.sender.take());
        }
        // What the caller still holds must be given back when it takes it.
        let is_done = state.is_over && state.held == 0;
        drop(state);
        wakers.wake();
        if is_done { Poll::Ready(()) } else { Poll::Pending }
    }
}

/// Sends what waits, as far as there is room. `Some` if an item cannot be sent at all.
fn send_waiting(
    state: &mut State,
    stream: &LocalStream,
    wakers: &mut Wakers,
    cx: &mut Context<'_>,
) -> Option<Failure> {
    while let Some(item) = state.outgoing.front() {
        match stream.poll_send_as_it_is(cx, item.encoding, &item.payload) {
            Poll::Pending => break,
            Poll::Ready(Ok(())) => {
                state.outgoing_bytes -= item.bytes;
                state.outgoing.pop_front();
            }
            Poll::Ready(Err(ItemError::Encode(error))) => {
                stream.cancel();
                return Some(encode_failure(error));
            }
            // The end of the call follows.
            Poll::Ready(Err(_)) => {
                state.is_deaf = true;
                state.outgoing.clear();
            }
        }
    }
    if state.is_deaf || state.outgoing.len() <= OUT_ITEMS / 2 && !state.is_full() {
        wakers.0 = state.sender.take();
    }
    None
}

/// Too late for [`Failure::not_sent`]: items before it may have been seen.
fn encode_failure(error: EncodeError) -> Failure {
    Failure::unknown(error.into())
}

fn share(arrived: Arrived<Chunk>) -> Arrived<SharedChunk> {
    match arrived {
        Arrived::Began(answer) => Arrived::Began(answer.share()),
        Arrived::Item { encoding, body, attached } => {
            Arrived::Item { encoding, body: body.share(), attached }
        }
        Arrived::End(end) => Arrived::End(end.map(ringcall_core::Answer::share)),
    }
}

/// Tells the caller the end when the task is dropped before it has come, with its shard.
struct EndOfTask<'a> {
    bridge: &'a Bridge,
    stream: Option<LocalStream>,
}

impl Drop for EndOfTask<'_> {
    fn drop(&mut self) {
        let failure = match &self.stream {
            None => Failure::not_sent(Cause::Shutdown),
            Some(stream) => stream.take_failure().unwrap_or(Failure::unknown(Cause::Shutdown)),
        };
        let wakers = self.bridge.0.lock().end(failure);
        wakers.wake();
    }
}

// ---- on the caller's thread ----

/// A call with streams of a [`Client`], whose connection it keeps, or of a [`Peer`].
///
/// An item that is larger than the server accepts ends the call, since that is seen on the shard only.
#[derive(Clone)]
pub struct RemoteStream(Arc<Opened>);

struct Opened {
    outbox: Outbox,
    bridge: Arc<Bridge>,
    /// Keeps its connection; a peer's is not kept.
    _client: Option<Client>,
    /// Knows what the other side reads.
    watched: Watched,
    /// How long an item may be.
    message_bytes_max: usize,
}

impl Opened {
    fn cancel(&self) {
        let (wakers, shard) = {
            let mut state = self.bridge.0.lock();
            if state.is_cancelled || (state.is_over && state.held == 0) {
                return;
            }
            state.is_cancelled = true;
            let State { arrived, taken, held, .. } = &mut *state;
            // What was not taken is given back.
            taken.extend(arrived.drain(..).filter_map(|arrived| match arrived {
                Arrived::Item { body, .. } => Some(body.len()),
                _ => None,
            }));
            *held = 0;
            (state.end(Failure::unknown(Cause::Cancelled)), state.shard.take())
        };
        wakers.wake();
        shard.into_iter().for_each(Waker::wake);
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.cancel();
    }
}

impl StreamChannel for Client {
    type Call = RemoteStream;
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

impl OwnedStreamChannel for Client {
    type OwnedOpening<'a, P>
        = Pin<Box<dyn Future<Output = Result<RemoteStream, Failure>> + Send + 'a>>
    where
        P: Payload + Clone + 'a;

    fn open_owned<'a, P: Payload + Clone + 'a>(
        self,
        mut call: Outgoing,
        payload: P,
    ) -> Self::OwnedOpening<'a, P> {
        self.line().adapt(&mut call);
        // Encoded here, so that the future need not take the payload to another thread.
        let payload = self.line().encode(&mut call, &payload);
        Box::pin(async move {
            let kept = Some(self.clone());
            RemoteStream::open(self.line(), call, payload?.0, kept).await
        })
    }
}

impl StreamChannel for Peer {
    type Call = RemoteStream;
    type Opening<'a, P>
        = Pin<Box<dyn Future<Output = Result<RemoteStream, Failure>> + Send + 'a>>
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(
        &'a self,
        mut call: Outgoing,
        payload: P,
    ) -> Self::Opening<'a, P> {
        let line = self.open_line();
        let payload = line.and_then(|line| Ok((line, line.encode(&mut call, &payload)?.0)));
        Box::pin(async move {
            let (line, payload) = payload?;
            RemoteStream::open(line, call, payload, None).await
        })
    }
}

impl RemoteStream {
    async fn open(
        line: &Line,
        outgoing: Outgoing,
        payload: Encoded,
        client: Option<Client>,
    ) -> Result<RemoteStream, Failure> {
        let bridge = Arc::new(Bridge::default());
        let opened = RemoteStream(Arc::new(Opened {
            outbox: line.outbox().clone(),
            bridge: Arc::clone(&bridge),
            _client: client,
            watched: line.watched().clone(),
            message_bytes_max: line.message_bytes_max(),
        }));
        let opening = RemoteOpening { to: line.to(), outgoing, payload, bridge };
        line.remote.notify(Notice::Open(Box::new(opening)));
        poll_fn(|cx| opened.poll_opened(cx)).await?;
        Ok(opened)
    }

    fn poll_opened(&self, cx: &mut Context<'_>) -> Poll<Result<(), Failure>> {
        let mut state = self.0.bridge.0.lock();
        if state.is_opened {
            return Poll::Ready(Ok(()));
        }
        if let Some(Arrived::End(Err(failure))) = state.arrived.pop_front() {
            return Poll::Ready(Err(failure));
        }
        state.receiver = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl StreamCall for RemoteStream {
    type Body = SharedChunk;

    fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        {
            let mut state = self.0.bridge.0.lock();
            if state.is_over || state.is_deaf || state.is_ended {
                return Poll::Ready(Err(ItemError::Ended));
            }
            if state.is_full() {
                state.sender = Some(cx.waker().clone());
                return Poll::Pending;
            }
        }
        let accepted = || self.0.watched.compressions();
        let payload = self.0.outbox.encode_packed(encoding, accepted, payload);
        let (payload, _, encoding) = payload.map_err(ItemError::Encode)?;
        let bytes = payload.len();
        let shard = {
            let mut state = self.0.bridge.0.lock();
            let was_empty = state.outgoing.is_empty();
            state.outgoing_bytes += bytes;
            state.outgoing.push_back(OutItem { encoding, payload, bytes });
            // Otherwise it knows already.
            if was_empty { state.shard.clone() } else { None }
        };
        shard.into_iter().for_each(Waker::wake);
        Poll::Ready(Ok(()))
    }

    fn end_items(&self) {
        let shard = {
            let mut state = self.0.bridge.0.lock();
            if std::mem::replace(&mut state.is_ended, true) { None } else { state.shard.clone() }
        };
        shard.into_iter().for_each(Waker::wake);
    }

    fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<SharedChunk>> {
        let mut state = self.0.bridge.0.lock();
        let Some(arrived) = state.arrived.pop_front() else {
            match &mut state.receiver {
                Some(kept) => kept.clone_from(cx.waker()),
                None => state.receiver = Some(cx.waker().clone()),
            }
            return Poll::Pending;
        };
        let mut shard = None;
        if let Arrived::Item { body, .. } = &arrived {
            state.held -= 1;
            state.taken.push(body.len());
            state.taken_bytes += body.len();
            let is_much = state.taken.len() >= TAKEN_ITEMS || state.taken_bytes >= TAKEN_BYTES;
            if is_much || state.held == 0 {
                shard = state.shard.clone();
            }
        }
        drop(state);
        shard.into_iter().for_each(Waker::wake);
        Poll::Ready(inflate_arrived(arrived, self.0.message_bytes_max).unwrap_or_else(|failure| {
            self.cancel();
            Arrived::End(Err(failure))
        }))
    }

    fn cancel(&self) {
        self.0.cancel();
    }
}

impl BlockOn for RemoteStream {
    fn block_on<F: Future>(&self, future: F) -> F::Output {
        block_on(future)
    }
}

impl fmt::Debug for RemoteStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = self.0.bridge.0.lock();
        f.debug_struct("RemoteStream")
            .field("arrived", &state.arrived.len())
            .field("outgoing", &state.outgoing.len())
            .finish_non_exhaustive()
    }
}
