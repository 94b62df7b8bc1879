//! Calibration: what it leaves in the artifact, and what becomes of text that cannot be used.

use std::fs;

use jetmoe_artifact::{Artifact, CalibrationRecord};
use jetmoe_checkpoint::Digest;
use jetmoe_testing::TestContext;

use crate::new_context;

const COMMAND: &str = "jetmoe-export jetmoe-mini --output artifact --precision q4 --calibrate";

/// A context with the language model and a calibration text.
fn calibration_context(file: &str, text: &str) -> TestContext {
    let context = new_context();
    context.fixture("jetmoe-mini");
    fs::write(context.path(file), text).unwrap();
    context
}

fn record(context: &TestContext) -> CalibrationRecord {
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    artifact.manifest().graphs[0].calibration.clone().unwrap()
}

#[test]
fn the_manifest_says_what_was_calibrated_with_and_what_no_token_reached() {
    let text = "And God said, Let there be light.\n\nAnd there was light.\n";
    let context = calibration_context("text.txt", text);
    let output = context.run(&format!("{COMMAND} text.txt"));
    assert_eq!(output.status, Some(0), "{output:#?}");
    let record = record(&context);
    assert_eq!(record.text_sha256, Digest::of_bytes(text.as_bytes()));
    assert!((10..40).contains(&record.tokens), "{record:?}");
    // two dozen tokens do not reach every one of 64 experts
    assert!(!record.uncalibrated.is_empty() && record.uncalibrated.len() < 64, "{record:?}");
    let first = &record.uncalibrated[0];
    assert!(
        output.stderr.contains(&format!("no token of the calibration text was routed to {first}")),
        "{first}"
    );
    let left = context.files("artifact/onnx");
    assert_eq!(left, ["model_q4.onnx", "model_q4.onnx_data"], "nothing but the graph is left");
}

/// Its weights hold all experts, and each expert is calibrated by itself.
#[test]
fn a_native_graph_is_calibrated_expert_by_expert() {
    let context = calibration_context("text.txt", &"And God said, Let there be light. ".repeat(20));
    let native = format!("{COMMAND} text.txt --profile native");
    assert_eq!(context.run(&native).status, Some(0));
    let weights = || fs::read(context.path("artifact/onnx/native/model_q4.onnx_data")).unwrap();
    let calibrated = weights();
    assert!(record(&context).uncalibrated.len() < 64, "{:?}", record(&context).uncalibrated);
    let alone = "jetmoe-export jetmoe-mini --output artifact --precision q4 --profile native";
    context.run(alone).succeeded();
    let rounded = weights();
    let same = calibrated.iter().zip(&rounded).filter(|(a, b)| a == b).count();
    assert_eq!(calibrated.len(), rounded.len());
    assert!(10 * same < 9 * rounded.len(), "{same} of {} bytes are as without it", rounded.len());
}

#[test]
fn no_more_text_is_read_than_is_asked_for_and_the_same_text_gives_the_same_weights() {
    let line = |text: &str| format!("{{\"text\": \"{text}\", \"label\": 1}}\n");
    let text = [line("In the beginning God created the heaven and the earth."), "\n".to_owned()].concat();
    let context = calibration_context("text.jsonl", &text.repeat(300));
    assert_eq!(context.run(&format!("{COMMAND} text.jsonl --calibration-tokens 700")).status, Some(0));
    assert_eq!(record(&context).tokens, 700);
    let weights = || fs::read(context.path("artifact/onnx/model_q4.onnx_data")).unwrap();
    let first = weights();
    assert_eq!(context.run(&format!("{COMMAND} text.jsonl --calibration-tokens 700")).status, Some(0));
    assert!(weights() == first);
    context.run("jetmoe-export jetmoe-mini --output artifact --precision q4").succeeded();
    assert!(weights() != first, "calibration changed nothing");
}

#[test]
fn text_that_cannot_be_used_is_refused_with_its_place() {
    let context = calibration_context("empty.txt", " \n\n");
    fs::write(context.path("lines.jsonl"), "{\"text\": \"And\"}\n{\"txt\": 1}\n").unwrap();
    fs::write(context.path("bytes.txt"), [b'a', 0xFF, b'\n']).unwrap();
    let refused = [
        ("empty.txt", "empty.txt holds no text to calibrate with\n  give some pages"),
        ("lines.jsonl", "lines.jsonl, line 2: missing field `text`"),
        ("bytes.txt", "cannot read bytes.txt: stream did not contain valid UTF-8"),
        ("nothing.txt", "cannot read nothing.txt: No such file or directory"),
    ];
    for (file, says) in refused {
        let output = context.run(&format!("{COMMAND} {file}"));
        assert!(output.refused().contains(says), "{}", output.refused());
        assert!(!context.path("artifact").exists(), "{:?} is left", context.files("artifact"));
    }
}

#[test]
fn calibration_that_would_change_nothing_is_refused() {
    let context = calibration_context("text.txt", "And God said, Let there be light.");
    for precision in ["f32", "int8", "q4 --keep int8:attention,int8:kv_proj,int8:mlp"] {
        let command = "jetmoe-export jetmoe-mini --output artifact --calibrate text.txt --precision";
        let output = context.run(&format!("{command} {precision}"));
        assert!(output.refused().contains("choose --precision q4 or q4f16, or leave out --calibrate"));
    }
}

#[test]
fn a_checkpoint_without_tokenizer_cannot_be_calibrated() {
    let context = calibration_context("text.txt", "And God said, Let there be light.");
    context.fixture("tiny");
    let output = context.run("jetmoe-export tiny --output artifact --precision q4 --calibrate text.txt");
    assert!(output.refused().contains("tiny has no tokenizer.json"), "{}", output.refused());
}
