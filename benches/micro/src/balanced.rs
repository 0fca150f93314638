//! What a balanced channel adds to a call: over connections that answer at once.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, Ready, ready};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::Readiness;
use ringcall_cluster::{Balanced, Connector, Settings};
use ringcall_core::frame::ReplyHeader;
use ringcall_core::{
    Answer, Attached, Channel, Chunk, Clock, Codec, Empty, Failure, Instant, Outgoing,
    OwnedChannel, Payload, Status,
};

/// A connection that answers at once.
#[derive(Clone, Debug)]
pub struct Stub(Rc<Cell<u64>>);

type End = Result<Answer<Chunk>, Failure>;

impl Stub {
    #[inline]
    fn answer(&self) -> Ready<End> {
        self.0.set(self.0.get() + 1);
        let header = ReplyHeader::new(Status::OK);
        ready(Ok(Answer {
            header,
            body: Chunk::empty(),
            attached: Attached::Nothing,
            extensions: Chunk::empty(),
        }))
    }
}

impl Channel for Stub {
    type Body = Chunk;
    type Pending<'a, P>
        = Ready<End>
    where
        P: Payload + Clone + 'a;

    #[inline]
    fn call<'a, P: Payload + Clone + 'a>(&'a self, _: Outgoing, _: P) -> Ready<End> {
        self.answer()
    }
}

impl OwnedChannel for Stub {
    type Owned<P>
        = Ready<End>
    where
        P: Payload + Clone;

    #[inline]
    fn call_owned<P: Payload + Clone>(self, _: Outgoing, _: P) -> Ready<End> {
        self.answer()
    }
}

/// Connects to stubs, in a time that passes by 10 µs a look.
#[derive(Clone, Debug)]
pub struct Stubs {
    now: Rc<Cell<u64>>,
    calls: Rc<Cell<u64>>,
}

impl Clock for Stubs {
    #[inline]
    fn now(&self) -> Instant {
        self.now.set(self.now.get() + 10_000);
        Instant::from_nanos(self.now.get())
    }
}

impl Connector for Stubs {
    type Channel = Stub;
    type Sleep = Ready<()>;
    type Guard<S> = RefCell<S>;

    fn connect(&self, _: &Instance) -> Option<Stub> {
        Some(Stub(Rc::clone(&self.calls)))
    }

    #[inline]
    fn readiness(&self, _: &Stub) -> Readiness {
        Readiness::Ready
    }

    fn sleep(&self, _: Duration) -> Ready<()> {
        ready(())
    }
}

/// A hundred instances behind a balanced channel, with default settings: balancing, breakers, budget, health.
#[derive(Debug)]
pub struct Hundred {
    balanced: Balanced<Stubs>,
    direct: Stub,
    call: Outgoing,
}

impl Hundred {
    /// They have answered calls already.
    #[must_use]
    pub fn new() -> Hundred {
        let stubs = Stubs { now: Rc::new(Cell::new(1_000_000_000)), calls: Rc::default() };
        let direct = Stub(Rc::clone(&stubs.calls));
        let balanced = Balanced::new(stubs, Settings::new(), 1).expect("the defaults make sense");
        balanced.apply(&Listing::of(1, (0..100).map(instance)));
        let call = Outgoing {
            name: "test",
            method: 1,
            in_signature: 2,
            out_signature: 3,
            codec: Codec::RAW,
            compression: 0,
            timeout: Duration::from_secs(1),
            priority: 0,
            attempt: 0,
            flags: 0,
            wait_for_ready: false,
        };
        let mut hundred = Hundred { balanced, direct, call };
        hundred.balanced(10_000);
        hundred
    }

    /// Makes so many calls over the balanced channel. How many were answered.
    pub fn balanced(&mut self, calls: u64) -> u64 {
        run(&self.balanced, self.call, calls)
    }

    /// Makes so many calls over one connection.
    pub fn direct(&mut self, calls: u64) -> u64 {
        run(&self.direct, self.call, calls)
    }

    /// How many calls the stubs have had.
    #[must_use]
    pub fn calls(&self) -> u64 {
        self.direct.0.get()
    }
}

impl Default for Hundred {
    fn default() -> Hundred {
        Hundred::new()
    }
}

fn instance(number: u16) -> Instance {
    let address = std::net::SocketAddr::from(([127, 0, 0, 1], 1 + number));
    Instance::new("s", format!("{number:03}"), address)
}

#[inline]
fn run(channel: &impl Channel, call: Outgoing, calls: u64) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut answered = 0;
    for _ in 0..calls {
        if let Poll::Ready(Ok(_)) = pin!(channel.call(call, Empty)).poll(&mut cx) {
            answered += 1;
        }
    }
    answered
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_answered() {
        let mut hundred = Hundred::new();
        assert_eq!(hundred.calls(), 10_000);
        assert_eq!(hundred.balanced(1000), 1000);
        assert_eq!(hundred.direct(1000), 1000);
        assert_eq!(hundred.calls(), 12_000);
        let counts = hundred.balanced.counts();
        assert_eq!((counts.calls, counts.attempts), (11_000, 11_000));
    }
}
