//! Weights as references into a checkpoint: which tensor, which part of it, in which layout.

use std::io::Write;

use jetmoe_checkpoint::{Checkpoint, TensorView, convert_to_f32};

use crate::Result;

/// A reference to a checkpoint tensor, or to one expert's matrix of it. No element is read before the graph is
/// written.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Weight {
    tensor: String,
    /// Shape in the checkpoint.
    stored: Vec<usize>,
    expert: Option<usize>,
    transposed: bool,
}

impl Weight {
    /// A whole tensor.
    pub fn new(tensor: String, shape: Vec<usize>) -> Self {
        Weight { tensor, stored: shape, expert: None, transposed: false }
    }

    /// One expert's matrix of a tensor `[experts, rows, columns]`.
    pub fn of_expert(mut self, expert: usize) -> Self {
        self.expert = Some(expert);
        self
    }

    /// A matrix with rows and columns exchanged: checkpoints store `[out, in]`, `MatMul` takes `[in, out]`.
    pub fn transposed(mut self) -> Self {
        self.transposed = !self.transposed;
        self
    }

    /// Name and shape of the checkpoint tensor.
    pub(crate) fn stored(&self) -> (String, Vec<usize>) {
        (self.tensor.clone(), self.stored.clone())
    }

    /// Name in the graph: that of the tensor, with the expert's number and `.T` where they apply.
    pub fn name(&self) -> String {
        let mut name = self.tensor.clone();
        if let Some(expert) = self.expert {
            name.push_str(&format!(".{expert}"));
        }
        if self.transposed {
            name.push_str(".T");
        }
        name
    }

    /// Shape in the graph.
    pub fn shape(&self) -> Vec<usize> {
        let mut shape = self.stored[usize::from(self.expert.is_some())..].to_vec();
        if self.transposed {
            shape.reverse();
        }
        shape
    }

    /// Writes the elements as little-endian float32, row-major.
    ///
    /// # Errors
    /// A tensor that the checkpoint does not have in this shape, or what the target refuses.
    pub(crate) fn write_f32(
        &self,
        checkpoint: &Checkpoint,
        target: &mut impl Write,
    ) -> Result<std::io::Result<()>> {
        let tensor = checkpoint.tensor(&self.tensor, &self.stored)?;
        let part = match self.expert {
            None => Some(tensor),
            Some(expert) => tensor.slice_first(expert),
        };
        let Some(part) = part else {
            return Ok(Err(std::io::Error::other(format!(
                "{} has no expert {:?}",
                self.tensor, self.expert
            ))));
        };
        Ok(match part.shape {
            [rows, columns] if self.transposed => write_transposed(&part, *rows, *columns, target),
            _ => write_in_order(&part, target),
        })
    }
}

/// Elements converted at a time, so that memory does not grow with the model.
const CHUNK: usize = 1 << 18;

fn write_in_order(tensor: &TensorView<'_>, target: &mut impl Write) -> std::io::Result<()> {
    let mut values = vec![0.0; CHUNK];
    let mut encoded = Vec::with_capacity(CHUNK * 4);
    for bytes in tensor.bytes.chunks(CHUNK * tensor.dtype.size()) {
        let values = &mut values[..bytes.len() / tensor.dtype.size()];
        convert_to_f32(tensor.dtype, bytes, values);
        encode(values, &mut encoded);
        target.write_all(&encoded)?;
    }
    Ok(())
}

/// Takes a band of columns at a time: every stored row gives a short contiguous run, and the band becomes that many
/// whole rows of the result.
fn write_transposed(
    tensor: &TensorView<'_>,
    rows: usize,
    columns: usize,
    target: &mut impl Write,
) -> std::io::Result<()> {
    if rows == 0 || columns == 0 {
        return Ok(());
    }
    let size = tensor.dtype.size();
    let band = (CHUNK / rows).clamp(1, columns);
    let mut run = vec![0.0; band];
    let mut result = vec![0.0; band * rows];
    let mut encoded = Vec::with_capacity(band * rows * 4);
    for first in (0..columns).step_by(band) {
        let width = band.min(columns - first);
        for row in 0..rows {
            let start = (row * columns + first) * size;
            convert_to_f32(tensor.dtype, &tensor.bytes[start..start + width * size], &mut run[..width]);
            for (column, value) in run[..width].iter().enumerate() {
                result[column * rows + row] = *value;
            }
        }
        encode(&result[..width * rows], &mut encoded);
        target.write_all(&encoded)?;
    }
    Ok(())
}

fn encode(values: &[f32], encoded: &mut Vec<u8>) {
    encoded.clear();
    encoded.extend(values.iter().flat_map(|value| value.to_le_bytes()));
}
