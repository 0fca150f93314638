//! All attacks at once, by a hundred connections for some seconds, on each engine; how fast honest calls are is not
//! looked at. `cargo xtask hostile` does it at length.
#![allow(clippy::print_stderr, reason = "what is skipped says why")]

use std::process::Command;

use ringcall::{Shard, ShardConfig, TransportChoice};
use ringcall_hostile::attackers::has_python;

fn attacked(engine: &str, attack: &str, seconds: &str, connections: &str) {
    if !has_python() {
        return eprintln!("skipped: there is no python3");
    }
    let mut suite = Command::new(env!("CARGO_BIN_EXE_ringcall-hostile"));
    suite.args(["hostile", "--untimed", "--rate", "200", "--engine", engine, "--only", attack]);
    // By the formula of ARCHITECTURE.md so many connections may hold more than the 256 MiB of the long run.
    suite.args([
        "--memory-mib",
        "1024",
        "--connections",
        connections,
        "--seconds",
        seconds,
        "--everything",
        seconds,
    ]);
    let output = suite.output().unwrap();
    let said = [output.stdout, output.stderr].concat();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&said));
}

fn has_io_uring() -> bool {
    let mut config = ShardConfig::default();
    config.transport = TransportChoice::Uring;
    let error = Shard::new(config).err();
    if let Some(error) = &error {
        assert!(std::env::var_os("RINGCALL_REQUIRE_URING").is_none(), "{error}");
        eprintln!("skipped: {error}");
    }
    error.is_none()
}

#[test]
fn an_honest_client_is_served_while_everything_is_tried_with_epoll() {
    attacked("epoll", "everything", "8", "100");
}

#[test]
fn an_honest_client_is_served_while_everything_is_tried_with_io_uring() {
    if has_io_uring() {
        attacked("uring", "everything", "8", "100");
    }
}

#[test]
fn each_flood_has_its_close_code_with_epoll() {
    attacked("epoll", "floods", "6", "28");
}

#[test]
fn each_flood_has_its_close_code_with_io_uring() {
    if has_io_uring() {
        attacked("uring", "floods", "6", "28");
    }
}

#[test]
fn each_broken_rule_has_its_close_code_with_epoll() {
    attacked("epoll", "rule_breakers", "10", "40");
}

#[test]
fn each_broken_rule_has_its_close_code_with_io_uring() {
    if has_io_uring() {
        attacked("uring", "rule_breakers", "10", "40");
    }
}
