//! A cache that tract updates in place: the buffers are moved into the graph and out of it again.

use std::sync::Arc;

use jetmoe_artifact::{ElementType, InputName, Signature};
use jetmoe_backend::Result;
use jetmoe_backend::kv_cache::{CacheBuffer, InPlaceGraph, PackedInputs, RunOutput, copy_row};
use jetmoe_backend::trace::StepTracer;
use ndarray::ArrayD;
use tract_onnx::prelude::*;

use crate::graph::{Shared, catch_panics, run_error, to_array, traced};

/// A graph with the trace of one session.
#[derive(Debug)]
pub(crate) struct MovedCacheGraph {
    pub(crate) shared: Arc<Shared>,
    pub(crate) tracer: Option<StepTracer>,
}

/// Runs the graph over buffers that it updates.
fn call(
    shared: &Shared,
    inputs: &PackedInputs,
    buffers: &mut [CacheBuffer<Tensor>],
) -> TractResult<RunOutput> {
    let mut values = tvec![];
    for input in &shared.inputs {
        values.push(match input.name {
            InputName::InputIds => inputs.ids.clone().into_tvalue(),
            InputName::AttentionMask => inputs.mask.clone().into_tvalue(),
            InputName::PositionIds => inputs.positions.clone().into_tvalue(),
            InputName::LogitsToKeep => tensor1(&[inputs.logits_to_keep]).into_tvalue(),
            InputName::PastKey(_) | InputName::PastValue(_) => {
                let buffer = buffers.iter_mut().find(|buffer| buffer.past == input.name);
                let buffer =
                    buffer.ok_or_else(|| TractError::msg(format!("no buffer for {}", input.name)))?;
                std::mem::take(&mut buffer.buffer).into_tvalue()
            }
        });
    }
    let (outputs, time) = shared.run(values, &inputs.cancellation)?;
    let mut others = Vec::new();
    for (name, value) in shared.outputs.iter().zip(outputs) {
        match buffers.iter_mut().find(|buffer| buffer.present == *name) {
            Some(buffer) => buffer.buffer = value.into_tensor(),
            None => others.push((*name, to_array(value.into_tensor())?)),
        }
    }
    Ok((others, time))
}

impl InPlaceGraph for MovedCacheGraph {
    type Buffer = Tensor;

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn allocate(&self, _element: ElementType, shape: &[usize]) -> Result<Tensor> {
        // graphs in float16 have no in-place cache in tract
        catch_panics(|| Tensor::zero::<f32>(shape)).map_err(run_error)
    }

    fn read(&self, buffer: &Tensor) -> Result<ArrayD<f32>> {
        catch_panics(|| to_array(buffer.clone())).map_err(run_error)
    }

    fn copy_row(&self, to: (&mut Tensor, usize), from: (&Tensor, usize), tokens: usize) -> Result<()> {
        let copied = catch_panics(|| {
            let (to_shape, from_shape) = (to.0.shape().to_vec(), from.0.shape().to_vec());
            if to_shape.len() != 4 || from_shape.len() != 4 {
                return Err(TractError::msg("an earlier step failed and took the cache with it"));
            }
            let mut target = to.0.try_as_plain_ram_mut()?;
            let source = from.0.try_as_plain_ram()?;
            let (target, source) = (target.as_slice_mut::<f32>()?, source.as_slice::<f32>()?);
            copy_row((target, &to_shape, to.1), (source, &from_shape, from.1), tokens);
            Ok(())
        });
        copied.map_err(run_error)
    }

    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<Tensor>]) -> Result<RunOutput> {
        let MovedCacheGraph { shared, tracer } = self;
        traced(tracer, || call(shared, inputs, buffers))
    }
}
