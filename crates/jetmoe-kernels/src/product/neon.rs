//! NEON with the dot product of ARMv8.2: 4 rows of a panel at a time.

use std::arch::aarch64::*;
use std::arch::asm;

use half::f16;

use super::{Block, Codes, PIECE, for_each_form, round_rows};
use crate::Activation;
use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::rounded::RowsOf;

/// Rows that a register holds one number of.
const QUARTET: usize = 4;
const QUARTETS: usize = PANEL_ROWS / QUARTET;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply_codes(codes: &Codes<'_>, rows: &RowsOf<'_>, products: &mut [f32]) {
    for_each_form!(codes, blocks(codes, rows, products));
}

/// Scales and zero points of 4 rows: of a group, or of both groups of a block.
#[derive(Clone, Copy)]
struct Groups {
    scales: [float32x4_t; 2],
    zero_points: [int32x4_t; 2],
}

/// Rows that are multiplied with a block before the next: their sums lie in the first cache.
const ROWS: usize = 32;

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn blocks<const BITS: usize, const HALVES: bool, const POINTS: bool>(
    codes: &Codes<'_>,
    rows: &RowsOf<'_>,
    products: &mut [f32],
) {
    let block_bytes = codes.layout.element.block_bytes();
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    let parts = if HALVES { 2 } else { 1 };
    products.as_flattened_mut().fill(0.0);
    for (index, products) in products.chunks_mut(ROWS).enumerate() {
        let rows = rows.part(index * ROWS, products.len());
        for (block, bytes) in codes.panel.codes.chunks_exact(block_bytes).enumerate() {
            let x = rows.block(block);
            for quartet in 0..QUARTETS {
                let groups = groups::<HALVES, POINTS>(codes, block, quartet);
                let weights = weights::<BITS>(bytes, quartet);
                let rows = x.values.iter().zip(x.scales).zip(x.sums.chunks_exact(parts));
                for (((values, scale), sums), products) in rows.zip(products.iter_mut()) {
                    let products = &mut products[quartet * QUARTET..];
                    let sum = load_floats(products);
                    let sum = row::<BITS, HALVES, POINTS>(&weights, &groups, (values, *scale, sums), sum);
                    store(products, sum);
                }
            }
        }
    }
}

/// Adds the products of a block of one row with the same block of 4 rows of the weight.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn row<const BITS: usize, const HALVES: bool, const POINTS: bool>(
    weights: &[int8x16_t; 8],
    groups: &Groups,
    (values, scale, sums): (&[i8; BLOCK_INPUTS], f32, &[i32]),
    sum: float32x4_t,
) -> float32x4_t {
    let (values, _) = values.as_chunks::<16>();
    let (halves, _) = weights.as_chunks::<4>();
    let first = dots(vdupq_n_s32(0), &halves[0], load_signed(&values[0]));
    let (totals, parts) = if HALVES {
        ([first, dots(vdupq_n_s32(0), &halves[1], load_signed(&values[1]))], 2)
    } else {
        ([dots(first, &halves[1], load_signed(&values[1])); 2], 1)
    };
    let mut scaled = vdupq_n_f32(0.0);
    for (part, sum) in sums.iter().enumerate().take(parts) {
        let total = if POINTS {
            vmlsq_n_s32(totals[part], groups.zero_points[part], *sum)
        } else if BITS == 4 {
            vsubq_s32(totals[part], vdupq_n_s32(*sum))
        } else {
            totals[part]
        };
        scaled = vfmaq_f32(scaled, vcvtq_f32_s32(total), groups.scales[part]);
    }
    vfmaq_n_f32(sum, scaled, scale)
}

/// Adds the sums of codes times values over 16 columns, for 4 rows of the weight.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dots(sums: int32x4_t, weights: &[int8x16_t; 4], values: int8x16_t) -> int32x4_t {
    let sums = dot::<0>(sums, weights[0], values);
    let sums = dot::<1>(sums, weights[1], values);
    let sums = dot::<2>(sums, weights[2], values);
    dot::<3>(sums, weights[3], values)
}

/// Adds the dot products of each row's 4 codes with the same 4 of the values.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn dot<const FOUR: u32>(sums: int32x4_t, weights: int8x16_t, values: int8x16_t) -> int32x4_t {
    let mut sums = sums;
    // SAFETY: the instruction works on these registers alone. Its intrinsic is not stable yet (rust-lang/rust#117224).
    unsafe {
        asm!(
            "sdot {sums:v}.4s, {weights:v}.16b, {values:v}.4b[{four}]",
            sums = inout(vreg) sums,
            weights = in(vreg) weights,
            values = in(vreg) values,
            four = const FOUR,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The codes of a block of 4 rows, 4 columns to a register: of 4 bits as they are, of 8 bits as numbers around zero.
#[inline]
#[target_feature(enable = "neon,dotprod")]
fn weights<const BITS: usize>(block: &[u8], quartet: usize) -> [int8x16_t; 8] {
    let mut weights = [vdupq_n_s8(0); 8];
    let (pieces, _) = block.as_chunks::<PIECE>();
    for (index, piece) in pieces.iter().enumerate() {
        let (quartets, _) = piece.as_chunks::<16>();
        let bytes = load(&quartets[quartet]);
        if BITS == 4 {
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
fn groups<const HALVES: bool, const POINTS: bool>(codes: &Codes<'_>, block: usize, quartet: usize) -> Groups {
    let mut groups = Groups { scales: [vdupq_n_f32(0.0); 2], zero_points: [vdupq_n_s32(0); 2] };
    let parts = if HALVES { 2 } else { 1 };
    for part in 0..parts {
        let group = block / codes.blocks_of_group * parts + part;
        let first = group * PANEL_ROWS + quartet * QUARTET;
        groups.scales[part] = load_halves(&codes.panel.scales[first..]);
        if let (true, Some(points)) = (POINTS, codes.panel.zero_points) {
            let points = load_bytes(&points[first..]);
            // codes of 8 bits are taken as numbers around zero
            let middle = if codes.layout.element.bits() == 8 { 128 } else { 0 };
            groups.zero_points[part] = vsubq_s32(points, vdupq_n_s32(middle));
        }
    }
    groups
}

/// Rows of `x` that are multiplied at a time, with 16 rows of the panel: 16 of the 32 registers hold their sums.
const TILE: usize = 4;
/// Quartets that are multiplied at a time.
const SIDES: usize = 4;

#[target_feature(enable = "neon,dotprod")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(TILE * PANEL_ROWS).zip(x.chunks(TILE * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => tile::<1>(panel, x, columns, products),
            2 => tile::<2>(panel, x, columns, products),
            3 => tile::<3>(panel, x, columns, products),
            _ => tile::<TILE>(panel, x, columns, products),
        }
    }
}

#[inline]
#[target_feature(enable = "neon,dotprod")]
fn tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (pieces, _) = panel.as_chunks::<PIECE>();
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * columns..][..columns]);
    for first in (0..QUARTETS).step_by(SIDES) {
        let mut sums = [[vdupq_n_f32(0.0); SIDES]; ROWS];
        for (index, piece) in pieces.iter().enumerate() {
            let (quartets, _) = piece.as_chunks::<16>();
            for (side, bytes) in quartets[first..first + SIDES].iter().enumerate() {
                let bytes = vreinterpretq_u32_u8(load(bytes));
                let even = vreinterpretq_f32_u32(vshlq_n_u32::<16>(bytes));
                let odd = vreinterpretq_f32_u32(vandq_u32(bytes, vdupq_n_u32(0xFFFF_0000)));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[side] = vfmaq_n_f32(sums[side], even, x[2 * index]);
                    sums[side] = vfmaq_n_f32(sums[side], odd, x[2 * index + 1]);
                }
            }
        }
        for (products, sums) in products.chunks_exact_mut(PANEL_ROWS).zip(sums) {
            for (side, sum) in sums.into_iter().enumerate() {
                store(&mut products[(first + side) * QUARTET..], sum);
            }
        }
    }
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn round(x: &[f32], block: &mut Block<'_>) {
    round_rows(x, block);
}

#[target_feature(enable = "neon,dotprod")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

#[inline]
#[target_feature(enable = "neon")]
fn load(bytes: &[u8; 16]) -> uint8x16_t {
    // SAFETY: reads 16 bytes, which the array has; the instruction takes any address.
    unsafe { vld1q_u8(bytes.as_ptr()) }
}

#[inline]
#[target_feature(enable = "neon")]
fn load_signed(bytes: &[i8; 16]) -> int8x16_t {
    // SAFETY: reads 16 bytes, which the array has; the instruction takes any address.
    unsafe { vld1q_s8(bytes.as_ptr()) }
}

/// The first 4 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn load_floats(numbers: &[f32]) -> float32x4_t {
    let numbers = &numbers[..QUARTET];
    // SAFETY: reads 4 numbers, which the slice has; the instruction takes any address.
    unsafe { vld1q_f32(numbers.as_ptr()) }
}

/// The first 4 numbers, as float32.
#[inline]
#[target_feature(enable = "neon")]
fn load_halves(numbers: &[f16]) -> float32x4_t {
    let numbers = &numbers[..QUARTET];
    // SAFETY: reads 4 numbers of 16 bits, which the slice has; the instruction takes any address.
    let bits = unsafe { vld1_u16(numbers.as_ptr().cast()) };
    vcvt_f32_f16(vreinterpret_f16_u16(bits))
}

/// The first 4 bytes, as integers of 32 bits.
#[inline]
#[target_feature(enable = "neon")]
fn load_bytes(bytes: &[u8]) -> int32x4_t {
    let (fours, _) = bytes.as_chunks::<4>();
    let bytes = vreinterpret_u8_u32(vdup_n_u32(u32::from_ne_bytes(fours[0])));
    vreinterpretq_s32_u32(vmovl_u16(vget_low_u16(vmovl_u8(bytes))))
}

/// Into the first 4 numbers.
#[inline]
#[target_feature(enable = "neon")]
fn store(numbers: &mut [f32], values: float32x4_t) {
    let numbers = &mut numbers[..QUARTET];
    // SAFETY: writes 4 numbers, which the slice has; the instruction takes any address.
    unsafe { vst1q_f32(numbers.as_mut_ptr(), values) }
}
