//! A server that is asked for more than it can do: how much it still does, and what retries make of a hiccup.
//!
//! ```text
//! $ cargo run --release -p overload -- ladder          # goodput at 0.5 to 10 times what the server can do
//! $ cargo run --release -p overload -- storm           # a second in which it is ten times slower
//! $ cargo run --release -p overload -- classes         # the ladder, some of its calls more important than others
//!   [--seconds N]    a step of a ladder; 2
//!   [--svg FOLDER]   pictures as well
//! ```
//!
//! Server and client are threads of one process, on a core each, over TCP on the loopback. Handlers compute for 100 µs
//! on the shard. Calls are due by a timetable, with random gaps, however long others take ("open loop"), and their
//! time runs from when they were due.
#![forbid(unsafe_code)]
#![allow(clippy::disallowed_methods, reason = "it measures")]

mod classes;
mod client;
mod ladder;
mod server;
mod storm;

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

struct Options {
    what: String,
    seconds: f64,
    svg: Option<PathBuf>,
}

fn options() -> Result<Options> {
    let mut options = Options { what: "ladder".to_owned(), seconds: 2.0, svg: None };
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Long("seconds") => options.seconds = parser.value()?.parse()?,
            Long("svg") => options.svg = Some(parser.value()?.into()),
            Value(what) => options.what = what.string()?,
            other => return Err(other.unexpected().into()),
        }
    }
    Ok(options)
}

fn main() -> Result<()> {
    let Options { what, seconds, svg } = options()?;
    if let Some(folder) = &svg {
        std::fs::create_dir_all(folder)?;
    }
    let load = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    println!("load of the machine before: {}", load.trim());
    match &*what {
        "ladder" => ladder::run(Duration::from_secs_f64(seconds), svg.as_deref()),
        "storm" => storm::run(svg.as_deref()),
        "classes" => classes::run(Duration::from_secs_f64(seconds)),
        other => Err(format!("{other:?} is neither `ladder`, `storm` nor `classes`").into()),
    }
}
