//! Weights that another tool quantized to 4 bits in groups: GPTQ, AWQ, and compressed-tensors' `pack-quantized`.
//!
//! Their codes stay as they are: an export of 4-bit weights in the same groups takes them over, and everything else reads
//! the exact float32 values that they stand for.

mod layout;
mod settings;

use std::io::{BufWriter, Write};
use std::path::Path;

use crate::mapped_file::MappedFile;
use crate::{Error, Result, TensorView, Tensors};

pub(crate) use self::layout::Layout;
pub(crate) use self::settings::read_settings;

/// How the weights of a checkpoint are quantized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quantization {
    pub(crate) layout: Layout,
    /// Consecutive weights along the inputs that share a scale.
    pub group_size: usize,
    /// Whether the groups have zero points other than the middle of the range.
    pub zero_points: bool,
}

/// A quantized matrix `[outputs, inputs]`. A weight is `(code − zero point) · scale`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct QuantizedMatrix {
    /// Outputs.
    pub rows: usize,
    /// Inputs.
    pub columns: usize,
    /// Consecutive weights of a row that share a scale; the last group of a row may be shorter.
    pub group_size: usize,
    /// One byte a weight, 0 to 15, `[outputs, inputs]`.
    pub codes: Vec<u8>,
    /// `[outputs, groups]`, finite and not negative.
    pub scales: Vec<f32>,
    /// 0 to 15, `[outputs, groups]`.
    pub zero_points: Vec<u8>,
}

/// The zero point of symmetric codes.
pub(crate) const MIDDLE: u8 = 8;

impl QuantizedMatrix {
    /// Groups of a row.
    pub fn groups(&self) -> usize {
        self.columns.div_ceil(self.group_size)
    }

    /// Whether every zero point is the middle of the range, 8.
    pub fn is_symmetric(&self) -> bool {
        self.zero_points.iter().all(|zero_point| *zero_point == MIDDLE)
    }

    /// The weights of a row.
    fn dequantize_row(&self, row: usize, weights: &mut [f32]) {
        let groups = self.groups();
        let codes = &self.codes[row * self.columns..][..self.columns];
        for (column, (weight, code)) in weights.iter_mut().zip(codes).enumerate() {
            let group = row * groups + column / self.group_size;
            *weight = f32::from(i16::from(*code) - i16::from(self.zero_points[group])) * self.scales[group];
        }
    }
}

/// The tensors of a quantized matrix.
#[derive(Debug)]
pub(crate) struct PackedMatrix {
    /// Name of the module in the checkpoint.
    pub(crate) module: String,
    pub(crate) rows: usize,
    pub(crate) columns: usize,
}

/// A weight made of quantized matrices: one, or one per expert.
#[derive(Debug)]
pub(crate) struct PackedWeight {
    pub(crate) matrices: Vec<PackedMatrix>,
}

/// The quantized matrices of a weight of the model; `None` if the checkpoint does not have it quantized.
pub(crate) fn find(tensors: &Tensors, layout: Layout, name: &str, shape: &[usize]) -> Option<PackedWeight> {
    let stem = name.strip_suffix(".weight")?;
    let matrix = |module: String, rows, columns| {
        tensors.contains(&format!("{module}.{}", layout.codes())).then_some(PackedMatrix {
            module,
            rows,
            columns,
        })
    };
    let matrices = match *shape {
        [rows, columns] => vec![matrix(stem.to_owned(), rows, columns)?],
        [experts, rows, columns] => (0..experts)
            .map(|expert| matrix(format!("{stem}.{expert}"), rows, columns))
            .collect::<Option<Vec<_>>>()?,
        _ => return None,
    };
    Some(PackedWeight { matrices })
}

impl Quantization {
    /// Unpacks a matrix.
    ///
    /// # Errors
    /// [`Error::QuantizedTensor`] for a tensor that is missing, of another shape or type, or not exactly representable.
    pub(crate) fn unpack(&self, tensors: &Tensors, matrix: &PackedMatrix) -> Result<QuantizedMatrix> {
        self.layout.unpack(tensors, matrix, self.group_size)
    }
}

/// Writes the values of a weight into an unnamed temporary file, `[experts,] rows, columns` in float32, and maps it.
pub(crate) fn dequantize(
    tensors: &Tensors,
    quantization: &Quantization,
    weight: &PackedWeight,
) -> Result<MappedFile> {
    let failed = |source| Error::Io {
        action: "write dequantized weights to a temporary file in",
        path: std::env::temp_dir(),
        source,
    };
    let mut file = BufWriter::with_capacity(1 << 20, tempfile::tempfile().map_err(failed)?);
    for matrix in &weight.matrices {
        let unpacked = quantization.unpack(tensors, matrix)?;
        let mut row_weights = vec![0.0; unpacked.columns];
        for row in 0..unpacked.rows {
            unpacked.dequantize_row(row, &mut row_weights);
            for weight in &row_weights {
                file.write_all(&weight.to_le_bytes()).map_err(failed)?;
            }
        }
    }
    let file = file.into_inner().map_err(|error| failed(error.into_error()))?;
    MappedFile::of_file(&file).map_err(failed)
}

/// A tensor of a quantized matrix, of the expected shape.
pub(crate) fn tensor<'a>(
    tensors: &'a Tensors,
    matrix: &PackedMatrix,
    part: &str,
    shape: &[usize],
) -> Result<TensorOf<'a>> {
    let name = format!("{}.{part}", matrix.module);
    let folder = tensors.folder();
    let refused = |problem: String| tensor_error(folder, &name, problem);
    let found = tensors.raw_tensor(&name).ok_or_else(|| refused("is missing".to_owned()))?;
    if found.shape != shape {
        return Err(refused(format!("has shape {:?}, expected {shape:?}", found.shape)));
    }
    Ok(TensorOf { folder, name, tensor: found })
}

fn tensor_error(folder: &Path, tensor: &str, problem: String) -> Error {
    Error::QuantizedTensor { folder: folder.to_owned(), tensor: tensor.to_owned(), problem }
}

/// A stored tensor of any type, with its name.
pub(crate) struct TensorOf<'a> {
    /// The checkpoint's folder.
    folder: &'a Path,
    name: String,
    tensor: RawTensor<'a>,
}

/// A stored tensor of any type.
pub(crate) struct RawTensor<'a> {
    pub(crate) dtype: safetensors::Dtype,
    pub(crate) shape: &'a [usize],
    pub(crate) bytes: &'a [u8],
    /// The same, if its elements are floating-point numbers.
    pub(crate) view: Option<TensorView<'a>>,
}

impl TensorOf<'_> {
    fn refused(&self, problem: impl Into<String>) -> Error {
        tensor_error(self.folder, &self.name, problem.into())
    }

    /// The words of a tensor of 32-bit integers.
    pub(crate) fn words(&self) -> Result<Vec<u32>> {
        use safetensors::Dtype;
        match self.tensor.dtype {
            Dtype::I32 | Dtype::U32 => {
                Ok(self.tensor.bytes.as_chunks().0.iter().map(|word| u32::from_le_bytes(*word)).collect())
            }
            other => Err(self.refused(format!("has elements of type {other:?}, expected 32-bit integers"))),
        }
    }

    /// Scales: finite numbers that are not negative.
    pub(crate) fn scales(&self) -> Result<Vec<f32>> {
        let Some(view) = self.tensor.view else {
            return Err(
                self.refused(format!("has elements of type {:?}, expected numbers", self.tensor.dtype))
            );
        };
        let scales = view.to_f32();
        match scales.iter().find(|scale| !scale.is_finite() || scale.is_sign_negative()) {
            Some(scale) => Err(self.refused(format!("holds the scale {scale}, expected a positive number"))),
            None => Ok(scales),
        }
    }

    /// Refuses the tensor for what it holds.
    pub(crate) fn refuse<T>(&self, problem: &str) -> Result<T> {
        Err(self.refused(problem))
    }
}
