//! Texts of tokens as labels: escaped, and cut to a width.

use jetmoe_console::escape_line;
use jetmoe_observe::ObservedToken;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// The text of a token for people: the text with escaped controls, `#id` without a text, `(padding)` for padding.
pub(crate) fn token_label(token: &ObservedToken) -> String {
    if token.is_padding() {
        return "(padding)".to_owned();
    }
    match &token.text {
        Some(text) => display_text(text),
        None => format!("#{}", token.id),
    }
}

/// Text of a file as one line that controls nothing. U+FFFE and U+FFFF are escaped too, because XML forbids them.
pub(crate) fn display_text(text: &str) -> String {
    let line = escape_line(text);
    let mut shown = String::with_capacity(line.len());
    for letter in line.chars() {
        match letter {
            '\u{fffe}' | '\u{ffff}' => shown.extend(letter.escape_unicode()),
            _ => shown.push(letter),
        }
    }
    shown
}

/// [`display_text`] as the text of an element in SVG or HTML.
pub(crate) fn markup_text(text: &str) -> String {
    display_text(text).replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}

/// The same with a mark at spaces, which are invisible at the edges of a label.
pub(crate) fn visible_spaces(label: &str) -> String {
    label.replace(' ', "␣")
}

/// Cuts a label to `columns` of a terminal, with an ellipsis if anything was left out. Says whether it cut.
pub(crate) fn cut(label: &str, columns: usize) -> (String, bool) {
    if label.width() <= columns {
        return (label.to_owned(), false);
    }
    let mut kept = String::new();
    let mut used = 1; // the ellipsis
    for letter in label.chars() {
        used += letter.width().unwrap_or(0);
        if used > columns {
            break;
        }
        kept.push(letter);
    }
    kept.push('…');
    (kept, true)
}

/// Appends spaces up to `columns` of a terminal.
pub(crate) fn pad(label: &str, columns: usize) -> String {
    format!("{label}{}", " ".repeat(columns.saturating_sub(label.width())))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn token(text: Option<&str>) -> ObservedToken {
        ObservedToken { id: 7, text: text.map(str::to_owned), position: Some(0), step: 0 }
    }

    #[test]
    fn a_label_controls_nothing() {
        assert_eq!(token_label(&token(Some("a\u{1b}[31m\n\u{202e}b"))), "a\\u{1b}[31m\\n\\u{202e}b");
        assert_eq!(token_label(&token(Some("\u{ffff}"))), "\\u{ffff}");
        assert_eq!(token_label(&token(None)), "#7");
    }

    #[test]
    fn a_long_label_is_cut_by_columns_of_a_terminal() {
        assert_eq!(cut("abcdef", 6), ("abcdef".to_owned(), false));
        assert_eq!(cut("abcdefg", 6), ("abcde…".to_owned(), true));
        // each of these characters is two columns wide
        assert_eq!(cut("日本語日本", 6), ("日本…".to_owned(), true));
        assert_eq!(pad("日本", 6), "日本  ");
    }
}
