//! Manifests that lie, and files that are none.

use std::fs;

use jetmoe_artifact::{Artifact, Error, Manifest, names};
use jetmoe_checkpoint::Error as CheckpointError;
use jetmoe_testing::files::hole;
use serde_json::json;

use crate::{artifact, edit_manifest};

#[test]
fn a_manifest_lists_the_configuration_and_no_file_twice() {
    let folder = artifact();
    edit_manifest(folder.path(), |manifest| manifest["files"] = json!([]));
    let error = Artifact::open(folder.path()).unwrap_err();
    assert!(matches!(error, Error::IncompleteManifest { file: "config.json", .. }), "{error}");

    for place in ["/files/1", "/graphs/0/graph", "/graphs/0/data"] {
        let folder = artifact();
        edit_manifest(folder.path(), |manifest| {
            let config = manifest["files"][0].clone();
            manifest["files"].as_array_mut().unwrap().push(json!(null));
            *manifest.pointer_mut(place).unwrap() = config;
            manifest["files"].as_array_mut().unwrap().retain(|file| !file.is_null());
        });
        let error = Artifact::open(folder.path()).unwrap_err();
        assert!(
            matches!(&error, Error::RepeatedFile { file, .. } if file == "config.json"),
            "{place}: {error}"
        );
    }
}

#[test]
fn a_data_file_holds_no_more_weights_than_bytes() {
    for (stored, is_valid) in [
        (json!({ "f32": 7 }), true),
        (json!({ "f32": 3, "f16": 4 }), true),
        (json!({}), true),
        (json!({ "f32": 8 }), false),
        (json!({ "f32": 7, "int8": 1 }), false),
        (json!({ "f32": u64::MAX }), false),
        (json!({ "f32": u64::MAX, "f16": u64::MAX, "bf16": u64::MAX }), false),
    ] {
        let folder = artifact();
        edit_manifest(folder.path(), |manifest| manifest["graphs"][0]["stored"] = stored.clone());
        match Artifact::open(folder.path()) {
            Ok(_) => assert!(is_valid, "{stored}"),
            Err(error) => {
                assert!(
                    matches!(error, Error::StoredBytes { size: 7, .. }) && !is_valid,
                    "{stored}: {error}"
                );
            }
        }
    }
}

/// Holes of a terabyte; that they are refused before they are read is the only way for this test to end.
#[test]
fn large_files_are_refused_by_their_sizes() {
    const SIZE: u64 = 1 << 40;
    let open = |name: &str, is_listed: bool| {
        let folder = artifact();
        hole(&folder.path().join(name), SIZE);
        if is_listed {
            edit_manifest(folder.path(), |manifest| manifest["graphs"][0]["graph"]["size"] = json!(SIZE));
        }
        (Artifact::open(folder.path()).unwrap_err(), folder)
    };
    for name in ["jetmoe.json", "config.json"] {
        let (error, _folder) = open(name, false);
        let message = error.to_string();
        assert!(
            matches!(error, Error::Checkpoint(CheckpointError::TooLarge { size: SIZE, .. })),
            "{message}"
        );
        assert!(message.contains("a file of this name is read up to 16777216 bytes"), "{message}");
    }
    for name in ["onnx/model.onnx", "onnx/model.onnx_data"] {
        let (error, _folder) = open(name, false);
        assert!(matches!(error, Error::WrongSize { found: SIZE, .. }), "{error}");
    }
    let (error, _folder) = open("onnx/model.onnx", true);
    assert!(matches!(error, Error::GraphTooLarge { size: SIZE, .. }), "{error}");
}

#[cfg(unix)]
#[test]
fn pipes_and_folders_are_no_files() {
    for name in ["config.json", "onnx/model.onnx", "onnx/model.onnx_data"] {
        for found in ["a pipe, a socket or a device", "a folder"] {
            let folder = artifact();
            let path = folder.path().join(name);
            fs::remove_file(&path).unwrap();
            match found {
                "a folder" => fs::create_dir(&path).unwrap(),
                _ => jetmoe_testing::files::named_pipe(&path),
            }
            let message = Artifact::open(folder.path()).unwrap_err().to_string();
            let expected = format!("cannot read {}: it is {found}, not a file", path.display());
            assert!(message.contains(&expected), "{message}");
        }
    }
    let folder = artifact();
    fs::remove_file(folder.path().join("jetmoe.json")).unwrap();
    jetmoe_testing::files::named_pipe(&folder.path().join("jetmoe.json"));
    assert!(matches!(Artifact::open(folder.path()), Err(Error::NotAnArtifact { .. })));
}

#[test]
fn the_files_of_an_artifact_can_be_written_and_others_cannot() {
    let manifest = Manifest::read(artifact().path()).unwrap();
    for file in manifest.all_files().map(|file| file.path.as_str()).chain([
        "jetmoe.json",
        "genai_config.json",
        "tokenizer.json",
        "chat_template.jinja",
        "additional_chat_templates/tool_use.jinja",
        "onnx/native/model_q4.onnx_data",
        "onnx/onnxruntime/model_fp16.onnx",
    ]) {
        assert!(names::is_written(file), "{file}");
        let folder = file.rsplit_once('/').map(|(folder, _)| folder.to_owned());
        assert!(folder.is_none_or(|folder| names::written_folders().contains(&folder)), "{file}");
    }
    for file in [
        "",
        "notes.txt",
        "Config.json",
        "model.safetensors",
        "onnx",
        "onnx/config.json",
        "onnx/other.onnx",
        "onnx/portable/model.onnx",
        "onnx/native/model.onnx_data.old",
        "../config.json",
        "additional_chat_templates/a/b.jinja",
        "additional_chat_templates/notes.txt",
    ] {
        assert!(!names::is_written(file), "{file}");
    }
    let folders = names::written_folders();
    assert!(
        folders.iter().position(|folder| folder == "onnx")
            > folders.iter().position(|folder| folder == "onnx/native")
    );
}
