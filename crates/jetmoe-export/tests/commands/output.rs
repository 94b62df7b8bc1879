//! Output folders that are in use.

use std::fs;

use jetmoe_artifact::{Artifact, Task};

use crate::workbench::{Ended, Workbench, assert_transcript, edit_json};

const EXPORT: &str = "jetmoe-export tiny --output artifact";

/// A workbench with the checkpoints `tiny` and `jetmoe-mini` and an artifact of one of them.
fn with_artifact_of(checkpoint: &str) -> Workbench {
    let bench = Workbench::new();
    bench.fixture("tiny");
    bench.fixture("jetmoe-mini");
    bench.run(&format!("jetmoe-export {checkpoint} --output artifact")).succeeded();
    bench
}

/// Refused with advice, and nothing has changed.
#[track_caller]
fn refused(bench: &Workbench, line: &str, what: &str, advice: &str) -> Ended {
    let before = bench.files("");
    let manifest = fs::read(bench.path("artifact/jetmoe.json")).ok();
    let ended = bench.run(line);
    let message = ended.refused();
    assert!(message.contains(what) && message.contains(advice), "{message}");
    assert_eq!(bench.files(""), before);
    assert_eq!(fs::read(bench.path("artifact/jetmoe.json")).ok(), manifest);
    ended
}

#[test]
fn a_folder_with_other_files_is_refused() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    fs::create_dir(bench.path("artifact")).unwrap();
    fs::write(bench.path("artifact/notes.txt"), "mine").unwrap();
    assert_transcript!(refused(&bench, EXPORT, "artifact is not empty", "--force"));
}

#[test]
fn an_artifact_of_another_checkpoint_is_refused() {
    let bench = with_artifact_of("jetmoe-mini");
    assert_transcript!(refused(&bench, EXPORT, "another checkpoint, [FOLDER]/jetmoe-mini", "--force"));
}

#[test]
fn an_artifact_for_another_task_is_refused() {
    let bench = with_artifact_of("tiny");
    let line = "jetmoe-export tiny --output artifact --task backbone";
    assert_transcript!(refused(&bench, line, "an artifact for causal-lm", "--force"));
}

#[test]
fn an_artifact_of_a_newer_version_is_refused() {
    let bench = with_artifact_of("tiny");
    edit_json(&bench.path("artifact/jetmoe.json"), |manifest| manifest["schema_version"] = 99.into());
    assert_transcript!(refused(&bench, EXPORT, "schema version 99", "--force"));
}

#[test]
fn a_file_is_no_output_folder() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    fs::write(bench.path("artifact"), "").unwrap();
    assert_transcript!(refused(&bench, EXPORT, "artifact is a file", "choose a folder"));
    refused(&bench, &format!("{EXPORT} --force"), "artifact is a file", "choose a folder");
}

#[test]
fn a_checkpoint_is_not_overwritten_by_its_artifact() {
    let bench = Workbench::new();
    bench.copy("tiny", "checkpoint");
    let line = "jetmoe-export checkpoint --output checkpoint --force";
    assert_transcript!(refused(&bench, line, "checkpoint is the checkpoint itself", "choose another folder"));
}

#[test]
fn a_folder_that_another_export_writes_into_is_refused() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    fs::create_dir_all(bench.path("artifact/export.partial")).unwrap();
    let lock = fs::File::create(bench.path("artifact/export.partial/lock")).unwrap();
    lock.lock().unwrap();
    assert_transcript!(refused(&bench, EXPORT, "another export is writing into artifact", "wait"));
    drop(lock);
    bench.run(EXPORT).succeeded();
}

#[test]
fn an_empty_folder_and_one_that_does_not_exist_are_taken() {
    let bench = Workbench::new();
    bench.fixture("tiny");
    fs::create_dir(bench.path("empty")).unwrap();
    for folder in ["empty", "new/and/deep"] {
        bench.run(&format!("jetmoe-export tiny --output {folder}")).succeeded();
        Artifact::open(bench.path(folder)).unwrap();
    }
}

#[test]
fn an_artifact_of_the_same_checkpoint_is_replaced() {
    let bench = with_artifact_of("tiny");
    fs::write(bench.path("artifact/notes.txt"), "mine").unwrap();
    let files = bench.files("artifact");
    bench.run("jetmoe-export tiny --output artifact --opset 20 --outputs hidden-states").succeeded();
    let artifact = Artifact::open(bench.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    let [graph] = artifact.manifest().graphs.as_slice() else { panic!("one graph") };
    assert_eq!((graph.opset, graph.optional_outputs.len()), (20, 1));
    assert_eq!(bench.files("artifact"), files);
}

#[test]
fn force_replaces_another_artifact_and_leaves_foreign_files() {
    let bench = with_artifact_of("jetmoe-mini");
    fs::write(bench.path("artifact/notes.txt"), "mine").unwrap();
    fs::write(bench.path("artifact/onnx/other.onnx"), "mine too").unwrap();
    bench.run(&format!("{EXPORT} --force")).succeeded();
    Artifact::open(bench.path("artifact")).unwrap().check_digests().unwrap();
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
    assert_eq!(bench.files("artifact"), files, "the tokenizer of the other artifact is gone");
}

#[test]
fn force_replaces_the_other_task_and_a_manifest_that_cannot_be_read() {
    let bench = with_artifact_of("tiny");
    bench.run(&format!("{EXPORT} --task backbone --force")).succeeded();
    assert_eq!(Artifact::open(bench.path("artifact")).unwrap().manifest().graphs[0].task, Task::Backbone);
    fs::write(bench.path("artifact/jetmoe.json"), "{").unwrap();
    bench.run(&format!("{EXPORT} --force")).succeeded();
    assert_eq!(Artifact::open(bench.path("artifact")).unwrap().manifest().graphs[0].task, Task::CausalLm);
}

#[test]
fn force_removes_nothing_outside_of_the_folder() {
    let bench = with_artifact_of("jetmoe-mini");
    fs::write(bench.path("precious.txt"), "mine").unwrap();
    edit_json(&bench.path("artifact/jetmoe.json"), |manifest| {
        manifest["files"][0]["path"] = "../precious.txt".into();
    });
    refused(&bench, EXPORT, "../precious.txt", "--force");
    bench.run(&format!("{EXPORT} --force")).succeeded();
    assert!(bench.path("precious.txt").exists());
}

#[cfg(unix)]
#[test]
fn graphs_with_the_same_weights_share_them_on_disk() {
    use std::os::unix::fs::MetadataExt;

    let bench = with_artifact_of("tiny");
    bench.run(&format!("{EXPORT} --profile onnxruntime")).succeeded();
    let file = |path: &str| fs::metadata(bench.path(path)).unwrap().ino();
    assert_eq!(file("artifact/onnx/model.onnx_data"), file("artifact/onnx/onnxruntime/model.onnx_data"));
    Artifact::open(bench.path("artifact")).unwrap();
    bench.run(&format!("{EXPORT} --precision bf16")).succeeded();
    assert_ne!(file("artifact/onnx/model.onnx_data"), file("artifact/onnx/model_bf16.onnx_data"));
}
