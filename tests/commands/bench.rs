//! `jetmoe bench`.

use jetmoe_testing::{CommandOutput, assert_text};
use serde_json::Value;

use crate::context::context_with_artifact;

#[test]
fn every_batch_and_length_is_measured_on_every_runtime() {
    let context = context_with_artifact("tiny");
    let output = context.run(
        "jetmoe bench --model artifact --backend ort,tract --threads 1 --prompt-tokens 3,5 --new-tokens 2 --batch 1,2",
    );
    output.succeeded();
    // what depends on machine and moment: the machine's name, numbers with a fraction, sizes of memory, column widths
    let filters = [
        (r"(?m)^.*, 1 threads:", "[PROCESSOR], 1 threads:"),
        (r"\b\d+\.\d+\b", "[N]"),
        (r"\b\d+ MiB", "[N] MiB"),
        (r" {2,}", "  "),
    ];
    assert_text!(output.transcript(), filters);
}

#[test]
fn what_is_counted_does_not_depend_on_the_machine() {
    let context = context_with_artifact("tiny");
    let output = context.run(
        "jetmoe bench --model artifact --threads 1 --prompt-tokens 4 --new-tokens 2 --batch 1,3 --format json",
    );
    let report: Value = serde_json::from_str(output.succeeded()).unwrap();
    let runs = report["results"][0]["runs"].as_array().unwrap();
    let number = |run: &Value, field: &str| run["decode"][field].as_f64().unwrap();
    // a larger batch reads more experts, but fewer for each of its tokens, and the cache of each of its sequences
    assert!(number(&runs[1], "weight_bytes_per_step") > number(&runs[0], "weight_bytes_per_step"));
    assert!(number(&runs[1], "weight_bytes_per_token") < number(&runs[0], "weight_bytes_per_token"));
    let cache = runs.iter().map(|run| number(run, "cache_bytes_per_step")).collect::<Vec<_>>();
    assert_eq!(cache[1], 3.0 * cache[0]);
}

#[test]
fn what_cannot_be_measured_is_refused_before_anything_is_loaded() {
    let context = context_with_artifact("tiny");
    let lines = [
        "jetmoe bench --model tiny",
        "jetmoe bench --model artifact --prompt-tokens 1000000",
        "jetmoe bench --model artifact --new-tokens 1000000",
        "jetmoe bench --model artifact --prompt-tokens 8,0",
        "jetmoe bench --model artifact --batch 0",
        "jetmoe bench --model artifact --repetitions 0",
        "jetmoe bench --model artifact --backend reference",
        "jetmoe bench --model artifact --prompt-tokens 8 --precision q4",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}
