//! Models by their hub ids, from a local hub.

use std::fs;

use jetmoe::artifact::names;
use jetmoe::checkpoint::{Checkpoint, names as checkpoint_names};
use jetmoe::export::{ExportOptions, export};
use jetmoe_testing::files::edit_json;
use jetmoe_testing::hub::{COMMIT, Contents, ID, MockHub};
use jetmoe_testing::{CheckpointDraft, CommandOutput, TestContext, fixtures};
use serde_json::Value;

use crate::context::{context_with_artifact, new_context};

/// Runs a command line with the hub in place of the one on the internet, and with more variables.
fn run(context: &TestContext, hub: &MockHub, line: &str, variables: &[(&str, &str)]) -> CommandOutput {
    let mut command = context.command(line);
    for (variable, value) in
        [("HF_ENDPOINT", hub.endpoint.as_str()), ("HF_HUB_OFFLINE", "0")].iter().chain(variables)
    {
        command = command.environment(variable, *value);
    }
    command.run()
}

/// A hub whose branch `main` has left the checkpoint `tiny` for one with another weight; the tag `v1` has not.
fn moved_on() -> MockHub {
    let folder = fixtures::checkpoint("tiny");
    let mut later = CheckpointDraft::read(&folder);
    later.weight(checkpoint_names::FINAL_NORM)[0] += 1.0;
    let later = Contents::of_folder(later.write().path());
    let contents = Contents::of_folder(&folder);
    MockHub::serve(Contents { later_files: later.files, revisions: vec!["v1"], ..contents })
}

#[test]
fn verify_downloads_the_commit_that_the_manifest_remembers() {
    let (context, hub) = (new_context(), moved_on());
    let checkpoint = Checkpoint::open(fixtures::checkpoint("tiny")).unwrap();
    let options = ExportOptions {
        revision: Some(COMMIT.to_owned()),
        ..ExportOptions::new(ID, context.path("artifact"))
    };
    export(&checkpoint, &options).unwrap();
    // nothing is downloaded that a manifest alone names
    let line = "jetmoe verify --model artifact --backend tract";
    let output = run(&context, &hub, line, &[]);
    assert!(output.refused().contains(&format!("add --checkpoint {ID}")), "{output:#?}");
    assert_eq!(hub.requests().len(), 0, "{:?}", hub.requests());

    let line = &format!("{line} --checkpoint {ID}");
    let output = run(&context, &hub, line, &[]);
    assert!(output.succeeded().contains(" ok"), "{output:#?}");
    assert!(hub.downloads().contains(&checkpoint_names::WEIGHTS.to_owned()), "{:?}", hub.requests());

    // without it, the hub's default branch is another checkpoint
    edit_json(&context.path("artifact").join(names::MANIFEST), |manifest| {
        manifest["checkpoint"].as_object_mut().unwrap().remove("revision").unwrap();
    });
    let other = run(&context, &hub, line, &[]);
    let expected = format!("{ID} is not the checkpoint that the artifact was made from");
    assert!(other.refused().contains(&expected), "{other:#?}");
}

#[test]
fn a_checkpoint_is_verified_at_a_revision() {
    let (context, hub) = (new_context(), moved_on());
    let line = format!("jetmoe verify --model {ID} --revision v1 --backend tract --format json");
    let output = run(&context, &hub, &line, &[]);
    assert_eq!(output.status, Some(0), "{output:#?}");
    let report: Value = serde_json::from_str(&output.stdout).unwrap();
    assert_eq!(report["passed"], true);
    assert!(hub.downloads().contains(&checkpoint_names::WEIGHTS.to_owned()), "{:?}", hub.requests());
}

#[test]
fn an_artifact_on_the_hub_runs_and_is_inspected_as_its_folder() {
    let context = context_with_artifact("jetmoe-mini");
    let hub = MockHub::serve(Contents::of_folder(&context.path("artifact")));
    let caches = "[FOLDER]/home/.cache/huggingface/hub";
    let snapshot = format!("{caches}/models--jetmoe--jetmoe-mini/snapshots/{COMMIT}");
    let lines = |model: &str| {
        [
            format!("jetmoe run --model {model} --max-new-tokens 8 --prompt \"In the beginning\""),
            format!("jetmoe inspect {model}"),
        ]
    };
    for (by_id, by_folder) in lines(ID).iter().zip(lines("artifact")) {
        let output = run(&context, &hub, by_id, &[]);
        let expected = context.run(&by_folder);
        let found = output.succeeded().replace(&snapshot, "artifact").replace(ID, "artifact");
        assert_eq!(found, expected.succeeded());
    }
    let graph = "onnx/model.onnx_data".to_owned();
    assert_eq!(hub.downloads().iter().filter(|name| **name == graph).count(), 1, "both use the same copy");
}

#[test]
fn a_model_runs_from_a_hub_without_xet() {
    let context = context_with_artifact("jetmoe-mini");
    let contents = Contents::of_folder(&context.path("artifact"));
    let hub = MockHub::serve(Contents { offers_xet: true, ..contents });
    let line = format!("jetmoe run --model {ID} --max-new-tokens 8 --prompt \"In the beginning\"");
    let with_xet = run(&context, &hub, &line, &[]);
    assert!(with_xet.refused().contains("set HF_HUB_DISABLE_XET=1"), "{with_xet:#?}");
    let without_xet = run(&context, &hub, &line, &[("HF_HUB_DISABLE_XET", "1")]);
    let by_folder = context.run(&line.replace(ID, "artifact"));
    assert_eq!(without_xet.succeeded(), by_folder.succeeded());
    fs::remove_dir_all(context.path("artifact")).unwrap();
    let offline = run(&context, &hub, &line, &[("HF_HUB_OFFLINE", "1")]);
    assert_eq!(offline.succeeded(), by_folder.succeeded());
}
