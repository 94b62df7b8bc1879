//! NEON with the matrix products of 8-bit integers of ARMv8.6 (i8mm): 2 input rows and 4 rows of a panel at a time.

use std::arch::aarch64::*;
use std::arch::asm;

use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS};

use super::neon::{self, LANES, VECTORS};
use super::{LANE_COLUMNS, LANE_GROUPS, QuantizedPanel, block_bytes, dispatch_code_width};
use crate::packed_input::{ActivationRows, INT8_ROWS};

// Nothing but products of several rows with codes is different.
pub(super) use super::neon::{gate, multiply_bf16, multiply_float32, quantize};

/// Columns of an operand of a matrix product, which holds those of two rows.
const COLUMNS: usize = 2 * LANE_COLUMNS;
/// Operands that hold two rows of a block.
const OPERANDS: usize = BLOCK_INPUTS / COLUMNS;

/// One block of two input rows.
type Pair = [int8x16_t; OPERANDS];

/// One block of 4 rows of a panel: for the same columns the first two rows, and the last two.
type Weights = [[int8x16_t; 2]; OPERANDS];

#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    // With one row, half of each matrix product would be unused.
    if rows.tile.rows == 1 {
        return neon::multiply_codes(weight, rows, products);
    }
    dispatch_code_width!(weight, multiply_rows(weight, rows, products));
}

#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    products.as_flattened_mut().fill(0.0);
    let mut pairs = [[vdupq_n_s8(0); OPERANDS]; INT8_ROWS.div_ceil(2)];
    let pairs = &mut pairs[..rows.tile.rows.div_ceil(2)];
    for (block, codes) in weight.panel.codes.chunks_exact(block_bytes(BITS)).enumerate() {
        let x = rows.block(block);
        // Pair the rows once for all vectors, an odd last one with itself.
        for (pair, values) in pairs.iter_mut().zip(x.values.chunks(2)) {
            *pair = pair_rows(&values[0], &values[values.len() - 1]);
        }
        // Two pairs at a time: each product waits for the one before it in its sum.
        let (twos, rest) = pairs.as_chunks::<2>();
        for vector in 0..VECTORS {
            // Unpack once, then multiply with every row.
            let groups = neon::load_groups::<GROUPS, ZERO_POINTS>(weight, block, vector);
            let weights = pair_panel_rows(neon::load_weights::<BITS>(codes, vector));
            let mut rows = products.iter_mut().zip(x.scales).zip(x.sums.as_chunks::<GROUPS>().0);
            let mut add = |totals: &[[int32x4_t; GROUPS]]| {
                for (totals, ((products, scale), sums)) in totals.iter().zip(rows.by_ref()) {
                    let (products, row) = (&mut products[vector * LANES..], (*scale, sums));
                    neon::add_totals::<BITS, GROUPS, ZERO_POINTS>(totals, &groups, row, products);
                }
            };
            for pairs in twos {
                add(multiply_pairs(&weights, pairs).as_flattened());
            }
            for pair in rest {
                add(multiply_pairs(&weights, &[*pair]).as_flattened());
            }
        }
    }
}

/// Sums of codes times values of each group, for two input rows of each pair and 4 rows of the panel.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn multiply_pairs<const PAIRS: usize, const GROUPS: usize>(
    weights: &Weights,
    pairs: &[Pair; PAIRS],
) -> [[[int32x4_t; GROUPS]; 2]; PAIRS] {
    let mut totals = [[[vdupq_n_s32(0); GROUPS]; 2]; PAIRS];
    for group in 0..GROUPS {
        // For each pair, the products with the first two rows of the panel, and with the last two.
        let mut sums = [[vdupq_n_s32(0); 2]; PAIRS];
        let operands = OPERANDS / GROUPS;
        for operand in group * operands..(group + 1) * operands {
            for (sums, pair) in sums.iter_mut().zip(pairs) {
                for (sum, weights) in sums.iter_mut().zip(weights[operand]) {
                    *sum = add_matrix_product(*sum, pair[operand], weights);
                }
            }
        }
        // Each sum has those of the first input row in its lower half, and those of the second in its upper half.
        for (totals, [first, last]) in totals.iter_mut().zip(sums) {
            totals[0][group] = low_halves(first, last);
            totals[1][group] = high_halves(first, last);
        }
    }
    totals
}

/// Adds the products of two input rows with two rows of the panel over 8 columns: of the first input row with both, then of the
/// second.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn add_matrix_product(sums: int32x4_t, values: int8x16_t, weights: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the instruction uses these registers only. Its intrinsic is not stable yet (rust-lang/rust#117223).
    unsafe {
        asm!(
            "smmla {sums:v}.4s, {values:v}.16b, {weights:v}.16b",
            sums = inout(vreg) sums,
            values = in(vreg) values,
            weights = in(vreg) weights,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The same 8 columns of two rows in each operand.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn pair_rows(first: &[i8; BLOCK_INPUTS], second: &[i8; BLOCK_INPUTS]) -> Pair {
    let mut pair = [vdupq_n_s8(0); OPERANDS];
    let halves = first.as_chunks::<16>().0.iter().zip(second.as_chunks::<16>().0);
    for (operands, (first, second)) in pair.as_chunks_mut::<2>().0.iter_mut().zip(halves) {
        let first = vreinterpretq_s32_s8(neon::load_signed(first));
        let second = vreinterpretq_s32_s8(neon::load_signed(second));
        operands[0] = vreinterpretq_s8_s32(low_halves(first, second));
        operands[1] = vreinterpretq_s8_s32(high_halves(first, second));
    }
    pair
}

/// Joins 4 columns of 4 rows of the panel with the next 4 columns.
#[inline]
#[target_feature(enable = "neon,dotprod,i8mm")]
fn pair_panel_rows(weights: [int8x16_t; LANE_GROUPS]) -> Weights {
    let mut pairs = [[vdupq_n_s8(0); 2]; OPERANDS];
    for (pairs, [left, right]) in pairs.iter_mut().zip(weights.as_chunks::<2>().0) {
        let (left, right) = (vreinterpretq_s32_s8(*left), vreinterpretq_s32_s8(*right));
        pairs[0] = vreinterpretq_s8_s32(vzip1q_s32(left, right));
        pairs[1] = vreinterpretq_s8_s32(vzip2q_s32(left, right));
    }
    pairs
}

#[inline]
#[target_feature(enable = "neon")]
fn low_halves(first: int32x4_t, second: int32x4_t) -> int32x4_t {
    vreinterpretq_s32_s64(vzip1q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second)))
}

#[inline]
#[target_feature(enable = "neon")]
fn high_halves(first: int32x4_t, second: int32x4_t) -> int32x4_t {
    vreinterpretq_s32_s64(vzip2q_s64(vreinterpretq_s64_s32(first), vreinterpretq_s64_s32(second)))
}
