//! What is written to the log: that calls were slow, and never what they carried. A file of its own, since a
//! process has one log.

#[path = "suite/common/mod.rs"]
mod common;

use std::sync::Mutex;
use std::sync::{Arc, LazyLock, Once};
use std::task::Waker;
use std::time::Duration;

use common::{Cook, Kitchen, KitchenClient, eventually, order, over_one_pair};
use log::{Level, LevelFilter, Log, Metadata, Record};
use ringcall::observe::SlowCalls;
use ringcall::{
    Bytes, Codec, Context, Items, Responder, SlowConsumer, Status, Stream, Topic, UntypedCall, View,
};

/// Everything that was logged, by target.
#[derive(Default)]
struct Book(Mutex<Vec<(String, String)>>);

static BOOK: LazyLock<Book> = LazyLock::new(Book::default);

struct Logger;

impl Log for Logger {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        let line = (record.target().to_owned(), record.args().to_string());
        BOOK.0.lock().unwrap().push(line);
    }

    fn flush(&self) {}
}

fn lines(target: &str) -> Vec<String> {
    let book = BOOK.0.lock().unwrap();
    book.iter().filter(|(of, _)| of == target).map(|(_, line)| line.clone()).collect()
}

/// Wants something of a runtime in which its thread is not.
#[ringcall::service]
trait Lost {
    async fn here(&self);
    async fn later(&self, cx: &Context);
    async fn stream(&self) -> impl Stream<Item = u64>;
    #[method(offload)]
    async fn elsewhere(&self);
    fn answer(&self, responder: Responder<()>);
    async fn task(&self, cx: &Context);
}

#[derive(Clone)]
struct Traveller;

impl Lost for Traveller {
    async fn here(&self) {
        tokio::spawn(async {});
    }

    async fn later(&self, cx: &Context) {
        cx.sleep(Duration::from_millis(1)).await;
        tokio::spawn(async {});
    }

    async fn stream(&self) -> impl Stream<Item = u64> {
        tokio::spawn(async {});
        Topic::new(1, SlowConsumer::Wait).subscribe()
    }

    async fn elsewhere(&self) {
        tokio::spawn(async {});
    }

    fn answer(&self, _: Responder<()>) {
        tokio::spawn(async {});
    }

    async fn task(&self, cx: &Context) {
        cx.spawn(async { drop(tokio::spawn(async {})) });
    }
}

/// The log says what to do about it; each way to run a handler has lines of its own.
fn a_handler_without_a_runtime_is_told_of_one(pair: common::Pair) {
    let server = pair.start(pair.bind().service(Traveller.into_lost()));
    let lost = pair.secured(LostClient::connect(server.address())).wait().expect("it accepts");
    let lost = lost.with_options(common::PATIENT);
    assert!(lost.here().wait().is_err() && lost.later().wait().is_err());
    assert!(lost.elsewhere().wait().is_err() && lost.answer().wait().is_err());
    assert!(lost.stream().wait().is_err());
    lost.task().wait().expect("its task fails alone");
    server.drain();
    let hints = |target| {
        let lines = lines(target).into_iter();
        lines.filter(|line| line.contains("panicked") && line.contains("Server::tokio")).count()
    };
    eventually("all are told", || hints("ringcall::serve::handler") == 5);
    eventually("tasks as well", || hints("ringcall::shard::executor") == 1);
}

const SECRET: &str = "correct-horse-battery-staple";

/// From now on there is a log.
fn listen() {
    static LOGGER: Logger = Logger;
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        log::set_logger(&LOGGER).unwrap();
        log::set_max_level(LevelFilter::Trace);
    });
}

#[ringcall::service(name = "test.Broken")]
trait Broken {
    async fn here(&self) -> Result<(), ringcall::HandlerError>;
    #[method(offload)]
    async fn there(&self) -> Result<(), ringcall::HandlerError>;
}

struct Disk;

impl Broken for Disk {
    async fn here(&self) -> Result<(), ringcall::HandlerError> {
        Err(ringcall::HandlerError::internal("the disk is broken"))
    }

    async fn there(&self) -> Result<(), ringcall::HandlerError> {
        self.here().await
    }
}

#[ringcall::message]
struct Seen {
    #[rkyv(with = ringcall::__private::codec::UnixTime)]
    at: std::time::SystemTime,
}

#[ringcall::service(name = "test.Diary")]
trait Diary {
    async fn note(&self, seen: Seen);
}

struct Empty;

impl Diary for Empty {
    async fn note(&self, _: Seen) {}
}

#[test]
fn why_a_message_could_not_be_encoded_is_logged_once() {
    listen();
    let server = ringcall::Server::bind("127.0.0.1:0").service(Empty.into_diary()).start().unwrap();
    let client = DiaryClient::connect(server.address()).wait().unwrap();
    let seen = Seen { at: std::time::UNIX_EPOCH - Duration::from_secs(1) };
    for _ in 0..3 {
        let error = client.note(&seen).wait().expect_err("it cannot be sent");
        assert_eq!(error.failure().unwrap().cause, ringcall::Cause::Encode);
        assert!(error.to_string().contains("the log says why"), "{error}");
    }
    let all = lines("ringcall_codec_rkyv::unencodable");
    let said: Vec<_> = all.iter().filter(|line| line.contains("Seen")).collect();
    assert_eq!(said.len(), 1, "{all:?}");
    assert!(said[0].contains("before 1970"), "{said:?}");
}

#[test]
fn why_a_handler_failed_is_in_its_log_once_a_second() {
    listen();
    for is_offloaded in [false, true] {
        let server = ringcall::Server::bind("127.0.0.1:0").service(Disk.into_broken());
        let server = server.shards(1).start().unwrap();
        let client = BrokenClient::connect(server.address()).wait().unwrap();
        for _ in 0..5 {
            let ended = if is_offloaded { client.there().wait() } else { client.here().wait() };
            let text = ended.expect_err("it fails").to_string();
            assert!(!text.contains("disk"), "{text}");
        }
        server.stop();
        let name = if is_offloaded { "there" } else { "here" };
        let begin = format!("the handler of {name} failed, 127.0.0.1:");
        let said = || {
            let all = lines("ringcall::serve::handler");
            all.into_iter().filter(|line| line.starts_with(&begin)).collect::<Vec<_>>()
        };
        eventually("it is logged", || !said().is_empty());
        let said = said();
        assert_eq!(said.len(), 1, "{said:?}");
        assert!(said[0].ends_with(" gets INTERNAL: the disk is broken"), "{said:?}");
    }
}

#[ringcall::message]
enum Side {
    Buy,
    Sell,
}

#[ringcall::message]
struct Fill {
    price: f64,
    side: Side,
}

#[ringcall::service(name = "test.Fills")]
trait Fills {
    async fn here(&self, fill: Fill);
    #[method(offload)]
    async fn there(&self, fill: Fill);
    fn answered(&self, fill: Fill, responder: Responder<()>);
    #[method(offload)]
    fn answered_there(&self, fill: Fill, responder: Responder<()>);
    async fn counted(&self, more: Items<Fill>) -> u64;
    async fn raw(&self, fill: View<Fill>);
    async fn viewed(&self, fill: View<Fill>);
    async fn quietly(&self, fill: Fill);
}

#[derive(Clone)]
struct Desk;

impl Fills for Desk {
    async fn here(&self, _: Fill) {}
    async fn there(&self, _: Fill) {}
    fn answered(&self, _: Fill, responder: Responder<()>) {
        responder.send(Ok(()));
    }
    fn answered_there(&self, _: Fill, responder: Responder<()>) {
        responder.send(Ok(()));
    }
    async fn counted(&self, mut more: Items<Fill>) -> u64 {
        let mut count = 0;
        while more.next().await.is_some() {
            count += 1;
        }
        count
    }
    async fn raw(&self, _: View<Fill>) {}
    async fn viewed(&self, _: View<Fill>) {}
    async fn quietly(&self, _: Fill) {}
}

/// The same, for an executor.
#[ringcall::service(name = "test.Away", send)]
trait Away {
    async fn run(&self, fill: Fill);
    fn answered(&self, fill: Fill, responder: Responder<()>);
}

impl Away for Desk {
    async fn run(&self, _: Fill) {}
    fn answered(&self, _: Fill, responder: Responder<()>) {
        responder.send(Ok(()));
    }
}

/// `{ "side": "Buy" }`
const WITHOUT_PRICE: &[u8] = b"\x81\xa4side\xa3Buy";
/// `{ "price": 0.0, "side": "Evil\u{1b}[2J" }`
const NO_SIDE: &[u8] = b"\x82\xa5price\xcb\0\0\0\0\0\0\0\0\xa4side\xa8Evil\x1b[2J";
/// `{ "price": "Evil", "side": "Buy" }`
const NO_NUMBER: &[u8] = b"\x82\xa5price\xa4Evil\xa4side\xa3Buy";

fn fills() -> (ringcall::RunningServer, ringcall::Client) {
    let server = ringcall::Server::bind("127.0.0.1:0").service(Desk.into_fills());
    // Nothing of what is called here waits.
    let server = server.service_spawned(Desk.into_away(), |mut call| {
        let _ready = call.as_mut().poll(&mut std::task::Context::from_waker(Waker::noop()));
    });
    let server = server.shards(1).start().unwrap();
    let client = ringcall::Client::connect(server.address()).wait().unwrap();
    (server, client)
}

fn refuse(client: &ringcall::Client, method: &str, codec: Codec, body: &'static [u8]) {
    let call = UntypedCall::new(client, method, codec, body).unwrap();
    let ended = call.deadline(Duration::from_secs(10)).wait().result;
    let status = ended.map(|_| None).unwrap_or_else(|error| error.failure().unwrap().status());
    assert_eq!(status, Some(Status::BAD_BODY), "{method}");
}

/// What was said of these calls.
fn unread(begin: &str) -> Vec<String> {
    lines("ringcall::unread").into_iter().filter(|line| line.starts_with(begin)).collect()
}

#[test]
fn why_an_argument_was_refused_is_in_the_servers_log_once_a_second() {
    listen();
    let fills_of = ["here", "there", "answered", "answered_there", "viewed"];
    let names = fills_of.map(|method| format!("test.Fills/{method}"));
    let away = ["run", "answered"].map(|method| format!("test.Away/{method}"));
    for name in names.into_iter().chain(away) {
        let (_server, client) = fills();
        for _ in 0..5 {
            refuse(&client, &name, Codec::MESSAGEPACK, WITHOUT_PRICE);
        }
        let begin = format!("the argument of a call of {name} from 127.0.0.1:");
        eventually("it is logged", || !unread(&begin).is_empty());
        let said = unread(&begin);
        assert_eq!(said.len(), 1, "{said:?}");
        let reason = " was refused: MessagePack: missing field `price`";
        assert!(said[0].ends_with(reason), "{said:?}");
    }
}

#[test]
fn h09_why_an_argument_was_refused_says_nothing_of_what_is_in_it() {
    listen();
    let reasons = [
        (NO_SIDE, "MessagePack: a variant that is not known, expected `Buy` or `Sell`"),
        (NO_NUMBER, "MessagePack: a value of another type"),
        (b"\x82\xa5price", "MessagePack: it is no MessagePack of the type"),
    ];
    for (count, (body, reason)) in reasons.into_iter().enumerate() {
        let (_server, client) = fills();
        refuse(&client, "test.Fills/quietly", Codec::MESSAGEPACK, body);
        let said = || unread("the argument of a call of test.Fills/quietly from 127.0.0.1:");
        eventually("it is logged", || said().len() > count);
        assert!(said()[count].ends_with(reason), "{:?}", said());
    }
    for (target, line) in BOOK.0.lock().unwrap().iter() {
        assert!(!line.contains("Evil") && !line.contains('\u{1b}'), "{target}: {line}");
    }
}

/// The same service as another build has it.
mod other {
    use ringcall::Items;

    #[ringcall::message]
    pub(crate) struct Fill {
        pub(crate) amount: f64,
    }

    #[ringcall::service(name = "test.Fills")]
    pub(crate) trait Fills {
        async fn counted(&self, more: Items<Fill>) -> u64;
    }
}

#[test]
fn why_an_item_was_refused_is_in_the_servers_log() {
    listen();
    let (_server, client) = fills();
    let fills = other::FillsClient::new(client).with_options(common::PATIENT);
    let mut upload = fills.counted().wait().unwrap();
    let _sent = upload.send_wait(&other::Fill { amount: 1.0 });
    let ended = upload.finish_wait().unwrap_err();
    assert_eq!(ended.failure().unwrap().status(), Some(Status::BAD_ITEM));
    let said = || unread("an item of a call of test.Fills/counted from 127.0.0.1:");
    eventually("it is logged", || !said().is_empty());
    assert!(
        said()[0].ends_with(" was refused: MessagePack: missing field `price`"),
        "{:?}",
        said()
    );
}

/// A call whose argument says that it is in the method's own layout.
fn archive(method: &ringcall::MethodTable, body: &[u8]) -> Vec<u8> {
    let header = ringcall_core::frame::RequestHeader {
        method: method.id(),
        in_signature: method.signatures().in_signature,
        out_signature: method.signatures().out_signature,
        deadline_us: 10_000_000,
        codec: Codec::RKYV,
        compression: 0,
        priority: 0,
        attempt: 0,
    };
    let kind = ringcall_core::frame::Kind::Request;
    common::raw::frame(kind, 0, common::raw::id(1), &header.encode(), body)
}

#[test]
fn archives_that_are_none_are_told_as_well() {
    listen();
    let (server, _client) = fills();
    // With the signature of its type, as somebody who means it sends it.
    let method = FillsClient::service_table().methods().iter().find(|it| it.name() == "raw");
    let mut wire = common::raw::dial_open(server.address());
    let bad = archive(method.unwrap(), b"no archive of anything");
    std::io::Write::write_all(&mut wire, &bad).unwrap();
    common::raw::read_reply(&mut wire).expect("a refusal");
    let said = || unread("the argument of a call of test.Fills/raw from 127.0.0.1:");
    eventually("it is logged", || !said().is_empty());
    assert!(
        said()[0].ends_with(" was refused: it is no valid archive of the type"),
        "{:?}",
        said()
    );
}

#[test]
fn h09_what_calls_carry_is_never_logged() {
    listen();
    log::log!(Level::Info, "the log is read");
    assert!(!lines("logs").is_empty());
    over_one_pair(|pair| {
        // Bytes of ours come by the same server.
        let pair = common::Pair { is_secured: false, ..pair };
        let slow = Arc::new(SlowCalls::longer_than(Duration::ZERO));
        let server = pair.bind().service(Cook::default().into_kitchen()).observer(slow);
        let server = pair.start(server);
        let client = ringcall::Client::connect(server.address()).transport(pair.client);
        let slow = Arc::new(SlowCalls::longer_than(Duration::from_millis(1)));
        let kitchen = KitchenClient::new(client.observer(slow).wait().expect("it accepts"));
        let mut secret = order(3);
        secret.symbol = SECRET.into();
        secret.note = Some(SECRET.into());
        kitchen.cook(&secret).wait().expect("cooked");
        secret.levels = (0..9).map(|_| common::Level { price: 1.0, size: 1000 }).collect();
        assert!(kitchen.taste(&secret).wait().is_err());
        kitchen.raw(&Bytes::from(SECRET.repeat(2000))).wait().expect("an echo");
        // Its own panic hook prints what it says; the log does not.
        assert!(kitchen.panic(&SECRET.to_owned()).wait().is_err());
        kitchen.simmer(&20).wait().expect("simmered");
        // A body that is damaged: it is not an order.
        let mut wire = common::raw::dial_open(server.address());
        let bad = common::raw::request(1, "test.Kitchen/cook", SECRET.as_bytes());
        std::io::Write::write_all(&mut wire, &bad).unwrap();
        common::raw::read_reply(&mut wire).expect("a refusal");
        // What is no ringcall at all.
        let mut wire = common::raw::dial(server.address());
        std::io::Write::write_all(&mut wire, SECRET.as_bytes()).unwrap();
        common::raw::read_rest(&mut wire);
        eventually("slow calls are logged", || lines("ringcall::slow").len() >= 2);
        drop((kitchen, server));
        let book = BOOK.0.lock().unwrap();
        assert!(
            !book.iter().any(|(_, line)| line.contains("Server::tokio")),
            "for no other reason"
        );
        drop(book);
        a_handler_without_a_runtime_is_told_of_one(pair);
    });
    for (target, line) in BOOK.0.lock().unwrap().iter() {
        let part = &SECRET[..12];
        assert!(!line.contains(part), "{target}: {line}");
    }
    let slow = lines("ringcall::slow");
    let of_server = slow.iter().find(|line| line.starts_with("serving test.Kitchen/"));
    let line = of_server.unwrap_or_else(|| panic!("{slow:?}"));
    assert!(line.contains("queued ") && line.contains("handler "), "{line}");
    let of_caller = slow.iter().find(|line| line.starts_with("a call of test.Kitchen/"));
    let line = of_caller.unwrap_or_else(|| panic!("{slow:?}"));
    assert!(line.contains("on the way "), "{line}");
    // One line a second each, which says how many there were.
    assert!(slow.len() < 10, "{slow:?}");
}
