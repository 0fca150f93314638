//! Runs seeds on all cores. `cargo xtask sim` builds and calls it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]
#![expect(clippy::disallowed_methods, reason = "it says how fast it is")]

mod runner;

use std::process::ExitCode;

use ringcall_sim::{FaultSet, Options, run};
use runner::Plan;

const USAGE: &str = "\
cargo xtask sim --seeds N [--from S] [--events M] [--cores C] [--without FAULT,…] [--resume] [--as-is]
    runs seeds S to S + N - 1, M events each; the first that fails is made smaller (unless --as-is) and told
cargo xtask sim --seed S [--events M] [--without FAULT,…] [--trace]
    runs one seed, and again to compare; with --trace every event is written to standard error
    ";

fn main() -> ExitCode {
    match act() {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn act() -> Result<(), String> {
    let mut arguments = std::env::args().skip(1);
    let (mut options, mut plan, mut one) = (Options::default(), Plan::default(), None);
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or(format!("{name} needs a value\n{USAGE}"));
        match &*name {
            "--seeds" => plan.seeds = number(&value()?)?,
            "--from" => plan.from = number(&value()?)?,
            "--events" => options.events = number(&value()?)?,
            "--cores" => plan.cores = number(&value()?)?,
            "--seed" => one = Some(number(&value()?)?),
            "--without" => options.without = FaultSet::parse(&value()?)?,
            "--trace" => options.is_loud = true,
            "--as-is" => plan.as_is = true,
            "--resume" => plan.resumes = true,
            _ => return Err(format!("what is {name}?\n{USAGE}")),
        }
    }
    match one {
        Some(seed) => run_one(seed, &options),
        None if plan.seeds > 0 => runner::run_many(&plan, &options),
        None => Err(USAGE.to_owned()),
    }
}

fn number(text: &str) -> Result<u64, String> {
    text.replace('_', "").parse().map_err(|_| format!("{text:?} is no number"))
}

fn run_one(seed: u64, options: &Options) -> Result<(), String> {
    let told = |failure: ringcall_sim::Failure| {
        format!("seed {seed} fails after {} events: {}", failure.events, failure.message)
    };
    let report = run(seed, options).map_err(told)?;
    let again = run(seed, &Options { is_loud: false, ..*options }).map_err(told)?;
    if report.hash != again.hash {
        return Err(format!(
            "seed {seed} is not deterministic: {:x} {:x}",
            report.hash, again.hash
        ));
    }
    println!(
        "seed {seed} holds: {} events, {} calls, {:.3} simulated seconds, trace {:016x}",
        report.events,
        report.calls,
        report.simulated_ns as f64 / 1e9,
        report.hash
    );
    Ok(())
}
