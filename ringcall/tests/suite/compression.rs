//! Bodies travel compressed if both sides want it, and nobody notices; what is sent in bad faith is refused for
//! its own call alone.

use std::cell::RefCell;
use std::io::Write;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::raw::{dial_open, frame, id, read_reply, request};
use crate::common::{
    Cook, Kitchen, KitchenClient, Pair, order, over_every_engine, over_every_pair,
};
use ringcall::{
    BlockOn, Body, Bytes, CallOptions, Channel, Compression, Context, IntoOwned, Items,
    MemoryLimits, Outgoing, Peer, RunningServer, Server, Shard, ShardConfig, Status, Stream,
    StreamChannel, View, method_id,
};
use ringcall_core::frame::{Kind, ReplyHeader, RequestHeader};
use ringcall_core::{Codec, Counters, EncodeError, Payload, Segment, Writer};

#[ringcall::service(name = "test.Text")]
trait Text {
    async fn echo(&self, body: Body) -> Bytes;
    async fn lines(&self, text: String) -> Result<impl Stream<Item = String>, bool>;
    async fn length(&self, lines: Items<View<String>>) -> u64;
    #[method(compress = "lz4")]
    async fn count(&self, text: View<String>) -> u64;
    /// Keeps what it is given.
    async fn keep(&self, body: Body) -> Bytes;
}

#[derive(Clone, Default)]
struct Page(Rc<RefCell<Vec<Body>>>);

struct Lines(u32, String);

impl Stream for Lines {
    type Item = String;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<String>> {
        self.0 += 1;
        std::task::Poll::Ready((self.0 <= 3).then(|| self.1.clone()))
    }
}

impl Text for Page {
    async fn echo(&self, body: Body) -> Bytes {
        body.share().into()
    }

    async fn lines(&self, text: String) -> Result<impl Stream<Item = String>, bool> {
        Ok(Lines(0, text))
    }

    async fn length(&self, mut lines: Items<View<String>>) -> u64 {
        let mut length = 0;
        while let Some(line) = lines.next().await {
            length += line.len() as u64;
        }
        length
    }

    async fn count(&self, text: View<String>) -> u64 {
        text.len() as u64
    }

    async fn keep(&self, body: Body) -> Bytes {
        self.0.borrow_mut().push(body);
        Bytes::new()
    }
}

fn config(replies: Option<Compression>) -> ShardConfig {
    let mut config = ShardConfig::default();
    config.compression.replies = replies;
    config
}

fn serve(pair: Pair, replies: Option<Compression>) -> RunningServer {
    let server = pair.bind().service(Cook::default().into_kitchen());
    let server = server.service_per_shard(|_: &Shard| Page::default().into_text());
    pair.start(server.compression(config(replies).compression))
}

fn text(len: usize) -> String {
    "a price of 42.5 for 100 pieces; ".repeat(len.div_ceil(32))
}

fn call_with<C>(channel: &C, compression: Compression)
where
    C: Channel<Body: IntoOwned> + StreamChannel<Call: BlockOn> + BlockOn + Clone,
{
    let options = CallOptions::new().compression(Some(compression));
    let kitchen = KitchenClient::new(channel.clone()).with_options(options.clone());
    let page = TextClient::new(channel.clone()).with_options(options);
    let mut large = order(7);
    large.symbol = text(50_000);
    let cooked = kitchen.cook(&large).wait().expect("cooked");
    assert_eq!((cooked.id.to_native(), cooked.symbol.as_str()), (7, &*large.symbol));
    for len in [0, 1, 1023, 1024, 20_000, 300_000] {
        let body = Bytes::from(vec![7; len]);
        assert_eq!(page.echo(&body).wait().expect("an echo").as_ref(), &*body, "{len}");
    }
    let line = text(5000);
    let mut lines = page.lines(&line).wait().expect("it begins");
    let mut count = 0;
    while let Some(next) = lines.next_wait() {
        assert_eq!(next.expect("a line").as_str(), line);
        count += 1;
    }
    assert_eq!(count, 3);
    let mut upload = page.length().wait().expect("it begins");
    for _ in 0..3 {
        upload.send_wait(&line).expect("sent");
    }
    let length = upload.finish_wait().expect("a length").to_native();
    assert_eq!(length, 3 * line.len() as u64);
}

#[test]
fn bodies_and_items_travel_compressed_both_ways() {
    over_every_pair(|pair| {
        for compression in Compression::ALL {
            let server = serve(pair, Some(compression));
            call_with(pair.kitchen(&server).channel(), compression);
            let client = pair.blocking(&server);
            call_with(&&client, compression);
            // Of 390 000 bytes of bodies either way; one item that went as it is, of 5000, would show.
            let Counters { bytes_sent, bytes_received, .. } = client.counters();
            assert!(bytes_sent.max(bytes_received) < 4500, "{bytes_sent} {bytes_received}");
        }
    });
}

#[test]
fn a_side_that_does_not_read_it_gets_what_it_reads() {
    over_every_engine(|pair| {
        let mut deaf = config(Some(Compression::Zstd));
        deaf.compression.accept = false;
        let server = pair.bind().service(Cook::default().into_kitchen());
        let server = server.service_per_shard(|_: &Shard| Page::default().into_text());
        let server = pair.start(server.compression(deaf.compression));
        call_with(pair.kitchen(&server).channel(), Compression::Lz4);
        let server = serve(pair, Some(Compression::Lz4));
        call_with(&&pair.blocking_with(&server, deaf), Compression::Zstd);
    });
}

#[test]
fn a_method_and_a_call_say_how() {
    over_every_engine(|pair| {
        let server = serve(pair, None);
        let client = pair.blocking(&server);
        let page = TextClient::new(&client);
        let body = text(10_000);
        let sent = |call: &dyn Fn() -> u64| {
            let before = client.counters().bytes_sent;
            assert_eq!(call(), body.len() as u64);
            client.counters().bytes_sent - before
        };
        let by_method = sent(&|| page.count(&body).wait().expect("a count").to_native());
        assert!(by_method < 2000, "{by_method}");
        let by_call =
            sent(&|| page.count(&body).compression(None).wait().expect("a count").to_native());
        assert!(by_call > 10_000, "{by_call}");
        let options = CallOptions::new().compression(None);
        let page = TextClient::new(&client).with_options(options);
        let by_client = sent(&|| page.count(&body).wait().expect("a count").to_native());
        assert!(by_client > 10_000, "{by_client}");
    });
}

/// A body whose rest lies elsewhere.
#[derive(Clone)]
struct TwoPieces(Vec<u8>, Bytes);

impl Payload for TwoPieces {
    fn encode(&self, _: Codec, _: u64, out: &mut Writer) -> Result<(), EncodeError> {
        out.put(&self.0)?;
        Ok(out.attach(Segment::Bytes(self.1.clone()))?)
    }
}

#[test]
fn a_body_in_two_pieces_is_compressed_as_one() {
    over_every_engine(|pair| {
        let server = serve(pair, None);
        let client = pair.blocking(&server);
        let (front, rest) = (text(3200).into_bytes(), Bytes::from(text(200_000)));
        let whole = [&front, &rest[..]].concat();
        let call = |compression: u8| Outgoing {
            name: "test.Text/echo",
            method: method_id("test.Text/echo"),
            in_signature: 0,
            out_signature: 0,
            codec: Codec::RAW,
            compression,
            timeout: Duration::from_secs(10),
            priority: 0,
            attempt: 0,
            flags: 0,
            wait_for_ready: false,
        };
        let pieces = TwoPieces(front, rest);
        let sent = |compression| {
            let before = client.counters().bytes_sent;
            let answer = client.run(client.call(call(compression), pieces.clone()));
            assert_eq!(&answer.expect("an echo").body[..], &whole[..]);
            client.counters().bytes_sent - before
        };
        assert!(sent(0) > 200_000);
        for compression in Compression::ALL {
            assert!(sent(compression.number()) < 20_000, "{compression}");
        }
        // From another thread.
        let remote = pair.secured(ringcall::Client::connect(server.address())).wait().unwrap();
        let answer = remote.block_on(remote.call(call(1), pieces.clone()));
        assert_eq!(&answer.expect("an echo").body[..], &whole[..]);
    });
}

#[ringcall::service(name = "test.Club")]
trait Club {
    async fn join(&self, body: Bytes, cx: &Context) -> Bytes;
    #[method(offload)]
    async fn join_from_afar(&self, body: Bytes, cx: &Context) -> Bytes;
}

#[derive(Clone, Default)]
struct Members(Arc<Mutex<Vec<Peer>>>);

impl Club for Members {
    async fn join(&self, body: Bytes, cx: &Context) -> Bytes {
        self.0.lock().unwrap().push(cx.peer());
        body
    }

    async fn join_from_afar(&self, body: Bytes, cx: &Context) -> Bytes {
        self.0.lock().unwrap().push(cx.peer());
        body
    }
}

#[test]
fn calls_back_from_other_threads_are_compressed() {
    over_every_engine(|pair| {
        for method in ["test.Club/join", "test.Club/join_from_afar"] {
            for reads in [0, Compression::available_bits()] {
                let members = Members::default();
                let server = pair.start(pair.bind().service(members.clone().into_club()));
                let mut wire = crate::common::raw::dial(server.address());
                wire.write_all(&crate::common::raw::opening_that_reads(reads)).unwrap();
                crate::common::raw::read_opening(&mut wire).expect("a HELLO");
                wire.write_all(&request(1, method, b"")).unwrap();
                assert_eq!(status(&mut wire), Status::OK);
                let peer = members.0.lock().unwrap().remove(0);
                let options = CallOptions::new().compression(Some(Compression::Lz4));
                let page = TextClient::new(peer).with_options(options);
                let caller = std::thread::spawn(move || {
                    let body = Bytes::from(text(10_000));
                    page.echo(&body).wait().expect("an answer").as_ref() == &*body
                });
                let made = loop {
                    let frame = crate::common::raw::read_frame(&mut wire).expect("a call");
                    if frame.kind == Kind::Request as u8 {
                        break frame;
                    }
                };
                let header = RequestHeader::parse(&made.header).expect("a header").0;
                assert_eq!(header.compression, if reads == 0 { 0 } else { 1 }, "{method}");
                assert_eq!(made.body.len() < 2000, reads != 0, "{method}");
                let mut header = ReplyHeader::new(Status::OK);
                header.codec = Codec::RAW;
                let echo = text(10_000).into_bytes();
                wire.write_all(&crate::common::raw::reply(made.id, &header, &echo)).unwrap();
                assert!(caller.join().unwrap());
                drop(wire);
                server.stop();
            }
        }
    });
}

// ---- in bad faith ----

fn packed(number: u32, method: &str, compression: u8, body: &[u8]) -> Vec<u8> {
    let header = RequestHeader {
        method: method_id(method),
        in_signature: 0,
        out_signature: 0,
        deadline_us: 10_000_000,
        codec: Codec::RAW,
        compression,
        priority: 0,
        attempt: 0,
    };
    frame(Kind::Request, 0, id(number), &header.encode(), body)
}

/// As much of one byte as is said, as LZ4: 255 bytes for each.
fn bomb(said: u64, really: usize) -> Vec<u8> {
    let mut body = said.to_le_bytes().to_vec();
    body.extend([0x1f, b'x', 1, 0]);
    body.extend(vec![255; really / 255]);
    body.extend([0, 0]);
    body
}

fn status(wire: &mut crate::common::raw::Wire) -> Status {
    let reply = read_reply(wire).expect("a reply");
    ReplyHeader::parse(&reply.header).expect("a header").0.status
}

#[test]
fn a10_a_bomb_is_refused_for_its_call_alone() {
    over_every_engine(|pair| {
        let server = serve(pair, None);
        let mut wire = dial_open(server.address());
        let gigabyte = 1u64 << 30;
        let bodies = [
            // 1 KiB that says it is 1 GiB, and 100 KiB that are 25 MiB.
            bomb(gigabyte, 1 << 18),
            bomb(25 << 20, 25 << 20),
            // Those that lie.
            bomb(4 << 20, 25 << 20),
            bomb(4 << 20, 1 << 20),
            bomb(0, 1 << 20),
            // Not even a length; nothing behind it; what is no LZ4.
            vec![1, 2, 3],
            100u64.to_le_bytes().to_vec(),
            [&100u64.to_le_bytes()[..], &[0xff; 40]].concat(),
        ];
        for (number, body) in bodies.iter().enumerate() {
            wire.write_all(&packed(number as u32, "test.Text/echo", 1, body)).unwrap();
            assert_eq!(status(&mut wire), Status::BAD_BODY, "{number}");
        }
        // An honest one, and one without, on the same connection.
        let mut honest = 5u64.to_le_bytes().to_vec();
        honest.extend([0x50, b'h', b'e', b'l', b'l', b'o']);
        wire.write_all(&packed(20, "test.Text/echo", 1, &honest)).unwrap();
        assert_eq!(read_reply(&mut wire).expect("a reply").body, b"hello");
        wire.write_all(&request(21, "test.Text/echo", b"plain")).unwrap();
        assert_eq!(read_reply(&mut wire).expect("a reply").body, b"plain");
    });
}

#[test]
fn a10_an_unknown_algorithm_is_unsupported() {
    over_every_engine(|pair| {
        let server = serve(pair, None);
        let mut wire = dial_open(server.address());
        for (number, compression) in [3, 7, 8, 255].into_iter().enumerate() {
            wire.write_all(&packed(number as u32, "test.Text/echo", compression, &[0; 32]))
                .unwrap();
            assert_eq!(status(&mut wire), Status::UNSUPPORTED, "{compression}");
        }
    });
}

#[test]
fn a10_what_a_shard_holds_inflated_has_a_budget() {
    over_every_engine(|pair| {
        let mut limits = MemoryLimits::default();
        limits.landing_bytes = 4 << 20;
        let server = pair.bind().memory(limits);
        let server: Server = server.service_per_shard(|_: &Shard| Page::default().into_text());
        let server = pair.start(server);
        let mut wire = dial_open(server.address());
        let small = bomb(1 << 20, 1 << 20);
        // Find the exact length that this becomes: a little more or less than was meant.
        let exact = (0..600).map(|more| (1 << 20) - 300 + more);
        let exact = exact.into_iter().find(|said| {
            let mut body = small.clone();
            body[..8].copy_from_slice(&u64::to_le_bytes(*said));
            let pool = ringcall_buf::Pool::new(0);
            ringcall_compression::inflate(Compression::Lz4, &body, 2 << 20, &pool).is_ok()
        });
        let mut body = small;
        body[..8].copy_from_slice(&exact.expect("it is about that long").to_le_bytes());
        // Kept bodies are never given back here, so at some point no more are taken.
        let mut statuses = Vec::new();
        for number in 0..8 {
            wire.write_all(&packed(number, "test.Text/keep", 1, &body)).unwrap();
            statuses.push(status(&mut wire));
        }
        assert_eq!(statuses[0], Status::OK);
        assert_eq!(statuses[7], Status::OVERLOADED);
        assert!(statuses.iter().all(|it| [Status::OK, Status::OVERLOADED].contains(it)));
        let taken = statuses.iter().filter(|it| **it == Status::OK).count();
        assert!(taken <= 4, "{statuses:?}");
        // Others are served all the same.
        wire.write_all(&request(20, "test.Text/echo", b"plain")).unwrap();
        assert_eq!(read_reply(&mut wire).expect("a reply").body, b"plain");
    });
}

#[test]
fn a10_a_caller_is_not_bombed_either() {
    over_every_engine(|pair| {
        let listening = crate::common::raw::Listening::new(pair.socket);
        let address = listening.address.clone();
        let server = std::thread::spawn(move || {
            let mut wire = listening.accept();
            crate::common::raw::read_opening(&mut wire).expect("a HELLO");
            wire.write_all(&crate::common::raw::opening()).unwrap();
            for body in [bomb(1 << 30, 1 << 18), bomb(4 << 20, 25 << 20), vec![1]] {
                let request = crate::common::raw::read_frame(&mut wire).expect("a request");
                let mut header = ReplyHeader::new(Status::OK);
                (header.codec, header.compression) = (Codec::RAW, 1);
                wire.write_all(&crate::common::raw::reply(request.id, &header, &body)).unwrap();
            }
            crate::common::raw::read_rest(&mut wire);
        });
        let client = pair.dial(&address).expect("it says HELLO");
        for _ in 0..3 {
            let page = TextClient::new(&client);
            let end = page.echo(&Bytes::from_static(b"x")).wait();
            let Err(error) = end else { panic!("it is answered") };
            let failure = *error.failure().expect("no answer");
            assert_eq!(failure.cause, ringcall::Cause::BadReply);
        }
        drop(client);
        server.join().unwrap();
    });
}

/// A layout of its own, and a method to be called back with it.
macro_rules! layouts {
    ($($build:ident { $($field:ident: $type:ty),* })*) => {
        $(#[allow(dead_code, reason = "one of them is served, the other one called")]
        mod $build {
            #[ringcall::message]
            pub(super) struct Story {
                $(pub(super) $field: $type,)*
            }

            #[ringcall::service(name = "test.Reader")]
            pub(super) trait Reader {
                async fn read(&self, story: ringcall::View<Story>) -> u64;
            }

            pub(super) struct Child;

            impl Reader for Child {
                async fn read(&self, story: ringcall::View<Story>) -> u64 {
                    story.text.len() as u64 + u64::from(story.age.to_native())
                }
            }
        })*
    };
}

layouts! {
    here { age: u32, text: String }
    away { text: String, age: u32 }
}

#[ringcall::service(name = "test.Door")]
trait Door {
    async fn open(&self, cx: &Context);
}

#[derive(Clone, Default)]
struct Hall(Arc<Mutex<Option<Peer>>>);

impl Door for Hall {
    async fn open(&self, cx: &Context) {
        *self.0.lock().unwrap() = Some(cx.peer());
    }
}

#[test]
fn what_was_compressed_in_another_layout_goes_by_names() {
    use away::Reader as _;
    over_every_pair(|pair| {
        let hall = Hall::default();
        let server = pair.start(pair.bind().service(hall.clone().into_door()));
        let connect = pair.secured(DoorClient::connect(server.address()));
        let door = connect.service(away::Child.into_reader()).wait().unwrap();
        door.open().wait().unwrap();
        let peer = hall.0.lock().unwrap().take().expect("it has opened");
        let reader = here::ReaderClient::new(peer);
        let story = here::Story { age: 7, text: text(8192) };
        for _ in 0..3 {
            let call = reader.read(&story).compression(Some(Compression::Lz4));
            assert_eq!(call.deadline(Duration::from_secs(60)).wait().unwrap(), 8199);
        }
    });
}
