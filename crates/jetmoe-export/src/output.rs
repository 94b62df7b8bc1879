//! The output folder: whether it may be written to, how an export gets into it, and what becomes of what lies there.
//!
//! An export gathers its files in a folder of its own inside the output folder, and moves them to their places when all
//! of them are whole. Whenever it is interrupted, the output folder holds the old artifact, or the new one, or no
//! manifest and so nothing that looks like an artifact.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jetmoe_artifact::{Manifest, Task, names};
use jetmoe_checkpoint::Digest;

use crate::gathering::{Gathering, begun};
use crate::{Error, Result};

/// An output folder that one export may write to. Dropped before it is committed, it leaves the folder as it was.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    folder: PathBuf,
    gathering: Gathering,
    /// Files that were gathered, relative, in the order of [`OutputFolder::file`].
    files: Vec<String>,
    /// The manifest of an artifact of the same checkpoint and task, whose other graphs are kept.
    existing: Option<Manifest>,
}

impl OutputFolder {
    /// Refuses a folder that may not be written to, as far as that shows without the checkpoint's digest, which takes
    /// its time.
    pub(crate) fn check(folder: &Path, checkpoint: &Path, task: Task, force: bool) -> Result<()> {
        let place = folder.canonicalize().ok();
        if place.is_some() && place == checkpoint.canonicalize().ok() {
            return Err(Error::OutputIsCheckpoint { folder: folder.to_owned() });
        }
        if folder.exists() && !folder.is_dir() {
            return Err(Error::OutputIsFile { path: folder.to_owned() });
        }
        if force { Ok(()) } else { Contents::of(folder)?.permit(folder, None, task) }
    }

    /// Takes the folder for one export; it is created if need be. Without `force` it must be empty or hold an artifact
    /// of the same checkpoint and task. With `force`, the files of another artifact that lies there are removed; unknown
    /// files stay. What an interrupted export left counts as what it was about to become.
    pub(crate) fn prepare(folder: &Path, digest: Digest, task: Task, force: bool) -> Result<Self> {
        let gathering = Gathering::begin(folder)?;
        let contents = Contents::of(folder)?;
        let permitted = contents.permit(folder, Some(digest), task);
        let existing = match (contents, permitted) {
            (contents, Ok(())) => contents.into_artifact(),
            (_, Err(error)) if !force => return Err(error),
            (contents, Err(_)) => {
                if let Some(other) = contents.into_artifact() {
                    remove_files(folder, &other)?;
                }
                None
            }
        };
        Ok(OutputFolder { folder: folder.to_owned(), gathering, files: Vec::new(), existing })
    }

    /// The manifest of an artifact of the same checkpoint, if one lies here.
    pub(crate) fn existing(&self) -> Option<&Manifest> {
        self.existing.as_ref()
    }

    /// Where to write a file of the artifact until [`OutputFolder::commit`]; its folder is created.
    pub(crate) fn file(&mut self, relative: &str) -> Result<PathBuf> {
        let path = self.gathering.folder().join(relative);
        create_parent(&path)?;
        self.files.push(relative.to_owned());
        Ok(path)
    }

    /// Has `other`, a file of the artifact that holds the same bytes as the new file `relative`, share them on disk. Where
    /// the file system has no hard links, both stay files of their own.
    pub(crate) fn share(&mut self, relative: &str, other: &str) -> Result<()> {
        let shared = self.gathering.folder().join(other);
        create_parent(&shared)?;
        match fs::hard_link(self.gathering.folder().join(relative), &shared) {
            Ok(()) => self.files.push(other.to_owned()),
            Err(error) => tracing::debug!("{other} stays a file of its own: {error}"),
        }
        Ok(())
    }

    /// Moves every file to its place, the manifest last. While files are replaced there is no manifest that would accept
    /// a mixture of old and new ones, and for clients that read none, no old graph beside new data.
    pub(crate) fn commit(self, manifest: &Manifest) -> Result<()> {
        // from here on it tells whose files lie in the folder, should this be interrupted
        manifest.write(self.gathering.folder())?;
        let _uninterrupted = begun();
        remove_if_there(&self.folder.join(names::MANIFEST))?;
        for file in &self.files {
            remove_if_there(&self.folder.join(file))?;
        }
        for file in self.files.iter().map(String::as_str).chain([names::MANIFEST]) {
            let place = self.folder.join(file);
            create_parent(&place)?;
            fs::rename(self.gathering.folder().join(file), &place).map_err(|source| Error::Io {
                action: "move the new file to",
                path: place,
                source,
            })?;
        }
        Ok(())
    }
}

/// What an output folder holds, apart from what an unfinished export gathered.
enum Contents {
    Nothing,
    /// An artifact, or one that was being put in place when its export was interrupted.
    Artifact(Box<Manifest>),
    /// A manifest that cannot be read, and why.
    Damaged(String),
    Foreign,
}

impl Contents {
    fn of(folder: &Path) -> Result<Self> {
        let unfinished = folder.join(names::UNFINISHED);
        for place in [folder, &unfinished] {
            match Manifest::read(place) {
                Ok(manifest) => return Ok(Contents::Artifact(Box::new(manifest))),
                Err(jetmoe_artifact::Error::NotAnArtifact { .. }) => {}
                Err(error) => {
                    // the advice in its other lines is for who wants to run the artifact
                    let why = error.to_string().lines().next().unwrap_or_default().to_owned();
                    return Ok(Contents::Damaged(why));
                }
            }
        }
        if !folder.exists() {
            return Ok(Contents::Nothing);
        }
        let failed = |source| Error::Io { action: "read", path: folder.to_owned(), source };
        for entry in folder.read_dir().map_err(failed)? {
            if entry.map_err(failed)?.file_name() != names::UNFINISHED {
                return Ok(Contents::Foreign);
            }
        }
        Ok(Contents::Nothing)
    }

    fn into_artifact(self) -> Option<Manifest> {
        match self {
            Contents::Artifact(manifest) => Some(*manifest),
            Contents::Nothing | Contents::Damaged(_) | Contents::Foreign => None,
        }
    }

    /// Refuses what only `force` may overwrite. Without a digest, an artifact of any checkpoint will do.
    fn permit(&self, folder: &Path, digest: Option<Digest>, task: Task) -> Result<()> {
        let folder = folder.to_owned();
        match self {
            Contents::Nothing => Ok(()),
            Contents::Foreign => Err(Error::OutputInUse { folder }),
            Contents::Damaged(why) => Err(Error::OutputDamaged { folder, why: why.clone() }),
            Contents::Artifact(manifest) => {
                let checkpoint = manifest.checkpoint.clone();
                if let Some(expected) = digest.filter(|digest| *digest != checkpoint.digest) {
                    return Err(Error::OtherCheckpoint { folder, found: checkpoint, expected });
                }
                match manifest.graphs.iter().find(|graph| graph.task != task) {
                    Some(graph) => Err(Error::OtherTask { folder, found: graph.task, expected: task }),
                    None => Ok(()),
                }
            }
        }
    }
}

/// Removes what another artifact's manifest names, the manifest first: without it nothing looks whole.
fn remove_files(folder: &Path, manifest: &Manifest) -> Result<()> {
    let unfinished = format!("{}/{}", names::UNFINISHED, names::MANIFEST);
    let named = manifest.all_files().map(|file| file.path.as_str());
    for file in [names::MANIFEST, &unfinished].into_iter().chain(named) {
        let path = folder.join(file);
        remove_if_there(&path)?;
        if let Some(parent) = path.parent().filter(|parent| *parent != folder) {
            // a folder that still holds something stays
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
