//! The error of this crate.

use std::path::PathBuf;

use jetmoe_artifact::{Precision, Profile};
use jetmoe_format::ElementType;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a graph could not be built or written.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// An operator was given operands that do not fit it.
    #[error("{node}: {operator} cannot take {}: {message}", operands.join(", "))]
    Operands {
        /// Where in the graph.
        node: String,
        /// The operator.
        operator: &'static str,
        /// Element type and shape of every operand.
        operands: Vec<String>,
        /// What does not fit.
        message: String,
    },
    /// A size cannot be computed from the graph's inputs.
    #[error("{node}: no input of the graph has a dimension {symbol}")]
    UnknownSize {
        /// Where in the graph.
        node: String,
        /// The symbol.
        symbol: String,
    },
    /// An output of the contract was produced with another type or shape.
    #[error("output {output} must be {expected}, but the graph makes {found}")]
    Output {
        /// Name of the output.
        output: String,
        /// Element type and shape by the contract.
        expected: String,
        /// What the graph makes.
        found: String,
    },
    /// An output of the contract was not produced.
    #[error("the graph does not make the output {output}")]
    NoOutput {
        /// Name of the output.
        output: String,
    },
    /// A weight cannot be read in another way.
    #[error("the graph has no weight {weight} whose bytes are whole elements of {element}")]
    NoView {
        /// The weight.
        weight: String,
        /// The element type.
        element: ElementType,
    },
    /// The operator set has no operator for quantized weights.
    #[error("opset {found} cannot read weights in groups of 4 or 8 bits; choose {needed} or a later one")]
    OpsetForQuantized {
        /// The version that was asked for.
        found: u32,
        /// The first that can.
        needed: u32,
    },
    /// The profile has no graphs of the precision.
    #[error(
        "the {profile} profile has no {precision} graphs\n  choose another profile, or one of its precisions: {}",
        precisions(*profile)
    )]
    NoSuchGraph {
        /// The profile.
        profile: Profile,
        /// The precision that was asked for.
        precision: Precision,
    },
    /// The plan for the weights does not fit the model.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// A weight that its format cannot hold.
    #[error(
        "{tensor}: the weight at {place:?} is {value}, beyond what {element} can hold\n  \
             store the part it belongs to in another format, or choose another precision"
    )]
    NotRepresentable {
        /// The tensor.
        tensor: String,
        /// Its place in the tensor.
        place: Vec<usize>,
        /// What it is.
        value: f32,
        /// What it should become.
        element: ElementType,
    },
    /// A weight that cannot be quantized.
    #[error("{tensor}, row {row:?}: {source}")]
    Quantize {
        /// The tensor.
        tensor: String,
        /// The row: its place in the tensor.
        row: Vec<usize>,
        /// Why.
        source: jetmoe_quantize::Error,
    },
    /// What should be the number of an operator set is none.
    #[error("{text:?} is no number")]
    OpsetNumber {
        /// The text.
        text: String,
        /// Why.
        source: std::num::ParseIntError,
    },
    /// The operator-set version is outside the supported range.
    #[error("opset {found} is not supported; choose one from {minimum} to {maximum}")]
    Opset {
        /// The version that was asked for.
        found: u32,
        /// The oldest.
        minimum: u32,
        /// The newest.
        maximum: u32,
    },
    /// An expert that the tensor does not have.
    #[error("{tensor} holds {experts} experts, there is no expert {expert}")]
    NoSuchExpert {
        /// The tensor.
        tensor: String,
        /// The expert, from 0.
        expert: usize,
        /// How many there are.
        experts: usize,
    },
    /// A weight cannot be taken from the checkpoint.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is no ONNX model.
    #[error("{} is no ONNX model: {}", path.display(), source.as_ref().map_or("it holds no graph".to_owned(), |source| source.to_string()))]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What the decoder said; `None` if the file decodes and holds no graph.
        source: Option<prost::DecodeError>,
    },
}

fn precisions(profile: Profile) -> String {
    let precisions = Precision::ALL.iter().filter(|precision| profile.has(**precision));
    precisions.map(Precision::to_string).collect::<Vec<_>>().join(", ")
}
