//! A shard that ends, or a client, however it does: whoever waits for a call of it is told, and nothing is left.

use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use crate::common::{Cook, Kitchen as _, KitchenClient, Pair, eventually, over_every_pair};
use ringcall::{
    Access, Address, CallError, Cause, Codec, Config, Context, EncodeError, FailureClass, Frozen,
    Invalid, Message, Peer, Shape, Shard, Status, Wait, Writer,
};

/// Long enough to run still when the shard ends.
const LONG_MS: u64 = 60_000;
const LONG: Duration = Duration::from_secs(90);

fn poll<F: Future + Unpin>(future: &mut F) -> Poll<F::Output> {
    Pin::new(future).poll(&mut TaskContext::from_waker(Waker::noop()))
}

/// The call had left, so nobody can say that it did not run.
fn may_have_run<T, E: std::fmt::Debug>(ended: Result<T, CallError<E>>) {
    let Err(error) = ended else { panic!("nobody answered this call") };
    let failure = error.failure().expect("no handler has failed");
    assert_eq!(failure.class, FailureClass::Unknown, "{failure}");
}

#[test]
fn f11_calls_on_a_shard_end_with_it() {
    over_every_pair(|pair| {
        let (server, seen) = pair.serve();
        let shard = Pair { server: pair.client, ..pair }.shard();
        let client = shard.block_on(shard.connect(server.address())).expect("the server accepts");
        let kitchen = KitchenClient::new(client);
        let mut call = Box::pin(kitchen.simmer(&LONG_MS).deadline(LONG).into_future());
        let (tell, told) = mpsc::channel();
        kitchen.simmer(&LONG_MS).deadline(LONG).callback(move |result| {
            tell.send(result.map(|_| ())).expect("the test waits");
        });
        assert!(poll(&mut call).is_pending());
        while shard.counters().calls_made < 2 {
            shard.turn(Wait::Now);
        }
        shard.turn(Wait::Now);
        drop(shard);
        match poll(&mut call) {
            Poll::Ready(result) => may_have_run(result.map(|_| ())),
            Poll::Pending => panic!("a call outlived its shard"),
        }
        may_have_run(told.try_recv().expect("the callback was called"));
        // A server cannot see that a socket which has ended in one direction is closed in the other, too.
        eventually("their handlers are dropped", || seen.dropped.load(Ordering::SeqCst) == 2);
    });
}

#[ringcall::service]
trait Door {
    async fn knock(&self, cx: &Context);
}

struct Doorman(Arc<Mutex<Option<Peer>>>);

impl Door for Doorman {
    async fn knock(&self, cx: &Context) {
        *self.0.lock().expect("nobody panics with it") = Some(cx.peer());
    }
}

/// A shard that leaves there who knocks.
fn shard_with_door(pair: Pair, peer: Arc<Mutex<Option<Peer>>>) -> (Shard, Address) {
    let shard = pair.shard();
    shard.serve(Doorman(peer).into_door()).expect("its methods are free");
    let address = shard.listen(crate::common::address(pair.socket).as_str()).expect("free");
    (shard, address)
}

#[test]
fn f11_calls_of_other_threads_end_with_a_shard_that_panics() {
    over_every_pair(|pair| {
        let peer = Arc::new(Mutex::new(None));
        let is_over = Arc::new(AtomicBool::new(false));
        let (listening, address) = mpsc::channel();
        let shard = std::thread::spawn({
            let (peer, is_over) = (Arc::clone(&peer), Arc::clone(&is_over));
            move || {
                let (shard, address) = shard_with_door(pair, peer);
                listening.send(address).expect("the test waits");
                let ended = catch_unwind(AssertUnwindSafe(move || {
                    while !is_over.load(Ordering::SeqCst) {
                        shard.turn(Wait::AtMost(Duration::from_millis(1)));
                    }
                    // Takes the shard with it.
                    let _shard = shard;
                    panic!("as planned");
                }));
                assert!(ended.is_err());
            }
        });
        let address = address.recv().expect("it listens");
        let cook = Cook::default();
        let door = pair
            .secured(DoorClient::connect(&address))
            .service(cook.into_kitchen())
            .wait()
            .expect("the server accepts");
        door.knock().wait().expect("it is answered");
        let peer = peer.lock().expect("nobody panics with it").take().expect("it was left");
        let kitchen = KitchenClient::new(peer);
        let (tell, told) = mpsc::channel();
        kitchen.simmer(&LONG_MS).deadline(LONG).callback(move |result| {
            tell.send(result.map(|_| ())).expect("the test waits");
        });
        let mut call = Box::pin(kitchen.simmer(&LONG_MS).deadline(LONG).into_future());
        assert!(poll(&mut call).is_pending());
        is_over.store(true, Ordering::SeqCst);
        shard.join().expect("it panicked where that was expected");
        let mut result = None;
        eventually("the call has ended", || {
            if let Poll::Ready(ended) = poll(&mut call) {
                result = Some(ended.map(|_| ()));
            }
            result.is_some()
        });
        // Whether they had left is not known here.
        assert!(result.is_some_and(|result| result.is_err()));
        assert!(told.recv_timeout(LONG).expect("the callback was called").is_err());
    });
}

#[test]
fn f11_calls_that_wait_to_be_made_end_with_their_shard() {
    over_every_pair(|pair| {
        let peer = Arc::new(Mutex::new(None));
        let is_over = Arc::new(AtomicBool::new(false));
        let (listening, address) = mpsc::channel();
        let (waits, waited) = mpsc::channel::<()>();
        let shard = std::thread::spawn({
            let (peer, is_over) = (Arc::clone(&peer), Arc::clone(&is_over));
            move || {
                let (shard, address) = shard_with_door(pair, peer);
                // Keeps what the shard is made of, as the client of a task elsewhere would.
                let local = shard.connect(address.clone());
                listening.send(address).expect("the test waits");
                while !is_over.load(Ordering::SeqCst) {
                    shard.turn(Wait::AtMost(Duration::from_millis(1)));
                }
                drop(shard);
                let _ended = waited.recv();
                drop(local);
            }
        });
        let address = address.recv().expect("it listens");
        let door = pair
            .secured(DoorClient::connect(&address))
            .service(Cook::default().into_kitchen())
            .config(Config::new().in_flight_max(1))
            .wait()
            .expect("the server accepts");
        door.knock().wait().expect("it is answered");
        let peer = peer.lock().expect("nobody panics with it").take().expect("it was left");
        let kitchen = KitchenClient::new(peer.waiting());
        let (tell, told) = mpsc::channel();
        for _ in 0..3 {
            let tell = tell.clone();
            kitchen.simmer(&LONG_MS).deadline(LONG).callback(move |result| {
                tell.send(result.map(|_| ())).expect("the test waits");
            });
        }
        door.knock().wait().expect("the shard has seen them");
        is_over.store(true, Ordering::SeqCst);
        let failures: Vec<_> = (0..3)
            .map(|_| told.recv_timeout(LONG).expect("it is told").expect_err("nobody answers"))
            .collect();
        let is_safe = failures.iter().filter(|error| error.is_safe_to_retry()).count();
        assert_eq!(is_safe, 2, "those that waited were not made: {failures:?}");
        waits.send(()).expect("it waits");
        shard.join().expect("it does not panic");
    });
}

#[test]
fn a_callback_is_told_although_nobody_holds_its_client_any_more() {
    over_every_pair(|pair| {
        let ((server, _), (other, other_seen)) = (pair.serve(), pair.serve());
        for number in 0..20 {
            let (tell, told) = mpsc::channel();
            let kitchen = pair.kitchen(&server);
            kitchen.simmer(&number).callback(move |result| {
                tell.send(result.map(|_| ())).expect("the test waits");
            });
            drop(kitchen);
            // Takes the place of the first, once that is let go of.
            let lazy = pair.secured(KitchenClient::connect(other.address())).lazy();
            drop(lazy.wait().expect("nothing is connected yet"));
            told.recv_timeout(LONG).expect("it is told").expect("it is answered");
        }
        assert_eq!(other_seen.finished.load(Ordering::SeqCst), 0, "nobody else was called");
        eventually("connections end with their last call", || server.connections() == 0);
    });
}

#[test]
fn a_connection_that_nobody_waits_for_any_more_is_closed() {
    over_every_pair(|pair| {
        let accepted = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&accepted);
        let server = pair.bind().service(Cook::default().into_kitchen()).authorize(move |_| {
            counted.fetch_add(1, Ordering::SeqCst);
            Access::Allow
        });
        let server = pair.start(server);
        for _ in 0..10 {
            let mut connect = pair.secured(KitchenClient::connect(server.address()));
            assert!(poll(&mut connect).is_pending());
        }
        eventually("all of them have connected", || accepted.load(Ordering::SeqCst) == 10);
        eventually("and are gone", || server.connections() == 0);
    });
}

/// Cannot be encoded.
struct Grenade;

impl Message for Grenade {
    type Received<B: Frozen> = Grenade;

    const CODEC: Codec = Codec::user(1);

    fn describe(shape: &mut Shape) {
        shape.opaque::<Grenade>("grenade");
    }

    fn encode(&self, out: &mut Writer) -> Result<(), EncodeError> {
        out.put(b"half of it")?;
        panic!("as planned");
    }

    fn receive<B: Frozen>(_: B) -> Result<Grenade, Invalid> {
        Ok(Grenade)
    }

    fn into_owned(received: Grenade) -> Grenade {
        received
    }

    fn into_owned_shared(received: Grenade) -> Grenade {
        received
    }
}

#[ringcall::service]
trait Armoury {
    async fn hand_out(&self) -> Grenade;
    async fn hand_out_later(&self, cx: &Context) -> Grenade;
    #[method(offload)]
    async fn fetch(&self) -> Grenade;
    async fn take_back(&self, grenade: Grenade);
}

struct Armourer;

impl Armoury for Armourer {
    async fn hand_out(&self) -> Grenade {
        Grenade
    }

    async fn hand_out_later(&self, cx: &Context) -> Grenade {
        cx.sleep(Duration::from_millis(1)).await;
        Grenade
    }

    async fn fetch(&self) -> Grenade {
        Grenade
    }

    async fn take_back(&self, _: Grenade) {}
}

#[test]
fn a_message_that_panics_fails_its_call_alone() {
    over_every_pair(|pair| {
        let server =
            pair.bind().service(Armourer.into_armoury()).service(Cook::default().into_kitchen());
        let server = pair.start(server.offload_threads(1));
        let shared =
            pair.secured(ringcall::Client::connect(server.address())).wait().expect("it accepts");
        let (armoury, kitchen) = (ArmouryClient::new(shared.clone()), KitchenClient::new(shared));
        let failed = Some(Cause::Status(Status::REPLY_FAILED));
        let cause = |error: &CallError| error.failure().map(|failure| failure.cause);
        // More often than the pool has threads.
        for _ in 0..3 {
            for error in [
                armoury.hand_out().wait().err(),
                armoury.hand_out_later().wait().err(),
                armoury.fetch().wait().err(),
            ] {
                let error = error.expect("it cannot be encoded");
                assert_eq!(cause(&error), failed, "{error}");
            }
            let error = armoury.take_back(&Grenade).wait().expect_err("it cannot be encoded");
            assert_eq!(error.failure().map(|failure| failure.class), Some(FailureClass::NotSent));
            kitchen.nothing().wait().expect("the connection goes on");
        }
        let blocking = pair.blocking(&server);
        let error = ArmouryClient::new(&blocking).take_back(&Grenade).wait().expect_err("nor here");
        assert_eq!(error.failure().map(|failure| failure.class), Some(FailureClass::NotSent));
        KitchenClient::new(&blocking).nothing().wait().expect("its shard goes on");
    });
}
