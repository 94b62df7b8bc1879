//! Writes a graph as an ONNX file and its weights as one external data file, as a stream.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use jetmoe_checkpoint::{Checkpoint, Digest};
use prost::Message;
use sha2::{Digest as _, Sha256};

use crate::graph::{Attribute, Graph, ValueFacts, ValueId};
use crate::{Dimension, Error, Result, onnx};

/// Sizes and digests of the two files of a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WrittenGraph {
    /// Size of the graph file in bytes.
    pub graph_size: u64,
    /// Digest of the graph file.
    pub graph_sha256: Digest,
    /// Size of the external data in bytes.
    pub data_size: u64,
    /// Digest of the external data.
    pub data_sha256: Digest,
}

/// Writes `graph` to `graph_path` and its weights, taken from `checkpoint`, to `data_path`, which must lie in the same
/// folder: the graph names it by its bare file name. Both are written under temporary names and renamed when they are
/// whole; what an interrupted run leaves behind ends in `.partial`. `progress` is told the number of weight bytes
/// written since its last call.
///
/// # Errors
/// A weight that the checkpoint does not have, or what the file system refuses.
pub fn write(
    graph: &Graph,
    checkpoint: &Checkpoint,
    graph_path: &Path,
    data_path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<WrittenGraph> {
    graph.check_weights(checkpoint)?;
    let location = data_path.file_name().unwrap_or_default().to_string_lossy().into_owned();

    let mut data = PartialFile::create(data_path)?;
    let mut places = Vec::with_capacity(graph.weights.len());
    for (_, weight) in &graph.weights {
        let elements: usize = weight.shape().iter().product();
        let length = (elements * size_of::<f32>()) as u64;
        data.align(alignment(length))?;
        let offset = data.written;
        weight.write_f32(checkpoint, &mut data)?.map_err(data.failed("write"))?;
        debug_assert_eq!(data.written - offset, length);
        places.push(Place { offset, length });
        progress(length);
    }
    let model = model(graph, &location, &places);
    let mut file = PartialFile::create(graph_path)?;
    file.write_all(&model.encode_to_vec()).map_err(file.failed("write"))?;
    // the graph names the data file, so the data must be in place first
    let (data_size, data_sha256) = data.finish()?;
    let (graph_size, graph_sha256) = file.finish()?;
    Ok(WrittenGraph { graph_size, graph_sha256, data_size, data_sha256 })
}

impl Graph {
    /// Checks that a checkpoint has every weight in the shape that the graph needs.
    ///
    /// # Errors
    /// All weights that are missing or do not fit, at once.
    pub fn check_weights(&self, checkpoint: &Checkpoint) -> Result<()> {
        let needed: Vec<_> = self.weights.iter().map(|(_, weight)| weight.stored()).collect();
        Ok(checkpoint.check_weights(&needed)?)
    }

    /// Size of all weights in bytes, as they will be written.
    pub fn weight_bytes(&self) -> u64 {
        self.weights
            .iter()
            .map(|(_, weight)| (weight.shape().iter().product::<usize>() * size_of::<f32>()) as u64)
            .sum()
    }
}

/// Where a weight lies in the data file.
struct Place {
    offset: u64,
    length: u64,
}

/// Large weights begin at a page, so that they can be mapped alone; small ones at a cache line.
fn alignment(length: u64) -> u64 {
    const LARGE: u64 = 1 << 20;
    if length >= LARGE { 4096 } else { 64 }
}

/// A file under its temporary name, counted and hashed as it is written. Dropped unfinished, it is removed.
struct PartialFile {
    path: PathBuf,
    partial: PathBuf,
    target: Option<BufWriter<File>>,
    hasher: Sha256,
    written: u64,
}

impl PartialFile {
    fn create(path: &Path) -> Result<Self> {
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
            hasher: Sha256::new(),
            written: 0,
        })
    }

    fn failed(&self, action: &'static str) -> impl FnOnce(io::Error) -> Error + use<> {
        let path = self.path.clone();
        move |source| Error::Io { action, path, source }
    }

    fn align(&mut self, alignment: u64) -> Result<()> {
        let padding = self.written.next_multiple_of(alignment) - self.written;
        let zeros = vec![0; padding as usize];
        self.write_all(&zeros).map_err(self.failed("write"))
    }

    /// Flushes everything to the disk and gives the file its name.
    fn finish(mut self) -> Result<(u64, Digest)> {
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
        Ok((self.written, Digest::finish(self.hasher.clone())))
    }
}

impl Write for PartialFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(target) = &mut self.target else { return Err(io::Error::other("the file is finished")) };
        let length = target.write(bytes)?;
        self.hasher.update(&bytes[..length]);
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

fn model(graph: &Graph, location: &str, places: &[Place]) -> onnx::Model {
    let metadata = [
        ("jetmoe.task", graph.task.to_string()),
        ("jetmoe.precision", graph.precision.to_string()),
        ("jetmoe.profile", graph.profile.to_string()),
    ];
    onnx::Model {
        ir_version: Some(graph.opset.ir_version()),
        producer_name: Some("jetmoe-export".to_owned()),
        producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
        doc_string: Some(format!("JetMoE for {}", graph.task)),
        graph: Some(body(graph, location, places)),
        opset_import: vec![onnx::OperatorSetId {
            domain: Some(String::new()),
            version: Some(i64::from(graph.opset.version())),
        }],
        metadata_props: metadata.into_iter().map(|(key, value)| entry(key, value)).collect(),
    }
}

fn body(graph: &Graph, location: &str, places: &[Place]) -> onnx::Graph {
    let name = |id: &ValueId| graph.values[*id].name.clone();
    let constants = graph.constants.iter().map(|constant| {
        let bytes = constant.elements.to_le_bytes();
        onnx::Tensor { raw_data: Some(bytes), ..tensor(&graph.values[constant.value]) }
    });
    let weights = graph.weights.iter().zip(places).map(|((value, _), place)| onnx::Tensor {
        external_data: vec![
            entry("location", location.to_owned()),
            entry("offset", place.offset.to_string()),
            entry("length", place.length.to_string()),
        ],
        data_location: Some(onnx::DataLocation::External as i32),
        ..tensor(&graph.values[*value])
    });
    onnx::Graph {
        name: Some(format!("jetmoe-{}", graph.task)),
        node: graph
            .nodes
            .iter()
            .map(|node| onnx::Node {
                input: node.inputs.iter().map(name).collect(),
                output: node.outputs.iter().map(name).collect(),
                name: Some(node.name.clone()),
                op_type: Some(node.operator.to_owned()),
                attribute: node.attributes.iter().map(|(name, value)| attribute(name, value)).collect(),
                domain: None,
            })
            .collect(),
        initializer: constants.chain(weights).collect(),
        input: graph.inputs.iter().map(|id| value_info(&graph.values[*id])).collect(),
        output: graph.outputs.iter().map(|id| value_info(&graph.values[*id])).collect(),
    }
}

/// Name, element type and dimensions of an initializer, whose shape is always fixed.
fn tensor(facts: &ValueFacts) -> onnx::Tensor {
    onnx::Tensor {
        dims: facts.shape.0.iter().filter_map(Dimension::fixed).collect(),
        data_type: Some(facts.element.onnx()),
        name: Some(facts.name.clone()),
        ..onnx::Tensor::default()
    }
}

fn value_info(facts: &ValueFacts) -> onnx::ValueInfo {
    let dim = facts.shape.0.iter().map(|size| onnx::ShapeDimension {
        value: Some(match size.fixed() {
            Some(number) => onnx::DimensionValue::DimValue(number),
            None => onnx::DimensionValue::DimParam(size.to_string()),
        }),
    });
    let tensor_type = onnx::TensorType {
        elem_type: Some(facts.element.onnx()),
        shape: Some(onnx::TensorShape { dim: dim.collect() }),
    };
    onnx::ValueInfo {
        name: Some(facts.name.clone()),
        r#type: Some(onnx::Type { tensor_type: Some(tensor_type) }),
    }
}

fn attribute(name: &str, value: &Attribute) -> onnx::Attribute {
    let named = onnx::Attribute { name: Some(name.to_owned()), ..onnx::Attribute::default() };
    match value {
        Attribute::Integer(number) => {
            onnx::Attribute { i: Some(*number), r#type: Some(onnx::AttributeType::Int as i32), ..named }
        }
        Attribute::Float32Tensor(number) => onnx::Attribute {
            t: Some(onnx::Tensor {
                dims: vec![1],
                data_type: Some(onnx::DataType::Float as i32),
                raw_data: Some(number.to_le_bytes().to_vec()),
                ..onnx::Tensor::default()
            }),
            r#type: Some(onnx::AttributeType::Tensor as i32),
            ..named
        },
        Attribute::Integers(numbers) => {
            onnx::Attribute { ints: numbers.clone(), r#type: Some(onnx::AttributeType::Ints as i32), ..named }
        }
    }
}

fn entry(key: &str, value: String) -> onnx::StringStringEntry {
    onnx::StringStringEntry { key: Some(key.to_owned()), value: Some(value) }
}
