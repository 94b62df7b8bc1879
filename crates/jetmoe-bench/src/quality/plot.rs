//! The plot: size against perplexity.

use anyhow::Result;
use plotters::prelude::*;

use super::Measured;
use crate::plot::{BLUE, CAPTION, GRID, LABEL, place_labels, svg, write_text};

/// One point per variant, with its name.
pub(super) fn draw(rows: &[Measured]) -> Result<String> {
    let largest = rows.iter().map(|row| row.bytes).max().unwrap_or(0) as f64 / 1e6 * 1.2;
    let lowest = rows.iter().map(|row| row.perplexity).fold(f64::INFINITY, f64::min);
    let highest = rows.iter().map(|row| row.perplexity).fold(0.0, f64::max);
    let margin = (highest - lowest).max(0.01) * 0.12;
    svg((900, 540), |area| {
        let mut chart = ChartBuilder::on(area)
            .caption("jetmoe-mini: size against perplexity on held-out text", CAPTION)
            .margin(18)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d(0.0..largest, (lowest - margin)..(highest + margin))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .x_desc("weights, MB")
            .y_desc("perplexity")
            .label_style(LABEL)
            .draw()?;
        let points: Vec<(f64, f64)> =
            rows.iter().map(|row| (row.bytes as f64 / 1e6, row.perplexity)).collect();
        let pixels: Vec<(i32, i32)> = points.iter().map(|point| chart.backend_coord(point)).collect();
        let (left, top) = chart.backend_coord(&(0.0, highest + margin));
        let (right, bottom) = chart.backend_coord(&(largest, lowest - margin));
        let names: Vec<&str> = rows.iter().map(|row| row.name).collect();
        let places = place_labels(&pixels, &names, (left, top, right, bottom));
        for ((point, name), (place, side)) in points.iter().zip(names).zip(places) {
            chart.draw_series([Circle::new(*point, 5, BLUE.filled())])?;
            write_text(area, name, place, side, &BLACK)?;
        }
        Ok(())
    })
}
