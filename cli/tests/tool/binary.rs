//! The program itself.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use crate::served::serve;

fn ringcall(args: &[&str], stdin: &[u8]) -> Output {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringcall"))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    child.stdin.take().unwrap().write_all(stdin).unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn exit_codes_are_those_of_the_table() {
    let (_server, at) = serve();
    let code = |args: &[&str]| ringcall(args, b"").status.code();
    let last = "test.Market/last";
    assert_eq!(code(&["list", &at]), Some(0));
    assert_eq!(code(&["call", &at, last, r#"{"code": "X"}"#]), Some(1));
    assert_eq!(code(&["call", &at, last, "7"]), Some(2));
    assert_eq!(code(&["call", &at]), Some(2));
    assert_eq!(code(&["call", &at, "test.Market/refuse"]), Some(3));
    assert_eq!(code(&["ping", "unix:/no/such/socket"]), Some(4));
}

#[test]
fn standard_input_and_output_are_the_programs() {
    let (_server, at) = serve();
    let called = ringcall(&["call", &at, "test.Market/last", "-"], br#"{"code": "ABC"}"#);
    assert!(called.status.success() && called.stderr.is_empty(), "{called:?}");
    let reply: serde_json::Value = serde_json::from_slice(&called.stdout).unwrap();
    assert_eq!(reply, serde_json::json!({ "price": 42.0 }));
    let raw = ringcall(&["call", &at, "test.Market/reverse", "-", "--raw"], b"\x00ab");
    assert_eq!(raw.stdout, b"ba\x00");
    let loaded = ringcall(
        &["load", &at, "test.Market/nothing", "--json", "--duration", "50ms", "--in-flight", "2"],
        b"",
    );
    let load: serde_json::Value = serde_json::from_slice(&loaded.stdout).unwrap();
    assert_eq!((&load["calls"], loaded.stderr.is_empty()), (&load["replies"], true));
}

#[test]
fn a_reader_who_goes_is_nothing_to_complain_about() {
    let (_server, at) = serve();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut list = Command::new(env!("CARGO_BIN_EXE_ringcall"));
    let listed = list.args(["list", &at]).stdout(writer).stderr(Stdio::piped()).output().unwrap();
    assert!(listed.status.success() && listed.stderr.is_empty(), "{listed:?}");
}
