//! Graphs for a GPU: no size depends on data, and no value changes sides between the host and the GPU inside of the graph.

use std::collections::HashMap;

use jetmoe_artifact::{InputName, Precision, Profile, Task};
use jetmoe_graph::GraphOptions;
use jetmoe_onnx::Node;

use crate::{BY_DEFAULT, Way, Written, golden};

/// Where a value is while the graph runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Side {
    Host,
    Gpu,
    /// A constant, which ONNX Runtime copies once; or an input, which the caller puts where it is read.
    Any,
}

/// The operands that ONNX Runtime's CUDA kernels read on the host, `OrtMemTypeCPUInput` of their registration in
/// <https://github.com/microsoft/onnxruntime/tree/main/onnxruntime/core/providers/cuda>.
fn host_operands(operator: &str) -> &'static [usize] {
    match operator {
        "ConstantOfShape" => &[0],
        "Reshape" | "Squeeze" | "Unsqueeze" | "CumSum" | "ReduceMax" | "ReduceMean" | "ReduceSum"
        | "Split" | "TopK" => &[1],
        "Range" => &[0, 1, 2],
        "Slice" => &[1, 2, 3],
        "GroupQueryAttention" => &[6],
        _ => &[],
    }
}

/// The side of a node's results. Sizes are computed on the host, from shapes; everything else on the GPU.
fn side_of(node: &Node, operands: &[Side]) -> Side {
    match node.op_type() {
        "Shape" => Side::Host,
        "ConstantOfShape" | "Range" => Side::Gpu,
        _ if operands.contains(&Side::Host) && !operands.contains(&Side::Gpu) => Side::Host,
        _ => Side::Gpu,
    }
}

/// The nodes that have as many results as the data ask for.
fn sizes_of_data(written: &Written) -> usize {
    written.graph().node.iter().filter(|node| node.op_type() == "NonZero").count()
}

fn check(written: &Written, what: &str) {
    assert_eq!(sizes_of_data(written), 0, "{what}");
    let graph = written.graph();
    let mut sides: HashMap<&str, Side> = HashMap::new();
    sides.extend(graph.initializer.iter().map(|tensor| (tensor.name(), Side::Any)));
    for input in &graph.input {
        // the caller gives it from the host, and only sizes depend on it
        let is_size = input.name() == InputName::LogitsToKeep.to_string();
        sides.insert(input.name(), if is_size { Side::Host } else { Side::Any });
    }
    for node in &graph.node {
        let name = node.name();
        let operands: Vec<Side> = node.input.iter().map(|operand| sides[operand.as_str()]).collect();
        let of_data =
            operands.iter().enumerate().filter(|(place, _)| !host_operands(node.op_type()).contains(place));
        let of_data: Vec<Side> = of_data.map(|(_, side)| *side).collect();
        let side = side_of(node, &of_data);
        for (place, operand) in operands.iter().enumerate() {
            let is_read_on_host = side == Side::Host || host_operands(node.op_type()).contains(&place);
            // a shape is known on either side
            let is_free = *operand == Side::Any || node.op_type() == "Shape";
            let reads = if is_read_on_host { Side::Host } else { Side::Gpu };
            assert!(
                is_free || *operand == reads,
                "{what}: {name} ({}) copies operand {place}",
                node.op_type()
            );
        }
        sides.extend(node.output.iter().map(|result| (result.as_str(), side)));
    }
}

#[test]
fn a_graph_for_a_gpu_has_no_size_that_depends_on_data_and_copies_nothing_inside() {
    for precision in Precision::ALL {
        for name in ["tiny", "odd"] {
            let written = Way::new(*precision, Profile::Gpu).write(&golden(name), &BY_DEFAULT).unwrap();
            check(&written, &format!("{name} {precision}"));
        }
        let tasks = [("tiny", Task::Backbone), ("classifier", Task::SequenceClassification)];
        for (name, task) in tasks {
            let options = GraphOptions { task, ..Way::new(*precision, Profile::Gpu).options(task) };
            let written = Written::of(&golden(name), &options, &BY_DEFAULT).unwrap();
            check(&written, &format!("{name} {task} {precision}"));
        }
    }
}

#[test]
fn other_graphs_have_such_sizes() {
    let written = Way::new(Precision::F16, Profile::OnnxRuntime).write(&golden("tiny"), &BY_DEFAULT).unwrap();
    // one for each expert and mixture
    let config = golden("tiny").config().clone();
    assert_eq!(sizes_of_data(&written), 2 * config.num_hidden_layers * config.num_local_experts);
}
