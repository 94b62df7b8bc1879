//! `jetmoe.json`: contents, origin and verification results of an artifact.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::io::Write;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{
    AtomicFile, Digest, Folder, ModelConfig, is_inside, names as checkpoint_names, read_text,
};
use jetmoe_format::{CacheFormat, WeightFormat};
use serde::{Deserialize, Serialize};

use crate::{
    CalibrationRecord, Error, OptionalOutput, Precision, Profile, Result, Signature, Task, WeightPlan, names,
};

/// The manifest schema that this build writes, and the newest it reads.
pub const MANIFEST_SCHEMA: u32 = 1;

/// The manifest of an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Manifest {
    /// Version of this schema, see [`MANIFEST_SCHEMA`].
    pub schema_version: u32,
    /// Version of the exporter that wrote the artifact last.
    pub tool_version: String,
    /// Source of the weights.
    pub checkpoint: CheckpointRecord,
    /// Configuration and tokenizer files, relative to the artifact.
    pub files: Vec<ArtifactFile>,
    /// Every graph.
    pub graphs: Vec<GraphRecord>,
}

/// The checkpoint that an artifact was made from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CheckpointRecord {
    /// Folder or hub id.
    pub source: String,
    /// Commit of a hub id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// Digest of configuration and weights.
    pub digest: Digest,
}

/// A file of an artifact.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArtifactFile {
    /// Path relative to the artifact, with `/`.
    pub path: String,
    /// Size in bytes.
    pub size: u64,
    /// Digest of the content.
    pub sha256: Digest,
    /// Whether the content is a user's, accepted after the export: another export keeps it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub accepted: bool,
}

impl ArtifactFile {
    /// A file with this content.
    pub fn of_content(path: impl Into<String>, content: &[u8]) -> Self {
        ArtifactFile {
            path: path.into(),
            size: content.len() as u64,
            sha256: Digest::of_bytes(content),
            accepted: false,
        }
    }

    /// Whether this is the content of the file, apart from line ends, which git may have changed.
    pub fn is_content(&self, content: &[u8]) -> bool {
        let is_same = |content: &[u8]| Digest::of_bytes(content) == self.sha256;
        let unix = || {
            content
                .iter()
                .enumerate()
                .filter(|(place, byte)| **byte != b'\r' || content.get(place + 1) != Some(&b'\n'))
        };
        is_same(content) || {
            let unix: Vec<u8> = unix().map(|(_, byte)| *byte).collect();
            let windows = || {
                unix.iter()
                    .flat_map(|byte| if *byte == b'\n' { &b"\r\n"[..] } else { std::slice::from_ref(byte) })
            };
            is_same(&unix) || is_same(&windows().copied().collect::<Vec<u8>>())
        }
    }
}

/// One graph of an artifact.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GraphRecord {
    /// The task it computes.
    pub task: Task,
    /// Element types of weights and arithmetic.
    pub precision: Precision,
    /// Operators it may use.
    pub profile: Profile,
    /// Version of the standard operator set.
    pub opset: u32,
    /// Outputs beyond the task's own.
    pub optional_outputs: BTreeSet<OptionalOutput>,
    /// How weights of products are stored, unless the precision determines it: for a graph with quantized weights or
    /// with overrides.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weights: Option<WeightPlan>,
    /// How the operator `Attention` stores the key/value cache; `None` for a graph without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kv_cache: Option<CacheFormat>,
    /// Bytes of the data file by the type of the weights they hold, scales included: memory is estimated from them.
    #[serde(default)]
    pub stored: BTreeMap<WeightFormat, u64>,
    /// Calibration of the quantization, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub calibration: Option<CalibrationRecord>,
    /// The graph itself; its external data is in `data`.
    pub graph: ArtifactFile,
    /// The weights.
    pub data: ArtifactFile,
    /// Results of the last verification, one per backend; empty without one.
    pub verification: Vec<VerificationRecord>,
}

/// Result of comparing a graph with the Candle reference.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerificationRecord {
    /// Backend and version, such as `ort 1.32.0`.
    pub backend: String,
    /// Whether every tensor was within its tolerance.
    pub passed: bool,
    /// Tokens that were compared.
    pub tokens: usize,
    /// Errors per kind of tensor.
    pub tensors: Vec<TensorRecord>,
}

/// Error of one kind of tensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TensorRecord {
    /// Kind of tensor, such as `present.*.key`.
    pub name: String,
    /// Largest absolute difference; infinite if a value is NaN.
    #[serde(deserialize_with = "infinite_if_null")]
    pub max_absolute_error: f64,
    /// Largest absolute difference, divided by the largest absolute reference value; infinite if a value is NaN.
    #[serde(deserialize_with = "infinite_if_null")]
    pub max_relative_error: f64,
}

/// JSON has no infinity, and `serde_json` writes `null` for it.
fn infinite_if_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<f64, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or(f64::INFINITY))
}

impl GraphRecord {
    /// Inputs and outputs, for the model's configuration.
    pub fn signature(&self, config: &ModelConfig) -> Signature {
        let signature =
            Signature::new(config, self.task, self.precision, self.profile, &self.optional_outputs);
        // other operators determine their cache by themselves
        match self.kv_cache.filter(|_| self.profile == Profile::Native) {
            Some(format) => signature.with_kv_cache(config, format),
            None => signature,
        }
    }
}

impl Manifest {
    /// Whether both list the same files, apart from results of verification.
    pub(crate) fn has_files_of(&self, other: &Self) -> bool {
        self.all_files().eq(other.all_files())
    }

    /// Reads the manifest of an artifact.
    ///
    /// # Errors
    /// No manifest, a newer schema, a damaged or incomplete file, or one that names files outside of the artifact.
    pub fn read(folder: &Path) -> Result<Self> {
        let path = folder.join(names::MANIFEST);
        if !path.is_file() {
            let has = |name: &str| folder.join(name).is_file();
            let is_checkpoint = has(checkpoint_names::CONFIG)
                && (has(checkpoint_names::WEIGHTS) || has(checkpoint_names::WEIGHTS_INDEX));
            return Err(Error::NotAnArtifact { folder: folder.to_owned(), is_checkpoint });
        }
        let text = read_text(&path)?;
        // read the version first: a newer schema may differ in every other field
        #[derive(Deserialize)]
        struct Version {
            schema_version: u32,
        }
        let json = |source| Error::Json { path: path.clone(), source };
        let Version { schema_version } = serde_json::from_str(&text).map_err(json)?;
        if schema_version > MANIFEST_SCHEMA {
            return Err(Error::NewerSchema { path, found: schema_version, supported: MANIFEST_SCHEMA });
        }
        let manifest: Self = serde_json::from_str(&text).map_err(json)?;
        manifest.check(path)?;
        Ok(manifest)
    }

    /// Refuses a manifest that cannot be one of a complete artifact, whatever the files hold.
    fn check(&self, path: PathBuf) -> Result<()> {
        let mut files = HashSet::new();
        for ArtifactFile { path: file, .. } in self.all_files() {
            if !is_valid_path(file) {
                return Err(Error::FileOutside { file: file.clone(), path });
            }
            if !files.insert(file) {
                return Err(Error::RepeatedFile { file: file.clone(), path });
            }
        }
        if !self.files.iter().any(|file| file.path == checkpoint_names::CONFIG) {
            return Err(Error::IncompleteManifest { file: checkpoint_names::CONFIG, path });
        }
        for graph in &self.graphs {
            let stored = graph.stored.values().copied().fold(0, u64::saturating_add);
            if stored > graph.data.size {
                let (file, size) = (graph.data.path.clone(), graph.data.size);
                return Err(Error::StoredBytes { path, stored, file, size });
            }
        }
        Ok(())
    }

    /// Writes the manifest under a temporary name and renames it when it is complete.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write(&self, folder: &Path) -> Result<()> {
        let opened = Folder::open(folder).map_err(|source| Error::Io {
            action: "write into",
            path: folder.to_owned(),
            source,
        })?;
        self.write_in(&opened)
    }

    /// As [`Manifest::write`], into an open folder.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn write_in(&self, folder: &Folder) -> Result<()> {
        let path = folder.path().join(names::MANIFEST);
        let text = serde_json::to_string_pretty(self)
            .map_err(|source| Error::Json { path: path.clone(), source })?;
        let written = AtomicFile::create_in(folder, names::MANIFEST).and_then(|mut file| {
            writeln!(file, "{text}")?;
            file.commit()
        });
        written.map_err(|source| Error::Io { action: "write", path, source })
    }

    /// Every file of the artifact except the manifest.
    pub fn all_files(&self) -> impl Iterator<Item = &ArtifactFile> {
        self.files.iter().chain(self.graphs.iter().flat_map(|graph| [&graph.graph, &graph.data]))
    }

    /// The graph of a precision and profile. `None` selects the first available: precisions in the order of
    /// [`Precision::ALL`], from the most exact to the smallest, then profiles in the order of [`Profile::ALL`].
    pub fn graph(&self, precision: Option<Precision>, profile: Option<Profile>) -> Option<&GraphRecord> {
        let fits = |graph: &&GraphRecord| {
            precision.is_none_or(|wanted| wanted == graph.precision)
                && profile.is_none_or(|wanted| wanted == graph.profile)
        };
        self.graphs.iter().filter(fits).min_by_key(|graph| (graph.precision, graph.profile))
    }
}

/// Whether a path is one that a manifest may name: files are read, removed when another artifact replaces them, and compared by
/// their paths, so that each has one path.
fn is_valid_path(path: &str) -> bool {
    is_inside(path) && !path.split('/').any(|part| part == ".")
}

#[cfg(test)]
mod tests;
