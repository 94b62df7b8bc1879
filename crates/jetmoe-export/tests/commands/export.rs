//! What an export prints and leaves.

use std::fs;

use jetmoe_artifact::{Artifact, OptionalOutput, Task};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{CommandOutput, assert_text, assert_transcript};
use jetmoe_text::Tokenizer;

use crate::new_context;

#[test]
fn a_language_model_becomes_an_artifact() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    let output = context.run("jetmoe-export jetmoe-mini --output artifact");
    output.succeeded();
    assert_transcript!(output);
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
    assert_eq!(context.files("artifact"), files);
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    let source = context.path("jetmoe-mini");
    assert_eq!(artifact.manifest().checkpoint.source, source.to_str().unwrap(), "known from any folder");
}

#[test]
fn verification_is_reported_and_remembered() {
    let context = new_context();
    context.fixture("jetmoe-mini-classifier");
    let output = context.run("jetmoe-export jetmoe-mini-classifier --output artifact --verify");
    output.succeeded();
    assert_transcript!(output);
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    let records = &artifact.manifest().graphs[0].verification;
    let backends: Vec<_> = records.iter().filter_map(|record| record.backend.split(' ').next()).collect();
    assert_eq!(backends, ["ort", "tract"]);
    assert!(records.iter().all(|record| record.passed && record.tokens > 0 && !record.tensors.is_empty()));
}

#[test]
fn what_was_asked_for_is_what_the_manifest_says() {
    let context = new_context();
    context.fixture("tiny");
    let output = context.run(
        "jetmoe-export tiny --output artifact --task backbone --opset 18 --outputs router-logits,hidden-states",
    );
    output.succeeded();
    assert_transcript!(output);
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    let [graph] = artifact.manifest().graphs.as_slice() else { panic!("one graph") };
    assert_eq!((graph.task, graph.opset), (Task::Backbone, 18));
    assert_eq!(graph.optional_outputs, OptionalOutput::ALL.iter().copied().collect());
}

#[test]
fn unknown_settings_are_noted_for_the_task_that_follows_settings() {
    let context = new_context();
    let copy = context.copy("jetmoe-mini", "checkpoint");
    edit_json(&copy.join("generation_config.json"), |config| {
        for key in ["a", "b", "c", "d", "e", "f", "g"] {
            config[key] = 1.into();
        }
    });
    let note = "generation_config.json has unknown keys, which have no effect: a, b, c, d, e and 2 more\n";
    for (task, noted) in [("causal-lm", note), ("backbone", "")] {
        let output = context.run(&format!("jetmoe-export checkpoint --output {task} --task {task}"));
        assert_eq!((output.status, output.stderr.as_str()), (Some(0), noted));
    }
}

#[test]
fn a_task_that_the_checkpoint_has_no_head_for_is_refused() {
    let context = new_context();
    context.fixture("tiny");
    context.fixture("odd");
    let classes = context.run("jetmoe-export tiny --output artifact --task sequence-classification");
    assert!(classes.refused().contains("choose one of: causal-lm, backbone"));
    assert!(!context.path("artifact").exists());
    assert_transcript!(classes);
}

#[test]
fn a_precision_that_the_profile_lacks_is_refused_before_anything_is_written() {
    let context = new_context();
    context.fixture("tiny");
    let output = context.run("jetmoe-export tiny --output artifact --profile native --precision q4f16");
    assert!(output.refused().contains("one of its precisions: bf16, int8, q4"), "{}", output.refused());
    assert!(!context.path("artifact").exists());
    assert_transcript!(output);
}

#[test]
fn a_checkpoint_without_a_tokenizer_can_be_exported() {
    let context = new_context();
    context.fixture("tiny");
    context.run("jetmoe-export tiny --output artifact").succeeded();
    assert!(!context.files("artifact").iter().any(|file| file.contains("tokenizer")));
    assert!(Tokenizer::open(&context.path("artifact")).unwrap().is_none());
}

#[test]
fn words_that_mean_nothing_are_refused_with_those_that_do() {
    let context = new_context();
    context.fixture("tiny");
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
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert!(!context.path("artifact").exists());
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_verification_that_cannot_be_made_says_that_the_export_was() {
    let context = new_context();
    context.fixture("tiny");
    fs::write(context.path("text"), "no library").unwrap();
    let line = context.command("jetmoe-export tiny --output artifact --verify");
    let output = line.environment("ORT_DYLIB_PATH", context.path("text")).run();
    assert_eq!(output.status, Some(2));
    assert!(output.stderr.starts_with("error: artifact was exported but not verified: "), "{output:#?}");
    assert!(output.stderr.contains("[FOLDER]/text") && output.stderr.contains("correct or unset it"));
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    assert!(artifact.manifest().graphs[0].verification.is_empty());
}

/// In a pipe nothing is drawn: [`CommandOutput::succeeded`] says so of every export here.
#[test]
#[cfg(target_os = "linux")]
fn progress_is_drawn_on_a_terminal() {
    let context = new_context();
    context.fixture("jetmoe-mini");
    let export = format!("{} jetmoe-mini --output artifact --verify", crate::PROGRAM);
    let terminal = std::process::Command::new("script")
        .args(["--quiet", "--return", "--command", &export, "/dev/null"])
        .current_dir(context.path(""))
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
    let context = new_context();
    let (long, short) = (context.run("jetmoe-export --help"), context.run("jetmoe-export -h"));
    long.succeeded();
    short.succeeded();
    assert_transcript!(long, short);
}

#[test]
fn a_reader_that_went_away_is_no_error() {
    let context = new_context();
    context.fixture("tiny");
    let mut child = context.command("jetmoe-export tiny --output artifact").start();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
    Artifact::open(context.path("artifact")).unwrap();
}

/// `--keep` is the old spelling of `--override`.
#[test]
fn both_spellings_store_a_part_in_another_format() {
    let context = new_context();
    context.fixture("tiny");
    for flag in ["--override", "--keep"] {
        let command = "jetmoe-export tiny --output artifact --precision int8";
        context.run(&format!("{command} {flag} f32:lm_head")).succeeded();
        let artifact = Artifact::open(context.path("artifact")).unwrap();
        let plan = artifact.manifest().graphs[0].weights.clone().unwrap();
        let overrides: Vec<String> = plan.overrides.iter().map(|found| found.to_string()).collect();
        assert_eq!(overrides, ["f32:lm_head"], "{flag}");
    }
}

#[test]
fn options_without_effect_are_refused() {
    let context = new_context();
    context.fixture("tiny");
    let export = "jetmoe-export tiny --output artifact";
    let lines = [
        format!("{export} --group-size 64"),
        format!("{export} --precision bf16 --zero-points"),
        format!("{export} --precision f16 --rounding nearest"),
        format!("{export} --precision q4 --profile onnxruntime --kv-cache int8"),
        format!("{export} --precision q4 --calibration-tokens 100"),
        format!("{export} --revision v1"),
    ];
    let outputs = lines.map(|line| context.run(&line));
    for output in &outputs {
        output.refused();
    }
    assert!(!context.path("artifact").exists());
    assert_text!(CommandOutput::transcripts(&outputs), []);
    context.run(&format!("{export} --override int8:lm_head --group-size 64")).succeeded();
}

#[test]
fn weights_that_are_not_finite_can_be_exported_on_request() {
    let context = new_context();
    jetmoe_testing::damage::NAN_IN_A_ROUTER.put(&context);
    let export = "jetmoe-export checkpoint --output artifact";
    assert!(context.run(export).refused().contains("--allow-non-finite"));
    context.run(&format!("{export} --allow-non-finite")).succeeded();
}
