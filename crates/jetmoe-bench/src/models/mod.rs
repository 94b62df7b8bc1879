//! `jetmoe-bench models`: this project and the baselines on the same weights.

mod goals;
mod index;
mod page;
mod plot;
mod results;

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use crate::command::{self, baseline, jetmoe};
use crate::pages::Benchmark;
use crate::processor::memory_bytes;
use crate::{prepare, rounds};

/// The pages in `docs/benchmarks/`.
pub(crate) const BENCHMARK: Benchmark =
    Benchmark { root: "docs/benchmarks", render: page::render, index: index::index };

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// What to measure [default: everything whose weights fit in memory]
    #[arg(long, alias = "peers", value_enum, value_delimiter = ',')]
    targets: Option<Vec<BenchTarget>>,
    /// How often to measure each target
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of each target
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Tokens to decode after each prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    new_tokens: u16,
    /// Layers of the checkpoint, which has JetMoE-8B's widths; JetMoE-8B has 24
    #[arg(long, value_name = "N", default_value_t = LAYERS, value_parser = clap::value_parser!(u16).range(1..))]
    layers: u16,
    /// Folder for the results [default: the one of this processor in docs/benchmarks]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Layers without `--layers`.
const LAYERS: u16 = 2;
/// Layers of JetMoE-8B.
const FULL_SIZE: u16 = 24;

/// What is measured: a graph of this project, or a baseline.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum BenchTarget {
    JetmoeQ4,
    JetmoeQ4Tract,
    JetmoeQ4Onnxruntime,
    JetmoeBf16,
    JetmoeF32,
    TransformersBf16,
    TransformersF32,
    TransformersOnnx,
    Openvino,
    LlamaCpp,
    OnnxruntimeGenai,
}

/// A graph of this project, and the backend that runs it.
#[derive(Clone, Copy)]
struct JetmoeRun {
    precision: &'static str,
    profile: &'static str,
    backend: &'static str,
}

impl BenchTarget {
    /// As on the command line, in `baselines/models.py` and in the raw results.
    fn name(self) -> String {
        self.to_possible_value().map_or_else(String::new, |value| value.get_name().to_owned())
    }

    /// What to run; `None` for a baseline.
    fn jetmoe(self) -> Option<JetmoeRun> {
        let run = |precision, profile, backend| Some(JetmoeRun { precision, profile, backend });
        match self {
            BenchTarget::JetmoeQ4 => run("q4", "native", "ort"),
            BenchTarget::JetmoeQ4Tract => run("q4", "native", "tract"),
            BenchTarget::JetmoeQ4Onnxruntime => run("q4", "onnxruntime", "ort"),
            BenchTarget::JetmoeBf16 => run("bf16", "native", "ort"),
            BenchTarget::JetmoeF32 => run("f32", "onnxruntime", "ort"),
            _ => None,
        }
    }

    /// Precision and profile of the graph to export for it, if it needs one.
    fn export(self) -> Option<(&'static str, &'static str)> {
        match self {
            BenchTarget::Openvino => Some(("f32", "portable")),
            BenchTarget::OnnxruntimeGenai => Some(("q4", "onnxruntime")),
            _ => self.jetmoe().map(|run| (run.precision, run.profile)),
        }
    }

    /// Bytes that it keeps in memory for a weight.
    fn bytes_per_weight(self) -> f64 {
        match self {
            BenchTarget::JetmoeQ4
            | BenchTarget::JetmoeQ4Tract
            | BenchTarget::JetmoeQ4Onnxruntime
            | BenchTarget::LlamaCpp
            | BenchTarget::OnnxruntimeGenai => 0.7,
            BenchTarget::JetmoeBf16 | BenchTarget::TransformersBf16 => 2.0,
            BenchTarget::JetmoeF32
            | BenchTarget::TransformersF32
            | BenchTarget::TransformersOnnx
            | BenchTarget::Openvino => 4.0,
        }
    }

    /// Whether there is a package of it for this system.
    fn is_available(self) -> bool {
        self != BenchTarget::LlamaCpp || cfg!(target_os = "linux")
    }

    /// What is measured by default: all targets whose weights take at most three quarters of the memory.
    fn defaults(layers: u16, memory_bytes: u64) -> Vec<Self> {
        let weights = WEIGHTS_OF_LAYER * f64::from(layers) + WEIGHTS_OF_EMBEDDING;
        let fits = |target: &Self| target.bytes_per_weight() * weights <= 0.75 * memory_bytes as f64;
        let all = Self::value_variants().iter().copied();
        all.filter(|target| target.is_available() && fits(target)).collect()
    }
}

/// Weights of JetMoE-8B.
const WEIGHTS_OF_LAYER: f64 = 352e6;
const WEIGHTS_OF_EMBEDDING: f64 = 65.5e6;

/// Batch sizes and prompt lengths for every target.
const SHAPES: &[(usize, usize)] = &[(1, 128), (1, 512), (8, 128)];
/// More prompts for one target, to show how decoding slows down as the cache grows.
const MORE_PROMPTS: &[usize] = &[64, 2048];

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let targets = match &arguments.targets {
        Some(targets) => targets.clone(),
        None => BenchTarget::defaults(arguments.layers, memory_bytes()),
    };
    ensure!(
        targets.iter().any(|target| target.jetmoe().is_some()),
        "a target of jetmoe is needed as well, because it measures the machine"
    );
    let bench = Bench { arguments, targets, folder: command::work_folder("bench")? };
    bench.prepare()?;
    let rounds = rounds::measure(
        arguments.rounds,
        &bench.targets,
        |target| target.name(),
        |title, target, _| bench.measure(title, *target).map(Some),
    )?;
    let raw = json!({
        "command": bench.command(),
        "layers": arguments.layers,
        "checkpoint_bytes": bench.checkpoint_bytes()?,
        "rounds": rounds,
    });
    let below = folder_of_size(arguments.layers);
    BENCHMARK.write_measured(arguments.output.as_deref(), below.as_deref(), raw)
}

/// Folder of the results of a checkpoint that has not the usual number of layers, below the one of the processor.
fn folder_of_size(layers: u16) -> Option<String> {
    match layers {
        LAYERS => None,
        FULL_SIZE => Some("full-size".to_owned()),
        layers => Some(format!("{layers}-layers")),
    }
}

struct Bench<'a> {
    arguments: &'a Arguments,
    targets: Vec<BenchTarget>,
    /// Folder of checkpoint and exports.
    folder: PathBuf,
}

impl Bench<'_> {
    fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    fn artifact(&self) -> PathBuf {
        self.folder.join("artifact")
    }

    fn transformers_graph(&self) -> PathBuf {
        self.folder.join("transformers-onnx").join("model.onnx")
    }

    /// The model of llama.cpp.
    fn gguf(&self) -> PathBuf {
        self.folder.join("mixtral.gguf")
    }

    /// Makes checkpoint and exports anew, because earlier ones may be of another version.
    fn prepare(&self) -> Result<()> {
        command::clear(&self.folder)?;
        prepare::checkpoint(&self.checkpoint(), self.arguments.layers)?;
        let exports: BTreeSet<_> = self.targets.iter().filter_map(|target| target.export()).collect();
        for (precision, profile) in exports {
            prepare::export(&self.checkpoint(), &self.artifact(), precision, profile)?;
        }
        if self.targets.contains(&BenchTarget::LlamaCpp) {
            prepare::gguf(&self.gguf(), self.arguments.layers, false)?;
        }
        if self.targets.contains(&BenchTarget::TransformersOnnx) {
            let graph = self.transformers_graph();
            let mut export = self.baseline();
            export.arg("--export").args(graph.parent());
            command::run("export with transformers", &mut export)?;
            ensure!(graph.is_file(), "transformers wrote no {}", graph.display());
        }
        Ok(())
    }

    fn measure(&self, title: &str, target: BenchTarget) -> Result<Value> {
        let Some(run) = target.jetmoe() else { return self.measure_baseline(title, target) };
        // `jetmoe bench` measures every batch size with every prompt, so one call per batch size
        let of_batch = |batch| SHAPES.iter().filter(move |shape| shape.0 == batch).map(|shape| shape.1);
        let more = if target == BenchTarget::JetmoeQ4 { MORE_PROMPTS } else { &[] };
        let mut report = self.measure_jetmoe(title, run, 1, of_batch(1).chain(more.iter().copied()))?;
        let larger = self.measure_jetmoe(title, run, 8, of_batch(8))?;
        let runs = larger.pointer("/results/0/runs").and_then(Value::as_array).context("no runs")?;
        let all = report.pointer_mut("/results/0/runs").and_then(Value::as_array_mut).context("no runs")?;
        all.extend(runs.iter().cloned());
        let mut result = report["results"][0].take();
        result["machine"] = report["machine"].take();
        Ok(result)
    }

    fn measure_jetmoe(
        &self,
        title: &str,
        run: JetmoeRun,
        batch: usize,
        prompts: impl Iterator<Item = usize>,
    ) -> Result<Value> {
        let prompts: Vec<String> = prompts.map(|tokens| tokens.to_string()).collect();
        let mut bench = jetmoe("jetmoe")?;
        bench.args(["bench", "--backend", run.backend, "--precision", run.precision]);
        bench.args(["--profile", run.profile, "--model"]).arg(self.artifact());
        bench.args(["--batch", &batch.to_string(), "--prompt-tokens", &prompts.join(",")]);
        bench.args(["--threads", &self.arguments.threads.to_string()]);
        bench.args(["--new-tokens", &self.arguments.new_tokens.to_string()]);
        command::json(title, bench.args(["--repetitions", "1", "--format", "json"]))
    }

    fn measure_baseline(&self, title: &str, target: BenchTarget) -> Result<Value> {
        let shapes: Vec<String> =
            SHAPES.iter().map(|(batch, prompt_tokens)| format!("{batch}x{prompt_tokens}")).collect();
        let mut program = self.baseline();
        program.args(["--baseline", &target.name(), "--threads", &self.arguments.threads.to_string()]);
        program.args(["--new-tokens", &self.arguments.new_tokens.to_string(), "--shapes", &shapes.join(",")]);
        match target {
            BenchTarget::TransformersOnnx => program.arg("--graph").arg(self.transformers_graph()),
            BenchTarget::Openvino => program.arg("--graph").arg(self.artifact().join("onnx/model.onnx")),
            BenchTarget::LlamaCpp => program.arg("--graph").arg(self.gguf()),
            BenchTarget::OnnxruntimeGenai => {
                program.arg("--graph").arg(self.artifact().join("onnx/onnxruntime/model_q4.onnx"))
            }
            _ => &mut program,
        };
        command::json(title, &mut program)
    }

    fn baseline(&self) -> Command {
        let mut program = baseline("models.py");
        program.arg("--checkpoint").arg(self.checkpoint());
        program
    }

    /// Size of all shards.
    fn checkpoint_bytes(&self) -> Result<u64> {
        let folder = self.checkpoint();
        let mut bytes = 0;
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                bytes += path.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// The command that measures the same.
    fn command(&self) -> String {
        let Arguments { rounds, threads, new_tokens, layers, .. } = self.arguments;
        let targets: Vec<String> = self.targets.iter().map(|target| target.name()).collect();
        format!(
            "cargo xtask bench --targets {} --rounds {rounds} --threads {threads} --new-tokens {new_tokens} \
             --layers {layers}",
            targets.join(",")
        )
    }
}

#[cfg(test)]
mod tests;
