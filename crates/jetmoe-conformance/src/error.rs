//! The error of this crate.

use std::path::PathBuf;

use jetmoe_artifact::Precision;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a comparison failed. Differing results are not an error, they are the result of a comparison.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model could not be loaded or run.
    #[error(transparent)]
    Model(#[from] jetmoe_rt::Error),
    /// The artifact cannot be used.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// The tokenizer cannot be used.
    #[error(transparent)]
    Text(#[from] jetmoe_text::Error),
    /// The reference failed.
    #[error("the Candle reference failed: {0}")]
    Reference(#[from] jetmoe_reference::Error),
    /// A golden file holds results of the checkpoint's weights, but the graph holds quantized ones.
    #[error(
        "a golden file holds results of the checkpoint's own weights, but the {precision} graph holds quantized ones"
    )]
    GoldenOfOtherWeights {
        /// Precision of the graph.
        precision: Precision,
    },
    /// Graph and expectation have no tensor in common.
    #[error("nothing was compared: {expected_by} expects {}, and the graph has none of them\n  \
             give a golden file for the artifact's task", expected.join(", "))]
    NothingCompared {
        /// Source of the expectation.
        expected_by: String,
        /// The expected tensors.
        expected: Vec<String>,
    },
    /// The reference does not fit in memory.
    #[error("the reference holds every weight as float32, which takes {:.1} GB, and {:.1} GB of memory are available\n  \
             use a machine with more memory",
            *needed as f64 / 1e9, *available as f64 / 1e9)]
    ReferenceMemory {
        /// Memory that it needs, in bytes.
        needed: u64,
        /// Available memory in bytes.
        available: u64,
    },
    /// A graph cannot be read.
    #[error(transparent)]
    Graph(#[from] jetmoe_onnx::Error),
    /// A weight is not stored in the graph's files as the operators expect it.
    #[error("{}: the weight {weight} is not stored as the operator that reads it expects\n  export again", graph.display())]
    StoredWeight {
        /// The graph file.
        graph: PathBuf,
        /// The weight.
        weight: String,
    },
    /// A model cannot serve as the baseline of another.
    #[error("these models cannot be compared: {message}")]
    Baseline {
        /// Why.
        message: String,
    },
    /// An error of the operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The operation, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// A golden file cannot be used.
    #[error("{} is no golden file: {message}\n  see tests/fixtures/goldens/make_goldens.py for what it must hold", path.display())]
    Golden {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        message: String,
    },
    /// A line of an evaluation file cannot be used.
    #[error("{}:{line}: {message}", path.display())]
    Line {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is invalid.
        message: String,
    },
    /// An evaluation file holds nothing to evaluate.
    #[error("{} holds no text to evaluate; give one JSON object per line with a field \"text\"", path.display())]
    NothingToEvaluate {
        /// The file.
        path: PathBuf,
    },
    /// A task that cannot be evaluated.
    #[error("a {task} model cannot be evaluated, because it predicts nothing")]
    NotEvaluable {
        /// What the model computes.
        task: jetmoe_artifact::Task,
    },
    /// An expected tensor has another shape than the model's.
    #[error(
        "{tensor}: the model gives shape {found:?}, expected {expected:?}\n  does the golden file belong to this model?"
    )]
    Shape {
        /// Its name.
        tensor: String,
        /// What was expected.
        expected: Vec<usize>,
        /// What the model gives.
        found: Vec<usize>,
    },
    /// A name that no backend has.
    #[error("unknown backend {name:?}; known: {}, {}", jetmoe_rt::built_in_names().join(", "), crate::BackendName::REFERENCE)]
    UnknownBackend {
        /// The name.
        name: String,
    },
    /// The reference was chosen as a backend without a checkpoint.
    #[error("the reference needs the checkpoint, which was not found{}", remembered(source_name))]
    NoCheckpoint {
        /// Where the manifest says it came from.
        source_name: Option<String>,
    },
}

fn remembered(source: &Option<String>) -> String {
    source.as_ref().map(|source| format!(" at {source}, where the artifact came from")).unwrap_or_default()
}
