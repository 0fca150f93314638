//! A client in Python, written from `docs/PROTOCOL.md` alone, calls this server.
//!
//! It is in `python/`: `wire.py` has frames and the vectors of the page, `connection.py` calls, streams and
//! credit, `client.py` the scenarios, of which each test here runs one against a server of its own, over
//! each engine. Both sides check each other: the client closes with a code, too, if the server breaks the
//! protocol, and the server's limits are set such that what is tested happens soon.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::net::{IpAddr, Ipv4Addr};
use std::pin::Pin;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::Duration;

use ringcall::health::{Health as _, Readiness};
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Bytes, Config, Context, Identity, Items, Server, Stream, TransportChoice, View};

#[ringcall::service(name = "demo.Echo")]
trait Echo {
    async fn echo(&self, body: Bytes) -> Bytes;
    /// Replies after a moment.
    async fn slow(&self, body: Bytes, context: &Context) -> Bytes;
    /// Replies after a moment, and lets the server leave at once.
    async fn leave(&self, body: Bytes, context: &Context) -> Bytes;
    /// Items as the argument says, see [`Counted`].
    async fn count(&self, body: Bytes) -> impl Stream<Item = Bytes>;
    /// The same, and then an error; or an error at once, if it is said of no items.
    async fn fail(&self, body: Bytes) -> Result<impl Stream<Item = Result<Bytes, Bytes>>, Bytes>;
    /// Checks that these are the items of [`Counted`], and replies with their number and bytes.
    async fn gather(&self, body: Bytes, parts: impl Stream<Item = Bytes>) -> Bytes;
    /// Replies with the first item, and does not want more.
    async fn first(&self, body: Bytes, parts: Items<Bytes>) -> Bytes;
    /// Replies with every item.
    async fn mirror(&self, body: Bytes, parts: Items<Bytes>) -> impl Stream<Item = Bytes>;
    /// Neither reads an item nor replies.
    async fn hold(&self, body: Bytes, parts: Items<Bytes>) -> Bytes;
    /// Replies with the body and the metadata of the call.
    async fn tagged(&self, body: Bytes, context: &Context) -> Bytes;
    /// The same with an error.
    async fn tagged_error(&self, body: Bytes, context: &Context) -> Result<Bytes, Bytes>;
    /// Items as [`Counted`] with the metadata of the call, and behind them `count`.
    async fn tagged_items(&self, body: Bytes, context: &Context) -> impl Stream<Item = Bytes>;
}

/// What others have to know by its names.
#[ringcall::message]
#[derive(Clone)]
struct Order {
    symbol: String,
    size: u64,
    side: Side,
    note: Option<String>,
    payload: Vec<u8>,
}

#[ringcall::message]
#[derive(Clone)]
enum Side {
    Buy,
    Sell,
}

#[ringcall::message]
struct Filled {
    of: Order,
    price: f64,
    by: Venue,
}

#[ringcall::message]
enum Venue {
    Named { host: IpAddr },
}

#[ringcall::message]
enum Rejected {
    TooLarge(u64),
}

#[ringcall::service(name = "demo.Desk")]
trait Desk {
    async fn put(&self, order: View<Order>) -> Result<Filled, Rejected>;
    async fn size(&self, order: Order) -> u64;
    /// The argument and then each item.
    async fn each(&self, order: Order, orders: Items<View<Order>>) -> impl Stream<Item = Filled>;
    #[method(one_way)]
    async fn toss(&self, order: Order);
    /// How many were tossed.
    async fn count(&self) -> u64;
}

#[derive(Clone, Default)]
struct Shop {
    tossed: Arc<AtomicU64>,
}

fn filled(of: Order) -> Filled {
    Filled { of, price: 42.5, by: Venue::Named { host: Ipv4Addr::new(10, 0, 0, 1).into() } }
}

struct Each(Option<Order>, Items<View<Order>>);

impl Stream for Each {
    type Item = Filled;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Filled>> {
        if let Some(first) = self.0.take() {
            return Poll::Ready(Some(filled(first)));
        }
        let next = std::task::ready!(Pin::new(&mut self.1).poll_next(cx));
        Poll::Ready(next.map(|order| filled(order.to_owned())))
    }
}

impl Desk for Shop {
    async fn put(&self, order: View<Order>) -> Result<Filled, Rejected> {
        match order.size.to_native() {
            size if size > 1000 => Err(Rejected::TooLarge(size)),
            _ => Ok(filled(order.to_owned())),
        }
    }

    async fn size(&self, order: Order) -> u64 {
        order.size
    }

    async fn each(&self, order: Order, orders: Items<View<Order>>) -> impl Stream<Item = Filled> {
        Each(Some(order), orders)
    }

    async fn toss(&self, _order: Order) {
        self.tossed.fetch_add(1, Ordering::SeqCst);
    }

    async fn count(&self) -> u64 {
        self.tossed.load(Ordering::SeqCst)
    }
}

#[derive(Clone)]
struct Demo {
    leave: SyncSender<()>,
}

/// Numbered items of one length: `body` has their count and their length, as `u32` each.
struct Counted {
    next: u32,
    count: u32,
    len: usize,
}

impl Counted {
    fn new(body: &Bytes) -> Counted {
        let word = |at: usize| u32::from_le_bytes(body[at..at + 4].try_into().unwrap());
        Counted { next: 0, count: word(0), len: word(4) as usize }
    }

    /// Its number, cut off or repeated.
    fn item(number: u32, len: usize) -> Bytes {
        number.to_le_bytes().into_iter().cycle().take(len).collect::<Vec<u8>>().into()
    }
}

impl Stream for Counted {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        if self.next == self.count {
            return Poll::Ready(None);
        }
        self.next += 1;
        Poll::Ready(Some(Counted::item(self.next - 1, self.len)))
    }
}

/// The same with an error at the end.
struct Failing(Counted, bool);

impl Stream for Failing {
    type Item = Result<Bytes, Bytes>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Self::Item>> {
        let item = std::task::ready!(Pin::new(&mut self.0).poll_next(cx));
        let has_failed = item.is_none() && std::mem::replace(&mut self.1, true);
        Poll::Ready(match item {
            Some(item) => Some(Ok(item)),
            None => (!has_failed).then(|| Err("enough".into())),
        })
    }
}

/// The same with metadata at the end.
struct Tagged<'a>(Counted, &'a Context);

impl Stream for Tagged<'_> {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<Bytes>> {
        let item = std::task::ready!(Pin::new(&mut self.0).poll_next(cx));
        if item.is_none() {
            self.1.reply_metadata("count", self.0.count.to_string());
        }
        Poll::Ready(item)
    }
}

fn send_back(context: &Context) {
    context.metadata().iter().for_each(|(key, value)| context.reply_metadata(key, value));
}

impl Echo for Demo {
    async fn echo(&self, body: Bytes) -> Bytes {
        body
    }

    async fn slow(&self, body: Bytes, context: &Context) -> Bytes {
        context.sleep(Duration::from_millis(300)).await;
        body
    }

    async fn leave(&self, _body: Bytes, context: &Context) -> Bytes {
        let _ = self.leave.try_send(());
        context.sleep(Duration::from_millis(100)).await;
        Bytes::new()
    }

    async fn count(&self, body: Bytes) -> impl Stream<Item = Bytes> {
        Counted::new(&body)
    }

    async fn fail(&self, body: Bytes) -> Result<impl Stream<Item = Result<Bytes, Bytes>>, Bytes> {
        let items = Counted::new(&body);
        if items.count == 0 { Err("nothing".into()) } else { Ok(Failing(items, false)) }
    }

    async fn gather(&self, _body: Bytes, parts: impl Stream<Item = Bytes>) -> Bytes {
        let mut parts = std::pin::pin!(parts);
        let (mut count, mut bytes) = (0_u32, 0);
        while let Some(part) = std::future::poll_fn(|cx| parts.as_mut().poll_next(cx)).await {
            assert!(part == Counted::item(count, part.len()), "item {count}");
            count += 1;
            bytes += u32::try_from(part.len()).unwrap();
        }
        [count.to_le_bytes(), bytes.to_le_bytes()].concat().into()
    }

    async fn first(&self, _body: Bytes, mut parts: Items<Bytes>) -> Bytes {
        parts.next().await.unwrap_or_default()
    }

    async fn mirror(&self, _body: Bytes, parts: Items<Bytes>) -> impl Stream<Item = Bytes> {
        parts
    }

    async fn hold(&self, _body: Bytes, _parts: Items<Bytes>) -> Bytes {
        std::future::pending().await
    }

    async fn tagged(&self, body: Bytes, context: &Context) -> Bytes {
        send_back(context);
        body
    }

    async fn tagged_error(&self, body: Bytes, context: &Context) -> Result<Bytes, Bytes> {
        send_back(context);
        Err(body)
    }

    async fn tagged_items(&self, body: Bytes, context: &Context) -> impl Stream<Item = Bytes> {
        send_back(context);
        Tagged(Counted::new(&body), context)
    }
}

fn has_python() -> bool {
    let version = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Limits that a test of streams reaches soon.
fn narrow() -> Config {
    Config::new()
        .message_bytes_max(512 << 10)
        .calls_window(1 << 20)
        .replies_window(1 << 20)
        .stream_window(256 << 10)
}

/// Runs a scenario of `client.py` against servers over io_uring, where it works, and over epoll.
fn run(scenario: &str, config: Config) {
    if !has_python() {
        println!("skipped: there is no python3");
        return;
    }
    for engine in [TransportChoice::Auto, TransportChoice::Epoll] {
        run_over(engine, scenario, config.clone());
    }
}

/// The server stops when it is asked to leave.
fn run_over(engine: TransportChoice, scenario: &str, config: Config) {
    let (leave, left) = sync_channel(1);
    let demo = Demo { leave: leave.clone() };
    let server = Server::bind("127.0.0.1:0").transport(engine).config(config);
    let server = server.identity(Identity::new("echo-1").unwrap());
    let server = server.service(demo.into_echo()).service(Shop::default().into_desk());
    let server = server.service(Interface.into_reflection());
    let server = server.service(Readiness::new().into_health());
    let server = server.start().unwrap();
    let client = Command::new("python3")
        // Leaves no compiled files behind.
        .arg("-B")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/suite/python/client.py"))
        .arg(server.address().to_string())
        .args(["--spec", concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md")])
        .arg(scenario)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stopping = thread::spawn(move || left.recv().map(|()| server.stop()));
    let output = client.wait_with_output().unwrap();
    let _ = leave.try_send(());
    stopping.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "over {engine}: {said}{errors}");
    assert_eq!(said.lines().last(), Some(format!("ok {scenario}").as_str()), "{said}{errors}");
}

#[test]
fn bodies_of_every_size_come_back() {
    run("echo", Config::new());
}

#[test]
fn what_does_not_fit_is_refused() {
    run("shape", Config::new());
}

#[test]
fn metadata_goes_with_calls_answers_and_ends() {
    run("metadata", Config::new());
}

#[test]
fn typed_methods_are_called_without_types() {
    run("typed", Config::new());
}

#[test]
fn the_table_of_methods_is_what_hello_says() {
    run("table", Config::new());
}

#[test]
fn what_a_server_says_that_it_serves_is_enough_to_call_it() {
    run("reflection", Config::new());
}

#[test]
fn the_server_leaves_and_finishes_what_it_accepted() {
    run("goaway", Config::new());
}

#[test]
fn a_cancelled_call_ends_once() {
    run("cancel", Config::new());
}

#[test]
fn streams_in_every_direction_are_longer_than_their_windows() {
    run("streams", narrow());
}

#[test]
fn without_credit_the_server_stops() {
    run("credit", narrow());
}

#[test]
fn items_are_cut_into_parts() {
    run("cut", narrow());
}

#[test]
fn either_side_ends_a_stream_early() {
    run("early", narrow());
}

#[test]
fn what_streams_do_not_allow_closes_the_connection() {
    run("wrong", narrow());
}

#[test]
fn a_drained_connection_loses_nothing() {
    run("drain", narrow().connection_age_max(Duration::from_millis(500)));
}

#[test]
fn pings_of_the_server_are_answered() {
    let interval = Duration::from_millis(50);
    run("pings", Config::new().ping_interval_min(interval).keepalive_idle(interval, 100));
}
