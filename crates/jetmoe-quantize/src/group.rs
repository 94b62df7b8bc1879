//! Quantization of single groups: the choice of a scale, and the nearest codes for it.

use jetmoe_format::{ElementType, Scheme};
use pulp::{Arch, Simd, WithSimd};

/// How the scale of a group is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The largest weight gets the largest code, and every weight the nearest one.
    Nearest,
    /// The scale with the least squared error, of several that clip the largest weights or leave a margin above them.
    Search,
}

/// The scale and the zero point of a group.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group {
    pub(crate) scale: f32,
    pub(crate) zero_point: u8,
}

/// Scales to try for a group, as shares of the one with which the largest weight gets the largest code. Below 1 the largest
/// weights are clipped, and all others get a finer scale.
///
/// More of them lower the squared error by less than one percent, and no metric of the model improves.
const SHARES: [f32; 8] = [1.05, 1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.72];

/// Quantizes every group of a row, with the widest vectors of the processor. Weights that are not finite give a scale that is
/// not finite.
pub(crate) fn quantize_groups(
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
            let chosen = choose_scale_with(simd, scheme, rounding, &weights[group.clone()]);
            quantize_group(scheme, chosen, &weights[group.clone()], &mut codes[group]);
            (*scale, *zero_point) = (chosen.scale, chosen.zero_point);
        }
    }
}

/// Chooses the scale and the zero point of a group.
pub(crate) fn choose_scale(scheme: &Scheme, rounding: Rounding, weights: &[f32]) -> Group {
    struct Choose<'a>(&'a Scheme, Rounding, &'a [f32]);

    impl WithSimd for Choose<'_> {
        type Output = Group;

        #[inline(always)]
        fn with_simd<S: Simd>(self, simd: S) -> Group {
            choose_scale_with(simd, self.0, self.1, self.2)
        }
    }

    Arch::new().dispatch(Choose(scheme, rounding, weights))
}

#[inline(always)]
fn choose_scale_with<S: Simd>(simd: S, scheme: &Scheme, rounding: Rounding, weights: &[f32]) -> Group {
    let extent = Extent::of(simd, weights);
    if !extent.is_finite {
        return Group { scale: f32::NAN, zero_point: 0 };
    }
    let nearest = scale_range(scheme, extent);
    if rounding == Rounding::Nearest || scheme.format.bits() == 8 || extent.is_zero() {
        return round_scale(scheme, nearest, extent);
    }
    let (low, high) = scheme.range();
    let zero = i32::from(nearest.zero_point);
    let range = ((low - zero) as f32, (high - zero) as f32);
    // Where no scale has a gain, because all weights are smaller than the least scale, keep the nearest one.
    let (mut best_gain, mut best_share) = (0.0, 1.0);
    // Finally try the best scale once more: some weights then have other nearest codes, which have another best scale.
    for attempt in 0..=SHARES.len() {
        let share = SHARES.get(attempt).copied().unwrap_or(best_share);
        let products = Products::compute(simd, weights, nearest.scale * share, range);
        let gain = products.gain() * share * share;
        if gain > best_gain {
            (best_gain, best_share) = (gain, share * products.factor());
        }
    }
    round_scale(scheme, Group { scale: nearest.scale * best_share, ..nearest }, extent)
}

/// Adding it rounds a float of small magnitude to the nearest integer, ties to even, on any processor, and leaves that integer
/// in the lowest bits of the sum: the neighbours of 1.5 · 2²³ are 1 apart.
const ROUND_TO_INTEGER: f32 = 12_582_912.0;

/// Finds the nearest code of each weight.
#[inline(always)]
fn quantize_group(scheme: &Scheme, group: Group, weights: &[f32], codes: &mut [u8]) {
    let (low, high) = scheme.range();
    let inverse = 1.0 / group.scale;
    let zero = i32::from(group.zero_point);
    let (low, high) = ((low - zero) as f32, (high - zero) as f32);
    for (weight, code) in weights.iter().zip(codes) {
        let shifted = (weight * inverse).clamp(low, high) + ROUND_TO_INTEGER;
        // The lowest byte of the integer; for a signed code, its two's complement.
        *code = (shifted.to_bits() as u8).wrapping_add(group.zero_point);
    }
}

/// Finds the nearest code of one weight.
pub(crate) fn nearest_code(scheme: &Scheme, group: Group, weight: f32) -> u8 {
    let mut code = [0];
    quantize_group(scheme, group, &[weight], &mut code);
    code[0]
}

/// Computes the weight that a code stands for.
pub(crate) fn dequantize(scheme: &Scheme, group: Group, code: u8) -> f32 {
    scheme.dequantize(code, group.zero_point, group.scale)
}

/// The smallest and the largest weight of a group.
#[derive(Clone, Copy)]
struct Extent {
    min: f32,
    max: f32,
    is_finite: bool,
}

impl Extent {
    #[inline(always)]
    fn of<S: Simd>(simd: S, weights: &[f32]) -> Self {
        let (vectors, rest) = S::as_simd_f32s(weights);
        let (mut mins, mut maxs) = (simd.splat_f32s(f32::INFINITY), simd.splat_f32s(f32::NEG_INFINITY));
        // 0 · weight: stays 0 unless a weight is infinite or NaN.
        let (mut zeros, zero) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        for weights in vectors {
            mins = simd.min_f32s(mins, *weights);
            maxs = simd.max_f32s(maxs, *weights);
            zeros = simd.mul_add_f32s(*weights, zero, zeros);
        }
        let min = rest.iter().copied().fold(simd.reduce_min_f32s(mins), f32::min);
        let max = rest.iter().copied().fold(simd.reduce_max_f32s(maxs), f32::max);
        let is_finite = simd.reduce_sum_f32s(zeros) == 0.0 && rest.iter().all(|weight| weight.is_finite());
        Extent { min, max, is_finite }
    }

    fn is_zero(self) -> bool {
        self.min == 0.0 && self.max == 0.0
    }
}

/// The least scale whose codes span the range of the weights, and its zero point.
#[inline(always)]
fn scale_range(scheme: &Scheme, extent: Extent) -> Group {
    let (low, high) = scheme.range();
    if extent.is_zero() {
        return Group { scale: 1.0, zero_point: 0 };
    }
    let least_scale = scheme.least_scale();
    if !scheme.zero_points {
        let largest = extent.max.max(-extent.min);
        return Group { scale: (largest / high as f32).max(least_scale), zero_point: 0 };
    }
    // The range includes 0, so that a weight of 0 is exact.
    let (min, max) = (extent.min.min(0.0), extent.max.max(0.0));
    // Halves, because the difference of two large weights may overflow. Halving is exact.
    let scale = ((max / 2.0 - min / 2.0) / high as f32 * 2.0).max(least_scale);
    let zero_point = (-min / scale).round_ties_even().clamp(low as f32, high as f32);
    Group { scale, zero_point: zero_point as u8 }
}

/// Rounds a scale to the type that it is stored in, never to 0. The result is infinite where that type cannot hold the scale,
/// or the dequantized weights.
#[inline(always)]
fn round_scale(scheme: &Scheme, group: Group, extent: Extent) -> Group {
    let group = Group { scale: scheme.stored_scale(group.scale.max(scheme.least_scale())), ..group };
    let fits = |weight: f32| {
        scheme.stored_scale(dequantize(scheme, group, nearest_code(scheme, group, weight))).is_finite()
    };
    if scheme.scales == ElementType::Float32 || (fits(extent.min) && fits(extent.max)) {
        group
    } else {
        Group { scale: f32::INFINITY, ..group }
    }
}

/// Sums over a group, of weights in units of a scale and of their codes.
#[derive(Clone, Copy)]
struct Products {
    /// Σ weight · code
    mixed: f32,
    /// Σ code²
    square: f32,
}

impl Products {
    #[inline(always)]
    fn compute<S: Simd>(simd: S, weights: &[f32], scale: f32, (low, high): (f32, f32)) -> Self {
        let inverse = 1.0 / scale;
        let (vectors, rest) = S::as_simd_f32s(weights);
        let (inverses, rounding) = (simd.splat_f32s(inverse), simd.splat_f32s(ROUND_TO_INTEGER));
        let (lows, highs) = (simd.splat_f32s(low), simd.splat_f32s(high));
        let (mut mixed, mut square) = (simd.splat_f32s(0.0), simd.splat_f32s(0.0));
        // Whole vectors first, then the remaining weights.
        for weights in vectors {
            let scaled = simd.mul_f32s(*weights, inverses);
            let clipped = simd.min_f32s(simd.max_f32s(scaled, lows), highs);
            let codes = simd.sub_f32s(simd.add_f32s(clipped, rounding), rounding);
            mixed = simd.mul_add_f32s(codes, scaled, mixed);
            square = simd.mul_add_f32s(codes, codes, square);
        }
        let mut products =
            Products { mixed: simd.reduce_sum_f32s(mixed), square: simd.reduce_sum_f32s(square) };
        for weight in rest {
            let scaled = weight * inverse;
            let code = (scaled.clamp(low, high) + ROUND_TO_INTEGER) - ROUND_TO_INTEGER;
            products.mixed += code * scaled;
            products.square += code * code;
        }
        products
    }

    /// By how much the codes, with their best scale, lower the squared error below Σ weight².
    #[inline(always)]
    fn gain(self) -> f32 {
        if self.square > 0.0 && self.mixed > 0.0 { self.mixed / self.square * self.mixed } else { 0.0 }
    }

    /// The factor from the scale to the best one for these codes, which has the least squared error.
    #[inline(always)]
    fn factor(self) -> f32 {
        self.mixed / self.square
    }
}
