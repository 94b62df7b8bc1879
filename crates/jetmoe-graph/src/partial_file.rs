use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{Digest, Hasher};

use crate::{Error, Result};

/// A file under its temporary name, counted and hashed as it is written. Dropped unfinished, it is removed.
pub(crate) struct PartialFile {
    path: PathBuf,
    partial: PathBuf,
    target: Option<BufWriter<File>>,
    hasher: Hasher,
    written: u64,
}

impl PartialFile {
    pub(crate) fn create(path: &Path) -> Result<Self> {
        let mut partial = path.as_os_str().to_owned();
        partial.push(".partial");
        let partial = PathBuf::from(partial);
        let file = File::create(&partial).map_err(|source| Error::Io {
            action: "create",
            path: partial.clone(),
            source,
        })?;
        Ok(PartialFile {
            path: path.to_owned(),
            partial,
            target: Some(BufWriter::with_capacity(1 << 20, file)),
            hasher: Hasher::default(),
            written: 0,
        })
    }

    pub(crate) fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Io { action, path, source }
    }

    /// Flushes everything to the disk and gives the file its name.
    pub(crate) fn finish(mut self) -> Result<(u64, Digest)> {
        let failed = self.failed("write");
        let renamed = self.target.take().map_or(Ok(()), |target| {
            let file = target.into_inner().map_err(io::IntoInnerError::into_error)?;
            file.sync_all()?;
            std::fs::rename(&self.partial, &self.path)
        });
        if renamed.is_err() {
            // best effort: the first error is the one to report
            let _ = std::fs::remove_file(&self.partial);
        }
        renamed.map_err(failed)?;
        Ok((self.written, std::mem::take(&mut self.hasher).finish()))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(target) = &mut self.target else { return Err(io::Error::other("the file is finished")) };
        let length = target.write(bytes)?;
        self.hasher.write_all(&bytes[..length])?;
        self.written += length as u64;
        Ok(length)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.target.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for PartialFile {
    fn drop(&mut self) {
        if let Some(target) = self.target.take() {
            // what is still buffered is not worth writing
            drop(target.into_parts());
            let _ = std::fs::remove_file(&self.partial);
        }
    }
}
