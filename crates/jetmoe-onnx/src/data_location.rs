//! The name of the file that the tensors of a graph are in.

use std::path::Path;

use crate::check::check_fields;
use crate::reader::decode;
use crate::{Result, Tensor};

/// The key of [`Tensor::external_data`] that names the file.
const LOCATION: &str = "location";

/// The graph `bytes`, the content of the file `path`, with its tensors in a data file of another name.
///
/// # Errors
/// What is no ONNX model, and [`Error::Unexpected`](crate::Error::Unexpected) for a graph that is not encoded as it is decoded, so that it would lose
/// something.
pub fn with_data_file(path: &Path, bytes: &[u8], name: &str) -> Result<Vec<u8>> {
    let mut model = decode(path, bytes)?;
    check_fields(bytes, &model).map_err(|refusal| refusal.of_file(path))?;
    if let Some(graph) = &mut model.graph {
        let attributes = graph.node.iter_mut().flat_map(|node| &mut node.attribute);
        let constants = attributes.filter_map(|attribute| attribute.t.as_mut());
        graph.initializer.iter_mut().chain(constants).for_each(|tensor| set_location(tensor, name));
    }
    Ok(model.to_bytes())
}

fn set_location(tensor: &mut Tensor, name: &str) {
    for entry in tensor.external_data.iter_mut().filter(|entry| entry.key() == LOCATION) {
        entry.value = Some(name.to_owned());
    }
}
