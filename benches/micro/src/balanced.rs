//! What a balanced channel adds to a call: over connections that answer at once.

use std::cell::{Cell, RefCell};
use std::future::{Future as _, Pending, Ready, pending, ready};
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use ringcall_cluster::discovery::{Instance, Listing};
use ringcall_cluster::fleet::Readiness;
use ringcall_cluster::route::{Action, By, Match, Route, Rule, Rules, Subset};
use ringcall_cluster::{Balanced, Connector, Settings};
use ringcall_core::frame::{ExtensionWriter, ReplyHeader, tag};
use ringcall_core::{
    Answer, Attached, Channel, Chunk, Clock, Codec, Empty, EncodeError, Failure, Instant, Outgoing,
    OwnedChannel, Payload, Status, Writer, method_id,
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
    type Begun = Pending<()>;
    type Opening = Ready<bool>;
    type Guard<S> = RefCell<S>;

    fn connect(&self, _: &Instance) -> Option<Stub> {
        Some(Stub(Rc::clone(&self.calls)))
    }

    #[inline]
    fn readiness(&self, _: &Stub) -> Readiness {
        Readiness::Ready
    }

    fn opening(&self, _: &Stub) -> Ready<bool> {
        ready(true)
    }

    fn seed(&self) -> u64 {
        1
    }

    fn sleep(&self, _: Duration) -> Ready<()> {
        ready(())
    }

    fn begun(&self, _: [u8; 16]) -> Pending<()> {
        pending()
    }
}

/// A body of nothing, with extensions.
#[derive(Clone, Copy, Debug)]
struct Carried<'a>(&'a [u8]);

impl Payload for Carried<'_> {
    #[inline]
    fn encode(&self, codec: Codec, signature: u64, out: &mut Writer) -> Result<(), EncodeError> {
        Empty.encode(codec, signature, out)
    }

    #[inline]
    fn extensions(&self) -> &[u8] {
        self.0
    }
}

/// A hundred instances behind a balanced channel, with default settings: balancing, breakers, budget, health.
#[derive(Debug)]
pub struct Hundred {
    balanced: Balanced<Stubs>,
    direct: Stub,
    call: Outgoing,
    /// Of each call.
    extensions: Vec<u8>,
}

impl Hundred {
    /// They have answered calls already.
    #[must_use]
    pub fn new() -> Hundred {
        let stubs = Stubs { now: Rc::new(Cell::new(1_000_000_000)), calls: Rc::default() };
        let direct = Stub(Rc::clone(&stubs.calls));
        let balanced =
            Balanced::seeded(stubs, Settings::new(), 1).expect("the defaults make sense");
        balanced.apply(&Listing::of(1, (0..100).map(instance)));
        let name = "bench.Orders/place";
        let call = Outgoing {
            name,
            method: method_id(name),
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
        let mut hundred = Hundred { balanced, direct, call, extensions: Vec::new() };
        hundred.balanced(10_000);
        hundred
    }

    /// The same with ten rules in force, of which each call has to look at nine and meets three, and one of which
    /// reads its metadata.
    #[must_use]
    pub fn routed() -> Hundred {
        let mut hundred = Hundred::new();
        hundred.balanced.route(ten_rules()).expect("they make sense");
        hundred.extensions = metadata();
        hundred.balanced(10_000);
        hundred
    }

    /// Makes so many calls over the balanced channel. How many were answered.
    pub fn balanced(&mut self, calls: u64) -> u64 {
        run(&self.balanced, self.call, &self.extensions, calls)
    }

    /// Makes so many calls over one connection.
    pub fn direct(&mut self, calls: u64) -> u64 {
        run(&self.direct, self.call, &self.extensions, calls)
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
    let mut instance = Instance::new("s", format!("{number:03}"), address);
    instance.version = (number % 10).to_string();
    instance.zone = format!("z{}", number % 3);
    instance
}

/// What a call carries: two entries, of which rules look for the second.
fn metadata() -> Vec<u8> {
    let mut writer = ExtensionWriter::new();
    for (key, value) in [("request-id", &b"5b8efff798038103"[..]), ("tenant", b"t-4711")] {
        let parts = [&[key.len() as u8], key.as_bytes(), value];
        assert!(writer.push_parts(tag::METADATA, parts), "it is short");
    }
    writer.finish()
}

fn ten_rules() -> Rules {
    let to = |version: &str| Action::route(Route::to(Subset::all().version(version)));
    let exclude = |name: &str| Action::Exclude(Subset::named([name]));
    let per_10_000 = |share| Match::all().per_10_000(share, By::Chance);
    let orders = || Match::all().service("bench.Orders");
    let rest = Route::to(Subset::all().version("0")).or(Subset::all());
    let halves = [(1, Route::to(Subset::all())), (1, rest)];
    Rules::new(1)
        .with(Rule::new("broken", Match::all(), exclude("007")))
        .with(Rule::new("slow", orders(), exclude("042")))
        .with(Rule::new("tenant", Match::all().metadata("tenant", "t-1"), to("9")))
        .with(Rule::new("other", Match::all().service("bench.Stock"), to("8")))
        .with(Rule::new("one", per_10_000(1), to("7")))
        .with(Rule::new("two", per_10_000(2), to("6")))
        .with(Rule::new("three", per_10_000(3), to("5")))
        .with(Rule::new("four", orders().per_10_000(4, By::Key), to("4")))
        .with(Rule::new("large", Match::all().number("lots", 1000..=u64::MAX), to("3")))
        .with(Rule::new("halves", Match::all(), Action::split(halves, By::Chance)))
}

#[inline]
fn run(channel: &impl Channel, call: Outgoing, extensions: &[u8], calls: u64) -> u64 {
    let mut cx = Context::from_waker(Waker::noop());
    let mut answered = 0;
    let payload = Carried(extensions);
    for _ in 0..calls {
        if let Poll::Ready(Ok(_)) = pin!(channel.call(call, payload)).poll(&mut cx) {
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

    #[test]
    fn calls_meet_the_rules() {
        let mut hundred = Hundred::routed();
        assert_eq!(hundred.balanced(10_000), 10_000);
        let explained = hundred.balanced.explain(hundred.call.method);
        let trace = explained.trace.expect("there are rules");
        assert_eq!(trace.met[..2], ["broken", "slow"]);
        let is_dropped = |host: &&ringcall_cluster::fleet::HostReport| host.lane.is_err();
        assert!(explained.hosts.iter().filter(is_dropped).count() >= 2);
        let picked = |host: &ringcall_cluster::fleet::HostReport| host.latency.is_some();
        assert!(explained.hosts.iter().filter(|host| picked(host)).count() > 90);
    }
}
