//! Why weights cannot be quantized.

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why weights cannot be quantized.
#[derive(Clone, Copy, PartialEq, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A weight is infinite or NaN.
    #[error("weight {index} of the row is {value}, which cannot be quantized")]
    NotFinite {
        /// Its index in the row.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// A group needs a larger scale than the scale's type can hold, or its dequantized weights overflow that type.
    #[error("weight {index} of the row is {value}: its group does not fit in float16")]
    ScaleTooLarge {
        /// Index of the group's largest weight in the row.
        index: usize,
        /// Its value.
        value: f32,
    },
    /// Statistics of the inputs that are not finite.
    #[error("the statistics of the product's inputs are not finite: calibration went wrong")]
    Statistics,
}

impl Error {
    /// Splits an index into a matrix with rows of `inputs` weights: the row, and the same error with its index in that row.
    pub fn row_and_column(self, inputs: usize) -> (usize, Self) {
        let inputs = inputs.max(1);
        let row = match self {
            Error::NotFinite { index, .. } | Error::ScaleTooLarge { index, .. } => index / inputs,
            Error::Statistics => 0,
        };
        (row, self.map_index(|index| index % inputs))
    }

    /// Adds `weights` to the index, for a slice that begins there.
    pub fn offset_by(self, weights: usize) -> Self {
        self.map_index(|index| index + weights)
    }

    fn map_index(self, map: impl Fn(usize) -> usize) -> Self {
        match self {
            Error::NotFinite { index, value } => Error::NotFinite { index: map(index), value },
            Error::ScaleTooLarge { index, value } => Error::ScaleTooLarge { index: map(index), value },
            Error::Statistics => Error::Statistics,
        }
    }
}
