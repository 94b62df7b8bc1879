//! The error of this crate.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a weight cannot be read as it is stored, or a node of a custom operator as it is written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A packed weight without elements, one whose size overflows, or one in
    /// [`RowOrder::Halves`](crate::RowOrder::Halves) with an odd number of rows.
    #[error("a weight of {experts} experts, {outputs} outputs and {inputs} inputs {problem}")]
    Size {
        /// Matrices.
        experts: usize,
        /// Rows of each.
        outputs: usize,
        /// Columns of each.
        inputs: usize,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// A width of elements that cannot be packed.
    #[error("weights of {found} bits cannot be packed; 4, 8 and 16 can")]
    Bits {
        /// The requested value.
        found: i64,
    },
    /// A group size without kernels.
    #[error("groups of {found} weights are not supported; choose one of {:?}", crate::Scheme::GROUP_SIZES)]
    GroupSize {
        /// The requested value.
        found: i64,
    },
    /// A tensor with another number of elements than the weight's sizes require.
    #[error("{tensor} has {found} elements and should have {expected}")]
    Length {
        /// The tensor.
        tensor: &'static str,
        /// Elements it has.
        found: usize,
        /// Elements it should have.
        expected: usize,
    },
    /// There is no such custom operator.
    #[error("there is no operator {}.{name}", crate::DOMAIN)]
    UnknownOperator {
        /// The name in the node.
        name: String,
    },
    /// A node of a custom operator lacks an attribute.
    #[error("{operator} has no attribute {attribute}")]
    MissingAttribute {
        /// The operator.
        operator: crate::CustomOperator,
        /// Name of the attribute.
        attribute: &'static str,
    },
    /// A node of a custom operator has an attribute of a wrong value.
    #[error("{attribute} of {operator} is {found}")]
    Attribute {
        /// The operator.
        operator: crate::CustomOperator,
        /// Name of the attribute.
        attribute: &'static str,
        /// Its value.
        found: i64,
    },
    /// A node of attention names a format of the cache that there is not.
    #[error("there is no cache format {found:?}; there are {}", crate::CacheFormat::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", "))]
    CacheFormat {
        /// The name in the node.
        found: String,
    },
    /// A norm adds a number to the mean square that is not positive and finite.
    #[error("{operator}: attribute epsilon is {found}, expected a positive and finite number")]
    Epsilon {
        /// The operator.
        operator: crate::CustomOperator,
        /// The number.
        found: String,
    },
    /// A custom operator has no such operand or weight.
    #[error("{operator} has no operand {operand:?}")]
    NoSuchOperand {
        /// The operator.
        operator: crate::CustomOperator,
        /// The requested value.
        operand: crate::Operand,
    },
}
