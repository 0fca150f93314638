//! A shard that ends, however it does: whoever waits for a call of it is told.

mod common;

use std::future::{Future, IntoFuture};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::task::{Context as TaskContext, Poll, Waker};
use std::time::Duration;

use common::{Cook, Kitchen as _, KitchenClient, Pair, eventually, over_every_pair};
use ringcall::{CallError, Context, FailureClass, Peer, Wait};

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

#[test]
fn f11_calls_of_other_threads_end_with_a_shard_that_panics() {
    over_every_pair(|pair| {
        let peer = Arc::new(Mutex::new(None));
        let is_over = Arc::new(AtomicBool::new(false));
        let (listening, address) = mpsc::channel();
        let shard = std::thread::spawn({
            let (peer, is_over) = (Arc::clone(&peer), Arc::clone(&is_over));
            move || {
                let shard = pair.shard();
                shard.serve(Doorman(peer).into_door()).expect("its methods are free");
                let address = shard.listen(common::address(pair.socket).as_str()).expect("free");
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
