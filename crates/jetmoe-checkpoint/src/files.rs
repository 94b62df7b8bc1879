//! Reading and writing whole files.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use tempfile::TempPath;

use crate::{Error, Result, json};

/// Whether a relative path with `/` is a file's that stays in its folder on every system.
pub fn is_inside(path: &str) -> bool {
    let is_file = path.rsplit('/').next().is_some_and(|name| !matches!(name, "" | "."));
    is_file && path.split('/').all(|part| !matches!(part, "" | "..") && !part.contains(['\\', ':']))
}

/// Reads a text file.
///
/// # Errors
/// [`Error::Io`] names the file.
pub fn read_text(path: &Path) -> Result<String> {
    fs::read_to_string(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })
}

/// Reads a text file; `None` if it does not exist.
///
/// # Errors
/// [`Error::Io`] names the file.
pub fn read_text_if_exists(path: &Path) -> Result<Option<String>> {
    match read_text(path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => Ok(None),
        result => result.map(Some),
    }
}

/// Reads a JSON file, with what Python's `json` module accepts beyond the standard: what is not a finite number is a
/// string, such as `"NaN"`; of repeated keys the last one counts.
///
/// # Errors
/// [`Error::Io`] or [`Error::Json`]; both name the file, the second with line and column.
pub fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T> {
    parse_json(path, &read_text(path)?)
}

/// As [`read_json`]; `None` if the file does not exist.
///
/// # Errors
/// As [`read_json`].
pub fn read_json_if_exists<T: DeserializeOwned>(path: &Path) -> Result<Option<T>> {
    read_text_if_exists(path)?.map(|text| parse_json(path, &text)).transpose()
}

fn parse_json<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T> {
    json::parse(text).map_err(|source| Error::Json { path: path.to_owned(), source })
}

/// A file that takes its name only when it is complete, so that no reader sees half of it. Until
/// [`AtomicFile::commit`] it has a temporary name ending in `.partial` in the same folder. Dropped earlier, it is removed.
#[derive(Debug)]
pub struct AtomicFile {
    path: PathBuf,
    // not a `NamedTempFile`, whose errors name the temporary file
    file: BufWriter<File>,
    temporary: TempPath,
}

impl AtomicFile {
    /// Creates the temporary file.
    ///
    /// # Errors
    /// A folder that does not exist or cannot be written to.
    pub fn create(path: &Path) -> io::Result<Self> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let mut name = path.file_name().unwrap_or_default().to_owned();
        name.push(".");
        // tempfile's own files are private to the user; this one has the usual permissions of a new file
        let (file, temporary) = tempfile::Builder::new()
            .prefix(&name)
            .suffix(".partial")
            .make_in(folder, |path| File::create_new(path))?
            .into_parts();
        Ok(AtomicFile { path: path.to_owned(), file: BufWriter::with_capacity(1 << 20, file), temporary })
    }

    /// Writes everything to disk and renames the file to its final name.
    ///
    /// # Errors
    /// A full disk, or a final name that cannot be written to. The temporary file is removed.
    pub fn commit(self) -> io::Result<()> {
        let file = self.file.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.sync_all()?;
        self.temporary.persist(&self.path)?;
        Ok(())
    }
}

impl Write for AtomicFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.file.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
