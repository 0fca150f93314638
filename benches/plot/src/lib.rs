//! Pictures of what benchmarks measured, as SVG: bars, and lines over an axis that is linear or logarithmic.

#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

/// A colour: red, green, blue.
pub use plotters::style::RGBColor;

/// A failure to write.
pub type Result<T> = std::result::Result<T, Box<dyn Error + Send + Sync>>;

const SIZE: (u32, u32) = (900, 480);
const FONT: &str = "sans-serif";
/// How high a bar is, with what is between it and the next.
const BAR: i32 = 26;

/// What is written above a picture.
#[derive(Clone, Copy, Debug)]
pub struct Heading<'a> {
    /// What is shown.
    pub title: &'a str,
    /// Smaller, beneath it: where and when that was measured. May be empty.
    pub note: &'a str,
}

/// One bar.
#[derive(Clone, Debug)]
pub struct Bar<'a> {
    /// Whose.
    pub name: &'a str,
    /// How long it is; it is written beside it, too.
    pub value: f64,
    /// In which colour.
    pub color: RGBColor,
}

/// One line.
#[derive(Clone, Debug)]
pub struct Line<'a> {
    /// Whose.
    pub name: &'a str,
    /// Where it goes.
    pub points: Vec<(f64, f64)>,
    /// In which colour.
    pub color: RGBColor,
}

/// What lines are drawn over.
#[derive(Clone, Copy)]
pub struct Axis<'a> {
    /// What is beneath it.
    pub name: &'a str,
    /// How a number on it is written.
    pub label: &'a dyn Fn(&f64) -> String,
}

impl std::fmt::Debug for Axis<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Axis").field("name", &self.name).finish_non_exhaustive()
    }
}

/// The colour of the line with this number, for who needs no certain one. They come again after the fourth.
#[must_use]
pub fn color(index: usize) -> RGBColor {
    const COLORS: [RGBColor; 4] = [
        RGBColor(150, 150, 150),
        RGBColor(200, 60, 20),
        RGBColor(30, 90, 180),
        RGBColor(20, 140, 90),
    ];
    COLORS[index % COLORS.len()]
}

/// A number in thousands or millions.
#[must_use]
pub fn thousands(number: &f64) -> String {
    match *number {
        number if number >= 1e6 => format!("{:.2} M", number / 1e6),
        number if number >= 1e3 => format!("{:.0} k", number / 1e3),
        number => format!("{number:.0}"),
    }
}

/// Numbers, one beneath the other, the longest bar as wide as there is room.
///
/// # Errors
/// When the file cannot be written.
pub fn bars(path: &Path, heading: Heading<'_>, bars: &[Bar<'_>]) -> Result<()> {
    let height = HEADING + BAR * bars.len() as i32 + 14;
    let area = begin(path, (SIZE.0, height as u32), heading)?;
    let most = bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
    for (row, bar) in (0..).zip(bars) {
        let top = HEADING + BAR * row;
        let end = 230 + (bar.value / most * 540.0) as i32;
        let filled = Rectangle::new([(230, top - 2), (end, top + 16)], bar.color.filled());
        area.draw(&Text::new(bar.name, (12, top), (FONT, 14)))?;
        area.draw(&filled)?;
        area.draw(&Text::new(thousands(&bar.value), (end + 6, top), (FONT, 14)))?;
    }
    Ok(area.present()?)
}

/// Shares, from 0 to 110 %, over something that begins at 0.
///
/// # Errors
/// When the file cannot be written.
pub fn shares(path: &Path, heading: Heading<'_>, x: &str, lines: &[Line<'_>]) -> Result<()> {
    let most = points(lines).map(|point| point.0).fold(0.0, f64::max);
    let percent = |share: &f64| format!("{:.0} %", share * 100.0);
    let x = Axis { name: x, label: &|at| format!("{at}") };
    let y = Axis { name: "", label: &percent };
    chart(path, heading, (x, 0.0..most), (y, 0.0..1.1), lines)
}

/// Positive numbers over positive numbers, both logarithmic.
///
/// # Errors
/// When the file cannot be written.
pub fn logarithmic(
    path: &Path,
    heading: Heading<'_>,
    (x, y): (Axis<'_>, Axis<'_>),
    lines: &[Line<'_>],
) -> Result<()> {
    let range = |of: fn(&(f64, f64)) -> f64| {
        let (least, most) = points(lines)
            .map(of)
            .fold((f64::MAX, 1.0_f64), |(least, most), at| (least.min(at), most.max(at)));
        (least.min(most).max(0.1)..most * 1.2).log_scale()
    };
    let (across, up) = (range(|point| point.0), range(|point| point.1));
    chart(path, heading, (x, across), (y, up), lines)
}

/// Lines over the same axis, in one of several charts beneath each other.
#[derive(Clone, Debug)]
pub struct Panel<'a> {
    /// The axis of its own, which begins at 0.
    pub axis: Axis<'a>,
    /// What is drawn in it.
    pub lines: Vec<Line<'a>>,
}

/// Charts beneath each other, over an axis that they share and that begins at 0; all is linear.
///
/// # Errors
/// When the file cannot be written.
pub fn panels(path: &Path, heading: Heading<'_>, x: &str, panels: &[Panel<'_>]) -> Result<()> {
    let height = HEADING as u32 + PANEL * panels.len() as u32;
    let area = begin(path, (SIZE.0, height), heading)?;
    let most = |lines: &[Line<'_>], of: fn(&(f64, f64)) -> f64| {
        points(lines).map(of).fold(f64::MIN_POSITIVE, f64::max)
    };
    let across = panels.iter().map(|panel| most(&panel.lines, |at| at.0)).fold(1.0, f64::max);
    let places = area.split_vertically(HEADING).1.split_evenly((panels.len(), 1));
    for (index, (place, panel)) in places.iter().zip(panels).enumerate() {
        let is_last = index + 1 == panels.len();
        let x = Axis { name: if is_last { x } else { "" }, label: &|at| format!("{at}") };
        let legend = SeriesLabelPosition::UpperRight;
        let style = Style { margin_top: 4, y_labels: 5, faint_lines: 1, legend };
        let up = 0.0..most(&panel.lines, |at| at.1) * 1.25;
        draw(place, style, (x, 0.0..across), (panel.axis, up), &panel.lines)?;
    }
    Ok(area.present()?)
}

// ---- what they share ----

/// How high a chart is that is one of several.
const PANEL: u32 = 190;

/// How high a heading is.
const HEADING: i32 = 58;

fn points<'a>(lines: &'a [Line<'_>]) -> impl Iterator<Item = &'a (f64, f64)> {
    lines.iter().flat_map(|line| &line.points)
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn begin<'a>(path: &'a Path, size: (u32, u32), heading: Heading<'_>) -> Result<Area<'a>> {
    let area = SVGBackend::new(path, size).into_drawing_area();
    area.fill(&WHITE)?;
    area.draw(&Text::new(heading.title, (12, 12), (FONT, 18)))?;
    area.draw(&Text::new(heading.note, (12, 36), (FONT, 12)))?;
    Ok(area)
}

fn chart<X, Y>(
    path: &Path,
    heading: Heading<'_>,
    x: (Axis<'_>, impl AsRangedCoord<CoordDescType = X, Value = f64>),
    y: (Axis<'_>, impl AsRangedCoord<CoordDescType = Y, Value = f64>),
    lines: &[Line<'_>],
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let area = begin(path, SIZE, heading)?;
    // Lines rise to the right, or fall to the left.
    let legend = SeriesLabelPosition::LowerRight;
    draw(&area, Style { margin_top: HEADING, y_labels: 10, faint_lines: 10, legend }, x, y, lines)?;
    Ok(area.present()?)
}

/// How a chart lies in its area.
struct Style {
    margin_top: i32,
    /// Lines across, each with a number, and how many fainter ones there are for each.
    y_labels: usize,
    faint_lines: usize,
    legend: SeriesLabelPosition,
}

fn draw<X, Y>(
    area: &Area<'_>,
    style: Style,
    (x, across): (Axis<'_>, impl AsRangedCoord<CoordDescType = X, Value = f64>),
    (y, up): (Axis<'_>, impl AsRangedCoord<CoordDescType = Y, Value = f64>),
    lines: &[Line<'_>],
) -> Result<()>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .margin_top(style.margin_top)
        .x_label_area_size(if x.name.is_empty() { 20 } else { 44 })
        .y_label_area_size(70)
        .build_cartesian_2d(across, up)?;
    chart
        .configure_mesh()
        .y_labels(style.y_labels)
        .max_light_lines(style.faint_lines)
        .x_desc(x.name)
        .y_desc(y.name)
        .x_label_formatter(&|at| (x.label)(at))
        .y_label_formatter(&|at| (y.label)(at))
        .draw()?;
    for line in lines {
        let style = line.color.stroke_width(2);
        let series = LineSeries::new(line.points.iter().copied(), style);
        let sample = move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style);
        chart.draw_series(series)?.label(line.name).legend(sample);
    }
    chart
        .configure_series_labels()
        .position(style.legend)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()?;
    Ok(())
}
