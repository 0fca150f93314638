//! What is handed on of headers, in both directions, and what is not.

use http::HeaderName;
use serde_json::{Value, json};

use crate::support::{Site, ask, config, post_with};

async fn seen(site: &Site, headers: &str) -> Value {
    let got = ask(site.address, post_with("test.Things/seen", headers, "")).await;
    assert_eq!(got.status, 200, "{}", String::from_utf8_lossy(&got.body));
    got.json()
}

#[tokio::test]
async fn metadata_goes_both_ways() {
    let site = Site::start(config()).await;
    let headers = "X-Meta-Tenant: a\r\nx-meta-tenant: grün\r\nx-meta-b.c_d: \r\n";
    let got = ask(site.address, post_with("test.Things/seen", headers, "")).await;
    let mut metadata = got.json()["metadata"].as_array().unwrap().clone();
    metadata.sort_by_key(Value::to_string);
    assert_eq!(metadata, [json!(["b.c_d", ""]), json!(["tenant", "a"]), json!(["tenant", "grün"])]);
    let answers: Vec<_> = got.headers.get_all("x-meta-answer").iter().collect();
    assert_eq!(answers, ["yes".as_bytes(), "grün".as_bytes()]);
    // The end of a line cannot be in a header, and must not become another one.
    assert!(!got.headers.contains_key("x-meta-two-lines"));
}

#[tokio::test]
async fn the_prefix_is_a_setting() {
    let mut config = config();
    config.metadata_prefix = "rpc-".to_owned();
    let site = Site::start(config).await;
    let got = ask(site.address, post_with("test.Things/seen", "rpc-a: 1\r\nx-meta-b: 2\r\n", ""));
    let got = got.await;
    assert_eq!(got.json()["metadata"], json!([["a", "1"]]));
    assert_eq!(got.header("rpc-answer"), "yes");
}

#[tokio::test]
async fn what_nobody_has_named_is_not_passed_on() {
    let headers = "cookie: secret\r\nauthorization: Bearer secret\r\nx-other: secret\r\n";
    let site = Site::start(config()).await;
    assert_eq!(seen(&site, headers).await["metadata"], json!([]));

    let mut config = config();
    config.forwarded_headers = vec![HeaderName::from_static("authorization")];
    let site = Site::start(config).await;
    let metadata = seen(&site, headers).await["metadata"].clone();
    assert_eq!(metadata, json!([["authorization", "Bearer secret"]]));
}

#[tokio::test]
async fn trace_group_and_key_are_handed_on() {
    let site = Site::start(config()).await;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let headers =
        format!("traceparent: {trace}\r\nx-ringcall-group: canary\r\nidempotency-key: k-1\r\n");
    let seen_all = seen(&site, &headers).await;
    assert_eq!(seen_all["trace"], trace);
    assert_eq!(seen_all["group"], "canary");
    assert_eq!(seen_all["key"], "k-1");
    // What is no trace is none, as W3C wants it.
    assert_eq!(seen(&site, "traceparent: 00-zz\r\n").await["trace"], Value::Null);
}

#[tokio::test]
async fn a_deadline_is_that_of_the_request_or_the_method_up_to_the_most_that_is_allowed() {
    let mut config = config();
    config.deadline_max = std::time::Duration::from_secs(20);
    let site = Site::start(config).await;
    let remaining = |seen: Value| seen["remaining_ms"].as_u64().unwrap();
    // The method says 30 s.
    assert!((10_001..=20_000).contains(&remaining(seen(&site, "").await)));
    assert!((10_001..=20_000).contains(&remaining(seen(&site, "x-deadline: 5m\r\n").await)));
    assert!((1..=10_000).contains(&remaining(seen(&site, "x-deadline: 10s\r\n").await)));
}

#[tokio::test]
async fn bad_headers_are_told_apart() {
    let site = Site::start(config()).await;
    let long = "a".repeat(257);
    for headers in [
        "x-deadline: 5\r\n",
        "x-deadline: 0s\r\n",
        "x-deadline: -1s\r\n",
        "x-deadline: 99999999999999999999y\r\n",
        "x-deadline: 1s\r\nx-deadline: 2s\r\n",
        "x-ringcall-group: \r\n",
        "x-ringcall-group: grün\r\n",
        "idempotency-key: \r\n",
        &format!("idempotency-key: {long}\r\n"),
        &format!("x-ringcall-group: {long}\r\n"),
        "x-meta-: a\r\n",
        "x-meta-a'b: c\r\n",
    ] {
        let got = ask(site.address, post_with("test.Things/seen", headers, "")).await;
        assert_eq!(got.problem(), (400, "bad_header".to_owned()), "{headers}");
    }
    // More than a message may have beside it.
    let much = format!("x-meta-a: {}\r\n", "a".repeat(40_000));
    let got = ask(site.address, post_with("test.Things/seen", &much, "")).await;
    assert_eq!(got.problem(), (431, "too_much_metadata".to_owned()));
}
