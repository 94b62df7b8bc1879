//! Fault injection: the reference with an error in what it returns, for tests of the comparisons that must find it.

use std::fmt;
use std::sync::Arc;

use jetmoe_artifact::{OutputName, Signature, Task};
use jetmoe_checkpoint::{Checkpoint, ModelConfig};
use jetmoe_rt::{BackendError, GraphSession, LoadedGraph, Model, StepInputs, TensorMap};
use jetmoe_testing::fixtures;

use crate::reference_model;

/// Changes the outputs of a step; the first argument is the number of tokens cached before it.
type Fault = Arc<dyn Fn(usize, &mut TensorMap) + Send + Sync>;

/// The reference over a checkpoint of the fixtures, with a fault in its outputs and its cache.
pub(crate) fn faulty_model(
    fixture: &str,
    task: Task,
    fault: impl Fn(usize, &mut TensorMap) + Send + Sync + 'static,
) -> Model {
    faulty_model_with(fixture, task, |_| (), fault)
}

/// As [`faulty_model`], with another configuration of the model than that of its graph.
pub(crate) fn faulty_model_with(
    fixture: &str,
    task: Task,
    change: impl FnOnce(&mut ModelConfig),
    fault: impl Fn(usize, &mut TensorMap) + Send + Sync + 'static,
) -> Model {
    let checkpoint = Checkpoint::open(fixtures::checkpoint(fixture)).unwrap();
    let model = reference_model(&checkpoint, task).unwrap();
    let tokenizer = jetmoe_text::Tokenizer::open(checkpoint.folder()).unwrap();
    let generation_config = checkpoint.generation_config().unwrap();
    let graph = FaultyGraph { model, fault: Arc::new(fault) };
    let mut config = checkpoint.config().clone();
    change(&mut config);
    Model::from_graph(Arc::new(graph), config, task, tokenizer, generation_config)
}

/// Adds to one element of an output; missing dimensions of `index` are 0.
pub(crate) fn add(tensors: &mut TensorMap, name: OutputName, index: &[usize], difference: f32) {
    if let Some(tensor) = tensors.get_mut(&name) {
        let mut index = index.to_vec();
        index.resize(tensor.ndim(), 0);
        tensor[index.as_slice()] += difference;
    }
}

struct FaultyGraph {
    model: Model,
    fault: Fault,
}

struct FaultySession {
    session: Box<dyn GraphSession>,
    fault: Fault,
}

impl LoadedGraph for FaultyGraph {
    fn backend(&self) -> String {
        "faulty 1.0".to_owned()
    }

    fn signature(&self) -> &Signature {
        self.model.graph().signature()
    }

    fn start(&self) -> Result<Box<dyn GraphSession>, BackendError> {
        let session = self.model.graph().start()?;
        Ok(Box::new(FaultySession { session, fault: Arc::clone(&self.fault) }))
    }
}

impl GraphSession for FaultySession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap, BackendError> {
        let cached = inputs.attention_mask.ncols() - inputs.input_ids.ncols();
        let mut tensors = self.session.run(inputs)?;
        (self.fault)(cached, &mut tensors);
        Ok(tensors)
    }

    fn cache(&self) -> Result<TensorMap, BackendError> {
        let mut tensors = self.session.cache()?;
        (self.fault)(0, &mut tensors);
        Ok(tensors)
    }

    fn truncate(&mut self, tokens: usize) -> Result<(), BackendError> {
        self.session.truncate(tokens)
    }
}

impl fmt::Debug for FaultyGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyGraph").finish_non_exhaustive()
    }
}

impl fmt::Debug for FaultySession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultySession").finish_non_exhaustive()
    }
}
