//! Printing: text, JSON, tables and notes.

use std::io::{self, Write};

use comfy_table::presets;
pub use comfy_table::{CellAlignment, Table};
pub use indicatif::HumanBytes;
use serde::Serialize;

use crate::escape::is_invisible;
use crate::escape_controls;

/// Prints to standard output.
///
/// # Errors
/// Standard output cannot be written to, for example a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Prints indented JSON. Control characters are escaped, those too that JSON allows in a text.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = escape_json(&serde_json::to_string_pretty(value)?);
    text.push('\n');
    print(&text)
}

/// JSON as [`print_json`] prints it, but in one line: for values with long lists of numbers.
///
/// # Errors
/// A value that is not JSON, such as a map with other keys than text.
pub fn json_line(value: &impl Serialize) -> serde_json::Result<String> {
    let mut text = escape_json(&serde_json::to_string(value)?);
    text.push('\n');
    Ok(text)
}

/// Escapes what may be in a text of JSON, but is a control character for some terminals, or changes the direction of text. All of it
/// is below U+10000. Line breaks are between values.
fn escape_json(json: &str) -> String {
    let mut escaped = String::with_capacity(json.len() + 1);
    for letter in json.chars() {
        match is_invisible(letter) && letter != '\n' {
            true => escaped.push_str(&format!("\\u{:04x}", u32::from(letter))),
            false => escaped.push(letter),
        }
    }
    escaped
}

/// Prints text with tables, without the spaces that pad their last columns.
///
/// # Errors
/// As [`print()`].
pub fn print_table(text: &str) -> io::Result<()> {
    print(&without_padding(text))
}

/// Text with tables, without the spaces that pad their last columns.
pub fn without_padding(text: &str) -> String {
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// Prints a message for the user to standard error, see [`escape_controls`].
pub fn note(text: &str) {
    // if standard error is closed, there is no other place for a message
    let _ = writeln!(io::stderr(), "{}", escape_controls(text));
}

/// A table without borders.
pub fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_no_control_character_and_says_the_same() {
        let value = "a\u{1b}[0m\u{7f}\u{9b}2J\u{202e} é\u{a0}";
        let json = escape_json(&serde_json::to_string(value).unwrap());
        assert!(!json.contains(is_invisible), "{json:?}");
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
    }
}
