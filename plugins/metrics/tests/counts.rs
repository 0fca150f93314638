//! The metrics are what was done.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringcall::observe::{Class, Role};
use ringcall::{Context, Server, Shard, ShardConfig};
use ringcall_metrics::{Endpoint, Metrics, MetricsConfig, Snapshot};

#[ringcall::service(name = "test.Desk")]
trait Desk {
    async fn half(&self, number: u64) -> Result<u64, bool>;
    async fn wait(&self, cx: &Context, time_ms: u64);
}

#[ringcall::service(name = "test.Nowhere")]
trait Nowhere {
    async fn nothing(&self);
}

#[derive(Clone)]
struct Clerk;

impl Desk for Clerk {
    async fn half(&self, number: u64) -> Result<u64, bool> {
        if number.is_multiple_of(2) { Ok(number / 2) } else { Err(true) }
    }

    async fn wait(&self, cx: &Context, time_ms: u64) {
        cx.sleep(Duration::from_millis(time_ms)).await;
    }
}

#[expect(clippy::disallowed_methods, reason = "tests may sleep")]
fn eventually(metrics: &Metrics, what: impl Fn(&Snapshot) -> bool) -> Snapshot {
    for _ in 0..5000 {
        let snapshot = metrics.snapshot();
        if what(&snapshot) {
            return snapshot;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never: {:#?}", metrics.snapshot());
}

fn count(snapshot: &Snapshot, role: Role, method: &str, class: Class) -> u64 {
    snapshot.of(role, method).map(|calls| calls.ended_as(class)).sum()
}

#[test]
fn counters_equal_what_was_done() {
    let (served, made) = (Metrics::new(), Metrics::new());
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk()).shards(2);
    let server = server.observer(served.observer()).start().unwrap();
    let desks: Vec<_> = (0..3)
        .map(|_| DeskClient::connect(server.address()).observer(made.observer()).wait().unwrap())
        .collect();
    for (desk, number) in desks.iter().cycle().zip(0..20u64) {
        assert_eq!(desk.half(&number).wait().is_ok(), number % 2 == 0);
    }
    assert!(desks[0].wait(&5000).deadline(Duration::from_millis(10)).wait().is_err());
    let nowhere = NowhereClient::new(desks[0].channel().clone());
    assert!(nowhere.nothing().wait().is_err());
    let ended = |snapshot: &Snapshot| snapshot.series.iter().all(|calls| calls.in_flight() == 0);
    for (metrics, role) in [(&served, Role::Server), (&made, Role::Caller)] {
        let snapshot = eventually(metrics, |snapshot| {
            ended(snapshot) && snapshot.of(role, "test.Desk/wait").next().is_some()
        });
        let count = |method, class| count(&snapshot, role, method, class);
        assert_eq!(count("test.Desk/half", Class::Ok), 10);
        assert_eq!(count("test.Desk/half", Class::Application), 10);
        assert_eq!(count("test.Nowhere/nothing", Class::Refused), 1, "{snapshot}");
        let of = |method| snapshot.of(role, method).next().expect("it was called");
        assert_eq!((of("test.Desk/wait").expired, of("test.Desk/half").expired), (1, 0));
        let half = of("test.Desk/half");
        assert_eq!((half.begun, half.latency.count()), (20, 20));
        assert_eq!(half.request_bytes, 20 * 8);
        assert_eq!(half.reply_bytes, 10 * 8 + 10);
        assert!(half.latency.quantile(0.5) <= half.latency.quantile(0.99));
        let connections = if role == Role::Server { snapshot.accepted } else { snapshot.opened };
        assert_eq!((connections.total, connections.established, connections.open), (3, 3, 3));
    }
    // The peer is the server for its callers, and a host for the server.
    let peer = |metrics: &Metrics, role| {
        let snapshot = metrics.snapshot();
        let of = snapshot.of(role, "test.Desk/half").next();
        of.expect("it was called").peer.to_string()
    };
    assert_eq!(peer(&made, Role::Caller), server.address().to_string());
    assert_eq!(peer(&served, Role::Server), "127.0.0.1");
    drop((desks, nowhere));
    // What shards have counted stays when they end, and so do core's own counters.
    let counters = server.stop();
    let snapshot = eventually(&served, |snapshot| snapshot.accepted.open == 0);
    assert_eq!(count(&snapshot, Role::Server, "test.Desk/half", Class::Ok), 10);
    assert_eq!(snapshot.counter("requests_answered"), counters.requests_answered);
    eventually(&made, |snapshot| snapshot.opened.open == 0);
}

#[test]
fn what_is_told_apart_is_bounded() {
    let mut config = MetricsConfig::default();
    (config.series_max, config.peers_max) = (1, 0);
    let metrics = Metrics::with(config);
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk());
    let server = server.observer(metrics.observer()).start().unwrap();
    let desk = DeskClient::connect(server.address()).wait().unwrap();
    desk.wait(&0).wait().unwrap();
    for number in 0..10 {
        let _ = desk.half(&number).wait();
    }
    let snapshot = eventually(&metrics, |snapshot| {
        snapshot.of(Role::Server, "other").next().is_some_and(|other| other.in_flight() == 0)
    });
    let labels: Vec<_> = snapshot.series.iter().map(|it| (it.method, &*it.peer)).collect();
    assert_eq!(labels, [("other", "other"), ("test.Desk/wait", "")]);
    assert_eq!(snapshot.of(Role::Server, "other").next().unwrap().begun, 10);
}

#[test]
fn peers_that_are_not_told_apart_take_no_room() {
    let mut config = MetricsConfig::default();
    (config.series_max, config.peers_max) = (8, 1);
    let metrics = Metrics::with(config);
    let servers: Vec<_> = (0..12)
        .map(|_| Server::bind("127.0.0.1:0").service(Clerk.into_desk()).start().unwrap())
        .collect();
    // One shard calls them all, so one table counts it.
    let mut shard = ShardConfig::default();
    shard.observers.add(metrics.observer());
    let shard = Shard::new(shard).unwrap();
    shard.block_on(async {
        let mut desks = Vec::new();
        for server in &servers {
            let desk = DeskClient::new(shard.connect(server.address()).await.unwrap());
            desk.half(&2).await.unwrap();
            desks.push(desk);
        }
        desks[0].wait(&0).await.unwrap();
        desks[1].wait(&0).await.unwrap();
    });
    let snapshot = metrics.snapshot();
    let first = servers[0].address().to_string();
    let mut counted: Vec<_> =
        snapshot.series.iter().map(|it| (it.method, &*it.peer, it.begun)).collect();
    counted.sort_unstable_by_key(|(method, peer, _)| (*method, *peer == "other"));
    let expected = [
        ("test.Desk/half", &*first, 1),
        ("test.Desk/half", "other", 11),
        ("test.Desk/wait", &*first, 1),
        ("test.Desk/wait", "other", 1),
    ];
    assert_eq!(counted, expected);
}

fn ask(endpoint: &Endpoint, request: &str) -> String {
    let mut stream = TcpStream::connect(endpoint.address()).unwrap();
    stream.write_all(request.as_bytes()).unwrap();
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    answer
}

#[test]
fn h08_the_page_is_for_this_machine_unless_somebody_says_otherwise() {
    let metrics = Metrics::new();
    for public in ["0.0.0.0:0", "[::]:0"] {
        let refused = Endpoint::start(&metrics, public).unwrap_err();
        assert_eq!(refused.kind(), std::io::ErrorKind::PermissionDenied);
    }
    let endpoint = Endpoint::start(&metrics, "127.0.0.1:0").unwrap();
    assert!(endpoint.address().ip().is_loopback());
    let page = ask(&endpoint, "GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    assert!(page.contains("\n# TYPE ringcall_calls_total counter\n"), "{page}");
    // Whatever else is asked, the next one is answered.
    let long = "x".repeat(20_000);
    for strange in ["GET / HTTP/1.1\r\n\r\n", "POST /metrics HTTP/1.1\r\n\r\n", "\r\n\r\n", &long] {
        let answer = ask(&endpoint, strange);
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 40"), "{answer}");
    }
    // Somebody who says nothing is not waited for.
    let _silent = TcpStream::connect(endpoint.address()).unwrap();
    let page = ask(&endpoint, "GET /metrics HTTP/1.1\r\n\r\n");
    assert!(page.starts_with("HTTP/1.1 200 OK\r\n"), "{page}");
    let address = endpoint.address();
    drop((endpoint, _silent));
    assert!(TcpStream::connect(address).is_err(), "nothing listens any more");
}

/// More bytes than anybody waits for, each of which comes in time.
const MANY: u32 = 50;

/// Says nothing that is enough, a byte at a time. How many bytes it takes until nobody listens to it any more.
fn trickle(endpoint: &Endpoint) -> u32 {
    let mut stream = TcpStream::connect(endpoint.address()).unwrap();
    stream.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    for sent in 0..MANY {
        // A pause between two bytes; what comes back is the end, or an error that says the same.
        let is_over = match stream.read(&mut [0; 64]) {
            Ok(_) => true,
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        };
        if is_over || stream.write_all(b"x").is_err() {
            return sent;
        }
    }
    MANY
}

#[test]
fn h08_bytes_one_by_one_win_no_time() {
    let endpoint = Endpoint::start(&Metrics::new(), "127.0.0.1:0").unwrap();
    // Each of them comes in time.
    let bytes = trickle(&endpoint);
    assert!(bytes < MANY, "{bytes}");
}

#[ringcall::service(name = "test.\"Odd\"")]
trait Odd {
    async fn ask(&self);
}

struct Asked;

impl Odd for Asked {
    async fn ask(&self) {}
}

#[test]
fn the_name_of_a_service_breaks_no_line() {
    let metrics = Metrics::new();
    let server = Server::bind("127.0.0.1:0").service(Asked.into_odd());
    let server = server.observer(metrics.observer()).start().unwrap();
    OddClient::connect(server.address()).wait().unwrap().ask().wait().unwrap();
    let line = "method=\"test.\\\"Odd\\\"/ask\"";
    eventually(&metrics, |snapshot| snapshot.to_string().contains(line));
}

#[test]
fn a_source_that_panics_takes_nothing_else_from_the_page() {
    let metrics = Metrics::new();
    let endpoint = Endpoint::start(&metrics, "127.0.0.1:0").unwrap();
    let is_first = AtomicBool::new(true);
    metrics.source("bad", move || {
        assert!(!is_first.swap(false, Ordering::Relaxed), "the first time");
        vec![("times", 2)]
    });
    metrics.source("good", || vec![("times", 1)]);
    let page = || ask(&endpoint, "GET /metrics HTTP/1.1\r\n\r\n");
    let [bad, good] = ["bad", "good"].map(|name| format!("{{source=\"{name}\",name=\"times\"}}"));
    let first = page();
    assert!(first.contains(&good) && !first.contains(&bad), "{first}");
    let second = page();
    assert!(second.contains(&good) && second.contains(&bad), "{second}");
}

#[test]
fn what_others_count_is_read_with_each_snapshot() {
    let metrics = Metrics::new();
    let server = Server::bind("127.0.0.1:0").service(Clerk.into_desk()).start().unwrap();
    let incidents = server.incidents_reader();
    metrics.source("desk \"1\"", move || incidents().iter().collect());
    metrics.source("another", || vec![("old", 1)]);
    let again = metrics.clone();
    metrics.source("another", move || {
        again.source("third", Vec::new);
        vec![("new", 2)]
    });
    let mut stranger = TcpStream::connect(server.address().to_string()).unwrap();
    stranger.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    let of = |snapshot: &Snapshot, source: &str, name: &str| {
        let counts = snapshot.sources.iter().find(|(of, _)| **of == *source);
        counts.and_then(|(_, counts)| counts.iter().find(|it| it.0 == name)).map(|it| it.1)
    };
    let closed = "closed_for_protocol";
    let snapshot = eventually(&metrics, |it| of(it, "desk \"1\"", closed) == Some(1));
    assert_eq!((of(&snapshot, "another", "old"), of(&snapshot, "another", "new")), (None, Some(2)));
    let line = "ringcall_source_total{source=\"desk \\\"1\\\"\",name=\"closed_for_protocol\"} 1";
    assert!(snapshot.to_string().contains(line), "{snapshot}");
    // What it has met stays when it has ended.
    server.stop();
    assert_eq!(of(&metrics.snapshot(), "desk \"1\"", closed), Some(1));
}
