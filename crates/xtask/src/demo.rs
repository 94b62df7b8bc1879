//! `demo`: from a checkpoint to generated text, with the commands that a user would type.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::setup;
use crate::step::{CommandLine, Steps};
use crate::workspace::Workspace;

/// Folder of the trained checkpoints, relative to the root.
const MODELS: &str = "tests/fixtures/models";

pub(crate) fn run(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    println!(
        "From a checkpoint to text in 5 steps: build the commands, export, generate with two backends, compare.\n\
         The first build takes about 5 minutes on two cores and half of that on four. Everything else takes seconds."
    );
    setup::onnxruntime_library(workspace, steps)?;
    steps.announce(5);
    let build = CommandLine::cargo(["build", "--workspace", "--bins"]).args(FAST_BUILD);
    steps.run("build the commands, without the download of models", &workspace.root, &build)?;
    with_commands(workspace, steps)
}

/// All steps after the build of the commands.
pub(crate) fn with_commands(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    let artifact = export(workspace, steps, "jetmoe-mini")?;
    let jetmoe = |subcommand| {
        CommandLine::new(workspace.binary("jetmoe")).args([subcommand, "--model"]).arg(&artifact)
    };
    let golden = Path::new(MODELS).join("jetmoe-mini/golden.safetensors");
    let verify = jetmoe("verify").arg("--golden").arg(golden).args(["--backend", "ort,tract,reference"]);
    let generate = |backend| {
        jetmoe("run")
            .args(["--backend", backend, "--echo", "--max-new-tokens", "48"])
            .input("In the beginning")
    };

    steps.run("generate with ONNX Runtime", &workspace.root, &generate("ort"))?;
    steps.run("generate with tract", &workspace.root, &generate("tract"))?;
    steps.run("compare every backend with transformers", &workspace.root, &verify)?;
    let inspect = CommandLine::new(workspace.binary("jetmoe")).arg("inspect").arg(&artifact);
    println!(
        "\n{}\n\nThe artifact is in {}. Inspect it:\n    {inspect}",
        steps.summary(),
        artifact.display()
    );
    Ok(())
}

/// The default build without the download from the hub, and with less optimization.
const FAST_BUILD: [&str; 5] = ["--no-default-features", "--features", "demo", "--config", ".cargo/demo.toml"];

/// Exports one of the trained checkpoints. Returns the artifact, relative to the root.
pub(crate) fn export(workspace: &Workspace, steps: &mut Steps, model: &str) -> Result<PathBuf> {
    let artifact = workspace.target.join("demo").join(model);
    let export = export_command(workspace, model, &artifact).args([
        "--outputs",
        "hidden-states,router-logits",
        "--verify",
    ]);
    steps.run(&format!("export {model}"), &workspace.root, &export)?;
    Ok(artifact)
}

/// Exports one of the trained checkpoints to a folder, in place of what is there.
pub(crate) fn export_command(workspace: &Workspace, model: &str, artifact: &Path) -> CommandLine {
    CommandLine::new(workspace.binary("jetmoe-export"))
        .arg(Path::new(MODELS).join(model))
        .arg("--output")
        .arg(artifact)
        .arg("--force")
}

/// Builds the commands. `--workspace`, because with another selection of packages cargo builds the dependencies again
/// with other features.
pub(crate) fn build_commands(workspace: &Workspace, steps: &mut Steps) -> Result<()> {
    steps.run("build the commands", &workspace.root, &CommandLine::cargo(["build", "--workspace", "--bins"]))
}
