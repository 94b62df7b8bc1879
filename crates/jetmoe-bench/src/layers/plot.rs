//! The roofline: operations per byte of weights against operations per second, with the limits of the machine.

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::HPos;

use super::results::Point;
use super::{BenchTarget, GENERIC, TOKENS};
use crate::plot::{BLUE, CAPTION, GRID, LABEL, svg, write_text};
use crate::rounds::Rounds;

const SIZE: (u32, u32) = (900, 560);
const LIMIT: RGBColor = RGBColor(90, 90, 90);

fn color(target: BenchTarget) -> RGBColor {
    match target {
        BenchTarget::Jetmoe => BLUE,
        BenchTarget::Isa(GENERIC) => RGBColor(160, 190, 220),
        BenchTarget::Isa(_) => RGBColor(95, 150, 200),
        BenchTarget::OnnxRuntime => RGBColor(200, 90, 40),
        BenchTarget::Openvino => RGBColor(120, 80, 160),
        BenchTarget::TransformersBf16 => RGBColor(90, 140, 60),
        BenchTarget::Candle => RGBColor(190, 150, 40),
    }
}

/// A line of points for every target that was measured, and the limits.
pub(super) fn draw(rounds: &Rounds<'_>) -> Result<String> {
    let limit = |field: &str| {
        let found = rounds.limit(field);
        found.with_context(|| format!("the raw results of jetmoe have no {field}; measure anew"))
    };
    // in billions, as on the axis
    let read = limit("read_bytes_per_second")? / 1e9;
    let peak = limit("float32_operations_per_second")? / 1e9;
    let lines: Vec<(BenchTarget, Vec<(f64, f64)>)> = BenchTarget::ALL
        .into_iter()
        .map(|target| (target, points(rounds, target)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let left = all().map(|point| point.0).fold(1.0, f64::min) / 1.5;
    let right = all().map(|point| point.0).fold(1000.0, f64::max);
    let bottom = all().map(|point| point.1).fold(peak, f64::min) / 2.0;
    let top = all().map(|point| point.1).fold(peak, f64::max) * 2.5;

    svg(SIZE, |area| {
        let caption = "One MLP layer; points from left to right: 1, 16, 128, 512 tokens";
        let mut chart = ChartBuilder::on(area)
            .caption(caption, CAPTION)
            .margin(18)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(GRID)
            .x_desc("operations per byte of weights")
            .y_desc("billion operations per second")
            .label_style(LABEL)
            .draw()?;
        // the memory limit goes on above the float32 peak, because integer arithmetic is faster
        let (begin, end) = (left.max(bottom / read), right.min(top / read));
        for (line, text, side) in [
            ([(begin, read * begin), (end, read * end)], format!("reads {read:.1} GB/s"), HPos::Left),
            ([(peak / read, peak), (right, peak)], format!("float32 peak, {peak:.0} GFLOP/s"), HPos::Right),
        ] {
            chart.draw_series([PathElement::new(line.to_vec(), LIMIT.stroke_width(2))])?;
            let (x, y) = chart.backend_coord(&line[1]);
            write_text(area, &text, (x + 2, y + 13), side, &LIMIT)?;
        }
        let (legend_x, legend_y) = chart.backend_coord(&(left, top));
        for (index, (target, points)) in lines.iter().enumerate() {
            let color = color(*target);
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 5, color.filled())))?;
            chart.draw_series([PathElement::new(points.clone(), color)])?;
            let (x, y) = (legend_x + 16, legend_y + 16 + 20 * index as i32);
            area.draw(&Circle::new((x, y), 5, color.filled()))?;
            write_text(area, &target.name(), (x + 12, y), HPos::Left, &BLACK)?;
        }
        Ok(())
    })
}

/// Operations per byte and billions of them per second, for each number of tokens that was measured.
fn points(rounds: &Rounds<'_>, target: BenchTarget) -> Vec<(f64, f64)> {
    let point = |tokens: &usize| {
        let Point { operations_per_byte, operations_per_second } = rounds.point(target, *tokens)?;
        Some((operations_per_byte, operations_per_second / 1e9))
    };
    TOKENS.iter().filter_map(point).collect()
}
