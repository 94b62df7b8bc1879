//! A session of a graph that returns a longer cache in each step, which is an input of the next one.

use std::sync::Arc;
use std::time::Duration;

use half::f16;
use jetmoe_artifact::{ElementType, InputName, InputSpec, OutputName};
use jetmoe_backend::contract::{check_shapes, past_shape};
use jetmoe_backend::{GraphSession, Result, StepInputs, TensorMap};
use jetmoe_format::SEQUENCE_NUMBERS;
use ndarray::Array2;
use ort::value::{DynTensor, Tensor};

use crate::binding::{Binding, Results, Tokens};
use crate::graph::{Shared, run_error, sizes, step_error};

/// A batch of sequences in ONNX Runtime.
#[derive(Debug)]
pub(crate) struct AppendSession {
    binding: Binding,
    /// The cache as ONNX Runtime returned it, input of the next step; empty before the first step.
    cache: Vec<(OutputName, DynTensor)>,
    /// Duration of the last step.
    backend_time: Option<Duration>,
}

impl AppendSession {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        AppendSession { binding: Binding::new(shared), cache: Vec::new(), backend_time: None }
    }

    fn step(&mut self, inputs: &StepInputs) -> ort::Result<Results> {
        let shared = self.binding.shared.clone();
        let masked = Array2::zeros((0, SEQUENCE_NUMBERS));
        let mut step = self.binding.begin(&Tokens {
            ids: &inputs.input_ids,
            mask: &inputs.attention_mask,
            positions: &inputs.position_ids,
            sequences: &masked,
            logits_to_keep: inputs.logits.as_input(),
            cancellation: &inputs.cancellation,
        })?;
        for input in &shared.signature.inputs {
            let present = match input.name {
                InputName::PastKey(layer) => OutputName::PresentKey(layer),
                InputName::PastValue(layer) => OutputName::PresentValue(layer),
                _ => continue,
            };
            match self.cache.iter().find(|(cached, _)| *cached == present) {
                Some((_, value)) => step.bind_input(input.name, value)?,
                None => step.bind_input(input.name, &no_tokens(input, inputs.input_ids.nrows())?)?,
            }
        }
        step.bind_new_cache()?;
        step.run()
    }
}

impl GraphSession for AppendSession {
    fn run(&mut self, inputs: &StepInputs) -> Result<TensorMap> {
        let results = self.step(inputs).map_err(|error| step_error(error, &inputs.cancellation))?;
        let shapes = results.arrays.iter().map(|(name, array)| (*name, array.shape().to_vec()));
        let shapes = shapes.chain(results.cache.iter().map(|(name, tensor)| (*name, sizes(tensor.shape()))));
        check_shapes(&self.binding.shared.signature, inputs.into(), shapes)?;
        self.cache = results.cache;
        self.backend_time = Some(results.time);
        Ok(results.arrays.into_iter().collect())
    }

    fn backend_time(&self) -> Option<Duration> {
        self.backend_time
    }

    fn cache(&self) -> Result<TensorMap> {
        let memory = &self.binding.shared.cache_memory;
        let copies = self.cache.iter().map(|(name, value)| Ok((*name, memory.read(value)?)));
        copies.collect::<ort::Result<TensorMap>>().map_err(run_error)
    }

    fn truncate(&mut self, tokens: usize) -> Result<()> {
        let memory = &self.binding.shared.cache_memory;
        let cache = if tokens == 0 { &[] } else { self.cache.as_slice() };
        let kept = cache.iter().map(|(name, value)| Ok((*name, memory.first_tokens(value, tokens)?)));
        self.cache = kept.collect::<ort::Result<_>>().map_err(run_error)?;
        Ok(())
    }
}

/// A part of the cache before the first step.
fn no_tokens(input: &InputSpec, batch_size: usize) -> ort::Result<DynTensor> {
    let shape = past_shape(input, batch_size, 0);
    Ok(match input.element {
        ElementType::Float16 => Tensor::from_array((shape, Vec::<f16>::new()))?.upcast(),
        _ => Tensor::from_array((shape, Vec::<f32>::new()))?.upcast(),
    })
}
