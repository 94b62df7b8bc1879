//! `jetmoe inspect`.

use std::fs;

use jetmoe::artifact::OptionalOutput;
use serde_json::Value;

use crate::workbench::{Ended, Workbench, assert_text, assert_transcript, edit_json};

/// What the graph is made of is reviewed under `graphs/`; here it is how that is shown.
const GRAPH: [(&str, &str); 2] = [
    (r"(?s)( operator  +nodes\n Add  +)\d+\n.*\n( total  +)\d+", "$1[N]\n[OTHERS]\n$2[N]"),
    (r"graph [0-9.]+ KiB", "graph [SIZE]"),
];

#[test]
fn an_artifact() {
    let bench = Workbench::with_artifact_for("tiny", None, &[OptionalOutput::RouterLogits]);
    let ended = bench.run("jetmoe inspect artifact");
    ended.succeeded();
    assert_text!(ended.transcript(), GRAPH);
}

#[test]
fn a_checkpoint() {
    let bench = Workbench::new();
    bench.fixture("jetmoe-mini");
    let ended = bench.run("jetmoe inspect jetmoe-mini");
    ended.succeeded();
    assert_transcript!(ended);
}

#[test]
fn an_onnx_file() {
    let bench = Workbench::with_artifact("classifier");
    let ended = bench.run("jetmoe inspect artifact/onnx/model.onnx");
    ended.succeeded();
    assert_text!(ended.transcript(), GRAPH);
}

#[test]
fn verification_is_shown_as_the_manifest_remembers_it() {
    let bench = Workbench::with_artifact("tiny");
    let verification = |passed: bool| serde_json::json!([{ "backend": "tract 0.0.0", "passed": passed, "tokens": 31, "tensors": [] }]);
    for (passed, shown) in
        [(true, "verified with tract 0.0.0"), (false, "FAILED verification with tract 0.0.0")]
    {
        edit_json(&bench.path("artifact/jetmoe.json"), |manifest| {
            manifest["graphs"][0]["verification"] = verification(passed);
        });
        let ended = bench.run("jetmoe inspect artifact");
        assert!(ended.succeeded().contains(shown), "{ended:#?}");
    }
}

#[test]
fn sizes_that_are_known_are_numbers_in_json() {
    let bench = Workbench::with_artifact("tiny");
    let ended = bench.run("jetmoe inspect artifact/onnx/model.onnx --format json");
    let report: Value = serde_json::from_str(ended.succeeded()).unwrap();
    let past = &report["graphs"][0]["inputs"][3];
    assert_eq!(past["name"], "past_key_values.0.key");
    assert_eq!(past["type"], "float32");
    assert_eq!(past["shape"], serde_json::json!(["batch_size", 4, "past_sequence_length", 16]));
}

#[test]
fn what_is_no_model_is_refused() {
    let bench = Workbench::new();
    fs::create_dir(bench.path("empty")).unwrap();
    fs::write(bench.path("text"), "In the beginning").unwrap();
    let lines = ["jetmoe inspect", "jetmoe inspect nothing", "jetmoe inspect empty", "jetmoe inspect text"];
    let ended = lines.map(|line| bench.run(line));
    for ended in &ended {
        ended.refused();
    }
    assert_text!(Ended::transcripts(&ended), []);
}
