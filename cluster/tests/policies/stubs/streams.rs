//! Calls with streams, whose other side says what it is told to say.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_cluster::{Balanced, BalancedOpening, BalancedStream};
use ringcall_core::frame::{Extensions, ReplyHeader, request_flags, tag};
use ringcall_core::{
    Answer, Arrived, Attached, Chunk, Codec, Empty, Encoding, Failure, ItemError, Outgoing,
    OwnedStreamChannel, Payload, Status, StreamCall, StreamChannel,
};

use super::{Stub, Stubs, World, outgoing};

pub(crate) const IN: u8 = request_flags::ITEMS_IN;
pub(crate) const OUT: u8 = request_flags::ITEMS_OUT;

#[derive(Debug, Default)]
pub(crate) struct Streams {
    /// How calls fail before their connection has taken them; `None`: they wait. Others are taken at once.
    pub(crate) opening: RefCell<BTreeMap<String, Option<Failure>>>,
    /// What arrives next, at whichever call of an instance asks first.
    pub(crate) arriving: RefCell<BTreeMap<String, VecDeque<Arrived<Chunk>>>>,
    /// How long the attempts that were made may take.
    pub(crate) timeouts: RefCell<Vec<Duration>>,
}

impl Streams {
    pub(crate) fn opens(&self, name: &str, opening: Option<Failure>) {
        self.opening.borrow_mut().insert(name.to_owned(), opening);
    }

    /// The instance says this next.
    pub(crate) fn says(&self, name: &str, arrived: Arrived<Chunk>) {
        self.arriving.borrow_mut().entry(name.to_owned()).or_default().push_back(arrived);
    }

    /// Each of them says this next.
    pub(crate) fn all_say(&self, names: &str, arrived: &Arrived<Chunk>) {
        names.chars().for_each(|name| self.says(&name.to_string(), arrived.clone()));
    }

    /// What was not heard is not said any more.
    pub(crate) fn hush(&self) {
        self.arriving.borrow_mut().clear();
    }
}

fn answer(status: Status) -> Answer<Chunk> {
    Answer {
        header: ReplyHeader::new(status),
        body: Chunk::empty(),
        attached: Attached::Nothing,
        extensions: Chunk::empty(),
    }
}

pub(crate) fn began() -> Arrived<Chunk> {
    Arrived::Began(answer(Status::OK))
}

pub(crate) fn item() -> Arrived<Chunk> {
    let encoding = Encoding::plain(Codec::RAW, 0);
    Arrived::Item { encoding, body: Chunk::empty(), attached: Attached::Nothing }
}

pub(crate) fn ended(status: Status) -> Arrived<Chunk> {
    Arrived::End(Ok(answer(status)))
}

pub(crate) fn failed(failure: Failure) -> Arrived<Chunk> {
    Arrived::End(Err(failure))
}

/// A call with streams; clones are the same one.
#[derive(Clone)]
pub(crate) struct StubStream(Rc<Opened>);

struct Opened {
    stub: Stub,
    is_over: Cell<bool>,
}

impl Drop for Opened {
    fn drop(&mut self) {
        if !self.is_over.get() {
            self.stub.0.given_up.borrow_mut().push(self.stub.1.to_string());
        }
    }
}

impl StreamCall for StubStream {
    type Body = Chunk;

    fn poll_send<P: Payload>(
        &self,
        _: &mut Context<'_>,
        _: Encoding,
        _: &P,
    ) -> Poll<Result<(), ItemError>> {
        Poll::Ready(Ok(()))
    }

    fn end_items(&self) {}

    fn poll_arrived(&self, _: &mut Context<'_>) -> Poll<Arrived<Chunk>> {
        let Stub(world, name) = &self.0.stub;
        let mut arriving = world.streams.arriving.borrow_mut();
        let next = arriving.get_mut(&**name).and_then(VecDeque::pop_front);
        let Some(arrived) = next.filter(|_| !self.0.is_over.get()) else { return Poll::Pending };
        self.0.is_over.set(matches!(arrived, Arrived::End(_)));
        Poll::Ready(arrived)
    }

    fn cancel(&self) {
        if !self.0.is_over.replace(true) {
            self.0.stub.0.given_up.borrow_mut().push(self.0.stub.1.to_string());
        }
    }
}

pub(crate) struct StubOpen(Stub);

impl Future for StubOpen {
    type Output = Result<StubStream, Failure>;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let Stub(world, name) = &self.0;
        match world.streams.opening.borrow().get(&**name) {
            Some(None) => Poll::Pending,
            Some(Some(failure)) => Poll::Ready(Err(*failure)),
            None => {
                let is_over = Cell::new(false);
                Poll::Ready(Ok(StubStream(Rc::new(Opened { stub: self.0.clone(), is_over }))))
            }
        }
    }
}

impl StreamChannel for Stub {
    type Call = StubStream;
    type Opening<'a, P>
        = StubOpen
    where
        P: Payload + Clone + 'a;

    fn open<'a, P: Payload + Clone + 'a>(&'a self, call: Outgoing, payload: P) -> StubOpen {
        self.clone().open_owned(call, payload)
    }
}

impl OwnedStreamChannel for Stub {
    type OwnedOpening<'a, P>
        = StubOpen
    where
        P: Payload + Clone + 'a;

    fn open_owned<'a, P: Payload + Clone + 'a>(self, call: Outgoing, payload: P) -> StubOpen {
        for found in Extensions::new(payload.extensions()).flatten() {
            if found.tag == tag::IDEMPOTENCY_KEY {
                self.0.keys.borrow_mut().push(found.value.to_vec());
            }
        }
        self.0.made.borrow_mut().push((self.1.to_string(), call.attempt, call.flags));
        self.0.streams.timeouts.borrow_mut().push(call.timeout);
        StubOpen(self)
    }
}

pub(crate) type Stream = BalancedStream<Stubs>;

pub(crate) fn poll_open(
    opening: &mut BalancedOpening<'_, Stubs, Empty>,
) -> Poll<Result<Stream, Failure>> {
    Pin::new(opening).poll(&mut Context::from_waker(Waker::noop()))
}

/// Makes a call with streams, and lets time pass until it is made.
pub(crate) fn open(
    balanced: &Balanced<Stubs>,
    world: &World,
    flags: u8,
) -> Result<Stream, Failure> {
    let mut opening = balanced.open(outgoing(flags), Empty);
    for _ in 0..10_000 {
        if let Poll::Ready(opened) = poll_open(&mut opening) {
            return opened;
        }
        world.pass(Duration::from_millis(1));
    }
    panic!("it is never made");
}

pub(crate) fn next(stream: &Stream) -> Poll<Arrived<Chunk>> {
    stream.poll_arrived(&mut Context::from_waker(Waker::noop()))
}

/// How the call has ended, which is what arrives next.
pub(crate) fn end(stream: &Stream) -> Result<Status, Failure> {
    match next(stream) {
        Poll::Ready(Arrived::End(end)) => end.map(|answer| answer.header.status),
        other => panic!("{other:?}"),
    }
}
