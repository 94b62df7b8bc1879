//! The error type of this crate.

use std::path::PathBuf;

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model could not be found or downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The argument is the name of an ONNX file, and there is none.
    #[error("no such file: {}\n  a name that ends in .onnx is a file, not a hub id", path.display())]
    NoSuchFile {
        /// The requested value.
        path: PathBuf,
    },
    /// A model could not be downloaded from the hub.
    #[error("cannot download {id} from the hub: {message}\n  {advice}")]
    Download {
        /// `owner/name`.
        id: String,
        /// What went wrong.
        message: String,
        /// How to fix it.
        advice: String,
        /// The underlying error, if there is more to it than the message says.
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// The manifest of a downloaded artifact is not valid.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// There is no such folder, or a downloaded file is not valid.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
}
