//! Open folders with the standard library alone, for systems other than Unix: paths, whose entries are checked before they are
//! used.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use super::EntryKind;

#[derive(Debug, Clone)]
pub(super) struct Handle(PathBuf);

impl Handle {
    fn require(&self, name: &str, expected: EntryKind) -> io::Result<PathBuf> {
        let path = self.0.join(name);
        EntryKind::of(fs::symlink_metadata(&path)?.file_type()).require(expected)?;
        Ok(path)
    }
}

impl super::Handle for Handle {
    fn open(path: &Path) -> io::Result<Self> {
        EntryKind::of(fs::metadata(path)?.file_type()).require(EntryKind::Folder)?;
        Ok(Handle(path.to_owned()))
    }

    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>> {
        match fs::symlink_metadata(self.0.join(name)) {
            Ok(metadata) => Ok(Some(EntryKind::of(metadata.file_type()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in self.0.read_dir()? {
            names.extend(entry?.file_name().into_string());
        }
        Ok(names)
    }

    fn subfolder(&self, name: &str) -> io::Result<Self> {
        Ok(Handle(self.require(name, EntryKind::Folder)?))
    }

    fn create_subfolder(&self, name: &str) -> io::Result<()> {
        fs::create_dir(self.0.join(name))
    }

    fn create_file(&self, name: &str) -> io::Result<File> {
        File::options().read(true).write(true).create_new(true).open(self.0.join(name))
    }

    fn open_or_create(&self, name: &str) -> io::Result<File> {
        match self.create_file(name) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                File::options().read(true).write(true).open(self.require(name, EntryKind::File)?)
            }
            created => created,
        }
    }

    fn open_file(&self, name: &str) -> io::Result<File> {
        File::open(self.require(name, EntryKind::File)?)
    }

    fn is_named(&self, _name: &str, _file: &File) -> io::Result<bool> {
        Ok(true)
    }

    fn remove_file(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.require(name, EntryKind::File)?)
    }

    fn remove_subfolder(&self, name: &str) -> io::Result<()> {
        fs::remove_dir(self.require(name, EntryKind::Folder)?)
    }

    fn rename(&self, name: &str, folder: &Self, new_name: &str) -> io::Result<()> {
        fs::rename(self.require(name, EntryKind::File)?, folder.0.join(new_name))
    }
}
