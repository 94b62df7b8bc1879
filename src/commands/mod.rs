//! The subcommands, one file each.

mod accept_edits;
mod bench;
mod classify;
mod devices;
mod eval;
mod generation;
mod inspect;
mod mask;
mod model;
mod observation;
mod picture;
mod routing;
mod run;
mod serve;
mod synth;
mod verify;

use std::io;

use clap::{Subcommand, ValueEnum};
use jetmoe_console::{ExitStatus, json_line, note, print, print_json, print_table, without_padding};
use serde::Serialize;

/// The subcommand.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(Box<run::Run>),
    Serve(Box<serve::Serve>),
    Classify(classify::Classify),
    Verify(verify::Verify),
    Eval(eval::Eval),
    Bench(bench::Bench),
    Inspect(inspect::Inspect),
    Mask(mask::Mask),
    Routing(Box<routing::Routing>),
    Devices(devices::Devices),
    Synth(synth::Synth),
    AcceptEdits(accept_edits::AcceptEdits),
}

impl Command {
    /// Whether it starts its log by itself.
    pub(crate) fn is_server(&self) -> bool {
        matches!(self, Command::Serve(_))
    }

    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        match self {
            Command::Run(command) => command.execute(),
            Command::Serve(command) => command.execute(),
            Command::Classify(command) => command.execute(),
            Command::Verify(command) => command.execute(),
            Command::Eval(command) => command.execute(),
            Command::Bench(command) => command.execute(),
            Command::Inspect(command) => command.execute(),
            Command::Mask(command) => command.execute(),
            Command::Routing(command) => command.execute(),
            Command::Devices(command) => command.execute(),
            Command::Synth(command) => command.execute(),
            Command::AcceptEdits(command) => command.execute(),
        }
    }
}

/// Version of the JSON forms. Fields are added without a new version; none is removed.
const SCHEMA: u32 = 1;

/// How to print results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// A table, for people.
    Table,
    /// JSON, for programs. The fields are stable and documented in docs/json.md.
    Json,
}

impl Format {
    fn print(self, report: &impl Serialize, table: impl FnOnce() -> String) -> io::Result<()> {
        match self {
            Format::Table => print_table(&table()),
            Format::Json => print_json(report),
        }
    }
}

/// An invalid option of a library, as an error that names the flag.
pub(crate) fn as_cli_error(error: jetmoe_rt::Error) -> anyhow::Error {
    match error {
        jetmoe_rt::Error::Option { option, found, expected } => {
            anyhow::anyhow!("--{} is {found}, expected {expected}", option.replace('_', "-"))
        }
        other => other.into(),
    }
}
