//! Open folders on Unix: every operation is relative to a file descriptor and follows no link.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags, mkdirat, open, openat, renameat, statat, unlinkat};
use rustix::io::Errno;

use super::EntryKind;

/// Permissions of new folders and files before the process's umask, as the standard library creates them.
const FOLDER_MODE: Mode = Mode::from_raw_mode(0o777);
const FILE_MODE: Mode = Mode::from_raw_mode(0o666);

const FOLDER: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);
/// No link, and neither waiting for the other end of a pipe nor becoming the terminal of the process.
const ENTRY: OFlags = OFlags::NOFOLLOW.union(OFlags::NONBLOCK).union(OFlags::NOCTTY).union(OFlags::CLOEXEC);

#[derive(Debug, Clone)]
pub(super) struct Handle(Arc<OwnedFd>);

impl Handle {
    fn open_entry(&self, name: &str, flags: OFlags) -> io::Result<File> {
        let file = File::from(openat(self.0.as_fd(), name, flags | ENTRY, FILE_MODE)?);
        EntryKind::of(file.metadata()?.file_type()).require(EntryKind::File)?;
        Ok(file)
    }
}

impl super::Handle for Handle {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Handle(Arc::new(open(path, FOLDER, Mode::empty())?)))
    }

    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>> {
        let status = match statat(self.0.as_fd(), name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => return Ok(None),
            status => status?,
        };
        Ok(Some(match FileType::from_raw_mode(status.st_mode) {
            FileType::RegularFile => EntryKind::File,
            FileType::Directory => EntryKind::Folder,
            FileType::Symlink => EntryKind::Link,
            _ => EntryKind::Special,
        }))
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in Dir::read_from(self.0.as_fd())? {
            if let Ok(name) = entry?.file_name().to_str()
                && !matches!(name, "." | "..")
            {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn subfolder(&self, name: &str) -> io::Result<Self> {
        Ok(Handle(Arc::new(openat(self.0.as_fd(), name, FOLDER | OFlags::NOFOLLOW, Mode::empty())?)))
    }

    fn create_subfolder(&self, name: &str) -> io::Result<()> {
        Ok(mkdirat(self.0.as_fd(), name, FOLDER_MODE)?)
    }

    fn create_file(&self, name: &str) -> io::Result<File> {
        self.open_entry(name, OFlags::RDWR | OFlags::CREATE | OFlags::EXCL)
    }

    fn open_or_create(&self, name: &str) -> io::Result<File> {
        self.open_entry(name, OFlags::RDWR | OFlags::CREATE)
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        self.open_entry(name, OFlags::RDONLY)
    }

    fn is_named(&self, name: &str, file: &File) -> io::Result<bool> {
        let found = match self.open_entry(name, OFlags::RDONLY) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
            found => found?.metadata()?,
        };
        let file = file.metadata()?;
        Ok((found.dev(), found.ino()) == (file.dev(), file.ino()))
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(self.0.as_fd(), name, AtFlags::empty())?)
    }

    fn remove_subfolder(&self, name: &str) -> io::Result<()> {
        Ok(unlinkat(self.0.as_fd(), name, AtFlags::REMOVEDIR)?)
    }

    fn rename(&self, name: &str, folder: &Self, new_name: &str) -> io::Result<()> {
        Ok(renameat(self.0.as_fd(), name, folder.0.as_fd(), new_name)?)
    }
}
