//! Calibration: what it leaves in the artifact, and what becomes of text that cannot be used.

use std::fs;

use jetmoe_artifact::{Artifact, CalibrationRecord};
use jetmoe_checkpoint::Digest;

use crate::workbench::Workbench;

const COMMAND: &str = "jetmoe-export jetmoe-mini --output artifact --precision q4 --calibrate";

/// A workbench with the language model and a calibration text.
fn bench(file: &str, text: &str) -> Workbench {
    let bench = Workbench::new();
    bench.fixture("jetmoe-mini");
    fs::write(bench.path(file), text).unwrap();
    bench
}

fn record(bench: &Workbench) -> CalibrationRecord {
    let artifact = Artifact::open(bench.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    artifact.manifest().graphs[0].calibration.clone().unwrap()
}

#[test]
fn the_manifest_says_what_was_calibrated_with_and_what_no_token_reached() {
    let text = "And God said, Let there be light.\n\nAnd there was light.\n";
    let bench = bench("text.txt", text);
    let ended = bench.run(&format!("{COMMAND} text.txt"));
    assert_eq!(ended.status, Some(0), "{ended:#?}");
    let record = record(&bench);
    assert_eq!(record.text_sha256, Digest::of_bytes(text.as_bytes()));
    assert!((10..40).contains(&record.tokens), "{record:?}");
    // two dozen tokens do not reach every one of 64 experts
    assert!(!record.uncalibrated.is_empty() && record.uncalibrated.len() < 64, "{record:?}");
    let first = &record.uncalibrated[0];
    assert!(ended.stderr.contains(&format!("no token of the calibration text reached {first}")), "{first}");
    let left = bench.files("artifact/onnx");
    assert_eq!(left, ["model_q4.onnx", "model_q4.onnx_data"], "nothing but the graph is left");
}

/// Its weights hold all experts, and each expert is calibrated by itself.
#[test]
fn a_native_graph_is_calibrated_expert_by_expert() {
    let bench = bench("text.txt", &"And God said, Let there be light. ".repeat(20));
    let native = format!("{COMMAND} text.txt --profile native");
    assert_eq!(bench.run(&native).status, Some(0));
    let weights = || fs::read(bench.path("artifact/onnx/native/model_q4.onnx_data")).unwrap();
    let calibrated = weights();
    assert!(record(&bench).uncalibrated.len() < 64, "{:?}", record(&bench).uncalibrated);
    let alone = "jetmoe-export jetmoe-mini --output artifact --precision q4 --profile native";
    bench.run(alone).succeeded();
    let rounded = weights();
    let same = calibrated.iter().zip(&rounded).filter(|(a, b)| a == b).count();
    assert_eq!(calibrated.len(), rounded.len());
    assert!(10 * same < 9 * rounded.len(), "{same} of {} bytes are as without it", rounded.len());
}

#[test]
fn no_more_text_is_read_than_is_asked_for_and_the_same_text_gives_the_same_weights() {
    let line = |text: &str| format!("{{\"text\": \"{text}\", \"label\": 1}}\n");
    let text = [line("In the beginning God created the heaven and the earth."), "\n".to_owned()].concat();
    let bench = bench("text.jsonl", &text.repeat(300));
    assert_eq!(bench.run(&format!("{COMMAND} text.jsonl --calibration-tokens 700")).status, Some(0));
    assert_eq!(record(&bench).tokens, 700);
    let weights = || fs::read(bench.path("artifact/onnx/model_q4.onnx_data")).unwrap();
    let first = weights();
    assert_eq!(bench.run(&format!("{COMMAND} text.jsonl --calibration-tokens 700")).status, Some(0));
    assert!(weights() == first);
    bench.run("jetmoe-export jetmoe-mini --output artifact --precision q4").succeeded();
    assert!(weights() != first, "calibration changed nothing");
}

#[test]
fn text_that_cannot_be_used_is_refused_with_its_place() {
    let bench = bench("empty.txt", " \n\n");
    fs::write(bench.path("lines.jsonl"), "{\"text\": \"And\"}\n{\"txt\": 1}\n").unwrap();
    fs::write(bench.path("bytes.txt"), [b'a', 0xFF, b'\n']).unwrap();
    let refused = [
        ("empty.txt", "empty.txt holds no text to calibrate with\n  give some pages"),
        ("lines.jsonl", "lines.jsonl, line 2: missing field `text`"),
        ("bytes.txt", "cannot read bytes.txt: stream did not contain valid UTF-8"),
        ("nothing.txt", "cannot read nothing.txt: No such file or directory"),
    ];
    for (file, says) in refused {
        let ended = bench.run(&format!("{COMMAND} {file}"));
        assert!(ended.refused().contains(says), "{}", ended.refused());
        assert!(!bench.path("artifact").exists(), "{:?} is left", bench.files("artifact"));
    }
}

#[test]
fn calibration_that_would_change_nothing_is_refused() {
    let bench = bench("text.txt", "And God said, Let there be light.");
    for precision in ["f32", "int8", "q4 --keep int8:attention,int8:kv_proj,int8:mlp"] {
        let command = "jetmoe-export jetmoe-mini --output artifact --calibrate text.txt --precision";
        let ended = bench.run(&format!("{command} {precision}"));
        assert!(ended.refused().contains("choose --precision q4 or q4f16, or leave out --calibrate"));
    }
}

#[test]
fn a_checkpoint_without_tokenizer_cannot_be_calibrated() {
    let bench = bench("text.txt", "And God said, Let there be light.");
    bench.fixture("tiny");
    let ended = bench.run("jetmoe-export tiny --output artifact --precision q4 --calibrate text.txt");
    assert!(ended.refused().contains("tiny has no tokenizer.json"), "{}", ended.refused());
}
