//! Output folders that are in use.

use std::fs;

use jetmoe_artifact::{Artifact, Task};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::{CommandOutput, TestContext, assert_transcript};

use crate::new_context;

const EXPORT: &str = "jetmoe-export tiny --output artifact";

/// A context with the checkpoints `tiny` and `jetmoe-mini` and an artifact of one of them.
fn with_artifact_of(checkpoint: &str) -> TestContext {
    let context = new_context();
    context.fixture("tiny");
    context.fixture("jetmoe-mini");
    context.run(&format!("jetmoe-export {checkpoint} --output artifact")).succeeded();
    context
}

/// Refused with advice, and nothing has changed.
#[track_caller]
fn refused(context: &TestContext, line: &str, what: &str, advice: &str) -> CommandOutput {
    let before = context.files("");
    let manifest = fs::read(context.path("artifact/jetmoe.json")).ok();
    let output = context.run(line);
    let message = output.refused();
    assert!(message.contains(what) && message.contains(advice), "{message}");
    assert_eq!(context.files(""), before);
    assert_eq!(fs::read(context.path("artifact/jetmoe.json")).ok(), manifest);
    output
}

#[test]
fn a_folder_with_other_files_is_refused() {
    let context = new_context();
    context.fixture("tiny");
    fs::create_dir(context.path("artifact")).unwrap();
    fs::write(context.path("artifact/notes.txt"), "mine").unwrap();
    assert_transcript!(refused(&context, EXPORT, "artifact is not empty", "--force"));
}

#[test]
fn an_artifact_of_another_checkpoint_is_refused() {
    let context = with_artifact_of("jetmoe-mini");
    assert_transcript!(refused(&context, EXPORT, "another checkpoint, [FOLDER]/jetmoe-mini", "--force"));
}

#[test]
fn an_artifact_for_another_task_is_refused() {
    let context = with_artifact_of("tiny");
    let line = "jetmoe-export tiny --output artifact --task backbone";
    assert_transcript!(refused(&context, line, "an artifact for causal-lm", "--force"));
}

#[test]
fn an_artifact_of_a_newer_version_is_refused() {
    let context = with_artifact_of("tiny");
    edit_json(&context.path("artifact/jetmoe.json"), |manifest| manifest["schema_version"] = 99.into());
    assert_transcript!(refused(&context, EXPORT, "schema version 99", "--force"));
}

#[test]
fn a_file_is_no_output_folder() {
    let context = new_context();
    context.fixture("tiny");
    fs::write(context.path("artifact"), "").unwrap();
    assert_transcript!(refused(&context, EXPORT, "artifact is a file", "choose a folder"));
    refused(&context, &format!("{EXPORT} --force"), "artifact is a file", "choose a folder");
}

#[test]
fn a_checkpoint_is_not_overwritten_by_its_artifact() {
    let context = new_context();
    context.copy("tiny", "checkpoint");
    let line = "jetmoe-export checkpoint --output checkpoint --force";
    assert_transcript!(refused(
        &context,
        line,
        "checkpoint is the checkpoint itself",
        "choose another folder"
    ));
}

#[test]
fn a_folder_that_another_export_writes_into_is_refused() {
    let context = new_context();
    context.fixture("tiny");
    fs::create_dir_all(context.path("artifact/export.partial")).unwrap();
    let lock = fs::File::create(context.path("artifact/export.partial/lock")).unwrap();
    lock.lock().unwrap();
    assert_transcript!(refused(&context, EXPORT, "another export is writing into artifact", "wait"));
    drop(lock);
    context.run(EXPORT).succeeded();
}

#[test]
fn an_empty_folder_and_one_that_does_not_exist_are_taken() {
    let context = new_context();
    context.fixture("tiny");
    fs::create_dir(context.path("empty")).unwrap();
    for folder in ["empty", "new/and/deep"] {
        context.run(&format!("jetmoe-export tiny --output {folder}")).succeeded();
        Artifact::open(context.path(folder)).unwrap();
    }
}

#[test]
fn an_artifact_of_the_same_checkpoint_is_replaced() {
    let context = with_artifact_of("tiny");
    fs::write(context.path("artifact/notes.txt"), "mine").unwrap();
    let files = context.files("artifact");
    context.run("jetmoe-export tiny --output artifact --opset 20 --outputs hidden-states").succeeded();
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    let [graph] = artifact.manifest().graphs.as_slice() else { panic!("one graph") };
    assert_eq!((graph.opset, graph.optional_outputs.len()), (20, 1));
    assert_eq!(context.files("artifact"), files);
}

#[test]
fn force_replaces_another_artifact_and_leaves_foreign_files() {
    let context = with_artifact_of("jetmoe-mini");
    fs::write(context.path("artifact/notes.txt"), "mine").unwrap();
    fs::write(context.path("artifact/onnx/other.onnx"), "mine too").unwrap();
    context.run(&format!("{EXPORT} --force")).succeeded();
    Artifact::open(context.path("artifact")).unwrap().check_digests().unwrap();
    let files = [
        "config.json",
        "generation_config.json",
        "jetmoe.json",
        "notes.txt",
        "onnx",
        "onnx/model.onnx",
        "onnx/model.onnx_data",
        "onnx/other.onnx",
    ];
    assert_eq!(context.files("artifact"), files, "the tokenizer of the other artifact is gone");
}

#[test]
fn force_replaces_the_other_task_and_a_manifest_that_cannot_be_read() {
    let context = with_artifact_of("tiny");
    context.run(&format!("{EXPORT} --task backbone --force")).succeeded();
    assert_eq!(Artifact::open(context.path("artifact")).unwrap().manifest().graphs[0].task, Task::Backbone);
    fs::write(context.path("artifact/jetmoe.json"), "{").unwrap();
    context.run(&format!("{EXPORT} --force")).succeeded();
    assert_eq!(Artifact::open(context.path("artifact")).unwrap().manifest().graphs[0].task, Task::CausalLm);
}

#[test]
fn force_removes_nothing_outside_of_the_folder() {
    let context = with_artifact_of("jetmoe-mini");
    fs::write(context.path("precious.txt"), "mine").unwrap();
    edit_json(&context.path("artifact/jetmoe.json"), |manifest| {
        manifest["files"][0]["path"] = "../precious.txt".into();
    });
    refused(&context, EXPORT, "../precious.txt", "--force");
    context.run(&format!("{EXPORT} --force")).succeeded();
    assert!(context.path("precious.txt").exists());
}

/// onnx 1.21 and newer refuse data files with several names ("multiple hard links").
#[cfg(unix)]
#[test]
fn graphs_with_the_same_weights_have_files_of_their_own() {
    use std::os::unix::fs::MetadataExt;

    let context = with_artifact_of("tiny");
    context.run(&format!("{EXPORT} --profile onnxruntime")).succeeded();
    let files = ["artifact/onnx/model.onnx_data", "artifact/onnx/onnxruntime/model.onnx_data"];
    let [portable, onnxruntime] = files.map(|path| fs::metadata(context.path(path)).unwrap());
    assert_ne!(portable.ino(), onnxruntime.ino());
    assert_eq!((portable.nlink(), onnxruntime.nlink()), (1, 1));
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    let [one, other] = artifact.manifest().graphs.as_slice() else { panic!("two graphs") };
    assert_eq!(one.data.sha256, other.data.sha256);
}

#[test]
fn edited_files_stay_when_another_graph_is_added() {
    let context = with_artifact_of("jetmoe-mini");
    let export = "jetmoe-export jetmoe-mini --output artifact";
    let read = |name: &str| fs::read_to_string(context.path("artifact").join(name)).unwrap();
    let original = read("genai_config.json");
    fs::write(context.path("artifact/genai_config.json"), "mine").unwrap();
    edit_json(&context.path("artifact/generation_config.json"), |config| config["max_new_tokens"] = 7.into());
    Artifact::accept_edits(&context.path("artifact")).unwrap();
    let edited = read("generation_config.json");
    for precision in ["bf16", "q4"] {
        let output = context.run(&format!("{export} --precision {precision}"));
        assert_eq!(output.status, Some(0), "{output:#?}");
        assert!(output.stderr.contains("generation_config.json, genai_config.json kept"), "{output:#?}");
        assert_eq!((read("genai_config.json").as_str(), &read("generation_config.json")), ("mine", &edited));
        Artifact::open(context.path("artifact")).unwrap().check_digests().unwrap();
    }
    fs::remove_file(context.path("artifact/genai_config.json")).unwrap();
    context.run(&format!("{export} --precision q4"));
    assert_eq!(read("genai_config.json"), original, "a removed file is written again");
}
