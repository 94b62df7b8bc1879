//! What an export prints and leaves.

use std::fs;

use jetmoe_artifact::{Artifact, OptionalOutput, Task};
use jetmoe_text::Tokenizer;

use crate::workbench::{Ended, Workbench, assert_text, assert_transcript};

#[test]
fn a_language_model_becomes_an_artifact() {
    let bench = Workbench::new();
    bench.fixture("jetmoe-mini");
    let ended = bench.run("jetmoe-export jetmoe-mini --output artifact");
    ended.succeeded();
    assert_transcript!(ended);
    let files = [
        "chat_template.jinja",
        "config.json",
        "genai_config.json",
        "generation_config.json",
        "jetmoe.json",
        "onnx",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "tokenizer.json",
        "tokenizer_config.json",
    ];
    assert_eq!(bench.files("artifact"), files);
    let artifact = Artifact::open(bench.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    let source = bench.path("jetmoe-mini");
    assert_eq!(artifact.manifest().checkpoint.source, source.to_str().unwrap(), "known from any folder");
}

#[test]
fn verification_is_reported_and_remembered() {
    let bench = Workbench::new();
    bench.fixture("jetmoe-mini-classifier");
    let ended = bench.run("jetmoe-export jetmoe-mini-classifier --output artifact --verify");
    ended.succeeded();
    assert_transcript!(ended);
    let artifact = Artifact::open(bench.path("artifact")).unwrap();
    let records = &artifact.manifest().graphs[0].verification;
    let backends: Vec<_> = records.iter().filter_map(|record| record.backend.split(' ').next()).collect();
    assert_eq!(backends, ["ort", "tract"]);
    assert!(records.iter().all(|record| record.passed && record.tokens > 0 && !record.tensors.is_empty()));
}

#[test]
fn what_was_asked_for_is_what_the_manifest_says() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let ended = bench.run(
        "jetmoe-export tiny --output artifact --task backbone --opset 18 --outputs router-logits,hidden-states",
    );
    ended.succeeded();
    assert_transcript!(ended);
    let artifact = Artifact::open(bench.path("artifact")).unwrap();
    let [graph] = artifact.manifest().graphs.as_slice() else { panic!("one graph") };
    assert_eq!((graph.task, graph.opset), (Task::Backbone, 18));
    assert_eq!(graph.optional_outputs, OptionalOutput::ALL.iter().copied().collect());
}

#[test]
fn a_task_that_the_checkpoint_has_no_head_for_is_refused() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    bench.fixture("odd");
    let classes = bench.run("jetmoe-export tiny --output artifact --task sequence-classification");
    assert!(classes.refused().contains("choose one of: causal-lm, backbone"));
    assert!(!bench.path("artifact").exists());
    assert_transcript!(classes);
}

#[test]
fn a_precision_that_the_profile_lacks_is_refused_before_anything_is_written() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let ended = bench.run("jetmoe-export tiny --output artifact --profile native --precision q4f16");
    assert!(ended.refused().contains("one of its precisions: bf16, int8, q4"), "{}", ended.refused());
    assert!(!bench.path("artifact").exists());
    assert_transcript!(ended);
}

#[test]
fn a_checkpoint_without_a_tokenizer_can_be_exported() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    bench.run("jetmoe-export tiny --output artifact").succeeded();
    assert!(!bench.files("artifact").iter().any(|file| file.contains("tokenizer")));
    assert!(Tokenizer::open(&bench.path("artifact")).unwrap().is_none());
}

#[test]
fn words_that_mean_nothing_are_refused_with_those_that_do() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let lines = [
        "jetmoe-export tiny",
        "jetmoe-export --output artifact",
        "jetmoe-export tiny --output artifact --task chat",
        "jetmoe-export tiny --output artifact --profile fast",
        "jetmoe-export tiny --output artifact --precision q5",
        "jetmoe-export tiny --output artifact --opset 17",
        "jetmoe-export tiny --output artifact --opset newest",
        "jetmoe-export tiny --output artifact --outputs logits",
        "jetmoe-export tiny --output artifact --ouputs hidden-states",
    ];
    let ended = lines.map(|line| bench.run(line));
    for ended in &ended {
        ended.refused();
    }
    assert!(!bench.path("artifact").exists());
    assert_text!(Ended::transcripts(&ended), []);
}

#[test]
fn a_verification_that_cannot_be_made_says_that_the_export_was() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    fs::write(bench.path("text"), "no library").unwrap();
    let line = bench.command("jetmoe-export tiny --output artifact --verify");
    let ended = line.environment("ORT_DYLIB_PATH", bench.path("text")).run();
    assert_eq!(ended.status, Some(2));
    assert!(ended.stderr.starts_with("error: artifact was exported but not verified: "), "{ended:#?}");
    assert!(ended.stderr.contains("[FOLDER]/text") && ended.stderr.contains("correct or unset it"));
    let artifact = Artifact::open(bench.path("artifact")).unwrap();
    assert!(artifact.manifest().graphs[0].verification.is_empty());
}

/// In a pipe nothing is drawn: [`Ended::succeeded`] says so of every export here.
#[test]
#[cfg(target_os = "linux")]
fn progress_is_drawn_on_a_terminal() {
    let bench = Workbench::new();
    bench.fixture("jetmoe-mini");
    let export = format!("{} jetmoe-mini --output artifact --verify", crate::PROGRAM);
    let terminal = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &export, "/dev/null"])
        .current_dir(bench.path(""))
        .env("TERM", "xterm")
        .stdin(std::process::Stdio::null())
        .output()
        .expect("this test needs the program `script` of util-linux, which gives a command a terminal");
    let shown = String::from_utf8_lossy(&terminal.stdout);
    assert!(terminal.status.success(), "{shown}");
    assert!(shown.contains("hashing") && shown.contains("writing") && shown.contains("verifying"), "{shown}");
    assert!(shown.contains("artifact/onnx/model.onnx (causal-lm, f32, opset 21)"), "{shown}");
}

#[test]
fn help() {
    let bench = Workbench::new();
    let (long, short) = (bench.run("jetmoe-export --help"), bench.run("jetmoe-export -h"));
    long.succeeded();
    short.succeeded();
    assert_transcript!(long, short);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    let mut child = bench.command("jetmoe-export tiny --output artifact").start();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    Artifact::open(bench.path("artifact")).unwrap();
}

/// `--keep` is the old spelling of `--override`.
#[test]
fn both_spellings_store_a_part_in_another_format() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    for flag in ["--override", "--keep"] {
        let command = "jetmoe-export tiny --output artifact --precision int8";
        bench.run(&format!("{command} {flag} f32:lm_head")).succeeded();
        let artifact = Artifact::open(bench.path("artifact")).unwrap();
        let plan = artifact.manifest().graphs[0].weights.clone().unwrap();
        let overrides: Vec<String> = plan.overrides.iter().map(|found| found.to_string()).collect();
        assert_eq!(overrides, ["f32:lm_head"], "{flag}");
    }
}
