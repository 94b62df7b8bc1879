//! The files of a tokenizer and its chat templates in a folder.

use std::fs;
use std::io;
use std::path::Path;

use crate::{Error, Result, names};

/// Names of the files of a tokenizer that a folder has, relative to it and with `/`: of [`names::TOKENIZER_FILES`], and
/// [`additional_chat_templates`].
///
/// # Errors
/// [`Error::Io`] names the file or folder that cannot be read. One that does not exist is no error.
pub fn tokenizer_files(folder: &Path) -> Result<Vec<String>> {
    let mut files = Vec::new();
    for name in names::TOKENIZER_FILES {
        let path = folder.join(name);
        match path.try_exists() {
            Ok(true) => files.push(name.to_owned()),
            Ok(false) => {}
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        }
    }
    files.extend(additional_chat_templates(folder)?);
    Ok(files)
}

/// Names of the chat templates in a folder's [`names::ADDITIONAL_CHAT_TEMPLATES`], relative to the folder and with `/`, sorted.
///
/// # Errors
/// [`Error::Io`] if there is such a folder and it cannot be read.
pub fn additional_chat_templates(folder: &Path) -> Result<Vec<String>> {
    let path = folder.join(names::ADDITIONAL_CHAT_TEMPLATES);
    let failed = |source| Error::Io { action: "read", path: path.clone(), source };
    let entries = match fs::read_dir(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut files = Vec::new();
    for entry in entries {
        // a template is selected by name, which is a text
        let Ok(name) = entry.map_err(failed)?.file_name().into_string() else { continue };
        let file = format!("{}/{name}", names::ADDITIONAL_CHAT_TEMPLATES);
        if names::additional_chat_template(&file).is_some() {
            files.push(file);
        }
    }
    files.sort();
    Ok(files)
}
