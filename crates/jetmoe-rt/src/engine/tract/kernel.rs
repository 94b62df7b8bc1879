//! `x · w` for a weight that stays quantized: codes, scales and zero points are read as they are stored.

use half::f16;
use half::slice::HalfFloatSliceExt;
use multiversion::{multiversion, target::target_cfg_f};

/// How a weight's codes are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum CodeType {
    Int4,
    UInt4,
    Int8,
    UInt8,
}

impl CodeType {
    /// Bytes that hold a number of codes.
    pub(super) fn bytes(self, codes: usize) -> usize {
        match self {
            CodeType::Int4 | CodeType::UInt4 => codes.div_ceil(2),
            CodeType::Int8 | CodeType::UInt8 => codes,
        }
    }

    /// What a code of 0 is read as, see [`unpack`].
    fn zero(self) -> i8 {
        if self == CodeType::UInt8 { i8::MIN } else { 0 }
    }
}

/// The scales of a weight, as they are stored.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scales<'a> {
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
pub(super) struct Weight<'a> {
    pub(super) inputs: usize,
    pub(super) outputs: usize,
    pub(super) group_size: usize,
    pub(super) code_type: CodeType,
    /// `[inputs, outputs]`
    pub(super) codes: &'a [u8],
    /// `[groups, outputs]`
    pub(super) scales: Scales<'a>,
    /// `[groups, outputs]`, stored as the codes are
    pub(super) zero_points: Option<&'a [u8]>,
}

/// Up to this many rows, codes are multiplied as they are read. With more it is cheaper to restore a block of weights
/// first: 8 rows of 2048 × 11264 4-bit weights took 13.6 ms this way and 16.4 ms that way on one core of an EPYC with
/// AVX2, 32 rows took 31 ms that way.
const FEW_ROWS: usize = 8;

/// `x · weight` in float32, where `x` is `[rows, inputs]` and `product`, `[rows, outputs]`, holds zeros.
///
/// Every slice must have the length that the weight's sizes give it.
pub(super) fn multiply(x: &[f32], weight: &Weight<'_>, product: &mut [f32]) {
    if x.is_empty() || product.is_empty() {
        return;
    }
    if x.len() / weight.inputs <= FEW_ROWS {
        multiply_few_rows(x, weight, product);
    } else {
        multiply_many_rows(x, weight, product);
    }
}

/// Columns that are computed together. Their sums stay in the cache next to the processor, and each row of codes is
/// read in a run that is long enough for the processor to read ahead.
const COLUMNS: usize = 2048;

/// Rows of codes that are added to the sums in one go.
const INPUTS: usize = 8;

fn multiply_few_rows(x: &[f32], weight: &Weight<'_>, product: &mut [f32]) {
    let Weight { inputs, outputs, group_size, code_type, .. } = *weight;
    let mut codes = [[0; COLUMNS]; INPUTS];
    let mut scales = [0.0; COLUMNS];
    let mut zero_points = [code_type.zero(); COLUMNS];
    let mut sums = vec![[0.0; COLUMNS]; x.len() / inputs];
    for first_column in (0..outputs).step_by(COLUMNS) {
        let width = COLUMNS.min(outputs - first_column);
        for (group, first_input) in (0..inputs).step_by(group_size).enumerate() {
            let group_end = inputs.min(first_input + group_size);
            sums.iter_mut().for_each(|sums| sums[..width].fill(0.0));
            for first in (first_input..group_end).step_by(INPUTS) {
                let read = INPUTS.min(group_end - first);
                for (input, codes) in codes[..read].iter_mut().enumerate() {
                    let place = (first + input) * outputs + first_column;
                    unpack(code_type, weight.codes, place, &mut codes[..width]);
                }
                for (x, sums) in x.chunks_exact(inputs).zip(&mut sums) {
                    // zeros for the inputs that the last piece of a group lacks
                    let mut factors = [0.0; INPUTS];
                    factors[..read].copy_from_slice(&x[first..][..read]);
                    add_products(&factors, &codes, &mut sums[..width]);
                }
            }
            let place = group * outputs + first_column;
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

/// Reads codes from the `first` on. Unsigned 8-bit codes come out 128 lower, as their zero points do, so that all four
/// types fit in one: what counts is the difference.
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

/// The first of two codes stands in the low half of a byte; a row of an odd number of codes ends inside one.
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

/// Adds a group's share to a row of the product. The zero point stands in the group's every weight, so it is
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

/// Inputs and strips of a block of restored weights: 256 KiB, for the second cache.
const BLOCK_INPUTS: usize = 64;
const BLOCK_STRIPS: usize = 64;

/// One strip of a block, input by input.
type Strip = [[f32; STRIP]; BLOCK_INPUTS];

fn multiply_many_rows(x: &[f32], weight: &Weight<'_>, product: &mut [f32]) {
    let Weight { inputs, outputs, .. } = *weight;
    let x = interleave(x, inputs);
    let mut block = vec![[[0.0; STRIP]; BLOCK_INPUTS]; BLOCK_STRIPS];
    for first_column in (0..outputs).step_by(BLOCK_STRIPS * STRIP) {
        let width = (BLOCK_STRIPS * STRIP).min(outputs - first_column);
        for first_input in (0..inputs).step_by(BLOCK_INPUTS) {
            let height = BLOCK_INPUTS.min(inputs - first_input);
            restore(
                weight,
                first_input..first_input + height,
                first_column..first_column + width,
                &mut block,
            );
            for (strip, weights) in block.iter().enumerate().take(width.div_ceil(STRIP)) {
                let column = first_column + strip * STRIP;
                let width = STRIP.min(outputs - column);
                for (x, product) in x.chunks_exact(inputs).zip(product.chunks_mut(ROWS * outputs)) {
                    let sums = multiply_strip(&x[first_input..][..height], weights);
                    for (product, sums) in product.chunks_exact_mut(outputs).zip(&sums) {
                        let product = product[column..][..width].iter_mut();
                        product.zip(sums).for_each(|(product, sum)| *product += sum);
                    }
                }
            }
        }
    }
}

/// The rows of `x` in blocks of [`ROWS`], input by input; zeros for the rows that the last block lacks.
fn interleave(x: &[f32], inputs: usize) -> Vec<[f32; ROWS]> {
    let mut interleaved = vec![[0.0; ROWS]; (x.len() / inputs).div_ceil(ROWS) * inputs];
    for (block, rows) in interleaved.chunks_exact_mut(inputs).zip(x.chunks(ROWS * inputs)) {
        for (row, x) in rows.chunks_exact(inputs).enumerate() {
            block.iter_mut().zip(x).for_each(|(block, x)| block[row] = *x);
        }
    }
    interleaved
}

/// Restores a block of weights. What a strip has beyond the columns keeps a finite value that nobody reads.
fn restore(
    weight: &Weight<'_>,
    inputs: std::ops::Range<usize>,
    columns: std::ops::Range<usize>,
    block: &mut [Strip],
) {
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
        restore_row(&codes[..width], &zero_points, &scales, &mut weights);
        for (strip, weights) in block.iter_mut().zip(weights.as_chunks::<STRIP>().0) {
            strip[row] = *weights;
        }
    }
}

/// The weights that codes stand for, one input's.
#[multiversion(targets("x86_64+avx2+fma"))]
fn restore_row(codes: &[i8], zero_points: &[i8], scales: &[f32], weights: &mut [f32]) {
    for (((weight, code), zero_point), scale) in weights.iter_mut().zip(codes).zip(zero_points).zip(scales) {
        *weight = (i32::from(*code) - i32::from(*zero_point)) as f32 * scale;
    }
}

/// Products of a block of rows with as many inputs of a strip.
#[multiversion(targets("x86_64+avx2+fma", "aarch64+neon"))]
fn multiply_strip(x: &[[f32; ROWS]], weights: &Strip) -> [[f32; STRIP]; ROWS] {
    #[inline(always)]
    fn product<const FUSED: bool>(x: &[[f32; ROWS]], weights: &Strip) -> [[f32; STRIP]; ROWS] {
        // four variables, as the compiler keeps no array of arrays in registers
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
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// Of the largest entry of a product: float32 sums of a few hundred terms in another order.
    const ROUNDING: f32 = 1e-5;

    const CODE_TYPES: [CodeType; 4] = [CodeType::Int4, CodeType::UInt4, CodeType::Int8, CodeType::UInt8];

    fn code(code_type: CodeType, stored: &[u8], place: usize) -> f32 {
        let nibble = || (stored[place / 2] >> (4 * (place % 2))) & 0xF;
        f32::from(match code_type {
            CodeType::Int4 if nibble() > 7 => i16::from(nibble()) - 16,
            CodeType::Int4 | CodeType::UInt4 => i16::from(nibble()),
            CodeType::Int8 => i16::from(stored[place].cast_signed()),
            CodeType::UInt8 => i16::from(stored[place]),
        })
    }

    /// The definition, one multiplication after the other.
    fn plain_product(x: &[f32], weight: &Weight<'_>) -> Vec<f32> {
        let Weight { inputs, outputs, group_size, code_type, .. } = *weight;
        let mut product = vec![0.0; x.len() / inputs * outputs];
        for (x, product) in x.chunks(inputs).zip(product.chunks_mut(outputs)) {
            for (input, x) in x.iter().enumerate() {
                for (output, product) in product.iter_mut().enumerate() {
                    let place = input / group_size * outputs + output;
                    let scale = match weight.scales {
                        Scales::Float32(scales) => scales[place],
                        Scales::Float16(scales) => scales[place].to_f32(),
                    };
                    let zero = weight.zero_points.map_or(0.0, |stored| code(code_type, stored, place));
                    *product += x * (code(code_type, weight.codes, input * outputs + output) - zero) * scale;
                }
            }
        }
        product
    }

    /// Compares with the definition: every type of codes and scales, with zero points and without.
    fn assert_products(rows: usize, inputs: usize, outputs: usize, group_size: usize) {
        let mut random = ChaCha8Rng::seed_from_u64((rows + inputs * outputs + group_size) as u64);
        let scale_count = inputs.div_ceil(group_size) * outputs;
        let codes: Vec<u8> = (0..inputs * outputs).map(|_| random.random()).collect();
        let zero_points: Vec<u8> = (0..scale_count).map(|_| random.random()).collect();
        let scales: Vec<f32> = (0..scale_count).map(|_| random.random_range(-1.0..1.0)).collect();
        let halves: Vec<f16> = scales.iter().copied().map(f16::from_f32).collect();
        let x: Vec<f32> = (0..rows * inputs).map(|_| random.random_range(-1.0..1.0)).collect();
        for code_type in CODE_TYPES {
            for scales in [Scales::Float32(&scales), Scales::Float16(&halves)] {
                for zero_points in [None, Some(&zero_points[..code_type.bytes(scale_count)])] {
                    let codes = &codes[..code_type.bytes(inputs * outputs)];
                    let weight =
                        Weight { inputs, outputs, group_size, code_type, codes, scales, zero_points };
                    let expected = plain_product(&x, &weight);
                    let largest = expected.iter().fold(0.0, |largest: f32, value| largest.max(value.abs()));
                    let mut found = vec![0.0; rows * outputs];
                    multiply(&x, &weight, &mut found);
                    for (place, (found, expected)) in found.iter().zip(&expected).enumerate() {
                        assert!(
                            (found - expected).abs() <= ROUNDING * largest,
                            "{code_type:?} [{inputs}, {outputs}] in groups of {group_size}, {rows} rows, \
                             zero points: {}, place {place}: {found} is not {expected}",
                            zero_points.is_some(),
                        );
                    }
                }
            }
        }
    }

    #[test]
    fn a_product_is_that_of_the_restored_weight_for_any_number_of_rows() {
        for rows in [1, 2, 3, FEW_ROWS, FEW_ROWS + 1, FEW_ROWS + 2, 23] {
            assert_products(rows, 64, 48, 16);
        }
    }

    #[test]
    fn rows_of_an_odd_number_of_codes_end_inside_a_byte() {
        for (rows, outputs) in [(1, 1), (2, 17), (11, 1), (11, 33)] {
            assert_products(rows, 19, outputs, 16);
        }
    }

    #[test]
    fn the_last_group_may_be_short_and_the_only_one() {
        for rows in [1, 9] {
            assert_products(rows, 70, 20, 32);
            assert_products(rows, 16, 20, 32);
            assert_products(rows, 5, 20, 1);
        }
    }

    #[test]
    fn a_weight_may_be_larger_than_what_is_computed_together() {
        for outputs in [COLUMNS + 1, BLOCK_STRIPS * STRIP + 3] {
            assert_products(1, BLOCK_INPUTS + 7, outputs, 32);
            assert_products(FEW_ROWS + 1, BLOCK_INPUTS + 7, outputs, 32);
        }
    }

    #[test]
    fn no_rows_give_no_product() {
        assert_products(0, 32, 16, 16);
    }
}
