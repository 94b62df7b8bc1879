//! The `jetmoe` command.

mod commands;

use std::process::ExitCode;

use clap::Parser;
use commands::Command;

/// Run, serve, classify, verify, evaluate and inspect JetMoE models.
///
/// A model is an artifact made by jetmoe-export, a checkpoint folder, or a hub id such as jetmoe/jetmoe-8b.
#[derive(Debug, Parser)]
#[command(name = "jetmoe", version, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let is_server = arguments.command.is_server();
    let command = || arguments.command.execute();
    match is_server {
        true => jetmoe_console::run_server(jetmoe_export::abort_pending, jetmoe_console::hint, command),
        false => jetmoe_console::run(jetmoe_export::abort_pending, jetmoe_console::hint, command),
    }
}
