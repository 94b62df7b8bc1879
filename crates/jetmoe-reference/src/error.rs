//! The error type of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the reference could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is missing or does not match the configuration.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// An override of a weight cannot be read.
    #[error("the weight {tensor} cannot be read: {source}")]
    Override {
        /// Name of the checkpoint's tensor.
        tensor: String,
        /// Why it cannot be read.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Candle failed, for example for a tensor of the wrong shape.
    #[error("the reference failed in {part}: {source}")]
    Tensor {
        /// Part of the model.
        part: String,
        /// What Candle reported, with the shapes.
        source: candle_core::Error,
    },
    /// The caller stopped the call, see [`Reference::forward_until`](crate::Reference::forward_until).
    #[error("the reference was stopped before layer {layer}")]
    Stopped {
        /// The first layer that was not computed.
        layer: usize,
    },
    /// The batch is empty.
    #[error(
        "a batch of {batch_size} sequences of {sequence_length} tokens is empty; give at least one token"
    )]
    EmptyInputs {
        /// Sequences in the batch.
        batch_size: usize,
        /// New tokens of each.
        sequence_length: usize,
    },
    /// An input has another number of values than the batch.
    #[error("{input} has {found} values, expected {rows} × {columns} = {}", rows.saturating_mul(*columns))]
    InputLength {
        /// The input's name.
        input: &'static str,
        /// Sequences in the batch.
        rows: usize,
        /// Values of each of them.
        columns: usize,
        /// Number of values.
        found: usize,
    },
    /// An input has an invalid value.
    #[error("{input}[{sequence}, {index}] is {found}, expected {expected}")]
    InputValue {
        /// The input's name.
        input: &'static str,
        /// Index of the sequence.
        sequence: usize,
        /// Index in the sequence.
        index: usize,
        /// The value.
        found: i64,
        /// The valid values.
        expected: String,
    },
    /// The cache is of another model or batch.
    #[error("the cache has {found}, expected {expected}; begin with an empty cache")]
    CacheMismatch {
        /// What this model and these inputs require.
        expected: String,
        /// What is in the cache.
        found: String,
    },
    /// The checkpoint does not have the head.
    #[error("the checkpoint has no {head}, so it has no such output; use a checkpoint saved with that head")]
    MissingHead {
        /// Name of the head's weight.
        head: &'static str,
    },
    /// A batch cannot be classified without a padding token.
    #[error(
        "config.json has no pad_token_id, so the last token of each of {batch_size} sequences is unknown; \
         classify one sequence at a time"
    )]
    NoPaddingToken {
        /// Sequences in the batch.
        batch_size: usize,
    },
}

impl Error {
    /// Adds the part of the model to an error of Candle.
    pub(crate) fn at(part: impl Into<String>) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Error::Tensor { part: part.into(), source }
    }
}
