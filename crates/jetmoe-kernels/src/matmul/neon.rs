//! NEON with the dot product of ARMv8.2: 4 rows of a panel at a time.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;
use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, Panel};

use super::float32::{self, FloatRows};
use super::{LANE_GROUP_BYTES, LANE_GROUPS, QuantizedPanel, block_bytes, dispatch_code_width};
use crate::Activation;
use crate::packed_input::{ActivationRows, ActivationTileMut};

/// 32-bit lanes of a vector: rows of a panel that it holds one number of.
pub(super) const LANES: usize = 4;
/// Vectors of a lane group.
pub(super) const VECTORS: usize = PANEL_ROWS / LANES;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    dispatch_code_width!(weight, multiply_rows(weight, rows, products));
}

/// Scales and zero points of 4 rows of a panel, for each group of a block.
#[derive(Clone, Copy)]
pub(super) struct Groups<const GROUPS: usize> {
    scales: [float32x4_t; GROUPS],
    zero_points: [int32x4_t; GROUPS],
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    let bytes_per_block = block_bytes(BITS);
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    products.as_flattened_mut().fill(0.0);
    for (block, codes) in weight.panel.codes.chunks_exact(bytes_per_block).enumerate() {
        let x = rows.block(block);
        for vector in 0..VECTORS {
            // Unpack once, then multiply with every row.
            let groups = load_groups::<GROUPS, ZERO_POINTS>(weight, block, vector);
            let weights = load_weights::<BITS>(codes, vector);
            let rows = x.values.iter().zip(x.scales).zip(x.sums.as_chunks::<GROUPS>().0);
            for (((values, scale), sums), products) in rows.zip(products.iter_mut()) {
                let products = &mut products[vector * LANES..];
                let row = (values, *scale, sums);
                add_block::<BITS, GROUPS, ZERO_POINTS>(&weights, &groups, row, products);
            }
        }
    }
}

/// Adds the products of a block of one input row with the same block of 4 rows of the panel.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn add_block<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weights: &[int8x16_t; LANE_GROUPS],
    groups: &Groups<GROUPS>,
    (values, scale, row_sums): (&[i8; BLOCK_INPUTS], f32, &[i32; GROUPS]),
    products: &mut [f32],
) {
    // Each half of the block has 16 columns: one register of values, four of codes.
    let (values, _) = values.as_chunks::<16>();
    let (halves, _) = weights.as_chunks::<4>();
    let mut totals = [vdupq_n_s32(0); GROUPS];
    for (half, (weights, values)) in halves.iter().zip(values).enumerate() {
        let total = &mut totals[half * GROUPS / 2];
        *total = dot_columns(*total, weights, load_signed(values));
    }
    add_totals::<BITS, GROUPS, ZERO_POINTS>(&totals, groups, (scale, row_sums), products);
}

/// Adds the sums of codes times values of one input row, for each group of a block and 4 rows of the panel, to their products.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn add_totals<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    totals: &[int32x4_t; GROUPS],
    groups: &Groups<GROUPS>,
    (scale, row_sums): (f32, &[i32; GROUPS]),
    products: &mut [f32],
) {
    let mut scaled = vdupq_n_f32(0.0);
    for (group, row_sum) in row_sums.iter().enumerate() {
        // Σ (code − zero point) · value = Σ code · value − zero point · Σ value
        let total = if ZERO_POINTS {
            vmlsq_n_s32(totals[group], groups.zero_points[group], *row_sum)
        } else if BITS == 4 {
            vaddq_s32(totals[group], vdupq_n_s32(*row_sum))
        } else {
            totals[group]
        };
        // Multiply by the weight's scales, and at the end by the row's.
        scaled = vfmaq_f32(scaled, vcvtq_f32_s32(total), groups.scales[group]);
    }
    store(products, vfmaq_n_f32(load_floats(products), scaled, scale));
}

/// Adds the sums of codes times values over 16 columns, for 4 rows of the panel.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_columns(sums: int32x4_t, weights: &[int8x16_t; 4], values: int8x16_t) -> int32x4_t {
    let sums = dot_lane::<0>(sums, weights[0], values);
    let sums = dot_lane::<1>(sums, weights[1], values);
    let sums = dot_lane::<2>(sums, weights[2], values);
    dot_lane::<3>(sums, weights[3], values)
}

/// Adds the dot products of each row's 4 codes with 4 of the values, those of one lane.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot_lane<const LANE: u32>(sums: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the instruction uses these registers only. Its intrinsic is not stable yet (rust-lang/rust#117224).
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {values:v}.4b[{lane}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            values = in(vreg) values,
            lane = const LANE,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// Unpacks the codes of a block for 4 rows of the panel, 4 columns per vector: 4-bit codes as they are, 8-bit codes centred
/// at zero.
#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn load_weights<const BITS: usize>(block: &[u8], vector: usize) -> [int8x16_t; LANE_GROUPS] {
    let mut weights = [vdupq_n_s8(0); LANE_GROUPS];
    let (lane_groups, _) = block.as_chunks::<LANE_GROUP_BYTES>();
    for (index, lane_group) in lane_groups.iter().enumerate() {
        let (vectors, _) = lane_group.as_chunks::<16>();
        let bytes = load(&vectors[vector]);
        if BITS == 4 {
            // The low halves are columns 8 i to 8 i + 3, the high halves the next four.
            weights[2 * index] = vreinterpretq_s8_u8(vandq_u8(bytes, vdupq_n_u8(0x0F)));
            weights[2 * index + 1] = vreinterpretq_s8_u8(vshrq_n_u8::<4>(bytes));
        } else {
            weights[index] = vreinterpretq_s8_u8(veorq_u8(bytes, vdupq_n_u8(0x80)));
        }
    }
    weights
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
pub(super) fn load_groups<const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    block: usize,
    vector: usize,
) -> Groups<GROUPS> {
    let mut groups = Groups { scales: [vdupq_n_f32(0.0); GROUPS], zero_points: [vdupq_n_s32(0); GROUPS] };
    for index in 0..GROUPS {
        let group = block / weight.blocks_per_group * GROUPS + index;
        let first = group * PANEL_ROWS + vector * LANES;
        groups.scales[index] = load_halves(&weight.panel.scales[first..]);
        if let (true, Some(zero_points)) = (ZERO_POINTS, weight.panel.zero_points) {
            // Centre zero points like the codes.
            let centre = if weight.layout.scheme.format.bits() == 8 { 128 } else { 0 };
            let zero_points = load_bytes(&zero_points[first..]);
            groups.zero_points[index] = vsubq_s32(zero_points, vdupq_n_s32(centre));
        }
    }
    groups
}

/// Input rows of a bfloat16 tile.
const MR: usize = 4;
/// Vectors of a bfloat16 tile: the sums of 16 rows of the panel take 16 of the 32 registers.
const NR_VECTORS: usize = 4;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(MR * PANEL_ROWS).zip(x.chunks(MR * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => multiply_bf16_tile::<1>(panel, x, columns, products),
            2 => multiply_bf16_tile::<2>(panel, x, columns, products),
            3 => multiply_bf16_tile::<3>(panel, x, columns, products),
            _ => multiply_bf16_tile::<MR>(panel, x, columns, products),
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn multiply_bf16_tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (lane_groups, _) = panel.as_chunks::<LANE_GROUP_BYTES>();
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * columns..][..columns]);
    for first in (0..VECTORS).step_by(NR_VECTORS) {
        let mut sums = [[vdupq_n_f32(0.0); NR_VECTORS]; ROWS];
        for (index, lane_group) in lane_groups.iter().enumerate() {
            let (vectors, _) = lane_group.as_chunks::<16>();
            for (vector, bytes) in vectors[first..first + NR_VECTORS].iter().enumerate() {
                // Widen an even and the following odd column: a bfloat16 is the upper half of a float32.
                let bytes = vreinterpretq_u32_u8(load(bytes));
                let even = vreinterpretq_f32_u32(vshlq_n_u32::<16>(bytes));
                let odd = vreinterpretq_f32_u32(vandq_u32(bytes, vdupq_n_u32(0xFFFF_0000)));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[vector] = vfmaq_n_f32(sums[vector], even, x[2 * index]);
                    sums[vector] = vfmaq_n_f32(sums[vector], odd, x[2 * index + 1]);
                }
            }
        }
        for (products, sums) in products.chunks_exact_mut(PANEL_ROWS).zip(sums) {
            for (vector, sum) in sums.into_iter().enumerate() {
                store(&mut products[(first + vector) * LANES..], sum);
            }
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply_float32(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    float32::multiply::<true>(panels, layout, rows, products);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn quantize<'a>(rows: impl Iterator<Item = &'a [f32]>, tile: &mut ActivationTileMut<'_>) {
    tile.quantize(rows);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: reads 16 bytes, which the array has; the instruction accepts any alignment.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
pub(super) fn load_signed(bytes: &[i8; 16]) -> int8x16_t {
    // SAFETY: reads 16 bytes, which the array has; the instruction accepts any alignment.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}

/// Loads the first 4 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn load_floats(numbers: &[f32]) -> float32x4_t {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 4 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { vld1q_f32(numbers.as_ptr()) }
}

/// Loads the first 4 float16 numbers as float32.
#[inline]
#[target_feature(enable = "neon")]
fn load_halves(numbers: &[f16]) -> float32x4_t {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 4 numbers of 16 bits, which the slice has; the instruction accepts any alignment.
    let bits = unsafe { vld1_u16(numbers.as_ptr().cast()) };
    vcvt_f32_f16(vreinterpret_f16_u16(bits))
}

/// Loads the first 4 bytes as 32-bit integers.
#[inline]
#[target_feature(enable = "neon")]
fn load_bytes(bytes: &[u8]) -> int32x4_t {
    let (fours, _) = bytes.as_chunks::<4>();
    let bytes = vreinterpret_u8_u32(vdup_n_u32(u32::from_ne_bytes(fours[0])));
    vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
}

/// Stores into the first 4 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn store(numbers: &mut [f32], values: float32x4_t) {
    let numbers = &mut numbers[..LANES];
    // SAFETY: writes 4 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { vst1q_f32(numbers.as_mut_ptr(), values) }
}
