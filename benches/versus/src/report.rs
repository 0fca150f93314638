//! Medians, as a table and as JSON.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use ringcall::WaitPolicy;
use serde::Serialize;

use crate::Result;
use crate::cases::Case;
use crate::meter::Measured;
use crate::subjects::{Kind, Subject};

/// The medians of one subject in one case.
#[derive(Serialize)]
pub(crate) struct Row {
    pub(crate) case: &'static str,
    pub(crate) subject: &'static str,
    transport: String,
    wait: &'static str,
    #[serde(flatten)]
    pub(crate) measured: Measured,
    #[serde(skip)]
    pub(crate) kind: Kind,
}

impl Row {
    pub(crate) fn median(
        case: &'static Case,
        subject: &'static Subject,
        rounds: &[(String, Measured)],
    ) -> Option<Row> {
        let median = |figure: fn(&Measured) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(|(_, round)| figure(round)).collect();
            figures.sort_by(f64::total_cmp);
            figures[figures.len() / 2]
        };
        let (transport, _) = rounds.first()?;
        Some(Row {
            case: case.id,
            subject: subject.name,
            transport: transport.clone(),
            wait: match subject.wait {
                WaitPolicy::Spin => "spin",
                WaitPolicy::Adaptive => "adaptive",
                _ => "park",
            },
            measured: Measured {
                calls_per_s: median(|round| round.calls_per_s),
                p50_us: median(|round| round.p50_us),
                p99_us: median(|round| round.p99_us),
                p999_us: median(|round| round.p999_us),
                cpu_s_per_mcall: median(|round| round.cpu_s_per_mcall),
                curve: middle_curve(rounds),
            },
            kind: subject.kind,
        })
    }
}

/// Point by point.
fn middle_curve(rounds: &[(String, Measured)]) -> Vec<(f64, f64)> {
    let Some((_, first)) = rounds.first() else { return Vec::new() };
    let point = |(index, &(share, _)): (usize, &(f64, f64))| {
        let mut at: Vec<f64> = rounds.iter().map(|(_, round)| round.curve[index].1).collect();
        at.sort_by(f64::total_cmp);
        (share, at[at.len() / 2])
    };
    first.curve.iter().enumerate().map(point).collect()
}

pub(crate) fn write_json(path: &Path, rows: &[impl Serialize]) -> Result<()> {
    let mut json = serde_json::to_string_pretty(rows)?;
    json.push('\n');
    Ok(fs::write(path, json)?)
}

pub(crate) fn table(rows: &[Row]) -> String {
    let mut table = String::new();
    for case in rows.chunk_by(|row, next| row.case == next.case) {
        let _ = writeln!(
            table,
            "{:<26}{:>12}{:>11}{:>11}{:>11}{:>13}{:>12}{:>9}",
            case[0].case,
            "calls/s",
            "p50 µs",
            "p99 µs",
            "p99.9 µs",
            "CPU s/Mcall",
            "best peer",
            "floor",
        );
        let peers = case.iter().filter(|row| matches!(row.kind, Kind::Peer(_)));
        let best_peer = peers.map(|row| row.measured.calls_per_s).max_by(f64::total_cmp);
        case.iter().for_each(|row| line(&mut table, row, best_peer, floor_of(row, case)));
        table.push('\n');
    }
    table
}

/// The floor of the same wait policy; of who looks on before it sleeps, the one that spins.
fn floor_of(row: &Row, case: &[Row]) -> Option<f64> {
    let wait = if row.wait == "adaptive" { "spin" } else { row.wait };
    let floor = case.iter().find(|other| other.kind == Kind::Floor && other.wait == wait)?;
    Some(floor.measured.calls_per_s)
}

fn line(table: &mut String, row: &Row, best_peer: Option<f64>, floor: Option<f64>) {
    let Measured { calls_per_s, p50_us, p99_us, p999_us, cpu_s_per_mcall, .. } = &row.measured;
    let ratio = |to: Option<f64>| match to {
        Some(to) => format!("{:.2}×", calls_per_s / to),
        None => "–".to_owned(),
    };
    let _ = writeln!(
        table,
        "  {:<24}{calls_per_s:>12.0}{p50_us:>11.1}{p99_us:>11.1}{p999_us:>11.1}{cpu_s_per_mcall:>13.2}{:>12}{:>9}",
        row.subject,
        ratio(best_peer),
        ratio(floor),
    );
}
