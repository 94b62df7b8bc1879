//! The mathematics of quantization, compared with independent definitions: the values of codes, the largest error, and
//! refused weights. Nothing of the crate's own rounding is used to check it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod limits;
mod nearest;
mod search;

use jetmoe_format::{ElementType, Scheme, WeightFormat};
use jetmoe_quantize::{Result, Rounding, quantize_row};
use proptest::prelude::*;

/// Every scheme of an export.
fn every_scheme() -> Vec<Scheme> {
    let mut schemes = Vec::new();
    for format in [WeightFormat::Int4, WeightFormat::Int8] {
        for group_size in [16, 32, 64, 128] {
            for zero_points in [false, true] {
                for scales in [ElementType::Float32, ElementType::Float16] {
                    schemes.push(Scheme { format, group_size, zero_points, scales });
                }
            }
        }
    }
    schemes
}

fn any_scheme() -> impl Strategy<Value = Scheme> {
    proptest::sample::select(every_scheme())
}

/// Rows of one sign or both, with zeros and small weights among large ones, and mostly with a short last
/// group. They are drawn by a generator of their own, because proptest would take longer over each weight
/// than the test.
fn row(longest: usize) -> impl Strategy<Value = Vec<f32>> {
    (any::<u64>(), 1..=longest, -9_i32..10, 0..4).prop_map(|(seed, length, power, signs)| {
        let signed = |weight: f64| match signs {
            0 => weight.abs(),
            1 => -weight.abs(),
            _ => weight,
        };
        let mut random = Random::new(seed);
        let mut weight = || match random.uniform() {
            share if share < 0.1 => 0.0,
            share if share < 0.3 => 0.1 * random.uniform() - 0.05,
            share if share < 0.4 => 0.5 + 0.5 * random.uniform(),
            _ => 2.0 * random.uniform() - 1.0,
        };
        (0..length).map(|_| signed(weight()) as f32 * 2.0_f32.powi(power)).collect()
    })
}

/// Reproducible random numbers: Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    /// Between 0 and 1.
    fn uniform(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) as f64 + 0.5) / (1_u64 << 53) as f64
    }
}

/// A quantized row.
#[derive(Debug, Clone, PartialEq)]
struct Quantized {
    scheme: Scheme,
    codes: Vec<u8>,
    scales: Vec<f32>,
    zero_points: Vec<u8>,
}

impl Quantized {
    fn by(scheme: Scheme, rounding: Rounding, weights: &[f32]) -> Result<Self> {
        let groups = weights.len().div_ceil(scheme.group_size);
        // Every element must be overwritten.
        let (mut codes, mut scales) = (vec![0xAA; weights.len()], vec![f32::NAN; groups]);
        let mut zero_points = vec![0xAA; groups];
        let result = quantize_row(&scheme, rounding, weights, &mut codes, &mut scales, &mut zero_points);
        result.map(|()| Quantized { scheme, codes, scales, zero_points })
    }

    fn nearest(scheme: Scheme, weights: &[f32]) -> Self {
        Self::by(scheme, Rounding::Nearest, weights).unwrap()
    }

    fn search(scheme: Scheme, weights: &[f32]) -> Self {
        Self::by(scheme, Rounding::Search, weights).unwrap()
    }

    /// The codes as numbers: without zero points a byte is a number in two's complement.
    fn numbers(&self) -> Vec<i32> {
        self.codes
            .iter()
            .map(|code| i32::from(*code))
            .map(|code| if !self.scheme.zero_points && code > 127 { code - 256 } else { code })
            .collect()
    }

    /// The weights in float64: `(code − zero point) · scale`.
    fn exact(&self) -> Vec<f64> {
        let group = |index: usize| index / self.scheme.group_size;
        let zero = |index: usize| i32::from(self.zero_points[group(index)]);
        let dequantize = |(index, number): (usize, &i32)| {
            f64::from(number - zero(index)) * f64::from(self.scales[group(index)])
        };
        self.numbers().iter().enumerate().map(dequantize).collect()
    }

    fn dequantize(&self) -> Vec<f32> {
        let mut weights = vec![f32::NAN; self.codes.len()];
        self.scheme.dequantize_row(&self.codes, &self.scales, &self.zero_points, &mut weights);
        weights
    }

    /// Σ (weight − dequantized)²
    fn error(&self, weights: &[f32]) -> f64 {
        weights.iter().zip(self.exact()).map(|(weight, exact)| (f64::from(*weight) - exact).powi(2)).sum()
    }
}

/// Least and greatest code, as in ONNX's types; 8-bit signed codes go to −127 only.
fn range(scheme: Scheme) -> (i32, i32) {
    match (scheme.format, scheme.zero_points) {
        (WeightFormat::Int4, false) => (-8, 7),
        (WeightFormat::Int4, true) => (0, 15),
        (_, false) => (-127, 127),
        (_, true) => (0, 255),
    }
}

/// Normally distributed weights, as trained ones are; the same on every run.
fn normal_weights(count: usize, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed);
    (0..count)
        .map(|_| {
            let (radius, turn) = ((-2.0 * random.uniform().ln()).sqrt(), random.uniform());
            (0.02 * radius * (std::f64::consts::TAU * turn).cos()) as f32
        })
        .collect()
}

proptest! {
    #[test]
    fn codes_are_in_range_and_scales_are_positive(
        scheme in any_scheme(),
        rounding in prop_oneof![Just(Rounding::Nearest), Just(Rounding::Search)],
        weights in row(300),
    ) {
        let quantized = Quantized::by(scheme, rounding, &weights).unwrap();
        let (low, high) = range(scheme);
        prop_assert_eq!(scheme.range(), (low, high));
        prop_assert!(quantized.numbers().iter().all(|code| (low..=high).contains(code)), "{:?}", quantized);
        prop_assert!(quantized.scales.iter().all(|scale| *scale > 0.0 && scale.is_finite()), "{:?}", quantized);
        let zeros = quantized.zero_points.iter();
        prop_assert!(zeros.clone().all(|zero| i32::from(*zero) <= high), "{:?}", quantized);
        prop_assert!(scheme.zero_points || zeros.clone().all(|zero| *zero == 0), "{:?}", quantized);
        prop_assert_eq!(scheme.groups(weights.len()), quantized.scales.len());
    }

    #[test]
    fn a_float16_scale_is_a_float16_number(
        scheme in any_scheme(),
        rounding in prop_oneof![Just(Rounding::Nearest), Just(Rounding::Search)],
        weights in row(200),
    ) {
        let scheme = Scheme { scales: ElementType::Float16, ..scheme };
        for scale in Quantized::by(scheme, rounding, &weights).unwrap().scales {
            prop_assert_eq!(half::f16::from_f32(scale).to_f32(), scale);
        }
    }

    #[test]
    fn a_dequantized_weight_is_code_minus_zero_point_times_scale(
        scheme in any_scheme(),
        codes in proptest::collection::vec(any::<u8>(), 1..300),
        scale in 0.001_f32..10.0,
        zero_point in any::<u8>(),
    ) {
        let (low, high) = range(scheme);
        let number = |code: u8| low + i32::from(code) % (high - low + 1);
        let groups = codes.len().div_ceil(scheme.group_size);
        let zero = if scheme.zero_points { number(zero_point) } else { 0 };
        let quantized = Quantized {
            scheme,
            codes: codes.iter().map(|code| number(*code) as u8).collect(),
            // another scale for every group
            scales: (0..groups).map(|group| scale * (group + 1) as f32).collect(),
            zero_points: vec![zero as u8; groups],
        };
        for (index, (dequantized, code)) in quantized.dequantize().iter().zip(&codes).enumerate() {
            let scale = scale * (index / scheme.group_size + 1) as f32;
            prop_assert_eq!(*dequantized, (number(*code) - zero) as f32 * scale, "weight {}", index);
        }
    }

    #[test]
    fn groups_are_independent_of_each_other(
        scheme in any_scheme(),
        rounding in prop_oneof![Just(Rounding::Nearest), Just(Rounding::Search)],
        weights in row(400),
    ) {
        let whole = Quantized::by(scheme, rounding, &weights).unwrap();
        let groups = weights.chunks(scheme.group_size);
        let alone: Vec<_> = groups.map(|group| Quantized::by(scheme, rounding, group).unwrap()).collect();
        let codes: Vec<u8> = alone.iter().flat_map(|group| group.codes.clone()).collect();
        let scales: Vec<f32> = alone.iter().flat_map(|group| group.scales.clone()).collect();
        let zero_points: Vec<u8> = alone.iter().flat_map(|group| group.zero_points.clone()).collect();
        prop_assert_eq!(whole, Quantized { scheme, codes, scales, zero_points });
    }
}
