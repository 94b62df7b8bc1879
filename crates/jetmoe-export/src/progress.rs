//! Progress on a terminal. In a pipe nothing is drawn.

use std::borrow::Cow;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

/// A bar in bytes with rate and time left, on standard error.
pub fn byte_bar(what: &'static str, bytes: u64) -> ProgressBar {
    let template = "{msg:>12} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} left";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(bytes).with_style(style).with_message(what)
}

/// A bar of steps with time left, on standard error.
pub fn step_bar(what: impl Into<Cow<'static, str>>, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>12} {bar:32} {pos}/{len} {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style).with_message(what)
}

/// A spinner for work of unknown length, on standard error.
pub fn spinner(what: &'static str) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg:>12} {spinner} {elapsed}")
        .unwrap_or_else(|_| ProgressStyle::default_spinner());
    let spinner = ProgressBar::new_spinner().with_style(style).with_message(what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}
