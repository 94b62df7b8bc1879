//! An opened artifact.

use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{Digest, GenerationConfig, ModelConfig};

use crate::{ArtifactFile, Error, GraphRecord, Manifest, Precision, Profile, Result, Signature, names};

/// An opened artifact whose files exist with the expected sizes.
#[derive(Debug, Clone)]
pub struct Artifact {
    folder: PathBuf,
    manifest: Manifest,
    config: ModelConfig,
}

impl Artifact {
    /// Opens a folder, and checks the size of every file in the manifest and the digest of every file except the weights.
    /// [`Artifact::check_digests`] checks the weights.
    ///
    /// # Errors
    /// A file that is missing, damaged, or written by a newer version.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::NotFound { path: folder.to_owned() });
        }
        let manifest = Manifest::read(folder)?;
        for file in manifest.all_files() {
            check_size(folder, file)?;
        }
        for file in manifest.files.iter().chain(manifest.graphs.iter().map(|graph| &graph.graph)) {
            check_digest(folder, file)?;
        }
        let config = ModelConfig::read(&folder.join(jetmoe_checkpoint::names::CONFIG))?;
        Ok(Artifact { folder: folder.to_owned(), manifest, config })
    }

    /// Whether a folder has a manifest.
    pub fn is_artifact(folder: &Path) -> bool {
        folder.join(names::MANIFEST).is_file()
    }

    /// The artifact's folder.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// The manifest.
    pub fn manifest(&self) -> &Manifest {
        &self.manifest
    }

    /// The model's configuration.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// The graph of a precision and profile; `None` is chosen as in [`Manifest::graph`].
    ///
    /// # Errors
    /// [`Error::NoSuchGraph`] lists the graphs of the artifact.
    pub fn graph(&self, precision: Option<Precision>, profile: Option<Profile>) -> Result<&GraphRecord> {
        self.manifest.graph(precision, profile).ok_or_else(|| Error::NoSuchGraph {
            folder: self.folder.clone(),
            precision,
            profile,
            available: self
                .manifest
                .graphs
                .iter()
                .map(|graph| format!("{} {}", graph.precision, graph.profile))
                .collect(),
        })
    }

    /// Inputs and outputs of a graph.
    pub fn signature(&self, graph: &GraphRecord) -> Signature {
        graph.signature(&self.config)
    }

    /// The settings for generation, see [`GenerationConfig::open`].
    ///
    /// # Errors
    /// A file that cannot be read, or settings that cannot be followed.
    pub fn generation_config(&self) -> Result<GenerationConfig> {
        Ok(GenerationConfig::open(&self.folder, &self.config)?)
    }

    /// Full path of a file of the artifact.
    pub fn path(&self, file: &ArtifactFile) -> PathBuf {
        self.folder.join(&file.path)
    }

    /// Reads the weights completely and compares their digests. [`Artifact::open`] has compared those of the other files.
    ///
    /// # Errors
    /// [`Error::Changed`] names the first file with another digest than in the manifest.
    pub fn check_digests(&self) -> Result<()> {
        self.manifest.graphs.iter().try_for_each(|graph| check_digest(&self.folder, &graph.data))
    }
}

fn check_size(folder: &Path, file: &ArtifactFile) -> Result<()> {
    let path = folder.join(&file.path);
    match std::fs::metadata(&path) {
        Ok(found) if found.len() == file.size => Ok(()),
        Ok(found) => Err(Error::WrongSize { path, expected: file.size, found: found.len() }),
        Err(source) if source.kind() == std::io::ErrorKind::NotFound => Err(Error::MissingFile { path }),
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

fn check_digest(folder: &Path, file: &ArtifactFile) -> Result<()> {
    let path = folder.join(&file.path);
    let io = |source| Error::Io { action: "read", path: path.clone(), source };
    let found = Digest::of_file(&path).map_err(io)?;
    if found == file.sha256 { Ok(()) } else { Err(Error::Changed { path }) }
}
