//! The `jetmoe-export` command.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jetmoe_artifact::{OptionalOutput, Precision, Profile, Task};
use jetmoe_checkpoint::{Checkpoint, HubOptions, ModelSource};
use jetmoe_export::{ExportOptions, export};
use jetmoe_graph::Opset;

/// Export a JetMoE checkpoint as an ONNX artifact.
#[derive(Debug, Parser)]
#[command(name = "jetmoe-export", version)]
struct Arguments {
    model: String,
    #[arg(long)]
    output: PathBuf,
    #[arg(long)]
    task: Option<Task>,
    #[arg(long, default_value = "portable")]
    profile: Profile,
    #[arg(long, default_value = "f32")]
    precision: Precision,
    #[arg(long, default_value_t)]
    opset: Opset,
    #[arg(long, value_delimiter = ',')]
    outputs: Vec<OptionalOutput>,
    #[arg(long)]
    force: bool,
}

fn main() -> anyhow::Result<ExitCode> {
    let arguments = Arguments::parse();
    let folder = ModelSource::parse(&arguments.model)?.resolve(&HubOptions::default())?;
    let checkpoint = Checkpoint::open(folder)?;
    let exported = export(&checkpoint, &ExportOptions {
        source: arguments.model, output: arguments.output, task: arguments.task, precision: arguments.precision,
        profile: arguments.profile, opset: arguments.opset, optional_outputs: arguments.outputs.into_iter().collect(), force: arguments.force,
    })?;
    eprintln!("{exported:?}");
    Ok(ExitCode::SUCCESS)
}
