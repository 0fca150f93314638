//! What users do with servers and clients, over real sockets.

use std::cell::Cell;
use std::future::{Future, IntoFuture};
use std::io::Write;
use std::pin::pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use crate::common::{
    Cook, Kitchen, KitchenClient, Rejected, SOON, Socket, block, eventually, order,
    over_every_engine, over_every_pair, over_one_pair, raw,
};
use ringcall::{
    Address, BlockOn, BlockingClient, Bytes, CallError, CallOptions, Cause, Failure, FailureClass,
    Handlers, Server, Shard, ShardConfig, Status, Wait, WaitPolicy,
};

fn failure<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Failure {
    match result {
        Ok(_) => panic!("expected a failure, got a value"),
        Err(error) => *error.failure().unwrap_or_else(|| panic!("expected a failure: {error:?}")),
    }
}

fn status<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Status {
    match failure(result).cause {
        Cause::Status(status) => status,
        other => panic!("expected a status, got {other:?}"),
    }
}

#[test]
fn every_kind_of_client_calls_every_kind_of_method() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let shared = pair.kitchen(&server);
        let blocking = pair.blocking(&server);
        let local = KitchenClient::new(&blocking);
        for id in 0..20 {
            let order = order(id);
            assert_eq!(shared.cook(&order).wait().unwrap().to_owned(), order);
            assert_eq!(local.cook(&order).wait().unwrap().to_owned(), order);
            assert_eq!(shared.taste(&order).wait().unwrap().to_native(), id);
            assert_eq!(local.taste(&order).wait().unwrap().to_native(), id);
        }
        for size in [0, 1, 1000, 16_384, 100_000, 4 << 20] {
            let body = Bytes::from((0..size).map(|i| i as u8).collect::<Vec<_>>());
            assert!(shared.raw(&body).wait().unwrap()[..] == body[..]);
            assert!(local.raw(&body).wait().unwrap()[..] == body[..]);
        }
        shared.nothing().wait().unwrap();
        local.nothing().wait().unwrap();
        assert!(shared.chop(&1).wait().unwrap().then_some(()).is_some());
        assert_eq!(local.deliver(&2).wait().unwrap().to_native(), 2);
        shared.toss(&5).wait().unwrap();
        local.toss(&6).wait().unwrap();
        eventually("both one-way calls arrive", || seen.tossed.load(Ordering::SeqCst) == 11);
    });
}

#[test]
fn application_errors_are_values() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        let mut bad = order(1);
        bad.symbol = "NONE".into();
        let error = client.cook(&bad).wait().map(|_| ()).unwrap_err();
        assert_eq!(error, CallError::App(Rejected::Unknown { symbol: "NONE".into() }));
        assert!(!error.is_safe_to_retry());
        let error = client.deliver(&13).wait().map(|_| ()).unwrap_err();
        assert_eq!(error, CallError::App(Rejected::TooLarge(13)));
    });
}

#[test]
fn f01_a_panic_is_a_status_for_its_caller_and_for_nobody_else() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        let other = client.simmer(&30);
        let waiting = std::thread::scope(|scope| {
            let other = scope.spawn(|| other.wait().map(|time| time.to_native()));
            assert_eq!(status(client.panic(&"as asked".into()).wait()), Status::INTERNAL);
            assert_eq!(status(client.panic_later().wait()), Status::INTERNAL);
            other.join().unwrap()
        });
        assert_eq!(waiting.unwrap(), 30);
    });
}

/// Keeps its shard for itself.
#[ringcall::service(name = "test.Hog")]
trait Hog {
    async fn hog(&self, time_ms: u64);
    #[method(offload)]
    async fn hog_elsewhere(&self, time_ms: u64);
}

#[derive(Clone)]
struct Pig;

impl Hog for Pig {
    async fn hog(&self, time_ms: u64) {
        crate::common::block(Duration::from_millis(time_ms));
    }

    async fn hog_elsewhere(&self, time_ms: u64) {
        crate::common::block(Duration::from_millis(time_ms));
    }
}

#[test]
fn f04_a_handler_that_keeps_its_shard_is_counted() {
    // Only what this test does takes so long.
    const LONG: Duration = Duration::from_millis(400);
    over_every_engine(|pair| {
        if pair.socket == Socket::Unix {
            return;
        }
        for wait in [WaitPolicy::Park, WaitPolicy::Spin] {
            let server = pair.bind().service(Pig.into_hog()).wait(wait).stall_threshold(LONG);
            let server = pair.start(server);
            let client = pair.secured(HogClient::connect(server.address())).wait().unwrap();
            let patience = CallOptions::new().deadline(Duration::from_secs(60));
            let client = client.with_options(patience);
            client.hog_elsewhere(&500).wait().unwrap();
            assert_eq!(server.incidents().stalls, 0);
            client.hog(&500).wait().unwrap();
            eventually("the stall is counted", || server.incidents().stalls == 1);
        }
    });
}

#[test]
fn f05_a_dropped_responder_answers() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        assert_eq!(status(client.forget().wait()), Status::INTERNAL);
    });
}

#[test]
fn b12_dropping_a_future_drops_its_handler() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let blocking = pair.blocking(&server);
        let local = KitchenClient::new(blocking.local().clone());
        blocking.run(async {
            let mut call = pin!(local.simmer(&10_000).into_future());
            // Polled once, so that it is sent, and then left.
            std::future::poll_fn(|cx| {
                assert!(call.as_mut().poll(cx).is_pending());
                Poll::Ready(())
            })
            .await;
            local.nothing().await.unwrap();
        });
        blocking.run(local.nothing().into_future()).unwrap();
        eventually("the handler is dropped", || seen.dropped.load(Ordering::SeqCst) == 1);
        assert_eq!(seen.finished.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn b12_dropping_a_future_of_another_thread_drops_its_handler() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let client = pair.kitchen(&server);
        {
            let mut call = pin!(client.simmer(&10_000).into_future());
            let waker = Waker::from(Arc::new(Nobody));
            assert!(call.as_mut().poll(&mut TaskContext::from_waker(&waker)).is_pending());
            client.nothing().wait().unwrap();
        }
        eventually("the handler is dropped", || seen.dropped.load(Ordering::SeqCst) == 1);
    });
}

struct Nobody;

impl Wake for Nobody {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_deadline_ends_the_call_and_its_handler() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let client = pair.kitchen(&server);
        let late = failure(client.simmer(&60_000).deadline(SOON).wait());
        assert_eq!(late.class, FailureClass::Unknown);
        assert!(crate::common::has_expired(late.cause), "{late}");
        eventually("the handler is dropped", || seen.dropped.load(Ordering::SeqCst) == 1);
    });
}

#[test]
fn deadlines_come_from_the_call_then_the_client_then_the_default() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server).with_options(CallOptions::new());
        // What is left says which of them it was, however long the way took.
        let default = client.remaining_ms().wait().unwrap().to_native();
        assert!((1..=1000).contains(&default), "{default}");
        let patient =
            client.clone().with_options(CallOptions::new().deadline(Duration::from_secs(30)));
        let by_client = patient.remaining_ms().wait().unwrap().to_native();
        assert!((20_000..=30_000).contains(&by_client), "{by_client}");
        let by_call = patient.remaining_ms().deadline(Duration::from_secs(10)).wait().unwrap();
        assert!((1_001..=10_000).contains(&by_call.to_native()));
    });
}

#[test]
fn offloaded_work_is_told_that_nobody_waits() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let client = pair.kitchen(&server);
        let late = client.chop(&60_000).deadline(SOON).wait();
        // Whichever side notices first; but the handler's answer, which comes late, never counts.
        let cause = failure(late).cause;
        assert!(crate::common::has_expired(cause), "{cause:?}");
        eventually("the work stops", || seen.dropped.load(Ordering::SeqCst) == 1);
        client.nothing().wait().unwrap();
    });
}

#[test]
fn all_handlers_can_be_offloaded() {
    over_every_pair(|pair| {
        let cook = Cook::default();
        let server = pair.bind().service(cook.into_kitchen()).handlers(Handlers::Offload);
        let server = server.start().unwrap();
        let client = pair.kitchen(&server);
        for id in 0..50 {
            let order = order(id);
            assert_eq!(client.cook(&order).wait().unwrap().to_owned(), order);
        }
        assert_eq!(client.simmer(&5).wait().unwrap().to_native(), 5);
        assert_eq!(status(client.panic(&"as asked".into()).wait()), Status::INTERNAL);
        assert_eq!(client.deliver(&3).wait().unwrap().to_native(), 3);
        let body = Bytes::from(vec![9; 1 << 20]);
        assert!(client.raw(&body).wait().unwrap()[..] == body[..]);
    });
}

#[test]
fn f03_offloaded_work_is_refused_rather_than_kept_without_bound() {
    over_one_pair(|pair| {
        let cook = Cook::default();
        let server = pair.bind().service(cook.into_kitchen()).offload_threads(1);
        let server = server.start().unwrap();
        let client = pair.kitchen(&server);
        let (ends, waiting) = mpsc::channel();
        // The server takes 1024 calls of a connection at a time; two connections overfill the queue.
        let other = pair.kitchen(&server);
        for client in [&client, &other] {
            for _ in 0..1000 {
                let ends = ends.clone();
                let call = client.chop(&100).deadline(Duration::from_secs(2));
                call.callback(move |end| drop(ends.send(end.map(|_| ()))));
            }
        }
        drop(ends);
        let ends: Vec<_> = waiting.iter().collect();
        let overloaded = |end: &&Result<(), CallError>| {
            let refused = end.as_ref().err().and_then(|error| error.failure().copied());
            refused.is_some_and(|failure| failure.cause == Cause::Status(Status::OVERLOADED))
        };
        assert_eq!(ends.len(), 2000, "each call ends once");
        let refused = ends.iter().filter(overloaded).count();
        // On a slow machine some calls expire before they get there.
        assert!((500..1000).contains(&refused), "{refused}");
    });
}

#[test]
fn many_tasks_share_a_client_and_get_their_own_answers() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        std::thread::scope(|scope| {
            for thread in 0..8 {
                let client = client.clone();
                scope.spawn(move || {
                    for number in 0..500 {
                        let order = order(thread * 1000 + number);
                        let cooked = client.cook(&order).wait().unwrap();
                        assert_eq!(cooked.id, order.id);
                        assert_eq!(cooked.symbol, order.symbol);
                    }
                });
            }
        });
    });
}

/// Pending once, and woken at once: what a task does that lets others have their turn.
async fn yield_now() {
    let mut has_yielded = false;
    std::future::poll_fn(|cx| {
        if std::mem::replace(&mut has_yielded, true) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

#[test]
fn a_task_that_yields_lets_the_shard_look_for_what_has_arrived() {
    over_one_pair(|pair| {
        let (server, _) = pair.serve();
        let blocking = pair.blocking(&server);
        let polls = Rc::new(Cell::new(0));
        let counted = Rc::clone(&polls);
        blocking.shard().spawn(async move {
            loop {
                counted.set(counted.get() + 1);
                yield_now().await;
            }
        });
        blocking.shard().turn(Wait::Now);
        assert!((1..=16).contains(&polls.get()), "{} polls in a turn", polls.get());
        // And its own calls are answered beside it.
        let client = KitchenClient::new(&blocking);
        client.nothing().wait().unwrap();
    });
}

/// Its waker may be anywhere, and be used at any time.
#[test]
fn a_future_that_has_ended_wakes_its_shard_no_more() {
    over_one_pair(|pair| {
        let shard = pair.shard();
        let waker = shard.block_on(std::future::poll_fn(|cx| Poll::Ready(cx.waker().clone())));
        waker.wake();
        let turns = |_| shard.turn(Wait::Now) == ringcall::Turn::Idle;
        assert!((0..8).any(turns), "there is always something to do");
    });
}

#[test]
fn a_future_that_drives_its_shard_within_another_leaves_that_one_its_wake() {
    over_one_pair(|pair| {
        let shard = pair.shard();
        let is_done = Rc::new(Cell::new(false));
        let mut is_first = true;
        let outer = std::future::poll_fn(|cx| {
            if is_done.get() {
                return Poll::Ready(());
            }
            if std::mem::take(&mut is_first) {
                let (is_done, waker) = (Rc::clone(&is_done), cx.waker().clone());
                let sleep = shard.sleep(Duration::from_millis(5));
                shard.spawn(async move {
                    sleep.await;
                    is_done.set(true);
                    waker.wake();
                });
                shard.block_on(shard.sleep(Duration::from_millis(30)));
            }
            Poll::Pending
        });
        shard.block_on(outer);
    });
}

/// Whoever waits is let in when there is room, and not asked all the time whether there is.
#[test]
fn a_shard_sleeps_while_its_calls_wait_for_room_to_be_sent() {
    over_one_pair(|pair| {
        let listening = raw::Listening::new(pair.socket);
        let mut config = ShardConfig::default();
        config.transport = pair.client;
        config.client =
            ringcall::Config::new().send_queue_soft(256 << 10).send_queue_max(512 << 10);
        let shard = Shard::new(config).unwrap();
        let address = listening.address.clone();
        let answers = std::thread::spawn(move || {
            let mut wire = listening.accept();
            raw::read_opening(&mut wire).expect("a HELLO");
            wire.write_all(&raw::opening()).unwrap();
            wire
        });
        let local = shard.block_on(shard.connect(&address)).unwrap();
        let wire = answers.join().unwrap();
        let done = Rc::new(Cell::new(0));
        for _ in 0..8 {
            let (client, done) = (KitchenClient::new(local.clone()), Rc::clone(&done));
            shard.spawn(async move {
                let long = Bytes::from(vec![7; 1 << 20]);
                let lost = failure(client.raw(&long).deadline(Duration::from_secs(60)).await);
                assert!(matches!(lost.cause, Cause::Closed(_)), "{lost}");
                done.set(done.get() + 1);
            });
        }
        // Nobody reads.
        let rests = (0..200).any(|_| {
            block(Duration::from_millis(1));
            (0..3).all(|_| shard.turn(Wait::Now) == ringcall::Turn::Idle)
        });
        assert!(rests, "there is always something to do");
        drop(wire);
        shard.run(|| done.get() < 8);
    });
}

#[test]
fn more_calls_than_the_server_takes_at_once_wait_for_room() {
    over_every_pair(|pair| {
        let cook = Cook::default();
        let config = ringcall::Config::new().in_flight_max(8);
        let server = pair.bind().service(cook.into_kitchen()).config(config);
        // At the end some calls run on.
        let server = server.drain_timeout(Duration::from_millis(10)).start().unwrap();
        let blocking = pair.blocking(&server);
        let done = Rc::new(Cell::new(0));
        let shared = pair.kitchen(&server);
        for _ in 0..100 {
            let (client, done) = (KitchenClient::new(blocking.local().clone()), Rc::clone(&done));
            blocking.shard().spawn(async move {
                let call = client.simmer(&1).deadline(Duration::from_secs(60));
                call.await.expect("waited for its turn");
                done.set(done.get() + 1);
            });
        }
        let (ends, waiting) = mpsc::channel();
        for _ in 0..100 {
            let ends = ends.clone();
            shared.simmer(&1).deadline(Duration::from_secs(60)).callback(move |end| {
                let _ = ends.send(end.is_ok());
            });
        }
        drop(ends);
        blocking.shard().run(|| done.get() < 100);
        assert_eq!(waiting.iter().filter(|ok| *ok).count(), 100);
        // Those that cannot get through in time fail, and were certainly not sent.
        for _ in 0..8 {
            shared.simmer(&60_000).deadline(Duration::from_secs(60)).callback(drop);
        }
        let (ends, late) = mpsc::channel();
        for _ in 0..30 {
            let ends = ends.clone();
            shared.simmer(&1).deadline(Duration::from_millis(20)).callback(move |end| {
                let _ = ends.send(failure(end.map(|_| ())));
            });
        }
        drop(ends);
        let late: Vec<_> = late.iter().collect();
        assert_eq!(late.len(), 30);
        for end in late {
            assert_eq!((end.class, end.cause), (FailureClass::NotSent, Cause::Expired));
        }
    });
}

#[test]
fn unknown_methods_and_senseless_arguments_are_refused() {
    over_every_pair(|pair| {
        mod other {
            //! The same service, as somebody sees it who was built at another time.
            #[ringcall::message]
            #[derive(Debug)]
            pub struct Order {
                pub id: u64,
                pub symbol: String,
            }

            #[ringcall::service(name = "test.Kitchen")]
            pub trait Kitchen {
                async fn cook(&self, order: Order) -> Result<Order, String>;
                async fn wash(&self);
                async fn nothing(&self);
                #[method(name = "raw")]
                async fn raw_as_text(&self, text: String) -> String;
            }
        }
        let (server, _) = pair.serve();
        let client = pair.secured(other::KitchenClient::connect(server.address())).wait().unwrap();
        let order = other::Order { id: 1, symbol: "ABC".into() };
        let refused = failure(client.cook(&order).wait());
        assert_eq!(refused.class, FailureClass::Refused);
        // It was said again in MessagePack, and there is no default for the levels.
        assert_eq!(refused.cause, Cause::Status(Status::BAD_BODY));
        assert_eq!(status(client.wash().wait()), Status::UNKNOWN_METHOD);
        assert_eq!(status(client.raw_as_text(&"x".into()).wait()), Status::UNKNOWN_CODEC);
        client.nothing().wait().unwrap();
    });
}

#[test]
fn a_service_twice_is_an_error_that_says_so() {
    over_every_pair(|pair| {
        let server = pair
            .bind()
            .service(Cook::default().into_kitchen())
            .service(Cook::default().into_kitchen());
        let error = server.start().unwrap_err().to_string();
        assert!(error.contains("test.Kitchen/cook"), "{error}");
    });
}

#[test]
fn several_services_and_shards_share_a_port() {
    #[ringcall::service]
    trait PerShard {
        async fn count(&self) -> u64;
    }
    /// Not `Send`: each shard has its own.
    struct Counter(Rc<Cell<u64>>);
    impl PerShard for Counter {
        async fn count(&self) -> u64 {
            self.0.set(self.0.get() + 1);
            self.0.get()
        }
    }
    over_every_pair(|pair| {
        let server = pair
            .bind()
            .service(Cook::default().into_kitchen())
            .service_per_shard(|_| Counter(Rc::default()).into_per_shard())
            .shards(3)
            .start()
            .unwrap();
        let clients: Vec<_> = (0..9).map(|_| pair.blocking(&server)).collect();
        eventually("all connections are counted", || server.connections() == 9);
        let mut counts: Vec<u64> = clients
            .iter()
            .map(|client| {
                KitchenClient::new(client).nothing().wait().unwrap();
                PerShardClient::new(client).count().wait().unwrap().to_native()
            })
            .collect();
        counts.sort_unstable();
        // Three connections went to each shard, each of which counts its own.
        assert_eq!(counts, [1, 1, 1, 2, 2, 2, 3, 3, 3]);
        drop(clients);
        eventually("the connections end", || server.connections() == 0);
    });
}

#[test]
fn a_shard_turns_in_a_loop_of_its_own() {
    over_every_pair(|pair| {
        let shard = pair.shard();
        shard.serve(Cook::default().into_kitchen()).unwrap();
        let address = shard.listen("127.0.0.1:0").unwrap();
        let caller = std::thread::spawn(move || {
            let client = pair.secured(KitchenClient::connect(&address)).wait().unwrap();
            (0..100).map(|id| client.cook(&order(id)).wait().unwrap().id.to_native()).sum::<u64>()
        });
        while !caller.is_finished() {
            shard.turn(Wait::AtMost(Duration::from_millis(1)));
        }
        assert_eq!(caller.join().unwrap(), (0..100).sum::<u64>());
        assert_eq!(shard.panics(), 0);
    });
}

#[test]
fn spinning_shards_do_the_same() {
    over_every_pair(|pair| {
        let cook = Cook::default();
        let server = pair.bind().service(cook.into_kitchen()).wait(WaitPolicy::Spin);
        let server = server.start().unwrap();
        let mut config = ShardConfig::default();
        config.wait = WaitPolicy::Spin;
        let client = pair.blocking_with(&server, config);
        let kitchen = KitchenClient::new(&client);
        for id in 0..200 {
            assert_eq!(kitchen.cook(&order(id)).wait().unwrap().id.to_native(), id);
        }
    });
}

#[test]
fn a_handler_calls_on_with_the_time_that_is_left() {
    over_every_pair(|pair| {
        #[ringcall::service]
        trait Front {
            async fn remaining_of_upstream_ms(&self, cx: &ringcall::Context) -> u64;
        }
        struct Door(KitchenClient);
        impl Front for Door {
            async fn remaining_of_upstream_ms(&self, cx: &ringcall::Context) -> u64 {
                cx.sleep(Duration::from_millis(50)).await;
                let upstream = KitchenClient::new(cx.client(self.0.channel()));
                let upstream =
                    upstream.with_options(CallOptions::new().deadline(Duration::from_secs(120)));
                upstream.remaining_ms().await.map_or(0, |left| left.to_native())
            }
        }
        let (upstream, _) = pair.serve();
        let client = pair.kitchen(&upstream);
        let front = pair.bind().service(Door(client).into_front()).start().unwrap();
        let front = pair
            .secured(FrontClient::connect(front.address()))
            .wait()
            .map(|client| (front, client))
            .unwrap();
        let left = front.1.remaining_of_upstream_ms().deadline(Duration::from_secs(60)).wait();
        let left = left.unwrap().to_native();
        // Less than there was at first, and than its own.
        assert!((30_000..=59_950).contains(&left), "{left}");
    });
}

#[test]
fn f07_stopping_finishes_what_runs_and_refuses_what_comes() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let client = pair.kitchen(&server);
        let running = client.simmer(&150).deadline(Duration::from_secs(60));
        let mut running = pin!(running.into_future());
        let mut cx = TaskContext::from_waker(Waker::noop());
        assert!(running.as_mut().poll(&mut cx).is_pending());
        // Behind it on the same connection: when this is answered, that runs.
        client.nothing().wait().unwrap();
        let counters = server.stop();
        client.channel().block_on(running).expect("what was taken is finished");
        assert_eq!(seen.finished.load(Ordering::SeqCst), 1);
        // And perhaps the client's question for the table of methods.
        assert!(matches!(counters.requests_taken, 2 | 3));
        let refused = failure(client.nothing().wait());
        assert!(refused.is_safe_to_retry(), "{refused:?}");
    });
}

#[test]
fn words_for_labels_are_short() {
    use std::net::IpAddr;
    let failure = Failure::unknown(Cause::Expired);
    assert!(failure.to_string().contains("CallOptions::deadline"), "{failure}");
    assert_eq!((failure.class.as_str(), failure.cause.as_str()), ("unknown", "expired"));
    assert_eq!(Cause::Status(Status::OVERLOADED).as_str(), "status");
    assert_eq!(FailureClass::NotSent.to_string(), "not sent");
    assert_eq!(format!("{:>8}", Handlers::Offload), " offload");
    let server =
        Server::bind((IpAddr::from([127, 0, 0, 1]), 0)).service(Cook::default().into_kitchen());
    let server = server.start().unwrap();
    let Address::Tcp(address) = server.address() else { panic!("TCP was asked for") };
    let kitchen = KitchenClient::connect(("localhost", address.port()));
    kitchen.wait().unwrap().nothing().wait().unwrap();
    KitchenClient::connect((address.ip(), address.port()))
        .wait()
        .unwrap()
        .nothing()
        .wait()
        .unwrap();
}

#[test]
fn connecting_to_nobody_says_so() {
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let error = KitchenClient::connect(free).wait().map(|_| ()).unwrap_err();
    assert!(error.to_string().contains("nobody listens"), "{error}");
    assert!(error.is_safe_to_retry());
    let error = BlockingClient::connect("unix:/nonexistent/x.sock").map(|_| ()).unwrap_err();
    assert!(error.is_safe_to_retry(), "{error}");
    let error = KitchenClient::connect("no such host").wait().map(|_| ()).unwrap_err();
    assert!(error.is_safe_to_retry(), "{error}");
}

#[test]
fn e23_addresses_that_cannot_be_served_say_why() {
    over_every_pair(|pair| {
        let error = |server: Server| server.start().unwrap_err().to_string();
        let serve = |address: &str| Server::bind(address).service(Cook::default().into_kitchen());
        assert!(error(serve("7000")).contains("write 127.0.0.1:7000"));
        let (taken, _) = pair.serve();
        assert!(error(serve(&taken.address().to_string())).contains("in use"));
        assert!(error(serve(&format!("unix:{}", "x".repeat(200)))).contains("not usable"));
    });
}

/// The future of a call may be polled by one executor and then by another.
#[test]
fn b13_the_last_waker_counts() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        let mut call = Box::pin(client.simmer(&30).into_future());
        let nobody = Waker::from(Arc::new(Nobody));
        for _ in 0..2 {
            assert!(call.as_mut().poll(&mut TaskContext::from_waker(&nobody)).is_pending());
        }
        let answer = std::thread::scope(|scope| {
            scope.spawn(|| ringcall::BlockOn::block_on(client.channel(), call)).join().unwrap()
        });
        assert_eq!(answer.unwrap().to_native(), 30);
    });
}

/// Whether somebody was woken.
#[derive(Default)]
struct Woken(AtomicBool);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::Release);
    }
}

#[test]
fn callers_who_are_woken_together_do_not_depend_on_each_other() {
    over_every_engine(|pair| {
        let (server, _seen) = pair.serve();
        let kitchen = pair.kitchen(&server);
        // All of one thread, and answered at once. Who is woken does nothing, for now.
        let mut calls: Vec<_> = (0..64)
            .map(|_| (Box::pin(kitchen.simmer(&20).into_future()), Arc::new(Woken::default())))
            .collect();
        fn poll(call: std::pin::Pin<&mut impl Future>, woken: &Arc<Woken>) -> bool {
            let waker = Waker::from(Arc::clone(woken));
            call.poll(&mut TaskContext::from_waker(&waker)).is_ready()
        }
        assert!(calls.iter_mut().all(|(call, woken)| !poll(call.as_mut(), woken)));
        let is_woken = |woken: &Woken| woken.0.load(Ordering::Acquire);
        eventually("all are woken", || calls.iter().all(|(_, woken)| is_woken(woken)));
        // Some go away, the others have their answers.
        calls.drain(..20);
        assert!(calls.iter_mut().all(|(call, woken)| poll(call.as_mut(), woken)));
        server.stop();
    });
}
