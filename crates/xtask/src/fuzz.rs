//! `fuzz`: the commands on mutated models, and the libFuzzer targets under `tests/fuzz`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::ValueEnum;

use crate::library::{CPU, LIBRARY_VARIABLE};
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;
use crate::{demo, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How long to run
    #[arg(long, value_name = "N", default_value_t = 5.0)]
    minutes: f64,
    /// Seed of the first case, for other cases than before
    #[arg(long, value_name = "N", default_value_t = 0)]
    seed: u64,
    /// Repeat the case of this seed, and keep its folder
    #[arg(long, value_name = "SEED", conflicts_with_all = ["minutes", "seed", "results"])]
    case: Option<u64>,
    /// Build of the commands
    #[arg(long, value_name = "BUILD", default_value = "debug")]
    build: Build,
    /// File of counts: a later run with the same file goes on where this one ended, and adds to its counts
    #[arg(long, value_name = "FILE.json", conflicts_with = "seed")]
    results: Option<PathBuf>,
    /// Run the libFuzzer targets instead of the commands, each for its share of the time
    #[arg(long, conflicts_with_all = ["case", "build", "results"])]
    targets: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Build {
    /// With debug assertions and overflow checks
    Debug,
    /// As it is installed
    Release,
}

/// The targets under `tests/fuzz/targets`.
const TARGETS: [&str; 8] =
    ["shapes", "operators", "manifest", "config", "safetensors", "onnx", "template", "tokenizer"];

/// Folder of models, cases and failures, which the targets take from the environment.
const FOLDER_VARIABLE: &str = "JETMOE_FUZZ_FOLDER";

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    setup::onnxruntime_library(workspace, steps)?;
    if arguments.targets {
        return run_targets(workspace, steps, arguments.minutes, arguments.seed);
    }
    build_commands(workspace, steps, arguments.build)?;
    let driver = driver(workspace, arguments.build, "run")?;
    let driver = match (arguments.case, &arguments.results) {
        (Some(case), _) => driver.args(["--case", &case.to_string()]),
        (None, Some(file)) => {
            driver.args(["--minutes", &arguments.minutes.to_string(), "--results"]).arg(file)
        }
        (None, None) => driver
            .args(["--minutes", &arguments.minutes.to_string()])
            .args(["--seed", &arguments.seed.to_string()]),
    };
    steps.run("commands on mutated models", &workspace.root, &driver)
}

/// What CI runs: 2 minutes of the targets and 2.5 of the commands.
pub(crate) fn for_ci(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let targets = run_targets(workspace, steps, 2.0, 1);
    let driver = driver(workspace, Build::Debug, "run")?.args(["--minutes", "2.5", "--seed", "0"]);
    let commands = steps.run("commands on mutated models", &workspace.root, &driver);
    targets.and(commands)
}

fn build_commands(workspace: &Workspace, steps: &mut Steps, build: Build) -> Result<()> {
    match build {
        Build::Debug => demo::build_commands(workspace, steps),
        Build::Release => {
            let release = CommandLine::cargo(["build", "--release", "--workspace", "--bins"]);
            steps.run("build the commands", &workspace.root, &release)
        }
    }
}

/// The program of `jetmoe-fuzz` on the commands of a build.
fn driver(workspace: &Workspace, build: Build, task: &str) -> Result<CommandLine> {
    let program = workspace.binary("jetmoe-fuzz");
    let debug = program.parent().context("a program is in a folder")?;
    let folder = match build {
        Build::Debug => debug.to_owned(),
        Build::Release => workspace.target.join("release"),
    };
    let program = folder.join(program.file_name().unwrap_or_default());
    Ok(CommandLine::new(program)
        .args([task, "--commands"])
        .arg(folder)
        .arg("--folder")
        .arg(workspace.target.join("fuzz"))
        .env(LIBRARY_VARIABLE, CPU.library()?.to_string_lossy()))
}

/// Builds and runs every target, also after one failed. `seed` is libFuzzer's.
fn run_targets(workspace: &Workspace, steps: &mut Steps, minutes: f64, seed: u64) -> Result<()> {
    demo::build_commands(workspace, steps)?;
    steps.run("models to mutate", &workspace.root, &driver(workspace, Build::Debug, "bases")?)?;
    let build = cargo(workspace, "build").arg("--bins");
    steps.run("build the libFuzzer targets", &workspace.root, &build)?;
    let folder = workspace.root.join(&workspace.target).join("fuzz");
    let seconds = (minutes * 60.0 / TARGETS.len() as f64).ceil();
    let results: Vec<Result<()>> = TARGETS
        .iter()
        .map(|target| {
            let run = target_command(workspace, &folder, target)
                .args([format!("-max_total_time={seconds}"), format!("-seed={seed}")]);
            steps.run(&format!("target {target}"), &workspace.root, &run)
        })
        .collect();
    let scratch = folder.join("scratch");
    if scratch.exists() {
        fs::remove_dir_all(&scratch).with_context(|| format!("cannot remove {}", scratch.display()))?;
    }
    results.into_iter().collect()
}

/// Runs a target with limits of 10 seconds and 2 GB for an input. Inputs that fail are kept in `folder`.
fn target_command(workspace: &Workspace, folder: &Path, target: &str) -> CommandLine {
    let seeds = folder.join("seeds").join(target);
    let run = cargo(workspace, "run")
        .args(["--bin", target, "--", "-max_len=4096", "-len_control=0", "-timeout=10", "-rss_limit_mb=2048"])
        // printing each new function takes longer than fuzzing
        .args(["-verbosity=0", "-print_funcs=0", "-print_final_stats=1"])
        .arg(format!("-artifact_prefix={}/{target}-", folder.display()))
        .env(FOLDER_VARIABLE, folder.to_string_lossy());
    if seeds.is_dir() { run.arg(seeds) } else { run }
}

/// Does what `cargo fuzz` does with a nightly compiler; `-Z` needs one or `RUSTC_BOOTSTRAP`.
fn cargo(workspace: &Workspace, subcommand: &str) -> CommandLine {
    CommandLine::cargo([subcommand, "--quiet", "--release", "--locked"])
        .args(["--manifest-path", MANIFEST, "--target", "host-tuple", "--target-dir"])
        .arg(workspace.target.join("fuzz-targets"))
        .env("RUSTC_BOOTSTRAP", "1")
        .env(
            "RUSTFLAGS",
            "--cfg fuzzing -Zsanitizer=address -Cdebug-assertions=on -Coverflow-checks=on -Ccodegen-units=1 \
             -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
             -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
             -Cllvm-args=-sanitizer-coverage-trace-compares",
        )
}

/// Manifest of the targets, a workspace of their own.
const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// Checks the format of the targets. Builds nothing.
pub(crate) fn check_format(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let format = CommandLine::cargo(["fmt", "--all", "--check", "--manifest-path", MANIFEST]);
    steps.run("format of the libFuzzer targets", &workspace.root, &format)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_target_is_run() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(MANIFEST);
        let manifest = fs::read_to_string(manifest).unwrap();
        let names = manifest.split("[[bin]]\nname = \"").skip(1).filter_map(|bin| bin.split('"').next());
        assert_eq!(names.collect::<Vec<_>>(), TARGETS);
    }
}
