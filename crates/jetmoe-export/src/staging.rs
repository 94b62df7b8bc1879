//! The folder inside the output folder where an export writes its files until all of them are complete.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jetmoe_artifact::names;
use jetmoe_checkpoint::{AtomicFile, EntryKind, Folder};

use crate::{Error, Result};

/// The running exports of this process, for Ctrl-C.
static PENDING: Mutex<Vec<Arc<PendingExport>>> = Mutex::new(Vec::new());

/// The folder [`names::UNFINISHED`] of one export. Dropping it removes it, and the folders around it that it created,
/// if they are empty.
#[derive(Debug)]
pub(crate) struct StagingDir {
    pending: Arc<PendingExport>,
    /// Excludes other exports until this one, or its process, ends.
    lock: Option<File>,
}

/// What to remove if an export does not complete.
#[derive(Debug)]
pub(crate) struct PendingExport {
    output: Folder,
    staging: Folder,
    /// Folders around it that did not exist before, innermost first.
    created: Vec<PathBuf>,
}

/// The file whose lock an export holds. The file alone means nothing: the lock ends with the process.
const LOCK: &str = "lock";

impl StagingDir {
    /// Creates the folder in an output folder, which is created too if it does not exist. Files of an interrupted export
    /// are removed, except its manifest, which says whose files the output folder holds.
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let created: Vec<PathBuf> = path
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_owned)
            .collect();
        let (output, staging, lock) = open_locked(path).inspect_err(|_| remove_empty(&created))?;
        let pending = Arc::new(PendingExport { output, staging, created });
        pending.clear(&[LOCK, names::MANIFEST]);
        lock_pending().push(Arc::clone(&pending));
        Ok(StagingDir { pending, lock: Some(lock) })
    }

    /// The output folder.
    pub(crate) fn output(&self) -> &Folder {
        &self.pending.output
    }

    /// The folder for the files of the export.
    pub(crate) fn folder(&self) -> &Folder {
        &self.pending.staging
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // blocks while Ctrl-C ends the process, so that no export reports the files it removed as missing
        let mut pending = lock_pending();
        pending.retain(|other| !Arc::ptr_eq(other, &self.pending));
        self.pending.remove();
        self.lock = None;
        // some systems keep the name of an open file, and with it the folders
        self.pending.remove_folders();
    }
}

/// Opens an output folder and its staging folder, both created if they do not exist, and locks them for one export.
fn open_locked(path: &Path) -> Result<(Folder, Folder, File)> {
    const ATTEMPTS: usize = 100;
    let failed = |action| move |source| Error::Io { action, path: path.to_owned(), source };
    for _ in 0..ATTEMPTS {
        fs::create_dir_all(path).map_err(failed("create"))?;
        let output = Folder::open(path).map_err(failed("write into"))?;
        require(&output, names::UNFINISHED, EntryKind::Folder)?;
        let staging = unless_removed(output.create_subfolder(names::UNFINISHED));
        let Some(staging) = staging.map_err(failed("write into"))? else { continue };
        require(&staging, LOCK, EntryKind::File)?;
        let lock = unless_removed(staging.open_or_create(LOCK)).inspect_err(|_| {
            let _ = output.remove_subfolder(names::UNFINISHED);
        });
        let Some(lock) = lock.map_err(failed("write into"))? else { continue };
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => break,
            // a file system without locks
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        // an export that ends removes the file, whose lock means nothing then
        if staging.is_named(LOCK, &lock).map_err(failed("write into"))? {
            return Ok((output, staging, lock));
        }
    }
    Err(Error::OutputBusy { folder: path.to_owned() })
}

/// `None` for a file in a folder that another export removed, because it ended just then.
fn unless_removed<T>(opened: io::Result<T>) -> io::Result<Option<T>> {
    match opened {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        opened => opened.map(Some),
    }
}

/// Refuses an entry that an export cannot have made. Returns whether there is one.
pub(crate) fn require(folder: &Folder, name: &str, expected: EntryKind) -> Result<bool> {
    let path = || folder.path().join(name);
    match folder.kind(name).map_err(|source| Error::Io { action: "read", path: path(), source })? {
        None => Ok(false),
        Some(found) if found == expected => Ok(true),
        Some(found) => Err(Error::OutputEntry { path: path(), found, expected }),
    }
}

impl PendingExport {
    /// Removes the staged files. A staged manifest means that some files were moved to the output folder already, so it
    /// stays and says whose they are.
    fn remove(&self) {
        self.clear(&[names::MANIFEST]);
        self.remove_folders();
    }

    fn remove_folders(&self) {
        // fails for a folder that is not empty, which stays
        let _ = self.output.remove_subfolder(names::UNFINISHED);
        remove_empty(&self.created);
    }

    /// Removes staged files, and nothing that no export can have staged. What cannot be removed only takes space.
    fn clear(&self, kept: &[&str]) {
        for folder in names::written_folders() {
            if let Ok((parent, name)) = self.staging.locate(&folder)
                && let Ok(subfolder) = parent.subfolder(name)
            {
                remove_staged(&subfolder, &[], |file| names::is_written(&format!("{folder}/{file}")));
                // fails for a folder that is not empty, which stays
                let _ = parent.remove_subfolder(name);
            }
        }
        let is_staged = |file: &str| [LOCK, Folder::UNNAMED].contains(&file) || names::is_written(file);
        remove_staged(&self.staging, kept, is_staged);
    }
}

/// Removes the files whose names are those of staged files or, of temporary files, will be.
fn remove_staged(folder: &Folder, kept: &[&str], is_staged: impl Fn(&str) -> bool) {
    for name in folder.names().unwrap_or_default() {
        let final_name = AtomicFile::final_name(&name).unwrap_or(&name);
        if !kept.contains(&name.as_str()) && is_staged(final_name) {
            let _ = folder.remove_file(&name);
        }
    }
}

/// Removes folders that are empty, in this order.
fn remove_empty(folders: &[PathBuf]) {
    for folder in folders {
        // fails for a folder that is not empty, which stays
        let _ = fs::remove_dir(folder);
    }
}

/// Locks the running exports. A commit holds the lock, so that Ctrl-C waits for it.
pub(crate) fn lock_pending() -> MutexGuard<'static, Vec<Arc<PendingExport>>> {
    PENDING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes the files of the exports that this process is running. Call it just before the process ends: it waits for an
/// export that is moving its files into the output folder, and blocks all others for good.
pub fn abort_pending() {
    let pending = lock_pending();
    for export in pending.iter() {
        export.remove();
        // again, because an export that is still writing may have created a file meanwhile
        export.remove();
    }
    std::mem::forget(pending);
}
