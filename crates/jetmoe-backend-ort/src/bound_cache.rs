//! A cache that ONNX Runtime updates in place: past and present are bound to one buffer.

use std::sync::Arc;
use std::time::Instant;

use half::f16;
use jetmoe_artifact::{ElementType, InputName, OutputName, Signature};
use jetmoe_backend::Result;
use jetmoe_backend::kv_cache::{CacheBuffer, InPlaceGraph, PackedInputs, RunOutput, copy_row};
use ndarray::ArrayD;
use ort::memory::{AllocationDevice, Allocator, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::{DynTensor, PrimitiveTensorElementType, Tensor, TensorElementType};

use crate::graph::{Shared, cancelled, int64_tensor, run_error, sizes, step_error, to_array};

/// A graph with the bindings of one session.
#[derive(Debug)]
pub(crate) struct BoundGraph {
    shared: Arc<Shared>,
    binding: IoBinding,
}

impl BoundGraph {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let session = shared.session.wait_for_ever();
        let binding = session.create_binding().map_err(run_error)?;
        drop(session);
        Ok(BoundGraph { shared, binding })
    }

    fn call(
        &mut self,
        inputs: &PackedInputs,
        buffers: &mut [CacheBuffer<DynTensor>],
    ) -> ort::Result<RunOutput> {
        self.binding.clear();
        self.binding.bind_input(InputName::InputIds.to_string(), &int64_tensor(&inputs.ids)?)?;
        self.binding.bind_input(InputName::AttentionMask.to_string(), &int64_tensor(&inputs.mask)?)?;
        self.binding.bind_input(InputName::PositionIds.to_string(), &int64_tensor(&inputs.positions)?)?;
        for input in &self.shared.signature.optional_inputs {
            let number = Tensor::from_array(([1_usize], vec![inputs.logits_to_keep]))?;
            self.binding.bind_input(input.name.to_string(), &number)?;
        }
        for CacheBuffer { past, present, buffer } in buffers {
            self.binding.bind_input(past.to_string(), buffer)?;
            self.binding.bind_output(present.to_string(), buffer)?;
        }
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        let others: Vec<OutputName> =
            self.shared.outputs.iter().copied().filter(|name| !name.is_cache()).collect();
        for name in &others {
            self.binding.bind_output_to_device(name.to_string(), &host)?;
        }
        let (options, _guard) = self.shared.run_options(&inputs.cancellation)?;
        let mut session = self.shared.session.wait(&inputs.cancellation).ok_or_else(cancelled)?;
        let start = Instant::now();
        let mut outputs = session.run_binding_with_options(&self.binding, &options)?;
        let time = start.elapsed();
        self.shared.check_cancelled(&inputs.cancellation)?;
        let mut arrays = Vec::new();
        for name in others {
            if let Some(value) = outputs.remove(name.to_string()) {
                arrays.push((name, to_array(&value)?));
            }
        }
        Ok((arrays, time))
    }
}

impl InPlaceGraph for BoundGraph {
    type Buffer = DynTensor;

    fn signature(&self) -> &Signature {
        &self.shared.signature
    }

    fn allocate(&self, element: ElementType, shape: &[usize]) -> Result<DynTensor> {
        let element = match element {
            ElementType::Float16 => TensorElementType::Float16,
            _ => TensorElementType::Float32,
        };
        let shape: Vec<i64> = shape.iter().map(|size| *size as i64).collect();
        DynTensor::new(&Allocator::default(), element, shape).map_err(run_error)
    }

    fn read(&self, buffer: &DynTensor) -> Result<ArrayD<f32>> {
        to_array(buffer).map_err(run_error)
    }

    fn copy_row(&self, to: (&mut DynTensor, usize), from: (&DynTensor, usize), tokens: usize) -> Result<()> {
        let copied = if *from.0.data_type() == TensorElementType::Float16 {
            copy::<f16>(to, from, tokens)
        } else {
            copy::<f32>(to, from, tokens)
        };
        copied.map_err(run_error)
    }

    fn run(&mut self, inputs: &PackedInputs, buffers: &mut [CacheBuffer<DynTensor>]) -> Result<RunOutput> {
        self.call(inputs, buffers).map_err(|error| step_error(error, &inputs.cancellation))
    }
}

fn copy<T: PrimitiveTensorElementType + Copy>(
    (to, to_row): (&mut DynTensor, usize),
    (from, from_row): (&DynTensor, usize),
    tokens: usize,
) -> ort::Result<()> {
    let (from_shape, source) = from.try_extract_tensor::<T>()?;
    let (to_shape, target) = to.try_extract_tensor_mut::<T>()?;
    copy_row((target, &sizes(to_shape), to_row), (source, &sizes(from_shape), from_row), tokens);
    Ok(())
}
