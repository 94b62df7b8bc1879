//! The weights that a graph holds, read back from its files and restored by the definitions of the operators that read
//! them: ONNX's `DequantizeLinear`, ONNX Runtime's `MatMulNBits`, and our own operators. The code that wrote them is not
//! asked.

mod panels;

use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use jetmoe_artifact::{Artifact, GraphRecord};
use jetmoe_graph::onnx::{self, DataType};
use jetmoe_reference::WeightOverrides;

use self::panels::{Panels, panels_of};
use crate::{Error, Result};

/// The weights of one graph, still in its files.
#[derive(Debug)]
pub struct StoredWeights {
    /// The graph file, for messages.
    graph: PathBuf,
    data: PathBuf,
    tensors: HashMap<String, StoredTensor>,
    /// How the codes of quantized weights are read, by the name of the codes.
    groups: HashMap<String, Groups>,
    /// How weights in panels are read, by the name of their codes.
    panels: HashMap<String, Panels>,
}

#[derive(Debug, Clone)]
struct StoredTensor {
    element: DataType,
    dimensions: Vec<usize>,
    offset: u64,
    length: usize,
}

/// What the operator that reads the codes is told of them.
#[derive(Debug, Clone, Copy)]
struct Groups {
    size: usize,
    /// Set for `MatMulNBits`.
    bits: Option<usize>,
}

impl StoredWeights {
    /// Reads the table of contents of a graph.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(artifact: &Artifact, record: &GraphRecord) -> Result<Self> {
        let path = artifact.path(&record.graph);
        let graph = jetmoe_graph::read(&path)?.graph.unwrap_or_default();
        let tensors = graph.initializer.iter().filter_map(|tensor| {
            let entry = |wanted: &str| {
                let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(wanted))?;
                entry.value.as_deref()?.parse::<u64>().ok()
            };
            let stored = StoredTensor {
                element: DataType::try_from(tensor.data_type?).ok()?,
                dimensions: tensor.dims.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect(),
                offset: entry("offset")?,
                length: usize::try_from(entry("length")?).ok()?,
            };
            Some((tensor.name.clone()?, stored))
        });
        Ok(StoredWeights {
            data: artifact.path(&record.data),
            tensors: tensors.collect(),
            groups: graph.node.iter().filter_map(groups_of).collect(),
            panels: graph.node.iter().flat_map(panels_of).collect(),
            graph: path,
        })
    }

    /// A tensor of the checkpoint as the graph computes with it, row-major; `None` if the graph does not hold it.
    ///
    /// # Errors
    /// A file that cannot be read, or weights that are not stored as their operators want them.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        let codes = format!("{name}.codes");
        if let Some(panels) = self.panels.get(&codes) {
            return self.restore(&codes, panels, shape).map(Some);
        }
        match shape {
            [experts, rows, columns] => {
                let matrices =
                    (0..*experts).map(|expert| self.matrix(&format!("{name}.{expert}"), *rows, *columns));
                let matrices: Option<Vec<Vec<f32>>> = matrices.collect::<Result<_>>()?;
                Ok(matrices.map(|matrices| matrices.concat()))
            }
            [rows, columns] => self.matrix(name, *rows, *columns),
            _ => self.tensors.get(name).map(|tensor| self.floats(name, tensor)).transpose(),
        }
    }

    fn matrix(&self, name: &str, rows: usize, columns: usize) -> Result<Option<Vec<f32>>> {
        let turned = format!("{name}.T");
        if let Some(tensor) = self.tensors.get(name) {
            return self.floats(name, tensor).map(Some);
        }
        if let Some(tensor) = self.tensors.get(&turned) {
            return Ok(Some(transposed(&self.floats(&turned, tensor)?, columns, rows)));
        }
        if self.tensors.contains_key(&format!("{turned}.codes")) {
            let weights = self.dequantize_linear(&turned, columns, rows)?;
            return Ok(Some(transposed(&weights, columns, rows)));
        }
        if self.tensors.contains_key(&format!("{name}.codes")) {
            return self.mat_mul_n_bits(name, rows, columns).map(Some);
        }
        Ok(None)
    }

    /// `y = (x − zero_point) · scale` with one scale for `block_size` elements along axis 0, `[inputs, outputs]`.
    fn dequantize_linear(&self, name: &str, inputs: usize, outputs: usize) -> Result<Vec<f32>> {
        let codes = self.integers(&format!("{name}.codes"), inputs * outputs)?;
        let size = self.groups(&format!("{name}.codes"))?.size;
        let groups = inputs.div_ceil(size);
        let scales = self.named_floats(&format!("{name}.scales"), groups * outputs)?;
        let zero_points = match self.tensors.contains_key(&format!("{name}.zero_points")) {
            true => self.integers(&format!("{name}.zero_points"), groups * outputs)?,
            false => vec![0; groups * outputs],
        };
        let weight = |(place, code): (usize, &i32)| {
            let group = place / outputs / size * outputs + place % outputs;
            (code - zero_points[group]) as f32 * scales[group]
        };
        Ok(codes.iter().enumerate().map(weight).collect())
    }

    /// Codes without a sign, `[outputs, groups, bytes of a group]`; without zero points 0 is 8, or 128.
    fn mat_mul_n_bits(&self, name: &str, outputs: usize, inputs: usize) -> Result<Vec<f32>> {
        let Groups { size, bits } = self.groups(&format!("{name}.codes"))?;
        let bits = bits.ok_or_else(|| self.damaged(name))?;
        let groups = inputs.div_ceil(size);
        let unpack = |bytes: Vec<u8>| match bits {
            4 => bytes.iter().flat_map(|byte| [byte & 15, byte >> 4]).collect(),
            _ => bytes,
        };
        let codes = unpack(self.read_named(&format!("{name}.codes"))?);
        let scales = self.named_floats(&format!("{name}.scales"), outputs * groups)?;
        let (zero_points, per_row) = match self.tensors.contains_key(&format!("{name}.zero_points")) {
            true => {
                let zero_points = unpack(self.read_named(&format!("{name}.zero_points"))?);
                let per_row = zero_points.len() / outputs;
                (zero_points, per_row)
            }
            false => (vec![1 << (bits - 1); outputs * groups], groups),
        };
        if codes.len() != outputs * groups * size || zero_points.len() < outputs * groups {
            return Err(self.damaged(name));
        }
        let mut weights = Vec::with_capacity(outputs * inputs);
        for output in 0..outputs {
            for input in 0..inputs {
                let group = input / size;
                let code = f32::from(codes[output * groups * size + input]);
                let zero_point = f32::from(zero_points[output * per_row + group]);
                weights.push((code - zero_point) * scales[output * groups + group]);
            }
        }
        Ok(weights)
    }

    fn groups(&self, codes: &str) -> Result<Groups> {
        self.groups.get(codes).copied().ok_or_else(|| self.damaged(codes))
    }

    fn named_floats(&self, name: &str, count: usize) -> Result<Vec<f32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.damaged(name))?;
        let floats = self.floats(name, tensor)?;
        if floats.len() == count { Ok(floats) } else { Err(self.damaged(name)) }
    }

    fn floats(&self, name: &str, tensor: &StoredTensor) -> Result<Vec<f32>> {
        let bytes = self.read(tensor)?;
        let pairs = || bytes.chunks_exact(2).map(|pair| [pair[0], pair[1]]);
        match tensor.element {
            DataType::Float => {
                let words = bytes.chunks_exact(4).map(|word| [word[0], word[1], word[2], word[3]]);
                Ok(words.map(f32::from_le_bytes).collect())
            }
            DataType::Float16 => Ok(pairs().map(|pair| f16::from_le_bytes(pair).to_f32()).collect()),
            DataType::Bfloat16 => Ok(pairs().map(|pair| bf16::from_le_bytes(pair).to_f32()).collect()),
            _ => Err(self.damaged(name)),
        }
    }

    /// Integers of 4 or 8 bits; two of 4 share a byte, the first in its low half.
    fn integers(&self, name: &str, count: usize) -> Result<Vec<i32>> {
        let tensor = self.tensors.get(name).ok_or_else(|| self.damaged(name))?;
        let bytes = self.read(tensor)?;
        let nibbles =
            || bytes.iter().flat_map(|byte| [i32::from(byte & 15), i32::from(byte >> 4)]).take(count);
        let integers: Vec<i32> = match tensor.element {
            DataType::Int8 => bytes.iter().map(|byte| i32::from(byte.cast_signed())).collect(),
            DataType::Uint8 => bytes.iter().map(|byte| i32::from(*byte)).collect(),
            DataType::Int4 => nibbles().map(|code| if code > 7 { code - 16 } else { code }).collect(),
            DataType::Uint4 => nibbles().collect(),
            _ => return Err(self.damaged(name)),
        };
        if integers.len() == count && tensor.dimensions.iter().product::<usize>() == count {
            Ok(integers)
        } else {
            Err(self.damaged(name))
        }
    }

    fn read_named(&self, name: &str) -> Result<Vec<u8>> {
        self.read(self.tensors.get(name).ok_or_else(|| self.damaged(name))?)
    }

    fn read(&self, tensor: &StoredTensor) -> Result<Vec<u8>> {
        read_at(&self.data, tensor.offset, tensor.length).map_err(|source| Error::Io {
            action: "read",
            path: self.data.clone(),
            source,
        })
    }

    fn damaged(&self, weight: &str) -> Error {
        Error::StoredWeight { graph: self.graph.clone(), weight: weight.to_owned() }
    }
}

impl WeightOverrides for StoredWeights {
    fn tensor(
        &self,
        name: &str,
        shape: &[usize],
    ) -> std::result::Result<Option<Vec<f32>>, Box<dyn std::error::Error + Send + Sync>> {
        Ok(StoredWeights::tensor(self, name, shape)?)
    }
}

fn read_at(path: &Path, offset: u64, length: usize) -> std::io::Result<Vec<u8>> {
    let mut file = File::open(path)?;
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// The name of the codes that a node reads, and what it is told of them.
fn groups_of(node: &onnx::Node) -> Option<(String, Groups)> {
    let attribute = |wanted: &str| {
        let attribute = node.attribute.iter().find(|attribute| attribute.name.as_deref() == Some(wanted))?;
        usize::try_from(attribute.i?).ok()
    };
    let size = attribute("block_size")?;
    match node.op_type.as_deref()? {
        "DequantizeLinear" => Some((node.input.first()?.clone(), Groups { size, bits: None })),
        "MatMulNBits" => Some((node.input.get(1)?.clone(), Groups { size, bits: Some(attribute("bits")?) })),
        _ => None,
    }
}

/// A matrix `[rows, columns]` with both exchanged.
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut result = vec![0.0; matrix.len()];
    for row in 0..rows {
        for column in 0..columns {
            result[column * rows + row] = matrix[row * columns + column];
        }
    }
    result
}
