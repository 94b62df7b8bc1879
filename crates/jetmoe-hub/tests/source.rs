//! The argument that names a model.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::path::PathBuf;

use jetmoe_hub::{HubOptions, ModelSource};

#[test]
fn a_folder_that_exists_is_a_folder() {
    let folder = tempfile::tempdir().unwrap();
    let source = ModelSource::parse(folder.path().to_str().unwrap()).unwrap();
    assert_eq!(source, ModelSource::Folder(folder.path().to_owned()));
    assert_eq!(source.resolve(&HubOptions::default()).unwrap(), folder.path());
}

#[test]
fn an_owner_and_a_name_are_a_hub_id() {
    for id in ["jetmoe/jetmoe-8b", "a.b/c_d", "0/1"] {
        assert_eq!(ModelSource::parse(id).unwrap(), ModelSource::Hub(id.to_owned()));
    }
}

#[test]
fn an_onnx_file_is_never_a_hub_id() {
    for argument in ["onnx/model.onnx", "model.onnx", "owner/name.ONNX", "a/b/model.onnx"] {
        let error = ModelSource::parse(argument).unwrap_err().to_string();
        let expected =
            format!("no such file: {argument}\n  a name that ends in .onnx is a file, not a hub id");
        assert_eq!(error, expected);
    }
    assert_eq!(ModelSource::parse("owner/onnx").unwrap(), ModelSource::Hub("owner/onnx".to_owned()));
}

#[test]
fn anything_else_is_no_model_and_the_error_says_what_would_be() {
    for argument in [
        "",
        "missing",
        "/missing/folder",
        "./a/b",
        "a/b/c",
        "../a",
        "a/",
        "/b",
        "a/b c",
        "a/..",
        "http://a/b",
    ] {
        let error = ModelSource::parse(argument).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "no such folder: {}\n  give a folder with config.json and *.safetensors, or a hub id such as \
                 jetmoe/jetmoe-8b",
                PathBuf::from(argument).display()
            )
        );
    }
}

#[cfg(not(feature = "download"))]
#[test]
fn a_build_without_download_says_so() {
    let error = ModelSource::Hub("a/b".to_owned()).resolve(&HubOptions::default()).unwrap_err().to_string();
    assert!(error.contains("give a folder, or build with the default features"), "{error}");
}
