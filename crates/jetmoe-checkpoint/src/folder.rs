//! Folders that are held open while files in them are created, moved and removed.
//!
//! On Unix every operation is relative to an open handle, so a link that takes the place of a folder meanwhile changes nothing.
//! Elsewhere the kind of an entry is checked just before it is used.

#[cfg(any(not(unix), test))]
mod portable;
#[cfg(unix)]
mod unix;

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::files::create_temporary;

#[cfg(not(unix))]
use portable::Handle as SystemHandle;
#[cfg(unix)]
use unix::Handle as SystemHandle;

/// The kind of a folder's entry. A link is an entry of its own, whatever it refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, strum::Display)]
#[non_exhaustive]
pub enum EntryKind {
    /// A regular file.
    #[strum(to_string = "a file")]
    File,
    /// A folder.
    #[strum(to_string = "a folder")]
    Folder,
    /// A symbolic link.
    #[strum(to_string = "a symbolic link")]
    Link,
    /// A named pipe, a socket or a device.
    #[strum(to_string = "a pipe, a socket or a device")]
    Special,
}

impl EntryKind {
    pub(crate) fn of(file_type: fs::FileType) -> Self {
        match file_type {
            _ if file_type.is_file() => EntryKind::File,
            _ if file_type.is_dir() => EntryKind::Folder,
            _ if file_type.is_symlink() => EntryKind::Link,
            _ => EntryKind::Special,
        }
    }

    /// Refuses another kind.
    pub(crate) fn require(self, expected: EntryKind) -> io::Result<()> {
        if self == expected {
            return Ok(());
        }
        Err(io::Error::new(io::ErrorKind::InvalidInput, WrongKind { found: self, expected }))
    }
}

/// An entry of another kind than the one that is needed.
#[derive(Debug, thiserror::Error)]
#[error("it is {found}, not {expected}")]
struct WrongKind {
    found: EntryKind,
    expected: EntryKind,
}

/// What a system offers for an open folder. Names are those of its entries, without folders in front.
trait Handle: Sized {
    /// Opens a folder; links in its path are followed.
    fn open(path: &Path) -> io::Result<Self>;
    fn kind(&self, name: &str) -> io::Result<Option<EntryKind>>;
    fn names(&self) -> io::Result<Vec<String>>;
    /// Opens a folder that is no link.
    fn subfolder(&self, name: &str) -> io::Result<Self>;
    fn create_subfolder(&self, name: &str) -> io::Result<()>;
    /// Creates a file that does not exist.
    fn create_file(&self, name: &str) -> io::Result<File>;
    /// Opens a regular file for reading and writing without changing it, or creates it.
    fn open_or_create(&self, name: &str) -> io::Result<File>;
    /// Opens a regular file for reading.
    fn open_file(&self, name: &str) -> io::Result<File>;
    /// Whether a name still refers to an open file.
    fn is_named(&self, name: &str, file: &File) -> io::Result<bool>;
    fn remove_file(&self, name: &str) -> io::Result<()>;
    fn remove_subfolder(&self, name: &str) -> io::Result<()>;
    fn rename(&self, name: &str, folder: &Self, new_name: &str) -> io::Result<()>;
}

/// An open folder. Clones refer to the same one.
///
/// Its path may contain links; an entry that is a link is never followed. An operation on an entry of the wrong kind is an error of
/// kind [`io::ErrorKind::InvalidInput`] that names both kinds, or the error of the system if the entry changed just then.
#[derive(Debug, Clone)]
pub struct Folder {
    path: PathBuf,
    handle: SystemHandle,
}

impl Folder {
    /// The name in front of the random part of the temporary name that a file without a name has while it is created.
    pub const UNNAMED: &str = "unnamed";

    /// Opens a folder.
    ///
    /// # Errors
    /// A path that is no folder, or that cannot be read.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Folder { path: path.to_owned(), handle: SystemHandle::open(path)? })
    }

    /// Its path when it was opened, for messages.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The kind of an entry; `None` if there is none of that name.
    ///
    /// # Errors
    /// A name with a folder in front, or a folder that cannot be searched.
    pub fn kind(&self, name: &str) -> io::Result<Option<EntryKind>> {
        self.handle.kind(check_name(name)?)
    }

    /// Names of all entries, in no order; those that are not UTF-8 are left out.
    ///
    /// # Errors
    /// A folder that cannot be read.
    pub fn names(&self) -> io::Result<Vec<String>> {
        self.handle.names()
    }

    /// Opens a folder in this one.
    ///
    /// # Errors
    /// Anything but a folder.
    pub fn subfolder(&self, name: &str) -> io::Result<Self> {
        if let Some(kind) = self.kind(name)? {
            kind.require(EntryKind::Folder)?;
        }
        Ok(Folder { path: self.path.join(name), handle: self.handle.subfolder(name)? })
    }

    /// Opens a folder in this one, and creates it if it does not exist.
    ///
    /// # Errors
    /// Anything but a folder, or an error of the file system.
    pub fn create_subfolder(&self, name: &str) -> io::Result<Self> {
        match self.handle.create_subfolder(check_name(name)?) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(error),
            _ => self.subfolder(name),
        }
    }

    /// The folder and the name of a file, given by its path relative to this folder, with `/`.
    ///
    /// # Errors
    /// As [`Folder::subfolder`].
    pub fn locate<'n>(&self, relative: &'n str) -> io::Result<(Self, &'n str)> {
        self.walk(relative, Folder::subfolder)
    }

    /// As [`Folder::locate`], and creates the folders that do not exist.
    ///
    /// # Errors
    /// As [`Folder::create_subfolder`].
    pub fn locate_or_create<'n>(&self, relative: &'n str) -> io::Result<(Self, &'n str)> {
        self.walk(relative, Folder::create_subfolder)
    }

    fn walk<'n>(
        &self,
        relative: &'n str,
        step: impl Fn(&Self, &str) -> io::Result<Self>,
    ) -> io::Result<(Self, &'n str)> {
        let mut folder = self.clone();
        let mut rest = relative;
        while let Some((first, others)) = rest.split_once('/') {
            folder = step(&folder, first)?;
            rest = others;
        }
        Ok((folder, check_name(rest)?))
    }

    /// Creates a file for reading and writing.
    ///
    /// # Errors
    /// [`io::ErrorKind::AlreadyExists`] if there is an entry of that name, even a link to nothing.
    pub fn create_file(&self, name: &str) -> io::Result<File> {
        self.handle.create_file(check_name(name)?)
    }

    /// Creates a file without a name, whose space is free when it is closed.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn create_unnamed_file(&self) -> io::Result<File> {
        let (name, file) = create_temporary(self, Self::UNNAMED)?;
        self.remove_file(&name)?;
        Ok(file)
    }

    /// Opens a file for reading and writing without changing it, and creates it if it does not exist.
    ///
    /// # Errors
    /// Anything but a regular file. Opening a named pipe does not wait.
    pub fn open_or_create(&self, name: &str) -> io::Result<File> {
        self.handle.open_or_create(self.check_file(name)?)
    }

    /// Opens a file for reading.
    ///
    /// # Errors
    /// Anything but a regular file. Opening a named pipe does not wait.
    pub fn open_file(&self, name: &str) -> io::Result<File> {
        self.handle.open_file(self.check_file(name)?)
    }

    /// Whether a name still refers to an open file. Always true on systems other than Unix.
    ///
    /// # Errors
    /// A folder that cannot be searched.
    pub fn is_named(&self, name: &str, file: &File) -> io::Result<bool> {
        self.handle.is_named(check_name(name)?, file)
    }

    /// Removes a regular file.
    ///
    /// # Errors
    /// Anything but a regular file.
    pub fn remove_file(&self, name: &str) -> io::Result<()> {
        self.handle.remove_file(self.check_file(name)?)
    }

    /// Removes an empty folder.
    ///
    /// # Errors
    /// Anything but an empty folder.
    pub fn remove_subfolder(&self, name: &str) -> io::Result<()> {
        self.handle.remove_subfolder(check_name(name)?)
    }

    /// Moves a file into another folder, or gives it another name. An entry of the new name is replaced; a link is replaced
    /// itself, and what it refers to stays.
    ///
    /// # Errors
    /// An error of the file system.
    pub fn rename(&self, name: &str, folder: &Folder, new_name: &str) -> io::Result<()> {
        self.handle.rename(check_name(name)?, &folder.handle, check_name(new_name)?)
    }

    /// Refuses an entry that is no regular file. One that does not exist is none.
    fn check_file<'n>(&self, name: &'n str) -> io::Result<&'n str> {
        if let Some(kind) = self.kind(name)? {
            kind.require(EntryKind::File)?;
        }
        Ok(name)
    }
}

/// Refuses what is not the name of an entry, but a path through other folders.
fn check_name(name: &str) -> io::Result<&str> {
    if matches!(name, "" | "." | "..") || name.contains(['/', '\\', '\0']) {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path instead of the name of an entry"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
