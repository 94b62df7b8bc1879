//! The output folder: whether an export may write to it, and how files get into it.
//!
//! An export writes its files to a staging folder inside the output folder, and moves them into place when all of them
//! are complete. Whenever it is interrupted, the output folder holds the old artifact, or the new one, or no manifest and
//! so no artifact.
//!
//! Both folders stay open, and no entry that is a link is followed. Where an export writes, there must be files and folders or
//! nothing; it removes no file whose name is not one of an artifact.

use std::fs::File;
use std::io;
use std::path::Path;

use jetmoe_artifact::{ArtifactFile, Manifest, Task, names};
use jetmoe_checkpoint::{AtomicFile, Digest, EntryKind, Folder, read_bytes};

use crate::staging::{StagingDir, lock_pending, require};
use crate::{Error, Result};

/// An output folder that one export may write to. Dropping it without a commit leaves the folder as it was.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    staging: StagingDir,
    /// Staged files, relative, in the order of [`OutputFolder::create`].
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
        if let Ok(output) = Folder::open(folder) {
            require(&output, names::UNFINISHED, EntryKind::Folder)?;
            check_place(&output, names::MANIFEST)?;
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
        check_place(staging.output(), names::MANIFEST)?;
        let existing = match read_existing(folder) {
            Ok(Some(manifest)) => match check_same(&manifest, folder, Some(digest), task) {
                Ok(()) => Some(manifest),
                Err(_) if force => {
                    remove_files(&staging, &manifest)?;
                    None
                }
                Err(error) => return Err(error),
            },
            Ok(None) => None,
            Err(Error::OutputInUse { .. } | Error::OutputDamaged { .. }) if force => None,
            Err(error) => return Err(error),
        };
        Ok(OutputFolder { staging, files: Vec::new(), existing })
    }

    /// The manifest of an artifact of the same checkpoint, if the folder holds one.
    pub(crate) fn existing(&self) -> Option<&Manifest> {
        self.existing.as_ref()
    }

    /// The folder for files that do not become part of the artifact.
    pub(crate) fn staging(&self) -> &Folder {
        self.staging.folder()
    }

    /// The entry of a file that a user edited or added since the last export, so that it must stay; `None` if it is as that
    /// export wrote it, or does not exist.
    pub(crate) fn edited(&self, generated: &ArtifactFile) -> Result<Option<ArtifactFile>> {
        let Some(existing) = &self.existing else { return Ok(None) };
        let folder = self.staging.output().path();
        // an interrupted export left files of two exports
        if !folder.join(names::MANIFEST).is_file() {
            return Ok(None);
        }
        let content = match read_bytes(&folder.join(&generated.path)) {
            Ok(content) => content,
            Err(jetmoe_checkpoint::Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                return Ok(None);
            }
            Err(error) => return Err(error.into()),
        };
        let listed = existing.files.iter().find(|file| file.path == generated.path);
        let is_ours = listed.is_some_and(|file| !file.accepted && file.is_content(&content));
        if is_ours || generated.is_content(&content) {
            return Ok(None);
        }
        Ok(Some(listed.unwrap_or(generated).clone()))
    }

    /// Creates a file of the artifact, which is staged when it is complete and takes its place in
    /// [`OutputFolder::commit`].
    pub(crate) fn create(&mut self, relative: &str) -> Result<AtomicFile> {
        check_place(self.staging.output(), relative)?;
        let staged = self.staging.folder().locate_or_create(relative);
        let file = staged.and_then(|(folder, name)| AtomicFile::create_in(&folder, name));
        let file = file.map_err(self.failed("create", relative))?;
        self.files.push(relative.to_owned());
        Ok(file)
    }

    /// Makes `other`, a file of the artifact with the same bytes as the new file `relative`, share its blocks on disk. On a
    /// file system that cannot, both stay separate files. They are never hard links: onnx 1.21 and newer refuse to read
    /// data files with several names.
    pub(crate) fn share(&mut self, relative: &str, other: &str) -> Result<()> {
        check_place(self.staging.output(), other)?;
        let (folder, name) = self.staging.folder().locate(relative).map_err(self.failed("read", relative))?;
        let staged = self.staging.folder().locate_or_create(other);
        let (other_folder, other_name) = staged.map_err(self.failed("create", other))?;
        let source = folder.open_file(name).map_err(self.failed("read", relative))?;
        match reflink(&source, &other_folder, other_name) {
            Ok(()) => self.files.push(other.to_owned()),
            // what is staged and not moved into place is removed
            Err(error) => tracing::debug!("{other} stays a separate file: {error}"),
        }
        Ok(())
    }

    fn failed<'a>(&'a self, action: &'static str, relative: &'a str) -> impl Fn(io::Error) -> Error + 'a {
        move |source| Error::Io { action, path: self.staging.folder().path().join(relative), source }
    }

    /// Moves every file into place, the manifest last. While files are replaced there is no manifest that would accept a
    /// mix of old and new files, and for clients that read no manifest, no old graph next to new data.
    pub(crate) fn commit(self, manifest: &Manifest) -> Result<()> {
        let (output, staging) = (self.staging.output(), self.staging.folder());
        let files = || self.files.iter().map(String::as_str);
        for file in files().chain([names::MANIFEST]) {
            check_place(output, file)?;
        }
        // says whose files the folder holds if the commit is interrupted
        manifest.write_in(staging)?;
        let _no_interrupt = lock_pending();
        for file in std::iter::once(names::MANIFEST).chain(files()) {
            remove_if_there(output, file)?;
        }
        for file in files().chain([names::MANIFEST]) {
            let moved = staging.locate(file).and_then(|(folder, name)| {
                let (place, _) = output.locate_or_create(file)?;
                folder.rename(name, &place, name)
            });
            moved.map_err(|source| Error::Io {
                action: "move the new file to",
                path: output.path().join(file),
                source,
            })?;
        }
        Ok(())
    }
}

/// Creates a file that shares the blocks of another one.
fn reflink(source: &File, folder: &Folder, name: &str) -> io::Result<()> {
    if cfg!(target_os = "macos") {
        // clonefile creates the file itself, by its path
        return reflink_copy::reflink_file_to_path(source, folder.path().join(name));
    }
    reflink_copy::reflink_file(source, &folder.create_file(name)?)
}

/// Refuses a place of a file that holds anything but a file, or that is not in folders of the artifact alone. Returns whether there
/// is a file.
fn check_place(output: &Folder, relative: &str) -> Result<bool> {
    let mut folder = output.clone();
    let mut rest = relative;
    while let Some((first, others)) = rest.split_once('/') {
        if !require(&folder, first, EntryKind::Folder)? {
            return Ok(false);
        }
        let path = folder.path().join(first);
        folder = folder.subfolder(first).map_err(|source| Error::Io { action: "read", path, source })?;
        rest = others;
    }
    require(&folder, rest, EntryKind::File)
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

/// Removes the files that another artifact's manifest names, the manifest first: without it there is no artifact. A manifest may
/// name any file of the folder; only those that an export can have written are removed.
fn remove_files(staging: &StagingDir, manifest: &Manifest) -> Result<()> {
    let output = staging.output();
    let written =
        || manifest.all_files().map(|file| file.path.as_str()).filter(|file| names::is_written(file));
    for file in written() {
        check_place(output, file)?;
    }
    remove_if_there(output, names::MANIFEST)?;
    remove_if_there(staging.folder(), names::MANIFEST)?;
    for file in written() {
        remove_if_there(output, file)?;
    }
    for folder in names::written_folders() {
        if let Ok((parent, name)) = output.locate(&folder) {
            // fails for a folder that is not empty, which stays
            let _ = parent.remove_subfolder(name);
        }
    }
    Ok(())
}

fn remove_if_there(folder: &Folder, relative: &str) -> Result<()> {
    match folder.locate(relative).and_then(|(folder, name)| folder.remove_file(name)) {
        Err(source) if source.kind() != io::ErrorKind::NotFound => {
            Err(Error::Io { action: "remove", path: folder.path().join(relative), source })
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests;
