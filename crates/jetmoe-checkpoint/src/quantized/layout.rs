//! Where codes, scales and zero points are, in each tool's layout.

use super::{MIDDLE, PackedMatrix, QuantizedMatrix, TensorOf, tensor};
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

    /// Finds every tensor of a matrix, of the shape that the configuration requires, before it allocates anything: the sizes of a
    /// configuration that is not of these weights may be of any size.
    pub(super) fn unpack(
        self,
        tensors: &Tensors,
        matrix: &PackedMatrix,
        group_size: usize,
    ) -> Result<QuantizedMatrix> {
        let (rows, columns) = (matrix.rows, matrix.columns);
        let groups = columns.div_ceil(group_size);
        let (row_words, column_words) = (rows.div_ceil(PER_WORD), columns.div_ceil(PER_WORD));
        let part = |name: &str, shape: &[usize]| tensor(tensors, matrix, name, shape);
        match self {
            Layout::Gptq { zero_point_offset } => {
                let codes = part("qweight", &[column_words, rows])?;
                let zeros = part("qzeros", &[groups, row_words])?;
                let scales = part("scales", &[groups, rows])?;
                let order = part("g_idx", &[columns])?;
                let in_order = |(column, group): (usize, &u32)| *group as usize == column / group_size;
                if !order.words()?.iter().enumerate().all(in_order) {
                    return order
                        .refuse("sorts the inputs (desc_act), which the stored groups cannot express");
                }
                let mut unpacked = allocate(matrix, group_size, &codes)?;
                let words = codes.words()?;
                for (index, code) in unpacked.codes.iter_mut().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    *code = nibble(words[column / PER_WORD * rows + row], column % PER_WORD);
                }
                let zeros = zeros.words()?;
                for (index, zero_point) in unpacked.zero_points.iter_mut().enumerate() {
                    let (row, group) = (index / groups, index % groups);
                    let stored = nibble(zeros[group * row_words + row / PER_WORD], row % PER_WORD);
                    *zero_point = (stored + zero_point_offset) & 0xF;
                }
                transpose(&scales.scales()?, &mut unpacked.scales, groups);
                Ok(unpacked)
            }
            Layout::Awq => {
                let codes = part("qweight", &[columns, row_words])?;
                let zeros = part("qzeros", &[groups, row_words])?;
                let scales = part("scales", &[groups, rows])?;
                let mut unpacked = allocate(matrix, group_size, &codes)?;
                let words = codes.words()?;
                let place = |row: usize| AWQ_PLACES[row % PER_WORD];
                for (index, code) in unpacked.codes.iter_mut().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    *code = nibble(words[column * row_words + row / PER_WORD], place(row));
                }
                let zeros = zeros.words()?;
                for (index, zero_point) in unpacked.zero_points.iter_mut().enumerate() {
                    let (row, group) = (index / groups, index % groups);
                    *zero_point = nibble(zeros[group * row_words + row / PER_WORD], place(row));
                }
                transpose(&scales.scales()?, &mut unpacked.scales, groups);
                Ok(unpacked)
            }
            Layout::CompressedTensors => {
                let codes = part("weight_packed", &[rows, column_words])?;
                let scales = part("weight_scale", &[rows, groups])?;
                let mut unpacked = allocate(matrix, group_size, &codes)?;
                let words = codes.words()?;
                for (index, code) in unpacked.codes.iter_mut().enumerate() {
                    let (row, column) = (index / columns, index % columns);
                    *code = nibble(words[row * column_words + column / PER_WORD], column % PER_WORD);
                }
                unpacked.scales = scales.scales()?;
                Ok(unpacked)
            }
        }
    }
}

/// A matrix with the zero points of symmetric codes, to be filled. `codes` is the tensor of its codes, of the required shape.
fn allocate(matrix: &PackedMatrix, group_size: usize, codes: &TensorOf<'_>) -> Result<QuantizedMatrix> {
    let PackedMatrix { rows, columns, .. } = *matrix;
    let weights = rows.checked_mul(columns);
    let groups = rows.checked_mul(columns.div_ceil(group_size));
    let (Some(weights), Some(groups)) = (weights, groups) else {
        return codes.refuse("holds more codes than a process can address");
    };
    Ok(QuantizedMatrix {
        rows,
        columns,
        group_size,
        codes: vec![0; weights],
        scales: vec![0.0; groups],
        zero_points: vec![MIDDLE; groups],
    })
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
