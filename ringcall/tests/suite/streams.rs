//! Streams of items, in either direction and both, over real sockets.

use std::cell::Cell;
use std::net::{Shutdown, TcpListener, TcpStream};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crate::common::{Pair, SOON, eventually, over_every_pair, over_one_pair};
use ringcall::{
    AnyChannel, Arrived, Bytes, CallError, Cause, Channel, Client, Context, Failure, Items,
    MethodTable, Outgoing, RunningServer, Service, SlowConsumer, Status, Stream, StreamCall,
    StreamChannel, Topic, View,
};
use ringcall_core::frame::request_flags;
use ringcall_core::{Codec, EncodeError, Encoding, Payload, Writer};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    pub(crate) from: u64,
    pub(crate) to: u64,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Line {
    pub(crate) number: u64,
    pub(crate) text: String,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Refusal {
    Backwards,
    After(u64),
}

#[ringcall::service(name = "test.Press")]
pub(crate) trait Press {
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
pub(crate) struct Seen {
    /// How many items streams have made.
    pub(crate) made: AtomicU64,
    /// How many of them were dropped.
    pub(crate) dropped: AtomicU64,
    /// How many items were read.
    pub(crate) read: AtomicU64,
    /// How many handlers of `some` have ended by themselves, and how many were dropped.
    finished: AtomicU64,
    given_up: AtomicU64,
}

#[derive(Clone, Default)]
pub(crate) struct Printer(Arc<Seen>);

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

pub(crate) fn serve(pair: &Pair) -> (RunningServer, Arc<Seen>) {
    let printer = Printer::default();
    let seen = Arc::clone(&printer.0);
    (pair.start(pair.bind().service(printer.into_press())), seen)
}

fn shared(pair: &Pair, server: &RunningServer) -> PressClient<Client> {
    pair.secured(PressClient::connect(server.address())).wait().expect("it accepts")
}

fn cause<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Cause {
    match result {
        Ok(_) => panic!("expected a failure, got a value"),
        Err(CallError::Failed(Failure { cause, .. })) => cause,
        Err(error) => panic!("expected a failure: {error:?}"),
    }
}

/// Runs a test over a shared client, over a channel of any type, and over a blocking one.
macro_rules! over_clients {
    ($pair:ident, $server:ident, $client:ident => $body:block) => {{
        {
            let $client = shared(&$pair, &$server);
            $body
        }
        {
            let client = $pair.secured(Client::connect($server.address())).wait().unwrap();
            let $client = PressClient::new(AnyChannel::new(client));
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
        eventually("all streams are dropped", || seen.dropped.load(Ordering::SeqCst) == 7);
    });
}

#[test]
fn a_client_streams_and_gets_one_reply() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        over_clients!(pair, server, client => {
            let mut upload = client.sum(&1000).wait().unwrap();
            for number in 0..2000 {
                upload.send_wait(&(number * 20)).unwrap();
            }
            assert_eq!(upload.finish_wait().unwrap().to_native(), 1000 + 1999 * 1000 * 20);
            // Nothing at all is a stream, too.
            let upload = client.sum(&7).wait().unwrap();
            assert_eq!(upload.finish_wait().unwrap().to_native(), 7);
        });
        assert_eq!(seen.read.load(Ordering::SeqCst), 6000);
        let blocking = pair.blocking(&server);
        let client = PressClient::new(blocking.local().clone());
        blocking.run(async {
            let mut upload = client.sum(&0).await.unwrap();
            let parts = Count(20, 120, Arc::clone(&seen), |number| number);
            upload.send_all(parts).await.unwrap();
            assert_eq!(upload.finish().await.unwrap().to_native(), (20..120).sum::<u64>());
        });
    });
}

#[test]
fn both_stream() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        over_clients!(pair, server, client => {
            let (mut say, mut heard) = client.echo(&"echo".into()).wait().unwrap();
            for number in 0..300 {
                say.send_wait(&line(number)).unwrap();
                let got = heard.next_wait().unwrap().unwrap();
                assert_eq!(got.number, number);
                assert_eq!(got.text, format!("echo: line {number}"));
            }
            say.end();
            assert!(heard.next_wait().is_none());
        });
        // The halves in threads of their own.
        let client = shared(&pair, &server);
        let (mut say, mut heard) = client.echo(&"both".into()).wait().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || {
                for number in 0..5000 {
                    say.send_wait(&line(number)).unwrap();
                }
                // Dropped, which ends it.
            });
            let mut count = 0;
            for got in heard.wait_each() {
                assert_eq!(got.unwrap().number, count);
                count += 1;
            }
            assert_eq!(count, 5000);
        });
    });
}

#[test]
fn errors_come_at_the_start_and_at_the_end() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        over_clients!(pair, server, client => {
            let error = client.print(&Range { from: 2, to: 1 }).wait().map(|_| ()).unwrap_err();
            assert_eq!(error, CallError::App(Refusal::Backwards));
            let error = client.break_after(&u64::MAX).wait().map(|_| ()).unwrap_err();
            assert_eq!(error, CallError::App(Refusal::Backwards));

            let mut numbers = client.break_after(&2500).wait().unwrap();
            for number in 0..2500 {
                assert_eq!(numbers.next_wait().unwrap().unwrap().to_native(), number);
            }
            let error = numbers.next_wait().unwrap().map(|_| ()).unwrap_err();
            assert_eq!(error, CallError::App(Refusal::After(2500)));
            assert!(numbers.next_wait().is_none());

            let mut numbers = client.panic_at(&5).wait().unwrap();
            let last = numbers.wait_each().last().unwrap();
            assert_eq!(cause(last), Cause::Status(Status::INTERNAL));
        });
    });
}

#[test]
fn a_server_may_answer_before_the_last_item() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        over_clients!(pair, server, client => {
            // With an error: whoever sends gets it.
            let mut upload = client.sum(&0).wait().unwrap();
            upload.send_wait(&1).unwrap();
            upload.send_wait(&13).unwrap();
            let error = (0..1_000_000).find_map(|_| upload.send_wait(&2).err()).unwrap();
            assert_eq!(error, CallError::App(Refusal::After(1)));
            assert_eq!(cause(upload.finish_wait()), Cause::StreamEnded);
            // With a value: `finish` gives it.
            let range = Range { from: 0, to: 2 };
            let mut upload = client.some(&range).wait().unwrap();
            let error = (0..1_000_000).find_map(|number| upload.send_wait(&line(number)).err());
            assert_eq!(cause(Err::<(), _>(error.unwrap())), Cause::StreamEnded);
            assert!(upload.finish_wait().unwrap().to_native() >= 2);
        });
    });
}

#[test]
fn a_caller_that_does_not_read_stops_the_handler() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        over_clients!(pair, server, client => {
            let before = seen.made.load(Ordering::SeqCst);
            let made = || seen.made.load(Ordering::SeqCst) - before;
            let mut lines = client.print(&Range { from: 0, to: 10_000 }).wait().unwrap();
            // It stands still when the window is used up.
            eventually("it makes some", || made() >= 1000);
            client.unary(&1).wait().unwrap();
            client.unary(&1).wait().unwrap();
            assert!(made() < 3000, "{}", made());
            let mut count = 0;
            for got in lines.wait_each() {
                assert_eq!(got.unwrap().number, count);
                count += 1;
            }
            assert_eq!((count, made()), (10_000, 10_000));
        });
    });
}

#[test]
fn a_handler_that_does_not_read_stops_its_caller() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        let blocking = pair.blocking(&server);
        let client = PressClient::new(blocking.local().clone());
        // It reads one item in ten seconds.
        let mut upload =
            blocking.run(async { client.some(&Range { from: 10_000, to: 10_000 }).await.unwrap() });
        let sent = AtomicU64::new(0);
        blocking.run(async {
            let mut sending = std::pin::pin!(async {
                for number in 0..10_000 {
                    upload.send(&line(number)).await.unwrap();
                    sent.fetch_add(1, Ordering::SeqCst);
                }
            });
            for _ in 0..20 {
                std::future::poll_fn(|cx| {
                    assert!(sending.as_mut().poll(cx).is_pending(), "all was sent");
                    Poll::Ready(())
                })
                .await;
                client.unary(&1).await.unwrap();
            }
        });
        let sent = sent.load(Ordering::SeqCst);
        assert!((1000..3000).contains(&sent), "{sent}");
        drop(upload);
        blocking.run(async { client.unary(&1).await.unwrap() });
        eventually("the handler is dropped", || seen.given_up.load(Ordering::SeqCst) == 1);
        assert_eq!(seen.read.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn dropping_either_half_is_heard() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        let mut dropped = 0;
        over_clients!(pair, server, client => {
            // The stream of a reply.
            let mut lines = client.print(&Range { from: 0, to: u64::MAX }).wait().unwrap();
            lines.next_wait().unwrap().unwrap();
            drop(lines);
            dropped += 1;
            client.unary(&1).wait().unwrap();
            eventually("the stream is dropped", || seen.dropped.load(Ordering::SeqCst) == dropped);
            // One that never said anything.
            let given_up = seen.given_up.load(Ordering::SeqCst);
            drop(client.silent().wait().unwrap());
            client.unary(&1).wait().unwrap();
            eventually("it, too", || seen.given_up.load(Ordering::SeqCst) == given_up + 1);
            // An upload.
            let mut upload = client.some(&Range { from: 0, to: 9 }).wait().unwrap();
            upload.send_wait(&line(0)).unwrap();
            client.unary(&1).wait().unwrap();
            drop(upload);
            client.unary(&1).wait().unwrap();
            eventually("and it", || seen.given_up.load(Ordering::SeqCst) == given_up + 2);
            // What is heard of a pair ends the whole.
            let (mut say, heard) = client.echo(&"drop".into()).wait().unwrap();
            drop(heard);
            assert_eq!(say.send_wait(&line(1)).unwrap_err().cause, Cause::StreamEnded);
            // What is said does not.
            let (say, mut heard) = client.echo(&"drop".into()).wait().unwrap();
            drop(say);
            assert!(heard.next_wait().is_none());
        });
    });
}

#[test]
fn the_deadline_is_for_the_first_frame() {
    over_every_pair(|pair| {
        let (server, seen) = serve(&pair);
        over_clients!(pair, server, client => {
            let late = client.late(&10_000).deadline(SOON).wait();
            assert!(crate::common::has_expired(cause(late)));
            // What has begun may take longer.
            let given_up = seen.given_up.load(Ordering::SeqCst);
            let silent = client.silent().deadline(SOON).wait().unwrap();
            client.late(&250).deadline(Duration::from_secs(60)).wait().unwrap();
            assert_eq!(seen.given_up.load(Ordering::SeqCst), given_up);
            drop(silent);
        });
    });
}

#[test]
fn large_items_go_both_ways() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair);
        let client = shared(&pair, &server);
        let blob = |number: usize| {
            let len = [1 << 20, 100, 300_000, 0, 16_384][number % 5];
            Bytes::from((0..len).map(|i| (i + number) as u8).collect::<Vec<_>>())
        };
        let (mut say, mut heard) = client.blobs().wait().unwrap();
        std::thread::scope(|scope| {
            scope.spawn(move || (0..20).for_each(|n| say.send_wait(&blob(n)).unwrap()));
            for number in 0..20 {
                assert!(heard.next_wait().unwrap().unwrap()[..] == blob(number)[..], "{number}");
            }
            assert!(heard.next_wait().is_none());
        });
        let blocking = pair.blocking(&server);
        let client = PressClient::new(&blocking);
        let (mut say, mut heard) = client.blobs().wait().unwrap();
        for number in 0..10 {
            say.send_wait(&blob(number)).unwrap();
            assert!(heard.next_wait().unwrap().unwrap()[..] == blob(number)[..], "{number}");
        }
    });
}

#[test]
fn a_thousand_streams_at_the_same_time() {
    over_one_pair(|pair| {
        let (server, seen) = serve(&pair);
        let blocking = pair.blocking(&server);
        let client = PressClient::new(blocking.local().clone());
        let read = Rc::new(Cell::new(0));
        for from in 0..1000 {
            let (client, read) = (client.clone(), Rc::clone(&read));
            blocking.shard().spawn(async move {
                let mut lines = client.print(&Range { from, to: from + 50 }).await.unwrap();
                let mut next = from;
                while let Some(got) = lines.next().await {
                    assert_eq!(got.unwrap().number, next);
                    next += 1;
                }
                assert_eq!(next, from + 50);
                read.set(read.get() + 1);
            });
        }
        blocking.run(async {
            while read.get() < 1000 {
                client.unary(&1).await.unwrap();
            }
        });
        assert_eq!(seen.made.load(Ordering::SeqCst), 50_000);
    });
}

#[test]
fn what_is_not_as_the_method_says_ends_the_call() {
    over_one_pair(|pair| {
        let (server, seen) = serve(&pair);
        let blocking = pair.blocking(&server);
        let service = Printer::default().into_press();
        let method = |name| {
            let mut methods = service.table().methods().iter();
            methods.find(|method| method.name() == name).unwrap()
        };
        let call = |method: &MethodTable, flags| Outgoing {
            name: "raw",
            wait_for_ready: false,
            method: method.id(),
            in_signature: method.signatures().in_signature,
            out_signature: method.signatures().out_signature,
            codec: Codec::RKYV,
            compression: 0,
            attempt: 0,
            timeout: Duration::from_secs(9),
            priority: 0,
            flags,
        };
        let end = |opened: &ringcall::BlockingStream| {
            let arrived = std::future::poll_fn(|cx| opened.poll_arrived(cx));
            match blocking.run(arrived) {
                Arrived::End(Err(Failure { cause, .. })) => cause,
                other => panic!("{other:?}"),
            }
        };
        let some = method("some");
        let range: Message = |range, out| ringcall::Message::encode(&range, out);
        for (signature, body) in [
            (some.signatures().in_signature, vec![0; 3]),
            (some.signatures().in_signature ^ 1, Vec::new()),
        ] {
            let argument = Encode(range, Range { from: 0, to: 9 });
            let call = call(some, request_flags::ITEMS_IN);
            let opened = blocking.run(blocking.open(call, argument)).unwrap();
            let send = |cx: &mut TaskContext<'_>| {
                opened.poll_send(cx, Encoding::plain(Codec::RKYV, signature), &Raw(body.clone()))
            };
            blocking.run(std::future::poll_fn(send)).unwrap();
            assert_eq!(end(&opened), Cause::Status(Status::BAD_ITEM));
        }
        assert_eq!(seen.given_up.load(Ordering::SeqCst), 2);
        // A method without streams, called with one, and the other way round.
        let flags = request_flags::ITEMS_OUT;
        let argument = Encode(|number: u64, out| ringcall::Message::encode(&number, out), 1);
        let opened = blocking.run(blocking.open(call(method("unary"), flags), argument)).unwrap();
        assert_eq!(end(&opened), Cause::Status(Status::BAD_REQUEST));
        let argument = Encode(range, Range { from: 0, to: 9 });
        let called = blocking.run(blocking.call(call(some, 0), &argument));
        assert_eq!(called.unwrap_err().cause, Cause::Status(Status::BAD_REQUEST));
    });
}

type Message = fn(Range, &mut Writer) -> Result<(), EncodeError>;

/// A message as a payload.
#[derive(Clone)]
struct Encode<T>(fn(T, &mut Writer) -> Result<(), EncodeError>, T);

impl<T: Clone> Payload for Encode<T> {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        (self.0)(self.1.clone(), out)
    }
}

/// Bytes that claim to be a message.
struct Raw(Vec<u8>);

impl Payload for Raw {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        Ok(out.put(&self.0)?)
    }
}

/// Passes bytes on between a client and a server, until it is dropped.
struct Wire(String, mpsc::Receiver<TcpStream>);

impl Wire {
    fn to(server: &RunningServer) -> Wire {
        let target = server.address().to_string();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let (ends, wire) = mpsc::channel();
        std::thread::spawn(move || {
            let (client, _) = listener.accept().unwrap();
            let server = TcpStream::connect(target).unwrap();
            for (from, to) in [(&client, &server), (&server, &client)] {
                let (mut from, mut to) = (from.try_clone().unwrap(), to.try_clone().unwrap());
                std::thread::spawn(move || drop(std::io::copy(&mut from, &mut to)));
            }
            ends.send(client).unwrap();
            ends.send(server).unwrap();
        });
        Wire(address, wire)
    }

    fn cut(self) {
        self.1.iter().for_each(|end| end.shutdown(Shutdown::Both).unwrap());
    }
}

#[test]
fn a_lost_connection_ends_both_halves() {
    over_one_pair(|pair| {
        let (server, seen) = serve(&pair);
        let wire = Wire::to(&server);
        let client = pair.secured(PressClient::connect(&wire.0)).wait().unwrap();
        let mut silent = client.silent().wait().unwrap();
        let mut upload = client.some(&Range { from: 0, to: 10 }).wait().unwrap();
        upload.send_wait(&line(0)).unwrap();
        let (mut say, mut heard) = client.echo(&"end".into()).wait().unwrap();
        say.send_wait(&line(1)).unwrap();
        heard.next_wait().unwrap().unwrap();
        let waiting = std::thread::spawn(move || silent.next_wait().map(|item| item.map(|_| ())));
        wire.cut();
        let failure = waiting.join().unwrap().unwrap().unwrap_err();
        assert!(!failure.is_safe_to_retry(), "{failure:?}");
        let failure = heard.next_wait().unwrap().map(|_| ()).unwrap_err();
        assert!(!failure.is_safe_to_retry(), "{failure:?}");
        assert_eq!(say.send_wait(&line(2)).unwrap_err().cause, Cause::StreamEnded);
        let failure = (1..100).find_map(|n| upload.send_wait(&line(n)).err()).unwrap();
        assert!(!failure.is_safe_to_retry(), "{failure:?}");
        let failure = client.silent().wait().map(|_| ()).unwrap_err();
        assert!(failure.is_safe_to_retry(), "{failure:?}");
        eventually("both are dropped", || seen.given_up.load(Ordering::SeqCst) == 2);
    });
}

#[test]
fn topics_push_to_all_who_subscribed() {
    over_every_pair(|pair| {
        let news: Topic<Line> = Topic::new(8, SlowConsumer::Wait);
        let server = pair.start(pair.bind().service(Newsroom(news.clone()).into_news()));
        let client = pair.secured(NewsClient::connect(server.address())).wait().unwrap();
        let blocking = pair.blocking(&server);
        let local = NewsClient::new(&blocking);
        let mut first = client.follow().wait().unwrap();
        let mut second = local.follow().wait().unwrap();
        assert_eq!(news.subscribers(), 2);
        let publisher = news.clone();
        let publishing =
            std::thread::spawn(move || (0..500).for_each(|n| publisher.send_wait(line(n))));
        for number in 0..500 {
            assert_eq!(first.next_wait().unwrap().unwrap().number, number);
            assert_eq!(second.next_wait().unwrap().unwrap().number, number);
        }
        publishing.join().unwrap();
        drop(first);
        eventually("it unsubscribes", || news.subscribers() == 1);
    });
}

#[ringcall::service(name = "test.News")]
trait News {
    async fn follow(&self) -> impl Stream<Item = Line>;
}

#[derive(Clone)]
struct Newsroom(Topic<Line>);

impl News for Newsroom {
    async fn follow(&self) -> impl Stream<Item = Line> {
        self.0.subscribe()
    }
}
