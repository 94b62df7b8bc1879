//! Rewrites products with quantized weights before tract parses a graph.
//!
//! tract supports neither 4-bit elements nor scales per group. Every `DequantizeLinear` of a grouped weight and the `MatMul`
//! after it become one node of an operator of this crate (`product.rs`), and the codes become lists of bytes. The weights stay
//! codes, in the file and in memory.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tract_onnx::pb::{attribute_proto::AttributeType, tensor_proto::DataType};
use tract_onnx::prelude::{TractError, TractResult};
use tract_onnx::tract_hir::internal::{TractErrorContext, bail, ensure};

use crate::kernel::CodeType;
use crate::product;

/// A weight that a node dequantizes.
struct DequantizedWeight {
    /// Codes, scales and, optionally, zero points.
    operands: Vec<String>,
    attributes: Vec<AttributeProto>,
}

/// Rewrites every product with a quantized weight.
pub(crate) fn rewrite(graph: &mut GraphProto) -> TractResult<()> {
    let (dequantize_nodes, mut nodes): (Vec<_>, Vec<_>) = graph.node.drain(..).partition(is_block_dequantize);
    let mut dequantized = HashMap::new();
    for node in dequantize_nodes {
        let [output] = &*node.output else { bail!("a DequantizeLinear gives {} values", node.output.len()) };
        let weight = codes_as_bytes(graph, &nodes, &node)
            .with_context(|| format!("the quantized weight {}", node.input.first().unwrap_or(output)))?;
        dequantized.insert(output.clone(), weight);
    }
    for node in &mut nodes {
        let is_product = node.op_type == "MatMul";
        if let Some(weight) = node.input.get(1).filter(|_| is_product).and_then(|name| dequantized.get(name))
        {
            node.op_type = product::OPERATOR.to_owned();
            node.input.truncate(1);
            node.input.extend(weight.operands.iter().cloned());
            node.attribute = weight.attributes.clone();
        }
        if let Some(name) = node.input.iter().find(|name| dequantized.contains_key(*name)) {
            bail!("{} takes the quantized weight {name}; only MatMul can, on its right side", node.op_type);
        }
    }
    if let Some(output) = graph.output.iter().find(|output| dequantized.contains_key(&output.name)) {
        bail!("the quantized weight {} is an output of the graph", output.name);
    }
    graph.node = nodes;
    share_equal_places(graph);
    refuse_4_bits(graph)
}

fn is_block_dequantize(node: &NodeProto) -> bool {
    node.op_type == "DequantizeLinear" && integer(node, "block_size") > 0
}

/// An attribute; 0, ONNX's default for `block_size`, if absent.
fn integer(node: &NodeProto, name: &str) -> i64 {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(0, |attribute| attribute.i)
}

/// Declares the codes and zero points of a node as lists of bytes.
fn codes_as_bytes(
    graph: &mut GraphProto,
    others: &[NodeProto],
    node: &NodeProto,
) -> TractResult<DequantizedWeight> {
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").map_or(1, |axis| axis.i);
    let [codes, _scales, zero_points @ ..] = &*node.input else { bail!("has no scales") };
    let tensor = initializer(graph, codes)?;
    let code_type = code_type(tensor)?;
    let [inputs, outputs] = *tensor.dims else {
        bail!("has the shape {:?}; only matrices can be", tensor.dims)
    };
    ensure!(matches!(axis, 0 | -2), "has groups along axis {axis}; only 0 can be");
    let zero_points: Vec<&String> = zero_points.iter().filter(|name| !name.is_empty()).collect();
    for name in [codes].into_iter().chain(zero_points) {
        if let Some(other) = others.iter().find(|other| other.input.contains(name)) {
            bail!("{name} is also read by {}", other.op_type);
        }
        let tensor = initializer(graph, name)?;
        flatten(tensor, code_type).with_context(|| name.clone())?;
    }
    let (bits, signed) = match code_type {
        CodeType::Int4 => (4, 1),
        CodeType::UInt4 => (4, 0),
        CodeType::Int8 => (8, 1),
        CodeType::UInt8 => (8, 0),
    };
    let attributes = [
        (product::INPUTS, inputs),
        (product::OUTPUTS, outputs),
        (product::GROUP_SIZE, integer(node, "block_size")),
        (product::BITS, bits),
        (product::SIGNED, signed),
    ];
    let attributes = attributes.map(|(name, i)| AttributeProto {
        name: name.to_owned(),
        i,
        r#type: AttributeType::Int as i32,
        ..AttributeProto::default()
    });
    let operands = node.input.iter().filter(|name| !name.is_empty()).cloned().collect();
    Ok(DequantizedWeight { operands, attributes: attributes.to_vec() })
}

fn initializer<'a>(graph: &'a mut GraphProto, name: &str) -> TractResult<&'a mut TensorProto> {
    let tensor = graph.initializer.iter_mut().find(|tensor| tensor.name == name);
    tensor.ok_or_else(|| TractError::msg(format!("{name} is not stored with the graph")))
}

fn code_type(tensor: &TensorProto) -> TractResult<CodeType> {
    Ok(match DataType::try_from(tensor.data_type) {
        Ok(DataType::Int4) => CodeType::Int4,
        Ok(DataType::Uint4) => CodeType::UInt4,
        Ok(DataType::Int8) => CodeType::Int8,
        Ok(DataType::Uint8) => CodeType::UInt8,
        Ok(other) => bail!("has elements of type {other:?}; only INT4, UINT4, INT8 and UINT8 can be"),
        Err(_) => bail!("has elements of the unknown type {}", tensor.data_type),
    })
}

/// Declares a tensor of codes as a list of bytes with two 4-bit codes each, or of 8-bit codes.
fn flatten(tensor: &mut TensorProto, expected: CodeType) -> TractResult<()> {
    let found = code_type(tensor)?;
    ensure!(found == expected, "has the type {found:?}, and the codes have {expected:?}");
    ensure!(tensor.int32_data.is_empty(), "is not stored as bytes");
    let count = tensor.dims.iter().map(|size| usize::try_from(*size)).product::<Result<usize, _>>()?;
    tensor.dims = vec![i64::try_from(expected.bytes(count))?];
    if matches!(expected, CodeType::Int4 | CodeType::UInt4) {
        tensor.data_type = DataType::Uint8 as i32;
    }
    Ok(())
}

/// Merges tensors with the same location and type: an embedding table that shares its codes with the head would otherwise
/// be loaded twice.
fn share_equal_places(graph: &mut GraphProto) {
    let mut first_at = HashMap::new();
    let mut kept_as = HashMap::new();
    graph.initializer.retain(|tensor| {
        let mut place: Vec<_> =
            tensor.external_data.iter().map(|entry| (entry.key.clone(), entry.value.clone())).collect();
        place.sort();
        if place.is_empty() {
            return true;
        }
        let first = first_at.entry((place, tensor.data_type, tensor.dims.clone()));
        let first = first.or_insert_with(|| tensor.name.clone());
        if *first != tensor.name {
            kept_as.insert(tensor.name.clone(), first.clone());
        }
        *first == tensor.name
    });
    for name in graph.node.iter_mut().flat_map(|node| &mut node.input) {
        if let Some(kept) = kept_as.get(name) {
            name.clone_from(kept);
        }
    }
}

/// Rejects remaining 4-bit tensors, whose use is not supported.
fn refuse_4_bits(graph: &GraphProto) -> TractResult<()> {
    let is_4_bits = |tensor: &&TensorProto| matches!(code_type(tensor), Ok(CodeType::Int4 | CodeType::UInt4));
    match graph.initializer.iter().find(is_4_bits) {
        Some(tensor) => bail!(
            "{} holds 4-bit elements, which tract can only multiply with, as a weight in groups",
            tensor.name
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
