//! The rows that GPTQ works on, and the views of them and of its matrices.

use jetmoe_format::Scheme;

use crate::Result;
use crate::quantize::explain_failure;

/// Columns that are quantized before their errors are propagated to all following columns: GPTQ's lazy batch updates. One
/// block of the matrices stays in the cache.
const BLOCK: usize = 128;

/// The width of a block: whole groups, about [`BLOCK`] columns.
pub(crate) fn block_width(scheme: &Scheme) -> usize {
    scheme.group_size * (BLOCK / scheme.group_size).max(1)
}

/// Rows of a matrix with their codes.
pub(crate) struct QuantizedRows<'a> {
    pub(crate) scheme: &'a Scheme,
    pub(crate) inputs: usize,
    /// Groups of a row.
    pub(crate) groups: usize,
    /// `[rows, inputs]`
    pub(crate) weights: &'a [f32],
    /// `[rows, inputs]`
    pub(crate) codes: &'a mut [u8],
    /// `[rows, groups]`
    pub(crate) scales: &'a mut [f32],
    /// `[rows, groups]`
    pub(crate) zero_points: &'a mut [u8],
}

impl QuantizedRows<'_> {
    pub(crate) fn count(&self) -> usize {
        self.weights.len() / self.inputs.max(1)
    }

    /// Codes, scales and zero points of consecutive whole groups of a row.
    pub(crate) fn block_mut(
        &mut self,
        row: usize,
        first: usize,
        width: usize,
    ) -> (&mut [u8], &mut [f32], &mut [u8]) {
        let first_group = row * self.groups + first / self.scheme.group_size;
        let groups = first_group..first_group + self.scheme.groups(width);
        let codes = &mut self.codes[row * self.inputs + first..][..width];
        (codes, &mut self.scales[groups.clone()], &mut self.zero_points[groups])
    }

    /// Refuses scales that are not finite.
    pub(crate) fn check_scales(&self) -> Result<()> {
        let Some(place) = self.scales.iter().position(|scale| !scale.is_finite()) else { return Ok(()) };
        let (row, group) = (place / self.groups, place % self.groups);
        let weights = &self.weights[row * self.inputs..][..self.inputs];
        Err(explain_failure(self.scheme, weights, group).offset_by(row * self.inputs))
    }
}

/// The trailing part of a square matrix, from an element of its diagonal on.
#[derive(Clone, Copy)]
pub(crate) struct TrailingMatrix<'a> {
    pub(crate) elements: &'a [f32],
    /// Elements of a row of the whole matrix.
    pub(crate) stride: usize,
}

impl<'a> TrailingMatrix<'a> {
    #[inline(always)]
    pub(crate) fn row(self, row: usize) -> &'a [f32] {
        &self.elements[row * self.stride..]
    }
}
