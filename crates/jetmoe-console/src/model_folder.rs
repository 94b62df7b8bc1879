//! The folder of a model argument.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context;
use jetmoe_hub::{Content, HubOptions, ModelSource};

use crate::progress::DownloadBar;

/// The folder of a model; a hub id is downloaded first, with a bar.
///
/// # Errors
/// A revision of a folder, or a download that fails.
pub fn model_folder(
    source: &ModelSource,
    revision: Option<String>,
    content: Content,
) -> anyhow::Result<PathBuf> {
    if let ModelSource::Folder(folder) = source {
        anyhow::ensure!(
            revision.is_none(),
            "--revision is for a hub id, and {} is a folder",
            folder.display()
        );
    }
    let observer = Some(Arc::new(DownloadBar::default()) as _);
    let folder = source.resolve(&HubOptions { revision, content, observer, ..HubOptions::default() });
    match source {
        ModelSource::Folder(_) => Ok(folder?),
        // a misspelled folder looks like a hub id
        ModelSource::Hub(id) => folder.with_context(|| format!("there is no folder {id} here")),
    }
}
