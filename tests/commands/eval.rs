//! `jetmoe eval`.

use std::fs;

use serde_json::{Value, json};

use crate::workbench::{Ended, Workbench, assert_text, assert_transcript, fixture};

/// Puts the first lines of a model's held-out text here, as `held-out.jsonl`.
fn held_out(bench: &Workbench, model: &str, lines: usize) {
    let file = fs::read_to_string(fixture(model).join("eval.jsonl")).unwrap();
    let lines: String = file.lines().take(lines).map(|line| format!("{line}\n")).collect();
    fs::write(bench.path("held-out.jsonl"), lines).unwrap();
}

#[test]
fn perplexity_is_the_same_on_every_backend() {
    let bench = Workbench::with_artifact("jetmoe-mini");
    held_out(&bench, "jetmoe-mini", 1);
    let ended = bench
        .run("jetmoe eval --model artifact --text held-out.jsonl --backend ort,tract,reference --window 64");
    ended.succeeded();
    // five significant digits are promised
    let digits = [(r"\b(\d\d\.\d{3})\d+\b", "$1[..]"), (r"\b(\d\.\d{4})\d+\b", "$1[..]")];
    assert_text!(ended.transcript(), digits);
}

#[test]
fn a_classifier_is_measured_by_its_accuracy() {
    let bench = Workbench::with_artifact("jetmoe-mini-classifier");
    held_out(&bench, "jetmoe-mini-classifier", 12);
    let ended = bench.run("jetmoe eval --model artifact --text held-out.jsonl");
    ended.succeeded();
    assert_transcript!(ended);
}

#[test]
fn labels_may_be_names_and_logits_may_be_missing() {
    let bench = Workbench::with_artifact("jetmoe-mini-classifier");
    let line =
        |label: Value| format!("{}\n", json!({ "text": "And Moses spake unto Aaron", "label": label }));
    fs::write(bench.path("held-out.jsonl"), line(json!("Old Testament")) + &line(json!(0)) + &line(json!(1)))
        .unwrap();
    let ended = bench.run("jetmoe eval --model artifact --text held-out.jsonl --format json");
    let report: Value = serde_json::from_str(ended.succeeded()).unwrap();
    let result = &report["results"][0];
    assert_eq!(result["passages"], 3);
    assert!((result["accuracy"].as_f64().unwrap() - 2.0 / 3.0).abs() < f64::EPSILON);
    assert_eq!(result["max_logit_error"], Value::Null);
}

#[test]
fn a_bad_line_is_named_with_file_and_number() {
    let bench = Workbench::with_artifact("jetmoe-mini-classifier");
    let good = "{\"text\": \"And Moses spake\", \"label\": 0}\n";
    let files = [
        ("no-json.jsonl", "And Moses spake\n"),
        ("no-text.jsonl", "{\"label\": 0}\n"),
        ("no-label.jsonl", "{\"text\": \"And Moses spake\", \"label\": \"Apocrypha\"}\n"),
        ("logits.jsonl", "{\"text\": \"And Moses spake\", \"label\": 0, \"logits\": [1, 2, 3]}\n"),
    ];
    let ended = files.map(|(file, bad)| {
        fs::write(bench.path(file), format!("{good}\n{bad}{good}")).unwrap();
        let ended = bench.run(&format!("jetmoe eval --model artifact --text {file}"));
        assert!(ended.refused().contains(&format!("error: {file}:3: ")), "{ended:#?}");
        ended
    });
    assert_text!(Ended::transcripts(&ended), []);
}

#[test]
fn what_cannot_be_measured_is_refused() {
    let bench = Workbench::with_artifact("jetmoe-mini");
    fs::write(bench.path("empty.jsonl"), "\n").unwrap();
    held_out(&bench, "jetmoe-mini", 1);
    let lines = [
        "jetmoe eval --model artifact",
        "jetmoe eval --model artifact --text nothing.jsonl",
        "jetmoe eval --model artifact --text empty.jsonl",
        "jetmoe eval --model artifact --text held-out.jsonl --window 1",
        "jetmoe eval --model artifact --text held-out.jsonl --window 513",
        "jetmoe eval --model artifact --text held-out.jsonl --backend gpu",
    ];
    let ended = lines.map(|line| bench.run(line));
    for ended in &ended {
        ended.refused();
    }
    assert_text!(Ended::transcripts(&ended), []);
}
