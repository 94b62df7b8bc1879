//! Progress bars on standard error. They draw nothing where that is no terminal, and a dropped bar is cleared.

use std::borrow::Cow;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

pub use indicatif::ProgressBar;
use indicatif::{ProgressFinish, ProgressStyle};
use jetmoe_hub::{DownloadObserver, DownloadProgress};

use crate::escape_line;

/// A bar in bytes, with rate and time left.
pub fn byte_bar(what: &'static str, bytes: u64) -> ProgressBar {
    with_template(
        ProgressBar::new(bytes),
        "{msg:>12} {bar:32} {bytes}/{total_bytes} {bytes_per_sec} {eta} left",
        what,
    )
}

/// A bar of steps, with time left.
pub fn step_bar(what: impl Into<Cow<'static, str>>, steps: u64) -> ProgressBar {
    with_template(ProgressBar::new(steps), "{msg:>12} {bar:32} {pos}/{len} {eta} left", what)
}

/// A spinner, for work of unknown length.
pub fn spinner(what: &'static str) -> ProgressBar {
    let spinner = with_template(ProgressBar::new_spinner(), "{msg:>12} {spinner} {elapsed}", what);
    spinner.enable_steady_tick(Duration::from_millis(120));
    spinner
}

fn with_template(bar: ProgressBar, template: &str, what: impl Into<Cow<'static, str>>) -> ProgressBar {
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    bar.with_style(style).with_message(what).with_finish(ProgressFinish::AndClear)
}

/// The bars of work in several stages, such as an export: each stage replaces the bar of the one before.
#[derive(Debug, Default)]
pub struct StageBars(Mutex<Option<(&'static str, ProgressBar)>>);

impl StageBars {
    /// Advances the bar of a stage by `delta` of `total`; `new_bar` is [`byte_bar`] or [`step_bar`].
    pub fn advance(
        &self,
        stage: &'static str,
        new_bar: fn(&'static str, u64) -> ProgressBar,
        delta: u64,
        total: u64,
    ) {
        let mut current = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if current.as_ref().is_none_or(|(name, _)| *name != stage) {
            *current = Some((stage, new_bar(stage, total)));
        }
        if let Some((_, bar)) = current.as_ref() {
            bar.inc(delta);
        }
    }
}

/// Draws a download as one bar over all its files.
#[derive(Debug)]
pub(crate) struct DownloadBar(ProgressBar);

impl Default for DownloadBar {
    fn default() -> Self {
        let template = "{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}";
        DownloadBar(with_template(ProgressBar::new(0), template, ""))
    }
}

impl DownloadObserver for DownloadBar {
    fn on_progress(&self, progress: &DownloadProgress<'_>) {
        if progress.is_complete {
            self.0.finish_and_clear();
            return;
        }
        self.0.set_length(progress.bytes_total);
        self.0.set_message(match progress.files.as_slice() {
            [] => String::new(),
            [name] => escape_line(name).into_owned(),
            [name, others @ ..] => format!("{} and {} more", escape_line(name), others.len()),
        });
        self.0.set_position(progress.bytes_done);
    }
}

#[cfg(test)]
mod tests;
