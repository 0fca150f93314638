//! Each row of the tables of statuses in `docs/GATEWAY.md`.

use ringcall::{Cause, CloseReason, Failure, Missing, Status, StatusClass, TransportError};
use ringcall_core::ObjectError;
use ringcall_gateway::http_status;

use crate::support::{Site, ask, config, post, serve_switched};

const PAGE: &str = include_str!("../../../docs/GATEWAY.md");

fn refused(status: Status) -> Failure {
    Failure::from_status(status, 0).expect("no answer of a handler")
}

/// Failures, and the status and word of their answers.
fn rows() -> Vec<(Failure, u16, &'static str)> {
    let closed = Cause::Closed(CloseReason::Transport(TransportError::Refused));
    let unreadable = ObjectError::Ended;
    vec![
        (refused(Status::UNSUPPORTED), 501, "unsupported"),
        (refused(Status::UNKNOWN_METHOD), 404, "unknown_method"),
        (refused(Status::SHAPE_MISMATCH), 502, "shape_mismatch"),
        (refused(Status::UNKNOWN_CODEC), 501, "unknown_codec"),
        (refused(Status::BAD_BODY), 400, "bad_body"),
        (refused(Status::EXPIRED), 504, "expired"),
        (refused(Status::OVERLOADED), 503, "overloaded"),
        (refused(Status::DRAINING), 503, "draining"),
        (refused(Status::CANCELLED), 499, "cancelled"),
        (refused(Status::BAD_REQUEST), 502, "bad_request"),
        (refused(Status::UNAUTHENTICATED), 401, "unauthenticated"),
        (refused(Status::FORBIDDEN), 403, "forbidden"),
        (refused(Status::WRONG_GROUP), 503, "wrong_group"),
        (refused(Status::TOO_MUCH_METADATA), 431, "too_much_metadata"),
        (refused(Status::RATE_LIMITED), 429, "rate_limited"),
        (refused(Status::INTERNAL), 500, "internal"),
        (refused(Status::CANCELLED_RUNNING), 499, "cancelled_running"),
        (refused(Status::EXPIRED_RUNNING), 504, "expired_running"),
        (refused(Status::REPLY_FAILED), 502, "reply_failed"),
        (refused(Status::ABORTED), 502, "aborted"),
        (refused(Status::BAD_ITEM), 502, "bad_item"),
        (refused(Status::from_wire(0x7fff)), 503, "status"),
        (refused(Status::from_wire(0xffff)), 502, "status"),
        (Failure::not_sent(closed), 503, "closed"),
        (Failure::unknown(closed), 502, "closed"),
        (Failure::refused(Cause::GoAway), 503, "go_away"),
        (Failure::not_sent(Cause::NotReady), 503, "not_ready"),
        (Failure::unknown(Cause::Expired), 504, "expired"),
        (Failure::not_sent(Cause::Expired), 504, "expired"),
        (Failure::unknown(Cause::Cancelled), 499, "cancelled"),
        (Failure::not_sent(Cause::InFlightMax), 503, "in_flight_max"),
        (Failure::not_sent(Cause::QueueFull), 503, "queue_full"),
        (Failure::not_sent(Cause::TooLarge { limit: 7 }), 413, "too_large"),
        (Failure::not_sent(Cause::Encode), 500, "encode"),
        (Failure::not_sent(Cause::TooMuchMetadata), 431, "too_much_metadata"),
        (Failure::unknown(Cause::TooMuchMetadata), 502, "too_much_metadata"),
        (Failure::unknown(Cause::BadReply), 502, "bad_reply"),
        (Failure::unknown(Cause::StreamEnded), 502, "stream_ended"),
        (Failure::not_sent(Cause::Shutdown), 503, "shutdown"),
        (Failure::unknown(Cause::Unreadable(unreadable)), 500, "unreadable"),
        (Failure::unknown(Cause::Unwritable(unreadable)), 500, "unwritable"),
        (Failure::not_sent(Cause::no_instance(Missing::NoneKnown)), 503, "no_instance"),
        (Failure::not_sent(Cause::BreakerOpen), 503, "breaker_open"),
        (Failure::not_sent(Cause::Recovering), 503, "recovering"),
        (Failure::not_sent(Cause::Limited), 503, "limited"),
    ]
}

#[tokio::test]
async fn every_failure_has_its_status_and_says_whether_it_may_have_run() {
    let (switch, _server, address, _stop, _gateway) = serve_switched(config()).await;
    for (failure, status, code) in rows() {
        assert_eq!(http_status(&failure).as_u16(), status, "{failure:?}");
        switch.fail(failure);
        let got = ask(address, post("test.Things/zeros", "1")).await;
        assert_eq!(got.problem(), (status, code.to_owned()), "{failure:?}");
        assert_eq!(got.json()["may_have_run"], !failure.is_safe_to_retry(), "{failure:?}");
        assert!(!got.headers.contains_key("retry-after"), "{failure:?}");
        // 503 and 429 promise that it did not run.
        assert!(!matches!(status, 429 | 503) || failure.is_safe_to_retry(), "{failure:?}");
    }
    switch.mend();
    assert_eq!(ask(address, post("test.Things/zeros", "1")).await.status, 200);
}

#[test]
fn every_status_is_among_the_rows_and_every_row_on_the_page() {
    let rows = rows();
    for (status, name) in Status::ALL {
        let has_answer = matches!(status.class(), StatusClass::Ok | StatusClass::Application);
        let is_there = rows.iter().any(|(failure, ..)| failure.status() == Some(*status));
        assert!(has_answer || is_there, "{name}");
    }
    for (_, status, code) in rows {
        let line = PAGE.lines().find(|line| {
            line.starts_with(&format!("| {status} ")) && line.contains(&format!("`{code}`"))
        });
        assert!(line.is_some(), "the page has no row for {status} `{code}`");
    }
}

#[tokio::test]
async fn refusals_of_a_handler_come_with_advice_when_to_come_again() {
    let site = Site::start(config()).await;
    for (status, expected) in [(Status::OVERLOADED, 503), (Status::RATE_LIMITED, 429)] {
        let got = site.call("test.Things/refuse", &status.to_wire().to_string()).await;
        assert_eq!(got.problem().0, expected);
        // Whole seconds, and not too early.
        assert_eq!(got.header("retry-after"), "2");
        assert_eq!(got.json()["retry_after_ms"], 1500);
    }
}

#[tokio::test]
async fn what_a_server_really_answers() {
    let site = Site::start(config()).await;
    let got = site.call("test.Things/panics", "null").await;
    assert_eq!(got.problem(), (500, "internal".to_owned()));
    assert_eq!(got.json()["may_have_run"], true);

    let got = site.call("test.Things/none", "null").await;
    assert_eq!(got.problem(), (404, "unknown_method".to_owned()));

    let wrong = r#"{ "name": "a", "size": 1, "parts": [{ "number": 1 }, { "number": -1 }] }"#;
    let got = site.call("test.Things/same", wrong).await;
    assert_eq!(got.problem(), (400, "bad_argument".to_owned()));
    assert_eq!(got.json()["field"], "parts[1].number");
    assert_eq!(got.json()["may_have_run"], false);

    let request = crate::support::post_with("test.Things/hang", "x-deadline: 20ms\r\n", "");
    let got = ask(site.address, request).await;
    assert_eq!(got.status, 504);
}

#[tokio::test]
async fn a_server_that_is_gone_is_unavailable() {
    let site = Site::start(config()).await;
    assert_eq!(site.call("test.Things/zeros", "1").await.status, 200);
    let Site { server, address, .. } = site;
    server.drained().await;
    let got = ask(address, post("test.Things/zeros", "1")).await;
    assert_eq!(got.problem().0, 503);
    assert_eq!(got.json()["may_have_run"], false);
}
