//! Heat maps: cells with the colours of a ramp, labels at both axes, and the legend of the ramp.

use plotters::style::RGBColor;

use crate::error::Result;
use crate::picture::{Anchor, INK, MUTED, Picture, TextSize, label_pixels, label_step, pixels};

/// A ramp of one hue, from nearly white to dark, so that it is read by lightness alone.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Ramp {
    Blue,
    Orange,
}

impl Ramp {
    /// The colour of a value from 0 to 1; others are clamped, NaN is 0.
    pub(crate) fn color(self, value: f64) -> RGBColor {
        let stops: [(u8, u8, u8); 5] = match self {
            Ramp::Blue => [(244, 247, 251), (195, 218, 241), (106, 166, 220), (31, 106, 178), (10, 58, 112)],
            Ramp::Orange => [(248, 245, 241), (246, 214, 184), (235, 157, 91), (193, 96, 26), (122, 52, 5)],
        };
        let at = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) * (stops.len() - 1) as f64 };
        let low = (at as usize).min(stops.len() - 2);
        let (from, to) = (stops[low], stops[low + 1]);
        let mix = |from: u8, to: u8| {
            (f64::from(from) + (f64::from(to) - f64::from(from)) * (at - low as f64)).round() as u8
        };
        RGBColor(mix(from.0, to.0), mix(from.1, to.1), mix(from.2, to.2))
    }

    /// Black or white, whichever is legible on that colour.
    fn ink(self, value: f64) -> RGBColor {
        let RGBColor(red, green, blue) = self.color(value);
        let light = 299 * u32::from(red) + 587 * u32::from(green) + 114 * u32::from(blue);
        if light > 128_000 { INK } else { RGBColor(255, 255, 255) }
    }
}

/// Where labels of columns are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ColumnLabels {
    Flat,
    Upwards,
}

pub(crate) struct HeatMap {
    pub(crate) title: String,
    /// What rows and columns are.
    pub(crate) axes: String,
    pub(crate) rows: Vec<String>,
    pub(crate) columns: Vec<String>,
    pub(crate) column_labels: ColumnLabels,
    /// Width and height in pixels.
    pub(crate) cell: (usize, usize),
    pub(crate) ramp: Ramp,
}

impl HeatMap {
    /// Pixels for the numbers of the rows.
    pub(crate) const LEFT: usize = 44;

    pub(crate) fn width(&self) -> usize {
        Self::LEFT + self.columns.len() * self.cell.0
    }

    fn top(&self) -> usize {
        let labels =
            if self.column_labels == ColumnLabels::Upwards { label_pixels(&self.columns) } else { 18 + 24 };
        20 + labels
    }

    pub(crate) fn height(&self) -> usize {
        self.top() + self.rows.len() * self.cell.1 + 16
    }

    /// Draws it with a value from 0 to 1 for each row and column, and a text where one fits.
    pub(crate) fn draw(
        &self,
        picture: &Picture<'_>,
        (left, top): (usize, usize),
        value: impl Fn(usize, usize) -> Option<(f64, String)>,
    ) -> Result<()> {
        let (width, height) = self.cell;
        picture.text(&self.title, (pixels(left), pixels(top + 10)), Anchor::Start, TextSize::Heading, INK)?;
        picture.text(&self.axes, (pixels(left), pixels(top + 28)), Anchor::Start, TextSize::Small, MUTED)?;
        let (left, top) = (left + Self::LEFT, top + self.top());
        // a gap between cells that are large enough for it
        let gap = usize::from(width >= 6 && height >= 6);
        for row in 0..self.rows.len() {
            for column in 0..self.columns.len() {
                let place = (left + column * width, top + row * height);
                let Some((value, text)) = value(row, column) else { continue };
                picture.rectangle(
                    (pixels(place.0), pixels(place.1)),
                    (pixels(width - gap), pixels(height - gap)),
                    self.ramp.color(value),
                )?;
                if width >= 26 && height >= 14 && !text.is_empty() {
                    let middle = (pixels(place.0 + width / 2), pixels(place.1 + height / 2));
                    picture.text(&text, middle, Anchor::Middle, TextSize::Small, self.ramp.ink(value))?;
                }
            }
        }
        for (row, label) in self.rows.iter().enumerate().step_by(label_step(height)) {
            let place = (pixels(left) - 6, pixels(top + row * height + height / 2));
            picture.text(label, place, Anchor::End, TextSize::Label, MUTED)?;
        }
        let flat = self.column_labels == ColumnLabels::Flat;
        // a number is wider than a line is high
        let step = label_step(if flat { width * 13 / 24 } else { width }.max(1));
        for (column, label) in self.columns.iter().enumerate().step_by(step) {
            let (x, y) = (pixels(left + column * width + width / 2), pixels(top));
            let (place, anchor) =
                if flat { ((x, y - 9), Anchor::Middle) } else { ((x, y - 5), Anchor::Upwards) };
            picture.text(label, place, anchor, TextSize::Label, if flat { MUTED } else { INK })?;
        }
        Ok(())
    }

    /// Draws the ramp between the texts of its ends.
    pub(crate) fn draw_legend(
        picture: &Picture<'_>,
        ramp: Ramp,
        (from, to): (&str, &str),
        (left, top): (usize, usize),
    ) -> Result<()> {
        let start = left + 8 + 7 * from.chars().count();
        picture.text(from, (pixels(left), pixels(top + 6)), Anchor::Start, TextSize::Label, MUTED)?;
        for part in 0..30 {
            let color = ramp.color(part as f64 / 29.0);
            picture.rectangle((pixels(start + 5 * part), pixels(top)), (5, 12), color)?;
        }
        let end = (pixels(start + 158), pixels(top + 6));
        picture.text(to, end, Anchor::Start, TextSize::Label, MUTED)
    }
}
