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
        (|graph| graph.node[1].input = vec!["w".into(), "x".into()], "MatMul takes the quantized weight w"),
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
