//! A subscriber may do anything while it is told of a span, also ask for others.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Duration;

use ringcall::Server;
use ringcall::observe::{Event, Observer, Scope};
use ringcall_tracing::Spans;
use tracing::span::{Attributes, Id, Record};
use tracing::{Metadata, Subscriber};

#[ringcall::service(name = "test.Desk")]
trait Desk {
    async fn half(&self, number: u64) -> u64;
}

#[derive(Clone)]
struct Clerk;

impl Desk for Clerk {
    async fn half(&self, number: u64) -> u64 {
        number / 2
    }
}

static SPANS: OnceLock<Arc<Spans>> = OnceLock::new();
static TOLD: AtomicU64 = AtomicU64::new(0);
static IS_STUCK: AtomicBool = AtomicBool::new(false);

/// The same spans for all threads.
struct Shared;

impl Observer for Shared {
    fn observe(&self, event: &Event<'_>) {
        SPANS.get().unwrap().observe(event);
    }

    fn trace_context(&self, call: u64) -> Option<[u8; 26]> {
        SPANS.get().unwrap().trace_context(call)
    }

    fn scope(&self, call: u64) -> Option<Arc<dyn Scope>> {
        SPANS.get().unwrap().scope(call)
    }
}

/// Asks for a span whenever it is told of one; on another thread, so that it is found out and not waited for.
struct Prying;

fn pry() {
    let (answered, answer) = channel();
    thread::spawn(move || answered.send(SPANS.get().unwrap().trace_context(0)));
    if !IS_STUCK.load(Ordering::SeqCst) && answer.recv_timeout(Duration::from_secs(10)).is_err() {
        IS_STUCK.store(true, Ordering::SeqCst);
    }
}

impl Subscriber for Prying {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target() == "ringcall"
    }

    fn new_span(&self, _: &Attributes<'_>) -> Id {
        pry();
        Id::from_u64(TOLD.fetch_add(1, Ordering::SeqCst) + 1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {
        pry();
    }

    fn clone_span(&self, span: &Id) -> Id {
        pry();
        span.clone()
    }

    fn try_close(&self, _: Id) -> bool {
        pry();
        true
    }

    fn event(&self, _: &tracing::Event<'_>) {
        pry();
    }

    fn enter(&self, _: &Id) {
        pry();
    }

    fn exit(&self, _: &Id) {
        pry();
    }

    fn record_follows_from(&self, _: &Id, _: &Id) {}
}

#[test]
fn a_subscriber_may_ask_for_spans() {
    tracing::subscriber::set_global_default(Prying).unwrap();
    SPANS.set(Arc::new(Spans::new())).unwrap();
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk()).observer(Arc::new(Shared));
    let server = server.start().unwrap();
    let desk = DeskClient::connect(server.address()).observer(Arc::new(Shared)).wait().unwrap();
    assert_eq!(desk.half(&4).wait().unwrap().to_native(), 2);
    drop(desk);
    server.stop();
    assert!(TOLD.load(Ordering::SeqCst) >= 2, "either side has a span");
    assert!(!IS_STUCK.load(Ordering::SeqCst));
}
