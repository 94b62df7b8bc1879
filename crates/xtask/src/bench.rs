//! `bench` and `quality`: prepare what `jetmoe-bench` needs, and run it. It is a program of its own so that xtask, which
//! builds before everything else, draws no plots.

use anyhow::Result;

use crate::demo::build_commands;
use crate::python::BASELINES;
use crate::setup;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Run the micro-benchmarks of the workspace instead, and write nothing
    #[arg(long, exclusive = true)]
    micro: bool,
    /// Measure one MLP layer instead of whole models: docs/kernels/
    #[arg(long)]
    kernels: bool,
    /// Passed to jetmoe-bench; `cargo xtask bench -- --help` lists them
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "JETMOE-BENCH ARGUMENT")]
    arguments: Vec<String>,
}

/// Packages and their micro-benchmarks.
const MICRO: &[(&str, &str)] = &[("jetmoe-rt", "sampling"), ("jetmoe-kernels", "routing")];

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    if arguments.micro {
        return micro(workspace, steps);
    }
    let arguments_given = &arguments.arguments;
    if arguments_given.iter().any(|argument| argument == "--help") {
        build_commands(workspace, steps)?;
    } else {
        if measures_a_baseline(arguments_given) {
            BASELINES.prepare(workspace, steps)?;
        }
        prepare(workspace, steps)?;
    }
    let benchmark = if arguments.kernels { "layers" } else { "models" };
    let bench = CommandLine::new(workspace.binary("jetmoe-bench")).arg(benchmark).args(arguments_given);
    steps.run("benchmarks", &workspace.root, &bench)
}

pub(crate) fn quality(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    prepare(workspace, steps)?;
    let quality = CommandLine::new(workspace.binary("jetmoe-bench")).arg("quality");
    steps.run("quality", &workspace.root, &quality)
}

fn prepare(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    setup::onnxruntime_library(workspace, steps)?;
    build_commands(workspace, steps)
}

/// Whether `--targets`, by default all, names more than this project.
fn measures_a_baseline(arguments: &[String]) -> bool {
    let mut words = arguments.iter().flat_map(|argument| argument.split('='));
    match words.find(|word| matches!(*word, "--targets" | "--peers")).and(words.next()) {
        Some(targets) => targets.split(',').any(|target| !target.starts_with("jetmoe")),
        None => true,
    }
}

/// Builds each package alone, so that the backends are not built for the release profile.
fn micro(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    for (package, name) in MICRO {
        let command =
            CommandLine::cargo(["bench", "--package", package, "--no-default-features", "--bench", name]);
        steps.run(&format!("micro-benchmark of {name}"), &workspace.root, &command)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::measures_a_baseline;

    #[test]
    fn python_is_needed_only_for_baselines() {
        let measures =
            |line: &str| measures_a_baseline(&line.split_whitespace().map(str::to_owned).collect::<Vec<_>>());
        assert!(measures("--rounds 1"));
        assert!(measures("--targets jetmoe-q4,openvino"));
        assert!(!measures("--rounds 1 --targets jetmoe-q4,jetmoe-f32"));
        assert!(!measures("--targets=jetmoe-q4"));
    }
}
