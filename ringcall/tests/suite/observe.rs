//! Observers are told of every connection and every call, from its beginning to its end, once.

use std::collections::HashMap;
use std::io::Write;
use std::pin::pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::task::{Context as TaskContext, Waker};
use std::time::Duration;

use crate::common::{
    Cook, Kitchen, KitchenClient, PATIENT, Pair, Rejected, SOON, Socket, block, eventually, order,
    over_every_engine, over_every_pair, over_one_pair, raw,
};
use ringcall::observe::{Call, CallEnd, Class, End, Event, Observer, Role};
use ringcall::{
    BlockOn, Body, Bytes, Cause, Channel, Counters, DrainStep, IntoOwned, Items, RunningServer,
    ShardConfig, Status, Stream, StreamChannel, View,
};

/// A service that no server has.
#[ringcall::service(name = "test.Nowhere")]
trait Nowhere {
    async fn nothing(&self);
}

#[ringcall::service(name = "test.Flow")]
trait Flow {
    async fn count(&self, to: u64) -> Result<impl Stream<Item = u64>, Rejected>;
    async fn sum(&self, numbers: Items<View<u64>>) -> u64;
    /// Does not answer.
    async fn hold(&self, body: Body) -> Bytes;
}

#[derive(Clone)]
struct Source;

impl Flow for Source {
    async fn hold(&self, _: Body) -> Bytes {
        std::future::pending().await
    }

    async fn count(&self, to: u64) -> Result<impl Stream<Item = u64>, Rejected> {
        match to {
            13 => Err(Rejected::TooLarge(13)),
            to => Ok(Numbers(0..to)),
        }
    }

    async fn sum(&self, mut numbers: Items<View<u64>>) -> u64 {
        let mut sum = 0;
        while let Some(number) = numbers.next().await {
            sum += number.to_native();
        }
        sum
    }
}

struct Numbers(std::ops::Range<u64>);

impl Stream for Numbers {
    type Item = u64;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut TaskContext<'_>,
    ) -> std::task::Poll<Option<u64>> {
        std::task::Poll::Ready(self.0.next())
    }
}

/// What happened to calls of a method, as one side was told.
#[derive(Clone, Debug, Default)]
struct Told {
    begun: usize,
    repeated: usize,
    ends: Vec<CallEnd>,
}

#[derive(Default)]
struct Diary {
    calls: Mutex<HashMap<(Role, &'static str), Told>>,
    connections: Mutex<Vec<(&'static str, u64)>>,
    steps: Mutex<Vec<DrainStep>>,
    counted: Mutex<Option<Counters>>,
}

impl Diary {
    fn change(&self, call: &Call<'_>, change: impl FnOnce(&mut Told)) {
        let name = call.method_name().expect("the tests know all of their methods");
        change(self.calls.lock().unwrap().entry((call.role, name)).or_default());
    }

    fn told(&self, role: Role, name: &'static str) -> Told {
        self.calls.lock().unwrap().get(&(role, name)).cloned().unwrap_or_default()
    }

    /// Waits until everything that begun has ended, and checks that it did so once.
    fn settle(&self) {
        for _ in 0..30_000 {
            if self.calls.lock().unwrap().values().all(|told| told.begun == told.ends.len()) {
                return;
            }
            block(Duration::from_millis(1));
        }
        panic!("some calls do not end once: {:#?}", self.calls.lock().unwrap());
    }

    fn of_connections(&self) -> Vec<&'static str> {
        self.connections.lock().unwrap().iter().map(|(what, _)| *what).collect()
    }

    fn ends(&self, role: Role, name: &'static str) -> Vec<End> {
        self.told(role, name).ends.iter().map(|end| end.end).collect()
    }
}

impl Observer for Diary {
    fn observe(&self, event: &Event<'_>) {
        match event {
            Event::CallBegun(call) => self.change(call, |told| told.begun += 1),
            Event::CallRepeated(call) => self.change(call, |told| told.repeated += 1),
            Event::CallEnded(call, end) => self.change(call, |told| told.ends.push(*end)),
            Event::ConnectionOpened(it) => {
                self.connections.lock().unwrap().push(("opened", it.number));
            }
            Event::ConnectionEstablished(it) => {
                self.connections.lock().unwrap().push(("established", it.number));
            }
            Event::ConnectionClosed(it, _) => {
                self.connections.lock().unwrap().push(("closed", it.number));
            }
            Event::Draining(step) => self.steps.lock().unwrap().push(*step),
            Event::Counted(counters) => *self.counted.lock().unwrap() = Some(**counters),
            _ => {}
        }
    }
}

fn serve(pair: Pair, diary: &Arc<Diary>) -> RunningServer {
    let cook = Cook::default();
    pair.start(
        pair.bind()
            .service(cook.into_kitchen())
            .service(Source.into_flow())
            .drain_timeout(Duration::from_millis(50))
            .observer(diary.clone()),
    )
}

/// Calls that end in every way, made by any kind of client; then what both sides were told.
fn call_in_every_way<C>(channel: &C, caller: &Diary, server: &Diary)
where
    C: Channel<Body: IntoOwned> + StreamChannel<Call: BlockOn> + BlockOn + Clone,
{
    let kitchen = KitchenClient::new(channel.clone()).with_options(PATIENT);
    let nowhere = NowhereClient::new(channel.clone());
    for id in 0..3 {
        kitchen.cook(&order(id)).wait().expect("cooked");
    }
    let mut bad = order(1);
    bad.symbol = "NONE".into();
    assert!(kitchen.cook(&bad).wait().is_err());
    assert!(kitchen.panic(&"as asked".into()).wait().is_err());
    assert!(kitchen.panic_later().wait().is_err());
    assert!(nowhere.nothing().wait().is_err());
    kitchen.toss(&1).wait().expect("sent");
    assert!(kitchen.chop(&1).wait().expect("chopped").to_native_bool());
    kitchen.deliver(&1).wait().expect("delivered");
    assert!(kitchen.forget().wait().is_err());
    assert!(kitchen.simmer(&10_000).deadline(SOON).wait().is_err());
    // One that its caller gives up.
    channel.block_on(async {
        let mut call = pin!(kitchen.simmer(&10_001).into_future());
        let _ = call.as_mut().poll(&mut TaskContext::from_waker(Waker::noop()));
        // Something after it has been answered, so it has begun.
        kitchen.nothing().await.expect("nothing happens");
    });
    // A shard of this thread says that it gives up when it is turned.
    kitchen.nothing().wait().expect("nothing happens");
    caller.settle();
    server.settle();
    check_caller(caller);
    check_server(server);
}

trait NativeBool {
    fn to_native_bool(&self) -> bool;
}

impl<B: ringcall::__private::codec::__private::Frozen> NativeBool for View<bool, B> {
    fn to_native_bool(&self) -> bool {
        **self
    }
}

fn classes(ends: &[End]) -> Vec<Class> {
    ends.iter().map(End::class).collect()
}

fn check_caller(diary: &Diary) {
    let ends = |name| diary.ends(Role::Caller, name);
    assert_eq!(
        classes(&ends("test.Kitchen/cook")),
        [Class::Ok, Class::Ok, Class::Ok, Class::Application]
    );
    assert_eq!(ends("test.Kitchen/panic")[0].status(), Some(Status::INTERNAL));
    assert_eq!(ends("test.Nowhere/nothing")[0].status(), Some(Status::UNKNOWN_METHOD));
    assert_eq!(ends("test.Kitchen/toss"), [End::Sent]);
    assert_eq!(classes(&ends("test.Kitchen/forget")), [Class::Unknown]);
    let simmered = ends("test.Kitchen/simmer");
    assert!(simmered[0].is_expired() && !simmered[1].is_expired(), "{simmered:?}");
    assert!(matches!(simmered[1], End::Failed(failure) if failure.cause == Cause::Cancelled));
    let cooked = diary.told(Role::Caller, "test.Kitchen/cook").ends;
    assert!(cooked.iter().all(|end| end.request_bytes > 16 && end.reply_bytes > 0), "{cooked:?}");
    assert!(cooked.iter().all(|end| end.took >= end.queued + end.handled), "{cooked:?}");
}

fn check_server(diary: &Diary) {
    let ends = |name| diary.ends(Role::Server, name);
    assert_eq!(
        classes(&ends("test.Kitchen/cook")),
        [Class::Ok, Class::Ok, Class::Ok, Class::Application]
    );
    assert_eq!(ends("test.Kitchen/panic"), [End::Answered(Status::INTERNAL)]);
    assert_eq!(ends("test.Kitchen/panic_later"), [End::Answered(Status::INTERNAL)]);
    assert_eq!(ends("test.Nowhere/nothing"), [End::Answered(Status::UNKNOWN_METHOD)]);
    assert_eq!(ends("test.Kitchen/toss"), [End::Answered(Status::OK)]);
    assert_eq!(classes(&ends("test.Kitchen/chop")), [Class::Ok]);
    assert_eq!(ends("test.Kitchen/forget"), [End::Answered(Status::INTERNAL)]);
    let simmered = ends("test.Kitchen/simmer");
    assert!(simmered[0].is_expired(), "{simmered:?}");
    assert_eq!(simmered[1], End::Answered(Status::CANCELLED_RUNNING));
    let cooked = diary.told(Role::Server, "test.Kitchen/cook").ends;
    assert!(cooked.iter().all(|end| end.request_bytes > 16 && end.reply_bytes > 0), "{cooked:?}");
}

#[test]
fn each_call_of_a_client_begins_and_ends_once() {
    over_every_pair(|pair| {
        let (server_diary, caller_diary) = <(Arc<Diary>, Arc<Diary>)>::default();
        let server = serve(pair, &server_diary);
        let client = pair
            .secured(ringcall::Client::connect(server.address()))
            .observer(caller_diary.clone());
        let client = client.wait().expect("the server accepts");
        call_in_every_way(&client, &caller_diary, &server_diary);
    });
}

#[test]
fn each_call_on_a_shard_begins_and_ends_once() {
    over_every_pair(|pair| {
        let (server_diary, caller_diary) = <(Arc<Diary>, Arc<Diary>)>::default();
        let server = serve(pair, &server_diary);
        let mut config = ShardConfig::default();
        config.observers.add(caller_diary.clone());
        let client = pair.blocking_with(&server, config);
        call_in_every_way(&&client, &caller_diary, &server_diary);
    });
}

#[test]
fn calls_with_streams_and_callbacks_end_once() {
    over_every_pair(|pair| {
        let (server_diary, caller_diary) = <(Arc<Diary>, Arc<Diary>)>::default();
        let server = serve(pair, &server_diary);
        let client = pair.secured(FlowClient::connect(server.address()));
        let flow = client.observer(caller_diary.clone()).wait().expect("the server accepts");
        let mut numbers = flow.count(&3).wait().expect("it begins");
        while let Some(number) = numbers.next_wait() {
            number.expect("a number");
        }
        drop(numbers);
        // One that ends with an error, and one that is given up.
        if let Ok(mut numbers) = flow.count(&13).wait() {
            assert!(numbers.next_wait().expect("its end").is_err());
        }
        drop(flow.count(&u64::MAX).wait().expect("it begins"));
        let mut upload = flow.sum().wait().expect("it begins");
        upload.send_wait(&1).expect("sent");
        assert_eq!(upload.finish_wait().expect("a sum").to_native(), 1);
        let kitchen = KitchenClient::new(flow.channel().clone());
        let (told, tells) = std::sync::mpsc::channel();
        kitchen.nothing().callback(move |end| told.send(end.is_ok()).unwrap());
        assert!(tells.recv().unwrap());
        caller_diary.settle();
        server_diary.settle();
        for (diary, role) in [(&caller_diary, Role::Caller), (&server_diary, Role::Server)] {
            let counts = classes(&diary.ends(role, "test.Flow/count"));
            assert_eq!(counts, [Class::Ok, Class::Application, Class::Unknown], "{role:?}");
            assert_eq!(classes(&diary.ends(role, "test.Flow/sum")), [Class::Ok]);
            assert_eq!(classes(&diary.ends(role, "test.Kitchen/nothing")), [Class::Ok]);
        }
    });
}

/// Both ways of losing a connection: a caller that vanishes, and a server that does.
#[test]
fn calls_end_once_with_a_lost_connection() {
    over_every_engine(|pair| {
        if pair.socket == Socket::Unix {
            // Its ends cannot be reset.
            return;
        }
        let diary = Arc::<Diary>::default();
        let server = pair.start(pair.bind().service(Source.into_flow()).observer(diary.clone()));
        let mut wire = raw::dial_open(server.address());
        wire.write_all(&raw::request(0, "test.Flow/hold", b"")).unwrap();
        eventually("the call has begun", || diary.told(Role::Server, "test.Flow/hold").begun == 1);
        raw::reset(wire);
        diary.settle();
        let ends = diary.ends(Role::Server, "test.Flow/hold");
        assert!(is_lost(&ends), "{ends:?}");
        assert_eq!(diary.of_connections(), ["opened", "established", "closed"]);

        let diary = Arc::<Diary>::default();
        let listening = raw::Listening::new(pair.socket);
        let address = listening.address.clone();
        let vanishing = std::thread::spawn(move || {
            let mut wire = listening.accept();
            raw::read_opening(&mut wire).expect("a HELLO");
            wire.write_all(&raw::opening()).unwrap();
            raw::read_frame(&mut wire).expect("a request");
            raw::reset(wire);
        });
        let client = pair.secured(FlowClient::connect(&address));
        let flow = client.observer(diary.clone()).wait().expect("it says HELLO");
        assert!(flow.hold(&Bytes::new()).deadline(Duration::from_secs(9)).wait().is_err());
        vanishing.join().unwrap();
        diary.settle();
        let ends = diary.ends(Role::Caller, "test.Flow/hold");
        assert!(is_lost(&ends), "{ends:?}");
        eventually("the connection is over", || {
            diary.of_connections().starts_with(&["opened", "established", "closed"])
        });
    });
}

fn is_lost(ends: &[End]) -> bool {
    matches!(ends, [End::Failed(failure)] if matches!(failure.cause, Cause::Closed(_)))
}

#[test]
fn a_drain_tells_its_steps_and_what_was_counted() {
    over_one_pair(|pair| {
        let diary = Arc::<Diary>::default();
        let server = serve(pair, &diary);
        let kitchen = pair.kitchen(&server);
        kitchen.nothing().wait().expect("nothing happens");
        drop(kitchen);
        let counted = server.stop();
        let steps = diary.steps.lock().unwrap().clone();
        assert_eq!(steps.first(), Some(&DrainStep::Announced), "{steps:?}");
        assert_eq!(steps.last(), Some(&DrainStep::Closed), "{steps:?}");
        assert_eq!(steps.iter().filter(|step| **step == DrainStep::Closed).count(), 1);
        let told = diary.counted.lock().unwrap().expect("the shard has ended");
        assert_eq!(told.requests_answered, counted.requests_answered);
    });
}

#[test]
fn an_observer_that_panics_harms_nobody() {
    struct Clumsy;
    impl Observer for Clumsy {
        fn observe(&self, _: &Event<'_>) {
            panic!("as asked");
        }
    }
    over_one_pair(|pair| {
        let server = pair.bind().service(Cook::default().into_kitchen());
        let server = pair.start(server.observer(Arc::new(Clumsy)));
        let kitchen = pair.kitchen(&server);
        kitchen.cook(&order(1)).wait().expect("cooked");
    });
}
