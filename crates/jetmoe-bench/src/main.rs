//! Benchmarks, with the pages and plots under `docs/` that they write. `cargo xtask bench` and `cargo xtask quality` build
//! the commands and run this program in the root of the repository.
//!
//! Like xtask it depends on no other crate of the workspace: it runs the commands as a user would.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a program for the person at the terminal")]

mod command;
mod goal;
mod layers;
mod models;
mod pages;
mod plot;
mod prepare;
mod processor;
mod quality;
mod rounds;
mod serving;

use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// Benchmarks of the jetmoe project.
#[derive(Parser)]
#[command(name = "jetmoe-bench", disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    benchmark: Benchmark,
}

#[derive(Subcommand)]
enum Benchmark {
    /// Whole models of jetmoe and of the baselines on the same weights: docs/benchmarks/
    Models(models::Arguments),
    /// One MLP layer in the kernels of jetmoe and of the baselines: docs/kernels/
    Layers(layers::Arguments),
    /// `jetmoe serve` and llama.cpp's server with the same requests: docs/serving/
    Serving(serving::Arguments),
    /// What each precision costs in quality and saves in size: docs/quality.md
    Quality,
    /// Write the pages and plots of docs/benchmarks/, docs/kernels/ and docs/serving/ anew from their raw results
    Pages,
}

fn main() -> ExitCode {
    let result = match Arguments::parse().benchmark {
        Benchmark::Models(arguments) => models::run(&arguments),
        Benchmark::Layers(arguments) => layers::run(&arguments),
        Benchmark::Serving(arguments) => serving::run(&arguments),
        Benchmark::Quality => quality::run(),
        Benchmark::Pages => [models::BENCHMARK, layers::BENCHMARK, serving::BENCHMARK]
            .iter()
            .try_for_each(pages::Benchmark::write_all),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nerror: {error:#}");
            ExitCode::FAILURE
        }
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
