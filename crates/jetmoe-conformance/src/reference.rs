//! The Candle reference as a backend of `jetmoe-rt`.

use std::sync::Arc;

use jetmoe_artifact::{
    Artifact, GraphRecord, OptionalOutput, OutputName, Precision, Profile, Signature, Task,
};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_reference::{Cache, Inputs, Reference};
use jetmoe_rt::engine::{GraphSession, LoadedGraph, StepInputs, TensorMap};
use jetmoe_rt::{Error as RuntimeError, Model, available_memory};
use jetmoe_text::Tokenizer;
use ndarray::{ArrayD, IxDyn};

use crate::{Error, Result, StoredWeights};

/// Loads a checkpoint into the reference and wraps it as a model. It computes every output there is.
///
/// # Errors
/// A checkpoint without the head that the task needs, or one that does not fit into memory as float32.
pub fn reference_model(checkpoint: &Checkpoint, task: Task) -> Result<Model> {
    check_memory(checkpoint)?;
    wrapped(Reference::load(checkpoint)?, checkpoint, task)
}

/// [`reference_model`] with the weights that a graph holds: what the graph computes with, restored to float32.
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
    wrapped(Reference::load_replaced(checkpoint, &stored)?, checkpoint, record.task)
}

/// The reference holds everything as float32.
fn check_memory(checkpoint: &Checkpoint) -> Result<()> {
    let needed = checkpoint.tensors().parameters() * size_of::<f32>() as u64;
    match available_memory() {
        Some(available) if available < needed => Err(Error::ReferenceMemory { needed, available }),
        _ => Ok(()),
    }
}

fn wrapped(reference: Reference, checkpoint: &Checkpoint, task: Task) -> Result<Model> {
    let optional = OptionalOutput::ALL.iter().copied().collect();
    let signature = Signature::new(checkpoint.config(), task, Precision::F32, Profile::Portable, &optional);
    let graph = ReferenceGraph { reference: Arc::new(reference), signature, task };
    Ok(Model::from_graph(
        Arc::new(graph),
        checkpoint.config().clone(),
        task,
        Tokenizer::open(checkpoint.folder())?,
        checkpoint.generation_config()?,
    ))
}

#[derive(Debug)]
struct ReferenceGraph {
    reference: Arc<Reference>,
    signature: Signature,
    task: Task,
}

#[derive(Debug)]
struct ReferenceSession {
    reference: Arc<Reference>,
    task: Task,
    cache: Cache,
}

impl LoadedGraph for ReferenceGraph {
    fn runtime(&self) -> String {
        "reference (Candle)".to_owned()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn start(&self) -> jetmoe_rt::Result<Box<dyn GraphSession>> {
        let reference = Arc::clone(&self.reference);
        Ok(Box::new(ReferenceSession { reference, task: self.task, cache: Cache::new() }))
    }
}

impl GraphSession for ReferenceSession {
    fn run(&mut self, inputs: &StepInputs) -> jetmoe_rt::Result<TensorMap> {
        let row_major = |array: &ndarray::Array2<i64>| array.iter().copied().collect::<Vec<_>>();
        let input_ids = row_major(&inputs.input_ids);
        let inputs = Inputs {
            input_ids: &input_ids,
            attention_mask: &row_major(&inputs.attention_mask),
            position_ids: &row_major(&inputs.position_ids),
            batch_size: inputs.input_ids.nrows(),
            sequence_length: inputs.input_ids.ncols(),
        };
        // a task without a cache sees each batch alone
        let mut cache = if self.task.has_cache() { self.cache.clone() } else { Cache::new() };
        let outputs = self.reference.forward(&inputs, &mut cache).map_err(failed)?;
        let mut tensors = TensorMap::new();
        let mut put = |name, tensor: &candle_core::Tensor| -> jetmoe_rt::Result<()> {
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

    fn cache(&self) -> jetmoe_rt::Result<TensorMap> {
        let mut tensors = TensorMap::new();
        if self.task.has_cache() {
            for (layer, entry) in self.cache.layers().iter().enumerate() {
                tensors.insert(OutputName::PresentKey(layer), array(&entry.key)?);
                tensors.insert(OutputName::PresentValue(layer), array(&entry.value)?);
            }
        }
        Ok(tensors)
    }

    fn truncate(&mut self, tokens: usize) -> jetmoe_rt::Result<()> {
        self.cache.truncate(tokens).map_err(failed)
    }
}

/// A Candle tensor as an array of the same shape.
fn array(tensor: &candle_core::Tensor) -> jetmoe_rt::Result<ArrayD<f32>> {
    let shape = IxDyn(tensor.dims());
    let values = tensor.flatten_all().and_then(|flat| flat.to_vec1::<f32>()).map_err(failed)?;
    ArrayD::from_shape_vec(shape, values).map_err(failed)
}

fn failed(error: impl std::fmt::Display) -> RuntimeError {
    RuntimeError::Run { runtime: "reference".to_owned(), message: error.to_string() }
}
