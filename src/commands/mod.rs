//! The subcommands, one file each, and what they share.

mod classify;
mod devices;
mod eval;
mod inspect;
mod model;
mod run;
mod synth;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Subcommand, ValueEnum};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tracing_subscriber::EnvFilter;

/// What the command does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Run),
    Classify(classify::Classify),
    Verify(verify::Verify),
    Eval(eval::Eval),
    Inspect(inspect::Inspect),
    Devices(devices::Devices),
    Synth(synth::Synth),
}

impl Command {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        match self {
            Command::Run(command) => command.execute(),
            Command::Classify(command) => command.execute(),
            Command::Verify(command) => command.execute(),
            Command::Eval(command) => command.execute(),
            Command::Inspect(command) => command.execute(),
            Command::Devices(command) => command.execute(),
            Command::Synth(command) => command.execute(),
        }
    }
}

/// How the command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ExitStatus {
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
    /// Prints an error and gives the status for it. A reader that closed the pipe is no error.
    pub(crate) fn of_error(error: &anyhow::Error) -> Self {
        let closed = |cause: &(dyn std::error::Error + 'static)| {
            cause.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::BrokenPipe)
        };
        if error.chain().any(closed) {
            return ExitStatus::Success;
        }
        // standard error is the last resort; if it is gone, there is nobody to tell
        let _ = writeln!(io::stderr(), "error: {error:#}");
        ExitStatus::BadInput
    }
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(match status {
            ExitStatus::Success => 0,
            ExitStatus::CheckFailed => 1,
            ExitStatus::BadInput => 2,
            ExitStatus::Interrupted => 130,
        })
    }
}

/// How results are printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs; the fields are documented in docs/json.md and stable.
    Json,
}

/// Warnings go to standard error; `RUST_LOG` asks for more.
pub(crate) fn start_logging() {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,ort=error,tract=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .init();
}

/// Prints to standard output.
pub(crate) fn print(text: &str) -> io::Result<()> {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes())?;
    output.flush()
}

/// Prints as JSON, indented.
pub(crate) fn print_json(value: &impl Serialize) -> anyhow::Result<()> {
    let mut text = serde_json::to_string_pretty(value)?;
    text.push('\n');
    Ok(print(&text)?)
}

/// A remark for the person at the terminal.
pub(crate) fn note(text: &str) {
    // a remark that cannot be shown is not worth failing for
    let _ = writeln!(io::stderr(), "{text}");
}

/// A bar that counts steps, on standard error where that is a terminal.
pub(crate) fn step_bar(what: String, steps: u64) -> ProgressBar {
    let style = ProgressStyle::with_template("{msg} {bar:32} {pos}/{len} {eta} left")
        .unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(steps).with_style(style).with_message(what)
}
