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
    /// An operator does not accept its operands.
    #[error("{node}: {operator} cannot take {}: {message}", operands.join(", "))]
    Operands {
        /// Where in the graph.
        node: String,
        /// The operator.
        operator: &'static str,
        /// Element type and shape of every operand.
        operands: Vec<String>,
        /// The reason.
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
    /// An output has another type or shape than the signature.
    #[error("output {output} must be {expected}, but the graph makes {found}")]
    Output {
        /// Name of the output.
        output: String,
        /// Element type and shape in the signature.
        expected: String,
        /// Element type and shape of the value.
        found: String,
    },
    /// An output of the signature is missing.
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
        /// The requested version.
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
        /// The requested precision.
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
        /// Its index in the tensor.
        place: Vec<usize>,
        /// Its value.
        value: f32,
        /// The type it is converted to.
        element: ElementType,
    },
    /// A weight that cannot be quantized.
    #[error("{tensor}, row {row:?}: {source}")]
    Quantize {
        /// The tensor.
        tensor: String,
        /// The row's index in the tensor.
        row: Vec<usize>,
        /// The reason.
        source: jetmoe_quantize::Error,
    },
    /// An operator-set version that is not a number.
    #[error("{text:?} is not a number")]
    OpsetNumber {
        /// The text.
        text: String,
        /// The reason.
        source: std::num::ParseIntError,
    },
    /// The operator-set version is outside the supported range.
    #[error("opset {found} is not supported; choose one from {minimum} to {maximum}")]
    Opset {
        /// The requested version.
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
    /// An error of the operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: std::io::Error,
    },
}

fn precisions(profile: Profile) -> String {
    let precisions = Precision::ALL.iter().filter(|precision| profile.has(**precision));
    precisions.map(Precision::to_string).collect::<Vec<_>>().join(", ")
}
