use std::collections::BTreeSet;
use std::path::Path;

use jetmoe_artifact::{Artifact, Precision, Task};

use super::*;

#[test]
fn every_input_has_a_shape_for_tensorrt() {
    let toy = Path::new(env!("CARGO_MANIFEST_DIR")).join("../jetmoe-rt/tests/fixtures/toy");
    let config = Artifact::open(toy).unwrap().config().clone();
    let signature =
        Signature::new(&config, Task::CausalLm, Precision::F32, Profile::Portable, &BTreeSet::new());
    let shapes = input_shapes(&signature, "2x3x5".parse().unwrap());
    assert_eq!(shapes.split(',').count(), signature.inputs.len());
    assert!(shapes.starts_with("input_ids:2x3,attention_mask:2x8,position_ids:2x3,"), "{shapes}");
    let cache = format!("2x{}x5x{}", config.num_key_value_heads, config.kv_channels);
    assert!(shapes.ends_with(&cache), "{shapes}");
}

#[test]
fn engines_are_built_for_a_sequence_up_to_the_limit() {
    let shapes = shapes_up_to(2048).map(|shape| shape.to_string());
    assert_eq!(shapes, ["1x1x0", "1x1x1024", "1x2048x2048"]);
}

#[test]
fn a_message_is_told_without_the_place_in_onnx_runtimes_source() {
    let message =
        "/src/provider_bridge_ort.cc:2043 Get() [ONNXRuntimeError] : 1 : FAIL : Failed to load\n library";
    assert_eq!(one_line(message), "Failed to load library");
    assert_eq!(one_line("something else"), "something else");
}

#[test]
fn openvino_rounds_activations_only_where_it_may() {
    let exact = LoadOptions::default().with_int8_activations(false);
    let options = OpenVinoOptions::default();
    assert_eq!(
        properties(&options, &exact),
        r#"{"CPU":{"INFERENCE_PRECISION_HINT":"f32","DYNAMIC_QUANTIZATION_GROUP_SIZE":"0"}}"#
    );
    let rounded = properties(&options, &LoadOptions::default());
    assert_eq!(rounded, r#"{"CPU":{"INFERENCE_PRECISION_HINT":"f32"}}"#);
}
