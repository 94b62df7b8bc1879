//! `full-size`: exports and runs a synthetic checkpoint of JetMoE-8B's widths, with time and memory of every step.

mod limited;

use std::fs;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail, ensure};

use crate::demo::build_commands;
use crate::setup;
use crate::step::{CommandLine, Steps};
use crate::workspace::{Workspace, data_bytes};

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Layers of the checkpoint. The 24 of JetMoE-8B take 17 GB on disk, and the exports 15 GB more
    #[arg(long, default_value_t = 24)]
    layers: usize,
    /// Folder to work in. It is cleared first and kept
    #[arg(long, value_name = "DIR")]
    folder: Option<PathBuf>,
    /// Instead of all graphs, export the native one and run it in N MiB of memory with an empty page cache: docs/memory.md.
    /// Linux, as root
    #[arg(long, value_name = "N")]
    memory_limit: Option<u64>,
}

/// Limit of the anonymous memory of an export, whatever the size of the checkpoint: 1 GiB.
const EXPORT_LIMIT: u64 = 1 << 30;
/// Graphs: precision and profile.
const EXPORTED: &[(&str, &str)] =
    &[("q4", "onnxruntime"), ("int8", "onnxruntime"), ("q4", "portable"), ("q4", "native")];
/// Runs of 4-bit graphs: backend, profile, folder of the graph, and the limit of anonymous memory as a factor of the
/// weights plus a constant.
const LOADED: &[(&str, &str, &str, f64, u64)] = &[
    ("ort", "onnxruntime", "onnx/onnxruntime", 1.4, 400 << 20),
    ("tract", "portable", "onnx", 1.4, 400 << 20),
    // custom operators read the mapped weights
    ("ort", "native", "onnx/native", 0.1, 150 << 20),
    ("tract", "native", "onnx/native", 0.1, 150 << 20),
];
/// 16 tokens with jetmoe-mini's tokenizer.
const PROMPT: &str = "In the beginning God created the heaven and the earth";

/// Time and memory of a command.
struct Usage {
    seconds: f64,
    /// Peak anonymous memory in bytes.
    anonymous: u64,
    /// Peak resident memory in bytes, including mapped files.
    resident: u64,
    /// Bytes that it made the disk read, up to its last 20 ms.
    read: u64,
}

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    setup::onnxruntime_library(workspace, steps)?;
    build_commands(workspace, steps)?;
    work(workspace, steps, arguments)
}

/// One layer, for CI.
pub(crate) fn small(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    build_commands(workspace, steps)?;
    work(workspace, steps, &Arguments { layers: 1, folder: None, memory_limit: None })
}

fn work(workspace: &Workspace, steps: &mut Steps, arguments: &Arguments) -> Result<()> {
    let layers = arguments.layers;
    let folder = arguments.folder.clone().unwrap_or_else(|| workspace.target.join("full-size"));
    if workspace.root.join(&folder).exists() {
        fs::remove_dir_all(workspace.root.join(&folder))
            .with_context(|| format!("cannot empty {}", folder.display()))?;
    }
    let (checkpoint, artifact) = (folder.join("checkpoint"), folder.join("artifact"));
    let jetmoe = |subcommand| CommandLine::new(workspace.binary("jetmoe")).arg(subcommand);
    let mut rows = Vec::new();
    let mut step = |title: String, command: CommandLine| -> Result<Usage> {
        let mut usage = None;
        steps.run_step(&title, &format!("$ {command}"), || {
            usage = Some(measure(&command, &workspace.root)?);
            Ok(())
        })?;
        let usage = usage.context("the step was not measured")?;
        rows.push(format!(
            "| {title} | {:.1} s | {} | {} |",
            usage.seconds,
            mebibytes(usage.anonymous),
            mebibytes(usage.resident)
        ));
        Ok(usage)
    };

    let synth = jetmoe("synth")
        .args(["--like", "jetmoe-8b", "--layers", &layers.to_string()])
        .args(["--tokenizer", "tests/fixtures/models/jetmoe-mini", "--output"])
        .arg(&checkpoint);
    step(format!("synth, {layers} layers"), synth)?;
    let is_wanted = |profile| arguments.memory_limit.is_none() || profile == "native";
    for (precision, profile) in EXPORTED.iter().filter(|(_, profile)| is_wanted(*profile)) {
        let export = CommandLine::new(workspace.binary("jetmoe-export"))
            .arg(&checkpoint)
            .arg("--output")
            .arg(&artifact)
            .args(["--precision", precision, "--profile", profile]);
        let usage = step(format!("export {precision}, {profile}"), export)?;
        ensure!(
            usage.anonymous <= EXPORT_LIMIT,
            "the export to {precision} took {}, and the limit is 1024 MiB",
            mebibytes(usage.anonymous)
        );
    }
    if let Some(limit) = arguments.memory_limit {
        let data = artifact.join("onnx/native/model_q4.onnx_data");
        let rows = limited::run(workspace, steps, &artifact, &data, limit)?;
        println!("\n{}\n{}", limited::COLUMNS, rows.join("\n"));
        return Ok(());
    }
    for (backend, profile, graphs, factor, constant) in LOADED {
        let weights = data_bytes(&workspace.root.join(&artifact).join(graphs), "model_q4.onnx")?;
        let run = jetmoe("run")
            .arg("--model")
            .arg(&artifact)
            .args(["--precision", "q4", "--profile", profile, "--backend", backend])
            .args(["--prompt", PROMPT, "--max-new-tokens", "1"]);
        let usage = step(format!("first token of 16, q4, {profile}, {backend}"), run)?;
        let allowed = (weights as f64 * factor) as u64 + constant;
        ensure!(
            usage.anonymous <= allowed,
            "{backend} took {} for the {profile} graph with {} of weights, and the limit is {}",
            mebibytes(usage.anonymous),
            mebibytes(weights),
            mebibytes(allowed)
        );
    }
    println!("\n| step | time | peak anonymous memory | with mapped files |\n| --- | ---: | ---: | ---: |");
    println!("{}", rows.join("\n"));
    Ok(())
}

fn mebibytes(bytes: u64) -> String {
    format!("{} MiB", bytes >> 20)
}

/// Runs a command and samples its memory, which is 0 on systems without `/proc`.
fn measure(command: &CommandLine, folder: &Path) -> Result<Usage> {
    let started = Instant::now();
    let mut child = command.start(folder)?;
    let process = PathBuf::from(format!("/proc/{}", child.id()));
    let mut usage = Usage { seconds: 0.0, anonymous: 0, resident: 0, read: 0 };
    let exit = loop {
        if let Ok(text) = fs::read_to_string(process.join("status")) {
            usage.anonymous = usage.anonymous.max(field(&text, "RssAnon:") << 10);
            usage.resident = usage.resident.max(field(&text, "VmHWM:") << 10);
        }
        if let Ok(text) = fs::read_to_string(process.join("io")) {
            usage.read = usage.read.max(field(&text, "read_bytes:"));
        }
        if let Some(exit) = child.try_wait()? {
            break exit;
        }
        sleep(Duration::from_millis(20));
    };
    if !exit.success() {
        bail!("{exit}");
    }
    usage.seconds = started.elapsed().as_secs_f64();
    Ok(usage)
}

/// A number in a file of `/proc/PID`; 0 if it is missing. Those in `status` are in KiB.
fn field(text: &str, name: &str) -> u64 {
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_and_absent_ones_are_0() {
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nRssAnon:\t1024 kB\n";
        assert_eq!(field(status, "VmHWM:"), 2048);
        assert_eq!(field(status, "RssAnon:"), 1024);
        assert_eq!(field(status, "RssFile:"), 0);
        assert_eq!(field("rchar: 5\nread_bytes: 4096\n", "read_bytes:"), 4096);
    }
}
