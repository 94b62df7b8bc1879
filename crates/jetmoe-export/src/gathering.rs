//! The folder where an export gathers its files until all of them are whole.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jetmoe_artifact::names;

use crate::{Error, Result};

/// What the running exports of this process have begun, for Ctrl-C.
static BEGUN: Mutex<Vec<Traces>> = Mutex::new(Vec::new());

/// The folder [`names::UNFINISHED`] of one export. Dropped, it is removed, and so are the folders around it that it
/// created, as far as they are empty.
#[derive(Debug)]
pub(crate) struct Gathering {
    traces: Traces,
    /// Keeps other exports away for the life of this one, or of its process.
    lock: Option<File>,
}

/// What an export that came to nothing leaves to be removed.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Traces {
    /// The folder of the gathered files.
    gathering: PathBuf,
    /// Folders around it that did not exist before, innermost first.
    created: Vec<PathBuf>,
}

/// The file whose lock an export holds. It alone means nothing: the lock ends with the process.
const LOCK: &str = "lock";

impl Gathering {
    /// Begins in an output folder, which is created if need be. What an interrupted export gathered is removed, except a
    /// manifest, which tells whose files lie in the output folder.
    pub(crate) fn begin(output: &Path) -> Result<Self> {
        let gathering = output.join(names::UNFINISHED);
        let created = output
            .ancestors()
            .take_while(|folder| !folder.as_os_str().is_empty() && !folder.exists())
            .map(Path::to_owned)
            .collect();
        let traces = Traces { gathering, created };
        let failed = |action| move |source| Error::Io { action, path: output.to_owned(), source };
        let lock = fs::create_dir_all(output)
            .map_err(failed("create"))
            .and_then(|()| fs::create_dir_all(&traces.gathering).map_err(failed("write into")))
            .and_then(|()| File::create(traces.gathering.join(LOCK)).map_err(failed("write into")))
            .inspect_err(|_| traces.remove())?;
        match lock.try_lock() {
            Err(TryLockError::WouldBlock) => return Err(Error::OutputBusy { folder: output.to_owned() }),
            // a file system without locks
            Err(TryLockError::Error(_)) | Ok(()) => {}
        }
        traces.clear(&[LOCK, names::MANIFEST]);
        begun().push(traces.clone());
        Ok(Gathering { traces, lock: Some(lock) })
    }

    /// Where the files are gathered.
    pub(crate) fn folder(&self) -> &Path {
        &self.traces.gathering
    }
}

impl Drop for Gathering {
    fn drop(&mut self) {
        // Ctrl-C ends the process with this locked, so that nobody reports what it removed as missing
        let mut begun = begun();
        begun.retain(|other| *other != self.traces);
        self.lock = None;
        self.traces.remove();
    }
}

impl Traces {
    /// Removes what was gathered but not put in place. A manifest that is there means that some files were, so it stays
    /// and says whose they are.
    fn remove(&self) {
        self.clear(&[names::MANIFEST]);
        for folder in std::iter::once(&self.gathering).chain(&self.created) {
            // a folder that holds something stays
            let _ = fs::remove_dir(folder);
        }
    }

    /// Removes gathered files, as far as possible: they are in nobody's way but take space.
    fn clear(&self, kept: &[&str]) {
        let Ok(entries) = self.gathering.read_dir() else { return };
        for entry in entries.flatten() {
            if kept.iter().any(|kept| entry.file_name() == *kept) {
                continue;
            }
            let path = entry.path();
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
    }
}

/// Locks what was begun. While files are put in place it is held, so that Ctrl-C waits.
pub(crate) fn begun() -> MutexGuard<'static, Vec<Traces>> {
    BEGUN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Removes what the exports of this process have begun, for a process that is about to end: they wait as long as the
/// answer lives. An export that is putting its files in place is waited for.
pub(crate) fn stop_exports() -> MutexGuard<'static, Vec<Traces>> {
    let begun = begun();
    for traces in begun.iter() {
        traces.remove();
        // once more, as an export that is still writing may have made a file meanwhile
        traces.remove();
    }
    begun
}
