//! Latency against the offered load: an open loop, faster and faster, until a subject does not keep up.

use std::collections::{HashMap, HashSet};
use std::fmt::Write;

use indicatif::{ProgressBar, ProgressStyle};
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::cases::Case;
use crate::compare::{self, Plan};
use crate::report::Row;
use crate::subjects::{self, Subject};

/// Calls a second that are tried.
const RATES: &[u64] = &[
    5_000, 10_000, 20_000, 30_000, 40_000, 60_000, 80_000, 100_000, 150_000, 200_000, 300_000,
    400_000, 600_000, 800_000, 1_000_000, 1_300_000, 1_600_000,
];
/// Who is not that near to the rate, or slower than this at the 99th percentile, does not keep up.
const KEPT_UP: f64 = 0.97;
const P99_MAX_US: f64 = 10_000.0;

/// One subject at one rate.
#[derive(Serialize, Deserialize)]
pub(crate) struct Step {
    pub(crate) offered: u64,
    #[serde(flatten)]
    pub(crate) row: Row,
}

impl Step {
    pub(crate) fn kept_up(&self) -> bool {
        kept_up(self.offered, self.row.measured.calls_per_s, self.row.measured.p99_us)
    }
}

fn kept_up(offered: u64, calls_per_s: f64, p99_us: f64) -> bool {
    calls_per_s >= offered as f64 * KEPT_UP && p99_us <= P99_MAX_US
}

/// The medians of all rounds. A subject that fell behind in a round is not asked for more in that round.
pub(crate) fn run(plan: &Plan) -> Result<Vec<Step>> {
    let is_wanted = |subject: &&Subject| subject.can_pace() && plan.wants_subject(subject.name);
    plan.warn()?;
    let subjects: Vec<&'static Subject> = subjects::ALL.iter().filter(is_wanted).collect();
    let rates = if plan.rates.is_empty() { RATES } else { &plan.rates };
    let cases: Vec<&'static Case> = rates.iter().map(|&rate| Case::open(rate)).collect();
    let progress = ProgressBar::new((subjects.len() * cases.len() * plan.rounds) as u64);
    progress.set_style(ProgressStyle::with_template("{bar:30} {pos}/{len} {msg}")?);
    let mut results: HashMap<(&str, &str), Vec<_>> = HashMap::new();
    for _ in 0..plan.rounds {
        let mut behind: HashSet<&str> = HashSet::new();
        for (case, &rate) in cases.iter().zip(rates) {
            for subject in &subjects {
                progress.inc(1);
                if behind.contains(subject.name) {
                    continue;
                }
                progress.set_message(format!("{} {}", case.id, subject.name));
                let found = compare::measure(case, subject, plan, &progress)?.figures();
                match &found {
                    Some((_, figures)) if kept_up(rate, figures.calls_per_s, figures.p99_us) => {}
                    _ => drop(behind.insert(subject.name)),
                }
                results.entry((subject.name, case.id)).or_default().extend(found);
            }
        }
    }
    progress.finish_and_clear();
    let pairs = subjects.iter().flat_map(|subject| {
        cases.iter().zip(rates).map(move |(case, &offered)| (*subject, *case, offered))
    });
    let mut steps = Vec::new();
    for (subject, case, offered) in pairs {
        let rounds = results.remove(&(subject.name, case.id)).unwrap_or_default();
        steps.extend(plan.row(case, subject, &rounds)?.map(|row| Step { offered, row }));
    }
    Ok(steps)
}

pub(crate) fn table(steps: &[Step]) -> String {
    let mut table = String::new();
    for of_one in steps.chunk_by(|step, next| step.row.subject == next.row.subject) {
        let _ = writeln!(
            table,
            "{:<26}{:>12}{:>11}{:>11}{:>11}{:>13}",
            of_one[0].row.subject, "calls/s", "p50 µs", "p99 µs", "p99.9 µs", "CPU s/Mcall"
        );
        for step in of_one {
            let measured = &step.row.measured;
            let _ = writeln!(
                table,
                "  {:<24}{:>12.0}{:>11.1}{:>11.1}{:>11.1}{:>13.2}{}",
                format!("{} offered", step.offered),
                measured.calls_per_s,
                measured.p50_us,
                measured.p99_us,
                measured.p999_us,
                measured.cpu_s_per_mcall,
                if step.kept_up() { "" } else { "  does not keep up" },
            );
        }
        table.push('\n');
    }
    table
}
