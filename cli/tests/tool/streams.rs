//! Methods with streams.

use ringcall_cli::Exit;
use serde_json::{Value, json};

use crate::served::{ringcall, ringcall_with, serve};

/// The lines, each of which is a value.
fn lines(text: &str) -> Vec<Value> {
    let line = |line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {text}"));
    text.lines().map(line).collect()
}

#[test]
fn items_are_printed_a_line_each() {
    let (_server, at) = serve();
    let called = ringcall(&["call", &at, "test.Market/ticks", "3"]);
    assert_eq!((called.exit, called.text(), &*called.stderr), (Exit::Done, "1\n2\n3\n", ""));
    let scripted = ringcall(&["call", &at, "test.Market/ticks", "2", "--json"]);
    let expected =
        [json!({ "item": 1 }), json!({ "item": 2 }), json!({ "end": null, "metadata": [] })];
    assert_eq!(lines(scripted.text()), expected);
    // What is described is a command.
    let described = ringcall(&["describe", &at, "test.Market/prices"]);
    let command =
        format!("    ringcall call {at} test.Market/prices --items '{{\"code\":\"\"}}'\n");
    assert!(described.text().contains(&command), "{}", described.text());
}

#[test]
fn items_are_sent_from_wherever_they_are() {
    let (_server, at) = serve();
    let total = ["call", &at, "test.Market/total", "100"];
    let with = |more: &[&'static str], stdin: &[u8]| ringcall_with(&[&total, more].concat(), stdin);
    assert_eq!(with(&["--items", "1 2\n3"], b"").text(), "106\n");
    assert_eq!(with(&["--items", ""], b"").text(), "100\n");
    assert_eq!(with(&["--items", "-"], b"1\n2\n").text(), "103\n");
    let many: String =
        (0..5000).map(|number| format!("{number}\n")).filter(|it| it != "13\n").collect();
    let path = format!("{}/items.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, &many).unwrap();
    let from_file = ringcall(&[&total[..], &["--items", &format!("@{path}")]].concat());
    assert_eq!(from_file.text(), format!("{}\n", 100 + (0..5000).sum::<u64>() - 13));
    let scripted = with(&["--items", "1", "--json"], b"").json();
    assert_eq!(scripted, json!({ "reply": 101, "metadata": [] }));

    // The server ends it, while there is more.
    let ended = with(&["--items", "-"], format!("1 13 {many}").as_bytes());
    assert!(ended.says(Exit::HandlerError).contains("the handler answered with this error"));
    assert_eq!(ended.json(), json!({ "Symbol": { "code": "13" } }));
}

#[test]
fn both_ways_at_once() {
    let (_server, at) = serve();
    let prices = ["call", &at, "test.Market/prices", "--items"];
    let with = |more: &[&'static str]| ringcall(&[&prices, more].concat());
    let called = with(&[r#"{"code": "ABC"} {"code": "ABC"}"#, "--verbose"]);
    assert_eq!(called.text(), "{\"price\":42.0}\n{\"price\":42.0}\n");
    assert!(called.says(Exit::Done).contains("metadata   floor: open"));
    let ended = with(&[r#"{"code": "ABC"} {"code": "X"} {"code": "ABC"}"#, "--json"]);
    assert_eq!(ended.exit, Exit::HandlerError);
    let expected = [
        json!({ "item": { "price": 42.0 } }),
        json!({ "error": { "Symbol": { "code": "X" } }, "metadata": [{ "key": "floor", "value": "open" }] }),
    ];
    assert_eq!(lines(ended.text()), expected);
}

#[test]
fn mistakes_with_items_are_told() {
    let (_server, at) = serve();
    let says =
        |args: &[&str]| ringcall(&[&["call", &at], args].concat()).says(Exit::Misused).to_owned();
    let told = says(&["test.Market/total", "1"]);
    assert!(told.contains("takes a stream: `--items` says what is sent, such as 0;"), "{told}");
    for method in [&["test.Market/ticks", "1"][..], &["test.Market/nothing"]] {
        let told = says(&[method, &["--items", "1"]].concat());
        assert!(told.contains("takes no stream: leave out `--items`"), "{told}");
    }
    let told = says(&["test.Market/total", "1", "--items", r#"1 "two""#]);
    assert!(told.contains("item 2: a whole number from 0 to"), "{told}");
    let told = says(&["test.Market/total", "1", "--items", "1 }"]);
    assert!(told.contains("the items are no JSON"), "{told}");
    let told = says(&["test.Market/total", "-", "--items", "-"]);
    assert!(told.contains("cannot both be standard input"), "{told}");
    let told = says(&["test.Market/total", "1", "--items", "@/nowhere/at/all"]);
    assert!(told.contains("cannot read /nowhere/at/all"), "{told}");
    let load = ringcall(&["load", &at, "test.Market/ticks", "1"]);
    assert!(load.says(Exit::Misused).contains("has streams, of which no load is made"));
}
