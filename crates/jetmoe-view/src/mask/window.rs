//! The part of a long sequence that is drawn.

use std::ops::Range;

/// Which tokens of a sequence are drawn, as rows and as columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Window {
    /// The first one. Beyond the end of a sequence, its last tokens are drawn.
    pub first: usize,
    /// How many at most; `None` for as many as are legible.
    pub most: Option<usize>,
}

impl Window {
    /// The tokens of a sequence of `length` that are drawn if `fits` are legible.
    pub(crate) fn range(self, length: usize, fits: usize) -> Range<usize> {
        let count = self.most.unwrap_or(fits).min(fits).max(1).min(length);
        let first = self.first.min(length - count);
        first..first + count
    }
}

/// Says which tokens are left out; `None` if none is.
pub(crate) fn left_out(range: &Range<usize>, length: usize) -> Option<String> {
    (range.len() < length).then(|| {
        format!(
            "tokens {} to {} of {length}; {} are left out of rows and columns",
            range.start + 1,
            range.end,
            length - range.len()
        )
    })
}
