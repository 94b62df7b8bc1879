//! Weights as references into a checkpoint: which tensor, which part of it, in which layout.

use jetmoe_checkpoint::{Checkpoint, TensorView, convert_to_f32};

use crate::{Error, Result};

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

    /// Size in bytes as it is written.
    pub(crate) fn encoded_length(&self) -> u64 {
        self.shape().iter().map(|size| *size as u64).product::<u64>() * size_of::<f32>() as u64
    }

    /// The mapped bytes that this weight is made from.
    ///
    /// # Errors
    /// A tensor that the checkpoint does not have in this shape.
    pub(crate) fn source<'a>(&self, checkpoint: &'a Checkpoint) -> Result<Source<'a>> {
        let tensor = checkpoint.tensor(&self.tensor, &self.stored)?;
        let part = match self.expert {
            None => Some(tensor),
            Some(expert) => tensor.slice_first(expert),
        };
        let tensor = part.ok_or_else(|| Error::NoSuchExpert {
            tensor: self.tensor.clone(),
            expert: self.expert.unwrap_or(0),
            experts: self.stored.first().copied().unwrap_or(0),
        })?;
        let layout = match tensor.shape {
            [rows, columns] if self.transposed => Layout::Transposed { rows: *rows, columns: *columns },
            _ => Layout::AsStored,
        };
        Ok(Source { tensor, layout })
    }
}

/// A weight about to be written, cut into pieces that can be converted independently: little-endian float32, row-major.
#[derive(Debug)]
pub(crate) struct Source<'a> {
    tensor: TensorView<'a>,
    layout: Layout,
}

#[derive(Debug, Clone, Copy)]
enum Layout {
    AsStored,
    /// Rows and columns of the stored matrix, which are exchanged.
    Transposed {
        rows: usize,
        columns: usize,
    },
}

/// Elements of a piece, so that memory does not grow with the model.
const PIECE: usize = 1 << 18;

impl Source<'_> {
    /// Number of pieces.
    pub(crate) fn pieces(&self) -> usize {
        match self.layout {
            Layout::AsStored => (self.tensor.bytes.len() / self.tensor.dtype.size()).div_ceil(PIECE),
            Layout::Transposed { rows, columns } => columns.div_ceil(band(rows)),
        }
    }

    /// The `index`-th piece, encoded.
    pub(crate) fn piece(&self, index: usize) -> Vec<u8> {
        match self.layout {
            Layout::AsStored => self.run(index),
            Layout::Transposed { rows, columns } => self.band(index, rows, columns),
        }
    }

    /// A run of elements in the stored order.
    fn run(&self, index: usize) -> Vec<u8> {
        let size = self.tensor.dtype.size();
        let end = ((index + 1) * PIECE * size).min(self.tensor.bytes.len());
        let bytes = &self.tensor.bytes[index * PIECE * size..end];
        let mut values = vec![0.0; bytes.len() / size];
        convert_to_f32(self.tensor.dtype, bytes, &mut values);
        encode(&values)
    }

    /// A band of columns: every stored row gives a short contiguous run, and the band becomes that many whole rows of
    /// the result.
    fn band(&self, index: usize, rows: usize, columns: usize) -> Vec<u8> {
        let size = self.tensor.dtype.size();
        let first = index * band(rows);
        let width = band(rows).min(columns - first);
        let mut run = vec![0.0; width];
        let mut result = vec![0.0; width * rows];
        for row in 0..rows {
            let start = (row * columns + first) * size;
            convert_to_f32(self.tensor.dtype, &self.tensor.bytes[start..start + width * size], &mut run);
            for (column, value) in run.iter().enumerate() {
                result[column * rows + row] = *value;
            }
        }
        encode(&result)
    }
}

/// Columns of a transposed matrix that are taken at a time.
fn band(rows: usize) -> usize {
    (PIECE / rows.max(1)).max(1)
}

fn encode(values: &[f32]) -> Vec<u8> {
    let mut encoded = Vec::with_capacity(size_of_val(values));
    encoded.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    encoded
}
