//! Takes quantized weights out of a graph before tract parses it.
//!
//! tract supports neither 4-bit elements nor scales per group. Every `DequantizeLinear` of a grouped weight and the `MatMul`
//! after it become one node of an operator of this crate (`product.rs`), and the weight is packed in panels.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use jetmoe_format::{ElementType, PackedLayout, RowOrder};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tract_onnx::prelude::{TractError, TractResult};
use tract_onnx::tract_hir::internal::{TractErrorContext, bail, ensure};

use crate::data_file::DataFile;
use crate::product::{self, Panels, StoredWeight};

/// Rewrites every product with a quantized weight. Returns the weights, in the order of the attribute
/// [`product::WEIGHT`].
pub(crate) fn rewrite(graph: &mut GraphProto, data: &DataFile) -> TractResult<Vec<Arc<Panels>>> {
    let (dequantize_nodes, mut nodes): (Vec<_>, Vec<_>) = graph.node.drain(..).partition(is_block_dequantize);
    let tensors: HashMap<&str, &TensorProto> =
        graph.initializer.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect();
    let mut weights = Vec::new();
    let mut dequantized = HashMap::new();
    for node in &dequantize_nodes {
        let [output] = &*node.output else { bail!("a DequantizeLinear gives {} values", node.output.len()) };
        let (layout, panels) = pack(&tensors, data, node)
            .with_context(|| format!("the quantized weight {}", node.input.first().unwrap_or(output)))?;
        let attributes = [
            (product::WEIGHT, weights.len()),
            (product::INPUTS, layout.inputs),
            (product::OUTPUTS, layout.outputs),
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
            node.attribute = attributes.iter().map(|(name, value)| integer_attribute(name, *value)).collect();
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

fn integer_attribute(name: &str, value: usize) -> AttributeProto {
    AttributeProto {
        name: name.to_owned(),
        // sizes in memory fit
        i: value as i64,
        r#type: AttributeType::Int as i32,
        ..AttributeProto::default()
    }
}

/// Packs the weight of a node.
fn pack(
    tensors: &HashMap<&str, &TensorProto>,
    data: &DataFile,
    node: &NodeProto,
) -> TractResult<(PackedLayout, Panels)> {
    let axis = node.attribute.iter().find(|attribute| attribute.name == "axis").map_or(1, |axis| axis.i);
    let [codes, scales, zero_points @ ..] = &*node.input else { bail!("has no scales") };
    let tensor = |name: &String| {
        let tensor = tensors.get(name.as_str()).copied();
        tensor.ok_or_else(|| TractError::msg(format!("{name} is not stored with the graph")))
    };
    let (codes, scales) = (tensor(codes)?, tensor(scales)?);
    let zero_points = zero_points.first().filter(|name| !name.is_empty()).map(tensor).transpose()?;
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
    let group_count = layout.inputs.div_ceil(layout.scheme.group_size) * layout.outputs;
    let zero_points = match zero_points {
        Some(tensor) => {
            Some(read_zero_points(tensor, data, element, group_count).with_context(|| tensor.name.clone())?)
        }
        // Codes with a sign count from half the range of panels, which is the default; the others from 0.
        None => (!is_signed(element)).then(|| vec![0; group_count]),
    };
    let stored = StoredWeight {
        codes: &data.bytes(codes)?,
        is_signed: is_signed(element),
        scales: read_scales(scales, data).with_context(|| scales.name.clone())?,
        zero_points,
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

/// `count` zero points, one byte each, moved by half the range if they have a sign.
fn read_zero_points(
    tensor: &TensorProto,
    data: &DataFile,
    element: ElementType,
    count: usize,
) -> TractResult<Vec<u8>> {
    let found = code_element(tensor)?;
    ensure!(found == element, "has the type {found}, and the codes have {element}");
    let mut codes = element.decode_codes(&data.bytes(tensor)?).context("holds no codes")?;
    // an odd number of 4-bit codes leaves half a byte
    codes.truncate(count.max(codes.len().saturating_sub(1)));
    let half = match (is_signed(element), is_4_bit(element)) {
        (false, _) => 0,
        (true, true) => 8,
        (true, false) => 128,
    };
    codes.into_iter().map(|code| Ok(u8::try_from(code + half)?)).collect()
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
