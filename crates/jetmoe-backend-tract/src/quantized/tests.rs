use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::DataType;
use tract_onnx::pb::{AttributeProto, ModelProto, StringStringEntryProto, ValueInfoProto};
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

/// Inputs of the weight: a group and a short one.
const INPUTS: usize = 18;

/// Scales of three outputs, for two groups.
const SCALES: [f32; 6] = [1.0, 1.0, 0.5, 2.0, 1.0, 0.5];

/// Codes from −4 to 4 of `[18, 3]` weights.
fn codes() -> Vec<i8> {
    (0..3 * INPUTS).map(|place| (place * 5 % 9) as i8 - 4).collect()
}

/// 4-bit codes, two per byte.
fn nibbles(codes: impl Iterator<Item = i8>) -> Vec<u8> {
    let codes: Vec<u8> = codes.map(|code| code.cast_unsigned() & 0xF).collect();
    codes.chunks(2).map(|pair| pair[0] | pair.get(1).unwrap_or(&0) << 4).collect()
}

/// `x · w` for 4-bit weights `[18, 3]` in groups of 16.
fn graph() -> GraphProto {
    let scales: Vec<u8> = SCALES.iter().flat_map(|scale| scale.to_le_bytes()).collect();
    GraphProto {
        node: vec![
            node("DequantizeLinear", &["codes", "scales"], "w", &[("axis", 0), ("block_size", 16)]),
            node("MatMul", &["x", "w"], "y", &[]),
        ],
        initializer: vec![
            tensor("codes", DataType::Int4, &[18, 3], nibbles(codes().into_iter())),
            tensor("scales", DataType::Float, &[2, 3], scales),
        ],
        input: vec![value("x")],
        output: vec![value("y")],
        ..GraphProto::default()
    }
}

/// No graph here has a data file.
fn no_file() -> DataFile {
    DataFile::new("no such file".into())
}

fn optimized(mut graph: GraphProto, element: DatumType) -> TractResult<TypedModel> {
    let weights = rewrite(&mut graph, &no_file())?;
    // the type of an input comes with its fact
    graph.input.clear();
    let mut tract = tract_onnx::onnx();
    tract.op_register.insert(product::OPERATOR, product::parse);
    let proto = ModelProto { graph: Some(graph), ..ModelProto::default() };
    let mut model = tract.parse(&proto, None)?.model;
    let source = model.nodes().iter().find(|node| node.name == "x").map(|node| node.id);
    model.set_input_outlets(&[OutletId::new(source.unwrap(), 0)])?;
    let shape = [model.symbols.sym("rows").to_dim(), INPUTS.to_dim()];
    model.set_input_fact(0, InferenceFact::dt_shape(element, shape))?;
    let mut model = model.into_typed()?;
    product::attach_weights(&mut model, &weights)?;
    model.into_optimized()
}

fn run(graph: GraphProto, x: Tensor) -> Tensor {
    let plan = optimized(graph, x.datum_type()).unwrap();
    let outputs = plan.into_runnable().unwrap().run(tvec![x.into_tvalue()]).unwrap();
    outputs[0].clone().into_tensor()
}

/// Two rows of small integers: every product is exact.
fn x() -> Tensor {
    let numbers: Vec<f32> = (0..2 * INPUTS).map(|place| (place % 7) as f32 - 3.0).collect();
    Tensor::from_shape(&[2, INPUTS], &numbers).unwrap()
}

/// `x · w` by definition.
fn product() -> Tensor {
    let (x, codes) = (x(), codes());
    let x = x.try_as_plain_ram().unwrap();
    let x = x.as_slice::<f32>().unwrap();
    let element = |row: usize, output: usize| -> f32 {
        let terms = (0..INPUTS).map(|input| {
            let weight = f32::from(codes[3 * input + output]) * SCALES[input / 16 * 3 + output];
            x[row * INPUTS + input] * weight
        });
        terms.sum()
    };
    let elements: Vec<f32> = (0..6).map(|place| element(place / 3, place % 3)).collect();
    Tensor::from_shape(&[2, 3], &elements).unwrap()
}

#[test]
fn a_product_with_a_4_bit_weight_runs() {
    assert_eq!(run(graph(), x()), product());
}

#[test]
fn a_product_with_an_8_bit_weight_runs() {
    let mut graph = graph();
    let codes = codes().into_iter().map(i8::cast_unsigned).collect();
    graph.initializer[0] = tensor("codes", DataType::Int8, &[18, 3], codes);
    assert_eq!(run(graph, x()), product());
}

#[test]
fn no_rows_give_no_rows() {
    let found = run(graph(), Tensor::zero::<f32>(&[0, INPUTS]).unwrap());
    assert_eq!(found.shape(), [0, 3]);
}

#[test]
fn float16_stays_float16() {
    let mut graph = graph();
    let scales = SCALES.iter().flat_map(|scale| half::f16::from_f32(*scale).to_le_bytes()).collect();
    graph.initializer[1] = tensor("scales", DataType::Float16, &[2, 3], scales);
    let half = |values: Tensor| values.cast_to::<f16>().unwrap().into_owned();
    assert_eq!(run(graph, half(x())), half(product()));
}

#[test]
fn zero_points_are_subtracted() {
    let mut graph = graph();
    let codes = nibbles(codes().into_iter().map(|code| code + 8));
    graph.initializer[0] = tensor("codes", DataType::Uint4, &[18, 3], codes);
    graph.initializer.push(tensor("zeros", DataType::Uint4, &[2, 3], vec![0x88; 3]));
    graph.node[0].input.push("zeros".to_owned());
    assert_eq!(run(graph, x()), product());
}

#[test]
fn codes_without_a_sign_count_from_zero() {
    let mut graph = graph();
    let codes = codes().into_iter().map(|code| code.cast_unsigned() ^ 0x80).collect();
    graph.initializer[0] = tensor("codes", DataType::Uint8, &[18, 3], codes);
    graph.initializer.push(tensor("zeros", DataType::Uint8, &[2, 3], vec![128; 6]));
    graph.node[0].input.push("zeros".to_owned());
    assert_eq!(run(graph.clone(), x()), product());
    graph.node[0].input.pop();
    assert_ne!(run(graph, x()), product());
}

#[test]
fn a_weight_leaves_the_graph_unless_something_else_reads_it() {
    let names = |graph: &GraphProto| -> Vec<String> {
        graph.initializer.iter().map(|tensor| tensor.name.clone()).collect()
    };
    let mut alone = graph();
    rewrite(&mut alone, &no_file()).unwrap();
    assert!(alone.initializer.is_empty(), "{:?}", names(&alone));
    let mut shared = graph();
    shared.node.push(node("Gather", &["scales", "places"], "some", &[]));
    rewrite(&mut shared, &no_file()).unwrap();
    assert_eq!(names(&shared), ["scales"]);
}

#[test]
fn what_cannot_run_is_named() {
    type Change = fn(&mut GraphProto);
    let cases: [(Change, &str); 11] = [
        (|graph| graph.node[0].attribute[0].i = 1, "codes: has groups along axis 1; only 0 can be"),
        (|graph| graph.node[1].input = vec!["w".into(), "x".into()], "MatMul takes the quantized weight w"),
        (|graph| graph.node.push(node("Add", &["w", "x"], "z", &[])), "Add takes the quantized weight w"),
        (|graph| graph.output.push(value("w")), "the quantized weight w is an output"),
        (|graph| graph.initializer[0].dims = vec![9], "codes: has the shape [9]; only matrices can be"),
        (
            |graph| graph.initializer[0].data_type = DataType::Float as i32,
            "codes: has elements of type float32",
        ),
        (|graph| graph.initializer[0].name = "others".into(), "codes is not stored with the graph"),
        (|graph| graph.node.push(node("Gather", &["codes", "x"], "z", &[])), "codes holds 4-bit elements"),
        (|graph| graph.node[0].attribute[1].i = 2, "codes: groups of 2 weights are not supported"),
        (
            |graph| {
                graph.initializer[0].external_data =
                    vec![StringStringEntryProto { key: "offset".into(), value: "0".into() }];
            },
            "codes: has no length in a data file",
        ),
        (
            |graph| graph.initializer.push(tensor("table", DataType::Uint4, &[2, 2], vec![0; 2])),
            "table holds 4-bit elements",
        ),
    ];
    for (damage, expected) in cases {
        let mut graph = graph();
        damage(&mut graph);
        let found = format!("{:#}", rewrite(&mut graph, &no_file()).unwrap_err());
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
}

#[test]
fn parts_of_a_weight_that_do_not_fit_together_are_refused() {
    type Change = fn(&mut GraphProto);
    let cases: [(Change, &str); 3] = [
        (
            |graph| graph.initializer[0].raw_data.truncate(26),
            "codes: the codes has 26 elements and should have 27",
        ),
        (|graph| graph.initializer[1].raw_data.truncate(12), "codes: the scales have 3 elements, expected 6"),
        (|graph| graph.initializer[1].data_type = DataType::Int64 as i32, "scales: has elements of type 7"),
    ];
    for (damage, expected) in cases {
        let mut graph = graph();
        damage(&mut graph);
        let found = format!("{:#}", rewrite(&mut graph, &no_file()).unwrap_err());
        assert!(found.contains(expected), "{found:?} does not say {expected:?}");
    }
}
