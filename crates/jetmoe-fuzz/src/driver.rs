//! Mutated models, commands on them, and what became of it.

mod bases;
mod campaign;
mod case;
mod input;
mod outcome;
mod output;
mod plan;
mod process;
mod results;
mod snapshot;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Parser, Subcommand};

use self::bases::Bases;
use self::campaign::Campaign;
use self::case::Programs;

/// Runs the commands on mutated models. `cargo xtask fuzz` builds them and starts this program.
#[derive(Debug, Parser)]
#[command(name = "jetmoe-fuzz")]
struct Arguments {
    #[command(subcommand)]
    task: Task,
}

#[derive(Debug, Subcommand)]
enum Task {
    /// Write the models that are mutated
    Bases {
        #[command(flatten)]
        commands: Commands,
    },
    /// Run cases for some time, or repeat one
    Run {
        #[command(flatten)]
        commands: Commands,
        /// How long to run
        #[arg(long, value_name = "N", default_value_t = 5.0)]
        minutes: f64,
        /// Seed of the first case; the following cases have the following seeds [default: after the last one in the results]
        #[arg(long, value_name = "N")]
        seed: Option<u64>,
        /// Run the case of this seed alone, and keep its folder
        #[arg(long, value_name = "SEED", conflicts_with_all = ["minutes", "seed"])]
        case: Option<u64>,
        /// Cases at a time [default: one per processor]
        #[arg(long, value_name = "N")]
        jobs: Option<usize>,
        /// File of counts. If it exists, the run goes on where it ended, and adds to its counts
        #[arg(long, value_name = "FILE.json")]
        results: Option<PathBuf>,
    },
}

#[derive(Debug, clap::Args)]
struct Commands {
    /// Folder that holds jetmoe and jetmoe-export
    #[arg(long, value_name = "DIR")]
    commands: PathBuf,
    /// The libonnxruntime that the commands load
    #[arg(long, value_name = "FILE", env = "ORT_DYLIB_PATH")]
    onnxruntime: PathBuf,
    /// Folder for models, cases and failures
    #[arg(long, value_name = "DIR")]
    folder: PathBuf,
}

impl Commands {
    fn prepare(&self) -> anyhow::Result<(Programs, Bases)> {
        std::fs::create_dir_all(&self.folder)?;
        let folder = self.folder.canonicalize()?;
        let programs =
            Programs { folder: self.commands.canonicalize()?, library: self.onnxruntime.canonicalize()? };
        let bases = Bases::create(&folder.join("bases"), &programs)?;
        Ok((programs, bases))
    }
}

pub(crate) fn main() -> ExitCode {
    match run(Arguments::parse().task) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Whether no case failed.
fn run(task: Task) -> anyhow::Result<bool> {
    match task {
        Task::Bases { commands } => commands.prepare().map(|_| true),
        Task::Run { commands, minutes, seed, case, jobs, results } => {
            process::limit_files()?;
            let (programs, bases) = commands.prepare()?;
            let folder = commands.folder.canonicalize()?;
            let campaign = Campaign { folder, programs, bases };
            match case {
                Some(seed) => campaign.repeat(seed),
                None => {
                    let jobs =
                        jobs.unwrap_or_else(|| std::thread::available_parallelism().map_or(1, usize::from));
                    campaign.run(Duration::from_secs_f64(minutes * 60.0), seed, jobs, results.as_deref())
                }
            }
        }
    }
}
