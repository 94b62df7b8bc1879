//! Links and pipes in an output folder: an export changes nothing behind them, and waits for nothing.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use jetmoe_artifact::Artifact;
use jetmoe_testing::TestContext;
use jetmoe_testing::files::{edit_json, named_pipe, symlink};
use serde_json::json;

use crate::new_context;

const EXPORT: &str = "jetmoe-export tiny --output artifact";

/// A context with checkpoints, an artifact of one of them, and a folder of somebody else with files of the names that an
/// export writes.
fn with_precious_files() -> (TestContext, PathBuf) {
    let context = new_context();
    context.fixture("tiny");
    context.fixture("odd");
    context.run(EXPORT).succeeded();
    let precious = context.path("precious");
    fs::create_dir_all(precious.join("onnx")).unwrap();
    for name in ["lock", "jetmoe.json", "config.json", "model.onnx", "onnx/model.onnx_data", "notes.txt"] {
        fs::write(precious.join(name), "mine").unwrap();
    }
    (context, precious)
}

/// The files below a folder with their contents.
fn contents(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let files = jetmoe_testing::files::list(folder).into_iter().filter(|name| folder.join(name).is_file());
    files.map(|name| (name.clone(), fs::read(folder.join(name)).unwrap())).collect()
}

/// Puts something else in a place of the artifact; every export is refused with the path and what it is, and no file changes.
#[track_caller]
fn refused_in_place_of(place: &str, put: impl Fn(&Path, &Path), found: &str, written: &str) {
    let (context, precious) = with_precious_files();
    let path = context.path("artifact").join(place);
    if path.is_dir() {
        fs::remove_dir_all(&path).unwrap();
    } else if path.exists() {
        fs::remove_file(&path).unwrap();
    }
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    put(&precious, &path);
    let (before, artifact) = (contents(&precious), contents(&context.path("artifact")));
    let message = format!("artifact/{place} is {found}, and an export writes {written} there\n");
    for line in [EXPORT, &format!("{EXPORT} --force"), "jetmoe-export odd --output artifact --force"] {
        let output = context.run(line);
        assert!(output.refused().contains(&message), "{output:#?}\ndoes not say {message:?}");
        assert!(output.refused().contains("remove it, or choose another folder"), "{output:#?}");
        assert_eq!(contents(&precious), before, "{line}");
        let mut left = contents(&context.path("artifact"));
        // the other artifact was refused before its files were removed, too
        left.retain(|name, _| artifact.contains_key(name));
        assert_eq!(left, artifact, "{line}");
    }
}

const LINK: &str = "a symbolic link";
const PIPE: &str = "a pipe, a socket or a device";

#[test]
fn a_staging_folder_that_is_a_link_is_not_emptied() {
    refused_in_place_of("export.partial", symlink, LINK, "a folder");
    refused_in_place_of("export.partial", |_, path| named_pipe(path), PIPE, "a folder");
    refused_in_place_of("export.partial", |_, path| fs::write(path, "").unwrap(), "a file", "a folder");
}

#[test]
fn a_lock_that_is_a_link_or_a_pipe_is_neither_truncated_nor_waited_for() {
    let link = |precious: &Path, path: &Path| symlink(&precious.join("notes.txt"), path);
    refused_in_place_of("export.partial/lock", link, LINK, "a file");
    refused_in_place_of("export.partial/lock", |_, path| named_pipe(path), PIPE, "a file");
}

#[test]
fn a_folder_of_graphs_that_is_a_link_is_not_written_into() {
    refused_in_place_of("onnx", symlink, LINK, "a folder");
}

#[test]
fn files_that_are_links_or_pipes_are_not_replaced() {
    let link = |precious: &Path, path: &Path| symlink(&precious.join("notes.txt"), path);
    for place in ["onnx/model.onnx", "onnx/model.onnx_data", "jetmoe.json"] {
        refused_in_place_of(place, link, LINK, "a file");
        refused_in_place_of(place, |_, path| named_pipe(path), PIPE, "a file");
    }
}

#[test]
fn a_staged_folder_that_is_a_link_is_not_written_into() {
    let (context, precious) = with_precious_files();
    fs::create_dir(context.path("artifact/export.partial")).unwrap();
    symlink(&precious, &context.path("artifact/export.partial/onnx"));
    let before = contents(&precious);
    let output = context.run(EXPORT);
    let message =
        "cannot create artifact/export.partial/onnx/model.onnx_data: it is a symbolic link, not a folder";
    assert!(output.refused().contains(message), "{output:#?}");
    assert_eq!(contents(&precious), before);
    Artifact::open(context.path("artifact")).unwrap().check_digests().unwrap();
}

/// What an export did not stage stays, and with it the folder.
#[test]
fn unknown_files_in_a_staging_folder_stay() {
    let (context, precious) = with_precious_files();
    let staging = context.path("artifact/export.partial");
    fs::create_dir_all(staging.join("onnx/mine")).unwrap();
    symlink(&precious, &staging.join("link"));
    for name in ["notes.txt", "onnx/mine/model.onnx", "onnx/other.onnx"] {
        fs::write(staging.join(name), "mine").unwrap();
    }
    // of interrupted exports
    for name in ["config.json", "config.json.0123456789abcdef.partial", "onnx/model_q4.onnx_data.1f.partial"]
    {
        fs::write(staging.join(name), "staged").unwrap();
    }
    let before = contents(&precious);
    context.run(&format!("{EXPORT} --opset 20")).succeeded();
    assert_eq!(contents(&precious), before);
    let left = contents(&staging);
    let left: Vec<&str> = left.keys().map(String::as_str).filter(|name| !name.starts_with("link/")).collect();
    assert_eq!(left, ["notes.txt", "onnx/mine/model.onnx", "onnx/other.onnx"]);
    assert_eq!(Artifact::open(context.path("artifact")).unwrap().manifest().graphs[0].opset, 20);
}

/// The temporary name of the manifest cannot be foreseen; the names that earlier versions used are no names any more.
#[test]
fn a_link_of_a_temporary_name_is_not_followed() {
    let (context, precious) = with_precious_files();
    for name in ["jetmoe.json.partial", "onnx/model.onnx.partial", "onnx/model.onnx_data.partial"] {
        symlink(&precious.join("notes.txt"), &context.path("artifact").join(name));
    }
    let before = contents(&precious);
    context.run(&format!("{EXPORT} --verify")).succeeded();
    assert_eq!(contents(&precious), before);
    assert!(!Artifact::open(context.path("artifact")).unwrap().manifest().graphs[0].verification.is_empty());
}

#[test]
fn force_removes_only_files_that_an_export_can_have_written() {
    let (context, _) = with_precious_files();
    let artifact = context.path("artifact");
    fs::create_dir(artifact.join("photos")).unwrap();
    let mine = ["notes.txt", "photos/one.jpg", "onnx/notes.txt", "tokenizer.json.old", "weights.safetensors"];
    for name in mine {
        fs::write(artifact.join(name), "mine").unwrap();
    }
    edit_json(&artifact.join("jetmoe.json"), |manifest| {
        let files = manifest["files"].as_array_mut().unwrap();
        files.extend(mine.map(|name| json!({ "path": name, "size": 4, "sha256": "0".repeat(64) })));
    });
    context.run("jetmoe-export odd --output artifact --force").succeeded();
    for name in mine {
        assert_eq!(fs::read(artifact.join(name)).unwrap(), b"mine", "{name}");
    }
    Artifact::open(&artifact).unwrap().check_digests().unwrap();
}

/// The output folder itself is named by the user, so it may be a link.
#[test]
fn an_output_folder_that_is_a_link_is_written_into() {
    let context = new_context();
    context.fixture("tiny");
    fs::create_dir(context.path("elsewhere")).unwrap();
    symlink(&context.path("elsewhere"), &context.path("artifact"));
    context.run(EXPORT).succeeded();
    Artifact::open(context.path("elsewhere")).unwrap().check_digests().unwrap();
}
