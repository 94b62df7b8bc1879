//! `jetmoe-bench serving`: `jetmoe serve` and llama.cpp's server with the same requests.

mod page;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::{Map, Value, json};

use crate::command::{self, baseline, jetmoe};
use crate::pages::Benchmark;
use crate::processor::Processor;

/// The pages in `docs/serving/`.
pub(crate) const BENCHMARK: Benchmark =
    Benchmark { root: "docs/serving", render: page::render, index: page::index };

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Servers to measure [default: both]
    #[arg(long, value_enum, value_delimiter = ',')]
    targets: Option<Vec<Server>>,
    /// llama.cpp's server
    #[arg(long, value_name = "FILE")]
    llama_server: Option<PathBuf>,
    /// How often to measure each server
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of each server
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Requests at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(2..))]
    streams: u16,
    /// Tokens of each prompt
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u16).range(1..))]
    prompt_tokens: u16,
    /// New tokens of each request
    #[arg(long, value_name = "N", default_value_t = 192, value_parser = clap::value_parser!(u16).range(16..))]
    new_tokens: u16,
    /// Folder for the results [default: the one of this processor in docs/serving]
    #[arg(long, value_name = "DIR")]
    output: Option<PathBuf>,
}

/// Layers of the models, which have JetMoE-8B's widths.
const LAYERS: &str = "2";

/// A server that is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Server {
    Jetmoe,
    LlamaServer,
}

impl Server {
    /// As on the command line, in `baselines/serving.py` and in the raw results.
    const fn name(self) -> &'static str {
        match self {
            Server::Jetmoe => "jetmoe",
            Server::LlamaServer => "llama-server",
        }
    }
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let all = [Server::Jetmoe, Server::LlamaServer];
    let targets = arguments.targets.as_deref().unwrap_or(&all);
    ensure!(!targets.is_empty(), "no server to measure");
    let folder = command::work_folder("bench-serving")?;
    let models: Vec<(Server, PathBuf, PathBuf)> =
        prepare(&folder, targets, arguments.llama_server.as_deref())?;
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let mut results = Map::new();
        for (server, program, model) in &models {
            let title = format!("round {round}, {}", server.name());
            let mut measure = baseline("serving.py");
            measure.args(["--target", server.name(), "--program"]).arg(program).arg("--model").arg(model);
            for (name, value) in [
                ("--threads", arguments.threads),
                ("--streams", arguments.streams),
                ("--prompt-tokens", arguments.prompt_tokens),
                ("--new-tokens", arguments.new_tokens),
            ] {
                measure.arg(name).arg(value.to_string());
            }
            results.insert(server.name().to_owned(), command::json(&title, &mut measure)?);
        }
        rounds.push(Value::Object(results));
    }
    let mut raw = json!({ "command": invocation(arguments, targets), "rounds": rounds });
    let processor = Processor::detect();
    processor.write_to(&mut raw);
    let own_folder = Path::new(BENCHMARK.root).join(processor.slug());
    BENCHMARK.write(arguments.output.as_ref().unwrap_or(&own_folder), &raw)
}

/// Makes the models anew: for each server its program and its model.
fn prepare(
    folder: &Path,
    targets: &[Server],
    llama_server: Option<&Path>,
) -> Result<Vec<(Server, PathBuf, PathBuf)>> {
    command::clear(folder)?;
    let mut models = Vec::new();
    for server in targets {
        models.push(match server {
            Server::Jetmoe => {
                let (checkpoint, artifact) = (folder.join("checkpoint"), folder.join("artifact"));
                let mut synth = jetmoe("jetmoe")?;
                synth.args(["synth", "--like", "jetmoe-8b", "--layers", LAYERS, "--output"]).arg(&checkpoint);
                synth.args(["--tokenizer", "tests/fixtures/models/jetmoe-mini"]);
                command::run("make the checkpoint", &mut synth)?;
                let mut export = jetmoe("jetmoe-export")?;
                export.arg(&checkpoint).arg("--output").arg(&artifact);
                export.args(["--precision", "q4", "--profile", "native"]);
                command::run("export q4, native", &mut export)?;
                (*server, PathBuf::from(jetmoe("jetmoe")?.get_program()), artifact)
            }
            Server::LlamaServer => {
                let program = llama_server.context("llama.cpp's server is needed: --llama-server FILE")?;
                let model = folder.join("mixtral.gguf");
                std::fs::create_dir_all(folder)
                    .with_context(|| format!("cannot create {}", folder.display()))?;
                let mut write = baseline("llama_cpp.py");
                write.args(["--layers", LAYERS, "--vocabulary", "--output"]).arg(&model);
                command::run("write the model of llama.cpp", &mut write)?;
                (*server, program.to_owned(), model)
            }
        });
    }
    Ok(models)
}

/// The command that measures the same.
fn invocation(arguments: &Arguments, targets: &[Server]) -> String {
    let Arguments { rounds, threads, streams, prompt_tokens, new_tokens, .. } = arguments;
    let targets: Vec<&str> = targets.iter().map(|server| server.name()).collect();
    format!(
        "cargo xtask bench --serving --targets {} --rounds {rounds} --threads {threads} --streams {streams} \
         --prompt-tokens {prompt_tokens} --new-tokens {new_tokens}",
        targets.join(",")
    )
}
