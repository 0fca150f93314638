//! Every command but `load`, and every exit code.

use ringcall_cli::{Exit, Io, run};
use serde_json::json;

use crate::served::{ringcall, ringcall_with, serve, serve_silently};

#[test]
fn a_list_has_a_line_for_each_method() {
    let (_server, at) = serve();
    let listed = ringcall(&["list", &at]);
    assert_eq!(listed.exit, Exit::Done, "{listed:?}");
    let line = |name: &str| {
        let of_method = |line: &&str| line.split_whitespace().next() == Some(name);
        let found = listed.text().lines().find(of_method);
        found.unwrap_or_else(|| panic!("{name} in {}", listed.text())).to_owned()
    };
    assert!(line("test.Market").ends_with("Prices as they are traded."));
    let last = line("test.Market/last");
    assert!(last.contains("idempotent") && last.ends_with("The last quote of a symbol."), "{last}");
    assert!(line("test.Market/note").contains("one-way"));
    assert!(line("test.Market/ticks").contains("streams"));
    assert_eq!(line("test.Market/nothing"), "test.Market/nothing");
    line("ringcall.Reflection/services");
}

#[test]
fn a_list_is_json_for_scripts() {
    let (_server, at) = serve();
    let listed = ringcall(&["list", &at, "--json"]).json();
    let market = listed.as_array().unwrap().iter().find(|it| it["service"] == "test.Market");
    let last = &market.unwrap()["methods"][0];
    assert_eq!(last["method"], "test.Market/last");
    assert_eq!((&last["idempotent"], &last["one_way"]), (&json!(true), &json!(false)));
    assert_eq!(last["deadline_ms"], 30_000.0);
    assert!(last["docs"].as_str().unwrap().contains("It may be old."));
}

#[test]
fn a_method_is_described_and_the_command_it_shows_is_one() {
    let (_server, at) = serve();
    let described = ringcall(&["describe", &at, "test.Market/last"]);
    let text = described.text();
    assert!(text.contains("    The last quote of a symbol.\n\n    It may be old.\n"), "{text}");
    assert!(text.contains("    async fn last(Symbol) -> Result<Quote, NoSuch>;\n"), "{text}");
    assert!(text.contains("    struct Symbol {\n        code: String,\n    }"), "{text}");
    assert!(text.contains("    deadline 30s, idempotent\n"), "{text}");
    let command = format!("    ringcall call {at} test.Market/last '{{\"code\":\"\"}}'\n");
    assert!(text.contains(&command), "{text}");
    // And so it can be called.
    let called = ringcall(&["call", &at, "test.Market/last", r#"{"code":""}"#]);
    assert_eq!(called.exit, Exit::HandlerError);
}

#[test]
fn services_are_described_one_or_all() {
    let (_server, at) = serve();
    let one = ringcall(&["describe", &at, "test.Market"]);
    assert!(one.text().starts_with("test.Market\n\n    Prices as they are traded.\n"));
    assert!(one.text().contains("async fn nothing();"));
    assert!(!one.text().contains("ringcall.Reflection"));
    let all = ringcall(&["describe", &at]);
    assert!(all.text().contains("test.Market/last") && all.text().contains("ringcall.Reflection"));
    let described = ringcall(&["describe", &at, "--json", "test.Market"]).json();
    assert_eq!(described[0]["methods"][0]["example"], json!({ "code": "" }));
    let method = ringcall(&["describe", &at, "--json", "test.Market/last"]).json();
    assert_eq!(method, described[0]["methods"][0]);
}

#[test]
fn schemas_are_those_of_argument_reply_and_error() {
    let (_server, at) = serve();
    let schema = ringcall(&["describe", &at, "--schema", "test.Market/last"]).json();
    assert_eq!(schema["argument"]["$ref"], "#/$defs/Symbol");
    assert_eq!(schema["reply"]["$ref"], "#/$defs/Quote");
    assert_eq!(schema["error"]["$ref"], "#/$defs/NoSuch");
    let all = ringcall(&["describe", &at, "--schema"]).json();
    assert_eq!(all["test.Market/last"], schema);
    assert_eq!(all["test.Market/nothing"].get("error"), None);
}

#[test]
fn what_is_not_there_is_told_with_what_there_is() {
    let (_server, at) = serve();
    let described = ringcall(&["describe", &at, "test.Markt"]);
    assert!(
        described.says(Exit::Misused).contains("; it has ringcall.Reflection, test.Market\n"),
        "{described:?}"
    );
    for command in ["describe", "call", "load"] {
        let ran = ringcall(&[command, &at, "Market/last"]);
        let said = ran.says(Exit::Misused);
        let expected = "ringcall: the server has no method Market/last; it has test.Market/last\n";
        assert_eq!(said, expected, "{command}");
    }
}

#[test]
fn a_call_prints_its_reply() {
    let (_server, at) = serve();
    let method = ["call", &at, "test.Market/last"];
    let with =
        |more: &[&'static str], stdin: &[u8]| ringcall_with(&[&method, more].concat(), stdin);
    let quote = json!({ "price": 42.0 });
    let called = with(&[r#"{"code": "ABC"}"#], b"");
    assert_eq!((called.exit, called.json(), &*called.stderr), (Exit::Done, quote.clone(), ""));
    assert_eq!(with(&["-"], br#"{"code": "ABC"}"#).json(), quote);
    assert_eq!(with(&["--unchecked", r#"{"code": "ABC"}"#], b"").json(), quote);
    let path = format!("{}/argument.json", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, r#"{ "code": "ABC" }"#).unwrap();
    let from_file = ringcall(&[&method, &[&*format!("@{path}")][..]].concat());
    assert_eq!(from_file.json(), quote);

    // What need not be said.
    assert_eq!(ringcall(&["call", &at, "test.Market/nothing"]).text(), "null\n");
    assert_eq!(ringcall(&["call", &at, "test.Market/note", r#""hello""#]).text(), "null\n");
}

#[test]
fn a_handlers_error_is_json_too() {
    let (_server, at) = serve();
    let called = ringcall(&["call", &at, "test.Market/last", r#"{"code": "X"}"#]);
    assert!(called.says(Exit::HandlerError).contains("test.Market/last: the handler answered"));
    assert_eq!(called.json(), json!({ "Symbol": { "code": "X" } }));
}

#[test]
fn what_goes_with_a_call_arrives_and_what_comes_with_it_is_shown() {
    let (_server, at) = serve();
    let called = ringcall(&[
        "call",
        &at,
        "test.Market/beside",
        "--metadata",
        "a=b=c",
        "--metadata",
        "d=",
        "--group",
        "canary",
        "--idempotency-key",
        "once",
        "--verbose",
    ]);
    assert_eq!(called.json(), json!(["a=b=c", "d=", "canary", "once"]));
    let beside = called.says(Exit::Done);
    assert!(beside.contains("metadata   answer: \u{fffd}[31mred\n"), "{beside}");
    for word in ["transport  ", "queued     ", "handled    ", "load       "] {
        assert!(beside.contains(word), "{word}: {beside}");
    }
    let envelope = ringcall(&["call", &at, "test.Market/beside", "--json"]).json();
    assert_eq!(envelope["reply"], json!([]));
    let answer = json!([{ "key": "answer", "value": "\u{1b}[31mred" }]);
    assert_eq!(envelope["metadata"], answer);
    assert!(envelope["handled_us"].is_u64());
}

#[test]
fn one_document_of_json_says_how_a_call_ended() {
    let (_server, at) = serve();
    let call =
        |method: &str, more: &[&str]| ringcall(&[&["call", &at, method, "--json"], more].concat());
    let error = call("test.Market/last", &[r#"{"code": "X"}"#]);
    assert_eq!(error.exit, Exit::HandlerError);
    assert_eq!(error.json()["error"], json!({ "Symbol": { "code": "X" } }));
    let failure = call("test.Market/hang", &["--deadline", "20ms"]);
    assert_eq!(failure.exit, Exit::Failed);
    assert_eq!(failure.json()["failure"]["may_have_run"], true);
    let misused = call("test.Market/last", &["7"]);
    assert_eq!(misused.exit, Exit::Misused);
    assert_eq!(misused.json()["failure"]["exit"], 2);
}

#[test]
fn bytes_go_and_come_as_they_are() {
    let (_server, at) = serve_silently();
    let raw = |more: &[&'static str], stdin: &[u8]| {
        ringcall_with(&[&["call", &at, "--raw"], more].concat(), stdin)
    };
    let bytes = raw(&["test.Market/reverse", "-"], &[0, 0xff, 0x1b]);
    assert_eq!((bytes.exit, bytes.stdout), (Exit::Done, vec![0x1b, 0xff, 0]));
    assert_eq!(raw(&["test.Market/reverse"], b"").stdout, b"");
    // Messages, of a server that does not tell of them.
    let json = [&["--codec", "json"], &["test.Market/last", r#"{"code": "ABC"}"#][..]].concat();
    assert_eq!(raw(&json, b"").json(), json!({ "price": 42.0 }));
    let packed = raw(&["--codec", "messagepack", "test.Market/last", "-"], b"\x81\xa4code\xa1X");
    assert_eq!((packed.exit, &packed.stdout[..2]), (Exit::HandlerError, &b"\x81\xa6"[..]));

    // They are not for terminals.
    let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
    let mut io = Io::of(std::io::empty(), &mut stdout, &mut stderr);
    io.stdout_is_terminal = true;
    let exit = run(["ringcall", "call", &at, "test.Market/reverse", "--raw"], io);
    assert_eq!((exit, stdout.is_empty()), (Exit::Misused, true));
    assert!(String::from_utf8(stderr).unwrap().contains("redirect the output"));
}

#[test]
fn mistakes_are_told_with_what_to_do() {
    let (_server, at) = serve();
    let says = |more: &[&str]| {
        let ran = ringcall(&[&["call", &at], more].concat());
        assert_eq!((ran.exit, ran.stdout.is_empty()), (Exit::Misused, true), "{ran:?}");
        ran.stderr
    };
    let last = "test.Market/last";
    assert_eq!(
        says(&[last, r#"{"code": 7}"#]),
        "ringcall: test.Market/last: `code`: a text is expected, not 7\n"
    );
    assert_eq!(
        says(&[last]),
        "ringcall: test.Market/last takes an argument, such as '{\"code\":\"\"}'\n"
    );
    assert!(says(&[last, "{"]).contains("the argument is no JSON: "));
    assert!(says(&[last, "@/no/such/file"]).contains("cannot read /no/such/file: "));
    assert!(says(&["test.Market/nothing", "--metadata", "k y=v"]).contains("a-z, 0-9"));
    assert!(says(&["test.Market/nothing", "--metadata", "key"]).contains("write it as key=value"));
    assert!(says(&["test.Market/nothing", "--deadline", "soon"]).contains("250ms"));
    assert!(says(&["no-method", "--raw"]).contains("package.Service/method"));
    assert!(says(&["test.Market/nothing", "--codec", "json"]).contains("--raw"));
    assert!(
        says(&["test.Market/nothing", "--credentials", "/no/such/file"]).contains("cannot read")
    );
}

#[test]
fn a_failure_says_whether_the_call_may_have_run() {
    let (_server, at) = serve();
    let expired = ringcall(&["call", &at, "test.Market/hang", "--deadline", "20ms"]);
    let said = expired.says(Exit::Failed);
    assert!(said.contains("it may have run") && said.contains("--deadline"), "{said}");
    let refused = ringcall(&["call", &at, "test.Market/refuse"]);
    assert!(refused.says(Exit::Failed).contains("it did not run"), "{refused:?}");
    assert_eq!(said.lines().count(), 1);
}

#[test]
fn a_server_that_does_not_tell_is_told_what_to_add() {
    let (_server, at) = serve_silently();
    for args in [&["list"][..], &["describe"], &["call"], &["load"]] {
        let method: &[&str] =
            if matches!(args[0], "call" | "load") { &["test.Market/nothing"] } else { &[] };
        let ran = ringcall(&[args, &[&at], method].concat());
        assert!(ran.says(Exit::Failed).contains("Interface.into_reflection()"), "{ran:?}");
    }
}

#[test]
fn nobody_is_there() {
    for command in ["list", "describe", "ping"] {
        let ran = ringcall(&[command, "unix:/no/such/socket"]);
        let said = ran.says(Exit::NotConnected);
        assert!(said.starts_with("ringcall: cannot connect to unix:/no/such/socket: "), "{said}");
    }
    let ran = ringcall(&["ping", "unix:/no/such/socket", "--json"]);
    assert_eq!((ran.exit, &ran.json()["failure"]["exit"]), (Exit::NotConnected, &json!(4)));
    let ran = ringcall(&["ping", "nowhere"]);
    assert!(ran.says(Exit::Misused).contains("127.0.0.1:7000"), "{ran:?}");
    let ran = ringcall(&["ping", "--transport", "pigeons", "127.0.0.1:1"]);
    assert!(ran.says(Exit::Misused).contains("auto, uring or epoll"), "{ran:?}");
}

#[test]
fn a_stranger_who_speaks_something_else_is_none_of_ours() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = listener.local_addr().unwrap().to_string();
    let stranger = std::thread::spawn(move || {
        use std::io::Write as _;
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n").unwrap();
        // Until the other side has gone.
        let _ = std::io::copy(&mut stream, &mut std::io::sink());
    });
    let ran = ringcall(&["ping", &at]);
    assert!(ran.says(Exit::NotConnected).contains("does not speak ringcall"), "{ran:?}");
    stranger.join().unwrap();
}

#[test]
fn a_ping_counts_round_trips() {
    let (_server, at) = serve_silently();
    let pinged = ringcall(&["ping", &at, "--count", "3", "--transport", "epoll"]);
    let text = pinged.text();
    assert!(text.starts_with(&format!("{at} speaks ringcall; connected in ")), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with(['1', '2', '3'])).count(), 3 + 1);
    assert!(text.contains("\nmin ") && text.contains("\nload       "), "{text}");
    let pinged = ringcall(&["ping", &at, "--count", "3", "--json"]).json();
    assert_eq!(pinged["round_trips_us"].as_array().unwrap().len(), 3);
    assert!(pinged["min_us"].as_f64() <= pinged["max_us"].as_f64());
    assert!(["uring", "epoll"].map(|name| json!(name)).contains(&pinged["transport"]["name"]));
}

#[test]
fn help_is_no_mistake() {
    let help = ringcall(&["--help"]);
    assert_eq!(help.exit, Exit::Done);
    assert!(help.text().contains("Exit codes: 0 done"));
    let said = ringcall(&["lst"]);
    assert!(said.says(Exit::Misused).contains("list"), "{said:?}");
}
