//! The plot: size against perplexity.

use anyhow::Result;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::Measured;
use crate::plot::{BLUE, CAPTION, GRID, LABEL, svg, write_text};

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
        for (row, left) in rows.iter().zip(labels_on_the_left(rows)) {
            let point = (row.bytes as f64 / 1e6, row.perplexity);
            chart.draw_series([Circle::new(point, 5, BLUE.filled())])?;
            let (x, y) = chart.backend_coord(&point);
            let (side, offset) = if left { (HPos::Right, -9) } else { (HPos::Left, 9) };
            write_text(area, row.name, (x + offset, y), side, &BLACK)?;
        }
        Ok(())
    })
}

/// Whether each label is left of its point, because a neighbouring point has its label on the right.
pub(super) fn labels_on_the_left(rows: &[Measured]) -> Vec<bool> {
    let are_near = |a: &Measured, b: &Measured| {
        (a.bytes as f64 / b.bytes as f64 - 1.0).abs() < 0.5 && (a.perplexity - b.perplexity).abs() < 0.04
    };
    let mut left: Vec<bool> = Vec::new();
    for (index, row) in rows.iter().enumerate() {
        let is_right_taken = (0..index).any(|other| are_near(&rows[other], row) && !left[other]);
        left.push(is_right_taken);
    }
    left
}
