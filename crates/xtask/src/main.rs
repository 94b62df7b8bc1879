//! The project's tasks, one command each: `cargo xtask --help`.
//!
//! xtask depends on no `jetmoe` crate, so that it builds within seconds. Tasks that need the project's commands build them
//! with cargo and run them as a user would.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a task prints to the terminal")]

mod bench;
mod browser;
mod ci;
mod demo;
mod full_size;
mod fuzz;
mod gpu;
mod interop;
mod library;
mod llama_server;
mod npm;
mod python;
mod regenerate;
mod sanitizer;
mod serve;
mod services;
mod setup;
mod step;
mod test;
mod workspace;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

use crate::step::Steps;
use crate::workspace::Workspace;

/// Tasks of the jetmoe project. They need Rust and Python with pip; `ci browser` needs Chromium too, `bench` npm.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Subcommand)]
enum Task {
    /// Fetch what cargo cannot: libonnxruntime, and optionally those for other devices and Python packages for checks
    Setup(setup::Arguments),
    /// Export jetmoe-mini, verify it on every backend and generate text
    Demo,
    /// Run all tests: the cargo tests, then the interop checks
    Test(test::Arguments),
    /// Check exported graphs with the Python packages onnx and onnxruntime
    Interop,
    /// Create a checkpoint of JetMoE-8B's size, export and run it, and print time and memory: docs/full-size.md
    FullSize(full_size::Arguments),
    /// Measure what each precision costs: docs/quality.md and docs/quality.svg
    Quality,
    /// Measure this project and the baselines on the same weights: docs/benchmarks/
    Bench(bench::Arguments),
    /// Prove CUDA on a machine with a GPU and without Rust or network: pack, run, report
    Gpu(gpu::Arguments),
    /// Run the commands on mutated models, or the libFuzzer targets: docs/robustness.md
    Fuzz(fuzz::Arguments),
    /// Run CI, or some of its stages
    Ci(ci::Arguments),
    /// Rewrite the generated files under graphs/
    Regenerate(regenerate::Arguments),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.task) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(task: &Task) -> anyhow::Result<()> {
    let workspace = Workspace::locate()?;
    let mut steps = Steps::default();
    match task {
        Task::Setup(arguments) => setup::run(&workspace, &mut steps, arguments),
        Task::Demo => demo::run(&workspace, &mut steps),
        Task::Test(arguments) => test::run(&workspace, &mut steps, arguments),
        Task::Interop => interop::run(&workspace, &mut steps),
        Task::FullSize(arguments) => full_size::run(&workspace, &mut steps, arguments),
        Task::Quality => bench::quality(&workspace, &mut steps),
        Task::Bench(arguments) => bench::run(&workspace, &mut steps, arguments),
        Task::Fuzz(arguments) => fuzz::run(&workspace, &mut steps, arguments),
        Task::Gpu(arguments) => gpu::run(&workspace, &mut steps, arguments),
        Task::Ci(arguments) => ci::run(&workspace, &mut steps, arguments),
        Task::Regenerate(arguments) => regenerate::run(&workspace, &mut steps, arguments),
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
