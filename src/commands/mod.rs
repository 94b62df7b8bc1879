//! The subcommands, one file each, and what they share.

mod bench;
mod classify;
mod devices;
mod eval;
mod hint;
mod inspect;
mod model;
mod run;
mod synth;
mod verify;

use clap::{Subcommand, ValueEnum};
use jetmoe_export::console::{ExitStatus, note, print, print_json, print_table};

/// What the command does.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    Run(run::Run),
    Classify(classify::Classify),
    Verify(verify::Verify),
    Eval(eval::Eval),
    Bench(bench::Bench),
    Inspect(inspect::Inspect),
    Devices(devices::Devices),
    Synth(synth::Synth),
}

impl Command {
    pub(crate) fn execute(self) -> anyhow::Result<ExitStatus> {
        let result = match self {
            Command::Run(command) => command.execute(),
            Command::Classify(command) => command.execute(),
            Command::Verify(command) => command.execute(),
            Command::Eval(command) => command.execute(),
            Command::Bench(command) => command.execute(),
            Command::Inspect(command) => command.execute(),
            Command::Devices(command) => command.execute(),
            Command::Synth(command) => command.execute(),
        };
        result.map_err(hint::with_hint)
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

/// What was typed and makes no sense, by the name of its flag.
pub(crate) fn typed(error: jetmoe_rt::Error) -> anyhow::Error {
    match error {
        jetmoe_rt::Error::Option { option, found, expected } => {
            anyhow::anyhow!("--{} is {found}, expected {expected}", option.replace('_', "-"))
        }
        other => other.into(),
    }
}
