//! The `jetmoe-export` command.

mod hints;

use std::io::{self, IsTerminal};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use clap::{Parser, ValueEnum};
use jetmoe_artifact::{
    Artifact, CacheFormat, OptionalOutput, Precision, Profile, StorageOverride, Task, WeightPlan,
};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_conformance::{Comparison, VerificationReport, Verifier};
use jetmoe_console::{
    ExitStatus, StageBars, byte_bar, model_folder, note, note_settings, print, print_table, spinner,
    step_bar, verification_table,
};
use jetmoe_export::{
    Calibration, ExportOptions, Exported, Stage, abort_pending, export_with_progress, record_verification,
    weight_plan,
};
use jetmoe_graph::{Opset, Rounding};
use jetmoe_hub::{Content, ModelSource, snapshot_commit};
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
/// The artifact is a folder: onnx/model.onnx with its external data, the configuration and tokenizer files that other
/// ONNX clients read, and the manifest jetmoe.json.
///
/// Exit status: 0 if done, 1 if exported but verification found differences, 2 if not exported or not verified.
#[derive(Debug, Parser)]
#[command(
    name = "jetmoe-export",
    version,
    after_help = "Example:\n  jetmoe-export ./jetmoe-8b --output ./jetmoe-8b-onnx --verify"
)]
struct Arguments {
    /// Checkpoint folder, or hub id (owner/name).
    model: String,
    /// Folder of the artifact: new, empty, or an artifact of the same checkpoint and task.
    #[arg(long, value_name = "DIR")]
    output: PathBuf,
    /// Task: causal-lm, backbone or sequence-classification [default: the one that the checkpoint was trained for]
    #[arg(long, value_name = "TASK")]
    task: Option<Task>,
    /// Operators that the graph may use. portable: standard ones only. onnxruntime: also those of ONNX Runtime, with which
    /// quantized weights load three times as fast. gpu: for CUDA, without sizes that depend on data. native: also jetmoe's custom operators, for bf16, int8 and q4; no other
    /// client can run such a graph.
    #[arg(long, value_name = "PROFILE", default_value_t = Profile::Portable)]
    profile: Profile,
    /// How the key/value cache of a native graph is stored: f32, f16, or int8 with a scale per head and token [default: f32]
    #[arg(long, value_name = "FORMAT")]
    kv_cache: Option<CacheFormat>,
    /// Types of weights and arithmetic: f32, f16, bf16, int8, q4 (4-bit weights) or q4f16 (4-bit weights, arithmetic in
    /// float16). Experts, kv_proj and the head are quantized; routers and norms never are.
    #[arg(long, value_name = "PRECISION", default_value_t = Precision::F32)]
    precision: Precision,
    /// Number of weights that share a scale: 16, 32, 64 or 128 [default: 32]
    #[arg(long, value_name = "N", help_heading = QUANTIZATION)]
    group_size: Option<usize>,
    /// Give every group a zero point too: more exact and 2 to 3 % larger, but not every backend supports it.
    #[arg(long, help_heading = QUANTIZATION)]
    zero_points: bool,
    /// Store parts in another type: TYPE:PART with f32, f16, bf16, int8 or int4 and attention, kv_proj, mlp or lm_head;
    /// in one layer only, as in int8:layers.0.mlp.
    #[arg(long = "override", alias = "keep", value_name = "LIST", value_delimiter = ',', help_heading = QUANTIZATION)]
    overrides: Vec<StorageOverride>,
    /// How to choose scales: search minimizes the squared error, nearest uses the largest weight of the group [default:
    /// search]
    #[arg(long, value_name = "METHOD", help_heading = QUANTIZATION)]
    rounding: Option<RoundingArgument>,
    /// Calibrate 4-bit weights (GPTQ) with text like what the model will read. Plain text with blank lines between texts,
    /// or a .jsonl file with a field "text".
    #[arg(long, value_name = "FILE", help_heading = QUANTIZATION)]
    calibrate: Option<PathBuf>,
    /// Most tokens of the text to calibrate with.
    #[arg(
        long,
        value_name = "N",
        requires = "calibrate",
        default_value_t = Calibration::DEFAULT_TOKENS,
        help_heading = QUANTIZATION
    )]
    calibration_tokens: usize,
    /// Version of the standard operator set, 18 to 23. Other clients support up to 21.
    #[arg(long, value_name = "N", default_value_t)]
    opset: Opset,
    /// Outputs beyond the task's own: hidden-states, router-logits.
    #[arg(long, value_name = "LIST", value_delimiter = ',')]
    outputs: Vec<OptionalOutput>,
    /// Branch, tag or commit of a hub id.
    #[arg(long, value_name = "REVISION")]
    revision: Option<String>,
    /// Run the graph in every backend of this build, compare with the Candle reference, and record the result in the
    /// manifest.
    #[arg(long)]
    verify: bool,
    /// Write into a folder that holds something else. Another artifact in it is removed; other files stay.
    #[arg(long)]
    force: bool,
    /// Export weights that are infinite or NaN, such as those of an expert that is never selected.
    #[arg(long)]
    allow_non_finite: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    jetmoe_console::run(abort_pending, hints::hint, || export(arguments))
}

/// Refuses options of quantized weights where there are none.
fn check_quantization(arguments: &Arguments) -> anyhow::Result<()> {
    let is_quantized = arguments.precision.format().is_quantized()
        || arguments.overrides.iter().any(|found| found.format.is_quantized());
    let given = [
        ("--group-size", arguments.group_size.is_some()),
        ("--zero-points", arguments.zero_points),
        ("--rounding", arguments.rounding.is_some()),
    ];
    match given.into_iter().find(|(_, is_given)| *is_given) {
        Some((flag, _)) if !is_quantized => anyhow::bail!(
            "{flag} is for quantized weights, and {} stores none\n  leave it out, or choose --precision int8, q4 or q4f16",
            arguments.precision
        ),
        _ => Ok(()),
    }
}

/// Refuses a format of the cache where the operators determine it.
fn check_kv_cache(arguments: &Arguments) -> anyhow::Result<()> {
    match arguments.kv_cache {
        Some(format) if arguments.profile != Profile::Native => anyhow::bail!(
            "--kv-cache {format} is for the profile native, and this one is {}\n  leave it out, or choose --profile native",
            arguments.profile
        ),
        _ => Ok(()),
    }
}

fn export(arguments: Arguments) -> anyhow::Result<ExitStatus> {
    check_quantization(&arguments)?;
    check_kv_cache(&arguments)?;
    let source = ModelSource::parse(&arguments.model)?;
    let folder = model_folder(&source, arguments.revision.clone(), Content::Checkpoint)?;
    let commit = match &source {
        ModelSource::Folder(_) => None,
        ModelSource::Hub(_) => snapshot_commit(&folder).map(str::to_owned),
    };
    let checkpoint = Checkpoint::open(folder)?;
    let default = weight_plan(&checkpoint);
    let weights = WeightPlan {
        group_size: arguments.group_size.unwrap_or(default.group_size),
        zero_points: arguments.zero_points || default.zero_points,
        overrides: arguments.overrides,
    };
    let bars = StageBars::default();
    let exported = export_with_progress(
        &checkpoint,
        &ExportOptions {
            source: source.permanent_name(),
            revision: commit,
            output: arguments.output,
            task: arguments.task,
            precision: arguments.precision,
            profile: arguments.profile,
            opset: arguments.opset,
            optional_outputs: arguments.outputs.into_iter().collect(),
            weights,
            rounding: arguments.rounding.map_or(Rounding::Search, Rounding::from),
            kv_cache: arguments.kv_cache.unwrap_or(CacheFormat::F32),
            calibration: arguments
                .calibrate
                .map(|text| Calibration { text, max_tokens: arguments.calibration_tokens }),
            force: arguments.force,
            allow_non_finite: arguments.allow_non_finite,
        },
        &|progress| {
            let new_bar: fn(_, _) -> _ =
                if progress.stage == Stage::Calibrating { step_bar } else { byte_bar };
            bars.advance(progress.stage.name(), new_bar, progress.delta, progress.total);
        },
    )?;
    drop(bars);
    let record = &exported.record;
    let graph = exported.folder.join(&record.graph.path);
    print(&format!("{} ({}, {}, opset {})\n", graph.display(), record.task, record.precision, record.opset))?;
    if let Some(first) = exported.quantized_again.first() {
        note(&format!(
            "{} tensors are quantized again, for example {first}: the graph stores them in another format or other groups\n  \
             --override int4:PART stores a part with 4 bits",
            exported.quantized_again.len()
        ));
    }
    if !exported.kept.is_empty() {
        note(&format!(
            "{} kept: edited after the last export\n  remove a file and export again to get it as the exporter writes it",
            exported.kept.join(", ")
        ));
    }
    if let Some(calibration) = &record.calibration
        && !calibration.uncalibrated.is_empty()
    {
        note(&format!(
            "no token of the calibration text was routed to {}; they are quantized without calibration\n  \
             use more text, or more varied text",
            calibration.uncalibrated.join(", ")
        ));
    }
    note_settings(&exported.settings, checkpoint.config());
    if !arguments.verify {
        return Ok(ExitStatus::Success);
    }
    let report = verify(&checkpoint, &exported)
        .with_context(|| format!("{} was exported but not verified", exported.folder.display()))?;
    print_table(&verification_table(&report, io::stdout().is_terminal()))?;
    Ok(if report.passed { ExitStatus::Success } else { ExitStatus::CheckFailed })
}

/// Compares every backend of this build that can run the graph with the reference on the graph's weights, and records the
/// results in the manifest.
fn verify(checkpoint: &Checkpoint, exported: &Exported) -> anyhow::Result<VerificationReport> {
    let artifact = Artifact::open(&exported.folder)?;
    artifact.check_digests()?;
    let record = &exported.record;
    let spinner = spinner("verifying");
    let options = LoadOptions::default()
        .with_precision(record.precision)
        .with_profile(record.profile)
        .with_int8_activations(false);
    let mut verifier = Verifier::new(&artifact, Some(checkpoint), options.clone(), None);
    let comparisons = backends()
        .iter()
        .filter(|backend| backend.supports(record, &options).is_yes())
        .map(|backend| Ok(verifier.verify(backend.name().parse()?)?))
        .collect::<anyhow::Result<Vec<_>>>()?;
    drop(spinner);
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
