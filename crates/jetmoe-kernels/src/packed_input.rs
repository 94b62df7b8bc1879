//! The input rows of a product, packed in the order in which the kernels read them.
//!
//! Integer weights take dynamically quantized activations: every 32 columns of a row become 8-bit integers with a scale of
//! their own. Matrix instructions take bfloat16 for experts with many rows. bfloat16 weights take float32.

use jetmoe_format::{BLOCK_INPUTS, PackedLayout, PackedWeight};

use crate::Isa;
use crate::activation::ROUND_TO_INTEGER;
use crate::aligned::Aligned;
use crate::parallel::{by_expert, rows, take};

/// Consecutive assignments of one expert, which are multiplied with a panel at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Tile {
    pub(crate) expert: usize,
    /// Position of the first assignment among those of all experts.
    pub(crate) first: usize,
    /// At least 1.
    pub(crate) rows: usize,
    pub(crate) form: Form,
}

/// What integer weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Int8,
    Bfloat16,
}

impl Form {
    /// The form of an expert with this number of rows.
    pub(crate) fn of(isa: Isa, rows: usize) -> Form {
        match isa {
            Isa::Amx if rows >= BFLOAT16_ROWS => Form::Bfloat16,
            _ => Form::Int8,
        }
    }

    /// The most rows of a tile of an expert with this number of rows.
    pub(crate) fn rows_of_tile(self, rows: usize) -> usize {
        match self {
            Form::Int8 => INT8_ROWS,
            // A panel is dequantized for each tile, so that a small last one would take nearly as long as a large one.
            Form::Bfloat16 => {
                let strips = rows.div_ceil(STRIP_ROWS);
                strips.div_ceil(strips.div_ceil(STRIPS)) * STRIP_ROWS
            }
        }
    }

    /// The most panels that are multiplied with a tile at once.
    pub(crate) fn panels_at_once(self) -> usize {
        match self {
            Form::Int8 => 1,
            Form::Bfloat16 => 8,
        }
    }
}

/// The most rows of a tile of 8-bit integers, whose sums stay in the first-level cache.
pub(crate) const INT8_ROWS: usize = 128;

/// Rows of a strip. The bfloat16 numbers of a tile are stored strip by strip, so that those of a strip are contiguous.
pub(crate) const STRIP_ROWS: usize = 32;

/// The most strips of a tile.
const STRIPS: usize = 8;

/// The least number of an expert's rows that matrix instructions are used for.
const BFLOAT16_ROWS: usize = 16;

/// Rows in the form that a weight is multiplied with.
#[derive(Debug)]
pub(crate) enum PackedInput {
    Quantized(QuantizedActivations),
    Float(FloatActivations),
}

/// Rows quantized to 8 bits, 32 columns at a time. Tile by tile, in the order in which a tile is multiplied with a panel: block by
/// block, all rows of the tile.
#[derive(Debug)]
pub(crate) struct QuantizedActivations {
    blocks: usize,
    /// `[tiles][blocks, rows, 32]`
    values: Aligned<i8>,
    /// `[tiles][blocks, rows]`; NaN for a block that contains infinity or NaN.
    scales: Aligned<f32>,
    /// `[tiles][blocks, rows, sums per block]`, see [`RowSums`].
    sums: Aligned<i32>,
    row_sums: RowSums,
    /// `[tiles][strips][blocks, rows of the strip, 32]`; empty if no tile has this form.
    bfloats: Aligned<u16>,
}

/// Which sums of a row's values are kept: what the zero points of the weights are multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct RowSums {
    /// 1, or 2 where a block contains two groups of 16 columns.
    per_block: usize,
    /// What a sum is multiplied with: the negated zero point where all groups share one, so that sums of codes times values
    /// begin at the product; otherwise 1.
    factor: i32,
}

impl RowSums {
    fn new(weight: &PackedWeight<'_>) -> Self {
        let scheme = weight.layout().scheme;
        let factor = if scheme.zero_points { 1 } else { -i32::from(scheme.format.default_zero_point()) };
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
    /// With the capacity for the rows of some tiles of a weight's inputs.
    pub(crate) fn new(weight: &PackedWeight<'_>, tiles: &[Tile]) -> Self {
        let blocks = weight.layout().blocks();
        let rows = rows(tiles);
        match weight.layout().group_size() {
            None => {
                let columns = blocks * BLOCK_INPUTS;
                PackedInput::Float(FloatActivations { columns, values: vec![0.0; rows * columns] })
            }
            Some(_) => {
                let row_sums = RowSums::new(weight);
                let bfloats = match tiles.iter().any(|tile| tile.form == Form::Bfloat16) {
                    true => blocks * rows * BLOCK_INPUTS,
                    false => 0,
                };
                PackedInput::Quantized(QuantizedActivations {
                    blocks,
                    values: Aligned::any(blocks * rows * BLOCK_INPUTS),
                    scales: Aligned::any(blocks * rows),
                    sums: Aligned::any(blocks * rows * row_sums.per_block),
                    row_sums,
                    bfloats: Aligned::any(bfloats),
                })
            }
        }
    }
}

impl QuantizedActivations {
    /// What is to be filled, expert by expert: `[experts][blocks, tiles of the expert]`.
    pub(crate) fn blocks_mut(&mut self, tiles: &[Tile]) -> Vec<ActivationTileMut<'_>> {
        let RowSums { per_block, factor } = self.row_sums;
        let (mut values, mut scales) = (&mut self.values[..], &mut self.scales[..]);
        let (mut sums, mut bfloats) = (&mut self.sums[..], &mut self.bfloats[..]);
        let mut chunks = Vec::with_capacity(tiles.len());
        for Tile { rows, form, .. } in tiles {
            let elements = self.blocks * rows;
            let strips: [_; STRIPS] = std::array::from_fn(|strip| {
                let rows = match bfloats.is_empty() {
                    true => 0,
                    false => rows.saturating_sub(strip * STRIP_ROWS).min(STRIP_ROWS),
                };
                let strip = take(&mut bfloats, self.blocks * rows * BLOCK_INPUTS);
                strip.chunks_exact_mut((rows * BLOCK_INPUTS).max(1))
            });
            chunks.push((
                *form,
                strips,
                take(&mut values, elements * BLOCK_INPUTS).chunks_exact_mut(rows * BLOCK_INPUTS),
                take(&mut scales, elements).chunks_exact_mut(*rows),
                take(&mut sums, elements * per_block).chunks_exact_mut(rows * per_block),
            ));
        }
        let mut parts = Vec::with_capacity(self.blocks * tiles.len());
        let mut chunks = chunks.as_mut_slice();
        for of_expert in by_expert(tiles) {
            let chunks = take(&mut chunks, of_expert.len());
            for _ in 0..self.blocks {
                parts.extend(chunks.iter_mut().filter_map(|(form, strips, values, scales, sums)| {
                    let bfloats = strips.each_mut().map(|strip| strip.next().unwrap_or_default());
                    Some(ActivationTileMut {
                        values: values.next()?,
                        scales: scales.next()?,
                        sums: sums.next()?,
                        factor,
                        bfloats: (*form == Form::Bfloat16).then_some(bfloats),
                    })
                }));
            }
        }
        parts
    }
}

/// One block of columns of a tile, to be filled by [`ActivationTileMut::quantize`].
pub(crate) struct ActivationTileMut<'a> {
    values: &'a mut [i8],
    scales: &'a mut [f32],
    sums: &'a mut [i32],
    factor: i32,
    /// Of a tile in this form, which has nothing else.
    bfloats: Option<[&'a mut [u16]; STRIPS]>,
}

impl ActivationTileMut<'_> {
    /// Quantizes the rows of the tile, or rounds them to bfloat16. Each has at most 32 columns; absent columns are zeros.
    ///
    /// Inlined into a function per instruction set, where the compiler vectorizes its loops.
    #[inline(always)]
    pub(crate) fn quantize<'a>(&mut self, rows: impl Iterator<Item = &'a [f32]>) {
        if let Some(bfloats) = &mut self.bfloats {
            let targets = bfloats.iter_mut().flat_map(|strip| strip.as_chunks_mut::<BLOCK_INPUTS>().0);
            for (row, rounded) in rows.zip(targets) {
                let (rounded, absent) = rounded.split_at_mut(row.len());
                for (x, rounded) in row.iter().zip(rounded) {
                    *rounded = round_to_bfloat16(*x);
                }
                absent.fill(0);
            }
            return;
        }
        let sums_per_block = self.sums.len() / self.scales.len().max(1);
        let (values, _) = self.values.as_chunks_mut::<BLOCK_INPUTS>();
        let sums = self.sums.chunks_exact_mut(sums_per_block.max(1));
        for (((row, values), scale), sums) in rows.zip(values).zip(self.scales.iter_mut()).zip(sums) {
            *scale = match row.first_chunk() {
                Some(row) => quantize_row(row, values, sums, self.factor),
                None => {
                    let mut padded = [0.0; BLOCK_INPUTS];
                    padded[..row.len()].copy_from_slice(row);
                    quantize_row(&padded, values, sums, self.factor)
                }
            };
        }
    }
}

/// The rows of a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActivationRows<'a> {
    pub(crate) activations: &'a QuantizedActivations,
    pub(crate) tile: Tile,
}

/// One block of columns of some rows of a tile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ActivationTile<'a> {
    pub(crate) values: &'a [[i8; BLOCK_INPUTS]],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i32],
}

impl<'a> ActivationRows<'a> {
    #[inline(always)]
    pub(crate) fn block(&self, block: usize) -> ActivationTile<'a> {
        let QuantizedActivations { blocks, values, scales, sums, row_sums, .. } = self.activations;
        let Tile { first, rows, .. } = self.tile;
        let (first, sums_per_block) = (first * blocks + block * rows, row_sums.per_block);
        let (values, _) = values[first * BLOCK_INPUTS..][..rows * BLOCK_INPUTS].as_chunks();
        let sums = &sums[first * sums_per_block..][..rows * sums_per_block];
        ActivationTile { values, scales: &scales[first..][..rows], sums }
    }

    /// The rows of a strip in bfloat16, `[blocks, rows, 32]`.
    #[cfg(target_arch = "x86_64")]
    pub(crate) fn strip(&self, strip: usize) -> &'a [[u16; BLOCK_INPUTS]] {
        let (rows, _) = self.activations.bfloats.as_chunks();
        &rows[(self.tile.first + strip * STRIP_ROWS) * self.activations.blocks..]
    }
}

/// The upper half of the nearest float32 that has no lower half, ties away from zero; NaN for NaN.
#[inline(always)]
fn round_to_bfloat16(x: f32) -> u16 {
    let bits = x.to_bits();
    let rounded = bits.wrapping_add(0x8000) >> 16;
    // Rounding could carry a NaN to infinity or zero.
    (if x.is_nan() { bits >> 16 | 0x40 } else { rounded }) as u16
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
    // In two steps, each of which the compiler vectorizes.
    let mut rounded = [0; BLOCK_INPUTS];
    for (rounded, x) in rounded.iter_mut().zip(x) {
        *rounded = (x * inverse + ROUND_TO_INTEGER).to_bits();
    }
    for (value, rounded) in values.iter_mut().zip(rounded) {
        *value = rounded as i8;
    }
    let columns = BLOCK_INPUTS / sums.len();
    for (sum, values) in sums.iter_mut().zip(values.chunks_exact(columns)) {
        *sum = values.iter().map(|value| i32::from(*value)).sum::<i32>() * factor;
    }
    scale
}

#[cfg(test)]
mod tests;
