//! `jetmoe-bench layers`: one MLP layer of a mixture of experts in the kernels of this project and of the baselines.

mod page;
mod plot;
mod results;

use std::path::PathBuf;
use std::process::Command;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};

use crate::command::{self, baseline};
use crate::pages::Benchmark;
use crate::rounds;

/// The pages in `docs/kernels/`.
pub(crate) const BENCHMARK: Benchmark =
    Benchmark { root: "docs/kernels", render: page::render, index: page::index };

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// How often to measure each target
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of each target
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// What to measure [default: everything]
    #[arg(long, value_name = "NAME", value_delimiter = ',')]
    targets: Option<Vec<BenchTarget>>,
    /// Folder for the results [default: the one of this processor in docs/kernels]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum BenchTarget {
    /// This project, with the instruction set that it chooses.
    Jetmoe,
    /// This project, with another instruction set.
    Isa(&'static str),
    /// A graph with the products of each expert, as this project exports it.
    OnnxRuntime,
    /// One operator for the whole layer.
    OnnxRuntimeQmoe,
    Openvino,
    TransformersBf16,
    /// Kernels of another library that this project could use instead of its own.
    Candle,
}

impl BenchTarget {
    const ALL: [BenchTarget; 13] = [
        BenchTarget::Jetmoe,
        BenchTarget::Isa("amx"),
        BenchTarget::Isa("avx512vnni"),
        BenchTarget::Isa("avxvnni"),
        BenchTarget::Isa("avx2"),
        BenchTarget::Isa("neoni8mm"),
        BenchTarget::Isa("neon"),
        BenchTarget::Isa(GENERIC),
        BenchTarget::OnnxRuntime,
        BenchTarget::OnnxRuntimeQmoe,
        BenchTarget::Openvino,
        BenchTarget::TransformersBf16,
        BenchTarget::Candle,
    ];

    /// As in the raw results and in `baselines/layers.py`.
    fn name(self) -> String {
        match self {
            BenchTarget::Jetmoe => "jetmoe".to_owned(),
            BenchTarget::Isa(isa) => format!("jetmoe-{isa}"),
            BenchTarget::OnnxRuntime => "onnxruntime".to_owned(),
            BenchTarget::OnnxRuntimeQmoe => "onnxruntime-qmoe".to_owned(),
            BenchTarget::Openvino => "openvino".to_owned(),
            BenchTarget::TransformersBf16 => "transformers-bf16".to_owned(),
            BenchTarget::Candle => "candle".to_owned(),
        }
    }

    fn is_jetmoe(self) -> bool {
        matches!(self, BenchTarget::Jetmoe | BenchTarget::Isa(_))
    }

    /// Whether a user would run it instead of this project.
    fn is_client(self) -> bool {
        !self.is_jetmoe() && self != BenchTarget::Candle
    }

    /// Numbers of tokens to measure. The generic kernels would take minutes for many.
    fn tokens(self) -> &'static [usize] {
        if self == BenchTarget::Isa(GENERIC) { &TOKENS[..2] } else { TOKENS }
    }
}

impl FromStr for BenchTarget {
    type Err = anyhow::Error;

    fn from_str(name: &str) -> Result<Self> {
        match Self::ALL.into_iter().find(|target| target.name() == name) {
            Some(target) => Ok(target),
            None => bail!("unknown target; the targets are {}", Self::ALL.map(BenchTarget::name).join(", ")),
        }
    }
}

/// The portable kernels.
const GENERIC: &str = "generic";
const TOKENS: &[usize] = &[1, 16, 128, 512];
/// Layers that are computed in turn, so that the caches hold none of the next one's weights.
const LAYERS: &str = "4";
/// Measurements per number of tokens and round.
const REPETITIONS: &str = "3";
/// Chooses an instruction set of `jetmoe-kernels`.
const ISA_VARIABLE: &str = "JETMOE_KERNELS";
/// Packages with their benchmark of a layer.
const KERNELS: (&str, &str) = ("jetmoe-kernels", "layers");
const CANDLE: (&str, &str) = ("jetmoe-reference", "q4k");

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = arguments.targets.as_deref().unwrap_or(&BenchTarget::ALL);
    ensure!(
        targets.contains(&BenchTarget::Jetmoe),
        "the target {} is needed as well, because it measures the machine",
        BenchTarget::Jetmoe.name()
    );
    let needs_kernels = targets.iter().any(|target| target.is_jetmoe());
    let needs_candle = targets.contains(&BenchTarget::Candle);
    for (package, _) in
        [(KERNELS, needs_kernels), (CANDLE, needs_candle)].into_iter().filter(|needed| needed.1)
    {
        command::run(&format!("build the benchmark of {}", package.0), cargo_bench(package).arg("--no-run"))?;
    }
    let threads = arguments.threads.to_string();
    let rounds = rounds::measure(
        arguments.rounds,
        targets,
        |target| target.name(),
        |title, target, measured| match (target, measured.get("jetmoe")) {
            (BenchTarget::Isa(isa), Some(jetmoe)) if !is_other_available(jetmoe, isa) => Ok(None),
            _ => measure(title, *target, &threads).map(Some),
        },
    )?;
    let raw = json!({ "command": command(arguments), "rounds": rounds });
    BENCHMARK.write_measured(arguments.output.as_deref(), None, raw)
}

/// The command that measures the same.
fn command(arguments: &Arguments) -> String {
    let Arguments { rounds, threads, targets, .. } = arguments;
    let mut command = format!("cargo xtask bench --kernels --rounds {rounds} --threads {threads}");
    if let Some(targets) = targets {
        let targets: Vec<String> = targets.iter().map(|target| target.name()).collect();
        command.push_str(&format!(" --targets {}", targets.join(",")));
    }
    command
}

/// Whether this processor has an instruction set and it is not the one that jetmoe chose.
fn is_other_available(jetmoe: &Value, isa: &str) -> bool {
    let available = jetmoe["available"].as_array();
    available.is_some_and(|sets| sets.iter().any(|set| set == isa)) && jetmoe["instructions"] != isa
}

/// What `jetmoe-backend` sets in every program that computes, in variables that glibc reads: freed memory is kept for the next step.
const KEPT_MEMORY: [(&str, &str); 2] =
    [("MALLOC_MMAP_THRESHOLD_", "33554432"), ("MALLOC_TRIM_THRESHOLD_", "67108864")];

fn cargo_bench((package, name): (&str, &str)) -> Command {
    let mut cargo = Command::new("cargo");
    cargo.args(["bench", "--quiet", "--package", package, "--bench", name]);
    cargo
}

fn benchmark(target: BenchTarget, threads: &str) -> Command {
    let mut command = match target {
        BenchTarget::Jetmoe | BenchTarget::Isa(_) => {
            let mut cargo = cargo_bench(KERNELS);
            cargo.envs(KEPT_MEMORY);
            cargo
        }
        BenchTarget::Candle => cargo_bench(CANDLE),
        _ => baseline("layers.py"),
    };
    match target {
        BenchTarget::Jetmoe => command.args(["--", "--rounds", REPETITIONS]),
        BenchTarget::Isa(isa) => command.env(ISA_VARIABLE, isa).args(["--", "--rounds", REPETITIONS]),
        BenchTarget::Candle => {
            command.env("RAYON_NUM_THREADS", threads).args(["--", "--repetitions", REPETITIONS])
        }
        _ => command.args(["--baseline", &target.name(), "--repetitions", REPETITIONS]),
    };
    let tokens: Vec<String> = target.tokens().iter().map(ToString::to_string).collect();
    command.args(["--threads", threads, "--layers", LAYERS, "--tokens", &tokens.join(",")]);
    command
}

/// Runs the benchmark of a target: an object with the field `runs`.
fn measure(title: &str, target: BenchTarget, threads: &str) -> Result<Value> {
    let mut command = benchmark(target, threads);
    let text = command::output(title, &mut command)?;
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("invalid JSON was printed by\n{command:?}"))?;
    let mut lines = lines.into_iter();
    let mut result = lines.next().with_context(|| format!("no JSON was printed by\n{command:?}"))?;
    if target.is_jetmoe() {
        // the benchmark prints a line for the machine and one for each number of tokens
        result["runs"] = lines.collect();
    }
    Ok(result)
}

#[cfg(test)]
mod tests;
