//! A graph as text, for review and for comparison with the files under `graphs/`.

use std::fmt::Write as _;

use jetmoe_format::ElementType;

use crate::graph::{Attribute, Elements, Graph, ValueId};

/// Renders a graph: inputs, outputs, weights, then one line per node in the order of execution, grouped by scope.
/// Constants are inline; results have their type and shape:
///
/// ```text
/// layers.0/self_attention/router
///   MatMul = MatMul(layers.0/input_layernorm/Mul_1, model.layers.0….router.layer.weight.T)
///       float32[batch_size * sequence_length, 8]
/// ```
pub fn render(graph: &Graph) -> String {
    let mut text = format!(
        "task {}, precision {}, profile {}, opset {}\n",
        graph.task, graph.precision, graph.profile, graph.opset
    );
    section(&mut text, "inputs", graph, &graph.inputs);
    section(&mut text, "outputs", graph, &graph.outputs);
    let weights: Vec<ValueId> = graph.weights.iter().flat_map(|stored| stored.tensors.clone()).collect();
    section(&mut text, "weights", graph, &weights);
    let views: Vec<ValueId> =
        graph.weights.iter().flat_map(|stored| stored.views.iter().map(|(value, _)| *value)).collect();
    if !views.is_empty() {
        section(&mut text, "other readings of the same bytes", graph, &views);
    }
    nodes(&mut text, graph);
    text
}

fn section(text: &mut String, title: &str, graph: &Graph, values: &[ValueId]) {
    line(text, format_args!("\n{title}"));
    for value in values {
        let facts = &graph.values[*value];
        line(text, format_args!("  {}  {}{}", facts.name, facts.element, facts.shape));
    }
}

fn nodes(text: &mut String, graph: &Graph) {
    let mut current = None;
    for node in &graph.nodes {
        let (scope, _) = node.name.rsplit_once('/').unwrap_or(("graph", &node.name));
        if current != Some(scope) {
            line(text, format_args!("\n{scope}"));
            current = Some(scope);
        }
        let local = |id: &ValueId| {
            let name = &graph.values[*id].name;
            name.strip_prefix(scope).and_then(|rest| rest.strip_prefix('/')).unwrap_or(name).to_owned()
        };
        let results: Vec<String> = node.outputs.iter().map(local).collect();
        let mut operands: Vec<String> =
            node.inputs.iter().map(|id| constant(graph, *id).unwrap_or_else(|| local(id))).collect();
        operands.extend(node.attributes.iter().map(|(name, value)| match value {
            Attribute::Integer(number) => format!("{name}={number}"),
            Attribute::Float(number) => format!("{name}={number:?}"),
            Attribute::Integers(numbers) => format!("{name}={numbers:?}"),
            Attribute::Text(text) => format!("{name}={text}"),
            Attribute::Zero(ElementType::Float32) => format!("{name}=[0.0]"),
            Attribute::Zero(element) => format!("{name}={element}[0.0]"),
        }));
        line(text, format_args!("  {} = {}({})", results.join(", "), node.operator, operands.join(", ")));
        for id in &node.outputs {
            let facts = &graph.values[*id];
            line(text, format_args!("      {}{}", facts.element, facts.shape));
        }
    }
}

/// The value of a small constant, as a reader would write it; `None` for the default of an input, which has a name.
fn constant(graph: &Graph, id: ValueId) -> Option<String> {
    if graph.inputs.contains(&id) {
        return None;
    }
    let constant = graph.constants.iter().find(|constant| constant.value == id)?;
    let is_scalar = graph.values[id].shape.rank() == 0;
    match &constant.elements {
        Elements::Float32(values) if is_scalar => values.first().map(|value| format!("{value:?}")),
        Elements::Float16(values) if is_scalar => values.first().map(|value| format!("{:?}", value.to_f32())),
        Elements::Int64(values) if is_scalar => values.first().map(i64::to_string),
        Elements::Float32(values) => sequence(values),
        Elements::Float16(values) => sequence(values),
        Elements::Int64(values) => sequence(values),
    }
}

/// All values, or the first ones of many.
fn sequence<T: std::fmt::Debug>(values: &[T]) -> Option<String> {
    const SHOWN: usize = 64;
    match values.len() {
        ..=SHOWN => Some(format!("{values:?}")),
        count => Some(format!("{:?} and so on to {:?}, {count} in all", &values[..4], values[count - 1])),
    }
}

fn line(text: &mut String, content: std::fmt::Arguments<'_>) {
    // writing to a string does not fail
    let _ = writeln!(text, "{content}");
}
