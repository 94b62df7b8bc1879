//! How a command starts and ends.

use std::process::ExitCode;

use crate::bus_error::report_bus_errors;
use crate::interrupt::watch_interrupt;
use crate::logging::start_logging;
use crate::{Hint, note, report};

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExitStatus {
    /// It did what was asked.
    Success = 0,
    /// It checked a model, and something is out of tolerance.
    CheckFailed = 1,
    /// The input or the machine does not allow it.
    BadInput = 2,
    /// The user pressed Ctrl-C; 128 + SIGINT, as shells report it.
    Interrupted = 130,
}

impl From<ExitStatus> for ExitCode {
    fn from(status: ExitStatus) -> Self {
        ExitCode::from(status as u8)
    }
}

/// Runs a command with logging, and prints its error with the `hint` for it.
///
/// Ctrl-C calls `abort` and ends the process, unless the command called [`finish_on_interrupt`](crate::finish_on_interrupt).
pub fn run(abort: fn(), hint: Hint, command: impl FnOnce() -> anyhow::Result<ExitStatus>) -> ExitCode {
    start_logging();
    run_server(abort, hint, command)
}

/// As [`run`], for a command that starts its log by itself ([`start_server_logging`](crate::start_server_logging)).
pub fn run_server(abort: fn(), hint: Hint, command: impl FnOnce() -> anyhow::Result<ExitStatus>) -> ExitCode {
    report_bus_errors();
    let result = watch_interrupt(abort).map_err(anyhow::Error::from).and_then(|()| command());
    let status = result.unwrap_or_else(|error| {
        if report::is_closed_pipe(error.as_ref()) {
            return ExitStatus::Success;
        }
        note(&format!("error: {}", report::describe(error.as_ref(), hint)));
        ExitStatus::BadInput
    });
    status.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_has_the_number_that_the_help_names() {
        let statuses =
            [ExitStatus::Success, ExitStatus::CheckFailed, ExitStatus::BadInput, ExitStatus::Interrupted];
        assert_eq!(statuses.map(|status| status as u8), [0, 1, 2, 130]);
    }
}
