//! The `jetmoe` command.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use commands::{Command, ExitStatus};

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
    commands::start_logging();
    arguments.command.execute().unwrap_or_else(|error| ExitStatus::of_error(&error)).into()
}
