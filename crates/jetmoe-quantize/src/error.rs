/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why weights could not be quantized.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is infinite or no number.
    #[error("weight {index} of the row is {value}, which no scale reaches")]
    NotFinite {
        /// Its place in the row, from 0.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// A group needs a larger scale than its type holds, or its weights are restored in a type that does not hold them.
    #[error("weight {index} of the row is {value}: its group does not fit in float16")]
    ScaleTooLarge {
        /// Place of the group's largest weight in the row, from 0.
        index: usize,
        /// What it is.
        value: f32,
    },
    /// Statistics of the inputs that hold something else than numbers.
    #[error("the statistics of the product's inputs are not finite: calibration went wrong")]
    Statistics,
}

impl Error {
    /// The row of an error whose place is counted through rows of `inputs` weights, and the same error counted from the
    /// beginning of that row.
    pub fn in_rows_of(self, inputs: usize) -> (usize, Self) {
        let split = |index: usize| (index / inputs.max(1), index % inputs.max(1));
        match self {
            Error::NotFinite { index, value } => {
                let (row, index) = split(index);
                (row, Error::NotFinite { index, value })
            }
            Error::ScaleTooLarge { index, value } => {
                let (row, index) = split(index);
                (row, Error::ScaleTooLarge { index, value })
            }
            Error::Statistics => (0, self),
        }
    }

    /// The same, for a row whose first `weights` weights were left out.
    pub fn behind(self, weights: usize) -> Self {
        match self {
            Error::NotFinite { index, value } => Error::NotFinite { index: index + weights, value },
            Error::ScaleTooLarge { index, value } => Error::ScaleTooLarge { index: index + weights, value },
            Error::Statistics => Error::Statistics,
        }
    }
}
