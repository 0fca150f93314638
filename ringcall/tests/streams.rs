//! Streams of items, in either direction and both, over real sockets.

mod common;

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use common::{Pair, eventually, over_every_pair, over_one_pair};
use ringcall::{
    BlockingClient, Bytes, CallError, Cause, Client, Context, Failure, Items, RunningServer,
    Status, Stream, View,
};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Range {
    from: u64,
    to: u64,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Line {
    number: u64,
    text: String,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
enum Refusal {
    Backwards,
    After(u64),
}

#[ringcall::service(name = "test.Press")]
trait Press {
    /// The lines of a range.
    async fn print(&self, range: View<Range>) -> Result<impl Stream<Item = Line>, Refusal>;
    /// Without argument and without error.
    async fn three(&self) -> impl Stream<Item = u64>;
    /// So many, and then an error.
    async fn break_after(
        &self,
        count: u64,
    ) -> Result<impl Stream<Item = Result<u64, Refusal>>, Refusal>;
    /// Sums what comes.
    async fn sum(&self, from: u64, parts: impl Stream<Item = u64>) -> Result<u64, Refusal>;
    /// The same with the other form; reads so many, waiting so long before each.
    async fn some(&self, cx: &Context, range: Range, parts: Items<View<Line>>) -> u64;
    /// Every line in reply to the same.
    async fn echo(&self, name: String, lines: Items<Line>) -> impl Stream<Item = Line>;
    /// Raw bodies.
    async fn blobs(&self, blobs: Items<Bytes>) -> impl Stream<Item = Bytes>;
    /// Waits so many milliseconds before it begins.
    async fn late(&self, cx: &Context, time_ms: u64) -> impl Stream<Item = u64>;
    /// Never says anything.
    async fn silent(&self) -> impl Stream<Item = u64>;
    async fn panic_at(&self, number: u64) -> impl Stream<Item = u64>;
    async fn unary(&self, number: u64) -> u64;
}

#[derive(Debug, Default)]
struct Seen {
    /// How many items streams have made.
    made: AtomicU64,
    /// How many of them were dropped.
    dropped: AtomicU64,
    /// How many items were read.
    read: AtomicU64,
    /// How many handlers of `some` have ended by themselves, and how many were dropped.
    finished: AtomicU64,
    given_up: AtomicU64,
}

#[derive(Clone, Default)]
struct Printer(Arc<Seen>);

/// A stream that is always ready.
struct Count<F>(u64, u64, Arc<Seen>, F);

impl<T, F: Fn(u64) -> T + Unpin> Stream for Count<F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<T>> {
        if self.0 >= self.1 {
            return Poll::Ready(None);
        }
        self.0 += 1;
        self.2.made.fetch_add(1, Ordering::SeqCst);
        Poll::Ready(Some((self.3)(self.0 - 1)))
    }
}

impl<F> Drop for Count<F> {
    fn drop(&mut self) {
        self.2.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

/// Each item of a stream as another.
struct Map<S, F>(S, F);

impl<T, S: Stream + Unpin, F: FnMut(S::Item) -> T + Unpin> Stream for Map<S, F> {
    type Item = T;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<T>> {
        let this = &mut *self;
        Pin::new(&mut this.0).poll_next(cx).map(|item| item.map(&mut this.1))
    }
}

fn line(number: u64) -> Line {
    Line { number, text: format!("line {number}") }
}

/// Counts a handler that is dropped before it ends.
struct Running(Arc<Seen>, bool);

impl Drop for Running {
    fn drop(&mut self) {
        let count = if self.1 { &self.0.finished } else { &self.0.given_up };
        count.fetch_add(1, Ordering::SeqCst);
    }
}

impl Press for Printer {
    async fn print(&self, range: View<Range>) -> Result<impl Stream<Item = Line>, Refusal> {
        let (from, to) = (range.from.to_native(), range.to.to_native());
        if to < from {
            return Err(Refusal::Backwards);
        }
        Ok(Count(from, to, Arc::clone(&self.0), line))
    }

    async fn three(&self) -> impl Stream<Item = u64> {
        Count(0, 3, Arc::clone(&self.0), |number| number)
    }

    async fn break_after(
        &self,
        count: u64,
    ) -> Result<impl Stream<Item = Result<u64, Refusal>>, Refusal> {
        if count == u64::MAX {
            return Err(Refusal::Backwards);
        }
        Ok(Count(0, u64::MAX, Arc::clone(&self.0), move |number| {
            if number == count { Err(Refusal::After(count)) } else { Ok(number) }
        }))
    }

    async fn sum(&self, from: u64, parts: impl Stream<Item = u64>) -> Result<u64, Refusal> {
        let mut parts = std::pin::pin!(parts);
        let mut sum = from;
        while let Some(part) = std::future::poll_fn(|cx| parts.as_mut().poll_next(cx)).await {
            self.0.read.fetch_add(1, Ordering::SeqCst);
            if part == 13 {
                return Err(Refusal::After(sum));
            }
            sum += part;
        }
        Ok(sum)
    }

    async fn some(&self, cx: &Context, range: Range, mut parts: Items<View<Line>>) -> u64 {
        let mut running = Running(Arc::clone(&self.0), false);
        for number in 0..range.to {
            cx.sleep(Duration::from_millis(range.from)).await;
            let Some(part) = parts.next().await else { break };
            assert_eq!(part.number, number);
            self.0.read.fetch_add(1, Ordering::SeqCst);
        }
        running.1 = true;
        self.0.read.load(Ordering::SeqCst)
    }

    async fn echo(&self, name: String, lines: Items<Line>) -> impl Stream<Item = Line> {
        Map(lines, move |line: Line| Line { text: format!("{name}: {}", line.text), ..line })
    }

    async fn blobs(&self, blobs: Items<Bytes>) -> impl Stream<Item = Bytes> {
        blobs
    }

    async fn late(&self, cx: &Context, time_ms: u64) -> impl Stream<Item = u64> {
        cx.sleep(Duration::from_millis(time_ms)).await;
        Count(0, 2, Arc::clone(&self.0), |number| number)
    }

    async fn silent(&self) -> impl Stream<Item = u64> {
        Silent(Running(Arc::clone(&self.0), false))
    }

    async fn panic_at(&self, number: u64) -> impl Stream<Item = u64> {
        Count(0, u64::MAX, Arc::clone(&self.0), move |at| {
            assert_ne!(at, number, "as asked");
            at
        })
    }

    async fn unary(&self, number: u64) -> u64 {
        number
    }
}

struct Silent(#[expect(dead_code)] Running);

impl Stream for Silent {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        Poll::Pending
    }
}

fn serve(pair: &Pair) -> (RunningServer, Arc<Seen>) {
    let printer = Printer::default();
    let seen = Arc::clone(&printer.0);
    (pair.start(pair.bind().service(printer.into_press())), seen)
}

fn shared(pair: &Pair, server: &RunningServer) -> PressClient<Client> {
    PressClient::connect(server.address()).transport(pair.client).wait().expect("it accepts")
}

fn cause<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Cause {
    match result {
        Ok(_) => panic!("expected a failure, got a value"),
        Err(CallError::Failed(Failure { cause, .. })) => cause,
        Err(error) => panic!("expected a failure: {error:?}"),
    }
}

/// Runs a test over a shared client, and over a blocking one.
macro_rules! over_clients {
    ($pair:ident, $server:ident, $client:ident => $body:block) => {{
        {
            let $client = shared(&$pair, &$server);
            $body
        }
        {
            let blocking = $pair.blocking(&$server);
            let $client = PressClient::new(&blocking);
            $body
        }
    }};
}

#[test]
fn a_server_streams() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        over_clients!(pair, server, client => {
            let mut lines = client.print(&Range { from: 3, to: 3003 }).wait().unwrap();
            let mut next = 3;
            for got in lines.wait_each() {
                assert_eq!(got.unwrap().to_owned(), line(next));
                next += 1;
            }
            assert_eq!(next, 3003);
            assert!(lines.next_wait().is_none());
            let three: Vec<u64> =
                client.three().wait().unwrap().wait_each().map(|n| n.unwrap().to_native()).collect();
            assert_eq!(three, [0, 1, 2]);
            assert_eq!(client.unary(&5).wait().unwrap().to_native(), 5);
        });
        let blocking = pair.blocking(&server);
        let client = PressClient::new(blocking.local().clone());
        blocking.run(async {
            let mut lines = client.print(&Range { from: 0, to: 100 }).await.unwrap();
            let mut count = 0;
            while let Some(line) = lines.next().await {
                assert_eq!(line.unwrap().number, count);
                count += 1;
            }
            assert_eq!(count, 100);
        });
        eventually("all streams are dropped", || seen.dropped.load(Ordering::SeqCst) == 5);
    });
}
