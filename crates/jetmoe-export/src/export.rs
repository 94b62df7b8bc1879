use std::collections::BTreeSet;
use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};

use jetmoe_artifact::{
    ArtifactFile, CalibrationRecord, CheckpointRecord, GraphRecord, MANIFEST_SCHEMA, Manifest,
    OptionalOutput, Precision, Profile, Task, VerificationRecord, WeightPlan, names,
};
use jetmoe_checkpoint::{Architecture, Checkpoint, Digest, ModelConfig};
use jetmoe_graph::{Graph, GraphOptions, Opset, Quantizer, Rounding, WrittenGraph};

use crate::calibrated::{Calibrated, check_precision};
use crate::calibration::{Calibration, CalibrationText};
use crate::client_files::{ClientFile, client_files};
use crate::output::OutputFolder;
use crate::progress::byte_bar;
use crate::{Error, Result};

/// What to export, and how.
#[derive(Debug, Clone)]
pub struct ExportOptions {
    /// Where the checkpoint came from, for the manifest: a folder or a hub id.
    pub source: String,
    /// The artifact's folder.
    pub output: PathBuf,
    /// What the graph computes; what the checkpoint was trained for if `None`.
    pub task: Option<Task>,
    /// Element types of weights and arithmetic.
    pub precision: Precision,
    /// Operators the graph may use.
    pub profile: Profile,
    /// Version of the standard operator set.
    pub opset: Opset,
    /// Outputs beyond the task's own.
    pub optional_outputs: BTreeSet<OptionalOutput>,
    /// How the products' weights are stored.
    pub weights: WeightPlan,
    /// How the scales of quantized weights are chosen.
    pub rounding: Rounding,
    /// What 4-bit weights are calibrated with; each is rounded by itself if `None`.
    pub calibration: Option<Calibration>,
    /// Whether to write into a folder that holds something else.
    pub force: bool,
}

impl ExportOptions {
    /// The checkpoint's own task in float32, portable, at the default operator set, without optional outputs.
    pub fn new(source: impl Into<String>, output: impl Into<PathBuf>) -> Self {
        ExportOptions {
            source: source.into(),
            output: output.into(),
            task: None,
            precision: Precision::F32,
            profile: Profile::Portable,
            opset: Opset::default(),
            optional_outputs: BTreeSet::new(),
            weights: WeightPlan::default(),
            rounding: Rounding::Search,
            calibration: None,
            force: false,
        }
    }
}

/// What an export has made.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The artifact's folder.
    pub folder: PathBuf,
    /// The graph's entry in the manifest.
    pub record: GraphRecord,
}

/// Exports a checkpoint. Progress is drawn on standard error where that is a terminal.
///
/// # Errors
/// A task the checkpoint has no head for, a calibration text that cannot be used, an output folder in use, or what the
/// file system refuses. A failed export
/// leaves the folder as it was; where it failed while replacing files, nothing that looks like an artifact.
pub fn export(checkpoint: &Checkpoint, options: &ExportOptions) -> Result<Exported> {
    let config = checkpoint.config();
    let task = options.task.unwrap_or_else(|| Task::of_architecture(config.architecture));
    check_head(config, task)?;
    OutputFolder::check(&options.output, checkpoint.folder(), task, options.force)?;
    let graph_options = GraphOptions {
        task,
        precision: options.precision,
        profile: options.profile,
        opset: options.opset,
        optional_outputs: options.optional_outputs.clone(),
        weights: options.weights.clone(),
    };
    let graph = jetmoe_graph::build(config, &graph_options)?;
    graph.check_weights(checkpoint)?;

    let text = match &options.calibration {
        None => None,
        Some(calibration) => {
            check_precision(&graph, options.precision)?;
            Some(calibration.read(checkpoint)?)
        }
    };

    let bar = byte_bar("hashing", checkpoint.tensors().size_in_bytes());
    let digest = checkpoint.digest(&|bytes| bar.inc(bytes))?;
    bar.finish_and_clear();

    OutputFolder::prepare(&options.output, digest, task, options.force)
        .and_then(|output| write_artifact(checkpoint, options, &graph, text.as_ref(), digest, output))
        .map_err(|error| error.or_no_space(&options.output, graph.weight_bytes()))
}

/// Writes what a verification found, one record per backend, into the manifest of an artifact.
///
/// # Errors
/// A manifest that cannot be read or written, or that lost the graph meanwhile.
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

fn write_artifact(
    checkpoint: &Checkpoint,
    options: &ExportOptions,
    graph: &Graph,
    text: Option<&CalibrationText>,
    digest: Digest,
    mut output: OutputFolder,
) -> Result<Exported> {
    let graph_file = names::graph_file(graph.profile, graph.precision);
    let data_file = names::data_file(&graph_file);
    // the graph names the data, so the data comes first
    let (data_path, graph_path) = (output.file(&data_file)?, output.file(&graph_file)?);
    let calibrated = text.map(|text| {
        let folder = data_path.parent().unwrap_or(&options.output);
        Calibrated::new(checkpoint, graph, text, options.rounding, folder)
    });
    let calibrated = calibrated.transpose()?;
    let quantizer: &dyn Quantizer = match &calibrated {
        Some(calibrated) => calibrated,
        None => &options.rounding,
    };
    let bar = byte_bar("writing", graph.weight_bytes());
    let written = jetmoe_graph::write(graph, checkpoint, quantizer, &graph_path, &data_path, &mut |bytes| {
        bar.inc(bytes);
    })?;
    bar.finish_and_clear();
    let mut record = graph_record(graph, options, graph_file, data_file, &written);
    record.calibration = text.zip(calibrated.as_ref()).map(|(text, calibrated)| CalibrationRecord {
        text_sha256: text.digest,
        tokens: text.tokens(),
        uncalibrated: calibrated.uncalibrated(graph, checkpoint.config()),
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
        checkpoint: CheckpointRecord { source: options.source.clone(), digest },
        files: Vec::new(),
        graphs,
    };
    let files = client_files(checkpoint, &manifest.graphs)?;
    manifest.files =
        files.iter().map(|file| write_client_file(&mut output, file)).collect::<Result<Vec<_>>>()?;
    output.commit(&manifest)?;
    Ok(Exported { folder: options.output.clone(), record })
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
        stored: graph.bytes_by_format(),
        calibration: None,
        graph: ArtifactFile { path: graph_file, size: written.graph_size, sha256: written.graph_sha256 },
        data: ArtifactFile { path: data_file, size: written.data_size, sha256: written.data_sha256 },
        verification: Vec::new(),
    }
}

fn write_client_file(output: &mut OutputFolder, file: &ClientFile) -> Result<ArtifactFile> {
    let path = output.file(file.name)?;
    File::create(&path)
        .and_then(|mut target| target.write_all(&file.content).and_then(|()| target.sync_all()))
        .map_err(|source| Error::Io { action: "write", path, source })?;
    Ok(ArtifactFile {
        path: file.name.to_owned(),
        size: file.content.len() as u64,
        sha256: Digest::of_bytes(&file.content),
    })
}

/// Refuses a task whose head the checkpoint lacks. Every checkpoint has the backbone, and with tied embeddings the
/// language-model head.
fn check_head(config: &ModelConfig, task: Task) -> Result<()> {
    let can = |task| match task {
        Task::Backbone => true,
        Task::CausalLm => config.architecture == Architecture::CausalLm || config.tie_word_embeddings,
        Task::SequenceClassification => config.architecture == Architecture::SequenceClassification,
    };
    if can(task) {
        return Ok(());
    }
    let possible = Task::ALL.iter().filter(|task| can(**task)).map(Task::to_string).collect();
    Err(Error::NoHead { trained: Task::of_architecture(config.architecture), task, possible })
}
