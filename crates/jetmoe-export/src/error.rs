//! Why an export failed.

use std::io;
use std::path::{Path, PathBuf};

use jetmoe_artifact::{CheckpointRecord, Precision, Task};
use jetmoe_checkpoint::{Digest, EntryKind};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an artifact could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The checkpoint cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
    /// The tokenizer or the chat template cannot be used.
    #[error(transparent)]
    Text(#[from] jetmoe_text::Error),
    /// The graph could not be built or written.
    #[error(transparent)]
    Graph(#[from] jetmoe_graph::Error),
    /// The calibration text could not be run through the model.
    #[error(transparent)]
    Reference(#[from] jetmoe_reference::Error),
    /// The manifest could not be read or written.
    #[error(transparent)]
    Artifact(#[from] jetmoe_artifact::Error),
    /// The output folder holds something else.
    #[error("{} is not empty and is not an artifact", folder.display())]
    OutputInUse {
        /// The folder.
        folder: PathBuf,
    },
    /// The output folder holds an artifact of another checkpoint.
    #[error(
        "{} holds an artifact of another checkpoint, {} ({}; this one is {expected})",
        folder.display(), found.source, found.digest
    )]
    OtherCheckpoint {
        /// The folder.
        folder: PathBuf,
        /// The checkpoint it was made from.
        found: Box<CheckpointRecord>,
        /// Digest of the checkpoint that is being exported.
        expected: Digest,
    },
    /// The output folder holds an artifact for another task.
    #[error(
        "{} holds an artifact for {found}; an artifact has one task, and this one is for {expected}",
        folder.display()
    )]
    OtherTask {
        /// The folder.
        folder: PathBuf,
        /// Its task.
        found: Task,
        /// The task that is being exported.
        expected: Task,
    },
    /// The output folder has a manifest that cannot be read.
    #[error("{} holds an artifact that cannot be read", folder.display())]
    OutputDamaged {
        /// The folder.
        folder: PathBuf,
        /// What is wrong with the manifest.
        source: jetmoe_artifact::Error,
    },
    /// The output folder is the checkpoint's.
    #[error("{} is the checkpoint itself, whose files an artifact would overwrite\n  choose another folder", folder.display())]
    OutputIsCheckpoint {
        /// The folder.
        folder: PathBuf,
    },
    /// The output path is a file.
    #[error("{} is a file\n  choose a folder for the artifact", path.display())]
    OutputIsFile {
        /// The path.
        path: PathBuf,
    },
    /// The output folder holds something else where an export writes.
    #[error("{} is {found}, and an export writes {expected} there\n  remove it, or choose another folder", path.display())]
    OutputEntry {
        /// The path.
        path: PathBuf,
        /// What it is.
        found: EntryKind,
        /// What an export writes.
        expected: EntryKind,
    },
    /// Another export is writing into the output folder.
    #[error("another export is writing into {}\n  wait until it has ended, or choose another folder", folder.display())]
    OutputBusy {
        /// The folder.
        folder: PathBuf,
    },
    /// The disk is full.
    #[error("no space left for the artifact in {}: it takes {:.2} MB\n  free some space, or choose a folder on another disk", folder.display(), *needed as f64 / 1e6)]
    NoSpace {
        /// The folder.
        folder: PathBuf,
        /// Size of the artifact in bytes.
        needed: u64,
        /// What could not be written.
        source: Box<Error>,
    },
    /// The checkpoint has no head for the task.
    #[error("a checkpoint trained for {trained} has no head for {task}\n  choose one of: {}", possible.join(", "))]
    NoHead {
        /// What the checkpoint was trained for.
        trained: Task,
        /// The requested value.
        task: Task,
        /// The tasks that the checkpoint can serve.
        possible: Vec<String>,
    },
    /// Text cannot be encoded.
    #[error(
        "{} has no {file}, which calibration needs",
        folder.display()
    )]
    NoTokenizer {
        /// The checkpoint.
        folder: PathBuf,
        /// The file that is missing.
        file: &'static str,
    },
    /// The calibration file holds no text.
    #[error("{} holds no text to calibrate with\n  give some pages of what the model will read", path.display())]
    EmptyCalibration {
        /// The file.
        path: PathBuf,
    },
    /// A line of the calibration file is invalid.
    #[error("{}, line {line}: {source}\n  expected a JSON object with a field \"text\"; plain text needs another extension than .jsonl", path.display())]
    CalibrationLine {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The error that the parser reported.
        source: serde_json::Error,
    },
    /// No weight would be calibrated.
    #[error(
        "{precision} with these options stores no 4-bit weights, and calibration does not improve others"
    )]
    NothingToCalibrate {
        /// The precision.
        precision: Precision,
    },
    /// The model computed NaN or infinity for the calibration text.
    #[error("{weight}: {source}\n  the checkpoint itself computes NaN or infinity for this text")]
    Statistics {
        /// The weight whose inputs they are.
        weight: String,
        /// What is wrong with them.
        source: jetmoe_quantize::Error,
    },
    /// An error of the operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error that the system reported.
        source: io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{} is not valid: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The error that the parser reported.
        source: serde_json::Error,
    },
}

impl Error {
    /// [`Error::NoSpace`] if the cause is a full disk, whichever file did not fit.
    pub(crate) fn or_no_space(self, folder: &Path, needed: u64) -> Self {
        let mut cause: Option<&dyn std::error::Error> = Some(&self);
        while let Some(error) = cause {
            if error.downcast_ref::<io::Error>().is_some_and(is_full_disk) {
                return Error::NoSpace { folder: folder.to_owned(), needed, source: Box::new(self) };
            }
            cause = error.source();
        }
        self
    }
}

fn is_full_disk(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}
