//! Handlers run in the spans of their calls, wherever they run, and their own calls are part of these.

mod common;

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::task::{Context as TaskContext, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::Duration;

use common::{Fields, Kept};
use ringcall::filter::ServerCall;
use ringcall::{Client, Context, Responder, SendContext, Server, Status, TraceContext};
use ringcall_tracing::Spans;

#[ringcall::service(name = "test.Desk")]
trait Desk {
    async fn half(&self, number: u64) -> u64;
}

#[ringcall::service(name = "test.Front")]
trait Front {
    async fn on_shard(&self, cx: &Context) -> u64;
    #[method(offload)]
    async fn on_pool(&self, cx: &Context) -> u64;
    async fn by_any_client(&self, cx: &Context) -> u64;
    fn at_once(&self, responder: Responder<u64>);
}

#[ringcall::service(send, name = "test.Away")]
trait Away {
    async fn on_executor(&self, cx: &SendContext) -> u64;
}

#[derive(Clone)]
struct Clerk;

impl Desk for Clerk {
    async fn half(&self, number: u64) -> u64 {
        number / 2
    }
}

#[derive(Clone)]
struct Usher {
    desk: Client,
}

macro_rules! ask {
    ($channel:expr) => {
        DeskClient::new($channel).half(&4).await.map_or(0, |half| half.to_native())
    };
}

impl Front for Usher {
    async fn on_shard(&self, cx: &Context) -> u64 {
        say("before");
        cx.sleep(Duration::from_millis(1)).await;
        say("after");
        ask!(cx.client(&self.desk))
    }

    async fn on_pool(&self, cx: &Context) -> u64 {
        say("before");
        cx.sleep(Duration::from_millis(1)).await;
        say("after");
        ask!(cx.client(&self.desk))
    }

    async fn by_any_client(&self, cx: &Context) -> u64 {
        say("before");
        cx.sleep(Duration::from_millis(1)).await;
        say("after");
        ask!(self.desk.clone())
    }

    fn at_once(&self, responder: Responder<u64>) {
        say("before");
        say("after");
        responder.send(Ok(2));
    }
}

impl Away for Usher {
    async fn on_executor(&self, cx: &SendContext) -> u64 {
        say("before");
        cx.sleep(Duration::from_millis(1)).await;
        say("after");
        ask!(cx.client(&self.desk))
    }
}

fn say(what: &str) {
    tracing::info!(target: "ringcall", "{what}");
}

async fn look(call: ServerCall) -> Result<ServerCall, Status> {
    say("filtered");
    Ok(call)
}

struct Unpark(Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

/// An executor of one call.
fn block_on(call: impl Future<Output = ()>) {
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut call = pin!(call);
    while call.as_mut().poll(&mut TaskContext::from_waker(&waker)) == Poll::Pending {
        thread::park();
    }
}

#[test]
fn a_handler_runs_in_its_span_and_its_calls_are_part_of_it() {
    let kept = Kept::default();
    tracing::subscriber::set_global_default(kept.clone()).unwrap();
    let spans = || Arc::new(Spans::new());
    let back = Server::bind("127.0.0.1:0").service(Clerk.into_desk());
    let back = back.observer(spans()).start().unwrap();
    let desk = DeskClient::connect(back.address()).observer(spans()).wait().unwrap();
    let usher = Usher { desk: desk.channel().clone() };
    let front = Server::bind("127.0.0.1:0")
        .service(usher.clone().into_front())
        .service_spawned(usher.into_away(), |call| drop(thread::spawn(|| block_on(call))))
        .filter(look)
        .observer(spans())
        .start()
        .unwrap();
    let usher = FrontClient::connect(front.address()).observer(spans()).wait().unwrap();
    assert_eq!(usher.on_shard().wait().unwrap().to_native(), 2);
    assert_eq!(usher.on_pool().wait().unwrap().to_native(), 2);
    assert_eq!(usher.by_any_client().wait().unwrap().to_native(), 2);
    let away = AwayClient::new(usher.channel().clone());
    assert_eq!(away.on_executor().wait().unwrap().to_native(), 2);
    assert_eq!(usher.at_once().wait().unwrap().to_native(), 2);
    let trace: TraceContext =
        "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
    assert_eq!(usher.at_once().trace(&trace).wait().unwrap().to_native(), 2);

    let all = kept.closed(4 * 4 + 2 * 2);
    let find = |kind, name: &str| -> Vec<&Fields> {
        all.iter().filter(|span| span["otel.kind"] == kind && span["otel.name"] == name).collect()
    };
    let (asked, halved) = (find("client", "test.Desk/half"), find("server", "test.Desk/half"));
    assert_eq!((asked.len(), halved.len()), (4, 4));
    for name in [
        "test.Front/on_shard",
        "test.Front/on_pool",
        "test.Front/by_any_client",
        "test.Away/on_executor",
    ] {
        let ([made], [served]) = (&find("client", name)[..], &find("server", name)[..]) else {
            panic!("one span each: {all:#?}");
        };
        assert_eq!(kept.events_in(&served["span_id"]), ["filtered", "before", "after"], "{name}");
        let asked = asked.iter().find(|span| span["trace_id"] == made["trace_id"]).expect(name);
        assert_eq!(asked.get("parent"), Some(&served["span_id"]), "{name}");
        let halved = halved.iter().find(|span| span["trace_id"] == made["trace_id"]).expect(name);
        for (outer, inner) in [(made, served), (served, asked), (asked, halved)] {
            assert_eq!(inner["parent_span_id"], outer["span_id"], "{name}");
            assert_eq!(inner["trace_id"], outer["trace_id"], "{name}");
        }
        for root in [made, served, halved] {
            assert_eq!(root.get("parent"), None, "{name}");
        }
    }
    for served in find("server", "test.Front/at_once") {
        assert_eq!(kept.events_in(&served["span_id"]), ["filtered", "before", "after"]);
    }
    let traced = find("client", "test.Front/at_once")[1];
    assert_eq!(traced["trace_id"], "0af7651916cd43dd8448eb211c80319c");
    assert_eq!(traced["parent_span_id"], "b7ad6b7169203331");
    // Nothing was said elsewhere.
    assert_eq!(kept.event_count(), 6 * 3);
}
