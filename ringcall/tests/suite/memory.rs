//! What all connections of a server hold together has a bound: row E26 of `docs/FAULTS.md`, over real sockets.

use std::io::{Read, Write};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use crate::common::raw::{Frame, dial, dial_open, id, read_frame, read_reply, read_rest, request};
use crate::common::{PATIENT, Pair, eventually, over_every_engine};
use ringcall::{Body, Bytes, Context, RunningServer, SharedBody, Status};
use ringcall_core::CloseCode;
use ringcall_core::frame::{Kind, ReplyHeader};

#[ringcall::service(name = "test.Store")]
trait Store {
    async fn echo(&self, body: Body) -> Bytes;
    /// Takes a minute.
    async fn hold(&self, cx: &Context, body: Body) -> Bytes;
    /// As many bytes as the body says, a `u32`.
    async fn bulk(&self, body: Body) -> Bytes;
    /// Holds the body when the call is over.
    async fn keep(&self, body: Body) -> Bytes;
}

#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Vec<SharedBody>>>);

impl Store for Shelf {
    async fn echo(&self, body: Body) -> Bytes {
        body.share().into()
    }

    async fn hold(&self, cx: &Context, body: Body) -> Bytes {
        cx.sleep(Duration::from_secs(60)).await;
        body.share().into()
    }

    async fn bulk(&self, body: Body) -> Bytes {
        let len = u32::from_le_bytes(body[..4].try_into().expect("a number"));
        vec![0; len as usize].into()
    }

    async fn keep(&self, body: Body) -> Bytes {
        self.0.lock().unwrap().push(body.share());
        Bytes::new()
    }
}

const ECHO: &str = "test.Store/echo";
const HOLD: &str = "test.Store/hold";
const BULK: &str = "test.Store/bulk";
const KEEP: &str = "test.Store/keep";
const CALLS: u32 = 150;
/// Less than one connection may hold.
const BOUND: usize = 8 << 20;

fn start(pair: &Pair) -> (RunningServer, Shelf) {
    let shelf = Shelf::default();
    let server = pair.bind().service(shelf.clone().into_store()).memory_max(BOUND);
    (pair.start(server.drain_timeout(Duration::ZERO)), shelf)
}

fn status_of(reply: &Frame) -> Status {
    let (header, _) = ReplyHeader::parse(&reply.header).expect("a reply");
    header.status
}

/// Makes calls that last, until some are refused and all are dealt with, so that nothing waits to be sent.
fn fill(server: &RunningServer) -> crate::common::raw::Wire {
    let mut greedy = dial_open(server.address());
    let lasting = (0..CALLS).flat_map(|slot| request(slot, HOLD, &[7; 50_000]));
    let calls: Vec<u8> = lasting.chain(request(CALLS, ECHO, b"behind them")).collect();
    let mut writer = greedy.try_clone().unwrap();
    let writing = std::thread::spawn(move || drop(writer.write_all(&calls)));
    let mut refused = 0;
    while let reply = read_reply(&mut greedy).expect("it is not closed")
        && reply.id != id(CALLS)
    {
        assert_eq!(status_of(&reply), Status::OVERLOADED);
        refused += 1;
    }
    assert!(refused > 0);
    writing.join().unwrap();
    greedy
}

#[track_caller]
fn is_served(honest: &StoreClient<ringcall::BlockingClient>) {
    for _ in 0..100 {
        assert_eq!(honest.echo(&Bytes::from_static(b"honest")).wait().unwrap()[..], *b"honest");
    }
}

#[test]
fn e26_calls_are_refused_before_memory_ends_and_whoever_holds_little_is_served() {
    over_every_engine(|pair| {
        let (server, _) = start(&pair);
        let honest = StoreClient::new(pair.blocking(&server)).with_options(PATIENT);
        let mut greedy = fill(&server);
        is_served(&honest);
        // Whoever comes now is served, too.
        is_served(&StoreClient::new(pair.blocking(&server)).with_options(PATIENT));
        assert_eq!(server.incidents().closed_for_memory, 0);
        // With an answer that it has not read whole it is gone; without, it is half-closed, and would be answered.
        greedy.write_all(&request(CALLS + 1, ECHO, b"unread")).unwrap();
        greedy.read_exact(&mut [0]).unwrap();
        drop(greedy);
        eventually("there is room again", || {
            honest.echo(&vec![1; 2 << 20].into()).wait().is_ok_and(|body| body.len() == 2 << 20)
        });
        let counters = server.stop();
        assert!(counters.requests_short_of_memory > 0);
    });
}

#[test]
fn e26_at_the_bound_those_that_hold_the_most_are_closed() {
    over_every_engine(|pair| {
        let (server, _) = start(&pair);
        let honest = StoreClient::new(pair.blocking(&server)).with_options(PATIENT);
        let mut greedy = fill(&server);
        // It does not read what it asks for. What the kernel leaves of that is too much, but less than the other one holds.
        let mut lazy = dial_open(server.address());
        lazy.write_all(&request(0, BULK, &(3u32 << 20).to_le_bytes())).unwrap();
        let goodbye = std::iter::from_fn(|| read_frame(&mut greedy));
        let goodbye = goodbye.filter(|frame| frame.kind == Kind::GoAway as u8).last();
        let code = goodbye.expect("it is told").header[8..10].try_into().unwrap();
        assert_eq!(CloseCode(u16::from_le_bytes(code)), CloseCode::MEMORY_SHORT);
        assert_eq!(server.incidents().closed_for_memory, 1);
        is_served(&honest);
        drop(lazy);
    });
}

#[test]
fn e26_nobody_is_closed_for_what_the_application_keeps_but_nobody_else_gets_in() {
    over_every_engine(|pair| {
        let (server, shelf) = start(&pair);
        let mut wire = dial_open(server.address());
        // So small that the connection itself never holds enough to be closed for it, however its bytes come.
        let refused = (0..5000).find(|_| {
            wire.write_all(&request(0, KEEP, &[7; 8000])).unwrap();
            status_of(&read_reply(&mut wire).expect("it stays")) == Status::OVERLOADED
        });
        assert!(refused.is_some());
        let mut late = dial(server.address());
        let _ = late.write_all(&crate::common::raw::opening());
        assert_eq!(read_rest(&mut late), b"");
        assert!(server.incidents().turned_away > 0);
        shelf.0.lock().unwrap().clear();
        eventually("somebody gets in", || pair.dial(server.address()).is_ok());
        assert_eq!(server.incidents().closed_for_memory, 0);
    });
}
