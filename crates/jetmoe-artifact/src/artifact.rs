//! An opened artifact.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use jetmoe_checkpoint::{
    Digest, Error as CheckpointError, GenerationConfig, ModelConfig, open_file, read_bytes,
};

use crate::{ArtifactFile, Error, GraphRecord, Manifest, Precision, Profile, Result, Signature, Task, names};

/// The longest graph, in bytes, without the weights in its data file. One of 24 layers with 8 experts has up to 1.4 MB, and 128
/// layers with 64 experts would have about 40 MB.
pub const MAX_GRAPH_BYTES: u64 = 128 << 20;

/// An opened artifact whose files exist with the expected sizes.
#[derive(Debug, Clone)]
pub struct Artifact {
    folder: PathBuf,
    manifest: Manifest,
    config: ModelConfig,
}

impl Artifact {
    /// How often a folder is read while exports replace the artifact in it. An attempt meets another export only if exports
    /// follow each other at once.
    pub const LOAD_ATTEMPTS: usize = 20;

    /// Opens a folder, and checks the sizes of graphs and weights, and the digests of graphs and of the configuration and
    /// tokenizer files that are read. Other line ends than those of the export are accepted, and any content of files for
    /// other clients. [`Artifact::check_digests`] and [`Artifact::check_weights`] check the weights.
    ///
    /// While an export replaces the artifact, the result is the old or the new one.
    ///
    /// # Errors
    /// A file that is missing, damaged, edited, or written by a newer version.
    pub fn open(folder: impl AsRef<Path>) -> Result<Self> {
        let folder = folder.as_ref();
        if !folder.is_dir() {
            return Err(Error::NotFound { path: folder.to_owned() });
        }
        let mut attempt = 1;
        loop {
            wait_for_replacement(folder);
            let manifest = Manifest::read(folder)?;
            match Self::with_manifest(folder, manifest.clone()) {
                // the files may be those of another export, which began meanwhile
                Err(_) if attempt < Self::LOAD_ATTEMPTS && !is_current(folder, &manifest) => attempt += 1,
                result => return result,
            }
        }
    }

    fn with_manifest(folder: &Path, manifest: Manifest) -> Result<Self> {
        check_graphs(folder, &manifest)?;
        for file in manifest.files.iter().filter(|file| names::is_read(&file.path)) {
            let path = folder.join(&file.path);
            if !file.is_content(&read(&path)?) {
                return Err(Error::Edited { path });
            }
        }
        let config = ModelConfig::read(&folder.join(jetmoe_checkpoint::names::CONFIG))?;
        Ok(Artifact { folder: folder.to_owned(), manifest, config })
    }

    /// Whether a folder has a manifest. Waits while an export replaces it.
    pub fn is_artifact(folder: &Path) -> bool {
        wait_for_replacement(folder);
        folder.join(names::MANIFEST).is_file()
    }

    /// Whether the folder still holds this artifact, and not the result of a later export.
    pub fn is_current(&self) -> bool {
        is_current(&self.folder, &self.manifest)
    }

    /// Accepts edits of the configuration and tokenizer files that are read: records their contents in the manifest. Later
    /// exports keep them. Returns the names of the edited files.
    ///
    /// The manifest is written only if graphs and sizes of the weights are as exported, configuration and tokenizer files exist,
    /// and the configuration and the settings that the graphs follow are valid. This crate does not read the tokenizer; open it
    /// before.
    ///
    /// # Errors
    /// A folder that is no artifact, damaged graphs, an edited configuration or settings for generation that are not valid, or
    /// a manifest that cannot be written.
    pub fn accept_edits(folder: &Path) -> Result<Vec<String>> {
        let mut manifest = Manifest::read(folder)?;
        check_graphs(folder, &manifest)?;
        let mut accepted = Vec::new();
        for file in manifest.files.iter_mut().filter(|file| names::is_read(&file.path)) {
            let content = read(&folder.join(&file.path))?;
            if !file.is_content(&content) {
                *file =
                    ArtifactFile { accepted: true, ..ArtifactFile::of_content(file.path.clone(), &content) };
                accepted.push(file.path.clone());
            }
        }
        let config = ModelConfig::read(&folder.join(jetmoe_checkpoint::names::CONFIG))?;
        for graph in &manifest.graphs {
            graph.task.generation_config(folder, &config)?;
        }
        if !accepted.is_empty() {
            manifest.write(folder)?;
        }
        Ok(accepted)
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

    /// The settings for generation that a graph of a task follows, see [`Task::generation_config`].
    ///
    /// # Errors
    /// A file that cannot be read, or settings that cannot be followed.
    pub fn generation_config(&self, task: Task) -> Result<GenerationConfig> {
        Ok(task.generation_config(&self.folder, &self.config)?)
    }

    /// Full path of a file of the artifact.
    pub fn path(&self, file: &ArtifactFile) -> PathBuf {
        self.folder.join(&file.path)
    }

    /// Reads the file of a graph, without its weights, and compares size and digest of what was read with the manifest.
    ///
    /// # Errors
    /// A file that is missing, too large, or not the one of the manifest.
    pub fn read_graph(&self, graph: &GraphRecord) -> Result<Vec<u8>> {
        let file = &graph.graph;
        check_graph_size(&self.folder, file)?;
        let mut content = Vec::with_capacity(file.size as usize);
        let path = self.path(file);
        // one byte more, if it has grown meanwhile
        let read = open(&self.folder, file)?.take(file.size + 1).read_to_end(&mut content);
        read.map_err(|source| Error::Io { action: "read", path: path.clone(), source })?;
        if Digest::of_bytes(&content) == file.sha256 { Ok(content) } else { Err(Error::Changed { path }) }
    }

    /// Reads the weights completely and compares their digests. [`Artifact::open`] has compared those of the other files.
    ///
    /// # Errors
    /// [`Error::Changed`] names the first file with another digest than in the manifest.
    pub fn check_digests(&self) -> Result<()> {
        self.manifest.graphs.iter().try_for_each(|graph| check_digest(&self.folder, &graph.data))
    }

    /// Reads the weights of one graph and compares their digest: in the artifact, or in a copy of the file.
    ///
    /// # Errors
    /// [`Error::Changed`] names the file of the artifact, or a file that cannot be read.
    pub fn check_weights(&self, graph: &GraphRecord, content: &Path) -> Result<()> {
        check_content(&self.path(&graph.data), &graph.data, content)
    }
}

/// Compares the sizes of graphs and weights, and the digests of graphs.
fn check_graphs(folder: &Path, manifest: &Manifest) -> Result<()> {
    for graph in &manifest.graphs {
        open(folder, &graph.graph)?;
        check_graph_size(folder, &graph.graph)?;
        open(folder, &graph.data)?;
        check_digest(folder, &graph.graph)?;
    }
    Ok(())
}

/// Opens a file of the size in the manifest.
fn open(folder: &Path, file: &ArtifactFile) -> Result<File> {
    let path = folder.join(&file.path);
    match open_file(&path).and_then(|opened| Ok((opened.metadata()?.len(), opened))) {
        Ok((found, opened)) if found == file.size => Ok(opened),
        Ok((found, _)) => Err(Error::WrongSize { path, expected: file.size, found }),
        Err(source) if source.kind() == io::ErrorKind::NotFound => Err(Error::MissingFile { path }),
        Err(source) => Err(Error::Io { action: "read", path, source }),
    }
}

/// Refuses a graph that cannot be one of an export: its weights are in the data file. Without a limit the
/// graph would be read as a whole, whatever its size.
fn check_graph_size(folder: &Path, file: &ArtifactFile) -> Result<()> {
    if file.size <= MAX_GRAPH_BYTES {
        return Ok(());
    }
    Err(Error::GraphTooLarge { path: folder.join(&file.path), size: file.size, limit: MAX_GRAPH_BYTES })
}

fn check_digest(folder: &Path, file: &ArtifactFile) -> Result<()> {
    let path = folder.join(&file.path);
    check_content(&path, file, &path)
}

/// Compares the digest of `content`, which is the file `path` or a copy of it.
fn check_content(path: &Path, file: &ArtifactFile, content: &Path) -> Result<()> {
    let io = |source| Error::Io { action: "read", path: content.to_owned(), source };
    let found = Digest::of_file(content).map_err(io)?;
    if found == file.sha256 { Ok(()) } else { Err(Error::Changed { path: path.to_owned() }) }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    read_bytes(path).map_err(|error| match error {
        CheckpointError::Io { source, .. } if source.kind() == io::ErrorKind::NotFound => {
            Error::MissingFile { path: path.to_owned() }
        }
        other => other.into(),
    })
}

fn is_current(folder: &Path, manifest: &Manifest) -> bool {
    Manifest::read(folder).is_ok_and(|found| found.has_files_of(manifest))
}

/// Waits while an export moves its files into a folder, which has no manifest then. The staged manifest is there from
/// before the old one is removed until it becomes the new one; that of an interrupted export stays, so the wait is limited.
fn wait_for_replacement(folder: &Path) {
    const LIMIT: Duration = Duration::from_secs(2);
    let (manifest, staged) =
        (folder.join(names::MANIFEST), folder.join(names::UNFINISHED).join(names::MANIFEST));
    let begin = Instant::now();
    while !manifest.is_file() && staged.is_file() && begin.elapsed() < LIMIT {
        std::thread::sleep(Duration::from_millis(5));
    }
}
