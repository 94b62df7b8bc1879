//! Slots: the rows of one cache, of which each step continues some by any number of tokens, without padding.

use std::any::Any;
use std::ops::Range;
use std::time::Duration;

use jetmoe_artifact::{InputName, OutputName};
use ndarray::{Array1, Array2, Axis};

use super::buffers::{CacheBuffer, CachePlace, InPlaceGraph, PackedInputs, allocate_all, copy_all};
use crate::contract::{StepSizes, cache_bytes, check_shapes};
use crate::{Error, LogitsToKeep, Result, SavedCache, SlotInputs, SlotSession, TensorMap};

/// The slots of a graph that takes a list of sequences.
#[derive(Debug)]
pub struct InPlaceSlots<Graph: InPlaceGraph> {
    graph: Graph,
    buffers: Vec<CacheBuffer<Graph::Buffer>>,
    /// Tokens of each slot.
    capacity: usize,
    backend_time: Option<Duration>,
}

impl<Graph: InPlaceGraph> InPlaceSlots<Graph> {
    /// Allocates the whole cache of `count` slots of `capacity` tokens each; `None` for a graph without a list of sequences, or
    /// one in which the mask is observed, which a list leaves out.
    ///
    /// # Errors
    /// An error of the backend.
    pub fn new(graph: Graph, count: usize, capacity: usize) -> Result<Option<Self>> {
        let signature = graph.signature();
        let has_list = signature.optional_inputs.iter().any(|input| input.name == InputName::Sequences);
        let observes = signature.outputs.iter().any(|output| output.name == OutputName::AttendedKeys);
        if !has_list || observes {
            return Ok(None);
        }
        let buffers = allocate_all(&graph, count, capacity)?;
        Ok(Some(InPlaceSlots { graph, buffers, capacity, backend_time: None }))
    }

    /// The inputs of a call: all tokens are one row.
    fn packed(inputs: &SlotInputs) -> Result<PackedInputs> {
        let row = |numbers: &[i64]| Array1::from(numbers.to_vec()).insert_axis(Axis(0));
        let tokens = inputs.input_ids.len();
        let listed: usize = inputs.sequences.iter().map(|[_, _, new]| *new).sum();
        if tokens != listed || tokens != inputs.position_ids.len() || tokens == 0 {
            let problem = format!(
                "{listed} listed tokens, {tokens} ids and {} positions in a step of slots",
                inputs.position_ids.len()
            );
            return Err(Error::Contract { problem });
        }
        let sequences = Array2::from_shape_fn((inputs.sequences.len(), 3), |(row, column)| {
            inputs.sequences[row][column] as i64
        });
        Ok(PackedInputs {
            ids: row(&inputs.input_ids),
            // a list takes the place of the mask
            mask: Array2::ones((1, tokens)),
            positions: row(&inputs.position_ids),
            sequences,
            logits_to_keep: inputs.logits.clamp(1, tokens) as i64,
            cancellation: inputs.cancellation.clone(),
        })
    }
}

impl<Graph: InPlaceGraph> SlotSession for InPlaceSlots<Graph> {
    fn run(&mut self, inputs: &SlotInputs) -> Result<TensorMap> {
        let packed = Self::packed(inputs)?;
        let (outputs, time) = self.graph.run(&packed, &mut self.buffers)?;
        let new_tokens = packed.ids.ncols();
        let logits = if inputs.logits >= new_tokens { LogitsToKeep::All } else { LogitsToKeep::Last };
        let sizes = StepSizes { batch_size: 1, new_tokens, cached_tokens: 0, logits };
        let shapes = outputs.iter().map(|(name, output)| (*name, output.shape().to_vec()));
        check_shapes(self.graph.signature(), sizes, shapes)?;
        self.backend_time = Some(time);
        Ok(outputs.into_iter().collect())
    }

    fn backend_time(&self) -> Option<Duration> {
        self.backend_time
    }

    fn save(&self, slot: usize, tokens: Range<usize>) -> Result<SavedCache> {
        let mut buffers = allocate_all(&self.graph, 1, tokens.len())?;
        let from = CachePlace { row: slot, token: tokens.start };
        let to = CachePlace { row: 0, token: 0 };
        copy_all(&self.graph, (&mut buffers, to), (&self.buffers, from), tokens.len())?;
        let bytes = cache_bytes(self.graph.signature(), tokens.len());
        Ok(SavedCache { content: Box::new(buffers), tokens: tokens.len(), bytes })
    }

    fn restore(&mut self, (slot, first): (usize, usize), saved: &SavedCache, tokens: usize) -> Result<()> {
        let content: &dyn Any = &*saved.content;
        let Some(buffers) = content.downcast_ref::<Vec<CacheBuffer<Graph::Buffer>>>() else {
            return Err(Error::Contract { problem: "a cache that another backend saved".to_owned() });
        };
        if tokens > saved.tokens || first + tokens > self.capacity {
            let problem = format!(
                "{tokens} of {} saved tokens behind {first}, in slots for {}",
                saved.tokens, self.capacity
            );
            return Err(Error::Contract { problem });
        }
        let to = CachePlace { row: slot, token: first };
        copy_all(&self.graph, (&mut self.buffers, to), (buffers, CachePlace { row: 0, token: 0 }), tokens)
    }
}
