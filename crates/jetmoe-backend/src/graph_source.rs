//! A graph that a backend loads.

use std::path::PathBuf;

use jetmoe_artifact::{Artifact, GraphRecord, Result, Signature};

/// A graph to load. Its content is in memory, so a backend loads what was checked, whatever becomes of the file meanwhile.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct GraphSource<'a> {
    /// What the manifest says about the graph.
    pub record: &'a GraphRecord,
    /// Inputs and outputs of the graph.
    pub signature: Signature,
    /// The file that the graph was read from, for messages. Load [`GraphSource::graph`] instead.
    pub path: PathBuf,
    /// The graph: the content of an ONNX file.
    pub graph: Vec<u8>,
    /// The file with the weights. Its name is the one that the graph refers to, and its folder the one that the graph's
    /// locations are relative to. It may be removed after the load; what is mapped then stays mapped.
    pub data: PathBuf,
}

impl<'a> GraphSource<'a> {
    /// Reads a graph of an artifact, and compares size and digest of what was read with the manifest.
    ///
    /// # Errors
    /// A graph that is missing, or that is not the one of the manifest.
    pub fn read(artifact: &Artifact, record: &'a GraphRecord) -> Result<Self> {
        Ok(GraphSource {
            record,
            signature: artifact.signature(record),
            path: artifact.path(&record.graph),
            graph: artifact.read_graph(record)?,
            data: artifact.path(&record.data),
        })
    }
}
