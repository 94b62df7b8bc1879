//! The check of a graph before a backend loads it refuses what the exporter does not write. Every case is one change of a
//! written graph, as small as can be; none is ever loaded.

use jetmoe_artifact::{Precision, Profile, Task};
use jetmoe_onnx::{
    Attribute, AttributeType, DataType, DimensionValue, Graph, Model, Node, OperatorSetId, StringStringEntry,
    Tensor, ValueInfo,
};

use crate::checked::Exported;
use crate::{Way, golden};

/// A change of a graph, and what must be said of it.
pub(crate) type Case = (fn(&mut Graph), &'static str);

fn exported(precision: Precision, profile: Profile) -> Exported {
    Exported::of(&golden("tiny"), &Way::new(precision, profile).options(Task::CausalLm))
}

/// What the check says of other bytes.
#[track_caller]
fn refusal_of_bytes(exported: &Exported, bytes: &[u8]) -> String {
    let original = std::fs::read(exported.path()).unwrap();
    std::fs::write(exported.path(), bytes).unwrap();
    let message = exported.check().unwrap_err().to_string();
    std::fs::write(exported.path(), original).unwrap();
    let place = message.strip_prefix(&format!("{}, ", exported.path().display()));
    place.unwrap_or_else(|| panic!("{message}")).to_owned()
}

/// What the check says of a changed model.
#[track_caller]
fn refusal(exported: &Exported, change: impl FnOnce(&mut Model)) -> String {
    let mut model = exported.model();
    change(&mut model);
    refusal_of_bytes(exported, &model.to_bytes())
}

#[track_caller]
pub(crate) fn check_cases(precision: Precision, profile: Profile, cases: &[Case]) {
    let exported = exported(precision, profile);
    for (change, expected) in cases {
        let message = refusal(&exported, |model| change(model.graph.as_mut().unwrap()));
        assert!(message.contains(expected), "{message}\ndoes not say {expected}");
    }
}

pub(crate) fn node<'a>(graph: &'a mut Graph, operator: &str) -> &'a mut Node {
    graph.node.iter_mut().find(|node| node.op_type() == operator).unwrap()
}

pub(crate) fn attribute<'a>(graph: &'a mut Graph, operator: &str, name: &str) -> &'a mut Attribute {
    node(graph, operator).attribute.iter_mut().find(|attribute| attribute.name() == name).unwrap()
}

pub(crate) fn set(graph: &mut Graph, operator: &str, name: &str, value: i64) {
    attribute(graph, operator, name).i = Some(value);
}

/// The tensor that the first node of an operator has as an operand.
pub(crate) fn operand<'a>(graph: &'a mut Graph, operator: &str, index: usize) -> &'a mut Tensor {
    let name = node(graph, operator).input[index].clone();
    graph.initializer.iter_mut().find(|tensor| tensor.name() == name).unwrap()
}

/// Gives the first node of an operator an int64 constant of its own as an operand.
pub(crate) fn set_operand(graph: &mut Graph, operator: &str, index: usize, values: &[i64]) {
    let name = "constant/changed".to_owned();
    node(graph, operator).input[index].clone_from(&name);
    graph.initializer.push(Tensor {
        dims: vec![values.len() as i64],
        data_type: Some(DataType::Int64 as i32),
        name: Some(name),
        raw_data: Some(values.iter().flat_map(|value| value.to_le_bytes()).collect()),
        ..Tensor::default()
    });
}

/// The first tensor in the data file.
fn weight(graph: &mut Graph) -> &mut Tensor {
    graph.initializer.iter_mut().find(|tensor| !tensor.external_data.is_empty()).unwrap()
}

fn set_place(graph: &mut Graph, key: &str, value: &str) {
    let entry = weight(graph).external_data.iter_mut().find(|entry| entry.key() == key).unwrap();
    entry.value = Some(value.to_owned());
}

fn dimension(info: &mut ValueInfo, index: usize) -> &mut DimensionValue {
    let tensor = info.r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
    tensor.shape.as_mut().unwrap().dim[index].value.as_mut().unwrap()
}

#[test]
fn other_operators_attributes_and_operands() {
    let cases: &[Case] = &[
        (
            |graph| node(graph, "MatMul").op_type = Some("Loop".to_owned()),
            "exported graphs of the profile portable do not have its operator \"Loop\"\n",
        ),
        (
            |graph| {
                let cos = node(graph, "Cos");
                cos.op_type = Some("RotaryEmbedding".to_owned());
                cos.domain = Some("com.microsoft".to_owned());
            },
            "node \"rotary/Cos\": exported graphs of the profile portable do not have its operator \
             \"RotaryEmbedding\" of the domain \"com.microsoft\"",
        ),
        (|graph| node(graph, "Sin").domain = Some("ai.onnx".to_owned()), "of the domain \"ai.onnx\""),
        (
            |graph| {
                let axis = attribute(graph, "Softmax", "axis").clone();
                node(graph, "MatMul").attribute.push(axis);
            },
            "MatMul: exported graphs do not give it the attribute \"axis\"",
        ),
        (|graph| node(graph, "Softmax").attribute.clear(), "Softmax: it has no attribute axis"),
        (
            |graph| {
                let axis = attribute(graph, "Softmax", "axis").clone();
                node(graph, "Softmax").attribute.push(axis);
            },
            "Softmax: it has the attribute axis twice",
        ),
        (
            |graph| {
                let axis = attribute(graph, "Softmax", "axis");
                (axis.i, axis.f, axis.r#type) = (None, Some(1.0), Some(AttributeType::Float as i32));
            },
            "its attribute axis must be an integer",
        ),
        (
            |graph| attribute(graph, "Softmax", "axis").r#type = Some(AttributeType::Float as i32),
            "its attribute axis must be an integer",
        ),
        (
            |graph| set(graph, "Softmax", "axis", 1 << 40),
            "its attribute axis is 1099511627776, expected -8 to 8",
        ),
        (|graph| set(graph, "Cast", "to", 99), "it casts to type 99, which exported graphs do not have"),
        (
            |graph| attribute(graph, "Transpose", "perm").ints[0] = 7,
            "its attribute perm must be an order of axes",
        ),
        (
            |graph| attribute(graph, "ConstantOfShape", "value").t.as_mut().unwrap().dims = vec![1 << 40],
            "its attribute value must be one zero, as float32, float16 or int64",
        ),
        (|graph| node(graph, "MatMul").input.push("input_ids".to_owned()), "MatMul does not take 3 operands"),
        (|graph| node(graph, "TopK").output.truncate(1), "TopK has 1 results, expected 2"),
        (
            |graph| {
                let last = graph.node.last().unwrap().output[0].clone();
                node(graph, "Cos").input[0] = last;
            },
            "node \"rotary/Cos\": its operand \"logits\" is no input, no tensor, and not computed before",
        ),
        (
            |graph| {
                let cos = node(graph, "Cos").output[0].clone();
                node(graph, "Sin").output[0] = cos;
            },
            "its result \"rotary/Cos\" needs a name of its own",
        ),
        (|graph| node(graph, "Cos").output[0] = String::new(), "its result \"\" needs a name of its own"),
        (
            |graph| {
                node(graph, "Cos").op_type = Some("\u{1b}[2J".repeat(200));
            },
            "do not have its operator \"\\u{1b}[2J\\u{1b}[2J",
        ),
    ];
    check_cases(Precision::F32, Profile::Portable, cases);
}

#[test]
fn other_inputs_and_outputs() {
    let cases: &[Case] = &[
        (
            |graph| {
                let tensor = graph.input[0].r#type.as_mut().unwrap().tensor_type.as_mut().unwrap();
                tensor.elem_type = Some(DataType::Int32 as i32);
            },
            "input \"input_ids\": it is int32[batch_size, sequence_length], expected int64[batch_size, \
             sequence_length]\n",
        ),
        (
            |graph| *dimension(&mut graph.input[3], 1) = DimensionValue::DimValue(1 << 40),
            "it is float32[batch_size, 1099511627776, past_sequence_length, 16], expected float32[batch_size, 4, \
             past_sequence_length, 16]",
        ),
        (
            |graph| *dimension(&mut graph.input[3], 2) = DimensionValue::DimParam("batch_size".to_owned()),
            "it is float32[batch_size, 4, batch_size, 16], expected",
        ),
        (|graph| graph.input[0].r#type = None, "input \"input_ids\": it is of no type, expected int64"),
        (|graph| drop(graph.input.remove(1)), "input \"attention_mask\": the graph does not have it"),
        (
            |graph| {
                let again = graph.input[0].clone();
                graph.input.push(again);
            },
            "input \"input_ids\": it is declared twice",
        ),
        (
            |graph| graph.output.push(ValueInfo { name: Some("rotary/Cos".to_owned()), r#type: None }),
            "output \"rotary/Cos\": exported graphs do not have it",
        ),
        (
            |graph| {
                let last = graph.node.last_mut().unwrap();
                last.output[0] = "elsewhere".to_owned();
            },
            "output \"logits\": no node computes it",
        ),
        (
            |graph| set_operand_named(graph, "input_ids"),
            "tensor \"input_ids\": the input of this name has no default",
        ),
    ];
    check_cases(Precision::F32, Profile::Portable, cases);
    let cases: &[Case] = &[
        (
            |graph| named(graph, "logits_to_keep").raw_data = Some(vec![1, 0, 0, 0, 0, 0, 0, 0]),
            "tensor \"logits_to_keep\": the default of the input of this name must be zeros in its shape",
        ),
        (
            |graph| {
                let default = named(graph, "logits_to_keep");
                (default.dims, default.raw_data) = (vec![0], Some(Vec::new()));
            },
            "tensor \"logits_to_keep\": the default of the input of this name must be zeros in its shape",
        ),
        (
            |graph| graph.initializer.retain(|tensor| tensor.name() != "logits_to_keep"),
            "tensor \"logits_to_keep\": the graph does not have it",
        ),
    ];
    check_cases(Precision::F32, Profile::OnnxRuntime, cases);
}

fn named<'a>(graph: &'a mut Graph, name: &str) -> &'a mut Tensor {
    graph.initializer.iter_mut().find(|tensor| tensor.name() == name).unwrap()
}

fn set_operand_named(graph: &mut Graph, name: &str) {
    set_operand(graph, "Reshape", 1, &[-1]);
    graph.initializer.last_mut().unwrap().name = Some(name.to_owned());
}

#[test]
fn tensors_of_other_sizes_and_in_other_places() {
    let cases: &[Case] = &[
        (|graph| weight(graph).dims[0] = -1, "sizes must be positive"),
        (|graph| weight(graph).dims[0] = 0, "sizes must be positive"),
        (|graph| weight(graph).dims = vec![1 << 62, 1 << 62], "has too many elements"),
        (|graph| weight(graph).dims = vec![1 << 40], "bytes in the data file and should have 4398046511104"),
        (
            |graph| weight(graph).data_type = Some(99),
            "its elements have type 99, which no exported tensor has",
        ),
        (
            |graph| weight(graph).data_type = Some(DataType::Int64 as i32),
            "int64 must be stored in the graph file",
        ),
        (|graph| weight(graph).data_location = Some(7), "its location is 7, expected 1 or none"),
        (|graph| weight(graph).raw_data = Some(vec![0]), "bytes in the data file and should have"),
        (|graph| weight(graph).external_data.truncate(1), "must be given by location, offset and length"),
        (
            |graph| set_place(graph, "location", "../../config.json"),
            "it is in the file \"../../config.json\", and the data file is \"model.onnx_data\"",
        ),
        (|graph| set_place(graph, "offset", "-64"), "offset \"-64\" and length"),
        (|graph| set_place(graph, "offset", "2"), "it begins at byte 2, which is no multiple of 4"),
        (|graph| set_place(graph, "offset", "18446744073709551552"), "are not in the data file, which has"),
        (|graph| set_place(graph, "length", "4"), "it has 4 bytes in the data file and should have"),
        (|graph| weight(graph).name = Some(String::new()), "every tensor must have a name of its own"),
        (
            |graph| {
                let again = weight(graph).clone();
                graph.initializer.push(again);
            },
            "every tensor must have a name of its own",
        ),
        (
            |graph| operand(graph, "Pow", 1).raw_data = Some(vec![0; 12]),
            "it has 12 bytes in the graph file and should have 4",
        ),
        (
            |graph| operand(graph, "Pow", 1).data_type = Some(DataType::Uint8 as i32),
            "uint8 must be stored in the data file",
        ),
        (
            |graph| set_operand(graph, "Reshape", 1, &vec![1; 1 << 21]),
            "tensor \"constant/changed\": the constants up to this one have more than 16777216 bytes",
        ),
    ];
    check_cases(Precision::F32, Profile::Portable, cases);
}

#[test]
fn fields_that_are_skipped_and_other_headers() {
    let exported = exported(Precision::F32, Profile::Portable);
    let bytes = std::fs::read(exported.path()).unwrap();
    // an empty message of training, and a function
    for field in [&[0xA2, 0x01, 0x00][..], &[0xCA, 0x01, 0x00]] {
        let message = refusal_of_bytes(&exported, &[&bytes, field].concat());
        assert!(message.starts_with(&format!("byte {}: from here on", bytes.len())), "{message}");
    }
    let message = refusal_of_bytes(&exported, &[&[0x08, 0x09][..], &bytes].concat());
    assert!(message.starts_with("byte 1: from here on"), "{message}");

    let set =
        |domain: &str, version| OperatorSetId { domain: Some(domain.to_owned()), version: Some(version) };
    let message = refusal(&exported, |model| model.opset_import[0] = set("", 7));
    assert!(message.starts_with("operator set \"\": its version is 7, expected 21"), "{message}");
    let message = refusal(&exported, |model| model.opset_import.push(set("somebody", 1)));
    assert!(message.starts_with("operator set \"somebody\": exported graphs do not import it"), "{message}");
    let message = refusal(&exported, |model| model.opset_import.push(set("", 21)));
    assert!(message.starts_with("operator set \"\": it is imported twice"), "{message}");
    let message = refusal(&exported, |model| model.opset_import.clear());
    assert!(message.starts_with("operator sets: the standard one is not imported"), "{message}");
    let message = refusal(&exported, |model| {
        let (key, value) = (Some("ort_config".to_owned()), Some("{}".to_owned()));
        model.metadata_props.push(StringStringEntry { key, value });
    });
    assert!(message.starts_with("metadata: task, precision and profile are not those"), "{message}");
}

/// A cache of other sizes would be allocated by the configuration before the graph could refuse it.
#[test]
fn a_configuration_of_another_model() {
    let mut exported = exported(Precision::F32, Profile::OnnxRuntime);
    exported.config.num_key_value_heads = 1 << 20;
    let message = exported.check().unwrap_err().to_string();
    let expected = "input \"past_key_values.0.key\": it is float32[batch_size, 4, past_sequence_length, 16], expected \
                    float32[batch_size, 1048576, past_sequence_length, 16]";
    assert!(message.contains(expected), "{message}");
    exported.config.num_key_value_heads = 4;
    exported.config.num_experts_per_token = 4;
    let message = exported.check().unwrap_err().to_string();
    assert!(message.contains("TopK: it takes the best 2, and config.json says 4"), "{message}");
}

#[test]
fn a_data_file_elsewhere() {
    let mut exported = exported(Precision::F32, Profile::Portable);
    exported.record.data.path = "model.onnx_data".to_owned();
    let message = exported.check().unwrap_err().to_string();
    assert!(
        message.contains("data file \"model.onnx_data\": it must be in the folder of the graph"),
        "{message}"
    );
}
