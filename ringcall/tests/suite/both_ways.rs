//! Calls both ways on one connection: a server calls services that its client offers.

use std::collections::{HashMap, HashSet};
use std::future::IntoFuture;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crate::common::{Pair, block, eventually, over_every_pair, over_one_pair};
use ringcall::{
    Access, BlockOn, BlockingClient, CallError, Cause, Channel, Client, Config, Context, Counters,
    Failure, FailureClass, Handlers, IntoOwned, Items, LocalClient, Peer, RunningServer,
    SendContext, Shard, ShardConfig, Status, Stream, Wait,
};

/// What a client offers.
#[ringcall::service]
trait Desk {
    async fn price(&self, of: u64) -> u64;
    /// Asks the server back, through the connection that the call came by.
    async fn confirm(&self, cx: &Context, number: u64) -> u64;
    #[method(offload)]
    async fn ponder(&self, number: u64) -> u64;
    #[method(one_way)]
    async fn notify(&self, number: u64);
}

/// What a server offers.
#[ringcall::service]
trait Exchange {
    async fn join(&self, cx: &Context);
    /// Asks the caller for its price, and answers with it.
    async fn trade(&self, cx: &Context, of: u64) -> Result<u64, String>;
    /// Answers with what the caller answers, who asks back for it.
    async fn haggle(&self, cx: &Context, number: u64) -> Result<u64, String>;
    #[method(offload)]
    async fn trade_offloaded(&self, cx: &Context, of: u64) -> Result<u64, String>;
    async fn double(&self, number: u64) -> u64;
}

#[ringcall::service(send)]
trait SendExchange {
    async fn trade_send(&self, cx: &SendContext, of: u64) -> Result<u64, String>;
}

#[derive(Clone, Default)]
struct Trader {
    factor: u64,
    notified: Arc<AtomicU64>,
}

impl Trader {
    fn new(factor: u64) -> Trader {
        Trader { factor, notified: Arc::default() }
    }
}

impl Desk for Trader {
    async fn price(&self, of: u64) -> u64 {
        of * self.factor
    }

    async fn confirm(&self, cx: &Context, number: u64) -> u64 {
        let exchange = ExchangeClient::new(cx.local_peer());
        exchange.double(&number).await.map_or(0, |doubled| doubled.to_native())
    }

    async fn ponder(&self, number: u64) -> u64 {
        number + self.factor
    }

    async fn notify(&self, number: u64) {
        self.notified.fetch_add(number, Ordering::SeqCst);
    }
}

#[derive(Clone, Default)]
struct Floor {
    joined: Arc<Mutex<Vec<Peer>>>,
}

impl Floor {
    fn only_peer(&self) -> Peer {
        let joined = self.joined.lock().unwrap();
        let [peer] = &joined[..] else { panic!("one has joined: {joined:?}") };
        peer.clone()
    }
}

impl Exchange for Floor {
    async fn join(&self, cx: &Context) {
        self.joined.lock().unwrap().push(cx.peer());
    }

    async fn trade(&self, cx: &Context, of: u64) -> Result<u64, String> {
        let here = DeskClient::new(cx.local_peer()).price(&of).await.map_err(text)?.to_native();
        let away = DeskClient::new(cx.client(&cx.peer())).price(&of).await.map_err(text)?;
        assert_eq!(here, away.to_native());
        Ok(here)
    }

    async fn haggle(&self, cx: &Context, number: u64) -> Result<u64, String> {
        let desk = DeskClient::new(cx.client(&cx.local_peer()));
        desk.confirm(&number).await.map(|number| number.to_native()).map_err(text)
    }

    async fn trade_offloaded(&self, cx: &Context, of: u64) -> Result<u64, String> {
        let desk = DeskClient::new(cx.client(&cx.peer()));
        // On a thread of its own it may wait, too.
        assert_eq!(desk.ponder(&of).wait().map_err(text)?.to_native(), of + 3);
        desk.price(&of).await.map(|price| price.to_native()).map_err(text)
    }

    async fn double(&self, number: u64) -> u64 {
        number * 2
    }
}

impl SendExchange for Floor {
    async fn trade_send(&self, cx: &SendContext, of: u64) -> Result<u64, String> {
        let desk = DeskClient::new(cx.client(&cx.peer()));
        desk.price(&of).await.map(|price| price.to_native()).map_err(text)
    }
}

fn text(error: impl std::fmt::Display) -> String {
    error.to_string()
}

fn failure<T, E: std::fmt::Debug>(result: Result<T, CallError<E>>) -> Failure {
    match result {
        Ok(_) => panic!("expected a failure, got a value"),
        Err(error) => *error.failure().unwrap_or_else(|| panic!("expected a failure: {error:?}")),
    }
}

// ---- streams ----

#[ringcall::service]
trait Feed {
    async fn up_to(&self, number: u64) -> impl Stream<Item = u64>;
    async fn sum(&self, numbers: Items<u64>) -> u64;
}

struct Numbers;

struct Counting(u64, u64);

impl Stream for Counting {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        self.0 += 1;
        Poll::Ready((self.0 <= self.1).then_some(self.0))
    }
}

impl Feed for Numbers {
    async fn up_to(&self, number: u64) -> impl Stream<Item = u64> {
        Counting(0, number)
    }

    async fn sum(&self, mut numbers: Items<u64>) -> u64 {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number;
        }
        sum
    }
}

#[ringcall::service]
trait Adder {
    /// The sum of what the caller's stream gives, asked for here and through the mailbox; and what the
    /// caller makes of a stream.
    async fn add(&self, cx: &Context, number: u64) -> Result<u64, String>;
}

struct Sums;

impl Adder for Sums {
    async fn add(&self, cx: &Context, number: u64) -> Result<u64, String> {
        let (here, away) = (FeedClient::new(cx.local_peer()), FeedClient::new(cx.peer()));
        let mut sum = 0;
        let mut numbers = here.up_to(&number).await.map_err(text)?;
        while let Some(number) = numbers.next().await {
            sum += number.map_err(text)?.to_native();
        }
        let mut numbers = away.up_to(&number).await.map_err(text)?;
        while let Some(number) = numbers.next().await {
            sum += number.map_err(text)?.to_native();
        }
        let mut upload = away.sum().await.map_err(text)?;
        upload.send_all(Counting(0, number)).await.map_err(text)?;
        Ok(sum + upload.finish().await.map_err(text)?.to_native())
    }
}

#[test]
fn streams_go_back_to_the_caller() {
    over_every_pair(|pair| {
        let server = pair.start(pair.bind().service(Sums.into_adder()));
        let adder = pair.secured(AdderClient::connect(server.address()));
        let adder = adder.service(Numbers.into_feed()).wait().unwrap();
        assert_eq!(adder.add(&1000).wait().unwrap().to_native(), 3 * 1000 * 1001 / 2);
    });
}

/// Drives a shard while others work, too.
fn turn_while(shard: &Shard, mut go_on: impl FnMut() -> bool) {
    while go_on() {
        shard.turn(Wait::AtMost(Duration::from_millis(1)));
    }
}

fn open(pair: Pair) -> (RunningServer, Floor) {
    let floor = Floor::default();
    let server = pair.bind().service(floor.clone().into_exchange());
    (pair.start(server.service(floor.clone().into_send_exchange()).shards(2)), floor)
}

/// A client of any thread that offers a desk.
fn trader(pair: Pair, server: &RunningServer, trader: Trader) -> ExchangeClient<Client> {
    let connect = pair.secured(ExchangeClient::connect(server.address()));
    connect.service(trader.into_desk()).wait().expect("the server accepts")
}

fn trades<C: Channel<Body: IntoOwned> + BlockOn>(exchange: &ExchangeClient<C>, factor: u64) {
    for of in 0..20 {
        assert_eq!(exchange.trade(&of).wait().unwrap().to_native(), of * factor);
        assert_eq!(exchange.trade_offloaded(&of).wait().unwrap().to_native(), of * factor);
        assert_eq!(exchange.haggle(&of).wait().unwrap().to_native(), of * 2);
    }
}

#[test]
fn a_server_calls_its_client_during_a_call() {
    over_every_pair(|pair| {
        let (server, _) = open(pair);
        let exchange = trader(pair, &server, Trader::new(3));
        trades(&exchange, 3);
        let send = SendExchangeClient::new(exchange.channel().clone());
        assert_eq!(send.trade_send(&7).wait().unwrap().to_native(), 21);
    });
}

#[test]
fn clients_that_drive_their_own_shard_offer_services_too() {
    over_every_pair(|pair| {
        let (server, floor) = open(pair);
        let shard = pair.shard();
        let connect = shard.connect(server.address()).service(Trader::new(3).into_desk());
        let blocking = BlockingClient::new(shard.clone(), shard.block_on(connect).unwrap());
        let exchange = ExchangeClient::new(&blocking);
        trades(&exchange, 3);
        exchange.join().wait().unwrap();
        // The server calls while this thread waits for something else.
        let peer = floor.only_peer();
        let called = std::thread::spawn(move || {
            DeskClient::new(peer).price(&5).wait().map(|price| price.to_native())
        });
        turn_while(&shard, || !called.is_finished());
        assert_eq!(called.join().unwrap().unwrap(), 15);
    });
}

#[test]
fn a_server_calls_its_client_later_from_any_thread() {
    over_every_pair(|pair| {
        let (server, floor) = open(pair);
        let offered = Trader::new(10);
        let exchange = trader(pair, &server, offered.clone());
        exchange.join().wait().unwrap();
        let desk = DeskClient::new(floor.only_peer());
        assert_eq!(desk.price(&4).wait().unwrap().to_native(), 40);
        assert_eq!(desk.confirm(&4).wait().unwrap().to_native(), 8);
        let threads = (0..4).map(|thread| {
            let desk = desk.clone();
            std::thread::spawn(move || {
                for of in 0..100 {
                    let price = desk.price(&(thread * 1000 + of)).wait().unwrap().to_native();
                    assert_eq!(price, (thread * 1000 + of) * 10);
                }
            })
        });
        let threads: Vec<_> = threads.collect();
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        let (ends, waiting) = mpsc::channel();
        desk.price(&6).callback(move |end| {
            ends.send(end.map(|price| price.to_native())).unwrap();
        });
        assert_eq!(waiting.recv().unwrap().unwrap(), 60);
        desk.notify(&5).wait().unwrap();
        eventually("the notice arrives", || offered.notified.load(Ordering::SeqCst) == 5);
    });
}

#[test]
fn each_connection_offers_its_own_services() {
    over_every_pair(|pair| {
        let (server, _) = open(pair);
        // All of them are on the one shard that clients of a process share.
        let offering: Vec<_> =
            (1..4).map(|factor| trader(pair, &server, Trader::new(factor))).collect();
        let silent = pair.secured(ExchangeClient::connect(server.address()));
        let silent = silent.wait().unwrap();
        for (factor, exchange) in (1..4).zip(&offering) {
            assert_eq!(exchange.trade(&100).wait().unwrap().to_native(), 100 * factor);
        }
        let error = silent.trade(&100).wait().map(|_| ()).unwrap_err();
        let CallError::App(error) = error else { panic!("{error}") };
        assert!(error.contains(&Status::UNKNOWN_METHOD.to_string()), "{error}");
        drop(offering);
        // A connection that comes after one that is gone does not inherit what it offered.
        for _ in 0..5 {
            let next = pair.secured(ExchangeClient::connect(server.address()));
            next.wait().unwrap().trade(&100).wait().map(|_| ()).unwrap_err();
        }
    });
}

#[test]
fn handlers_of_a_client_can_be_offloaded() {
    over_every_pair(|pair| {
        let (server, _) = open(pair);
        let connect = pair.secured(ExchangeClient::connect(server.address()));
        let connect = connect.service(Trader::new(3).into_desk()).handlers(Handlers::Offload);
        let exchange = connect.wait().unwrap();
        assert_eq!(exchange.trade(&7).wait().unwrap().to_native(), 21);
    });
}

/// Nobody is asked about who answers where such a shard connects to, so what it serves is not for them.
#[test]
fn h05_a_guarded_shard_serves_nobody_that_it_connects_to() {
    over_every_pair(|pair| {
        let (server, _) = open(pair);
        let guarded = |guard: fn(&mut ShardConfig)| {
            let mut config = pair.connecting(ShardConfig::default());
            guard(&mut config);
            let shard = Shard::new(config).unwrap();
            shard.serve(Trader::new(3).into_desk()).unwrap();
            shard
        };
        let guards: [fn(&mut ShardConfig); 3] = [
            |_| {},
            |config| config.authorize(|_| Access::unauthenticated("never")),
            |config| config.authorize_calls(|_| Access::unauthenticated("never")),
        ];
        let [open, hidden, asked] = guards.map(guarded);
        let trade = |shard: &Shard, services: Option<Trader>| {
            let connect = shard.connect(server.address());
            let connect = match services {
                Some(trader) => connect.service(trader.into_desk()),
                None => connect,
            };
            let exchange = ExchangeClient::new(shard.block_on(connect).unwrap());
            let trade = |of: u64| shard.block_on(exchange.trade(&of).into_future());
            // Those that were offered on purpose are for whoever is there, as often as they like.
            (0..3).map(|of| trade(of).map(|got| got.to_native())).collect::<Result<Vec<_>, _>>()
        };
        assert_eq!(trade(&open, None).unwrap(), [0, 3, 6]);
        for shard in [&hidden, &asked] {
            let refused = trade(shard, None).unwrap_err().to_string();
            assert!(refused.contains("no such method"), "{refused}");
            assert_eq!(trade(shard, Some(Trader::new(2))).unwrap(), [0, 2, 4]);
        }
    });
}

#[test]
fn a_service_is_offered_once() {
    over_one_pair(|pair| {
        let (server, _) = open(pair);
        let connect = pair.secured(ExchangeClient::connect(server.address()));
        let twice = connect.service(Trader::new(1).into_desk()).service(Trader::new(2).into_desk());
        let refused = twice.wait().map(|_| ()).unwrap_err();
        assert_eq!(refused.class, FailureClass::NotSent);
        let shard = pair.shard();
        let connect = shard.connect(server.address()).service(Trader::new(1).into_desk());
        let twice = connect.service(Trader::new(2).into_desk());
        assert!(shard.block_on(twice).map(|_| ()).unwrap_err().is_safe_to_retry());
    });
}

#[test]
fn a_peer_is_its_connection() {
    over_every_pair(|pair| {
        let (server, floor) = open(pair);
        let first = trader(pair, &server, Trader::new(1));
        let second = trader(pair, &server, Trader::new(2));
        for exchange in [&first, &second, &first] {
            exchange.join().wait().unwrap();
        }
        let joined = floor.joined.lock().unwrap().clone();
        let [a, b, again] = &joined[..] else { panic!("three have joined") };
        assert!(a == again && a != b && a.clone().waiting() == *a);
        assert_eq!(joined.iter().collect::<HashSet<_>>().len(), 2);
        let names = HashMap::from([(a.clone(), "first"), (b.clone(), "second")]);
        assert_eq!((names[again], names[b]), ("first", "second"));

        assert!(a.is_connected() && b.is_connected());
        let closed = a.closed();
        let told = std::thread::spawn({
            let (a, closed) = (a.clone(), a.closed());
            move || a.block_on(closed)
        });
        drop(first);
        let reason = told.join().unwrap();
        assert_eq!(a.block_on(closed), reason);
        assert_eq!(a.block_on(a.closed()), reason);
        assert!(!a.is_connected() && b.is_connected());
        let gone = failure(DeskClient::new(a.clone()).price(&1).wait());
        assert_eq!(gone.class, FailureClass::NotSent);
        assert!(matches!(gone.cause, Cause::Closed(_)), "{gone:?}");
        let (ends, waiting) = mpsc::channel();
        DeskClient::new(a.clone()).price(&1).callback(move |end| ends.send(failure(end)).unwrap());
        assert_eq!(waiting.recv().unwrap(), gone);
        assert_eq!(DeskClient::new(b.clone()).price(&4).wait().unwrap().to_native(), 8);
        assert_eq!(a, again, "also when it is over");

        server.stop();
        b.block_on(b.closed());
        assert!(failure(DeskClient::new(b.clone()).price(&1).wait()).is_safe_to_retry());
    });
}

/// The connection ends while calls to the peer are everywhere: in the mailbox, on the wire, running.
#[test]
fn b15_calls_to_a_peer_that_goes_end_once() {
    over_every_pair(|pair| {
        let (server, floor) = open(pair);
        let exchange = trader(pair, &server, Trader::new(1));
        exchange.join().wait().unwrap();
        let peer = floor.only_peer();
        let (ends, waiting) = mpsc::channel();
        let calling = std::thread::spawn(move || {
            let desk = DeskClient::new(peer);
            for of in 0..2000 {
                let ends = ends.clone();
                desk.ponder(&of).callback(move |end| ends.send(end.is_ok()).unwrap());
            }
        });
        block(Duration::from_millis(2));
        drop(exchange);
        calling.join().unwrap();
        assert_eq!(waiting.iter().count(), 2000);
    });
}

// ---- both full ----

/// Both sides offer it, and call each other.
#[ringcall::service]
trait Court {
    async fn join(&self, cx: &Context);
    /// Waits for the whistle, then plays the ball back as often as it says.
    async fn hit(&self, cx: &Context, ball: Ball) -> Result<u64, Missed>;
}

#[ringcall::message]
#[derive(Clone)]
struct Ball {
    hits: u64,
    air: Vec<u8>,
}

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct Missed {
    is_safe: bool,
    why: String,
}

#[derive(Clone, Default)]
struct Player {
    state: Arc<PlayerState>,
}

#[derive(Default)]
struct PlayerState {
    waiting: AtomicU64,
    whistle: AtomicBool,
    /// Of the ball that is played back.
    air: usize,
    joined: Mutex<Option<Peer>>,
}

impl Player {
    fn new(air: usize) -> Player {
        Player { state: Arc::new(PlayerState { air, ..PlayerState::default() }) }
    }

    fn waiting(&self) -> u64 {
        self.state.waiting.load(Ordering::SeqCst)
    }

    fn whistle(&self) {
        self.state.whistle.store(true, Ordering::SeqCst);
    }
}

impl Court for Player {
    async fn join(&self, cx: &Context) {
        *self.state.joined.lock().unwrap() = Some(cx.peer());
    }

    async fn hit(&self, cx: &Context, ball: Ball) -> Result<u64, Missed> {
        self.state.waiting.fetch_add(1, Ordering::SeqCst);
        while !self.state.whistle.load(Ordering::SeqCst) {
            cx.sleep(Duration::from_millis(1)).await;
        }
        if ball.hits == 0 {
            return Ok(0);
        }
        let back = Ball { hits: ball.hits - 1, air: vec![7; self.state.air] };
        let court = CourtClient::new(cx.client(&cx.local_peer()));
        match court.hit(&back).await {
            Ok(hits) => Ok(hits.to_native() + 1),
            Err(CallError::App(missed)) => Err(missed),
            Err(CallError::Failed(failure)) => Err(Missed {
                is_safe: failure.is_safe_to_retry(),
                why: format!("{:?}", failure.cause),
            }),
        }
    }
}

struct Match {
    server: RunningServer,
    home: Player,
    away: Player,
    shard: Shard,
    client: LocalClient,
    peer: Peer,
}

/// Long enough that a call which waits for its deadline fails the test's time limit, not the test.
const PATIENCE: Duration = Duration::from_secs(60);

impl Match {
    fn new(pair: Pair, config: &Config, air: usize) -> Match {
        let (home, away) = (Player::new(air), Player::new(air));
        let server = pair.bind().service(home.clone().into_court()).config(config.clone());
        let server = pair.start(server);
        let mut settings = ShardConfig::default();
        settings.client = config.clone();
        let shard = Shard::new(pair.connecting(settings)).unwrap();
        let connect = shard.connect(server.address()).service(away.clone().into_court());
        let client = shard.block_on(connect).unwrap();
        shard.block_on(CourtClient::new(&client).join().into_future()).unwrap();
        let peer = home.state.joined.lock().unwrap().take().expect("has joined");
        Match { server, home, away, shard, client, peer }
    }

    /// Each side makes so many calls at once; all of them run before any of them calls back.
    fn play(self, calls: u64, ball: &Ball) -> Vec<Result<u64, Missed>> {
        let (ends, waiting) = mpsc::channel();
        let answer = |end: Result<u64, CallError<Missed>>| match end {
            Ok(hits) => Ok(hits),
            Err(CallError::App(missed)) => Err(missed),
            Err(error) => panic!("a call of nobody's handler failed: {error:?}"),
        };
        let ball = Rc::new(ball.clone());
        for _ in 0..calls {
            let (client, ball, ends) = (self.client.clone(), Rc::clone(&ball), ends.clone());
            self.shard.spawn(async move {
                let court = CourtClient::new(client);
                let end = court.hit(&ball).deadline(PATIENCE).await;
                ends.send(answer(end.map(|hits| hits.to_native()))).unwrap();
            });
        }
        let court = CourtClient::new(self.peer.clone().waiting());
        for _ in 0..calls {
            let ends = ends.clone();
            let call = court.hit(&ball).deadline(PATIENCE);
            call.callback(move |end| {
                ends.send(answer(end.map(|hits| hits.to_native()))).unwrap();
            });
        }
        drop(ends);
        let are_waiting = || self.home.waiting() >= calls && self.away.waiting() >= calls;
        turn_while(&self.shard, || !are_waiting());
        self.home.whistle();
        self.away.whistle();
        let mut answers = Vec::new();
        turn_while(&self.shard, || {
            answers.extend(waiting.try_iter());
            answers.len() < 2 * calls as usize
        });
        for counters in self.stop() {
            assert_eq!((counters.calls_expired, counters.requests_expired), (0, 0));
        }
        answers
    }

    fn stop(self) -> [Counters; 2] {
        let Match { server, shard, .. } = self;
        let stopped = std::thread::spawn(move || server.stop());
        turn_while(&shard, || !stopped.is_finished());
        [stopped.join().unwrap(), shard.counters()]
    }
}

#[test]
fn c15_calls_back_have_room_of_their_own_beside_calls() {
    over_every_pair(|pair| {
        let config = Config::new().in_flight_max(20);
        let ball = Ball { hits: 1, air: vec![1; 10_000] };
        let answers = Match::new(pair, &config, 10_000).play(10, &ball);
        assert_eq!(answers, vec![Ok(1); 20]);
    });
}

/// Every place on both sides is taken by a call whose handler calls back. The calls back are refused, so
/// nobody waits for anybody.
#[test]
fn c15_both_sides_full_of_calls_that_call_back_end() {
    over_every_pair(|pair| {
        let config = Config::new().in_flight_max(8);
        let ball = Ball { hits: 1, air: Vec::new() };
        let answers = Match::new(pair, &config, 0).play(8, &ball);
        assert_eq!(answers.len(), 16);
        let mut missed = 0;
        for answer in answers {
            match answer {
                // A place was free again when it called.
                Ok(hits) => assert_eq!(hits, 1),
                Err(miss) => {
                    assert_eq!(miss, Missed { is_safe: true, why: "InFlightMax".into() });
                    missed += 1;
                }
            }
        }
        assert!(missed > 0);
    });
}

/// The bodies of calls take all that both sides hold: calls back with a body are refused, those without
/// go through, and answers never wait.
#[test]
fn c15_both_sides_full_of_bodies_end() {
    over_every_pair(|pair| {
        let config = Config::new().message_bytes_max(64 << 10).calls_window(128 << 10);
        // Two of them are the window, nearly.
        let ball = Ball { hits: 1, air: vec![1; 65_000] };
        let answers = Match::new(pair, &config, 60_000).play(2, &ball);
        let refused = Missed { is_safe: true, why: "QueueFull".into() };
        let is_expected = |answer: &Result<u64, Missed>| {
            *answer == Ok(1) || answer.as_ref().is_err_and(|missed| *missed == refused)
        };
        assert!(answers.iter().all(is_expected), "{answers:?}");
        assert!(answers.iter().any(Result::is_err), "{answers:?}");
        let answers = Match::new(pair, &config, 100).play(2, &ball);
        assert_eq!(answers, vec![Ok(1); 4]);
    });
}

/// Balls go back and forth until there is no place left, with places of every number.
#[test]
fn c15_long_rallies_end_whatever_the_limits() {
    over_one_pair(|pair| {
        for limit in [1, 2, 3, 5, 16] {
            for hits in [0, 1, 4, 9] {
                let config = Config::new().in_flight_max(limit);
                let ball = Ball { hits, air: Vec::new() };
                let game = Match::new(pair, &config, 0);
                game.home.whistle();
                game.away.whistle();
                let answers = game.play(u64::from(limit), &ball);
                assert_eq!(answers.len(), 2 * limit as usize);
                for missed in answers.into_iter().filter_map(Result::err) {
                    assert_eq!(missed, Missed { is_safe: true, why: "InFlightMax".into() });
                }
            }
        }
    });
}

#[test]
fn calls_to_a_peer_wait_for_room_if_they_may() {
    over_every_pair(|pair| {
        let config = Config::new().in_flight_max(2);
        let game = Match::new(pair, &config, 0);
        let ball = Ball { hits: 0, air: Vec::new() };
        let (ends, waiting) = mpsc::channel();
        let call = |peer: Peer| {
            let ends = ends.clone();
            let call = CourtClient::new(peer);
            let call = call.hit(&ball).deadline(PATIENCE);
            call.callback(move |end| {
                ends.send(end.map(|_| ()).map_err(|error| error.failure().copied())).unwrap();
            });
        };
        for _ in 0..2 {
            call(game.peer.clone());
        }
        turn_while(&game.shard, || game.away.waiting() < 2);
        call(game.peer.clone());
        let refused = Err(Some(Failure::not_sent(Cause::InFlightMax)));
        assert_eq!(waiting.recv_timeout(PATIENCE).unwrap(), refused);
        for _ in 0..20 {
            call(game.peer.clone().waiting());
        }
        game.away.whistle();
        let mut answers = Vec::new();
        turn_while(&game.shard, || {
            answers.extend(waiting.try_iter());
            answers.len() < 22
        });
        assert!(answers.iter().all(Result::is_ok), "{answers:?}");
        game.stop();
    });
}

/// What a client offers that keeps who has called it.
#[ringcall::service]
trait Guest {
    async fn visit(&self, cx: &Context);
}

#[derive(Clone, Default)]
struct Visited(Rc<std::cell::RefCell<Option<(LocalClient, Peer)>>>);

impl Guest for Visited {
    async fn visit(&self, cx: &Context) {
        *self.0.borrow_mut() = Some((cx.local_peer(), cx.peer()));
    }
}

#[ringcall::service]
trait Host {
    async fn invite(&self, cx: &Context);
    async fn number(&self) -> u64;
}

struct Numbered(u64);

impl Host for Numbered {
    async fn invite(&self, cx: &Context) {
        GuestClient::new(cx.local_peer()).visit().await.expect("it is at home");
    }

    async fn number(&self) -> u64 {
        self.0
    }
}

/// A client has another connection by then, perhaps to another server.
#[test]
fn the_peer_of_a_connection_that_was_replaced_is_nobody_else() {
    over_every_pair(|pair| {
        let serve = |server: ringcall::Server, number| {
            pair.start(server.service(Numbered(number).into_host()))
        };
        let first = serve(pair.bind(), 1);
        let address = first.address().to_string();
        let (shard, visited) = (pair.shard(), Visited::default());
        let connect = shard.connect(&*address).service(visited.clone().into_guest());
        let host = HostClient::new(shard.block_on(connect).unwrap());
        shard.block_on(host.invite().into_future()).unwrap();
        let (local, peer) = visited.0.borrow_mut().take().expect("it has visited");
        let (local, peer) = (HostClient::new(local), HostClient::new(peer));
        assert_eq!(shard.block_on(local.number().into_future()).unwrap(), 1);
        assert_eq!(shard.block_on(peer.number().into_future()).unwrap(), 1);
        first.stop();
        let _second = serve(pair.bind_at(&*address), 2);
        let patient = host.number().wait_for_ready(true).deadline(PATIENCE);
        assert_eq!(shard.block_on(patient.into_future()).unwrap(), 2);
        let left = |end: Result<u64, CallError>| failure(end.map(drop)).class;
        let late = shard.block_on(local.number().into_future()).map(|it| it.to_native());
        assert_eq!(left(late), FailureClass::NotSent);
        let late = shard.block_on(peer.number().into_future()).map(|it| it.to_native());
        assert_eq!(left(late), FailureClass::NotSent);
    });
}
