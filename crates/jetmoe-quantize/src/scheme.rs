use half::f16;

use crate::rounding::{quantize_row, restore};
use crate::{Error, Result};

/// Width of a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Bits {
    /// 4.
    Four,
    /// 8.
    Eight,
}

impl Bits {
    /// Their number.
    pub fn count(self) -> usize {
        match self {
            Bits::Four => 4,
            Bits::Eight => 8,
        }
    }
}

/// Type that a group's scale is stored in. Codes are chosen for the scale as it is stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scales {
    /// 32-bit floating point.
    Float32,
    /// 16-bit floating point. Weights are restored in it too, so it must hold them.
    Float16,
}

/// How a group's scale is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Rounding {
    /// The largest weight gets the largest code, and every weight the nearest one.
    Nearest,
    /// The scale, of several that clip the largest weights or leave room above them, with the least squared error.
    Search,
}

/// How weights are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Scheme {
    /// Width of a code.
    pub bits: Bits,
    /// Weights that share a scale; the last group of a row may be shorter.
    pub group_size: usize,
    /// Whether codes count from a zero point of their group (0 to 15, or 0 to 255) or from 0 in both directions.
    pub zero_points: bool,
    /// Type of the scales.
    pub scales: Scales,
}

/// What a group's codes stand for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Group {
    pub(crate) scale: f32,
    pub(crate) zero_point: u8,
}

impl Scheme {
    /// Least and greatest code.
    pub fn range(&self) -> (i32, i32) {
        match (self.bits, self.zero_points) {
            (Bits::Four, false) => (-8, 7),
            (Bits::Four, true) => (0, 15),
            // −128 is left out, so that both directions reach equally far
            (Bits::Eight, false) => (-127, 127),
            (Bits::Eight, true) => (0, 255),
        }
    }

    /// Groups of a row.
    pub fn groups(&self, row: usize) -> usize {
        row.div_ceil(self.group_size)
    }

    /// Quantizes one row, or a part of it that begins with a group. A code is one byte; signed ones in two's complement.
    ///
    /// # Errors
    /// A weight that is infinite or no number, or a group that the type of its scale does not hold.
    ///
    /// # Panics
    /// If the slices' lengths do not fit each other: one code a weight, one scale and zero point a group.
    pub fn quantize_row(
        &self,
        rounding: Rounding,
        weights: &[f32],
        codes: &mut [u8],
        scales: &mut [f32],
        zero_points: &mut [u8],
    ) -> Result<()> {
        let groups = self.groups(weights.len());
        assert_eq!(codes.len(), weights.len(), "one code for each weight");
        assert_eq!(
            (scales.len(), zero_points.len()),
            (groups, groups),
            "one scale and zero point for each group"
        );
        quantize_row(self, rounding, weights, codes, scales, zero_points);
        // what is not finite makes its group's scale so, and the row is searched only then
        match scales.iter().position(|scale| !scale.is_finite()) {
            None => Ok(()),
            Some(group) => Err(self.why_not(weights, group)),
        }
    }

    /// The weights that codes stand for.
    ///
    /// # Panics
    /// As [`Scheme::quantize_row`].
    pub fn restore_row(&self, codes: &[u8], scales: &[f32], zero_points: &[u8], weights: &mut [f32]) {
        assert_eq!(codes.len(), weights.len(), "one code for each weight");
        let groups = codes.chunks(self.group_size).zip(weights.chunks_mut(self.group_size));
        for ((codes, weights), (scale, zero_point)) in groups.zip(scales.iter().zip(zero_points)) {
            let group = Group { scale: *scale, zero_point: *zero_point };
            for (code, weight) in codes.iter().zip(weights) {
                *weight = restore(self, group, *code);
            }
        }
    }

    /// A scale as it is stored.
    #[inline(always)]
    pub(crate) fn stored(&self, scale: f32) -> f32 {
        match self.scales {
            Scales::Float32 => scale,
            Scales::Float16 => f16::from_f32(scale).to_f32(),
        }
    }

    pub(crate) fn why_not(&self, weights: &[f32], group: usize) -> Error {
        let first = group * self.group_size;
        let group = &weights[first..(first + self.group_size).min(weights.len())];
        let bad = group.iter().position(|weight| !weight.is_finite());
        let largest = group.iter().enumerate().max_by(|a, b| a.1.abs().total_cmp(&b.1.abs()));
        match (bad, largest) {
            (Some(place), _) => Error::NotFinite { index: first + place, value: group[place] },
            (None, Some((place, value))) => Error::ScaleTooLarge { index: first + place, value: *value },
            (None, None) => Error::NotFinite { index: first, value: f32::NAN },
        }
    }
}
