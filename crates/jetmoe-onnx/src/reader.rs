//! Reads ONNX files, and encodes them.

use std::path::Path;

use prost::Message;

use crate::{Error, Model, Result};

/// Reads an ONNX file, without the data outside of it.
///
/// # Errors
/// A file that cannot be read, or is no ONNX model.
pub fn read(path: &Path) -> Result<Model> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let not_onnx = |source| Error::NotOnnx { path: path.to_owned(), source };
    let model = Model::decode(bytes.as_slice()).map_err(|source| not_onnx(Some(source)))?;
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
