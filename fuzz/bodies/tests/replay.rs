//! Every target on its corpus, and for a while on what becomes of it when it is damaged.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;

use ringcall_fuzz::havoc::{Havoc, LEN_MAX};
use ringcall_fuzz::{TARGETS, Target, canary};

/// How many damaged inputs a target gets. `FUZZ_INPUTS` says otherwise.
const INPUTS: u64 = 1000;
/// A corpus is here to be read, so it is small.
const FILES_MAX: usize = 64;

fn corpus(name: &str) -> Vec<Vec<u8>> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../corpus").join(name);
    let Ok(entries) = fs::read_dir(&folder) else { panic!("{name} has no corpus") };
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("it can be read").path()).collect();
    paths.sort();
    assert!((1..=FILES_MAX).contains(&paths.len()), "the corpus of {name}: {} files", paths.len());
    let inputs: Vec<_> = paths.iter().map(|path| fs::read(path).expect("it can be read")).collect();
    assert!(inputs.iter().all(|input| input.len() <= LEN_MAX), "the corpus of {name}: large files");
    inputs
}

/// Returns the input that the body panicked on, if one did.
fn search((name, body): Target, inputs: u64) -> Option<Vec<u8>> {
    let corpus = corpus(name);
    let mut havoc = Havoc::new(1);
    let damaged = (0..inputs).map(|_| havoc.next(&corpus));
    corpus
        .clone()
        .into_iter()
        .chain(damaged)
        .find(|input| catch_unwind(AssertUnwindSafe(|| body(input))).is_err())
}

fn inputs() -> u64 {
    std::env::var("FUZZ_INPUTS").map_or(INPUTS, |n| n.parse().expect("`FUZZ_INPUTS` is a number"))
}

fn holds(name: &str) {
    let target = TARGETS.into_iter().find(|target| target.0 == name).expect("it is a target");
    if let Some(input) = search(target, inputs()) {
        panic!("{name} fails with {input:02x?}");
    }
}

#[test]
fn frames() {
    holds("frames");
}

#[test]
fn handshake() {
    holds("handshake");
}

#[test]
fn fallback() {
    holds("fallback");
}

#[test]
fn connection() {
    holds("connection");
}

#[test]
fn views() {
    holds("views");
}

#[test]
fn shapes() {
    holds("shapes");
}

#[test]
fn ring() {
    holds("ring");
}

#[test]
fn inflate() {
    holds("inflate");
}

#[test]
fn records() {
    holds("records");
}

#[test]
fn tls() {
    holds("tls");
}

#[test]
fn generic() {
    holds("generic");
}

#[test]
fn every_target_is_replayed() {
    let source = include_str!("replay.rs");
    for (name, _) in TARGETS {
        assert!(source.contains(&format!("\n    holds(\"{name}\");")), "{name} is not replayed");
    }
}

/// If this search does not find that mistake, the others prove nothing.
#[test]
fn the_canary_is_found() {
    let sound = corpus("canary");
    assert!(sound.iter().all(|input| catch_unwind(|| canary(input)).is_ok()));
    assert!(search(("canary", canary), INPUTS).is_some(), "nothing was found");
}
