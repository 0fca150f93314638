//! Handlers on an executor of the user's, and in what the user has put around the server's threads.

use std::cell::RefCell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::thread;
use std::time::Duration;

use crate::common::{PATIENT, Pair, SOON, eventually, over_every_pair, over_one_pair};
use ringcall::{
    CallError, Cause, FailureClass, Responder, RunningServer, SendContext, Service, SharedView,
    Status,
};

#[ringcall::message]
#[derive(Debug)]
struct Broken;

#[ringcall::service(send)]
trait Work {
    async fn thread(&self, cx: &SendContext) -> String;
    async fn length(&self, text: SharedView<String>) -> Result<u64, Broken>;
    async fn nap(&self, cx: &SendContext, time_ms: u64) -> u64;
    async fn panic(&self, cx: &SendContext, later: bool);
    fn later(&self, number: u64, responder: Responder<u64>);
    #[method(one_way)]
    async fn toss(&self, number: u64);
}

#[derive(Clone, Default)]
struct Worker {
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    tossed: AtomicU64,
    finished: AtomicU64,
    dropped: AtomicU64,
}

struct Dropped<'a>(&'a Seen);

impl Drop for Dropped<'_> {
    fn drop(&mut self) {
        self.0.dropped.fetch_add(1, Ordering::SeqCst);
    }
}

impl Work for Worker {
    async fn thread(&self, cx: &SendContext) -> String {
        cx.reply_metadata("place", "executor");
        thread::current().name().unwrap_or_default().to_owned()
    }

    async fn length(&self, text: SharedView<String>) -> Result<u64, Broken> {
        if text.is_empty() { Err(Broken) } else { Ok(text.len() as u64) }
    }

    async fn nap(&self, cx: &SendContext, time_ms: u64) -> u64 {
        let _dropped = Dropped(&self.seen);
        cx.sleep(Duration::from_millis(time_ms)).await;
        self.seen.finished.fetch_add(1, Ordering::SeqCst);
        time_ms
    }

    async fn panic(&self, cx: &SendContext, later: bool) {
        if later {
            cx.sleep(Duration::from_millis(1)).await;
        }
        panic!("as asked");
    }

    fn later(&self, number: u64, responder: Responder<u64>) {
        assert_eq!(thread::current().name(), Some("executor"));
        thread::spawn(move || responder.send(Ok(number)));
    }

    async fn toss(&self, number: u64) {
        self.seen.tossed.fetch_add(number, Ordering::SeqCst);
    }
}

/// A runtime on a thread of its own, which lives as long as the tests.
fn executor() -> tokio::runtime::Handle {
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let handle = runtime.handle().clone();
    let thread = thread::Builder::new().name("executor".into());
    thread.spawn(move || runtime.block_on(std::future::pending::<()>())).unwrap();
    handle
}

/// A server whose handlers run there, and somebody who calls them.
fn serve(pair: Pair, executor: &tokio::runtime::Handle) -> (RunningServer, WorkClient, Arc<Seen>) {
    let worker = Worker::default();
    let seen = Arc::clone(&worker.seen);
    let tokio = executor.clone();
    let server = pair.bind();
    let server = server.service_spawned(worker.into_work(), move |call| drop(tokio.spawn(call)));
    let server = pair.start(server);
    let work = pair.secured(WorkClient::connect(server.address())).wait().unwrap();
    (server, work.with_options(PATIENT), seen)
}

fn status(error: &CallError<impl std::fmt::Debug>) -> Cause {
    error.failure().unwrap_or_else(|| panic!("{error:?}")).cause
}

#[test]
fn handlers_run_on_the_executor() {
    let executor = executor();
    over_every_pair(|pair| {
        let (server, work, seen) = serve(pair, &executor);
        let reply = work.thread().with_metadata().wait();
        assert_eq!(reply.result.unwrap().as_str(), "executor");
        assert_eq!(reply.metadata.text("place"), Some("executor"));
        assert_eq!(work.length(&"four".to_owned()).wait().unwrap().to_native(), 4);
        let long = "x".repeat(300_000);
        assert_eq!(work.length(&long).wait().unwrap().to_native(), 300_000);
        assert!(matches!(work.length(&String::new()).wait(), Err(CallError::App(Broken))));
        assert_eq!(work.nap(&3).wait().unwrap().to_native(), 3);
        assert_eq!(work.later(&5).wait().unwrap().to_native(), 5);
        for later in [false, true] {
            let error = work.panic(&later).wait().unwrap_err();
            assert_eq!(status(&error), Cause::Status(Status::INTERNAL));
        }
        work.toss(&7).wait().unwrap();
        eventually("a one-way call runs", || seen.tossed.load(Ordering::SeqCst) == 7);
        drop(work);
        server.stop();
    });
}

#[test]
fn a_call_that_nobody_waits_for_ends_on_the_executor() {
    let executor = executor();
    over_every_pair(|pair| {
        let (server, work, seen) = serve(pair, &executor);
        // Its deadline passes.
        let error = work.nap(&60_000).deadline(SOON).wait().unwrap_err();
        assert!(crate::common::has_expired(status(&error)));
        eventually("it is dropped", || seen.dropped.load(Ordering::SeqCst) == 1);
        // Its caller goes.
        let blocking = pair.blocking(&server);
        blocking.run(async {
            let work = WorkClient::new(&blocking);
            let nap = work.nap(&60_000).deadline(Duration::from_secs(60));
            let nap = std::pin::pin!(nap.into_future());
            let other = std::pin::pin!(work.nap(&10).into_future());
            race(nap, other).await;
        });
        // And its shard, before it has said so.
        drop(blocking);
        eventually("all are dropped", || seen.dropped.load(Ordering::SeqCst) == 3);
        assert_eq!(seen.finished.load(Ordering::SeqCst), 1);
        server.stop();
    });
}

/// The first of two that is ready.
async fn race<A: Future + Unpin, B: Future + Unpin>(mut a: A, mut b: B) {
    std::future::poll_fn(|cx| {
        let a = std::pin::Pin::new(&mut a).poll(cx).is_ready();
        if a || std::pin::Pin::new(&mut b).poll(cx).is_ready() {
            return std::task::Poll::Ready(());
        }
        std::task::Poll::Pending
    })
    .await;
}

#[test]
fn a_call_that_the_executor_drops_is_answered() {
    over_one_pair(|pair| {
        let panics = Arc::new(AtomicBool::new(false));
        let spawner_panics = Arc::clone(&panics);
        let server = pair.bind().service_spawned(Worker::default().into_work(), move |call| {
            drop(call);
            assert!(!spawner_panics.load(Ordering::SeqCst), "as asked");
        });
        let server = pair.start(server);
        let work = WorkClient::new(pair.blocking(&server)).with_options(PATIENT);
        for panic in [false, true] {
            panics.store(panic, Ordering::SeqCst);
            let error = work.nap(&1).wait().unwrap_err();
            let failure = error.failure().expect("no answer");
            assert_eq!(failure.cause, Cause::Status(Status::ABORTED));
            assert_eq!(failure.class, FailureClass::Unknown);
        }
        assert_eq!(Worker::default().into_work().table().methods().len(), 6);
        server.stop();
    });
}

/// Two builds of one service, of which the newer one makes its argument of the older one's by code of its own.
macro_rules! readers {
    ($($build:ident: $note:item;)*) => {
        $(#[allow(dead_code, reason = "nobody serves the older one")]
        mod $build {
            use ringcall::Responder;

            #[ringcall::service(name = "test.Reader", send)]
            pub(super) trait Reader {
                fn read(&self, note: Note, responder: Responder<u64>);
            }

            $note

            pub(super) struct Clerk;

            impl Reader for Clerk {
                fn read(&self, _: Note, responder: Responder<u64>) {
                    responder.send(Ok(1));
                }
            }
        })*
    };
}

readers! {
    old: #[ringcall::message] pub(super) struct Note { pub(super) size: u32 };
    new: #[ringcall::message(also = super::old::Note)] pub(super) struct Note { pub(super) size: u64 };
}

impl From<old::Note> for new::Note {
    fn from(old: old::Note) -> new::Note {
        assert_ne!(old.size, 13, "as asked");
        new::Note { size: old.size.into() }
    }
}

/// There is no responder yet that could answer.
#[test]
fn an_argument_that_cannot_be_made_is_answered_wherever_its_handler_runs() {
    use new::Reader as _;
    let executor = executor();
    over_every_pair(|pair| {
        let spawned = |server: ringcall::Server| {
            let tokio = executor.clone();
            server.service_spawned(new::Clerk.into_reader(), move |call| drop(tokio.spawn(call)))
        };
        let here = |server: ringcall::Server| server.service(new::Clerk.into_reader());
        for server in [
            here(pair.bind()),
            here(pair.bind()).handlers(ringcall::Handlers::Offload),
            spawned(pair.bind()),
        ] {
            let server = pair.start(server);
            let reader = pair.secured(old::ReaderClient::connect(server.address())).wait().unwrap();
            let reader = reader.with_options(PATIENT);
            let read = |size| reader.read(&old::Note { size }).wait();
            assert_eq!(read(12).unwrap(), 1);
            assert_eq!(status(&read(13).unwrap_err()), Cause::Status(Status::INTERNAL));
            assert_eq!(read(14).unwrap(), 1);
            assert!(server.drain().is_clean());
        }
    });
}

thread_local! {
    /// What is around this thread's work, from the outside.
    static AROUND: RefCell<Vec<&'static str>> = const { RefCell::new(Vec::new()) };
}

/// Is around something until it is dropped, as the guards of runtimes are.
struct Around(&'static str);

impl Around {
    fn enter(name: &'static str) -> Around {
        AROUND.with_borrow_mut(|around| around.push(name));
        Around(name)
    }
}

impl Drop for Around {
    fn drop(&mut self) {
        assert_eq!(AROUND.with_borrow_mut(Vec::pop), Some(self.0));
    }
}

fn around() -> String {
    AROUND.with_borrow(|around| around.join(" "))
}

#[ringcall::service]
trait Surroundings {
    async fn here(&self) -> String;
}

/// Made on its shard's thread, and dropped there.
struct Observed(String, Sender<(String, String)>);

impl Surroundings for Observed {
    async fn here(&self) -> String {
        around()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        self.1.send((self.0.clone(), around())).expect("the test waits");
    }
}

#[ringcall::service]
trait Elsewhere {
    #[method(offload)]
    async fn elsewhere(&self) -> String;
}

struct Pooled;

impl Elsewhere for Pooled {
    async fn elsewhere(&self) -> String {
        around()
    }
}

#[test]
fn each_thread_of_a_server_is_in_what_its_user_wants() {
    over_every_pair(|pair| {
        let (tell, told) = channel();
        let server = pair.bind().shards(2).service(Pooled.into_elsewhere());
        let server =
            server.service_per_shard(move |_| Observed(around(), tell.clone()).into_surroundings());
        let server = ["outer", "inner"].into_iter().fold(server, |server, name| {
            server.on_each_thread(move |work| {
                let _entered = Around::enter(name);
                work();
            })
        });
        let server = pair.start(server);
        let client = pair.secured(ringcall::Client::connect(server.address())).wait().unwrap();
        let here = SurroundingsClient::new(client.clone()).with_options(PATIENT);
        assert_eq!(here.here().wait().unwrap().as_str(), "outer inner");
        let elsewhere = ElsewhereClient::new(client).with_options(PATIENT);
        assert_eq!(elsewhere.elsewhere().wait().unwrap().as_str(), "outer inner");
        assert!(server.drain().is_clean());
        let both = || "outer inner".to_owned();
        // Both have dropped their services, and what makes them.
        assert_eq!(told.iter().collect::<Vec<_>>(), [(both(), both()), (both(), both())]);
    });
}

#[test]
fn a_server_whose_threads_do_nothing_does_not_start() {
    let server = ringcall::Server::bind("127.0.0.1:0").on_each_thread(drop);
    assert!(server.start().is_err());
}
