//! Runs worlds, says whether what must hold does, and draws them. `cargo xtask worlds` builds and calls it.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]

mod cores;
mod pictures;
mod tables;

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use ringcall_worlds::herd::Herd;
use ringcall_worlds::scenarios::{ALL, Scenario};
use ringcall_worlds::what_if::VARIANTS;
use ringcall_worlds::{Plan, Recorded};

const USAGE: &str = "\
cargo xtask worlds [WORLD…] [--seed N] [--plot FOLDER]
    runs these worlds, or all, and prints what must hold; with another seed chance does something else than in the
    tests; with --plot a picture of each is drawn
cargo xtask worlds record WORLD FILE [--seed N]
    writes the calls of this world, which are a trace, to a file
cargo xtask worlds what-if WORLD | FILE
    offers the calls of this world, or those in a file, to other policies; docs/CLUSTER.md says how to write one
";

/// Clients that connect again at once, and how long their server is away.
const HERD: (u64, [u64; 4]) = (10_000, [1, 3, 10, 60]);
/// The herd that is drawn: by the seconds that its server is away.
const HERD_DRAWN_S: u64 = 10;
const HERD_NAME: &str = "reconnect";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["what-if", what] => what_if(what),
        ["record", ref arguments @ ..] => record(arguments),
        _ => all(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}

fn named(name: &str) -> Result<Scenario, String> {
    let found = ALL.into_iter().find(|scenario| scenario.name == name);
    found.ok_or_else(|| {
        let names: Vec<&str> = ALL.iter().map(|scenario| scenario.name).collect();
        format!("{name} is no world; there are {}, and {HERD_NAME}\n{USAGE}", names.join(", "))
    })
}

/// What is asked for.
struct Options {
    scenarios: Vec<Scenario>,
    runs_herd: bool,
    seed: Option<u64>,
    folder: Option<PathBuf>,
}

fn options(arguments: &[&str]) -> Result<Options, String> {
    let (mut names, mut folder, mut seed) = (Vec::new(), None, None);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        match *argument {
            "--plot" => folder = Some(PathBuf::from(rest.next().ok_or(USAGE)?)),
            "--seed" => {
                let number = rest.next().and_then(|number| number.parse().ok());
                seed = Some(number.ok_or(USAGE)?);
            }
            name => names.push(name),
        }
    }
    let is_all = names.is_empty();
    let runs_herd = is_all || names.contains(&HERD_NAME);
    names.retain(|name| *name != HERD_NAME);
    let asked_for = names.into_iter().map(named).collect::<Result<_, _>>()?;
    let scenarios = if is_all { ALL.to_vec() } else { asked_for };
    Ok(Options { scenarios, runs_herd, seed, folder })
}

/// Runs the worlds that are asked for.
fn all(arguments: &[&str]) -> Result<(), String> {
    let Options { scenarios, runs_herd, seed, folder } = options(arguments)?;
    if let Some(folder) = &folder {
        std::fs::create_dir_all(folder).map_err(|error| format!("{folder:?}: {error}"))?;
    }
    let rows = cores::on_all("worlds", &scenarios, |scenario| {
        let plan = scenario.plan();
        let world = scenario.run_as(&Plan { seed: seed.unwrap_or(plan.seed), ..plan });
        let drawn = folder.as_ref().map(|folder| pictures::world(folder, scenario, &world));
        (tables::Row::of(scenario, &world), drawn.unwrap_or(Ok(())))
    });
    let (rows, drawn): (Vec<_>, Vec<_>) = rows.into_iter().unzip();
    drawn.into_iter().collect::<Result<(), String>>()?;
    let mut missed = tables::worlds(&rows);
    if runs_herd {
        missed += herds(folder.as_deref())?;
    }
    match missed {
        0 => Ok(()),
        missed => Err(format!("{missed} figures do not hold")),
    }
}

/// Lets clients connect again; how many figures do not hold.
fn herds(folder: Option<&Path>) -> Result<usize, String> {
    let herds = HERD.1.map(|away| Herd::run(HERD.0, Duration::from_secs(away)));
    let drawn = herds.iter().find(|herd| herd.away.as_secs() == HERD_DRAWN_S);
    if let (Some(folder), Some(herd)) = (folder, drawn) {
        pictures::herd(&folder.join(format!("{HERD_NAME}.svg")), herd)?;
    }
    Ok(tables::herds(&herds))
}

/// Offers the calls of a world, or of a file, to each variant of its clients.
fn what_if(what: &str) -> Result<(), String> {
    let recorded = match named(what) {
        Ok(scenario) => Recorded::of(&scenario, None),
        Err(unknown) => {
            let file = File::open(what).map_err(|error| format!("{what}: {error}; {unknown}"))?;
            Recorded::read(BufReader::new(file)).map_err(|bad| format!("{what}: {bad}"))?
        }
    };
    let outcomes = cores::on_all("variants", &VARIANTS, |it| it.run(&recorded));
    tables::what_if(&recorded, &VARIANTS.map(|variant| variant.name), &outcomes);
    Ok(())
}

/// Writes the calls of a world to a file.
fn record(arguments: &[&str]) -> Result<(), String> {
    let (name, path, seed) = match *arguments {
        [name, path] => (name, path, None),
        [name, path, "--seed", seed] => (name, path, Some(seed.parse().map_err(|_| USAGE)?)),
        _ => return Err(USAGE.to_owned()),
    };
    let recorded = Recorded::of(&named(name)?, seed);
    let written = File::create(path).and_then(|file| recorded.write(BufWriter::new(file)));
    written.map_err(|error| format!("{path}: {error}"))?;
    println!("{} calls of {name} are in {path}", recorded.trace.len());
    Ok(())
}
