//! The buffers of a cache that is updated in place, and what a backend does with them.

use std::fmt;
use std::time::Duration;

use jetmoe_artifact::{ElementType, InputName, OutputName, Signature};
use ndarray::{Array2, ArrayD};

use crate::contract::past_shape;
use crate::{CancellationToken, Result};

/// The operations that [`InPlaceSession`](super::InPlaceSession) and [`InPlaceSlots`](super::InPlaceSlots) require from a
/// backend.
pub trait InPlaceGraph: fmt::Debug + Send {
    /// Keys or values of a layer, `[batch, kv_heads, capacity, kv_channels]`, or rows of bytes.
    type Buffer: fmt::Debug + Send + 'static;

    /// Inputs and outputs of the graph.
    fn signature(&self) -> &Signature;

    /// Allocates a buffer of an element type and shape. Its content does not matter.
    ///
    /// # Errors
    /// An error of the backend.
    fn allocate(&self, element: ElementType, shape: &[usize]) -> Result<Self::Buffer>;

    /// Reads a whole buffer, `[batch, kv_heads, capacity, kv_channels]`.
    ///
    /// # Errors
    /// An error of the backend.
    fn read(&self, buffer: &Self::Buffer) -> Result<ArrayD<f32>>;

    /// Copies `tokens` tokens of a row of one buffer to a row of another, whose batch size and capacity may differ. Both have
    /// capacity for them.
    ///
    /// # Errors
    /// An error of the backend.
    fn copy_tokens(
        &self,
        to: (&mut Self::Buffer, CachePlace),
        from: (&Self::Buffer, CachePlace),
        tokens: usize,
    ) -> Result<()>;

    /// Runs the graph, which updates the buffers.
    ///
    /// # Errors
    /// [`Error::Cancelled`](crate::Error::Cancelled) if the call was stopped, or another error of the backend. The buffers are
    /// still there, and changed only behind the cached tokens.
    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<Self::Buffer>]) -> Result<RunOutput>;
}

/// Outputs of a call other than the cache, and how long the engine took.
pub type RunOutput = (Vec<(OutputName, ArrayD<f32>)>, Duration);

/// A buffer with the names that the graph reads and writes it by.
#[derive(Debug)]
pub struct CacheBuffer<Buffer> {
    /// The input.
    pub past: InputName,
    /// The output.
    pub present: OutputName,
    /// The buffer.
    pub buffer: Buffer,
}

/// A token of a row of a buffer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachePlace {
    /// The row.
    pub row: usize,
    /// The token's place in it.
    pub token: usize,
}

/// Inputs of one call, without padding in front.
#[derive(Debug)]
pub struct PackedInputs {
    /// `[rows, new_tokens]`
    pub ids: Array2<i64>,
    /// `[rows, cached and new columns]`
    pub mask: Array2<i64>,
    /// `[rows, new_tokens]`
    pub positions: Array2<i64>,
    /// The sequences that the tokens of one row belong to, `[sequences, 3]`; none where the mask says so.
    pub sequences: Array2<i64>,
    /// The value of `logits_to_keep`.
    pub logits_to_keep: i64,
    /// Stops the call.
    pub cancellation: CancellationToken,
}

/// Buffers for every part of a graph's cache, in the order of its inputs.
pub(super) fn allocate_all<Graph: InPlaceGraph>(
    graph: &Graph,
    batch_size: usize,
    capacity: usize,
) -> Result<Vec<CacheBuffer<Graph::Buffer>>> {
    let mut buffers = Vec::new();
    for input in &graph.signature().inputs {
        let present = match input.name {
            InputName::PastKey(layer) => OutputName::PresentKey(layer),
            InputName::PastValue(layer) => OutputName::PresentValue(layer),
            _ => continue,
        };
        let buffer = graph.allocate(input.element, &past_shape(input, batch_size, capacity))?;
        buffers.push(CacheBuffer { past: input.name, present, buffer });
    }
    Ok(buffers)
}

/// Copies tokens of a sequence, in every part of the cache.
pub(super) fn copy_all<Graph: InPlaceGraph>(
    graph: &Graph,
    (to, to_place): (&mut [CacheBuffer<Graph::Buffer>], CachePlace),
    (from, from_place): (&[CacheBuffer<Graph::Buffer>], CachePlace),
    tokens: usize,
) -> Result<()> {
    for (to, from) in to.iter_mut().zip(from) {
        graph.copy_tokens((&mut to.buffer, to_place), (&from.buffer, from_place), tokens)?;
    }
    Ok(())
}

/// Copies `tokens` tokens of a row of one buffer to a row of another, given their elements and shapes.
pub fn copy_tokens<T: Copy>(
    (to, to_shape, to_place): (&mut [T], &[usize], CachePlace),
    (from, from_shape, from_place): (&[T], &[usize], CachePlace),
    tokens: usize,
) {
    let (heads, channels) = (from_shape[1], from_shape[3]);
    for head in 0..heads {
        let start = |shape: &[usize], place: CachePlace| {
            ((place.row * heads + head) * shape[2] + place.token) * channels
        };
        let (from, to) = (&from[start(from_shape, from_place)..], &mut to[start(to_shape, to_place)..]);
        to[..tokens * channels].copy_from_slice(&from[..tokens * channels]);
    }
}
