//! Metadata of calls and answers, and the context that handlers hand down.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context as TaskContext, Poll};
use std::time::Duration;

use crate::common::{Pair, eventually, over_every_pair, over_one_pair};
use ringcall::{
    BlockOn, BlockingClient, CallError, CallOptions, Cause, Channel, Client, Config, Context,
    FailureClass, IntoOwned, Items, Metadata, Peer, Responder, RunningServer, SendContext,
    SharedBody, Status, Stream, StreamCall, StreamChannel, TraceContext,
};

#[ringcall::message]
#[derive(Debug, PartialEq)]
struct Returned {
    reason: String,
}

/// Its answers have the metadata that came with their calls, in order.
#[ringcall::service(name = "test.Post")]
trait Post {
    async fn echo(&self, cx: &Context, fails: bool) -> Result<u64, Returned>;
    #[method(offload)]
    async fn offloaded(&self, cx: &Context, fails: bool) -> Result<u64, Returned>;
    fn later(&self, cx: &Context, fails: bool, responder: Responder<u64, Returned>);
    #[method(one_way)]
    async fn toss(&self, cx: &Context);
    async fn count(&self, cx: &Context, to: u64) -> Result<impl Stream<Item = u64>, Returned>;
    async fn sum(&self, cx: &Context, numbers: Items<u64>) -> Result<u64, Returned>;
    async fn panic(&self, cx: &Context);
    async fn pad(&self, cx: &Context, bytes: u64);
}

#[derive(Clone, Default)]
struct Office {
    tossed: Arc<AtomicU64>,
}

/// So many numbers, downwards.
struct Numbers(u64);

impl Stream for Numbers {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, _: &mut TaskContext<'_>) -> Poll<Option<u64>> {
        let Some(next) = self.0.checked_sub(1) else { return Poll::Ready(None) };
        self.0 = next;
        Poll::Ready(Some(next))
    }
}

fn send_back(cx: &Context) -> u64 {
    cx.metadata().iter().for_each(|(key, value)| cx.reply_metadata(key, value));
    cx.metadata().len() as u64
}

fn answer(fails: bool, value: u64) -> Result<u64, Returned> {
    if fails { Err(Returned { reason: "no such street".into() }) } else { Ok(value) }
}

impl Post for Office {
    async fn echo(&self, cx: &Context, fails: bool) -> Result<u64, Returned> {
        answer(fails, send_back(cx))
    }

    async fn offloaded(&self, cx: &Context, fails: bool) -> Result<u64, Returned> {
        answer(fails, send_back(cx))
    }

    fn later(&self, cx: &Context, fails: bool, responder: Responder<u64, Returned>) {
        let count = send_back(cx);
        std::thread::spawn(move || {
            responder.metadata("by", "another thread");
            responder.send(answer(fails, count));
        });
    }

    async fn toss(&self, cx: &Context) {
        // Nobody will read it.
        self.tossed.fetch_add(send_back(cx), Ordering::SeqCst);
    }

    async fn count(&self, cx: &Context, to: u64) -> Result<impl Stream<Item = u64>, Returned> {
        let count = send_back(cx);
        if to == 0 {
            return Err(Returned { reason: format!("{count}") });
        }
        Ok(Numbers(to))
    }

    async fn sum(&self, cx: &Context, mut numbers: Items<u64>) -> Result<u64, Returned> {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number;
        }
        send_back(cx);
        answer(sum == 13, sum)
    }

    async fn panic(&self, cx: &Context) {
        send_back(cx);
        panic!("as asked");
    }

    async fn pad(&self, cx: &Context, bytes: u64) {
        cx.reply_metadata("pad", vec![0; bytes as usize]);
    }
}

fn serve(pair: &Pair, config: Config) -> (RunningServer, Office) {
    let office = Office::default();
    let server = pair.bind().config(config).service(office.clone().into_post());
    (pair.start(server), office)
}

/// The sent metadata, as answers bring it back.
fn assert_is_back<B: ringcall::IntoOwned>(metadata: &Metadata<B>) {
    let expected: [(&str, &[u8]); 4] =
        [("always", b"there"), ("key", b"value"), ("key", b""), ("other.key", b"\xff\x00\xfe")];
    assert!(metadata.iter().take(4).eq(expected), "{metadata:?}");
    assert_eq!(metadata.get("key"), Some(&b"value"[..]));
    assert_eq!(metadata.get_all("key").count(), 2);
    assert_eq!((metadata.text("other.key"), metadata.get("none")), (None, None));
}

fn post<C: Channel>(channel: C) -> PostClient<C> {
    PostClient::new(channel).with_options(CallOptions::new().metadata("always", "there"))
}

macro_rules! addressed {
    ($call:expr) => {
        $call.metadata("key", "value").metadata("key", "").metadata("other.key", b"\xff\x00\xfe")
    };
}

fn every_kind_of_call<C>(channel: C)
where
    C: StreamChannel<Body: IntoOwned, Call: BlockOn> + BlockOn,
    C::Call: StreamCall<Body = C::Body>,
{
    let post = post(channel);
    for fails in [false, true] {
        let replies = [
            addressed!(post.echo(&fails)).with_metadata().wait(),
            addressed!(post.offloaded(&fails)).with_metadata().wait(),
            addressed!(post.later(&fails)).with_metadata().wait(),
        ];
        for reply in replies {
            assert_is_back(&reply.metadata);
            match reply.result {
                Ok(_) => assert!(!fails),
                Err(CallError::App(Returned { reason })) => {
                    assert!(fails);
                    assert_eq!(reason, "no such street");
                }
                Err(other) => panic!("{other:?}"),
            }
        }
    }
    let later = post.later(&false).with_metadata().wait();
    assert_eq!(later.metadata.text("by"), Some("another thread"));
    // Without asking for it.
    assert!(addressed!(post.echo(&false)).wait().is_ok());
    addressed!(post.toss()).wait().unwrap();
    // Streams.
    let mut numbers = addressed!(post.count(&3)).wait().unwrap();
    assert_is_back(numbers.metadata().expect("it has begun"));
    assert_eq!(numbers.wait_each().map(Result::unwrap).count(), 3);
    assert!(numbers.end_metadata().is_none_or(Metadata::is_empty));
    let Err(CallError::App(Returned { reason })) = addressed!(post.count(&0)).wait() else {
        panic!("a stream of nothing")
    };
    assert_eq!(reason, "4");
    for (number, fails) in [(12, false), (13, true)] {
        let mut upload = addressed!(post.sum()).wait().unwrap();
        upload.send_wait(&number).unwrap();
        let call = upload;
        let reply = futures_block(call.finish_with_metadata(), post.channel());
        assert_is_back(&reply.metadata);
        assert_eq!(reply.result.is_err(), fails);
    }
}

fn futures_block<F: Future>(future: F, channel: &impl BlockOn) -> F::Output {
    channel.block_on(future)
}

#[test]
fn metadata_goes_there_and_back_with_every_kind_of_call() {
    over_every_pair(|pair| {
        let (server, office) = serve(&pair, Config::new());
        let client = pair.secured(PostClient::connect(server.address())).wait().unwrap();
        every_kind_of_call(client.channel().clone());
        let blocking = pair.blocking(&server);
        every_kind_of_call(&blocking);
        let local = blocking.local().clone();
        blocking.run(async {
            let reply = addressed!(post(&local).echo(&false)).with_metadata().await;
            assert_is_back(&reply.metadata);
        });
        eventually("one-way calls have metadata", || office.tossed.load(Ordering::SeqCst) == 8);
        // A panic is a status, which has no metadata for its caller; nothing of it is kept.
        let failed = addressed!(post(&blocking).panic()).with_metadata().wait();
        assert!(failed.metadata.is_empty());
        assert!(failed.result.is_err());
        let plain = PostClient::new(&blocking).echo(&false).with_metadata().wait();
        assert!(plain.metadata.is_empty());
    });
}

#[test]
fn a07_too_much_metadata_is_refused_and_the_connection_goes_on() {
    over_every_pair(|pair| {
        let (server, _) = serve(&pair, Config::new().metadata_max(4, 100));
        let blocking = pair.blocking(&server);
        let post = PostClient::new(&blocking);
        let few =
            |count| (0..count).fold(post.echo(&false), |call, _| call.metadata("key", [0xff; 5]));
        assert_eq!(few(4).wait().unwrap().to_native(), 4);
        for refused in [few(5).wait(), post.echo(&false).metadata("key", [0; 93]).wait()] {
            let error = refused.unwrap_err();
            let failure = *error.failure().expect("no answer");
            assert_eq!(failure.cause, Cause::Status(Status::TOO_MUCH_METADATA));
            assert!(error.is_safe_to_retry());
        }
        // More than any header holds is not even sent.
        for call in [post.echo(&false).metadata("key", [0; 100_000]), few(100_000)] {
            let error = call.wait().unwrap_err();
            let failure = error.failure().expect("no answer");
            assert_eq!(failure.cause, Cause::TooMuchMetadata);
            assert_eq!(failure.class, FailureClass::NotSent);
        }
        // The same for answers.
        assert!(post.pad(&8000).wait().is_ok());
        let failed = post.pad(&9000).wait().unwrap_err();
        assert_eq!(failed.failure().map(|failure| failure.cause), Some(Cause::TooMuchMetadata));
        let failed = post.pad(&20_000).wait().unwrap_err();
        let cause = failed.failure().map(|failure| failure.cause);
        assert_eq!(cause, Some(Cause::Status(Status::REPLY_FAILED)));
        assert_eq!(few(1).wait().unwrap().to_native(), 1);
        assert_eq!(blocking.shard().connections(), 1);
    });
}

#[test]
fn metadata_survives_another_attempt() {
    over_one_pair(|pair| {
        let (server, _) = serve(&pair, Config::new());
        let address = server.address().clone();
        let client = pair.secured(PostClient::connect(&address)).wait().unwrap();
        let blocking = pair.blocking(&server);
        drop(server);
        let server = pair.start(pair.bind_at(&address).service(Office::default().into_post()));
        let options = || CallOptions::new().wait_for_ready(true).deadline(Duration::from_secs(9));
        let client = client.with_options(options().metadata("always", "there"));
        let blocking = PostClient::new(&blocking);
        let blocking = blocking.with_options(options().metadata("always", "there"));
        for _ in 0..2 {
            assert_is_back(&addressed!(client.echo(&false)).with_metadata().wait().metadata);
            assert_is_back(&addressed!(blocking.echo(&false)).with_metadata().wait().metadata);
        }
        drop(server);
    });
}

// ---- context ----

/// Says what context came along.
#[ringcall::service(name = "test.Back")]
trait Back {
    async fn context(&self, cx: &Context) -> Vec<String>;
}

struct Listener;

fn described<B: IntoOwned>(metadata: &Metadata<B>, priority: u8) -> Vec<String> {
    let text = |text: Option<&str>| text.unwrap_or("none").to_owned();
    vec![
        metadata.trace().map_or_else(|| "none".to_owned(), |trace| trace.to_string()),
        text(metadata.trace_state()),
        text(metadata.baggage()),
        text(metadata.group()),
        text(metadata.caller()),
        priority.to_string(),
        metadata.len().to_string(),
    ]
}

impl Back for Listener {
    async fn context(&self, cx: &Context) -> Vec<String> {
        described(cx.metadata(), cx.info().priority)
    }
}

/// Asks somebody behind it, in every way that a handler can.
#[ringcall::service(name = "test.Front")]
trait Front {
    async fn local(&self, cx: &Context) -> Vec<String>;
    #[method(offload)]
    async fn offloaded(&self, cx: &Context) -> Vec<String>;
    async fn peer(&self, cx: &Context) -> Vec<String>;
}

#[ringcall::service(send, name = "test.SendFront")]
trait SendFront {
    async fn send(&self, cx: &SendContext) -> Vec<String>;
}

#[derive(Clone)]
struct Forward(Client);

impl Front for Forward {
    async fn local(&self, cx: &Context) -> Vec<String> {
        BackClient::new(cx.client(&self.0)).context().await.unwrap().to_owned()
    }

    async fn offloaded(&self, cx: &Context) -> Vec<String> {
        let own = BackClient::new(cx.client(&self.0));
        own.context().baggage("own=1").priority(9).metadata("own", "1").await.unwrap().to_owned()
    }

    async fn peer(&self, cx: &Context) -> Vec<String> {
        let peer = cx.client(&cx.local_peer());
        BackClient::new(&peer).context().await.unwrap().to_owned()
    }
}

impl SendFront for Forward {
    async fn send(&self, cx: &SendContext) -> Vec<String> {
        cx.reply_metadata("sent", "from anywhere");
        BackClient::new(cx.client(&self.0)).context().await.unwrap().to_owned()
    }
}

#[test]
fn context_flows_into_the_calls_of_a_handler() {
    over_every_pair(|pair| {
        let back = pair.start(pair.bind().service(Listener.into_back()));
        let behind = pair.secured(Client::connect(back.address())).wait().unwrap();
        let front = Forward(behind);
        let server = pair.bind().service(front.clone().into_front());
        let server = pair.start(server.service(front.into_send_front()));
        let connect = pair.secured(FrontClient::connect(server.address()));
        let client = connect.service(Listener.into_back()).wait().unwrap();
        let trace: TraceContext =
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".parse().unwrap();
        let options = CallOptions::new()
            .trace(&trace)
            .baggage("user=7")
            .group("blue")
            .caller("front.door")
            .metadata("stays", "here")
            .priority(3);
        let with_context = client.clone().with_options(options.clone());
        let sender = SendFrontClient::new(client.channel().clone()).with_options(options);
        let mut spans = Vec::new();
        for (baggage, priority, entries, got) in [
            ("user=7", "3", "0", with_context.local().wait().unwrap().to_owned()),
            ("own=1", "9", "1", with_context.offloaded().wait().unwrap().to_owned()),
            ("user=7", "3", "0", with_context.peer().wait().unwrap().to_owned()),
            ("user=7", "3", "0", sender.send().wait().unwrap().to_owned()),
        ] {
            let child: TraceContext = got[0].parse().expect("a trace");
            assert_eq!(child.trace_id(), trace.trace_id());
            assert!(child.is_sampled());
            spans.push(child.span_id());
            assert_eq!(got[1..], ["none", baggage, "blue", "front.door", priority, entries]);
        }
        spans.push(trace.span_id());
        spans.sort();
        spans.dedup();
        assert_eq!(spans.len(), 5, "each call has a span of its own");
        // Without context there is none.
        let none = ["none", "none", "none", "none", "none", "0", "0"];
        assert_eq!(client.local().wait().unwrap().to_owned(), none);
        let reply = sender.send().with_metadata().wait();
        assert_eq!(reply.metadata.text("sent"), Some("from anywhere"));
        assert!(reply.result.is_ok());
    });
}

#[allow(dead_code, reason = "that metadata may go where its thread may")]
fn what_is_shared_is_send(metadata: Metadata<SharedBody>, peer: Peer, blocking: BlockingClient) {
    fn send<T: Send>(_: T) {}
    send((metadata, peer));
    drop(blocking);
}

#[test]
fn headers_of_others_can_be_passed_on() {
    over_every_pair(|pair| {
        let server = pair.start(pair.bind().service(Office::default().into_post()));
        let client = pair.secured(Client::connect(server.address())).wait().unwrap();
        let post =
            PostClient::new(client).with_options(CallOptions::new().metadata("X-Always", "a"));
        let call = post.echo(&false).metadata("X-Tenant", "acme");
        let reply = call.try_metadata("Content-Type", "text").unwrap().with_metadata().wait();
        let keys: Vec<&str> = reply.metadata.iter().map(|(key, _)| key).collect();
        assert_eq!(keys, ["x-always", "x-tenant", "content-type"]);
        assert_eq!(reply.metadata.text("X-Tenant"), Some("acme"));
        let bad = post.echo(&false).try_metadata(":authority", "x").map(drop).unwrap_err();
        assert!(bad.to_string().contains("\":authority\" cannot be a key"), "{bad}");
        let options = CallOptions::new().try_metadata("sp ace", "x").map(drop);
        assert!(options.is_err());
        let panic = std::panic::catch_unwind(|| CallOptions::new().metadata("sp ace", "x"));
        let panic = panic.map(drop).unwrap_err();
        let text = panic.downcast_ref::<String>().expect("a text");
        assert!(text.contains("\"sp ace\" cannot be a key"), "{text}");
    });
}
