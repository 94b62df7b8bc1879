//! Writes a graph as an ONNX file and its weights as one external data file, as a stream.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use jetmoe_checkpoint::{AtomicFile, Checkpoint, Digest};
use jetmoe_format::{ElementType, TensorRole, TensorSpec, WeightFormat};
use rayon::prelude::*;

use crate::conversion::{Quantizer, Source};
use crate::graph::Graph;
use crate::partial_file::PartialFile;
use crate::serialize::model;
use crate::{Error, Result};

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

/// Writes `graph` to `graph_path` and its weights to `data_path`, as [`write_to`] does.
///
/// # Errors
/// As [`write_to`], or a folder that cannot be written to.
pub fn write(
    graph: &Graph,
    checkpoint: &Checkpoint,
    quantizer: &dyn Quantizer,
    graph_path: &Path,
    data_path: &Path,
    progress: &mut dyn FnMut(u64),
) -> Result<WrittenGraph> {
    let create = |path: &Path| {
        AtomicFile::create(path).map_err(|source| Error::Io {
            action: "create",
            path: path.to_owned(),
            source,
        })
    };
    write_to(graph, checkpoint, quantizer, create(graph_path)?, create(data_path)?, progress)
}

/// Writes `graph` to one file and its weights to another. Weights come from `checkpoint`; `quantizer` provides the codes of
/// quantized ones. Both files must be in the same folder, because the graph names its data file by its bare name. They take
/// their names when they are complete. `progress` receives the number of weight bytes written since its last call.
///
/// # Errors
/// A weight that the checkpoint lacks or that its element type cannot hold, or an error of the file system.
pub fn write_to(
    graph: &Graph,
    checkpoint: &Checkpoint,
    quantizer: &dyn Quantizer,
    graph_file: AtomicFile,
    data_file: AtomicFile,
    progress: &mut dyn FnMut(u64),
) -> Result<WrittenGraph> {
    graph.check_weights(checkpoint)?;
    let location = data_file.path().file_name().unwrap_or_default().to_string_lossy().into_owned();

    let ranges = assign_ranges(graph);
    let writing = Writing { graph, checkpoint, quantizer, ranges: &ranges };
    let data = writing.write(PartialFile::new(data_file), progress)?;
    let message = model(graph, &location, &ranges);
    let mut file = PartialFile::new(graph_file);
    file.write_all(&message.to_bytes()).map_err(file.failed("write"))?;
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
        let needed: Vec<_> = self.weights().map(|weight| weight.stored()).collect();
        Ok(checkpoint.check_weights(&needed)?)
    }

    /// Sizes in bytes by the format that the weights are stored in, scales and zero points with their codes.
    pub fn bytes_by_format(&self) -> BTreeMap<WeightFormat, u64> {
        let mut bytes = BTreeMap::new();
        for weight in self.weights() {
            let size: u64 = weight.tensors().iter().map(TensorSpec::bytes).sum();
            *bytes.entry(weight.format()).or_insert(0) += size;
        }
        bytes
    }

    /// Size of all weights in bytes, as they will be written.
    pub fn weight_bytes(&self) -> u64 {
        self.bytes_by_format().values().sum()
    }
}

/// Where a tensor of a weight is in the data file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct FileRange {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// For every weight the ranges of its tensors: consecutive, each aligned.
fn assign_ranges(graph: &Graph) -> Vec<Vec<FileRange>> {
    let mut end = 0_u64;
    let mut assign = |length: u64| {
        let offset = end.next_multiple_of(alignment(length));
        end = offset + length;
        FileRange { offset, length }
    };
    graph
        .weights()
        .map(|weight| weight.tensors().iter().map(|tensor| assign(tensor.bytes())).collect())
        .collect()
}

/// Large weights begin at a page, so that they can be mapped alone; small ones at a cache line.
fn alignment(length: u64) -> u64 {
    const LARGE: u64 = 1 << 20;
    if length >= LARGE { 4096 } else { 64 }
}

/// Chunks that wait to be written; each is at most a few megabytes.
const CHUNKS_IN_FLIGHT: usize = 8;

/// The weights of a graph on their way into the data file.
struct Writing<'a> {
    graph: &'a Graph,
    checkpoint: &'a Checkpoint,
    quantizer: &'a dyn Quantizer,
    ranges: &'a [Vec<FileRange>],
}

impl Writing<'_> {
    /// Converts the weights on all cores while one thread hashes and writes them in order. Memory holds a few chunks at a
    /// time, independent of the size of the model.
    fn write(&self, data: PartialFile, progress: &mut dyn FnMut(u64)) -> Result<PartialFile> {
        let failed = data.failed("write");
        let (sender, receiver) = sync_channel(CHUNKS_IN_FLIGHT);
        let (converted, written) = thread::scope(|scope| {
            let writer = scope.spawn(move || write_chunks(receiver, data));
            let converted = self.convert(&mut Stream { sender: &sender, end: 0, progress });
            drop(sender);
            let written =
                writer.join().unwrap_or_else(|_| Err(io::Error::other("the writing thread ended early")));
            (converted, written)
        });
        // a conversion also ends because writing failed, and then that is the reason to report
        let data = written.map_err(failed)?;
        converted?;
        Ok(data)
    }

    fn convert(&self, stream: &mut Stream<'_>) -> Result<()> {
        for (weight, ranges) in self.graph.weights().zip(self.ranges) {
            let (mut scales, mut zero_points) = (Vec::new(), Vec::new());
            let mut begin = ranges.first().map(|range| range.offset);
            // precomputed codes of a matrix are in memory while it is written, so matrices come one by one
            for matrix in weight.matrices() {
                let source = Source::new(&matrix, self.checkpoint, self.quantizer)?;
                let chunks: Vec<usize> = (0..source.chunks()).collect();
                for group in chunks.chunks(2 * rayon::current_num_threads()) {
                    let converted: Vec<Result<_>> =
                        group.par_iter().map(|chunk| source.chunk(*chunk)).collect();
                    for chunk in converted {
                        let chunk = chunk?;
                        scales.extend_from_slice(&chunk.scales);
                        zero_points.extend_from_slice(&chunk.zero_points);
                        if stream.send(begin.take(), chunk.elements).is_none() {
                            return Ok(());
                        }
                    }
                }
            }
            for (tensor, range) in weight.tensors().iter().zip(ranges) {
                let content = match tensor.role {
                    TensorRole::Elements | TensorRole::Codes => continue,
                    TensorRole::Scales => std::mem::take(&mut scales),
                    TensorRole::ZeroPoints if tensor.element == ElementType::UInt4 => {
                        weight.format().pack(&zero_points)
                    }
                    TensorRole::ZeroPoints => std::mem::take(&mut zero_points),
                };
                if stream.send(Some(range.offset), content).is_none() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}

fn write_chunks(receiver: Receiver<Vec<u8>>, mut data: PartialFile) -> io::Result<PartialFile> {
    for chunk in receiver {
        data.write_all(&chunk)?;
    }
    Ok(data)
}

/// A message to the writing thread.
struct Stream<'a> {
    sender: &'a SyncSender<Vec<u8>>,
    /// Bytes sent so far.
    end: u64,
    progress: &'a mut dyn FnMut(u64),
}

impl Stream<'_> {
    /// Sends the next bytes, which begin at `offset` where one is given. `None` once writing has failed.
    fn send(&mut self, offset: Option<u64>, bytes: Vec<u8>) -> Option<()> {
        let padding = offset.map_or(0, |offset| offset - self.end);
        let length = bytes.len() as u64;
        self.end += padding + length;
        if padding > 0 {
            self.sender.send(vec![0; padding as usize]).ok()?;
        }
        self.sender.send(bytes).ok()?;
        (self.progress)(length);
        Some(())
    }
}
