//! A large body beside small calls on one connection, parked: how fast is the body, how long do the calls
//! take, each alone and both together. The body is a stream of attachments of 256 KiB.
//!
//! ```text
//! $ cargo run --release -p ringcall-benches --bin flow [GIB]
//! ```
#![allow(clippy::print_stdout, clippy::disallowed_methods, reason = "it measures, and says what")]

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use ringcall::{BlockingClient, Bytes, LocalClient, Server, Stream};

#[ringcall::service]
trait Flow {
    /// So many items of 256 KiB.
    async fn body(&self, items: u64) -> impl Stream<Item = Bytes>;
    async fn small(&self, message: Bytes) -> Bytes;
}

const ITEM: usize = 256 << 10;

struct Source(Bytes);

struct Items {
    item: Bytes,
    left: u64,
}

impl Stream for Items {
    type Item = Bytes;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Bytes>> {
        let left = self.left.checked_sub(1);
        self.left = left.unwrap_or(0);
        Poll::Ready(left.map(|_| self.item.clone()))
    }
}

impl Flow for Source {
    async fn body(&self, items: u64) -> impl Stream<Item = Bytes> {
        Items { item: self.0.clone(), left: items }
    }

    async fn small(&self, message: Bytes) -> Bytes {
        message
    }
}

type Calls = FlowClient<LocalClient>;

async fn body(client: &Calls, items: u64) -> f64 {
    let begin = Instant::now();
    let mut stream = client.body(&items).await.expect("it streams");
    let mut bytes = 0;
    while let Some(item) = stream.next().await {
        bytes += item.expect("it goes on").len();
    }
    assert_eq!(bytes, items as usize * ITEM);
    bytes as f64 / begin.elapsed().as_secs_f64() / (1 << 30) as f64
}

/// Makes calls one after another until told to stop.
async fn small(client: &Calls, go_on: impl Fn() -> bool) -> Vec<Duration> {
    let message = Bytes::from_static(&[7; 64]);
    let mut times = Vec::new();
    while go_on() {
        let begin = Instant::now();
        client.small(&message).await.expect("an answer");
        times.push(begin.elapsed());
    }
    times.sort_unstable();
    times
}

fn show(what: &str, times: &[Duration]) -> Duration {
    let at = |share: usize| times[(times.len() * share / 1000).min(times.len() - 1)];
    println!(
        "{what:<28} {:>8} calls  p50 {:>9.1?}  p99 {:>9.1?}  p99.9 {:>9.1?}",
        times.len(),
        at(500),
        at(990),
        at(999)
    );
    at(990)
}

fn main() {
    let gib: u64 = std::env::args().nth(1).map_or(1, |n| n.parse().expect("a number of GiB"));
    let items = gib * ((1 << 30) / ITEM as u64);
    let source = Source(Bytes::from(vec![1; ITEM]));
    let server = Server::bind("127.0.0.1:0").service(source.into_flow()).start().expect("a port");
    let blocking = BlockingClient::connect(server.address()).expect("it accepts");
    println!("{} to {}", blocking.transport().name, server.transport().name);
    let client = FlowClient::new(blocking.local().clone());
    for round in 0..3 {
        let alone = blocking.run(body(&client, items));
        println!("round {round}: the body alone      {alone:>8.2} GiB/s");
        let until = Instant::now() + Duration::from_secs(1);
        let times = blocking.run(small(&client, || Instant::now() < until));
        let p99_alone = show("small calls alone", &times);
        let (both, times) = together(&blocking, &client, items);
        let p99 = show("small calls beside the body", &times);
        println!(
            "the body beside them        {both:>8.2} GiB/s: {:.2} of alone; p99 is {:.1} x alone",
            both / alone,
            p99.as_secs_f64() / p99_alone.as_secs_f64()
        );
    }
}

fn together(blocking: &BlockingClient, client: &Calls, items: u64) -> (f64, Vec<Duration>) {
    let speed = Rc::new(Cell::new(None));
    let times = Rc::new(RefCell::new(Vec::new()));
    let (writes, calls) = (Rc::clone(&speed), client.clone());
    blocking.shard().spawn(async move { writes.set(Some(body(&calls, items).await)) });
    let (reads, calls) = (Rc::clone(&speed), client.clone());
    blocking.run(async {
        *times.borrow_mut() = small(&calls, || reads.get().is_none()).await;
    });
    (speed.get().expect("it has ended"), times.take())
}
