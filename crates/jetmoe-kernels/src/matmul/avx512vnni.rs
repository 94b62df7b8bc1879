//! AVX-512 with VNNI: 16 rows of a panel at a time, and the dot product of four codes with four values in one instruction.

use std::arch::x86_64::*;

use half::f16;
use jetmoe_format::{BLOCK_INPUTS, PANEL_ROWS, PackedLayout, Panel};

use super::avx2::{PREFETCH_DISTANCE, prefetch};
use super::float32::{self, FloatRows};
use super::{LANE_COLUMNS, LANE_GROUP_BYTES, LANE_GROUPS, QuantizedPanel, block_bytes, dispatch_code_width};
use crate::Activation;
use crate::packed_input::{ActivationRows, ActivationTile, ActivationTileMut};

/// 32-bit lanes of a vector: rows of a panel that it holds one number of.
pub(super) const LANES: usize = 16;
/// Vectors of a lane group.
pub(super) const VECTORS: usize = PANEL_ROWS / LANES;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_codes(weight: &QuantizedPanel<'_>, rows: &ActivationRows<'_>, products: &mut [f32]) {
    let (products, _) = products.as_chunks_mut::<PANEL_ROWS>();
    dispatch_code_width!(weight, multiply_rows(weight, rows, products));
}

/// Scales and zero points of 16 rows of a panel, for each group of a block.
#[derive(Clone, Copy)]
pub(super) struct Groups<const GROUPS: usize> {
    scales: [__m512; GROUPS],
    /// Negated zero points in the lower 16 bits, zero in the upper ones: an operand of `vpdpwssd`.
    zero_points: [__m512i; GROUPS],
}

/// Input rows that are multiplied at the same time, with a whole panel: their sums of a block are chains of dot products, of which
/// the processor computes as many at once as it has latency to hide.
const INTERLEAVED: usize = 4;

/// Rows up to which a block is unpacked again for each [`INTERLEAVED`] of them.
const FEW: usize = 12;

#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_rows<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [[f32; PANEL_ROWS]],
) {
    if products.len() > FEW {
        return multiply_many::<BITS, GROUPS, ZERO_POINTS>(weight, rows, products);
    }
    for (index, products) in products.chunks_mut(INTERLEAVED).enumerate() {
        let rows = (rows, index * INTERLEAVED);
        match products.len() {
            1 => multiply_few::<BITS, GROUPS, ZERO_POINTS, 1>(weight, rows, products),
            2 => multiply_few::<BITS, GROUPS, ZERO_POINTS, 2>(weight, rows, products),
            3 => multiply_few::<BITS, GROUPS, ZERO_POINTS, 3>(weight, rows, products),
            _ => multiply_few::<BITS, GROUPS, ZERO_POINTS, INTERLEAVED>(weight, rows, products),
        }
    }
}

/// Few rows are bound by memory: each block is read once and unpacked in registers, which hold the sums of all rows.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_few<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool, const COUNT: usize>(
    weight: &QuantizedPanel<'_>,
    (rows, first): (&ActivationRows<'_>, usize),
    products: &mut [[f32; PANEL_ROWS]],
) {
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; COUNT];
    for (block, codes) in weight.panel.codes.chunks_exact(block_bytes(BITS)).enumerate() {
        prefetch_codes::<GROUPS>(weight, block, codes);
        let groups = std::array::from_fn(|vector| load_groups::<GROUPS, ZERO_POINTS>(weight, block, vector));
        let weights = std::array::from_fn(|vector| load_weights::<BITS>(codes, vector));
        let Some(rows) = RowsOfBlock::<COUNT, GROUPS>::at(&rows.block(block), first) else { continue };
        let scaled = scaled_totals::<COUNT, GROUPS, ZERO_POINTS>(&weights, &groups, &rows);
        for ((sums, scaled), scale) in sums.iter_mut().zip(scaled).zip(rows.scales) {
            let scale = _mm512_set1_ps(*scale);
            for (sum, scaled) in sums.iter_mut().zip(scaled) {
                *sum = _mm512_fmadd_ps(scaled, scale, *sum);
            }
        }
    }
    for (products, sums) in products.iter_mut().zip(sums) {
        for (vector, sum) in sums.into_iter().enumerate() {
            store(&mut products[vector * LANES..], sum);
        }
    }
}

/// Many rows are bound by arithmetic: each block is unpacked once for all of them.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_many<const BITS: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    rows: &ActivationRows<'_>,
    products: &mut [[f32; PANEL_ROWS]],
) {
    products.as_flattened_mut().fill(0.0);
    for (block, codes) in weight.panel.codes.chunks_exact(block_bytes(BITS)).enumerate() {
        prefetch_codes::<GROUPS>(weight, block, codes);
        let groups = std::array::from_fn(|vector| load_groups::<GROUPS, ZERO_POINTS>(weight, block, vector));
        let weights = std::array::from_fn(|vector| load_weights::<BITS>(codes, vector));
        // In memory: the sums of the rows need the registers.
        let weights = std::hint::black_box(&weights);
        let (products, x) = (&mut *products, rows.block(block));
        let (products, x) = add_chunks::<INTERLEAVED, GROUPS, ZERO_POINTS>(weights, &groups, x, products);
        let (products, x) = add_chunks::<2, GROUPS, ZERO_POINTS>(weights, &groups, x, products);
        add_chunks::<1, GROUPS, ZERO_POINTS>(weights, &groups, x, products);
    }
}

/// Adds the products of a block of the input rows with the same block of the panel, `COUNT` rows at a time. Returns the rows that
/// remain.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn add_chunks<'a, 'x, const COUNT: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weights: &[[__m512i; LANE_GROUPS]; VECTORS],
    groups: &[Groups<GROUPS>; VECTORS],
    x: ActivationTile<'x>,
    products: &'a mut [[f32; PANEL_ROWS]],
) -> (&'a mut [[f32; PANEL_ROWS]], ActivationTile<'x>) {
    let (chunks, rest) = products.as_chunks_mut::<COUNT>();
    let (tiles, x) = RowsOfBlock::<COUNT, GROUPS>::chunks(x);
    for (rows, products) in tiles.zip(chunks) {
        let scaled = scaled_totals::<COUNT, GROUPS, ZERO_POINTS>(weights, groups, &rows);
        for ((products, scaled), scale) in products.iter_mut().zip(scaled).zip(rows.scales) {
            let scale = _mm512_set1_ps(*scale);
            let (products, _) = products.as_chunks_mut::<LANES>();
            for (products, scaled) in products.iter_mut().zip(scaled) {
                let sum = load_floats(products);
                store(products, _mm512_fmadd_ps(scaled, scale, sum));
            }
        }
    }
    (rest, x)
}

/// One block of columns of `COUNT` input rows.
struct RowsOfBlock<'a, const COUNT: usize, const GROUPS: usize> {
    values: &'a [[i8; BLOCK_INPUTS]; COUNT],
    scales: &'a [f32; COUNT],
    sums: &'a [[i32; GROUPS]; COUNT],
}

impl<'a, const COUNT: usize, const GROUPS: usize> RowsOfBlock<'a, COUNT, GROUPS> {
    /// The rows from `first` on; `None` if there are fewer.
    #[inline(always)]
    fn at(x: &ActivationTile<'a>, first: usize) -> Option<Self> {
        Some(RowsOfBlock {
            values: x.values.get(first..)?.first_chunk()?,
            scales: x.scales.get(first..)?.first_chunk()?,
            sums: x.sums.as_chunks().0.get(first..)?.first_chunk()?,
        })
    }

    /// The rows of a tile, `COUNT` at a time, and the rows that remain.
    #[inline(always)]
    fn chunks(x: ActivationTile<'a>) -> (impl Iterator<Item = Self>, ActivationTile<'a>) {
        let (values, values_left) = x.values.as_chunks();
        let (scales, scales_left) = x.scales.as_chunks();
        let (sums, sums_left) = x.sums.as_chunks::<GROUPS>().0.as_chunks();
        let chunks = values.iter().zip(scales).zip(sums);
        let rest =
            ActivationTile { values: values_left, scales: scales_left, sums: sums_left.as_flattened() };
        (chunks.map(|((values, scales), sums)| RowsOfBlock { values, scales, sums }), rest)
    }
}

/// Sums of codes times values of a block, times the weight's scales.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn scaled_totals<const COUNT: usize, const GROUPS: usize, const ZERO_POINTS: bool>(
    weights: &[[__m512i; LANE_GROUPS]; VECTORS],
    groups: &[Groups<GROUPS>; VECTORS],
    rows: &RowsOfBlock<'_, COUNT, GROUPS>,
) -> [[__m512; VECTORS]; COUNT] {
    let mut scaled = [[_mm512_setzero_ps(); VECTORS]; COUNT];
    for group in 0..GROUPS {
        // Σ (code − zero point) · value = Σ code · value − zero point · Σ value
        let mut totals = [[_mm512_setzero_si512(); VECTORS]; COUNT];
        for (totals, sums) in totals.iter_mut().zip(rows.sums) {
            let sum = _mm512_set1_epi32(sums[group]);
            for (total, groups) in totals.iter_mut().zip(groups) {
                *total = if ZERO_POINTS {
                    // Both factors fit in 16 bits: the sum of 32 values is at most 32 · 127.
                    _mm512_dpwssd_epi32(*total, groups.zero_points[group], sum)
                } else {
                    sum
                };
            }
        }
        let lane_groups = LANE_GROUPS / GROUPS;
        for lane in group * lane_groups..(group + 1) * lane_groups {
            for (totals, values) in totals.iter_mut().zip(rows.values) {
                // Codes are the unsigned operand, values the signed one.
                let values = broadcast(values, lane);
                for (total, weights) in totals.iter_mut().zip(weights) {
                    *total = _mm512_dpbusd_epi32(*total, weights[lane], values);
                }
            }
        }
        for (scaled, totals) in scaled.iter_mut().zip(totals) {
            for ((scaled, total), groups) in scaled.iter_mut().zip(totals).zip(groups) {
                // Multiply by the weight's scales, and at the end by the row's.
                let total = _mm512_cvtepi32_ps(total);
                *scaled = match group {
                    0 => _mm512_mul_ps(total, groups.scales[0]),
                    _ => _mm512_fmadd_ps(total, groups.scales[group], *scaled),
                };
            }
        }
    }
    scaled
}

/// The 4 values of a row that belong to a lane group, in every lane.
#[inline]
#[target_feature(enable = "avx512f")]
fn broadcast(values: &[i8; BLOCK_INPUTS], lane_group: usize) -> __m512i {
    let (lanes, _) = values.as_chunks::<LANE_COLUMNS>();
    _mm512_set1_epi32(i32::from_ne_bytes(lanes[lane_group].map(|value| value as u8)))
}

/// Scales the sums of codes times values of a block, for 16 rows of the panel, and adds them to 16 products of a row.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn add_block<const GROUPS: usize, const ZERO_POINTS: bool>(
    totals: [__m512i; GROUPS],
    groups: &Groups<GROUPS>,
    scale: f32,
    row_sums: &[i32; GROUPS],
    products: &mut [f32],
) {
    let mut scaled = _mm512_setzero_ps();
    for (group, row_sum) in row_sums.iter().enumerate() {
        // Σ (code − zero point) · value = Σ code · value − zero point · Σ value
        let row_sum = _mm512_set1_epi32(*row_sum);
        let total = if ZERO_POINTS {
            // Both factors fit in 16 bits: the sum of 32 values is at most 32 · 127.
            _mm512_dpwssd_epi32(totals[group], groups.zero_points[group], row_sum)
        } else {
            _mm512_add_epi32(totals[group], row_sum)
        };
        // Multiply by the weight's scales, and at the end by the row's.
        let total = _mm512_cvtepi32_ps(total);
        scaled = match group {
            0 => _mm512_mul_ps(total, groups.scales[0]),
            _ => _mm512_fmadd_ps(total, groups.scales[group], scaled),
        };
    }
    let sum = load_floats(products);
    store(products, _mm512_fmadd_ps(scaled, _mm512_set1_ps(scale), sum));
}

/// Unpacks the codes of a block for 16 rows of the panel, 4 columns per vector.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn load_weights<const BITS: usize>(block: &[u8], vector: usize) -> [__m512i; LANE_GROUPS] {
    let mut weights = [_mm512_setzero_si512(); LANE_GROUPS];
    let (lane_groups, _) = block.as_chunks::<LANE_GROUP_BYTES>();
    for (index, lane_group) in lane_groups.iter().enumerate() {
        let (vectors, _) = lane_group.as_chunks::<64>();
        let bytes = load(&vectors[vector]);
        if BITS == 4 {
            // The low halves are columns 8 i to 8 i + 3, the high halves the next four.
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
pub(super) fn load_groups<const GROUPS: usize, const ZERO_POINTS: bool>(
    weight: &QuantizedPanel<'_>,
    block: usize,
    vector: usize,
) -> Groups<GROUPS> {
    let mut groups =
        Groups { scales: [_mm512_setzero_ps(); GROUPS], zero_points: [_mm512_setzero_si512(); GROUPS] };
    for index in 0..GROUPS {
        let group = block / weight.blocks_per_group * GROUPS + index;
        let first = group * PANEL_ROWS + vector * LANES;
        groups.scales[index] = load_halves(&weight.panel.scales[first..]);
        if let (true, Some(zero_points)) = (ZERO_POINTS, weight.panel.zero_points) {
            let negated = _mm512_sub_epi32(_mm512_setzero_si512(), load_bytes(&zero_points[first..]));
            groups.zero_points[index] = _mm512_and_si512(negated, _mm512_set1_epi32(0xFFFF));
        }
    }
    groups
}

/// Input rows of a bfloat16 tile. With a whole panel their sums take half of the 32 registers.
const MR: usize = 8;

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_bf16(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let tiles = products.chunks_mut(MR * PANEL_ROWS).zip(x.chunks(MR * columns));
    for (products, x) in tiles {
        match products.len() / PANEL_ROWS {
            1 => multiply_bf16_tile::<1>(panel, x, columns, products),
            2 => multiply_bf16_tile::<2>(panel, x, columns, products),
            3 => multiply_bf16_tile::<3>(panel, x, columns, products),
            4 => multiply_bf16_tile::<4>(panel, x, columns, products),
            5 => multiply_bf16_tile::<5>(panel, x, columns, products),
            6 => multiply_bf16_tile::<6>(panel, x, columns, products),
            7 => multiply_bf16_tile::<7>(panel, x, columns, products),
            _ => multiply_bf16_tile::<MR>(panel, x, columns, products),
        }
    }
}

/// Multiplies in float32: the instructions for bfloat16 products would round `x`.
#[inline]
#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
fn multiply_bf16_tile<const ROWS: usize>(panel: &[u8], x: &[f32], columns: usize, products: &mut [f32]) {
    let (lane_groups, _) = panel.as_chunks::<LANE_GROUP_BYTES>();
    let x: [&[[f32; 2]]; ROWS] =
        std::array::from_fn(|row| &x[row * columns..][..columns].as_chunks().0[..lane_groups.len()]);
    let mut sums = [[_mm512_setzero_ps(); VECTORS]; ROWS];
    for (index, lane_group) in lane_groups.iter().enumerate() {
        let (vectors, _) = lane_group.as_chunks::<64>();
        for (vector, bytes) in vectors.iter().enumerate() {
            prefetch(bytes.as_ptr().wrapping_add(PREFETCH_DISTANCE));
            // Widen an even and the following odd column: a bfloat16 is the upper half of a float32.
            let bytes = load(bytes);
            let even = _mm512_castsi512_ps(_mm512_slli_epi32::<16>(bytes));
            let odd = _mm512_castsi512_ps(_mm512_and_si512(bytes, _mm512_set1_epi32(0xFFFF_0000_u32 as i32)));
            for (sums, x) in sums.iter_mut().zip(x) {
                let pair = x[index];
                sums[vector] = _mm512_fmadd_ps(even, _mm512_set1_ps(pair[0]), sums[vector]);
                sums[vector] = _mm512_fmadd_ps(odd, _mm512_set1_ps(pair[1]), sums[vector]);
            }
        }
    }
    for (products, sums) in products.chunks_exact_mut(PANEL_ROWS).zip(sums) {
        for (vector, sum) in sums.into_iter().enumerate() {
            store(&mut products[vector * LANES..], sum);
        }
    }
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn multiply_float32(
    panels: &[Panel<'_, f32>],
    layout: &PackedLayout,
    rows: &FloatRows,
    products: &mut [f32],
) {
    float32::multiply::<true>(panels, layout, rows, products);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn quantize<'a>(rows: impl Iterator<Item = &'a [f32]>, tile: &mut ActivationTileMut<'_>) {
    tile.quantize(rows);
}

#[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vnni,avx2,fma,f16c")]
pub(super) fn gate(activation: Activation, products: &[f32], gated: &mut [f32], first: usize) {
    activation.gate(products, gated, first);
}

/// Prefetches the codes and scales that follow a block at the prefetch distance.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn prefetch_codes<const GROUPS: usize>(weight: &QuantizedPanel<'_>, block: usize, codes: &[u8]) {
    for line in (0..codes.len()).step_by(64) {
        prefetch(codes.as_ptr().wrapping_add(line + PREFETCH_DISTANCE));
    }
    let distance = PREFETCH_DISTANCE / codes.len().max(1);
    let group = (block + distance) / weight.blocks_per_group * GROUPS;
    prefetch(weight.panel.scales.as_ptr().wrapping_add(group * PANEL_ROWS));
}

#[inline]
#[target_feature(enable = "avx512f")]
fn load(bytes: &[u8; 64]) -> __m512i {
    // SAFETY: reads 64 bytes, which the array has; the instruction accepts any alignment.
    unsafe { _mm512_loadu_si512(bytes.as_ptr().cast()) }
}

/// Loads 16 integers.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn load_integers(integers: &[i32; LANES]) -> __m512i {
    // SAFETY: reads 16 numbers, which the array has; the instruction accepts any alignment.
    unsafe { _mm512_loadu_si512(integers.as_ptr().cast()) }
}

/// Loads the first 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_floats(numbers: &[f32]) -> __m512 {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 16 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { _mm512_loadu_ps(numbers.as_ptr()) }
}

/// Loads the first 16 float16 numbers as float32.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_halves(numbers: &[f16]) -> __m512 {
    let numbers = &numbers[..LANES];
    // SAFETY: reads 16 numbers of 16 bits, which the slice has; the instruction accepts any alignment.
    _mm512_cvtph_ps(unsafe { _mm256_loadu_si256(numbers.as_ptr().cast()) })
}

/// Loads the first 16 bytes as 32-bit integers.
#[inline]
#[target_feature(enable = "avx512f")]
fn load_bytes(bytes: &[u8]) -> __m512i {
    let bytes = &bytes[..LANES];
    // SAFETY: reads 16 bytes, which the slice has; the instruction accepts any alignment.
    _mm512_cvtepu8_epi32(unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) })
}

/// Stores into the first 16 numbers.
#[inline]
#[target_feature(enable = "avx512f")]
fn store(numbers: &mut [f32], values: __m512) {
    let numbers = &mut numbers[..LANES];
    // SAFETY: writes 16 numbers, which the slice has; the instruction accepts any alignment.
    unsafe { _mm512_storeu_ps(numbers.as_mut_ptr(), values) }
}

/// Stores into 64 bytes.
#[inline]
#[target_feature(enable = "avx512f")]
pub(super) fn store_bytes(bytes: &mut [u8; 64], values: __m512i) {
    // SAFETY: writes 64 bytes, which the array has; the instruction accepts any alignment.
    unsafe { _mm512_storeu_si512(bytes.as_mut_ptr().cast(), values) }
}
