//! Where a model comes from: a folder, or the Hugging Face hub.
//!
//! [`ModelSource`] parses a model argument and returns the folder with the model's files. With the feature `download` it
//! downloads a model by its hub id; `hf-hub` and its asynchronous runtime are dependencies of that feature alone.

#[cfg(feature = "download")]
mod download;
mod error;
mod source;

pub use error::{Error, Result};
pub use source::{Content, DownloadObserver, DownloadProgress, HubOptions, ModelSource, snapshot_commit};
