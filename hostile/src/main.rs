//! Attacks a server, or lets it run for long. `cargo xtask hostile` and `cargo xtask soak` build and call it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]

mod group;
mod soak;
mod suite;

use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use ringcall::TransportChoice;
use ringcall_hostile::victim::{Setting, serve};
use suite::Plan;

const USAGE: &str = "\
cargo xtask hostile [--seconds S] [--everything S] [--connections N] [--rate R] [--engine E] [--only NAME,…]
                    [--memory-mib M] [--untimed] [--strict]
    each attack for S seconds (15) by N connections (1000), and all at once (60), on each engine;
    the server has M MiB (256)
cargo xtask soak [--minutes M] [--rate SHARE | --calls-per-second C] [--engine E] [--picture NAME]
                 [--sizes]
    M minutes (30) on each engine, through a proxy that makes faults, at 0.7 of the most that goes through it with them
    (a minute is taken to see how much that is), behind four of warm-up;
    with --sizes it says now and then how much memory there is in blocks of which size
    ";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["serve", ref setting @ ..] => Setting::from_arguments(setting).and_then(|it| serve(&it)),
        ["hostile", ref arguments @ ..] => plan(arguments).and_then(|plan| suite::run(&plan)),
        ["soak", ref arguments @ ..] => soak_plan(arguments).and_then(|plan| soak::run(&plan)),
        _ => Err(USAGE.to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn plan(arguments: &[&str]) -> Result<Plan, String> {
    let mut plan = Plan::default();
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"));
        match *name {
            "--seconds" => plan.seconds = number(value()?)?,
            "--everything" => plan.seconds_everything = number(value()?)?,
            "--connections" => plan.connections = number(value()?)?,
            "--rate" => plan.rate = number(value()?)?,
            "--seed" => plan.seed = number(value()?)?,
            "--engine" => plan.engines = vec![engine(value()?)?],
            "--only" => plan.only = value()?.split(',').map(str::to_owned).collect(),
            "--memory-mib" => plan.memory_max = number::<u64>(value()?)? << 20,
            "--strict" => plan.is_strict = true,
            "--untimed" => plan.is_timed = false,
            _ => return Err(format!("what is {name}?\n{USAGE}")),
        }
    }
    Ok(plan)
}

fn soak_plan(arguments: &[&str]) -> Result<soak::Plan, String> {
    let mut plan = soak::Plan::default();
    let mut arguments = arguments.iter();
    while let Some(name) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{name} needs a value\n{USAGE}"));
        match *name {
            "--minutes" => plan.time = Duration::from_secs_f64(60.0 * number::<f64>(value()?)?),
            "--rate" => plan.share = number(value()?)?,
            "--calls-per-second" => plan.calls_per_s = Some(number(value()?)?),
            "--seed" => plan.seed = number(value()?)?,
            "--engine" => plan.engines = vec![engine(value()?)?],
            "--sizes" => plan.says_sizes = true,
            "--picture" => plan.picture = Some((*value()?).to_owned()),
            _ => return Err(format!("what is {name}?\n{USAGE}")),
        }
    }
    Ok(plan)
}

fn engine(text: &str) -> Result<TransportChoice, String> {
    text.parse().map_err(|error| format!("{error}"))
}

fn number<T: FromStr>(text: &str) -> Result<T, String> {
    text.replace('_', "").parse().map_err(|_| format!("{text:?} is no number"))
}
