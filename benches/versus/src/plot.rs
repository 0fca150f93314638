//! Pictures of what was measured, as SVG.

use std::fs;
use std::path::Path;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::Result;
use crate::load::Step;
use crate::report::Row;
use crate::subjects::Kind;

const WIDTH: u32 = 900;
const HEIGHT: u32 = 520;
const FONT: &str = "sans-serif";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Calls a second by subject, a picture a case, and how their latencies are spread.
pub(crate) fn cases(folder: &Path, rows: &[Row]) -> Result<()> {
    fs::create_dir_all(folder)?;
    for case in rows.chunk_by(|row, next| row.case == next.case) {
        let id = case[0].case;
        bars(&folder.join(format!("{id}.svg")), id, case)?;
        if case.iter().any(|row| !row.measured.curve.is_empty()) {
            curves(&folder.join(format!("{id}-latency.svg")), id, case)?;
        }
    }
    Ok(())
}

/// Latency against the offered rate.
pub(crate) fn load(folder: &Path, steps: &[Step]) -> Result<()> {
    fs::create_dir_all(folder)?;
    let path = folder.join("load.svg");
    let lines: Vec<Line<'_>> = steps
        .chunk_by(|step, next| step.row.subject == next.row.subject)
        .map(|of_one| Line {
            name: of_one[0].row.subject,
            kind: of_one[0].row.kind,
            points: of_one
                .iter()
                .filter(|step| step.kept_up())
                .map(|step| (step.offered as f64, step.row.measured.p99_us))
                .collect(),
        })
        .collect();
    let x = Axis { name: "calls/s offered", label: &thousands };
    logarithmic(&path, "64 B echo, one connection: 99th percentile against load", x, &lines)
}

fn bars(path: &Path, id: &str, rows: &[Row]) -> Result<()> {
    let height = 60 + 26 * rows.len() as u32;
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    area.fill(&WHITE)?;
    let most = rows.iter().map(|row| row.measured.calls_per_s).fold(1.0, f64::max);
    let text = |size: i32| (FONT, size).into_font();
    area.draw(&Text::new(format!("{id}: calls a second"), (12, 12), text(18)))?;
    for (index, row) in rows.iter().enumerate() {
        let top = 46 + 26 * index as i32;
        let rate = row.measured.calls_per_s;
        let end = 230 + (rate / most * 540.0) as i32;
        area.draw(&Text::new(row.subject, (12, top), text(14)))?;
        area.draw(&Rectangle::new(
            [(230, top - 2), (end, top + 16)],
            color(row.kind, index).filled(),
        ))?;
        area.draw(&Text::new(thousands(&rate), (end + 6, top), text(14)))?;
    }
    Ok(area.present()?)
}

fn curves(path: &Path, id: &str, rows: &[Row]) -> Result<()> {
    let lines: Vec<Line<'_>> = rows
        .iter()
        .map(|row| Line {
            name: row.subject,
            kind: row.kind,
            // So that each nine takes as much room as the one before.
            points: row
                .measured
                .curve
                .iter()
                .map(|&(share, micros)| (1.0 / (1.0 - share), micros))
                .collect(),
        })
        .collect();
    let percent = |x: &f64| format!("{}%", ((1.0 - 1.0 / x) * 1e7).round() / 1e5);
    logarithmic(
        path,
        &format!("{id}: latency by percentile"),
        Axis { name: "percentile", label: &percent },
        &lines,
    )
}

struct Line<'a> {
    name: &'a str,
    kind: Kind,
    points: Vec<(f64, f64)>,
}

struct Axis<'a> {
    name: &'a str,
    label: &'a dyn Fn(&f64) -> String,
}

/// Lines of microseconds over something, both logarithmic.
fn logarithmic(path: &Path, title: &str, x: Axis<'_>, lines: &[Line<'_>]) -> Result<()> {
    let area: Area<'_> = SVGBackend::new(path, (WIDTH, HEIGHT)).into_drawing_area();
    area.fill(&WHITE)?;
    let points = || lines.iter().flat_map(|line| line.points.iter());
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (least, most) = points()
            .map(of)
            .fold((f64::MAX, 1.0_f64), |(least, most), at| (least.min(at), most.max(at)));
        (least.min(most).max(0.1), most * 1.2)
    };
    let ((x0, x1), (y0, y1)) = (range(|point| point.0), range(|point| point.1));
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 20))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d((x0..x1).log_scale(), (y0..y1).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(x.name)
        .y_desc("µs")
        .x_label_formatter(&|at| (x.label)(at))
        .y_label_formatter(&|at| format!("{at}"))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let color = color(line.kind, index);
        let series =
            LineSeries::new(line.points.iter().copied(), color.stroke_width(2)).point_size(3);
        chart.draw_series(series)?.label(line.name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()?;
    Ok(area.present()?)
}

/// Warm colours for ringcall, cold ones for the others, grey for the floor.
fn color(kind: Kind, index: usize) -> RGBColor {
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
        Kind::Floor => RGBColor(150, 150, 150),
        Kind::Ringcall(_) => OURS[index % OURS.len()],
        Kind::Peer(_) => PEERS[index % PEERS.len()],
    }
}

fn thousands(rate: &f64) -> String {
    match *rate {
        rate if rate >= 1e6 => format!("{:.2} M", rate / 1e6),
        rate if rate >= 1e3 => format!("{:.0} k", rate / 1e3),
        rate => format!("{rate:.0}"),
    }
}
