//! Services whose instances a registry knows.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ringcall::health::{Health as _, Readiness, Status};
use ringcall::reflection::{Interface, Reflection as _};
use ringcall::{Access, RunningServer, Server, ShardConfig};
use ringcall_cli::Exit;
use ringcall_registry::{Node, NodeConfig, Registrar, Registry as _, Tending};
use serde_json::json;

use crate::served::{Floor, Market as _, ringcall};

/// A node, and where it is.
fn node() -> (RunningServer, Tending, String) {
    let node = Node::new(NodeConfig::default());
    let tending = node.start(ShardConfig::default()).unwrap();
    let server = Server::bind("127.0.0.1:0").service(node.into_registry()).start().unwrap();
    let address = server.address().to_string();
    (server, tending, address)
}

fn serve(node: &str, readiness: &Readiness) -> RunningServer {
    let registrar = Registrar::new([node], "market").linger(Duration::ZERO);
    let server = Server::bind("127.0.0.1:0").service(Floor.into_market());
    let server = server.service(Interface.into_reflection());
    let server = server.service(readiness.clone().into_health());
    server.register(registrar).start().unwrap()
}

#[test]
fn every_command_but_ping_finds_instances() {
    let (_node, _tending, node) = node();
    let readiness = Readiness::new();
    let servers = [serve(&node, &readiness), serve(&node, &readiness)];
    let at = format!("registry:{node}/market");

    assert!(ringcall(&["list", &at]).text().contains("test.Market/last"));
    let described = ringcall(&["describe", &at, "test.Market/last"]);
    let command = format!("ringcall call {at} test.Market/last '{{\"code\":\"\"}}'");
    assert!(described.text().contains(&command), "{described:?}");
    let called = ringcall(&["call", &at, "test.Market/last", r#"{"code": "ABC"}"#, "--verbose"]);
    assert_eq!((called.exit, called.json()), (Exit::Done, json!({ "price": 42.0 })));
    assert!(called.stderr.contains("transport  "), "{called:?}");
    let failed = ringcall(&["call", &at, "test.Market/last", r#"{"code": "X"}"#]);
    assert_eq!(
        (failed.exit, failed.json()),
        (Exit::HandlerError, json!({ "Symbol": { "code": "X" } }))
    );
    let raw = ringcall(&["call", &at, "test.Market/reverse", "abc", "--raw"]);
    assert_eq!((raw.exit, &*raw.stdout), (Exit::Done, &b"cba"[..]));

    assert_eq!(ringcall(&["health", &at, "test.Market"]).exit, Exit::Done);
    readiness.set("test.Market", Status::NotServing);
    assert_eq!(ringcall(&["health", &at, "test.Market"]).exit, Exit::NotReady);
    let pinged = ringcall(&["ping", &at]);
    assert!(pinged.says(Exit::Misused).contains("one server"), "{pinged:?}");
    drop(servers);
}

#[test]
fn a_load_goes_to_all_of_them() {
    let (_node, _tending, node) = node();
    let readiness = Readiness::new();
    let servers = [serve(&node, &readiness), serve(&node, &readiness)];
    let at = format!("registry:{node}/market");
    for rate in [&[][..], &["--rate", "500"]] {
        let load = ["load", &at, "test.Market/nothing", "--json", "--duration", "300ms"];
        let loaded = ringcall(&[&load, rate].concat());
        assert_eq!(loaded.exit, Exit::Done, "{loaded:?}");
        let load = loaded.json();
        assert!(load["calls"].as_u64() > Some(50) && load["calls"] == load["replies"], "{load}");
    }
    for server in servers {
        assert!(server.stop().requests_taken > 25);
    }
    let several = ["load", &at, "test.Market/nothing", "--connections", "2"];
    assert!(ringcall(&several).says(Exit::Misused).contains("--connections"));
}

#[test]
fn who_is_not_found_is_told_with_where() {
    let (_node, _tending, node) = node();
    let soon = ["--connect-timeout", "300ms"];
    let list = |at: &str| ringcall(&[&["list", at][..], &soon].concat());
    let nobody = list(&format!("registry:{node}/nobody"));
    let text = format!("ringcall: the registry at {node} has no instance of nobody\n");
    assert_eq!(nobody.says(Exit::NotConnected), text);
    let nowhere = list("registry:unix:/no/such/socket/market");
    let said = nowhere.says(Exit::NotConnected);
    assert!(said.contains("no instance of market is known from unix:/no/such/socket: "), "{said}");
    let nonsense = list(&format!("registry:{node},nonsense/market"));
    assert!(nonsense.says(Exit::Misused).contains("\"nonsense\""), "{nonsense:?}");
    let nameless = list(&format!("registry:{node}/"));
    assert!(nameless.says(Exit::Misused).contains("behind the `/`"), "{nameless:?}");
    // One that is not listed any more, or not there.
    let gone = serve(&node, &Readiness::new());
    let at = format!("registry:{node}/market");
    assert_eq!(list(&at).exit, Exit::Done);
    gone.stop();
    assert_eq!(list(&at).exit, Exit::NotConnected);
}

#[test]
fn credentials_are_shown_to_instances_and_not_to_nodes() {
    let node = Node::new(NodeConfig::default());
    let _tending = node.start(ShardConfig::default()).unwrap();
    let were_shown = Arc::new(AtomicBool::new(false));
    let shown = Arc::clone(&were_shown);
    let server = Server::bind("127.0.0.1:0").service(node.into_registry());
    let server = server.authorize(move |who| {
        shown.fetch_or(who.credentials().is_some(), Ordering::SeqCst);
        Access::Allow
    });
    let server = server.start().unwrap();
    let node = server.address().to_string();
    let guarded = Server::bind("127.0.0.1:0").service(Interface.into_reflection());
    let guarded = guarded.authorize(|who| match who.credentials() {
        Some(shown) if shown.matches("secret") => Access::Allow,
        _ => Access::forbidden("who is this"),
    });
    let registrar = Registrar::new([&node], "market").linger(Duration::ZERO);
    let _guarded = guarded.register(registrar).start().unwrap();
    let path = format!("{}/instances-token", env!("CARGO_TARGET_TMPDIR"));
    std::fs::write(&path, "secret\n").unwrap();
    let at = format!("registry:{node}/market");
    assert_eq!(ringcall(&["list", &at, "--credentials", &path]).exit, Exit::Done);
    assert!(!were_shown.load(Ordering::SeqCst));
    let ran = ringcall(&["list", &at, "--connect-timeout", "300ms"]);
    assert!(ran.exit != Exit::Done && ran.stderr.contains("--credentials"), "{ran:?}");
}
