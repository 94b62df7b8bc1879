//! Quantized weights, brought into a form that tract takes.
//!
//! tract knows neither 4-bit elements nor scales by groups. So before it sees the graph, every `DequantizeLinear` that
//! restores a weight in groups and the `MatMul` behind it become one node of our own operator (`product.rs`), and the
//! codes become lists of bytes. The weights stay where they are, in the file and then in memory: as codes.

use std::collections::HashMap;

use tract_onnx::pb::{AttributeProto, GraphProto, NodeProto, TensorProto};
use tract_onnx::pb::{attribute_proto::AttributeType, tensor_proto::DataType};
use tract_onnx::prelude::{TractError, TractResult};
use tract_onnx::tract_hir::internal::{TractErrorContext, bail, ensure};

use crate::kernel::CodeType;
use crate::product;

/// A weight that a node restores, which `MatMul` nodes are then rewritten to.
struct Restored {
    /// Codes, scales and perhaps zero points.
    operands: Vec<String>,
    attributes: Vec<AttributeProto>,
}

/// Rewrites every product with a quantized weight.
pub(crate) fn rewrite(graph: &mut GraphProto) -> TractResult<()> {
    let (restoring, mut nodes): (Vec<_>, Vec<_>) = graph.node.drain(..).partition(restores_groups);
    let mut restored = HashMap::new();
    for node in restoring {
        let [output] = &*node.output else { bail!("a DequantizeLinear gives {} values", node.output.len()) };
        let weight = codes_as_bytes(graph, &nodes, &node)
            .with_context(|| format!("the quantized weight {}", node.input.first().unwrap_or(output)))?;
        restored.insert(output.clone(), weight);
    }
    for node in &mut nodes {
        let is_product = node.op_type == "MatMul";
        if let Some(weight) = node.input.get(1).filter(|_| is_product).and_then(|name| restored.get(name)) {
            node.op_type = product::OPERATOR.to_owned();
            node.input.truncate(1);
            node.input.extend(weight.operands.iter().cloned());
            node.attribute = weight.attributes.clone();
        }
        if let Some(name) = node.input.iter().find(|name| restored.contains_key(*name)) {
            bail!("{} takes the quantized weight {name}; only MatMul can, on its right side", node.op_type);
        }
    }
    if let Some(output) = graph.output.iter().find(|output| restored.contains_key(&output.name)) {
        bail!("the quantized weight {} is an output of the graph", output.name);
    }
    graph.node = nodes;
    share_equal_places(graph);
    refuse_4_bits(graph)
}

fn restores_groups(node: &NodeProto) -> bool {
    node.op_type == "DequantizeLinear" && integer(node, "block_size") > 0
}

/// An attribute; 0, which is ONNX's own default for `block_size`, where it is absent.
fn integer(node: &NodeProto, name: &str) -> i64 {
    node.attribute.iter().find(|attribute| attribute.name == name).map_or(0, |attribute| attribute.i)
}

/// Makes lists of bytes of the codes and zero points that a node restores a weight from.
fn codes_as_bytes(graph: &mut GraphProto, others: &[NodeProto], node: &NodeProto) -> TractResult<Restored> {
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
    Ok(Restored { operands, attributes: attributes.to_vec() })
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

/// Says of a tensor of codes that it is a list: of bytes that hold two codes each, or of the 8-bit codes themselves.
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

/// Keeps one of the tensors that are read in the same way from the same place of a file: an embedding table whose codes
/// the head multiplies with would else be loaded twice.
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

/// What is left in 4 bits is used in a way that tract cannot be helped with.
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
mod tests {
    use tract_onnx::pb::{ModelProto, StringStringEntryProto, ValueInfoProto};
    use tract_onnx::prelude::*;
    use tract_onnx::tract_hir::internal::ToDim;

    use super::*;

    fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> NodeProto {
        let attributes = attributes.iter().map(|(name, i)| AttributeProto {
            name: (*name).to_owned(),
            i: *i,
            r#type: AttributeType::Int as i32,
            ..AttributeProto::default()
        });
        NodeProto {
            op_type: operator.to_owned(),
            input: inputs.iter().map(|name| (*name).to_owned()).collect(),
            output: vec![output.to_owned()],
            attribute: attributes.collect(),
            ..NodeProto::default()
        }
    }

    fn tensor(name: &str, data_type: DataType, dims: &[i64], raw_data: Vec<u8>) -> TensorProto {
        TensorProto {
            name: name.to_owned(),
            data_type: data_type as i32,
            dims: dims.to_vec(),
            raw_data,
            ..TensorProto::default()
        }
    }

    fn value(name: &str) -> ValueInfoProto {
        ValueInfoProto { name: name.to_owned(), ..ValueInfoProto::default() }
    }

    /// `x · w` for a weight `[3, 3]`, 9 codes from −4 to 4 in groups of 2, in 4 bits.
    fn graph() -> GraphProto {
        let scales: Vec<u8> = [1f32, 1.0, 0.5, 2.0, 1.0, 0.5].iter().flat_map(|s| s.to_le_bytes()).collect();
        GraphProto {
            node: vec![
                node("DequantizeLinear", &["codes", "scales"], "w", &[("axis", 0), ("block_size", 2)]),
                node("MatMul", &["x", "w"], "y", &[]),
            ],
            initializer: vec![
                tensor("codes", DataType::Int4, &[3, 3], vec![0xDC, 0xFE, 0x10, 0x32, 0x04]),
                tensor("scales", DataType::Float, &[2, 3], scales),
            ],
            input: vec![value("x")],
            output: vec![value("y")],
            ..GraphProto::default()
        }
    }

    fn optimized(mut graph: GraphProto, element: DatumType) -> TractResult<TypedModel> {
        rewrite(&mut graph)?;
        // the type of an input comes with its fact
        graph.input.clear();
        let mut tract = tract_onnx::onnx();
        tract.op_register.insert(product::OPERATOR, product::parse);
        let proto = ModelProto { graph: Some(graph), ..ModelProto::default() };
        let mut model = tract.parse(&proto, None)?.model;
        let source = model.nodes().iter().find(|node| node.name == "x").map(|node| node.id);
        model.set_input_outlets(&[OutletId::new(source.unwrap(), 0)])?;
        let shape = [model.symbols.sym("rows").to_dim(), 3.to_dim()];
        model.set_input_fact(0, InferenceFact::dt_shape(element, shape))?;
        model.into_optimized()
    }

    fn run(graph: GraphProto, x: Tensor) -> Tensor {
        let plan = optimized(graph, x.datum_type()).unwrap();
        let outputs = plan.into_runnable().unwrap().run(tvec![x.into_tvalue()]).unwrap();
        outputs[0].clone().into_tensor()
    }

    /// `[1, 10, 100] · w`, where w is `[[-4, -3, -1], [-1, 0, 0.5], [4, 3, 2]]`.
    const PRODUCT: [[f32; 3]; 1] = [[386.0, 297.0, 204.0]];

    #[test]
    fn a_product_with_a_4_bit_weight_runs() {
        assert_eq!(run(graph(), tensor2(&[[1f32, 10.0, 100.0]])), tensor2(&PRODUCT));
    }

    #[test]
    fn no_rows_give_no_rows() {
        let found = run(graph(), Tensor::zero::<f32>(&[0, 3]).unwrap());
        assert_eq!(found.shape(), [0, 3]);
    }

    #[test]
    fn float16_stays_float16() {
        let mut graph = graph();
        let scales = [1f32, 1.0, 0.5, 2.0, 1.0, 0.5].map(half::f16::from_f32);
        let scales = scales.iter().flat_map(|scale| scale.to_le_bytes()).collect();
        graph.initializer[1] = tensor("scales", DataType::Float16, &[2, 3], scales);
        let half = |values: Tensor| values.cast_to::<f16>().unwrap().into_owned();
        let found = run(graph, half(tensor2(&[[1f32, 10.0, 100.0]])));
        assert_eq!(found, half(tensor2(&PRODUCT)));
    }

    #[test]
    fn zero_points_are_subtracted() {
        let mut graph = graph();
        let codes = vec![0x54, 0x76, 0x98, 0xBA, 0x0C];
        graph.initializer[0] = tensor("codes", DataType::Uint4, &[3, 3], codes);
        graph.initializer.push(tensor("zeros", DataType::Uint4, &[2, 3], vec![0x88; 3]));
        graph.node[0].input.push("zeros".to_owned());
        assert_eq!(run(graph, tensor2(&[[1f32, 10.0, 100.0]])), tensor2(&PRODUCT));
    }

    #[test]
    fn a_weight_stays_in_4_bits() {
        let model = optimized(graph(), f32::datum_type()).unwrap();
        let constants = model.nodes().iter().filter_map(|node| node.outputs[0].fact.konst.clone());
        let bytes: usize = constants.map(|tensor| tensor.len() * tensor.datum_type().size_of()).sum();
        assert_eq!(bytes, 5 + 6 * 4);
    }

    #[test]
    fn codes_that_are_also_looked_up_are_loaded_once() {
        let mut graph = graph();
        let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
        let place = [entry("location", "weights"), entry("offset", "0"), entry("length", "5")];
        graph.initializer[0].external_data = place.to_vec();
        let mut view = tensor("view", DataType::Uint8, &[5], Vec::new());
        view.external_data = place.to_vec();
        let mut other = tensor("other", DataType::Uint8, &[5], Vec::new());
        other.external_data = vec![entry("location", "weights"), entry("offset", "5"), entry("length", "5")];
        graph.initializer.extend([view, other]);
        graph.node.push(node("Gather", &["view", "places"], "bytes", &[]));
        rewrite(&mut graph).unwrap();
        let names: Vec<&str> = graph.initializer.iter().map(|tensor| tensor.name.as_str()).collect();
        assert_eq!(names, ["codes", "scales", "other"]);
        assert_eq!(graph.node[1].input, ["codes", "places"]);
    }

    #[test]
    fn what_cannot_run_is_named() {
        type Change = fn(&mut GraphProto);
        let cases: [(Change, &str); 9] = [
            (|graph| graph.node[0].attribute[0].i = 1, "codes: has groups along axis 1; only 0 can be"),
            (
                |graph| graph.node[1].input = vec!["w".into(), "x".into()],
                "MatMul takes the quantized weight w",
            ),
            (|graph| graph.node.push(node("Add", &["w", "x"], "z", &[])), "Add takes the quantized weight w"),
            (|graph| graph.output.push(value("w")), "the quantized weight w is an output"),
            (|graph| graph.initializer[0].dims = vec![9], "codes: has the shape [9]; only matrices can be"),
            (
                |graph| graph.initializer[0].data_type = DataType::Float as i32,
                "codes: has elements of type Float",
            ),
            (|graph| graph.initializer[0].name = "others".into(), "codes is not stored with the graph"),
            (
                |graph| graph.node.push(node("Gather", &["codes", "x"], "z", &[])),
                "codes: codes is also read by Gather",
            ),
            (
                |graph| graph.initializer.push(tensor("table", DataType::Uint4, &[2, 2], vec![0; 2])),
                "table holds 4-bit elements",
            ),
        ];
        for (damage, expected) in cases {
            let mut graph = graph();
            damage(&mut graph);
            let found = format!("{:#}", rewrite(&mut graph).unwrap_err());
            assert!(found.contains(expected), "{found:?} does not say {expected:?}");
        }
    }

    #[test]
    fn parts_of_a_weight_that_do_not_fit_together_are_refused() {
        let mut other_scales = graph();
        other_scales.initializer[1].dims = vec![1, 6];
        other_scales.initializer[0].dims = vec![3, 4];
        other_scales.initializer[0].raw_data.push(0);
        let error = optimized(other_scales, f32::datum_type()).unwrap_err();
        assert!(format!("{error:#}").contains("scales"), "{error:#}");
    }
}
