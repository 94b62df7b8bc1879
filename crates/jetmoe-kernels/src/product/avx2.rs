//! AVX2 with FMA and F16C: 8 rows of a panel at a time.

use std::arch::x86_64::*;

use half::f16;

use super::{Block, Codes, PIECE, for_each_form, round_rows};
use crate::Activation;
use crate::layout::{BLOCK_INPUTS, PANEL_ROWS};
use crate::rounded::RowsOf;

/// Rows that a register holds one number of.
const OCTET: usize = 8;
const OCTETS: usize = PANEL_ROWS / OCTET;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_codes(codes: &Codes<'_>, rows: &RowsOf<'_>, products: &mut [f32]) {
    for_each_form!(codes, blocks(codes, rows, products));
}

/// Scales and zero points of 8 rows: of a group, or of both groups of a block.
#[derive(Clone, Copy)]
struct Groups {
    scales: [__m256; 2],
    zero_points: [__m256i; 2],
}

/// Rows that are multiplied with a block before the next: their broadcasts and sums lie in the first cache.
const ROWS: usize = 32;

/// Where the columns of a half of a block end, in fours.
pub(super) const HALF: usize = BLOCK_INPUTS / 8;

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn blocks<const BITS: usize, const HALVES: bool, const POINTS: bool>(
    codes: &Codes<'_>,
    rows: &RowsOf<'_>,
    products: &mut [f32],
) {
    let block_bytes = codes.layout.element.block_bytes();
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    let parts = if HALVES { 2 } else { 1 };
    if let [products] = products {
        let mut sums = [_mm256_setzero_ps(); OCTETS];
        for (block, bytes) in codes.panel.codes.chunks_exact(block_bytes).enumerate() {
            let x = rows.block(block);
            let broadcasts = broadcast(&x.values[0]);
            let group = block / codes.blocks_of_group * parts * PANEL_ROWS;
            ahead(codes.panel.scales.as_ptr().wrapping_add(group + AHEAD / block_bytes * PANEL_ROWS * parts));
            for (octet, sum) in sums.iter_mut().enumerate() {
                for line in (0..block_bytes / OCTETS).step_by(64) {
                    ahead(bytes.as_ptr().wrapping_add(octet * block_bytes / OCTETS + line + AHEAD));
                }
                let groups = groups::<HALVES, POINTS>(codes, block, octet);
                let weights = weights::<BITS>(bytes, octet);
                let only = (&broadcasts, x.scales[0], x.sums);
                *sum = row::<BITS, HALVES, POINTS>(&weights, &groups, only, *sum);
            }
        }
        for (octet, sum) in sums.into_iter().enumerate() {
            store(&mut products[octet * OCTET..], sum);
        }
        return;
    }
    products.as_flattened_mut().fill(0.0);
    // a broadcast from memory takes a vector unit, and each is needed for every octet
    let mut broadcasts = [[_mm256_setzero_si256(); 8]; ROWS];
    for (index, products) in products.chunks_mut(ROWS).enumerate() {
        let rows = rows.part(index * ROWS, products.len());
        for (block, bytes) in codes.panel.codes.chunks_exact(block_bytes).enumerate() {
            let x = rows.block(block);
            for (broadcasts, values) in broadcasts.iter_mut().zip(x.values) {
                *broadcasts = broadcast(values);
            }
            for octet in 0..OCTETS {
                let groups = groups::<HALVES, POINTS>(codes, block, octet);
                let weights = weights::<BITS>(bytes, octet);
                let rows = broadcasts.iter().zip(x.scales).zip(x.sums.chunks_exact(parts));
                for (((broadcasts, scale), sums), products) in rows.zip(products.iter_mut()) {
                    let products = &mut products[octet * OCTET..];
                    let sum = load_floats(products);
                    let sum = row::<BITS, HALVES, POINTS>(&weights, &groups, (broadcasts, *scale, sums), sum);
                    store(products, sum);
                }
            }
        }
    }
}

/// Each 4 of the values in all places.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn broadcast(values: &[i8; BLOCK_INPUTS]) -> [__m256i; 8] {
    let (fours, _) = values.as_chunks::<4>();
    let mut broadcasts = [_mm256_setzero_si256(); 8];
    for (broadcast, four) in broadcasts.iter_mut().zip(fours) {
        *broadcast = _mm256_set1_epi32(i32::from_ne_bytes(four.map(|value| value as u8)));
    }
    broadcasts
}

/// Adds the products of a block of one row with the same block of 8 rows of the weight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn row<const BITS: usize, const HALVES: bool, const POINTS: bool>(
    weights: &[__m256i; 8],
    groups: &Groups,
    (values, scale, sums): (&[__m256i; 8], f32, &[i32]),
    sum: __m256,
) -> __m256 {
    let parts = if HALVES { 2 } else { 1 };
    let mut scaled = _mm256_setzero_ps();
    // over a number that is known when compiling: chunks of the slices were not unrolled, and four times as slow
    for (part, sum) in sums.iter().enumerate().take(parts) {
        let (begin, end) = if HALVES { (part * HALF, (part + 1) * HALF) } else { (0, 2 * HALF) };
        let mut total = dot::<BITS>(&weights[begin..end], &values[begin..end]);
        if POINTS {
            let sum = _mm256_set1_epi32(*sum);
            total = _mm256_sub_epi32(total, _mm256_mullo_epi32(groups.zero_points[part], sum));
        } else if BITS == 4 {
            total = _mm256_sub_epi32(total, _mm256_set1_epi32(*sum));
        }
        let total = _mm256_cvtepi32_ps(total);
        scaled = match part {
            0 => _mm256_mul_ps(total, groups.scales[0]),
            _ => _mm256_fmadd_ps(total, groups.scales[1], scaled),
        };
    }
    _mm256_fmadd_ps(scaled, _mm256_set1_ps(scale), sum)
}

/// Sums of codes times values, for 8 rows of the weight.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<const BITS: usize>(weights: &[__m256i], values: &[__m256i]) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    if BITS == 4 {
        // 8 sums of two products of at most 15 · 127 fit into 16 bits
        let mut sums = _mm256_setzero_si256();
        for (weights, values) in weights.iter().zip(values) {
            sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(*weights, *values));
        }
        return _mm256_madd_epi16(sums, ones);
    }
    let mut sums = _mm256_setzero_si256();
    for (weights, values) in weights.iter().zip(values) {
        // the instruction takes one side without signs, and two products of 128 · 127 fit into 16 bits
        let signed = _mm256_sign_epi8(*values, *weights);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(*weights), signed);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
    }
    sums
}

/// The codes of a block of 8 rows, 4 columns to a register: of 4 bits as they are, of 8 bits as numbers around zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn weights<const BITS: usize>(block: &[u8], octet: usize) -> [__m256i; 8] {
    let mut weights = [_mm256_setzero_si256(); 8];
    let (pieces, _) = block.as_chunks::<PIECE>();
    for (index, piece) in pieces.iter().enumerate() {
        let (octets, _) = piece.as_chunks::<32>();
        let bytes = load(&octets[octet]);
        if BITS == 4 {
            let mask = _mm256_set1_epi8(0x0F);
            weights[2 * index] = _mm256_and_si256(bytes, mask);
            weights[2 * index + 1] = _mm256_and_si256(_mm256_srli_epi16::<4>(bytes), mask);
        } else {
            weights[index] = _mm256_xor_si256(bytes, _mm256_set1_epi8(-128));
        }
    }
    weights
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn groups<const HALVES: bool, const POINTS: bool>(codes: &Codes<'_>, block: usize, octet: usize) -> Groups {
    let mut groups = Groups { scales: [_mm256_setzero_ps(); 2], zero_points: [_mm256_setzero_si256(); 2] };
    let parts = if HALVES { 2 } else { 1 };
    for part in 0..parts {
        let group = block / codes.blocks_of_group * parts + part;
        let first = group * PANEL_ROWS + octet * OCTET;
        groups.scales[part] = load_halves(&codes.panel.scales[first..]);
        if let (true, Some(points)) = (POINTS, codes.panel.zero_points) {
            let points = load_bytes(&points[first..]);
            // codes of 8 bits are taken as numbers around zero
            let middle = if codes.layout.element.bits() == 8 { 128 } else { 0 };
            groups.zero_points[part] = _mm256_sub_epi32(points, _mm256_set1_epi32(middle));
        }
    }
    groups
}

/// Rows of `x` that are multiplied at a time, with 16 rows of the panel.
const TILE: usize = 4;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(TILE * PANEL_ROWS).zip(x.chunks(TILE * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => single(panel, x, products),
            2 => tile::<2>(panel, x, columns, products),
            3 => tile::<3>(panel, x, columns, products),
            _ => tile::<TILE>(panel, x, columns, products),
        }
    }
}

/// One row, for which memory is the limit: the panel is read in its order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn single(panel: &[u8], x: &[f32], products: &mut [f32]) {
    let (pieces, _) = panel.as_chunks::<PIECE>();
    let (pairs, _) = x.as_chunks::<2>();
    let mut sums = [[_mm256_setzero_ps(); 2]; OCTETS];
    for (piece, [even, odd]) in pieces.iter().zip(pairs) {
        ahead(piece.as_ptr().wrapping_add(AHEAD));
        ahead(piece.as_ptr().wrapping_add(AHEAD + 64));
        let (even, odd) = (_mm256_set1_ps(*even), _mm256_set1_ps(*odd));
        let (octets, _) = piece.as_chunks::<32>();
        for (bytes, sums) in octets.iter().zip(&mut sums) {
            let bytes = load(bytes);
            let high = _mm256_and_si256(bytes, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
            sums[0] = _mm256_fmadd_ps(_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bytes)), even, sums[0]);
            sums[1] = _mm256_fmadd_ps(_mm256_castsi256_ps(high), odd, sums[1]);
        }
    }
    for (octet, sums) in sums.into_iter().enumerate() {
        store(&mut products[octet * OCTET..], _mm256_add_ps(sums[0], sums[1]));
    }
}

#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (pieces, _) = panel.as_chunks::<PIECE>();
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * columns..][..columns]);
    for pair in 0..OCTETS / 2 {
        let mut sums = [[_mm256_setzero_ps(); 2]; ROWS];
        for (index, piece) in pieces.iter().enumerate() {
            let (octets, _) = piece.as_chunks::<32>();
            for (side, bytes) in octets[2 * pair..2 * pair + 2].iter().enumerate() {
                let bytes = load(bytes);
                let even = _mm256_castsi256_ps(_mm256_slli_epi32::<16>(bytes));
                let odd =
                    _mm256_castsi256_ps(_mm256_and_si256(bytes, _mm256_set1_epi32(0xFFFF_0000_u32 as i32)));
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[side] = _mm256_fmadd_ps(even, _mm256_set1_ps(x[2 * index]), sums[side]);
                    sums[side] = _mm256_fmadd_ps(odd, _mm256_set1_ps(x[2 * index + 1]), sums[side]);
                }
            }
        }
        for (products, sums) in products.chunks_exact_mut(PANEL_ROWS).zip(sums) {
            store(&mut products[2 * pair * OCTET..], sums[0]);
            store(&mut products[(2 * pair + 1) * OCTET..], sums[1]);
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn round(x: &[f32], block: &mut Block<'_>) {
    round_rows(x, block);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

/// How far ahead of the codes in work memory is asked for those to come, in this panel or the next, in bytes: without
/// asking, codes of 8 bits came at half the speed.
pub(super) const AHEAD: usize = 2304;

/// Asks memory for what is needed a little later.
#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn ahead<T>(address: *const T) {
    // it reads nothing and takes any address, also one that there is no memory at
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads 32 bytes, which the array has; the instruction takes any address.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// The first 8 numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(numbers: &[f32]) -> __m256 {
    let numbers = &numbers[..OCTET];
    // SAFETY: reads 8 numbers, which the slice has; the instruction takes any address.
    unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
}

/// The first 8 numbers, as float32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_halves(numbers: &[f16]) -> __m256 {
    let numbers = &numbers[..OCTET];
    // SAFETY: reads 8 numbers of 16 bits, which the slice has; the instruction takes any address.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) })
}

/// The first 8 bytes, as integers of 32 bits.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..OCTET];
    // SAFETY: reads 8 bytes, which the slice has; the instruction takes any address.
    _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
}

/// Into the first 8 numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn store(numbers: &mut [f32], values: __m256) {
    let numbers = &mut numbers[..OCTET];
    // SAFETY: writes 8 numbers, which the slice has; the instruction takes any address.
    unsafe { _mm256_storeu_ps(numbers.as_mut_ptr(), values) }
}
