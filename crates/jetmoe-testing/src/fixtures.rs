//! The checkpoints under `tests/fixtures`: golden cases and trained models.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// The file of a fixture that holds what transformers computed for it.
pub const GOLDEN: &str = "golden.safetensors";

/// Folders of checkpoints, below [`folder`].
const GROUPS: [&str; 2] = ["goldens", "models"];

/// `tests/fixtures`.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").canonicalize().unwrap()
}

/// The folder of a golden case or a trained model.
///
/// # Panics
/// If no fixture has that name.
#[track_caller]
pub fn checkpoint(name: &str) -> PathBuf {
    let mut folders = GROUPS.iter().map(|group| folder().join(group).join(name));
    folders.find(|folder| folder.is_dir()).unwrap_or_else(|| panic!("no fixture is called {name}"))
}

/// The folder of every checkpoint with a golden file, sorted by name.
pub fn golden_cases() -> Vec<PathBuf> {
    let entries = GROUPS.iter().flat_map(|group| folder().join(group).read_dir().unwrap());
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    cases.retain(|folder| folder.join(GOLDEN).is_file());
    cases.sort_by(|left, right| left.file_name().cmp(&right.file_name()));
    cases
}

/// A JSON file of a fixture.
pub fn json(name: &str, file: &str) -> Value {
    serde_json::from_slice(&std::fs::read(checkpoint(name).join(file)).unwrap()).unwrap()
}
