//! A graph whose inputs and outputs are bound to memory, for one session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_artifact::{InputName, OutputName};
use jetmoe_backend::{CancellationToken, Result};
use ndarray::{Array2, ArrayD};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::{DynTensor, Tensor, Value, ValueTypeMarker};

use crate::graph::{Shared, cancelled, run_error, to_array};

/// The bindings of one session.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) shared: Arc<Shared>,
    binding: IoBinding,
}

/// Tokens of a step.
pub(crate) struct Tokens<'a> {
    /// `[batch, new tokens]`
    pub(crate) ids: &'a Array2<i64>,
    /// `[batch, cached + new tokens]`
    pub(crate) mask: &'a Array2<i64>,
    /// `[batch, new tokens]`
    pub(crate) positions: &'a Array2<i64>,
    /// The value of `logits_to_keep`.
    pub(crate) logits_to_keep: i64,
}

/// Results of a step.
pub(crate) struct Results {
    /// Every output except the cache.
    pub(crate) arrays: Vec<(OutputName, ArrayD<f32>)>,
    /// The cache, where it was not bound to buffers.
    pub(crate) cache: Vec<(OutputName, DynTensor)>,
    /// How long the engine took.
    pub(crate) time: Duration,
}

impl Binding {
    pub(crate) fn new(shared: Arc<Shared>) -> Result<Self> {
        let session = shared.session.wait_for_ever();
        let binding = session.create_binding().map_err(run_error)?;
        drop(session);
        Ok(Binding { shared, binding })
    }

    /// Binds the tokens of a new step, and its results except for the cache, which come back to the host.
    pub(crate) fn begin(&mut self, tokens: &Tokens<'_>) -> ort::Result<()> {
        self.binding.clear();
        self.bind_past(InputName::InputIds, &int64_tensor(tokens.ids)?)?;
        self.bind_past(InputName::AttentionMask, &int64_tensor(tokens.mask)?)?;
        self.bind_past(InputName::PositionIds, &int64_tensor(tokens.positions)?)?;
        for index in 0..self.shared.signature.optional_inputs.len() {
            let name = self.shared.signature.optional_inputs[index].name;
            self.bind_past(name, &Tensor::from_array(([1_usize], vec![tokens.logits_to_keep]))?)?;
        }
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        for name in self.shared.outputs.iter().filter(|name| !name.is_cache()) {
            self.binding.bind_output_to_device(name.to_string(), &host)?;
        }
        Ok(())
    }

    /// Binds an input to a value.
    pub(crate) fn bind_past<T: ValueTypeMarker + ?Sized>(
        &mut self,
        name: InputName,
        value: &Value<T>,
    ) -> ort::Result<()> {
        self.binding.bind_input(name.to_string(), value)
    }

    /// Makes the graph write a part of the cache into a buffer.
    pub(crate) fn bind_present(&mut self, name: OutputName, buffer: &mut DynTensor) -> ort::Result<()> {
        self.binding.bind_output(name.to_string(), buffer)
    }

    /// Makes the graph allocate every part of the cache where caches are.
    pub(crate) fn bind_new_cache(&mut self) -> ort::Result<()> {
        let info = self.shared.cache_memory.info()?;
        for name in self.shared.outputs.iter().filter(|name| name.is_cache()) {
            self.binding.bind_output_to_device(name.to_string(), &info)?;
        }
        Ok(())
    }

    /// Runs the graph.
    pub(crate) fn run(&mut self, cancellation: &CancellationToken) -> ort::Result<Results> {
        let (options, _guard) = self.shared.run_options(cancellation)?;
        let mut session = self.shared.session.wait(cancellation).ok_or_else(cancelled)?;
        let start = Instant::now();
        let mut outputs = session.run_binding_with_options(&self.binding, &options)?;
        let time = start.elapsed();
        self.shared.check_cancelled(cancellation)?;
        let mut results = Results { arrays: Vec::new(), cache: Vec::new(), time };
        for name in &self.shared.outputs {
            let Some(value) = outputs.remove(name.to_string()) else { continue };
            if name.is_cache() {
                results.cache.push((*name, value.downcast()?));
            } else {
                results.arrays.push((*name, to_array(&value)?));
            }
        }
        Ok(results)
    }
}

fn int64_tensor(array: &Array2<i64>) -> ort::Result<Tensor<i64>> {
    Tensor::from_array((array.shape(), array.iter().copied().collect::<Vec<_>>()))
}
