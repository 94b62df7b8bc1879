//! What the house's commands have in common: how they print and log, how they end, and what Ctrl-C does.
//!
//! Results go to standard output; notes, warnings, errors and progress to standard error.

use std::error::Error;
use std::fmt;
use std::io::{self, Write};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

use indicatif::{ProgressBar, ProgressStyle};
use jetmoe_checkpoint::{DownloadObserver, DownloadProgress};
use serde::Serialize;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

use crate::gathering::stop_exports;

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// Done.
    Success,
    /// The model was checked, and something is out of tolerance.
    CheckFailed,
    /// The input or the machine does not allow it.
    BadInput,
    /// The user pressed Ctrl-C; 128 + SIGINT, as shells report it.
    Interrupted,
}

impl ExitStatus {
    /// What the system is told.
    pub fn code(self) -> u8 {
        match self {
            ExitStatus::Success => 0,
            ExitStatus::CheckFailed => 1,
            ExitStatus::BadInput => 2,
            ExitStatus::Interrupted => 130,
        }
    }

    /// Prints an error and gives the status for it. A reader that closed the pipe is no error.
    pub fn of_error(error: &(dyn Error + 'static)) -> Self {
        let closed = |cause: &(dyn Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if chain(error).any(closed) {
            return ExitStatus::Success;
        }
        note(&format!("error: {}", describe(error)));
        ExitStatus::BadInput
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(status.code())
    }
}

/// An error and its causes.
fn chain<'e>(error: &'e (dyn Error + 'static)) -> impl Iterator<Item = &'e (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

/// An error with those of its causes that it does not quote already, and the advice of all of them at the end. The first
/// line of a message says what is wrong, the others are lists and advice. A message that quotes the root cause sums up the
/// causes between.
fn describe(error: &(dyn Error + 'static)) -> String {
    let (mut what, mut advice) = (String::new(), String::new());
    let root = chain(error).last().map(ToString::to_string).unwrap_or_default();
    let root = root.split('\n').next().unwrap_or_default();
    for cause in chain(error) {
        if !what.is_empty() && what.contains(root) {
            break;
        }
        let message = cause.to_string();
        let (first, others) = message.split_once('\n').unwrap_or((&message, ""));
        if !what.contains(first) {
            what.push_str(if what.is_empty() { "" } else { ": " });
            what.push_str(first);
        }
        if !others.is_empty() && !advice.contains(others) {
            advice.push('\n');
            advice.push_str(others);
        }
    }
    what + &advice
}

/// Warnings go to standard error; `RUST_LOG` asks for more. What the libraries underneath log as errors they also
/// return, and it is reported from there.
pub fn start_logging() {
    let filter = EnvFilter::try_from_default_env()
        .unwrap_or_else(|_| EnvFilter::new("warn,ort=error,tract=error,hf_hub=off"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(false)
        .event_format(Plain)
        .init();
}

/// Log lines that look like the errors of a command.
struct Plain;

impl<S, N> FormatEvent<S, N> for Plain
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    N: for<'writer> FormatFields<'writer> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        match *event.metadata().level() {
            Level::ERROR => writer.write_str("error: ")?,
            Level::WARN => writer.write_str("warning: ")?,
            // for who asked for more, where it comes from
            level => write!(writer, "{} {}: ", level.as_str().to_lowercase(), event.metadata().target())?,
        }
        context.format_fields(writer.by_ref(), event)?;
        writeln!(writer)
    }
}

/// Prints to standard output.
///
/// # Errors
/// What the system refuses, such as a closed pipe.
pub fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Prints as JSON, indented.
///
/// # Errors
/// As [`print()`].
pub fn print_json(value: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    print(&text)
}

/// Prints text with tables, without the spaces that fill up their last columns.
///
/// # Errors
/// As [`print()`].
pub fn print_table(text: &str) -> io::Result<()> {
    print(&text.lines().map(|line| format!("{}\n", line.trim_end())).collect::<String>())
}

/// A remark for the person at the terminal, on standard error.
pub fn note(text: &str) {
    // standard error is the last resort; if it is gone, there is nobody to tell
    let _ = writeln!(io::stderr(), "{text}");
}

/// Draws a download as one bar over all its files, on standard error. Nothing is drawn where that is not a terminal.
#[derive(Debug)]
pub struct DownloadBar(ProgressBar);

impl Default for DownloadBar {
    fn default() -> Self {
        let style = ProgressStyle::with_template("{msg} [{bar:30}] {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .unwrap_or_else(|_| ProgressStyle::default_bar());
        DownloadBar(ProgressBar::new(0).with_style(style.progress_chars("=> ")))
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
            [name] => (*name).to_owned(),
            [name, others @ ..] => format!("{name} and {} more", others.len()),
        });
        self.0.set_position(progress.bytes_done);
    }
}

static MAY_FINISH: AtomicBool = AtomicBool::new(false);
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on Ctrl-C removes what an export of this process has begun, and ends the process.
///
/// # Errors
/// What the system refuses.
pub fn watch_interrupt() -> Result<(), ctrlc::Error> {
    ctrlc::set_handler(|| {
        let is_first = !INTERRUPTED.swap(true, Ordering::SeqCst);
        if is_first && MAY_FINISH.load(Ordering::SeqCst) {
            return;
        }
        let _stopped = stop_exports();
        std::process::exit(i32::from(ExitStatus::Interrupted.code()));
    })
}

/// From now on the first Ctrl-C only has [`is_interrupted`] say so, so that work which looks there can end well. The
/// second ends the process.
pub fn finish_on_interrupt() {
    MAY_FINISH.store(true, Ordering::SeqCst);
}

/// Whether Ctrl-C was pressed.
pub fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{message}")]
    struct Because {
        message: &'static str,
        source: Option<Box<dyn Error + Send + Sync>>,
    }

    fn because(message: &'static str, source: impl Into<Option<Because>>) -> Because {
        let source: Option<Because> = source.into();
        Because { message, source: source.map(Into::into) }
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        let error = because("cannot read x: no such file", because("no such file", None));
        assert_eq!(describe(&error), "cannot read x: no such file");
        let error = because("cannot export", because("cannot read x", None));
        assert_eq!(describe(&error), "cannot export: cannot read x");
    }

    #[test]
    fn causes_between_an_error_and_the_root_cause_that_it_quotes_are_left_out() {
        let cause = because("error sending request", because("connection refused", None));
        let error = because("cannot reach the hub: connection refused", cause);
        assert_eq!(describe(&error), "cannot reach the hub: connection refused");
    }

    #[test]
    fn the_bar_of_a_download_counts_bytes_and_names_a_file() {
        let bar = DownloadBar(ProgressBar::hidden());
        let draw = |bytes_done, files: &[&str], is_complete| {
            let files = files.to_vec();
            bar.on_progress(&DownloadProgress { bytes_done, bytes_total: 30, files, is_complete });
            (bar.0.position(), bar.0.message())
        };
        assert_eq!(draw(4, &["a", "b", "c"], false), (4, "a and 2 more".to_owned()));
        assert_eq!(draw(20, &["c"], false), (20, "c".to_owned()));
        assert_eq!((draw(30, &[], false), bar.0.length()), ((30, String::new()), Some(30)));
        draw(30, &[], true);
        assert!(bar.0.is_finished());
    }

    #[test]
    fn advice_stands_at_the_end_and_once() {
        let cause = because("no space left\n  free some", because("disk full\n  free some", None));
        let error = because("cannot export\n  choose another folder", cause);
        let expected = "cannot export: no space left: disk full\n  choose another folder\n  free some";
        assert_eq!(describe(&error), expected);
    }

    #[test]
    fn a_closed_pipe_is_no_error_however_deep() {
        let closed = io::Error::from(io::ErrorKind::BrokenPipe);
        let error = Because { message: "cannot print", source: Some(closed.into()) };
        assert_eq!(ExitStatus::of_error(&error), ExitStatus::Success);
    }

    #[test]
    fn every_status_has_the_number_that_the_help_names() {
        let statuses =
            [ExitStatus::Success, ExitStatus::CheckFailed, ExitStatus::BadInput, ExitStatus::Interrupted];
        assert_eq!(statuses.map(ExitStatus::code), [0, 1, 2, 130]);
    }
}
