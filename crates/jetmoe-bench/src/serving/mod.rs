//! `jetmoe-bench serving`: `jetmoe serve` and llama.cpp's server with the same requests.

mod page;

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use clap::ValueEnum;
use serde_json::json;

use crate::command::{self, baseline, jetmoe};
use crate::pages::Benchmark;
use crate::{prepare, rounds};

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
const LAYERS: u16 = 2;

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

/// What is measured.
struct Target {
    server: Server,
    program: PathBuf,
    model: PathBuf,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let all = [Server::Jetmoe, Server::LlamaServer];
    let servers = arguments.targets.as_deref().unwrap_or(&all);
    ensure!(!servers.is_empty(), "no server to measure");
    let folder = command::work_folder("bench-serving")?;
    command::clear(&folder)?;
    let prepare = |server: &Server| prepare(&folder, *server, arguments.llama_server.as_deref());
    let targets: Vec<Target> = servers.iter().map(prepare).collect::<Result<_>>()?;
    let rounds = rounds::measure(
        arguments.rounds,
        &targets,
        |target| target.server.name().to_owned(),
        |title, target, _| {
            let mut measure = baseline("serving.py");
            measure.args(["--target", target.server.name()]);
            measure.arg("--program").arg(&target.program).arg("--model").arg(&target.model);
            for (name, value) in [
                ("--threads", arguments.threads),
                ("--streams", arguments.streams),
                ("--prompt-tokens", arguments.prompt_tokens),
                ("--new-tokens", arguments.new_tokens),
            ] {
                measure.arg(name).arg(value.to_string());
            }
            command::json(title, &mut measure).map(Some)
        },
    )?;
    let raw = json!({ "command": invocation(arguments, servers), "rounds": rounds });
    BENCHMARK.write_measured(arguments.output.as_deref(), None, raw)
}

/// Makes the model of a server anew.
fn prepare(folder: &Path, server: Server, llama_server: Option<&Path>) -> Result<Target> {
    let (program, model) = match server {
        Server::Jetmoe => {
            let (checkpoint, artifact) = (folder.join("checkpoint"), folder.join("artifact"));
            prepare::checkpoint(&checkpoint, LAYERS)?;
            prepare::export(&checkpoint, &artifact, "q4", "native")?;
            (PathBuf::from(jetmoe("jetmoe")?.get_program()), artifact)
        }
        Server::LlamaServer => {
            let program = llama_server.context("llama.cpp's server is needed: --llama-server FILE")?;
            let model = folder.join("mixtral.gguf");
            prepare::gguf(&model, LAYERS, true)?;
            (program.to_owned(), model)
        }
    };
    Ok(Target { server, program, model })
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
