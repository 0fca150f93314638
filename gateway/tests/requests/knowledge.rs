//! What the gateway knows of its server, and how it stays so.

use std::time::Duration;

use ringcall::{AnyChannel, Cause, Client, CloseReason, Failure, TransportError};
use ringcall_gateway::{Gateway, GatewayConfig};

use crate::support::{Switch, ask, client, config, others, post, serve, serve_switched};

const HOUR: Duration = Duration::from_secs(3600);

fn unreachable() -> Failure {
    Failure::not_sent(Cause::Closed(CloseReason::Transport(TransportError::Refused)))
}

fn every_hour() -> GatewayConfig {
    let mut config = config();
    config.refresh = HOUR;
    config
}

#[tokio::test]
async fn a_service_that_appears_is_found_when_it_is_called() {
    let mut config = every_hour();
    config.refresh_pause = Duration::ZERO;
    let (switch, _server, address, _stop, _gateway) = serve_switched(config).await;
    let truth = post("test.Others/truth", r#"{ "other": true }"#);
    assert_eq!(ask(address, &truth).await.problem().1, "unknown_method");
    let other = others();
    switch.turn(client(&other).await);
    let got = ask(address, &truth).await;
    assert_eq!((got.status.as_u16(), &got.body[..]), (200, &b"true"[..]));
    // What has gone is gone.
    assert_eq!(ask(address, post("test.Things/zeros", "1")).await.problem().0, 404);
}

#[tokio::test]
async fn methods_that_do_not_exist_do_not_keep_the_server_busy() {
    let mut config = every_hour();
    config.refresh_pause = HOUR;
    let (switch, _server, address, _stop, _gateway) = serve_switched(config).await;
    for number in 0..20 {
        let got = ask(address, post(&format!("test.Things/none-{number}"), "1")).await;
        assert_eq!(got.problem().0, 404);
    }
    assert_eq!(switch.asked(), 1);
}

#[tokio::test]
async fn a_service_that_appears_is_found_by_itself() {
    let mut config = config();
    config.refresh = Duration::from_secs(1);
    // Not because somebody calls it.
    config.refresh_pause = HOUR;
    let (switch, _server, address, _stop, _gateway) = serve_switched(config).await;
    assert_eq!(ask(address, post("test.Things/zeros", "1")).await.status, 200);
    let other = others();
    switch.turn(client(&other).await);
    loop {
        let got = ask(address, post("test.Others/truth", r#"{ "other": true }"#)).await;
        if got.status == 200 {
            break;
        }
        assert_eq!(got.problem().0, 404);
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn what_was_known_is_kept_through_an_outage() {
    let mut config = every_hour();
    config.refresh_pause = Duration::ZERO;
    let (switch, _server, address, _stop, _gateway) = serve_switched(config).await;
    let health = "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n";
    let listing = "GET /services.json HTTP/1.1\r\nhost: a\r\n\r\n";
    let before = ask(address, listing).await.json();
    assert_eq!(ask(address, health).await.status, 200);

    switch.break_off(unreachable());
    // It is asked again, in vain.
    assert_eq!(ask(address, post("test.Things/none", "1")).await.problem().0, 404);
    let got = ask(address, health).await;
    assert_eq!(got.status, 503);
    assert!(got.json()["reason"].as_str().unwrap().contains("refused"), "{}", got.json());
    assert_eq!(ask(address, listing).await.json(), before);
    assert_eq!(
        ask(address, post("test.Things/zeros", "1")).await.problem(),
        (503, "closed".to_owned())
    );

    switch.mend();
    assert_eq!(ask(address, post("test.Things/none", "1")).await.problem().0, 404);
    assert_eq!(ask(address, health).await.status, 200);
    assert_eq!(ask(address, post("test.Things/zeros", "1")).await.status, 200);
}

#[tokio::test]
async fn a_gateway_without_a_server_says_so() {
    let client = Client::connect("127.0.0.1:1").lazy().await.unwrap();
    let gateway = Gateway::new(AnyChannel::new(client), config()).unwrap();
    let (address, _stop, _serving) = serve(&gateway).await;
    let got = ask(address, post("test.Things/zeros", "1")).await;
    assert_eq!(got.problem(), (503, "not_known".to_owned()));
    assert_eq!(got.header("retry-after"), "1");
    for path in ["services.json", "openapi.json", "healthz"] {
        let got = ask(address, format!("GET /{path} HTTP/1.1\r\nhost: a\r\n\r\n")).await;
        assert_eq!(got.status, 503, "{path}");
    }
    // The page itself is there.
    assert_eq!(ask(address, "GET / HTTP/1.1\r\nhost: a\r\n\r\n").await.status, 200);
}

#[tokio::test]
async fn a_server_that_does_not_tell_is_told_what_to_do() {
    use crate::support::{Shelf, Things as _};
    let server = ringcall::Server::bind("127.0.0.1:0");
    let server = server.service(std::sync::Arc::new(Shelf::default()).into_things());
    let server = server.start().unwrap();
    let switch = Switch::to(client(&server).await);
    let gateway = Gateway::new(AnyChannel::new(switch), config()).unwrap();
    let (address, _stop, _serving) = serve(&gateway).await;
    let got = ask(address, "GET /healthz HTTP/1.1\r\nhost: a\r\n\r\n").await;
    assert_eq!(got.status, 503);
    assert!(got.json()["reason"].as_str().unwrap().contains("Interface.into_reflection()"));
}

#[test]
fn settings_that_make_no_sense_are_named() {
    type Change = fn(&mut GatewayConfig);
    let changes: [(&str, Change); 15] = [
        ("body_bytes_max", |it| it.body_bytes_max = usize::MAX),
        ("in_flight_max", |it| it.in_flight_max = 0),
        ("streams_max", |it| it.streams_max = 0),
        ("stream_idle", |it| it.stream_idle = Duration::ZERO),
        ("heartbeat", |it| it.heartbeat = Duration::MAX),
        ("connections_max", |it| it.connections_max = 0),
        ("read_timeout", |it| it.read_timeout = Duration::ZERO),
        ("write_timeout", |it| it.write_timeout = Duration::MAX),
        ("deadline", |it| it.deadline = HOUR),
        ("deadline_max", |it| it.deadline_max = Duration::ZERO),
        ("refresh", |it| it.refresh = Duration::ZERO),
        ("error_status", |it| it.error_status = http::StatusCode::OK),
        ("metadata_prefix", |it| it.metadata_prefix = "X-Meta-".to_owned()),
        ("metadata_prefix", |it| it.metadata_prefix = "x-meta".to_owned()),
        ("title", |it| it.title = "a".repeat(201)),
    ];
    for (setting, change) in changes {
        let mut config = GatewayConfig::default();
        assert_eq!(config.validate(), Ok(()));
        change(&mut config);
        let bad = config.validate().unwrap_err();
        assert_eq!(bad.setting(), setting);
        assert!(bad.to_string().starts_with(&format!("`GatewayConfig::{setting}` must be ")));
    }
}
