//! What the plots share.

use anyhow::{Context, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

pub(crate) const BLUE: RGBColor = RGBColor(31, 98, 160);
pub(crate) const GRID: RGBColor = RGBColor(225, 225, 225);
pub(crate) const LABEL: (&str, i32) = ("sans-serif", 14);
pub(crate) const CAPTION: (&str, i32) = ("sans-serif", 20);

pub(crate) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// An SVG of this size, on white.
pub(crate) fn svg(size: (u32, u32), draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<String> {
    let mut drawing = String::new();
    {
        let area = SVGBackend::with_string(&mut drawing, size).into_drawing_area();
        area.fill(&WHITE)?;
        draw(&area).context("cannot draw the plot")?;
        area.present()?;
    }
    Ok(drawing)
}

/// Writes text at a place in pixels, centered vertically, to one side of it.
pub(crate) fn write_text(
    area: &Area<'_>,
    text: &str,
    at: (i32, i32),
    side: HPos,
    color: &RGBColor,
) -> Result<()> {
    let style = LABEL.into_text_style(area).color(color).pos(Pos::new(side, VPos::Center));
    Ok(area.draw(&Text::new(text, at, style))?)
}
