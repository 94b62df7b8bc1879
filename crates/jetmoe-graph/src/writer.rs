//! Writes a graph as an ONNX file and its weights as one external data file, as a stream.

use std::io::{self, Write};
use std::path::Path;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;

use jetmoe_checkpoint::{Checkpoint, Digest};
use prost::Message;
use rayon::prelude::*;

use crate::Result;
use crate::graph::Graph;
use crate::partial_file::PartialFile;
use crate::serialize::model;
use crate::weight::Source;

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

    let places = places(graph);
    let data = write_weights(graph, checkpoint, &places, PartialFile::create(data_path)?, progress)?;
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
        self.weights.iter().map(|(_, weight)| weight.encoded_length()).sum()
    }
}

/// Where a weight lies in the data file.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// One weight behind the other, each aligned.
fn places(graph: &Graph) -> Vec<Place> {
    let mut end = 0_u64;
    let lengths = graph.weights.iter().map(|(_, weight)| weight.encoded_length());
    lengths
        .map(|length| {
            let offset = end.next_multiple_of(alignment(length));
            end = offset + length;
            Place { offset, length }
        })
        .collect()
}

/// Large weights begin at a page, so that they can be mapped alone; small ones at a cache line.
fn alignment(length: u64) -> u64 {
    const LARGE: u64 = 1 << 20;
    if length >= LARGE { 4096 } else { 64 }
}

/// Pieces that wait to be written; each is at most a few megabytes.
const PIECES_IN_FLIGHT: usize = 8;

/// Converts the weights on all cores while one thread hashes and writes what is ready, in order. Memory holds a few
/// pieces at a time, whatever the size of the model.
fn write_weights(
    graph: &Graph,
    checkpoint: &Checkpoint,
    places: &[Place],
    data: PartialFile,
    progress: &mut dyn FnMut(u64),
) -> Result<PartialFile> {
    let failed = data.failed("write");
    let (sender, receiver) = sync_channel(PIECES_IN_FLIGHT);
    let (converted, written) = thread::scope(|scope| {
        let writer = scope.spawn(move || write_pieces(receiver, data));
        let converted = convert_weights(graph, checkpoint, places, &sender, progress);
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

fn write_pieces(receiver: Receiver<Vec<u8>>, mut data: PartialFile) -> io::Result<PartialFile> {
    for piece in receiver {
        data.write_all(&piece)?;
    }
    Ok(data)
}

fn convert_weights(
    graph: &Graph,
    checkpoint: &Checkpoint,
    places: &[Place],
    sender: &SyncSender<Vec<u8>>,
    progress: &mut dyn FnMut(u64),
) -> Result<()> {
    let mut end = 0;
    for ((_, weight), place) in graph.weights.iter().zip(places) {
        let padding = vec![0; (place.offset - end) as usize];
        end = place.offset + place.length;
        if sender.send(padding).is_err() {
            return Ok(());
        }
        let source: Source<'_> = weight.source(checkpoint)?;
        let pieces: Vec<usize> = (0..source.pieces()).collect();
        for group in pieces.chunks(2 * rayon::current_num_threads()) {
            let converted: Vec<Vec<u8>> = group.par_iter().map(|piece| source.piece(*piece)).collect();
            for piece in converted {
                let length = piece.len() as u64;
                if sender.send(piece).is_err() {
                    return Ok(());
                }
                progress(length);
            }
        }
    }
    Ok(())
}
