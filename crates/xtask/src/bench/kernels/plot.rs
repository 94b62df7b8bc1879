//! The roofline: what is computed for each byte of weights against what is computed in a second, and the limits.

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::results::{Point, Results};
use super::{Contender, TOKENS};

const SIZE: (u32, u32) = (900, 560);
const LIMIT: RGBColor = RGBColor(90, 90, 90);
const TEXT: (&str, i32) = ("sans-serif", 14);

fn color(contender: Contender) -> RGBColor {
    match contender {
        Contender::Jetmoe => RGBColor(31, 98, 160),
        Contender::Forced("generic") => RGBColor(160, 190, 220),
        Contender::Forced(_) => RGBColor(95, 150, 200),
        Contender::OnnxRuntime => RGBColor(200, 90, 40),
        Contender::Openvino => RGBColor(120, 80, 160),
        Contender::TransformersBf16 => RGBColor(90, 140, 60),
        Contender::Candle => RGBColor(190, 150, 40),
    }
}

/// A line of points for everybody who was measured, and the lines of the limits.
pub(super) fn draw(results: &Results<'_>) -> Result<String> {
    let limit = |field: &str| {
        let found = results.limit(field);
        found.with_context(|| format!("the raw results of jetmoe have no {field}; measure anew"))
    };
    // in billions, as the axis has them
    let read = limit("read_bytes_per_second")? / 1e9;
    let peak = limit("float32_operations_per_second")? / 1e9;
    let lines: Vec<(Contender, Vec<(f64, f64)>)> = Contender::ALL
        .into_iter()
        .map(|contender| (contender, points(results, contender)))
        .filter(|(_, points)| !points.is_empty())
        .collect();
    let all = || lines.iter().flat_map(|(_, points)| points);
    let left = all().map(|point| point.0).fold(1.0, f64::min) / 1.5;
    let right = all().map(|point| point.0).fold(1000.0, f64::max);
    let bottom = all().map(|point| point.1).fold(peak, f64::min) / 2.0;
    let top = all().map(|point| point.1).fold(peak, f64::max) * 2.5;

    let mut drawing = String::new();
    {
        let area = SVGBackend::with_string(&mut drawing, SIZE).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("the plot cannot be drawn: {error}");
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let caption = "One MLP layer; points from left to right: 1, 16, 128, 512 tokens";
        let mut chart = ChartBuilder::on(&area)
            .caption(caption, ("sans-serif", 20))
            .margin(18)
            .x_label_area_size(44)
            .y_label_area_size(64)
            .build_cartesian_2d((left..right).log_scale(), (bottom..top).log_scale())
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .light_line_style(WHITE)
            .bold_line_style(RGBColor(225, 225, 225))
            .x_desc("operations per byte of weights")
            .y_desc("billion operations per second")
            .label_style(TEXT)
            .draw()
            .map_err(|error| failed(&error))?;
        // memory limits up to where its line leaves the picture, as products of integers pass the float32 peak
        let (begin, end) = (left.max(bottom / read), right.min(top / read));
        let slope = [(begin, read * begin), (end, read * end)];
        let level = [(peak / read, peak), (right, peak)];
        for (line, text, side) in [
            (slope, format!("reads {read:.1} GB/s"), HPos::Left),
            (level, format!("float32 peak, {peak:.0} GFLOP/s"), HPos::Right),
        ] {
            let path = PathElement::new(line.to_vec(), LIMIT.stroke_width(2));
            chart.draw_series([path]).map_err(|error| failed(&error))?;
            let style = TEXT.into_text_style(&area).color(&LIMIT).pos(Pos::new(side, VPos::Center));
            let (x, y) = chart.backend_coord(&line[1]);
            area.draw(&Text::new(text, (x + 2, y + 13), style)).map_err(|error| failed(&error))?;
        }
        let (legend_x, legend_y) = chart.backend_coord(&(left, top));
        for (index, (contender, points)) in lines.iter().enumerate() {
            let color = color(*contender);
            let marks = points.iter().map(|point| Circle::new(*point, 5, color.filled()));
            chart.draw_series(marks).map_err(|error| failed(&error))?;
            let path = PathElement::new(points.clone(), color);
            chart.draw_series([path]).map_err(|error| failed(&error))?;
            let (x, y) = (legend_x + 16, legend_y + 16 + 20 * index as i32);
            area.draw(&Circle::new((x, y), 5, color.filled())).map_err(|error| failed(&error))?;
            let style = TEXT.into_text_style(&area).pos(Pos::new(HPos::Left, VPos::Center));
            let name = Text::new(contender.name(), (x + 12, y), style);
            area.draw(&name).map_err(|error| failed(&error))?;
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(drawing)
}

/// Operations per byte and billions of them per second, for each number of tokens that was measured.
fn points(results: &Results<'_>, contender: Contender) -> Vec<(f64, f64)> {
    let point = |tokens: &usize| {
        let Point { operations_per_byte, operations_per_second } = results.point(contender, *tokens)?;
        Some((operations_per_byte, operations_per_second / 1e9))
    };
    TOKENS.iter().filter_map(point).collect()
}

#[cfg(test)]
mod tests {
    use super::super::results::tests::raw;
    use super::*;

    #[test]
    fn everybody_who_was_measured_has_points_and_a_name_and_both_limits_are_drawn() {
        let raw = raw();
        let drawing = draw(&Results::new(&raw)).unwrap();
        for text in ["jetmoe", "onnxruntime", "openvino", "reads 60.0 GB/s", "float32 peak, 130 GFLOP/s"] {
            assert!(drawing.contains(&format!(">\n{text}\n</text>")), "{drawing}");
        }
        // a point for each of two numbers of tokens, and one beside the name
        assert_eq!(drawing.matches("<circle").count(), 4 * 3);
        assert!(!drawing.contains("transformers"));
    }
}
