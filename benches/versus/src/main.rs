//! ringcall beside other frameworks and a raw echo, one after another on the same two cores.
//!
//! ```text
//! $ cargo run --release -p versus -- --quick --case echo-64B-c1-f64
//! $ cargo run --release -p versus -- --json FILE
//! ```
//!
//! The program starts itself twice for each measurement: as the server, pinned to one core, and as the
//! client, pinned to another. See the README beside it for the method.

mod cases;
mod certificates;
mod compare;
mod floor;
mod hosted;
mod load;
mod machine;
mod meter;
mod ours;
mod pace;
mod payload;
mod peers;
mod plot;
mod report;
mod subjects;

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use cases::Case;
use lexopt::{Parser, ValueExt};
use subjects::{Side, Subject};

/// Any failure: it is shown, and ends the program.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: versus [--load] [--json FILE] [--plots FOLDER] [--quick] [--case ID]... [--subject NAME]...
  --load           latency against the offered rate, in an open loop, instead of the cases
  --json FILE      writes the medians there, as JSON
  --plots FOLDER   draws them there, as SVG
  --quick          one round of 2 s each, instead of three of 4 s
  --case ID        only this case; may be repeated
  --subject NAME   only this subject; may be repeated
  --list           names all cases and subjects";

fn main() -> ExitCode {
    match run() {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("versus: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run() -> Result<()> {
    let mut plan = compare::Plan::default();
    let (mut json, mut plots): (Option<PathBuf>, Option<PathBuf>) = (None, None);
    let mut is_load = false;
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        use lexopt::Arg::{Long, Value};
        match argument {
            Long("json") => json = Some(parser.value()?.into()),
            Long("plots") => plots = Some(parser.value()?.into()),
            Long("load") => is_load = true,
            Long("quick") => plan.be_quick(),
            Long("case") => plan.cases.push(parser.value()?.parse_with(Case::named)?),
            Long("subject") => plan.subjects.push(parser.value()?.parse_with(Subject::named)?),
            Long("list") => return list(),
            Long("help") => {
                println!("{USAGE}");
                return Ok(());
            }
            Value(side) if side == compare::SERVE || side == compare::CALL => {
                return be_child(&side, &mut parser);
            }
            other => return Err(format!("{}\n{USAGE}", other.unexpected()).into()),
        }
    }
    if is_load {
        let steps = load::run(&plan)?;
        print!("{}", load::table(&steps));
        json.map_or(Ok(()), |path| report::write_json(&path, &steps))?;
        return plots.map_or(Ok(()), |folder| plot::load(&folder, &steps));
    }
    let rows = compare::run(&plan)?;
    print!("{}", report::table(&rows));
    json.map_or(Ok(()), |path| report::write_json(&path, &rows))?;
    plots.map_or(Ok(()), |folder| plot::cases(&folder, &rows))
}

fn list() -> Result<()> {
    cases::ALL.iter().for_each(|case| println!("{}", case.id));
    subjects::ALL.iter().for_each(|subject| println!("{}", subject.name));
    Ok(())
}

/// What the program does when it has started itself; [`compare`] writes these arguments.
fn be_child(side: &OsString, parser: &mut Parser) -> Result<()> {
    let subject = parser.value()?.parse_with(Subject::named)?;
    let case = parser.value()?.parse_with(Case::named)?;
    let said = if side == compare::SERVE {
        machine::become_child(Side::Server)?;
        subject.serve(case)
    } else {
        let servers = subjects::addresses(&parser.value()?.string()?)?;
        let process = parser.value()?.parse()?;
        let seconds: f64 = parser.value()?.parse()?;
        machine::become_child(Side::Client)?;
        let watch = meter::Watch::new(Duration::from_secs_f64(seconds), process);
        subject.call(case, &servers, watch).map(|measured| println!("{measured}"))
    };
    match said {
        Err(error) => match error.downcast::<subjects::Skipped>() {
            Ok(skipped) => {
                println!("{}{skipped}", compare::SKIPPED);
                Ok(())
            }
            Err(error) => Err(format!("{} in {}: {error}", subject.name, case.id).into()),
        },
        Ok(()) => Ok(()),
    }
}
