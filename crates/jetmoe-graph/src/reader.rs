//! Reads ONNX files back.

use std::path::Path;

use prost::Message;

use crate::{Error, Result, onnx};

/// Reads an ONNX file, without the data outside of it.
///
/// # Errors
/// A file that cannot be read, or is no ONNX model.
pub fn read(path: &Path) -> Result<onnx::Model> {
    let bytes =
        std::fs::read(path).map_err(|source| Error::Io { action: "read", path: path.to_owned(), source })?;
    let not_onnx = |source| Error::NotOnnx { path: path.to_owned(), source };
    let model = onnx::Model::decode(bytes.as_slice()).map_err(|source| not_onnx(Some(source)))?;
    if model.graph.is_none() || model.ir_version.is_none() {
        return Err(not_onnx(None));
    }
    Ok(model)
}
