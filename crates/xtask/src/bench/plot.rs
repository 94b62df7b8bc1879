//! The plot: tokens per second that everybody decodes.

use anyhow::{Result, anyhow};
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::Peer;
use super::rounds::Rounds;

const WIDTH: u32 = 900;
const BAR_HEIGHT: u32 = 46;
const OURS: RGBColor = RGBColor(31, 98, 160);
const PEERS: RGBColor = RGBColor(150, 160, 170);

/// One bar a peer: tokens per second at batch 1, after 128 tokens.
pub(super) fn draw(rounds: &Rounds<'_>) -> Result<String> {
    let bars: Vec<(Peer, f64)> =
        Peer::ALL.into_iter().filter_map(|peer| Some((peer, 1e3 / rounds.decode(peer, (1, 128))?))).collect();
    let highest = bars.iter().map(|bar| bar.1).fold(0.0, f64::max);
    let mut drawing = String::new();
    {
        let size = (WIDTH, BAR_HEIGHT * bars.len() as u32 + 110);
        let area = SVGBackend::with_string(&mut drawing, size).into_drawing_area();
        let failed = |error: &dyn std::fmt::Display| anyhow!("the plot cannot be drawn: {error}");
        area.fill(&WHITE).map_err(|error| failed(&error))?;
        let mut chart = ChartBuilder::on(&area)
            .caption("Decoding, batch 1, after 128 tokens", ("sans-serif", 20))
            .margin(18)
            .margin_left(170)
            .margin_right(70)
            .x_label_area_size(44)
            .build_cartesian_2d(0.0..highest, 0.0..bars.len() as f64)
            .map_err(|error| failed(&error))?;
        chart
            .configure_mesh()
            .disable_y_mesh()
            .light_line_style(WHITE)
            .x_desc("tokens per second")
            .label_style(("sans-serif", 14))
            .draw()
            .map_err(|error| failed(&error))?;
        for (index, (peer, rate)) in bars.iter().enumerate() {
            let middle = (bars.len() - index) as f64 - 0.5;
            let color = if peer.ours().is_some() { OURS } else { PEERS };
            let bar = Rectangle::new([(0.0, middle - 0.32), (*rate, middle + 0.32)], color.filled());
            chart.draw_series([bar]).map_err(|error| failed(&error))?;
            for (text, at, offset, side) in
                [(peer.name().to_owned(), 0.0, -8, HPos::Right), (format!("{rate:.1}"), *rate, 8, HPos::Left)]
            {
                let style = ("sans-serif", 14).into_text_style(&area).pos(Pos::new(side, VPos::Center));
                let (x, y) = chart.backend_coord(&(at, middle));
                area.draw(&Text::new(text, (x + offset, y), style)).map_err(|error| failed(&error))?;
            }
        }
        area.present().map_err(|error| failed(&error))?;
    }
    Ok(drawing)
}

#[cfg(test)]
mod tests {
    use super::super::rounds::tests::raw;
    use super::*;

    #[test]
    fn everybody_who_was_measured_has_a_bar_with_name_and_number() {
        let raw = raw();
        let drawing = draw(&Rounds::new(&raw)).unwrap();
        for text in ["jetmoe-q4", "transformers-bf16", "666.7", "222.2"] {
            assert!(drawing.contains(&format!(">\n{text}\n</text>")), "{drawing}");
        }
        assert!(!drawing.contains("openvino"));
    }
}
