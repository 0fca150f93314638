//! A server whose texts are meant for the terminal.

use ringcall::reflection::{MethodDescription, NoSuchService, Reflection, ServiceDescription};
use ringcall::{Context, Server};
use ringcall_cli::Exit;

use crate::served::ringcall;

const CLEAR: &str = "\u{1b}[2J\u{9b}31m\u{7}\r\u{202e}";

struct Liar;

impl Reflection for Liar {
    async fn services(&self, _: &Context) -> Vec<String> {
        vec![format!("evil.{CLEAR}\nService")]
    }

    async fn describe(
        &self,
        _: &Context,
        service: String,
    ) -> Result<ServiceDescription, NoSuchService> {
        let method = MethodDescription {
            name: format!("m'{CLEAR}\n; rm"),
            docs: format!("{CLEAR}\n{CLEAR}second"),
            text_in: format!("rkyv-0.8/2;struct T{CLEAR}\n{{f{CLEAR}=string }}"),
            text_out: format!("rkyv-0.8/2;enum R{CLEAR}{{V{CLEAR}#0()}};never"),
            is_one_way: false,
            is_idempotent: false,
            deadline: None,
        };
        Ok(ServiceDescription { name: service, docs: CLEAR.to_owned(), methods: vec![method] })
    }
}

fn is_harmless(text: &str) -> bool {
    text.chars().all(|c| c == '\n' || !(c.is_control() || c == '\u{202e}'))
}

#[test]
fn nothing_that_a_server_says_acts_on_the_terminal() {
    let server = Server::bind("127.0.0.1:0").service(Liar.into_reflection()).start().unwrap();
    let at = server.address().to_string();
    for args in [
        &["list"][..],
        &["list", "--json"],
        &["describe"],
        &["describe", "--json"],
        &["describe", "--schema"],
    ] {
        let ran = ringcall(&[args, &[&at]].concat());
        assert_eq!(ran.exit, Exit::Done, "{ran:?}");
        let text = ran.text();
        assert!(text.contains("[2J") && is_harmless(text), "{args:?}: {text:?}");
        if args.contains(&"--json") {
            // It is still what the server has said.
            assert_eq!(ran.json()[0]["docs"], CLEAR);
        }
    }
    // Neither does what is said of what is not there.
    for method in ["evil/nothing", "evil"] {
        let ran = ringcall(&["describe", &at, method]);
        assert!(is_harmless(ran.says(Exit::Misused)), "{ran:?}");
    }
    let ran = ringcall(&["describe", &at, "evil"]);
    assert_eq!(ran.stderr.lines().count(), 1, "{ran:?}");
}

#[test]
fn a_command_to_copy_has_its_words_quoted() {
    let server = Server::bind("127.0.0.1:0").service(Liar.into_reflection()).start().unwrap();
    let described = ringcall(&["describe", &server.address().to_string()]);
    let text = described.text();
    let command = text.lines().find(|line| line.contains("ringcall call")).unwrap();
    // The quote of the name is one of the word, and what follows it is still in there.
    assert!(command.contains(r"/m'\''") && command.contains("; rm' '{"), "{command}");
}

#[test]
fn a_list_is_a_line_each_whatever_the_names() {
    let server = Server::bind("127.0.0.1:0").service(Liar.into_reflection()).start().unwrap();
    let listed = ringcall(&["list", &server.address().to_string()]);
    assert_eq!(listed.text().lines().count(), 2, "{listed:?}");
}

/// A server that says of its second method what only newer tools understand.
struct Newer;

impl Reflection for Newer {
    async fn services(&self, _: &Context) -> Vec<String> {
        vec!["test.Newer".to_owned()]
    }

    async fn describe(
        &self,
        _: &Context,
        service: String,
    ) -> Result<ServiceDescription, NoSuchService> {
        let method = |name: &str, text_in: &str| MethodDescription {
            name: name.to_owned(),
            docs: String::new(),
            text_in: text_in.to_owned(),
            text_out: "rkyv-0.8/2;unit;never".to_owned(),
            is_one_way: false,
            is_idempotent: false,
            deadline: None,
        };
        let methods = vec![method("old", "rkyv-0.8/2;u8"), method("new", "rkyv-9;<u8>;")];
        Ok(ServiceDescription { name: service, docs: String::new(), methods })
    }
}

#[test]
fn a_newer_server_is_listed_and_what_is_left_out_is_named() {
    let server = Server::bind("127.0.0.1:0").service(Newer.into_reflection()).start().unwrap();
    let at = server.address().to_string();
    for json in [&[][..], &["--json"]] {
        let listed = ringcall(&[&["list", &at][..], json].concat());
        assert_eq!(listed.exit, Exit::Done, "{listed:?}");
        assert!(listed.text().contains("test.Newer/old"), "{listed:?}");
        assert!(!listed.text().contains("test.Newer/new"), "{listed:?}");
        assert!(listed.stderr.contains("test.Newer/new is left out"), "{listed:?}");
    }
    let called = ringcall(&["call", &at, "test.Newer/new", "1"]);
    assert!(called.says(Exit::Misused).contains("cannot be understood"), "{called:?}");
}
