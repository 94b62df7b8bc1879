use onnx::{Attribute, AttributeType, Graph, Model, Node, StringStringEntry, Tensor, ValueInfo};

use super::*;

const DATA: &str = "model.onnx_data";

fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, i64)]) -> Node {
    Node {
        op_type: Some(operator.to_owned()),
        name: Some(operator.to_owned()),
        input: inputs.iter().map(|name| (*name).to_owned()).collect(),
        output: vec![output.to_owned()],
        attribute: attributes.iter().map(|(name, value)| integer_attribute(name, *value)).collect(),
        ..Node::default()
    }
}

fn tensor(name: &str, kind: DataType, dims: &[i64], bytes: Vec<u8>) -> Tensor {
    Tensor {
        dims: dims.to_vec(),
        data_type: Some(kind as i32),
        name: Some(name.to_owned()),
        raw_data: Some(bytes),
        ..Tensor::default()
    }
}

fn value(name: &str) -> ValueInfo {
    ValueInfo { name: Some(name.to_owned()), ..ValueInfo::default() }
}

/// `x · w` for a weight `[inputs, 2]` of 4-bit zeros in groups of 16.
fn product(inputs: usize) -> Model {
    let groups = inputs.div_ceil(16);
    let graph = Graph {
        node: vec![
            node("DequantizeLinear", &["codes", "scales"], "w", &[("axis", 0), ("block_size", 16)]),
            node("MatMul", &["x", "w"], "y", &[]),
        ],
        initializer: vec![
            tensor("codes", DataType::Int4, &[inputs as i64, 2], vec![0; inputs]),
            tensor("scales", DataType::Float, &[groups as i64, 2], vec![0; groups * 8]),
        ],
        input: vec![value("x")],
        output: vec![value("y")],
        ..Graph::default()
    };
    Model { graph: Some(graph), ..Model::default() }
}

fn graph(model: &mut Model) -> &mut Graph {
    model.graph.as_mut().unwrap()
}

fn names(tensors: &[Tensor]) -> Vec<&str> {
    tensors.iter().map(|tensor| tensor.name()).collect()
}

fn problem(model: Model) -> String {
    rewrite(model, &[], DATA).unwrap_err().to_string()
}

#[test]
fn a_product_with_whole_groups_stays_in_4_bits() {
    let rewritten = rewrite(product(32), &[], DATA).unwrap();
    let graph = rewritten.model.graph.unwrap();
    let [product] = graph.node.as_slice() else { panic!("{:?}", graph.node) };
    assert_eq!((product.op_type(), product.domain()), ("MatMulNBits", MICROSOFT));
    assert_eq!(product.input, ["x", "w.packed", "w.scales"]);
    assert_eq!(names(&graph.initializer), ["w.packed", "w.scales"]);
    assert_eq!(graph.initializer[0].dims, [2, 2, 8]);
    assert_eq!(rewritten.weights[0].1, [0x88; 32]);
    assert_eq!(rewritten.model.opset_import[0].domain(), MICROSOFT);
}

#[test]
fn a_weight_that_does_not_fit_is_dequantized() {
    let mut with_other_reader = product(32);
    graph(&mut with_other_reader).node.push(node("Add", &["w", "w"], "z", &[]));
    let mut as_output = product(32);
    graph(&mut as_output).output.push(value("w"));
    for model in [product(24), with_other_reader, as_output] {
        let rewritten = rewrite(model, &[], DATA).unwrap();
        let graph = rewritten.model.graph.unwrap();
        assert_eq!((graph.node[0].op_type(), names(&graph.initializer)), ("MatMul", vec!["w"]));
        assert_eq!(data_type(&graph.initializer[0]), Some(DataType::Float));
        assert!(rewritten.model.opset_import.is_empty());
    }
}

#[test]
fn floats_of_16_bits_become_float32() {
    let mut model = product(32);
    let graph = graph(&mut model);
    let one = half::bf16::ONE.to_le_bytes().to_vec();
    graph.initializer = vec![tensor("w", DataType::Bfloat16, &[1, 1], one)];
    let zero = tensor("", DataType::Float16, &[1], vec![0; 2]);
    let value = Attribute {
        name: Some("value".to_owned()),
        t: Some(zero),
        r#type: Some(AttributeType::Tensor as i32),
        ..Attribute::default()
    };
    graph.node = vec![
        node("Cast", &["x"], "half", &[("to", DataType::Float16 as i64)]),
        Node { attribute: vec![value], ..node("ConstantOfShape", &["shape"], "zeros", &[]) },
        node("MatMul", &["half", "w"], "y", &[]),
    ];
    assert!(is_needed(graph));
    let rewritten = rewrite(model, &[], DATA).unwrap();
    let graph = rewritten.model.graph.unwrap();
    assert_eq!(attribute(&graph.node[0], "to"), Some(DataType::Float as i64));
    let zero = graph.node[1].attribute[0].t.as_ref().unwrap();
    assert_eq!((data_type(zero), zero.raw_data().len()), (Some(DataType::Float), 4));
    assert_eq!(rewritten.weights[0].1, 1_f32.to_le_bytes());
}

#[test]
fn a_graph_of_float32_needs_no_rewriting() {
    let mut model = product(32);
    let graph = graph(&mut model);
    assert!(is_needed(graph));
    graph.node.remove(0);
    graph.initializer = vec![tensor("w", DataType::Float, &[1, 1], vec![0; 4])];
    assert!(!is_needed(graph));
}

#[test]
fn a_damaged_weight_is_named() {
    type Damage = fn(&mut Graph);
    let cases: [(Damage, &str); 9] = [
        (|graph| graph.initializer.clear(), "the weight codes is not stored with the graph"),
        (|graph| graph.node[0].input.truncate(1), "the weight DequantizeLinear has no scales"),
        (
            |graph| graph.node[0].attribute[0].i = Some(1),
            "the weight codes has groups along axis 1; only 0 is supported",
        ),
        (
            |graph| graph.initializer[0].dims = vec![64],
            "the weight codes has the shape [64]; only a matrix is quantized",
        ),
        (|graph| graph.initializer[0].dims = vec![-1, 2], "the weight codes has the shape [-1, 2]"),
        (
            |graph| graph.initializer[0].data_type = Some(DataType::Float as i32),
            "the weight codes holds no codes of 4 or 8 bits",
        ),
        (
            |graph| graph.initializer[1].dims = vec![3, 2],
            "the weight scales has 4 elements for the shape [3, 2]",
        ),
        (
            |graph| graph.initializer[0].raw_data = Some(vec![0]),
            "the weight codes is no matrix 32 × 2 in groups of 16",
        ),
        (|graph| graph.initializer[0].raw_data = None, "the weight codes has no location"),
    ];
    for (damage, expected) in cases {
        let mut model = product(32);
        damage(graph(&mut model));
        assert_eq!(problem(model), expected);
    }
}

#[test]
fn a_weight_outside_of_the_data_file_is_refused() {
    let entry = |key: &str, value: &str| StringStringEntry {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    };
    let cases = [
        ("other.onnx_data", "0", "the weight codes is in other.onnx_data, not in model.onnx_data"),
        (DATA, "-1", "the weight codes has the offset \"-1\""),
        (DATA, "64", "the weight codes ends behind the end of its file"),
    ];
    for (location, offset, expected) in cases {
        let mut model = product(32);
        let codes = &mut graph(&mut model).initializer[0];
        codes.raw_data = None;
        codes.external_data =
            vec![entry("location", location), entry("offset", offset), entry("length", "32")];
        assert_eq!(problem(model), expected);
    }
}
