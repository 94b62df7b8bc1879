//! Random weights, and the definition of their products in float64.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use half::{bf16, f16};
use jetmoe_format::{PANEL_ROWS, PackedLayout, PackedWeight, WeightFormat};
use jetmoe_kernels::Activation;

/// Random numbers of a seed.
pub(crate) struct Random(pub(crate) fastrand::Rng);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(fastrand::Rng::with_seed(seed))
    }

    /// From −1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        2.0 * self.0.f32() - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// `count` different experts, in any order.
    pub(crate) fn experts(&mut self, experts: usize, count: usize) -> Vec<i64> {
        let mut all: Vec<i64> = (0..experts as i64).collect();
        self.0.shuffle(&mut all);
        all.truncate(count);
        all
    }
}

/// A weight with its tensors.
pub(crate) struct OwnedWeight {
    pub(crate) layout: PackedLayout,
    codes: Vec<u8>,
    scales: Option<Vec<f16>>,
    zero_points: Option<Vec<u8>>,
    /// `[experts, outputs, inputs]`
    elements: Vec<f32>,
}

impl OwnedWeight {
    /// Random elements, packed in this layout.
    pub(crate) fn random(layout: PackedLayout, with_zero_points: bool, random: &mut Random) -> Self {
        let PackedLayout { experts, outputs, inputs, scheme, .. } = layout;
        let mut codes = vec![0; layout.codes_shape().iter().product()];
        let groups = layout.scales_shape().iter().product();
        let group_size = layout.group_size();
        let mut scales = vec![f16::ZERO; groups];
        let mut group_zero_points = vec![scheme.format.default_zero_point(); groups];
        let mut elements = vec![0.0; experts * outputs * inputs];
        for (panel, bytes) in codes.chunks_exact_mut(layout.panel_bytes()).enumerate() {
            let (expert, within) = (panel / layout.panels(), panel % layout.panels());
            for place in 0..PANEL_ROWS {
                let Some(row) = layout.row(within, place) else { continue };
                let elements = &mut elements[(expert * outputs + row) * inputs..][..inputs];
                let Some(group_size) = group_size else {
                    let row: Vec<bf16> = (0..inputs).map(|_| bf16::from_f32(random.float())).collect();
                    let stored: Vec<u8> = row.iter().flat_map(|x| x.to_le_bytes()).collect();
                    layout.pack_elements(bytes, place, &stored);
                    elements.iter_mut().zip(row).for_each(|(element, x)| *element = x.to_f32());
                    continue;
                };
                let max_code = if scheme.format.bits() == 4 { 15 } else { 255 };
                let row: Vec<u8> = (0..inputs).map(|_| random.0.u8(..=max_code)).collect();
                layout.pack_codes(bytes, place, &row);
                for (index, (element, code)) in elements.iter_mut().zip(row).enumerate() {
                    let group = (panel * layout.groups() + index / group_size) * PANEL_ROWS + place;
                    if index % group_size == 0 {
                        scales[group] = f16::from_f32(random.float());
                        if with_zero_points {
                            group_zero_points[group] = random.0.u8(..=max_code);
                        }
                    }
                    *element = f32::from(i16::from(code) - i16::from(group_zero_points[group]))
                        * scales[group].to_f32();
                }
            }
        }
        let quantized = group_size.is_some();
        let zero_points = (with_zero_points && quantized).then_some(group_zero_points);
        OwnedWeight { layout, codes, scales: quantized.then_some(scales), zero_points, elements }
    }

    pub(crate) fn view(&self) -> PackedWeight<'_> {
        PackedWeight::new(self.layout, &self.codes, self.scales.as_deref(), self.zero_points.as_deref())
            .unwrap()
    }

    /// The same scales in float32.
    pub(crate) fn float32_scales(&self) -> Vec<f32> {
        self.scales.iter().flatten().map(|scale| scale.to_f32()).collect()
    }

    /// The same weight with its scales in float32.
    pub(crate) fn view_with<'a>(&'a self, scales: &'a [f32]) -> PackedWeight<'a, f32> {
        PackedWeight::new(self.layout, &self.codes, Some(scales), self.zero_points.as_deref()).unwrap()
    }

    /// `[outputs, inputs]`
    pub(crate) fn matrix(&self, expert: usize) -> &[f32] {
        let size = self.layout.outputs * self.layout.inputs;
        &self.elements[expert * size..][..size]
    }
}

/// A row quantized to 8 bits, 32 columns at a time, and dequantized.
fn quantize_and_dequantize(row: &[f32]) -> Vec<f64> {
    let blocks = row.chunks(32).flat_map(|block| {
        let largest = block.iter().fold(0.0, |largest: f32, x| largest.max(x.abs()));
        let scale = largest / 127.0;
        block.iter().map(move |x| {
            let inverse = if scale < f32::MIN_POSITIVE { 0.0 } else { 1.0 / scale };
            f64::from((x * inverse).round_ties_even()) * f64::from(scale)
        })
    });
    blocks.collect()
}

/// Products of exactly dequantized weights with rows that are quantized as the kernels quantize them.
pub(crate) fn by_definition(weight: &OwnedWeight, expert: usize, row: &[f32]) -> Vec<f64> {
    let row = if weight.layout.scheme.format == WeightFormat::Bf16 {
        row.iter().map(|x| f64::from(*x)).collect()
    } else {
        quantize_and_dequantize(row)
    };
    let matrix = weight.matrix(expert);
    matrix
        .chunks_exact(weight.layout.inputs)
        .map(|weights| weights.iter().zip(&row).map(|(w, x)| f64::from(*w) * x).sum())
        .collect()
}

/// How much each element of a row may differ once quantized, where it may differ by `errors` before.
///
/// An element between two codes may be rounded either way: it then differs by the distance of two codes.
pub(crate) fn errors_once_quantized(row: &[f32], errors: &[f64]) -> Vec<f64> {
    /// How much a code may differ before it is rounded, because float32 computes it.
    const ROUNDED_CODE: f64 = 127.0 * 4.0 * f32::EPSILON as f64;
    let blocks = row.chunks(32).zip(errors.chunks(32)).flat_map(|(block, errors)| {
        let largest = block.iter().fold(0.0, |largest: f64, x| largest.max(f64::from(x.abs())));
        let error = errors.iter().fold(0.0, |largest: f64, error| largest.max(*error));
        let distance = largest / 127.0;
        block.iter().zip(errors).map(move |(x, x_error)| {
            let x = f64::from(x.abs());
            if error == 0.0 {
                return 0.0;
            }
            if largest <= 2.0 * error {
                return 2.0 * (x + error);
            }
            // The scale differs by at most 1/127 of what the largest element does.
            let code_error = (x_error + x / largest * error) / distance + ROUNDED_CODE;
            let (low, high) = (x / distance - code_error, x / distance + code_error);
            let codes = high.round_ties_even() - low.round_ties_even();
            codes * (distance + error / 127.0) + x / largest * error
        })
    });
    blocks.collect()
}

/// Products of exactly dequantized weights with a row.
pub(crate) fn without_quantization(weight: &OwnedWeight, expert: usize, row: &[f32]) -> Vec<f64> {
    products(weight, expert, row, |product| product)
}

/// Sums of the magnitudes of what [`without_quantization`] sums.
pub(crate) fn magnitudes<X: Copy + Into<f64>>(weight: &OwnedWeight, expert: usize, row: &[X]) -> Vec<f64> {
    products(weight, expert, row, f64::abs)
}

fn products<X: Copy + Into<f64>>(
    weight: &OwnedWeight,
    expert: usize,
    row: &[X],
    term: impl Fn(f64) -> f64,
) -> Vec<f64> {
    let rows = weight.matrix(expert).chunks_exact(weight.layout.inputs);
    rows.map(|weights| weights.iter().zip(row).map(|(w, x)| term(f64::from(*w) * (*x).into())).sum())
        .collect()
}

pub(crate) fn activate(activation: Activation, x: f64) -> f64 {
    match activation {
        Activation::Silu => x / (1.0 + (-x).exp()),
        Activation::Gelu => 0.5 * x * (1.0 + libm::erf(x / 2f64.sqrt())),
        Activation::GeluTanh => {
            0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044_715 * x * x * x)).tanh())
        }
        Activation::Relu => x.max(0.0),
    }
}
