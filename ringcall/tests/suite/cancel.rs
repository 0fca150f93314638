//! Who is told that nobody waits any more, how far, and what time does to calls that wait.

use std::future::{Future, IntoFuture, poll_fn};
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::time::Duration;

use crate::common::{
    Cook, Kitchen, KitchenClient, Pair, SOON, Socket, block, eventually, over_every_pair,
    over_one_pair, raw,
};
use ringcall::{
    BlockOn, Bytes, CallError, Cause, Channel, Config, Context, Failure, FailureClass, Handlers,
    Message, Outgoing, Peer, Responder, RunningServer, Server, Service, View,
};
use ringcall_core::frame::request_flags;
use ringcall_core::{Codec, EncodeError, Payload, Writer};

fn failure<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Failure {
    match result {
        Ok(_) => panic!("expected a failure, got a value"),
        Err(error) => *error.failure().unwrap_or_else(|| panic!("expected a failure: {error:?}")),
    }
}

/// Sends a call and leaves it: polled once, and kept until the returned future is dropped.
fn begin<F: Future>(call: F) -> std::pin::Pin<Box<F>> {
    let mut call = Box::pin(call);
    let mut cx = TaskContext::from_waker(Waker::noop());
    assert!(call.as_mut().poll(&mut cx).is_pending());
    call
}

// ---- from server to server ----

/// A server that asks the next one, if there is one; the last one waits.
#[ringcall::service]
trait Link {
    /// How many microseconds each had left, the first one's first.
    async fn pass(&self, cx: &Context, wait_ms: u64) -> Vec<u64>;
    #[method(offload)]
    async fn pass_offloaded(&self, cx: &Context, wait_ms: u64) -> Vec<u64>;
}

#[derive(Clone, Default)]
struct Chain {
    next: Option<LinkClient>,
    seen: Arc<Links>,
}

#[derive(Default)]
struct Links {
    running: AtomicU64,
    ended: AtomicU64,
}

/// Counts handlers that run, and how they are left.
struct Running<'a>(&'a Links);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Chain {
    async fn go_on(&self, cx: &Context, wait_ms: u64, offloaded: bool) -> Vec<u64> {
        self.seen.running.fetch_add(1, Ordering::SeqCst);
        let running = Running(&self.seen);
        let mut left = Vec::new();
        if let Some(next) = &self.next {
            // Made before the time is asked: what counts is when the call is made.
            let next = LinkClient::new(cx.client(next.channel()));
            cx.sleep(Duration::from_millis(20)).await;
            left.push(cx.remaining().as_micros() as u64);
            let after = match offloaded {
                true => next.pass_offloaded(&wait_ms).deadline(Duration::from_secs(60)).await,
                false => next.pass(&wait_ms).deadline(Duration::from_secs(60)).await,
            };
            // Should the next one's deadline be noticed first, this one has nothing to answer before its own.
            let Ok(after) = after else { return std::future::pending().await };
            left.extend(after.iter().map(|left| left.to_native()));
        } else {
            left.push(cx.remaining().as_micros() as u64);
            cx.sleep(Duration::from_millis(wait_ms)).await;
        }
        self.seen.ended.fetch_add(1, Ordering::SeqCst);
        drop(running);
        left
    }
}

impl Link for Chain {
    async fn pass(&self, cx: &Context, wait_ms: u64) -> Vec<u64> {
        self.go_on(cx, wait_ms, false).await
    }

    async fn pass_offloaded(&self, cx: &Context, wait_ms: u64) -> Vec<u64> {
        self.go_on(cx, wait_ms, true).await
    }
}

/// Three servers, each asking the next, and a client of the first.
fn chain(pair: Pair) -> (Vec<RunningServer>, LinkClient, Arc<Links>) {
    let seen = Arc::<Links>::default();
    let (mut servers, mut next) = (Vec::new(), None);
    for _ in 0..3 {
        let link = Chain { next, seen: Arc::clone(&seen) };
        let server = pair.start(pair.bind().service(link.into_link()));
        let client = pair.secured(LinkClient::connect(server.address()));
        next = Some(client.wait().expect("the server accepts"));
        // The first one's clients go first.
        servers.insert(0, server);
    }
    (servers, next.expect("there are three"), seen)
}

#[test]
fn b12_a_cancel_goes_through_three_servers() {
    over_every_pair(|pair| {
        let (_servers, client, seen) = chain(pair);
        let patient = Duration::from_secs(60);
        let on_shards = begin(client.pass(&60_000).deadline(patient).into_future());
        let on_pools = begin(client.pass_offloaded(&60_000).deadline(patient).into_future());
        let running = || seen.running.load(Ordering::SeqCst);
        eventually("all handlers run", || running() == 6);
        drop(on_shards);
        eventually("the handlers on shards are dropped", || running() == 3);
        drop(on_pools);
        eventually("the handlers on pools are dropped", || running() == 0);
        assert_eq!(seen.ended.load(Ordering::SeqCst), 0);
    });
}

#[test]
fn d03_deadlines_shrink_through_three_servers() {
    over_every_pair(|pair| {
        let (_servers, client, _) = chain(pair);
        let all = Duration::from_secs(30);
        for _ in 0..3 {
            let on_shards = client.pass(&0).deadline(all).wait().unwrap();
            let on_pools = client.pass_offloaded(&0).deadline(all).wait().unwrap();
            for left in [on_shards, on_pools] {
                let left: Vec<u64> = left.iter().map(|left| left.to_native()).collect();
                let [first, second, third] = left[..] else { panic!("three servers: {left:?}") };
                // Each lets 20 ms pass before it goes on, with a client that it made before.
                let all = all.as_micros() as u64;
                assert!(first <= all - 20_000 && second <= first - 20_000, "{left:?}");
                assert!(third <= second && third > 0, "{left:?}");
            }
        }
    });
}

#[test]
fn d03_a_deadline_ends_three_servers() {
    over_every_pair(|pair| {
        let (_servers, client, seen) = chain(pair);
        let late = failure(client.pass(&60_000).deadline(Duration::from_millis(150)).wait());
        assert_eq!(late.class, FailureClass::Unknown);
        assert!(crate::common::has_expired(late.cause), "{late}");
        eventually("all handlers are dropped", || seen.running.load(Ordering::SeqCst) == 0);
    });
}

// ---- calls that wait ----

#[test]
fn d02_a_call_that_expires_before_the_pool_has_time_does_not_start() {
    over_every_pair(|pair| {
        let cook = Cook::default();
        let server = pair.bind().service(cook.clone().into_kitchen()).offload_threads(1);
        let server = pair.start(server);
        let client = pair.kitchen(&server);
        let busy = begin(client.chop(&400).deadline(Duration::from_secs(60)).into_future());
        client.nothing().wait().unwrap();
        let calls = (0..5).map(|_| client.chop(&1).deadline(SOON));
        let calls: Vec<_> = calls.map(|call| begin(call.into_future())).collect();
        for call in calls {
            let late = failure(client.channel().block_on(call));
            assert!(crate::common::has_expired(late.cause), "{late}");
        }
        client.channel().block_on(busy).unwrap();
        // One more goes behind them all.
        client.chop(&0).deadline(Duration::from_secs(60)).wait().unwrap();
        assert_eq!(cook.seen.chopped.load(Ordering::SeqCst), 2);
        let counters = server.stop();
        assert_eq!(counters.requests_expired, 5);
        assert_eq!(counters.requests_taken, counters.requests_answered);
    });
}

/// The body of a call that has expired is not looked at, so it does not matter that it is no message.
#[test]
fn d02_an_expired_body_is_not_decoded() {
    #[ringcall::service(name = "test.Strict")]
    trait Strict {
        #[method(one_way)]
        async fn read(&self, cx: &Context, text: View<String>);
        async fn block(&self, time_ms: u64);
    }
    struct Reader;
    impl Strict for Reader {
        async fn read(&self, _: &Context, _: View<String>) {
            panic!("nothing that can be read was sent");
        }

        async fn block(&self, time_ms: u64) {
            block(Duration::from_millis(time_ms));
        }
    }
    #[derive(Clone)]
    struct NoArchive;
    impl Payload for NoArchive {
        fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
            Ok(out.put(b"no archive")?)
        }
    }
    over_one_pair(|pair| {
        let server = pair.bind().service(Reader.into_strict()).offload_threads(1);
        let server = pair.start(server.handlers(Handlers::Offload));
        // Its shard is nobody else's, so that nothing expires here.
        let own = pair.blocking(&server);
        let client = StrictClient::new(&own);
        let busy = begin(client.block(&600).deadline(Duration::from_secs(60)).into_future());
        let method = &Reader.into_strict().table().methods()[0];
        // One-way, since otherwise its caller would end it.
        let outgoing = Outgoing {
            name: "raw",
            wait_for_ready: false,
            method: method.id(),
            in_signature: method.signatures().in_signature,
            out_signature: method.signatures().out_signature,
            codec: Codec::RKYV,
            compression: 0,
            attempt: 0,
            timeout: SOON,
            priority: 0,
            flags: request_flags::ONE_WAY,
        };
        for _ in 0..3 {
            let call = client.channel().call(outgoing, NoArchive);
            client.channel().block_on(call).unwrap();
        }
        client.channel().block_on(busy).unwrap();
        client.block(&0).deadline(Duration::from_secs(60)).wait().unwrap();
        assert_eq!(server.stop().requests_expired, 3);
    });
}

/// That it was sent is told later, to nobody; least of all to the call that is made next.
#[test]
fn b12_the_end_of_a_call_that_was_dropped_is_nobody_elses() {
    #[ringcall::service(name = "test.Parrot")]
    trait Parrot {
        #[method(one_way)]
        async fn tell(&self, word: Bytes);
        async fn repeat(&self, word: Bytes) -> Bytes;
    }
    struct Ara;
    impl Parrot for Ara {
        async fn tell(&self, _: Bytes) {}

        async fn repeat(&self, word: Bytes) -> Bytes {
            word
        }
    }
    over_every_pair(|pair| {
        let server = pair.start(pair.bind().service(Ara.into_parrot()));
        let own = pair.blocking(&server);
        let client = ParrotClient::new(&own);
        let word = Bytes::from_static(b"unheard");
        for _ in 0..3 {
            drop(begin(client.tell(&word).into_future()));
            let words = ["one", "two", "three"].map(|word| Bytes::from_static(word.as_bytes()));
            let calls: Vec<_> =
                words.iter().map(|word| begin(client.repeat(word).into_future())).collect();
            for (word, call) in words.iter().zip(calls) {
                assert_eq!(&client.channel().block_on(call).unwrap()[..], &word[..]);
            }
        }
    });
}

#[test]
fn b12_a_call_that_is_dropped_while_it_waits_for_room_is_not_sent() {
    over_every_pair(|pair| {
        let cook = Cook::default();
        let seen = Arc::clone(&cook.seen);
        let config = Config::new().in_flight_max(1);
        let server = pair.start(pair.bind().service(cook.into_kitchen()).config(config));
        let client = pair.kitchen(&server);
        // Who calls before there is a connection is not in the order of the mailbox when there is one.
        client.nothing().wait().unwrap();
        let first = begin(client.simmer(&60_000).into_future());
        eventually("it runs", || seen.begun.load(Ordering::SeqCst) == 1);
        let dropped: Vec<_> = (0..3).map(|_| begin(client.simmer(&1).into_future())).collect();
        let last = begin(client.simmer(&2).into_future());
        block(Duration::from_millis(10));
        drop(dropped);
        // Only now is there room.
        drop(first);
        client.channel().block_on(last).unwrap();
        client.nothing().wait().unwrap();
        server.stop();
        let ran = (seen.finished.load(Ordering::SeqCst), seen.dropped.load(Ordering::SeqCst));
        assert_eq!(ran, (1, 1), "the last and the first");
    });
}

/// Says that it was woken.
#[derive(Default)]
struct Bell(AtomicBool);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.0.store(true, Ordering::SeqCst);
    }
}

/// A call that somebody else than a task of the shard waits for.
type Waited = Pin<Box<dyn Future<Output = ()>>>;

/// Callers that no task of the shard is: nothing happens on it because they were woken.
#[test]
fn b12_the_room_of_a_call_that_is_dropped_is_the_next_ones() {
    let poll = |call: &mut Option<Waited>, bell: &Arc<Bell>| {
        let waker = Waker::from(Arc::clone(bell));
        let call = call.as_mut().expect("it is not dropped");
        call.as_mut().poll(&mut TaskContext::from_waker(&waker))
    };
    let rang = |bell: &Bell| bell.0.load(Ordering::SeqCst);
    over_every_pair(|pair| {
        let config = Config::new().in_flight_max(1);
        let server = pair.bind().service(Cook::default().into_kitchen()).config(config);
        let server = pair.start(server);
        let blocking = pair.blocking(&server);
        let shard = blocking.shard();
        let turn = || {
            let _what_is_left = shard.turn(ringcall::Wait::AtMost(Duration::from_millis(1)));
        };
        for is_woken_before in [false, true] {
            let bells: [Arc<Bell>; 3] = std::array::from_fn(|_| Arc::default());
            let mut calls = [3, 60_000, 1].map(|ms| {
                let client = KitchenClient::new(blocking.local().clone());
                let call = async move {
                    let call = client.simmer(&ms).deadline(SOON * 10);
                    call.await.expect("it is answered");
                };
                Some(Box::pin(call) as Waited)
            });
            for (call, bell) in calls.iter_mut().zip(&bells) {
                assert!(poll(call, bell).is_pending());
            }
            if !is_woken_before {
                calls[1] = None;
            }
            shard.run(|| !rang(&bells[0]));
            assert!(poll(&mut calls[0], &bells[0]).is_ready());
            if is_woken_before {
                shard.run(|| !rang(&bells[1]));
                calls[1] = None;
            }
            eventually("the last one is let in", || {
                turn();
                rang(&bells[2])
            });
            eventually("and answered", || {
                turn();
                poll(&mut calls[2], &bells[2]).is_ready()
            });
        }
    });
}

#[test]
fn d04_deadlines_that_no_clock_can_hold() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        let blocking = pair.blocking(&server);
        let local = KitchenClient::new(&blocking);
        for patient in [Duration::MAX, Duration::from_secs(u64::MAX / 2), Duration::from_secs(5000)]
        {
            let left = client.remaining_ms().deadline(patient).wait().unwrap().to_native();
            // The wire has microseconds in 32 bits: more than an hour.
            assert!((4_200_000..4_295_000).contains(&left), "{left}");
            let left = local.remaining_ms().deadline(patient).wait().unwrap().to_native();
            assert!((4_200_000..4_295_000).contains(&left), "{left}");
        }
        for expired in [
            failure(client.nothing().deadline(Duration::ZERO).wait()),
            failure(local.nothing().deadline(Duration::ZERO).wait()),
        ] {
            assert_eq!(expired, Failure::not_sent(Cause::Expired));
        }
        drop((client, blocking));
        // And perhaps both clients' questions for the table of methods.
        assert!(matches!(server.stop().requests_taken, 6..=8));
    });
}

// ---- handlers that take their time ----

#[ringcall::service(name = "test.Stubborn")]
trait Stubborn {
    /// Blocks, whatever its caller says.
    #[method(offload)]
    async fn block(&self, time_ms: u64) -> u64;
    /// Answers when it is let go, from a thread of its own.
    fn later(&self, responder: Responder<u64>);
    /// The same, for callers without types.
    fn hold(&self, body: Bytes, responder: Responder<Bytes>);
    /// Computes until it is told that nobody waits.
    #[method(offload)]
    async fn compute(&self, cx: &Context);
}

#[derive(Clone, Default)]
struct Mule {
    go: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    cancelled: Arc<AtomicU64>,
    computing: Arc<AtomicBool>,
}

impl Mule {
    fn answer_later<V: Message + Send + 'static>(&self, value: V, responder: Responder<V>) {
        let this = self.clone();
        std::thread::spawn(move || {
            while !this.go.load(Ordering::SeqCst) {
                block(Duration::from_millis(1));
            }
            this.cancelled.fetch_add(u64::from(responder.is_cancelled()), Ordering::SeqCst);
            responder.send(Ok(value));
            this.answered.fetch_add(1, Ordering::SeqCst);
        });
    }
}

impl Stubborn for Mule {
    async fn block(&self, time_ms: u64) -> u64 {
        block(Duration::from_millis(time_ms));
        self.answered.fetch_add(1, Ordering::SeqCst);
        time_ms
    }

    fn later(&self, responder: Responder<u64>) {
        self.answer_later(1, responder);
    }

    fn hold(&self, body: Bytes, responder: Responder<Bytes>) {
        self.computing.store(true, Ordering::SeqCst);
        self.answer_later(body, responder);
    }

    async fn compute(&self, cx: &Context) {
        self.computing.store(true, Ordering::SeqCst);
        while !cx.is_cancelled() {
            std::hint::spin_loop();
        }
        self.cancelled.fetch_add(1, Ordering::SeqCst);
    }
}

fn mule(pair: Pair, config: Config) -> (RunningServer, StubbornClient, Mule) {
    let mule = Mule::default();
    let server: Server = pair.bind().service(mule.clone().into_stubborn()).config(config);
    let server = pair.start(server);
    let client = pair.secured(StubbornClient::connect(server.address()));
    (server, client.wait().expect("the server accepts"), mule)
}

#[test]
fn d08_a_server_that_ignores_cancels_keeps_its_slot_and_nobody() {
    over_every_pair(|pair| {
        let (server, client, mule) = mule(pair, Config::new().in_flight_max(1));
        let expires = failure(client.block(&450).deadline(SOON).wait());
        // The caller goes on at once; the slot is not free before the handler has really ended.
        assert!(crate::common::has_expired(expires.cause), "{expires}");
        let waits = failure(client.block(&0).deadline(SOON).wait());
        assert_eq!(waits, Failure::not_sent(Cause::Expired));
        assert_eq!(mule.answered.load(Ordering::SeqCst), 0);
        client.block(&0).deadline(Duration::from_secs(60)).wait().unwrap();
        assert_eq!(mule.answered.load(Ordering::SeqCst), 2);
        drop(client);
        let counters = server.stop();
        // And perhaps the client's question for the table of methods.
        assert!(matches!(counters.requests_taken, 2 | 3));
        assert_eq!(counters.requests_answered, counters.requests_taken);
    });
}

/// A peer may give all of them one id, since they hold no slot: none is forgotten for another one.
#[test]
fn one_way_calls_of_one_id_are_all_cancelled() {
    #[ringcall::service(name = "test.Sink")]
    trait Sink {
        #[method(one_way)]
        async fn keep(&self, cx: &Context, body: Bytes);
    }
    #[derive(Clone, Default)]
    struct Tub(Arc<AtomicU64>);
    impl Sink for Tub {
        async fn keep(&self, cx: &Context, _: Bytes) {
            self.0.fetch_add(1, Ordering::SeqCst);
            cx.sleep(Duration::from_secs(60)).await;
        }
    }
    over_one_pair(|pair| {
        let tub = Tub::default();
        // Nobody speaks TLS here.
        let server = crate::common::bind(pair.socket).transport(pair.server);
        let server = server.service(tub.clone().into_sink());
        let server = pair.start(server.drain_timeout(Duration::from_millis(20)));
        let mut wire = raw::dial_open(server.address());
        let mut same = raw::request(0, "test.Sink/keep", b"x");
        same[5] = request_flags::ONE_WAY;
        wire.write_all(&same.repeat(5)).unwrap();
        eventually("all of them run", || tub.0.load(Ordering::SeqCst) == 5);
        let report = server.drain();
        assert_eq!(report.cancelled, 5, "{report}");
    });
}

#[test]
fn f06_a_responder_may_answer_when_nobody_waits_or_its_connection_is_gone() {
    over_every_pair(|pair| {
        let (server, client, mule) = mule(pair, Config::new());
        let patient = Duration::from_secs(60);
        let dropped = begin(client.later().deadline(patient).into_future());
        let other = begin(client.later().deadline(patient).into_future());
        // A unix socket cannot be reset so easily, and here nobody else speaks TLS.
        let is_cut = pair.socket == Socket::Tcp && !pair.is_secured;
        if is_cut {
            let mut cut = raw::dial_open(server.address());
            cut.write_all(&raw::request(0, "test.Stubborn/hold", b"x")).unwrap();
            eventually("it is held", || mule.computing.load(Ordering::SeqCst));
            raw::reset(cut);
        }
        client.block(&0).wait().unwrap();
        drop(dropped);
        eventually("the connection is gone", || server.connections() == 1);
        client.block(&0).wait().unwrap();
        mule.go.store(true, Ordering::SeqCst);
        assert_eq!(client.channel().block_on(other).unwrap().to_native(), 1);
        let (answered, cancelled) = if is_cut { (5, 2) } else { (4, 1) };
        eventually("all have answered", || mule.answered.load(Ordering::SeqCst) == answered);
        assert_eq!(mule.cancelled.load(Ordering::SeqCst), cancelled);
        client.block(&0).wait().unwrap();
    });
}

#[test]
fn b12_work_on_the_pool_asks_whether_anybody_waits() {
    over_every_pair(|pair| {
        let (_server, client, mule) = mule(pair, Config::new());
        let call = begin(client.compute().deadline(Duration::from_secs(60)).into_future());
        eventually("it runs", || mule.computing.load(Ordering::SeqCst));
        drop(call);
        eventually("it is told", || mule.cancelled.load(Ordering::SeqCst) == 1);
    });
}

// ---- calls back ----

/// Calls its caller back, and ends when that does not answer any more.
#[ringcall::service]
trait Caller {
    async fn call_back(&self, cx: &Context);
    /// What a handler must not do: blocks its shard.
    async fn halt(&self, time_ms: u64);
}

#[derive(Clone, Default)]
struct CallsBack {
    peer: Arc<Mutex<Option<Peer>>>,
    has_halted: Arc<AtomicBool>,
}

impl CallsBack {
    fn wait_for_peer(&self) -> Peer {
        let mut peer = None;
        eventually("the handler runs", || {
            peer = self.peer.lock().unwrap().take();
            peer.is_some()
        });
        peer.expect("it left its peer")
    }
}

impl Caller for CallsBack {
    async fn call_back(&self, cx: &Context) {
        *self.peer.lock().unwrap() = Some(cx.peer());
        let kitchen = KitchenClient::new(cx.local_peer());
        let _gone = kitchen.simmer(&60_000).deadline(Duration::from_secs(60)).await;
    }

    async fn halt(&self, time_ms: u64) {
        self.has_halted.store(true, Ordering::SeqCst);
        block(Duration::from_millis(time_ms));
    }
}

/// The time of a call runs while its shard has no time for it.
#[test]
fn d02_a_call_that_expires_in_the_mailbox_is_not_sent() {
    over_every_pair(|pair| {
        let caller = CallsBack::default();
        let server = pair.start(pair.bind().service(caller.clone().into_caller()));
        let connect = pair.secured(CallerClient::connect(server.address()));
        let client = connect.service(Cook::default().into_kitchen()).wait().unwrap();
        let call = begin(client.call_back().deadline(Duration::from_secs(60)).into_future());
        let kitchen = KitchenClient::new(caller.wait_for_peer());
        let halted = begin(client.halt(&250).deadline(Duration::from_secs(60)).into_future());
        eventually("the shard blocks", || caller.has_halted.load(Ordering::SeqCst));
        let late = failure(kitchen.nothing().deadline(Duration::from_millis(20)).wait());
        assert_eq!(late, Failure::not_sent(Cause::Expired));
        client.channel().block_on(halted).unwrap();
        kitchen.nothing().wait().unwrap();
        drop(call);
        drop(client);
        let counters = server.stop();
        // The handler's own call, and the second one of this thread.
        // Perhaps also the question for the client's table of methods.
        assert!(matches!(counters.calls_made, 2 | 3));
        assert_eq!(counters.calls_expired, 1);
    });
}

/// A cancel of a call cancels the calls back that its handler makes, on the same connection.
#[test]
fn b12_a_cancel_comes_back_to_the_caller() {
    over_every_pair(|pair| {
        let caller = CallsBack::default();
        let server = pair.start(pair.bind().service(caller.clone().into_caller()));
        let cook = Cook::default();
        let connect = pair.secured(CallerClient::connect(server.address()));
        let client = connect.service(cook.clone().into_kitchen()).wait().unwrap();
        let call = begin(client.call_back().deadline(Duration::from_secs(60)).into_future());
        let kitchen = KitchenClient::new(caller.wait_for_peer());
        kitchen.nothing().wait().unwrap();
        drop(call);
        eventually("the call back is cancelled", || cook.seen.dropped.load(Ordering::SeqCst) == 1);

        // And a peer's calls from elsewhere are cancelled like any other.
        let mut call =
            pin!(kitchen.simmer(&60_000).deadline(Duration::from_secs(60)).into_future());
        let once = poll_fn(|cx| {
            assert!(call.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        });
        kitchen.channel().block_on(once);
        kitchen.nothing().wait().unwrap();
        drop(begin(kitchen.simmer(&60_000).into_future()));
        let late = failure(kitchen.simmer(&60_000).deadline(SOON).wait());
        assert_eq!(late.class, FailureClass::Unknown);
        assert!(crate::common::has_expired(late.cause), "{late}");
        eventually("those are, too", || cook.seen.dropped.load(Ordering::SeqCst) >= 2);
    });
}
