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

/// Names of a manifest and of a graph cannot control the terminal, nor look like lines of the report.
#[test]
fn control_characters_of_names_are_shown_as_text() {
    const HOSTILE: &str = "\u{1b}]0;title\u{7}\u{1b}[2J\u{9b}31m\r\nverified with everything\u{202e}";
    let context = context_with_artifact("tiny");
    edit_json(&context.path("artifact/jetmoe.json"), |manifest| {
        manifest["tool_version"] = HOSTILE.into();
        manifest["checkpoint"]["source"] = HOSTILE.into();
        manifest["graphs"][0]["verification"] =
            serde_json::json!([{ "backend": HOSTILE, "passed": true, "tokens": 1, "tensors": [] }]);
    });
    let output = context.run("jetmoe inspect artifact");
    let shown = "\\u{1b}]0;title\\u{7}\\u{1b}[2J\\u{9b}31m\\r\\nverified with everything\\u{202e}";
    assert_eq!(output.succeeded().matches(shown).count(), 3, "{output:#?}");
    assert!(!output.stdout.contains(|letter: char| letter.is_control() && letter != '\n'), "{output:#?}");
    assert!(!output.stdout.lines().any(|line| line.starts_with("verified")), "{output:#?}");
    let json = context.run("jetmoe inspect artifact --format json");
    assert!(!json.succeeded().contains(|letter: char| letter.is_control() && letter != '\n'), "{json:#?}");
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(report["manifest"]["tool_version"], HOSTILE);

    // the message of an error
    edit_json(&context.path("artifact/jetmoe.json"), |manifest| {
        manifest["graphs"][0]["graph"]["path"] = format!("onnx/{HOSTILE}").into();
    });
    let output = context.run("jetmoe inspect artifact");
    assert!(output.refused().contains("\\u{1b}]0;title\\u{7}"), "{output:#?}");
    assert!(!output.stderr.contains(|letter: char| letter.is_control() && letter != '\n'), "{output:#?}");
}

/// Sizes that a graph file names are nothing but numbers.
#[test]
fn sizes_beyond_any_number_are_counted_to_the_largest_one() {
    let context = context_with_artifact("tiny");
    let path = context.path("artifact/onnx/model.onnx");
    let mut model = jetmoe::onnx::read(&path).unwrap();
    let weight = model.graph.as_mut().unwrap().initializer.iter_mut();
    for tensor in weight.filter(|tensor| !tensor.external_data.is_empty()) {
        tensor.dims = vec![i64::MAX, i64::MAX];
        for entry in tensor.external_data.iter_mut().filter(|entry| entry.key.as_deref() == Some("length")) {
            entry.value = Some(u64::MAX.to_string());
        }
    }
    fs::write(context.path("sizes.onnx"), model.to_bytes()).unwrap();
    let output = context.run("jetmoe inspect sizes.onnx --format json");
    let report: Value = serde_json::from_str(output.succeeded()).unwrap();
    assert_eq!(report["graphs"][0]["parameters"], u64::MAX);
    assert_eq!(report["graphs"][0]["external_bytes"], u64::MAX);
    context.run("jetmoe inspect sizes.onnx").succeeded();
}
