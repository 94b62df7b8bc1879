use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// What a model argument means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A model on the hub, `owner/name`.
    Hub(String),
}

/// How a model is fetched from the hub.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// Branch, tag or commit; the default branch if `None`.
    pub revision: Option<String>,
    /// Where downloads are kept; Hugging Face's own cache if `None` (`HF_HUB_CACHE`, `HF_HOME`, `~/.cache`).
    pub cache_dir: Option<PathBuf>,
    /// Whether to draw a progress bar on standard error.
    pub progress: bool,
}

impl ModelSource {
    /// A folder that exists, else a hub id of the form `owner/name`.
    ///
    /// # Errors
    /// [`Error::NotFound`] for anything else.
    pub fn parse(argument: &str) -> Result<Self> {
        let path = Path::new(argument);
        if path.exists() {
            Ok(ModelSource::Folder(path.to_owned()))
        } else if is_hub_id(argument) {
            Ok(ModelSource::Hub(argument.to_owned()))
        } else {
            Err(Error::NotFound { path: path.to_owned() })
        }
    }

    /// The source as it is understood from any folder: a full path, or the hub id.
    pub fn permanent_name(&self) -> String {
        match self {
            ModelSource::Folder(folder) => {
                std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string()
            }
            ModelSource::Hub(id) => id.clone(),
        }
    }

    /// The folder with the model's files, downloaded first if need be. Files that are in the cache already are not
    /// fetched again.
    ///
    /// # Errors
    /// [`Error::Hub`] if the download fails, or if this build has no download (cargo feature `hub`).
    pub fn resolve(&self, options: &HubOptions) -> Result<PathBuf> {
        match self {
            ModelSource::Folder(folder) => Ok(folder.clone()),
            ModelSource::Hub(id) => download(id, options),
        }
    }
}

/// `owner/name` of letters, digits, `-`, `_` and `.`, as the hub allows.
fn is_hub_id(argument: &str) -> bool {
    let is_part = |part: &str| {
        !part.is_empty()
            && !part.starts_with(['.', '-'])
            && part.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter))
    };
    argument.split_once('/').is_some_and(|(owner, name)| is_part(owner) && is_part(name))
}

#[cfg(feature = "hub")]
fn download(id: &str, options: &HubOptions) -> Result<PathBuf> {
    crate::hub::download(id, options)
}

#[cfg(not(feature = "hub"))]
fn download(id: &str, _options: &HubOptions) -> Result<PathBuf> {
    Err(Error::Hub {
        id: id.to_owned(),
        message: "this build has no download".to_owned(),
        advice: "build with the cargo feature `hub`, or give a folder".to_owned(),
    })
}
