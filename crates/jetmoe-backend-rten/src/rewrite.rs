//! Rewrites a graph into one that rten runs: weights in float32 or in the 4-bit form of `MatMulNBits`.
//!
//! rten computes in float32 and 32-bit integers. It has no bfloat16 elements, no 4-bit elements and no
//! `DequantizeLinear` by groups, so these are replaced before it reads the graph:
//!
//! - A 4-bit weight that only `MatMul` nodes read becomes the operand of `MatMulNBits`, and keeps its size.
//! - Every other quantized weight is dequantized to float32.
//! - Float16 and bfloat16 weights, casts, inputs and outputs become float32.

use std::collections::{HashMap, HashSet};

use jetmoe_artifact::names;
use jetmoe_onnx::{self as onnx, DataLocation, DataType, MICROSOFT};

use crate::error::{Error, Result};
use crate::quantized::QuantizedWeight;

/// A graph for rten, with the weights that it reads from outside of its message.
#[derive(Debug)]
pub(crate) struct Rewritten {
    pub(crate) model: onnx::Model,
    /// Weights by the name of the data file that holds them alone.
    pub(crate) weights: Vec<(String, Vec<u8>)>,
}

/// Whether rten runs a graph as it is.
pub(crate) fn is_needed(graph: &onnx::Graph) -> bool {
    let is_foreign = |tensor: &onnx::Tensor| !is_native(data_type(tensor));
    graph.initializer.iter().any(is_foreign) || graph.node.iter().any(is_block_dequantize)
}

/// Rewrites a graph whose weights are in `data`, the file of that name.
pub(crate) fn rewrite(mut model: onnx::Model, data: &[u8], data_name: &str) -> Result<Rewritten> {
    let graph = model.graph.as_mut().ok_or(Error::NoGraph)?;
    let tensors = graph.initializer.drain(..).map(|tensor| (tensor.name().to_owned(), tensor)).collect();
    let stored = Stored { tensors, data, data_name };
    let mut written = Written::default();
    let is_packed = rewrite_products(graph, &stored, &mut written)?;
    keep_others(graph, &stored, &mut written)?;
    let Written { initializers, weights } = written;
    graph.initializer = initializers;
    widen(graph);
    if is_packed {
        let version = onnx::OperatorSetId { domain: Some(MICROSOFT.to_owned()), version: Some(1) };
        model.opset_import.push(version);
    }
    Ok(Rewritten { model, weights })
}

/// The initializers of the graph as it was.
struct Stored<'a> {
    tensors: HashMap<String, onnx::Tensor>,
    /// The data file.
    data: &'a [u8],
    data_name: &'a str,
}

/// Those of the graph for rten.
#[derive(Default)]
struct Written {
    initializers: Vec<onnx::Tensor>,
    weights: Vec<(String, Vec<u8>)>,
}

/// Replaces every `DequantizeLinear` by groups. Returns whether any product became `MatMulNBits`.
fn rewrite_products(graph: &mut onnx::Graph, stored: &Stored<'_>, written: &mut Written) -> Result<bool> {
    let (dequantizing, mut nodes): (Vec<_>, Vec<_>) = graph.node.drain(..).partition(is_block_dequantize);
    let outputs: HashSet<String> = graph.output.iter().map(|output| output.name().to_owned()).collect();
    let mut is_packed = false;
    for node in dequantizing {
        let [output] = node.output.as_slice() else {
            return Err(Error::weight(node.name(), "is not dequantized into one value"));
        };
        let weight = stored.quantized_weight(&node)?;
        let is_multiplied = nodes.iter().all(|reader| {
            let reads = |input: &String| input == output;
            !reader.input.iter().any(reads) || (reader.op_type() == "MatMul" && !reads(&reader.input[0]))
        });
        if !(is_multiplied && weight.fits_matmul_nbits() && !outputs.contains(output)) {
            let dims = [weight.inputs, weight.outputs];
            written.add(output.clone(), &dims, DataType::Float, weight.dequantize());
            continue;
        }
        is_packed = true;
        let groups = weight.groups();
        let (codes, scales) = (format!("{output}.packed"), format!("{output}.scales"));
        let dims = [weight.outputs, groups, weight.group_size / 2];
        written.add(codes.clone(), &dims, DataType::Uint8, weight.pack());
        written.add(scales.clone(), &[weight.outputs, groups], DataType::Float, weight.transpose_scales());
        for product in nodes.iter_mut().filter(|node| node.input.contains(output)) {
            product.op_type = Some("MatMulNBits".to_owned());
            product.domain = Some(MICROSOFT.to_owned());
            product.input.truncate(1);
            product.input.extend([codes.clone(), scales.clone()]);
            product.attribute = [
                ("K", weight.inputs),
                ("N", weight.outputs),
                ("bits", 4),
                ("block_size", weight.group_size),
                // of float32: nothing is rounded
                ("accuracy_level", 1),
            ]
            .map(|(name, value)| integer_attribute(name, value as i64))
            .to_vec();
        }
    }
    graph.node = nodes;
    Ok(is_packed)
}

/// Keeps every other initializer that a node or an output reads, floats as float32.
fn keep_others(graph: &onnx::Graph, stored: &Stored<'_>, written: &mut Written) -> Result<()> {
    let done: HashSet<String> = written.initializers.iter().map(|tensor| tensor.name().to_owned()).collect();
    let inputs = graph.node.iter().flat_map(|node| &node.input).map(String::as_str);
    let read: HashSet<&str> = inputs.chain(graph.output.iter().map(|output| output.name())).collect();
    let mut kept: Vec<&str> = read.into_iter().filter(|name| !done.contains(*name)).collect();
    kept.sort_unstable();
    let kept: Vec<String> =
        kept.into_iter().filter(|name| stored.tensors.contains_key(*name)).map(str::to_owned).collect();
    for name in kept {
        let tensor = stored.tensor(&name)?;
        let dims = dims(tensor)?;
        let (kind, bytes) = match data_type(tensor) {
            Some(DataType::Float16 | DataType::Bfloat16) => {
                let floats = stored.floats(&name)?;
                (DataType::Float, floats.iter().flat_map(|value| value.to_le_bytes()).collect())
            }
            Some(kind) if is_native(Some(kind)) => (kind, stored.bytes(tensor)?.to_vec()),
            _ => return Err(Error::weight(&name, format!("has elements of type {:?}", tensor.data_type))),
        };
        written.add(name, &dims, kind, bytes);
    }
    Ok(())
}

impl Written {
    /// Adds an initializer whose elements are in a file of their own.
    fn add(&mut self, name: String, dims: &[usize], kind: DataType, bytes: Vec<u8>) {
        let entry = |key: &str, value: String| onnx::StringStringEntry {
            key: Some(key.to_owned()),
            value: Some(value),
        };
        // rten takes files that are called like a graph's data file only
        let location = names::data_file(&format!("{}.onnx", self.weights.len()));
        let length = bytes.len().to_string();
        self.initializers.push(onnx::Tensor {
            dims: dims.iter().map(|size| *size as i64).collect(),
            data_type: Some(kind as i32),
            name: Some(name),
            raw_data: None,
            external_data: vec![
                entry("location", location.clone()),
                entry("offset", "0".to_owned()),
                entry("length", length),
            ],
            data_location: Some(DataLocation::External as i32),
        });
        self.weights.push((location, bytes));
    }
}

impl Stored<'_> {
    /// The weight that a node dequantizes.
    fn quantized_weight(&self, node: &onnx::Node) -> Result<QuantizedWeight<'_>> {
        let [codes, scales, zero_points @ ..] = node.input.as_slice() else {
            return Err(Error::weight(node.name(), "has no scales"));
        };
        let problem = |problem: String| Error::weight(codes, problem);
        let axis = attribute(node, "axis").unwrap_or(1);
        let tensor = self.tensor(codes)?;
        let [inputs, outputs] = dims(tensor)?[..] else {
            return Err(problem(format!("has the shape {:?}; only a matrix is quantized", tensor.dims)));
        };
        if !matches!(axis, 0 | -2) {
            return Err(problem(format!("has groups along axis {axis}; only 0 is supported")));
        }
        let (bits, signed) = match data_type(tensor) {
            Some(DataType::Int4) => (4, true),
            Some(DataType::Uint4) => (4, false),
            Some(DataType::Int8) => (8, true),
            Some(DataType::Uint8) => (8, false),
            _ => return Err(problem("holds no codes of 4 or 8 bits".to_owned())),
        };
        let group_size = attribute(node, "block_size").and_then(|size| usize::try_from(size).ok());
        let group_size = group_size.filter(|size| *size > 0);
        let weight = QuantizedWeight {
            inputs,
            outputs,
            group_size: group_size.ok_or_else(|| problem("has no groups".to_owned()))?,
            bits,
            signed,
            codes: self.bytes(tensor)?,
            scales: self.floats(scales)?,
            zero_points: match zero_points.first().filter(|name| !name.is_empty()) {
                Some(name) => Some(self.bytes(self.tensor(name)?)?),
                None => None,
            },
        };
        weight.check(codes)?;
        Ok(weight)
    }

    fn tensor(&self, name: &str) -> Result<&onnx::Tensor> {
        self.tensors.get(name).ok_or_else(|| Error::weight(name, "is not stored with the graph"))
    }

    /// The elements of a tensor as they are stored.
    fn bytes<'b>(&'b self, tensor: &'b onnx::Tensor) -> Result<&'b [u8]> {
        if let Some(bytes) = &tensor.raw_data {
            return Ok(bytes);
        }
        let entry = |key: &str| {
            let entry = tensor.external_data.iter().find(|entry| entry.key() == key);
            entry
                .map(|entry| entry.value())
                .ok_or_else(|| Error::weight(tensor.name(), format!("has no {key}")))
        };
        let location = entry("location")?;
        if location != self.data_name {
            return Err(Error::weight(tensor.name(), format!("is in {location}, not in {}", self.data_name)));
        }
        let number = |key: &str| {
            let text = entry(key)?;
            text.parse::<usize>().map_err(|_| Error::weight(tensor.name(), format!("has the {key} {text:?}")))
        };
        let (offset, length) = (number("offset")?, number("length")?);
        let bytes = offset.checked_add(length).and_then(|end| self.data.get(offset..end));
        bytes.ok_or_else(|| Error::weight(tensor.name(), "ends behind the end of its file"))
    }

    /// The elements of a float tensor.
    fn floats(&self, name: &str) -> Result<Vec<f32>> {
        let tensor = self.tensor(name)?;
        let bytes = self.bytes(tensor)?;
        let (pairs, _) = bytes.as_chunks::<2>();
        let (quads, _) = bytes.as_chunks::<4>();
        let values: Vec<f32> = match data_type(tensor) {
            Some(DataType::Float) => quads.iter().map(|bytes| f32::from_le_bytes(*bytes)).collect(),
            Some(DataType::Float16) => pairs.iter().map(|b| half::f16::from_le_bytes(*b).to_f32()).collect(),
            Some(DataType::Bfloat16) => {
                pairs.iter().map(|b| half::bf16::from_le_bytes(*b).to_f32()).collect()
            }
            _ => return Err(Error::weight(name, "holds no floats")),
        };
        let count: usize = dims(tensor)?.iter().product();
        if values.len() != count {
            return Err(Error::weight(
                name,
                format!("has {} elements for the shape {:?}", values.len(), tensor.dims),
            ));
        }
        Ok(values)
    }
}

/// Makes float32 of every 16-bit float type that nodes, inputs and outputs name.
fn widen(graph: &mut onnx::Graph) {
    let widened = |kind: i64| match kind {
        kind if kind == DataType::Float16 as i64 || kind == DataType::Bfloat16 as i64 => {
            DataType::Float as i64
        }
        other => other,
    };
    for node in &mut graph.node {
        let is_cast = node.op_type() == "Cast";
        for attribute in &mut node.attribute {
            if is_cast && attribute.name() == "to" {
                attribute.i = attribute.i.map(widened);
            }
            if let Some(tensor) = &mut attribute.t {
                widen_zero(tensor);
            }
        }
    }
    for value in graph.input.iter_mut().chain(&mut graph.output) {
        let tensor = value.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut());
        if let Some(kind) = tensor.and_then(|tensor| tensor.elem_type.as_mut()) {
            *kind = widened(i64::from(*kind)) as i32;
        }
    }
}

/// Makes float32 of a 16-bit float tensor that is an attribute.
fn widen_zero(tensor: &mut onnx::Tensor) {
    let kind = data_type(tensor);
    let Some(raw) =
        tensor.raw_data.as_mut().filter(|_| matches!(kind, Some(DataType::Float16 | DataType::Bfloat16)))
    else {
        return;
    };
    let (pairs, _) = raw.as_chunks::<2>();
    let floats = pairs.iter().map(|bytes| match kind {
        Some(DataType::Float16) => half::f16::from_le_bytes(*bytes).to_f32(),
        _ => half::bf16::from_le_bytes(*bytes).to_f32(),
    });
    *raw = floats.flat_map(f32::to_le_bytes).collect();
    tensor.data_type = Some(DataType::Float as i32);
}

fn is_block_dequantize(node: &onnx::Node) -> bool {
    node.op_type() == "DequantizeLinear" && attribute(node, "block_size").is_some_and(|size| size > 0)
}

/// Whether rten has elements of a type, 64-bit integers as 32-bit ones.
fn is_native(kind: Option<DataType>) -> bool {
    let native =
        [DataType::Float, DataType::Int32, DataType::Int64, DataType::Bool, DataType::Int8, DataType::Uint8];
    kind.is_some_and(|kind| native.contains(&kind))
}

fn data_type(tensor: &onnx::Tensor) -> Option<DataType> {
    tensor.data_type.and_then(|kind| DataType::try_from(kind).ok())
}

fn dims(tensor: &onnx::Tensor) -> Result<Vec<usize>> {
    let sizes = tensor.dims.iter().map(|size| usize::try_from(*size));
    sizes
        .collect::<Result<_, _>>()
        .map_err(|_| Error::weight(tensor.name(), format!("has the shape {:?}", tensor.dims)))
}

fn attribute(node: &onnx::Node, name: &str) -> Option<i64> {
    node.attribute.iter().find(|attribute| attribute.name() == name).and_then(|attribute| attribute.i)
}

fn integer_attribute(name: &str, value: i64) -> onnx::Attribute {
    onnx::Attribute {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(onnx::AttributeType::Int as i32),
        ..onnx::Attribute::default()
    }
}

#[cfg(test)]
mod tests;
