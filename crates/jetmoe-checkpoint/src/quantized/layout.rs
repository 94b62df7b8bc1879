//! Where codes, scales and zero points are, in each tool's layout.

use super::{MIDDLE, PackedMatrix, QuantizedMatrix, tensor};
use crate::{Result, Tensors};

/// The layout of a tool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// auto-gptq and gptqmodel: `qweight` `[inputs / 8, outputs]`, `qzeros` `[groups, outputs / 8]`, `scales`
    /// `[groups, outputs]`, `g_idx` `[inputs]`.
    Gptq {
        /// What is added to a stored zero point: 1 in the format `gptq`, 0 in `gptq_v2`.
        zero_point_offset: u8,
    },
    /// AutoAWQ's GEMM: `qweight` `[inputs, outputs / 8]` and `qzeros` `[groups, outputs / 8]` in its order, `scales`
    /// `[groups, outputs]`.
    Awq,
    /// compressed-tensors' `pack-quantized`: `weight_packed` `[outputs, inputs / 8]`, `weight_scale`
    /// `[outputs, groups]`, `weight_shape` `[2]`.
    CompressedTensors,
}

/// Codes in a 32-bit word.
const PER_WORD: usize = 8;

/// Place of each of eight consecutive outputs in a word of AWQ.
const AWQ_PLACES: [usize; PER_WORD] = [0, 4, 1, 5, 2, 6, 3, 7];

impl Layout {
    /// Ending of the tensor of codes.
    pub(crate) fn codes(self) -> &'static str {
        match self {
            Layout::Gptq { .. } | Layout::Awq => "qweight",
            Layout::CompressedTensors => "weight_packed",
        }
    }

    /// Endings of all tensors of a matrix.
    pub(crate) fn parts(self) -> &'static [&'static str] {
        match self {
            Layout::Gptq { .. } => &["qweight", "qzeros", "scales", "g_idx"],
            Layout::Awq => &["qweight", "qzeros", "scales"],
            Layout::CompressedTensors => &["weight_packed", "weight_scale", "weight_shape"],
        }
    }

    pub(super) fn unpack(
        self,
        tensors: &Tensors,
        matrix: &PackedMatrix,
        group_size: usize,
    ) -> Result<QuantizedMatrix> {
        let (rows, columns) = (matrix.rows, matrix.columns);
        let groups = columns.div_ceil(group_size);
        let part = |name: &str, shape: &[usize]| tensor(tensors, matrix, name, shape);
        let mut unpacked = QuantizedMatrix {
            rows,
            columns,
            group_size,
            codes: vec![0; rows * columns],
            scales: vec![0.0; rows * groups],
            zero_points: vec![MIDDLE; rows * groups],
        };
        match self {
            Layout::Gptq { zero_point_offset } => {
                let words = part("qweight", &[columns.div_ceil(PER_WORD), rows])?.words()?;
                for (index, code) in unpacked.codes.iter_mut().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    *code = nibble(words[column / PER_WORD * rows + row], column % PER_WORD);
                }
                let zeros = part("qzeros", &[groups, rows.div_ceil(PER_WORD)])?.words()?;
                for (index, zero_point) in unpacked.zero_points.iter_mut().enumerate() {
                    let (row, group) = (index / groups, index % groups);
                    let stored =
                        nibble(zeros[group * rows.div_ceil(PER_WORD) + row / PER_WORD], row % PER_WORD);
                    *zero_point = (stored + zero_point_offset) & 0xF;
                }
                transpose(&part("scales", &[groups, rows])?.scales()?, &mut unpacked.scales, groups);
                let order = part("g_idx", &[columns])?;
                let in_order = |(column, group): (usize, &u32)| *group as usize == column / group_size;
                if !order.words()?.iter().enumerate().all(in_order) {
                    return order
                        .refuse("sorts the inputs (desc_act), which the stored groups cannot express");
                }
            }
            Layout::Awq => {
                let width = rows.div_ceil(PER_WORD);
                let words = part("qweight", &[columns, width])?.words()?;
                let place = |row: usize| AWQ_PLACES[row % PER_WORD];
                for (index, code) in unpacked.codes.iter_mut().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    *code = nibble(words[column * width + row / PER_WORD], place(row));
                }
                let zeros = part("qzeros", &[groups, width])?.words()?;
                for (index, zero_point) in unpacked.zero_points.iter_mut().enumerate() {
                    let (row, group) = (index / groups, index % groups);
                    *zero_point = nibble(zeros[group * width + row / PER_WORD], place(row));
                }
                transpose(&part("scales", &[groups, rows])?.scales()?, &mut unpacked.scales, groups);
            }
            Layout::CompressedTensors => {
                let width = columns.div_ceil(PER_WORD);
                let words = part("weight_packed", &[rows, width])?.words()?;
                for (index, code) in unpacked.codes.iter_mut().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    *code = nibble(words[row * width + column / PER_WORD], column % PER_WORD);
                }
                unpacked.scales = part("weight_scale", &[rows, groups])?.scales()?;
            }
        }
        Ok(unpacked)
    }
}

fn nibble(word: u32, place: usize) -> u8 {
    (word >> (4 * place) & 0xF) as u8
}

/// From `[groups, outputs]` to `[outputs, groups]`.
fn transpose(stored: &[f32], scales: &mut [f32], groups: usize) {
    let rows = stored.len() / groups.max(1);
    for (index, scale) in scales.iter_mut().enumerate() {
        *scale = stored[index % groups * rows + index / groups];
    }
}
