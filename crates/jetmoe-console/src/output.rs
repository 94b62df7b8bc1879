//! Printing: text, JSON, tables and notes.

use std::io::{self, Write};

use comfy_table::presets;
pub use comfy_table::{CellAlignment, Table};
pub use indicatif::HumanBytes;
use serde::Serialize;

/// Prints to standard output.
///
/// # Errors
/// Standard output cannot be written to, for example a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Prints indented JSON.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Prints text with tables, without the spaces that pad their last columns.
///
/// # Errors
/// As [`print()`].
pub fn print_table(text: &str) -> io::Result<()> {
    print(&text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>())
}

/// Prints a message for the user to standard error.
pub fn note(text: &str) {
    // if standard error is closed, there is no other place for a message
    let _ = writeln!(io::stderr(), "{text}");
}

/// A table without borders.
pub fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table
}
