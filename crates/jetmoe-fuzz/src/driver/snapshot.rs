//! What a folder holds before and after a command, to find what the command touched.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use anyhow::Result;
use jetmoe_checkpoint::Digest;

/// Longer files are compared by their times alone.
const MAX_DIGESTED: u64 = 1 << 16;

/// Every entry below a folder, links not followed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Snapshot(BTreeMap<PathBuf, Entry>);

#[derive(Debug, PartialEq, Eq)]
struct Entry {
    mode: u32,
    length: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    content: Option<Digest>,
    target: Option<PathBuf>,
}

impl Snapshot {
    /// Everything in `root` but the entries with the names `without`.
    pub(crate) fn take(root: &Path, without: &[&str]) -> Result<Self> {
        let mut entries = BTreeMap::new();
        let mut folders = vec![root.to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder)? {
                let path = entry?.path();
                let relative = path.strip_prefix(root)?.to_owned();
                if without.iter().any(|name| relative == Path::new(name)) {
                    continue;
                }
                let metadata = path.symlink_metadata()?;
                if metadata.is_dir() {
                    folders.push(path.clone());
                }
                entries.insert(relative, Entry::of(&path, &metadata)?);
            }
        }
        Ok(Snapshot(entries))
    }

    /// Entries that were created, removed or changed until `later`.
    pub(crate) fn differences<'s>(&'s self, later: &'s Self) -> Vec<&'s Path> {
        let mut different: Vec<&Path> = Vec::new();
        different.extend(
            self.0
                .iter()
                .filter(|(path, entry)| later.0.get(*path) != Some(entry))
                .map(|(path, _)| path.as_path()),
        );
        different.extend(later.0.keys().filter(|path| !self.0.contains_key(*path)).map(PathBuf::as_path));
        different
    }
}

impl Entry {
    fn of(path: &Path, metadata: &fs::Metadata) -> Result<Self> {
        let is_digested = metadata.is_file() && metadata.len() <= MAX_DIGESTED;
        Ok(Entry {
            mode: metadata.mode(),
            length: if metadata.is_file() { metadata.len() } else { 0 },
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
            content: if is_digested { Some(Digest::of_bytes(&fs::read(path)?)) } else { None },
            target: if metadata.is_symlink() { Some(fs::read_link(path)?) } else { None },
        })
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn what_is_written_removed_or_created_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::create_dir_all(path("inner/allowed")).unwrap();
        for name in ["kept", "written", "removed"] {
            fs::write(path("inner").join(name), name).unwrap();
        }
        symlink("nowhere", path("link")).unwrap();
        let take = || Snapshot::take(folder.path(), &["inner/allowed", "later"]).unwrap();
        let before = take();
        assert!(before.differences(&take()).is_empty());

        fs::write(path("inner/written"), "WRITTEN").unwrap();
        fs::write(path("inner/allowed/new"), "").unwrap();
        fs::write(path("later"), "").unwrap();
        assert_eq!(before.differences(&take()), [Path::new("inner/written")]);
        fs::remove_file(path("inner/removed")).unwrap();
        fs::remove_file(path("link")).unwrap();
        fs::write(path("new"), "").unwrap();
        let after = take();
        let found = ["inner", "inner/removed", "inner/written", "link", "new"].map(Path::new);
        assert_eq!(before.differences(&after), found);
    }
}
