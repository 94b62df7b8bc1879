//! `jetmoe eval`.

use std::fs;

use jetmoe_testing::{CommandOutput, TestContext, assert_text, assert_transcript, fixtures};
use serde_json::{Value, json};

use crate::context::{context_with_artifact, remembered_checkpoint};

/// Puts the first lines of a model's held-out text here, as `held-out.jsonl`.
fn held_out(context: &TestContext, model: &str, lines: usize) {
    let file = fs::read_to_string(fixtures::checkpoint(model).join("eval.jsonl")).unwrap();
    let lines: String = file.lines().take(lines).map(|line| format!("{line}\n")).collect();
    fs::write(context.path("held-out.jsonl"), lines).unwrap();
}

#[test]
fn perplexity_is_the_same_on_every_backend() {
    let context = context_with_artifact("jetmoe-mini");
    held_out(&context, "jetmoe-mini", 1);
    let output = context
        .run("jetmoe eval --model artifact --text held-out.jsonl --backend ort,tract,reference --window 64");
    output.noted(&remembered_checkpoint("jetmoe-mini"));
    // five significant digits are promised
    let digits = [(r"\b(\d\d\.\d{3})\d+\b", "$1[..]"), (r"\b(\d\.\d{4})\d+\b", "$1[..]")];
    assert_text!(output.transcript(), digits);
}

#[test]
fn a_classifier_is_measured_by_its_accuracy() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    held_out(&context, "jetmoe-mini-classifier", 12);
    let output = context.run("jetmoe eval --model artifact --text held-out.jsonl");
    output.succeeded();
    assert_transcript!(output);
}

#[test]
fn labels_may_be_names_and_logits_may_be_missing() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let line =
        |label: Value| format!("{}\n", json!({ "text": "And Moses spake unto Aaron", "label": label }));
    fs::write(
        context.path("held-out.jsonl"),
        line(json!("Old Testament")) + &line(json!(0)) + &line(json!(1)),
    )
    .unwrap();
    let output = context.run("jetmoe eval --model artifact --text held-out.jsonl --format json");
    let report: Value = serde_json::from_str(output.succeeded()).unwrap();
    let result = &report["results"][0];
    assert_eq!(result["passages"], 3);
    assert!((result["accuracy"].as_f64().unwrap() - 2.0 / 3.0).abs() < f64::EPSILON);
    assert_eq!(result["max_logit_error"], Value::Null);
}

#[test]
fn a_bad_line_is_named_with_file_and_number() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let good = "{\"text\": \"And Moses spake\", \"label\": 0}\n";
    let files = [
        ("no-json.jsonl", "And Moses spake\n"),
        ("no-text.jsonl", "{\"label\": 0}\n"),
        ("no-label.jsonl", "{\"text\": \"And Moses spake\", \"label\": \"Apocrypha\"}\n"),
        ("logits.jsonl", "{\"text\": \"And Moses spake\", \"label\": 0, \"logits\": [1, 2, 3]}\n"),
    ];
    let outputs = files.map(|(file, bad)| {
        fs::write(context.path(file), format!("{good}\n{bad}{good}")).unwrap();
        let output = context.run(&format!("jetmoe eval --model artifact --text {file}"));
        assert!(output.refused().contains(&format!("error: {file}:3: ")), "{output:#?}");
        output
    });
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let context = context_with_artifact("jetmoe-mini");
    fs::write(context.path("empty.jsonl"), "\n").unwrap();
    held_out(&context, "jetmoe-mini", 1);
    let lines = [
        "jetmoe eval --model artifact",
        "jetmoe eval --model artifact --text nothing.jsonl",
        "jetmoe eval --model artifact --text empty.jsonl",
        "jetmoe eval --model artifact --text held-out.jsonl --window 1",
        "jetmoe eval --model artifact --text held-out.jsonl --window 513",
        "jetmoe eval --model artifact --text held-out.jsonl --backend gpu",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}
