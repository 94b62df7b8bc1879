//! `jetmoe classify`.

use std::fs;

use jetmoe_testing::{CommandOutput, assert_text, assert_transcript, fixtures};
use serde_json::Value;

use crate::context::context_with_artifact;

const BEGINNING: &str = "In the beginning God created the heaven and the earth.";
const JESUS: &str = "And Jesus answered and said unto his disciples, Verily I say unto you.";

#[test]
fn texts_are_arguments_or_lines() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let arguments = context.run(&format!("jetmoe classify --model artifact \"{BEGINNING}\" \"{JESUS}\""));
    let lines = context.command("jetmoe classify --model artifact");
    let lines = lines.input(&format!("{BEGINNING}\n\n{JESUS}\r\n")).run();
    assert_eq!(arguments.succeeded(), lines.succeeded());
    assert_transcript!(arguments, lines);
}

#[test]
fn every_backend_gives_the_logits_of_transformers() {
    /// `eval.jsonl` holds them rounded.
    const ROUNDED: f64 = 1e-3;
    let context = context_with_artifact("jetmoe-mini-classifier");
    let held_out =
        fs::read_to_string(fixtures::checkpoint("jetmoe-mini-classifier").join("eval.jsonl")).unwrap();
    let held_out: Vec<Value> =
        held_out.lines().take(5).map(|line| serde_json::from_str(line).unwrap()).collect();
    let texts: String = held_out
        .iter()
        .map(|line| format!("{}\n", line["text"].as_str().unwrap().replace('\n', " ")))
        .collect();
    for backend in ["ort", "tract", "reference"] {
        let line = format!(
            "jetmoe classify --model artifact --backend {backend} --format json --batch-size 3 --max-tokens 160"
        );
        let output = context.command(&line).input(&texts).run();
        let results = output.succeeded().lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let results: Vec<Value> = results.collect();
        assert_eq!(results.len(), held_out.len());
        for (result, expected) in results.iter().zip(&held_out) {
            assert_eq!(result["label_index"], expected["label"]);
            for (found, expected) in
                result["logits"].as_array().unwrap().iter().zip(expected["logits"].as_array().unwrap())
            {
                let error = (found.as_f64().unwrap() - expected.as_f64().unwrap()).abs();
                assert!(error < ROUNDED, "{backend}: {found} instead of {expected}");
            }
        }
    }
}

#[test]
fn a_text_that_cannot_be_classified_is_refused() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let lines = [
        "jetmoe classify --model artifact",
        "jetmoe classify --model artifact \"In the beginning\" \"\"",
        "jetmoe classify --model artifact --batch-size 0 x",
        "jetmoe classify --model artifact --max-tokens 0 x",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_text_longer_than_the_positions_is_refused_or_cut() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    let text = "And he begat sons and daughters. ".repeat(100);
    let refused = context.command("jetmoe classify --model artifact").input(&text).run();
    assert!(refused.refused().contains("tokens, more than the 512 positions of the model"), "{refused:#?}");
    let cut = context.command("jetmoe classify --model artifact --max-tokens 100").input(&text).run();
    assert!(cut.succeeded().contains("Old Testament"), "{cut:#?}");
}
