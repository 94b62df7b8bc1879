//! AVX2 with FMA and F16C: 8 rows of a panel at a time.

use std::arch::x86_64::*;

use half::f16;
use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, Panel};

use super::float32::{self, FloatRows};
use super::{LANE_COLUMNS, LANE_GROUP_BYTES, LANE_GROUPS, QuantizedPanel, block_bytes, dispatch_code_width};
use crate::Activation;
use crate::packed_input::{ActivationRows, ActivationTileMut};

/// 32-bit lanes of a vector: rows of a panel that it holds one number of.
const LANES: usize = 8;
/// Vectors of a lane group.
const VECTORS: usize = PANEL_ROWS / LANES;

/// Input rows whose broadcast values of a block are in the first-level cache at the same time.
const ROWS: usize = 16;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    if rows.tile.rows == 1 {
        dispatch_code_width!(weight, multiply_one_row(weight, rows, products));
    } else {
        dispatch_code_width!(weight, multiply_rows(weight, rows, products));
    }
}

/// Scales and zero points of 8 rows of a panel, for each group of a block.
#[derive(Clone, Copy)]
struct Groups<const GROUPS: usize> {
    scales: [__m256; GROUPS],
    zero_points: [__m256i; GROUPS],
}

/// One row is bound by memory: each block is read once and prefetched.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_one_row<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    let bytes_per_block = block_bytes(BITS);
    // The sums of the whole panel stay in registers.
    let mut sums = [_mm256_setzero_ps(); VECTORS];
    for (block, codes) in weight.panel.codes.chunks_exact(bytes_per_block).enumerate() {
        let x = rows.block(block);
        let (sums_of_rows, _) = x.sums.as_chunks::<GROUPS>();
        let values = broadcast(&x.values[0]);
        let group = block / weight.blocks_per_group * GROUPS * PANEL_ROWS;
        let distance = PREFETCH_DISTANCE / bytes_per_block * PANEL_ROWS * GROUPS;
        prefetch(weight.panel.scales.as_ptr().wrapping_add(group + distance));
        for (vector, sum) in sums.iter_mut().enumerate() {
            // Spread the prefetches of the block's cache lines over the vectors.
            for line in (0..bytes_per_block / VECTORS).step_by(64) {
                let address = codes.as_ptr().wrapping_add(vector * bytes_per_block / VECTORS + line);
                prefetch(address.wrapping_add(PREFETCH_DISTANCE));
            }
            let groups = load_groups::<GROUPS, ZERO_POINTS>(weight, block, vector);
            let weights = load_weights::<BITS>(codes, vector);
            let row = (&values, &x.scales[0], &sums_of_rows[0]);
            *sum = add_block::<BITS, GROUPS, ZERO_POINTS>(&weights, &groups, row, *sum);
        }
    }
    for (vector, sum) in sums.into_iter().enumerate() {
        store(&mut products[vector * LANES..], sum);
    }
}

/// Several rows are bound by arithmetic: codes and values are unpacked once for all of them.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [f32],
) {
    let bytes_per_block = block_bytes(BITS);
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    products.as_flattened_mut().fill(0.0);
    // A broadcast from memory occupies a vector unit, and every vector of the panel needs each of them.
    let mut broadcasts = [[_mm256_setzero_si256(); LANE_GROUPS]; ROWS];
    for (block, codes) in weight.panel.codes.chunks_exact(bytes_per_block).enumerate() {
        let x = rows.block(block);
        let (sums, _) = x.sums.as_chunks::<GROUPS>();
        let chunks = x.values.chunks(ROWS).zip(x.scales.chunks(ROWS)).zip(sums.chunks(ROWS));
        for (((values, scales), sums), products) in chunks.zip(products.chunks_mut(ROWS)) {
            for (broadcasts, values) in broadcasts.iter_mut().zip(values) {
                *broadcasts = broadcast(values);
            }
            for vector in 0..VECTORS {
                let groups = load_groups::<GROUPS, ZERO_POINTS>(weight, block, vector);
                let weights = load_weights::<BITS>(codes, vector);
                // The sums of all blocks but this one are in memory.
                let rows = broadcasts.iter().zip(scales).zip(sums);
                for (((values, scale), sums), products) in rows.zip(products.iter_mut()) {
                    let products = &mut products[vector * LANES..];
                    let sum = load_floats(products);
                    let row = (values, scale, sums);
                    let sum = add_block::<BITS, GROUPS, ZERO_POINTS>(&weights, &groups, row, sum);
                    store(products, sum);
                }
            }
        }
    }
}

/// Broadcasts each 4 values of a row to all lanes.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn broadcast(values: &[i8; BLOCK_INPUTS]) -> [__m256i; LANE_GROUPS] {
    let (lanes, _) = values.as_chunks::<LANE_COLUMNS>();
    let mut broadcasts = [_mm256_setzero_si256(); LANE_GROUPS];
    for (broadcast, lane) in broadcasts.iter_mut().zip(lanes) {
        *broadcast = _mm256_set1_epi32(i32::from_ne_bytes(lane.map(|value| value as u8)));
    }
    broadcasts
}

/// Adds the products of a block of one input row with the same block of 8 rows of the panel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn add_block<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weights: &[__m256i; LANE_GROUPS],
    groups: &Groups<GROUPS>,
    (values, scale, row_sums): (&[__m256i; LANE_GROUPS], &f32, &[i32; GROUPS]),
    sum: __m256,
) -> __m256 {
    let lane_groups = LANE_GROUPS / GROUPS;
    let mut scaled = _mm256_setzero_ps();
    // The constant bound unrolls the loop. Chunks of the slices were not unrolled, which was four times slower.
    for (group, row_sum) in row_sums.iter().enumerate() {
        let (begin, end) = (group * lane_groups, (group + 1) * lane_groups);
        let mut total = dot::<BITS>(&weights[begin..end], &values[begin..end]);
        // Σ (code − zero point) · value = Σ code · value − zero point · Σ value
        if ZERO_POINTS {
            let row_sum = _mm256_set1_epi32(*row_sum);
            total = _mm256_sub_epi32(total, _mm256_mullo_epi32(groups.zero_points[group], row_sum));
        } else if BITS == 4 {
            total = _mm256_add_epi32(total, _mm256_set1_epi32(*row_sum));
        }
        // Multiply by the weight's scales, and at the end by the row's.
        let total = _mm256_cvtepi32_ps(total);
        scaled = match group {
            0 => _mm256_mul_ps(total, groups.scales[0]),
            _ => _mm256_fmadd_ps(total, groups.scales[group], scaled),
        };
    }
    _mm256_fmadd_ps(scaled, _mm256_broadcast_ss(scale), sum)
}

/// Sums of codes times values, for 8 rows of the panel.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn dot<const BITS: usize>(weights: &[__m256i], values: &[__m256i]) -> __m256i {
    let ones = _mm256_set1_epi16(1);
    if BITS == 4 {
        // 8 sums of two products of at most 15 · 127 fit in 16 bits, so widen once at the end.
        let mut sums = _mm256_setzero_si256();
        for (weights, values) in weights.iter().zip(values) {
            sums = _mm256_add_epi16(sums, _mm256_maddubs_epi16(*weights, *values));
        }
        return _mm256_madd_epi16(sums, ones);
    }
    let mut sums = _mm256_setzero_si256();
    for (weights, values) in weights.iter().zip(values) {
        // `maddubs` takes one unsigned operand, so move the sign to the other one. Two products of 128 · 127 fit in 16 bits.
        let signed = _mm256_sign_epi8(*values, *weights);
        let pairs = _mm256_maddubs_epi16(_mm256_abs_epi8(*weights), signed);
        sums = _mm256_add_epi32(sums, _mm256_madd_epi16(pairs, ones));
    }
    sums
}

/// Unpacks the codes of a block for 8 rows of the panel, 4 columns per vector: 4-bit codes unsigned, 8-bit codes centred at
/// zero.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn load_weights<const BITS: usize>(block: &[u8], vector: usize) -> [__m256i; LANE_GROUPS] {
    let mut weights = [_mm256_setzero_si256(); LANE_GROUPS];
    let (lane_groups, _) = block.as_chunks::<LANE_GROUP_BYTES>();
    for (index, lane_group) in lane_groups.iter().enumerate() {
        let (vectors, _) = lane_group.as_chunks::<32>();
        let bytes = load(&vectors[vector]);
        if BITS == 4 {
            // The low halves are columns 8 i to 8 i + 3, the high halves the next four.
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
fn load_groups<const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    block: usize,
    vector: usize,
) -> Groups<GROUPS> {
    let mut groups =
        Groups { scales: [_mm256_setzero_ps(); GROUPS], zero_points: [_mm256_setzero_si256(); GROUPS] };
    for index in 0..GROUPS {
        let group = block / weight.blocks_per_group * GROUPS + index;
        let first = group * PANEL_ROWS + vector * LANES;
        groups.scales[index] = load_halves(&weight.panel.scales[first..]);
        if let (true, Some(zero_points)) = (ZERO_POINTS, weight.panel.zero_points) {
            // Centre zero points like the codes.
            let centre = if weight.layout.scheme.format.bits() == 8 { 128 } else { 0 };
            let zero_points = load_bytes(&zero_points[first..]);
            groups.zero_points[index] = _mm256_sub_epi32(zero_points, _mm256_set1_epi32(centre));
        }
    }
    groups
}

/// Input rows of a bfloat16 tile. With 16 rows of the panel their sums take 8 of the 16 registers.
const MR: usize = 4;
/// Vectors of a bfloat16 tile.
const NR_VECTORS: usize = 2;

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(MR * PANEL_ROWS).zip(x.chunks(MR * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => multiply_bf16_row(panel, x, products),
            2 => multiply_bf16_tile::<2>(panel, x, columns, products),
            3 => multiply_bf16_tile::<3>(panel, x, columns, products),
            _ => multiply_bf16_tile::<MR>(panel, x, columns, products),
        }
    }
}

/// One row is bound by memory, so the panel is read in its order.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_bf16_row(panel: &[u8], x: &[f32], products: &mut [f32]) {
    let (lane_groups, _) = panel.as_chunks::<LANE_GROUP_BYTES>();
    let (pairs, _) = x.as_chunks::<2>();
    let mut sums = [_mm256_setzero_ps(); VECTORS];
    for (lane_group, [even, odd]) in lane_groups.iter().zip(pairs) {
        prefetch(lane_group.as_ptr().wrapping_add(PREFETCH_DISTANCE));
        prefetch(lane_group.as_ptr().wrapping_add(PREFETCH_DISTANCE + 64));
        let (even, odd) = (_mm256_set1_ps(*even), _mm256_set1_ps(*odd));
        let (vectors, _) = lane_group.as_chunks::<32>();
        for (bytes, sum) in vectors.iter().zip(&mut sums) {
            let (even_weights, odd_weights) = load_bf16_pair(bytes);
            *sum = _mm256_fmadd_ps(even_weights, even, *sum);
            *sum = _mm256_fmadd_ps(odd_weights, odd, *sum);
        }
    }
    for (vector, sum) in sums.into_iter().enumerate() {
        store(&mut products[vector * LANES..], sum);
    }
}

/// Several rows share each load of the weights.
#[inline]
#[target_feature(enable = "avx2,fma,f16c")]
fn multiply_bf16_tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (lane_groups, _) = panel.as_chunks::<LANE_GROUP_BYTES>();
    let x: [&[f32]; ROWS] = std::array::from_fn(|row| &x[row * columns..][..columns]);
    for first in (0..VECTORS).step_by(NR_VECTORS) {
        let mut sums = [[_mm256_setzero_ps(); NR_VECTORS]; ROWS];
        for (index, lane_group) in lane_groups.iter().enumerate() {
            let (vectors, _) = lane_group.as_chunks::<32>();
            for (vector, bytes) in vectors[first..first + NR_VECTORS].iter().enumerate() {
                let (even, odd) = load_bf16_pair(bytes);
                for (sums, x) in sums.iter_mut().zip(x) {
                    sums[vector] = _mm256_fmadd_ps(even, _mm256_set1_ps(x[2 * index]), sums[vector]);
                    sums[vector] = _mm256_fmadd_ps(odd, _mm256_set1_ps(x[2 * index + 1]), sums[vector]);
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

/// Widens the bfloat16 elements of 8 rows of the panel, of an even and of the following odd column: a bfloat16 is the upper
/// half of a float32.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bf16_pair(bytes: &[u8; 32]) -> (__m256, __m256) {
    let bytes = load(bytes);
    let upper_halves = _mm256_and_si256(bytes, _mm256_set1_epi32(0xFFFF_0000_u32 as i32));
    (_mm256_castsi256_ps(_mm256_slli_epi32::<16>(bytes)), _mm256_castsi256_ps(upper_halves))
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn multiply_float32(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    float32::multiply::<true>(panels, layout, rows, products);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn quantize<'a>(rows: impl Iterator<Item = &'a [f32]>, tile: &mut ActivationTileMut<'_>) {
    tile.quantize(rows);
}

#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

/// How far ahead of the current codes the next ones are prefetched, in this panel or the following ones, in bytes. Memory that
/// delivers 25 GB/s to a core delivers this much while one line is on its way. Without prefetching, 8-bit codes arrive at half the
/// speed.
pub(super) const PREFETCH_DISTANCE: usize = 6912;

#[inline]
#[target_feature(enable = "avx2")]
pub(super) fn prefetch<T>(address: *const T) {
    // A prefetch reads nothing and accepts any address, even an unmapped one.
    _mm_prefetch::<_MM_HINT_T0>(address.cast());
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(bytes: &[u8; 32]) -> __m256i {
    // SAFETY: reads 32 bytes, which the array has; the instruction accepts any alignment.
    unsafe { _mm256_loadu_si256(bytes.as_ptr().cast()) }
}

/// Loads the first 8 numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn load_floats(numbers: &[f32]) -> __m256 {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 8 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { _mm256_loadu_ps(numbers.as_ptr()) }
}

/// Loads the first 8 float16 numbers as float32.
#[inline]
#[target_feature(enable = "avx2,f16c")]
fn load_halves(numbers: &[f16]) -> __m256 {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 8 numbers of 16 bits, which the slice has; the instruction accepts any alignment.
    _mm256_cvtph_ps(unsafe { _mm_loadu_si128(numbers.as_ptr().cast()) })
}

/// Loads the first 8 bytes as 32-bit integers.
#[inline]
#[target_feature(enable = "avx2")]
fn load_bytes(bytes: &[u8]) -> __m256i {
    let bytes = &bytes[..LANES];
    // SAFETY: reads 8 bytes, which the slice has; the instruction accepts any alignment.
    _mm256_cvtepu8_epi32(unsafe { _mm_loadl_epi64(bytes.as_ptr().cast()) })
}

/// Stores into the first 8 numbers.
#[inline]
#[target_feature(enable = "avx2")]
fn store(numbers: &mut [f32], values: __m256) {
    let numbers = &mut numbers[..LANES];
    // SAFETY: writes 8 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { _mm256_storeu_ps(numbers.as_mut_ptr(), values) }
}
