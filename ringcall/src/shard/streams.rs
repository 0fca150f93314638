//! Streams of calls on a shard: where items wait for whoever takes them, and senders for room.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringcall_core::{
    Answer, Arrived, CallId, Cause, Chunk, Encoding, Event, Failure, Handle, Item, ItemError,
    Outcome, Payload, Reply, Side, Status, StreamId,
};

use super::inner::{Inner, Ticket};
use crate::observe::Ongoing;

/// The calls with streams of a shard, of both sides: by connection, by who made the call, by slot. Slots are
/// below the limit of calls in flight, which bounds it.
#[derive(Default)]
pub(crate) struct Streams(RefCell<Vec<[Vec<Option<Known>>; 2]>>);

type Known = (Handle, StreamId, Rc<OpenStream>);

/// One side of a call with streams: what its handler or its caller shares with the shard.
///
/// Received items wait here until they are taken; core's window bounds how many. Whoever owns it must
/// [`close`](OpenStream::close) it.
pub(crate) struct OpenStream {
    shard: Rc<Inner>,
    handle: Handle,
    /// Unknown while the call is being made.
    id: OnceCell<StreamId>,
    state: RefCell<State>,
    /// How many items were taken, and their bytes, of which core will be told before the turn ends.
    taken: Cell<(usize, usize)>,
}

#[derive(Default)]
struct State {
    /// The reply has begun, and the caller has not been told.
    began: Option<Reply>,
    items: VecDeque<Item>,
    /// The other side has sent its last item.
    is_complete: bool,
    /// How the call ended for its caller, who has not been told.
    outcome: Option<Outcome>,
    /// The call has ended: nothing arrives any more, and nothing is sent.
    is_over: bool,
    /// Nobody will take what arrives.
    is_unread: bool,
    /// Core has promised to say when there is room.
    is_blocked: bool,
    /// The call must end with this status.
    broken: Option<Status>,
    reader: Option<Waker>,
    writer: Option<Waker>,
    /// Whoever ends the call when it is broken.
    owner: Option<Waker>,
    /// For observers of its caller, until it has ended.
    ongoing: Option<Ongoing>,
}

impl OpenStream {
    /// What one takes, with its place in the table, and what core has of it.
    pub(crate) const BYTES: usize = size_of::<OpenStream>() + size_of::<Option<Known>>() + 256;
}

impl Streams {
    #[inline]
    pub(crate) fn find(&self, handle: Handle, id: StreamId) -> Option<Rc<OpenStream>> {
        let streams = self.0.borrow();
        let slots = &streams.get(handle.index as usize)?[side(id)];
        let (of, is, stream) = slots.get(id.slot() as usize)?.as_ref()?;
        (*of == handle && *is == id).then(|| Rc::clone(stream))
    }

    fn insert(&self, handle: Handle, id: StreamId, stream: Rc<OpenStream>) {
        let mut streams = self.0.borrow_mut();
        let (index, slot) = (handle.index as usize, id.slot() as usize);
        if index >= streams.len() {
            streams.resize_with(index + 1, Default::default);
        }
        let slots = &mut streams[index][side(id)];
        if slot >= slots.len() {
            slots.resize_with(slot + 1, || None);
        }
        let before = slots[slot].replace((handle, id, stream));
        // Dropping one may run somebody's code, which may come here.
        drop(streams);
        drop(before);
    }

    fn remove(&self, handle: Handle, id: StreamId) -> Option<Rc<OpenStream>> {
        let mut streams = self.0.borrow_mut();
        let slots = &mut streams.get_mut(handle.index as usize)?[side(id)];
        let known = slots.get_mut(id.slot() as usize)?;
        known.take_if(|(of, is, _)| *of == handle && *is == id).map(|(.., stream)| stream)
    }
}

fn side(id: StreamId) -> usize {
    usize::from(id.caller() == Side::Server)
}

impl Inner {
    /// An item has arrived, and with it perhaps more of its stream. Returns how many more.
    pub(super) fn item_arrived(&self, handle: Handle, id: StreamId, item: Item) -> u32 {
        let stream = self.streams.find(handle, id);
        let Some(stream) = stream.filter(|stream| !stream.state.borrow().is_unread) else {
            self.consumed(handle, id, 1, item.body.len());
            return 0;
        };
        let mut more = 0;
        stream.wake_reader(|state| {
            state.items.push_back(item);
            let mut endpoint = self.endpoint.borrow_mut();
            more = endpoint.poll_items(self.now(), handle, id, |item| state.items.push_back(item));
        });
        more
    }

    /// What else core has to say about streams.
    pub(crate) fn stream_event(&self, handle: Handle, event: Event<Ticket>) {
        match event {
            Event::Answering(call, reply) => {
                if let Some(stream) = self.streams.find(handle, call.into()) {
                    stream.wake_reader(|state| state.began = Some(reply));
                }
            }
            Event::ItemsEnd(request) => {
                if let Some(stream) = self.streams.find(handle, request.into()) {
                    stream.wake_reader(|state| state.is_complete = true);
                }
            }
            Event::Writable(id) => {
                if let Some(stream) = self.streams.find(handle, id) {
                    let writer = {
                        let mut state = stream.state.borrow_mut();
                        state.is_blocked = false;
                        state.writer.take()
                    };
                    writer.into_iter().for_each(Waker::wake);
                }
            }
            _ => {}
        }
    }

    fn consumed(&self, handle: Handle, id: StreamId, items: usize, bytes: usize) {
        self.endpoint.borrow_mut().consumed(handle, id, items, bytes);
        self.left_work();
    }

    /// Tells core what was taken of streams.
    pub(super) fn give_back_taken(&self) {
        while let Some(stream) = self.taken_of.borrow_mut().pop() {
            let (items, bytes) = stream.taken.take();
            if let Some(&id) = stream.id.get() {
                self.endpoint.borrow_mut().consumed(stream.handle, id, items, bytes);
            }
        }
    }
}

impl OpenStream {
    /// For a call that is about to be made.
    pub(crate) fn new(shard: &Rc<Inner>, handle: Handle) -> Rc<OpenStream> {
        Rc::new(OpenStream {
            shard: Rc::clone(shard),
            handle,
            id: OnceCell::new(),
            state: RefCell::default(),
            taken: Cell::default(),
        })
    }

    /// From now on events find it.
    pub(crate) fn register(self: &Rc<Self>, id: StreamId) {
        if self.id.set(id).is_ok() {
            self.shard.streams.insert(self.handle, id, Rc::clone(self));
        }
    }

    pub(crate) fn shard(&self) -> &Rc<Inner> {
        &self.shard
    }

    pub(crate) fn handle(&self) -> Handle {
        self.handle
    }

    /// The call is over for its owner: what was not taken is given back, now and later.
    pub(crate) fn close(self: &Rc<Self>) {
        if let Some(&id) = self.id.get() {
            self.shard.streams.remove(self.handle, id);
        }
        self.discard();
        let (reader, writer) = {
            let mut state = self.state.borrow_mut();
            state.is_over = true;
            (state.reader.take(), state.writer.take())
        };
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    /// Nobody takes items any more: those that are here and those to come are given back unread.
    pub(crate) fn discard(self: &Rc<Self>) {
        let items = {
            let mut state = self.state.borrow_mut();
            state.is_unread = true;
            std::mem::take(&mut state.items)
        };
        for item in items {
            self.consumed(item.body.len());
        }
    }

    /// An item with a body of this length is no longer held here. Core hears of all that a turn takes at
    /// once.
    #[inline]
    pub(crate) fn consumed(self: &Rc<Self>, bytes: usize) {
        if self.shard.executor.is_entered() {
            let (items, so_far) = self.taken.get();
            self.taken.set((items + 1, so_far + bytes));
            if items == 0 {
                self.shard.taken_of.borrow_mut().push(Rc::clone(self));
            }
        } else if let Some(&id) = self.id.get() {
            self.shard.consumed(self.handle, id, 1, bytes);
        }
    }

    /// Observers of its caller are told when it ends.
    pub(crate) fn watch(&self, ongoing: Option<Ongoing>) {
        self.state.borrow_mut().ongoing = ongoing;
    }

    /// The call has ended for its caller.
    pub(crate) fn complete(&self, outcome: Outcome) {
        let ongoing = self.state.borrow_mut().ongoing.take();
        if let Some(mut ongoing) = ongoing {
            ongoing.end_with(self.shard.now(), &outcome);
        }
        let (reader, writer) = {
            let mut state = self.state.borrow_mut();
            state.outcome = Some(outcome);
            state.is_over = true;
            (state.reader.take(), state.writer.take())
        };
        reader.into_iter().chain(writer).for_each(Waker::wake);
    }

    /// Whether the call has ended.
    pub(crate) fn is_over(&self) -> bool {
        self.state.borrow().is_over
    }

    /// How the call ended, if its caller was not told otherwise.
    pub(crate) fn take_failure(&self) -> Option<Failure> {
        self.state.borrow_mut().outcome.take()?.into_answer().err()
    }

    fn wake_reader(&self, change: impl FnOnce(&mut State)) {
        let reader = {
            let mut state = self.state.borrow_mut();
            change(&mut state);
            state.reader.take()
        };
        reader.into_iter().for_each(Waker::wake);
    }

    // ---- the handler's side ----

    /// The call must end with this status: its owner is told.
    pub(crate) fn break_off(self: &Rc<Self>, status: Status) {
        self.discard();
        let owner = {
            let mut state = self.state.borrow_mut();
            state.broken.get_or_insert(status);
            state.owner.take()
        };
        owner.into_iter().for_each(Waker::wake);
    }

    /// The status with which the call must end, if it must. Otherwise remembers whom to tell.
    pub(crate) fn poll_broken(&self, waker: &Waker) -> Option<Status> {
        let mut state = self.state.borrow_mut();
        if state.broken.is_none() {
            remember(&mut state.owner, waker);
        }
        state.broken
    }

    /// The next item of the caller; `None` when it has sent the last one, or the call is over.
    pub(crate) fn poll_item(self: &Rc<Self>, cx: &mut Context<'_>) -> Poll<Option<Item>> {
        let mut state = self.state.borrow_mut();
        let Some(mut item) = state.items.pop_front() else {
            if state.is_over || (state.is_complete && state.broken.is_none()) {
                return Poll::Ready(None);
            }
            remember(&mut state.reader, cx.waker());
            return Poll::Pending;
        };
        drop(state);
        self.consumed(item.body.len());
        if self.shard.inflate_item(self.handle, &mut item).is_err() {
            // Its compression is nobody's then, and its receiver breaks the call off.
            item.body = Chunk::empty();
        }
        Poll::Ready(Some(item))
    }

    // ---- the caller's side ----

    /// What arrived next. An item is not [`consumed`](Self::consumed) yet.
    pub(crate) fn poll_arrived(&self, cx: &mut Context<'_>) -> Poll<Arrived<Chunk>> {
        let mut state = self.state.borrow_mut();
        if let Some(reply) = state.began.take() {
            return Poll::Ready(Arrived::Began(reply.into()));
        }
        if let Some(Item { encoding, body, attached }) = state.items.pop_front() {
            return Poll::Ready(Arrived::Item { encoding, body, attached });
        }
        if let Some(outcome) = state.outcome.take() {
            return Poll::Ready(Arrived::End(outcome.into_answer().map(Answer::from)));
        }
        remember(&mut state.reader, cx.waker());
        Poll::Pending
    }

    /// Gives the call up.
    pub(crate) fn cancel(self: &Rc<Self>, call: CallId) {
        if self.is_over() {
            return;
        }
        drop(self.shard.cancel(self.handle, call));
        self.complete(Outcome::Failed(Failure::unknown(Cause::Cancelled)));
        self.discard();
    }

    /// There are no further items of the caller's.
    pub(crate) fn end_items(&self, call: CallId) {
        self.shard.endpoint.borrow_mut().end_items(self.shard.now(), self.handle, call);
        self.shard.left_work();
    }

    // ---- both ----

    /// The same for an item that may have to be compressed.
    pub(crate) fn poll_send_packed<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        {
            let mut state = self.state.borrow_mut();
            if state.is_blocked && !state.is_over {
                // Not worth the work yet.
                remember(&mut state.writer, cx.waker());
                return Poll::Pending;
            }
        }
        match self.shard.pack_item(self.handle, encoding, payload) {
            Ok((payload, encoding)) => self.poll_send(cx, encoding, &payload),
            Err(error) => Poll::Ready(Err(ItemError::Encode(error))),
        }
    }

    /// Sends an item; pending until there is room.
    pub(crate) fn poll_send<P: Payload>(
        &self,
        cx: &mut Context<'_>,
        encoding: Encoding,
        payload: &P,
    ) -> Poll<Result<(), ItemError>> {
        let Some(&id) = self.id.get() else { return Poll::Ready(Err(ItemError::Ended)) };
        {
            let mut state = self.state.borrow_mut();
            if state.is_over {
                return Poll::Ready(Err(ItemError::Ended));
            }
            if state.is_blocked {
                remember(&mut state.writer, cx.waker());
                return Poll::Pending;
            }
        }
        let now = self.shard.now();
        let sent =
            self.shard.endpoint.borrow_mut().send_item(now, self.handle, id, encoding, payload);
        match sent {
            Err(ItemError::Blocked) => {
                let mut state = self.state.borrow_mut();
                state.is_blocked = true;
                remember(&mut state.writer, cx.waker());
                Poll::Pending
            }
            sent => {
                self.shard.left_work();
                Poll::Ready(sent)
            }
        }
    }
}

impl std::fmt::Debug for OpenStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.state.borrow();
        f.debug_struct("OpenStream")
            .field("id", &self.id.get())
            .field("items", &state.items.len())
            .field("is_over", &state.is_over)
            .finish_non_exhaustive()
    }
}

fn remember(kept: &mut Option<Waker>, waker: &Waker) {
    match kept {
        Some(kept) => kept.clone_from(waker),
        None => *kept = Some(waker.clone()),
    }
}
