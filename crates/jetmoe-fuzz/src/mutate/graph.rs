//! Mutations of ONNX graphs, by their messages: nodes, attributes, operands, initializers, constants, inputs and outputs.

use jetmoe_onnx::{
    Attribute, DataType, DimensionValue, ExportedOperator, Graph, Model, Node, StringStringEntry, Tensor,
    ValueInfo,
};

use crate::Choices;

/// Changes one thing of a graph.
pub fn mutate_graph(model: &mut Model, choices: &mut Choices<'_>) {
    match choices.below(16) {
        0 => mutate_header(model, choices),
        choice => {
            let Some(graph) = &mut model.graph else { return };
            match choice {
                1..4 => mutate_operand(graph, choices),
                4..7 => mutate_attribute(graph, choices),
                7..9 => mutate_nodes(graph, choices),
                9..12 => mutate_constant(graph, choices),
                12..15 => mutate_initializer(graph, choices),
                _ => mutate_value(graph, choices),
            }
        }
    }
}

fn mutate_header(model: &mut Model, choices: &mut Choices<'_>) {
    match choices.below(4) {
        0 => model.ir_version = model.ir_version.map(|version| choices.integer(version)),
        1 => {
            if let Some(set) = choices.pick_mut(&mut model.opset_import) {
                set.version = set.version.map(|version| choices.integer(version));
            }
        }
        2 => {
            if let Some(entry) = choices.pick_mut(&mut model.metadata_props) {
                entry.value = Some(choices.text(entry.value()));
            }
        }
        _ => {
            let set = choices.pick(&model.opset_import).cloned();
            model.opset_import.extend(set);
        }
    }
}

/// Names of all values: inputs, initializers, results.
fn values(graph: &Graph) -> Vec<String> {
    let inputs = graph.input.iter().map(ValueInfo::name);
    let initializers = graph.initializer.iter().map(Tensor::name);
    let results = graph.node.iter().flat_map(|node| node.output.iter().map(String::as_str));
    inputs.chain(initializers).chain(results).map(str::to_owned).collect()
}

fn mutate_operand(graph: &mut Graph, choices: &mut Choices<'_>) {
    let values = values(graph);
    let place = choices.below(graph.node.len());
    // mostly a value that exists then
    let near: Vec<String> = graph.node
        [place.saturating_sub(8).min(graph.node.len())..place.min(graph.node.len())]
        .iter()
        .flat_map(|node| node.output.iter().chain(&node.input).cloned())
        .collect();
    let Some(node) = graph.node.get_mut(place) else { return };
    let operand = choices.below(node.input.len());
    let name = match choices.below(8) {
        0..4 => choices.pick(&near).cloned(),
        4..6 => choices.pick(&values).cloned(),
        6 => choices.pick(&node.output).cloned(),
        _ => node.input.get(operand).map(|name| choices.text(name)),
    };
    let Some(name) = name else { return };
    match choices.below(8) {
        0 => node.input.push(name),
        1 => drop(node.input.pop()),
        2 => {
            let last = choices.below(node.input.len());
            if operand < node.input.len() {
                node.input.swap(operand, last);
            }
        }
        3 => {
            if let Some(result) = choices.pick_mut(&mut node.output) {
                *result = name;
            }
        }
        _ => {
            if let Some(operand) = node.input.get_mut(operand) {
                *operand = name;
            }
        }
    }
}

fn mutate_attribute(graph: &mut Graph, choices: &mut Choices<'_>) {
    let mut nodes: Vec<&mut Node> = graph.node.iter_mut().filter(|node| !node.attribute.is_empty()).collect();
    let Some(node) = choices.pick_mut(&mut nodes) else { return };
    let place = choices.below(node.attribute.len());
    match choices.below(10) {
        0 => drop(node.attribute.remove(place)),
        1 => node.attribute.push(node.attribute[place].clone()),
        2 => node.attribute[place].name = Some(choices.text(node.attribute[place].name())),
        3 => node.attribute[place].r#type = Some(choices.below(12) as i32),
        _ => mutate_attribute_value(&mut node.attribute[place], choices),
    }
}

fn mutate_attribute_value(attribute: &mut Attribute, choices: &mut Choices<'_>) {
    const FLOATS: [f32; 8] = [0.0, -0.0, 1.0, -1.0, f32::NAN, f32::INFINITY, f32::MIN_POSITIVE, f32::MAX];
    if let Some(integer) = &mut attribute.i {
        *integer = choices.integer(*integer);
    } else if attribute.f.is_some() {
        attribute.f = choices.pick(&FLOATS).copied();
    } else if let Some(text) = &mut attribute.s {
        *text = choices.text(&String::from_utf8_lossy(text)).into_bytes();
    } else if let Some(tensor) = &mut attribute.t {
        mutate_tensor(tensor, choices);
    } else {
        match choices.below(3) {
            0 => attribute.ints.push(choices.below(5) as i64),
            1 => attribute.ints.reverse(),
            _ => {
                if let Some(integer) = choices.pick_mut(&mut attribute.ints) {
                    *integer = choices.integer(*integer);
                }
            }
        }
    }
}

fn mutate_nodes(graph: &mut Graph, choices: &mut Choices<'_>) {
    let place = choices.below(graph.node.len());
    let other = choices.below(graph.node.len());
    let Some(node) = graph.node.get(place).cloned() else { return };
    match choices.below(6) {
        0 => drop(graph.node.remove(place)),
        1 => graph.node.insert(other, node),
        2 => graph.node.swap(place, other),
        3 => graph.node[place].name = Some(choices.text(node.name())),
        _ => replace_operator(&mut graph.node[place], choices),
    }
}

/// Takes another operator, mostly one with as many operands and results.
fn replace_operator(node: &mut Node, choices: &mut Choices<'_>) {
    let mut operators = ExportedOperator::all();
    if !choices.once_in(8) {
        operators.retain(|operator| {
            operator.least_operands <= node.input.len()
                && operator.most_operands.is_none_or(|most| node.input.len() <= most)
                && operator.results == node.output.len()
                && operator.attributes.len() == node.attribute.len()
        });
    }
    let Some(operator) = choices.pick(&operators) else { return };
    node.op_type = Some(operator.name.to_owned());
    node.domain = Some(operator.domain.to_owned()).filter(|domain| !domain.is_empty());
    for (attribute, (name, _)) in node.attribute.iter_mut().zip(&operator.attributes) {
        attribute.name = Some((*name).to_owned());
    }
}

/// Changes elements of a constant in the file: shapes, axes, counts, scalars.
fn mutate_constant(graph: &mut Graph, choices: &mut Choices<'_>) {
    let is_constant = |tensor: &&mut Tensor| tensor.raw_data.is_some();
    let mut constants: Vec<&mut Tensor> = graph.initializer.iter_mut().filter(is_constant).collect();
    if let Some(tensor) = choices.pick_mut(&mut constants) {
        mutate_elements(tensor, choices);
    }
}

fn mutate_elements(tensor: &mut Tensor, choices: &mut Choices<'_>) {
    const FLOATS: [f32; 6] = [0.0, -1.0, f32::NAN, f32::INFINITY, f32::MAX, 1e-45];
    let Some(bytes) = &mut tensor.raw_data else { return };
    if tensor.data_type == Some(DataType::Int64 as i32) {
        if let Some(element) = choices.pick_mut(bytes.as_chunks_mut::<8>().0) {
            *element = choices.integer(i64::from_le_bytes(*element)).to_le_bytes();
        }
    } else if tensor.data_type == Some(DataType::Float as i32) {
        if let Some(element) = choices.pick_mut(bytes.as_chunks_mut::<4>().0) {
            *element = choices.pick(&FLOATS).copied().unwrap_or(0.0).to_le_bytes();
        }
    } else if let Some(element) = choices.pick_mut(bytes) {
        *element = choices.below(256) as u8;
    }
}

fn mutate_initializer(graph: &mut Graph, choices: &mut Choices<'_>) {
    let place = choices.below(graph.initializer.len());
    let other = choices.pick(&graph.initializer).cloned().unwrap_or_default();
    let Some(tensor) = graph.initializer.get_mut(place) else { return };
    match choices.below(8) {
        0 => drop(graph.initializer.remove(place)),
        1 => {
            let copy = tensor.clone();
            graph.initializer.push(copy);
        }
        2 => tensor.name = other.name,
        // the elements of another one
        3 => {
            let name = tensor.name.take();
            *tensor = Tensor { name, ..other };
        }
        4..6 => mutate_external(tensor, &other, choices),
        _ => mutate_tensor(tensor, choices),
    }
}

/// Changes shape, type or elements.
fn mutate_tensor(tensor: &mut Tensor, choices: &mut Choices<'_>) {
    match choices.below(6) {
        0 => tensor.dims.reverse(),
        1 => {
            // as many elements
            let product = tensor.dims.iter().copied().reduce(i64::wrapping_mul);
            tensor.dims = product.into_iter().collect();
        }
        2 => tensor.dims.push(1),
        3 => {
            if let Some(size) = choices.pick_mut(&mut tensor.dims) {
                *size = choices.integer(*size);
            }
        }
        4 => tensor.data_type = Some(choices.below(24) as i32),
        _ => mutate_elements(tensor, choices),
    }
}

/// Changes where the elements of a weight are.
fn mutate_external(tensor: &mut Tensor, other: &Tensor, choices: &mut Choices<'_>) {
    let place = choices.below(tensor.external_data.len());
    let copied = other.external_data.get(place).cloned();
    let Some(entry) = tensor.external_data.get_mut(place) else { return };
    match choices.below(6) {
        0..2 => *entry = copied.unwrap_or_default(),
        2 => {
            let number = entry.value().parse::<i64>().unwrap_or(0);
            entry.value = Some(choices.integer(number).to_string());
        }
        3 => entry.value = Some(choices.text(entry.value())),
        4 => {
            let added =
                StringStringEntry { key: Some(choices.text(entry.key())), value: entry.value.clone() };
            tensor.external_data.push(added);
        }
        _ => tensor.data_location = Some(choices.below(4) as i32),
    }
}

/// Changes an input or output.
fn mutate_value(graph: &mut Graph, choices: &mut Choices<'_>) {
    let values = if choices.once_in(2) { &mut graph.input } else { &mut graph.output };
    let place = choices.below(values.len());
    let Some(value) = values.get_mut(place) else { return };
    let name = choices.text(value.name());
    let choice = choices.below(6);
    if let Some(tensor) = value.r#type.as_mut().and_then(|kind| kind.tensor_type.as_mut()) {
        match choice {
            0 => tensor.elem_type = Some(choices.below(24) as i32),
            1 => tensor.shape = None,
            2 | 3 => {
                let mut none = Vec::new();
                let dimensions = tensor.shape.as_mut().map_or(&mut none, |shape| &mut shape.dim);
                if let Some(dimension) = choices.pick_mut(dimensions) {
                    dimension.value = match choices.below(3) {
                        0 => Some(DimensionValue::DimValue(choices.integer(1))),
                        1 => Some(DimensionValue::DimParam(name.clone())),
                        _ => None,
                    };
                }
            }
            _ => {}
        }
    }
    match choice {
        4 => value.name = Some(name),
        5 => drop(values.remove(place)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn model() -> Model {
        let tensor = |name: &str, data_type: DataType, raw_data: &[u8]| Tensor {
            dims: vec![raw_data.len() as i64 / 4],
            data_type: Some(data_type as i32),
            name: Some(name.to_owned()),
            raw_data: Some(raw_data.to_vec()),
            ..Tensor::default()
        };
        let attribute = Attribute { name: Some("axis".to_owned()), i: Some(0), ..Attribute::default() };
        let node = |operator: &str, input: [&str; 2], output: &str| Node {
            op_type: Some(operator.to_owned()),
            input: input.map(str::to_owned).to_vec(),
            output: vec![output.to_owned()],
            attribute: vec![attribute.clone()],
            ..Node::default()
        };
        let value = |name: &str| ValueInfo { name: Some(name.to_owned()), r#type: None };
        let graph = Graph {
            node: vec![node("Gather", ["w", "x"], "y"), node("Concat", ["x", "y"], "z")],
            initializer: vec![tensor("w", DataType::Float, &[0; 16]), tensor("s", DataType::Int64, &[0; 8])],
            input: vec![value("x")],
            output: vec![value("z")],
            ..Graph::default()
        };
        Model { ir_version: Some(10), graph: Some(graph), ..Model::default() }
    }

    #[test]
    fn most_seeds_change_a_graph() {
        let is_changed = |seed: &u64| {
            let mut changed = model();
            mutate_graph(&mut changed, &mut Choices::of_seed(*seed));
            changed.to_bytes() != model().to_bytes()
        };
        assert!((0..1000).filter(is_changed).count() > 600);
    }

    #[test]
    fn a_graph_that_is_mutated_again_and_again_can_still_be_mutated() {
        for seed in 0..50 {
            let (mut model, mut choices) = (model(), Choices::of_seed(seed));
            for _ in 0..200 {
                mutate_graph(&mut model, &mut choices);
            }
        }
    }
}
