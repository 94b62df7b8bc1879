//! The `jetmoe` command.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use commands::Command;
use jetmoe_export::console::{self, ExitStatus};

/// Run, classify, verify, evaluate and inspect JetMoE models.
///
/// A model is an artifact made by `jetmoe-export`, a checkpoint folder, or a hub id such as jetmoe/jetmoe-8b.
#[derive(Debug, Parser)]
#[command(name = "jetmoe", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    console::start_logging();
    let status =
        console::watch_interrupt().map_err(anyhow::Error::from).and_then(|()| arguments.command.execute());
    status.unwrap_or_else(|error| ExitStatus::of_error(error.as_ref())).into()
}
