//! Medians, as a table and as JSON, and out of it again.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::Result;
use crate::cases::Case;
use crate::meter::Measured;
use crate::subjects::{Kind, Subject};

/// The medians of one subject in one case.
#[derive(Serialize, Deserialize)]
pub(crate) struct Row {
    pub(crate) case: String,
    pub(crate) subject: String,
    transport: String,
    wait: String,
    #[serde(flatten)]
    pub(crate) measured: Measured,
}

impl Row {
    /// `None` for a subject that has gone since the row was written.
    pub(crate) fn kind(&self) -> Option<Kind> {
        Subject::named(&self.subject).ok().map(|subject| subject.kind)
    }

    pub(crate) fn median(
        case: &Case,
        subject: &Subject,
        rounds: &[(String, Measured)],
    ) -> Option<Row> {
        let (transport, _) = rounds.first()?;
        let curve = middle_curve(rounds);
        let rounds = || rounds.iter().map(|(_, round)| round);
        let known = |figure: fn(&Measured) -> Option<f64>| middle(rounds().filter_map(figure));
        let median =
            |figure: fn(&Measured) -> f64| middle(rounds().map(figure)).unwrap_or_default();
        Some(Row {
            case: case.id.to_owned(),
            subject: subject.name.to_owned(),
            transport: transport.clone(),
            wait: subject.wait.to_string(),
            measured: Measured {
                calls_per_s: median(|round| round.calls_per_s),
                p50_us: median(|round| round.p50_us),
                p99_us: median(|round| round.p99_us),
                p999_us: median(|round| round.p999_us),
                cpu_s_per_mcall: median(|round| round.cpu_s_per_mcall),
                stolen: rounds().map(|round| round.stolen).fold(0.0, f64::max),
                between_cores_ns: known(|round| round.between_cores_ns),
                allocations: known(|round| round.allocations),
                system_calls: known(|round| round.system_calls),
                curve,
                latencies: Vec::new(),
            },
        })
    }
}

fn middle(figures: impl Iterator<Item = f64>) -> Option<f64> {
    let mut figures: Vec<f64> = figures.collect();
    figures.sort_by(f64::total_cmp);
    figures.get(figures.len() / 2).copied()
}

/// Point by point.
fn middle_curve(rounds: &[(String, Measured)]) -> Vec<(f64, f64)> {
    let Some((_, first)) = rounds.first() else { return Vec::new() };
    let point = |(index, &(share, _)): (usize, &(f64, f64))| {
        let at = middle(rounds.iter().map(|(_, round)| round.curve[index].1));
        (share, at.unwrap_or_default())
    };
    first.curve.iter().enumerate().map(point).collect()
}

pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<Vec<T>> {
    Ok(serde_json::from_reader(fs::File::open(path)?)?)
}

pub(crate) fn write_json(path: &Path, rows: &[impl Serialize]) -> Result<()> {
    let mut json = serde_json::to_string_pretty(rows)?;
    json.push('\n');
    Ok(fs::write(path, json)?)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::new();
    for case in rows.chunk_by(|row, next| row.case == next.case) {
        let is_counted = case.iter().any(|row| row.measured.allocations.is_some());
        let _ = writeln!(
            table,
            "{:<26}{:>12}{:>11}{:>11}{:>11}{:>13}{:>8}{:>9}{:>12}{:>9}{}",
            case[0].case,
            "calls/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "CPU s/Mcall",
            "stolen",
            "cores ns",
            "best peer",
            "floor",
            if is_counted {
                format!("{:>12}{:>10}", "allocations", "syscalls")
            } else {
                String::new()
            },
        );
        let peers = case.iter().filter(|row| matches!(row.kind(), Some(Kind::Peer(_))));
        let best_peer = peers.map(|row| row.measured.calls_per_s).max_by(f64::total_cmp);
        case.iter().for_each(|row| line(&mut table, row, best_peer, floor_of(row, case)));
        table.push('\n');
    }
    table
}

/// The floor of the same wait policy; of who looks on before it sleeps, the one that spins.
fn floor_of(row: &Row, case: &[Row]) -> Option<f64> {
    let wait = if row.wait == "adaptive" { "spin" } else { &row.wait };
    let is_it = |other: &&Row| other.kind() == Some(Kind::Floor) && other.wait == wait;
    let floor = case.iter().find(is_it)?;
    Some(floor.measured.calls_per_s)
}

fn line(table: &mut String, row: &Row, best_peer: Option<f64>, floor: Option<f64>) {
    let Measured { calls_per_s, p50_us, p99_us, p999_us, cpu_s_per_mcall, stolen, .. } =
        &row.measured;
    let ratio = |to: Option<f64>| match to {
        Some(to) => format!("{:.2}×", calls_per_s / to),
        None => "–".to_owned(),
    };
    let between_cores = row.measured.between_cores_ns;
    let _ = writeln!(
        table,
        "  {:<24}{calls_per_s:>12.0}{p50_us:>11.1}{p99_us:>11.1}{p999_us:>11.1}{cpu_s_per_mcall:>13.2}{:>8}{:>9}{:>12}{:>9}{}",
        row.subject,
        format!("{:.1} %", stolen * 100.0),
        between_cores.map_or_else(|| "–".to_owned(), |time| format!("{time:.0}")),
        ratio(best_peer),
        ratio(floor),
        counted(&row.measured),
    );
}

/// What was counted a call, if anything was.
fn counted(measured: &Measured) -> String {
    let Some(allocations) = measured.allocations else { return String::new() };
    let system_calls =
        measured.system_calls.map_or_else(|| "–".to_owned(), |count| format!("{count:.2}"));
    format!("{allocations:>12.2}{system_calls:>10}")
}
