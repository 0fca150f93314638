//! What a server and a client do when the other side, or the system, does not do what it should: over
//! real sockets. `docs/FAULTS.md` has the list.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::io::{ErrorKind, Write};
use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::alone::in_its_own_process;
use crate::common::raw::{
    Listening, Wire, dial, dial_open, frame, id, narrow_path, opening, read_frame, read_opening,
    read_reply, read_rest, reply, request, reset,
};
use crate::common::{
    KitchenClient, Pair, Socket, address, eventually, over_every_engine, over_every_engine_in_turn,
    over_every_pair, socket_path,
};
use ringcall::{
    Body, Bytes, CallOptions, Cause, CloseReason, Context, FailureClass, Server, Shard,
    ShardConfig, Status, Wait,
};
use ringcall_core::frame::{DataHeader, FLAG_MORE, Kind, ReplyHeader};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Two calls that anybody can make: their bodies are bytes.
#[ringcall::service(name = "test.Pot")]
trait Pot {
    async fn echo(&self, body: Body) -> Bytes;
    /// Takes as many milliseconds as the first byte says, or a minute if it is 255.
    async fn hold(&self, cx: &Context, body: Body) -> Bytes;
}

/// Counts the handlers that run.
#[derive(Clone, Default)]
struct Stove(Arc<AtomicUsize>);

struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Pot for Stove {
    async fn echo(&self, body: Body) -> Bytes {
        body.share().into()
    }

    async fn hold(&self, cx: &Context, body: Body) -> Bytes {
        self.0.fetch_add(1, Ordering::SeqCst);
        let _running = Running(&self.0);
        let time_ms = match body[0] {
            255 => 60_000,
            time_ms => u64::from(time_ms),
        };
        cx.sleep(Duration::from_millis(time_ms)).await;
        body.share().into()
    }
}

const ECHO: &str = "test.Pot/echo";
const HOLD: &str = "test.Pot/hold";

fn body(len: usize) -> Bytes {
    (0..len).map(|i| (i % 251) as u8).collect()
}

/// A shard that serves on this thread, so that nothing happens before it is turned.
fn shard(pair: Pair, mut config: ShardConfig) -> (Shard, ringcall::Address) {
    config.transport = pair.server;
    let shard = Shard::new(config).unwrap();
    shard.serve(Stove::default().into_pot()).unwrap();
    let address = shard.listen(&address(pair.socket)[..]).unwrap();
    (shard, address)
}

/// A connection to a shard on this thread, whose handshake is done.
fn open_on(shard: &Shard, address: &ringcall::Address) -> Wire {
    let mut wire = dial(address);
    wire.write_all(&opening()).unwrap();
    turn_until_readable(shard, &wire);
    read_opening(&mut wire).unwrap();
    wire
}

#[track_caller]
fn turn_until_readable(shard: &Shard, wire: &Wire) {
    wire.set_nonblocking(true).unwrap();
    turn_until(shard, "something to read", || wire.peek(&mut [0]).is_ok());
    wire.set_nonblocking(false).unwrap();
}

#[track_caller]
fn turn_until(shard: &Shard, what: &str, mut is_so: impl FnMut() -> bool) {
    for _ in 0..30_000 {
        if is_so() {
            return;
        }
        shard.turn(Wait::AtMost(Duration::from_millis(1)));
    }
    panic!("never: {what}");
}

/// How often an idle shard turns in a quarter of a second, if each turn may take a hundredth: a shard
/// that does not find out that nothing can be done turns many thousand times.
fn turns(shard: &Shard) -> usize {
    let (begin, mut turns) = (now(), 0);
    while begin.elapsed() < Duration::from_millis(250) {
        shard.turn(Wait::AtMost(Duration::from_millis(10)));
        turns += 1;
    }
    turns
}

#[expect(clippy::disallowed_methods, reason = "tests may ask the machine")]
fn now() -> Instant {
    Instant::now()
}

// ---- strangers ----

#[test]
fn a01_a_stranger_gets_no_byte() {
    over_every_engine(|pair| {
        let (server, _) = pair.serve();
        let openings: [&[u8]; 3] =
            [b"GET / HTTP/1.1\r\n\r\n", b"\x16\x03\x01\x02\x00\x01\x00\x01", &[0; 64]];
        for opening in openings {
            let mut wire = dial(server.address());
            wire.write_all(opening).unwrap();
            assert_eq!(read_rest(&mut wire), b"");
        }
        pair.kitchen(&server).nothing().wait().unwrap();
    });
}

/// Calls of one connection lie in the kernel by the hundred when one of another arrives.
#[test]
fn a18_a_crowd_of_small_frames_takes_turns() {
    #[ringcall::service(name = "test.Queue")]
    trait Queue {
        async fn stand(&self, body: Body) -> Bytes;
    }
    struct Stood(Rc<RefCell<Vec<u8>>>);
    impl Queue for Stood {
        async fn stand(&self, body: Body) -> Bytes {
            self.0.borrow_mut().push(body[0]);
            Bytes::new()
        }
    }
    over_every_engine(|pair| {
        let (shard, address) = shard(pair, ShardConfig::default());
        let order = Rc::new(RefCell::new(Vec::new()));
        shard.serve(Stood(Rc::clone(&order)).into_queue()).unwrap();
        let mut wires = [(), ()].map(|()| open_on(&shard, &address));
        let calls = |count: u32, body: &[u8]| {
            (0..count).flat_map(|n| request(n, "test.Queue/stand", body)).collect::<Vec<u8>>()
        };
        wires[0].write_all(&calls(900, b"many")).unwrap();
        wires[1].write_all(&calls(1, b"one")).unwrap();
        turn_until(&shard, "all calls", || order.borrow().len() == 901);
        let at = order.borrow().iter().position(|who| *who == b'o').unwrap();
        assert!(at <= 2 * 64, "{at} calls of the other one came first");
    });
}

// ---- correlation ----

/// Serves one connection by hand: `answer` gets each call, and gives what is sent for it.
fn by_hand(
    socket: Socket,
    mut answer: impl FnMut(&crate::common::raw::Frame) -> Vec<u8> + Send + 'static,
) -> ringcall::Address {
    let listening = Listening::new(socket);
    let address = listening.address.clone();
    thread::spawn(move || {
        let mut wire = listening.accept();
        read_opening(&mut wire).unwrap();
        wire.write_all(&opening()).unwrap();
        while let Some(frame) = read_frame(&mut wire) {
            if frame.kind == Kind::Request as u8 {
                wire.write_all(&answer(&frame)).unwrap();
            }
        }
    });
    address
}

#[test]
fn b08_a_reply_of_another_type_is_an_error_for_its_caller_only() {
    over_every_engine(|pair| {
        let mut calls = 0;
        let address = by_hand(pair.socket, move |frame| {
            let mut header = ReplyHeader::new(Status::OK);
            calls += 1;
            match calls {
                1 => header.signature = 7,
                2 => header.codec = ringcall_core::Codec::RKYV,
                3 => (header.status, header.signature) = (Status::APPLICATION_ERROR, 7),
                _ => {}
            }
            reply(frame.id, &header, &frame.body)
        });
        let client = pair.dial(&address).unwrap();
        let pot = PotClient::new(&client);
        for _ in 0..3 {
            let error = pot.echo(&body(10)).wait().map(|_| ()).unwrap_err();
            let failure = error.failure().unwrap();
            assert_eq!((failure.class, failure.cause), (FailureClass::Unknown, Cause::BadReply));
        }
        assert_eq!(pot.echo(&body(10)).wait().unwrap()[..], body(10));
    });
}

#[test]
fn b11_a_callback_that_panics_harms_nobody_else() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        let other = client.clone();
        let waiting = thread::spawn(move || other.simmer(&50).wait().map(|time| time.to_native()));
        client.nothing().callback(|_| panic!("as asked"));
        client.nothing().wait().unwrap();
        assert_eq!(waiting.join().unwrap().unwrap(), 50);

        let blocking = pair.blocking(&server);
        let local = KitchenClient::new(blocking.local().clone());
        local.nothing().callback(|_| panic!("as asked"));
        blocking.run(local.nothing().into_future()).unwrap();
        assert_eq!(blocking.shard().panics(), 1);
    });
}

#[test]
fn b11_a_callback_may_call() {
    over_every_pair(|pair| {
        let (server, _) = pair.serve();
        let client = pair.kitchen(&server);
        let (ends, waiting) = std::sync::mpsc::channel();
        let again = client.clone();
        client.nothing().callback(move |end| {
            end.unwrap();
            again.nothing().callback(move |end| ends.send(end.is_ok()).unwrap());
        });
        assert_eq!(waiting.recv(), Ok(true));

        let blocking = pair.blocking(&server);
        let local = KitchenClient::new(blocking.local().clone());
        let (again, done) = (local.clone(), Rc::new(Cell::new(false)));
        let is_done = Rc::clone(&done);
        local.nothing().callback(move |end| {
            end.unwrap();
            again.nothing().callback(move |end| done.set(end.is_ok()));
        });
        turn_until(blocking.shard(), "both calls", || is_done.get());
    });
}

// ---- connections that end at every point ----

/// What a client sends whose calls wait, in parts and whole.
fn conversation() -> Vec<u8> {
    let large = body(70);
    let mut header = request(2, ECHO, b"")[16..48].to_vec();
    header.extend([1, 0x80, 8, 0]);
    header.extend(70_u64.to_le_bytes());
    header.resize(48, 0);
    [
        opening(),
        request(0, HOLD, &[20]),
        request(1, ECHO, b"hello"),
        frame(Kind::Request, FLAG_MORE, id(2), &header, &large[..32]),
        frame(Kind::Data, 0, id(2), &DataHeader { offset: 32 }.encode(), &large[32..]),
        frame(Kind::Cancel, 0, id(1), &[0; 16], b""),
        request(3, HOLD, &[20]),
    ]
    .concat()
}

#[test]
fn b15_a_caller_may_go_after_every_byte() {
    over_every_engine(|pair| {
        let stove = Stove::default();
        let server = pair.start(pair.bind().service(stove.clone().into_pot()));
        let conversation = conversation();
        for at in 0..=conversation.len() {
            for how in [reset, drop] {
                let mut wire = dial(server.address());
                wire.write_all(&conversation[..at]).unwrap();
                how(wire);
            }
        }
        eventually("all connections are gone", || server.connections() == 0);
        assert_eq!(stove.0.load(Ordering::SeqCst), 0, "no handler is left");
    });
}

/// A server that goes after so many bytes of what it has to say.
fn server_that_goes(socket: Socket, at: usize, how: fn(Wire)) -> ringcall::Address {
    let listening = Listening::new(socket);
    let address = listening.address.clone();
    thread::spawn(move || {
        let mut wire = listening.accept();
        let hello = opening();
        let (first, rest) = (at.min(hello.len()), at.saturating_sub(hello.len()));
        wire.write_all(&hello[..first]).unwrap();
        if first == hello.len() {
            read_opening(&mut wire).unwrap();
            let ids: Vec<u64> = (0..3).map(|_| read_frame(&mut wire).unwrap().id).collect();
            wire.write_all(&answers(&ids)[..rest]).unwrap();
        }
        how(wire);
    });
    address
}

/// Whole, empty, and in parts.
fn answers(ids: &[u64]) -> Vec<u8> {
    let (ok, large) = (ReplyHeader::new(Status::OK), body(70));
    let mut header = ok.encode().to_vec();
    header.extend([1, 0x80, 8, 0]);
    header.extend(70_u64.to_le_bytes());
    header.resize(48, 0);
    [
        reply(ids[1], &ok, b"second"),
        frame(Kind::Reply, FLAG_MORE, ids[2], &header, &large[..32]),
        reply(ids[0], &ok, b""),
        frame(Kind::Data, 0, ids[2], &DataHeader { offset: 32 }.encode(), &large[32..]),
    ]
    .concat()
}

#[test]
fn b15_a_server_may_go_after_any_byte() {
    over_every_engine(|pair| {
        // Every place modulo 16, and near the ends of all frames.
        for at in (0..=opening().len() + answers(&[0, 0, 0]).len()).step_by(3) {
            for how in [reset as fn(Wire), drop] {
                ends_once(pair, &server_that_goes(pair.socket, at, how), at);
            }
        }
    });
}

/// Three calls, each of which ends once, and not because somebody waited long enough.
fn ends_once(pair: Pair, address: &ringcall::Address, at: usize) {
    let went = |failure: &ringcall::Failure| {
        let closed = matches!(failure.cause, Cause::Closed(reason) if !reason.is_protocol_error()
            || reason == CloseReason::Truncated);
        assert!(closed, "after {at} bytes: {failure:?}");
    };
    let client = match pair.dial(address) {
        Ok(client) => client,
        Err(error) => {
            assert!(error.is_safe_to_retry());
            return went(&error);
        }
    };
    let options = CallOptions::new().deadline(Duration::from_secs(60));
    let pot = PotClient::new(client.local().clone()).with_options(options);
    let ends = Rc::new(RefCell::new(Vec::new()));
    for number in 0..3 {
        let ends = Rc::clone(&ends);
        pot.echo(&body(20)).callback(move |end| {
            ends.borrow_mut().push((number, end.map(|body| body.to_vec())));
        });
    }
    turn_until(client.shard(), "three ends", || ends.borrow().len() >= 3);
    // What is left of the connection brings no further ones.
    for _ in 0..3 {
        client.shard().turn(Wait::Now);
    }
    let ends = ends.borrow();
    let numbers: BTreeSet<i32> = ends.iter().map(|(number, _)| *number).collect();
    assert_eq!((ends.len(), numbers.len()), (3, 3));
    for (number, end) in ends.iter() {
        match end {
            Ok(answer) => {
                let expected = [Bytes::new(), Bytes::from_static(b"second"), body(70)];
                assert!(answer[..] == expected[*number as usize], "after {at} bytes: {answer:?}");
            }
            Err(error) => went(error.failure().unwrap()),
        }
    }
}

// ---- sockets that take and give little ----

#[test]
fn e01_pieces_of_every_length_arrive_whole() {
    over_every_pair(|pair| {
        let server = pair.start(pair.bind().service(Stove::default().into_pot()));
        for piece in [1, 2, 3, 15, 16, 17, 255, 4096, 100_000] {
            let address = narrow_path(pair.socket, server.address(), piece);
            let client = pair.dial(&address).unwrap();
            let options = CallOptions::new().deadline(Duration::from_secs(60));
            let pot = PotClient::new(client.local().clone()).with_options(options);
            for len in [0, 1, 16, 1000, 20_000, 300_000] {
                if len <= piece * 3000 {
                    let body = body(len);
                    let answer = client.run(pot.echo(&body).into_future()).unwrap();
                    assert!(answer[..] == body[..], "{len} bytes in pieces of {piece}");
                }
            }
        }
    });
}

#[test]
fn e01_a_full_socket_goes_on() {
    over_every_engine(|pair| {
        let server = pair.start(pair.bind().service(Stove::default().into_pot()));
        let mut wire = dial_open(server.address());
        let mut sender = wire.try_clone().unwrap();
        let body = body(200_000);
        // All of them fit the windows, and no socket.
        let calls: Vec<u8> = (0..40).flat_map(|n| request(n, ECHO, &body)).collect();
        let sender = thread::spawn(move || sender.write_all(&calls).unwrap());
        crate::common::block(Duration::from_millis(100));
        for _ in 0..40 {
            assert!(read_reply(&mut wire).unwrap().body == body);
        }
        sender.join().unwrap();
    });
}

#[test]
fn e02_nobody_spins_on_a_connection_that_cannot_go_on() {
    over_every_engine(|pair| {
        let (shard, address) = shard(pair, ShardConfig::default());
        // One that does not read, and of which nothing more is read in the end.
        let mut greedy = open_on(&shard, &address);
        let calls: Vec<u8> = (0..40).flat_map(|n| request(n, ECHO, &body(200_000))).collect();
        let mut rest = &calls[..];
        greedy.set_nonblocking(true).unwrap();
        for _ in 0..300 {
            if let Ok(n) = greedy.write(rest) {
                rest = &rest[n..];
            }
            shard.turn(Wait::AtMost(Duration::from_millis(1)));
        }
        assert!(turns(&shard) < 500);
        // One that has ended its output, and waits.
        let mut patient = open_on(&shard, &address);
        patient.write_all(&request(0, HOLD, &[255])).unwrap();
        patient.shutdown(Shutdown::Write).unwrap();
        assert!(turns(&shard) < 500);
        greedy.shutdown(Shutdown::Write).unwrap();
        assert!(turns(&shard) < 500);
        drop((greedy, patient));
        assert!(turns(&shard) < 500);
    });
}

// ---- ends ----

#[test]
fn e03_a_half_closed_connection_gets_its_answers() {
    over_every_engine(|pair| {
        let server = pair.start(pair.bind().service(Stove::default().into_pot()));
        let mut wire = dial_open(server.address());
        let calls = [request(0, HOLD, &[20]), request(1, ECHO, b"at once")].concat();
        wire.write_all(&calls).unwrap();
        wire.shutdown(Shutdown::Write).unwrap();
        let answers = [(); 2].map(|()| read_reply(&mut wire).unwrap());
        assert_eq!(answers.map(|frame| frame.id), [id(1), id(0)]);
        read_rest(&mut wire);
        eventually("the connection ends", || server.connections() == 0);
    });
}

#[test]
fn e03_an_end_inside_a_frame_is_told() {
    over_every_engine(|pair| {
        let server = pair.start(pair.bind().service(Stove::default().into_pot()));
        let call = request(0, ECHO, &body(100));
        for at in [1, 15, 16, 17, 48, 100, call.len() - 1] {
            let mut wire = dial_open(server.address());
            wire.write_all(&call[..at]).unwrap();
            wire.shutdown(Shutdown::Write).unwrap();
            let last = read_frame(&mut wire).unwrap();
            assert_eq!((last.kind, &last.header[8..10]), (Kind::GoAway as u8, &[20, 0][..]));
            assert_eq!(read_rest(&mut wire), b"", "after {at} bytes");
        }
        eventually("the connections end", || server.connections() == 0);
    });
}

#[test]
fn e04_a_reset_ends_its_own_calls_only() {
    over_every_engine(|pair| {
        let stove = Stove::default();
        let server = pair.start(pair.bind().service(stove.clone().into_pot()));
        let [mut lost, mut kept] = [(); 2].map(|()| dial_open(server.address()));
        let calls = [request(0, HOLD, &[255]), request(1, HOLD, &[255]), request(2, ECHO, b"x")];
        lost.write_all(&calls.concat()).unwrap();
        // A unix socket is reset when it is closed with something to read.
        lost.peek(&mut [0]).unwrap();
        kept.write_all(&request(0, HOLD, &[100])).unwrap();
        eventually("all run", || stove.0.load(Ordering::SeqCst) == 3);
        reset(lost);
        eventually("two are dropped", || stove.0.load(Ordering::SeqCst) <= 1);
        assert_eq!(read_reply(&mut kept).unwrap().body, [100]);
        eventually("one connection is left", || server.connections() == 1);
    });
}

/// With this limit about so many more descriptors can be opened, wherever the open ones lie.
fn limit_for(more: usize) -> u64 {
    let open = descriptors();
    let mut free = (0..).filter(|number| !open.contains(number));
    u64::from(free.nth(more).unwrap())
}

/// The descriptors of this process.
fn descriptors() -> Vec<u32> {
    let entries = std::fs::read_dir("/proc/self/fd").unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.map(|name| name.parse().unwrap()).collect()
}

#[test]
fn e04_descriptors_come_back() {
    in_its_own_process(module_path!(), "e04_descriptors_come_back", || {
        over_every_engine_in_turn(|pair| {
            let server = pair.start(pair.bind().service(Stove::default().into_pot()));
            let before = descriptors().len();
            for round in 0..100 {
                let mut wire = dial_open(server.address());
                let calls = [request(0, HOLD, &[5]), request(1, ECHO, b"x")].concat();
                wire.write_all(&calls[..calls.len() - round % 70]).unwrap();
                if round % 2 == 0 { reset(wire) } else { drop(wire) }
            }
            eventually("all are gone", || server.connections() == 0);
            eventually("all are closed", || descriptors().len() == before);
        });
    });
}

#[test]
fn e05_a_broken_pipe_is_no_signal() {
    in_its_own_process(module_path!(), "e05_a_broken_pipe_is_no_signal", || {
        // SAFETY: this process runs nothing else that the signal could matter to.
        unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
        over_every_engine(|pair| {
            let server = pair.start(pair.bind().service(Stove::default().into_pot()));
            // Small answers are one segment, large ones are several.
            for len in [1, 100_000] {
                for _ in 0..20 {
                    let mut wire = dial_open(server.address());
                    let calls = [1_u8, 3].map(|ms| request(ms.into(), HOLD, &vec![ms; len]));
                    wire.write_all(&calls.concat()).unwrap();
                }
            }
            eventually("all are gone", || server.connections() == 0);
        });
    });
}

// ---- accepting ----

/// Counts warnings.
struct Warnings;

static WARNINGS: AtomicUsize = AtomicUsize::new(0);

impl log::Log for Warnings {
    fn enabled(&self, metadata: &log::Metadata<'_>) -> bool {
        metadata.level() <= log::Level::Warn
    }

    fn log(&self, record: &log::Record<'_>) {
        if record.level() == log::Level::Warn {
            WARNINGS.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn flush(&self) {}
}

#[test]
fn e07_accepting_goes_on_when_there_are_descriptors_again() {
    in_its_own_process(
        module_path!(),
        "e07_accepting_goes_on_when_there_are_descriptors_again",
        || {
            log::set_logger(&Warnings).unwrap();
            log::set_max_level(log::LevelFilter::Warn);
            over_every_engine_in_turn(|pair| {
                let mut config = ShardConfig::default();
                config.connections_max = Some(10_000);
                let (shard, address) = shard(pair, config);
                let mut waiting: Vec<Wire> = (0..60).map(|_| dial(&address)).collect();
                for wire in &mut waiting {
                    wire.write_all(&opening()).unwrap();
                    wire.set_nonblocking(true).unwrap();
                }
                let before = getrlimit(Resource::Nofile);
                let (current, maximum) = (Some(limit_for(20)), before.maximum);
                setrlimit(Resource::Nofile, Rlimit { current, maximum }).unwrap();
                WARNINGS.store(0, Ordering::SeqCst);
                assert!(turns(&shard) < 500, "it does not try again and again");
                let taken = shard.connections();
                assert!((10..=25).contains(&taken), "{taken}");
                assert_eq!(
                    WARNINGS.load(Ordering::SeqCst),
                    1,
                    "it does not say so again and again"
                );
                let (mut served, mut shed, mut left) = (Vec::new(), 0, Vec::new());
                for wire in waiting {
                    match wire.peek(&mut [0]) {
                        Ok(1..) => served.push(wire),
                        Err(error) if error.kind() == ErrorKind::WouldBlock => left.push(wire),
                        _ => shed += 1,
                    }
                }
                assert!(served.len() == taken && shed > 1, "{} {shed}", served.len());
                let incidents = shard.incidents();
                assert_eq!(incidents.shed, shed, "{incidents:?}");
                assert!(incidents.accept_errors >= shed, "{incidents:?}");
                // Descriptors of theirs are closed on both sides.
                drop(served);
                turn_until(&shard, "the others are served", || {
                    left.iter().all(|wire| {
                        let peeked = wire.peek(&mut [0]);
                        !peeked.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
                    })
                });
                setrlimit(Resource::Nofile, before).unwrap();
                let mut wire = open_on(&shard, &address);
                wire.write_all(&request(0, ECHO, b"still there")).unwrap();
                turn_until_readable(&shard, &wire);
                assert_eq!(read_reply(&mut wire).unwrap().body, b"still there");
            });
        },
    );
}

/// Linux hands such connections over as if they were alive.
#[test]
fn e08_connections_that_died_before_they_are_accepted_are_passed_over() {
    over_every_engine(|pair| {
        let (shard, address) = shard(pair, ShardConfig::default());
        for n in 0..20 {
            let mut wire = dial(&address);
            wire.write_all(&opening()[..n]).unwrap();
            reset(wire);
        }
        let mut wire = open_on(&shard, &address);
        wire.write_all(&request(0, ECHO, b"alive")).unwrap();
        turn_until_readable(&shard, &wire);
        assert_eq!(read_reply(&mut wire).unwrap().body, b"alive");
        turn_until(&shard, "the others are gone", || shard.connections() == 1);
    });
}

// ---- processes ----

#[test]
fn e20_descriptors_are_not_inherited() {
    in_its_own_process(module_path!(), "e20_descriptors_are_not_inherited", || {
        over_every_engine_in_turn(|pair| {
            let before = descriptors();
            let (server, _) = pair.serve();
            let client = pair.kitchen(&server);
            client.nothing().wait().unwrap();
            let _blocking = pair.blocking(&server);
            let mut new = 0;
            for fd in descriptors().into_iter().filter(|fd| !before.contains(fd)) {
                // The descriptor with which the folder was read is gone.
                let Ok(info) = std::fs::read_to_string(format!("/proc/self/fdinfo/{fd}")) else {
                    continue;
                };
                let flags = info.lines().find_map(|line| line.strip_prefix("flags:")).unwrap();
                let flags = u32::from_str_radix(flags.trim(), 8).unwrap();
                let link = std::fs::read_link(format!("/proc/self/fd/{fd}"));
                assert!(flags & libc::O_CLOEXEC as u32 != 0, "{fd} is {link:?}");
                new += 1;
            }
            assert!(new >= 8, "{new}");
        });
    });
}

#[test]
fn e21_a_server_starts_a_hundred_times_at_one_address() {
    let unix = format!("unix:{}", socket_path().display());
    // No other test has this address, so that nobody is given its port meanwhile.
    for address in ["127.77.0.1:0", &unix] {
        let start = |address: &str| {
            Server::bind(address).service(Stove::default().into_pot()).start().unwrap()
        };
        let mut server = start(address);
        let address = server.address().to_string();
        for round in 0..100 {
            let client = PotClient::connect(&address[..]).wait().unwrap();
            assert_eq!(client.echo(&body(10)).wait().unwrap()[..], body(10));
            // Each side is the first to close once, and once neither is.
            let wire = dial_open(server.address());
            match round % 3 {
                0 => drop((client, wire)),
                1 => reset(wire),
                _ => drop(wire),
            }
            drop(server);
            server = start(&address);
        }
    }
}

#[test]
fn e23_ipv6_is_served() {
    if std::net::TcpListener::bind("[::1]:0").is_err() {
        return;
    }
    let server = Server::bind("[::1]:0").service(Stove::default().into_pot()).start().unwrap();
    let client = PotClient::connect(server.address()).wait().unwrap();
    assert_eq!(client.echo(&body(10)).wait().unwrap()[..], body(10));
}

/// Whoever tells others of a server when `start` has returned tells them of one that serves.
#[test]
fn f10_nobody_gets_in_before_all_shards_are_ready() {
    over_every_engine(|pair| {
        if pair.socket == Socket::Tcp {
            return; // It cannot be known before which port it will be.
        }
        let path = socket_path();
        let (at, early) = (path.clone(), Arc::new(AtomicUsize::new(0)));
        let found = Arc::clone(&early);
        let server = pair.bind_at(format!("unix:{}", path.display())).shards(3);
        let server = pair.start(server.service_per_shard(move |_| {
            found.fetch_add(usize::from(at.exists()), Ordering::SeqCst);
            Stove::default().into_pot()
        }));
        assert_eq!(early.load(Ordering::SeqCst), 0, "it listens, and cannot serve yet");
        let mut wire = dial_open(server.address());
        wire.write_all(&request(0, ECHO, b"ready")).unwrap();
        assert_eq!(read_reply(&mut wire).unwrap().body, b"ready");
    });
}

/// A socket that listens already has callers before its server is ready.
#[test]
fn f10_calls_that_come_too_early_wait_for_their_server() {
    over_every_engine(|pair| {
        let listening = Listening::new(pair.socket);
        let mut wire = dial(&listening.address);
        wire.write_all(&[opening(), request(0, ECHO, b"early")].concat()).unwrap();
        let server = Server::from_listener(listening.listener()).transport(pair.server);
        let _server = pair.start(server.service(Stove::default().into_pot()));
        read_opening(&mut wire).expect("the server's HELLO");
        assert_eq!(read_reply(&mut wire).unwrap().body, b"early");
    });
}

// ---- what is counted ----

#[test]
fn incidents_say_what_went_wrong() {
    over_every_engine(|pair| {
        let server = pair.bind().service(Stove::default().into_pot()).connections_max(1);
        let server = pair.start(server);
        let is_gone = || server.connections() == 0;

        let mut stranger = dial(server.address());
        stranger.write_all(&[0; 64]).unwrap();
        read_rest(&mut stranger);
        eventually("the stranger is gone", is_gone);
        let incidents = server.incidents();
        assert_eq!((incidents.closed_for_protocol, incidents.handshakes_failed), (1, 1));

        let mut guest = dial_open(server.address());
        let mut crowd = dial(server.address());
        assert_eq!(read_rest(&mut crowd), b"");
        assert_eq!(server.incidents().turned_away, 1);
        guest.write_all(&request(0, ECHO, b"x")).unwrap();
        read_reply(&mut guest).unwrap();
        guest.shutdown(Shutdown::Write).unwrap();
        read_rest(&mut guest);
        drop(guest);
        eventually("the guest is gone", is_gone);
        let incidents = server.incidents();
        assert_eq!((incidents.closed_in_order, incidents.handshakes_failed), (1, 1));
        assert_eq!(incidents.iter().map(|(_, count)| count).sum::<u64>(), 4, "{incidents:?}");
    });
}
