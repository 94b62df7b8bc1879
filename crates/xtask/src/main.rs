//! The project's chores, one command each: `cargo xtask --help`.
//!
//! It depends on no `jetmoe` crate, so that the first chore on a fresh machine starts within seconds; where it needs
//! the project's commands, it has cargo build them and runs them as a person would.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a chore talks to the person who runs it")]

mod bench;
mod ci;
mod demo;
mod full_size;
mod interop;
mod library;
mod python;
mod quality;
mod regenerate;
mod sanitizer;
mod setup;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::step::Steps;
use crate::workspace::Workspace;

/// Chores of the jetmoe project. A fresh machine needs Rust and Python's pip, nothing else.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Fetch what cargo cannot: libonnxruntime, and on request those of other devices and the Python packages of the checks
    Setup(setup::Arguments),
    /// Export jetmoe-mini, verify it on every backend and print what it writes
    Demo,
    /// Run every test: cargo's, then the interop checks
    Test(test::Arguments),
    /// Check exported graphs with the Python packages onnx and onnxruntime
    Interop,
    /// Make a checkpoint of JetMoE-8B's size, export and run it, and print time and memory: docs/full-size.md
    FullSize(full_size::Arguments),
    /// Measure what each precision costs: docs/quality.md and docs/quality.svg
    Quality,
    /// Measure the project and its peers on the same weights: docs/benchmarks/
    Bench(bench::Arguments),
    /// Do everything that CI does, or the named stages of it
    Ci(ci::Arguments),
    /// Rewrite the generated files that are checked in: the texts under graphs/
    Regenerate(regenerate::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.chore) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(chore: &Chore) -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let mut steps = Steps::default();
    match chore {
        Chore::Setup(arguments) => setup::run(&workspace, &mut steps, arguments),
        Chore::Demo => demo::run(&workspace, &mut steps),
        Chore::Test(arguments) => test::run(&workspace, &mut steps, arguments),
        Chore::Interop => interop::run(&workspace, &mut steps),
        Chore::FullSize(arguments) => full_size::run(&workspace, &mut steps, arguments),
        Chore::Quality => quality::run(&workspace, &mut steps),
        Chore::Bench(arguments) => bench::run(&workspace, &mut steps, arguments),
        Chore::Ci(arguments) => ci::run(&workspace, &mut steps, arguments),
        Chore::Regenerate(arguments) => regenerate::run(&workspace, &mut steps, arguments),
    }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::Arguments;

    #[test]
    fn the_command_line_is_well_formed() {
        Arguments::command().debug_assert();
    }
}
