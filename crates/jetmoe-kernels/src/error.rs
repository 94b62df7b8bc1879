//! The errors of products and of weights.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a weight cannot be read or a product cannot be computed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A packed weight cannot be read.
    #[error(transparent)]
    Format(#[from] jetmoe_format::Error),
    /// A weight with interleaved halves, where the rows must be in their stored order.
    #[error("a weight whose halves are interleaved can only be the first of an MLP")]
    Interleaved,
    /// A weight without codes, where codes are dequantized.
    #[error("a weight without codes is multiplied in float32 by `linear`")]
    NotQuantized,
    /// A tensor whose length does not match the sizes of the product.
    #[error("{tensor} has {found} elements and should have {expected}")]
    Length {
        /// Which.
        tensor: &'static str,
        /// Actual number of elements.
        found: usize,
        /// Expected number of elements.
        expected: usize,
    },
    /// A row chose an expert that the weight does not have.
    #[error("row {row} chose expert {found}; there are {experts}")]
    ExpertOutOfRange {
        /// Which row.
        row: usize,
        /// The expert it chose.
        found: i64,
        /// Number of experts.
        experts: usize,
    },
    /// A router that selects more experts than there are, or none.
    #[error("a router selects {k} of {experts} experts")]
    ExpertsPerRow {
        /// Experts of each row.
        k: usize,
        /// Number of experts.
        experts: usize,
    },
    /// A row index that the table does not have.
    #[error("row {found} is out of range; the table has {rows}")]
    RowOutOfRange {
        /// The index.
        found: i64,
        /// Number of rows.
        rows: usize,
    },
    /// The two weights of an MLP do not match.
    #[error("the second product takes {found} inputs, and the first gives {expected}")]
    Mlp {
        /// Inputs of the second product.
        found: usize,
        /// Half of the first product's outputs.
        expected: usize,
    },
    /// Heads that attention cannot compute.
    #[error(
        "{kv_heads} key heads of {channels} channels; channels must be even, and neither may be 0 or overflow"
    )]
    Heads {
        /// Key heads.
        kv_heads: usize,
        /// Channels of a head.
        channels: usize,
    },
    /// A listed sequence that the step or the cache does not have.
    #[error(
        "sequence {index} of the list, {found:?}, is not a row of {rows}, the tokens that it holds, and some of the {tokens} tokens \
         of the step that no other sequence has"
    )]
    Sequence {
        /// Its index in the list.
        index: usize,
        /// Row, cached and new tokens.
        found: [i64; 3],
        /// Rows of the cache.
        rows: usize,
        /// Tokens of the step.
        tokens: usize,
    },
    /// A sequence with more tokens than its cache has capacity for.
    #[error("sequence {sequence} has {tokens} tokens, in a cache for {capacity}")]
    CacheFull {
        /// Which.
        sequence: usize,
        /// Cached and new tokens.
        tokens: usize,
        /// Tokens that it has capacity for.
        capacity: usize,
    },
    /// An unknown instruction set, or one that this processor does not support.
    #[error(
        "instruction set {name:?} is not available\n  known: {known}\n  supported by this processor: {available}\n  JETMOE_KERNELS selects one of these; unset it to use the fastest"
    )]
    UnsupportedIsa {
        /// The name.
        name: String,
        /// All names.
        known: String,
        /// The names that this processor supports.
        available: String,
    },
}

/// Refuses a tensor with another number of elements.
pub(crate) fn length(tensor: &'static str, found: usize, expected: usize) -> Result<()> {
    if found == expected { Ok(()) } else { Err(Error::Length { tensor, found, expected }) }
}
