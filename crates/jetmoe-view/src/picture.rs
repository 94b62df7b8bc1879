//! A picture in SVG, in whole pixels: rectangles and text, by plotters.

use plotters::coord::Shift;
use plotters::drawing::DrawingAreaErrorKind;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use unicode_width::UnicodeWidthStr;

use crate::error::{Error, Result};
use crate::label::markup_text;

pub(crate) const WHITE_CELL: RGBColor = RGBColor(255, 255, 255);
pub(crate) const INK: RGBColor = RGBColor(27, 34, 48);
pub(crate) const MUTED: RGBColor = RGBColor(88, 98, 116);

/// Sizes of text in pixels. plotters writes 1 / 1.24 of a size into an SVG.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TextSize {
    Caption,
    Heading,
    Label,
    Small,
}

impl TextSize {
    fn pixels(self) -> f64 {
        let pixels = match self {
            TextSize::Caption => 16.0,
            TextSize::Heading => 13.0,
            TextSize::Label => 11.0,
            TextSize::Small => 10.0,
        };
        pixels * 1.24
    }
}

/// Which end of a text is at its place.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Anchor {
    Start,
    Middle,
    End,
    /// The start, and the text goes up.
    Upwards,
}

/// The picture while it is drawn.
pub(crate) struct Picture<'a> {
    area: DrawingArea<SVGBackend<'a>, Shift>,
    name: &'static str,
}

impl Picture<'_> {
    /// Draws on a white picture of `size` pixels. `title` is its text alternative.
    pub(crate) fn draw(
        name: &'static str,
        title: &str,
        size: (usize, usize),
        draw: impl FnOnce(&Picture<'_>) -> Result<()>,
    ) -> Result<String> {
        let pixels = |size: usize| {
            let fits = u32::try_from(size).ok().filter(|&size| size <= 32_000);
            fits.ok_or_else(|| Error::Draw { picture: name, message: format!("{size} pixels are too many") })
        };
        let mut svg = String::new();
        {
            let backend = SVGBackend::with_string(&mut svg, (pixels(size.0)?, pixels(size.1)?));
            let picture = Picture { area: backend.into_drawing_area(), name };
            picture.checked(picture.area.fill(&WHITE))?;
            draw(&picture)?;
            picture.checked(picture.area.present())?;
        }
        let title = markup_text(title);
        // inside the element <svg …>
        let at = svg.find('>').map_or(0, |end| end + 1);
        svg.insert_str(at, &format!("\n<title>{title}</title>"));
        Ok(svg)
    }

    fn checked<E: std::error::Error + Send + Sync>(
        &self,
        result: std::result::Result<(), DrawingAreaErrorKind<E>>,
    ) -> Result<()> {
        result.map_err(|error| Error::Draw { picture: self.name, message: error.to_string() })
    }

    /// A filled rectangle without a border: left, top, width, height.
    pub(crate) fn rectangle(&self, place: (i32, i32), size: (i32, i32), color: RGBColor) -> Result<()> {
        let corners = [place, (place.0 + size.0, place.1 + size.1)];
        self.checked(self.area.draw(&Rectangle::new(corners, color.filled())))
    }

    /// A line of text, centered vertically at `place`.
    pub(crate) fn text(
        &self,
        text: &str,
        place: (i32, i32),
        anchor: Anchor,
        size: TextSize,
        color: RGBColor,
    ) -> Result<()> {
        let side = match anchor {
            Anchor::Start | Anchor::Upwards => HPos::Left,
            Anchor::Middle => HPos::Center,
            Anchor::End => HPos::Right,
        };
        let font = FontDesc::new(FontFamily::SansSerif, size.pixels(), FontStyle::Normal);
        let font =
            if matches!(anchor, Anchor::Upwards) { font.transform(FontTransform::Rotate270) } else { font };
        let style = TextStyle::from(font).color(&color).pos(Pos::new(side, VPos::Center));
        self.checked(self.area.draw(&Text::new(text.to_owned(), place, style)))
    }
}

/// Whole pixels of a count of cells or lines.
pub(crate) fn pixels(size: usize) -> i32 {
    i32::try_from(size).unwrap_or(i32::MAX)
}

/// Pixels for the longest of some labels and a number, in the size of labels.
pub(crate) fn label_pixels(labels: &[String]) -> usize {
    // a letter has 7 pixels on average, and there are wide ones
    48 + labels.iter().map(|label| 8 * label.width()).max().unwrap_or(0)
}

/// Every how many cells a label of 13 pixels fits.
pub(crate) fn label_step(cell: usize) -> usize {
    [1, 2, 4, 5, 10, 20, 25, 50, 100].into_iter().find(|step| step * cell >= 13).unwrap_or(200)
}
