//! SVG pictures as PNG, with a font of the binary.

use std::sync::{Arc, LazyLock};

use resvg::tiny_skia::{Color, Pixmap, Transform};
use resvg::usvg::{Options, Tree, fontdb};
use skrifa::{FontRef, MetadataProvider};

use crate::error::{Error, Result};

/// The name of the font in its file.
const FONT: &str = "DejaVu Sans";

/// The largest picture in pixels: 256 MiB of memory.
const MOST_PIXELS: u64 = 1 << 26;

/// Font files that this crate brings, and no other: a picture is the same on every machine.
static FONTS: LazyLock<Arc<fontdb::Database>> = LazyLock::new(|| {
    let mut fonts = fontdb::Database::new();
    fonts.load_font_source(fontdb::Source::Binary(Arc::new(dejavu::sans::regular())));
    fonts.set_sans_serif_family(FONT);
    Arc::new(fonts)
});

/// An SVG picture of this crate as PNG, in twice its size, so that it is sharp on screens of high resolution.
///
/// Text is drawn with DejaVu Sans, which is part of the binary: Latin, Greek, Cyrillic, Arabic and symbols. No font of the system is
/// used. [`mask_png`](crate::mask_png), [`load_png`](crate::load_png) and [`margin_png`](crate::margin_png) replace other characters
/// by their code, as in `\u{65e5}`; here they are boxes.
///
/// # Errors
/// The text is no SVG, or the picture has no size or more than 67 million pixels.
pub fn svg_to_png(svg: &str) -> Result<Vec<u8>> {
    let render = |message: String| Error::Render { message };
    let options = Options { font_family: FONT.to_owned(), fontdb: Arc::clone(&FONTS), ..Options::default() };
    let tree = Tree::from_str(svg, &options).map_err(|error| render(error.to_string()))?;
    let size = tree.size().to_int_size();
    let mut scale = 2;
    let pixels = |scale: u32| u64::from(size.width()) * u64::from(size.height()) * u64::from(scale * scale);
    if pixels(scale) > MOST_PIXELS {
        scale = 1;
    }
    if pixels(scale) > MOST_PIXELS {
        let (width, height) = (size.width(), size.height());
        return Err(render(format!("{width} × {height} pixels are more than {MOST_PIXELS}")));
    }
    let pixmap = Pixmap::new(size.width() * scale, size.height() * scale);
    let mut pixmap = pixmap.ok_or_else(|| render("the picture has no size".to_owned()))?;
    pixmap.fill(Color::WHITE);
    resvg::render(&tree, Transform::from_scale(scale as f32, scale as f32), &mut pixmap.as_mut());
    pixmap.encode_png().map_err(|error| render(error.to_string()))
}

/// The characters that a picture can show.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Characters {
    /// Those of the viewer's fonts: all of them.
    All,
    /// Those of the font in the binary.
    OfFont,
}

impl Characters {
    /// The text with characters that cannot be shown replaced by their code, as in `\u{65e5}`.
    pub(crate) fn shown(self, text: &str) -> String {
        let charmap = match (self, FontRef::new(dejavu::sans::regular())) {
            (Characters::OfFont, Ok(font)) if !text.is_ascii() => font.charmap(),
            _ => return text.to_owned(),
        };
        let mut shown = String::with_capacity(text.len());
        for letter in text.chars() {
            // an undefined glyph has the number 0
            match charmap.map(letter) {
                Some(glyph) if glyph.to_u32() != 0 => shown.push(letter),
                _ => shown.extend(letter.escape_unicode()),
            }
        }
        shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn characters_that_the_font_lacks_are_shown_by_their_code() {
        let text = "naïve Ωж ␣ … 日😀";
        assert_eq!(Characters::All.shown(text), text);
        assert_eq!(Characters::OfFont.shown(text), "naïve Ωж ␣ … \\u{65e5}😀");
        assert_eq!(Characters::OfFont.shown("\u{20000}"), "\\u{20000}");
    }

    #[test]
    fn the_font_is_found_by_its_name() {
        let query = fontdb::Query { families: &[fontdb::Family::SansSerif], ..fontdb::Query::default() };
        assert!(FONTS.query(&query).is_some());
    }

    #[test]
    fn text_is_drawn_without_the_fonts_of_the_system() {
        let picture = |text: &str| {
            let svg = format!(
                "<svg xmlns='http://www.w3.org/2000/svg' width='60' height='20'><text x='2' y='15' \
                 font-family='sans-serif' font-size='12'>{text}</text></svg>"
            );
            Pixmap::decode_png(&svg_to_png(&svg).unwrap()).unwrap()
        };
        let (empty, letters) = (picture(""), picture("Token"));
        assert_eq!((letters.width(), letters.height()), (120, 40));
        let dark = |picture: &Pixmap| picture.pixels().iter().filter(|pixel| pixel.red() < 128).count();
        assert_eq!(dark(&empty), 0);
        assert!(dark(&letters) > 100);
    }

    #[test]
    fn what_is_no_picture_is_an_error() {
        assert!(matches!(svg_to_png("<p>"), Err(Error::Render { .. })));
        let huge = "<svg xmlns='http://www.w3.org/2000/svg' width='100000' height='100000'/>";
        assert!(svg_to_png(huge).unwrap_err().to_string().contains("pixels are more than"));
    }
}
