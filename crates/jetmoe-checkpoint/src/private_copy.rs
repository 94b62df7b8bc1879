//! A copy of a file that other users cannot change.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use crate::{Error, Result, open_file};

/// A copy of a file in a new folder that only the user of this process can enter. Both are removed when this is dropped; on
/// Unix, what is mapped from the copy stays mapped. The copy shares blocks with the file where the file system can (reflinks).
#[derive(Debug)]
pub struct PrivateCopy {
    path: PathBuf,
    _folder: TempDir,
}

impl PrivateCopy {
    /// Copies a file, under its own name, into a new folder in `folder`.
    ///
    /// # Errors
    /// A file that cannot be read, a folder that cannot be written to, [`Error::DiskSpace`], or any system but Unix, where a
    /// file that is in use cannot be removed.
    pub fn create(file: &Path, folder: &Path) -> Result<Self> {
        let io = |action: &'static str, path: &Path| {
            let path = path.to_owned();
            move |source| Error::Io { action, path, source }
        };
        if !cfg!(unix) {
            return Err(io("make a private copy in", folder)(io::ErrorKind::Unsupported.into()));
        }
        let mut from = open_file(file).map_err(io("read", file))?;
        let needed = from.metadata().map_err(io("read", file))?.len();
        let available = free_space(folder).map_err(io("write to", folder))?;
        if available < needed {
            return Err(Error::DiskSpace { folder: folder.to_owned(), needed, available });
        }
        let private = private_folder(folder).map_err(io("write to", folder))?;
        let path = private.path().join(file.file_name().unwrap_or_default());
        // between files, this is a system call that shares blocks
        let copied = File::create_new(&path).and_then(|mut to| io::copy(&mut from, &mut to));
        copied.map_err(io("write", &path))?;
        Ok(PrivateCopy { path, _folder: private })
    }

    /// The copy.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether files in a folder are in memory, as in a tmpfs. False where it is unknown.
    pub fn takes_memory(folder: &Path) -> bool {
        #[cfg(target_os = "linux")]
        {
            /// `TMPFS_MAGIC` of `linux/magic.h`.
            const TMPFS: i128 = 0x0102_1994;
            rustix::fs::statfs(folder).is_ok_and(|found| i128::from(found.f_type) == TMPFS)
        }
        #[cfg(not(target_os = "linux"))]
        {
            let _ = folder;
            false
        }
    }
}

/// Bytes that this user can write to the file system of a folder.
fn free_space(folder: &Path) -> io::Result<u64> {
    #[cfg(unix)]
    {
        let found = rustix::fs::statvfs(folder)?;
        Ok(found.f_bavail.saturating_mul(found.f_frsize))
    }
    #[cfg(not(unix))]
    Ok(folder.metadata().map(|_| u64::MAX)?)
}

fn private_folder(folder: &Path) -> io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("jetmoe-");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o700));
    }
    builder.tempdir_in(folder)
}

#[cfg(all(test, unix))]
mod tests;
