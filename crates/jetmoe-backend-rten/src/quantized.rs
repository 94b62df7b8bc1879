//! A quantized weight, as ONNX stores it and as rten multiplies with it.

use crate::error::{Error, Result};

/// The smallest group that rten's `MatMulNBits` takes; larger ones are powers of two.
const MIN_GROUP_SIZE: usize = 16;

/// The zero point that `MatMulNBits` has where no other is given. rten takes no other.
const ZERO_POINT: i32 = 8;

/// A matrix `[inputs, outputs]` in groups of inputs, with a scale and perhaps a zero point for each group and output.
#[derive(Debug)]
pub(crate) struct QuantizedWeight<'a> {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    pub(crate) group_size: usize,
    /// 4 or 8.
    pub(crate) bits: usize,
    pub(crate) signed: bool,
    /// `[inputs, outputs]`; two codes of 4 bits share a byte, the first in the lower half.
    pub(crate) codes: &'a [u8],
    /// `[groups, outputs]`
    pub(crate) scales: Vec<f32>,
    /// `[groups, outputs]`, like the codes.
    pub(crate) zero_points: Option<&'a [u8]>,
}

impl QuantizedWeight<'_> {
    /// Number of groups; the last may be shorter.
    pub(crate) fn groups(&self) -> usize {
        self.inputs.div_ceil(self.group_size)
    }

    /// Checks that all parts have the size that they need. `name` is that of the codes.
    pub(crate) fn check(&self, name: &str) -> Result<()> {
        let bytes = |rows: usize| rows.checked_mul(self.outputs).map(|count| (count * self.bits).div_ceil(8));
        let groups = self.groups();
        let scales = groups.checked_mul(self.outputs);
        let is_whole = bytes(self.inputs) == Some(self.codes.len())
            && scales == Some(self.scales.len())
            && self.zero_points.is_none_or(|points| bytes(groups) == Some(points.len()));
        let Self { inputs, outputs, group_size, .. } = self;
        if is_whole {
            return Ok(());
        }
        Err(Error::weight(name, format!("is no matrix {inputs} × {outputs} in groups of {group_size}")))
    }

    /// Whether rten can multiply with the codes.
    pub(crate) fn fits_matmul_nbits(&self) -> bool {
        let is_group = self.group_size.is_power_of_two() && self.group_size >= MIN_GROUP_SIZE;
        self.bits == 4
            && self.signed
            && self.zero_points.is_none()
            && is_group
            && self.inputs.is_multiple_of(self.group_size)
    }

    /// The weight in float32, `[inputs, outputs]`.
    pub(crate) fn dequantize(&self) -> Vec<u8> {
        let mut floats = Vec::with_capacity(self.inputs * self.outputs * size_of::<f32>());
        for input in 0..self.inputs {
            let group = input / self.group_size * self.outputs;
            for output in 0..self.outputs {
                let code = self.number(self.codes, input * self.outputs + output);
                let zero_point = self.zero_points.map_or(0, |points| self.number(points, group + output));
                let weight = (code - zero_point) as f32 * self.scales[group + output];
                floats.extend_from_slice(&weight.to_le_bytes());
            }
        }
        floats
    }

    /// The codes as `MatMulNBits` takes them: `[outputs, inputs]`, 8 more than here.
    pub(crate) fn pack(&self) -> Vec<u8> {
        let row_bytes = self.inputs / 2;
        let mut packed = vec![0; self.outputs * row_bytes];
        for pair in 0..row_bytes {
            let first = 2 * pair * self.outputs;
            for output in 0..self.outputs {
                let [low, high] = [first + output, first + self.outputs + output]
                    .map(|place| (self.number(self.codes, place) + ZERO_POINT) as u8);
                packed[output * row_bytes + pair] = low | high << 4;
            }
        }
        packed
    }

    /// The scales as `MatMulNBits` takes them, `[outputs, groups]`.
    pub(crate) fn transpose_scales(&self) -> Vec<u8> {
        let columns =
            (0..self.outputs).flat_map(|output| self.scales.iter().skip(output).step_by(self.outputs));
        columns.flat_map(|scale| scale.to_le_bytes()).collect()
    }

    fn number(&self, codes: &[u8], place: usize) -> i32 {
        let code = match self.bits {
            4 => codes[place / 2] >> (place % 2 * 4) & 0xF,
            _ => codes[place],
        };
        let unused = 32 - self.bits as u32;
        if self.signed { (i32::from(code) << unused) >> unused } else { i32::from(code) }
    }
}

#[cfg(test)]
mod tests;
