//! The error of this crate.

use std::path::PathBuf;

use crate::{Precision, Profile, StorageOverride, names};

/// Result of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an artifact could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no such folder.
    #[error("no such folder: {}", path.display())]
    NotFound {
        /// The requested value.
        path: PathBuf,
    },
    /// The folder has no manifest.
    #[error("{} {}", folder.display(), not_an_artifact(*is_checkpoint))]
    NotAnArtifact {
        /// The folder.
        folder: PathBuf,
        /// Whether it is a checkpoint: it has a configuration and weights.
        is_checkpoint: bool,
    },
    /// The manifest was written by a newer version.
    #[error("{} has schema version {found}, this build reads up to {supported}\n  update jetmoe, or export again", path.display())]
    NewerSchema {
        /// The manifest.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The newest version that can be read.
        supported: u32,
    },
    /// The manifest names a file outside the artifact.
    #[error("{} names the file {file:?}, which is outside the artifact\n  the manifest was tampered with or is damaged: export again", path.display())]
    FileOutside {
        /// The manifest.
        path: PathBuf,
        /// The path in the manifest.
        file: String,
    },
    /// The manifest lists a file twice.
    #[error("{} lists the file {file:?} twice\n  the manifest was tampered with or is damaged: export again", path.display())]
    RepeatedFile {
        /// The manifest.
        path: PathBuf,
        /// The path in the manifest.
        file: String,
    },
    /// The manifest does not list a file that every artifact has.
    #[error("{} does not list {file}, which every artifact has\n  the manifest was tampered with or is damaged: export again", path.display())]
    IncompleteManifest {
        /// The manifest.
        path: PathBuf,
        /// The missing file.
        file: &'static str,
    },
    /// The manifest says of a data file that it holds more weights than it has bytes.
    #[error("{} says that {file:?} has {size} bytes and holds {stored} bytes of weights\n  the manifest was tampered with or is damaged: export again", path.display())]
    StoredBytes {
        /// The manifest.
        path: PathBuf,
        /// The data file.
        file: String,
        /// Its size by the manifest.
        size: u64,
        /// Bytes of weights in it by the manifest, at most the largest number.
        stored: u64,
    },
    /// A graph file is larger than any that an export writes.
    #[error("{} holds {size} bytes, and graphs are read up to {limit} bytes\n  copy the artifact again, or export again", path.display())]
    GraphTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        size: u64,
        /// Most bytes that are read.
        limit: u64,
    },
    /// A file of the manifest is missing.
    #[error("{} is missing, though the manifest names it\n  copy the artifact again, or export again", path.display())]
    MissingFile {
        /// The file.
        path: PathBuf,
    },
    /// A file has another size than the manifest says.
    #[error("{} holds {found} bytes, the manifest says {expected}\n  copy the artifact again, or export again", path.display())]
    WrongSize {
        /// The file.
        path: PathBuf,
        /// Size by the manifest.
        expected: u64,
        /// Size on disk.
        found: u64,
    },
    /// The digest of a graph or of its weights differs from the manifest's.
    #[error("{} is not the file that was exported: its sha256 differs from the manifest's\n  copy the artifact again, or export again", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A configuration or tokenizer file was edited after the export.
    #[error("{} was edited after the export: its sha256 differs from the manifest's\n  undo the edit, or accept it", path.display())]
    Edited {
        /// The file.
        path: PathBuf,
    },
    /// Weights cannot be stored as requested.
    #[error(transparent)]
    Format(#[from] jetmoe_format::Error),
    /// An override for a layer that the model does not have.
    #[error("cannot store {storage}: the model has {layers} layers, numbered from 0")]
    NoSuchLayer {
        /// The requested value.
        storage: StorageOverride,
        /// Layers of the model.
        layers: usize,
    },
    /// The artifact has no graph of that kind.
    #[error("{} has no {} graph; it has: {}", folder.display(), wanted(*precision, *profile), available.join(", "))]
    NoSuchGraph {
        /// The artifact.
        folder: PathBuf,
        /// The requested value; any if `None`.
        precision: Option<Precision>,
        /// The requested value; any if `None`.
        profile: Option<Profile>,
        /// Precision and profile of every graph there is.
        available: Vec<String>,
    },
    /// No graph has an output of this name.
    #[error("{name:?} is no output of a JetMoE graph")]
    UnknownOutput {
        /// The name.
        name: String,
    },
    /// An error of the operating system.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// The action, as a verb.
        action: &'static str,
        /// The file.
        path: PathBuf,
        /// The error that the system reported.
        source: std::io::Error,
    },
    /// A file is not the JSON it should be.
    #[error("{} is not valid: {source}\n  copy the artifact again, or export again", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The error that the parser reported.
        source: serde_json::Error,
    },
    /// The configuration or the generation defaults cannot be used.
    #[error(transparent)]
    Checkpoint(#[from] jetmoe_checkpoint::Error),
}

fn not_an_artifact(is_checkpoint: bool) -> String {
    if is_checkpoint {
        format!(
            "is a checkpoint, not an artifact: it holds no {}\n  export it with jetmoe-export, and use the folder that it writes",
            names::MANIFEST
        )
    } else {
        format!("holds no {}", names::MANIFEST)
    }
}

fn wanted(precision: Option<Precision>, profile: Option<Profile>) -> String {
    match (precision, profile) {
        (Some(precision), Some(profile)) => format!("{precision} {profile}"),
        (Some(precision), None) => precision.to_string(),
        (None, Some(profile)) => profile.to_string(),
        (None, None) => "usable".to_owned(),
    }
}
