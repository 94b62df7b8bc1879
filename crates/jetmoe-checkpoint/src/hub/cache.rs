//! The folder layout of Hugging Face's cache: `models--owner--name/{refs,snapshots,blobs}`.

use std::io;
use std::path::{Path, PathBuf};

use crate::index::WeightsIndex;
use crate::names;

/// One model's part of the cache.
pub(super) struct Cache {
    folder: PathBuf,
}

impl Cache {
    pub(super) fn new(cache_dir: &Path, id: &str) -> Self {
        Cache { folder: cache_dir.join(format!("models--{}", id.replace('/', "--"))) }
    }

    /// Where the files of a commit are.
    pub(super) fn snapshot(&self, commit: &str) -> PathBuf {
        self.folder.join("snapshots").join(commit)
    }

    /// Notes which commit a branch or tag was when it was fetched.
    pub(super) fn point(&self, revision: &str, commit: &str) -> io::Result<()> {
        if is_commit(revision) {
            return Ok(());
        }
        let reference = self.folder.join("refs").join(revision);
        if let Some(parent) = reference.parent() {
            std::fs::create_dir_all(parent)?;
        }
        std::fs::write(reference, commit)
    }

    /// The snapshot of a revision if it has all a model needs, else what is missing.
    pub(super) fn complete_snapshot(&self, revision: &str) -> Result<PathBuf, String> {
        let commit = if is_commit(revision) {
            revision.to_owned()
        } else {
            let reference = self.folder.join("refs").join(revision);
            std::fs::read_to_string(&reference)
                .map(|commit| commit.trim().to_owned())
                .map_err(|_| format!("{} does not exist", reference.display()))?
        };
        let folder = self.snapshot(&commit);
        let require = |name: &str| {
            let file = folder.join(name);
            if file.is_file() { Ok(()) } else { Err(format!("{} does not exist", file.display())) }
        };
        require(names::CONFIG)?;
        let index = folder.join(names::WEIGHTS_INDEX);
        if index.is_file() && !folder.join(names::WEIGHTS).is_file() {
            let index = WeightsIndex::read(&index).map_err(|error| error.to_string())?;
            index.shards().try_for_each(require)?;
        } else {
            require(names::WEIGHTS)?;
        }
        Ok(folder)
    }
}

/// A full commit hash names its snapshot without a reference.
fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|byte| byte.is_ascii_hexdigit())
}
