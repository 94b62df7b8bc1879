//! A graph as the messages of an ONNX file.

use jetmoe_format::DOMAIN;
use jetmoe_onnx::{self as onnx, MICROSOFT};

use crate::graph::{Attribute, Graph, ValueFacts, ValueId};
use crate::writer::FileRange;

/// The whole file; the weights are at `ranges` of the file `location`.
pub(crate) fn model(graph: &Graph, location: &str, ranges: &[Vec<FileRange>]) -> onnx::Model {
    let is_used = |domain: &&str| graph.nodes.iter().any(|node| node.operator.domain == *domain);
    let other_domains = [MICROSOFT, DOMAIN].into_iter().filter(is_used).map(|domain| (domain, 1));
    onnx::Model {
        ir_version: Some(graph.opset.ir_version()),
        producer_name: Some("jetmoe-export".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: Some(format!("JetMoE for {}", graph.task)),
        graph: Some(body(graph, location, ranges)),
        opset_import: [("", i64::from(graph.opset.version()))]
            .into_iter()
            .chain(other_domains)
            .map(|(domain, version)| onnx::OperatorSetId {
                domain: Some(domain.to_owned()),
                version: Some(version),
            })
            .collect(),
        metadata_props: onnx::metadata(graph.task, graph.precision, graph.profile),
    }
}

fn body(graph: &Graph, location: &str, ranges: &[Vec<FileRange>]) -> onnx::Graph {
    let name = |id: &ValueId| graph.values[*id].name.clone();
    let constants = graph.constants.iter().map(|constant| {
        let bytes = constant.elements.to_le_bytes();
        onnx::Tensor { raw_data: Some(bytes), ..tensor(&graph.values[constant.value]) }
    });
    let weights = graph.weights.iter().zip(ranges).flat_map(|(stored, ranges)| {
        let tensors = stored.tensors.iter().zip(ranges);
        let views = stored.views.iter().map(|(value, tensor)| (value, &ranges[*tensor]));
        tensors.chain(views).map(|(value, range)| onnx::Tensor {
            external_data: vec![
                entry("location", location.to_owned()),
                entry("offset", range.offset.to_string()),
                entry("length", range.length.to_string()),
            ],
            data_location: Some(onnx::DataLocation::External as i32),
            ..tensor(&graph.values[*value])
        })
    });
    onnx::Graph {
        name: Some(format!("jetmoe-{}", graph.task)),
        node: graph
            .nodes
            .iter()
            .map(|node| onnx::Node {
                input: node.inputs.iter().map(name).collect(),
                output: node.outputs.iter().map(name).collect(),
                name: Some(node.name.clone()),
                op_type: Some(node.operator.name.to_owned()),
                attribute: node.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
                domain: (!node.operator.domain.is_empty()).then(|| node.operator.domain.to_owned()),
            })
            .collect(),
        initializer: constants.chain(weights).collect(),
        input: graph.inputs.iter().map(|id| value_info(&graph.values[*id])).collect(),
        output: graph.outputs.iter().map(|id| value_info(&graph.values[*id])).collect(),
    }
}

/// Name, element type and dimensions of an initializer. Only the default of an input has an axis of any size, which is 0 there.
fn tensor(facts: &ValueFacts) -> onnx::Tensor {
    onnx::Tensor {
        dims: facts.shape.0.iter().map(|size| size.fixed().unwrap_or(0)).collect(),
        data_type: Some(facts.element as i32),
        name: Some(facts.name.clone()),
        ..onnx::Tensor::default()
    }
}

fn value_info(facts: &ValueFacts) -> onnx::ValueInfo {
    let dim = facts.shape.0.iter().map(|size| onnx::ShapeDimension {
        value: Some(match size.fixed() {
            Some(number) => onnx::DimensionValue::DimValue(number),
            None => onnx::DimensionValue::DimParam(size.to_string()),
        }),
    });
    let tensor_type = onnx::TensorType {
        elem_type: Some(facts.element as i32),
        shape: Some(onnx::TensorShape { dim: dim.collect() }),
    };
    onnx::ValueInfo {
        name: Some(facts.name.clone()),
        r#type: Some(onnx::Type { tensor_type: Some(tensor_type) }),
    }
}

fn attribute(name: &str, value: &Attribute) -> onnx::Attribute {
    let named = onnx::Attribute { name: Some(name.to_owned()), ..onnx::Attribute::default() };
    match value {
        Attribute::Integer(number) => {
            onnx::Attribute { i: Some(*number), r#type: Some(onnx::AttributeType::Int as i32), ..named }
        }
        Attribute::Float(number) => {
            onnx::Attribute { f: Some(*number), r#type: Some(onnx::AttributeType::Float as i32), ..named }
        }
        Attribute::Text(text) => onnx::Attribute {
            s: Some(text.as_bytes().to_vec()),
            r#type: Some(onnx::AttributeType::String as i32),
            ..named
        },
        Attribute::Zero(element) => onnx::Attribute {
            t: Some(onnx::Tensor {
                dims: vec![1],
                data_type: Some(*element as i32),
                raw_data: Some(vec![0; element.bytes(1) as usize]),
                ..onnx::Tensor::default()
            }),
            r#type: Some(onnx::AttributeType::Tensor as i32),
            ..named
        },
        Attribute::Integers(numbers) => {
            onnx::Attribute { ints: numbers.clone(), r#type: Some(onnx::AttributeType::Ints as i32), ..named }
        }
    }
}

fn entry(key: &str, value: String) -> onnx::StringStringEntry {
    onnx::StringStringEntry { key: Some(key.to_owned()), value: Some(value) }
}
