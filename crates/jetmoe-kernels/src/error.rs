/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a product cannot be computed.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A size of a weight that no layout has.
    #[error("a weight of {experts} experts, {outputs} outputs and {inputs} inputs has no elements")]
    Empty {
        /// Matrices.
        experts: usize,
        /// Rows of each.
        outputs: usize,
        /// Columns of each.
        inputs: usize,
    },
    /// Sizes of a weight that no memory holds.
    #[error("a weight of {experts} experts, {outputs} outputs and {inputs} inputs fits into no memory")]
    TooLarge {
        /// Matrices.
        experts: usize,
        /// Rows of each.
        outputs: usize,
        /// Columns of each.
        inputs: usize,
    },
    /// A weight whose rows are in another order than the product takes them.
    #[error("a weight whose halves are interleaved can only be the first of an MLP")]
    Interleaved,
    /// A width of codes that no kernel reads.
    #[error("weights of {found} bits cannot be multiplied with; 4, 8 and 16 can")]
    Bits {
        /// What was asked for.
        found: i64,
    },
    /// A size of groups that no kernel reads.
    #[error("groups of {found} weights cannot be multiplied with; those of 16, 32, 64 and 128 can")]
    GroupSize {
        /// What was asked for.
        found: i64,
    },
    /// A tensor with another number of elements than the sizes of the product say.
    #[error("{tensor} has {found} elements and should have {expected}")]
    Length {
        /// Which.
        tensor: &'static str,
        /// Elements it has.
        found: usize,
        /// Elements it should have.
        expected: usize,
    },
    /// A weight in groups comes without its scales, or one that has no groups with some.
    #[error("{bits}-bit weights {have} scales")]
    Scales {
        /// Bits of an element.
        bits: usize,
        /// What is wrong, `need` or `take no`.
        have: &'static str,
    },
    /// A row chose an expert that the weight does not have.
    #[error("row {row} chose expert {found}; there are {experts}")]
    NoSuchExpert {
        /// Which row.
        row: usize,
        /// What it chose.
        found: i64,
        /// How many there are.
        experts: usize,
    },
    /// A row of the table that does not exist.
    #[error("row {found} was asked for; the table has {rows}")]
    NoSuchRow {
        /// Which row.
        found: i64,
        /// How many there are.
        rows: usize,
    },
    /// The two weights of an MLP do not fit together.
    #[error("the second product takes {found} inputs, and the first gives {expected}")]
    Mlp {
        /// Inputs of the second product.
        found: usize,
        /// Halves of the first one's outputs.
        expected: usize,
    },
    /// An instruction set that was asked for and cannot be had.
    #[error(
        "kernels {name:?} cannot be had on this processor\n  there are {known}, of which it has {available}; JETMOE_KERNELS names one, and without it the best is taken"
    )]
    InstructionSet {
        /// What was asked for.
        name: String,
        /// All names.
        known: String,
        /// Those that this processor has.
        available: String,
    },
}
