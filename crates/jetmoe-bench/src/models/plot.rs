//! The plot: tokens per second of every target.

use anyhow::Result;
use clap::ValueEnum;
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::BenchTarget;
use crate::plot::{BLUE, CAPTION, LABEL, svg, write_text};
use crate::rounds::Rounds;

const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 46;
const BASELINES: RGBColor = RGBColor(150, 160, 170);

/// One bar per target: tokens per second at batch 1, after 128 tokens.
pub(super) fn draw(rounds: &Rounds<'_>) -> Result<String> {
    let rate = |target: &BenchTarget| Some((*target, 1e3 / rounds.decode(*target, (1, 128))?));
    let bars: Vec<(BenchTarget, f64)> = BenchTarget::value_variants().iter().filter_map(rate).collect();
    let highest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    svg((WIDTH, BAR_HEIGHT * bars.len() as u32 + 110), |area| {
        let mut chart = ChartBuilder::on(area)
            .caption("Decoding, batch 1, after 128 tokens", CAPTION)
            .margin(18)
            .margin_left(170)
            .margin_right(70)
            .x_label_area_size(44)
            .build_cartesian_2d(0.0..highest, 0.0..bars.len() as f64)?;
        let mut mesh = chart.configure_mesh();
        mesh.disable_y_mesh()
            .light_line_style(WHITE)
            .x_desc("tokens per second")
            .label_style(LABEL)
            .draw()?;
        for (index, (target, rate)) in bars.iter().enumerate() {
            let middle = (bars.len() - index) as f64 - 0.5;
            let color = if target.jetmoe().is_some() { BLUE } else { BASELINES };
            let corners = [(0.0, middle - 0.32), (*rate, middle + 0.32)];
            chart.draw_series([Rectangle::new(corners, color.filled())])?;
            let (left, y) = chart.backend_coord(&(0.0, middle));
            write_text(area, &target.name(), (left - 8, y), HPos::Right, &BLACK)?;
            let (right, y) = chart.backend_coord(&(*rate, middle));
            write_text(area, &format!("{rate:.1}"), (right + 8, y), HPos::Left, &BLACK)?;
        }
        Ok(())
    })
}
