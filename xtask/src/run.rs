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
        let mut tests = cargo(&["test", "--quiet", "--test", "suite"]);
        tests.args(if selection.is_empty() { &["-p", "ringcall"] } else { selection });
        tests.args(["--", "calls::"]);
        tests.env("RINGCALL_TRANSPORT", "uring").env("RINGCALL_URING_WITHOUT", mask);
        run(tests)?;
    }
    Ok(())
}

/// Models of threads in loom, models of connections with longer paths than in `cargo test`: how many orders,
/// paths and states there were; or those of threads only, since `cargo test` has the others with shorter paths. A target
/// directory of its own, since loom takes the place of atomics and locks.
pub(crate) fn models(of_threads_only: bool) -> Result<(), String> {
    let parts = [
        ("target/models", "-p ringcall-buf -p ringcall-net --lib models::", "--cfg ringcall_loom"),
        (
            "target/models",
            "-p ringcall --no-default-features --features epoll --lib models::",
            "--cfg ringcall_loom",
        ),
        ("target", "-p ringcall-core --test models", ""),
    ];
    let parts = if of_threads_only { &parts[..2] } else { &parts[..] };
    for &(target, part, flags) in parts {
        let mut tests = cargo(&["test", "--quiet", "--profile", "sim", "--target-dir", target]);
        tests.args(part.split(' ')).args(["--", "--nocapture", "--test-threads", "1"]);
        tests.env("RINGCALL_MODELS_DEEP", "1");
        if !flags.is_empty() {
            tests.env("RUSTFLAGS", flags);
        }
        let output = tests.output().map_err(|error| format!("{tests:?}: {error}"))?;
        let said = String::from_utf8_lossy(&output.stdout);
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr);
            return Err(format!("{said}\n{why}\n{tests:?}: {}", output.status));
        }
        said.lines()
            .filter_map(|line| line.split_once("model "))
            .for_each(|(_, line)| println!("{line}"));
    }
    Ok(())
}

/// Receive buffers are overwritten when they are given back, and checked when they are lent again; memory that
/// nobody can reach any more when a test binary ends fails it.
pub(crate) fn asan() -> Result<(), String> {
    let parts = [
        "-p ringcall-buf -p ringcall-net -p ringcall-epoll -p ringcall-uring -p ringcall-codec-rkyv --tests",
        "-p ringcall-tls --lib",
        "-p ringcall --features tls,lz4,zstd --test suite -- calls:: messages:: smoke:: tls:: bodies:: \
         compression:: metadata:: filters:: both_ways:: cancel:: ending:: streams::",
    ];
    for part in parts {
        run(sanitized(part))?;
    }
    // A sanitizer that does not look for leaks finds none: here is one.
    let mut leaks = sanitized("-p ringcall-buf --lib a_leak -- --ignored");
    let output = leaks.output().map_err(|error| format!("{leaks:?}: {error}"))?;
    let said = String::from_utf8_lossy(&output.stderr);
    match said.contains("LeakSanitizer: detected memory leaks") && !output.status.success() {
        true => Ok(()),
        false => Err(format!("a leak is not noticed: {said}")),
    }
}

fn sanitized(part: &str) -> Command {
    let mut tests = cargo(&["+nightly", "test", "--quiet", "--target", TARGET]);
    tests.args(["--target-dir", "target/asan"]).args(part.split(' '));
    tests.env("RUSTFLAGS", "-Zsanitizer=address --cfg ringcall_poison");
    tests.env("ASAN_OPTIONS", "detect_leaks=1");
    tests
}

pub(crate) fn fuzz(seconds: &str) -> Result<(), String> {
    let mut script = Command::new("fuzz/run");
    script.arg(seconds);
    run(script)
}

/// Rows of `docs/FAULTS.md` that have neither a test nor a reason why they cannot happen.
pub(crate) fn faults() -> Result<(), String> {
    let mut list =
        cargo(&["test", "--quiet", "-p", "ringcall-core", "--test", "faults_page", "--"]);
    list.args(["--ignored", "--nocapture", "no_row_is_without_a_test_or_a_reason"]);
    list.env("RUST_BACKTRACE", "0");
    run(list)
}

/// Builds the simulator, with checks and optimised, and runs it.
pub(crate) fn sim(arguments: &[&str]) -> Result<(), String> {
    built("sim", "ringcall-sim", arguments)
}

/// Builds the attacks and the long run, optimised, and runs what is asked for.
pub(crate) fn hostile(arguments: &[&str]) -> Result<(), String> {
    built("release", "ringcall-hostile", arguments)
}

/// Builds the worlds of the cluster, optimised, and runs what is asked for.
pub(crate) fn worlds(arguments: &[&str]) -> Result<(), String> {
    built("release", "ringcall-worlds", arguments)
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
    as_if_asked_by_people(Command::new("cargo"), arguments)
}

/// The same; after so many seconds it is ended, and all that it has started.
pub(crate) fn cargo_within(seconds: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new("timeout");
    command.args([seconds, "cargo"]);
    as_if_asked_by_people(command, arguments)
}

fn as_if_asked_by_people(mut command: Command, arguments: &[&str]) -> Command {
    command.args(arguments);
    // What Cargo says to this program is about this program. Build scripts that look at it, ring's for one, would run
    // again, and all that needs them be built again, here and once more when somebody calls Cargo without it.
    for (name, _) in std::env::vars_os() {
        let of_a_package = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_", "CARGO_CRATE_"];
        if name.to_str().is_some_and(|name| of_a_package.iter().any(|of| name.starts_with(of))) {
            command.env_remove(name);
        }
    }
    command
}

fn run(mut command: Command) -> Result<(), String> {
    let status = command.status().map_err(|error| format!("{command:?}: {error}"))?;
    if status.success() { Ok(()) } else { Err(format!("{command:?}: {status}")) }
}
