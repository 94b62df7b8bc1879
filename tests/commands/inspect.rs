//! `jetmoe inspect`.

use std::fs;

use jetmoe::artifact::OptionalOutput;
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{CommandOutput, assert_text, assert_transcript};
use serde_json::Value;

use crate::context::{context_with_artifact, context_with_artifact_for, new_context};

/// What the graph is made of is reviewed under `graphs/`; here it is how that is shown.
const GRAPH: [(&str, &str); 2] = [
    (r"(?s)( operator  +nodes\n Add  +)\d+\n.*\n( total  +)\d+", "$1[N]\n[OTHERS]\n$2[N]"),
    (r"graph [0-9.]+ KiB", "graph [SIZE]"),
];

#[test]
fn an_artifact() {
    let context = context_with_artifact_for("tiny", None, &[OptionalOutput::RouterLogits]);
    let output = context.run("jetmoe inspect artifact");
    output.succeeded();
    assert_text!(output.transcript(), GRAPH);
}

#[test]
fn a_checkpoint() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    let output = context.run("jetmoe inspect jetmoe-mini");
    output.succeeded();
    assert_transcript!(output);
}

#[test]
fn an_onnx_file() {
    let context = context_with_artifact("classifier");
    let output = context.run("jetmoe inspect artifact/onnx/model.onnx");
    output.succeeded();
    assert_text!(output.transcript(), GRAPH);
}

#[test]
fn verification_is_shown_as_the_manifest_remembers_it() {
    let context = context_with_artifact("tiny");
    let verification = |passed: bool| serde_json::json!([{ "backend": "tract 0.0.0", "passed": passed, "tokens": 31, "tensors": [] }]);
    for (passed, shown) in
        [(true, "verified with tract 0.0.0"), (false, "FAILED verification with tract 0.0.0")]
    {
        edit_json(&context.path("artifact/jetmoe.json"), |manifest| {
            manifest["graphs"][0]["verification"] = verification(passed);
        });
        let output = context.run("jetmoe inspect artifact");
        assert!(output.succeeded().contains(shown), "{output:#?}");
    }
}

#[test]
fn sizes_that_are_known_are_numbers_in_json() {
    let context = context_with_artifact("tiny");
    let output = context.run("jetmoe inspect artifact/onnx/model.onnx --format json");
    let report: Value = serde_json::from_str(output.succeeded()).unwrap();
    let past = &report["graphs"][0]["inputs"][3];
    assert_eq!(past["name"], "past_key_values.0.key");
    assert_eq!(past["type"], "float32");
    assert_eq!(past["shape"], serde_json::json!(["batch_size", 4, "past_sequence_length", 16]));
}

#[test]
fn what_is_no_model_is_refused() {
    let context = new_context();
    fs::create_dir(context.path("empty")).unwrap();
    fs::write(context.path("text"), "In the beginning").unwrap();
    let lines = [
        "jetmoe inspect",
        "jetmoe inspect nothing",
        "jetmoe inspect empty",
        "jetmoe inspect text",
        "jetmoe inspect onnx/model.onnx",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}
