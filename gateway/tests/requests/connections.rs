//! How many there are at a time, how they end, and who is told.

use std::time::Duration;

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringcall::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Site, ask, config, post, read};

/// More bytes than sockets hold.
const READ_BY_NOBODY: usize = 15_000_000;
const SOON: Duration = Duration::from_millis(50);

async fn begin(site: &Site, method: &str) -> TcpStream {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(post(method, "null").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_caller_that_is_gone_has_given_its_call_up() {
    let site = Site::start(config()).await;
    let stream = begin(&site, "test.Things/hang").await;
    site.shelf.hangs.wait().await;
    drop(stream);
    site.shelf.dropped.wait().await;
}

#[tokio::test]
async fn so_has_one_that_resets_its_stream_of_http_2() {
    let site = Site::start(config()).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    tokio::spawn(connection);
    let to = |method: &str| {
        let uri = format!("http://{}/test.Things/{method}", site.address);
        Request::post(uri).body(Full::new(Bytes::new())).unwrap()
    };
    let call = tokio::spawn(sender.send_request(to("hang")));
    site.shelf.hangs.wait().await;
    call.abort();
    site.shelf.dropped.wait().await;
    // The connection is still good.
    let answer = sender.send_request(to("seen")).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    answer.into_body().collect().await.unwrap();
}

#[tokio::test]
async fn one_call_too_many_is_refused_at_once() {
    let mut config = config();
    config.in_flight_max = 1;
    let site = Site::start(config).await;
    let mut stream = begin(&site, "test.Things/held").await;
    site.shelf.entered.wait().await;
    let got = site.call("test.Things/zeros", "1").await;
    assert_eq!(got.problem(), (503, "gateway_busy".to_owned()));
    assert_eq!(got.header("retry-after"), "1");
    // What is no call is answered.
    assert_eq!(site.get("/healthz").await.status, 200);
    site.shelf.release.give();
    let got = read(&mut stream, false).await.unwrap();
    assert_eq!(&got.body[..], b"7");
    assert_eq!(site.call("test.Things/zeros", "1").await.status, 200);
}

#[tokio::test]
async fn answers_that_nobody_reads_do_not_hold_their_places_for_ever() {
    let mut config = config();
    config.in_flight_max = 1;
    config.write_timeout = SOON;
    let site = Site::start(config).await;
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream
        .write_all(post("test.Things/zeros", &READ_BY_NOBODY.to_string()).as_bytes())
        .await
        .unwrap();
    // Its answer has begun.
    let mut first = [0; 12];
    stream.read_exact(&mut first).await.unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    assert_eq!(site.call("test.Things/zeros", "1").await.problem().1, "gateway_busy");
    while site.call("test.Things/zeros", "1").await.status != 200 {
        tokio::task::yield_now().await;
    }
    // It was cut off, and not finished.
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    assert!(rest.len() < READ_BY_NOBODY, "{}", rest.len());
}

/// Until the other side ends it, in one way or another.
async fn ends(site: &Site, begun: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(site.address).await.unwrap();
    stream.write_all(begun.as_bytes()).await.unwrap();
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest).await;
    rest
}

#[tokio::test]
async fn who_does_nothing_is_not_kept() {
    let mut config = config();
    config.write_timeout = SOON;
    let site = Site::start(config).await;
    // Nothing, and what may become HTTP/2 or has.
    for begun in ["", "P", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"] {
        ends(&site, begun).await;
    }
}

#[tokio::test]
async fn who_does_not_say_all_is_not_waited_for() {
    let mut config = config();
    config.read_timeout = SOON;
    let site = Site::start(config).await;
    // Half of a head; a whole request, and then nothing.
    ends(&site, "POST / HTTP/1.1\r\nhost:").await;
    assert!(ends(&site, &post("test.Things/zeros", "1")).await.starts_with(b"HTTP/1.1 200"));
    // A body that does not come.
    let half = "POST /test.Things/zeros HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\n\
                content-length: 100\r\n\r\n1";
    assert_eq!(ask(site.address, half).await.problem(), (408, "body_timeout".to_owned()));
}

#[tokio::test]
async fn connections_over_the_limit_wait_for_a_place() {
    let mut config = config();
    config.connections_max = 1;
    let site = Site::start(config).await;
    let mut first = TcpStream::connect(site.address).await.unwrap();
    first.write_all(post("test.Things/zeros", "1").as_bytes()).await.unwrap();
    assert_eq!(read(&mut first, false).await.unwrap().status, 200);
    let mut second = TcpStream::connect(site.address).await.unwrap();
    second.write_all(post("test.Things/toss", "1").as_bytes()).await.unwrap();
    // The first has its place while it is there: whatever it asks comes before the other's.
    for _ in 0..100 {
        first.write_all(post("test.Things/zeros", "1").as_bytes()).await.unwrap();
        assert_eq!(read(&mut first, false).await.unwrap().status, 200);
    }
    let tossed = tokio::time::timeout(Duration::ZERO, site.shelf.tossed.wait()).await;
    assert!(tossed.is_err(), "the second is served beside the first");
    drop(first);
    assert_eq!(read(&mut second, false).await.unwrap().status, 202);
}

#[tokio::test]
async fn what_runs_is_finished_when_the_gateway_stops() {
    let mut site = Site::start(config()).await;
    let mut stream = begin(&site, "test.Things/held").await;
    // One that does nothing does not keep it.
    let mut idle = TcpStream::connect(site.address).await.unwrap();
    site.shelf.entered.wait().await;
    site.tell_to_stop();
    // Nobody is let in any more, once it has heard of it.
    while TcpStream::connect(site.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    site.shelf.release.give();
    let got = read(&mut stream, false).await.unwrap();
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"7"[..]));
    let mut nothing = Vec::new();
    let _ = idle.read_to_end(&mut nothing).await;
    assert_eq!(site.stopped().await.cut_off, 0);
}

#[tokio::test]
async fn what_runs_too_long_then_is_cut_off() {
    let mut config = config();
    config.drain_timeout = SOON;
    let mut site = Site::start(config).await;
    let mut stream = begin(&site, "test.Things/hang").await;
    site.shelf.hangs.wait().await;
    site.tell_to_stop();
    site.shelf.dropped.wait().await;
    assert!(read(&mut stream, false).await.is_none());
    assert_eq!(site.stopped().await.cut_off, 1);
}
