//! Rows as the products take them.

use crate::layout::{BLOCK_INPUTS, Layout};
use crate::weight::Weight;
use crate::{Element, GroupSize};

/// Rows rounded to 8 bits, 32 columns at a time with a scale of their own, in the order of the blocks: what a block of a
/// panel is multiplied with lies together.
#[derive(Debug)]
pub(crate) struct Rounded {
    pub(crate) rows: usize,
    /// `[blocks, rows, 32]`
    pub(crate) values: Vec<i8>,
    /// `[blocks, rows]`; no number where a column of the block was infinite or none.
    pub(crate) scales: Vec<f32>,
    /// Sums of the values of a block, times the code that stands for zero where it is the same everywhere: `[blocks,
    /// rows]`, or `[blocks, rows, 2]` with a sum for each half where groups are of 16.
    pub(crate) sums: Vec<i32>,
    pub(crate) sums_of: SumsOf,
}

/// How the sums of a block are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SumsOf {
    /// Sums of a block: 2 for groups of 16.
    pub(crate) parts: usize,
    /// What they are multiplied with.
    pub(crate) factor: i32,
}

impl SumsOf {
    pub(crate) fn new(weight: &Weight<'_>) -> Self {
        let element = weight.layout().element;
        let parts = if element.group_size() == Some(GroupSize::G16) { 2 } else { 1 };
        let factor = match element {
            _ if weight.has_zero_points() => 1,
            _ => i32::from(element.middle()),
        };
        SumsOf { parts, factor }
    }
}

/// Rows as float32 with columns filled up to whole blocks, `[rows, blocks, 32]`.
#[derive(Debug)]
pub(crate) struct Floats {
    pub(crate) columns: usize,
    pub(crate) values: Vec<f32>,
}

/// Rows in the form that a weight is multiplied with.
#[derive(Debug)]
pub(crate) enum Rows {
    Rounded(Rounded),
    Floats(Floats),
}

impl Rows {
    /// Room for so many rows of a weight's inputs.
    pub(crate) fn new(weight: &Weight<'_>, rows: usize) -> Self {
        let Layout { element, .. } = *weight.layout();
        let blocks = weight.layout().blocks();
        match element {
            Element::Bf16 => {
                let columns = blocks * BLOCK_INPUTS;
                Rows::Floats(Floats { columns, values: vec![0.0; rows * columns] })
            }
            Element::Int4(_) | Element::Int8(_) => {
                let sums_of = SumsOf::new(weight);
                Rows::Rounded(Rounded {
                    rows,
                    values: vec![0; blocks * rows * BLOCK_INPUTS],
                    scales: vec![0.0; blocks * rows],
                    sums: vec![0; blocks * rows * sums_of.parts],
                    sums_of,
                })
            }
        }
    }
}

/// The rows of one expert among those of a product.
#[derive(Debug, Clone, Copy)]
pub(crate) struct RowsOf<'a> {
    pub(crate) rounded: &'a Rounded,
    pub(crate) first: usize,
    pub(crate) count: usize,
}

/// A block of rows.
#[derive(Debug, Clone, Copy)]
pub(crate) struct BlockRows<'a> {
    pub(crate) values: &'a [[i8; BLOCK_INPUTS]],
    pub(crate) scales: &'a [f32],
    pub(crate) sums: &'a [i32],
}

impl<'a> RowsOf<'a> {
    #[inline(always)]
    pub(crate) fn block(&self, block: usize) -> BlockRows<'a> {
        let Rounded { rows, values, scales, sums, sums_of } = self.rounded;
        let (first, parts) = (block * rows + self.first, sums_of.parts);
        let (values, _) = values[first * BLOCK_INPUTS..][..self.count * BLOCK_INPUTS].as_chunks();
        let sums = &sums[first * parts..][..self.count * parts];
        BlockRows { values, scales: &scales[first..][..self.count], sums }
    }

    /// Some of them.
    pub(crate) fn part(&self, first: usize, count: usize) -> Self {
        RowsOf { first: self.first + first, count, ..*self }
    }
}

/// Rounds a block of a row.
///
/// Inlined into a function for each instruction set, where its loops are vectorised.
#[inline(always)]
pub(crate) fn round(
    x: &[f32; BLOCK_INPUTS],
    values: &mut [i8; BLOCK_INPUTS],
    sums: &mut [i32],
    factor: i32,
) -> f32 {
    // adding it leaves the nearest integer in the lowest bits of the sum
    const ROUND: f32 = 12_582_912.0;
    // the bits of what has no sign compare as the numbers do, and what is infinite or no number is above all
    let largest = x.iter().fold(0, |largest: u32, x| largest.max(x.to_bits() & 0x7FFF_FFFF));
    let largest = f32::from_bits(largest);
    if !largest.is_finite() {
        values.fill(0);
        sums.fill(0);
        return f32::NAN;
    }
    let scale = largest / 127.0;
    let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
    for (value, x) in values.iter_mut().zip(x) {
        *value = (x * inverse + ROUND).to_bits() as i8;
    }
    let columns = BLOCK_INPUTS / sums.len();
    for (sum, values) in sums.iter_mut().zip(values.chunks_exact(columns)) {
        *sum = values.iter().map(|value| i32::from(*value)).sum::<i32>() * factor;
    }
    scale
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_is_rounded_to_the_nearest_of_255_steps() {
        let x: [f32; 32] = std::array::from_fn(|column| column as f32 - 20.3);
        let (mut values, mut sums) = ([0; 32], [0; 2]);
        let scale = round(&x, &mut values, &mut sums, 1);
        for (value, x) in values.iter().zip(x) {
            assert!((f32::from(*value) * scale - x).abs() <= 0.5001 * scale);
        }
        assert_eq!(values[0], -127);
        assert_eq!(sums[0], values[..16].iter().map(|value| i32::from(*value)).sum::<i32>());
        assert_eq!(sums[1], values[16..].iter().map(|value| i32::from(*value)).sum::<i32>());
    }

    #[test]
    fn nothing_but_numbers_is_rounded() {
        for odd in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = [1.0; 32];
            x[17] = odd;
            let (mut values, mut sums) = ([1; 32], [1]);
            assert!(round(&x, &mut values, &mut sums, 1).is_nan());
            assert_eq!((values, sums), ([0; 32], [0]));
        }
    }

    #[test]
    fn zeros_and_what_is_nearly_zero_become_zeros() {
        for small in [0.0, -0.0, 1e-40, f32::MIN_POSITIVE] {
            let (mut values, mut sums) = ([1; 32], [1]);
            let scale = round(&[small; 32], &mut values, &mut sums, 1);
            assert!(scale.is_finite() && values == [0; 32]);
        }
    }
}
