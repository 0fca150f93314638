//! Streams, in lines of JSON.

use std::sync::atomic::Ordering::SeqCst;
use std::time::Duration;

use http::Request;
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringcall::Bytes;
use ringcall_gateway::GatewayConfig;
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use crate::support::{Exchange, Fed, Site, ask, config, post, post_with};

const SOON: Duration = Duration::from_millis(50);
const NDJSON: &str = "content-type: application/x-ndjson\r\n";

fn with(change: impl FnOnce(&mut GatewayConfig)) -> GatewayConfig {
    let mut config = config();
    change(&mut config);
    config
}

async fn feed(site: &Site) -> Exchange {
    let mut exchange = Exchange::ask(site, post("test.Things/feed", "null")).await;
    exchange.head().await;
    exchange
}

fn item(value: u64) -> Option<Value> {
    Some(json!({ "item": value }))
}

/// Of a failure in the last line.
fn code(line: Option<Value>) -> String {
    let failure = &line.expect("a last line")["failure"];
    assert!(failure["message"].is_string() && failure["may_have_run"] == true, "{failure}");
    failure["code"].as_str().expect("a code").to_owned()
}

// ---- of the server ----

#[tokio::test]
async fn items_are_seen_as_they_come() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::ask(&site, post("test.Things/feed", "null")).await;
    // Before there is any item.
    let headers = exchange.head().await;
    assert_eq!(headers["x-meta-feed"], "begins");
    assert_eq!(headers["cache-control"], "no-store");
    for number in 0..5 {
        site.shelf.feed.put(Fed::Item(number));
        assert_eq!(exchange.value().await, item(number));
    }
    site.shelf.feed.put(Fed::End);
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
    assert_eq!(exchange.line().await, None);
    assert!(exchange.has_ended);
}

#[tokio::test]
async fn a_stream_takes_an_argument_as_every_method_does() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::ask(&site, post("test.Things/count", "2")).await;
    exchange.head().await;
    assert_eq!((exchange.value().await, exchange.value().await), (item(0), item(1)));
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
    // Nothing is a stream, too.
    let mut exchange = Exchange::ask(&site, post("test.Things/count", "0")).await;
    exchange.head().await;
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));

    let got = site.call("test.Things/count", "\"a\"").await;
    assert_eq!(got.problem(), (400, "bad_argument".to_owned()));
    let got = ask(site.address, post_with("test.Things/count", NDJSON, "2")).await;
    assert_eq!(got.problem(), (415, "unsupported_media_type".to_owned()));
}

#[tokio::test]
async fn what_comes_in_place_of_a_stream_is_an_answer() {
    let site = Site::start(config()).await;
    let got = site.call("test.Things/flawed", "null").await;
    assert_eq!(
        (got.status.as_u16(), got.json()["error"]["TooLarge"]["most"].clone()),
        (422, json!(7))
    );
    let request = post_with("test.Things/late", "x-deadline: 20ms\r\n", "");
    assert_eq!(ask(site.address, request).await.problem().0, 504);
    let Site { server, address, .. } = site;
    server.drained().await;
    let got = ask(address, post("test.Things/count", "1")).await;
    assert_eq!(got.problem().0, 503);
}

#[tokio::test]
async fn a_stream_that_breaks_off_says_so_in_its_last_line() {
    let site = Site::start(config()).await;
    let mut exchange = feed(&site).await;
    site.shelf.feed.put(Fed::Item(1));
    site.shelf.feed.put(Fed::Flaw);
    assert_eq!(exchange.value().await, item(1));
    let error = json!({ "error": { "TooLarge": { "most": 7 } } });
    assert_eq!(exchange.value().await, Some(error));
    assert_eq!(exchange.line().await, None);

    let mut exchange = feed(&site).await;
    site.shelf.feed.put(Fed::Item(2));
    site.shelf.feed.put(Fed::Panic);
    assert_eq!(exchange.value().await, item(2));
    assert_eq!(code(exchange.value().await), "internal");
    assert_eq!(exchange.line().await, None);
}

#[tokio::test]
async fn a_deadline_is_for_the_beginning() {
    let site = Site::start(with(|it| it.heartbeat = Duration::from_millis(50))).await;
    let request = post_with("test.Things/feed", "x-deadline: 5s\r\n", "");
    let mut exchange = Exchange::ask(&site, request).await;
    exchange.head().await;
    // Longer than that.
    for _ in 0..120 {
        assert_eq!(exchange.line().await.as_deref(), Some(""));
    }
    site.shelf.feed.put(Fed::Item(1));
    assert_eq!(exchange.value().await, item(1));
    drop(exchange);
    site.shelf.dropped.wait().await;
}

#[tokio::test]
async fn a_deadline_is_what_the_request_or_the_method_says_up_to_the_most_that_is_allowed() {
    // The method says 30 s.
    let short = Duration::from_millis(20);
    let site = Site::start(with(|it| (it.deadline, it.deadline_max) = (short, short))).await;
    assert_eq!(site.call("test.Things/late", "null").await.problem().0, 504);

    let site = Site::start(config()).await;
    let ms = |headers: &http::HeaderMap| -> u64 {
        headers["x-meta-remaining-ms"].to_str().unwrap().parse().expect("milliseconds")
    };
    // This one says nothing, and may take as long as its caller, if that says nothing either.
    const HOUR: u64 = 3_600_000;
    for (said, range) in [
        ("", HOUR..=u64::MAX),
        ("x-deadline: 5s\r\n", 1..=5_000),
        ("x-deadline: 5m\r\n", 5_001..=60_000),
    ] {
        let headers = format!("{NDJSON}{said}");
        let got = ask(site.address, post_with("test.Things/sum", &headers, "1\n")).await;
        let given = ms(&got.headers);
        assert!(range.contains(&given), "{said}: {given}");
    }
}

// ---- of the caller ----

#[tokio::test]
async fn lines_are_items_and_the_reply_is_an_answer() {
    let site = Site::start(config()).await;
    for (kind, body) in [
        (NDJSON, "1\n{\"number\":2}\n{\"number\":3}\n"),
        // However its lines end, and with empty ones.
        (NDJSON, "\r\n \n1\r\n\n\n{\"number\":2}\r\n\t\n{\"number\":3}"),
        ("content-type: application/jsonl; charset=utf-8\r\n", "1\n{\"number\":5}\n\n"),
    ] {
        let got = ask(site.address, post_with("test.Things/sum", kind, body)).await;
        assert_eq!((got.status.as_u16(), got.json()), (200, json!(6)), "{body:?}");
        assert_eq!(got.header("x-meta-sum"), "yes");
    }
    assert_eq!(site.shelf.ended.load(SeqCst), 3);
    // An argument alone; nothing at all is null, which is none here.
    let got = ask(site.address, post_with("test.Things/sum", NDJSON, "4")).await;
    assert_eq!(got.json(), json!(4));
    let got = ask(site.address, post_with("test.Things/sum", "", "")).await;
    assert_eq!(got.problem(), (400, "bad_argument".to_owned()));
    let got = ask(site.address, post("test.Things/sum", "4")).await;
    assert_eq!(got.problem(), (415, "unsupported_media_type".to_owned()));
}

#[tokio::test]
async fn lines_are_sent_as_they_arrive_and_in_any_pieces() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
    exchange.send("1\n").await;
    site.shelf.entered.wait().await;
    for number in 1..5_u64 {
        exchange.send("{\"num").await;
        exchange.send(&format!("ber\":{number}}}")).await;
        exchange.send("\n").await;
        assert_eq!(site.shelf.parts.next().await, number);
    }
    exchange.send("{\"number\":5}\n{\"number\":6}\n{\"num").await;
    exchange.send("ber\":7}").await;
    exchange.end().await;
    assert_eq!(exchange.whole().await.json(), json!(29));
}

#[tokio::test]
async fn a_server_that_has_enough_is_answered_for_at_once() {
    let site = Site::start(config()).await;
    for (last, status) in [(0, 200), (13, 422)] {
        let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
        exchange.send(&format!("1\n{{\"number\":2}}\n{{\"number\":{last}}}\n")).await;
        // The body has not ended.
        let got = exchange.whole().await;
        assert_eq!(got.status.as_u16(), status);
        let mut rest = Vec::new();
        let _ = exchange.stream.read_to_end(&mut rest).await;
        assert!(rest.is_empty(), "nothing else comes there");
    }
    let mut exchange = Exchange::begin(&site, "test.Things/echo").await;
    exchange.send("1\n{\"number\":2}\n{\"number\":0}\n").await;
    exchange.head().await;
    assert_eq!(exchange.value().await, Some(json!({ "item": { "number": 3 } })));
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
    assert_eq!(site.shelf.ended.load(SeqCst), 0);
}

#[tokio::test]
async fn a_bad_line_gives_the_call_up() {
    let site = Site::start(config()).await;
    for (line, field) in [
        ("{\"number\":", None),
        ("{\"number\":-1}", Some("number")),
        ("7", Some("")),
        ("\u{1}", None),
        ("{\"number\":1} {\"number\":1}", None),
    ] {
        let body = format!("1\n{{\"number\":2}}\n\n{line}\n{{\"number\":3}}\n");
        let got = ask(site.address, post_with("test.Things/sum", NDJSON, &body)).await;
        assert_eq!(got.problem(), (400, "bad_item".to_owned()), "{line}");
        let body = got.json();
        assert_eq!((&body["line"], &body["may_have_run"]), (&json!(4), &json!(true)));
        assert_eq!(body["field"].as_str(), field, "{body}");
    }
    // An argument is one, too, but nothing has been called.
    for (line, code) in [("nul", "bad_json"), ("\"a\"", "bad_argument")] {
        let got = ask(site.address, post_with("test.Things/sum", NDJSON, &format!("\n{line}\n")));
        let got = got.await;
        assert_eq!(got.problem(), (400, code.to_owned()));
        let body = got.json();
        assert_eq!((&body["line"], &body["may_have_run"]), (&json!(2), &json!(false)));
    }
    // If the answer has begun, it is in the last line.
    let mut exchange = Exchange::begin(&site, "test.Things/echo").await;
    exchange.send("1\n{\"number\":2}\n").await;
    exchange.head().await;
    assert_eq!(exchange.value().await, Some(json!({ "item": { "number": 3 } })));
    exchange.send("{\"number\":\"a\"}\n").await;
    let last = exchange.value().await.unwrap();
    assert_eq!(
        (&last["failure"]["line"], &last["failure"]["field"]),
        (&json!(3), &json!("number"))
    );
    assert_eq!(code(Some(last)), "bad_item");
    assert_eq!(exchange.line().await, None);
    site.shelf.dropped.wait().await;
    // No handler has taken what came for all there is.
    assert_eq!(site.shelf.ended.load(SeqCst), 0);
}

#[tokio::test]
async fn bytes_are_lists_of_numbers() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::begin(&site, "test.Things/blobs").await;
    exchange.send("null\n\"ab\"\n[1,255]\n").await;
    exchange.end().await;
    exchange.head().await;
    assert_eq!(exchange.value().await, Some(json!({ "item": [97, 98] })));
    assert_eq!(exchange.value().await, Some(json!({ "item": [1, 255] })));
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
}

// ---- of both ----

#[tokio::test]
async fn both_sides_take_turns_over_http_1() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::begin(&site, "test.Things/echo").await;
    exchange.send("100\n").await;
    exchange.head().await;
    for number in 1..50_u64 {
        exchange.send(&format!("{{\"number\":{number}}}\n")).await;
        let expected = json!({ "item": { "number": number + 100 } });
        assert_eq!(exchange.value().await, Some(expected));
    }
    exchange.end().await;
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
    assert_eq!(exchange.line().await, None);
    assert!(exchange.has_ended);
}

/// A body that a test sends in pieces.
struct Pieces(tokio::sync::mpsc::UnboundedReceiver<String>);

impl hyper::body::Body for Pieces {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>> {
        let next = self.0.poll_recv(cx);
        next.map(|text| Some(Ok(hyper::body::Frame::data(text?.into()))))
    }
}

async fn http_2<B>(site: &Site, window: u32) -> http2::SendRequest<B>
where
    B: hyper::body::Body<Data: Send, Error: std::error::Error + Send + Sync>
        + Unpin
        + Send
        + 'static,
{
    let stream = TcpStream::connect(site.address).await.unwrap();
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(window);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// The next frame of data, which is a line here.
async fn frame(body: &mut hyper::body::Incoming) -> Option<Value> {
    let frame = body.frame().await?.expect("it is whole").into_data().expect("data");
    Some(serde_json::from_slice(&frame).expect("a line of JSON"))
}

#[tokio::test]
async fn both_sides_take_turns_over_http_2() {
    let site = Site::start(config()).await;
    let mut sender = http_2(&site, 1 << 16).await;
    let (pieces, body) = tokio::sync::mpsc::unbounded_channel();
    let uri = format!("http://{}/test.Things/echo", site.address);
    let request = Request::post(uri).header("content-type", "application/x-ndjson");
    pieces.send("100\n".to_owned()).unwrap();
    let answer = sender.send_request(request.body(Pieces(body)).unwrap()).await.unwrap();
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["content-type"], "application/x-ndjson");
    let mut body = answer.into_body();
    for number in 1..50_u64 {
        pieces.send(format!("{{\"number\":{number}}}\n")).unwrap();
        let expected = json!({ "item": { "number": number + 100 } });
        assert_eq!(frame(&mut body).await, Some(expected));
    }
    drop(pieces);
    assert_eq!(frame(&mut body).await, Some(json!({ "end": null })));
    assert_eq!(frame(&mut body).await, None);
    assert_eq!(site.shelf.ended.load(SeqCst), 1);
}

#[tokio::test]
async fn a_gateway_streams_within_a_service_of_somebody_else() {
    let site = Site::start(config()).await;
    let request = Request::post("/test.Things/echo").header("content-type", "application/x-ndjson");
    let request = request.body(Full::new(Bytes::from_static(b"1\n{\"number\":2}\n"))).unwrap();
    let gateway = site.gateway.clone();
    let answer = tokio::spawn(async move { gateway.handle(request).await }).await.unwrap();
    // It goes to other threads there.
    let whole = tokio::spawn(answer.into_body().collect()).await.unwrap().unwrap().to_bytes();
    assert_eq!(whole, "{\"item\":{\"number\":3}}\n{\"end\":null}\n");
}

// ---- who goes away, or does nothing ----

#[tokio::test]
async fn a_reader_that_is_gone_has_given_the_stream_up() {
    let site = Site::start(config()).await;
    let exchange = feed(&site).await;
    drop(exchange);
    site.shelf.dropped.wait().await;
    // Also while it has not begun.
    let exchange = Exchange::ask(&site, post("test.Things/late", "null")).await;
    site.shelf.hangs.wait().await;
    drop(exchange);
    site.shelf.dropped.wait().await;
    // And one stream of many on a connection.
    let mut sender = http_2(&site, 1 << 16).await;
    let uri = format!("http://{}/test.Things/feed", site.address);
    let answer = sender.send_request(Request::post(uri).body(Full::new(Bytes::new())).unwrap());
    drop(answer.await.unwrap());
    site.shelf.dropped.wait().await;
}

#[tokio::test]
async fn a_sender_that_is_gone_has_not_ended_its_stream() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
    exchange.send("1\n{\"number\":2}\n").await;
    assert_eq!(site.shelf.parts.next().await, 2);
    drop(exchange);
    site.shelf.dropped.wait().await;
    let mut exchange = Exchange::begin(&site, "test.Things/echo").await;
    exchange.send("1\n{\"number\":2}\n").await;
    exchange.head().await;
    drop(exchange);
    site.shelf.dropped.wait().await;
    assert_eq!(site.shelf.ended.load(SeqCst), 0);
}

#[tokio::test]
async fn an_idle_stream_is_kept_and_says_now_and_then_that_it_is_there() {
    let site = Site::start(with(|it| {
        it.heartbeat = Duration::from_millis(5);
        it.stream_idle = Duration::from_millis(20);
        it.write_timeout = Duration::from_millis(20);
    }))
    .await;
    let mut exchange = feed(&site).await;
    for _ in 0..40 {
        assert_eq!(exchange.line().await.as_deref(), Some(""));
    }
    site.shelf.feed.put(Fed::Item(1));
    assert_eq!(exchange.value().await, item(1));
    drop(exchange);
    site.shelf.dropped.wait().await;
}

#[tokio::test]
async fn a_stream_that_says_nothing_is_not_an_idle_connection() {
    let site = Site::start(with(|it| it.write_timeout = Duration::from_millis(20))).await;
    let mut exchange = feed(&site).await;
    // Idle ones are closed meanwhile, one after the other.
    for _ in 0..4 {
        let mut idle = TcpStream::connect(site.address).await.unwrap();
        let _ = idle.read_to_end(&mut Vec::new()).await;
    }
    site.shelf.feed.put(Fed::Item(1));
    assert_eq!(exchange.value().await, item(1));
    drop(exchange);
    site.shelf.dropped.wait().await;
}

#[tokio::test]
async fn a_reader_that_does_not_read_is_cut_off() {
    let site = Site::start(with(|it| {
        it.write_timeout = SOON;
        it.streams_max = 1;
    }))
    .await;
    let mut exchange = Exchange::ask(&site, post("test.Things/texts", "100000")).await;
    exchange.head().await;
    site.shelf.dropped.wait().await;
    while ask(site.address, post("test.Things/flawed", "null")).await.status != 422 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn so_is_one_over_http_2_that_leaves_no_room_for_anything() {
    let site = Site::start(with(|it| it.write_timeout = SOON)).await;
    for window in [0, 50] {
        let mut sender = http_2(&site, window).await;
        let uri = format!("http://{}/test.Things/texts", site.address);
        let request = Request::post(uri).header("content-type", "application/json");
        let request = request.body(Full::new(Bytes::from_static(b"14"))).unwrap();
        let answer = sender.send_request(request).await.unwrap();
        site.shelf.dropped.wait().await;
        drop(answer);
    }
}

#[tokio::test]
async fn the_server_waits_for_a_reader() {
    let site = Site::start(config()).await;
    let request = Request::post("/test.Things/texts").header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"100000"))).unwrap();
    let mut body = site.gateway.handle(request).await.into_body();
    body.frame().await.expect("a line").expect("it is good");
    // Others have their turns, and so would whatever takes more than is asked for.
    for _ in 0..300 {
        assert_eq!(site.call("test.Things/zeros", "1").await.status, 200);
    }
    // What windows hold, and no more.
    let made = site.shelf.made.load(SeqCst);
    assert!(made < 60, "{made}");
    drop(body);
    site.shelf.dropped.wait().await;
}

#[tokio::test]
async fn a_sender_waits_for_the_server() {
    let site = Site::start(config()).await;
    let mut exchange = Exchange::begin(&site, "test.Things/later").await;
    exchange.send("null\n").await;
    site.shelf.entered.wait().await;
    // As much as goes, in items of 100 kB.
    let text = format!("{:x}\r\n\"{}\"\n\r\n", 100_003, "a".repeat(100_000));
    let mut written = 0;
    while tokio::time::timeout(SOON, exchange.stream.writable()).await.is_ok() {
        let more = exchange.stream.try_write(&text.as_bytes()[written % text.len()..]);
        written += more.unwrap_or(0);
        assert!(written < 400 * text.len(), "it takes everything");
    }
    site.shelf.release.give();
    let rest = text.as_bytes()[written % text.len()..].to_vec();
    tokio::io::AsyncWriteExt::write_all(&mut exchange.stream, &rest).await.unwrap();
    exchange.end().await;
    let count = exchange.whole().await.json().as_u64().unwrap();
    assert_eq!(count as usize, written / text.len() + 1);
}

#[tokio::test]
async fn a_body_of_which_nothing_comes_is_not_waited_for() {
    let site = Site::start(with(|it| it.stream_idle = SOON)).await;
    let timeout = (408, "body_timeout".to_owned());
    let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
    exchange.send("1\n{\"number\":2}\n").await;
    let got = exchange.whole().await;
    assert_eq!((got.problem(), got.json()["may_have_run"] == true), (timeout, true));
    site.shelf.dropped.wait().await;

    let mut exchange = Exchange::begin(&site, "test.Things/echo").await;
    exchange.send("1\n{\"number\":2}\n{\"num").await;
    exchange.head().await;
    assert_eq!(exchange.value().await, Some(json!({ "item": { "number": 3 } })));
    assert_eq!(code(exchange.value().await), "body_timeout");
    assert_eq!(exchange.line().await, None);
    site.shelf.dropped.wait().await;
    assert_eq!(site.shelf.ended.load(SeqCst), 0);
}

// ---- bounds ----

#[tokio::test]
async fn streams_and_calls_have_places_of_their_own() {
    let site = Site::start(with(|it| {
        it.streams_max = 1;
        it.in_flight_max = 1;
    }))
    .await;
    let mut held = Exchange::ask(&site, post("test.Things/held", "null")).await;
    site.shelf.entered.wait().await;
    let mut exchange = feed(&site).await;
    // Both are full.
    for method in ["test.Things/count", "test.Things/zeros"] {
        let got = site.call(method, "1").await;
        assert_eq!(got.problem(), (503, "gateway_busy".to_owned()), "{method}");
        let setting = if method.ends_with("count") { "streams_max" } else { "in_flight_max" };
        assert!(got.json()["message"].as_str().unwrap().contains(setting));
    }
    site.shelf.release.give();
    assert_eq!(held.whole().await.status, 200);
    assert_eq!(site.call("test.Things/zeros", "1").await.status, 200);
    // A place is free again when the stream has ended.
    site.shelf.feed.put(Fed::End);
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
    assert_eq!(exchange.line().await, None);
    let mut exchange = Exchange::ask(&site, post("test.Things/count", "1")).await;
    exchange.head().await;
}

#[tokio::test]
async fn lines_that_are_too_long_are_not_taken() {
    let site = Site::start(with(|it| it.body_bytes_max = 1000)).await;
    let too_large = (413, "body_too_large".to_owned());
    let long = " ".repeat(990);
    // What just fits is taken, and there may be many.
    let fits = format!("1\n{}", format!("{{\"number\":1}}{}\n", &long[..988]).repeat(20));
    let got = ask(site.address, post_with("test.Things/sum", NDJSON, &fits)).await;
    assert_eq!(got.json(), json!(21));
    for (body, line, ran) in [
        (format!("1\n{{\"number\":1}}{long}\n"), 2, true),
        (format!("1{long}          \n"), 1, false),
    ] {
        let got = ask(site.address, post_with("test.Things/sum", NDJSON, &body)).await;
        assert_eq!(got.problem(), too_large);
        let said = got.json();
        assert_eq!((&said["line"], &said["may_have_run"]), (&json!(line), &json!(ran)));
    }
    // One that never ends, in both places.
    for begin in ["", "1\n"] {
        let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
        if !begin.is_empty() {
            exchange.send(begin).await;
        }
        for _ in 0..11 {
            exchange.send(&"7".repeat(100)).await;
        }
        assert_eq!(exchange.whole().await.problem(), too_large);
    }
    // If the answer has begun.
    let mut exchange = Exchange::begin(&site, "test.Things/echo").await;
    exchange.send("1\n").await;
    exchange.head().await;
    exchange.send(&format!("{long}{long}")).await;
    assert_eq!(code(exchange.value().await), "body_too_large");
}

#[tokio::test]
async fn empty_lines_cost_nothing_and_do_not_replace_the_argument() {
    let site = Site::start(with(|it| {
        it.read_timeout = SOON;
        it.body_bytes_max = 1000;
    }))
    .await;
    // More than any line may have, and than there is of memory for a body.
    let body = format!("{}1{}{{\"number\":2}}\n", "\n".repeat(100_000), "\r\n".repeat(100_000));
    let got = ask(site.address, post_with("test.Things/sum", NDJSON, &body)).await;
    assert_eq!(got.json(), json!(3));
    // For ever.
    let timeout = (408, "body_timeout".to_owned());
    let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
    loop {
        let _ = exchange.stream.try_write(b"1\r\n\n\r\n");
        tokio::select! {
            biased;
            _ = exchange.stream.readable() => break,
            () = tokio::task::yield_now() => {}
        }
    }
    let got = exchange.whole().await;
    assert_eq!((got.problem(), got.json()["may_have_run"] == false), (timeout.clone(), true));
    // Half of a line.
    let mut exchange = Exchange::begin(&site, "test.Things/sum").await;
    exchange.send("[").await;
    assert_eq!(exchange.whole().await.problem(), timeout);
}

#[tokio::test]
async fn a_stream_that_ends_in_time_is_finished_when_the_gateway_stops() {
    let mut site = Site::start(config()).await;
    let mut exchange = feed(&site).await;
    site.tell_to_stop();
    while TcpStream::connect(site.address).await.is_ok() {
        tokio::task::yield_now().await;
    }
    site.shelf.feed.put(Fed::Item(1));
    assert_eq!(exchange.value().await, item(1));
    site.shelf.feed.put(Fed::End);
    assert_eq!(exchange.value().await, Some(json!({ "end": null })));
    assert_eq!(site.stopped().await.cut_off, 0);
}

#[tokio::test]
async fn one_that_does_not_is_cut_off() {
    let mut site = Site::start(with(|it| it.drain_timeout = SOON)).await;
    let mut exchange = feed(&site).await;
    site.tell_to_stop();
    site.shelf.dropped.wait().await;
    assert_eq!(exchange.value().await, None);
    assert!(!exchange.has_ended, "it does not look complete");
    assert_eq!(site.stopped().await.cut_off, 1);
}
