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
use tract_onnx::pb::{GraphProto, TensorProto};
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

    /// Refuses a graph with a tensor in another file: the artifact lists this one for it.
    pub(crate) fn check_locations(&self, graph: &GraphProto) -> TractResult<()> {
        let name = self.path.file_name().and_then(|name| name.to_str());
        check_locations(graph, name.with_context(|| format!("{} has no name", self.path.display()))?)
    }

    /// Makes external tensors, whose locations are checked, refer to the file that the data file links to, as in a cache of the hub, and returns its
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

/// Checks the tensors of a graph, of its nodes' attributes, and of the graphs in those.
fn check_locations(graph: &GraphProto, file: &str) -> TractResult<()> {
    let check = |tensor: &TensorProto| -> TractResult<()> {
        let mut locations = tensor.external_data.iter().filter(|entry| entry.key == "location");
        match locations.find(|location| location.value != file) {
            Some(other) => {
                bail!(
                    "the weight {:?} is in the file {:?}, and the data file of the graph is {file:?}",
                    tensor.name,
                    other.value
                )
            }
            None => Ok(()),
        }
    };
    graph.initializer.iter().try_for_each(check)?;
    for attribute in graph.node.iter().flat_map(|node| &node.attribute) {
        attribute.t.iter().chain(&attribute.tensors).try_for_each(check)?;
        attribute.g.iter().chain(&attribute.graphs).try_for_each(|graph| check_locations(graph, file))?;
    }
    Ok(())
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

#[cfg(test)]
mod tests {
    use tract_onnx::pb::{AttributeProto, NodeProto, StringStringEntryProto};

    use super::*;

    fn tensor(name: &str, location: Option<&str>) -> TensorProto {
        let entry =
            |key: &str, value: &str| StringStringEntryProto { key: key.to_owned(), value: value.to_owned() };
        let external = location.map(|file| vec![entry("location", file), entry("offset", "0")]);
        TensorProto {
            name: name.to_owned(),
            external_data: external.unwrap_or_default(),
            ..TensorProto::default()
        }
    }

    fn graph(initializer: Vec<TensorProto>, attribute: AttributeProto) -> GraphProto {
        let node = vec![NodeProto { attribute: vec![attribute], ..NodeProto::default() }];
        GraphProto { initializer, node, ..GraphProto::default() }
    }

    #[test]
    fn weights_are_in_the_data_file_of_the_graph_alone() {
        let data = DataFile::new("artifact/onnx/model.onnx_data".into());
        let own = || vec![tensor("a", None), tensor("b", Some("model.onnx_data"))];
        data.check_locations(&graph(own(), AttributeProto::default())).unwrap();
        for other in ["model_q4.onnx_data", "onnx/model.onnx_data", "../model.onnx_data", "/etc/passwd", ""] {
            let stray = || tensor("stray", Some(other));
            let constant = AttributeProto { t: Some(stray()), ..AttributeProto::default() };
            let branch = graph(vec![stray()], AttributeProto::default());
            let branch = AttributeProto { g: Some(branch), ..AttributeProto::default() };
            for refused in [
                graph(vec![tensor("a", None), stray()], AttributeProto::default()),
                graph(own(), constant),
                graph(own(), branch),
            ] {
                let error = data.check_locations(&refused).unwrap_err().to_string();
                let expected = format!(
                    "the weight \"stray\" is in the file {other:?}, and the data file of the graph is \
                     \"model.onnx_data\""
                );
                assert_eq!(error, expected);
            }
        }
    }
}
