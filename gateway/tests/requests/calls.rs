//! What becomes of requests that are calls.

use http::{Request, StatusCode};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use ringcall::Bytes;
use serde_json::json;
use tokio::net::TcpStream;

use crate::support::{Site, ask, config, post_with};

#[tokio::test]
async fn an_argument_in_json_gives_a_reply_in_json() {
    let site = Site::start(config()).await;
    let thing = json!({ "name": "grün", "size": 7, "parts": [{ "number": u64::MAX }] });
    let got = site.call("test.Things/same", &thing.to_string()).await;
    assert_eq!((got.status, got.json()), (StatusCode::OK, thing));
    assert_eq!(got.header("x-content-type-options"), "nosniff");

    // No body is null, also without a type.
    let got = ask(site.address, post_with("test.Things/seen", "", "")).await;
    assert_eq!(got.status, StatusCode::OK);
    assert_eq!(got.json()["metadata"], json!([]));
    // Names are written as URLs have them.
    let got = site.call("test.Things/%73een", "null").await;
    assert_eq!(got.status, StatusCode::OK);
}

#[tokio::test]
async fn bytes_go_and_come_as_they_are() {
    let site = Site::start(config()).await;
    let bytes = "content-type: application/octet-stream\r\n";
    let got = ask(site.address, post_with("test.Things/reverse", bytes, "a\"b\u{1}")).await;
    assert_eq!((got.status, &got.body[..]), (StatusCode::OK, &b"\x01b\"a"[..]));
    assert_eq!(got.header("content-type"), "application/octet-stream");
    let got = ask(site.address, post_with("test.Things/reverse", "", "")).await;
    assert_eq!((got.status, got.body.len()), (StatusCode::OK, 0));
    // JSON in, bytes out.
    let got = site.call("test.Things/zeros", "100000").await;
    assert_eq!((got.status, got.body), (StatusCode::OK, vec![0; 100_000]));
}

#[tokio::test]
async fn a_call_without_reply_is_accepted_and_runs() {
    let site = Site::start(config()).await;
    let got = site.call("test.Things/toss", "7").await;
    assert_eq!(got.status, StatusCode::ACCEPTED);
    site.shelf.tossed.wait().await;
}

#[tokio::test]
async fn an_error_of_the_handler_is_a_value() {
    let large = json!({ "name": "", "size": 101, "parts": [] }).to_string();
    let error = json!({ "error": { "TooLarge": { "most": 100 } } });
    let site = Site::start(config()).await;
    let got = site.call("test.Things/same", &large).await;
    assert_eq!((got.status, got.json()), (StatusCode::UNPROCESSABLE_ENTITY, error.clone()));

    let mut config = config();
    config.error_status = StatusCode::CONFLICT;
    let site = Site::start(config).await;
    let got = site.call("test.Things/same", &large).await;
    assert_eq!((got.status, got.json()), (StatusCode::CONFLICT, error));
}

#[tokio::test]
async fn http_2_is_spoken_as_well() {
    let site = Site::start(config()).await;
    let stream = TcpStream::connect(site.address).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .unwrap();
    let connection = tokio::spawn(connection);
    let uri = format!("http://{}/test.Things/zeros", site.address);
    let request = Request::post(uri).header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"3"))).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), [0; 3][..]);
    drop(sender);
    connection.await.unwrap().unwrap();
}

#[tokio::test]
async fn a_gateway_answers_within_a_service_of_somebody_else() {
    let site = Site::start(config()).await;
    let request = Request::post("/test.Things/zeros").header("content-type", "application/json");
    let request = request.body(Full::new(Bytes::from_static(b"3"))).unwrap();
    let gateway = site.gateway.clone();
    // In a task, as it is there.
    let answer = tokio::spawn(async move { gateway.handle(request).await }).await.unwrap();
    assert_eq!(answer.status(), StatusCode::OK);
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), [0; 3][..]);
}
