//! Loads: what is counted, not how fast it was.

use ringcall_cli::Exit;
use serde_json::Value;

use crate::served::{ringcall, ringcall_with, serve, serve_silently};

fn load(at: &str, method: &str, more: &[&str]) -> (Exit, Value) {
    let args = [&["load", at, method, "--json", "--duration", "300ms"], more].concat();
    let ran = ringcall(&args);
    (ran.exit, ran.json())
}

/// Calls are replies and errors; nothing is left over.
fn counted(load: &Value) -> (u64, u64, u64) {
    let number = |value: &Value| value.as_u64().unwrap_or_else(|| panic!("{load}"));
    let errors = load["errors"].as_object().unwrap().values().map(number).sum();
    let (calls, replies) = (number(&load["calls"]), number(&load["replies"]));
    assert_eq!(calls, replies + errors, "{load}");
    assert_eq!(load["unfinished"], 0, "{load}");
    (calls, replies, errors)
}

#[test]
fn a_closed_loop_counts_replies() {
    let (server, at) = serve();
    let (exit, load) = load(&at, "test.Market/last", &[r#"{"code": "ABC"}"#, "--connections", "2"]);
    let (calls, replies, errors) = counted(&load);
    assert_eq!((exit, errors), (Exit::Done, 0), "{load}");
    assert!(calls >= 64 && replies == calls, "{load}");
    let latency = |name: &str| load["latency_us"][name].as_f64().unwrap();
    assert!(latency("min") > 0.0 && latency("p50") <= latency("p99.9"), "{load}");
    assert!(latency("p99.9") <= latency("max"), "{load}");
    assert_eq!((&load["connections"], &load["not_begun"]), (&2.into(), &Value::Null));
    // The server was asked so often: what comes before the load is the catalog, of two services.
    assert_eq!(server.stop().requests_taken, calls + 3);
}

#[test]
fn an_open_loop_makes_as_many_calls_as_are_due() {
    let (_server, at) = serve();
    let (exit, load) = load(&at, "test.Market/nothing", &["--rate", "1000"]);
    let (calls, replies, _) = counted(&load);
    assert_eq!((exit, calls), (Exit::Done, replies), "{load}");
    // 300 are due; those that were not begun are counted.
    let not_begun = load["not_begun"].as_u64().unwrap();
    assert!((calls..=300).contains(&(300 - not_begun)) && calls > 0, "{load}");
    assert_eq!(calls + not_begun, 300, "{load}");
}

#[test]
fn an_open_loop_says_what_its_callers_had_no_time_for() {
    let (_server, at) = serve();
    let more = ["--rate", "1000", "--in-flight", "2", "--deadline", "100ms"];
    let (exit, load) = load(&at, "test.Market/hang", &more);
    let (calls, replies, errors) = counted(&load);
    // Two at a time, for as long as there is time for another one.
    assert_eq!((exit, replies, calls), (Exit::Failed, 0, errors), "{load}");
    assert!((2..=8).contains(&calls), "{load}");
    assert_eq!(load["not_begun"].as_u64().unwrap() + calls, 300, "{load}");
    assert_eq!(load["latency_us"], Value::Null);
}

#[test]
fn errors_are_counted_by_kind() {
    let (_server, at) = serve();
    let (exit, answered) = load(&at, "test.Market/last", &[r#"{"code": "X"}"#]);
    let (calls, replies, _) = counted(&answered);
    assert_eq!((exit, replies), (Exit::HandlerError, 0));
    assert_eq!(answered["errors"]["handler"], calls);
    let (exit, refused) = load(&at, "test.Market/refuse", &[]);
    let (calls, ..) = counted(&refused);
    assert_eq!((exit, &refused["errors"]["OVERLOADED"]), (Exit::Failed, &calls.into()));
    let table = ringcall(&["load", &at, "test.Market/refuse", "--duration", "50ms"]);
    assert!(table.text().contains("  OVERLOADED: ") && table.text().contains("it did not run"));
    assert!(!table.text().contains("latency"), "{table:?}");
}

#[test]
fn a_server_that_goes_away_is_no_end_of_a_load() {
    let (server, at) = serve();
    let (exit, said) = std::thread::scope(|scope| {
        let load = scope.spawn(|| load(&at, "test.Market/nothing", &["--in-flight", "4"]));
        // It may be gone before the first call, or after: both are an end.
        server.stop();
        load.join().unwrap()
    });
    match said.get("failure") {
        Some(failure) => assert_eq!(failure["exit"], exit.code(), "{said}"),
        None => drop(counted(&said)),
    }
}

#[test]
fn methods_without_reply_and_bytes_are_loaded_too() {
    let (server, at) = serve();
    let (exit, load) = load(&at, "test.Market/note", &[r#""hello""#, "--in-flight", "4"]);
    let (calls, replies, _) = counted(&load);
    assert!(exit == Exit::Done && calls == replies && calls > 0, "{load}");
    server.stop();

    let (_server, at) = serve_silently();
    let args = ["load", &at, "test.Market/reverse", "-", "--raw", "--json", "--duration", "50ms"];
    let raw = ringcall_with(&args, b"abc");
    let (calls, replies, _) = counted(&raw.json());
    assert_eq!((raw.exit, calls), (Exit::Done, replies));
}

#[test]
fn a_table_is_for_people() {
    let (_server, at) = serve();
    let args = ["load", &at, "test.Market/nothing", "--duration", "50ms", "--rate", "100"];
    let table = ringcall(&args);
    let text = table.text();
    assert!(
        text.starts_with(&format!(
            "test.Market/nothing at {at}\nopen loop, 100 calls/s, at most 64"
        ))
    );
    for word in ["\ncalls ", "\nreplies ", "\nerrors ", "\n  p50 ", "\n  p99.9 ", "\n  max "] {
        assert!(text.contains(word), "{word:?}: {text}");
    }
    let nobody = ringcall(&["load", &at, "test.Market/nothing", "--in-flight", "0"]);
    assert_eq!(nobody.exit, Exit::Misused);
}
