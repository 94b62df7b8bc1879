//! `bench` and `quality`: prepare what `jetmoe-bench` needs, and run it. It is a program of its own so that xtask, which
//! builds before everything else, draws no plots.

use anyhow::Result;

use crate::demo::build_commands;
use crate::llama_server;
use crate::npm;
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
    /// Measure `jetmoe serve` under load, beside llama.cpp's server: docs/serving/
    #[arg(long, conflicts_with = "kernels")]
    serving: bool,
    /// Write the pages and plots of docs/benchmarks/, docs/kernels/ and docs/serving/ anew from their raw results, and measure nothing
    #[arg(long, exclusive = true)]
    pages: bool,
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
    if arguments.pages {
        let build = CommandLine::cargo(["build", "--workspace", "--bin", "jetmoe-bench"]);
        steps.run("build jetmoe-bench", &workspace.root, &build)?;
        return run_bench(workspace, steps, "pages", &[]);
    }
    let given = &arguments.arguments;
    let is_help = given.iter().any(|argument| argument == "--help");
    let is_measured = |name: &str| !is_help && measures(given, |target| target == name);
    let benchmark = match arguments {
        Arguments { kernels: true, .. } => "layers",
        Arguments { serving: true, .. } => "serving",
        _ => "models",
    };
    // the load comes from Python, whichever server is measured
    if !is_help && (arguments.serving || measures_a_baseline(given)) {
        BASELINES.prepare(workspace, steps)?;
    }
    if benchmark == "models" && cfg!(target_os = "linux") && is_measured(LLAMA_CPP) {
        npm::install(workspace, steps, LLAMA_CPP, LLAMA_CPP_PINS)?;
    }
    let mut options = Vec::new();
    if benchmark == "serving" && is_measured(LLAMA_SERVER) {
        let server = llama_server::build(workspace, steps)?;
        options = vec!["--llama-server".to_owned(), server.display().to_string()];
    }
    if is_help {
        build_commands(workspace, steps)?;
    } else {
        prepare(workspace, steps)?;
    }
    run_bench(workspace, steps, benchmark, &[options.as_slice(), given].concat())
}

fn run_bench(workspace: &Workspace, steps: &mut Steps, benchmark: &str, arguments: &[String]) -> Result<()> {
    let bench = CommandLine::new(workspace.binary("jetmoe-bench")).arg(benchmark).args(arguments);
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

/// Name of the target and of the folder in the cache.
const LLAMA_CPP: &str = "llama-cpp";
/// Folder with the versions of its packages.
const LLAMA_CPP_PINS: &str = "crates/jetmoe-bench/baselines/llama-cpp";

/// Name of the target.
const LLAMA_SERVER: &str = "llama-server";

/// Whether `--targets`, by default all, names more than this project.
fn measures_a_baseline(arguments: &[String]) -> bool {
    measures(arguments, |target| !target.starts_with("jetmoe") && target != "candle")
}

/// Whether `--targets`, by default all, names such a target.
fn measures(arguments: &[String], is_such: impl Fn(&str) -> bool) -> bool {
    let mut words = arguments.iter().flat_map(|argument| argument.split('='));
    match words.find(|word| matches!(*word, "--targets" | "--peers")).and(words.next()) {
        Some(targets) => targets.split(',').any(is_such),
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
    use super::{LLAMA_CPP, measures, measures_a_baseline};

    fn words(line: &str) -> Vec<String> {
        line.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn llama_cpp_is_installed_only_if_it_is_measured() {
        let is_measured = |line: &str| measures(&words(line), |target| target == LLAMA_CPP);
        assert!(is_measured("--layers 2"));
        assert!(is_measured("--targets jetmoe-q4,llama-cpp"));
        assert!(!is_measured("--targets=jetmoe-q4,openvino"));
    }

    #[test]
    fn python_is_needed_only_for_baselines() {
        let measures = |line: &str| measures_a_baseline(&words(line));
        assert!(measures("--rounds 1"));
        assert!(measures("--targets jetmoe-q4,openvino"));
        assert!(!measures("--rounds 1 --targets jetmoe-q4,jetmoe-f32"));
        assert!(!measures("--targets=jetmoe-q4"));
    }
}
