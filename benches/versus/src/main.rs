//! ringcall beside other frameworks and a raw echo, one after another on the same two cores.
//!
//! ```text
//! $ cargo run --release -p versus -- --quick --case echo-64B-c1-f64
//! $ cargo run --release -p versus -- --json FILE
//! $ cargo run --release -p versus -- --from FILE --plot FOLDER
//! ```
//!
//! The program starts itself twice for each measurement: as the server, pinned to one core, and as the
//! client, pinned to another. See the README beside it for the method.

mod allocator;
mod cases;
mod certificates;
mod compare;
mod floor;
mod histograms;
mod hosted;
mod load;
mod machine;
mod meter;
mod ours;
mod pace;
mod payload;
mod peers;
mod pictures;
mod report;
mod subjects;
mod system_calls;

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use cases::Case;
use lexopt::{Parser, ValueExt};
use subjects::{Side, Subject};

/// Any failure: it is shown, and ends the program.
pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;
pub(crate) type Result<T, E = Error> = std::result::Result<T, E>;

const USAGE: &str = "\
usage: versus [--load [--rate N]...] [--count] [--quick] [--rounds N] [--case ID]... [--subject NAME]...
              [--json FILE] [--histograms FOLDER] [--plot FOLDER [--note TEXT]]
       versus --from FILE [--case ID]... [--subject NAME]... [--histograms FOLDER] [--plot FOLDER [--note TEXT]]
  --load               latency against the offered rate, in an open loop, instead of the cases
  --rate N             with --load: this rate, in calls a second, in place of all; may be repeated
  --count              counts allocations and system calls as well, which makes all else slower
  --quick              one round of 2 s each, instead of three of 4 s
  --rounds N           so many rounds
  --case ID            only this case; may be repeated
  --subject NAME       only this subject; may be repeated
  --json FILE          writes the medians there, as JSON
  --histograms FOLDER  keeps all latencies there, for each subject in each case; with --from: kept there before
  --plot FOLDER        draws all of it there, as SVG
  --note TEXT          what is written above each picture: when that was measured, and where
  --from FILE          measures nothing: shows what --json has written
  --list               names all cases and subjects";

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
    let mut output = Output::default();
    let mut from: Option<PathBuf> = None;
    let (mut is_load, mut rounds) = (false, None);
    let mut parser = Parser::from_env();
    while let Some(argument) = parser.next()? {
        use lexopt::Arg::{Long, Value};
        match argument {
            Long("json") => output.json = Some(parser.value()?.into()),
            Long("plot") => output.plot = Some(parser.value()?.into()),
            Long("note") => output.note = parser.value()?.string()?,
            Long("from") => from = Some(parser.value()?.into()),
            Long("histograms") => plan.histograms = Some(parser.value()?.into()),
            Long("load") => is_load = true,
            Long("count") => plan.counts = true,
            Long("rate") => plan.rates.push(parser.value()?.parse()?),
            Long("quick") => plan.be_quick(),
            Long("rounds") => rounds = Some(parser.value()?.parse()?),
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
    plan.rounds = rounds.unwrap_or(plan.rounds);
    if !is_load && !plan.rates.is_empty() {
        return Err("--rate is for an open loop: say --load as well".into());
    }
    if plan.rounds == 0 || plan.rates.contains(&0) {
        return Err("--rounds and --rate want a number above zero".into());
    }
    let found = match from {
        Some(path) => Found::read(&path, &plan)?,
        None if is_load => Found::Load(load::run(&plan)?),
        None => Found::Cases(compare::run(&plan)?),
    };
    output.show(&found, plan.histograms.as_deref())
}

/// What was measured, now or before.
enum Found {
    Cases(Vec<report::Row>),
    Load(Vec<load::Step>),
}

impl Found {
    /// What is wanted of what was written.
    fn read(path: &Path, plan: &compare::Plan) -> Result<Found> {
        // A step is a row that says more.
        if let Ok(mut steps) = report::read_json::<load::Step>(path) {
            steps.retain(|step| plan.wants_subject(&step.row.subject));
            return Ok(Found::Load(steps));
        }
        let mut rows: Vec<report::Row> = report::read_json(path)?;
        rows.retain(|row| plan.wants_case(&row.case) && plan.wants_subject(&row.subject));
        Ok(Found::Cases(rows))
    }
}

/// Where it goes, besides to the terminal.
#[derive(Default)]
struct Output {
    json: Option<PathBuf>,
    plot: Option<PathBuf>,
    note: String,
}

impl Output {
    fn show(&self, found: &Found, histograms: Option<&Path>) -> Result<()> {
        match found {
            Found::Cases(rows) => {
                print!("{}", report::table(rows));
                self.json.as_ref().map_or(Ok(()), |path| report::write_json(path, rows))?;
            }
            Found::Load(steps) => {
                print!("{}", load::table(steps));
                self.json.as_ref().map_or(Ok(()), |path| report::write_json(path, steps))?;
            }
        }
        let Some(folder) = &self.plot else { return Ok(()) };
        let pictures = pictures::Pictures::new(folder, &self.note, histograms)?;
        match found {
            Found::Cases(rows) => pictures.cases(rows),
            Found::Load(steps) => pictures.load(steps),
        }
    }
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
    let counts = std::env::var_os(compare::COUNTS).is_some();
    if counts {
        allocator::begin()?;
    }
    let said = if side == compare::SERVE {
        machine::become_child(Side::Server)?;
        subject.serve(case)
    } else {
        let servers = subjects::addresses(&parser.value()?.string()?)?;
        let server = parser.value()?.parse()?;
        let time = Duration::from_secs_f64(parser.value()?.parse()?);
        machine::become_child(Side::Client)?;
        let watch = meter::Watch { time, server, counts };
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
