/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why the reference could not be loaded or run.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is missing or does not fit the configuration.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// A weight that takes the place of a checkpoint's cannot be read.
    #[error("the weight {tensor} cannot be read: {source}")]
    Replaced {
        /// Name of the checkpoint's tensor.
        tensor: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Candle could not compute a step, as when memory runs out or a tensor of the wrong shape was handed in.
    #[error("the reference failed in {place}: {source}")]
    Tensor {
        /// Which part of the model.
        place: String,
        /// What Candle said, with the shapes.
        source: candle_core::Error,
    },
    /// There is nothing to compute.
    #[error(
        "a batch of {batch_size} sequences of {sequence_length} tokens is empty; give at least one token"
    )]
    EmptyInputs {
        /// Sequences in the batch.
        batch_size: usize,
        /// New tokens of each.
        sequence_length: usize,
    },
    /// An input holds another number of values than the batch needs.
    #[error("{input} holds {found} values, expected {rows} × {columns} = {}", rows.saturating_mul(*columns))]
    InputLength {
        /// The input's name.
        input: &'static str,
        /// Sequences in the batch.
        rows: usize,
        /// Values that each of them needs.
        columns: usize,
        /// Values there are.
        found: usize,
    },
    /// An input holds a value that has no meaning.
    #[error("{input}[{sequence}, {index}] is {found}, expected {expected}")]
    InputValue {
        /// The input's name.
        input: &'static str,
        /// Which sequence of the batch.
        sequence: usize,
        /// Where in the sequence.
        index: usize,
        /// The value.
        found: i64,
        /// What would be right.
        expected: String,
    },
    /// The cache was filled by another model or for another batch.
    #[error("the cache holds {found}, expected {expected}; begin with an empty cache")]
    CacheMismatch {
        /// What this model and these inputs need.
        expected: String,
        /// What is in the cache.
        found: String,
    },
    /// The checkpoint has no such head.
    #[error(
        "the checkpoint has no {head}, so this output does not exist; use one that was saved with that head"
    )]
    MissingHead {
        /// Name of the head's weight.
        head: &'static str,
    },
    /// A batch cannot be classified because nothing tells padding from text.
    #[error(
        "config.json names no pad_token_id, so the last token of each of {batch_size} sequences is unknown; \
         classify one sequence at a time"
    )]
    NoPaddingToken {
        /// Sequences in the batch.
        batch_size: usize,
    },
}

impl Error {
    /// Says where in the model Candle failed.
    pub(crate) fn at(place: impl Into<String>) -> impl FnOnce(candle_core::Error) -> Self {
        move |source| Error::Tensor { place: place.into(), source }
    }
}
