//! The reference with something wrong in what it returns, for tests of what must find it.

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use jetmoe_artifact::{OutputName, Signature, Task};
use jetmoe_checkpoint::Checkpoint;
use jetmoe_rt::engine::{GraphSession, LoadedGraph, StepInputs, TensorMap};
use jetmoe_rt::{Model, Result};

use crate::reference_model;

/// Changes what a step returned; told the number of tokens that were cached before it.
type Spoil = Arc<dyn Fn(usize, &mut TensorMap) + Send + Sync>;

/// A model that is the reference but for what `spoil` does to its outputs. The cache is spoilt alike.
pub(crate) fn spoilt(
    fixture: &str,
    task: Task,
    spoil: impl Fn(usize, &mut TensorMap) + Send + Sync + 'static,
) -> Model {
    let checkpoint = Checkpoint::open(folder(fixture)).unwrap();
    let model = reference_model(&checkpoint, task).unwrap();
    let tokenizer = jetmoe_text::Tokenizer::open(checkpoint.folder()).unwrap();
    let generation_config = checkpoint.generation_config().unwrap();
    let graph = SpoiltGraph { model, spoil: Arc::new(spoil) };
    Model::from_graph(Arc::new(graph), checkpoint.config().clone(), task, tokenizer, generation_config)
}

/// A folder under `tests/fixtures`.
pub(crate) fn folder(fixture: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures").join(fixture)
}

/// Adds to one element of an output; `index` may be shorter than the output has dimensions, and is filled up with 0.
pub(crate) fn add(tensors: &mut TensorMap, name: OutputName, index: &[usize], difference: f32) {
    if let Some(tensor) = tensors.get_mut(&name) {
        let mut place = index.to_vec();
        place.resize(tensor.ndim(), 0);
        tensor[place.as_slice()] += difference;
    }
}

struct SpoiltGraph {
    model: Model,
    spoil: Spoil,
}

struct SpoiltSession {
    session: Box<dyn GraphSession>,
    spoil: Spoil,
}

impl LoadedGraph for SpoiltGraph {
    fn runtime(&self) -> String {
        "spoilt 1.0".to_owned()
    }

    fn signature(&self) -> &Signature {
        self.model.graph().signature()
    }

    fn start(&self) -> Result<Box<dyn GraphSession>> {
        let session = self.model.graph().start()?;
        Ok(Box::new(SpoiltSession { session, spoil: Arc::clone(&self.spoil) }))
    }
}

impl GraphSession for SpoiltSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let cached = inputs.attention_mask.ncols() - inputs.input_ids.ncols();
        let mut tensors = self.session.run(inputs)?;
        (self.spoil)(cached, &mut tensors);
        Ok(tensors)
    }

    fn cache(&self) -> Result<TensorMap> {
        let mut tensors = self.session.cache()?;
        (self.spoil)(0, &mut tensors);
        Ok(tensors)
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        self.session.truncate(tokens)
    }
}

impl fmt::Debug for SpoiltGraph {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoiltGraph").finish_non_exhaustive()
    }
}

impl fmt::Debug for SpoiltSession {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SpoiltSession").finish_non_exhaustive()
    }
}
