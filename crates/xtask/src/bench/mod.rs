//! `bench`: this project and its peers on the same weights, in turn.

mod goals;
mod kernels;
mod page;
mod plot;
mod rounds;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use clap::ValueEnum;
use serde_json::{Value, json};

use self::rounds::Rounds;
use crate::demo::build_commands;
use crate::python::PEERS;
use crate::setup;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Who is measured
    #[arg(long, value_enum, value_delimiter = ',', default_values_t = Peer::ALL)]
    peers: Vec<Peer>,
    /// How often everybody has a turn
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..))]
    rounds: u16,
    /// Threads of everybody
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    threads: u16,
    /// Tokens that are decoded after each prompt
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(1..))]
    new_tokens: u16,
    /// Layers of the checkpoint, which has JetMoE-8B's widths
    #[arg(long, value_name = "N", default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..))]
    layers: u16,
    /// Where the results go
    #[arg(long, value_name = "DIR", default_value = "docs/benchmarks")]
    output: PathBuf,
    /// Measure the micro-benchmarks of our own crates instead, and write nothing
    #[arg(long, exclusive = true)]
    micro: bool,
    /// Measure one MLP layer in our own kernels and in those of the peers instead: docs/kernels/
    #[arg(long, conflicts_with_all = ["peers", "new_tokens", "layers", "output"])]
    kernels: bool,
}

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Peer {
    JetmoeQ4,
    JetmoeQ4Tract,
    JetmoeQ4Onnxruntime,
    JetmoeBf16,
    JetmoeF32,
    TransformersBf16,
    TransformersF32,
    TransformersOnnx,
    Openvino,
}

impl Peer {
    const ALL: [Peer; 9] = [
        Peer::JetmoeQ4,
        Peer::JetmoeQ4Tract,
        Peer::JetmoeQ4Onnxruntime,
        Peer::JetmoeBf16,
        Peer::JetmoeF32,
        Peer::TransformersBf16,
        Peer::TransformersF32,
        Peer::TransformersOnnx,
        Peer::Openvino,
    ];

    /// As it is typed, and as `peers.py` and the raw results name it.
    fn name(self) -> &'static str {
        match self {
            Peer::JetmoeQ4 => "jetmoe-q4",
            Peer::JetmoeQ4Tract => "jetmoe-q4-tract",
            Peer::JetmoeQ4Onnxruntime => "jetmoe-q4-onnxruntime",
            Peer::JetmoeBf16 => "jetmoe-bf16",
            Peer::JetmoeF32 => "jetmoe-f32",
            Peer::TransformersBf16 => "transformers-bf16",
            Peer::TransformersF32 => "transformers-f32",
            Peer::TransformersOnnx => "transformers-onnx",
            Peer::Openvino => "openvino",
        }
    }

    /// What is run, for those that are this project.
    fn ours(self) -> Option<Ours> {
        let ours = |precision, profile, backend| Some(Ours { precision, profile, backend });
        match self {
            Peer::JetmoeQ4 => ours("q4", "native", "ort"),
            Peer::JetmoeQ4Tract => ours("q4", "native", "tract"),
            Peer::JetmoeQ4Onnxruntime => ours("q4", "onnxruntime", "ort"),
            Peer::JetmoeBf16 => ours("bf16", "native", "ort"),
            Peer::JetmoeF32 => ours("f32", "onnxruntime", "ort"),
            _ => None,
        }
    }

    /// Precision and profile of the graph that is exported for it, if any is.
    fn export(self) -> Option<(&'static str, &'static str)> {
        match self {
            Peer::Openvino => Some(("f32", "portable")),
            _ => self.ours().map(|ours| (ours.precision, ours.profile)),
        }
    }
}

/// A graph of this project, and what runs it.
#[derive(Clone, Copy)]
struct Ours {
    precision: &'static str,
    profile: &'static str,
    backend: &'static str,
}

/// Batch and prompt of what everybody is measured with.
const SHAPES: &[(usize, usize)] = &[(1, 128), (1, 512), (8, 128)];
/// What more is measured of this project: how decoding slows down as the cache grows.
const MORE_PROMPTS: &[usize] = &[64, 2048];
const PEERS_PROGRAM: &str = "crates/xtask/peers/peers.py";
/// Packages and their micro-benchmarks.
const MICRO: &[(&str, &str)] = &[("jetmoe-rt", "sampling"), ("jetmoe-kernels", "routing")];

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    if arguments.micro {
        return micro(workspace, steps);
    }
    if arguments.kernels {
        return kernels::run(workspace, steps, arguments);
    }
    setup::onnxruntime_library(workspace, steps)?;
    if arguments.peers.iter().any(|peer| peer.ours().is_none()) {
        PEERS.prepare(workspace, steps)?;
    }
    build_commands(workspace, steps)?;
    let bench = Bench { workspace, arguments, folder: workspace.target.join("bench") };
    bench.prepare(steps)?;
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let mut results = serde_json::Map::new();
        for peer in &arguments.peers {
            let title = format!("round {round}, {}", peer.name());
            let what = format!("{} threads", arguments.threads);
            let result = steps.perform(&title, &what, || bench.measure(*peer))?;
            results.insert(peer.name().to_owned(), result);
        }
        rounds.push(Value::Object(results));
    }
    let raw = json!({
        "command": bench.command(),
        "checkpoint_bytes": bench.checkpoint_bytes()?,
        "rounds": rounds,
    });
    bench.write(&raw)
}

/// The package alone, without the runtimes, so that these are not built for the release profile.
fn micro(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    for (package, name) in MICRO {
        let command =
            CommandLine::cargo(["bench", "--package", package, "--no-default-features", "--bench", name]);
        steps.run(&format!("micro-benchmark of {name}"), &workspace.root, &command)?;
    }
    Ok(())
}

struct Bench<'a> {
    workspace: &'a Workspace,
    arguments: &'a Arguments,
    /// Where checkpoint and exports lie, relative to the root.
    folder: PathBuf,
}

impl Bench<'_> {
    fn checkpoint(&self) -> PathBuf {
        self.folder.join("checkpoint")
    }

    fn artifact(&self) -> PathBuf {
        self.folder.join("artifact")
    }

    fn peers_graph(&self) -> PathBuf {
        self.folder.join("transformers-onnx").join("model.onnx")
    }

    /// Checkpoint and exports, made anew: what an earlier version exported says nothing of this one.
    fn prepare(&self, steps: &mut Steps) -> Result<()> {
        let root = &self.workspace.root;
        if root.join(&self.folder).exists() {
            fs::remove_dir_all(root.join(&self.folder))
                .with_context(|| format!("cannot empty {}", self.folder.display()))?;
        }
        let synth = CommandLine::new(self.workspace.binary("jetmoe"))
            .args([
                "synth",
                "--like",
                "jetmoe-8b",
                "--layers",
                &self.arguments.layers.to_string(),
                "--output",
            ])
            .arg(self.checkpoint());
        steps.run("make the checkpoint", root, &synth)?;
        let exports: BTreeSet<_> = self.arguments.peers.iter().filter_map(|peer| peer.export()).collect();
        for (precision, profile) in exports {
            let export = CommandLine::new(self.workspace.binary("jetmoe-export"))
                .arg(self.checkpoint())
                .arg("--output")
                .arg(self.artifact())
                .args(["--precision", precision, "--profile", profile]);
            steps.run(&format!("export {precision}, {profile}"), root, &export)?;
        }
        if self.arguments.peers.contains(&Peer::TransformersOnnx) {
            let folder = self.folder.join("transformers-onnx");
            let export = self.peers_program().arg("--export").arg(folder);
            steps.run("export with transformers", root, &export)?;
            let graph = self.peers_graph();
            ensure!(root.join(&graph).is_file(), "transformers wrote no {}", graph.display());
        }
        Ok(())
    }

    fn measure(&self, peer: Peer) -> Result<Value> {
        let Some(ours) = peer.ours() else { return self.measure_peer(peer) };
        // one load for each batch size, as every batch is measured with every prompt
        let more: Vec<usize> = if peer == Peer::JetmoeQ4 { MORE_PROMPTS.to_vec() } else { Vec::new() };
        let of_batch = |batch| SHAPES.iter().filter(move |shape| shape.0 == batch).map(|shape| shape.1);
        let mut report = self.measure_jetmoe(ours, 1, of_batch(1).chain(more).collect())?;
        let larger = self.measure_jetmoe(ours, 8, of_batch(8).collect())?;
        let runs = larger.pointer("/results/0/runs").and_then(Value::as_array).context("no runs")?;
        let all = report.pointer_mut("/results/0/runs").and_then(Value::as_array_mut).context("no runs")?;
        all.extend(runs.iter().cloned());
        let mut result = report["results"][0].take();
        result["machine"] = report["machine"].take();
        Ok(result)
    }

    fn measure_jetmoe(&self, ours: Ours, batch: usize, prompts: Vec<usize>) -> Result<Value> {
        let prompts: Vec<String> = prompts.iter().map(ToString::to_string).collect();
        let command = CommandLine::new(self.workspace.binary("jetmoe"))
            .args(["bench", "--backend", ours.backend])
            .args(["--precision", ours.precision, "--profile", ours.profile, "--model"])
            .arg(self.artifact())
            .args(["--batch", &batch.to_string(), "--prompt-tokens", &prompts.join(",")])
            .args(["--threads", &self.arguments.threads.to_string()])
            .args(["--new-tokens", &self.arguments.new_tokens.to_string()])
            .args(["--repetitions", "1", "--format", "json"]);
        self.answer(&command)
    }

    fn measure_peer(&self, peer: Peer) -> Result<Value> {
        let shapes: Vec<String> =
            SHAPES.iter().map(|(batch, prompt_tokens)| format!("{batch}x{prompt_tokens}")).collect();
        let mut command = self
            .peers_program()
            .args(["--peer", peer.name(), "--threads", &self.arguments.threads.to_string()])
            .args(["--new-tokens", &self.arguments.new_tokens.to_string(), "--shapes", &shapes.join(",")]);
        match peer {
            Peer::TransformersOnnx => command = command.arg("--graph").arg(self.peers_graph()),
            Peer::Openvino => {
                command = command.arg("--graph").arg(self.artifact().join("onnx").join("model.onnx"));
            }
            _ => {}
        }
        self.answer(&command).with_context(|| format!("{} cannot be measured", peer.name()))
    }

    fn peers_program(&self) -> CommandLine {
        CommandLine::new(PEERS.program("python"))
            .arg(PEERS_PROGRAM)
            .arg("--checkpoint")
            .arg(self.checkpoint())
    }

    /// The JSON that a command prints.
    fn answer(&self, command: &CommandLine) -> Result<Value> {
        let output = command.output(&self.workspace.root)?;
        if !output.status.success() {
            bail!("{}\n{command}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
        }
        serde_json::from_slice(&output.stdout).with_context(|| format!("no JSON was printed by\n{command}"))
    }

    /// Size of all shards.
    fn checkpoint_bytes(&self) -> Result<u64> {
        let folder = self.workspace.root.join(self.checkpoint());
        let mut bytes = 0;
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "safetensors") {
                bytes += path.metadata()?.len();
            }
        }
        Ok(bytes)
    }

    /// What a person types to measure the same.
    fn command(&self) -> String {
        let arguments = self.arguments;
        let peers: Vec<&str> = arguments.peers.iter().map(|peer| peer.name()).collect();
        format!(
            "cargo xtask bench --peers {} --rounds {} --threads {} --new-tokens {} --layers {}",
            peers.join(","),
            arguments.rounds,
            arguments.threads,
            arguments.new_tokens,
            arguments.layers
        )
    }

    /// The raw results, a page and a plot.
    fn write(&self, raw: &Value) -> Result<()> {
        let folder = self.workspace.root.join(&self.arguments.output);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        let write = |name: &str, text: String| {
            let path: &Path = &folder.join(name);
            fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
        };
        let rounds = Rounds::new(raw);
        write("raw.json", format!("{raw:#}\n"))?;
        write("decode.svg", plot::draw(&rounds)?)?;
        let page = page::page(&rounds)?;
        println!("\n{page}\nraw.json, README.md and decode.svg are in {}", self.arguments.output.display());
        write("README.md", page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_peer_is_typed_by_the_name_it_has_in_the_results() {
        for peer in Peer::ALL {
            assert_eq!(peer.to_possible_value().unwrap().get_name(), peer.name());
        }
    }

    #[test]
    fn the_program_of_the_peers_knows_those_that_are_not_this_project() {
        let program = include_str!("../../peers/peers.py");
        for peer in Peer::ALL.iter().filter(|peer| peer.ours().is_none()) {
            assert!(program.contains(&format!("\"{}\"", peer.name())), "{}", peer.name());
        }
    }
}
