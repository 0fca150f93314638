//! Long runs of what exists already.

use std::process::Command;

/// What kernels lacked at some time, together.
const MASKS: [&str; 5] = [
    "no_sqarray, single_issuer",
    "taskrun_flag, multishot_accept",
    "coop_taskrun, single_issuer",
    "multishot_receive",
    "provided_buffers",
];

const TARGET: &str = "x86_64-unknown-linux-gnu";

/// The selection of packages and features is passed on, so that nothing is built that is there already.
pub(crate) fn masks(selection: &[&str]) -> Result<(), String> {
    for mask in MASKS {
        println!("without {mask}");
        let mut tests = cargo(&["test", "--quiet", "--test", "calls"]);
        tests.args(if selection.is_empty() { &["-p", "ringcall"] } else { selection });
        tests.env("RINGCALL_TRANSPORT", "uring").env("RINGCALL_URING_WITHOUT", mask);
        run(tests)?;
    }
    Ok(())
}

/// Receive buffers are overwritten when they are given back, and checked when they are lent again.
pub(crate) fn asan() -> Result<(), String> {
    let parts = [
        "-p ringcall-buf -p ringcall-uring -p ringcall-codec-rkyv --tests",
        "-p ringcall-tls --lib",
        "-p ringcall --features tls,lz4,zstd --test calls --test messages --test smoke --test tls \
         --test bodies --test compression --test metadata --test filters",
    ];
    for part in parts {
        let mut tests = cargo(&["+nightly", "test", "--quiet", "--target", TARGET]);
        tests.args(["--target-dir", "target/asan"]).args(part.split(' '));
        tests.env("RUSTFLAGS", "-Zsanitizer=address --cfg ringcall_poison");
        run(tests)?;
    }
    Ok(())
}

pub(crate) fn fuzz(seconds: &str) -> Result<(), String> {
    let mut script = Command::new("fuzz/run");
    script.arg(seconds);
    run(script)
}

/// Builds the simulator, with checks and optimised, and runs it.
pub(crate) fn sim(arguments: &[&str]) -> Result<(), String> {
    built("sim", "ringcall-sim", arguments)
}

/// Builds the attacks and the long run, optimised, and runs what is asked for.
pub(crate) fn hostile(arguments: &[&str]) -> Result<(), String> {
    built("release", "ringcall-hostile", arguments)
}

fn built(profile: &str, package: &str, arguments: &[&str]) -> Result<(), String> {
    run(cargo(&["build", "--quiet", "--profile", profile, "-p", package]))?;
    let mut program = Command::new(format!("target/{profile}/{package}"));
    program.args(arguments);
    let status = program.status().map_err(|error| format!("{program:?}: {error}"))?;
    // It has said why.
    if status.success() { Ok(()) } else { Err(format!("{package} failed")) }
}

pub(crate) fn cargo(arguments: &[&str]) -> Command {
    // Not `$CARGO`, which would not know another toolchain.
    let mut command = Command::new("cargo");
    command.args(arguments);
    command
}

fn run(mut command: Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
