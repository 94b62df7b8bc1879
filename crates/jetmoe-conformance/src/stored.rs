//! The weights that a graph holds, read back from its files and dequantized by the definitions of the operators that read
//! them: ONNX's `DequantizeLinear`, ONNX Runtime's `MatMulNBits`, and the custom operators. The code that wrote
//! them is not used.

use std::collections::HashMap;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use jetmoe_artifact::{Artifact, ElementType, GraphRecord};
use jetmoe_checkpoint::open_file;
use jetmoe_format::{
    Attributes, DOMAIN, Encoding, Grouping, Operand, OperatorNode, PackedLayout, Scheme, TensorRole, Tensors,
    WeightFormat,
};
use jetmoe_onnx as onnx;
use jetmoe_reference::WeightOverrides;

use crate::{Error, Result};

/// The weights of one graph, still in its files.
#[derive(Debug)]
pub struct StoredWeights {
    /// The graph file, for messages.
    graph: PathBuf,
    data: PathBuf,
    tensors: HashMap<String, StoredTensor>,
    /// How quantized and packed weights are read, by the name of their codes.
    encoded: HashMap<String, EncodedWeight>,
}

#[derive(Debug, Clone)]
struct StoredTensor {
    element: ElementType,
    dimensions: Vec<usize>,
    offset: u64,
    length: usize,
}

/// How an operator reads a weight: its attributes, and the names of the tensors besides the codes.
#[derive(Debug, Clone)]
struct EncodedWeight {
    encoding: Encoding,
    scales: Option<String>,
    zero_points: Option<String>,
}

impl StoredWeights {
    /// Reads the table of contents of a graph.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn open(artifact: &Artifact, record: &GraphRecord) -> Result<Self> {
        let path = artifact.path(&record.graph);
        let graph = onnx::read(&path)?.graph.unwrap_or_default();
        let tensors = graph.initializer.iter().filter_map(|tensor| {
            let entry = |wanted: &str| {
                let entry = tensor.external_data.iter().find(|entry| entry.key.as_deref() == Some(wanted))?;
                entry.value.as_deref()?.parse::<u64>().ok()
            };
            let stored = StoredTensor {
                element: ElementType::from_onnx(tensor.data_type?)?,
                dimensions: tensor.dims.iter().map(|size| usize::try_from(*size).unwrap_or(0)).collect(),
                offset: entry("offset")?,
                length: usize::try_from(entry("length")?).ok()?,
            };
            Some((tensor.name.clone()?, stored))
        });
        let tensors: HashMap<String, StoredTensor> = tensors.collect();
        let standard = graph.node.iter().filter_map(|node| grouped_weight(node, &tensors));
        let custom = graph.node.iter().flat_map(packed_weights);
        let encoded = standard.chain(custom).collect();
        Ok(StoredWeights { data: artifact.path(&record.data), tensors, encoded, graph: path })
    }

    /// A tensor of the checkpoint as the graph computes with it, row-major; `None` if the graph does not hold it.
    ///
    /// # Errors
    /// A file that cannot be read, or weights that are not stored as their operators expect them.
    pub fn tensor(&self, name: &str, shape: &[usize]) -> Result<Option<Vec<f32>>> {
        match *shape {
            [experts, outputs, inputs] => {
                if self.tensors.contains_key(&TensorRole::Codes.tensor_name(name)) {
                    return self.dequantize(name, Some(experts), [outputs, inputs]).map(Some);
                }
                if let Some(tensor) = self.tensors.get(name) {
                    return self.floats(name, tensor, shape).map(Some);
                }
                let matrices =
                    (0..experts).map(|expert| self.matrix(&format!("{name}.{expert}"), [outputs, inputs]));
                let matrices: Option<Vec<Vec<f32>>> = matrices.collect::<Result<_>>()?;
                Ok(matrices.map(|matrices| matrices.concat()))
            }
            [outputs, inputs] => self.matrix(name, [outputs, inputs]),
            _ => self.tensors.get(name).map(|tensor| self.floats(name, tensor, shape)).transpose(),
        }
    }

    fn matrix(&self, name: &str, [outputs, inputs]: [usize; 2]) -> Result<Option<Vec<f32>>> {
        let transposed_name = format!("{name}.T");
        if let Some(tensor) = self.tensors.get(name) {
            return self.floats(name, tensor, &[outputs, inputs]).map(Some);
        }
        if let Some(tensor) = self.tensors.get(&transposed_name) {
            let values = self.floats(&transposed_name, tensor, &[inputs, outputs])?;
            return Ok(Some(transposed(&values, inputs, outputs)));
        }
        let has_codes = |name: &&str| self.tensors.contains_key(&TensorRole::Codes.tensor_name(name));
        let stored = [transposed_name.as_str(), name].into_iter().find(has_codes);
        stored.map(|stored| self.dequantize(stored, None, [outputs, inputs])).transpose()
    }

    /// A weight as the operator that reads its codes is defined: one matrix, or those of so many experts.
    fn dequantize(
        &self,
        name: &str,
        experts: Option<usize>,
        [outputs, inputs]: [usize; 2],
    ) -> Result<Vec<f32>> {
        let damaged = || self.damaged(name);
        let codes = TensorRole::Codes.tensor_name(name);
        let EncodedWeight { mut encoding, scales, zero_points } =
            self.encoded.get(&codes).cloned().ok_or_else(damaged)?;
        let shape = match &mut encoding {
            Encoding::Grouped(_, Grouping::AlongColumns) => vec![inputs, outputs],
            Encoding::Packed(layout) if (layout.outputs, layout.inputs) != (outputs, inputs) => {
                return Err(damaged());
            }
            Encoding::Packed(layout) => {
                layout.experts = experts.unwrap_or(1);
                layout.scheme.zero_points = zero_points.is_some();
                vec![outputs, inputs]
            }
            _ => experts.into_iter().chain([outputs, inputs]).collect(),
        };
        let expected = encoding.tensors(&shape);
        let names: Vec<&String> =
            [Some(&codes), scales.as_ref(), zero_points.as_ref()].into_iter().flatten().collect();
        if names.len() != expected.len() {
            return Err(damaged());
        }
        let mut bytes = Vec::new();
        for (name, expected) in names.into_iter().zip(expected) {
            let tensor = self.tensors.get(name).ok_or_else(damaged)?;
            if tensor.element != expected.element || tensor.dimensions != expected.shape {
                return Err(damaged());
            }
            bytes.push(self.read(tensor)?);
        }
        let mut bytes = bytes.iter().map(Vec::as_slice);
        let tensors = Tensors {
            codes: bytes.next().unwrap_or_default(),
            scales: bytes.next().unwrap_or_default(),
            zero_points: bytes.next(),
        };
        let rows = match encoding {
            // the matrices of all experts are the rows of one
            Encoding::Grouped(..) => experts.unwrap_or(1) * outputs,
            _ => outputs,
        };
        encoding.dequantize([rows, inputs], &tensors).map_err(|_| damaged())
    }

    fn floats(&self, name: &str, tensor: &StoredTensor, shape: &[usize]) -> Result<Vec<f32>> {
        let values = tensor.element.decode_floats(&self.read(tensor)?);
        let elements: usize = shape.iter().product();
        values.filter(|values| values.len() == elements).ok_or_else(|| self.damaged(name))
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

/// Reads part of a file. The part is compared with the file before memory is allocated for it.
fn read_at(path: &Path, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut file = open_file(path)?;
    let size = file.metadata()?.len();
    if offset.checked_add(length as u64).is_none_or(|end| end > size) {
        let message = format!("{length} bytes at {offset} are not in the file, which has {size}");
        return Err(io::Error::new(io::ErrorKind::UnexpectedEof, message));
    }
    file.seek(SeekFrom::Start(offset))?;
    let mut bytes = vec![0; length];
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// Most weights that share a scale. Exports write groups of up to 128; larger sizes could overflow where they are multiplied.
const MAX_GROUP_SIZE: usize = 1 << 20;

/// The name of the codes that a standard operator or a contrib operator reads, and how it reads them.
fn grouped_weight(
    node: &onnx::Node,
    tensors: &HashMap<String, StoredTensor>,
) -> Option<(String, EncodedWeight)> {
    let (grouping, [codes, scales, zero_points]) = match node.op_type.as_deref()? {
        "DequantizeLinear" => (Grouping::AlongColumns, [0, 1, 2]),
        "MatMulNBits" => (Grouping::AlongRows, [1, 2, 3]),
        // the operand between them is the indices
        "GatherBlockQuantized" => (Grouping::AlongRows, [0, 2, 3]),
        _ => return None,
    };
    let (codes, scales) = (node.input.get(codes)?, node.input.get(scales)?);
    let zero_points = node.input.get(zero_points).cloned();
    let format = match grouping {
        Grouping::AlongColumns => WeightFormat::of_codes(tensors.get(codes)?.element)?,
        Grouping::AlongRows => WeightFormat::packable(node.integer("bits")?).ok()?,
    };
    let scheme = Scheme {
        format,
        group_size: usize::try_from(node.integer("block_size")?)
            .ok()
            .filter(|size| (1..=MAX_GROUP_SIZE).contains(size))?,
        zero_points: zero_points.is_some(),
        scales: tensors.get(scales)?.element,
    };
    let encoding = Encoding::Grouped(scheme, grouping);
    Some((codes.clone(), EncodedWeight { encoding, scales: Some(scales.clone()), zero_points }))
}

/// The codes of every packed weight that a custom operator reads, and how it reads them.
fn packed_weights(node: &onnx::Node) -> Vec<(String, EncodedWeight)> {
    let name = node.op_type.as_deref().filter(|_| node.domain.as_deref() == Some(DOMAIN));
    let read = name.and_then(|name| OperatorNode::read(name, node).ok());
    let Some(read) = read else { return Vec::new() };
    let schema = read.operator.schema();
    let weight = |(slot, layout): &(_, PackedLayout)| {
        let find = |operand| schema.find(&node.input, operand).cloned();
        let weight = EncodedWeight {
            encoding: Encoding::Packed(*layout),
            scales: find(Operand::Scales(*slot)),
            zero_points: find(Operand::ZeroPoints(*slot)),
        };
        Some((find(Operand::Codes(*slot))?, weight))
    };
    read.weights().iter().filter_map(weight).collect()
}

/// The transpose of a matrix `[rows, columns]`.
fn transposed(matrix: &[f32], rows: usize, columns: usize) -> Vec<f32> {
    let mut result = vec![0.0; matrix.len()];
    for row in 0..rows {
        for column in 0..columns {
            result[column * rows + row] = matrix[row * columns + column];
        }
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory of these lengths could not be allocated.
    #[test]
    fn a_part_beyond_the_file_is_refused_before_memory_is_allocated() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"0123456789").unwrap();
        assert_eq!(read_at(file.path(), 3, 4).unwrap(), b"3456");
        assert_eq!(read_at(file.path(), 10, 0).unwrap(), b"");
        for (offset, length) in [(0, 1 << 59), (8, 3), (u64::MAX, 1), (u64::MAX, usize::MAX), (11, 0)] {
            let error = read_at(file.path(), offset, length).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof, "{offset} {length}");
        }
    }
}
