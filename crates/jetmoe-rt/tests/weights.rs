//! Weights that change before they are loaded, and while they are used.

#![cfg(any(feature = "ort", feature = "tract"))]
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use jetmoe_rt::{ArtifactError, CheckpointError, Error, LoadOptions, Model, TokenBatch, backends};
use jetmoe_testing::files::copy_folder;
use ndarray::Array3;
use tempfile::TempDir;

/// The toy, and its data file.
fn toy() -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    copy_folder(&Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/toy"), folder.path());
    let data = folder.path().join("onnx/model.onnx_data");
    (folder, data)
}

fn options() -> LoadOptions {
    // the toy is not the exporter's
    LoadOptions::default().with_trust_graph(true)
}

fn logits(model: &Model) -> Array3<f32> {
    let prompt = TokenBatch::left_padded(&[[3, 1, 4]], 0).unwrap();
    model.session().unwrap().step(&prompt).unwrap().logits().unwrap().to_owned()
}

#[test]
fn changed_weights_are_refused_if_digests_are_compared() {
    let (folder, data) = toy();
    let verified = options().with_verify_digests(true);
    for &backend in backends() {
        Model::load(folder.path(), &verified.clone().with_backend(backend)).unwrap();
    }
    let mut content = fs::read(&data).unwrap();
    content[0] ^= 1;
    fs::write(&data, content).unwrap();
    let copied = options().with_private_copy(folder.path());
    for &backend in backends() {
        Model::load(folder.path(), &options().with_backend(backend)).unwrap();
        for options in [&verified, &copied] {
            let error = Model::load(folder.path(), &options.clone().with_backend(backend)).unwrap_err();
            let is_data =
                |path: &Path| path.ends_with("onnx/model.onnx_data") && path.starts_with(folder.path());
            match &error {
                Error::Artifact(ArtifactError::Changed { path }) if is_data(path) => {}
                other => panic!("{other:?}"),
            }
        }
    }
    // nothing is left of the copies
    assert_eq!(
        fs::read_dir(folder.path()).unwrap().filter(|entry| is_copy(entry.as_ref().unwrap())).count(),
        0
    );
}

fn is_copy(entry: &fs::DirEntry) -> bool {
    entry.file_name().to_string_lossy().starts_with("jetmoe-")
}

#[cfg(unix)]
#[test]
fn a_model_of_a_private_copy_computes_after_the_weights_are_gone() {
    for &backend in backends() {
        let ((folder, data), copies) = (toy(), tempfile::tempdir().unwrap());
        let options = options().with_backend(backend);
        let expected = logits(&Model::load(folder.path(), &options).unwrap());
        let model = Model::load(folder.path(), &options.with_private_copy(copies.path())).unwrap();
        File::options().write(true).open(&data).unwrap().set_len(0).unwrap();
        assert_eq!(logits(&model), expected, "{}", backend.name());
        assert_eq!(fs::read_dir(copies.path()).unwrap().count(), 0, "{}", backend.name());
    }
}

#[test]
fn a_folder_for_a_copy_that_does_not_exist_is_named() {
    let (folder, _) = toy();
    let missing = folder.path().join("missing");
    let error = Model::load(folder.path(), &options().with_private_copy(&missing)).unwrap_err();
    match error {
        Error::Artifact(ArtifactError::Checkpoint(CheckpointError::Io { path, .. })) => {
            assert_eq!(path, missing)
        }
        other => panic!("{other:?}"),
    }
}
