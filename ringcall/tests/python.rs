//! A client in Python, written from `docs/PROTOCOL.md` alone, calls this server.
#![allow(clippy::print_stdout, reason = "a skipped test says why")]

use std::process::{Command, Stdio};
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread;
use std::time::Duration;

use ringcall::{Bytes, Context, Server, TransportChoice};

#[ringcall::service(name = "demo.Echo")]
trait Echo {
    async fn echo(&self, body: Bytes) -> Bytes;
    /// Replies after a moment.
    async fn slow(&self, body: Bytes, context: &Context) -> Bytes;
    /// Replies after a moment, and lets the server leave at once.
    async fn leave(&self, body: Bytes, context: &Context) -> Bytes;
}

#[derive(Clone)]
struct Demo {
    leave: SyncSender<()>,
}

impl Echo for Demo {
    async fn echo(&self, body: Bytes) -> Bytes {
        body
    }

    async fn slow(&self, body: Bytes, context: &Context) -> Bytes {
        context.sleep(Duration::from_millis(300)).await;
        body
    }

    async fn leave(&self, _body: Bytes, context: &Context) -> Bytes {
        let _ = self.leave.try_send(());
        context.sleep(Duration::from_millis(100)).await;
        Bytes::new()
    }
}

fn has_python() -> bool {
    let version = Command::new("python3").arg("--version").stdout(Stdio::null()).status();
    version.is_ok_and(|status| status.success())
}

/// Runs a scenario of `client.py` against servers over io_uring, where it works, and over epoll.
fn run(scenario: &str) {
    if !has_python() {
        println!("skipped: there is no python3");
        return;
    }
    for engine in [TransportChoice::Auto, TransportChoice::Epoll] {
        run_over(engine, scenario);
    }
}

/// The server stops when it is asked to leave.
fn run_over(engine: TransportChoice, scenario: &str) {
    let (leave, left) = sync_channel(1);
    let demo = Demo { leave: leave.clone() };
    let server = Server::bind("127.0.0.1:0").transport(engine).service(demo.into_echo());
    let server = server.start().unwrap();
    let client = Command::new("python3")
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/python/client.py"))
        .arg(server.address().to_string())
        .args(["--spec", concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/PROTOCOL.md")])
        .arg(scenario)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let stopping = thread::spawn(move || left.recv().map(|()| server.stop()));
    let output = client.wait_with_output().unwrap();
    let _ = leave.try_send(());
    stopping.join().unwrap().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "over {engine}: {said}{errors}");
    assert_eq!(said.lines().last(), Some(format!("ok {scenario}").as_str()), "{said}{errors}");
}

#[test]
fn bodies_of_every_size_come_back() {
    run("echo");
}

#[test]
fn what_does_not_fit_is_refused() {
    run("shape");
}

#[test]
fn the_server_leaves_and_finishes_what_it_accepted() {
    run("goaway");
}

#[test]
fn a_cancelled_call_ends_once() {
    run("cancel");
}
