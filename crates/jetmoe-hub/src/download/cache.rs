//! The folder layout of Hugging Face's cache: `models--owner--name/{refs,snapshots,blobs}`, and `.locks/models--owner--name`.

use std::fs::{self, File, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

use hf_hub::HFError;
use jetmoe_artifact::{Manifest, names as artifact_names};
use jetmoe_checkpoint::{Error, WeightsIndex, names, read_text};

use crate::source::is_commit;
use crate::{Content, Result};

/// Attempts to lock a file of the cache, as long as hf-hub's, which take 10 s.
const LOCK_ATTEMPTS: u32 = 100;
const LOCK_DELAY: Duration = Duration::from_millis(100);

/// The folder of one model in the cache.
pub(super) struct Cache {
    folder: PathBuf,
    locks: PathBuf,
}

impl Cache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        let name = format!("models--{}", id.replace('/', "--"));
        Cache { folder: cache_dir.join(&name), locks: cache_dir.join(".locks").join(name) }
    }

    /// Folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// File with the content of files of an ETag.
    pub(super) fn blob(&self, etag: &str) -> PathBuf {
        self.folder.join("blobs").join(etag)
    }

    /// Excludes other downloads of an ETag, by all of Hugging Face's tools, while the returned file is open.
    ///
    /// # Errors
    /// [`HFError::CacheLockTimeout`] if another process has the lock for 10 s.
    pub(super) fn lock(&self, etag: &str) -> Result<File, HFError> {
        fs::create_dir_all(&self.locks)?;
        let path = self.locks.join(format!("{etag}.lock"));
        let file = File::create(&path)?;
        for _ in 0..LOCK_ATTEMPTS {
            match file.try_lock() {
                Ok(()) => return Ok(file),
                Err(TryLockError::WouldBlock) => sleep(LOCK_DELAY),
                Err(TryLockError::Error(error)) => return Err(error.into()),
            }
        }
        Err(HFError::CacheLockTimeout { path })
    }

    /// Makes a blob the file `name` of a commit: by a link, on Windows by a copy, because links need a permission there.
    pub(super) fn add_to_snapshot(&self, commit: &str, name: &str, etag: &str) -> io::Result<()> {
        let path = self.snapshot(commit).join(name);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        #[cfg(unix)]
        let added = {
            // a link to a blob that was removed
            let _ = fs::remove_file(&path);
            let up = "../".repeat(2 + name.matches('/').count());
            std::os::unix::fs::symlink(format!("{up}blobs/{etag}"), &path)
        };
        #[cfg(not(unix))]
        let added = fs::copy(self.blob(etag), &path).map(drop);
        match added {
            // by another process
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            added => added,
        }
    }

    /// File that holds the commit of a branch or tag, as of its last download.
    fn ref_path(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Records the commit of a branch or tag, unless it is recorded already.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> io::Result<()> {
        let path = self.ref_path(revision);
        if is_commit(revision) || fs::read_to_string(&path).is_ok_and(|recorded| recorded.trim() == commit) {
            return Ok(());
        }
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, commit)
    }

    /// The snapshot of a revision, if it has every file that a model needs.
    ///
    /// # Errors
    /// The first file that is missing.
    pub(super) fn complete_snapshot(&self, revision: &str, content: Content) -> Result<PathBuf> {
        let commit = match is_commit(revision) {
            true => revision.to_owned(),
            false => read_text(&self.ref_path(revision))?.trim().to_owned(),
        };
        let folder = self.snapshot(&commit);
        let require = |name: &str| {
            let path = folder.join(name);
            match fs::metadata(&path) {
                Ok(_) => Ok(()),
                Err(source) => Err(Error::Io { action: "read", path, source }),
            }
        };
        if content == Content::Any && folder.join(artifact_names::MANIFEST).is_file() {
            needed_files(&Manifest::read(&folder)?).try_for_each(require)?;
            return Ok(folder);
        }
        require(names::CONFIG)?;
        let index = folder.join(names::WEIGHTS_INDEX);
        if index.is_file() && !folder.join(names::WEIGHTS).is_file() {
            WeightsIndex::read(&index)?.shards().try_for_each(require)?;
        } else {
            require(names::WEIGHTS)?;
        }
        Ok(folder)
    }
}

/// Files of an artifact that must exist: graphs, weights, and what is read beside them.
pub(super) fn needed_files(manifest: &Manifest) -> impl Iterator<Item = &str> {
    let files = manifest.files.iter().filter(|file| artifact_names::is_read(&file.path));
    let graphs = manifest.graphs.iter().flat_map(|graph| [&graph.graph, &graph.data]);
    files.chain(graphs).map(|file| file.path.as_str())
}
