//! Pictures of what was measured.

use std::fs;
use std::path::Path;

use plot::{Axis, Bar, Heading, Line, RGBColor, thousands};

use crate::load::Step;
use crate::report::Row;
use crate::subjects::Kind;
use crate::{Result, histograms};

/// Where they are drawn, and from what besides rows.
pub(crate) struct Pictures<'a> {
    folder: &'a Path,
    note: &'a str,
    histograms: Option<&'a Path>,
}

impl<'a> Pictures<'a> {
    pub(crate) fn new(
        folder: &'a Path,
        note: &'a str,
        histograms: Option<&'a Path>,
    ) -> Result<Pictures<'a>> {
        fs::create_dir_all(folder)?;
        Ok(Pictures { folder, note, histograms })
    }

    /// Calls a second by subject, a picture a case, and how their latencies are spread.
    pub(crate) fn cases(&self, rows: &[Row]) -> Result<()> {
        for case in rows.chunk_by(|row, next| row.case == next.case) {
            let id = &case[0].case;
            self.bars(id, case)?;
            if case.iter().any(|row| !row.measured.curve.is_empty()) {
                self.curves(id, case)?;
            }
        }
        Ok(())
    }

    /// Latency against the offered rate.
    pub(crate) fn load(&self, steps: &[Step]) -> Result<()> {
        let subjects = steps.chunk_by(|step, next| step.row.subject == next.row.subject);
        let lines: Vec<Line<'_>> = subjects.enumerate().map(line_of).collect();
        let axes = (Axis { name: "calls/s offered", label: &thousands }, MICROSECONDS);
        let title = "64 B echo, one connection: 99th percentile against load";
        plot::logarithmic(&self.folder.join("load.svg"), self.heading(title), axes, &lines)
    }

    fn heading<'b>(&'b self, title: &'b str) -> Heading<'b> {
        Heading { title, note: self.note }
    }

    fn bars(&self, id: &str, rows: &[Row]) -> Result<()> {
        let bars: Vec<Bar<'_>> = rows.iter().enumerate().map(bar_of).collect();
        let title = format!("{id}: calls a second");
        plot::bars(&self.folder.join(format!("{id}.svg")), self.heading(&title), &bars)
    }

    fn curves(&self, id: &str, rows: &[Row]) -> Result<()> {
        let mut lines = Vec::new();
        for (index, row) in rows.iter().enumerate() {
            let curve = self.curve(row)?;
            // So that each nine takes as much room as the one before.
            let points = curve.iter().map(|&(share, micros)| (1.0 / (1.0 - share), micros));
            let (name, color) = (&row.subject[..], color(row.kind(), index));
            lines.push(Line { name, color, points: points.collect() });
        }
        let percent = |x: &f64| format!("{}%", ((1.0 - 1.0 / x) * 1e7).round() / 1e5);
        let axes = (Axis { name: "percentile", label: &percent }, MICROSECONDS);
        let title = format!("{id}: latency by percentile");
        let path = self.folder.join(format!("{id}-latency.svg"));
        plot::logarithmic(&path, self.heading(&title), axes, &lines)
    }

    /// From all latencies, if they were kept.
    fn curve(&self, row: &Row) -> Result<Vec<(f64, f64)>> {
        let kept = match self.histograms {
            Some(folder) => histograms::read(folder, &row.case, &row.subject)?,
            None => None,
        };
        Ok(kept.map_or_else(|| row.measured.curve.clone(), |kept| histograms::curve(&kept)))
    }
}

fn bar_of((index, row): (usize, &Row)) -> Bar<'_> {
    let color = color(row.kind(), index);
    Bar { name: &row.subject, value: row.measured.calls_per_s, color }
}

/// A subject's steps, as far as it kept up.
fn line_of((index, steps): (usize, &[Step])) -> Line<'_> {
    let row = &steps[0].row;
    let kept_up = steps.iter().filter(|step| step.kept_up());
    let points = kept_up.map(|step| (step.offered as f64, step.row.measured.p99_us)).collect();
    Line { name: &row.subject, color: color(row.kind(), index), points }
}

const MICROSECONDS: Axis<'static> = Axis { name: "µs", label: &|at| format!("{at}") };

/// Warm colours for ringcall, cold ones for the others, grey for the floor and for who is unknown.
fn color(kind: Option<Kind>, index: usize) -> RGBColor {
    const OURS: [RGBColor; 6] = [
        RGBColor(200, 60, 20),
        RGBColor(230, 130, 20),
        RGBColor(170, 20, 60),
        RGBColor(220, 170, 40),
        RGBColor(140, 60, 20),
        RGBColor(240, 90, 90),
    ];
    const PEERS: [RGBColor; 4] = [
        RGBColor(30, 90, 180),
        RGBColor(20, 140, 140),
        RGBColor(110, 70, 170),
        RGBColor(60, 130, 60),
    ];
    match kind {
        None | Some(Kind::Floor) => RGBColor(150, 150, 150),
        Some(Kind::Ringcall(_)) => OURS[index % OURS.len()],
        Some(Kind::Peer(_)) => PEERS[index % PEERS.len()],
    }
}
