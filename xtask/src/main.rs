//! What the project does with itself, beyond `cargo test`.
//!
//! ```text
//! cargo xtask doctor          what this machine offers, what it costs, what to do about it
//! cargo xtask masks [-p …]    the tests of calls with each feature of the ring missing in turn
//! cargo xtask asan            the tests that touch memory, under AddressSanitizer (nightly)
//! cargo xtask models [threads] every order of a few threads, and of a few calls, with how many there are
//! cargo xtask fuzz SECONDS    every fuzz target for so long (nightly)
//! cargo xtask faults          rows of docs/FAULTS.md without a test and without a reason why
//! cargo xtask shapes OLD NEW  what a changed file of shapes means, method by method
//! cargo xtask sim …           the simulator; say nothing to learn what it can be told
//! cargo xtask worlds …        worlds of clients and servers: what must hold, pictures, and what other policies would do
//! cargo xtask replay FILE …   a record of a connection, step by step, and whether it goes as it went
//! cargo xtask mutants [NAME…] defences switched off one by one: the simulator, or a test, must notice
//! cargo xtask hostile …       every attack on a server of each engine, and what an honest client notices
//! cargo xtask soak …          a long run through a proxy that makes faults
//! ```
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it talks to whoever runs it")]

mod doctor;
mod mutants;
mod replay;
mod run;
mod shapes;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let done = match arguments[..] {
        ["doctor"] => {
            doctor::examine();
            Ok(())
        }
        ["masks", ref selection @ ..] => run::masks(selection),
        ["asan"] => run::asan(),
        ["models"] => run::models(false),
        ["models", "threads"] => run::models(true),
        ["fuzz", seconds] => run::fuzz(seconds),
        ["faults"] => run::faults(),
        ["shapes", old, new] => shapes::compare(old, new),
        ["sim", ref arguments @ ..] => run::sim(arguments),
        ["worlds", ref arguments @ ..] => run::worlds(arguments),
        ["replay", ref arguments @ ..] => replay::replay(arguments),
        ["hostile" | "soak", ..] => run::hostile(&arguments),
        ["mutants", ref names @ ..] => mutants::mutants(names),
        _ => Err("write one of: doctor, masks, asan, fuzz SECONDS, faults, models, shapes OLD NEW, sim, worlds, replay FILE, \
                  hostile, soak, mutants"
            .to_owned()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(what) => {
            eprintln!("{what}");
            ExitCode::FAILURE
        }
    }
}
