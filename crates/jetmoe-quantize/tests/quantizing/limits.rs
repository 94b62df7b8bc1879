//! The limits of floating point, and refused weights.

use half::f16;
use jetmoe_format::{ElementType, Scheme, WeightFormat};
use jetmoe_quantize::{Error, Rounding};
use proptest::prelude::*;

use crate::{Quantized, any_scheme, every_scheme, range};

const ROUNDINGS: [Rounding; 2] = [Rounding::Nearest, Rounding::Search];

/// A row of two groups whose weights are of one size, with both signs and a zero.
fn row_of(scheme: Scheme, size: f32) -> Vec<f32> {
    let shares = [1.0, -0.75, 0.5, 0.0, -0.25, 0.125];
    (0..scheme.group_size + 7).map(|index| shares[index % shares.len()] * size).collect()
}

#[test]
fn zeros_stay_zeros() {
    for scheme in every_scheme() {
        for rounding in ROUNDINGS {
            for zero in [0.0, -0.0] {
                let quantized = Quantized::by(scheme, rounding, &vec![zero; 3 * scheme.group_size]).unwrap();
                assert!(quantized.dequantize().iter().all(|weight| *weight == 0.0), "{quantized:?}");
                let usable = |scale: &f32| scale.is_finite() && *scale > 0.0;
                assert!(quantized.scales.iter().all(usable), "{quantized:?}");
            }
        }
    }
}

#[test]
fn a_zero_among_weights_stays_zero() {
    for scheme in every_scheme() {
        for rounding in ROUNDINGS {
            for size in [1.0, 3e-3, 700.0] {
                let weights = row_of(scheme, size);
                let dequantized = Quantized::by(scheme, rounding, &weights).unwrap().dequantize();
                let zeros = weights.iter().zip(dequantized).filter(|(weight, _)| **weight == 0.0);
                for (_, dequantized) in zeros {
                    assert_eq!(dequantized, 0.0, "{scheme:?}");
                }
            }
        }
    }
}

#[test]
fn tiny_weights_have_a_scale_that_is_not_zero() {
    let sizes = [1e-7, 6e-8, 1e-8, 1e-30, f32::MIN_POSITIVE, 1e-40, f32::from_bits(1)];
    for scheme in every_scheme() {
        let least = match scheme.scales {
            ElementType::Float32 => f32::MIN_POSITIVE,
            _ => f16::from_bits(1).to_f32(),
        };
        for (rounding, size) in ROUNDINGS.into_iter().flat_map(|rounding| sizes.map(|size| (rounding, size)))
        {
            let weights = row_of(scheme, size);
            let quantized = Quantized::by(scheme, rounding, &weights).unwrap();
            assert!(
                quantized.scales.iter().all(|scale| *scale >= least && scale.is_finite()),
                "{quantized:?}"
            );
            let (low, high) = range(scheme);
            assert!(quantized.numbers().iter().all(|code| (low..=high).contains(code)), "{quantized:?}");
            // Every weight stays near 0.
            for dequantized in quantized.dequantize() {
                assert!(
                    dequantized.abs() <= 1.5 * size.max(least),
                    "{size} became {dequantized}: {scheme:?}, {rounding:?}"
                );
            }
        }
    }
}

#[test]
fn float32_scales_hold_huge_weights() {
    for scheme in every_scheme().into_iter().filter(|scheme| scheme.scales == ElementType::Float32) {
        for rounding in ROUNDINGS {
            for size in [1e6, 1e30, 1e38, f32::MAX / 2.0] {
                let weights = row_of(scheme, size);
                let quantized = Quantized::by(scheme, rounding, &weights).unwrap();
                assert!(quantized.scales.iter().all(|scale| scale.is_finite()), "{quantized:?}");
                let steps = quantized.scales.iter().copied().fold(0.0, f32::max);
                for (weight, dequantized) in weights.iter().zip(quantized.dequantize()) {
                    assert!(
                        (weight - dequantized).abs() <= steps,
                        "{weight} became {dequantized}, steps of {steps}"
                    );
                }
            }
        }
    }
}

/// The product of a code and the scale may overflow, but codes and scale are valid.
#[test]
fn the_largest_weights_there_are_have_codes_and_a_finite_scale() {
    for scheme in every_scheme().into_iter().filter(|scheme| scheme.scales == ElementType::Float32) {
        for rounding in ROUNDINGS {
            let weights = row_of(scheme, f32::MAX);
            let quantized = Quantized::by(scheme, rounding, &weights).unwrap();
            assert!(quantized.scales.iter().all(|scale| *scale > 0.0 && scale.is_finite()), "{quantized:?}");
            for (weight, exact) in weights.iter().zip(quantized.exact()) {
                let error = (f64::from(*weight) - exact).abs();
                let step = quantized.scales.iter().copied().fold(0.0, f32::max);
                assert!(error <= f64::from(step), "{weight:e} became {exact:e}, {scheme:?}");
            }
        }
    }
}

proptest! {
    #[test]
    fn a_weight_that_is_not_finite_is_refused_with_its_index(
        scheme in any_scheme(),
        length in 1_usize..500,
        place in any::<prop::sample::Index>(),
        bad in prop_oneof![Just(f32::NAN), Just(f32::INFINITY), Just(f32::NEG_INFINITY)],
        rounding in prop_oneof![Just(Rounding::Nearest), Just(Rounding::Search)],
    ) {
        let mut weights: Vec<f32> = (0..length).map(|index| (index % 13) as f32 - 6.0).collect();
        let place = place.index(length);
        weights[place] = bad;
        match Quantized::by(scheme, rounding, &weights) {
            Err(Error::NotFinite { index, value }) => {
                prop_assert_eq!((index, value.to_bits()), (place, bad.to_bits()));
            }
            other => prop_assert!(false, "{:?}", other),
        }
    }

    #[test]
    fn a_group_that_overflows_float16_is_refused_with_its_largest_weight(
        scheme in any_scheme(),
        length in 1_usize..500,
        place in any::<prop::sample::Index>(),
        large in prop_oneof![66_000.0_f32..70_000.0, Just(4e5), Just(-1e6), Just(2e7), Just(-3e38)],
        rounding in prop_oneof![Just(Rounding::Nearest), Just(Rounding::Search)],
    ) {
        let scheme = Scheme { scales: ElementType::Float16, ..scheme };
        let mut weights: Vec<f32> = (0..length).map(|index| (index % 13) as f32 - 6.0).collect();
        let place = place.index(length);
        weights[place] = large;
        prop_assert_eq!(
            Quantized::by(scheme, rounding, &weights),
            Err(Error::ScaleTooLarge { index: place, value: large })
        );
        let scheme = Scheme { scales: ElementType::Float32, ..scheme };
        prop_assert!(Quantized::by(scheme, rounding, &weights).is_ok());
    }
}

#[test]
fn weights_dequantized_by_float16_scales_fit_in_float16() {
    for scheme in every_scheme().into_iter().filter(|scheme| scheme.scales == ElementType::Float16) {
        for (rounding, size) in
            ROUNDINGS.into_iter().flat_map(|rounding| [1.0, 6e4].map(|size| (rounding, size)))
        {
            let quantized = Quantized::by(scheme, rounding, &row_of(scheme, size)).unwrap();
            for dequantized in quantized.dequantize() {
                assert!(f16::from_f32(dequantized).is_finite(), "{dequantized}, {scheme:?}");
            }
        }
    }
}

#[test]
fn the_first_bad_weight_of_a_row_is_reported() {
    let scheme = Scheme {
        format: WeightFormat::Int4,
        group_size: 16,
        zero_points: false,
        scales: ElementType::Float32,
    };
    let mut weights = vec![1.0; 64];
    (weights[40], weights[35], weights[60]) = (f32::INFINITY, f32::NAN, f32::NAN);
    let error = Quantized::by(scheme, Rounding::Nearest, &weights).unwrap_err();
    assert_eq!(error.to_string(), "weight 35 of the row is NaN, which cannot be quantized");
    assert_eq!(error.offset_by(256).to_string(), "weight 291 of the row is NaN, which cannot be quantized");
}
