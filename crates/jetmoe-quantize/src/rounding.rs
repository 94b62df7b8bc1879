//! Rounding of single groups: the scale, and the nearest codes for it.

use multiversion::multiversion;

use crate::scheme::Group;
use crate::{Bits, Rounding, Scales, Scheme};

/// Scales that are tried for a group, as shares of the one that just reaches its largest weight. Below 1 the largest
/// weights are clipped and all others become finer.
///
/// More of them lower the squared error by less than a hundredth, and no measure of the model shows it.
const SHARES: [f32; 8] = [1.05, 1.0, 0.96, 0.92, 0.88, 0.84, 0.8, 0.72];

/// The least positive scale of a type: one that is stored as 0 would lose its group, and some runtimes refuse it.
#[inline(always)]
fn least_scale(scales: Scales) -> f32 {
    match scales {
        Scales::Float32 => f32::MIN_POSITIVE,
        Scales::Float16 => 1.0 / (1 << 24) as f32,
    }
}

/// Quantizes every group of a row. Not finite weights give a scale that is not finite.
#[multiversion(targets(
    "x86_64+avx512f+avx512bw+avx512dq+avx512vl+fma+avx2",
    "x86_64+avx2+fma",
    "aarch64+neon"
))]
pub(crate) fn quantize_row(
    scheme: &Scheme,
    rounding: Rounding,
    weights: &[f32],
    importance: Option<&[f32]>,
    codes: &mut [u8],
    scales: &mut [f32],
    zero_points: &mut [u8],
) {
    let size = scheme.group_size;
    for (index, (scale, zero_point)) in scales.iter_mut().zip(zero_points).enumerate() {
        let group = index * size..((index + 1) * size).min(weights.len());
        let importance = importance.map(|importance| &importance[group.clone()]);
        let found = choose(scheme, rounding, &weights[group.clone()], importance);
        round(scheme, found, &weights[group.clone()], &mut codes[group]);
        (*scale, *zero_point) = (found.scale, found.zero_point);
    }
}

/// Scale and zero point for a group of weights.
#[inline(always)]
pub(crate) fn choose(
    scheme: &Scheme,
    rounding: Rounding,
    weights: &[f32],
    importance: Option<&[f32]>,
) -> Group {
    let extent = Extent::of(weights);
    if !extent.is_finite {
        return Group { scale: f32::NAN, zero_point: 0 };
    }
    let nearest = reach(scheme, extent);
    if rounding == Rounding::Nearest || scheme.bits == Bits::Eight || extent.is_zero() {
        return stored(scheme, nearest, extent);
    }
    let (low, high) = scheme.range();
    let zero = i32::from(nearest.zero_point);
    let range = ((low - zero) as f32, (high - zero) as f32);
    // where no scale explains anything, because nothing counts or everything is below the least scale, none is better
    let (mut best_gain, mut best_share) = (0.0, 1.0);
    let mut attempt = |share: f32| {
        let scale = nearest.scale * share;
        let products = match importance {
            Some(importance) => products(weights, importance, scale, range),
            None => plain_products(weights, scale, range),
        };
        let gain = products.gain() * share * share;
        if gain > best_gain {
            (best_gain, best_share) = (gain, share * products.factor());
        }
        best_share
    };
    let mut share = 1.0;
    for candidate in SHARES {
        share = attempt(candidate);
    }
    // with the best scale some weights have other nearest codes, for which another one is best
    let share = attempt(share);
    stored(scheme, Group { scale: nearest.scale * share, ..nearest }, extent)
}

/// Nearest codes.
#[inline(always)]
fn round(scheme: &Scheme, group: Group, weights: &[f32], codes: &mut [u8]) {
    let (low, high) = scheme.range();
    let inverse = 1.0 / group.scale;
    let zero = f32::from(group.zero_point);
    let (low, high) = (low as f32, high as f32);
    for (weight, code) in weights.iter().zip(codes) {
        // within the range of a byte; a signed code's byte is its two's complement
        *code = ((weight * inverse).round_ties_even() + zero).clamp(low, high) as i32 as u8;
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
    let code = match (scheme.bits, scheme.zero_points) {
        (_, true) => f32::from(code) - f32::from(group.zero_point),
        (Bits::Eight, false) => f32::from(code.cast_signed()),
        // the sign of the low four bits
        (Bits::Four, false) => f32::from((code << 4).cast_signed() >> 4),
    };
    code * group.scale
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
    fn of(weights: &[f32]) -> Self {
        let (mut least, mut greatest, mut is_finite) = (f32::INFINITY, f32::NEG_INFINITY, true);
        for weight in weights {
            least = least.min(*weight);
            greatest = greatest.max(*weight);
            is_finite &= weight.is_finite();
        }
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
    let at_least = least_scale(scheme.scales);
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
    let group = Group { scale: scheme.stored(group.scale.max(least_scale(scheme.scales))), ..group };
    let fits =
        |weight: f32| scheme.stored(restore(scheme, group, nearest_code(scheme, group, weight))).is_finite();
    if scheme.scales == Scales::Float32 || (fits(extent.least) && fits(extent.greatest)) {
        group
    } else {
        Group { scale: f32::INFINITY, ..group }
    }
}

/// Weighted products of weights, in units of a scale, and their codes.
#[derive(Clone, Copy)]
struct Products {
    /// Σ importance · weight · code
    mixed: f32,
    /// Σ importance · code²
    square: f32,
}

impl Products {
    /// How much of Σ importance · weight² the codes explain with the best scale for them.
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

/// Sums are kept in as many places as vectors are wide, so that they need no order.
const LANES: usize = 8;

#[inline(always)]
fn products(weights: &[f32], importance: &[f32], scale: f32, (low, high): (f32, f32)) -> Products {
    let inverse = 1.0 / scale;
    let (mut mixed, mut square) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (weights, weights_rest) = weights.as_chunks::<LANES>();
    let (importance, importance_rest) = importance.as_chunks::<LANES>();
    for (weights, importance) in weights.iter().zip(importance) {
        for lane in 0..LANES {
            let weight = weights[lane] * inverse;
            let code = weight.round_ties_even().clamp(low, high);
            let weighted = importance[lane] * code;
            mixed[lane] += weighted * weight;
            square[lane] += weighted * code;
        }
    }
    for (weight, importance) in weights_rest.iter().zip(importance_rest) {
        let weight = weight * inverse;
        let code = weight.round_ties_even().clamp(low, high);
        mixed[0] += importance * code * weight;
        square[0] += importance * code * code;
    }
    Products { mixed: mixed.iter().sum(), square: square.iter().sum() }
}

/// [`products`] where all weights are equally important.
#[inline(always)]
fn plain_products(weights: &[f32], scale: f32, (low, high): (f32, f32)) -> Products {
    let inverse = 1.0 / scale;
    let (mut mixed, mut square) = ([0.0_f32; LANES], [0.0_f32; LANES]);
    let (chunks, rest) = weights.as_chunks::<LANES>();
    for weights in chunks {
        for lane in 0..LANES {
            let weight = weights[lane] * inverse;
            let code = weight.round_ties_even().clamp(low, high);
            mixed[lane] += code * weight;
            square[lane] += code * code;
        }
    }
    for weight in rest {
        let weight = weight * inverse;
        let code = weight.round_ties_even().clamp(low, high);
        mixed[0] += code * weight;
        square[0] += code * code;
    }
    Products { mixed: mixed.iter().sum(), square: square.iter().sum() }
}
