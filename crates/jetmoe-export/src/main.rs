//! The `jetmoe-export` command.

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use jetmoe_artifact::{Artifact, Kept, OptionalOutput, Precision, Profile, Task, WeightPlan};
use jetmoe_checkpoint::{Checkpoint, HubOptions, ModelSource};
use jetmoe_conformance::{Comparison, VerificationReport, Verifier};
use jetmoe_export::console::{self, ExitStatus, note, print, print_table};
use jetmoe_export::{Calibration, ExportOptions, Exported, export, record_verification, spinner};
use jetmoe_graph::{Opset, Rounding};
use jetmoe_rt::{LoadOptions, backends};

const QUANTIZATION: &str = "Quantization";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum RoundingArgument {
    Search,
    Nearest,
}

impl From<RoundingArgument> for Rounding {
    fn from(argument: RoundingArgument) -> Self {
        match argument {
            RoundingArgument::Search => Rounding::Search,
            RoundingArgument::Nearest => Rounding::Nearest,
        }
    }
}

/// Export a JetMoE checkpoint as an ONNX artifact.
///
/// The artifact is a folder: onnx/model.onnx with its external data, configuration and tokenizer as other ONNX clients
/// read them, and jetmoe.json, the manifest.
///
/// Exit status: 0 done, 1 exported but verification found differences, 2 not exported or not verified.
#[derive(Debug, Parser)]
#[command(
    name = "jetmoe-export",
    version,
    after_help = "Example:\n  jetmoe-export ./jetmoe-8b --output ./jetmoe-8b-onnx --verify"
)]
struct Arguments {
    /// Checkpoint folder, or hub id (owner/name).
    model: String,
    /// The artifact's folder: new, empty, or an artifact of the same checkpoint and task.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// causal-lm, backbone or sequence-classification; by default what the checkpoint was trained for.
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,
    /// Which operators the graph may use: portable, only standard ones; onnxruntime, also ONNX Runtime's own, with which
    /// quantized weights load three times as fast; native, also those that jetmoe itself brings, for bf16, int8 and q4:
    /// no other client can run such a graph.
    #[arg(long, value_name = "PROFILE", default_value_t = Profile::Portable)]
    profile: Profile,
    /// Element types of weights and arithmetic: f32, f16, bf16, int8, q4 (4-bit weights), q4f16 (4-bit weights,
    /// arithmetic in float16). Attention and MLP experts, kv_proj and the head are quantized, routers and norms never.
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Weights that share a scale: 16, 32, 64 or 128.
    #[arg(long, value_name = "N", default_value_t = WeightPlan::default().group_size, help_heading = QUANTIZATION)]
    group_size: usize,
    /// Give every group a zero point too: more exact, 2 to 3 % larger, and not for every runtime.
    #[arg(long, help_heading = QUANTIZATION)]
    zero_points: bool,
    /// Store parts differently: TYPE:PART with f32, f16, bf16, int8 or int4 and attention, kv_proj, mlp or lm_head, in
    /// one layer as in int8:layers.0.mlp.
    #[arg(long, value_name = "LIST", value_delimiter = ',', help_heading = QUANTIZATION)]
    keep: Vec<Kept>,
    /// How scales are chosen: search, for the least squared error, or nearest, by the largest weight of the group.
    #[arg(long, value_name = "METHOD", default_value = "search", help_heading = QUANTIZATION)]
    rounding: RoundingArgument,
    /// Calibrate 4-bit weights with text like what the model will read: they are rounded so that what the products make
    /// of this text changes least. Plain text with blank lines between texts, or a .jsonl file with a field "text".
    #[arg(long, value_name = "FILE", help_heading = QUANTIZATION)]
    calibrate: Option<PathBuf>,
    /// Tokens of the text to calibrate with, at most.
    #[arg(long, value_name = "N", default_value_t = Calibration::DEFAULT_TOKENS, help_heading = QUANTIZATION)]
    calibration_tokens: usize,
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
    let arguments = Arguments::parse();
    console::start_logging();
    let status = console::watch_interrupt().map_err(anyhow::Error::from).and_then(|()| run(arguments));
    status.unwrap_or_else(|error| ExitStatus::of_error(error.as_ref())).into()
}

fn run(arguments: Arguments) -> anyhow::Result<ExitStatus> {
    let source = ModelSource::parse(&arguments.model)?;
    let options = HubOptions { revision: arguments.revision, progress: true, ..HubOptions::default() };
    let folder = match &source {
        ModelSource::Folder(_) => source.resolve(&options)?,
        // a folder's name with a mistake in it looks like a hub id
        ModelSource::Hub(id) => {
            source.resolve(&options).with_context(|| format!("there is no folder {id} here"))?
        }
    };
    let checkpoint = Checkpoint::open(folder)?;
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
            weights: WeightPlan {
                group_size: arguments.group_size,
                zero_points: arguments.zero_points,
                kept: arguments.keep,
            },
            rounding: arguments.rounding.into(),
            calibration: arguments
                .calibrate
                .map(|text| Calibration { text, max_tokens: arguments.calibration_tokens }),
            force: arguments.force,
        },
    )?;
    let record = &exported.record;
    let graph = exported.folder.join(&record.graph.path);
    print(&format!("{} ({}, {}, opset {})\n", graph.display(), record.task, record.precision, record.opset))?;
    if let Some(calibration) = &record.calibration
        && !calibration.unreached.is_empty()
    {
        note(&unreached(&calibration.unreached));
    }
    if !arguments.verify {
        return Ok(ExitStatus::Success);
    }
    let report = verify(&checkpoint, &exported)
        .with_context(|| format!("{} was exported but not verified", exported.folder.display()))?;
    print_table(&report.to_table(io::stdout().is_terminal()))?;
    Ok(if report.passed { ExitStatus::Success } else { ExitStatus::CheckFailed })
}

/// What to say of experts that were quantized without calibration.
fn unreached(experts: &[String]) -> String {
    format!(
        "no token of the calibration text reached {}; they are quantized without it\n  \
             more text, or more varied text, may reach them",
        experts.join(", ")
    )
}

/// Compares every runtime of this build that can run the graph with the reference on the graph's own weights, and keeps
/// the results in the manifest.
fn verify(checkpoint: &Checkpoint, exported: &Exported) -> anyhow::Result<VerificationReport> {
    let artifact = Artifact::open(&exported.folder)?;
    artifact.check_digests()?;
    let record = &exported.record;
    let spinner = spinner("verifying");
    let options = LoadOptions {
        precision: Some(record.precision),
        profile: Some(record.profile),
        int8_activations: false,
        ..LoadOptions::default()
    };
    let mut verifier = Verifier::new(&artifact, Some(checkpoint), options.clone(), None);
    let comparisons = backends()
        .iter()
        .filter(|backend| backend.supports(record, &options).is_yes())
        .map(|backend| Ok(verifier.verify(backend.name().parse()?)?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    spinner.finish_and_clear();
    anyhow::ensure!(
        !comparisons.is_empty(),
        "this build has no backend that can verify a {} graph of the {} profile; build with `ort` or `tract`",
        record.precision,
        record.profile
    );
    let records = comparisons.iter().map(Comparison::to_record).collect();
    record_verification(&exported.folder, record, records)?;
    Ok(VerificationReport::new(exported.folder.display().to_string(), verifier.expected_by(), comparisons))
}
