use std::path::PathBuf;

use jetmoe_artifact::Task;
use jetmoe_checkpoint::{Architecture, Digest};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an artifact could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// The graph could not be built or written.
    #[error(transparent)]
    Graph(#[from] jetmoe_graph::Error),
    /// The manifest could not be read or written.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// The output folder holds something else.
    #[error("{} is not empty and no artifact\n  choose another folder, or pass --force to write into it", folder.display())]
    OutputInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The output folder holds an artifact of another checkpoint.
    #[error(
        "{} holds an artifact of another checkpoint ({found}, this one is {expected})\n  choose another folder, or pass --force to replace it",
        folder.display()
    )]
    OtherCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// Digest of the checkpoint it was made from.
        found: Digest,
        /// Digest of the checkpoint that is being exported.
        expected: Digest,
    },
    /// The output folder holds an artifact for another task.
    #[error(
        "{} holds an artifact for {found}, an artifact has one task\n  choose another folder, or pass --force to replace it",
        folder.display()
    )]
    OtherTask {
        /// The folder.
        folder: PathBuf,
        /// Its task.
        found: Task,
    },
    /// The output path is a file.
    #[error("{} is a file, expected a folder", path.display())]
    OutputIsFile {
        /// The path.
        path: PathBuf,
    },
    /// The checkpoint has no head for the task.
    #[error("a {architecture:?} checkpoint has no head for {task}\n  choose one of: {}", possible.join(", "))]
    NoHead {
        /// What the checkpoint was trained as.
        architecture: Architecture,
        /// What was asked for.
        task: Task,
        /// The tasks that the checkpoint can serve.
        possible: Vec<String>,
    },
    /// The operating system refused.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{} is not valid: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What the parser said.
        source: serde_json::Error,
    },
}
