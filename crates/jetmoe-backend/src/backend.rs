//! A backend as a value.

use std::fmt::Debug;
use std::sync::Arc;

use jetmoe_artifact::{GraphRecord, Profile};
use jetmoe_kernels::Isa;

use crate::{Device, GraphSource, LoadOptions, LoadedGraph, MemoryShortage, Result};

/// A program that loads graphs and runs them: ONNX Runtime, tract, the Candle reference.
pub trait Backend: Debug + Send + Sync {
    /// Its name on the command line and in reports, as in `tract`.
    fn name(&self) -> &'static str;

    /// Version of a backend that is compiled in. `None`, the default, for one whose version is that of a shared library.
    fn version(&self) -> Option<&'static str> {
        None
    }

    /// Whether it computes on a device at all. By default only on the CPU.
    fn has_device(&self, device: &Device) -> bool {
        *device == Device::Cpu
    }

    /// Whether it can run a graph, and its preference for it.
    fn supports(&self, graph: &GraphRecord, options: &LoadOptions) -> Support;

    /// Whether products with quantized weights round activations to 8 bits, so that results are held to that tolerance.
    fn rounds_activations(&self, graph: &GraphRecord, options: &LoadOptions) -> bool;

    /// Peak memory of a graph in bytes, during and after loading. Pages of mapped files are excluded, because the system
    /// can reclaim them, and so is the cache, which grows with the text.
    fn estimate_memory(&self, graph: &GraphRecord, options: &LoadOptions) -> u64;

    /// What a graph lacks in memory of a device other than the CPU. `None`, the default, if it fits, or if it is unknown.
    fn device_shortage(&self, _graph: &GraphRecord, _device: &Device) -> Option<MemoryShortage> {
        None
    }

    /// Loads a graph of an artifact: the content that the source has in memory, with the weights of its data file.
    ///
    /// # Errors
    /// [`Error::LibraryNotFound`](crate::Error::LibraryNotFound) if this machine lacks the backend's library,
    /// [`Error::Load`](crate::Error::Load) if the backend rejects the graph.
    fn load(&self, source: &GraphSource<'_>, options: &LoadOptions) -> Result<Arc<dyn LoadedGraph>>;
}

/// Whether a backend can run a graph.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Support {
    /// It can. Of graphs of one precision the one with the highest preference is loaded.
    Yes {
        /// Rank of the graph compared with other graphs.
        preference: i32,
    },
    /// It cannot.
    No {
        /// Why, as a clause: "it has no bfloat16 arithmetic".
        reason: String,
    },
}

impl Support {
    /// Support by a backend that runs these profiles, in order of preference.
    pub fn by_profile(profiles: &[Profile], graph: &GraphRecord, options: &LoadOptions) -> Self {
        let Some(place) = profiles.iter().position(|profile| *profile == graph.profile) else {
            let known: Vec<String> = profiles.iter().map(Profile::to_string).collect();
            return Support::No { reason: format!("it runs the profiles {}", known.join(" and ")) };
        };
        let is_portable = graph.profile == Profile::Portable;
        // the operators of the other profiles always quantize activations
        let rounds = !options.int8_activations && graph.precision.format().is_quantized() && !is_portable;
        // the custom operators are slow if the processor has only the generic kernels
        let is_slow = graph.profile == Profile::Native && Isa::best() == Isa::Generic;
        // OpenVINO supports only some operators of the other profiles
        let is_split = matches!(options.device, Device::OpenVino(_)) && !is_portable;
        let penalty = place + if is_slow || is_split { 10 } else { 0 } + if rounds { 100 } else { 0 };
        Support::Yes { preference: -(penalty as i32) }
    }

    /// Whether it can.
    pub fn is_yes(&self) -> bool {
        matches!(self, Support::Yes { .. })
    }
}
