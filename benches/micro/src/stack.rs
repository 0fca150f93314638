//! Core, codec and futures, without kernel, shard and executor: a generated client calls through a
//! [`Channel`] over an endpoint, and at the other endpoint's side a handler reads a view and answers.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::future::{Future, poll_fn};
use std::mem::{forget, take};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll, Waker};

use ringcall::{Answer, Channel, Message, View};
use ringcall_codec_rkyv::{Form, Formed, FromBody, Invalid, Typed};
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Address, Call, Chunk, Codec, Config, Endpoint, Event, Failure, Handle, Instant, Memory,
    Outcome, Outgoing, Payload, Plain, Polled, Reply, Request, Status,
};

use crate::IN_FLIGHT;
use crate::dispatch::SumsClient;
use crate::memory::MemoryEnd;
use crate::messages::{Order, Summed, order};
use crate::tally::Tally;

/// The ticket of a call is the number of the task that waits for it.
type End = Endpoint<MemoryEnd, Plain, u32>;

/// Tasks that call, and a handler that answers them.
pub struct Stack {
    client: Rc<ClientEnd>,
    server: End,
    config: Rc<Config>,
    tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>,
    tally: Rc<Tally>,
    now: Instant,
}

impl Stack {
    /// A connection that has been used already.
    #[must_use]
    pub fn new() -> Stack {
        Stack::with(Codec::RKYV)
    }

    /// The same between sides that were built from different types: argument and reply go in a codec with
    /// names, and the handler gets its view all the same.
    #[must_use]
    pub fn with(codec: Codec) -> Stack {
        let now = Instant::from_nanos(1_000_000_000);
        let config = Rc::new(Config::new().validate().expect("the defaults make sense"));
        let memory = Memory::default();
        let ends = MemoryEnd::pair(&memory);
        let [mut client, server] = ends.map(|end| End::new(end, memory.clone(), now));
        let nowhere = Address::Unix("memory".to_owned());
        let handle = client.connect(now, &nowhere, &config, Plain).expect("memory connects");
        let client = Rc::new(ClientEnd {
            endpoint: RefCell::new(client),
            handle,
            is_open: Cell::new(false),
            current: Cell::new(0),
            outcomes: RefCell::new((0..IN_FLIGHT).map(|_| None).collect()),
            codec,
            now,
        });
        let tally = Rc::<Tally>::default();
        let tasks = (0..IN_FLIGHT).map(|_| caller(&client, &tally)).collect();
        let mut stack = Stack { client, server, config, tasks, tally, now };
        while !stack.client.is_open.get() {
            stack.turn();
        }
        stack.run(4 * IN_FLIGHT);
        stack
    }

    /// Makes so many calls, [`IN_FLIGHT`] at a time. Returns the sum of the replies.
    pub fn run(&mut self, calls: u64) -> u64 {
        self.tally.begin(calls);
        for task in 0..IN_FLIGHT as u32 {
            self.poll_task(task);
        }
        while self.tally.ended() < calls {
            self.turn();
        }
        self.tally.sum()
    }

    /// What the body of a turn of a shard is, for either side.
    #[inline]
    fn turn(&mut self) {
        self.client.endpoint.borrow_mut().flush(self.now);
        self.serve();
        self.client.endpoint.borrow_mut().reap(self.now);
        loop {
            // Borrowed for the question only: the task makes its next call. As in a shard, an event is looked at
            // where it lies.
            let mut event = None;
            match self.client.endpoint.borrow_mut().poll_into(self.now, &mut event) {
                None => break,
                Some(Polled::Connection(_)) => {}
                Some(Polled::Accepted(..)) => panic!("a client accepts nothing"),
            }
            match &mut event {
                Some(Event::Completed(task, Outcome::Reply(reply))) => {
                    let task = *task;
                    self.client.answer(task, reply);
                    // Nothing is left of it to drop.
                    forget(event);
                    self.poll_task(task);
                }
                Some(Event::Established(_)) => self.client.is_open.set(true),
                event => panic!("unexpected: {event:?}"),
            }
        }
    }

    #[inline]
    fn poll_task(&mut self, task: u32) {
        self.client.current.set(task);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(self.tasks[task as usize].as_mut().poll(&mut cx).is_pending());
    }

    #[inline]
    fn serve(&mut self) {
        self.server.reap(self.now);
        loop {
            let mut event = None;
            let handle = match self.server.poll_into(self.now, &mut event) {
                None => break,
                Some(Polled::Connection(handle)) => handle,
                Some(Polled::Accepted(_, ())) => {
                    let adopted = self.server.adopt(self.now, (), &self.config, Plain);
                    adopted.expect("memory is adopted");
                    continue;
                }
            };
            match &mut event {
                Some(Event::Request(request)) => {
                    self.answer(handle, request);
                    drop(take(&mut request.extensions));
                    // Nothing is left of it to drop.
                    forget(event);
                }
                Some(Event::Established(_)) => {}
                event => panic!("unexpected: {event:?}"),
            }
        }
        self.server.flush(self.now);
    }

    #[inline]
    fn answer(&mut self, handle: Handle, request: &mut Request) {
        let body = take(&mut request.body);
        let has_names = request.codec.has_names();
        let order = match has_names {
            false => View::<Order>::new(body),
            true => other(body, request),
        };
        let mut cx = Context::from_waker(Waker::noop());
        let Poll::Ready(sum) = pin!(handler(order.expect("it is an order"))).poll(&mut cx) else {
            panic!("it never waits")
        };
        if has_names {
            return self.answer_other(handle, request, sum);
        }
        let signature = request.out_signature;
        let header = ReplyHeader { signature, codec: u64::CODEC, ..ReplyHeader::new(Status::OK) };
        let replied = self.server.reply(self.now, handle, request.id, header, &Typed(&sum));
        replied.expect("it is awaited");
    }

    #[cold]
    fn answer_other(&mut self, handle: Handle, request: &Request, sum: u64) {
        let (signature, codec) = (request.out_signature, request.codec);
        let header = ReplyHeader { signature, codec, ..ReplyHeader::new(Status::OK) };
        let formed = Formed(&sum, Form::of_codec(codec));
        let replied = self.server.reply(self.now, handle, request.id, header, &formed);
        replied.expect("it is awaited");
    }
}

/// An order in a codec with names.
#[cold]
fn other(body: Chunk, request: &Request) -> Result<View<Order>, Invalid> {
    View::from_other(Form::of_codec(request.codec), body, request.attached)
}

impl Default for Stack {
    fn default() -> Stack {
        Stack::new()
    }
}

impl fmt::Debug for Stack {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Stack").field("tally", &self.tally).finish_non_exhaustive()
    }
}

async fn handler(order: View<Order>) -> u64 {
    Order::sum_received(&order)
}

fn caller(client: &Rc<ClientEnd>, tally: &Rc<Tally>) -> Pin<Box<dyn Future<Output = ()>>> {
    let (client, tally) = (SumsClient::new(MemoryChannel(Rc::clone(client))), Rc::clone(tally));
    Box::pin(async move {
        let order = order();
        loop {
            poll_fn(|cx| tally.poll_admit(cx)).await;
            let sum = client.sum(&order).await.expect("it is answered");
            tally.end(sum.to_native());
        }
    })
}

/// The calling side, as its tasks see it.
struct ClientEnd {
    endpoint: RefCell<End>,
    handle: Handle,
    is_open: Cell<bool>,
    /// The task that is being polled.
    current: Cell<u32>,
    /// How the call of each task has ended.
    outcomes: RefCell<Vec<Option<Outcome>>>,
    /// What arguments go in.
    codec: Codec,
    now: Instant,
}

impl ClientEnd {
    /// The answer is given to the task that waits for it, which has taken the one before.
    #[inline]
    fn answer(&self, task: u32, reply: &mut Reply) {
        let outcome = &mut self.outcomes.borrow_mut()[task as usize];
        assert!(outcome.is_none(), "its task has taken the one before");
        let (body, extensions) = (take(&mut reply.body), take(&mut reply.extensions));
        let Reply { header, attached, .. } = *reply;
        let reply = Reply { header, body, attached, extensions };
        forget(outcome.replace(Outcome::Reply(reply)));
    }
}

struct MemoryChannel(Rc<ClientEnd>);

impl Channel for MemoryChannel {
    type Body = Chunk;
    type Pending<'a, P>
        = MemoryCall<'a, P>
    where
        P: Payload + Clone + 'a;

    #[inline]
    fn call<'a, P: Payload + Clone + 'a>(
        &'a self,
        call: Outgoing,
        payload: P,
    ) -> MemoryCall<'a, P> {
        MemoryCall { client: &self.0, call, payload, task: None }
    }

    #[inline]
    fn take_answer<'a, P>(pending: Pin<&mut MemoryCall<'a, P>>) -> Option<Answer<Chunk>>
    where
        P: Payload + Clone + 'a,
    {
        let outcome = &mut pending.client.outcomes.borrow_mut()[pending.task? as usize];
        let Some(Outcome::Reply(reply)) = outcome else { return None };
        if reply.header.status != Status::OK || reply.header.compression != 0 {
            return None;
        }
        let Some(Outcome::Reply(reply)) = outcome.take() else { return None };
        Some(reply.into())
    }
}

struct MemoryCall<'a, P> {
    client: &'a ClientEnd,
    call: Outgoing,
    payload: P,
    /// Who waits, once it is sent.
    task: Option<u32>,
}

impl<P> Unpin for MemoryCall<'_, P> {}

impl<P: Payload> Future for MemoryCall<'_, P> {
    type Output = Result<Answer<Chunk>, Failure>;

    #[inline]
    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let client = self.client;
        let Some(task) = self.task else {
            let task = client.current.get();
            let mut endpoint = client.endpoint.borrow_mut();
            let call = Call {
                method: self.call.method,
                in_signature: self.call.in_signature,
                out_signature: self.call.out_signature,
                deadline: client.now + self.call.timeout,
                codec: client.codec,
                compression: self.call.compression,
                priority: self.call.priority,
                attempt: self.call.attempt,
                flags: self.call.flags,
            };
            let made = endpoint.call(client.now, client.handle, &call, &self.payload, task);
            made.map_err(|refused| refused.failure).expect("there is room");
            drop(endpoint);
            self.task = Some(task);
            return Poll::Pending;
        };
        let Some(outcome) = client.outcomes.borrow_mut()[task as usize].take() else {
            return Poll::Pending;
        };
        let reply = outcome.into_answer()?;
        Poll::Ready(Ok(reply.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_gets_its_sum() {
        for codec in [Codec::RKYV, Codec::MESSAGEPACK, Codec::JSON] {
            let mut stack = Stack::with(codec);
            for calls in [1, IN_FLIGHT, 1000] {
                assert_eq!(stack.run(calls), calls * order().sum());
            }
            let counters = stack.server.counters();
            assert_eq!(counters.requests_answered, 1001 + 5 * IN_FLIGHT);
            assert_eq!(counters.copied_bytes(), 0);
        }
    }
}
