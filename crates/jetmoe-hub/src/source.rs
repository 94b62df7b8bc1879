//! Where a model comes from: a folder, or the Hugging Face hub.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::Result;

/// What a model argument refers to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ModelSource {
    /// A folder on this machine.
    Folder(PathBuf),
    /// A model on the hub, `owner/name`.
    Hub(String),
}

/// What is needed of a model on the hub.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Content {
    /// The artifact, if the repository holds one, else the checkpoint.
    #[default]
    Any,
    /// The checkpoint.
    Checkpoint,
}

/// How a model is downloaded from the hub.
#[derive(Debug, Clone, Default)]
pub struct HubOptions {
    /// Branch, tag or commit; the default branch if `None`.
    pub revision: Option<String>,
    /// What is needed of it.
    pub content: Content,
    /// Use what has been downloaded, and no network. Default: false, unless the environment says so (`HF_HUB_OFFLINE`).
    pub offline: bool,
    /// Folder of downloads; Hugging Face's own cache if `None` (`HF_HUB_CACHE`, `HF_HOME`, `~/.cache`).
    pub cache_dir: Option<PathBuf>,
    /// Receives the progress of the download.
    pub observer: Option<Arc<dyn DownloadObserver>>,
}

/// Receives the progress of a download, for example to draw it.
pub trait DownloadObserver: fmt::Debug + Send + Sync {
    /// Called whenever bytes have arrived, from any thread, and once at the end.
    fn on_progress(&self, progress: &DownloadProgress<'_>);
}

/// State of a download of several files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DownloadProgress<'a> {
    /// Bytes of all files that have arrived.
    pub bytes_done: u64,
    /// Bytes of all files.
    pub bytes_total: u64,
    /// Names of the files in progress, sorted.
    pub files: Vec<&'a str>,
    /// Whether the download has ended.
    pub is_complete: bool,
}

impl ModelSource {
    /// A folder that exists, else a hub id of the form `owner/name`. A name that ends in `.onnx` is a file and never a hub id.
    ///
    /// # Errors
    /// [`Error::NoSuchFile`](crate::Error::NoSuchFile) for an ONNX file that does not exist,
    /// [`jetmoe_checkpoint::Error::NotFound`] for anything else.
    pub fn parse(argument: &str) -> Result<Self> {
        let path = Path::new(argument);
        if path.exists() {
            Ok(ModelSource::Folder(path.to_owned()))
        } else if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("onnx")) {
            Err(crate::Error::NoSuchFile { path: path.to_owned() })
        } else if is_hub_id(argument) {
            Ok(ModelSource::Hub(argument.to_owned()))
        } else {
            Err(jetmoe_checkpoint::Error::NotFound { path: path.to_owned() }.into())
        }
    }

    /// A name of the source that is valid in any working directory: an absolute path, or the hub id.
    pub fn permanent_name(&self) -> String {
        match self {
            ModelSource::Folder(folder) => {
                std::path::absolute(folder).unwrap_or_else(|_| folder.clone()).display().to_string()
            }
            ModelSource::Hub(id) => id.clone(),
        }
    }

    /// The folder with the model's files, downloaded first if necessary. Files in the cache are not downloaded again.
    ///
    /// # Errors
    /// [`Error::Download`](crate::Error::Download) if the download fails, or if this build has no download (cargo feature `download`);
    /// [`Error::Checkpoint`](crate::Error::Checkpoint) if the downloaded index of the shards is not valid.
    pub fn resolve(&self, options: &HubOptions) -> Result<PathBuf> {
        match self {
            ModelSource::Folder(folder) => Ok(folder.clone()),
            ModelSource::Hub(id) => download(id, options),
        }
    }
}

/// The commit of a folder in a cache of the hub, `snapshots/COMMIT`; `None` for any other folder.
pub fn snapshot_commit(folder: &Path) -> Option<&str> {
    let is_snapshot = folder.parent().and_then(Path::file_name).is_some_and(|parent| parent == "snapshots");
    let name = folder.file_name()?.to_str()?;
    (is_snapshot && is_commit(name)).then_some(name)
}

/// Whether a revision is a full commit hash, which needs no look-up.
pub(crate) fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
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

#[cfg(feature = "download")]
fn download(id: &str, options: &HubOptions) -> Result<PathBuf> {
    crate::download::download(id, options)
}

#[cfg(not(feature = "download"))]
fn download(id: &str, _options: &HubOptions) -> Result<PathBuf> {
    Err(crate::Error::Download {
        id: id.to_owned(),
        message: "this build cannot download".to_owned(),
        advice: "give a folder, or build with the default features".to_owned(),
        source: None,
    })
}
