//! A mask as a picture.

use std::ops::Range;

use jetmoe_observe::{AttentionMask, SequenceMask};
use plotters::style::RGBColor;

use super::{Cell, begins_step, check, model_line, window};
use crate::error::Result;
use crate::label::{cut, token_label, visible_spaces};
use crate::mask::window::Window;
use crate::picture::{Anchor, INK, MUTED, Picture, TextSize, WHITE_CELL, label_pixels, label_step, pixels};
use crate::png::{Characters, svg_to_png};

/// Tokens of a row that are legible as cells.
const MOST_TOKENS: usize = 256;
/// Sequences of a batch that are drawn.
const MOST_SEQUENCES: usize = 16;
/// Columns of a terminal that a token's text may take; a narrow letter has about 7 pixels.
const MOST_TEXT: usize = 18;
const CAPTION: usize = 64;
const HEADING: usize = 30;
const LEGEND_LINE: usize = 20;
const EDGE: usize = 20;

/// A mask as SVG: a square for each sequence, tokens at both axes, one below the other.
///
/// Rows attend to columns. A dark line separates the steps that computed the tokens. At most 256 tokens of a sequence, from
/// `window.first`, and 16 sequences are drawn; texts are cut to 18 columns; notes in the picture say what is left out. Where cells are
/// smaller than a line of text, every second label is drawn, or fewer. Fonts are the viewer's `sans-serif`.
///
/// # Errors
/// There is no token, or rows and columns differ from the tokens in number.
pub fn mask_svg(mask: &AttentionMask, window: Window) -> Result<String> {
    draw(mask, window, Characters::All)
}

/// The same as PNG, in twice the size. Characters that DejaVu Sans lacks are shown by their code, as in `\u{65e5}`.
///
/// # Errors
/// As for [`mask_svg`], and a picture of more than 67 million pixels.
pub fn mask_png(mask: &AttentionMask, window: Window) -> Result<Vec<u8>> {
    svg_to_png(&draw(mask, window, Characters::OfFont)?)
}

fn color(cell: Cell) -> RGBColor {
    // by lightness too, for eyes and printers without colour: hidden, padding, visible, itself, cached
    match cell {
        Cell::Hidden => RGBColor(238, 241, 245),
        Cell::Padding => RGBColor(196, 201, 209),
        Cell::Visible => RGBColor(95, 157, 217),
        Cell::Itself => RGBColor(230, 159, 0),
        Cell::Cached => RGBColor(16, 62, 116),
        Cell::VisiblePadding => RGBColor(190, 30, 60),
    }
}

struct Square<'m> {
    sequence: &'m SequenceMask,
    range: Range<usize>,
    cell: usize,
    heading: String,
    note: Option<String>,
    /// Texts of the tokens of the range, without their numbers.
    labels: Vec<String>,
    label_pixels: usize,
    any_cut: bool,
}

impl<'m> Square<'m> {
    fn new(sequence: &'m SequenceMask, heading: String, window: Window, characters: Characters) -> Self {
        let length = sequence.tokens.len();
        let range = window.range(length, MOST_TOKENS);
        let labels = range.clone().map(|token| {
            let label = characters.shown(&visible_spaces(&token_label(&sequence.tokens[token])));
            cut(&label, MOST_TEXT)
        });
        let (labels, were_cut): (Vec<_>, Vec<_>) = labels.unzip();
        Square {
            sequence,
            cell: (900 / range.len()).clamp(4, 20),
            heading,
            note: window::left_out(&range, length),
            label_pixels: label_pixels(&labels),
            labels,
            any_cut: were_cut.contains(&true),
            range,
        }
    }

    fn side(&self) -> usize {
        self.range.len() * self.cell
    }

    fn height(&self) -> usize {
        HEADING + self.label_pixels + self.side() + EDGE
    }
}

fn draw(mask: &AttentionMask, window: Window, characters: Characters) -> Result<String> {
    check(mask)?;
    let sequences = mask.sequences.iter().enumerate().filter(|(_, sequence)| !sequence.tokens.is_empty());
    let squares: Vec<_> = sequences
        .take(MOST_SEQUENCES)
        .map(|(index, sequence)| {
            let heading = format!("sequence {} of {}", index + 1, mask.sequences.len());
            Square::new(sequence, heading, window, characters)
        })
        .collect();
    let side = squares.iter().map(Square::side).max().unwrap_or(0);
    let left = squares.iter().map(|square| square.label_pixels).max().unwrap_or(0).max(EDGE);
    let size = (
        (left + side + EDGE).max(640),
        CAPTION + squares.iter().map(Square::height).sum::<usize>() + LEGEND_LINE * 4 + EDGE,
    );
    let title = format!("Attention mask, {}", model_line(&mask.model));
    Picture::draw("the mask", &title, size, |picture| {
        picture.text(
            "Which token attends to which",
            (pixels(EDGE), 24),
            Anchor::Start,
            TextSize::Caption,
            INK,
        )?;
        let facts = format!("{}. Rows attend to columns.", model_line(&mask.model));
        let facts = characters.shown(&facts);
        picture.text(&facts, (pixels(EDGE), 46), Anchor::Start, TextSize::Label, MUTED)?;
        let mut top = CAPTION;
        for square in &squares {
            draw_square(picture, square, left, top)?;
            top += square.height();
        }
        let mut notes = Vec::new();
        let steps = |square: &Square<'_>| {
            square.range.clone().skip(1).any(|token| begins_step(square.sequence, token))
        };
        if squares.iter().any(steps) {
            notes.push("A dark line is between tokens of different steps.".to_owned());
        }
        if squares.iter().any(|square| square.any_cut) {
            notes.push(format!("Texts are cut to {MOST_TEXT} columns."));
        }
        if mask.sequences.len() > squares.len() {
            notes.push(format!("{} of {} sequences are drawn.", squares.len(), mask.sequences.len()));
        }
        draw_legend(picture, &squares, top)?;
        let place = (pixels(EDGE), pixels(top + LEGEND_LINE * 3 + 10));
        picture.text(&notes.join(" "), place, Anchor::Start, TextSize::Label, MUTED)
    })
}

/// Draws one sequence, with pixels of `left` for the labels of its rows.
fn draw_square(picture: &Picture<'_>, square: &Square<'_>, left: usize, top: usize) -> Result<()> {
    let Square { sequence, range, cell, .. } = square;
    let heading = match &square.note {
        Some(note) => format!("{}: {note}", square.heading),
        None => square.heading.clone(),
    };
    let place = (pixels(EDGE), pixels(top + HEADING / 2));
    picture.text(&heading, place, Anchor::Start, TextSize::Heading, INK)?;

    let top = top + HEADING + square.label_pixels;
    let at = |token: usize| (token - range.start) * cell;
    for query in range.clone() {
        draw_row(picture, sequence, range, query, *cell, (left, top + at(query)))?;
    }
    let side = pixels(square.side());
    for token in range.clone().skip(1) {
        let (width, line) = match (begins_step(sequence, token), *cell >= 8) {
            (true, _) => (2, INK),
            (false, true) => (1, WHITE_CELL),
            (false, false) => continue,
        };
        picture.rectangle((pixels(left), pixels(top + at(token)) - width / 2), (side, width), line)?;
        picture.rectangle((pixels(left + at(token)) - width / 2, pixels(top)), (width, side), line)?;
    }
    for (token, label) in range.clone().zip(&square.labels).step_by(label_step(*cell)) {
        let ink = if sequence.tokens[token].is_padding() { MUTED } else { INK };
        let middle = at(token) + cell / 2;
        let row = format!("{label}  {}", token + 1);
        let place = (pixels(left) - 6, pixels(top + middle));
        picture.text(&row, place, Anchor::End, TextSize::Label, ink)?;
        let column = format!("{}  {label}", token + 1);
        let place = (pixels(left + middle), pixels(top) - 6);
        picture.text(&column, place, Anchor::Upwards, TextSize::Label, ink)?;
    }
    Ok(())
}

/// Draws the cells of a row: one rectangle for neighbours of one kind, which keeps the picture small.
fn draw_row(
    picture: &Picture<'_>,
    sequence: &SequenceMask,
    range: &Range<usize>,
    query: usize,
    cell: usize,
    (left, top): (usize, usize),
) -> Result<()> {
    let mut key = range.start;
    while key < range.end {
        let kind = Cell::of(sequence, query, key);
        let end =
            (key..range.end).find(|&other| Cell::of(sequence, query, other) != kind).unwrap_or(range.end);
        let place = (pixels(left + (key - range.start) * cell), pixels(top));
        picture.rectangle(place, (pixels((end - key) * cell), pixels(cell)), color(kind))?;
        key = end;
    }
    Ok(())
}

/// Explains the kinds of cells that occur, three in a line.
fn draw_legend(picture: &Picture<'_>, squares: &[Square<'_>], top: usize) -> Result<()> {
    let occurs = |kind: &Cell| {
        squares.iter().any(|square| {
            let mut cells =
                square.range.clone().flat_map(|query| square.range.clone().map(move |key| (query, key)));
            cells.any(|(query, key)| Cell::of(square.sequence, query, key) == *kind)
        })
    };
    for (index, kind) in Cell::ALL.into_iter().filter(occurs).enumerate() {
        let place = (pixels(EDGE + 205 * (index % 3)), pixels(top + LEGEND_LINE * (index / 3)));
        picture.rectangle(place, (13, 13), color(kind))?;
        let place = (place.0 + 20, place.1 + 7);
        picture.text(kind.meaning(), place, Anchor::Start, TextSize::Label, INK)?;
    }
    Ok(())
}
