//! The input rows of a product, packed in the order in which the kernels read them.
//!
//! Integer weights take dynamically quantized activations: every 32 columns of a row become 8-bit integers with a scale of
//! their own. bfloat16 weights take float32.

use jetmoe_format::{BLOCK_INPUTS, PackedLayout, PackedWeight};

use crate::activation::ROUND_TO_INTEGER;

/// Rows in the form that a weight is multiplied with.
#[derive(Debug)]
pub(crate) enum PackedInput {
    Quantized(QuantizedActivations),
    Float(FloatActivations),
}

/// Rows quantized to 8 bits, 32 columns at a time. What is multiplied with one block of a panel is contiguous.
#[derive(Debug)]
pub(crate) struct QuantizedActivations {
    pub(crate) rows: usize,
    /// `[blocks, rows, 32]`
    values: Vec<i8>,
    /// `[blocks, rows]`; NaN for a block that contains infinity or NaN.
    scales: Vec<f32>,
    /// `[blocks, rows, sums per block]`, see [`RowSums`].
    sums: Vec<i32>,
    row_sums: RowSums,
}

/// Which sums of a row's values are kept: what the zero points of the weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowSums {
    /// 1, or 2 where a block contains two groups of 16 columns.
    per_block: usize,
    /// What a sum is multiplied with: the zero point where all groups share one, otherwise 1.
    factor: i32,
}

impl RowSums {
    fn new(weight: &PackedWeight<'_>) -> Self {
        let scheme = weight.layout().scheme;
        let factor = if scheme.zero_points { 1 } else { i32::from(scheme.format.default_zero_point()) };
        RowSums { per_block: groups_per_block(weight.layout()), factor }
    }
}

/// Groups that share a block: 2 for groups of 16 columns, otherwise 1.
pub(crate) fn groups_per_block(layout: &PackedLayout) -> usize {
    layout.group_size().map_or(1, |size| BLOCK_INPUTS.div_ceil(size))
}

/// Rows as float32, padded to whole blocks: `[rows, blocks, 32]`.
#[derive(Debug)]
pub(crate) struct FloatActivations {
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
}

impl PackedInput {
    /// Zeros, with the capacity for this number of rows of a weight's inputs.
    pub(crate) fn new(weight: &PackedWeight<'_>, rows: usize) -> Self {
        let blocks = weight.layout().blocks();
        match weight.layout().group_size() {
            None => {
                let columns = blocks * BLOCK_INPUTS;
                PackedInput::Float(FloatActivations { columns, values: vec![0.0; rows * columns] })
            }
            Some(_) => {
                let row_sums = RowSums::new(weight);
                PackedInput::Quantized(QuantizedActivations {
                    rows,
                    values: vec![0; blocks * rows * BLOCK_INPUTS],
                    scales: vec![0.0; blocks * rows],
                    sums: vec![0; blocks * rows * row_sums.per_block],
                    row_sums,
                })
            }
        }
    }
}

impl QuantizedActivations {
    /// One tile per block with all rows, to be filled.
    pub(crate) fn tiles_mut(&mut self) -> impl ExactSizeIterator<Item = ActivationTileMut<'_>> + Send {
        let (rows, RowSums { per_block, factor }) = (self.rows.max(1), self.row_sums);
        let values = self.values.chunks_exact_mut(rows * BLOCK_INPUTS);
        let scales = self.scales.chunks_exact_mut(rows);
        let tiles = values.zip(scales).zip(self.sums.chunks_exact_mut(rows * per_block));
        tiles.map(move |((values, scales), sums)| ActivationTileMut { values, scales, sums, factor })
    }
}

/// One block of columns of all rows, to be filled by [`ActivationTileMut::quantize`].
pub(crate) struct ActivationTileMut<'a> {
    values: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    factor: i32,
}

impl ActivationTileMut<'_> {
    /// Quantizes the rows, `[rows, 32]`.
    ///
    /// Inlined into a function per instruction set, where the compiler vectorizes its loops.
    #[inline(always)]
    pub(crate) fn quantize(&mut self, x: &[f32]) {
        let sums_per_block = self.sums.len() / self.scales.len().max(1);
        let (x, _) = x.as_chunks::<BLOCK_INPUTS>();
        let (values, _) = self.values.as_chunks_mut::<BLOCK_INPUTS>();
        let sums = self.sums.chunks_exact_mut(sums_per_block.max(1));
        for (((x, values), scale), sums) in x.iter().zip(values).zip(self.scales.iter_mut()).zip(sums) {
            *scale = quantize_row(x, values, sums, self.factor);
        }
    }
}

/// Consecutive rows of a product, those of one expert.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActivationRows<'a> {
    pub(crate) activations: &'a QuantizedActivations,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// One block of columns of consecutive rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActivationTile<'a> {
    pub(crate) values: &'a [[i8; BLOCK_INPUTS]],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i32],
}

impl<'a> ActivationRows<'a> {
    #[inline(always)]
    pub(crate) fn tile(&self, block: usize) -> ActivationTile<'a> {
        let QuantizedActivations { rows, values, scales, sums, row_sums } = self.activations;
        let (first, sums_per_block) = (block * rows + self.first, row_sums.per_block);
        let (values, _) = values[first * BLOCK_INPUTS..][..self.count * BLOCK_INPUTS].as_chunks();
        let sums = &sums[first * sums_per_block..][..self.count * sums_per_block];
        ActivationTile { values, scales: &scales[first..][..self.count], sums }
    }

    /// `count` of these rows, from `first` on.
    pub(crate) fn slice(&self, first: usize, count: usize) -> Self {
        ActivationRows { first: self.first + first, count, ..*self }
    }
}

/// Quantizes 32 columns of a row and returns their scale.
#[inline(always)]
fn quantize_row(
    x: &[f32; BLOCK_INPUTS],
    values: &mut [i8; BLOCK_INPUTS],
    sums: &mut [i32],
    factor: i32,
) -> f32 {
    // With the sign cleared, floats order like their bit patterns; infinity and NaN compare greater than any finite value.
    let max_abs = x.iter().fold(0, |max: u32, x| max.max(x.to_bits() & 0x7FFF_FFFF));
    let max_abs = f32::from_bits(max_abs);
    if !max_abs.is_finite() {
        values.fill(0);
        sums.fill(0);
        return f32::NAN;
    }
    // Symmetric quantization: the largest magnitude becomes ±127. A subnormal scale has no finite inverse.
    let scale = max_abs / 127.0;
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
    for (value, x) in values.iter_mut().zip(x) {
        *value = (x * inverse + ROUND_TO_INTEGER).to_bits() as i8;
    }
    let columns = BLOCK_INPUTS / sums.len();
    for (sum, values) in sums.iter_mut().zip(values.chunks_exact(columns)) {
        *sum = values.iter().map(|value| i32::from(*value)).sum::<i32>() * factor;
    }
    scale
}

#[cfg(test)]
mod tests;
