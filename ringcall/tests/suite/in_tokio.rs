//! Servers in programs that use tokio: handlers that do, wherever they run, and the end of a server in a runtime of one
//! thread, which must not be blocked.

use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{PATIENT, Pair, block, eventually, over_every_pair, over_one_pair};
use ringcall::{
    CallError, Cause, Context, Items, RunningServer, SendContext, Server, Status, Stream,
};
use tokio::runtime::{Builder, Handle, Runtime};
use tokio::sync::mpsc;

/// A channel of tokio's as a stream.
struct Received(mpsc::Receiver<u64>);

impl Stream for Received {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        self.0.poll_recv(cx)
    }
}

/// So many numbers, from a task of tokio's.
fn numbers(count: u64) -> Received {
    let (sender, receiver) = mpsc::channel(4);
    tokio::spawn(async move {
        for number in 0..count {
            tokio::time::sleep(Duration::from_millis(1)).await;
            // Nobody may want them any more.
            let _ = sender.send(number).await;
        }
    });
    Received(receiver)
}

async fn nap(time_ms: u64) -> u64 {
    tokio::time::sleep(Duration::from_millis(time_ms)).await;
    tokio::spawn(async move { time_ms }).await.expect("it ends")
}

#[ringcall::service]
trait Local {
    async fn nap(&self, time_ms: u64) -> u64;
    #[method(offload)]
    async fn nap_elsewhere(&self, time_ms: u64) -> u64;
    async fn reach(&self, port: u16) -> bool;
    async fn leave(&self, cx: &Context, number: u64);
    async fn count(&self, count: u64) -> impl Stream<Item = u64>;
    async fn sum(&self, numbers: Items<u64>) -> u64;
    async fn halve(&self, numbers: Items<u64>) -> impl Stream<Item = u64>;
}

#[derive(Clone, Default)]
struct Sleeper(Arc<AtomicU64>);

impl Local for Sleeper {
    async fn nap(&self, time_ms: u64) -> u64 {
        nap(time_ms).await
    }

    async fn nap_elsewhere(&self, time_ms: u64) -> u64 {
        nap(time_ms).await
    }

    async fn reach(&self, port: u16) -> bool {
        tokio::net::TcpStream::connect(SocketAddr::from(([127, 0, 0, 1], port))).await.is_ok()
    }

    async fn leave(&self, cx: &Context, number: u64) {
        let seen = Arc::clone(&self.0);
        cx.spawn(async move {
            seen.fetch_add(nap(number).await, Ordering::SeqCst);
        });
    }

    async fn count(&self, count: u64) -> impl Stream<Item = u64> {
        nap(1).await;
        numbers(count)
    }

    async fn sum(&self, mut numbers: Items<u64>) -> u64 {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += nap(number).await;
        }
        sum
    }

    async fn halve(&self, mut numbers: Items<u64>) -> impl Stream<Item = u64> {
        let (sender, receiver) = mpsc::channel(4);
        while let Some(number) = numbers.next().await {
            let sender = sender.clone();
            tokio::spawn(async move { sender.send(nap(number).await / 2).await });
        }
        Received(receiver)
    }
}

/// What runs on tokio but for its stream.
#[ringcall::service(send)]
trait Spawned {
    async fn nap(&self, time_ms: u64) -> u64;
    async fn until_drained(&self, cx: &SendContext) -> bool;
    async fn count(&self, count: u64) -> impl Stream<Item = u64>;
}

impl Spawned for Sleeper {
    async fn nap(&self, time_ms: u64) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst);
        nap(time_ms).await
    }

    async fn until_drained(&self, cx: &SendContext) -> bool {
        self.0.fetch_add(1, Ordering::SeqCst);
        let was_draining = cx.is_draining();
        cx.draining().await;
        !was_draining && cx.is_draining()
    }

    async fn count(&self, count: u64) -> impl Stream<Item = u64> {
        nap(1).await;
        numbers(count)
    }
}

/// A runtime that turns on a thread of its own, for as long as the tests.
fn tokio_elsewhere() -> Handle {
    let runtime = one_thread();
    let handle = runtime.handle().clone();
    thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
    handle
}

/// What `#[tokio::test]` and `#[tokio::main(flavor = "current_thread")]` make.
fn one_thread() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn status<E: std::fmt::Debug>(error: CallError<E>) -> Cause {
    error.failure().unwrap_or_else(|| panic!("{error:?}")).cause
}

#[test]
fn handlers_use_tokio_wherever_they_run() {
    let tokio = tokio_elsewhere();
    over_every_pair(|pair| {
        let (sleeper, spawner) = (Sleeper::default(), tokio.clone());
        let server = pair.bind().tokio(tokio.clone()).shards(2);
        let server = server
            .service(sleeper.clone().into_local())
            .service_spawned(sleeper.clone().into_spawned(), move |call| drop(spawner.spawn(call)));
        let server = pair.start(server);
        let client = pair.secured(ringcall::Client::connect(server.address())).wait().unwrap();
        let local = LocalClient::new(client.clone()).with_options(PATIENT);
        assert_eq!(local.nap(&3).wait().unwrap(), 3);
        assert_eq!(local.nap_elsewhere(&3).wait().unwrap(), 3);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(*local.reach(&listener.local_addr().unwrap().port()).wait().unwrap());
        local.leave(&5).wait().unwrap();
        eventually("its task ends", || sleeper.0.load(Ordering::SeqCst) == 5);
        let spawned = SpawnedClient::new(client).with_options(PATIENT);
        assert_eq!(spawned.nap(&3).wait().unwrap(), 3);
        for mut counted in [local.count(&20).wait().unwrap(), spawned.count(&20).wait().unwrap()] {
            let got: Vec<u64> = counted.wait_each().map(|item| item.unwrap().to_native()).collect();
            assert_eq!(got, Vec::from_iter(0..20));
        }
        let mut upload = local.sum().wait().unwrap();
        (0..10).for_each(|number| upload.send_wait(&number).unwrap());
        assert_eq!(upload.finish_wait().unwrap(), 45);
        let (mut sender, mut halved) = local.halve().wait().unwrap();
        (0..10).for_each(|number| sender.send_wait(&(number * 2)).unwrap());
        drop(sender);
        let mut got: Vec<u64> = halved.wait_each().map(|item| item.unwrap().to_native()).collect();
        got.sort_unstable();
        assert_eq!(got, Vec::from_iter(0..10));
        assert!(server.drain().is_clean());
    });
}

#[test]
fn without_it_such_a_handler_fails() {
    over_one_pair(|pair| {
        let server = pair.start(pair.bind().service(Sleeper::default().into_local()));
        let local = pair.secured(LocalClient::connect(server.address())).wait().unwrap();
        let local = local.with_options(PATIENT);
        for error in [local.nap(&1).wait(), local.nap_elsewhere(&1).wait()] {
            assert_eq!(status(error.unwrap_err()), Cause::Status(Status::INTERNAL));
        }
    });
}

// ---- the end of a server ----

/// Far longer than any of what follows takes: whoever comes to its end has waited in vain.
const LONG: Duration = Duration::from_secs(60);

/// In a runtime of one thread: a server whose handlers run on that thread, and a client.
async fn in_here(pair: Pair, server: Server) -> (RunningServer, SpawnedClient, Sleeper) {
    let (sleeper, tokio) = (Sleeper::default(), Handle::current());
    let service = sleeper.clone().into_spawned();
    let server = server.drain_timeout(LONG);
    let server = server.service_spawned(service, move |call| drop(tokio.spawn(call)));
    let server = pair.start(server);
    let client = pair.secured(SpawnedClient::connect(server.address())).await.unwrap();
    (server, client.with_options(PATIENT), sleeper)
}

/// Awaits until so many handlers have begun.
async fn begun(sleeper: &Sleeper, handlers: u64) {
    while sleeper.0.load(Ordering::SeqCst) < handlers {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

#[test]
#[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
fn a_drain_blocks_no_thread_that_its_handlers_need() {
    over_every_pair(|pair| {
        one_thread().block_on(async {
            let (server, client, sleeper) = in_here(pair, pair.bind().shards(2)).await;
            let other = client.clone();
            let nap = tokio::spawn(async move { client.nap(&100).await });
            let waiting = tokio::spawn(async move { other.until_drained().await });
            begun(&sleeper, 2).await;
            let drained = Instant::now();
            let report = server.drained().await;
            assert!(drained.elapsed() < LONG / 2, "{report}");
            assert!(report.is_clean() && report.finished == 2, "{report}");
            assert_eq!(nap.await.unwrap().unwrap(), 100);
            assert!(*waiting.await.unwrap().unwrap(), "the handler saw it");
        });
    });
}

#[test]
fn a_server_runs_until_something_happens() {
    over_one_pair(|pair| {
        one_thread().block_on(async {
            let (server, client, sleeper) = in_here(pair, pair.bind()).await;
            let (close, closing) = tokio::sync::oneshot::channel::<()>();
            let running = tokio::spawn(server.run_until(closing));
            let nap = tokio::spawn(async move { client.nap(&50).await });
            begun(&sleeper, 1).await;
            assert!(!running.is_finished());
            drop(close);
            let report = running.await.unwrap();
            assert!(report.is_clean() && report.finished == 1, "{report}");
            assert_eq!(nap.await.unwrap().unwrap(), 50);
        });
    });
}

/// Whoever gives up neither blocks, nor leaves a server behind.
#[test]
#[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
fn an_end_that_nobody_waits_for_is_quick() {
    over_every_pair(|pair| {
        one_thread().block_on(async {
            for is_draining in [true, false] {
                // It has not even begun when it is to hurry.
                let server = pair.bind().on_drain(|| block(Duration::from_millis(100)));
                let (server, client, sleeper) = in_here(pair, server).await;
                let connections = server.incidents_reader();
                let nap = tokio::spawn(async move { client.nap(&50_000).deadline(LONG).await });
                begun(&sleeper, 1).await;
                let given_up = Instant::now();
                match is_draining {
                    true => drop(server.drained()),
                    false => drop(server.run_until(std::future::pending::<()>())),
                }
                assert!(given_up.elapsed() < Duration::from_millis(90), "it blocks");
                let error = nap.await.unwrap().unwrap_err();
                assert_eq!(status(error), Cause::Status(Status::ABORTED));
                assert!(given_up.elapsed() < LONG / 2, "{:?}", connections());
            }
        });
    });
}

/// It comes to whoever waits.
#[test]
fn a_hook_that_panics_is_not_lost() {
    over_one_pair(|pair| {
        let server = pair.start(pair.bind().on_drain(|| panic!("as asked")));
        let drained = one_thread().block_on(async { tokio::spawn(server.drained()).await });
        assert!(drained.unwrap_err().is_panic());
    });
}

#[test]
fn any_thread_may_have_a_running_server() {
    fn is_shared<T: Send + Sync + 'static>(_: &T) {}
    fn is_sent<T: Send + 'static>(it: T) -> T {
        it
    }
    let server = Server::bind("127.0.0.1:0").start().unwrap();
    is_shared(&server);
    let drained = is_sent(server.drained());
    assert!(one_thread().block_on(drained).is_clean());
    drop(is_sent(Server::bind("127.0.0.1:0").start().unwrap().until_signalled()));
}
