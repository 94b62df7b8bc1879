//! Text of files on a terminal.

use std::borrow::Cow;

/// A message in which a terminal finds nothing to obey: control characters, and characters that change the direction of text,
/// are shown as in `\u{1b}`. Line breaks and tabs stay.
///
/// Every note and error passes through it, because messages quote names and values of files.
pub fn escape_controls(message: &str) -> Cow<'_, str> {
    escape(message, |letter| !matches!(letter, '\n' | '\t'))
}

/// A name or value of a file as part of a line: as [`escape_controls`], and line breaks and tabs are shown as `\n` and `\t`, so that
/// it cannot look like another line.
pub fn escape_line(value: &str) -> Cow<'_, str> {
    escape(value, |_| true)
}

fn escape(text: &str, applies: impl Fn(char) -> bool) -> Cow<'_, str> {
    let is_escaped = |letter: char| is_invisible(letter) && applies(letter);
    if !text.contains(is_escaped) {
        return Cow::Borrowed(text);
    }
    let mut result = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' | '\t' | '\r' if is_escaped(letter) => result.extend(letter.escape_default()),
            _ if is_escaped(letter) => result.extend(letter.escape_unicode()),
            _ => result.push(letter),
        }
    }
    Cow::Owned(result)
}

/// Control characters, separators of lines, and the controls of Unicode's bidirectional algorithm
/// (<https://www.unicode.org/reports/tr9/#Directional_Formatting_Characters>).
pub(crate) fn is_invisible(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_terminal_finds_nothing_to_obey() {
        let hostile = "a\u{1b}[31mred\u{7}\r\u{9b}2J\u{202e}cba\u{7f}";
        let shown = "a\\u{1b}[31mred\\u{7}\\r\\u{9b}2J\\u{202e}cba\\u{7f}";
        assert_eq!(escape_controls(hostile), shown);
        assert_eq!(escape_line(hostile), shown);
    }

    #[test]
    fn a_message_has_lines_and_a_value_is_one() {
        assert_eq!(escape_controls("a\n\tb"), "a\n\tb");
        assert_eq!(escape_line("a\n\tb"), "a\\n\\tb");
    }

    #[test]
    fn other_text_is_as_it_was() {
        let text = "jetmoe/jetmoe-8b, 日本語, naïve ✓ {\"a\": 1} \\n";
        assert!(matches!(escape_line(text), Cow::Borrowed(same) if same == text));
    }
}
