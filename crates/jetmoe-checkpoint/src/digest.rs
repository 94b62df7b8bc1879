//! SHA-256 digests of checkpoints and files.

use std::fmt;
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use rayon::prelude::*;
use sha2::{Digest as _, Sha256};

use crate::{Checkpoint, Error, Result, names, open_file, read_bytes};

/// A SHA-256 digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Bytes hashed between two calls of the progress callback.
const CHUNK: usize = 8 << 20;

/// Bytes read at once.
const READ: usize = 1 << 20;

impl Digest {
    /// Digest of bytes.
    pub fn of_bytes(bytes: &[u8]) -> Self {
        Digest(Sha256::digest(bytes).into())
    }

    /// Digest of a file's content.
    ///
    /// # Errors
    /// A file that cannot be read.
    pub fn of_file(path: &Path) -> io::Result<Self> {
        let mut hasher = Hasher::default();
        // `io::copy` reads into the buffer of the writer, and without one 8 KiB at a time
        let mut writer = BufWriter::with_capacity(READ, &mut hasher);
        io::copy(&mut open_file(path)?, &mut writer)?;
        writer.flush()?;
        drop(writer);
        Ok(hasher.finish())
    }

    /// The digest covers the configuration file and, per tensor in order of names, name, type, shape and bytes; it
    /// does not depend on how the weights are split into shards.
    pub(crate) fn of_checkpoint(checkpoint: &Checkpoint, progress: &(dyn Fn(u64) + Sync)) -> Result<Self> {
        let config = read_bytes(&checkpoint.folder().join(names::CONFIG))?;
        let tensors: Vec<[u8; 32]> = checkpoint
            .tensors()
            .raw()
            .into_par_iter()
            .map(|(name, dtype, shape, bytes)| {
                let mut hasher = Sha256::new();
                hasher.update(format!("{name}\n{dtype}\n{shape:?}\n"));
                for chunk in bytes.chunks(CHUNK) {
                    hasher.update(chunk);
                    progress(chunk.len() as u64);
                }
                hasher.finalize().into()
            })
            .collect();
        let mut hasher = Sha256::new_with_prefix(Sha256::digest(&config));
        for tensor in tensors {
            hasher.update(tensor);
        }
        Ok(Digest(hasher.finalize().into()))
    }
}

/// Hashes what is written to it.
#[derive(Debug, Clone, Default)]
pub struct Hasher(Sha256);

impl Hasher {
    /// Digest of everything written.
    pub fn finish(self) -> Digest {
        Digest(self.0.finalize().into())
    }
}

impl Write for Hasher {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Digest {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        let invalid = || Error::InvalidDigest { text: text.to_owned() };
        if text.len() != 64 || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(invalid());
        }
        let mut digest = [0; 32];
        for (byte, digits) in digest.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| invalid())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| invalid())?;
        }
        Ok(Digest(digest))
    }
}

impl serde::Serialize for Digest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> serde::Deserialize<'de> for Digest {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
