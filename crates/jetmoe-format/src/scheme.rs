//! The meaning of the codes of a quantized weight.

use half::f16;

use crate::{ElementType, Error, Result, WeightFormat};

/// How a weight is stored: its format, and the parameters of its groups if it is quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Type of the elements.
    pub format: WeightFormat,
    /// Weights that share a scale; the last group of a row may be shorter.
    pub group_size: usize,
    /// Whether codes count from a zero point of their group (0 to 15, or 0 to 255) or from 0 in both directions.
    pub zero_points: bool,
    /// Type of the scales, float32 or float16. Codes are chosen for the scale as it is stored, and weights are
    /// dequantized in its type, so it must hold them.
    pub scales: ElementType,
}

impl Scheme {
    /// The supported group sizes.
    pub const GROUP_SIZES: &'static [usize] = &[16, 32, 64, 128];

    /// Rejects a group size without kernels.
    ///
    /// # Errors
    /// [`Error::GroupSize`]
    pub fn check_group_size(size: usize) -> Result<()> {
        match Self::GROUP_SIZES.contains(&size) {
            true => Ok(()),
            false => Err(Error::GroupSize { found: size as i64 }),
        }
    }

    /// The scheme with the scales of the packed layout, which the custom operators read.
    #[must_use]
    pub fn packed(self) -> Self {
        Scheme { scales: ElementType::Float16, ..self }
    }

    /// Least and greatest code.
    pub fn range(&self) -> (i32, i32) {
        let half = i32::from(self.format.default_zero_point());
        match (self.format, self.zero_points) {
            // −128 is not used, so that the range is symmetric
            (WeightFormat::Int8, false) => (1 - half, half - 1),
            (_, false) => (-half, half - 1),
            (_, true) => (0, 2 * half - 1),
        }
    }

    /// Groups of a row.
    pub fn groups(&self, row: usize) -> usize {
        row.div_ceil(self.group_size)
    }

    /// A scale as it is stored.
    #[inline(always)]
    pub fn stored_scale(&self, scale: f32) -> f32 {
        match self.scales {
            ElementType::Float16 => f16::from_f32(scale).to_f32(),
            _ => scale,
        }
    }

    /// The least positive scale: a scale stored as 0 would lose its group, and some backends reject it.
    #[inline(always)]
    pub fn least_scale(&self) -> f32 {
        match self.scales {
            ElementType::Float16 => 1.0 / (1 << 24) as f32,
            _ => f32::MIN_POSITIVE,
        }
    }

    /// Little-endian scales. They are chosen as they are stored, so they fit.
    pub fn encode_scales(&self, scales: &[f32]) -> Vec<u8> {
        match self.scales {
            ElementType::Float16 => {
                scales.iter().flat_map(|scale| f16::from_f32(*scale).to_le_bytes()).collect()
            }
            _ => scales.iter().flat_map(|scale| scale.to_le_bytes()).collect(),
        }
    }

    /// Bytes of a weight with its share of its group's scale and zero point.
    pub fn bytes_per_weight(&self) -> f64 {
        let element = self.format.bits() as f64 / 8.0;
        if !self.format.is_quantized() {
            return element;
        }
        let zero_point = if self.zero_points { element } else { 0.0 };
        element + (self.scales.bytes(1) as f64 + zero_point) / self.group_size as f64
    }

    /// A code as a number of [`Scheme::range`]. Without zero points it is in two's complement.
    #[inline]
    pub fn number(&self, code: u8) -> i32 {
        let unused = 8_u32.saturating_sub(self.format.bits() as u32);
        match self.zero_points {
            true => i32::from(code),
            false => i32::from((code << unused).cast_signed() >> unused),
        }
    }

    /// The weight of a code.
    #[inline]
    pub fn dequantize(&self, code: u8, zero_point: u8, scale: f32) -> f32 {
        (self.number(code) - i32::from(zero_point)) as f32 * scale
    }

    /// Dequantizes a row of codes, with a scale and a zero point per group.
    ///
    /// # Panics
    /// Unless there is one code for each weight.
    pub fn dequantize_row(&self, codes: &[u8], scales: &[f32], zero_points: &[u8], weights: &mut [f32]) {
        assert_eq!(codes.len(), weights.len(), "one code for each weight");
        let groups = codes.chunks(self.group_size).zip(weights.chunks_mut(self.group_size));
        for ((codes, weights), (scale, zero_point)) in groups.zip(scales.iter().zip(zero_points)) {
            for (code, weight) in codes.iter().zip(weights) {
                *weight = self.dequantize(*code, *zero_point, *scale);
            }
        }
    }
}
