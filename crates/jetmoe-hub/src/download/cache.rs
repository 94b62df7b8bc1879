//! The folder layout of Hugging Face's cache: `models--owner--name/{refs,snapshots,blobs}`.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{Error, Result, WeightsIndex, names, read_text};

/// The folder of one model in the cache.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Cache { folder: cache_dir.join(format!("models--{}", id.replace('/', "--"))) }
    }

    /// Folder with the files of a commit.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// File that holds the commit of a branch or tag, as of its last download.
    fn ref_path(&self, revision: &str) -> PathBuf {
        self.folder.join("refs").join(revision)
    }

    /// Records the commit of a branch or tag.
    pub(super) fn write_ref(&self, revision: &str, commit: &str) -> io::Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let path = self.ref_path(revision);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        fs::write(path, commit)
    }

    /// The snapshot of a revision, if it has every file that a model needs.
    ///
    /// # Errors
    /// The first file that is missing.
    pub(super) fn complete_snapshot(&self, revision: &str) -> Result<PathBuf> {
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

/// A full commit hash names its snapshot without a ref.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
