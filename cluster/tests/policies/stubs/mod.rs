//! Connections that do as they are told, in a time that passes when it is told, and a balanced channel over them.
#![allow(dead_code, reason = "no test uses all of it")]

mod counting;
pub(crate) mod streams;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::Readiness;
use ringcall_cluster::{Balanced, BalancedCall, Connector, Settings};
use ringcall_core::frame::{Extensions, ReplyHeader, request_flags, tag};
use ringcall_core::{
    Answer, Attached, Cause, Channel, Chunk, Clock, CloseReason, Codec, Empty, Failure, Instant,
    METHODS_PAGE, Missing, Outgoing, OwnedChannel, Payload, ServiceName, Status, method_id,
};

pub(crate) use counting::ALLOCATIONS;

/// What an instance does with a call.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Does {
    Answers,
    Fails(Failure),
    ErrsInTheHandler,
    Hangs,
}

#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) now: Cell<u64>,
    pub(crate) does: RefCell<BTreeMap<String, Does>>,
    pub(crate) readiness: RefCell<BTreeMap<String, Readiness>>,
    /// Calls that were made: to whom, the attempt, the flags.
    pub(crate) made: RefCell<Vec<(String, u8, u8)>>,
    pub(crate) given_up: RefCell<Vec<String>>,
    /// Who was asked how busy it is, what those who are asked do, and what they say.
    pub(crate) probed: RefCell<Vec<String>>,
    pub(crate) probed_do: Cell<Option<Does>>,
    pub(crate) load: Cell<u16>,
    /// The idempotency keys of those that had one.
    pub(crate) keys: RefCell<Vec<Vec<u8>>>,
    /// The `user` of metadata, of those that had one.
    pub(crate) users: RefCell<Vec<String>>,
    /// To whom tied attempts went, with their names; and which have begun.
    pub(crate) tied: RefCell<Vec<(String, [u8; 16])>>,
    pub(crate) begun: RefCell<Vec<[u8; 16]>>,
    /// What becomes of calls with streams.
    pub(crate) streams: streams::Streams,
}

impl World {
    pub(crate) fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time.as_nanos() as u64);
    }

    pub(crate) fn does(&self, name: &str, does: Does) {
        self.does.borrow_mut().insert(name.to_owned(), does);
    }

    pub(crate) fn all_do(&self, names: &str, does: Does) {
        names.chars().for_each(|name| self.does(&name.to_string(), does));
    }

    pub(crate) fn take_made(&self) -> Vec<(String, u8, u8)> {
        self.made.take()
    }

    pub(crate) fn names(&self) -> String {
        self.made.take().into_iter().map(|(name, ..)| name).collect()
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Stub(Rc<World>, Rc<str>);

pub(crate) struct StubCall {
    stub: Stub,
    is_probe: bool,
    is_over: bool,
}

impl Future for StubCall {
    type Output = Result<Answer<Chunk>, Failure>;

    fn poll(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Self::Output> {
        let Stub(world, name) = &self.stub;
        let does = match self.is_probe {
            true => world.probed_do.get(),
            false => world.does.borrow().get(&**name).copied(),
        };
        let load = if self.is_probe { world.load.get() } else { 0 };
        let does = does.unwrap_or(Does::Answers);
        let status = match does {
            Does::Hangs => return Poll::Pending,
            Does::Answers => Ok(Status::OK),
            Does::ErrsInTheHandler => Ok(Status::APPLICATION_ERROR),
            Does::Fails(failure) => Err(failure),
        };
        self.is_over = true;
        Poll::Ready(status.map(|status| Answer {
            header: ReplyHeader { load, ..ReplyHeader::new(status) },
            body: Chunk::empty(),
            attached: Attached::Nothing,
            extensions: Chunk::empty(),
        }))
    }
}

impl Drop for StubCall {
    fn drop(&mut self) {
        if !self.is_over {
            self.stub.0.given_up.borrow_mut().push(self.stub.1.to_string());
        }
    }
}

impl Channel for Stub {
    type Body = Chunk;
    type Pending<'a, P>
        = StubCall
    where
        P: Payload + Clone + 'a;

    fn call<'a, P: Payload + Clone + 'a>(&'a self, call: Outgoing, payload: P) -> StubCall {
        self.clone().call_owned(call, payload)
    }
}

impl OwnedChannel for Stub {
    type Owned<P>
        = StubCall
    where
        P: Payload + Clone;

    fn call_owned<P: Payload + Clone>(self, call: Outgoing, payload: P) -> StubCall {
        for found in Extensions::new(payload.extensions()).flatten() {
            match found.tag {
                tag::IDEMPOTENCY_KEY => self.0.keys.borrow_mut().push(found.value.to_vec()),
                tag::METADATA => {
                    let user = found.value.strip_prefix(b"\x04user");
                    let user = user.map(|user| String::from_utf8_lossy(user).into_owned());
                    self.0.users.borrow_mut().extend(user);
                }
                tag::TIED => {
                    let tie = found.value.try_into().expect("16 bytes");
                    self.0.tied.borrow_mut().push((self.1.to_string(), tie));
                }
                _ => {}
            }
        }
        let is_probe = call.method == method_id(METHODS_PAGE);
        if is_probe && !QUIET.get() {
            self.0.probed.borrow_mut().push(self.1.to_string());
        } else if !QUIET.get() {
            let made = (self.1.to_string(), call.attempt, call.flags);
            self.0.made.borrow_mut().push(made);
        }
        StubCall { stub: self, is_probe, is_over: false }
    }
}

#[derive(Clone, Debug)]
pub(crate) struct Stubs(Rc<World>);

pub(crate) struct StubSleep(Rc<World>, u64);

impl Future for StubSleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.now.get() >= self.1 { Poll::Ready(()) } else { Poll::Pending }
    }
}

pub(crate) struct StubBegun(Rc<World>, [u8; 16]);

impl Future for StubBegun {
    type Output = ();

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        if self.0.begun.borrow().contains(&self.1) { Poll::Ready(()) } else { Poll::Pending }
    }
}

pub(crate) struct StubOpening(Stub);

impl Future for StubOpening {
    type Output = bool;

    fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<bool> {
        match Stubs(Rc::clone(&self.0.0)).readiness(&self.0) {
            Readiness::Ready => Poll::Ready(true),
            _ => Poll::Pending,
        }
    }
}

impl Clock for Stubs {
    fn now(&self) -> Instant {
        Instant::from_nanos(self.0.now.get())
    }
}

impl Connector for Stubs {
    type Channel = Stub;
    type Sleep = StubSleep;
    type Begun = StubBegun;
    type Opening = StubOpening;
    type Guard<S> = RefCell<S>;

    fn connect(&self, instance: &Instance) -> Option<Stub> {
        (instance.name != "unreachable").then(|| Stub(Rc::clone(&self.0), instance.name[..].into()))
    }

    fn readiness(&self, stub: &Stub) -> Readiness {
        let readiness = self.0.readiness.borrow();
        readiness.get(&*stub.1).copied().unwrap_or(Readiness::Ready)
    }

    fn opening(&self, stub: &Stub) -> StubOpening {
        StubOpening(stub.clone())
    }

    fn seed(&self) -> u64 {
        1
    }

    fn sleep(&self, time: Duration) -> StubSleep {
        StubSleep(Rc::clone(&self.0), self.0.now.get() + time.as_nanos() as u64)
    }

    fn begun(&self, tie: [u8; 16]) -> StubBegun {
        StubBegun(Rc::clone(&self.0), tie)
    }
}

pub(crate) fn listing(version: u64, names: &str) -> Listing {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1));
    Listing::of(version, names.chars().map(|name| Instance::new("s", name.to_string(), address)))
}

pub(crate) fn balanced(names: &str, settings: Settings) -> (Balanced<Stubs>, Rc<World>) {
    let world = Rc::new(World::default());
    world.pass(Duration::from_secs(1));
    let balanced = Balanced::new(Stubs(Rc::clone(&world)), settings).unwrap();
    balanced.apply(&listing(1, names));
    (balanced, world)
}

/// A budget with which a call may be made again twice, whatever else happens.
pub(crate) fn generous() -> Settings {
    let mut settings = Settings::new();
    settings.retry_floor_per_s = 10;
    settings
}

pub(crate) fn outgoing(flags: u8) -> Outgoing {
    Outgoing {
        name: "test",
        method: 7,
        in_signature: 0,
        out_signature: 0,
        codec: Codec::RAW,
        compression: 0,
        timeout: Duration::from_secs(1),
        priority: 0,
        attempt: 0,
        flags,
        wait_for_ready: false,
    }
}

pub(crate) type End = Result<Status, Failure>;

pub(crate) fn poll<P: Payload + Clone>(call: &mut BalancedCall<'_, Stubs, P>) -> Poll<End> {
    let mut cx = Context::from_waker(Waker::noop());
    Pin::new(call).poll(&mut cx).map(|end| end.map(|answer| answer.header.status))
}

/// Makes a call, and lets time pass until it ends.
pub(crate) fn call(balanced: &Balanced<Stubs>, world: &World, flags: u8) -> End {
    let mut call = balanced.call(outgoing(flags), Empty);
    for _ in 0..10_000 {
        if let Poll::Ready(end) = poll(&mut call) {
            return end;
        }
        world.pass(Duration::from_millis(1));
    }
    panic!("it does not end");
}

pub(crate) const IDEMPOTENT: u8 = request_flags::IDEMPOTENT;
pub(crate) const RETRIED: u8 = request_flags::RETRIED;

pub(crate) fn lost() -> Failure {
    Failure::unknown(Cause::Closed(CloseReason::PeerClosed))
}

/// Nobody of the service whose instances [`listing`] has.
pub(crate) fn nobody(why: Missing) -> Failure {
    Failure::not_sent(Cause::NoInstance { why, service: Some(ServiceName::new(&"s")) })
}

pub(crate) fn refused() -> Failure {
    Failure::from_status(Status::OVERLOADED, 0).unwrap()
}

thread_local! {
    /// The stubs keep no record, which would allocate.
    pub(crate) static QUIET: Cell<bool> = const { Cell::new(false) };
}
