//! The `jetmoe-export` command.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use jetmoe_artifact::{Artifact, OptionalOutput, Precision, Profile, Task};
use jetmoe_checkpoint::{Checkpoint, HubOptions, ModelSource};
use jetmoe_conformance::{
    Backend, Comparison, Expectation, Tolerance, VerificationReport, compare, load, reference_model,
};
use jetmoe_export::{ExportOptions, Exported, export, record_verification, spinner};
use jetmoe_graph::Opset;
use jetmoe_rt::LoadOptions;
use tracing_subscriber::EnvFilter;

/// Export a JetMoE checkpoint as an ONNX artifact.
///
/// The artifact is a folder: onnx/model.onnx with its external data, configuration and tokenizer as other ONNX clients
/// read them, and jetmoe.json, the manifest.
///
/// Exit status: 0 done, 1 exported but verification found differences, 2 not exported.
#[derive(Debug, Parser)]
#[command(name = "jetmoe-export", version)]
struct Arguments {
    /// Checkpoint folder, or hub id (owner/name).
    model: String,
    /// The artifact's folder: new, empty, or an artifact of the same checkpoint and task.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// causal-lm, backbone or sequence-classification; by default what the checkpoint was trained for.
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,
    /// Which operators the graph may use: portable, only standard ones.
    #[arg(long, value_name = "PROFILE", default_value_t = Profile::Portable)]
    profile: Profile,
    /// Element types of weights and arithmetic: f32.
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Version of the standard operator set, 18 to 23. Other clients read up to 21.
    #[arg(long, value_name = "N", default_value_t)]
    opset: Opset,
    /// Outputs beyond the task's own: hidden-states, router-logits.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    outputs: Vec<OptionalOutput>,
    /// Branch, tag or commit of a hub id.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Run the graph in every runtime of this build, compare with the Candle reference, and keep the result in the
    /// manifest.
    #[arg(long)]
    verify: bool,
    /// Write into a folder that holds something else; another artifact there is removed, other files stay.
    #[arg(long)]
    force: bool,
}

fn main() -> ExitCode {
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("warn,ort=error,tract=error"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .without_time()
        .with_target(false)
        .init();
    match run(Arguments::parse()) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            // standard error is the last resort; if it is gone, there is nobody to tell
            let _ = writeln!(io::stderr(), "error: {error:#}");
            ExitCode::from(2)
        }
    }
}

/// Exports, and verifies where asked to; false if verification found differences.
fn run(arguments: Arguments) -> anyhow::Result<bool> {
    let source = ModelSource::parse(&arguments.model)?;
    let options = HubOptions { revision: arguments.revision, progress: true, ..HubOptions::default() };
    let checkpoint = Checkpoint::open(source.resolve(&options)?)?;
    let exported = export(
        &checkpoint,
        &ExportOptions {
            source: source.permanent_name(),
            output: arguments.output,
            task: arguments.task,
            precision: arguments.precision,
            profile: arguments.profile,
            opset: arguments.opset,
            optional_outputs: arguments.outputs.into_iter().collect(),
            force: arguments.force,
        },
    )?;
    let graph = exported.folder.join(&exported.record.graph.path);
    writeln!(
        io::stdout(),
        "{} ({}, {}, opset {})",
        graph.display(),
        exported.record.task,
        exported.record.precision,
        exported.record.opset
    )?;
    if !arguments.verify {
        return Ok(true);
    }
    let report = verify(&checkpoint, &exported)?;
    write!(io::stdout(), "{}", report.to_table(io::stdout().is_terminal()))?;
    Ok(report.passed)
}

/// Compares every runtime of this build with the reference, and keeps the results in the manifest.
fn verify(checkpoint: &Checkpoint, exported: &Exported) -> anyhow::Result<VerificationReport> {
    let artifact = Artifact::open(&exported.folder)?;
    artifact.check_digests()?;
    let spinner = spinner("verifying");
    let expectation = Expectation::from_model(&reference_model(checkpoint, exported.record.task)?)?;
    let options = LoadOptions {
        precision: exported.record.precision,
        profile: exported.record.profile,
        ..LoadOptions::default()
    };
    let comparisons = Backend::built_in()
        .into_iter()
        .filter(|backend| *backend != Backend::Reference)
        .map(|backend| {
            let model = load(backend, &artifact, None, &options)?;
            Ok(compare(backend, &model, &expectation, Tolerance::Float32)?)
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    spinner.finish_and_clear();
    anyhow::ensure!(
        !comparisons.is_empty(),
        "this build has no runtime to verify with; build with `ort` or `tract`"
    );
    let records = comparisons.iter().map(Comparison::to_record).collect();
    record_verification(&exported.folder, &exported.record, records)?;
    Ok(VerificationReport::new(exported.folder.display().to_string(), expectation.source, comparisons))
}
