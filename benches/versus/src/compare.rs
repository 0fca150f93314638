//! Runs every subject in every case, in rounds, each time with processes of its own.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use indicatif::{ProgressBar, ProgressStyle};

use crate::cases::{self, Case};
use crate::certificates::Certificates;
use crate::meter::Measured;
use crate::report::Row;
use crate::subjects::{self, Kind, Subject};
use crate::{Result, histograms, machine, system_calls};

/// The first argument of the program as a server, and as a client.
pub(crate) const SERVE: &str = "serve-one";
pub(crate) const CALL: &str = "call-one";
/// How a child says that it cannot be measured here.
pub(crate) const SKIPPED: &str = "skipped: ";

/// In the environment of both: allocations and system calls are counted.
pub(crate) const COUNTS: &str = "VERSUS_COUNTS";

/// What to run; nothing named means all.
pub(crate) struct Plan {
    pub(crate) cases: Vec<&'static Case>,
    pub(crate) subjects: Vec<&'static Subject>,
    /// Of an open loop; all if there are none.
    pub(crate) rates: Vec<u64>,
    pub(crate) rounds: usize,
    pub(crate) seconds: f64,
    /// Whether allocations and system calls are counted.
    pub(crate) counts: bool,
    /// Where all latencies are kept.
    pub(crate) histograms: Option<PathBuf>,
}

impl Default for Plan {
    fn default() -> Plan {
        let (cases, subjects) = (Vec::new(), Vec::new());
        Plan {
            cases,
            subjects,
            rates: Vec::new(),
            rounds: 3,
            seconds: 4.0,
            counts: false,
            histograms: None,
        }
    }
}

impl Plan {
    pub(crate) fn be_quick(&mut self) {
        (self.rounds, self.seconds) = (1, 2.0);
    }

    /// The medians of all rounds, if there are any. Their latencies are kept, all together.
    pub(crate) fn row(
        &self,
        case: &Case,
        subject: &Subject,
        rounds: &[(String, Measured)],
    ) -> Result<Option<Row>> {
        if let (Some(folder), [_, ..]) = (&self.histograms, rounds) {
            let sum = histograms::sum(rounds.iter().map(|(_, round)| &round.latencies))?;
            histograms::write(folder, case.id, subject.name, &sum)?;
        }
        Ok(Row::median(case, subject, rounds))
    }

    /// What has to be said before.
    pub(crate) fn warn(&self) -> Result<()> {
        if machine::cores()?.len() < 2 {
            eprintln!("versus: there is one core only, which server and client have to share");
        }
        if let (true, Some(why)) = (self.counts, system_calls::obstacle()) {
            eprintln!("versus: system calls are not counted: {why}");
        }
        Ok(())
    }

    pub(crate) fn wants_case(&self, id: &str) -> bool {
        self.cases.is_empty() || self.cases.iter().any(|wanted| wanted.id == id)
    }

    pub(crate) fn wants_subject(&self, name: &str) -> bool {
        self.subjects.is_empty() || self.subjects.iter().any(|wanted| wanted.name == name)
    }

    /// Each pair in the order of the tables.
    fn pairs(&self) -> Vec<(&'static Case, &'static Subject)> {
        let cases = cases::ALL.iter().filter(|case| self.wants_case(case.id));
        let subjects = || subjects::ALL.iter().filter(|subject| self.wants_subject(subject.name));
        cases.flat_map(|case| subjects().map(move |subject| (case, subject))).collect()
    }
}

/// The medians of all rounds.
pub(crate) fn run(plan: &Plan) -> Result<Vec<Row>> {
    plan.warn()?;
    let pairs = plan.pairs();
    let mut results: HashMap<(&str, &str), Vec<Finding>> = HashMap::new();
    let progress = ProgressBar::new((pairs.len() * plan.rounds) as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg} ({eta} left)")?);
    // Rounds are interleaved, so that a noisy minute does not fall on one subject alone.
    for _ in 0..plan.rounds {
        for (case, subject) in &pairs {
            progress.set_message(format!("{} {}", case.id, subject.name));
            let found = results.entry((case.id, subject.name)).or_default();
            if !matches!(found.last(), Some(Finding::Skipped)) {
                found.push(measure(case, subject, plan, &progress)?);
            }
            progress.inc(1);
        }
    }
    progress.finish_and_clear();
    let mut rows = Vec::new();
    for (case, subject) in &pairs {
        let found = results.remove(&(case.id, subject.name)).unwrap_or_default();
        let rounds: Vec<_> = found.into_iter().filter_map(Finding::figures).collect();
        rows.extend(plan.row(case, subject, &rounds)?);
    }
    Ok(rows)
}

pub(crate) enum Finding {
    Skipped,
    Figures(String, Measured),
}

impl Finding {
    pub(crate) fn figures(self) -> Option<(String, Measured)> {
        match self {
            Finding::Skipped => None,
            Finding::Figures(transport, measured) => Some((transport, measured)),
        }
    }
}

/// Measures once, with two processes of its own.
pub(crate) fn measure(
    case: &Case,
    subject: &Subject,
    plan: &Plan,
    progress: &ProgressBar,
) -> Result<Finding> {
    let skipped = |why: &str| {
        let line = format!("skipped: {} in {}: {why}", subject.name, case.id);
        progress.suspend(|| eprintln!("{line}"));
        Ok(Finding::Skipped)
    };
    let failed = |side: &str| format!("the {side} of {} failed in {}", subject.name, case.id);
    let certificates = Certificates::new()?;
    let between_cores_ns = machine::between_cores_ns()?;
    let start = |arguments: &[&str]| Running::start(subject, &certificates, plan.counts, arguments);
    let mut server = start(&[SERVE, subject.name, case.id])?;
    let line = server.first_line()?;
    if let Some(why) = line.strip_prefix(SKIPPED) {
        return skipped(why);
    }
    let (addresses, transport) = line.split_once(' ').ok_or_else(|| failed("server"))?;
    let (pid, time) = (server.0.id().to_string(), plan.seconds.to_string());
    let said = start(&[CALL, subject.name, case.id, addresses, &pid, &time])?.output()?;
    match said.strip_prefix(SKIPPED) {
        Some(why) => skipped(why.trim_end()),
        None => {
            let measured = serde_json::from_str(&said).map_err(|_| failed("client"))?;
            let measured = Measured { between_cores_ns, ..measured };
            Ok(Finding::Figures(transport.to_owned(), measured))
        }
    }
}

/// This program again. It ends when this is dropped, in whatever way that comes about.
struct Running(Child);

impl Running {
    fn start(
        subject: &Subject,
        certificates: &Certificates,
        counts: bool,
        arguments: &[&str],
    ) -> Result<Running> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped());
        certificates.give(&mut command);
        if counts {
            command.env(COUNTS, "");
        }
        if let Kind::Ringcall(ours) = subject.kind {
            command.env("RINGCALL_TRANSPORT", ours.engine.name());
        }
        Ok(Running(command.spawn()?))
    }

    fn first_line(&mut self) -> Result<String> {
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().ok_or("read before")?).read_line(&mut line)?;
        Ok(line.trim_end().to_owned())
    }

    fn output(mut self) -> Result<String> {
        let mut output = String::new();
        self.0.stdout.take().ok_or("read before")?.read_to_string(&mut output)?;
        Ok(output)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
