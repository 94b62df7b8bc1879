//! Reads ONNX files, with limits on their size and on the memory that their messages take, and encodes them.

use std::io::{self, Read};
use std::path::Path;

use jetmoe_artifact::MAX_GRAPH_BYTES;
use jetmoe_checkpoint::open_file;
use prost::Message;

use crate::decoded_size::decoded_size;
use crate::{Error, Model, Result};

/// The longest file that holds a protobuf message, in bytes.
pub const MAX_ONNX_BYTES: u64 = 2 << 30;

/// The most memory that messages take in addition to the bytes of the file. A message of two bytes can take some hundred.
const MAX_MESSAGE_BYTES: u64 = 1 << 30;

/// Reads the graph of an artifact, without the data outside of it: at most [`MAX_GRAPH_BYTES`].
///
/// # Errors
/// A file that cannot be read, that is too long, or that is no ONNX model.
pub fn read(path: &Path) -> Result<Model> {
    read_up_to(path, MAX_GRAPH_BYTES)
}

/// As [`read`], with another limit on the size of the file: [`MAX_ONNX_BYTES`] for one that may hold its weights.
///
/// # Errors
/// As [`read`].
pub fn read_up_to(path: &Path, limit: u64) -> Result<Model> {
    decode(path, &read_bytes(path, limit)?)
}

/// The content of a regular file.
fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>> {
    let io = |source: io::Error| match source.kind() {
        io::ErrorKind::InvalidInput => Error::NotAFile { path: path.to_owned() },
        _ => Error::Io { action: "read", path: path.to_owned(), source },
    };
    let check = |found| match found > limit {
        true => Err(Error::TooLong { path: path.to_owned(), found, limit }),
        false => Ok(found),
    };
    let file = open_file(path).map_err(io)?;
    let size = check(file.metadata().map_err(io)?.len())?;
    let mut bytes = Vec::with_capacity(size as usize);
    file.take(limit.saturating_add(1)).read_to_end(&mut bytes).map_err(io)?;
    // it may have grown
    check(bytes.len() as u64)?;
    Ok(bytes)
}

/// Decodes the content of a file; errors name it.
///
/// # Errors
/// What is no ONNX model, or consists of too many messages.
pub fn decode(path: &Path, bytes: &[u8]) -> Result<Model> {
    let not_onnx = |source| Error::NotOnnx { path: path.to_owned(), source };
    let limit = MAX_MESSAGE_BYTES + bytes.len() as u64;
    if decoded_size(bytes, limit) > limit {
        return Err(Error::TooManyMessages { path: path.to_owned(), limit: MAX_MESSAGE_BYTES });
    }
    let model = Model::decode(bytes).map_err(|source| not_onnx(Some(source)))?;
    if model.graph.is_none() || model.ir_version.is_none() {
        return Err(not_onnx(None));
    }
    Ok(model)
}

impl Model {
    /// The content of its file.
    pub fn to_bytes(&self) -> Vec<u8> {
        self.encode_to_vec()
    }
}
