//! The folder inside the output folder where an export writes its files until all of them are complete.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jetmoe_artifact::names;

use crate::{Error, Result};

/// The running exports of this process, for Ctrl-C.
static PENDING: Mutex<Vec<PendingExport>> = Mutex::new(Vec::new());

/// The folder [`names::UNFINISHED`] of one export. Dropping it removes it, and the folders around it that it created,
/// if they are empty.
#[derive(Debug)]
pub(crate) struct StagingDir {
    pending: PendingExport,
    /// Excludes other exports until this one, or its process, ends.
    lock: Option<File>,
}

/// What to remove if an export does not complete.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PendingExport {
    staging: PathBuf,
    /// Folders around it that did not exist before, innermost first.
    created: Vec<PathBuf>,
}

/// The file whose lock an export holds. The file alone means nothing: the lock ends with the process.
const LOCK: &str = "lock";

impl StagingDir {
    /// Creates the folder in an output folder, which is created too if it does not exist. Files of an interrupted export
    /// are removed, except its manifest, which says whose files the output folder holds.
    pub(crate) fn create(output: &Path) -> Result<Self> {
        let created = output
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_owned)
            .collect();
        let pending = PendingExport { staging: output.join(names::UNFINISHED), created };
        let failed = |action| move |source| Error::Io { action, path: output.to_owned(), source };
        let lock = fs::create_dir_all(output)
            .map_err(failed("create"))
            .and_then(|()| fs::create_dir_all(&pending.staging).map_err(failed("write into")))
            .and_then(|()| File::create(pending.staging.join(LOCK)).map_err(failed("write into")))
            .inspect_err(|_| pending.remove())?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::OutputBusy { folder: output.to_owned() }),
            // a file system without locks
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        pending.clear(&[LOCK, names::MANIFEST]);
        lock_pending().push(pending.clone());
        Ok(StagingDir { pending, lock: Some(lock) })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.pending.staging
    }
}

impl Drop for StagingDir {
    fn drop(&mut self) {
        // blocks while Ctrl-C ends the process, so that no export reports the files it removed as missing
        let mut pending = lock_pending();
        pending.retain(|other| *other != self.pending);
        self.lock = None;
        self.pending.remove();
    }
}

impl PendingExport {
    /// Removes the staged files. A staged manifest means that some files were moved to the output folder already, so it
    /// stays and says whose they are.
    fn remove(&self) {
        self.clear(&[names::MANIFEST]);
        for folder in std::iter::once(&self.staging).chain(&self.created) {
            // fails for a folder that is not empty, which stays
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes staged files. What cannot be removed only takes space.
    fn clear(&self, kept: &[&str]) {
        let Ok(entries) = self.staging.read_dir() else { return };
        for entry in entries.flatten() {
            if kept.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Locks the running exports. A commit holds the lock, so that Ctrl-C waits for it.
pub(crate) fn lock_pending() -> MutexGuard<'static, Vec<PendingExport>> {
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
