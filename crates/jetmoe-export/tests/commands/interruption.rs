//! Exports that do not come to their end.

use std::fs;
use std::process::{Child, Command};
use std::time::Duration;

use jetmoe_artifact::{Artifact, Error};
use jetmoe_testing::TestContext;
use jetmoe_testing::files::edit_json;
use serde_json::json;

use crate::new_context;

/// A folder holds a complete artifact with one of these operator sets, or none. Never may a manifest
/// accept files of two exports.
#[track_caller]
fn assert_whole_or_none(context: &TestContext, opsets: &[u32]) {
    match Artifact::open(context.path("artifact")) {
        Ok(artifact) => {
            artifact.check_digests().unwrap();
            let opset = artifact.manifest().graphs[0].opset;
            assert!(opsets.contains(&opset), "{opset}");
        }
        Err(Error::NotFound { .. } | Error::NotAnArtifact { .. }) => {}
        Err(error) => panic!("{error}\n{:?}", context.files("artifact")),
    }
}

/// Kills exports at ever later moments, the last one after its end, each going on from what the one before left.
fn kill_at_every_moment(context: &TestContext, opset: u32) {
    let line = format!("jetmoe-export tiny --output artifact --opset {opset}");
    for delay in (0..).step_by(3).map(Duration::from_millis) {
        let mut child = context.command(&line).start();
        std::thread::sleep(delay);
        // SIGKILL: no handler, no destructor
        child.kill().unwrap();
        let output = child.wait_with_output().unwrap();
        assert_whole_or_none(context, &[20, 21]);
        match output.status.code() {
            None => {}
            Some(0) => break,
            Some(_) => panic!("{}", String::from_utf8_lossy(&output.stderr)),
        }
    }
}

#[test]
fn whenever_an_export_is_killed_no_mixture_passes_for_an_artifact_and_the_next_export_succeeds() {
    let context = new_context();
    context.fixture("tiny");
    kill_at_every_moment(&context, 21);
    kill_at_every_moment(&context, 20);
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    assert_eq!(artifact.manifest().graphs[0].opset, 20);
    assert!(!context.path("artifact/export.partial").exists());
}

#[test]
fn an_export_that_cannot_take_its_place_leaves_the_artifact_as_it_is() {
    let context = new_context();
    context.fixture("tiny");
    context.run("jetmoe-export tiny --output artifact").succeeded();
    // a folder cannot be replaced by a file
    let obstacle = context.path("artifact/onnx/onnxruntime/model.onnx");
    fs::create_dir_all(&obstacle).unwrap();
    let line = "jetmoe-export tiny --output artifact --profile onnxruntime";
    let output = context.run(line);
    assert!(output.refused().contains("artifact/onnx/onnxruntime/model.onnx is a folder"), "{output:#?}");
    Artifact::open(context.path("artifact")).unwrap().check_digests().unwrap();

    fs::remove_dir(&obstacle).unwrap();
    context.run(line).succeeded();
    let artifact = Artifact::open(context.path("artifact")).unwrap();
    artifact.check_digests().unwrap();
    assert_eq!(artifact.manifest().graphs.len(), 2);
    assert!(!context.path("artifact/export.partial").exists());
}

#[test]
fn what_an_interrupted_export_left_belongs_to_its_checkpoint() {
    let context = new_context();
    context.fixture("tiny");
    context.fixture("odd");
    context.run("jetmoe-export tiny --output artifact").succeeded();
    // killed after all files but the manifest were put in place
    fs::create_dir(context.path("artifact/export.partial")).unwrap();
    fs::rename(context.path("artifact/jetmoe.json"), context.path("artifact/export.partial/jetmoe.json"))
        .unwrap();
    let other = context.run("jetmoe-export odd --output artifact");
    assert!(other.refused().contains("an artifact of another checkpoint"));
    context.run("jetmoe-export tiny --output artifact").succeeded();
    assert!(Artifact::is_artifact(&context.path("artifact")));
}

/// A checkpoint whose embedding takes a while to write, but hardly any disk: it is a hole.
fn large_checkpoint(context: &TestContext) {
    const ROWS: usize = 1_200_000;
    let folder = context.copy("tiny", "large");
    edit_json(&folder.join("config.json"), |config| config["vocab_size"] = json!(ROWS));
    let path = folder.join("model.safetensors");
    let file = fs::read(&path).unwrap();
    let (length, rest) = file.split_at(8);
    let (header, data) = rest.split_at(u64::from_le_bytes(length.try_into().unwrap()) as usize);
    let mut header: serde_json::Value = serde_json::from_slice(header).unwrap();
    let bytes = ROWS * 64 * size_of::<f32>();
    header["model.embed_tokens.weight"] = json!({
        "dtype": "F32", "shape": [ROWS, 64], "data_offsets": [data.len(), data.len() + bytes],
    });
    // the place of the small embedding, which nothing may be left of
    let unused = json!({ "dtype": "F32", "shape": [131, 64], "data_offsets": embedding_place(&file) });
    header["unused"] = unused;
    let mut header = serde_json::to_vec(&header).unwrap();
    header.resize(header.len().next_multiple_of(8), b' ');
    let length = (header.len() as u64).to_le_bytes();
    let head = [&length, header.as_slice(), data].concat();
    let file = fs::File::create(&path).unwrap();
    std::io::Write::write_all(&mut &file, &head).unwrap();
    file.set_len((head.len() + bytes) as u64).unwrap();
}

fn embedding_place(file: &[u8]) -> serde_json::Value {
    let (_, header) = safetensors::SafeTensors::read_metadata(file).unwrap();
    let (begin, end) = header.info("model.embed_tokens.weight").unwrap().data_offsets;
    json!([begin, end])
}

/// Waits until an export is writing weights.
fn wait_for_weights(context: &TestContext, child: &mut Child) {
    let writing = |file: &String| file.contains("onnx/") && file.contains("_data");
    while !context.files("artifact").iter().any(writing) {
        assert_eq!(child.try_wait().unwrap(), None, "it ended before it could be interrupted");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_killed_export_leaves_partial_files_only() {
    let context = new_context();
    large_checkpoint(&context);
    let mut child = context.command("jetmoe-export large --output artifact").start();
    wait_for_weights(&context, &mut child);
    child.kill().unwrap();
    assert_eq!(child.wait().unwrap().code(), None, "it was killed, and had not ended");
    let files = context.files("artifact");
    assert!(files.iter().all(|file| file.starts_with("export.partial")), "{files:?}");
    assert!(!files.iter().any(|file| file.ends_with(".onnx") || file.ends_with(".json")), "{files:?}");
}

#[test]
fn ctrl_c_removes_what_was_begun() {
    let context = new_context();
    large_checkpoint(&context);
    let mut child = context.command("jetmoe-export large --output artifact").start();
    wait_for_weights(&context, &mut child);
    let kill = Command::new("sh").args(["-c", &format!("kill -INT {}", child.id())]).status().unwrap();
    assert!(kill.success());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(130), &b""[..]));
    assert!(!context.path("artifact").exists(), "{:?}", context.files("artifact"));
}
