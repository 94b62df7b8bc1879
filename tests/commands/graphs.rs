//! Graphs that the exporter does not write are refused before a backend loads them, unless the user trusts them.

use std::fs;

use jetmoe::checkpoint::Digest;
use jetmoe::onnx::{self, Model, StringStringEntry};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{TestContext, assert_transcript};
use serde_json::json;

use crate::context::{context_with_artifact, edit_config};

const RUN: &str = "jetmoe run --model artifact --prompt \"In the beginning\" --max-new-tokens 4";

/// Changes the graph of the context's artifact, and its size and digest in the manifest.
fn edit_graph(context: &TestContext, edit: impl FnOnce(&mut Model)) {
    let artifact = context.path("artifact");
    let path = artifact.join("onnx/model.onnx");
    let mut model = onnx::read(&path).unwrap();
    edit(&mut model);
    let bytes = model.to_bytes();
    fs::write(&path, &bytes).unwrap();
    edit_json(&artifact.join("jetmoe.json"), |manifest| {
        let graph = &mut manifest["graphs"][0]["graph"];
        graph["size"] = bytes.len().into();
        graph["sha256"] = Digest::of_bytes(&bytes).to_string().into();
    });
}

/// Every backend and every command that loads a graph.
fn refused_everywhere(context: &TestContext, says: &str) {
    fs::write(context.path("held-out.jsonl"), "{\"text\": \"And God said\"}\n").unwrap();
    let backends = jetmoe_rt::backends().iter().map(|backend| format!("{RUN} --backend {}", backend.name()));
    let others = ["jetmoe verify --model artifact", "jetmoe eval --model artifact --text held-out.jsonl"];
    for command in backends.chain(others.map(str::to_owned)) {
        let output = context.run(&command);
        assert!(output.refused().contains(says), "{output:#?}");
    }
}

#[test]
fn a_graph_with_another_operator() {
    let context = context_with_artifact("jetmoe-mini");
    edit_graph(&context, |model| {
        let nodes = &mut model.graph.as_mut().unwrap().node;
        nodes.iter_mut().find(|node| node.op_type() == "Sin").unwrap().op_type = Some("Loop".to_owned());
    });
    refused_everywhere(&context, "artifact/onnx/model.onnx, node \"rotary/Sin\": exported graphs");
    assert_transcript!(context.run(RUN));
}

#[test]
fn a_configuration_with_other_heads() {
    let context = context_with_artifact("jetmoe-mini");
    edit_config(&context, |config| {
        config["num_key_value_heads"] = json!(1_000_000);
        config.as_object_mut().unwrap().remove("num_attention_heads");
    });
    refused_everywhere(
        &context,
        "artifact/onnx/model.onnx, input \"past_key_values.0.key\": it is float32[batch_size, ",
    );
}

/// What a user does to their own graph.
#[test]
fn a_graph_that_the_user_trusts() {
    let context = context_with_artifact("jetmoe-mini");
    let text = context.run(RUN);
    edit_graph(&context, |model| {
        let (key, value) = (Some("note".to_owned()), Some("mine".to_owned()));
        model.metadata_props.push(StringStringEntry { key, value });
    });
    refused_everywhere(&context, "artifact/onnx/model.onnx, metadata: ");
    assert_eq!(context.run(&format!("{RUN} --trust-graph")).succeeded(), text.succeeded());
}
