//! What is measured: a checkpoint of JetMoE-8B's widths with random weights, its exports, and the model of llama.cpp.

use std::path::Path;

use anyhow::{Context, Result};

use crate::command::{self, baseline, jetmoe};

/// Makes a checkpoint with jetmoe-mini's tokenizer, which serving and onnxruntime-genai need.
pub(crate) fn checkpoint(folder: &Path, layers: u16) -> Result<()> {
    let mut synth = jetmoe("jetmoe")?;
    synth.args(["synth", "--like", "jetmoe-8b", "--layers", &layers.to_string(), "--output"]).arg(folder);
    synth.args(["--tokenizer", "tests/fixtures/models/jetmoe-mini"]);
    command::run("make the checkpoint", &mut synth)
}

/// Adds a graph of a checkpoint to an artifact.
pub(crate) fn export(checkpoint: &Path, artifact: &Path, precision: &str, profile: &str) -> Result<()> {
    let mut export = jetmoe("jetmoe-export")?;
    export.arg(checkpoint).arg("--output").arg(artifact);
    export.args(["--precision", precision, "--profile", profile]);
    command::run(&format!("export {precision}, {profile}"), &mut export)
}

/// Writes a Mixtral that reads and computes per token what JetMoE does. llama.cpp's server needs one with a vocabulary.
pub(crate) fn gguf(file: &Path, layers: u16, with_vocabulary: bool) -> Result<()> {
    if let Some(folder) = file.parent() {
        std::fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
    }
    let mut write = baseline("llama_cpp.py");
    write.args(["--layers", &layers.to_string()]).args(with_vocabulary.then_some("--vocabulary"));
    command::run("write the model of llama.cpp", write.arg("--output").arg(file))
}
