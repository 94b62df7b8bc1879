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
                let weight = Weight { inputs, outputs, group_size, code_type, codes, scales, zero_points };
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
fn a_product_is_that_of_the_dequantized_weight_for_any_number_of_rows() {
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
