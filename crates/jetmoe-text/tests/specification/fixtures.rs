//! The trained model under `tests/fixtures`.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// Its folder.
pub(crate) fn mini() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/models/jetmoe-mini")
}

/// Its `expected.json`: what transformers computes.
pub(crate) fn expected() -> Value {
    let text = std::fs::read_to_string(mini().join("expected.json")).unwrap();
    serde_json::from_str(&text).unwrap()
}

pub(crate) fn write_json(path: &Path, value: &Value) {
    std::fs::write(path, value.to_string()).unwrap();
}
