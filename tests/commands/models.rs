//! Model arguments.

use std::fs;

use jetmoe::artifact::Task;
use jetmoe_testing::{CommandOutput, assert_text, assert_transcript};

use crate::context::{context_with_artifact, export_checkpoint};

#[test]
fn a_model_argument_that_is_no_model_is_refused() {
    let context = context_with_artifact("tiny");
    fs::create_dir(context.path("empty")).unwrap();
    let lines = [
        "jetmoe run --prompt x --model nothing",
        "jetmoe run --prompt x --model artefact/tiny",
        "jetmoe run --prompt x --model artifact/onnx/model.onnx",
        "jetmoe run --prompt x --model empty",
        "jetmoe run --prompt x",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_model_of_another_task_is_refused_and_the_command_for_it_named() {
    let context = context_with_artifact("jetmoe-mini-classifier");
    context.fixture("tiny");
    export_checkpoint(&context.path("tiny"), &context.path("backbone"), Some(Task::Backbone), &[]);
    fs::write(context.path("held-out.jsonl"), "{\"text\": \"x\"}\n").unwrap();
    let lines = [
        "jetmoe run --prompt x --model artifact",
        "jetmoe run --prompt x --model jetmoe-mini-classifier",
        "jetmoe run --prompt x --model backbone",
        "jetmoe classify x --model tiny",
        "jetmoe eval --text held-out.jsonl --model backbone",
    ];
    let outputs = lines.map(|line| context.run(line));
    for output in &outputs {
        output.refused();
    }
    assert_text!(CommandOutput::transcripts(&outputs), []);
}

#[test]
fn a_model_without_a_tokenizer_takes_no_text() {
    let context = context_with_artifact("tiny");
    let output = context.run("jetmoe run --prompt x --model artifact");
    assert!(output.refused().contains("put tokenizer.json into the checkpoint and export again"));
    assert_transcript!(output);
}
