//! The roofline: operations per byte of weights against operations per second, with the limits of the machine.

use anyhow::{Context, Result};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::results::Point;
use super::{BenchTarget, GENERIC, TOKENS};
use crate::plot::{BLUE, CAPTION, GRID, LABEL, spread, svg, write_text};
use crate::rounds::Rounds;

const SIZE: (u32, u32) = (1000, 620);
/// Room above for the caption and the name of a limit.
const TOP: u32 = 66;
/// Room on the right for the names of the limits.
const RIGHT: u32 = 220;
/// Names of targets side by side below the axis, and pixels between two rows of them.
const COLUMNS: usize = 5;
const ROW: u32 = 22;
const LIMIT: RGBColor = RGBColor(90, 90, 90);

fn color(target: BenchTarget) -> RGBColor {
    match target {
        BenchTarget::Jetmoe => BLUE,
        BenchTarget::Isa(GENERIC) => RGBColor(160, 190, 220),
        BenchTarget::Isa(_) => RGBColor(95, 150, 200),
        BenchTarget::OnnxRuntime => RGBColor(200, 90, 40),
        BenchTarget::OnnxRuntimeQmoe => RGBColor(235, 150, 110),
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
    let float32 = limit("float32_operations_per_second")? / 1e9;
    let mut peaks = vec![(format!("float32, {float32:.0} GFLOP/s"), float32)];
    let int8 = rounds.int8_peaks().into_iter().map(|(isa, peak)| (isa, peak / 1e9));
    peaks.extend(int8.map(|(isa, peak)| (format!("int8 {isa}, {peak:.0} GOP/s"), peak)));
    let highest_peak = peaks.iter().map(|peak| peak.1).fold(0.0, f64::max);
    let lines: Vec<(BenchTarget, Vec<(f64, f64)>)> = BenchTarget::ALL
        .into_iter()
        .map(|target| (target, points(rounds, target)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let left = all().map(|point| point.0).fold(1.0, f64::min) / 1.5;
    let right = all().map(|point| point.0).fold(1000.0, f64::max);
    let bottom = all().map(|point| point.1).fold(float32, f64::min) / 2.0;
    let top = all().map(|point| point.1).fold(highest_peak, f64::max) * 1.5;

    let rows = lines.len().div_ceil(COLUMNS) as u32;
    svg(SIZE, |area| {
        let caption = "One MLP layer; points from left to right: 1, 16, 128, 512 tokens";
        let mut chart = ChartBuilder::on(area)
            .margin(18)
            .margin_top(TOP)
            .margin_right(RIGHT)
            .margin_bottom(18 + ROW * rows)
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
        let style = CAPTION.into_text_style(area).pos(Pos::new(HPos::Center, VPos::Center));
        area.draw(&Text::new(caption, (SIZE.0 as i32 / 2, 24), style))?;
        // from the bottom to the top or to the right of the plot
        let (begin, end) = (left.max(bottom / read), right.min(top / read));
        let memory = [(begin, read * begin), (end, read * end)];
        chart.draw_series([PathElement::new(memory, LIMIT.stroke_width(2))])?;
        let (x, y) = chart.backend_coord(&memory[1]);
        write_text(area, &format!("reads {read:.1} GB/s"), (x, y - 10), HPos::Center, &LIMIT)?;
        let (edge, highest) = chart.backend_coord(&(right, top));
        let (_, lowest) = chart.backend_coord(&(left, bottom));
        let wanted: Vec<i32> = peaks.iter().map(|peak| chart.backend_coord(&(right, peak.1)).1).collect();
        for ((text, peak), y) in peaks.iter().zip(spread(&wanted, 18, (highest, lowest))) {
            let line = [((peak / read).max(left), *peak), (right, *peak)];
            chart.draw_series([PathElement::new(line, LIMIT.stroke_width(2))])?;
            write_text(area, text, (edge + 8, y), HPos::Left, &LIMIT)?;
        }
        let width = (SIZE.0 - 36) as i32 / COLUMNS as i32;
        for (index, (target, points)) in lines.iter().enumerate() {
            let color = color(*target);
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 5, color.filled())))?;
            chart.draw_series([PathElement::new(points.clone(), color)])?;
            let row = (index / COLUMNS) as u32;
            let x = 26 + width * (index % COLUMNS) as i32;
            let y = (SIZE.1 - 12 - ROW * (rows - 1 - row)) as i32;
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
