//! A graph whose inputs and outputs are bound to memory, for one session.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jetmoe_artifact::{InputName, OutputName};
use jetmoe_backend::CancellationToken;
use ndarray::{Array2, ArrayD};
use ort::memory::{AllocationDevice, AllocatorType, MemoryInfo, MemoryType};
use ort::session::IoBinding;
use ort::value::{DynTensor, Tensor, Value, ValueTypeMarker};

use crate::graph::{Shared, cancelled, to_array};

/// The bindings of one session.
#[derive(Debug)]
pub(crate) struct Binding {
    pub(crate) shared: Arc<Shared>,
    /// None before the first step, whose turn makes it.
    binding: Option<IoBinding>,
}

/// Tokens of a step.
pub(crate) struct Tokens<'a> {
    /// `[batch, new tokens]`
    pub(crate) ids: &'a Array2<i64>,
    /// `[batch, cached + new tokens]`
    pub(crate) mask: &'a Array2<i64>,
    /// `[batch, new tokens]`
    pub(crate) positions: &'a Array2<i64>,
    /// `[sequences, 3]`; none where the mask says which tokens are whose.
    pub(crate) sequences: &'a Array2<i64>,
    /// The value of `logits_to_keep`.
    pub(crate) logits_to_keep: i64,
    /// Stops the step.
    pub(crate) cancellation: &'a CancellationToken,
}

/// A step while its inputs and outputs are bound. They are released with it, so that nothing of a step is in memory after it.
pub(crate) struct Step<'a> {
    shared: &'a Shared,
    binding: &'a mut IoBinding,
    cancellation: &'a CancellationToken,
    returns_cache: bool,
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
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Binding { shared, binding: None }
    }

    /// Begins a step: binds its tokens, and its results except for the cache, which come back to the host.
    pub(crate) fn begin<'a>(&'a mut self, tokens: &Tokens<'a>) -> ort::Result<Step<'a>> {
        let shared = &*self.shared;
        let binding = match &mut self.binding {
            Some(binding) => binding,
            none => {
                let session = shared.session.wait(tokens.cancellation).ok_or_else(cancelled)?;
                none.insert(session.create_binding()?)
            }
        };
        let mut step = Step { shared, binding, cancellation: tokens.cancellation, returns_cache: false };
        step.bind_input(InputName::InputIds, &int64_tensor(tokens.ids)?)?;
        step.bind_input(InputName::AttentionMask, &int64_tensor(tokens.mask)?)?;
        step.bind_input(InputName::PositionIds, &int64_tensor(tokens.positions)?)?;
        for input in &shared.signature.optional_inputs {
            let value = match input.name {
                InputName::Sequences => int64_tensor(tokens.sequences)?,
                _ => Tensor::from_array(([1_usize], vec![tokens.logits_to_keep]))?,
            };
            step.bind_input(input.name, &value)?;
        }
        let host = MemoryInfo::new(AllocationDevice::CPU, 0, AllocatorType::Device, MemoryType::CPUOutput)?;
        for name in shared.outputs.iter().filter(|name| !name.is_cache()) {
            step.binding.bind_output_to_device(name.to_string(), &host)?;
        }
        Ok(step)
    }
}

impl Step<'_> {
    /// Binds an input to a value.
    pub(crate) fn bind_input<T: ValueTypeMarker + ?Sized>(
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
        self.returns_cache = true;
        Ok(())
    }

    /// Runs the graph.
    pub(crate) fn run(self) -> ort::Result<Results> {
        let shared = self.shared;
        let (options, _guard) = shared.run_options(self.cancellation)?;
        let mut session = shared.session.wait(self.cancellation).ok_or_else(cancelled)?;
        let start = Instant::now();
        let mut outputs = session.run_binding_with_options(self.binding, &options)?;
        let time = start.elapsed();
        shared.check_cancelled(self.cancellation)?;
        let mut results = Results { arrays: Vec::new(), cache: Vec::new(), time };
        for name in shared.outputs.iter().filter(|name| self.returns_cache || !name.is_cache()) {
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

impl Drop for Step<'_> {
    fn drop(&mut self) {
        self.binding.clear();
    }
}

fn int64_tensor(array: &Array2<i64>) -> ort::Result<Tensor<i64>> {
    Tensor::from_array((array.shape(), array.iter().copied().collect::<Vec<_>>()))
}
