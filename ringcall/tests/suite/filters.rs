//! Filters of servers and clients.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crate::common::{
    Cook, Kitchen, KitchenClient, Pair, SOON, block, eventually, order, over_every_pair,
};
use parking_lot::Mutex;
use ringcall::filter::{CallEnd, ClientCall, FilterExt, Filtered, ServerCall};
use ringcall::{
    BlockOn, CallError, Cause, Channel, Client, Context, FailureClass, IntoOwned, Items,
    RunningServer, Status, Stream,
};

/// What filters have seen, in order.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<String>>>);

impl Log {
    fn add(&self, line: String) {
        self.0.lock().push(line);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.0.lock())
    }

    fn told(&self, by: &'static str) -> impl Fn(&CallEnd<'_>) + Clone + Send + Sync + 'static {
        let log = self.clone();
        move |end| {
            let status =
                end.status.map_or_else(|| "none".to_owned(), |status| format!("{status:?}"));
            log.add(format!("{by} {} {status}", end.method));
        }
    }
}

fn cause<T>(result: Result<T, CallError<impl std::fmt::Debug>>) -> (FailureClass, Cause) {
    match result {
        Err(CallError::Failed(failure)) => (failure.class, failure.cause),
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it succeeded"),
    }
}

/// Lets calls with the word pass, some of them later, and has a word with them.
async fn guard(call: ServerCall) -> Result<ServerCall, Status> {
    call.reply_metadata("guard", "seen");
    match call.metadata().text("word") {
        Some("now") => Ok(call),
        Some("later") => {
            let peer = call.client(&call.local_peer());
            // Nobody serves it there, which takes a moment to learn.
            assert!(KitchenClient::new(&peer).nothing().await.is_err());
            Ok(call)
        }
        Some("never") => std::future::pending().await,
        Some("panic") => panic!("as asked"),
        Some(_) => Err(Status::FORBIDDEN),
        None => Err(Status::UNAUTHENTICATED),
    }
}

fn serve(pair: &Pair, log: &Log) -> (RunningServer, Cook) {
    let cook = Cook::default();
    let first = log.clone();
    let numbered = move |call: ServerCall| {
        first.add(format!("first {} {}", call.method(), call.priority()));
        std::future::ready(Ok(call))
    };
    let hurry = |mut call: ServerCall| {
        if call.priority() == 9 {
            call.limit(Duration::from_millis(20));
        }
        std::future::ready(Ok(call))
    };
    let filters =
        numbered.after(log.told("outer")).then(guard).then(hurry).after(log.told("inner"));
    let server = pair.bind().service(cook.clone().into_kitchen()).service(Desk.into_counter());
    (pair.start(server.filter(filters)), cook)
}

#[ringcall::service(name = "test.Counter")]
trait Counter {
    async fn sum(&self, numbers: Items<u64>) -> u64;
    async fn down(&self, from: u64) -> impl Stream<Item = u64>;
    async fn word(&self, cx: &Context) -> String;
}

struct Desk;

struct Down(u64);

impl Stream for Down {
    type Item = u64;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<u64>> {
        let next = self.0.checked_sub(1);
        self.0 = next.unwrap_or(0);
        std::task::Poll::Ready(next)
    }
}

impl Counter for Desk {
    async fn sum(&self, mut numbers: Items<u64>) -> u64 {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number;
        }
        sum
    }

    async fn down(&self, from: u64) -> impl Stream<Item = u64> {
        Down(from)
    }

    async fn word(&self, cx: &Context) -> String {
        let words = cx.metadata().iter().map(|(key, value)| format!("{key}={}", value.len()));
        words.collect::<Vec<_>>().join(" ")
    }
}

#[test]
fn calls_pass_the_filters_of_a_server() {
    over_every_pair(|pair| {
        let log = Log::default();
        let (server, cook) = serve(&pair, &log);
        let kitchen = pair.kitchen(&server);
        for word in ["now", "later"] {
            let reply = kitchen.cook(&order(3)).metadata("word", word).with_metadata().wait();
            assert_eq!(reply.result.unwrap().id, 3);
            assert_eq!(reply.metadata.text("guard"), Some("seen"));
            let ends = ["inner test.Kitchen/cook OK", "outer test.Kitchen/cook OK"];
            let first = "first test.Kitchen/cook 0";
            assert_eq!(log.take(), [&[first][..], &ends].concat(), "{word}");
        }
        // An error of the handler's own.
        let none = crate::common::Order { symbol: "NONE".into(), ..order(1) };
        assert!(matches!(
            kitchen.cook(&none).metadata("word", "now").wait(),
            Err(CallError::App(_))
        ));
        assert_eq!(log.take()[1], "inner test.Kitchen/cook APPLICATION_ERROR");
        for (word, status) in
            [("wrong", Status::FORBIDDEN), ("", Status::FORBIDDEN), ("panic", Status::INTERNAL)]
        {
            let (_, failed) = cause(kitchen.nothing().metadata("word", word).wait());
            assert_eq!(failed, Cause::Status(status), "{word}");
        }
        let refused = kitchen.nothing().wait().unwrap_err();
        assert!(refused.is_safe_to_retry());
        assert_eq!(cause::<()>(Err(refused)).1, Cause::Status(Status::UNAUTHENTICATED));
        log.take();
        // A filter that waits is dropped with its call.
        let never = kitchen.nothing().metadata("word", "never").deadline(SOON);
        assert!(crate::common::has_expired(cause(never.wait()).1));
        eventually("its end is told", || {
            log.0.lock().iter().any(|line| line == "outer test.Kitchen/nothing EXPIRED_RUNNING")
        });
        // A filter may make the time shorter.
        let slow = kitchen.simmer(&60_000).metadata("word", "now").priority(9);
        let (_, failed) = cause(slow.deadline(Duration::from_secs(60)).wait());
        assert_eq!(failed, Cause::Status(Status::EXPIRED_RUNNING));
        // On the pool, through a responder, one-way.
        assert!(*kitchen.chop(&1).metadata("word", "later").wait().unwrap());
        assert_eq!(kitchen.deliver(&1).metadata("word", "later").wait().unwrap().to_native(), 1);
        kitchen.toss(&5).metadata("word", "later").wait().unwrap();
        kitchen.toss(&7).metadata("word", "wrong").wait().unwrap();
        eventually("one of them runs", || cook.seen.tossed.load(Ordering::SeqCst) == 5);
    });
}

#[test]
fn items_wait_for_the_filters_of_a_server() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair, &Log::default());
        let blocking = pair.blocking(&server);
        let counter = CounterClient::new(&blocking);
        for word in ["now", "later"] {
            let mut sum = counter.sum().metadata("word", word).wait().unwrap();
            (1..=100).for_each(|number| sum.send_wait(&number).unwrap());
            assert_eq!(sum.finish_wait().unwrap().to_native(), 5050, "{word}");
            let mut down = counter.down(&3).metadata("word", word).wait().unwrap();
            assert_eq!(down.wait_each().map(Result::unwrap).count(), 3);
            assert_eq!(down.metadata().and_then(|said| said.text("guard")), Some("seen"));
        }
        let refused = counter.down(&3).metadata("word", "wrong").wait();
        assert_eq!(cause(refused).1, Cause::Status(Status::FORBIDDEN));
        let sum = counter.sum().metadata("word", "wrong").wait().unwrap();
        assert_eq!(cause(sum.finish_wait()).1, Cause::Status(Status::FORBIDDEN));
    });
}

// ---- at a client ----

fn filtered<C>(channel: C, log: &Log) -> Filtered<C, impl ringcall::filter::Filter<ClientCall>> {
    let added = log.clone();
    let word = move |mut call: ClientCall| {
        let added = added.clone();
        async move {
            added.add(format!("{} {}", call.method(), call.metadata().len()));
            if call.metadata().get("stop").is_some() {
                return Err(Status::FORBIDDEN);
            }
            if call.metadata().get("word").is_none() {
                call.add_metadata("word", "now");
            }
            call.set_deadline(call.deadline().min(Duration::from_secs(30)));
            Ok(call)
        }
    };
    Filtered::new(channel, word.after(log.told("told")))
}

fn calls_pass<C>(channel: C, log: &Log)
where
    C: Channel<Body: IntoOwned> + BlockOn,
{
    let counter = CounterClient::new(filtered(channel, log));
    let words = counter.word().metadata("own", "1234").wait();
    assert!(words.is_ok());
    let ends = ["test.Counter/word 1", "told test.Counter/word OK"];
    assert_eq!(log.take(), ends);
    assert!(counter.word().wait().is_ok());
    let stopped = counter.word().metadata("stop", "").wait();
    let status = Cause::Status(Status::FORBIDDEN);
    assert_eq!(cause(stopped), (FailureClass::NotSent, status));
    log.take();
    assert_eq!(cause(counter.word().metadata("word", "wrong").wait()).1, status);
    assert_eq!(log.take()[1], "told test.Counter/word FORBIDDEN");
}

#[test]
fn calls_pass_the_filters_of_a_client() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair, &Log::default());
        let log = Log::default();
        let client = pair.secured(Client::connect(server.address())).wait().unwrap();
        calls_pass(client.clone(), &log);
        let blocking = pair.blocking(&server);
        calls_pass(&blocking, &log);
        // Twice.
        let inner = filtered(client.clone(), &log);
        calls_twice(filtered(inner, &log));
        log.take();
        // Futures of a client may go to other threads, also through filters.
        let count = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&count);
        let counting = Filtered::new(client, move |mut call: ClientCall| {
            counted.fetch_add(1, Ordering::SeqCst);
            call.add_metadata("word", "later");
            std::future::ready(Ok(call))
        });
        let counter = CounterClient::new(counting);
        std::thread::scope(|scope| {
            scope.spawn(|| assert!(counter.word().wait().is_ok()));
        });
        let mut down = counter.down(&5).wait().unwrap();
        assert_eq!(down.wait_each().count(), 5);
        assert_eq!(count.load(Ordering::SeqCst), 2);
    });
}

fn calls_twice<C: Channel<Body: IntoOwned> + BlockOn>(channel: C) {
    let counter = CounterClient::new(channel);
    assert!(counter.word().wait().is_ok());
}

/// Ready after a while, on any thread.
struct After {
    time: Duration,
    is_over: Option<Arc<AtomicBool>>,
}

impl After {
    fn new(time: Duration) -> After {
        After { time, is_over: None }
    }
}

impl Future for After {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<()> {
        if let Some(is_over) = &self.is_over {
            return if is_over.load(Ordering::SeqCst) { Poll::Ready(()) } else { Poll::Pending };
        }
        let (waker, is_over) = (cx.waker().clone(), Arc::new(AtomicBool::new(false)));
        self.is_over = Some(Arc::clone(&is_over));
        let time = self.time;
        std::thread::spawn(move || {
            block(time);
            is_over.store(true, Ordering::SeqCst);
            waker.wake();
        });
        Poll::Pending
    }
}

/// What a filter waits for is the caller's time.
#[test]
fn the_time_of_a_clients_filter_counts() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let client = pair.secured(Client::connect(server.address())).wait().unwrap();
        let slow = |call: ClientCall| async move {
            After::new(Duration::from_millis(300)).await;
            Ok(call)
        };
        let kitchen = KitchenClient::new(Filtered::new(client.clone(), slow));
        let simmered = kitchen.simmer(&0).deadline(Duration::from_millis(100)).wait();
        assert_eq!(cause(simmered), (FailureClass::NotSent, Cause::Expired));
        assert_eq!(seen.begun.load(Ordering::SeqCst), 0);
        let left = kitchen.remaining_ms().deadline(Duration::from_secs(20)).wait().unwrap();
        assert!(*left <= 19_700, "{left:?}");
    });
}

/// Filters on a shard need not be `Send`.
#[test]
fn filters_of_a_local_client_may_share_what_they_like() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair, &Log::default());
        let blocking = pair.blocking(&server);
        let seen = Rc::new(RefCell::new(Vec::new()));
        let kept = Rc::clone(&seen);
        let filter = move |mut call: ClientCall| {
            kept.borrow_mut().push(call.method());
            call.add_metadata("word", "now");
            std::future::ready(Ok(call))
        };
        let counter = CounterClient::new(Filtered::new(blocking.local().clone(), filter));
        assert!(blocking.run(async { counter.word().await }).is_ok());
        assert_eq!(*seen.borrow(), ["test.Counter/word"]);
    });
}
