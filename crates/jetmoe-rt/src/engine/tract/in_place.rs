//! A cache that tract updates in place: the buffers go into the graph and come out of it again.

use std::sync::Arc;

use jetmoe_artifact::{ElementType, InputName, Signature};
use ndarray::ArrayD;
use tract_onnx::prelude::*;

use super::{Recorder, Shared, guarded, recorded, run_error, to_array};
use crate::Result;
use crate::engine::in_place::{CacheBuffer, InPlaceEngine, PackedInputs, Returned, copy_row};

/// A graph with the trace of one session.
#[derive(Debug)]
pub(super) struct TractInPlace {
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Option<Recorder>,
}

/// Runs the graph over buffers that it updates.
fn call(
    shared: &Shared,
    inputs: &PackedInputs,
    buffers: &mut [CacheBuffer<Tensor>],
) -> TractResult<Returned> {
    let mut values = tvec![];
    for input in &shared.inputs {
        values.push(match input.name {
            InputName::InputIds => inputs.ids.clone().into_tvalue(),
            InputName::AttentionMask => inputs.mask.clone().into_tvalue(),
            InputName::PositionIds => inputs.positions.clone().into_tvalue(),
            InputName::LogitsToKeep => tensor1(&[inputs.keep]).into_tvalue(),
            InputName::PastKey(_) | InputName::PastValue(_) => {
                let buffer = buffers.iter_mut().find(|buffer| buffer.past == input.name);
                let buffer =
                    buffer.ok_or_else(|| TractError::msg(format!("no buffer for {}", input.name)))?;
                std::mem::take(&mut buffer.buffer).into_tvalue()
            }
        });
    }
    let (outputs, took) = shared.run(values)?;
    let mut others = Vec::new();
    for (name, value) in shared.outputs.iter().zip(outputs) {
        match buffers.iter_mut().find(|buffer| buffer.present == *name) {
            Some(buffer) => buffer.buffer = value.into_tensor(),
            None => others.push((*name, to_array(value.into_tensor())?)),
        }
    }
    Ok((others, took))
}

impl InPlaceEngine for TractInPlace {
    type Buffer = Tensor;

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn allocate(&self, _element: ElementType, shape: &[usize]) -> Result<Tensor> {
        // graphs in float16 have no cache in place in tract
        guarded(|| Tensor::zero::<f32>(shape)).map_err(run_error)
    }

    fn read(&self, buffer: &Tensor) -> Result<ArrayD<f32>> {
        guarded(|| to_array(buffer.clone())).map_err(run_error)
    }

    fn copy_row(&self, to: (&mut Tensor, usize), from: (&Tensor, usize), tokens: usize) -> Result<()> {
        let copied = guarded(|| {
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

    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<Tensor>]) -> Result<Returned> {
        let TractInPlace { shared, recorder } = self;
        recorded(recorder, || call(shared, inputs, buffers))
    }
}
