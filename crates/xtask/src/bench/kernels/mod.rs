//! `bench --kernels`: one MLP layer of a mixture of experts, in our kernels and in those of the peers, in turn.

mod page;
mod plot;
mod results;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};

use self::results::Results;
use super::Arguments;
use crate::python::PEERS;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Who is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Contender {
    /// This project, with the instructions that it chooses itself.
    Jetmoe,
    /// This project, with a set of instructions that it did not choose.
    Forced(&'static str),
    OnnxRuntime,
    Openvino,
    TransformersBf16,
    /// The kernels that could be taken instead of our own.
    Candle,
}

impl Contender {
    const ALL: [Contender; 10] = [
        Contender::Jetmoe,
        Contender::Forced("amx"),
        Contender::Forced("avx512vnni"),
        Contender::Forced("avx2"),
        Contender::Forced("neon"),
        Contender::Forced("generic"),
        Contender::OnnxRuntime,
        Contender::Openvino,
        Contender::TransformersBf16,
        Contender::Candle,
    ];

    /// As the raw results name it, and `layers.py` if it is a peer.
    fn name(self) -> String {
        match self {
            Contender::Jetmoe => "jetmoe".to_owned(),
            Contender::Forced(instructions) => format!("jetmoe-{instructions}"),
            Contender::OnnxRuntime => "onnxruntime".to_owned(),
            Contender::Openvino => "openvino".to_owned(),
            Contender::TransformersBf16 => "transformers-bf16".to_owned(),
            Contender::Candle => "candle".to_owned(),
        }
    }

    fn is_ours(self) -> bool {
        matches!(self, Contender::Jetmoe | Contender::Forced(_))
    }

    /// What a user would run instead of this project.
    fn is_peer(self) -> bool {
        !self.is_ours() && self != Contender::Candle
    }

    /// Numbers of tokens that it is measured with; `generic` would take minutes for many.
    fn tokens(self) -> &'static [usize] {
        if self == Contender::Forced("generic") { &TOKENS[..2] } else { TOKENS }
    }
}

const TOKENS: &[usize] = &[1, 16, 128, 512];
/// Layers that follow each other from memory, so that none is in a cache when its turn comes.
const LAYERS: &str = "4";
/// How often each number of tokens is measured in a turn.
const REPETITIONS: &str = "3";
const PEERS_PROGRAM: &str = "crates/xtask/peers/layers.py";
/// Forces a set of instructions; `jetmoe-kernels/src/isa.rs` reads it.
const INSTRUCTIONS_VARIABLE: &str = "JETMOE_KERNELS";
const OUTPUT: &str = "docs/kernels";

pub(super) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    PEERS.prepare(workspace, steps)?;
    for package in [KERNELS, CANDLE] {
        let build = benchmark(package, &["--no-run"]);
        steps.run(&format!("build the benchmark of {}", package.0), &workspace.root, &build)?;
    }
    let threads = arguments.threads.to_string();
    let mut rounds = Vec::new();
    for round in 1..=arguments.rounds {
        let mut results = serde_json::Map::new();
        for contender in Contender::ALL {
            if let (Contender::Forced(instructions), Some(ours)) = (contender, results.get("jetmoe"))
                && !is_another(ours, instructions)
            {
                continue;
            }
            let name = contender.name();
            let command = command(contender, &threads);
            let title = format!("round {round}, {name}");
            let measure = || answer(workspace, contender, &command);
            let result = steps.perform(&title, &format!("$ {command}"), measure)?;
            results.insert(name, result);
        }
        rounds.push(Value::Object(results));
    }
    let raw = json!({
        "command": format!("cargo xtask bench --kernels --rounds {} --threads {threads}", arguments.rounds),
        "processor": processor(),
        "rounds": rounds,
    });
    write(workspace, &raw)
}

/// Whether this processor has these instructions and our kernels have not chosen them by themselves.
fn is_another(ours: &Value, instructions: &str) -> bool {
    let available = ours["available"].as_array();
    available.is_some_and(|sets| sets.iter().any(|set| set == instructions))
        && ours["instructions"] != instructions
}

/// Packages with their benchmarks of a layer.
const KERNELS: (&str, &str) = ("jetmoe-kernels", "layers");
const CANDLE: (&str, &str) = ("jetmoe-reference", "q4k");

fn benchmark((package, name): (&str, &str), arguments: &[&str]) -> CommandLine {
    CommandLine::cargo(["bench", "--quiet", "--package", package, "--bench", name]).args(arguments)
}

fn command(contender: Contender, threads: &str) -> CommandLine {
    let tokens: Vec<String> = contender.tokens().iter().map(ToString::to_string).collect();
    let tokens = tokens.join(",");
    let sizes = ["--threads", threads, "--layers", LAYERS, "--tokens", &tokens];
    match contender {
        Contender::Jetmoe => benchmark(KERNELS, &["--", "--rounds", REPETITIONS]).args(sizes),
        Contender::Forced(instructions) => benchmark(KERNELS, &["--", "--rounds", REPETITIONS])
            .args(sizes)
            .env(INSTRUCTIONS_VARIABLE, instructions),
        Contender::Candle => benchmark(CANDLE, &["--", "--repetitions", REPETITIONS])
            .args(sizes)
            .env("RAYON_NUM_THREADS", threads),
        _ => CommandLine::new(PEERS.program("python"))
            .arg(PEERS_PROGRAM)
            .args(["--peer", &contender.name(), "--repetitions", REPETITIONS])
            .args(sizes),
    }
}

/// What it measured: an object with the field `runs`.
fn answer(workspace: &Workspace, contender: Contender, command: &CommandLine) -> Result<Value> {
    let output = command.output(&workspace.root)?;
    if !output.status.success() {
        bail!("{}\n{command}\n{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let lines: Vec<Value> = text
        .lines()
        .filter(|line| line.starts_with('{'))
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()
        .with_context(|| format!("other than JSON was printed by\n{command}"))?;
    let (first, rest) = lines.split_first().with_context(|| format!("no JSON was printed by\n{command}"))?;
    let mut result = first.clone();
    if contender.is_ours() {
        // the benchmark prints a line for the machine and one for each number of tokens
        result["runs"] = Value::from(rest.to_vec());
    }
    Ok(result)
}

/// The processor's name for itself, where the system has a file that says it.
fn processor() -> String {
    let text = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("model name"));
    let name = line.and_then(|line| line.split_once(':')).map(|(_, name)| name.trim());
    name.unwrap_or(std::env::consts::ARCH).to_owned()
}

/// The raw results, a page and a plot.
fn write(workspace: &Workspace, raw: &Value) -> Result<()> {
    let folder = workspace.root.join(OUTPUT);
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let write = |name: &str, text: String| {
        let path: &Path = &folder.join(name);
        fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
    };
    let results = Results::new(raw);
    // first, so that what took long to measure is not lost if it cannot be drawn
    write("raw.json", format!("{raw:#}\n"))?;
    write("roofline.svg", plot::draw(&results)?)?;
    let page = page::page(&results)?;
    println!("\n{page}\nraw.json, README.md and roofline.svg are in {OUTPUT}");
    write("README.md", page)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_program_of_the_peers_knows_them() {
        let program = include_str!("../../../peers/layers.py");
        for peer in Contender::ALL.iter().filter(|contender| contender.is_peer()) {
            assert!(program.contains(&format!("\"{}\"", peer.name())), "{}", peer.name());
        }
    }

    #[test]
    fn instructions_are_forced_only_where_that_gives_another_row() {
        let ours = json!({ "instructions": "avx2", "available": ["generic", "avx2"] });
        assert!(is_another(&ours, "generic"));
        assert!(!is_another(&ours, "avx2"));
        assert!(!is_another(&ours, "amx"));
    }

    #[test]
    fn the_command_of_forced_instructions_can_be_typed() {
        let shown = command(Contender::Forced("generic"), "2").to_string();
        assert!(shown.starts_with("JETMOE_KERNELS=generic cargo bench"), "{shown}");
        assert!(shown.ends_with("--rounds 3 --threads 2 --layers 4 --tokens 1,16"), "{shown}");
    }
}
