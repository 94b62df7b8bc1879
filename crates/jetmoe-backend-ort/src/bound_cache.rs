//! A cache that ONNX Runtime updates in place: past and present are bound to one buffer.

use std::sync::Arc;

use jetmoe_artifact::{ElementType, Signature};
use jetmoe_backend::Result;
use jetmoe_backend::kv_cache::{CacheBuffer, CachePlace, InPlaceGraph, PackedInputs, RunOutput};
use ndarray::ArrayD;
use ort::value::DynTensor;

use crate::binding::{Binding, Tokens};
use crate::graph::{Shared, run_error, step_error};

/// A graph with the bindings of one session.
#[derive(Debug)]
pub(crate) struct BoundGraph {
    binding: Binding,
}

impl BoundGraph {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        BoundGraph { binding: Binding::new(shared) }
    }

    fn call(
        &mut self,
        inputs: &PackedInputs,
        buffers: &mut [CacheBuffer<DynTensor>],
    ) -> ort::Result<RunOutput> {
        let mut step = self.binding.begin(&Tokens {
            ids: &inputs.ids,
            mask: &inputs.mask,
            positions: &inputs.positions,
            sequences: &inputs.sequences,
            logits_to_keep: inputs.logits_to_keep,
            cancellation: &inputs.cancellation,
        })?;
        for CacheBuffer { past, present, buffer } in buffers {
            step.bind_input(*past, buffer)?;
            step.bind_present(*present, buffer)?;
        }
        let results = step.run()?;
        Ok((results.arrays, results.time))
    }
}

impl InPlaceGraph for BoundGraph {
    type Buffer = DynTensor;

    fn signature(&self) -> &Signature {
        &self.binding.shared.signature
    }

    fn allocate(&self, _element: ElementType, shape: &[usize]) -> Result<DynTensor> {
        self.binding.shared.cache_memory.allocate(shape).map_err(run_error)
    }

    fn read(&self, buffer: &DynTensor) -> Result<ArrayD<f32>> {
        self.binding.shared.cache_memory.read(buffer).map_err(run_error)
    }

    fn copy_tokens(
        &self,
        to: (&mut DynTensor, CachePlace),
        from: (&DynTensor, CachePlace),
        tokens: usize,
    ) -> Result<()> {
        self.binding.shared.cache_memory.copy_tokens(to, from, tokens).map_err(run_error)
    }

    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<DynTensor>]) -> Result<RunOutput> {
        self.call(inputs, buffers).map_err(|error| step_error(error, &inputs.cancellation))
    }
}
