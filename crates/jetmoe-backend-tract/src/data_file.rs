//! The bytes of a graph's tensors: in the graph, or in its data file.

use std::borrow::Cow;
use std::cell::OnceCell;
use std::collections::HashMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use jetmoe_checkpoint::MappedFile;
use tract_onnx::pb::TensorProto;
use tract_onnx::prelude::*;
use tract_onnx::tract_hir::internal::*;

/// The data file of a graph, mapped when it is first needed.
pub(crate) struct DataFile {
    path: PathBuf,
    mapped: OnceCell<Arc<MappedFile>>,
}

impl DataFile {
    pub(crate) fn new(path: PathBuf) -> Self {
        DataFile { path, mapped: OnceCell::new() }
    }

    /// Makes external tensors refer to the file that the data file links to, as in a cache of the hub, and returns its
    /// folder: tract refuses links that lead out of the folder of the graph.
    pub(crate) fn resolve_links(&self, tensors: &mut [TensorProto]) -> TractResult<PathBuf> {
        let path = self.path.canonicalize().with_context(|| format!("open {}", self.path.display()))?;
        let name = path.file_name().and_then(|name| name.to_str()).map(str::to_owned);
        let (Some(name), Some(folder)) = (name, path.parent()) else {
            bail!("{} has no name", path.display())
        };
        let locations = tensors.iter_mut().flat_map(|tensor| &mut tensor.external_data);
        for location in locations.filter(|entry| entry.key == "location") {
            location.value.clone_from(&name);
        }
        Ok(folder.to_owned())
    }

    /// The mapping.
    pub(crate) fn mapped(&self) -> TractResult<&Arc<MappedFile>> {
        match self.mapped.get() {
            Some(mapped) => Ok(mapped),
            None => {
                let mapped = Arc::new(MappedFile::open(&self.path)?);
                Ok(self.mapped.get_or_init(|| mapped))
            }
        }
    }

    /// Bytes of a tensor. They are read, not mapped: a page of a mapped file counts as memory of the process while a weight
    /// is being packed.
    pub(crate) fn bytes<'a>(&self, tensor: &'a TensorProto) -> TractResult<Cow<'a, [u8]>> {
        if tensor.external_data.is_empty() {
            return Ok(Cow::Borrowed(&tensor.raw_data));
        }
        let place = place(tensor)?;
        let mut file = File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        let length = file.metadata()?.len();
        ensure!(place.end as u64 <= length, "its bytes end at {} of {length}", place.end);
        let mut bytes = vec![0; place.len()];
        file.seek(SeekFrom::Start(place.start as u64))?;
        file.read_exact(&mut bytes).with_context(|| format!("read {}", self.path.display()))?;
        Ok(Cow::Owned(bytes))
    }
}

/// The tensors that are stored with a graph, by name.
pub(crate) struct Initializers<'a>(HashMap<&'a str, &'a TensorProto>);

impl<'a> Initializers<'a> {
    pub(crate) fn of(tensors: &'a [TensorProto]) -> Self {
        Initializers(tensors.iter().map(|tensor| (tensor.name.as_str(), tensor)).collect())
    }

    pub(crate) fn get(&self, name: &str) -> TractResult<&'a TensorProto> {
        self.0.get(name).copied().with_context(|| format!("{name} is not stored with the graph"))
    }
}

/// Where a tensor is in the data file.
pub(crate) fn place(tensor: &TensorProto) -> TractResult<Range<usize>> {
    let entry = |key: &str| {
        let entry = tensor.external_data.iter().find(|entry| entry.key == key);
        let entry = entry.with_context(|| format!("has no {key} in a data file"))?;
        entry.value.parse::<usize>().with_context(|| format!("{key} {:?}", entry.value))
    };
    let (offset, length) = (entry("offset")?, entry("length")?);
    let end = offset.checked_add(length).with_context(|| format!("ends beyond {offset} + {length}"))?;
    Ok(offset..end)
}
