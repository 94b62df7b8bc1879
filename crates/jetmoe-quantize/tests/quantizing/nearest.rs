//! Rounding to the nearest code, with the scale that gives the largest weight the largest code.

use half::f16;
use jetmoe_format::{ElementType, Scheme, WeightFormat};
use proptest::prelude::*;

use crate::{Quantized, any_scheme, every_scheme, range, row};

/// Half a step, and what float32 loses on the way to a code of up to 255 and back.
const HALF: f64 = 0.5 + 1e-4;

/// Rounds to the nearest integer, ties to even.
fn to_even(number: f32) -> f32 {
    let below = number.floor();
    let above_is_nearer = number - below > 0.5;
    let in_the_middle = number - below == 0.5;
    if above_is_nearer || (in_the_middle && below % 2.0 != 0.0) { below + 1.0 } else { below }
}

/// Quantizes a row by the definition, one weight after the other.
fn by_definition(scheme: Scheme, weights: &[f32]) -> Quantized {
    let (low, high) = range(scheme);
    let (mut codes, mut scales, mut zero_points) = (Vec::new(), Vec::new(), Vec::new());
    for group in weights.chunks(scheme.group_size) {
        let mut least = 0.0_f32;
        let mut greatest = 0.0_f32;
        for weight in group {
            least = if *weight < least { *weight } else { least };
            greatest = if *weight > greatest { *weight } else { greatest };
        }
        let smallest = match scheme.scales {
            ElementType::Float32 => f32::MIN_POSITIVE,
            _ => f16::from_bits(1).to_f32(),
        };
        let (mut scale, mut zero) = (1.0, 0.0);
        if least != 0.0 || greatest != 0.0 {
            if scheme.zero_points {
                scale = ((greatest / 2.0 - least / 2.0) / high as f32 * 2.0).max(smallest);
                zero = to_even(-least / scale).min(high as f32);
            } else {
                scale = (greatest.max(-least) / high as f32).max(smallest);
            }
        }
        if scheme.scales == ElementType::Float16 {
            scale = f16::from_f32(scale).to_f32();
        }
        for weight in group {
            let code = (to_even(*weight * (1.0 / scale)) + zero) as i32;
            codes.push(code.clamp(low, high) as u8);
        }
        scales.push(scale);
        zero_points.push(zero as u8);
    }
    Quantized { scheme, codes, scales, zero_points }
}

/// The scale that gives the largest weight the largest code, before it is rounded to its type.
fn exact_scale(scheme: Scheme, group: &[f32]) -> f64 {
    let (least, greatest) =
        group.iter().fold((0.0_f64, 0.0_f64), |(l, g), w| (l.min(f64::from(*w)), g.max(f64::from(*w))));
    let high = f64::from(range(scheme).1);
    if scheme.zero_points { (greatest - least) / high } else { greatest.max(-least) / high }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Rows as long as several vectors of any instruction set, with a rest that fills none.
    #[test]
    fn vector_code_gives_the_codes_of_a_plain_loop(scheme in any_scheme(), weights in row(700)) {
        prop_assert_eq!(Quantized::nearest(scheme, &weights), by_definition(scheme, &weights));
    }

    /// If the scale was rounded down, the largest weights are clipped, which adds to their error.
    #[test]
    fn no_weight_changes_by_more_than_half_a_step(scheme in any_scheme(), weights in row(400)) {
        let quantized = Quantized::nearest(scheme, &weights);
        let span = f64::from(range(scheme).1);
        let groups = weights.chunks(scheme.group_size).zip(quantized.exact().chunks(scheme.group_size)
            .map(<[f64]>::to_vec).collect::<Vec<_>>()).zip(quantized.scales.clone());
        for ((group, dequantized), scale) in groups {
            let scale = f64::from(scale);
            let short = (exact_scale(scheme, group) - scale).max(0.0);
            for (weight, dequantized) in group.iter().zip(dequantized) {
                let error = (f64::from(*weight) - dequantized).abs();
                prop_assert!(error <= HALF * scale + span * short, "{} became {}, steps of {}", weight, dequantized, scale);
            }
        }
    }

    /// The stored scale is rounded to nearest: half a unit in the last place of its type.
    #[test]
    fn the_scale_gives_the_largest_weight_the_largest_code(scheme in any_scheme(), weights in row(400)) {
        let quantized = Quantized::nearest(scheme, &weights);
        for (group, scale) in weights.chunks(scheme.group_size).zip(&quantized.scales) {
            let exact = exact_scale(scheme, group);
            let tolerance = match scheme.scales {
                _ if exact == 0.0 => continue,
                ElementType::Float32 => exact * 2.0_f64.powi(-22),
                _ => exact * 2.0_f64.powi(-11) + 2.0_f64.powi(-24),
            };
            prop_assert!((f64::from(*scale) - exact).abs() <= tolerance, "{} for {}", scale, exact);
        }
    }

    #[test]
    fn weights_on_the_steps_of_a_power_of_two_are_exact(
        scheme in any_scheme(),
        picks in proptest::collection::vec(any::<u16>(), 1..300),
        zero in any::<u8>(),
        power in -8..7,
    ) {
        let (low, high) = range(scheme);
        // −8 would need a scale of 8/7
        let low = if scheme.zero_points { low } else { -high };
        let zero = if scheme.zero_points { i32::from(zero) % (high + 1) } else { 0 };
        let scale = 2.0_f32.powi(power);
        let mut codes: Vec<i32> =
            picks.iter().map(|pick| low + i32::from(*pick) % (high - low + 1)).collect();
        for group in codes.chunks_mut(scheme.group_size) {
            // the ends, which make the scale what it is
            *group.last_mut().unwrap() = low;
            group[0] = high;
        }
        prop_assume!(codes.len() % scheme.group_size != 1);
        let weights: Vec<f32> = codes.iter().map(|code| (code - zero) as f32 * scale).collect();
        let quantized = Quantized::nearest(scheme, &weights);
        prop_assert_eq!(quantized.numbers(), codes);
        prop_assert!(quantized.scales.iter().all(|found| *found == scale), "{:?}", quantized);
        prop_assert!(quantized.zero_points.iter().all(|found| i32::from(*found) == zero), "{:?}", quantized);
        prop_assert_eq!(quantized.dequantize(), weights);
    }

    #[test]
    fn negated_weights_have_negated_codes_where_there_are_no_zero_points(
        scheme in any_scheme(),
        weights in row(300),
    ) {
        let scheme = Scheme { zero_points: false, ..scheme };
        let negated: Vec<f32> = weights.iter().map(|weight| -weight).collect();
        let (there, back) = (Quantized::nearest(scheme, &weights), Quantized::nearest(scheme, &negated));
        prop_assert_eq!(&there.scales, &back.scales);
        // A subnormal float16 scale is rounded coarsely, so the largest weight may be clipped, and −8 has
        // no positive counterpart.
        let is_coarse = scheme.scales == ElementType::Float16 && there.scales.iter().any(|scale| *scale < 1e-4);
        prop_assume!(!is_coarse);
        prop_assert_eq!(there.numbers(), back.numbers().iter().map(|code| -code).collect::<Vec<_>>());
    }

    #[test]
    fn a_power_of_two_moves_into_the_scale(scheme in any_scheme(), weights in row(300), power in -3..4) {
        let factor = 2.0_f32.powi(power);
        let scaled: Vec<f32> = weights.iter().map(|weight| weight * factor).collect();
        let (plain, scaled) = (Quantized::nearest(scheme, &weights), Quantized::nearest(scheme, &scaled));
        let least = match scheme.scales {
            ElementType::Float32 => 0.0,
            // below, float16 has fewer digits
            _ => 8.0 * f16::MIN_POSITIVE.to_f32(),
        };
        prop_assume!(plain.scales.iter().all(|scale| *scale >= least));
        prop_assert_eq!(&scaled.codes, &plain.codes);
        prop_assert_eq!(&scaled.zero_points, &plain.zero_points);
        // groups of zeros have the scale 1, whatever they are multiplied with
        let zeros = weights.chunks(scheme.group_size).map(|group| group.iter().all(|weight| *weight == 0.0));
        for ((found, plain), is_zero) in scaled.scales.iter().zip(&plain.scales).zip(zeros) {
            prop_assert_eq!(*found, if is_zero { *plain } else { plain * factor });
        }
    }
}

#[test]
fn weights_in_the_middle_of_two_steps_go_to_the_even_one() {
    for format in [WeightFormat::Int4, WeightFormat::Int8] {
        let scheme = Scheme { format, group_size: 16, zero_points: false, scales: ElementType::Float32 };
        let high = range(scheme).1 as f32;
        let quantized = Quantized::nearest(scheme, &[high, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 3.5]);
        assert_eq!(quantized.numbers()[1..], [0, 2, 2, 0, -2, -2, 4], "{format:?}");
    }
}

#[test]
fn a_constant_group_stays_as_it_was() {
    for scheme in every_scheme() {
        for constant in [1.0_f32, -1.0, 0.1, -0.3, 1e-3, 250.0] {
            let quantized = Quantized::nearest(scheme, &vec![constant; scheme.group_size + 3]);
            let precision = match scheme.scales {
                ElementType::Float32 => 2.0_f32.powi(-22),
                _ => 2.0_f32.powi(-10),
            };
            for dequantized in quantized.dequantize() {
                let error = (dequantized - constant).abs();
                // the scale of the smallest constant is below what float16 holds with all its digits
                let coarse =
                    if scheme.scales == ElementType::Float16 { 255.0 * 2.0_f32.powi(-25) } else { 0.0 };
                assert!(
                    error <= constant.abs() * precision + coarse,
                    "{constant} became {dequantized}, {scheme:?}"
                );
            }
        }
    }
}

#[test]
fn an_outlier_coarsens_its_own_group_only() {
    for scheme in every_scheme() {
        let small = |index: usize| if index.is_multiple_of(2) { 0.01 } else { -0.02 };
        let quiet: Vec<f32> = (0..3 * scheme.group_size).map(small).collect();
        let mut loud = quiet.clone();
        loud[scheme.group_size + 5] = 1000.0;
        let (quiet, found) = (Quantized::nearest(scheme, &quiet), Quantized::nearest(scheme, &loud));
        for group in [0, 2] {
            let codes = group * scheme.group_size..(group + 1) * scheme.group_size;
            assert_eq!(found.codes[codes.clone()], quiet.codes[codes], "group {group}, {scheme:?}");
            assert_eq!(found.scales[group], quiet.scales[group], "group {group}, {scheme:?}");
        }
        let dequantized = &found.dequantize()[scheme.group_size..2 * scheme.group_size];
        assert!((dequantized[5] - 1000.0).abs() <= 1.0, "{} for the outlier, {scheme:?}", dequantized[5]);
        let others = dequantized.iter().enumerate().filter(|(place, _)| *place != 5);
        assert!(others.into_iter().all(|(_, weight)| *weight == 0.0), "{dequantized:?}, {scheme:?}");
    }
}
