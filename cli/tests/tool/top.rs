//! What a server does, as somebody looks on.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use ringcall::{RunningServer, Server};
use ringcall_cli::Exit;
use ringcall_metrics::{Inspection as _, Metrics};
use serde_json::Value;

use crate::served::{Floor, Market as _, MarketClient, Symbol, ringcall, serve};

fn inspected() -> (RunningServer, String) {
    let metrics = Metrics::new();
    let server = Server::bind("127.0.0.1:0").service(Floor.into_market());
    let server = server.observer(metrics.observer());
    let server = server.service(metrics.inspector().into_inspection()).start().expect("it starts");
    let address = server.address().to_string();
    (server, address)
}

fn method<'a>(look: &'a Value, name: &str) -> Option<&'a Value> {
    look["methods"].as_array()?.iter().find(|method| method["method"] == name)
}

/// Calls that were answered may be counted a moment later.
fn until(at: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    loop {
        let total = ringcall(&["top", at, "--total", "--json"]);
        assert_eq!(total.exit, Exit::Done, "{total:?}");
        let look = total.json();
        if is_so(&look) {
            return look;
        }
    }
}

#[test]
fn what_was_counted_is_shown_by_method() {
    let (_server, at) = inspected();
    let market = MarketClient::connect(&*at).wait().unwrap();
    for code in ["ABC", "ABC", "XYZ"] {
        let _ = market.last(&Symbol { code: code.into() }).wait();
    }
    let last = |look: &Value| method(look, "test.Market/last").cloned().unwrap_or_default();
    let look = until(&at, |look| last(look)["calls"] == 3);
    assert_eq!((&last(&look)["application"], &last(&look)["failed"]), (&1.into(), &0.into()));
    assert!(last(&look)["p50_us"].as_u64().is_some() && look["accepted"].as_u64() >= Some(1));

    let shown = ringcall(&["top", &at, "--total"]);
    assert_eq!((shown.exit, &*shown.stderr), (Exit::Done, ""));
    let line = shown.text().lines().find(|line| line.ends_with("  test.Market/last"));
    let columns: Vec<_> = line.expect("it was called").split_whitespace().collect();
    assert_eq!(&columns[..6], ["3", "0", "33.3", "%", "0.0", "%"], "{columns:?}");
    assert!(!shown.text().contains('\u{1b}'), "nobody looks at a terminal");

    let peers = ringcall(&["top", &at, "--total", "--peers", "--rows", "1"]);
    assert!(peers.text().contains("from 127.0.0.1"), "{peers:?}");
    assert!(peers.text().contains("more: `--rows`"), "{peers:?}");
}

#[test]
fn between_two_looks_is_what_was_done_meanwhile() {
    let (_server, at) = inspected();
    let market = MarketClient::connect(&*at).wait().unwrap();
    let calls = |of: &Value| {
        method(of, "test.Market/nothing").map_or(0, |it| it["calls"].as_u64().unwrap())
    };
    for _ in 0..50 {
        market.nothing().wait().unwrap();
    }
    until(&at, |look| calls(look) == 50);
    let quiet = ringcall(&["top", &at, "--times", "1", "--every", "60ms", "--json"]);
    assert_eq!((quiet.exit, calls(&quiet.json())), (Exit::Done, 0));

    let is_over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(Ordering::Relaxed) {
                market.nothing().wait().unwrap();
            }
        });
        let shown = ringcall(&["top", &at, "--times", "3", "--every", "60ms", "--json"]);
        is_over.store(true, Ordering::Relaxed);
        let looks: Vec<Value> =
            shown.text().lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!((shown.exit, looks.len()), (Exit::Done, 3));
        assert!(looks.iter().any(|look| calls(look) > 0), "{looks:?}");
        assert!(looks.iter().all(|look| look["interval_us"].as_u64() >= Some(50_000)), "{looks:?}");
    });
}

#[test]
fn a_server_that_does_not_say_is_told_apart() {
    let (_server, at) = serve();
    let shown = ringcall(&["top", &at]);
    assert!(
        shown.says(Exit::Failed).contains("metrics.inspector().into_inspection()"),
        "{shown:?}"
    );
    let shown = ringcall(&["top", "registry:127.0.0.1:1/test.Market"]);
    assert!(shown.says(Exit::Misused).contains("one server"), "{shown:?}");
    assert_eq!(ringcall(&["top", &at, "--every", "0s"]).exit, Exit::Misused);
    assert_eq!(ringcall(&["top", &at, "--total", "--times", "3"]).exit, Exit::Misused);
}
