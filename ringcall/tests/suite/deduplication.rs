//! Calls that are made again with the key that they had: they run once, and all get the same answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::common::{
    PATIENT, Pair, SOON, Socket, block, eventually, over_every_pair, over_one_pair,
};
use ringcall::{
    Bytes, CallError, CallerKey, Cause, Client, Context, Deduplication, LocalClient, Responder,
    RunningServer, ServeError, Server, Status,
};

#[ringcall::message]
#[derive(Clone, Debug, PartialEq)]
struct SoldOut {
    number: u64,
}

#[ringcall::service(name = "test.Shop")]
trait Shop {
    /// Gives the number of the run. Nobody can buy 13, and 14 breaks the shop.
    async fn buy(&self, cx: &Context, item: u64) -> Result<u64, SoldOut>;
    /// These give it when the shop is open.
    async fn wait(&self, cx: &Context) -> u64;
    #[method(offload)]
    async fn wait_apart(&self, cx: &Context) -> u64;
    fn order(&self, responder: Responder<u64>);
    async fn wrap(&self, bytes: u64) -> Bytes;
    /// Nothing is kept of these.
    #[method(one_way)]
    async fn leave(&self);
    async fn browse(&self) -> u64;
}

#[derive(Clone, Default)]
struct Counter(Arc<State>);

#[derive(Default)]
struct State {
    runs: AtomicU64,
    is_open: AtomicBool,
    /// Of those that wait, before the shop was open.
    given_up: AtomicU64,
}

struct Gone<'a>(&'a State);

impl Drop for Gone<'_> {
    fn drop(&mut self) {
        self.0.given_up.fetch_add(u64::from(!self.0.is_open()), Ordering::SeqCst);
    }
}

impl State {
    fn run(&self) -> u64 {
        self.runs.fetch_add(1, Ordering::SeqCst) + 1
    }

    fn runs(&self) -> u64 {
        self.runs.load(Ordering::SeqCst)
    }

    fn is_open(&self) -> bool {
        self.is_open.load(Ordering::SeqCst)
    }

    fn open(&self, is_open: bool) {
        self.is_open.store(is_open, Ordering::SeqCst);
    }
}

const MS: std::time::Duration = std::time::Duration::from_millis(1);

impl Shop for Counter {
    async fn buy(&self, cx: &Context, item: u64) -> Result<u64, SoldOut> {
        let number = self.0.run();
        cx.reply_metadata("run", number.to_string());
        match item {
            13 => Err(SoldOut { number }),
            14 => panic!("as asked"),
            _ => Ok(number),
        }
    }

    async fn wait(&self, cx: &Context) -> u64 {
        let _gone = Gone(&self.0);
        let number = self.0.run();
        while !self.0.is_open() && !cx.is_cancelled() {
            cx.sleep(MS).await;
        }
        number
    }

    async fn wait_apart(&self, cx: &Context) -> u64 {
        let number = self.0.run();
        while !self.0.is_open() && !cx.is_cancelled() {
            block(MS);
        }
        number
    }

    fn order(&self, responder: Responder<u64>) {
        let (shop, number) = (self.0.clone(), self.0.run());
        std::thread::spawn(move || {
            while !shop.is_open() && !responder.is_cancelled() {
                block(MS);
            }
            responder.send(Ok(number));
        });
    }

    async fn wrap(&self, bytes: u64) -> Bytes {
        vec![self.0.run() as u8; bytes as usize].into()
    }

    async fn leave(&self) {
        self.0.run();
    }

    async fn browse(&self) -> u64 {
        self.0.run()
    }
}

fn settings() -> Deduplication {
    let methods = ["buy", "wait", "wait_apart", "order", "wrap", "leave"];
    let all = Deduplication::new(CallerKey::metadata("tenant"));
    methods.iter().fold(all, |all, method| all.method(format!("test.Shop/{method}")))
}

fn serve(pair: Pair, settings: Deduplication) -> (RunningServer, Arc<State>) {
    let counter = Counter::default();
    let state = Arc::clone(&counter.0);
    let server: Server = pair.bind().service(counter.into_shop()).deduplicate(settings).shards(2);
    (pair.start(server), state)
}

fn connect(pair: Pair, server: &RunningServer) -> ShopClient<Client> {
    let client = pair.secured(ShopClient::connect(server.address()));
    client.wait().expect("the server accepts").with_options(PATIENT)
}

fn cause<T, E>(end: Result<T, CallError<E>>) -> Cause {
    match end {
        Err(CallError::Failed(failure)) => failure.cause,
        _ => panic!("it fails"),
    }
}

#[test]
fn d16_a_call_with_a_key_runs_once_whatever_shard_it_comes_to() {
    over_every_pair(|pair| {
        let (server, shop) = serve(pair, settings());
        let clients = [connect(pair, &server), connect(pair, &server)];
        let buy = |n: usize, who: &str, key: &str| {
            let call = clients[n % 2].buy(&1).idempotency_key(key).metadata("tenant", who);
            let reply = call.with_metadata().wait();
            let number = reply.result.expect("it is answered").to_native();
            assert_eq!(reply.metadata.text("run"), Some(&*number.to_string()));
            number
        };
        for n in 0..6 {
            assert_eq!(buy(n, "a", "first"), 1);
        }
        assert_eq!((buy(0, "a", "second"), buy(1, "b", "first"), buy(0, "a", "first")), (2, 3, 1));
        assert_eq!(server.incidents().answered_again, 6);
        // Without a key, of another method, or one that is not kept.
        assert_eq!(clients[0].buy(&1).wait().unwrap(), 4);
        assert_eq!(clients[1].browse().idempotency_key("first").wait().unwrap(), 5);
        assert_eq!(clients[0].browse().idempotency_key("first").wait().unwrap(), 6);
        for _ in 0..2 {
            let bytes = clients[0].wrap(&30_000).idempotency_key("long").wait().unwrap();
            assert_eq!(&bytes[..], &[7; 30_000]);
        }
        for _ in 0..2 {
            clients[0].leave().wait().unwrap();
        }
        eventually("both left", || shop.runs() == 9);
    });
}

#[test]
fn d16_errors_are_kept_and_so_is_that_it_may_have_run() {
    over_every_pair(|pair| {
        let (server, shop) = serve(pair, settings());
        let client = connect(pair, &server);
        for _ in 0..3 {
            let end = client.buy(&13).idempotency_key("unlucky").wait();
            assert_eq!(end.map(drop), Err(CallError::App(SoldOut { number: 1 })));
            let end = client.buy(&14).idempotency_key("rude").wait();
            assert_eq!(cause(end), Cause::Status(Status::INTERNAL));
        }
        assert_eq!(shop.runs(), 2);
        // One that is too long to be kept is not run again either.
        assert!(client.wrap(&70_000).idempotency_key("long").wait().is_ok());
        let end = client.wrap(&70_000).idempotency_key("long").wait();
        assert_eq!(cause(end), Cause::Status(Status::REPLY_FAILED));
        assert_eq!(shop.runs(), 3);
        let end = client.buy(&1).idempotency_key([7; 257]).wait();
        assert_eq!(cause(end), Cause::Status(Status::BAD_REQUEST));
    });
}

type End = Box<dyn FnOnce(Result<u64, CallError>) + Send>;

/// Ways to call a method that waits until the shop is open: with a deadline that is to pass or a patient one, and on a
/// connection that is to be lost.
type Ways = (fn(&ShopClient<Client>, End, bool), fn(&ShopClient<LocalClient>));

macro_rules! ways {
    ($method:ident) => {
        (
            |client, end, is_short| {
                let call = client.$method().idempotency_key("k");
                let call = if is_short { call.deadline(SOON) } else { call };
                call.callback(move |ended| end(ended.map(|number| number.to_native())));
            },
            |client| client.$method().idempotency_key("k").callback(|_| {}),
        )
    };
}

const WAITING: [Ways; 3] = [ways!(wait), ways!(wait_apart), ways!(order)];

#[test]
fn d16_who_repeats_a_call_that_runs_waits_for_its_answer() {
    over_every_pair(|pair| {
        let (server, shop) = serve(pair, settings());
        let clients = [connect(pair, &server), connect(pair, &server)];
        for (number, (make, _)) in (1..).zip(WAITING) {
            shop.open(false);
            let (ended, ends) = std::sync::mpsc::channel();
            for n in 0..6 {
                let ended = ended.clone();
                make(&clients[n % 2], Box::new(move |end| drop(ended.send(end))), false);
            }
            // One of those that wait gives up.
            let (late, lates) = std::sync::mpsc::channel();
            eventually("it runs", || shop.runs() == number);
            make(&clients[0], Box::new(move |end| drop(late.send(end))), true);
            assert!(crate::common::has_expired(cause(lates.recv().expect("it ends"))));
            shop.open(true);
            assert!(ends.iter().take(6).all(|end| end == Ok(number)));
            assert_eq!(shop.runs(), number);
        }
    });
}

#[test]
fn d16_a_call_with_a_key_ends_although_nobody_waits() {
    over_every_pair(|pair| {
        // A lost connection takes seconds to be noticed, and the end of one is not about how handlers run.
        let is_lost = pair.server == pair.client && pair.socket == Socket::Tcp;
        let lost = is_lost.then_some((true, WAITING[0]));
        for (is_lost, (make, lose)) in WAITING.map(|ways| (false, ways)).into_iter().chain(lost) {
            let (server, shop) = serve(pair, settings());
            if is_lost {
                let shard = pair.shard();
                let client = shard.block_on(shard.connect(server.address())).expect("it accepts");
                let client = ShopClient::new(client).with_options(PATIENT);
                lose(&client);
                client.wait().callback(|_| {});
                shard.run(|| shop.runs() < 2);
                drop((client, shard));
                // One without a key ends with its connection.
                eventually("that is lost", || shop.given_up.load(Ordering::SeqCst) == 1);
            } else {
                let client = connect(pair, &server);
                let (ended, ends) = std::sync::mpsc::channel();
                make(&client, Box::new(move |end| drop(ended.send(end))), true);
                assert!(crate::common::has_expired(cause(ends.recv().expect("it ends"))));
                eventually("it runs", || shop.runs() == 1);
            }
            let client = connect(pair, &server);
            let (ended, ends) = std::sync::mpsc::channel();
            make(&client, Box::new(move |end| drop(ended.send(end))), false);
            shop.open(true);
            let number = ends.recv().expect("it ends").expect("it is answered");
            let runs = 1 + u64::from(is_lost);
            assert!((1..=runs).contains(&number));
            assert_eq!(shop.runs(), runs);
            assert!(server.drain().is_clean());
        }
    });
}

#[test]
fn d16_a_call_that_does_not_end_by_itself_does_not_stay_for_ever() {
    over_every_pair(|pair| {
        let (server, shop) = serve(pair, settings().window(SOON));
        let client = connect(pair, &server);
        let end = client.wait().idempotency_key("k").deadline(SOON).wait();
        assert!(crate::common::has_expired(cause(end)));
        assert_eq!(shop.given_up.load(Ordering::SeqCst), 0);
        eventually("it is cancelled", || {
            client.browse().wait().expect("the shard turns");
            shop.given_up.load(Ordering::SeqCst) == 1
        });
    });
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    over_one_pair(|pair| {
        let start = |settings| {
            let server = pair.bind().service(Counter::default().into_shop());
            server.deduplicate(settings).start().expect_err("it makes no sense")
        };
        for wrong in [
            settings().window(std::time::Duration::ZERO),
            settings().entries_max(0),
            settings().bytes_max(1, 2),
            Deduplication::new(CallerKey::metadata("n o")),
        ] {
            assert!(matches!(start(wrong), ServeError::Deduplication));
        }
        let error = start(settings().service("test.Shops"));
        assert!(matches!(error, ServeError::UnknownMethod { .. }), "{error}");
    });
}
