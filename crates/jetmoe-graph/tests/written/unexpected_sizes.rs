//! Integers that the check of a graph refuses: constants, and sizes in attributes that do not agree with the configuration and
//! with the weights.

use jetmoe_artifact::{Precision, Profile};
use jetmoe_onnx::Node;

use crate::unexpected::{Case, attribute, check_cases, node, operand, set, set_operand};

#[test]
fn integer_constants_that_no_graph_has() {
    let cases: &[Case] = &[
        (
            |graph| set_operand(graph, "Reshape", 1, &[1 << 40, -1]),
            "its operand 1 holds 1099511627776, at most 2147483647 expected",
        ),
        (|graph| set_operand(graph, "Reshape", 1, &[i64::MIN]), "its operand 1 holds -9223372036854775808"),
        (|graph| set_operand(graph, "TopK", 1, &[5]), "TopK: it takes the best 5, and config.json says 2"),
        (|graph| node(graph, "TopK").input[1] = "input_ids".to_owned(), "its operand 1 must be a weight"),
        (|graph| set_operand(graph, "Split", 1, &[0, 64]), "Split: it must make two equal parts"),
        (
            |graph| node(graph, "Unsqueeze").input[1] = "input_ids".to_owned(),
            "its operand 1 must be a weight",
        ),
        (
            |graph| {
                let places = graph.node.iter_mut().find(|node| node.name().ends_with("router/Div")).unwrap();
                places.input[1] = "input_ids".to_owned();
            },
            "Div: its operand 1 must be a weight or a constant",
        ),
        (|graph| set_operand(graph, "Div", 1, &[0]), "Div: its divisor must be positive"),
        (
            |graph| set_operand(graph, "ConstantOfShape", 0, &[1 << 30, 1 << 30]),
            "ConstantOfShape: it depends on no input",
        ),
        (|graph| set_operand(graph, "Shape", 0, &[1]), "Shape: it depends on no input"),
        (
            |graph| node(graph, "Reshape").input[1] = "model.norm.weight".to_owned(),
            "Reshape: its sizes are a weight",
        ),
        (
            |graph| {
                set_operand(graph, "Slice", 2, &[1 << 26]);
                let is_longer = |node: &&mut Node| node.op_type() == "Concat" && node.input.len() > 1;
                let part = &mut graph.node.iter_mut().find(is_longer).unwrap().input[1];
                *part = "constant/changed".to_owned();
            },
            "Concat: its sizes [67108864] hold more elements than the largest weight",
        ),
        (
            |graph| set_operand(graph, "Cast", 0, &[1]),
            "Cast: a weight of int64 is not converted in exported graphs",
        ),
    ];
    check_cases(Precision::F32, Profile::Portable, cases);
    let cases: &[Case] = &[
        (|graph| set_operand(graph, "Range", 2, &[0]), "Range: its step is [0], expected 1"),
        (|graph| set_operand(graph, "Range", 0, &[1]), "Range: it begins at [1], expected 0"),
        (
            |graph| set_operand(graph, "Reshape", 1, &[1 << 20, 32]),
            "Reshape: its sizes [1048576, 32] hold more elements than the largest weight",
        ),
        (|graph| set_operand(graph, "Slice", 2, &[i64::MAX - 1]), "its operand 2 holds 9223372036854775806"),
    ];
    check_cases(Precision::F32, Profile::OnnxRuntime, cases);
}

#[test]
fn sizes_in_attributes_that_do_not_agree() {
    let cases: &[Case] = &[
        (
            |graph| set(graph, "GroupQueryAttention", "num_heads", 7),
            "GroupQueryAttention: its num_heads is 7, and config.json says 8",
        ),
        (
            |graph| set(graph, "GroupQueryAttention", "kv_num_heads", 0),
            "its attribute kv_num_heads is 0, expected 1 to 2147483647",
        ),
        (
            |graph| set(graph, "GroupQueryAttention", "kv_num_heads", 8),
            "its kv_num_heads is 8, and config.json says 4",
        ),
        (
            |graph| attribute(graph, "GroupQueryAttention", "scale").f = Some(f32::NAN),
            "its attribute scale must be positive and finite",
        ),
        (
            |graph| {
                let attention = node(graph, "GroupQueryAttention");
                attention.input[3] = attention.input[0].clone();
            },
            "the cache that it continues must be inputs of the graph",
        ),
        (
            |graph| set(graph, "RotaryEmbedding", "interleaved", 1),
            "its attribute interleaved is 1, expected 0 to 0",
        ),
        (|graph| set(graph, "MatMulNBits", "K", 0), "its attribute K is 0, expected 1 to 2147483647"),
        (
            |graph| set(graph, "MatMulNBits", "N", 1 << 30),
            "MatMulNBits: a weight of 64 inputs and 1073741824 outputs is in no model of this config.json",
        ),
        (|graph| set(graph, "MatMulNBits", "N", 128), "the codes of a weight, is uint8["),
        (|graph| set(graph, "MatMulNBits", "bits", 3), "groups of 32 codes of 3 bits"),
        (|graph| set(graph, "MatMulNBits", "block_size", 48), "groups of 48 codes of 4 bits"),
        (
            |graph| operand(graph, "MatMulNBits", 2).dims.reverse(),
            "its operand 2, the scales of a weight, is float32[",
        ),
        (
            |graph| set(graph, "GatherBlockQuantized", "quantize_axis", 0),
            "GatherBlockQuantized: it must gather along the first axis what has its groups along the last one",
        ),
        (
            |graph| set(graph, "GatherBlockQuantized", "block_size", 16),
            "its operand 2, the scales of a weight, is float32[131, 2], expected float32[131, 4]",
        ),
    ];
    check_cases(Precision::Q4, Profile::OnnxRuntime, cases);
    let cases: &[Case] = &[
        (|graph| set(graph, "DequantizeLinear", "axis", 1), "its groups must be along the columns"),
        (|graph| set(graph, "DequantizeLinear", "block_size", 16), "the scales of a weight, is float32["),
        (
            |graph| operand(graph, "DequantizeLinear", 0).dims.push(1),
            "its codes must be a matrix of integers of 4 or 8 bits",
        ),
    ];
    check_cases(Precision::Q4, Profile::Portable, cases);
    let cases: &[Case] = &[
        (
            |graph| set(graph, "Linear", "inputs", 1 << 62),
            "its attribute inputs is 4611686018427387904, expected",
        ),
        (
            |graph| set(graph, "Linear", "outputs", 1),
            "its weight has 64 inputs and 1 outputs, and config.json says 64 and 128",
        ),
        (|graph| set(graph, "ExpertMlp", "up_bits", 5), "ExpertMlp: weights of 5 bits cannot be packed"),
        (|graph| set(graph, "ExpertMlp", "down_group_size", 48), "groups of 48 weights are not supported"),
        (|graph| set(graph, "ExpertMlp", "intermediate", 48), "and config.json says 64 and 192"),
        (|graph| operand(graph, "ExpertLinear", 2).dims.swap(0, 1), "the codes of a weight, is uint8["),
        (
            |graph| node(graph, "ExpertLinear").input.truncate(3),
            "its operand 3 must be a weight or a constant",
        ),
        (
            |graph| set(graph, "Attention", "kv_heads", 2),
            "Attention: its kv_heads is 2, and config.json says 4",
        ),
        (
            |graph| attribute(graph, "Attention", "kv_cache").s = Some(b"int8".to_vec()),
            "Attention: its kv_cache is int8, unlike what jetmoe.json says",
        ),
        (
            |graph| attribute(graph, "Attention", "kv_cache").s = Some(b"f64".to_vec()),
            "Attention: there is no cache format \"f64\"; there are f32, f16, int8",
        ),
        (
            |graph| {
                let attention = node(graph, "Attention");
                attention.input[6] = attention.input[0].clone();
            },
            "Attention: the cache that it continues must be inputs of the graph",
        ),
        (|graph| set(graph, "Router", "k", 3), "Router: its k is 3, and config.json says 2"),
        (|graph| set(graph, "Router", "k", 0), "Router: its attribute k is 0, expected 1 to"),
        (
            |graph| operand(graph, "Router", 1).dims.swap(0, 1),
            "its operand 1 is float32[64, 8], expected float32[8, 64]",
        ),
        (
            |graph| attribute(graph, "RmsNorm", "epsilon").f = Some(-1.0),
            "RmsNorm: its attribute epsilon must be positive and finite",
        ),
        (|graph| node(graph, "RmsNorm").input[1] = "input_ids".to_owned(), "its operand 1 must be a weight"),
    ];
    check_cases(Precision::Q4, Profile::Native, cases);
}
