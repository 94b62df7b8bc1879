//! Takes quantized weights out of a graph before tract parses it.
//!
//! tract supports neither 4-bit elements nor scales per group. Every `DequantizeLinear` of a grouped weight and the `MatMul`
//! after it become one node of an operator of this crate (`product.rs`), and the weight is packed in panels.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jetmoe_format::{ElementType, PackedLayout, RowOrder};
use tract_onnx::pb::{GraphProto, NodeProto, TensorProto};
use tract_onnx::prelude::TractResult;
use tract_onnx::tract_hir::internal::{TractErrorContext, bail, ensure};

use crate::data_file::{DataFile, Initializers};
use crate::operator::integer_attribute;
use crate::product::{self, Panels, StoredWeight};

/// Rewrites every product with a quantized weight. Returns the weights, in the order of the attribute
/// [`product::WEIGHT`].
pub(crate) fn rewrite(graph: &mut GraphProto, data: &DataFile) -> TractResult<Vec<Arc<Panels>>> {
    let (dequantize_nodes, mut nodes): (Vec<_>, Vec<_>) = graph.node.drain(..).partition(is_block_dequantize);
    let tensors = Initializers::of(&graph.initializer);
    let mut weights = Vec::new();
    let mut dequantized = HashMap::new();
    for node in &dequantize_nodes {
        let [output] = &*node.output else { bail!("a DequantizeLinear gives {} values", node.output.len()) };
        let (layout, panels) = pack(&tensors, data, node)
            .with_context(|| format!("the quantized weight {}", node.input.first().unwrap_or(output)))?;
        let attributes = vec![
            integer_attribute(product::WEIGHT, weights.len())?,
            integer_attribute(product::INPUTS, layout.inputs)?,
            integer_attribute(product::OUTPUTS, layout.outputs)?,
        ];
        dequantized.insert(output.clone(), attributes);
        weights.push(Arc::new(panels));
    }
    for node in &mut nodes {
        let is_product = node.op_type == "MatMul";
        if let Some(attributes) =
            node.input.get(1).filter(|_| is_product).and_then(|name| dequantized.get(name))
        {
            node.op_type = product::OPERATOR.to_owned();
            node.input.truncate(1);
            node.attribute = attributes.clone();
        }
        if let Some(name) = node.input.iter().find(|name| dequantized.contains_key(*name)) {
            bail!("{} takes the quantized weight {name}; only MatMul can, on its right side", node.op_type);
        }
    }
    if let Some(output) = graph.output.iter().find(|output| dequantized.contains_key(&output.name)) {
        bail!("the quantized weight {} is an output of the graph", output.name);
    }
    // Keep what others read too: a table that the head shares with the embedding.
    let read: HashSet<&String> = nodes.iter().flat_map(|node| &node.input).collect();
    let packed: HashSet<&String> = dequantize_nodes.iter().flat_map(|node| &node.input).collect();
    graph.initializer.retain(|tensor| read.contains(&tensor.name) || !packed.contains(&tensor.name));
    graph.node = nodes;
    refuse_4_bits(graph)?;
    Ok(weights)
}

fn is_block_dequantize(node: &NodeProto) -> bool {
    node.op_type == "DequantizeLinear" && integer(node, "block_size") > 0
}

/// An attribute; 0, ONNX's default for `block_size`, if absent.
fn integer(node: &NodeProto, name: &str) -> i64 {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(0, |attribute| attribute.i)
}

/// Packs the weight of a node.
fn pack(
    tensors: &Initializers<'_>,
    data: &DataFile,
    node: &NodeProto,
) -> TractResult<(PackedLayout, Panels)> {
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").map_or(1, |axis| axis.i);
    let [codes, scales, zero_points @ ..] = &*node.input else { bail!("has no scales") };
    let (codes, scales) = (tensors.get(codes)?, tensors.get(scales)?);
    let zero_points = zero_points.first().filter(|name| !name.is_empty());
    let zero_points = zero_points.map(|name| tensors.get(name)).transpose()?;
    let element = code_element(codes)?;
    let [inputs, outputs] = *codes.dims else {
        bail!("has the shape {:?}; only matrices can be", codes.dims)
    };
    ensure!(matches!(axis, 0 | -2), "has groups along axis {axis}; only 0 can be");
    let bits = if is_4_bit(element) { 4 } else { 8 };
    let layout = PackedLayout {
        experts: 1,
        outputs: usize::try_from(outputs)?,
        inputs: usize::try_from(inputs)?,
        scheme: PackedLayout::scheme(bits, integer(node, "block_size"), zero_points.is_some())?,
        order: RowOrder::AsStored,
    };
    let stored = StoredWeight {
        codes: &data.bytes(codes)?,
        is_signed: is_signed(element),
        scales: read_scales(scales, data).with_context(|| scales.name.clone())?,
        zero_points: read_zero_points(zero_points, data, element, &layout)?,
    };
    Ok((layout, Panels::pack(layout, stored)?))
}

/// The type of a tensor of codes.
fn code_element(tensor: &TensorProto) -> TractResult<ElementType> {
    match ElementType::from_onnx(tensor.data_type) {
        Some(element) if is_4_bit(element) || matches!(element, ElementType::Int8 | ElementType::UInt8) => {
            Ok(element)
        }
        Some(other) => bail!("has elements of type {other}; only int4, uint4, int8 and uint8 can be"),
        None => bail!("has elements of the unknown type {}", tensor.data_type),
    }
}

fn is_4_bit(element: ElementType) -> bool {
    matches!(element, ElementType::Int4 | ElementType::UInt4)
}

fn is_signed(element: ElementType) -> bool {
    matches!(element, ElementType::Int4 | ElementType::Int8)
}

/// The zero points of a weight, one byte each, moved by half the range if they have a sign. Without a tensor, codes with a
/// sign count from half the range of panels, which is the default there, and the others from 0.
fn read_zero_points(
    tensor: Option<&TensorProto>,
    data: &DataFile,
    element: ElementType,
    layout: &PackedLayout,
) -> TractResult<Option<Vec<u8>>> {
    let count = layout.scheme.groups(layout.inputs) * layout.outputs;
    let Some(tensor) = tensor else { return Ok((!is_signed(element)).then(|| vec![0; count])) };
    let half = if is_signed(element) { layout.scheme.format.default_zero_point() } else { 0 };
    let read = || {
        let found = code_element(tensor)?;
        ensure!(found == element, "has the type {found}, and the codes have {element}");
        let mut codes = element.decode_codes(&data.bytes(tensor)?).context("holds no codes")?;
        // an odd number of 4-bit codes leaves half a byte
        codes.truncate(count.max(codes.len().saturating_sub(1)));
        codes.into_iter().map(|code| Ok(u8::try_from(code + i16::from(half))?)).collect()
    };
    read().map(Some).with_context(|| tensor.name.clone())
}

fn read_scales(tensor: &TensorProto, data: &DataFile) -> TractResult<Vec<f32>> {
    let bytes = data.bytes(tensor)?;
    let scales = ElementType::from_onnx(tensor.data_type).and_then(|element| element.decode_floats(&bytes));
    scales
        .with_context(|| format!("has elements of type {}; only FLOAT and FLOAT16 can be", tensor.data_type))
}

/// Rejects remaining 4-bit tensors, whose use is not supported.
fn refuse_4_bits(graph: &GraphProto) -> TractResult<()> {
    let holds_4_bits = |tensor: &&TensorProto| code_element(tensor).is_ok_and(is_4_bit);
    match graph.initializer.iter().find(holds_4_bits) {
        Some(tensor) => bail!(
            "{} holds 4-bit elements, which tract can only multiply with, as a weight in groups",
            tensor.name
        ),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
