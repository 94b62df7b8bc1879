//! The export pipeline.

use std::collections::BTreeSet;
use std::io::Write;
use std::path::{Path, PathBuf};

use jetmoe_artifact::{
    ArtifactFile, CacheFormat, CalibrationRecord, CheckpointRecord, GraphRecord, MANIFEST_SCHEMA, Manifest,
    OptionalOutput, Precision, Profile, Task, VerificationRecord, WeightPlan, names,
};
use jetmoe_checkpoint::{Checkpoint, Digest, GenerationConfig};
use jetmoe_graph::{Graph, GraphOptions, Opset, Quantizer, Rounding, WrittenGraph};

use crate::calibrated::{Calibrated, check_precision};
use crate::calibration::{Calibration, CalibrationText};
use crate::client_files::{ClientFile, client_files};
use crate::output::OutputFolder;
use crate::progress::{OnProgress, Progress, Stage};
use crate::taken_over::TakenOver;
use crate::{Error, Result};

/// Options of an export.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Where the checkpoint came from, for the manifest: a folder or a hub id.
    pub source: String,
    /// Commit of a hub id, for the manifest.
    pub revision: Option<String>,
    /// The artifact's folder.
    pub output: PathBuf,
    /// Task of the graph. Default: the task that the checkpoint was trained for.
    pub task: Option<Task>,
    /// Element types of weights and arithmetic.
    pub precision: Precision,
    /// Operators that the graph may use.
    pub profile: Profile,
    /// Version of the standard operator set.
    pub opset: Opset,
    /// Outputs beyond the task's own.
    pub optional_outputs: BTreeSet<OptionalOutput>,
    /// How the quantized weights are stored.
    pub weights: WeightPlan,
    /// How the scales of quantized weights are chosen.
    pub rounding: Rounding,
    /// How a graph of the profile `native` stores its key/value cache. Default: float32.
    pub kv_cache: CacheFormat,
    /// Text that calibrates 4-bit weights. Default: none.
    pub calibration: Option<Calibration>,
    /// Write into a folder that holds something else. Default: false.
    pub force: bool,
    /// Export weights that are infinite or NaN. Quantized weights never are. Default: false.
    pub allow_non_finite: bool,
}

impl ExportOptions {
    /// Options with the defaults: the task of the checkpoint, float32, portable, without optional outputs.
    pub fn new(source: impl Into<String>, output: impl Into<PathBuf>) -> Self {
        ExportOptions {
            source: source.into(),
            revision: None,
            output: output.into(),
            task: None,
            precision: Precision::F32,
            profile: Profile::Portable,
            opset: Opset::default(),
            optional_outputs: BTreeSet::new(),
            weights: WeightPlan::default(),
            rounding: Rounding::Search,
            kv_cache: CacheFormat::F32,
            calibration: None,
            force: false,
            allow_non_finite: false,
        }
    }
}

/// A completed export.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The artifact's folder.
    pub folder: PathBuf,
    /// The graph's entry in the manifest.
    pub record: GraphRecord,
    /// Configuration and tokenizer files that stayed, because a user edited them after an earlier export.
    pub kept: Vec<String>,
    /// Tensors of a quantized checkpoint that the graph quantizes in another way, so that their codes were not taken over.
    pub quantized_again: Vec<String>,
    /// The settings for generation that the graph follows, see [`Task::generation_config`].
    pub settings: GenerationConfig,
}

/// Exports a checkpoint.
///
/// # Errors
/// The checkpoint has no head for the task, its settings for generation cannot be followed, the calibration text is unusable, the
/// output folder holds something else, or the file system refuses. A failed export leaves the folder as it was; if it failed while replacing files, the folder
/// holds no manifest and so no artifact.
pub fn export(checkpoint: &Checkpoint, options: &ExportOptions) -> Result<Exported> {
    export_with_progress(checkpoint, options, &|_| ())
}

/// As [`export`], calling back as it advances.
///
/// # Errors
/// As [`export`].
pub fn export_with_progress(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    on_progress: OnProgress<'_>,
) -> Result<Exported> {
    let config = checkpoint.config();
    let task = options.task.unwrap_or_else(|| Task::of_architecture(config.architecture));
    check_head(checkpoint, task)?;
    OutputFolder::check(&options.output, checkpoint.folder(), task, options.force)?;
    let graph_options = GraphOptions {
        task,
        precision: options.precision,
        profile: options.profile,
        opset: options.opset,
        optional_outputs: options.optional_outputs.clone(),
        weights: options.weights.clone(),
        kv_cache: options.kv_cache,
    };
    let graph = jetmoe_graph::build(config, &graph_options)?;
    graph.check_weights(checkpoint)?;
    let settings = task.generation_config(checkpoint.folder(), config)?;

    let text = match &options.calibration {
        None => None,
        Some(calibration) => {
            check_precision(&graph, options.precision)?;
            Some(calibration.read(checkpoint)?)
        }
    };

    if !options.allow_non_finite {
        checkpoint.check_finite()?;
    }
    let total = checkpoint.tensors().size_in_bytes();
    let digest = checkpoint.digest(&|delta| on_progress(Progress { stage: Stage::Hashing, delta, total }))?;

    OutputFolder::prepare(&options.output, digest, task, options.force)
        .and_then(|output| {
            let source = Source { checkpoint, settings: &settings, digest };
            write_artifact(source, options, &graph, text.as_ref(), output, on_progress)
        })
        .map_err(|error| error.or_no_space(&options.output, graph.weight_bytes()))
}

/// Records a verification of a graph, one record per backend, in the manifest of an artifact.
///
/// # Errors
/// The manifest cannot be read or written.
pub fn record_verification(
    folder: &Path,
    record: &GraphRecord,
    verification: Vec<VerificationRecord>,
) -> Result<()> {
    let mut manifest = Manifest::read(folder)?;
    for graph in &mut manifest.graphs {
        if graph.precision == record.precision && graph.profile == record.profile {
            graph.verification.clone_from(&verification);
        }
    }
    Ok(manifest.write(folder)?)
}

/// What an artifact is made from.
#[derive(Clone, Copy)]
struct Source<'a> {
    checkpoint: &'a Checkpoint,
    settings: &'a GenerationConfig,
    digest: Digest,
}

fn write_artifact(
    source: Source<'_>,
    options: &ExportOptions,
    graph: &Graph,
    text: Option<&CalibrationText>,
    mut output: OutputFolder,
    on_progress: OnProgress<'_>,
) -> Result<Exported> {
    let Source { checkpoint, settings, digest } = source;
    let graph_file = names::graph_file(graph.profile, graph.precision);
    let data_file = names::data_file(&graph_file);
    // created before the graph, which refers to it
    let (data, graph_output) = (output.create(&data_file)?, output.create(&graph_file)?);
    let calibrated = text.map(|text| {
        Calibrated::new(checkpoint, graph, text, options.rounding, output.staging(), on_progress)
    });
    let calibrated = calibrated.transpose()?;
    let quantizer: &dyn Quantizer = match &calibrated {
        Some(calibrated) => calibrated,
        None => &options.rounding,
    };
    let quantizer = TakenOver::new(checkpoint, quantizer);
    let total = graph.weight_bytes();
    let written = jetmoe_graph::write_to(graph, checkpoint, &quantizer, graph_output, data, &mut |delta| {
        on_progress(Progress { stage: Stage::Writing, delta, total });
    })?;
    let mut record = graph_record(graph, options, graph_file, data_file, &written);
    record.calibration = text.zip(calibrated.as_ref()).map(|(text, calibrated)| CalibrationRecord {
        text_sha256: text.digest,
        tokens: text.tokens(),
        uncalibrated: calibrated.uncalibrated_experts(graph, checkpoint.config()),
    });

    let mut graphs = output.existing().map(|manifest| manifest.graphs.clone()).unwrap_or_default();
    graphs.retain(|other| (other.precision, other.profile) != (record.precision, record.profile));
    let bytes = |record: &GraphRecord| (record.data.size, record.data.sha256);
    for other in graphs.iter().filter(|other| bytes(other) == bytes(&record)) {
        output.share(&record.data.path, &other.data.path)?;
    }
    graphs.push(record.clone());
    let mut manifest = Manifest {
        schema_version: MANIFEST_SCHEMA,
        tool_version: env!("CARGO_PKG_VERSION").to_owned(),
        checkpoint: CheckpointRecord {
            source: options.source.clone(),
            revision: options.revision.clone(),
            digest,
        },
        files: Vec::new(),
        graphs,
    };
    let files = client_files(checkpoint, settings, &manifest.graphs)?;
    let mut kept = Vec::new();
    manifest.files = files
        .iter()
        .map(|file| write_client_file(&mut output, file, &mut kept))
        .collect::<Result<Vec<_>>>()?;
    output.commit(&manifest)?;
    let quantized_again = quantizer.quantized_again();
    let settings = settings.clone();
    Ok(Exported { folder: options.output.clone(), record, kept, quantized_again, settings })
}

fn graph_record(
    graph: &Graph,
    options: &ExportOptions,
    graph_file: String,
    data_file: String,
    written: &WrittenGraph,
) -> GraphRecord {
    GraphRecord {
        task: graph.task,
        precision: graph.precision,
        profile: graph.profile,
        opset: graph.opset.version(),
        optional_outputs: options.optional_outputs.clone(),
        weights: (options.precision.format().is_quantized() || !options.weights.overrides.is_empty())
            .then(|| options.weights.clone()),
        kv_cache: graph.kv_cache,
        stored: graph.bytes_by_format(),
        calibration: None,
        graph: written_file(graph_file, written.graph_size, written.graph_sha256),
        data: written_file(data_file, written.data_size, written.data_sha256),
        verification: Vec::new(),
    }
}

fn written_file(path: String, size: u64, sha256: Digest) -> ArtifactFile {
    ArtifactFile { path, size, sha256, accepted: false }
}

/// Writes a file, unless the folder holds one that a user edited or added. Such a file stays, and its entry in the
/// manifest too, so that it is still known to be edited.
fn write_client_file(
    output: &mut OutputFolder,
    file: &ClientFile,
    kept: &mut Vec<String>,
) -> Result<ArtifactFile> {
    let generated = ArtifactFile::of_content(file.name.clone(), &file.content);
    if let Some(listed) = output.edited(&generated)? {
        kept.push(file.name.clone());
        return Ok(listed);
    }
    let mut target = output.create(&file.name)?;
    let path = target.path();
    target.write_all(&file.content).and_then(|()| target.commit()).map_err(|source| Error::Io {
        action: "write",
        path,
        source,
    })?;
    Ok(generated)
}

/// Refuses a task whose head the checkpoint's file lacks, whatever its architecture is called. Every checkpoint has the
/// backbone; with tied embeddings it has the language-model head too.
fn check_head(checkpoint: &Checkpoint, task: Task) -> Result<()> {
    let config = checkpoint.config();
    let can = |task| match task {
        Task::Backbone => true,
        Task::CausalLm => checkpoint.has_language_model_head(),
        Task::SequenceClassification => checkpoint.has_classification_head(),
    };
    if can(task) {
        return Ok(());
    }
    let possible = Task::ALL.iter().filter(|task| can(**task)).map(Task::to_string).collect();
    Err(Error::NoHead { trained: Task::of_architecture(config.architecture), task, possible })
}
