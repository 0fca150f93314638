//! What the tests of servers and clients share: one service that does everything, and every way to
//! reach it.
#![allow(dead_code, reason = "each test file uses a part of it")]
#![allow(
    unreachable_pub,
    missing_docs,
    missing_debug_implementations,
    clippy::print_stderr,
    reason = "a module of tests"
)]

pub mod raw;
#[cfg(feature = "tls")]
pub mod tls;

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use ringcall::{
    BlockingClient, Body, Bytes, CallOptions, Cause, Client, Connect, Context, Responder,
    RunningServer, Server, Shard, ShardConfig, Status, TransportChoice, View,
};

#[ringcall::message(borrowed)]
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    pub id: u64,
    pub symbol: String,
    pub levels: Vec<Level>,
    pub note: Option<String>,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub struct Level {
    pub price: f64,
    pub size: u32,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub enum Rejected {
    Unknown { symbol: String },
    TooLarge(u32),
}

#[ringcall::service(name = "test.Kitchen")]
pub trait Kitchen {
    /// The order again, encoded from its view.
    async fn cook(&self, order: View<Order>) -> Result<Order, Rejected>;
    async fn taste(&self, order: Order) -> Result<u64, Rejected>;
    async fn raw(&self, body: Body) -> Bytes;
    async fn nothing(&self);
    /// Takes so many milliseconds; counts those that end by themselves.
    async fn simmer(&self, cx: &Context, time_ms: u64) -> u64;
    async fn panic(&self, message: String);
    async fn panic_later(&self, cx: &Context);
    #[method(one_way)]
    async fn toss(&self, number: u64);
    #[method(offload)]
    async fn chop(&self, cx: &Context, time_ms: u64) -> bool;
    fn deliver(&self, time_ms: u64, responder: Responder<u64, Rejected>);
    fn forget(&self, responder: Responder<u64, Rejected>);
    async fn remaining_ms(&self, cx: &Context) -> u64;
}

/// What a [`Cook`] has seen, for tests to look at.
#[derive(Debug, Default)]
pub struct Seen {
    /// Those that simmer.
    pub begun: AtomicU64,
    pub finished: AtomicU64,
    pub dropped: AtomicU64,
    pub tossed: AtomicU64,
    pub chopped: AtomicU64,
}

#[derive(Clone, Default)]
pub struct Cook {
    pub seen: Arc<Seen>,
}

/// Counts handlers that are dropped before they end.
struct Dropped<'a>(&'a Seen, bool);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        if !self.1 {
            self.0.dropped.fetch_add(1, Ordering::SeqCst);
        }
    }
}

impl Kitchen for Cook {
    async fn cook(&self, order: View<Order>) -> Result<Order, Rejected> {
        match order.symbol.as_str() {
            "NONE" => Err(Rejected::Unknown { symbol: order.symbol.to_string() }),
            _ => Ok(order.to_owned()),
        }
    }

    async fn taste(&self, order: Order) -> Result<u64, Rejected> {
        let size = order.levels.iter().map(|level| level.size).sum();
        if size > 1000 { Err(Rejected::TooLarge(size)) } else { Ok(order.id) }
    }

    async fn raw(&self, body: Body) -> Bytes {
        body.share().into()
    }

    async fn nothing(&self) {}

    async fn simmer(&self, cx: &Context, time_ms: u64) -> u64 {
        self.seen.begun.fetch_add(1, Ordering::SeqCst);
        let mut dropped = Dropped(&self.seen, false);
        cx.sleep(Duration::from_millis(time_ms)).await;
        dropped.1 = true;
        self.seen.finished.fetch_add(1, Ordering::SeqCst);
        time_ms
    }

    async fn panic(&self, message: String) {
        panic!("{message}");
    }

    async fn panic_later(&self, cx: &Context) {
        cx.sleep(Duration::from_millis(5)).await;
        panic!("as asked");
    }

    async fn toss(&self, number: u64) {
        self.seen.tossed.fetch_add(number, Ordering::SeqCst);
    }

    async fn chop(&self, cx: &Context, time_ms: u64) -> bool {
        for _ in 0..time_ms {
            if cx.is_cancelled() {
                self.seen.dropped.fetch_add(1, Ordering::SeqCst);
                return false;
            }
            block(Duration::from_millis(1));
        }
        self.seen.chopped.fetch_add(1, Ordering::SeqCst);
        true
    }

    fn deliver(&self, time_ms: u64, responder: Responder<u64, Rejected>) {
        std::thread::spawn(move || {
            block(Duration::from_millis(time_ms));
            match time_ms {
                13 => responder.send(Err(Rejected::TooLarge(13))),
                _ => responder.send(Ok(time_ms)),
            }
        });
    }

    fn forget(&self, responder: Responder<u64, Rejected>) {
        drop(responder);
    }

    async fn remaining_ms(&self, cx: &Context) -> u64 {
        cx.remaining().as_millis() as u64
    }
}

/// Whether a call ended for its deadline, whichever side noticed first.
pub fn has_expired(cause: Cause) -> bool {
    let by_server = [Status::EXPIRED, Status::EXPIRED_RUNNING].map(Cause::Status);
    cause == Cause::Expired || by_server.contains(&cause)
}

/// Blocks this thread, which only offloaded work and tests may do.
#[expect(clippy::disallowed_methods, reason = "tests may sleep")]
pub fn block(time: Duration) {
    std::thread::sleep(time);
}

/// Tells whoever reads the output of a test.
pub fn say(what: std::fmt::Arguments<'_>) {
    eprintln!("{what}");
}

/// The deadline of a call that is to expire when it has arrived: long enough to get there on a busy machine.
pub const SOON: Duration = Duration::from_millis(150);

/// The deadline of calls that are to be answered, on whatever machine: a handler that panics as asked writes a
/// backtrace, which may take most of a second.
pub const PATIENT: CallOptions = CallOptions::new().deadline(Duration::from_secs(60));

/// Waits until something is so, and says what if it never is: after half a minute at least, since machines that
/// run tests may have a lot to do.
pub fn eventually(what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        block(Duration::from_millis(1));
    }
    panic!("never: {what}");
}

pub fn order(id: u64) -> Order {
    Order {
        id,
        symbol: format!("S{id}"),
        levels: (0..id % 5).map(|n| Level { price: n as f64 * 0.5, size: n as u32 }).collect(),
        note: (id.is_multiple_of(2)).then(|| "no onions".to_owned()),
    }
}

/// Which kind of socket a test uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Socket {
    Tcp,
    Unix,
}

/// What a test runs over: an engine on either side, and a kind of socket between them.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub server: TransportChoice,
    pub client: TransportChoice,
    pub socket: Socket,
    /// With TLS on either side.
    pub is_secured: bool,
}

/// Runs a test's body over every pair of engines that works here, and every kind of socket: all at once, since
/// what tests do is mostly waiting.
pub fn over_every_pair(body: impl Fn(Pair) + Sync) {
    over_each(&every_pair(is_tls()), body);
}

/// The same, one pair after the other: for tests that measure what the whole process does.
pub fn over_every_pair_in_turn(body: impl Fn(Pair)) {
    for pair in every_pair(is_tls()) {
        eprintln!("over {pair:?}");
        body(pair);
    }
}

/// As [`over_every_pair`], never with TLS: for tests in which somebody else is at one end.
pub fn over_every_plain_pair(body: impl Fn(Pair) + Sync) {
    over_each(&every_pair(false), body);
}

/// Runs a test's body over every engine that works here, and every kind of socket: for tests in which
/// bytes on a socket are the other side.
pub fn over_every_engine(body: impl Fn(Pair) + Sync) {
    over_each(&every_engine(), body);
}

/// The same, for bytes on a socket as the other side.
pub fn over_every_engine_in_turn(body: impl Fn(Pair)) {
    for pair in every_engine() {
        eprintln!("over {pair:?}");
        body(pair);
    }
}

fn every_pair(is_secured: bool) -> Vec<Pair> {
    let engines = engines();
    let mut pairs = Vec::new();
    for &server in &engines {
        for &client in &engines {
            for socket in [Socket::Tcp, Socket::Unix] {
                pairs.push(Pair { server, client, socket, is_secured });
            }
        }
    }
    pairs
}

fn every_engine() -> Vec<Pair> {
    let mut pairs = every_pair(false);
    pairs.retain(|pair| pair.server == pair.client);
    pairs
}

fn over_each(pairs: &[Pair], body: impl Fn(Pair) + Sync) {
    let body = &body;
    std::thread::scope(|scope| {
        let run = |&pair| (pair, scope.spawn(move || body(pair)));
        let running: Vec<_> = pairs.iter().map(run).collect();
        for (pair, run) in running {
            if let Err(panic) = run.join() {
                eprintln!("over {pair:?}");
                std::panic::resume_unwind(panic);
            }
        }
    });
}

/// Runs a test's body over one pair: what it is about has nothing to do with engines, and takes long.
pub fn over_one_pair(body: impl Fn(Pair)) {
    let engine = engines()[0];
    body(Pair { server: engine, client: engine, socket: Socket::Tcp, is_secured: is_tls() });
}

/// Whether tests of calls run with TLS on either side: `RINGCALL_TEST_TLS=1` and the feature `tls`.
pub fn is_tls() -> bool {
    let is_on = std::env::var_os("RINGCALL_TEST_TLS").is_some_and(|value| value == "1");
    assert!(!is_on || cfg!(feature = "tls"), "RINGCALL_TEST_TLS needs the feature `tls`");
    is_on
}

/// The engines that work here, or the one that the environment asks for. A machine that should have
/// io_uring says `RINGCALL_REQUIRE_URING=1`: then its absence is a failure.
pub fn engines() -> Vec<TransportChoice> {
    if let Ok(choice) = std::env::var("RINGCALL_TRANSPORT")
        && choice != "auto"
    {
        return vec![choice.parse().expect("a transport")];
    }
    let mut engines = Vec::new();
    for choice in [TransportChoice::Epoll, TransportChoice::Uring] {
        let mut config = ShardConfig::default();
        config.transport = choice;
        match Shard::new(config) {
            Ok(shard) => {
                assert_eq!(shard.transport().name, choice.to_string());
                engines.push(choice);
            }
            Err(error) => {
                assert!(std::env::var_os("RINGCALL_REQUIRE_URING").is_none(), "{error}");
                eprintln!("skipped: {choice}: {error}");
            }
        }
    }
    engines
}

impl Pair {
    /// A server for a test; its unix socket's file goes with it.
    pub fn bind(&self) -> Server {
        self.bind_at(address(self.socket))
    }

    /// The same, where another one was.
    pub fn bind_at(&self, address: impl ringcall::ToAddress) -> Server {
        let server = Server::bind(address).transport(self.server);
        #[cfg(feature = "tls")]
        if self.is_secured {
            return server.tls(tls::both().0);
        }
        server
    }

    pub fn serve(&self) -> (RunningServer, Arc<Seen>) {
        let cook = Cook::default();
        let seen = Arc::clone(&cook.seen);
        (self.start(self.bind().service(cook.into_kitchen())), seen)
    }

    pub fn start(&self, server: Server) -> RunningServer {
        let server = server.start().expect("the server starts");
        assert_eq!(server.transport().name, self.server.to_string());
        server
    }

    /// A client of any thread, which is [`PATIENT`].
    pub fn kitchen(&self, server: &RunningServer) -> KitchenClient<Client> {
        let client = self.secured(KitchenClient::connect(server.address()));
        let client = client.wait().expect("the server accepts");
        assert_eq!(client.channel().transport().name, self.client.to_string());
        client.with_options(PATIENT)
    }

    /// Over the client's engine; with TLS, if the test runs so.
    pub fn secured<T>(&self, connect: Connect<T>) -> Connect<T> {
        let connect = connect.transport(self.client);
        #[cfg(feature = "tls")]
        if self.is_secured {
            return connect.tls(tls::both().1);
        }
        connect
    }

    /// Settings of a shard that connects: its engine; with TLS, if the test runs so.
    pub fn connecting(&self, mut config: ShardConfig) -> ShardConfig {
        config.transport = self.client;
        #[cfg(feature = "tls")]
        if self.is_secured {
            config.client_tls = Some(tls::both().1);
        }
        config
    }

    pub fn blocking(&self, server: &RunningServer) -> BlockingClient {
        self.blocking_with(server, ShardConfig::default())
    }

    pub fn blocking_with(&self, server: &RunningServer, config: ShardConfig) -> BlockingClient {
        let client = BlockingClient::connect_with(server.address(), self.connecting(config));
        let client = client.expect("the server accepts");
        assert_eq!(client.transport().name, self.client.to_string());
        client
    }

    /// A client of what may be no server.
    pub fn dial(
        &self,
        address: impl ringcall::ToAddress,
    ) -> Result<BlockingClient, ringcall::Failure> {
        BlockingClient::connect_with(address, self.connecting(ShardConfig::default()))
    }

    pub fn shard(&self) -> Shard {
        let mut config = self.connecting(ShardConfig::default());
        config.transport = self.server;
        #[cfg(feature = "tls")]
        if self.is_secured {
            config.server_tls = Some(tls::both().0);
        }
        Shard::new(config).expect("the engine works")
    }
}

/// A server for a test; its unix socket's file goes with it.
pub fn bind(socket: Socket) -> Server {
    Server::bind(address(socket))
}

/// Where to listen.
pub fn address(socket: Socket) -> String {
    match socket {
        Socket::Tcp => "127.0.0.1:0".to_owned(),
        Socket::Unix => format!("unix:{}", socket_path().display()),
    }
}

/// A path for a unix socket, that nobody else uses.
pub fn socket_path() -> PathBuf {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let name = format!("ringcall-test-{}-{number}.sock", std::process::id());
    std::env::temp_dir().join(name)
}
