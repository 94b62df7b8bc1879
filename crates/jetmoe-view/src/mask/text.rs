//! A mask as text for a terminal.

use std::fmt::Write as _;

use jetmoe_observe::{AttentionMask, SequenceMask};
use unicode_width::UnicodeWidthStr;

use super::{Cell, begins_step, check, model_line, window};
use crate::error::Result;
use crate::label::{cut, pad, token_label, visible_spaces};
use crate::mask::window::Window;

/// How a mask is written as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TextStyle {
    /// Columns of the terminal, at least 40.
    pub width: usize,
    /// Whether cells have colours, by escape sequences (ECMA-48). The characters say the same without.
    pub colored: bool,
    /// Which tokens of a long sequence are written.
    pub window: Window,
}

impl Default for TextStyle {
    fn default() -> Self {
        TextStyle { width: 80, colored: false, window: Window::default() }
    }
}

/// Columns for the text of a token.
const MOST_TEXT: usize = 20;

/// A mask as text: one row for each token, one column for each token that it may attend to, sequences one after the other.
///
/// A character says whether the token of the row attends to the token of the column: `x` yes, `c` yes and from the cache, `o` itself,
/// `.` no, `-` padding, `!` a mistake (padding that is attended to). The legend lists those that occur. Columns have the numbers of the
/// rows above them, read downwards; a line separates the steps that computed the tokens (chunks of a prompt, then single tokens). Spaces
/// of a token's text are shown as `␣`, controls as in `\u{1b}`, texts of more than 20 columns are cut. As many tokens as fit in
/// `style.width` are written, from `style.window.first`; a note says which are left out.
///
/// # Errors
/// There is no token, or rows and columns differ from the tokens in number.
pub fn mask_text(mask: &AttentionMask, style: &TextStyle) -> Result<String> {
    check(mask)?;
    let mut text = format!("attention mask: {}\n", model_line(&mask.model));
    let mut occurs = [false; Cell::ALL.len()];
    for (index, sequence) in mask.sequences.iter().enumerate() {
        let steps = sequence.tokens.last().map_or(0, |token| token.step + 1);
        let padding = sequence.tokens.iter().filter(|token| token.is_padding()).count();
        let _ = write!(text, "\nsequence {} of {}", index + 1, mask.sequences.len());
        let _ = write!(text, ": {}", plural(sequence.tokens.len() - padding, "token"));
        if padding > 0 {
            let _ = write!(text, ", {padding} of padding");
        }
        if steps > 1 {
            let _ = write!(text, ", {steps} steps");
        }
        text.push_str("\n\n");
        if !sequence.tokens.is_empty() {
            write_sequence(&mut text, sequence, style, &mut occurs);
        }
    }
    text.push('\n');
    for (cell, _) in Cell::ALL.iter().zip(occurs).filter(|(_, occurs)| *occurs) {
        let _ = writeln!(text, "{} {}", paint(*cell, style.colored), cell.meaning());
    }
    text.push_str("rows: the token that attends; columns: the token that it may attend to, by number\n");
    Ok(text)
}

fn plural(count: usize, word: &str) -> String {
    format!("{count} {word}{}", if count == 1 { "" } else { "s" })
}

fn write_sequence(text: &mut String, sequence: &SequenceMask, style: &TextStyle, occurs: &mut [bool]) {
    let length = sequence.tokens.len();
    let wanted = style.window.most.unwrap_or(length).min(length);
    // as wide as the largest number that can be written
    let digits = (style.window.first.saturating_add(wanted)).min(length).to_string().len();
    let labels: Vec<_> = sequence.tokens.iter().map(|token| visible_spaces(&token_label(token))).collect();
    let longest = labels.iter().map(|label| label.width()).max().unwrap_or(0).min(MOST_TEXT);
    let before = digits + 1 + longest + 2;
    let free = style.width.max(40) - before;
    let separators = (1..length).filter(|&token| begins_step(sequence, token)).count().min(wanted);
    // two columns for a cell where all of them fit, because the square is then nearly one on the screen
    let cell_width = if 2 * wanted + 2 * separators <= free { 2 } else { 1 };
    let fits = fitting(sequence, style.window, free, cell_width);
    let range = style.window.range(length, fits);

    for place in 0..digits {
        let mut line = " ".repeat(before);
        for key in range.clone() {
            if key > range.start && begins_step(sequence, key) {
                line.push_str(if cell_width == 2 { "| " } else { "|" });
            }
            let number = format!("{:>digits$}", key + 1);
            line.push(number.as_bytes().get(place).map_or(' ', |&digit| char::from(digit)));
            line.push_str(&" ".repeat(cell_width - 1));
        }
        let line = line.trim_end();
        // numbers that were left out may be longer
        if line.contains(|letter: char| letter.is_ascii_digit()) {
            text.push_str(line);
            text.push('\n');
        }
    }
    let mut any_cut = false;
    for query in range.clone() {
        if query > range.start && begins_step(sequence, query) {
            let step = sequence.tokens[query].step;
            let lines = range.clone().skip(1).filter(|&key| begins_step(sequence, key)).count();
            let width = before + (range.len() + lines) * cell_width + 1 - cell_width;
            let _ = writeln!(text, "{:-<width$}", format!("-- step {} ", step + 1));
        }
        let (label, was_cut) = cut(&labels[query], longest);
        any_cut |= was_cut;
        let _ = write!(text, "{:>digits$} {}  ", query + 1, pad(&label, longest));
        for key in range.clone() {
            if key > range.start && begins_step(sequence, key) {
                text.push_str(if cell_width == 2 { "| " } else { "|" });
            }
            let cell = Cell::of(sequence, query, key);
            if let Some(index) = Cell::ALL.iter().position(|other| *other == cell) {
                occurs[index] = true;
            }
            text.push_str(&paint(cell, style.colored));
            if cell_width == 2 && key + 1 < range.end {
                text.push(' ');
            }
        }
        text.push('\n');
    }
    if let Some(note) = window::left_out(&range, length) {
        let _ = writeln!(text, "({note})");
    }
    if any_cut {
        let _ = writeln!(text, "(texts are cut to {MOST_TEXT} columns)");
    }
}

/// How many tokens of the window fit, with the lines between steps.
fn fitting(sequence: &SequenceMask, window: Window, free: usize, cell_width: usize) -> usize {
    let length = sequence.tokens.len();
    let first = window.first.min(length.saturating_sub(1));
    let mut used = 0;
    let mut fits = 0;
    for key in first..length {
        used += cell_width;
        if key > first && begins_step(sequence, key) {
            used += cell_width;
        }
        if used > free {
            return fits.max(1);
        }
        fits += 1;
    }
    // the window ends with the sequence, and may begin before `first`
    if first > 0 && used + 2 * cell_width < free { (free - used) / (2 * cell_width) + fits } else { fits }
}

/// The character of a cell, with its colour.
fn paint(cell: Cell, colored: bool) -> String {
    let (letter, color) = match cell {
        Cell::Visible => ('x', "34"),
        Cell::Cached => ('c', "36"),
        Cell::Itself => ('o', "1;33"),
        Cell::Hidden => ('.', "90"),
        Cell::Padding => ('-', "90"),
        Cell::VisiblePadding => ('!', "1;31"),
    };
    if colored { format!("\u{1b}[{color}m{letter}\u{1b}[0m") } else { letter.to_string() }
}
