//! Reading of files that are no graph of an artifact.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use jetmoe_onnx::{Error, read};

#[test]
fn a_file_that_is_no_onnx_model_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (name, content) in
        [("empty.onnx", &b""[..]), ("text.onnx", b"this is no model"), ("zeros.onnx", &[0; 64])]
    {
        let path = folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        assert!(matches!(read(&path), Err(Error::NotOnnx { .. })), "{name}");
    }
}
