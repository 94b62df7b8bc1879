//! Model arguments, and exported models for the other tests.

use std::fs;
use std::path::PathBuf;

use jetmoe::artifact::{OptionalOutput, Task};
use jetmoe::checkpoint::Checkpoint;
use jetmoe::export::{ExportOptions, export};

use crate::workbench::{Ended, Workbench, assert_text, assert_transcript};

impl Workbench {
    /// Puts a checkpoint of the fixtures here, and its artifact as `artifact`.
    pub(crate) fn with_artifact(checkpoint: &str) -> Self {
        Self::with_artifact_for(checkpoint, None, &[])
    }

    /// As [`Workbench::with_artifact`], for a task and with outputs beyond its own.
    pub(crate) fn with_artifact_for(
        checkpoint: &str,
        task: Option<Task>,
        outputs: &[OptionalOutput],
    ) -> Self {
        let bench = Workbench::new();
        bench.fixture(checkpoint);
        bench.export(checkpoint, "artifact", task, outputs);
        bench
    }

    /// Exports a checkpoint that lies here.
    pub(crate) fn export(
        &self,
        checkpoint: &str,
        output: &str,
        task: Option<Task>,
        outputs: &[OptionalOutput],
    ) {
        let source: PathBuf = self.path(checkpoint);
        let options = ExportOptions {
            task,
            optional_outputs: outputs.iter().copied().collect(),
            ..ExportOptions::new(source.to_str().unwrap(), self.path(output))
        };
        export(&Checkpoint::open(source).unwrap(), &options).unwrap();
    }
}

#[test]
fn a_model_argument_that_is_no_model_is_refused() {
    let bench = Workbench::with_artifact("tiny");
    fs::create_dir(bench.path("empty")).unwrap();
    let lines = [
        "jetmoe run --prompt x --model nothing",
        "jetmoe run --prompt x --model artefact/tiny",
        "jetmoe run --prompt x --model artifact/onnx/model.onnx",
        "jetmoe run --prompt x --model empty",
        "jetmoe run --prompt x",
    ];
    let ended = lines.map(|line| bench.run(line));
    for ended in &ended {
        ended.refused();
    }
    assert_text!(Ended::transcripts(&ended), []);
}

#[test]
fn a_model_of_another_task_is_refused_and_the_command_for_it_named() {
    let bench = Workbench::with_artifact("jetmoe-mini-classifier");
    bench.fixture("tiny");
    bench.export("tiny", "backbone", Some(Task::Backbone), &[]);
    fs::write(bench.path("held-out.jsonl"), "{\"text\": \"x\"}\n").unwrap();
    let lines = [
        "jetmoe run --prompt x --model artifact",
        "jetmoe run --prompt x --model jetmoe-mini-classifier",
        "jetmoe run --prompt x --model backbone",
        "jetmoe classify x --model tiny",
        "jetmoe eval --text held-out.jsonl --model backbone",
    ];
    let ended = lines.map(|line| bench.run(line));
    for ended in &ended {
        ended.refused();
    }
    assert_text!(Ended::transcripts(&ended), []);
}

#[test]
fn a_model_without_a_tokenizer_takes_no_text() {
    let bench = Workbench::with_artifact("tiny");
    let ended = bench.run("jetmoe run --prompt x --model artifact");
    assert!(ended.refused().contains("put tokenizer.json into the checkpoint and export again"));
    assert_transcript!(ended);
}
