//! A file of the artifact while it is written.

use std::io::{self, Write};
use std::path::PathBuf;

use jetmoe_checkpoint::{AtomicFile, Digest, Hasher};

use crate::{Error, Result};

/// An [`AtomicFile`] that counts and hashes what is written to it.
pub(crate) struct PartialFile {
    path: PathBuf,
    file: AtomicFile,
    hasher: Hasher,
    written: u64,
}

impl PartialFile {
    pub(crate) fn new(file: AtomicFile) -> Self {
        PartialFile { path: file.path(), file, hasher: Hasher::default(), written: 0 }
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Io { action, path, source }
    }

    /// Renames the file to its final name; returns its size in bytes and its digest.
    pub(crate) fn finish(self) -> Result<(u64, Digest)> {
        let failed = self.failed("write");
        self.file.commit().map_err(failed)?;
        Ok((self.written, self.hasher.finish()))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let length = self.file.write(bytes)?;
        self.hasher.write_all(&bytes[..length])?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}
