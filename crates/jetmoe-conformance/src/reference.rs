//! The Candle reference as a backend.

use std::sync::Arc;

use jetmoe_artifact::{
    Artifact, GraphRecord, OptionalOutput, OutputName, Precision, Profile, Signature, Task,
};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_reference::{Cache, Inputs, Reference};
use jetmoe_rt::{
    Backend, BackendError, BoxError, GraphSession, GraphSource, LoadOptions, LoadedGraph, Model, StepInputs,
    Support, TensorMap, available_memory,
};
use jetmoe_text::Tokenizer;
use ndarray::{ArrayD, IxDyn};

use crate::{Error, Result, StoredWeights};

/// The reference as a backend: it holds a checkpoint, whose weights it computes with in place of a graph's.
#[derive(Debug, Clone, Copy)]
pub struct ReferenceBackend<'a> {
    checkpoint: &'a Checkpoint,
}

impl<'a> ReferenceBackend<'a> {
    /// The reference over a checkpoint.
    pub fn new(checkpoint: &'a Checkpoint) -> Self {
        ReferenceBackend { checkpoint }
    }
}

impl Backend for ReferenceBackend<'_> {
    fn name(&self) -> &'static str {
        NAME
    }

    fn supports(&self, _graph: &GraphRecord, options: &LoadOptions) -> Support {
        if options.private_copy.is_some() {
            return Support::No {
                reason: "it reads the checkpoint, of which no private copy is made".to_owned(),
            };
        }
        Support::Yes { preference: 0 }
    }

    fn rounds_activations(&self, _graph: &GraphRecord, _options: &LoadOptions) -> bool {
        false
    }

    fn estimate_memory(&self, _graph: &GraphRecord, _options: &LoadOptions) -> u64 {
        memory_as_float32(self.checkpoint)
    }

    fn load(&self, source: &GraphSource<'_>, _options: &LoadOptions) -> BackendResult<Arc<dyn LoadedGraph>> {
        let reference = Reference::load(self.checkpoint).map_err(|error| BackendError::Load {
            backend: NAME,
            graph: self.checkpoint.folder().to_owned(),
            source: error.into(),
        })?;
        Ok(Arc::new(ReferenceGraph::new(reference, self.checkpoint, source.record.task)))
    }
}

type BackendResult<T> = std::result::Result<T, BackendError>;

/// The name of this backend.
pub(crate) const NAME: &str = "reference";

/// Loads a checkpoint into the reference and wraps it as a model. It computes every output there is.
///
/// # Errors
/// A checkpoint without the head that the task needs, or one that does not fit into memory as float32.
pub fn reference_model(checkpoint: &Checkpoint, task: Task) -> Result<Model> {
    check_memory(checkpoint)?;
    wrap(Reference::load(checkpoint)?, checkpoint, task)
}

/// [`reference_model`] with the weights that a graph holds, dequantized to float32.
///
/// # Errors
/// As [`reference_model`], and a graph whose weights cannot be read.
pub fn reference_model_of_graph(
    checkpoint: &Checkpoint,
    artifact: &Artifact,
    record: &GraphRecord,
) -> Result<Model> {
    check_memory(checkpoint)?;
    let stored = StoredWeights::open(artifact, record)?;
    wrap(Reference::load_with_overrides(checkpoint, &stored)?, checkpoint, record.task)
}

/// Bytes of a checkpoint's weights as float32, which the reference holds.
fn memory_as_float32(checkpoint: &Checkpoint) -> u64 {
    checkpoint.tensors().parameters() * size_of::<f32>() as u64
}

fn check_memory(checkpoint: &Checkpoint) -> Result<()> {
    let needed = memory_as_float32(checkpoint);
    match available_memory() {
        Some(available) if available < needed => Err(Error::ReferenceMemory { needed, available }),
        _ => Ok(()),
    }
}

fn wrap(reference: Reference, checkpoint: &Checkpoint, task: Task) -> Result<Model> {
    let graph = ReferenceGraph::new(reference, checkpoint, task);
    let generation_config = task.generation_config(checkpoint.folder(), checkpoint.config())?;
    Ok(Model::from_graph(
        Arc::new(graph),
        checkpoint.config().clone(),
        task,
        Tokenizer::open(checkpoint.folder())?,
        generation_config,
    ))
}

#[derive(Debug)]
struct ReferenceGraph {
    reference: Arc<Reference>,
    signature: Signature,
    task: Task,
}

impl ReferenceGraph {
    fn new(reference: Reference, checkpoint: &Checkpoint, task: Task) -> Self {
        let optional = OptionalOutput::ALL.iter().copied().collect();
        let config = checkpoint.config();
        let signature = Signature::new(config, task, Precision::F32, Profile::Portable, &optional);
        ReferenceGraph { reference: Arc::new(reference), signature, task }
    }
}

#[derive(Debug)]
struct ReferenceSession {
    reference: Arc<Reference>,
    task: Task,
    cache: Cache,
}

impl LoadedGraph for ReferenceGraph {
    fn backend(&self) -> String {
        "reference (Candle)".to_owned()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn start(&self) -> BackendResult<Box<dyn GraphSession>> {
        let reference = Arc::clone(&self.reference);
        Ok(Box::new(ReferenceSession { reference, task: self.task, cache: Cache::new() }))
    }
}

impl GraphSession for ReferenceSession {
    fn run(&mut self, inputs: &StepInputs) -> BackendResult<TensorMap> {
        let row_major = |array: &ndarray::Array2<i64>| array.iter().copied().collect::<Vec<_>>();
        let input_ids = row_major(&inputs.input_ids);
        let cancellation = &inputs.cancellation;
        let inputs = Inputs {
            input_ids: &input_ids,
            attention_mask: &row_major(&inputs.attention_mask),
            position_ids: &row_major(&inputs.position_ids),
            batch_size: inputs.input_ids.nrows(),
            sequence_length: inputs.input_ids.ncols(),
        };
        // a task without a cache sees each batch alone
        let mut cache = if self.task.has_cache() { self.cache.clone() } else { Cache::new() };
        let outputs = self.reference.forward_until(&inputs, &mut cache, || cancellation.is_cancelled());
        let outputs = outputs.map_err(|error| match error {
            jetmoe_reference::Error::Stopped { .. } => BackendError::Cancelled { backend: NAME },
            error => failed(error),
        })?;
        let mut tensors = TensorMap::new();
        let mut put = |name, tensor: &candle_core::Tensor| -> BackendResult<()> {
            tensors.insert(name, array(tensor)?);
            Ok(())
        };
        for (index, hidden) in outputs.hidden_states.iter().enumerate() {
            put(OutputName::HiddenState(index), hidden)?;
        }
        for (layer, logits) in outputs.attention_router_logits.iter().enumerate() {
            put(OutputName::AttentionRouterLogits(layer), logits)?;
        }
        for (layer, logits) in outputs.mlp_router_logits.iter().enumerate() {
            put(OutputName::MlpRouterLogits(layer), logits)?;
        }
        put(OutputName::LastHiddenState, &outputs.last_hidden_state)?;
        match self.task {
            Task::Backbone => {}
            Task::CausalLm => {
                let logits = self.reference.logits(&outputs.last_hidden_state).map_err(failed)?;
                put(OutputName::Logits, &logits)?;
            }
            Task::SequenceClassification => {
                let logits =
                    self.reference.class_logits(&outputs.last_hidden_state, &input_ids).map_err(failed)?;
                put(OutputName::Logits, &logits)?;
            }
        }
        self.cache = cache;
        Ok(tensors)
    }

    fn cache(&self) -> BackendResult<TensorMap> {
        let mut tensors = TensorMap::new();
        if self.task.has_cache() {
            for (layer, entry) in self.cache.layers().iter().enumerate() {
                tensors.insert(OutputName::PresentKey(layer), array(&entry.key)?);
                tensors.insert(OutputName::PresentValue(layer), array(&entry.value)?);
            }
        }
        Ok(tensors)
    }

    fn truncate(&mut self, tokens: usize) -> BackendResult<()> {
        self.cache.truncate(tokens).map_err(failed)
    }
}

/// A Candle tensor as an array of the same shape.
fn array(tensor: &candle_core::Tensor) -> BackendResult<ArrayD<f32>> {
    let shape = IxDyn(tensor.dims());
    let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(failed)?;
    ArrayD::from_shape_vec(shape, values).map_err(failed)
}

fn failed(error: impl Into<BoxError>) -> BackendError {
    BackendError::Run { backend: NAME, source: error.into() }
}
