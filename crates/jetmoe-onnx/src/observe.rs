//! Adds outputs to a copy of a graph in memory, so that inner values of it can be read: what attention masks, and what the
//! routers choose. The nodes of the graph stay as they are, and new ones only read their results.

mod mask;
mod routing;

use std::collections::BTreeSet;
use std::path::Path;

use jetmoe_artifact::{
    Axis, CacheUpdate, ElementType, GraphRecord, InputName, ObservedValue, OutputSpec, Signature,
};
use jetmoe_checkpoint::ModelConfig;

use crate::reader::decode;
use crate::{
    Attribute, AttributeType, DimensionValue, Error, Graph, Node, Result, ShapeDimension, Tensor,
    TensorShape, TensorType, Type, ValueInfo,
};

/// A graph with more outputs.
#[derive(Debug, Clone)]
pub struct ObservedGraph {
    /// The content of its file.
    pub graph: Vec<u8>,
    /// Its inputs and outputs.
    pub signature: Signature,
}

/// Adds the outputs for `observed` to a copy of a graph, the content of the file `path`, which the manifest of its artifact
/// describes as `record`. The result is for a backend: it passes no check of exported graphs.
///
/// # Errors
/// What is no ONNX model, and [`Error::NotObservable`] for a graph that does not have a value where exported graphs have it.
pub fn observe(
    path: &Path,
    bytes: &[u8],
    config: &ModelConfig,
    record: &GraphRecord,
    observed: &BTreeSet<ObservedValue>,
) -> Result<ObservedGraph> {
    let mut model = decode(path, bytes)?;
    let exported = record.signature(config);
    let signature = exported.clone().with_observed(config, observed);
    let added = &signature.outputs[exported.outputs.len()..];
    let not_observable = |Missing(value)| Error::NotObservable { path: path.to_owned(), value };
    if let Some(graph) = &mut model.graph {
        let mut editor = Editor { graph, nodes: Vec::new(), tensors: Vec::new() };
        for value in observed {
            match (value, signature.cache_update) {
                (ObservedValue::AttentionMask, CacheUpdate::Append) => mask::add_bias(&mut editor, config),
                (ObservedValue::AttentionMask, CacheUpdate::InPlace) => {
                    mask::add_operator(&mut editor, config)
                }
                (ObservedValue::AttentionMask, CacheUpdate::InPlaceByMask) => {
                    mask::add_custom_operator(&mut editor, config)
                }
                (ObservedValue::Routing, _) => {
                    routing::add(&mut editor, config, signature.cache_update, added)
                }
            }
            .map_err(not_observable)?;
        }
        editor.finish(added);
    }
    Ok(ObservedGraph { graph: model.to_bytes(), signature })
}

/// A value that the graph does not have, in words.
#[derive(Debug)]
struct Missing(String);

type Found<T = ()> = std::result::Result<T, Missing>;

/// A graph with the nodes and constants to be added.
struct Editor<'g> {
    graph: &'g mut Graph,
    nodes: Vec<Node>,
    tensors: Vec<Tensor>,
}

/// Beginning of the names of added values; no scope of an exported graph has it.
const SCOPE: &str = "observed";

impl Editor<'_> {
    /// The node of the exported graph that a predicate accepts, among those of a scope. `what` names it.
    fn find(&self, scope: &str, what: &str, accept: impl Fn(&Node) -> bool) -> Found<&Node> {
        let mut nodes = self.graph.node.iter();
        let is_inside = |node: &Node| node.name().strip_prefix(scope).is_some_and(|rest| !rest.contains('/'));
        nodes
            .find(|node| is_inside(node) && accept(node))
            .ok_or_else(|| Missing(format!("no {what} in {}", scope.trim_end_matches('/'))))
    }

    /// Adds a node with one result; returns the name of that.
    fn node(&mut self, operator: &str, operands: &[&str], attributes: Vec<Attribute>) -> String {
        let result = format!("{SCOPE}/{operator}_{}", self.nodes.len());
        self.named_node(operator, operands, attributes, vec![result.clone()]);
        result
    }

    fn named_node(
        &mut self,
        operator: &str,
        operands: &[&str],
        attribute: Vec<Attribute>,
        output: Vec<String>,
    ) {
        self.nodes.push(Node {
            input: operands.iter().map(|operand| (*operand).to_owned()).collect(),
            name: output.first().cloned(),
            output,
            op_type: Some(operator.to_owned()),
            attribute,
            domain: None,
        });
    }

    /// Adds an int64 constant: a vector, or a scalar without dimensions.
    fn integers(&mut self, values: &[i64], dims: Vec<i64>) -> String {
        let name = format!("{SCOPE}/constant_{}", self.tensors.len());
        self.tensors.push(Tensor {
            dims,
            data_type: Some(ElementType::Int64 as i32),
            name: Some(name.clone()),
            raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
            ..Tensor::default()
        });
        name
    }

    /// Adds a vector of bytes.
    fn bytes(&mut self, values: &[u8]) -> String {
        let name = format!("{SCOPE}/constant_{}", self.tensors.len());
        self.tensors.push(Tensor {
            dims: vec![values.len() as i64],
            data_type: Some(ElementType::UInt8 as i32),
            name: Some(name.clone()),
            raw_data: Some(values.to_vec()),
            ..Tensor::default()
        });
        name
    }

    fn vector(&mut self, values: &[i64]) -> String {
        self.integers(values, vec![values.len() as i64])
    }

    fn scalar(&mut self, value: i64) -> String {
        self.integers(&[value], Vec::new())
    }

    /// Sizes of some dimensions of an input: `[end - start]`.
    fn sizes(&mut self, input: InputName, start: i64, end: i64) -> String {
        let attributes = vec![integer("start", start), integer("end", end)];
        self.node("Shape", &[&input.to_string()], attributes)
    }

    fn cast(&mut self, value: &str, element: ElementType) -> String {
        self.node("Cast", &[value], vec![integer("to", element as i64)])
    }

    fn concat(&mut self, values: &[&str], axis: i64) -> String {
        self.node("Concat", values, vec![integer("axis", axis)])
    }

    fn unsqueeze(&mut self, value: &str, axis: i64) -> String {
        let axes = self.vector(&[axis]);
        self.node("Unsqueeze", &[value, &axes], Vec::new())
    }

    /// The only element of a vector, as a scalar.
    fn squeeze(&mut self, vector: &str) -> String {
        let axes = self.vector(&[0]);
        self.node("Squeeze", &[vector, &axes], Vec::new())
    }

    /// The numbers from 0 to a length `[1]`, without it.
    fn range(&mut self, length: &str) -> String {
        let length = self.squeeze(length);
        let (start, step) = (self.scalar(0), self.scalar(1));
        self.node("Range", &[&start, &length, &step], Vec::new())
    }

    /// Zeros of a shape, which is a value.
    fn zeros(&mut self, shape: &str, element: ElementType) -> String {
        let zero = Tensor {
            dims: vec![1],
            data_type: Some(element as i32),
            raw_data: Some(vec![0; element.bytes(1) as usize]),
            ..Tensor::default()
        };
        let attribute = Attribute {
            name: Some("value".to_owned()),
            t: Some(zero),
            r#type: Some(AttributeType::Tensor as i32),
            ..Attribute::default()
        };
        self.node("ConstantOfShape", &[shape], vec![attribute])
    }

    /// Appends the nodes, which come after all that they read, and declares the outputs.
    fn finish(self, added: &[OutputSpec]) {
        self.graph.node.extend(self.nodes);
        self.graph.initializer.extend(self.tensors);
        self.graph.output.extend(added.iter().map(value_info));
    }
}

fn integer(name: &str, value: i64) -> Attribute {
    Attribute {
        name: Some(name.to_owned()),
        i: Some(value),
        r#type: Some(AttributeType::Int as i32),
        ..Attribute::default()
    }
}

fn text(name: &str, value: &str) -> Attribute {
    Attribute {
        name: Some(name.to_owned()),
        s: Some(value.as_bytes().to_vec()),
        r#type: Some(AttributeType::String as i32),
        ..Attribute::default()
    }
}

fn value_info(output: &OutputSpec) -> ValueInfo {
    let dim = output.shape.iter().map(|axis| ShapeDimension {
        value: Some(match axis {
            Axis::Fixed(size) => DimensionValue::DimValue(*size as i64),
            axis => DimensionValue::DimParam(axis.to_string()),
        }),
    });
    let shape = Some(TensorShape { dim: dim.collect() });
    let tensor_type = TensorType { elem_type: Some(output.element as i32), shape };
    ValueInfo { name: Some(output.name.to_string()), r#type: Some(Type { tensor_type: Some(tensor_type) }) }
}
