use std::path::PathBuf;

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
    #[error("{} is no ONNX model: {message}", path.display())]
    NotOnnx {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        message: String,
    },
}
