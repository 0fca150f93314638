//! Pictures, as SVG.

use std::path::Path;

use plotters::prelude::*;

use crate::Result;

const SIZE: (u32, u32) = (900, 420);
const FONT: &str = "sans-serif";
const COLORS: [RGBColor; 4] =
    [RGBColor(150, 150, 150), RGBColor(200, 60, 20), RGBColor(30, 90, 180), RGBColor(20, 140, 90)];

pub(crate) struct Line<'a> {
    pub(crate) name: &'a str,
    pub(crate) points: Vec<(f64, f64)>,
}

/// Shares over something.
pub(crate) fn lines(path: &Path, title: &str, x: &str, lines: &[Line<'_>]) -> Result<()> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let points = lines.iter().flat_map(|line| &line.points);
    let most = points.map(|point| point.0).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(&area)
        .caption(title, (FONT, 18))
        .margin(12)
        .x_label_area_size(44)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..most, 0.0..1.1)?;
    let percent = |share: &f64| format!("{:.0} %", share * 100.0);
    chart.configure_mesh().x_desc(x).y_label_formatter(&percent).draw()?;
    for (line, color) in lines.iter().zip(COLORS.iter().cycle()) {
        let series = LineSeries::new(line.points.iter().copied(), color.stroke_width(2));
        chart.draw_series(series)?.label(line.name).legend(move |(x, y)| {
            PathElement::new(vec![(x, y), (x + 18, y)], color.stroke_width(2))
        });
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .label_font((FONT, 13))
        .draw()?;
    Ok(area.present()?)
}
