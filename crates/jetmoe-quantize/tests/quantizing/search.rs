//! The search for the scale with the least squared error.

use jetmoe_format::{ElementType, Scheme, WeightFormat};
use proptest::prelude::*;

use crate::{Quantized, any_scheme, every_scheme, normal_weights, range, row};

/// The squared error of a group for a scale and a zero point, when every weight gets its nearest code.
fn loss(scheme: Scheme, group: &[f32], scale: f64, zero: i32) -> f64 {
    let (low, high) = range(scheme);
    let error = |weight: &f32| {
        let weight = f64::from(*weight);
        let code = (weight / scale + f64::from(zero)).round().clamp(f64::from(low), f64::from(high));
        weight - (code - f64::from(zero)) * scale
    };
    group.iter().map(error).map(|error| error * error).sum()
}

/// The squared error of the search as a share of that of rounding to nearest, over normal weights.
fn relative_loss(scheme: Scheme) -> f64 {
    let weights = normal_weights(4096, 7);
    Quantized::search(scheme, &weights).error(&weights) / Quantized::nearest(scheme, &weights).error(&weights)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// Per group. A float16 scale is rounded after the search, which changes every dequantized weight by at most 1/2048;
    /// where float16 is subnormal, by more.
    #[test]
    fn the_search_never_loses_more_than_rounding(scheme in any_scheme(), weights in row(300)) {
        for group in weights.chunks(scheme.group_size) {
            let (nearest, search) = (Quantized::nearest(scheme, group), Quantized::search(scheme, group));
            let length = group.iter().map(|weight| f64::from(*weight).powi(2)).sum::<f64>().sqrt();
            let rounding = match scheme.scales {
                ElementType::Float32 => 1e-6 * length,
                _ => {
                    let digit = 2.0_f64.powi(-11).max(2.0_f64.powi(-25) / f64::from(search.scales[0]));
                    2.0 * digit * length
                }
            };
            let (found, allowed) = (search.error(group).sqrt(), nearest.error(group).sqrt() + rounding);
            prop_assert!(found <= allowed, "{} instead of {}: {:?}", found, allowed, group);
        }
    }

    #[test]
    fn every_code_is_the_nearest_one_for_the_chosen_scale(scheme in any_scheme(), weights in row(300)) {
        let quantized = Quantized::search(scheme, &weights);
        let (low, high) = range(scheme);
        for (index, code) in quantized.numbers().into_iter().enumerate() {
            let group = index / scheme.group_size;
            let place = f64::from(weights[index]) / f64::from(quantized.scales[group])
                + f64::from(quantized.zero_points[group]);
            let place = place.clamp(f64::from(low), f64::from(high));
            prop_assert!((place - f64::from(code)).abs() <= 0.5001, "{} has the code {}", place, code);
        }
    }

    #[test]
    fn weights_with_exact_codes_stay_as_they_are(
        scheme in any_scheme(),
        picks in proptest::collection::vec(any::<u16>(), 2..128),
        power in -5..4,
    ) {
        let high = range(scheme).1;
        let low = if scheme.zero_points { 0 } else { -high };
        let scale = 2.0_f32.powi(power);
        let code = |pick: &u16| low + i32::from(*pick) % (high - low + 1);
        let mut weights: Vec<f32> = picks.iter().map(|pick| code(pick) as f32 * scale).collect();
        weights.truncate(scheme.group_size);
        weights[0] = high as f32 * scale;
        weights[1] = low as f32 * scale;
        for (dequantized, weight) in Quantized::search(scheme, &weights).dequantize().iter().zip(&weights) {
            prop_assert!((dequantized - weight).abs() <= weight.abs() * 1e-6, "{} became {}", weight, dequantized);
        }
    }

    #[test]
    fn a_power_of_two_moves_into_the_chosen_scale(
        format in prop_oneof![Just(WeightFormat::Int4), Just(WeightFormat::Int8)],
        zero_points: bool,
        weights in row(200),
        power in -3..4,
    ) {
        let scheme = Scheme { format, group_size: 32, zero_points, scales: ElementType::Float32 };
        let scaled: Vec<f32> = weights.iter().map(|weight| weight * 2.0_f32.powi(power)).collect();
        let (plain, scaled) = (Quantized::search(scheme, &weights), Quantized::search(scheme, &scaled));
        prop_assert_eq!(plain.codes, scaled.codes);
        prop_assert_eq!(plain.zero_points, scaled.zero_points);
    }
}

#[test]
fn eight_bits_need_no_search() {
    let weights = normal_weights(1000, 3);
    for scheme in every_scheme().into_iter().filter(|scheme| scheme.format == WeightFormat::Int8) {
        assert_eq!(Quantized::search(scheme, &weights), Quantized::nearest(scheme, &weights));
    }
}

#[test]
fn with_four_bits_the_search_loses_less() {
    for scheme in every_scheme().into_iter().filter(|scheme| scheme.format == WeightFormat::Int4) {
        let share = relative_loss(scheme);
        println!("{scheme:?}: {share:.3}");
        assert!(share < 0.95, "{share} of the loss, {scheme:?}");
    }
}

/// None of hundreds of scales, with the zero point of the group, is much better.
#[test]
fn the_chosen_scale_is_nearly_the_best() {
    for scheme in every_scheme() {
        if scheme.format == WeightFormat::Int8 || scheme.scales == ElementType::Float16 {
            continue;
        }
        let weights = normal_weights(32 * scheme.group_size, 11);
        let (mut found, mut best) = (0.0, 0.0);
        for group in weights.chunks(scheme.group_size) {
            let quantized = Quantized::search(scheme, group);
            found += quantized.error(group);
            let zero = i32::from(quantized.zero_points[0]);
            let reach = f64::from(Quantized::nearest(scheme, group).scales[0]);
            let losses = (0..400).map(|step| {
                let share = 0.5 + f64::from(step) * (0.7 / 400.0);
                loss(scheme, group, share * reach, zero)
            });
            best += losses.fold(f64::INFINITY, f64::min);
        }
        println!("{scheme:?}: {:.4} times the loss of the best", found / best);
        assert!(found / best < 1.05, "{} times the loss of the best, {scheme:?}", found / best);
    }
}
