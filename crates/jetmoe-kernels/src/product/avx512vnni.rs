//! AVX-512 with VNNI: 16 rows of a panel at a time, and a dot product of four codes and values in one instruction.

use std::arch::x86_64::*;

use half::f16;

use super::avx2::{AHEAD, HALF, ahead};
use super::{Block, Codes, PIECE, for_each_form, round_rows};
use crate::Activation;
use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::rounded::RowsOf;

/// Rows that a register holds one number of.
pub(super) const LANES: usize = 16;
/// Rows that are multiplied with a block before the next: their sums lie in the first cache.
const ROWS: usize = 64;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(codes: &Codes<'_>, rows: &RowsOf<'_>, products: &mut [f32]) {
    for_each_form!(codes, blocks(codes, rows, products));
}

/// Scales and zero points of 16 rows: of a group, or of both groups of a block.
#[derive(Clone, Copy)]
pub(super) struct Groups {
    scales: [__m512; 2],
    /// Below zero in the lower 16 bits, nothing in the upper: what `vpdpwssd` takes.
    zero_points: [__m512i; 2],
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn blocks<const BITS: usize, const HALVES: bool, const POINTS: bool>(
    codes: &Codes<'_>,
    rows: &RowsOf<'_>,
    products: &mut [f32],
) {
    let parts = if HALVES { 2 } else { 1 };
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    products.as_flattened_mut().fill(0.0);
    for (index, products) in products.chunks_mut(ROWS).enumerate() {
        let rows = rows.part(index * ROWS, products.len());
        for (block, bytes) in codes.panel.codes.chunks_exact(codes.layout.element.block_bytes()).enumerate() {
            let x = rows.block(block);
            ask_ahead(codes, block, bytes);
            for side in 0..PANEL_ROWS / LANES {
                let groups = groups::<HALVES, POINTS>(codes, block, side);
                let weights = weights::<BITS>(bytes, side);
                let rows = x.values.iter().zip(x.scales).zip(x.sums.chunks_exact(parts));
                for (((values, scale), sums), products) in rows.zip(products.iter_mut()) {
                    let totals = dots::<HALVES>(&weights, values);
                    add::<HALVES, POINTS>(totals, &groups, *scale, sums, &mut products[side * LANES..]);
                }
            }
        }
    }
}

/// Sums of codes times values, for 16 rows of the weight: of a block, or of each of its halves.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn dots<const HALVES: bool>(weights: &[__m512i; 8], values: &[i8; BLOCK_INPUTS]) -> [__m512i; 2] {
    let (fours, _) = values.as_chunks::<4>();
    let mut totals = [_mm512_setzero_si512(); 2];
    for (index, (weights, four)) in weights.iter().zip(fours).enumerate() {
        let values = _mm512_set1_epi32(i32::from_ne_bytes(four.map(|value| value as u8)));
        let total = if HALVES { &mut totals[index / HALF] } else { &mut totals[0] };
        *total = _mm512_dpbusd_epi32(*total, *weights, values);
    }
    totals
}

/// Adds what a block gave to 16 products of a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn add<const HALVES: bool, const POINTS: bool>(
    totals: [__m512i; 2],
    groups: &Groups,
    scale: f32,
    sums: &[i32],
    products: &mut [f32],
) {
    let parts = if HALVES { 2 } else { 1 };
    let mut scaled = _mm512_setzero_ps();
    for (part, sum) in sums.iter().enumerate().take(parts) {
        let sum = _mm512_set1_epi32(*sum);
        let total = if POINTS {
            // both factors fit into 16 bits: the sum of 32 values is at most 32 · 127
            _mm512_dpwssd_epi32(totals[part], groups.zero_points[part], sum)
        } else {
            _mm512_sub_epi32(totals[part], sum)
        };
        let total = _mm512_cvtepi32_ps(total);
        scaled = match part {
            0 => _mm512_mul_ps(total, groups.scales[0]),
            _ => _mm512_fmadd_ps(total, groups.scales[1], scaled),
        };
    }
    let sum = load_floats(products);
    store(products, _mm512_fmadd_ps(scaled, _mm512_set1_ps(scale), sum));
}

/// The codes of a block of 16 rows, 4 columns to a register.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn weights<const BITS: usize>(block: &[u8], side: usize) -> [__m512i; 8] {
    let mut weights = [_mm512_setzero_si512(); 8];
    let (pieces, _) = block.as_chunks::<PIECE>();
    for (index, piece) in pieces.iter().enumerate() {
        let (sides, _) = piece.as_chunks::<64>();
        let bytes = load(&sides[side]);
        if BITS == 4 {
            let mask = _mm512_set1_epi8(0x0F);
            weights[2 * index] = _mm512_and_si512(bytes, mask);
            weights[2 * index + 1] = _mm512_and_si512(_mm512_srli_epi16::<4>(bytes), mask);
        } else {
            weights[index] = bytes;
        }
    }
    weights
}

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn groups<const HALVES: bool, const POINTS: bool>(
    codes: &Codes<'_>,
    block: usize,
    side: usize,
) -> Groups {
    let mut groups = Groups { scales: [_mm512_setzero_ps(); 2], zero_points: [_mm512_setzero_si512(); 2] };
    let parts = if HALVES { 2 } else { 1 };
    for part in 0..parts {
        let group = block / codes.blocks_of_group * parts + part;
        let first = group * PANEL_ROWS + side * LANES;
        groups.scales[part] = load_halves(&codes.panel.scales[first..]);
        if let (true, Some(points)) = (POINTS, codes.panel.zero_points) {
            let below_zero = _mm512_sub_epi32(_mm512_setzero_si512(), load_bytes(&points[first..]));
            groups.zero_points[part] = _mm512_and_si512(below_zero, _mm512_set1_epi32(0xFFFF));
        }
    }
    groups
}

/// Rows of `x` that are multiplied at a time, with a whole panel: their sums are half of the registers.
const TILE: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(TILE * PANEL_ROWS).zip(x.chunks(TILE * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => tile::<1>(panel, x, columns, products),
            2 => tile::<2>(panel, x, columns, products),
            3 => tile::<3>(panel, x, columns, products),
            4 => tile::<4>(panel, x, columns, products),
            5 => tile::<5>(panel, x, columns, products),
            6 => tile::<6>(panel, x, columns, products),
            7 => tile::<7>(panel, x, columns, products),
            _ => tile::<TILE>(panel, x, columns, products),
        }
    }
}

/// In float32: the instructions for products of bfloat16 would round `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (pieces, _) = panel.as_chunks::<PIECE>();
    let x: [&[[f32; 2]]; ROWS] =
        std::array::from_fn(|row| &x[row * columns..][..columns].as_chunks().0[..pieces.len()]);
    let mut sums = [[_mm512_setzero_ps(); 2]; ROWS];
    for (index, piece) in pieces.iter().enumerate() {
        let (sides, _) = piece.as_chunks::<64>();
        for (side, bytes) in sides.iter().enumerate() {
            ahead(bytes.as_ptr().wrapping_add(AHEAD));
            let bytes = load(bytes);
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bytes));
            let odd = _mm512_castsi512_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(0xFFFF_0000_u32 as i32)));
            for (sums, x) in sums.iter_mut().zip(x) {
                let pair = x[index];
                sums[side] = _mm512_fmadd_ps(even, _mm512_set1_ps(pair[0]), sums[side]);
                sums[side] = _mm512_fmadd_ps(odd, _mm512_set1_ps(pair[1]), sums[side]);
            }
        }
    }
    for (products, sums) in products.chunks_exact_mut(PANEL_ROWS).zip(sums) {
        store(products, sums[0]);
        store(&mut products[LANES..], sums[1]);
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn round(x: &[f32], block: &mut Block<'_>) {
    round_rows(x, block);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

/// Asks memory for the codes and scales that are needed a little later.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn ask_ahead(codes: &Codes<'_>, block: usize, bytes: &[u8]) {
    for line in (0..bytes.len()).step_by(64) {
        ahead(bytes.as_ptr().wrapping_add(line + AHEAD));
    }
    let groups = codes.layout.groups() * (block + AHEAD / bytes.len().max(1)) / codes.layout.blocks().max(1);
    ahead(codes.panel.scales.as_ptr().wrapping_add(groups * PANEL_ROWS));
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads 64 bytes, which the array has; the instruction takes any address.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// 16 integers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_integers(integers: &[i32; LANES]) -> __m512i {
    // SAFETY: reads 16 numbers, which the array has; the instruction takes any address.
    unsafe { _mm512_loadu_si512(integers.as_ptr().cast()) }
}

/// The first 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(numbers: &[f32]) -> __m512 {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 16 numbers, which the slice has; the instruction takes any address.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

/// The first 16 numbers, as float32.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_halves(numbers: &[f16]) -> __m512 {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 16 numbers of 16 bits, which the slice has; the instruction takes any address.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}

/// The first 16 bytes, as integers of 32 bits.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..LANES];
    // SAFETY: reads 16 bytes, which the slice has; the instruction takes any address.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Into the first 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(numbers: &mut [f32], values: __m512) {
    let numbers = &mut numbers[..LANES];
    // SAFETY: writes 16 numbers, which the slice has; the instruction takes any address.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), values) }
}

/// Into 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_bytes(bytes: &mut [u8; 64], values: __m512i) {
    // SAFETY: writes 64 bytes, which the array has; the instruction takes any address.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), values) }
}
