//! `jetmoe verify`.

use std::fs;

use jetmoe::artifact::{OptionalOutput, Task};
use serde_json::Value;

use crate::workbench::{Ended, Workbench, assert_text, assert_transcript, fixture};

/// An artifact of the case `tiny`, and golden files beside it.
fn tiny() -> Workbench {
    let bench = Workbench::with_artifact_for("tiny", None, OptionalOutput::ALL);
    for (case, copy) in
        [("tiny", "golden.safetensors"), ("linear-rope", "golden-of-another-model.safetensors")]
    {
        fs::copy(fixture(case).join("golden.safetensors"), bench.path(copy)).unwrap();
    }
    bench
}

/// The widths of columns follow the width of numbers, which differ by machine.
const WIDTHS: [(&str, &str); 2] = [(r"\d+ tokens identical", "[TOKENS] identical"), (r" {2,}", "  ")];

#[test]
fn every_runtime_is_compared_with_the_reference() {
    let ended = tiny().run("jetmoe verify --model artifact");
    ended.succeeded();
    assert_text!(ended.transcript(), WIDTHS);
}

#[test]
fn every_backend_is_compared_with_a_golden_file() {
    let ended = tiny().run("jetmoe verify --model artifact --golden golden.safetensors");
    ended.succeeded();
    assert_text!(ended.transcript(), WIDTHS);
}

#[test]
fn what_is_out_of_tolerance_ends_with_status_1() {
    let bench = tiny();
    let line = "jetmoe verify --model artifact --golden golden-of-another-model.safetensors --backend tract";
    let ended = bench.run(line);
    assert_eq!((ended.status, ended.stderr.as_str()), (Some(1), ""));
    assert!(ended.stdout.contains("FAILED") && !ended.stdout.contains(" ok"), "{ended:#?}");
    let json = bench.run(&format!("{line} --format json"));
    assert_eq!((json.status, json.stderr.as_str()), (Some(1), ""));
    let report: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!((&report["passed"], &report["backends"][0]["passed"]), (&false.into(), &false.into()));
}

#[test]
fn what_the_graph_does_not_have_is_reported_as_not_compared() {
    let bench = Workbench::with_artifact_for("tiny", Some(Task::Backbone), &[]);
    fs::copy(fixture("tiny").join("golden.safetensors"), bench.path("golden.safetensors")).unwrap();
    let line = "jetmoe verify --model artifact --golden golden.safetensors --backend ort";
    let ended = bench.run(line);
    ended.succeeded();
    assert_text!(ended.transcript(), WIDTHS);
    let json: Value = serde_json::from_str(bench.run(&format!("{line} --format json")).succeeded()).unwrap();
    let not_compared = json["backends"][0]["not_compared"].as_array().unwrap();
    for what in ["logits", "next.logits", "greedy continuation", "hidden_states.*"] {
        assert!(not_compared.contains(&what.into()), "{not_compared:?}");
    }
}

#[test]
fn a_checkpoint_is_exported_and_verified() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let ended = bench.run("jetmoe verify --model tiny --backend tract");
    assert_eq!(ended.status, Some(0));
    assert_text!(ended.transcript(), WIDTHS);
}

#[test]
fn the_checkpoint_is_the_one_that_the_manifest_remembers_or_the_one_that_is_named() {
    let bench = Workbench::new();
    let checkpoint = bench.copy("tiny", "checkpoint");
    bench.export("checkpoint", "artifact", None, &[]);
    let line = "jetmoe verify --model artifact --backend tract";
    bench.run(line).succeeded();

    fs::rename(checkpoint, bench.path("moved")).unwrap();
    let gone = bench.run(line);
    assert!(gone.refused().contains("name it with --checkpoint"));
    bench.run(&format!("{line} --checkpoint moved")).succeeded();

    bench.fixture("odd");
    let other = bench.run(&format!("{line} --checkpoint odd"));
    assert!(other.refused().contains("odd is not the checkpoint that the artifact was made from"));
    let nothing = bench.run(&format!("{line} --checkpoint nothing"));
    nothing.refused();
    assert_transcript!(gone, other, nothing);
}

#[test]
fn a_golden_file_needs_no_checkpoint_but_for_the_reference() {
    let bench = tiny();
    fs::remove_file(bench.path("tiny")).unwrap();
    let line = "jetmoe verify --model artifact --golden golden.safetensors";
    bench.run(&format!("{line} --backend ort,tract")).succeeded();
    let left_out = bench.run(line);
    assert_eq!(left_out.status, Some(0));
    assert!(left_out.stderr.starts_with("the reference is left out: "), "{left_out:#?}");
    assert!(!left_out.stdout.contains("Candle"));
    bench.run(&format!("{line} --backend reference")).refused();
}

#[test]
fn what_cannot_be_compared_is_refused() {
    let bench = tiny();
    fs::write(bench.path("text"), "no golden file").unwrap();
    for (case, copy) in
        [("odd", "golden-of-odd.safetensors"), ("classifier", "golden-of-classifier.safetensors")]
    {
        fs::copy(fixture(case).join("golden.safetensors"), bench.path(copy)).unwrap();
    }
    let lines = [
        "jetmoe verify --model artifact --golden nothing",
        "jetmoe verify --model artifact --golden text",
        "jetmoe verify --model artifact --golden tiny/model.safetensors",
        "jetmoe verify --model artifact --golden golden-of-odd.safetensors",
        "jetmoe verify --model artifact --golden golden-of-classifier.safetensors",
        "jetmoe verify --model artifact --backend reference",
        "jetmoe verify --model artifact --backend tract,cuda",
    ];
    let ended: Vec<Ended> = lines.iter().map(|line| bench.run(line)).collect();
    for ended in &ended {
        ended.refused();
    }
    assert_text!(Ended::transcripts(&ended), []);
}

#[test]
fn a_golden_file_of_which_the_graph_has_nothing_proves_nothing() {
    let bench = Workbench::with_artifact_for("classifier", Some(Task::Backbone), &[]);
    let golden = fs::read(fixture("classifier").join("golden.safetensors")).unwrap();
    let golden = safetensors::SafeTensors::deserialize(&golden).unwrap();
    let kept =
        ["input_ids", "attention_mask", "class_logits"].map(|name| (name, golden.tensor(name).unwrap()));
    safetensors::serialize_to_file(kept, None, &bench.path("golden.safetensors")).unwrap();
    let ended = bench.run("jetmoe verify --model artifact --golden golden.safetensors --backend tract");
    assert!(ended.refused().contains("nothing was compared"));
    assert_transcript!(ended);
}
