//! Random weights, and what the definition makes of them.

#![allow(clippy::unwrap_used)] // as in every test

use half::{bf16, f16};
use jetmoe_kernels::{Activation, Element, Layout, PANEL_ROWS, Weight};

/// SplitMix64.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// From −1 to 1.
    pub(crate) fn float(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(crate) fn floats(&mut self, count: usize) -> Vec<f32> {
        (0..count).map(|_| self.float()).collect()
    }

    /// Different experts.
    pub(crate) fn choice(&mut self, experts: usize, count: usize) -> Vec<i64> {
        let mut all: Vec<i64> = (0..experts as i64).collect();
        for index in 0..count {
            let other = index + self.next() as usize % (experts - index);
            all.swap(index, other);
        }
        all.truncate(count);
        all
    }
}

/// A weight and its tensors.
pub(crate) struct Owned {
    pub(crate) layout: Layout,
    codes: Vec<u8>,
    scales: Option<Vec<f16>>,
    zero_points: Option<Vec<u8>>,
    /// `[experts, outputs, inputs]`
    elements: Vec<f32>,
}

impl Owned {
    /// Random elements of the layout, put where the layout says.
    pub(crate) fn random(layout: Layout, zero_points: bool, random: &mut Random) -> Self {
        let Layout { experts, outputs, inputs, element, .. } = layout;
        let mut codes = vec![0; layout.codes_shape().iter().product()];
        let groups = layout.scales_shape().iter().product();
        let quantized = element.group_size();
        let mut scales = vec![f16::ZERO; groups];
        let mut points = vec![element.middle(); groups];
        let mut elements = vec![0.0; experts * outputs * inputs];
        for (panel, bytes) in codes.chunks_exact_mut(layout.panel_bytes()).enumerate() {
            let (expert, within) = (panel / layout.panels(), panel % layout.panels());
            for place in 0..PANEL_ROWS {
                let Some(row) = layout.row(within, place) else { continue };
                let elements = &mut elements[(expert * outputs + row) * inputs..][..inputs];
                let Some(group_size) = quantized else {
                    let row: Vec<bf16> = (0..inputs).map(|_| bf16::from_f32(random.float())).collect();
                    layout.put_elements(bytes, place, &row);
                    elements.iter_mut().zip(row).for_each(|(element, x)| *element = x.to_f32());
                    continue;
                };
                let largest = if matches!(element, Element::Int4(_)) { 16 } else { 256 };
                let row: Vec<u8> = (0..inputs).map(|_| (random.next() % largest) as u8).collect();
                layout.put_codes(bytes, place, &row);
                for (index, (element, code)) in elements.iter_mut().zip(row).enumerate() {
                    let group = (panel * layout.groups() + index / group_size.weights()) * PANEL_ROWS + place;
                    if index % group_size.weights() == 0 {
                        scales[group] = f16::from_f32(random.float());
                        if zero_points {
                            points[group] = (random.next() % largest) as u8;
                        }
                    }
                    *element = f32::from(i16::from(code) - i16::from(points[group])) * scales[group].to_f32();
                }
            }
        }
        let quantized = quantized.is_some();
        let zero_points = (zero_points && quantized).then_some(points);
        Owned { layout, codes, scales: quantized.then_some(scales), zero_points, elements }
    }

    pub(crate) fn view(&self) -> Weight<'_> {
        Weight::new(self.layout, &self.codes, self.scales.as_deref(), self.zero_points.as_deref()).unwrap()
    }

    /// `[outputs, inputs]`
    pub(crate) fn matrix(&self, expert: usize) -> &[f32] {
        let size = self.layout.outputs * self.layout.inputs;
        &self.elements[expert * size..][..size]
    }
}

/// A row rounded to 8 bits, 32 columns at a time.
pub(crate) fn rounded(row: &[f32]) -> Vec<f64> {
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

/// Products of weights that are restored exactly with rows that are rounded as the kernels round them.
pub(crate) fn by_definition(weight: &Owned, expert: usize, row: &[f32]) -> Vec<f64> {
    let row = if weight.layout.element == Element::Bf16 {
        row.iter().map(|x| f64::from(*x)).collect()
    } else {
        rounded(row)
    };
    let matrix = weight.matrix(expert);
    matrix
        .chunks_exact(weight.layout.inputs)
        .map(|weights| weights.iter().zip(&row).map(|(w, x)| f64::from(*w) * x).sum())
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
