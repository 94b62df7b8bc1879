use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

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

/// Writes a file under a temporary name, its own with `.partial` behind it, and renames it when it is whole and on the
/// disk. If that fails, nothing of it is left.
///
/// # Errors
/// What `write` or the system refuses.
pub fn write_whole(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let written = File::create(&partial)
        .and_then(|mut file| {
            write(&mut file)?;
            file.sync_all()
        })
        .and_then(|()| fs::rename(&partial, path));
    if written.is_err() {
        // best effort: the first error is the one to report
        let _ = fs::remove_file(&partial);
    }
    written
}
