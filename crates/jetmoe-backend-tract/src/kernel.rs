//! `x · w` for a quantized weight: codes, scales and zero points are read as stored.

use std::ops::Range;

use half::f16;
use half::slice::HalfFloatSliceExt;
use multiversion::{multiversion, target::target_cfg_f};
use rayon::prelude::*;

/// How a weight's codes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CodeType {
    Int4,
    UInt4,
    Int8,
    UInt8,
}

impl CodeType {
    /// Bytes that hold a number of codes.
    pub(crate) fn bytes(self, codes: usize) -> usize {
        match self {
            CodeType::Int4 | CodeType::UInt4 => codes.div_ceil(2),
            CodeType::Int8 | CodeType::UInt8 => codes,
        }
    }

    /// The unpacked value of code 0, see [`unpack`].
    fn zero(self) -> i8 {
        if self == CodeType::UInt8 { i8::MIN } else { 0 }
    }
}

/// The scales of a weight, as stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Scales<'a> {
    Float32(&'a [f32]),
    Float16(&'a [f16]),
}

impl Scales<'_> {
    fn read(&self, first: usize, scales: &mut [f32]) {
        match self {
            Scales::Float32(stored) => scales.copy_from_slice(&stored[first..][..scales.len()]),
            Scales::Float16(stored) => stored[first..][..scales.len()].convert_to_f32_slice(scales),
        }
    }
}

/// A weight `[inputs, outputs]` in groups of consecutive inputs, row by row.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Weight<'a> {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) group_size: usize,
    pub(crate) code_type: CodeType,
    /// `[inputs, outputs]`
    pub(crate) codes: &'a [u8],
    /// `[groups, outputs]`
    pub(crate) scales: Scales<'a>,
    /// `[groups, outputs]`, of the type of the codes
    pub(crate) zero_points: Option<&'a [u8]>,
}

/// Up to this many rows, codes are multiplied while they are read. With more rows it is faster to dequantize a block of
/// weights first: for 2048 × 11264 4-bit weights on one core of an EPYC with AVX2, 8 rows took 13.6 ms without and 16.4 ms
/// with dequantization, 32 rows 31 ms with it.
const FEW_ROWS: usize = 8;

/// `x · weight` in float32, where `x` is `[rows, inputs]` and `product`, `[rows, outputs]`, holds zeros. The threads of the
/// current pool share the work; their number does not change the result.
///
/// The lengths of all slices must match the weight's sizes.
pub(crate) fn multiply(x: &[f32], weight: &Weight<'_>, product: &mut [f32]) {
    if x.is_empty() || product.is_empty() {
        return;
    }
    if x.len() / weight.inputs <= FEW_ROWS {
        multiply_few_rows(x, weight, product);
    } else {
        multiply_many_rows(x, weight, product);
    }
}

/// Inputs per task, whose codes are read sequentially.
const RUN: usize = 512;

fn multiply_few_rows(x: &[f32], weight: &Weight<'_>, product: &mut [f32]) {
    let run = RUN.next_multiple_of(weight.group_size);
    let runs: Vec<usize> = (0..weight.inputs).step_by(run).collect();
    let shares = runs.par_iter().map(|first| {
        let mut share = vec![0.0; product.len()];
        add_share(x, weight, *first..weight.inputs.min(first + run), &mut share);
        share
    });
    for share in shares.collect::<Vec<_>>() {
        product.iter_mut().zip(&share).for_each(|(product, share)| *product += share);
    }
}

/// Columns that are computed together: few enough for their sums to stay in the first-level cache, enough for the hardware
/// prefetcher to follow each row of codes.
const COLUMNS: usize = 2048;

/// Rows of codes that are added to the sums at once.
const INPUTS: usize = 8;

/// Adds the contribution of some of the inputs, in whole groups, to the product.
fn add_share(x: &[f32], weight: &Weight<'_>, of_inputs: Range<usize>, product: &mut [f32]) {
    let Weight { inputs, outputs, group_size, code_type, .. } = *weight;
    let mut codes = [[0; COLUMNS]; INPUTS];
    let mut scales = [0.0; COLUMNS];
    let mut zero_points = [code_type.zero(); COLUMNS];
    let mut sums = vec![[0.0; COLUMNS]; x.len() / inputs];
    for first_column in (0..outputs).step_by(COLUMNS) {
        let width = COLUMNS.min(outputs - first_column);
        for first_input in of_inputs.clone().step_by(group_size) {
            let group_end = inputs.min(first_input + group_size);
            sums.iter_mut().for_each(|sums| sums[..width].fill(0.0));
            for first in (first_input..group_end).step_by(INPUTS) {
                let read = INPUTS.min(group_end - first);
                for (input, codes) in codes[..read].iter_mut().enumerate() {
                    let place = (first + input) * outputs + first_column;
                    unpack(code_type, weight.codes, place, &mut codes[..width]);
                }
                for (x, sums) in x.chunks_exact(inputs).zip(&mut sums) {
                    // zeros for the missing inputs at the end of a group
                    let mut factors = [0.0; INPUTS];
                    factors[..read].copy_from_slice(&x[first..][..read]);
                    add_products(&factors, &codes, &mut sums[..width]);
                }
            }
            let place = first_input / group_size * outputs + first_column;
            weight.scales.read(place, &mut scales[..width]);
            if let Some(stored) = weight.zero_points {
                unpack(code_type, stored, place, &mut zero_points[..width]);
            }
            let rows = x.chunks_exact(inputs).zip(product.chunks_exact_mut(outputs)).zip(&sums);
            for ((x, product), sums) in rows {
                let sum_of_x = x[first_input..group_end].iter().sum();
                let product = &mut product[first_column..][..width];
                add_scaled(sum_of_x, &sums[..width], &zero_points, &scales, product);
            }
        }
    }
}

/// Unpacks codes, starting at `first`. Unsigned 8-bit codes and their zero points are shifted by −128, so that all four types
/// fit in `i8`; only their difference is used.
#[multiversion(targets("x86_64+avx2+fma"))]
fn unpack(code_type: CodeType, stored: &[u8], first: usize, codes: &mut [i8]) {
    match code_type {
        CodeType::Int4 => unpack_nibbles(stored, first, codes, |nibble| (nibble ^ 8).wrapping_sub(8)),
        CodeType::UInt4 => unpack_nibbles(stored, first, codes, |nibble| nibble),
        CodeType::Int8 => unpack_bytes(stored, first, codes, |byte| byte),
        CodeType::UInt8 => unpack_bytes(stored, first, codes, |byte| byte ^ 0x80),
    }
}

#[inline(always)]
fn unpack_bytes(stored: &[u8], first: usize, codes: &mut [i8], code: impl Fn(u8) -> u8) {
    for (byte, out) in stored[first..][..codes.len()].iter().zip(codes) {
        *out = code(*byte).cast_signed();
    }
}

/// The first of two codes is in the low half of a byte; a row with an odd number of codes ends inside a byte.
#[inline(always)]
fn unpack_nibbles(stored: &[u8], first: usize, codes: &mut [i8], code: impl Fn(u8) -> u8) {
    let mut stored = &stored[first / 2..];
    let mut codes = codes;
    if first % 2 == 1 && !codes.is_empty() {
        codes[0] = code(stored[0] >> 4).cast_signed();
        (stored, codes) = (&stored[1..], &mut codes[1..]);
    }
    let (pairs, last) = codes.as_chunks_mut::<2>();
    for ([low, high], byte) in pairs.iter_mut().zip(stored) {
        *low = code(byte & 0xF).cast_signed();
        *high = code(byte >> 4).cast_signed();
    }
    if let [last] = last {
        *last = code(stored[pairs.len()] & 0xF).cast_signed();
    }
}

/// Adds `factors · codes` to the sums of as many columns as there are sums.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn add_products(factors: &[f32; INPUTS], codes: &[[i8; COLUMNS]; INPUTS], sums: &mut [f32]) {
    #[inline(always)]
    fn add<const FUSED: bool>(factors: &[f32; INPUTS], codes: &[[i8; COLUMNS]; INPUTS], sums: &mut [f32]) {
        for (column, sum) in sums.iter_mut().enumerate().take(COLUMNS) {
            for input in 0..INPUTS {
                *sum = multiply_add::<FUSED>(factors[input], f32::from(codes[input][column]), *sum);
            }
        }
    }
    if target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64")) {
        add::<true>(factors, codes, sums);
    } else {
        add::<false>(factors, codes, sums);
    }
}

/// `left · right + sum`. Fused only where the processor does it in one instruction: elsewhere it is a slow function.
#[inline(always)]
fn multiply_add<const FUSED: bool>(left: f32, right: f32, sum: f32) -> f32 {
    if FUSED { left.mul_add(right, sum) } else { left * right + sum }
}

/// Adds the contribution of a group to a row of the product. The zero point is common to all weights of the group, so it is
/// multiplied with the sum of the group's inputs.
#[multiversion(targets("x86_64+avx2+fma"))]
fn add_scaled(
    sum_of_x: f32,
    sums: &[f32],
    zero_points: &[i8; COLUMNS],
    scales: &[f32; COLUMNS],
    product: &mut [f32],
) {
    for (((product, sum), zero_point), scale) in product.iter_mut().zip(sums).zip(zero_points).zip(scales) {
        *product += (sum - f32::from(*zero_point) * sum_of_x) * scale;
    }
}

/// Columns of a product that one call of [`multiply_strip`] holds in registers, and rows.
const STRIP: usize = 16;
const ROWS: usize = 4;

/// Inputs and strips of a block of dequantized weights: 128 KiB, for the second-level cache. A task computes one block's
/// columns.
const BLOCK_INPUTS: usize = 64;
const BLOCK_STRIPS: usize = 32;

/// One strip of a block, input by input.
type Strip = [[f32; STRIP]; BLOCK_INPUTS];

fn multiply_many_rows(x: &[f32], weight: &Weight<'_>, product: &mut [f32]) {
    let (inputs, outputs) = (weight.inputs, weight.outputs);
    let rows = x.len() / inputs;
    let x = interleave(x, inputs);
    let bands = (0..outputs).step_by(BLOCK_STRIPS * STRIP);
    let bands: Vec<Range<usize>> =
        bands.map(|first| first..outputs.min(first + BLOCK_STRIPS * STRIP)).collect();
    let products = bands.par_iter().map(|columns| {
        let mut product = vec![0.0; rows * columns.len()];
        multiply_band(&x, weight, columns.clone(), &mut product);
        product
    });
    for (columns, band) in bands.iter().zip(products.collect::<Vec<_>>()) {
        for (row, band) in product.chunks_exact_mut(outputs).zip(band.chunks_exact(columns.len())) {
            row[columns.clone()].copy_from_slice(band);
        }
    }
}

/// Adds the contribution of all inputs to some columns of the product, `[rows, columns]`.
fn multiply_band(x: &[[f32; ROWS]], weight: &Weight<'_>, columns: Range<usize>, product: &mut [f32]) {
    let inputs = weight.inputs;
    let mut block = vec![[[0.0; STRIP]; BLOCK_INPUTS]; BLOCK_STRIPS];
    for first_input in (0..inputs).step_by(BLOCK_INPUTS) {
        let height = BLOCK_INPUTS.min(inputs - first_input);
        dequantize_block(weight, first_input..first_input + height, columns.clone(), &mut block);
        for (strip, weights) in block.iter().enumerate().take(columns.len().div_ceil(STRIP)) {
            let column = strip * STRIP;
            let width = STRIP.min(columns.len() - column);
            for (x, product) in x.chunks_exact(inputs).zip(product.chunks_mut(ROWS * columns.len())) {
                let sums = multiply_strip(&x[first_input..][..height], weights);
                for (product, sums) in product.chunks_exact_mut(columns.len()).zip(&sums) {
                    let product = product[column..][..width].iter_mut();
                    product.zip(sums).for_each(|(product, sum)| *product += sum);
                }
            }
        }
    }
}

/// Packs the rows of `x` in blocks of [`ROWS`], input by input; the last block is padded with zeros.
fn interleave(x: &[f32], inputs: usize) -> Vec<[f32; ROWS]> {
    let mut interleaved = vec![[0.0; ROWS]; (x.len() / inputs).div_ceil(ROWS) * inputs];
    for (block, rows) in interleaved.chunks_exact_mut(inputs).zip(x.chunks(ROWS * inputs)) {
        for (row, x) in rows.chunks_exact(inputs).enumerate() {
            block.iter_mut().zip(x).for_each(|(block, x)| block[row] = *x);
        }
    }
    interleaved
}

/// Dequantizes a block of weights. Columns of a strip beyond the matrix keep a finite value that is never read.
fn dequantize_block(weight: &Weight<'_>, inputs: Range<usize>, columns: Range<usize>, block: &mut [Strip]) {
    let mut codes = [0; BLOCK_STRIPS * STRIP];
    let mut weights = [0.0; BLOCK_STRIPS * STRIP];
    let mut scales = [0.0; BLOCK_STRIPS * STRIP];
    let mut zero_points = [weight.code_type.zero(); BLOCK_STRIPS * STRIP];
    let width = columns.len();
    let mut current = None;
    for (row, input) in inputs.enumerate() {
        let group = input / weight.group_size;
        if current != Some(group) {
            current = Some(group);
            let place = group * weight.outputs + columns.start;
            weight.scales.read(place, &mut scales[..width]);
            if let Some(stored) = weight.zero_points {
                unpack(weight.code_type, stored, place, &mut zero_points[..width]);
            }
        }
        unpack(weight.code_type, weight.codes, input * weight.outputs + columns.start, &mut codes[..width]);
        dequantize_row(&codes[..width], &zero_points, &scales, &mut weights);
        for (strip, weights) in block.iter_mut().zip(weights.as_chunks::<STRIP>().0) {
            strip[row] = *weights;
        }
    }
}

/// Dequantizes the weights of one input.
#[multiversion(targets("x86_64+avx2+fma"))]
fn dequantize_row(codes: &[i8], zero_points: &[i8], scales: &[f32], weights: &mut [f32]) {
    for (((weight, code), zero_point), scale) in weights.iter_mut().zip(codes).zip(zero_points).zip(scales) {
        *weight = (i32::from(*code) - i32::from(*zero_point)) as f32 * scale;
    }
}

/// Products of a block of rows with as many inputs of a strip.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn multiply_strip(x: &[[f32; ROWS]], weights: &Strip) -> [[f32; STRIP]; ROWS] {
    #[inline(always)]
    fn product<const FUSED: bool>(x: &[[f32; ROWS]], weights: &Strip) -> [[f32; STRIP]; ROWS] {
        // four variables, because the compiler does not keep an array of arrays in registers
        let [mut first, mut second, mut third, mut fourth] = [[0.0; STRIP]; ROWS];
        for (x, weights) in x.iter().zip(weights) {
            add::<FUSED>(x[0], weights, &mut first);
            add::<FUSED>(x[1], weights, &mut second);
            add::<FUSED>(x[2], weights, &mut third);
            add::<FUSED>(x[3], weights, &mut fourth);
        }
        [first, second, third, fourth]
    }
    #[inline(always)]
    fn add<const FUSED: bool>(factor: f32, weights: &[f32; STRIP], sums: &mut [f32; STRIP]) {
        *sums = std::array::from_fn(|i| multiply_add::<FUSED>(factor, weights[i], sums[i]));
    }
    if target_cfg_f!(any(target_feature = "fma", target_arch = "aarch64")) {
        product::<true>(x, weights)
    } else {
        product::<false>(x, weights)
    }
}

#[cfg(test)]
mod tests;
