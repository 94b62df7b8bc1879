//! The output folder: whether it may be written to, and what becomes of what lies there.

use std::path::{Path, PathBuf};

use jetmoe_artifact::{Artifact, Manifest, Task};
use jetmoe_checkpoint::Digest;

use crate::{Error, Result};

/// An output folder that may be written to.
#[derive(Debug)]
pub(crate) struct OutputFolder {
    folder: PathBuf,
    /// Folders that did not exist before, outermost first; a failed export removes them again if they are empty.
    created: Vec<PathBuf>,
    /// The manifest of an artifact of the same checkpoint and task, whose other graphs are kept.
    existing: Option<Manifest>,
}

impl OutputFolder {
    /// Checks and creates the folder. Without `force` it must be new, empty, or an artifact of the same checkpoint and
    /// task. With `force`, the files of another artifact that lies there are removed; unknown files stay.
    pub(crate) fn prepare(folder: &Path, digest: Digest, task: Task, force: bool) -> Result<Self> {
        let existing = inspect(folder, digest, task, force)?;
        let mut output = OutputFolder { folder: folder.to_owned(), created: Vec::new(), existing };
        output.create_folder(folder)?;
        Ok(output)
    }

    /// The manifest of an artifact of the same checkpoint, if one lies here.
    pub(crate) fn existing(&self) -> Option<&Manifest> {
        self.existing.as_ref()
    }

    /// Full path of a file of the artifact; its folder is created.
    pub(crate) fn file(&mut self, relative: &str) -> Result<PathBuf> {
        let path = self.folder.join(relative);
        if let Some(parent) = path.parent() {
            let parent = parent.to_owned();
            self.create_folder(&parent)?;
        }
        Ok(path)
    }

    /// Removes the folders that this export created, as far as they are empty.
    pub(crate) fn abandon(&self) {
        for folder in self.created.iter().rev() {
            // a folder that is not empty stays
            let _ = std::fs::remove_dir(folder);
        }
    }

    fn create_folder(&mut self, folder: &Path) -> Result<()> {
        let missing: Vec<PathBuf> = folder
            .ancestors()
            .take_while(|path| !path.as_os_str().is_empty() && !path.exists())
            .map(Path::to_owned)
            .collect();
        std::fs::create_dir_all(folder).map_err(|source| Error::Io {
            action: "create",
            path: folder.to_owned(),
            source,
        })?;
        self.created.extend(missing.into_iter().rev());
        Ok(())
    }
}

fn inspect(folder: &Path, digest: Digest, task: Task, force: bool) -> Result<Option<Manifest>> {
    if folder.exists() && !folder.is_dir() {
        return Err(Error::OutputIsFile { path: folder.to_owned() });
    }
    let io = |action| move |source| Error::Io { action, path: folder.to_owned(), source };
    if !folder.exists() || folder.read_dir().map_err(io("read"))?.next().is_none() {
        return Ok(None);
    }
    if !Artifact::is_artifact(folder) {
        return if force { Ok(None) } else { Err(Error::OutputInUse { folder: folder.to_owned() }) };
    }
    match (Manifest::read(folder), force) {
        (Ok(manifest), _)
            if manifest.checkpoint.digest == digest
                && manifest.graphs.iter().all(|graph| graph.task == task) =>
        {
            Ok(Some(manifest))
        }
        (Ok(manifest), true) => {
            remove_files(folder, &manifest)?;
            Ok(None)
        }
        (Err(_), true) => Ok(None),
        (Err(error), false) => Err(error.into()),
        (Ok(manifest), false) if manifest.checkpoint.digest != digest => Err(Error::OtherCheckpoint {
            folder: folder.to_owned(),
            found: manifest.checkpoint.digest,
            expected: digest,
        }),
        (Ok(manifest), false) => {
            let found = manifest.graphs.first().map_or(task, |graph| graph.task);
            Err(Error::OtherTask { folder: folder.to_owned(), found })
        }
    }
}

/// Removes what another artifact's manifest names, the manifest first: without it nothing looks whole.
fn remove_files(folder: &Path, manifest: &Manifest) -> Result<()> {
    let graphs = manifest.graphs.iter().flat_map(|graph| [&graph.graph, &graph.data]);
    let named = manifest.files.iter().chain(graphs).map(|file| file.path.as_str());
    for file in std::iter::once(jetmoe_artifact::names::MANIFEST).chain(named) {
        let path = folder.join(file);
        match std::fs::remove_file(&path) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(source) => return Err(Error::Io { action: "remove", path, source }),
        }
    }
    Ok(())
}
