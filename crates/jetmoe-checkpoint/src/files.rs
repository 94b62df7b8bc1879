use std::path::Path;

use serde::de::DeserializeOwned;

use crate::{Error, Result};

/// Reads a text file.
///
/// # Errors
/// [`Error::Io`] names the file.
pub fn read_text(path: &Path) -> Result<String> {
    std::fs::read_to_string(path).map_err(|source| Error::Io {
        action: "read",
        path: path.to_owned(),
        source,
    })
}

/// Reads a JSON file.
///
/// # Errors
/// [`Error::Io`] or [`Error::Json`]; both name the file, the second with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    serde_json::from_str(&read_text(path)?).map_err(|source| Error::Json { path: path.to_owned(), source })
}
