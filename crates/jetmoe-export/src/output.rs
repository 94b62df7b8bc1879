//! The output folder: whether an export may write to it, and how files get into it.
//!
//! An export writes its files to a staging folder inside the output folder, and moves them into place when all of them
//! are complete. Whenever it is interrupted, the output folder holds the old artifact, or the new one, or no manifest and
//! so no artifact.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jetmoe_artifact::{ArtifactFile, Manifest, Task, names};
use jetmoe_checkpoint::Digest;

use crate::staging::{StagingDir, lock_pending};
use crate::{Error, Result};

/// An output folder that one export may write to. Dropping it without a commit leaves the folder as it was.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    folder: PathBuf,
    staging: StagingDir,
    /// Staged files, relative, in the order of [`OutputFolder::file`].
    files: Vec<String>,
    /// The manifest of an artifact of the same checkpoint and task, whose other graphs are kept.
    existing: Option<Manifest>,
}

impl OutputFolder {
    /// Refuses a folder that an export may not write to, as far as that is known without the checkpoint's digest, which
    /// is slow to compute.
    pub(crate) fn check(folder: &Path, checkpoint: &Path, task: Task, force: bool) -> Result<()> {
        if folder.canonicalize().is_ok_and(|path| checkpoint.canonicalize().is_ok_and(|other| path == other))
        {
            return Err(Error::OutputIsCheckpoint { folder: folder.to_owned() });
        }
        if folder.exists() && !folder.is_dir() {
            return Err(Error::OutputIsFile { path: folder.to_owned() });
        }
        match if force { None } else { read_existing(folder)? } {
            Some(manifest) => check_same(&manifest, folder, None, task),
            None => Ok(()),
        }
    }

    /// Locks the folder for one export and creates it if it does not exist. Without `force` it must be empty or hold an
    /// artifact of the same checkpoint and task. With `force`, the files of another artifact are removed; unknown files
    /// stay. The files of an interrupted export count as the artifact that they were to become.
    pub(crate) fn prepare(folder: &Path, digest: Digest, task: Task, force: bool) -> Result<Self> {
        let staging = StagingDir::create(folder)?;
        let existing = match read_existing(folder) {
            Ok(Some(manifest)) => match check_same(&manifest, folder, Some(digest), task) {
                Ok(()) => Some(manifest),
                Err(_) if force => {
                    remove_files(folder, &manifest)?;
                    None
                }
                Err(error) => return Err(error),
            },
            Ok(None) => None,
            Err(Error::OutputInUse { .. } | Error::OutputDamaged { .. }) if force => None,
            Err(error) => return Err(error),
        };
        Ok(OutputFolder { folder: folder.to_owned(), staging, files: Vec::new(), existing })
    }

    /// The manifest of an artifact of the same checkpoint, if the folder holds one.
    pub(crate) fn existing(&self) -> Option<&Manifest> {
        self.existing.as_ref()
    }

    /// The entry of a file that a user edited or added since the last export, so that it must stay; `None` if it is as that
    /// export wrote it, or does not exist.
    pub(crate) fn edited(&self, generated: &ArtifactFile) -> Result<Option<ArtifactFile>> {
        let Some(existing) = &self.existing else { return Ok(None) };
        // an interrupted export left files of two exports
        if !self.folder.join(names::MANIFEST).is_file() {
            return Ok(None);
        }
        let path = self.folder.join(&generated.path);
        let content = match fs::read(&path) {
            Ok(content) => content,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(Error::Io { action: "read", path, source }),
        };
        let listed = existing.files.iter().find(|file| file.path == generated.path);
        let is_ours = listed.is_some_and(|file| !file.accepted && file.is_content(&content));
        if is_ours || generated.is_content(&content) {
            return Ok(None);
        }
        Ok(Some(listed.unwrap_or(generated).clone()))
    }

    /// The path to write a file of the artifact to until [`OutputFolder::commit`]. Creates its folder.
    pub(crate) fn file(&mut self, relative: &str) -> Result<PathBuf> {
        let path = self.staging.path().join(relative);
        create_parent(&path)?;
        self.files.push(relative.to_owned());
        Ok(path)
    }

    /// Makes `other`, a file of the artifact with the same bytes as the new file `relative`, share its blocks on disk. On a
    /// file system that cannot, both stay separate files. They are never hard links: onnx 1.21 and newer refuse to read
    /// data files with several names.
    pub(crate) fn share(&mut self, relative: &str, other: &str) -> Result<()> {
        let shared = self.staging.path().join(other);
        create_parent(&shared)?;
        match reflink_copy::reflink(self.staging.path().join(relative), &shared) {
            Ok(()) => self.files.push(other.to_owned()),
            Err(error) => tracing::debug!("{other} stays a separate file: {error}"),
        }
        Ok(())
    }

    /// Moves every file into place, the manifest last. While files are replaced there is no manifest that would accept a
    /// mix of old and new files, and for clients that read no manifest, no old graph next to new data.
    pub(crate) fn commit(self, manifest: &Manifest) -> Result<()> {
        // says whose files the folder holds if the commit is interrupted
        manifest.write(self.staging.path())?;
        let _no_interrupt = lock_pending();
        remove_if_there(&self.folder.join(names::MANIFEST))?;
        for file in &self.files {
            remove_if_there(&self.folder.join(file))?;
        }
        for file in self.files.iter().map(String::as_str).chain([names::MANIFEST]) {
            let path = self.folder.join(file);
            create_parent(&path)?;
            fs::rename(self.staging.path().join(file), &path).map_err(|source| Error::Io {
                action: "move the new file to",
                path,
                source,
            })?;
        }
        Ok(())
    }
}

/// The manifest of the artifact in an output folder, or of the one that was being moved into it when its export was
/// interrupted; `None` for a folder that is empty or does not exist.
fn read_existing(output: &Path) -> Result<Option<Manifest>> {
    for folder in [output, &output.join(names::UNFINISHED)] {
        match Manifest::read(folder) {
            Ok(manifest) => return Ok(Some(manifest)),
            Err(jetmoe_artifact::Error::NotAnArtifact { .. }) => {}
            Err(source) => return Err(Error::OutputDamaged { folder: output.to_owned(), source }),
        }
    }
    if !output.exists() {
        return Ok(None);
    }
    let failed = |source| Error::Io { action: "read", path: output.to_owned(), source };
    for entry in output.read_dir().map_err(failed)? {
        if entry.map_err(failed)?.file_name() != names::UNFINISHED {
            return Err(Error::OutputInUse { folder: output.to_owned() });
        }
    }
    Ok(None)
}

/// Refuses an artifact of another checkpoint or task. Without a digest, any checkpoint is accepted.
fn check_same(existing: &Manifest, folder: &Path, digest: Option<Digest>, task: Task) -> Result<()> {
    let (folder, found) = (folder.to_owned(), &existing.checkpoint);
    if let Some(expected) = digest.filter(|digest| *digest != found.digest) {
        return Err(Error::OtherCheckpoint { folder, found: Box::new(found.clone()), expected });
    }
    match existing.graphs.iter().find(|graph| graph.task != task) {
        Some(graph) => Err(Error::OtherTask { folder, found: graph.task, expected: task }),
        None => Ok(()),
    }
}

/// Removes the files that another artifact's manifest names, the manifest first: without it there is no artifact.
fn remove_files(folder: &Path, manifest: &Manifest) -> Result<()> {
    let unfinished = format!("{}/{}", names::UNFINISHED, names::MANIFEST);
    let named = manifest.all_files().map(|file| file.path.as_str());
    for file in [names::MANIFEST, &unfinished].into_iter().chain(named) {
        let path = folder.join(file);
        remove_if_there(&path)?;
        if let Some(parent) = path.parent().filter(|parent| *parent != folder) {
            // fails for a folder that is not empty, which stays
            let _ = fs::remove_dir(parent);
        }
    }
    Ok(())
}

fn remove_if_there(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: path.to_owned(), source })
        }
        _ => Ok(()),
    }
}

fn create_parent(path: &Path) -> Result<()> {
    let parent = path.parent().unwrap_or(Path::new("."));
    fs::create_dir_all(parent).map_err(|source| Error::Io {
        action: "create",
        path: parent.to_owned(),
        source,
    })
}
