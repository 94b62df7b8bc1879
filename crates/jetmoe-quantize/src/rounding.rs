//! Rounding of single groups: the scale, and the nearest codes for it.

use jetmoe_format::{ElementType, Scheme};
use pulp::{Arch, Simd, WithSimd};

use crate::Rounding;
use crate::quantize::Group;

/// Scales that are tried for a group, as shares of the one that just reaches its largest weight. Below 1 the largest
/// weights are clipped and all others become finer.
///
/// More of them lower the squared error by less than a hundredth, and no measure of the model shows it.
const SHARES: [f32; 8] = [1.05, 1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.72];

/// Quantizes every group of a row, with the widest vectors that this processor has. Not finite weights give a scale that
/// is not finite.
pub(crate) fn quantize_row(
    scheme: &Scheme,
    rounding: Rounding,
    weights: &[f32],
    codes: &mut [u8],
    scales: &mut [f32],
    zero_points: &mut [u8],
) {
    Arch::new().dispatch(Row { scheme, rounding, weights, codes, scales, zero_points });
}

struct Row<'a> {
    scheme: &'a Scheme,
    rounding: Rounding,
    weights: &'a [f32],
    codes: &'a mut [u8],
    scales: &'a mut [f32],
    zero_points: &'a mut [u8],
}

impl WithSimd for Row<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Row { scheme, rounding, weights, codes, scales, zero_points } = self;
        let size = scheme.group_size;
        for (index, (scale, zero_point)) in scales.iter_mut().zip(zero_points).enumerate() {
            let group = index * size..((index + 1) * size).min(weights.len());
            let found = choose_with(simd, scheme, rounding, &weights[group.clone()]);
            round(scheme, found, &weights[group.clone()], &mut codes[group]);
            (*scale, *zero_point) = (found.scale, found.zero_point);
        }
    }
}

/// Scale and zero point for a group of weights.
pub(crate) fn choose(scheme: &Scheme, rounding: Rounding, weights: &[f32]) -> Group {
    struct Choose<'a>(&'a Scheme, Rounding, &'a [f32]);

    impl WithSimd for Choose<'_> {
        type Output = Group;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Group {
            choose_with(simd, self.0, self.1, self.2)
        }
    }

    Arch::new().dispatch(Choose(scheme, rounding, weights))
}

#[inline(always)]
fn choose_with<S: Simd>(simd: S, scheme: &Scheme, rounding: Rounding, weights: &[f32]) -> Group {
    let extent = Extent::of(simd, weights);
    if !extent.is_finite {
        return Group { scale: f32::NAN, zero_point: 0 };
    }
    let nearest = reach(scheme, extent);
    if rounding == Rounding::Nearest || scheme.format.bits() == 8 || extent.is_zero() {
        return stored(scheme, nearest, extent);
    }
    let (low, high) = scheme.range();
    let zero = i32::from(nearest.zero_point);
    let range = ((low - zero) as f32, (high - zero) as f32);
    // where no scale explains anything, because everything is below the least scale, none is better
    let (mut best_gain, mut best_share) = (0.0, 1.0);
    // at the end once more with the best scale: some weights then have other nearest codes, for which another is best
    for attempt in 0..=SHARES.len() {
        let share = SHARES.get(attempt).copied().unwrap_or(best_share);
        let products = products(simd, weights, nearest.scale * share, range);
        let gain = products.gain() * share * share;
        if gain > best_gain {
            (best_gain, best_share) = (gain, share * products.factor());
        }
    }
    stored(scheme, Group { scale: nearest.scale * best_share, ..nearest }, extent)
}

/// Adding a number whose neighbours are 1 apart rounds to the nearest whole number, to the even one of two, on any
/// processor; the lowest bits of the sum are then the whole number's.
const WHOLE: f32 = 12_582_912.0; // 1.5 · 2²³

/// Nearest codes.
#[inline(always)]
fn round(scheme: &Scheme, group: Group, weights: &[f32], codes: &mut [u8]) {
    let (low, high) = scheme.range();
    let inverse = 1.0 / group.scale;
    let zero = i32::from(group.zero_point);
    let (low, high) = ((low - zero) as f32, (high - zero) as f32);
    for (weight, code) in weights.iter().zip(codes) {
        let whole = (weight * inverse).clamp(low, high) + WHOLE;
        // within the range of a byte; a signed code's byte is its two's complement
        *code = (whole.to_bits() as u8).wrapping_add(group.zero_point);
    }
}

/// The nearest code of one weight.
pub(crate) fn nearest_code(scheme: &Scheme, group: Group, weight: f32) -> u8 {
    let mut code = [0];
    round(scheme, group, &[weight], &mut code);
    code[0]
}

/// The weight that a code stands for.
pub(crate) fn restore(scheme: &Scheme, group: Group, code: u8) -> f32 {
    scheme.dequantize(code, group.zero_point, group.scale)
}

/// Least and greatest weight of a group.
#[derive(Clone, Copy)]
struct Extent {
    least: f32,
    greatest: f32,
    is_finite: bool,
}

impl Extent {
    #[inline(always)]
    fn of<S: Simd>(simd: S, weights: &[f32]) -> Self {
        let (vectors, rest) = S::as_simd_f32s(weights);
        let (mut leasts, mut greatests) =
            (simd.splat_f32s(f32::INFINITY), simd.splat_f32s(f32::NEG_INFINITY));
        // stays 0 unless something is not finite
        let (mut zeros, zero) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for weights in vectors {
            leasts = simd.min_f32s(leasts, *weights);
            greatests = simd.max_f32s(greatests, *weights);
            zeros = simd.mul_add_f32s(*weights, zero, zeros);
        }
        let least = rest.iter().copied().fold(simd.reduce_min_f32s(leasts), f32::min);
        let greatest = rest.iter().copied().fold(simd.reduce_max_f32s(greatests), f32::max);
        let is_finite = simd.reduce_sum_f32s(zeros) == 0.0 && rest.iter().all(|weight| weight.is_finite());
        Extent { least, greatest, is_finite }
    }

    fn is_zero(self) -> bool {
        self.least == 0.0 && self.greatest == 0.0
    }
}

/// The least scale with which every weight has a code.
#[inline(always)]
fn reach(scheme: &Scheme, extent: Extent) -> Group {
    let (low, high) = scheme.range();
    if extent.is_zero() {
        return Group { scale: 1.0, zero_point: 0 };
    }
    let at_least = scheme.least_scale();
    if !scheme.zero_points {
        let largest = extent.greatest.max(-extent.least);
        return Group { scale: (largest / high as f32).max(at_least), zero_point: 0 };
    }
    // 0 has a code of its own, so that what is absent stays absent
    let (least, greatest) = (extent.least.min(0.0), extent.greatest.max(0.0));
    // halves, which are exact: the difference of two large weights may not fit
    let scale = ((greatest / 2.0 - least / 2.0) / high as f32 * 2.0).max(at_least);
    let zero_point = (-least / scale).round_ties_even().clamp(low as f32, high as f32);
    Group { scale, zero_point: zero_point as u8 }
}

/// A group whose scale is as it will be read, and never 0. It is infinite where the type of the scale does not hold it, or
/// not the weights that are restored in that type.
#[inline(always)]
fn stored(scheme: &Scheme, group: Group, extent: Extent) -> Group {
    let group = Group { scale: scheme.stored_scale(group.scale.max(scheme.least_scale())), ..group };
    let fits = |weight: f32| {
        scheme.stored_scale(restore(scheme, group, nearest_code(scheme, group, weight))).is_finite()
    };
    if scheme.scales == ElementType::Float32 || (fits(extent.least) && fits(extent.greatest)) {
        group
    } else {
        Group { scale: f32::INFINITY, ..group }
    }
}

/// Products of weights, in units of a scale, and their codes.
#[derive(Clone, Copy)]
struct Products {
    /// Σ weight · code
    mixed: f32,
    /// Σ code²
    square: f32,
}

impl Products {
    /// How much of Σ weight² the codes explain with the best scale for them.
    #[inline(always)]
    fn gain(self) -> f32 {
        if self.square > 0.0 && self.mixed > 0.0 { self.mixed / self.square * self.mixed } else { 0.0 }
    }

    /// By how much the scale should change for that: of all scales for these codes, it leaves the least squared error.
    #[inline(always)]
    fn factor(self) -> f32 {
        self.mixed / self.square
    }
}

#[inline(always)]
fn products<S: Simd>(simd: S, weights: &[f32], scale: f32, (low, high): (f32, f32)) -> Products {
    let inverse = 1.0 / scale;
    let (vectors, rest) = S::as_simd_f32s(weights);
    let (inverses, whole) = (simd.splat_f32s(inverse), simd.splat_f32s(WHOLE));
    let (lows, highs) = (simd.splat_f32s(low), simd.splat_f32s(high));
    let (mut mixed, mut square) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
    for weights in vectors {
        let scaled = simd.mul_f32s(*weights, inverses);
        let clipped = simd.min_f32s(simd.max_f32s(scaled, lows), highs);
        let codes = simd.sub_f32s(simd.add_f32s(clipped, whole), whole);
        mixed = simd.mul_add_f32s(codes, scaled, mixed);
        square = simd.mul_add_f32s(codes, codes, square);
    }
    let mut products = Products { mixed: simd.reduce_sum_f32s(mixed), square: simd.reduce_sum_f32s(square) };
    for weight in rest {
        let scaled = weight * inverse;
        let code = (scaled.clamp(low, high) + WHOLE) - WHOLE;
        products.mixed += code * scaled;
        products.square += code * code;
    }
    products
}
