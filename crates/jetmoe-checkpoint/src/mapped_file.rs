//! Read-only memory maps of model files.

use std::fs::File;
use std::io;
use std::ops::Deref;
use std::path::Path;

use memmap2::Mmap;

use crate::{Error, Result, open_file};

/// The bytes of a file, mapped into memory: pages are read on first access and shared by every process that maps the
/// file.
#[derive(Debug)]
pub struct MappedFile(Mmap);

impl MappedFile {
    /// Maps a file.
    ///
    /// # Errors
    /// Anything but a regular file, or a file that cannot be opened or mapped.
    pub fn open(path: &Path) -> Result<Self> {
        let io = |action| move |source| Error::Io { action, path: path.to_owned(), source };
        Self::of_file(&open_file(path).map_err(io("open"))?).map_err(io("map"))
    }

    /// Maps an open file.
    pub(crate) fn of_file(file: &File) -> io::Result<Self> {
        // SAFETY: the map is read-only. As with every mapped model file, the bytes stay valid unless another process
        // truncates the file; no code here relies on their content staying unchanged.
        let map = unsafe { Mmap::map(file) }?;
        Ok(MappedFile(map))
    }
}

impl Deref for MappedFile {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}
